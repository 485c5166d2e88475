//! Rules in words: statements above expressions, as nft(8) has them.
//!
//! A rule is written by naming what is matched and what is done, in the order in which nft(8) would have it. What a field
//! depends on comes by itself: `tcp_dport` makes sure that the packet is TCP. The expressions that come out are [nearly](self#what-differs)
//! those that nft(8) 1.0.6 makes of the same words.
//!
//! ```
//! use ringfence::nft::Ruleset;
//! use ringfence::nft::statements::{CtStates, Inet, TableOf, not};
//! use std::net::Ipv4Addr;
//!
//! let table = TableOf::<Inet>::new("guard")?;
//! let input = table.chain("input")?;
//! let office: ipnet::Ipv4Net = "198.51.100.0/24".parse()?;
//!
//! let mut ruleset = Ruleset::default();
//! // ct state established,related accept
//! ruleset.push_rule(input.rule().ct_state(CtStates::ESTABLISHED | CtStates::RELATED).accept()?);
//! // ip saddr 198.51.100.0/24 tcp dport { 22, 8000-8010 } counter accept
//! ruleset.push_rule(input.rule().ip_saddr(office).tcp_dport([22..=22, 8000..=8010]).counter().accept()?);
//! // ip daddr != 203.0.113.9 udp dport >= 1024 drop
//! let server = Ipv4Addr::new(203, 0, 113, 9);
//! ruleset.push_rule(input.rule().ip_daddr(not(server)).udp_dport(1024..=65535).drop()?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What does not compile
//!
//! A port where an address is due:
//!
//! ```compile_fail,E0277
//! # use ringfence::nft::statements::{Inet, TableOf};
//! # let chain = TableOf::<Inet>::new("t").unwrap().chain("c").unwrap();
//! chain.rule().ip_saddr(443);
//! ```
//!
//! An IPv6 field in a table of IPv4:
//!
//! ```compile_fail,E0277
//! # use ringfence::nft::statements::{Ip, TableOf};
//! # let chain = TableOf::<Ip>::new("t").unwrap().chain("c").unwrap();
//! chain.rule().ip6_saddr(std::net::Ipv6Addr::LOCALHOST);
//! ```
//!
//! A set whose keys are of another type than the fields:
//!
//! ```compile_fail,E0277
//! # use ringfence::nft::statements::{Inet, IP_SADDR, Port, TCP_DPORT, TableOf};
//! # let table = TableOf::<Inet>::new("t").unwrap();
//! # let chain = table.chain("c").unwrap();
//! let set = table.set::<(Port, std::net::Ipv4Addr)>("s").unwrap();
//! chain.rule().within((IP_SADDR, TCP_DPORT), &set);
//! ```
//!
//! A map to ports where one to addresses is due:
//!
//! ```compile_fail,E0277
//! # use ringfence::nft::statements::{Inet, Port, TCP_DPORT, TableOf};
//! # let table = TableOf::<Inet>::new("t").unwrap();
//! # let chain = table.chain("c").unwrap();
//! let map = table.map::<Port, Port>("m").unwrap();
//! chain.rule().dnat_by(TCP_DPORT, &map);
//! ```
//!
//! Anything behind a verdict:
//!
//! ```compile_fail,E0599
//! # use ringfence::nft::statements::{Inet, TableOf};
//! # let chain = TableOf::<Inet>::new("t").unwrap().chain("c").unwrap();
//! chain.rule().accept().counter();
//! ```
//!
//! What only shows when the whole rule is there, such as `tcp_dport` behind `udp_dport`, is a [`StatementError`] that the last call gives.
//!
//! # What differs
//!
//! Where nft(8) joins comparisons in a way that changes what they mean, they stay apart. By other expressions, for the same packets:
//!
//! - where a rule names a protocol itself, in front of what depends on it: `meta l4proto icmp icmp type 8` asks in family inet for the network
//!   protocol too (so ICMP within IPv6 is not met), and `meta protocol vlan vlan id 5` asks once;
//! - `ether saddr M tcp dport N ip saddr A` compares the frame's address and type where the address stands, not behind the port;
//! - `meta l4proto`, of one byte, is not turned to network byte order among ranges of several fields;
//! - `meta protocol ip` in family ip, which says nothing there, is asked;
//! - `ip dscp` and `vlan pcp` in a list or a map of one field are moved to the right to be looked up; nft(8) 1.0.6 does so for sets with a
//!   name and among several fields, and moves the values of other lists instead;
//! - a rule's own set with the same value twice has room for both.

