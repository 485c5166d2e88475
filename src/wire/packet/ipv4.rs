//! The IPv4 header.

use std::net::{IpAddr, Ipv4Addr};

use super::{Fragment, Packet, Protocol, Transport, Version, transport, wrong_version};
use crate::wire::netlink::DecodeError;

const HEADER_LEN: usize = 20;

const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

pub(super) fn decode(bytes: &[u8]) -> Result<Packet, DecodeError> {
    let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
        return Err(DecodeError::short("IPv4 header", 0, HEADER_LEN, bytes.len()));
    };
    if header[0] >> 4 != 4 {
        return Err(wrong_version("4", header[0]));
    }
    let header_len = usize::from(header[0] & 0x0f) * 4;
    if header_len < HEADER_LEN {
        return Err(DecodeError::short("IPv4 header's length", 0, HEADER_LEN, header_len));
    }
    let half = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let length = match half(2) {
        // Too long for the field, to be cut up by the device.
        0 => None,
        length if usize::from(length) < header_len => {
            return Err(DecodeError::short("IPv4 packet", 0, header_len, length.into()));
        }
        length => Some(u32::from(length)),
    };
    // What lies behind the packet is padding, not part of it.
    let whole = length.map_or(bytes.len(), |length| length as usize);
    let payload = bytes.get(header_len..whole.min(bytes.len()));

    let place = half(6);
    let fragment = (place & (MORE_FRAGMENTS | OFFSET) != 0).then(|| Fragment {
        identification: half(4).into(),
        offset: (place & OFFSET) << 3,
        more: place & MORE_FRAGMENTS != 0,
    });
    let protocol = Protocol(header[9]);
    let address = |at: usize| IpAddr::V4(Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]));
    Ok(Packet {
        version: Version::V4,
        source: address(12),
        destination: address(16),
        protocol,
        hop_limit: header[8],
        length,
        options: header_len > HEADER_LEN,
        fragment,
        transport: match (fragment, payload) {
            (Some(Fragment { offset: 1.., .. }), _) => Transport::Elsewhere,
            (_, Some(payload)) => transport(protocol, payload),
            (_, None) => Transport::Cut,
        },
        cut: whole.max(header_len) > bytes.len(),
    })
}
