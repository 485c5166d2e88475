//! nf_tables seen as what it sends: messages of attributes, and nothing made of them.
//!
//! The library's own decoder is what is under test, so none of it is used here.

use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// Messages of linux/netfilter/nf_tables.h. GET is one more than NEW.
pub const NEW_TABLE: u8 = 0;
pub const NEW_CHAIN: u8 = 3;
pub const NEW_RULE: u8 = 6;
pub const NEW_SET: u8 = 9;
pub const NEW_ELEMENTS: u8 = 12;
pub const NEW_OBJECT: u8 = 18;
pub const NEW_FLOWTABLE: u8 = 22;

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const REQUEST: u16 = 0x1;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;
/// nfgenmsg: family, version, resource.
const GENERIC: usize = 4;

/// An attribute and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attr {
    pub kind: u16,
    pub body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Bytes(Vec<u8>),
    Nest(Vec<Attr>),
}

/// A message without its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub kind: u8,
    pub family: u8,
    pub attrs: Vec<Attr>,
}

impl Attr {
    pub fn bytes(kind: u16, bytes: &[u8]) -> Self {
        Self { kind, body: Body::Bytes(bytes.to_vec()) }
    }

    pub fn as_bytes(&self) -> &[u8] {
        match &self.body {
            Body::Bytes(bytes) => bytes,
            Body::Nest(_) => &[],
        }
    }

    pub fn nested(&self) -> &[Attr] {
        match &self.body {
            Body::Nest(attrs) => attrs,
            Body::Bytes(_) => &[],
        }
    }

    pub fn nested_mut(&mut self) -> Option<&mut Vec<Attr>> {
        match &mut self.body {
            Body::Nest(attrs) => Some(attrs),
            Body::Bytes(_) => None,
        }
    }
}

/// Which attributes of a message hold attributes: the kernel does not mark its nests.
fn is_nest(path: &[u16], kind: u8) -> bool {
    // Below an expression's data: the values of cmp, immediate, bitwise, range, and the expressions of dynset.
    let within_expression = |rest: &[u16]| matches!(rest, [] | [1 | 2] | [1, 2] | [2, _] | [2, _, _]);
    match (kind, path) {
        // hook, with its devices; counters
        (NEW_CHAIN, [4] | [4, 4] | [8]) => true,
        // the list, its elements, their data; xt compatibility
        (NEW_RULE, [4] | [5]) => true,
        // A verdict holds its code and its chain.
        (NEW_RULE, [4, 1, 2, 2, 2]) => true,
        (NEW_RULE, [4, 1, rest @ ..]) => within_expression(rest) && rest.len() < 3,
        // description, its concatenation and the fields of that; expression, expressions
        (NEW_SET, [9] | [9, 2] | [9, 2, 1] | [17] | [17, 2] | [18] | [18, 1] | [18, 1, 2]) => true,
        (NEW_ELEMENTS, [3] | [3, 1]) => true,
        // key, data, end of key: a value or a verdict
        (NEW_ELEMENTS, [3, 1, 1 | 2 | 10] | [3, 1, 2, 2]) => true,
        (NEW_ELEMENTS, [3, 1, 7 | 11] | [3, 1, 7, 2] | [3, 1, 11, 1] | [3, 1, 11, 1, 2]) => true,
        (NEW_OBJECT, [4]) => true,
        (NEW_FLOWTABLE, [3] | [3, 3]) => true,
        _ => false,
    }
}

fn parse_attrs(mut bytes: &[u8], path: &mut Vec<u16>, kind: u8) -> Vec<Attr> {
    let mut attrs = Vec::new();
    while bytes.len() >= 4 {
        let len = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let attr = u16::from_ne_bytes([bytes[2], bytes[3]]) & 0x3fff;
        assert!(len >= 4 && len <= bytes.len(), "an attribute of {len} in {} bytes at {path:?} of {kind}", bytes.len());
        let payload = &bytes[4..len];
        path.push(attr);
        let body = if is_nest(path, kind) && well_formed(payload) {
            Body::Nest(parse_attrs(payload, path, kind))
        } else {
            Body::Bytes(payload.to_vec())
        };
        path.pop();
        attrs.push(Attr { kind: attr, body });
        bytes = &bytes[len.next_multiple_of(4).min(bytes.len())..];
    }
    attrs
}

