//! Transactions to batches, through libnftnl.
//!
//! libnftnl trusts its caller: it copies values past the end of its own fields, truncates names and writes messages into whatever
//! follows the buffer. So every length is bounded before it gets there, and every message is given room for its worst
//! case. A batch is one contiguous buffer for one `send`: the kernel takes what comes in one datagram all together or not
//! at all, and of two datagrams it would commit the first without the second.
#![allow(unsafe_code)]

mod batch;
mod buffer;
mod expr;
mod object;

use std::borrow::Cow;
use std::time::Duration;

use mnl::mnl_sys;
use mnl::mnl_sys::libc::nlmsghdr;
use nftnl::nftnl_sys as sys;

pub use self::batch::{Batch, Part};
use self::buffer::{Buffer, HEADERS, Head};
use self::object::{CText, Fault};
use super::{
    ELEMENT_INTERVAL_END, Kind, UDATA_COMMENT, UDATA_SET_COMMENT, UDATA_SET_KEY_BYTE_ORDER, flag, hook, set_flag,
    table_flag,
};
use crate::nft::{
    BaseChain, Chain, ChainPolicy, ChainType, Comment, Data, Datatype, Element, Generation, KeyType, Object, Operation,
    Rule, Set, SetName, Table, TableFlags, TableId, Transaction, Verb,
};

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

/// The most devices the kernel takes for one chain: `NFT_NETDEVICE_MAX`.
const MAX_DEVICES: usize = 256;

/// The most bytes of elements that go into one message. The length of an attribute has sixteen bits; this leaves some.
const MAX_ELEMENTS: usize = 60_000;

/// `NFTA_SET_ELEM_LIST_ELEMENTS`.
const ELEMENTS: u16 = 3;

// The list of expressions is an attribute too: the longest rule must fit.
const _: () = assert!(Rule::MAX_EXPRS * (24 + 60 + TEXT_ROOM) < u16::MAX as usize);

/// Encodes a transaction.
///
/// # Errors
///
/// [`EncodeError`] when an operation is none the kernel has (flush a rule, insert a table), when a rule has more than
/// [`Rule::MAX_EXPRS`] expressions, or when a value is longer than the kernel and libnftnl can hold.
pub fn encode(transaction: &Transaction) -> Result<Batch, EncodeError> {
    encode_from(transaction, 1)
}

