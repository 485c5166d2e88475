//! Fields of a packet by the name nft(8) gives them, which depends on what the rule has matched before.

use super::value::Kind;
use crate::nft::{CtDirection, CtKey, Data, Family, MetaKey, PayloadBase};

/// Where a value in a register came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Payload {
        base: PayloadBase,
        offset: u32,
        len: u32,
    },
    Meta(MetaKey),
    Ct(CtKey, Option<CtDirection>),
    /// What an immediate has put into a register, by its number in the rule's reader.
    Constant(usize),
    /// What the rule's reader has put into words itself, by its number there.
    Worded(usize),
}

/// A field as nft(8) writes it, and the kind of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub text: String,
    pub kind: Kind,
}

impl Field {
    fn new(text: impl Into<String>, kind: Kind) -> Option<Self> {
        Some(Self { text: text.into(), kind })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    Ip,
    Ip6,
    Arp,
}

/// What a rule has matched so far, as far as it gives names to bytes.
///
/// Without it, nft(8) puts matches of its own before a field: `ip daddr` in an inet table becomes `meta nfproto ipv4 ip daddr`.
/// So a field is named only where nft(8) adds nothing; elsewhere it is shown by its place, `@nh,128,32`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    pub family: Family,
    pub network: Option<Network>,
    pub transport: Option<u8>,
}

impl Context {
    pub(super) fn new(family: Family) -> Self {
        let network = match family {
            Family::Ip => Some(Network::Ip),
            Family::Ip6 => Some(Network::Ip6),
            Family::Arp => Some(Network::Arp),
            Family::Inet | Family::Bridge | Family::Netdev => None,
        };
        Self { family, network, transport: None }
    }

    /// Learns from a comparison that held.
    ///
    /// # Errors
    ///
    /// When it can't hold together with one before: nft(8) refuses to name fields after that.
    pub(super) fn learn(&mut self, source: Source, data: &Data) -> Result<(), String> {
        let link = matches!(self.family, Family::Bridge | Family::Netdev);
        let network = match (source, data.as_bytes()) {
            (Source::Meta(MetaKey::NfProto), [2]) if self.family == Family::Inet => Some(Network::Ip),
            (Source::Meta(MetaKey::NfProto), [10]) if self.family == Family::Inet => Some(Network::Ip6),
            (Source::Meta(MetaKey::NfProto), _) if self.family == Family::Inet => {
                return Err("it asks for a family that no packet of an inet table has".to_owned());
            }
            (Source::Meta(MetaKey::Protocol), [0x08, 0x00]) if link => Some(Network::Ip),
            (Source::Meta(MetaKey::Protocol), [0x86, 0xdd]) if link => Some(Network::Ip6),
            (Source::Meta(MetaKey::Protocol), [0x08, 0x06]) if link => Some(Network::Arp),
            _ => None,
        };
        if let Some(network) = network {
            if self.network.is_some_and(|known| known != network) {
                return Err("it asks for two network protocols at once, for which nft(8) has no names".to_owned());
            }
            self.network = Some(network);
        }
        let names_transport = match source {
            Source::Meta(MetaKey::L4Proto) => true,
            Source::Payload { base: PayloadBase::Network, offset: 9, len: 1 } => self.network == Some(Network::Ip),
            Source::Payload { base: PayloadBase::Network, offset: 6, len: 1 } => self.network == Some(Network::Ip6),
            _ => false,
        };
        if let (true, [protocol]) = (names_transport, data.as_bytes()) {
            if self.transport.is_some_and(|known| known != *protocol) {
                return Err("it asks for two transport protocols at once, for which nft(8) has no names".to_owned());
            }
            self.transport = Some(*protocol);
        }
        Ok(())
    }

