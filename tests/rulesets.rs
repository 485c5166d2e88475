//! Rulesets that nft(8) loads, saved and restored by `ringfence rules`: nft(8) must not see a difference, nor the kernel's own dump
//! show one. Each in a network namespace of its own that has no link but to itself.
//!
//! The rulesets are `tests/golden/nft_rulesets/*.nft`, and `rules.txt` there: some two thousand rules, each of which stands in a chain of
//! its own, and once more many to a chain in an order that is drawn.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use ringfence::kernel::nftables::Socket;
use ringfence::nft::{Ruleset, diff};
use rustix::thread::{UnshareFlags, unshare_unsafe};

fn required() -> bool {
    std::env::var("RINGFENCE_TEST_KERNEL").is_ok_and(|value| value == "require")
}

fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
    assert!(!required(), "{why}");
}

/// Runs a program in the calling thread's namespace.
fn run(program: &str, arguments: &[&str], input: &str) -> std::io::Result<Output> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // One that reads nothing of it says so by its exit status.
            let _ = stdin.write_all(input.as_bytes());
        });
        child.wait_with_output()
    })
}

fn text(program: &str, arguments: &[&str], input: &str) -> String {
    let output = run(program, arguments, input).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `test` on a thread of its own in a new network namespace with two ends of a wire, `d0` and `d1`.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        // SAFETY: a network namespace changes nothing that other threads or Rust rely on; file descriptors stay shared.
        if let Err(error) = unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
            return skip(&format!("no network namespace can be made: {error}"));
        }
        let wire = ringfence::kernel::rtnetlink::Veth::new("d0", "d1");
        let mut links = ringfence::kernel::rtnetlink::Socket::open().unwrap();
        links
            .commit(ringfence::kernel::rtnetlink::Batch::from([ringfence::kernel::rtnetlink::Request::create_veth(
                &wire,
            )]))
            .unwrap();
        if run("nft", &["--version"], "").is_err() {
            return skip("no nft(8) to load rulesets with");
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/nft_rulesets")
}

/// What is seen of a ruleset: nft(8)'s text, its JSON, and all that the kernel dumps.
#[derive(PartialEq)]
struct Seen {
    text: String,
    json: serde_json::Value,
    dump: Ruleset,
}

fn seen() -> Seen {
    let mut json = serde_json::from_str(&text("nft", &["-s", "-j", "list", "ruleset"], "")).unwrap();
    // Numbers that the kernel gives to what is made, and clocks that run.
    forget(&mut json, &["handle", "expires"]);
    let listed = text("nft", &["-s", "list", "ruleset"], "");
    let mut dump = Socket::open().unwrap().ruleset().unwrap();
    dump.rules.iter_mut().for_each(|rule| rule.handle = None);
    for (_, _, elements) in &mut dump.elements {
        elements.iter_mut().for_each(|element| element.expires = None);
        // Hash tables have an order of their own each time.
        elements.sort_by(|a, b| (&a.key, a.interval_end).cmp(&(&b.key, b.interval_end)));
    }
    let still = |line: &str| match line.find(" expires ") {
        Some(at) => line[..at].to_owned(),
        None => line.to_owned(),
    };
    Seen { text: listed.lines().map(still).collect::<Vec<_>>().join("\n"), json, dump }
}

