//! Fields of packets, and of what the kernel knows about them, with the type of their values.

use std::marker::PhantomData;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::bits::Bits;
use super::family::layer::{Any, Arp, Ether, Upper, V4, V6};
use super::family::{Sees, TableFamily};
use super::operand::Operand;
use super::value::*;
use crate::nft::{
    CtDirection, CtKey, Expr, ExthdrOp, FibFlags, FibResult, Hash, InterfaceName, MetaKey, NumgenKind, PayloadBase,
    Register, RtKey, SocketKey,
};

/// Where a field is loaded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Payload { base: PayloadBase, offset: u32, len: u32 },
    Meta(MetaKey),
    Ct(CtKey, Option<CtDirection>),
    Rt(RtKey),
    Socket(SocketKey),
    Numgen(NumgenKind, u32),
    SymmetricHash(u32),
    Fib(FibResult, FibFlags),
    TcpOption { kind: u8, offset: u32, len: u32 },
}

impl Source {
    pub fn load(self, dreg: Register) -> Expr {
        match self {
            Source::Payload { base, offset, len } => Expr::Payload { base, offset, len, dreg },
            Source::Meta(key) => Expr::Meta { key, dreg },
            Source::Ct(key, direction) => Expr::Ct { key, direction, dreg },
            Source::Rt(key) => Expr::Rt { key, dreg },
            Source::Socket(key) => Expr::Socket { key, level: None, dreg },
            Source::Numgen(kind, modulus) => Expr::Numgen { kind, modulus, offset: 0, dreg },
            Source::SymmetricHash(modulus) => Expr::Hash { of: Hash::Symmetric, modulus, offset: 0, dreg },
            Source::Fib(result, flags) => Expr::Fib { result, flags, dreg },
            Source::TcpOption { kind, offset, len } => {
                Expr::Exthdr { op: ExthdrOp::TcpOption, kind, offset, len, present: false, dreg }
            }
        }
    }

    /// Where it stands in a header of the packet.
    pub fn header(self) -> Option<(PayloadBase, u32)> {
        if let Source::Payload { base, offset, .. } = self { Some((base, offset)) } else { None }
    }

    /// Only its first bytes. What is not in the packet is loaded whole.
    pub fn shortened(self, to: u32) -> Self {
        match self {
            Source::Payload { base, offset, .. } => Source::Payload { base, offset, len: to },
            other => other,
        }
    }
}

/// What must be known of a packet before a field means anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    /// A header of that network protocol.
    Network(EtherType),
    /// As [`Needs::Network`], for protocols below IP.
    Header(EtherType),
    Transport(Protocol),
    Icmp,
    Icmpv6,
    Ether,
    Vlan,
}

/// What a field tells of the packet when it has one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proves {
    Nothing,
    Family,
    Network,
    /// As [`Proves::Network`], of what the frame says of itself.
    Frame,
    Transport,
}

/// A field with values of type `V`, part of the layer `L`.
#[derive(Debug, Clone, Copy)]
pub struct FieldOf<V, L> {
    pub(super) source: Source,
    pub(super) needs: Needs,
    pub(super) proves: Proves,
    pub(super) bits: Bits,
    types: PhantomData<fn() -> (V, L)>,
}

impl<V, L> FieldOf<V, L> {
    const fn new(source: Source, needs: Needs, proves: Proves) -> Self {
        Self { source, needs, proves, bits: Bits::ALL, types: PhantomData }
    }

    const fn bits(self, mask: &'static [u8], shift: u32) -> Self {
        Self { bits: Bits { mask, shift }, ..self }
    }
}

/// One field, or a tuple of two to five, that a table of family `F` sees.
pub trait Fields<F> {
    /// What the values make up: the key of a set.
    type Key;
    #[doc(hidden)]
    fn parts(&self) -> Vec<Part>;
}

/// A field of a concatenation.
#[doc(hidden)]
#[derive(Debug, Clone)]
pub struct Part {
    pub(super) from: From,
    pub(super) needs: Needs,
    pub(super) bits: Bits,
    pub(super) size: usize,
    /// Whether the kernel keeps it in the machine's byte order.
    pub(super) machine: bool,
}

/// Where a field of a concatenation comes from.
#[derive(Debug, Clone)]
pub(super) enum From {
    Source(Source),
    /// Jenkins' hash of others.
    Hash {
        of: Vec<Part>,
        modulus: u32,
        seed: Option<u32>,
    },
}

