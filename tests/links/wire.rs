//! The wire between a sandbox and its host: which addresses it takes, and when.

use std::io::Read;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use ringfence::ErrorKind;
use ringfence::kernel::link::wire;
use ringfence::kernel::netns::Netns;
use ringfence::kernel::rtnetlink::{Batch, Request, RouteTo, Socket, Veth};
use ringfence::link::{IfIndex, Mtu, Pool};

use crate::{AGAIN, addresses_of, connect, net, outer, sandbox, skip};

#[test]
fn the_first_sandbox_has_the_first_addresses_and_works_at_once() {
    outer(|| {
        let mut host = Socket::open().unwrap();
        let (netns, wire) = sandbox(&mut host, &Pool::default()).unwrap();
        let addresses = wire.pair.addresses;
        assert_eq!(addresses.sandbox4.to_string(), "10.200.0.2");
        assert_eq!(addresses.sandbox6.to_string(), "fd52:4e46:4e43::2");
        assert!(wire.ipv6);
        for address in [IpAddr::from(addresses.host4), IpAddr::from(addresses.host6)] {
            let listener = TcpListener::bind((address, 0)).unwrap();
            connect(&netns, listener.local_addr().unwrap()).unwrap();
        }
        // And the other way.
        for address in [IpAddr::from(addresses.sandbox4), IpAddr::from(addresses.sandbox6)] {
            let listener = netns.run(|| TcpListener::bind((address, 0)).unwrap()).unwrap();
            TcpStream::connect_timeout(&listener.local_addr().unwrap(), Duration::from_secs(1)).unwrap();
        }

        let mut inside = netns.run(|| Socket::open().unwrap()).unwrap();
        assert!(inside.link_named("lo").unwrap().up);
        let eth0 = inside.link_named("eth0").unwrap();
        assert_eq!((eth0.index, eth0.up, eth0.carrier), (wire.sandbox_index, true, true));
        assert_eq!((eth0.mac, eth0.mtu), (Some(wire.pair.sandbox_mac()), 1500));
        let host_end = host.link(wire.host_index).unwrap();
        assert_eq!((host_end.up, host_end.carrier, host_end.mac), (true, true, Some(wire.pair.host_mac())));
        assert_eq!(host_end.name, wire.pair.host.as_str());
        let main: Vec<_> = inside.routes().unwrap().into_iter().filter(|route| route.table == 254).collect();
        assert_eq!(main.iter().filter(|route| route.destination.prefix_len() == 0).count(), 2, "{main:?}");

        // One address a family, and no link-local one: not now, not once the carrier has settled.
        for pause in [0, 300] {
            std::thread::sleep(Duration::from_millis(pause));
            let own = ["10.200.0.2/32", "fd52:4e46:4e43::2/128"];
            assert_eq!(addresses_of(&mut inside, wire.sandbox_index), own);
            assert_eq!(addresses_of(&mut host, wire.host_index), ["10.200.0.1/32", "fd52:4e46:4e43::1/128"]);
        }

        let index = wire.host_index;
        wire.remove(&mut host).unwrap();
        assert!(host.link(index).is_err());
        assert!(wire.remove(&mut host).is_err());
        // Its addresses are free again.
        let (_second, wire) = sandbox(&mut host, &Pool::default()).unwrap();
        assert_eq!(wire.pair.addresses, addresses);
    });
}