    /// The field by name, if nft(8) has one for it here.
    pub(super) fn field(&self, source: Source) -> Option<Field> {
        match source {
            Source::Meta(key) => self.meta(key),
            Source::Ct(key, direction) => ct(self.family, key, direction),
            Source::Worded(_) | Source::Constant(_) => None,
            Source::Payload { base: PayloadBase::LinkLayer, offset, len }
                if matches!(self.family, Family::Bridge | Family::Netdev) =>
            {
                match (offset, len) {
                    (0, 6) => Field::new("ether daddr", Kind::Ether),
                    (6, 6) => Field::new("ether saddr", Kind::Ether),
                    (12, 2) => Field::new("ether type", Kind::EtherType),
                    _ => None,
                }
            }
            Source::Payload { base: PayloadBase::LinkLayer, .. } => None,
            Source::Payload { base: PayloadBase::Network, offset, len } => match self.network? {
                Network::Ip => ip(offset, len),
                Network::Ip6 => ip6(offset, len),
                Network::Arp => arp(offset, len),
            },
            Source::Payload { base: PayloadBase::Transport, offset, len } => self.transport(offset, len),
            Source::Payload { base: PayloadBase::Inner | PayloadBase::Tunnel, .. } => None,
        }
    }

    /// The field by its place, which nft(8) takes for bytes of the packet wherever they are.
    pub(super) fn raw(&self, source: Source) -> Option<Field> {
        let Source::Payload { base, offset, len } = source else { return None };
        let base = match base {
            PayloadBase::LinkLayer => "ll",
            PayloadBase::Network => "nh",
            PayloadBase::Transport => "th",
            PayloadBase::Inner | PayloadBase::Tunnel => return None,
        };
        // The kernel takes offsets of one byte and compares values of up to 16.
        if offset > 255 || !(1..=16).contains(&len) {
            return None;
        }
        Field::new(format!("@{base},{},{}", offset * 8, len * 8), Kind::Bits)
    }

    fn meta(&self, key: MetaKey) -> Option<Field> {
        let (text, kind) = match key {
            MetaKey::Protocol => ("meta protocol", Kind::EtherType),
            // "meta nfproto is only useful in the inet family", says nft(8), and refuses it.
            MetaKey::NfProto if self.family != Family::Inet => return None,
            MetaKey::NfProto => ("meta nfproto", Kind::NfProto),
            MetaKey::L4Proto => ("meta l4proto", Kind::Proto),
            MetaKey::Iif => ("iif", Kind::IfIndex),
            MetaKey::Oif => ("oif", Kind::IfIndex),
            MetaKey::IifName => ("iifname", Kind::IfName),
            MetaKey::OifName => ("oifname", Kind::IfName),
            MetaKey::Mark => ("meta mark", Kind::Mark),
            MetaKey::SkUid => ("meta skuid", Kind::Uid),
            MetaKey::SkGid => ("meta skgid", Kind::Uid),
            MetaKey::Length => ("meta length", Kind::Native),
            MetaKey::Priority => ("meta priority", Kind::Class),
            MetaKey::IifType => ("iiftype", Kind::Native),
            MetaKey::OifType => ("oiftype", Kind::Native),
            MetaKey::NfTrace => ("meta nftrace", Kind::Native),
            MetaKey::RtClassId => ("meta rtclassid", Kind::Native),
            MetaKey::PktType => ("meta pkttype", Kind::Native),
            MetaKey::Cpu => ("meta cpu", Kind::Native),
            MetaKey::IifGroup => ("iifgroup", Kind::Native),
            MetaKey::OifGroup => ("oifgroup", Kind::Native),
            MetaKey::Cgroup => ("meta cgroup", Kind::Native),
            // The kernel's number, but nft(8) takes it for one of the packet.
            MetaKey::Random => ("meta random", Kind::Number),
            MetaKey::SecPath => ("meta ipsec", Kind::Exists),
            MetaKey::IifKind => ("meta iifkind", Kind::IfName),
            MetaKey::OifKind => ("meta oifkind", Kind::IfName),
            MetaKey::BridgeIifName => ("meta ibrname", Kind::IfName),
            MetaKey::BridgeOifName => ("meta obrname", Kind::IfName),
            MetaKey::BridgeIifPvid => ("meta ibrpvid", Kind::Native),
            MetaKey::BridgeIifVproto => ("meta ibrvproto", Kind::EtherType),
            MetaKey::Sdif => ("meta sdif", Kind::IfIndex),
            MetaKey::SdifName => ("meta sdifname", Kind::IfName),
            // Clocks, which depend on the reader's time zone; and what nft 1.0.6 has no word for.
            MetaKey::Day => ("meta day", Kind::Native),
            MetaKey::Time | MetaKey::Hour | MetaKey::SecMark | MetaKey::BridgeRoute => return None,
        };
        Field::new(text, kind)
    }

