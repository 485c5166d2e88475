//! Which files the command may touch.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;

use super::PolicyError;
use super::authority::Reason;
use super::words::words;

/// Whether Landlock keeps the command from files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LandlockMode {
    /// It does not.
    #[default]
    Off,
    /// As far as the kernel can; not at all where it can't.
    BestEffort,
    /// Or the command is not started.
    Required,
}

words! { LandlockMode, "`off`, `best-effort` or `required`":
    "off" => Off,
    "best-effort" => BestEffort,
    "required" => Required,
}

/// An absolute path that the command is given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct FilePath(PathBuf);

impl FilePath {
    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    fn read(text: &str) -> Result<Self, Reason> {
        /// `PATH_MAX` without its NUL.
        const LONGEST: usize = 4095;
        if text.is_empty() {
            return Err("it is empty".into());
        }
        if text.contains('\0') {
            return Err("it has a NUL".into());
        }
        if text.len() > LONGEST {
            return Err(format!("it has {} bytes, and {LONGEST} are the most", text.len()));
        }
        // A policy means the same wherever it is read from.
        if !text.starts_with('/') {
            return Err("it does not start at the root: write `/…`".into());
        }
        Ok(Self(text.into()))
    }
}

impl FromStr for FilePath {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Self::read(text).map_err(|reason| PolicyError::new("an absolute path", text).because(reason))
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for mode in [LandlockMode::Off, LandlockMode::BestEffort, LandlockMode::Required] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        let error = "on".parse::<LandlockMode>().unwrap_err().to_string();
        assert_eq!(error, "the caller: `on` is not `off`, `best-effort` or `required`");
    }

    #[test]
    fn paths() {
        for text in ["/", "/srv/data", "/a b", "/srv/x,y"] {
            assert_eq!(text.parse::<FilePath>().unwrap().to_string(), text);
        }
        for (text, reason) in [
            ("", "it is empty"),
            ("data", "it does not start at the root: write `/…`"),
            ("~/data", "it does not start at the root: write `/…`"),
            ("/a\0b", "it has a NUL"),
        ] {
            let error = text.parse::<FilePath>().unwrap_err().to_string();
            assert!(error.ends_with(&format!("is not an absolute path ({reason})")), "{error}");
        }
        assert!(format!("/{}", "x".repeat(4095)).parse::<FilePath>().is_err());
    }
}
