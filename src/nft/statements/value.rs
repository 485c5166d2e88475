//! Values that fields have.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::BitOr;

use super::operand::{Operand, Span, Test};
use crate::nft::{Data, Datatype, InterfaceName};

/// Values are of the types here: bytes of another length than a field has would be held against what is not in it.
mod sealed {
    pub trait Sealed {}
}
use sealed::Sealed;

/// A type of values that a field of a packet can have.
#[diagnostic::on_unimplemented(message = "`{Self}` is not a value of a packet's field")]
pub trait Value: Clone + Sealed {
    /// nft(8)'s type.
    const DATATYPE: Datatype;
    /// Whether the kernel keeps it in the machine's byte order, not in that of the network.
    const MACHINE: bool = false;

    /// Its bytes in network byte order, [`Datatype::size`] of them.
    fn to_bytes(&self) -> Vec<u8>;

    /// Its bytes as they stand in a register.
    fn to_data(&self) -> Data {
        registered(self.to_bytes(), Self::MACHINE)
    }
}

/// Bytes in network byte order as they stand in a register.
pub(super) fn registered(mut bytes: Vec<u8>, machine: bool) -> Data {
    if machine && cfg!(target_endian = "little") {
        bytes.reverse();
    }
    // No value is longer than an interface name.
    Data::new(&bytes).unwrap_or_default()
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident($inner:ty) = $datatype:ident $(, machine $machine:literal)?;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }

        impl Operand<$name> for $inner {
            fn test(self) -> Test<$name> {
                Test::is($name(self))
            }
        }

        impl From<$inner> for Span<$name> {
            fn from(value: $inner) -> Self {
                $name(value).into()
            }
        }

        impl Sealed for $name {}
        impl Value for $name {
            const DATATYPE: Datatype = Datatype::$datatype;
            $(const MACHINE: bool = $machine;)?
            fn to_bytes(&self) -> Vec<u8> {
                self.0.to_be_bytes().to_vec()
            }
        }
    )*};
}

numbers! {
    /// A port.
    Port(u16) = InetService;
    /// A transport protocol.
    Protocol(u8) = InetProto;
    /// An EtherType.
    EtherType(u16) = EtherType;
    /// An ARP operation.
    ArpOperation(u16) = ArpOp;
    /// An ICMP type.
    IcmpType(u8) = IcmpType;
    /// An ICMPv6 type.
    Icmpv6Type(u8) = Icmpv6Type;
    /// An ICMP code.
    IcmpCode(u8) = IcmpCode;
    /// An ICMPv6 code.
    Icmpv6Code(u8) = Icmpv6Code;
    /// A class of service, of six bits.
    Dscp(u8) = Dscp;
    /// IPv4 or IPv6.
    NfProto(u8) = NfProto;
    /// A day of the week, from Sunday, 0, on.
    Day(u8) = Day;
    /// A time of the day in seconds, by UTC.
    Hour(u32) = Hour, machine true;
    /// What an interface sends: `ARPHRD_ETHER` is 1.
    IfaceType(u16) = IfaceType, machine true;
    /// A packet's or flow's mark.
    Mark(u32) = Mark, machine true;
    /// Index of an interface.
    Index(u32) = IfaceIndex, machine true;
    /// Group of an interface.
    Group(u32) = DevGroup, machine true;
    /// A user.
    Uid(u32) = Uid, machine true;
    /// A group of users.
    Gid(u32) = Gid, machine true;
    /// Class of a queueing discipline: major number in the upper half.
    Class(u32) = ClassId, machine true;
    /// Type of an address in the routing tables.
    AddressType(u32) = FibAddrType, machine true;
    /// Whom a frame is for.
    PacketType(u8) = PktType;
    /// Direction of a flow.
    Direction(u8) = CtDir;
}

