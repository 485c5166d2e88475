//! How the command runs: as whom, with what, under which name.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::authority::{Reason, number};
use super::origin::part;
use super::{
    Capabilities, EventsFormat, EventsTo, FilePath, LandlockMode, LearnTo, MetricsTo, Origin, PolicyError, SeccompMode,
    Sourced,
};

/// User and group that the command runs as, by number: names may differ between the host and an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct User {
    /// User.
    pub uid: u32,
    /// Group; the user's own, as `/etc/passwd` has it, where none was given.
    pub gid: Option<u32>,
}

impl FromStr for User {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        // The highest number means "no change" to setresuid(2), and would leave root in place. The user below it, where there is that one,
        // owns the user namespaces of sandboxes.
        const LAST: u32 = u32::MAX - 1;
        let id = |text: &str, last: u32| match number(text) {
            Some(id) if id <= last => Ok(id),
            _ => Err(format!("{} is no number from 0 to {last}", part(text))),
        };
        let (uid, gid) = match text.split_once(':') {
            Some((uid, gid)) => (uid, Some(gid)),
            None => (text, None),
        };
        match (id(uid, LAST - 1), gid.map(|gid| id(gid, LAST)).transpose()) {
            (Ok(uid), Ok(gid)) => Ok(Self { uid, gid }),
            (Err(reason), _) | (_, Err(reason)) => Err(PolicyError::new("a user `UID[:GID]`", text).because(reason)),
        }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.uid)?;
        self.gid.map_or(Ok(()), |gid| write!(f, ":{gid}"))
    }
}

/// One variable of the command's environment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct EnvVar {
    /// Name, without `=` and control characters.
    pub name: String,
    /// Value, without NUL; may be empty.
    pub value: String,
}

impl EnvVar {
    /// Pairs a name and a value.
    ///
    /// # Errors
    /// A name that is empty or has `=` or a control character, and a value with NUL. The value is not quoted: it may be
    /// a secret.
    pub fn new(name: &str, value: &str) -> Result<Self, PolicyError> {
        let refuse = |reason: &str| Err(PolicyError::new("a variable `NAME=VALUE`", name).because(reason));
        if name.is_empty() {
            return refuse("the name is empty");
        }
        if name.contains('=') || name.contains(char::is_control) {
            return refuse("a name has neither `=` nor control characters");
        }
        if value.contains('\0') {
            return refuse("its value has a NUL");
        }
        Ok(Self { name: name.into(), value: value.into() })
    }
}

impl FromStr for EnvVar {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        match text.split_once('=') {
            Some((name, value)) => Self::new(name, value),
            None => Err(PolicyError::new("a variable `NAME=VALUE`", text).because("the `=` is missing")),
        }
    }
}

impl fmt::Display for EnvVar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

/// Name of a sandbox: 1 to 64 letters, digits, `.`, `_` and `-`, neither `.` nor `-` first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct SandboxName(String);

impl SandboxName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn read(text: &str) -> Result<Self, Reason> {
        const LONGEST: usize = 64;
        if text.is_empty() {
            return Err("it is empty".into());
        }
        if let Some(stray) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-')) {
            return Err(format!("`{stray}` is none of letters, digits, `.`, `_` and `-`"));
        }
        if text.len() > LONGEST {
            return Err(format!("it has {} characters, and {LONGEST} are the most", text.len()));
        }
        if text.starts_with(['.', '-']) {
            return Err("it starts with `.` or `-`".into());
        }
        Ok(Self(text.into()))
    }
}

impl FromStr for SandboxName {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Self::read(text).map_err(|reason| PolicyError::new("a name for a sandbox", text).because(reason))
    }
}

