//! The ruleset inside a sandbox: what its programs may send, in the order in which the kernel asks.
//!
//! Nothing here follows connections. The programs of a sandbox are always the side that opens a flow, so every packet they
//! may send carries an allowed destination, and taking an element out of a set stops the flow with its next packet.

use crate::link::VethPair;
use crate::nft::{
    BaseChain, Chain, ChainName, ChainPolicy, ChainType, CmpOp, Data, Datatype, Element, Family, Field, Hook,
    InterfaceName, KeyType, Log, NameError, Object, Priority, Reject, RejectCode, Rule, Ruleset, Set, SetFlags,
    SetName, Table, TableId, TableName, Transaction, Verb, Verdict, ct_state,
};

use super::{DirectAddress, Open, PlanError};

/// The nflog group that refused packets of a sandbox go to. Groups belong to a network namespace, so one number serves all.
pub const NFLOG_GROUP: u16 = 1;

/// How many bytes of a refused packet are handed over: every header this fence looks at, with room for options.
const SNAPLEN: u32 = 128;

/// Index of the loopback interface in every network namespace.
const LOOPBACK: u32 = 1;

/// IPv4 fragment field without the don't-fragment bit: more-fragments and offset.
const FRAGMENT: u16 = 0x3fff;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMP: u8 = 1;
pub(super) const ICMPV6: u8 = 58;
/// ICMPv6 types of neighbour discovery that a wire of two ends needs.
pub(super) const ND_NEIGHBOR_SOLICIT: u8 = 135;
pub(super) const ND_NEIGHBOR_ADVERT: u8 = 136;
/// IPv6 headers that a packet to an endpoint may not have in front of its protocol's: hop-by-hop options, routing, fragment,
/// destination options.
pub(super) const EXTENSION_HEADERS: [u8; 4] = [0, 43, 44, 60];
/// What a kernel sends by itself when an interface comes up: router solicitations and group memberships.
const KERNEL_CHATTER: [u8; 4] = [133, 131, 132, 143];

/// Compiles the fence inside: an inet table with the output hook, and a netdev table with the egress hook of the wire.
pub(super) fn ruleset(pair: &VethPair, open: &[Open], audit: bool) -> Result<Ruleset, PlanError> {
    let mut ruleset = Ruleset::default();
    inet(&mut ruleset, open, audit)?;
    egress(&mut ruleset, pair)?;
    Ok(ruleset)
}

/// The elements of the sets of direct endpoints inside, set by set.
pub(crate) fn elements(open: &[Open]) -> Result<Vec<(SetName, Vec<Element>)>, PlanError> {
    let mut sets = Vec::new();
    for (name, v4) in [("direct4", true), ("direct6", false)] {
        let here = open.iter().filter(|open| open.to.address.is_ipv4() == v4);
        let elements = here.map(|open| Ok(Element { timeout: open.timeout, ..Element::new(open.to.key()?) }));
        let elements = elements.collect::<Result<Vec<_>, PlanError>>()?;
        if !elements.is_empty() {
            sets.push((SetName::new(name)?, elements));
        }
    }
    Ok(sets)
}

/// The transaction that closes and opens direct endpoints inside a sandbox, whatever of it was open before.
///
/// # Errors
///
/// [`PlanError`] never comes from keys of these lengths; it is there so that nothing here can panic.
pub fn change_inside(close: &[DirectAddress], open: &[Open]) -> Result<Transaction, PlanError> {
    let table = TableId { family: Family::Inet, name: TableName::new("ringfence")? };
    Ok(change(&table, elements(&replaced(close, open))?, elements(open)?))
}

/// What has to be taken out: what is closed, and what is opened with another time-out than it has.
pub(super) fn replaced(close: &[DirectAddress], open: &[Open]) -> Vec<Open> {
    let close = close.iter().map(|to| Open { to: *to, timeout: None, there: true });
    close.chain(open.iter().filter(|open| open.there).copied()).collect()
}

/// The transaction that takes elements out of sets, whether they are there or not, and puts others in.
///
/// An element that is there keeps its time-out when it is added again, and one that has just run out is an error to delete. So what is taken out is
/// added first, which makes sure that it is there. Packets see the state before all of that, or the one after.
pub(super) fn change(
    table: &TableId,
    close: Vec<(SetName, Vec<Element>)>,
    open: Vec<(SetName, Vec<Element>)>,
) -> Transaction {
    let mut transaction = Transaction::new();
    let mut push = |verb, set: &SetName, elements: &[Element]| {
        let (table, set, elements) = (table.clone(), set.clone(), elements.to_vec());
        transaction.push(verb, Object::Elements { table, set, elements });
    };
    for (set, elements) in &close {
        push(Verb::Add, set, elements);
        push(Verb::Delete, set, elements);
    }
    for (set, elements) in &open {
        push(Verb::Add, set, elements);
    }
    transaction
}

