//! Whole packets, packets cut at every byte, and bytes that are none.

use proptest::prelude::*;

use super::*;

/// 198.51.100.2:48012 to 203.0.113.9:443, a SYN with options, as Linux sends it.
const SYN: &[u8] = b"\x45\x00\x00\x3c\xe8\x1b\x40\x00\x40\x06\x00\x00\xc6\x33\x64\x02\xcb\x00\x71\x09\
    \xbb\x8c\x01\xbb\x11\x22\x33\x44\x00\x00\x00\x00\xa0\x02\xfa\xf0\x00\x00\x00\x00\
    \x02\x04\x05\xb4\x04\x02\x08\x0a\x00\x00\x00\x01\x00\x00\x00\x00\x01\x03\x03\x07";

fn v4(protocol: u8, words: u8, place: u16, payload: &[u8]) -> Vec<u8> {
    let header_len = usize::from(words) * 4;
    let mut bytes = vec![0x40 | words, 0];
    bytes.extend(((header_len + payload.len()) as u16).to_be_bytes());
    bytes.extend([0x12, 0x34]);
    bytes.extend(place.to_be_bytes());
    bytes.extend([64, protocol, 0, 0, 198, 51, 100, 2, 203, 0, 113, 9]);
    bytes.resize(header_len, 1);
    bytes.extend(payload);
    bytes
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend([next, 64]);
    bytes.extend("2001:db8::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
    bytes.extend("2001:db8::9".parse::<std::net::Ipv6Addr>().unwrap().octets());
    bytes.extend(payload);
    bytes
}

/// Source port 1000, destination port 53, length 9.
const DATAGRAM: &[u8] = b"\x03\xe8\x00\x35\x00\x09\x00\x00x";

fn decode4(bytes: &[u8]) -> Packet {
    decode(Version::V4, bytes).unwrap()
}

fn decode6(bytes: &[u8]) -> Packet {
    decode(Version::V6, bytes).unwrap()
}

#[test]
fn a_syn_is_read_whole() {
    let packet = decode4(SYN);
    assert_eq!(packet.source.to_string(), "198.51.100.2");
    assert_eq!(packet.destination.to_string(), "203.0.113.9");
    assert_eq!(packet.ports(), Some((48012, 443)));
    assert_eq!((packet.length, packet.hop_limit, packet.options, packet.cut), (Some(60), 64, false, false));
    assert_eq!(packet.fragment, None, "don't-fragment is no fragment");
    let Transport::Tcp(tcp) = packet.transport else { panic!("{packet:?}") };
    assert_eq!((tcp.sequence, tcp.acknowledgement, tcp.flags), (Some(0x1122_3344), Some(0), Some(TcpFlags::SYN)));
    assert_eq!((TcpFlags::SYN | TcpFlags::ACK).to_string(), "SYN|ACK");
}

#[test]
fn a_cut_packet_is_read_as_far_as_it_goes_and_says_so() {
    for len in 0..SYN.len() {
        let decoded = decode(Version::V4, &SYN[..len]);
        if len < 20 {
            assert_eq!(decoded.unwrap_err().what, "IPv4 header");
            continue;
        }
        let packet = decoded.unwrap();
        assert!(packet.cut, "{len}");
        assert_eq!(packet.ports().is_some(), len >= 24, "{len}");
        match packet.transport {
            Transport::Cut => assert!(len < 24),
            Transport::Tcp(tcp) => {
                let there = (tcp.sequence.is_some(), tcp.acknowledgement.is_some(), tcp.flags.is_some());
                assert_eq!(there, (len >= 28, len >= 32, len >= 34), "{len}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_lies_behind_a_packet_is_not_part_of_it() {
    let mut bytes = v4(17, 5, 0, &DATAGRAM[..2]);
    bytes.extend(&DATAGRAM[2..]);
    let packet = decode4(&bytes);
    assert_eq!((packet.transport, packet.cut), (Transport::Cut, false));
}

#[test]
fn options_are_passed_over() {
    let packet = decode4(&v4(17, 15, 0, DATAGRAM));
    assert_eq!((packet.options, packet.ports()), (true, Some((1000, 53))));
    let cut = decode4(&v4(17, 15, 0, DATAGRAM)[..40]);
    assert_eq!((cut.transport, cut.cut, cut.protocol), (Transport::Cut, true, Protocol::UDP));
}

#[test]
fn the_first_fragment_has_the_ports_and_the_others_do_not() {
    let first = decode4(&v4(17, 5, 0x2000, DATAGRAM));
    assert_eq!(first.fragment, Some(Fragment { identification: 0x1234, offset: 0, more: true }));
    assert_eq!(first.ports(), Some((1000, 53)));
    let last = decode4(&v4(17, 5, 185, DATAGRAM));
    assert_eq!(last.fragment, Some(Fragment { identification: 0x1234, offset: 1480, more: false }));
    assert_eq!((last.ports(), last.transport), (None, Transport::Elsewhere));

    let header = |place: u16| [&[17, 0][..], &place.to_be_bytes(), &7u32.to_be_bytes(), DATAGRAM].concat();
    let first = decode6(&v6(44, &header(1)));
    assert_eq!(first.fragment, Some(Fragment { identification: 7, offset: 0, more: true }));
    assert_eq!((first.ports(), first.protocol), (Some((1000, 53)), Protocol::UDP));
    let last = decode6(&v6(44, &header(1448)));
    assert_eq!(last.fragment, Some(Fragment { identification: 7, offset: 1448, more: false }));
    assert_eq!(last.transport, Transport::Elsewhere);
    let whole = decode6(&v6(44, &header(0)));
    assert_eq!((whole.fragment, whole.options, whole.ports()), (None, true, Some((1000, 53))));
}

#[test]
fn extension_headers_are_passed_over() {
    let chain = [
        &[43, 0, 1, 4, 0, 0, 0, 0][..], // hop by hop, 8 bytes
        &[60, 1, 0, 0, 0, 0, 0, 0],     // routing, 16 bytes
        &[0; 8],
        &[51, 0, 1, 4, 0, 0, 0, 0], // destination options
        &[17, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], // authentication, 24 bytes
        DATAGRAM,
    ]
    .concat();
    let whole = v6(0, &chain);
    let packet = decode6(&whole);
    assert_eq!((packet.protocol, packet.ports(), packet.options), (Protocol::UDP, Some((1000, 53)), true));
    // Cut anywhere in the chain: told, with the header that was not there any more.
    for (len, protocol) in [(40, 0), (47, 0), (48, 43), (63, 43), (64, 60), (72, 51), (95, 51)] {
        let packet = decode6(&whole[..len]);
        assert_eq!(packet.transport, Transport::Cut, "{len}");
        assert_eq!((packet.protocol, packet.cut, packet.options), (Protocol(protocol), true, true), "{len}");
    }
}

#[test]
fn mapped_addresses_are_ipv4_addresses() {
    let mut bytes = v6(17, DATAGRAM);
    bytes[24..40].copy_from_slice(&"::ffff:203.0.113.9".parse::<std::net::Ipv6Addr>().unwrap().octets());
    let packet = decode6(&bytes);
    assert_eq!(packet.destination.to_string(), "203.0.113.9");
    assert_eq!(packet.version, Version::V6);
}

#[test]
fn the_other_protocols() {
    let ping = decode4(&v4(1, 5, 0, &[8, 0, 0, 0, 0, 7, 0, 1]));
    assert_eq!(ping.transport, Transport::Icmp(Icmp { kind: 8, code: Some(0), rest: Some(0x0007_0001) }));
    let ping = decode6(&v6(58, &[128, 0, 0, 0, 0, 7, 0, 1]));
    assert_eq!(ping.transport, Transport::Icmpv6(Icmp { kind: 128, code: Some(0), rest: Some(0x0007_0001) }));
    let sctp = decode4(&v4(132, 5, 0, &[3, 232, 0, 53, 0, 0, 0, 9]));
    assert_eq!(sctp.transport, Transport::Sctp(Sctp { source: 1000, destination: 53, verification_tag: Some(9) }));
    let gre = decode4(&v4(47, 5, 0, &[]));
    assert_eq!((gre.protocol.to_string(), gre.transport), ("gre".to_owned(), Transport::Other));
    let unknown = decode4(&v4(253, 5, 0, &[]));
    assert_eq!((unknown.protocol.to_string(), unknown.ports()), ("253".to_owned(), None));
}

#[test]
fn what_is_no_packet_is_an_error() {
    let what = |version, bytes: &[u8]| decode(version, bytes).unwrap_err().to_string();
    assert_eq!(what(Version::V6, &v6(17, &[])[..39]), "IPv6 header at byte 0: need 40 bytes, have 39");
    assert_eq!(what(Version::V4, &v6(17, DATAGRAM)), "IP version at byte 0: need 4, have 6");
    assert_eq!(what(Version::V6, &v4(17, 15, 0, DATAGRAM)), "IP version at byte 0: need 6, have 4");
    let mut short = v4(17, 5, 0, DATAGRAM);
    short[0] = 0x44;
    assert_eq!(what(Version::V4, &short), "IPv4 header's length at byte 0: need 20 bytes, have 16");
    short[0] = 0x45;
    short[3] = 19;
    assert_eq!(what(Version::V4, &short), "IPv4 packet at byte 0: need 20 bytes, have 19");
    assert_eq!(Version::of_ethertype(0x0806), None);
    assert_eq!(Version::of_family(3), None);
}

#[test]
fn lengths_that_are_told_elsewhere() {
    let mut bytes = v4(17, 5, 0, DATAGRAM);
    bytes[2..4].fill(0);
    let packet = decode4(&bytes);
    assert_eq!((packet.length, packet.cut, packet.ports()), (None, false, Some((1000, 53))));
    let mut jumbo = v6(0, &[&[17, 0, 0xc2, 4, 0, 1, 0, 0][..], DATAGRAM].concat());
    jumbo[4..6].fill(0);
    let packet = decode6(&jumbo);
    assert_eq!((packet.length, packet.ports()), (None, Some((1000, 53))));
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..160), version in 0u8..2) {
        let mut bytes = bytes;
        let version = if version == 0 { Version::V4 } else { Version::V6 };
        for nibble in [None, Some(0x45), Some(0x4f), Some(0x60)] {
            if let (Some(nibble), Some(first)) = (nibble, bytes.first_mut()) {
                *first = nibble;
            }
            let _ = decode(version, &bytes);
        }
    }

    #[test]
    fn less_of_a_packet_says_no_other_than_more_of_it(
        words in 5u8..=15,
        protocol in prop::sample::select(vec![1u8, 6, 17, 47, 58, 132]),
        payload in proptest::collection::vec(any::<u8>(), 0..40),
        cut in 0usize..100,
    ) {
        let bytes = v4(protocol, words, 0, &payload);
        let whole = decode4(&bytes);
        let cut = 20 + cut % (bytes.len() - 19);
        let part = decode4(&bytes[..cut]);
        prop_assert_eq!(part.cut, cut < bytes.len());
        prop_assert_eq!((part.source, part.destination, part.protocol), (whole.source, whole.destination, whole.protocol));
        prop_assert!(part.ports().is_none() || part.ports() == whole.ports());
    }
}
