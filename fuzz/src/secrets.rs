//! The proxy with secrets to put in, asked by a client that may say anything, before an origin that gives everything back.

use std::cell::LazyCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use ringfence::policy::DnsName;
use ringfence::proxy::{Proxy, ProxyConfig, Resolve, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// The proxy must have answered and hung up by then.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the origin waits for more.
const SILENCE: Duration = Duration::from_millis(20);

/// With all that could be taken for a part of a request.
const VALUE: &str = "v&l=ue/../?#%0d \"\\";
const OTHER: &str = "another-value";

struct Here;

impl Resolve for Here {
    fn resolve<'a>(&'a self, _: &'a DnsName) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async { Ok(vec![Ipv4Addr::LOCALHOST.into()]) })
    }
}

struct World {
    runtime: Runtime,
    proxy: SocketAddr,
    /// Port of the origin, the same for every name.
    origin: u16,
    /// What the origin was sent, and for which host.
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Connections to the origin that have not ended.
    open: Arc<AtomicUsize>,
}

thread_local! {
    static WORLD: LazyCell<World> = LazyCell::new(|| {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listen = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port on loopback");
            let address = listener.local_addr().expect("its address");
            (listener, address)
        };
        let (origin, at) = listen();
        let origin_port = at.port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&heard);
        let open = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&open);
        runtime.spawn(async move {
            origin.set_nonblocking(true).expect("a listener");
            let origin = tokio::net::TcpListener::from_std(origin).expect("a listener");
            while let Ok((stream, _)) = origin.accept().await {
                let (tell, count) = (Arc::clone(&tell), Arc::clone(&count));
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    echo(stream, tell).await;
                    count.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        let (listener, proxy) = listen();
        let secret = |text: String, value: &str| {
            Secret::new(text.parse().expect("a credential"), value.into()).expect("a value")
        };
        let rules = [
            "127.0.0.0/8".to_owned(),
            format!("open.test:{origin_port}"),
            format!("* http://right.test:{origin_port}/a/*"),
        ];
        let config = ProxyConfig {
            allow: Some(rules.iter().map(|rule| rule.parse().expect("an entry")).collect()),
            secrets: Arc::new([
                secret(format!("T=env:T,to=* http://right.test:{origin_port}/a/*,in=header+query+path+body"), VALUE),
                secret(format!("U=env:U,to=POST http://right.test:{origin_port}/a/only,in=body"), OTHER),
            ]),
            ..ProxyConfig::default()
        };
        runtime.spawn(Proxy::new(config, Arc::new(Here)).serve(vec![listener], std::future::pending()));
        World { runtime, proxy, origin: origin_port, heard, open }
    });
}

/// Answers a request as soon as it is whole, or nothing more comes: gives it back as a header and as a body. What comes after it
/// is heard as well.
async fn echo(mut stream: TcpStream, tell: Arc<Mutex<Vec<Vec<u8>>>>) {
    let mut all = Vec::new();
    while !whole(&all) && matches!(timeout(SILENCE, stream.read_buf(&mut all)).await, Ok(Ok(1..))) {}
    // Each byte at its place: what is left out would put together what nobody has said.
    let shown = |byte: &u8| if (0x20..0x7f).contains(byte) { *byte } else { b'.' };
    let line: Vec<u8> = all.iter().map(shown).take(4096).collect();
    let head = [&b"HTTP/1.1 200 OK\r\nConnection: close\r\nX-Echo: "[..], &line, b"\r\n\r\n"].concat();
    let _ = stream.write_all(&[&head[..], &all].concat()).await;
    let _ = stream.shutdown().await;
    while let Ok(Ok(1..)) = timeout(SILENCE, stream.read_buf(&mut all)).await {}
    tell.lock().expect("nobody panics with it").push(all);
}

/// Whether a request that the proxy wrote has come to its end.
fn whole(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        return bytes.ends_with(b"0\r\n\r\n");
    }
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
    bytes.len() >= end + 4 + length.unwrap_or(0usize)
}

fn contains(bytes: &[u8], what: &str) -> bool {
    bytes.windows(what.len()).any(|window| window == what.as_bytes())
}

/// Sends the bytes, `PORT` in them read as the origin's port, and reads to the end. A value goes to the right host's rule alone,
/// and none comes back.
pub fn secrets(bytes: &[u8]) {
    WORLD.with(|world| {
        let port = world.origin.to_string();
        let mut request = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        while let Some(at) = rest.windows(4).position(|window| window == b"PORT") {
            request.extend_from_slice(&rest[..at]);
            request.extend_from_slice(port.as_bytes());
            rest = &rest[at + 4..];
        }
        request.extend_from_slice(rest);
        world.heard.lock().expect("nobody panics with it").clear();
        let talk = async {
            let mut client = TcpStream::connect(world.proxy).await.expect("the proxy listens");
            client.set_zero_linger().expect("a socket");
            // It may hang up on what it was told before it has read all.
            let _ = client.write_all(&request).await;
            let mut answer = Vec::new();
            // Whoever ends its side ends its request: it says so only when nothing more comes.
            while let Ok(Ok(1..)) = timeout(2 * SILENCE, client.read_buf(&mut answer)).await {}
            let _ = client.shutdown().await;
            let _ = client.read_to_end(&mut answer).await;
            drop(client);
            // The origin hears to the end what was meant for it.
            while world.open.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            answer
        };
        let answer = world.runtime.block_on(async { timeout(PATIENCE, talk).await });
        let answer = answer.expect("the proxy hangs up on a client that has said all");
        // In a tunnel the client has the origin to itself; then it may say the value's letters, but can't know them.
        let said = contains(bytes, OTHER) || contains(bytes, "v&l=ue") || contains(bytes, "v%26l%3Due");
        for value in [VALUE, OTHER, "v%26l%3Due", "v&l=ue"] {
            assert!(said || !contains(&answer, value), "a value came back: {}", answer.escape_ascii());
        }
        for heard in world.heard.lock().expect("nobody panics with it").iter() {
            let has = [VALUE, OTHER, "v%26l%3Due", "v&l=ue"].iter().any(|value| contains(heard, value));
            if said || !has {
                continue;
            }
            let head_end = heard.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(heard.len());
            let head = &heard[..head_end];
            let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let path = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
            assert!(path.starts_with(b"/a/"), "a value past the rule: {}", heard.escape_ascii());
            let plain = path.split(|byte| *byte == b'?').next().unwrap_or_default();
            assert!(plain.split(|byte| *byte == b'/').all(|segment| ![&b"."[..], b".."].contains(&segment)));
            let host = format!("right.test:{port}");
            assert!(contains(head, &host), "a value for another host: {}", heard.escape_ascii());
            // A line of the head is one the client wrote or the proxy did: none begins with what stands behind a line end.
            assert!(!contains(head, "\n\n") && !contains(head, "\r\r"));
        }
    });
}
