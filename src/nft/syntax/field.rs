//! Fields of a packet by the name nft(8) gives them, which depends on what the rule has matched before.

use super::header::{EXTENSIONS, HEADERS, INTEGER, Part, STRING};
use super::value::Kind;
use crate::nft::{CtDirection, CtKey, Data, Datatype, ExthdrOp, Family, MetaKey, PayloadBase};

/// Where a value in a register came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Payload {
        base: PayloadBase,
        offset: u32,
        len: u32,
    },
    Exthdr {
        op: ExthdrOp,
        kind: u8,
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
    /// nft(8)'s number of its type, which a set's key has to have.
    pub datatype: u32,
    /// How many bytes it has.
    pub width: usize,
}

impl Field {
    pub(super) fn new(text: impl Into<String>, kind: Kind, datatype: u32, width: usize) -> Self {
        Self { text: text.into(), kind, datatype, width }
    }

    fn of(text: impl Into<String>, datatype: Datatype) -> Option<Self> {
        Some(Self::new(text, Kind::of(datatype)?, datatype.number(), datatype.size()))
    }

    /// A number in the machine's byte order.
    fn native(text: impl Into<String>, width: usize) -> Option<Self> {
        Some(Self::new(text, Kind::Native, INTEGER, width))
    }
}

/// Where fields are that have a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Area {
    Header(PayloadBase),
    Extension(ExthdrOp, u8),
}

impl Source {
    /// Where it is, with its first byte and its length.
    fn place(self) -> Option<(Area, u32, u32)> {
        match self {
            Source::Payload { base, offset, len } => Some((Area::Header(base), offset, len)),
            Source::Exthdr { op, kind, offset, len } => Some((Area::Extension(op, kind), offset, len)),
            _ => None,
        }
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
    family: Family,
    pub network: Option<Network>,
    pub transport: Option<u8>,
    /// Whether frames are Ethernet's.
    ether: bool,
    /// Whether there is a tag of a virtual LAN.
    vlan: bool,
    /// Type of the ICMP message.
    icmp: Option<u8>,
    /// Whether it was one of several transport protocols. From there on nft(8) refuses the name of any.
    pub transports: bool,
    /// How many seconds the reader's clock is ahead of UTC, if that is known.
    hours: Option<i32>,
}

impl Context {
    pub(super) fn new(family: Family, hours: Option<i32>) -> Self {
        let network = match family {
            Family::Ip => Some(Network::Ip),
            Family::Ip6 => Some(Network::Ip6),
            Family::Arp => Some(Network::Arp),
            Family::Inet | Family::Bridge | Family::Netdev => None,
        };
        // A device of family netdev may be of another kind (`lo` is): there nft(8) puts `meta iiftype ether` before a field of a frame.
        let ether = family == Family::Bridge;
        Self { family, network, transport: None, ether, vlan: false, icmp: None, transports: false, hours }
    }

    /// Learns from a comparison that held.
    ///
    /// # Errors
    ///
    /// When it can't hold together with one before: nft(8) refuses to name fields after that.
    pub(super) fn learn(&mut self, source: Source, data: &Data) -> Result<(), String> {
        let link = matches!(self.family, Family::Bridge | Family::Netdev);
        let ether_type = match source {
            Source::Meta(MetaKey::Protocol) => link,
            Source::Payload { base: PayloadBase::LinkLayer, offset: 12, len: 2 } => self.ether,
            Source::Payload { base: PayloadBase::LinkLayer, offset: 16, len: 2 } => self.vlan,
            _ => false,
        };
        let network = match (source, data.as_bytes()) {
            (Source::Meta(MetaKey::NfProto), [2]) if self.family == Family::Inet => Some(Network::Ip),
            (Source::Meta(MetaKey::NfProto), [10]) if self.family == Family::Inet => Some(Network::Ip6),
            (Source::Meta(MetaKey::NfProto), _) if self.family == Family::Inet => {
                return Err("it asks for a family that no packet of an inet table has".to_owned());
            }
            (_, [0x08, 0x00]) if ether_type => Some(Network::Ip),
            (_, [0x86, 0xdd]) if ether_type => Some(Network::Ip6),
            (_, [0x08, 0x06]) if ether_type => Some(Network::Arp),
            _ => None,
        };
        match (source, data.as_bytes()) {
            (Source::Payload { base: PayloadBase::LinkLayer, offset: 12, len: 2 }, [0x81, 0x00] | [0x88, 0xa8])
                if self.ether =>
            {
                self.vlan = true;
            }
            // ARPHRD_ETHER. Of the outgoing interface it tells nft(8) nothing.
            (Source::Meta(MetaKey::IifType), bytes) if bytes == 1u16.to_ne_bytes() => self.ether = true,
            (Source::Payload { base: PayloadBase::Transport, offset: 0, len: 1 }, [kind])
                if matches!(self.transport, Some(1 | 58)) =>
            {
                self.icmp = Some(*kind);
            }
            _ => {}
        }
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
            Source::Ct(key, direction) => ct(self.network, key, direction),
            Source::Worded(_) | Source::Constant(_) => None,
            Source::Payload { .. } | Source::Exthdr { .. } => {
                let (area, offset, len) = source.place()?;
                let (bit, bits) = (offset.checked_mul(8)?, len.checked_mul(8)?);
                let (text, part) = self.part(area, bit, bits).or_else(|| self.prefix(area, bit, bits))?;
                let kind = match part.kind {
                    Kind::Ipv4 if bits < part.bits => Kind::Ipv4Prefix,
                    Kind::Ipv6 if bits < part.bits => Kind::Ipv6Prefix,
                    kind => kind,
                };
                Some(Field::new(text, kind, part.datatype, len as usize))
            }
        }
    }

