//! Forwarding on two interfaces and no others.

use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use ringfence::kernel::forwarding::{self, Forwarding};
use ringfence::kernel::netns::Netns;
use ringfence::kernel::rtnetlink::{Batch, Request, RouteTo, Socket, Veth};
use ringfence::link::{IfIndex, Pool};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::{AGAIN, again, ip, is_root_outside, net, outer, private_mounts, sandbox, skip};

/// A server in a namespace of its own, on the other side of the host.
fn server(host: &mut Socket) -> (Netns, IfIndex) {
    let (server, socket) = Netns::create_with(Socket::open).unwrap();
    let mut socket = socket.unwrap();
    host.commit(Batch::from([Request::create_veth(&Veth::new("uplink", "server").peer_in(&server).up())])).unwrap();
    let uplink = host.link_named("uplink").unwrap().index;
    let far_end = socket.link_named("server").unwrap();
    let (far, mac) = (far_end.index, far_end.mac.unwrap());
    socket
        .commit(Batch::from([
            Request::up(far),
            Request::add_address(far, net("203.0.113.9/24")),
            Request::add_address(far, net("2001:db8::9/64")),
            Request::add_route(&RouteTo::new(net("0.0.0.0/0")).via(ip("203.0.113.1"))),
            Request::add_route(&RouteTo::new(net("::/0")).via(ip("2001:db8::1"))),
            Request::link(far),
        ]))
        .unwrap();
    host.commit(Batch::from([
        Request::add_address(uplink, net("203.0.113.1/24")),
        Request::add_address(uplink, net("2001:db8::1/64")),
        // To ask for it, an uplink uses its link-local address, which takes a second or two to come up.
        Request::add_neighbour(uplink, ip("2001:db8::9"), mac),
        Request::link(uplink),
    ]))
    .unwrap();
    (server, uplink)
}

/// Says whether a datagram from the sandbox reaches the server, and its answer the sandbox.
fn echoes(sandbox: &Netns, server: &Netns, address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let far = server.run(|| UdpSocket::bind((address, 0)).unwrap()).unwrap();
    let near = sandbox.run(|| UdpSocket::bind((any, 0)).unwrap()).unwrap();
    let patience = Some(Duration::from_millis(150));
    far.set_read_timeout(patience).unwrap();
    near.set_read_timeout(patience).unwrap();
    let mut buffer = [0; 16];
    // Where there is a way at all, three tries find it: the address may take a moment to settle.
    (0..3).any(|_| {
        let _ = near.send_to(b"ping", far.local_addr().unwrap());
        far.recv_from(&mut buffer).is_ok_and(|(_, from)| {
            let _ = far.send_to(b"pong", from);
            near.recv_from(&mut buffer).is_ok() && buffer.starts_with(b"pong")
        })
    })
}

fn forwarding_is_a_matter_of_two_interfaces() {
    outer(|| {
        let mut host = Socket::open().unwrap();
        let (sandbox, wire) = sandbox(&mut host, &Pool::default()).unwrap();
        let (server, uplink) = server(&mut host);
        let mut set = |v4, v6| {
            let wanted = Forwarding { v4, v6 };
            for index in [uplink, wire.host_index] {
                let before = forwarding::read(&mut host, index).unwrap();
                assert_eq!(forwarding::set(&mut host, index, wanted).unwrap(), before);
                assert_eq!(forwarding::read(&mut host, index).unwrap(), wanted);
            }
            (echoes(&sandbox, &server, ip("203.0.113.9")), echoes(&sandbox, &server, ip("2001:db8::9")))
        };
        assert_eq!(set(false, false), (false, false));
        assert_eq!(set(true, true), (true, true));
        assert_eq!(set(true, false), (true, false));
        assert_eq!(set(false, true), (false, true));
        assert_eq!(set(false, false), (false, false));
        assert_eq!(set(true, true), (true, true));
        // A third interface has nothing to do with it: the host is no router.
        host.commit(Batch::from([Request::create_veth(&Veth::new("other", "rehto"))])).unwrap();
        let other = host.link_named("other").unwrap().index;
        assert_eq!(forwarding::read(&mut host, other).unwrap(), Forwarding::default());
        if std::fs::exists("/proc/self").unwrap() {
            for global in ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"] {
                assert_eq!(std::fs::read_to_string(global).unwrap(), "0\n", "{global}");
            }
        }
    });
}

#[test]
fn packets_are_forwarded_without_making_the_host_a_router() {
    forwarding_is_a_matter_of_two_interfaces();
}

/// A user namespace may mount a procfs only where it sees a whole one, and may not unmount that.
fn may_mount_procfs() -> bool {
    let may = std::env::var_os(AGAIN).is_some() || is_root_outside();
    if !may {
        skip("a procfs of one's own needs root outside of user namespaces");
    }
    may
}

#[test]
fn forwarding_works_with_a_read_only_proc_sys() {
    let read_only = || {
        private_mounts()?;
        rustix::mount::mount_bind("/proc/sys", "/proc/sys")?;
        Ok(rustix::mount::mount_remount("/proc/sys", MountFlags::BIND | MountFlags::RDONLY, "")?)
    };
    if !may_mount_procfs() {
        return;
    }
    if again("forwarding::forwarding_works_with_a_read_only_proc_sys", read_only) {
        outer(|| {
            let file = std::fs::OpenOptions::new().write(true).open("/proc/sys/net/ipv4/ip_forward");
            assert_eq!(file.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        });
        forwarding_is_a_matter_of_two_interfaces();
    }
}

#[test]
fn all_of_it_works_without_proc_and_sys() {
    let bare = || {
        private_mounts()?;
        for mount in ["/proc", "/sys"] {
            rustix::mount::unmount(mount, UnmountFlags::DETACH)?;
        }
        Ok(())
    };
    if !may_mount_procfs() {
        return;
    }
    if again("forwarding::all_of_it_works_without_proc_and_sys", bare) {
        assert!(!std::fs::exists("/proc/self").unwrap());
        forwarding_is_a_matter_of_two_interfaces();
    }
}
