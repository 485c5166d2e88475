//! What one request may ask, and what is put into its head: rules and credentials, without any I/O.
//!
//! The order matters. The path is read once ([`canonical_path`]); rules judge what was read; then values are put in, and if one
//! went into the path, the path that came of it is read and judged again. What is judged last is what goes on.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use zeroize::Zeroizing;

use super::AllowList;
use super::rewrite::{self, Hide, Put, Wiped};
use super::secret::{self, Escape, Place, Secret, Stray, Usable, Why};
use super::target::Target;
use crate::policy::request_rule::is_unreserved;
use crate::policy::{AllowEntry, PathError, RequestRule, Scheme, canonical_path};

/// The policy about requests, as it is at one moment.
pub(super) struct Requests {
    /// Absent, the upstream alone decides.
    pub(super) allow: AllowList,
    /// What no rule covers is told, and let through.
    pub(super) audit: bool,
    pub(super) secrets: Arc<[Secret]>,
}

/// What else is to be done with a request whose head may go on.
#[derive(Default)]
pub(super) struct Applied {
    /// No rule covers it, which in an audit is only told; the entry that would.
    pub(super) unruled: Option<Option<Box<AllowEntry>>>,
    /// To its body.
    pub(super) put: Option<Put>,
    /// To the answer.
    pub(super) hide: Hide,
}

/// Why a request does not go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Its path has no one reading.
    Path(PathError),
    /// No rule covers it; the entry that would.
    NoRule(Option<Box<AllowEntry>>),
    /// A header of that name could make another request of it, at origins that heed it.
    Override(&'static str),
    /// A placeholder where no value may stand.
    Stray(Stray),
    /// A value that can't stand where it was put.
    Unspeakable,
}

impl From<Stray> for Unfit {
    fn from(stray: Stray) -> Self {
        Unfit::Stray(stray)
    }
}

/// Longest hint, in bytes: reports keep them.
const HINT: usize = 512;

/// With these, some frameworks take a request for another than its first line says.
const OVERRIDES: [&str; 6] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-original-uri",
];

impl Requests {
    /// Whether the proxy has to see what is said in a tunnel to that target.
    pub(super) fn concern(&self, target: &Target) -> bool {
        let covers = |entry: &AllowEntry| entry.matches(&target.host, target.port.get());
        let wanted = self.secrets.iter().flat_map(|secret| &secret.credential().to).any(covers);
        wanted || ruled(&self.covering(target))
    }

    fn covering(&self, target: &Target) -> Vec<&AllowEntry> {
        let entries = self.allow.as_deref().unwrap_or_default().iter();
        entries.filter(|entry| entry.matches(&target.host, target.port.get())).collect()
    }

    /// Whether rules let that request through, or there are none. The path is as [`judge`](Self::judge) has left it.
    pub(super) fn cover(&self, scheme: Scheme, target: &Target, method: &str, path: &str) -> bool {
        let covering = self.covering(target);
        // What had no rules before may have come with a path that none can judge.
        !ruled(&covering) || canonical_path(path).is_ok_and(|path| permitted(&covering, scheme, method, &path))
    }

