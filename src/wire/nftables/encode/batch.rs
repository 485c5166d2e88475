//! An encoded transaction, and the way back from what the kernel says about it to what was asked.

use std::fmt;

use super::ELEMENTS;
use super::buffer::{Buffer, HEADERS};
use crate::nft::{Data, Generation};
use crate::wire::netlink::{self, Attribute};
use crate::wire::nftables::{GENERIC_LEN, Kind};

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

    /// The part of a message that the kernel's extended ACK points to.
    ///
    /// `offset` counts from the start of the message with that sequence number.
    pub fn locate(&self, seq: u32, offset: u32) -> Option<Part> {
        let message = netlink::messages(self.as_bytes()).flatten().find(|message| message.header.seq == seq)?;
        let at = message.offset.checked_sub(netlink::HEADER_LEN)?.checked_add(offset as usize)?;
        let rule = message.header.kind == Kind::NewRule.to_wire();
        if !rule && ![Kind::NewSetElem, Kind::DelSetElem].iter().any(|kind| kind.to_wire() == message.header.kind) {
            return None;
        }
        let list = if rule { RULE_EXPRESSIONS } else { ELEMENTS };
        let mut attributes = message.attributes("message", GENERIC_LEN).ok()?.flatten();
        let list = attributes.find(|attribute| attribute.kind == list)?;
        // The offset is that of an attribute's header.
        let holds = |item: &Attribute<'_>| (item.offset - 4..item.offset + item.payload.len()).contains(&at);
        let (index, item) = list.nested().flatten().enumerate().find(|(_, item)| holds(item))?;
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
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Expression { index, name } => write!(f, "expression {index} (`{name}`)"),
            Part::Element { key } => write!(f, "element {key:?}"),
        }
    }
}
