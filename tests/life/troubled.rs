//! Hosts and neighbours that get in the way: what is then refused, what is waited for, what is put right in the end.

use std::io::Read;
use std::process::{Child, Stdio};
use std::time::Duration;

use ringfence::kernel::nftables;
use ringfence::nft::{Family, Object, Table, TableFlags, TableId, TableName, Transaction, Verb};

use crate::world::{World, finish, good, text};

const DIRECT: &str = "--direct 203.0.113.9:5432,[2001:db8::9]:5432";

/// Starts a command that says that it is there, and waits for its input's end.
fn waiting(world: &World) -> Child {
    let mut command = world.ringfence(format!("run {DIRECT} -- sh -c").split_whitespace());
    command.arg("echo up; cat").stdin(Stdio::piped());
    let mut child = world.spawn(command);
    let mut line = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"up\n");
    child
}

/// The mutex over uplinks, as another supervisor would hold it.
fn mutex() -> Object {
    let id = TableId { family: Family::Inet, name: TableName::new("ringfence.uplinks").unwrap() };
    Object::Table(Table { flags: TableFlags { owner: true, ..TableFlags::default() }, ..Table::new(id) })
}

#[test]
fn an_uplink_that_could_not_be_released_is_released_by_the_guard() {
    let Some(world) = World::new() else { return };
    let before = world.state();
    let mut child = waiting(&world);
    let forwards = || world.state().forwarding != before.forwarding;
    assert!(forwards(), "the uplink was never switched on");
    // Held past the five seconds for which a supervisor waits.
    let mut held = world.outer.host.run(|| nftables::Socket::open().unwrap()).unwrap();
    let mut transaction = Transaction::new();
    transaction.push(Verb::Create, mutex());
    held.commit(&transaction).unwrap();
    drop(child.stdin.take());
    let output = finish(child);
    assert!(forwards(), "the mutex held nobody up, so this test shows nothing");
    // What can't be undone is told, and does not hide how the command ended.
    assert!(text(&output.stderr).contains("ringfence.uplinks"), "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
    drop(held);
    world.nothing_left(&before, "by a supervisor that could not release its uplink");
}

#[test]
fn a_host_that_becomes_a_router_stays_one() {
    let Some(world) = World::new() else { return };
    let mut child = waiting(&world);
    // As Docker does when it starts: this switches every interface on.
    world.outer.host.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap()).unwrap();
    drop(child.stdin.take());
    good(finish(child));
    let after = world.state();
    let up0 = after.forwarding.iter().find(|(name, _)| name == "up0").unwrap();
    assert!(up0.1.unwrap().v4, "{after:?}");
    assert!(!up0.1.unwrap().v6, "{after:?}");
}

#[test]
fn a_lock_on_the_names_holds_nobody_up_for_long() {
    let Some(world) = World::new() else { return };
    good(world.run("run --name first -- true"));
    let mut holder = world.program("flock");
    holder.args(["/run/netns", "sleep", "30"]);
    let mut holder = world.spawn(holder);
    std::thread::sleep(Duration::from_millis(300));
    good(world.run("run --name second -- true"));
    assert!(holder.try_wait().unwrap().is_none(), "the lock was not held, so this test shows nothing");
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn the_command_is_not_told_what_ringfence_was_told() {
    let Some(world) = World::new() else { return };
    let mut command = world.ringfence(["run", "--", "env"]);
    command.env("RINGFENCE_PROXY", "http://alice:s3cret@198.51.100.1:3128");
    command.env("OPENSHELL_DNS_SERVER", "").env("OWN", "kept");
    let seen = good(world.output(command));
    assert!(!seen.contains("s3cret") && !seen.contains("RINGFENCE_PROXY") && !seen.contains("OPENSHELL_"), "{seen}");
    assert!(seen.contains("OWN=kept"), "{seen}");
}

#[test]
fn a_name_does_not_lead_to_the_host_or_to_metadata() {
    let Some(world) = World::new() else { return };
    for (address, message) in [
        ("198.51.100.1", "`evil.example` resolves to 198.51.100.1, an address of this host"),
        ("2001:db8:1::1", "`evil.example` resolves to 2001:db8:1::1, an address of this host"),
        (
            "169.254.169.254",
            "`evil.example` resolves to 169.254.169.254, a cloud metadata address, which a name may not open",
        ),
        (
            "fd00:ec2::254",
            "`evil.example` resolves to fd00:ec2::254, a cloud metadata address, which a name may not open",
        ),
        (
            "100.100.100.200",
            "`evil.example` resolves to 100.100.100.200, a cloud metadata address, which a name may not open",
        ),
        (
            "fd20:ce::254",
            "`evil.example` resolves to fd20:ce::254, a cloud metadata address, which a name may not open",
        ),
        ("64:ff9b::169.254.169.254", "a cloud metadata address, which a name may not open"),
        (
            "168.63.129.16",
            "`evil.example` resolves to 168.63.129.16, a cloud metadata address, which a name may not open",
        ),
        ("127.0.0.1", "`evil.example` resolves to 127.0.0.1"),
        (
            "::ffff:169.254.169.254",
            "`evil.example` resolves to 169.254.169.254, a cloud metadata address, which a name may not open",
        ),
    ] {
        let before = world.state();
        std::fs::write(world.directory().join("hosts"), format!("{address} evil.example\n")).unwrap();
        for key in ["--direct evil.example:80", "--direct-host evil.example"] {
            let output = world.run(&format!("run {key} -- true"));
            let error = text(&output.stderr);
            assert!(error.starts_with("ringfence: ") && error.contains(message), "{address}: {error}");
            assert_eq!(output.status.code(), Some(125));
        }
        // Where a wildcard covers what the host's file says of the host itself, that is no reason not to start, and opens nothing.
        let wild = format!("run -q --direct *.example:80 -- {} -I -c", crate::support::python().unwrap_or("python3"));
        let mut command = world.ringfence(wild.split(' '));
        command.arg("import socket; print(socket.socket(socket.AF_INET).connect_ex(('198.51.100.1', 80)))");
        assert_eq!(good(world.output(command)), "111\n", "{address}");
        world.nothing_left(&before, address);
    }
}
