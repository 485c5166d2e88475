//! The fence, seen from outside: what docs/security.md says must not work does not, and what must work does.
//!
//! Nothing is believed here because a program inside said so. Every test watches the wire on the internet's side, where no
//! frame may come from a sandbox but those of flows that were let out, and where a frame that was let out is seen first, so that
//! it is known to be watched. What is for the host itself is watched by servers there.
#![cfg(feature = "cli")]

mod support;

#[path = "fence/calls.rs"]
mod calls;
#[path = "fence/escape.rs"]
mod escape;
#[path = "fence/open.rs"]
mod open;
#[path = "fence/raw.rs"]
mod raw;
#[path = "fence/sockets.rs"]
mod sockets;
#[path = "fence/time.rs"]
mod time;
#[path = "fence/users.rs"]
mod users;

use std::process::Output;

use ringfence::kernel::{nftables, rtnetlink};
use support::{Frame, HOST, Outer, PROBE, SERVERS, Wire};

/// What the tests' sandboxes are let out to: one TCP and one UDP port at one address a family.
const DIRECT: &str = "--direct 203.0.113.9:5432 --direct-udp 203.0.113.9:5353 \
                      --direct [2001:db8::9]:5432 --direct-udp [2001:db8::9]:5353";

/// What a probe sends last, and what must be seen of it.
const CONTROL: &str = "+ udp 203.0.113.9 5353 control-four + udp 2001:db8::9 5353 control-six";

/// The specification that these tests hold the fence to.
const SECURITY: &str = include_str!("../docs/security.md");

/// Says which lines of "What must not work" a test proves.
fn proves(lines: &[&str]) {
    let wanted = must_not_work();
    for line in lines {
        assert!(wanted.contains(line), "docs/security.md has no line `{line}` under \"What must not work\"");
    }
}

/// The lines of "What must not work".
fn must_not_work() -> Vec<&'static str> {
    let section = SECURITY.split("## What must not work").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    section.lines().filter_map(|line| line.strip_prefix("- ")).collect()
}

#[test]
fn every_line_of_what_must_not_work_is_proved_by_a_test() {
    let tests = [
        include_str!("fence/sockets.rs"),
        include_str!("fence/raw.rs"),
        include_str!("fence/escape.rs"),
        include_str!("fence/time.rs"),
        include_str!("fence/users.rs"),
    ];
    let lines = must_not_work();
    assert!(lines.len() > 15, "{lines:?}");
    for line in lines {
        let quoted = format!("\"{line}\"");
        assert!(tests.iter().any(|test| test.contains(&quoted)), "no test quotes `{line}`");
    }
}

/// Whether a frame is one of a flow that [`DIRECT`] lets out: whole, ordinary, and with the host's own address.
fn let_out(frame: &Frame) -> bool {
    let from = |address: &str| frame.source() == address.parse().ok();
    let to = |address: &str| frame.destination() == address.parse().ok();
    let ends = (from(HOST[0]) && to(SERVERS[0])) || (from(HOST[1]) && to(SERVERS[2]));
    let port = matches!((frame.protocol(), frame.port()), (Some(6), Some(5432)) | (Some(17), Some(5353)));
    ends && port && !frame.is_malformed() && !frame.holds(b"LEAK")
}

/// Waits for what a probe sends last, and then finds nothing on the wire that was not let out.
#[track_caller]
fn nothing_else_was_seen(wire: &Wire) {
    wire.until_seen("control-four");
    wire.until_seen("control-six");
    let strangers = wire.strangers(let_out);
    assert!(
        strangers.is_empty(),
        "{} frames got out, the first: {:#?}",
        strangers.len(),
        &strangers[..strangers.len().min(5)]
    );
}

/// The command line of a probe.
fn probe<'a>(python: &'a str, words: &'a str) -> Vec<&'a str> {
    [python, "-I", PROBE].into_iter().chain(words.split_whitespace()).collect()
}

/// Runs a probe on the host itself, without any fence: what it can be seen to do when nothing stops it.
fn unfenced(outer: &Outer, python: &str, words: &str) -> Output {
    outer.output(
        std::process::Command::new(python)
            .args(["-I", PROBE])
            .args(words.split_whitespace())
            .env("ATTEMPT_SECONDS", "0.1"),
    )
}

/// Whether nothing of any sandbox is left on the host.
fn clean(outer: &Outer) -> bool {
    outer
        .host
        .run(|| {
            let links = rtnetlink::Socket::open().unwrap().links().unwrap();
            let tables = nftables::Socket::open().unwrap().tables().unwrap();
            links.iter().all(|link| ["lo", "up0"].contains(&link.name.as_str())) && tables.is_empty()
        })
        .unwrap()
}
