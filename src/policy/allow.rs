//! What the built-in proxy lets through.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

use ipnet::IpNet;
use serde::Serialize;

use super::authority::{Authority, Form, Reason, nobody, port, prefix};
use super::{DnsName, Host, PolicyError, RequestRule};

/// A name, or every name below one (`*.example.com`, which is not `example.com` itself).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostPattern {
    /// That name alone.
    Exact(DnsName),
    /// Every name that ends in a dot and that name.
    Below(DnsName),
}

impl HostPattern {
    /// The name itself, or the one that its names are below.
    pub fn base(&self) -> &DnsName {
        match self {
            HostPattern::Exact(name) | HostPattern::Below(name) => name,
        }
    }

    /// Whether it names that name.
    pub fn matches(&self, name: &DnsName) -> bool {
        match self {
            HostPattern::Exact(exact) => exact == name,
            HostPattern::Below(above) => {
                name.as_str().strip_suffix(above.as_str()).is_some_and(|front| front.ends_with('.'))
            }
        }
    }

    pub(super) fn read(text: &str) -> Result<Self, Reason> {
        match text.strip_prefix("*.") {
            Some(above) if above.contains('*') => Err("only the first label may be `*`".into()),
            Some(above) => DnsName::read(above).map(HostPattern::Below),
            None if text == "*" => Err("a lone `*` is everybody: name who may be reached".into()),
            None if text.contains('*') => Err("a wildcard is the whole first label, as in `*.example.com`".into()),
            None => DnsName::read(text).map(HostPattern::Exact),
        }
    }
}

impl FromStr for HostPattern {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Self::read(text).map_err(|reason| PolicyError::new("a DNS name or `*.NAME`", text).because(reason))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(name) => name.fmt(f),
            HostPattern::Below(name) => write!(f, "*.{name}"),
        }
    }
}

/// Left side of an `--allow` entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AllowHost {
    /// Names.
    Pattern(HostPattern),
    /// Addresses: one (a /32 or /128), or a range.
    Net(IpNet),
}

/// One entry of the built-in proxy's allow-list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct AllowEntry {
    /// Who.
    pub host: AllowHost,
    /// On which port; any when absent.
    pub port: Option<NonZeroU16>,
    /// Which of its requests; when absent, all that can be said to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RequestRule>,
}

impl AllowEntry {
    /// Whether it lets through that host, as the client named it, on that port.
    ///
    /// A name is never matched by a range nor an address by a pattern: what a name resolves to is not asked here.
    pub fn matches(&self, host: &Host, port: u16) -> bool {
        let named = match (&self.host, host) {
            (AllowHost::Pattern(pattern), Host::Name(name)) => pattern.matches(name),
            (AllowHost::Net(net), Host::Address(address)) => net.contains(&address.to_canonical()),
            _ => false,
        };
        named && self.port.is_none_or(|only| only.get() == port)
    }

    fn read(text: &str) -> Result<Self, Reason> {
        if let Some(read) = RequestRule::read(text) {
            let (rule, authority) = read?;
            if authority.contains('/') {
                return Err("a range has no place in a rule".into());
            }
            let mut entry = Self::read_host(authority)?;
            entry.port = entry.port.or(NonZeroU16::new(rule.scheme().port()));
            entry.rule = Some(rule);
            return Ok(entry);
        }
        // `GET,HEAD https://…` comes here in two pieces, and the first would pass for a name.
        if ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].contains(&text) {
            return Err(format!(
                "a method stands before a URL, and several are parted by `|`: `{text}|… https://HOST/PATH`"
            ));
        }
        Self::read_host(text)
    }

    /// Parses `HOST[:PORT]`.
    fn read_host(text: &str) -> Result<Self, Reason> {
        let authority = Authority::split(text)?;
        let port = authority.port()?;
        let host = if authority.host.contains('/') && is_address_like(authority) {
            let net = prefix(authority.host).map_err(|reason| range_with_port(text).unwrap_or(reason))?;
            if authority.form == Form::Bracketed && matches!(net, IpNet::V4(_)) && !authority.host.contains(':') {
                return Err("only IPv6 stands in brackets".into());
            }
            // 0.0.0.0/0 and ::/0 start at the unspecified address, and mean more than it.
            let first = net.network();
            let single = net.prefix_len() == net.max_prefix_len();
            if let Some(reason) = nobody(first).filter(|_| single || !first.is_unspecified()) {
                return Err(reason);
            }
            AllowHost::Net(net)
        } else if authority.host.contains('*') {
            AllowHost::Pattern(HostPattern::read(authority.host)?)
        } else {
            match authority.host()? {
                Host::Name(name) => AllowHost::Pattern(HostPattern::Exact(name)),
                Host::Address(address) => match nobody(address) {
                    Some(reason) => return Err(reason),
                    None => AllowHost::Net(IpNet::from(address)),
                },
            }
        };
        Ok(Self { host, port, rule: None })
    }
}

/// Whether `10/8` or `010.0.0.0/8` is an attempt at a range rather than at a URL.
fn is_address_like(authority: Authority<'_>) -> bool {
    authority.form != Form::Plain || authority.host.starts_with(|first: char| first.is_ascii_digit())
}

/// The spelling that was meant by `2001:db8::/32:443`.
fn range_with_port(text: &str) -> Option<Reason> {
    let (range, tail) = text.rsplit_once(':')?;
    (prefix(range).is_ok() && port(tail).is_ok())
        .then(|| format!("an IPv6 range with a port stands in brackets: `[{range}]:{tail}`"))
}

impl FromStr for AllowEntry {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Self::read(text).map_err(|reason| PolicyError::new("a destination `HOST[:PORT]`", text).because(reason))
    }
}

