//! Servers that live in a namespace: sockets are opened inside, threads outside serve them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringfence::kernel::netns::Netns;

/// What a server does with a connection or a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serve {
    /// Answers every HTTP request with [`GREETING`](super::GREETING), over TCP.
    Http,
    /// Gives back every byte, over TCP.
    Echo,
    /// Gives back every datagram, over UDP.
    EchoUdp,
}

/// What listens on the internet's servers.
pub const INTERNET: &[(u16, Serve)] = &[
    (80, Serve::Http),
    (5432, Serve::Echo),
    (53, Serve::Echo),
    (853, Serve::Echo),
    (5353, Serve::EchoUdp),
    (53, Serve::EchoUdp),
];

/// How long a server may be blind to the end of its test.
const TICK: Duration = Duration::from_millis(20);

/// Running servers; they end when this is dropped.
pub struct Servers {
    ending: Arc<AtomicBool>,
    heard: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Servers {
    /// Opens every port on every address inside `netns`.
    pub fn start(netns: &Netns, addresses: &[&str], ports: &[(u16, Serve)]) -> Self {
        let mut servers = Self { ending: Arc::default(), heard: Arc::default(), threads: Vec::new() };
        for address in addresses {
            let address: IpAddr = address.parse().unwrap();
            for (port, serve) in ports {
                servers.add(netns, SocketAddr::from((address, *port)), *serve);
            }
        }
        servers
    }

    /// Opens one more port.
    pub fn add(&mut self, netns: &Netns, at: SocketAddr, serve: Serve) {
        let (ending, heard) = (self.ending.clone(), self.heard.clone());
        self.threads.push(match serve {
            Serve::EchoUdp => {
                let socket = netns.run(|| patiently(|| UdpSocket::bind(at))).unwrap();
                std::thread::spawn(move || echo_datagrams(&socket, &ending, &heard))
            }
            Serve::Http | Serve::Echo => {
                let listener = netns.run(|| patiently(|| TcpListener::bind(at))).unwrap();
                std::thread::spawn(move || accept(&listener, serve, &ending, &heard))
            }
        });
    }

    /// How many connections and datagrams have reached any of them.
    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::SeqCst)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a server panicked");
        }
    }
}

/// An IPv6 address is completed by a work queue of the kernel's, some milliseconds after it was added.
fn patiently<T>(mut bind: impl FnMut() -> std::io::Result<T>) -> T {
    let start = Instant::now();
    loop {
        match bind() {
            Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable && start.elapsed() < super::PATIENCE => {
                std::thread::sleep(Duration::from_millis(2));
            }
            bound => return bound.unwrap(),
        }
    }
}

fn echo_datagrams(socket: &UdpSocket, ending: &AtomicBool, heard: &AtomicU64) {
    socket.set_read_timeout(Some(TICK)).unwrap();
    let mut buffer = [0; 65536];
    while !ending.load(Ordering::SeqCst) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        heard.fetch_add(1, Ordering::SeqCst);
        // Whoever asked may be gone.
        let _ = socket.send_to(&buffer[..length], from);
    }
}

fn accept(listener: &TcpListener, serve: Serve, ending: &Arc<AtomicBool>, heard: &AtomicU64) {
    listener.set_nonblocking(true).unwrap();
    let mut connections = Vec::new();
    while !ending.load(Ordering::SeqCst) {
        let Ok((stream, _)) = listener.accept() else {
            let mut ready = [rustix::event::PollFd::new(listener, rustix::event::PollFlags::IN)];
            let tick = rustix::event::Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
            let _ = rustix::event::poll(&mut ready, Some(&tick));
            continue;
        };
        heard.fetch_add(1, Ordering::SeqCst);
        let ending = ending.clone();
        connections.push(std::thread::spawn(move || serve_stream(stream, serve, &ending)));
    }
    connections.into_iter().for_each(|connection| connection.join().unwrap());
}

fn serve_stream(mut stream: TcpStream, serve: Serve, ending: &AtomicBool) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(TICK)).unwrap();
    stream.set_write_timeout(Some(super::PATIENCE)).unwrap();
    let mut buffer = [0; 65536];
    let mut request = Vec::new();
    while !ending.load(Ordering::SeqCst) {
        let length = match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => length,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                continue;
            }
            Err(_) => return,
        };
        let written = match serve {
            Serve::Http => {
                request.extend_from_slice(&buffer[..length]);
                if !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    continue;
                }
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    super::GREETING.len()
                );
                let _ = stream.write_all((head + super::GREETING).as_bytes());
                return;
            }
            _ => stream.write_all(&buffer[..length]),
        };
        if written.is_err() {
            return;
        }
    }
}
