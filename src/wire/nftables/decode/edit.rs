//! What the kernel tells of a change.

use std::fmt;

use super::{attribute, element, missing, name, object, table, table_id, unknown};
use crate::nft::{
    ChainName, Element, Family, FlowtableName, Handle, InterfaceName, Object, ObjectName, ObjectType, SetName, TableId,
    Verb,
};
use crate::wire::netlink::{Attribute, DecodeError, Message};
use crate::wire::nftables::{GENERIC_LEN, Kind};

/// What a transaction did to one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// It was added, or changed so that it is this now.
    Added(Object),
    /// It was deleted.
    Deleted(Deleted),
}

/// What was deleted. But for elements the kernel tells what it was called, and no longer what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deleted {
    /// A table.
    Table(TableId),
    /// A chain.
    Chain {
        /// Table it was in.
        table: TableId,
        /// Its name.
        name: ChainName,
        /// Devices that were taken from the chain, which stays. Kernels that can't do that may tell here of all that a chain had.
        devices: Vec<InterfaceName>,
    },
    /// A rule.
    Rule {
        /// Table its chain is in.
        table: TableId,
        /// Chain it was in.
        chain: ChainName,
        /// Its number.
        handle: Handle,
    },
    /// A set or map: the kernel does not say which.
    Set {
        /// Table it was in.
        table: TableId,
        /// Its name.
        name: SetName,
    },
    /// Elements of a set.
    Elements {
        /// Table the set is in.
        table: TableId,
        /// The set.
        set: SetName,
        /// The elements.
        elements: Vec<Element>,
    },
    /// A stateful object.
    Stateful {
        /// Table it was in.
        table: TableId,
        /// Its name.
        name: ObjectName,
        /// Its type.
        kind: ObjectType,
    },
    /// A flowtable.
    Flowtable {
        /// Table it was in.
        table: TableId,
        /// Its name.
        name: FlowtableName,
        /// Devices that were taken from the flowtable, as of a chain.
        devices: Vec<InterfaceName>,
    },
}

impl fmt::Display for Edit {
    /// Shows it as an [`Operation`](crate::nft::Operation) is shown: `delete chain inet guard output`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Edit::Added(object) => write!(f, "{} {object}", Verb::Add),
            Edit::Deleted(deleted) => write!(f, "{} {deleted}", Verb::Delete),
        }
    }
}

impl fmt::Display for Deleted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let devices = |f: &mut fmt::Formatter<'_>, devices: &[InterfaceName]| match devices {
            [] => Ok(()),
            [device] => write!(f, "device {device} of "),
            many => write!(f, "{} devices of ", many.len()),
        };
        match self {
            Deleted::Table(id) => write!(f, "table {id}"),
            Deleted::Chain { table, name, devices: gone } => {
                devices(f, gone)?;
                write!(f, "chain {table} {name}")
            }
            Deleted::Rule { table, chain, handle } => write!(f, "rule {table} {chain} handle {}", handle.0),
            Deleted::Set { table, name } => write!(f, "set {table} {name}"),
            Deleted::Elements { table, set, elements } => match elements.len() {
                1 => write!(f, "1 element of set {table} {set}"),
                many => write!(f, "{many} elements of set {table} {set}"),
            },
            Deleted::Stateful { table, name, kind } => write!(f, "{kind} {table} {name}"),
            Deleted::Flowtable { table, name, devices: gone } => {
                devices(f, gone)?;
                write!(f, "flowtable {table} {name}")
            }
        }
    }
}

/// Decodes a message of the kernel's about a change: what was done, and to what.
///
/// # Errors
///
/// As [`decode`](fn@super::decode).
///
/// # References
///
/// `linux/netfilter/nfnetlink.h`: `NFNLGRP_NFTABLES`.
pub fn change(message: &Message<'_>) -> Result<Edit, DecodeError> {
    match deleted(message)? {
        Some(deleted) => Ok(Edit::Deleted(deleted)),
        None => object(message).map(Edit::Added),
    }
}

