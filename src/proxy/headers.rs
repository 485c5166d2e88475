//! Which headers go on to the next hop, and how the body's end is told there.
//!
//! A message's framing is never copied: it is written anew from what hyper has decoded, so that the two sides of the proxy
//! cannot disagree about where a body ends.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use hyper::body::Body;

/// Headers that concern one connection (RFC 9110, section 7.6.1), framing aside.
const HOP_BY_HOP: [HeaderName; 7] = [
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    HeaderName::from_static("proxy-authentication-info"),
    header::CONNECTION,
];

/// Tells whether a comma-separated header has a token.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// Gives back the protocol that a message asks or agrees to switch to.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut protocols = headers.get_all(header::UPGRADE).into_iter();
    let protocol = protocols.next()?;
    (has_token(headers, &header::CONNECTION, "upgrade") && protocols.next().is_none()).then(|| protocol.clone())
}

/// Tells whether the client waits for `100 Continue` before it sends its body.
pub(super) fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Tells whether the sender can take trailers.
pub(super) fn wants_trailers(headers: &HeaderMap) -> bool {
    has_token(headers, &header::TE, "trailers")
}

/// Tells whether the next recipient is to answer by itself (RFC 9110, section 7.6.2).
pub(super) fn goes_no_further(headers: &HeaderMap) -> bool {
    tokens(headers, &header::MAX_FORWARDS).any(|count| count.bytes().all(|digit| digit == b'0'))
}

/// Removes what concerns the connection the message came on.
///
/// The framing goes too; [`frame_request`] and [`frame_response`] put it back.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = tokens(headers, &header::CONNECTION).filter_map(|token| token.parse().ok()).collect();
    for name in listed.iter().chain(&HOP_BY_HOP) {
        // `Connection: host` must not take away what says whom the message is for, or where its body ends.
        if ![header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(name) {
            headers.remove(name);
        }
    }
}

/// The same over HTTP/2, where trailers pass and whoever gets them may want to be told of them before: Go's server takes no others.
pub(super) fn remove_hop_by_hop_http2(headers: &mut HeaderMap) {
    let announced: Vec<HeaderValue> = headers.get_all(header::TRAILER).iter().cloned().collect();
    remove_hop_by_hop(headers);
    for names in announced {
        headers.append(header::TRAILER, names);
    }
}

/// Says why a request's transfer coding cannot be passed on: hyper takes off `chunked` and no other.
pub(super) fn foreign_coding(headers: &HeaderMap) -> bool {
    let mut codings = tokens(headers, &header::TRANSFER_ENCODING);
    match codings.next() {
        None => headers.contains_key(header::TRANSFER_ENCODING),
        Some(coding) => !coding.eq_ignore_ascii_case("chunked") || codings.next().is_some(),
    }
}

/// Writes how the body of a request ends.
pub(super) fn frame_request(headers: &mut HeaderMap, body: &impl Body) {
    let had_length = headers.remove(header::CONTENT_LENGTH).is_some();
    headers.remove(header::TRANSFER_ENCODING);
    match body.size_hint().exact() {
        // Nothing was said of a body, so there is none.
        Some(0) if !had_length => {}
        Some(length) => {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        None => {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
}

/// Writes how the body of a response ends. Without a length hyper writes chunks, or to an HTTP/1.0 client until it closes.
pub(super) fn frame_response(method: &Method, status: StatusCode, headers: &mut HeaderMap, body: &impl Body) {
    let chunked = headers.remove(header::TRANSFER_ENCODING).is_some();
    if method == Method::HEAD {
        // The length is that of the body which is not sent. hyper has not read it: take it only if it is one number.
        let mut lengths = headers.get_all(header::CONTENT_LENGTH).into_iter();
        let one = lengths.next().filter(|length| lengths.all(|other| other == length)).cloned();
        headers.remove(header::CONTENT_LENGTH);
        let digits = |length: &HeaderValue| !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
        if let Some(length) = one.filter(|length| !chunked && digits(length)) {
            headers.insert(header::CONTENT_LENGTH, length);
        }
        return;
    }
    headers.remove(header::CONTENT_LENGTH);
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return;
    }
    if let Some(length) = body.size_hint().exact() {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{Empty, Full};

    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        headers.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn what_concerns_one_connection_stays_on_it() {
        let mut map = headers(&[
            ("host", "a"),
            ("connection", "close, X-One"),
            ("connection", "x-two,,host , content-length"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("upgrade", "h2c"),
            ("content-length", "5"),
        ]);
        let mut http2 = map.clone();
        remove_hop_by_hop(&mut map);
        assert_eq!(names(&map), ["host", "x-three", "content-length"]);
        remove_hop_by_hop_http2(&mut http2);
        assert_eq!(names(&http2), ["host", "x-three", "content-length", "trailer"]);
    }

    #[test]
    fn an_upgrade_is_asked_for_twice() {
        let asked = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
        assert_eq!(upgrade(&headers(&asked)).unwrap(), "websocket");
        assert!(upgrade(&headers(&asked[..1])).is_none());
        assert!(upgrade(&headers(&asked[1..])).is_none());
        assert!(upgrade(&headers(&[asked[0], asked[1], asked[1]])).is_none());
    }

    #[test]
    fn the_last_hop_is_known() {
        for (count, last) in [("0", true), ("00", true), (" 0 ", true), ("7, 0", true), ("10", false), ("-0", false)] {
            assert_eq!(goes_no_further(&headers(&[("max-forwards", count)])), last, "{count}");
        }
        assert!(!goes_no_further(&headers(&[])));
    }

    #[test]
    fn only_one_coding_is_known() {
        for (lines, foreign) in [
            (&[][..], false),
            (&[("transfer-encoding", "chunked")], false),
            (&[("transfer-encoding", "Chunked")], false),
            (&[("transfer-encoding", "gzip, chunked")], true),
            (&[("transfer-encoding", "")], true),
            (&[("transfer-encoding", "xchunked")], true),
            (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], true),
        ] {
            assert_eq!(foreign_coding(&headers(lines)), foreign, "{lines:?}");
        }
    }

    #[test]
    fn a_length_is_the_bodys_own() {
        let mut map = headers(&[("content-length", "999"), ("transfer-encoding", "chunked")]);
        frame_request(&mut map, &Full::<Bytes>::from("12345"));
        assert_eq!((map.len(), &map["content-length"]), (1, &HeaderValue::from(5)));

        let mut map = headers(&[]);
        frame_request(&mut map, &Empty::<Bytes>::new());
        assert!(map.is_empty());

        let mut map = headers(&[("content-length", "7")]);
        frame_response(&Method::HEAD, StatusCode::OK, &mut map, &Empty::<Bytes>::new());
        assert_eq!(map["content-length"], "7");
        let mut map = headers(&[("content-length", "7"), ("content-length", "8")]);
        frame_response(&Method::HEAD, StatusCode::OK, &mut map, &Empty::<Bytes>::new());
        assert!(map.is_empty());
        let mut map = headers(&[("content-length", "7")]);
        frame_response(&Method::GET, StatusCode::OK, &mut map, &Full::<Bytes>::from("12345"));
        assert_eq!(map["content-length"], "5");
    }
}