fn forget(value: &mut serde_json::Value, keys: &[&str]) {
    match value {
        serde_json::Value::Object(map) => {
            map.retain(|key, _| !keys.contains(&key.as_str()));
            map.values_mut().for_each(|value| forget(value, keys));
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(|value| forget(value, keys)),
        _ => {}
    }
}

/// Loads a script with nft(8), saves it, flushes, restores it and compares.
fn comes_back(what: &str, script: &str) {
    text("nft", &["flush", "ruleset"], "");
    text("nft", &["-f", "-"], script);
    let before = seen();
    let ringfence = env!("CARGO_BIN_EXE_ringfence");
    let saved = text(ringfence, &["rules", "save"], "");
    text("nft", &["flush", "ruleset"], "");
    text(ringfence, &["rules", "restore"], &saved);
    let after = seen();
    assert_eq!(before.text, after.text, "{what}: nft list ruleset");
    assert!(before.json == after.json, "{what}: nft -j list ruleset");
    for (index, (before, after)) in before.dump.rules.iter().zip(&after.dump.rules).enumerate() {
        assert_eq!(before, after, "{what}: rule {index}");
    }
    assert_eq!(before.dump, after.dump, "{what}");
    // It can be done over what is there, too, and changes nothing.
    text(ringfence, &["rules", "restore"], &saved);
    assert!(seen() == after, "{what}: restored twice");
}

#[test]
fn whole_rulesets_come_back() {
    let mut files: Vec<_> = std::fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "nft"));
    files.sort();
    assert!(files.len() >= 5);
    in_namespace(move || {
        for file in files {
            comes_back(&file.display().to_string(), &std::fs::read_to_string(&file).unwrap());
        }
    });
}

/// Rules with the head of the chain that they stand in.
struct Group {
    family: String,
    beside: String,
    chain: String,
    rules: Vec<String>,
}

fn groups() -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for line in std::fs::read_to_string(golden().join("rules.txt")).unwrap().lines() {
        if let Some(head) = line.strip_prefix('[').and_then(|head| head.strip_suffix(']')) {
            let (family, rest) = head.split_once(": ").unwrap();
            let (beside, chain) = rest.split_once("; ").unwrap();
            let [family, beside, chain] = [family, beside, chain].map(str::to_owned);
            groups.push(Group { family, beside, chain, rules: Vec::new() });
        } else if !line.is_empty() && !line.starts_with('#') {
            groups.last_mut().unwrap().rules.push(line.to_owned());
        }
    }
    groups
}

/// What rules refer to.
fn beside(family: &str, what: &str) -> String {
    let l3 = if family == "ip6" { "ip6" } else { "ip" };
    let objects = "counter c { packets 5 bytes 10 comment \"cnt\" }\ncounter c2 { packets 0 bytes 0; }\n\
                   quota q { over 25 mbytes used 10 bytes }\nlimit l { rate 400/minute }\n";
    match what {
        "objects" if matches!(family, "ip" | "ip6" | "inet") => format!(
            "{objects}ct helper h {{ type \"ftp\" protocol tcp; }}\n\
             ct timeout t {{ protocol tcp; policy = {{ established: 120, close: 20 }};\n}}\n\
             ct expectation e {{ protocol tcp; dport 5432; timeout 1h; size 12; l3proto {l3}; }}\n\
             synproxy sp {{ mss 1460; wscale 7; timestamp sack-perm; }}\n"
        ),
        "objects" => objects.to_owned(),
        "sets" => "\
            set a4 { type ipv4_addr; }\n\
            set i4 { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.168.1.1-192.168.1.77 } }\n\
            set m4 { type ipv4_addr; flags interval; auto-merge; elements = { 10.0.0.0/8, 11.0.0.0/8 } }\n\
            set t4 { type ipv4_addr; flags timeout; timeout 1h; elements = { 1.2.3.4 timeout 2h, 5.6.7.8 } }\n\
            set d4 { type ipv4_addr; size 65535; flags dynamic,timeout; timeout 5m; }\n\
            set conc { type ipv4_addr . inet_service; elements = { 1.2.3.4 . 80, 1.2.3.4 . 443 comment \"x\" } }\n\
            set concint { type ipv4_addr . inet_service; flags interval; \
                elements = { 10.0.0.0/8 . 10-20, 192.168.0.1 . 80 } }\n\
            map vm { type ipv4_addr : verdict; elements = { 1.2.3.4 : accept, 5.6.7.8 : jump other } }\n\
            map m2m { type ipv4_addr : mark; elements = { 1.2.3.4 : 0x10, 1.2.3.5 comment \"m\" : 0x20 } }\n\
            map natm { type ipv4_addr : ipv4_addr . inet_service; elements = { 1.2.3.4 : 10.0.0.1 . 80 } }\n"
            .to_owned(),
        _ => String::new(),
    }
}

