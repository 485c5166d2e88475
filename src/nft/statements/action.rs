//! What statements do, in words: limits, logs, translations of addresses.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::family::layer;
use super::map::MapValue;
use super::value::{EtherType, Port, Value};
use crate::nft::{Expr, Family, Limit, Log, LogFlags, LogLevel, NatFlags, Quota, Register, RegisterRange, Syslog};

/// What a rate is counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    /// nft(8): `/second`.
    Second,
    /// nft(8): `/minute`.
    Minute,
    /// nft(8): `/hour`.
    Hour,
    /// nft(8): `/day`.
    Day,
}

impl Per {
    const fn seconds(self) -> u64 {
        match self {
            Per::Second => 1,
            Per::Minute => 60,
            Per::Hour => 3600,
            Per::Day => 86400,
        }
    }
}

impl Limit {
    /// So many packets, and five more at once. nft(8): `limit rate N/second`.
    pub const fn packets(rate: u64, per: Per) -> Self {
        Self { rate, seconds: per.seconds(), burst: 5, over: false, bytes: false }
    }

    /// So many bytes. nft(8): `limit rate N bytes/second`.
    pub const fn bytes(rate: u64, per: Per) -> Self {
        Self { rate, seconds: per.seconds(), burst: 0, over: false, bytes: true }
    }

    /// Lets so many more through at once. nft(8): `burst N packets`.
    pub const fn burst(self, burst: u32) -> Self {
        Self { burst, ..self }
    }

    /// Matches what is past the limit, not what is within it. nft(8): `limit rate over`.
    pub const fn past(self) -> Self {
        Self { over: true, ..self }
    }
}

impl Quota {
    /// Matches until so many bytes came. nft(8): `quota N bytes`.
    pub const fn until(bytes: u64) -> Self {
        Self { bytes, used: 0, over: false }
    }

    /// Matches once so many bytes came. nft(8): `quota over N bytes`.
    pub const fn past(bytes: u64) -> Self {
        Self { bytes, used: 0, over: true }
    }
}

impl Log {
    /// Hands whole packets to an nflog group. nft(8): `log group N`.
    pub const fn to_group(group: u16) -> Self {
        Self { group, prefix: None, snaplen: None, queue_threshold: None }
    }

    /// Hands over a text with each packet. nft(8): `prefix`.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: Some(prefix.into()), ..self }
    }

    /// Hands over so many bytes of a packet. nft(8): `snaplen`.
    pub fn snaplen(self, bytes: u32) -> Self {
        Self { snaplen: Some(bytes), ..self }
    }

    /// Wakes the reader for so many packets together. nft(8): `queue-threshold`.
    pub fn queue_threshold(self, packets: u16) -> Self {
        Self { queue_threshold: Some(packets), ..self }
    }
}

impl Syslog {
    /// Writes a line. nft(8): `log`.
    pub const fn line() -> Self {
        // The kernel's own choice, told so that what is meant and what is dumped compare equal.
        Self { prefix: None, level: Some(LogLevel::Warning), flags: LogFlags(0) }
    }

    /// Writes a line that starts so. nft(8): `log prefix`.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self { prefix: Some(prefix.into()), ..Self::line() }
    }

    /// How urgent it is. nft(8): `level`.
    pub fn level(self, level: LogLevel) -> Self {
        Self { level: Some(level), ..self }
    }

    /// What else is written. nft(8): `flags`.
    pub fn flags(self, flags: LogFlags) -> Self {
        Self { flags, ..self }
    }
}

/// Where a log goes: [`Log`] or [`Syslog`].
#[derive(Debug, Clone)]
pub struct LogTo(pub(super) Expr);

impl From<Log> for LogTo {
    fn from(log: Log) -> Self {
        Self(Expr::Log(log))
    }
}

impl From<Syslog> for LogTo {
    fn from(log: Syslog) -> Self {
        Self(Expr::Syslog(log))
    }
}

/// What each element gets that a rule adds to a set.
///
/// # Examples
///
/// ```
/// use ringfence::nft::Limit;
/// use ringfence::nft::statements::{Each, Per};
/// use std::time::Duration;
///
/// let each = Each::new().timeout(Duration::from_secs(60)).limit(Limit::packets(10, Per::Second).past());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Each {
    pub(super) timeout: Option<Duration>,
    pub(super) exprs: Vec<Expr>,
}

impl Each {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// It runs out after that time. nft(8): `timeout`.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// It counts. nft(8): `counter`.
    pub fn counter(mut self) -> Self {
        self.exprs.push(Expr::Counter { packets: 0, bytes: 0 });
        self
    }

    /// It has a limit of its own: the rule goes on when that matches. nft(8): `limit`.
    pub fn limit(mut self, limit: Limit) -> Self {
        self.exprs.push(Expr::Limit(limit));
        self
    }

    /// It has an amount of bytes of its own: the rule goes on when that matches. nft(8): `quota`.
    pub fn quota(mut self, quota: Quota) -> Self {
        self.exprs.push(Expr::Quota(quota));
        self
    }

    /// It counts flows: the rule goes on when there are more than that. nft(8): `ct count over`.
    pub fn flows_over(mut self, count: u32) -> Self {
        self.exprs.push(Expr::Connlimit { count, over: true });
        self
    }
}

/// An address that another can be rewritten to.
pub trait NatAddress: Value {
    /// What a table must see for it.
    type Layer;
    #[doc(hidden)]
    const FAMILY: Family;
    #[doc(hidden)]
    const NETWORK: EtherType;
}

impl NatAddress for Ipv4Addr {
    type Layer = layer::V4;
    const FAMILY: Family = Family::Ip;
    const NETWORK: EtherType = EtherType::IP;
}

