//! What a program may try with sockets, as uid 0 with the capabilities it has by default.

use std::net::{IpAddr, SocketAddr};

use super::support::{Outer, Serve, Servers, Shape, python, skip};
use super::{CONTROL, DIRECT, nothing_else_was_seen, probe, proves, unfenced};

/// How long a refused attempt may take. None is told of by a timeout; the slowest part is Python.
const AT_ONCE: u64 = 500_000;

/// Tries groups of attempts inside a sandbox, on a host that is a router and on one that is not. None may be connected or
/// answered, none may wait for a timeout, and none may be seen.
#[track_caller]
fn refused(groups: &str, visible_unfenced: bool) {
    for router in [false, true] {
        let (Some(outer), Some(python)) = (Outer::shaped(Shape { router, ..Shape::default() }), python()) else {
            return;
        };
        let wire = outer.watch();
        if visible_unfenced {
            // The same program on the host: it can send what is looked for, and the wire shows it.
            unfenced(&outer, python, &format!("sockets {groups}"));
            let seen = wire.strangers(|_| false);
            assert!(!seen.is_empty(), "without a fence there is nothing to be seen either");
            wire.clear();
        }
        let said = outer.run(DIRECT, &probe(python, &format!("sockets {groups} {CONTROL}")));
        let mut attempts = 0;
        for line in said.lines().filter(|line| !line.starts_with("control-")) {
            let [name, outcome, micros] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            attempts += 1;
            assert!(!["connected", "answered"].contains(&outcome), "{line}");
            // What is dropped without a word, and what is refused by a word to an address that is not the sandbox's.
            if !name.contains("tcp-") || !["options", "spoofed"].contains(&groups) {
                assert!(
                    outcome != "timeout" && micros.parse::<u64>().unwrap() < AT_ONCE,
                    "not refused at once: {line}"
                );
            }
        }
        assert!(attempts > 0 || groups == "many", "{said}");
        nothing_else_was_seen(&wire);
    }
}

#[test]
fn echo_requests() {
    proves(&["ICMP echo."]);
    refused("icmp", true);
}

#[test]
fn other_protocols() {
    proves(&["SCTP, DCCP, UDP-Lite, GRE, ESP, IPIP, 6in4.", "Raw IP sockets."]);
    refused("protocols", true);
}

#[test]
fn other_ports_and_addresses() {
    proves(&["A direct endpoint's address on another port or protocol."]);
    refused("ports", true);
}

#[test]
fn ipv6_addresses_of_all_kinds() {
    proves(&["IPv6 to link-local, ULA, IPv4-mapped, 6to4, NAT64 addresses."]);
    refused("ipv6", false);
}

#[test]
fn many_at_once() {
    proves(&["Multicast and broadcast."]);
    refused("many", false);
}

#[test]
fn dhcp() {
    proves(&["DHCP."]);
    refused("dhcp", false);
}

#[test]
fn somebody_elses_source_address() {
    proves(&["Source addresses that are not the sandbox's."]);
    refused("spoofed", true);
}

#[test]
fn datagrams_too_long_for_one_packet() {
    proves(&["Fragments, first or later."]);
    refused("fragments", true);
}

#[test]
fn options_and_extension_headers() {
    proves(&["IP options and IPv6 extension headers."]);
    refused("options", true);
}

#[test]
fn out_by_loopback() {
    proves(&["The host's loopback."]);
    refused("loopback", false);
}

#[test]
fn metadata_services() {
    proves(&["Cloud metadata."]);
    refused("metadata", true);
}

#[test]
fn name_servers() {
    proves(&[
        "DNS to anybody but the sandbox's own resolver or the server that `--dns` names, over UDP, TCP, TLS or QUIC.",
    ]);
    refused("dns", true);
}

