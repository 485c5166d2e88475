//! What is done about somebody who changes the rules of a fence.

use serde::Serialize;

use super::words::words;

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

words! { OnTampering, "`report`, `mend` or `end`":
    "report" => Report,
    "mend" => Mend,
    "end" => End,
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
