//! One request and its answer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::HeaderValue;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::body::{Driver, RequestBody, ResponseBody};
use super::decide::{self, DenialReason, No};
use super::dial::dial;
use super::host::HostAddresses;
use super::pulse::{Busy, Pulse};
use super::refusal::Refusal;
use super::target::{Malformed, Target};
use super::tunnel::Tunnel;
use super::{AllowList, Denial, Limits, OnDenial, Resolve, Upstream, connect, forward};
use crate::policy::{AllowEntry, Host};

/// What all connections share.
pub(super) struct Shared {
    pub(super) allow: watch::Receiver<AllowList>,
    /// What the list does not cover is told, and let through.
    pub(super) audit: bool,
    pub(super) upstream: Option<Upstream>,
    /// `Proxy-Authorization` for the upstream.
    pub(super) authorization: Option<HeaderValue>,
    pub(super) limits: Limits,
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) on_denial: Option<OnDenial>,
    pub(super) host: HostAddresses,
}

impl Shared {
    /// Makes ready what all connections share, in the namespace that is dialled from.
    pub(super) fn new(proxy: super::Proxy) -> crate::Result<Self> {
        let super::Proxy { config: super::ProxyConfig { allow, audit, upstream, limits }, list, resolver, on_denial } =
            proxy;
        let credentials = upstream.as_ref().and_then(|upstream| upstream.credentials.as_ref());
        let authorization = credentials.and_then(|(user, password)| {
            let encoded = STANDARD.encode(format!("{user}:{password}"));
            let mut value = HeaderValue::from_str(&format!("Basic {encoded}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        // Nobody to decide means nobody is let through.
        let allow = allow.or_else(|| upstream.is_none().then(Vec::new));
        let allow = list.unwrap_or_else(|| watch::channel(allow.map(Arc::from)).1);
        Ok(Self { allow, audit, upstream, authorization, limits, resolver, on_denial, host: HostAddresses::open()? })
    }
}

/// What the requests of one client's connection have in common.
#[derive(Clone)]
pub(super) struct Exchange {
    pub(super) shared: Arc<Shared>,
    pub(super) client: SocketAddr,
    pub(super) pulse: Arc<Pulse>,
    /// Where the exchange that ends the connection's HTTP leaves what comes after.
    pub(super) next: Arc<Mutex<Option<Tunnel>>>,
    /// What the connection is, or was last, let through to.
    pub(super) granted: Arc<Mutex<Option<Granted>>>,
}

/// A target that was let through.
#[derive(Debug, Clone)]
pub(super) struct Granted {
    target: Target,
    /// The address that it was dialled at; none through an upstream, or before it is.
    address: Option<std::net::IpAddr>,
}

impl Shared {
    /// Waits until the list covers no longer what was granted.
    pub(super) async fn revoked(&self, granted: &Mutex<Option<Granted>>) {
        if self.audit {
            return std::future::pending().await;
        }
        let mut list = self.allow.clone();
        // With nobody left to change it, the list stays as it is.
        while list.changed().await.is_ok() {
            let granted = granted.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let now = list.borrow_and_update().clone();
            if let (Some(Granted { target, address }), Some(now)) = (granted, now) {
                let own = address.map(|address| self.host.among(&[address])).transpose().unwrap_or_default();
                let vetted = decide::vet(&now, target.port, address, &own.unwrap_or_default());
                if decide::admit(&now, &target).is_err() || vetted.is_err() {
                    return;
                }
            }
        }
        std::future::pending().await
    }
}

/// A connection to whoever comes next.
pub(super) struct Hop {
    pub(super) stream: TcpStream,
    /// It is the upstream proxy, not the origin.
    pub(super) upstream: bool,
}

impl Exchange {
    /// Answers one request.
    pub(super) async fn answer(self, request: Request<Incoming>) -> Response<ResponseBody> {
        // Idle begins when `busy` is dropped: with the answer's last byte, or with the tunnel.
        let busy = self.pulse.begin();
        let connect = request.method() == Method::CONNECT;
        let outcome =
            if connect { connect::connect(&self, request).await } else { forward::forward(&self, request).await };
        match outcome {
            Ok(answer) => answer.into_response(&self, busy),
            Err(refusal) => {
                tracing::debug!(client = %self.client, status = refusal.status().as_u16(), "refused");
                // A client that did not wait for our answer may have sent the tunnel's first bytes: they are no request.
                let refusal = if connect { refusal.and_close() } else { refusal };
                refusal.into_response(busy)
            }
        }
    }

    /// Reads where a request wants to go.
    pub(super) fn target(&self, authority: &str, default: Option<std::num::NonZeroU16>) -> Result<Target, Refusal> {
        Target::parse(authority, default).map_err(|malformed| match malformed {
            Malformed::Numeric => {
                self.deny(authority.to_owned(), None, DenialReason::NumericName, None);
                Refusal::denied(&DenialReason::NumericName, format!("{authority} {malformed}"))
            }
            // The line may end up in a log, and a password shall not.
            Malformed::Userinfo => Refusal::bad_request(format!("the host {malformed}")),
            malformed => Refusal::bad_request(format!("{authority} {malformed}")),
        })
    }

    /// Decides on a target, and connects to it or to the upstream.
    pub(super) async fn reach(&self, target: &Target) -> Result<Hop, Refusal> {
        let Shared { upstream, limits, .. } = &*self.shared;
        let grant = |address| {
            let granted = Granted { target: target.clone(), address };
            *self.granted.lock().unwrap_or_else(PoisonError::into_inner) = Some(granted);
        };
        // Noted before the list is looked at: should the list change in between, one of the two sees the other.
        grant(None);
        let allow = self.shared.allow.borrow().clone();
        if let Some(list) = &allow {
            decide::admit(list, target).or_else(|no| self.judge(target, no))?;
        }
        let (stream, what) = match (upstream, &allow) {
            (Some(upstream), _) => {
                let proxy = Target { host: upstream.host.clone(), port: upstream.port };
                let what = format!("the upstream proxy {proxy}");
                let addresses = self.addresses(&proxy, &what).await?;
                let addresses: Vec<_> =
                    addresses.into_iter().map(|address| SocketAddr::new(address, proxy.port.get())).collect();
                (dial(&addresses, limits.connect_timeout).await, what)
            }
            (None, list) => {
                let addresses = self.addresses(target, &target.to_string()).await?;
                let list = list.as_deref().unwrap_or_default();
                let own = self.shared.host.among(&addresses).map_err(|error| {
                    let text = format!("can't tell where {target} leads: {}", error.chain());
                    Refusal::new(StatusCode::BAD_GATEWAY, text)
                })?;
                let all: Vec<_> =
                    addresses.iter().map(|address| SocketAddr::new(*address, target.port.get())).collect();
                let vetted = decide::vet(list, target.port, addresses, &own);
                let vetted = vetted.or_else(|no| self.judge(target, no).map(|()| all))?;
                let stream = dial(&vetted, limits.connect_timeout).await;
                if let Some(address) = stream.as_ref().ok().and_then(|stream| stream.peer_addr().ok()) {
                    grant(Some(address.ip()));
                    // The list may have changed while the address was not known yet.
                    let list = self.shared.allow.borrow().clone().unwrap_or_default();
                    let still = decide::vet(&list, target.port, [address.ip()], &own);
                    if let (Err(no), false) = (still, self.shared.audit) {
                        return Err(self.refuse(target, no));
                    }
                }
                (stream, target.to_string())
            }
        };
        let stream = stream.map_err(|error| Refusal::unreachable(&what, &error))?;
        tracing::debug!(client = %self.client, %target, hop = ?stream.peer_addr().ok(), "let through");
        Ok(Hop { stream, upstream: upstream.is_some() })
    }

    async fn addresses(&self, target: &Target, what: &str) -> Result<Vec<std::net::IpAddr>, Refusal> {
        let name = match &target.host {
            Host::Address(address) => return Ok(vec![*address]),
            Host::Name(name) => name,
        };
        let trouble = |status, text: &str| Refusal::new(status, format!("can't resolve {what}: {text}"));
        match timeout(self.shared.limits.connect_timeout, self.shared.resolver.resolve(name)).await {
            Ok(Ok(addresses)) if addresses.is_empty() => Err(trouble(StatusCode::BAD_GATEWAY, "it has no address")),
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::TimedOut => {
                Err(trouble(StatusCode::GATEWAY_TIMEOUT, &error.to_string()))
            }
            Ok(Err(error)) => Err(trouble(StatusCode::BAD_GATEWAY, &error.to_string())),
            Err(_) => Err(trouble(StatusCode::GATEWAY_TIMEOUT, "no answer in time")),
        }
    }

    /// Tells of a destination that is not let through. In an audit it is let through all the same.
    fn judge(&self, target: &Target, no: No) -> Result<(), Refusal> {
        let refusal = self.refuse(target, no);
        if self.shared.audit { Ok(()) } else { Err(refusal) }
    }

    fn refuse(&self, target: &Target, no: No) -> Refusal {
        let No { reason, hint } = no;
        let why = match &reason {
            DenialReason::SpecialAddress { address, class } => format!("resolves to {address}, {class}"),
            _ => "is not on the allow-list".to_owned(),
        };
        let line = match &hint {
            Some(entry) => format!("{target} {why}; --allow {entry} would allow it"),
            None => format!("{target} {why}, and no entry can allow that"),
        };
        let refusal = Refusal::denied(&reason, line);
        self.deny(target.host.to_string(), Some(target.port.get()), reason, hint);
        refusal
    }

    fn deny(&self, host: String, port: Option<u16>, reason: DenialReason, hint: Option<AllowEntry>) {
        let passed = self.shared.audit && reason != DenialReason::NumericName;
        tracing::info!(client = %self.client, ?host, port, reason = reason.code(), passed, "denied");
        if let Some(callback) = &self.shared.on_denial {
            callback(Denial { client: self.client, host, port, reason, hint, stage: "connect", passed });
        }
    }

    /// Begins HTTP on a connection to the next hop, for one request.
    pub(super) async fn handshake(
        &self,
        stream: TcpStream,
    ) -> Result<(hyper::client::conn::http1::SendRequest<RequestBody>, Driver), Refusal> {
        let head_bytes = self.shared.limits.head_bytes.max(8192);
        let (sender, connection) = hyper::client::conn::http1::Builder::new()
            .preserve_header_case(true)
            .max_buf_size(head_bytes)
            .max_header_size(head_bytes)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Refusal::new(StatusCode::BAD_GATEWAY, format!("can't begin HTTP: {error}")))?;
        Ok((sender, Driver::start(connection.with_upgrades())))
    }
}

/// What an exchange came to.
pub(super) enum Answer {
    /// A response of the next hop's.
    Pass(Response<Incoming>, Driver),
    /// The connection becomes a tunnel after this head.
    Switch(http::response::Parts, Box<dyn FnOnce(Busy) -> Tunnel + Send>),
}

impl Answer {
    fn into_response(self, exchange: &Exchange, busy: Busy) -> Response<ResponseBody> {
        match self {
            Answer::Pass(response, driver) => response.map(|body| ResponseBody::origin(body, busy, driver)),
            Answer::Switch(head, tunnel) => {
                *exchange.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel(busy));
                Response::from_parts(head, ResponseBody::empty())
            }
        }
    }
}
