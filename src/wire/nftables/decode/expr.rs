//! Expressions. What this crate has no word for stays as the kernel spelled it: a rule that was read in part would say
//! something else than the kernel does.

use std::time::Duration;

use super::fields::{Fields, byte, number, register, short, text, wide};
use super::{missing, unknown};
use crate::nft::{
    BitwiseOp, ByteorderOp, Bytes, ChainName, Checksum, CmpOp, CtDirection, CtKey, Dynset, DynsetOp, Expr, ExthdrOp,
    Family, FibFlags, FibResult, FlowtableName, Hash, Limit, Log, LogFlags, LogLevel, MetaKey, Nat, NatFlags, NatKind,
    NatPorts, NumgenKind, ObjectName, ObjectType, PayloadBase, QueueFlags, QueueNumber, Quota, RegisterRange, Reject,
    RejectCode, RtKey, SetName, SocketKey, Synproxy, Syslog, TunnelKey, TunnelMode, Verdict, XfrmDirection, XfrmKey,
    Xt,
};
use crate::wire::netlink::{Attribute, DecodeError};
use crate::wire::nftables::{LIMIT_OVER, LOOKUP_NEGATED, MAX_NESTING, dynset_flag, quota_flag};

/// One list element: a name, and attributes that mean what the name says.
pub(super) fn decode(item: Attribute<'_>) -> Result<Expr, DecodeError> {
    decode_at(item, 0)
}

fn decode_at(item: Attribute<'_>, depth: usize) -> Result<Expr, DecodeError> {
    let (mut expression, mut data) = (None, None);
    for attribute in item.nested() {
        let attribute = attribute?;
        match attribute.kind {
            1 => expression = Some(attribute.text("expression name")?),
            2 => data = Some(attribute),
            kind => return Err(unknown("expression", attribute.offset, format!("attribute {kind}"))),
        }
    }
    let name = expression.ok_or_else(|| missing("expression", item.offset, "a name"))?;
    Ok(typed(name, data, depth)
        .unwrap_or_else(|| Expr::Raw { name: name.to_owned(), data: data.map(|data| Bytes(data.payload.to_vec())) }))
}

