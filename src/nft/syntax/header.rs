//! Fields of headers and options by the name, the place and the number that nft(8) gives them.
//!
//! The numbers stand in the user data of sets that were declared by `typeof`.

use super::value::Kind;
use crate::nft::{Datatype, ExthdrOp, PayloadBase};

/// A header whose fields have names.
pub(super) struct Header {
    /// By which user data refers to it.
    pub number: u32,
    pub word: &'static str,
    pub base: PayloadBase,
    /// Where it starts, in bits from its base.
    pub start: u32,
    pub fields: &'static [Part],
}

/// An extension header, an option or a chunk whose fields have names.
pub(super) struct Extension {
    pub op: ExthdrOp,
    /// Its number on the wire.
    pub kind: u8,
    /// By which user data refers to it: its kind, but for extension headers of IPv6.
    pub number: u32,
    pub word: &'static str,
    pub fields: &'static [Part],
}

/// A field: its number within the header, its name, its place, and nft(8)'s type.
pub(super) struct Part {
    pub number: u32,
    pub name: &'static str,
    /// From the start of the header.
    pub bit: u32,
    pub bits: u32,
    pub datatype: u32,
    pub kind: Kind,
    /// Types of an ICMP message that has it; others have something else there.
    pub only: &'static [u8],
}

impl Part {
    /// How many bytes a value has.
    pub(super) fn width(&self) -> usize {
        self.bits.div_ceil(8) as usize
    }
}

/// nft(8)'s number of integers, which have no length of their own.
pub(super) const INTEGER: u32 = 4;
/// nft(8)'s number of texts.
pub(super) const STRING: u32 = 5;
/// nft(8)'s number of bit masks.
const BITMASK: u32 = 3;

const fn int(number: u32, name: &'static str, bit: u32, bits: u32) -> Part {
    let kind = if bits.is_multiple_of(8) { Kind::Number } else { Kind::Part { bits: bits as u8, behind: 0 } };
    Part { number, name, bit, bits, datatype: INTEGER, kind, only: &[] }
}

const fn of(number: u32, name: &'static str, bit: u32, bits: u32, datatype: Datatype, kind: Kind) -> Part {
    Part { number, name, bit, bits, datatype: datatype.number(), kind, only: &[] }
}

const fn only(part: Part, only: &'static [u8]) -> Part {
    Part { only, ..part }
}

const SPORT: Part = of(1, "sport", 0, 16, Datatype::InetService, Kind::Port);
const DPORT: Part = of(2, "dport", 16, 16, Datatype::InetService, Kind::Port);
const fn next(number: u32) -> Part {
    of(number, "nexthdr", 0, 8, Datatype::InetProto, Kind::Proto)
}

