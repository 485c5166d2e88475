//! What a client's connection is doing, since when, and when that is too long.
//!
//! hyper's own head timeout counts the idle time between two requests as well, and knows nothing of a tunnel. Here one
//! clock follows the connection through all it can be: the socket tells it of bytes, the exchanges of their beginning and
//! end.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::Limits;
use super::dial::reset;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing was received yet.
    Fresh,
    /// Part of a request's head was received.
    Head,
    /// A request is being answered, or a tunnel is open.
    Busy,
    /// Between two requests.
    Idle,
}

/// The clock of one connection.
#[derive(Debug)]
pub(super) struct Pulse {
    state: Mutex<State>,
    changed: Notify,
    cut: Notify,
    /// Whatever is said over it ends with a reset.
    is_cut: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct State {
    phase: Phase,
    since: Instant,
}

impl Pulse {
    pub(super) fn new() -> Arc<Self> {
        let state = Mutex::new(State { phase: Phase::Fresh, since: Instant::now() });
        Arc::new(Self { state, changed: Notify::new(), cut: Notify::new(), is_cut: AtomicBool::new(false) })
    }

    /// Marks the beginning of an exchange; dropping the guard marks its end.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.enter(Phase::Busy);
        Busy(Arc::clone(self))
    }

    /// Waits until the connection has been in one phase for longer than `limits` give it, and says in which.
    pub(super) async fn overdue(&self, limits: &Limits) -> Phase {
        loop {
            let State { phase, since } = *self.state();
            let limit = match phase {
                Phase::Fresh | Phase::Head => Some(limits.head_timeout),
                Phase::Busy => limits.tunnel_idle,
                Phase::Idle => Some(limits.idle_timeout),
            };
            // A limit too long for the clock is no limit.
            match limit.and_then(|limit| since.checked_add(limit)) {
                Some(deadline) if deadline <= Instant::now() => return phase,
                Some(deadline) => {
                    tokio::select! {
                        () = sleep_until(deadline) => {}
                        () = self.changed.notified() => {}
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }

    /// Has the tunnel that the connection became reset at both ends.
    pub(super) fn cut(&self) {
        self.doom();
        self.cut.notify_one();
    }

    /// Has the connection end with a reset, and those to origins that belong to it.
    pub(super) fn doom(&self) {
        self.is_cut.store(true, Ordering::Release);
    }

    fn enter(&self, phase: Phase) {
        *self.state() = State { phase, since: Instant::now() };
        self.changed.notify_one();
    }

    fn received(&self) {
        let mut state = self.state();
        match state.phase {
            Phase::Fresh | Phase::Idle => {
                drop(state);
                self.enter(Phase::Head);
            }
            // One clock for the whole head: a byte now and then does not wind it up again.
            Phase::Head => {}
            Phase::Busy => state.since = Instant::now(),
        }
    }

    fn sent(&self) {
        let mut state = self.state();
        if matches!(state.phase, Phase::Busy | Phase::Idle) {
            state.since = Instant::now();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and a half-written state cannot be.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An exchange that is going on.
#[derive(Debug)]
pub(super) struct Busy(Arc<Pulse>);

impl Busy {
    /// Waits until it is to be cut short.
    pub(super) async fn cut(&self) {
        self.0.cut.notified().await;
    }

    /// [`Busy::cut`] of whoever is there.
    pub(super) async fn cut_of(busy: Option<&Busy>) {
        match busy {
            Some(busy) => busy.cut().await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

/// A client's socket that tells its pulse of every byte. Dropped when that is doomed, it is reset.
#[derive(Debug)]
pub(super) struct Watched {
    stream: TcpStream,
    pulse: Arc<Pulse>,
}

impl Watched {
    pub(super) fn new(stream: TcpStream, pulse: Arc<Pulse>) -> Self {
        Self { stream, pulse }
    }

    /// Ends it with a reset.
    pub(super) fn reset(self) {
        reset(&self.stream);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.pulse.is_cut.load(Ordering::Acquire) {
            reset(&self.stream);
        }
    }
}

/// A socket to an origin that is reset when the client's connection is doomed, deep as it may lie in TLS and HTTP by then.
#[derive(Debug)]
pub(super) struct Tied {
    stream: TcpStream,
    pulse: Arc<Pulse>,
}

impl Tied {
    pub(super) fn new(stream: TcpStream, pulse: Arc<Pulse>) -> Self {
        Self { stream, pulse }
    }
}

impl Drop for Tied {
    fn drop(&mut self) {
        if self.pulse.is_cut.load(Ordering::Acquire) {
            reset(&self.stream);
        }
    }
}

impl AsyncRead for Tied {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tied {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.pulse.received();
        }
        outcome
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(1..)) = outcome {
            self.pulse.sent();
        }
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(1..)) = outcome {
            self.pulse.sent();
        }
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
