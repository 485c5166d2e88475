//! Expressions: the instructions of the nf_tables virtual machine, as the kernel names them.

use serde::{Deserialize, Serialize};

use super::{ChainName, Data, SetName};

/// A register, counted in units of four bytes from the first data register.
///
/// The kernel has two spellings for one file of 64 bytes: `NFT_REG_1` to `NFT_REG_4` of 16 bytes each, and
/// `NFT_REG32_00` to `NFT_REG32_15` of 4 bytes each. It dumps the first spelling where a register starts at a multiple of 16.
/// This type is the place, not the spelling, so that both compare equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Register(u8);

impl TryFrom<u8> for Register {
    type Error = String;
    fn try_from(slot: u8) -> Result<Self, String> {
        Register::slot(slot).ok_or_else(|| format!("found register {slot}, expected a register below 16"))
    }
}

impl From<Register> for u8 {
    fn from(register: Register) -> u8 {
        register.0
    }
}

impl Register {
    /// The first register, `NFT_REG_1` and `NFT_REG32_00` alike.
    #[doc(alias = "NFT_REG_1")]
    pub const FIRST: Register = Register(0);

    /// The register that starts `slot` times four bytes from the first. `None` from 16 on: there are sixteen.
    #[doc(alias = "NFT_REG32_00")]
    pub const fn slot(slot: u8) -> Option<Register> {
        if slot < 16 { Some(Register(slot)) } else { None }
    }

    /// Where it starts, in units of four bytes.
    pub const fn index(self) -> u8 {
        self.0
    }

    /// The number that stands for it in netlink attributes.
    pub const fn to_wire(self) -> u32 {
        if self.0.is_multiple_of(4) { self.0 as u32 / 4 + 1 } else { self.0 as u32 + 8 }
    }

    /// The register a netlink attribute's number stands for. `None` for 0 (the verdict register) and for what is no register.
    pub const fn from_wire(number: u32) -> Option<Register> {
        match number {
            1..=4 => Some(Register((number as u8 - 1) * 4)),
            8..=23 => Some(Register(number as u8 - 8)),
            _ => None,
        }
    }
}

/// Where the offset of a payload match counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PayloadBase {
    /// The link-layer header.
    #[doc(alias = "NFT_PAYLOAD_LL_HEADER")]
    LinkLayer,
    /// The IPv4 or IPv6 header.
    #[doc(alias = "NFT_PAYLOAD_NETWORK_HEADER")]
    Network,
    /// The TCP, UDP, ICMP… header.
    #[doc(alias = "NFT_PAYLOAD_TRANSPORT_HEADER")]
    Transport,
}

/// What a meta expression loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetaKey {
    /// EtherType, two bytes, network order. nft(8): `meta protocol`.
    #[doc(alias = "NFT_META_PROTOCOL")]
    Protocol,
    /// Address family of the packet, one byte. nft(8): `meta nfproto`.
    #[doc(alias = "NFT_META_NFPROTO")]
    NfProto,
    /// Transport protocol, one byte. nft(8): `meta l4proto`.
    #[doc(alias = "NFT_META_L4PROTO")]
    L4Proto,
    /// Index of the interface it came in by. nft(8): `iif`.
    #[doc(alias = "NFT_META_IIF")]
    Iif,
    /// Index of the interface it leaves by. nft(8): `oif`.
    #[doc(alias = "NFT_META_OIF")]
    Oif,
    /// Name of the interface it came in by, 16 bytes. nft(8): `iifname`.
    #[doc(alias = "NFT_META_IIFNAME")]
    IifName,
    /// Name of the interface it leaves by, 16 bytes. nft(8): `oifname`.
    #[doc(alias = "NFT_META_OIFNAME")]
    OifName,
    /// Packet mark. nft(8): `meta mark`.
    #[doc(alias = "NFT_META_MARK")]
    Mark,
    /// Uid of the opener of the socket. nft(8): `meta skuid`.
    #[doc(alias = "NFT_META_SKUID")]
    SkUid,
}

/// What a conntrack expression loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CtKey {
    /// State bits, 32 bits in the machine's order. nft(8): `ct state`.
    #[doc(alias = "NFT_CT_STATE")]
    State,
    /// Status bits. nft(8): `ct status`.
    #[doc(alias = "NFT_CT_STATUS")]
    Status,
}

/// Direction of a flow, for the conntrack keys that need one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CtDirection {
    /// From the opener of the flow.
    Original,
    /// Towards it.
    Reply,
}

/// Comparison of a register with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CmpOp {
    /// Equal.
    Eq,
    /// Not equal.
    Neq,
    /// Less than, byte by byte from the first.
    Lt,
    /// Less than or equal.
    Lte,
    /// Greater than.
    Gt,
    /// Greater than or equal.
    Gte,
}

/// What a bitwise expression does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BitwiseOp {
    /// `(register & mask) ^ xor`.
    MaskXor {
        /// Bits to keep.
        mask: Data,
        /// Bits to turn over afterwards.
        xor: Data,
    },
}

/// What becomes of a packet, or where evaluation goes on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The hook is passed.
    #[doc(alias = "NF_ACCEPT")]
    Accept,
    /// The packet is gone.
    #[doc(alias = "NF_DROP")]
    Drop,
    /// Go on behind the rule that jumped here, or with the policy.
    #[doc(alias = "NFT_RETURN")]
    Return,
    /// Go on with the next rule.
    #[doc(alias = "NFT_CONTINUE")]
    Continue,
    /// Evaluate that chain, then come back.
    #[doc(alias = "NFT_JUMP")]
    Jump(ChainName),
    /// Evaluate that chain and do not come back.
    #[doc(alias = "NFT_GOTO")]
    Goto(ChainName),
}

