//! Prefixes that sandboxes get their addresses from.

use std::fmt;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;

use super::authority::{Reason, prefix};
use super::{PolicyError, Sourced};
use crate::link::Pool;

/// One prefix of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(untagged)]
pub enum PoolPrefix {
    /// From /8 to /30.
    V4(Ipv4Net),
    /// From /8 to /126.
    V6(Ipv6Net),
}

impl PoolPrefix {
    fn read(text: &str) -> Result<Self, Reason> {
        let net = prefix(text)?;
        let longest = if matches!(net, IpNet::V4(_)) { 30 } else { 126 };
        if !(8..=longest).contains(&net.prefix_len()) {
            return Err(format!("its length is from 8 to {longest}"));
        }
        // With eight bits and more given, the first byte says what the whole prefix is.
        let taken = match net {
            IpNet::V4(v4) => match v4.network().octets()[0] {
                0 => Some("of this network"),
                127 => Some("loopback"),
                224..=255 => Some("multicast or reserved"),
                _ => None,
            },
            IpNet::V6(v6) => match v6.network().octets() {
                [0, ..] => Some("loopback or reserved"),
                [0xff, ..] => Some("multicast"),
                [0xfe, second, ..] if second & 0xc0 == 0x80 || v6.prefix_len() < 10 => Some("link-local"),
                _ => None,
            },
        };
        match (taken, net) {
            (Some(what), _) => Err(format!("its addresses are {what}, and no sandbox can have them")),
            (None, IpNet::V4(v4)) => Ok(PoolPrefix::V4(v4)),
            (None, IpNet::V6(v6)) => Ok(PoolPrefix::V6(v6)),
        }
    }
}

impl FromStr for PoolPrefix {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Self::read(text).map_err(|reason| PolicyError::new("a prefix for a pool of addresses", text).because(reason))
    }
}

impl fmt::Display for PoolPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PoolPrefix::V4(net) => net.fmt(f),
            PoolPrefix::V6(net) => net.fmt(f),
        }
    }
}

/// Makes a pool of one prefix a family at most; a family without one keeps the default.
pub(super) fn pool(prefixes: &[Sourced<PoolPrefix>]) -> Result<Pool, PolicyError> {
    let mut pool = Pool::default();
    let (mut first4, mut first6) = (None, None);
    for prefix in prefixes {
        let first: &mut Option<&Sourced<PoolPrefix>> = match prefix.value {
            PoolPrefix::V4(_) => &mut first4,
            PoolPrefix::V6(_) => &mut first6,
        };
        let first = first.get_or_insert(prefix);
        if first.value != prefix.value {
            return Err(PolicyError::new("the only prefix of its family", prefix.value.to_string())
                .because(format!("{} says `{}`", first.origin, first.value))
                .at(prefix.origin.clone()));
        }
        match prefix.value {
            PoolPrefix::V4(net) => pool.v4 = net,
            PoolPrefix::V6(net) => pool.v6 = net,
        }
    }
    Ok(pool)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Origin;

    #[test]
    fn prefixes_that_are() {
        for text in
            ["10.0.0.0/8", "10.200.0.0/16", "192.168.7.252/30", "fd00::/8", "fd52:4e46:4e43::/64", "2001:db8::8/126"]
        {
            assert_eq!(text.parse::<PoolPrefix>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn prefixes_that_are_not() {
        for (text, reason) in [
            ("10.200.0.0", "the `/` and the prefix length are missing"),
            ("10.200.0.1/16", "bits are set behind the prefix: write `10.200.0.0/16`"),
            ("8.0.0.0/7", "its length is from 8 to 30"),
            ("10.0.0.0/31", "its length is from 8 to 30"),
            ("fd00::/127", "its length is from 8 to 126"),
            ("fc00::/7", "its length is from 8 to 126"),
            ("0.0.0.0/8", "its addresses are of this network, and no sandbox can have them"),
            ("127.1.0.0/16", "its addresses are loopback, and no sandbox can have them"),
            ("224.0.0.0/8", "its addresses are multicast or reserved, and no sandbox can have them"),
            ("::/64", "its addresses are loopback or reserved, and no sandbox can have them"),
            ("fe80::/64", "its addresses are link-local, and no sandbox can have them"),
            ("fe00::/8", "its addresses are link-local, and no sandbox can have them"),
            ("ff02::/16", "its addresses are multicast, and no sandbox can have them"),
        ] {
            assert_eq!(text.parse::<PoolPrefix>().unwrap_err().reason.as_deref(), Some(reason), "{text}");
        }
    }

    #[test]
    fn a_pool_has_one_prefix_a_family() {
        let at = |flag: &str, text: &str| Sourced::new(text.parse().unwrap(), Origin::Flag(flag.into()));
        assert_eq!(pool(&[]).unwrap(), Pool::default());
        let both = pool(&[at("a", "fd00::/64"), at("b", "10.1.0.0/16"), at("c", "10.1.0.0/16")]).unwrap();
        assert_eq!((both.v4.to_string().as_str(), both.v6.to_string().as_str()), ("10.1.0.0/16", "fd00::/64"));
        let one = pool(&[at("a", "10.1.0.0/16")]).unwrap();
        assert_eq!(one.v6, Pool::default().v6);
        assert_eq!(
            pool(&[at("a", "10.1.0.0/16"), at("b", "10.2.0.0/16")]).unwrap_err().to_string(),
            "b: `10.2.0.0/16` is not the only prefix of its family (a says `10.1.0.0/16`)"
        );
    }
}
