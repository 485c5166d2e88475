//! Statements that do something and go on.

use super::action::Constants;
use super::bits::changed;
use super::field;
use super::matching::in_six_bits;
use super::*;
use crate::nft::{
    ByteorderOp, Checksum, Comment, CtKey, Data, Dynset, DynsetOp, Expr, ExthdrOp, Family, FlowtableName, Limit, Log,
    MetaKey, PayloadBase, Quota, Register, Verdict,
};

/// Statements that go on.
impl<F: TableFamily> Statements<F> {
    /// Appends an expression as it is.
    pub fn expr(self, expr: Expr) -> Self {
        self.effect([expr])
    }

    /// Sets the rule's comment.
    pub fn comment(mut self, comment: Comment) -> Self {
        self.comment = Some(comment);
        self
    }

    /// Appends a statement unless the kernel would refuse it.
    fn possible(self, expr: Expr) -> Self {
        self.with(|lowering| {
            possible(&expr)?;
            lowering.effect([expr]);
            Ok(())
        })
    }

    /// Counts packets and bytes. nft(8): `counter`.
    pub fn counter(self) -> Self {
        self.effect([Expr::Counter { packets: 0, bytes: 0 }])
    }

    /// Logs: a [`Log`] to an nflog group, a [`Syslog`](crate::nft::Syslog) to the kernel log.
    pub fn log(self, log: impl Into<LogTo>) -> Self {
        let LogTo(expr) = log.into();
        self.possible(expr)
    }

    /// Goes on within (or past) a rate. nft(8): `limit`.
    pub fn limit(self, limit: Limit) -> Self {
        self.possible(Expr::Limit(limit))
    }

    /// Goes on until (or once) an amount of bytes is used up. nft(8): `quota`.
    pub fn quota(self, quota: Quota) -> Self {
        self.effect([Expr::Quota(quota)])
    }

    /// Goes on while there are at most so many flows. nft(8): `ct count N`.
    pub fn flows_up_to(self, count: u32) -> Self
    where
        F: Sees<layer::Upper>,
    {
        self.effect([Expr::Connlimit { count, over: false }])
    }

    /// Goes on when there are more flows than that. nft(8): `ct count over N`.
    pub fn flows_over(self, count: u32) -> Self
    where
        F: Sees<layer::Upper>,
    {
        self.effect([Expr::Connlimit { count, over: true }])
    }

    /// Spares the packet conntrack. nft(8): `notrack`.
    pub fn notrack(self) -> Self
    where
        F: Sees<layer::Upper>,
    {
        self.effect([Expr::Notrack])
    }

    fn set_meta<V: Value>(self, key: MetaKey, value: V) -> Self {
        let mut constants = Constants::default();
        let sreg = constants.put(&value);
        self.effect(constants.exprs.into_iter().chain([Expr::MetaSet { key, sreg }]))
    }

    /// Marks the packet. nft(8): `meta mark set N`.
    pub fn set_mark(self, mark: impl Into<Mark>) -> Self {
        self.set_meta(MetaKey::Mark, mark.into())
    }

    /// Puts the packet into a class of its queueing discipline. nft(8): `meta priority set MAJOR:MINOR`.
    pub fn set_priority(self, class: impl Into<Class>) -> Self {
        self.set_meta(MetaKey::Priority, class.into())
    }

    /// Has the packet's way through the rules told to listeners. nft(8): `meta nftrace set 1`.
    pub fn trace(self) -> Self {
        self.set_meta(MetaKey::NfTrace, Number8(1))
    }

    /// Marks the packet as its flow is marked. nft(8): `meta mark set ct mark`.
    pub fn restore_mark(self) -> Self
    where
        F: Sees<layer::Upper>,
    {
        let dreg = Register::FIRST;
        self.effect([
            Expr::Ct { key: CtKey::Mark, direction: None, dreg },
            Expr::MetaSet { key: MetaKey::Mark, sreg: dreg },
        ])
    }

    /// Marks the flow as the packet is marked. nft(8): `ct mark set meta mark`.
    pub fn save_mark(self) -> Self
    where
        F: Sees<layer::Upper>,
    {
        let dreg = Register::FIRST;
        self.effect([
            Expr::Meta { key: MetaKey::Mark, dreg },
            Expr::CtSet { key: CtKey::Mark, direction: None, sreg: dreg },
        ])
    }

    /// Marks the flow. nft(8): `ct mark set N`.
    pub fn set_ct_mark(self, mark: impl Into<Mark>) -> Self
    where
        F: Sees<layer::Upper>,
    {
        let mut constants = Constants::default();
        let sreg = constants.put(&mark.into());
        self.effect(constants.exprs.into_iter().chain([Expr::CtSet { key: CtKey::Mark, direction: None, sreg }]))
    }

