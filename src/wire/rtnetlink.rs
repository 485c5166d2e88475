//! Links, addresses and routes, decoded from the kernel's messages.
//!
//! Ours, and not `netlink-packet-route`'s, which slices some payloads without looking at their length.
//!
//! # References
//!
//! rtnetlink(7); `linux/if_link.h`, `linux/if_addr.h`, `linux/rtnetlink.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::netlink::{Attribute, Attributes, DecodeError, Message, array};
use crate::link::IfIndex;

/// Message about a link.
#[doc(alias = "RTM_NEWLINK")]
pub const NEW_LINK: u16 = 16;
/// Message about an address.
#[doc(alias = "RTM_NEWADDR")]
pub const NEW_ADDRESS: u16 = 20;
/// Message about a route.
#[doc(alias = "RTM_NEWROUTE")]
pub const NEW_ROUTE: u16 = 24;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(alias = "RTM_NEWLINK")]
pub struct Link {
    /// Its number.
    pub index: IfIndex,
    /// Its name.
    pub name: String,
    /// Switched on by its administrator.
    #[doc(alias = "IFF_UP")]
    pub up: bool,
    /// On, and the other end too.
    #[doc(alias = "IFF_LOWER_UP")]
    pub carrier: bool,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Link-layer address, if it has one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// The interface it hangs on; of a veth, the other end, as numbered in the namespace where that is.
    #[doc(alias = "IFLA_LINK")]
    pub parent: Option<IfIndex>,
    /// IPv4 packets that arrive on it are forwarded; `None` when it has no IPv4.
    pub forwards4: Option<bool>,
    /// IPv6 packets that arrive on it are forwarded though the host is no router; `None` when the kernel (before 6.17)
    /// has no such switch, or the interface no IPv6.
    pub forwards6: Option<bool>,
}

/// Decodes a message about a link.
///
/// # Errors
///
/// [`DecodeError`] when the message or an attribute that counts is too short.
pub fn link(message: &Message<'_>) -> Result<Link, DecodeError> {
    const IFLA_ADDRESS: u16 = 1;
    const IFLA_IFNAME: u16 = 3;
    const IFLA_MTU: u16 = 4;
    const IFLA_LINK: u16 = 5;
    const IFLA_AF_SPEC: u16 = 26;
    const IFF_UP: u32 = 1;
    const IFF_LOWER_UP: u32 = 1 << 16;
    let what = "link message";
    let flags = word(message, 8, what)?;
    let mut link = Link {
        index: IfIndex(word(message, 4, what)?),
        name: String::new(),
        up: flags & IFF_UP != 0,
        carrier: flags & IFF_LOWER_UP != 0,
        mtu: 0,
        mac: None,
        parent: None,
        forwards4: None,
        forwards6: None,
    };
    for attribute in message.attributes(what, 16)? {
        let attribute = attribute?;
        match attribute.kind {
            IFLA_ADDRESS => link.mac = attribute.payload.try_into().ok(),
            IFLA_IFNAME => link.name = string(attribute.payload),
            IFLA_MTU => link.mtu = attribute.ne32("IFLA_MTU")?,
            IFLA_LINK => link.parent = Some(IfIndex(attribute.ne32("IFLA_LINK")?)),
            IFLA_AF_SPEC => (link.forwards4, link.forwards6) = forwarding(attribute.nested())?,
            _ => {}
        }
    }
    Ok(link)
}

