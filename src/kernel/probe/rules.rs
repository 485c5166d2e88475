//! One small transaction for each thing of nf_tables that the fence uses. Each names nothing that it does not make.

use std::net::Ipv4Addr;

use super::feature as features;
use crate::doctor::Feature;
use crate::nft::{
    BaseChain, Chain, ChainName, ChainPolicy, ChainType, Data, DataTooLong, Datatype, Element, Family, Field, Hook,
    InterfaceName, KeyType, Log, NameError, Object, Priority, Reject, RejectCode, Rule, Set, SetName, Table,
    TableFlags, TableId, TableName, Transaction, Verb, Verdict, ct_state,
};
use crate::plan::{NFLOG_GROUP, PlanError};

type Compile = fn() -> Result<Transaction, PlanError>;

/// Features and what tries them.
pub(super) const ALL: [(Feature, Compile); 9] = [
    (features::INET, inet),
    (features::CONCAT, concatenated_set),
    (features::REJECT, reject),
    (features::LOG, log),
    (features::EGRESS, egress),
    (features::OWNER, owner),
    (features::PERSIST, persist),
    (features::CONNTRACK, conntrack),
    (features::MASQUERADE, masquerade),
];

/// A transaction that makes a table, and in it what is pushed.
struct Attempt {
    table: TableId,
    transaction: Transaction,
}

impl Attempt {
    fn new(family: Family, name: &str, flags: TableFlags) -> Result<Self, NameError> {
        let table = TableId { family, name: TableName::new(name)? };
        let mut transaction = Transaction::new();
        transaction.push(Verb::Create, Object::Table(Table { flags, ..Table::new(table.clone()) }));
        Ok(Self { table, transaction })
    }

    fn inet(name: &str) -> Result<Self, NameError> {
        Self::new(Family::Inet, name, TableFlags::default())
    }

    /// Adds a base chain with one rule in it.
    fn rule(
        mut self,
        kind: ChainType,
        hook: Hook,
        devices: Vec<InterfaceName>,
        rule: impl FnOnce(Rule) -> Result<Rule, DataTooLong>,
    ) -> Result<Transaction, PlanError> {
        let name = ChainName::new("probe")?;
        let priority = if kind == ChainType::Nat { Priority::SRCNAT } else { Priority::FILTER };
        let base = BaseChain { kind, hook, priority, policy: ChainPolicy::Accept, devices };
        let rule = rule(Rule::new(&self.table, &name))?;
        let chain = Chain { base: Some(base), ..Chain::new(&self.table, &name) };
        self.transaction.push(Verb::Add, Object::Chain(chain));
        self.transaction.push(Verb::Add, Object::Rule(rule));
        Ok(self.transaction)
    }
}

fn inet() -> Result<Transaction, PlanError> {
    Attempt::inet("base")?.rule(ChainType::Filter, Hook::Output, Vec::new(), |rule| {
        Ok(rule.nfproto(Family::Ip).counter().verdict(Verdict::Accept))
    })
}

fn concatenated_set() -> Result<Transaction, PlanError> {
    let mut attempt = Attempt::inet("sets")?;
    let name = SetName::new("endpoints")?;
    attempt.transaction.push(
        Verb::Add,
        Object::Set(Set::new(
            &attempt.table,
            &name,
            KeyType(vec![Datatype::Ipv4Addr, Datatype::InetProto, Datatype::InetService]),
        )),
    );
    let fields = [Data::ipv4(Ipv4Addr::new(203, 0, 113, 9)), Data::byte(6), Data::be16(443)];
    let elements = vec![Element::new(Data::concat(&fields)?)];
    attempt.transaction.push(Verb::Add, Object::Elements { table: attempt.table.clone(), set: name.clone(), elements });
    attempt.rule(ChainType::Filter, Hook::Output, Vec::new(), |rule| {
        Ok(rule.in_set(&[Field::IP_DADDR, Field::IP_PROTOCOL, Field::DPORT], &name, false)?.verdict(Verdict::Accept))
    })
}

fn reject() -> Result<Transaction, PlanError> {
    Attempt::inet("reject")?.rule(ChainType::Filter, Hook::Output, Vec::new(), |rule| {
        Ok(rule.reject(Reject::Icmpx(RejectCode::AdminProhibited)))
    })
}

fn log() -> Result<Transaction, PlanError> {
    let log =
        Log { group: NFLOG_GROUP, prefix: Some("probe".to_owned()), snaplen: Some(128), queue_threshold: Some(1) };
    Attempt::inet("log")?.rule(ChainType::Filter, Hook::Output, Vec::new(), |rule| Ok(rule.log(log)))
}

fn egress() -> Result<Transaction, PlanError> {
    let devices = vec![InterfaceName::new("lo")?];
    Attempt::new(Family::Netdev, "egress", TableFlags::default())?.rule(
        ChainType::Filter,
        Hook::Egress,
        devices,
        |rule| Ok(rule.counter()),
    )
}

fn owner() -> Result<Transaction, PlanError> {
    Ok(Attempt::new(Family::Inet, "owner", TableFlags { owner: true, ..TableFlags::default() })?.transaction)
}

fn persist() -> Result<Transaction, PlanError> {
    let flags = TableFlags { owner: true, persist: true, ..TableFlags::default() };
    Ok(Attempt::new(Family::Inet, "persist", flags)?.transaction)
}

fn conntrack() -> Result<Transaction, PlanError> {
    Attempt::inet("conntrack")?.rule(ChainType::Filter, Hook::Forward, Vec::new(), |rule| {
        Ok(rule.ct_state(ct_state::ESTABLISHED).verdict(Verdict::Accept))
    })
}

fn masquerade() -> Result<Transaction, PlanError> {
    Attempt::inet("masquerade")?.rule(ChainType::Nat, Hook::Postrouting, Vec::new(), |rule| Ok(rule.masquerade()))
}
