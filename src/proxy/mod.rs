//! The built-in egress proxy.
//!
//! It serves HTTP/1.1 and HTTP/1.0 on listeners that somebody opened inside the sandbox's namespace, and dials from the
//! namespace it runs in. Two kinds of request are taken: `CONNECT host:port`, and requests with an absolute `http` URL,
//! WebSocket and other upgrades included. All else is answered with 400 or 501 and a line that says why.
//!
//! | asked | answered |
//! | --- | --- |
//! | a destination that the allow-list does not cover | `403`, one line: what, why, the flag that would allow it; the reason's [code](DenialReason::code) in `X-Ringfence-Denied` |
//! | a name that cannot be resolved, a destination that refuses | `502` |
//! | a destination that does not answer in time | `504` |
//! | a request that no rule covers, a placeholder where no value may stand | `403`, as above |
//! | a message in a tunnel for another host than the tunnel's | `421` |
//! | an origin whose certificate does not hold | `502` |
//! | `TRACE` | `405` |
//! | `Max-Forwards: 0` | `501` |
//! | a head past [`Limits::head_bytes`] or of more than 100 lines | `431` |
//! | a head that is not there in [`Limits::head_timeout`], a short body that values are put into and is not there in as long | `408` |
//! | a connection past [`Limits::connections`] | `503` |
//!
//! What it holds to:
//!
//! - **One reading.** Host and port are parsed once; the decision, the dialled address, the `Host` header and what an upstream
//!   is told all come from that one reading. Framing of bodies likewise: it is written anew from what was decoded.
//! - **What was vetted is what is dialled.** A name is resolved once; of its addresses those are dialled that were vetted.
//!   Those that are special, or that the kernel says are this host's own, are dialled only if an address's entry covers them.
//! - **Bodies pass through.** No body is held, but a short one that values are put into; memory does not grow with what is
//!   transferred.
//! - **One request, one connection to the origin.** Connections to origins are not kept for another request, so no request
//!   can be answered by what an earlier one left behind.
//! - **Ends are passed on.** In a tunnel, the end of one direction leaves the other open, and a reset stays a reset: an answer
//!   that was cut short never looks whole. Outside of tunnels a client that ends its side during an exchange has gone.
//!
//! With an [`Upstream`] the allow-list filters first (names by name, addresses only if an entry covers them), but names are
//! not resolved here: the upstream does that, and where a listed name leads is then its decision. Raw bytes of a client's
//! reach the upstream only inside a tunnel that it has agreed to: an upgrade goes through a tunnel too, and where the upstream
//! refuses that the request goes on without the upgrade.
//!
//! Tunnels to hosts that a [`Secret`] or a rule concerns are looked into: the proxy ends TLS on both sides and takes the
//! requests inside as it takes plain ones. All others stay closed, but for the name in their first TLS message.
//!
//! The proxy adds no `Via` header, although RFC 9110 asks proxies to: origins change their answers on seeing it, and the fence
//! shall not be seen from outside.

mod body;
mod client;
mod connect;
mod decide;
mod dial;
mod exchange;
mod forward;
mod headers;
mod hello;
mod host;
mod intercept;
mod interception;
mod pulse;
mod refusal;
mod requests;
mod resolve;
mod rewrite;
mod secret;
mod serve;
mod spelling;
mod target;
mod tunnel;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

pub use decide::DenialReason;
#[doc(hidden)]
pub use hello::{Opening, read as read_hello};
pub use interception::{Interception, Roots};
pub use resolve::{FixedResolver, Resolve, SystemResolver};
#[doc(hidden)]
pub use rewrite::edit_body;
pub use secret::{Secret, SecretError};

use crate::policy::{AllowEntry, Host, ProxyUrl, SniCheck};

/// What the proxy lets through, and how.
#[derive(Debug, Clone, Default)]
pub struct ProxyConfig {
    /// Who may be reached. Absent, the upstream alone decides; absent without an upstream, nobody may.
    pub allow: Option<Vec<AllowEntry>>,
    /// Lets through what the list does not cover, and tells of it: an audit.
    pub audit: bool,
    /// Another proxy that everything goes through.
    pub upstream: Option<Upstream>,
    /// Bounds on what one sandbox can take up.
    pub limits: Limits,
    /// What is put into requests where its placeholder stands.
    pub secrets: Arc<[Secret]>,
    /// What it takes to look into TLS, which it does only for hosts that [`secrets`](Self::secrets) or rules concern. Without
    /// it tunnels to these are refused.
    pub interception: Option<Arc<Interception>>,
    /// Whether TLS in a tunnel that is not looked into must be for the host that the tunnel leads to.
    pub sni: SniCheck,
}

