//! Secrets and their placeholders: finding one in bytes, putting the value in its place with the right escapes.
//!
//! Pure, and the only place where a value is touched. What goes out of here with a value in it wipes itself when it is dropped.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use http::HeaderMap;
use memchr::memmem;
use zeroize::Zeroizing;

use super::spelling;
use crate::policy::Credential;
use crate::policy::credential::{AFTER, BEFORE, LONGEST_NAME};
use crate::policy::request_rule::is_unreserved;

/// Placeholders in one request's head. A head is short, and what can stand for 16 KiB in it a dozen bytes.
const MANY: usize = 64;
/// Values with fewer bytes than this are not looked for in other text.
pub(super) const SHORT: usize = 8;

/// A credential with its value. The value is shown nowhere and wiped when this is dropped.
pub struct Secret {
    credential: Credential,
    placeholder: String,
    value: Zeroizing<Vec<u8>>,
    /// Every way in which an answer may say the value.
    spellings: Vec<Arc<Zeroizing<Vec<u8>>>>,
}

impl Secret {
    /// Longest value, in bytes.
    pub const LONGEST: usize = 16 * 1024;

    /// Pairs a credential with its value.
    ///
    /// # Errors
    ///
    /// A value that is empty, too long, or has a control character: with a line end in it, it could write headers of its own.
    /// The value is wiped.
    pub fn new(credential: Credential, value: Vec<u8>) -> Result<Self, SecretError> {
        let value = Zeroizing::new(value);
        if value.is_empty() {
            return Err(SecretError::Empty);
        }
        if value.len() > Self::LONGEST {
            return Err(SecretError::TooLong);
        }
        if value.iter().any(u8::is_ascii_control) {
            return Err(SecretError::Control);
        }
        let spellings = spelling::all(&value).into_iter().map(Arc::new).collect();
        Ok(Self { placeholder: credential.placeholder(), credential, value, spellings })
    }

    /// What the policy says of it.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// Whether these bytes hold the value, or are it: one of less than eight bytes turns up in any text by chance.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        if self.value.len() < SHORT { *bytes == **self.value } else { memmem::find(bytes, &self.value).is_some() }
    }

    pub(super) fn placeholder(&self) -> &str {
        &self.placeholder
    }

    pub(super) fn spellings(&self) -> &[Arc<Zeroizing<Vec<u8>>>] {
        &self.spellings
    }

    /// How long the value can get when it is escaped.
    pub(super) fn longest_escaped(&self) -> usize {
        self.value.len() * 3
    }

    /// The value as it stands in that kind of text.
    pub(super) fn escaped(&self, escape: Escape) -> Zeroizing<Vec<u8>> {
        // As long as it can get, so that no half of it stays behind in memory that was given back.
        let mut out = Zeroizing::new(Vec::with_capacity(self.longest_escaped()));
        for &byte in self.value.iter() {
            match (escape, byte) {
                (Escape::Percent, byte) if !is_unreserved(byte) => {
                    let digits = b"0123456789ABCDEF";
                    out.extend([b'%', digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]);
                }
                (Escape::Json, b'"' | b'\\') => out.extend([b'\\', byte]),
                _ => out.push(byte),
            }
        }
        out
    }
}

impl fmt::Debug for Secret {
    /// Leaves the value out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("credential", &self.credential).finish_non_exhaustive()
    }
}

/// Why a value can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Nothing is there.
    #[error("the value is empty")]
    Empty,
    /// More than [`Secret::LONGEST`].
    #[error("the value is longer than {} bytes", Secret::LONGEST)]
    TooLong,
    /// A line end, a NUL or another control character.
    #[error("the value has a line end or another control character in it")]
    Control,
}

/// What kind of text a value is put into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    /// As it is.
    None,
    /// Path, query, form.
    Percent,
    /// Inside a string of JSON.
    Json,
}

/// The parts of a request that a placeholder can stand in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Header,
    Query,
    Path,
    Body,
    Trailer,
}

impl Place {
    pub(super) fn name(self) -> &'static str {
        match self {
            Place::Header => "a header",
            Place::Query => "the query",
            Place::Path => "the path",
            Place::Body => "the body",
            Place::Trailer => "a trailer",
        }
    }
}

/// A placeholder where no value may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stray {
    /// Name of the credential as it was written.
    pub(super) name: String,
    pub(super) why: Why,
}

