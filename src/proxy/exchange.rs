//! One request and its answer.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::HeaderValue;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::body::{Driver, RequestBody, ResponseBody};
use super::decide::{self, DenialReason, No};
use super::dial::dial;
use super::host::HostAddresses;
use super::pulse::{Busy, Pulse};
use super::refusal::Refusal;
use super::requests::{Applied, Requests, Unfit};
use super::secret::Stray;
use super::target::{Malformed, Target};
use super::tunnel::{Check, Tunnel};
use super::{
    AllowList, Denial, Interception, Limits, OnDenial, Resolve, Secret, Upstream, connect, forward, intercept,
};
use crate::policy::{AllowEntry, Host, Scheme, SniCheck};

/// What all connections share.
pub(super) struct Shared {
    pub(super) allow: watch::Receiver<AllowList>,
    /// What the list does not cover is told, and let through.
    pub(super) audit: bool,
    pub(super) secrets: Arc<[Secret]>,
    pub(super) interception: Option<Arc<Interception>>,
    pub(super) sni: SniCheck,
    pub(super) upstream: Option<Upstream>,
    /// `Proxy-Authorization` for the upstream.
    pub(super) authorization: Option<HeaderValue>,
    pub(super) limits: Limits,
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) on_denial: Option<OnDenial>,
    pub(super) host: HostAddresses,
    /// For connections over HTTP/2 that may take up much.
    pub(super) roomy: Arc<Semaphore>,
    /// Bytes that bodies may take up which are read whole before they go on.
    pub(super) counted: Arc<Semaphore>,
}

impl Shared {
    /// Makes ready what all connections share, in the namespace that is dialled from.
    pub(super) fn new(proxy: super::Proxy) -> crate::Result<Self> {
        let super::Proxy { config, list, resolver, on_denial } = proxy;
        let super::ProxyConfig { allow, audit, upstream, limits, secrets, interception, sni } = config;
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
        let host = HostAddresses::open()?;
        Ok(Self {
            allow,
            audit,
            secrets,
            interception,
            sni,
            upstream,
            authorization,
            limits,
            resolver,
            on_denial,
            host,
            roomy: Arc::new(Semaphore::new(intercept::ROOMY)),
            counted: Arc::new(Semaphore::new(forward::COUNTED_AT_ONCE)),
        })
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
    pub(super) granted: Arc<Mutex<Granted>>,
}

/// What a connection is let through to.
#[derive(Debug, Clone, Default)]
pub(super) struct Granted {
    /// Where it leads, and the address that was dialled: none through an upstream, or before it is.
    target: Option<(Target, Option<IpAddr>)>,
    /// What is said in its tunnel is not seen.
    unseen: bool,
    /// Requests under way.
    asked: Vec<Weak<Asked>>,
}

impl Granted {
    fn leads(&mut self, target: &Target, address: Option<IpAddr>) {
        self.target = Some((target.clone(), address));
    }
}

/// A request that was let through, for as long as it is under way.
pub(super) struct Asked {
    scheme: Scheme,
    target: Target,
    method: Method,
    /// As it goes on: a value may be in it, which is wiped with the last clone.
    uri: Uri,
}

impl fmt::Debug for Asked {
    /// Leaves the URL out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("target", &self.target).field("method", &self.method).finish_non_exhaustive()
    }
}

impl Asked {
    fn covered(&self, requests: &Requests) -> bool {
        requests.cover(self.scheme, &self.target, self.method.as_str(), self.uri.path())
    }
}

impl Shared {
    /// The policy about requests, as it is now.
    pub(super) fn requests(&self) -> Requests {
        let allow = self.allow.borrow().clone();
        Requests { allow, audit: self.audit, secrets: Arc::clone(&self.secrets) }
    }

    /// Waits until the list covers no longer what was granted.
    pub(super) async fn revoked(&self, granted: &Mutex<Granted>) {
        if self.audit {
            return std::future::pending().await;
        }
        let mut list = self.allow.clone();
        // With nobody left to change it, the list stays as it is.
        while list.changed().await.is_ok() {
            let granted = granted.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if !self.covers(&granted) {
                return;
            }
        }
        std::future::pending().await
    }

