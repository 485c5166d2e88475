//! As much of DNS (RFC 1035) as a resolver of two names needs, on both sides.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::BoxFuture;
use ringfence::policy::DnsName;
use ringfence::proxy::Resolve;
use tokio::net::UdpSocket;

/// Longest message over UDP without extensions (RFC 1035, section 4.2.1).
pub const LONGEST: usize = 512;

const HEADER: usize = 12;
const A: u16 = 1;
const AAAA: u16 = 28;
const IN: u16 = 1;
/// A pointer to the name of the question, which always stands right behind the header.
const QUESTION_NAME: u16 = 0xc000 | HEADER as u16;

/// Writes a question for the addresses of one family. `None` for a name that is too long for one.
pub fn question(id: u16, name: &str, ipv6: bool) -> Option<Vec<u8>> {
    // Recursion desired; one question.
    let mut message = words(&[id, 0x0100, 1, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        message.push(length);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(words(&[if ipv6 { AAAA } else { A }, IN]));
    (message.len() <= LONGEST).then_some(message)
}

/// A question as the server reads it.
pub struct Question {
    /// In lower case, with dots.
    pub name: String,
    kind: u16,
    /// All of the message up to the end of the question.
    message: Vec<u8>,
}

impl Question {
    /// Reads a message that asks one question.
    pub fn read(message: &[u8]) -> Option<Self> {
        let (name, end) = name(message, HEADER)?;
        let asked = word(message, 2)? & 0x8000 == 0 && word(message, 4)? == 1;
        let kind = word(message, end)?;
        (asked && word(message, end + 2)? == IN).then_some(Self {
            name,
            kind,
            message: message.get(..end + 4)?.to_vec(),
        })
    }

    /// Answers it: `None` for a name that does not exist.
    pub fn answer(&self, addresses: Option<&[IpAddr]>) -> Vec<u8> {
        let wanted = |address: &&IpAddr| if address.is_ipv4() { self.kind == A } else { self.kind == AAAA };
        let found: Vec<IpAddr> = addresses.unwrap_or_default().iter().filter(wanted).copied().collect();
        // Response, authoritative; 3 is NXDOMAIN.
        let flags = 0x8500 | if addresses.is_some() { 0 } else { 3 };
        let mut answer = self.message.get(..2).unwrap_or_default().to_vec();
        answer.extend(words(&[flags, 1, found.len() as u16, 0, 0]));
        answer.extend(self.message.get(HEADER..).unwrap_or_default());
        for address in found {
            let bytes = match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            // A time to live of 60 seconds, in two words.
            answer.extend(words(&[QUESTION_NAME, self.kind, IN, 0, 60, bytes.len() as u16]));
            answer.extend(bytes);
        }
        answer
    }
}

/// Reads the addresses out of an answer to the question `id`.
fn addresses(id: u16, message: &[u8]) -> Option<io::Result<Vec<IpAddr>>> {
    if word(message, 0)? != id || word(message, 2)? & 0x8000 == 0 {
        return None;
    }
    if word(message, 2)? & 0xf == 3 {
        return Some(Err(io::Error::new(io::ErrorKind::NotFound, "no such name")));
    }
    let mut at = name(message, HEADER)?.1 + 4;
    let mut found = Vec::new();
    for _ in 0..word(message, 6)? {
        // The server here always writes a pointer for the name.
        let (kind, length) = (word(message, at + 2)?, usize::from(word(message, at + 10)?));
        let data = message.get(at + 12..at + 12 + length)?;
        match kind {
            A => found.push(IpAddr::from(<[u8; 4]>::try_from(data).ok()?)),
            AAAA => found.push(IpAddr::from(<[u8; 16]>::try_from(data).ok()?)),
            _ => {}
        }
        at += 12 + length;
    }
    Some(Ok(found))
}

/// Reads an uncompressed name; the second value is where it ends.
fn name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        match length {
            0 => return Some((labels.join("."), at)),
            64.. => return None,
            _ => labels.push(String::from_utf8_lossy(message.get(at..at + length)?).to_ascii_lowercase()),
        }
        at += length;
    }
}

fn word(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// Asks one server, from the namespace of the thread that the runtime runs on.
pub struct Client(pub SocketAddr);

impl Resolve for Client {
    fn resolve<'a>(&'a self, name: &'a DnsName) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).await?;
            socket.connect(self.0).await?;
            let mut found = self.ask(&socket, 1, name, false).await?;
            found.extend(self.ask(&socket, 2, name, true).await?);
            Ok(found)
        })
    }
}

impl Client {
    async fn ask(&self, socket: &UdpSocket, id: u16, name: &DnsName, ipv6: bool) -> io::Result<Vec<IpAddr>> {
        let question = question(id, name.as_str(), ipv6).ok_or(io::ErrorKind::InvalidInput)?;
        socket.send(&question).await?;
        let mut answer = [0; LONGEST];
        let received = tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut answer)).await??;
        addresses(id, &answer[..received]).ok_or(io::ErrorKind::InvalidData)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_answered() {
        let known: Vec<IpAddr> = vec!["203.0.113.9".parse().unwrap(), "2001:db8::9".parse().unwrap()];
        for (ipv6, expected) in [(false, &known[..1]), (true, &known[1..])] {
            let asked = Question::read(&question(7, "Web.example", ipv6).unwrap()).unwrap();
            assert_eq!(asked.name, "web.example");
            assert_eq!(addresses(7, &asked.answer(Some(&known))).unwrap().unwrap(), expected);
            assert_eq!(addresses(7, &asked.answer(None)).unwrap().unwrap_err().kind(), io::ErrorKind::NotFound);
            assert!(addresses(8, &asked.answer(Some(&known))).is_none());
        }
    }

    #[test]
    fn what_is_cut_off_is_no_message() {
        let whole = question(7, "web.example", false).unwrap();
        assert!((0..whole.len()).all(|length| Question::read(&whole[..length]).is_none()));
        let answer = Question::read(&whole).unwrap().answer(Some(&["203.0.113.9".parse().unwrap()]));
        assert!((0..answer.len()).all(|length| addresses(7, &answer[..length]).is_none()));
        assert!(question(7, &"a".repeat(64), false).is_none());
    }
}