/// [`encode`], with the sequence number of the opening message.
pub(crate) fn encode_from(transaction: &Transaction, first: u32) -> Result<Batch, EncodeError> {
    let operations = transaction.operations();
    let mut encoder = Encoder { buffer: Buffer::default(), first, messages: 0 };
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
        self.messages += 1;
        let seq = self.first.wrapping_add(self.messages);
        let head = Head { kind, family: table.family.to_wire(), flags: flags | flag::REQUEST, seq };
        // SAFETY: passed on.
        unsafe { self.buffer.message(head, room, fill) }
    }

    fn operation(&mut self, operation: &Operation, index: usize) -> Result<(), Fault> {
        match &operation.object {
            Object::Table(table) => self.table(operation.verb, table),
            Object::Chain(chain) => self.chain(operation.verb, chain),
            Object::Rule(rule) => self.rule(operation.verb, rule),
            Object::Set(set) => self.set(operation.verb, set, index),
            Object::Elements { table, set, elements } => self.elements(operation.verb, table, set, elements),
        }
    }

    fn table(&mut self, verb: Verb, table: &Table) -> Result<(), Fault> {
        let mut object = object::Table::new()?;
        object.text(sys::NFTNL_TABLE_NAME, "table name", table.id.name.as_str())?;
        let (kind, flags) = match verb {
            Verb::Add => (Kind::NewTable, flag::CREATE),
            Verb::Create => (Kind::NewTable, flag::CREATE | flag::EXCL),
            Verb::Delete => (Kind::DelTable, 0),
            Verb::Destroy => (Kind::DestroyTable, 0),
            Verb::Flush => return self.flush_rules(&table.id, None),
            Verb::Insert => return Err("a table has no place to be inserted at".into()),
        };
        if kind == Kind::NewTable {
            let TableFlags { dormant, owner, persist } = table.flags;
            let flags = [(dormant, table_flag::DORMANT), (owner, table_flag::OWNER), (persist, table_flag::PERSIST)];
            object.u32(sys::NFTNL_TABLE_FLAGS, flags.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum());
            if let Some(comment) = &table.comment {
                object.bytes(sys::NFTNL_TABLE_USERDATA, "comment", &user_data(UDATA_COMMENT, comment))?;
            }
        }
        // SAFETY: a name, a number and user data are all that was set.
        unsafe { self.message(kind, flags, &table.id, 2 * TEXT_ROOM + NUMBER_ROOM, |message| object.put(message)) };
        Ok(())
    }

    /// Deletes all rules of a table, or of one of its chains: a deletion without a handle.
    fn flush_rules(&mut self, table: &TableId, chain: Option<&str>) -> Result<(), Fault> {
        let mut object = object::Rule::new()?;
        object.text(sys::NFTNL_RULE_TABLE, "table name", table.name.as_str())?;
        if let Some(chain) = chain {
            object.text(sys::NFTNL_RULE_CHAIN, "chain name", chain)?;
        }
        // SAFETY: two names are all that was set; the list of expressions is empty.
        unsafe { self.message(Kind::DelRule, 0, table, 2 * TEXT_ROOM + NUMBER_ROOM, |message| object.put(message)) };
        Ok(())
    }

    fn chain(&mut self, verb: Verb, chain: &Chain) -> Result<(), Fault> {
        let (kind, flags) = match verb {
            Verb::Add => (Kind::NewChain, flag::CREATE),
            Verb::Create => (Kind::NewChain, flag::CREATE | flag::EXCL),
            Verb::Delete => (Kind::DelChain, 0),
            Verb::Destroy => (Kind::DestroyChain, 0),
            Verb::Flush => return self.flush_rules(&chain.table, Some(chain.name.as_str())),
            Verb::Insert => return Err("a chain has no place to be inserted at".into()),
        };
        let mut object = object::Chain::new()?;
        object.text(sys::NFTNL_CHAIN_TABLE, "table name", chain.table.name.as_str())?;
        object.text(sys::NFTNL_CHAIN_NAME, "chain name", chain.name.as_str())?;
        let mut room = 3 * TEXT_ROOM;
        // A deletion that names the hook takes just its devices away.
        if kind == Kind::NewChain {
            if let Some(base) = &chain.base {
                base_chain(&mut object, chain, base)?;
                // Type, policy, and the nest of hook with number, priority and the nest of devices.
                room += 2 * WIDE_ROOM + 4 * NUMBER_ROOM + base.devices.len() * (4 + 16);
            }
            if let Some(comment) = &chain.comment {
                object.bytes(sys::NFTNL_CHAIN_USERDATA, "comment", &user_data(UDATA_COMMENT, comment))?;
            }
        }
        // SAFETY: two names, user data, and what `room` was raised for are all that was set.
        unsafe { self.message(kind, flags, &chain.table, room, |message| object.put(message)) };
        Ok(())
    }

    fn rule(&mut self, verb: Verb, rule: &Rule) -> Result<(), Fault> {
        let (kind, flags) = match verb {
            Verb::Add => (Kind::NewRule, flag::CREATE | flag::APPEND),
            Verb::Create => (Kind::NewRule, flag::CREATE | flag::APPEND | flag::EXCL),
            Verb::Insert => (Kind::NewRule, flag::CREATE),
            Verb::Delete => (Kind::DelRule, 0),
            Verb::Destroy => (Kind::DestroyRule, 0),
            Verb::Flush => return Err("a rule holds nothing that could be flushed".into()),
        };
        let mut object = object::Rule::new()?;
        object.text(sys::NFTNL_RULE_TABLE, "table name", rule.table.name.as_str())?;
        object.text(sys::NFTNL_RULE_CHAIN, "chain name", rule.chain.as_str())?;
        let mut room = 3 * TEXT_ROOM + WIDE_ROOM + NUMBER_ROOM;
        if kind == Kind::NewRule {
            if rule.exprs.len() > Rule::MAX_EXPRS {
                let (len, max) = (rule.exprs.len(), Rule::MAX_EXPRS);
                return Err(Cow::Owned(format!("{len} expressions, more than the kernel's {max}")));
            }
            for expr in &rule.exprs {
                object.push(expr::encode(expr)?);
                room += expr::room(expr);
            }
            if let Some(comment) = &rule.comment {
                object.bytes(sys::NFTNL_RULE_USERDATA, "comment", &user_data(UDATA_COMMENT, comment))?;
            }
        } else {
            // Without a handle the kernel would delete every rule of the chain.
            let handle = rule.handle.ok_or("a rule is deleted by its handle, and this one has none")?;
            object.u64(sys::NFTNL_RULE_HANDLE, handle.0);
        }
        // SAFETY: two names, user data, a handle and the expressions that were counted are all that was set.
        unsafe { self.message(kind, flags, &rule.table, room, |message| object.put(message)) };
        Ok(())
    }

    fn set(&mut self, verb: Verb, set: &Set, index: usize) -> Result<(), Fault> {
        let (kind, flags) = match verb {
            Verb::Add => (Kind::NewSet, flag::CREATE),
            Verb::Create => (Kind::NewSet, flag::CREATE | flag::EXCL),
            Verb::Delete => (Kind::DelSet, 0),
            Verb::Destroy => (Kind::DestroySet, 0),
            Verb::Flush => return self.flush_elements(&set.table, &set.name),
            Verb::Insert => return Err("a set has no place to be inserted at".into()),
        };
        let mut object = object::Set::new()?;
        object.text(sys::NFTNL_SET_TABLE, "table name", set.table.name.as_str())?;
        object.text(sys::NFTNL_SET_NAME, "set name", set.name.as_str())?;
        if kind == Kind::NewSet {
            // The kernel wants a number for each new set of a transaction, by which others could refer to it.
            object.u32(sys::NFTNL_SET_ID, index as u32 + 1);
            describe(&mut object, set)?;
        }
        // Two names and user data; seven numbers, one of them wide; and the description: nests, size, field lengths.
        let room = 3 * TEXT_ROOM + 6 * NUMBER_ROOM + WIDE_ROOM + 2 * 4 + NUMBER_ROOM + MAX_FIELDS * (4 + NUMBER_ROOM);
        // SAFETY: nothing else was set.
        unsafe { self.message(kind, flags, &set.table, room, |message| object.put(message)) };
        Ok(())
    }

    /// Deletes all elements of a set: a deletion without elements.
    fn flush_elements(&mut self, table: &TableId, set: &SetName) -> Result<(), Fault> {
        self.element_message(Kind::DelSetElem, 0, table, set, &[], 0)
    }

    fn elements(&mut self, verb: Verb, table: &TableId, set: &SetName, elements: &[Element]) -> Result<(), Fault> {
        let (kind, flags) = match verb {
            Verb::Add => (Kind::NewSetElem, flag::CREATE),
            Verb::Create => (Kind::NewSetElem, flag::CREATE | flag::EXCL),
            Verb::Delete => (Kind::DelSetElem, 0),
            Verb::Destroy => (Kind::DestroySetElem, 0),
            Verb::Flush if elements.is_empty() => return self.flush_elements(table, set),
            Verb::Flush => return Err("a flush takes all elements, so it names none".into()),
            Verb::Insert => return Err("elements have no place to be inserted at".into()),
        };
        let mut rest = elements;
        while !rest.is_empty() {
            let mut room = 0;
            let count = rest
                .iter()
                .take_while(|element| {
                    room += element_room(element);
                    room <= MAX_ELEMENTS
                })
                .count();
            // One element is far smaller than a message, so each turn takes at least one.
            let (now, later) = rest.split_at(count);
            self.element_message(kind, flags, table, set, now, MAX_ELEMENTS.min(room))?;
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
        // SAFETY: two names, a nest and the elements that the caller counted are all that is appended. `message` stays where it is
        // until the closure returns, and `nest` lies in it.
        unsafe {
            self.message(kind, flags, table, 2 * TEXT_ROOM + 4 + room, |message| {
                mnl_sys::mnl_attr_put_strz(message, TABLE, table_name.as_ptr());
                mnl_sys::mnl_attr_put_strz(message, SET, set_name.as_ptr());
                if elements.is_empty() {
                    return;
                }
                let nest = mnl_sys::mnl_attr_nest_start(message, ELEMENTS);
                for element in elements {
                    outcome = fill_element(&mut object, element);
                    if outcome.is_err() {
                        break;
                    }
                    object.put(message);
                }
                mnl_sys::mnl_attr_nest_end(message, nest);
            });
        }
        outcome
    }
}

