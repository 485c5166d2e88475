//! What expressions do: verdicts, logs, refusals, translations of addresses, and what keeps state.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::numbered::numbered;
use super::{Expr, Register};
use crate::nft::{ChainName, Family, SetName};

/// What becomes of a packet, or where evaluation goes on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

impl LogFlags {
    /// nft(8): `flags tcp sequence`.
    #[doc(alias = "NF_LOG_TCPSEQ")]
    pub const TCP_SEQUENCE: LogFlags = LogFlags(1);
    /// nft(8): `flags tcp options`.
    #[doc(alias = "NF_LOG_TCPOPT")]
    pub const TCP_OPTIONS: LogFlags = LogFlags(2);
    /// nft(8): `flags ip options`.
    #[doc(alias = "NF_LOG_IPOPT")]
    pub const IP_OPTIONS: LogFlags = LogFlags(4);
    /// nft(8): `flags skuid`.
    #[doc(alias = "NF_LOG_UID")]
    pub const SKUID: LogFlags = LogFlags(8);
    /// nft(8): `flags ether`.
    #[doc(alias = "NF_LOG_MACDECODE")]
    pub const ETHER: LogFlags = LogFlags(32);
    /// nft(8): `flags all`.
    #[doc(alias = "NF_LOG_MASK")]
    pub const ALL: LogFlags = LogFlags(47);
}

/// A log statement that hands packets to an nflog group.
///
/// # References
///
/// nft(8) `log group`; `linux/netfilter/nf_tables.h`: `enum nft_log_attributes`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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

numbered! {
    /// How urgent a line of the kernel log is.
    LogLevel {
        /// nft(8): `emerg`.
        Emergency = 0,
        /// nft(8): `alert`.
        Alert = 1,
        /// nft(8): `crit`.
        Critical = 2,
        /// nft(8): `err`.
        Error = 3,
        /// nft(8): `warn`.
        Warning = 4,
        /// nft(8): `notice`.
        Notice = 5,
        /// nft(8): `info`.
        Info = 6,
        /// nft(8): `debug`.
        Debug = 7,
        /// To the audit subsystem instead. nft(8): `audit`.
        #[doc(alias = "NFT_LOGLEVEL_AUDIT")]
        Audit = 8,
    }
}

/// A log statement that writes to the kernel log.
///
/// # References
///
/// nft(8) `log level`; `linux/netfilter/nf_tables.h`: `enum nft_log_attributes`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Syslog {
    /// Text at the start of each line, at most 127 bytes.
    pub prefix: Option<String>,
    /// How urgent; `warn` when absent.
    pub level: Option<LogLevel>,
    /// What else is written.
    #[serde(default)]
    pub flags: LogFlags,
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

numbered! {
    /// Code of a family-neutral ICMP refusal.
    RejectCode {
        /// No route to the destination.
        #[doc(alias = "NFT_REJECT_ICMPX_NO_ROUTE")]
        NoRoute = 0,
        /// Nobody listens on that port.
        #[doc(alias = "NFT_REJECT_ICMPX_PORT_UNREACH")]
        PortUnreachable = 1,
        /// No such host.
        #[doc(alias = "NFT_REJECT_ICMPX_HOST_UNREACH")]
        HostUnreachable = 2,
        /// Forbidden by policy.
        #[doc(alias = "NFT_REJECT_ICMPX_ADMIN_PROHIBITED")]
        AdminProhibited = 3,
    }
}

/// Flags of a translation of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
#[doc(alias = "NF_NAT_RANGE_MASK")]
pub struct NatFlags(pub u32);

impl NatFlags {
    /// Addresses are given. The kernel sets it.
    #[doc(alias = "NF_NAT_RANGE_MAP_IPS")]
    pub const MAP_IPS: NatFlags = NatFlags(1);
    /// Ports are given. The kernel sets it.
    #[doc(alias = "NF_NAT_RANGE_PROTO_SPECIFIED")]
    pub const PROTO_SPECIFIED: NatFlags = NatFlags(2);
    /// nft(8): `random`.
    #[doc(alias = "NF_NAT_RANGE_PROTO_RANDOM")]
    pub const RANDOM: NatFlags = NatFlags(4);
    /// nft(8): `persistent`.
    #[doc(alias = "NF_NAT_RANGE_PERSISTENT")]
    pub const PERSISTENT: NatFlags = NatFlags(8);
    /// nft(8): `fully-random`.
    #[doc(alias = "NF_NAT_RANGE_PROTO_RANDOM_FULLY")]
    pub const FULLY_RANDOM: NatFlags = NatFlags(16);
    /// Prefixes are mapped on each other. nft(8): `snat prefix to`.
    #[doc(alias = "NF_NAT_RANGE_NETMAP")]
    pub const NETMAP: NatFlags = NatFlags(64);

