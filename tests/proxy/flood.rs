//! More than anybody needs: connections by the thousand, and HTTP/2 frames that cost their sender nothing.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::network::{Running, allow, alone, in_internet, network};
use crate::programs::program;
use crate::tls::Tls;

/// Resident memory of the process.
///
/// # Units
///
/// KiB.
pub fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Gives back what it gets; says when it listens.
const ECHO: &str = "
import asyncio, sys
async def serve(reader, writer):
    while data := await reader.read(100):
        writer.write(data)
async def main():
    server = await asyncio.start_server(serve, sys.argv[1], 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
";

/// Opens tunnels, sends a byte through each once all are there, and holds them until its input ends.
const CLIENTS: &str = "
import socket, sys
proxy, target, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
def head(stream):
    text = b''
    while not text.endswith(b'\\r\\n\\r\\n'):
        text += stream.recv(1)
    return text
held = []
for _ in range(count):
    stream = socket.create_connection(('127.0.0.1', proxy))
    stream.sendall(f'CONNECT {target} HTTP/1.1\\r\\n\\r\\n'.encode())
    assert head(stream).startswith(b'HTTP/1.1 200'), 'refused'
    held.append(stream)
for stream in held:
    stream.sendall(b'x')
for stream in held:
    assert stream.recv(1) == b'x'
print('held', flush=True)
sys.stdin.read()
";

/// A script at work; killed when dropped.
struct Script(Child);

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn script(python: &str, text: &str, arguments: &[String]) -> Script {
    let mut command = Command::new(python);
    command.args(["-I", "-c", text]).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    Script(command.spawn().unwrap())
}

/// The first line that it says.
async fn said(script: &mut Script) -> String {
    let output = script.0.stdout.take().unwrap();
    let read = move || {
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).unwrap();
        line.trim().to_owned()
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// Tunnels to be held.
const TUNNELS: u64 = 10_000;
/// Descriptors that the proxy takes for no tunnel.
const KEPT_FREE: u64 = 192;

/// Has this process open so many files, past the hard limit where it may; says how many it may.
fn open_files(wanted: u64) -> u64 {
    let maximum = getrlimit(Resource::Nofile).maximum;
    if maximum.is_some_and(|maximum| maximum < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: Some(wanted) };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            return wanted;
        }
    }
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    maximum.unwrap_or(u64::MAX)
}

