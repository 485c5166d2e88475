//! Messages of nfnetlink_log: packets that a `log group` rule handed over, and what such a group is told to do.
//!
//! # References
//!
//! `linux/netfilter/nfnetlink_log.h`; `net/netfilter/nfnetlink_log.c`: `__build_packet_message`, `nfulnl_recv_config`.

mod config;

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

pub use config::{Config, NOT_A_REQUEST, request};

use super::netlink::{self, Attribute, Attributes, DecodeError, array};
use super::packet::{self, Packet, Version};
use crate::link::IfIndex;

/// Message that holds a packet: subsystem 4, message 0.
#[doc(alias = "NFULNL_MSG_PACKET")]
pub const PACKET: u16 = 4 << 8;
/// Message that tells a group what to do.
#[doc(alias = "NFULNL_MSG_CONFIG")]
pub const CONFIG: u16 = (4 << 8) | 1;

/// Length of netfilter's own header, in bytes.
#[doc(alias = "nfgenmsg")]
const GENERIC_LEN: usize = 4;

/// Number of an nflog group. Groups belong to a network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub u16);

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where on its way a packet was logged.
///
/// The numbers are those of the tables of families ip, ip6 and inet; other families count their hooks differently, see
/// [`Message::family`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hook(pub u8);

impl Hook {
    /// It has come in.
    #[doc(alias = "NF_INET_PRE_ROUTING")]
    pub const PREROUTING: Self = Self(0);
    /// It is for this namespace.
    #[doc(alias = "NF_INET_LOCAL_IN")]
    pub const INPUT: Self = Self(1);
    /// It is passed on.
    #[doc(alias = "NF_INET_FORWARD")]
    pub const FORWARD: Self = Self(2);
    /// It comes from this namespace.
    #[doc(alias = "NF_INET_LOCAL_OUT")]
    pub const OUTPUT: Self = Self(3);
    /// It is about to leave.
    #[doc(alias = "NF_INET_POST_ROUTING")]
    pub const POSTROUTING: Self = Self(4);
}

/// VLAN tag of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Vlan {
    /// Ethertype of the tag.
    #[doc(alias = "NFULA_VLAN_PROTO")]
    pub protocol: Option<u16>,
    /// Priority, drop-eligible bit and number.
    #[doc(alias = "NFULA_VLAN_TCI")]
    pub tag: Option<u16>,
}

/// A packet that a rule logged, with all the kernel told of it. What it did not tell is `None`.
///
/// Which attributes there are is the hook's business: on OUTPUT there is no time stamp, no `indev` and no hardware address.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message<'a> {
    /// The group that it came by.
    pub group: Group,
    /// Family of the table's hook: 2 for IPv4, 10 for IPv6, 5 for netdev, 7 for bridge, 3 for ARP.
    #[doc(alias = "nfgen_family")]
    pub family: u8,
    /// Hook.
    #[doc(alias = "NFULA_PACKET_HDR")]
    pub hook: Option<Hook>,
    /// Ethertype.
    pub ethertype: Option<u16>,
    /// Packet mark; absent when 0.
    #[doc(alias = "NFULA_MARK")]
    pub mark: Option<u32>,
    /// When it came in.
    #[doc(alias = "NFULA_TIMESTAMP")]
    pub timestamp: Option<SystemTime>,
    /// Interface that it came in by; of a bridge, the bridge.
    #[doc(alias = "NFULA_IFINDEX_INDEV")]
    pub indev: Option<IfIndex>,
    /// Interface that it leaves by; of a bridge, the bridge.
    #[doc(alias = "NFULA_IFINDEX_OUTDEV")]
    pub outdev: Option<IfIndex>,
    /// The bridge's port that it came in by.
    #[doc(alias = "NFULA_IFINDEX_PHYSINDEV")]
    pub physindev: Option<IfIndex>,
    /// The bridge's port that it leaves by.
    #[doc(alias = "NFULA_IFINDEX_PHYSOUTDEV")]
    pub physoutdev: Option<IfIndex>,
    /// Link-layer address of its sender.
    #[doc(alias = "NFULA_HWADDR")]
    pub hwaddr: Option<Cow<'a, [u8]>>,
    /// Kind of link that it came in by (`ARPHRD_…`).
    #[doc(alias = "NFULA_HWTYPE")]
    pub hwtype: Option<u16>,
    /// Link-layer header.
    #[doc(alias = "NFULA_HWHEADER")]
    pub hwheader: Option<Cow<'a, [u8]>>,
    /// Length of the link-layer header, as the kernel says.
    #[doc(alias = "NFULA_HWLEN")]
    pub hwlen: Option<u16>,
    /// The packet, or as much of it as was asked for.
    #[doc(alias = "NFULA_PAYLOAD")]
    pub payload: Option<Cow<'a, [u8]>>,
    /// The rule's text. What is not UTF-8 in it is replaced.
    #[doc(alias = "NFULA_PREFIX")]
    pub prefix: Option<Cow<'a, str>>,
    /// User who opened the socket that it was sent through, as the reader's user namespace numbers them.
    #[doc(alias = "NFULA_UID")]
    pub uid: Option<u32>,
    /// Group of who opened the socket.
    #[doc(alias = "NFULA_GID")]
    pub gid: Option<u32>,
    /// Number of the packet in its group, from 0.
    #[doc(alias = "NFULA_SEQ")]
    pub seq: Option<u32>,
    /// Number of the packet among all groups of the namespace.
    #[doc(alias = "NFULA_SEQ_GLOBAL")]
    pub seq_global: Option<u32>,
    /// Its conntrack entry, as nested conntrack attributes.
    #[doc(alias = "NFULA_CT")]
    pub conntrack: Option<Cow<'a, [u8]>>,
    /// Its part in that conntrack entry.
    #[doc(alias = "NFULA_CT_INFO")]
    pub conntrack_info: Option<u32>,
    /// VLAN tag.
    #[doc(alias = "NFULA_VLAN")]
    pub vlan: Option<Vlan>,
    /// All of the link-layer header, VLAN tag included.
    #[doc(alias = "NFULA_L2HDR")]
    pub l2hdr: Option<Cow<'a, [u8]>>,
    /// Attributes that this version does not know, by type.
    pub unknown: Vec<(u16, Cow<'a, [u8]>)>,
}

