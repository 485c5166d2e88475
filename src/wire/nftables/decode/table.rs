//! Tables, chains and rules.

use super::{Rest, expr, fields, missing, name, table_id, unknown};
use crate::nft::{
    BaseChain, Chain, ChainFlags, ChainName, ChainPolicy, ChainType, Family, Handle, InterfaceName, Priority, Rule,
    Table, TableFlags,
};
use crate::wire::netlink::{Attribute, Attributes, DecodeError};
use crate::wire::nftables::{chain_flag, hook, layout, table_flag, user_data};

pub(super) fn table(family: Family, attributes: Attributes<'_>, offset: usize) -> Result<Table, DecodeError> {
    let (mut id, mut flags, mut rest) = (None, 0, Rest::default());
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            1 => id = Some(table_id(family, attribute)?),
            2 => {
                flags = attribute.be32("table flags")?;
                let known = table_flag::DORMANT | table_flag::OWNER | table_flag::PERSIST;
                rest.keep_if(flags & !known != 0, attribute);
            }
            // How many things are in it, handle, padding, port of the owner.
            3 | 4 | 5 | 7 => {}
            6 => rest.user_data = Some(attribute.payload),
            _ => rest.keep(attribute),
        }
    }
    let (comment, extra) = rest.with_comment(user_data::COMMENT, &[]);
    Ok(Table {
        id: id.ok_or_else(|| missing("table", offset, "a name"))?,
        flags: TableFlags {
            dormant: flags & table_flag::DORMANT != 0,
            owner: flags & table_flag::OWNER != 0,
            persist: flags & table_flag::PERSIST != 0,
        },
        comment,
        extra,
    })
}

/// What makes a chain: its table and name, and the number by which it is renamed.
pub(super) fn chain(family: Family, attributes: Attributes<'_>, offset: usize) -> Result<Chain, DecodeError> {
    const WHAT: &str = "chain";
    let (mut table, mut chain, mut flags, mut rest) = (None, None, 0, Rest::default());
    let (mut hook, mut policy, mut kind) = (None, ChainPolicy::Accept, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            1 => table = Some(table_id(family, attribute)?),
            // Handle, use count, padding, number within a transaction.
            2 | 6 | 9 | 11 => {}
            3 => chain = Some(name(ChainName::new, "chain name", attribute)?),
            4 => hook = Some(attribute),
            5 => {
                policy = match attribute.be32("chain policy")? {
                    0 => ChainPolicy::Drop,
                    1 => ChainPolicy::Accept,
                    other => return Err(unknown("chain policy", attribute.offset, other.to_string())),
                }
            }
            7 => {
                kind = Some(match attribute.text("chain type")? {
                    "filter" => ChainType::Filter,
                    "nat" => ChainType::Nat,
                    "route" => ChainType::Route,
                    other => return Err(unknown("chain type", attribute.offset, other.escape_debug().to_string())),
                })
            }
            10 => {
                flags = attribute.be32("chain flags")?;
                let known = chain_flag::BASE | chain_flag::OFFLOAD | chain_flag::BINDING;
                rest.keep_if(flags & !known != 0, attribute);
            }
            12 => rest.user_data = Some(attribute.payload),
            _ => rest.keep(attribute),
        }
    }
    let base = match hook {
        None => None,
        Some(nest) => Some(base_chain(family, nest, kind.unwrap_or(ChainType::Filter), policy, &mut rest)?),
    };
    let (comment, extra) = rest.with_comment(user_data::COMMENT, &[]);
    Ok(Chain {
        table: table.ok_or_else(|| missing(WHAT, offset, "a table"))?,
        name: chain.ok_or_else(|| missing(WHAT, offset, "a name"))?,
        base,
        flags: ChainFlags { offload: flags & chain_flag::OFFLOAD != 0, binding: flags & chain_flag::BINDING != 0 },
        comment,
        extra,
    })
}

fn base_chain<'a>(
    family: Family,
    nest: Attribute<'a>,
    kind: ChainType,
    policy: ChainPolicy,
    rest: &mut Rest<'a>,
) -> Result<BaseChain, DecodeError> {
    const WHAT: &str = "hook";
    let (mut number, mut priority, mut single, mut devices, mut whole) = (None, None, None, None, true);
    for attribute in nest.nested() {
        let attribute = attribute?;
        match attribute.kind {
            1 => number = Some(attribute.be32(WHAT)?),
            2 => priority = Some(Priority(attribute.be32("priority")? as i32)),
            3 => single = Some(attribute),
            4 => devices = Some(attribute),
            _ => whole = false,
        }
    }
    // A chain with one device is dumped in both spellings.
    let devices = match (devices, single) {
        (Some(list), _) => device_list(list)?,
        (None, Some(single)) => device(single).map(|device| vec![device]),
        (None, None) => Some(Vec::new()),
    };
    if !whole || devices.is_none() {
        // Devices by the beginning of their names (Linux 6.16), or with names that are no text.
        rest.keep(nest);
    }
    let number = number.ok_or_else(|| missing(WHAT, nest.offset, "a number"))?;
    Ok(BaseChain {
        kind,
        hook: hook::from_wire(family, number)
            .ok_or_else(|| unknown(WHAT, nest.offset, format!("number {number} in family {family}")))?,
        priority: priority.ok_or_else(|| missing(WHAT, nest.offset, "a priority"))?,
        policy,
        devices: devices.unwrap_or_default(),
    })
}

fn device(attribute: Attribute<'_>) -> Option<InterfaceName> {
    fields::text(attribute).and_then(|name| InterfaceName::new(name).ok())
}

/// Devices by name. `None` when one is not.
pub(super) fn device_list(nest: Attribute<'_>) -> Result<Option<Vec<InterfaceName>>, DecodeError> {
    let devices = nest.nested().map(|item| item.map(|item| device(item).filter(|_| item.kind == 1)));
    devices.collect()
}

pub(super) fn rule(family: Family, attributes: Attributes<'_>, offset: usize) -> Result<Rule, DecodeError> {
    const WHAT: &str = "rule";
    let (mut table, mut chain, mut handle, mut rest) = (None, None, None, Rest::default());
    let (mut exprs, mut compat) = (Vec::new(), None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            1 => table = Some(table_id(family, attribute)?),
            2 => chain = Some(name(ChainName::new, "chain name", attribute)?),
            3 => handle = Some(Handle(attribute.be64("rule handle")?)),
            4 => exprs = expr::list(attribute)?,
            5 => compat = Some(attribute),
            // What only its neighbours, or the transaction that made it, say.
            6 | 8..=11 => {}
            7 => rest.user_data = Some(attribute.payload),
            _ => rest.keep(attribute),
        }
    }
    if let Some(compat) =
        compat.filter(|compat| said(*compat).is_none_or(|said| Some(said) != layout::compat(family, &exprs)))
    {
        rest.keep(compat);
    }
    let (comment, extra) = rest.with_comment(user_data::COMMENT, &[]);
    Ok(Rule {
        table: table.ok_or_else(|| missing(WHAT, offset, "a table"))?,
        chain: chain.ok_or_else(|| missing(WHAT, offset, "a chain"))?,
        exprs,
        comment,
        handle,
        position: None,
        extra,
    })
}

/// Protocol and flags of `NFTA_RULE_COMPAT`.
fn said(compat: Attribute<'_>) -> Option<(u32, u32)> {
    let mut said = fields::Fields::<3>::nested(compat)?;
    let pair = (said.number(1)?, said.number(2)?);
    said.all(pair)
}
