//! Reads the host and port that a request names, in one way only.
//!
//! Every later step (decision, resolution, `Host` header, request to an upstream) uses what is read here, never the
//! client's spelling again: two parsers that disagree about one string are how filters are walked past.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use crate::policy::{Host, Scheme};

/// Where a request wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: Host,
    pub(super) port: NonZeroU16,
}

impl Target {
    /// Parses `HOST[:PORT]` as it stands in a request line; `default` is the port when none is written.
    pub(super) fn parse(authority: &str, default: Option<NonZeroU16>) -> Result<Self, Malformed> {
        if authority.contains('@') {
            return Err(Malformed::Userinfo);
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (inside, after) = rest.split_once(']').ok_or(Malformed::Host)?;
                let address: Ipv6Addr = inside.parse().map_err(|_| Malformed::Host)?;
                let port = match after {
                    "" => None,
                    after => Some(after.strip_prefix(':').ok_or(Malformed::Host)?),
                };
                (Host::Address(IpAddr::V6(address).to_canonical()), port)
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (parse_host(host)?, Some(port)),
                None => (parse_host(authority)?, None),
            },
        };
        let port = match port {
            Some(digits) => parse_port(digits)?,
            None => default.ok_or(Malformed::Port)?,
        };
        Ok(Self { host, port })
    }

    /// The authority of a URL: the port is left out when it is the scheme's.
    pub(super) fn url_authority(&self, scheme: Scheme) -> String {
        match &self.host {
            _ if self.port.get() != scheme.port() => self.to_string(),
            Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
            host => host.to_string(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

/// Why an authority is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    /// `user@host`.
    Userinfo,
    /// No name, no address.
    Host,
    /// Letters beyond ASCII.
    NotAscii,
    /// Another spelling of an address, that C libraries take for one: `127.1`, `0x7f000001`, `2130706433`, `0177.0.0.1`.
    Numeric,
    /// No port, or not from 1 to 65535.
    Port,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Malformed::Userinfo => "has a user name in it; send credentials in the Authorization header",
            Malformed::Host => "is neither a host name nor an address",
            Malformed::NotAscii => "is not ASCII; write the host name in its xn-- form",
            Malformed::Numeric => "is an odd spelling of an address; write four decimal numbers without leading zeros",
            Malformed::Port => "needs a port from 1 to 65535",
        })
    }
}

fn parse_port(digits: &str) -> Result<NonZeroU16, Malformed> {
    // `u16::from_str` takes a plus sign, a request line does not.
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed::Port);
    }
    digits.parse().map_err(|_| Malformed::Port)
}

fn parse_host(text: &str) -> Result<Host, Malformed> {
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Address(IpAddr::V4(address)));
    }
    if !text.is_ascii() {
        return Err(Malformed::NotAscii);
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    if ends_in_a_number(name) {
        return Err(Malformed::Numeric);
    }
    // The whole text, for parsing takes one final dot off itself.
    text.parse().map(Host::Name).map_err(|_| Malformed::Host)
}

/// Tells whether the last label is a number to inet_aton(3), decimal, octal or hexadecimal: no top-level domain is, and
/// whatever getaddrinfo(3) would take for an address without asking anybody ends so.
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    match last.strip_prefix("0x").or_else(|| last.strip_prefix("0X")) {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<String, Malformed> {
        Target::parse(text, NonZeroU16::new(80)).map(|target| target.to_string())
    }

    #[test]
    fn names_are_lowered_and_lose_their_final_dot() {
        assert_eq!(parse("API.Example.COM.:443").unwrap(), "api.example.com:443");
        assert_eq!(parse("a_b.xn--bcher-kva.example").unwrap(), "a_b.xn--bcher-kva.example:80");
        assert_eq!(parse("localhost").unwrap(), "localhost:80");
        assert_eq!(parse("0x7g.example:1").unwrap(), "0x7g.example:1");
    }

    #[test]
    fn addresses_are_canonical() {
        assert_eq!(parse("203.0.113.9:1").unwrap(), "203.0.113.9:1");
        assert_eq!(parse("[2001:DB8:0::9]:1").unwrap(), "[2001:db8::9]:1");
        assert_eq!(parse("[::ffff:10.0.0.5]:1").unwrap(), "10.0.0.5:1");
        assert_eq!(parse("[::ffff:7f00:1]").unwrap(), "127.0.0.1:80");
    }

    #[test]
    fn odd_spellings_of_addresses_are_never_names() {
        for text in [
            "127.1",
            "0x7f.1",
            "0x7f.0.0.0x1",
            "2130706433",
            "0177.0.0.1",
            "0x7f000001",
            "127.0.0.1.",
            "1.2.3.4.5",
            "10.0.0.256",
            "010.0.0.1",
            "example.1",
            "0x",
            "a.0X10",
            "0.0.0.00",
            "08",
            "1",
        ] {
            assert_eq!(parse(text), Err(Malformed::Numeric), "{text}");
        }
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        let long = "a".repeat(64);
        let longer = ["a".repeat(63).as_str(); 4].join(".");
        for (text, why) in [
            ("", Malformed::Host),
            (".", Malformed::Host),
            ("a..b", Malformed::Host),
            ("-a.b", Malformed::Host),
            (".a", Malformed::Host),
            ("a..", Malformed::Host),
            ("*.example.com", Malformed::Host),
            ("a%2eb", Malformed::Host),
            ("a b", Malformed::Host),
            ("a\r\nb", Malformed::Host),
            ("a\0b", Malformed::Host),
            ("fe80::1", Malformed::Host),
            ("[fe80::1%25eth0]", Malformed::Host),
            ("[::1", Malformed::Host),
            ("[::1]x", Malformed::Host),
            ("[127.0.0.1]", Malformed::Host),
            (&long, Malformed::Host),
            (&longer, Malformed::Host),
            ("bücher.example", Malformed::NotAscii),
            ("１２７.0.0.1", Malformed::NotAscii),
            ("example。com", Malformed::NotAscii),
            ("user@example.com", Malformed::Userinfo),
            ("a:b@example.com:80", Malformed::Userinfo),
            ("example.com:", Malformed::Port),
            ("example.com:0", Malformed::Port),
            ("example.com:65536", Malformed::Port),
            ("example.com:99999999999999999999", Malformed::Port),
            ("example.com:+80", Malformed::Port),
            ("example.com:80:81", Malformed::Port),
            ("[::1]:", Malformed::Port),
        ] {
            // The unbracketed IPv6 address has an empty host or a bad port, whichever is seen first.
            let found = parse(text);
            assert!(found == Err(why) || (text == "fe80::1" && found.is_err()), "{text:?}: {found:?}");
        }
        assert_eq!(Target::parse("example.com", None), Err(Malformed::Port));
    }

    #[test]
    fn port_80_is_not_written() {
        for (text, shown) in [("[::1]:80", "[::1]"), ("[::1]:81", "[::1]:81"), ("a.b:80", "a.b"), ("a.b:8", "a.b:8")] {
            assert_eq!(Target::parse(text, None).unwrap().url_authority(Scheme::Http), shown);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_the_same_twice(text in "\\PC{0,40}|[0-9a-fx.:\\[\\]%]{0,30}") {
            if let Ok(target) = Target::parse(&text, NonZeroU16::new(80)) {
                prop_assert_eq!(Target::parse(&target.to_string(), None), Ok(target));
            }
        }
    }
}
