//! Elements of sets and maps.

use std::borrow::Cow;

use mnl::mnl_sys;
use nftnl::nftnl_sys as sys;

use super::attributes::Attributes;
use super::object::{self, CText, Fault, MAX_TEXT};
use super::{
    ELEMENTS, Encoder, MAX_LIST, NUMBER_ROOM, TEXT_ROOM, WIDE_ROOM, buffer, expr, kept, milliseconds, notes, statement,
};
use crate::nft::{Data, Element, ElementData, SetName, TableId, Verb};
use crate::wire::nftables::{ELEMENT_CATCH_ALL, ELEMENT_INTERVAL_END, Kind, flag, user_data};

/// Attributes of an element that are not libnftnl's business.
mod attribute {
    pub const EXPR: u16 = 7;
    pub const EXPRESSIONS: u16 = 11;
}

impl Encoder {
    /// Deletes all elements of a set: a deletion without elements.
    pub(super) fn flush_elements(&mut self, table: &TableId, set: &SetName) -> Result<(), Fault> {
        self.element_message(Kind::DelSetElem, 0, table, set, &[], 0)
    }

    pub(super) fn elements(
        &mut self,
        verb: Verb,
        table: &TableId,
        set: &SetName,
        elements: &[Element],
    ) -> Result<(), Fault> {
        let (kind, flags) = match verb {
            Verb::Add => (Kind::NewSetElem, flag::CREATE),
            Verb::Create => (Kind::NewSetElem, flag::CREATE | flag::EXCL),
            Verb::Delete => (Kind::DelSetElem, 0),
            Verb::Destroy => (Kind::DestroySetElem, 0),
            Verb::Flush if elements.is_empty() => return self.flush_elements(table, set),
            Verb::Flush => return Err("a flush takes all elements, so it names none".into()),
            Verb::Insert => return Err("elements have no place to be inserted at".into()),
            Verb::Replace => return Err("elements are not replaced, but deleted and made anew".into()),
            Verb::Rename => return Err("only a chain's name can be changed".into()),
        };
        let mut rest = elements;
        while !rest.is_empty() {
            let (mut room, mut count) = (0, 0);
            for element in rest {
                let more = element_room(element)?;
                if room + more > MAX_LIST {
                    break;
                }
                room += more;
                count += 1;
            }
            if count == 0 {
                return Err(Cow::Owned(format!("an element of more than the {MAX_LIST} bytes of a message")));
            }
            let (now, later) = rest.split_at(count);
            self.element_message(kind, flags, table, set, now, room)?;
            rest = later;
        }
        Ok(())
    }

    fn element_message(
        &mut self,
        kind: Kind,
        flags: u16,
        table: &TableId,
        set: &SetName,
        elements: &[Element],
        room: usize,
    ) -> Result<(), Fault> {
        /// `enum nft_set_elem_list_attributes`.
        const TABLE: u16 = 1;
        const SET: u16 = 2;
        let (table_name, set_name) = (CText::new(table.name.as_str())?, CText::new(set.as_str())?);
        let mut object = object::Element::new()?;
        let mut outcome = Ok(());
        // SAFETY: two names, a nest and the elements that the caller counted are all that is appended.
        unsafe {
            self.message(kind, flags, table, 2 * TEXT_ROOM + 4 + room, |message| {
                mnl_sys::mnl_attr_put_strz(message, TABLE, table_name.as_ptr());
                mnl_sys::mnl_attr_put_strz(message, SET, set_name.as_ptr());
                if elements.is_empty() {
                    return;
                }
                buffer::nest(message, ELEMENTS, |message| {
                    for element in elements {
                        let rest = fill(&mut object, element).and_then(|()| unknown_to_libnftnl(element));
                        match rest {
                            Ok(rest) => buffer::nest(message, expr::LIST_ELEMENT, |message| {
                                object.put(message);
                                if let Some(rest) = rest {
                                    buffer::append(message, rest.as_bytes());
                                }
                            }),
                            Err(fault) => {
                                outcome = Err(fault);
                                break;
                            }
                        }
                    }
                });
            });
        }
        outcome
    }
}

