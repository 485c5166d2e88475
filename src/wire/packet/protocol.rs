//! Protocol numbers.

use std::fmt;

/// What an IP header carries, by its number.
///
/// Shown by its name, where it has one that people know, else by its number.
///
/// # References
///
/// IANA, Assigned Internet Protocol Numbers; `linux/in.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP.
    #[doc(alias = "IPPROTO_ICMP")]
    pub const ICMP: Self = Self(1);
    /// TCP.
    #[doc(alias = "IPPROTO_TCP")]
    pub const TCP: Self = Self(6);
    /// UDP.
    #[doc(alias = "IPPROTO_UDP")]
    pub const UDP: Self = Self(17);
    /// ICMPv6.
    #[doc(alias = "IPPROTO_ICMPV6")]
    pub const ICMPV6: Self = Self(58);
    /// SCTP.
    #[doc(alias = "IPPROTO_SCTP")]
    pub const SCTP: Self = Self(132);
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            1 => "icmp",
            2 => "igmp",
            6 => "tcp",
            17 => "udp",
            33 => "dccp",
            47 => "gre",
            50 => "esp",
            51 => "ah",
            58 => "icmpv6",
            132 => "sctp",
            136 => "udplite",
            number => return number.fmt(f),
        };
        f.write_str(name)
    }
}
