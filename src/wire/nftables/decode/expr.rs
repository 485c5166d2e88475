//! Expressions. What this crate has no word for is an error that names it: a rule that was read in part would say
//! something else than the kernel does.

use crate::nft::{
    BitwiseOp, ChainName, CmpOp, CtDirection, CtKey, Data, Expr, Log, MetaKey, PayloadBase, Register, Reject,
    RejectCode, SetName, Verdict,
};
use crate::wire::netlink::{Attribute, Attributes, DecodeError};
use crate::wire::nftables::{LIMIT_OVER, LOOKUP_NEGATED};

use super::{missing, name, unknown};

/// The attributes of an expression, by number.
struct Parts<'a, const N: usize> {
    slots: [Option<Attribute<'a>>; N],
    what: &'static str,
    offset: usize,
}

impl<'a, const N: usize> Parts<'a, N> {
    /// Takes attributes with numbers below `N`. One at or past it is unknown here, and what it means with it.
    fn read(what: &'static str, data: Option<Attribute<'a>>, offset: usize) -> Result<Self, DecodeError> {
        let mut slots = [None; N];
        let attributes = data.map_or(Attributes::new(&[], offset), |data| data.nested());
        for attribute in attributes {
            let attribute = attribute?;
            match slots.get_mut(usize::from(attribute.kind)) {
                Some(slot) => *slot = Some(attribute),
                None => return Err(unknown(what, attribute.offset, format!("attribute {}", attribute.kind))),
            }
        }
        Ok(Self { slots, what, offset })
    }

    /// Refuses attributes that exist, and that this crate has no field for.
    fn without(self, kinds: &[usize]) -> Result<Self, DecodeError> {
        match kinds.iter().find_map(|kind| self.slots[*kind]) {
            Some(attribute) => Err(unknown(self.what, attribute.offset, format!("attribute {}", attribute.kind))),
            None => Ok(self),
        }
    }

    fn need(&self, kind: usize) -> Result<Attribute<'a>, DecodeError> {
        self.slots[kind].ok_or_else(|| missing(self.what, self.offset, format!("attribute {kind}")))
    }

    fn number(&self, kind: usize) -> Result<u32, DecodeError> {
        self.need(kind)?.be32(self.what)
    }

    fn number_or(&self, kind: usize, default: u32) -> Result<u32, DecodeError> {
        self.slots[kind].map_or(Ok(default), |attribute| attribute.be32(self.what))
    }

    fn register(&self, kind: usize) -> Result<Register, DecodeError> {
        let attribute = self.need(kind)?;
        let number = attribute.be32(self.what)?;
        Register::from_wire(number).ok_or_else(|| unknown(self.what, attribute.offset, format!("register {number}")))
    }

    fn value(&self, kind: usize) -> Result<Data, DecodeError> {
        value(self.what, self.need(kind)?)
    }

    /// A number that stands for one of several things.
    fn one_of<T>(&self, kind: usize, choices: impl FnOnce(u32) -> Option<T>) -> Result<T, DecodeError> {
        let number = self.number(kind)?;
        choices(number).ok_or_else(|| unknown(self.what, self.need(kind).map_or(0, |a| a.offset), number.to_string()))
    }
}

/// `NFTA_DATA_VALUE` in its nest.
pub(super) fn value(what: &'static str, nest: Attribute<'_>) -> Result<Data, DecodeError> {
    let mut data = None;
    for attribute in nest.nested() {
        let attribute = attribute?;
        match attribute.kind {
            1 => {
                let bytes = attribute.payload;
                let fits = Data::new(bytes);
                data = Some(
                    fits.map_err(|error| DecodeError::new(what, attribute.offset, "64 bytes", error.to_string()))?,
                );
            }
            kind => return Err(unknown(what, attribute.offset, format!("data attribute {kind}"))),
        }
    }
    data.ok_or_else(|| missing(what, nest.offset, "a value"))
}

