//! A small internet for tests: a host and what is behind it, in network namespaces that no packet leaves.
//!
//! ```text
//! sandboxes ── host  up0 198.51.100.1, 2001:db8:1::1 ──── eth0 198.51.100.254, 2001:db8:1::fe  internet
//!                                                            203.0.113.9, 203.0.113.10, 2001:db8::9, 2001:db8::a
//! ```
//!
//! Built with the library's own requests, so that no program but the one under test is needed. Each test has its own; nothing of
//! it is left when its [`Outer`] is dropped, nor when the test is killed.
#![allow(dead_code, unused_imports)] // Every test binary takes what it needs of this.

mod server;
mod wire;

use std::ffi::OsStr;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ringfence::kernel::netns::Netns;
use ringfence::kernel::rtnetlink::{Batch, Request, RouteTo, Socket, Veth};
use ringfence::link::{IfIndex, Mtu};

pub use server::{Serve, Servers};
pub use wire::{Frame, Wire};

/// Addresses of the host on its uplink.
pub const HOST: [&str; 2] = ["198.51.100.1", "2001:db8:1::1"];
/// The host's routers, which are the internet's own addresses there.
pub const ROUTER: [&str; 2] = ["198.51.100.254", "2001:db8:1::fe"];
/// Addresses of the internet's servers. Tests allow the first of each family and none of the others.
pub const SERVERS: [&str; 4] = ["203.0.113.9", "203.0.113.10", "2001:db8::9", "2001:db8::a"];
/// What the internet's web server answers with.
pub const GREETING: &str = "hello from the internet\n";
/// Link-layer address of the host's end of the uplink: what the internet sees with that source came from the host.
pub const HOST_MAC: [u8; 6] = [0x02, 0, 0x5e, 0, 0, 0x01];
/// Link-layer address of the internet's end.
pub const ROUTER_MAC: [u8; 6] = [0x02, 0, 0x5e, 0, 0, 0xfe];

/// How long anything may take that is sure to come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Says past the test harness, which hides what a passing test prints, that something is not tested here.
pub fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {}: {why}", std::thread::current().name().unwrap_or_default());
    assert_ne!(std::env::var("RINGFENCE_TEST_KERNEL").as_deref(), Ok("require"), "{why}");
}

/// What may differ between one small internet and another.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shape {
    /// Largest packet on the host's uplink.
    pub mtu: Mtu,
    /// Whether the host is a router, as it is where Docker runs: `ip_forward` and `all.forwarding` are on.
    pub router: bool,
}

/// A host and an internet.
pub struct Outer {
    /// The host's namespace.
    pub host: Netns,
    /// The internet's.
    pub internet: Netns,
    servers: Servers,
}

impl Outer {
    /// Builds one; without the privilege or the kernel for it, says so loudly and gives none.
    pub fn new() -> Option<Self> {
        Self::shaped(Shape::default())
    }

    /// Builds one of a shape of its own.
    pub fn shaped(shape: Shape) -> Option<Self> {
        let machine = Netns::current().ok();
        let (host, internet) = match (Netns::create_with(Socket::open), Netns::create_with(Socket::open)) {
            (Ok(host), Ok(internet)) => (host, internet),
            (Err(error), _) | (_, Err(error)) => {
                skip(&format!("no network namespace to be had: {}", error.chain()));
                return None;
            }
        };
        // The promise of these tests: nothing here ever touches the machine's own network.
        for made in [&host.0, &internet.0] {
            assert!(machine.as_ref().is_none_or(|machine| !made.same_as(machine).unwrap()));
        }
        connect((&mut host.1.unwrap(), &host.0), (&mut internet.1.unwrap(), &internet.0), shape);
        let servers = Servers::start(&internet.0, &SERVERS, server::INTERNET);
        Some(Self { host: host.0, internet: internet.0, servers })
    }

    /// Starts watching what reaches the internet. From when this returns, no frame is missed.
    pub fn watch(&self) -> Wire {
        Wire::tap(&self.internet)
    }

    /// Starts watching every interface of the host, the ends of sandboxes' wires among them.
    pub fn watch_host(&self) -> Wire {
        Wire::tap(&self.host)
    }

