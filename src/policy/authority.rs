//! `HOST`, `HOST:PORT` and `[IPV6]:PORT`, which every entry of a policy is made of.
//!
//! The functions here give a reason instead of an error: whoever calls them knows what was expected and quotes the
//! whole value.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;

use ipnet::{IpNet, Ipv4Net};

use super::origin::part;
use super::{DnsName, Host};

/// Why a text is not what it should be.
pub(super) type Reason = String;

/// A text taken apart at its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Authority<'a> {
    /// Left of the port, without brackets.
    pub(super) host: &'a str,
    /// Right of the colon.
    pub(super) port: Option<&'a str>,
    /// How the host was written.
    pub(super) form: Form,
}

/// How a host was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// No colon in it.
    Plain,
    /// In brackets.
    Bracketed,
    /// With several colons and no brackets: an IPv6 address, if anything, and no way to tell a port.
    Colons,
}

impl<'a> Authority<'a> {
    pub(super) fn split(text: &'a str) -> Result<Self, Reason> {
        if text.is_empty() {
            return Err("it is empty".into());
        }
        if let Some((_, rest)) = text.split_once("://") {
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let host = host.rsplit('@').next().unwrap_or_default();
            return Err(format!("a host is due here, not a URL: write {}", part(host)));
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (host, after) = rest.split_once(']').ok_or("the `]` is missing")?;
            let port = match after.strip_prefix(':') {
                Some(port) => Some(port),
                None if after.is_empty() => None,
                None => return Err("only `:PORT` may follow the `]`".into()),
            };
            return Ok(Self { host, port, form: Form::Bracketed });
        }
        let mut pieces = text.splitn(3, ':');
        let host = pieces.next().unwrap_or_default();
        match (pieces.next(), pieces.next()) {
            (port, None) => Ok(Self { host, port, form: Form::Plain }),
            _ => Ok(Self { host: text, port: None, form: Form::Colons }),
        }
    }

    /// The host as a name or address.
    pub(super) fn host(self) -> Result<Host, Reason> {
        match (self.form, self.host.parse::<IpAddr>()) {
            (Form::Bracketed, Ok(IpAddr::V4(_)) | Err(_)) => {
                Err(format!("only an IPv6 address stands in brackets, and {} is none", part(self.host)))
            }
            (_, Ok(address)) => Ok(Host::Address(address.to_canonical())),
            _ => DnsName::read(self.host).map(Host::Name),
        }
    }

    /// The port, where one was written.
    pub(super) fn port(self) -> Result<Option<NonZeroU16>, Reason> {
        self.port.map(port).transpose()
    }
}

/// Parses `HOST:PORT`, where the port may not be left out; `usual` is the one to suggest to whoever does.
pub(super) fn host_and_port(text: &str, usual: u16) -> Result<(Host, NonZeroU16), Reason> {
    with_port(text, usual, Authority::host)
}

/// Parses something with a port behind it, which may not be left out; `usual` is the one to suggest to whoever does.
pub(super) fn with_port<'a, T>(
    text: &'a str,
    usual: u16,
    read: impl FnOnce(Authority<'a>) -> Result<T, Reason>,
) -> Result<(T, NonZeroU16), Reason> {
    let authority = Authority::split(text)?;
    if authority.form == Form::Colons {
        return Err(brackets(text, usual));
    }
    let host = read(authority)?;
    match authority.port()? {
        Some(port) => Ok((host, port)),
        None => Err(format!("the port is missing: write {}", part(&format!("{text}:{usual}")))),
    }
}

/// Parses `ADDRESS:PORT`, as [`host_and_port`].
pub(super) fn address_and_port(text: &str, usual: u16) -> Result<(IpAddr, NonZeroU16), Reason> {
    match host_and_port(text, usual)? {
        (Host::Address(address), port) => Ok((address, port)),
        (Host::Name(name), _) => Err(format!("an address is due here, and {} is a name", part(name.as_str()))),
    }
}

/// How to spell an IPv6 address with a port, to somebody who left out the brackets.
fn brackets(text: &str, usual: u16) -> Reason {
    if let Some((address, tail)) = text.rsplit_once(':')
        && address.parse::<Ipv6Addr>().is_ok()
        && port(tail).is_ok()
    {
        format!("an IPv6 address with a port stands in brackets: `[{address}]:{tail}`")
    } else if text.parse::<Ipv6Addr>().is_ok() {
        format!("an IPv6 address stands in brackets, and the port is missing: `[{text}]:{usual}`")
    } else {
        format!("several colons, and no IPv6 address in brackets such as `[2001:db8::9]:{usual}`")
    }
}

/// Parses a port: decimal digits, from 1 to 65535.
pub(super) fn port(text: &str) -> Result<NonZeroU16, Reason> {
    if text.is_empty() {
        return Err("the port after the colon is missing".into());
    }
    if text == "0" {
        return Err("port 0 cannot be connected to".into());
    }
    match number(text).and_then(|port| NonZeroU16::new(u16::try_from(port).ok()?)) {
        Some(port) => Ok(port),
        None => Err(format!("{} is no port from 1 to 65535", part(text))),
    }
}

