//! Hosts that are not as hosts usually are.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use ringfence::kernel::rtnetlink::{Batch, Request, Socket};

use crate::support::Shape;
use crate::world::{RINGFENCE, State, World, finish, good, text};

/// `script` in a mount namespace of its own, with `ringfence` as `$0`.
fn script(world: &World, unshare: &[&str], script: &str) -> Command {
    let mut command = world.program("unshare");
    command.args(unshare).args(["--propagation", "private", "sh", "-ec", script, RINGFENCE]);
    command
}

/// Asks the echo server at both addresses of the internet.
const ASK: &str = "--direct 203.0.113.9:5432,[2001:db8::9]:5432 -- bash -c '\
    for to in 203.0.113.9 2001:db8::9; do exec 3<>/dev/tcp/$to/5432; echo \"from $to\" >&3; head -n 1 <&3; done'";
const ANSWERS: &str = "from 203.0.113.9\nfrom 2001:db8::9\n";

/// Direct endpoints over IPv4 and IPv6, and the built-in proxy's listener.
#[track_caller]
fn works(world: &World, unshare: &[&str], prepare: &str) {
    let before = world.state();
    let run = format!("{prepare}; exec \"$0\" run --allow web.example {ASK}");
    assert_eq!(good(world.output(script(world, unshare, &run))), ANSWERS);
    world.nothing_left(&before, prepare);
}

#[test]
fn with_proc_sys_read_only() {
    let Some(world) = World::new() else { return };
    works(
        &world,
        &["--mount"],
        "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys; ! sh -c ': > /proc/sys/net/ipv4/ip_forward' 2>/dev/null",
    );
}

#[test]
fn without_proc() {
    let Some(world) = World::new() else { return };
    works(&world, &["--mount"], "umount --lazy /proc; ! test -e /proc/self");
}

#[test]
fn without_sys() {
    let Some(world) = World::new() else { return };
    works(&world, &["--mount"], "umount --lazy /sys; ! test -e /sys/class");
}

#[test]
fn with_neither() {
    let Some(world) = World::new() else { return };
    works(&world, &["--mount"], "umount --lazy /sys; umount --lazy /proc; ! test -e /proc/self");
}

#[test]
fn on_a_host_that_is_a_router_already() {
    let Some(world) = World::shaped(Shape { router: true, ..Shape::default() }) else { return };
    let before = world.state();
    assert!(before.sysctls.iter().any(|(name, value)| name == "ipv4/ip_forward" && value == "1\n"), "{before:?}");
    works(&world, &["--mount"], ":");
    // And when nobody undoes it in order.
    let mut supervisor =
        world.spawn(world.ringfence("run --direct 203.0.113.9:5432,[2001:db8::9]:5432 -- sleep 1000".split(' ')));
    std::thread::sleep(std::time::Duration::from_millis(100));
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    world.nothing_left(&before, "on a router");
}

/// Its user namespace owns a network namespace, and root there is nobody outside.
#[test]
fn in_a_user_namespace() {
    let Some(world) = World::new() else { return };
    let own = ["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc"];
    let says = "\"$0\" run -q --allow web.example -- sh -c 'echo fenced; ! bash -c \": 2>&- </dev/tcp/203.0.113.9/80\" 2>/dev/null'";
    assert_eq!(good(world.output(script(&world, &own, says))), "fenced\n");
    let own = ["--user", "--map-root-user", "--net", "--mount"];
    assert_eq!(good(world.output(script(&world, &own, says))), "fenced\n");
    // `/run` is the outer root's.
    let named = "mount -t tmpfs none /run; \"$0\" run --name inner -- sh -c 'test -e /run/netns/inner && echo named'; test -z \"$(ls /run/netns)\"";
    assert_eq!(good(world.output(script(&world, &own, named))), "named\n");
}

#[test]
fn where_source_addresses_are_looked_at_strictly() {
    let Some(world) = World::new() else { return };
    world.outer.sysctl("net/ipv4/conf/all/rp_filter", "1");
    works(&world, &["--mount"], ":");
}