    fn transport(&self, offset: u32, len: u32) -> Option<Field> {
        let protocol = match self.transport {
            // ICMP has no ports, and its types depend on the family, for which nft(8) would add a match.
            Some(1) if self.network != Some(Network::Ip6) => {
                return match (offset, len) {
                    (0, 1) => Field::new("icmp type", Kind::Number),
                    (1, 1) => Field::new("icmp code", Kind::Number),
                    _ => None,
                };
            }
            Some(58) if self.network != Some(Network::Ip) => {
                return match (offset, len) {
                    (0, 1) => Field::new("icmpv6 type", Kind::Icmpv6Type),
                    (1, 1) => Field::new("icmpv6 code", Kind::Number),
                    _ => None,
                };
            }
            Some(1 | 58) => return None,
            Some(6) => "tcp",
            Some(17) => "udp",
            Some(33) => "dccp",
            Some(132) => "sctp",
            Some(136) => "udplite",
            Some(_) | None => "th",
        };
        match (protocol, offset, len) {
            (_, 0, 2) => Field::new(format!("{protocol} sport"), Kind::Port),
            (_, 2, 2) => Field::new(format!("{protocol} dport"), Kind::Port),
            ("tcp", 4, 4) => Field::new("tcp sequence", Kind::Number),
            ("tcp", 8, 4) => Field::new("tcp ackseq", Kind::Number),
            ("tcp", 13, 1) => Field::new("tcp flags", Kind::TcpFlags),
            ("tcp", 14, 2) => Field::new("tcp window", Kind::Number),
            ("tcp", 16, 2) => Field::new("tcp checksum", Kind::Number),
            ("tcp", 18, 2) => Field::new("tcp urgptr", Kind::Number),
            ("udp", 6, 2) => Field::new("udp checksum", Kind::Number),
            ("sctp", 4, 4) => Field::new("sctp vtag", Kind::Number),
            ("sctp", 8, 4) => Field::new("sctp checksum", Kind::Number),
            ("udp", 4, 2) => Field::new("udp length", Kind::Number),
            _ => None,
        }
    }
}

fn ct(family: Family, key: CtKey, direction: Option<CtDirection>) -> Option<Field> {
    let address = match family {
        Family::Ip => Some(Kind::Ipv4),
        Family::Ip6 => Some(Kind::Ipv6),
        _ => None,
    };
    let (name, kind) = match key {
        CtKey::State => ("state", Kind::CtState),
        CtKey::Direction => ("direction", Kind::Native),
        CtKey::Status => ("status", Kind::CtStatus),
        CtKey::Mark => ("mark", Kind::Mark),
        CtKey::Expiration => ("expiration", Kind::Time),
        CtKey::Helper => ("helper", Kind::Text),
        CtKey::L3Proto => ("l3proto", Kind::NfProto),
        CtKey::Protocol => ("protocol", Kind::Proto),
        CtKey::ProtoSrc => ("proto-src", Kind::Port),
        CtKey::ProtoDst => ("proto-dst", Kind::Port),
        CtKey::Packets => ("packets", Kind::Native),
        CtKey::Bytes => ("bytes", Kind::Native),
        CtKey::AvgPkt => ("avgpkt", Kind::Native),
        CtKey::Zone => ("zone", Kind::Native),
        CtKey::SrcIp => ("ip saddr", Kind::Ipv4),
        CtKey::DstIp => ("ip daddr", Kind::Ipv4),
        CtKey::SrcIp6 => ("ip6 saddr", Kind::Ipv6),
        CtKey::DstIp6 => ("ip6 daddr", Kind::Ipv6),
        CtKey::Id => ("id", Kind::Number),
        CtKey::Saddr => ("saddr", address?),
        CtKey::Daddr => ("daddr", address?),
        CtKey::EventMask => ("event", Kind::Mark),
        CtKey::SecMark | CtKey::Labels => return None,
    };
    let direction = match direction {
        None => "",
        Some(CtDirection::Original) => "original ",
        Some(CtDirection::Reply) => "reply ",
    };
    // nft 1.0.6 asks for a direction with an address.
    let addresses = [CtKey::Saddr, CtKey::Daddr, CtKey::SrcIp, CtKey::DstIp, CtKey::SrcIp6, CtKey::DstIp6];
    if direction.is_empty() && addresses.contains(&key) {
        return None;
    }
    Field::new(format!("ct {direction}{name}"), kind)
}