    /// Fields that fill bytes from one end to the other, each with its place; none when there are bytes without a name.
    ///
    /// nft(8) loads and compares such fields at once.
    pub(super) fn joined(&self, source: Source) -> Option<Vec<(Source, Field)>> {
        let Source::Payload { base, mut offset, len } = source else { return None };
        let end = offset.checked_add(len)?;
        let mut fields = Vec::new();
        while offset < end {
            let (source, field) = (1..=end - offset).rev().find_map(|len| {
                let source = Source::Payload { base, offset, len };
                let whole = self.part(Area::Header(base), offset * 8, len * 8).is_some();
                self.field(source).filter(|_| whole).map(|field| (source, field))
            })?;
            offset += field.width as u32;
            fields.push((source, field));
        }
        Some(fields)
    }

    /// The field by its place, which nft(8) takes for bytes of the packet wherever they are.
    pub(super) fn raw(&self, source: Source) -> Option<Field> {
        let (area, offset, len) = source.place()?;
        // The kernel takes offsets of one byte and compares values of up to 16.
        if offset > 255 || !(1..=16).contains(&len) {
            return None;
        }
        let area = match area {
            Area::Header(PayloadBase::LinkLayer) => "@ll".to_owned(),
            Area::Header(PayloadBase::Network) => "@nh".to_owned(),
            Area::Header(PayloadBase::Transport) => "@th".to_owned(),
            Area::Header(PayloadBase::Inner) => "@ih".to_owned(),
            Area::Extension(ExthdrOp::TcpOption, kind) => format!("tcp option @{kind}"),
            Area::Header(PayloadBase::Tunnel) | Area::Extension(..) => return None,
        };
        // Whatever the protocol is: ports.
        let ports = matches!(source, Source::Payload { base: PayloadBase::Transport, offset: 0 | 2, len: 2 });
        let datatype = if ports { Datatype::InetService.number() } else { INTEGER };
        Some(Field::new(format!("{area},{},{}", offset * 8, len * 8), Kind::Bits, datatype, len as usize))
    }