mod action;
mod bits;
mod doing;
mod ending;
mod family;
mod field;
mod interval;
mod join;
mod key;
mod lower;
mod map;
mod matching;
mod named;
mod operand;
mod place;
mod set;
mod value;
mod written;

use std::marker::PhantomData;

pub use action::{Each, LogTo, NatAddress, NatTo, NatValue, Per, Ports};
pub use family::{Arp, Bridge, Inet, Ip, Ip6, Mixed, Netdev, Sees, TableFamily, Translates, layer};
pub use field::*;
pub use key::{Key, Spanning};
pub use map::{Looked, MapOf, MapValue, Mapping, Members, VerdictMapOf};
pub use named::{CounterName, CtHelperName, LimitName, QuotaName};
pub use operand::{Not, Operand, Ordered, Span, Starting, Test, at_least, at_most, less_than, more_than, not};
pub use place::{ChainOf, TableOf};
pub use set::{Elements, SetOf};
pub use value::*;
pub use written::Written;

use lower::Lowering;

use super::{ChainName, Comment, Expr, SetName, TableId};

/// Says why statements make no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatementError {
    /// Two matches that no packet meets both.
    #[error("no packet is {first} and {second} at once")]
    Conflict {
        /// What was asked first.
        first: String,
        /// What was asked then.
        second: String,
    },
    /// A port is rewritten, and nothing says that there is one.
    #[error("a port is rewritten in a rule that does not match the transport protocol")]
    NoTransport,
    /// A list without anything in it, or no flag of several.
    #[error("a list of values is empty")]
    Empty,
    /// Two keys of a map that both stand for the same value.
    #[error("two keys of a map overlap")]
    Overlap,
    /// A range that ends before it begins.
    #[error("a range ends before it begins")]
    Backwards,
    /// A set, map or chain of another table.
    #[error("{what} `{name}` is of table {theirs}, the rule of {ours}")]
    Elsewhere {
        /// What it is.
        what: &'static str,
        /// Its name.
        name: String,
        /// The table it is of.
        theirs: TableId,
        /// The table of the rule.
        ours: TableId,
    },
    /// A map, or a set of other keys than its handle would have.
    #[error("`{0}` is a map, or a set of keys of another type")]
    OtherKeys(SetName),
    /// Single elements of a set of ranges: the kernel would take each for the beginning of a range without an end.
    #[error("set `{0}` holds ranges, not single elements")]
    OfRanges(SetName),
    /// Ranges in a set that does not hold any: the kernel would take their ends for elements.
    #[error("set `{0}` does not hold ranges")]
    NoRanges(SetName),
    /// A text that packets cannot be logged with.
    #[error("a log prefix {reason}")]
    LogPrefix {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A rate or time that the kernel refuses, or takes for none at all.
    #[error("a {what} of zero")]
    Zero {
        /// What it is.
        what: &'static str,
    },
    /// Fields that don't fit the registers.
    #[error("the fields together have more than the kernel's 64 bytes")]
    TooLong,
    /// More expressions than a rule may have.
    #[error("a rule of {0} expressions, more than the kernel's 128")]
    TooMany(usize),
    /// More to be done for each element of a set than the kernel keeps there.
    #[error("{0} expressions for each element of a set, more than the kernel's 2")]
    TooMuch(usize),
    /// Bits that a field does not have.
    #[error("{value} does not fit a field of {bits} bits")]
    TooLarge {
        /// The value.
        value: u64,
        /// How many bits there are.
        bits: u32,
    },
}