/// Parses decimal digits, without sign or leading zero: every number has one spelling.
pub(super) fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// Parses `ADDRESS/LENGTH`, all bits behind the length zero. IPv4-mapped prefixes become IPv4.
pub(super) fn prefix(text: &str) -> Result<IpNet, Reason> {
    let (address, length) = text.split_once('/').ok_or("the `/` and the prefix length are missing")?;
    let Ok(address) = address.parse::<IpAddr>() else {
        return Err(format!("{} is no address in front of a `/`", part(address)));
    };
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let Some(length) = number(length).filter(|length| *length <= longest) else {
        return Err(format!("{} is no prefix length from 0 to {longest}", part(length)));
    };
    // The checks above leave nothing to fail here.
    let net = u8::try_from(length).ok().and_then(|length| IpNet::new(address, length).ok());
    let net = net.ok_or("the prefix length is out of range")?;
    if net.network() != net.addr() {
        return Err(format!("bits are set behind the prefix: write `{}`", net.trunc()));
    }
    if let IpNet::V6(v6) = net
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && let Some(length) = v6.prefix_len().checked_sub(96)
        && let Ok(v4) = Ipv4Net::new(v4, length)
    {
        return Ok(IpNet::V4(v4));
    }
    Ok(net)
}

/// Why nobody can have a conversation with that address, from wherever.
pub(super) fn nobody(address: IpAddr) -> Option<Reason> {
    let why = match address.to_canonical() {
        address if address.is_unspecified() => "is the unspecified address, which is nobody's",
        address if address.is_multicast() => "is a multicast address, which is no single host's",
        IpAddr::V4(v4) if v4.is_broadcast() => "is the broadcast address, which is no single host's",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => "is link-local, which means another host on every wire",
        _ => return None,
    };
    Some(format!("`{address}` {why}"))
}

/// Why the sandbox itself can't send to that address; `instead` is what to do about a loopback address.
pub(super) fn unreachable(address: IpAddr, instead: &str) -> Option<Reason> {
    if address.to_canonical().is_loopback() {
        return Some(format!("`{address}` is the sandbox's own loopback; {instead}"));
    }
    nobody(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_one_spelling() {
        for (text, port_or_reason) in [
            ("1", Ok(1)),
            ("65535", Ok(65535)),
            ("", Err("the port after the colon is missing")),
            ("0", Err("port 0 cannot be connected to")),
            ("00", Err("`00` is no port from 1 to 65535")),
            ("080", Err("`080` is no port from 1 to 65535")),
            ("+80", Err("`+80` is no port from 1 to 65535")),
            ("-1", Err("`-1` is no port from 1 to 65535")),
            ("65536", Err("`65536` is no port from 1 to 65535")),
            ("99999999999999999999", Err("`99999999999999999999` is no port from 1 to 65535")),
            ("https", Err("`https` is no port from 1 to 65535")),
            ("4 3", Err("`4 3` is no port from 1 to 65535")),
            ("٤", Err("`٤` is no port from 1 to 65535")),
        ] {
            assert_eq!(port(text).map(u16::from), port_or_reason.map_err(String::from), "{text}");
        }
    }

    #[test]
    fn a_prefix_has_no_bits_behind_its_length() {
        for (text, net_or_reason) in [
            ("203.0.113.0/24", Ok("203.0.113.0/24")),
            ("0.0.0.0/0", Ok("0.0.0.0/0")),
            ("2001:db8::/32", Ok("2001:db8::/32")),
            ("::ffff:203.0.113.0/120", Ok("203.0.113.0/24")),
            ("::ffff:0:0/96", Ok("0.0.0.0/0")),
            ("203.0.113.9/24", Err("bits are set behind the prefix: write `203.0.113.0/24`")),
            ("::ffff:0:0/95", Err("bits are set behind the prefix: write `::fffe:0:0/95`")),
            ("203.0.113.0/33", Err("`33` is no prefix length from 0 to 32")),
            ("2001:db8::/129", Err("`129` is no prefix length from 0 to 128")),
            ("203.0.113.0/", Err("`` is no prefix length from 0 to 32")),
            ("203.0.113.0/024", Err("`024` is no prefix length from 0 to 32")),
            ("203.0.113.0/255.255.255.0", Err("`255.255.255.0` is no prefix length from 0 to 32")),
            ("010.0.0.0/8", Err("`010.0.0.0` is no address in front of a `/`")),
            ("10/8", Err("`10` is no address in front of a `/`")),
        ] {
            assert_eq!(prefix(text).map(|net| net.to_string()), net_or_reason.map(String::from).map_err(String::from));
        }
    }
}