/// Every header, in the order of its number.
pub(super) const HEADERS: &[Header] = &[
    transport(
        1,
        "ah",
        &[
            next(1),
            int(2, "hdrlength", 8, 8),
            int(3, "reserved", 16, 16),
            int(4, "spi", 32, 32),
            int(5, "sequence", 64, 32),
        ],
    ),
    transport(2, "esp", &[int(1, "spi", 0, 32), int(2, "sequence", 32, 32)]),
    transport(
        3,
        "comp",
        &[
            next(1),
            Part { number: 2, name: "flags", bit: 8, bits: 8, datatype: BITMASK, kind: Kind::Bits, only: &[] },
            int(3, "cpi", 16, 16),
        ],
    ),
    transport(
        4,
        "icmp",
        &[
            of(1, "type", 0, 8, Datatype::IcmpType, Kind::Number),
            of(2, "code", 8, 8, Datatype::IcmpCode, Kind::Number),
            int(3, "checksum", 16, 16),
            only(int(4, "id", 32, 16), &[0, 8]),
            only(int(5, "sequence", 48, 16), &[0, 8]),
            only(int(6, "gateway", 32, 32), &[5]),
            only(int(7, "mtu", 48, 16), &[3]),
        ],
    ),
    transport(
        5,
        "igmp",
        &[
            of(1, "type", 0, 8, Datatype::IgmpType, Kind::Number),
            int(2, "checksum", 16, 16),
            int(3, "mrt", 8, 8),
            int(4, "group", 32, 32),
        ],
    ),
    transport(6, "udp", &[SPORT, DPORT, int(3, "length", 32, 16), int(4, "checksum", 48, 16)]),
    transport(7, "udplite", &[SPORT, DPORT, int(3, "csumcov", 32, 16), int(4, "checksum", 48, 16)]),
    transport(
        8,
        "tcp",
        &[
            SPORT,
            DPORT,
            int(3, "sequence", 32, 32),
            int(4, "ackseq", 64, 32),
            int(5, "doff", 96, 4),
            int(6, "reserved", 100, 4),
            of(7, "flags", 104, 8, Datatype::TcpFlag, Kind::TcpFlags),
            int(8, "window", 112, 16),
            int(9, "checksum", 128, 16),
            int(10, "urgptr", 144, 16),
        ],
    ),
    transport(
        9,
        "dccp",
        &[SPORT, DPORT, of(3, "type", 67, 4, Datatype::DccpPktType, Kind::Part { bits: 4, behind: 0 })],
    ),
    transport(10, "sctp", &[SPORT, DPORT, int(3, "vtag", 32, 32), int(4, "checksum", 64, 32)]),
    transport(11, "th", &[SPORT, DPORT]),
    network(
        12,
        "ip",
        &[
            int(1, "version", 0, 4),
            int(2, "hdrlength", 4, 4),
            of(3, "dscp", 8, 6, Datatype::Dscp, Kind::Part { bits: 6, behind: 0 }),
            of(4, "ecn", 14, 2, Datatype::Ecn, Kind::Part { bits: 2, behind: 0 }),
            int(5, "length", 16, 16),
            int(6, "id", 32, 16),
            Part { number: 7, name: "frag-off", bit: 48, bits: 16, datatype: INTEGER, kind: Kind::Bits, only: &[] },
            int(8, "ttl", 64, 8),
            of(9, "protocol", 72, 8, Datatype::InetProto, Kind::Proto),
            int(10, "checksum", 80, 16),
            of(11, "saddr", 96, 32, Datatype::Ipv4Addr, Kind::Ipv4),
            of(12, "daddr", 128, 32, Datatype::Ipv4Addr, Kind::Ipv4),
        ],
    ),
    network(
        13,
        "ip6",
        &[
            int(1, "version", 0, 4),
            of(2, "dscp", 4, 6, Datatype::Dscp, Kind::Part { bits: 6, behind: 0 }),
            of(3, "ecn", 10, 2, Datatype::Ecn, Kind::Part { bits: 2, behind: 0 }),
            int(4, "flowlabel", 12, 20),
            int(5, "length", 32, 16),
            of(6, "nexthdr", 48, 8, Datatype::InetProto, Kind::Proto),
            int(7, "hoplimit", 56, 8),
            of(8, "saddr", 64, 128, Datatype::Ipv6Addr, Kind::Ipv6),
            of(9, "daddr", 192, 128, Datatype::Ipv6Addr, Kind::Ipv6),
        ],
    ),
    transport(
        14,
        "icmpv6",
        &[
            of(1, "type", 0, 8, Datatype::Icmpv6Type, Kind::Icmpv6Type),
            of(2, "code", 8, 8, Datatype::Icmpv6Code, Kind::Number),
            int(3, "checksum", 16, 16),
            only(int(4, "parameter-problem", 32, 32), &[4]),
            only(int(5, "mtu", 32, 32), &[2]),
            only(int(6, "id", 32, 16), &[128, 129]),
            only(int(7, "sequence", 48, 16), &[128, 129]),
            only(int(8, "max-delay", 32, 16), &[130, 131, 132]),
        ],
    ),
    network(
        15,
        "arp",
        &[
            int(1, "htype", 0, 16),
            of(2, "ptype", 16, 16, Datatype::EtherType, Kind::EtherType),
            int(3, "hlen", 32, 8),
            int(4, "plen", 40, 8),
            of(5, "operation", 48, 16, Datatype::ArpOp, Kind::Number),
            of(6, "saddr ether", 64, 48, Datatype::EtherAddr, Kind::Ether),
            of(7, "saddr ip", 112, 32, Datatype::Ipv4Addr, Kind::Ipv4),
            of(8, "daddr ether", 144, 48, Datatype::EtherAddr, Kind::Ether),
            of(9, "daddr ip", 192, 32, Datatype::Ipv4Addr, Kind::Ipv4),
        ],
    ),
    Header {
        number: 16,
        word: "vlan",
        base: PayloadBase::LinkLayer,
        start: 112,
        fields: &[
            int(1, "pcp", 0, 3),
            int(2, "dei", 3, 1),
            int(3, "cfi", 3, 1),
            int(4, "id", 4, 12),
            of(5, "type", 16, 16, Datatype::EtherType, Kind::EtherType),
        ],
    },
    Header {
        number: 17,
        word: "ether",
        base: PayloadBase::LinkLayer,
        start: 0,
        fields: &[
            of(1, "daddr", 0, 48, Datatype::EtherAddr, Kind::Ether),
            of(2, "saddr", 48, 48, Datatype::EtherAddr, Kind::Ether),
            of(3, "type", 96, 16, Datatype::EtherType, Kind::EtherType),
        ],
    },
];

