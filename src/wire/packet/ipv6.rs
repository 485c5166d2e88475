//! The IPv6 header, and those between it and what it carries.

use std::net::{IpAddr, Ipv6Addr};

use super::{Fragment, Packet, Protocol, Transport, Version, be16, be32, transport, wrong_version};
use crate::wire::netlink::DecodeError;

const HEADER_LEN: usize = 40;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HOST_IDENTITY: u8 = 139;
const SHIM6: u8 = 140;

pub(super) fn decode(bytes: &[u8]) -> Result<Packet, DecodeError> {
    let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
        return Err(DecodeError::short("IPv6 header", 0, HEADER_LEN, bytes.len()));
    };
    if header[0] >> 4 != 6 {
        return Err(wrong_version("6", header[0]));
    }
    let length = match u16::from_be_bytes([header[4], header[5]]) {
        // A jumbogram tells its length in a hop-by-hop option; with any other header behind it there is nothing.
        0 if header[6] == HOP_BY_HOP => None,
        payload => Some(HEADER_LEN as u32 + u32::from(payload)),
    };
    let whole = length.map_or(bytes.len(), |length| length as usize);
    let payload = &bytes[HEADER_LEN..whole.min(bytes.len())];

    let chain = walk(header[6], payload);
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
    };
    Ok(Packet {
        version: Version::V6,
        source: address(8),
        destination: address(24),
        protocol: Protocol(chain.protocol),
        hop_limit: header[7],
        length,
        options: chain.extended,
        fragment: chain.fragment,
        transport: match (chain.fragment, chain.rest) {
            (Some(Fragment { offset: 1.., .. }), _) => Transport::Elsewhere,
            (_, Some(rest)) => transport(Protocol(chain.protocol), rest),
            (_, None) => Transport::Cut,
        },
        cut: whole > bytes.len(),
    })
}

/// What the extension headers lead to.
struct Chain<'a> {
    /// Whether there is any.
    extended: bool,
    protocol: u8,
    fragment: Option<Fragment>,
    /// What lies behind them; `None` when one of them was cut off.
    rest: Option<&'a [u8]>,
}

/// Follows the extension headers. Each is at least eight bytes long, so that their number is bounded by the bytes.
fn walk(first: u8, payload: &[u8]) -> Chain<'_> {
    let mut chain = Chain { extended: false, protocol: first, fragment: None, rest: Some(payload) };
    while let Some(rest) = chain.rest {
        let units = |at: usize| rest.get(at).map(|units| usize::from(*units));
        let len = match chain.protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY | HOST_IDENTITY | SHIM6 => {
                units(1).map(|units| (units + 1) * 8)
            }
            AUTHENTICATION => units(1).map(|units| ((units + 2) * 4).next_multiple_of(8)),
            FRAGMENT => Some(8),
            _ => break,
        };
        chain.extended = true;
        let Some(behind) = len.and_then(|len| rest.get(len..)) else {
            chain.rest = None;
            break;
        };
        if chain.protocol == FRAGMENT
            && let (Some(place), Some(identification)) = (be16(rest, 2), be32(rest, 4))
        {
            let fragment = Fragment { identification, offset: place & !7, more: place & 1 != 0 };
            // A fragment header may say that the packet is whole.
            if fragment.offset != 0 || fragment.more {
                chain.fragment = Some(fragment);
            }
        }
        chain.protocol = rest[0];
        chain.rest = Some(behind);
        if chain.fragment.is_some_and(|fragment| fragment.offset != 0) {
            // What follows is the middle of something.
            break;
        }
    }
    chain
}