    /// Both.
    pub const fn and(self, other: NatFlags) -> NatFlags {
        NatFlags(self.0 | other.0)
    }

    /// Whether all bits of the other are set.
    pub const fn has(self, other: NatFlags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Registers that hold the first and last value of a range; one register when both are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterRange {
    /// Where the first value is.
    pub min: Register,
    /// Where the last value is.
    pub max: Register,
}

impl From<Register> for RegisterRange {
    fn from(one: Register) -> Self {
        Self { min: one, max: one }
    }
}

/// Ports of a translation that takes its address from the kernel: masquerade and redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatPorts {
    /// Ports to choose from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<RegisterRange>,
    /// Flags.
    pub flags: NatFlags,
}

numbered! {
    /// Which address is translated.
    NatKind {
        /// The source. nft(8): `snat`.
        #[doc(alias = "NFT_NAT_SNAT")]
        Source = 0,
        /// The destination. nft(8): `dnat`.
        #[doc(alias = "NFT_NAT_DNAT")]
        Destination = 1,
    }
}

/// A translation of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nat {
    /// Which address.
    pub kind: NatKind,
    /// Of which family the new address is.
    pub family: Family,
    /// Addresses to choose from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<RegisterRange>,
    /// Ports to choose from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<RegisterRange>,
    /// Flags.
    #[serde(default)]
    pub flags: NatFlags,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Packets, or bytes …
    pub rate: u64,
    /// … in so many seconds.
    pub seconds: u64,
    /// Extra packets or bytes at once.
    pub burst: u32,
    /// Whether the rule goes on only *past* the limit. nft(8): `limit rate over`.
    #[serde(default)]
    pub over: bool,
    /// Whether bytes are counted instead of packets.
    #[serde(default)]
    pub bytes: bool,
}

/// An amount of bytes that is used up once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// How many bytes there are.
    pub bytes: u64,
    /// How many of them were used.
    #[serde(default)]
    pub used: u64,
    /// Whether the rule goes on only once it is used up. nft(8): `quota over`.
    #[serde(default)]
    pub over: bool,
}

/// Parameters of the SYN proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Synproxy {
    /// Largest segment that is announced to clients.
    pub mss: u16,
    /// Window scale that is announced to clients.
    pub wscale: u8,
    /// `NF_SYNPROXY_OPT_…`: 1 mss, 2 wscale, 4 sack-perm, 8 timestamp.
    pub flags: u32,
}

/// Where a packet waits for a program's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum QueueNumber {
    /// One of so many queues from that number on.
    Range {
        /// The first.
        first: u16,
        /// How many.
        total: u16,
    },
    /// The queue whose number is in a register.
    Register(Register),
}

/// Flags of a queue statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct QueueFlags(pub u16);

impl QueueFlags {
    /// Accept when nobody listens. nft(8): `bypass`.
    #[doc(alias = "NFT_QUEUE_FLAG_BYPASS")]
    pub const BYPASS: QueueFlags = QueueFlags(1);
    /// Choose the queue by processor. nft(8): `fanout`.
    #[doc(alias = "NFT_QUEUE_FLAG_CPU_FANOUT")]
    pub const FANOUT: QueueFlags = QueueFlags(2);
}

numbered! {
    /// What is done to a set from the packet path.
    DynsetOp {
        /// Add an element; one that is there keeps its time-out.
        #[doc(alias = "NFT_DYNSET_OP_ADD")]
        Add = 0,
        /// Add an element, or start its time-out anew.
        #[doc(alias = "NFT_DYNSET_OP_UPDATE")]
        Update = 1,
        /// Take an element out. Linux 5.4.
        #[doc(alias = "NFT_DYNSET_OP_DELETE")]
        Delete = 2,
    }
}

/// Changes a set from the packet path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dynset {
    /// The set.
    pub set: SetName,
    /// What is done.
    pub op: DynsetOp,
    /// Where the key is.
    pub key: Register,
    /// Where the value is, for a map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Register>,
    /// How long the element lives. The set's own time-out when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Whether the rule goes on only when it could *not* be done.
    #[serde(default)]
    pub negated: bool,
    /// What each new element gets: counters, limits…
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exprs: Vec<Expr>,
}

/// What an xtables extension of iptables(8) has to say, opaque.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Xt {
    /// Its name.
    pub name: String,
    /// Which layout its parameters have.
    pub revision: u32,
    /// Its parameters: a C structure of the kernel's.
    pub info: crate::nft::Bytes,
}
