//! The examples do what they say, each in a network namespace of its own: to packets, and to nft(8).

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ringfence::kernel::netns::Netns;
use ringfence::kernel::nftables::Socket;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// How long anything may take that is sure to come.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a packet is waited for that must not come.
const A_WHILE: Duration = Duration::from_millis(300);

/// Runs a program of the machine's in the calling thread's namespace, and gives what it printed.
fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn ip(line: &str) {
    tool("ip", &line.split(' ').collect::<Vec<_>>());
}

/// The ruleset as nft(8) lists it, without what its counters say.
fn listed() -> String {
    tool("nft", &["-s", "list", "ruleset"])
}

/// What nft(8) makes of a text, in a namespace of its own.
fn loaded(text: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let load = || {
        tool("nft", &["-f", file.path().to_str().unwrap()]);
        listed()
    };
    Netns::new().unwrap().run(load).unwrap()
}

/// Another namespace at the other end of a wire. Both ends are up and have these addresses.
fn neighbour(name: &str, own: &str, peers: &[&str]) -> Netns {
    let there = Netns::new().unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), there.as_fd().as_raw_fd());
    ip(&format!("link add {name} type veth peer name eth0 netns {path}"));
    ip(&format!("addr add {own} dev {name}"));
    ip(&format!("link set {name} up"));
    there
        .run(|| {
            peers.iter().for_each(|address| ip(&format!("addr add {address} dev eth0")));
            ip("link set eth0 up");
            ip("link set lo up");
        })
        .unwrap();
    there
}

/// Tries a connection from the calling thread's namespace.
fn reach(to: &str) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&to.parse().unwrap(), PATIENCE)
}

/// Waits for a connection, and tells where it came from.
fn caller(listener: &TcpListener) -> IpAddr {
    listener.accept().unwrap().1.ip()
}

fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        // SAFETY: a network namespace changes nothing that other threads or Rust rely on; file descriptors stay shared.
        if let Err(error) = unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
            let required = std::env::var("RINGFENCE_TEST_KERNEL").is_ok_and(|value| value == "require");
            assert!(!required, "no network namespace can be made: {error}");
            eprintln!("SKIPPED: no network namespace can be made: {error}");
            return;
        }
        if let Some(program) =
            ["ip", "nft"].into_iter().find(|program| Command::new(program).arg("-V").output().is_err())
        {
            let required = std::env::var("RINGFENCE_TEST_ORACLES").is_ok_and(|value| value == "require");
            assert!(!required, "`{program}` is not installed");
            eprintln!("SKIPPED: `{program}` is not installed");
            return;
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs an example in the calling thread's namespace.
fn run(name: &str, arguments: &[&str]) -> Output {
    let path = built().join(name);
    Command::new(&path).args(arguments).output().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Where the examples are. `cargo test` builds them before it runs tests, `cargo test --test examples` does not.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // TARGET/PROFILE/deps/examples-HASH
        let own = std::env::current_exe().unwrap();
        let [profile, target] = [2, 3].map(|up| own.ancestors().nth(up).unwrap());
        let cargo = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--examples", "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
            .env("CARGO_TARGET_DIR", target)
            .args((profile.file_name() == Some("release".as_ref())).then_some("--release"))
            .status();
        assert!(cargo.is_ok_and(|status| status.success()), "the examples can't be built");
        profile.join("examples")
    })
}

