//! Flows as connection tracking knows them, decoded from the kernel's messages, and requests about them.
//!
//! # References
//!
//! `linux/netfilter/nfnetlink_conntrack.h`; `net/netfilter/nf_conntrack_netlink.c`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::netlink::{ACK, Attribute, Attributes, DUMP, DecodeError, HEADER_LEN, Message, REQUEST};

/// Number of the subsystem among those of nfnetlink.
const SUBSYSTEM: u16 = 1 << 8;
/// Message about a flow.
#[doc(alias = "IPCTNL_MSG_CT_NEW")]
pub const NEW: u16 = SUBSYSTEM;
#[doc(alias = "IPCTNL_MSG_CT_GET")]
const GET: u16 = SUBSYSTEM | 1;
#[doc(alias = "IPCTNL_MSG_CT_DELETE")]
const DELETE: u16 = SUBSYSTEM | 2;

/// Length of the header that nfnetlink puts behind netlink's.
#[doc(alias = "nfgenmsg")]
const GENERIC_LEN: usize = 4;
/// The attribute holds others.
#[doc(alias = "NLA_F_NESTED")]
const NESTED: u16 = 0x8000;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const TCP: u8 = 6;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_PROTOINFO: u16 = 4;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// Number of the protocol.
    pub protocol: u8,
    /// Port that it is sent from; 0 where the protocol has none.
    pub source_port: u16,
    /// Port that it is sent to; 0 where the protocol has none.
    pub destination_port: u16,
}

/// How far a TCP connection is, as the one in the middle sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[doc(alias = "tcp_conntrack")]
pub enum TcpState {
    /// Being opened: SYN seen, and perhaps its answer.
    Opening,
    /// Open.
    Established,
    /// One side has said that it is done; the other may still send.
    HalfClosed,
    /// Both sides have, or one has reset it. Nothing of it is yet to come but repetitions.
    Closed,
}

impl TcpState {
    /// The state that a number stands for; `None` for one that no kernel uses.
    fn of_number(number: u8) -> Option<Self> {
        Some(match number {
            // SYN_SENT, SYN_RECV, and SYN_SENT2, when both sides open at once.
            1 | 2 | 9 => TcpState::Opening,
            3 => TcpState::Established,
            // FIN_WAIT and CLOSE_WAIT.
            4 | 5 => TcpState::HalfClosed,
            // NONE, LAST_ACK, TIME_WAIT and CLOSE.
            0 | 6..=8 => TcpState::Closed,
            _ => return None,
        })
    }
}

/// A flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// The direction of its first packet, before any translation.
    pub original: Tuple,
    /// Of a TCP connection, how far it is, where the kernel told.
    pub tcp: Option<TcpState>,
    /// What tells it from a later one between the same ends.
    #[doc(alias = "CTA_ID")]
    pub id: Option<u32>,
    /// The zone that it is tracked in, 0 unless a rule says otherwise.
    #[doc(alias = "CTA_ZONE")]
    pub zone: u16,
}

impl Flow {
    /// Whether packets of it are yet to be expected: a TCP connection that is not closed, or anything that has not run out.
    pub fn lives(&self) -> bool {
        self.tcp != Some(TcpState::Closed)
    }
}

/// Decodes a message about a flow; `None` for a family or protocol that has no addresses or ports of the usual kind.
///
/// # Errors
///
/// [`DecodeError`] when an attribute that counts is too short.
pub fn flow(message: &Message<'_>) -> Result<Option<Flow>, DecodeError> {
    let (mut original, mut tcp, mut id, mut zone) = (None, None, None, 0);
    for attribute in message.attributes("conntrack message", GENERIC_LEN)? {
        let attribute = attribute?;
        match attribute.kind {
            CTA_TUPLE_ORIG => original = tuple(attribute.nested())?,
            CTA_PROTOINFO => tcp = tcp_state(attribute.nested())?,
            CTA_ID => id = Some(attribute.be32("flow's id")?),
            CTA_ZONE => zone = attribute.be16("zone")?,
            _ => {}
        }
    }
    Ok(original.map(|original: Tuple| Flow { original, tcp: tcp.filter(|_| original.protocol == TCP), id, zone }))
}

