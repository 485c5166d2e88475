//! The kernel's names for the attributes of its messages, and the way to the one at a given byte.
//!
//! Of a rule's expressions, a set's elements and an object's state the kernel points to the whole, never to what is in it: there the names end.
//!
//! # References
//!
//! `linux/netfilter/nf_tables.h`: every `enum nft_…_attributes`; `net/netfilter/nf_tables_api.c`: `NL_SET_BAD_ATTR`.

use super::{GENERIC_LEN, Kind};
use crate::wire::netlink::{Attribute, Attributes, Message};

/// Attributes that stand side by side.
struct Scope {
    /// What all their names begin with.
    prefix: &'static str,
    /// The rest of their names, by number, from 1.
    names: &'static str,
    /// One of them that has others within.
    nested: Option<(u16, &'static Scope)>,
}

impl Scope {
    const fn of(prefix: &'static str, names: &'static str) -> Self {
        Self { prefix, names, nested: None }
    }

    const fn with(self, number: u16, scope: &'static Scope) -> Self {
        Self { nested: Some((number, scope)), ..self }
    }

    fn name(&self, number: u16) -> Option<String> {
        let name = self.names.split(' ').nth(usize::from(number).checked_sub(1)?)?;
        Some(format!("{}{name}", self.prefix))
    }
}

/// The name of the attribute at byte `at` of the message's datagram, the innermost one.
pub(super) fn at(message: &Message<'_>, at: usize) -> Option<String> {
    let kind = |kinds: &[Kind]| kinds.iter().any(|kind| kind.to_wire() == message.header.kind);
    let scope = if kind(&[Kind::NewTable, Kind::DelTable, Kind::DestroyTable]) {
        &TABLE
    } else if kind(&[Kind::NewChain, Kind::DelChain, Kind::DestroyChain]) {
        &CHAIN
    } else if kind(&[Kind::NewRule, Kind::DelRule, Kind::DestroyRule]) {
        &RULE
    } else if kind(&[Kind::NewSet, Kind::DelSet, Kind::DestroySet]) {
        &SET
    } else if kind(&[Kind::NewSetElem, Kind::DelSetElem, Kind::DestroySetElem]) {
        &ELEMENTS
    } else if kind(&[Kind::NewObject, Kind::DelObject, Kind::DestroyObject]) {
        &OBJECT
    } else if kind(&[Kind::NewFlowtable, Kind::DelFlowtable, Kind::DestroyFlowtable]) {
        &FLOWTABLE
    } else {
        return None;
    };
    within(scope, message.attributes("message", GENERIC_LEN).ok()?, at)
}

fn within(scope: &'static Scope, attributes: Attributes<'_>, at: usize) -> Option<String> {
    /// `struct nlattr`.
    const HEADER: usize = 4;
    let holds = |item: &Attribute<'_>| (item.offset - HEADER..item.offset + item.payload.len()).contains(&at);
    let found = attributes.flatten().find(holds)?;
    let inner = scope.nested.filter(|(number, _)| *number == found.kind && at >= found.offset);
    inner.and_then(|(_, scope)| within(scope, found.nested(), at)).or_else(|| scope.name(found.kind))
}

static TABLE: Scope = Scope::of("NFTA_TABLE_", "NAME FLAGS USE HANDLE PAD USERDATA OWNER");
static DEVICES: Scope = Scope::of("NFTA_DEVICE_", "NAME PREFIX");
static HOOK: Scope = Scope::of("NFTA_HOOK_", "HOOKNUM PRIORITY DEV DEVS").with(4, &DEVICES);
static CHAIN: Scope =
    Scope::of("NFTA_CHAIN_", "TABLE HANDLE NAME HOOK POLICY USE TYPE COUNTERS PAD FLAGS ID USERDATA").with(4, &HOOK);
static RULE: Scope =
    Scope::of("NFTA_RULE_", "TABLE CHAIN HANDLE EXPRESSIONS COMPAT POSITION USERDATA PAD ID POSITION_ID CHAIN_ID");
static SET: Scope = Scope::of(
    "NFTA_SET_",
    "TABLE NAME FLAGS KEY_TYPE KEY_LEN DATA_TYPE DATA_LEN POLICY DESC ID TIMEOUT GC_INTERVAL USERDATA PAD OBJ_TYPE \
     HANDLE EXPR EXPRESSIONS TYPE COUNT",
);
static ELEMENTS: Scope = Scope::of("NFTA_SET_ELEM_LIST_", "TABLE SET ELEMENTS SET_ID");
static OBJECT: Scope = Scope::of("NFTA_OBJ_", "TABLE NAME TYPE DATA USE HANDLE PAD USERDATA");
static FLOWTABLE_HOOK: Scope = Scope::of("NFTA_FLOWTABLE_HOOK_", "NUM PRIORITY DEVS").with(3, &DEVICES);
static FLOWTABLE: Scope = Scope::of("NFTA_FLOWTABLE_", "TABLE NAME HOOK USE HANDLE PAD FLAGS").with(3, &FLOWTABLE_HOOK);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{
        BaseChain, Chain, ChainName, ChainPolicy, ChainType, Family, Hook, InterfaceName, Object, Priority, Rule,
        Table, TableId, TableName, Transaction, Verb,
    };
    use crate::wire::netlink::messages;
    use crate::wire::nftables::encode;

    #[test]
    fn every_byte_has_a_name() {
        let (table, chain) = (TableName::new("t").unwrap(), ChainName::new("c").unwrap());
        let table = TableId { family: Family::Netdev, name: table };
        let base = BaseChain {
            kind: ChainType::Filter,
            hook: Hook::Ingress,
            priority: Priority::FILTER,
            policy: ChainPolicy::Drop,
            devices: ["lo", "a0"].map(|name| InterfaceName::new(name).unwrap()).to_vec(),
        };
        let mut transaction = Transaction::new();
        transaction.push(Verb::Add, Object::Table(Table::new(table.clone())));
        transaction.push(Verb::Add, Object::Chain(Chain { base: Some(base), ..Chain::new(&table, &chain) }));
        transaction.push(Verb::Add, Object::Rule(Rule::new(&table, &chain).counter()));
        let batch = encode(&transaction).unwrap();
        let all = messages(batch.as_bytes()).flatten().filter(|message| batch.operation(message.header.seq).is_some());
        let names = all.map(|message| {
            let end = message.offset + message.payload.len();
            let mut names: Vec<String> = (message.offset..end).filter_map(|byte| at(&message, byte)).collect();
            names.dedup();
            names.sort();
            names.dedup();
            names.join(" ")
        });
        assert_eq!(
            names.collect::<Vec<_>>(),
            [
                "NFTA_TABLE_FLAGS NFTA_TABLE_NAME",
                "NFTA_CHAIN_HOOK NFTA_CHAIN_NAME NFTA_CHAIN_POLICY NFTA_CHAIN_TABLE NFTA_CHAIN_TYPE NFTA_DEVICE_NAME \
                 NFTA_HOOK_DEVS NFTA_HOOK_HOOKNUM NFTA_HOOK_PRIORITY",
                "NFTA_RULE_CHAIN NFTA_RULE_EXPRESSIONS NFTA_RULE_TABLE",
            ]
        );
    }
}