/// Bytes that a conntrack expression loads.
pub(super) fn ct_width(family: Family, key: CtKey) -> Option<usize> {
    Some(match key {
        CtKey::Direction | CtKey::L3Proto | CtKey::Protocol => 1,
        CtKey::ProtoSrc | CtKey::ProtoDst | CtKey::Zone => 2,
        CtKey::Packets | CtKey::Bytes | CtKey::AvgPkt => 8,
        CtKey::Helper | CtKey::Labels | CtKey::SrcIp6 | CtKey::DstIp6 => 16,
        CtKey::Saddr | CtKey::Daddr => match family {
            Family::Ip => 4,
            Family::Ip6 => 16,
            _ => return None,
        },
        _ => 4,
    })
}

/// A field that does not start and end at bytes: its name, and which bits of the bytes that hold it are its own.
pub(super) struct BitField {
    pub text: &'static str,
    base: PayloadBase,
    network: Option<Network>,
    transport: Option<u8>,
    /// From the start of the header.
    bit: u32,
    pub bits: u32,
}

/// Those with a name that nft(8) knows, but for the two halves of the first byte.
const BIT_FIELDS: &[BitField] = &[
    BitField::network("ip dscp", Network::Ip, 8, 6),
    BitField::network("ip ecn", Network::Ip, 14, 2),
    BitField::network("ip6 dscp", Network::Ip6, 4, 6),
    BitField::network("ip6 ecn", Network::Ip6, 10, 2),
    BitField::network("ip6 flowlabel", Network::Ip6, 12, 20),
    BitField::tcp("tcp doff", 96, 4),
    BitField::tcp("tcp reserved", 100, 4),
];

impl BitField {
    const fn network(text: &'static str, network: Network, bit: u32, bits: u32) -> Self {
        let (base, network) = (PayloadBase::Network, Some(network));
        Self { text, base, network, transport: None, bit, bits }
    }

    const fn tcp(text: &'static str, bit: u32, bits: u32) -> Self {
        let (base, transport) = (PayloadBase::Transport, Some(6));
        Self { text, base, network: None, transport, bit, bits }
    }

    /// How far its bits are from the end of those bytes.
    pub fn shift(&self, offset: u32, len: u32) -> u32 {
        (offset + len) * 8 - self.bit - self.bits
    }
}

