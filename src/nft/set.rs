//! Sets and their elements.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Comment, Data, Expr, Extra, ObjectName, ObjectType, SetName, TableId, Verdict};

/// Declares the types that nft(8) numbers, with their length.
macro_rules! datatypes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $size:literal, $name:literal;)*) => {
        /// Type of a field of a set's key, numbered as nft(8) does. The kernel keeps the number and does not look at it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case", deny_unknown_fields)]
        pub enum Datatype {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
            /// A type without a name or a length of its own: an integer, a string, what a newer nft(8) numbers.
            Other {
                /// Its number.
                number: u32,
                /// How many bytes a value has.
                size: u16,
            },
        }

        impl Datatype {
            /// Every type that has a name and a length, in the order of nft(8)'s numbers.
            pub const ALL: &[Datatype] = &[$(Datatype::$variant),*];

            /// nft(8)'s number.
            pub const fn number(self) -> u32 {
                match self {
                    $(Datatype::$variant => $number,)*
                    Datatype::Other { number, .. } => number,
                }
            }

            /// Length of a value in bytes, before padding.
            pub const fn size(self) -> usize {
                match self {
                    $(Datatype::$variant => $size,)*
                    Datatype::Other { size, .. } => size as usize,
                }
            }

            /// nft(8)'s name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Datatype::$variant => $name,)*
                    Datatype::Other { number: 4, .. } => "integer",
                    Datatype::Other { number: 5, .. } => "string",
                    Datatype::Other { .. } => "a type without a name",
                }
            }

            /// The type with that number and length.
            pub(crate) fn from_number(number: u32, size: usize) -> Option<Datatype> {
                let known = Datatype::ALL.iter().find(|known| known.number() == number && known.size() == size);
                known.copied().or_else(|| Some(Datatype::Other { number, size: u16::try_from(size).ok()? }))
            }
        }
    };
}