    fn covers(&self, granted: &Granted) -> bool {
        let requests = self.requests();
        if !granted.asked.iter().filter_map(Weak::upgrade).all(|asked| asked.covered(&requests)) {
            return false;
        }
        let Some((target, address)) = &granted.target else { return true };
        if granted.unseen && requests.concern(target) {
            return false;
        }
        let Some(list) = &requests.allow else { return true };
        let own = address.map(|address| self.host.among(&[address])).transpose().unwrap_or_default();
        let vetted = decide::vet(list, target, *address, &own.unwrap_or_default());
        decide::admit(list, target).is_ok() && vetted.is_ok()
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
        *self.granted() = Granted::default();
        let connect = request.method() == Method::CONNECT;
        let outcome =
            if connect { connect::connect(&self, request).await } else { forward::forward(&self, request).await };
        match outcome {
            Ok(answer) => answer.into_response(&self, Some(busy)),
            Err(refusal) => {
                tracing::debug!(client = %self.client, status = refusal.status().as_u16(), "refused");
                // A client that did not wait for our answer may have sent the tunnel's first bytes: they are no request.
                let refusal = if connect { refusal.and_close() } else { refusal };
                refusal.into_response(Some(busy))
            }
        }
    }

    /// Reads where a request wants to go.
    pub(super) fn target(&self, authority: &str, default: Option<std::num::NonZeroU16>) -> Result<Target, Refusal> {
        Target::parse(authority, default).map_err(|malformed| match malformed {
            Malformed::Numeric => {
                self.deny(authority.to_owned(), None, DenialReason::NumericName, None, false);
                Refusal::denied(&DenialReason::NumericName, format!("{authority} {malformed}"))
            }
            // The line may end up in a log, and a password shall not.
            Malformed::Userinfo => Refusal::bad_request(format!("the host {malformed}")),
            malformed => Refusal::bad_request(format!("{authority} {malformed}")),
        })
    }

    /// Decides on a target as the client named it.
    pub(super) fn admit(&self, target: &Target) -> Result<(), Refusal> {
        let allow = self.shared.allow.borrow().clone();
        let Some(list) = allow else { return Ok(()) };
        decide::admit(&list, target).or_else(|no| self.told(target, no))
    }

    /// Notes that what is said from here on goes unseen; false when by the list it has to be seen.
    pub(super) fn unseen(&self, target: &Target) -> bool {
        // Noted before the list is looked at, as in `reach`.
        self.granted().unseen = true;
        let unseen = !self.shared.requests().concern(target);
        self.granted().unseen = unseen;
        unseen
    }

    /// Judges what a request asks of a target, and puts values into its head. It is under way as long as what is given back.
    pub(super) fn fit(
        &self,
        scheme: Scheme,
        target: &Target,
        parts: &mut Parts,
    ) -> Result<(Applied, Arc<Asked>), Refusal> {
        let (method, path) = (parts.method.to_string(), parts.uri.path().to_owned());
        let asked = format!("{method} {}://{target}{path}", scheme.name());
        let tell = |hint: Option<Box<AllowEntry>>, line: String, passed: bool| {
            let reason = DenialReason::Request { method: method.clone(), path: path.clone() };
            let refusal = Refusal::denied(&reason, line);
            self.deny(target.host.to_string(), Some(target.port.get()), reason, hint.map(|hint| *hint), passed);
            refusal
        };
        let no_rule = |hint: Option<Box<AllowEntry>>, passed: bool| {
            let line = match &hint {
                Some(hint) => format!("{asked} is not on the allow-list; --allow '{hint}' would allow it"),
                None => format!("{asked} is not on the allow-list"),
            };
            tell(hint, line, passed)
        };
        let mut applied = self.shared.requests().judge(scheme, target, parts).map_err(|unfit| match unfit {
            Unfit::Stray(stray) => self.stray(target, stray),
            Unfit::Unspeakable => {
                Refusal::bad_request(format!("{asked}: a value can't stand where its placeholder does"))
            }
            Unfit::Path(error) => {
                tell(None, format!("{asked}: the path {error}, and rules judge what can be read in one way"), false)
            }
            Unfit::Override(name) => {
                let line =
                    format!("{asked}: the header {name} could make another request of it than rules have judged");
                tell(None, line, false)
            }
            Unfit::NoRule(hint) => no_rule(hint, false),
        })?;
        if let Some(hint) = applied.unruled.take() {
            no_rule(hint, true);
        }
        let under_way = Asked { scheme, target: target.clone(), method: parts.method.clone(), uri: parts.uri.clone() };
        let under_way = Arc::new(under_way);
        {
            let mut granted = self.granted();
            granted.asked.retain(|asked| asked.strong_count() > 0);
            granted.asked.push(Arc::downgrade(&under_way));
        }
        // The list may have changed while this was not noted yet.
        if !self.shared.audit && !under_way.covered(&self.shared.requests()) {
            return Err(no_rule(None, false));
        }
        Ok((applied, under_way))
    }

