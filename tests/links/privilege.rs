//! What works without being root, and what is said where it doesn't.

use std::net::{IpAddr, TcpListener};

use ringfence::ErrorKind;
use ringfence::kernel::forwarding::{self, Forwarding};
use ringfence::kernel::netns::Netns;
use ringfence::kernel::rtnetlink::{Batch, Request, Socket};
use ringfence::link::{IfIndex, Pool};
use rustix::process::DumpableBehavior;
use rustix::thread::UnshareFlags;

use crate::{again, become_nobody, connect, outer, sandbox};

#[test]
fn wiring_needs_no_privilege_but_that_of_a_user_namespace() {
    let unprivileged = || {
        // Nobody first: what root may outside of the user namespace must not be what makes it work.
        become_nobody()?;
        // The change of user made /proc/self root's, and the map of users could not be written.
        rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)?;
        // SAFETY: only namespaces are unshared, in a child that has one thread.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNET) }?;
        std::fs::write("/proc/self/uid_map", "0 65534 1")
    };
    if !again("privilege::wiring_needs_no_privilege_but_that_of_a_user_namespace", unprivileged) {
        return;
    }
    assert!(!crate::is_root_outside());
    outer(|| {
        let mut host = Socket::open().unwrap();
        let (netns, wire) = sandbox(&mut host, &Pool::default()).unwrap();
        for address in [IpAddr::from(wire.pair.addresses.host4), IpAddr::from(wire.pair.addresses.host6)] {
            let listener = TcpListener::bind((address, 0)).unwrap();
            connect(&netns, listener.local_addr().unwrap()).unwrap();
        }
        let index = wire.host_index;
        let both = Forwarding { v4: true, v6: true };
        forwarding::set(&mut host, index, both).unwrap();
        assert_eq!(forwarding::read(&mut host, index).unwrap(), both);
    });
}

#[test]
fn without_privilege_the_refusal_says_what_is_missing() {
    let nobody = || {
        // SAFETY: only the network namespace is unshared, in a child that has one thread.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
        become_nobody()
    };
    if !again("privilege::without_privilege_the_refusal_says_what_is_missing", nobody) {
        return;
    }
    let error = Netns::new().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Privilege);
    assert!(error.advice().unwrap().contains("root"));
    let mut socket = Socket::open().unwrap();
    let error = socket.commit(Batch::from([Request::up(IfIndex(1))])).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Privilege, "can't switch on interface 1"));
    assert!(error.advice().unwrap().contains("CAP_NET_ADMIN"));
    assert!(Netns::current().is_ok());
}