impl<V: Value, L> FieldOf<V, L> {
    fn part(&self) -> Part {
        let Self { source, needs, bits, .. } = *self;
        Part { from: From::Source(source), needs, bits, size: V::DATATYPE.size(), machine: V::MACHINE }
    }
}

impl<F: TableFamily + Sees<L>, V: Value, L> Fields<F> for FieldOf<V, L> {
    type Key = V;
    fn parts(&self) -> Vec<Part> {
        vec![self.part()]
    }
}

macro_rules! tuples {
    ($(($($value:ident $layer:ident $place:tt),*))*) => {$(
        impl<F: TableFamily $(+ Sees<$layer>)*, $($value: Value, $layer,)*> Fields<F> for ($(FieldOf<$value, $layer>,)*) {
            type Key = ($($value,)*);
            fn parts(&self) -> Vec<Part> {
                vec![$(self.$place.part()),*]
            }
        }
    )*};
}
tuples! {
    (A K 0, B L 1)
    (A K 0, B L 1, C M 2)
    (A K 0, B L 1, C M 2, D N 3)
    (A K 0, B L 1, C M 2, D N 3, E O 4)
}

/// Numbers below `modulus`, one after the other. nft(8): `numgen inc mod N`.
pub const fn numgen_inc(modulus: u32) -> FieldOf<Machine32, Any> {
    FieldOf::new(Source::Numgen(NumgenKind::Incremental, modulus), Needs::Nothing, Proves::Nothing)
}

/// Numbers below `modulus`, drawn. nft(8): `numgen random mod N`.
pub const fn numgen_random(modulus: u32) -> FieldOf<Machine32, Any> {
    FieldOf::new(Source::Numgen(NumgenKind::Random, modulus), Needs::Nothing, Proves::Nothing)
}

/// A hash of the packet's addresses and ports, as a number below `modulus`: the same both ways. nft(8): `symhash mod N`.
pub const fn symhash(modulus: u32) -> FieldOf<Machine32, Any> {
    FieldOf::new(Source::SymmetricHash(modulus), Needs::Nothing, Proves::Nothing)
}

/// The type that an address has in the routing tables. nft(8): `fib daddr . iif type`.
///
/// # Examples
///
/// ```
/// use ringfence::nft::statements::{AddressType, Inet, TableOf, fib_type, not};
/// use ringfence::nft::{FibFlags, Verdict};
///
/// let input = TableOf::<Inet>::new("guard")?.chain("input")?;
/// // fib daddr type != { local, broadcast } drop
/// let ours = [AddressType::LOCAL, AddressType::BROADCAST];
/// let rule = input.rule().fib_type(FibFlags::DADDR, not(ours)).drop()?;
/// // fib daddr type vmap { local : accept, broadcast : drop }
/// let ways = [(AddressType::LOCAL, Verdict::Accept), (AddressType::BROADCAST, Verdict::Drop)];
/// let rule = input.rule().vmap(fib_type(FibFlags::DADDR), ways).done()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub const fn fib_type(by: FibFlags) -> FieldOf<AddressType, Upper> {
    FieldOf::new(Source::Fib(FibResult::AddrType, by), Needs::Nothing, Proves::Nothing)
}

/// Jenkins' hash of fields, as a number below `modulus`: the same for the same values. nft(8): `jhash FIELD . FIELD mod N`.
///
/// # Examples
///
/// ```
/// use ringfence::nft::statements::{IP_SADDR, Inet, TableOf, jhash};
/// use std::net::Ipv4Addr;
///
/// let table = TableOf::<Inet>::new("nat")?;
/// let (one, other) = (Ipv4Addr::new(198, 51, 100, 7), Ipv4Addr::new(198, 51, 100, 8));
/// // dnat ip to jhash ip saddr mod 2 map { 0 : 198.51.100.7, 1 : 198.51.100.8 }
/// let rule = table.chain("prerouting")?.rule().dnat_by(jhash(IP_SADDR, 2), [(0, one), (1, other)])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn jhash<T>(fields: T, modulus: u32) -> Hashed<T> {
    Hashed { fields, modulus, seed: None }
}

/// A hash of fields: what [`jhash`] gives.
#[derive(Debug, Clone, Copy)]
pub struct Hashed<T> {
    fields: T,
    modulus: u32,
    seed: Option<u32>,
}

impl<T> Hashed<T> {
    /// Mixes in a number, instead of one that the kernel draws. nft(8): `seed`.
    pub fn seed(self, seed: u32) -> Self {
        Self { seed: Some(seed), ..self }
    }
}