impl fmt::Display for AllowEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(rule) = &self.rule {
            return rule.write(f, &Self { rule: None, ..self.clone() });
        }
        match (&self.host, self.port) {
            (AllowHost::Net(net), port) => {
                let single = net.prefix_len() == net.max_prefix_len();
                match (single, net.addr(), port) {
                    (true, IpAddr::V6(address), Some(port)) => write!(f, "[{address}]:{port}"),
                    (true, address, Some(port)) => write!(f, "{address}:{port}"),
                    (true, address, None) => write!(f, "{address}"),
                    (false, IpAddr::V6(_), Some(port)) => write!(f, "[{net}]:{port}"),
                    (false, _, Some(port)) => write!(f, "{net}:{port}"),
                    (false, _, None) => write!(f, "{net}"),
                }
            }
            (AllowHost::Pattern(pattern), Some(port)) => write!(f, "{pattern}:{port}"),
            (AllowHost::Pattern(pattern), None) => pattern.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_are() {
        for (text, shown) in [
            ("example.com", "example.com"),
            ("Example.COM.:443", "example.com:443"),
            ("*.example.com", "*.example.com"),
            ("*.example.com:8443", "*.example.com:8443"),
            ("203.0.113.9", "203.0.113.9"),
            ("203.0.113.9/32", "203.0.113.9"),
            ("203.0.113.9:8080", "203.0.113.9:8080"),
            ("203.0.113.0/24", "203.0.113.0/24"),
            ("203.0.113.0/24:443", "203.0.113.0/24:443"),
            ("2001:db8::9", "2001:db8::9"),
            ("[2001:db8::9]", "2001:db8::9"),
            ("[2001:db8::9]:443", "[2001:db8::9]:443"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("[2001:db8::/32]", "2001:db8::/32"),
            ("[2001:db8::/32]:443", "[2001:db8::/32]:443"),
            ("[::ffff:203.0.113.0/120]:443", "203.0.113.0/24:443"),
            // Eight more bits of address, not a port: only brackets can say a port.
            ("2001:db8::9:443", "2001:db8::9:443"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
        ] {
            let entry = text.parse::<AllowEntry>().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(entry.to_string(), shown);
            assert_eq!(shown.parse::<AllowEntry>().unwrap(), entry);
        }
    }

    #[test]
    fn entries_that_are_not() {
        for (text, reason) in [
            ("", "it is empty"),
            (":443", "the host is missing"),
            ("example.com:", "the port after the colon is missing"),
            ("example.com:0", "port 0 cannot be connected to"),
            ("example.com:65536", "`65536` is no port from 1 to 65535"),
            ("example.com:https", "`https` is no port from 1 to 65535"),
            ("example.com:443:443", "`example.com:443:443` is neither a name nor an IPv6 address"),
            ("https://example.com/", "a host is due here, not a URL: write `example.com`"),
            ("example.com/path", "`example.com/path` has a path, and a host has none"),
            ("*", "a lone `*` is everybody: name who may be reached"),
            ("*:443", "a lone `*` is everybody: name who may be reached"),
            ("*.", "the host is missing"),
            ("*.*.example.com", "only the first label may be `*`"),
            ("*example.com", "a wildcard is the whole first label, as in `*.example.com`"),
            ("a.*.example.com", "a wildcard is the whole first label, as in `*.example.com`"),
            ("203.0.113.9/24", "bits are set behind the prefix: write `203.0.113.0/24`"),
            ("10/8", "`10` is no address in front of a `/`"),
            ("[203.0.113.0/24]:443", "only IPv6 stands in brackets"),
            ("2001:db8::/32:443", "an IPv6 range with a port stands in brackets: `[2001:db8::/32]:443`"),
            ("0.0.0.0", "`0.0.0.0` is the unspecified address, which is nobody's"),
            ("[::]:80", "`::` is the unspecified address, which is nobody's"),
            ("0.0.0.0/32", "`0.0.0.0` is the unspecified address, which is nobody's"),
            ("224.0.0.0/4", "`224.0.0.0` is a multicast address, which is no single host's"),
            ("255.255.255.255", "`255.255.255.255` is the broadcast address, which is no single host's"),
            ("fe80::1", "`fe80::1` is link-local, which means another host on every wire"),
            ("fe80::/10", "`fe80::` is link-local, which means another host on every wire"),
        ] {
            let error = text.parse::<AllowEntry>().unwrap_err();
            assert_eq!(error.reason.as_deref(), Some(reason), "{text}");
        }
    }

    #[test]
    fn an_entry_matches_what_it_names_and_nothing_else() {
        for (entry, host, port, matches) in [
            ("example.com", "EXAMPLE.com.", 1, true),
            ("example.com:443", "example.com", 443, true),
            ("example.com:443", "example.com", 80, false),
            ("example.com", "www.example.com", 443, false),
            ("*.example.com", "www.example.com", 443, true),
            ("*.example.com", "a.b.example.com", 443, true),
            ("*.example.com", "example.com", 443, false),
            ("*.example.com", "notexample.com", 443, false),
            ("203.0.113.0/24", "203.0.113.255", 443, true),
            ("203.0.113.0/24", "::ffff:203.0.113.255", 443, true),
            ("203.0.113.0/24", "203.0.114.0", 443, false),
            ("::/0", "203.0.113.9", 443, false),
            ("0.0.0.0/0", "example.com", 443, false),
        ] {
            let (parsed, name) = (entry.parse::<AllowEntry>().unwrap(), host.parse::<Host>().unwrap());
            assert_eq!(parsed.matches(&name, port), matches, "{entry} and {host}:{port}");
        }
        let mapped = Host::Address("::ffff:203.0.113.1".parse().unwrap());
        assert!("203.0.113.1".parse::<AllowEntry>().unwrap().matches(&mapped, 1));
    }
}
