//! What the kernel holds and this crate has no word for: bytes that are kept as they were read, and written back unchanged.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::json::excerpt;

/// Bytes, written as hexadecimal text in JSON: `"0x0a0b"`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> String {
        bytes.to_string()
    }
}

impl TryFrom<String> for Bytes {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let found =
            || format!("found `{}`, expected 0x and two hexadecimal digits a byte", excerpt(&text).escape_debug());
        let digits = text.strip_prefix("0x").ok_or_else(found)?.as_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let (pairs, []) = digits.as_chunks::<2>() else { return Err(found()) };
        let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
        bytes.collect::<Option<Vec<u8>>>().map(Bytes).ok_or_else(found)
    }
}

/// A netlink attribute by its number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawAttribute {
    /// Its number.
    pub kind: u16,
    /// Its value.
    pub value: Bytes,
}

/// What an object carries beside the fields of its type. Nothing, mostly.
///
/// nft(8) and others keep notes of their own in an object's user data; newer kernels give objects attributes that this crate does not
/// know. Both are written back as they were read, so that nothing is lost between a dump and its restoration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Extra(Option<Box<Kept>>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_data: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<RawAttribute>,
}

impl Extra {
    /// Keeps user data, in which there is no comment, and attributes.
    ///
    /// Without user data of its own an object gets that which follows from its fields, as nft(8) writes it. An attribute
    /// takes the place of the one with the same number that follows from the object's fields.
    pub fn new(user_data: Option<Vec<u8>>, attributes: Vec<RawAttribute>) -> Self {
        if user_data.is_none() && attributes.is_empty() {
            return Self(None);
        }
        Self(Some(Box::new(Kept { user_data: user_data.map(Bytes), attributes })))
    }

    /// The user data without the object's comment, if it is not what follows from the object's fields.
    pub fn user_data(&self) -> Option<&[u8]> {
        self.0.as_ref()?.user_data.as_ref().map(Bytes::as_slice)
    }

    /// The attributes that the object's type has no field for.
    pub fn attributes(&self) -> &[RawAttribute] {
        self.0.as_ref().map_or(&[], |kept| &kept.attributes)
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_and_back() {
        let bytes = Bytes(vec![0, 0x0a, 0xff]);
        assert_eq!(bytes.to_string(), "0x000aff");
        assert_eq!(Bytes::try_from("0x000aff".to_owned()), Ok(bytes));
        assert_eq!(Bytes::try_from("0x".to_owned()), Ok(Bytes::default()));
        for wrong in ["", "00", "0x0", "0xg0", "0xé0", "x"] {
            assert!(Bytes::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
