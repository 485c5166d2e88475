//! A network namespace for one test, with name servers written by hand.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use hickory_proto::op::Message;
use ringfence::dns::{Denial, Gate, Handed, HostFiles, HostResolver, Limits, Refused, Resolver, Sockets};
use ringfence::kernel::netns::Netns;
use ringfence::kernel::rtnetlink::{Batch, Request, Socket};
use ringfence::link::IfIndex;
use ringfence::policy::DnsName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};

use crate::support::skip;

pub const A: u16 = 1;
pub const CNAME: u16 = 5;
pub const SOA: u16 = 6;
pub const PTR: u16 = 12;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;
pub const HTTPS: u16 = 65;
pub const ANY: u16 = 255;

pub const REFUSED: u8 = 5;
pub const SERVFAIL: u8 = 2;
pub const FORMERR: u8 = 1;
pub const NXDOMAIN: u8 = 3;

/// Runs a test on one thread, in a namespace that has nothing but loopback.
pub fn alone<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    let made = Netns::create_with(|| {
        Socket::open().unwrap().commit(Batch::from([Request::up(IfIndex(1))])).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { timeout(Duration::from_secs(60), test()).await.expect("the test ends") });
    });
    if let Err(error) = made {
        skip(&format!("no network namespace to be had: {}", error.chain()));
    }
}

pub fn name(text: &str) -> DnsName {
    text.parse().unwrap()
}

/// A name as it goes over the wire.
pub fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// A record as it goes over the wire.
pub fn record(owner: &str, kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = wire(owner);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(ttl.to_be_bytes());
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    bytes
}

pub fn a(owner: &str, ttl: u32, address: [u8; 4]) -> Vec<u8> {
    record(owner, A, ttl, &address)
}

pub fn cname(owner: &str, to: &str) -> Vec<u8> {
    record(owner, CNAME, 60, &wire(to))
}

/// A zone's record that lets absence be believed for `minimum` seconds.
pub fn soa(zone: &str, minimum: u32) -> Vec<u8> {
    let mut data = [wire("ns.example"), wire("admin.example")].concat();
    for number in [1, 2, 3, 4, minimum] {
        data.extend(number.to_be_bytes());
    }
    record(zone, SOA, minimum, &data)
}

/// A question as a server gets it.
pub struct Asked {
    pub bytes: Vec<u8>,
    pub tcp: bool,
}

impl Asked {
    fn question_end(&self) -> usize {
        let mut at = 12;
        while self.bytes[at] != 0 {
            at += usize::from(self.bytes[at]) + 1;
        }
        at + 5
    }

    /// The name, in lower case.
    pub fn name(&self) -> String {
        let mut labels = Vec::new();
        let mut at = 12;
        while self.bytes[at] != 0 {
            let end = at + usize::from(self.bytes[at]) + 1;
            labels.push(String::from_utf8(self.bytes[at + 1..end].to_vec()).unwrap().to_lowercase());
            at = end;
        }
        labels.join(".")
    }

    pub fn kind(&self) -> u16 {
        let end = self.question_end();
        u16::from_be_bytes([self.bytes[end - 4], self.bytes[end - 3]])
    }

    pub fn has_edns(&self) -> bool {
        self.bytes[11] != 0
    }

    /// An answer with these records.
    pub fn reply(&self, code: u8, answers: &[Vec<u8>]) -> Vec<u8> {
        self.reply_with(code, answers, &[])
    }

