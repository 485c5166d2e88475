//! How a set is laid out, and what else follows from an object without being said in it.

use super::set_flag;
use crate::nft::{CmpOp, Expr, Family, MapTo, MetaKey, PayloadBase, Set};

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

/// What `NFTA_RULE_COMPAT` says: a protocol, and whether it is the one that the rule does *not* ask for.
///
/// Matches and targets of iptables(8) and ebtables(8) want to be told of it when they are made, and the kernel does not dump it. It is the
/// transport protocol; in family bridge, the EtherType, as its two bytes lie in memory.
///
/// # References
///
/// `net/netfilter/nft_compat.c`: `nft_match_set_mtchk_param`.
pub(super) fn compat(family: Family, exprs: &[Expr]) -> Option<(u32, u32)> {
    /// `NFT_RULE_COMPAT_F_INV`.
    const NEGATED: u32 = 2;
    if !exprs.iter().any(|expr| matches!(expr, Expr::Match(_) | Expr::Target(_))) {
        return None;
    }
    exprs.windows(2).find_map(|pair| {
        let [load, Expr::Cmp { op: op @ (CmpOp::Eq | CmpOp::Neq), sreg, data }] = pair else { return None };
        let protocol = match (load, data.as_bytes()) {
            (
                Expr::Meta { key: MetaKey::Protocol, dreg }
                | Expr::Payload { base: PayloadBase::LinkLayer, offset: 12, len: 2, dreg },
                [first, second],
            ) if family == Family::Bridge && dreg == sreg => u32::from(u16::from_ne_bytes([*first, *second])),
            (
                Expr::Meta { key: MetaKey::L4Proto, dreg }
                | Expr::Payload { base: PayloadBase::Network, offset: 6 | 9, len: 1, dreg },
                [protocol],
            ) if family != Family::Bridge && dreg == sreg => u32::from(*protocol),
            _ => return None,
        };
        Some((protocol, if *op == CmpOp::Neq { NEGATED } else { 0 }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{Bytes, Data, Register, Xt};

    #[test]
    fn an_extension_is_told_the_protocol_that_its_family_asks_for() {
        let dreg = Register::FIRST;
        let extension = || Expr::Match(Xt { name: "arp".into(), revision: 0, info: Bytes::default() });
        let load = |base, offset, len| Expr::Payload { base, offset, len, dreg };
        let is = |op, data| Expr::Cmp { op, sreg: dreg, data };
        let told = |family, load: &Expr, cmp: &Expr| compat(family, &[load.clone(), cmp.clone(), extension()]);
        let (ether_type, arp) = (load(PayloadBase::LinkLayer, 12, 2), is(CmpOp::Eq, Data::be16(0x0806)));
        let (protocol, udp) = (Expr::Meta { key: MetaKey::L4Proto, dreg }, is(CmpOp::Neq, Data::byte(17)));
        let as_it_lies = u32::from(0x0806u16.to_be());
        assert_eq!(told(Family::Bridge, &ether_type, &arp), Some((as_it_lies, 0)));
        assert_eq!(told(Family::Bridge, &Expr::Meta { key: MetaKey::Protocol, dreg }, &arp), Some((as_it_lies, 0)));
        assert_eq!(told(Family::Bridge, &protocol, &udp), None);
        assert_eq!(told(Family::Ip, &protocol, &udp), Some((17, 2)));
        assert_eq!(told(Family::Ip, &load(PayloadBase::Network, 9, 1), &udp), Some((17, 2)));
        assert_eq!(told(Family::Ip, &ether_type, &arp), None);
        assert_eq!(compat(Family::Ip, &[protocol, udp]), None);
    }
}
