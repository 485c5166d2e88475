//! All that can be seen of a namespace's rules: as nft(8) lists them, as it lists them in JSON, and as the kernel dumps them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::netlink::{
    Attr, Body, Message, NEW_CHAIN, NEW_ELEMENTS, NEW_FLOWTABLE, NEW_OBJECT, NEW_RULE, NEW_SET, NEW_TABLE, Netfilter,
    show,
};
use crate::nft::nft;

/// What was seen. Handles and what is left of a time-out are not in it.
#[derive(Debug, Clone)]
pub struct Shot {
    pub text: Vec<String>,
    pub json: Vec<String>,
    pub raw: Vec<String>,
    pub rules: usize,
}

/// A dump of everything, in an order in which it can be made again.
pub fn dump() -> Vec<Message> {
    let netfilter = Netfilter::open();
    let mut all = netfilter.dump(NEW_TABLE, 0, &[]);
    all.extend(netfilter.dump(NEW_CHAIN, 0, &[]));
    let sets = netfilter.dump(NEW_SET, 0, &[]);
    let elements: Vec<Message> = sets
        .iter()
        .flat_map(|set| {
            let of_set = |kind| set.attrs.iter().find(|attr| attr.kind == kind).expect("a set has table and name");
            netfilter.dump(NEW_ELEMENTS, set.family, &[of_set(1).clone(), of_set(2).clone()])
        })
        .collect();
    all.extend(sets);
    all.extend(netfilter.dump(NEW_OBJECT, 0, &[]));
    all.extend(netfilter.dump(NEW_FLOWTABLE, 0, &[]));
    all.extend(elements);
    all.extend(netfilter.dump(NEW_RULE, 0, &[]));
    all
}

impl Shot {
    /// Takes one in the calling thread's namespace.
    pub fn take() -> Self {
        let messages = dump();
        let rules = messages.iter().filter(|message| message.kind == NEW_RULE).count();
        let text = nft(&["-s", "list", "ruleset"], None).expect("nft lists what it loaded");
        let json = nft(&["-j", "list", "ruleset"], None).expect("nft lists what it loaded");
        let text: Vec<String> = text.lines().map(str::to_owned).collect();
        // nft(8) 1.0.6 prints memory it has freed as the flags of a table, which may not even be JSON.
        let flagged = text.iter().any(|line| line == "\tflags dormant");
        let json = if flagged { Vec::new() } else { json_lines(&json) };
        Self { text, json, raw: raw_lines(&messages), rules }
    }
}

/// An object a line, order of keys as nft(8) has it.
fn json_lines(text: &str) -> Vec<String> {
    // A ruleset of which nft(8) makes no valid JSON is compared as it stands.
    let Ok(mut json) = serde_json::from_str::<Value>(text) else { return vec![text.to_owned()] };
    without_state(&mut json);
    let Some(objects) = json.get("nftables").and_then(Value::as_array) else { return vec![text.to_owned()] };
    objects.iter().map(Value::to_string).collect()
}

fn without_state(json: &mut Value) {
    match json {
        Value::Object(members) => {
            members.shift_remove("handle");
            members.shift_remove("expires");
            members.values_mut().for_each(without_state);
        }
        Value::Array(items) => items.iter_mut().for_each(without_state),
        _ => {}
    }
}

/// The dump, an attribute a line, without handles, with elements in order of their bytes and anonymous sets named by first use.
pub fn raw_lines(messages: &[Message]) -> Vec<String> {
    let anonymous = anonymous_names(messages);
    let messages = &with_elements_of_a_set_in_one(messages);
    let mut lines = Vec::new();
    let mut count: BTreeMap<(u8, u8), usize> = BTreeMap::new();
    // Anonymous sets stand in the order of their making, which is not that of their use.
    let mut shown: Vec<Vec<String>> = Vec::new();
    for message in messages {
        let identity: &[u16] = match message.kind {
            NEW_TABLE => &[4],
            NEW_CHAIN => &[2],
            NEW_RULE => &[3, 6],
            NEW_SET => &[16],
            NEW_OBJECT => &[6],
            NEW_FLOWTABLE => &[5],
            _ => &[],
        };
        let mut attrs: Vec<Attr> =
            message.attrs.iter().filter(|attr| !identity.contains(&attr.kind)).cloned().collect();
        if message.kind == NEW_ELEMENTS {
            elements_in_order(&mut attrs);
        }
        let what = match message.kind {
            NEW_TABLE => "table",
            NEW_CHAIN => "chain",
            NEW_RULE => "rule",
            NEW_SET => "set",
            NEW_ELEMENTS => "elements",
            NEW_OBJECT => "object",
            _ => "flowtable",
        };
        let table = attrs.iter().find(|attr| attr.kind == 1).map(|attr| attr.as_bytes().to_vec()).unwrap_or_default();
        let rename = |name: &[u8]| anonymous.get(&(message.family, table.clone(), name.to_vec())).cloned();
        let mut of_message = Vec::new();
        attrs.iter_mut().for_each(|attr| renamed(attr, &rename));
        let nth = count.entry((message.kind, message.family)).or_default();
        *nth += 1;
        let anonymous_set = (message.kind == NEW_SET || message.kind == NEW_ELEMENTS)
            && attrs.iter().any(|attr| attr.kind == 2 && attr.as_bytes().starts_with(b"anonymous "));
        let head = if anonymous_set {
            *nth -= 1;
            format!("{what} {}", message.family)
        } else if message.kind == NEW_RULE || message.kind == NEW_CHAIN {
            format!("{what} {} {nth}", message.family)
        } else {
            format!("{what} {}", message.family)
        };
        show(&attrs, &head, &mut of_message);
        if anonymous_set { shown.push(of_message) } else { lines.extend(of_message) }
    }
    // By name, which is by table and place of use.
    shown.sort();
    lines.extend(shown.into_iter().flatten());
    lines
}

