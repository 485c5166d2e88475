//! Requests that are passed on, whatever they came over: plain with an absolute URL, or inside of a tunnel that is looked into.

use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme as UriScheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::upgrade::OnUpgrade;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{sleep, timeout};

use super::body::{Driver, Edited, OnStray, RequestBody, ResponseBody, Source};
use super::connect::{self, broken};
use super::exchange::{Answer, Asked, Exchange, Hop, Shared};
use super::pulse::Pulse;
use super::refusal::Refusal;
use super::requests::Applied;
use super::rewrite::{Edit, Hide, Put};
use super::target::Target;
use super::{headers, secret, tunnel};
use crate::policy::Scheme;

/// How long the origin is given to say `100 Continue`; many never do, and wait for the body instead.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest body that is read to its end before it goes on, so that what is put into it is counted in its length.
const COUNTED: usize = 256 * 1024;
/// How long it may get by that.
const GROWN: usize = 1 << 20;
/// How long all such bodies of a sandbox may get that are there at once; those past them go on without a length.
pub(super) const COUNTED_AT_ONCE: usize = 16 << 20;

/// Passes a request with an absolute URL on to its origin or to the upstream, and the answer back.
pub(super) async fn forward(exchange: &Exchange, request: Request<Incoming>) -> Result<Answer, Refusal> {
    acceptable(&request)?;
    let target = target(exchange, request.uri())?;
    if request.headers().get_all(header::HOST).iter().nth(1).is_some() {
        return Err(Refusal::bad_request("a request has one Host header"));
    }
    exchange.admit(&target)?;
    let mut message = Message::new(exchange, Scheme::Http, &target, request)?;

    let mut hop = exchange.reach(&target).await?;
    if hop.upstream && message.wanted.is_some() {
        // What follows an upgrade is raw, and the upstream could read it as further requests to itself, which nobody has
        // decided on: it goes to the upstream only inside of a tunnel to this one target.
        hop = match connect::through(exchange, &target, &message.parts.headers, hop.stream).await? {
            Some(stream) => Hop { stream, upstream: false },
            // An upgrade may always be left out; then the answer is the upstream's to the request itself.
            None => {
                message.wanted = None;
                exchange.reach(&target).await?
            }
        };
    }
    let Hop { stream, upstream } = hop;
    let (sender, driver) = exchange.handshake(stream).await?;
    converse(exchange, &Way { target, scheme: Scheme::Http, upstream }, Link::One(sender, driver), message).await
}

/// Refuses what nobody is asked for here.
pub(super) fn acceptable(request: &Request<Incoming>) -> Result<(), Refusal> {
    // Whoever answers one of these sends back the head that reached it: from an upstream, with our credentials for it.
    if request.method() == Method::TRACE {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "TRACE is not served here").and_close());
    }
    if headers::goes_no_further(request.headers()) {
        let text = "Max-Forwards: 0 asks for this proxy's own answer, and it has none";
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, text).and_close());
    }
    Ok(())
}

/// Reads the absolute form with scheme `http`, and nothing else.
fn target(exchange: &Exchange, uri: &Uri) -> Result<Target, Refusal> {
    match (uri.scheme(), uri.authority()) {
        (Some(scheme), Some(authority)) if *scheme == UriScheme::HTTP => {
            exchange.target(authority.as_str(), NonZeroU16::new(80))
        }
        (Some(scheme), _) if *scheme == UriScheme::HTTPS => {
            let text = "an https URL is reached with CONNECT, so that only its two ends can read it";
            Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, text).and_close())
        }
        (Some(scheme), _) => {
            let text = format!("a URL with scheme {scheme} can't be reached from here");
            Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, text).and_close())
        }
        (None, _) => Err(Refusal::bad_request("this is a proxy, not a web server: it wants a whole URL, or CONNECT")),
    }
}

/// A request that was judged, values in its head.
pub(super) struct Message {
    parts: Parts,
    body: Incoming,
    applied: Applied,
    asked: Arc<Asked>,
    /// The protocol that the client wants to switch to.
    wanted: Option<HeaderValue>,
    client: OnUpgrade,
}

