//! The header of ICMP and ICMPv6, which have the same shape and different numbers.

use super::be32;

/// An ICMP or ICMPv6 header. What lies behind the type may have been cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code, which says more about the type.
    pub code: Option<u8>,
    /// The four bytes that mean something else with each type: of an echo, identifier and sequence number.
    pub rest: Option<u32>,
}

impl Icmp {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self { kind: *bytes.first()?, code: bytes.get(1).copied(), rest: be32(bytes, 4) })
    }
}
