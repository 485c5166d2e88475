//! What a program may try that writes its own packets and frames: with CAP_NET_RAW it passes by hooks, and with CAP_NET_ADMIN
//! it rewrites the rules inside. Then it is the host's side that holds: here nobody mends them (`--tampering report`).

use super::support::{HOST, Outer, SERVERS, Serve, Servers, Shape, python};
use super::{CONTROL, DIRECT, PROBE, nothing_else_was_seen, proves};

/// Sends some five thousand packets and frames, every one of which must stay on the sandbox's wire.
fn storm(flags: &str, before: &str, ways: &str, all_arrive: bool) {
    proves(&[
        "ICMP echo.",
        "SCTP, DCCP, UDP-Lite, GRE, ESP, IPIP, 6in4.",
        "Raw IP sockets.",
        "`AF_PACKET` frames.",
        "IPv6 to link-local, ULA, IPv4-mapped, 6to4, NAT64 addresses.",
        "Multicast and broadcast.",
        "DHCP.",
        "Source addresses that are not the sandbox's.",
        "Fragments, first or later.",
        "IP options and IPv6 extension headers.",
        "A direct endpoint's address on another port or protocol.",
        "Packets that belong to no flow.",
    ]);
    for router in [false, true] {
        let (Some(outer), Some(python)) = (Outer::shaped(Shape { router, ..Shape::default() }), python()) else {
            return;
        };
        let services =
            Servers::start(&outer.host, &["0.0.0.0", "2001:db8:1::1"], &[(9, Serve::EchoUdp), (22, Serve::Echo)]);
        let (wire, near) = (outer.watch(), outer.watch_host());
        let script = format!("{before} exec {python} -I {PROBE} storm {ways} {CONTROL}");
        let said = outer.run(&format!("{DIRECT} {flags}"), &["sh", "-ec", &script]);
        let sent: usize = said.lines().filter_map(|line| line.split(' ').nth(1)?.parse::<usize>().ok()).sum();
        if all_arrive {
            // They were sent, and came as far as the host's end of the wire.
            let arrived = near.frames().iter().filter(|frame| frame.holds(b"LEAK") && !frame.is_from_host()).count();
            assert!(sent > 1500 && arrived * 10 > sent * 8, "of {sent} frames {arrived} reached the host:\n{said}");
        }
        nothing_else_was_seen(&wire);
        assert_eq!(services.heard(), 0, "a service of the host was reached");
    }
}

#[test]
fn by_every_way_with_the_rules_inside_intact() {
    storm("--keep-caps NET_RAW", "", "raw packet", false);
}

#[test]
fn past_every_hook_inside() {
    storm("--keep-caps NET_RAW", "", "bypass bypass", true);
}

#[test]
fn with_the_rules_inside_gone() {
    proves(&["Changing the rules from inside."]);
    storm("--keep-caps NET_RAW,NET_ADMIN --tampering report", "nft flush ruleset;", "raw packet bypass", true);
}

#[test]
fn on_a_host_that_routes_nothing() {
    // No direct endpoint: no conntrack, no masquerade, and on a router only the fence is in the way.
    let (Some(outer), Some(python)) = (Outer::shaped(Shape { router: true, ..Shape::default() }), python()) else {
        return;
    };
    let wire = outer.watch();
    let script = format!("nft flush ruleset; exec {python} -I {PROBE} storm raw packet bypass");
    outer.run("--allow 203.0.113.9 --keep-caps NET_RAW,NET_ADMIN --tampering report", &["sh", "-ec", &script]);
    // The control: a program of the host's own.
    super::unfenced(&outer, python, "udp 203.0.113.9 5353 control-four + udp 2001:db8::9 5353 control-six");
    nothing_else_was_seen(&wire);
}

#[test]
fn cut_up_by_the_host() {
    proves(&["Fragments, first or later."]);
    for before in ["", "nft flush ruleset;"] {
        let (Some(outer), Some(python)) = (Outer::new(), python()) else { return };
        let wire = outer.watch();
        let script = format!("{before} exec {python} -I {PROBE} offload {CONTROL}");
        let said =
            outer.run(&format!("{DIRECT} --keep-caps NET_RAW,NET_ADMIN --tampering report"), &["sh", "-ec", &script]);
        assert!(said.contains("sent="), "{said}");
        wire.until_seen("control-six");
        // A router may cut up what was judged whole: then all of it goes where it was let out to.
        let host = |frame: &super::Frame| HOST.map(|host| host.parse().ok()).contains(&frame.source());
        let to =
            |frame: &super::Frame| [SERVERS[0], SERVERS[2]].map(|to| to.parse().ok()).contains(&frame.destination());
        assert_eq!(wire.strangers(|frame| host(frame) && to(frame) && !frame.holds(b"LEAK")), []);
    }
}
