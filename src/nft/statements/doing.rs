//! Statements that do something and go on.

use super::action::Constants;
use super::field;
use super::*;
use crate::nft::{
    ByteorderOp, Comment, CtKey, Data, Dynset, DynsetOp, Expr, ExthdrOp, FlowtableName, KnownObject, Limit, Log,
    MetaKey, ObjectName, Quota, Register, Verdict,
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

    /// Counts with a named counter. nft(8): `counter name NAME`.
    pub fn counter_named(self, name: &ObjectName) -> Self {
        self.effect([Expr::ObjectRef { kind: KnownObject::Counter.into(), name: name.clone() }])
    }

    /// Uses a named quota. nft(8): `quota name NAME`.
    pub fn quota_named(self, name: &ObjectName) -> Self {
        self.effect([Expr::ObjectRef { kind: KnownObject::Quota.into(), name: name.clone() }])
    }

    /// Uses a named limit. nft(8): `limit name NAME`.
    pub fn limit_named(self, name: &ObjectName) -> Self {
        self.effect([Expr::ObjectRef { kind: KnownObject::Limit.into(), name: name.clone() }])
    }

    /// Gives the flow a helper. nft(8): `ct helper set NAME`.
    pub fn ct_helper_named(self, name: &ObjectName) -> Self
    where
        F: Sees<layer::Upper>,
    {
        self.effect([Expr::ObjectRef { kind: KnownObject::CtHelper.into(), name: name.clone() }])
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
        self.dynset(DynsetOp::Add, set, &fields, each)
    }

    /// Adds the fields' values to a set, or starts their time-out anew. nft(8): `update @SET { … }`.
    pub fn update<T: Fields<F>>(self, set: &SetOf<T::Key>, fields: T, each: Each) -> Self {
        self.dynset(DynsetOp::Update, set, &fields, each)
    }

    /// Takes the fields' values out of a set. nft(8): `delete @SET { … }`.
    pub fn delete_from<T: Fields<F>>(self, set: &SetOf<T::Key>, fields: T) -> Self {
        self.dynset(DynsetOp::Delete, set, &fields, Each::new())
    }

    fn dynset<T: Fields<F>>(self, op: DynsetOp, set: &SetOf<T::Key>, fields: &T, each: Each) -> Self {
        let Each { timeout, exprs } = each;
        self.with(|lowering| {
            lowering.own("set", set.table(), set.name())?;
            if set.is_interval() {
                return Err(StatementError::OfRanges(set.name().clone()));
            }
            if timeout.is_some_and(|timeout| timeout.is_zero()) {
                return Err(StatementError::Zero { what: "time-out" });
            }
            exprs.iter().try_for_each(possible)?;
            if exprs.len() > 2 {
                return Err(StatementError::TooMuch(exprs.len()));
            }
            let loads = lowering.load(&fields.parts(), false)?;
            let (key, set) = (Register::FIRST, set.name().clone());
            let change = Dynset { set, op, key, data: None, timeout, negated: false, exprs };
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

    /// Marks the flow as a map has it; ends the rule when it has nothing. nft(8): `ct mark set FIELD . FIELD map @MAP`.
    pub fn set_ct_mark_by<T: Fields<F>>(self, fields: T, map: impl Mapping<T::Key, Mark>) -> Self
    where
        F: Sees<layer::Upper>,
    {
        self.by(&fields, map.look(), |sreg| Expr::CtSet { key: CtKey::Mark, direction: None, sreg })
    }
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
