//! Expressions, each beside the nft(8) statement that makes it.

use std::borrow::Cow;

use nftnl::nftnl_sys as sys;

use super::object::{Expression, Fault};
use crate::nft::{
    BitwiseOp, CmpOp, CtDirection, CtKey, Data, Expr, Log, MetaKey, PayloadBase, Reject, RejectCode, Verdict,
};
use crate::wire::nftables::{LIMIT_OVER, LOOKUP_NEGATED};

/// The verdict register.
const NFT_REG_VERDICT: u32 = 0;

/// The most bytes that an expression takes, nesting and name included.
pub(super) fn room(expr: &Expr) -> usize {
    // List element, name and data: two nests and at most eleven letters. Then up to five numbers of twelve bytes at most.
    const FRAME: usize = 4 + 16 + 4;
    const NUMBERS: usize = 5 * 12;
    const NAME: usize = 4 + 256;
    // A nest, a header, and the value padded.
    let value = |data: &Data| 8 + data.len().next_multiple_of(4);
    FRAME
        + NUMBERS
        + match expr {
            Expr::Cmp { data, .. } | Expr::Immediate { data, .. } => value(data),
            Expr::Range { from, to, .. } => value(from) + value(to),
            Expr::Bitwise { op: BitwiseOp::MaskXor { mask, xor }, .. } => value(mask) + value(xor),
            Expr::Lookup { .. } | Expr::Verdict(Verdict::Jump(_) | Verdict::Goto(_)) => NAME,
            Expr::Log(_) => 4 + Log::MAX_PREFIX + 1,
            _ => 0,
        }
}

