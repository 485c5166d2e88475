//! Rulesets made up of fragments, the same for the same seed.
//!
//! What is made is valid by construction: a rule has at most one network protocol and one transport in it, sets have the type of what
//! looks them up, chains are jumped to only by those before them, and a hook has only what the kernel lets do there.

use std::fmt::Write as _;

/// Numbers, the same for the same seed: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn within(&mut self, start: u64, end: u64) -> u64 {
        start + self.below(end - start + 1)
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn ipv4(&mut self) -> String {
        let net = self.pick(&["198.51.100", "203.0.113", "10.200.0", "10.200.7"]);
        format!("{net}.{}", self.below(256))
    }

    fn ipv4_net(&mut self) -> String {
        let net = self.pick(&["198.51.100.0", "203.0.113.0", "10.200.0.0", "10.200.64.0"]);
        format!("{net}/{}", self.within(18, 24).max(if net.starts_with("10") { 18 } else { 24 }))
    }

    fn ipv4_range(&mut self) -> String {
        let (net, start) = (self.pick(&["198.51.100", "203.0.113"]), self.below(100));
        format!("{net}.{start}-{net}.{}", start + 1 + self.below(100))
    }

    fn ipv6(&mut self) -> String {
        format!("2001:db8:{:x}::{:x}", self.below(0x1_0000), self.within(1, 0xffff))
    }

    fn ipv6_net(&mut self) -> String {
        format!("2001:db8:{:x}::/{}", self.within(1, 0xffff), self.within(48, 64))
    }

    fn port(&mut self) -> u64 {
        self.within(1, 65_535)
    }

    fn ports(&mut self) -> String {
        let start = self.within(1, 60_000);
        format!("{start}-{}", start + 1 + self.below(5_000))
    }

    fn mac(&mut self) -> String {
        format!("02:00:{:02x}:{:02x}:{:02x}:{:02x}", self.below(256), self.below(256), self.below(256), self.below(256))
    }

    fn mark(&mut self) -> String {
        format!("{:#x}", self.within(1, 0xffff_ffff))
    }

    /// Different values, in braces.
    fn several(&mut self, most: u64, mut one: impl FnMut(&mut Self, u64) -> String) -> String {
        let count = self.within(2, most);
        let mut values: Vec<String> = (0..count).map(|at| one(self, at)).collect();
        values.sort();
        values.dedup();
        format!("{{ {} }}", values.join(", "))
    }
}

/// A set that rules of its table look up.
struct Named {
    name: String,
    /// What is looked up in it: `ip saddr`, with the family it needs.
    key: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Set,
    Dynamic,
    Marks,
    Verdicts,
}

/// A kind of table.
struct Family {
    name: &'static str,
    ipv4: bool,
    ipv6: bool,
    /// Hooks, and what comes after the hook's name.
    hooks: &'static [&'static str],
    conntrack: bool,
    reject: bool,
}

const FAMILIES: [Family; 6] = [
    Family {
        name: "ip",
        ipv4: true,
        ipv6: false,
        hooks: &["prerouting", "input", "forward", "output", "postrouting"],
        conntrack: true,
        reject: true,
    },
    Family {
        name: "ip6",
        ipv4: false,
        ipv6: true,
        hooks: &["prerouting", "input", "forward", "output", "postrouting"],
        conntrack: true,
        reject: true,
    },
    Family {
        name: "inet",
        ipv4: true,
        ipv6: true,
        hooks: &["prerouting", "input", "forward", "output", "postrouting"],
        conntrack: true,
        reject: true,
    },
    Family { name: "arp", ipv4: false, ipv6: false, hooks: &["input", "output"], conntrack: false, reject: false },
    Family {
        name: "bridge",
        ipv4: true,
        ipv6: true,
        hooks: &["prerouting", "input", "forward", "output", "postrouting"],
        conntrack: false,
        reject: false,
    },
    Family {
        name: "netdev",
        ipv4: true,
        ipv6: true,
        hooks: &["ingress device \"veth0\"", "ingress devices = { veth0, veth1 }", "egress device veth1"],
        conntrack: false,
        reject: false,
    },
];