datatypes! {
    /// Address family.
    NfProto = 2, 1, "nf_proto";
    /// IPv4 address.
    Ipv4Addr = 7, 4, "ipv4_addr";
    /// IPv6 address.
    Ipv6Addr = 8, 16, "ipv6_addr";
    /// Ethernet address.
    EtherAddr = 9, 6, "ether_addr";
    /// EtherType.
    EtherType = 10, 2, "ether_type";
    /// ARP operation.
    ArpOp = 11, 2, "arp_op";
    /// Transport protocol.
    InetProto = 12, 1, "inet_proto";
    /// Port.
    InetService = 13, 2, "inet_service";
    /// ICMP type.
    IcmpType = 14, 1, "icmp_type";
    /// TCP flags.
    TcpFlag = 15, 1, "tcp_flag";
    /// DCCP packet type.
    DccpPktType = 16, 1, "dccp_pkttype";
    /// Mobility header type.
    MhType = 17, 1, "mh_type";
    /// Time that has passed.
    Time = 18, 4, "time";
    /// Packet mark.
    Mark = 19, 4, "mark";
    /// Interface index.
    IfaceIndex = 20, 4, "iface_index";
    /// Hardware type of an interface.
    IfaceType = 21, 2, "iface_type";
    /// Realm of a route.
    Realm = 22, 4, "realm";
    /// Class of a queueing discipline.
    ClassId = 23, 4, "classid";
    /// User.
    Uid = 24, 4, "uid";
    /// Group.
    Gid = 25, 4, "gid";
    /// Conntrack state.
    CtState = 26, 4, "ct_state";
    /// Direction of a flow.
    CtDir = 27, 1, "ct_dir";
    /// Conntrack status.
    CtStatus = 28, 4, "ct_status";
    /// ICMPv6 type.
    Icmpv6Type = 29, 1, "icmpv6_type";
    /// Labels of a flow.
    CtLabel = 30, 16, "ct_label";
    /// Unicast, broadcast, multicast…
    PktType = 31, 1, "pkt_type";
    /// ICMP code.
    IcmpCode = 32, 1, "icmp_code";
    /// ICMPv6 code.
    Icmpv6Code = 33, 1, "icmpv6_code";
    /// Code of a family-neutral refusal.
    IcmpxCode = 34, 1, "icmpx_code";
    /// Group of an interface.
    DevGroup = 35, 4, "devgroup";
    /// Differentiated services code point.
    Dscp = 36, 1, "dscp";
    /// Explicit congestion notification.
    Ecn = 37, 1, "ecn";
    /// Type of an address in the routing tables.
    FibAddrType = 38, 4, "fib_addrtype";
    /// Whether something is so.
    Boolean = 39, 1, "boolean";
    /// What conntrack tells of.
    CtEvent = 40, 4, "ct_event";
    /// Interface name.
    IfName = 41, 16, "ifname";
    /// IGMP type.
    IgmpType = 42, 1, "igmp_type";
    /// Seconds since midnight.
    Hour = 44, 4, "hour";
    /// Day of the week.
    Day = 45, 1, "day";
    /// Control group.
    CgroupV2 = 46, 8, "cgroupsv2";
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

    /// The type of keys of that length, from its number and, where they are known, the lengths of its fields.
    ///
    /// Every number and length makes one: what is no concatenation of known fields is one field of the whole length.
    pub(crate) fn from_wire(number: u32, len: usize, fields: &[usize]) -> Option<KeyType> {
        if number < 64 {
            return Some(KeyType(vec![Datatype::from_number(number, len)?]));
        }
        if let Some(known) = KeyType::from_number(number).filter(|known| {
            known.len() == len
                && (fields.is_empty() || known.0.iter().map(|field| field.size()).eq(fields.iter().copied()))
        }) {
            return Some(known);
        }
        let count = fields.len();
        if (2..=5).contains(&count) && number >> (6 * (count - 1)) < 64 && number >> (6 * (count - 1)) > 0 {
            let numbers = (0..count).rev().map(|place| number >> (6 * place) & 0x3f);
            let parts = numbers.zip(fields).map(|(number, size)| Datatype::from_number(number, *size));
            if let Some(key) = parts.collect::<Option<Vec<_>>>().map(KeyType).filter(|key| key.len() == len) {
                return Some(key);
            }
        }
        Some(KeyType(vec![Datatype::Other { number, size: u16::try_from(len).ok()? }]))
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
#[serde(default, deny_unknown_fields)]
pub struct SetFlags {
    /// It belongs to the one rule that refers to it, and goes with it. nft(8): `{ … }` within a rule.
    #[doc(alias = "NFT_SET_ANONYMOUS")]
    pub anonymous: bool,
    /// Elements are fixed once a rule refers to it.
    #[doc(alias = "NFT_SET_CONSTANT")]
    pub constant: bool,
    /// Elements are ranges.
    #[doc(alias = "NFT_SET_INTERVAL")]
    pub interval: bool,
    /// Elements may run out.
    #[doc(alias = "NFT_SET_TIMEOUT")]
    pub timeout: bool,
    /// Rules add elements from the packet path. nft(8): `dynamic`.
    #[doc(alias = "NFT_SET_EVAL")]
    pub dynamic: bool,
    /// Elements may have several expressions each.
    #[doc(alias = "NFT_SET_EXPR")]
    pub expressions: bool,
}

/// What the kernel spares when it chooses how to keep a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetPolicy {
    /// Time.
    #[default]
    #[doc(alias = "NFT_SET_POL_PERFORMANCE")]
    Performance,
    /// Memory.
    #[doc(alias = "NFT_SET_POL_MEMORY")]
    Memory,
}

impl SetPolicy {
    /// Whether it is the kernel's own choice.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What the keys of a map lead to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MapTo {
    /// Values of a type.
    Value(KeyType),
    /// Verdicts.
    #[doc(alias = "NFT_DATA_VERDICT")]
    Verdict,
    /// Stateful objects.
    #[doc(alias = "NFT_SET_OBJECT")]
    Object(ObjectType),
}

/// A named set or map, or one that belongs to a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Set {
    /// Table it is in.
    pub table: TableId,
    /// Name.
    pub name: SetName,
    /// Type of its key.
    pub key: KeyType,
    /// What its keys lead to, if it is a map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<MapTo>,
    /// Flags.
    #[serde(default)]
    pub flags: SetFlags,
    /// Time an element lives unless it says otherwise. Milliseconds in the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// How often elements that ran out are looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gc_interval: Option<Duration>,
    /// The most elements it takes, a hard cap that also sizes the hash table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
    /// What is spared.
    #[serde(default, skip_serializing_if = "SetPolicy::is_default")]
    pub policy: SetPolicy,
    /// What every element gets: counters, limits…
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exprs: Vec<Expr>,
    /// Comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<Comment>,
    /// What else it carries.
    #[serde(default, skip_serializing_if = "Extra::is_empty")]
    pub extra: Extra,
}

impl Set {
    /// A set of such keys, with neither flags nor limits.
    pub fn new(table: &TableId, name: &SetName, key: KeyType) -> Self {
        Self {
            table: table.clone(),
            name: name.clone(),
            key,
            data: None,
            flags: SetFlags::default(),
            timeout: None,
            gc_interval: None,
            size: None,
            policy: SetPolicy::default(),
            exprs: Vec::new(),
            comment: None,
            extra: Extra::default(),
        }
    }

    /// A map from such keys.
    pub fn map(table: &TableId, name: &SetName, key: KeyType, to: MapTo) -> Self {
        Self { data: Some(to), ..Self::new(table, name, key) }
    }

    /// Whether its elements are the first keys of ranges and the first keys past them, and may run out.
    pub(crate) fn has_timed_ranges(&self) -> bool {
        self.flags.interval && self.flags.timeout && self.key.0.len() == 1
    }