    fn meta(&self, key: MetaKey) -> Option<Field> {
        let (text, datatype) = match key {
            // "meta nfproto is only useful in the inet family", says nft(8), and refuses it.
            MetaKey::NfProto if self.family != Family::Inet => return None,
            // The kernel's number, but nft(8) takes it for one of the packet.
            MetaKey::Random => return Some(Field::new("meta random", Kind::Number, INTEGER, 4)),
            MetaKey::Length => return Field::native("meta length", 4),
            MetaKey::NfTrace => return Field::native("meta nftrace", 1),
            MetaKey::Cpu => return Field::native("meta cpu", 4),
            MetaKey::Cgroup => return Field::native("meta cgroup", 4),
            MetaKey::BridgeIifPvid => return Field::native("meta ibrpvid", 2),
            MetaKey::SecMark => return Field::native("meta secmark", 4),
            MetaKey::Time => return Some(Field::new("meta time", Kind::Clock, 43, 8)),
            MetaKey::Hour => return Some(Field::new("meta hour", Kind::Hour(self.hours?), Datatype::Hour.number(), 4)),
            // nft 1.0.6 has no word for it.
            MetaKey::BridgeRoute => return None,
            MetaKey::Protocol => ("meta protocol", Datatype::EtherType),
            MetaKey::NfProto => ("meta nfproto", Datatype::NfProto),
            MetaKey::L4Proto => ("meta l4proto", Datatype::InetProto),
            MetaKey::Iif => ("iif", Datatype::IfaceIndex),
            MetaKey::Oif => ("oif", Datatype::IfaceIndex),
            MetaKey::IifName => ("iifname", Datatype::IfName),
            MetaKey::OifName => ("oifname", Datatype::IfName),
            MetaKey::Mark => ("meta mark", Datatype::Mark),
            MetaKey::SkUid => ("meta skuid", Datatype::Uid),
            MetaKey::SkGid => ("meta skgid", Datatype::Gid),
            MetaKey::Priority => ("meta priority", Datatype::ClassId),
            MetaKey::IifType => ("iiftype", Datatype::IfaceType),
            MetaKey::OifType => ("oiftype", Datatype::IfaceType),
            MetaKey::RtClassId => ("meta rtclassid", Datatype::Realm),
            MetaKey::PktType => ("meta pkttype", Datatype::PktType),
            MetaKey::IifGroup => ("iifgroup", Datatype::DevGroup),
            MetaKey::OifGroup => ("oifgroup", Datatype::DevGroup),
            MetaKey::SecPath => ("meta ipsec", Datatype::Boolean),
            MetaKey::IifKind => ("meta iifkind", Datatype::IfName),
            MetaKey::OifKind => ("meta oifkind", Datatype::IfName),
            MetaKey::BridgeIifName => ("meta ibrname", Datatype::IfName),
            MetaKey::BridgeOifName => ("meta obrname", Datatype::IfName),
            MetaKey::BridgeIifVproto => ("meta ibrvproto", Datatype::EtherType),
            MetaKey::Sdif => ("meta sdif", Datatype::IfaceIndex),
            MetaKey::SdifName => ("meta sdifname", Datatype::IfName),
            MetaKey::Day => ("meta day", Datatype::Day),
        };
        Field::of(text, datatype)
    }

