//! Statements that give a packet another address: NAT and transparent proxies.

use super::field::{Network, Source};
use super::rule::{Reader, Value};
use super::statement::Wanted;
use crate::nft::{Data, Family, Nat, NatFlags, NatKind, NatPorts, Register, RegisterRange};

impl Reader<'_> {
    pub(super) fn ports(&mut self, what: &str, to: &NatPorts) -> Result<String, String> {
        let mut text = what.to_owned();
        if let Some(ports) = to.ports {
            if !self.has_ports() {
                return Err("nft(8) asks for a transport protocol in front of ports".to_owned());
            }
            text += &format!(" to :{}", self.range(ports, Wanted::PORT)?);
        }
        Ok(text + &nat_flags(to.flags, implied(false, to.ports.is_some()))?)
    }

    /// What an immediate has put into a register.
    fn constant(&mut self, register: Register) -> Result<Data, String> {
        match self.take(register.index().into())? {
            Value { source: Source::Constant(index), mask: None, turned: false, .. } => {
                Ok(self.constants[index].clone())
            }
            other => Err(format!("nft(8) has no way to write {} here", self.told(other.source))),
        }
    }

    /// Whether nft(8) takes ports here.
    fn has_ports(&self) -> bool {
        matches!(self.context.transport, Some(6 | 17 | 33 | 132 | 136)) || self.context.transports
    }

    fn range(&mut self, range: RegisterRange, wanted: Wanted) -> Result<String, String> {
        let min = self.argument(range.min, wanted)?;
        if range.min == range.max { Ok(min) } else { Ok(format!("{min}-{}", self.argument(range.max, wanted)?)) }
    }

    pub(super) fn nat(&mut self, nat: &Nat) -> Result<String, String> {
        let statement = match nat.kind {
            NatKind::Source => "snat",
            NatKind::Destination => "dnat",
        };
        let (word, wanted) = match nat.family {
            Family::Ip => (" ip", Wanted::IPV4),
            Family::Ip6 => (" ip6", Wanted::IPV6),
            _ => ("", Wanted::IPV4),
        };
        let width = wanted.width;
        let known = match nat.family {
            Family::Ip => Some(Network::Ip),
            Family::Ip6 => Some(Network::Ip6),
            _ => None,
        };
        if nat.addresses.is_some() && known.is_none() {
            return Err("nft(8) needs to know of which family an address is".to_owned());
        }
        if known.is_some() && self.context.network.is_some_and(|network| Some(network) != known) {
            return Err("it translates to an address of another family than it asks for".to_owned());
        }
        // Only a table of both families has a choice.
        let word = if self.rule.table.family == Family::Inet { word } else { "" };
        let netmap = nat.flags.has(NatFlags::NETMAP);
        let flags = NatFlags(nat.flags.0 & !NatFlags::NETMAP.0);
        let flags = nat_flags(flags, implied(nat.addresses.is_some(), nat.ports.is_some()))?;
        let word = if netmap { format!("{word} prefix") } else { word.to_owned() };
        let addresses = match nat.addresses {
            None => String::new(),
            Some(RegisterRange { min, max }) if min == max => {
                let value = self.take(min.index().into())?;
                // A map to addresses and ports fills both registers.
                let both = nat.ports.is_some_and(|ports| {
                    ports.min == ports.max
                        && usize::from(ports.min.index()) == usize::from(min.index()) + width / 4
                        && value.width == width + 4
                });
                if both {
                    let text = self.bare(&value)?;
                    return Ok(format!("{statement}{word} to {text}{flags}"));
                }
                if value.width != width {
                    return Err("nft(8) syntax is not known for a map to ranges".to_owned());
                }
                self.argument_of(&value, wanted)?
            }
            // A map to ranges of addresses and ports fills four.
            Some(RegisterRange { min, max })
                if nat.ports.is_some_and(|ports| {
                    let places = [min, ports.min, max, ports.max].map(|register| usize::from(register.index()));
                    let start = places[0];
                    places == [start, start + width / 4, start + width / 4 + 1, start + width / 2 + 1]
                }) && self.peek(min).map(|value| value.width) == Some(2 * (width + 4)) =>
            {
                let value = self.take(min.index().into())?;
                let text = self.bare(&value)?;
                return Ok(format!("{statement}{word} to {text}{flags}"));
            }
            // A map to ranges fills both registers.
            Some(RegisterRange { min, max })
                if nat.ports.is_none()
                    && usize::from(max.index()) == usize::from(min.index()) + width / 4
                    && self.peek(min).map(|value| value.width) == Some(2 * width) =>
            {
                let value = self.take(min.index().into())?;
                self.bare(&value)?
            }
            Some(range) if netmap => {
                let (min, max) = (self.constant(range.min)?, self.constant(range.max)?);
                super::element::field_range(wanted.kind, min.as_bytes(), max.as_bytes())
                    .filter(|text| text.contains('/'))
                    .ok_or("nft(8) maps prefixes on each other alone")?
            }
            Some(range) if nat.family == Family::Ip6 && nat.ports.is_some() => {
                let (min, max) = (self.argument(range.min, wanted)?, self.argument(range.max, wanted)?);
                // The brackets around one address come behind.
                format!("{min}]-[{max}")
            }
            Some(range) => self.range(range, wanted)?,
        };
        let ports = match nat.ports {
            None => String::new(),
            Some(_) if !self.has_ports() => {
                return Err("nft(8) asks for a transport protocol in front of ports".to_owned());
            }
            Some(ports) => format!(":{}", self.range(ports, Wanted::PORT)?),
        };
        let addresses = match (nat.family, ports.is_empty()) {
            (Family::Ip6, false) if !addresses.is_empty() => format!("[{addresses}]"),
            _ => addresses,
        };
        Ok(format!("{statement}{word} to {addresses}{ports}{flags}"))
    }

    pub(super) fn tproxy(
        &mut self,
        family: Option<Family>,
        address: Option<Register>,
        port: Option<Register>,
    ) -> Result<String, String> {
        if !(matches!(self.context.transport, Some(6 | 17)) || self.context.transports) {
            return Err("nft(8) asks for TCP or UDP in front of it".to_owned());
        }
        let (word, wanted) = match family {
            Some(Family::Ip) => ("ip ", Wanted::IPV4),
            Some(Family::Ip6) => ("ip6 ", Wanted::IPV6),
            _ if address.is_none() => ("", Wanted::IPV4),
            _ => return Err("nft(8) needs to know of which family an address is".to_owned()),
        };
        let word = if self.rule.table.family == Family::Inet { word } else { "" };
        let address = address.map(|address| self.argument(address, wanted)).transpose()?;
        let address = match (address, wanted.width, port) {
            (Some(address), 16, Some(_)) => format!("[{address}]"),
            (address, ..) => address.unwrap_or_default(),
        };
        let port = port.map(|port| self.argument(port, Wanted::PORT)).transpose()?;
        Ok(format!("tproxy {word}to {address}{}", port.map(|port| format!(":{port}")).unwrap_or_default()))
    }
}

/// The flags that the kernel itself sets where there is an address, and where there is a port.
fn implied(address: bool, port: bool) -> NatFlags {
    let of = |there, flag| if there { flag } else { NatFlags(0) };
    of(address, NatFlags::MAP_IPS).and(of(port, NatFlags::PROTO_SPECIFIED))
}

fn nat_flags(flags: NatFlags, implied: NatFlags) -> Result<String, String> {
    let words =
        [(NatFlags::RANDOM, "random"), (NatFlags::FULLY_RANDOM, "fully-random"), (NatFlags::PERSISTENT, "persistent")];
    let known = words.iter().fold(implied, |known, (flag, _)| known.and(*flag));
    if flags.0 & !known.0 != 0 {
        return Err(format!("nft(8) has no word for its flags {:#x}", flags.0));
    }
    let names: Vec<_> = words.iter().filter(|(flag, _)| flags.has(*flag)).map(|(_, name)| *name).collect();
    Ok(if names.is_empty() { String::new() } else { format!(" {}", names.join(",")) })
}
