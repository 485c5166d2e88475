//! Messages with every attribute, messages as the kernel sent them, and bytes that are none.

use proptest::prelude::*;

use super::*;
use crate::wire::netlink::messages;
use crate::wire::netlink::tests::attribute;
use crate::wire::packet::{Protocol, TcpFlags, Transport};

fn message(attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = request(PACKET, Group(7), 0, &attributes.concat());
    bytes[16] = 2;
    bytes
}

fn decode(bytes: &[u8]) -> Result<Option<Message<'_>>, DecodeError> {
    Message::decode(&messages(bytes).next().unwrap()?)
}

fn every_attribute() -> Vec<u8> {
    message(&[
        attribute(1, &[0x08, 0x00, 3, 0]),
        attribute(2, &0xcafe_u32.to_be_bytes()),
        attribute(3, &[1u64.to_be_bytes(), 500_000u64.to_be_bytes()].concat()),
        attribute(4, &4u32.to_be_bytes()),
        attribute(5, &5u32.to_be_bytes()),
        attribute(6, &6u32.to_be_bytes()),
        attribute(7, &7u32.to_be_bytes()),
        attribute(8, &[0, 6, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0]),
        attribute(9, b"not a packet"),
        attribute(10, b"bypass-\xff\0"),
        attribute(11, &1000u32.to_be_bytes()),
        attribute(12, &12u32.to_be_bytes()),
        attribute(13, &13u32.to_be_bytes()),
        attribute(14, &1001u32.to_be_bytes()),
        attribute(15, &1u16.to_be_bytes()),
        attribute(16, b"hardware header"),
        attribute(17, &14u16.to_be_bytes()),
        attribute(18, b"conntrack"),
        attribute(19, &2u32.to_be_bytes()),
        attribute(20, &[attribute(1, &[0x81, 0x00]), attribute(2, &[0, 42])].concat()),
        attribute(21, b"layer two"),
        attribute(99, b"new"),
    ])
}

#[test]
fn every_attribute_is_read() {
    let bytes = every_attribute();
    let read = decode(&bytes).unwrap().unwrap();
    assert_eq!((read.group, read.family, read.hook, read.ethertype), (Group(7), 2, Some(Hook::OUTPUT), Some(0x0800)));
    assert_eq!(read.mark, Some(0xcafe));
    assert_eq!(read.timestamp, Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1500)));
    let interfaces = [read.indev, read.outdev, read.physindev, read.physoutdev].map(|index| index.unwrap().0);
    assert_eq!(interfaces, [4, 5, 6, 7]);
    assert_eq!(read.hwaddr.as_deref(), Some(&[2, 0, 0, 0, 0, 1][..]));
    assert_eq!((read.hwtype, read.hwlen), (Some(1), Some(14)));
    assert_eq!(read.hwheader.as_deref(), Some(&b"hardware header"[..]));
    assert_eq!(read.prefix.as_deref(), Some("bypass-\u{fffd}"));
    assert_eq!((read.uid, read.gid), (Some(1000), Some(1001)));
    assert_eq!((read.seq, read.seq_global), (Some(12), Some(13)));
    assert_eq!((read.conntrack.as_deref(), read.conntrack_info), (Some(&b"conntrack"[..]), Some(2)));
    assert_eq!(read.vlan, Some(Vlan { protocol: Some(0x8100), tag: Some(42) }));
    assert_eq!(read.l2hdr.as_deref(), Some(&b"layer two"[..]));
    assert_eq!(read.unknown, [(99, Cow::Borrowed(&b"new"[..]))]);
    assert!(read.packet().unwrap().is_err());
    assert_eq!(read.clone().into_owned(), read);
}

/// A refused connect, as Linux 6.18 told of it: `bypass-tcp`, uid 65534.
const CAPTURED: &[u8] = include_bytes!("../../../tests/golden/nflog/refused-tcp");