/// Why a placeholder stays one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// No credential has that name.
    Unknown,
    /// It may not go with this request.
    Elsewhere,
    /// Not into this part of it.
    Place(Place),
    /// What came of it would mean something else than a value.
    Meaning,
    /// It is one too many.
    Many,
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, why } = self;
        match why {
            Why::Unknown => write!(f, "there is no credential `{name}`"),
            Why::Elsewhere => write!(f, "credential `{name}` may not go with this request"),
            Why::Place(place) => write!(f, "credential `{name}` is not put into {}", place.name()),
            Why::Meaning => write!(f, "the value of credential `{name}` would change what the request means"),
            Why::Many => write!(f, "credential `{name}` is in a head with more than {MANY} placeholders"),
        }
    }
}

/// A placeholder in bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) at: Range<usize>,
    name: Range<usize>,
}

impl Found {
    pub(super) fn name<'a>(&self, bytes: &'a [u8]) -> &'a str {
        // The characters of names are ASCII.
        std::str::from_utf8(&bytes[self.name.clone()]).unwrap_or_default()
    }
}

/// How many placeholders may be in those bytes, at the most.
pub(super) fn at_most(bytes: &[u8]) -> usize {
    memmem::find_iter(bytes, BEFORE.as_bytes()).count()
}

/// Finds the first placeholder, of whatever name.
pub(super) fn find(bytes: &[u8]) -> Option<Found> {
    let mut from = 0;
    while let Some(offset) = memmem::find(&bytes[from..], BEFORE.as_bytes()) {
        let start = from + offset;
        let name = start + BEFORE.len();
        let length = name_length(&bytes[name..]);
        if length > 0 && bytes[name + length..].starts_with(AFTER.as_bytes()) {
            return Some(Found { at: start..name + length + AFTER.len(), name: name..name + length });
        }
        from = name;
    }
    None
}

/// The first placeholder in trailers, where no value may stand.
pub(super) fn in_trailers(trailers: &HeaderMap) -> Option<Stray> {
    let texts = trailers.iter().flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()]);
    let mut found = texts.filter_map(|text| find(text).map(|found| found.name(text).to_owned()));
    found.next().map(|name| Stray { name, why: Why::Place(Place::Trailer) })
}

/// Where the end of the bytes may be the beginning of a placeholder.
pub(super) fn unfinished(bytes: &[u8]) -> usize {
    let longest = BEFORE.len() + LONGEST_NAME + AFTER.len() - 1;
    let first = bytes.len().saturating_sub(longest);
    let begins = |tail: &[u8]| match tail.strip_prefix(BEFORE.as_bytes()) {
        None => BEFORE.as_bytes().starts_with(tail),
        Some(tail) => {
            let rest = &tail[name_length(tail)..];
            rest.is_empty() || AFTER.as_bytes().starts_with(rest)
        }
    };
    (first..bytes.len()).find(|at| begins(&bytes[*at..])).unwrap_or(bytes.len())
}

/// How many bytes of a name stand at the beginning.
fn name_length(bytes: &[u8]) -> usize {
    bytes.iter().take(LONGEST_NAME).take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count()
}

/// The secrets of a sandbox as one request may use them.
#[derive(Clone, Copy)]
pub(super) struct Usable<'a> {
    pub(super) all: &'a [Secret],
    /// Which of them may go with it, in the order of `all`.
    pub(super) here: &'a [bool],
}

impl<'a> Usable<'a> {
    /// Looks up a placeholder by its name.
    pub(super) fn secret(&self, name: &str, place: Place) -> Result<(usize, &'a Secret), Stray> {
        let stray = |why| Stray { name: name.to_owned(), why };
        let index = self.all.iter().position(|secret| secret.credential.name.as_str() == name);
        let index = index.ok_or_else(|| stray(Why::Unknown))?;
        let secret = &self.all[index];
        if !self.here.get(index).copied().unwrap_or_default() {
            return Err(stray(Why::Elsewhere));
        }
        let places = secret.credential.places;
        let may = match place {
            Place::Header => places.header,
            Place::Query => places.query,
            Place::Path => places.path,
            Place::Body => places.body,
            Place::Trailer => false,
        };
        if may { Ok((index, secret)) } else { Err(stray(Why::Place(place))) }
    }