/// A ruleset of 1 to 300 rules or so.
pub fn script(seed: u64) -> String {
    let mut random = Random(seed.wrapping_mul(0x5851_f42d_4c95_7f2d));
    let mut text = String::from("# links: veth0 veth1\n");
    // Many small ones and a few large ones.
    let rules = match random.below(4) {
        0 => random.within(1, 5),
        1 => random.within(5, 30),
        2 => random.within(30, 100),
        _ => random.within(100, 300),
    };
    let tables = random.within(1, 4);
    for at in 0..tables {
        // Most of all rulesets are of these three.
        let family = if random.one_in(3) { random.below(6) } else { random.below(3) };
        table(&mut random, &FAMILIES[family as usize], &format!("t{at}"), rules.div_ceil(tables), &mut text);
    }
    text
}

fn table(random: &mut Random, family: &Family, name: &str, rules: u64, text: &mut String) {
    let _ = writeln!(text, "table {} {name} {{", family.name);
    if random.one_in(4) {
        let _ = writeln!(text, "\tcomment \"table {name} of {}\"", family.name);
    }
    if random.one_in(12) {
        let _ = writeln!(text, "\tflags dormant");
    }
    let objects = objects(random, family, text);
    let chains = random.within(1, 6);
    let sets = sets(random, family, text);
    for at in 0..chains {
        let _ = writeln!(text, "\tchain c{at} {{");
        if random.one_in(3) {
            let _ = writeln!(text, "\t\tcomment \"chain {at}\"");
        }
        // The last chains are jumped to, the first ones are where packets come in.
        let hook = if at * 2 < chains { Some(random.pick(family.hooks)) } else { None };
        if let Some(hook) = hook {
            let priority = random.pick(&["0", "filter", "filter + 7", "-10", "150", "-301"]);
            let policy = random.pick(&["", " policy accept;", " policy drop;"]);
            let _ = writeln!(text, "\t\ttype filter hook {hook} priority {priority};{policy}");
        }
        for _ in 0..rules.div_ceil(chains) {
            // To a chain with a hook nothing jumps.
            let first = (at + 1).max(chains.div_ceil(2));
            let later = if first < chains { Some(random.within(first, chains - 1)) } else { None };
            let rule = rule(random, family, &sets, &objects, hook, later);
            let _ = writeln!(text, "\t\t{rule}");
        }
        let _ = writeln!(text, "\t}}");
    }
    if family.conntrack && random.one_in(3) {
        nat(random, family, text);
    }
    let _ = writeln!(text, "}}");
}

fn nat(random: &mut Random, family: &Family, text: &mut String) {
    let _ = writeln!(text, "\tchain dnat1 {{\n\t\ttype nat hook prerouting priority dstnat;");
    for _ in 0..random.within(1, 6) {
        let (port, to) = (random.port(), random.port());
        let flags = random.pick(&["", " random", " persistent"]);
        let rule = match random.below(4) {
            0 if family.ipv4 => format!("tcp dport {port} dnat ip to {}:{to}{flags}", random.ipv4()),
            1 if family.ipv6 => format!("tcp dport {port} dnat ip6 to [{}]:{to}{flags}", random.ipv6()),
            2 if family.ipv4 => format!("dnat ip to ip daddr map {{ {} : {} }}", random.ipv4(), random.ipv4()),
            _ => format!("udp dport {port} redirect to :{to}{flags}"),
        };
        let _ = writeln!(text, "\t\t{rule}");
    }
    let _ = writeln!(text, "\t}}\n\tchain snat1 {{\n\t\ttype nat hook postrouting priority srcnat;");
    let flags = random.pick(&["", " random", " fully-random", " persistent"]);
    let _ = writeln!(text, "\t\toifname \"veth0\" masquerade{flags}");
    if family.ipv4 {
        let _ = writeln!(text, "\t\tip saddr {} snat to {}", random.ipv4_net(), random.ipv4());
    }
    let _ = writeln!(text, "\t}}");
}