#[test]
fn a_refused_connect_as_the_kernel_told_it() {
    let read = decode(CAPTURED).unwrap().unwrap();
    assert_eq!((read.hook, read.ethertype, read.timestamp), (Some(Hook::OUTPUT), Some(0x0800), None));
    assert_eq!(read.prefix.as_deref(), Some("bypass-tcp"));
    assert!(read.uid.is_some() && read.gid.is_some() && read.seq.is_some() && read.seq_global.is_some());
    assert!(read.unknown.is_empty(), "{read:?}");
    let packet = read.packet().unwrap().unwrap();
    assert_eq!(packet.protocol, Protocol::TCP);
    assert_eq!((packet.destination.to_string(), packet.ports().unwrap().1), ("203.0.113.10".to_owned(), 443));
    let Transport::Tcp(tcp) = packet.transport else { panic!("{packet:?}") };
    assert_eq!(tcp.flags, Some(TcpFlags::SYN));
}

#[test]
fn numbers_of_a_wrong_length_are_errors() {
    for kind in (1..=7).chain([8, 11, 12, 13, 14, 15, 17, 19]) {
        let bytes = message(&[attribute(kind, &[1])]);
        assert!(decode(&bytes).is_err(), "{kind}");
    }
    let long_address = message(&[attribute(8, &[0, 9, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])]);
    assert_eq!(
        decode(&long_address).unwrap_err().to_string(),
        "nflog hardware address at byte 24: need 13 bytes, have 12"
    );
    let never = message(&[attribute(3, &[0xff; 16])]);
    assert!(decode(&never).unwrap_err().to_string().starts_with("nflog time stamp"));
    assert_eq!(decode(&request(CONFIG, Group(7), 0, &[])), Ok(None));
    assert!(decode(&request(PACKET, Group(7), 0, &[])[..16]).is_err());
}

#[test]
fn a_family_stands_in_for_an_ethertype_that_is_not_told() {
    let mut read = Message::empty(Group(1), 10);
    assert_eq!(read.packet(), None);
    let header: &'static [u8] = b"\x60\0\0\0\0\0\x3b\x40";
    read.payload = Some([header, &[0; 32]].concat().into());
    assert!(read.packet().unwrap().is_ok());
    read.ethertype = Some(0x0806);
    assert_eq!(read.packet(), None);
}

#[test]
fn settings_are_one_request() {
    let config = Config {
        bind: true,
        copy_range: Some(128),
        buffer: Some(32768),
        timeout: Some(Duration::from_millis(11)),
        threshold: Some(100),
        sequence: true,
    };
    let bytes = config.encode(Group(0x0102), 5);
    let read = messages(&bytes).next().unwrap().unwrap();
    assert_eq!((read.header.kind, read.header.seq, read.header.flags), (CONFIG, 5, 5));
    assert_eq!(read.payload[..4], [0, 0, 1, 2]);
    let told: Vec<_> = read
        .attributes("", 4)
        .unwrap()
        .map(|attribute| attribute.map(|one| (one.kind, one.payload)).unwrap())
        .collect();
    let wanted: [(u16, &[u8]); 6] = [
        (1, &[1]),
        (2, &[0, 0, 0, 128, 2, 0]),
        (3, &[0, 0, 128, 0]),
        (4, &[0, 0, 0, 2]),
        (5, &[0, 0, 0, 100]),
        (6, &[0, 3]),
    ];
    assert_eq!(told, wanted);
    assert_eq!(Config::default().encode(Group(1), 0).len(), 20);
    let nothing = Config { copy_range: Some(0), ..Config::default() }.encode(Group(1), 0);
    assert_eq!(nothing[24..], [0, 0, 0, 0, 1, 0, 0, 0]);
}

proptest! {
    #[test]
    fn hostile_messages_never_panic(
        kinds in proptest::collection::vec((0u16..24, proptest::collection::vec(any::<u8>(), 0..24)), 0..8),
        tail in proptest::collection::vec(any::<u8>(), 0..12),
    ) {
        let mut attributes: Vec<_> = kinds.iter().map(|(kind, value)| attribute(*kind, value)).collect();
        attributes.push(tail);
        let bytes = message(&attributes);
        if let Ok(Some(read)) = decode(&bytes) {
            let _ = read.packet();
            prop_assert_eq!(&read.clone().into_owned(), &read);
        }
    }

    #[test]
    fn every_byte_may_be_another(at in 0usize..1000, value in any::<u8>()) {
        let mut bytes = every_attribute();
        let at = at % bytes.len();
        bytes[at] = value;
        for message in messages(&bytes).flatten() {
            let _ = Message::decode(&message).map(|read| read.map(|read| read.packet().is_some()));
        }
    }
}
