//! Where a value came from, and the error that says so.

use std::fmt::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

/// Where a value of the policy came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A command-line flag, with its dashes.
    Flag(String),
    /// An environment variable.
    Variable(String),
    /// A place in a policy file. Line and column count from 1.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// Line.
        line: usize,
        /// Column, in characters.
        column: usize,
    },
    /// A call of the library.
    Api,
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(flag) => f.write_str(flag),
            Origin::Variable(name) => f.write_str(name),
            Origin::File { path, line, column } => {
                write!(f, "{}:{line}:{column}", Line(&path.to_string_lossy(), usize::MAX))
            }
            Origin::Api => f.write_str("the caller"),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub origin: Origin,
}

impl<T> Sourced<T> {
    /// Pairs the two.
    pub fn new(value: T, origin: Origin) -> Self {
        Self { value, origin }
    }
}

/// A value that cannot be.
///
/// Shown on one line as ``ORIGIN: `FOUND` is not EXPECTED``, then ` (REASON)`. Control characters, line ends and
/// direction marks are escaped and long values cut, so that a hostile value can't move the cursor of the terminal that
/// shows the error. Credentials never get in here: the parsers that read them take them out of `found` first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// Where it stood.
    pub origin: Origin,
    /// What should have stood there: `a host`, `a port from 1 to 65535`.
    pub expected: String,
    /// What stood there.
    pub found: String,
    /// More, where the two do not say it all.
    pub reason: Option<String>,
}

impl PolicyError {
    pub(super) fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { origin: Origin::Api, expected: expected.into(), found: redacted(found.into()), reason: None }
    }

    pub(super) fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Says where the value stood. The parsers don't know and say [`Origin::Api`].
    pub fn at(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}` is not {}", self.origin, Line(&self.found, 120), Line(&self.expected, 400))?;
        match &self.reason {
            Some(reason) => write!(f, " ({})", Line(reason, 400)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for PolicyError {}

impl From<PolicyError> for crate::Error {
    fn from(error: PolicyError) -> Self {
        crate::Error::new(crate::ErrorKind::Policy, error.to_string())
    }
}

/// Text of anybody's as at most so many characters of one line.
struct Line<'a>(&'a str, usize);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut characters = self.0.chars();
        for character in characters.by_ref().take(self.1) {
            match character {
                '\'' | '"' => f.write_char(character)?,
                other => write!(f, "{}", other.escape_debug())?,
            }
        }
        if characters.next().is_some() { f.write_char('…') } else { Ok(()) }
    }
}

/// What stands where credentials were. No URL that parses has these characters, so it never goes back in by mistake.
pub(super) const REDACTED: &str = "<redacted>";

/// Takes out what stands between `://` and the last `@`: a URL may have been given for anything.
fn redacted(found: String) -> String {
    match found.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?))) {
        Some((scheme, (_, host))) => format!("{scheme}://{REDACTED}@{host}"),
        None => found,
    }
}

/// Part of a value, cut to where it can stand in a reason.
pub(super) fn part(text: &str) -> String {
    const LONGEST: usize = 64;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_whatever_it_quotes() {
        let origin = Origin::File { path: "a\nb.toml".into(), line: 3, column: 9 };
        let error = PolicyError::new("a host", "x\u{1b}[2J\n\u{202e}\"y'\\").because("because\r\nof it").at(origin);
        assert_eq!(error.to_string(), r#"a\nb.toml:3:9: `x\u{1b}[2J\n\u{202e}"y'\\` is not a host (because\r\nof it)"#);
    }

    #[test]
    fn a_long_value_is_cut() {
        let error = PolicyError::new("a host", "ä".repeat(1 << 20)).because(part(&"b".repeat(1 << 20)));
        assert_eq!(
            error.to_string(),
            format!("the caller: `{}…` is not a host (`{}…`)", "ä".repeat(120), "b".repeat(64))
        );
    }

    #[test]
    fn it_is_a_policy_error_of_the_crates() {
        let error = crate::Error::from(PolicyError::new("a host", "-").at(Origin::Flag("--allow".into())));
        assert_eq!(error.kind(), crate::ErrorKind::Policy);
        assert_eq!(error.to_string(), "--allow: `-` is not a host");
    }
}