const fn transport(number: u32, word: &'static str, fields: &'static [Part]) -> Header {
    Header { number, word, base: PayloadBase::Transport, start: 0, fields }
}

const fn network(number: u32, word: &'static str, fields: &'static [Part]) -> Header {
    Header { number, word, base: PayloadBase::Network, start: 0, fields }
}

const fn ipv6(kind: u8, number: u32, word: &'static str, fields: &'static [Part]) -> Extension {
    Extension { op: ExthdrOp::Ipv6, kind, number, word, fields }
}

const fn ipv4(kind: u8, word: &'static str, fields: &'static [Part]) -> Extension {
    Extension { op: ExthdrOp::Ipv4Option, kind, number: kind as u32, word, fields }
}

const fn tcp(kind: u8, word: &'static str, fields: &'static [Part]) -> Extension {
    Extension { op: ExthdrOp::TcpOption, kind, number: kind as u32, word, fields }
}

const fn chunk(kind: u8, word: &'static str, fields: &'static [Part]) -> Extension {
    Extension { op: ExthdrOp::SctpChunk, kind, number: kind as u32, word, fields }
}

const HDRLENGTH: Part = int(2, "hdrlength", 8, 8);
const ROUTE: &[Part] = &[int(1, "type", 0, 8), int(2, "length", 8, 8), int(4, "ptr", 16, 8), int(5, "addr", 24, 32)];
const LENGTH: Part = int(1, "length", 8, 8);
const C_TYPE: Part = int(0, "type", 0, 8);
const C_FLAGS: Part = int(1, "flags", 8, 8);
const C_LENGTH: Part = int(2, "length", 16, 16);
const CHUNK: &[Part] = &[C_TYPE, C_FLAGS, C_LENGTH];
const INIT: &[Part] = &[
    C_TYPE,
    C_FLAGS,
    C_LENGTH,
    int(3, "init-tag", 32, 32),
    int(4, "a-rwnd", 64, 32),
    int(5, "num-outbound-streams", 96, 16),
    int(6, "num-inbound-streams", 112, 16),
    int(7, "initial-tsn", 128, 32),
];
const LOWEST: &[Part] = &[C_TYPE, C_FLAGS, C_LENGTH, int(3, "lowest-tsn", 32, 32)];
const SEQNO: &[Part] = &[C_TYPE, C_FLAGS, C_LENGTH, int(3, "seqno", 32, 32)];

