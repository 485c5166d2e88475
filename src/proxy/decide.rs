//! Who may be reached: the decision, without any I/O.
//!
//! Two questions, in this order:
//!
//! 1. [`admit`]: is the host, as the client named it, on the list? A name needs a name's entry, an address needs an
//!    address's entry. Nothing is resolved for a client that is not let past here, so no query leaves for its sake.
//! 2. [`vet`]: which of the addresses that a listed name resolves to may be dialled? Public ones may; one that is special
//!    (loopback, private, link-local, …) or this host's own needs an entry of its own, or whoever runs the name's DNS could
//!    point it at the host's services.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use ipnet::IpNet;

use super::target::Target;
use crate::policy::special::{self, Class};
use crate::policy::{AllowEntry, AllowHost, Host, HostPattern};

/// Why a destination is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DenialReason {
    /// No entry names it.
    NotListed,
    /// An entry names it, but everything that it resolves to is special, and no entry covers that.
    SpecialAddress {
        /// The first such address.
        address: IpAddr,
        /// What it is: `a private address`.
        class: &'static str,
    },
    /// It is an address in a spelling that only C libraries read (`0x7f.1`).
    NumericName,
    /// In a tunnel to it, TLS was begun for another host.
    OtherServerName {
        /// The name that was asked for; empty where it can't be read.
        name: String,
    },
    /// Rules say which requests may go there, and none covers this one.
    Request {
        /// Its method.
        method: String,
        /// Its path, without the query; as it was written where it has no one reading.
        path: String,
    },
    /// A placeholder stands where its value may not.
    Credential {
        /// The credential's name, as it was written.
        name: String,
    },
}

impl DenialReason {
    /// Where on a request's way it is refused: `connect`, `request` or `credential`.
    pub(super) fn stage(&self) -> &'static str {
        match self {
            DenialReason::Request { .. } => "request",
            DenialReason::Credential { .. } => "credential",
            _ => "connect",
        }
    }

    /// A word for programs, as in the `X-Ringfence-Denied` header.
    pub fn code(&self) -> &'static str {
        match self {
            DenialReason::NotListed => "not-listed",
            DenialReason::SpecialAddress { .. } => "special-address",
            DenialReason::NumericName => "numeric-name",
            DenialReason::OtherServerName { .. } => "server-name",
            DenialReason::Request { .. } => "request",
            DenialReason::Credential { .. } => "credential",
        }
    }
}

/// Why not, and the entry that would change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct No {
    pub(super) reason: DenialReason,
    /// None for an address that no policy takes, such as the unspecified one.
    pub(super) hint: Option<Box<AllowEntry>>,
}

impl No {
    fn new(reason: DenialReason, host: AllowHost, port: NonZeroU16) -> Self {
        let entry = AllowEntry { host, port: Some(port), rule: None };
        // A hint that the policy's own parser refuses would help nobody.
        let hint = entry.to_string().parse().ok().filter(|parsed| *parsed == entry).map(Box::new);
        Self { reason, hint }
    }
}

/// Decides on the host as the client named it.
pub(super) fn admit(list: &[AllowEntry], target: &Target) -> Result<(), No> {
    if list.iter().any(|entry| entry.matches(&target.host, target.port.get())) {
        return Ok(());
    }
    Err(No::new(DenialReason::NotListed, exactly(&target.host), target.port))
}

/// The left side of an entry for that host alone.
pub(super) fn exactly(host: &Host) -> AllowHost {
    match host {
        Host::Name(name) => AllowHost::Pattern(HostPattern::Exact(name.clone())),
        Host::Address(address) => AllowHost::Net(IpNet::from(*address)),
    }
}

