//! Values as nft(8) writes them.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::word;
use crate::nft::Datatype;

/// What the bytes of a value mean, and so how they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ipv4,
    Ipv6,
    /// The first bytes of an address: what nft(8) compares for a prefix that ends at a byte.
    Ipv4Prefix,
    Ipv6Prefix,
    Ether,
    EtherType,
    NfProto,
    Proto,
    Port,
    Mark,
    Uid,
    IfIndex,
    IfName,
    CtState,
    CtStatus,
    TcpFlags,
    Icmpv6Type,
    /// Whether something is there, as one byte.
    Exists,
    /// A number in the machine's byte order, written in decimal.
    Native,
    /// Class of a queueing discipline.
    Class,
    /// Milliseconds in the machine's byte order.
    Time,
    /// Nanoseconds since 1970 in the machine's byte order.
    Clock,
    /// Seconds since midnight UTC, in the machine's byte order; written as a clock shows them that is ahead by so many.
    Hour(i32),
    /// Bits of conntrack's labels, of which one has a number.
    Label,
    /// What conntrack tells of.
    Event,
    /// A number of the packet of some bits, which has others behind it in its bytes.
    Part {
        bits: u8,
        behind: u8,
    },
    /// A name with zeros behind it.
    Text,
    /// Type of an address in the routing tables.
    AddrType,
    /// A number of the packet, written in decimal.
    Number,
    /// Bits of the packet, or a field that has no name: written in hexadecimal.
    Bits,
}

