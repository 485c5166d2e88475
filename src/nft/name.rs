//! Names of the kernel's objects, checked once, cheap to clone.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::json::excerpt;

/// Says why a name cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} `{}` {reason}", .value.escape_debug())]
pub struct NameError {
    /// What was to be named: `table name`, `comment` and so on.
    pub kind: &'static str,
    /// The value as it was given, or the start of one that is long.
    pub value: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $max:expr, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// The longest value the kernel takes, in bytes, without the final NUL.
            pub const MAX_LEN: usize = $max;

            /// Checks `value` and makes a name of it.
            ///
            /// # Errors
            ///
            /// [`NameError`] when it is empty, longer than [`Self::MAX_LEN`] bytes, or has a byte the kernel refuses.
            pub fn new(value: &str) -> Result<Self, NameError> {
                let fail = |reason| Err(NameError { kind: $kind, value: excerpt(value).into_owned(), reason });
                if value.is_empty() {
                    return fail("is empty");
                }
                if value.len() > Self::MAX_LEN {
                    return fail(concat!("is longer than the kernel's ", stringify!($max), " bytes"));
                }
                if value.contains('\0') {
                    return fail("contains a NUL byte");
                }
                let check: fn(&str) -> Option<&'static str> = $check;
                match check(value) {
                    Some(reason) => fail(reason),
                    None => Ok(Self(Arc::from(value))),
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(value: &str) -> Result<Self, NameError> {
                Self::new(value)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $type {
            fn eq(&self, other: &str) -> bool {
                *self.0 == *other
            }
        }

        impl PartialEq<&str> for $type {
            fn eq(&self, other: &&str) -> bool {
                *self.0 == **other
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(value: String) -> Result<Self, NameError> {
                Self::new(&value)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.to_string()
            }
        }
    };
}

name!(
    /// Name of a table.
    #[doc(alias = "NFTA_TABLE_NAME")]
    TableName, "table name", 255, |_| None
);
name!(
    /// Name of a chain.
    #[doc(alias = "NFTA_CHAIN_NAME")]
    ChainName, "chain name", 255, |_| None
);
name!(
    /// Name of a set or map.
    #[doc(alias = "NFTA_SET_NAME")]
    SetName, "set name", 255, |_| None
);
name!(
    /// Name of a stateful object.
    #[doc(alias = "NFTA_OBJ_NAME")]
    ObjectName, "object name", 255, |_| None
);
name!(
    /// Name of a flowtable.
    #[doc(alias = "NFTA_FLOWTABLE_NAME")]
    FlowtableName, "flowtable name", 255, |_| None
);
name!(
    /// Comment that nft(8) shows beside a table, chain, rule, set or element. The kernel keeps it as opaque user data.
    Comment, "comment", 128, |_| None
);
name!(
    /// Name of a network interface.
    #[doc(alias = "IFNAMSIZ")]
    InterfaceName, "interface name", 15, |name| {
        if name == "." || name == ".." {
            Some("is not a name the kernel takes")
        } else if name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
            Some("has a slash, colon, space or control character")
        } else {
            None
        }
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_the_kernels() {
        assert!(TableName::new(&"t".repeat(255)).is_ok());
        assert!(TableName::new(&"t".repeat(256)).is_err());
        assert!(InterfaceName::new("fifteen-letters").is_ok());
        assert!(InterfaceName::new("sixteen--letters").is_err());
        let error = InterfaceName::new("a/b").unwrap_err();
        assert_eq!(error.to_string(), "interface name `a/b` has a slash, colon, space or control character");
        assert!(ChainName::new("").is_err());
        let chain: ChainName = "input".parse().unwrap();
        assert!(chain == "input" && *chain.as_ref() == *"input" && chain != *"output");
        assert!(SetName::new("a\0b").is_err());
    }
}