/// The two switches out of IFLA_AF_SPEC, which nests a list a family, of which one attribute is an array of settings.
fn forwarding(af_spec: Attributes<'_>) -> Result<(Option<bool>, Option<bool>), DecodeError> {
    const AF_INET: u16 = 2;
    const AF_INET6: u16 = 10;
    const IFLA_INET_CONF: u16 = 1;
    const IFLA_INET6_CONF: u16 = 2;
    /// `IPV4_DEVCONF_FORWARDING - 1`
    const FORWARDING: usize = 0;
    /// `DEVCONF_FORCE_FORWARDING`
    const FORCE_FORWARDING: usize = 59;
    let setting = |list: Attribute<'_>, array: u16, index: usize| -> Result<Option<bool>, DecodeError> {
        for attribute in list.nested() {
            let attribute = attribute?;
            if attribute.kind == array {
                return Ok(attribute.payload.chunks_exact(4).nth(index).map(|value| value != [0; 4]));
            }
        }
        Ok(None)
    };
    let mut found = (None, None);
    for family in af_spec {
        let family = family?;
        match family.kind {
            AF_INET => found.0 = setting(family, IFLA_INET_CONF, FORWARDING)?,
            AF_INET6 => found.1 = setting(family, IFLA_INET6_CONF, FORCE_FORWARDING)?,
            _ => {}
        }
    }
    Ok(found)
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(alias = "RTM_NEWADDR")]
pub struct Address {
    /// The interface.
    pub interface: IfIndex,
    /// The address, and how much of it is the network's.
    pub address: IpNet,
}

/// Decodes a message about an address. `None` for a family that is neither IPv4 nor IPv6.
///
/// # Errors
///
/// As [`link`], and when a prefix is longer than its address.
pub fn address(message: &Message<'_>) -> Result<Option<Address>, DecodeError> {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    let what = "address message";
    let interface = IfIndex(word(message, 4, what)?);
    let prefix = byte(message, 1, what)?;
    // On a point-to-point link IFA_ADDRESS is the other end's, and IFA_LOCAL ours.
    let (mut own, mut other) = (None, None);
    for attribute in message.attributes(what, 8)? {
        let attribute = attribute?;
        match attribute.kind {
            IFA_LOCAL => own = ip(attribute.payload),
            IFA_ADDRESS => other = ip(attribute.payload),
            _ => {}
        }
    }
    match own.or(other) {
        None => Ok(None),
        Some(ip) => Ok(Some(Address { interface, address: net(message, ip, prefix)? })),
    }
}

/// What a route does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RouteKind {
    /// Sends it on.
    #[doc(alias = "RTN_UNICAST")]
    Unicast,
    /// Keeps it: an address of this host.
    #[doc(alias = "RTN_LOCAL")]
    Local,
    /// Delivers it to all of a network.
    #[doc(alias = "RTN_BROADCAST")]
    Broadcast,
    /// Delivers it to whoever listens.
    #[doc(alias = "RTN_MULTICAST")]
    Multicast,
    /// Drops or refuses it (blackhole, unreachable, prohibit), or leaves it to the next table (throw).
    Refuse,
    /// Something else, by its number in linux/rtnetlink.h.
    Other(u8),
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(alias = "RTM_NEWROUTE")]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// What happens there.
    pub kind: RouteKind,
    /// The table it is in: 254 is `main`, 255 `local`.
    pub table: u32,
    /// The router it goes through.
    pub gateway: Option<IpAddr>,
    /// The interface it goes out of.
    pub interface: Option<IfIndex>,
}

