//! `ringfence demo`, as anybody sees it who runs it.
//!
//! The demo makes namespaces of its own; that the machine's own namespace is left alone is part of what is tested.
#![cfg(feature = "cli")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use ringfence::kernel::netns::Netns;
use ringfence::kernel::rtnetlink::Socket;
use ringfence::kernel::{nftables, rtnetlink};
use ringfence::nft::Ruleset;

const RINGFENCE: &str = env!("CARGO_BIN_EXE_ringfence");

/// All of it, without times and with the names that are random made the same.
const OUTPUT: &str = r#"A small internet out of namespaces on this machine; no packet leaves it, and nothing of it is changed.

  web.example   203.0.113.9     2001:db8::9     web server on port 80, ssh on 22
  database      203.0.113.5     2001:db8::5     on port 5432, ssh on 22
  resolver      203.0.113.53    2001:db8::53    DNS on port 53

  ok      namespaces, line, servers                    … built

Without a fence, everybody answers
  ok      TCP to 203.0.113.9:22                        … "not for you: are you there?"
  ok      TCP to [2001:db8::9]:22                      … "not for you: are you there?"
  ok      UDP to 203.0.113.53:53, a question for DNS   … an answer of 32 bytes
  ok      ICMP echo                                    … an answer of 28 bytes
  ok      arrived on the internet's side               … connections: 2, questions: 1

Behind `ringfence run --allow web.example --allow 203.0.113.9 --direct 203.0.113.5:5432 --direct [2001:db8::5]:5432`
  ok      the fence                                    … both rulesets committed and read back
  ok      a program in it                              … started

What the policy names is let out
  ok      GET http://web.example/, by the proxy        … 200 "hello from the internet"
  ok      GET http://203.0.113.9/, by the proxy        … 200 "hello from the internet"
  ok      TCP to 203.0.113.5:5432, directly            … "database: are you there?"
  ok      TCP to [2001:db8::5]:5432, directly          … "database: are you there?"

What the proxy refuses, it gives a reason for
  ok      GET http://other.example/                    … 403 "ringfence: other.example:80 is not on the allow-list; --allow other.example:80 would allow it"

All else is refused at once (median of 5)
  ok      TCP to 203.0.113.9:22                        … ECONNREFUSED
  ok      TCP to 203.0.113.9:80                        … ECONNREFUSED
  ok      TCP to [2001:db8::9]:80                      … ECONNREFUSED
  ok      TCP to 203.0.113.5:22                        … ECONNREFUSED
  ok      TCP to [2001:db8::5]:22                      … ECONNREFUSED
  ok      UDP to 203.0.113.53:53, a question for DNS   … EPERM
  ok      UDP to [2001:db8::53]:53, a question for DNS … EPERM
  ok      ICMP echo, needs a raw socket                … EPERM
  ok      deleting the fence's rules                   … EPERM
  ok      arrived on the internet's side               … connections: 0, questions: 0

When it ends, everything is gone
  ok      the sandbox                                  … closed
  ok      its processes                                … ended
  ok      what the host still has, read back           … links: none; tables: none; forwarding: off

Against root with every capability, the host's side holds
  ok      ICMP echo from a raw socket                  … EPERM
  ok      deleting the rules inside                    … 2 tables deleted
  ok      TCP to 203.0.113.9:22                        … ECONNREFUSED
  ok      TCP to [2001:db8::5]:22                      … ECONNREFUSED
  ok      UDP to 203.0.113.53:53, a question for DNS   … ECONNREFUSED
  ok      arrived on the internet's side               … connections: 0, questions: 0
  ok      the sandbox                                  … closed
  ok      its processes                                … ended
  ok      what the host still has, read back           … links: none; tables: none; forwarding: off

When its supervisor is killed, too: `ringfence run --allow web.example --direct 203.0.113.5:5432`
  ok      what the host has, read back                 … links: rf#; tables: inet ringfence-#; forwarding: on
  ok      SIGKILL to the supervisor                    … signal: 9 (SIGKILL)
  ok      its processes                                … ended
  ok      what the host still has, read back           … links: none; tables: none; forwarding: off

