//! What a program may try besides packets: another namespace, other rules, other switches, its neighbours.

use std::process::{Child, Stdio};

use super::support::{Outer, PROBE, Shape, python, until};
use super::{CONTROL, DIRECT, clean, nothing_else_was_seen, probe, proves};

/// Runs a shell script inside that ends with the control, and finds nothing else on the wire.
fn script(flags: &str, script: &str) -> Option<String> {
    let mut last = None;
    for router in [false, true] {
        let (outer, python) = (Outer::shaped(Shape { router, ..Shape::default() })?, python()?);
        let wire = outer.watch();
        let script = script.replace("PROBE", &format!("{python} -I {PROBE}"));
        let script = format!("{script}\n{python} -I {PROBE} {}", CONTROL.trim_start_matches("+ "));
        last = Some(outer.run(&format!("{DIRECT} {flags}"), &["sh", "-c", &script]));
        nothing_else_was_seen(&wire);
    }
    last
}

#[test]
fn new_namespaces() {
    proves(&["A new user and network namespace made inside."]);
    // As root, and as somebody who makes himself root: in a namespace of its own it may do everything, and there is no way out.
    for flags in ["", "--seccomp off", "--seccomp userns --user 65534:65534", "--seccomp off --drop-caps"] {
        let said = script(
            flags,
            "export ATTEMPT_SECONDS=0.05; unshare -Urn sh -c '
                ip link set lo up
                ip link add d0 type veth peer name d1; ip link set d0 up; ip link set d1 up; ip addr add 10.200.0.2/24 dev d0
                ip route add default via 10.200.0.1 dev d0
                nft flush ruleset
                PROBE sockets ports icmp
                ip link add link eth0 name m0 type macvlan && echo GOT eth0
            '
            unshare -Ur sh -c '
                ip link set eth0 netns $$ && echo GOT eth0
                ip link add m0 link eth0 type macvlan && echo GOT eth0
                nft flush ruleset && echo GOT rules
                PROBE sockets ports icmp
            '",
        );
        let Some(said) = said else { return };
        assert!(!said.contains("GOT") && !said.contains("connected"), "{said}");
    }
}

#[test]
fn rules_and_switches() {
    proves(&["Changing the rules from inside."]);
    // With the switch off: what is made in a new user namespace is to have no way out either.
    let said = script(
        "--seccomp off",
        "nft flush ruleset && echo GOT rules
         nft delete table inet ringfence && echo GOT rules
         unshare -U nft flush ruleset && echo GOT rules
         ip link set eth0 down && echo GOT the link
         ip link set eth0 address 02:00:5e:00:00:01 && echo GOT the link
         ip addr add 198.51.100.1/24 dev eth0 && echo GOT an address
         ip route add 203.0.113.10/32 dev lo && echo GOT a route
         for switch in ipv4/ip_forward ipv4/conf/all/route_localnet ipv4/conf/lo/forwarding ipv6/conf/all/forwarding; do
            echo 1 > /proc/sys/net/$switch && echo GOT $switch
         done
         mount -o remount,rw /proc/sys && echo GOT /proc/sys
         umount /proc/sys && echo GOT /proc/sys
         unshare -Urm sh -c 'mount -o remount,rw,bind /proc/sys && echo GOT /proc/sys; umount -l /proc/sys && echo GOT /proc/sys'
         unshare -Urmpf sh -c 'mount -t proc proc /mnt && echo 1 > /mnt/sys/net/ipv4/ip_forward && echo GOT a procfs'
         PROBE sockets ports",
    );
    if let Some(said) = said {
        assert!(!said.contains("GOT") && !said.contains("connected"), "{said}");
    }
}

#[test]
fn a_router_inside() {
    // With every switch on and no rule left, packets that come in by loopback are forwarded out, past the output hook.
    let said = script(
        "--keep-caps NET_ADMIN,NET_RAW,DAC_OVERRIDE --tampering report",
        "nft delete chain inet ringfence forward; nft flush ruleset
         ip link add d0 type veth peer name d1; ip link set d0 up; ip link set d1 up; ip addr add 192.0.2.1/24 dev d0
         ip addr add 198.51.100.1/32 dev lo; ip neigh add 198.51.100.254 lladdr 02:00:5e:00:00:fe dev eth0
         ip link set eth0 promisc on; ip link set eth0 mtu 9000
         ip link add m0 link eth0 type macvlan mode bridge; ip link set m0 up; ip addr add 198.51.100.77/24 dev m0
         ip link add b0 type bridge 2>/dev/null && ip link set b0 up
         PROBE sockets ports spoofed fragments icmp
         ip link set m0 down; ip addr del 198.51.100.1/32 dev lo; ip addr del 198.51.100.77/24 dev m0",
    );
    if let Some(said) = said {
        assert!(!said.contains("connected"), "{said}");
    }
}

#[test]
fn from_one_sandbox_to_another() {
    proves(&["Another sandbox."]);
    for router in [false, true] {
        let (Some(outer), Some(python)) = (Outer::shaped(Shape { router, ..Shape::default() }), python()) else {
            return;
        };
        let wire = outer.watch();
        // Each names the other as an endpoint, and serves what the other asks for.
        let flags = "--direct 10.200.0.2:7777,10.200.0.6:7777 --direct-udp 10.200.0.2:7777,10.200.0.6:7777 \
                     --direct [fd52:4e46:4e43::2]:7777,[fd52:4e46:4e43::6]:7777";
        for flags in ["", flags] {
            let mut first = outer.ringfence(
                format!("run --allow 203.0.113.9 {flags} -- {python} -I {PROBE} serve 7777").split_whitespace(),
            );
            let mut first = Served::start(&outer, first.stdin(Stdio::piped()).stdout(Stdio::piped()));
            let address = first.line();
            assert!(address.starts_with("10.200.0."), "{address}");
            let all = format!("{DIRECT} {flags}");
            let other6 = format!("fd52:4e46:4e43::{}", address.rsplit('.').next().unwrap());
            let said = outer.run(&all, &probe(python, &format!("sockets {address} {other6} {CONTROL}")));
            for line in said.lines().filter(|line| !line.starts_with("control-")) {
                assert!(!line.contains("connected") && !line.contains("answered"), "{line}");
            }
            // Nor by packets of its own making, as the answer of a flow that never was.
            let script = format!("nft flush ruleset; exec {python} -I {PROBE} neighbour {address} {CONTROL}");
            outer.run(&format!("{all} --keep-caps NET_RAW,NET_ADMIN --tampering report"), &["sh", "-c", &script]);
            drop(first.child.stdin.take());
            assert_eq!(first.line(), "0", "the other sandbox was reached");
            drop(first);
            // The next one names addresses of this one's, and the host must not find them by a wire that is on its way out.
            until("everything is gone", || clean(&outer));
        }
        nothing_else_was_seen(&wire);
    }
}

/// A server in a sandbox, and what it says.
struct Served {
    child: Child,
    said: std::io::BufReader<std::process::ChildStdout>,
}

impl Served {
    fn start(outer: &Outer, command: &mut std::process::Command) -> Self {
        let mut child = outer.spawn(command);
        let said = std::io::BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut self.said, &mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let start = std::time::Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if start.elapsed() > super::support::PATIENCE {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}