#[test]
fn a_link_goes_with_the_last_descriptor_of_its_namespace() {
    outer(|| {
        let mut host = Socket::open().unwrap();
        let (netns, wire) = sandbox(&mut host, &Pool::default()).unwrap();
        drop(netns);
        let start = Instant::now();
        while host.link(wire.host_index).is_ok() {
            assert!(start.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}

/// Whether slot 0 is still given out on a host that has `requests` carried out on its uplink.
fn first_slot_is_free(requests: impl FnOnce(IfIndex) -> Request + Send) -> bool {
    let free = outer(|| {
        let mut host = Socket::open().unwrap();
        host.commit(Batch::from([Request::create_veth(&Veth::new("uplink", "isp").up())])).unwrap();
        let uplink = host.link_named("uplink").unwrap();
        host.commit(Batch::from([Request::up(uplink.parent.unwrap()), requests(uplink.index)])).unwrap();
        let pool = Pool { v4: "10.200.0.0/24".parse().unwrap(), ..Pool::default() };
        let (_netns, wire) = sandbox(&mut host, &pool).unwrap();
        wire.pair.addresses == pool.slot(0).unwrap()
    });
    free.unwrap_or_default()
}

#[test]
fn a_slot_that_the_host_uses_is_passed_by() {
    if outer(|| ()).is_none() {
        return;
    }
    let routes = ["10.200.0.0/25", "10.200.0.0/30", "10.200.0.1/32", "10.200.0.2/32", "fd52:4e46:4e43::1/128"];
    for to in routes.into_iter().chain(["fd52:4e46:4e43::/122", "fd52:4e46:4e43::2/128"]) {
        assert!(!first_slot_is_free(|uplink| Request::add_route(&RouteTo::new(net(to)).on(uplink))), "{to}");
    }
    let addresses = ["10.200.0.1/32", "10.200.0.2/32", "10.200.0.17/27", "fd52:4e46:4e43::2/128"];
    for own in addresses.into_iter().chain(["fd52:4e46:4e43::17/122"]) {
        assert!(!first_slot_is_free(|uplink| Request::add_address(uplink, net(own))), "{own}");
    }
    // A default route is no use of a slot, whole or in the pieces that VPNs make of it, nor are the two addresses of a /30
    // that no wire has.
    let pieces = ["0.0.0.0/1", "8000::/1", "e000::/3", "fc00::/7"];
    for to in pieces.into_iter().chain(["0.0.0.0/0", "::/0", "10.200.0.0/32", "10.200.0.3/32", "10.201.0.0/16"]) {
        assert!(first_slot_is_free(|uplink| Request::add_route(&RouteTo::new(net(to)).on(uplink))), "{to}");
    }
}

/// Runs ip(8) in the namespace of the calling thread; false, and said so, on a machine without it.
fn ip_command(commands: &[&str]) -> bool {
    commands.iter().all(|arguments| match Command::new("ip").args(arguments.split(' ')).output() {
        Ok(output) => {
            assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
            true
        }
        Err(error) => {
            skip(&format!("no ip(8): {error}"));
            false
        }
    })
}

#[test]
fn routes_in_other_tables_and_routes_that_refuse() {
    if outer(|| ()).is_none() {
        return;
    }
    let uplink = ["link add uplink type veth peer name isp", "link set uplink up", "link set isp up"];
    let wired = |commands: &[&str]| {
        let found = outer(|| {
            let ready = ip_command(&[&uplink, commands].concat());
            ready.then(|| sandbox(&mut Socket::open().unwrap(), &Pool::default()).map(|(_, wire)| wire))
        });
        found.flatten()
    };
    let first = Pool::default().slot(0).unwrap();
    // What refuses, less specific than a wire, is not in the way.
    for route in ["blackhole 10.0.0.0/8", "unreachable 10.200.0.0/16", "prohibit 10.200.0.0/16", "unreachable fd00::/8"]
    {
        if let Some(wire) = wired(&[&format!("route add {route}")]) {
            assert_eq!(wire.unwrap().pair.addresses, first, "{route}");
        }
    }
    // The very address is.
    for route in ["blackhole 10.200.0.2/32", "unreachable fd52:4e46:4e43::2/128"] {
        if let Some(wire) = wired(&[&format!("route add {route}")]) {
            assert_ne!(wire.unwrap().pair.addresses, first, "{route}");
        }
    }
    // A table that comes before `main`.
    for (family, route) in [("-4", "10.200.0.0/24"), ("-6", "fd52:4e46:4e43::/120")] {
        let add = format!("{family} route add {route} dev uplink table 100");
        if let Some(wire) = wired(&[&add, &format!("{family} rule add lookup 100 priority 100")]) {
            assert_ne!(wire.unwrap().pair.addresses, first, "{route}");
        }
    }
    // As wg-quick(8) does it: a default route elsewhere, after all of `main` but its own default route.
    let vpn = [
        "route add default dev uplink table 100",
        "rule add lookup 100 priority 101",
        "rule add lookup main suppress_prefixlength 0 priority 100",
    ];
    if let Some(wire) = wired(&vpn) {
        assert_eq!(wire.unwrap().pair.addresses, first);
    }
    // The same before all of `main`: no route of ours would ever be taken.
    for kind in ["", "unreachable "] {
        let dev = if kind.is_empty() { " dev uplink" } else { "" };
        let add = format!("route add {kind}default{dev} table 100");
        if let Some(wire) = wired(&[&add, "rule add lookup 100 priority 100"]) {
            let error = wire.unwrap_err();
            let what = "a policy rule of the host leads packets for 10.200.0.2 elsewhere";
            assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Conflict, what));
            let advice =
                "let the table `main` come first for the pool: ip rule add to 10.200.0.0/16 lookup main priority 1";
            assert_eq!(error.advice(), Some(advice));
        }
    }
    // And the advice is good.
    let cured = [
        "route add default dev uplink table 100",
        "rule add lookup 100 priority 100",
        "rule add to 10.200.0.0/16 lookup main priority 1",
    ];
    if let Some(wire) = wired(&cured) {
        assert_eq!(wire.unwrap().pair.addresses, first);
    }
}

#[test]
fn a_route_over_the_whole_pool_exhausts_it_and_is_named() {
    outer(|| {
        let mut host = Socket::open().unwrap();
        host.commit(Batch::from([Request::create_veth(&Veth::new("vpn", "far").up())])).unwrap();
        let vpn = host.link_named("vpn").unwrap().index;
        host.commit(Batch::from([Request::add_route(&RouteTo::new(net("10.0.0.0/8")).on(vpn))])).unwrap();
        let before = host.links().unwrap().len();
        let error = sandbox(&mut host, &Pool::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert_eq!(error.to_string(), "address pool 10.200.0.0/16 is exhausted");
        assert_eq!(error.advice(), Some("the host has a route to 10.0.0.0/8 there: take another pool"));
        assert_eq!(host.links().unwrap().len(), before, "the veth is left");
    });
}

#[test]
fn a_pool_of_one_has_room_for_one() {
    outer(|| {
        let mut host = Socket::open().unwrap();
        let pool = Pool { v4: "10.200.0.0/30".parse().unwrap(), ..Pool::default() };
        let (_first, wire) = sandbox(&mut host, &pool).unwrap();
        // Each destination once: of our own address the kernel adds a second route when it comes to it.
        let state = |host: &mut Socket| {
            let routes: std::collections::BTreeSet<_> =
                host.routes().unwrap().into_iter().map(|route| route.destination).collect();
            (host.links().unwrap(), routes)
        };
        let before = state(&mut host);
        let error = sandbox(&mut host, &pool).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert_eq!(error.to_string(), "address pool 10.200.0.0/30 is exhausted");
        assert_eq!(state(&mut host), before);
        wire.remove(&mut host).unwrap();
        sandbox(&mut host, &pool).unwrap();
    });
}

#[test]
fn a_namespace_with_an_eth0_is_a_conflict_and_stays_as_it_was() {
    outer(|| {
        let mut host = Socket::open().unwrap();
        let (_netns, socket) = Netns::create_with(Socket::open).unwrap();
        let mut socket = socket.unwrap();
        socket.commit(Batch::from([Request::create_veth(&Veth::new("eth0", "eth1"))])).unwrap();
        let before = (host.links().unwrap(), socket.links().unwrap());
        let error = wire(&mut host, &mut socket, &Pool::default(), Mtu::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.chain());
        assert_eq!((host.links().unwrap(), socket.links().unwrap()), before);
    });
}

#[test]
fn other_interfaces_inside_do_not_matter() {
    // As with the modules of tunnels loaded, which put an interface into every new namespace.
    outer(|| {
        let mut host = Socket::open().unwrap();
        let (netns, socket) = Netns::create_with(Socket::open).unwrap();
        let mut socket = socket.unwrap();
        socket.commit(Batch::from([Request::create_veth(&Veth::new("one", "two"))])).unwrap();
        let wire = wire(&mut host, &mut socket, &Pool::default(), Mtu::default()).unwrap();
        assert_eq!(socket.link(wire.sandbox_index).unwrap().name, "eth0");
        let listener = TcpListener::bind((wire.pair.addresses.host6, 0)).unwrap();
        connect(&netns, listener.local_addr().unwrap()).unwrap();
    });
}

#[test]
fn a_host_without_ipv6_gets_a_wire_without() {
    outer(|| {
        // Shows the namespace of the thread that asks, which is the outer one.
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let mut host = Socket::open().unwrap();
        let (netns, wire) = sandbox(&mut host, &Pool::default()).unwrap();
        assert!(!wire.ipv6);
        let listener = TcpListener::bind((wire.pair.addresses.host4, 0)).unwrap();
        connect(&netns, listener.local_addr().unwrap()).unwrap();
        // Refused at once, not after a timeout.
        let start = Instant::now();
        assert!(connect(&netns, "[2001:db8::1]:80".parse().unwrap()).is_err());
        assert!(start.elapsed() < Duration::from_secs(20));
    });
}

#[test]
fn two_hundred_at_once_have_two_hundred_slots() {
    outer(|| {
        let here = Netns::current().unwrap();
        let go = Barrier::new(8);
        let worker = || {
            let mut host = Socket::open().unwrap();
            go.wait();
            (0..25).map(|_| sandbox(&mut host, &Pool::default()).unwrap()).collect::<Vec<_>>()
        };
        let wired: Vec<_> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8).map(|_| scope.spawn(|| here.run(worker).unwrap())).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        let mut slots: Vec<_> = wired.iter().map(|(_, wire)| wire.pair.addresses.sandbox4).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), 200);
        // Each has the path to itself.
        for (netns, wire) in &wired {
            let listener = TcpListener::bind((wire.pair.addresses.host4, 0)).unwrap();
            connect(netns, listener.local_addr().unwrap()).unwrap();
            assert_eq!(listener.accept().unwrap().1.ip(), IpAddr::from(wire.pair.addresses.sandbox4));
        }
    });
}

