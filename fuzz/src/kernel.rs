//! Rulesets that the kernel itself judges: committed to a scratch namespace, read back, put back, read again.

use std::cell::RefCell;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use ringfence::kernel::netns::Netns;
use ringfence::kernel::nftables::Socket;
use ringfence::nft::*;

use super::transaction::{element, expr, key_type, map_to, maybe, simple, state};

thread_local! {
    /// A namespace that nothing leads out of, and a socket to its rules. None without the privilege to make one.
    static SCRATCH: RefCell<Option<(Netns, Socket)>> = RefCell::new(match Netns::create_with(Socket::open) {
        Ok((netns, Ok(socket))) => Some((netns, socket)),
        _ => None,
    });
}

const HOUR: Duration = Duration::from_secs(3600);

/// Makes a ruleset of the bytes and commits it. What the kernel takes is read, written down as JSON, restored from that, and read again:
/// nothing may have changed. Where the kernel takes nothing, the complaint has to be about one of the operations.
pub fn ruleset(bytes: &[u8]) {
    let Ok(ruleset) = make(&mut Unstructured::new(bytes)) else { return };
    SCRATCH.with_borrow_mut(|scratch| {
        let Some((_, socket)) = scratch else { return };
        if socket.commit(&ruleset.replace()).is_err() {
            return;
        }
        let read = socket.ruleset().expect("what the kernel took can be read");
        let saved = Ruleset::from_json(&read.to_json()).expect("what was written can be read");
        assert_eq!(saved, read);
        let _ = read.syntax();
        socket.commit(&saved.replace()).unwrap_or_else(|error| panic!("{}\n{read:#?}", error.chain()));
        let again = socket.ruleset().expect("what the kernel took can be read");
        let (again, read) = (lasting(again), lasting(read));
        assert_eq!(still(again.clone()), still(read.clone()));
        assert!(diff(&again, &read).operations().is_empty(), "{:?}", diff(&again, &read));
    });
}

/// Without elements that count flows: once they have none the kernel clears them away, after a second or so, with whatever was put in.
fn lasting(mut ruleset: Ruleset) -> Ruleset {
    let counts = |element: &Element| element.exprs.iter().any(|expr| matches!(expr, Expr::Connlimit { .. }));
    ruleset.elements.iter_mut().for_each(|(_, _, elements)| elements.retain(|element| !counts(element)));
    ruleset.elements.retain(|(_, _, elements)| !elements.is_empty());
    ruleset
}

/// Without numbers and clocks.
fn still(mut ruleset: Ruleset) -> Ruleset {
    // How long ago something was goes on while it is read.
    let timeless = |exprs: &mut Vec<Expr>| exprs.retain(|expr| !matches!(expr, Expr::Last { .. }));
    ruleset.rules.iter_mut().for_each(|rule| rule.handle = None);
    ruleset.sets.iter_mut().for_each(|set| timeless(&mut set.exprs));
    for (_, _, elements) in &mut ruleset.elements {
        for element in elements.iter_mut() {
            element.expires = None;
            timeless(&mut element.exprs);
        }
        elements.sort_by(|a, b| (&a.key, &a.key_end, a.interval_end).cmp(&(&b.key, &b.key_end, b.interval_end)));
    }
    ruleset.rules.iter_mut().for_each(|rule| timeless(&mut rule.exprs));
    ruleset
}

fn wrong<T>(_: T) -> arbitrary::Error {
    arbitrary::Error::IncorrectFormat
}

