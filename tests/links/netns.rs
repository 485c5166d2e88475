//! Namespaces: making, entering, finding and naming them.

use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};

use ringfence::ErrorKind;
use ringfence::kernel::netns::Netns;
use ringfence::kernel::rtnetlink::Socket;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::{again, outer, private_mounts};

#[test]
fn a_namespace_is_held_by_its_descriptor_and_entered_on_another_thread() {
    outer(|| {
        let here = Netns::current().unwrap();
        let new = Netns::new().unwrap();
        assert!(!here.same_as(&new).unwrap());
        assert!(new.run(|| Netns::current().unwrap().same_as(&new).unwrap()).unwrap());
        assert!(here.same_as(&Netns::current().unwrap()).unwrap(), "the calling thread has moved");
        let socket = new.run(|| Socket::open().unwrap()).unwrap();
        assert!(Netns::of_socket(&socket).unwrap().same_as(&new).unwrap());
        for fd in [new.as_fd(), socket.as_fd()] {
            assert!(rustix::io::fcntl_getfd(fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        }
        let opened = Netns::open(format!("/proc/self/fd/{}", new.as_fd().as_raw_fd())).unwrap();
        assert!(opened.same_as(&new).unwrap());
    });
}

#[test]
fn a_panic_inside_comes_out() {
    outer(|| {
        let netns = Netns::new().unwrap();
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| netns.run(|| panic!("from inside"))));
        assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"from inside"));
        let panic = std::panic::catch_unwind(|| Netns::create_with(|| panic!("at birth")));
        assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"at birth"));
    });
}

#[test]
fn what_is_no_namespace_is_refused() {
    let error = Netns::open("/proc/self/ns/mnt").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(error.to_string(), "`/proc/self/ns/mnt` is not a network namespace");
    assert_eq!(Netns::open("/dev/null").unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(Netns::open("/nowhere").unwrap_err().kind(), ErrorKind::Io);
    for pid in [0, u32::MAX, 0x7fff_ffff] {
        assert_eq!(Netns::of_pid(pid).unwrap_err().to_string(), format!("there is no process {pid}"));
    }
}

#[test]
fn the_namespace_of_a_process_is_its_own() {
    outer(|| {
        let inside = Netns::new().unwrap();
        let start = || Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut child = inside.run(start).unwrap();
        let found = Netns::of_pid(child.id());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(found.unwrap().same_as(&inside).unwrap());
    });
}

#[test]
fn a_name_is_one_that_ip_netns_knows() {
    let empty_run = || {
        private_mounts()?;
        Ok(rustix::mount::mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None)?)
    };
    if !again("netns::a_name_is_one_that_ip_netns_knows", empty_run) {
        return;
    }
    outer(|| {
        let netns = Netns::new().unwrap();
        let named = netns.name("rf-test").unwrap();
        assert_eq!(named.path(), std::path::Path::new("/run/netns/rf-test"));
        assert!(Netns::open(named.path()).unwrap().same_as(&netns).unwrap());
        let error = Netns::new().unwrap().name("rf-test").unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Conflict, "the name `rf-test` is taken"));
        if let Ok(output) = Command::new("ip").args(["netns", "list"]).output() {
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "rf-test");
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        // That of the machine, if it has one, is below and hidden.
        let directory: Vec<_> = mounts.lines().filter(|line| line.contains(" /netns /run/netns ")).collect();
        assert!(directory.len() == 1 && directory[0].contains("shared:"), "{directory:?}");
        named.remove().unwrap();
        assert!(!std::fs::exists("/run/netns/rf-test").unwrap());
        drop(netns.name("second").unwrap());
        assert!(!std::fs::exists("/run/netns/second").unwrap());

        // A name that was given to another meanwhile is left alone.
        let first = netns.name("third").unwrap();
        rustix::mount::unmount(first.path(), UnmountFlags::DETACH).unwrap();
        std::fs::remove_file(first.path()).unwrap();
        let other = Netns::new().unwrap();
        let second = other.name("third").unwrap();
        assert_eq!(first.remove().unwrap_err().kind(), ErrorKind::Conflict);
        assert!(Netns::open(second.keep()).unwrap().same_as(&other).unwrap());

        for name in ["", ".", "..", "a/b", "/", "a\0b", &"x".repeat(256)] {
            assert_eq!(netns.name(name).unwrap_err().kind(), ErrorKind::Policy, "{name:?}");
        }
        netns.name(&"x".repeat(255)).unwrap().remove().unwrap();
    });
}