/// What a message says was deleted. `None` when it says something else.
fn deleted(message: &Message<'_>) -> Result<Option<Deleted>, DecodeError> {
    const WHAT: &str = "deletion";
    let is = |kinds: [Kind; 2]| kinds.iter().any(|kind| kind.to_wire() == message.header.kind);
    let need = |number: u16, what: &'static str| {
        attribute(message, number)?.ok_or_else(|| missing(WHAT, message.offset, what))
    };
    let family = message.payload.first().copied();
    let table = || {
        let number = family.unwrap_or(0);
        let family = Family::from_wire(number)
            .ok_or_else(|| unknown("nf_tables header", message.offset, format!("family {number}")))?;
        table_id(family, need(1, "a table")?)
    };
    Ok(Some(if is([Kind::DelTable, Kind::DestroyTable]) {
        Deleted::Table(table()?)
    } else if is([Kind::DelChain, Kind::DestroyChain]) {
        let devices = attribute(message, 4)?.map_or(Ok(Vec::new()), |hook| devices(hook, 4))?;
        Deleted::Chain { table: table()?, name: name(ChainName::new, "chain name", need(3, "a name")?)?, devices }
    } else if is([Kind::DelRule, Kind::DestroyRule]) {
        Deleted::Rule {
            table: table()?,
            chain: name(ChainName::new, "chain name", need(2, "a chain")?)?,
            handle: Handle(need(3, "a handle")?.be64("rule handle")?),
        }
    } else if is([Kind::DelSet, Kind::DestroySet]) {
        Deleted::Set { table: table()?, name: name(SetName::new, "set name", need(2, "a name")?)? }
    } else if is([Kind::DelSetElem, Kind::DestroySetElem]) {
        let attributes = message.attributes("nf_tables header", GENERIC_LEN)?;
        let family = table()?.family;
        let (table, set, elements) = element::list(family, attributes, message.offset)?;
        Deleted::Elements { table, set, elements }
    } else if is([Kind::DelObject, Kind::DestroyObject]) {
        Deleted::Stateful {
            table: table()?,
            name: name(ObjectName::new, "object name", need(2, "a name")?)?,
            kind: ObjectType::from_wire(need(3, "a type")?.be32("object type")?),
        }
    } else if is([Kind::DelFlowtable, Kind::DestroyFlowtable]) {
        let devices = attribute(message, 3)?.map_or(Ok(Vec::new()), |hook| devices(hook, 3))?;
        let name = name(FlowtableName::new, "flowtable name", need(2, "a name")?)?;
        Deleted::Flowtable { table: table()?, name, devices }
    } else {
        return Ok(None);
    }))
}

/// The devices that a chain's or flowtable's hook names in its attribute of that number.
fn devices(hook: Attribute<'_>, list: u16) -> Result<Vec<InterfaceName>, DecodeError> {
    for attribute in hook.nested() {
        let attribute = attribute?;
        if attribute.kind == list {
            let names = table::device_list(attribute)?;
            return names.ok_or_else(|| unknown("devices", attribute.offset, "one that is no name"));
        }
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{Family, TableName};
    use crate::wire::netlink;
    use crate::wire::netlink::tests::{attribute, message};

    fn told(kind: Kind, attributes: &[Vec<u8>]) -> Result<Edit, DecodeError> {
        // Family inet, version, resource.
        let payload = [&[1, 0, 0, 0][..], &attributes.concat()].concat();
        let bytes = message(kind.to_wire(), 0, &payload);
        let message = netlink::messages(&bytes).next().unwrap().unwrap();
        change(&message)
    }

    /// The kernels of tests may have no flowtables, nor can they all take devices from a chain.
    #[test]
    fn devices_that_are_taken_away_are_told() {
        let device = |name: &str| attribute(1, format!("{name}\0").as_bytes());
        let names = [attribute(1, b"t\0"), attribute(2, b"f\0")];
        let flowtable = told(Kind::DelFlowtable, &names).unwrap();
        assert_eq!(flowtable.to_string(), "delete flowtable inet t f");
        let list = attribute(3, &[device("a"), device("b")].concat());
        let hook = attribute(3, &[attribute(1, &[0; 4]), list].concat());
        let [table, name] = names;
        let flowtable = told(Kind::DestroyFlowtable, &[table, name, hook]);
        assert_eq!(flowtable.unwrap().to_string(), "delete 2 devices of flowtable inet t f");
        let hook = attribute(4, &[attribute(1, &[0; 4]), attribute(4, &device("a"))].concat());
        let chain = told(Kind::DelChain, &[attribute(1, b"t\0"), attribute(3, b"c\0"), hook]).unwrap();
        assert_eq!(chain.to_string(), "delete device a of chain inet t c");
        let table = TableId { family: Family::Inet, name: TableName::new("t").unwrap() };
        let name = ChainName::new("c").unwrap();
        let devices = vec![InterfaceName::new("a").unwrap()];
        assert_eq!(chain, Edit::Deleted(Deleted::Chain { table, name, devices }));
    }

    #[test]
    fn a_deletion_without_a_name_is_refused() {
        let table = || attribute(1, b"t\0");
        for kind in [Kind::DelChain, Kind::DelRule, Kind::DelSet, Kind::DelSetElem, Kind::DelObject, Kind::DelFlowtable]
        {
            assert!(told(kind, &[table()]).is_err(), "{kind:?}");
            assert!(told(kind, &[]).is_err(), "{kind:?}");
        }
        assert!(told(Kind::DelTable, &[]).is_err());
        assert!(told(Kind::GetTable, &[table()]).is_err());
    }
}
