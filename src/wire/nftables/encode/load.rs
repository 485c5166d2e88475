//! Expressions that fill a register or look at one, each beside the nft(8) statement that makes it.

use nftnl::nftnl_sys as sys;

use super::attributes::Attributes;
use super::expr::{Encoded, NFT_REG_VERDICT, direct};
use super::object::{Expression, Fault};
use crate::nft::{BitwiseOp, Expr, Hash, SetName};
use crate::wire::nftables::LOOKUP_NEGATED;

/// Encodes such an expression. `None` for another one.
pub(super) fn encode(expr: &Expr) -> Result<Option<Encoded>, Fault> {
    let mut e;
    match expr {
        // nft(8): `tcp dport`, `ip daddr`
        Expr::Payload { base, offset, len, dreg } => {
            e = Expression::new(c"payload")?;
            e.u32(sys::NFTNL_EXPR_PAYLOAD_DREG, dreg.to_wire());
            e.u32(sys::NFTNL_EXPR_PAYLOAD_BASE, base.to_wire());
            e.u32(sys::NFTNL_EXPR_PAYLOAD_OFFSET, *offset);
            e.u32(sys::NFTNL_EXPR_PAYLOAD_LEN, *len);
        }
        // nft(8): `ip dscp set cs1`
        Expr::PayloadWrite { base, offset, len, sreg, checksum } => {
            e = Expression::new(c"payload")?;
            e.u32(sys::NFTNL_EXPR_PAYLOAD_SREG, sreg.to_wire());
            e.u32(sys::NFTNL_EXPR_PAYLOAD_BASE, base.to_wire());
            e.u32(sys::NFTNL_EXPR_PAYLOAD_OFFSET, *offset);
            e.u32(sys::NFTNL_EXPR_PAYLOAD_LEN, *len);
            e.u32(sys::NFTNL_EXPR_PAYLOAD_CSUM_TYPE, checksum.kind);
            e.u32(sys::NFTNL_EXPR_PAYLOAD_CSUM_OFFSET, checksum.offset);
            e.u32(sys::NFTNL_EXPR_PAYLOAD_FLAGS, checksum.flags);
        }
        // nft(8): `meta l4proto`, `oif`
        Expr::Meta { key, dreg } => {
            e = Expression::new(c"meta")?;
            e.u32(sys::NFTNL_EXPR_META_KEY, key.to_wire());
            e.u32(sys::NFTNL_EXPR_META_DREG, dreg.to_wire());
        }
        // nft(8): `meta mark set`
        Expr::MetaSet { key, sreg } => {
            e = Expression::new(c"meta")?;
            e.u32(sys::NFTNL_EXPR_META_KEY, key.to_wire());
            e.u32(sys::NFTNL_EXPR_META_SREG, sreg.to_wire());
        }
        // nft(8): `ct state`
        Expr::Ct { key, direction, dreg } => {
            e = Expression::new(c"ct")?;
            e.u32(sys::NFTNL_EXPR_CT_KEY, key.to_wire());
            e.u32(sys::NFTNL_EXPR_CT_DREG, dreg.to_wire());
            if let Some(direction) = direction {
                e.u8(sys::NFTNL_EXPR_CT_DIR, direction.to_wire() as u8);
            }
        }
        // nft(8): `ct mark set`
        Expr::CtSet { key, direction, sreg } => {
            e = Expression::new(c"ct")?;
            e.u32(sys::NFTNL_EXPR_CT_KEY, key.to_wire());
            e.u32(sys::NFTNL_EXPR_CT_SREG, sreg.to_wire());
            if let Some(direction) = direction {
                e.u8(sys::NFTNL_EXPR_CT_DIR, direction.to_wire() as u8);
            }
        }
        // nft(8): `rt mtu`
        Expr::Rt { key, dreg } => {
            e = Expression::new(c"rt")?;
            e.u32(sys::NFTNL_EXPR_RT_KEY, key.to_wire());
            e.u32(sys::NFTNL_EXPR_RT_DREG, dreg.to_wire());
        }
        // nft(8): `socket cgroupv2 level 2`
        Expr::Socket { key, level, dreg } => {
            e = Expression::new(c"socket")?;
            e.u32(sys::NFTNL_EXPR_SOCKET_KEY, key.to_wire());
            e.u32(sys::NFTNL_EXPR_SOCKET_DREG, dreg.to_wire());
            if let Some(level) = level {
                e.u32(sys::NFTNL_EXPR_SOCKET_LEVEL, *level);
            }
        }
        // nft(8): `fib saddr . iif oif`
        Expr::Fib { result, flags, dreg } => {
            e = Expression::new(c"fib")?;
            e.u32(sys::NFTNL_EXPR_FIB_DREG, dreg.to_wire());
            e.u32(sys::NFTNL_EXPR_FIB_RESULT, result.to_wire());
            e.u32(sys::NFTNL_EXPR_FIB_FLAGS, flags.0);
        }
        // nft(8): `tcp option maxseg size`, `exthdr hbh exists`
        Expr::Exthdr { op, kind, offset, len, present, dreg } => {
            e = Expression::new(c"exthdr")?;
            e.u32(sys::NFTNL_EXPR_EXTHDR_DREG, dreg.to_wire());
            e.u8(sys::NFTNL_EXPR_EXTHDR_TYPE, *kind);
            e.u32(sys::NFTNL_EXPR_EXTHDR_OFFSET, *offset);
            e.u32(sys::NFTNL_EXPR_EXTHDR_LEN, *len);
            e.u32(sys::NFTNL_EXPR_EXTHDR_OP, op.to_wire());
            e.u32(sys::NFTNL_EXPR_EXTHDR_FLAGS, u32::from(*present));
        }
        // nft(8): `tcp option maxseg size set 1400`. The kernel takes no flags here.
        Expr::ExthdrWrite { op, kind, offset, len, sreg } => {
            e = Expression::new(c"exthdr")?;
            e.u32(sys::NFTNL_EXPR_EXTHDR_SREG, sreg.to_wire());
            e.u8(sys::NFTNL_EXPR_EXTHDR_TYPE, *kind);
            e.u32(sys::NFTNL_EXPR_EXTHDR_OFFSET, *offset);
            e.u32(sys::NFTNL_EXPR_EXTHDR_LEN, *len);
            e.u32(sys::NFTNL_EXPR_EXTHDR_OP, op.to_wire());
        }
        // nft(8): `reset tcp option timestamp`. Nor a place here.
        Expr::ExthdrReset { op, kind } => {
            e = Expression::new(c"exthdr")?;
            e.u8(sys::NFTNL_EXPR_EXTHDR_TYPE, *kind);
            e.u32(sys::NFTNL_EXPR_EXTHDR_OP, op.to_wire());
        }
        // nft(8): `jhash ip saddr mod 8`, `symhash mod 2`
        Expr::Hash { of, modulus, offset, dreg } => {
            e = Expression::new(c"hash")?;
            e.u32(sys::NFTNL_EXPR_HASH_DREG, dreg.to_wire());
            e.u32(sys::NFTNL_EXPR_HASH_MODULUS, *modulus);
            if *offset != 0 {
                e.u32(sys::NFTNL_EXPR_HASH_OFFSET, *offset);
            }
            match of {
                Hash::Jenkins { sreg, len, seed } => {
                    e.u32(sys::NFTNL_EXPR_HASH_SREG, sreg.to_wire());
                    e.u32(sys::NFTNL_EXPR_HASH_LEN, *len);
                    if let Some(seed) = seed {
                        e.u32(sys::NFTNL_EXPR_HASH_SEED, *seed);
                    }
                    e.u32(sys::NFTNL_EXPR_HASH_TYPE, 0);
                }
                Hash::Symmetric => e.u32(sys::NFTNL_EXPR_HASH_TYPE, 1),
            }
        }
        // nft(8): `numgen inc mod 2`
        Expr::Numgen { kind, modulus, offset, dreg } => {
            e = Expression::new(c"numgen")?;
            e.u32(sys::NFTNL_EXPR_NG_DREG, dreg.to_wire());
            e.u32(sys::NFTNL_EXPR_NG_MODULUS, *modulus);
            e.u32(sys::NFTNL_EXPR_NG_TYPE, kind.to_wire());
            e.u32(sys::NFTNL_EXPR_NG_OFFSET, *offset);
        }
        // nft(8): `osf name "Linux"`. The kernel takes no flags that are 0.
        Expr::Osf { ttl, flags, dreg } => {
            e = Expression::new(c"osf")?;
            e.u32(sys::NFTNL_EXPR_OSF_DREG, dreg.to_wire());
            e.u8(sys::NFTNL_EXPR_OSF_TTL, *ttl);
            if *flags != 0 {
                e.u32(sys::NFTNL_EXPR_OSF_FLAGS, *flags);
            }
        }
        // nft(8) has no word for it. libnftnl knows no mode.
        Expr::Tunnel { key, mode, dreg } => {
            let mut data = Attributes::new();
            data.number(1, key.to_wire())?;
            data.number(2, dreg.to_wire())?;
            data.number(3, mode.to_wire())?;
            return direct("tunnel", Some(data)).map(Some);
        }
        // nft(8): `ipsec in reqid 1`
        Expr::Xfrm { key, direction, spnum, dreg } => {
            e = Expression::new(c"xfrm")?;
            e.u32(sys::NFTNL_EXPR_XFRM_DREG, dreg.to_wire());
            e.u32(sys::NFTNL_EXPR_XFRM_KEY, key.to_wire());
            e.u8(sys::NFTNL_EXPR_XFRM_DIR, direction.to_wire() as u8);
            e.u32(sys::NFTNL_EXPR_XFRM_SPNUM, *spnum);
        }
        // nft(8): `== 443`
        Expr::Cmp { op, sreg, data } => {
            e = Expression::new(c"cmp")?;
            e.u32(sys::NFTNL_EXPR_CMP_SREG, sreg.to_wire());
            e.u32(sys::NFTNL_EXPR_CMP_OP, op.to_wire());
            e.bytes(sys::NFTNL_EXPR_CMP_DATA, "value", data.as_bytes())?;
        }
        // nft(8): `!= 1024-65535`
        Expr::Range { negated, sreg, from, to } => {
            e = Expression::new(c"range")?;
            e.u32(sys::NFTNL_EXPR_RANGE_SREG, sreg.to_wire());
            e.u32(sys::NFTNL_EXPR_RANGE_OP, u32::from(*negated));
            e.bytes(sys::NFTNL_EXPR_RANGE_FROM_DATA, "lower bound", from.as_bytes())?;
            e.bytes(sys::NFTNL_EXPR_RANGE_TO_DATA, "upper bound", to.as_bytes())?;
        }
        // nft(8): `and 0xffffff00`, the `/24` of a prefix, `<< 8`
        Expr::Bitwise { sreg, dreg, len, op } => {
            let numbers = [(1, sreg.to_wire()), (2, dreg.to_wire()), (3, *len)];
            // libnftnl 1.2.4 knows no operation on two registers.
            let two = match op {
                BitwiseOp::And(other) => Some((3, other)),
                BitwiseOp::Or(other) => Some((4, other)),
                BitwiseOp::Xor(other) => Some((5, other)),
                _ => None,
            };
            if let Some((op, other)) = two {
                let mut data = Attributes::new();
                for (kind, number) in numbers.into_iter().chain([(6, op), (8, other.to_wire())]) {
                    data.number(kind, number)?;
                }
                return direct("bitwise", Some(data)).map(Some);
            }
            e = Expression::new(c"bitwise")?;
            e.u32(sys::NFTNL_EXPR_BITWISE_SREG, sreg.to_wire());
            e.u32(sys::NFTNL_EXPR_BITWISE_DREG, dreg.to_wire());
            e.u32(sys::NFTNL_EXPR_BITWISE_LEN, *len);
            match op {
                BitwiseOp::MaskXor { mask, xor } => {
                    e.bytes(sys::NFTNL_EXPR_BITWISE_MASK, "mask", mask.as_bytes())?;
                    e.bytes(sys::NFTNL_EXPR_BITWISE_XOR, "xor", xor.as_bytes())?;
                }
                BitwiseOp::ShiftLeft(by) => {
                    e.u32(sys::NFTNL_EXPR_BITWISE_OP, 1);
                    e.bytes(sys::NFTNL_EXPR_BITWISE_DATA, "shift", by.as_bytes())?;
                }
                BitwiseOp::ShiftRight(by) => {
                    e.u32(sys::NFTNL_EXPR_BITWISE_OP, 2);
                    e.bytes(sys::NFTNL_EXPR_BITWISE_DATA, "shift", by.as_bytes())?;
                }
                BitwiseOp::And(_) | BitwiseOp::Or(_) | BitwiseOp::Xor(_) => {}
            }
        }
        // nft(8) puts it between fields of different byte order.
        Expr::Byteorder { sreg, dreg, op, len, size } => {
            e = Expression::new(c"byteorder")?;
            e.u32(sys::NFTNL_EXPR_BYTEORDER_SREG, sreg.to_wire());
            e.u32(sys::NFTNL_EXPR_BYTEORDER_DREG, dreg.to_wire());
            e.u32(sys::NFTNL_EXPR_BYTEORDER_OP, op.to_wire());
            e.u32(sys::NFTNL_EXPR_BYTEORDER_LEN, *len);
            e.u32(sys::NFTNL_EXPR_BYTEORDER_SIZE, *size);
        }
        // nft(8): `@set`, `!= @set`
        Expr::Lookup { set, sreg, negated } => {
            e = lookup(set, sreg.to_wire())?;
            if *negated {
                e.u32(sys::NFTNL_EXPR_LOOKUP_FLAGS, LOOKUP_NEGATED);
            }
        }
        // nft(8): `map @map`
        Expr::Map { set, sreg, dreg } => {
            e = lookup(set, sreg.to_wire())?;
            e.u32(sys::NFTNL_EXPR_LOOKUP_DREG, dreg.to_wire());
        }
        // nft(8): `vmap @map`
        Expr::VerdictMap { set, sreg } => {
            e = lookup(set, sreg.to_wire())?;
            e.u32(sys::NFTNL_EXPR_LOOKUP_DREG, NFT_REG_VERDICT);
        }
        Expr::Immediate { dreg, data } => {
            e = Expression::new(c"immediate")?;
            e.u32(sys::NFTNL_EXPR_IMM_DREG, dreg.to_wire());
            e.bytes(sys::NFTNL_EXPR_IMM_DATA, "value", data.as_bytes())?;
        }
        _ => return Ok(None),
    }
    Ok(Some(Encoded::Nftnl(e)))
}

fn lookup(set: &SetName, sreg: u32) -> Result<Expression, Fault> {
    let mut e = Expression::new(c"lookup")?;
    e.u32(sys::NFTNL_EXPR_LOOKUP_SREG, sreg);
    e.text(sys::NFTNL_EXPR_LOOKUP_SET, "set name", set.as_str())?;
    Ok(e)
}
