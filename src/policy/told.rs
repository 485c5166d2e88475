//! Where events and metrics go, and in which words.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

use super::PolicyError;
use super::authority::Reason;
use super::words::words;

/// Where events go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventsTo {
    /// Standard error.
    Stderr,
    /// A descriptor that the caller has opened.
    Descriptor(u32),
    /// A file, made where it is not there, and appended to where it is.
    File(PathBuf),
}

impl FromStr for EventsTo {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let read = || -> Result<Self, Reason> {
            if text == "-" {
                return Ok(Self::Stderr);
            }
            match text.strip_prefix("fd:") {
                Some("0") => Err("that is standard input".into()),
                Some("1") => Err("standard output is the command's own".into()),
                Some(number) => number
                    .parse()
                    .ok()
                    .filter(|parsed: &u32| parsed.to_string() == number && *parsed <= i32::MAX as u32)
                    .map(Self::Descriptor)
                    .ok_or_else(|| "behind `fd:`, the number of an open descriptor is due".into()),
                None => path(text).map(Self::File),
            }
        };
        read().map_err(|reason| PolicyError::new("`-`, `fd:NUMBER` or a file", text).because(reason))
    }
}

impl fmt::Display for EventsTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stderr => f.write_str("-"),
            Self::Descriptor(number) => write!(f, "fd:{number}"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// In which words events are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventsFormat {
    /// Our own, as `docs/integrations.md` has them.
    #[default]
    Json,
    /// Those of the Open Cybersecurity Schema Framework.
    Ocsf,
}

words! { EventsFormat, "`json` or `ocsf`":
    "json" => Json,
    "ocsf" => Ocsf,
}

/// The file that the policy which an audit has learned is written to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct LearnTo(PathBuf);

impl LearnTo {
    /// The path.
    pub fn as_path(&self) -> &std::path::Path {
        &self.0
    }
}

impl FromStr for LearnTo {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        path(text).map(Self).map_err(|reason| PolicyError::new("a file", text).because(reason))
    }
}

impl fmt::Display for LearnTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// Where metrics are found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetricsTo {
    /// A file that is replaced from time to time.
    File(PathBuf),
    /// A unix socket that answers HTTP.
    Unix(PathBuf),
}

impl FromStr for MetricsTo {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        match text.strip_prefix("unix:") {
            Some(socket) => path(socket).map(Self::Unix),
            None => path(text).map(Self::File),
        }
        .map_err(|reason| PolicyError::new("a file or `unix:PATH`", text).because(reason))
    }
}

impl fmt::Display for MetricsTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn path(text: &str) -> Result<PathBuf, Reason> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if text.contains(char::is_control) {
        return Err("a path has no control characters here".into());
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_shown_as_it_was_said() {
        for text in ["-", "fd:2", "fd:3", "events.json", "/var/log/ringfence.json", "fd"] {
            assert_eq!(text.parse::<EventsTo>().unwrap().to_string(), text);
        }
        for text in ["m.prom", "unix:/run/m.sock"] {
            assert_eq!(text.parse::<MetricsTo>().unwrap().to_string(), text);
        }
        for text in ["json", "ocsf"] {
            assert_eq!(text.parse::<EventsFormat>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for (text, reason) in [
            ("", "it is empty"),
            ("fd:1", "standard output is the command's own"),
            ("fd:0", "that is standard input"),
            ("fd:03", "behind `fd:`, the number of an open descriptor is due"),
            ("fd:", "behind `fd:`, the number of an open descriptor is due"),
            ("fd:4294967295", "behind `fd:`, the number of an open descriptor is due"),
            ("a\nb", "a path has no control characters here"),
        ] {
            assert_eq!(text.parse::<EventsTo>().unwrap_err().reason.as_deref(), Some(reason), "{text}");
        }
        assert!("unix:".parse::<MetricsTo>().is_err());
        assert!("xml".parse::<EventsFormat>().is_err());
    }
}
