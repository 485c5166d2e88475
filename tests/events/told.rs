//! `ringfence run --events`: what is told, where, and what becomes of it when nobody reads.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::ocsf;
use crate::support::{PATIENCE, until};
use crate::world::{GAGS, RINGFENCE, World, finish, good, oracle, text};

/// Sends one packet of each kind; run as root with the raw sockets that `--keep-caps` leaves.
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

/// A world with a script in it that Python runs.
struct Told {
    world: World,
    python: PathBuf,
    script: PathBuf,
}

impl Told {
    fn new(script: &str) -> Option<Self> {
        let (world, python) = (World::new()?, oracle("python3")?);
        let path = world.directory().join("script.py");
        std::fs::write(&path, script).unwrap();
        Some(Self { world, python, script: path })
    }

    fn file(&self) -> PathBuf {
        self.world.directory().join("events.json")
    }

    /// `ringfence run FLAGS -- python3 SCRIPT`.
    fn run(&self, flags: &[&str]) -> Output {
        let mut command = self.world.ringfence(["run"]);
        command.args(flags).arg("--").arg(&self.python).arg("-I").arg(&self.script);
        self.world.output(command)
    }

    /// The same with events in a file, which is read.
    fn events(&self, flags: &[&str]) -> (Output, Vec<Value>) {
        let file = self.file();
        let output = self.run(&[flags, &["--events", file.to_str().unwrap()]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        (output, lines(&std::fs::read_to_string(file).unwrap()))
    }

    /// The same through a shell, which opens descriptors first: `"$@"` stands for the whole command.
    fn shell(&self, shell: &str, flags: &[&str]) -> Child {
        let mut command = self.world.program("sh");
        command.args(["-c", shell, "sh", RINGFENCE, "run"]);
        command.args(flags).arg("--").arg(&self.python).arg("-I").arg(&self.script).stdin(Stdio::piped());
        self.world.spawn(command)
    }
}

fn lines(text: &str) -> Vec<Value> {
    assert!(text.is_empty() || text.ends_with('\n'), "half a line: {text:?}");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?} of {text:?}")))
        .collect()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// How many refusals the events stand for, the summary left out.
fn told(events: &[Value]) -> (u64, u64) {
    let of = |event: &'static str| events.iter().filter(move |line| line["event"] == event);
    let received = of("bypass").count() + of("denied").count();
    (received as u64, of("lost").map(|line| line["count"].as_u64().unwrap()).sum())
}

fn counted(summary: &Value) -> u64 {
    summary["rules"].as_array().map_or(0, |rules| rules.iter().map(|rule| rule["counted"].as_u64().unwrap()).sum())
}

#[test]
fn every_refused_packet_becomes_its_line() {
    let Some(told) = Told::new(SENDS) else { return };
    let (output, events) = told.events(&["--keep-caps", "NET_RAW", "--name", "job", "-q"]);
    assert_eq!((text(&output.stdout), text(&output.stderr)), (String::new(), String::new()));
    let wanted = [
        ("ipv4", "tcp", "203.0.113.10", Some(443), "bypass-tcp"),
        ("ipv6", "tcp", "2001:db8::a", Some(443), "bypass-tcp"),
        ("ipv4", "tcp", "203.0.113.10", Some(80), "bypass-tcp"),
        ("ipv4", "udp", "203.0.113.10", Some(53), "bypass-udp"),
        ("ipv6", "udp", "2001:db8::a", Some(53), "bypass-udp"),
        ("ipv4", "icmp", "203.0.113.10", None, "bypass-icmp"),
        ("ipv6", "icmpv6", "2001:db8::a", None, "bypass-icmpv6"),
        ("ipv4", "sctp", "203.0.113.10", Some(443), "bypass-other"),
        ("ipv4", "253", "203.0.113.10", None, "bypass-other"),
    ];
    assert_eq!(events.len(), wanted.len() + 1, "{events:#?}");
    for (line, (family, proto, dst, dport, rule)) in events.iter().zip(wanted) {
        assert_eq!((&line["schema"], &line["event"], &line["sandbox"]), (&1.into(), &"bypass".into(), &"job".into()));
        let told = (&line["family"], &line["proto"], &line["dst"], &line["rule"]);
        assert_eq!(told, (&family.into(), &proto.into(), &dst.into(), &rule.into()), "{line}");
        assert_eq!((&line["verdict"], &line["denial_stage"]), (&"reject".into(), &"bypass".into()), "{line}");
        assert_eq!(line.get("dport").and_then(Value::as_u64), dport, "{line}");
        assert_eq!(line.get("sport").is_some(), dport.is_some(), "{line}");
        assert_eq!((line["uid"].as_u64(), line["gid"].as_u64()), (Some(0), Some(0)), "{line}");
        assert!(["exact", "inferred", "ambiguous", "unknown"].contains(&line["identity"].as_str().unwrap()), "{line}");
        let time = line["time"].as_str().unwrap();
        assert!(time.len() == 27 && time.starts_with("20") && time.ends_with('Z'), "{time}");
    }
    // In the contract's order, what is not known left out.
    let order = [
        "schema",
        "event",
        "time",
        "sandbox",
        "verdict",
        "family",
        "proto",
        "src",
        "sport",
        "dst",
        "dport",
        "host",
        "query",
        "uid",
        "gid",
        "process",
        "candidates",
        "identity",
        "reason",
        "hint",
        "rule",
        "denial_stage",
    ];
    for line in &events[..wanted.len()] {
        let places: Vec<_> = keys(line).iter().map(|key| order.iter().position(|known| known == key)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{line}");
    }
    let summary = &events[wanted.len()];
    assert_eq!((&summary["event"], &summary["refused"], &summary["lost"]), (&"summary".into(), &9.into(), &0.into()));
    assert_eq!(counted(summary), 9);
    let denials = summary["denials"].as_array().unwrap();
    assert_eq!(denials.len(), 9);
    assert_eq!(denials[1]["flag"], "--direct '[2001:db8::a]:443'");
    assert_eq!(denials[3]["flag"], "--direct-udp 203.0.113.10:53");
    assert!(denials[5].get("flag").is_none(), "no flag lets ICMP out");
}

const THREE: &str = "
import socket, urllib.request
for to in [('203.0.113.10', 443), ('203.0.113.10', 443), ('203.0.113.10', 5432)]:
    try: socket.create_connection(to, 2)
    except OSError: pass
try: urllib.request.urlopen('http://other.example/')
except OSError: pass
print('done')
";

#[test]
fn the_report_says_what_to_type_and_typing_it_helps() {
    let Some(told) = Told::new(THREE) else { return };
    let output = told.run(&["--allow", "web.example"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "done\n"));
    let report = text(&output.stderr);
    for wanted in [
        "ringfence: refused 4 times, 3 destinations or programs:\n",
        "203.0.113.10:443 (tcp)",
        ", twice\n",
        "to let it out: --direct 203.0.113.10:443\n",
        "PostgreSQL",
        "other.example:80 (by the proxy)",
        "to let it out: --allow other.example:80\n",
    ] {
        assert!(report.contains(wanted), "{wanted}: {report}");
    }
    assert!(!report.contains('\u{1b}'), "colour where there is no terminal: {report}");
    // Whatever runs inside descends from our own first process, which says nothing.
    assert!(!report.contains("(under"), "{report}");
    let mut command = told.world.ringfence(["run", "--", "sh", "-c", "\"$0\" -I \"$1\"; true"]);
    command.arg(&told.python).arg(&told.script);
    let under_shell = text(&told.world.output(command).stderr);
    for line in under_shell.lines().filter(|line| line.contains("(tcp) by ")) {
        assert!(line.contains(" (under sh), "), "{under_shell}");
    }
    // Nothing is said by -q, nor when nothing was refused.
    assert_eq!(text(&told.run(&["--allow", "web.example", "-q"]).stderr), "");
    good(told.world.run("run -- true"));
    // Every flag of the report, pasted.
    let flags: Vec<&str> = report
        .lines()
        .filter_map(|line| line.split("to let it out: ").nth(1))
        .flat_map(|flag| flag.split(' '))
        .collect();
    assert_eq!(flags.len(), 6, "{report}");
    let output = told.run(&[&["--allow", "web.example"], flags.as_slice()].concat());
    let after = text(&output.stderr);
    assert!(output.status.success() && after.is_empty(), "{after}");
}

#[test]
fn the_summary_adds_up_and_is_last() {
    let Some(told) = Told::new(THREE) else { return };
    let (_, events) = told.events(&["--allow", "web.example"]);
    let names: Vec<_> = events.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["bypass", "bypass", "bypass", "denied", "summary"]);
    let denied = &events[3];
    assert_eq!(
        (&denied["denial_stage"], &denied["host"], &denied["dport"], &denied["rule"], &denied["verdict"]),
        (&"connect".into(), &"other.example".into(), &80.into(), &"not-listed".into(), &"deny".into()),
    );
    let summary = &events[4];
    assert_eq!((&summary["refused"], &summary["lost"]), (&4.into(), &0.into()));
    let counts: Vec<_> = summary["denials"].as_array().unwrap().iter().map(|denial| &denial["count"]).collect();
    assert_eq!(counts, [&Value::from(2), &1.into(), &1.into()]);
    let first = &summary["denials"][0];
    assert!(first["first"].as_str().unwrap() < first["last"].as_str().unwrap(), "{first}");
    assert_eq!(first["policy"], r#"direct = ["203.0.113.10:443"]"#);
    // A second run is appended.
    let (_, events) = told.events(&["--allow", "web.example"]);
    assert_eq!(events.len(), 10);
}

#[test]
fn events_go_where_they_are_told_to() {
    let Some(told) = Told::new(THREE) else { return };
    // Standard error has JSON alone then.
    let output = told.run(&["--events", "-"]);
    let events = lines(&text(&output.stderr));
    // Three packets, two questions for a name that the policy has not, and the end.
    assert_eq!((events.len(), text(&output.stdout).as_str()), (6, "done\n"));
    let questions = events.iter().filter(|line| line["denial_stage"] == "dns");
    let mut queries: Vec<_> = questions.map(|line| line["query"].as_str().unwrap_or_default()).collect();
    queries.sort_unstable();
    assert_eq!(queries, ["A", "AAAA"], "{events:?}");
    // A descriptor of the caller's, which the command does not get.
    let file = told.file();
    let shell = format!("exec \"$@\" 3>>{}", file.display());
    let output = finish(told.shell(&shell, &["--events", "fd:3", "-q"]));
    assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("done\n", ""));
    assert_eq!(lines(&std::fs::read_to_string(&file).unwrap()).len(), 6);
    let shell = format!("exec \"$@\" sh -c 'ls -l /proc/self/fd' 3>>{}", file.display());
    let mut command = told.world.program("sh");
    command.args(["-c", &shell, "sh", RINGFENCE, "run", "--events", "fd:3", "--"]);
    let listed = good(told.world.output(command));
    assert!(!listed.contains("events.json"), "{listed}");
    // The file of a policy names it, too.
    let policy = told.world.directory().join("policy.toml");
    std::fs::write(&policy, format!("events = '{}.2'\nevents-format = 'ocsf'\n", file.display())).unwrap();
    let output = told.run(&["--policy", policy.to_str().unwrap(), "-q"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let events = lines(&std::fs::read_to_string(format!("{}.2", file.display())).unwrap());
    assert_eq!(events[0]["class_uid"], 4001);
}

#[test]
fn where_events_can_not_go_nothing_is_started() {
    let Some(told) = Told::new("print('started')") else { return };
    for (shell, to, wanted) in [
        (
            "exec \"$@\"",
            "fd:9",
            "--events: can't tell events to `fd:9`: can't write to descriptor 9: Bad file descriptor",
        ),
        ("exec \"$@\" 3</dev/null", "fd:3", "can't write to descriptor 3: it is open for reading"),
        ("exec \"$@\"", "fd:1", "standard output is the command's own"),
        ("exec \"$@\" 3>&1", "fd:3", "that is the command's standard output"),
        ("exec \"$@\"", "/nowhere/events", "can't open it: No such file or directory"),
        ("exec \"$@\"", "/", "can't open it: Is a directory"),
        ("exec \"$@\"", "", "it is empty"),
    ] {
        let output = finish(told.shell(shell, &["--events", to]));
        let error = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(125), String::new()), "{to}: {error}");
        assert!(error.starts_with("ringfence: --events: ") && error.contains(wanted), "{to}: {error}");
    }
}

#[test]
fn every_kind_of_event_is_valid_ocsf() {
    let Some(told) = Told::new(SENDS) else { return };
    let (_, events) = told.events(&["--keep-caps", "NET_RAW", "--events-format", "ocsf", "-q"]);
    assert_eq!(events.len(), 18, "nine packets, nine findings");
    for event in &events {
        ocsf::validate(event);
    }
    assert!(events[..9].iter().all(|event| event["class_uid"] == 4001));
    assert!(events[9..].iter().all(|event| event["class_uid"] == 2004));
}

/// A name that is a number is refused by the proxy, in an audit too.
const NUMERIC: &str = "
import urllib.request
try: urllib.request.urlopen('http://0x7f.1/')
except OSError: pass
";

#[test]
fn ocsf_of_an_audit_says_what_was_let_out_and_what_was_not() {
    let Some(told) = Told::new(&format!("{SENDS}{NUMERIC}")) else { return };
    let flags = "--audit --allow web.example --keep-caps NET_RAW --events-format ocsf -q";
    let (_, events) = told.events(&flags.split(' ').collect::<Vec<_>>());
    let (mut seen, mut findings) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for event in &events {
        ocsf::validate(event);
        let number = |name: &str| event[name].as_u64();
        let (class, outcome) = (number("class_uid").unwrap(), (number("action_id"), number("disposition_id")));
        let stage = event["unmapped"]["denial_stage"].as_str().or(event["finding_info"]["types"][0].as_str()).unwrap();
        let refused = stage == "connect";
        assert_eq!(outcome, if refused { (Some(2), Some(2)) } else { (Some(1), Some(17)) }, "{event:#}");
        if class == 4001 {
            // Whether what was let out arrived, nobody knows here.
            let wanted = if refused { (Some(5), Some(2)) } else { (Some(6), None) };
            assert_eq!((number("activity_id"), number("status_id")), wanted, "{event:#}");
        }
        if class == 2004 {
            assert!(findings.insert(event["finding_info"]["uid"].as_str()), "two of one name: {event:#}");
        }
        seen.insert((class, stage));
    }
    let all = [(2004, "bypass"), (2004, "connect"), (4001, "bypass"), (4001, "connect")];
    assert!(seen.into_iter().eq(all), "{events:#?}");
}

const FLOOD: &str = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(100000):
    try: s.sendto(b'x', ('203.0.113.10', 9))
    except OSError: pass
print('done')
";

#[test]
fn a_hundred_thousand_at_full_speed_are_all_accounted_for() {
    let Some(told) = Told::new(FLOOD) else { return };
    let start = Instant::now();
    let (_, events) = told.events(&["-q"]);
    let (received, lost) = self::told(&events);
    let summary = events.last().unwrap();
    println!("100,000 refused in {:?}: {received} told, {lost} lost", start.elapsed());
    assert_eq!(counted(summary), 100_000, "{summary}");
    assert_eq!(received + lost, 100_000, "{summary}");
    assert_eq!(summary["refused"], 100_000);
}

/// Waits for a word, floods, and says so.
const FLOOD_WHEN_TOLD: &str = "
import socket, sys
print('ready', flush=True)
sys.stdin.readline()
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(100000):
    try: s.sendto(b'x', ('203.0.113.10', 9))
    except OSError: pass
print('sent', flush=True)
";

/// A process that stands still as long as this lives.
struct Stopped(Pid);

impl Stopped {
    fn new(child: &Child) -> Self {
        let pid = Pid::from_child(child);
        kill_process(pid, Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

#[test]
fn what_is_lost_in_an_audit_is_counted_and_what_was_learned_says_so() {
    let Some(told) = Told::new(FLOOD_WHEN_TOLD) else { return };
    let place = |name: &str| told.world.directory().join(name);
    let (learned, metrics) = (place("learned.toml"), place("metrics.prom"));
    let mut command = told.world.ringfence(["run", "-q", "--audit", "--name", "job", "--events"]);
    command.arg(told.file()).arg("--learn").arg(&learned).arg("--metrics").arg(&metrics);
    command.arg("--").arg(&told.python).arg("-I").arg(&told.script).stdin(Stdio::piped());
    let mut child = told.world.spawn(command);
    let said = BufReader::new(child.stdout.take().unwrap());
    let (tell, hear) = mpsc::channel();
    std::thread::spawn(move || said.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
    assert_eq!(hear.recv_timeout(3 * PATIENCE).as_deref(), Ok("ready"));
    let stopped = Stopped::new(&child);
    child.stdin.take().unwrap().write_all(b"now\n").unwrap();
    // More than there is room for, with nobody to read it.
    assert_eq!(hear.recv_timeout(3 * PATIENCE).as_deref(), Ok("sent"));
    drop(stopped);
    let output = finish(child);
    assert!(output.status.success(), "{}", text(&output.stderr));

    let events = lines(&std::fs::read_to_string(told.file()).unwrap());
    let (received, lost) = self::told(&events);
    let summary = events.last().unwrap();
    println!("100,000 let out: {received} told, {lost} lost");
    assert_eq!((received + lost, counted(summary)), (100_000, 100_000), "{summary}");
    // The stream may have lost more than the summary and the policy: it waits for nobody.
    let (rule, lost) = (&summary["rules"][0], summary["lost"].as_u64().unwrap());
    assert!(lost > 1, "{summary}");
    assert_eq!(
        (&rule["rule"], &rule["lost"], &summary["refused"]),
        (&"audit-udp".into(), &lost.into(), &100_000.into())
    );
    let learned = std::fs::read_to_string(learned).unwrap();
    let wanted = format!("# not complete: {lost} attempts more could not be told apart\n");
    assert!(learned.contains(&wanted), "{wanted}: {learned}");
    let metrics = std::fs::read_to_string(metrics).unwrap();
    let wanted = r#"{sandbox="job",chain="refuse",verdict="accept",rule="audit-udp",proto="udp"} 100000"#;
    assert!(metrics.contains(wanted), "{wanted}: {metrics}");
}

/// Largest resident size so far, in KiB.
fn peak(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn nobody_reads_and_the_command_ends_all_the_same() {
    let Some(told) = Told::new(FLOOD) else { return };
    // The pipe is full after a few hundred lines.
    let mut child = told.shell("exec \"$@\" 3>&2 >/dev/null 2>&1", &["--events", "fd:3", "-q"]);
    let start = Instant::now();
    let mut memory = 0;
    let status = loop {
        memory = memory.max(peak(child.id()).unwrap_or_default());
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(start.elapsed() < Duration::from_secs(50), "the reader holds the command up");
        std::thread::sleep(Duration::from_millis(2));
    };
    println!("ended after {:?}, {memory} KiB at most", start.elapsed());
    assert!(status.success());
    assert!(memory < 64 << 10, "{memory} KiB");
    // Whole lines, as far as they went.
    let mut rest = String::new();
    child.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
    let whole = rest.rsplit_once('\n').unwrap().0;
    assert!(!lines(&format!("{whole}\n")).is_empty());

    // A slow reader is told what it missed, and gets the end.
    let mut child = told.shell("exec \"$@\" 3>&2 >/dev/null 2>&1", &["--events", "fd:3", "-q"]);
    std::thread::sleep(Duration::from_secs(1));
    let mut all = String::new();
    child.stderr.take().unwrap().read_to_string(&mut all).unwrap();
    assert!(child.wait().unwrap().success());
    let events = lines(&all);
    let (received, lost) = self::told(&events);
    println!("a slow reader: {received} told, {lost} lost");
    assert_eq!((received + lost, counted(events.last().unwrap())), (100_000, 100_000));
}

#[test]
fn a_reader_who_goes_away_ends_nothing() {
    let Some(told) = Told::new(FLOOD) else { return };
    let mut child = told.shell("exec \"$@\" 3>&2 2>/dev/null", &["--events", "fd:3"]);
    drop(child.stderr.take());
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!((child.wait().unwrap().code(), out.as_str()), (Some(0), "done\n"));
}

/// Sends nothing before the one before it was told of.
const PACED: &str = "
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(500):
    before = time.monotonic_ns()
    try: s.sendto(b'x', ('203.0.113.10', 9))
    except OSError: pass
    print(before)
    sys.stdin.readline()
";

#[test]
fn an_event_is_told_at_once() {
    let Some(told) = Told::new(PACED) else { return };
    let mut child = told.shell("exec \"$@\" 3>&2 2>/dev/null", &["--events", "fd:3", "-q"]);
    let mut seen = Vec::new();
    let mut stdin = child.stdin.take().unwrap();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let now = clock_gettime(ClockId::Monotonic);
        if line.unwrap().contains(r#""event":"bypass""#) {
            seen.push(now.tv_sec * 1_000_000_000 + now.tv_nsec);
            stdin.write_all(b"\n").unwrap();
        }
    }
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert!(child.wait().unwrap().success());
    let sent: Vec<i64> = out.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!((seen.len(), sent.len()), (500, 500));
    let mut took: Vec<i64> = seen.iter().zip(&sent).map(|(seen, sent)| (seen - sent) / 1000).collect();
    took.sort_unstable();
    println!("from the packet to its line: median {} µs, 99th percentile {} µs", took[250], took[495]);
}

/// Is refused with standard error full, and waits for its input to end.
const GAGGED: &str = "
import socket, sys
def asked(to):
    with socket.create_connection(('127.0.0.1', 3128), 30) as proxy:
        proxy.sendall(b'CONNECT %s HTTP/1.1\\r\\nHost: %s\\r\\n\\r\\n' % (to, to))
        return proxy.recv(12).decode()
for _ in range(3):
    try: socket.create_connection(('203.0.113.10', 443), 30)
    except ConnectionRefusedError: print('refused', flush=True)
    if 'proxy' in sys.argv: print(asked(b'other.example:443'), flush=True)
print('done', flush=True)
sys.stdin.read()
";

/// Runs it, and reads standard error when it has done all that it does.
fn gagged(told: &Told, flags: &[&str], arguments: &[&str]) -> (Output, String) {
    let mut command = told.world.ringfence(["run"]);
    command.args(flags).arg("--").arg(&told.python).arg("-I").arg(&told.script).args(arguments).stdin(Stdio::piped());
    let mut child = told.world.spawn(command);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    while !said.ends_with("done\n") && stdout.read_line(&mut said).unwrap() > 0 {}
    // Ends its input, and reads.
    drop(child.stdin.take());
    (finish(child), said)
}

#[test]
fn a_program_that_gags_standard_error_is_told_of_all_the_same() {
    let Some(told) = Told::new(&[GAGS, GAGGED].concat()) else { return };
    let (output, said) = gagged(&told, &["--events", "-", "-q"], &[]);
    assert_eq!((output.status.code(), said.as_str()), (Some(0), "refused\nrefused\nrefused\ndone\n"));
    let events = lines(text(&output.stderr).trim_start_matches('\n'));
    assert_eq!((events.len(), &events[3]["refused"]), (4, &3.into()), "{events:#?}");

    // What is told elsewhere does not wait for the log, nor does the proxy.
    let file = told.file();
    let flags = ["-v", "--allow", "web.example", "--events", file.to_str().unwrap()];
    let (output, said) = gagged(&told, &flags, &["proxy"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}{stderr}");
    assert_eq!(said, "refused\nHTTP/1.1 403\n".repeat(3) + "done\n", "{stderr}");
    let events = lines(&std::fs::read_to_string(file).unwrap());
    assert_eq!((self::told(&events), events.last().unwrap()["refused"].as_u64()), ((6, 0), Some(6)), "{events:#?}");
    assert_eq!(stderr.matches("BYPASS_DETECT").count(), 6, "{stderr}");
    assert!(stderr.contains("ringfence: refused 6 times"), "{stderr}");
}

/// Leaves one page of the events' file system, has it filled with half of what is told, and makes room again.
const FILLS: &str = "
import os, socket, sys, time
directory = sys.argv[1]
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def refused(times):
    for _ in range(times):
        try: udp.sendto(b'x', ('203.0.113.10', 9))
        except OSError: pass
with open(directory + '/filler', 'wb', buffering=0) as filler:
    try:
        while True: filler.write(bytes(4096))
    except OSError: pass
    filler.truncate(filler.tell() - 4096)
refused(20)
give_up = time.monotonic() + 60
while os.stat(directory + '/events.json').st_size < 4096:
    if time.monotonic() > give_up: sys.exit('not full')
    time.sleep(0.01)
os.unlink(directory + '/filler')
refused(5)
";

#[test]
fn a_disk_that_is_full_for_a_while_loses_nothing_that_can_wait() {
    let Some(told) = Told::new(FILLS) else { return };
    let disk = told.world.directory().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mut command = told.world.program("sh");
    let script = "mount -t tmpfs -o size=256k none \"$0\" && \"$@\" && cat \"$0/events.json\"";
    command.args(["-c", script]).arg(&disk).args([RINGFENCE, "run", "-q", "--events"]).arg(disk.join("events.json"));
    command.arg("--").arg(&told.python).arg("-I").arg(&told.script).arg(&disk);
    let events = lines(&good(told.world.output(command)));
    assert_eq!((self::told(&events), &events.last().unwrap()["refused"]), ((25, 0), &25.into()), "{events:#?}");

    // One that stays so is told of, even to whoever wants to hear nothing else.
    std::fs::write(&told.script, "print('done')").unwrap();
    let output = told.run(&["-q", "--events", "/dev/full"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "done\n"));
    let error = text(&output.stderr);
    assert!(error.contains("the last events could not be told: No space left on device"), "{error}");
}

#[test]
fn a_fifo_without_a_reader_is_an_error_at_once() {
    let Some(told) = Told::new("print('done')") else { return };
    let fifo = told.world.directory().join("fifo");
    let status = told.world.output({
        let mut mkfifo = told.world.program("mkfifo");
        mkfifo.arg(&fifo);
        mkfifo
    });
    good(status);
    let output = told.run(&["--events", fifo.to_str().unwrap()]);
    let error = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(125), String::new()), "{error}");
    assert!(error.contains("nobody reads it: ") && error.contains("\nringfence: start its reader first\n"), "{error}");
    // With one it gets all of it, and its end.
    let reader = told.world.spawn({
        let mut cat = told.world.program("cat");
        cat.arg(&fifo);
        cat
    });
    let opened = || {
        let mut probe = std::fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut probe, rustix::fs::OFlags::NONBLOCK.bits() as i32);
        probe.write(true).open(&fifo).ok()
    };
    let mut held = None;
    until("it is read", || {
        held = opened();
        held.is_some()
    });
    good(told.run(&["-q", "--events", fifo.to_str().unwrap()]));
    drop(held);
    let events = lines(&good(finish(reader)));
    assert_eq!((events.len(), &events[0]["event"]), (1, &"summary".into()), "{events:?}");
}

#[test]
fn in_a_user_namespace_without_privilege() {
    let Some(world) = World::new() else { return };
    let Some(bash) = oracle("bash") else { return };
    let attempt = format!(
        "\"$0\" run --events - -- {} -c '(echo x > /dev/udp/203.0.113.10/53) 2>/dev/null || true'",
        bash.display()
    );
    let mut command = world.program("setpriv");
    command.args(["--reuid=12345", "--regid=12345", "--clear-groups", "unshare", "-Urnm", "sh", "-ec"]);
    command.args([format!("mount -t tmpfs none /run; {attempt}").as_str(), RINGFENCE]);
    command.stderr(Stdio::piped());
    let output = world.output(command);
    let events = lines(&text(&output.stderr));
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!((&events[0]["event"], &events[0]["dport"]), (&"bypass".into(), &53.into()));
    let identity = events[0]["identity"].as_str().unwrap();
    assert!(identity == "exact" || events[0]["reason"].is_string(), "{}", events[0]);
    // Nothing here reads the kernel's log.
    let restricted = std::fs::read_to_string("/proc/sys/kernel/dmesg_restrict").unwrap_or_default();
    println!("identity {identity}, with kernel.dmesg_restrict={}", restricted.trim());
}
