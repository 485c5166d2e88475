//! Bytes to [`nft`](crate::nft) types, in safe Rust.
//!
//! Whatever the kernel dumps becomes a value that says all of it: an attribute that no field can hold is kept beside the fields, an
//! expression without a type of its own stays as the kernel spelled it. Left out is what the kernel counts and numbers by
//! itself (handles of tables, sets and chains, use counts), and what it dumps but does not take back.

mod edit;
mod element;
mod expr;
mod fields;
mod object;
mod set;
mod table;

use std::borrow::Cow;

pub use edit::{Deleted, Edit, change};

use super::{GENERIC_LEN, Kind};
use crate::nft::{Extra, Family, Generation, Handle, NameError, Object, RawAttribute, TableId, TableName};
use crate::wire::netlink::{Attribute, DecodeError, Message};

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

/// Decodes a message that says that an object is there: a table, chain, rule, set, stateful object or flowtable, or
/// elements of a set.
///
/// # Errors
///
/// [`DecodeError`] when the message is of another type, is cut short, lacks what the object needs, or has a name that is no
/// UTF-8.
///
/// # References
///
/// `linux/netfilter/nf_tables.h`: `NFT_MSG_NEWTABLE` and so on.
pub fn decode(message: &Message<'_>) -> Result<Object, DecodeError> {
    object(message)
}

/// The number that the kernel gave to what a message is about. `None` for elements, which have none.
///
/// # Errors
///
/// [`DecodeError`] when the message is cut short.
pub fn handle(message: &Message<'_>) -> Result<Option<Handle>, DecodeError> {
    const PLACES: [(Kind, u16); 6] = [
        (Kind::NewTable, 4),
        (Kind::NewChain, 2),
        (Kind::NewRule, 3),
        (Kind::NewSet, 16),
        (Kind::NewObject, 6),
        (Kind::NewFlowtable, 5),
    ];
    number_at(&PLACES, message)?.map(|attribute| attribute.be64("handle").map(Handle)).transpose()
}

/// What the kernel counts of an object: of a table, what is in it; of a chain, its rules and whatever jumps to it; of a set, its elements
/// (Linux 6.17). `None` of anything else.
///
/// # Errors
///
/// [`DecodeError`] when the message is cut short.
#[doc(alias = "NFTA_TABLE_USE")]
#[doc(alias = "NFTA_CHAIN_USE")]
#[doc(alias = "NFTA_SET_COUNT")]
pub(crate) fn count(message: &Message<'_>) -> Result<Option<u32>, DecodeError> {
    number_at(&[(Kind::NewTable, 3), (Kind::NewChain, 6), (Kind::NewSet, 20)], message)?
        .map(|attribute| attribute.be32("a count"))
        .transpose()
}

/// The attribute in the place that a kind of message has for it.
fn number_at<'a>(places: &[(Kind, u16)], message: &Message<'a>) -> Result<Option<Attribute<'a>>, DecodeError> {
    let place = places.iter().find(|(kind, _)| kind.to_wire() == message.header.kind);
    let Some((_, place)) = place else { return Ok(None) };
    attribute(message, *place)
}

/// The first attribute of that number.
fn attribute<'a>(message: &Message<'a>, number: u16) -> Result<Option<Attribute<'a>>, DecodeError> {
    for attribute in message.attributes("nf_tables header", GENERIC_LEN)? {
        let attribute = attribute?;
        if attribute.kind == number {
            return Ok(Some(attribute));
        }
    }
    Ok(None)
}

