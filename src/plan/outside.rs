//! The host's side of the fence: one table a supervisor, in which a sandbox is a handful of set elements.
//!
//! It holds even against a program that rewrote the rules inside, or whose frames passed by every hook there. Every
//! rule starts with a look-up of the interface, so a packet that is not a sandbox's pays one hash look-up a hook.

use std::net::IpAddr;

use crate::link::Addresses;
use crate::nft::{
    BaseChain, Chain, ChainName, ChainPolicy, ChainType, CmpOp, Data, DataTooLong, Datatype, Element, Family, Field,
    Hook, InterfaceName, KeyType, NameError, Object, Priority, Reject, RejectCode, Rule, Ruleset, Set, SetFlags,
    SetName, Table, TableFlags, TableId, TableName, Transaction, Verb, Verdict, ct_state,
};

use super::inside::{self, EXTENSION_HEADERS, ICMP, ICMPV6, ND_NEIGHBOR_ADVERT, ND_NEIGHBOR_SOLICIT, TCP, UDP};
use super::{DirectAddress, Open, PlanError};

/// What every supervisor's table is called, before the part that tells one from the other.
pub const TABLE_PREFIX: &str = "ringfence-";

/// What the chain of a sandbox's wire is called, before the name of the interface.
const WIRE_PREFIX: &str = "wire-";

/// The host's table of one supervisor: names, and what is compiled into them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    table: TableId,
    links: SetName,
    source4: SetName,
    source6: SetName,
    direct4: SetName,
    direct6: SetName,
    uplinks4: SetName,
    uplinks6: SetName,
    audited: SetName,
    forward: ChainName,
    arrived: ChainName,
    from_sandbox: ChainName,
    to_sandbox: ChainName,
    refuse: ChainName,
}

impl Outside {
    /// Names the table `ringfence-SUFFIX`.
    ///
    /// # Errors
    ///
    /// [`NameError`] when the suffix makes no name.
    pub fn new(suffix: &str) -> Result<Self, NameError> {
        Ok(Self {
            table: TableId { family: Family::Inet, name: TableName::new(&format!("{TABLE_PREFIX}{suffix}"))? },
            links: SetName::new("links")?,
            source4: SetName::new("source4")?,
            source6: SetName::new("source6")?,
            direct4: SetName::new("direct4")?,
            direct6: SetName::new("direct6")?,
            uplinks4: uplinks(true)?,
            uplinks6: uplinks(false)?,
            audited: SetName::new("audited")?,
            forward: ChainName::new("forward")?,
            arrived: ChainName::new("arrived")?,
            from_sandbox: ChainName::new("from-sandbox")?,
            to_sandbox: ChainName::new("to-sandbox")?,
            refuse: ChainName::new("refuse")?,
        })
    }

    /// Family and name of the table.
    pub fn table(&self) -> &TableId {
        &self.table
    }