    /// Puts values in for all placeholders; `None` where there is none. Says which were put in.
    pub(super) fn put_in(
        &self,
        bytes: &[u8],
        place: Place,
        escape: Escape,
        used: &mut Vec<usize>,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Stray> {
        let mut pieces: Vec<(Range<usize>, Zeroizing<Vec<u8>>)> = Vec::new();
        let mut from = 0;
        while let Some(found) = find(&bytes[from..]) {
            let (index, secret) = self.secret(found.name(&bytes[from..]), place)?;
            used.push(index);
            if used.len() > MANY {
                return Err(Stray { name: secret.credential.name.to_string(), why: Why::Many });
            }
            pieces.push((from + found.at.start..from + found.at.end, secret.escaped(escape)));
            from += found.at.end;
        }
        if pieces.is_empty() {
            return Ok(None);
        }
        let length = bytes.len() + pieces.iter().map(|(_, value)| value.len()).sum::<usize>();
        let mut out = Zeroizing::new(Vec::with_capacity(length));
        let mut from = 0;
        for (at, value) in &pieces {
            out.extend_from_slice(&bytes[from..at.start]);
            out.extend_from_slice(value);
            from = at.end;
        }
        out.extend_from_slice(&bytes[from..]);
        Ok(Some(out))
    }

    /// Puts values into the user and password of `Authorization: Basic`; `None` where there is no placeholder, or no Basic.
    pub(super) fn put_in_basic(
        &self,
        value: &[u8],
        used: &mut Vec<usize>,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Stray> {
        let Some((scheme, token)) = basic(value) else { return Ok(None) };
        let Ok(pair) = LENIENT.decode(token) else { return Ok(None) };
        let Some(first) = find(&pair) else { return Ok(None) };
        let Some(plain) = self.put_in(&pair, Place::Header, Escape::None, used)? else { return Ok(None) };
        // The first colon parts user and password (RFC 7617): a value must not move it.
        let colon = |bytes: &[u8]| memchr::memchr(b':', bytes);
        let moved = match colon(&pair) {
            Some(at) => {
                let user = self.put_in(&pair[..at], Place::Header, Escape::None, &mut Vec::new())?;
                user.is_some_and(|user| colon(&user).is_some())
            }
            None => colon(&plain).is_some() && pair.len() != first.at.len(),
        };
        if moved {
            return Err(Stray { name: first.name(&pair).to_owned(), why: Why::Meaning });
        }
        let encoded = Zeroizing::new(STANDARD.encode(&plain));
        let mut out = Zeroizing::new(Vec::with_capacity(scheme.len() + encoded.len()));
        out.extend_from_slice(scheme);
        out.extend_from_slice(encoded.as_bytes());
        Ok(Some(out))
    }
}

/// Some clients leave the padding out.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Parts `Basic TOKEN` in two, the blank with the first.
pub(super) fn basic(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = memchr::memchr(b' ', value)?;
    if !value[..space].eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let token = space + value[space..].iter().take_while(|byte| **byte == b' ').count();
    Some((&value[..token], value[token..].trim_ascii_end()))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::proxy) fn secret(text: &str, value: &str) -> Secret {
        Secret::new(text.parse().unwrap(), value.as_bytes().to_vec()).unwrap()
    }

    fn put(bytes: &str, value: &str, escape: Escape) -> Result<Option<String>, Stray> {
        let all = [secret("T=env:T,to=a.example,in=header+body", value), secret("U=env:U,to=b.example", "other")];
        let usable = Usable { all: &all, here: &[true, false] };
        let put = usable.put_in(bytes.as_bytes(), Place::Header, escape, &mut Vec::new())?;
        Ok(put.map(|put| String::from_utf8(put.to_vec()).unwrap()))
    }

    #[test]
    fn values_that_could_write_headers_are_refused() {
        let new = |value: &str| Secret::new("T=env:T,to=a".parse().unwrap(), value.as_bytes().to_vec()).unwrap_err();
        for value in ["a\r\nX: y", "a\n", "\0", "a\tb", "\u{7f}"] {
            assert_eq!(new(value), SecretError::Control, "{value:?}");
        }
        assert_eq!(new(""), SecretError::Empty);
        assert_eq!(new(&"x".repeat(16 * 1024 + 1)), SecretError::TooLong);
        assert!(!format!("{:?}", secret("T=env:T,to=a", "s3cr3t")).contains("s3cr3t"));
    }

    #[test]
    fn placeholders_are_found_wherever_they_stand() {
        assert_eq!(put("Bearer ringfence-T-secret", "v", Escape::None).unwrap().unwrap(), "Bearer v");
        assert_eq!(put("xringfence-T-secretxringfence-T-secret", "v", Escape::None).unwrap().unwrap(), "xvxv");
        assert_eq!(put("ringfence-ringfence-T-secret", "v", Escape::None).unwrap().unwrap(), "ringfence-v");
        // A value that looks like a placeholder is a value.
        assert_eq!(
            put("ringfence-T-secret", "ringfence-U-secret", Escape::None).unwrap().unwrap(),
            "ringfence-U-secret"
        );
        for none in ["", "ringfence-T-secre", "ringfence--secret", "ringfence-T-Secret", "Ringfence-T-secret"] {
            assert_eq!(put(none, "v", Escape::None).unwrap(), None, "{none}");
        }
        let why = |text: &str| put(text, "v", Escape::None).unwrap_err().why;
        assert_eq!(why("ringfence-X-secret"), Why::Unknown);
        assert_eq!(why("ringfence-T-secret ringfence-U-secret"), Why::Elsewhere);
    }

    #[test]
    fn a_head_has_room_for_so_many() {
        let text = |count: usize| "ringfence-T-secret".repeat(count);
        assert_eq!(put(&text(MANY), "v", Escape::None).unwrap().unwrap(), "v".repeat(MANY));
        assert_eq!(put(&text(MANY + 1), "v", Escape::None).unwrap_err().why, Why::Many);
    }

    #[test]
    fn escapes_are_those_of_the_place() {
        let value = "a/b?c=d&e%f\"g\\h i\u{e4}";
        assert_eq!(
            put("ringfence-T-secret", value, Escape::Percent).unwrap().unwrap(),
            "a%2Fb%3Fc%3Dd%26e%25f%22g%5Ch%20i%C3%A4"
        );
        let json = put("{\"a\":\"ringfence-T-secret\"}", value, Escape::Json).unwrap().unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["a"], value);
    }

