//! Which system calls the command may make.

use serde::Serialize;

use super::words::words;

/// What is refused to the command besides what always is. `docs/security.md` has the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeccompMode {
    /// What would get round the fence, and user namespaces.
    #[default]
    Default,
    /// The same, but user namespaces may be made and entered.
    Userns,
    /// Nothing else.
    Off,
}

/// What is refused, in a few words each: first what always is, last what `default` alone refuses.
const REFUSED: [&str; 9] = [
    "sockets that no network namespace holds",
    "io_uring",
    "becoming the owner of user namespaces",
    "typing into the terminal",
    "keyrings",
    "bpf",
    "kexec",
    "kernel modules",
    "user namespaces",
];

impl SeccompMode {
    /// Says what is refused, in a few words each.
    pub fn refused(self) -> &'static [&'static str] {
        match self {
            Self::Default => &REFUSED,
            Self::Userns => &REFUSED[..8],
            Self::Off => &REFUSED[..3],
        }
    }
}

words! { SeccompMode, "`default`, `userns` or `off`":
    "default" => Default,
    "userns" => Userns,
    "off" => Off,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for mode in [SeccompMode::Default, SeccompMode::Userns, SeccompMode::Off] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert_eq!(SeccompMode::Userns.refused().last(), Some(&"kernel modules"));
        assert_eq!(
            SeccompMode::Off.refused(),
            ["sockets that no network namespace holds", "io_uring", "becoming the owner of user namespaces"]
        );
        let error = "on".parse::<SeccompMode>().unwrap_err().to_string();
        assert_eq!(error, "the caller: `on` is not `default`, `userns` or `off`");
    }
}
