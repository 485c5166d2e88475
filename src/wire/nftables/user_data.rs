//! The notes that nft(8) keeps in an object's user data, as type, length, value with one byte each for the first two.
//!
//! The kernel keeps the bytes and does not look at them. A comment is one of the notes; the others (byte order of a key, what a set's `typeof`
//! was) stay as they are.
//!
//! # References
//!
//! `libnftnl/udata.h`.

use crate::nft::{Comment, Datatype, KeyType, MapTo, Set};

/// Type of the comment of a table, chain, rule, element or stateful object.
pub(super) const COMMENT: u8 = 0;
/// Type of the comment of a set, where 0 is the byte order of the key.
pub(super) const SET_COMMENT: u8 = 7;
const SET_KEY_BYTE_ORDER: u8 = 0;
const SET_DATA_BYTE_ORDER: u8 = 1;
const SET_DATA_INTERVAL: u8 = 6;

/// The kernel's bound: `NFT_USERDATA_MAXLEN`.
pub(super) const MAX_LEN: usize = 256;

/// The first note and what follows it.
fn note(data: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [kind, len, rest @ ..] = data else { return None };
    let value = rest.get(..usize::from(*len))?;
    Some((*kind, value, &rest[value.len()..]))
}

/// Takes the comment out of user data. [`join`] puts it back where it was; what it would put elsewhere is left in.
pub(super) fn split(kind: u8, data: &[u8]) -> (Option<Comment>, Vec<u8>) {
    let mut rest = data;
    while let Some((found, value, after)) = note(rest) {
        if found == kind {
            let text = value.strip_suffix(b"\0").and_then(|text| std::str::from_utf8(text).ok());
            if let Some(comment) = text.and_then(|text| Comment::new(text).ok()) {
                let others = [&data[..data.len() - rest.len()], after].concat();
                if join(kind, Some(&comment), &others) == data {
                    return (Some(comment), others);
                }
            }
            break;
        }
        rest = after;
    }
    (None, data.to_vec())
}

/// Puts a comment between the other notes, in the order of their types.
pub(super) fn join(kind: u8, comment: Option<&Comment>, others: &[u8]) -> Vec<u8> {
    let Some(comment) = comment else { return others.to_vec() };
    let mut after = others;
    while let Some((found, _, next)) = note(after) {
        if found > kind {
            break;
        }
        after = next;
    }
    let text = comment.as_str().as_bytes();
    let mut data = Vec::with_capacity(others.len() + 3 + text.len());
    data.extend_from_slice(&others[..others.len() - after.len()]);
    // A comment has at most 128 bytes.
    data.extend([kind, (text.len() + 1) as u8]);
    data.extend_from_slice(text);
    data.push(0);
    data.extend_from_slice(after);
    data
}

/// The notes without which nft(8) prints elements of a set wrong: byte orders.
pub(super) fn of_set(set: &Set) -> Vec<u8> {
    let mut data = Vec::with_capacity(18);
    let mut put = |kind, order: u32| {
        data.extend([kind, 4]);
        data.extend(order.to_ne_bytes());
    };
    put(SET_KEY_BYTE_ORDER, byte_order(&set.key));
    match &set.data {
        None | Some(MapTo::Object(_)) => {}
        Some(MapTo::Value(value)) => put(SET_DATA_BYTE_ORDER, byte_order(value)),
        Some(MapTo::Verdict) => put(SET_DATA_BYTE_ORDER, UNKNOWN_ORDER),
    }
    if set.data.is_some() {
        // Values, not ranges of them.
        put(SET_DATA_INTERVAL, 0);
    }
    data
}

const UNKNOWN_ORDER: u32 = 0;
const MACHINE_ORDER: u32 = 1;
const NETWORK_ORDER: u32 = 2;

/// `enum byteorder` of nft(8).
fn byte_order(key: &KeyType) -> u32 {
    let [single] = key.0.as_slice() else { return UNKNOWN_ORDER };
    match single {
        Datatype::Mark
        | Datatype::IfaceIndex
        | Datatype::IfaceType
        | Datatype::Realm
        | Datatype::ClassId
        | Datatype::Uid
        | Datatype::Gid
        | Datatype::Time
        | Datatype::CtState
        | Datatype::CtDir
        | Datatype::CtStatus
        | Datatype::CtLabel
        | Datatype::CtEvent
        | Datatype::PktType
        | Datatype::DevGroup
        | Datatype::FibAddrType
        | Datatype::NfProto
        | Datatype::IfName
        | Datatype::Boolean
        | Datatype::Hour
        | Datatype::Day
        | Datatype::CgroupV2 => MACHINE_ORDER,
        Datatype::InetProto | Datatype::Other { .. } => UNKNOWN_ORDER,
        _ => NETWORK_ORDER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_goes_back_where_it_was() {
        let comment = Comment::new("ab").unwrap();
        let with = [0, 1, 9, 7, 3, b'a', b'b', 0, 8, 1, 1];
        assert_eq!(split(7, &with), (Some(comment.clone()), vec![0, 1, 9, 8, 1, 1]));
        assert_eq!(join(7, Some(&comment), &[0, 1, 9, 8, 1, 1]), with);
        // Out of order, not text, cut short: left as it is.
        for odd in [&[8, 1, 1, 7, 3, b'a', b'b', 0][..], &[7, 2, 0xff, 0], &[7, 9, 1], &[7]] {
            assert_eq!(split(7, odd), (None, odd.to_vec()));
        }
    }
}
