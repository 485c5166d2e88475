//! The SCTP common header.

use super::{be16, be32};

/// An SCTP common header. What lies behind the ports may have been cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sctp {
    /// Port of the sender.
    pub source: u16,
    /// Port of the receiver.
    pub destination: u16,
    /// What the receiver knows the association by; 0 in the first packet.
    pub verification_tag: Option<u32>,
}

impl Sctp {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self { source: be16(bytes, 0)?, destination: be16(bytes, 2)?, verification_tag: be32(bytes, 4) })
    }
}
