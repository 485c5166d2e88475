//! One ruleset made another by what differs: [`diff`] gives the steps, and after them nothing differs.

use std::fmt::Write as _;

use ringfence::kernel::nftables::Socket;
use ringfence::nft::diff;

use crate::nft::{in_namespace, load};
use crate::{Script, able, flush, golden, rules};

/// One ruleset becomes another by what differs, and a second time there is nothing to do.
fn becomes(what: &str, from: &str, to: &str) {
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
    let left = diff(&after, &want);
    let shown: Vec<_> = left.operations().iter().map(ToString::to_string).collect();
    assert!(shown.is_empty(), "{what}: {shown:?}");
    socket.verify(&want).unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
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
