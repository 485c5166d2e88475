//! Fields of a packet by the name nft(8) gives them, which depends on what the rule has matched before.

use super::value::Kind;
use crate::nft::{CtDirection, CtKey, Data, Family, MetaKey, PayloadBase};

/// Where a value in a register came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Payload { base: PayloadBase, offset: u32, len: u32 },
    Meta(MetaKey),
    Ct(CtKey, Option<CtDirection>),
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
            Source::Ct(key, None) => match key {
                CtKey::State => Field::new("ct state", Kind::CtState),
                CtKey::Status => Field::new("ct status", Kind::CtStatus),
            },
            Source::Ct(_, Some(_)) => None,
            Source::Payload { base: PayloadBase::LinkLayer, offset, len } if self.family == Family::Bridge => {
                match (offset, len) {
                    (0, 6) => Field::new("ether daddr", Kind::Ether),
                    (6, 6) => Field::new("ether saddr", Kind::Ether),
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
        }
    }

    /// The field by its place, which nft(8) takes for bytes of the packet wherever they are.
    pub(super) fn raw(&self, source: Source) -> Option<Field> {
        let Source::Payload { base, offset, len } = source else { return None };
        let base = match base {
            PayloadBase::LinkLayer => "ll",
            PayloadBase::Network => "nh",
            PayloadBase::Transport => "th",
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
            ("udp", 4, 2) => Field::new("udp length", Kind::Number),
            _ => None,
        }
    }
}

fn ip(offset: u32, len: u32) -> Option<Field> {
    match (offset, len) {
        (2, 2) => Field::new("ip length", Kind::Number),
        (4, 2) => Field::new("ip id", Kind::Number),
        (6, 2) => Field::new("ip frag-off", Kind::Bits),
        (8, 1) => Field::new("ip ttl", Kind::Number),
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