#[test]
fn processes_at_the_same_moment_share_a_pool_without_a_clash() {
    let test = "wire::processes_at_the_same_moment_share_a_pool_without_a_clash";
    if std::env::var_os(AGAIN).is_some() {
        let mut host = Socket::open().unwrap();
        let pool = Pool { v4: "10.200.0.0/26".parse().unwrap(), ..Pool::default() };
        let wired: Vec<_> = (0..4).map(|_| sandbox(&mut host, &pool).unwrap()).collect();
        for (_, wire) in &wired {
            eprintln!("SLOT {}", wire.pair.addresses.sandbox4);
        }
        eprintln!("READY");
        // Until the parent has seen all of them.
        let _ = std::io::stdin().read(&mut [0]);
        return;
    }
    outer(|| {
        let spawn = |_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", test, "--nocapture"])
                .env(AGAIN, "1")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        // Together they want all sixteen slots.
        let mut children: Vec<_> = (0..4).map(spawn).collect();
        let mut slots = Vec::new();
        for child in &mut children {
            let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
            for line in lines.map_while(Result::ok).take_while(|line| line != "READY") {
                match line.strip_prefix("SLOT ") {
                    Some(slot) => slots.push(slot.to_owned()),
                    None => eprintln!("{line}"),
                }
            }
        }
        for mut child in children {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
        slots.sort();
        slots.dedup();
        assert_eq!(slots.len(), 16, "{slots:?}");
    });
}