fn inet(ruleset: &mut Ruleset, open: &[Open], audit: bool) -> Result<(), PlanError> {
    let table = table(ruleset, Family::Inet)?;
    let (direct4, direct6) = (SetName::new("direct4")?, SetName::new("direct6")?);
    for (name, address) in [(&direct4, Datatype::Ipv4Addr), (&direct6, Datatype::Ipv6Addr)] {
        let key = KeyType(vec![address, Datatype::InetProto, Datatype::InetService]);
        // An address of a name stays as long as its answer holds.
        let flags = SetFlags { timeout: true, ..SetFlags::default() };
        ruleset.sets.push(Set { flags, ..Set::new(&table, name, key) });
    }
    for (name, elements) in elements(open)? {
        ruleset.elements.push((table.clone(), name, elements));
    }

    let output = base(ruleset, &table, "output", Hook::Output, None)?;
    let refuse = regular(ruleset, &table, "refuse")?;
    let malformed = regular(ruleset, &table, "malformed")?;
    let forward = base(ruleset, &table, "forward", Hook::Forward, None)?;
    let mut rule = |rule: Rule| ruleset.rules.push(rule);
    let at = |chain: &ChainName| Rule::new(&table, chain);

    // A1, and first: a reset that answers a refused connect travels over the loopback interface, and would be refused itself.
    rule(at(&output).equals(Field::OIF, Data::native32(LOOPBACK)).counter().verdict(Verdict::Accept));
    // Before any accept: a first fragment carries ports and could pass for an allowed packet, with anything behind it.
    rule(
        at(&output)
            .nfproto(Family::Ip)
            .masked(Field::IP_FRAGMENT, Data::be16(FRAGMENT), CmpOp::Neq, Data::be16(0))
            .verdict(Verdict::Goto(malformed.clone())),
    );
    // IP options: the header is longer than five words.
    rule(
        at(&output)
            .nfproto(Family::Ip)
            .masked(Field::IP_HDRLENGTH, Data::byte(0x0f), CmpOp::Neq, Data::byte(5))
            .verdict(Verdict::Goto(malformed.clone())),
    );
    // A2 to A4. The protocol is taken from the fixed header, not from the end of the header chain: an IPv6 packet with
    // a fragment, routing or options header in front matches no element.
    rule(
        at(&output)
            .nfproto(Family::Ip)
            .in_set(&[Field::IP_DADDR, Field::IP_PROTOCOL, Field::DPORT], &direct4, false)?
            .counter()
            .verdict(Verdict::Accept),
    );
    rule(
        at(&output)
            .nfproto(Family::Ip6)
            .in_set(&[Field::IP6_DADDR, Field::IP6_NEXTHDR, Field::DPORT], &direct6, false)?
            .counter()
            .verdict(Verdict::Accept),
    );
    // A6.
    for kind in [ND_NEIGHBOR_SOLICIT, ND_NEIGHBOR_ADVERT] {
        rule(
            at(&output)
                .nfproto(Family::Ip6)
                .equals(Field::IP6_NEXTHDR, Data::byte(ICMPV6))
                .equals(Field::ICMP_TYPE, Data::byte(kind))
                .counter()
                .verdict(Verdict::Accept),
        );
    }
    // Dropped without a word: the kernel sends these by itself, and a report of them would be noise at every start.
    for kind in KERNEL_CHATTER {
        rule(
            at(&output)
                .nfproto(Family::Ip6)
                .l4proto(ICMPV6)
                .equals(Field::ICMP_TYPE, Data::byte(kind))
                .counter()
                .verdict(Verdict::Drop),
        );
    }
    rule(at(&output).verdict(Verdict::Goto(refuse.clone())));

    if audit {
        // The one place where an audit differs: what would be refused is logged and passes. Conntrack, which nothing else inside needs, tells
        // a flow's beginning, so that a download is a line and not a million.
        let begins = ct_state::NEW | ct_state::INVALID | ct_state::UNTRACKED;
        for (protocol, prefix) in
            [(TCP, "audit-tcp"), (UDP, "audit-udp"), (ICMP, "audit-icmp"), (ICMPV6, "audit-icmpv6")]
        {
            let logged = at(&refuse).l4proto(protocol).ct_state(begins).log(log(prefix)).counter();
            rule(logged.verdict(Verdict::Accept));
            rule(at(&refuse).l4proto(protocol).counter().verdict(Verdict::Accept));
        }
        rule(at(&refuse).ct_state(begins).log(log("audit-other")).counter().verdict(Verdict::Accept));
        rule(at(&refuse).counter().verdict(Verdict::Accept));
    } else {
        // Each protocol is refused by what makes its callers fail at once. An ICMP error would leave a TCP connect waiting
        // for a second; a reset ends it in microseconds.
        for (protocol, prefix, reject) in [
            (TCP, "bypass-tcp", Reject::TcpReset),
            (UDP, "bypass-udp", Reject::Icmpx(RejectCode::PortUnreachable)),
            (ICMP, "bypass-icmp", Reject::Icmpx(RejectCode::AdminProhibited)),
            (ICMPV6, "bypass-icmpv6", Reject::Icmpx(RejectCode::AdminProhibited)),
        ] {
            rule(at(&refuse).l4proto(protocol).log(log(prefix)).counter().reject(reject));
        }
        rule(at(&refuse).log(log("bypass-other")).counter().reject(Reject::Icmpx(RejectCode::AdminProhibited)));
    }
    // No answer: a reset or an ICMP error needs a whole and ordinary packet to answer to.
    rule(at(&malformed).log(log("bypass-malformed")).counter().verdict(Verdict::Drop));
    // A sandbox is no router. Without this, a packet sent into the loopback interface with somebody else's address
    // could come back as one to forward, and pass by the output hook.
    rule(at(&forward).log(log("bypass-forward")).counter().verdict(Verdict::Drop));
    Ok(())
}