    /// Compiles the table without any sandbox in it, and without anything that needs conntrack.
    ///
    /// # Errors
    ///
    /// [`PlanError`] never comes from a table that [`Outside::new`] took; it is there so that nothing here can panic.
    pub fn ruleset(&self) -> Result<Ruleset, PlanError> {
        let mut ruleset = Ruleset {
            tables: vec![Table {
                // The table goes when the supervisor does, and nobody else may change it meanwhile.
                flags: TableFlags { owner: true, ..TableFlags::default() },
                ..Table::new(self.table.clone())
            }],
            ..Ruleset::default()
        };
        for (name, fields) in [
            (&self.links, vec![Datatype::IfaceIndex]),
            (&self.source4, vec![Datatype::IfaceIndex, Datatype::Ipv4Addr]),
            (&self.source6, vec![Datatype::IfaceIndex, Datatype::Ipv6Addr]),
            (&self.direct4, vec![Datatype::IfaceIndex, Datatype::Ipv4Addr, Datatype::InetProto, Datatype::InetService]),
            (&self.direct6, vec![Datatype::IfaceIndex, Datatype::Ipv6Addr, Datatype::InetProto, Datatype::InetService]),
            // Also a note to other supervisors on this host, which goes with the table.
            (&self.uplinks4, vec![Datatype::IfaceIndex]),
            (&self.uplinks6, vec![Datatype::IfaceIndex]),
            // Those of the links from which everything passes, for somebody wants to know what there is.
            (&self.audited, vec![Datatype::IfaceIndex]),
        ] {
            // An address of a name stays as long as its answer holds.
            let flags = SetFlags { timeout: name == &self.direct4 || name == &self.direct6, ..SetFlags::default() };
            ruleset.sets.push(Set { flags, ..Set::new(&self.table, name, KeyType(fields)) });
        }
        let prerouting =
            self.base(&mut ruleset, "prerouting", ChainType::Filter, Hook::Prerouting, Priority::RAW_BEFORE_DEFRAG)?;
        let input = self.base(&mut ruleset, "input", ChainType::Filter, Hook::Input, Priority::FILTER)?;
        let forward = self.base(&mut ruleset, "forward", ChainType::Filter, Hook::Forward, Priority::FILTER)?;
        for chain in [&self.arrived, &self.from_sandbox, &self.to_sandbox, &self.refuse] {
            self.chain(&mut ruleset, chain);
        }

        let at = |chain: &ChainName| Rule::new(&self.table, chain);
        let mut rule = |rule: Rule| ruleset.rules.push(rule);

        // Before conntrack puts fragments together, so that they can still be told. The wire's own chain asks the same, and
        // earlier; it is bound to the interface by name, and this one holds under any name.
        rule(at(&prerouting).in_set(&[Field::IIF], &self.links, false)?.verdict(Verdict::Jump(self.arrived.clone())));
        rule(
            at(&self.arrived)
                .nfproto(Family::Ip)
                .masked(Field::IP_FRAGMENT, Data::be16(0x3fff), CmpOp::Neq, Data::be16(0))
                .counter()
                .verdict(Verdict::Drop),
        );
        rule(
            at(&self.arrived)
                .nfproto(Family::Ip)
                .masked(Field::IP_HDRLENGTH, Data::byte(0x0f), CmpOp::Neq, Data::byte(5))
                .counter()
                .verdict(Verdict::Drop),
        );
        rule(
            at(&self.arrived)
                .nfproto(Family::Ip)
                .in_set(&[Field::IIF, Field::IP_SADDR], &self.source4, true)?
                .counter()
                .verdict(Verdict::Drop),
        );
        rule(
            at(&self.arrived)
                .nfproto(Family::Ip6)
                .in_set(&[Field::IIF, Field::IP6_SADDR], &self.source6, true)?
                .counter()
                .verdict(Verdict::Drop),
        );
        for header in EXTENSION_HEADERS {
            rule(
                at(&self.arrived)
                    .nfproto(Family::Ip6)
                    .equals(Field::IP6_NEXTHDR, Data::byte(header))
                    .counter()
                    .verdict(Verdict::Drop),
            );
        }

        rule(at(&input).in_set(&[Field::IIF], &self.links, false)?.verdict(Verdict::Goto(self.from_sandbox.clone())));
        // Towards a sandbox comes first: from one sandbox to another is both, and must not pass for a way out.
        rule(at(&forward).in_set(&[Field::OIF], &self.links, false)?.verdict(Verdict::Goto(self.to_sandbox.clone())));
        rule(at(&forward).in_set(&[Field::IIF], &self.links, false)?.verdict(Verdict::Goto(self.from_sandbox.clone())));

        // A2 to A4: the same endpoints as inside, and the same fixed-header protocol.
        for (family, daddr, protocol, set) in [
            (Family::Ip, Field::IP_DADDR, Field::IP_PROTOCOL, &self.direct4),
            (Family::Ip6, Field::IP6_DADDR, Field::IP6_NEXTHDR, &self.direct6),
        ] {
            rule(
                at(&self.from_sandbox)
                    .nfproto(family)
                    .in_set(&[Field::IIF, daddr, protocol, Field::DPORT], set, false)?
                    .counter()
                    .verdict(Verdict::Accept),
            );
        }
        // A6. They pass the input hook alone: a router has counted the hop limit down before it asks the forward hook.
        for kind in [ND_NEIGHBOR_SOLICIT, ND_NEIGHBOR_ADVERT] {
            rule(
                at(&self.from_sandbox)
                    .nfproto(Family::Ip6)
                    .equals(Field::IP6_NEXTHDR, Data::byte(ICMPV6))
                    .equals(Field::ICMP_TYPE, Data::byte(kind))
                    .equals(Field::IP6_HOPLIMIT, Data::byte(255))
                    .counter()
                    .verdict(Verdict::Accept),
            );
        }
        rule(at(&self.from_sandbox).in_set(&[Field::IIF], &self.audited, false)?.counter().verdict(Verdict::Accept));
        rule(at(&self.from_sandbox).verdict(Verdict::Goto(self.refuse.clone())));
        rule(at(&self.refuse).l4proto(TCP).counter().reject(Reject::TcpReset));
        rule(at(&self.refuse).l4proto(UDP).counter().reject(Reject::Icmpx(RejectCode::PortUnreachable)));
        rule(at(&self.refuse).counter().reject(Reject::Icmpx(RejectCode::AdminProhibited)));

        // The last rule of the chain. What follows flows is put in front of it when the first direct endpoint asks for it.
        rule(at(&self.to_sandbox).counter().verdict(Verdict::Drop));
        Ok(ruleset)
    }