/// A table in which each rule has a chain of its own.
fn script(group: &Group, rules: &[String]) -> String {
    let mut script = format!("table {} t {{\n{}", group.family, beside(&group.family, &group.beside));
    script.push_str("chain other { }\n");
    for (index, rule) in rules.iter().enumerate() {
        writeln!(script, "chain c{index} {{\n{}\n{rule}\n}}", group.chain).unwrap();
    }
    script + "}\n"
}

#[test]
fn every_rule_comes_back() {
    in_namespace(|| {
        let mut count = 0;
        for group in groups() {
            // The kernel takes 1024 base chains at one hook, and nft(8) is slow with many: a few hundred at a time.
            for rules in group.rules.chunks(150) {
                comes_back(&format!("{} {}", group.family, group.chain), &script(&group, rules));
                count += rules.len();
            }
        }
        eprintln!("{count} rules came back");
        assert!(count > 1900);
    });
}

/// Many rules to a chain, in an order that is drawn; the same on every machine.
#[test]
fn thousands_of_rules_come_back() {
    in_namespace(|| {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut draw = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        let groups = groups();
        let mut script = String::new();
        let mut count = 0;
        for (table, group) in groups.iter().enumerate() {
            let name = format!("t{table}");
            writeln!(script, "table {} {name} {{\n{}", group.family, beside(&group.family, &group.beside)).unwrap();
            script.push_str("chain other { }\n");
            for chain in 0..4 {
                writeln!(script, "chain c{chain} {{\n{}", group.chain).unwrap();
                for _ in 0..group.rules.len().min(60) {
                    let rule = &group.rules[draw(group.rules.len())];
                    // Two meters of one name are one set, which a chain can have but once.
                    if !rule.contains("meter") {
                        writeln!(script, "{rule}").unwrap();
                        count += 1;
                    }
                }
                script.push_str("}\n");
            }
            script.push_str("}\n");
        }
        assert!(count > 3000, "{count} rules");
        comes_back("drawn", &script);
    });
}

/// The text of each chain, by its name.
fn chains(listed: &str) -> std::collections::HashMap<String, String> {
    let mut chains = std::collections::HashMap::new();
    let mut name = None;
    for line in listed.lines() {
        if let Some(head) = line.strip_prefix("\tchain ").and_then(|head| head.strip_suffix(" {")) {
            name = Some(head.to_owned());
        } else if line == "\t}" {
            name = None;
        } else if let Some(name) = &name {
            let text: &mut String = chains.entry(name.clone()).or_default();
            text.push_str(line.trim());
            text.push('\n');
        }
    }
    chains
}

/// What `ringfence rules list` shows, nft(8) loads and lists as it listed the original. What it cannot show, it says.
#[test]
fn what_is_listed_nft_makes_the_same_of() {
    in_namespace(|| {
        let (mut shown, mut all) = (0, 0);
        let mut socket = Socket::open().unwrap();
        for group in groups() {
            for rules in group.rules.chunks(150) {
                text("nft", &["flush", "ruleset"], "");
                text("nft", &["-f", "-"], &script(&group, rules));
                let before = chains(&text("nft", &["-s", "list", "ruleset"], ""));
                let syntax = socket.ruleset().unwrap().syntax();
                text("nft", &["flush", "ruleset"], "");
                text("nft", &["-f", "-"], syntax.as_str());
                let after = chains(&text("nft", &["-s", "list", "ruleset"], ""));
                for (index, rule) in rules.iter().enumerate() {
                    all += 1;
                    let name = format!("c{index}");
                    let of_chain = format!("of chain {} t {name}", group.family);
                    if syntax.unshown().iter().any(|unshown| unshown.what.ends_with(&of_chain)) {
                        continue;
                    }
                    shown += 1;
                    // `x | y == z` is `x & !y == z ^ y`, and comes back as that.
                    if !rule.starts_with("ct mark or") {
                        assert_eq!(before.get(&name), after.get(&name), "{} {rule}\n{syntax}", group.family);
                    }
                }
            }
        }
        eprintln!("{shown} of {all} rules have nft(8) syntax that comes back");
        assert!(shown * 100 >= all * 90, "{shown} of {all}");
    });
}

