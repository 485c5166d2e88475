//! Statements that end a rule: verdicts, refusals, translations of addresses.

use std::ops::RangeInclusive;

use super::action::Constants;
use super::interval::ordered;
use super::*;
use crate::nft::{
    Expr, Nat, NatFlags, NatKind, NatPorts, QueueFlags, QueueNumber, Register, RegisterRange, Reject, RejectCode, Rule,
    Verdict,
};

/// Statements that end a rule.
///
/// # Errors
///
/// All of them give the first [`StatementError`] of the rule.
impl<F: TableFamily> Statements<F> {
    /// Ends a rule that decides nothing.
    ///
    /// # Errors
    ///
    /// [`StatementError`], the first of the rule.
    pub fn done(self) -> Result<Written, StatementError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let table = self.lowering.table.clone();
        let (exprs, sets) = self.lowering.finish();
        if exprs.len() > Rule::MAX_EXPRS {
            return Err(StatementError::TooMany(exprs.len()));
        }
        Ok(Written { rule: Rule { exprs, comment: self.comment, ..Rule::new(&table, &self.chain) }, sets })
    }

    /// Decides. nft(8): `accept`, `drop`, `return`, `jump CHAIN`, `goto CHAIN`.
    ///
    /// # Errors
    ///
    /// [`StatementError`], the first of the rule.
    pub fn verdict(self, verdict: Verdict) -> Result<Written, StatementError> {
        self.effect([Expr::Verdict(verdict)]).done()
    }

    /// nft(8): `accept`.
    ///
    /// # Errors
    ///
    /// [`StatementError`], the first of the rule.
    pub fn accept(self) -> Result<Written, StatementError> {
        self.verdict(Verdict::Accept)
    }

    /// nft(8): `drop`.
    ///
    /// # Errors
    ///
    /// [`StatementError`], the first of the rule.
    #[allow(clippy::should_implement_trait)] // It is nft(8)'s word, and it does drop.
    pub fn drop(self) -> Result<Written, StatementError> {
        self.verdict(Verdict::Drop)
    }

    /// nft(8): `return`.
    ///
    /// # Errors
    ///
    /// [`StatementError`], the first of the rule.
    pub fn return_(self) -> Result<Written, StatementError> {
        self.verdict(Verdict::Return)
    }

    /// nft(8): `jump CHAIN`.
    ///
    /// # Errors
    ///
    /// [`StatementError`], the first of the rule.
    pub fn jump(self, chain: &ChainOf<F>) -> Result<Written, StatementError> {
        self.with(|lowering| lowering.own("chain", chain.table(), chain.name())).verdict(chain.jump())
    }

    /// nft(8): `goto CHAIN`.
    ///
    /// # Errors
    ///
    /// [`StatementError`], the first of the rule.
    pub fn goto(self, chain: &ChainOf<F>) -> Result<Written, StatementError> {
        self.with(|lowering| lowering.own("chain", chain.table(), chain.name())).verdict(chain.goto())
    }

    fn refuse(self, with: Reject) -> Result<Written, StatementError> {
        self.effect([Expr::Reject(with)]).done()
    }

    /// Refuses by saying that the port is unreachable. nft(8): `reject`.
    ///
    /// # Errors
    ///
    /// [`StatementError`], the first of the rule.
    pub fn reject(self) -> Result<Written, StatementError>
    where
        F: Sees<layer::Upper>,
    {
        let with = match self.lowering.network() {
            Some(EtherType::IP) => Reject::Icmp(3),
            Some(EtherType::IP6) => Reject::Icmp(4),
            _ => Reject::Icmpx(RejectCode::PortUnreachable),
        };
        self.refuse(with)
    }

    /// Refuses TCP by a reset. nft(8): `reject with tcp reset`.
    ///
    /// # Errors
    ///
    /// [`StatementError`], the first of the rule.
    pub fn reject_tcp_reset(self) -> Result<Written, StatementError>
    where
        F: Sees<layer::Upper>,
    {
        self.with(|lowering| lowering.need_transport(Protocol::TCP)).refuse(Reject::TcpReset)
    }

    /// Refuses IPv4 by that code of destination-unreachable. nft(8): `reject with icmp type`.
    ///
    /// # Errors
    ///
    /// [`StatementError`], the first of the rule.
    pub fn reject_icmp(self, code: u8) -> Result<Written, StatementError>
    where
        F: Sees<layer::V4>,
    {
        self.with(|lowering| lowering.need_network(EtherType::IP, true)).refuse(Reject::Icmp(code))
    }

    /// Refuses IPv6 by that code of destination-unreachable. nft(8): `reject with icmpv6 type`.
    ///
    /// # Errors
    ///
    /// [`StatementError`], the first of the rule.
    pub fn reject_icmpv6(self, code: u8) -> Result<Written, StatementError>
    where
        F: Sees<layer::V6>,
    {
        self.with(|lowering| lowering.need_network(EtherType::IP6, true)).refuse(Reject::Icmp(code))
    }

    /// Refuses by a code that fits the packet's family. nft(8): `reject with icmpx type`.
    ///
    /// # Errors
    ///
    /// [`StatementError`], the first of the rule.
    pub fn reject_icmpx(self, code: RejectCode) -> Result<Written, StatementError>
    where
        F: Mixed,
    {
        self.refuse(Reject::Icmpx(code))
    }

    /// Lets a program decide. nft(8): `queue num FIRST-LAST`.
    ///
    /// # Errors
    ///
    /// [`StatementError`], the first of the rule.
    pub fn queue(self, numbers: RangeInclusive<u16>, flags: QueueFlags) -> Result<Written, StatementError> {
        let (first, last) = (*numbers.start(), *numbers.end());
        self.with(|lowering| {
            let total = last.checked_sub(first).ok_or(StatementError::Backwards)?;
            let total = total.checked_add(1).ok_or(StatementError::TooLarge { value: 65_536, bits: 16 })?;
            lowering.effect([Expr::Queue { to: QueueNumber::Range { first, total }, flags }]);
            Ok(())
        })
        .done()
    }

    /// Sends the packet out of another device. nft(8): `fwd to DEVICE`.
    ///
    /// # Errors
    ///
    /// [`StatementError`], the first of the rule.
    pub fn forward_to(self, device: impl Into<Index>) -> Result<Written, StatementError>
    where
        F: Sees<layer::Ether>,
    {
        let mut constants = Constants::default();
        let device = constants.put(&device.into());
        self.effect(constants.exprs.into_iter().chain([Expr::Fwd { device, neighbour: None }])).done()
    }
}