impl NatAddress for Ipv6Addr {
    type Layer = layer::V6;
    const FAMILY: Family = Family::Ip6;
    const NETWORK: EtherType = EtherType::IP6;
}

/// What a map can have for a translation: an address, or an address and a port.
pub trait NatValue: MapValue {
    /// What a table must see for it.
    type Layer;
    #[doc(hidden)]
    const FAMILY: Family;
    #[doc(hidden)]
    const NETWORK: EtherType;
    /// Where the port stands behind the address, as the number of a 4-byte register.
    #[doc(hidden)]
    const PORT: Option<u8> = None;
}

macro_rules! nat_values {
    ($($address:ty, $port:literal;)*) => {$(
        impl NatValue for $address {
            type Layer = <$address as NatAddress>::Layer;
            const FAMILY: Family = <$address as NatAddress>::FAMILY;
            const NETWORK: EtherType = <$address as NatAddress>::NETWORK;
        }
        impl NatValue for ($address, Port) {
            type Layer = <$address as NatAddress>::Layer;
            const FAMILY: Family = <$address as NatAddress>::FAMILY;
            const NETWORK: EtherType = <$address as NatAddress>::NETWORK;
            const PORT: Option<u8> = Some($port);
        }
    )*};
}
nat_values! {
    Ipv4Addr, 1;
    Ipv6Addr, 4;
}

/// What addresses are rewritten to.
///
/// # Examples
///
/// ```
/// use ringfence::nft::statements::NatTo;
/// use std::net::Ipv4Addr;
///
/// let one = NatTo::from(Ipv4Addr::new(198, 51, 100, 7)).port(8080);
/// let some = NatTo::from(Ipv4Addr::new(198, 51, 100, 7)..=Ipv4Addr::new(198, 51, 100, 9)).persistent();
/// ```
#[derive(Debug, Clone)]
pub struct NatTo<A> {
    pub(super) first: A,
    pub(super) last: Option<A>,
    pub(super) ports: Ports,
}

impl<A: NatAddress> From<A> for NatTo<A> {
    fn from(address: A) -> Self {
        Self { first: address, last: None, ports: Ports::any() }
    }
}

impl<A: NatAddress> From<RangeInclusive<A>> for NatTo<A> {
    fn from(range: RangeInclusive<A>) -> Self {
        let (first, last) = range.into_inner();
        Self { first, last: Some(last), ports: Ports::any() }
    }
}

impl<A> NatTo<A> {
    /// Rewrites the port, too. nft(8): `:PORT`.
    pub fn port(self, port: u16) -> Self {
        Self { ports: Ports { first: Some(port), last: None, ..self.ports }, ..self }
    }

    /// Rewrites the port to one of these, too. nft(8): `:FIRST-LAST`.
    pub fn ports(self, ports: RangeInclusive<u16>) -> Self {
        Self { ports: Ports { first: Some(*ports.start()), last: Some(*ports.end()), ..self.ports }, ..self }
    }

    /// Gives a client the same address each time. nft(8): `persistent`.
    pub fn persistent(self) -> Self {
        Self { ports: self.ports.flag(NatFlags::PERSISTENT), ..self }
    }

    /// Draws the port from a hash with a secret. nft(8): `random`.
    pub fn random(self) -> Self {
        Self { ports: self.ports.flag(NatFlags::RANDOM), ..self }
    }

    /// Draws the port. nft(8): `fully-random`.
    pub fn fully_random(self) -> Self {
        Self { ports: self.ports.flag(NatFlags::FULLY_RANDOM), ..self }
    }
}

/// The ports of a translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    pub(super) first: Option<u16>,
    pub(super) last: Option<u16>,
    pub(super) flags: NatFlags,
}

impl From<u16> for Ports {
    fn from(port: u16) -> Self {
        Self { first: Some(port), ..Self::any() }
    }
}

impl From<RangeInclusive<u16>> for Ports {
    fn from(ports: RangeInclusive<u16>) -> Self {
        Self { first: Some(*ports.start()), last: Some(*ports.end()), ..Self::any() }
    }
}

impl Ports {
    /// What the kernel chooses.
    pub const fn any() -> Self {
        Self { first: None, last: None, flags: NatFlags(0) }
    }

    /// Draws the port from a hash with a secret. nft(8): `random`.
    pub const fn random(self) -> Self {
        self.flag(NatFlags::RANDOM)
    }

    /// Draws the port. nft(8): `fully-random`.
    pub const fn fully_random(self) -> Self {
        self.flag(NatFlags::FULLY_RANDOM)
    }

    /// Gives a client the same address each time. nft(8): `persistent`.
    pub const fn persistent(self) -> Self {
        self.flag(NatFlags::PERSISTENT)
    }

    const fn flag(self, flag: NatFlags) -> Self {
        Self { flags: self.flags.and(flag), ..self }
    }

    /// The flags as the kernel has them.
    pub(super) fn all_flags(self) -> NatFlags {
        if self.first.is_some() { self.flags.and(NatFlags::PROTO_SPECIFIED) } else { self.flags }
    }
}

/// Puts constants into registers of 16 bytes, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Constants {
    next: u8,
    pub exprs: Vec<Expr>,
}

impl Constants {
    pub fn put<V: Value>(&mut self, value: &V) -> Register {
        // There are four such registers, and no statement has more than four constants.
        let dreg = Register::slot(self.next).unwrap_or(Register::FIRST);
        self.next += 4;
        self.exprs.push(Expr::Immediate { dreg, data: value.to_data() });
        dreg
    }

    pub fn range<V: Value>(&mut self, first: &V, last: Option<&V>) -> RegisterRange {
        let min = self.put(first);
        RegisterRange { min, max: last.map_or(min, |last| self.put(last)) }
    }
}
