//! For whom a TLS client asks: read from its first message.
//!
//! Servers differ in what they forgive. Whatever one of them takes for a hello is read as one here, or refused.

mod follow;

pub(super) use follow::{Hellos, Next};

use crate::policy::DnsName;

/// Longest ClientHello that is read, records and all; and the most that is kept of a server's answer.
const LONGEST: usize = 64 * 1024;

/// Kinds of records: RFC 8446, section 5.1.
const CHANGE_CIPHER_SPEC: u8 = 0x14;
const ALERT: u8 = 0x15;
const HANDSHAKE: u8 = 0x16;
const DATA: u8 = 0x17;
const HEARTBEAT: u8 = 0x18;

/// The kind of that message in a handshake: RFC 8446, section 4.
const CLIENT_HELLO: u8 = 1;

/// What the first bytes of a client are.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// Not enough to tell.
    More,
    /// No TLS.
    Other,
    /// TLS, with the name it asks for.
    Tls(Option<String>),
    /// TLS that a server may read otherwise than this does.
    Malformed,
}

/// Reads the beginning of what a client sends.
///
/// # References
/// RFC 8446, sections 4.1.2 and 5.1; RFC 6066, section 3
#[doc(hidden)]
pub fn read(bytes: &[u8]) -> Opening {
    match bytes {
        [HANDSHAKE, ..] => hello(bytes).0,
        // Before a hello there is nothing to say, and some servers pass over it.
        [CHANGE_CIPHER_SPEC | ALERT | DATA | HEARTBEAT, 3, ..] => Opening::Malformed,
        // Alerts even of versions that there never were.
        [ALERT, _, _, 0, 2, ..] => Opening::Malformed,
        [] | [CHANGE_CIPHER_SPEC | ALERT | DATA | HEARTBEAT] | [ALERT, _] | [ALERT, _, _] | [ALERT, _, _, 0] => {
            Opening::More
        }
        _ => Opening::Other,
    }
}

/// Reads a hello, whatever version its records claim: some servers don't look at that. Says how many bytes it takes.
fn hello(bytes: &[u8]) -> (Opening, usize) {
    // It may be cut into records wherever its sender likes.
    let (mut hello, mut rest) = (Vec::new(), bytes);
    loop {
        match rest {
            [HANDSHAKE, _, _, high, low, after @ ..] => {
                let length = length(&[*high, *low]);
                let (content, after) = after.split_at(length.min(after.len()));
                if length == 0 {
                    return (Opening::Malformed, 0);
                }
                hello.extend_from_slice(content);
                rest = after;
                match hello.first() {
                    None | Some(&CLIENT_HELLO) => {}
                    // What begins like a handshake of another version is none when no hello follows.
                    Some(_) if bytes[1] != 3 => return (Opening::Other, 0),
                    Some(_) => return (Opening::Malformed, 0),
                }
                let Some(end) = end(&hello) else { continue };
                // A record that has more in it than the hello's end may have a second hello in it.
                if end > LONGEST || hello.len() + length - content.len() > end {
                    return (Opening::Malformed, 0);
                }
                if hello.len() == end {
                    let opening = server_name(&hello[4..]).map_or(Opening::Malformed, Opening::Tls);
                    return (opening, bytes.len() - rest.len());
                }
            }
            [] | [HANDSHAKE] | [HANDSHAKE, _] | [HANDSHAKE, _, _] | [HANDSHAKE, _, _, _] => {
                return (if bytes.len() < LONGEST { Opening::More } else { Opening::Malformed }, 0);
            }
            _ => return (Opening::Malformed, 0),
        }
    }
}

fn length(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
}

/// Where a message of a handshake ends.
fn end(message: &[u8]) -> Option<usize> {
    Some(4 + length(message.get(1..4)?))
}

/// Reads a field behind its length, which takes `width` bytes; gives it back with what follows.
fn field(bytes: &[u8], width: usize) -> Option<(&[u8], &[u8])> {
    let length = length(bytes.get(..width)?);
    bytes[width..].split_at_checked(length)
}

/// The name in a ClientHello; `None` when it can't be read, `Some(None)` when there is none.
fn server_name(hello: &[u8]) -> Option<Option<String>> {
    const VERSION_AND_RANDOM: usize = 2 + 32;
    let (_, rest) = field(hello.get(VERSION_AND_RANDOM..)?, 1)?;
    let (_, rest) = field(rest, 2)?;
    let (_, rest) = field(rest, 1)?;
    if rest.is_empty() {
        return Some(None);
    }
    let (mut extensions, after) = field(rest, 2)?;
    if !after.is_empty() {
        return None;
    }
    let mut name = None;
    while !extensions.is_empty() {
        let kind = extensions.get(..2)?;
        let (content, next) = field(&extensions[2..], 2)?;
        if kind == [0, 0] {
            let (list, after) = field(content, 2)?;
            let [0, host @ ..] = list else { return None };
            let (host, more) = field(host, 2)?;
            // Of two names, nobody knows which one the server takes.
            if !after.is_empty() || !more.is_empty() || name.is_some() {
                return None;
            }
            name = Some(std::str::from_utf8(host).ok()?.to_owned());
        }
        extensions = next;
    }
    Some(name)
}