/// Translations of addresses, which end a rule.
impl<F: Translates> Statements<F> {
    fn with_ports(self, ports: Ports) -> Self {
        self.with(|lowering| {
            if ports.first.is_some() {
                lowering.has_ports()?;
            }
            if ports.last.is_some_and(|last| ports.first.is_some_and(|first| last < first)) {
                return Err(StatementError::Backwards);
            }
            Ok(())
        })
    }

    fn nat<A: NatAddress>(self, kind: NatKind, to: NatTo<A>) -> Result<Written, StatementError> {
        let ports = to.ports;
        self.with_ports(ports)
            .with(|lowering| {
                lowering.may_be(A::NETWORK)?;
                if let Some(last) = &to.last {
                    ordered(&to.first.to_bytes(), &last.to_bytes())?;
                }
                let mut constants = Constants::default();
                let addresses = Some(constants.range(&to.first, to.last.as_ref()));
                let port = |port: u16| Port(port);
                let range = ports.first.map(|first| constants.range(&port(first), ports.last.map(port).as_ref()));
                let flags = ports.all_flags().and(NatFlags::MAP_IPS);
                let nat = Nat { kind, family: A::FAMILY, addresses, ports: range, flags };
                lowering.effect(constants.exprs.into_iter().chain([Expr::Nat(nat)]));
                Ok(())
            })
            .done()
    }

    /// Rewrites the source. nft(8): `snat to`.
    ///
    /// # Errors
    ///
    /// [`StatementError`], the first of the rule; [`StatementError::NoTransport`] when it has ports and the rule does not match the protocol.
    pub fn snat<A: NatAddress>(self, to: impl Into<NatTo<A>>) -> Result<Written, StatementError>
    where
        F: Sees<A::Layer>,
    {
        self.nat(NatKind::Source, to.into())
    }

    /// Rewrites the destination. nft(8): `dnat to`.
    ///
    /// # Errors
    ///
    /// As [`Self::snat`].
    pub fn dnat<A: NatAddress>(self, to: impl Into<NatTo<A>>) -> Result<Written, StatementError>
    where
        F: Sees<A::Layer>,
    {
        self.nat(NatKind::Destination, to.into())
    }