    /// Compiles what lets answers back in and gives flows the host's address: A5, A7 and masquerade.
    ///
    /// Apart from the rest, because it makes conntrack follow every flow of the host, which a host whose sandboxes use the
    /// proxy alone need not pay. The rules belong in front of what [`Outside::ruleset`] put into their chains.
    ///
    /// # Errors
    ///
    /// As [`Outside::ruleset`].
    fn routing(&self) -> Result<(Vec<Rule>, Ruleset), PlanError> {
        let at = |chain: &ChainName| Rule::new(&self.table, chain);
        // Of what conntrack can't follow, no source address is translated: it would leave with the sandbox's own.
        let mut rules = vec![at(&self.from_sandbox).ct_state(ct_state::INVALID).counter().verdict(Verdict::Drop)];
        // An uplink that did not forward before does so for sandboxes' answers alone: nobody out there may start a flow through
        // this host. Answers to sandboxes of other supervisors, which this table does not know, are told by conntrack.
        for (family, uplinks) in [(Family::Ip, &self.uplinks4), (Family::Ip6, &self.uplinks6)] {
            rules.push(
                at(&self.forward)
                    .nfproto(family)
                    .in_set(&[Field::IIF], uplinks, false)?
                    .ct_state(ct_state::NEW | ct_state::INVALID)
                    .counter()
                    .verdict(Verdict::Drop),
            );
        }
        // An answer must come from an endpoint that is still allowed: a flow whose endpoint was taken away is cut in
        // both directions.
        for (family, saddr, protocol, set) in [
            (Family::Ip, Field::IP_SADDR, Field::IP_PROTOCOL, &self.direct4),
            (Family::Ip6, Field::IP6_SADDR, Field::IP6_NEXTHDR, &self.direct6),
        ] {
            rules.push(
                at(&self.to_sandbox)
                    .nfproto(family)
                    .in_set(&[Field::OIF, saddr, protocol, Field::SPORT], set, false)?
                    .ct_state(ct_state::ESTABLISHED)
                    .counter()
                    .verdict(Verdict::Accept),
            );
        }
        rules.push(
            at(&self.to_sandbox)
                .in_set(&[Field::OIF], &self.audited, false)?
                .ct_state(ct_state::ESTABLISHED | ct_state::RELATED)
                .counter()
                .verdict(Verdict::Accept),
        );
        for (icmp, family) in [(ICMP, Family::Ip), (ICMPV6, Family::Ip6)] {
            rules.push(
                at(&self.to_sandbox)
                    .nfproto(family)
                    .l4proto(icmp)
                    .ct_state(ct_state::RELATED)
                    .counter()
                    .verdict(Verdict::Accept),
            );
        }
        let mut nat = Ruleset::default();
        let postrouting = self.base(&mut nat, "postrouting", ChainType::Nat, Hook::Postrouting, Priority::SRCNAT)?;
        nat.rules.push(at(&postrouting).in_set(&[Field::IIF], &self.links, false)?.counter().masquerade());
        Ok((rules, nat))
    }

