//! A host and the internet behind it: two network namespaces with a veth between them, and servers on the far side.
//!
//! Only file descriptors hold the namespaces, and only threads of this process serve in them: when it ends, however that is,
//! all of it is gone.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use ringfence::kernel::netns::Netns;
use ringfence::kernel::rtnetlink::{Batch, Request, RouteTo, Socket, Veth};
use ringfence::link::IfIndex;
use ringfence::{Error, ErrorKind, Result};

use super::dns::{self, Question};
use crate::io_error;

/// Addresses from the ranges for documentation (RFC 5737, RFC 3849): nobody's, wherever a packet should get lost.
const fn v6(low: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, low))
}
pub const WEB4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
pub const WEB6: IpAddr = v6(0x9);
pub const DATABASE4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5));
pub const DATABASE6: IpAddr = v6(0x5);
pub const RESOLVER4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 53));
pub const RESOLVER6: IpAddr = v6(0x53);

pub const HTTP: u16 = 80;
pub const DATABASE: u16 = 5432;
/// Where something answers that nobody inside may reach.
pub const SSH: u16 = 22;
pub const DNS: u16 = 53;

pub const WEB_NAME: &str = "web.example";
/// A name that is never asked for unless something got out.
pub const SECRET_NAME: &str = "secret.example";
/// What the web server says.
pub const PAGE: &str = "hello from the internet";

/// The host's end of the line, as its own namespace names it.
pub const UPLINK: &str = "up0";
const LOOPBACK: IfIndex = IfIndex(1);
const HOST4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const ROUTER4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 254);
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xfe);

/// How long a server waits for a client that says nothing.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(2));

/// The small internet, for as long as this process lives.
pub struct Internet {
    /// The namespace that plays the host.
    pub host: Netns,
    /// Whether this kernel has IPv6.
    pub ipv6: bool,
    seen: Arc<Seen>,
}

/// What arrived on the far side that should not, if there is a fence.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    questions: AtomicUsize,
}

impl Internet {
    /// Makes both namespaces, the line between them, and the servers.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Privilege`] without `CAP_SYS_ADMIN` and `CAP_NET_ADMIN`.
    pub fn build() -> Result<Self> {
        let (host, near) = Netns::create_with(Socket::open)?;
        let (inet, far) = Netns::create_with(Socket::open)?;
        let (mut near, mut far) = (near?, far?);
        for socket in [&mut near, &mut far] {
            socket.commit(Batch::from([Request::up(LOOPBACK)]))?;
        }
        // Asked by doing: a kernel without IPv6, or with IPv6 switched off, has no such address.
        let ipv6 = inet.run(|| UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok())?;
        connect(&mut near, &mut far, &inet, ipv6)?;
        let seen = Arc::new(Seen::default());
        let served = inet.run(|| serve(ipv6, &seen))?;
        served.map_err(|error| io_error("can't start the demo's servers", error))?;
        Ok(Self { host, ipv6, seen })
    }

    /// How many connections and questions arrived since the last call that nobody inside a fence may send.
    pub fn seen(&self) -> (usize, usize) {
        (self.seen.connections.swap(0, Ordering::SeqCst), self.seen.questions.swap(0, Ordering::SeqCst))
    }
}