impl Message {
    /// Takes a request apart and judges it.
    pub(super) fn new(
        exchange: &Exchange,
        scheme: Scheme,
        target: &Target,
        mut request: Request<Incoming>,
    ) -> Result<Self, Refusal> {
        if headers::foreign_coding(request.headers()) {
            let text = "chunked is the only transfer coding known here";
            return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, text).and_close());
        }
        // An upgrade with a body would have to be told apart from the new protocol's first bytes.
        let may = request.body().is_end_stream() && request.version() == Version::HTTP_11;
        // What follows an upgrade is not judged. A WebSocket holds no further requests; HTTP/2 in the clear, or TLS, would.
        let harmless =
            |protocol: &HeaderValue| protocol.as_bytes().eq_ignore_ascii_case(b"websocket") || exchange.unseen(target);
        let wanted = headers::upgrade(request.headers()).filter(|protocol| may && harmless(protocol));
        let client = hyper::upgrade::on(&mut request);
        let (mut parts, body) = request.into_parts();
        let (applied, asked) = exchange.fit(scheme, target, &mut parts)?;
        Ok(Self { parts, body, applied, asked, wanted, client })
    }
}

/// Who a request goes to, and how.
pub(super) struct Way {
    pub(super) target: Target,
    pub(super) scheme: Scheme,
    /// The next hop is the upstream proxy.
    pub(super) upstream: bool,
}

/// A connection that the request is said on.
pub(super) enum Link {
    /// For this request alone.
    One(http1::SendRequest<RequestBody>, Driver),
    /// HTTP/2, for this one beside others.
    Many(http2::SendRequest<RequestBody>),
}

/// Says a request and passes the answer back.
pub(super) async fn converse(exchange: &Exchange, way: &Way, link: Link, message: Message) -> Result<Answer, Refusal> {
    let Message { mut parts, body, applied: Applied { put, hide, .. }, asked, wanted, client } = message;
    let method = parts.method.clone();
    let waits = !body.is_end_stream()
        && headers::expects_continue(&parts.headers)
        && parts.version == Version::HTTP_11
        && matches!(link, Link::One(..));
    let strays = Strays::default();
    let on_stray: OnStray = {
        let (exchange, target, slot) = (exchange.apart(), way.target.clone(), Arc::clone(&strays));
        Arc::new(move |stray| {
            let refusal = exchange.stray(&target, stray);
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal.and_close());
        })
    };
    let (body, waits) = match put.filter(|_| !body.is_end_stream()) {
        None => (RequestBody::new(body), waits),
        Some(put) => (put_in(exchange, put, body, &on_stray, &strays).await?, false),
    };
    let mut body = body.refusing(on_stray);
    rewrite(exchange, &mut parts, &body, way, matches!(link, Link::Many(_)), wanted.clone())?;
    if !waits {
        parts.headers.remove(header::EXPECT);
    }
    let mut opening = None;
    if waits {
        let (open, opened) = watch::channel(false);
        body = body.gated(opened);
        opening = Some(open);
    }
    let mut request = Request::from_parts(parts, body);
    if let Some(open) = &opening {
        let told = open.clone();
        hyper::ext::on_informational(&mut request, move |response| {
            if response.status() == StatusCode::CONTINUE {
                told.send_replace(true);
            }
        });
    }
    let (sent, driver) = match link {
        Link::One(mut sender, driver) => {
            let mut response = std::pin::pin!(sender.send_request(request));
            let sent = match opening {
                None => response.await,
                Some(open) => tokio::select! {
                    response = &mut response => response,
                    () = sleep(PATIENCE) => {
                        open.send_replace(true);
                        response.await
                    }
                },
            };
            (sent, Some(driver))
        }
        Link::Many(mut sender) => {
            let ready = sender.ready().await;
            let sent = match ready {
                Ok(()) => sender.send_request(request).await,
                Err(error) => Err(error),
            };
            (sent, None)
        }
    };
    let response = sent.map_err(|error| match take(&strays) {
        Some(refusal) => refusal,
        // hyper's word for a body of ours that failed, and ours failed as the client's did.
        None if error.is_user() => unfinished(std::error::Error::source(&error).unwrap_or(&error)),
        None => broken(&way.target, &error),
    })?;
    let switching = wanted.map(|_| (client, Arc::clone(&exchange.pulse)));
    answer(way, &method, response, driver, hide, asked, switching)
}

