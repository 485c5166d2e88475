//! Secrets that the program never holds: what each is called, where its value comes from, where it may go.
//!
//! A program finds a placeholder in the variable of the credential's name. The built-in proxy puts the value in its place in
//! requests to the destinations named here. Nothing in this module ever holds a value.

use std::fmt;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

use super::origin::part;
use super::words::words;
use super::{AllowEntry, Host, PolicyError, Scheme};

/// What every placeholder begins with.
pub(crate) const BEFORE: &str = "ringfence-";
/// What every placeholder ends with.
pub(crate) const AFTER: &str = "-secret";
/// Longest name of a credential.
pub(crate) const LONGEST_NAME: usize = 64;

/// One secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Credential {
    /// Its name, and that of the variable in which the program finds the placeholder.
    pub name: CredentialName,
    /// Where its value comes from.
    pub from: SecretSource,
    /// Where it may go. An entry without a rule means requests over TLS, and without a port means port 443.
    pub to: Vec<AllowEntry>,
    /// The parts of a request in which the placeholder is looked for.
    pub places: Places,
}

impl Credential {
    /// Whether its value may go out with that request.
    pub fn may_go(&self, scheme: Scheme, host: &Host, port: u16, method: &str, path: &str) -> bool {
        self.to.iter().any(|entry| {
            entry.matches(host, port)
                && match &entry.rule {
                    Some(rule) => rule.matches(scheme, method, path),
                    None => scheme == Scheme::Https,
                }
        })
    }

    /// What the program holds in its place: letters that mean the same everywhere in HTTP, escaped or not.
    pub fn placeholder(&self) -> String {
        format!("{BEFORE}{}{AFTER}", self.name)
    }

    /// Makes one of its parts as text.
    ///
    /// # Errors
    /// A part that does not parse, an empty `to`.
    pub(super) fn from_parts(name: &str, from: &str, to: &[&str], places: &[&str]) -> Result<Self, PolicyError> {
        let name = name.parse()?;
        let from = from.parse()?;
        let mut destinations = Vec::new();
        for text in to {
            let mut entry: AllowEntry = text.parse()?;
            if entry.rule.is_none() && entry.port.is_none() {
                entry.port = NonZeroU16::new(Scheme::Https.port());
            }
            destinations.push(entry);
        }
        if destinations.is_empty() {
            return Err(PolicyError::new(EXPECTED, format!("{name}")).because("`to` is missing: where may it go?"));
        }
        let places = if places.is_empty() { Places::default() } else { Places::read(places)? };
        Ok(Self { name, from, to: destinations, places })
    }
}

/// What is due where a credential stands.
pub(super) const EXPECTED: &str = "a credential `NAME=env:VARIABLE|file:PATH|command:PROGRAM ARG…,to=HOST[:PORT],…`";

impl FromStr for Credential {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let wrong = |reason: String| PolicyError::new(EXPECTED, part_of(text)).because(reason);
        let mut pieces = text.split(',');
        let (name, from) = pieces
            .next()
            .and_then(|piece| piece.split_once('='))
            .ok_or_else(|| wrong("the `=` behind the name is missing".into()))?;
        let (mut to, mut places) = (Vec::new(), Vec::new());
        for piece in pieces {
            match piece.trim_ascii().split_once('=') {
                Some(("to", entry)) => to.push(entry.trim_ascii()),
                Some(("in", list)) => places.extend(list.split('+').map(str::trim_ascii)),
                _ => return Err(wrong(format!("{} is neither `to=…` nor `in=…`", part(piece)))),
            }
        }
        Self::from_parts(name.trim_ascii(), from.trim_ascii(), &to, &places)
    }
}

/// What of a text may be shown when it is no credential: somebody may have written the secret itself behind the name.
fn part_of(text: &str) -> String {
    match text.split_once('=') {
        Some((name, _)) => format!("{name}=…"),
        None => "…".to_owned(),
    }
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.from)?;
        self.to.iter().try_for_each(|entry| write!(f, ",to={entry}"))?;
        write!(f, ",in={}", self.places)
    }
}

/// Name of a credential: a variable's as a shell takes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct CredentialName(String);

impl CredentialName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CredentialName {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        let all = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !first || !all || text.len() > LONGEST_NAME {
            let reason = format!(
                "letters, digits and `_`, no digit first, {LONGEST_NAME} at most: it is the name of a variable"
            );
            return Err(PolicyError::new("the name of a credential", text).because(reason));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretSource {
    /// A variable of the supervisor's own environment.
    Env(String),
    /// A file; one line end at its end is not part of the value.
    File(PathBuf),
    /// What a program writes to its standard output, run once; one line end at the end is not part of the value.
    Command(Vec<String>),
}

impl FromStr for SecretSource {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        // Not quoted: who forgets the `env:` has most likely written the secret itself.
        let wrong = |reason: &str| {
            PolicyError::new("the source of a secret `env:VARIABLE`, `file:PATH` or `command:PROGRAM ARG…`", "…")
                .because(reason)
        };
        let (kind, what) =
            text.split_once(':').ok_or_else(|| wrong("a secret is not written into the policy itself"))?;
        if what.trim_ascii().is_empty() || what.contains(char::is_control) {
            return Err(wrong("nothing, or a control character, stands behind the `:`"));
        }
        match kind {
            "env" if what.contains('=') => Err(wrong("a variable's name has no `=`")),
            "env" => Ok(Self::Env(what.to_owned())),
            "file" => Ok(Self::File(what.into())),
            "command" => Ok(Self::Command(what.split_ascii_whitespace().map(str::to_owned).collect())),
            _ => Err(wrong("it begins with none of the three")),
        }
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Command(words) => write!(f, "command:{}", words.join(" ")),
        }
    }
}