#[test]
fn the_hosts_services_and_its_loopback() {
    proves(&["The host's own services, on the gateway address or any other.", "The host's loopback."]);
    for router in [false, true] {
        let (Some(outer), Some(python)) = (Outer::shaped(Shape { router, ..Shape::default() }), python()) else {
            return;
        };
        // As sshd and others are: bound to every address, and to loopback.
        let ports = [(22, Serve::Echo), (7777, Serve::EchoUdp), (22, Serve::EchoUdp), (7777, Serve::Echo)];
        let everywhere = Servers::start(&outer.host, &["0.0.0.0"], &ports);
        // Answers on addresses that are no wildcards, and of IPv6.
        let mut own = Servers::start(&outer.host, &["::1", "198.51.100.2", "2001:db8:1::1"][..1], &ports);
        for port in ports {
            let at = |address: &str| SocketAddr::from((address.parse::<IpAddr>().unwrap(), port.0));
            own.add(&outer.host, at("2001:db8:1::1"), port.1);
        }
        // The control: the host itself reaches them.
        let reached = unfenced(
            &outer,
            python,
            "tcp 127.0.0.1 22 hello + udp 198.51.100.1 7777 hello + tcp 2001:db8:1::1 22 hello",
        );
        assert_eq!(String::from_utf8_lossy(&reached.stdout), "hello\nhello\nhello\n");
        assert_eq!((everywhere.heard(), own.heard()), (2, 1));
        let wire = outer.watch();
        let targets = "10.200.0.1 198.51.100.1 127.0.0.1 127.0.0.53 127.0.0.11 0.0.0.0 fd52:4e46:4e43::1 2001:db8:1::1 ::1 :: \
                       ::ffff:198.51.100.1 ::ffff:10.200.0.1";
        let said = outer.run(DIRECT, &probe(python, &format!("sockets {targets} {CONTROL}")));
        for line in said.lines().filter(|line| !line.starts_with("control-")) {
            assert!(!line.contains("connected") && !line.contains("answered") && !line.contains("timeout"), "{line}");
        }
        assert_eq!((everywhere.heard(), own.heard()), (2, 1), "a service of the host was reached: {said}");
        nothing_else_was_seen(&wire);
    }
}

/// Makes a socket of each family named, and an io_uring, and says what came of it.
const FAMILIES: &str = "
import ctypes, errno, socket, sys
for family in map(int, sys.argv[1:]):
    try:
        socket.socket(family, socket.SOCK_STREAM).close()
        print(family, 'made')
    except OSError as error:
        print(family, errno.errorcode[error.errno])
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(425, 1, ctypes.create_string_buffer(120))
print('io_uring', errno.errorcode.get(ctypes.get_errno(), 'made'))
";

#[test]
fn families_that_no_namespace_holds() {
    proves(&["Sockets of families that no network namespace holds, `AF_VSOCK` among them."]);
    let (Some(outer), Some(python)) = (Outer::new(), python()) else { return };
    // unix, inet, inet6; rds, tipc, bluetooth, vsock, smc.
    let families = ["1", "2", "10", "21", "30", "31", "40", "43"];
    let command = [&[python, "-I", "-c", FAMILIES], &families[..]].concat();
    let said = outer.run("", &command);
    let inside = "1 made\n2 made\n10 made\n21 EAFNOSUPPORT\n30 EAFNOSUPPORT\n31 EAFNOSUPPORT\n40 EAFNOSUPPORT\n43 EAFNOSUPPORT\nio_uring ENOSYS\n";
    assert_eq!(said, inside);
    // The same for a program that keeps all it can get.
    assert_eq!(outer.run("--keep-caps NET_ADMIN,NET_RAW,SYS_ADMIN", &command), inside);
    // Without a fence this kernel makes one of them at least, or the test would show nothing.
    let outside = std::process::Command::new(python).args(&command[1..]).output().unwrap();
    let outside = String::from_utf8(outside.stdout).unwrap();
    if outside.lines().filter(|line| line.ends_with("made")).count() <= 3 {
        skip("this kernel makes no socket of those families, and no io_uring, for anybody");
    }
}
