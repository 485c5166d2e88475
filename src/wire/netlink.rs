//! Netlink framing: messages and attributes, read from borrowed bytes.
//!
//! A datagram is a row of messages ([`messages`]); the payload of a message ends in a row of attributes ([`Attributes`]),
//! which may nest. Lengths are checked before a byte is looked at, and every error says where in the datagram it was.
//!
//! # References
//!
//! netlink(7); `linux/netlink.h`: `struct nlmsghdr`, `struct nlattr`, `struct nlmsgerr`, `enum nlmsgerr_attrs`.

use std::borrow::Cow;

/// Length of a message's header, in bytes.
pub const HEADER_LEN: usize = 16;

/// Flag of a request, as every message to the kernel has it.
#[doc(alias = "NLM_F_REQUEST")]
pub const REQUEST: u16 = 0x1;
/// Flag of a request that wants an answer even when there is nothing to tell.
#[doc(alias = "NLM_F_ACK")]
pub const ACK: u16 = 0x4;
/// Flags of a request for everything there is.
#[doc(alias = "NLM_F_DUMP")]
pub const DUMP: u16 = 0x300;

/// Message that carries an error or an acknowledgement.
#[doc(alias = "NLMSG_ERROR")]
pub const ERROR: u16 = 2;
/// Message that ends a dump.
#[doc(alias = "NLMSG_DONE")]
pub const DONE: u16 = 3;
/// Message that says that others were lost.
#[doc(alias = "NLMSG_OVERRUN")]
pub const OVERRUN: u16 = 4;

/// Flag of a dump's message: the kernel's tables changed meanwhile, the dump may not fit together.
#[doc(alias = "NLM_F_DUMP_INTR")]
pub const DUMP_INTERRUPTED: u16 = 0x10;

/// The error message does not carry the whole request, just its header.
const CAPPED: u16 = 0x100;
/// The error message ends in attributes.
const ACK_TLVS: u16 = 0x200;

/// Attribute type without the two bits that say how it is to be read.
const TYPE_MASK: u16 = 0x3fff;
const ATTRIBUTE_HEADER: usize = 4;

/// Says what was to be decoded, where, what that needs and what is there instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {offset}: need {need}, have {have}")]
pub struct DecodeError {
    /// What was to be decoded.
    pub what: Cow<'static, str>,
    /// Where it starts, in bytes from the start of the datagram.
    pub offset: usize,
    /// What it takes to decode it.
    pub need: Cow<'static, str>,
    /// What is there.
    pub have: Cow<'static, str>,
}

impl DecodeError {
    /// An error at `offset`.
    pub fn new(
        what: impl Into<Cow<'static, str>>,
        offset: usize,
        need: impl Into<Cow<'static, str>>,
        have: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { what: what.into(), offset, need: need.into(), have: have.into() }
    }

    pub(crate) fn short(what: &'static str, offset: usize, need: usize, have: usize) -> Self {
        Self::new(what, offset, format!("{need} bytes"), format!("{have}"))
    }
}

pub(super) fn array<const N: usize>(
    what: &'static str,
    bytes: &[u8],
    at: usize,
    offset: usize,
) -> Result<[u8; N], DecodeError> {
    match bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()) {
        Some(chunk) => Ok(*chunk),
        None => Err(DecodeError::short(what, offset + at, N, bytes.len().saturating_sub(at))),
    }
}

/// A message's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Length of header and payload, in bytes, as the sender says.
    pub len: u32,
    /// Type.
    pub kind: u16,
    /// Flags.
    pub flags: u16,
    /// Sequence number: an answer has that of its request.
    pub seq: u32,
    /// Port of the socket that the message is for or from.
    pub port: u32,
}

impl Header {
    fn decode(bytes: &[u8], offset: usize) -> Result<Self, DecodeError> {
        let raw: [u8; HEADER_LEN] = array("netlink header", bytes, 0, offset)?;
        let word = |at: usize| u32::from_ne_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        Ok(Self {
            len: word(0),
            kind: u16::from_ne_bytes([raw[4], raw[5]]),
            flags: u16::from_ne_bytes([raw[6], raw[7]]),
            seq: word(8),
            port: word(12),
        })
    }
}

