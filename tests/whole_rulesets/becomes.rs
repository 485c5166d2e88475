//! One ruleset made another by what differs: [`diff`] gives the steps, and after them nothing differs.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ringfence::kernel::nftables::Socket;
use ringfence::nft::statements::{Each, IP_SADDR, Inet, Netdev, Per, Port, TableOf};
use ringfence::nft::{
    ChainPolicy, ChainType, CtHelper, Data, Element, Expr, Hook, InterfaceName, Limit, LogFlags, LogLevel, ObjectName,
    Priority, Ruleset, Set, State, StatefulObject, Syslog, Transaction, diff,
};

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
fn a_table_falls_asleep_and_wakes() {
    if !able() {
        return;
    }
    in_namespace(&[], || {
        let base = |name: &str, policy: &str| {
            format!("chain {name} {{\ntype filter hook input priority 0; policy {policy}\ntcp dport 1 accept\n}}\n")
        };
        let chains =
            ["", &base("c", "accept"), &base("c", "drop"), &format!("{}{}", base("c", "drop"), base("d", "drop"))];
        let tables =
            ["", "flags dormant\n"].map(|flags| chains.map(|chains| format!("table inet t {{\n{flags}{chains}}}\n")));
        for from in tables.as_flattened() {
            for to in tables.as_flattened() {
                becomes(&format!("{from} to {to}"), from, to);
            }
        }
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

/// What the kernel makes of what was wanted, spelled otherwise, is what was wanted.
fn is_whole_once_made(socket: &mut Socket, what: &str, want: &Ruleset) {
    flush();
    socket.commit(&want.create()).unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
    let have = socket.ruleset().unwrap();
    let steps = diff(&have, want);
    assert!(steps.operations().is_empty(), "{what}: {steps:?}, of {have:?}");
    socket.verify(want).unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
}

#[test]
fn what_was_not_said_is_as_the_kernel_makes_it() {
    if !able() {
        return;
    }
    in_namespace(&["d0", "d1"], || {
        let mut socket = Socket::open().unwrap();
        let table = TableOf::<Inet>::new("t").unwrap();
        let chain = table.chain("c").unwrap();
        let base = Ruleset { tables: vec![table.declare()], chains: vec![chain.declare()], ..Ruleset::default() };
        let localhost = [Ipv4Addr::LOCALHOST];
        let counter = || vec![Expr::Counter { packets: 0, bytes: 0 }];

        for (used, said) in [(true, true), (true, false), (false, true), (false, false)] {
            let set = table.set::<Ipv4Addr>("s").unwrap().timeout(Duration::from_millis(60_003));
            let set = if said { set.dynamic() } else { set };
            let mut want = base.clone();
            want.sets.push(set.declare());
            if used {
                want.push_rule(chain.rule().update(&set, IP_SADDR, Each::new()).drop().unwrap());
                if let Some(Expr::Dynset(dynset)) =
                    want.rules[0].exprs.iter_mut().find(|expr| matches!(expr, Expr::Dynset(_)))
                {
                    dynset.timeout = Some(Duration::from_micros(5_001_200));
                }
            }
            is_whole_once_made(&mut socket, "a dynamic set without a size", &want);
        }

        let set = table.set::<Ipv4Addr>("s").unwrap().timeouts();
        let mut want = base.clone();
        want.sets.push(Set { exprs: counter(), ..set.declare() });
        want.push_elements(set.elements(localhost).unwrap());
        let all = Element { catch_all: true, ..Element::new(Data::default()) };
        let timeout = Some(Duration::from_millis(3_600_003));
        let timed = Element { timeout, ..set.element(&Ipv4Addr::UNSPECIFIED).unwrap() };
        want.push_elements(set.holding(vec![all, timed]));
        is_whole_once_made(&mut socket, "elements get what the set has", &want);

        let set = table.set::<Port>("s").unwrap().interval();
        let mut want = base.clone();
        want.sets.push(Set { exprs: counter(), ..set.declare() });
        for span in [1..=5_u16, 10..=15, 16..=20] {
            want.push_elements(set.spans([span]).unwrap());
        }
        is_whole_once_made(&mut socket, "each brings its own end at 0", &want);

        let mut want = base.clone();
        let log = |level| Syslog { prefix: None, level, flags: LogFlags(0) };
        want.push_rule(chain.rule().log(log(None)).done().unwrap());
        want.push_rule(chain.rule().log(log(Some(LogLevel::Info))).done().unwrap());
        let object = |name, state| StatefulObject::new(table.id(), &ObjectName::new(name).unwrap(), state);
        want.objects.push(object("packets", State::Limit(Limit::packets(5, Per::Second).burst(0))));
        want.objects.push(object("bytes", State::Limit(Limit::bytes(5, Per::Second).burst(0))));
        is_whole_once_made(&mut socket, "levels and bursts", &want);

        // Whether the kernel has it depends on its configuration.
        let helper = CtHelper { helper: "ftp".to_owned(), l3proto: None, l4proto: 6 };
        want.objects = vec![object("helper", State::CtHelper(helper))];
        if socket.commit(&want.clone().replace()).is_ok() {
            is_whole_once_made(&mut socket, "the family of a helper", &want);
        } else {
            eprintln!("SKIPPED: this kernel has no conntrack helper for FTP");
        }

        let netdev = TableOf::<Netdev>::new("t").unwrap();
        let chain = netdev.chain("c").unwrap();
        let mut chain = chain.declare_base(ChainType::Filter, Hook::Ingress, Priority::FILTER, ChainPolicy::Accept);
        for order in [["d0", "d1"], ["d1", "d0"]] {
            chain.base.as_mut().unwrap().devices = order.map(|name| InterfaceName::new(name).unwrap()).to_vec();
            let want = Ruleset { tables: vec![netdev.declare()], chains: vec![chain.clone()], ..Ruleset::default() };
            is_whole_once_made(&mut socket, "devices in any order", &want);
        }
    });
}

#[test]
fn ranges_come_and_go_one_by_one() {
    if !able() {
        return;
    }
    in_namespace(&[], || {
        let set = |elements: &str| {
            let head = "table inet t {\nset s {\ntype ipv4_addr\nflags interval, timeout\ncounter\n";
            format!("{head}elements = {{ {elements} }}\n}}\n}}\n")
        };
        let kept = "198.51.100.0/24 counter packets 7 bytes 700 timeout 1h expires 20m";
        let from = set(&format!("{kept}, 203.0.113.0/25 timeout 1h, 203.0.113.128/25 timeout 1h, *"));
        // One that touches another goes, one is another now, one comes.
        let to = set(&format!("{kept}, 203.0.113.0/25 timeout 2h, 192.0.2.7 timeout 1h, *"));
        let steps = becomes("ranges", &from, &to);
        assert_eq!(steps, ["delete 4 elements of set inet t s", "add 4 elements of set inet t s"]);
        let mut socket = Socket::open().unwrap();
        let there = socket.ruleset().unwrap().elements.remove(0).2;
        let key = Data::ipv4(Ipv4Addr::new(198, 51, 100, 0));
        let element = there.iter().find(|element| element.key == key && !element.interval_end).unwrap();
        assert!(element.expires.unwrap() <= Duration::from_secs(1200), "{element:?}");
        assert_eq!(element.exprs, [Expr::Counter { packets: 7, bytes: 700 }]);

        let shapes = [
            (
                "set s {\ntype ipv4_addr . inet_service\nflags interval\n",
                vec![
                    "198.51.100.0/24 . 1-5, 198.51.100.0/24 . 6-9",
                    "198.51.100.0/24 . 1-9",
                    "198.51.100.0/24 . 6-9, 203.0.113.0-203.0.113.5 . 7",
                ],
            ),
            (
                "map s {\ntype inet_service : mark\nflags interval\n",
                vec![
                    "1-5 : 1, 6-15 : 2, 100 : 3, * : 4",
                    "1-5 : 2, 6-15 : 1, * : 5",
                    "0-5 : 1, 6-65535 : 2",
                    "16-65535 : 2",
                ],
            ),
            (
                "map s {\ntype ipv4_addr : verdict\nflags timeout\n",
                vec![
                    "198.51.100.1 timeout 1h : accept, 198.51.100.2 : drop, * : drop",
                    "198.51.100.1 timeout 1h : drop, 198.51.100.3 : drop",
                ],
            ),
        ];
        for (head, all) in shapes {
            let script = |elements: &str| format!("table inet t {{\n{head}elements = {{ {elements} }}\n}}\n}}\n");
            for (from, to) in all.iter().flat_map(|from| all.iter().map(move |to| (from, to))) {
                let steps = becomes(&format!("{from} to {to}"), &script(from), &script(to));
                assert!(!steps.iter().any(|step| step.starts_with("flush")), "{steps:?}");
            }
        }
    });
}

#[test]
fn an_element_that_was_lost_comes_back_with_the_time_that_it_had_left() {
    if !able() {
        return;
    }
    in_namespace(&[], || {
        let kinds = ["type ipv4_addr\nflags timeout\n", "type ipv4_addr\nflags interval, timeout\n"];
        for kind in kinds {
            let head = format!("table inet t {{\nset s {{\n{kind}counter\n");
            let element = "198.51.100.1 counter packets 3 bytes 3 timeout 1h expires 10m";
            becomes("lost", &format!("{head}}}\n}}\n"), &format!("{head}elements = {{ {element} }}\n}}\n}}\n"));
            let mut socket = Socket::open().unwrap();
            let there = socket.ruleset().unwrap().elements.remove(0).2;
            let element = there.iter().find(|element| !element.interval_end).unwrap();
            assert!(element.expires.unwrap() <= Duration::from_secs(600), "{element:?}");
            assert_eq!(element.exprs, [Expr::Counter { packets: 3, bytes: 3 }]);
        }
    });
}

#[test]
fn a_range_that_ran_out_is_put_in_again() {
    if !able() {
        return;
    }
    in_namespace(&[], || {
        let set = |first: &str| {
            let head = "table inet t {\nset s {\ntype inet_service\nflags interval, timeout\n";
            format!("{head}elements = {{ 1-5 timeout {first}, 6-9 timeout 1h, 20-29 timeout {first} }}\n}}\n}}\n")
        };
        let mut socket = Socket::open().unwrap();
        let mut loaded = |script: &str| {
            flush();
            load(script).unwrap();
            socket.ruleset().unwrap()
        };
        let want = loaded(&set("1h"));
        let mut have = loaded(&set("500ms"));
        let started = Instant::now();
        while have.elements.iter().any(|(_, _, elements)| elements.len() > 3) {
            assert!(started.elapsed() < Duration::from_secs(120), "{have:?}");
            sleep(Duration::from_millis(50));
            have = socket.ruleset().unwrap();
        }
        socket.commit(&diff(&have, &want)).unwrap_or_else(|error| panic!("{}", error.chain()));
        assert!(diff(&socket.ruleset().unwrap(), &want).operations().is_empty());
        socket.verify(&want).unwrap();
    });
}
