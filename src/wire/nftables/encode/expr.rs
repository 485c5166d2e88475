//! Expressions, each beside the nft(8) statement that makes it.

use std::borrow::Cow;

use mnl::mnl_sys::libc::nlmsghdr;
use nftnl::nftnl_sys as sys;

use super::attributes::Attributes;
use super::buffer::{self, Buffer};
use super::object::{Expression, Fault, MAX_TEXT};
use crate::nft::{
    BitwiseOp, Data, Dynset, Expr, Family, Hash, Limit, Log, Nat, NatPorts, QueueNumber, Reject, SetName, Syslog,
    Verdict, Xt,
};
use crate::wire::nftables::{LIMIT_OVER, LOOKUP_NEGATED, MAX_NESTING, dynset_flag, quota_flag};

/// The verdict register.
const NFT_REG_VERDICT: u32 = 0;

/// `NFTA_LIST_ELEM`.
pub(super) const LIST_ELEMENT: u16 = 1;

/// An expression on its way into a message.
pub(super) enum Encoded {
    /// As libnftnl has it.
    Nftnl(Expression),
    /// Name and data as attributes, where libnftnl has none.
    Direct(Attributes),
}

impl Encoded {
    /// The most bytes that it takes as an item of a list.
    pub fn room(&self, expr: &Expr) -> usize {
        // List element, name and data: two nests and at most twelve letters. Then up to eight numbers of twelve bytes at most.
        const FRAME: usize = 4 + 20 + 4;
        const NUMBERS: usize = 8 * 12;
        match self {
            Encoded::Nftnl(_) => FRAME + NUMBERS + values(expr),
            Encoded::Direct(attributes) => 4 + attributes.as_bytes().len(),
        }
    }

    /// Appends it to a message, as the item of a list.
    ///
    /// # Safety
    ///
    /// `message` points to a netlink message behind which there are [`Encoded::room`] zeroed bytes.
    pub unsafe fn put(&self, kind: u16, message: *mut nlmsghdr) {
        // SAFETY: the caller vouches for the message and the room behind it.
        unsafe {
            buffer::nest(message, kind, |message| match self {
                Encoded::Nftnl(expression) => expression.put(message),
                Encoded::Direct(attributes) => buffer::append(message, attributes.as_bytes()),
            });
        }
    }

    /// Name and data as attributes.
    fn into_attributes(self, expr: &Expr) -> Attributes {
        let room = self.room(expr);
        match self {
            Encoded::Direct(attributes) => attributes,
            // SAFETY: `put` writes no more than `room`.
            Encoded::Nftnl(expression) => unsafe { Buffer::attributes(room, |message| expression.put(message)) },
        }
    }
}

/// Bytes for what has no fixed length.
fn values(expr: &Expr) -> usize {
    const NAME: usize = 4 + MAX_TEXT + 1;
    // A nest, a header, and the value padded.
    let value = |data: &Data| 8 + data.len().next_multiple_of(4);
    match expr {
        Expr::Cmp { data, .. } | Expr::Immediate { data, .. } => value(data),
        Expr::Range { from, to, .. } => value(from) + value(to),
        Expr::Bitwise { op: BitwiseOp::MaskXor { mask, xor }, .. } => value(mask) + value(xor),
        Expr::Bitwise { op: BitwiseOp::ShiftLeft(by) | BitwiseOp::ShiftRight(by), .. } => value(by),
        Expr::Log(_) | Expr::Syslog(_) => 4 + Log::MAX_PREFIX + 1,
        Expr::Lookup { .. }
        | Expr::Map { .. }
        | Expr::VerdictMap { .. }
        | Expr::Dynset(_)
        | Expr::ObjectRef { .. }
        | Expr::ObjectMap { .. }
        | Expr::FlowOffload { .. }
        | Expr::Verdict(Verdict::Jump(_) | Verdict::Goto(_)) => NAME,
        _ => 0,
    }
}

