//! The routing socket: what goes in comes out, and a refusal says why.

use std::net::TcpListener;

use ringfence::ErrorKind;
use ringfence::kernel::netns::Netns;
use ringfence::kernel::rtnetlink::{Batch, Request, RouteKind, RouteTo, Socket, Veth};
use ringfence::link::{IfIndex, Mtu};

use crate::{addresses_of, connect, ip, net, outer};

#[test]
fn a_small_internet_is_built_and_read_back() {
    outer(|| {
        let mut here = Socket::open().unwrap();
        let (there, socket) = Netns::create_with(Socket::open).unwrap();
        let mut socket = socket.unwrap();
        let veth = Veth::new("left", "right").peer_in(&there).mtu(Mtu::new(9000).unwrap()).up();
        here.commit(Batch::from([Request::create_veth(&veth)])).unwrap();
        let left = here.link_named("left").unwrap();
        let right = socket.link_named("right").unwrap();
        assert_eq!((left.up, left.mtu, left.parent), (true, 9000, Some(right.index)));
        assert_eq!((right.up, right.mtu, right.parent), (false, 9000, Some(left.index)));
        here.commit(Batch::from([
            Request::add_address(left.index, net("198.51.100.1/24")),
            Request::add_address(left.index, net("2001:db8::1/64")),
            Request::add_route(&RouteTo::new(net("2001:db8::1/128")).on(left.index).local()),
        ]))
        .unwrap();
        socket
            .commit(Batch::from([
                Request::up(right.index),
                Request::add_address(right.index, net("198.51.100.2/24")),
                Request::add_address(right.index, net("2001:db8::2/64")),
                // The kernel's own comes when a work queue comes to it.
                Request::add_route(&RouteTo::new(net("2001:db8::2/128")).on(right.index).local()),
                Request::add_route(&RouteTo::new(net("203.0.113.0/24")).via(ip("198.51.100.1"))),
                Request::add_route(&RouteTo::new(net("2001:db8:1::/48")).via(ip("2001:db8::1"))),
                Request::add_route(&RouteTo::new(net("0.0.0.0/0")).via(ip("10.0.0.1")).on(right.index).onlink()),
                Request::add_route(&RouteTo::new(net("203.0.113.128/25")).on(right.index)),
                Request::add_neighbour(right.index, ip("198.51.100.9"), [2, 0, 0, 0, 0, 9]),
                Request::add_neighbour(right.index, ip("2001:db8::9"), [2, 0, 0, 0, 0, 9]),
            ]))
            .unwrap();
        let look = |socket: &mut Socket, to: &str| {
            socket.commit(Batch::from([Request::lookup(ip(to))])).unwrap().remove(0).route().unwrap()
        };
        let route = look(&mut socket, "203.0.113.7");
        assert_eq!((route.destination, route.gateway), (net("203.0.113.0/24"), Some(ip("198.51.100.1"))));
        let route = look(&mut socket, "203.0.113.200");
        assert_eq!((route.destination, route.interface), (net("203.0.113.128/25"), Some(right.index)));
        assert_eq!(look(&mut socket, "2001:db8:1::9").gateway, Some(ip("2001:db8::1")));
        assert_eq!(look(&mut socket, "192.0.2.1").destination.prefix_len(), 0);
        let own = look(&mut socket, "198.51.100.2");
        assert_eq!((own.destination, own.kind), (net("198.51.100.2/32"), RouteKind::Local));
        assert_eq!(look(&mut socket, "2001:db8::2").kind, RouteKind::Local);

        let addresses = addresses_of(&mut socket, right.index);
        for expected in ["198.51.100.2/24", "2001:db8::2/64"] {
            assert!(addresses.iter().any(|found| found == expected), "{addresses:?}");
        }
        let routes = socket.routes().unwrap();
        for expected in ["203.0.113.0/24", "2001:db8:1::/48", "0.0.0.0/0"] {
            assert!(routes.iter().any(|route| route.destination == net(expected)), "{expected} not in {routes:?}");
        }
        assert!(here.links().unwrap().iter().any(|link| link.name == "left" && link.mac == left.mac));

        let listener = TcpListener::bind("[2001:db8::1]:0").unwrap();
        connect(&there, listener.local_addr().unwrap()).unwrap();

        here.commit(Batch::from([Request::delete_link(left.index)])).unwrap();
        let error = here.link(left.index).unwrap_err();
        assert_eq!(error.to_string(), format!("can't read interface {}", left.index));
    });
}

#[test]
fn a_refusal_names_the_operation_the_object_and_the_reason() {
    outer(|| {
        let mut socket = Socket::open().unwrap();
        let commit = |socket: &mut Socket, request| socket.commit(Batch::from([request])).unwrap_err();
        let error = commit(&mut socket, Request::up(IfIndex(77)));
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Kernel, "can't switch on interface 77"));
        assert!(error.chain().contains("No such device"), "{}", error.chain());
        let to = RouteTo::new(net("203.0.113.0/24")).via(ip("198.51.100.1"));
        let error = commit(&mut socket, Request::add_route(&to));
        assert_eq!(
            error.chain(),
            "can't add route to 203.0.113.0/24 via 198.51.100.1: \
             Network is unreachable (os error 101): Nexthop has invalid gateway"
        );
        let veth = || Request::create_veth(&Veth::new("a", "b"));
        socket.commit(Batch::from([veth()])).unwrap();
        assert_eq!(commit(&mut socket, veth()).kind(), ErrorKind::Conflict);

        // The second of three is refused, the others are done.
        let a = socket.link_named("a").unwrap().index;
        let add = |address: &str| Request::add_address(a, net(address));
        let batch = Batch::from([add("198.51.100.1/24"), add("198.51.100.1/24"), add("198.51.100.2/24")]);
        let results = socket.try_each(batch).unwrap();
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(results[1].as_ref().unwrap_err().error.errno, 17);
        assert_eq!(addresses_of(&mut socket, a).len(), 2);
    });
}

#[test]
fn many_refusals_in_one_batch_all_come_back() {
    outer(|| {
        let mut socket = Socket::open().unwrap();
        let batch = (1000..1100).map(|index| Request::up(IfIndex(index))).collect();
        let results = socket.try_each(batch).unwrap();
        assert!(results.iter().all(Result::is_err) && results.len() == 100);
        // So many that the answers would not fit the socket's buffer.
        let batch = (1000..4000).map(|index| Request::link(IfIndex(index % 2))).collect();
        let results = socket.try_each(batch).unwrap();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1500);
        assert_eq!(socket.link(IfIndex(1)).unwrap().name, "lo");
    });
}

#[test]
fn a_dump_of_many_is_whole() {
    outer(|| {
        let mut socket = Socket::open().unwrap();
        let names: Vec<_> = (0..150).map(|n| (format!("a{n}"), format!("b{n}"))).collect();
        socket.commit(names.iter().map(|(a, b)| Request::create_veth(&Veth::new(a, b))).collect()).unwrap();
        let links = socket.links().unwrap();
        assert!(names.iter().all(|(a, b)| [a, b].iter().all(|name| links.iter().any(|link| link.name == **name))));
    });
}
