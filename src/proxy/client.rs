//! A client's connection in a tunnel: what it says is looked at before it is handed on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::hello::{Hellos, Next};
use super::pulse::Watched;
use crate::policy::DnsName;

/// A client's connection from which the first bytes can be looked at before they are read.
#[derive(Debug)]
pub(super) struct Client {
    /// Received and not handed on.
    early: Bytes,
    io: Watched,
    /// Who must be asked for, as long as that can still be said.
    check: Option<Box<Hellos>>,
    /// Who was asked for instead; an empty name where that could not be read.
    pub(super) other: Option<String>,
}

impl Client {
    pub(super) fn new(early: Bytes, io: Watched) -> Self {
        Self { early, io, check: None, other: None }
    }

    /// Hands on no TLS for somebody else than `name`.
    pub(super) fn check(mut self, name: DnsName) -> Self {
        self.check = Some(Box::new(Hellos::new(name, &std::mem::take(&mut self.early))));
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

    /// Reads until there is something that may be handed on.
    fn poll_check(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.early.is_empty()
            && let Some(hellos) = &mut self.check
        {
            match hellos.next() {
                Next::Pass(bytes) => self.early = bytes,
                Next::Done(bytes) => (self.early, self.check) = (bytes, None),
                Next::Refuse(other) => {
                    self.other = Some(other);
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::PermissionDenied, "TLS for another host")));
                }
                Next::Wait => {
                    let mut piece = [0; 4096];
                    let mut buffer = ReadBuf::new(&mut piece);
                    ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
                    if !buffer.filled().is_empty() {
                        hellos.client_says(buffer.filled());
                    } else if let Some(hellos) = self.check.take() {
                        self.early = hellos.rest();
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Client {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.check.is_some() {
            ready!(self.poll_check(cx))?;
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
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        if let Some(hellos) = &mut self.check {
            hellos.server_says(&buf[..written]);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.check.is_some() {
            let first = bufs.iter().find(|buf| !buf.is_empty());
            return self.poll_write(cx, first.map_or(&[], |buf| &**buf));
        }
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
