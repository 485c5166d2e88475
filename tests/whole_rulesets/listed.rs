//! What nft(8) makes of the text of `ringfence rules list`, chain by chain: a rule without nft(8) syntax takes nothing from the others.

use std::collections::{BTreeMap, BTreeSet};

use crate::netlink::{Attr, Body, Message, NEW_CHAIN, NEW_ELEMENTS, NEW_RULE, NEW_SET, NEW_TABLE, show};
use crate::nft::load;
use crate::shot::{difference, dump};
use crate::{flush, program};

/// How the rules of a namespace came back from text.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    pub rules: usize,
    /// Rules of chains that came back as they were, byte for byte.
    pub same: usize,
    /// What has no nft(8) syntax, and why, as `list` says.
    pub unshown: Vec<String>,
    /// What came back as something else: it may not.
    pub changed: Vec<String>,
}

/// Lists, takes everything away, loads what was listed and compares. In the namespace of the calling thread.
pub fn try_list(most: usize) -> Listed {
    let dumped = dump();
    let (before, lifetimes) = (by_place(&dumped), lifetimes(&dumped));
    let rules = before.values().map(|lines| lines.iter().filter(|line| line.as_str() == RULE).count()).sum();
    let mut listed = Listed { rules, ..Listed::default() };
    let output = std::process::Command::new(program()).args(["rules", "list"]).output().expect("ringfence runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let unshown = |line: &&str| line.trim_start().starts_with("# ") && !line.trim_start().starts_with("# [");
    listed.unshown = text.lines().filter(unshown).map(|line| line.trim_start()[2..].to_owned()).collect();
    if output.status.success() != listed.unshown.is_empty() {
        listed.changed.push(format!("status {}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    flush();
    if let Err(why) = load(&text) {
        listed.changed.push(format!("nft -f refuses it: {}", why.chars().take(500).collect::<String>()));
        return listed;
    }
    let dumped = dump();
    let after = by_place(&dumped);
    // Time has passed.
    for (element, left) in self::lifetimes(&dumped) {
        let had = lifetimes.get(&element);
        if had.is_some_and(|had| left > *had) {
            listed.changed.push(format!("{element} has {left} ms left, and had {had:?}"));
        }
    }
    // It may hold fewer rules than there were, if it says so.
    let spared = |place: &str| listed.unshown.iter().any(|what| what.contains(place));
    let places: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let (mut same, mut changed) = (0, Vec::new());
    let none = Vec::new();
    for place in places {
        let (had, got) = (before.get(place).unwrap_or(&none), after.get(place).unwrap_or(&none));
        if had == got {
            same += had.iter().filter(|line| line.as_str() == RULE).count();
        } else if !spared(place) {
            changed.push(format!("{place}\n{}", difference(had, got, most).unwrap_or_default()));
        }
    }
    listed.same = same;
    listed.changed.extend(changed);
    listed
}

/// How many milliseconds elements have left.
fn lifetimes(messages: &[Message]) -> BTreeMap<String, u64> {
    let mut lifetimes = BTreeMap::new();
    for message in messages.iter().filter(|message| message.kind == NEW_ELEMENTS) {
        let (named, elements) = message.attrs.split_at(message.attrs.iter().take_while(|attr| attr.kind != 3).count());
        let mut set = vec![message.family.to_string()];
        show(named, "", &mut set);
        for element in elements.iter().flat_map(Attr::nested) {
            let (time, rest): (Vec<Attr>, Vec<Attr>) =
                element.nested().iter().cloned().partition(|attr| attr.kind == 5);
            let mut lines = set.clone();
            show(&rest, "", &mut lines);
            if let Some(left) = time.first().and_then(|left| left.as_bytes().try_into().ok()) {
                lifetimes.insert(lines.join(" "), u64::from_be_bytes(left));
            }
        }
    }
    lifetimes
}

/// Stands in front of every rule.
const RULE: &str = "rule";

/// The lines of everything, by the place where it is: `chain inet t c`, `set inet t s`. What belongs to one rule stands in its chain.
///
/// Three things that nft(8) itself makes other bytes of when it reads its own listing count as the same: how long a comparison with the
/// name of an interface is, and a load of one that nothing compares, see [`whole_names`]; and how many packets a base chain's policy has
/// judged, which no listing says.
fn by_place(messages: &[Message]) -> BTreeMap<String, Vec<String>> {
    let messages: &[Message] = &messages.iter().cloned().map(whole_names).collect::<Vec<_>>();
    let own = |name: &[u8]| {
        name.starts_with(b"__set")
            || name.starts_with(b"__map")
            || name.starts_with(b"__chain")
            || name.starts_with(b"__objmap")
    };
    let find = |message: &Message, kind: u16| {
        message.attrs.iter().find(|attr| attr.kind == kind).map(|attr| attr.as_bytes().to_vec()).unwrap_or_default()
    };
    let printed = |name: &[u8]| String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name)).into_owned();
    let lines_of = |message: &Message, without: &[u16]| {
        let mut attrs: Vec<Attr> = message.attrs.iter().filter(|attr| !without.contains(&attr.kind)).cloned().collect();
        if message.kind == NEW_ELEMENTS {
            crate::shot::elements_in_order(&mut attrs);
        }
        let mut lines = Vec::new();
        show(&attrs, "", &mut lines);
        lines
    };
    // First what belongs to rules, by its name.
    let mut inner: BTreeMap<(u8, Vec<u8>, Vec<u8>), Vec<String>> = BTreeMap::new();
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let joined = crate::shot::with_elements_of_a_set_in_one(messages);
    for message in joined.iter().filter(|message| matches!(message.kind, NEW_SET | NEW_ELEMENTS)) {
        let (table, name) = (find(message, 1), find(message, 2));
        let lines = lines_of(message, &[1, 2, 16, 10]);
        if own(&name) {
            inner.entry((message.family, table, name)).or_default().extend(lines);
        } else {
            let place = format!("set {} {} {}", family(message.family), printed(&table), printed(&name));
            places.entry(place).or_default().extend(lines);
        }
    }
    let mut rules = |message: &Message, chain: &[u8], places: &mut BTreeMap<String, Vec<String>>| {
        let table = find(message, 1);
        let mut lines = vec![RULE.to_owned()];
        for line in lines_of(message, &[1, 2, 3, 6]) {
            let name = line.split(" = ").last().and_then(|name| serde_json::from_str::<String>(name).ok());
            let key = name.map(|name| (message.family, table.clone(), format!("{name}\0").into_bytes()));
            match key.and_then(|key| inner.get(&key)) {
                // User data of such a set is what nft(8) notes for its listings: how the rule's field was named.
                Some(within) => {
                    let told = within.iter().filter(|line| !line.starts_with(".13 "));
                    lines.extend(told.map(|line| format!("  {line}")));
                }
                None => lines.push(line),
            }
        }
        if own(chain) {
            inner.entry((message.family, table, chain.to_vec())).or_default().extend(lines);
        } else {
            let place = format!("chain {} {} {}", family(message.family), printed(&table), printed(chain));
            places.entry(place).or_default().extend(lines);
        }
    };
    // A rule's own chain was made before the rule.
    for own_chain in [true, false] {
        for message in messages.iter().filter(|message| message.kind == NEW_RULE) {
            let chain = find(message, 2);
            if own(&chain) == own_chain {
                rules(message, &chain, &mut places);
            }
        }
    }
    for message in messages.iter().filter(|message| !matches!(message.kind, NEW_SET | NEW_ELEMENTS | NEW_RULE)) {
        let (table, name) =
            (find(message, 1), if message.kind == NEW_CHAIN { find(message, 3) } else { find(message, 2) });
        let (place, lines) = match message.kind {
            NEW_TABLE => (format!("table {} {}", family(message.family), printed(&table)), lines_of(message, &[3, 4])),
            NEW_CHAIN if own(&name) => continue,
            NEW_CHAIN => {
                let place = format!("chain {} {} {}", family(message.family), printed(&table), printed(&name));
                (place, lines_of(message, &[2, 6, 8]))
            }
            _ => {
                let place = format!(
                    "{} {} of table {} {}",
                    message.kind,
                    printed(&name),
                    family(message.family),
                    printed(&table)
                );
                (place, lines_of(message, &[5, 6]))
            }
        };
        let rest = places.entry(place).or_default();
        rest.splice(0..0, lines);
    }
    places
}

/// A rule in which names of interfaces that are compared with a NUL behind them have all their 16 bytes, as nft(8) writes them: the kernel
/// loads names with zeros behind them, so that no packet can tell. Nor can it of a name that is loaded and not compared, which is left out.
fn whole_names(mut rule: Message) -> Message {
    let NEW_RULE = rule.kind else { return rule };
    let Some(exprs) = rule.attrs.iter_mut().find(|attr| attr.kind == 4).and_then(Attr::nested_mut) else { return rule };
    // Of the incoming, of the outgoing interface, of the bridge of either.
    let loads = |expr: &Attr| {
        let key = part(expr, 2).filter(|_| name(expr) == b"meta\0")?;
        [6_u32, 7, 17, 18].into_iter().find(|name| name.to_be_bytes() == key)
    };
    let mut at = 0;
    while let [load, next, ..] = &mut exprs[at..] {
        let Some(key) = loads(load) else {
            at += 1;
            continue;
        };
        let overwritten = matches!(name(next), b"meta\0" | b"payload\0") && part(load, 1) == part(next, 1);
        if key <= 7 && (overwritten || name(next) == b"counter\0") {
            exprs.remove(at);
            continue;
        }
        if name(next) == b"cmp\0"
            && let Some(compared) = compared(next)
            && compared.len() < 16
            && compared.last() == Some(&0)
        {
            compared.resize(16, 0);
        }
        at += 1;
    }
    rule
}

/// The name of an expression, with the NUL behind it.
fn name(expr: &Attr) -> &[u8] {
    expr.nested().iter().find(|attr| attr.kind == 1).map(Attr::as_bytes).unwrap_or_default()
}

/// An attribute of an expression's own.
fn part(expr: &Attr, kind: u16) -> Option<&[u8]> {
    let data = expr.nested().iter().find(|attr| attr.kind == 2)?;
    data.nested().iter().find(|attr| attr.kind == kind).map(Attr::as_bytes)
}

/// What a comparison compares with.
fn compared(expr: &mut Attr) -> Option<&mut Vec<u8>> {
    let mut attr = expr;
    for kind in [2, 3, 1] {
        attr = attr.nested_mut()?.iter_mut().find(|attr| attr.kind == kind)?;
    }
    match &mut attr.body {
        Body::Bytes(bytes) => Some(bytes),
        Body::Nest(_) => None,
    }
}

fn family(number: u8) -> &'static str {
    match number {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "?",
    }
}
