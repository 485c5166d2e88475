//! What must work: A1 to A7 of docs/security.md, and that what is refused is refused at once.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use ringfence::kernel::rtnetlink::{Batch, Request, RouteTo, Socket};
use ringfence::link::{IfIndex, Mtu};

use super::support::{GREETING, HOST, Outer, PROBE, ROUTER, SERVERS, Serve, Servers, Shape, python, until};
use super::{DIRECT, let_out, probe};

fn routers() -> impl Iterator<Item = Outer> {
    [false, true].into_iter().map_while(|router| Outer::shaped(Shape { router, ..Shape::default() }))
}

#[test]
fn loopback() {
    let (Some(outer), Some(python)) = (Outer::new(), python()) else { return };
    let wire = outer.watch();
    // A1: a flow of the sandbox's own, of each family, and a refused connect at once.
    let said = outer.run("--allow 203.0.113.9", &probe(python, "alone + median 127.0.0.1 9 20 + median ::1 9 20"));
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "127.0.0.1 ::1", "{said}");
    assert!(lines[1..].iter().all(|line| line.ends_with(" ECONNREFUSED")), "{said}");
    assert_eq!(wire.strangers(|_| false), []);
}

#[test]
fn the_built_in_proxy() {
    let Some(python) = python() else { return };
    for outer in routers() {
        let wire = outer.watch();
        // A name that is not on the list is not even asked for: a question would carry it out.
        let said = outer.run(
            "--allow 203.0.113.9",
            &probe(python, "fetch http://leak-of-a-name.example/ + fetch https://leak-of-a-name.example/"),
        );
        assert!(said.starts_with("403\n"), "{said}");
        assert_eq!(wire.strangers(|_| false), []);
        // A2: by address, and what is not on the list is told so.
        let said = outer.run(
            "--allow 203.0.113.9 --allow 2001:db8::9",
            &probe(python, "fetch http://203.0.113.9/ + fetch http://[2001:db8::9]/"),
        );
        assert_eq!(said, GREETING.repeat(2));
        let said = outer
            .run("--allow 203.0.113.9", &probe(python, "fetch http://203.0.113.10/ + fetch http://[2001:db8::9]/"));
        assert_eq!(said, "403\n403\n");
        let to =
            |frame: &super::Frame| [SERVERS[0], SERVERS[2]].map(|to| to.parse().ok()).contains(&frame.destination());
        assert_eq!(wire.strangers(|frame| frame.port() == Some(80) && to(frame)), []);
    }
}

#[test]
fn a_proxy_at_an_address() {
    let Some(python) = python() else { return };
    for outer in routers() {
        // A2: in the internet, and on an address of the host's, of each family.
        for (netns, address) in [
            (&outer.internet, SERVERS[1]),
            (&outer.internet, SERVERS[3]),
            (&outer.host, HOST[0]),
            (&outer.host, HOST[1]),
        ] {
            let proxy = Servers::start(netns, &[address], &[(3128, Serve::Http), (3129, Serve::Http)]);
            let bracketed = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
            let wire = outer.watch();
            let words = format!("fetch http://whatever.example/ + median {address} 3129 3");
            let said = outer.run(&format!("--proxy-at {bracketed}:3128"), &probe(python, &words));
            assert!(said.starts_with(GREETING) && said.ends_with("ECONNREFUSED\n"), "{said}");
            assert_eq!(proxy.heard(), 1, "{address}");
            let to: Option<IpAddr> = address.parse().ok();
            assert_eq!(wire.strangers(|frame| frame.port() == Some(3128) && frame.destination() == to), []);
        }
    }
}

#[test]
fn direct_endpoints() {
    let Some(python) = python() else { return };
    for outer in routers() {
        // A4 and A5.
        let wire = outer.watch();
        let words = "tcp 203.0.113.9 5432 one + udp 203.0.113.9 5353 two + tcp 2001:db8::9 5432 three + udp 2001:db8::9 5353 four";
        assert_eq!(outer.run(DIRECT, &probe(python, words)), "one\ntwo\nthree\nfour\n");
        assert_eq!(wire.strangers(let_out), []);
    }
}

#[test]
fn large_transfers_through_a_narrow_uplink() {
    let Some(python) = python() else { return };
    // A7: the wire takes packets of 1,500 bytes, what comes after it takes 1,300.
    let narrow = Shape { mtu: Mtu::new(1300).unwrap(), ..Shape::default() };
    for shape in [narrow, Shape { router: true, ..narrow }] {
        let Some(outer) = Outer::shaped(shape) else { return };
        let wire = outer.watch();
        let size = 3_000_000;
        let said =
            outer.run(DIRECT, &probe(python, &format!("bulk 203.0.113.9 5432 {size} + bulk 2001:db8::9 5432 {size}")));
        assert_eq!(said, "whole\nwhole\n");
        assert_eq!(wire.strangers(let_out), []);
    }
}

#[test]
fn a_flow_goes_on_while_others_are_refused() {
    let (Some(outer), Some(python)) = (Outer::new(), python()) else { return };
    let wire = outer.watch();
    let script = format!(
        "{python} -I {PROBE} keep 203.0.113.9 5432 60 0.01 & {python} -I {PROBE} sockets ports icmp options fragments >/dev/null; wait"
    );
    assert_eq!(outer.run(DIRECT, &["sh", "-c", &script]), "kept\n");
    assert_eq!(wire.strangers(let_out), []);
}

