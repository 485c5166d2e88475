//! Who tried, as `ringfence run --events` tells it: every way of `tests/identity/attempt.c`, by programs in a sandbox of their own.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use futures::StreamExt as _;
use ringfence::audit::Event;
use ringfence::kernel::identity::{Program, Way};
use ringfence::policy::Policy;
use ringfence::{Host, Sandbox, SandboxOptions};
use serde_json::Value;

use crate::ocsf;
use crate::support::skip;
use crate::world::{RINGFENCE, World, oracle, text};

/// Ways to try, and how many packets each sends. What a program inside can't do is not among them.
const WAYS: [(&str, usize); 20] = [
    ("tcp", 1),
    ("udp", 1),
    ("connected-udp", 2),
    ("parallel", 320),
    ("parallel-udp", 320),
    ("threads", 8),
    ("leaderless", 1),
    // A sandbox has none.
    ("uring", 0),
    ("raw", 2),
    ("mapped", 1),
    ("six", 2),
    ("fast-open", 1),
    ("fork-exit", 20),
    ("exec-after", 1),
    ("inherited", 4),
    ("passed", 1),
    ("deleted", 1),
    ("replaced", 1),
    ("daemon", 1),
    ("forged-comm", 1),
];

/// A way that marks can't see: raw sockets are not kept.
const NOT_BY_MARKS: &str = "raw";

/// A world with a program for each way.
struct Who {
    world: World,
    binary: PathBuf,
}

impl Who {
    fn new() -> Option<Self> {
        let (world, cc) = (World::new()?, oracle("cc")?);
        let binary = world.directory().join("attempt");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/identity/attempt.c");
        let compile = Command::new(cc).args(["-O1", "-o"]).arg(&binary).arg(source).arg("-lpthread").status().unwrap();
        assert!(compile.success());
        Some(Self { world, binary })
    }

    /// A copy of the program under the name of its way, for some remove the file that they are or put another in its place.
    fn copies(&self, way: &str) -> [PathBuf; 2] {
        ["attempt", "other"].map(|name| {
            let copy = self.world.directory().join(format!("{name}-{way}"));
            std::fs::copy(&self.binary, &copy).unwrap();
            copy
        })
    }

    /// Lets one try under `run FLAGS --events FILE`.
    fn tries(&self, way: &str, flags: &str) -> (Output, Vec<Value>) {
        let [binary, other] = self.copies(way);
        let file = self.world.directory().join(format!("events-{way}"));
        let _ = std::fs::remove_file(&file);
        let mut command = self.world.ringfence("run -q --direct 203.0.113.9:4444".split(' '));
        command.args(flags.split_whitespace()).arg("--events").arg(&file);
        // The daemon's own end would not wait for it: the first process ends last.
        let script = if way == "raw" { "\"$0\" raw $(hostname -I)" } else { "\"$0\" \"$@\"; sleep 0.05" };
        command.args(["--", "sh", "-c", script]).arg(binary).arg(way).arg(other);
        let output = self.world.output(command);
        assert!(output.status.success(), "{way}: {}{}", text(&output.stdout), text(&output.stderr));
        (output, events(&std::fs::read_to_string(&file).unwrap()))
    }
}

