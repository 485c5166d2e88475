//! Accepts connections and sees each one to its end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use http::StatusCode;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::Proxy;
use super::dial::tune;
use super::exchange::{Exchange, Granted, Shared};
use super::pulse::{Phase, Pulse, Watched};
use super::refusal::Refusal;
use crate::{Error, ErrorKind, Result};

/// Connections past the limit that are told so at once; those past that are just closed.
const TURNED_AWAY: usize = 64;
/// How long a client is given to read our last words.
const FAREWELL: Duration = Duration::from_secs(2);
/// Descriptors left to all but the connections served: those turned away, a name's addresses tried side by side, and the
/// rest of the process.
const RESERVED: u64 = TURNED_AWAY as u64 + 128;
/// How often a warning that clients can bring about is repeated.
const WARNING: Duration = Duration::from_secs(1);

impl Proxy {
    /// Serves on `listeners` until `shutdown` is ready, then closes every connection at once.
    ///
    /// The listeners may belong to another network namespace than the calling process; what is dialled is dialled from the
    /// caller's. Must be called within a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    ///
    /// When a listener cannot be handed to tokio, or no routing socket be opened. Nothing that a client does ends it.
    pub async fn serve(self, listeners: Vec<std::net::TcpListener>, shutdown: impl Future<Output = ()>) -> Result<()> {
        let take = |listener: std::net::TcpListener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        };
        let listeners: Vec<TcpListener> = listeners
            .into_iter()
            .map(take)
            .collect::<io::Result<_>>()
            .map_err(|error| Error::new(ErrorKind::Io, "can't serve on the proxy's listener").because(error))?;
        let shared = Arc::new(Shared::new(self)?);
        let places = Places {
            served: Arc::new(Semaphore::new(fitting(shared.limits.connections, getrlimit(Resource::Nofile).current))),
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY)),
        };
        // A connection's task lives in its acceptor's set: dropping the acceptors here ends every one of them.
        tokio::select! {
            () = shutdown => {}
            // Without a listener there is nothing to poll, and still something to wait for.
            _ = join_all(listeners.iter().map(|listener| accept(listener, &shared, &places))), if !listeners.is_empty() => {}
        }
        Ok(())
    }
}

struct Places {
    served: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
}

/// Says how many connections, `wanted` at most, may be served under a soft limit of open files: each takes a descriptor
/// towards its client and one towards its origin.
fn fitting(wanted: usize, open_files: Option<u64>) -> usize {
    let room = open_files
        .map_or(usize::MAX, |limit| usize::try_from(limit.saturating_sub(RESERVED) / 2).unwrap_or(usize::MAX).max(1));
    wanted.min(room).min(Semaphore::MAX_PERMITS)
}

/// Lets something be said now and then, however often it happens.
#[derive(Debug, Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    fn due(&mut self, now: Instant) -> bool {
        let due = self.0.is_none_or(|last| now.duration_since(last) >= WARNING);
        if due {
            self.0 = Some(now);
        }
        due
    }
}

/// Accepts for ever.
async fn accept(listener: &TcpListener, shared: &Arc<Shared>, places: &Places) -> Infallible {
    let mut connections = JoinSet::new();
    let mut pause = Duration::ZERO;
    let (mut crowded, mut failing) = (Seldom::default(), Seldom::default());
    loop {
        let accepted = tokio::select! {
            accepted = async {
                // Out of descriptors, the listener stays readable: without a pause this would spin.
                if !pause.is_zero() {
                    sleep(pause).await;
                }
                listener.accept().await
            } => accepted,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(%error, "a connection's task panicked");
                }
                // Its descriptors are free now.
                pause = Duration::ZERO;
                continue;
            }
        };
        match accepted {
            Ok((stream, client)) => {
                pause = Duration::ZERO;
                tune(&stream);
                if let Ok(place) = Arc::clone(&places.served).try_acquire_owned() {
                    connections.spawn(attend(stream, client, Arc::clone(shared), place));
                } else if let Ok(place) = Arc::clone(&places.turned_away).try_acquire_owned() {
                    if crowded.due(Instant::now()) {
                        tracing::warn!(%client, "too many connections");
                    }
                    connections.spawn(turn_away(stream, place));
                }
            }
            Err(error) if gone(&error) => pause = Duration::ZERO,
            Err(error) => {
                pause = (pause * 2).clamp(Duration::from_millis(10), Duration::from_secs(1));
                // The pause alone does not make this rare: every connection that ends cuts it short.
                if failing.due(Instant::now()) {
                    tracing::warn!(%error, "can't accept a connection");
                }
            }
        }
    }
}