fn objects(random: &mut Random, _family: &Family, text: &mut String) -> Vec<&'static str> {
    let mut made = Vec::new();
    for (uses, object) in [
        ("counter name \"n1\"", "counter n1 { packets 3 bytes 180 }"),
        ("counter name \"n2\"", "counter n2 { comment \"second\"; }"),
        ("quota name \"q1\"", "quota q1 { over 25 mbytes }"),
        ("limit name \"l1\"", "limit l1 { rate over 5/minute burst 20 packets }"),
        ("counter name meta mark map { 0x1 : \"n1\", 0x2 : \"n1\" }", ""),
    ] {
        if object.is_empty() {
            // Needs what it speaks of.
            if made.contains(&"counter name \"n1\"") && random.one_in(2) {
                made.push(uses);
            }
        } else if random.one_in(2) {
            let _ = writeln!(text, "\t{object}");
            made.push(uses);
        }
    }
    made
}

fn sets(random: &mut Random, family: &Family, text: &mut String) -> Vec<Named> {
    let mut made = Vec::new();
    for at in 0..random.below(7) {
        let name = format!("s{at}");
        let comment = if random.one_in(4) { format!(" comment \"set {at}\";") } else { String::new() };
        let (key, kind, body) = match random.below(12) {
            0 if family.ipv4 => (
                "ip saddr",
                Kind::Set,
                format!("type ipv4_addr; elements = {};", random.several(20, |random, _| random.ipv4())),
            ),
            1 if family.ipv4 => {
                let third = random.below(200);
                let elements = random.several(20, |random, at| match random.below(3) {
                    0 => format!("10.{third}.{}.0/24", at * 3),
                    1 => format!("10.{third}.{}.1-10.{third}.{}.{}", at * 3, at * 3, random.within(5, 99)),
                    _ => format!("10.{third}.{}.7", at * 3),
                });
                ("ip daddr", Kind::Set, format!("type ipv4_addr; flags interval; elements = {elements};"))
            }
            2 if family.ipv6 => (
                "ip6 saddr",
                Kind::Set,
                format!("type ipv6_addr; elements = {};", random.several(9, |random, _| random.ipv6())),
            ),
            3 if family.ipv6 => {
                let elements = random.several(9, |_, at| format!("2001:db8:{at:x}::/48"));
                ("ip6 daddr", Kind::Set, format!("type ipv6_addr; flags interval; elements = {elements};"))
            }
            4 if family.ipv4 => {
                let elements = random.several(12, |random, at| format!("198.51.100.{at} . {}", random.port()));
                ("ip saddr . tcp dport", Kind::Set, format!("type ipv4_addr . inet_service; elements = {elements};"))
            }
            5 if family.ipv4 => {
                let elements = random.several(12, |random, at| format!("10.200.{at}.0/24 . {}", random.ports()));
                (
                    "ip daddr . udp dport",
                    Kind::Set,
                    format!("type ipv4_addr . inet_service; flags interval; elements = {elements};"),
                )
            }
            6 if family.ipv4 => {
                ("ip saddr", Kind::Dynamic, "type ipv4_addr; flags dynamic, timeout; timeout 2h; size 4096;".to_owned())
            }
            7 if family.ipv4 => {
                let elements = random.several(9, |random, at| format!("198.51.100.{at} : {}", random.mark()));
                ("ip saddr", Kind::Marks, format!("type ipv4_addr : mark; elements = {elements};"))
            }
            8 if family.name != "arp" => {
                let elements = random.several(9, |random, at| {
                    format!(
                        "{}-{} : {}",
                        at * 100,
                        at * 100 + random.below(90),
                        random.pick(&["accept", "drop", "continue", "return"])
                    )
                });
                (
                    "tcp dport",
                    Kind::Verdicts,
                    format!("type inet_service : verdict; flags interval; elements = {elements};"),
                )
            }
            9 if family.ipv4 => {
                let elements =
                    random.several(9, |random, at| format!("203.0.113.{at} timeout {}h", random.within(1, 50)));
                ("ip daddr", Kind::Set, format!("type ipv4_addr; flags timeout; elements = {elements};"))
            }
            10 => {
                let elements =
                    random.several(9, |random, at| format!("{:#x} comment \"mark {}\"", at + 1, random.below(100)));
                ("meta mark", Kind::Set, format!("typeof meta mark; elements = {elements};"))
            }
            _ => (
                "iifname",
                Kind::Set,
                format!("type ifname; elements = {};", random.several(5, |_, at| format!("\"veth{at}\""))),
            ),
        };
        let what = if matches!(kind, Kind::Marks | Kind::Verdicts) { "map" } else { "set" };
        let _ = writeln!(text, "\t{what} {name} {{ {body}{comment} }}");
        made.push(Named { name, key, kind });
    }
    made
}