/// What leaves the wire carries the sandbox's own address, whatever made the frame.
fn egress(ruleset: &mut Ruleset, pair: &VethPair) -> Result<(), NameError> {
    let table = table(ruleset, Family::Netdev)?;
    let chain = base(ruleset, &table, "egress", Hook::Egress, Some(&pair.sandbox))?;
    let at = || Rule::new(&table, &chain);
    let protocol = |ethertype: u16| at().equals(Field::PROTOCOL, Data::be16(ethertype));
    // The output hook sees a datagram whole, and the kernel cuts it up afterwards.
    for header in EXTENSION_HEADERS {
        let headed = protocol(0x86dd).equals(Field::IP6_NEXTHDR, Data::byte(header));
        ruleset.rules.push(headed.counter().verdict(Verdict::Drop));
    }
    ruleset.rules.extend([
        protocol(0x0800)
            .equals(Field::IP_SADDR, Data::ipv4(pair.addresses.sandbox4))
            .masked(Field::IP_FRAGMENT, Data::be16(FRAGMENT), CmpOp::Eq, Data::be16(0))
            .counter()
            .verdict(Verdict::Accept),
        protocol(0x86dd)
            .equals(Field::IP6_SADDR, Data::ipv6(pair.addresses.sandbox6))
            .counter()
            .verdict(Verdict::Accept),
        protocol(0x0806)
            .equals(Field::ARP_SENDER_IP, Data::ipv4(pair.addresses.sandbox4))
            .counter()
            .verdict(Verdict::Accept),
        at().counter().verdict(Verdict::Drop),
    ]);
    Ok(())
}

fn table(ruleset: &mut Ruleset, family: Family) -> Result<TableId, NameError> {
    let id = TableId { family, name: TableName::new("ringfence")? };
    // Neither owner nor persist: this table must outlive the supervisor, for a process of the sandbox's might.
    // It goes with its namespace.
    ruleset.tables.push(Table::new(id.clone()));
    Ok(id)
}

fn base(
    ruleset: &mut Ruleset,
    table: &TableId,
    name: &str,
    hook: Hook,
    device: Option<&InterfaceName>,
) -> Result<ChainName, NameError> {
    let name = ChainName::new(name)?;
    ruleset.chains.push(Chain {
        base: Some(BaseChain {
            kind: ChainType::Filter,
            hook,
            priority: Priority::FILTER,
            // A rule that went missing closes, not opens.
            policy: ChainPolicy::Drop,
            devices: device.cloned().into_iter().collect(),
        }),
        ..Chain::new(table, &name)
    });
    Ok(name)
}

fn regular(ruleset: &mut Ruleset, table: &TableId, name: &str) -> Result<ChainName, NameError> {
    let name = ChainName::new(name)?;
    ruleset.chains.push(Chain::new(table, &name));
    Ok(name)
}

fn log(prefix: &str) -> Log {
    Log { group: NFLOG_GROUP, prefix: Some(prefix.to_owned()), snaplen: Some(SNAPLEN), queue_threshold: Some(1) }
}
