//! A network of its own for every test: a scratch namespace for the host, and one for all of its internet.

use std::cell::OnceCell;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringfence::kernel::netns::Netns;
use ringfence::kernel::rtnetlink::{Batch, Request, RouteTo, Socket, Veth};
use ringfence::policy::{DnsName, ProxyUrl};
use ringfence::proxy::{
    AllowList, Denial, FixedResolver, Interception, Limits, Proxy, ProxyConfig, Resolve, Secret, Upstream,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::tls::Tls;

/// Addresses that "public" servers have here. The host's own are 203.0.113.1 and 2001:db8::1.
pub const PUBLIC: [&str; 2] = ["203.0.113.9", "2001:db8::9"];

/// Whether a missing kernel feature or privilege is a failure.
fn required() -> bool {
    std::env::var("RINGFENCE_TEST_KERNEL").is_ok_and(|value| value == "require")
}

/// Runs a test on a thread in a network namespace of its own; nothing it sends can leave.
pub fn network<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let body = move || {
        // SAFETY: NEWNET concerns no descriptor and no memory, and this thread alone.
        if let Err(error) = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) } {
            assert!(!required(), "no network namespace of its own: {error}");
            eprintln!("SKIPPED, NOTHING WAS TESTED: no network namespace of its own: {error}");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            bring_up();
            timeout(Duration::from_secs(900), test()).await.expect("the test takes too long");
        });
    };
    if let Err(panic) = std::thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs one test of this binary in a process of its own, for what concerns the whole process.
pub fn alone(name: &str, test: impl FnOnce()) {
    const MARK: &str = "RINGFENCE_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return test();
    }
    let binary = std::env::current_exe().unwrap();
    let status =
        std::process::Command::new(binary).args(["--exact", name, "--nocapture"]).env(MARK, "1").status().unwrap();
    assert!(status.success(), "{name} alone: {status}");
}

thread_local! {
    /// The namespace that the "public" servers are in.
    static INTERNET: OnceCell<Netns> = const { OnceCell::new() };
}

/// Sets loopback up, joins the host to an internet of its own, and makes 198.51.100.0/24 swallow every packet.
fn bring_up() {
    let index = |socket: &mut Socket, name: &str| socket.link_named(name).unwrap().index;
    let (internet, there) = Netns::create_with(Socket::open).unwrap();
    let mut here = Socket::open().unwrap();
    here.commit(Batch::from([Request::create_veth(&Veth::new("uplink", "inet").peer_in(&internet))])).unwrap();
    let mut there = there.unwrap();
    for (socket, interface, addresses) in [
        (&mut here, "uplink", ["203.0.113.1/24", "2001:db8::1/64"]),
        (&mut there, "inet", ["203.0.113.9/24", "2001:db8::9/64"]),
    ] {
        let (lo, interface) = (index(socket, "lo"), index(socket, interface));
        let addresses = addresses.map(|address| Request::add_address(interface, address.parse().unwrap()));
        let up = [Request::no_link_local(interface), Request::up(lo), Request::up(interface)];
        socket.commit(up.into_iter().chain(addresses).collect()).unwrap();
    }
    // Loopback hands them back as received, they are nobody's, and nothing is forwarded.
    let lo = index(&mut here, "lo");
    here.commit(Batch::from([Request::add_route(&RouteTo::new("198.51.100.0/24".parse().unwrap()).on(lo))])).unwrap();
    // The kernel puts a link's carrier off, and with it the routes to the host's own IPv6 addresses, until the link is read.
    let ready = |socket: &mut Socket, name: &str| {
        (0..500).any(|_| {
            let up = socket.link_named(name).unwrap().carrier;
            if !up {
                std::thread::sleep(Duration::from_millis(2));
            }
            up
        })
    };
    assert!(ready(&mut here, "uplink") && ready(&mut there, "inet"), "the uplink has no carrier");
    // The routes to one's own addresses may come a moment after the carrier.
    for address in ["203.0.113.1", "2001:db8::1"] {
        let own = std::net::TcpListener::bind((address, 0)).unwrap().local_addr().unwrap();
        let reached = (0..2500).any(|_| {
            // Refused is reached.
            let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
            let reached = std::net::TcpStream::connect(own).map_or_else(refused, |_| true);
            if !reached {
                std::thread::sleep(Duration::from_millis(4));
            }
            reached
        });
        assert!(reached, "{address} has no route");
    }
    INTERNET.with(|cell| assert!(cell.set(internet).is_ok()));
}