fn rule(
    random: &mut Random,
    family: &Family,
    sets: &[Named],
    objects: &[&str],
    hook: Option<&str>,
    later: Option<u64>,
) -> String {
    let mut parts: Vec<String> = Vec::new();
    let egress = hook.is_some_and(|hook| hook.contains("egress"));
    if random.one_in(3) {
        parts.push(meta(random));
    }
    // A lookup may bring a network and a transport protocol of its own, so it takes the place of both.
    match sets.get(random.below(8) as usize) {
        Some(Named { name, key, kind: Kind::Set }) => {
            parts.push(format!("{key} {}@{name}", random.pick(&["", "", "!= "])));
        }
        Some(Named { name, key, kind: Kind::Marks }) => parts.push(format!("meta mark set {key} map @{name}")),
        Some(Named { name, key, kind: Kind::Verdicts }) => {
            // Ends the rule.
            parts.push(format!("{key} vmap @{name}"));
            return parts.join(" ");
        }
        Some(Named { name, key, kind: Kind::Dynamic }) => {
            let more = random.pick(&[
                "",
                " timeout 30s",
                " limit rate 10/second",
                " counter",
                " timeout 1m limit rate over 5/minute burst 9 packets",
            ]);
            parts.push(format!("{} @{name} {{ {key}{more} }}", random.pick(&["add", "update"])));
        }
        None => {
            if let Some(network) = network(random, family) {
                parts.push(network);
            }
            if family.name != "arp" && !random.one_in(3) {
                parts.push(transport(random));
            }
        }
    }
    if family.conntrack && random.one_in(3) {
        parts.push(conntrack(random));
    }
    for _ in 0..random.below(3) {
        parts.push(statement(random, objects));
    }
    if random.one_in(6) && !egress {
        parts.push(format!("meta mark set {}", random.mark()));
    }
    let end = match random.below(9) {
        0 => "drop".to_owned(),
        1 => "return".to_owned(),
        2 => "continue".to_owned(),
        3 | 4 => later.map_or("accept".to_owned(), |later| format!("{} c{later}", random.pick(&["jump", "goto"]))),
        5 if family.reject && hook.is_some_and(|hook| matches!(hook, "input" | "forward" | "output")) => {
            reject(random, family, &parts)
        }
        6 if !parts.is_empty() => String::new(),
        _ => "accept".to_owned(),
    };
    if !end.is_empty() {
        parts.push(end);
    }
    if random.one_in(5) {
        parts.push(format!("comment \"rule {}\"", random.below(10_000)));
    }
    parts.join(" ")
}

fn reject(random: &mut Random, family: &Family, parts: &[String]) -> String {
    // With a protocol already matched only some kinds of reject go with it.
    if !parts.is_empty() {
        return "reject".to_owned();
    }
    match family.name {
        "ip" => random.pick(&["reject with icmp type host-unreachable", "reject with tcp reset"]).to_owned(),
        "ip6" => random.pick(&["reject with icmpv6 type no-route", "reject with tcp reset"]).to_owned(),
        _ => random
            .pick(&[
                "reject with icmpx type admin-prohibited",
                "reject with icmp type net-prohibited",
                "reject with tcp reset",
            ])
            .to_owned(),
    }
}

fn meta(random: &mut Random) -> String {
    match random.below(12) {
        0 => format!("iifname \"veth{}\"", random.below(4)),
        1 => format!("oifname != \"veth{}\"", random.below(4)),
        2 => format!("iifname \"{}*\"", random.pick(&["veth", "wg", "br-"])),
        3 => format!("meta mark {}", random.mark()),
        4 => format!("meta mark & {:#x} == {:#x}", 0xff00, random.below(256) << 8),
        5 => format!("meta length {}", random.ports()),
        6 => format!("meta mark {}", random.several(5, |random, _| random.mark())),
        7 => format!("meta pkttype {}", random.pick(&["host", "broadcast", "multicast"])),
        8 => format!("meta cpu {}", random.below(64)),
        9 => "iif lo".to_owned(),
        10 => format!("iifname {}", random.several(4, |_, at| format!("\"veth{at}\""))),
        _ => format!("meta mark != {}", random.mark()),
    }
}

