//! The UDP header.

use super::be16;

/// A UDP header. What lies behind the ports may have been cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Udp {
    /// Port of the sender.
    pub source: u16,
    /// Port of the receiver.
    pub destination: u16,
    /// Length of header and data in bytes, as the header says.
    pub length: Option<u16>,
}

impl Udp {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self { source: be16(bytes, 0)?, destination: be16(bytes, 2)?, length: be16(bytes, 4) })
    }
}