impl Context {
    /// The field whose bits in a payload load are those of a mask.
    pub(super) fn bit_field(&self, source: Source, mask: &[u8]) -> Option<&'static BitField> {
        let Source::Payload { base, offset, len } = source else { return None };
        let mask = super::value::big(mask)?;
        let first = offset.checked_mul(8)?;
        let (ones, low) = (mask.count_ones(), mask.trailing_zeros());
        if mask == 0 || mask >> low != u128::MAX >> (128 - ones) {
            return None;
        }
        let bit = (first + len.checked_mul(8)?).checked_sub(low + ones)?;
        // nft(8) loads no more bytes than it needs.
        let tight = bit / 8 == offset && (bit + ones).div_ceil(8) == offset + len;
        self.named_bits(base, bit, ones).filter(|_| tight)
    }

    fn named_bits(&self, base: PayloadBase, bit: u32, bits: u32) -> Option<&'static BitField> {
        BIT_FIELDS.iter().find(|field| {
            field.base == base
                && (field.bit, field.bits) == (bit, bits)
                && (field.network.is_none() || field.network == self.network)
                && (field.transport.is_none() || field.transport == self.transport)
        })
    }

    /// The field that a write changes, when it writes back bytes around it as they were; and how far its bits are from their end.
    ///
    /// A checksum is computed over pairs of bytes, so nft(8) writes no single one.
    pub(super) fn changed(&self, source: Source, changed: &[u8]) -> Option<(String, u32)> {
        let Source::Payload { base, offset, len } = source else { return None };
        let mask = super::value::big(changed)?;
        let (ones, low) = (mask.count_ones(), mask.trailing_zeros());
        if mask == 0 || mask >> low != u128::MAX >> (128 - ones) {
            return None;
        }
        let bit = (offset.checked_mul(8)? + len.checked_mul(8)?).checked_sub(low + ones)?;
        if bit / 8 / 2 * 2 != offset || (bit + ones).div_ceil(16) * 2 != offset + len {
            let tight = bit / 8 == offset && (bit + ones).div_ceil(8) == offset + len;
            tight.then_some(())?;
        }
        if let Some(field) = self.named_bits(base, bit, ones) {
            return Some((field.text.to_owned(), low));
        }
        (bit % 8 == 0 && ones % 8 == 0).then_some(())?;
        let field = self.field(Source::Payload { base, offset: bit / 8, len: ones / 8 })?;
        (field.kind == Kind::Number).then_some((field.text, low))
    }
}

fn ip(offset: u32, len: u32) -> Option<Field> {
    match (offset, len) {
        (2, 2) => Field::new("ip length", Kind::Number),
        (4, 2) => Field::new("ip id", Kind::Number),
        (6, 2) => Field::new("ip frag-off", Kind::Bits),
        (8, 1) => Field::new("ip ttl", Kind::Number),
        (10, 2) => Field::new("ip checksum", Kind::Number),
        (9, 1) => Field::new("ip protocol", Kind::Proto),
        (12, 4) => Field::new("ip saddr", Kind::Ipv4),
        (16, 4) => Field::new("ip daddr", Kind::Ipv4),
        (12, 1..4) => Field::new("ip saddr", Kind::Ipv4Prefix),
        (16, 1..4) => Field::new("ip daddr", Kind::Ipv4Prefix),
        _ => None,
    }
}

fn ip6(offset: u32, len: u32) -> Option<Field> {
    match (offset, len) {
        (4, 2) => Field::new("ip6 length", Kind::Number),
        (6, 1) => Field::new("ip6 nexthdr", Kind::Proto),
        (7, 1) => Field::new("ip6 hoplimit", Kind::Number),
        (8, 16) => Field::new("ip6 saddr", Kind::Ipv6),
        (24, 16) => Field::new("ip6 daddr", Kind::Ipv6),
        (8, 1..16) => Field::new("ip6 saddr", Kind::Ipv6Prefix),
        (24, 1..16) => Field::new("ip6 daddr", Kind::Ipv6Prefix),
        _ => None,
    }
}

fn arp(offset: u32, len: u32) -> Option<Field> {
    match (offset, len) {
        (0, 2) => Field::new("arp htype", Kind::Number),
        (2, 2) => Field::new("arp ptype", Kind::EtherType),
        (4, 1) => Field::new("arp hlen", Kind::Number),
        (5, 1) => Field::new("arp plen", Kind::Number),
        (6, 2) => Field::new("arp operation", Kind::Number),
        (8, 6) => Field::new("arp saddr ether", Kind::Ether),
        (14, 4) => Field::new("arp saddr ip", Kind::Ipv4),
        (18, 6) => Field::new("arp daddr ether", Kind::Ether),
        (24, 4) => Field::new("arp daddr ip", Kind::Ipv4),
        _ => None,
    }
}