/// Listens on an address: a public one in the internet, any other on the host.
pub fn bind(address: &str, port: u16) -> TcpListener {
    let bind = || std::net::TcpListener::bind((address, port)).unwrap();
    let listener = match PUBLIC.contains(&address) {
        true => INTERNET.with(|internet| internet.get().unwrap().run(bind).unwrap()),
        false => bind(),
    };
    listener.set_nonblocking(true).unwrap();
    TcpListener::from_std(listener).unwrap()
}

/// Does something in the internet: a program that is started there is there.
pub fn in_internet<T: Send>(begin: impl FnOnce() -> T + Send) -> T {
    INTERNET.with(|internet| internet.get().unwrap().run(begin).unwrap())
}

/// The names of the tests' world.
pub fn names() -> FixedResolver {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    FixedResolver::new()
        .with("web.example", [address("203.0.113.9")])
        .with("six.example", [address("2001:db8::9")])
        .with("a.web.example", [address("203.0.113.9")])
        .with("loop.example", [address("127.0.0.1"), address("::1")])
        .with("inner.example", [address("10.0.0.5")])
        .with("metadata.example", [address("169.254.169.254")])
        .with("mapped.example", [address("::ffff:127.0.0.1")])
        .with("mixed.example", [address("127.0.0.1"), address("203.0.113.9")])
        .with("slow.example", [address("198.51.100.7")])
        .with("half-slow.example", [address("198.51.100.7"), address("198.51.100.8"), address("203.0.113.9")])
        .with("own.example", [address("203.0.113.1"), address("2001:db8::1")])
        .with("own-mapped.example", [address("::ffff:203.0.113.1")])
        .with("half-own.example", [address("203.0.113.1"), address("203.0.113.9")])
        .with("nobody.example", [])
}

/// What can be changed about a proxy.
pub struct Setup {
    pub allow: Option<Vec<&'static str>>,
    pub upstream: Option<Upstream>,
    pub limits: Limits,
    pub secrets: Vec<Secret>,
    pub interception: Option<Arc<Interception>>,
    pub audit: bool,
    pub list: Option<watch::Receiver<AllowList>>,
}

impl Default for Setup {
    /// Lets nobody through.
    fn default() -> Self {
        let (allow, upstream, limits, secrets) = (None, None, Limits::default(), Vec::new());
        Self { allow, upstream, limits, secrets, interception: None, audit: false, list: None }
    }
}

/// Those entries, as a list that changes has them.
pub fn list(entries: &[&str]) -> AllowList {
    Some(entries.iter().map(|entry| entry.parse().unwrap()).collect())
}

/// Lets through those entries.
pub fn allow(entries: &[&'static str]) -> Setup {
    Setup { allow: Some(entries.to_vec()), ..Setup::default() }
}

/// Goes through that proxy.
pub fn through(upstream: SocketAddr, credentials: Option<(&str, &str)>) -> Setup {
    let mut upstream = Upstream::from(upstream.to_string().parse::<ProxyUrl>().unwrap());
    upstream.credentials = credentials.map(|(user, password)| (user.to_owned(), password.to_owned()));
    Setup { upstream: Some(upstream), ..Setup::default() }
}

/// A proxy at work.
pub struct Running {
    pub address: SocketAddr,
    pub denials: Arc<Mutex<Vec<Denial>>>,
    pub stop: tokio::sync::oneshot::Sender<()>,
    pub task: tokio::task::JoinHandle<()>,
}

impl Setup {
    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// Puts in that value where a placeholder stands, for the credential that is written so.
    pub fn secret(mut self, credential: &str, value: &str) -> Self {
        self.secrets.push(Secret::new(credential.parse().unwrap(), value.into()).unwrap());
        self
    }

    /// Looks into TLS, and trusts those origins.
    pub fn trusting(mut self, tls: &Tls) -> Self {
        self.interception = Some(Arc::clone(&tls.interception));
        self
    }

    /// Lets through what the list says at the time, and lets it be changed.
    pub fn following(mut self) -> (Self, watch::Sender<AllowList>) {
        let (change, list) = watch::channel(list(self.allow.as_deref().unwrap_or_default()));
        self.list = Some(list);
        (self, change)
    }

    /// Tells of what the list does not cover, and lets it through.
    pub fn audit(mut self) -> Self {
        self.audit = true;
        self
    }

    pub fn serve(self) -> Running {
        self.serve_with(Arc::new(names()))
    }

    pub fn serve_with(self, resolver: Arc<dyn Resolve>) -> Running {
        let allow = self.allow.map(|entries| entries.iter().map(|entry| entry.parse().unwrap()).collect());
        let config = ProxyConfig {
            allow,
            upstream: self.upstream,
            limits: self.limits,
            secrets: self.secrets.into(),
            interception: self.interception,
            audit: self.audit,
            ..ProxyConfig::default()
        };
        let denials = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&denials);
        let mut proxy =
            Proxy::new(config, resolver).on_denial(Arc::new(move |denial| told.lock().unwrap().push(denial)));
        if let Some(list) = self.list {
            proxy = proxy.follow(list);
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let shutdown = async { stopped.await.unwrap_or(()) };
            proxy.serve(vec![listener], shutdown).await.unwrap();
        });
        Running { address, denials, stop, task }
    }
}

