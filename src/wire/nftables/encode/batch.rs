//! An encoded transaction, and the way back from what the kernel says about it to what was asked.

use std::fmt;

use super::ELEMENTS;
use super::buffer::{Buffer, HEADERS};
use crate::nft::{Data, Generation};
use crate::wire::netlink::{self, Attribute};
use crate::wire::nftables::{GENERIC_LEN, Kind, attribute};

/// Names of attributes, by number.
type Names = &'static [(u16, &'static str)];

/// What the attributes of each message are called here, by their number.
const NAMES: &[(&[Kind], Names)] = &[
    (&[Kind::NewTable, Kind::DelTable, Kind::DestroyTable], &[(1, "name"), (2, "flags"), (6, "user data")]),
    (
        &[Kind::NewChain, Kind::DelChain, Kind::DestroyChain],
        &[
            (1, "table"),
            (2, "handle"),
            (3, "name"),
            (4, "hook, priority or device"),
            (5, "policy"),
            (7, "type"),
            (10, "flags"),
            (12, "user data"),
        ],
    ),
    (
        &[Kind::NewRule, Kind::DelRule, Kind::DestroyRule],
        &[
            (1, "table"),
            (2, "chain"),
            (3, "handle"),
            (4, "expressions"),
            (5, "compatibility"),
            (6, "position"),
            (7, "user data"),
        ],
    ),
    (
        &[Kind::NewSet, Kind::DelSet, Kind::DestroySet],
        &[
            (1, "table"),
            (2, "name"),
            (3, "flags"),
            (4, "type of the key"),
            (5, "length of the key"),
            (6, "type of the values"),
            (7, "length of the values"),
            (8, "policy"),
            (9, "size or fields"),
            (11, "timeout"),
            (12, "interval of garbage collection"),
            (13, "user data"),
            (15, "type of the objects"),
            (17, "expression"),
            (18, "expressions"),
        ],
    ),
    (&[Kind::NewSetElem, Kind::DelSetElem, Kind::DestroySetElem], &[(1, "table"), (2, "set"), (3, "elements")]),
    (
        &[Kind::NewObject, Kind::DelObject, Kind::DestroyObject],
        &[(1, "table"), (2, "name"), (3, "type"), (4, "state"), (8, "user data")],
    ),
    (
        &[Kind::NewFlowtable, Kind::DelFlowtable, Kind::DestroyFlowtable],
        &[(1, "table"), (2, "name"), (3, "priority or devices"), (7, "flags")],
    ),
];

/// `NFTA_RULE_EXPRESSIONS`.
const RULE_EXPRESSIONS: u16 = 4;

/// A transaction as bytes for one `send`.
///
/// Each message has a sequence number, by which the kernel's complaint leads back to the operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(alias = "NFNL_MSG_BATCH_BEGIN")]
pub struct Batch {
    pub(super) buffer: Buffer,
    /// Sequence number of the message that opens the batch.
    pub(super) first: u32,
    /// For each operation, how many messages stand between the opening one and its own first.
    pub(super) starts: Vec<u32>,
    /// How many messages there are between the opening and the closing one.
    pub(super) messages: u32,
}

impl Batch {
    /// Where the generation stands in the opening message: behind the headers and its own attribute header.
    const GENERATION_AT: usize = HEADERS + 4;

    /// The bytes to send.
    pub fn as_bytes(&self) -> &[u8] {
        self.buffer.as_bytes()
    }

    /// Sequence number of the message that opens the batch: complaints about the whole of it bear this one.
    pub fn begin(&self) -> u32 {
        self.first
    }

    /// Sequence number of the message that closes the batch, which alone asks for an acknowledgement.
    pub fn end(&self) -> u32 {
        self.first.wrapping_add(self.messages).wrapping_add(1)
    }