/// Whether a name that TLS asks for is that one.
pub(super) fn same(asked: &str, name: &DnsName) -> bool {
    asked.strip_suffix('.').unwrap_or(asked).eq_ignore_ascii_case(name.as_str())
}

/// A fatal alert: unrecognized_name.
pub(super) const WRONG_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    /// What rustls says first.
    pub(in crate::proxy::hello) fn hello(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = name.to_owned().try_into().unwrap();
        let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same handshake in records of `size` bytes.
    pub(in crate::proxy::hello) fn cut(hello: &[u8], size: usize) -> Vec<u8> {
        hello[5..].chunks(size).flat_map(|chunk| [&[0x16, 3, 1, 0, chunk.len() as u8][..], chunk].concat()).collect()
    }

    #[test]
    fn the_name_is_found_and_every_beginning_asks_for_more() {
        let whole = hello("api.example.com");
        let found = Opening::Tls(Some("api.example.com".into()));
        assert_eq!(read(&whole), found);
        assert_eq!(read(&[&whole[..], b"what follows"].concat()), found);
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]), Opening::More, "{end}");
        }
        for size in [1, 2, 3, 7, 200] {
            let pieces = cut(&whole, size);
            assert_eq!(read(&pieces), found, "{size}");
            assert_eq!(read(&pieces[..pieces.len() - 1]), Opening::More);
        }
        assert_eq!(read(&hello("203.0.113.9")), Opening::Tls(None));
    }

    #[test]
    fn what_is_no_tls_is_no_business_of_this() {
        for other in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"SSH-2.0-x\r\n",
            b"\0",
            b"\x80\x2e\x01\x03\x01",
            // Lengths and numbers of protocols that begin with such (MongoDB, Minecraft).
            b"\x16\x01\0\0\x01\0\0\0",
            b"\x15\x01\0\0\x01\0\0\0",
            b"\x14\0\xfb\x05\x0dweb.example",
            b"\x16\0\xfb\x05\x0fweb.example",
        ] {
            assert_eq!(read(other), Opening::Other, "{}", other.escape_ascii());
        }
    }

    #[test]
    fn what_some_servers_pass_over_is_refused() {
        let hello = hello("a.example");
        for first in [
            &b"\x15\x03\x01\0\x02\x01\x5a"[..],
            b"\x15\x03\x01\0\x01\x29",
            b"\x15\x0f\x01\0\x02\x01\x5a",
            b"\x14\x03\x03\0\x01\x01",
            b"\x17\x03\x03\0\x01\x01",
            b"\x18\x03\x03\0\x03\x01\0\0",
            b"\x16\x03\x01\0\0",
            b"\x16\xfe\xfd\0\0",
            b"\x16\x03\x01\0\x04\0\0\0\0",
        ] {
            assert_eq!(read(&[first, &hello].concat()), Opening::Malformed, "{}", first.escape_ascii());
        }
    }

    #[test]
    fn records_of_any_version_are_read() {
        let found = Opening::Tls(Some("a.example".into()));
        for version in [[2, 1], [0, 0], [3, 0], [3, 5], [3, 0xff], [0x0f, 0xff], [0xfe, 0xfd]] {
            let mut hello = hello("a.example");
            hello[1..3].copy_from_slice(&version);
            assert_eq!(read(&hello), found, "{version:?}");
        }
    }

    #[test]
    fn a_hello_is_alone_in_its_records() {
        let one = hello("a.example");
        let record = |content: &[u8]| [&[0x16, 3, 1], &(content.len() as u16).to_be_bytes()[..], content].concat();
        assert_eq!(read(&record(&[&one[5..], &hello("b.example")[5..]].concat())), Opening::Malformed);
        let split = [record(&one[5..50]), record(&[&one[50..], b"x"].concat())].concat();
        assert_eq!(read(&split), Opening::Malformed);
    }

    #[test]
    fn two_names_are_no_name() {
        let whole = hello("a.example");
        let at = memchr::memmem::find(&whole, b"a.example").unwrap();
        // The list's length and the name's, one after the other: a second name of no length would end the list.
        let mut two = whole.clone();
        two[at - 1] -= 1;
        assert_eq!(read(&two), Opening::Malformed);
        let mut odd = whole.clone();
        odd[at] = 0xff;
        assert_eq!(read(&odd), Opening::Malformed);
        let mut strange = whole;
        strange[5] = 2;
        assert_eq!(read(&strange), Opening::Malformed);
        assert_eq!(read(&[0x16, 3, 1, 0, 0]), Opening::Malformed);
    }

    proptest! {
        /// Whatever is changed or cut, it is read without harm, and no more is asked for than a hello may have.
        #[test]
        fn anything_is_read(at in 0usize..300, byte: u8, cut in 0usize..300, more in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut bytes = hello("a.example");
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(cut.max(1));
            bytes.extend(more);
            let _ = read(&bytes);
            bytes.resize(2 * LONGEST, 0);
            prop_assert_ne!(read(&bytes), Opening::More);
        }
    }
}
