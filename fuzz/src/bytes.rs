//! Decoders of what the kernel sends.

use std::time::SystemTime;

use ringfence::audit::Event;
use ringfence::nft::{Object, Transaction, Verb};
use ringfence::wire::btf::Btf;
use ringfence::wire::netlink::{self, Attributes, HEADER_LEN, Message};
use ringfence::wire::nftables::Edit;
use ringfence::wire::packet::{self, Packet, Transport, Version};
use ringfence::wire::{conntrack, inet_diag, nflog, nftables, rtnetlink as route};

/// The deepest nesting that is walked: deeper than any message of the kernel's.
const DEPTH: usize = 12;

/// Takes a datagram apart. Whatever it holds, each part lies where it says it does.
pub fn netlink(datagram: &[u8]) {
    let mut end = 0;
    for message in netlink::messages(datagram) {
        let Ok(message) = message else { break };
        assert!(message.offset >= end + HEADER_LEN, "messages overlap");
        assert_eq!(message.payload.len() + HEADER_LEN, message.header.len as usize);
        assert_eq!(message.payload, &datagram[message.offset..][..message.payload.len()]);
        end = message.offset + message.payload.len();

        if let Ok(Some(acknowledgement)) = netlink::acknowledgement(&message) {
            assert!(acknowledgement.errno >= 0);
        }
        if let Ok(Some(errno)) = netlink::end_of_dump(&message) {
            assert!(errno >= 0);
        }
        // Behind no header, `nfgenmsg` and `ifinfomsg`.
        for skip in [0, 4, 16] {
            if let Ok(attributes) = message.attributes("message", skip) {
                walk(datagram, attributes, DEPTH);
            }
        }
    }
}

fn walk(datagram: &[u8], attributes: Attributes<'_>, depth: usize) {
    for attribute in attributes {
        let Ok(attribute) = attribute else { break };
        assert_eq!(attribute.payload, &datagram[attribute.offset..][..attribute.payload.len()]);
        let _ = (attribute.u8("u8"), attribute.be16("be16"), attribute.be32("be32"), attribute.be64("be64"));
        let _ = (attribute.ne32("ne32"), attribute.text("text"));
        if depth > 0 {
            walk(datagram, attribute.nested(), depth - 1);
        }
    }
}

/// Decodes nf_tables messages, as answers and as what a monitor hears. An object that comes out of one is encoded by libnftnl and decoded to itself.
///
/// Not the other way round: bytes have many spellings of one object (padding, flags, attributes that mean nothing to us).
pub fn nftables(datagram: &[u8]) {
    for message in netlink::messages(datagram) {
        let Ok(message) = message else { break };
        if let Ok((generation, _)) = nftables::commit(&message) {
            assert_eq!(nftables::generation(&message), Ok(generation));
        }
        let _ = nftables::handle(&message);
        let change = nftables::change(&message);
        let Ok(mut object) = nftables::decode(&message) else { continue };
        assert_eq!(change, Ok(Edit::Added(object.clone())));
        if let Object::Rule(rule) = &mut object {
            // A dump has it, and a new rule can't choose its own.
            rule.handle = None;
        }
        let mut transaction = Transaction::new();
        transaction.push(Verb::Add, object.clone());
        if let Ok(batch) = nftables::encode(&transaction) {
            assert_eq!(decoded(batch.as_bytes()), Some(object).filter(says_something));
        }
    }
}

/// Elements that are none make no message.
pub fn says_something(object: &Object) -> bool {
    !matches!(object, Object::Elements { elements, .. } if elements.is_empty())
}

/// The one object that a batch of our own holds. Elements may come in several messages.
fn decoded(batch: &[u8]) -> Option<Object> {
    let messages: Vec<Message<'_>> = netlink::messages(batch).collect::<Result<_, _>>().expect("our own bytes");
    let contents = &messages[1..messages.len() - 1];
    contents.iter().map(|message| nftables::decode(message).expect("our own message")).reduce(join)
}

/// Puts the elements of two messages together.
pub fn join(first: Object, second: Object) -> Object {
    match (first, second) {
        (Object::Elements { table, set, mut elements }, Object::Elements { elements: more, .. }) => {
            elements.extend(more);
            Object::Elements { table, set, elements }
        }
        (first, second) => panic!("{first:?} became two, the other one is {second:?}"),
    }
}

/// Decodes links, addresses and routes. What a name or a prefix can't be is refused.
pub fn rtnetlink(datagram: &[u8]) {
    for message in netlink::messages(datagram) {
        let Ok(message) = message else { break };
        if let Ok(link) = route::link(&message) {
            assert!(!link.name.contains('\0'), "{link:?}");
        }
        if let Ok(Some(address)) = route::address(&message) {
            assert_eq!(address.address.prefix_len(), message.payload[1]);
        }
        if let Ok(Some(found)) = route::route(&message) {
            assert_eq!(found.destination.addr().is_ipv4(), message.payload[0] == 2, "{found:?}");
            assert_eq!(found.destination.prefix_len(), message.payload[1]);
        }
    }
}

