//! What the kernel refuses, and why.

use std::{fmt, io};

use rustix::io::Errno;

use crate::wire::netlink::{Acknowledgement, DecodeError};
use crate::{Error, ErrorKind};

/// What the kernel said when it refused: the cause of a [`crate::Error`] whose own text says what was to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelError {
    /// What it was asked to do: `add rule inet guard output`, `add route 10.200.0.2/32 on interface 7`.
    pub operation: String,
    /// The part that it pointed to, where it did: ``expression 3 (`lookup`)``, `element 0x0a000001`.
    pub object: Option<String>,
    /// The attribute of the message that it pointed to, where it did, by the kernel's name: `NFTA_RULE_CHAIN`.
    pub attribute: Option<Box<str>>,
    /// The error number, see errno(3).
    pub errno: i32,
    /// Its own words, where it had some.
    #[doc(alias = "NLMSGERR_ATTR_MSG")]
    pub extended_ack: Option<Box<str>>,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
}

impl KernelError {
    /// Says whether the kernel answered `errno`.
    pub(crate) fn is(&self, errno: Errno) -> bool {
        self.errno == errno.raw_os_error()
    }

    /// The refusal of `operation` that an acknowledgement told.
    pub(super) fn new(operation: String, refused: &Acknowledgement, hint: Option<String>) -> Self {
        let extended_ack = refused.text.as_deref().map(Box::from);
        Self { operation, object: None, attribute: None, errno: refused.errno, extended_ack, hint }
    }

    /// The crate's error with this one as its cause.
    pub(super) fn of_kind(self, kind: ErrorKind) -> Error {
        let error = Error::new(kind, format!("can't {}", self.operation));
        let error = match &self.hint {
            Some(hint) => error.hint(hint.clone()),
            None => error,
        };
        error.because(self)
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if let Some(attribute) = &self.attribute {
            write!(f, "{attribute}: ")?;
        }
        write!(f, "{}", io::Error::from_raw_os_error(self.errno))?;
        match &self.extended_ack {
            Some(words) => write!(f, ": {}", words.escape_debug()),
            None => Ok(()),
        }
    }
}

impl std::error::Error for KernelError {}

/// An answer of the kernel's that is not what it should be.
pub(super) fn undecodable(error: DecodeError) -> Error {
    Error::new(ErrorKind::Decode, "can't decode the kernel's answer").because(error)
}