/// A message, borrowed from its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its header.
    pub header: Header,
    /// What follows the header.
    pub payload: &'a [u8],
    /// Where the payload starts, in bytes from the start of the datagram.
    pub offset: usize,
}

impl<'a> Message<'a> {
    /// The attributes that follow a fixed header of `skip` bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the payload is shorter than `skip`.
    pub fn attributes(&self, what: &'static str, skip: usize) -> Result<Attributes<'a>, DecodeError> {
        match self.payload.get(skip..) {
            Some(rest) => Ok(Attributes::new(rest, self.offset + skip)),
            None => Err(DecodeError::short(what, self.offset, skip, self.payload.len())),
        }
    }
}

/// Walks the messages of a datagram. After an error it ends: what follows has no known start.
#[derive(Debug, Clone)]
pub struct Messages<'a> {
    rest: &'a [u8],
    offset: usize,
}

/// The messages of a datagram.
pub fn messages(datagram: &[u8]) -> Messages<'_> {
    Messages { rest: datagram, offset: 0 }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (rest, offset) = (std::mem::take(&mut self.rest), self.offset);
        let header = match Header::decode(rest, offset) {
            Ok(header) => header,
            Err(error) => return Some(Err(error)),
        };
        let len = header.len as usize;
        if len < HEADER_LEN || len > rest.len() {
            return Some(Err(DecodeError::short("netlink message", offset, len.max(HEADER_LEN), rest.len())));
        }
        // The last message of a datagram need not be padded.
        let next = len.next_multiple_of(4).min(rest.len());
        self.rest = &rest[next..];
        self.offset = offset + next;
        Some(Ok(Message { header, payload: &rest[HEADER_LEN..len], offset: offset + HEADER_LEN }))
    }
}

/// An attribute, borrowed from its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Type, without the nested and byte-order bits.
    pub kind: u16,
    /// Value, without padding.
    pub payload: &'a [u8],
    /// Where the value starts, in bytes from the start of the datagram.
    pub offset: usize,
}

impl<'a> Attribute<'a> {
    fn exactly<const N: usize>(&self, what: &'static str) -> Result<[u8; N], DecodeError> {
        <[u8; N]>::try_from(self.payload).map_err(|_| DecodeError::short(what, self.offset, N, self.payload.len()))
    }

    /// One byte.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the value has another length; so with all numbers.
    pub fn u8(&self, what: &'static str) -> Result<u8, DecodeError> {
        self.exactly::<1>(what).map(|[byte]| byte)
    }

    /// A 16-bit number in network byte order.
    ///
    /// # Errors
    ///
    /// As [`Self::u8`].
    pub fn be16(&self, what: &'static str) -> Result<u16, DecodeError> {
        self.exactly(what).map(u16::from_be_bytes)
    }

    /// A 32-bit number in network byte order.
    ///
    /// # Errors
    ///
    /// As [`Self::u8`].
    pub fn be32(&self, what: &'static str) -> Result<u32, DecodeError> {
        self.exactly(what).map(u32::from_be_bytes)
    }

    /// A 64-bit number in network byte order.
    ///
    /// # Errors
    ///
    /// As [`Self::u8`].
    pub fn be64(&self, what: &'static str) -> Result<u64, DecodeError> {
        self.exactly(what).map(u64::from_be_bytes)
    }

    /// A 32-bit number in the machine's byte order.
    ///
    /// # Errors
    ///
    /// As [`Self::u8`].
    pub fn ne32(&self, what: &'static str) -> Result<u32, DecodeError> {
        self.exactly(what).map(u32::from_ne_bytes)
    }

    /// Text, with or without its final NUL.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when it is not UTF-8 or has a NUL within.
    pub fn text(&self, what: &'static str) -> Result<&'a str, DecodeError> {
        let bytes = self.payload.strip_suffix(b"\0").unwrap_or(self.payload);
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => Ok(text),
            _ => Err(DecodeError::new(what, self.offset, "UTF-8 text", bytes.escape_ascii().to_string())),
        }
    }