pub(super) fn encode(expr: &Expr) -> Result<Expression, Fault> {
    match expr {
        // nft(8): `tcp dport`, `ip daddr`
        Expr::Payload { base, offset, len, dreg } => {
            let mut e = Expression::new(c"payload")?;
            e.u32(sys::NFTNL_EXPR_PAYLOAD_DREG, dreg.to_wire());
            e.u32(
                sys::NFTNL_EXPR_PAYLOAD_BASE,
                match base {
                    PayloadBase::LinkLayer => 0,
                    PayloadBase::Network => 1,
                    PayloadBase::Transport => 2,
                },
            );
            e.u32(sys::NFTNL_EXPR_PAYLOAD_OFFSET, *offset);
            e.u32(sys::NFTNL_EXPR_PAYLOAD_LEN, *len);
            Ok(e)
        }
        // nft(8): `meta l4proto`, `oif`
        Expr::Meta { key, dreg } => {
            let mut e = Expression::new(c"meta")?;
            e.u32(sys::NFTNL_EXPR_META_KEY, meta_key(*key));
            e.u32(sys::NFTNL_EXPR_META_DREG, dreg.to_wire());
            Ok(e)
        }
        // nft(8): `ct state`
        Expr::Ct { key, direction, dreg } => {
            let mut e = Expression::new(c"ct")?;
            e.u32(
                sys::NFTNL_EXPR_CT_KEY,
                match key {
                    CtKey::State => 0,
                    CtKey::Status => 2,
                },
            );
            e.u32(sys::NFTNL_EXPR_CT_DREG, dreg.to_wire());
            if let Some(direction) = direction {
                e.u8(
                    sys::NFTNL_EXPR_CT_DIR,
                    match direction {
                        CtDirection::Original => 0,
                        CtDirection::Reply => 1,
                    },
                );
            }
            Ok(e)
        }
        // nft(8): `== 443`
        Expr::Cmp { op, sreg, data } => {
            let mut e = Expression::new(c"cmp")?;
            e.u32(sys::NFTNL_EXPR_CMP_SREG, sreg.to_wire());
            e.u32(
                sys::NFTNL_EXPR_CMP_OP,
                match op {
                    CmpOp::Eq => 0,
                    CmpOp::Neq => 1,
                    CmpOp::Lt => 2,
                    CmpOp::Lte => 3,
                    CmpOp::Gt => 4,
                    CmpOp::Gte => 5,
                },
            );
            e.bytes(sys::NFTNL_EXPR_CMP_DATA, "value", data.as_bytes())?;
            Ok(e)
        }
        // nft(8): `!= 1024-65535`
        Expr::Range { negated, sreg, from, to } => {
            let mut e = Expression::new(c"range")?;
            e.u32(sys::NFTNL_EXPR_RANGE_SREG, sreg.to_wire());
            e.u32(sys::NFTNL_EXPR_RANGE_OP, u32::from(*negated));
            e.bytes(sys::NFTNL_EXPR_RANGE_FROM_DATA, "lower bound", from.as_bytes())?;
            e.bytes(sys::NFTNL_EXPR_RANGE_TO_DATA, "upper bound", to.as_bytes())?;
            Ok(e)
        }
        // nft(8): `and 0xffffff00`, the `/24` of a prefix
        Expr::Bitwise { sreg, dreg, len, op: BitwiseOp::MaskXor { mask, xor } } => {
            let mut e = Expression::new(c"bitwise")?;
            e.u32(sys::NFTNL_EXPR_BITWISE_SREG, sreg.to_wire());
            e.u32(sys::NFTNL_EXPR_BITWISE_DREG, dreg.to_wire());
            e.u32(sys::NFTNL_EXPR_BITWISE_LEN, *len);
            e.bytes(sys::NFTNL_EXPR_BITWISE_MASK, "mask", mask.as_bytes())?;
            e.bytes(sys::NFTNL_EXPR_BITWISE_XOR, "xor", xor.as_bytes())?;
            Ok(e)
        }
        // nft(8): `@set`, `!= @set`
        Expr::Lookup { set, sreg, negated } => {
            let mut e = Expression::new(c"lookup")?;
            e.u32(sys::NFTNL_EXPR_LOOKUP_SREG, sreg.to_wire());
            e.text(sys::NFTNL_EXPR_LOOKUP_SET, "set name", set.as_str())?;
            if *negated {
                e.u32(sys::NFTNL_EXPR_LOOKUP_FLAGS, LOOKUP_NEGATED);
            }
            Ok(e)
        }
        Expr::Immediate { dreg, data } => {
            let mut e = Expression::new(c"immediate")?;
            e.u32(sys::NFTNL_EXPR_IMM_DREG, dreg.to_wire());
            e.bytes(sys::NFTNL_EXPR_IMM_DATA, "value", data.as_bytes())?;
            Ok(e)
        }
        // nft(8): `accept`, `jump chain`
        Expr::Verdict(verdict) => {
            let (code, chain) = match verdict {
                Verdict::Drop => (0, None),
                Verdict::Accept => (1, None),
                Verdict::Continue => (-1, None),
                Verdict::Jump(chain) => (-3, Some(chain)),
                Verdict::Goto(chain) => (-4, Some(chain)),
                Verdict::Return => (-5i32, None),
            };
            let mut e = Expression::new(c"immediate")?;
            e.u32(sys::NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
            e.u32(sys::NFTNL_EXPR_IMM_VERDICT, code as u32);
            if let Some(chain) = chain {
                e.text(sys::NFTNL_EXPR_IMM_CHAIN, "chain name", chain.as_str())?;
            }
            Ok(e)
        }
        // nft(8): `counter`
        Expr::Counter { packets, bytes } => {
            let mut e = Expression::new(c"counter")?;
            e.u64(sys::NFTNL_EXPR_CTR_PACKETS, *packets);
            e.u64(sys::NFTNL_EXPR_CTR_BYTES, *bytes);
            Ok(e)
        }
        // nft(8): `log prefix "…" group N`
        Expr::Log(log) => {
            let mut e = Expression::new(c"log")?;
            e.u16(sys::NFTNL_EXPR_LOG_GROUP, log.group);
            if let Some(prefix) = &log.prefix {
                if prefix.len() > Log::MAX_PREFIX {
                    let (len, max) = (prefix.len(), Log::MAX_PREFIX);
                    return Err(Cow::Owned(format!("log prefix of {len} bytes, more than the kernel's {max}")));
                }
                e.text(sys::NFTNL_EXPR_LOG_PREFIX, "log prefix", prefix)?;
            }
            if let Some(snaplen) = log.snaplen {
                e.u32(sys::NFTNL_EXPR_LOG_SNAPLEN, snaplen);
            }
            if let Some(threshold) = log.queue_threshold {
                e.u16(sys::NFTNL_EXPR_LOG_QTHRESHOLD, threshold);
            }
            Ok(e)
        }
        // nft(8): `reject with tcp reset`
        Expr::Reject(reject) => {
            let (kind, code) = match reject {
                Reject::Icmp(code) => (0, Some(*code)),
                Reject::TcpReset => (1, None),
                Reject::Icmpx(code) => (
                    2,
                    Some(match code {
                        RejectCode::NoRoute => 0,
                        RejectCode::PortUnreachable => 1,
                        RejectCode::HostUnreachable => 2,
                        RejectCode::AdminProhibited => 3,
                    }),
                ),
            };
            let mut e = Expression::new(c"reject")?;
            e.u32(sys::NFTNL_EXPR_REJECT_TYPE, kind);
            if let Some(code) = code {
                e.u8(sys::NFTNL_EXPR_REJECT_CODE, code);
            }
            Ok(e)
        }
        // nft(8): `masquerade`
        Expr::Masquerade => Expression::new(c"masq"),
        // nft(8): `limit rate over 10/second burst 5 packets`
        Expr::Limit { rate, seconds, burst, over } => {
            let mut e = Expression::new(c"limit")?;
            e.u64(sys::NFTNL_EXPR_LIMIT_RATE, *rate);
            e.u64(sys::NFTNL_EXPR_LIMIT_UNIT, *seconds);
            e.u32(sys::NFTNL_EXPR_LIMIT_BURST, *burst);
            // Packets, not bytes.
            e.u32(sys::NFTNL_EXPR_LIMIT_TYPE, 0);
            e.u32(sys::NFTNL_EXPR_LIMIT_FLAGS, if *over { LIMIT_OVER } else { 0 });
            Ok(e)
        }
    }
}

fn meta_key(key: MetaKey) -> u32 {
    match key {
        MetaKey::Protocol => 1,
        MetaKey::Mark => 3,
        MetaKey::Iif => 4,
        MetaKey::Oif => 5,
        MetaKey::IifName => 6,
        MetaKey::OifName => 7,
        MetaKey::SkUid => 10,
        MetaKey::NfProto => 15,
        MetaKey::L4Proto => 16,
    }
}
