//! Internet sockets as sock_diag(7) tells them, and the order to end one.
//!
//! # References
//!
//! sock_diag(7); `linux/inet_diag.h`: `struct inet_diag_req_v2`, `struct inet_diag_msg`; `linux/sock_diag.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::netlink::{ACK, DUMP, DecodeError, HEADER_LEN, Message, REQUEST, array};

/// Message about a socket, and the question for some.
#[doc(alias = "SOCK_DIAG_BY_FAMILY")]
pub const BY_FAMILY: u16 = 20;
/// The order to end one.
#[doc(alias = "SOCK_DESTROY")]
const DESTROY: u16 = 21;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What names a socket to the kernel, exactly as the kernel told it.
#[doc(alias = "inet_diag_sockid")]
type Id = [u8; 48];

/// A socket that has a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peered {
    /// Where its peer is. An IPv4-mapped IPv6 address is given as IPv4.
    pub address: IpAddr,
    /// Port of the peer.
    pub port: u16,
    family: u8,
    id: Id,
}

/// Encodes the question for all sockets of that protocol that are connected, or being connected or closed.
pub fn dump(v4: bool, protocol: u8, seq: u32) -> Vec<u8> {
    // All but TIME_WAIT (6), CLOSE (7) and LISTEN (10), by the numbers of `linux/tcp_states.h`. To UDP, a connected socket is ESTABLISHED.
    const STATES: u32 = 0xfff & !(1 << 6 | 1 << 7 | 1 << 10);
    let family = if v4 { AF_INET } else { AF_INET6 };
    request(BY_FAMILY, REQUEST | DUMP, family, protocol, STATES, &[0; 48], seq)
}

/// Encodes the order to end a socket, as if its connection had been aborted.
pub fn destroy(socket: &Peered, protocol: u8, seq: u32) -> Vec<u8> {
    request(DESTROY, REQUEST | ACK, socket.family, protocol, u32::MAX, &socket.id, seq)
}

fn request(kind: u16, flags: u16, family: u8, protocol: u8, states: u32, id: &Id, seq: u32) -> Vec<u8> {
    const LEN: usize = HEADER_LEN + 8 + size_of::<Id>();
    let mut bytes = Vec::with_capacity(LEN);
    bytes.extend((LEN as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(seq.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend([family, protocol, 0, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend(id);
    bytes
}

/// Decodes a message about a socket.
///
/// # Errors
///
/// [`DecodeError`] when it is too short, or of another family.
pub fn peered(message: &Message<'_>) -> Result<Peered, DecodeError> {
    // Family, state, timer, retransmits; then the id: two ports, two addresses of 16 bytes, interface, cookie.
    let [family, ..] = array::<4>("socket", message.payload, 0, message.offset)?;
    let id: Id = array("id of a socket", message.payload, 4, message.offset)?;
    let port = u16::from_be_bytes([id[2], id[3]]);
    let field: [u8; 16] = array("address of a socket", &id, 20, message.offset + 4)?;
    let address = match family {
        AF_INET => IpAddr::from(Ipv4Addr::new(field[0], field[1], field[2], field[3])),
        AF_INET6 => IpAddr::from(Ipv6Addr::from(field)).to_canonical(),
        other => return Err(DecodeError::new("family of a socket", message.offset, "2 or 10", other.to_string())),
    };
    Ok(Peered { address, port, family, id })
}

#[cfg(test)]
mod tests {
    use super::super::netlink::messages;
    use super::*;

    #[test]
    fn a_socket_is_named_back_as_it_was_told() {
        for (family, address, peer) in [
            (AF_INET, "203.0.113.9", Ipv4Addr::new(203, 0, 113, 9).octets().to_vec()),
            (AF_INET6, "2001:db8::9", "2001:db8::9".parse::<Ipv6Addr>().unwrap().octets().to_vec()),
            (AF_INET6, "203.0.113.9", "::ffff:203.0.113.9".parse::<Ipv6Addr>().unwrap().octets().to_vec()),
        ] {
            let mut payload = vec![family, 1, 0, 0, 0x9c, 0x40, 0x15, 0x38];
            payload.extend([7; 16]);
            payload.extend(&peer);
            payload.resize(40, 0);
            payload.extend([1, 0, 0, 0, 8, 8, 8, 8, 9, 9, 9, 9]);
            payload.extend([0; 20]);
            let mut bytes = ((HEADER_LEN + payload.len()) as u32).to_ne_bytes().to_vec();
            bytes.extend(BY_FAMILY.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(&payload);
            let message = messages(&bytes).next().unwrap().unwrap();
            let socket = peered(&message).unwrap();
            assert_eq!((socket.address.to_string().as_str(), socket.port), (address, 5432));
            let order = destroy(&socket, 6, 1);
            assert_eq!(&order[HEADER_LEN + 8..], &payload[4..52]);
            assert_eq!((order[HEADER_LEN], order[HEADER_LEN + 1]), (family, 6));
            for len in 0..bytes.len() {
                for message in messages(&bytes[..len]).flatten() {
                    let _ = peered(&message);
                }
            }
        }
    }
}