    /// The transaction that adds to a table without routing what direct endpoints need.
    ///
    /// # Errors
    ///
    /// As [`Outside::ruleset`].
    pub fn add_routing(&self) -> Result<Transaction, PlanError> {
        let (rules, nat) = self.routing()?;
        let mut transaction = Transaction::new();
        // Inserted each in front of the one before.
        for rule in rules.into_iter().rev() {
            transaction.push(Verb::Insert, Object::Rule(rule));
        }
        for chain in nat.chains {
            transaction.push(Verb::Add, Object::Chain(chain));
        }
        for rule in nat.rules {
            transaction.push(Verb::Add, Object::Rule(rule));
        }
        Ok(transaction)
    }

    /// Compiles the table with routing in it, as it stands once [`Outside::add_routing`] was committed.
    ///
    /// # Errors
    ///
    /// As [`Outside::ruleset`].
    pub fn routing_ruleset(&self) -> Result<Ruleset, PlanError> {
        let mut ruleset = self.ruleset()?;
        let (rules, nat) = self.routing()?;
        for rule in rules.into_iter().rev() {
            let first = ruleset.rules.iter().position(|other| other.chain == rule.chain);
            ruleset.rules.insert(first.unwrap_or(ruleset.rules.len()), rule);
        }
        ruleset.chains.extend(nat.chains);
        ruleset.rules.extend(nat.rules);
        Ok(ruleset)
    }

    /// The chain of one sandbox's wire, which sees its packets before anything else of the host's does.
    ///
    /// Before any other hook, the kernel reads the options that an IPv6 packet carries hop by hop, and answers one that it
    /// does not know with an error to the packet's source: an address that the sandbox may have made up, somewhere out
    /// there, and a copy of the packet with it. Nothing but this hook comes early enough.
    ///
    /// # Errors
    ///
    /// As [`Outside::ruleset`].
    pub fn wire(&self, host: &InterfaceName) -> Result<(Chain, Rule), PlanError> {
        let name = ChainName::new(&format!("{WIRE_PREFIX}{host}"))?;
        let base = BaseChain {
            kind: ChainType::Filter,
            hook: Hook::Ingress,
            priority: Priority::FILTER,
            // What is left over goes on to the hooks that judge where it may go.
            policy: ChainPolicy::Accept,
            devices: vec![host.clone()],
        };
        let rule = Rule::new(&self.table, &name).verdict(Verdict::Goto(self.arrived.clone()));
        Ok((Chain { base: Some(base), ..Chain::new(&self.table, &name) }, rule))
    }

    /// The elements that stand for one sandbox, set by set. The interface comes last: from that element on its packets are judged.
    ///
    /// # Errors
    ///
    /// [`DataTooLong`] never comes from keys of these lengths; it is there so that nothing here can panic.
    pub fn sandbox(
        &self,
        host_index: u32,
        addresses: &Addresses,
        open: &[Open],
        audit: bool,
    ) -> Result<Vec<(SetName, Vec<Element>)>, DataTooLong> {
        let index = Data::native32(host_index);
        let key = |fields: &[Data]| Data::concat(fields).map(Element::new);
        let mut sets = vec![
            (self.source4.clone(), vec![key(&[index.clone(), Data::ipv4(addresses.sandbox4)])?]),
            (self.source6.clone(), vec![key(&[index.clone(), Data::ipv6(addresses.sandbox6)])?]),
        ];
        sets.extend(self.direct(host_index, open)?);
        if audit {
            sets.push((self.audited.clone(), vec![Element::new(index.clone())]));
        }
        sets.push((self.links.clone(), vec![Element::new(index)]));
        Ok(sets)
    }

