//! Stateful objects and flowtables: what has a name in a table and is referred to by rules and maps.

use std::fmt;
use std::time::Duration;

use serde::de::{self, IntoDeserializer, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::expr::numbered::numbered;
use super::{
    Bytes, Comment, Extra, FlowtableName, InterfaceName, Limit, ObjectName, Priority, Quota, Synproxy, TableId,
};

numbered! {
    /// Types of stateful objects.
    KnownObject {
        /// Counts packets and bytes.
        #[doc(alias = "NFT_OBJECT_COUNTER")]
        Counter = 1,
        /// An amount of bytes that is used up.
        #[doc(alias = "NFT_OBJECT_QUOTA")]
        Quota = 2,
        /// Gives a flow a conntrack helper.
        #[doc(alias = "NFT_OBJECT_CT_HELPER")]
        CtHelper = 3,
        /// A token bucket.
        #[doc(alias = "NFT_OBJECT_LIMIT")]
        Limit = 4,
        /// Counts flows.
        #[doc(alias = "NFT_OBJECT_CONNLIMIT")]
        Connlimit = 5,
        /// Gives a packet the metadata of a tunnel.
        #[doc(alias = "NFT_OBJECT_TUNNEL")]
        Tunnel = 6,
        /// Gives a flow time-outs.
        #[doc(alias = "NFT_OBJECT_CT_TIMEOUT")]
        CtTimeout = 7,
        /// Gives a packet a security mark.
        #[doc(alias = "NFT_OBJECT_SECMARK")]
        SecMark = 8,
        /// Makes conntrack expect another flow.
        #[doc(alias = "NFT_OBJECT_CT_EXPECT")]
        CtExpectation = 9,
        /// Answers SYNs for the server.
        #[doc(alias = "NFT_OBJECT_SYNPROXY")]
        Synproxy = 10,
    }
}

/// Type of a stateful object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(untagged)]
pub enum ObjectType {
    /// One that this crate knows.
    Known(KnownObject),
    /// One of a newer kernel.
    Other(u32),
}

impl ObjectType {
    /// The number that stands for it in netlink attributes.
    pub const fn to_wire(self) -> u32 {
        match self {
            ObjectType::Known(known) => known.to_wire(),
            ObjectType::Other(number) => number,
        }
    }

    /// What a number stands for.
    pub const fn from_wire(number: u32) -> ObjectType {
        match KnownObject::from_wire(number) {
            Some(known) => ObjectType::Known(known),
            None => ObjectType::Other(number),
        }
    }
}

impl fmt::Display for ObjectType {
    /// As nft(8) names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ObjectType::Known(known) = self else { return write!(f, "object of type {}", self.to_wire()) };
        f.write_str(match known {
            KnownObject::Counter => "counter",
            KnownObject::Quota => "quota",
            KnownObject::CtHelper => "ct helper",
            KnownObject::Limit => "limit",
            KnownObject::Connlimit => "ct count",
            KnownObject::Tunnel => "tunnel",
            KnownObject::CtTimeout => "ct timeout",
            KnownObject::SecMark => "secmark",
            KnownObject::CtExpectation => "ct expectation",
            KnownObject::Synproxy => "synproxy",
        })
    }
}

impl<'de> Deserialize<'de> for ObjectType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrNumber;

        impl Visitor<'_> for NameOrNumber {
            type Value = ObjectType;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a type of stateful objects: its name, as \"counter\", or a number below 2^32")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<ObjectType, E> {
                KnownObject::deserialize(name.into_deserializer()).map(ObjectType::Known)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<ObjectType, E> {
                let fail = |_| E::invalid_value(Unexpected::Unsigned(number), &self);
                u32::try_from(number).map(ObjectType::Other).map_err(fail)
            }
        }

        deserializer.deserialize_any(NameOrNumber)
    }
}

impl From<KnownObject> for ObjectType {
    fn from(known: KnownObject) -> Self {
        ObjectType::Known(known)
    }
}

/// Gives a flow a conntrack helper.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CtHelper {
    /// Name of the kernel's helper, as `ftp`.
    pub helper: String,
    /// EtherType of the flow's network protocol; either IP when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l3proto: Option<u16>,
    /// Transport protocol.
    pub l4proto: u8,
}