impl<F, T: Fields<F>> Fields<F> for Hashed<T> {
    type Key = Machine32;
    fn parts(&self) -> Vec<Part> {
        let from = From::Hash { of: self.fields.parts(), modulus: self.modulus, seed: self.seed };
        vec![Part { from, needs: Needs::Nothing, bits: Bits::ALL, size: 4, machine: true }]
    }
}

const fn network(offset: u32, len: u32) -> Source {
    Source::Payload { base: PayloadBase::Network, offset, len }
}

const fn transport(offset: u32, len: u32) -> Source {
    Source::Payload { base: PayloadBase::Transport, offset, len }
}

const fn link(offset: u32, len: u32) -> Source {
    Source::Payload { base: PayloadBase::LinkLayer, offset, len }
}

const IP4: Needs = Needs::Network(EtherType::IP);
const IP6: Needs = Needs::Network(EtherType::IP6);
const ARP: Needs = Needs::Header(EtherType::ARP);
const TCP: Needs = Needs::Transport(Protocol::TCP);
const UDP: Needs = Needs::Transport(Protocol::UDP);
const SCTP: Needs = Needs::Transport(Protocol::SCTP);

/// Declares fields: a constant, and a method of [`Statements`](super::Statements) that matches it.
macro_rules! fields {
    ($($text:literal $constant:ident $method:ident: $value:ty, $layer:ident = $source:expr, $needs:expr $(, $proves:ident)? $(; [$($mask:literal),*] >> $shift:literal)?;)*) => {
        $(
            #[doc = concat!("nft(8): `", $text, "`.")]
            pub const $constant: FieldOf<$value, $layer> = FieldOf::new($source, $needs, fields!(@ $($proves)?))$(.bits(&[$($mask),*], $shift))?;
        )*

        impl<F: TableFamily> super::Statements<F> {
            $(
                #[doc = concat!("Matches a field. nft(8): `", $text, "`.")]
                pub fn $method(self, operand: impl Operand<$value>) -> Self
                where
                    F: Sees<$layer>,
                {
                    self.matches($constant, operand)
                }
            )*
        }
    };
    (@) => { Proves::Nothing };
    (@ $proves:ident) => { Proves::$proves };
}

