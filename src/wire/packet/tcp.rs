//! The TCP header.

use std::fmt;

use super::{be16, be32, chunk};

/// A TCP header. What lies behind the ports may have been cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tcp {
    /// Port of the sender.
    pub source: u16,
    /// Port of the receiver.
    pub destination: u16,
    /// Sequence number.
    pub sequence: Option<u32>,
    /// Acknowledgement number; means something when [`TcpFlags::ACK`] is set.
    pub acknowledgement: Option<u32>,
    /// Flags.
    pub flags: Option<TcpFlags>,
}

impl Tcp {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            source: be16(bytes, 0)?,
            destination: be16(bytes, 2)?,
            sequence: be32(bytes, 4),
            acknowledgement: be32(bytes, 8),
            // The ninth flag, AE, is the last bit of the byte before.
            flags: chunk(bytes, 12).map(|[high, low]| TcpFlags(u16::from_be_bytes([high & 1, low]))),
        })
    }
}

/// Flags of a TCP header, shown by their names: `SYN|ACK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u16);

impl TcpFlags {
    /// No more from the sender.
    pub const FIN: Self = Self(0x01);
    /// A connection begins.
    pub const SYN: Self = Self(0x02);
    /// A connection is cut off.
    pub const RST: Self = Self(0x04);
    /// To be handed on at once.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// Congestion was echoed.
    pub const ECE: Self = Self(0x40);
    /// The congestion window was reduced.
    pub const CWR: Self = Self(0x80);
    /// Accurate congestion notification.
    pub const AE: Self = Self(0x100);

    /// Says whether all of `flags` are set.
    pub fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl std::ops::BitOr for TcpFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "AE"];
        let set: Vec<_> = (0..names.len()).filter(|bit| self.0 >> bit & 1 == 1).map(|bit| names[bit]).collect();
        f.write_str(&set.join("|"))
    }
}
