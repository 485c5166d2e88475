//! Expressions, each beside the nft(8) statement that makes it.

use mnl::mnl_sys::libc::nlmsghdr;
use nftnl::nftnl_sys as sys;

use super::attributes::Attributes;
use super::buffer::{self, Buffer};
use super::object::{Expression, Fault, MAX_TEXT};
use super::{load, statement};
use crate::nft::{BitwiseOp, Data, Dynset, Expr, Log, Verdict, Xt};
use crate::wire::nftables::{MAX_NESTING, dynset_flag};

/// The verdict register.
pub(super) const NFT_REG_VERDICT: u32 = 0;

/// `NFTA_LIST_ELEM`.
pub(super) const LIST_ELEMENT: u16 = 1;

/// An expression on its way into a message.
pub(super) enum Encoded {
    /// As libnftnl has it.
    Nftnl(Expression),
    /// Name and data as attributes, where libnftnl has none.
    Direct(Attributes),
}

impl Encoded {
    /// The most bytes that it takes as an item of a list.
    pub fn room(&self, expr: &Expr) -> usize {
        // List element, name and data: two nests and at most twelve letters. Then up to eight numbers of twelve bytes at most.
        const FRAME: usize = 4 + 20 + 4;
        const NUMBERS: usize = 8 * 12;
        match self {
            Encoded::Nftnl(_) => FRAME + NUMBERS + values(expr),
            Encoded::Direct(attributes) => 4 + attributes.as_bytes().len(),
        }
    }

    /// Appends it to a message, as the item of a list.
    ///
    /// # Safety
    ///
    /// `message` points to a netlink message behind which there are [`Encoded::room`] zeroed bytes.
    pub unsafe fn put(&self, kind: u16, message: *mut nlmsghdr) {
        // SAFETY: the caller vouches for the message and the room behind it.
        unsafe {
            buffer::nest(message, kind, |message| match self {
                Encoded::Nftnl(expression) => expression.put(message),
                Encoded::Direct(attributes) => buffer::append(message, attributes.as_bytes()),
            });
        }
    }

    /// Name and data as attributes.
    fn into_attributes(self, expr: &Expr) -> Attributes {
        let room = self.room(expr);
        match self {
            Encoded::Direct(attributes) => attributes,
            // SAFETY: `put` writes no more than `room`.
            Encoded::Nftnl(expression) => unsafe { Buffer::attributes(room, |message| expression.put(message)) },
        }
    }
}

/// Bytes for what has no fixed length.
fn values(expr: &Expr) -> usize {
    const NAME: usize = 4 + MAX_TEXT + 1;
    // A nest, a header, and the value padded.
    let value = |data: &Data| 8 + data.len().next_multiple_of(4);
    match expr {
        Expr::Cmp { data, .. } | Expr::Immediate { data, .. } => value(data),
        Expr::Range { from, to, .. } => value(from) + value(to),
        Expr::Bitwise { op: BitwiseOp::MaskXor { mask, xor }, .. } => value(mask) + value(xor),
        Expr::Bitwise { op: BitwiseOp::ShiftLeft(by) | BitwiseOp::ShiftRight(by), .. } => value(by),
        Expr::Log(_) | Expr::Syslog(_) => 4 + Log::MAX_PREFIX + 1,
        Expr::Lookup { .. }
        | Expr::Map { .. }
        | Expr::VerdictMap { .. }
        | Expr::Dynset(_)
        | Expr::ObjectRef { .. }
        | Expr::ObjectMap { .. }
        | Expr::FlowOffload { .. }
        | Expr::Verdict(Verdict::Jump(_) | Verdict::Goto(_)) => NAME,
        _ => 0,
    }
}

/// A list of expressions as attributes, where they stand in an object of our own making.
pub(super) fn list(exprs: &[Expr], depth: usize) -> Result<Attributes, Fault> {
    let mut list = Attributes::new();
    for expr in exprs {
        list.nest(LIST_ELEMENT, &encode_at(expr, depth)?.into_attributes(expr))?;
    }
    Ok(list)
}

