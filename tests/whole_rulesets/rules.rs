//! `tests/golden/rulesets/rules.txt`: some two thousand rules, each of which stands in a chain of its own, and once more many to a chain in an
//! order that is drawn.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::Script;

/// Rules with the head of the chain that they stand in.
pub struct Group {
    pub family: String,
    pub beside: String,
    pub chain: String,
    pub rules: Vec<String>,
}

pub fn groups() -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for line in fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/rulesets/rules.txt"))
        .unwrap()
        .lines()
    {
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
    let mut script = format!("# links: d0 d1\ntable {} t {{\n{}", group.family, beside(&group.family, &group.beside));
    script.push_str("chain other { }\n");
    for (index, rule) in rules.iter().enumerate() {
        writeln!(script, "chain c{index} {{\n{}\n{rule}\n}}", group.chain).unwrap();
    }
    script + "}\n"
}

/// Scripts with every rule in a chain of its own.
pub fn apart() -> Vec<Script> {
    let mut scripts = Vec::new();
    for (at, group) in groups().iter().enumerate() {
        // The kernel takes 1024 base chains at one hook, and nft(8) is slow with many.
        for (part, rules) in group.rules.chunks(100).enumerate() {
            let name = format!("rules-{at}-{}-{part}", group.family);
            scripts.push(Script { name, text: script(group, rules) });
        }
    }
    scripts
}

/// A script with thousands of rules, many to a chain, in an order that is drawn; the same on every machine.
pub fn drawn() -> Script {
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
    Script { name: "rules-drawn".to_owned(), text: format!("# links: d0 d1\n{script}") }
}