    /// The elements of a sandbox's direct endpoints, set by set.
    fn direct(&self, host_index: u32, open: &[Open]) -> Result<Vec<(SetName, Vec<Element>)>, DataTooLong> {
        let mut direct4 = Vec::new();
        let mut direct6 = Vec::new();
        for Open { to, timeout, .. } in open {
            let [address, protocol, port] = to.fields();
            let key = Data::concat(&[Data::native32(host_index), address, protocol, port])?;
            let element = Element { timeout: *timeout, ..Element::new(key) };
            if to.address.is_ipv4() { direct4.push(element) } else { direct6.push(element) }
        }
        let sets = [(&self.direct4, direct4), (&self.direct6, direct6)];
        Ok(sets.into_iter().filter(|(_, elements)| !elements.is_empty()).map(|(set, e)| (set.clone(), e)).collect())
    }

    /// The transaction that closes and opens direct endpoints of a sandbox, whatever of it was open before.
    ///
    /// # Errors
    ///
    /// As [`Outside::sandbox`].
    pub fn change_direct(
        &self,
        host_index: u32,
        close: &[DirectAddress],
        open: &[Open],
    ) -> Result<Transaction, DataTooLong> {
        let close = self.direct(host_index, &inside::replaced(close, open))?;
        Ok(inside::change(&self.table, close, self.direct(host_index, open)?))
    }

    /// The transaction that adds or deletes elements of this table's sets.
    pub fn change(&self, verb: Verb, sets: Vec<(SetName, Vec<Element>)>) -> Transaction {
        let mut transaction = Transaction::new();
        for (set, elements) in sets {
            transaction.push(verb, Object::Elements { table: self.table.clone(), set, elements });
        }
        transaction
    }

    /// The transaction that notes (or forgets) an uplink whose forwarding was switched on for sandboxes.
    pub fn note_uplink(&self, verb: Verb, v4: bool, index: u32) -> Transaction {
        let set = if v4 { &self.uplinks4 } else { &self.uplinks6 };
        self.change(verb, vec![(set.clone(), vec![Element::new(Data::native32(index))])])
    }

    fn base(
        &self,
        ruleset: &mut Ruleset,
        name: &str,
        kind: ChainType,
        hook: Hook,
        priority: Priority,
    ) -> Result<ChainName, NameError> {
        let name = ChainName::new(name)?;
        // Accept: these hooks see every packet of the host, and what is no sandbox's is not ours to judge. What is a
        // sandbox's never reaches the policy, for its chains end in a refusal.
        let base = BaseChain { kind, hook, priority, policy: ChainPolicy::Accept, devices: Vec::new() };
        ruleset.chains.push(Chain { base: Some(base), ..Chain::new(&self.table, &name) });
        Ok(name)
    }

    fn chain(&self, ruleset: &mut Ruleset, name: &ChainName) {
        ruleset.chains.push(Chain::new(&self.table, name));
    }
}

/// Name of the set in which a supervisor notes uplinks that did not forward that family before.
///
/// # Errors
///
/// [`NameError`] never comes from these constants; it is there so that nothing here can panic.
pub fn uplinks(v4: bool) -> Result<SetName, NameError> {
    SetName::new(if v4 { "uplinks4" } else { "uplinks6" })
}

impl DirectAddress {
    /// The fields of its key, as both sides' sets hold them.
    fn fields(&self) -> [Data; 3] {
        let address = match self.address {
            IpAddr::V4(address) => Data::ipv4(address),
            IpAddr::V6(address) => Data::ipv6(address),
        };
        [address, Data::byte(self.transport.protocol()), Data::be16(self.port.get())]
    }

    /// Its key in the sets inside.
    ///
    /// # Errors
    ///
    /// As [`Outside::sandbox`].
    pub(super) fn key(&self) -> Result<Data, DataTooLong> {
        Data::concat(&self.fields())
    }
}
