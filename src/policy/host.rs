//! Hosts as a policy names them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Serialize;

use super::PolicyError;
use super::authority::{Authority, Form, Reason};
use super::origin::part;

/// A DNS name: lower case, without a final dot, each label 1 to 63 letters, digits, hyphens or underscores, 253 bytes at most.
///
/// The last label is no number: such a name would be read as an address by some programs and not by others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct DnsName(String);

impl DnsName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it means the loopback address of whoever asks: `localhost` and all below it.
    ///
    /// # References
    /// RFC 6761, section 6.3.
    pub fn is_localhost(&self) -> bool {
        self.0.rsplit('.').next() == Some("localhost")
    }

    /// Whether the public DNS knows nothing of it: a single label, or a name below a suffix that is used inside networks alone.
    /// Such a name may lead to a private address, for that is what it is for.
    ///
    /// # References
    /// RFC 6762 appendix G, RFC 6761, RFC 8375; ICANN's resolution on `internal`.
    pub fn is_private(&self) -> bool {
        const SUFFIXES: [&str; 9] =
            ["internal", "local", "localdomain", "lan", "home", "corp", "intranet", "private", "test"];
        match self.0.rsplit_once('.') {
            None => true,
            Some((above, last)) => {
                SUFFIXES.contains(&last) || (last == "arpa" && (above == "home" || above.ends_with(".home")))
            }
        }
    }

    /// Parses a name, and says what is meant where something else was written.
    pub(super) fn read(text: &str) -> Result<Self, Reason> {
        const LONGEST: usize = 253;
        const LONGEST_LABEL: usize = 63;

        if text.is_empty() {
            return Err("the host is missing".into());
        }
        if let Some((address, _)) = text.split_once('/') {
            return Err(if address.parse::<IpAddr>().is_ok() {
                format!("one address is due here, and {} is a range", part(text))
            } else {
                format!("{} has a path, and a host has none", part(text))
            });
        }
        if text.contains('*') {
            return Err("a wildcard is not taken here".into());
        }
        if text.contains('%') && text.contains(':') {
            return Err("an address with a zone means something on one machine only".into());
        }
        if text.contains(':') {
            return Err(format!("{} is neither a name nor an IPv6 address", part(text)));
        }
        if !text.is_ascii() {
            return Err("a name with other than ASCII letters is written in punycode, as `xn--…`".into());
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.len() > LONGEST {
            return Err(format!("a name has {LONGEST} characters at most, and this {}", name.len()));
        }
        for label in name.split('.') {
            if label.is_empty() {
                return Err("a label is empty".into());
            }
            if let Some(stray) = label.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_')) {
                return Err(format!("`{stray}` is no character of a name"));
            }
            if label.len() > LONGEST_LABEL {
                return Err(format!(
                    "a label has {LONGEST_LABEL} characters at most, and {} {}",
                    part(label),
                    label.len()
                ));
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err(format!("the label {} starts or ends with a hyphen", part(label)));
            }
        }
        // inet_aton(3) takes 127.1, 0x7f000001 and 010.1.1.1 for addresses, other programs for names: whoever checks and
        // whoever connects must not differ.
        let last = name.rsplit('.').next().unwrap_or_default();
        let hexadecimal = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        if hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!(
                "its last label {} is a number: an IPv4 address is four decimal numbers without leading zeros, a name ends otherwise",
                part(last)
            ));
        }
        Ok(Self(name))
    }
}

impl FromStr for DnsName {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Self::read(text).map_err(|reason| PolicyError::new("a DNS name", text).because(reason))
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name or an address. IPv4-mapped IPv6 addresses are kept as IPv4.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(untagged)]
pub enum Host {
    /// A name.
    Name(DnsName),
    /// An address.
    Address(IpAddr),
}

impl FromStr for Host {
    type Err = PolicyError;

    /// Parses a name, an IPv4 address, or an IPv6 address with or without brackets.
    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let host = Authority::split(text).and_then(|authority| match (authority.form, authority.port) {
            (Form::Plain | Form::Bracketed, Some(_)) => Err("a host is due here, without a port".into()),
            _ => authority.host(),
        });
        host.map_err(|reason| PolicyError::new("a host name or address", text).because(reason))
    }
}

impl From<DnsName> for Host {
    fn from(name: DnsName) -> Self {
        Host::Name(name)
    }
}

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Self {
        Host::Address(address.to_canonical())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => name.fmt(f),
            Host::Address(address) => address.fmt(f),
        }
    }
}

