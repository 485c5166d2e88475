//! What a field can be held against: values, ranges, prefixes, lists and sets of them.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::{Ipv4Net, Ipv6Net};

use super::set::SetOf;
use super::value::Value;
use crate::nft::{CmpOp, InterfaceName, SetName, TableId};

/// One value of a set, or a range of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span<V> {
    pub(super) first: V,
    /// Absent for one value.
    pub(super) last: Option<V>,
    /// Whether whatever starts like the first one is meant.
    pub(super) starts: bool,
}

/// The first and the last value, in network byte order.
pub(super) type Ends = (Vec<u8>, Vec<u8>);

impl<V: Value> Span<V> {
    pub(super) fn ends(&self) -> Ends {
        let from = self.first.to_bytes();
        let to = match &self.last {
            Some(last) => last.to_bytes(),
            None if self.starts => from.iter().map(|byte| if *byte == 0 { 0xff } else { *byte }).collect(),
            None => from.clone(),
        };
        (from, to)
    }

    pub(super) fn is_range(&self) -> bool {
        self.last.is_some() || self.starts
    }
}

impl<V: Value> From<V> for Span<V> {
    fn from(value: V) -> Self {
        Self { first: value, last: None, starts: false }
    }
}

impl<V: Value, T: Into<V>> From<RangeInclusive<T>> for Span<V> {
    fn from(range: RangeInclusive<T>) -> Self {
        let (first, last) = range.into_inner();
        Self { first: first.into(), last: Some(last.into()), starts: false }
    }
}

impl From<Ipv4Net> for Span<Ipv4Addr> {
    fn from(net: Ipv4Net) -> Self {
        if net.prefix_len() == 32 { net.network().into() } else { (net.network()..=net.broadcast()).into() }
    }
}

impl From<Ipv6Net> for Span<Ipv6Addr> {
    fn from(net: Ipv6Net) -> Self {
        if net.prefix_len() == 128 { net.network().into() } else { (net.network()..=net.broadcast()).into() }
    }
}

/// What a field is held against: made of an [`Operand`].
#[derive(Debug, Clone)]
pub struct Test<V> {
    pub(super) negated: bool,
    pub(super) kind: Kind<V>,
}

#[derive(Debug, Clone)]
pub(super) enum Kind<V> {
    Is(V),
    /// The value and how many of its bits count.
    Prefix(V, u32),
    /// The first bytes.
    Starts(Vec<u8>),
    Within(V, V),
    Compare(CmpOp, V),
    Among(Vec<Span<V>>),
    In {
        table: TableId,
        set: SetName,
        interval: bool,
    },
}

impl<V> Test<V> {
    pub(super) fn is(value: V) -> Self {
        Kind::Is(value).into()
    }
}

impl<V> From<Kind<V>> for Test<V> {
    fn from(kind: Kind<V>) -> Self {
        Self { negated: false, kind }
    }
}

/// What a field with values `V` can be held against: a value, a range, a prefix, several of them, a set, and [`not`] any of these.
#[diagnostic::on_unimplemented(
    message = "a field whose values are of type `{V}` can't be held against `{Self}`",
    label = "not `{V}`, nor a range, prefix, list or set of them"
)]
pub trait Operand<V> {
    /// What is asked of the field.
    fn test(self) -> Test<V>;
}

impl<V: Value> Operand<V> for V {
    fn test(self) -> Test<V> {
        Test::is(self)
    }
}

impl<V: Value> Operand<V> for Test<V> {
    fn test(self) -> Test<V> {
        self
    }
}

impl<V: Value, T: Into<V>> Operand<V> for RangeInclusive<T> {
    fn test(self) -> Test<V> {
        let (first, last) = self.into_inner();
        Kind::Within(first.into(), last.into()).into()
    }
}

impl Operand<Ipv4Addr> for Ipv4Net {
    fn test(self) -> Test<Ipv4Addr> {
        Kind::Prefix(self.network(), u32::from(self.prefix_len())).into()
    }
}

impl Operand<Ipv6Addr> for Ipv6Net {
    fn test(self) -> Test<Ipv6Addr> {
        Kind::Prefix(self.network(), u32::from(self.prefix_len())).into()
    }
}

impl<V: Value, T: Into<Span<V>>, const N: usize> Operand<V> for [T; N] {
    fn test(self) -> Test<V> {
        Kind::Among(self.into_iter().map(Into::into).collect()).into()
    }
}

impl<V: Value, T: Into<Span<V>>> Operand<V> for Vec<T> {
    fn test(self) -> Test<V> {
        Kind::Among(self.into_iter().map(Into::into).collect()).into()
    }
}

impl<V: Value, T: Into<Span<V>> + Clone> Operand<V> for &[T] {
    fn test(self) -> Test<V> {
        Kind::Among(self.iter().cloned().map(Into::into).collect()).into()
    }
}

impl<V: Value> Operand<V> for &SetOf<V> {
    fn test(self) -> Test<V> {
        Kind::In { table: self.table().clone(), set: self.name().clone(), interval: self.is_interval() }.into()
    }
}

/// Interfaces whose names start like that. nft(8): `"eth*"`.
///
/// # Examples
///
/// ```
/// use ringfence::nft::InterfaceName;
/// use ringfence::nft::statements::{Inet, Span, Starting, TableOf};
///
/// let input = TableOf::<Inet>::new("guard")?.chain("input")?;
/// let (eth, ppp) = (InterfaceName::new("eth")?, InterfaceName::new("ppp0")?);
/// // iifname { "eth*", "ppp0" } accept
/// let rule = input.rule().iifname([Span::from(Starting(eth)), Span::from(ppp)]).accept()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Starting(pub InterfaceName);

impl Operand<InterfaceName> for Starting {
    fn test(self) -> Test<InterfaceName> {
        Kind::Starts(self.0.as_str().as_bytes().to_vec()).into()
    }
}

impl From<Starting> for Span<InterfaceName> {
    fn from(Starting(name): Starting) -> Self {
        Self { first: name, last: None, starts: true }
    }
}

/// Any other. nft(8): `!=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Not<T>(T);

/// Turns a comparison around: `tcp_dport(not(22))`. nft(8): `!=`.
pub fn not<T>(operand: T) -> Not<T> {
    Not(operand)
}

impl<V, T: Operand<V>> Operand<V> for Not<T> {
    fn test(self) -> Test<V> {
        let test = self.0.test();
        Test { negated: !test.negated, ..test }
    }
}

/// An order: what [`less_than`] and its like give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ordered<T>(CmpOp, T);

impl<V: Value, T: Into<V>> Operand<V> for Ordered<T> {
    fn test(self) -> Test<V> {
        Kind::Compare(self.0, self.1.into()).into()
    }
}

/// nft(8): `<`.
pub fn less_than<T>(value: T) -> Ordered<T> {
    Ordered(CmpOp::Lt, value)
}

/// nft(8): `<=`.
pub fn at_most<T>(value: T) -> Ordered<T> {
    Ordered(CmpOp::Lte, value)
}

/// nft(8): `>`.
pub fn more_than<T>(value: T) -> Ordered<T> {
    Ordered(CmpOp::Gt, value)
}

/// nft(8): `>=`.
pub fn at_least<T>(value: T) -> Ordered<T> {
    Ordered(CmpOp::Gte, value)
}