/// A list of expressions as attributes, where they stand in an object of our own making.
pub(super) fn list(exprs: &[Expr], depth: usize) -> Result<Attributes, Fault> {
    let mut list = Attributes::new();
    for expr in exprs {
        list.nest(LIST_ELEMENT, &encode_at(expr, depth)?.into_attributes(expr))?;
    }
    Ok(list)
}

/// One expression as attributes.
pub(super) fn single(expr: &Expr, depth: usize) -> Result<Attributes, Fault> {
    Ok(encode_at(expr, depth)?.into_attributes(expr))
}

pub(super) fn encode(expr: &Expr) -> Result<Encoded, Fault> {
    encode_at(expr, 0)
}

fn direct(name: &str, data: Option<Attributes>) -> Result<Encoded, Fault> {
    let mut attributes = Attributes::new();
    attributes.text(1, name)?;
    if let Some(data) = data {
        attributes.nest(2, &data)?;
    }
    Ok(Encoded::Direct(attributes))
}

fn encode_at(expr: &Expr, depth: usize) -> Result<Encoded, Fault> {
    if depth > MAX_NESTING {
        return Err("expressions stand too deep in one another".into());
    }
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
            return direct("tunnel", Some(data));
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
                return direct("bitwise", Some(data));
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
        Expr::Dynset(dynset) => return self::dynset(dynset, depth),
        Expr::Immediate { dreg, data } => {
            e = Expression::new(c"immediate")?;
            e.u32(sys::NFTNL_EXPR_IMM_DREG, dreg.to_wire());
            e.bytes(sys::NFTNL_EXPR_IMM_DATA, "value", data.as_bytes())?;
        }
        // nft(8): `accept`, `jump chain`
        Expr::Verdict(verdict) => {
            e = Expression::new(c"immediate")?;
            e.u32(sys::NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
            let (code, chain) = code(verdict);
            e.u32(sys::NFTNL_EXPR_IMM_VERDICT, code);
            if let Some(chain) = chain {
                e.text(sys::NFTNL_EXPR_IMM_CHAIN, "chain name", chain)?;
            }
        }
        // nft(8): `counter`
        Expr::Counter { packets, bytes } => {
            e = Expression::new(c"counter")?;
            e.u64(sys::NFTNL_EXPR_CTR_PACKETS, *packets);
            e.u64(sys::NFTNL_EXPR_CTR_BYTES, *bytes);
        }
        // nft(8): `log prefix "…" group N`
        Expr::Log(log) => {
            e = Expression::new(c"log")?;
            e.u16(sys::NFTNL_EXPR_LOG_GROUP, log.group);
            prefix(&mut e, log.prefix.as_deref())?;
            if let Some(snaplen) = log.snaplen {
                e.u32(sys::NFTNL_EXPR_LOG_SNAPLEN, snaplen);
            }
            if let Some(threshold) = log.queue_threshold {
                e.u16(sys::NFTNL_EXPR_LOG_QTHRESHOLD, threshold);
            }
        }
        // nft(8): `log level warn flags all`
        Expr::Syslog(Syslog { prefix: text, level, flags }) => {
            e = Expression::new(c"log")?;
            prefix(&mut e, text.as_deref())?;
            if let Some(level) = level {
                e.u32(sys::NFTNL_EXPR_LOG_LEVEL, level.to_wire());
            }
            if flags.0 != 0 {
                e.u32(sys::NFTNL_EXPR_LOG_FLAGS, flags.0);
            }
        }
        // nft(8): `reject with tcp reset`
        Expr::Reject(reject) => {
            let (kind, code) = match reject {
                Reject::Icmp(code) => (0, Some(*code)),
                Reject::TcpReset => (1, None),
                Reject::Icmpx(code) => (2, Some(code.to_wire() as u8)),
            };
            e = Expression::new(c"reject")?;
            e.u32(sys::NFTNL_EXPR_REJECT_TYPE, kind);
            if let Some(code) = code {
                e.u8(sys::NFTNL_EXPR_REJECT_CODE, code);
            }
        }
        // nft(8): `masquerade to :1024-2047 random`
        Expr::Masquerade(NatPorts { ports, flags }) => {
            e = Expression::new(c"masq")?;
            if let Some(ports) = ports {
                e.u32(sys::NFTNL_EXPR_MASQ_REG_PROTO_MIN, ports.min.to_wire());
                e.u32(sys::NFTNL_EXPR_MASQ_REG_PROTO_MAX, ports.max.to_wire());
            }
            if flags.0 != 0 {
                e.u32(sys::NFTNL_EXPR_MASQ_FLAGS, flags.0);
            }
        }
        // nft(8): `redirect to :8080`
        Expr::Redirect(NatPorts { ports, flags }) => {
            e = Expression::new(c"redir")?;
            if let Some(ports) = ports {
                e.u32(sys::NFTNL_EXPR_REDIR_REG_PROTO_MIN, ports.min.to_wire());
                e.u32(sys::NFTNL_EXPR_REDIR_REG_PROTO_MAX, ports.max.to_wire());
            }
            if flags.0 != 0 {
                e.u32(sys::NFTNL_EXPR_REDIR_FLAGS, flags.0);
            }
        }
        // nft(8): `dnat to 10.0.0.1:80`
        Expr::Nat(Nat { kind, family, addresses, ports, flags }) => {
            e = Expression::new(c"nat")?;
            e.u32(sys::NFTNL_EXPR_NAT_TYPE, kind.to_wire());
            e.u32(sys::NFTNL_EXPR_NAT_FAMILY, family.to_wire().into());
            if let Some(addresses) = addresses {
                e.u32(sys::NFTNL_EXPR_NAT_REG_ADDR_MIN, addresses.min.to_wire());
                e.u32(sys::NFTNL_EXPR_NAT_REG_ADDR_MAX, addresses.max.to_wire());
            }
            if let Some(ports) = ports {
                e.u32(sys::NFTNL_EXPR_NAT_REG_PROTO_MIN, ports.min.to_wire());
                e.u32(sys::NFTNL_EXPR_NAT_REG_PROTO_MAX, ports.max.to_wire());
            }
            if flags.0 != 0 {
                e.u32(sys::NFTNL_EXPR_NAT_FLAGS, flags.0);
            }
        }
        // nft(8): `tproxy to :50080`
        Expr::Tproxy { family, address, port } => {
            e = Expression::new(c"tproxy")?;
            e.u32(sys::NFTNL_EXPR_TPROXY_FAMILY, family.map_or(0, Family::to_wire).into());
            if let Some(address) = address {
                e.u32(sys::NFTNL_EXPR_TPROXY_REG_ADDR, address.to_wire());
            }
            if let Some(port) = port {
                e.u32(sys::NFTNL_EXPR_TPROXY_REG_PORT, port.to_wire());
            }
        }
        // nft(8): `limit rate over 10/second burst 5 packets`
        Expr::Limit(Limit { rate, seconds, burst, over, bytes }) => {
            e = Expression::new(c"limit")?;
            e.u64(sys::NFTNL_EXPR_LIMIT_RATE, *rate);
            e.u64(sys::NFTNL_EXPR_LIMIT_UNIT, *seconds);
            e.u32(sys::NFTNL_EXPR_LIMIT_BURST, *burst);
            e.u32(sys::NFTNL_EXPR_LIMIT_TYPE, u32::from(*bytes));
            e.u32(sys::NFTNL_EXPR_LIMIT_FLAGS, if *over { LIMIT_OVER } else { 0 });
        }
        // nft(8): `quota over 10 mbytes`
        Expr::Quota(quota) => {
            e = Expression::new(c"quota")?;
            e.u64(sys::NFTNL_EXPR_QUOTA_BYTES, quota.bytes);
            e.u64(sys::NFTNL_EXPR_QUOTA_CONSUMED, quota.used);
            e.u32(sys::NFTNL_EXPR_QUOTA_FLAGS, if quota.over { quota_flag::OVER } else { 0 });
        }
        // nft(8): `ct count over 10`
        Expr::Connlimit { count, over } => {
            e = Expression::new(c"connlimit")?;
            e.u32(sys::NFTNL_EXPR_CONNLIMIT_COUNT, *count);
            e.u32(sys::NFTNL_EXPR_CONNLIMIT_FLAGS, u32::from(*over));
        }
        // nft(8): `last`
        Expr::Last { set, milliseconds } => {
            e = Expression::new(c"last")?;
            e.u32(sys::NFTNL_EXPR_LAST_SET, u32::from(*set));
            e.u64(sys::NFTNL_EXPR_LAST_MSECS, *milliseconds);
        }
        // nft(8): `counter name "web"`
        Expr::ObjectRef { kind, name } => {
            e = Expression::new(c"objref")?;
            e.u32(sys::NFTNL_EXPR_OBJREF_IMM_TYPE, kind.to_wire());
            e.text(sys::NFTNL_EXPR_OBJREF_IMM_NAME, "object name", name.as_str())?;
        }
        // nft(8): `counter name tcp dport map @counters`
        Expr::ObjectMap { set, sreg } => {
            e = Expression::new(c"objref")?;
            e.u32(sys::NFTNL_EXPR_OBJREF_SET_SREG, sreg.to_wire());
            e.text(sys::NFTNL_EXPR_OBJREF_SET_NAME, "set name", set.as_str())?;
        }
        // nft(8): `notrack`
        Expr::Notrack => e = Expression::new(c"notrack")?,
        // nft(8): `queue flags bypass to 1-3`
        Expr::Queue { to, flags } => {
            e = Expression::new(c"queue")?;
            match to {
                QueueNumber::Range { first, total } => {
                    e.u16(sys::NFTNL_EXPR_QUEUE_NUM, *first);
                    e.u16(sys::NFTNL_EXPR_QUEUE_TOTAL, *total);
                }
                QueueNumber::Register(register) => e.u32(sys::NFTNL_EXPR_QUEUE_SREG_QNUM, register.to_wire()),
            }
            e.u16(sys::NFTNL_EXPR_QUEUE_FLAGS, flags.0);
        }
        // nft(8): `dup to 10.0.0.1 device "eth0"`
        Expr::Dup { address, device } => {
            e = Expression::new(c"dup")?;
            if let Some(address) = address {
                e.u32(sys::NFTNL_EXPR_DUP_SREG_ADDR, address.to_wire());
            }
            if let Some(device) = device {
                e.u32(sys::NFTNL_EXPR_DUP_SREG_DEV, device.to_wire());
            }
        }
        // nft(8): `fwd to "eth0"`
        Expr::Fwd { device, neighbour } => {
            e = Expression::new(c"fwd")?;
            e.u32(sys::NFTNL_EXPR_FWD_SREG_DEV, device.to_wire());
            if let Some((address, family)) = neighbour {
                e.u32(sys::NFTNL_EXPR_FWD_SREG_ADDR, address.to_wire());
                e.u32(sys::NFTNL_EXPR_FWD_NFPROTO, family.to_wire().into());
            }
        }
        // nft(8): `flow add @flows`
        Expr::FlowOffload { flowtable } => {
            e = Expression::new(c"flow_offload")?;
            e.text(sys::NFTNL_EXPR_FLOW_TABLE_NAME, "flowtable name", flowtable.as_str())?;
        }
        // nft(8): `synproxy mss 1460 wscale 7`
        Expr::Synproxy(synproxy) => {
            e = Expression::new(c"synproxy")?;
            e.u16(sys::NFTNL_EXPR_SYNPROXY_MSS, synproxy.mss);
            e.u8(sys::NFTNL_EXPR_SYNPROXY_WSCALE, synproxy.wscale);
            e.u32(sys::NFTNL_EXPR_SYNPROXY_FLAGS, synproxy.flags);
        }
        // nft(8) prints what iptables(8) made, and can't write it.
        Expr::Match(xt) => return self::xt("match", xt),
        Expr::Target(xt) => return self::xt("target", xt),
        Expr::Raw { name, data } => {
            let mut attributes = Attributes::new();
            attributes.text(1, name)?;
            if let Some(data) = data {
                attributes.bytes(2, data.as_slice())?;
            }
            return Ok(Encoded::Direct(attributes));
        }
    }
    Ok(Encoded::Nftnl(e))
}