/// Another HTTP proxy, as it is reached from the namespace this one runs in.
///
/// It is configured, not chosen by a client, so its address may be loopback or private.
#[derive(Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Name or address.
    pub host: Host,
    /// Port.
    pub port: NonZeroU16,
    /// User and password for Basic authentication. Without them, the client's own `Proxy-Authorization` is passed to it.
    pub credentials: Option<(String, String)>,
}

impl From<ProxyUrl> for Upstream {
    fn from(url: ProxyUrl) -> Self {
        let ProxyUrl { host, port, credentials } = url;
        let credentials = credentials.map(|secret| (secret.user().to_owned(), secret.password().to_owned()));
        Self { host, port, credentials }
    }
}

impl fmt::Debug for Upstream {
    /// Leaves the password out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.credentials.as_ref().map(|(user, _)| user))
            .finish_non_exhaustive()
    }
}

/// Bounds on what one sandbox can take up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest head of a request or response, in bytes; less than 8192 counts as 8192.
    pub head_bytes: usize,
    /// Connections served at once, tunnels included. Each takes two descriptors: where the soft limit of open files
    /// (`RLIMIT_NOFILE`) has no room for so many, the proxy serves as many as fit, 416 under a limit of 1024.
    pub connections: usize,
    /// Longest time from a connection's beginning, or a head's first byte, to the end of the head; and from there to the end of a body that is
    /// read whole, because values are put into it and its length is to be known.
    pub head_timeout: Duration,
    /// Longest time to resolve a name, and again to connect to one of its addresses.
    pub connect_timeout: Duration,
    /// Longest time between two requests on one connection.
    pub idle_timeout: Duration,
    /// Longest time without a byte to or from the client during a request or in a tunnel; absent, for ever.
    pub tunnel_idle: Option<Duration>,
}

impl Default for Limits {
    /// 64 KiB of head in 30 s, 1024 connections, 10 s to connect, 5 min between requests, 1 h of silence in a tunnel.
    fn default() -> Self {
        Self {
            head_bytes: 64 * 1024,
            connections: 1024,
            head_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(5 * 60),
            tunnel_idle: Some(Duration::from_secs(60 * 60)),
        }
    }
}

/// A destination that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Denial {
    /// The client's end of its connection to the proxy, in the sandbox's namespace.
    pub client: SocketAddr,
    /// Host as it was read, or as it was written when it could not be read. Not escaped.
    pub host: String,
    /// Port; absent when that could not be read.
    pub port: Option<u16>,
    /// Why.
    pub reason: DenialReason,
    /// The entry that would allow it, if one can.
    pub hint: Option<AllowEntry>,
    /// Where on its way it was refused: `connect`, `request` for what rules say, `credential` for a placeholder.
    pub stage: &'static str,
    /// It was let through all the same, for an audit.
    pub passed: bool,
}

/// Is told of every denial, on the proxy's own task: it must not block.
pub type OnDenial = Arc<dyn Fn(Denial) + Send + Sync>;

/// Who may be reached, as it is now: [`ProxyConfig::allow`].
pub type AllowList = Option<Arc<[AllowEntry]>>;

/// The proxy, ready to serve.
pub struct Proxy {
    config: ProxyConfig,
    list: Option<watch::Receiver<AllowList>>,
    resolver: Arc<dyn Resolve>,
    on_denial: Option<OnDenial>,
}

impl Proxy {
    /// Makes a proxy that resolves the names it lets through, and the upstream's, with `resolver`.
    pub fn new(config: ProxyConfig, resolver: Arc<dyn Resolve>) -> Self {
        Self { config, list: None, resolver, on_denial: None }
    }

    /// Follows an allow-list that changes while the proxy serves, instead of the one that it was made with. What the list covers no longer
    /// is cut: exchanges and tunnels are reset at both ends.
    pub fn follow(mut self, list: watch::Receiver<AllowList>) -> Self {
        self.list = Some(list);
        self
    }

    /// Tells `callback` of every destination that is refused.
    pub fn on_denial(mut self, callback: OnDenial) -> Self {
        self.on_denial = Some(callback);
        self
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("config", &self.config).finish_non_exhaustive()
    }
}
