//! Elements of sets and maps.

use std::time::Duration;

use super::{Rest, expr, fields, missing, name, table_id, unknown};
use crate::nft::{Data, Element, ElementData, Family, ObjectName, SetName, TableId};
use crate::wire::netlink::{Attribute, Attributes, DecodeError};
use crate::wire::nftables::{ELEMENT_CATCH_ALL, ELEMENT_INTERVAL_END, user_data};

/// Elements, and the set that they are of.
pub(super) fn list(
    family: Family,
    attributes: Attributes<'_>,
    offset: usize,
) -> Result<(TableId, SetName, Vec<Element>), DecodeError> {
    const WHAT: &str = "elements";
    let (mut table, mut set, mut elements) = (None, None, Vec::new());
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            1 => table = Some(table_id(family, attribute)?),
            2 => set = Some(name(SetName::new, "set name", attribute)?),
            3 => elements = attribute.nested().map(|item| item.and_then(element)).collect::<Result<_, _>>()?,
            _ => {}
        }
    }
    let table = table.ok_or_else(|| missing(WHAT, offset, "a table"))?;
    let set = set.ok_or_else(|| missing(WHAT, offset, "a set"))?;
    Ok((table, set, elements))
}

fn value(what: &'static str, nest: Attribute<'_>) -> Result<Data, DecodeError> {
    fields::data(nest).ok_or_else(|| unknown(what, nest.offset, nest.payload.escape_ascii().to_string()))
}

fn element(item: Attribute<'_>) -> Result<Element, DecodeError> {
    const WHAT: &str = "element";
    let (mut key, mut flags, mut rest) = (None, 0, Rest::default());
    let mut element = Element::new(Data::default());
    for attribute in item.nested() {
        let attribute = attribute?;
        match attribute.kind {
            1 => key = Some(value("element key", attribute)?),
            2 => {
                element.data = Some(match expr::verdict(attribute) {
                    Some(verdict) => ElementData::Verdict(verdict),
                    None => ElementData::Value(value("what an element leads to", attribute)?),
                })
            }
            3 => flags = attribute.be32("element flags")?,
            4 => element.timeout = Some(Duration::from_millis(attribute.be64("element timeout")?)),
            // About to go. To the kernel 0 would be that nothing was said.
            5 => element.expires = Some(Duration::from_millis(attribute.be64("element expiration")?.max(1))),
            6 => rest.user_data = Some(attribute.payload),
            7 => element.exprs = vec![expr::decode(attribute)?],
            // Padding.
            8 => {}
            9 => element.data = Some(ElementData::Object(name(ObjectName::new, "object name", attribute)?)),
            10 => element.key_end = Some(value("end of the element's range", attribute)?),
            11 => element.exprs = expr::list(attribute)?,
            _ => rest.keep(attribute),
        }
    }
    if flags & !(ELEMENT_INTERVAL_END | ELEMENT_CATCH_ALL) != 0 {
        return Err(unknown(WHAT, item.offset, format!("flags {flags:#x}")));
    }
    element.interval_end = flags & ELEMENT_INTERVAL_END != 0;
    element.catch_all = flags & ELEMENT_CATCH_ALL != 0;
    element.key = match key {
        // The kernel tells of none, and takes none.
        _ if element.catch_all => Data::default(),
        Some(key) => key,
        None => return Err(missing(WHAT, item.offset, "a key")),
    };
    if element.interval_end {
        // Linux gives the end of an interval a timeout of 0 in dumps and does not take it back.
        element.timeout = element.timeout.filter(|timeout| !timeout.is_zero());
        element.expires = None;
    }
    (element.comment, element.extra) = rest.with_comment(user_data::COMMENT, &[]);
    Ok(element)
}
