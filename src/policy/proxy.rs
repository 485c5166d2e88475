//! Which proxy stands between the sandbox and the world, and how it is told who asks.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::authority::{Authority, Form, Reason, address_and_port, host_and_port, nobody, unreachable};
use super::host::WithPort;
use super::origin::{REDACTED, part};
use super::{Host, PolicyError};

/// What most proxies listen on, ours too.
const USUAL: u16 = 3128;

/// User and password for a proxy. Shown nowhere: neither by `Debug` nor in JSON.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: String,
}

impl Credentials {
    /// The user, decoded. Without a colon.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password, decoded; empty where none was given.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Parses `USER[:PASSWORD]` with percent escapes. What it gives as reason quotes nothing of either.
    fn read(text: &str) -> Result<Self, Reason> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let (user, password) = (decoded(user)?, decoded(password)?);
        // RFC 7617 joins the two by a colon, and lets neither have control characters.
        if user.contains(':') {
            return Err("the user of the proxy can't have a colon in it".into());
        }
        if user.is_empty() && password.is_empty() {
            return Err("there is nothing in front of the `@`".into());
        }
        Ok(Self { user, password })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// Takes the percent escapes out of one half of the credentials.
fn decoded(text: &str) -> Result<String, Reason> {
    if text.bytes().any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'<' | b'>' | b'"' | b'/' | b'?' | b'#')) {
        return Err("credentials have a character that is due as a percent escape (`/` is `%2F`, `@` is `%40`)".into());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).map(|digit| digit as u8);
        bytes.push(match byte {
            b'%' => match (digit(rest.next()), digit(rest.next())) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err("a `%` in the credentials is not followed by two hexadecimal digits".into()),
            },
            plain => plain,
        });
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => Ok(text),
        Ok(_) => Err("the credentials have a control character".into()),
        Err(_) => Err("the credentials are not UTF-8 once decoded".into()),
    }
}

/// An HTTP proxy that is reached from the host: `http://[USER[:PASSWORD]@]HOST[:PORT]`, or `HOST:PORT`.
///
/// The port of a URL is 80 where it has none. `Display`, `Debug` and JSON say `<redacted>` for the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    /// Name or address, as the host sees it.
    pub host: Host,
    /// Port.
    pub port: NonZeroU16,
    /// What to log in with.
    pub credentials: Option<Credentials>,
}

impl ProxyUrl {
    fn read(text: &str) -> Result<Self, Reason> {
        const HTTP: NonZeroU16 = NonZeroU16::new(80).unwrap();
        if text.is_empty() {
            return Err("it is empty".into());
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            if text.contains('@') {
                return Err("credentials stand in a URL: `http://USER:PASSWORD@HOST:PORT`".into());
            }
            let (host, port) = host_and_port(text, USUAL)?;
            return Self::checked(host, port, None);
        };
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            "https" => {
                return Err("https is not supported: the proxy itself is spoken to in plain HTTP, also about https destinations".into());
            }
            "socks" | "socks4" | "socks4a" | "socks5" | "socks5h" => {
                return Err("SOCKS is not supported: the proxy is spoken to in HTTP".into());
            }
            other => return Err(format!("the scheme {} is not supported, `http` is", part(other))),
        }
        let (credentials, authority) = match rest.rsplit_once('@') {
            Some((credentials, authority)) => (Some(Credentials::read(credentials)?), authority),
            None => (None, rest),
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains(['/', '?', '#']) {
            return Err("the URL of a proxy has no path".into());
        }
        let authority = Authority::split(authority)?;
        if authority.form == Form::Colons {
            return Err(format!("an IPv6 address stands in brackets in a URL, and {} does not", part(authority.host)));
        }
        Self::checked(authority.host()?, authority.port()?.unwrap_or(HTTP), credentials)
    }

    /// The URL with its credentials, for nobody's eyes.
    pub(super) fn with_credentials(&self) -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
        let escaped = |text: &str| {
            let escape = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
            text.bytes().map(escape).collect::<String>()
        };
        let authority = WithPort(&self.host, self.port.get());
        match &self.credentials {
            Some(secret) => format!("http://{}:{}@{authority}", escaped(&secret.user), escaped(&secret.password)),
            None => format!("http://{authority}"),
        }
    }

    /// Loopback is fine: it is the host that connects.
    fn checked(host: Host, port: NonZeroU16, credentials: Option<Credentials>) -> Result<Self, Reason> {
        match &host {
            Host::Address(address) => nobody(*address).map_or(Ok(()), Err)?,
            Host::Name(_) => {}
        }
        Ok(Self { host, port, credentials })
    }
}