/// The parts of a request in which a placeholder is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Places {
    /// Values of header fields, inside the base64 of `Authorization: Basic` too.
    pub header: bool,
    /// The query.
    pub query: bool,
    /// The path.
    pub path: bool,
    /// The body.
    pub body: bool,
}

impl Default for Places {
    /// All but the body.
    fn default() -> Self {
        Self { header: true, query: true, path: true, body: false }
    }
}

impl Places {
    /// Those that it has, each by its word.
    pub(super) fn words(self) -> impl Iterator<Item = &'static str> {
        let all = [(self.header, "header"), (self.query, "query"), (self.path, "path"), (self.body, "body")];
        all.into_iter().filter_map(|(on, word)| on.then_some(word))
    }

    fn read(words: &[&str]) -> Result<Self, PolicyError> {
        let mut places = Self { header: false, query: false, path: false, body: false };
        for word in words {
            match *word {
                "header" => places.header = true,
                "query" => places.query = true,
                "path" => places.path = true,
                "body" => places.body = true,
                other => return Err(PolicyError::new("`header`, `query`, `path` or `body`", other)),
            }
        }
        Ok(places)
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().collect::<Vec<_>>().join("+"))
    }
}

/// What is done about tunnels that the proxy does not look into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SniCheck {
    /// A TLS client must ask for the very name that the tunnel was opened to, or for none.
    #[default]
    Check,
    /// It may ask for any.
    Any,
}

words! { SniCheck, "`check` or `any`":
    "check" => Check,
    "any" => Any,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(text: &str) -> Result<Credential, String> {
        text.parse().map_err(|error: PolicyError| error.to_string())
    }

    #[test]
    fn what_is_said_is_shown() {
        for (text, shown) in [
            ("T=env:X,to=a.example", "T=env:X,to=a.example:443,in=header+query+path"),
            (
                "T=file:/run/t, to=a.example:8443, to=GET https://b.example/v1/*, in=body+header",
                "T=file:/run/t,to=a.example:8443,to=GET https://b.example:443/v1/*,in=header+body",
            ),
            (
                "_9=command:gh auth  token,to=*.a.example",
                "_9=command:gh auth token,to=*.a.example:443,in=header+query+path",
            ),
        ] {
            let read = credential(text).unwrap();
            assert_eq!(read.to_string(), shown);
            assert_eq!(credential(shown).unwrap(), read);
        }
        assert_eq!(credential("A_B=env:X,to=a.example").unwrap().placeholder(), "ringfence-A_B-secret");
    }

    #[test]
    fn an_error_never_quotes_what_may_be_the_secret() {
        for text in [
            "T=s3cr3t",
            "T=s3cr3t,to=a.example",
            "s3cr3t",
            "T=env:s3cr3t=x,to=a.example",
            "T=env:,to=a.example",
            "T=pass:s3cr3t,to=a.example",
        ] {
            let error = credential(text).unwrap_err();
            assert!(!error.contains("s3cr3t"), "{error}");
        }
        for (text, why) in [
            ("T=env:X", "`to` is missing"),
            ("9T=env:X,to=a.example", "no digit first"),
            ("T=env:X,to=a.example,at=b", "neither `to=…` nor `in=…`"),
            ("T=env:X,to=https://a.example/", "a host is due here"),
            ("T=env:X,to=a.example,in=cookie", "`cookie` is not `header`"),
        ] {
            let error = credential(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn in_the_clear_only_where_a_rule_says_so() {
        let credential = credential("T=env:X,to=a.example,to=GET http://b.example/*,to=c.example:80").unwrap();
        let goes =
            |scheme, host: &str, port, method| credential.may_go(scheme, &host.parse().unwrap(), port, method, "/x");
        assert!(goes(Scheme::Https, "a.example", 443, "PUT"));
        assert!(!goes(Scheme::Https, "a.example", 8443, "GET"));
        assert!(!goes(Scheme::Http, "a.example", 443, "GET"));
        assert!(goes(Scheme::Http, "b.example", 80, "GET"));
        assert!(!goes(Scheme::Http, "b.example", 80, "POST"));
        assert!(!goes(Scheme::Https, "b.example", 80, "GET"));
        assert!(!goes(Scheme::Http, "c.example", 80, "GET") && goes(Scheme::Https, "c.example", 80, "GET"));
    }
}
