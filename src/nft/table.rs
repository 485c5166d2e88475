//! Tables and chains.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ChainName, Comment, Extra, InterfaceName, TableName};

/// Address family of a table: which packets its chains may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    #[doc(alias = "NFPROTO_IPV4")]
    Ip,
    /// IPv6.
    #[doc(alias = "NFPROTO_IPV6")]
    Ip6,
    /// IPv4 and IPv6.
    #[doc(alias = "NFPROTO_INET")]
    Inet,
    /// ARP.
    #[doc(alias = "NFPROTO_ARP")]
    Arp,
    /// Frames that pass a bridge.
    #[doc(alias = "NFPROTO_BRIDGE")]
    Bridge,
    /// Frames that enter or leave one device.
    #[doc(alias = "NFPROTO_NETDEV")]
    Netdev,
}

impl Family {
    /// The number that stands for it in `nfgen_family`.
    pub const fn to_wire(self) -> u8 {
        match self {
            Family::Inet => 1,
            Family::Ip => 2,
            Family::Arp => 3,
            Family::Netdev => 5,
            Family::Bridge => 7,
            Family::Ip6 => 10,
        }
    }

    /// The family a number stands for.
    pub const fn from_wire(number: u8) -> Option<Family> {
        Some(match number {
            1 => Family::Inet,
            2 => Family::Ip,
            3 => Family::Arp,
            5 => Family::Netdev,
            7 => Family::Bridge,
            10 => Family::Ip6,
            _ => return None,
        })
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
            Family::Inet => "inet",
            Family::Arp => "arp",
            Family::Bridge => "bridge",
            Family::Netdev => "netdev",
        })
    }
}

/// What identifies a table: names are unique within a family.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableId {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: TableName,
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

/// Flags of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TableFlags {
    /// Its base chains see no packets.
    #[doc(alias = "NFT_TABLE_F_DORMANT")]
    pub dormant: bool,
    /// It belongs to the netlink socket that made it, vanishes with it, and nobody else may change it. Linux 5.12.
    #[doc(alias = "NFT_TABLE_F_OWNER")]
    pub owner: bool,
    /// With `owner`: it stays, without an owner, when the socket goes. Linux 6.9.
    #[doc(alias = "NFT_TABLE_F_PERSIST")]
    pub persist: bool,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Family and name.
    pub id: TableId,
    /// Flags.
    #[serde(default)]
    pub flags: TableFlags,
    /// Comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<Comment>,
    /// What else it carries.
    #[serde(default, skip_serializing_if = "Extra::is_empty")]
    pub extra: Extra,
}

impl Table {
    /// A table without flags or comment.
    pub fn new(id: TableId) -> Self {
        Self { id, flags: TableFlags::default(), comment: None, extra: Extra::default() }
    }
}

/// What a base chain is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChainType {
    /// To let through or refuse.
    Filter,
    /// To rewrite addresses; sees the first packet of a flow alone.
    Nat,
    /// To choose the route anew after a change.
    Route,
}

/// Where in the kernel's path a base chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// Everything that comes in, before routing.
    #[doc(alias = "NF_INET_PRE_ROUTING")]
    Prerouting,
    /// What is for this host.
    #[doc(alias = "NF_INET_LOCAL_IN")]
    Input,
    /// What passes through.
    #[doc(alias = "NF_INET_FORWARD")]
    Forward,
    /// What this host sends.
    #[doc(alias = "NF_INET_LOCAL_OUT")]
    Output,
    /// Everything that leaves, after routing.
    #[doc(alias = "NF_INET_POST_ROUTING")]
    Postrouting,
    /// What a device receives (families netdev and inet).
    #[doc(alias = "NF_NETDEV_INGRESS")]
    Ingress,
    /// What a device sends (family netdev). Linux 5.16.
    #[doc(alias = "NF_NETDEV_EGRESS")]
    Egress,
}

/// Order among the chains of one hook: lower comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Priority(pub i32);

impl Priority {
    /// Before conntrack and before fragments are put together again.
    #[doc(alias = "NF_IP_PRI_RAW_BEFORE_DEFRAG")]
    pub const RAW_BEFORE_DEFRAG: Priority = Priority(-450);
    /// nft(8): `raw`.
    #[doc(alias = "NF_IP_PRI_RAW")]
    pub const RAW: Priority = Priority(-300);
    /// nft(8): `mangle`.
    #[doc(alias = "NF_IP_PRI_MANGLE")]
    pub const MANGLE: Priority = Priority(-150);
    /// nft(8): `dstnat`.
    #[doc(alias = "NF_IP_PRI_NAT_DST")]
    pub const DSTNAT: Priority = Priority(-100);
    /// nft(8): `filter`.
    #[doc(alias = "NF_IP_PRI_FILTER")]
    pub const FILTER: Priority = Priority(0);
    /// nft(8): `security`.
    #[doc(alias = "NF_IP_PRI_SECURITY")]
    pub const SECURITY: Priority = Priority(50);
    /// nft(8): `srcnat`.
    #[doc(alias = "NF_IP_PRI_NAT_SRC")]
    pub const SRCNAT: Priority = Priority(100);
}

/// What becomes of a packet for which no rule decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChainPolicy {
    /// It passes.
    Accept,
    /// It is gone.
    Drop,
}

/// What makes a chain a base chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseChain {
    /// Type.
    #[serde(rename = "type")]
    pub kind: ChainType,
    /// Hook.
    pub hook: Hook,
    /// Priority.
    pub priority: Priority,
    /// Policy.
    pub policy: ChainPolicy,
    /// Devices, for the hooks that belong to one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<InterfaceName>,
}

/// Flags of a chain, but for the one that says that it has a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChainFlags {
    /// Its rules run in the network card. nft(8): `flags offload`.
    #[doc(alias = "NFT_CHAIN_HW_OFFLOAD")]
    pub offload: bool,
    /// It belongs to the one rule that jumps to it, and goes with it. nft(8): `jump { … }`.
    #[doc(alias = "NFT_CHAIN_BINDING")]
    pub binding: bool,
}

impl ChainFlags {
    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// Table it is in.
    pub table: TableId,
    /// Name.
    pub name: ChainName,
    /// Hook and policy, for a base chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseChain>,
    /// Flags.
    #[serde(default, skip_serializing_if = "ChainFlags::is_empty")]
    pub flags: ChainFlags,
    /// Comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<Comment>,
    /// What else it carries.
    #[serde(default, skip_serializing_if = "Extra::is_empty")]
    pub extra: Extra,
}

impl Chain {
    /// A chain that others jump to.
    pub fn new(table: &TableId, name: &ChainName) -> Self {
        Self {
            table: table.clone(),
            name: name.clone(),
            base: None,
            flags: ChainFlags::default(),
            comment: None,
            extra: Extra::default(),
        }
    }
}
