//! Which requests of a host's are let through: `GET|HEAD https://api.example.com/v1/*`.
//!
//! A rule is only as good as the one reading of a path that it judges. [`canonical_path`] is that reading: what it gives back
//! is what is compared, and what goes on to the origin, byte for byte. A path that two readers could understand in two ways is
//! refused, not repaired.

use std::fmt;

use serde::Serialize;

use super::authority::Reason;
use super::origin::part;

/// How a request reaches its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// The port that a URL without one means.
    pub const fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }

    /// Its name in a URL.
    pub const fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// What an entry says of requests, beside whom they go to: scheme, methods, path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RequestRule {
    scheme: Scheme,
    /// Any when empty.
    methods: Vec<String>,
    /// In canonical form, with `*` for a segment.
    path: String,
}

impl RequestRule {
    /// Whether it lets that request through. `path` is what [`canonical_path`] gave back, without a query.
    pub fn matches(&self, scheme: Scheme, method: &str, path: &str) -> bool {
        self.scheme == scheme
            && (self.methods.is_empty() || self.methods.iter().any(|known| known == method))
            && covers(&self.path, path)
    }

    /// In the clear or over TLS.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The rule for one request and no other; none for what no rule can be written for.
    pub fn exactly(scheme: Scheme, method: &str, path: &str) -> Option<Self> {
        let methods = methods(method).ok().filter(|methods| methods.len() == 1)?;
        let path = pattern(path).ok().filter(|path| !path.contains(['*', ',']))?;
        Some(Self { scheme, methods, path })
    }

    /// Parses `METHODS SCHEME://AUTHORITY/PATH`; gives back the rule and the authority. `None` when the text is no try at one.
    pub(super) fn read(text: &str) -> Option<Result<(Self, &str), Reason>> {
        let (verbs, url) = text.split_once(' ')?;
        let (scheme, rest) = url.trim_start_matches(' ').split_once("://")?;
        Some(Self::parts(verbs, scheme, rest))
    }

    fn parts<'a>(verbs: &str, scheme: &str, rest: &'a str) -> Result<(Self, &'a str), Reason> {
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => return Err(format!("requests are ruled by `http://` and `https://`, not by {}", part(other))),
        };
        let Some(slash) = rest.find(['/', '?', '#']) else {
            return Err("the path is missing: `/*` is every path".into());
        };
        let (authority, path) = rest.split_at(slash);
        if authority.contains('@') {
            return Err("a user name has no place in a rule".into());
        }
        Ok((Self { scheme, methods: methods(verbs)?, path: pattern(path)? }, authority))
    }

    /// Shows it around the authority that it goes with.
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>, authority: &dyn fmt::Display) -> fmt::Result {
        let methods = if self.methods.is_empty() { "*".to_owned() } else { self.methods.join("|") };
        write!(f, "{methods} {}://{authority}{}", self.scheme.name(), self.path)
    }
}

fn methods(text: &str) -> Result<Vec<String>, Reason> {
    if text == "*" {
        return Ok(Vec::new());
    }
    let mut methods: Vec<String> = Vec::new();
    for method in text.split('|') {
        // A lower-case `get` is another method than `GET`, and some servers take it for the same.
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
            return Err(format!("{} is no method: write `GET`, `GET|HEAD`, or `*` for all", part(method)));
        }
        if ["CONNECT", "TRACE"].contains(&method) {
            return Err(format!("{method} is never passed on"));
        }
        if !methods.iter().any(|known| known == method) {
            methods.push(method.to_owned());
        }
    }
    methods.sort();
    Ok(methods)
}

fn pattern(path: &str) -> Result<String, Reason> {
    if path.contains(['?', '#']) {
        return Err("a rule ends with the path: queries are not judged".into());
    }
    let canonical = canonical_path(path).map_err(|why| format!("the path {} {why}", part(path)))?;
    if let Some(segment) = canonical.split('/').find(|segment| segment.contains('*') && *segment != "*") {
        return Err(format!("a `*` is a whole segment of the path, and {} is none", part(segment)));
    }
    Ok(canonical)
}

/// Whether a pattern covers a path: `*` is one segment that is not empty, and at the end all that is below.
fn covers(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/').peekable(), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some("*"), Some(segment)) => {
                if pattern.peek().is_none() {
                    return true;
                }
                if segment.is_empty() {
                    return false;
                }
            }
            (Some(wanted), Some(segment)) if wanted == segment => {}
            _ => return false,
        }
    }
}

/// Why a path has no one reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// It does not start with a slash.
    #[error("does not start with a slash")]
    Relative,
    /// A character that no path has: a blank, a control character, one beyond ASCII, one of `"<>\^`{|}`.
    #[error("has a character that no path has")]
    Character,
    /// `%` without two hexadecimal digits behind it.
    #[error("has a `%` that is no escape")]
    Escape,
    /// `//`, which some readers take for one slash, or `/;x/`, which some take for that.
    #[error("has an empty segment")]
    EmptySegment,
    /// `.` or `..`, however it is written.
    #[error("has a dot segment")]
    DotSegment,
    /// A slash, a backslash or a control character that is escaped, once or more often.
    #[error("has an escaped slash, backslash or control character")]
    EscapedSeparator,
    /// Escapes of bytes that are no UTF-8: some readers make other characters of them, dots and slashes among these.
    #[error("has escapes that are no UTF-8")]
    Encoding,
}