/// Numbers of a field without a type of its own.
macro_rules! integers {
    ($($(#[$doc:meta])* $name:ident($inner:ty), $size:literal $(, machine $machine:literal)?;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }

        impl Operand<$name> for $inner {
            fn test(self) -> Test<$name> {
                Test::is($name(self))
            }
        }

        impl From<$inner> for Span<$name> {
            fn from(value: $inner) -> Self {
                $name(value).into()
            }
        }

        impl Sealed for $name {}
        impl Value for $name {
            const DATATYPE: Datatype = Datatype::Other { number: 4, size: $size };
            $(const MACHINE: bool = $machine;)?
            fn to_bytes(&self) -> Vec<u8> {
                self.0.to_be_bytes().to_vec()
            }
        }
    )*};
}

integers! {
    /// A number of one byte in a header: a hop limit.
    Number8(u8), 1;
    /// A number of two bytes in a header: a length.
    Number16(u16), 2;
    /// A number of four bytes in a header.
    Number32(u32), 4;
    /// A number of two bytes that the kernel keeps: a zone.
    Machine16(u16), 2, machine true;
    /// A number of four bytes that the kernel keeps: a packet's length, a processor.
    Machine32(u32), 4, machine true;
    /// A number of eight bytes that the kernel keeps: bytes of a flow.
    Machine64(u64), 8, machine true;
}

macro_rules! named {
    ($name:ident: $($(#[$doc:meta])* $constant:ident = $value:literal;)*) => {
        impl $name {
            $($(#[$doc])* pub const $constant: $name = $name($value);)*
        }
    };
}

named! { Protocol:
    /// ICMP.
    ICMP = 1;
    /// TCP.
    TCP = 6;
    /// UDP.
    UDP = 17;
    /// ESP.
    ESP = 50;
    /// ICMPv6.
    ICMPV6 = 58;
    /// SCTP.
    SCTP = 132;
}
named! { EtherType:
    /// IPv4.
    IP = 0x0800;
    /// ARP.
    ARP = 0x0806;
    /// IPv6.
    IP6 = 0x86dd;
    /// IEEE 802.1Q.
    VLAN = 0x8100;
}
named! { ArpOperation:
    /// Who has it?
    REQUEST = 1;
    /// I have.
    REPLY = 2;
}
named! { IcmpType:
    /// Answer to an echo request.
    ECHO_REPLY = 0;
    /// The packet could not be delivered.
    DESTINATION_UNREACHABLE = 3;
    /// Echo request.
    ECHO_REQUEST = 8;
    /// The packet went through too many hops.
    TIME_EXCEEDED = 11;
    /// The header is wrong.
    PARAMETER_PROBLEM = 12;
}
named! { Icmpv6Type:
    /// The packet could not be delivered.
    DESTINATION_UNREACHABLE = 1;
    /// The packet is larger than the link takes.
    PACKET_TOO_BIG = 2;
    /// The packet went through too many hops.
    TIME_EXCEEDED = 3;
    /// The header is wrong.
    PARAMETER_PROBLEM = 4;
    /// Echo request.
    ECHO_REQUEST = 128;
    /// Answer to an echo request.
    ECHO_REPLY = 129;
    /// Which routers are there?
    ND_ROUTER_SOLICIT = 133;
    /// A router is here.
    ND_ROUTER_ADVERT = 134;
    /// Who has that address?
    ND_NEIGHBOR_SOLICIT = 135;
    /// I have.
    ND_NEIGHBOR_ADVERT = 136;
}
named! { Dscp:
    /// Best effort.
    CS0 = 0;
    /// Lower effort.
    CS1 = 8;
    /// Operation and management.
    CS2 = 16;
    /// Broadcast video.
    CS3 = 24;
    /// Interactive video, in real time.
    CS4 = 32;
    /// Signalling.
    CS5 = 40;
    /// Control of the network.
    CS6 = 48;
    /// Reserved.
    CS7 = 56;
    /// Bulk data.
    AF11 = 10;
    /// Low latency.
    AF21 = 18;
    /// Streams.
    AF31 = 26;
    /// Conferences.
    AF41 = 34;
    /// Telephony.
    EF = 46;
}
named! { NfProto:
    /// IPv4.
    IPV4 = 2;
    /// IPv6.
    IPV6 = 10;
}
named! { AddressType:
    /// One neighbour's.
    UNICAST = 1;
    /// This host's.
    LOCAL = 2;
    /// All neighbours'.
    BROADCAST = 3;
    /// A group's.
    MULTICAST = 5;
}
named! { PacketType:
    /// For this host.
    HOST = 0;
    /// For all.
    BROADCAST = 1;
    /// For a group.
    MULTICAST = 2;
    /// For another host.
    OTHER = 3;
}
named! { Direction:
    /// From the opener of the flow.
    ORIGINAL = 0;
    /// Towards it.
    REPLY = 1;
}

impl Sealed for Ipv4Addr {}
impl Value for Ipv4Addr {
    const DATATYPE: Datatype = Datatype::Ipv4Addr;
    fn to_bytes(&self) -> Vec<u8> {
        self.octets().to_vec()
    }
}

impl Sealed for Ipv6Addr {}
impl Value for Ipv6Addr {
    const DATATYPE: Datatype = Datatype::Ipv6Addr;
    fn to_bytes(&self) -> Vec<u8> {
        self.octets().to_vec()
    }
}

impl Sealed for bool {}
impl Value for bool {
    const DATATYPE: Datatype = Datatype::Boolean;
    fn to_bytes(&self) -> Vec<u8> {
        vec![u8::from(*self)]
    }
}

impl From<Machine32> for Mark {
    fn from(number: Machine32) -> Self {
        Self(number.0)
    }
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EtherAddr(pub [u8; 6]);

impl Sealed for EtherAddr {}
impl Value for EtherAddr {
    const DATATYPE: Datatype = Datatype::EtherAddr;
    fn to_bytes(&self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl Sealed for InterfaceName {}
impl Value for InterfaceName {
    const DATATYPE: Datatype = Datatype::IfName;
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.as_str().as_bytes().to_vec();
        bytes.resize(16, 0);
        bytes
    }
}

macro_rules! bits {
    ($($(#[$doc:meta])* $name:ident($inner:ty) = $datatype:ident { $($(#[$item:meta])* $constant:ident = $value:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            $($(#[$item])* pub const $constant: $name = $name($value);)*
        }

        impl BitOr for $name {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl Sealed for $name {}
        impl Value for $name {
            const DATATYPE: Datatype = Datatype::$datatype;
            const MACHINE: bool = true;
            fn to_bytes(&self) -> Vec<u8> {
                self.0.to_be_bytes().to_vec()
            }
        }
    )*};
}

bits! {
    /// States of a flow.
    CtStates(u32) = CtState {
        /// No flow that conntrack can follow.
        INVALID = 1,
        /// A flow that has seen packets both ways.
        ESTABLISHED = 2,
        /// A flow that belongs to another, or an ICMP error about one.
        RELATED = 4,
        /// A flow that starts.
        NEW = 8,
        /// A packet that is not followed.
        UNTRACKED = 64,
    }
    /// What became of a flow.
    CtStatus(u32) = CtStatus {
        /// It was expected.
        EXPECTED = 1,
        /// Packets went both ways.
        SEEN_REPLY = 2,
        /// It is not given up early.
        ASSURED = 4,
        /// It is known past its first packet.
        CONFIRMED = 8,
        /// Its source is rewritten.
        SNAT = 16,
        /// Its destination is rewritten.
        DNAT = 32,
    }
    /// Flags of a TCP header.
    TcpFlags(u8) = TcpFlag {
        /// No more data comes.
        FIN = 1,
        /// A connection starts.
        SYN = 2,
        /// A connection is cut off.
        RST = 4,
        /// Data is handed over at once.
        PSH = 8,
        /// Data is acknowledged.
        ACK = 16,
        /// There is urgent data.
        URG = 32,
    }
}