#[test]
fn what_is_refused_is_refused_at_once() {
    let Some(python) = python() else { return };
    for outer in routers() {
        let words = "median 203.0.113.10 80 31 + median 2001:db8::a 80 31 + median 10.200.0.1 22 31 + median 198.51.100.1 22 31 \
                     + median 169.254.169.254 80 31 + sockets ports";
        let said = outer.run(DIRECT, &probe(python, words));
        let (medians, datagrams): (Vec<_>, Vec<_>) =
            said.lines().partition(|line| line.starts_with(|c: char| c.is_ascii_digit()));
        assert_eq!(medians.len(), 5, "{said}");
        for line in medians {
            println!("a connect is refused in {line} (µs, median)");
            let (micros, how) = line.split_once(' ').unwrap();
            assert_eq!(how, "ECONNREFUSED");
            assert!(micros.parse::<u32>().unwrap() < 50_000, "{line}");
        }
        for line in datagrams.iter().filter(|line| line.starts_with("udp-")) {
            let outcome = line.split(' ').nth(1).unwrap();
            assert!(["EPERM", "ECONNREFUSED"].contains(&outcome), "{line}");
        }
    }
}

#[test]
fn nobody_comes_in() {
    let Some(python) = python() else { return };
    for outer in routers() {
        let mut command = outer.ringfence(format!("run {DIRECT} -- {python} -I {PROBE} serve 5432").split_whitespace());
        let mut child = outer.spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        let address: IpAddr = line.trim().parse().unwrap();
        // From the very endpoint, by TCP and by UDP: it answers, and does not ask.
        let reached = outer.internet.run(|| {
            let udp = std::net::UdpSocket::bind((SERVERS[0], 5432)).unwrap();
            for port in [5432, 7777] {
                udp.send_to(b"knock", (address, port)).unwrap();
            }
            TcpStream::connect_timeout(&SocketAddr::from((address, 5432)), Duration::from_millis(300)).is_ok()
        });
        assert!(!reached.unwrap());
        drop(child.stdin.take());
        line.clear();
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        child.wait().unwrap();
        assert_eq!(line.trim(), "0", "somebody reached a server inside");
    }
}

#[test]
fn refusals_count() {
    let (Some(outer), Some(python)) = (Outer::new(), python()) else { return };
    // The sandbox's own table, read by a program that may.
    let script = format!("{python} -I {PROBE} sockets ports icmp options >/dev/null; nft -j list ruleset");
    let said = outer.run(&format!("{DIRECT} --keep-caps NET_ADMIN,NET_RAW"), &["sh", "-c", &script]);
    let ruleset: serde_json::Value = serde_json::from_str(&said).unwrap();
    let mut counted = std::collections::BTreeMap::new();
    for rule in ruleset["nftables"].as_array().unwrap().iter().filter_map(|object| object.get("rule")) {
        let expressions = rule["expr"].as_array().unwrap();
        let prefix = expressions.iter().find_map(|expr| expr["log"]["prefix"].as_str());
        let packets = expressions.iter().find_map(|expr| expr["counter"]["packets"].as_u64());
        if let (Some(prefix), Some(packets)) = (prefix, packets) {
            let group = expressions.iter().find_map(|expr| expr["log"]["group"].as_u64());
            assert_eq!(group, Some(1), "{rule}");
            counted.insert(prefix.to_owned(), packets);
        }
    }
    for prefix in ["bypass-tcp", "bypass-udp", "bypass-icmp", "bypass-icmpv6", "bypass-malformed"] {
        assert!(counted.get(prefix).is_some_and(|packets| *packets > 0), "{prefix}: {counted:?}");
    }
}

#[test]
fn the_host_routes_for_nobody_else() {
    let Some(outer) = Outer::new() else { return };
    // A network behind the host that is none of a sandbox's, and a server there.
    let (behind, inner) = ringfence::kernel::netns::Netns::create_with(Socket::open).unwrap();
    let mut inner = inner.unwrap();
    outer
        .host
        .run(|| {
            let mut host = Socket::open().unwrap();
            let veth = ringfence::kernel::rtnetlink::Veth::new("lan0", "eth0").peer_in(&behind).up();
            host.commit(Batch::from([Request::create_veth(&veth)])).unwrap();
            let lan0 = host.link_named("lan0").unwrap().index;
            host.commit(Batch::from([Request::add_address(lan0, "192.0.2.1/24".parse().unwrap())])).unwrap();
        })
        .unwrap();
    let eth0 = inner.link_named("eth0").unwrap().index;
    inner
        .commit(Batch::from([
            Request::up(IfIndex(1)),
            Request::up(eth0),
            Request::add_address(eth0, "192.0.2.2/24".parse().unwrap()),
            Request::add_route(&RouteTo::new("0.0.0.0/0".parse().unwrap()).via("192.0.2.1".parse().unwrap()).on(eth0)),
        ]))
        .unwrap();
    let knock = || {
        let udp = std::net::UdpSocket::bind((ROUTER[0], 0)).unwrap();
        udp.send_to(b"knock at the lan", ("192.0.2.2", 9)).unwrap();
    };
    let mut command = outer.ringfence(format!("run {DIRECT} -- cat").split_whitespace());
    let mut child = outer.spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    // While a sandbox has the uplink forward for it.
    let forwards = || outer.host.run(|| Socket::open().unwrap().link_named("up0").unwrap().forwards4).unwrap();
    until("the uplink forwards", || forwards() == Some(true));
    let lan = super::Wire::tap(&behind);
    outer.internet.run(knock).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let knocked = lan.frames().iter().filter(|frame| frame.holds(b"knock at the lan")).count();
    drop(child.stdin.take());
    child.wait().unwrap();
    until("the uplink forwards no more", || forwards() == Some(false));
    assert_eq!(knocked, 0, "the host became a router for its neighbours");
}