    #[test]
    fn basic_is_decoded_and_encoded_again() {
        let all = [secret("T=env:T,to=a.example", "p:w")];
        let usable = Usable { all: &all, here: &[true] };
        let basic = |pair: &str| {
            let value = format!("basic  {}", STANDARD.encode(pair));
            usable.put_in_basic(value.as_bytes(), &mut Vec::new()).map(|put| {
                put.map(|put| {
                    let (scheme, token) = super::basic(&put).unwrap();
                    assert_eq!(scheme, b"basic  ");
                    String::from_utf8(STANDARD.decode(token).unwrap()).unwrap()
                })
            })
        };
        assert_eq!(basic("alice:ringfence-T-secret").unwrap().unwrap(), "alice:p:w");
        assert_eq!(basic("alice:s").unwrap(), None);
        // In the place of the user it would become user and password.
        assert_eq!(basic("ringfence-T-secret:x").unwrap_err().why, Why::Meaning);
        // A whole `user:password` in one credential is meant so.
        assert_eq!(basic("ringfence-T-secret").unwrap().unwrap(), "p:w");
        assert_eq!(basic("xringfence-T-secret").unwrap_err().why, Why::Meaning);
        assert_eq!(usable.put_in_basic(b"Basic !!!", &mut Vec::new()).unwrap(), None);
        assert_eq!(usable.put_in_basic(b"Bearer x", &mut Vec::new()).unwrap(), None);
        let bare = format!("Basic {}", STANDARD.encode("a:ringfence-T-secret").trim_end_matches('='));
        assert!(usable.put_in_basic(bare.as_bytes(), &mut Vec::new()).unwrap().is_some());
    }

    proptest! {
        /// Cut anywhere, what comes before the cut and may not be sent yet is told, and nothing else is held.
        #[test]
        fn a_cut_placeholder_is_held(before in "[a-z-]{0,20}", cut in 0usize..=18) {
            let whole = "ringfence-T-secret";
            let text = format!("{before}{}", &whole[..cut]);
            let held = unfinished(text.as_bytes());
            if cut > 0 && cut < whole.len() {
                prop_assert!(held <= before.len(), "{text} {held}");
            }
            prop_assert!(text.len() - held <= 80);
        }
    }
}
