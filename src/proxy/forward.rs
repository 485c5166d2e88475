//! Requests with an absolute URL: passed on, one connection each.

use std::num::NonZeroU16;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::uri::{PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body, Incoming};
use tokio::sync::watch;
use tokio::time::sleep;

use super::body::RequestBody;
use super::connect::{self, broken};
use super::exchange::{Answer, Exchange, Hop};
use super::refusal::Refusal;
use super::target::Target;
use super::{headers, tunnel};

/// How long the origin is given to say `100 Continue`; many never do, and wait for the body instead.
const PATIENCE: Duration = Duration::from_secs(1);

/// Passes a request on to its origin or to the upstream, and the answer back.
pub(super) async fn forward(exchange: &Exchange, mut request: Request<Incoming>) -> Result<Answer, Refusal> {
    // Whoever answers one of these sends back the head that reached it: from an upstream, with our credentials for it.
    if request.method() == Method::TRACE {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "TRACE is not served here").and_close());
    }
    if headers::goes_no_further(request.headers()) {
        let text = "Max-Forwards: 0 asks for this proxy's own answer, and it has none";
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, text).and_close());
    }
    let target = target(exchange, request.uri())?;
    if request.headers().get_all(header::HOST).iter().nth(1).is_some() {
        return Err(Refusal::bad_request("a request has one Host header"));
    }
    if headers::foreign_coding(request.headers()) {
        return Err(
            Refusal::new(StatusCode::NOT_IMPLEMENTED, "chunked is the only transfer coding known here").and_close()
        );
    }
    let has_body = !request.body().is_end_stream();
    // An upgrade with a body would have to be told apart from the new protocol's first bytes.
    let mut wanted = headers::upgrade(request.headers()).filter(|_| !has_body && request.version() == Version::HTTP_11);
    let client = hyper::upgrade::on(&mut request);

    let mut hop = exchange.reach(&target).await?;
    if hop.upstream && wanted.is_some() {
        // What follows an upgrade is raw, and the upstream could read it as further requests to itself, which nobody has
        // decided on: it goes to the upstream only inside of a tunnel to this one target.
        hop = match connect::through(exchange, &target, request.headers(), hop.stream).await? {
            Some(stream) => Hop { stream, upstream: false },
            // An upgrade may always be left out; then the answer is the upstream's to the request itself.
            None => {
                wanted = None;
                exchange.reach(&target).await?
            }
        };
    }
    let Hop { stream, upstream } = hop;
    let method = request.method().clone();
    let waits = has_body && headers::expects_continue(request.headers()) && request.version() == Version::HTTP_11;
    let (mut sender, driver) = exchange.handshake(stream).await?;
    let (mut parts, body) = request.into_parts();
    rewrite(exchange, &mut parts, &body, &target, upstream, wanted.clone())?;
    let response = if waits {
        let (open, opened) = watch::channel(false);
        let mut request = Request::from_parts(parts, RequestBody::gated(body, opened));
        let told = open.clone();
        hyper::ext::on_informational(&mut request, move |response| {
            if response.status() == StatusCode::CONTINUE {
                told.send_replace(true);
            }
        });
        let mut response = std::pin::pin!(sender.send_request(request));
        tokio::select! {
            response = &mut response => response,
            () = sleep(PATIENCE) => {
                open.send_replace(true);
                response.await
            }
        }
    } else {
        parts.headers.remove(header::EXPECT);
        sender.send_request(Request::from_parts(parts, RequestBody::new(body))).await
    };
    let mut response = response.map_err(|error| broken(&target, &error))?;

    let agreed = headers::upgrade(response.headers());
    let proxy_wants = response.headers().get_all(header::PROXY_AUTHENTICATE).iter().cloned().collect::<Vec<_>>();
    headers::remove_hop_by_hop(response.headers_mut());
    response.headers_mut().remove(header::PROXY_AUTHENTICATE);
    if upstream {
        for value in proxy_wants {
            response.headers_mut().append(header::PROXY_AUTHENTICATE, value);
        }
    }
    *response.version_mut() = Version::HTTP_11;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (Some(_), Some(protocol)) = (wanted, agreed) else {
            let text = format!("{target} switched protocols without being asked");
            return Err(Refusal::new(StatusCode::BAD_GATEWAY, text));
        };
        let origin = hyper::upgrade::on(&mut response);
        let (mut head, _) = response.into_parts();
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(header::UPGRADE, protocol);
        return Ok(Answer::Switch(head, Box::new(|busy| tunnel::to_upgraded(client, origin, driver, busy))));
    }
    let (mut head, body) = response.into_parts();
    if headers::foreign_coding(&head.headers) {
        let text = format!("{target} answered with a transfer coding that is not chunked");
        return Err(Refusal::new(StatusCode::BAD_GATEWAY, text));
    }
    headers::frame_response(&method, head.status, &mut head.headers, &body);
    Ok(Answer::Pass(Response::from_parts(head, body), driver))
}

/// Reads the absolute form with scheme `http`, and nothing else.
fn target(exchange: &Exchange, uri: &Uri) -> Result<Target, Refusal> {
    match (uri.scheme(), uri.authority()) {
        (Some(scheme), Some(authority)) if *scheme == Scheme::HTTP => {
            exchange.target(authority.as_str(), NonZeroU16::new(80))
        }
        (Some(scheme), _) if *scheme == Scheme::HTTPS => {
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

/// Makes of the client's head the head that goes on.
fn rewrite(
    exchange: &Exchange,
    head: &mut http::request::Parts,
    body: &Incoming,
    target: &Target,
    upstream: bool,
    upgrade: Option<HeaderValue>,
) -> Result<(), Refusal> {
    let authority = target.http_authority();
    let invalid = |text: &dyn std::fmt::Display| Refusal::bad_request(format!("{target} can't be asked for: {text}"));
    let path = match head.uri.path_and_query() {
        Some(path) => path.clone(),
        None => PathAndQuery::from_static("/"),
    };
    let mut uri = Uri::builder().path_and_query(path);
    if upstream {
        uri = uri.scheme(Scheme::HTTP).authority(authority.as_str());
    }
    head.uri = uri.build().map_err(|error| invalid(&error))?;
    head.version = Version::HTTP_11;

    headers::remove_hop_by_hop(&mut head.headers);
    // Counted down, it could make the upstream the one that answers.
    head.headers.remove(header::MAX_FORWARDS);
    headers::frame_request(&mut head.headers, body);
    // What the client wrote there may be another host than the one that was decided on.
    let host = HeaderValue::from_str(&authority).map_err(|error| invalid(&error))?;
    head.headers.insert(header::HOST, host);
    let own = head.headers.remove(header::PROXY_AUTHORIZATION);
    if upstream && let Some(authorization) = exchange.shared.authorization.clone().or(own) {
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
