//! Rules as sentences: each method appends what nft(8) makes of the match or statement that it names.
//!
//! What nft(8) puts in front by itself is put in front here, too: `tcp_dport` asks for TCP first, and `ip_daddr` in an inet table
//! for IPv4, unless the rule does already. A test compares every method with what nft(8) makes of the text beside it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};

use super::{
    BitwiseOp, ChainName, CmpOp, CtKey, Data, DataTooLong, Dynset, DynsetOp, Expr, Family, Field, InterfaceName,
    KnownObject, Limit, MetaKey, Nat, NatFlags, NatKind, NatPorts, ObjectName, PayloadBase, Quota, Register, Rule,
    SetName, Verdict,
};

/// What a field must be: one value, a range, a member of a set, or not that.
///
/// Made from a value, an inclusive range, a prefix, or a reference to a set's name; [`not`] turns it over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Is<T> {
    negated: bool,
    what: What<T>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What<T> {
    Value(T),
    Range(T, T),
    Prefix(T, u8),
    Set(SetName),
}

/// Turns a condition over: `not(22)` is any port but 22.
pub fn not<T>(is: impl Into<Is<T>>) -> Is<T> {
    let is = is.into();
    Is { negated: !is.negated, ..is }
}

/// One by one: a `From<T>` for every `T` would be one for `&SetName`, too.
macro_rules! from_value {
    ($($value:ty),*) => {
        $(impl From<$value> for Is<$value> {
            fn from(value: $value) -> Self {
                Self { negated: false, what: What::Value(value) }
            }
        })*
    };
}
from_value!(Ipv4Addr, Ipv6Addr, u8, u16, InterfaceName);

impl<T> From<RangeInclusive<T>> for Is<T> {
    fn from(range: RangeInclusive<T>) -> Self {
        let (from, to) = range.into_inner();
        Self { negated: false, what: What::Range(from, to) }
    }
}

impl<T> From<&SetName> for Is<T> {
    fn from(set: &SetName) -> Self {
        Self { negated: false, what: What::Set(set.clone()) }
    }
}

impl From<Ipv4Net> for Is<Ipv4Addr> {
    fn from(net: Ipv4Net) -> Self {
        Self { negated: false, what: What::Prefix(net.network(), net.prefix_len()) }
    }
}

impl From<Ipv6Net> for Is<Ipv6Addr> {
    fn from(net: Ipv6Net) -> Self {
        Self { negated: false, what: What::Prefix(net.network(), net.prefix_len()) }
    }
}

/// Protocols that have ports.
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

impl Rule {
    /// Whether it asks already for that value of what a load yields.
    fn asks(&self, load: &Expr, value: &Data) -> bool {
        self.exprs.windows(2).any(|pair| {
            matches!(&pair[1], Expr::Cmp { op: CmpOp::Eq, sreg: Register::FIRST, data } if pair[0] == *load && data == value)
        })
    }

    fn once(self, field: Field, value: Data) -> Self {
        let load = match field {
            Field::Meta(key) => Expr::Meta { key, dreg: Register::FIRST },
            Field::Payload { base, offset, len } => Expr::Payload { base, offset, len, dreg: Register::FIRST },
        };
        if self.asks(&load, &value) { self } else { self.equals(field, value) }
    }

    /// Asks for a network protocol where the table's family leaves it open.
    fn network(self, family: Family) -> Self {
        let ethertype = if family == Family::Ip { 0x0800 } else { 0x86dd };
        match self.table.family {
            Family::Inet => self.once(Field::NFPROTO, Data::byte(family.to_wire())),
            Family::Bridge | Family::Netdev => self.once(Field::PROTOCOL, Data::be16(ethertype)),
            _ => self,
        }
    }

    fn transport(self, protocol: u8) -> Self {
        self.once(Field::L4PROTO, Data::byte(protocol))
    }