/// A ruleset of a shape that the kernel may take: names lead somewhere, keys are as long as they should be.
fn make(u: &mut Unstructured<'_>) -> Result<Ruleset> {
    let families = [Family::Ip, Family::Ip6, Family::Inet, Family::Bridge, Family::Arp];
    let id = TableId { family: *u.choose(&families)?, name: TableName::new("t").map_err(wrong)? };
    let (inner, base_name) = (ChainName::new("inner").map_err(wrong)?, ChainName::new("base").map_err(wrong)?);
    let base = BaseChain {
        kind: *u.choose(&[ChainType::Filter, ChainType::Filter, ChainType::Nat, ChainType::Route])?,
        hook: *u.choose(&[Hook::Input, Hook::Output, Hook::Prerouting, Hook::Postrouting, Hook::Forward])?,
        priority: Priority(u.int_in_range(-400..=400)?),
        policy: ChainPolicy::Accept,
        devices: vec![],
    };
    let mut ruleset = Ruleset {
        tables: vec![Table::new(id.clone())],
        chains: vec![Chain::new(&id, &inner), Chain { base: Some(base), ..Chain::new(&id, &base_name) }],
        ..Ruleset::default()
    };
    let object = ObjectName::new("o").map_err(wrong)?;
    if u.arbitrary()? {
        ruleset.objects.push(StatefulObject::new(&id, &object, state(u)?));
    }
    for name in ["s", "m"].into_iter().take(u.int_in_range(0..=2)?) {
        let plain = Set::new(&id, &SetName::new(name).map_err(wrong)?, key_type(u)?);
        let [interval, timeout, dynamic] = u.arbitrary()?;
        let set = Set {
            data: if name == "m" { maybe(u, map_to)? } else { None },
            flags: SetFlags { interval, timeout, dynamic, ..SetFlags::default() },
            exprs: if u.ratio(1, 4)? { vec![simple(u)?] } else { vec![] },
            size: maybe(u, |u| u.int_in_range(1..=1000))?,
            ..plain
        };
        let mut elements = Vec::new();
        for _ in 0..u.int_in_range(0..=6)? {
            let mut element = element(u)?;
            let fit = |data: &Data, len: usize| {
                let mut bytes = data.as_bytes().to_vec();
                bytes.resize(len.min(Data::MAX_LEN), 0);
                Data::new(&bytes).map_err(wrong)
            };
            element.catch_all = false;
            element.key = fit(&element.key, set.key.len())?;
            element.key_end = None;
            element.expires = None;
            element.interval_end &= interval;
            // What runs out between two looks is another ruleset.
            element.timeout = element.timeout.filter(|_| timeout).map(|timeout| timeout + HOUR);
            element.data = match (&set.data, element.data) {
                (Some(MapTo::Object(_)), _) => Some(ElementData::Object(object.clone())),
                (Some(MapTo::Verdict), _) => Some(ElementData::Verdict(Verdict::Goto(inner.clone()))),
                (Some(MapTo::Value(to)), Some(ElementData::Value(data))) => {
                    Some(ElementData::Value(fit(&data, to.len())?))
                }
                (Some(MapTo::Value(to)), _) => Some(ElementData::Value(fit(&Data::default(), to.len())?)),
                (None, _) => None,
            };
            if !u.ratio(1, 4)? {
                element.exprs.clear();
            }
            elements.push(element);
        }
        ruleset.elements.push((id.clone(), set.name.clone(), elements));
        ruleset.sets.push(set);
    }
    for _ in 0..u.int_in_range(0..=4)? {
        let chain = if u.arbitrary()? { &inner } else { &base_name };
        let mut rule = Rule::new(&id, chain);
        for _ in 0..u.int_in_range(1..=3)? {
            let mut expr = expr(u)?;
            let set = SetName::new(if u.arbitrary()? { "s" } else { "m" }).map_err(wrong)?;
            match &mut expr {
                Expr::Lookup { set: name, .. } | Expr::Map { set: name, .. } | Expr::VerdictMap { set: name, .. } => {
                    *name = set
                }
                Expr::ObjectMap { set: name, .. } => *name = set,
                Expr::Dynset(dynset) => dynset.set = set,
                Expr::ObjectRef { name, .. } => *name = object.clone(),
                // Small numbers are the ones that mean something.
                Expr::Payload { offset, len, .. } => (*offset, *len) = (*offset % 64, *len % 17),
                Expr::Exthdr { offset, len, .. } => (*offset, *len) = (*offset % 64, *len % 17),
                Expr::Limit(limit) => {
                    (limit.rate, limit.seconds, limit.burst) = (limit.rate % 1000 + 1, 1, limit.burst % 100)
                }
                Expr::Nat(nat) => nat.flags = NatFlags(nat.flags.0 & 0x1f),
                Expr::Fib { flags, .. } => *flags = FibFlags(flags.0 & 0x3f),
                Expr::Syslog(log) => log.flags = LogFlags(log.flags.0 & 0x2f),
                Expr::Verdict(Verdict::Jump(to) | Verdict::Goto(to)) => *to = inner.clone(),
                _ => {}
            }
            rule = rule.expr(expr);
        }
        ruleset.rules.push(rule);
    }
    Ok(ruleset)
}