/// The expression, if its type can say all that the attributes do.
fn typed(name: &str, data: Option<Attribute<'_>>, depth: usize) -> Option<Expr> {
    let Some(data) = data else {
        return match name {
            "notrack" => Some(Expr::Notrack),
            "masq" => Some(Expr::Masquerade(NatPorts::default())),
            "redir" => Some(Expr::Redirect(NatPorts::default())),
            _ => None,
        };
    };
    match name {
        "payload" => payload(data),
        "meta" => meta(data),
        "ct" => ct(data),
        "rt" => {
            let mut fields = Fields::<3>::nested(data)?;
            let expr = Expr::Rt { dreg: fields.register(1)?, key: RtKey::from_wire(fields.number(2)?)? };
            fields.all(expr)
        }
        "socket" => {
            let mut fields = Fields::<4>::nested(data)?;
            let key = SocketKey::from_wire(fields.number(1)?)?;
            let expr = Expr::Socket { key, dreg: fields.register(2)?, level: fields.maybe(3, number)? };
            fields.all(expr)
        }
        "fib" => {
            let mut fields = Fields::<4>::nested(data)?;
            let result = FibResult::from_wire(fields.number(2)?)?;
            let expr = Expr::Fib { dreg: fields.register(1)?, result, flags: FibFlags(fields.number(3)?) };
            fields.all(expr)
        }
        "exthdr" => exthdr(data),
        "hash" => hash(data),
        "numgen" => {
            let mut fields = Fields::<5>::nested(data)?;
            let expr = Expr::Numgen {
                dreg: fields.register(1)?,
                modulus: fields.number(2)?,
                kind: NumgenKind::from_wire(fields.number(3)?)?,
                offset: fields.number_or(4, 0)?,
            };
            fields.all(expr)
        }
        "osf" => {
            let mut fields = Fields::<4>::nested(data)?;
            let ttl = fields.maybe(2, byte)?.unwrap_or(0);
            let expr = Expr::Osf { dreg: fields.register(1)?, ttl, flags: fields.number_or(3, 0)? };
            fields.all(expr)
        }
        "tunnel" => {
            let mut fields = Fields::<4>::nested(data)?;
            let expr = Expr::Tunnel {
                key: TunnelKey::from_wire(fields.number(1)?)?,
                dreg: fields.register(2)?,
                mode: TunnelMode::from_wire(fields.number_or(3, 0)?)?,
            };
            fields.all(expr)
        }
        "xfrm" => {
            let mut fields = Fields::<5>::nested(data)?;
            let expr = Expr::Xfrm {
                dreg: fields.register(1)?,
                key: XfrmKey::from_wire(fields.number(2)?)?,
                direction: XfrmDirection::from_wire(fields.byte(3)?.into())?,
                spnum: fields.number_or(4, 0)?,
            };
            fields.all(expr)
        }
        "cmp" => {
            let mut fields = Fields::<4>::nested(data)?;
            let op = CmpOp::from_wire(fields.number(2)?)?;
            let expr = Expr::Cmp { sreg: fields.register(1)?, op, data: fields.data(3)? };
            fields.all(expr)
        }
        "range" => {
            let mut fields = Fields::<5>::nested(data)?;
            let negated = flag(fields.number(2)?)?;
            let (sreg, from, to) = (fields.register(1)?, fields.data(3)?, fields.data(4)?);
            fields.all(Expr::Range { negated, sreg, from, to })
        }
        "bitwise" => bitwise(data),
        "byteorder" => {
            let mut fields = Fields::<6>::nested(data)?;
            let expr = Expr::Byteorder {
                sreg: fields.register(1)?,
                dreg: fields.register(2)?,
                op: ByteorderOp::from_wire(fields.number(3)?)?,
                len: fields.number(4)?,
                size: fields.number(5)?,
            };
            fields.all(expr)
        }
        "lookup" => lookup(data),
        "dynset" => dynset(data, depth),
        "immediate" => immediate(data),
        "counter" => {
            let mut fields = Fields::<4>::nested(data)?;
            let expr = Expr::Counter { bytes: fields.wide(1)?, packets: fields.wide(2)? };
            fields.all(expr)
        }
        "log" => log(data),
        "reject" => reject(data),
        "masq" => ports(data, [2, 3, 1]).map(Expr::Masquerade),
        "redir" => ports(data, [1, 2, 3]).map(Expr::Redirect),
        "nat" => nat(data),
        "tproxy" => {
            let mut fields = Fields::<4>::nested(data)?;
            let expr = Expr::Tproxy {
                family: match fields.number(1)? {
                    0 => None,
                    number => Some(family(number)?),
                },
                address: fields.maybe(2, register)?,
                port: fields.maybe(3, register)?,
            };
            fields.all(expr)
        }
        "limit" => limit(data).map(Expr::Limit),
        "quota" => quota(data).map(Expr::Quota),
        "connlimit" => connlimit(data).map(|(count, over)| Expr::Connlimit { count, over }),
        "last" => {
            let mut fields = Fields::<4>::nested(data)?;
            let expr = Expr::Last { set: flag(fields.number(1)?)?, milliseconds: fields.wide(2)? };
            fields.all(expr)
        }
        "objref" => objref(data),
        "notrack" => Fields::<1>::nested(data)?.all(Expr::Notrack),
        "queue" => queue(data),
        "dup" => {
            let mut fields = Fields::<3>::nested(data)?;
            let expr = Expr::Dup { address: fields.maybe(1, register)?, device: fields.maybe(2, register)? };
            fields.all(expr)
        }
        "fwd" => {
            let mut fields = Fields::<4>::nested(data)?;
            let neighbour = match fields.maybe(2, register)? {
                None => None,
                Some(address) => Some((address, family(fields.number(3)?)?)),
            };
            let expr = Expr::Fwd { device: fields.register(1)?, neighbour };
            fields.all(expr)
        }
        "flow_offload" => {
            let mut fields = Fields::<2>::nested(data)?;
            let expr = Expr::FlowOffload { flowtable: FlowtableName::new(fields.text(1)?).ok()? };
            fields.all(expr)
        }
        "synproxy" => synproxy(data).map(Expr::Synproxy),
        "match" => xt(data).map(Expr::Match),
        "target" => xt(data).map(Expr::Target),
        _ => None,
    }
}