    /// Drops ends of ranges that none begins, from a set that [has timed ranges](Self::has_timed_ranges).
    ///
    /// Once a range has run out, the kernel tells its beginning no more; but its end, which has no time of its own, until somebody's
    /// commit clears the set up. It refuses to make such an end.
    pub(crate) fn drop_stray_ends(&self, elements: &mut Vec<Element>) {
        if !self.has_timed_ranges() {
            return;
        }
        let mut order: Vec<usize> = (0..elements.len()).filter(|at| !elements[*at].catch_all).collect();
        order.sort_by(|a, b| elements[*a].place().cmp(&elements[*b].place()));
        let (mut open, mut stray) = (false, vec![false; elements.len()]);
        for at in order {
            let element = &elements[at];
            // nft(8) puts the end of "nothing" at key 0 of every such set.
            let first = element.key.as_bytes().iter().all(|byte| *byte == 0);
            stray[at] = element.interval_end && !open && !first;
            open = !element.interval_end;
        }
        let mut stray = stray.into_iter();
        elements.retain(|_| stray.next() != Some(true));
    }
}

/// What an element of a map leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ElementData {
    /// A value.
    Value(Data),
    /// A verdict.
    Verdict(Verdict),
    /// A stateful object.
    #[doc(alias = "NFTA_SET_ELEM_OBJREF")]
    Object(ObjectName),
}

/// An element of a set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Element {
    /// Key, or first key of a range in a concatenated interval set. Empty when it is [`Self::catch_all`].
    #[serde(default, skip_serializing_if = "Data::is_empty")]
    pub key: Data,
    /// Last key of a range in a concatenated interval set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_end: Option<Data>,
    /// In a plain interval set: the key is the first one past a range.
    #[doc(alias = "NFT_SET_ELEM_INTERVAL_END")]
    #[serde(default, skip_serializing_if = "is_false")]
    pub interval_end: bool,
    /// It stands for all keys that no other element has. nft(8): `*`. Linux 5.13.
    #[doc(alias = "NFT_SET_ELEM_CATCHALL")]
    #[serde(default, skip_serializing_if = "is_false")]
    pub catch_all: bool,
    /// What it leads to, in a map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<ElementData>,
    /// How long it lives, counted from the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// How much of that is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Duration>,
    /// Its expressions: counters, limits…
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exprs: Vec<Expr>,
    /// Comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<Comment>,
    /// What else it carries.
    #[serde(default, skip_serializing_if = "Extra::is_empty")]
    pub extra: Extra,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Element {
    /// An element that is just a key.
    pub fn new(key: Data) -> Self {
        Self {
            key,
            key_end: None,
            interval_end: false,
            catch_all: false,
            data: None,
            timeout: None,
            expires: None,
            exprs: Vec::new(),
            comment: None,
            extra: Extra::default(),
        }
    }

    /// An element of a map.
    pub fn leading(key: Data, to: ElementData) -> Self {
        Self { data: Some(to), ..Self::new(key) }
    }

    /// What says which element of its set it is. Compared, it is the order along a set of ranges: where one range ends and the next begins,
    /// the end comes first, for the kernel takes no beginning within a range.
    pub(crate) fn place(&self) -> (&Data, Option<&Data>, bool, bool) {
        (&self.key, self.key_end.as_ref(), !self.interval_end, self.catch_all)
    }

    /// Puts elements into the order in which a set takes them.
    ///
    /// The kernel tells ranges downwards. A set that is full takes them back upwards alone: there is room for the end at key 0 of every set
    /// where it comes first, and an end that follows another one is refused.
    pub(crate) fn upwards(elements: &mut [Self]) {
        if elements.iter().any(|element| element.interval_end) {
            elements.sort_by(|a, b| a.place().cmp(&b.place()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{Family, TableName};

    #[test]
    fn ends_that_no_range_has_are_dropped() {
        let id = TableId { family: Family::Inet, name: TableName::new("t").unwrap() };
        let mut set = Set::new(&id, &SetName::new("s").unwrap(), KeyType(vec![Datatype::InetService]));
        let start = |port| Element::new(Data::be16(port));
        let end = |port| Element { interval_end: true, ..start(port) };
        let catch_all = Element { catch_all: true, ..Element::new(Data::default()) };
        // As the kernel tells them, from the highest key down. Ranges from 1, from 20 and from 40 have run out; one touches the next.
        let told = [end(50), end(30), end(20), start(10), end(5), start(3), end(3), end(0), catch_all.clone()];
        let mut all = told.to_vec();
        set.flags.interval = true;
        set.drop_stray_ends(&mut all);
        assert_eq!(all, told, "nothing runs out here");
        set.flags.timeout = true;
        set.drop_stray_ends(&mut all);
        assert_eq!(all, [end(20), start(10), end(5), start(3), end(0), catch_all]);
    }

    #[test]
    fn ranges_are_made_upwards() {
        let start = |port| Element::new(Data::be16(port));
        let end = |port| Element { interval_end: true, ..start(port) };
        let mut all = [end(50), start(20), end(20), start(10), end(0)];
        Element::upwards(&mut all);
        assert_eq!(all, [end(0), start(10), end(20), start(20), end(50)]);
        // What has no ranges stays as it was told.
        let mut single = [start(2), start(1)];
        Element::upwards(&mut single);
        assert_eq!(single, [start(2), start(1)]);
    }
}
