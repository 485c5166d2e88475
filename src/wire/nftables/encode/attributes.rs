//! Attributes as bytes, for what libnftnl cannot carry: expressions and attributes that it does not know, stateful objects, flowtables.

use std::borrow::Cow;

use super::object::Fault;

/// The longest value: the length of an attribute has sixteen bits, and counts its header.
pub(super) const MAX_VALUE: usize = u16::MAX as usize - 4;

/// A row of attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Attributes that others wrote, padding included.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Appends another row.
    pub fn join(&mut self, other: Attributes) {
        self.0.extend(other.0);
    }

    /// Appends a value as it stands.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) -> Result<(), Fault> {
        let len = u16::try_from(value.len() + 4).map_err(|_| {
            Cow::Owned(format!("an attribute of {} bytes, more than the {MAX_VALUE} that one holds", value.len()))
        })?;
        self.0.extend(len.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        Ok(())
    }

    pub fn byte(&mut self, kind: u16, value: u8) -> Result<(), Fault> {
        self.bytes(kind, &[value])
    }

    pub fn short(&mut self, kind: u16, value: u16) -> Result<(), Fault> {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub fn number(&mut self, kind: u16, value: u32) -> Result<(), Fault> {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub fn wide(&mut self, kind: u16, value: u64) -> Result<(), Fault> {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Appends text with its final NUL.
    pub fn text(&mut self, kind: u16, value: &str) -> Result<(), Fault> {
        if value.contains('\0') {
            return Err(Cow::Owned(format!("`{}` has a NUL byte", value.escape_debug())));
        }
        self.bytes(kind, &[value.as_bytes(), b"\0"].concat())
    }

    /// Appends attributes in an attribute.
    pub fn nest(&mut self, kind: u16, inner: &Attributes) -> Result<(), Fault> {
        /// `NLA_F_NESTED`.
        const NESTED: u16 = 1 << 15;
        self.bytes(kind | NESTED, inner.as_bytes())
    }
}