/// A large set's elements come in several messages, divided where a datagram was full.
pub fn with_elements_of_a_set_in_one(messages: &[Message]) -> Vec<Message> {
    let mut joined: Vec<Message> = Vec::new();
    for message in messages {
        let list = |message: &Message| message.attrs.iter().position(|attr| attr.kind == 3);
        if let Some(last) = joined.last_mut()
            && (last.kind, message.kind) == (NEW_ELEMENTS, NEW_ELEMENTS)
            && last.family == message.family
            && last.attrs.iter().take(2).eq(message.attrs.iter().take(2))
            && let (Some(to), Some(from)) = (list(last), list(message))
            && let Some(elements) = last.attrs[to].nested_mut()
        {
            elements.extend_from_slice(message.attrs[from].nested());
        } else {
            joined.push(message.clone());
        }
    }
    joined
}

/// New names for anonymous sets and chains: the kernel's contain a number that depends on what else was there before.
fn anonymous_names(messages: &[Message]) -> BTreeMap<(u8, Vec<u8>, Vec<u8>), Vec<u8>> {
    let mut names = BTreeMap::new();
    for rule in messages.iter().filter(|message| message.kind == NEW_RULE) {
        let Some(table) = rule.attrs.iter().find(|attr| attr.kind == 1).map(|attr| attr.as_bytes().to_vec()) else {
            continue;
        };
        let mut uses = Vec::new();
        rule.attrs.iter().for_each(|attr| anonymous_uses(attr, &mut uses));
        for name in uses {
            let next = names.len();
            names
                .entry((rule.family, table.clone(), name))
                .or_insert_with(|| format!("anonymous {next:05}\0").into_bytes());
        }
    }
    names
}

fn is_anonymous(bytes: &[u8]) -> bool {
    let number = |prefix: &[u8]| {
        bytes
            .strip_prefix(prefix)
            .and_then(|rest| rest.strip_suffix(&[0]))
            .is_some_and(|rest| !rest.is_empty() && rest.iter().all(u8::is_ascii_digit))
    };
    number(b"__set") || number(b"__map") || number(b"__chain")
}

fn anonymous_uses(attr: &Attr, into: &mut Vec<Vec<u8>>) {
    match &attr.body {
        Body::Nest(attrs) => attrs.iter().for_each(|attr| anonymous_uses(attr, into)),
        Body::Bytes(bytes) if is_anonymous(bytes) => into.push(bytes.clone()),
        Body::Bytes(_) => {}
    }
}

fn renamed(attr: &mut Attr, rename: &impl Fn(&[u8]) -> Option<Vec<u8>>) {
    match &mut attr.body {
        Body::Nest(attrs) => attrs.iter_mut().for_each(|attr| renamed(attr, rename)),
        Body::Bytes(bytes) => {
            if let Some(name) = is_anonymous(bytes).then(|| rename(bytes)).flatten() {
                *bytes = name;
            }
        }
    }
}

/// Elements come in the order of a hash that is seeded anew for each set; what is left of their time passes.
pub fn elements_in_order(attrs: &mut [Attr]) {
    let Some(elements) = attrs.iter_mut().find(|attr| attr.kind == 3).and_then(Attr::nested_mut) else { return };
    for element in elements.iter_mut().filter_map(Attr::nested_mut) {
        for left in element.iter_mut().filter(|attr| attr.kind == 5) {
            left.body = Body::Bytes(b"some time\0".to_vec());
        }
    }
    elements.sort_by_cached_key(|element| {
        let mut lines = Vec::new();
        show(element.nested(), "", &mut lines);
        lines
    });
}

/// The first lines in which two differ, at most `most` of each; none if they are the same.
pub fn difference(had: &[String], got: &[String], most: usize) -> Option<String> {
    if had == got {
        return None;
    }
    let start = had.iter().zip(got).take_while(|(had, got)| had == got).count();
    let end = had[start..].iter().rev().zip(got[start..].iter().rev()).take_while(|(had, got)| had == got).count();
    let shown = |sign: char, lines: &[String]| -> String {
        let cut = |line: &String| if line.len() > 700 { line.chars().take(700).collect() } else { line.clone() };
        let more = lines.len().saturating_sub(most);
        let mut text: String = lines.iter().take(most).map(|line| format!("      {sign} {}\n", cut(line))).collect();
        if more > 0 {
            text.push_str(&format!("      {sign} … {more} more\n"));
        }
        text
    };
    Some(format!("{}{}", shown('-', &had[start..had.len() - end]), shown('+', &got[start..got.len() - end])))
}