/// A host with a port behind it, as URLs write it: IPv6 addresses in brackets.
pub(super) struct WithPort<'a>(pub(super) &'a Host, pub(super) u16);

impl fmt::Display for WithPort<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.1),
            host => write!(f, "{host}:{}", self.1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(longest.len(), 253);
        for (text, shown) in [
            ("example.com", "example.com"),
            ("EXAMPLE.Com.", "example.com"),
            ("_dns._udp.example", "_dns._udp.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("localhost", "localhost"),
            ("1.example", "1.example"),
            ("0xcafe.example", "0xcafe.example"),
            ("3com", "3com"),
            ("0xyz", "0xyz"),
            (&longest, &longest),
            (&format!("{longest}."), &longest),
            ("203.0.113.9", "203.0.113.9"),
            ("2001:DB8:0::9", "2001:db8::9"),
            ("[2001:db8::9]", "2001:db8::9"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("[::ffff:cb00:7109]", "203.0.113.9"),
        ] {
            let host = text.parse::<Host>().unwrap();
            assert_eq!(host.to_string(), shown);
            assert_eq!(matches!(host, Host::Name(_)), shown.parse::<IpAddr>().is_err());
        }
    }

    #[test]
    fn hosts_that_are_not() {
        let number = |last: &str| {
            format!(
                "its last label `{last}` is a number: an IPv4 address is four decimal numbers without leading zeros, a name ends otherwise"
            )
        };
        let long = "a".repeat(64);
        for (text, reason) in [
            ("", "it is empty".into()),
            (".", "a label is empty".into()),
            ("example..com", "a label is empty".into()),
            (".example.com", "a label is empty".into()),
            ("example.com..", "a label is empty".into()),
            ("-a.example", "the label `-a` starts or ends with a hyphen".into()),
            ("a-.example", "the label `a-` starts or ends with a hyphen".into()),
            ("a b.example", "` ` is no character of a name".into()),
            ("user@example.com", "`@` is no character of a name".into()),
            ("a\u{0}b", "`\u{0}` is no character of a name".into()),
            ("bücher.example", "a name with other than ASCII letters is written in punycode, as `xn--…`".into()),
            (&long, format!("a label has 63 characters at most, and `{long}` 64")),
            (&"a.".repeat(128), "a name has 253 characters at most, and this 255".into()),
            ("*.example.com", "a wildcard is not taken here".into()),
            ("example.com:443", "a host is due here, without a port".into()),
            ("[::1]:443", "a host is due here, without a port".into()),
            ("https://example.com/x", "a host is due here, not a URL: write `example.com`".into()),
            ("https://u:secret@example.com:8443?x", "a host is due here, not a URL: write `example.com:8443`".into()),
            ("example.com/x", "`example.com/x` has a path, and a host has none".into()),
            ("203.0.113.0/24", "one address is due here, and `203.0.113.0/24` is a range".into()),
            ("[example.com]", "only an IPv6 address stands in brackets, and `example.com` is none".into()),
            ("[203.0.113.9]", "only an IPv6 address stands in brackets, and `203.0.113.9` is none".into()),
            ("[2001:db8::9", "the `]` is missing".into()),
            ("[2001:db8::]/32", "only `:PORT` may follow the `]`".into()),
            ("fe80::1%eth0", "an address with a zone means something on one machine only".into()),
            ("2001:db8::9::1", "`2001:db8::9::1` is neither a name nor an IPv6 address".into()),
            ("127.1", number("1")),
            ("2130706433", number("2130706433")),
            ("0x7f000001", number("0x7f000001")),
            ("0x", number("0x")),
            ("127.0.0.0X1", number("0x1")),
            ("010.1.1.1", number("1")),
            ("1.2.3.4.5", number("5")),
            ("256.1.1.1", number("1")),
            ("203.0.113.9.", number("9")),
            ("example.123", number("123")),
        ] {
            let error = text.parse::<Host>().unwrap_err();
            assert_eq!(error.reason.as_deref(), Some(&*reason), "{text}");
            assert_eq!(error.expected, "a host name or address");
            assert_eq!(error.found, text.replace("u:secret", "<redacted>"));
        }
    }

    #[test]
    fn a_name_is_no_address() {
        assert!("203.0.113.9".parse::<DnsName>().is_err());
        assert!("::1".parse::<DnsName>().is_err());
        assert!("a.LOCALHOST".parse::<DnsName>().unwrap().is_localhost());
        assert!(!"localhost.example".parse::<DnsName>().unwrap().is_localhost());
    }
}