fn events(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn bpf() -> bool {
    Program::load().map_err(|error| skip(&format!("BPF can't tell who tried: {}", error.chain()))).is_ok()
}

/// Who really tried, as the program itself says: by protocol, source port (0 for any) and destination port.
type Truth = HashMap<(u64, u64, u64), Vec<u64>>;

fn truth(printed: &str) -> Truth {
    let mut truth = Truth::new();
    for line in printed.lines() {
        let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        if let [protocol, sport, dport, pid] = numbers[..] {
            truth.entry((protocol, sport, dport)).or_default().push(pid);
        }
    }
    truth
}

/// Sorts events by how sure they are, and fails when one names a process that it was not.
fn judge(way: &str, events: &[Value], truth: &Truth) -> HashMap<String, usize> {
    let mut truth = truth.clone();
    let mut score = HashMap::new();
    for event in events.iter().filter(|event| event["event"] == "bypass") {
        let protocol = match event["proto"].as_str().unwrap() {
            "tcp" => 6,
            "udp" => 17,
            "icmp" => 1,
            other => panic!("{other}"),
        };
        let port = |name: &str| event[name].as_u64().unwrap_or(0);
        let key = [(protocol, port("sport"), port("dport")), (protocol, 0, port("dport"))];
        let key = key.into_iter().find(|key| truth.get(key).is_some_and(|pids| !pids.is_empty()));
        let real = truth.get_mut(&key.unwrap_or_else(|| panic!("{way}: nobody's: {event}"))).unwrap().remove(0);
        let identity = event["identity"].as_str().unwrap();
        let named = match identity {
            "exact" | "inferred" => event["process"]["ns_pid"] == real,
            "ambiguous" => event["candidates"].as_array().unwrap().iter().any(|one| one["ns_pid"] == real),
            _ => event.get("process").is_none(),
        };
        assert!(named, "{way}: it was {real}, and told is {event:#}");
        *score.entry(identity.to_owned()).or_default() += 1;
    }
    score
}

fn all(identity: &str, count: usize) -> HashMap<String, usize> {
    HashMap::from([(identity.to_owned(), count)]).into_iter().filter(|(_, count)| *count > 0).collect()
}

#[test]
fn every_way_is_told_with_its_process() {
    let Some(who) = Who::new() else { return };
    if !bpf() {
        return;
    }
    for (way, packets) in WAYS {
        let flags = if way == "raw" { "--keep-caps NET_RAW" } else { "" };
        let (output, told) = who.tries(way, flags);
        let score = judge(way, &told, &truth(&text(&output.stdout)));
        println!("{way:16} {score:?}");
        assert_eq!(text(&output.stdout).contains("no io_uring"), way == "uring");
        assert_eq!(score, all("exact", packets), "{way}: {told:#?}\n{}", text(&output.stdout));
        for event in told.iter().filter(|event| event["event"] == "bypass") {
            let process = &event["process"];
            assert!(process["exe"].as_str().unwrap().ends_with(&format!("attempt-{way}")), "{event}");
            assert_eq!(process["exe_deleted"] == true, ["deleted", "replaced"].contains(&way), "{event}");
            assert!(process["argv"].is_array() && process["start_time"].is_number(), "{event}");
            assert!(process["pid"] != process["ns_pid"], "{event}");
            // A daemon has nobody left but the sandbox's own first process.
            let ancestors = process["ancestors"].as_array().unwrap();
            assert!(ancestors.iter().all(|one| one["ns_pid"].as_u64().is_some()), "{event}");
        }
        let summary = told.last().unwrap();
        assert_eq!((summary["event"].as_str(), &summary["lost"]), (Some("summary"), &0.into()));
    }
}

#[test]
fn programs_that_everybody_has_are_named() {
    let Some(who) = Who::new() else { return };
    if !bpf() {
        return;
    }
    let python = "import socket; socket.socket().connect_ex(('203.0.113.10', 443))";
    for (name, arguments) in [
        ("python3", ["-I", "-c", python]),
        ("bash", ["-c", "exec 3<>/dev/tcp/203.0.113.10/443; true", "x"]),
        ("curl", ["-s", "http://203.0.113.10/", "-o/dev/null"]),
    ] {
        if oracle(name).is_none() {
            continue;
        }
        for format in ["json", "ocsf"] {
            let file = who.world.directory().join(format!("{name}.{format}"));
            let mut command = who.world.ringfence(["run", "-q", "--events-format", format, "--events"]);
            command.arg(&file).arg("--").arg(name).args(arguments);
            who.world.output(command);
            let told = events(&std::fs::read_to_string(&file).unwrap());
            let first = &told[0];
            let exe = if format == "json" {
                assert_eq!(first["identity"], "exact", "{first}");
                assert_eq!(first["process"]["argv"].as_array().unwrap().len(), 4, "{first}");
                &first["process"]["exe"]
            } else {
                told.iter().for_each(ocsf::validate);
                assert_eq!(first["unmapped"]["identity"], "exact", "{first}");
                &first["actor"]["process"]["file"]["path"]
            };
            assert!(exe.as_str().unwrap().contains(name.trim_end_matches('3')), "{first}");
        }
    }
}

#[test]
fn an_audit_names_who_is_let_out() {
    let Some(who) = Who::new() else { return };
    if !bpf() {
        return;
    }
    for (way, packets) in WAYS.into_iter().filter(|(way, _)| {
        ["tcp", "udp", "parallel", "threads", "mapped", "fork-exit", "exec-after", "deleted", "daemon"].contains(way)
    }) {
        let (output, told) = who.tries(way, "--audit");
        assert!(told.iter().all(|event| event["event"] != "bypass" || event["verdict"] == "accept"), "{told:#?}");
        let score = judge(way, &told, &truth(&text(&output.stdout)));
        assert_eq!(score, all("exact", packets), "{way}: {told:#?}");
    }
}

#[test]
fn marks_are_inferred_and_never_wrong() {
    let Some(who) = Who::new() else { return };
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let tries = |way: &str, binary: &Path, other: &Path| {
        let (reader, writer) = std::io::pipe().unwrap();
        let told = runtime().block_on(async {
            let host = Host::open().unwrap();
            let options = SandboxOptions { identity: Way::Seccomp, ..SandboxOptions::default() };
            let sandbox = Sandbox::prepare_with(&host, Policy::default(), options).await.unwrap();
            let events = sandbox.events();
            let script = "\"$0\" \"$@\"; sleep 0.05";
            let command = ringfence::Command::new("sh").args(["-c", script]).arg(binary).arg(way).arg(other);
            let mut running = sandbox.spawn(command.stdio([None, Some(OwnedFd::from(writer)), None])).await.unwrap();
            assert!(running.wait().await.unwrap().success(), "{way}");
            running.finish().await.1.unwrap();
            let events: Vec<_> = events.collect().await;
            let bypass = events.iter().filter(|event| matches!(&***event, Event::Bypass(_)));
            bypass.map(|event| serde_json::from_str(&event.to_json()).unwrap()).collect::<Vec<Value>>()
        });
        let mut printed = String::new();
        File::from(OwnedFd::from(reader)).read_to_string(&mut printed).unwrap();
        (printed, told)
    };
    for (way, packets) in WAYS.into_iter().filter(|(way, _)| *way != NOT_BY_MARKS) {
        let [binary, other] = who.copies(way);
        let (printed, told) = who.world.outer.host.run(|| tries(way, &binary, &other)).unwrap();
        let score = judge(way, &told, &truth(&printed));
        println!("{way:16} {score:?}");
        if way == "inherited" {
            // Once the second is seen with the socket, both are named: for the first's datagram, too, when the answer comes after that.
            let of = |certainty| score.get(certainty).copied().unwrap_or(0);
            assert!(of("ambiguous") >= 2 && of("ambiguous") + of("inferred") == packets, "{score:?}: {told:#?}");
            assert_eq!(score.values().sum::<usize>(), packets, "{score:?}: {told:#?}");
        } else {
            assert_eq!(score, all("inferred", packets), "{way}: {told:#?}");
        }
    }
}

#[test]
fn without_privilege_marks_name_who_tried() {
    let Some(who) = Who::new() else { return };
    for (way, packets) in WAYS.into_iter().filter(|(way, _)| *way != NOT_BY_MARKS) {
        let [binary, other] = who.copies(way);
        crate::world::set_mode(&binary, 0o755);
        let folder = tempfile::tempdir().unwrap();
        crate::world::set_mode(folder.path(), 0o777);
        let file = folder.path().join("events");
        let line = format!(
            "mount -t tmpfs none /run; cp {} {} /run/; cd /run; \"$0\" run -q --events {} -- sh -c '\"$0\" \"$@\"; sleep 0.05' /run/attempt-{way} {way} /run/other-{way}",
            binary.display(),
            other.display(),
            file.display()
        );
        let mut command = who.world.program("setpriv");
        command.args(["--reuid=12345", "--regid=12345", "--clear-groups", "unshare", "-Urnm", "sh", "-ec"]);
        command.args([line.as_str(), RINGFENCE]);
        let output = who.world.output(command);
        assert!(output.status.success(), "{way}: {}{}", text(&output.stdout), text(&output.stderr));
        let told = events(&std::fs::read_to_string(&file).unwrap());
        let score = judge(way, &told, &truth(&text(&output.stdout)));
        println!("{way:16} {score:?}");
        assert!(!score.contains_key("exact") && !score.contains_key("unknown"), "{way}: {score:?} {told:#?}");
        assert_eq!(score.values().sum::<usize>(), packets, "{way}: {told:#?}");
    }
}