    /// The words for the headers that there are, in an area; `tcp`, `ip`…
    fn heads(&self, area: Area) -> impl Iterator<Item = (&'static str, u32, &'static [Part])> + use<'_> {
        let headers = HEADERS.iter().filter(move |header| area == Area::Header(header.base) && self.has(header.word));
        let extensions = EXTENSIONS.iter().filter(move |extension| {
            area == Area::Extension(extension.op, extension.kind) && self.has_extensions(extension.op)
        });
        let extensions = extensions.map(|extension| (extension.word, 0, extension.fields));
        headers.map(|header| (header.word, header.start, header.fields)).chain(extensions)
    }

    /// The transport protocol, if nft(8) takes its name for fields.
    pub(super) fn named_transport(&self) -> Option<u8> {
        self.transport.filter(|_| !self.transports)
    }

    /// Whether nft(8) takes fields of a header here, without a match of its own in front of them.
    fn has(&self, word: &str) -> bool {
        let transport = self.named_transport();
        match word {
            "ether" => self.ether,
            "vlan" => self.vlan,
            "ip" => self.network == Some(Network::Ip),
            "ip6" => self.network == Some(Network::Ip6),
            "arp" => self.network == Some(Network::Arp),
            // Of either family: nft(8) adds a match of it only where it adds that of the protocol.
            "icmp" => transport == Some(1),
            "icmpv6" => transport == Some(58),
            "th" => !matches!(transport, Some(1 | 2 | 6 | 17 | 33 | 50 | 51 | 58 | 108 | 132 | 136)),
            _ => transport.is_some_and(|protocol| transport_word(protocol) == Some(word)),
        }
    }

    /// Learns that the transport protocol is one of several, if that is what a key is.
    pub(super) fn learn_protocols(&mut self, source: Source) {
        let transports = match source {
            Source::Meta(MetaKey::L4Proto) => true,
            Source::Payload { base: PayloadBase::Network, offset: 9, len: 1 } => self.network == Some(Network::Ip),
            Source::Payload { base: PayloadBase::Network, offset: 6, len: 1 } => self.network == Some(Network::Ip6),
            _ => false,
        };
        if transports {
            // To nft(8) it is the last of them, until a comparison says otherwise.
            self.transport = None;
            self.transports = true;
        }
    }

    /// Learns that an ICMP message is an echo request or a reply to one, if those are all that a key may be. Their fields are the same.
    pub(super) fn learn_echo<'a>(&mut self, source: Source, keys: impl Iterator<Item = &'a [u8]>) {
        let Source::Payload { base: PayloadBase::Transport, offset: 0, len: 1 } = source else { return };
        let (request, reply) = match self.named_transport() {
            Some(1) => (8, 0),
            Some(58) => (128, 129),
            _ => return,
        };
        let mut types: Vec<&[u8]> = keys.collect();
        types.sort_unstable();
        if types == [[request.min(reply)], [request.max(reply)]] {
            self.icmp = Some(request);
        }
    }

    /// Whether nft(8) takes extension headers, options or chunks here, without a match of its own in front of them.
    pub(super) fn has_extensions(&self, op: ExthdrOp) -> bool {
        match op {
            ExthdrOp::Ipv6 => self.network == Some(Network::Ip6),
            ExthdrOp::Ipv4Option => self.network == Some(Network::Ip),
            ExthdrOp::TcpOption | ExthdrOp::SctpChunk => true,
            ExthdrOp::DccpOption => false,
        }
    }

    /// The field that has just these bits, with its name.
    fn part(&self, area: Area, bit: u32, bits: u32) -> Option<(String, &'static Part)> {
        self.heads(area).find_map(|(word, start, parts)| {
            let part = parts.iter().find(|part| {
                (start + part.bit, part.bits) == (bit, bits)
                    && (part.only.is_empty() || self.icmp.is_some_and(|kind| part.only.contains(&kind)))
            })?;
            Some((format!("{word} {}", part.name), part))
        })
    }

    /// The address that begins with these bits, and has more.
    fn prefix(&self, area: Area, bit: u32, bits: u32) -> Option<(String, &'static Part)> {
        self.heads(area).find_map(|(word, start, parts)| {
            let part = parts.iter().find(|part| {
                matches!(part.kind, Kind::Ipv4 | Kind::Ipv6) && start + part.bit == bit && bits < part.bits
            })?;
            Some((format!("{word} {}", part.name), part))
        })
    }
}

/// The word for a transport protocol whose header has fields with names.
fn transport_word(protocol: u8) -> Option<&'static str> {
    Some(match protocol {
        2 => "igmp",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        50 => "esp",
        51 => "ah",
        108 => "comp",
        132 => "sctp",
        136 => "udplite",
        _ => return None,
    })
}

pub(super) fn ct(network: Option<Network>, key: CtKey, direction: Option<CtDirection>) -> Option<Field> {
    let address = match network {
        Some(Network::Ip) => Some(Datatype::Ipv4Addr),
        Some(Network::Ip6) => Some(Datatype::Ipv6Addr),
        _ => None,
    };
    let name = match direction {
        None => "ct",
        Some(CtDirection::Original) => "ct original",
        Some(CtDirection::Reply) => "ct reply",
    };
    let (key, datatype) = match key {
        CtKey::Packets => return Field::native(format!("{name} packets"), 8),
        CtKey::Bytes => return Field::native(format!("{name} bytes"), 8),
        CtKey::AvgPkt => return Field::native(format!("{name} avgpkt"), 8),
        CtKey::Zone => return Field::native(format!("{name} zone"), 2),
        CtKey::SecMark => return Field::native(format!("{name} secmark"), 4),
        CtKey::Id => return Some(Field::new(format!("{name} id"), Kind::Number, INTEGER, 4)),
        CtKey::Helper => return Some(Field::new(format!("{name} helper"), Kind::Text, STRING, 16)),
        // They have the type of a port in the rule's protocol, which nft(8) says of no key.
        CtKey::ProtoSrc => return Some(Field::new(format!("{name} proto-src"), Kind::Port, 0, 2)),
        CtKey::ProtoDst => return Some(Field::new(format!("{name} proto-dst"), Kind::Port, 0, 2)),
        // nft 1.0.6 asks for a direction with an address.
        CtKey::Saddr | CtKey::Daddr | CtKey::SrcIp | CtKey::DstIp | CtKey::SrcIp6 | CtKey::DstIp6
            if direction.is_none() =>
        {
            return None;
        }
        CtKey::State => ("state", Datatype::CtState),
        CtKey::Direction => ("direction", Datatype::CtDir),
        CtKey::Status => ("status", Datatype::CtStatus),
        CtKey::Mark => ("mark", Datatype::Mark),
        CtKey::Expiration => ("expiration", Datatype::Time),
        CtKey::L3Proto => ("l3proto", Datatype::NfProto),
        CtKey::Protocol => ("protocol", Datatype::InetProto),
        CtKey::SrcIp => ("ip saddr", Datatype::Ipv4Addr),
        CtKey::DstIp => ("ip daddr", Datatype::Ipv4Addr),
        CtKey::SrcIp6 => ("ip6 saddr", Datatype::Ipv6Addr),
        CtKey::DstIp6 => ("ip6 daddr", Datatype::Ipv6Addr),
        CtKey::Saddr => ("saddr", address?),
        CtKey::Daddr => ("daddr", address?),
        CtKey::EventMask => ("event", Datatype::CtEvent),
        CtKey::Labels => ("label", Datatype::CtLabel),
    };
    Field::of(format!("{name} {key}"), datatype)
}

