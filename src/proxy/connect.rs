//! `CONNECT`: a tunnel to the destination.

use std::fmt;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use tokio::net::TcpStream;

use super::body::{Driver, RequestBody, ResponseBody};
use super::exchange::{Answer, Exchange, Hop};
use super::refusal::Refusal;
use super::target::Target;
use super::{headers, intercept, tunnel};

/// Opens a tunnel.
pub(super) async fn connect(exchange: &Exchange, mut request: Request<Incoming>) -> Result<Answer, Refusal> {
    let target = target(exchange, request.uri())?;
    // Where would the body end and the tunnel begin? RFC 9110, section 9.3.6, gives it no meaning.
    let length = request.headers().get(header::CONTENT_LENGTH);
    if length.is_some_and(|length| length != "0") || request.headers().contains_key(header::TRANSFER_ENCODING) {
        return Err(Refusal::bad_request("a CONNECT request has no body"));
    }
    let client = hyper::upgrade::on(&mut request);
    exchange.admit(&target)?;
    let Hop { stream, upstream } = exchange.reach(&target).await?;
    let (head, ()) = Response::new(()).into_parts();
    if !exchange.unseen(&target) {
        let headers = std::mem::take(request.headers_mut());
        let stream = if upstream { tunnel_through(exchange, &target, &headers, stream).await? } else { stream };
        let inside = intercept::Inside { exchange: exchange.apart(), target, headers };
        return Ok(Answer::Switch(head, Box::new(|busy| intercept::serve(inside, client, stream, busy))));
    }
    let check = exchange.check(&target);
    if !upstream {
        return Ok(Answer::Switch(head, Box::new(|busy| tunnel::to_stream(client, stream, check, busy))));
    }

    let (mut response, driver) = ask(exchange, &target, request.headers(), stream).await?;
    if response.status().is_success() {
        let origin = hyper::upgrade::on(response);
        return Ok(Answer::Switch(head, Box::new(|busy| tunnel::to_upgraded(client, origin, driver, check, busy))));
    }
    // The upstream's own refusal: 403, 407, 502, with its own words.
    let (status, method) = (response.status(), http::Method::CONNECT);
    headers::remove_hop_by_hop(response.headers_mut());
    let (mut head, body) = response.into_parts();
    headers::frame_response(&method, status, &mut head.headers, &body);
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    head.version = Version::HTTP_11;
    Ok(Answer::Pass(Response::from_parts(head, ResponseBody::origin(body, Some(driver)))))
}

/// Reads the authority form, and nothing else.
fn target(exchange: &Exchange, uri: &Uri) -> Result<Target, Refusal> {
    match (uri.scheme(), uri.authority(), uri.path_and_query()) {
        (None, Some(authority), None) => exchange.target(authority.as_str(), None),
        _ => Err(Refusal::bad_request("CONNECT wants HOST:PORT and nothing else")),
    }
}

/// Opens a tunnel through the upstream for an interception; that it refuses is an error.
pub(super) async fn tunnel_through(
    exchange: &Exchange,
    target: &Target,
    client: &HeaderMap,
    stream: TcpStream,
) -> Result<TcpStream, Refusal> {
    let refused = || Refusal::new(StatusCode::BAD_GATEWAY, format!("the upstream proxy opens no tunnel to {target}"));
    through(exchange, target, client, stream).await?.ok_or_else(refused)
}

/// Opens a tunnel through the upstream for an exchange of the proxy's own inside it. `stream` leads to the upstream;
/// `None` when it refuses.
pub(super) async fn through(
    exchange: &Exchange,
    target: &Target,
    client: &HeaderMap,
    stream: TcpStream,
) -> Result<Option<TcpStream>, Refusal> {
    let (response, driver) = ask(exchange, target, client, stream).await?;
    if !response.status().is_success() {
        tracing::debug!(%target, status = response.status().as_u16(), "no tunnel for an upgrade");
        return Ok(None);
    }
    let trouble = |text: &dyn fmt::Display| Refusal::new(StatusCode::BAD_GATEWAY, format!("{target}: {text}"));
    let (stream, early) = tunnel::taken(hyper::upgrade::on(response), driver).await.map_err(|error| trouble(&error))?;
    // They can't be the answer to a request that was not sent yet.
    if !early.is_empty() {
        return Err(trouble(&"the upstream proxy's tunnel spoke before it was asked"));
    }
    Ok(Some(stream))
}

/// Asks the upstream for a tunnel, and gives back what it says: yes, or a refusal.
async fn ask(
    exchange: &Exchange,
    target: &Target,
    client: &HeaderMap,
    stream: TcpStream,
) -> Result<(Response<Incoming>, Driver), Refusal> {
    let request = request(exchange, target, client)?;
    let (mut sender, driver) = exchange.handshake(stream).await?;
    let response = sender.send_request(request).await.map_err(|error| broken(target, &error))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Refusal::new(StatusCode::BAD_GATEWAY, "the upstream proxy answered CONNECT with 101"));
    }
    Ok((response, driver))
}

/// Writes the request to the upstream.
fn request(exchange: &Exchange, target: &Target, client: &HeaderMap) -> Result<Request<RequestBody>, Refusal> {
    let authority = target.to_string();
    let invalid = |error: http::Error| Refusal::bad_request(format!("{target} can't be asked for: {error}"));
    let uri = Uri::builder().authority(authority.as_str()).build().map_err(invalid)?;
    let mut request = Request::connect(uri).header(header::HOST, authority);
    // What the upstream may log or decide by.
    if let Some(agent) = client.get(header::USER_AGENT) {
        request = request.header(header::USER_AGENT, agent);
    }
    let own = exchange.shared.authorization.as_ref();
    if let Some(authorization) = own.or_else(|| client.get(header::PROXY_AUTHORIZATION)) {
        request = request.header(header::PROXY_AUTHORIZATION, authorization);
    }
    request.body(RequestBody::empty()).map_err(invalid)
}

/// The next hop did not answer as HTTP wants it.
pub(super) fn broken(target: &Target, error: &hyper::Error) -> Refusal {
    let why = match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    Refusal::new(StatusCode::BAD_GATEWAY, format!("{target} gave no answer: {why}"))
}
