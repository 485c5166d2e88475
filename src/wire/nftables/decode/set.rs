//! Sets and maps, without their elements.

use std::time::Duration;

use super::fields::{self, Fields};
use super::{Rest, expr, missing, name, table_id, unknown};
use crate::nft::{Family, KeyType, MapTo, ObjectType, Set, SetFlags, SetName, SetPolicy};
use crate::wire::netlink::{Attribute, Attributes, DecodeError};
use crate::wire::nftables::{DATA_VERDICT, layout, set_flag, user_data};

pub(super) fn set(family: Family, attributes: Attributes<'_>, offset: usize) -> Result<Set, DecodeError> {
    const WHAT: &str = "set";
    let (mut table, mut set_name, mut flags, mut description, mut rest) = (None, None, None, None, Rest::default());
    let (mut key_type, mut key_len, mut data_type, mut data_len, mut object) = (None, None, None, None, None);
    let (mut timeout, mut gc_interval, mut policy, mut exprs) = (None, None, SetPolicy::default(), Vec::new());
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            1 => table = Some(table_id(family, attribute)?),
            2 => set_name = Some(name(SetName::new, "set name", attribute)?),
            3 => flags = Some(attribute),
            4 => key_type = Some(attribute.be32("key type")?),
            5 => key_len = Some(attribute.be32("key length")? as usize),
            6 => data_type = Some(attribute.be32("data type")?),
            7 => data_len = Some(attribute.be32("data length")? as usize),
            8 => {
                let number = attribute.be32("set policy")?;
                policy = if number == 1 { SetPolicy::Memory } else { SetPolicy::Performance };
                rest.keep_if(number > 1, attribute);
            }
            9 => description = Some(attribute),
            // Number within a transaction, padding, handle; since Linux 6.17 how it is kept and how full it is.
            10 | 14 | 16 | 19 | 20 => {}
            11 => timeout = Some(Duration::from_millis(attribute.be64("set timeout")?)),
            12 => gc_interval = Some(Duration::from_millis(attribute.be32("interval of garbage collection")?.into())),
            13 => rest.user_data = Some(attribute.payload),
            15 => object = Some(ObjectType::from_wire(attribute.be32("object type")?)),
            17 => exprs = vec![expr::decode(attribute)?],
            18 => exprs = expr::list(attribute)?,
            _ => rest.keep(attribute),
        }
    }
    let (size, lengths) = description.and_then(describe).unwrap_or_default();
    let key_type = key_type.ok_or_else(|| missing(WHAT, offset, "a key type"))?;
    let key_len = key_len.ok_or_else(|| missing(WHAT, offset, "a key length"))?;
    let too_long = |len: usize| unknown(WHAT, offset, format!("values of {len} bytes"));
    let key = KeyType::from_wire(key_type, key_len, &lengths).ok_or_else(|| too_long(key_len))?;
    let data = match (data_type, object) {
        (Some(DATA_VERDICT), _) => Some(MapTo::Verdict),
        (Some(number), _) => {
            let len = data_len.ok_or_else(|| missing(WHAT, offset, "a data length"))?;
            Some(MapTo::Value(KeyType::from_wire(number, len, &[]).ok_or_else(|| too_long(len))?))
        }
        (None, Some(object)) => Some(MapTo::Object(object)),
        (None, None) => None,
    };
    let bits = flags.map_or(Ok(0), |flags| flags.be32("set flags"))?;
    let mut set = Set {
        table: table.ok_or_else(|| missing(WHAT, offset, "a table"))?,
        name: set_name.ok_or_else(|| missing(WHAT, offset, "a name"))?,
        key,
        data,
        flags: SetFlags {
            anonymous: bits & set_flag::ANONYMOUS != 0,
            constant: bits & set_flag::CONSTANT != 0,
            interval: bits & set_flag::INTERVAL != 0,
            timeout: bits & set_flag::TIMEOUT != 0,
            dynamic: bits & set_flag::EVAL != 0,
            expressions: bits & set_flag::EXPR != 0,
        },
        timeout,
        gc_interval,
        size,
        policy,
        exprs,
        comment: None,
        extra: crate::nft::Extra::default(),
    };
    // Where flags or the lengths of fields are not those that nft(8) would choose, they are kept.
    if let Some(flags) = flags.filter(|_| layout::flags(&set) != bits) {
        rest.keep(flags);
    }
    if let Some(description) = description.filter(|nest| layout::fields(&set) != lengths || describe(*nest).is_none()) {
        rest.keep(description);
    }
    let derived = user_data::of_set(&set);
    (set.comment, set.extra) = rest.with_comment(user_data::SET_COMMENT, &derived);
    Ok(set)
}

/// The most elements, and the lengths of a concatenation's fields. `None` when there is more to it.
fn describe(nest: Attribute<'_>) -> Option<(Option<u32>, Vec<usize>)> {
    let mut description = Fields::<3>::nested(nest)?;
    let size = description.maybe(1, fields::number)?;
    let mut lengths = Vec::new();
    if let Some(list) = description.take(2) {
        for item in list.nested() {
            let item = item.ok()?;
            if item.kind != 1 {
                return None;
            }
            let mut field = Fields::<2>::nested(item)?;
            lengths.push(field.number(1)? as usize);
            field.all(())?;
        }
    }
    description.all((size, lengths))
}