/// Every extension header, option and chunk. Of those of one kind the first that has a field at a place names it.
pub(super) const EXTENSIONS: &[Extension] = &[
    ipv6(0, 1, "hbh", &[next(1), HDRLENGTH]),
    ipv6(43, 2, "rt", &[next(1), HDRLENGTH, int(3, "type", 16, 8), int(4, "seg-left", 24, 8)]),
    ipv6(
        43,
        3,
        "rt0",
        &[
            of(2, "addr[1]", 64, 128, Datatype::Ipv6Addr, Kind::Ipv6),
            of(3, "addr[2]", 192, 128, Datatype::Ipv6Addr, Kind::Ipv6),
            of(4, "addr[3]", 320, 128, Datatype::Ipv6Addr, Kind::Ipv6),
        ],
    ),
    ipv6(
        43,
        5,
        "srh",
        &[
            int(1, "last-entry", 32, 8),
            int(2, "flags", 40, 8),
            int(3, "tag", 48, 16),
            of(4, "sid[1]", 64, 128, Datatype::Ipv6Addr, Kind::Ipv6),
            of(5, "sid[2]", 192, 128, Datatype::Ipv6Addr, Kind::Ipv6),
            of(6, "sid[3]", 320, 128, Datatype::Ipv6Addr, Kind::Ipv6),
        ],
    ),
    ipv6(
        44,
        6,
        "frag",
        &[
            next(1),
            int(2, "reserved", 8, 8),
            int(3, "frag-off", 16, 13),
            int(4, "reserved2", 29, 2),
            int(5, "more-fragments", 31, 1),
            int(6, "id", 32, 32),
        ],
    ),
    ipv6(60, 7, "dst", &[next(1), HDRLENGTH]),
    ipv6(
        135,
        8,
        "mh",
        &[
            next(1),
            HDRLENGTH,
            of(3, "type", 16, 8, Datatype::MhType, Kind::Number),
            int(4, "reserved", 24, 8),
            int(5, "checksum", 32, 16),
        ],
    ),
    ipv4(7, "ip option rr", ROUTE),
    ipv4(131, "ip option lsrr", ROUTE),
    ipv4(137, "ip option ssrr", ROUTE),
    ipv4(148, "ip option ra", &[int(1, "type", 0, 8), int(2, "length", 8, 8), int(3, "value", 16, 16)]),
    tcp(2, "tcp option maxseg", &[LENGTH, int(2, "size", 16, 16)]),
    tcp(3, "tcp option window", &[LENGTH, int(2, "count", 16, 8)]),
    tcp(4, "tcp option sack-perm", &[LENGTH]),
    tcp(5, "tcp option sack", &[LENGTH, int(2, "left", 16, 32), int(3, "right", 48, 32)]),
    tcp(5, "tcp option sack1", &[int(4, "left", 80, 32), int(5, "right", 112, 32)]),
    tcp(5, "tcp option sack2", &[int(6, "left", 144, 32), int(7, "right", 176, 32)]),
    tcp(5, "tcp option sack3", &[int(8, "left", 208, 32), int(9, "right", 240, 32)]),
    tcp(8, "tcp option timestamp", &[LENGTH, int(2, "tsval", 16, 32), int(3, "tsecr", 48, 32)]),
    tcp(19, "tcp option md5sig", &[LENGTH]),
    tcp(30, "tcp option mptcp", &[LENGTH, int(2, "subtype", 16, 4)]),
    tcp(34, "tcp option fastopen", &[LENGTH]),
    chunk(
        0,
        "sctp chunk data",
        &[
            C_TYPE,
            C_FLAGS,
            C_LENGTH,
            int(3, "tsn", 32, 32),
            int(4, "stream", 64, 16),
            int(5, "ssn", 80, 16),
            int(6, "ppid", 96, 32),
        ],
    ),
    chunk(1, "sctp chunk init", INIT),
    chunk(2, "sctp chunk init-ack", INIT),
    chunk(
        3,
        "sctp chunk sack",
        &[
            C_TYPE,
            C_FLAGS,
            C_LENGTH,
            int(3, "cum-tsn-ack", 32, 32),
            int(4, "a-rwnd", 64, 32),
            int(5, "num-gap-ack-blocks", 96, 16),
            int(6, "num-dup-tsns", 112, 16),
        ],
    ),
    chunk(4, "sctp chunk heartbeat", CHUNK),
    chunk(5, "sctp chunk heartbeat-ack", CHUNK),
    chunk(6, "sctp chunk abort", CHUNK),
    chunk(7, "sctp chunk shutdown", &[C_TYPE, C_FLAGS, C_LENGTH, int(3, "cum-tsn-ack", 32, 32)]),
    chunk(8, "sctp chunk shutdown-ack", CHUNK),
    chunk(9, "sctp chunk error", CHUNK),
    chunk(10, "sctp chunk cookie-echo", CHUNK),
    chunk(11, "sctp chunk cookie-ack", CHUNK),
    chunk(12, "sctp chunk ecne", LOWEST),
    chunk(13, "sctp chunk cwr", LOWEST),
    chunk(14, "sctp chunk shutdown-complete", CHUNK),
    chunk(0x80, "sctp chunk asconf-ack", SEQNO),
    chunk(0xc0, "sctp chunk forward-tsn", &[C_TYPE, C_FLAGS, C_LENGTH, int(3, "new-cum-tsn", 32, 32)]),
    chunk(0xc1, "sctp chunk asconf", SEQNO),
];

/// How nft(8) asks whether there is such a header, option or chunk.
pub(super) fn presence(op: ExthdrOp, kind: u8) -> Option<String> {
    match op {
        ExthdrOp::TcpOption => Some(format!("tcp option {kind}")),
        ExthdrOp::DccpOption => None,
        _ => {
            let extension = EXTENSIONS.iter().find(|extension| (extension.op, extension.kind) == (op, kind))?;
            let word = if op == ExthdrOp::Ipv6 { "exthdr " } else { "" };
            Some(format!("{word}{}", extension.word))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_places_are_of_one_field_each() {
        for fields in
            HEADERS.iter().map(|header| header.fields).chain(EXTENSIONS.iter().map(|extension| extension.fields))
        {
            for (at, field) in fields.iter().enumerate() {
                assert!(field.bits > 0);
                assert!(fields[at + 1..].iter().all(|other| other.number != field.number), "{}", field.name);
            }
        }
        assert!(HEADERS.iter().enumerate().all(|(at, header)| header.number as usize == at + 1));
    }

    #[test]
    fn what_has_no_name_is_not_asked_for() {
        assert_eq!(presence(ExthdrOp::Ipv6, 44).as_deref(), Some("exthdr frag"));
        assert_eq!(presence(ExthdrOp::SctpChunk, 1).as_deref(), Some("sctp chunk init"));
        assert_eq!(presence(ExthdrOp::Ipv6, 99), None);
        assert_eq!(presence(ExthdrOp::DccpOption, 1), None);
    }
}