/// Bytes that a conntrack expression loads.
pub(super) fn ct_width(network: Option<Network>, key: CtKey) -> Option<usize> {
    Some(match key {
        CtKey::Direction | CtKey::L3Proto | CtKey::Protocol => 1,
        CtKey::ProtoSrc | CtKey::ProtoDst | CtKey::Zone => 2,
        CtKey::Packets | CtKey::Bytes | CtKey::AvgPkt => 8,
        CtKey::Helper | CtKey::Labels | CtKey::SrcIp6 | CtKey::DstIp6 => 16,
        CtKey::Saddr | CtKey::Daddr => match network {
            Some(Network::Ip) => 4,
            Some(Network::Ip6) => 16,
            _ => return None,
        },
        _ => 4,
    })
}

/// A field that does not fill the bytes that hold it.
pub(super) struct Within {
    pub text: String,
    pub datatype: u32,
    pub bits: u8,
    /// How many bytes they fill.
    pub width: usize,
    /// How far its bits are from the end of those bytes.
    pub shift: u32,
}

impl Context {
    /// The field whose bits in a load are those of a mask.
    pub(super) fn bit_field(&self, source: Source, mask: &[u8]) -> Option<Within> {
        let (area, offset, len) = source.place()?;
        let (bit, bits, shift) = ones(offset, len, mask)?;
        // nft(8) loads no more bytes than it needs.
        let tight = bit / 8 == offset && (bit + bits).div_ceil(8) == offset + len;
        let (text, part) = self.part(area, bit, bits).filter(|_| tight && !(bit % 8 == 0 && bits % 8 == 0))?;
        Some(Within { text, datatype: part.datatype, bits: u8::try_from(bits).ok()?, width: part.width(), shift })
    }

    /// The field that a write changes, when it writes back bytes around it as they were; and how far its bits are from their end.
    ///
    /// A checksum is computed over pairs of bytes, so nft(8) writes no single one.
    pub(super) fn changed(&self, source: Source, changed: &[u8]) -> Option<(Field, u32)> {
        let (area, offset, len) = source.place()?;
        let (bit, bits, shift) = ones(offset, len, changed)?;
        if bit / 8 / 2 * 2 != offset || (bit + bits).div_ceil(16) * 2 != offset + len {
            let tight = bit / 8 == offset && (bit + bits).div_ceil(8) == offset + len;
            tight.then_some(())?;
        }
        let (text, part) = self.part(area, bit, bits)?;
        Some((Field::new(text, part.kind, part.datatype, part.width()), shift))
    }
}

/// Where the ones of a mask are, in bits from the start of the header: the first, how many, and how many bits there are behind them.
fn ones(offset: u32, len: u32, mask: &[u8]) -> Option<(u32, u32, u32)> {
    let mask = super::value::big(mask)?;
    let (ones, low) = (mask.count_ones(), mask.trailing_zeros());
    if mask == 0 || mask >> low != u128::MAX >> (128 - ones) {
        return None;
    }
    Some((offset.checked_add(len)?.checked_mul(8)?.checked_sub(low + ones)?, ones, low))
}
