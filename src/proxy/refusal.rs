//! Answers of the proxy's own: a status and one line.

use std::io;

use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::body::ResponseBody;
use super::decide::DenialReason;
use super::pulse::Busy;

/// Longest line, in bytes: what a client wrote is quoted in it.
const LONGEST: usize = 512;

/// Why an exchange ends here.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    line: String,
    denied: Option<&'static str>,
    close: bool,
}

impl Refusal {
    /// A refusal whose line is `text`; whatever of it would move a terminal's cursor is escaped.
    pub(super) fn new(status: StatusCode, text: impl AsRef<str>) -> Self {
        let mut line = String::from("ringfence: ");
        for character in text.as_ref().chars() {
            if line.len() >= LONGEST {
                line.push('…');
                break;
            }
            if character.is_ascii_graphic() || character == ' ' {
                line.push(character);
            } else {
                line.extend(character.escape_default());
            }
        }
        line.push('\n');
        Self { status, line, denied: None, close: false }
    }

    pub(super) fn bad_request(text: impl AsRef<str>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text).and_close()
    }

    /// The policy's refusal.
    pub(super) fn denied(reason: &DenialReason, text: impl AsRef<str>) -> Self {
        Self { denied: Some(reason.code()), ..Self::new(StatusCode::FORBIDDEN, text) }
    }

    /// `what` could not be reached: 504 when it was too slow, else 502.
    pub(super) fn unreachable(what: &str, error: &io::Error) -> Self {
        let status = match error.kind() {
            io::ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, format!("can't reach {what}: {error}"))
    }

    /// Ends the client's connection after this answer.
    pub(super) fn and_close(mut self) -> Self {
        self.close = true;
        self
    }

    /// Its line, without our name and the line's end.
    pub(super) fn text(&self) -> &str {
        self.line.strip_prefix("ringfence: ").unwrap_or(&self.line).trim_end()
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn into_response(self, busy: Option<Busy>) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::line(self.line).during(busy));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if let Some(code) = self.denied {
            headers.insert(HeaderName::from_static("x-ringfence-denied"), HeaderValue::from_static(code));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("CONNECT, GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// The whole answer as bytes, for a connection that no server speaks on.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        let reason = self.status.canonical_reason().unwrap_or("Refused");
        let Self { status, line, .. } = self;
        let head = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            status.as_u16(),
            line.len()
        );
        [head.into_bytes(), line.into_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> String {
        Refusal::bad_request(text).line
    }

    #[test]
    fn what_a_client_wrote_moves_no_cursor() {
        assert_eq!(
            line("a\r\nSet-Cookie: x\t\u{1b}[2J\u{7f}"),
            "ringfence: a\\r\\nSet-Cookie: x\\t\\u{1b}[2J\\u{7f}\n"
        );
        // Nor does it turn the direction of the line, or pass for another name.
        assert_eq!(line("\u{202e}b\u{fc}cher"), "ringfence: \\u{202e}b\\u{fc}cher\n");
        assert_eq!(line("it's \"quoted\""), "ringfence: it's \"quoted\"\n");
    }

    #[test]
    fn a_line_has_an_end() {
        for text in ["x".repeat(100_000), "\u{10ffff}".repeat(100_000)] {
            let line = line(&text);
            assert!(line.len() < LONGEST + 20 && line.ends_with("…\n"), "{}", line.len());
        }
    }

    #[test]
    fn raw_and_served_answers_agree_on_the_length() {
        let bytes = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "later").into_bytes();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 17\r\n\
             Connection: close\r\n\r\nringfence: later\n"
        );
    }
}
