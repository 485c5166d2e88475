//! `ringfence events` beside a fence: which line each refused packet becomes.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Stdio};

use ringfence::kernel::netns::Netns;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::until;
use crate::world::{World, finish, oracle, text};

/// A sandbox named `job` that runs a shell, which does what it is told on its standard input.
struct Job {
    child: Child,
    netns: Netns,
}

impl Job {
    fn start(world: &World, flags: &[&str]) -> Self {
        let mut command = world.ringfence(["run", "--name", "job"]);
        command.args(flags).args(["--", "sh"]).stdin(Stdio::piped());
        let mut child = world.spawn(command);
        // The shell's first word: from then on the fence stands.
        writeln!(child.stdin.as_mut().unwrap(), "echo up").unwrap();
        let mut up = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
        let of_child = Netns::of_pid(child.id()).unwrap();
        let netns = descendant(child.id(), &of_child).expect("a descendant in a namespace of its own");
        Self { child, netns }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        let output = finish(self.child);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}

/// The namespace of the first descendant that has another one.
fn descendant(pid: u32, not: &Netns) -> Option<Netns> {
    let children = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten().flat_map(|task| {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
    });
    children.into_iter().find_map(|child| match Netns::of_pid(child) {
        Ok(netns) if !netns.same_as(not).unwrap_or(true) => Some(netns),
        _ => descendant(child, not),
    })
}

/// `ringfence events`, bound to group 1 of the job's namespace.
struct Follower {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Follower {
    fn start(world: &World, job: &Job, netns: &str) -> Self {
        let mut child = world.spawn(world.ringfence(["events", "--netns", netns, "--group", "1"]));
        let lines = BufReader::new(child.stdout.take().unwrap());
        // procfs shows the namespace of the thread that looks.
        until("the group is bound", || {
            let groups =
                job.netns.run(|| std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_log")).unwrap();
            groups.unwrap().lines().any(|line| line.split_whitespace().next() == Some("1"))
        });
        Self { child, lines }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        assert!(line.starts_with(r#"{"schema":1,"event":""#) && line.ends_with("}\n"), "{line:?}");
        serde_json::from_str(&line).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for a quiet end.
    fn end(self) {
        let output = finish(self.child);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    }
}

/// Sends one packet of each kind; run as the job's user, who is root there with the raw sockets that `--keep-caps` leaves.
const SENDS: &str = r#"
import socket
def attempt(family, kind, protocol, to, payload=b"x"):
    with socket.socket(family, kind, protocol) as s:
        s.settimeout(2)
        try:
            if kind == socket.SOCK_STREAM:
                s.connect(to)
            else:
                s.sendto(payload, to)
            print("let out", to)
        except OSError as error:
            pass
four, six, raw = socket.AF_INET, socket.AF_INET6, socket.SOCK_RAW
attempt(four, socket.SOCK_STREAM, 0, ("203.0.113.10", 443))
attempt(six, socket.SOCK_STREAM, 0, ("2001:db8::a", 443))
attempt(six, socket.SOCK_STREAM, 0, ("::ffff:203.0.113.10", 80))
attempt(four, socket.SOCK_DGRAM, 0, ("203.0.113.10", 53))
attempt(six, socket.SOCK_DGRAM, 0, ("2001:db8::a", 53))
attempt(four, raw, 1, ("203.0.113.10", 0), b"\x08\0\xf7\xf6\0\7\0\1")
attempt(six, raw, 58, ("2001:db8::a", 0), b"\x80\0\0\0\0\7\0\1")
attempt(four, raw, 132, ("203.0.113.10", 0), b"\3\xe8\1\xbb" + bytes(8))
attempt(four, raw, 253, ("203.0.113.10", 0))
"#;

#[test]
fn every_refused_packet_becomes_its_line() {
    let Some(world) = World::new() else { return };
    let Some(python) = oracle("python3") else { return };
    let script = world.directory().join("sends.py");
    std::fs::write(&script, SENDS).unwrap();
    let mut job = Job::start(&world, &["--keep-caps", "NET_RAW"]);
    let mut follower = Follower::start(&world, &job, "/run/netns/job");
    job.tell(&format!("{} -I {}", python.display(), script.display()));

    for (family, proto, dst, dport, rule) in [
        ("ipv4", "tcp", "203.0.113.10", Some(443), "bypass-tcp"),
        ("ipv6", "tcp", "2001:db8::a", Some(443), "bypass-tcp"),
        ("ipv4", "tcp", "203.0.113.10", Some(80), "bypass-tcp"),
        ("ipv4", "udp", "203.0.113.10", Some(53), "bypass-udp"),
        ("ipv6", "udp", "2001:db8::a", Some(53), "bypass-udp"),
        ("ipv4", "icmp", "203.0.113.10", None, "bypass-icmp"),
        ("ipv6", "icmpv6", "2001:db8::a", None, "bypass-icmpv6"),
        ("ipv4", "sctp", "203.0.113.10", Some(443), "bypass-other"),
        ("ipv4", "253", "203.0.113.10", None, "bypass-other"),
    ] {
        let line = follower.line();
        let told = (&line["family"], &line["proto"], &line["dst"], &line["rule"]);
        assert_eq!(told, (&family.into(), &proto.into(), &dst.into(), &rule.into()), "{line}");
        assert_eq!((line["event"].as_str(), line["verdict"].as_str()), (Some("bypass"), Some("reject")), "{line}");
        assert_eq!(line.get("dport").and_then(Value::as_u64), dport, "{line}");
        assert_eq!(line.get("sport").is_some(), dport.is_some(), "{line}");
        assert_eq!((line["uid"].as_u64(), line["gid"].as_u64()), (Some(0), Some(0)), "{line}");
        assert_eq!(line["identity"], "unknown", "{line}");
        assert!(line["reason"].is_string() && line["src"].is_string(), "{line}");
        let time = line["time"].as_str().unwrap();
        assert!(time.len() == 27 && time.starts_with("20") && time.ends_with('Z'), "{time}");
    }
    job.end();
    follower.signal(Signal::TERM);
    follower.end();
}

/// Refuses one packet to that port.
fn refused(job: &mut Job, port: u16) {
    job.tell(&format!("(echo x > /dev/udp/203.0.113.10/{port}) 2> /dev/null || true"));
}

#[test]
fn it_ends_quietly_by_signal_and_when_nobody_reads() {
    let Some(world) = World::new() else { return };
    let Some(bash) = oracle("bash") else { return };
    let mut job = Job::start(&world, &[]);
    // sh may have no /dev/udp.
    job.tell(&format!("exec {}", bash.display()));

    // By its name, as ip-netns(8) knows it; what has come before the signal is told.
    let mut follower = Follower::start(&world, &job, "job");
    refused(&mut job, 1);
    assert_eq!(follower.line()["dport"], 1);
    follower.signal(Signal::INT);
    let mut rest = String::new();
    follower.lines.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    follower.end();

    // Without a word, and without waiting for an event to come.
    let Follower { child, lines } = Follower::start(&world, &job, "job");
    drop(lines);
    let output = finish(child);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    job.end();
}

#[test]
fn a_group_that_is_taken_and_a_namespace_that_is_not_there_are_errors() {
    let Some(world) = World::new() else { return };
    let job = Job::start(&world, &[]);
    let follower = Follower::start(&world, &job, "job");
    let output = world.run("events --netns job --group 1");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(125), String::new()));
    let told = text(&output.stderr);
    assert!(told.starts_with("ringfence: can't bind nflog group 1: ") && told.contains("another program"), "{told}");
    follower.signal(Signal::TERM);
    follower.end();
    job.end();

    for (arguments, wanted) in [
        ("events --netns nobody --group 1", "`/run/netns/nobody`"),
        ("events --netns /dev/null --group 1", "`/dev/null` is not a network namespace"),
        ("events", "--group is missing"),
        ("events --group 65536", "65536"),
    ] {
        let output = world.run(arguments);
        let told = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(125), String::new()));
        assert!(told.starts_with("ringfence: ") && told.contains(wanted), "{arguments}: {told}");
    }
}