/// Whether bytes are attributes from start to end. An expression's data may hold numbers instead.
fn well_formed(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        if bytes.len() < 4 {
            return false;
        }
        let len = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]) & 0x3fff;
        if len < 4 || len > bytes.len() || kind == 0 || kind > 64 {
            return false;
        }
        bytes = &bytes[len.next_multiple_of(4).min(bytes.len())..];
    }
    true
}

fn put_attrs(attrs: &[Attr], into: &mut Vec<u8>) {
    for attr in attrs {
        let start = into.len();
        into.extend([0; 4]);
        let kind = match &attr.body {
            Body::Bytes(bytes) => {
                into.extend(bytes);
                attr.kind
            }
            Body::Nest(attrs) => {
                put_attrs(attrs, into);
                attr.kind | 0x8000
            }
        };
        let len = u16::try_from(into.len() - start).expect("an attribute of the kernel's fits an attribute");
        into[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        into[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        into.resize(into.len().next_multiple_of(4), 0);
    }
}

fn put_message(kind: u16, flags: u16, seq: u32, family: u8, resource: u16, attrs: &[Attr], into: &mut Vec<u8>) {
    let start = into.len();
    into.extend([0; 4]);
    into.extend(kind.to_ne_bytes());
    into.extend(flags.to_ne_bytes());
    into.extend(seq.to_ne_bytes());
    into.extend([0; 4]);
    into.extend([family, 0]);
    into.extend(resource.to_be_bytes());
    put_attrs(attrs, into);
    let len = u32::try_from(into.len() - start).expect("a message is shorter than 4 GiB");
    into[start..start + 4].copy_from_slice(&len.to_ne_bytes());
}

/// What the kernel refused of a batch.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Place of the message in the batch; none for the batch itself.
    pub at: Option<usize>,
    pub error: String,
    /// Where in the message, in bytes, if the kernel says.
    pub offset: Option<u32>,
}

/// A netfilter socket in the namespace of the thread that opens it.
pub struct Netfilter {
    socket: Socket,
}

impl Netfilter {
    pub fn open() -> Self {
        let mut socket = Socket::new(NETLINK_NETFILTER).expect("a netlink socket");
        socket.bind_auto().expect("a port");
        socket.set_cap_ack(true).expect("NETLINK_CAP_ACK");
        socket.set_ext_ack(true).expect("NETLINK_EXT_ACK");
        for option in [libc::SO_SNDBUFFORCE, libc::SO_RCVBUFFORCE] {
            let bytes: libc::c_int = 1 << 28;
            // SAFETY: the option's value is the local `bytes` and the length is its; the socket is open for the call.
            let done = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    option,
                    (&raw const bytes).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                )
            };
            assert_eq!(done, 0, "{}", io::Error::last_os_error());
        }
        Self { socket }
    }

    fn send(&self, bytes: &[u8]) {
        let sent = self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0).expect("a request is sent");
        assert_eq!(sent, bytes.len());
    }

    /// A datagram. The kernel makes the next ones of a dump as large as the room it was given for this one, and leaves out a rule for
    /// which there is none: the room must be large from the first dump on.
    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut datagram = Vec::with_capacity(1 << 17);
        self.socket.recv_from(&mut datagram, 0)?;
        Ok(datagram)
    }

    /// Everything of a kind; `new` is the message that makes one.
    pub fn dump(&self, new: u8, family: u8, attrs: &[Attr]) -> Vec<Message> {
        let mut request = Vec::new();
        put_message(SUBSYSTEM | u16::from(new + 1), REQUEST | DUMP, 1, family, 0, attrs, &mut request);
        self.send(&request);
        let mut found = Vec::new();
        loop {
            let datagram = self.receive().expect("an answer");
            let mut rest = &datagram[..];
            while rest.len() >= HEADER {
                let len = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
                let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                match kind {
                    DONE => return found,
                    ERROR => {
                        let code = i32::from_ne_bytes(rest[HEADER..HEADER + 4].try_into().unwrap());
                        // A kernel built without flowtables or objects has none.
                        let error = io::Error::from_raw_os_error(-code);
                        assert!(matches!(-code, libc::EOPNOTSUPP | libc::ENOENT), "dump {new}: {error}");
                        return found;
                    }
                    kind if kind == SUBSYSTEM | u16::from(new) => found.push(Message {
                        kind: new,
                        family: rest[HEADER],
                        attrs: parse_attrs(&rest[HEADER + GENERIC..len], &mut Vec::new(), new),
                    }),
                    kind => panic!("an answer of type {kind:#x} to a dump of {new}"),
                }
                rest = &rest[len.next_multiple_of(4).min(rest.len())..];
            }
        }
    }

    /// Commits messages as one transaction.
    pub fn commit(&mut self, messages: &[Message]) -> Result<(), Refusal> {
        let mut batch = Vec::new();
        put_message(BATCH_BEGIN, REQUEST, 0, 0, 10, &[], &mut batch);
        for (at, message) in messages.iter().enumerate() {
            let flags = REQUEST | CREATE | if message.kind == NEW_RULE { APPEND } else { 0 };
            let kind = SUBSYSTEM | u16::from(message.kind);
            put_message(kind, flags, at as u32 + 1, message.family, 0, &message.attrs, &mut batch);
        }
        put_message(BATCH_END, REQUEST, 0, 0, 10, &[], &mut batch);
        self.send(&batch);
        // The kernel has answered before `send` returns.
        self.socket.set_non_blocking(true).unwrap();
        let mut refused = None;
        loop {
            match self.receive() {
                Ok(datagram) => {
                    refused = refused.or_else(|| refusal(&datagram));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("no answer to a batch: {error}"),
            }
        }
        self.socket.set_non_blocking(false).unwrap();
        refused.map_or(Ok(()), Err)
    }
}