    /// Puts the flow into a zone of its own. nft(8): `ct zone set N`.
    pub fn set_ct_zone(self, zone: u16) -> Self
    where
        F: Sees<layer::Upper>,
    {
        let mut constants = Constants::default();
        let sreg = constants.put(&Machine16(zone));
        self.effect(constants.exprs.into_iter().chain([Expr::CtSet { key: CtKey::Zone, direction: None, sreg }]))
    }

    /// Sets some bits of the packet's mark, and leaves the others. nft(8): `meta mark set meta mark & ~OF | TO`.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringfence::nft::statements::{Inet, TableOf};
    ///
    /// let output = TableOf::<Inet>::new("route")?.chain("output")?;
    /// // tcp dport 25 meta mark set meta mark & 0xffffff00 | 0x1
    /// let rule = output.rule().tcp_dport(25).set_mark_bits(0xff, 0x1).done()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_mark_bits(self, of: u32, to: u32) -> Self {
        let dreg = Register::FIRST;
        let (load, set) = (Expr::Meta { key: MetaKey::Mark, dreg }, Expr::MetaSet { key: MetaKey::Mark, sreg: dreg });
        self.effect([load, mark_bits(of, to), set])
    }

    /// Sets some bits of the flow's mark, and leaves the others. nft(8): `ct mark set ct mark & ~OF | TO`.
    pub fn set_ct_mark_bits(self, of: u32, to: u32) -> Self
    where
        F: Sees<layer::Upper>,
    {
        let (key, direction, dreg) = (CtKey::Mark, None, Register::FIRST);
        let (load, set) = (Expr::Ct { key, direction, dreg }, Expr::CtSet { key, direction, sreg: dreg });
        self.effect([load, mark_bits(of, to), set])
    }

    /// Sets the class of service of IPv4. nft(8): `ip dscp set N`.
    pub fn set_ip_dscp(self, dscp: impl Into<Dscp>) -> Self
    where
        F: Sees<layer::V4>,
    {
        let checksum = Checksum { kind: 1, offset: 10, flags: 0 };
        self.set_class(EtherType::IP, dscp.into(), 0xff03, 2, checksum)
    }

    /// Sets the class of service of IPv6. nft(8): `ip6 dscp set N`.
    pub fn set_ip6_dscp(self, dscp: impl Into<Dscp>) -> Self
    where
        F: Sees<layer::V6>,
    {
        self.set_class(EtherType::IP6, dscp.into(), 0xf03f, 6, Checksum::default())
    }

    /// Writes a class of service, which is that far from the right of the header's first two bytes.
    fn set_class(self, of: EtherType, dscp: Dscp, keep: u16, shift: u32, checksum: Checksum) -> Self {
        self.with(|lowering| {
            let class = in_six_bits(dscp)? << shift;
            lowering.need_network(of, true)?;
            let (base, offset, len, reg) = (PayloadBase::Network, 0, 2, Register::FIRST);
            lowering.effect([
                Expr::Payload { base, offset, len, dreg: reg },
                changed(reg, &keep.to_be_bytes(), &class.to_be_bytes()),
                Expr::PayloadWrite { base, offset, len, sreg: reg, checksum },
            ]);
            Ok(())
        })
    }

    /// Announces segments that fit the route. nft(8): `tcp option maxseg size set rt mtu`.
    pub fn clamp_mss(self) -> Self
    where
        F: Sees<layer::Upper>,
    {
        let dreg = Register::FIRST;
        self.effect([
            field::ROUTE_MSS.load(dreg),
            Expr::Byteorder { sreg: dreg, dreg, op: ByteorderOp::ToNetwork, len: 2, size: 2 },
            MAXSEG,
        ])
    }

    /// Announces segments of that size. nft(8): `tcp option maxseg size set N`.
    pub fn set_mss(self, bytes: u16) -> Self
    where
        F: Sees<layer::Upper>,
    {
        self.effect([Expr::Immediate { dreg: Register::FIRST, data: Data::be16(bytes) }, MAXSEG])
    }

    /// Lets the flow pass by the rules from here on. nft(8): `flow add @NAME`.
    pub fn offload(self, flowtable: &FlowtableName) -> Self
    where
        F: Sees<layer::Upper>,
    {
        self.effect([Expr::FlowOffload { flowtable: flowtable.clone() }])
    }

    /// Adds the fields' values to a set; one that is there keeps its time-out. nft(8): `add @SET { … }`.
    pub fn add_to<T: Fields<F>>(self, set: &SetOf<T::Key>, fields: T, each: Each) -> Self {
        self.dynset(DynsetOp::Add, Changed::set(set), &fields, &[], each)
    }

    /// Adds the fields' values to a set, or starts their time-out anew. nft(8): `update @SET { … }`.
    pub fn update<T: Fields<F>>(self, set: &SetOf<T::Key>, fields: T, each: Each) -> Self {
        self.dynset(DynsetOp::Update, Changed::set(set), &fields, &[], each)
    }

    /// Takes the fields' values out of a set. nft(8): `delete @SET { … }`.
    pub fn delete_from<T: Fields<F>>(self, set: &SetOf<T::Key>, fields: T) -> Self {
        self.dynset(DynsetOp::Delete, Changed::set(set), &fields, &[], Each::new())
    }

    /// Has a map lead from some fields' values to those of others; what is there stays. nft(8): `add @MAP { FIELD : FIELD }`.
    pub fn map_add<T: Fields<F>, D: Fields<F>>(self, map: &MapOf<T::Key, D::Key>, from: T, to: D, each: Each) -> Self {
        self.dynset(DynsetOp::Add, Changed::map(map), &from, &to.parts(), each)
    }

    /// As [`Self::map_add`], and starts the time-out of what is there anew. nft(8): `update @MAP { FIELD : FIELD }`.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringfence::nft::statements::{Each, IP_DADDR, IP_SADDR, Inet, TableOf};
    /// use std::net::Ipv4Addr;
    /// use std::time::Duration;
    ///
    /// let table = TableOf::<Inet>::new("guard")?;
    /// let peers = table.map::<Ipv4Addr, Ipv4Addr>("peers")?.dynamic().timeouts();
    /// let each = Each::new().timeout(Duration::from_secs(60));
    /// // update @peers { ip saddr timeout 60s : ip daddr }
    /// let rule = table.chain("input")?.rule().map_update(&peers, IP_SADDR, IP_DADDR, each).done()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_update<T: Fields<F>, D: Fields<F>>(
        self,
        map: &MapOf<T::Key, D::Key>,
        from: T,
        to: D,
        each: Each,
    ) -> Self {
        self.dynset(DynsetOp::Update, Changed::map(map), &from, &to.parts(), each)
    }

    fn dynset<T: Fields<F>>(self, op: DynsetOp, changed: Changed<'_>, fields: &T, to: &[Part], each: Each) -> Self {
        let Each { timeout, exprs } = each;
        self.with(|lowering| {
            let Changed { what, table, name, interval } = changed;
            lowering.own(what, table, name)?;
            if interval {
                return Err(StatementError::OfRanges(name.clone()));
            }
            if timeout.is_some_and(|timeout| timeout.is_zero()) {
                return Err(StatementError::Zero { what: "time-out" });
            }
            exprs.iter().try_for_each(possible)?;
            if exprs.len() > 2 {
                return Err(StatementError::TooMuch(exprs.len()));
            }
            let (loads, data) = if to.is_empty() {
                (lowering.load(&fields.parts(), false)?, None)
            } else {
                let (loads, data) = lowering.load_pair(&fields.parts(), to)?;
                (loads, Some(data))
            };
            let (key, set) = (Register::FIRST, name.clone());
            let change = Dynset { set, op, key, data, timeout, negated: false, exprs };
            lowering.effect(loads.into_iter().chain([Expr::Dynset(change)]));
            Ok(())
        })
    }

    /// Decides as a map has it, and goes on when it has nothing. nft(8): `FIELD . FIELD vmap @MAP`, `FIELD vmap { VALUE : VERDICT, … }`.
    pub fn vmap<T: Fields<F>>(self, fields: T, map: impl Mapping<T::Key, Verdict>) -> Self {
        self.with(|lowering| {
            let (loads, set) = lowering.look(&fields.parts(), map.look())?;
            lowering.effect(loads.into_iter().chain([Expr::VerdictMap { set, sreg: Register::FIRST }]));
            Ok(())
        })
    }

    /// Does something with what a map has for the fields.
    fn by<T: Fields<F>>(self, fields: &T, map: Looked, then: impl FnOnce(Register) -> Expr) -> Self {
        self.with(|lowering| {
            let exprs = lowering.map(&fields.parts(), map)?;
            lowering.effect(exprs.into_iter().chain([then(Register::FIRST)]));
            Ok(())
        })
    }

    /// Marks the packet as a map has it; ends the rule when it has nothing. nft(8): `meta mark set FIELD . FIELD map @MAP`.
    pub fn set_mark_by<T: Fields<F>>(self, fields: T, map: impl Mapping<T::Key, Mark>) -> Self {
        self.by(&fields, map.look(), |sreg| Expr::MetaSet { key: MetaKey::Mark, sreg })
    }

    /// Puts the packet into the class that a map has; ends the rule when it has nothing. nft(8): `meta priority set FIELD . FIELD map @MAP`.
    pub fn set_priority_by<T: Fields<F>>(self, fields: T, map: impl Mapping<T::Key, Class>) -> Self {
        self.by(&fields, map.look(), |sreg| Expr::MetaSet { key: MetaKey::Priority, sreg })
    }

    /// Marks the packet with a number that fields make up. nft(8): `meta mark set numgen inc mod N`, `meta mark set jhash FIELD mod N`.
    pub fn set_mark_from<T: Fields<F, Key: Into<Mark>>>(self, fields: T) -> Self {
        self.with(|lowering| {
            let loads = lowering.load(&fields.parts(), false)?;
            let set = Expr::MetaSet { key: MetaKey::Mark, sreg: Register::FIRST };
            lowering.effect(loads.into_iter().chain([set]));
            Ok(())
        })
    }

    /// Marks the flow as a map has it; ends the rule when it has nothing. nft(8): `ct mark set FIELD . FIELD map @MAP`.
    pub fn set_ct_mark_by<T: Fields<F>>(self, fields: T, map: impl Mapping<T::Key, Mark>) -> Self
    where
        F: Sees<layer::Upper>,
    {
        self.by(&fields, map.look(), |sreg| Expr::CtSet { key: CtKey::Mark, direction: None, sreg })
    }
}

