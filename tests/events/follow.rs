//! `ringfence events`: follows a group that rules beside a fence log to.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Stdio};

use ringfence::kernel::netns::Netns;
use ringfence::kernel::nftables;
use ringfence::nft::{
    BaseChain, Chain, ChainName, ChainPolicy, ChainType, Family, Hook, Log, Priority, Rule, Ruleset, Table, TableId,
    TableName,
};
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
        // The fence's own group has a reader, which is its supervisor.
        netns.run(|| nftables::Socket::open().unwrap().commit(&logging().create())).unwrap().unwrap();
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

/// A rule that logs every UDP packet before the fence sees it.
fn logging() -> Ruleset {
    let table = TableId { family: Family::Inet, name: TableName::new("logging").unwrap() };
    let output = ChainName::new("output").unwrap();
    let log = Log { group: 7, prefix: Some("asked".to_owned()), snaplen: None, queue_threshold: Some(1) };
    Ruleset {
        tables: vec![Table::new(table.clone())],
        chains: vec![Chain {
            base: Some(BaseChain {
                kind: ChainType::Filter,
                hook: Hook::Output,
                priority: Priority(-10),
                policy: ChainPolicy::Accept,
                devices: vec![],
            }),
            ..Chain::new(&table, &output)
        }],
        rules: vec![Rule::new(&table, &output).l4proto(17).log(log)],
        ..Ruleset::default()
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

/// `ringfence events`, bound to [`GROUP`] of the job's namespace.
struct Follower {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Follower {
    fn start(world: &World, job: &Job, netns: &str) -> Self {
        let mut child = world.spawn(world.ringfence(["events", "--netns", netns, "--group", "7"]));
        let lines = BufReader::new(child.stdout.take().unwrap());
        // procfs shows the namespace of the thread that looks.
        until("the group is bound", || {
            let groups =
                job.netns.run(|| std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_log")).unwrap();
            groups.unwrap().lines().any(|line| line.split_whitespace().next() == Some("7"))
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
    let line = follower.line();
    assert_eq!(
        (&line["event"], &line["dport"], &line["rule"]),
        (&"packet".into(), &1.into(), &"asked".into()),
        "{line}"
    );
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
    let output = world.run("events --netns job --group 7");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(125), String::new()));
    let told = text(&output.stderr);
    assert!(told.starts_with("ringfence: can't bind nflog group 7: ") && told.contains("another program"), "{told}");
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