/// Bits of conntrack's state.
const CT_STATE: &[(u32, &str)] = &[(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (64, "untracked")];
/// Bits of conntrack's status.
const CT_STATUS: &[(u32, &str)] = &[
    (0x1, "expected"),
    (0x2, "seen-reply"),
    (0x4, "assured"),
    (0x8, "confirmed"),
    (0x10, "snat"),
    (0x20, "dnat"),
    (0x200, "dying"),
];
/// Flags of TCP.
const TCP_FLAGS: &[(u32, &str)] =
    &[(1, "fin"), (2, "syn"), (4, "rst"), (8, "psh"), (16, "ack"), (32, "urg"), (64, "ecn"), (128, "cwr")];

impl Kind {
    /// The kind that a set's datatype stands for.
    pub(super) fn of(datatype: Datatype) -> Option<Kind> {
        Some(match datatype {
            Datatype::Ipv4Addr => Kind::Ipv4,
            Datatype::Ipv6Addr => Kind::Ipv6,
            Datatype::EtherAddr => Kind::Ether,
            Datatype::InetProto => Kind::Proto,
            Datatype::InetService => Kind::Port,
            Datatype::Mark => Kind::Mark,
            Datatype::IfaceIndex => Kind::IfIndex,
            Datatype::NfProto => Kind::NfProto,
            Datatype::EtherType => Kind::EtherType,
            Datatype::Uid | Datatype::Gid => Kind::Uid,
            Datatype::IfName => Kind::IfName,
            Datatype::CtState => Kind::CtState,
            Datatype::CtStatus => Kind::CtStatus,
            Datatype::TcpFlag => Kind::TcpFlags,
            Datatype::Icmpv6Type => Kind::Icmpv6Type,
            Datatype::ClassId => Kind::Class,
            Datatype::FibAddrType => Kind::AddrType,
            Datatype::Time => Kind::Time,
            Datatype::CtLabel => Kind::Label,
            Datatype::CtEvent => Kind::Event,
            Datatype::Boolean => Kind::Exists,
            Datatype::IcmpType
            | Datatype::IcmpCode
            | Datatype::Icmpv6Code
            | Datatype::IcmpxCode
            | Datatype::ArpOp
            | Datatype::MhType
            | Datatype::IgmpType => Kind::Number,
            Datatype::DccpPktType => Kind::Part { bits: 4, behind: 0 },
            Datatype::Dscp => Kind::Part { bits: 6, behind: 0 },
            Datatype::Ecn => Kind::Part { bits: 2, behind: 0 },
            Datatype::IfaceType
            | Datatype::DevGroup
            | Datatype::CtDir
            | Datatype::PktType
            | Datatype::Realm
            | Datatype::Day => Kind::Native,
            _ => return None,
        })
    }

    /// Whether nft(8) compares values of this kind by order without turning their bytes around first.
    pub(super) fn ordered(self) -> bool {
        matches!(self, Kind::Ipv4 | Kind::Ipv6 | Kind::Port | Kind::Number | Kind::Bits | Kind::Part { .. })
    }

    /// Whether values are kept in the machine's byte order: nft(8) turns them around to compare by order.
    pub(super) fn native(self) -> bool {
        matches!(
            self,
            Kind::Mark
                | Kind::Uid
                | Kind::IfIndex
                | Kind::CtState
                | Kind::CtStatus
                | Kind::Native
                | Kind::Class
                | Kind::Time
                | Kind::Clock
                | Kind::Hour(_)
                | Kind::Event
                | Kind::AddrType
        )
    }

    /// Whether nft(8) takes a mask on values of this kind.
    pub(super) fn maskable(self) -> bool {
        (self.ordered() && !matches!(self, Kind::Part { .. }))
            || self.flags().is_some()
            || matches!(self, Kind::Mark | Kind::Event | Kind::Uid | Kind::IfIndex | Kind::Native | Kind::Class)
    }

    /// Names of the bits, for the kinds that are bits. nft(8) reads a bare value of such a kind as "any of these bits".
    pub(super) fn flags(self) -> Option<&'static [(u32, &'static str)]> {
        match self {
            Kind::CtState => Some(CT_STATE),
            Kind::CtStatus => Some(CT_STATUS),
            Kind::TcpFlags => Some(TCP_FLAGS),
            _ => None,
        }
    }

    /// The names of the bits, if every one has a name and there is at least one.
    pub(super) fn flag_names(self, bytes: &[u8]) -> Option<Vec<&'static str>> {
        let (names, value) = (self.flags()?, native(bytes)?);
        let known: Vec<_> = names.iter().filter(|(bit, _)| value & bit != 0).collect();
        let all = known.iter().fold(0, |all, (bit, _)| all | bit) == value;
        (all && value != 0).then(|| known.iter().map(|(_, name)| *name).collect())
    }

    /// Writes a value. `None` when nft(8) has no word for it.
    pub(super) fn show(self, bytes: &[u8]) -> Option<String> {
        Some(match self {
            Kind::Ipv4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).to_string(),
            Kind::Ipv6 => ipv6(<[u8; 16]>::try_from(bytes).ok()?),
            Kind::Ipv4Prefix => {
                let address = Kind::Ipv4.show(&padded::<4>(bytes)?)?;
                format!("{address}/{}", bytes.len() * 8)
            }
            Kind::Ipv6Prefix => {
                let address = Kind::Ipv6.show(&padded::<16>(bytes)?)?;
                format!("{address}/{}", bytes.len() * 8)
            }
            Kind::Ether => {
                let octets: Vec<_> =
                    <[u8; 6]>::try_from(bytes).ok()?.iter().map(|byte| format!("{byte:02x}")).collect();
                octets.join(":")
            }
            Kind::EtherType => match <[u8; 2]>::try_from(bytes).ok()? {
                [0x08, 0x00] => "ip".to_owned(),
                [0x86, 0xdd] => "ip6".to_owned(),
                [0x08, 0x06] => "arp".to_owned(),
                other => format!("0x{:04x}", u16::from_be_bytes(other)),
            },
            Kind::NfProto => match one(bytes)? {
                2 => "ipv4".to_owned(),
                10 => "ipv6".to_owned(),
                other => other.to_string(),
            },
            // Only the names that are words of nft(8)'s grammar: for the rest it reads /etc/protocols, which may be missing.
            Kind::Proto => match one(bytes)? {
                1 => "icmp".to_owned(),
                6 => "tcp".to_owned(),
                17 => "udp".to_owned(),
                33 => "dccp".to_owned(),
                50 => "esp".to_owned(),
                51 => "ah".to_owned(),
                58 => "icmpv6".to_owned(),
                132 => "sctp".to_owned(),
                136 => "udplite".to_owned(),
                other => other.to_string(),
            },
            Kind::Port => u16::from_be_bytes(bytes.try_into().ok()?).to_string(),
            Kind::Mark => format!("0x{:08x}", u32::from_ne_bytes(bytes.try_into().ok()?)),
            Kind::Event => format!("0x{:x}", native(bytes)?),
            // The bit of a number, as the kernel's bitmaps have them: in words of the machine's byte order.
            Kind::Label => {
                let words: Vec<u32> = bytes.chunks_exact(4).map(|word| native(word).unwrap_or_default()).collect();
                let set: Vec<_> = words.iter().enumerate().filter(|(_, word)| **word != 0).collect();
                match (bytes.len(), set.as_slice()) {
                    (16, [(at, word)]) if word.is_power_of_two() => {
                        (32 * at + word.trailing_zeros() as usize).to_string()
                    }
                    _ => return None,
                }
            }
            // nft(8) takes seconds, which no time zone changes.
            Kind::Clock => match native_wide(bytes)? {
                time if time % 1_000_000_000 == 0 => (time / 1_000_000_000).to_string(),
                _ => return None,
            },
            Kind::Hour(ahead) => {
                let day = 86_400;
                let second = i64::from(native(bytes)?);
                let second = (0..day).contains(&second).then(|| (second + i64::from(ahead)).rem_euclid(day))?;
                format!("\"{:02}:{:02}:{:02}\"", second / 3_600, second / 60 % 60, second % 60)
            }
            Kind::Part { behind: by, .. } => {
                let number = big(bytes)?;
                (number.trailing_zeros() >= u32::from(by)).then(|| (number >> by).to_string())?
            }
            Kind::Uid => u32::from_ne_bytes(bytes.try_into().ok()?).to_string(),
            // Index 1 is the loopback of every network namespace. nft(8) takes the other numbers whether or not such an
            // interface exists where the text is loaded.
            Kind::IfIndex => match u32::from_ne_bytes(bytes.try_into().ok()?) {
                1 => "\"lo\"".to_owned(),
                index => index_number(index)?,
            },
            Kind::IfName => interface_name(bytes)?,
            Kind::CtState | Kind::CtStatus | Kind::TcpFlags => match self.flag_names(bytes) {
                Some(names) if names.len() == 1 || self == Kind::TcpFlags => names.join(" | "),
                _ => format!("0x{:x}", native(bytes)?),
            },
            Kind::Icmpv6Type => match one(bytes)? {
                1 => "destination-unreachable".to_owned(),
                2 => "packet-too-big".to_owned(),
                3 => "time-exceeded".to_owned(),
                4 => "parameter-problem".to_owned(),
                128 => "echo-request".to_owned(),
                129 => "echo-reply".to_owned(),
                133 => "nd-router-solicit".to_owned(),
                134 => "nd-router-advert".to_owned(),
                135 => "nd-neighbor-solicit".to_owned(),
                136 => "nd-neighbor-advert".to_owned(),
                137 => "nd-redirect".to_owned(),
                other => other.to_string(),
            },
            Kind::Exists => match native_wide(bytes)? {
                0 => "missing".to_owned(),
                1 => "exists".to_owned(),
                _ => return None,
            },
            Kind::Native => native_wide(bytes)?.to_string(),
            Kind::Class => match native(bytes)? {
                0 => "none".to_owned(),
                class => format!("{:x}:{:x}", class >> 16, class & 0xffff),
            },
            Kind::Time => super::element::show_time(std::time::Duration::from_millis(native_wide(bytes)?)).ok()?,
            Kind::Text => {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                let (text, zeros) = bytes.split_at(end);
                let text = std::str::from_utf8(text).ok().filter(|text| !text.is_empty())?;
                zeros.iter().all(|byte| *byte == 0).then(|| word::quoted(text).ok())??
            }
            Kind::AddrType => match native(bytes)? {
                0 => "unspec".to_owned(),
                1 => "unicast".to_owned(),
                2 => "local".to_owned(),
                3 => "broadcast".to_owned(),
                4 => "anycast".to_owned(),
                5 => "multicast".to_owned(),
                6 => "blackhole".to_owned(),
                7 => "unreachable".to_owned(),
                8 => "prohibit".to_owned(),
                other => other.to_string(),
            },
            Kind::Number => big(bytes)?.to_string(),
            Kind::Bits => format!("0x{:x}", big(bytes)?),
        })
    }

    /// Writes a mask, or a value under one.
    pub(super) fn show_masked(self, bytes: &[u8]) -> Option<String> {
        match self {
            Kind::Port | Kind::Number | Kind::Bits => Some(match big(bytes)? {
                0 => "0".to_owned(),
                bits => format!("0x{bits:x}"),
            }),
            Kind::IfIndex => index_number(native(bytes)?),
            Kind::Uid => Some(format!("0x{:x}", native(bytes)?)),
            Kind::TcpFlags => match self.flag_names(bytes) {
                Some(names) if names.len() > 1 => Some(format!("({})", names.join(" | "))),
                _ => self.show(bytes),
            },
            _ => self.show(bytes),
        }
    }

    /// Writes a bound of an interval set's range, where the kernel wants every number in network byte order.
    pub(super) fn show_bound(self, bytes: &[u8]) -> Option<String> {
        match self {
            Kind::Mark => Some(format!("0x{:08x}", u32::from_be_bytes(bytes.try_into().ok()?))),
            Kind::IfIndex => index_number(u32::from_be_bytes(bytes.try_into().ok()?)),
            kind if kind.native() => kind.show(&bytes.iter().rev().copied().collect::<Vec<_>>()),
            Kind::Proto => one(bytes).map(|number| number.to_string()),
            _ => self.show(bytes),
        }
    }
}