/// The kernel's number for a verdict, and the chain it names.
pub(super) fn code(verdict: &Verdict) -> (u32, Option<&str>) {
    let (code, chain): (i32, _) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Continue => (-1, None),
        Verdict::Jump(chain) => (-3, Some(chain.as_str())),
        Verdict::Goto(chain) => (-4, Some(chain.as_str())),
        Verdict::Return => (-5, None),
    };
    (code as u32, chain)
}

fn prefix(e: &mut Expression, prefix: Option<&str>) -> Result<(), Fault> {
    let Some(prefix) = prefix else { return Ok(()) };
    if prefix.len() > Log::MAX_PREFIX {
        let (len, max) = (prefix.len(), Log::MAX_PREFIX);
        return Err(Cow::Owned(format!("log prefix of {len} bytes, more than the kernel's {max}")));
    }
    e.text(sys::NFTNL_EXPR_LOG_PREFIX, "log prefix", prefix)
}

fn lookup(set: &SetName, sreg: u32) -> Result<Expression, Fault> {
    let mut e = Expression::new(c"lookup")?;
    e.u32(sys::NFTNL_EXPR_LOOKUP_SREG, sreg);
    e.text(sys::NFTNL_EXPR_LOOKUP_SET, "set name", set.as_str())?;
    Ok(e)
}