impl FromStr for ProxyUrl {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Self::read(text).map_err(|reason| {
            PolicyError::new("a proxy `http://[USER[:PASSWORD]@]HOST[:PORT]` or `HOST:PORT`", redacted(text))
                .because(reason)
        })
    }
}

/// The text without credentials that stand there with no scheme in front; with one, every error takes them out.
fn redacted(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((front, host)) if !front.contains("://") => format!("{REDACTED}@{host}"),
        _ => text.into(),
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("http://")?;
        if self.credentials.is_some() {
            write!(f, "{REDACTED}@")?;
        }
        WithPort(&self.host, self.port.get()).fmt(f)
    }
}

impl Serialize for ProxyUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A proxy at an address that the sandbox itself can send to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyAt {
    /// Address; IPv4-mapped IPv6 is kept as IPv4.
    pub address: IpAddr,
    /// Port.
    pub port: NonZeroU16,
}

impl ProxyAt {
    /// Both as one.
    pub fn socket(self) -> SocketAddr {
        SocketAddr::new(self.address, self.port.get())
    }
}

impl FromStr for ProxyAt {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let instead = "a proxy on the host's is reached with `--proxy`";
        let parsed = address_and_port(text, USUAL).and_then(|(address, port)| match unreachable(address, instead) {
            Some(reason) => Err(reason),
            None => Ok(Self { address, port }),
        });
        parsed.map_err(|reason| PolicyError::new("a proxy `ADDRESS:PORT`", redacted(text)).because(reason))
    }
}

impl fmt::Display for ProxyAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket().fmt(f)
    }
}