#[test]
fn ten_thousand_tunnels_are_held() {
    alone("flood::ten_thousand_tunnels_are_held", || {
        let Some(python) = program("python3") else { return };
        // The others' ends are in processes of their own: each tunnel takes two descriptors of this one, and as many as the proxy
        // keeps for all else stay free.
        let tunnels = (open_files(2 * TUNNELS + KEPT_FREE).saturating_sub(KEPT_FREE) / 2).min(TUNNELS);
        if tunnels < TUNNELS {
            eprintln!("ONLY {tunnels} OF {TUNNELS}: this process may have no more descriptors, nor raise the limit");
        }
        network(move || async move {
            let mut echo = in_internet(|| script(&python, ECHO, &["203.0.113.9".to_owned()]));
            let port = said(&mut echo).await;
            let proxy = allow(&["web.example"]).limits(|limits| limits.connections = TUNNELS as usize).serve();
            let target = format!("web.example:{port}");
            let (begun, memory) = (Instant::now(), resident());
            let arguments = [proxy.address.port().to_string(), target.clone(), tunnels.to_string()];
            let mut clients = script(&python, CLIENTS, &arguments);
            assert_eq!(said(&mut clients).await, "held");
            let each = (resident() - memory) as f64 / tunnels as f64;
            println!("{tunnels} tunnels held after {:?}, {each:.1} KiB each", begun.elapsed());
            // One more is told so, and does not wait for any of them to end.
            let answer = proxy.ask(format!("CONNECT {target} HTTP/1.1\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            assert!(each < 100.0, "{each} KiB a tunnel");
        });
    });
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub const HEADERS: u8 = 1;
const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const CONTINUATION: u8 = 9;
const WINDOW_UPDATE: u8 = 8;

/// A whole request in HPACK, with its authority as a literal: GET https / .
fn request(port: u16) -> Vec<u8> {
    let authority = format!("web.example:{port}");
    let mut block = vec![0x82, 0x87, 0x84, 0x01, u8::try_from(authority.len()).unwrap()];
    block.extend(authority.bytes());
    block
}

/// Sends `flood` again and again until the other end has had enough, and says after how many bytes.
async fn until_it_ends(client: TlsStream<TcpStream>, flood: &[u8], most: usize) -> Option<usize> {
    let (mut read, mut write) = tokio::io::split(client);
    let reading = tokio::spawn(async move {
        let mut scrap = vec![0; 1 << 16];
        while matches!(read.read(&mut scrap).await, Ok(1..)) {}
    });
    let mut sent = 0;
    while sent < most && !reading.is_finished() {
        match timeout(Duration::from_secs(20), write.write_all(flood)).await.expect("the flood is taken or refused") {
            Ok(()) => sent += flood.len(),
            Err(_) => break,
        }
    }
    let ended = timeout(Duration::from_secs(2), reading).await.is_ok();
    ended.then_some(sent)
}

#[test]
fn floods_of_frames_end_their_own_connection_alone() {
    alone("flood::floods_of_frames_end_their_own_connection_alone", || {
        network(|| async {
            let tls = Tls::new();
            let port = tls.origin(&["h2"], |_| async { Response::new(Full::from("hi").boxed()) });
            let proxy = allow(&["web.example"])
                .secret(&format!("T=env:T,to=web.example:{port}"), "a value of some length")
                .trusting(&tls)
                .serve();
            let open = async || {
                let mut client = tls.dial(&proxy, port, &["h2"]).await;
                client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
                client.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
                client
            };
            let alive = async |proxy: &Running, after: &str| {
                let client = tls.dial(proxy, port, &["http/1.1", "h2"]).await;
                assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "{after}");
            };
            let memory = resident();

            // Rapid reset: streams begun and taken back.
            let mut rapid = Vec::new();
            for stream in 0..20_000u32 {
                rapid.extend(frame(HEADERS, 5, 2 * stream + 1, &request(port)));
                rapid.extend(frame(RESET, 0, 2 * stream + 1, &8u32.to_be_bytes()));
            }
            let client = open().await;
            let sent = until_it_ends(client, &rapid, rapid.len()).await;
            println!("rapid reset: ended after {sent:?} of {} bytes", rapid.len());
            assert!(sent.is_some());
            alive(&proxy, "rapid reset").await;

            // A head that never ends.
            let mut client = open().await;
            client.write_all(&frame(HEADERS, 0, 1, &request(port))).await.unwrap();
            let more: Vec<u8> = (0..64)
                .flat_map(|_| frame(CONTINUATION, 0, 1, &[&[0x00, 1, b'a', 100][..], &[b'b'; 100]].concat()))
                .collect();
            let sent = until_it_ends(client, &more, 64 << 20).await;
            println!("continuation: ended after {sent:?}");
            assert!(sent.is_some_and(|sent| sent < 16 << 20));
            alive(&proxy, "continuation").await;

            // Empty frames that go on for ever.
            let mut client = open().await;
            client.write_all(&frame(HEADERS, 0, 1, &request(port))).await.unwrap();
            let more: Vec<u8> = (0..1024).flat_map(|_| frame(CONTINUATION, 0, 1, &[])).collect();
            let sent = until_it_ends(client, &more, 16 << 20).await;
            println!("empty continuation: ended after {sent:?}");
            alive(&proxy, "empty continuation").await;

            // What has to be answered, over and over: each answer is small, and they are not piled up.
            for (name, one) in [("settings", frame(SETTINGS, 0, 0, &[])), ("ping", frame(PING, 0, 0, &[7; 8]))] {
                let sent = until_it_ends(open().await, &one.repeat(4096), 8 << 20).await;
                println!("{name}: ended after {sent:?}");
                alive(&proxy, name).await;
            }
            let grown = resident().saturating_sub(memory);
            println!("{grown} KiB more than before");
            assert!(grown < 64 * 1024, "{grown} KiB");
        });
    });
}

#[test]
fn connections_that_nobody_reads_hold_no_more_than_their_share() {
    const CONNECTIONS: usize = 96;
    alone("flood::connections_that_nobody_reads_hold_no_more_than_their_share", || {
        network(|| async {
            let tls = Tls::new();
            let sent = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&sent);
            let port = tls.origin(&["h2"], move |_| {
                let count = Arc::clone(&count);
                let endless = futures::stream::repeat_with(move || {
                    count.fetch_add(1, Ordering::Relaxed);
                    Ok(Frame::data(Bytes::from_static(&[0x5a; 1 << 14])))
                });
                std::future::ready(Response::new(BodyExt::boxed(StreamBody::new(endless))))
            });
            let proxy = allow(&["web.example"])
                .secret(&format!("T=env:T,to=web.example:{port}"), "a value of some length")
                .trusting(&tls)
                .serve();
            let before = resident();
            let mut held = Vec::new();
            for _ in 0..CONNECTIONS {
                let mut client = tls.dial(&proxy, port, &["h2"]).await;
                // Windows as wide as they get, as many streams as are taken, and not a byte read of what comes.
                let window = (i32::MAX as u32).to_be_bytes();
                let wide = [&[0, 4][..], &window].concat();
                let more = (i32::MAX as u32 - 0xffff).to_be_bytes();
                let mut said = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
                said.extend([frame(SETTINGS, 0, 0, &wide), frame(WINDOW_UPDATE, 0, 0, &more)].concat());
                said.extend((0..128).flat_map(|stream| frame(HEADERS, 5, 2 * stream + 1, &request(port))));
                client.write_all(&said).await.unwrap();
                held.push(client);
            }
            // Until the origin can say no more.
            let mut last = 0;
            for _ in 0..120 {
                tokio::time::sleep(Duration::from_millis(500)).await;
                let now = sent.load(Ordering::Relaxed);
                if now == last && now > 0 {
                    break;
                }
                last = now;
            }
            let grown = resident().saturating_sub(before) >> 10;
            println!("{CONNECTIONS} connections that nobody reads: {grown} MiB, after {} MiB sent", last >> 6);
            // 32 have 12 MiB each, the others a twentieth of that; the test's own ends are in this process, too.
            assert!(grown < 600, "{grown} MiB");
            drop(held);
        });
    });
}