/// Decodes a packet; the first byte says of which version. Less of it says no other than more of it.
pub fn packet(bytes: &[u8]) {
    let Some((version, bytes)) = bytes.split_first() else { return };
    let version = if *version == 6 { Version::V6 } else { Version::V4 };
    let Ok(whole) = packet::decode(version, bytes) else { return };
    check(&whole, bytes.len());
    for len in [bytes.len() / 2, bytes.len().saturating_sub(1)] {
        let Ok(part) = packet::decode(version, &bytes[..len]) else { continue };
        check(&part, len);
        assert_eq!((part.source, part.destination), (whole.source, whole.destination));
        assert!(part.ports().is_none() || part.ports() == whole.ports(), "{part:?} of {whole:?}");
        assert!(part.cut || part == whole || whole.length.is_none(), "{part:?} of {whole:?}");
    }
}

fn check(packet: &Packet, there: usize) {
    assert!(packet.length.is_none_or(|length| packet.cut == (length as usize > there)), "{packet:?} in {there} bytes");
    let elsewhere = packet.fragment.is_some_and(|fragment| fragment.offset > 0);
    assert_eq!(packet.transport == Transport::Elsewhere, elsewhere, "{packet:?}");
    let _ = packet.protocol.to_string();
}

/// Decodes nflog messages. What is of a packet is as long as what came, and becomes an event of one line.
pub fn nflog(datagram: &[u8]) {
    for message in netlink::messages(datagram) {
        let Ok(message) = message else { break };
        let Ok(Some(packet)) = nflog::Message::decode(&message) else { continue };
        assert!(packet.payload.as_ref().is_none_or(|payload| payload.len() <= message.payload.len()));
        let owned = packet.clone().into_owned();
        assert_eq!(owned, packet);
        if let Some(Ok(headers)) = packet.packet() {
            check(&headers, packet.payload.as_ref().map_or(0, |payload| payload.len()));
        }
        let line = Event::of(&packet, SystemTime::UNIX_EPOCH).to_json();
        assert!(line.starts_with("{\"schema\":1,\"event\":\"") && line.ends_with('}'), "{line}");
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}

/// Cuts every struct out of a description of types. All of them are in what comes out, which is whole: to cut it once more changes nothing.
pub fn btf(bytes: &[u8]) {
    let Ok(whole) = Btf::parse(bytes) else { return };
    let Ok(mut names) = whole.structs() else { return };
    // Of such a name nothing is left.
    names.retain(|name| !name.starts_with(b"___"));
    let Ok(cut) = whole.cut(&names) else { return };
    let parsed = Btf::parse(&cut).expect("our own bytes");
    let found = parsed.structs().expect("our own types");
    assert!(names.iter().all(|name| found.contains(name)), "a struct was lost");
    assert_eq!(parsed.cut(&names).expect("our own types").len(), cut.len());
}

/// Decodes flows of conntrack. The order to delete one names that very flow.
pub fn conntrack(datagram: &[u8]) {
    for message in netlink::messages(datagram) {
        let Ok(message) = message else { break };
        let Ok(Some(flow)) = conntrack::flow(&message) else { continue };
        assert!(flow.tcp.is_none() || flow.original.protocol == 6, "{flow:?}");
        // A tuple of two families is none of the kernel's, and can't be asked for.
        if flow.original.source.is_ipv4() != flow.original.destination.is_ipv4() {
            continue;
        }
        let order = conntrack::delete(&flow, 7);
        let order = netlink::messages(&order).next().expect("our own message").expect("our own message");
        let named = conntrack::flow(&order).expect("our own flow").expect("our own flow");
        // How far a connection is does not name it.
        assert_eq!(named, conntrack::Flow { tcp: None, ..flow });
    }
}

/// Decodes sockets of sock_diag(7). The order to end one names it by the very bytes that it was told by.
pub fn inet_diag(datagram: &[u8]) {
    for message in netlink::messages(datagram) {
        let Ok(message) = message else { break };
        let Ok(socket) = inet_diag::peered(&message) else { continue };
        for protocol in [6, 17] {
            let order = inet_diag::destroy(&socket, protocol, 7);
            assert_eq!(order[HEADER_LEN], message.payload[0]);
            assert_eq!(order[HEADER_LEN + 1], protocol);
            assert_eq!(order[HEADER_LEN + 8..], message.payload[4..52]);
        }
    }
}