Everything is as it should be
"#;

/// Says so past the test harness, which hides what a passing test prints.
fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {}: {why}", std::thread::current().name().unwrap_or_default());
    assert_ne!(std::env::var("RINGFENCE_TEST_KERNEL").as_deref(), Ok("require"), "{why}");
}

/// Whether there are namespaces to be had; if not, says so.
fn namespaces() -> bool {
    Netns::new().map_err(|error| skip(&error.chain())).is_ok()
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Takes the times off the ends of lines, and makes random names the same.
fn masked(output: &str) -> String {
    let mut masked = String::new();
    for line in output.lines() {
        let timed = (line.starts_with("  ok") && line.ends_with(" µs)"))
            || [" ms)", " s)", " s)."].iter().any(|end| line.ends_with(end));
        let line = match line.rfind(" (") {
            Some(at) if timed => &line[..at],
            _ => line,
        };
        let words = line.split_inclusive(' ').map(|word| {
            let name = word.trim_end_matches([' ', ';']);
            let end = &word[name.len()..];
            let hex = |prefix: &str, length| {
                let rest = name.strip_prefix(prefix)?;
                (rest.len() == length && rest.chars().all(|c| c.is_ascii_hexdigit())).then(|| format!("{prefix}#{end}"))
            };
            hex("rf", 8).or_else(|| hex("ringfence-", 12)).unwrap_or_else(|| word.to_owned())
        });
        masked.extend(words);
        masked.push('\n');
    }
    masked
}

fn assert_whole(output: &Output) {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    if out.contains("\n  --  ") {
        return skip("this machine can't let IPv6 out of one interface alone");
    }
    assert_eq!(masked(&out), OUTPUT, "{err}");
    assert_eq!((output.status.code(), err.as_str()), (Some(0), ""));
}

/// What the machine's own namespace has.
fn machine() -> (Vec<rtnetlink::Link>, Vec<rtnetlink::Address>, Vec<rtnetlink::Route>, Ruleset) {
    let mut links = Socket::open().unwrap();
    let ruleset = nftables::Socket::open().unwrap().ruleset().unwrap();
    (links.links().unwrap(), links.addresses().unwrap(), links.routes().unwrap(), ruleset)
}

#[test]
fn every_step_is_as_it_should_be_and_the_machine_is_left_alone() {
    if !namespaces() {
        return;
    }
    let before = machine();
    // None of these may make a difference.
    let environment = [
        ("RINGFENCE_DIRECT_TCP_ENDPOINTS", "198.51.100.254:9"),
        ("RINGFENCE_POLICY", "/nowhere"),
        ("NO_PROXY", "web.example"),
        ("http_proxy", "http://192.0.2.1:9"),
        ("SUDO_UID", "65534"),
        ("SUDO_GID", "65534"),
    ];
    let output = run(Command::new(RINGFENCE).arg("demo").envs(environment));
    assert_whole(&output);
    assert_eq!(machine(), before);
}

#[test]
fn what_is_refused_is_told_with_how_long_it_took() {
    if !namespaces() {
        return;
    }
    let out = text(&run(Command::new(RINGFENCE).arg("demo")).stdout);
    let refused: Vec<&str> =
        out.lines().filter(|line| ["… ECONNREFUSED", "… EPERM"].iter().any(|end| line.contains(end))).collect();
    assert!(refused.len() >= 8, "{out}");
    let took = |line: &&str| line.ends_with(" µs)") || line.ends_with(" ms)");
    assert!(refused.iter().all(took), "{refused:#?}");
}

#[test]
fn it_needs_no_proc() {
    if !namespaces() {
        return;
    }
    let without_proc = |call: &str| {
        let script = format!("mount -t tmpfs none /proc && cd \"${{0%/*}}\" && {call}");
        run(Command::new("unshare").args(["--mount", "sh", "-c", &script, RINGFENCE]))
    };
    for call in ["exec \"$0\" demo", "exec ./ringfence demo", "PATH=/bin:/usr/bin:$PWD exec ringfence demo"] {
        assert_whole(&without_proc(call));
    }
    let lost = without_proc("exec bash -c 'exec -a nowhere ./ringfence demo'");
    assert_eq!(lost.status.code(), Some(125));
    let err = text(&lost.stderr);
    assert!(err.starts_with("ringfence: can't find the file of ringfence itself"), "{err}");
    assert!(err.ends_with("ringfence: call it by its path\n"), "{err}");
}

/// A copy of the program that everybody may execute.
fn for_everybody() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("ringfence");
    fs::copy(RINGFENCE, &program).unwrap();
    (folder, program)
}

