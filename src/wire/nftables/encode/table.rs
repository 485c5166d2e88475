//! Tables, chains and rules.

use std::borrow::Cow;

use nftnl::nftnl_sys as sys;

use super::attributes::Attributes;
use super::object::{self, Fault};
use super::{Encoder, MAX_LIST, NUMBER_ROOM, TEXT_ROOM, WIDE_ROOM, buffer, expr, kept, kind_of, notes, overridden};
use crate::nft::{BaseChain, Chain, ChainName, ChainPolicy, ChainType, Handle, Rule, Table, TableId, Verb};
use crate::wire::nftables::{Kind, chain_flag, flag, hook, layout, table_flag, user_data};

/// The most devices the kernel takes for one chain: `NFT_NETDEVICE_MAX`.
pub(super) const MAX_DEVICES: usize = 256;

/// `NFTA_RULE_EXPRESSIONS`.
const EXPRESSIONS: u16 = 4;
/// `NFTA_RULE_COMPAT`.
const COMPAT: u16 = 5;

impl Encoder {
    pub(super) fn table(&mut self, verb: Verb, table: &Table) -> Result<(), Fault> {
        /// `NFTA_TABLE_FLAGS`.
        const FLAGS: u16 = 2;
        if verb == Verb::Flush {
            return self.flush_rules(&table.id, None);
        }
        let (kind, flags) = kind_of(verb, [Kind::NewTable, Kind::DelTable, Kind::DestroyTable], "table")?;
        let mut object = object::Table::new()?;
        object.text(sys::NFTNL_TABLE_NAME, "table name", table.id.name.as_str())?;
        let mut rest = Attributes::new();
        if kind == Kind::NewTable {
            let flags = table.flags;
            let bits = [
                (flags.dormant, table_flag::DORMANT),
                (flags.owner, table_flag::OWNER),
                (flags.persist, table_flag::PERSIST),
            ];
            if !overridden(&table.extra, FLAGS) {
                object.u32(sys::NFTNL_TABLE_FLAGS, bits.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum());
            }
            if let Some(data) = notes(user_data::COMMENT, table.comment.as_ref(), &table.extra, &[])? {
                object.bytes(sys::NFTNL_TABLE_USERDATA, "user data", &data)?;
            }
            rest = kept(&table.extra)?;
        }
        let room = 2 * TEXT_ROOM + NUMBER_ROOM + rest.as_bytes().len();
        // SAFETY: a name, a number, user data and the rest are all that is appended.
        unsafe {
            self.message(kind, flags, &table.id, room, |message| {
                object.put(message);
                buffer::append(message, rest.as_bytes());
            });
        }
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

    pub(super) fn chain(&mut self, verb: Verb, chain: &Chain) -> Result<(), Fault> {
        /// `NFTA_CHAIN_HOOK`.
        const HOOK: u16 = 4;
        /// `NFTA_CHAIN_FLAGS`.
        const FLAGS: u16 = 10;
        if verb == Verb::Flush {
            return self.flush_rules(&chain.table, Some(chain.name.as_str()));
        }
        let (kind, flags) = kind_of(verb, [Kind::NewChain, Kind::DelChain, Kind::DestroyChain], "chain")?;
        let mut object = object::Chain::new()?;
        object.text(sys::NFTNL_CHAIN_TABLE, "table name", chain.table.name.as_str())?;
        object.text(sys::NFTNL_CHAIN_NAME, "chain name", chain.name.as_str())?;
        let (mut room, mut rest) = (3 * TEXT_ROOM + NUMBER_ROOM, Attributes::new());
        // A deletion that names the hook takes just its devices away.
        if kind == Kind::NewChain {
            if let Some(base) = &chain.base {
                base_chain(&mut object, chain, base, !overridden(&chain.extra, HOOK))?;
                // Type, policy, and the nest of hook with number, priority and the nest of devices.
                room += 2 * WIDE_ROOM + 4 * NUMBER_ROOM + base.devices.len() * (4 + 16);
            }
            let bits = [(chain.flags.offload, chain_flag::OFFLOAD), (chain.flags.binding, chain_flag::BINDING)];
            let bits: u32 = bits.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
            if bits != 0 && !overridden(&chain.extra, FLAGS) {
                object.u32(sys::NFTNL_CHAIN_FLAGS, bits);
            }
            if let Some(data) = notes(user_data::COMMENT, chain.comment.as_ref(), &chain.extra, &[])? {
                object.bytes(sys::NFTNL_CHAIN_USERDATA, "user data", &data)?;
            }
            rest = kept(&chain.extra)?;
            room += rest.as_bytes().len();
        }
        // SAFETY: two names, user data, flags, and what `room` was raised for are all that is appended.
        unsafe {
            self.message(kind, flags, &chain.table, room, |message| {
                object.put(message);
                buffer::append(message, rest.as_bytes());
            });
        }
        Ok(())
    }

    /// Gives a chain another name: the kernel finds it by its handle.
    pub(super) fn rename(&mut self, verb: Verb, table: &TableId, handle: Handle, to: &ChainName) -> Result<(), Fault> {
        if verb != Verb::Rename {
            return Err("a chain's name can only be changed".into());
        }
        let mut attributes = Attributes::new();
        attributes.text(1, table.name.as_str())?;
        attributes.wide(2, handle.0)?;
        attributes.text(3, to.as_str())?;
        self.plain(Kind::NewChain, 0, Some(table.family), &attributes);
        Ok(())
    }

    pub(super) fn rule(&mut self, verb: Verb, rule: &Rule) -> Result<(), Fault> {
        let (kind, flags) = match verb {
            Verb::Add => (Kind::NewRule, flag::CREATE | flag::APPEND),
            Verb::Create => (Kind::NewRule, flag::CREATE | flag::APPEND | flag::EXCL),
            Verb::Insert => (Kind::NewRule, flag::CREATE),
            Verb::Replace => (Kind::NewRule, flag::REPLACE),
            Verb::Delete => (Kind::DelRule, 0),
            Verb::Destroy => (Kind::DestroyRule, 0),
            Verb::Flush => return Err("a rule holds nothing that could be flushed".into()),
            Verb::Rename => return Err("only a chain's name can be changed".into()),
        };
        let mut object = object::Rule::new()?;
        object.text(sys::NFTNL_RULE_TABLE, "table name", rule.table.name.as_str())?;
        object.text(sys::NFTNL_RULE_CHAIN, "chain name", rule.chain.as_str())?;
        let mut room = 3 * TEXT_ROOM + 2 * WIDE_ROOM + NUMBER_ROOM;
        let (mut exprs, mut rest) = (Vec::new(), Attributes::new());
        if kind == Kind::NewRule {
            if rule.exprs.len() > Rule::MAX_EXPRS {
                let (len, max) = (rule.exprs.len(), Rule::MAX_EXPRS);
                return Err(Cow::Owned(format!("{len} expressions, more than the kernel's {max}")));
            }
            let mut list = 0;
            exprs.reserve(rule.exprs.len());
            for expr in &rule.exprs {
                let encoded = expr::encode(expr)?;
                list += encoded.room(expr);
                exprs.push(encoded);
            }
            if list > MAX_LIST {
                return Err(Cow::Owned(format!("expressions of {list} bytes, more than the {MAX_LIST} of a message")));
            }
            if let Some(data) = notes(user_data::COMMENT, rule.comment.as_ref(), &rule.extra, &[])? {
                object.bytes(sys::NFTNL_RULE_USERDATA, "user data", &data)?;
            }
            if let Some(position) = rule.position.filter(|_| verb != Verb::Replace) {
                object.u64(sys::NFTNL_RULE_POSITION, position.0);
            }
            rest = kept(&rule.extra)?;
            let compat = layout::compat(rule.table.family, &rule.exprs).filter(|_| !overridden(&rule.extra, COMPAT));
            if let Some((protocol, flags)) = compat {
                let mut compat = Attributes::new();
                compat.number(1, protocol)?;
                compat.number(2, flags)?;
                rest.nest(COMPAT, &compat)?;
            }
            room += list + rest.as_bytes().len();
        }
        if verb == Verb::Replace || kind != Kind::NewRule {
            // Without a handle the kernel would delete every rule of the chain.
            let handle = rule.handle.ok_or("a rule is found by its handle, and this one has none")?;
            object.u64(sys::NFTNL_RULE_HANDLE, handle.0);
        }
        // SAFETY: two names, user data, a handle, a position, the rest and the expressions that were counted are all that is
        // appended.
        unsafe {
            self.message(kind, flags, &rule.table, room, |message| {
                object.put(message);
                buffer::append(message, rest.as_bytes());
                if !exprs.is_empty() {
                    buffer::nest(message, EXPRESSIONS, |message| {
                        exprs.iter().for_each(|expr| expr.put(expr::LIST_ELEMENT, message));
                    });
                }
            });
        }
        Ok(())
    }
}

fn base_chain(object: &mut object::Chain, chain: &Chain, base: &BaseChain, with_hook: bool) -> Result<(), Fault> {
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
    if !with_hook {
        return Ok(());
    }
    let family = chain.table.family;
    let Some(hook) = hook::to_wire(family, base.hook) else {
        return Err(Cow::Owned(format!("family {family} has no hook {:?}", base.hook)));
    };
    object.u32(sys::NFTNL_CHAIN_HOOKNUM, hook);
    object.i32(sys::NFTNL_CHAIN_PRIO, base.priority.0);
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