/// Flags of a log statement that goes to the kernel log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogFlags(pub u32);

/// A log statement that hands packets to an nflog group.
///
/// # References
///
/// nft(8) `log group`; `linux/netfilter/nf_tables.h`: `enum nft_log_attributes`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Log {
    /// The nflog group, of the network namespace that the rule is in.
    pub group: u16,
    /// Text handed over with each packet, at most 127 bytes.
    pub prefix: Option<String>,
    /// How many bytes of the packet are handed over; all when absent.
    pub snaplen: Option<u32>,
    /// How many packets the kernel collects before it wakes the reader.
    pub queue_threshold: Option<u16>,
}

impl Log {
    /// The longest prefix, in bytes, without the final NUL.
    #[doc(alias = "NF_LOG_PREFIXLEN")]
    pub const MAX_PREFIX: usize = 127;
}

/// How a packet is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reject {
    /// By a TCP segment with RST. The packet must be TCP. nft(8): `reject with tcp reset`.
    #[doc(alias = "NFT_REJECT_TCP_RST")]
    TcpReset,
    /// By an ICMP or ICMPv6 error, as the packet's family asks. Tables of family inet, bridge and netdev. nft(8): `reject with icmpx`.
    #[doc(alias = "NFT_REJECT_ICMPX_UNREACH")]
    Icmpx(RejectCode),
    /// By an ICMP (family ip) or ICMPv6 (family ip6) destination-unreachable error with this code.
    #[doc(alias = "NFT_REJECT_ICMP_UNREACH")]
    Icmp(u8),
}

/// Code of a family-neutral ICMP refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RejectCode {
    /// No route to the destination.
    #[doc(alias = "NFT_REJECT_ICMPX_NO_ROUTE")]
    NoRoute,
    /// Nobody listens on that port.
    #[doc(alias = "NFT_REJECT_ICMPX_PORT_UNREACH")]
    PortUnreachable,
    /// No such host.
    #[doc(alias = "NFT_REJECT_ICMPX_HOST_UNREACH")]
    HostUnreachable,
    /// Forbidden by policy.
    #[doc(alias = "NFT_REJECT_ICMPX_ADMIN_PROHIBITED")]
    AdminProhibited,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Expr {
    /// Loads bytes of the packet.
    Payload {
        /// Header that the offset counts from.
        base: PayloadBase,
        /// First byte.
        offset: u32,
        /// How many bytes.
        len: u32,
        /// Where they go.
        dreg: Register,
    },
    /// Loads what the kernel knows about the packet.
    Meta {
        /// What to load.
        key: MetaKey,
        /// Where it goes.
        dreg: Register,
    },
    /// Loads what conntrack knows about the flow.
    Ct {
        /// What to load.
        key: CtKey,
        /// Direction, for the keys that need one.
        direction: Option<CtDirection>,
        /// Where it goes.
        dreg: Register,
    },
    /// Ends the rule unless the comparison holds.
    Cmp {
        /// Comparison.
        op: CmpOp,
        /// Register compared.
        sreg: Register,
        /// Value it is compared with.
        data: Data,
    },
    /// Ends the rule unless the register is within (or, negated, outside) two bounds.
    Range {
        /// Whether outside is asked for.
        negated: bool,
        /// Register compared.
        sreg: Register,
        /// Lower bound, inclusive.
        from: Data,
        /// Upper bound, inclusive.
        to: Data,
    },
    /// Computes on a register.
    Bitwise {
        /// Where the value is.
        sreg: Register,
        /// Where the result goes.
        dreg: Register,
        /// How many bytes.
        len: u32,
        /// What is done.
        op: BitwiseOp,
    },
    /// Ends the rule unless the set holds (or, negated, lacks) what is in the register.
    Lookup {
        /// The set.
        set: SetName,
        /// Where the key is.
        sreg: Register,
        /// Whether absence is asked for.
        negated: bool,
    },
    /// Puts a constant into a register.
    Immediate {
        /// Where it goes.
        dreg: Register,
        /// The constant.
        data: Data,
    },
    /// Decides. An immediate into the verdict register.
    Verdict(Verdict),
    /// Counts packets and bytes. In a dump the values are those of that moment.
    Counter {
        /// Packets so far.
        packets: u64,
        /// Bytes so far.
        bytes: u64,
    },
    /// Hands the packet to an nflog group.
    Log(Log),
    /// Refuses the packet and tells the sender.
    Reject(Reject),
    /// Rewrites the source to the primary address of the interface that the packet leaves by.
    Masquerade,
    /// Ends the rule when more packets come than that. A token bucket.
    Limit {
        /// Packets …
        rate: u64,
        /// … in so many seconds.
        seconds: u64,
        /// Extra packets at once.
        burst: u32,
        /// Whether the rule goes on only *past* the limit. nft(8): `limit rate over`.
        over: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_register_are_one() {
        for slot in 0..16 {
            let register = Register::slot(slot).unwrap();
            assert_eq!(Register::from_wire(register.to_wire()), Some(register));
            assert_eq!(Register::from_wire(8 + u32::from(slot)), Some(register));
        }
        assert_eq!(Register::from_wire(2), Register::slot(4));
        assert_eq!([0, 5, 7, 24, u32::MAX].map(Register::from_wire), [None; 5]);
    }
}