/// Makes of the next hop's response the one that goes back. The client and its pulse are there when it wanted to switch protocols.
fn answer(
    way: &Way,
    method: &Method,
    mut response: Response<Incoming>,
    driver: Option<Driver>,
    hide: Hide,
    asked: Arc<Asked>,
    switching: Option<(OnUpgrade, Arc<Pulse>)>,
) -> Result<Answer, Refusal> {
    let target = &way.target;
    let agreed = headers::upgrade(response.headers());
    let proxy_wants = response.headers().get_all(header::PROXY_AUTHENTICATE).iter().cloned().collect::<Vec<_>>();
    match response.version() {
        Version::HTTP_2 => headers::remove_hop_by_hop_http2(response.headers_mut()),
        _ => headers::remove_hop_by_hop(response.headers_mut()),
    }
    response.headers_mut().remove(header::PROXY_AUTHENTICATE);
    if way.upstream {
        for value in proxy_wants {
            response.headers_mut().append(header::PROXY_AUTHENTICATE, value);
        }
    }
    hide.in_headers(response.headers_mut());
    if !hide.is_empty() {
        // It is the origin's to write, like a header.
        response.extensions_mut().remove::<hyper::ext::ReasonPhrase>();
    }
    *response.version_mut() = Version::HTTP_11;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (Some((client, pulse)), Some(protocol), Some(driver)) = (switching, agreed, driver) else {
            let text = format!("{target} switched protocols without being asked");
            return Err(Refusal::new(StatusCode::BAD_GATEWAY, text));
        };
        let origin = hyper::upgrade::on(&mut response);
        let (mut head, _) = response.into_parts();
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(header::UPGRADE, protocol);
        let plain = way.scheme == Scheme::Http;
        return Ok(Answer::Switch(
            head,
            Box::new(move |busy| {
                let tunnel = match busy {
                    Some(busy) if plain => tunnel::to_upgraded(client, origin, driver, None, Some(busy)),
                    _ => tunnel::to_switched(client, origin, driver, pulse),
                };
                Box::pin(async move {
                    // What was asked for goes on in it.
                    let _asked = asked;
                    tunnel.await;
                })
            }),
        ));
    }
    let (mut head, body) = response.into_parts();
    if headers::foreign_coding(&head.headers) {
        let text = format!("{target} answered with a transfer coding that is not chunked");
        return Err(Refusal::new(StatusCode::BAD_GATEWAY, text));
    }
    let body = if hide.is_empty() || body.is_end_stream() {
        ResponseBody::origin(body, driver)
    } else {
        ResponseBody::edited(Edited::new(Source::Passed(body), Edit::Hide(hide), None), driver)
    };
    headers::frame_response(method, head.status, &mut head.headers, &body);
    Ok(Answer::Pass(Response::from_parts(head, body.answering(asked))))
}

/// What was refused in a body that is on its way.
type Strays = Arc<Mutex<Option<Refusal>>>;