/// nft(8): `add @set { ip saddr limit rate 10/second }`, `update @set { ip saddr timeout 1m }`
fn dynset(dynset: &Dynset, depth: usize) -> Result<Encoded, Fault> {
    let timeout = dynset.timeout.map(super::milliseconds).transpose()?;
    let flags = if dynset.negated { dynset_flag::NEGATED } else { 0 };
    if dynset.exprs.is_empty() {
        let mut e = Expression::new(c"dynset")?;
        e.text(sys::NFTNL_EXPR_DYNSET_SET_NAME, "set name", dynset.set.as_str())?;
        e.u32(sys::NFTNL_EXPR_DYNSET_OP, dynset.op.to_wire());
        e.u32(sys::NFTNL_EXPR_DYNSET_SREG_KEY, dynset.key.to_wire());
        if let Some(data) = dynset.data {
            e.u32(sys::NFTNL_EXPR_DYNSET_SREG_DATA, data.to_wire());
        }
        if let Some(timeout) = timeout {
            e.u64(sys::NFTNL_EXPR_DYNSET_TIMEOUT, timeout);
        }
        if flags != 0 {
            e.u32(sys::NFTNL_EXPR_DYNSET_FLAGS, flags);
        }
        return Ok(Encoded::Nftnl(e));
    }
    // libnftnl takes no expression of ours into one of its own.
    let mut data = Attributes::new();
    data.text(1, dynset.set.as_str())?;
    data.number(3, dynset.op.to_wire())?;
    data.number(4, dynset.key.to_wire())?;
    if let Some(value) = dynset.data {
        data.number(5, value.to_wire())?;
    }
    if let Some(timeout) = timeout {
        data.wide(6, timeout)?;
    }
    // The kernel dumps several expressions without the flag that it wants to see with them.
    let flags = match dynset.exprs.as_slice() {
        [one] => {
            data.nest(7, &single(one, depth + 1)?)?;
            flags
        }
        many => {
            data.nest(10, &list(many, depth + 1)?)?;
            flags | dynset_flag::EXPRESSIONS
        }
    };
    if flags != 0 {
        data.number(9, flags)?;
    }
    direct("dynset", Some(data))
}

/// libnftnl would take ownership of the parameters.
fn xt(name: &str, xt: &Xt) -> Result<Encoded, Fault> {
    let mut data = Attributes::new();
    data.text(1, &xt.name)?;
    data.number(2, xt.revision)?;
    data.bytes(3, xt.info.as_slice())?;
    direct(name, Some(data))
}