/// Whether the bytes are ones, then zeros: how many ones.
pub(super) fn prefix_length(mask: &[u8]) -> Option<u32> {
    let bits = big(mask)? << (128 - 8 * mask.len().clamp(1, 16));
    let ones = bits.leading_ones();
    (bits.count_ones() == ones).then_some(ones)
}

/// A number of up to 16 bytes in network byte order.
pub(super) fn big(bytes: &[u8]) -> Option<u128> {
    if bytes.is_empty() || bytes.len() > 16 {
        return None;
    }
    Some(bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte)))
}

/// nft(8) reads the number into a C `int`.
fn index_number(index: u32) -> Option<String> {
    i32::try_from(index).ok().map(|index| index.to_string())
}

/// Rust writes `::ffff:a.b.c.d` and so does nft(8), but nft(8) writes `::a.b.c.d` for others of those too: either is read.
fn ipv6(octets: [u8; 16]) -> String {
    Ipv6Addr::from(octets).to_string()
}

/// A number of up to eight bytes in the machine's order.
fn native_wide(bytes: &[u8]) -> Option<u64> {
    Some(match bytes {
        [byte] => u64::from(*byte),
        [a, b] => u64::from(u16::from_ne_bytes([*a, *b])),
        [a, b, c, d] => u64::from(u32::from_ne_bytes([*a, *b, *c, *d])),
        _ => u64::from_ne_bytes(bytes.try_into().ok()?),
    })
}

