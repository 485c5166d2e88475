//! The attributes of an expression or object, each taken once.

use crate::nft::{Data, Register};
use crate::wire::netlink::{Attribute, Attributes};

/// Attributes by number, all below `N`.
///
/// Whoever decodes takes each attribute that it knows; [`Fields::all`] refuses when one is left. So what was decoded says
/// everything that the bytes said.
pub(super) struct Fields<'a, const N: usize>([Option<Attribute<'a>>; N]);

impl<'a, const N: usize> Fields<'a, N> {
    /// `None` when a number is unknown or there twice, or a length lies.
    pub fn read(attributes: Attributes<'a>) -> Option<Self> {
        let mut slots = [None; N];
        for attribute in attributes {
            let attribute = attribute.ok()?;
            let slot = slots.get_mut(usize::from(attribute.kind))?;
            if slot.replace(attribute).is_some() {
                return None;
            }
        }
        Some(Self(slots))
    }

    pub fn nested(attribute: Attribute<'a>) -> Option<Self> {
        Self::read(attribute.nested())
    }

    pub fn take(&mut self, kind: usize) -> Option<Attribute<'a>> {
        self.0[kind].take()
    }

    /// An attribute that need not be there; `None` when it is and can't be read.
    pub fn maybe<T>(&mut self, kind: usize, read: impl FnOnce(Attribute<'a>) -> Option<T>) -> Option<Option<T>> {
        match self.take(kind) {
            None => Some(None),
            Some(attribute) => read(attribute).map(Some),
        }
    }

    pub fn has(&self, kind: usize) -> bool {
        self.0[kind].is_some()
    }

    pub fn byte(&mut self, kind: usize) -> Option<u8> {
        byte(self.take(kind)?)
    }

    pub fn short(&mut self, kind: usize) -> Option<u16> {
        short(self.take(kind)?)
    }

    pub fn number(&mut self, kind: usize) -> Option<u32> {
        number(self.take(kind)?)
    }

    pub fn number_or(&mut self, kind: usize, default: u32) -> Option<u32> {
        self.take(kind).map_or(Some(default), number)
    }

    pub fn wide(&mut self, kind: usize) -> Option<u64> {
        wide(self.take(kind)?)
    }

    pub fn text(&mut self, kind: usize) -> Option<&'a str> {
        text(self.take(kind)?)
    }

    pub fn register(&mut self, kind: usize) -> Option<Register> {
        register(self.take(kind)?)
    }

    pub fn data(&mut self, kind: usize) -> Option<Data> {
        data(self.take(kind)?)
    }

    /// `value`, if every attribute was taken.
    pub fn all<T>(self, value: T) -> Option<T> {
        self.0.iter().all(Option::is_none).then_some(value)
    }
}

pub(super) fn byte(attribute: Attribute<'_>) -> Option<u8> {
    <[u8; 1]>::try_from(attribute.payload).ok().map(|[byte]| byte)
}

pub(super) fn short(attribute: Attribute<'_>) -> Option<u16> {
    attribute.payload.try_into().ok().map(u16::from_be_bytes)
}

pub(super) fn number(attribute: Attribute<'_>) -> Option<u32> {
    attribute.payload.try_into().ok().map(u32::from_be_bytes)
}

pub(super) fn wide(attribute: Attribute<'_>) -> Option<u64> {
    attribute.payload.try_into().ok().map(u64::from_be_bytes)
}

pub(super) fn register(attribute: Attribute<'_>) -> Option<Register> {
    number(attribute).and_then(Register::from_wire)
}

/// Text, with its final NUL or, where libnftnl wrote it, without.
pub(super) fn text(attribute: Attribute<'_>) -> Option<&str> {
    let text = std::str::from_utf8(attribute.payload.strip_suffix(b"\0").unwrap_or(attribute.payload)).ok()?;
    (!text.contains('\0')).then_some(text)
}

/// `NFTA_DATA_VALUE` in its nest.
pub(super) fn data(nest: Attribute<'_>) -> Option<Data> {
    let mut fields = Fields::<2>::nested(nest)?;
    let value = fields.take(1)?;
    fields.all(Data::new(value.payload).ok()?)
}