    /// Loads a field and holds it against a condition.
    fn is<T>(self, field: Field, is: Is<T>, data: impl Fn(&T) -> Data) -> Self {
        let Is { negated, what } = is;
        let sreg = Register::FIRST;
        match what {
            What::Value(value) => {
                let op = if negated { CmpOp::Neq } else { CmpOp::Eq };
                self.load(field).expr(Expr::Cmp { op, sreg, data: data(&value) })
            }
            What::Range(from, to) if negated => {
                let (from, to) = (data(&from), data(&to));
                self.load(field).expr(Expr::Range { negated, sreg, from, to })
            }
            What::Range(from, to) => self
                .load(field)
                .expr(Expr::Cmp { op: CmpOp::Gte, sreg, data: data(&from) })
                .expr(Expr::Cmp { op: CmpOp::Lte, sreg, data: data(&to) }),
            What::Set(set) => self.load(field).expr(Expr::Lookup { set, sreg, negated }),
            What::Prefix(value, length) => self.prefix(field, negated, data(&value), length),
        }
    }

    /// A prefix that ends at a byte is a shorter load, any other a mask.
    fn prefix(self, field: Field, negated: bool, value: Data, length: u8) -> Self {
        let sreg = Register::FIRST;
        let op = if negated { CmpOp::Neq } else { CmpOp::Eq };
        let whole = usize::from(length / 8);
        let bytes = value.as_bytes();
        match field {
            Field::Payload { base, offset, .. } if length.is_multiple_of(8) && (1..bytes.len()).contains(&whole) => {
                let short = Field::Payload { base, offset, len: whole as u32 };
                let data = Data::new(&bytes[..whole]).unwrap_or_default();
                self.load(short).expr(Expr::Cmp { op, sreg, data })
            }
            _ if whole >= bytes.len() => self.load(field).expr(Expr::Cmp { op, sreg, data: value }),
            _ => {
                let bit = |index: usize| index < usize::from(length);
                let byte = |index: usize| (0..8).fold(0, |byte, at| byte << 1 | u8::from(bit(index * 8 + at)));
                let mask: Vec<u8> = (0..bytes.len()).map(byte).collect();
                let zero = Data::new(&vec![0; bytes.len()]).unwrap_or_default();
                let op_mask = BitwiseOp::MaskXor { mask: Data::new(&mask).unwrap_or_default(), xor: zero };
                self.load(field)
                    .expr(Expr::Bitwise { sreg, dreg: sreg, len: bytes.len() as u32, op: op_mask })
                    .expr(Expr::Cmp { op, sreg, data: value })
            }
        }
    }

    fn load(self, field: Field) -> Self {
        let dreg = Register::FIRST;
        self.expr(match field {
            Field::Meta(key) => Expr::Meta { key, dreg },
            Field::Payload { base, offset, len } => Expr::Payload { base, offset, len, dreg },
        })
    }

    /// nft(8): `ip saddr 203.0.113.9`, `ip saddr 203.0.113.0/24`, `ip saddr != @SET`.
    pub fn ip_saddr(self, is: impl Into<Is<Ipv4Addr>>) -> Self {
        self.network(Family::Ip).is(Field::IP_SADDR, is.into(), |address| Data::ipv4(*address))
    }

    /// nft(8): `ip daddr`.
    pub fn ip_daddr(self, is: impl Into<Is<Ipv4Addr>>) -> Self {
        self.network(Family::Ip).is(Field::IP_DADDR, is.into(), |address| Data::ipv4(*address))
    }

    /// nft(8): `ip6 saddr`.
    pub fn ip6_saddr(self, is: impl Into<Is<Ipv6Addr>>) -> Self {
        self.network(Family::Ip6).is(Field::IP6_SADDR, is.into(), |address| Data::ipv6(*address))
    }

    /// nft(8): `ip6 daddr`.
    pub fn ip6_daddr(self, is: impl Into<Is<Ipv6Addr>>) -> Self {
        self.network(Family::Ip6).is(Field::IP6_DADDR, is.into(), |address| Data::ipv6(*address))
    }

    /// nft(8): `tcp sport`.
    pub fn tcp_sport(self, is: impl Into<Is<u16>>) -> Self {
        self.transport(TCP).is(Field::SPORT, is.into(), |port| Data::be16(*port))
    }

