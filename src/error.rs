//! One error for the whole crate, opaque, with a kind to decide by and a chain of causes to show.

use std::error::Error as StdError;
use std::fmt;

/// What went wrong, as far as a caller can act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The policy (a flag, a variable, a file) says something that cannot be.
    Policy,
    /// A privilege is missing.
    Privilege,
    /// The kernel was asked and does not have it.
    Unsupported,
    /// Something of that name or address is there already, or somebody changed it meanwhile.
    Conflict,
    /// Everything of a bounded supply is in use.
    Exhausted,
    /// The kernel refused.
    Kernel,
    /// Bytes that should be a message of the kernel's are not.
    Decode,
    /// What the kernel holds is not what was committed.
    Verify,
    /// Somebody else changed the rules of a fence, and the sandbox was ended for it.
    Tampered,
    /// The command could not be started, or was lost.
    Child,
    /// A name could not be resolved.
    Resolve,
    /// Anything else of the operating system's.
    Io,
}

/// The crate's error.
///
/// `Display` is one lowercase clause without its source; walk [`source`](StdError::source) for the rest, or use
/// [`Error::chain`].
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    what: String,
    hint: Option<String>,
    operation: Option<usize>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Result with the crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of that kind; `what` is one lowercase clause that names the value that was wrong.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, what: what.into(), hint: None, operation: None, source: None }))
    }

    /// Adds the cause.
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds what the user can do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds which operation of a transaction was refused.
    pub(crate) fn at(mut self, operation: Option<usize>) -> Self {
        self.0.operation = operation;
        self
    }

    /// What became of steps that were all taken, whatever became of the others: of several errors the first, with all others as its text's end.
    #[cfg(feature = "sandbox")]
    pub(crate) fn all(outcomes: impl IntoIterator<Item = Result<()>>) -> Result<()> {
        let mut errors = outcomes.into_iter().filter_map(Result::err);
        let Some(mut first) = errors.next() else { return Ok(()) };
        let others: Vec<String> = errors.map(|error| error.chain()).collect();
        if !others.is_empty() {
            // The first one's cause would stand behind the others.
            let what = format!("{}; and {}", first.chain(), others.join("; and "));
            (first.0.what, first.0.hint, first.0.source) = (what, first.advice().map(str::to_owned), None);
        }
        Err(first)
    }

    /// What to decide by.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What the user can do about it: of this error, or of the nearest cause that has one.
    pub fn advice(&self) -> Option<&str> {
        self.0.hint.as_deref().or_else(|| self.0.source.as_ref()?.downcast_ref::<Error>()?.advice())
    }

    /// Of a transaction that was refused: the index of the operation that it was refused for, where one is to blame.
    pub fn operation(&self) -> Option<usize> {
        self.0.operation
    }

    /// The error and its causes, joined by `: ` on one line.
    ///
    /// A path, a program's name or another value that is quoted may come from anybody: control characters and direction marks
    /// are escaped, so that it can't move the cursor of the terminal that shows it, or start a line of its own.
    pub fn chain(&self) -> String {
        let mut line = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&error.to_string());
            cause = error.source();
        }
        one_line(&line)
    }
}

/// Escapes what would not stay on its line, and nothing else: what a parser has escaped already stays as it is.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        // Of the printable ones, `escape_debug` escapes these three alone.
        if matches!(character, '\'' | '"' | '\\') {
            line.push(character);
        } else {
            line.extend(character.escape_debug());
        }
    }
    line
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.chain())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| source.as_ref() as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_one_line_and_advice_is_found_below() {
        let inner = Error::new(ErrorKind::Privilege, "operation not permitted").hint("run it with sudo");
        let outer = Error::new(ErrorKind::Kernel, "can't make a veth pair").because(inner);
        assert_eq!(outer.chain(), "can't make a veth pair: operation not permitted");
        assert_eq!(outer.advice(), Some("run it with sudo"));
        assert_eq!(outer.kind(), ErrorKind::Kernel);
    }

    #[cfg(feature = "sandbox")]
    #[test]
    fn of_several_errors_all_are_told() {
        let error = |what: &str| Err(Error::new(ErrorKind::Kernel, what).because(std::io::Error::other("why")));
        assert!(Error::all([Ok(()), Ok(())]).is_ok());
        assert_eq!(Error::all([Ok(()), error("a")]).unwrap_err().chain(), "a: why");
        let all = Error::all([error("a"), Ok(()), error("b"), error("c")]).unwrap_err();
        assert_eq!((all.kind(), all.chain()), (ErrorKind::Kernel, "a: why; and b: why; and c: why".to_owned()));
    }

    #[test]
    fn the_chain_stays_on_its_line_whatever_is_quoted() {
        let inner = std::io::Error::other("second\r\nline");
        let error = Error::new(ErrorKind::Io, "can't read `a\u{1b}[2J\u{202e}\\\"'ä`").because(inner);
        assert_eq!(error.chain(), r#"can't read `a\u{1b}[2J\u{202e}\"'ä`: second\r\nline"#);
    }
}