/// The bytes an element takes, nesting included.
fn element_room(element: &Element) -> Result<usize, Fault> {
    // Nest, header, and the value padded.
    let value = |data: &Data| 8 + data.len().next_multiple_of(4);
    let data = match &element.data {
        None => 0,
        Some(ElementData::Value(data)) => value(data),
        // Two nests, a number and a name.
        Some(ElementData::Verdict(_)) => 8 + NUMBER_ROOM + 4 + MAX_TEXT + 1,
        Some(ElementData::Object(_)) => 4 + MAX_TEXT + 1,
    };
    let notes = element.comment.as_ref().map_or(0, |comment| 3 + comment.as_str().len())
        + element.extra.user_data().map_or(0, <[u8]>::len);
    let rest = unknown_to_libnftnl(element)?.map_or(0, |rest| rest.as_bytes().len());
    Ok(4 + value(&element.key)
        + element.key_end.as_ref().map_or(0, value)
        + if element.interval_end || element.catch_all { NUMBER_ROOM } else { 0 }
        + if element.timeout.is_some() { WIDE_ROOM } else { 0 }
        + if element.expires.is_some() { WIDE_ROOM } else { 0 }
        + if notes > 0 { 4 + notes.next_multiple_of(4) } else { 0 }
        + data
        + rest)
}

/// Expressions and what is kept: libnftnl would own the first and has no place for the second.
fn unknown_to_libnftnl(element: &Element) -> Result<Option<Attributes>, Fault> {
    if element.exprs.is_empty() && element.extra.attributes().is_empty() {
        return Ok(None);
    }
    let mut rest = kept(&element.extra)?;
    match element.exprs.as_slice() {
        [] => {}
        [one] => rest.nest(attribute::EXPR, &expr::single(one, 0)?)?,
        many => rest.nest(attribute::EXPRESSIONS, &expr::list(many, 0)?)?,
    }
    Ok(Some(rest))
}

fn fill(object: &mut object::Element, element: &Element) -> Result<(), Fault> {
    // What the element before had. Cheap where there is nothing.
    for attribute in [
        sys::NFTNL_SET_ELEM_KEY,
        sys::NFTNL_SET_ELEM_KEY_END,
        sys::NFTNL_SET_ELEM_FLAGS,
        sys::NFTNL_SET_ELEM_CHAIN,
        sys::NFTNL_SET_ELEM_VERDICT,
        sys::NFTNL_SET_ELEM_DATA,
        sys::NFTNL_SET_ELEM_OBJREF,
        sys::NFTNL_SET_ELEM_TIMEOUT,
        sys::NFTNL_SET_ELEM_EXPIRATION,
        sys::NFTNL_SET_ELEM_USERDATA,
    ] {
        object.unset(attribute);
    }
    if !element.catch_all {
        object.key(element.key.as_bytes())?;
    }
    if let Some(end) = &element.key_end {
        object.key_end(end.as_bytes())?;
    }
    let flags = [(element.interval_end, ELEMENT_INTERVAL_END), (element.catch_all, ELEMENT_CATCH_ALL)];
    let flags: u32 = flags.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
    if flags != 0 {
        object.u32(sys::NFTNL_SET_ELEM_FLAGS, flags);
    }
    match &element.data {
        None => {}
        Some(ElementData::Value(data)) => object.data(data.as_bytes())?,
        Some(ElementData::Verdict(verdict)) => {
            let (code, chain) = statement::code(verdict);
            object.u32(sys::NFTNL_SET_ELEM_VERDICT, code);
            if let Some(chain) = chain {
                object.text(sys::NFTNL_SET_ELEM_CHAIN, "chain name", chain)?;
            }
        }
        Some(ElementData::Object(name)) => {
            object.text(sys::NFTNL_SET_ELEM_OBJREF, "object name", name.as_str())?;
        }
    }
    if let Some(timeout) = element.timeout {
        object.u64(sys::NFTNL_SET_ELEM_TIMEOUT, milliseconds(timeout)?);
    }
    if let Some(expires) = element.expires {
        object.u64(sys::NFTNL_SET_ELEM_EXPIRATION, milliseconds(expires)?);
    }
    match notes(user_data::COMMENT, element.comment.as_ref(), &element.extra, &[])? {
        Some(data) => object.user_data(&data),
        None => Ok(()),
    }
}