    /// nft(8): `tcp dport 443`, `tcp dport 1024-65535`, `tcp dport @SET`.
    pub fn tcp_dport(self, is: impl Into<Is<u16>>) -> Self {
        self.transport(TCP).is(Field::DPORT, is.into(), |port| Data::be16(*port))
    }

    /// nft(8): `udp sport`.
    pub fn udp_sport(self, is: impl Into<Is<u16>>) -> Self {
        self.transport(UDP).is(Field::SPORT, is.into(), |port| Data::be16(*port))
    }

    /// nft(8): `udp dport`.
    pub fn udp_dport(self, is: impl Into<Is<u16>>) -> Self {
        self.transport(UDP).is(Field::DPORT, is.into(), |port| Data::be16(*port))
    }

    /// nft(8): `icmp type 8`.
    pub fn icmp_type(self, is: impl Into<Is<u8>>) -> Self {
        self.network(Family::Ip).transport(ICMP).is(Field::ICMP_TYPE, is.into(), |number| Data::byte(*number))
    }

    /// nft(8): `icmpv6 type 135`.
    pub fn icmpv6_type(self, is: impl Into<Is<u8>>) -> Self {
        self.network(Family::Ip6).transport(ICMPV6).is(Field::ICMP_TYPE, is.into(), |number| Data::byte(*number))
    }

    /// nft(8): `iifname "eth0"`.
    pub fn iifname(self, is: impl Into<Is<InterfaceName>>) -> Self {
        self.is(Field::Meta(MetaKey::IifName), is.into(), interface)
    }

    /// nft(8): `oifname "eth0"`.
    pub fn oifname(self, is: impl Into<Is<InterfaceName>>) -> Self {
        self.is(Field::Meta(MetaKey::OifName), is.into(), interface)
    }

    /// nft(8): `iif`, by index.
    pub fn iif(self, index: u32) -> Self {
        self.equals(Field::IIF, Data::native32(index))
    }

    /// nft(8): `oif`, by index.
    pub fn oif(self, index: u32) -> Self {
        self.equals(Field::OIF, Data::native32(index))
    }

    /// nft(8): `meta mark 0x10`.
    pub fn mark(self, mark: u32) -> Self {
        self.equals(Field::Meta(MetaKey::Mark), Data::native32(mark))
    }

    /// nft(8): `meta skuid 1000`.
    pub fn skuid(self, uid: u32) -> Self {
        self.equals(Field::Meta(MetaKey::SkUid), Data::native32(uid))
    }

    /// nft(8): `accept`.
    pub fn accept(self) -> Self {
        self.verdict(Verdict::Accept)
    }

    /// nft(8): `drop`.
    pub fn drop(self) -> Self {
        self.verdict(Verdict::Drop)
    }

    /// nft(8): `jump CHAIN`.
    pub fn jump(self, chain: &ChainName) -> Self {
        self.verdict(Verdict::Jump(chain.clone()))
    }

    /// nft(8): `goto CHAIN`.
    pub fn goto(self, chain: &ChainName) -> Self {
        self.verdict(Verdict::Goto(chain.clone()))
    }

    /// nft(8): `meta mark set 0x10`.
    pub fn set_mark(self, mark: u32) -> Self {
        let sreg = Register::FIRST;
        self.expr(Expr::Immediate { dreg: sreg, data: Data::native32(mark) })
            .expr(Expr::MetaSet { key: MetaKey::Mark, sreg })
    }

    /// nft(8): `ct mark set 0x10`.
    pub fn set_ct_mark(self, mark: u32) -> Self {
        let sreg = Register::FIRST;
        self.expr(Expr::Immediate { dreg: sreg, data: Data::native32(mark) }).expr(Expr::CtSet {
            key: CtKey::Mark,
            direction: None,
            sreg,
        })
    }

    /// nft(8): `limit rate 10/second burst 5 packets`.
    pub fn limit(self, limit: Limit) -> Self {
        self.expr(Expr::Limit(limit))
    }

    /// nft(8): `quota over 10 mbytes`.
    pub fn quota(self, quota: Quota) -> Self {
        self.expr(Expr::Quota(quota))
    }

