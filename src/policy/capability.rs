//! Capabilities by name.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::PolicyError;
use super::near::nearest;

/// Names without `CAP_`, each at its number.
///
/// # References
/// `linux/capability.h`, capabilities(7).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A capability of Linux, as `linux/capability.h` numbers them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(u8);

impl Capability {
    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Every capability that has a name here, from `CAP_CHOWN` to `CAP_CHECKPOINT_RESTORE`.
    pub fn all() -> impl Iterator<Item = Capability> {
        (0u8..).take(NAMES.len()).map(Capability)
    }

    fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }
}

impl FromStr for Capability {
    type Err = PolicyError;

    /// Parses a name in any case, with or without `CAP_`.
    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        Capability::all().find(|capability| capability.name() == name).ok_or_else(|| {
            let error = PolicyError::new("a capability", text);
            match nearest(name, NAMES) {
                Some(near) => error.because(format!("did you mean `CAP_{near}`?")),
                None => error.because("capabilities(7) has their names"),
            }
        })
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CAP_{}", self.name())
    }
}

impl fmt::Debug for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Capability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Which capabilities the command may ever have.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capabilities {
    /// What Docker keeps, without `CAP_NET_RAW`.
    #[default]
    Default,
    /// None.
    None,
    /// These.
    Keep(BTreeSet<Capability>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_kernels_numbers() {
        for (text, number, shown) in [
            ("CAP_CHOWN", 0, "CAP_CHOWN"),
            ("net_admin", 12, "CAP_NET_ADMIN"),
            ("Cap_Net_Raw", 13, "CAP_NET_RAW"),
            ("sys_admin", 21, "CAP_SYS_ADMIN"),
            ("SETFCAP", 31, "CAP_SETFCAP"),
            ("checkpoint_restore", 40, "CAP_CHECKPOINT_RESTORE"),
        ] {
            let capability: Capability = text.parse().unwrap();
            assert_eq!((capability.number(), capability.to_string().as_str()), (number, shown));
        }
        for capability in Capability::all() {
            assert_eq!(capability.to_string().parse::<Capability>().unwrap(), capability);
        }
    }

    #[test]
    fn an_unknown_name_gets_the_nearest_known() {
        for (text, reason) in [
            ("NET_ADMN", "did you mean `CAP_NET_ADMIN`?"),
            ("cap_sysadmin", "did you mean `CAP_SYS_ADMIN`?"),
            ("", "capabilities(7) has their names"),
            ("ALL", "capabilities(7) has their names"),
            ("quite something else", "capabilities(7) has their names"),
        ] {
            assert_eq!(text.parse::<Capability>().unwrap_err().reason.as_deref(), Some(reason), "{text}");
        }
    }
}
