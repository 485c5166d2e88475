//! Headers of packets, as a filter hands them over: from the IP header on, and often cut after so many bytes.
//!
//! [`decode`] goes as far as there are bytes and says where it had to stop: a field that was cut off is `None`, and
//! [`Packet::cut`] tells that the packet went on. Checksums are not looked at: a packet that is taken on its way out has none yet.
//!
//! # References
//!
//! RFC 791, RFC 8200, RFC 9293, RFC 768, RFC 792, RFC 4443, RFC 9260.

mod icmp;
mod ipv4;
mod ipv6;
mod protocol;
mod sctp;
mod tcp;
mod udp;

use std::net::IpAddr;

pub use icmp::Icmp;
pub use protocol::Protocol;
pub use sctp::Sctp;
pub use tcp::{Tcp, TcpFlags};
pub use udp::Udp;

use crate::wire::netlink::DecodeError;

/// Which header a packet begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Version {
    /// That of an ethertype; `None` for what is not IP.
    #[doc(alias = "ETH_P_IP")]
    pub fn of_ethertype(ethertype: u16) -> Option<Self> {
        match ethertype {
            0x0800 => Some(Self::V4),
            0x86dd => Some(Self::V6),
            _ => None,
        }
    }

    /// That of an address family, as netfilter's messages have it; `None` for what is not IP, or not known to be.
    #[doc(alias = "NFPROTO_IPV4")]
    pub fn of_family(family: u8) -> Option<Self> {
        match family {
            2 => Some(Self::V4),
            10 => Some(Self::V6),
            _ => None,
        }
    }
}

/// The headers of an IP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Packet {
    /// Which IP it is. An IPv6 packet with IPv4-mapped addresses stays IPv6 here.
    pub version: Version,
    /// Who sent it, with an IPv4-mapped address as the IPv4 address that it stands for.
    pub source: IpAddr,
    /// Where it goes, normalised like the source.
    pub destination: IpAddr,
    /// What the IP header carries. Behind IPv6 extension headers, what the last of them carries; where one was cut off, that one.
    pub protocol: Protocol,
    /// How many more routers may pass it on.
    pub hop_limit: u8,
    /// Length of the whole packet in bytes, as its header says; `None` where it is told elsewhere (jumbograms, and what a device will
    /// cut up later).
    pub length: Option<u32>,
    /// Whether there are IPv4 options or IPv6 extension headers.
    pub options: bool,
    /// Which part of a packet this is, when it is not whole.
    pub fragment: Option<Fragment>,
    /// The header behind IP.
    pub transport: Transport,
    /// Whether the packet is longer than the bytes that were there.
    pub cut: bool,
}

impl Packet {
    /// Ports of both ends, source first, when the protocol has them and they were there.
    pub fn ports(&self) -> Option<(u16, u16)> {
        match &self.transport {
            Transport::Tcp(tcp) => Some((tcp.source, tcp.destination)),
            Transport::Udp(udp) => Some((udp.source, udp.destination)),
            Transport::Sctp(sctp) => Some((sctp.source, sctp.destination)),
            _ => None,
        }
    }
}

/// A part of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// Number that all parts share.
    pub identification: u32,
    /// Where it belongs, in bytes.
    pub offset: u16,
    /// Whether there is another one behind it.
    pub more: bool,
}

/// The header behind IP.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// TCP.
    Tcp(Tcp),
    /// UDP.
    Udp(Udp),
    /// SCTP.
    Sctp(Sctp),
    /// ICMP.
    Icmp(Icmp),
    /// ICMPv6.
    Icmpv6(Icmp),
    /// Another protocol, told by [`Packet::protocol`] alone.
    Other,
    /// This is not a packet's first fragment: the header is in that one.
    Elsewhere,
    /// The header, or one before it, was cut off.
    Cut,
}

/// Decodes a packet that begins with an IP header.
///
/// # Errors
///
/// [`DecodeError`] when the fixed IP header is not whole, is of another version, or gives itself a length that can't be.
pub fn decode(version: Version, bytes: &[u8]) -> Result<Packet, DecodeError> {
    match version {
        Version::V4 => ipv4::decode(bytes),
        Version::V6 => ipv6::decode(bytes),
    }
}

/// Decodes what a protocol's number promises.
fn transport(protocol: Protocol, bytes: &[u8]) -> Transport {
    let decoded = match protocol {
        Protocol::TCP => Tcp::decode(bytes).map(Transport::Tcp),
        Protocol::UDP => Udp::decode(bytes).map(Transport::Udp),
        Protocol::SCTP => Sctp::decode(bytes).map(Transport::Sctp),
        Protocol::ICMP => Icmp::decode(bytes).map(Transport::Icmp),
        Protocol::ICMPV6 => Icmp::decode(bytes).map(Transport::Icmpv6),
        _ => Some(Transport::Other),
    };
    decoded.unwrap_or(Transport::Cut)
}

/// `N` bytes from `at` on, if they are there.
fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    chunk(bytes, at).map(u16::from_be_bytes)
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    chunk(bytes, at).map(u32::from_be_bytes)
}

/// The error for a header whose first four bits are another version's.
fn wrong_version(need: &'static str, first: u8) -> DecodeError {
    DecodeError::new("IP version", 0, need, (first >> 4).to_string())
}

#[cfg(test)]
mod tests;
