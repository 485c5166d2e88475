//! The first thing that a TLS client says, read far enough to know for whom it asks.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pulse::Watched;
use crate::policy::DnsName;

/// Longest ClientHello that is read, records and all.
const LONGEST: usize = 64 * 1024;

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
        [] | [0x16] => return Opening::More,
        [0x16, 3, ..] => {}
        _ => return Opening::Other,
    }
    // A hello may be cut into records wherever its sender likes.
    let (mut hello, mut rest) = (Vec::new(), bytes);
    loop {
        if let Some(whole) = message(&hello) {
            return whole.and_then(server_name).map_or(Opening::Malformed, Opening::Tls);
        }
        match rest {
            [] => break,
            [0x16, 3, _, high, low, after @ ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if length == 0 {
                    return Opening::Malformed;
                }
                let taken = length.min(after.len());
                hello.extend_from_slice(&after[..taken]);
                rest = &after[taken..];
            }
            [0x16] | [0x16, 3] | [0x16, 3, _] | [0x16, 3, _, _] => break,
            _ => return Opening::Malformed,
        }
    }
    match message(&hello) {
        Some(whole) => whole.and_then(server_name).map_or(Opening::Malformed, Opening::Tls),
        None if bytes.len() >= LONGEST => Opening::Malformed,
        None => Opening::More,
    }
}

/// The body of the handshake's first message once it is there; `Some(None)` when it is no ClientHello.
fn message(bytes: &[u8]) -> Option<Option<&[u8]>> {
    match bytes {
        [] => None,
        [1, a, b, c, body @ ..] => {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            if length > LONGEST {
                return Some(None);
            }
            body.get(..length).map(Some)
        }
        [1, ..] => None,
        _ => Some(None),
    }
}

/// Reads a field behind its length, which takes `width` bytes; gives it back with what follows.
fn field(bytes: &[u8], width: usize) -> Option<(&[u8], &[u8])> {
    let length = bytes.get(..width)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
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

/// A client's connection from which the first bytes can be looked at before they are read.
#[derive(Debug)]
pub(super) struct Client {
    /// Received and not handed on.
    early: Bytes,
    io: Watched,
    /// Who must be asked for before anything is handed on.
    check: Option<(DnsName, BytesMut)>,
    /// Who was asked for instead; an empty name where that could not be read.
    pub(super) other: Option<String>,
}

impl Client {
    pub(super) fn new(early: Bytes, io: Watched) -> Self {
        Self { early, io, check: None, other: None }
    }

    /// Hands nothing on until it is sure that it is not TLS for somebody else than `name`.
    pub(super) fn check(mut self, name: DnsName) -> Self {
        let early = BytesMut::from(&std::mem::take(&mut self.early)[..]);
        self.check = Some((name, early));
        self
    }

    pub(super) fn into_io(self) -> Watched {
        self.io
    }

    /// Reads until there is a first byte, and leaves it to be read; `None` at the end.
    pub(super) async fn first(&mut self) -> io::Result<Option<u8>> {
        if self.early.is_empty() {
            let mut bytes = BytesMut::with_capacity(4096);
            tokio::io::AsyncReadExt::read_buf(&mut self.io, &mut bytes).await?;
            self.early = bytes.freeze();
        }
        Ok(self.early.first().copied())
    }

    fn poll_opening(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((name, bytes)) = &mut self.check {
            match read(bytes) {
                Opening::More => {
                    let mut piece = [0; 4096];
                    let mut buffer = ReadBuf::new(&mut piece);
                    ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
                    if !buffer.filled().is_empty() {
                        bytes.extend_from_slice(buffer.filled());
                        continue;
                    }
                    // It ended before it could be told: nobody can be asked for with that little.
                }
                Opening::Tls(Some(asked)) if !same(&asked, name) => self.other = Some(asked),
                Opening::Malformed => self.other = Some(String::new()),
                Opening::Other | Opening::Tls(_) => {}
            }
            if self.other.is_some() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::PermissionDenied, "TLS for another host")));
            }
            self.early = std::mem::take(bytes).freeze();
            self.check = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Client {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.check.is_some() {
            ready!(self.poll_opening(cx))?;
        }
        if !self.early.is_empty() {
            let taken = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early[..taken]);
            self.early.advance(taken);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

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
        for other in [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0-x\r\n", b"\0", b"\x80\x2e\x01\x03\x01", b"\x16\x02"] {
            assert_eq!(read(other), Opening::Other);
        }
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
