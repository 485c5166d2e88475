//! Addresses that a public name has no business resolving to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is, that is not a public host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Metadata,
    Unspecified,
    ThisNetwork,
    Loopback,
    LinkLocal,
    Private,
    CarrierGrade,
    Protocols,
    Benchmarking,
    Multicast,
    Broadcast,
    Reserved,
    LocalNat64,
    DiscardOnly,
}

impl Class {
    /// With its article, as messages say it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Class::Metadata => "a cloud metadata address",
            Class::Unspecified => "the unspecified address",
            Class::ThisNetwork => "an address of this network",
            Class::Loopback => "a loopback address",
            Class::LinkLocal => "a link-local address",
            Class::Private => "a private address",
            Class::CarrierGrade => "a carrier-grade NAT address",
            Class::Protocols => "an address kept for protocols",
            Class::Benchmarking => "a benchmarking address",
            Class::Multicast => "a multicast address",
            Class::Broadcast => "the broadcast address",
            Class::Reserved => "a reserved address",
            Class::LocalNat64 => "a local-use NAT64 address",
            Class::DiscardOnly => "a discard-only address",
        }
    }
}

/// Names the class of an address that is not a public host's; `None` for a public one.
///
/// The documentation ranges count as public. An IPv6 address that only carries an IPv4 address to a translator or relay
/// (NAT64, 6to4, Teredo) is of the class of the address carried.
///
/// # References
///
/// The IANA registries of special-purpose addresses; RFC 6890, RFC 6052, RFC 8215, RFC 3056, RFC 4380.
pub(crate) fn class(address: IpAddr) -> Option<Class> {
    match address.to_canonical() {
        IpAddr::V4(address) => class4(address),
        IpAddr::V6(address) => class6(address),
    }
}

/// Names the class for which an address is refused to a name, if it is; `private` says that the name may lead into private networks.
///
/// Who answers for a name is not who wrote the policy. What means something else on every host, a cloud's metadata service among it,
/// is what somebody who answers for a name would like to open, so it is refused to every name.
pub(crate) fn refused_to_name(address: IpAddr, private: bool) -> Option<Class> {
    use Class::{Broadcast, LinkLocal, Loopback, Metadata, Multicast, ThisNetwork, Unspecified};
    let always = [Broadcast, LinkLocal, Loopback, Metadata, Multicast, ThisNetwork, Unspecified];
    class(address).filter(|class| !private || always.contains(class))
}

fn class4(address: Ipv4Addr) -> Option<Class> {
    Some(match address.octets() {
        // Link-local ones, Alibaba's among the carrier-grade NAT addresses, and Azure's wire server, of a public range.
        [169, 254, 169, 254] | [169, 254, 170, 2] | [100, 100, 100, 200] | [168, 63, 129, 16] => Class::Metadata,
        [0, 0, 0, 0] => Class::Unspecified,
        [0, ..] => Class::ThisNetwork,
        [127, ..] => Class::Loopback,
        [169, 254, ..] => Class::LinkLocal,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Class::Private,
        [100, 64..=127, ..] => Class::CarrierGrade,
        [192, 0, 0, _] => Class::Protocols,
        [198, 18..=19, ..] => Class::Benchmarking,
        [224..=239, ..] => Class::Multicast,
        [255, 255, 255, 255] => Class::Broadcast,
        [240..=255, ..] => Class::Reserved,
        _ => return None,
    })
}

fn class6(address: Ipv6Addr) -> Option<Class> {
    let carried = |high: u16, low: u16| class4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match address.segments() {
        // Amazon's local services, credentials of containers among them (::23, ::254); Google's; Oracle's; Scaleway's.
        [0xfd00, 0x0ec2, ..]
        | [0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x254]
        | [0xfd00, 0x00c1, 0, 0, 0, 0, 0xa9fe, 0xa9fe]
        | [0xfd00, 0x0042, 0, 0, 0, 0, 0, 0x0042] => Some(Class::Metadata),
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(Class::Unspecified),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(Class::Loopback),
        // IPv4-compatible; IPv4-mapped addresses have become IPv4 before.
        [0, 0, 0, 0, 0, 0, ..] => Some(Class::Reserved),
        // IPv4-translated (SIIT).
        [0, 0, 0, 0, 0xffff, 0, high, low] => carried(high, low),
        [0x0064, 0xff9b, 0, 0, 0, 0, high, low] => carried(high, low),
        // Its prefix length, hence the place of the IPv4 address, is the translator's secret.
        [0x0064, 0xff9b, 1, ..] => Some(Class::LocalNat64),
        [0x0100, 0, 0, 0, ..] => Some(Class::DiscardOnly),
        [0x2001, 0, server_high, server_low, _, _, high, low] => {
            carried(server_high, server_low).or_else(|| carried(!high, !low))
        }
        [0x2001, 0x0002, 0, ..] => Some(Class::Benchmarking),
        // Never routed: what the registry keeps for protocols, ORCHIDs included.
        [0x2001, 0x0001..=0x01ff, ..] => Some(Class::Protocols),
        [0x2002, high, low, ..] => carried(high, low),
        [0x5f00, ..] => Some(Class::Protocols),
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Some(Class::Private),
        [0xfe80..=0xfebf, ..] => Some(Class::LinkLocal),
        [0xff00..=0xffff, ..] => Some(Class::Multicast),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_special_range_is_known_at_both_ends() {
        for text in [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.0.0",
            "169.254.169.254",
            "169.254.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.8",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.0",
            "255.255.255.255",
            "::",
            "::1",
            "::2",
            "::7f00:1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::8.8.8.8",
            "64:ff9b:1:ffff::",
            "100::1",
            "2001:0:7f00:1::1",
            "2001:0:808:808:0:0:80ff:fffe",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2002:c0a8:101::1",
            "5f00::1",
            "fc00::",
            "fdff::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
        ] {
            assert!(class(text.parse().unwrap()).is_some(), "{text}");
        }
    }

    #[test]
    fn neighbours_of_special_ranges_and_documentation_are_public() {
        for text in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.2.9",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.100.9",
            "203.0.113.9",
            "223.255.255.255",
            "::ffff:203.0.113.9",
            "64:ff9b::203.0.113.9",
            "2001:200::1",
            "2001:db8::9",
            "2001:4860:4860::8888",
            "2002:cb00:7109::1",
            "2606:4700::1111",
            "fbff::1",
            // Teredo: server 203.0.113.9, client 198.51.100.1.
            "2001:0:cb00:7109:0:0:39cc:9bfe",
        ] {
            assert_eq!(class(text.parse().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn metadata_is_called_by_its_name() {
        for text in [
            "169.254.169.254",
            "168.63.129.16",
            "::ffff:168.63.129.16",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd00:c1::a9fe:a9fe",
            "fd00:42::42",
            "::ffff:169.254.169.254",
            "2002:a9fe:a9fe::1",
        ] {
            assert_eq!(class(text.parse().unwrap()), Some(Class::Metadata), "{text}");
        }
    }
}