    /// The attributes inside.
    pub fn nested(&self) -> Attributes<'a> {
        Attributes::new(self.payload, self.offset)
    }
}

/// Walks a row of attributes. After an error it ends.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Attributes<'a> {
    /// Attributes in `bytes`, which start `offset` bytes into their datagram.
    pub fn new(bytes: &'a [u8], offset: usize) -> Self {
        Self { rest: bytes, offset }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (rest, offset) = (std::mem::take(&mut self.rest), self.offset);
        let raw: [u8; ATTRIBUTE_HEADER] = match array("attribute header", rest, 0, offset) {
            Ok(raw) => raw,
            Err(error) => return Some(Err(error)),
        };
        let len = usize::from(u16::from_ne_bytes([raw[0], raw[1]]));
        if len < ATTRIBUTE_HEADER || len > rest.len() {
            return Some(Err(DecodeError::short("attribute", offset, len.max(ATTRIBUTE_HEADER), rest.len())));
        }
        let next = len.next_multiple_of(4).min(rest.len());
        self.rest = &rest[next..];
        self.offset = offset + next;
        Some(Ok(Attribute {
            kind: u16::from_ne_bytes([raw[2], raw[3]]) & TYPE_MASK,
            payload: &rest[ATTRIBUTE_HEADER..len],
            offset: offset + ATTRIBUTE_HEADER,
        }))
    }
}

/// The kernel's answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(alias = "nlmsgerr")]
pub struct Acknowledgement {
    /// 0 for done as asked, else the error number, positive.
    pub errno: i32,
    /// Sequence number of the request.
    pub seq: u32,
    /// Header of the request.
    pub request: Header,
    /// The kernel's own words (extended ACK).
    #[doc(alias = "NLMSGERR_ATTR_MSG")]
    pub text: Option<String>,
    /// Where in the request the bad attribute starts, in bytes from the request's header (extended ACK).
    #[doc(alias = "NLMSGERR_ATTR_OFFS")]
    pub offset: Option<u32>,
}

impl Acknowledgement {
    /// What an error number alone tells, as the end of a dump has it.
    pub(crate) fn of_errno(errno: i32, request: Header) -> Self {
        Self { errno, seq: request.seq, request, text: None, offset: None }
    }
}

/// Decodes an acknowledgement or error; `None` when the message is neither.
///
/// Understands both spellings: with the request echoed in full, and capped to its header (`NETLINK_CAP_ACK`). Text and offset
/// are there when the socket asked for them (`NETLINK_EXT_ACK`).
///
/// # Errors
///
/// [`DecodeError`] when the message says it is one and is too short for it, or when an error number is positive.
///
/// # References
///
/// `linux/netlink.h`: `struct nlmsgerr`, `enum nlmsgerr_attrs`.
pub fn acknowledgement(message: &Message<'_>) -> Result<Option<Acknowledgement>, DecodeError> {
    if message.header.kind != ERROR {
        return Ok(None);
    }
    let (payload, offset) = (message.payload, message.offset);
    let code = i32::from_ne_bytes(array("error number", payload, 0, offset)?);
    if code > 0 || code == i32::MIN {
        return Err(DecodeError::new("error number", offset, "0 or less", code.to_string()));
    }
    let request = Header::decode(payload.get(4..).unwrap_or_default(), offset + 4)?;
    let mut acknowledgement =
        Acknowledgement { errno: -code, seq: message.header.seq, request, text: None, offset: None };
    if message.header.flags & ACK_TLVS != 0 {
        let echoed = if message.header.flags & CAPPED != 0 { HEADER_LEN } else { request.len as usize };
        let skip = echoed.max(HEADER_LEN).checked_next_multiple_of(4).and_then(|len| len.checked_add(4));
        for attribute in message.attributes("extended ACK", skip.unwrap_or(usize::MAX))? {
            let attribute = attribute?;
            match attribute.kind {
                1 => {
                    let words = attribute.payload.strip_suffix(b"\0").unwrap_or(attribute.payload);
                    acknowledgement.text = Some(String::from_utf8_lossy(words).into_owned());
                }
                2 => acknowledgement.offset = Some(attribute.ne32("offset of the bad attribute")?),
                _ => {}
            }
        }
    }
    Ok(Some(acknowledgement))
}