    pub fn reply_with(&self, code: u8, answers: &[Vec<u8>], authority: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = self.bytes[..2].to_vec();
        bytes.extend([0x81, 0x80 | code, 0, 1]);
        bytes.extend((answers.len() as u16).to_be_bytes());
        bytes.extend((authority.len() as u16).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(&self.bytes[12..self.question_end()]);
        answers.iter().chain(authority).for_each(|record| bytes.extend(record));
        bytes
    }

    /// `A` gets the addresses, all else an empty answer.
    pub fn addresses(&self, ttl: u32, addresses: &[[u8; 4]]) -> Vec<u8> {
        let records: Vec<_> = addresses.iter().map(|address| a(&self.name(), ttl, *address)).collect();
        self.reply(0, if self.kind() == A { &records } else { &[] })
    }

    /// Cut short, over UDP.
    pub fn truncated(&self) -> Vec<u8> {
        let mut bytes = self.reply(0, &[]);
        bytes[2] |= 0x02;
        bytes
    }
}

/// A name server written by hand. Each question gets the messages that the handler gives.
pub struct Server {
    asked: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<String>>>,
    tasks: tokio::task::JoinSet<()>,
}

impl Server {
    pub async fn start(address: &str, handler: impl Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let mut server = Self { asked: Arc::default(), seen: Arc::default(), tasks: Default::default() };
        let handler = Arc::new(handler);
        // `fe80::1%1` is an address and an interface's number.
        let at: SocketAddr = match address.split_once('%') {
            Some((address, zone)) => SocketAddrV6::new(address.parse().unwrap(), 53, 0, zone.parse().unwrap()).into(),
            None => (address.parse::<IpAddr>().unwrap(), 53).into(),
        };
        let udp = UdpSocket::bind(at).await.unwrap();
        let tcp = TcpListener::bind(at).await.unwrap();
        let note = {
            let (asked_so_far, seen) = (Arc::clone(&server.asked), Arc::clone(&server.seen));
            move |bytes: Vec<u8>, tcp: bool| {
                let asked = Asked { bytes, tcp };
                asked_so_far.fetch_add(1, Ordering::SeqCst);
                let mut seen = seen.lock().unwrap();
                if seen.len() < 1000 {
                    seen.push(format!("{} {} {}", asked.name(), asked.kind(), if tcp { "tcp" } else { "udp" }));
                }
                asked
            }
        };
        let (noting, handling) = (note.clone(), Arc::clone(&handler));
        server.tasks.spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok((length, client)) = udp.recv_from(&mut buffer).await {
                for message in handling(&noting(buffer[..length].to_vec(), false)) {
                    let _ = udp.send_to(&message, client).await;
                }
            }
        });
        server.tasks.spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let Ok(length) = stream.read_u16().await else { continue };
                let mut bytes = vec![0; length.into()];
                let Ok(_) = stream.read_exact(&mut bytes).await else { continue };
                for message in handler(&note(bytes, true)) {
                    let _ =
                        stream.write_all(&[&(message.len() as u16).to_be_bytes(), message.as_slice()].concat()).await;
                }
            }
        });
        server
    }

    /// Ends it, and waits until its address is free.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }

    /// How many questions it got.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// What it was asked for, as in `web.example 1 udp`.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// A host's files in a folder of their own.
pub struct Host {
    pub folder: tempfile::TempDir,
    pub resolver: HostResolver,
}

impl Host {
    pub fn new(resolv_conf: &str, hosts: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let files = HostFiles { resolv_conf: at("resolv.conf"), hosts: at("hosts"), nsswitch: at("nsswitch.conf") };
        std::fs::write(&files.resolv_conf, resolv_conf).unwrap();
        std::fs::write(&files.hosts, hosts).unwrap();
        let resolver = HostResolver::new(files);
        Self { folder, resolver }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The addresses of a name, or what was said instead.
    pub async fn addresses(&self, text: &str) -> String {
        match self.resolver.addresses(&name(text)).await {
            Ok(all) => {
                all.iter().map(|one| format!("{} {}", one.address, one.ttl.as_secs())).collect::<Vec<_>>().join(", ")
            }
            Err(error) => error.to_string(),
        }
    }
}

/// A gate that covers all below `example`, notes what it is told, and refuses what it is told to refuse.
#[derive(Default)]
pub struct Door {
    pub admitted: Mutex<Vec<(String, Vec<Handed>)>>,
}

impl Gate for Door {
    fn covers(&self, name: &DnsName) -> bool {
        name.as_str().ends_with(".example") || name.as_str() == "db"
    }

