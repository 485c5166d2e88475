//! Namespaces, routing sockets, wires and forwarding, against the running kernel.
//!
//! Every test makes a network namespace of its own that has no link to anything, and plays host, sandbox and internet
//! inside. What needs another mount or user namespace runs this test binary again, for that one test.
#![cfg(feature = "cli")]

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ringfence::kernel::link::{self, Wire};
use ringfence::kernel::netns::Netns;
use ringfence::kernel::rtnetlink::{Address, Batch, Request, Socket};
use ringfence::link::{IfIndex, Mtu, Pool};
use rustix::mount::MountPropagationFlags;
use rustix::thread::UnshareFlags;

mod forwarding;
mod netns;
mod privilege;
mod rtnetlink;
mod time;
mod wire;

/// Runs a test inside a namespace of its own, or says loudly that it can't.
fn outer<T: Send>(test: impl FnOnce() -> T + Send) -> Option<T> {
    let machine = Netns::current().ok();
    let made = Netns::create_with(|| {
        // The promise of this file: nothing here ever touches the machine's own network.
        let here = Netns::current().unwrap();
        assert!(machine.is_none_or(|machine| !here.same_as(&machine).unwrap()));
        let mut socket = Socket::open().unwrap();
        assert!(socket.links().unwrap().iter().all(|link| !link.up));
        socket.commit(Batch::from([Request::up(IfIndex(1))])).unwrap();
        test()
    });
    match made {
        Ok((_, value)) => Some(value),
        Err(error) => {
            skip(&format!("no network namespace to be had: {}", error.chain()));
            None
        }
    }
}

/// Says so past the test harness, which hides what a passing test prints. A test that was prepared for has no excuse.
fn skip(why: &str) {
    let line = format!("SKIPPED {}: {why}\n", std::thread::current().name().unwrap_or_default());
    let _ = std::io::stderr().write_all(line.as_bytes());
    let required = std::env::var("RINGFENCE_TEST_KERNEL").is_ok_and(|value| value == "require");
    assert!(!required && std::env::var_os(AGAIN).is_none(), "{why}");
}

/// Says whether this process is root of the machine, not of a user namespace.
fn is_root_outside() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    rustix::process::geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// What a child of [`again`] is told.
const AGAIN: &str = "RINGFENCE_TEST_AGAIN";

/// Runs this test once more in a process of its own that has prepared itself with `prepare`. In that process: true.
fn again(test: &str, prepare: fn() -> std::io::Result<()>) -> bool {
    if std::env::var_os(AGAIN).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(AGAIN, "1").stdin(Stdio::null());
    // SAFETY: `prepare` makes system calls only.
    unsafe { command.pre_exec(prepare) };
    let output = match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            skip(&format!("no leave to prepare a process: {error}"));
            return false;
        }
        output => output.unwrap(),
    };
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}", output.status);
    assert!(text.contains("1 passed"), "the test did not run again: {text}");
    false
}

fn private_mounts() -> std::io::Result<()> {
    // SAFETY: only the mount namespace is unshared, in a child that has one thread.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    Ok(rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Makes a child nobody, with nobody's privileges.
fn become_nobody() -> std::io::Result<()> {
    let (uid, gid) = (rustix::process::Uid::from_raw(65534), rustix::process::Gid::from_raw(65534));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

fn net(text: &str) -> ipnet::IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A sandbox, wired to the namespace of the calling thread.
fn sandbox(host: &mut Socket, pool: &Pool) -> ringfence::Result<(Netns, Wire)> {
    let (netns, socket) = Netns::create_with(Socket::open)?;
    let wire = link::wire(host, &mut socket?, pool, Mtu::default())?;
    Ok((netns, wire))
}

/// Connects from inside `netns` to `to`, and says how long it took.
fn connect(netns: &Netns, to: SocketAddr) -> std::io::Result<Duration> {
    netns
        .run(|| {
            let start = Instant::now();
            TcpStream::connect_timeout(&to, Duration::from_secs(3)).map(|_| start.elapsed())
        })
        .unwrap()
}

/// The addresses of one interface, in order.
fn addresses_of(socket: &mut Socket, interface: IfIndex) -> Vec<String> {
    let own = |found: Address| (found.interface == interface).then(|| found.address.to_string());
    let mut found: Vec<_> = socket.addresses().unwrap().into_iter().filter_map(own).collect();
    found.sort();
    found
}
