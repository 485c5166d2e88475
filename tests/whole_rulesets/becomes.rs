//! One ruleset made another by what differs: [`diff`] gives the steps, and after them nothing differs.

use std::fmt::Write as _;

use ringfence::kernel::nftables::Socket;
use ringfence::nft::{Transaction, diff};

use crate::nft::{in_namespace, load};
use crate::{Script, able, flush, golden, rules};

/// One ruleset becomes another by what differs, and a second time there is nothing to do. Gives the steps.
fn becomes(what: &str, from: &str, to: &str) -> Vec<String> {
    let mut socket = Socket::open().unwrap();
    let mut loaded = |script: &str| {
        flush();
        load(script).unwrap();
        socket.ruleset().unwrap()
    };
    let want = loaded(to);
    let have = loaded(from);
    let steps = diff(&have, &want);
    socket.commit(&steps).unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
    let after = socket.ruleset().unwrap();
    let shown = |steps: &Transaction| -> Vec<String> { steps.operations().iter().map(ToString::to_string).collect() };
    let left = shown(&diff(&after, &want));
    assert!(left.is_empty(), "{what}: {left:?}");
    socket.verify(&want).unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
    shown(&steps)
}

#[test]
fn rulesets_become_one_another() {
    if !able() {
        return;
    }
    in_namespace(&["d0", "d1"], || {
        let together: Vec<Script> =
            golden("").into_iter().filter(|script| script.name.starts_with("together-")).collect();
        assert!(together.len() >= 5);
        for from in &together {
            for to in &together {
                becomes(&format!("{} to {}", from.name, to.name), &from.text, &to.text);
            }
        }
        // Rules of one chain, drawn: some stay, some go, some come between.
        let group = rules::groups().into_iter().find(|group| group.family == "ip" && group.beside == "plain").unwrap();
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
fn ranges_that_touch_come_and_go() {
    if !able() {
        return;
    }
    in_namespace(&[], || {
        let set = |of: &str, elements: &str| {
            let to = if of == "map" { ": verdict" } else { "" };
            let elements = if elements.is_empty() { String::new() } else { format!("elements = {{ {elements} }}\n") };
            format!("table inet t {{\n{of} s {{\ntype inet_service {to}\nflags interval\n{elements}}}\n}}\n")
        };
        let sets = ["", "1-5, 6-15", "1-5, 6-15, 100", "6-15, 16-20", "0-5, 6-15", "0-9", "16-65535", "1-5, 6-65535"];
        for from in sets {
            for to in sets {
                becomes(&format!("{from} to {to}"), &set("set", from), &set("set", to));
            }
        }
        let maps = [
            "",
            "1-5 : accept, 6-15 : drop",
            "1-5 : drop, 6-15 : drop, 100 : accept",
            "6-15 : drop",
            "0-5 : drop, 6-65535 : accept",
        ];
        for from in maps {
            for to in maps {
                becomes(&format!("{from} to {to}"), &set("map", from), &set("map", to));
            }
        }
    });
}

#[test]
fn rules_move_with_what_is_their_own() {
    if !able() {
        return;
    }
    in_namespace(&[], || {
        let rules = [
            "tcp dport { 80, 443 } accept",
            "counter",
            "tcp dport 22 jump {\nip saddr { 198.51.100.1, 203.0.113.0/24 } accept\nudp dport vmap { 1 : accept, 2 : drop }\ncounter drop\n}",
            "ip saddr . tcp dport vmap { 198.51.100.1 . 1-5 : accept, 198.51.100.2 . 6 : jump other }",
            "tcp dport { 80, 443 } accept",
        ];
        let script = |order: &[usize], aside: &str| {
            let rules: String = order.iter().map(|index| format!("{}\n", rules[*index])).collect();
            format!(
                "table ip t {{\nchain other {{\n{aside}\n}}\nchain c {{\ntype filter hook input priority 0\n{rules}}}\n}}\n"
            )
        };
        let all = [
            script(&[0, 1, 2, 3, 4], ""),
            script(&[1, 0, 2, 3], "tcp sport { 1, 2 } drop"),
            script(&[4, 3, 2, 1, 0], ""),
            script(&[2], "tcp sport { 1, 2 } drop"),
            script(&[], "tcp sport { 1, 3 } drop"),
        ];
        for from in &all {
            for to in &all {
                let steps = becomes(&format!("{from} to {to}"), from, to);
                assert!(steps.iter().all(|step| !step.contains("table")), "{steps:?}");
            }
        }
    });
}