/// 0 or 1.
fn flag(number: u32) -> Option<bool> {
    match number {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn family(number: u32) -> Option<Family> {
    u8::try_from(number).ok().and_then(Family::from_wire)
}

fn payload(data: Attribute<'_>) -> Option<Expr> {
    let mut fields = Fields::<9>::nested(data)?;
    let base = PayloadBase::from_wire(fields.number(2)?)?;
    let (offset, len) = (fields.number(3)?, fields.number(4)?);
    let expr = match fields.maybe(5, register)? {
        None => Expr::Payload { base, offset, len, dreg: fields.register(1)? },
        Some(sreg) => {
            let (kind, place) = (fields.number_or(6, 0)?, fields.number_or(7, 0)?);
            let checksum = Checksum { kind, offset: place, flags: fields.number_or(8, 0)? };
            Expr::PayloadWrite { base, offset, len, sreg, checksum }
        }
    };
    fields.all(expr)
}

fn meta(data: Attribute<'_>) -> Option<Expr> {
    let mut fields = Fields::<4>::nested(data)?;
    let key = MetaKey::from_wire(fields.number(2)?)?;
    let expr = match fields.maybe(1, register)? {
        Some(dreg) => Expr::Meta { key, dreg },
        None => Expr::MetaSet { key, sreg: fields.register(3)? },
    };
    fields.all(expr)
}

fn ct(data: Attribute<'_>) -> Option<Expr> {
    let mut fields = Fields::<5>::nested(data)?;
    let key = CtKey::from_wire(fields.number(2)?)?;
    let direction = fields.maybe(3, |direction| CtDirection::from_wire(byte(direction)?.into()))?;
    let expr = match fields.maybe(1, register)? {
        Some(dreg) => Expr::Ct { key, direction, dreg },
        None => Expr::CtSet { key, direction, sreg: fields.register(4)? },
    };
    fields.all(expr)
}

fn exthdr(data: Attribute<'_>) -> Option<Expr> {
    let mut fields = Fields::<8>::nested(data)?;
    let op = ExthdrOp::from_wire(fields.number_or(6, 0)?)?;
    let kind = fields.byte(2)?;
    if !fields.has(1) && !fields.has(7) {
        // Linux dumps a place and flags here that it does not take back.
        let (0, 0, 0) = (fields.number_or(3, 0)?, fields.number_or(4, 0)?, fields.number_or(5, 0)?) else {
            return None;
        };
        return fields.all(Expr::ExthdrReset { op, kind });
    }
    let (offset, len) = (fields.number(3)?, fields.number(4)?);
    let present = flag(fields.number_or(5, 0)?)?;
    let expr = match fields.maybe(1, register)? {
        Some(dreg) => Expr::Exthdr { op, kind, offset, len, present, dreg },
        // Flags 0 are dumped here, too, and not taken back.
        None if !present => Expr::ExthdrWrite { op, kind, offset, len, sreg: fields.register(7)? },
        None => return None,
    };
    fields.all(expr)
}

fn hash(data: Attribute<'_>) -> Option<Expr> {
    let mut fields = Fields::<8>::nested(data)?;
    let of = match fields.number_or(7, 0)? {
        0 => Hash::Jenkins { sreg: fields.register(1)?, len: fields.number(3)?, seed: fields.maybe(5, number)? },
        1 => Hash::Symmetric,
        _ => return None,
    };
    let (modulus, offset) = (fields.number(4)?, fields.number_or(6, 0)?);
    let expr = Expr::Hash { of, modulus, offset, dreg: fields.register(2)? };
    fields.all(expr)
}

fn bitwise(data: Attribute<'_>) -> Option<Expr> {
    let mut fields = Fields::<9>::nested(data)?;
    let op = match fields.number_or(6, 0)? {
        0 => BitwiseOp::MaskXor { mask: fields.data(4)?, xor: fields.data(5)? },
        1 => BitwiseOp::ShiftLeft(fields.data(7)?),
        2 => BitwiseOp::ShiftRight(fields.data(7)?),
        3 => BitwiseOp::And(fields.register(8)?),
        4 => BitwiseOp::Or(fields.register(8)?),
        5 => BitwiseOp::Xor(fields.register(8)?),
        _ => return None,
    };
    let expr = Expr::Bitwise { sreg: fields.register(1)?, dreg: fields.register(2)?, len: fields.number(3)?, op };
    fields.all(expr)
}

fn lookup(data: Attribute<'_>) -> Option<Expr> {
    let mut fields = Fields::<6>::nested(data)?;
    let set = SetName::new(fields.text(1)?).ok()?;
    let sreg = fields.register(2)?;
    let negated = match fields.number_or(5, 0)? {
        0 => false,
        LOOKUP_NEGATED => true,
        _ => return None,
    };
    let expr = match fields.maybe(3, number)? {
        None => Expr::Lookup { set, sreg, negated },
        Some(_) if negated => return None,
        Some(0) => Expr::VerdictMap { set, sreg },
        Some(dreg) => Expr::Map { set, sreg, dreg: crate::nft::Register::from_wire(dreg)? },
    };
    fields.all(expr)
}

fn dynset(data: Attribute<'_>, depth: usize) -> Option<Expr> {
    let mut fields = Fields::<11>::nested(data)?;
    let mut exprs = Vec::new();
    let inner = |item| if depth < MAX_NESTING { decode_at(item, depth + 1).ok() } else { None };
    if let Some(one) = fields.take(7) {
        exprs.push(inner(one)?);
    } else if let Some(many) = fields.take(10) {
        for item in many.nested() {
            let item = item.ok()?;
            exprs.push(if item.kind == 1 { inner(item)? } else { return None });
        }
        // A single one is spelled in the other way.
        if exprs.len() < 2 {
            return None;
        }
    }
    let flags = fields.number_or(9, 0)?;
    if flags & !(dynset_flag::NEGATED | dynset_flag::EXPRESSIONS) != 0 {
        return None;
    }
    let dynset = Dynset {
        set: SetName::new(fields.text(1)?).ok()?,
        op: DynsetOp::from_wire(fields.number(3)?)?,
        key: fields.register(4)?,
        data: fields.maybe(5, register)?,
        // Linux dumps 0 for none, and does not take it back where the set has no time-outs.
        timeout: fields.maybe(6, wide)?.filter(|time| *time != 0).map(Duration::from_millis),
        negated: flags & dynset_flag::NEGATED != 0,
        exprs,
    };
    fields.all(Expr::Dynset(dynset))
}

fn immediate(data: Attribute<'_>) -> Option<Expr> {
    let mut fields = Fields::<3>::nested(data)?;
    let expr = match fields.number(1)? {
        0 => Expr::Verdict(verdict(fields.take(2)?)?),
        dreg => Expr::Immediate { dreg: crate::nft::Register::from_wire(dreg)?, data: fields.data(2)? },
    };
    fields.all(expr)
}

/// `NFTA_DATA_VERDICT` in its nest.
pub(super) fn verdict(nest: Attribute<'_>) -> Option<Verdict> {
    let mut outer = Fields::<3>::nested(nest)?;
    let mut fields = Fields::<3>::nested(outer.take(2)?)?;
    let code = fields.number(1)? as i32;
    let target = fields.maybe(2, |chain| ChainName::new(text(chain)?).ok())?;
    let verdict = match (code, target) {
        (0, None) => Verdict::Drop,
        (1, None) => Verdict::Accept,
        (-1, None) => Verdict::Continue,
        (-3, Some(chain)) => Verdict::Jump(chain),
        (-4, Some(chain)) => Verdict::Goto(chain),
        (-5, None) => Verdict::Return,
        _ => return None,
    };
    fields.all(()).and(outer.all(verdict))
}

fn log(data: Attribute<'_>) -> Option<Expr> {
    let mut fields = Fields::<7>::nested(data)?;
    let prefix = fields.maybe(2, |prefix| text(prefix).filter(|text| text.len() <= Log::MAX_PREFIX))?;
    let prefix = prefix.map(str::to_owned);
    let expr = match fields.maybe(1, short)? {
        Some(group) => {
            let (snaplen, queue_threshold) = (fields.maybe(3, number)?, fields.maybe(4, short)?);
            Expr::Log(Log { group, prefix, snaplen, queue_threshold })
        }
        None => {
            let level = fields.maybe(5, |level| LogLevel::from_wire(number(level)?))?;
            Expr::Syslog(Syslog { prefix, level, flags: LogFlags(fields.number_or(6, 0)?) })
        }
    };
    fields.all(expr)
}

fn reject(data: Attribute<'_>) -> Option<Expr> {
    let mut fields = Fields::<3>::nested(data)?;
    let reject = match fields.number(1)? {
        0 => Reject::Icmp(fields.byte(2)?),
        1 => {
            // nft(8) writes a code here, which means nothing.
            let _ = fields.maybe(2, byte)?;
            Reject::TcpReset
        }
        2 => Reject::Icmpx(RejectCode::from_wire(fields.byte(2)?.into())?),
        _ => return None,
    };
    fields.all(Expr::Reject(reject))
}

fn range<const N: usize>(fields: &mut Fields<'_, N>, min: usize, max: usize) -> Option<Option<RegisterRange>> {
    match (fields.maybe(min, register)?, fields.maybe(max, register)?) {
        (None, None) => Some(None),
        (Some(min), max) => Some(Some(RegisterRange { min, max: max.unwrap_or(min) })),
        (None, Some(_)) => None,
    }
}

fn ports(data: Attribute<'_>, [min, max, flags]: [usize; 3]) -> Option<NatPorts> {
    let mut fields = Fields::<4>::nested(data)?;
    let ports = range(&mut fields, min, max)?;
    let flags = NatFlags(fields.number_or(flags, 0)?);
    fields.all(NatPorts { ports, flags })
}

fn nat(data: Attribute<'_>) -> Option<Expr> {
    let mut fields = Fields::<8>::nested(data)?;
    let kind = NatKind::from_wire(fields.number(1)?)?;
    let family = family(fields.number(2)?)?;
    let (addresses, ports) = (range(&mut fields, 3, 4)?, range(&mut fields, 5, 6)?);
    let flags = NatFlags(fields.number_or(7, 0)?);
    fields.all(Expr::Nat(Nat { kind, family, addresses, ports, flags }))
}

pub(super) fn limit(data: Attribute<'_>) -> Option<Limit> {
    let mut fields = Fields::<6>::nested(data)?;
    let (bytes, over) = (flag(fields.number_or(4, 0)?)?, fields.number_or(5, 0)?);
    let over = match over {
        0 => false,
        LIMIT_OVER => true,
        _ => return None,
    };
    let (rate, seconds, burst) = (fields.wide(1)?, fields.wide(2)?, fields.number_or(3, 0)?);
    fields.all(Limit { rate, seconds, burst, over, bytes })
}

pub(super) fn quota(data: Attribute<'_>) -> Option<Quota> {
    let mut fields = Fields::<5>::nested(data)?;
    let flags = fields.number_or(2, 0)?;
    // Whether it is used up follows from the numbers, but the kernel tells.
    if flags & !(quota_flag::OVER | quota_flag::DEPLETED) != 0 {
        return None;
    }
    let bytes = fields.wide(1)?;
    let quota = Quota { bytes, used: fields.maybe(4, wide)?.unwrap_or(0), over: flags & quota_flag::OVER != 0 };
    fields.all(quota)
}

pub(super) fn connlimit(data: Attribute<'_>) -> Option<(u32, bool)> {
    let mut fields = Fields::<3>::nested(data)?;
    let limit = (fields.number(1)?, flag(fields.number_or(2, 0)?)?);
    fields.all(limit)
}

pub(super) fn synproxy(data: Attribute<'_>) -> Option<Synproxy> {
    let mut fields = Fields::<4>::nested(data)?;
    let (mss, wscale) = (fields.maybe(1, short)?.unwrap_or(0), fields.maybe(2, byte)?.unwrap_or(0));
    let synproxy = Synproxy { mss, wscale, flags: fields.number_or(3, 0)? };
    fields.all(synproxy)
}

fn objref(data: Attribute<'_>) -> Option<Expr> {
    let mut fields = Fields::<6>::nested(data)?;
    let expr = match fields.maybe(1, number)? {
        Some(kind) => {
            Expr::ObjectRef { kind: ObjectType::from_wire(kind), name: ObjectName::new(fields.text(2)?).ok()? }
        }
        None => Expr::ObjectMap { sreg: fields.register(3)?, set: SetName::new(fields.text(4)?).ok()? },
    };
    fields.all(expr)
}

fn queue(data: Attribute<'_>) -> Option<Expr> {
    let mut fields = Fields::<5>::nested(data)?;
    let to = match fields.maybe(4, register)? {
        Some(register) => QueueNumber::Register(register),
        None => QueueNumber::Range { first: fields.short(1)?, total: fields.maybe(2, short)?.unwrap_or(1) },
    };
    let flags = QueueFlags(fields.maybe(3, short)?.unwrap_or(0));
    fields.all(Expr::Queue { to, flags })
}

fn xt(data: Attribute<'_>) -> Option<Xt> {
    let mut fields = Fields::<4>::nested(data)?;
    let (name, revision) = (fields.text(1)?.to_owned(), fields.number(2)?);
    let info = Bytes(fields.take(3)?.payload.to_vec());
    fields.all(Xt { name, revision, info })
}

/// Every expression of a list.
pub(super) fn list(nest: Attribute<'_>) -> Result<Vec<Expr>, DecodeError> {
    nest.nested().map(|item| item.and_then(decode)).collect()
}