fn text(name: &str, arguments: &[&str]) -> String {
    let output = run(name, arguments);
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_firewall_stands_and_is_replaced() {
    in_namespace(|| {
        let shown = text("host_firewall", &["--commit"]);
        assert!(shown.contains("tcp dport @open_ports"), "{shown}");
        assert!(!shown.contains("# "), "something has no nft(8) syntax:\n{shown}");
        text("host_firewall", &["--commit"]);
        assert_eq!(Socket::open().unwrap().tables().unwrap().len(), 1);
    });
}

#[test]
fn a_firewall_lets_in_what_it_says_and_refuses_the_rest_at_once() {
    in_namespace(|| {
        ip("link set lo up");
        let outside = neighbour("eth0", "198.51.100.1/24", &["198.51.100.2/24"]);
        let shown = text("host_firewall", &["--commit"]);
        assert_eq!(loaded(&shown), listed());

        let (open, closed) = (TcpListener::bind("198.51.100.1:80"), TcpListener::bind("198.51.100.1:8081"));
        let (open, _closed) = (open.unwrap(), closed.unwrap());
        let there = outside.run(|| TcpListener::bind("198.51.100.2:5432")).unwrap().unwrap();
        outside.run(|| reach("198.51.100.1:80")).unwrap().unwrap();
        assert_eq!(caller(&open), "198.51.100.2".parse::<IpAddr>().unwrap());
        let refused = outside.run(|| reach("198.51.100.1:8081")).unwrap().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        // An answer to what was asked comes in.
        reach("198.51.100.2:5432").unwrap();
        caller(&there);
        let refused = outside.run(|| {
            let socket = UdpSocket::bind("198.51.100.2:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect("198.51.100.1:9999").unwrap();
            socket.send(b"?").unwrap();
            socket.recv(&mut [0; 8]).unwrap_err()
        });
        assert_eq!(refused.unwrap().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_gateway_stands() {
    in_namespace(|| {
        let shown = text("nat_gateway", &["--commit"]);
        assert!(shown.contains("dnat ip to 10.0.0.2:8080") && shown.contains("masquerade"), "{shown}");
        assert!(!shown.contains("# "), "something has no nft(8) syntax:\n{shown}");
    });
}

#[test]
fn a_gateway_leads_out_and_in() {
    in_namespace(|| {
        let lan = neighbour("lan0", "10.0.0.1/24", &["10.0.0.2/24"]);
        let wan = neighbour("wan0", "198.51.100.1/24", &["198.51.100.2/24"]);
        lan.run(|| ip("route add default via 10.0.0.1")).unwrap();
        // Whoever knows of the net behind.
        wan.run(|| ip("route add 10.0.0.0/24 via 198.51.100.1")).unwrap();
        // The file shows the namespace of the thread that opens it.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let shown = text("nat_gateway", &["--commit"]);
        assert_eq!(loaded(&shown), listed());

        let there = wan.run(|| TcpListener::bind("198.51.100.2:5432")).unwrap().unwrap();
        lan.run(|| reach("198.51.100.2:5432")).unwrap().unwrap();
        assert_eq!(caller(&there), "198.51.100.1".parse::<IpAddr>().unwrap(), "with the gateway's address");
        let service = lan.run(|| TcpListener::bind("10.0.0.2:8080")).unwrap().unwrap();
        wan.run(|| reach("198.51.100.1:80")).unwrap().unwrap();
        assert_eq!(caller(&service), "198.51.100.2".parse::<IpAddr>().unwrap());
        // The net is not open to whoever has a route to it.
        let hidden = lan.run(|| TcpListener::bind("10.0.0.2:9090")).unwrap().unwrap();
        let tried = wan.run(|| TcpStream::connect_timeout(&"10.0.0.2:9090".parse().unwrap(), A_WHILE)).unwrap();
        assert_eq!(tried.unwrap_err().kind(), ErrorKind::TimedOut);
        hidden.set_nonblocking(true).unwrap();
        assert_eq!(hidden.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn a_limiter_stands() {
    in_namespace(|| {
        text("rate_limiter", &["--commit"]);
        // In the place of the first.
        let shown = text("rate_limiter", &["--commit"]);
        assert!(shown.contains("update @seen4 { ip saddr limit rate over 50/second burst 100 packets }"), "{shown}");
        assert!(!shown.contains("# "), "something has no nft(8) syntax:\n{shown}");
    });
}

/// Sends a first packet of TCP from an address, and does not wait for the answer.
fn knock(from: &str, to: SocketAddr) {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
    bind(&socket, &SocketAddrV4::new(from.parse().unwrap(), 0)).unwrap();
    let _ = connect(&socket, &to);
}

#[test]
fn a_limiter_bans_who_runs_over_and_nobody_else() {
    in_namespace(|| {
        let outside = neighbour("eth0", "198.51.100.1/24", &["198.51.100.2/24", "198.51.100.3/24"]);
        let shown = text("rate_limiter", &["--commit"]);
        assert_eq!(loaded(&shown), listed());
        let listener = TcpListener::bind("198.51.100.1:443").unwrap();
        let to = listener.local_addr().unwrap();
        let banned = || {
            let listed = tool("nft", &["list", "set", "inet", "limiter", "banned4"]);
            ["198.51.100.2", "198.51.100.3"].map(|address| listed.contains(address))
        };
        outside.run(|| knock("198.51.100.2", to)).unwrap();
        assert_eq!(banned(), [false, false]);
        // Faster than fifty a second, however slow the machine is: until it is over.
        let start = Instant::now();
        while banned() == [false, false] {
            assert!(start.elapsed() < PATIENCE, "nobody was banned");
            outside.run(|| (0..500).for_each(|_| knock("198.51.100.2", to))).unwrap();
        }
        assert_eq!(banned(), [true, false]);
        // Who kept to it is still served.
        listener.set_nonblocking(true).unwrap();
        while listener.accept().is_ok() {}
        listener.set_nonblocking(false).unwrap();
        outside
            .run(|| {
                let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
                bind(&socket, &SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 3), 0)).unwrap();
                connect(&socket, &to).unwrap();
            })
            .unwrap();
        assert_eq!(banned(), [true, false]);
    });
}

#[test]
fn a_block_list_lives() {
    in_namespace(|| {
        let shown = text("block_list", &["20000"]);
        assert!(shown.contains("19001 addresses read back"), "{shown}");
        let listed = tool("nft", &["list", "set", "inet", "blocked", "blocked4"]);
        assert_eq!(listed.matches("240.").count(), 19_001);
    });
}

#[test]
fn a_block_list_blocks_what_is_on_it() {
    in_namespace(|| {
        // The first thousand of them are taken out again.
        let outside = neighbour("eth0", "198.51.100.1/24", &["240.0.7.0/32", "240.0.0.7/32"]);
        ip("route add 240.0.0.0/8 dev eth0");
        outside.run(|| ip("route add 198.51.100.0/24 dev eth0")).unwrap();
        text("block_list", &["2000"]);
        let heard = UdpSocket::bind("198.51.100.1:9").unwrap();
        heard.set_read_timeout(Some(PATIENCE)).unwrap();
        let send = |from: &str| {
            outside.run(|| UdpSocket::bind((from, 0)).unwrap().send_to(b"?", "198.51.100.1:9").unwrap()).unwrap();
        };
        send("240.0.7.0");
        send("240.0.0.7");
        // One wire keeps their order: had the first come through, it would be the first.
        let (_, from) = heard.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(from.ip(), "240.0.0.7".parse::<IpAddr>().unwrap());
        let chain = tool("nft", &["list", "chain", "inet", "blocked", "input"]);
        assert!(chain.contains("counter packets 1 "), "{chain}");
    });
}

#[test]
fn what_others_change_by_nft_is_found_and_mended() {
    in_namespace(|| {
        text("host_firewall", &["--commit"]);
        let before = listed();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), Socket::open().unwrap().ruleset().unwrap().to_json()).unwrap();
        let file = file.path().to_str().unwrap();
        tool("nft", &["add", "element", "inet", "firewall", "open_ports", "{ 23 }"]);
        tool("nft", &["insert", "rule", "inet", "firewall", "input", "tcp", "dport", "1-1023", "accept"]);
        let output = run("drift_audit", &[file]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2, "{output:?}");
        text("drift_audit", &[file, "--mend"]);
        assert_eq!(listed(), before);
    });
}

#[test]
fn drift_is_found_and_mended() {
    in_namespace(|| {
        text("host_firewall", &["--commit"]);
        let mut socket = Socket::open().unwrap();
        let wanted = socket.ruleset().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), wanted.to_json()).unwrap();
        let file = file.path().to_str().unwrap();
        assert_eq!(text("drift_audit", &[file]), "");
        text("nat_gateway", &["--commit"]);
        let output = run("drift_audit", &[file]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "delete table inet gateway\n");
        assert_eq!(text("drift_audit", &[file, "--mend"]), "delete table inet gateway\nmended\n");
        assert_eq!(text("drift_audit", &[file]), "");
    });
}