    /// nft(8): `notrack`.
    pub fn notrack(self) -> Self {
        self.expr(Expr::Notrack)
    }

    /// nft(8): `counter name NAME`.
    pub fn counter_named(self, name: &ObjectName) -> Self {
        self.expr(Expr::ObjectRef { kind: KnownObject::Counter.into(), name: name.clone() })
    }

    /// nft(8): `snat ip to 203.0.113.9`, `dnat ip6 to [2001:db8::9]:443`.
    ///
    /// A port of 0 leaves the packet's own. With another, the rule must ask for a transport protocol before.
    pub fn nat(mut self, kind: NatKind, to: SocketAddr) -> Self {
        // The kernel's first two registers of 16 bytes.
        const SECOND: u8 = 4;
        let (family, address) = match to {
            SocketAddr::V4(to) => (Family::Ip, Data::ipv4(*to.ip())),
            SocketAddr::V6(to) => (Family::Ip6, Data::ipv6(*to.ip())),
        };
        self.exprs.push(Expr::Immediate { dreg: Register::FIRST, data: address });
        let mut ports = None;
        if let (1.., Some(second)) = (to.port(), Register::slot(SECOND)) {
            self.exprs.push(Expr::Immediate { dreg: second, data: Data::be16(to.port()) });
            ports = Some(second.into());
        }
        // What the kernel sets, so that a dump says the same.
        let flags = NatFlags(NatFlags::MAP_IPS.0 | if ports.is_some() { NatFlags::PROTO_SPECIFIED.0 } else { 0 });
        self.expr(Expr::Nat(Nat { kind, family, addresses: Some(Register::FIRST.into()), ports, flags }))
    }

    /// nft(8): `snat to ADDRESS`.
    pub fn snat(self, to: SocketAddr) -> Self {
        self.nat(NatKind::Source, to)
    }

    /// nft(8): `dnat to ADDRESS:PORT`.
    pub fn dnat(self, to: SocketAddr) -> Self {
        self.nat(NatKind::Destination, to)
    }

    /// nft(8): `redirect to :8080`. The rule must ask for a transport protocol before.
    pub fn redirect(self, port: u16) -> Self {
        let ports = Some(Register::FIRST.into());
        self.expr(Expr::Immediate { dreg: Register::FIRST, data: Data::be16(port) })
            .expr(Expr::Redirect(NatPorts { ports, flags: NatFlags::PROTO_SPECIFIED }))
    }

    /// nft(8): `update @SET { FIELD . FIELD timeout 1m limit rate over 10/second }`; `add` with [`DynsetOp::Add`].
    ///
    /// Each new element gets the expressions: a limit or counter of its own.
    ///
    /// # Errors
    ///
    /// [`DataTooLong`] when the fields, each padded to four bytes, don't fit the registers.
    pub fn into_set(
        self,
        op: DynsetOp,
        fields: &[Field],
        set: &SetName,
        timeout: Option<Duration>,
        exprs: Vec<Expr>,
    ) -> Result<Self, DataTooLong> {
        let mut rule = self.in_set(fields, set, false)?;
        // Loads as for a look-up, and another end.
        rule.exprs.pop();
        let set = set.clone();
        Ok(rule.expr(Expr::Dynset(Dynset {
            set,
            op,
            key: Register::FIRST,
            data: None,
            timeout,
            negated: false,
            exprs,
        })))
    }
}

/// An interface's name as it stands in the registers: zeros behind it.
fn interface(name: &InterfaceName) -> Data {
    let mut bytes = [0; 16];
    // A name has at most 15 bytes.
    bytes[..name.as_str().len()].copy_from_slice(name.as_str().as_bytes());
    Data::new(&bytes).unwrap_or_default()
}

/// A field of the link-layer header, for tables of family bridge and netdev.
impl Field {
    /// nft(8): `ether saddr`.
    pub const ETHER_SADDR: Field = Field::Payload { base: PayloadBase::LinkLayer, offset: 6, len: 6 };
    /// nft(8): `ether daddr`.
    pub const ETHER_DADDR: Field = Field::Payload { base: PayloadBase::LinkLayer, offset: 0, len: 6 };
}