/// How often an escape may be escaped; no reader unpacks more.
const DEPTH: usize = 4;

/// Reads a path, without its query, in the one way that rules and origin are to share.
///
/// Escapes of characters that need none (`%61`) are undone, others get capital digits. What readers are known to disagree about
/// is an error: empty segments, dot segments, escaped slashes and backslashes, control characters, bytes that are no UTF-8, and
/// each of these behind any number of escapes or a `;` with parameters.
///
/// # Errors
/// [`PathError`]
pub fn canonical_path(path: &str) -> Result<String, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::Relative);
    }
    let bytes = path.as_bytes();
    let mut canonical = String::with_capacity(path.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'%' => {
                let decoded = escape(&bytes[at..]).ok_or(PathError::Escape)?;
                if is_unreserved(decoded) {
                    canonical.push(char::from(decoded));
                } else {
                    canonical.push_str(&path[at..at + 3].to_ascii_uppercase());
                }
                at += 3;
                continue;
            }
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => return Err(PathError::Character),
            0x21..=0x7e => canonical.push(char::from(byte)),
            _ => return Err(PathError::Character),
        }
        at += 1;
    }
    if canonical.contains("//") {
        return Err(PathError::EmptySegment);
    }
    // Whoever unpacks once more than others do must find nothing there either.
    let mut reading = canonical.clone().into_bytes();
    for depth in 0..=DEPTH {
        if let Some(error) = unstable_segment(&reading) {
            return Err(error);
        }
        if std::str::from_utf8(&reading).is_err() {
            return Err(PathError::Encoding);
        }
        let unpacked = unpack(&reading);
        if unpacked == reading {
            return Ok(canonical);
        }
        let separators =
            |bytes: &[u8]| bytes.iter().filter(|byte| matches!(byte, b'/' | b'\\' | 0..=0x1f | 0x7f)).count();
        if depth == DEPTH || separators(&unpacked) != separators(&reading) {
            return Err(PathError::EscapedSeparator);
        }
        reading = unpacked;
    }
    Ok(canonical)
}

/// What is wrong with a path that some readers take a segment from.
fn unstable_segment(path: &[u8]) -> Option<PathError> {
    path.split(|byte| *byte == b'/').find_map(|segment| {
        // Servlet containers drop `;…` before they look at what is there.
        match segment.split(|byte| *byte == b';').next() {
            Some(b"." | b"..") => Some(PathError::DotSegment),
            Some(b"") if !segment.is_empty() => Some(PathError::EmptySegment),
            _ => None,
        }
    })
}

/// The byte that an escape at the beginning stands for.
fn escape(bytes: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match bytes.first()? {
        b'%' => Some(digit(1)? << 4 | digit(2)?),
        _ => None,
    }
}

/// Undoes one layer of escapes.
fn unpack(bytes: &[u8]) -> Vec<u8> {
    let mut unpacked = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match escape(&bytes[at..]) {
            Some(decoded) => {
                unpacked.push(decoded);
                at += 3;
            }
            None => {
                unpacked.push(byte);
                at += 1;
            }
        }
    }
    unpacked
}