impl Running {
    pub async fn dial(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `request` and gives back all that comes until the proxy closes.
    pub async fn ask(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.dial().await;
        stream.write_all(request.as_ref()).await.unwrap();
        rest(&mut stream).await
    }

    /// Opens a tunnel.
    pub async fn tunnel(&self, to: &str) -> TcpStream {
        let mut stream = self.dial().await;
        stream.write_all(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes()).await.unwrap();
        let head = head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        stream
    }
}

/// Serves every connection to `address` with `handler`, and says on which port.
pub async fn server<F: Future<Output = ()> + Send + 'static>(
    address: &str,
    handler: impl Fn(TcpStream) -> F + Send + 'static,
) -> u16 {
    let listener = bind(address, 0);
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(handler(stream));
        }
    });
    port
}

/// An origin that gives every request the same answer, and what it was sent: one head and body a connection.
pub async fn origin(address: &str, answer: &'static str) -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    let port = server(address, move |mut stream| {
        let tell = tell.clone();
        async move {
            let mut request = head(&mut stream).await;
            let lower = request.to_ascii_lowercase();
            // A request that is cut short gets no answer, and counts as never seen.
            if lower.contains("transfer-encoding: chunked") {
                while !request.ends_with("0\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { return };
                    request.push(char::from(byte));
                }
            } else if let Some(length) = lower.split("content-length: ").nth(1) {
                let length = length.split("\r\n").next().unwrap().parse().unwrap();
                let mut body = vec![0; length];
                let Ok(_) = stream.read_exact(&mut body).await else { return };
                request.push_str(&String::from_utf8(body).unwrap());
            }
            let _ = tell.send(request);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    (port, told)
}

/// An origin that sends back what it gets, and ends when its client has ended.
pub async fn echo(address: &str) -> u16 {
    server(address, |mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
    .await
}

/// Reads up to the empty line that ends a head. Panics when it does not come.
pub async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let read = async {
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&head)),
            }
        }
    };
    timeout(Duration::from_secs(60), read).await.expect("a head");
    String::from_utf8(head).unwrap()
}

/// Reads until the other end closes. A reset shows as `<reset>`.
pub async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let outcome = timeout(Duration::from_secs(60), stream.read_to_end(&mut all)).await.expect("an end");
    let mut text = String::from_utf8_lossy(&all).into_owned();
    if outcome.is_err() {
        text.push_str("<reset>");
    }
    text
}

/// Reads a response with a Content-Length, head and body.
pub async fn response(stream: &mut TcpStream) -> String {
    let mut text = head(stream).await;
    let lower = text.to_ascii_lowercase();
    let length =
        lower.split("content-length: ").nth(1).map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    text.push_str(&String::from_utf8(body).unwrap());
    text
}

/// A resolver that never answers.
pub struct Silent;

impl Resolve for Silent {
    fn resolve<'a>(&'a self, _: &'a DnsName) -> futures::future::BoxFuture<'a, std::io::Result<Vec<IpAddr>>> {
        Box::pin(std::future::pending())
    }
}