/// One byte, or four in the machine's order.
fn native(bytes: &[u8]) -> Option<u32> {
    match bytes {
        [byte] => Some(u32::from(*byte)),
        _ => Some(u32::from_ne_bytes(bytes.try_into().ok()?)),
    }
}

fn one(bytes: &[u8]) -> Option<u8> {
    match bytes {
        [byte] => Some(*byte),
        _ => None,
    }
}

fn padded<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let mut whole = [0; N];
    whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(whole)
}

/// With a NUL behind it, it is one whole name; without, the beginning of many, for which nft(8) writes a star.
///
/// iptables-nft(8) compares no more than the one NUL, nft(8) all 16 bytes. The kernel has zeros in the rest, so it is the same.
fn interface_name(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (name, rest) = bytes.split_at(end);
    let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty())?;
    match rest {
        [] if end < 15 && !name.contains(['*', '\\']) => word::quoted(&format!("{name}*")).ok(),
        [_, ..] if bytes.len() <= 16 && rest.iter().all(|byte| *byte == 0) => word::interface(name).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_nft_reads_them() {
        for (kind, bytes, text) in [
            (Kind::Ipv4, &[203, 0, 113, 9][..], "203.0.113.9"),
            (Kind::Ipv4Prefix, &[10], "10.0.0.0/8"),
            (Kind::Ipv6Prefix, &[0x20, 0x01, 0x0d, 0xb8], "2001:db8::/32"),
            (Kind::Ether, &[2, 0, 0, 0, 0, 1], "02:00:00:00:00:01"),
            (Kind::EtherType, &[8, 6], "arp"),
            (Kind::Proto, &[47], "47"),
            (Kind::Port, &[0x15, 0x38], "5432"),
            (Kind::Bits, &[0x3f, 0xff], "0x3fff"),
            (Kind::IfName, b"veth", "\"veth*\""),
            (Kind::IfName, b"eth0\0", "\"eth0\""),
            (Kind::IfName, b"veth*\0", "\"veth\\*\""),
            (Kind::IfName, b"veth*\0\0\0\0\0\0\0\0\0\0\0", "\"veth\\*\""),
            (Kind::TcpFlags, &[0x12], "syn | ack"),
            (Kind::CtState, &6u32.to_ne_bytes(), "0x6"),
            (Kind::IfIndex, &1u32.to_ne_bytes(), "\"lo\""),
        ] {
            assert_eq!(kind.show(bytes).as_deref(), Some(text), "{kind:?}");
        }
        for other in [&b"\0"[..], b"a\0b\0", b"eth0\0\0\0\0\0\0\0\0\0\0\0\0\0", b"of-16-letters-ab"] {
            assert_eq!(Kind::IfName.show(other), None, "{other:?}");
        }
        assert_eq!(Kind::IfName.show(b"a\"b\0\0\0\0\0\0\0\0\0\0\0\0\0"), None);
        assert_eq!(Kind::Ipv4.show(&[1, 2, 3]), None);
    }

    #[test]
    fn a_mask_is_a_prefix_only_without_holes() {
        assert_eq!(prefix_length(&[255, 240, 0, 0]), Some(12));
        assert_eq!(prefix_length(&[0, 0]), Some(0));
        assert_eq!(prefix_length(&[255; 16]), Some(128));
        assert_eq!(prefix_length(&[255, 0, 255, 0]), None);
    }
}