/// Statements that go on, for packets of which there are sockets here.
impl<F: Translates> Statements<F> {
    /// Hands the packet to the socket here that listens at that port, as it is. nft(8): `tproxy to :PORT`.
    ///
    /// Its rule must match the transport protocol, else the last call gives [`StatementError::NoTransport`].
    pub fn tproxy_to_port(self, port: u16) -> Self {
        self.with(|lowering| {
            lowering.has_ports()?;
            let mut constants = Constants::default();
            let port = Some(constants.put(&Port(port)));
            let family = Some(F::FAMILY).filter(|family| *family != Family::Inet);
            lowering.effect(constants.exprs.into_iter().chain([Expr::Tproxy { family, address: None, port }]));
            Ok(())
        })
    }

    /// Hands the packet to the socket here that listens at that address and port, as it is. nft(8): `tproxy to ADDRESS:PORT`.
    ///
    /// Its rule must match the transport protocol, else the last call gives [`StatementError::NoTransport`].
    pub fn tproxy<A: NatAddress>(self, address: A, port: u16) -> Self
    where
        F: Sees<A::Layer>,
    {
        self.with(|lowering| {
            lowering.has_ports()?;
            lowering.may_be(A::NETWORK)?;
            let mut constants = Constants::default();
            let (address, port) = (Some(constants.put(&address)), Some(constants.put(&Port(port))));
            let family = Some(A::FAMILY);
            lowering.effect(constants.exprs.into_iter().chain([Expr::Tproxy { family, address, port }]));
            Ok(())
        })
    }
}

