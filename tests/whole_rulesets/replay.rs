//! The kernel's own dump sent back to it, with nothing understood of it but where it won't take what it gave.
//!
//! That this reaches every ruleset shows that nothing a dump lacks is needed to restore it, and [`ASYMMETRIES`] is the whole of what
//! a program has to know beside the format. Each of them is shown to be needed, too.

use std::collections::HashSet;

use crate::netlink::{
    Attr, Body, Message, NEW_CHAIN, NEW_ELEMENTS, NEW_FLOWTABLE, NEW_OBJECT, NEW_RULE, NEW_SET, NEW_TABLE,
};

/// Something the kernel dumps and does not take back, and what to do about it.
pub struct Asymmetry {
    pub name: &'static str,
    /// Mends a message; says whether there was something to mend.
    pub mend: fn(&mut Message, &Filled) -> bool,
}

/// Families, tables and names of the sets that rules fill.
pub type Filled = HashSet<(u8, Vec<u8>, Vec<u8>)>;

/// Those of a dump.
pub fn filled(dump: &[Message]) -> Filled {
    let mut filled = HashSet::new();
    for rule in dump {
        let of = (rule.family, text(rule, 1));
        in_expressions(&mut rule.clone(), "dynset", |data| {
            let name = value(data, 1).unwrap_or_default().to_vec();
            filled.insert((of.0, of.1.clone(), name))
        });
    }
    filled
}

/// All there are, on Linux 6.18 with what nft(8) 1.0.6 can make.
pub const ASYMMETRIES: [Asymmetry; 9] = [
    Asymmetry {
        name: "exthdr: FLAGS on a write (SREG)",
        mend: |rule, _| in_expressions(rule, "exthdr", |data| has(data, 7) && remove(data, &[5])),
    },
    Asymmetry {
        name: "exthdr: OFFSET, LEN and FLAGS on a reset (neither DREG nor SREG)",
        mend: |rule, _| {
            in_expressions(rule, "exthdr", |data| !has(data, 1) && !has(data, 7) && remove(data, &[3, 4, 5]))
        },
    },
    Asymmetry { name: "osf: FLAGS of 0", mend: |rule, _| in_expressions(rule, "osf", |data| remove_if_zero(data, 3)) },
    Asymmetry {
        name: "quota: DEPLETED in FLAGS",
        mend: |message, _| {
            if message.kind == NEW_OBJECT && value(&message.attrs, 3).map(be32) == Some(2) {
                let data = message.attrs.iter_mut().find(|attr| attr.kind == 4).and_then(Attr::nested_mut);
                return data.is_some_and(|data| without_depleted(data));
            }
            in_expressions(message, "quota", |data| without_depleted(data))
        },
    },
    Asymmetry {
        name: "dynset: TIMEOUT of 0",
        mend: |rule, _| in_expressions(rule, "dynset", |data| remove_if_zero(data, 6)),
    },
    Asymmetry {
        name: "dynset: EXPRESSIONS without F_EXPR in FLAGS",
        mend: |rule, _| {
            in_expressions(rule, "dynset", |data| {
                if !has(data, 10) {
                    return false;
                }
                let flags = data.iter().find(|attr| attr.kind == 9).map_or(0, |attr| be32(attr.as_bytes()));
                remove(data, &[9]);
                data.push(Attr::bytes(9, &(flags | 2).to_be_bytes()));
                flags & 2 == 0
            })
        },
    },
    Asymmetry {
        name: "set element: TIMEOUT of 0",
        mend: |elements, _| {
            let mut found = false;
            for element in list(elements, NEW_ELEMENTS, 3) {
                found |= remove_if_zero(element, 4);
            }
            found
        },
    },
    Asymmetry {
        name: "set: attributes 19 and 20 (kind and count of its backend)",
        mend: |set, _| set.kind == NEW_SET && remove(&mut set.attrs, &[19, 20]),
    },
    Asymmetry {
        name: "set: SIZE of 65,535 without EVAL in FLAGS, where a rule fills it",
        mend: |set, filled| {
            let name = (set.family, text(set, 1), text(set, 2));
            let flags = value(&set.attrs, 3).map_or(0, be32);
            if set.kind != NEW_SET || flags & 0x10 != 0 || !filled.contains(&name) {
                return false;
            }
            let sized = |attr: &&mut Vec<Attr>| value(attr, 1).map(be32) == Some(65_535);
            let description = set.attrs.iter_mut().find(|attr| attr.kind == 9).and_then(Attr::nested_mut);
            description.filter(sized).is_some_and(|description| remove(description, &[1]))
        },
    },
];

/// Messages that make again what was dumped, mended of all asymmetries but one.
pub fn again(dump: &[Message], without: Option<usize>) -> Vec<Message> {
    let (mut messages, filled) = (dump.to_vec(), filled(dump));
    for message in &mut messages {
        // Who something was is not what it is: the kernel takes a handle for one to look up.
        let identity: &[u16] = match message.kind {
            NEW_TABLE => &[3, 4],
            NEW_CHAIN => &[2, 6],
            NEW_RULE => &[3, 6],
            NEW_SET => &[16],
            NEW_OBJECT => &[5, 6],
            NEW_FLOWTABLE => &[4, 5],
            _ => &[],
        };
        remove(&mut message.attrs, identity);
        for (at, asymmetry) in ASYMMETRIES.iter().enumerate() {
            if Some(at) != without {
                (asymmetry.mend)(message, &filled);
            }
        }
    }
    for rule in &mut messages {
        rule.attrs.extend(compatibility(rule));
    }
    // A dump of an empty set is a message without elements.
    messages.retain(|message| message.kind != NEW_ELEMENTS || has(&message.attrs, 3));
    // A set must have a number by which the same batch may speak of it, though nothing here does.
    for (at, set) in messages.iter_mut().filter(|message| message.kind == NEW_SET).enumerate() {
        set.attrs.push(Attr::bytes(10, &(at as u32 + 1).to_be_bytes()));
    }
    // To a chain that a rule has bound nothing can be added: first the rules of the innermost.
    let bound: Vec<(u8, Vec<u8>, Vec<u8>)> = messages
        .iter()
        .filter(|message| {
            message.kind == NEW_CHAIN && value(&message.attrs, 10).is_some_and(|flags| be32(flags) & 4 != 0)
        })
        .map(|chain| (chain.family, text(chain, 1), text(chain, 3)))
        .collect();
    messages.sort_by_key(|message| {
        let place = || bound.iter().position(|bound| *bound == (message.family, text(message, 1), text(message, 2)));
        match message.kind {
            NEW_RULE => place().map_or((NEW_RULES_LAST, 1), |place| (NEW_RULES_LAST, -(place as isize))),
            _ => (0, 0),
        }
    });
    messages
}