fn network(random: &mut Random, family: &Family) -> Option<String> {
    if family.name == "arp" {
        return Some(match random.below(4) {
            0 => format!("arp operation {}", random.pick(&["request", "reply"])),
            1 => format!("arp saddr ip {}", random.ipv4()),
            2 => format!("arp daddr ether {}", random.mac()),
            _ => format!("arp saddr ip {}", random.several(5, |random, _| random.ipv4())),
        });
    }
    let side = random.pick(&["saddr", "daddr"]);
    match random.below(8) {
        0 if matches!(family.name, "bridge" | "netdev") => Some(format!("ether {side} {}", random.mac())),
        0 | 1 if family.ipv4 => Some(format!("ip {side} {}", random.ipv4())),
        2 if family.ipv4 => Some(format!("ip {side} {}{}", random.pick(&["", "!= "]), random.ipv4_net())),
        3 if family.ipv4 => Some(match random.below(5) {
            0 => format!("ip ttl {}", random.within(1, 255)),
            1 => format!("ip dscp {}", random.pick(&["cs1", "af21", "ef"])),
            2 => format!("ip {side} {}", random.ipv4_range()),
            3 => format!("ip length {}", random.ports()),
            _ => format!("ip {side} {}", random.several(9, |random, _| random.ipv4())),
        }),
        4 if family.ipv6 => Some(format!("ip6 {side} {}", random.ipv6())),
        5 if family.ipv6 => Some(format!("ip6 {side} {}{}", random.pick(&["", "!= "]), random.ipv6_net())),
        6 if family.ipv6 => Some(match random.below(4) {
            0 => format!("ip6 hoplimit {}", random.within(1, 255)),
            1 => format!("ip6 {side} {}", random.several(5, |random, _| random.ipv6())),
            2 => format!("exthdr {} {}", random.pick(&["frag", "hbh", "dst"]), random.pick(&["exists", "missing"])),
            _ => format!("ip6 flowlabel {}", random.below(1 << 20)),
        }),
        _ => None,
    }
}

fn transport(random: &mut Random) -> String {
    let side = random.pick(&["sport", "dport"]);
    match random.below(12) {
        0 | 1 => format!("tcp {side} {}", random.port()),
        2 => format!("tcp {side} {}", random.several(9, |random, _| random.port().to_string())),
        3 => format!("udp {side} {}{}", random.pick(&["", "!= "]), random.ports()),
        4 => format!("udp {side} {}", random.port()),
        5 => format!("tcp flags & (fin | syn | rst | ack) == {}", random.pick(&["syn", "ack", "fin | ack"])),
        6 => format!("sctp {side} {}", random.port()),
        7 => format!("meta l4proto {} th {side} {}", random.pick(&["{ tcp, udp }", "{ tcp, sctp }"]), random.port()),
        8 => format!("tcp option maxseg size {}", random.ports()),
        9 => format!("udp length {}", random.ports()),
        10 => format!("tcp {side} > {}", random.port()),
        _ => format!("meta l4proto {}", random.pick(&["tcp", "udp", "{ tcp, udp, sctp }", "!= esp"])),
    }
}

fn conntrack(random: &mut Random) -> String {
    match random.below(6) {
        0 => format!("ct state {}", random.pick(&["new", "established,related", "{ new, untracked }", "!= invalid"])),
        1 => format!("ct mark {}", random.mark()),
        2 => format!("ct direction {}", random.pick(&["original", "reply"])),
        3 => format!("ct status {}", random.pick(&["assured", "snat,dnat", "expected"])),
        4 => format!("ct mark set {}", random.mark()),
        _ => "ct mark set meta mark".to_owned(),
    }
}

fn statement(random: &mut Random, objects: &[&str]) -> String {
    match random.below(7) {
        0 => format!("counter packets {} bytes {}", random.below(100), random.below(100_000)),
        1 => format!(
            "limit rate {}{}/{}",
            random.pick(&["", "over "]),
            random.within(1, 999),
            random.pick(&["second", "minute", "hour"])
        ),
        2 => format!("log prefix \"p{} \" group {}", random.below(100), random.below(100)),
        3 => format!("log prefix \"p{}\" level {}", random.below(100), random.pick(&["info", "debug", "warn"])),
        4 => format!("quota over {} {}", random.within(1, 999), random.pick(&["kbytes", "mbytes"])),
        5 if !objects.is_empty() => random.pick(objects).to_owned(),
        _ => "counter".to_owned(),
    }
}

