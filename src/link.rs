//! The wire between a sandbox and its host, as values: which interfaces, which addresses.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;

use crate::nft::InterfaceName;

/// Number of an interface in its network namespace. The kernel counts from 1.
#[doc(alias = "ifindex")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct IfIndex(pub u32);

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Largest packet that a link carries.
///
/// # Units
///
/// Bytes, from the IP header on.
#[doc(alias = "IFLA_MTU")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Mtu(u16);

impl Mtu {
    /// The smallest with which IPv6 works.
    pub const MIN: Mtu = Mtu(1280);
    /// The largest that a veth takes.
    pub const MAX: Mtu = Mtu(65535);

    /// Checks `bytes`; `None` below [`Mtu::MIN`], where the kernel switches IPv6 off.
    pub fn new(bytes: u16) -> Option<Self> {
        (bytes >= Self::MIN.0).then_some(Self(bytes))
    }

    /// In bytes.
    pub fn bytes(self) -> u16 {
        self.0
    }
}

impl Default for Mtu {
    /// That of Ethernet, 1500.
    fn default() -> Self {
        Self(1500)
    }
}

/// Where the addresses of sandboxes come from: slot `n` is the n-th /30 of the IPv4 prefix and the n-th /126 of the IPv6 prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Pool {
    /// IPv4 prefix, a /30 or shorter.
    pub v4: Ipv4Net,
    /// IPv6 prefix, a /126 or shorter.
    pub v6: Ipv6Net,
}

impl Default for Pool {
    /// 10.200.0.0/16 and a fixed ULA prefix: 16,384 sandboxes.
    fn default() -> Self {
        Self {
            v4: Ipv4Net::new_assert(Ipv4Addr::new(10, 200, 0, 0), 16),
            v6: Ipv6Net::new_assert(Ipv6Addr::new(0xfd52, 0x4e46, 0x4e43, 0, 0, 0, 0, 0), 64),
        }
    }
}

impl Pool {
    /// How many sandboxes it has addresses for.
    pub fn slots(&self) -> u32 {
        let v4 = 30u32.saturating_sub(u32::from(self.v4.prefix_len()));
        let v6 = 126u32.saturating_sub(u32::from(self.v6.prefix_len()));
        1u32 << v4.min(v6).min(30)
    }

    /// How many slots on from the start of the pool `prefix` ends: the number of the first slot that lies past it, or
    /// 0 when all of `prefix` lies before the pool.
    pub(crate) fn slot_past(&self, prefix: IpNet) -> u32 {
        let (last, start) = match prefix {
            IpNet::V4(net) => (u128::from(u32::from(net.broadcast())), u128::from(u32::from(self.v4.network()))),
            IpNet::V6(net) => (u128::from(net.broadcast()), u128::from(self.v6.network())),
        };
        match last.checked_sub(start) {
            None => 0,
            Some(offset) => u32::try_from(offset / 4).unwrap_or(u32::MAX).saturating_add(1).min(self.slots()),
        }
    }

    /// The addresses of one slot; `None` past the last.
    pub fn slot(&self, slot: u32) -> Option<Addresses> {
        if slot >= self.slots() {
            return None;
        }
        let v4 = u32::from(self.v4.network()) + slot * 4;
        let v6 = u128::from(self.v6.network()) + u128::from(slot) * 4;
        Some(Addresses {
            host4: Ipv4Addr::from(v4 + 1),
            sandbox4: Ipv4Addr::from(v4 + 2),
            host6: Ipv6Addr::from(v6 + 1),
            sandbox6: Ipv6Addr::from(v6 + 2),
        })
    }
}

/// The four addresses of one wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Addresses {
    /// IPv4 address of the host's end, the sandbox's gateway.
    pub host4: Ipv4Addr,
    /// IPv4 address of the sandbox.
    pub sandbox4: Ipv4Addr,
    /// IPv6 address of the host's end.
    pub host6: Ipv6Addr,
    /// IPv6 address of the sandbox.
    pub sandbox6: Ipv6Addr,
}

/// A veth pair: one end on the host, one born inside the sandbox's namespace.
///
/// Both ends' link-layer addresses follow from the IPv4 addresses, so that permanent neighbour entries can be written
/// without asking anybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VethPair {
    /// Name of the host's end.
    pub host: InterfaceName,
    /// Name of the sandbox's end.
    pub sandbox: InterfaceName,
    /// Addresses of both.
    pub addresses: Addresses,
}

impl VethPair {
    /// Whether an interface is called as the host's ends of sandboxes' wires are, those of other supervisors included.
    pub fn is_host_end(name: &str) -> bool {
        name.strip_prefix("rf").is_some_and(|rest| rest.len() == 8 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }

    /// Link-layer address of the host's end.
    pub fn host_mac(&self) -> [u8; 6] {
        mac(self.addresses.host4)
    }

    /// Link-layer address of the sandbox's end.
    pub fn sandbox_mac(&self) -> [u8; 6] {
        mac(self.addresses.sandbox4)
    }
}

/// A locally administered unicast address: 02:52, then the IPv4 address.
fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x52, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_never_overlap_and_end_with_the_pool() {
        let pool = Pool::default();
        assert_eq!(pool.slots(), 16384);
        let first = pool.slot(0).unwrap();
        assert_eq!(first.sandbox4, Ipv4Addr::new(10, 200, 0, 2));
        let last = pool.slot(16383).unwrap();
        assert_eq!(last.sandbox4, Ipv4Addr::new(10, 200, 255, 254));
        assert_eq!(pool.slot(16384), None);
        assert_eq!(pool.slot_past("10.0.0.0/8".parse().unwrap()), 16384);
        assert_eq!(pool.slot_past("10.200.1.0/24".parse().unwrap()), 128);
        assert_eq!(pool.slot_past("10.200.0.2/32".parse().unwrap()), 1);
        assert_eq!(pool.slot_past("10.199.0.0/16".parse().unwrap()), 0);
        assert_eq!(pool.slot_past("fd52:4e46:4e43::6/128".parse().unwrap()), 2);
        let tiny = Pool { v4: "10.9.8.4/30".parse().unwrap(), ..pool };
        assert_eq!((tiny.slots(), tiny.slot(0).unwrap().host4), (1, Ipv4Addr::new(10, 9, 8, 5)));
    }
}