fn object(message: &Message<'_>) -> Result<Object, DecodeError> {
    let offset = message.offset;
    let attributes = message.attributes("nf_tables header", GENERIC_LEN)?;
    let number = message.payload.first().copied().unwrap_or(0);
    let family =
        Family::from_wire(number).ok_or_else(|| unknown("nf_tables header", offset, format!("family {number}")))?;
    match message.header.kind {
        kind if kind == Kind::NewTable.to_wire() => table::table(family, attributes, offset).map(Object::Table),
        kind if kind == Kind::NewChain.to_wire() => table::chain(family, attributes, offset).map(Object::Chain),
        kind if kind == Kind::NewRule.to_wire() => table::rule(family, attributes, offset).map(Object::Rule),
        kind if kind == Kind::NewSet.to_wire() => set::set(family, attributes, offset).map(Object::Set),
        kind if kind == Kind::NewSetElem.to_wire() => {
            let (table, set, elements) = element::list(family, attributes, offset)?;
            Ok(Object::Elements { table, set, elements })
        }
        kind if kind == Kind::NewObject.to_wire() => object::stateful(family, attributes, offset).map(Object::Stateful),
        kind if kind == Kind::NewFlowtable.to_wire() => {
            object::flowtable(family, attributes, offset).map(Object::Flowtable)
        }
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
    commit(message).map(|(generation, _)| generation)
}

/// Decodes the message that ends the changes of one transaction: the number of the ruleset that it made, and who committed it.
///
/// # Errors
///
/// As [`generation`].
pub fn commit(message: &Message<'_>) -> Result<(Generation, Option<Author>), DecodeError> {
    const WHAT: &str = "generation";
    if message.header.kind != Kind::NewGen.to_wire() {
        return Err(unknown(WHAT, message.offset, format!("type {:#x}", message.header.kind)));
    }
    let (mut number, mut pid, mut name) = (None, None, None);
    for attribute in message.attributes(WHAT, GENERIC_LEN)? {
        let attribute = attribute?;
        match attribute.kind {
            1 => number = Some(Generation(attribute.be32(WHAT)?)),
            2 => pid = Some(attribute.be32("process of the commit")?),
            3 => name = fields::text(attribute).map(str::to_owned),
            _ => {}
        }
    }
    let number = number.ok_or_else(|| missing(WHAT, message.offset, "a number"))?;
    // Process 0 is the kernel.
    Ok((number, pid.map(|pid| Author { pid, name: name.unwrap_or_default() })))
}

/// Whether a message ends the changes of one transaction.
pub(crate) fn is_commit(message: &Message<'_>) -> bool {
    message.header.kind == Kind::NewGen.to_wire()
}

/// Whether a message is about that table or something in it. Of every kind of message, the table's name is the first attribute.
pub(crate) fn is_of(message: &Message<'_>, table: &TableId) -> bool {
    let family = message.payload.first().copied().and_then(Family::from_wire);
    let named = |attributes: crate::wire::netlink::Attributes<'_>| {
        attributes.flatten().any(|attribute| attribute.kind == 1 && attribute.text("table") == Ok(table.name.as_str()))
    };
    family == Some(table.family) && message.attributes("nf_tables header", GENERIC_LEN).is_ok_and(named)
}

/// Who committed a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// Process, as the initial namespace numbers it.
    #[doc(alias = "NFTA_GEN_PROC_PID")]
    pub pid: u32,
    /// Its name, which it chose itself.
    #[doc(alias = "NFTA_GEN_PROC_NAME")]
    pub name: String,
}

/// What is kept of an object beside the fields of its type.
#[derive(Default)]
struct Rest<'a> {
    user_data: Option<&'a [u8]>,
    attributes: Vec<RawAttribute>,
}

impl<'a> Rest<'a> {
    fn keep(&mut self, attribute: Attribute<'a>) {
        let value = crate::nft::Bytes(attribute.payload.to_vec());
        self.attributes.push(RawAttribute { kind: attribute.kind, value });
    }

    /// Keeps an attribute if no field says all of it. Of several of its kind the last one counts, as it does for the fields.
    fn keep_if(&mut self, odd: bool, attribute: Attribute<'a>) {
        self.attributes.retain(|kept| kept.kind != attribute.kind);
        if odd {
            self.keep(attribute);
        }
    }

    /// The comment, and the rest of the user data where it is not what follows from the object.
    fn with_comment(self, kind: u8, derived: &[u8]) -> (Option<crate::nft::Comment>, Extra) {
        let (comment, others) = super::user_data::split(kind, self.user_data.unwrap_or_default());
        let others = (others != derived).then_some(others);
        (comment, Extra::new(others, self.attributes))
    }
}

fn table_id(family: Family, attribute: Attribute<'_>) -> Result<TableId, DecodeError> {
    Ok(TableId { family, name: name(TableName::new, "table name", attribute)? })
}