/// The most fields of a concatenation: six bits each in nft(8)'s number for the type.
const MAX_FIELDS: usize = 5;

fn base_chain(object: &mut object::Chain, chain: &Chain, base: &BaseChain) -> Result<(), Fault> {
    let family = chain.table.family;
    let Some(hook) = hook::to_wire(family, base.hook) else {
        return Err(Cow::Owned(format!("family {family} has no hook {:?}", base.hook)));
    };
    object.u32(sys::NFTNL_CHAIN_HOOKNUM, hook);
    object.i32(sys::NFTNL_CHAIN_PRIO, base.priority.0);
    object.u32(
        sys::NFTNL_CHAIN_POLICY,
        match base.policy {
            ChainPolicy::Drop => 0,
            ChainPolicy::Accept => 1,
        },
    );
    let kind = match base.kind {
        ChainType::Filter => "filter",
        ChainType::Nat => "nat",
        ChainType::Route => "route",
    };
    object.text(sys::NFTNL_CHAIN_TYPE, "chain type", kind)?;
    match base.devices.as_slice() {
        [] => Ok(()),
        // Kernels before 5.5 know this spelling alone.
        [one] => object.text(sys::NFTNL_CHAIN_DEV, "device", one.as_str()),
        many if many.len() > MAX_DEVICES => {
            Err(Cow::Owned(format!("{} devices, more than the kernel's {MAX_DEVICES}", many.len())))
        }
        many => object.devices(many.iter().map(|device| device.as_str())),
    }
}

