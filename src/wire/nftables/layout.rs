//! How a set is laid out, and what else follows from an object without being said in it.

use super::set_flag;
use crate::nft::{CmpOp, Expr, MapTo, MetaKey, PayloadBase, Set};

/// `NFTA_SET_FLAGS`.
pub(super) fn flags(set: &Set) -> u32 {
    let object = matches!(set.data, Some(MapTo::Object(_)));
    let flags = [
        (set.flags.anonymous, set_flag::ANONYMOUS),
        (set.flags.constant, set_flag::CONSTANT),
        (set.flags.interval, set_flag::INTERVAL),
        (set.data.is_some() && !object, set_flag::MAP),
        (object, set_flag::OBJECT),
        (set.flags.timeout, set_flag::TIMEOUT),
        (set.flags.dynamic, set_flag::EVAL),
        (set.flags.expressions, set_flag::EXPR),
        (!fields(set).is_empty(), set_flag::CONCAT),
    ];
    flags.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum()
}

/// Lengths of the fields of a key. The kernel must know where fields start to look for ranges in each; for a hash the key is one value.
pub(super) fn fields(set: &Set) -> Vec<usize> {
    if set.flags.interval && set.key.0.len() > 1 {
        set.key.0.iter().map(|field| field.size()).collect()
    } else {
        Vec::new()
    }
}

/// What `NFTA_RULE_COMPAT` says: a transport protocol, and whether it is the one that the rule does *not* ask for.
///
/// Matches and targets of iptables(8) want to be told of it when they are made, and the kernel does not dump it.
pub(super) fn compat(exprs: &[Expr]) -> Option<(u32, u32)> {
    /// `NFT_RULE_COMPAT_F_INV`.
    const NEGATED: u32 = 2;
    if !exprs.iter().any(|expr| matches!(expr, Expr::Match(_) | Expr::Target(_))) {
        return None;
    }
    exprs.windows(2).find_map(|pair| match pair {
        [
            Expr::Meta { key: MetaKey::L4Proto, dreg }
            | Expr::Payload { base: PayloadBase::Network, offset: 6 | 9, len: 1, dreg },
            Expr::Cmp { op: op @ (CmpOp::Eq | CmpOp::Neq), sreg, data },
        ] if dreg == sreg => match data.as_bytes() {
            [protocol] => Some((u32::from(*protocol), if *op == CmpOp::Neq { NEGATED } else { 0 })),
            _ => None,
        },
        _ => None,
    })
}
