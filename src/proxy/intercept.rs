//! Tunnels that are looked into: the proxy is the origin's other end, and the program's.
//!
//! Which protocol is spoken is settled once for both sides: the origin is asked first, with what the program offered, and the
//! program is given what the origin chose. So HTTP/2 goes on as HTTP/2, stream by stream, trailers and all, and nothing is
//! translated. An origin whose certificate does not hold is never spoken to: the program's requests are answered with 502.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{CONNECTION, HeaderMap};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

use super::body::{Driver, RequestBody, ResponseBody};
use super::client::Client;
use super::connect;
use super::exchange::{Answer, Exchange, Hop};
use super::forward::{self, Link, Message, Way};
use super::hello::WRONG_NAME;
use super::interception::server_name;
use super::pulse::{Busy, Tied};
use super::refusal::Refusal;
use super::requests;
use super::target::Target;
use super::tunnel::{self, Tunnel};
use crate::policy::{Host, Scheme};

/// Streams that were reset and not yet looked at, past which a connection ends (rapid reset).
const RESETS: usize = 32;
/// Connections of one sandbox that have plenty of room; a program that opens more has them with little.
pub(super) const ROOMY: usize = 32;

/// What one connection over HTTP/2 can take up, each side: what may wait to be read, and for each stream what may wait to be
/// sent.
struct Room {
    /// Streams that a program may have open at once.
    streams: u32,
    /// Bytes of one stream that may wait to be read.
    stream: u32,
    /// Bytes of all streams that may.
    all: u32,
    /// Bytes of one stream that may wait to be sent.
    sent: usize,
    _roomy: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Plenty is 6 MiB each side, enough for 10 MB/s over a tenth of a second; little is 320 KiB. So a thousand connections,
    /// all stuffed and none of them read, hold 1 GiB at the most.
    fn take(roomy: &Arc<Semaphore>) -> Self {
        match Arc::clone(roomy).try_acquire_owned() {
            Ok(permit) => Self { streams: 128, stream: 1 << 20, all: 2 << 20, sent: 32 << 10, _roomy: Some(permit) },
            // HTTP/2 begins with windows of that many bytes.
            Err(_) => Self { streams: 16, stream: 0xffff, all: 0xffff, sent: 16 << 10, _roomy: None },
        }
    }
}

/// How often the other end of a silent HTTP/2 connection is asked whether it is still there.
const ALIVE: Duration = Duration::from_secs(60);
/// How long a connection that was opened ahead is trusted to be one still.
const FRESH: Duration = Duration::from_secs(5);

/// What is known of a tunnel before anything was said in it.
pub(super) struct Inside {
    pub(super) exchange: Exchange,
    pub(super) target: Target,
    /// Of the `CONNECT` request, for an upstream.
    pub(super) headers: HeaderMap,
}

/// Serves a tunnel. `stream` leads to the origin.
pub(super) fn serve(inside: Inside, client: OnUpgrade, stream: TcpStream, busy: Option<Busy>) -> Tunnel {
    Box::pin(async move {
        let stream = Tied::new(stream, Arc::clone(&inside.exchange.pulse));
        let ended = tokio::select! {
            ended = inside.open(client, stream) => ended,
            () = Busy::cut_of(busy.as_ref()) => Err(tunnel::cut_short()),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an intercepted tunnel ended badly");
        }
    })
}