/// Decodes a message about a route. `None` for a family that is neither IPv4 nor IPv6.
///
/// # Errors
///
/// As [`address`].
pub fn route(message: &Message<'_>) -> Result<Option<Route>, DecodeError> {
    const RTA_DST: u16 = 1;
    const RTA_OIF: u16 = 4;
    const RTA_GATEWAY: u16 = 5;
    const RTA_TABLE: u16 = 15;
    let what = "route message";
    let mut destination = match byte(message, 0, what)? {
        2 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        10 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return Ok(None),
    };
    let prefix = byte(message, 1, what)?;
    let mut table = u32::from(byte(message, 4, what)?);
    let kind = match byte(message, 7, what)? {
        1 => RouteKind::Unicast,
        2 => RouteKind::Local,
        3 => RouteKind::Broadcast,
        5 => RouteKind::Multicast,
        6..=9 => RouteKind::Refuse,
        other => RouteKind::Other(other),
    };
    let (mut gateway, mut interface) = (None, None);
    for attribute in message.attributes(what, 12)? {
        let attribute = attribute?;
        match attribute.kind {
            RTA_DST => match ip(attribute.payload) {
                Some(ip) if ip.is_ipv4() == destination.is_ipv4() => destination = ip,
                _ => {
                    let have = attribute.payload.escape_ascii().to_string();
                    return Err(DecodeError::new(
                        "RTA_DST",
                        attribute.offset,
                        "an address of the route's family",
                        have,
                    ));
                }
            },
            RTA_OIF => interface = Some(IfIndex(attribute.ne32("RTA_OIF")?)),
            RTA_GATEWAY => gateway = ip(attribute.payload),
            RTA_TABLE => table = attribute.ne32("RTA_TABLE")?,
            _ => {}
        }
    }
    Ok(Some(Route { destination: net(message, destination, prefix)?, kind, table, gateway, interface }))
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn net(message: &Message<'_>, ip: IpAddr, prefix: u8) -> Result<IpNet, DecodeError> {
    let most = if ip.is_ipv4() { "32 at most" } else { "128 at most" };
    IpNet::new(ip, prefix).map_err(|_| DecodeError::new("prefix length", message.offset + 1, most, prefix.to_string()))
}

/// Text up to its NUL. Names of links are bytes to the kernel; what is not UTF-8 in them is shown, not refused.
fn string(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The byte at `at` of the payload.
fn byte(message: &Message<'_>, at: usize, what: &'static str) -> Result<u8, DecodeError> {
    array(what, message.payload, at, message.offset).map(|[byte]| byte)
}

/// The 32-bit number at `at` of the payload, in the machine's byte order.
fn word(message: &Message<'_>, at: usize, what: &'static str) -> Result<u32, DecodeError> {
    array(what, message.payload, at, message.offset).map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::netlink::Header;

    fn message(payload: &[u8]) -> Message<'_> {
        let header = Header { len: 16 + payload.len() as u32, kind: NEW_ROUTE, flags: 0, seq: 1, port: 0 };
        Message { header, payload, offset: 16 }
    }

    /// `ip -4 route get fibmatch 203.0.113.9` with a route to 203.0.113.0/24 through 10.200.0.1 on interface 2.
    #[cfg(target_endian = "little")]
    const ROUTE: [u8; 44] = [
        2, 24, 0, 0, 254, 4, 0, 1, 0, 32, 0, 0, // rtmsg
        8, 0, 15, 0, 254, 0, 0, 0, // RTA_TABLE
        8, 0, 1, 0, 203, 0, 113, 0, // RTA_DST
        8, 0, 5, 0, 10, 200, 0, 1, // RTA_GATEWAY
        8, 0, 4, 0, 2, 0, 0, 0, // RTA_OIF
    ];

    #[test]
    #[cfg(target_endian = "little")]
    fn a_route_and_each_of_its_truncations() {
        let found = route(&message(&ROUTE)).unwrap().unwrap();
        assert_eq!(found.destination, "203.0.113.0/24".parse().unwrap());
        assert_eq!((found.kind, found.table, found.interface), (RouteKind::Unicast, 254, Some(IfIndex(2))));
        assert_eq!(found.gateway, Some("10.200.0.1".parse().unwrap()));
        for end in 0..12 {
            assert!(route(&message(&ROUTE[..end])).is_err(), "{end} bytes");
        }
        for end in 12..ROUTE.len() {
            let _ = route(&message(&ROUTE[..end]));
        }
        let mut wrong = ROUTE;
        wrong[1] = 33;
        assert_eq!(route(&message(&wrong)).unwrap_err().what, "prefix length");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let message = message(&bytes);
            let _ = link(&message);
            let _ = address(&message);
            let _ = route(&message);
        }
    }
}