impl<'a> Message<'a> {
    /// Decodes a message; `None` when it is of another type.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when it says that it holds a packet and an attribute has a length that such an attribute never has.
    pub fn decode(message: &netlink::Message<'a>) -> Result<Option<Self>, DecodeError> {
        if message.header.kind != PACKET {
            return Ok(None);
        }
        let [family, _version, high, low] = array("nflog header", message.payload, 0, message.offset)?;
        let mut packet = Self::empty(Group(u16::from_be_bytes([high, low])), family);
        for attribute in message.attributes("nflog header", GENERIC_LEN)? {
            packet.read(&attribute?)?;
        }
        Ok(Some(packet))
    }

    fn empty(group: Group, family: u8) -> Self {
        Self {
            group,
            family,
            hook: None,
            ethertype: None,
            mark: None,
            timestamp: None,
            indev: None,
            outdev: None,
            physindev: None,
            physoutdev: None,
            hwaddr: None,
            hwtype: None,
            hwheader: None,
            hwlen: None,
            payload: None,
            prefix: None,
            uid: None,
            gid: None,
            seq: None,
            seq_global: None,
            conntrack: None,
            conntrack_info: None,
            vlan: None,
            l2hdr: None,
            unknown: Vec::new(),
        }
    }

    fn read(&mut self, attribute: &Attribute<'a>) -> Result<(), DecodeError> {
        let raw = || Some(Cow::Borrowed(attribute.payload));
        let interface = |what| attribute.be32(what).map(|index| Some(IfIndex(index)));
        match attribute.kind {
            1 => {
                let [high, low, hook, _pad] = array("nflog packet header", attribute.payload, 0, attribute.offset)?;
                self.ethertype = Some(u16::from_be_bytes([high, low]));
                self.hook = Some(Hook(hook));
            }
            2 => self.mark = Some(attribute.be32("nflog mark")?),
            3 => self.timestamp = Some(timestamp(attribute)?),
            4 => self.indev = interface("nflog input interface")?,
            5 => self.outdev = interface("nflog output interface")?,
            6 => self.physindev = interface("nflog bridge input port")?,
            7 => self.physoutdev = interface("nflog bridge output port")?,
            8 => self.hwaddr = Some(Cow::Borrowed(hardware_address(attribute)?)),
            9 => self.payload = raw(),
            10 => {
                let text = attribute.payload.strip_suffix(b"\0").unwrap_or(attribute.payload);
                self.prefix = Some(String::from_utf8_lossy(text));
            }
            11 => self.uid = Some(attribute.be32("nflog user")?),
            12 => self.seq = Some(attribute.be32("nflog sequence number")?),
            13 => self.seq_global = Some(attribute.be32("nflog global sequence number")?),
            14 => self.gid = Some(attribute.be32("nflog group of the user")?),
            15 => self.hwtype = Some(attribute.be16("nflog hardware type")?),
            16 => self.hwheader = raw(),
            17 => self.hwlen = Some(attribute.be16("nflog hardware header's length")?),
            18 => self.conntrack = raw(),
            19 => self.conntrack_info = Some(attribute.be32("nflog conntrack information")?),
            20 => self.vlan = Some(vlan(attribute.nested())?),
            21 => self.l2hdr = raw(),
            kind => self.unknown.push((kind, Cow::Borrowed(attribute.payload))),
        }
        Ok(())
    }