    /// `ringfence` with these arguments, to be started on the host with [`Outer::spawn`] or [`Outer::output`].
    pub fn ringfence(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
        command.args(arguments).stdin(Stdio::null());
        // The policy is what the test says, whatever the environment of whoever runs it.
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy().to_ascii_uppercase();
            if name_text.starts_with("RINGFENCE_") || name_text.starts_with("SUDO_") || name_text.ends_with("_PROXY") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Starts a program on the host.
    pub fn spawn(&self, command: &mut Command) -> Child {
        // A child is born in the namespace of the thread that forks it.
        self.host.run(|| command.spawn().expect("the program starts")).unwrap()
    }

    /// Runs a program on the host to its end, which must come in [`PATIENCE`].
    pub fn output(&self, command: &mut Command) -> Output {
        finish(self.spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())))
    }

    /// Runs `ringfence run FLAGS -- COMMAND`, which must succeed, and gives its standard output.
    pub fn run(&self, flags: &str, command: &[&str]) -> String {
        let arguments = std::iter::once("run").chain(flags.split_whitespace()).chain(["--"]);
        let output = self.output(&mut self.ringfence(arguments.chain(command.iter().copied())));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "ringfence run {flags}: {}\n{}{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Sets a sysctl of the host's namespace, as `net/ipv4/ip_forward`.
    pub fn sysctl(&self, name: &str, value: &str) {
        sysctl(&self.host, name, value);
    }
}

/// Sets a sysctl of a network namespace.
pub fn sysctl(netns: &Netns, name: &str, value: &str) {
    // These files show the namespace of the thread that opens them.
    netns.run(|| std::fs::write(Path::new("/proc/sys").join(name), value)).unwrap().unwrap_or_else(|error| {
        panic!("can't set {name} to {value}: {error}");
    });
}

/// Waits for a program's end and takes what it wrote. One that does not end is killed, and the test fails.
pub fn finish(mut child: Child) -> Output {
    let pid = rustix::process::Pid::from_child(&child);
    let (ended, end) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        let late = end.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if late {
            // Not reaped yet, so the number is still its own.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        late
    });
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    drop(ended);
    assert!(!watchdog.join().unwrap(), "a program did not end: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Waits until something holds; fails when it does not in [`PATIENCE`].
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The Python that runs probes; without one, says so loudly.
///
/// The system's own where there is one: it starts faster than a version manager's.
pub fn python() -> Option<&'static str> {
    let works = |python: &&str| {
        let status = Command::new(python).args(["-I", "-c", ""]).stdin(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let found = ["/usr/bin/python3", "/usr/local/bin/python3", "python3"].into_iter().find(works);
    if found.is_none() {
        skip("no python3 for the probes");
    }
    found
}

/// The probe program: `python3 PROBE SUBCOMMAND …`.
pub const PROBE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/probe.py");

fn connect(host: (&mut Socket, &Netns), internet: (&mut Socket, &Netns), shape: Shape) {
    const LOOPBACK: IfIndex = IfIndex(1);
    let ((host, host_netns), (internet, internet_netns)) = (host, internet);
    if shape.router {
        sysctl(host_netns, "net/ipv4/ip_forward", "1");
        sysctl(host_netns, "net/ipv6/conf/all/forwarding", "1");
    }
    let uplink = Veth::new("up0", "eth0").peer_in(internet_netns).mtu(shape.mtu).up();
    host.commit(Batch::from([Request::up(LOOPBACK), Request::create_veth(&uplink)])).unwrap();
    let up0 = host.link_named("up0").unwrap().index;
    let eth0 = internet.link_named("eth0").unwrap().index;
    let net = |address: &str, prefix: u8| ipnet::IpNet::new(address.parse().unwrap(), prefix).unwrap();
    let ip = |address: &str| address.parse::<IpAddr>().unwrap();

    let mut near = Batch::from([Request::link_address(up0, HOST_MAC)]);
    let mut far = Batch::from([
        Request::up(LOOPBACK),
        Request::no_link_local(eth0),
        Request::link_address(eth0, ROUTER_MAC),
        Request::up(eth0),
    ]);
    for (family, prefix) in [(0, 24), (1, 64)] {
        near.push(Request::add_address(up0, net(HOST[family], prefix)));
        far.push(Request::add_address(eth0, net(ROUTER[family], prefix)));
        // Written, not found: the wire is silent until somebody has something to say.
        near.push(Request::add_neighbour(up0, ip(ROUTER[family]), ROUTER_MAC));
        far.push(Request::add_neighbour(eth0, ip(HOST[family]), HOST_MAC));
        let default = net(["0.0.0.0", "::"][family], 0);
        near.push(Request::add_route(&RouteTo::new(default).via(ip(ROUTER[family])).on(up0)));
        // The internet answers whoever asks: a packet with a strange source address must not be lost for want of a route back.
        far.push(Request::add_route(&RouteTo::new(default).via(ip(HOST[family])).on(eth0)));
    }
    for server in SERVERS {
        far.push(Request::add_address(LOOPBACK, net(server, if ip(server).is_ipv4() { 32 } else { 128 })));
    }
    internet.commit(far).unwrap();
    host.commit(near).unwrap();
    // The kernel finishes what it put off for a link when the link is read.
    until("the uplink has its carrier", || {
        host.link(up0).is_ok_and(|link| link.carrier) && internet.link(eth0).is_ok_and(|link| link.carrier)
    });
}
