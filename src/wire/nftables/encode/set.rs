//! Sets and maps, without their elements.

use std::borrow::Cow;

use nftnl::nftnl_sys as sys;

use super::attributes::Attributes;
use super::object::{self, Fault};
use super::{Encoder, NUMBER_ROOM, TEXT_ROOM, WIDE_ROOM, buffer, expr, kept, kind_of, milliseconds, notes, overridden};
use crate::nft::{Data, KeyType, MapTo, Set, SetPolicy, Verb};
use crate::wire::nftables::{DATA_VERDICT, Kind, layout, user_data};

/// The most fields of a concatenation: six bits each in nft(8)'s number for the type.
const MAX_FIELDS: usize = 5;

/// Attributes of a set that may be kept instead of derived.
mod attribute {
    pub const FLAGS: u16 = 3;
    pub const POLICY: u16 = 8;
    pub const DESC: u16 = 9;
    pub const EXPR: u16 = 17;
    pub const EXPRESSIONS: u16 = 18;
}

impl Encoder {
    pub(super) fn set(&mut self, verb: Verb, set: &Set, id: u32) -> Result<(), Fault> {
        if verb == Verb::Flush {
            return self.flush_elements(&set.table, &set.name);
        }
        let (kind, flags) = kind_of(verb, [Kind::NewSet, Kind::DelSet, Kind::DestroySet], "set")?;
        let mut object = object::Set::new()?;
        object.text(sys::NFTNL_SET_TABLE, "table name", set.table.name.as_str())?;
        object.text(sys::NFTNL_SET_NAME, "set name", set.name.as_str())?;
        let mut rest = Attributes::new();
        if kind == Kind::NewSet {
            object.u32(sys::NFTNL_SET_ID, id);
            describe(&mut object, set)?;
            rest = kept(&set.extra)?;
            match set.exprs.as_slice() {
                [] => {}
                [one] => rest.nest(attribute::EXPR, &expr::single(one, 0)?)?,
                many => rest.nest(attribute::EXPRESSIONS, &expr::list(many, 0)?)?,
            }
        }
        // Two names and user data; ten numbers, one of them wide; and the description: nests, size, field lengths.
        let room = 3 * TEXT_ROOM
            + 9 * NUMBER_ROOM
            + WIDE_ROOM
            + 2 * 4
            + NUMBER_ROOM
            + MAX_FIELDS * (4 + NUMBER_ROOM)
            + rest.as_bytes().len();
        // SAFETY: nothing else is appended.
        unsafe {
            self.message(kind, flags, &set.table, room, |message| {
                object.put(message);
                buffer::append(message, rest.as_bytes());
            });
        }
        Ok(())
    }
}

fn bounded(what: &str, key: &KeyType) -> Result<u32, Fault> {
    let KeyType(fields) = key;
    if fields.is_empty() || fields.len() > MAX_FIELDS {
        return Err(Cow::Owned(format!("a {what} of {} fields, and there can be one to {MAX_FIELDS}", fields.len())));
    }
    if key.len() > Data::MAX_LEN {
        return Err(Cow::Owned(format!("a {what} of {} bytes, more than the kernel's 64", key.len())));
    }
    Ok(key.len() as u32)
}

fn describe(object: &mut object::Set, set: &Set) -> Result<(), Fault> {
    let own = |kind| !overridden(&set.extra, kind);
    let key_len = bounded("key", &set.key)?;
    if own(attribute::FLAGS) {
        object.u32(sys::NFTNL_SET_FLAGS, layout::flags(set));
    }
    object.u32(sys::NFTNL_SET_KEY_TYPE, set.key.number());
    object.u32(sys::NFTNL_SET_KEY_LEN, key_len);
    match &set.data {
        None => {}
        Some(MapTo::Verdict) => object.u32(sys::NFTNL_SET_DATA_TYPE, DATA_VERDICT),
        Some(MapTo::Value(value)) => {
            object.u32(sys::NFTNL_SET_DATA_TYPE, value.number());
            object.u32(sys::NFTNL_SET_DATA_LEN, bounded("value", value)?);
        }
        Some(MapTo::Object(kind)) => object.u32(sys::NFTNL_SET_OBJ_TYPE, kind.to_wire()),
    }
    if own(attribute::DESC) {
        let lengths = layout::fields(set);
        if !lengths.is_empty() {
            let lengths: Option<Vec<u8>> = lengths.iter().map(|len| u8::try_from(*len).ok()).collect();
            // The key as a whole has at most 64 bytes.
            object.bytes(sys::NFTNL_SET_DESC_CONCAT, "field lengths", &lengths.unwrap_or_default())?;
        }
        if let Some(size) = set.size {
            object.u32(sys::NFTNL_SET_DESC_SIZE, size);
        }
    }
    if set.policy == SetPolicy::Memory && own(attribute::POLICY) {
        object.u32(sys::NFTNL_SET_POLICY, 1);
    }
    if let Some(timeout) = set.timeout {
        object.u64(sys::NFTNL_SET_TIMEOUT, milliseconds(timeout)?);
    }
    if let Some(interval) = set.gc_interval {
        let interval = u32::try_from(milliseconds(interval)?);
        let interval = interval.map_err(|_| "an interval of garbage collection longer than the kernel counts")?;
        object.u32(sys::NFTNL_SET_GC_INTERVAL, interval);
    }
    // nft(8) prints elements by the byte order it finds here.
    match notes(user_data::SET_COMMENT, set.comment.as_ref(), &set.extra, &user_data::of_set(set))? {
        Some(data) => object.bytes(sys::NFTNL_SET_USERDATA, "user data", &data),
        None => Ok(()),
    }
}