    /// Decodes the headers of the packet. `None` when there is no payload, or none that begins with an IP header.
    pub fn packet(&self) -> Option<Result<Packet, DecodeError>> {
        let version = match self.ethertype {
            None | Some(0) => Version::of_family(self.family),
            Some(ethertype) => Version::of_ethertype(ethertype),
        };
        Some(packet::decode(version?, self.payload.as_deref()?))
    }

    /// The same, with bytes of its own.
    pub fn into_owned(self) -> Message<'static> {
        fn own<T: ToOwned + ?Sized>(borrowed: Option<Cow<'_, T>>) -> Option<Cow<'static, T>> {
            borrowed.map(|bytes| Cow::Owned(bytes.into_owned()))
        }
        Message {
            hwaddr: own(self.hwaddr),
            hwheader: own(self.hwheader),
            payload: own(self.payload),
            prefix: own(self.prefix),
            conntrack: own(self.conntrack),
            l2hdr: own(self.l2hdr),
            unknown: self.unknown.into_iter().map(|(kind, bytes)| (kind, Cow::Owned(bytes.into_owned()))).collect(),
            group: self.group,
            family: self.family,
            hook: self.hook,
            ethertype: self.ethertype,
            mark: self.mark,
            timestamp: self.timestamp,
            indev: self.indev,
            outdev: self.outdev,
            physindev: self.physindev,
            physoutdev: self.physoutdev,
            hwtype: self.hwtype,
            hwlen: self.hwlen,
            uid: self.uid,
            gid: self.gid,
            seq: self.seq,
            seq_global: self.seq_global,
            conntrack_info: self.conntrack_info,
            vlan: self.vlan,
        }
    }
}

#[doc(alias = "nfulnl_msg_packet_timestamp")]
fn timestamp(attribute: &Attribute<'_>) -> Result<SystemTime, DecodeError> {
    const WHAT: &str = "nflog time stamp";
    let seconds = u64::from_be_bytes(array(WHAT, attribute.payload, 0, attribute.offset)?);
    let micros = u64::from_be_bytes(array(WHAT, attribute.payload, 8, attribute.offset)?);
    let since = Duration::from_secs(seconds).checked_add(Duration::from_micros(micros));
    since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since)).ok_or_else(|| {
        DecodeError::new(WHAT, attribute.offset, "a time that can be told", format!("{seconds} s and {micros} µs"))
    })
}

#[doc(alias = "nfulnl_msg_packet_hw")]
fn hardware_address<'a>(attribute: &Attribute<'a>) -> Result<&'a [u8], DecodeError> {
    const WHAT: &str = "nflog hardware address";
    let len = usize::from(u16::from_be_bytes(array(WHAT, attribute.payload, 0, attribute.offset)?));
    // Behind the length, two bytes of nothing; behind the address, what is left of eight.
    match attribute.payload.get(4..4 + len) {
        Some(address) => Ok(address),
        None => Err(DecodeError::short(WHAT, attribute.offset, 4 + len, attribute.payload.len())),
    }
}

fn vlan(attributes: Attributes<'_>) -> Result<Vlan, DecodeError> {
    let mut vlan = Vlan::default();
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            1 => vlan.protocol = Some(attribute.be16("nflog VLAN protocol")?),
            2 => vlan.tag = Some(attribute.be16("nflog VLAN tag")?),
            _ => {}
        }
    }
    Ok(vlan)
}

#[cfg(test)]
mod tests;
