//! Direct endpoints: `HOST:PORT` over TCP or UDP.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use serde::{Serialize, Serializer};

use super::authority::{Authority, Form, Reason, unreachable, with_port};
use super::{DnsName, Host, HostPattern, PolicyError};

/// Transport protocol of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Its number in IP headers.
    pub const fn protocol(self) -> u8 {
        match self {
            Transport::Tcp => 6,
            Transport::Udp => 17,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        })
    }
}

/// Who a direct endpoint is: an address, or names whose addresses are learnt from answers. Shown and serialised as it is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointHost {
    /// An address. IPv4-mapped IPv6 is kept as IPv4.
    Address(IpAddr),
    /// A name, or all names below one.
    Pattern(HostPattern),
}

impl EndpointHost {
    /// Whether it is a pattern that names that name.
    pub fn matches(&self, name: &DnsName) -> bool {
        matches!(self, EndpointHost::Pattern(pattern) if pattern.matches(name))
    }

    fn read(authority: Authority<'_>) -> Result<Self, Reason> {
        if authority.form == Form::Plain && authority.host.contains('*') {
            return HostPattern::read(authority.host).map(EndpointHost::Pattern);
        }
        authority.host().map(Self::from)
    }
}

impl From<Host> for EndpointHost {
    fn from(host: Host) -> Self {
        match host {
            Host::Name(name) => EndpointHost::Pattern(HostPattern::Exact(name)),
            Host::Address(address) => EndpointHost::Address(address.to_canonical()),
        }
    }
}

impl fmt::Display for EndpointHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndpointHost::Address(address) => address.fmt(f),
            EndpointHost::Pattern(pattern) => pattern.fmt(f),
        }
    }
}

impl Serialize for EndpointHost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A host and port that the sandbox may reach itself, past the proxy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Endpoint {
    /// Names or an address.
    pub host: EndpointHost,
    /// Port, from 1.
    pub port: NonZeroU16,
    /// TCP or UDP.
    pub transport: Transport,
}

impl Endpoint {
    /// Parses `HOST:PORT`, where the host may be `*.NAME`.
    ///
    /// # Errors
    /// Whatever is not one host or pattern and one port, and whatever the sandbox can't send to over its wire: loopback,
    /// unspecified, multicast, broadcast and link-local IPv6 addresses.
    pub fn parse(text: &str, transport: Transport) -> Result<Self, PolicyError> {
        let parsed = with_port(text, 443, EndpointHost::read).and_then(|(host, port)| {
            let endpoint = Self { host, port, transport };
            endpoint.check().map(|()| endpoint)
        });
        parsed.map_err(|reason| PolicyError::new("a direct endpoint `HOST:PORT`", text).because(reason))
    }

    /// Parses a host; the endpoint is its TCP port 443.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and when there is a port.
    pub fn parse_host(text: &str) -> Result<Self, PolicyError> {
        const HTTPS: NonZeroU16 = NonZeroU16::new(443).unwrap();
        let expected = "a host to reach on TCP port 443";
        let host = Authority::split(text).and_then(|authority| match (authority.form, authority.port) {
            (Form::Plain | Form::Bracketed, Some(_)) => Err("a host is due here, without a port".into()),
            _ => EndpointHost::read(authority),
        });
        let parsed = host.and_then(|host| {
            let endpoint = Self { host, port: HTTPS, transport: Transport::Tcp };
            endpoint.check().map(|()| endpoint)
        });
        parsed.map_err(|reason| PolicyError::new(expected, text).because(reason))
    }