    fn admit<'a>(&'a self, asked: &'a DnsName, addresses: &'a [Handed]) -> BoxFuture<'a, Result<(), Refused>> {
        Box::pin(async move {
            // Long enough that an answer which did not wait would be there first.
            sleep(Duration::from_millis(2)).await;
            let special = addresses.iter().find(|handed| handed.address == IpAddr::from([169, 254, 169, 254]));
            if let Some(handed) = special {
                return Err(Refused::Special { address: handed.address, class: "a cloud metadata address" });
            }
            if addresses.len() > 2000 {
                return Err(Refused::TooMany);
            }
            if asked.as_str().starts_with("broken") {
                let error = ringfence::Error::new(ringfence::ErrorKind::Kernel, "no");
                return Err(Refused::Failed(error));
            }
            self.admitted.lock().unwrap().push((asked.to_string(), addresses.to_vec()));
            Ok(())
        })
    }
}

/// A resolver at work on 127.0.0.1 and `::1`.
pub struct Serving {
    pub door: Arc<Door>,
    pub denials: Arc<Mutex<Vec<Denial>>>,
    pub answers: Arc<ringfence::dns::Answers>,
    task: tokio::task::JoinHandle<()>,
}

impl Serving {
    pub fn start(host: &Host, limits: Limits) -> Self {
        let door = Arc::new(Door::default());
        let denials: Arc<Mutex<Vec<Denial>>> = Arc::default();
        let told = Arc::clone(&denials);
        let answers: Arc<ringfence::dns::Answers> = Arc::default();
        let resolver = Resolver::new(host.resolver.clone(), door.clone())
            .answers(answers.clone())
            .limits(limits)
            .on_denial(Arc::new(move |denial| told.lock().unwrap().push(denial)));
        let sockets = Sockets {
            udp: vec![
                std::net::UdpSocket::bind("127.0.0.1:53").unwrap(),
                std::net::UdpSocket::bind("[::1]:53").unwrap(),
            ],
            tcp: vec![std::net::TcpListener::bind("127.0.0.1:53").unwrap()],
        };
        let task = tokio::spawn(async move { resolver.serve(sockets, std::future::pending()).await.unwrap() });
        Self { door, denials, answers, task }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A question, with EDNS if a size is given.
pub fn question(id: u16, name: &str, kind: u16, payload: Option<u16>) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(payload.is_some())]);
    bytes.extend(wire(name));
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    if let Some(payload) = payload {
        bytes.extend([0, 0, 41]);
        bytes.extend(payload.to_be_bytes());
        bytes.extend([0; 6]);
    }
    bytes
}

/// Sends these bytes to the resolver and gives what it says; `None` when it stays silent.
pub async fn tell(bytes: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect("127.0.0.1:53").await.unwrap();
    socket.send(bytes).await.unwrap();
    let mut buffer = vec![0; 65536];
    let length = timeout(Duration::from_secs(20), socket.recv(&mut buffer)).await.ok()?.unwrap();
    buffer.truncate(length);
    Some(buffer)
}

/// Asks the resolver over UDP.
pub async fn ask(name: &str, kind: u16, payload: Option<u16>) -> Message {
    let bytes = tell(&question(7, name, kind, payload)).await.expect("an answer");
    let message = Message::from_vec(&bytes).unwrap();
    assert_eq!(message.metadata.id, 7);
    message
}

/// Asks the resolver over TCP.
pub async fn ask_tcp(name: &str, kind: u16) -> Message {
    let mut stream = TcpStream::connect("127.0.0.1:53").await.unwrap();
    send(&mut stream, &question(8, name, kind, None)).await;
    receive(&mut stream).await.unwrap()
}

pub async fn send(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(&[&(message.len() as u16).to_be_bytes(), message].concat()).await.unwrap();
}

pub async fn receive(stream: &mut TcpStream) -> Option<Message> {
    let length = stream.read_u16().await.ok()?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await.ok()?;
    Some(Message::from_vec(&bytes).unwrap())
}

/// The code of an answer.
pub fn code(message: &Message) -> u8 {
    u16::from(message.metadata.response_code).try_into().unwrap()
}