/// `NFPROTO_BRIDGE`.
const BRIDGE: u8 = 7;

/// What a rule with an extension of xtables is for, which a dump does not say but for the match before it.
fn compatibility(rule: &Message) -> Option<Attr> {
    let expressions: Vec<&Attr> =
        rule.attrs.iter().filter(|attr| rule.kind == NEW_RULE && attr.kind == 4).flat_map(Attr::nested).collect();
    let named = |expression: &Attr, name: &str| {
        value(expression.nested(), 1).and_then(|text| text.strip_suffix(&[0])) == Some(name.as_bytes())
    };
    expressions.iter().find(|expression| named(expression, "match") || named(expression, "target"))?;
    let data = |expression: &Attr, kind: u16| {
        expression
            .nested()
            .iter()
            .find(|attr| attr.kind == 2)
            .and_then(|data| data.nested().iter().find(|attr| attr.kind == kind).cloned())
    };
    let is = |expression: &Attr, wanted: &[(u16, u32)]| {
        wanted
            .iter()
            .all(|(kind, number)| data(expression, *kind).is_some_and(|found| be32(found.as_bytes()) == *number))
    };
    let bridge = rule.family == BRIDGE;
    let protocol = expressions.windows(2).find_map(|pair| {
        let of_protocol = match bridge {
            // The EtherType.
            true => named(pair[0], "payload") && is(pair[0], &[(2, 0), (3, 12), (4, 2)]),
            false => named(pair[0], "meta") && is(pair[0], &[(2, 16)]),
        };
        let compared = data(pair[1], 3).filter(|_| of_protocol && named(pair[1], "cmp"))?;
        match value(compared.nested(), 1)? {
            [protocol] => Some(u32::from(*protocol)),
            [first, second] => Some(u32::from(u16::from_ne_bytes([*first, *second]))),
            _ => None,
        }
    })?;
    let number = |kind: u16, number: u32| Attr::bytes(kind, &number.to_be_bytes());
    Some(Attr { kind: 5, body: Body::Nest(vec![number(1, protocol), number(2, 0)]) })
}

/// After all else, in [`again`]'s order.
const NEW_RULES_LAST: u8 = 1;

fn value(attrs: &[Attr], kind: u16) -> Option<&[u8]> {
    attrs.iter().find(|attr| attr.kind == kind).map(Attr::as_bytes)
}

fn text(message: &Message, kind: u16) -> Vec<u8> {
    value(&message.attrs, kind).unwrap_or_default().to_vec()
}

fn be32(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_be_bytes)
}

fn has(attrs: &[Attr], kind: u16) -> bool {
    attrs.iter().any(|attr| attr.kind == kind)
}

fn remove(attrs: &mut Vec<Attr>, kinds: &[u16]) -> bool {
    let before = attrs.len();
    attrs.retain(|attr| !kinds.contains(&attr.kind));
    attrs.len() < before
}

/// A quota that is used up says so in a flag of its own, beside that for `over`.
fn without_depleted(data: &mut [Attr]) -> bool {
    let Some(flags) = data.iter_mut().find(|attr| attr.kind == 2) else { return false };
    let depleted = be32(flags.as_bytes()) & 2 != 0;
    *flags = Attr::bytes(2, &(be32(flags.as_bytes()) & !2).to_be_bytes());
    depleted
}

fn remove_if_zero(attrs: &mut Vec<Attr>, kind: u16) -> bool {
    let before = attrs.len();
    attrs.retain(|attr| attr.kind != kind || attr.as_bytes().iter().any(|byte| *byte != 0));
    attrs.len() < before
}

/// The nests in a list of a message, if it is of this kind.
fn list(message: &mut Message, kind: u8, list: u16) -> impl Iterator<Item = &mut Vec<Attr>> {
    let attrs = if message.kind == kind { &mut message.attrs[..] } else { &mut [] };
    attrs
        .iter_mut()
        .filter(move |attr| attr.kind == list)
        .filter_map(Attr::nested_mut)
        .flatten()
        .filter_map(Attr::nested_mut)
}

/// Does something to the data of every expression of a name in a rule.
fn in_expressions(rule: &mut Message, name: &str, mut mend: impl FnMut(&mut Vec<Attr>) -> bool) -> bool {
    let mut found = false;
    for expression in list(rule, NEW_RULE, 4) {
        let named = expression.iter().any(|attr| {
            attr.kind == 1
                && matches!(&attr.body, Body::Bytes(bytes) if bytes.strip_suffix(&[0]) == Some(name.as_bytes()))
        });
        if let Some(data) =
            expression.iter_mut().filter(|_| named).find(|attr| attr.kind == 2).and_then(Attr::nested_mut)
        {
            found |= mend(data);
        }
    }
    found
}
