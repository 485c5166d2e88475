//! What nft(8) notes in a set's user data: of which expressions keys and values have the types (`typeof`), and their byte order.

use super::field::{self, Context, Field};
use super::header::{EXTENSIONS, HEADERS, INTEGER, STRING, presence};
use super::load;
use super::value::Kind;
use crate::nft::{
    CtDirection, CtKey, Datatype, ExthdrOp, Family, FibFlags, FibResult, Hash, KeyType, MapTo, MetaKey, NumgenKind,
    RtKey, Set, SocketKey, XfrmDirection, XfrmKey,
};

/// `enum nftnl_set_udata_types`
const KEY_ORDER: u8 = 0;
const DATA_ORDER: u8 = 1;
const MERGE: u8 = 2;
const KEY: u8 = 3;
const DATA: u8 = 4;
const DATA_INTERVAL: u8 = 6;

/// Byte order of the network, of `enum byteorder`.
const NETWORK: u32 = 2;

/// The expressions of which a set's key has the types, one a field.
pub(super) fn key(set: &Set) -> Option<Vec<Field>> {
    expressions(set, KEY).filter(|fields| same_types(fields, &set.key))
}

/// The expressions of which a map's values have the types, one a field.
pub(super) fn data(set: &Set) -> Option<Vec<Field>> {
    let to = data_type(set)?;
    expressions(set, DATA).filter(|fields| same_types(fields, &to))
}

/// The type of a map's values, or of their bounds where they are ranges.
pub(super) fn data_type(set: &Set) -> Option<KeyType> {
    let Some(MapTo::Value(to)) = &set.data else { return None };
    match to.0.as_slice() {
        // Two of them, one behind the other.
        [Datatype::Other { number, size }] if has_ranges(set) => match KeyType::from_number(*number) {
            Some(bound) if 2 * bound.len() == usize::from(*size) => Some(bound),
            _ => None,
        },
        _ if has_ranges(set) => None,
        _ => Some(to.clone()),
    }
}

/// Whether values of a map are ranges.
pub(super) fn has_ranges(set: &Set) -> bool {
    number(notes(set), DATA_INTERVAL).is_some_and(|flag| flag != 0)
}

/// Whether nft(8) joins ranges that touch.
pub(super) fn merges(set: &Set) -> bool {
    number(notes(set), MERGE).is_some_and(|flag| flag != 0)
}

/// Whether numbers in keys are the network's.
pub(super) fn key_order(set: &Set) -> bool {
    number(notes(set), KEY_ORDER) == Some(NETWORK)
}

/// Whether numbers in values are the network's.
pub(super) fn data_order(set: &Set) -> bool {
    number(notes(set), DATA_ORDER) == Some(NETWORK)
}

/// What a value of a type is, in the byte order of the network or the machine's.
pub(super) fn kind(datatype: Datatype, network: bool) -> Option<Kind> {
    match datatype {
        Datatype::Other { number: INTEGER, .. } => Some(if network { Kind::Number } else { Kind::Native }),
        Datatype::Other { number: STRING, .. } => Some(Kind::Text),
        _ => Kind::of(datatype),
    }
}

/// The set with the types of the fields of its key, where only its user data tells them: nft(8) gives integers no length.
pub(super) fn resolved(set: &Set) -> Set {
    let mut set = set.clone();
    let concatenation = |key: &KeyType| matches!(key.0.as_slice(), [Datatype::Other { number: 64.., .. }]);
    if concatenation(&set.key)
        && let Some(fields) = expressions(&set, KEY).and_then(|fields| types(&fields, &set.key))
    {
        set.key = fields;
    }
    if let Some(MapTo::Value(to)) = &set.data
        && concatenation(to)
        && !has_ranges(&set)
        && let Some(fields) = expressions(&set, DATA).and_then(|fields| types(&fields, to))
    {
        set.data = Some(MapTo::Value(fields));
    }
    set
}

/// The types of fields, if together they are the type of a key.
fn types(fields: &[Field], key: &KeyType) -> Option<KeyType> {
    let types = fields.iter().map(|field| Datatype::from_number(field.datatype, field.width)).collect::<Option<_>>()?;
    let types = KeyType(types);
    (types.len() == key.len() && types.number() == key.number()).then_some(types)
}

fn same_types(fields: &[Field], key: &KeyType) -> bool {
    fields.iter().map(|field| field.datatype).eq(key.0.iter().map(|datatype| datatype.number()))
}

fn notes(set: &Set) -> &[u8] {
    set.extra.user_data().unwrap_or_default()
}