fn take(strays: &Strays) -> Option<Refusal> {
    strays.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The client's body did not come to its end.
fn unfinished(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::bad_request(format!("the body did not come: {error}"))
}

/// Bytes that take up room for as long as they are there.
struct Counted(Bytes, #[allow(dead_code, reason = "gives the room back when dropped")] OwnedSemaphorePermit);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Puts values into a body. A short one is read to its end first, for servers that want to be told the length.
async fn put_in(
    exchange: &Exchange,
    put: Put,
    body: Incoming,
    on_stray: &OnStray,
    strays: &Strays,
) -> Result<RequestBody, Refusal> {
    let Shared { counted, limits, .. } = &*exchange.shared;
    let room = |length: usize, most: usize| {
        let length = Some(length).filter(|length| *length <= most).and_then(|length| u32::try_from(length).ok());
        length.and_then(|length| Arc::clone(counted).try_acquire_many_owned(length).ok())
    };
    let length = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
    let edited = |source, put| Edited::new(source, Edit::Put(put), Some(Arc::clone(on_stray)));
    let Some(taken) = length.and_then(|length| room(length, COUNTED)) else {
        return Ok(RequestBody::edited(edited(Source::Passed(body), put)));
    };
    let (trailers, came) = match timeout(limits.head_timeout, body.collect()).await {
        Ok(Ok(came)) => (came.trailers().cloned(), came.to_bytes()),
        Ok(Err(error)) => return Err(unfinished(&error)),
        Err(_) => {
            let text = "the body of the request took too long";
            return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, text).and_close());
        }
    };
    let (length, placeholders) = (came.len(), secret::at_most(&came));
    let came = Source::whole(Bytes::from_owner(Counted(came, taken)), trailers);
    if placeholders == 0 {
        return Ok(RequestBody::from(came));
    }
    let grown = room(put.longest(length, placeholders), GROWN);
    let edited = edited(came, put);
    let Some(grown) = grown else { return Ok(RequestBody::edited(edited)) };
    match edited.collect().await {
        Ok(whole) => {
            let trailers = whole.trailers().cloned();
            Ok(RequestBody::from(Source::whole(Bytes::from_owner(Counted(whole.to_bytes(), grown)), trailers)))
        }
        Err(error) => Err(take(strays).unwrap_or_else(|| unfinished(&error))),
    }
}

/// Makes of the client's head the head that goes on.
fn rewrite(
    exchange: &Exchange,
    head: &mut Parts,
    body: &impl Body,
    way: &Way,
    http2: bool,
    upgrade: Option<HeaderValue>,
) -> Result<(), Refusal> {
    let Way { target, scheme, upstream } = way;
    let authority = target.url_authority(*scheme);
    let invalid = |text: &dyn std::fmt::Display| Refusal::bad_request(format!("{target} can't be asked for: {text}"));
    let path = match head.uri.path_and_query() {
        Some(path) => path.clone(),
        None => PathAndQuery::from_static("/"),
    };
    let mut uri = Uri::builder().path_and_query(path);
    if *upstream || http2 {
        uri = uri.scheme(scheme.name()).authority(authority.as_str());
    }
    head.uri = uri.build().map_err(|error| invalid(&error))?;
    head.version = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };

    // gRPC asks so whether the whole way knows trailers; HTTP/2 does.
    let trailers = http2 && headers::wants_trailers(&head.headers);
    match http2 {
        true => headers::remove_hop_by_hop_http2(&mut head.headers),
        false => headers::remove_hop_by_hop(&mut head.headers),
    }
    // Counted down, it could make the upstream the one that answers.
    head.headers.remove(header::MAX_FORWARDS);
    headers::frame_request(&mut head.headers, body);
    let own = head.headers.remove(header::PROXY_AUTHORIZATION);
    if http2 {
        head.headers.remove(header::HOST);
        head.headers.remove(header::TRANSFER_ENCODING);
        if trailers {
            head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        return Ok(());
    }
    // What the client wrote there may be another host than the one that was decided on.
    let host = HeaderValue::from_str(&authority).map_err(|error| invalid(&error))?;
    head.headers.insert(header::HOST, host);
    if *upstream && let Some(authorization) = exchange.shared.authorization.clone().or(own) {
        head.headers.insert(header::PROXY_AUTHORIZATION, authorization);
    }
    match upgrade {
        Some(protocol) => {
            head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            head.headers.insert(header::UPGRADE, protocol);
        }
        None => {
            head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
    Ok(())
}
