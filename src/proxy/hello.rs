//! For whom a TLS client asks: read from its first message, and from those that may follow before keys are agreed upon.
//!
//! Servers differ in what they forgive. Whatever one of them takes for a hello is read as one here, or refused.

use bytes::{Bytes, BytesMut};

use crate::policy::DnsName;

/// Longest ClientHello that is read, records and all; and the most that is kept of a server's answer.
const LONGEST: usize = 64 * 1024;

/// Kinds of records: RFC 8446, section 5.1.
const CHANGE_CIPHER_SPEC: u8 = 0x14;
const ALERT: u8 = 0x15;
const HANDSHAKE: u8 = 0x16;
const DATA: u8 = 0x17;
const HEARTBEAT: u8 = 0x18;

/// Kinds of messages in a handshake: RFC 8446, section 4.
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

/// The `random` of a ServerHello that asks for another ClientHello: RFC 8446, section 4.1.3.
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

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

/// Follows a connection from its first byte to where no further hello can come: behind one that the server has taken.
///
/// A server that wants another key asks for a second hello, and looks at the name in that one. It says so, and the client's
/// early data, which may come in between, is no sign that it did not.
#[derive(Debug)]
pub(super) struct Hellos {
    /// Who must be asked for.
    name: DnsName,
    /// What the client said and what was not let through yet.
    held: BytesMut,
    /// How much of it is in a record that needs no look.
    unread: usize,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Nothing was let through.
    First,
    /// The server was asked, and has not taken a hello; with what it has said, if that is TLS.
    Asked(Option<Vec<u8>>),
    /// It has.
    Taken,
}

/// What is to be done with what a client said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait for more of it.
    Wait,
    /// Let that through.
    Pass(Bytes),
    /// Let that through, and all that follows.
    Done(Bytes),
    /// Refuse it: it asks for somebody else, or for what can't be read, which is an empty name.
    Refuse(String),
}

impl Hellos {
    pub(super) fn new(name: DnsName, said: &[u8]) -> Self {
        Self { name, held: BytesMut::from(said), unread: 0, stage: Stage::First }
    }

    /// Notes what the client says.
    pub(super) fn client_says(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Notes what the server says.
    pub(super) fn server_says(&mut self, bytes: &[u8]) {
        // What it says unasked is no answer.
        let Stage::Asked(said) = &mut self.stage else { return };
        let Some(answer) = said else { return };
        answer.extend_from_slice(&bytes[..bytes.len().min(LONGEST)]);
        match takes(answer) {
            Some(true) => self.stage = Stage::Taken,
            None if answer.len() < LONGEST => {}
            Some(false) | None => *said = None,
        }
    }

    /// What is left when the client has ended: nobody can be asked for with that little.
    pub(super) fn rest(self) -> Bytes {
        self.held.freeze()
    }

    /// Decides on the next piece of what the client said.
    pub(super) fn next(&mut self) -> Next {
        if self.unread > 0 && !self.held.is_empty() {
            let piece = self.held.split_to(self.unread.min(self.held.len()));
            self.unread -= piece.len();
            return Next::Pass(piece.freeze());
        }
        let taken = match self.stage {
            Stage::First => match read(&self.held) {
                Opening::Other => return self.done(),
                Opening::More => return Next::Wait,
                Opening::Tls(_) | Opening::Malformed => return self.hello(),
            },
            Stage::Asked(_) => false,
            Stage::Taken => true,
        };
        match self.held[..] {
            [] => Next::Wait,
            [HANDSHAKE, ..] if !taken => self.hello(),
            // Behind the server's hello come keys. (SGC began anew there, in the clear.)
            [HANDSHAKE, _, _, 0, 0, ..] | [HANDSHAKE, _, _, _, _, CLIENT_HELLO, ..] => self.hello(),
            [HANDSHAKE, _, _, _, _, _, ..] => self.done(),
            [CHANGE_CIPHER_SPEC | DATA, ..] if taken => self.done(),
            [ALERT | CHANGE_CIPHER_SPEC | DATA, _, _, high, low, ..] => {
                self.unread = 5 + length(&[high, low]);
                self.next()
            }
            [HANDSHAKE | ALERT | CHANGE_CIPHER_SPEC | DATA, ..] => Next::Wait,
            _ if taken => self.done(),
            _ => Next::Refuse(String::new()),
        }
    }

    fn hello(&mut self) -> Next {
        match hello(&self.held) {
            (Opening::More, _) => Next::Wait,
            (Opening::Tls(Some(asked)), _) if !same(&asked, &self.name) => Next::Refuse(asked),
            (Opening::Tls(_), length) => {
                if !matches!(self.stage, Stage::Asked(_)) {
                    self.stage = Stage::Asked(Some(Vec::new()));
                }
                Next::Pass(self.held.split_to(length).freeze())
            }
            (Opening::Other | Opening::Malformed, _) => Next::Refuse(String::new()),
        }
    }

    fn done(&mut self) -> Next {
        Next::Done(std::mem::take(&mut self.held).freeze())
    }
}

/// Whether a server that says this takes the hello it was sent; `None` while it has not said so, `Some(false)` when it does not
/// speak TLS.
fn takes(said: &[u8]) -> Option<bool> {
    let (mut talk, mut rest) = (Vec::new(), said);
    let mut tls = true;
    while let [kind, _, _, high, low, after @ ..] = rest {
        let (content, after) = after.split_at(length(&[*high, *low]).min(after.len()));
        match *kind {
            HANDSHAKE => talk.extend_from_slice(content),
            ALERT | CHANGE_CIPHER_SPEC => {}
            _ => {
                tls = false;
                break;
            }
        }
        rest = after;
    }
    let mut messages = &talk[..];
    while let Some(end) = end(messages) {
        const RANDOM: std::ops::Range<usize> = 6..6 + RETRY.len();
        if messages[0] == SERVER_HELLO && messages.get(RANDOM).is_some_and(|random| random != RETRY) {
            return Some(true);
        }
        let Some(next) = messages.get(end..) else { break };
        messages = next;
    }
    (!tls).then_some(false)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConnection, ServerConnection};