fn tuple(attributes: Attributes<'_>) -> Result<Option<Tuple>, DecodeError> {
    let (mut source, mut destination, mut protocol) = (None, None, None);
    let (mut source_port, mut destination_port) = (0, 0);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            1 => {
                for address in attribute.nested() {
                    let address = address?;
                    match address.kind {
                        1 => source = Some(ipv4(&address)?),
                        2 => destination = Some(ipv4(&address)?),
                        3 => source = Some(ipv6(&address)?),
                        4 => destination = Some(ipv6(&address)?),
                        _ => {}
                    }
                }
            }
            2 => {
                for field in attribute.nested() {
                    let field = field?;
                    match field.kind {
                        1 => protocol = Some(field.u8("protocol of a flow")?),
                        2 => source_port = field.be16("source port of a flow")?,
                        3 => destination_port = field.be16("destination port of a flow")?,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(match (source, destination, protocol) {
        (Some(source), Some(destination), Some(protocol)) => {
            Some(Tuple { source, destination, protocol, source_port, destination_port })
        }
        _ => None,
    })
}

/// As the kernel's own parser has it, the last attribute of a kind is the one that counts.
fn tcp_state(attributes: Attributes<'_>) -> Result<Option<TcpState>, DecodeError> {
    let mut state = None;
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind == 1 {
            for field in attribute.nested() {
                let field = field?;
                if field.kind == 1 {
                    state = TcpState::of_number(field.u8("state of a TCP flow")?);
                }
            }
        }
    }
    Ok(state)
}

fn ipv4(attribute: &Attribute<'_>) -> Result<IpAddr, DecodeError> {
    let octets = <[u8; 4]>::try_from(attribute.payload);
    let octets =
        octets.map_err(|_| DecodeError::short("IPv4 address", attribute.offset, 4, attribute.payload.len()))?;
    Ok(Ipv4Addr::from(octets).into())
}

fn ipv6(attribute: &Attribute<'_>) -> Result<IpAddr, DecodeError> {
    let octets = <[u8; 16]>::try_from(attribute.payload);
    let octets =
        octets.map_err(|_| DecodeError::short("IPv6 address", attribute.offset, 16, attribute.payload.len()))?;
    Ok(Ipv6Addr::from(octets).into())
}

/// Encodes the question for all flows whose first packet came from that address.
///
/// Kernels before 5.8 do not know the filter and tell all flows of the family: whoever asks looks again.
pub fn dump_from(source: IpAddr, seq: u32) -> Vec<u8> {
    /// The source address of the original direction is compared.
    #[doc(alias = "CTA_FILTER_F_CTA_IP_SRC")]
    const SOURCE: u32 = 1;
    let mut attributes = Vec::with_capacity(64);
    nest(&mut attributes, CTA_TUPLE_ORIG, |tuple| nest(tuple, 1, |ip| address(ip, source, 1, 3)));
    nest(&mut attributes, CTA_FILTER, |filter| {
        attribute(filter, 1, &SOURCE.to_ne_bytes());
        attribute(filter, 2, &0u32.to_ne_bytes());
    });
    request(GET, REQUEST | DUMP, source, seq, &attributes)
}

/// Encodes the order to forget a flow; only that very one, where the kernel has told its id.
pub fn delete(flow: &Flow, seq: u32) -> Vec<u8> {
    let Tuple { source, destination, protocol, source_port, destination_port } = flow.original;
    let mut attributes = Vec::with_capacity(128);
    nest(&mut attributes, CTA_TUPLE_ORIG, |tuple| {
        nest(tuple, 1, |ip| {
            address(ip, source, 1, 3);
            address(ip, destination, 2, 4);
        });
        nest(tuple, 2, |proto| {
            attribute(proto, 1, &[protocol]);
            attribute(proto, 2, &source_port.to_be_bytes());
            attribute(proto, 3, &destination_port.to_be_bytes());
        });
    });
    if flow.zone != 0 {
        attribute(&mut attributes, CTA_ZONE, &flow.zone.to_be_bytes());
    }
    if let Some(id) = flow.id {
        attribute(&mut attributes, CTA_ID, &id.to_be_bytes());
    }
    request(DELETE, REQUEST | ACK, source, seq, &attributes)
}

fn request(kind: u16, flags: u16, family: IpAddr, seq: u32, attributes: &[u8]) -> Vec<u8> {
    let len = HEADER_LEN + GENERIC_LEN + attributes.len();
    let mut bytes = Vec::with_capacity(len);
    bytes.extend((len as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(seq.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend([if family.is_ipv4() { AF_INET } else { AF_INET6 }, 0, 0, 0]);
    bytes.extend(attributes);
    bytes
}

fn address(into: &mut Vec<u8>, address: IpAddr, v4: u16, v6: u16) {
    match address {
        IpAddr::V4(address) => attribute(into, v4, &address.octets()),
        IpAddr::V6(address) => attribute(into, v6, &address.octets()),
    }
}

fn attribute(into: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // No value here is longer than a nest of two addresses.
    into.extend((4 + value.len() as u16).to_ne_bytes());
    into.extend(kind.to_ne_bytes());
    into.extend(value);
    into.resize(into.len().next_multiple_of(4), 0);
}

fn nest(into: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::with_capacity(64);
    fill(&mut inner);
    attribute(into, kind | NESTED, &inner);
}

#[cfg(test)]
mod tests {
    use super::super::netlink::messages;
    use super::*;

    fn flows() -> [Flow; 2] {
        let tuple = |source: &str, destination: &str, protocol| Tuple {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol,
            source_port: 40000,
            destination_port: 5432,
        };
        [
            Flow { original: tuple("10.200.0.2", "203.0.113.9", 6), tcp: None, id: Some(0xdead_beef), zone: 0 },
            Flow { original: tuple("fd52:4e46:4e43::2", "2001:db8::9", 17), tcp: None, id: None, zone: 7 },
        ]
    }

    #[test]
    fn an_order_to_delete_decodes_to_its_flow() {
        for wanted in flows() {
            let bytes = delete(&wanted, 3);
            let message = messages(&bytes).next().unwrap().unwrap();
            assert_eq!(
                (message.header.kind, message.header.seq, message.header.len as usize),
                (DELETE, 3, bytes.len())
            );
            assert_eq!(flow(&message).unwrap(), Some(wanted));
        }
    }

    #[test]
    fn a_state_belongs_to_tcp() {
        let [tcp, _] = flows();
        for (number, state, lives) in [
            (1, TcpState::Opening, true),
            (3, TcpState::Established, true),
            (4, TcpState::HalfClosed, true),
            (5, TcpState::HalfClosed, true),
            (6, TcpState::Closed, false),
            (7, TcpState::Closed, false),
            (8, TcpState::Closed, false),
        ] {
            let mut bytes = delete(&tcp, 1);
            nest(&mut bytes, CTA_PROTOINFO, |info| nest(info, 1, |tcp| attribute(tcp, 1, &[number])));
            let len = bytes.len() as u32;
            bytes[..4].copy_from_slice(&len.to_ne_bytes());
            let found = flow(&messages(&bytes).next().unwrap().unwrap()).unwrap().unwrap();
            assert_eq!((found.tcp, found.lives()), (Some(state), lives));
        }
        assert!(tcp.lives());
    }

    #[test]
    fn no_bytes_are_too_odd_to_decode() {
        for wanted in flows() {
            let whole = delete(&wanted, 3);
            for at in 0..whole.len() {
                for value in [0, 1, 4, 0x7f, 0xff] {
                    let mut bytes = whole.clone();
                    bytes[at] = value;
                    for message in messages(&bytes).flatten() {
                        let _ = flow(&message);
                    }
                }
                for message in messages(&whole[..at]).flatten() {
                    let _ = flow(&message);
                }
            }
        }
    }
}
