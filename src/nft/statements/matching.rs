//! Statements that ask.

use super::field;
use super::*;
use crate::nft::{CmpOp, Data, Expr, ExthdrOp, FibFlags, FibResult, Register};

/// Matches.
impl<F: TableFamily> Statements<F> {
    /// Matches a field.
    pub fn matches<V: Value, L>(self, field: FieldOf<V, L>, operand: impl Operand<V>) -> Self
    where
        F: Sees<L>,
    {
        let test = operand.test();
        self.with(|lowering| lowering.matches(&field.asked(), test))
    }

    /// Matches when a set, or a list, has the fields' values. nft(8): `FIELD . FIELD @SET`, `FIELD . FIELD { VALUE . VALUE, … }`.
    ///
    /// In a list of ranges of several fields no two may overlap: the kernel refuses them, by the element (`File exists`).
    ///
    /// # Examples
    ///
    /// ```
    /// use ringfence::nft::statements::{IP_DADDR, Inet, TCP_DPORT, TableOf};
    ///
    /// let (web, office): (ipnet::Ipv4Net, ipnet::Ipv4Net) = ("198.51.100.0/24".parse()?, "203.0.113.0/25".parse()?);
    /// let input = TableOf::<Inet>::new("guard")?.chain("input")?;
    /// // ip daddr . tcp dport { 198.51.100.0/24 . 80, 203.0.113.0/25 . 8000-8999 } accept
    /// let rule = input.rule().within((IP_DADDR, TCP_DPORT), [(web, 80..=80), (office, 8000..=8999)]).accept()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn within<T: Fields<F>>(self, fields: T, set: impl Members<T::Key>) -> Self {
        self.with(|lowering| lowering.lookup(&fields.parts(), set.look(), false))
    }

    /// Matches when a set, or a list, lacks the fields' values. nft(8): `FIELD . FIELD != @SET`.
    pub fn outside<T: Fields<F>>(self, fields: T, set: impl Members<T::Key>) -> Self {
        self.with(|lowering| lowering.lookup(&fields.parts(), set.look(), true))
    }

    /// Matches some of the field's bits. nft(8): `FIELD & MASK == VALUE`, `FIELD & MASK != VALUE`, `FIELD & MASK { VALUE, … }`.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringfence::nft::statements::{Inet, MARK, TableOf, not};
    ///
    /// let input = TableOf::<Inet>::new("guard")?.chain("input")?;
    /// // meta mark & 0xff != 7 drop
    /// let rule = input.rule().masked(MARK, 0xff, not(7)).drop()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn masked<V: Value, L>(self, field: FieldOf<V, L>, mask: impl Into<V>, operand: impl Operand<V>) -> Self
    where
        F: Sees<L>,
    {
        let (asked, test) = (field.masked(&mask.into()), operand.test());
        self.with(|lowering| lowering.matches(&asked, test))
    }

    /// Matches when one of these flags is set.
    fn any_of<V: Value + PartialEq, L>(self, field: FieldOf<V, L>, flags: V, none: V) -> Self
    where
        F: Sees<L>,
    {
        if flags == none {
            return self.with(|_| Err(StatementError::Empty));
        }
        self.masked(field, flags, not(none))
    }

    /// Matches when the flow is in one of these states. nft(8): `ct state A,B`.
    pub fn ct_state(self, states: CtStates) -> Self
    where
        F: Sees<layer::Upper>,
    {
        self.any_of(CT_STATE, states, CtStates(0))
    }

    /// Matches when one of these became of the flow. nft(8): `ct status A,B`.
    pub fn ct_status(self, status: CtStatus) -> Self
    where
        F: Sees<layer::Upper>,
    {
        self.any_of(CT_STATUS, status, CtStatus(0))
    }

    /// Matches when of these TCP flags those are set, and the others are not. nft(8): `tcp flags SET / OF`, `tcp flags & OF != SET`.
    pub fn tcp_flags(self, set: impl Operand<TcpFlags>, of: TcpFlags) -> Self
    where
        F: Sees<layer::Upper>,
    {
        self.masked(TCP_FLAGS, of, set)
    }

    /// Matches when one of these TCP flags is set. nft(8): `tcp flags A,B`.
    pub fn tcp_flags_any(self, of: TcpFlags) -> Self
    where
        F: Sees<layer::Upper>,
    {
        self.any_of(TCP_FLAGS, of, TcpFlags(0))
    }

    /// Matches IPv4. nft(8): `meta nfproto ipv4`.
    pub fn ipv4(self) -> Self
    where
        F: Sees<layer::V4> + Sees<layer::Any>,
    {
        self.nfproto(NfProto::IPV4)
    }

    /// Matches IPv6. nft(8): `meta nfproto ipv6`.
    pub fn ipv6(self) -> Self
    where
        F: Sees<layer::V6> + Sees<layer::Any>,
    {
        self.nfproto(NfProto::IPV6)
    }

    /// Matches fragments but the first. nft(8): `ip frag-off & 0x1fff != 0`.
    pub fn ip_later_fragment(self) -> Self
    where
        F: Sees<layer::V4>,
    {
        self.masked(field::IP_FRAGMENT, 0x1fff, not(0))
    }

    /// Matches the class of service of IPv6. nft(8): `ip6 dscp N`.
    pub fn ip6_dscp(self, dscp: impl Into<Dscp>) -> Self
    where
        F: Sees<layer::V6>,
    {
        match in_six_bits(dscp.into()) {
            Ok(dscp) => self.masked(field::IP6_CLASS, 0x0fc0, dscp << 6),
            Err(error) => self.with(|_| Err(error)),
        }
    }

    /// Matches when the routing tables have a route by these. nft(8): `fib saddr . iif oif exists`.
    pub fn fib_exists(self, by: FibFlags) -> Self
    where
        F: Sees<layer::Upper>,
    {
        self.fib(FibResult::Oif, by.and(FibFlags::PRESENT), Data::native32(1))
    }

    /// Matches when the routing tables have no route by these. nft(8): `fib saddr . iif oif missing`.
    pub fn fib_missing(self, by: FibFlags) -> Self
    where
        F: Sees<layer::Upper>,
    {
        self.fib(FibResult::Oif, by.and(FibFlags::PRESENT), Data::native32(0))
    }

    /// Matches the type that an address has in the routing tables. nft(8): `fib daddr type local`.
    pub fn fib_type(self, by: FibFlags, kind: impl Operand<AddressType>) -> Self
    where
        F: Sees<layer::Upper>,
    {
        self.matches(fib_type(by), kind)
    }

    fn fib(self, result: FibResult, flags: FibFlags, data: Data) -> Self {
        let dreg = Register::FIRST;
        self.effect([Expr::Fib { result, flags, dreg }, Expr::Cmp { op: CmpOp::Eq, sreg: dreg, data }])
    }

    /// Matches an IPv6 packet with that extension header. nft(8): `exthdr NAME exists`, by number.
    pub fn ip6_extension(self, header: Protocol) -> Self
    where
        F: Sees<layer::V6>,
    {
        let dreg = Register::FIRST;
        self.with(|lowering| {
            lowering.need_network(EtherType::IP6, true)?;
            lowering.effect([
                Expr::Exthdr { op: ExthdrOp::Ipv6, kind: header.0, offset: 0, len: 1, present: true, dreg },
                Expr::Cmp { op: CmpOp::Eq, sreg: dreg, data: Data::byte(1) },
            ]);
            Ok(())
        })
    }
}

/// A class of service as it goes into its field.
pub(super) fn in_six_bits(Dscp(dscp): Dscp) -> Result<u16, StatementError> {
    if dscp > 0x3f { Err(StatementError::TooLarge { value: dscp.into(), bits: 6 }) } else { Ok(dscp.into()) }
}
