//! Bytes to [`nft`](crate::nft) types, in safe Rust.
//!
//! Attributes that newer kernels add to tables, chains, sets and elements are passed over: they have been statistics. In
//! expressions, and wherever an attribute changes what the object does, the unknown is an error that names it.

mod expr;

use std::borrow::Cow;
use std::time::Duration;

use super::{ELEMENT_INTERVAL_END, GENERIC_LEN, Kind, UDATA_COMMENT, UDATA_SET_COMMENT, hook, set_flag, table_flag};
use crate::nft::{
    BaseChain, Chain, ChainName, ChainPolicy, ChainType, Comment, Element, Family, Generation, Handle, InterfaceName,
    KeyType, NameError, Object, Priority, Rule, Set, SetFlags, SetName, Table, TableFlags, TableId, TableName,
};
use crate::wire::netlink::{Attribute, Attributes, DecodeError, Message};

fn missing(what: &'static str, offset: usize, need: impl Into<Cow<'static, str>>) -> DecodeError {
    DecodeError::new(what, offset, need, "none")
}

fn unknown(what: &'static str, offset: usize, have: impl Into<Cow<'static, str>>) -> DecodeError {
    DecodeError::new(what, offset, "what this crate knows", have)
}

fn name<T>(
    check: impl FnOnce(&str) -> Result<T, NameError>,
    what: &'static str,
    attribute: Attribute<'_>,
) -> Result<T, DecodeError> {
    check(attribute.text(what)?)
        .map_err(|error| DecodeError::new(what, attribute.offset, "a name", format!("one that {}", error.reason)))
}

/// Decodes a message that says that an object is there: a table, chain, rule, set, or elements of a set.
///
/// # Errors
///
/// [`DecodeError`] when the message is of another type, is cut short, lacks what the object needs, or has something that
/// the [`nft`](crate::nft) types have no word for.
///
/// # References
///
/// `linux/netfilter/nf_tables.h`: `NFT_MSG_NEWTABLE` and so on.
pub fn decode(message: &Message<'_>) -> Result<Object, DecodeError> {
    let offset = message.offset;
    let attributes = message.attributes("nf_tables header", GENERIC_LEN)?;
    let number = message.payload.first().copied().unwrap_or(0);
    let family =
        Family::from_wire(number).ok_or_else(|| unknown("nf_tables header", offset, format!("family {number}")))?;
    match message.header.kind {
        kind if kind == Kind::NewTable.to_wire() => table(family, attributes, offset).map(Object::Table),
        kind if kind == Kind::NewChain.to_wire() => chain(family, attributes, offset).map(Object::Chain),
        kind if kind == Kind::NewRule.to_wire() => rule(family, attributes, offset).map(Object::Rule),
        kind if kind == Kind::NewSet.to_wire() => set(family, attributes, offset).map(Object::Set),
        kind if kind == Kind::NewSetElem.to_wire() => elements(family, attributes, offset),
        kind => Err(unknown("nf_tables message", offset, format!("type {kind:#x}"))),
    }
}

/// Decodes the number of the ruleset.
///
/// # Errors
///
/// [`DecodeError`] when the message is not that.
#[doc(alias = "NFT_MSG_NEWGEN")]
pub fn generation(message: &Message<'_>) -> Result<Generation, DecodeError> {
    const WHAT: &str = "generation";
    if message.header.kind != Kind::NewGen.to_wire() {
        return Err(unknown(WHAT, message.offset, format!("type {:#x}", message.header.kind)));
    }
    for attribute in message.attributes(WHAT, GENERIC_LEN)? {
        let attribute = attribute?;
        if attribute.kind == 1 {
            return attribute.be32(WHAT).map(Generation);
        }
    }
    Err(missing(WHAT, message.offset, "a number"))
}

/// The comment in an object's user data. The kernel takes any bytes there, so what is no comment is none.
fn comment(kind: u8, data: &[u8]) -> Option<Comment> {
    let mut rest = data;
    while let [found, len, tail @ ..] = rest {
        let value = tail.get(..usize::from(*len))?;
        if *found == kind {
            return Comment::new(std::str::from_utf8(value.strip_suffix(b"\0")?).ok()?).ok();
        }
        rest = &tail[value.len()..];
    }
    None
}

fn table(family: Family, attributes: Attributes<'_>, offset: usize) -> Result<Table, DecodeError> {
    const WHAT: &str = "table";
    let (mut id, mut flags, mut user_data) = (None, 0, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            1 => id = Some(TableId { family, name: name(TableName::new, "table name", attribute)? }),
            2 => flags = attribute.be32("table flags")?,
            6 => user_data = Some(attribute.payload),
            _ => {}
        }
    }
    if flags & !(table_flag::DORMANT | table_flag::OWNER | table_flag::PERSIST) != 0 {
        return Err(unknown(WHAT, offset, format!("flags {flags:#x}")));
    }
    Ok(Table {
        id: id.ok_or_else(|| missing(WHAT, offset, "a name"))?,
        flags: TableFlags {
            dormant: flags & table_flag::DORMANT != 0,
            owner: flags & table_flag::OWNER != 0,
            persist: flags & table_flag::PERSIST != 0,
        },
        comment: user_data.and_then(|data| comment(UDATA_COMMENT, data)),
    })
}