/// A set or map that a rule changes.
struct Changed<'a> {
    what: &'static str,
    table: &'a TableId,
    name: &'a SetName,
    interval: bool,
}

impl<'a> Changed<'a> {
    fn set<K>(set: &'a SetOf<K>) -> Self {
        Self { what: "set", table: set.table(), name: set.name(), interval: set.is_interval() }
    }

    fn map<K, D>(map: &'a MapOf<K, D>) -> Self {
        Self { what: "map", table: map.table(), name: map.name(), interval: map.is_interval() }
    }
}

/// Sets some bits of the mark in the first register.
fn mark_bits(of: u32, to: u32) -> Expr {
    changed(Register::FIRST, &(!(of | to)).to_ne_bytes(), &to.to_ne_bytes())
}

/// Finds what no kernel takes.
fn possible(expr: &Expr) -> Result<(), StatementError> {
    let prefix = match expr {
        Expr::Limit(Limit { rate: 0, .. }) => return Err(StatementError::Zero { what: "rate" }),
        Expr::Log(log) => log.prefix.as_deref(),
        Expr::Syslog(log) => log.prefix.as_deref(),
        _ => None,
    };
    let reason = match prefix {
        Some(prefix) if prefix.len() > Log::MAX_PREFIX => "is longer than the kernel's 127 bytes",
        Some(prefix) if prefix.contains('\0') => "contains a NUL byte",
        _ => return Ok(()),
    };
    Err(StatementError::LogPrefix { reason })
}

/// Writes the largest segment of the TCP option that announces it.
const MAXSEG: Expr = Expr::ExthdrWrite { op: ExthdrOp::TcpOption, kind: 2, offset: 2, len: 2, sreg: Register::FIRST };