/// One expression as attributes.
pub(super) fn single(expr: &Expr, depth: usize) -> Result<Attributes, Fault> {
    Ok(encode_at(expr, depth)?.into_attributes(expr))
}

pub(super) fn encode(expr: &Expr) -> Result<Encoded, Fault> {
    encode_at(expr, 0)
}

pub(super) fn direct(name: &str, data: Option<Attributes>) -> Result<Encoded, Fault> {
    let mut attributes = Attributes::new();
    attributes.text(1, name)?;
    if let Some(data) = data {
        attributes.nest(2, &data)?;
    }
    Ok(Encoded::Direct(attributes))
}

fn encode_at(expr: &Expr, depth: usize) -> Result<Encoded, Fault> {
    if depth > MAX_NESTING {
        return Err("expressions stand too deep in one another".into());
    }
    match expr {
        Expr::Dynset(dynset) => self::dynset(dynset, depth),
        // nft(8) prints what iptables(8) made, and can't write it.
        Expr::Match(xt) => self::xt("match", xt),
        Expr::Target(xt) => self::xt("target", xt),
        Expr::Raw { name, data } => {
            let mut attributes = Attributes::new();
            attributes.text(1, name)?;
            if let Some(data) = data {
                attributes.bytes(2, data.as_slice())?;
            }
            Ok(Encoded::Direct(attributes))
        }
        _ => match load::encode(expr)? {
            Some(encoded) => Ok(encoded),
            None => statement::encode(expr),
        },
    }
}

/// nft(8): `add @set { ip saddr limit rate 10/second }`, `update @set { ip saddr timeout 1m }`
fn dynset(dynset: &Dynset, depth: usize) -> Result<Encoded, Fault> {
    let timeout = dynset.timeout.map(super::milliseconds).transpose()?;
    let flags = if dynset.negated { dynset_flag::NEGATED } else { 0 };
    if dynset.exprs.is_empty() {
        let mut e = Expression::new(c"dynset")?;
        e.text(sys::NFTNL_EXPR_DYNSET_SET_NAME, "set name", dynset.set.as_str())?;
        e.u32(sys::NFTNL_EXPR_DYNSET_OP, dynset.op.to_wire());
        e.u32(sys::NFTNL_EXPR_DYNSET_SREG_KEY, dynset.key.to_wire());
        if let Some(data) = dynset.data {
            e.u32(sys::NFTNL_EXPR_DYNSET_SREG_DATA, data.to_wire());
        }
        if let Some(timeout) = timeout {
            e.u64(sys::NFTNL_EXPR_DYNSET_TIMEOUT, timeout);
        }
        if flags != 0 {
            e.u32(sys::NFTNL_EXPR_DYNSET_FLAGS, flags);
        }
        return Ok(Encoded::Nftnl(e));
    }
    // libnftnl takes no expression of ours into one of its own.
    let mut data = Attributes::new();
    data.text(1, dynset.set.as_str())?;
    data.number(3, dynset.op.to_wire())?;
    data.number(4, dynset.key.to_wire())?;
    if let Some(value) = dynset.data {
        data.number(5, value.to_wire())?;
    }
    if let Some(timeout) = timeout {
        data.wide(6, timeout)?;
    }
    // The kernel dumps several expressions without the flag that it wants to see with them.
    let flags = match dynset.exprs.as_slice() {
        [one] => {
            data.nest(7, &single(one, depth + 1)?)?;
            flags
        }
        many => {
            data.nest(10, &list(many, depth + 1)?)?;
            flags | dynset_flag::EXPRESSIONS
        }
    };
    if flags != 0 {
        data.number(9, flags)?;
    }
    direct("dynset", Some(data))
}

/// libnftnl would take ownership of the parameters.
fn xt(name: &str, xt: &Xt) -> Result<Encoded, Fault> {
    let mut data = Attributes::new();
    data.text(1, &xt.name)?;
    data.number(2, xt.revision)?;
    data.bytes(3, xt.info.as_slice())?;
    direct(name, Some(data))
}
