//! Transactions to batches, through libnftnl.
//!
//! libnftnl trusts its caller: it copies values past the end of its own fields, truncates names and writes messages into whatever
//! follows the buffer. So every length is bounded before it gets there, and every message is given room for its worst
//! case. A batch is one contiguous buffer for one `send`: the kernel takes what comes in one datagram all together or not
//! at all, and of two datagrams it would commit the first without the second.
#![allow(unsafe_code)]

mod attributes;
mod batch;
mod buffer;
mod element;
mod expr;
mod load;
mod named;
mod object;
mod set;
mod statement;
mod table;

use std::borrow::Cow;
use std::time::Duration;

use mnl::mnl_sys::libc::nlmsghdr;

use self::attributes::Attributes;
pub use self::batch::{Batch, Part};
use self::buffer::{Buffer, HEADERS, Head};
use self::object::Fault;
use super::{Kind, flag, user_data};
use crate::nft::{Comment, Extra, Family, Generation, Object, Operation, TableId, Transaction, Verb};

/// Says which operation cannot be encoded, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {reason}")]
pub struct EncodeError {
    /// Index of the operation in its transaction.
    pub operation: usize,
    /// The operation, as text.
    pub object: String,
    /// Why not.
    pub reason: Cow<'static, str>,
}

/// A name of 255 bytes with its NUL, or 256 bytes of user data, behind an attribute header.
const TEXT_ROOM: usize = 4 + 256;
const NUMBER_ROOM: usize = 8;
const WIDE_ROOM: usize = 12;

/// `NFTA_SET_ELEM_LIST_ELEMENTS`.
const ELEMENTS: u16 = 3;

/// The most bytes of a list in a message. The length of an attribute has sixteen bits; this leaves some.
const MAX_LIST: usize = 60_000;

/// Encodes a transaction.
///
/// # Errors
///
/// [`EncodeError`] when an operation is none the kernel has (flush a rule, insert a table), when a rule has more than
/// [`Rule::MAX_EXPRS`](crate::nft::Rule::MAX_EXPRS) expressions, or when a value is longer than the kernel and libnftnl can hold.
pub fn encode(transaction: &Transaction) -> Result<Batch, EncodeError> {
    encode_from(transaction, 1, false)
}

/// [`encode`], with the sequence number of the opening message. With `echo`, the kernel tells of everything that it makes.
pub(crate) fn encode_from(transaction: &Transaction, first: u32, echo: bool) -> Result<Batch, EncodeError> {
    let operations = transaction.operations();
    let mut encoder = Encoder { buffer: Buffer::default(), first, messages: 0, echo };
    // Guessed, to spare the first doublings.
    encoder.buffer.reserve(operations.len().min(1 << 16) * 256);
    encoder.open(transaction.generation());
    let mut starts = Vec::with_capacity(operations.len());
    for (index, operation) in operations.iter().enumerate() {
        starts.push(encoder.messages);
        encoder.operation(operation, index).map_err(|reason| EncodeError {
            operation: index,
            object: operation.to_string(),
            reason,
        })?;
    }
    encoder.close();
    Ok(Batch { buffer: encoder.buffer, first, starts, messages: encoder.messages })
}

struct Encoder {
    buffer: Buffer,
    first: u32,
    messages: u32,
    echo: bool,
}

impl Encoder {
    fn open(&mut self, generation: Option<Generation>) {
        let start = self.buffer.as_bytes().len();
        self.buffer.begin(self.first);
        // libnftnl knows no attribute of the opening message. Generation 0 is none: the kernel then does not compare.
        let header = u32::from_ne_bytes({
            let [len, kind] = [8u16.to_ne_bytes(), 1u16.to_ne_bytes()];
            [len[0], len[1], kind[0], kind[1]]
        });
        self.buffer.push_words(&[header, generation.map_or(0, |generation| generation.0.to_be())]);
        self.buffer.set_word(start, (HEADERS + 8) as u32);
    }

    fn close(&mut self) {
        let start = self.buffer.as_bytes().len();
        self.buffer.end(self.first.wrapping_add(self.messages).wrapping_add(1));
        // One acknowledgement for the whole batch: one a message overruns the receive buffer past some hundred of them.
        // The word behind the length is type and flags.
        let [a, b] = (17u16).to_ne_bytes();
        let [c, d] = (flag::REQUEST | flag::ACK).to_ne_bytes();
        self.buffer.set_word(start + 4, u32::from_ne_bytes([a, b, c, d]));
    }