/// Gives a flow time-outs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CtTimeout {
    /// Address family or EtherType, as the kernel has it.
    pub l3proto: u16,
    /// Transport protocol.
    pub l4proto: u8,
    /// Seconds for each state, by the state's number in the kernel.
    #[serde(default)]
    pub seconds: Vec<(u16, u32)>,
}

/// Makes conntrack expect another flow.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CtExpectation {
    /// Network protocol, as the kernel has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l3proto: Option<u16>,
    /// Transport protocol.
    pub l4proto: u8,
    /// The port that it goes to.
    pub dport: u16,
    /// How long it is expected. Milliseconds in the kernel.
    pub timeout: Duration,
    /// How many such flows at once.
    pub size: u8,
}

/// What a stateful object is, with its state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum State {
    /// Counts packets and bytes.
    Counter {
        /// Packets so far.
        packets: u64,
        /// Bytes so far.
        bytes: u64,
    },
    /// An amount of bytes that is used up.
    Quota(Quota),
    /// A token bucket.
    Limit(Limit),
    /// Counts flows.
    Connlimit {
        /// How many may be.
        count: u32,
        /// Whether the rule goes on only past the limit.
        over: bool,
    },
    /// Gives a flow a conntrack helper.
    CtHelper(CtHelper),
    /// Gives a flow time-outs.
    CtTimeout(CtTimeout),
    /// Makes conntrack expect another flow.
    CtExpectation(CtExpectation),
    /// Answers SYNs for the server.
    Synproxy(Synproxy),
    /// Gives a packet a security mark: a context as text.
    SecMark(String),
    /// One that this crate has no word for, as the kernel spells it. A tunnel's metadata among them.
    Raw {
        /// Its type.
        kind: ObjectType,
        /// Its attributes.
        data: Bytes,
    },
}

impl State {
    /// Its type.
    pub fn kind(&self) -> ObjectType {
        match self {
            State::Counter { .. } => KnownObject::Counter.into(),
            State::Quota(_) => KnownObject::Quota.into(),
            State::Limit(_) => KnownObject::Limit.into(),
            State::Connlimit { .. } => KnownObject::Connlimit.into(),
            State::CtHelper(_) => KnownObject::CtHelper.into(),
            State::CtTimeout(_) => KnownObject::CtTimeout.into(),
            State::CtExpectation(_) => KnownObject::CtExpectation.into(),
            State::Synproxy(_) => KnownObject::Synproxy.into(),
            State::SecMark(_) => KnownObject::SecMark.into(),
            State::Raw { kind, .. } => *kind,
        }
    }
}

/// Something with a name and a state, that rules and maps apply to packets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatefulObject {
    /// Table it is in.
    pub table: TableId,
    /// Name, unique among objects of its type.
    pub name: ObjectName,
    /// What it is.
    pub state: State,
    /// Comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<Comment>,
    /// What else it carries.
    #[serde(default, skip_serializing_if = "Extra::is_empty")]
    pub extra: Extra,
}

impl StatefulObject {
    /// An object without a comment.
    pub fn new(table: &TableId, name: &ObjectName, state: State) -> Self {
        Self { table: table.clone(), name: name.clone(), state, comment: None, extra: Extra::default() }
    }
}

/// Lets flows pass by the rules, once a rule has put them in.
///
/// # Kernel
///
/// Linux 4.16, with `CONFIG_NF_FLOW_TABLE`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flowtable {
    /// Table it is in.
    pub table: TableId,
    /// Name.
    pub name: FlowtableName,
    /// Order among what stands at its devices' ingress hook.
    pub priority: Priority,
    /// Devices.
    #[serde(default)]
    pub devices: Vec<InterfaceName>,
    /// The network card does it. nft(8): `flags offload`.
    #[doc(alias = "NFT_FLOWTABLE_HW_OFFLOAD")]
    #[serde(default)]
    pub offload: bool,
    /// Packets that pass by are counted. nft(8): `counter`.
    #[doc(alias = "NFT_FLOWTABLE_COUNTER")]
    #[serde(default)]
    pub counter: bool,
    /// What else it carries.
    #[serde(default, skip_serializing_if = "Extra::is_empty")]
    pub extra: Extra,
}