/// Anything that bytes go through.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// The way to the origin, once it is known how that speaks.
enum Origin {
    /// A connection for each request; the first may be there already.
    One(Mutex<Option<(Instant, Box<dyn Stream>)>>),
    /// One for all.
    Many(http2::SendRequest<RequestBody>, #[allow(dead_code, reason = "ends it when dropped")] Driver),
    /// None: what to say instead.
    None(StatusCode, String),
}

impl Inside {
    async fn open(self, switched: OnUpgrade, stream: Tied) -> io::Result<()> {
        let patience = self.exchange.shared.limits.head_timeout;
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the client says nothing");
        let mut client = tunnel::client(switched).await?;
        match timeout(patience, client.first()).await.map_err(late)?? {
            None => return Ok(()),
            Some(0x16) => {}
            Some(_) => {
                let origin = Origin::One(Mutex::new(Some((Instant::now(), Box::new(stream)))));
                return self.converse(client, Scheme::Http, None, origin).await;
            }
        }
        if let Host::Name(name) = &self.target.host {
            client = client.check(name.clone());
        }
        let mut hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), client);
        let start = match timeout(patience, &mut hello).await.map_err(late)? {
            Ok(start) => start,
            Err(error) => {
                if let Some(client) = hello.take_io() {
                    self.refuse(client).await?;
                }
                return Err(error);
            }
        };
        let offers: Vec<Vec<u8>> = start.client_hello().alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
        let wants = |protocol: &[u8]| offers.iter().any(|offer| offer == protocol);
        let (gone, ended) = oneshot::channel();
        let room = Room::take(&self.exchange.shared.roomy);
        let (origin, http2) = self.origin(stream, wants(b"h2"), &room, gone).await;
        // Nobody is refused for what it would be told in HTTP.
        let http2 = http2 || matches!(origin, Origin::None(..)) && wants(b"h2") && !wants(b"http/1.1");
        let interception =
            self.exchange.shared.interception.as_ref().ok_or_else(|| io::Error::other("no authority"))?;
        let config = interception.server(&self.target.host, http2).map_err(io::Error::other)?;
        // A client that offers nothing we know is served all the same, as one that offers nothing.
        let config = if offers.is_empty() || wants(b"h2") || wants(b"http/1.1") {
            config
        } else {
            let mut plain = (*config).clone();
            plain.alpn_protocols.clear();
            Arc::new(plain)
        };
        let client = match timeout(patience, start.into_stream(config).into_fallible()).await.map_err(late)? {
            Ok(client) => client,
            Err((error, client)) => {
                self.refuse(client).await?;
                return Err(error);
            }
        };
        self.converse(client, Scheme::Https, http2.then_some((room, ended)), origin).await
    }

    /// Tells of a client that asked for somebody else, if it did, and tells it.
    async fn refuse(&self, mut client: Client) -> io::Result<()> {
        if let Some(other) = client.other.take() {
            self.exchange.other_name(&self.target, other);
            client.write_all(&WRONG_NAME).await?;
            client.shutdown().await?;
        }
        Ok(())
    }

    /// Begins TLS with the origin; says whether it speaks HTTP/2. Then `gone` is told of its end.
    async fn origin(&self, stream: Tied, http2: bool, room: &Room, gone: oneshot::Sender<()>) -> (Origin, bool) {
        let trouble = |refusal: Refusal| (Origin::None(refusal.status(), refusal.text().to_owned()), false);
        let stream = match self.tls(stream, http2).await {
            Ok(stream) => stream,
            Err(refusal) => return trouble(refusal),
        };
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return (Origin::One(Mutex::new(Some((Instant::now(), Box::new(stream))))), false);
        }
        let head_bytes = u32::try_from(self.exchange.shared.limits.head_bytes.max(8192)).unwrap_or(u32::MAX);
        let begun = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_header_list_size(head_bytes)
            .keep_alive_interval(ALIVE)
            .initial_stream_window_size(room.stream)
            .initial_connection_window_size(room.all)
            .max_send_buf_size(room.sent)
            .handshake(TokioIo::new(stream))
            .await;
        match begun {
            Ok((sender, connection)) => {
                let driven = async move {
                    let ended = connection.await;
                    // Nobody listens when the client was first to go.
                    let _ = gone.send(());
                    ended
                };
                (Origin::Many(sender, Driver::start(driven)), true)
            }
            Err(error) => trouble(connect::broken(&self.target, &error)),
        }
    }

    async fn tls(&self, stream: Tied, http2: bool) -> Result<tokio_rustls::client::TlsStream<Tied>, Refusal> {
        let target = &self.target;
        let refused = |text: &dyn fmt::Display| {
            Refusal::new(StatusCode::BAD_GATEWAY, format!("can't begin TLS with {target}: {text}"))
        };
        let Some(interception) = &self.exchange.shared.interception else {
            return Err(refused(&"there is no authority to look into it with"));
        };
        let name = server_name(&target.host).map_err(|error| refused(&error))?;
        let connecting = TlsConnector::from(interception.client(http2)).connect(name, stream);
        match timeout(self.exchange.shared.limits.connect_timeout, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(refused(&error)),
            Err(_) => Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, format!("{target} does not answer TLS in time"))),
        }
    }

    /// Answers what the client asks, until it ends: over HTTP/2 if there is one whose end is heard of.
    async fn converse<T>(
        self,
        client: T,
        scheme: Scheme,
        http2: Option<(Room, oneshot::Receiver<()>)>,
        origin: Origin,
    ) -> io::Result<()>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = self.exchange.shared.limits.clone();
        let (next, pulse) = (Arc::clone(&self.exchange.next), Arc::clone(&self.exchange.pulse));
        let talk = Arc::new(Talk { inside: self, scheme, origin });
        let service = service_fn(move |request| {
            let talk = Arc::clone(&talk);
            async move { Ok::<_, Infallible>(talk.answer(request).await) }
        });
        let head_bytes = limits.head_bytes.max(8192);
        if let Some((room, ended)) = http2 {
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .auto_date_header(false)
                .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
                .max_concurrent_streams(room.streams)
                .max_pending_accept_reset_streams(RESETS)
                .max_local_error_reset_streams(RESETS)
                .keep_alive_interval(ALIVE)
                .initial_stream_window_size(room.stream)
                .initial_connection_window_size(room.all)
                .max_send_buf_size(room.sent)
                .serve_connection(TokioIo::new(client), service);
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = &mut connection => ended,
                Ok(()) = ended => {
                    // The client is told to open another connection, for this one leads nowhere any more.
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            return ended.map_err(io::Error::other);
        }
        let mut connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .preserve_header_case(true)
            .auto_date_header(false)
            .max_buf_size(head_bytes)
            .max_header_size(head_bytes)
            // hyper's clock runs between two requests as well.
            .header_read_timeout(limits.idle_timeout.max(limits.head_timeout))
            .serve_connection(TokioIo::new(client), service)
            .with_upgrades();
        if let Err(error) = (&mut connection).await {
            // As outside of tunnels: an answer that was cut short never looks whole.
            if error.is_user() {
                pulse.doom();
            }
            return Err(io::Error::other(error));
        }
        let switched = next.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(switched) = switched {
            switched.await;
        }
        Ok(())
    }
}

