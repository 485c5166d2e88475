//! What nft(8) makes of the text, byte by byte.

use super::*;

/// Runs a shell line in a network namespace of its own. `$1` is a file with the text.
pub fn in_scratch(line: &str, text: &str) -> (bool, String, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let output = Command::new("unshare").args(["-n", "sh", "-c", line, "sh"]).arg(file.path()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// Whether the twin can be asked. Without it a test proves nothing, and says so.
pub fn twin_is_there(test: &str) -> bool {
    let found = Command::new("unshare").args(["-n", "nft", "list", "ruleset"]).output();
    let missing = match found {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    eprintln!("NOT TESTED: {test} needs nft(8) and the privilege to make a network namespace: {missing}");
    assert!(std::env::var("RINGFENCE_TEST_KERNEL").as_deref() != Ok("require"), "{test}: {missing}");
    false
}

/// Expressions as libnftnl prints them, after what `src/nft/syntax/rule.rs` says may differ.
pub fn bytecode(rule: &Rule) -> Vec<String> {
    let mut lines = Vec::new();
    let mut xor = Vec::new();
    for expr in &rule.exprs {
        let line = match expr {
            Expr::Payload { base, offset, len, dreg } => {
                let base = match base {
                    PayloadBase::LinkLayer => "link",
                    PayloadBase::Network => "network",
                    PayloadBase::Transport => "transport",
                    other => panic!("{other:?} has no name here"),
                };
                format!("payload load {len}b @ {base} header + {offset} => reg {}", dreg.to_wire())
            }
            Expr::Meta { key, dreg } => {
                format!("meta load {} => reg {}", format!("{key:?}").to_lowercase(), dreg.to_wire())
            }
            Expr::Ct { key, dreg, .. } => {
                format!("ct load {} => reg {}", format!("{key:?}").to_lowercase(), dreg.to_wire())
            }
            Expr::Cmp { op, sreg, data } => {
                let flipped: Vec<u8> =
                    data.as_bytes().iter().enumerate().map(|(at, byte)| byte ^ xor.get(at).unwrap_or(&0)).collect();
                xor.clear();
                format!("cmp {} reg {} {}", format!("{op:?}").to_lowercase(), sreg.to_wire(), words(&flipped))
            }
            Expr::Range { negated: false, sreg, from, to } => {
                lines.push(format!("cmp gte reg {} {}", sreg.to_wire(), words(from.as_bytes())));
                format!("cmp lte reg {} {}", sreg.to_wire(), words(to.as_bytes()))
            }
            Expr::Range { sreg, from, to, .. } => {
                format!("range neq reg {} {} {}", sreg.to_wire(), words(from.as_bytes()), words(to.as_bytes()))
            }
            Expr::Bitwise { sreg, dreg, op: BitwiseOp::MaskXor { mask, xor: bits }, .. } => {
                xor = bits.as_bytes().to_vec();
                let (dreg, sreg) = (dreg.to_wire(), sreg.to_wire());
                let zero = words(&vec![0; mask.len()]);
                format!("bitwise reg {dreg} = ( reg {sreg} & {} ) ^ {zero}", words(mask.as_bytes()))
            }
            Expr::Lookup { set, sreg, negated } => {
                format!("lookup reg {} set {set}{}", sreg.to_wire(), if *negated { " 0x1" } else { "" })
            }
            Expr::Verdict(Verdict::Jump(chain)) => format!("immediate reg 0 jump -> {chain}"),
            Expr::Verdict(Verdict::Goto(chain)) => format!("immediate reg 0 goto -> {chain}"),
            Expr::Verdict(verdict) => format!("immediate reg 0 {}", format!("{verdict:?}").to_lowercase()),
            Expr::Counter { packets, bytes } => format!("counter pkts {packets} bytes {bytes}"),
            Expr::Log(log) => {
                let prefix = log.prefix.as_ref().map(|prefix| format!("prefix {prefix} ")).unwrap_or_default();
                let (snaplen, threshold) = (log.snaplen.unwrap_or(0), log.queue_threshold.unwrap_or(0));
                format!("log {prefix}group {} snaplen {snaplen} qthreshold {threshold}", log.group)
            }
            Expr::Reject(Reject::Icmp(code)) => format!("reject type 0 code {code}"),
            Expr::Reject(Reject::TcpReset) => "reject type 1 code 0".to_owned(),
            Expr::Reject(Reject::Icmpx(code)) => format!("reject type 2 code {}", *code as u8),
            Expr::Masquerade(_) => "masq".to_owned(),
            Expr::MetaSet { key, sreg } => {
                format!("meta set {} with reg {}", format!("{key:?}").to_lowercase(), sreg.to_wire())
            }
            Expr::CtSet { key, sreg, .. } => {
                format!("ct set {} with reg {}", format!("{key:?}").to_lowercase(), sreg.to_wire())
            }
            Expr::Limit(Limit { rate, seconds, burst, over, .. }) => {
                let unit = match seconds {
                    1 => "second",
                    60 => "minute",
                    3_600 => "hour",
                    86_400 => "day",
                    _ => "week",
                };
                format!("limit rate {rate}/{unit} burst {burst} type packets flags 0x{}", u8::from(*over))
            }
            other => panic!("{other:?} has no bytecode here"),
        };
        lines.push(line);
    }
    lines
}

/// Register contents as libnftnl prints them: words of four bytes in the machine's order.
pub fn words(bytes: &[u8]) -> String {
    let mut line = String::new();
    for word in bytes.chunks(4) {
        let mut whole = [0; 4];
        whole[..word.len()].copy_from_slice(word);
        write!(line, " 0x{:08x}", u32::from_ne_bytes(whole)).unwrap();
    }
    line.trim_start().to_owned()
}

/// What nft(8) makes of a text: the expressions of each rule, and the elements, in the order of the text.
pub fn made_by_nft(text: &str) -> (Vec<Vec<String>>, Vec<String>) {
    let (_, out, err) = in_scratch("nft --debug=netlink -c -f \"$1\"", text);
    // Whether the kernel would take it depends on chain and hook, and is not asked here.
    let refused: Vec<_> =
        err.lines().filter(|line| line.contains("Error:") && !line.contains("Could not process rule")).collect();
    assert!(refused.is_empty(), "nft(8) refuses:\n{err}\n{text}");
    let (mut rules, mut elements): (Vec<Vec<String>>, Vec<String>) = Default::default();
    for line in out.lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        if let Some(expr) = line.strip_prefix("  [ ") {
            let expr = expr.trim_end().trim_end_matches(']').trim_end();
            // One byte has no order to turn around.
            if !(expr.starts_with("byteorder") && expr.ends_with("2, 1)")) {
                rules.last_mut().expect("a rule has a head").push(expr.to_owned());
            }
        } else if line.starts_with('\t') {
            elements.extend(
                line.split("element ").skip(1).map(|element| element.split(':').next().unwrap().trim().to_owned()),
            );
        } else if fields.len() == 3 && ["inet", "netdev", "ip", "ip6", "bridge"].contains(&fields[0]) {
            rules.push(Vec::new());
        }
    }
    (rules, elements)
}

/// Takes equality of bytes of the packet apart, byte by byte: nft(8) joins two such matches when they stand side by side.
pub fn byte_by_byte(lines: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    let mut lines = lines.iter().peekable();
    while let Some(line) = lines.next() {
        let place = line.strip_prefix("payload load ").and_then(|rest| rest.split_once("b @ "));
        let equal = lines.peek().and_then(|next| next.strip_prefix("cmp eq reg 1 "));
        if let (Some((len, place)), Some(data)) = (place, equal) {
            let (base, offset) = place.trim_end_matches(" => reg 1").split_once(" header + ").unwrap();
            let offset: usize = offset.parse().unwrap();
            let word = |word: &str| u32::from_str_radix(word.trim_start_matches("0x"), 16).unwrap().to_ne_bytes();
            let data: Vec<u8> = data.split(' ').flat_map(word).collect();
            out.extend((0..len.parse().unwrap()).map(|at: usize| format!("{base} {} == {}", offset + at, data[at])));
            lines.next();
        } else {
            out.push(line.clone());
        }
    }
    // Joined, they stand in the packet's order.
    out.chunk_by_mut(|a, b| a.contains(" == ") && b.contains(" == ")).for_each(<[String]>::sort);
    out
}

/// Moves bits that are turned over before a comparison to its other side, as [`bytecode`] does.
pub fn moved(lines: &[String]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for line in lines {
        let turned =
            out.last().and_then(|last| last.split_once(" ) ^ ")).map(|(head, bits)| (head.to_owned(), bits.to_owned()));
        match (turned, line.strip_prefix("cmp ").and_then(|rest| rest.split_once(" 0x"))) {
            (Some((head, bits)), Some((compared, data))) => {
                let word = |word: &str| u32::from_str_radix(word.trim_start_matches("0x"), 16).unwrap();
                let both = bits.split(' ').zip(data.split(' '));
                let data: Vec<String> =
                    both.clone().map(|(bits, data)| format!("0x{:08x}", word(bits) ^ word(data))).collect();
                let zero: Vec<&str> = both.map(|_| "0x00000000").collect();
                *out.last_mut().unwrap() = format!("{head} ) ^ {}", zero.join(" "));
                out.push(format!("cmp {compared} {}", data.join(" ")));
            }
            _ => out.push(line.clone()),
        }
    }
    out
}

pub fn assert_twin(ruleset: &Ruleset) {
    let syntax = ruleset.syntax();
    let (made, _) = made_by_nft(syntax.as_str());
    let mut ours = Vec::new();
    for chain in &ruleset.chains {
        ours.extend(
            ruleset.rules.iter().filter(|rule| rule.table == chain.table && rule.chain == chain.name).map(bytecode),
        );
    }
    for (ours, made) in ours.iter().zip(&made) {
        assert_eq!(byte_by_byte(&moved(made)), byte_by_byte(ours), "in\n{syntax}");
    }
    assert_eq!(made.len(), ours.len(), "{syntax}");
}

#[test]
fn nft_makes_the_same_expressions() {
    if !twin_is_there("nft_makes_the_same_expressions") {
        return;
    }
    for ruleset in [inside(), outside(), around(kinds().into_iter().map(|(rule, _)| rule).collect())] {
        assert_eq!(ruleset.syntax().unshown(), []);
        assert_twin(&ruleset);
    }
}

#[test]
fn nft_makes_the_same_elements() {
    if !twin_is_there("nft_makes_the_same_elements") {
        return;
    }
    for ruleset in [inside(), outside()] {
        let (_, mut made) = made_by_nft(&ruleset.to_string());
        let mut ours: Vec<_> = ruleset
            .elements
            .iter()
            .flat_map(|(_, _, elements)| elements)
            .map(|element| words(element.key.as_bytes()).replace("0x", ""))
            .collect();
        made.sort();
        ours.sort();
        assert_eq!(made, ours);
    }
}

#[test]
fn nft_loads_it_and_lists_the_same() {
    if !twin_is_there("nft_loads_it_and_lists_the_same") {
        return;
    }
    for (ruleset, lines) in [
        (
            inside(),
            &[
                "type filter hook output priority filter; policy drop;",
                "type filter hook egress device \"lo\" priority filter; policy drop;",
                "oif \"lo\" counter packets 0 bytes 0 accept comment \"loopback\"",
                "ip frag-off & 16383 != 0 counter packets 0 bytes 0 drop comment \"fragments\"",
                "ip daddr . meta l4proto . th dport @endpoints4 counter packets 0 bytes 0 accept comment \"direct endpoints\"",
                "arp saddr ip 10.200.0.2 counter packets 0 bytes 0 accept",
                "comment \"ringfence sandbox 1\"",
                "comment \"{ direct } \\ # $endpoints\"",
                "size 65536",
            ][..],
        ),
        (
            outside(),
            &[
                "type nat hook postrouting priority srcnat; policy accept;",
                "type filter hook prerouting priority -450; policy accept;",
                "type iface_index . ipv4_addr . inet_proto . inet_service",
                "elements = { 7 . 203.0.113.9 . tcp . 5432 }",
                "elements = { \"lo\", 7 }",
                "iif @hosts iif . ip saddr != @sources counter packets 0 bytes 0 drop comment \"spoofed\"",
                "meta nfproto ipv4 iif @hosts masquerade",
                "iif @hosts goto sandbox",
            ],
        ),
        (around(Vec::new()), &["elements = { 10.0.0.1-10.0.0.4, 198.51.100.0/24 }"]),
    ] {
        let text = ruleset.to_string();
        let (loaded, listed, err) = in_scratch("nft -f \"$1\" && nft list ruleset", &text);
        assert!(loaded, "{err}\n{text}");
        for line in lines {
            assert!(listed.lines().any(|found| found.trim() == *line), "lacks {line}:\n{listed}");
        }
        let (taken, _, err) = in_scratch("nft -c -f \"$1\"", &text);
        assert!(taken, "{err}");
    }
}

#[test]
fn nft_takes_what_hostile_names_leave() {
    if !twin_is_there("nft_takes_what_hostile_names_leave") {
        return;
    }
    let (loaded, listed, err) = in_scratch("nft -f \"$1\" && nft list ruleset", &hostile().to_string());
    assert!(loaded, "{err}");
    assert_eq!(listed.lines().filter(|line| line.starts_with("table ")).collect::<Vec<_>>(), ["table inet kinds {"]);
    assert!(!listed.contains("flush") && listed.matches("accept").count() == 2, "{listed}");
}

/// A table, and in another one a chain, a set and an object of each kind, with these names.
pub fn named(words: &[&str]) -> Ruleset {
    let id = table(Family::Ip, "t");
    let all = chain("all-of-them");
    let mut ruleset = Ruleset { tables: vec![plain_table(&id)], ..Ruleset::default() };
    ruleset.chains.push(Chain::new(&id, &all));
    let seconds = vec![(8, 12)];
    let states = [
        State::Counter { packets: 0, bytes: 0 },
        State::Quota(Quota { bytes: 1, used: 0, over: true }),
        State::Limit(Limit { rate: 1, seconds: 1, burst: 5, over: false, bytes: false }),
        State::Synproxy(Synproxy { mss: 1460, wscale: 7, flags: 15 }),
        State::CtHelper(CtHelper { helper: "ftp".to_owned(), l3proto: None, l4proto: 6 }),
        State::CtTimeout(CtTimeout { l3proto: 2, l4proto: 6, seconds }),
    ];
    for word in words {
        ruleset.tables.push(plain_table(&table(Family::Ip, word)));
        ruleset.chains.push(Chain::new(&id, &chain(word)));
        ruleset.sets.push(set(&id, word, &[Datatype::Ipv4Addr]));
        ruleset.rules.push(Rule::new(&id, &all).lookup(&[IP_SADDR], word, false).verdict(Verdict::Jump(chain(word))));
        for state in &states {
            let (kind, name) = (state.kind(), ObjectName::new(word).unwrap());
            ruleset.objects.push(StatefulObject::new(&id, &name, state.clone()));
            ruleset.rules.push(Rule::new(&id, &all).expr(Expr::ObjectRef { kind, name }));
        }
    }
    ruleset
}

#[test]
fn words_of_nft_are_names_where_it_takes_them() {
    if !twin_is_there("words_of_nft_are_names_where_it_takes_them") {
        return;
    }
    let words =
        std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/nft_syntax/keywords.txt"))
            .unwrap();
    let words: Vec<_> = words.lines().filter(|line| !line.starts_with('#')).collect();
    let shown = named(&words).syntax();
    // Words that are kept for one place are names in all others.
    for free in
        ["chain packets {", "set bytes {", "counter state {", "quota rate {", "limit used {", "ct helper week {"]
    {
        assert!(shown.as_str().lines().any(|line| line.trim() == free), "lacks {free}");
    }
    let (_, _, err) = in_scratch("nft -c -f \"$1\"", shown.as_str());
    // A kernel need not have every kind of object.
    let refused: Vec<_> =
        err.lines().filter(|line| line.contains("Error:") && !line.contains("Could not process rule")).collect();
    assert!(refused.is_empty(), "nft(8) refuses:\n{err}");
}

#[test]
fn whatever_is_shown_nft_makes_the_same_of() {
    if !twin_is_there("whatever_is_shown_nft_makes_the_same_of") {
        return;
    }
    let mut runner = TestRunner::deterministic();
    for family in [Family::Inet, Family::Ip, Family::Ip6, Family::Netdev, Family::Bridge] {
        let (mut shown, mut tried) = (Vec::new(), 0);
        while shown.len() < 200 && tried < 4_000 {
            tried += 1;
            let rule = likely_rule().new_tree(&mut runner).unwrap().current();
            let mut ruleset = around(vec![named_for(rule, family)]);
            move_to(&mut ruleset, family);
            if ruleset.syntax().unshown().is_empty() {
                shown.append(&mut ruleset.rules);
            }
        }
        assert!(shown.len() >= 100, "{family}: only {} of {tried} rules could be shown", shown.len());
        // In portions, so that a failure shows a text that a person can read.
        for rules in shown.chunks(25) {
            let mut ruleset = around(rules.to_vec());
            move_to(&mut ruleset, family);
            assert_twin(&ruleset);
        }
    }
}

/// Says in the words of another family which packets a rule that begins with `meta nfproto` is about.
pub fn named_for(mut rule: Rule, family: Family) -> Rule {
    let nfproto = Load::Meta(MetaKey::NfProto, 1).load(REG);
    if family == Family::Inet || rule.exprs.first() != Some(&nfproto) {
        return rule;
    }
    let ethertype =
        if rule.exprs[1] == (Expr::Cmp { op: CmpOp::Eq, sreg: REG, data: Data::byte(2) }) { 0x0800 } else { 0x86dd };
    let link = [
        Load::Meta(MetaKey::Protocol, 2).load(REG),
        Expr::Cmp { op: CmpOp::Eq, sreg: REG, data: Data::be16(ethertype) },
    ];
    let link = if matches!(family, Family::Netdev | Family::Bridge) { link.to_vec() } else { Vec::new() };
    rule.exprs.splice(..2, link);
    rule
}

pub fn move_to(ruleset: &mut Ruleset, family: Family) {
    let tables = ruleset.tables.iter_mut().map(|table| &mut table.id);
    let sets = ruleset.sets.iter_mut().map(|set| &mut set.table);
    let chains = ruleset.chains.iter_mut().map(|chain| &mut chain.table);
    let elements = ruleset.elements.iter_mut().map(|(table, _, _)| table);
    let rules = ruleset.rules.iter_mut().map(|rule| &mut rule.table);
    for id in tables.chain(sets).chain(chains).chain(elements).chain(rules) {
        id.family = family;
    }
}

// ── Properties ───────────────────────────────────────────────────────────────────────────────────────────────────────