fields! {
    "ip saddr" IP_SADDR ip_saddr: Ipv4Addr, V4 = network(12, 4), IP4;
    "ip daddr" IP_DADDR ip_daddr: Ipv4Addr, V4 = network(16, 4), IP4;
    "ip protocol" IP_PROTOCOL ip_protocol: Protocol, V4 = network(9, 1), IP4, Transport;
    "ip ttl" IP_TTL ip_ttl: Number8, V4 = network(8, 1), IP4;
    "ip length" IP_LENGTH ip_length: Number16, V4 = network(2, 2), IP4;
    "ip id" IP_ID ip_id: Number16, V4 = network(4, 2), IP4;
    "ip dscp" IP_DSCP ip_dscp: Dscp, V4 = network(1, 1), IP4; [0xfc] >> 2;
    "ip6 saddr" IP6_SADDR ip6_saddr: Ipv6Addr, V6 = network(8, 16), IP6;
    "ip6 daddr" IP6_DADDR ip6_daddr: Ipv6Addr, V6 = network(24, 16), IP6;
    "ip6 nexthdr" IP6_NEXTHDR ip6_nexthdr: Protocol, V6 = network(6, 1), IP6, Transport;
    "ip6 hoplimit" IP6_HOPLIMIT ip6_hoplimit: Number8, V6 = network(7, 1), IP6;
    "ip6 length" IP6_LENGTH ip6_length: Number16, V6 = network(4, 2), IP6;
    "tcp sport" TCP_SPORT tcp_sport: Port, Upper = transport(0, 2), TCP;
    "tcp dport" TCP_DPORT tcp_dport: Port, Upper = transport(2, 2), TCP;
    "tcp window" TCP_WINDOW tcp_window: Number16, Upper = transport(14, 2), TCP;
    "udp sport" UDP_SPORT udp_sport: Port, Upper = transport(0, 2), UDP;
    "udp dport" UDP_DPORT udp_dport: Port, Upper = transport(2, 2), UDP;
    "udp length" UDP_LENGTH udp_length: Number16, Upper = transport(4, 2), UDP;
    "sctp sport" SCTP_SPORT sctp_sport: Port, Upper = transport(0, 2), SCTP;
    "sctp dport" SCTP_DPORT sctp_dport: Port, Upper = transport(2, 2), SCTP;
    "th sport" TH_SPORT th_sport: Port, Upper = transport(0, 2), Needs::Nothing;
    "th dport" TH_DPORT th_dport: Port, Upper = transport(2, 2), Needs::Nothing;
    "icmp type" ICMP_TYPE icmp_type: IcmpType, V4 = transport(0, 1), Needs::Icmp;
    "icmp code" ICMP_CODE icmp_code: IcmpCode, V4 = transport(1, 1), Needs::Icmp;
    "icmpv6 type" ICMPV6_TYPE icmpv6_type: Icmpv6Type, V6 = transport(0, 1), Needs::Icmpv6;
    "icmpv6 code" ICMPV6_CODE icmpv6_code: Icmpv6Code, V6 = transport(1, 1), Needs::Icmpv6;
    "esp spi" ESP_SPI esp_spi: Number32, Upper = transport(0, 4), Needs::Transport(Protocol::ESP);
    "tcp option maxseg size" TCP_OPTION_MAXSEG tcp_option_maxseg: Number16, Upper = Source::TcpOption { kind: 2, offset: 2, len: 2 }, Needs::Nothing;
    "ether saddr" ETHER_SADDR ether_saddr: EtherAddr, Ether = link(6, 6), Needs::Ether;
    "ether daddr" ETHER_DADDR ether_daddr: EtherAddr, Ether = link(0, 6), Needs::Ether;
    "ether type" ETHER_TYPE ether_type: EtherType, Ether = link(12, 2), Needs::Ether, Frame;
    "vlan id" VLAN_ID vlan_id: Number16, Ether = link(14, 2), Needs::Vlan; [0x0f, 0xff] >> 0;
    "vlan pcp" VLAN_PCP vlan_pcp: Number8, Ether = link(14, 1), Needs::Vlan; [0xe0] >> 5;
    "arp htype" ARP_HTYPE arp_htype: Number16, Arp = network(0, 2), ARP;
    "arp ptype" ARP_PTYPE arp_ptype: EtherType, Arp = network(2, 2), ARP;
    "arp operation" ARP_OPERATION arp_operation: ArpOperation, Arp = network(6, 2), ARP;
    "arp saddr ether" ARP_SADDR_ETHER arp_saddr_ether: EtherAddr, Arp = network(8, 6), ARP;
    "arp saddr ip" ARP_SADDR_IP arp_saddr_ip: Ipv4Addr, Arp = network(14, 4), ARP;
    "arp daddr ip" ARP_DADDR_IP arp_daddr_ip: Ipv4Addr, Arp = network(24, 4), ARP;
    "arp daddr ether" ARP_DADDR_ETHER arp_daddr_ether: EtherAddr, Arp = network(18, 6), ARP;
    "meta nfproto" NFPROTO nfproto: NfProto, Any = Source::Meta(MetaKey::NfProto), Needs::Nothing, Family;
    "meta l4proto" L4PROTO l4proto: Protocol, Upper = Source::Meta(MetaKey::L4Proto), Needs::Nothing, Transport;
    "meta protocol" PROTOCOL protocol: EtherType, Any = Source::Meta(MetaKey::Protocol), Needs::Nothing, Network;
    "meta mark" MARK mark: Mark, Any = Source::Meta(MetaKey::Mark), Needs::Nothing;
    "meta length" LENGTH length: Machine32, Any = Source::Meta(MetaKey::Length), Needs::Nothing;
    "meta priority" PRIORITY priority: Class, Any = Source::Meta(MetaKey::Priority), Needs::Nothing;
    "meta pkttype" PKTTYPE pkttype: PacketType, Any = Source::Meta(MetaKey::PktType), Needs::Nothing;
    "meta skuid" SKUID skuid: Uid, Upper = Source::Meta(MetaKey::SkUid), Needs::Nothing;
    "meta skgid" SKGID skgid: Gid, Upper = Source::Meta(MetaKey::SkGid), Needs::Nothing;
    "meta cgroup" CGROUP cgroup: Machine32, Upper = Source::Meta(MetaKey::Cgroup), Needs::Nothing;
    "meta cpu" CPU cpu: Machine32, Any = Source::Meta(MetaKey::Cpu), Needs::Nothing;
    "iif" IIF iif: Index, Any = Source::Meta(MetaKey::Iif), Needs::Nothing;
    "oif" OIF oif: Index, Any = Source::Meta(MetaKey::Oif), Needs::Nothing;
    "iifname" IIFNAME iifname: InterfaceName, Any = Source::Meta(MetaKey::IifName), Needs::Nothing;
    "oifname" OIFNAME oifname: InterfaceName, Any = Source::Meta(MetaKey::OifName), Needs::Nothing;
    "iifgroup" IIFGROUP iifgroup: Group, Any = Source::Meta(MetaKey::IifGroup), Needs::Nothing;
    "oifgroup" OIFGROUP oifgroup: Group, Any = Source::Meta(MetaKey::OifGroup), Needs::Nothing;
    "meta iiftype" IIFTYPE iiftype: IfaceType, Any = Source::Meta(MetaKey::IifType), Needs::Nothing;
    "meta hour" HOUR hour: Hour, Any = Source::Meta(MetaKey::Hour), Needs::Nothing;
    "meta day" DAY day: Day, Any = Source::Meta(MetaKey::Day), Needs::Nothing;
    "meta ipsec" IPSEC ipsec: bool, Upper = Source::Meta(MetaKey::SecPath), Needs::Nothing;
    "ct mark" CT_MARK ct_mark: Mark, Upper = Source::Ct(CtKey::Mark, None), Needs::Nothing;
    "ct direction" CT_DIRECTION ct_direction: Direction, Upper = Source::Ct(CtKey::Direction, None), Needs::Nothing;
    "ct bytes" CT_BYTES ct_bytes: Machine64, Upper = Source::Ct(CtKey::Bytes, None), Needs::Nothing;
    "ct packets" CT_PACKETS ct_packets: Machine64, Upper = Source::Ct(CtKey::Packets, None), Needs::Nothing;
    "ct original ip saddr" CT_ORIGINAL_SADDR ct_original_saddr: Ipv4Addr, V4 = Source::Ct(CtKey::SrcIp, Some(CtDirection::Original)), Needs::Nothing;
    "ct original ip daddr" CT_ORIGINAL_DADDR ct_original_daddr: Ipv4Addr, V4 = Source::Ct(CtKey::DstIp, Some(CtDirection::Original)), Needs::Nothing;
    "ct reply ip saddr" CT_REPLY_SADDR ct_reply_saddr: Ipv4Addr, V4 = Source::Ct(CtKey::SrcIp, Some(CtDirection::Reply)), Needs::Nothing;
    "ct reply ip daddr" CT_REPLY_DADDR ct_reply_daddr: Ipv4Addr, V4 = Source::Ct(CtKey::DstIp, Some(CtDirection::Reply)), Needs::Nothing;
    "ct zone" CT_ZONE ct_zone: Machine16, Upper = Source::Ct(CtKey::Zone, None), Needs::Nothing;
    "socket transparent" SOCKET_TRANSPARENT socket_transparent: bool, Upper = Source::Socket(SocketKey::Transparent), Needs::Nothing;
    "socket wildcard" SOCKET_WILDCARD socket_wildcard: bool, Upper = Source::Socket(SocketKey::Wildcard), Needs::Nothing;
    "socket mark" SOCKET_MARK socket_mark: Mark, Upper = Source::Socket(SocketKey::Mark), Needs::Nothing;
}

/// nft(8): `ct state`, as the key of a map.
pub const CT_STATE: FieldOf<CtStates, Upper> =
    FieldOf::new(Source::Ct(CtKey::State, None), Needs::Nothing, Proves::Nothing);
/// nft(8): `ct status`, for [`Statements::masked`](super::Statements::masked) and maps.
pub const CT_STATUS: FieldOf<CtStatus, Upper> =
    FieldOf::new(Source::Ct(CtKey::Status, None), Needs::Nothing, Proves::Nothing);
/// nft(8): `tcp flags`, all of them at once.
pub const TCP_FLAGS: FieldOf<TcpFlags, Upper> = FieldOf::new(transport(13, 1), TCP, Proves::Nothing);
/// nft(8): `ip frag-off`.
pub(super) const IP_FRAGMENT: FieldOf<Number16, V4> = FieldOf::new(network(6, 2), IP4, Proves::Nothing);
/// Version, class of service and the first bits of the flow label of an IPv6 header.
pub(super) const IP6_CLASS: FieldOf<Number16, V6> = FieldOf::new(network(0, 2), IP6, Proves::Nothing);
/// The largest segment of the route.
pub(super) const ROUTE_MSS: Source = Source::Rt(RtKey::TcpMss);