const AS_NOBODY: [&str; 5] = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];

#[test]
fn root_of_a_user_namespace_is_enough() {
    if !namespaces() {
        return;
    }
    let (_folder, program) = for_everybody();
    let unshare = ["unshare", "--user", "--map-root-user", "--net"];
    let output = run(Command::new("setpriv").args(AS_NOBODY).args(unshare).arg(&program).arg("demo"));
    if text(&output.stderr).contains("unshare: unshare failed") {
        return skip("no user namespaces for ordinary users");
    }
    assert_whole(&output);
}

#[test]
fn without_privilege_it_says_what_is_missing() {
    if !namespaces() {
        return;
    }
    let (_folder, program) = for_everybody();
    let output = run(Command::new("setpriv").args(AS_NOBODY).arg(&program).arg("demo"));
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(125), ""));
    let err = text(&output.stderr);
    assert!(err.starts_with("ringfence: can't create a network namespace: Operation not permitted"), "{err}");
    assert!(err.contains("\nringfence: run it as root, or in a user namespace of its own: unshare"), "{err}");
}

#[test]
fn nothing_outlives_it_whatever_signal_ends_it() {
    if !namespaces() {
        return;
    }
    for (signal, last_line) in
        [("INT", "What the policy names"), ("TERM", "Against root"), ("KILL", "All else is refused"), ("KILL", "  ok")]
    {
        let mut demo = Command::new(RINGFENCE)
            .arg("demo")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(demo.stdout.take().unwrap());
        let mut line = String::new();
        while !line.starts_with(last_line) {
            line.clear();
            assert_ne!(out.read_line(&mut line).unwrap(), 0, "the demo ended before it said `{last_line}`");
        }
        let killed = Command::new("kill").args(["-s", signal, &demo.id().to_string()]).status().unwrap();
        assert!(killed.success());
        // Every process that the demo starts has its standard error: it ends with the last of them.
        let mut err = demo.stderr.take().unwrap();
        let (ended, end) = channel();
        std::thread::spawn(move || ended.send(err.read_to_end(&mut Vec::new())));
        let end = end.recv_timeout(Duration::from_secs(5));
        assert!(end.is_ok(), "5 s after SIG{signal} at `{last_line}`, a process of the demo still runs");
        assert_eq!(demo.wait().unwrap().code(), None);
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    if !namespaces() {
        return;
    }
    let script = "\"$0\" demo | head -n 1; exit \"${PIPESTATUS[0]}\"";
    let output = run(Command::new("bash").args(["-c", script, RINGFENCE]));
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    let full = run(Command::new("sh").args(["-c", "exec \"$0\" demo > /dev/full", RINGFENCE]));
    assert_eq!(full.status.code(), Some(125));
    assert!(text(&full.stderr).starts_with("ringfence: can't write to standard output: "), "{full:?}");
}

#[test]
fn the_demo_s_own_subcommand_is_not_shown_and_serves_nobody_else() {
    let help = text(&run(Command::new(RINGFENCE).arg("--help")).stdout);
    assert!(help.contains("demo ") && !help.contains("probe"), "{help}");
    let mut probe = Command::new(RINGFENCE)
        .arg("__probe")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may be gone before it could be told.
    let _ = probe.stdin.take().unwrap().write_all(b"tcp 127.0.0.1:9\n");
    let output = probe.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(125), ""));
    let err = text(&output.stderr);
    assert_eq!(err, "ringfence: this subcommand serves `ringfence demo` and is of no other use\n");
}