fn refusal(datagram: &[u8]) -> Option<Refusal> {
    let len = u32::from_ne_bytes(datagram.get(..4)?.try_into().ok()?) as usize;
    let code = i32::from_ne_bytes(datagram.get(HEADER..HEADER + 4)?.try_into().ok()?);
    if u16::from_ne_bytes([datagram[4], datagram[5]]) != ERROR || code == 0 {
        return None;
    }
    let seq = u32::from_ne_bytes(datagram.get(HEADER + 12..HEADER + 16)?.try_into().ok()?);
    let told = parse_attrs(datagram.get(HEADER + 4 + HEADER..len).unwrap_or_default(), &mut Vec::new(), u8::MAX);
    let text =
        told.iter().find(|attr| attr.kind == 1).map(|attr| String::from_utf8_lossy(attr.as_bytes()).into_owned());
    let offset = told.iter().find(|attr| attr.kind == 2).and_then(|attr| attr.as_bytes().try_into().ok());
    Some(Refusal {
        at: (seq as usize).checked_sub(1),
        error: format!(
            "{}{}",
            io::Error::from_raw_os_error(-code),
            text.map(|text| format!(" ({text})")).unwrap_or_default()
        ),
        offset: offset.map(u32::from_ne_bytes),
    })
}

/// Writes attributes one a line, each with its path.
pub fn show(attrs: &[Attr], path: &str, into: &mut Vec<String>) {
    let mut seen = [0_u8; 64];
    for attr in attrs {
        let count = &mut seen[usize::from(attr.kind % 64)];
        *count = count.saturating_add(1);
    }
    for (at, attr) in attrs.iter().enumerate() {
        let path = if seen[usize::from(attr.kind % 64)] > 1 {
            format!("{path}.{}#{at}", attr.kind)
        } else {
            format!("{path}.{}", attr.kind)
        };
        match &attr.body {
            Body::Nest(attrs) => {
                // An expression says its name.
                let name = match attrs.first() {
                    Some(Attr { kind: 1, body: Body::Bytes(name) }) if attrs.len() <= 2 => text_of(name),
                    _ => None,
                };
                show(attrs, &name.map_or(path.clone(), |name| format!("{path}({name})")), into);
            }
            Body::Bytes(bytes) => {
                let mut line = format!("{path} = ");
                match text_of(bytes) {
                    Some(text) => write!(line, "{text:?}").unwrap(),
                    None => bytes.iter().for_each(|byte| write!(line, "{byte:02x}").unwrap()),
                }
                into.push(line);
            }
        }
    }
}

/// The text of bytes that look like one: printable, two letters at least, and a NUL.
pub fn text_of(bytes: &[u8]) -> Option<String> {
    let (last, text) = bytes.split_last()?;
    let is_text = *last == 0 && text.len() > 1 && text.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    is_text.then(|| String::from_utf8_lossy(text).into_owned())
}