    /// Judges a request's head, and puts values in. `parts.uri` is path and query alone when this returns.
    pub(super) fn judge(&self, scheme: Scheme, target: &Target, parts: &mut Parts) -> Result<Applied, Unfit> {
        let (host, port) = (&target.host, target.port.get());
        let covering = self.covering(target);
        let ruled = ruled(&covering);
        let sent = self.secrets.iter().flat_map(|secret| &secret.credential().to);
        let read_path = ruled || sent.filter(|entry| entry.matches(host, port)).any(|entry| entry.rule.is_some());

        let written = parts.uri.path();
        let mut path = match canonical_path(written) {
            Ok(path) if read_path => path,
            Err(error) if read_path => return Err(Unfit::Path(error)),
            _ => written.to_owned(),
        };
        let method = parts.method.as_str();
        let allowed = |path: &str| !ruled || permitted(&covering, scheme, method, path);
        let mut unruled = None;
        if !allowed(&path) {
            let rule = RequestRule::exactly(scheme, method, &path);
            let host = super::decide::exactly(&target.host);
            let hint = rule.map(|rule| AllowEntry { host, port: Some(target.port), rule: Some(rule) });
            // A hint that the policy's own parser refuses would help nobody, nor would one that nobody reads to its end.
            let helps = |hint: &AllowEntry| {
                let text = hint.to_string();
                text.len() <= HINT && text.parse().is_ok_and(|parsed: AllowEntry| parsed == *hint)
            };
            let hint = hint.filter(helps);
            let hint = hint.map(Box::new);
            if !self.audit {
                return Err(Unfit::NoRule(hint));
            }
            unruled = Some(hint);
        }
        if read_path && let Some(name) = parts.headers.keys().find_map(overriding) {
            return Err(Unfit::Override(name));
        }

        let may_go = |path: &str| -> Vec<bool> {
            self.secrets.iter().map(|secret| secret.credential().may_go(scheme, host, port, method, path)).collect()
        };
        let here = may_go(&path);
        let usable = Usable { all: &self.secrets, here: &here };
        let mut used = Vec::new();
        let mut hide = Hide::default();

        let plain = unreserved(&path);
        let mut in_path = Vec::new();
        if let Some(put) = usable.put_in(plain.as_bytes(), Place::Path, Escape::Percent, &mut in_path)? {
            // Percent escapes are ASCII.
            let put = std::str::from_utf8(&put).map_err(|_| Unfit::Unspeakable)?;
            let fits = |again: &String| unruled.is_some() || allowed(again);
            let again = canonical_path(put).ok().filter(fits).ok_or_else(|| meaning(&plain))?;
            let still = may_go(&again);
            if in_path.iter().any(|index| !still[*index]) {
                return Err(meaning(&plain));
            }
            path = again;
            used.append(&mut in_path);
        }
        let query = match parts.uri.query() {
            None => None,
            Some(query) => {
                let put = usable.put_in(unreserved(query).as_bytes(), Place::Query, Escape::Percent, &mut used)?;
                Some(put.unwrap_or_else(|| Zeroizing::new(query.as_bytes().to_vec())))
            }
        };
        let mut whole = Zeroizing::new(path.into_bytes());
        if let Some(query) = &query {
            whole.reserve_exact(1 + query.len());
            whole.push(b'?');
            whole.extend_from_slice(query);
        }
        let whole = PathAndQuery::from_maybe_shared(Bytes::from_owner(Wiped(whole))).map_err(|_| Unfit::Unspeakable)?;
        parts.uri = whole.into();

        put_into_headers(&usable, &mut parts.headers, &mut used, &mut hide)?;

        let into_body =
            |(index, secret): (usize, &Secret)| (here[index] && secret.credential().places.body).then_some(index);
        let bodies: Vec<usize> = self.secrets.iter().enumerate().filter_map(into_body).collect();
        let put = (!bodies.is_empty()).then(|| Put {
            all: Arc::clone(&self.secrets),
            here: here.clone(),
            escape: rewrite::escape(&parts.headers),
        });
        used.extend(bodies);
        for index in used {
            hide.secret(&self.secrets[index]);
        }
        if !hide.is_empty() {
            // What is compressed can't be looked through.
            parts.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        Ok(Applied { unruled, put, hide })
    }
}

/// Whether only some requests are let through by these.
fn ruled(covering: &[&AllowEntry]) -> bool {
    !covering.is_empty() && covering.iter().all(|entry| entry.rule.is_some())
}

fn permitted(covering: &[&AllowEntry], scheme: Scheme, method: &str, path: &str) -> bool {
    covering.iter().filter_map(|entry| entry.rule.as_ref()).any(|rule| rule.matches(scheme, method, path))
}

/// Which overriding header that one is, to some framework.
fn overriding(name: &HeaderName) -> Option<&'static str> {
    // CGI and what came after it make one variable of `-`, `_` and, in places, all else that is no letter.
    let folded = || name.as_str().bytes().map(|byte| if byte.is_ascii_alphanumeric() { byte } else { b'-' });
    OVERRIDES.into_iter().find(|known| folded().eq(known.bytes()))
}

fn put_into_headers(
    usable: &Usable<'_>,
    headers: &mut HeaderMap,
    used: &mut Vec<usize>,
    hide: &mut Hide,
) -> Result<(), Unfit> {
    for name in headers.keys() {
        if let Some(found) = secret::find(name.as_str().as_bytes()) {
            let name = found.name(name.as_str().as_bytes()).to_owned();
            return Err(Stray { name, why: Why::Place(Place::Header) }.into());
        }
    }
    // That one is for the proxy itself or its upstream, and no credential goes there.
    let nowhere = Usable { all: usable.all, here: &[] };
    for (name, value) in headers.iter_mut() {
        let usable = if *name == header::PROXY_AUTHORIZATION { &nowhere } else { usable };
        let basic = match [header::AUTHORIZATION, header::PROXY_AUTHORIZATION].contains(name) {
            true => usable.put_in_basic(value.as_bytes(), used)?,
            false => None,
        };
        let put = match basic {
            Some(put) => {
                // The answer may say the base64 again.
                if let (Some((_, sent)), Some((_, said))) = (secret::basic(&put), secret::basic(value.as_bytes())) {
                    hide.form(Zeroizing::new(sent.to_vec()), said);
                }
                put
            }
            None => match usable.put_in(value.as_bytes(), Place::Header, Escape::None, used)? {
                Some(put) => put,
                None => continue,
            },
        };
        let mut put = HeaderValue::from_maybe_shared(Bytes::from_owner(Wiped(put))).map_err(|_| Unfit::Unspeakable)?;
        put.set_sensitive(true);
        *value = put;
    }
    Ok(())
}