/// Rulesets too large to keep in files.
pub fn large() -> Vec<(String, String)> {
    let elements = |count: u32, one: &dyn Fn(u32) -> String| (0..count).map(one).collect::<Vec<_>>().join(", ");
    let ipv4 = |at: u32| format!("10.{}.{}.{}", at >> 16 & 0xff, at >> 8 & 0xff, at & 0xff);
    let set = |body: String| format!("table inet t {{\n\t{body}\n}}\n");
    let mut made = vec![
        (
            "10000 addresses",
            set(format!("set s {{ type ipv4_addr; elements = {{ {} }}; }}", elements(10_000, &|at| ipv4(at * 3)))),
        ),
        (
            "10000 ranges",
            set(format!(
                "set s {{ type ipv4_addr; flags interval; elements = {{ {} }}; }}",
                elements(10_000, &|at| { format!("{}-{}", ipv4(at * 8), ipv4(at * 8 + 5)) })
            )),
        ),
        (
            "10000 networks of IPv6",
            set(format!(
                "set s {{ type ipv6_addr; flags interval; elements = {{ {} }}; }}",
                elements(10_000, &|at| { format!("2001:db8:{at:x}::/48") })
            )),
        ),
        (
            "10000 marks by address",
            set(format!(
                "map m {{ type ipv4_addr : mark; elements = {{ {} }}; }}",
                elements(10_000, &|at| { format!("{} : {at:#x}", ipv4(at)) })
            )),
        ),
        (
            "5000 pairs",
            set(format!(
                "set s {{ type ipv4_addr . inet_service; elements = {{ {} }}; }}",
                elements(5_000, &|at| { format!("{} . {}", ipv4(at), at + 1) })
            )),
        ),
        (
            "2000 pairs of ranges",
            set(format!(
                "set s {{ type ipv4_addr . inet_service; flags interval; elements = {{ {} }}; }}",
                elements(2_000, &|at| { format!("{}/28 . {}-{}", ipv4(at * 16), at + 1, at + 9) })
            )),
        ),
        (
            "3000 elements with comments and counters",
            set(format!(
                "set s {{ type ipv4_addr; counter; elements = {{ {} }}; }}",
                elements(3_000, &|at| {
                    format!("{} counter packets {at} bytes {} comment \"element {at}\"", ipv4(at), at * 60)
                })
            )),
        ),
        (
            "an anonymous set of 3000",
            set(format!("chain c {{\n\t\tip saddr {{ {} }} accept\n\t}}", elements(3_000, &ipv4))),
        ),
        (
            "5000 rules",
            set(format!(
                "chain c {{\n{}\t}}",
                (0..5_000)
                    .map(|at| {
                        format!("\t\tip saddr {} tcp dport {} counter accept comment \"rule {at}\"\n", ipv4(at), at + 1)
                    })
                    .collect::<String>()
            )),
        ),
        (
            "1000 chains",
            set((0..1_000)
                .rev()
                .map(|at| match at {
                    999 => "\tchain c999 { accept; }\n".to_owned(),
                    // A jump further than 16 deep is refused.
                    at if at % 10 == 9 => format!("\tchain c{at} {{ drop; }}\n"),
                    at => format!("\tchain c{at} {{ tcp dport {at} jump c{}; }}\n", at + 1),
                })
                .collect::<String>()
                .trim_end()
                .to_owned()),
        ),
        (
            "300 sets",
            set((0..300)
                .map(|at| {
                    format!(
                        "\tset s{at} {{ type ipv4_addr; flags interval; elements = {{ {}/24 }}; }}\n",
                        ipv4(at << 8)
                    )
                })
                .collect::<String>()
                .trim_end()
                .to_owned()),
        ),
    ];
    made.push(("200 tables", (0..200).map(|at| {
        format!("table {} t{at} {{\n\tset s {{ type inet_service; elements = {{ {} }}; }}\n\tchain c {{ tcp dport @s accept; }}\n}}\n", ["ip", "ip6", "inet"][at as usize % 3], at + 1)
    }).collect()));
    made.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
}