    fn check(&self) -> Result<(), Reason> {
        let instead = format!("what listens on the host's is reached through the proxy, `--allow {self}`",);
        let reason = match &self.host {
            EndpointHost::Address(address) => unreachable(*address, &instead),
            EndpointHost::Pattern(pattern) if pattern.base().is_localhost() => {
                Some(format!("`{pattern}` is the sandbox's own loopback; {instead}"))
            }
            EndpointHost::Pattern(_) => None,
        };
        reason.map_or(Ok(()), Err)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            EndpointHost::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_that_are() {
        for (text, shown) in [
            ("example.com:443", "example.com:443"),
            ("DB.Example.com.:5432", "db.example.com:5432"),
            ("203.0.113.9:1", "203.0.113.9:1"),
            ("[2001:db8::9]:65535", "[2001:db8::9]:65535"),
            ("[::ffff:203.0.113.9]:443", "203.0.113.9:443"),
            ("169.254.169.254:80", "169.254.169.254:80"),
            ("*.Example.com.:443", "*.example.com:443"),
        ] {
            for transport in [Transport::Tcp, Transport::Udp] {
                let endpoint = Endpoint::parse(text, transport).unwrap();
                assert_eq!((endpoint.to_string().as_str(), endpoint.transport), (shown, transport));
            }
        }
        assert_eq!(Endpoint::parse_host("Example.com").unwrap().to_string(), "example.com:443");
        assert_eq!(Endpoint::parse_host("*.example.com").unwrap().to_string(), "*.example.com:443");
        assert_eq!(
            Endpoint::parse_host("2001:db8::9").unwrap(),
            Endpoint::parse("[2001:db8::9]:443", Transport::Tcp).unwrap()
        );
    }

    #[test]
    fn endpoints_that_are_not() {
        let own = |address: &str| {
            format!(
                "`{address}` is the sandbox's own loopback; what listens on the host's is reached through the proxy, `--allow"
            )
        };
        for (text, reason) in [
            ("", "it is empty".into()),
            ("example.com", "the port is missing: write `example.com:443`".into()),
            ("[2001:db8::9]", "the port is missing: write `[2001:db8::9]:443`".into()),
            ("example.com:", "the port after the colon is missing".into()),
            (":443", "the host is missing".into()),
            ("example.com:0", "port 0 cannot be connected to".into()),
            ("example.com:65536", "`65536` is no port from 1 to 65535".into()),
            ("example.com:https", "`https` is no port from 1 to 65535".into()),
            ("2001:db8::9:443", "an IPv6 address with a port stands in brackets: `[2001:db8::9]:443`".into()),
            ("2001:db8::9", "an IPv6 address stands in brackets, and the port is missing: `[2001:db8::9]:443`".into()),
            ("1:2:3:4:5:6:7:8:443", "an IPv6 address with a port stands in brackets: `[1:2:3:4:5:6:7:8]:443`".into()),
            ("a:b:c", "several colons, and no IPv6 address in brackets such as `[2001:db8::9]:443`".into()),
            ("203.0.113.0/24:443", "one address is due here, and `203.0.113.0/24` is a range".into()),
            ("*:443", "a lone `*` is everybody: name who may be reached".into()),
            ("a*.example.com:443", "a wildcard is the whole first label, as in `*.example.com`".into()),
            ("*.*.example.com:443", "only the first label may be `*`".into()),
            ("*.example.com", "the port is missing: write `*.example.com:443`".into()),
            ("*.localhost:80", format!("{} *.localhost:80`", own("*.localhost"))),
            ("tcp://example.com:443", "a host is due here, not a URL: write `example.com:443`".into()),
            ("bücher.example:443", "a name with other than ASCII letters is written in punycode, as `xn--…`".into()),
            ("127.0.0.1:80", format!("{} 127.0.0.1:80`", own("127.0.0.1"))),
            ("127.9.9.9:80", format!("{} 127.9.9.9:80`", own("127.9.9.9"))),
            ("[::1]:80", format!("{} [::1]:80`", own("::1"))),
            ("[::ffff:127.0.0.1]:80", format!("{} 127.0.0.1:80`", own("127.0.0.1"))),
            ("localhost:80", format!("{} localhost:80`", own("localhost"))),
            ("0.0.0.0:80", "`0.0.0.0` is the unspecified address, which is nobody's".into()),
            ("[::]:80", "`::` is the unspecified address, which is nobody's".into()),
            ("224.0.0.251:5353", "`224.0.0.251` is a multicast address, which is no single host's".into()),
            ("[ff02::fb]:5353", "`ff02::fb` is a multicast address, which is no single host's".into()),
            ("255.255.255.255:67", "`255.255.255.255` is the broadcast address, which is no single host's".into()),
            ("[fe80::1]:80", "`fe80::1` is link-local, which means another host on every wire".into()),
        ] {
            let error = Endpoint::parse(text, Transport::Tcp).unwrap_err();
            assert_eq!(error.reason, Some(reason), "{text}");
        }
    }

    #[test]
    fn a_direct_host_has_no_port() {
        for (text, error) in [
            (
                "example.com:443",
                "the caller: `example.com:443` is not a host to reach on TCP port 443 (a host is due here, without a port)",
            ),
            (
                "*",
                "the caller: `*` is not a host to reach on TCP port 443 (a lone `*` is everybody: name who may be reached)",
            ),
            (
                "::",
                "the caller: `::` is not a host to reach on TCP port 443 (`::` is the unspecified address, which is nobody's)",
            ),
        ] {
            assert_eq!(Endpoint::parse_host(text).unwrap_err().to_string(), error);
        }
    }
}