/// One list element: a name, and attributes that mean what the name says.
pub(super) fn decode(item: Attribute<'_>) -> Result<Expr, DecodeError> {
    let (mut expression, mut data) = (None, None);
    for attribute in item.nested() {
        let attribute = attribute?;
        match attribute.kind {
            1 => expression = Some(attribute.text("expression name")?),
            2 => data = Some(attribute),
            kind => return Err(unknown("expression", attribute.offset, format!("attribute {kind}"))),
        }
    }
    let at = item.offset;
    match expression {
        Some("payload") => {
            // From 5 on: writing to the packet.
            let parts = Parts::<5>::read("payload expression", data, at)?;
            Ok(Expr::Payload {
                dreg: parts.register(1)?,
                base: parts.one_of(2, |base| match base {
                    0 => Some(PayloadBase::LinkLayer),
                    1 => Some(PayloadBase::Network),
                    2 => Some(PayloadBase::Transport),
                    _ => None,
                })?,
                offset: parts.number(3)?,
                len: parts.number(4)?,
            })
        }
        Some("meta") => {
            // 3: setting it.
            let parts = Parts::<3>::read("meta expression", data, at)?;
            Ok(Expr::Meta { dreg: parts.register(1)?, key: parts.one_of(2, meta_key)? })
        }
        Some("ct") => {
            let parts = Parts::<4>::read("ct expression", data, at)?;
            let direction = match parts.slots[3] {
                None => None,
                Some(attribute) => Some(match attribute.u8("ct direction")? {
                    0 => CtDirection::Original,
                    1 => CtDirection::Reply,
                    other => return Err(unknown("ct direction", attribute.offset, other.to_string())),
                }),
            };
            let key = parts.one_of(2, |key| match key {
                0 => Some(CtKey::State),
                2 => Some(CtKey::Status),
                _ => None,
            })?;
            Ok(Expr::Ct { key, direction, dreg: parts.register(1)? })
        }
        Some("cmp") => {
            let parts = Parts::<4>::read("cmp expression", data, at)?;
            let op = parts.one_of(2, |op| match op {
                0 => Some(CmpOp::Eq),
                1 => Some(CmpOp::Neq),
                2 => Some(CmpOp::Lt),
                3 => Some(CmpOp::Lte),
                4 => Some(CmpOp::Gt),
                5 => Some(CmpOp::Gte),
                _ => None,
            })?;
            Ok(Expr::Cmp { op, sreg: parts.register(1)?, data: parts.value(3)? })
        }
        Some("range") => {
            let parts = Parts::<5>::read("range expression", data, at)?;
            let negated = parts.one_of(2, |op| match op {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            })?;
            Ok(Expr::Range { negated, sreg: parts.register(1)?, from: parts.value(3)?, to: parts.value(4)? })
        }
        Some("bitwise") => {
            let parts = Parts::<7>::read("bitwise expression", data, at)?;
            match parts.number_or(6, 0)? {
                0 => {}
                // Shifts, and since Linux 6.13 the operations on two registers.
                other => return Err(unknown("bitwise expression", at, format!("operation {other}"))),
            }
            Ok(Expr::Bitwise {
                sreg: parts.register(1)?,
                dreg: parts.register(2)?,
                len: parts.number(3)?,
                op: BitwiseOp::MaskXor { mask: parts.value(4)?, xor: parts.value(5)? },
            })
        }
        Some("lookup") => {
            // 3: the destination of a map. 4: number of a set within a transaction.
            let parts = Parts::<6>::read("lookup expression", data, at)?.without(&[3, 4])?;
            let flags = parts.number_or(5, 0)?;
            if flags & !LOOKUP_NEGATED != 0 {
                return Err(unknown("lookup expression", at, format!("flags {flags:#x}")));
            }
            let set = parts.need(1)?;
            Ok(Expr::Lookup {
                set: name(SetName::new, "set name", set)?,
                sreg: parts.register(2)?,
                negated: flags & LOOKUP_NEGATED != 0,
            })
        }
        Some("immediate") => {
            let parts = Parts::<3>::read("immediate expression", data, at)?;
            match parts.number(1)? {
                0 => verdict(parts.need(2)?).map(Expr::Verdict),
                _ => Ok(Expr::Immediate { dreg: parts.register(1)?, data: parts.value(2)? }),
            }
        }
        Some("counter") => {
            let parts = Parts::<4>::read("counter expression", data, at)?;
            Ok(Expr::Counter {
                bytes: parts.need(1)?.be64("counter bytes")?,
                packets: parts.need(2)?.be64("counter packets")?,
            })
        }
        Some("log") => {
            // 5 and 6: level and flags, of a log statement that goes to the kernel log instead.
            let parts = Parts::<5>::read("log expression", data, at)?;
            Ok(Expr::Log(Log {
                group: parts.need(1)?.be16("log group")?,
                prefix: parts.slots[2].map(|text| text.text("log prefix").map(str::to_owned)).transpose()?,
                snaplen: parts.slots[3].map(|number| number.be32("log snaplen")).transpose()?,
                queue_threshold: parts.slots[4].map(|number| number.be16("log queue threshold")).transpose()?,
            }))
        }
        Some("reject") => {
            let parts = Parts::<3>::read("reject expression", data, at)?;
            let code = |what| parts.need(2).and_then(|code| code.u8(what).map(|number| (number, code.offset)));
            match parts.number(1)? {
                0 => Ok(Expr::Reject(Reject::Icmp(code("ICMP code")?.0))),
                1 => Ok(Expr::Reject(Reject::TcpReset)),
                2 => Ok(Expr::Reject(Reject::Icmpx(match code("ICMPX code")? {
                    (0, _) => RejectCode::NoRoute,
                    (1, _) => RejectCode::PortUnreachable,
                    (2, _) => RejectCode::HostUnreachable,
                    (3, _) => RejectCode::AdminProhibited,
                    (other, offset) => return Err(unknown("ICMPX code", offset, other.to_string())),
                }))),
                other => Err(unknown("reject expression", at, format!("type {other}"))),
            }
        }
        // Flags and ports are attributes, of which this crate writes none.
        Some("masq") => Parts::<1>::read("masq expression", data, at).map(|_| Expr::Masquerade),
        Some("limit") => {
            let parts = Parts::<7>::read("limit expression", data, at)?;
            match parts.number_or(4, 0)? {
                0 => {}
                other => return Err(unknown("limit expression", at, format!("type {other}"))),
            }
            let flags = parts.number_or(5, 0)?;
            if flags & !LIMIT_OVER != 0 {
                return Err(unknown("limit expression", at, format!("flags {flags:#x}")));
            }
            Ok(Expr::Limit {
                rate: parts.need(1)?.be64("limit rate")?,
                seconds: parts.need(2)?.be64("limit unit")?,
                burst: parts.number_or(3, 0)?,
                over: flags & LIMIT_OVER != 0,
            })
        }
        Some(other) => Err(unknown("expression", at, format!("`{}`", other.escape_debug()))),
        None => Err(missing("expression", at, "a name")),
    }
}