    /// Refuses a placeholder where no value may stand.
    pub(super) fn stray(&self, target: &Target, stray: Stray) -> Refusal {
        let line = format!("{target}: {stray}");
        let reason = DenialReason::Credential { name: stray.name };
        let refusal = Refusal::denied(&reason, line);
        self.deny(target.host.to_string(), Some(target.port.get()), reason, None, false);
        refusal
    }

    /// Refuses TLS for another host than the tunnel's.
    pub(super) fn other_name(&self, target: &Target, name: String) {
        let reason = DenialReason::OtherServerName { name };
        self.deny(target.host.to_string(), Some(target.port.get()), reason, None, false);
    }

    /// What TLS in an opaque tunnel is held to.
    pub(super) fn check(&self, target: &Target) -> Option<Check> {
        let Host::Name(name) = &target.host else { return None };
        (self.shared.sni == SniCheck::Check).then(|| {
            let (exchange, target) = (self.apart(), target.clone());
            Check { name: name.clone(), tell: Box::new(move |other| exchange.other_name(&target, other)) }
        })
    }

    /// The same client, for what becomes of its connection later.
    pub(super) fn apart(&self) -> Self {
        Self { next: Arc::default(), ..self.clone() }
    }

    fn granted(&self) -> MutexGuard<'_, Granted> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects to a target that was admitted, if it still is, or to the upstream.
    pub(super) async fn reach(&self, target: &Target) -> Result<Hop, Refusal> {
        let Shared { upstream, limits, .. } = &*self.shared;
        // Noted before the list is looked at: should the list change in between, one of the two sees the other.
        self.granted().leads(target, None);
        let allow = self.shared.allow.borrow().clone();
        if let (Some(list), false) = (&allow, self.shared.audit) {
            decide::admit(list, target).map_err(|no| self.refuse(target, no))?;
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
                let vetted = decide::vet(list, target, addresses, &own);
                let vetted = vetted.or_else(|no| self.told(target, no).map(|()| all))?;
                let stream = dial(&vetted, limits.connect_timeout).await;
                if let Some(address) = stream.as_ref().ok().and_then(|stream| stream.peer_addr().ok()) {
                    self.granted().leads(target, Some(address.ip()));
                    // The list may have changed while the address was not known yet.
                    let list = self.shared.allow.borrow().clone().unwrap_or_default();
                    let still = decide::vet(&list, target, [address.ip()], &own);
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

    async fn addresses(&self, target: &Target, what: &str) -> Result<Vec<IpAddr>, Refusal> {
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
    fn told(&self, target: &Target, no: No) -> Result<(), Refusal> {
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
        self.deny(target.host.to_string(), Some(target.port.get()), reason, hint.map(|hint| *hint), self.shared.audit);
        refusal
    }

    fn deny(&self, host: String, port: Option<u16>, reason: DenialReason, hint: Option<AllowEntry>, passed: bool) {
        tracing::info!(client = %self.client, ?host, port, reason = reason.code(), passed, "denied");
        if let Some(callback) = &self.shared.on_denial {
            let stage = reason.stage();
            callback(Denial { client: self.client, host, port, reason, hint, stage, passed });
        }
    }

    /// Begins HTTP on a connection to the next hop, for one request.
    pub(super) async fn handshake<T>(
        &self,
        stream: T,
    ) -> Result<(hyper::client::conn::http1::SendRequest<RequestBody>, Driver), Refusal>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
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
    Pass(Response<ResponseBody>),
    /// The connection becomes a tunnel after this head.
    Switch(http::response::Parts, Box<dyn FnOnce(Option<Busy>) -> Tunnel + Send>),
}

impl Answer {
    pub(super) fn into_response(self, exchange: &Exchange, busy: Option<Busy>) -> Response<ResponseBody> {
        match self {
            Answer::Pass(response) => response.map(|body| body.during(busy)),
            Answer::Switch(head, tunnel) => {
                *exchange.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel(busy));
                Response::from_parts(head, ResponseBody::empty())
            }
        }
    }
}