/// Draws the line: a network between host and router, and behind the router, on its loopback, everybody else.
///
/// Nothing is left to the kernel's work queues, which may be late: neighbours are written, not found, and every IPv6 address has its
/// local route from us.
fn connect(near: &mut Socket, far: &mut Socket, inet: &Netns, ipv6: bool) -> Result<()> {
    const HERE: [u8; 6] = [0x02, 0x52, 0, 0, 0, 1];
    const THERE: [u8; 6] = [0x02, 0x52, 0, 0, 0, 2];
    let veth = Veth::new(UPLINK, "eth0").peer_in(inet).up();
    near.commit(Batch::from([Request::create_veth(&veth)]))?;
    let (here, there) = (near.link_named(UPLINK)?.index, far.link_named("eth0")?.index);
    let (mut host, mut router) = (Batch::new(), Batch::new());
    host.push(Request::link_address(here, HERE));
    router.push(Request::link_address(there, THERE));
    router.push(Request::up(there));
    let own = |batch: &mut Batch, index, address: IpAddr, length| -> Result<()> {
        batch.push(Request::add_address(index, net(address, length)?));
        if address.is_ipv6() {
            batch.push(Request::add_route(&RouteTo::new(address.into()).on(index).local()));
        }
        Ok(())
    };
    let mut families = vec![(IpAddr::V4(HOST4), IpAddr::V4(ROUTER4), 24, [WEB4, DATABASE4, RESOLVER4])];
    if ipv6 {
        families.push((IpAddr::V6(HOST6), IpAddr::V6(ROUTER6), 64, [WEB6, DATABASE6, RESOLVER6]));
    }
    for (us, gateway, length, servers) in families {
        let everywhere: IpAddr = if us.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        own(&mut host, here, us, length)?;
        host.push(Request::add_neighbour(here, gateway, THERE));
        // On the link by our word: the address that says so may not be ready.
        host.push(Request::add_route(&RouteTo::new(net(everywhere, 0)?).via(gateway).on(here).onlink()));
        own(&mut router, there, gateway, length)?;
        router.push(Request::add_neighbour(there, us, HERE));
        for server in servers {
            own(&mut router, LOOPBACK, server, IpNet::from(server).prefix_len())?;
        }
    }
    near.commit(host)?;
    far.commit(router)?;
    // Last: reading a link completes what the kernel had put off for it. Only then has the other end a carrier.
    far.link(there)?;
    near.link(here)?;
    Ok(())
}

fn net(address: IpAddr, length: u8) -> Result<IpNet> {
    IpNet::new(address, length)
        .map_err(|error| Error::new(ErrorKind::Io, format!("can't make {address}/{length} a network")).because(error))
}

/// Opens all listeners in the namespace of the calling thread, and serves each on a thread of its own.
fn serve(ipv6: bool, seen: &Arc<Seen>) -> io::Result<()> {
    let both = |v4: IpAddr, v6: IpAddr| if ipv6 { vec![v4, v6] } else { vec![v4] };
    for address in both(WEB4, WEB6) {
        accept(TcpListener::bind((address, HTTP))?, page)?;
    }
    for address in both(DATABASE4, DATABASE6) {
        accept(TcpListener::bind((address, DATABASE))?, |stream| echo(stream, "database"))?;
    }
    for address in both(WEB4, WEB6).into_iter().chain(both(DATABASE4, DATABASE6)) {
        let seen = Arc::clone(seen);
        accept(TcpListener::bind((address, SSH))?, move |stream| {
            seen.connections.fetch_add(1, Ordering::SeqCst);
            echo(stream, "not for you")
        })?;
    }
    for address in both(RESOLVER4, RESOLVER6) {
        let socket = UdpSocket::bind((address, DNS))?;
        let seen = Arc::clone(seen);
        spawn(move || resolve(&socket, &seen))?;
    }
    Ok(())
}

/// Serves one connection after the other: each is over in no time, or when the server's patience is.
fn accept(listener: TcpListener, serve: impl Fn(TcpStream) -> io::Result<()> + Send + 'static) -> io::Result<()> {
    spawn(move || {
        for stream in listener.incoming().map_while(io::Result::ok) {
            // What goes wrong here, whoever is at the other end tells.
            let _ = stream.set_read_timeout(PATIENCE).and_then(|()| serve(stream));
        }
    })
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name("demo-internet".to_owned()).spawn(work).map(drop)
}

/// Serves the same page whatever is asked for.
fn page(mut stream: TcpStream) -> io::Result<()> {
    for line in BufReader::new(stream.try_clone()?).take(8192).lines() {
        if line?.is_empty() {
            break;
        }
    }
    let length = PAGE.len() + 1;
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{PAGE}\n")
}

/// Answers a line with a line.
fn echo(mut stream: TcpStream, who: &str) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).take(256).read_line(&mut line)?;
    writeln!(stream, "{who}: {}", line.trim_end())
}

fn resolve(socket: &UdpSocket, seen: &Seen) {
    let mut message = [0; dns::LONGEST];
    while let Ok((length, from)) = socket.recv_from(&mut message) {
        let Some(question) = Question::read(&message[..length]) else { continue };
        let known = question.name == WEB_NAME;
        if !known {
            seen.questions.fetch_add(1, Ordering::SeqCst);
        }
        // A client that does not wait for its answer is told nothing.
        let _ = socket.send_to(&question.answer(known.then_some(&[WEB4, WEB6])), from);
    }
}

/// Where the host's resolver is.
pub fn resolver() -> SocketAddr {
    (RESOLVER4, DNS).into()
}