/// One ruleset becomes another by what differs, and a second time there is nothing to do.
fn becomes(what: &str, from: &str, to: &str) {
    let mut socket = Socket::open().unwrap();
    let mut load = |script: &str| {
        text("nft", &["flush", "ruleset"], "");
        text("nft", &["-f", "-"], script);
        socket.ruleset().unwrap()
    };
    let want = load(to);
    let have = load(from);
    let steps = diff(&have, &want);
    socket.commit(&steps).unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
    let after = socket.ruleset().unwrap();
    let left = diff(&after, &want);
    let shown: Vec<_> = left.operations().iter().map(ToString::to_string).collect();
    assert!(shown.is_empty(), "{what}: {shown:?}");
    socket.verify(&want).unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
}

#[test]
fn rulesets_become_one_another() {
    in_namespace(|| {
        let mut scripts: Vec<(String, String)> = Vec::new();
        for entry in std::fs::read_dir(golden()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "nft") {
                scripts.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
            }
        }
        scripts.sort();
        for (from, before) in &scripts {
            for (to, after) in &scripts {
                becomes(&format!("{from} to {to}"), before, after);
            }
        }
        // Rules of one chain, drawn: some stay, some go, some come between.
        let group = groups().into_iter().find(|group| group.family == "ip" && group.beside == "plain").unwrap();
        let rules: Vec<_> = group.rules.iter().filter(|rule| !rule.contains(['{', '"'])).collect();
        let script = |keep: &dyn Fn(usize) -> bool| {
            let mut script = format!("table ip t {{\nchain other {{ }}\nchain c {{\n{}\n", group.chain);
            for (_, rule) in rules.iter().enumerate().filter(|(index, _)| keep(*index)) {
                writeln!(script, "{rule}").unwrap();
            }
            script + "}\n}\n"
        };
        becomes("thirds", &script(&|index| index % 3 != 0), &script(&|index| index % 5 != 1));
        becomes("from nothing", "table ip t { }", &script(&|_| true));
        becomes("to nothing", &script(&|_| true), "table ip t { }");
    });
}

#[test]
fn what_cannot_be_restored_changes_nothing() {
    in_namespace(|| {
        text("nft", &["-f", "-"], "table inet kept {\nchain c {\ncounter accept\n}\n}\n");
        let ringfence = env!("CARGO_BIN_EXE_ringfence");
        let saved = text(ringfence, &["rules", "save"], "");
        let before = seen();
        let refused = |document: &str, expected: &[&str]| {
            let output = run(ringfence, &["rules", "restore"], document).unwrap();
            let error = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(125), "{error}");
            for part in expected {
                assert!(error.contains(part), "{error}\nlacks {part}");
            }
            assert!(seen() == before, "{error}");
        };
        refused("", &["standard input:1:0", "EOF"]);
        refused(
            &saved.replace("\"inet\"", "\"internet\""),
            &["standard input:3:", "tables[0].id.family", "`internet`"],
        );
        refused(&saved.replace("\"counter\"", "\"count\""), &["rules[0].exprs[0]", "unknown variant `count`"]);
        refused(&saved.replace("\"packets\":0", "\"packets\":-1"), &["packets", "expected u64"]);
        // What the kernel refuses, it refuses as a whole.
        refused(&saved.replace("\"accept\"", "{\"jump\":\"nowhere\"}"), &["add rule inet kept c", "immediate"]);
        refused(&saved.replace("\"schema\":1", "\"schema\":9"), &["ringfence.schema", "found schema 9, expected 1"]);
        let owned = saved.replace("\"owner\":false", "\"owner\":true");
        refused(&owned, &["table inet kept has the flag `owner`"]);
    });
}