    fn nat_by<T: Fields<F>, D: NatValue>(
        self,
        kind: NatKind,
        fields: &T,
        map: Looked,
    ) -> Result<Written, StatementError> {
        self.with(|lowering| {
            let mut exprs = lowering.map(&fields.parts(), map)?;
            lowering.may_be(D::NETWORK)?;
            let one = |register| RegisterRange { min: register, max: register };
            let ports = D::PORT.and_then(Register::slot).map(one);
            if ports.is_some() {
                lowering.has_ports()?;
            }
            let proto = if ports.is_some() { NatFlags::PROTO_SPECIFIED } else { NatFlags(0) };
            let flags = NatFlags::MAP_IPS.and(proto);
            exprs.push(Expr::Nat(Nat { kind, family: D::FAMILY, addresses: Some(one(Register::FIRST)), ports, flags }));
            lowering.effect(exprs);
            Ok(())
        })
        .done()
    }

    /// Rewrites the source to what a map has; ends the rule when it has nothing. nft(8): `snat to FIELD . FIELD map @MAP`.
    ///
    /// # Errors
    ///
    /// As [`Self::snat`].
    pub fn snat_by<T: Fields<F>, D: NatValue>(
        self,
        fields: T,
        map: impl Mapping<T::Key, D>,
    ) -> Result<Written, StatementError>
    where
        F: Sees<D::Layer>,
    {
        self.nat_by::<T, D>(NatKind::Source, &fields, map.look())
    }

    /// Rewrites the destination to what a map has; ends the rule when it has nothing. nft(8): `dnat to FIELD . FIELD map @MAP`.
    ///
    /// # Errors
    ///
    /// As [`Self::snat`].
    ///
    /// # Examples
    ///
    /// ```
    /// use ringfence::nft::statements::{Inet, TableOf, numgen_inc};
    /// use std::net::Ipv4Addr;
    ///
    /// let prerouting = TableOf::<Inet>::new("nat")?.chain("prerouting")?;
    /// let (one, other) = (Ipv4Addr::new(198, 51, 100, 7), Ipv4Addr::new(198, 51, 100, 8));
    /// // tcp dport 80 dnat ip to numgen inc mod 2 map { 0 : 198.51.100.7, 1 : 198.51.100.8 }
    /// let rule = prerouting.rule().tcp_dport(80).dnat_by(numgen_inc(2), [(0, one), (1, other)])?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn dnat_by<T: Fields<F>, D: NatValue>(
        self,
        fields: T,
        map: impl Mapping<T::Key, D>,
    ) -> Result<Written, StatementError>
    where
        F: Sees<D::Layer>,
    {
        self.nat_by::<T, D>(NatKind::Destination, &fields, map.look())
    }

    fn local(self, ports: Ports, make: impl FnOnce(NatPorts) -> Expr) -> Result<Written, StatementError> {
        let mut constants = Constants::default();
        let range = ports.first.map(|first| constants.range(&Port(first), ports.last.map(Port).as_ref()));
        let expr = make(NatPorts { ports: range, flags: ports.all_flags() });
        self.with_ports(ports).effect(constants.exprs.into_iter().chain([expr])).done()
    }

    /// Rewrites the source to the address of the interface that the packet leaves by. nft(8): `masquerade`.
    ///
    /// # Errors
    ///
    /// As [`Self::snat`].
    pub fn masquerade(self, ports: impl Into<Ports>) -> Result<Written, StatementError> {
        self.local(ports.into(), Expr::Masquerade)
    }

    /// Rewrites the destination to this host. nft(8): `redirect to :PORT`.
    ///
    /// # Errors
    ///
    /// As [`Self::snat`].
    pub fn redirect(self, ports: impl Into<Ports>) -> Result<Written, StatementError> {
        self.local(ports.into(), Expr::Redirect)
    }

    /// Rewrites the destination to the port of this host that a map has; ends the rule when it has nothing. nft(8): `redirect to :FIELD . FIELD map @MAP`.
    ///
    /// # Errors
    ///
    /// As [`Self::snat`].
    pub fn redirect_by<T: Fields<F>>(
        self,
        fields: T,
        map: impl Mapping<T::Key, Port>,
    ) -> Result<Written, StatementError> {
        self.with(|lowering| {
            let mut exprs = lowering.map(&fields.parts(), map.look())?;
            lowering.has_ports()?;
            let ports = Some(RegisterRange { min: Register::FIRST, max: Register::FIRST });
            exprs.push(Expr::Redirect(NatPorts { ports, flags: NatFlags::PROTO_SPECIFIED }));
            lowering.effect(exprs);
            Ok(())
        })
        .done()
    }
}