/// An intercepted tunnel at work.
struct Talk {
    inside: Inside,
    scheme: Scheme,
    origin: Origin,
}

impl Talk {
    async fn answer(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let version = request.version();
        let mut response = match self.pass(request).await {
            Ok(answer) => answer.into_response(&self.inside.exchange, None),
            Err(refusal) => {
                let client = &self.inside.exchange.client;
                tracing::debug!(%client, status = refusal.status().as_u16(), "refused");
                refusal.into_response(None)
            }
        };
        if version == Version::HTTP_2 {
            response.headers_mut().remove(CONNECTION);
            *response.version_mut() = Version::HTTP_2;
        }
        response
    }

    async fn pass(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let Inside { exchange, target, .. } = &self.inside;
        if request.method() == Method::CONNECT {
            let text = "a tunnel inside of a tunnel that is looked into is not served";
            return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, text).and_close());
        }
        forward::acceptable(&request)?;
        let (parts, body) = request.into_parts();
        if !requests::names(target, &parts, self.scheme) {
            let text = format!("what is said in a tunnel to {target} is for {target} alone");
            return Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, text).and_close());
        }
        let message = Message::new(exchange, self.scheme, target, Request::from_parts(parts, body))?;
        let link = self.link().await?;
        let way = Way { target: target.clone(), scheme: self.scheme, upstream: false };
        forward::converse(exchange, &way, link, message).await
    }

    async fn link(&self) -> Result<Link, Refusal> {
        let Inside { exchange, target, headers } = &self.inside;
        let first = match &self.origin {
            Origin::None(status, text) => return Err(Refusal::new(*status, text)),
            Origin::Many(sender, _) => return Ok(Link::Many(sender.clone())),
            Origin::One(first) => first.lock().unwrap_or_else(PoisonError::into_inner).take(),
        };
        let stream = match first {
            Some((since, stream)) if since.elapsed() < FRESH => stream,
            _ => {
                let Hop { mut stream, upstream } = exchange.reach(target).await?;
                if upstream {
                    stream = connect::tunnel_through(exchange, target, headers, stream).await?;
                }
                let stream = Tied::new(stream, Arc::clone(&exchange.pulse));
                match self.scheme {
                    Scheme::Http => Box::new(stream) as Box<dyn Stream>,
                    Scheme::Https => Box::new(self.inside.tls(stream, false).await?),
                }
            }
        };
        let (sender, driver) = exchange.handshake(stream).await?;
        Ok(Link::One(sender, driver))
    }
}
