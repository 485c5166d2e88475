//! Sets and their elements.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Comment, Data, SetName, TableId};

/// Type of a field of a set's key, numbered as nft(8) does. The kernel keeps the number and does not look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Datatype {
    /// IPv4 address.
    Ipv4Addr,
    /// IPv6 address.
    Ipv6Addr,
    /// Ethernet address.
    EtherAddr,
    /// Transport protocol.
    InetProto,
    /// Port.
    InetService,
    /// Packet mark.
    Mark,
    /// Interface index.
    IfaceIndex,
}

impl Datatype {
    /// Every type, in the order of nft(8)'s numbers.
    pub const ALL: [Datatype; 7] = [
        Datatype::Ipv4Addr,
        Datatype::Ipv6Addr,
        Datatype::EtherAddr,
        Datatype::InetProto,
        Datatype::InetService,
        Datatype::Mark,
        Datatype::IfaceIndex,
    ];

    /// nft(8)'s number.
    pub const fn number(self) -> u32 {
        match self {
            Datatype::Ipv4Addr => 7,
            Datatype::Ipv6Addr => 8,
            Datatype::EtherAddr => 9,
            Datatype::InetProto => 12,
            Datatype::InetService => 13,
            Datatype::Mark => 19,
            Datatype::IfaceIndex => 20,
        }
    }

    /// Length of a value in bytes, before padding.
    pub const fn size(self) -> usize {
        match self {
            Datatype::Ipv4Addr | Datatype::Mark | Datatype::IfaceIndex => 4,
            Datatype::Ipv6Addr => 16,
            Datatype::EtherAddr => 6,
            Datatype::InetProto => 1,
            Datatype::InetService => 2,
        }
    }

    /// nft(8)'s name.
    pub const fn name(self) -> &'static str {
        match self {
            Datatype::Ipv4Addr => "ipv4_addr",
            Datatype::Ipv6Addr => "ipv6_addr",
            Datatype::EtherAddr => "ether_addr",
            Datatype::InetProto => "inet_proto",
            Datatype::InetService => "inet_service",
            Datatype::Mark => "mark",
            Datatype::IfaceIndex => "iface_index",
        }
    }
}

/// Type of a set's key: one field, or a concatenation of up to five.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyType(pub Vec<Datatype>);

impl KeyType {
    /// Length in bytes: of a single field as it is, of a concatenation with each field padded to four.
    pub fn len(&self) -> usize {
        match self.0.as_slice() {
            [single] => single.size(),
            fields => fields.iter().map(|field| field.size().next_multiple_of(4)).sum(),
        }
    }

    /// Whether it has no field at all; the kernel refuses such a set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// nft(8)'s number: six bits a field, the last field lowest.
    pub fn number(&self) -> u32 {
        self.0.iter().fold(0, |number, field| number << 6 | field.number())
    }

    /// The type that a number stands for, if nft(8)'s numbering and this crate know every field.
    pub fn from_number(number: u32) -> Option<KeyType> {
        let mut fields = Vec::new();
        let mut rest = number;
        while rest != 0 {
            fields.push(*Datatype::ALL.iter().find(|datatype| datatype.number() == rest & 0x3f)?);
            rest >>= 6;
        }
        fields.reverse();
        if fields.is_empty() { None } else { Some(KeyType(fields)) }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, field) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" . ")?;
            }
            f.write_str(field.name())?;
        }
        Ok(())
    }
}

/// Flags of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SetFlags {
    /// Elements are fixed once a rule refers to it.
    #[doc(alias = "NFT_SET_CONSTANT")]
    pub constant: bool,
    /// Elements are ranges.
    #[doc(alias = "NFT_SET_INTERVAL")]
    pub interval: bool,
    /// Elements may run out.
    #[doc(alias = "NFT_SET_TIMEOUT")]
    pub timeout: bool,
}

/// A named set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Set {
    /// Table it is in.
    pub table: TableId,
    /// Name.
    pub name: SetName,
    /// Type of its key.
    pub key: KeyType,
    /// Flags.
    #[serde(default)]
    pub flags: SetFlags,
    /// Time an element lives unless it says otherwise. Milliseconds in the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// The most elements it takes, a hard cap that also sizes the hash table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
    /// Comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<Comment>,
}

/// An element of a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Element {
    /// Key, or first key of a range in a concatenated interval set.
    pub key: Data,
    /// In a plain interval set: the key is the first one past a range.
    #[doc(alias = "NFT_SET_ELEM_INTERVAL_END")]
    #[serde(default)]
    pub interval_end: bool,
    /// How long it lives, counted from the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<Comment>,
}

impl Element {
    /// An element that is just a key.
    pub fn new(key: Data) -> Self {
        Self { key, interval_end: false, timeout: None, comment: None }
    }
}