    /// Index of the operation that the message with that sequence number belongs to. `None` for the opening and closing
    /// messages and for numbers of other batches.
    pub fn operation(&self, seq: u32) -> Option<usize> {
        let message = seq.wrapping_sub(self.first).checked_sub(1).filter(|index| *index < self.messages)?;
        // Of operations without a message (no elements to add), the last one at this place owns the message.
        self.starts.partition_point(|start| *start <= message).checked_sub(1)
    }

    /// Binds the batch to the ruleset of that generation.
    #[doc(alias = "NFNL_BATCH_GENID")]
    pub fn bind(&mut self, generation: Generation) {
        self.buffer.set_word(Self::GENERATION_AT, generation.0.to_be());
    }

    /// The generation that the batch is bound to.
    pub fn bound(&self) -> Option<Generation> {
        Some(Generation(u32::from_be(self.buffer.word(Self::GENERATION_AT)))).filter(|bound| bound.0 != 0)
    }

    /// The kernel's name for the attribute that its extended ACK points to, the innermost one: `NFTA_RULE_CHAIN`.
    ///
    /// It never points into an expression, an element or an object's state, but to the whole of it.
    ///
    /// `offset` counts from the start of the message with that sequence number.
    pub fn attribute(&self, seq: u32, offset: u32) -> Option<String> {
        let (message, at) = self.place(seq, offset)?;
        attribute::at(&message, at)
    }

    /// A message, and where in the batch that offset of it is.
    fn place(&self, seq: u32, offset: u32) -> Option<(netlink::Message<'_>, usize)> {
        let message = netlink::messages(self.as_bytes()).flatten().find(|message| message.header.seq == seq)?;
        let at = message.offset.checked_sub(netlink::HEADER_LEN)?.checked_add(offset as usize)?;
        Some((message, at))
    }

    /// The part of a message that the kernel's extended ACK points to.
    ///
    /// `offset` counts from the start of the message with that sequence number.
    pub fn locate(&self, seq: u32, offset: u32) -> Option<Part> {
        let (message, at) = self.place(seq, offset)?;
        let kind = message.header.kind;
        let rule = kind == Kind::NewRule.to_wire();
        let elements = [Kind::NewSetElem, Kind::DelSetElem].iter().any(|elements| elements.to_wire() == kind);
        // The offset is that of an attribute's header.
        let holds = |item: &Attribute<'_>| (item.offset - 4..item.offset + item.payload.len()).contains(&at);
        let attribute = message.attributes("message", GENERIC_LEN).ok()?.flatten().find(holds)?;
        let list = (rule && attribute.kind == RULE_EXPRESSIONS) || (elements && attribute.kind == ELEMENTS);
        let item = list.then(|| attribute.nested().flatten().enumerate().find(|(_, item)| holds(item))).flatten();
        let Some((index, item)) = item else {
            let names = NAMES.iter().find(|(kinds, _)| kinds.iter().any(|named| named.to_wire() == kind));
            let name = names.and_then(|(_, names)| names.iter().find(|(number, _)| *number == attribute.kind));
            return name.map(|(_, name)| Part::Attribute { name });
        };
        let first = item.nested().flatten().find(|attribute| attribute.kind == 1)?;
        if rule {
            Some(Part::Expression { index, name: first.text("name").ok()?.to_owned() })
        } else {
            let key = first.nested().flatten().find(|attribute| attribute.kind == 1)?;
            Data::new(key.payload).ok().map(|key| Part::Element { key })
        }
    }
}

/// Part of an operation that the kernel did not like.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// An expression of a rule.
    Expression {
        /// Which one, from 0.
        index: usize,
        /// The kernel's name for it.
        name: String,
    },
    /// An element of a set.
    Element {
        /// Its key.
        key: Data,
    },
    /// A field of what the operation is about.
    Attribute {
        /// What it is called here.
        name: &'static str,
    },
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Expression { index, name } => write!(f, "expression {index} (`{name}`)"),
            Part::Element { key } => write!(f, "element {key:?}"),
            Part::Attribute { name } => f.write_str(name),
        }
    }
}