fn meaning(text: &str) -> Unfit {
    let name = secret::find(text.as_bytes()).map(|found| found.name(text.as_bytes()).to_owned()).unwrap_or_default();
    Stray { name, why: Why::Meaning }.into()
}

/// Undoes escapes of characters that need none, so that no placeholder hides behind them.
fn unreserved(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        plain.push_str(before);
        let byte = escape.get(1..3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(|byte| is_unreserved(*byte)) {
            Some(byte) => {
                plain.push(char::from(byte));
                rest = &escape[3..];
            }
            None => {
                plain.push('%');
                rest = &escape[1..];
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// Headers that say who is asked, of a message in a tunnel: they must name the host that was decided on.
pub(super) fn names(target: &Target, parts: &Parts, scheme: Scheme) -> bool {
    let default = std::num::NonZeroU16::new(scheme.port());
    let same = |text: &str| Target::parse(text, default).is_ok_and(|named| named == *target);
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    hosts.next().is_none()
        && (host.is_some() || authority.is_some())
        && host.is_none_or(|host| host.to_str().is_ok_and(same))
        && authority.is_none_or(same)
}

#[cfg(test)]
mod tests {
    use super::super::secret::tests::secret;
    use super::*;

    const VALUE: &str = "s3cr3t/../+value";

    fn requests() -> Requests {
        let allow =
            ["open.example", "api.example:443", "GET|POST https://ruled.example/v1/*", "GET http://ruled.example/x"];
        Requests {
            allow: Some(allow.iter().map(|entry| entry.parse().unwrap()).collect()),
            audit: false,
            secrets: Arc::new([
                secret("T=env:T,to=api.example,in=header+query+path+body", VALUE),
                secret("U=env:U,to=GET https://ruled.example/v1/only/*", "..of-the-rule"),
            ]),
        }
    }

    /// Scheme, host and port, method, path; headers. What goes on, as a head.
    fn judge(url: &str, method: &str, headers: &[(&str, &str)]) -> Result<String, Unfit> {
        let (scheme, rest) = url.split_once("://").unwrap();
        let (authority, path) = rest.split_at(rest.find('/').unwrap());
        let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
        let target = Target::parse(authority, std::num::NonZeroU16::new(scheme.port())).unwrap();
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        requests().judge(scheme, &target, &mut parts)?;
        let mut head = format!("{} {}", parts.method, parts.uri);
        for (name, value) in &parts.headers {
            head.push_str(&format!("\n{name}: {}", String::from_utf8_lossy(value.as_bytes())));
        }
        Ok(head)
    }

    fn why(url: &str, headers: &[(&str, &str)]) -> Why {
        match judge(url, "GET", headers) {
            Err(Unfit::Stray(stray)) => stray.why,
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn a_value_goes_where_it_may_and_nowhere_else() {
        let bearer = [("authorization", "Bearer ringfence-T-secret")];
        let sent = judge("https://api.example/", "GET", &bearer).unwrap();
        assert_eq!(sent, format!("GET /\nauthorization: Bearer {VALUE}\naccept-encoding: identity"));
        for elsewhere in [
            "https://open.example/",
            "http://api.example:443/",
            "https://api.example:444/",
            "https://ruled.example/v1/x",
        ] {
            assert_eq!(why(elsewhere, &bearer), Why::Elsewhere, "{elsewhere}");
        }
        assert_eq!(why("https://open.example/", &[("x", "ringfence-NO-secret")]), Why::Unknown);
        assert_eq!(why("https://open.example/?a=ringfence-T-secret", &[]), Why::Elsewhere);
        assert_eq!(why("https://open.example/?a=ringfence%2DT%2dsecret", &[]), Why::Elsewhere);
        assert_eq!(why("https://open.example/ringf%65nce-T-secret", &[]), Why::Elsewhere);
        assert_eq!(
            why("https://open.example/", &[("authorization", "Basic cmluZ2ZlbmNlLVQtc2VjcmV0Ong=")]),
            Why::Elsewhere
        );
    }

    #[test]
    fn values_are_escaped_and_the_path_is_judged_again() {
        assert_eq!(
            judge("https://api.example/a?k=ringfence-T-secret&x=%20", "GET", &[]).unwrap(),
            "GET /a?k=s3cr3t%2F..%2F%2Bvalue&x=%20\naccept-encoding: identity"
        );
        // A slash in the value would be one in the path to somebody.
        assert_eq!(why("https://api.example/a/ringfence-T-secret", &[]), Why::Meaning);
        assert_eq!(
            judge("https://ruled.example/v1/only/x-ringfence-U-secret", "GET", &[]).unwrap(),
            "GET /v1/only/x-..of-the-rule\naccept-encoding: identity"
        );
        assert_eq!(why("https://ruled.example/v1/other/ringfence-U-secret", &[]), Why::Elsewhere);
    }

    #[test]
    fn rules_judge_the_one_reading() {
        for (url, method, sent) in [
            ("https://ruled.example/v1/x?q=/../", "GET", "GET /v1/x?q=/../"),
            ("https://ruled.example/v1/%61%2b", "POST", "POST /v1/a%2B"),
            ("http://ruled.example/x", "GET", "GET /x"),
        ] {
            assert_eq!(judge(url, method, &[]).unwrap(), sent);
        }
        let hint = |url, method| match judge(url, method, &[]) {
            Err(Unfit::NoRule(hint)) => hint.map(|hint| hint.to_string()).unwrap_or_default(),
            other => panic!("{url}: {other:?}"),
        };
        assert_eq!(hint("https://ruled.example/v2/x", "GET"), "GET https://ruled.example:443/v2/x");
        assert_eq!(hint("https://ruled.example/v1/x", "DELETE"), "DELETE https://ruled.example:443/v1/x");
        assert_eq!(hint("http://ruled.example/v1/x", "GET"), "GET http://ruled.example:80/v1/x");
        assert_eq!(hint(&format!("https://ruled.example/v2/{}", "x".repeat(HINT)), "GET"), "");
        for path in ["/v1/../x", "/v1/%2e%2e/x", "/v1//x", "/v1/%2fx", "/v1/..;/x"] {
            assert!(
                matches!(judge(&format!("https://ruled.example{path}"), "GET", &[]), Err(Unfit::Path(_))),
                "{path}"
            );
            // Where no rule asks for it, a path goes on as it was written.
            assert_eq!(judge(&format!("https://open.example{path}"), "GET", &[]).unwrap(), format!("GET {path}"));
        }
        for (name, known) in [
            ("x-http-method-override", "x-http-method-override"),
            ("X_HTTP_Method_Override", "x-http-method-override"),
            ("X-Original_URL", "x-original-url"),
            ("X.Rewrite~Url", "x-rewrite-url"),
        ] {
            let overridden = [(name, "DELETE")];
            let refused = judge("https://ruled.example/v1/x", "GET", &overridden);
            assert_eq!(refused, Err(Unfit::Override(known)), "{name}");
            assert!(judge("https://open.example/", "GET", &overridden).is_ok());
        }
        assert!(judge("https://ruled.example/v1/x", "GET", &[("x-http-methods", "1")]).is_ok());
    }

    #[test]
    fn only_what_has_to_be_seen_is_looked_into() {
        let concern = |target: &str| requests().concern(&Target::parse(target, None).unwrap());
        for (target, expected) in [
            ("api.example:443", true),
            ("ruled.example:443", true),
            ("ruled.example:80", true),
            ("open.example:443", false),
            ("ruled.example:8443", false),
        ] {
            assert_eq!(concern(target), expected, "{target}");
        }
    }

    #[test]
    fn a_message_in_a_tunnel_names_the_tunnels_host() {
        let target = Target::parse("api.example:443", None).unwrap();
        let named = |uri: &str, hosts: &[&str]| {
            let mut request = http::Request::builder().uri(uri);
            for host in hosts {
                request = request.header("host", *host);
            }
            names(&target, &request.body(()).unwrap().into_parts().0, Scheme::Https)
        };
        assert!(named("/", &["API.example"]) && named("/", &["api.example:443"]) && named("https://api.example/", &[]));
        assert!(!named("/", &["other.example"]) && !named("/", &["api.example:80"]) && !named("/", &[]));
        assert!(!named("/", &["api.example", "api.example"]) && !named("https://other.example/", &["api.example"]));
        assert!(!named("/", &["api.example@other.example"]));
    }
}