impl Serialize for ProxyAt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_that_are() {
        for (text, shown, credentials) in [
            ("proxy.example:3128", "http://proxy.example:3128", None),
            ("127.0.0.1:3128", "http://127.0.0.1:3128", None),
            ("[2001:db8::9]:3128", "http://[2001:db8::9]:3128", None),
            ("http://proxy.example:3128", "http://proxy.example:3128", None),
            ("HTTP://Proxy.example:3128/", "http://proxy.example:3128", None),
            ("http://proxy.example", "http://proxy.example:80", None),
            ("http://[::1]", "http://[::1]:80", None),
            ("http://user@h:1", "http://<redacted>@h:1", Some(("user", ""))),
            ("http://user:@h:1", "http://<redacted>@h:1", Some(("user", ""))),
            ("http://:pass@h:1", "http://<redacted>@h:1", Some(("", "pass"))),
            ("http://user:p:a:ss@h:1", "http://<redacted>@h:1", Some(("user", "p:a:ss"))),
            ("http://us%40er:p%2f%C3%A4%25@h:1", "http://<redacted>@h:1", Some(("us@er", "p/ä%"))),
            ("http://u:p@ss@h:1", "http://<redacted>@h:1", Some(("u", "p@ss"))),
        ] {
            let proxy = text.parse::<ProxyUrl>().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(proxy.to_string(), shown);
            assert_eq!(proxy.credentials.as_ref().map(|both| (both.user(), both.password())), credentials);
        }
    }

    #[test]
    fn proxies_that_are_not() {
        for (text, found, reason) in [
            ("", "", "it is empty"),
            ("proxy", "proxy", "the port is missing: write `proxy:3128`"),
            ("http://", "http://", "it is empty"),
            ("http:///", "http:///", "it is empty"),
            ("http://:80", "http://:80", "the host is missing"),
            ("http://h:0", "http://h:0", "port 0 cannot be connected to"),
            ("http://h/pac", "http://h/pac", "the URL of a proxy has no path"),
            ("http://h?x", "http://h?x", "the URL of a proxy has no path"),
            ("http://::1:80", "http://::1:80", "an IPv6 address stands in brackets in a URL, and `::1:80` does not"),
            ("http://0.0.0.0:80", "http://0.0.0.0:80", "`0.0.0.0` is the unspecified address, which is nobody's"),
            (
                "https://u:secret@h:1",
                "https://<redacted>@h:1",
                "https is not supported: the proxy itself is spoken to in plain HTTP, also about https destinations",
            ),
            (
                "socks5://u:secret@h:1",
                "socks5://<redacted>@h:1",
                "SOCKS is not supported: the proxy is spoken to in HTTP",
            ),
            ("ftp://h:1", "ftp://h:1", "the scheme `ftp` is not supported, `http` is"),
            ("u:secret@h:1", "<redacted>@h:1", "credentials stand in a URL: `http://USER:PASSWORD@HOST:PORT`"),
            ("http:/u:secret@h:1", "<redacted>@h:1", "credentials stand in a URL: `http://USER:PASSWORD@HOST:PORT`"),
            ("http://@h:1", "http://<redacted>@h:1", "there is nothing in front of the `@`"),
            ("http://:@h:1", "http://<redacted>@h:1", "there is nothing in front of the `@`"),
            (
                "http://u:secret%@h:1",
                "http://<redacted>@h:1",
                "a `%` in the credentials is not followed by two hexadecimal digits",
            ),
            (
                "http://u:secret%+1@h:1",
                "http://<redacted>@h:1",
                "a `%` in the credentials is not followed by two hexadecimal digits",
            ),
            ("http://u:secret%ff@h:1", "http://<redacted>@h:1", "the credentials are not UTF-8 once decoded"),
            ("http://u:secret%0d%0a@h:1", "http://<redacted>@h:1", "the credentials have a control character"),
            ("http://u%3a:secret@h:1", "http://<redacted>@h:1", "the user of the proxy can't have a colon in it"),
            (
                "http://u:sec/ret@h:1",
                "http://<redacted>@h:1",
                "credentials have a character that is due as a percent escape (`/` is `%2F`, `@` is `%40`)",
            ),
            (
                "http://u:sec ret@h:1",
                "http://<redacted>@h:1",
                "credentials have a character that is due as a percent escape (`/` is `%2F`, `@` is `%40`)",
            ),
            ("http://u:secret@h:x", "http://<redacted>@h:x", "`x` is no port from 1 to 65535"),
        ] {
            let error = text.parse::<ProxyUrl>().unwrap_err();
            assert_eq!((error.found.as_str(), error.reason.as_deref()), (found, Some(reason)), "{text}");
        }
    }

    #[test]
    fn credentials_are_shown_nowhere() {
        let proxy: ProxyUrl = "http://alice:secret@proxy.example:3128".parse().unwrap();
        let json = serde_json::to_string(&proxy).unwrap();
        assert_eq!(json, r#""http://<redacted>@proxy.example:3128""#);
        for shown in [format!("{proxy:?}"), format!("{proxy:#?}"), proxy.to_string(), json] {
            assert!(!shown.contains("secret") && !shown.contains("alice"), "{shown}");
            assert!(shown.contains("<redacted>"), "{shown}");
        }
        assert!(proxy.to_string().parse::<ProxyUrl>().is_err(), "what is shown must not go back in");
    }

    #[test]
    fn a_proxy_at_is_an_address_the_sandbox_can_send_to() {
        for (text, shown) in [
            ("203.0.113.9:3128", "203.0.113.9:3128"),
            ("[2001:db8::9]:3128", "[2001:db8::9]:3128"),
            ("[::ffff:203.0.113.9]:1", "203.0.113.9:1"),
        ] {
            assert_eq!(text.parse::<ProxyAt>().unwrap().to_string(), shown);
        }
        for (text, reason) in [
            ("proxy.example:3128", "an address is due here, and `proxy.example` is a name"),
            ("203.0.113.9", "the port is missing: write `203.0.113.9:3128`"),
            (
                "127.0.0.1:3128",
                "`127.0.0.1` is the sandbox's own loopback; a proxy on the host's is reached with `--proxy`",
            ),
            ("[fe80::1]:3128", "`fe80::1` is link-local, which means another host on every wire"),
            ("http://203.0.113.9:3128", "a host is due here, not a URL: write `203.0.113.9:3128`"),
        ] {
            assert_eq!(text.parse::<ProxyAt>().unwrap_err().reason.as_deref(), Some(reason), "{text}");
        }
        assert_eq!("http://u:secret@h:1".parse::<ProxyAt>().unwrap_err().found, "http://<redacted>@h:1");
    }
}
