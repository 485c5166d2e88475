//! Who answers the sandbox's questions about names, and how long an answer holds.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::PolicyError;
use super::authority::{Reason, address_and_port, number, unreachable};

/// Port of a resolver that was named without one.
const DOMAIN: NonZeroU16 = NonZeroU16::new(53).unwrap();

/// Who answers the sandbox's questions about names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DnsMode {
    /// The built-in resolver, for names of the policy.
    #[default]
    Auto,
    /// The built-in resolver, for every name.
    Open,
    /// Nobody.
    Off,
    /// A resolver that the sandbox sends to itself, UDP and TCP.
    Server {
        /// Its address; IPv4-mapped IPv6 is kept as IPv4.
        address: IpAddr,
        /// Its port.
        port: NonZeroU16,
    },
}

impl DnsMode {
    /// Whether the built-in resolver answers.
    pub fn is_built_in(self) -> bool {
        matches!(self, DnsMode::Auto | DnsMode::Open)
    }

    /// Address and port of a resolver that is not built in.
    pub fn server(self) -> Option<SocketAddr> {
        match self {
            DnsMode::Server { address, port } => Some(SocketAddr::new(address, port.get())),
            DnsMode::Auto | DnsMode::Open | DnsMode::Off => None,
        }
    }

    fn read(text: &str) -> Result<Self, Reason> {
        let (address, port) = match text {
            "auto" => return Ok(DnsMode::Auto),
            "open" => return Ok(DnsMode::Open),
            "off" => return Ok(DnsMode::Off),
            _ => {
                let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
                match bare.parse::<IpAddr>() {
                    Ok(address) if bare == text || address.is_ipv6() => (address.to_canonical(), DOMAIN),
                    _ if !text.contains(':') => {
                        return Err("a resolver is named by its address, and this is none".into());
                    }
                    _ => address_and_port(text, DOMAIN.get())?,
                }
            }
        };
        let instead = "`auto` asks the host's resolvers, those on its loopback included";
        match unreachable(address, instead) {
            Some(reason) => Err(reason),
            None => Ok(DnsMode::Server { address, port }),
        }
    }
}

impl FromStr for DnsMode {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Self::read(text).map_err(|reason| {
            PolicyError::new("`auto`, `open`, `off` or a resolver `ADDRESS[:PORT]`", text).because(reason)
        })
    }
}

impl fmt::Display for DnsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DnsMode::Auto => f.write_str("auto"),
            DnsMode::Open => f.write_str("open"),
            DnsMode::Off => f.write_str("off"),
            DnsMode::Server { address, port } if *port == DOMAIN => address.fmt(f),
            DnsMode::Server { address, port } => SocketAddr::new(*address, port.get()).fmt(f),
        }
    }
}

impl Serialize for DnsMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How long an address of a direct name stays open after its answer has run out, in whole seconds: for programs that keep an answer
/// longer than they were told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct DnsGrace(u32);

impl DnsGrace {
    /// The longest, a day, in seconds.
    pub const MAX: u32 = 86_400;

    /// As a time.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

impl Default for DnsGrace {
    /// 15 seconds.
    fn default() -> Self {
        Self(15)
    }
}

impl FromStr for DnsGrace {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        match number(text) {
            Some(seconds) if seconds <= Self::MAX => Ok(Self(seconds)),
            _ => Err(PolicyError::new(format!("whole seconds from 0 to {}", Self::MAX), text)),
        }
    }
}

impl fmt::Display for DnsGrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_that_are() {
        for (text, shown) in [
            ("auto", "auto"),
            ("open", "open"),
            ("off", "off"),
            ("203.0.113.53", "203.0.113.53"),
            ("203.0.113.53:53", "203.0.113.53"),
            ("203.0.113.53:5353", "203.0.113.53:5353"),
            ("2001:db8::53", "2001:db8::53"),
            ("[2001:db8::53]", "2001:db8::53"),
            ("[2001:db8::53]:53", "2001:db8::53"),
            ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
            ("::ffff:203.0.113.53", "203.0.113.53"),
        ] {
            let mode: DnsMode = text.parse().unwrap();
            assert_eq!(mode.to_string(), shown);
            assert_eq!(shown.parse::<DnsMode>().unwrap(), mode);
            assert_eq!(serde_json::to_value(mode).unwrap(), shown);
        }
        assert_eq!("203.0.113.53".parse::<DnsMode>().unwrap().server(), Some("203.0.113.53:53".parse().unwrap()));
        assert_eq!(DnsMode::default().server(), None);
    }

    #[test]
    fn modes_that_are_not() {
        for (text, reason) in [
            ("", "a resolver is named by its address, and this is none"),
            ("Auto", "a resolver is named by its address, and this is none"),
            ("dns.example", "a resolver is named by its address, and this is none"),
            ("[203.0.113.53]", "a resolver is named by its address, and this is none"),
            ("dns.example:53", "an address is due here, and `dns.example` is a name"),
            ("203.0.113.53:0", "port 0 cannot be connected to"),
            ("https://dns.example/dns-query", "a host is due here, not a URL: write `dns.example`"),
            (
                "127.0.0.53",
                "`127.0.0.53` is the sandbox's own loopback; `auto` asks the host's resolvers, those on its loopback included",
            ),
            ("::", "`::` is the unspecified address, which is nobody's"),
            ("224.0.0.251", "`224.0.0.251` is a multicast address, which is no single host's"),
        ] {
            assert_eq!(text.parse::<DnsMode>().unwrap_err().reason.as_deref(), Some(reason), "{text}");
        }
    }
}