fn verdict(nest: Attribute<'_>) -> Result<Verdict, DecodeError> {
    const WHAT: &str = "verdict";
    let (mut code, mut chain) = (None, None);
    for outer in nest.nested() {
        let outer = outer?;
        if outer.kind != 2 {
            return Err(unknown(WHAT, outer.offset, format!("data attribute {}", outer.kind)));
        }
        for attribute in outer.nested() {
            let attribute = attribute?;
            match attribute.kind {
                1 => code = Some(attribute.be32(WHAT)? as i32),
                2 => chain = Some(attribute),
                kind => return Err(unknown(WHAT, attribute.offset, format!("attribute {kind}"))),
            }
        }
    }
    let target = || match chain {
        Some(chain) => name(ChainName::new, "chain name", chain),
        None => Err(missing(WHAT, nest.offset, "a chain")),
    };
    match code {
        Some(0) => Ok(Verdict::Drop),
        Some(1) => Ok(Verdict::Accept),
        Some(-1) => Ok(Verdict::Continue),
        Some(-3) => target().map(Verdict::Jump),
        Some(-4) => target().map(Verdict::Goto),
        Some(-5) => Ok(Verdict::Return),
        Some(other) => Err(unknown(WHAT, nest.offset, format!("code {other}"))),
        None => Err(missing(WHAT, nest.offset, "a code")),
    }
}

fn meta_key(number: u32) -> Option<MetaKey> {
    Some(match number {
        1 => MetaKey::Protocol,
        3 => MetaKey::Mark,
        4 => MetaKey::Iif,
        5 => MetaKey::Oif,
        6 => MetaKey::IifName,
        7 => MetaKey::OifName,
        10 => MetaKey::SkUid,
        15 => MetaKey::NfProto,
        16 => MetaKey::L4Proto,
        _ => return None,
    })
}