fn chain(family: Family, attributes: Attributes<'_>, offset: usize) -> Result<Chain, DecodeError> {
    const WHAT: &str = "chain";
    let (mut table, mut chain, mut user_data) = (None, None, None);
    let (mut hook, mut policy, mut kind) = (None, ChainPolicy::Accept, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            1 => table = Some(TableId { family, name: name(TableName::new, "table name", attribute)? }),
            3 => chain = Some(name(ChainName::new, "chain name", attribute)?),
            4 => hook = Some(attribute),
            5 => {
                policy = match attribute.be32("chain policy")? {
                    0 => ChainPolicy::Drop,
                    1 => ChainPolicy::Accept,
                    other => return Err(unknown("chain policy", attribute.offset, other.to_string())),
                }
            }
            7 => {
                kind = Some(match attribute.text("chain type")? {
                    "filter" => ChainType::Filter,
                    "nat" => ChainType::Nat,
                    "route" => ChainType::Route,
                    other => return Err(unknown("chain type", attribute.offset, other.escape_debug().to_string())),
                })
            }
            10 => {
                let flags = attribute.be32("chain flags")?;
                // Bit 0 says what the hook says. The others: in hardware, and without a name of its own.
                if flags & !1 != 0 {
                    return Err(unknown("chain flags", attribute.offset, format!("{flags:#x}")));
                }
            }
            12 => user_data = Some(attribute.payload),
            _ => {}
        }
    }
    let base = match hook {
        None => None,
        Some(nest) => Some(base_chain(family, nest, kind.unwrap_or(ChainType::Filter), policy)?),
    };
    Ok(Chain {
        table: table.ok_or_else(|| missing(WHAT, offset, "a table"))?,
        name: chain.ok_or_else(|| missing(WHAT, offset, "a name"))?,
        base,
        comment: user_data.and_then(|data| comment(UDATA_COMMENT, data)),
    })
}

fn base_chain(
    family: Family,
    nest: Attribute<'_>,
    kind: ChainType,
    policy: ChainPolicy,
) -> Result<BaseChain, DecodeError> {
    const WHAT: &str = "hook";
    let (mut number, mut priority, mut single, mut devices) = (None, None, None, Vec::new());
    for attribute in nest.nested() {
        let attribute = attribute?;
        match attribute.kind {
            1 => number = Some(attribute.be32(WHAT)?),
            2 => priority = Some(Priority(attribute.be32("priority")? as i32)),
            3 => single = Some(name(InterfaceName::new, "device", attribute)?),
            4 => {
                for device in attribute.nested() {
                    let device = device?;
                    // 2 is a prefix of names since Linux 6.16.
                    if device.kind != 1 {
                        return Err(unknown("device", device.offset, format!("attribute {}", device.kind)));
                    }
                    devices.push(name(InterfaceName::new, "device", device)?);
                }
            }
            other => return Err(unknown(WHAT, attribute.offset, format!("attribute {other}"))),
        }
    }
    // A chain with one device is dumped in both spellings.
    if devices.is_empty() {
        devices.extend(single);
    }
    let number = number.ok_or_else(|| missing(WHAT, nest.offset, "a number"))?;
    Ok(BaseChain {
        kind,
        hook: hook::from_wire(family, number)
            .ok_or_else(|| unknown(WHAT, nest.offset, format!("number {number} in family {family}")))?,
        priority: priority.ok_or_else(|| missing(WHAT, nest.offset, "a priority"))?,
        policy,
        devices,
    })
}

fn rule(family: Family, attributes: Attributes<'_>, offset: usize) -> Result<Rule, DecodeError> {
    const WHAT: &str = "rule";
    let (mut table, mut chain, mut handle, mut user_data) = (None, None, None, None);
    let mut exprs = Vec::new();
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            1 => table = Some(TableId { family, name: name(TableName::new, "table name", attribute)? }),
            2 => chain = Some(name(ChainName::new, "chain name", attribute)?),
            3 => handle = Some(Handle(attribute.be64("rule handle")?)),
            4 => exprs = attribute.nested().map(|item| item.and_then(expr::decode)).collect::<Result<_, _>>()?,
            5 => return Err(unknown(WHAT, attribute.offset, "what xtables-compat needs")),
            7 => user_data = Some(attribute.payload),
            _ => {}
        }
    }
    Ok(Rule {
        table: table.ok_or_else(|| missing(WHAT, offset, "a table"))?,
        chain: chain.ok_or_else(|| missing(WHAT, offset, "a chain"))?,
        exprs,
        comment: user_data.and_then(|data| comment(UDATA_COMMENT, data)),
        handle,
    })
}