    /// # Safety
    ///
    /// `fill` appends no more than `room` bytes.
    unsafe fn message(
        &mut self,
        kind: Kind,
        flags: u16,
        table: &TableId,
        room: usize,
        fill: impl FnOnce(*mut nlmsghdr),
    ) {
        let head = self.head(kind, flags, Some(table.family));
        // SAFETY: passed on.
        unsafe { self.buffer.message(head, room, fill) }
    }

    /// Appends a message of attributes.
    fn plain(&mut self, kind: Kind, flags: u16, family: Option<Family>, attributes: &Attributes) {
        let head = self.head(kind, flags, family);
        let bytes = attributes.as_bytes();
        // SAFETY: there is room for the bytes.
        unsafe { self.buffer.message(head, bytes.len(), |message| buffer::append(message, bytes)) }
    }

    fn head(&mut self, kind: Kind, flags: u16, family: Option<Family>) -> Head {
        self.messages += 1;
        let seq = self.first.wrapping_add(self.messages);
        let echo = if self.echo { flag::ECHO } else { 0 };
        // Family 0 is all of them.
        let family = family.map_or(0, Family::to_wire);
        Head { kind: kind.to_wire(), family, flags: flags | echo | flag::REQUEST, seq }
    }

    fn operation(&mut self, operation: &Operation, index: usize) -> Result<(), Fault> {
        let verb = operation.verb;
        match &operation.object {
            Object::Table(table) => self.table(verb, table),
            Object::Chain(chain) => self.chain(verb, chain),
            Object::ChainName { table, handle, to } => self.rename(verb, table, *handle, to),
            Object::Rule(rule) => self.rule(verb, rule),
            // The kernel wants a number for each new set of a transaction, by which others could refer to it.
            Object::Set(set) => self.set(verb, set, index as u32 + 1),
            Object::Elements { table, set, elements } => self.elements(verb, table, set, elements),
            Object::Stateful(object) => self.stateful(verb, object),
            Object::Flowtable(flowtable) => self.flowtable(verb, flowtable),
            Object::Everything => match verb {
                Verb::Flush => {
                    self.plain(Kind::DelTable, 0, None, &Attributes::new());
                    Ok(())
                }
                _ => Err("a ruleset can only be flushed".into()),
            },
        }
    }
}

/// The message and its flags for what is made or removed as a whole.
fn kind_of(verb: Verb, [new, delete, destroy]: [Kind; 3], what: &str) -> Result<(Kind, u16), Fault> {
    match verb {
        Verb::Add => Ok((new, flag::CREATE)),
        Verb::Create => Ok((new, flag::CREATE | flag::EXCL)),
        Verb::Delete => Ok((delete, 0)),
        Verb::Destroy => Ok((destroy, 0)),
        Verb::Insert => Err(Cow::Owned(format!("a {what} has no place to be inserted at"))),
        Verb::Replace => Err(Cow::Owned(format!("a {what} is not replaced, but deleted and made anew"))),
        Verb::Rename => Err("only a chain's name can be changed".into()),
        Verb::Flush => Err(Cow::Owned(format!("a {what} holds nothing that could be flushed"))),
    }
}

/// Attributes that an object carries beside the fields of its type.
fn kept(extra: &Extra) -> Result<Attributes, Fault> {
    let mut attributes = Attributes::new();
    for attribute in extra.attributes() {
        attributes.bytes(attribute.kind, attribute.value.as_slice())?;
    }
    Ok(attributes)
}

/// Whether one of these takes the place of what follows from the object's fields.
fn overridden(extra: &Extra, kind: u16) -> bool {
    extra.attributes().iter().any(|attribute| attribute.kind == kind)
}

/// An object's user data, in which its comment is. `None` when it has neither.
fn notes(kind: u8, comment: Option<&Comment>, extra: &Extra, derived: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let data = user_data::join(kind, comment, extra.user_data().unwrap_or(derived));
    if data.len() > user_data::MAX_LEN {
        let (len, max) = (data.len(), user_data::MAX_LEN);
        return Err(Cow::Owned(format!("{len} bytes of user data, more than the kernel's {max}")));
    }
    Ok(Some(data).filter(|data| !data.is_empty()))
}

/// The kernel's unit. Rounded up: 0 would mean for ever.
fn milliseconds(time: Duration) -> Result<u64, Fault> {
    u64::try_from(time.as_nanos().div_ceil(1_000_000))
        .map_err(|_| Cow::Owned(format!("a time of {} seconds, more than the kernel can count", time.as_secs())))
}