/// Characters that mean the same escaped or not (RFC 3986, section 2.3).
pub(crate) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::AllowEntry;

    fn rule(text: &str) -> Result<AllowEntry, String> {
        text.parse().map_err(|error: crate::policy::PolicyError| error.to_string())
    }

    fn permits(entry: &str, method: &str, path: &str) -> bool {
        let rule = rule(entry).unwrap().rule.unwrap();
        canonical_path(path).is_ok_and(|path| rule.matches(rule.scheme(), method, &path))
    }

    #[test]
    fn rules_show_as_themselves() {
        for (text, shown) in [
            ("GET https://api.example.com/v1/*", "GET https://api.example.com:443/v1/*"),
            ("HEAD|GET http://a.example:8080/x", "GET|HEAD http://a.example:8080/x"),
            ("* https://*.example.com/*", "* https://*.example.com:443/*"),
            ("POST https://203.0.113.9/%7Ea", "POST https://203.0.113.9:443/~a"),
            ("GET https://[2001:db8::9]:1/", "GET https://[2001:db8::9]:1/"),
        ] {
            assert_eq!(rule(text).unwrap().to_string(), shown);
            assert_eq!(rule(shown).unwrap(), rule(text).unwrap());
        }
    }

    #[test]
    fn what_is_no_rule_says_why() {
        for (text, why) in [
            ("get https://a.example/", "`get` is no method"),
            ("GET,HEAD https://a.example/", "`GET,HEAD` is no method"),
            ("CONNECT https://a.example/", "CONNECT is never passed on"),
            ("GET ftp://a.example/", "not by `ftp`"),
            ("GET https://a.example", "the path is missing"),
            ("GET https://a.example/?x", "queries are not judged"),
            ("GET https://u@a.example/", "no place in a rule"),
            ("GET https://a.example/../x", "dot segment"),
            ("GET https://a.example/a*", "a whole segment"),
            ("GET https://203.0.113.0/24", "GET https://203.0.113.0:443/24"),
            ("GET https:///x", "it is empty"),
            ("GET", "a method stands before a URL"),
        ] {
            match rule(text) {
                Ok(entry) => assert_eq!(entry.to_string(), why),
                Err(error) => assert!(error.contains(why), "{text}: {error}"),
            }
        }
    }

    #[test]
    fn stars_are_segments_and_the_last_is_all_below() {
        for (entry, method, path, expected) in [
            ("GET https://a.example/v1/*", "GET", "/v1/x/y", true),
            ("GET https://a.example/v1/*", "GET", "/v1/", true),
            ("GET https://a.example/v1/*", "GET", "/v1", false),
            ("GET https://a.example/v1/*", "GET", "/v1x/", false),
            ("GET https://a.example/v1/*", "GET", "/V1/x", false),
            ("GET https://a.example/v1/*", "POST", "/v1/x", false),
            ("GET https://a.example/v1/*", "get", "/v1/x", false),
            ("* https://a.example/*", "PURGE", "/", true),
            ("GET https://a.example/a/*/c", "GET", "/a/b/c", true),
            ("GET https://a.example/a/*/c", "GET", "/a/b/b/c", false),
            ("GET https://a.example/a/*/c", "GET", "/a//c", false),
            ("GET https://a.example/a/*/c", "GET", "/a/%2e%2e/c", false),
            ("GET https://a.example/admin", "GET", "/%61dmin", true),
            ("GET https://a.example/v1/*", "GET", "/v1/%2e%2e/admin", false),
            ("GET https://a.example/v1/*", "GET", "/v1/..%2fadmin", false),
            ("GET https://a.example/v1/*", "GET", "/v1/%252e%252e/admin", false),
            ("GET https://a.example/v1/*", "GET", "/v1/..;/admin", false),
            ("GET https://a.example/v1/*", "GET", "/v1/..;x=1/admin", false),
            ("GET https://a.example/v1/*", "GET", "/v1/.%25252e/admin", false),
            ("GET https://a.example/v1/*", "GET", "/v1/%5cadmin", false),
            ("GET https://a.example/v1/*", "GET", "/v1/%00", false),
            ("GET https://a.example/v1/*", "GET", "/v1/%", false),
            ("GET https://a.example/a/*/c", "GET", "/a/;/c", false),
            ("GET https://a.example/a/*/c", "GET", "/a/;x=y/c", false),
            ("GET https://a.example/a/*/c", "GET", "/a/%3B/c", false),
            ("GET https://a.example/a/*/c", "GET", "/a/%253bx/c", false),
            ("GET https://a.example/a/*", "GET", "/a/;", false),
            ("GET https://a.example/a/*/c", "GET", "/a/b;x=y/c", true),
            ("GET https://a.example/a/*/c", "GET", "/a/%c0%ae%c0%ae/c", false),
            ("GET https://a.example/a/*/c", "GET", "/a/%c0%af..%c0%af/c", false),
            ("GET https://a.example/a/*/c", "GET", "/a/%25c0%25ae/c", false),
            ("GET https://a.example/a/*/c", "GET", "/a/%e9/c", false),
            ("GET https://a.example/a/*/c", "GET", "/a/%C3%A9/c", true),
            ("GET https://a.example/v1/*", "GET", "/v1/a%20b%2Bc", true),
        ] {
            assert_eq!(permits(entry, method, path), expected, "{entry} {method} {path}");
        }
    }

    proptest! {
        /// What was read is read as itself again, and no reader finds a dot segment or another slash in it.
        #[test]
        fn the_one_reading_is_its_own(path in "/(%25|%2e|%2f|%3b|%5c|%c0|%ae|\\.|/|;|[a-zA-Z0-9%~*:@-]){0,12}") {
            if let Ok(canonical) = canonical_path(&path) {
                prop_assert_eq!(canonical_path(&canonical), Ok(canonical.clone()));
                let mut reading = canonical.clone().into_bytes();
                for _ in 0..6 {
                    prop_assert!(unstable_segment(&reading).is_none(), "{}", canonical);
                    prop_assert!(std::str::from_utf8(&reading).is_ok(), "{}", canonical);
                    reading = unpack(&reading);
                    prop_assert_eq!(
                        reading.iter().filter(|byte| **byte == b'/').count(),
                        canonical.matches('/').count()
                    );
                }
            }
        }
    }
}