fn set(family: Family, attributes: Attributes<'_>, offset: usize) -> Result<Set, DecodeError> {
    const WHAT: &str = "set";
    let (mut table, mut set_name, mut key, mut user_data) = (None, None, None, None);
    let (mut flags, mut key_len, mut size, mut timeout) = (0, None, None, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            1 => table = Some(TableId { family, name: name(TableName::new, "table name", attribute)? }),
            2 => set_name = Some(name(SetName::new, "set name", attribute)?),
            3 => flags = attribute.be32("set flags")?,
            4 => {
                let number = attribute.be32("key type")?;
                let known = KeyType::from_number(number);
                key = Some(known.ok_or_else(|| unknown("key type", attribute.offset, number.to_string()))?);
            }
            5 => key_len = Some(attribute.be32("key length")? as usize),
            kind @ (6 | 7 | 15 | 17 | 18) => {
                let has = match kind {
                    6 | 7 => "data: it is a map",
                    15 => "stateful objects",
                    _ => "expressions in its elements",
                };
                return Err(unknown(WHAT, attribute.offset, has));
            }
            9 => {
                for part in attribute.nested() {
                    let part = part?;
                    if part.kind == 1 {
                        size = Some(part.be32("set size")?);
                    }
                }
            }
            11 => timeout = Some(Duration::from_millis(attribute.be64("set timeout")?)),
            13 => user_data = Some(attribute.payload),
            _ => {}
        }
    }
    // Whether it is searched field by field follows from the rest.
    let known = set_flag::CONSTANT | set_flag::INTERVAL | set_flag::TIMEOUT | set_flag::CONCAT;
    if flags & !known != 0 {
        return Err(unknown(WHAT, offset, format!("flags {flags:#x}")));
    }
    let key = key.ok_or_else(|| missing(WHAT, offset, "a key type"))?;
    if key_len.is_some_and(|len| len != key.len()) {
        let (need, have) = (key.len(), key_len.unwrap_or_default());
        return Err(DecodeError::new("key length", offset, format!("{need} for {key}"), have.to_string()));
    }
    Ok(Set {
        table: table.ok_or_else(|| missing(WHAT, offset, "a table"))?,
        name: set_name.ok_or_else(|| missing(WHAT, offset, "a name"))?,
        key,
        flags: SetFlags {
            constant: flags & set_flag::CONSTANT != 0,
            interval: flags & set_flag::INTERVAL != 0,
            timeout: flags & set_flag::TIMEOUT != 0,
        },
        timeout,
        size,
        comment: user_data.and_then(|data| comment(UDATA_SET_COMMENT, data)),
    })
}

fn elements(family: Family, attributes: Attributes<'_>, offset: usize) -> Result<Object, DecodeError> {
    const WHAT: &str = "elements";
    let (mut table, mut set, mut elements) = (None, None, Vec::new());
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            1 => table = Some(TableId { family, name: name(TableName::new, "table name", attribute)? }),
            2 => set = Some(name(SetName::new, "set name", attribute)?),
            3 => elements = attribute.nested().map(|item| item.and_then(element)).collect::<Result<_, _>>()?,
            _ => {}
        }
    }
    Ok(Object::Elements {
        table: table.ok_or_else(|| missing(WHAT, offset, "a table"))?,
        set: set.ok_or_else(|| missing(WHAT, offset, "a set"))?,
        elements,
    })
}

fn element(item: Attribute<'_>) -> Result<Element, DecodeError> {
    const WHAT: &str = "element";
    let (mut key, mut end, mut flags, mut timeout, mut user_data) = (None, None, 0, None, None);
    for attribute in item.nested() {
        let attribute = attribute?;
        match attribute.kind {
            1 => key = Some(expr::value("element key", attribute)?),
            3 => flags = attribute.be32("element flags")?,
            4 => timeout = Some(Duration::from_millis(attribute.be64("element timeout")?)),
            6 => user_data = Some(attribute.payload),
            10 => end = Some(expr::value("end of the element's range", attribute)?),
            kind @ (2 | 7 | 9 | 11) => {
                let has = match kind {
                    2 => "data: the set is a map",
                    9 => "a stateful object",
                    _ => "an expression",
                };
                return Err(unknown(WHAT, attribute.offset, has));
            }
            _ => {}
        }
    }
    if flags & !ELEMENT_INTERVAL_END != 0 {
        return Err(unknown(WHAT, item.offset, format!("flags {flags:#x}")));
    }
    let key = key.ok_or_else(|| missing(WHAT, item.offset, "a key"))?;
    // nft(8) writes a single key of a concatenated interval set as a range of one.
    if end.is_some_and(|end| end != key) {
        return Err(unknown(WHAT, item.offset, "a range in a concatenated set"));
    }
    let interval_end = flags & ELEMENT_INTERVAL_END != 0;
    Ok(Element {
        key,
        interval_end,
        // Linux gives the end of an interval a timeout of 0 in dumps and does not take it back.
        timeout: timeout.filter(|timeout| !(interval_end && timeout.is_zero())),
        comment: user_data.and_then(|data| comment(UDATA_COMMENT, data)),
    })
}