fn describe(object: &mut object::Set, set: &Set) -> Result<(), Fault> {
    let KeyType(fields) = &set.key;
    if fields.is_empty() || fields.len() > MAX_FIELDS {
        return Err(Cow::Owned(format!("a key of {} fields, and there can be one to {MAX_FIELDS}", fields.len())));
    }
    if set.key.len() > Data::MAX_LEN {
        return Err(Cow::Owned(format!("a key of {} bytes, more than the kernel's 64", set.key.len())));
    }
    // The kernel must know where fields start to look for ranges in each; for a hash the key is one value.
    let ranges_in_fields = set.flags.interval && fields.len() > 1;
    let flags = [
        (set.flags.constant, set_flag::CONSTANT),
        (set.flags.interval, set_flag::INTERVAL),
        (set.flags.timeout, set_flag::TIMEOUT),
        (ranges_in_fields, set_flag::CONCAT),
    ];
    object.u32(sys::NFTNL_SET_FLAGS, flags.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum());
    object.u32(sys::NFTNL_SET_KEY_TYPE, set.key.number());
    object.u32(sys::NFTNL_SET_KEY_LEN, set.key.len() as u32);
    if ranges_in_fields {
        let lengths: Vec<u8> = fields.iter().map(|field| field.size() as u8).collect();
        object.bytes(sys::NFTNL_SET_DESC_CONCAT, "field lengths", &lengths)?;
    }
    if let Some(size) = set.size {
        object.u32(sys::NFTNL_SET_DESC_SIZE, size);
    }
    if let Some(timeout) = set.timeout {
        object.u64(sys::NFTNL_SET_TIMEOUT, milliseconds(timeout)?);
    }
    // nft(8) prints elements by the byte order it finds here.
    let order: u32 = match fields.as_slice() {
        [Datatype::Mark | Datatype::IfaceIndex] => 1,
        [Datatype::InetProto] => 0,
        [_] => 2,
        _ => 0,
    };
    let mut data = vec![UDATA_SET_KEY_BYTE_ORDER, 4];
    data.extend(order.to_ne_bytes());
    if let Some(comment) = &set.comment {
        data.extend(user_data(UDATA_SET_COMMENT, comment));
    }
    object.bytes(sys::NFTNL_SET_USERDATA, "user data", &data)
}

/// The bytes an element takes, nesting included.
fn element_room(element: &Element) -> usize {
    // Element, key and value have a header each.
    12 + element.key.len().next_multiple_of(4)
        + if element.interval_end { NUMBER_ROOM } else { 0 }
        + if element.timeout.is_some() { WIDE_ROOM } else { 0 }
        + element.comment.as_ref().map_or(0, |comment| 4 + (3 + comment.as_str().len()).next_multiple_of(4))
}

fn fill_element(object: &mut object::Element, element: &Element) -> Result<(), Fault> {
    object.key(element.key.as_bytes())?;
    if element.interval_end {
        object.u32(sys::NFTNL_SET_ELEM_FLAGS, ELEMENT_INTERVAL_END);
    } else {
        object.unset(sys::NFTNL_SET_ELEM_FLAGS);
    }
    match element.timeout {
        Some(timeout) => object.u64(sys::NFTNL_SET_ELEM_TIMEOUT, milliseconds(timeout)?),
        None => object.unset(sys::NFTNL_SET_ELEM_TIMEOUT),
    }
    match &element.comment {
        Some(comment) => object.user_data(&user_data(UDATA_COMMENT, comment)),
        None => {
            object.unset(sys::NFTNL_SET_ELEM_USERDATA);
            Ok(())
        }
    }
}

/// The kernel's unit. Rounded up: 0 would mean for ever.
fn milliseconds(time: Duration) -> Result<u64, Fault> {
    u64::try_from(time.as_nanos().div_ceil(1_000_000))
        .map_err(|_| Cow::Owned(format!("a timeout of {} seconds, more than the kernel can count", time.as_secs())))
}

/// A comment as nft(8) writes it: type, length, text with its NUL.
fn user_data(kind: u8, comment: &Comment) -> Vec<u8> {
    let text = comment.as_str().as_bytes();
    let mut data = Vec::with_capacity(3 + text.len());
    // A comment has at most 128 bytes.
    data.extend([kind, (text.len() + 1) as u8]);
    data.extend(text);
    data.push(0);
    data
}