impl fmt::Display for SandboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How the command runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunOptions {
    /// As whom; as the caller where nobody said.
    pub user: Option<Sourced<User>>,
    /// Variables to set, each name once.
    pub env: Vec<Sourced<EnvVar>>,
    /// What it may do.
    pub capabilities: Sourced<Capabilities>,
    /// What the sandbox is called.
    pub name: Option<Sourced<SandboxName>>,
    /// Whether it stays in the PID namespace of the caller.
    pub share_pid: Sourced<bool>,
    /// Whether Landlock keeps it from files; where nobody said, whether paths were named decides.
    pub landlock: Option<Sourced<LandlockMode>>,
    /// What it may read, besides what ordinary programs need.
    pub ro: Vec<Sourced<FilePath>>,
    /// What it may write, besides the working directory and what ordinary programs need.
    pub rw: Vec<Sourced<FilePath>>,
    /// Which system calls are refused.
    pub seccomp: Sourced<SeccompMode>,
    /// Where events go; nowhere where nobody said.
    pub events: Option<Sourced<EventsTo>>,
    /// In which words.
    pub events_format: Sourced<EventsFormat>,
    /// Where metrics are found; nowhere where nobody said.
    pub metrics: Option<Sourced<MetricsTo>>,
    /// Where the policy is written that an audit has learned; nowhere where nobody said.
    pub learn: Option<Sourced<LearnTo>>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            user: None,
            env: Vec::new(),
            capabilities: Sourced::new(Capabilities::Default, Origin::Default),
            name: None,
            share_pid: Sourced::new(false, Origin::Default),
            landlock: None,
            ro: Vec::new(),
            rw: Vec::new(),
            seccomp: Sourced::new(SeccompMode::default(), Origin::Default),
            events: None,
            events_format: Sourced::new(EventsFormat::default(), Origin::Default),
            metrics: None,
            learn: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        for (text, uid, gid) in [
            ("0", 0, None),
            ("1000", 1000, None),
            ("1000:100", 1000, Some(100)),
            ("4294967293:4294967294", u32::MAX - 2, Some(u32::MAX - 1)),
        ] {
            assert_eq!(text.parse::<User>().unwrap(), User { uid, gid });
        }
        for (text, culprit, last) in [
            ("", "", 3),
            ("nobody", "nobody", 3),
            ("1000:", "", 4),
            (":1000", "", 3),
            ("1:2:3", "2:3", 4),
            ("-1", "-1", 3),
            ("+1", "+1", 3),
            ("01", "01", 3),
            ("4294967294", "4294967294", 3),
            ("4294967295", "4294967295", 3),
            ("0:4294967295", "4294967295", 4),
            ("4294967296", "4294967296", 3),
        ] {
            let reason = format!("`{culprit}` is no number from 0 to 429496729{last}");
            assert_eq!(text.parse::<User>().unwrap_err().reason, Some(reason), "{text}");
        }
    }

    #[test]
    fn variables_have_a_name() {
        for (text, name, value) in
            [("A=b", "A", "b"), ("A=", "A", ""), ("A=b=c", "A", "b=c"), ("a.b-c=x\ny", "a.b-c", "x\ny")]
        {
            assert_eq!(text.parse::<EnvVar>().unwrap(), EnvVar { name: name.into(), value: value.into() });
        }
        for (text, found, reason) in [
            ("", "", "the `=` is missing"),
            ("A", "A", "the `=` is missing"),
            ("=secret", "", "the name is empty"),
            ("A\n=secret", "A\n", "a name has neither `=` nor control characters"),
            ("A=secret\0", "A", "its value has a NUL"),
        ] {
            let error = text.parse::<EnvVar>().unwrap_err();
            assert_eq!((error.found.as_str(), error.reason.as_deref()), (found, Some(reason)), "{text}");
        }
        assert!(EnvVar::new("A=B", "").is_err());
    }

    #[test]
    fn sandboxes_have_plain_names() {
        let longest = "a".repeat(64);
        for text in ["a", "A-1_b.c", "_x", "9", &longest] {
            assert_eq!(text.parse::<SandboxName>().unwrap().as_str(), text);
        }
        for (text, reason) in [
            ("", "it is empty"),
            (".", "it starts with `.` or `-`"),
            ("..", "it starts with `.` or `-`"),
            ("-a", "it starts with `.` or `-`"),
            ("a/b", "`/` is none of letters, digits, `.`, `_` and `-`"),
            ("a b", "` ` is none of letters, digits, `.`, `_` and `-`"),
            ("ä", "`ä` is none of letters, digits, `.`, `_` and `-`"),
            (&"a".repeat(65), "it has 65 characters, and 64 are the most"),
        ] {
            assert_eq!(text.parse::<SandboxName>().unwrap_err().reason.as_deref(), Some(reason), "{text}");
        }
    }
}