/// Tells whether an error is about the connection that would have been accepted, not about the listener or the machine.
///
/// # References
///
/// accept(2): errors already pending on the new socket are passed on.
fn gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | WouldBlock)
}

/// Serves one client.
async fn attend(stream: TcpStream, client: SocketAddr, shared: Arc<Shared>, _place: OwnedSemaphorePermit) {
    let pulse = Pulse::new();
    let next = Arc::new(Mutex::new(None));
    let granted = Arc::new(Mutex::new(Granted::default()));
    let exchange = Exchange {
        shared: Arc::clone(&shared),
        client,
        pulse: Arc::clone(&pulse),
        next: Arc::clone(&next),
        granted: Arc::clone(&granted),
    };
    let revoked = shared.revoked(&granted);
    tokio::pin!(revoked);
    let service = service_fn(move |request| {
        let exchange = exchange.clone();
        async move { Ok::<_, Infallible>(exchange.answer(request).await) }
    });
    let head_bytes = shared.limits.head_bytes.max(8192);
    let mut connection = hyper::server::conn::http1::Builder::new()
        .preserve_header_case(true)
        .auto_date_header(false)
        .max_buf_size(head_bytes)
        .max_header_size(head_bytes)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(Watched::new(stream, Arc::clone(&pulse))), service)
        .with_upgrades();
    let mut cut_short = false;
    let overdue = tokio::select! {
        ended = &mut connection => {
            if let Err(error) = ended {
                tracing::debug!(%client, %error, "a client's connection ended badly");
                // hyper's word for a body of ours that failed: the origin went away in the middle of its answer.
                cut_short = error.is_user();
            }
            None
        }
        phase = pulse.overdue(&shared.limits) => Some(phase),
        // What was let through no longer is: as if it had taken too long.
        () = &mut revoked => Some(Phase::Busy),
    };
    if let Some(parts) = connection.into_parts() {
        let stream = parts.io.into_inner();
        if cut_short || overdue == Some(Phase::Busy) {
            return stream.reset();
        }
        let words = match overdue {
            Some(Phase::Head) => {
                Refusal::new(StatusCode::REQUEST_TIMEOUT, "the head of the request took too long").into_bytes()
            }
            _ => Vec::new(),
        };
        return take_leave(stream, &words).await;
    }
    let tunnel = next.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(mut tunnel) = tunnel {
        tokio::select! {
            () = &mut tunnel => {}
            _ = pulse.overdue(&shared.limits) => {}
            () = &mut revoked => {
                pulse.cut();
                let _ = timeout(FAREWELL, tunnel).await;
            }
        }
    }
}

async fn turn_away(stream: TcpStream, _place: OwnedSemaphorePermit) {
    let line = "too many connections at once; close some, or wait";
    take_leave(stream, &Refusal::new(StatusCode::SERVICE_UNAVAILABLE, line).into_bytes()).await;
}

/// Closes a connection so that its last answer arrives: closing while there is something unread resets it, and a reset
/// makes the client's kernel throw away what it has not read yet.
async fn take_leave(mut stream: impl AsyncRead + AsyncWrite + Unpin, words: &[u8]) {
    let leave = async {
        stream.write_all(words).await?;
        stream.shutdown().await?;
        let mut scrap = [0; 4096];
        while stream.read(&mut scrap).await? > 0 {}
        io::Result::Ok(())
    };
    // Whatever goes wrong now, the connection is closed.
    let _ = timeout(FAREWELL, leave).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_the_descriptors() {
        for (wanted, open_files, fit) in [
            (1024, Some(1024), 416),
            (1024, Some(4096), 1024),
            (1024, Some(524_288), 1024),
            (1024, None, 1024),
            (100, Some(1024), 100),
            (1024, Some(20), 1),
            (1024, Some(0), 1),
            (0, Some(1024), 0),
            (usize::MAX, None, Semaphore::MAX_PERMITS),
            (usize::MAX, Some(u64::MAX), Semaphore::MAX_PERMITS),
        ] {
            let found = fitting(wanted, open_files);
            assert_eq!(found, fit, "{wanted} under {open_files:?}");
            assert!(found <= 1 || open_files.is_none_or(|limit| found as u64 <= (limit - RESERVED) / 2));
        }
    }

    #[test]
    fn a_warning_is_given_once_a_second() {
        let begun = Instant::now();
        let mut seldom = Seldom::default();
        let given = (0..3000).filter(|&ms| seldom.due(begun + Duration::from_millis(ms))).count();
        assert_eq!(given, 3);
    }
}