    use super::*;

    /// What rustls says first.
    fn hello(name: &str) -> Vec<u8> {
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
    fn cut(hello: &[u8], size: usize) -> Vec<u8> {
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

    const NAME: &str = "good.example";
    const CCS: [u8; 6] = [0x14, 3, 3, 0, 1, 1];

    /// A client and a server of one kind of TLS; one that wants another key than the client's first.
    fn ends(version: &'static rustls::SupportedProtocolVersion, retry: bool) -> (ClientConnection, ServerConnection) {
        let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into();
        let mut provider = rustls::crypto::ring::default_provider();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(Arc::new(provider.clone()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        if retry {
            provider.kx_groups.retain(|group| group.name() == rustls::NamedGroup::secp384r1);
        }
        let server = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let client = ClientConnection::new(Arc::new(client), NAME.try_into().unwrap()).unwrap();
        (client, ServerConnection::new(Arc::new(server)).unwrap())
    }

    /// What one end has to say.
    macro_rules! says {
        ($end:expr) => {{
            let mut bytes = Vec::new();
            while $end.wants_write() {
                $end.write_tls(&mut bytes).unwrap();
            }
            bytes
        }};
    }

    /// Tells one end.
    macro_rules! hears {
        ($end:expr, $bytes:expr) => {{
            let mut bytes = &$bytes[..];
            while !bytes.is_empty() {
                $end.read_tls(&mut bytes).unwrap();
                $end.process_new_packets().unwrap();
            }
        }};
    }

    /// What is let through of what a client says in pieces of that size; whether there is an end to looking.
    fn through(hellos: &mut Hellos, said: &[u8], size: usize) -> Result<(Vec<u8>, bool), String> {
        let mut passed = Vec::new();
        for piece in said.chunks(size) {
            hellos.client_says(piece);
            loop {
                match hellos.next() {
                    Next::Wait => break,
                    Next::Pass(bytes) => passed.extend_from_slice(&bytes),
                    Next::Refuse(other) => return Err(other),
                    Next::Done(bytes) => {
                        passed.extend_from_slice(&bytes);
                        return Ok((passed, true));
                    }
                }
            }
        }
        Ok((passed, false))
    }

    #[test]
    fn a_handshake_goes_through_and_is_looked_at_no_longer() {
        for (version, retry) in [(&TLS12, false), (&TLS13, false), (&TLS13, true)] {
            for size in [1, 3, 100_000] {
                let (mut client, mut server) = ends(version, retry);
                let mut hellos = Hellos::new(NAME.parse().unwrap(), b"");
                let (mut rounds, mut done) = (0, false);
                while client.is_handshaking() || server.is_handshaking() {
                    let said = says!(client);
                    // What comes behind the last of it is let through unseen.
                    if !done {
                        let (passed, end) = through(&mut hellos, &said, size).unwrap();
                        assert!(end || passed == said, "{version:?} {retry} {rounds}");
                        done = end;
                    }
                    hears!(server, said);
                    let said = says!(server);
                    for piece in said.chunks(size) {
                        hellos.server_says(piece);
                    }
                    hears!(client, said);
                    rounds += 1;
                }
                std::io::Write::write_all(&mut client.writer(), b"data").unwrap();
                assert!(done || through(&mut hellos, &says!(client), size).unwrap().1, "{version:?} {retry}");
                assert_eq!(server.server_name(), Some(NAME));
                assert_eq!(rounds, 2 + usize::from(retry), "{version:?}");
            }
        }
    }

    #[test]
    fn a_second_hello_is_for_the_same_host() {
        let (mut client, mut server) = ends(&TLS13, true);
        let first = says!(client);
        hears!(server, first);
        let retry = says!(server);
        hears!(client, retry);
        let second = says!(client);
        let at = second.len() - memchr::memmem::find(&second, &[0x16, 3]).unwrap();
        let again = second[second.len() - at..].to_vec();
        let other = {
            let mut other = again.clone();
            let name = memchr::memmem::find(&other, NAME.as_bytes()).unwrap();
            other[name..name + 4].copy_from_slice(b"evil");
            other
        };
        let early = [&[0x17, 3, 3, 0x10, 0], &vec![0x16; 0x1000][..]].concat();
        let alert = [0x15, 3, 3, 0, 2, 1, 90];
        for before in [&b""[..], &CCS, &[0x14, 3, 3, 0, 0], &early, &alert, &[&CCS[..], &early, &early].concat()] {
            for answered in [true, false] {
                for size in [1, 7, 100_000] {
                    for (second, expected) in [(&again, Ok(())), (&other, Err("evil.example"))] {
                        for second in [second.clone(), cut(second, 9)] {
                            let mut hellos = Hellos::new(NAME.parse().unwrap(), &first);
                            assert_eq!(through(&mut hellos, b"", 1), Ok((vec![], false)));
                            assert_eq!(hellos.next(), Next::Pass(first.clone().into()));
                            if answered {
                                // A warning first, as some have it.
                                hellos.server_says(&[&alert[..], &retry, &CCS].concat());
                            }
                            assert_eq!(through(&mut hellos, before, size), Ok((before.to_vec(), false)));
                            match through(&mut hellos, &second, size) {
                                Ok((passed, end)) => {
                                    assert_eq!((passed, end, expected), (second, false, Ok(())));
                                }
                                Err(name) => assert_eq!(Err(name.as_str()), expected),
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn behind_a_hello_that_was_taken_another_may_come_in_the_clear() {
        let (mut client, mut server) = ends(&TLS12, false);
        let first = says!(client);
        hears!(server, first);
        let answer = says!(server);
        let asked = |next: &[u8]| {
            let mut hellos = Hellos::new(NAME.parse().unwrap(), &first);
            assert!(matches!(hellos.next(), Next::Pass(_)));
            hellos.server_says(&answer);
            through(&mut hellos, next, 5)
        };
        let key = [0x16, 3, 3, 0, 5, 16, 0, 0, 1, 1];
        assert!(asked(&key).unwrap().1 && asked(&CCS).unwrap().1 && asked(&[0x17, 3, 3, 0, 1, 0]).unwrap().1);
        assert_eq!(asked(&hello("evil.example")), Err("evil.example".into()));
        assert_eq!(asked(&[&[0x16, 3, 3, 0, 0][..], &hello(NAME)].concat()), Err(String::new()));
        // Without an answer there are no keys.
        let unanswered = |next: &[u8], answer: &[u8]| {
            let mut hellos = Hellos::new(NAME.parse().unwrap(), &first);
            assert!(matches!(hellos.next(), Next::Pass(_)));
            hellos.server_says(answer);
            through(&mut hellos, next, 5)
        };
        for answer in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", &answer[..20]] {
            for next in [&key[..], b"GET / HTTP/1.1\r\n"] {
                assert_eq!(unanswered(next, answer), Err(String::new()));
            }
            assert_eq!(unanswered(&CCS, answer), Ok((CCS.to_vec(), false)));
        }
        // What is said unasked is no answer to what comes after it: a protocol in which the server begins.
        let mut hellos = Hellos::new(NAME.parse().unwrap(), b"");
        hellos.server_says(b"INFO {\"tls_required\":true}\r\n");
        hellos.client_says(&first);
        assert!(matches!(hellos.next(), Next::Pass(_)));
        hellos.server_says(&answer);
        assert!(through(&mut hellos, &key, 5).unwrap().1);
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

        /// However what both say is cut, the same is let through.
        #[test]
        fn cuts_make_no_difference(
            answer in prop::collection::vec(any::<u8>(), 0..64),
            taken: bool,
            next in prop::collection::vec(prop_oneof![0x14u8..0x18, 0u8..6, any::<u8>()], 0..64),
            size in 1usize..20,
        ) {
            let answer = match taken {
                true => [&[0x16, 3, 3, 0, 38, 2, 0, 0, 34, 3, 3], &[7; 32][..], &answer].concat(),
                false => answer,
            };
            let passed = |size: usize| {
                let mut hellos = Hellos::new("a.example".parse().unwrap(), &hello("a.example"));
                assert!(matches!(hellos.next(), Next::Pass(_)));
                for piece in answer.chunks(size) {
                    hellos.server_says(piece);
                }
                through(&mut hellos, &next, size).map(|(passed, done)| if done { next.clone() } else { passed })
            };
            prop_assert_eq!(passed(size), passed(100));
        }
    }
}
