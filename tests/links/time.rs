//! How long things take, and that none takes long.

use std::net::{IpAddr, TcpListener};
use std::time::{Duration, Instant};

use ringfence::kernel::link::wire;
use ringfence::kernel::netns::Netns;
use ringfence::kernel::rtnetlink::Socket;
use ringfence::link::{Mtu, Pool};

use crate::{connect, outer, sandbox};

#[test]
#[ignore = "measures; run it in release mode with --nocapture"]
fn how_long_a_wire_takes() {
    outer(|| {
        let mut host = Socket::open().unwrap();
        let (mut namespaces, mut wires, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..200 {
            let start = Instant::now();
            let (netns, socket) = Netns::create_with(Socket::open).unwrap();
            let mut socket = socket.unwrap();
            namespaces.push(start.elapsed());
            let start = Instant::now();
            kept.push((wire(&mut host, &mut socket, &Pool::default(), Mtu::default()).unwrap(), netns));
            wires.push(start.elapsed());
        }
        for (what, mut times) in [("namespace", namespaces), ("wire", wires)] {
            times.sort_unstable();
            eprintln!("{what}: median {:?}, minimum {:?}", times[times.len() / 2], times[0]);
        }
    });
}

#[test]
fn the_first_connection_never_stalls_while_others_are_torn_down() {
    const SANDBOXES: usize = 300;
    const STALL: Duration = Duration::from_millis(200);
    outer(|| {
        let mut host = Socket::open().unwrap();
        let (send, receive) = std::sync::mpsc::channel::<Netns>();
        let slowest = std::thread::scope(|scope| {
            // Closes a few namespaces at a time, so that a teardown is under way at every moment.
            scope.spawn(|| {
                let mut held = Vec::new();
                for netns in receive {
                    held.push(netns);
                    if held.len() == 4 {
                        held.clear();
                    }
                }
            });
            let mut slowest = [Duration::ZERO; 2];
            for _ in 0..SANDBOXES {
                let (netns, wire) = sandbox(&mut host, &Pool::default()).unwrap();
                let addresses = wire.pair.addresses;
                for (slowest, address) in
                    slowest.iter_mut().zip([IpAddr::from(addresses.host4), addresses.host6.into()])
                {
                    let listener = TcpListener::bind((address, 0)).unwrap();
                    *slowest = connect(&netns, listener.local_addr().unwrap()).unwrap().max(*slowest);
                }
                send.send(netns).unwrap();
            }
            drop(send);
            slowest
        });
        let [v4, v6] = slowest;
        eprintln!("slowest first connect of {SANDBOXES}: IPv4 {v4:?}, IPv6 {v6:?}");
        assert!(v4 < STALL && v6 < STALL, "IPv4 {v4:?}, IPv6 {v6:?}");
    });
}