/// A rule in the making. See [the module](self).
#[derive(Debug, Clone)]
#[must_use = "a rule is not whole before a verdict or `done`"]
pub struct Statements<F> {
    chain: ChainName,
    comment: Option<Comment>,
    lowering: Lowering,
    /// The first thing that was wrong.
    error: Option<StatementError>,
    family: PhantomData<F>,
}

impl<F: TableFamily> Statements<F> {
    fn with(mut self, step: impl FnOnce(&mut Lowering) -> Result<(), StatementError>) -> Self {
        if self.error.is_none() {
            self.error = step(&mut self.lowering).err();
        }
        self
    }

    fn effect(self, exprs: impl IntoIterator<Item = Expr>) -> Self {
        self.with(|lowering| {
            lowering.effect(exprs);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::nft::{CmpOp, Data, MetaKey, QueueFlags, QueueNumber, Register, Reject, RejectCode, Ruleset, Verdict};

    fn chain<F: TableFamily>() -> ChainOf<F> {
        TableOf::<F>::new("t").unwrap().chain("c").unwrap()
    }

    const HERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

    #[test]
    fn what_no_packet_is_makes_no_rule() {
        let error = chain::<Inet>().rule().tcp_dport(22).udp_sport(53).accept().unwrap_err();
        assert_eq!(error.to_string(), "no packet is TCP and UDP at once");
        let error = chain::<Inet>().rule().ip_saddr(HERE).ipv6().drop().unwrap_err();
        assert_eq!(error.to_string(), "no packet is IPv4 and IPv6 at once");
        let error = chain::<Inet>().rule().ipv6().dnat(HERE).unwrap_err();
        assert_eq!(error.to_string(), "no packet is IPv6 and IPv4 at once");
        let error = chain::<Inet>().rule().udp_dport(53).reject_tcp_reset().unwrap_err();
        assert_eq!(error.to_string(), "no packet is UDP and TCP at once");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let rule = || chain::<Inet>().rule();
        assert_eq!(rule().masquerade(1024..=2048), Err(StatementError::NoTransport));
        assert_eq!(rule().dnat(NatTo::from(HERE).port(80)), Err(StatementError::NoTransport));
        let other = || rule().ipv4().l4proto(not(Protocol::TCP)).dnat(NatTo::from(HERE).port(53));
        assert_eq!(other(), Err(StatementError::NoTransport));
        assert!(rule().l4proto([Protocol::TCP, Protocol::UDP]).dnat(NatTo::from(HERE).port(53)).is_ok());
        assert_eq!(rule().tcp_dport(Vec::<u16>::new()).accept(), Err(StatementError::Empty));
        #[allow(clippy::reversed_empty_ranges)]
        let backwards = rule().tcp_dport(9..=5).accept();
        assert_eq!(backwards, Err(StatementError::Backwards));
        let twice = rule().vmap(TCP_DPORT, [(5..=9, Verdict::Accept), (9..=10, Verdict::Drop)]).done();
        assert_eq!(twice, Err(StatementError::Overlap));
        let too_large = |value, bits| Err(StatementError::TooLarge { value, bits });
        for large in [
            rule().ip_dscp(64),
            rule().ip_dscp(not(3..=64)),
            rule().ip_dscp([Dscp::EF, Dscp(64)]),
            rule().ip6_dscp(64),
            rule().set_ip_dscp(64),
            rule().set_ip6_dscp(64),
            rule().vmap(IP_DSCP, [(Dscp(64), Verdict::Accept)]),
            rule().within((MARK, IP_DSCP), [(1, 3..=64)]),
            rule().outside((MARK, IP_DSCP), [(1, Dscp(64))]),
        ] {
            assert_eq!(large.done(), too_large(64, 6));
        }
        assert_eq!(rule().vlan_id([1..=5, 9..=4096]).accept(), too_large(4096, 12));
        assert_eq!(rule().vlan_pcp(less_than(8)).accept(), too_large(8, 3));
        assert_eq!(rule().tproxy_to_port(1).done(), Err(StatementError::NoTransport));
        assert_eq!(rule().tproxy(HERE, 1).done(), Err(StatementError::NoTransport));
        assert!(matches!(rule().ipv6().tcp_dport(1).tproxy(HERE, 1).done(), Err(StatementError::Conflict { .. })));
        let many = (0..200).fold(rule(), |rule, _| rule.counter()).accept();
        assert_eq!(many, Err(StatementError::TooMany(201)));
    }

    #[test]
    fn what_the_kernel_would_take_for_something_else_is_refused() {
        use crate::nft::{Limit, Log, Syslog};
        let rule = || chain::<Inet>().rule();
        let text = |rule: Result<Written, StatementError>| rule.unwrap_err().to_string();

        let prefix = |len| Log::to_group(1).prefix("p".repeat(len));
        assert!(rule().log(prefix(Log::MAX_PREFIX)).done().is_ok());
        assert_eq!(text(rule().log(prefix(128)).done()), "a log prefix is longer than the kernel's 127 bytes");
        assert_eq!(text(rule().log(Syslog::prefix("a\0b")).drop()), "a log prefix contains a NUL byte");
        let none = Limit::packets(0, Per::Second);
        assert_eq!(text(rule().limit(none).drop()), "a rate of zero");

        for nothing in [rule().ct_state(CtStates(0)), rule().ct_status(CtStatus(0)), rule().tcp_flags_any(TcpFlags(0))]
        {
            assert_eq!(nothing.drop(), Err(StatementError::Empty));
        }
        let before = NatTo::from(HERE..=Ipv4Addr::new(203, 0, 113, 1));
        assert_eq!(rule().dnat(before), Err(StatementError::Backwards));
        let fields = (IIFNAME, OIFNAME, IP6_SADDR, IP6_DADDR, TCP_DPORT);
        let set = TableOf::<Inet>::new("t").unwrap().set("wide").unwrap();
        assert_eq!(rule().within(fields, &set).drop(), Err(StatementError::TooLong));
    }

    #[test]
    fn what_is_of_another_table_is_refused() {
        let rule = || chain::<Inet>().rule();
        let other = TableOf::<Ip>::new("t").unwrap();
        let set = other.set("s").unwrap();
        let text = |rule: Result<Written, StatementError>| rule.unwrap_err().to_string();
        assert_eq!(text(rule().ip_saddr(&set).drop()), "set `s` is of table ip t, the rule of inet t");
        let there = TableOf::<Inet>::new("u").unwrap();
        assert_eq!(text(rule().jump(&there.chain("c").unwrap())), "chain `c` is of table inet u, the rule of inet t");
        let map = there.verdict_map("m").unwrap();
        let refused = [
            rule().ip_saddr(not(&set)).done(),
            rule().within(IP_SADDR, &set).done(),
            rule().outside(IP_SADDR, &set).done(),
            rule().add_to(&set, IP_SADDR, Each::new()).done(),
            rule().delete_from(&set, IP_SADDR).done(),
            rule().vmap(TCP_DPORT, &map).done(),
            rule().goto(&there.chain("c").unwrap()),
        ];
        for rule in refused {
            assert!(matches!(rule, Err(StatementError::Elsewhere { .. })), "{rule:?}");
        }
    }

    #[test]
    fn lists_take_plain_numbers() {
        let rule = || chain::<Inet>().rule();
        let same = [
            (rule().ip_ttl([1u8, 255]), rule().ip_ttl([Number8(1), Number8(255)])),
            (rule().skuid(vec![0u32, 1000]), rule().skuid([Uid(0), Uid(1000)])),
            (rule().icmp_type([8, 0]), rule().icmp_type([IcmpType(8), IcmpType(0)])),
            (rule().tcp_dport(&[22, 80][..]), rule().tcp_dport([Port(22), Port(80)])),
        ];
        for (plain, typed) in same {
            assert_eq!(plain.drop(), typed.drop());
        }
    }

    #[test]
    fn ranges_and_single_elements_are_not_confused() {
        let table = TableOf::<Inet>::new("t").unwrap();
        let (ranges, single) = (table.set::<Mark>("r").unwrap().interval(), table.set::<Mark>("s").unwrap());
        assert_eq!(ranges.elements([Mark(1)]), Err(StatementError::OfRanges(ranges.name().clone())));
        assert_eq!(single.spans([1..=2]), Err(StatementError::NoRanges(single.name().clone())));
        let rule = || chain::<Inet>().rule();
        let add = rule().add_to(&ranges, MARK, Each::new()).done();
        assert_eq!(add, Err(StatementError::OfRanges(ranges.name().clone())));
        let never = rule().add_to(&single, MARK, Each::new().timeout(std::time::Duration::ZERO)).done();
        assert_eq!(never.unwrap_err().to_string(), "a time-out of zero");
        let much = Each::new().counter().limit(crate::nft::Limit::packets(1, Per::Day)).flows_over(3);
        assert_eq!(rule().add_to(&single, MARK, much).done(), Err(StatementError::TooMuch(3)));
        // The kernel's byte order is turned for ranges, whichever way it is written.
        let (one, other) = (rule().mark(&ranges).drop().unwrap(), rule().within(MARK, &ranges).drop().unwrap());
        assert_eq!(one.rule(), other.rule());
        // And so are they when the set was read, and nobody says what it is.
        let read = SetOf::<Mark>::of(&ranges.declare()).unwrap();
        assert_eq!(rule().mark(&read).drop().unwrap().rule(), one.rule());
        let text = |refused: Option<StatementError>| refused.map(|refused| refused.to_string());
        let of_others = text(SetOf::<Port>::of(&ranges.declare()).err());
        assert_eq!(of_others.as_deref(), Some("`r` is a map, or a set of keys of another type"));
        let map = table.verdict_map::<Mark>("m").unwrap().declare();
        assert!(SetOf::<Mark>::of(&map).is_err());
        assert_eq!(one.rule().exprs.len(), 1 + rule().within(MARK, &single).drop().unwrap().rule().exprs.len());
    }

    #[test]
    fn maps_that_cannot_be_are_refused() {
        let table = TableOf::<Inet>::new("t").unwrap();
        let rule = || chain::<Inet>().rule();
        let (marks, ports) = (table.map::<Ipv4Addr, Mark>("m").unwrap(), table.map::<Port, Port>("p").unwrap());
        let office: ipnet::Ipv4Net = "198.51.100.0/24".parse().unwrap();
        assert_eq!(marks.elements([(office, Mark(1))]), Err(StatementError::NoRanges(marks.name().clone())));
        assert_eq!(marks.elements([(HERE, Mark(1)), (HERE, Mark(2))]), Err(StatementError::Overlap));
        assert_eq!(
            rule().set_mark_by(IP_SADDR, [(HERE, Mark(1)), (HERE, Mark(1))]).done(),
            Err(StatementError::Overlap)
        );
        assert_eq!(rule().set_mark_by(IP_SADDR, Vec::<(Ipv4Addr, Mark)>::new()).done(), Err(StatementError::Empty));
        assert_eq!(rule().within((IP_SADDR, MARK), Vec::<(Ipv4Addr, u32)>::new()).done(), Err(StatementError::Empty));
        let spans = table.set::<(Ipv4Addr, Port)>("s").unwrap();
        assert_eq!(spans.spans([(office, 1..=2)]), Err(StatementError::NoRanges(spans.name().clone())));
        #[allow(clippy::reversed_empty_ranges)]
        let backwards = rule().within((IP_SADDR, TCP_DPORT), [(office, 9..=5)]).drop();
        assert_eq!(backwards, Err(StatementError::Backwards));
        let two_ways = vec![((office, 1..=2), Verdict::Accept), ((office, 1..=2), Verdict::Drop)];
        assert_eq!(rule().vmap((IP_SADDR, TCP_DPORT), two_ways).done(), Err(StatementError::Overlap));
        let same_twice = rule().within((IP_SADDR, TCP_DPORT), [(office, 1..=2), (office, 1..=2)]).drop().unwrap();
        assert_eq!(same_twice.sets()[0].1.len(), 1);

        assert_eq!(rule().redirect_by(MARK, [(1, Port(80))]), Err(StatementError::NoTransport));
        assert_eq!(rule().dnat_by(MARK, [(1, (HERE, Port(80)))]), Err(StatementError::NoTransport));
        assert!(rule().redirect_by(TCP_DPORT, &ports).is_ok());
        let error = rule().ipv6().dnat_by(MARK, [(1, HERE)]).unwrap_err();
        assert_eq!(error.to_string(), "no packet is IPv6 and IPv4 at once");
        for nothing in [
            rule().dnat_by(numgen_inc(0), [(0, HERE)]),
            rule().dnat_by(numgen_random(0), [(0, HERE)]),
            rule().dnat_by(jhash(IP_SADDR, 0), [(0, HERE)]),
            rule().dnat_by(symhash(0), [(0, HERE)]),
            rule().set_mark_from(numgen_inc(0)).done(),
        ] {
            assert_eq!(nothing.unwrap_err().to_string(), "a modulus of zero");
        }
        let wide = jhash((IIFNAME, OIFNAME, IP6_SADDR), 2);
        assert!(rule().set_mark_by(wide, [(0, Mark(1))]).done().is_ok());
        let wider = jhash((IIFNAME, OIFNAME, IP6_SADDR, TCP_DPORT), 2);
        assert_eq!(rule().set_mark_by(wider, [(0, Mark(1))]).done(), Err(StatementError::TooLong));
        let elsewhere = TableOf::<Inet>::new("u").unwrap().map::<Ipv4Addr, Mark>("m").unwrap();
        assert!(matches!(rule().set_mark_by(IP_SADDR, &elsewhere).done(), Err(StatementError::Elsewhere { .. })));
    }

    #[test]
    fn what_a_map_is_told_stands_behind_its_key() {
        let table = TableOf::<Inet>::new("t").unwrap();
        let rule = || chain::<Inet>().rule();
        // nft(8) 1.0.6 aborts when the key is longer than a register of 16 bytes.
        let map = table.map::<(Ipv6Addr, Mark), Mark>("m").unwrap();
        let written = rule().map_add(&map, (IP6_SADDR, MARK), MARK, Each::new()).done().unwrap();
        let Some(Expr::Dynset(change)) = written.rule().exprs.last() else { panic!("{written:?}") };
        assert_eq!((change.key, change.data), (Register::FIRST, Register::slot(8)));
        let set_of_ranges = map.clone().interval();
        let refused = rule().map_update(&set_of_ranges, (IP6_SADDR, MARK), MARK, Each::new()).done();
        assert_eq!(refused, Err(StatementError::OfRanges(map.name().clone())));
        let wide = table.map::<(Ipv6Addr, Ipv6Addr), (Ipv6Addr, Ipv6Addr)>("w").unwrap();
        let fields = || (IP6_SADDR, IP6_DADDR);
        assert!(rule().map_add(&wide, fields(), fields(), Each::new()).done().is_ok());
        let wider = table.map::<(Ipv6Addr, Ipv6Addr, Mark), (Ipv6Addr, Ipv6Addr)>("w").unwrap();
        let more = (IP6_SADDR, IP6_DADDR, MARK);
        assert_eq!(rule().map_add(&wider, more, fields(), Each::new()).done(), Err(StatementError::TooLong));
        let elsewhere = TableOf::<Inet>::new("u").unwrap().map::<Mark, Mark>("m").unwrap();
        let error = rule().map_add(&elsewhere, MARK, MARK, Each::new()).done().unwrap_err();
        assert_eq!(error.to_string(), "map `m` is of table inet u, the rule of inet t");
        // Names that start alike are ranges.
        let names = table.map::<crate::nft::InterfaceName, Mark>("n").unwrap();
        let eth = || Starting(crate::nft::InterfaceName::new("eth").unwrap());
        assert_eq!(names.elements([(eth(), Mark(1))]), Err(StatementError::NoRanges(names.name().clone())));
        assert!(names.interval().elements([(eth(), Mark(1))]).is_ok());
    }

    #[test]
    fn a_dependency_comes_once_and_where_it_is_needed() {
        let rule = chain::<Inet>().rule().ip_saddr(HERE).tcp_dport(22).ip_daddr(HERE).tcp_sport(not(22)).accept();
        let names: Vec<_> = rule.unwrap().rule().exprs.iter().map(|expr| expr.kernel_name().to_owned()).collect();
        let pairs = "meta cmp payload cmp meta cmp payload cmp payload cmp payload cmp immediate";
        assert_eq!(names.join(" "), pairs);
    }

    #[test]
    fn comparisons_are_not_joined_across_an_effect() {
        let exprs = |written: Written| written.rule.exprs.len();
        let rule = || chain::<Inet>().rule();
        assert_eq!(exprs(rule().tcp_sport(1).tcp_dport(2).done().unwrap()), 4);
        assert_eq!(exprs(rule().tcp_sport(1).counter().tcp_dport(2).done().unwrap()), 7);
        assert_eq!(exprs(rule().tcp_sport(not(1)).tcp_dport(not(2)).done().unwrap()), 6);
    }

    /// What the kernels of tests may lack: queues, and refusals on a bridge. As `nft --debug=netlink` shows them.
    #[test]
    fn bridges_refuse_and_queues_take_as_nft_has_it() {
        let sreg = Register::FIRST;
        let is = |key, data| [Expr::Meta { key, dreg: sreg }, Expr::Cmp { op: CmpOp::Eq, sreg, data }];
        let exprs = |written: Result<Written, StatementError>| written.unwrap().rule.exprs;
        let rule = || chain::<Bridge>().rule();
        assert_eq!(exprs(rule().reject()), [Expr::Reject(Reject::Icmpx(RejectCode::PortUnreachable))]);
        let mut reset = is(MetaKey::L4Proto, Data::byte(6)).to_vec();
        reset.push(Expr::Reject(Reject::TcpReset));
        assert_eq!(exprs(rule().reject_tcp_reset()), reset);
        let mut host = is(MetaKey::Protocol, Data::be16(0x0800)).to_vec();
        host.push(Expr::Reject(Reject::Icmp(1)));
        assert_eq!(exprs(rule().reject_icmp(1)), host);
        let mut route = is(MetaKey::Protocol, Data::be16(0x86dd)).to_vec();
        route.push(Expr::Reject(Reject::Icmp(0)));
        assert_eq!(exprs(rule().reject_icmpv6(0)), route);
        let queue = Expr::Queue { to: QueueNumber::Range { first: 3, total: 3 }, flags: QueueFlags(3) };
        assert_eq!(exprs(rule().queue(3..=5, QueueFlags(3))), [queue]);
    }

    #[test]
    fn sets_of_rules_get_free_names() {
        let table = TableOf::<Inet>::new("t").unwrap();
        let rule = || chain::<Inet>().rule().tcp_dport([1, 2]).mark([1, 2]).accept().unwrap();
        let mut ruleset = Ruleset::default();
        ruleset.push_rule(rule());
        ruleset.push_rule(rule());
        let names: Vec<_> = ruleset.sets.iter().map(|set| set.name.as_str()).collect();
        assert_eq!(names, ["__set0", "__set1", "__set2", "__set3"]);
        let used: Vec<_> = ruleset.rules.iter().flat_map(|rule| rule.exprs.iter().filter_map(Expr::set)).collect();
        assert_eq!(used.iter().map(|name| name.as_str()).collect::<Vec<_>>(), names);
        // Many at once, names that somebody else gave among them.
        ruleset.sets.push(table.set::<Port>("__set9").unwrap().declare());
        ruleset.sets.push(table.set::<Port>("__set10_").unwrap().declare());
        ruleset.sets.push(TableOf::<Inet>::new("u").unwrap().set::<Port>("__set77").unwrap().declare());
        ruleset.push_rules([rule(), chain::<Inet>().rule().vmap(MARK, [(1, Verdict::Drop)]).done().unwrap()]);
        let names: Vec<_> = ruleset.sets[7..].iter().map(|set| set.name.as_str()).collect();
        assert_eq!(names, ["__set10", "__set11", "__map0"]);
    }
}