#[test]
fn without_ipv6() {
    let Some(world) = World::new() else { return };
    world.outer.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
    world.outer.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
    let before = world.state();
    assert_eq!(good(world.run("run --allow web.example --direct 203.0.113.9:5432 -- echo fenced")), "fenced\n");
    let output = world.run("run --direct [2001:db8::9]:5432 -- echo fenced");
    let says = "ringfence: a direct endpoint has an IPv6 address, and IPv6 is switched off on this host\n";
    assert_eq!((text(&output.stderr).as_str(), output.status.code(), output.stdout.len()), (says, Some(125), 0));
    world.nothing_left(&before, "without IPv6");
}

/// A command that runs, says so, and ends with status 5 when its input does.
fn waiting(world: &World, arguments: &str) -> Child {
    let mut command = world.ringfence("run".split(' ').chain(arguments.split(' ')).chain(["--", "sh", "-c"]));
    command.arg("echo up; read end; exit 5").stdin(Stdio::piped());
    let mut child = world.spawn(command);
    let mut up = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    child
}

/// Lets it end, and fails unless it ends as if nothing had happened meanwhile.
fn ends_well(world: &World, mut child: Child, left: &State) {
    drop(child.stdin.take());
    let output = finish(child);
    assert_eq!((text(&output.stderr).as_str(), output.status.code()), ("", Some(5)));
    world.nothing_left(left, "by a sandbox from which something was taken");
}

#[test]
fn where_the_uplink_goes_meanwhile() {
    let Some(world) = World::new() else { return };
    let child = waiting(&world, "--direct 203.0.113.9:5432,[2001:db8::9]:5432");
    let remove = || Socket::open().unwrap().commit(Batch::from([Request::delete_link_named("up0")])).unwrap();
    world.outer.host.run(remove).unwrap();
    let mut left = world.state();
    left.processes.clear();
    left.tables.clear();
    for all in [&mut left.links, &mut left.addresses, &mut left.routes] {
        all.retain(|one| one == "lo" || one.contains("IfIndex(1)"));
    }
    left.forwarding.retain(|(name, _)| name == "lo");
    ends_well(&world, child, &left);
}

#[test]
fn where_the_name_is_deleted_meanwhile() {
    let Some(world) = World::new() else { return };
    let before = world.state();
    let child = waiting(&world, "--name deleted");
    let mut delete = world.program("sh");
    delete.args(["-c", "umount /run/netns/deleted && rm /run/netns/deleted"]);
    good(world.output(delete));
    ends_well(&world, child, &before);
    // Given to another: that one keeps it, and the user is told.
    let mut child = waiting(&world, "--name deleted");
    let mut replace = world.program("sh");
    replace.args(["-c", "umount /run/netns/deleted && mount --bind /proc/self/ns/net /run/netns/deleted"]);
    good(world.output(replace));
    drop(child.stdin.take());
    let output = finish(child);
    let says = "ringfence: can't remove the name `/run/netns/deleted`: it is another namespace's\n";
    assert_eq!((text(&output.stderr).as_str(), output.status.code()), (says, Some(5)));
    assert!(world.state().names.contains(std::ffi::OsStr::new("deleted")));
}

#[test]
fn a_polite_end_leaves_nothing_either() {
    use rustix::process::{Pid, Signal, kill_process};
    let Some(world) = World::new() else { return };
    let before = world.state();
    // Each as soon as the command runs, which is when `ringfence` has hardly noticed.
    for signal in [Signal::TERM, Signal::INT, Signal::HUP].repeat(10) {
        let child = waiting(&world, "--name polite --allow web.example --direct 203.0.113.9:5432");
        kill_process(Pid::from_child(&child), signal).unwrap();
        // Passed on, and the command ends as it does without a fence.
        assert_eq!(finish(child).status.code(), Some(128 + signal.as_raw()));
        world.nothing_left(&before, "after a signal");
    }
}
