//! What is done about somebody who changes the rules of a fence.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::PolicyError;

/// What is done when somebody else than ringfence changes the rules of the fence, on either side. It is told in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnTampering {
    /// Nothing more: until somebody else does something, the other side of the fence holds alone.
    Report,
    /// The rules are made again what they were. Where that can't be done, or is done again and again, the sandbox ends.
    ///
    /// The default: nothing that keeps to its own tables is disturbed by it, and what was let out before is let out after.
    #[default]
    Mend,
    /// Every process of the sandbox is killed.
    End,
}

impl FromStr for OnTampering {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        match text {
            "report" => Ok(Self::Report),
            "mend" => Ok(Self::Mend),
            "end" => Ok(Self::End),
            _ => Err(PolicyError::new("`report`, `mend` or `end`", text)),
        }
    }
}

impl fmt::Display for OnTampering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Report => "report",
            Self::Mend => "mend",
            Self::End => "end",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_three() {
        for what in [OnTampering::Report, OnTampering::Mend, OnTampering::End] {
            assert_eq!(what.to_string().parse(), Ok(what));
        }
        let error = "kill".parse::<OnTampering>().unwrap_err().to_string();
        assert_eq!(error, "the caller: `kill` is not `report`, `mend` or `end`");
    }
}