/// The first note of a kind.
fn note(mut notes: &[u8], wanted: u8) -> Option<&[u8]> {
    while let [kind, len, rest @ ..] = notes {
        let value = rest.get(..usize::from(*len))?;
        if *kind == wanted {
            return Some(value);
        }
        notes = &rest[value.len()..];
    }
    None
}

fn number(notes: &[u8], wanted: u8) -> Option<u32> {
    Some(u32::from_ne_bytes(note(notes, wanted)?.try_into().ok()?))
}

fn expressions(set: &Set, wanted: u8) -> Option<Vec<Field>> {
    let notes = note(notes(set), wanted)?;
    let (id, data) = (number(notes, 0)?, note(notes, 1)?);
    if id != CONCAT {
        return Some(vec![expression(set.table.family, id, data)?]);
    }
    let mut fields = Vec::new();
    // A key has five fields at most.
    for at in 0..16 {
        let Some(notes) = note(data, at) else { break };
        fields.push(expression(set.table.family, number(notes, 0)?, note(notes, 1).unwrap_or_default())?);
    }
    Some(fields)
}

/// `enum expr_types` of nft(8)
const PAYLOAD: u32 = 7;
const EXTHDR: u32 = 8;
const META: u32 = 9;
const SOCKET: u32 = 10;
const OSF: u32 = 11;
const CT: u32 = 12;
const CONCAT: u32 = 13;
const NUMGEN: u32 = 23;
const HASH: u32 = 24;
const RT: u32 = 25;
const FIB: u32 = 26;
const XFRM: u32 = 27;

fn expression(family: Family, id: u32, data: &[u8]) -> Option<Field> {
    let number = |kind| number(data, kind);
    match id {
        PAYLOAD => match HEADERS.iter().find(|header| Some(header.number) == number(0)) {
            Some(header) => {
                let part = header.fields.iter().find(|part| Some(part.number) == number(1))?;
                Some(Field::new(format!("{} {}", header.word, part.name), part.kind, part.datatype, part.width()))
            }
            None if number(0) == Some(0) => {
                let base = ["ll", "nh", "th", "ih"].get((number(2)? as usize).wrapping_sub(1))?;
                let (start, bits) = (number(3)?, number(4)?);
                Some(Field::new(format!("@{base},{start},{bits}"), Kind::Number, INTEGER, bits.div_ceil(8) as usize))
            }
            None => None,
        },
        EXTHDR => {
            let op = match number(2) {
                None | Some(0) => ExthdrOp::Ipv6,
                Some(1) => ExthdrOp::TcpOption,
                Some(2) => ExthdrOp::Ipv4Option,
                Some(3) => ExthdrOp::SctpChunk,
                Some(_) => return None,
            };
            let found = EXTENSIONS.iter().filter(|extension| (extension.op, Some(extension.number)) == (op, number(0)));
            let part = found.clone().find_map(|extension| {
                let part = extension.fields.iter().find(|part| Some(part.number) == number(1))?;
                Some(Field::new(format!("{} {}", extension.word, part.name), part.kind, part.datatype, part.width()))
            });
            // The first byte of an option, which has no name, stands for its being there.
            part.or_else(|| {
                let text = presence(op, found.clone().next()?.kind).filter(|_| number(1) == Some(0))?;
                Some(Field::new(text, Kind::Number, INTEGER, 1))
            })
        }
        META => Context::new(family, None).field(field::Source::Meta(MetaKey::from_wire(number(0)?)?)),
        CT => {
            let direction = match number(1) {
                None | Some(u32::MAX) => None,
                Some(direction) => Some(CtDirection::from_wire(direction)?),
            };
            field::ct(Context::new(family, None).network, CtKey::from_wire(number(0)?)?, direction)
        }
        RT => Some(load::rt(RtKey::from_wire(number(0)?)?)),
        SOCKET => load::socket(SocketKey::from_wire(number(0)?)?, None).ok(),
        OSF => load::osf(0, 0).ok(),
        FIB => load::fib(FibResult::from_wire(number(0)?)?, FibFlags(number(1)?)).ok(),
        XFRM => {
            let direction = XfrmDirection::from_wire(number(2)?)?;
            Some(load::xfrm(XfrmKey::from_wire(number(0)?)?, direction, number(1)?))
        }
        NUMGEN => Some(load::numgen(NumgenKind::from_wire(number(0)?)?, number(1)?, number(2)?)),
        // Of the other hash, nft(8) does not note what it is of.
        HASH if number(0) == Some(1) => Some(load::hash(&Hash::Symmetric, "", number(2)?, number(4)?)),
        _ => None,
    }
}