/// Decodes the end of a dump: 0, or the positive number of the error that ended it. `None` when the message is not that.
///
/// # Errors
///
/// [`DecodeError`] when the number is positive on the wire. Kernels leave the number out when there was no error.
pub fn end_of_dump(message: &Message<'_>) -> Result<Option<i32>, DecodeError> {
    if message.header.kind != DONE {
        return Ok(None);
    }
    if message.payload.is_empty() {
        return Ok(Some(0));
    }
    let code = i32::from_ne_bytes(array("end of dump", message.payload, 0, message.offset)?);
    match code {
        i32::MIN | 1.. => Err(DecodeError::new("end of dump", message.offset, "0 or less", code.to_string())),
        code => Ok(Some(-code)),
    }
}

#[cfg(test)]
pub(in crate::wire) mod tests {
    use super::*;

    pub(in crate::wire) fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER_LEN + payload.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(payload);
        bytes
    }

    pub(in crate::wire) fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ((4 + payload.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn nack(flags: u16, echoed: &[u8]) -> Vec<u8> {
        let mut payload = (-17i32).to_ne_bytes().to_vec();
        payload.extend(message(0xa00, 0, echoed));
        payload.resize(payload.len().next_multiple_of(4), 0);
        if flags & CAPPED != 0 {
            payload.truncate(4 + HEADER_LEN);
        }
        payload.extend(attribute(1, b"it is there\0"));
        payload.extend(attribute(2, &20u32.to_ne_bytes()));
        message(ERROR, flags, &payload)
    }

    #[test]
    fn extended_acks_are_read_behind_a_capped_and_a_full_echo() {
        for flags in [ACK_TLVS | CAPPED, ACK_TLVS] {
            let bytes = nack(flags, b"five.");
            let read = messages(&bytes).next().unwrap().unwrap();
            let ack = acknowledgement(&read).unwrap().unwrap();
            assert_eq!((ack.errno, ack.seq, ack.offset), (17, 7, Some(20)), "{flags:x}");
            assert_eq!(ack.text.as_deref(), Some("it is there"));
            assert_eq!(ack.request.kind, 0xa00);
        }
    }

    #[test]
    fn an_echo_longer_than_the_message_is_an_error_not_a_panic() {
        let mut payload = (-1i32).to_ne_bytes().to_vec();
        payload.extend(u32::MAX.to_ne_bytes());
        payload.extend([0; 12]);
        let bytes = message(ERROR, ACK_TLVS, &payload);
        let error = acknowledgement(&messages(&bytes).next().unwrap().unwrap()).unwrap_err();
        assert_eq!(error.what, "extended ACK");
    }

    #[test]
    fn every_prefix_ends_in_order() {
        let mut bytes = nack(ACK_TLVS, b"abc");
        bytes.extend(message(DONE, 0, &0i32.to_ne_bytes()));
        for len in 0..bytes.len() {
            for message in messages(&bytes[..len]).flatten() {
                let _ = acknowledgement(&message);
                let _ = end_of_dump(&message);
                Attributes::new(message.payload, message.offset).for_each(drop);
            }
        }
        let all: Vec<_> = messages(&bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!(end_of_dump(&all[1]), Ok(Some(0)));
    }

    #[test]
    fn lengths_that_lie_are_named_with_their_place() {
        let mut bytes = attribute(1, b"good");
        bytes.extend([200, 0, 2, 0]);
        let errors: Vec<_> = Attributes::new(&bytes, 100).collect();
        assert_eq!(errors.len(), 2);
        assert_eq!(errors[1].as_ref().unwrap_err().to_string(), "attribute at byte 108: need 200 bytes, have 4");
        let zero = [0u8; 16];
        assert!(messages(&zero).next().unwrap().is_err());
        assert!(Attributes::new(&zero, 0).next().unwrap().is_err());
    }
}
