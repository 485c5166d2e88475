//! Further hellos: those that may follow the first one before keys are agreed upon.

use bytes::{Bytes, BytesMut};

use super::{
    ALERT, CHANGE_CIPHER_SPEC, CLIENT_HELLO, DATA, HANDSHAKE, LONGEST, Opening, end, hello, length, read, same,
};
use crate::policy::DnsName;

/// The kind of a server's first message: RFC 8446, section 4.
const SERVER_HELLO: u8 = 2;

/// The `random` of a ServerHello that asks for another ClientHello: RFC 8446, section 4.1.3.
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// Follows a connection from its first byte to where no further hello can come: behind one that the server has taken.
///
/// A server that wants another key asks for a second hello, and looks at the name in that one. It says so, and the client's
/// early data, which may come in between, is no sign that it did not.
#[derive(Debug)]
pub(in crate::proxy) struct Hellos {
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
pub(in crate::proxy) enum Next {
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
    pub(in crate::proxy) fn new(name: DnsName, said: &[u8]) -> Self {
        Self { name, held: BytesMut::from(said), unread: 0, stage: Stage::First }
    }

    /// Notes what the client says.
    pub(in crate::proxy) fn client_says(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Notes what the server says.
    pub(in crate::proxy) fn server_says(&mut self, bytes: &[u8]) {
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
    pub(in crate::proxy) fn rest(self) -> Bytes {
        self.held.freeze()
    }

    /// Decides on the next piece of what the client said.
    pub(in crate::proxy) fn next(&mut self) -> Next {
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

    use super::super::tests::{cut, hello};
    use super::*;

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