/// Keeps of the addresses of an admitted target those that may be dialled, in their order. `own` are addresses of this host.
///
/// An entry for some requests to an address covers that address as a target, and no name that resolves to it: what is asked
/// of the name was judged by the name's own entries.
///
/// Empty only if `addresses` was.
pub(super) fn vet(
    list: &[AllowEntry],
    target: &Target,
    addresses: impl IntoIterator<Item = IpAddr>,
    own: &[IpAddr],
) -> Result<Vec<SocketAddr>, No> {
    let port = target.port;
    let covers = |entry: &AllowEntry, address: &Host| {
        entry.matches(address, port.get()) && (entry.rule.is_none() || target.host == *address)
    };
    let mut dialled = Vec::new();
    let mut refused = None;
    for address in addresses {
        let address = address.to_canonical();
        let here = || own.contains(&address).then_some("an address of this host");
        match special::class(address).map(Class::name).or_else(here) {
            Some(class) if !list.iter().any(|entry| covers(entry, &Host::Address(address))) => {
                refused.get_or_insert((address, class));
            }
            _ => dialled.push(SocketAddr::new(address, port.get())),
        }
    }
    match refused {
        Some((address, class)) if dialled.is_empty() => {
            let reason = DenialReason::SpecialAddress { address, class };
            Err(No::new(reason, AllowHost::Net(IpNet::from(address)), port))
        }
        _ => Ok(dialled),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(entries: &[&str]) -> Vec<AllowEntry> {
        entries.iter().map(|entry| entry.parse().unwrap()).collect()
    }

    fn admitted(entries: &[&str], target: &str) -> bool {
        admit(&list(entries), &Target::parse(target, None).unwrap()).is_ok()
    }

    fn vetted(entries: &[&str], port: u16, addresses: &[&str]) -> Result<Vec<String>, String> {
        let addresses = addresses.iter().map(|address| address.parse().unwrap());
        let own = ["198.51.100.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let target = Target { host: "api.example.com".parse().unwrap(), port: NonZeroU16::new(port).unwrap() };
        match vet(&list(entries), &target, addresses, &own) {
            Ok(kept) => Ok(kept.iter().map(|address| address.ip().to_string()).collect()),
            Err(no) => Err(no.hint.map(|hint| hint.to_string()).unwrap_or_default()),
        }
    }

    #[test]
    fn names_match_exactly_or_below_and_by_port() {
        let entries = ["example.com:443", "*.example.org", "any.example"];
        for (target, expected) in [
            ("example.com:443", true),
            ("EXAMPLE.com.:443", true),
            ("example.com:80", false),
            ("www.example.com:443", false),
            ("notexample.com:443", false),
            ("example.com.evil.example:443", false),
            ("a.example.org:1", true),
            ("a.b.example.org:65535", true),
            ("example.org:443", false),
            ("aexample.org:443", false),
            ("any.example:22", true),
            ("203.0.113.9:443", false),
        ] {
            assert_eq!(admitted(&entries, target), expected, "{target}");
        }
    }

    #[test]
    fn addresses_need_an_entry_of_addresses() {
        let entries = ["203.0.113.9:443", "10.0.0.0/8", "[2001:db8::/32]:80", "*.example.com", "203.0.113.10"];
        for (target, expected) in [
            ("203.0.113.9:443", true),
            ("203.0.113.9:80", false),
            ("[::ffff:203.0.113.9]:443", true),
            ("203.0.113.8:443", false),
            ("203.0.113.10:1", true),
            ("10.255.255.255:22", true),
            ("11.0.0.0:22", false),
            ("[2001:db8:1::2]:80", true),
            ("[2001:db8:1::2]:81", false),
            ("[2001:db9::]:80", false),
            ("[::ffff:10.1.2.3]:9", true),
            ("127.0.0.1:80", false),
        ] {
            assert_eq!(admitted(&entries, target), expected, "{target}");
        }
    }

    #[test]
    fn an_empty_list_admits_nobody_and_says_what_would() {
        for (target, hint) in [
            ("evil.example:443", "evil.example:443"),
            ("203.0.113.9:80", "203.0.113.9:80"),
            ("[2001:db8::9]:80", "[2001:db8::9]:80"),
        ] {
            let no = admit(&[], &Target::parse(target, None).unwrap()).unwrap_err();
            assert_eq!((no.reason, no.hint.unwrap().to_string().as_str()), (DenialReason::NotListed, hint));
        }
        for nobody in ["0.0.0.0:80", "[::]:80", "224.0.0.1:80", "255.255.255.255:80"] {
            assert_eq!(admit(&[], &Target::parse(nobody, None).unwrap()).unwrap_err().hint, None, "{nobody}");
        }
    }

    #[test]
    fn special_addresses_are_dropped_unless_covered() {
        let name = ["api.example.com"];
        assert_eq!(vetted(&name, 443, &["203.0.113.9", "2001:db8::9"]).unwrap(), ["203.0.113.9", "2001:db8::9"]);
        assert_eq!(vetted(&name, 443, &["10.0.0.5", "203.0.113.9", "::1"]).unwrap(), ["203.0.113.9"]);
        assert_eq!(vetted(&name, 443, &["10.0.0.5", "127.0.0.1"]).unwrap_err(), "10.0.0.5:443");
        assert_eq!(vetted(&name, 443, &["::ffff:10.0.0.5"]).unwrap_err(), "10.0.0.5:443");
        assert_eq!(vetted(&name, 80, &["64:ff9b::a00:5"]).unwrap_err(), "[64:ff9b::a00:5]:80");
        assert!(vetted(&name, 443, &[]).unwrap().is_empty());

        let covered = ["api.example.com", "10.0.0.0/24:443"];
        assert_eq!(vetted(&covered, 443, &["10.0.0.5", "10.0.1.5"]).unwrap(), ["10.0.0.5"]);
        assert_eq!(vetted(&covered, 80, &["10.0.0.5"]).unwrap_err(), "10.0.0.5:80");
        assert_eq!(vetted(&covered, 443, &["::ffff:10.0.0.5"]).unwrap(), ["10.0.0.5"]);
        // What covers some requests to an address covers no name.
        let ruled = ["api.example.com", "GET https://10.0.0.5/x"];
        assert!(vetted(&ruled, 443, &["10.0.0.5"]).is_err());
        let target = Target::parse("10.0.0.5:443", None).unwrap();
        assert!(vet(&list(&ruled), &target, ["10.0.0.5".parse().unwrap()], &[]).is_ok());
        // Covering the address carried does not cover its carrier.
        assert!(vetted(&covered, 443, &["64:ff9b::a00:5"]).is_err());
    }

    #[test]
    fn the_hosts_own_addresses_are_dropped_unless_covered() {
        let name = ["api.example.com"];
        for own in ["198.51.100.1", "2001:db8::1", "::ffff:198.51.100.1"] {
            assert_eq!(vetted(&name, 22, &[own, "203.0.113.9"]).unwrap(), ["203.0.113.9"], "{own}");
            assert!(vetted(&name, 22, &[own]).is_err(), "{own}");
        }
        let covered = ["api.example.com", "198.51.100.0/24:22"];
        assert_eq!(vetted(&covered, 22, &["198.51.100.1"]).unwrap(), ["198.51.100.1"]);
        assert_eq!(vetted(&covered, 80, &["198.51.100.1"]).unwrap_err(), "198.51.100.1:80");
    }

    proptest! {
        /// Whatever is refused is let through once its hint is on the list, and nothing else is let through for it.
        #[test]
        fn a_hint_keeps_its_word(address: IpAddr, port in 1..=u16::MAX, other: IpAddr, here: bool) {
            let port = NonZeroU16::new(port).unwrap();
            let target = |address: IpAddr| Target { host: Host::Address(address.to_canonical()), port };
            let no = admit(&[], &target(address)).unwrap_err();
            if let Some(hint) = no.hint {
                prop_assert!(admit(std::slice::from_ref(&hint), &target(address)).is_ok());
                prop_assert_eq!(admit(&[*hint], &target(other)).is_ok(), other.to_canonical() == address.to_canonical());
            }
            let own = if here { vec![address.to_canonical()] } else { Vec::new() };
            let name = Target { host: "a.example".parse().unwrap(), port };
            if let Err(no) = vet(&[], &name, [address], &own) {
                prop_assert!(no.hint.is_none_or(|hint| vet(&[*hint], &name, [address], &own).is_ok()));
            }
        }

        /// A special address is never dialled without an entry, whatever stands beside it.
        #[test]
        fn what_is_dialled_is_public(addresses: Vec<IpAddr>, low in any::<[u8; 3]>()) {
            let private = IpAddr::from([10, low[0], low[1], low[2]]);
            let all = addresses.into_iter().chain([private]);
            if let Ok(dialled) = vet(&[], &Target { host: "a.example".parse().unwrap(), port: NonZeroU16::MIN }, all, &[]) {
                prop_assert!(dialled.iter().all(|address| special::class(address.ip()).is_none()));
            }
        }
    }
}
