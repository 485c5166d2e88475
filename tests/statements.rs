//! Rules written in words, held against what nft(8) makes of the same words.
//!
//! Each case is loaded by `nft` into one namespace and committed by us into another, and what the kernels dump is compared whole:
//! expressions, and the sets that belong to rules with their elements. Needs `nft` and the privilege to make a network namespace; where
//! either is missing this says so, and fails when `RINGFENCE_TEST_KERNEL=require`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::time::Duration;

use ringfence::kernel::netns::Netns;
use ringfence::kernel::nftables::Socket;
use ringfence::nft::statements::*;
use ringfence::nft::{
    ChainName, Element, Expr, FibFlags, InterfaceName, Limit, Log, LogFlags, LogLevel, ObjectName, Quota, RejectCode,
    Ruleset, SetFlags, SetName, Syslog, TableId, Transaction, Verb, Verdict,
};

type Rule = Result<Written, StatementError>;

/// What nft(8) is told, and our words for it. The chain of each case has its number as its name.
struct Cases<F> {
    preamble: String,
    rows: Vec<Row<F>>,
}

/// What the chain says of itself if a hook leads to it, the words, and ours.
type Row<F> = (&'static str, &'static str, fn(&World<F>) -> Rule);

struct World<F> {
    chain: ChainOf<F>,
    addresses: SetOf<Ipv4Addr>,
    addresses6: SetOf<Ipv6Addr>,
    nets: SetOf<Ipv4Addr>,
    marks: SetOf<Mark>,
    recent: SetOf<Ipv4Addr>,
    services: SetOf<(Ipv4Addr, Port)>,
    ports: VerdictMapOf<Port>,
    spans: SetOf<(Mark, Ipv4Addr)>,
    ways: VerdictMapOf<(Ipv4Addr, Port)>,
    classes: MapOf<Ipv4Addr, Mark>,
    turned: MapOf<Mark, Mark>,
    servers: MapOf<Port, (Ipv4Addr, Port)>,
    counted: MapOf<Ipv4Addr, CounterName>,
    servers6: MapOf<(Ipv6Addr, Port), Ipv6Addr>,
    moved: MapOf<Port, Port>,
    dscps: SetOf<Dscp>,
    peers: MapOf<Ipv4Addr, Ipv4Addr>,
    flows: MapOf<(Ipv4Addr, Port), (Ipv4Addr, Mark)>,
    other: ChainOf<F>,
}

impl<F: TableFamily> World<F> {
    fn new(chain: &str) -> Self {
        let table = TableOf::<F>::new("t").unwrap();
        Self {
            chain: table.chain(chain).unwrap(),
            addresses: table.set("addresses").unwrap(),
            addresses6: table.set("addresses6").unwrap(),
            nets: table.set("nets").unwrap().interval(),
            marks: table.set("marks").unwrap().interval(),
            recent: table.set("recent").unwrap().dynamic().timeouts(),
            services: table.set("services").unwrap(),
            ports: table.verdict_map("ports").unwrap(),
            spans: table.set("spans").unwrap().interval(),
            ways: table.verdict_map("ways").unwrap().interval(),
            classes: table.map("classes").unwrap().interval(),
            turned: table.map("turned").unwrap().interval(),
            servers: table.map("servers").unwrap(),
            counted: table.map("counted").unwrap().interval(),
            servers6: table.map("servers6").unwrap(),
            moved: table.map("moved").unwrap(),
            dscps: table.set("dscps").unwrap(),
            peers: table.map("peers").unwrap().dynamic().timeouts(),
            flows: table.map("flows").unwrap().dynamic(),
            other: table.chain("other").unwrap(),
        }
    }

    fn rule(&self) -> Statements<F> {
        self.chain.rule()
    }
}

const SETS: &str = "
    set addresses { type ipv4_addr; }
    set addresses6 { type ipv6_addr; }
    set nets { type ipv4_addr; flags interval; }
    set marks { type mark; flags interval; }
    set recent { type ipv4_addr; flags dynamic,timeout; }
    set services { type ipv4_addr . inet_service; }
    map ports { type inet_service : verdict; }
    set spans { type mark . ipv4_addr; flags interval; }
    map ways { type ipv4_addr . inet_service : verdict; flags interval; }
    map classes { type ipv4_addr : mark; flags interval; }
    map turned { type mark : mark; flags interval; }
    map servers { type inet_service : ipv4_addr . inet_service; }
    map servers6 { type ipv6_addr . inet_service : ipv6_addr; }
    map moved { type inet_service : inet_service; }
    set dscps { type dscp; }
    map peers { type ipv4_addr : ipv4_addr; flags dynamic,timeout; }
    map flows { type ipv4_addr . inet_service : ipv4_addr . mark; flags dynamic; }
    counter hits { }
    counter more { }
    map counted { type ipv4_addr : counter; flags interval; }
    quota spent { 1000 bytes }
    limit slow { rate 5/second }
    chain other { }
";

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}
fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}
fn net(text: &str) -> ipnet::Ipv4Net {
    text.parse().unwrap()
}
fn net6(text: &str) -> ipnet::Ipv6Net {
    text.parse().unwrap()
}
fn interface(name: &str) -> InterfaceName {
    InterfaceName::new(name).unwrap()
}
fn object(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}
const MAC: EtherAddr = EtherAddr([2, 0, 0, 0, 0, 1]);
const MAC2: EtherAddr = EtherAddr([2, 0, 0, 0, 0, 2]);

const PRE_NAT: &str = "type nat hook prerouting priority -100;";
const POST_NAT: &str = "type nat hook postrouting priority 100;";
const PREROUTING: &str = "type filter hook prerouting priority -150;";
const INPUT: &str = "type filter hook input priority 0;";

macro_rules! rows {
    ($family:ty, $preamble:expr; $($hook:expr, $text:literal => $body:expr;)*) => {
        Cases::<$family> { preamble: $preamble.into(), rows: vec![$(($hook, $text, |w: &World<$family>| { let _ = w; $body(w) })),*] }
    };
}

fn inet() -> Cases<Inet> {
    type W = World<Inet>;
    let sets = format!(
        "{SETS}
        ct timeout patient {{ protocol tcp; l3proto ip; policy = {{ established: 7777 }}; }}
        ct expectation more-of-it {{ protocol tcp; dport 9; timeout 1m; size 3; l3proto ip; }}"
    );
    rows! { Inet, sets;
        "", "tcp dport 22 accept" => |w: &W| w.rule().tcp_dport(22).accept();
        "", "tcp dport { 22 } accept" => |w: &W| w.rule().tcp_dport([22]).accept();
        "", "tcp dport { 22, 80 } accept" => |w: &W| w.rule().tcp_dport([22, 80]).accept();
        "", "tcp dport != { 22, 80 } drop" => |w: &W| w.rule().tcp_dport(not([22, 80])).drop();
        "", "tcp dport { 22-25, 80 } accept" => |w: &W| w.rule().tcp_dport([22..=25, 80..=80]).accept();
        "", "tcp dport { 0-6, 9 }" => |w: &W| w.rule().tcp_dport([0..=6, 9..=9]).done();
        "", "tcp dport { 60000-65535, 9 }" => |w: &W| w.rule().tcp_dport([60000..=65535, 9..=9]).done();
        "", "tcp dport { 5-7, 8-9, 20 }" => |w: &W| w.rule().tcp_dport([5..=7, 8..=9, 20..=20]).done();
        "", "tcp dport { 5-6 }" => |w: &W| w.rule().tcp_dport([5..=6]).done();
        "", "tcp dport 5432 counter accept" => |w: &W| w.rule().tcp_dport(5432).counter().accept();
        "", "tcp dport 10-20 drop" => |w: &W| w.rule().tcp_dport(10..=20).drop();
        "", "tcp dport != 10-20 drop" => |w: &W| w.rule().tcp_dport(not(10..=20)).drop();
        "", "tcp dport >= 1024" => |w: &W| w.rule().tcp_dport(at_least(1024)).done();
        "", "tcp dport < 1024" => |w: &W| w.rule().tcp_dport(less_than(1024)).done();
        "", "tcp dport != 5" => |w: &W| w.rule().tcp_dport(not(5)).done();
        "", "tcp sport 1 tcp dport 2 tcp flags syn" => |w: &W| w.rule().tcp_sport(1).tcp_dport(2).tcp_flags_any(TcpFlags::SYN).done();
        "", "tcp flags & (fin | syn | rst | ack) == syn" => |w: &W| w.rule().tcp_flags(TcpFlags::SYN, TcpFlags::FIN | TcpFlags::SYN | TcpFlags::RST | TcpFlags::ACK).done();
        "", "tcp flags & (syn | ack) == syn | ack" => |w: &W| w.rule().tcp_flags(TcpFlags::SYN | TcpFlags::ACK, TcpFlags::SYN | TcpFlags::ACK).done();
        "", "tcp window 9" => |w: &W| w.rule().tcp_window(9).done();
        "", "udp dport 53 udp sport 99" => |w: &W| w.rule().udp_dport(53).udp_sport(99).done();
        "", "udp length 9 udp dport 7" => |w: &W| w.rule().udp_length(9).udp_dport(7).done();
        "", "udp sport 9 udp dport 5 udp length 5" => |w: &W| w.rule().udp_sport(9).udp_dport(5).udp_length(5).done();
        "", "sctp dport 80" => |w: &W| w.rule().sctp_dport(80).done();
        "", "th dport 53" => |w: &W| w.rule().th_dport(53).done();
        "", "meta l4proto { tcp, udp } th dport 53 accept" => |w: &W| w.rule().l4proto([Protocol::TCP, Protocol::UDP]).th_dport(53).accept();
        "", "meta l4proto tcp tcp dport 5" => |w: &W| w.rule().l4proto(Protocol::TCP).tcp_dport(5).done();
        "", "meta l4proto != tcp" => |w: &W| w.rule().l4proto(not(Protocol::TCP)).done();
        "", "meta l4proto { tcp } tcp dport 4" => |w: &W| w.rule().l4proto([Protocol::TCP]).tcp_dport(4).done();
        "", "ip protocol tcp tcp dport 5" => |w: &W| w.rule().ip_protocol(Protocol::TCP).tcp_dport(5).done();
        "", "ip protocol != tcp" => |w: &W| w.rule().ip_protocol(not(Protocol::TCP)).done();
        "", "ip6 nexthdr udp udp dport 4" => |w: &W| w.rule().ip6_nexthdr(Protocol::UDP).udp_dport(4).done();
        "", "ip saddr 10.0.0.1 ip daddr 10.1.0.1" => |w: &W| w.rule().ip_saddr(v4("10.0.0.1")).ip_daddr(v4("10.1.0.1")).done();
        "", "ip saddr 10.0.0.1 tcp dport 5 ip daddr 10.0.0.2" => |w: &W| w.rule().ip_saddr(v4("10.0.0.1")).tcp_dport(5).ip_daddr(v4("10.0.0.2")).done();
        "", "ip saddr 10.0.0.0/8 ip daddr 10.1.0.0/16" => |w: &W| w.rule().ip_saddr(net("10.0.0.0/8")).ip_daddr(net("10.1.0.0/16")).done();
        "", "ip saddr 10.0.0.0/20" => |w: &W| w.rule().ip_saddr(net("10.0.0.0/20")).done();
        "", "ip saddr 0.0.0.0/0" => |w: &W| w.rule().ip_saddr(net("0.0.0.0/0")).done();
        "", "ip saddr 10.0.0.1/32" => |w: &W| w.rule().ip_saddr(net("10.0.0.1/32")).done();
        "", "ip saddr != 10.0.0.0/8" => |w: &W| w.rule().ip_saddr(not(net("10.0.0.0/8"))).done();
        "", "ip saddr != 10.0.0.0/20" => |w: &W| w.rule().ip_saddr(not(net("10.0.0.0/20"))).done();
        "", "ip saddr 10.0.0.1-10.0.0.9" => |w: &W| w.rule().ip_saddr(v4("10.0.0.1")..=v4("10.0.0.9")).done();
        "", "ip saddr { 10.0.0.1, 10.0.0.9 }" => |w: &W| w.rule().ip_saddr([v4("10.0.0.1"), v4("10.0.0.9")]).done();
        "", "ip saddr { 10.0.0.0/8, 192.168.0.0/16 }" => |w: &W| w.rule().ip_saddr([net("10.0.0.0/8"), net("192.168.0.0/16")]).done();
        "", "ip saddr { 10.0.0.0/9, 10.128.0.0/9, 1.1.1.1 }" => |w: &W| w.rule().ip_saddr([net("10.0.0.0/9"), net("10.128.0.0/9"), net("1.1.1.1/32")]).done();
        "", "ip saddr { 10.0.0.0/9 }" => |w: &W| w.rule().ip_saddr([net("10.0.0.0/9")]).done();
        "", "ip saddr { 0.0.0.0/0 }" => |w: &W| w.rule().ip_saddr([net("0.0.0.0/0")]).done();
        "", "ip saddr @addresses" => |w: &W| w.rule().ip_saddr(&w.addresses).done();
        "", "ip saddr != @addresses drop" => |w: &W| w.rule().ip_saddr(not(&w.addresses)).drop();
        "", "ip daddr @nets" => |w: &W| w.rule().ip_daddr(&w.nets).done();
        "", "ip ttl 5-9" => |w: &W| w.rule().ip_ttl(5..=9).done();
        "", "ip ttl < 5" => |w: &W| w.rule().ip_ttl(less_than(5)).done();
        "", "ip ttl 4 ip protocol tcp" => |w: &W| w.rule().ip_ttl(4).ip_protocol(Protocol::TCP).done();
        "", "ip length 4 ip id 6" => |w: &W| w.rule().ip_length(4).ip_id(6).done();
        "", "ip dscp cs1" => |w: &W| w.rule().ip_dscp(8).done();
        "", "ip frag-off & 0x1fff != 0 drop" => |w: &W| w.rule().ip_later_fragment().drop();
        "", "ip6 saddr 2001:db8::1" => |w: &W| w.rule().ip6_saddr(v6("2001:db8::1")).done();
        "", "ip6 saddr 2001:db8::/32" => |w: &W| w.rule().ip6_saddr(net6("2001:db8::/32")).done();
        "", "ip6 daddr 2001:db8::/33" => |w: &W| w.rule().ip6_daddr(net6("2001:db8::/33")).done();
        "", "ip6 saddr { 2001:db8::/32, fe80::/10 }" => |w: &W| w.rule().ip6_saddr([net6("2001:db8::/32"), net6("fe80::/10")]).done();
        "", "ip6 saddr @addresses6" => |w: &W| w.rule().ip6_saddr(&w.addresses6).done();
        "", "ip6 hoplimit 255" => |w: &W| w.rule().ip6_hoplimit(255).done();
        "", "ip6 nexthdr tcp ip6 hoplimit 9" => |w: &W| w.rule().ip6_nexthdr(Protocol::TCP).ip6_hoplimit(9).done();
        "", "exthdr frag exists" => |w: &W| w.rule().ip6_extension(Protocol(44)).done();
        "", "icmp type echo-request accept" => |w: &W| w.rule().icmp_type(IcmpType::ECHO_REQUEST).accept();
        "", "icmp type { echo-request, time-exceeded }" => |w: &W| w.rule().icmp_type([IcmpType::ECHO_REQUEST, IcmpType::TIME_EXCEEDED]).done();
        "", "icmp type destination-unreachable icmp code 4" => |w: &W| w.rule().icmp_type(IcmpType::DESTINATION_UNREACHABLE).icmp_code(4).done();
        "", "icmpv6 type { echo-request, nd-router-advert }" => |w: &W| w.rule().icmpv6_type([Icmpv6Type::ECHO_REQUEST, Icmpv6Type::ND_ROUTER_ADVERT]).done();
        "", "icmpv6 type nd-neighbor-solicit" => |w: &W| w.rule().icmpv6_type(Icmpv6Type::ND_NEIGHBOR_SOLICIT).done();
        "", "meta nfproto ipv4 ip saddr 1.2.3.4" => |w: &W| w.rule().ipv4().ip_saddr(v4("1.2.3.4")).done();
        "", "meta nfproto ipv6 tcp dport 1" => |w: &W| w.rule().ipv6().tcp_dport(1).done();
        "", "meta protocol ip ip saddr 1.2.3.4" => |w: &W| w.rule().protocol(EtherType::IP).ip_saddr(v4("1.2.3.4")).done();
        "", "iifname \"eth0\"" => |w: &W| w.rule().iifname(interface("eth0")).done();
        "", "iifname != \"eth0\"" => |w: &W| w.rule().iifname(not(interface("eth0"))).done();
        "", "iifname \"eth*\"" => |w: &W| w.rule().iifname(Starting(interface("eth"))).done();
        "", "oifname { \"eth0\", \"eth1\" }" => |w: &W| w.rule().oifname([interface("eth0"), interface("eth1")]).done();
        "", "iif lo accept" => |w: &W| w.rule().iif(1).accept();
        "", "oif != lo" => |w: &W| w.rule().oif(not(1)).done();
        "", "oifgroup 5" => |w: &W| w.rule().oifgroup(5).done();
        "", "iifgroup 5-9" => |w: &W| w.rule().iifgroup(5..=9).done();
        "", "meta mark 7" => |w: &W| w.rule().mark(7).done();
        "", "meta mark 1-5" => |w: &W| w.rule().mark(1..=5).done();
        "", "meta mark != 1-5" => |w: &W| w.rule().mark(not(1..=5)).done();
        "", "meta mark { 1, 9 }" => |w: &W| w.rule().mark([1, 9]).done();
        "", "meta mark { 1-5, 9 }" => |w: &W| w.rule().mark([1..=5, 9..=9]).done();
        "", "meta mark @marks" => |w: &W| w.rule().mark(&w.marks).done();
        "", "meta mark & 0xff == 1" => |w: &W| w.rule().masked(MARK, 0xff, 1).done();
        "", "meta length > 100" => |w: &W| w.rule().length(more_than(100)).done();
        "", "meta length 100" => |w: &W| w.rule().length(100).done();
        "", "meta priority 1:2" => |w: &W| w.rule().priority(0x0001_0002).done();
        "", "meta pkttype broadcast" => |w: &W| w.rule().pkttype(PacketType::BROADCAST).done();
        "", "meta skuid 1000" => |w: &W| w.rule().skuid(1000).done();
        "", "meta skgid 5-9" => |w: &W| w.rule().skgid(5..=9).done();
        "", "meta cgroup 5" => |w: &W| w.rule().cgroup(5).done();
        "", "meta cpu 1" => |w: &W| w.rule().cpu(1).done();
        "", "ct state established,related accept" => |w: &W| w.rule().ct_state(CtStates::ESTABLISHED | CtStates::RELATED).accept();
        "", "ct state new" => |w: &W| w.rule().ct_state(CtStates::NEW).done();
        "", "ct state != established" => |w: &W| w.rule().matches(CT_STATE, not(CtStates::ESTABLISHED)).done();
        "", "ct state vmap { established : accept, invalid : drop, new : jump other }" => |w: &W| w.rule().vmap(CT_STATE, [(CtStates::ESTABLISHED, Verdict::Accept), (CtStates::INVALID, Verdict::Drop), (CtStates::NEW, w.other.jump())]).done();
        "", "ct status dnat" => |w: &W| w.rule().ct_status(CtStatus::DNAT).done();
        "", "ct status snat,dnat" => |w: &W| w.rule().ct_status(CtStatus::SNAT | CtStatus::DNAT).done();
        "", "ct direction original" => |w: &W| w.rule().ct_direction(Direction::ORIGINAL).done();
        "", "ct mark 7" => |w: &W| w.rule().ct_mark(7).done();
        "", "ct bytes > 100000" => |w: &W| w.rule().ct_bytes(more_than(100_000)).done();
        "", "ct original ip saddr 1.2.3.4" => |w: &W| w.rule().ct_original_saddr(v4("1.2.3.4")).done();
        "", "socket mark 5" => |w: &W| w.rule().socket_mark(5).done();
        "", "ether saddr 02:00:00:00:00:01" => |w: &W| w.rule().ether_saddr(MAC).done();
        "", "ip saddr 1.1.1.1 ether saddr 02:00:00:00:00:01" => |w: &W| w.rule().ip_saddr(v4("1.1.1.1")).ether_saddr(MAC).done();
        "", "ip saddr . tcp dport @services accept" => |w: &W| w.rule().within((IP_SADDR, TCP_DPORT), &w.services).accept();
        "", "ip saddr . tcp dport != @services" => |w: &W| w.rule().outside((IP_SADDR, TCP_DPORT), &w.services).done();
        "", "tcp dport vmap @ports" => |w: &W| w.rule().vmap(TCP_DPORT, &w.ports).done();
        "", "tcp dport vmap { 22 : accept, 80 : jump other }" => |w: &W| w.rule().vmap(TCP_DPORT, [(22, Verdict::Accept), (80, w.other.jump())]).done();
        "", "tcp dport vmap { 5-9 : accept, 11 : drop }" => |w: &W| w.rule().vmap(TCP_DPORT, [(5..=9, Verdict::Accept), (11..=11, Verdict::Drop)]).done();
        "", "tcp dport vmap { 5-9 : accept, 10-12 : drop }" => |w: &W| w.rule().vmap(TCP_DPORT, [(5..=9, Verdict::Accept), (10..=12, Verdict::Drop)]).done();
        "", "iifname vmap { \"eth0\" : jump other }" => |w: &W| w.rule().vmap(IIFNAME, [(interface("eth0"), w.other.jump())]).done();
        "", "ip saddr . tcp dport vmap @ways" => |w: &W| w.rule().vmap((IP_SADDR, TCP_DPORT), &w.ways).done();
        "", "meta mark . ip saddr @spans drop" => |w: &W| w.rule().within((MARK, IP_SADDR), &w.spans).drop();
        "", "ip saddr . tcp dport { 10.0.0.1 . 80, 10.0.0.2 . 443 } accept" => |w: &W| w.rule().within((IP_SADDR, TCP_DPORT), [(v4("10.0.0.1"), 80), (v4("10.0.0.2"), 443)]).accept();
        "", "ip saddr . tcp dport != { 10.0.0.0/24 . 80-90, 10.0.2.0/25 . 443 }" => |w: &W| w.rule().outside((IP_SADDR, TCP_DPORT), [(net("10.0.0.0/24"), 80..=90), (net("10.0.2.0/25"), 443..=443)]).done();
        "", "meta mark . ip saddr { 1-5 . 10.0.0.0/24, 9 . 10.0.1.5 }" => |w: &W| w.rule().within((MARK, IP_SADDR), [(1..=5, net("10.0.0.0/24")), (9..=9, net("10.0.1.5/32"))]).done();
        "", "ip saddr . tcp dport vmap { 10.0.0.0/24 . 80-90 : accept, 10.0.1.1 . 443 : jump other }" => |w: &W| w.rule().vmap((IP_SADDR, TCP_DPORT), vec![((net("10.0.0.0/24"), 80..=90), Verdict::Accept), ((net("10.0.1.1/32"), 443..=443), w.other.jump())]).done();
        "", "meta mark set ip saddr map @classes" => |w: &W| w.rule().set_mark_by(IP_SADDR, &w.classes).done();
        "", "meta mark set meta mark map @turned" => |w: &W| w.rule().set_mark_by(MARK, &w.turned).done();
        "", "meta mark set ip saddr map { 10.0.0.0/24 : 1, 10.0.1.0/24 : 2 }" => |w: &W| w.rule().set_mark_by(IP_SADDR, [(net("10.0.0.0/24"), Mark(1)), (net("10.0.1.0/24"), Mark(2))]).done();
        "", "ct mark set ip saddr map @classes" => |w: &W| w.rule().set_ct_mark_by(IP_SADDR, &w.classes).done();
        "", "meta priority set tcp dport map { 22 : 1:2, 80 : 1:3 }" => |w: &W| w.rule().set_priority_by(TCP_DPORT, [(22, Class(0x1_0002)), (80, Class(0x1_0003))]).done();
        "", "meta mark set numgen inc mod 2 map { 0 : 7, 1 : 9 }" => |w: &W| w.rule().set_mark_by(numgen_inc(2), [(0, Mark(7)), (1, Mark(9))]).done();
        "", "meta cpu . iifname vmap { 0 . \"eth0\" : accept, 1 . \"eth1\" : drop }" => |w: &W| w.rule().vmap((CPU, IIFNAME), [((0, interface("eth0")), Verdict::Accept), ((1, interface("eth1")), Verdict::Drop)]).done();
        "", "iifname . ip saddr { \"eth0\" . 10.0.0.0/24 }" => |w: &W| w.rule().within((IIFNAME, IP_SADDR), [(interface("eth0"), net("10.0.0.0/24"))]).done();
        "", "ct bytes . meta mark { 5-9 . 1, 10 . 2 }" => |w: &W| w.rule().within((CT_BYTES, MARK), [(5..=9, 1..=1), (10..=10, 2..=2)]).done();
        "", "ether saddr . ip saddr . meta l4proto . th dport . meta pkttype { 02:00:00:00:00:01 . 10.0.0.1 . tcp . 80 . host }" => |w: &W| w.rule().within((ETHER_SADDR, IP_SADDR, L4PROTO, TH_DPORT, PKTTYPE), [(MAC, v4("10.0.0.1"), Protocol::TCP, 80, PacketType::HOST)]).done();
        "", "ether saddr . ip saddr . ip protocol . th dport . meta skuid { 02:00:00:00:00:01 . 10.0.0.0/8 . tcp . 80-90 . 1000-1009 }" => |w: &W| w.rule().within((ETHER_SADDR, IP_SADDR, IP_PROTOCOL, TH_DPORT, SKUID), [(MAC, net("10.0.0.0/8"), Protocol::TCP, 80..=90, 1000..=1009)]).done();
        "", "tcp dport { 22, 80 } ip saddr . th sport { 10.0.0.1 . 53 }" => |w: &W| w.rule().tcp_dport([22, 80]).within((IP_SADDR, TH_SPORT), [(v4("10.0.0.1"), 53)]).done();
        "", "meta mark { 1, 2 } meta priority { 1:2, 1:3 } meta mark set tcp dport map { 22 : 1 }" => |w: &W| w.rule().mark([1, 2]).priority([0x1_0002, 0x1_0003]).set_mark_by(TCP_DPORT, [(22, Mark(1))]).done();
        "", "ct original ip saddr 10.0.0.0/8" => |w: &W| w.rule().ct_original_saddr(net("10.0.0.0/8")).done();
        "", "ct original ip saddr 10.0.0.0/9" => |w: &W| w.rule().ct_original_saddr(net("10.0.0.0/9")).done();
        "", "ct original ip saddr { 10.0.0.0/9, 10.200.0.1 }" => |w: &W| w.rule().ct_original_saddr([net("10.0.0.0/9"), net("10.200.0.1/32")]).done();
        "", "ct count 5 accept" => |w: &W| w.rule().flows_up_to(5).accept();
        "", "meta pkttype { broadcast, multicast } drop" => |w: &W| w.rule().pkttype([PacketType::BROADCAST, PacketType::MULTICAST]).drop();
        "", "meta protocol vmap { ip : accept, ip6 : drop }" => |w: &W| w.rule().vmap(PROTOCOL, [(EtherType::IP, Verdict::Accept), (EtherType::IP6, Verdict::Drop)]).done();
        "", "ip6 saddr . tcp dport { 2001:db8::/33 . 1-5, ::1 . 9 }" => |w: &W| w.rule().within((IP6_SADDR, TCP_DPORT), [(net6("2001:db8::/33"), 1..=5), (net6("::1/128"), 9..=9)]).done();
        "", "meta mark set jhash tcp sport mod 4 seed 7 map { 0 : 7, 1 : 9 }" => |w: &W| w.rule().set_mark_by(jhash(TCP_SPORT, 4).seed(7), [(0, Mark(7)), (1, Mark(9))]).done();
        "", "meta mark set jhash ether saddr mod 4 seed 7 map { 0-1 : 7, 2-3 : 9 }" => |w: &W| w.rule().set_mark_by(jhash(ETHER_SADDR, 4).seed(7), [(0..=1, Mark(7)), (2..=3, Mark(9))]).done();
        "", "meta mark set jhash ip protocol . ether saddr . tcp sport mod 4 seed 7 map { 0 : 7 }" => |w: &W| w.rule().set_mark_by(jhash((IP_PROTOCOL, ETHER_SADDR, TCP_SPORT), 4).seed(7), [(0, Mark(7))]).done();
        "", "ether saddr 02:00:00:00:00:01 ip saddr 10.0.0.1" => |w: &W| w.rule().ether_saddr(MAC).ip_saddr(v4("10.0.0.1")).done();
        "", "ether saddr 02:00:00:00:00:01 icmp type echo-request" => |w: &W| w.rule().ether_saddr(MAC).icmp_type(IcmpType::ECHO_REQUEST).done();
        "", "ether type ip6 ip6 saddr ::1" => |w: &W| w.rule().ether_type(EtherType::IP6).ip6_saddr(v6("::1")).done();
        "", "ether type ip ip protocol tcp" => |w: &W| w.rule().ether_type(EtherType::IP).ip_protocol(Protocol::TCP).done();
        "", "ether type ip6 icmpv6 type echo-request" => |w: &W| w.rule().ether_type(EtherType::IP6).icmpv6_type(Icmpv6Type::ECHO_REQUEST).done();
        "", "vlan id 10 ip6 saddr ::1" => |w: &W| w.rule().vlan_id(10).ip6_saddr(v6("::1")).done();
        "", "ip saddr . ether saddr { 10.0.0.1 . 02:00:00:00:00:01 }" => |w: &W| w.rule().within((IP_SADDR, ETHER_SADDR), [(v4("10.0.0.1"), MAC)]).done();
        INPUT, "ether type ip reject" => |w: &W| w.rule().ether_type(EtherType::IP).reject();
        "", "tcp flags & (fin | syn | rst | ack) != syn ct state new drop" => |w: &W| w.rule().tcp_flags(not(TcpFlags::SYN), TcpFlags::FIN | TcpFlags::SYN | TcpFlags::RST | TcpFlags::ACK).ct_state(CtStates::NEW).drop();
        "", "tcp flags != syn" => |w: &W| w.rule().matches(TCP_FLAGS, not(TcpFlags::SYN)).done();
        "", "tcp flags vmap { syn : accept, fin : drop }" => |w: &W| w.rule().vmap(TCP_FLAGS, [(TcpFlags::SYN, Verdict::Accept), (TcpFlags::FIN, Verdict::Drop)]).done();
        "", "meta mark & 0xff != 1" => |w: &W| w.rule().masked(MARK, 0xff, not(1)).done();
        "", "meta mark & 0xff 1-5" => |w: &W| w.rule().masked(MARK, 0xff, 1..=5).done();
        "", "meta mark & 0xff < 7" => |w: &W| w.rule().masked(MARK, 0xff, less_than(7)).done();
        "", "meta mark & 0xff { 1, 5 }" => |w: &W| w.rule().masked(MARK, 0xff, [1, 5]).done();
        "", "ip saddr & 255.255.255.0 == 10.0.0.0" => |w: &W| w.rule().masked(IP_SADDR, v4("255.255.255.0"), v4("10.0.0.0")).done();
        "", "ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00" => |w: &W| w.rule().masked(ETHER_DADDR, EtherAddr([1, 0, 0, 0, 0, 0]), EtherAddr([1, 0, 0, 0, 0, 0])).done();
        "", "ct status & dnat == 0" => |w: &W| w.rule().masked(CT_STATUS, CtStatus::DNAT, CtStatus(0)).done();
        "", "ip dscp != cs1" => |w: &W| w.rule().ip_dscp(not(Dscp::CS1)).done();
        "", "ip dscp 1-5" => |w: &W| w.rule().ip_dscp(1..=5).done();
        "", "ip dscp < 9" => |w: &W| w.rule().ip_dscp(less_than(9)).done();
        "", "ip dscp . ip saddr { cs1 . 10.0.0.1 }" => |w: &W| w.rule().within((IP_DSCP, IP_SADDR), [(Dscp::CS1, v4("10.0.0.1"))]).done();
        "", "ip dscp @dscps" => |w: &W| w.rule().ip_dscp(&w.dscps).done();
        "", "ip6 dscp cs1" => |w: &W| w.rule().ip6_dscp(Dscp::CS1).done();
        "", "ip dscp set ef" => |w: &W| w.rule().set_ip_dscp(Dscp::EF).done();
        "", "tcp dport 22 ip6 dscp set cs6" => |w: &W| w.rule().tcp_dport(22).set_ip6_dscp(Dscp::CS6).done();
        "", "vlan id 1-10" => |w: &W| w.rule().vlan_id(1..=10).done();
        "", "vlan id != 5" => |w: &W| w.rule().vlan_id(not(5)).done();
        "", "vlan id { 1, 2 }" => |w: &W| w.rule().vlan_id([1, 2]).done();
        "", "vlan id { 1-5, 9 }" => |w: &W| w.rule().vlan_id([1..=5, 9..=9]).done();
        "", "vlan id . ether saddr { 5 . 02:00:00:00:00:01 }" => |w: &W| w.rule().within((VLAN_ID, ETHER_SADDR), [(5, MAC)]).done();
        "", "vlan pcp 3" => |w: &W| w.rule().vlan_pcp(3).done();
        "", "icmpv6 code 1" => |w: &W| w.rule().icmpv6_code(1).done();
        "", "esp spi 100" => |w: &W| w.rule().esp_spi(100).done();
        "", "tcp option maxseg size 1-500 drop" => |w: &W| w.rule().tcp_option_maxseg(1..=500).drop();
        "", "tcp option maxseg size != 0-500" => |w: &W| w.rule().tcp_option_maxseg(not(0..=500)).done();
        "", "meta nfproto vmap { ipv4 : accept, ipv6 : drop }" => |w: &W| w.rule().vmap(NFPROTO, [(NfProto::IPV4, Verdict::Accept), (NfProto::IPV6, Verdict::Drop)]).done();
        "", "meta iiftype ether" => |w: &W| w.rule().iiftype(1).done();
        "", "meta hour \"08:00\"-\"17:00\"" => |w: &W| w.rule().hour(8 * 3600..=17 * 3600).done();
        "", "meta day { \"Saturday\", \"Sunday\" }" => |w: &W| w.rule().day([6, 0]).done();
        "", "meta ipsec exists" => |w: &W| w.rule().ipsec(true).done();
        "", "ct reply ip saddr 10.0.0.1" => |w: &W| w.rule().ct_reply_saddr(v4("10.0.0.1")).done();
        "", "ct zone 5" => |w: &W| w.rule().ct_zone(5).done();
        "", "ct zone set 5" => |w: &W| w.rule().set_ct_zone(5).done();
        "", "socket wildcard 0 socket transparent 1 accept" => |w: &W| w.rule().socket_wildcard(false).socket_transparent(true).accept();
        "", "log" => |w: &W| w.rule().log(Syslog::line()).done();
        "", "log level debug drop" => |w: &W| w.rule().log(Syslog::line().level(LogLevel::Debug)).drop();
        "", "meta mark set meta mark & 0xffffff00 | 0x1" => |w: &W| w.rule().set_mark_bits(0xff, 0x1).done();
        "", "meta mark set meta mark or 0x10" => |w: &W| w.rule().set_mark_bits(0, 0x10).done();
        "", "ct mark set ct mark and 0xff" => |w: &W| w.rule().set_ct_mark_bits(!0xff, 0).done();
        "", "meta mark set numgen inc mod 4" => |w: &W| w.rule().set_mark_from(numgen_inc(4)).done();
        "", "meta mark set jhash ip saddr . tcp sport mod 4 seed 7" => |w: &W| w.rule().set_mark_from(jhash((IP_SADDR, TCP_SPORT), 4).seed(7)).done();
        "", "meta mark set symhash mod 4" => |w: &W| w.rule().set_mark_from(symhash(4)).done();
        "", "symhash mod 4 vmap { 0 : accept, 1 : drop }" => |w: &W| w.rule().vmap(symhash(4), [(0, Verdict::Accept), (1, Verdict::Drop)]).done();
        INPUT, "fib daddr type != { local, broadcast } drop" => |w: &W| w.rule().fib_type(FibFlags::DADDR, not([AddressType::LOCAL, AddressType::BROADCAST])).drop();
        INPUT, "fib daddr type != local" => |w: &W| w.rule().fib_type(FibFlags::DADDR, not(AddressType::LOCAL)).done();
        INPUT, "fib daddr . iif type vmap { local : accept, unicast : drop }" => |w: &W| w.rule().vmap(fib_type(FibFlags::DADDR.and(FibFlags::IIF)), [(AddressType::LOCAL, Verdict::Accept), (AddressType::UNICAST, Verdict::Drop)]).done();
        PREROUTING, "tcp dport 80 tproxy to :50080 meta mark set 1 accept" => |w: &W| w.rule().tcp_dport(80).tproxy_to_port(50080).set_mark(1).accept();
        PREROUTING, "tcp dport 80 tproxy ip6 to [2001:db8::1]:50080" => |w: &W| w.rule().tcp_dport(80).tproxy(v6("2001:db8::1"), 50080).done();
        "", "iifname { \"eth*\", \"ppp0\" }" => |w: &W| w.rule().iifname([Span::from(Starting(interface("eth"))), Span::from(interface("ppp0"))]).done();
        "", "iifname { \"eth*\" }" => |w: &W| w.rule().iifname([Starting(interface("eth"))]).done();
        "", "iifname != { \"eth*\", \"ppp*\" }" => |w: &W| w.rule().iifname(not([Starting(interface("eth")), Starting(interface("ppp"))])).done();
        "", "oifname != { \"eth*\" }" => |w: &W| w.rule().oifname(not([Starting(interface("eth"))])).done();
        "", "iifname vmap { \"eth*\" : accept, \"ppp0\" : drop }" => |w: &W| w.rule().vmap(IIFNAME, [(Span::from(Starting(interface("eth"))), Verdict::Accept), (interface("ppp0").into(), Verdict::Drop)]).done();
        "", "iifname . ip saddr { \"eth*\" . 10.0.0.0/8 }" => |w: &W| w.rule().within((IIFNAME, IP_SADDR), [(Starting(interface("eth")), net("10.0.0.0/8"))]).done();
        "", "iifname . tcp dport vmap { \"eth*\" . 22 : accept }" => |w: &W| w.rule().vmap((IIFNAME, TCP_DPORT), [((Starting(interface("eth")), 22), Verdict::Accept)]).done();
        "", "update @peers { ip saddr timeout 10s : ip daddr }" => |w: &W| w.rule().map_update(&w.peers, IP_SADDR, IP_DADDR, Each::new().timeout(Duration::from_secs(10))).done();
        "", "tcp dport 22 add @peers { ip daddr : ip saddr }" => |w: &W| w.rule().tcp_dport(22).map_add(&w.peers, IP_DADDR, IP_SADDR, Each::new()).done();
        "", "update @flows { ip saddr . tcp dport : ip daddr . meta mark }" => |w: &W| w.rule().map_update(&w.flows, (IP_SADDR, TCP_DPORT), (IP_DADDR, MARK), Each::new()).done();
        "", "counter" => |w: &W| w.rule().counter().done();
        "", "counter accept comment \"why\"" => |w: &W| w.rule().counter().comment(ringfence::nft::Comment::new("why").unwrap()).accept();
        "", "counter name hits" => |w: &W| w.rule().counter_named(&object("hits")).done();
        "", "counter name ip saddr map @counted" => |w: &W| w.rule().counter_by(IP_SADDR, &w.counted).done();
        "", "counter name tcp dport map { 25 : \"more\", 80 : \"hits\", 443 : \"hits\" } accept" => |w: &W| w.rule().counter_by(TCP_DPORT, [(25, CounterName(object("more"))), (80, CounterName(object("hits"))), (443, CounterName(object("hits")))]).accept();
        "", "quota name meta mark map { 1-9 : \"spent\", 20 : \"spent\" }" => |w: &W| w.rule().quota_by(MARK, [(1..=9, QuotaName(object("spent"))), (20..=20, QuotaName(object("spent")))]).done();
        "", "limit name ip saddr . tcp dport map { 10.0.0.1 . 80 : \"slow\" }" => |w: &W| w.rule().limit_by((IP_SADDR, TCP_DPORT), [((v4("10.0.0.1"), 80), LimitName(object("slow")))]).done();
        "", "ct timeout set \"patient\"" => |w: &W| w.rule().ct_timeout_named(&object("patient")).done();
        "", "ct expectation set \"more-of-it\"" => |w: &W| w.rule().ct_expectation_named(&object("more-of-it")).done();
        "", "quota name \"spent\" drop" => |w: &W| w.rule().quota_named(&object("spent")).drop();
        "", "limit name \"slow\" accept" => |w: &W| w.rule().limit_named(&object("slow")).accept();
        "", "limit rate 10/second accept" => |w: &W| w.rule().limit(Limit::packets(10, Per::Second)).accept();
        "", "limit rate over 10/minute burst 7 packets drop" => |w: &W| w.rule().limit(Limit::packets(10, Per::Minute).burst(7).past()).drop();
        "", "limit rate 10 kbytes/second" => |w: &W| w.rule().limit(Limit::bytes(10 * 1024, Per::Second)).done();
        "", "limit rate over 1 mbytes/minute burst 5 mbytes" => |w: &W| w.rule().limit(Limit::bytes(1 << 20, Per::Minute).burst(5 << 20).past()).done();
        "", "quota over 10 mbytes drop" => |w: &W| w.rule().quota(Quota::past(10 << 20)).drop();
        "", "quota 10 mbytes" => |w: &W| w.rule().quota(Quota::until(10 << 20)).done();
        "", "ct count over 5 drop" => |w: &W| w.rule().flows_over(5).drop();
        "", "log prefix \"x \" level info flags skuid" => |w: &W| w.rule().log(Syslog::prefix("x ").level(LogLevel::Info).flags(LogFlags::SKUID)).done();
        "", "log prefix \"x \" group 3 snaplen 64 queue-threshold 4 drop" => |w: &W| w.rule().log(Log::to_group(3).prefix("x ").snaplen(64).queue_threshold(4)).drop();
        "", "meta mark set 7" => |w: &W| w.rule().set_mark(7).done();
        "", "meta mark set ct mark" => |w: &W| w.rule().restore_mark().done();
        "", "ct mark set meta mark" => |w: &W| w.rule().save_mark().done();
        "", "ct mark set 9" => |w: &W| w.rule().set_ct_mark(9).done();
        "", "meta priority set 1:2" => |w: &W| w.rule().set_priority(0x0001_0002).done();
        "", "meta nftrace set 1" => |w: &W| w.rule().trace().done();
        "", "tcp flags syn tcp option maxseg size set rt mtu" => |w: &W| w.rule().tcp_flags_any(TcpFlags::SYN).clamp_mss().done();
        "", "tcp option maxseg size set 1400" => |w: &W| w.rule().set_mss(1400).done();
        "", "update @recent { ip saddr timeout 10s limit rate over 5/second } drop" => |w: &W| w.rule().update(&w.recent, IP_SADDR, Each::new().timeout(Duration::from_secs(10)).limit(Limit::packets(5, Per::Second).past())).drop();
        "", "add @recent { ip saddr }" => |w: &W| w.rule().add_to(&w.recent, IP_SADDR, Each::new()).done();
        "", "update @recent { ip saddr quota over 10 bytes }" => |w: &W| w.rule().update(&w.recent, IP_SADDR, Each::new().quota(Quota::past(10))).done();
        "", "tcp dport 22 add @recent { ip daddr counter }" => |w: &W| w.rule().tcp_dport(22).add_to(&w.recent, IP_DADDR, Each::new().counter()).done();
        "", "delete @recent { ip saddr }" => |w: &W| w.rule().delete_from(&w.recent, IP_SADDR).done();
        "", "jump other" => |w: &W| w.rule().jump(&w.other);
        "", "goto other" => |w: &W| w.rule().goto(&w.other);
        "", "tcp dport 9 return" => |w: &W| w.rule().tcp_dport(9).return_();
        INPUT, "reject" => |w: &W| w.rule().reject();
        INPUT, "ip saddr 1.1.1.1 reject" => |w: &W| w.rule().ip_saddr(v4("1.1.1.1")).reject();
        INPUT, "ip6 saddr ::1 reject" => |w: &W| w.rule().ip6_saddr(v6("::1")).reject();
        INPUT, "reject with tcp reset" => |w: &W| w.rule().reject_tcp_reset();
        INPUT, "tcp dport 1 reject with tcp reset" => |w: &W| w.rule().tcp_dport(1).reject_tcp_reset();
        INPUT, "reject with icmp type admin-prohibited" => |w: &W| w.rule().reject_icmp(13);
        INPUT, "reject with icmpv6 type port-unreachable" => |w: &W| w.rule().reject_icmpv6(4);
        INPUT, "reject with icmpx type admin-prohibited" => |w: &W| w.rule().reject_icmpx(RejectCode::AdminProhibited);
        INPUT, "notrack" => |w: &W| w.rule().notrack().done();
        INPUT, "fib saddr . iif oif missing drop" => |w: &W| w.rule().fib_missing(FibFlags::SADDR.and(FibFlags::IIF)).drop();
        INPUT, "fib saddr . iif oif exists" => |w: &W| w.rule().fib_exists(FibFlags::SADDR.and(FibFlags::IIF)).done();
        INPUT, "fib daddr type local" => |w: &W| w.rule().fib_type(FibFlags::DADDR, AddressType::LOCAL).done();
        PRE_NAT, "dnat ip to 10.0.0.1" => |w: &W| w.rule().dnat(v4("10.0.0.1"));
        PRE_NAT, "tcp dport 80 dnat ip to 10.0.0.1:8080" => |w: &W| w.rule().tcp_dport(80).dnat(NatTo::from(v4("10.0.0.1")).port(8080));
        PRE_NAT, "tcp dport 80 dnat ip6 to [2001:db8::1]:8080-8090" => |w: &W| w.rule().tcp_dport(80).dnat(NatTo::from(v6("2001:db8::1")).ports(8080..=8090));
        PRE_NAT, "dnat ip to tcp dport map @servers" => |w: &W| w.rule().dnat_by(TCP_DPORT, &w.servers);
        PRE_NAT, "dnat ip6 to ip6 daddr . tcp dport map @servers6" => |w: &W| w.rule().dnat_by((IP6_DADDR, TCP_DPORT), &w.servers6);
        PRE_NAT, "dnat ip to tcp dport map { 80 : 10.0.0.1, 443 : 10.0.0.2 }" => |w: &W| w.rule().dnat_by(TCP_DPORT, [(80, v4("10.0.0.1")), (443, v4("10.0.0.2"))]);
        PRE_NAT, "dnat ip addr . port to tcp dport map { 80 : 10.0.0.1 . 8080, 443 : 10.0.0.2 . 8443 }" => |w: &W| w.rule().dnat_by(TCP_DPORT, [(80, (v4("10.0.0.1"), Port(8080))), (443, (v4("10.0.0.2"), Port(8443)))]);
        PRE_NAT, "ip protocol tcp dnat ip to tcp dport map { 80-89 : 10.0.0.1, 443 : 10.0.0.2 }" => |w: &W| w.rule().ip_protocol(Protocol::TCP).dnat_by(TCP_DPORT, [(80..=89, v4("10.0.0.1")), (443..=443, v4("10.0.0.2"))]);
        PRE_NAT, "tcp dport 80 dnat ip to numgen inc mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }" => |w: &W| w.rule().tcp_dport(80).dnat_by(numgen_inc(2), [(0, v4("10.0.0.1")), (1, v4("10.0.0.2"))]);
        PRE_NAT, "dnat ip to numgen random mod 10 map { 0-4 : 10.0.0.1, 5-9 : 10.0.0.2 }" => |w: &W| w.rule().dnat_by(numgen_random(10), [(0..=4, v4("10.0.0.1")), (5..=9, v4("10.0.0.2"))]);
        PRE_NAT, "dnat ip to jhash ip saddr . tcp sport mod 2 seed 7 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }" => |w: &W| w.rule().dnat_by(jhash((IP_SADDR, TCP_SPORT), 2).seed(7), [(0, v4("10.0.0.1")), (1, v4("10.0.0.2"))]);
        POST_NAT, "snat ip to ip saddr map { 10.0.0.0/24 : 10.1.0.1, 10.0.1.0/24 : 10.1.0.2 }" => |w: &W| w.rule().snat_by(IP_SADDR, [(net("10.0.0.0/24"), v4("10.1.0.1")), (net("10.0.1.0/24"), v4("10.1.0.2"))]);
        PRE_NAT, "meta l4proto tcp redirect to tcp dport map @moved" => |w: &W| w.rule().l4proto(Protocol::TCP).redirect_by(TCP_DPORT, &w.moved);
        PRE_NAT, "meta l4proto tcp redirect to tcp dport map { 80 : 8080, 443 : 8443 }" => |w: &W| w.rule().l4proto(Protocol::TCP).redirect_by(TCP_DPORT, [(80, Port(8080)), (443, Port(8443))]);
        PRE_NAT, "tcp dport 80 redirect to :8080" => |w: &W| w.rule().tcp_dport(80).redirect(8080);
        PRE_NAT, "meta l4proto tcp redirect to :80-90" => |w: &W| w.rule().l4proto(Protocol::TCP).redirect(80..=90);
        PRE_NAT, "redirect" => |w: &W| w.rule().redirect(Ports::any());
        POST_NAT, "masquerade" => |w: &W| w.rule().masquerade(Ports::any());
        POST_NAT, "masquerade fully-random" => |w: &W| w.rule().masquerade(Ports::any().fully_random());
        POST_NAT, "meta l4proto tcp masquerade to :1024-2048 random" => |w: &W| w.rule().l4proto(Protocol::TCP).masquerade(Ports::from(1024..=2048).random());
        POST_NAT, "ip saddr 10.0.0.0/8 snat ip to 10.0.0.1-10.0.0.9 persistent" => |w: &W| w.rule().ip_saddr(net("10.0.0.0/8")).snat(NatTo::from(v4("10.0.0.1")..=v4("10.0.0.9")).persistent());
        POST_NAT, "oifname \"eth0\" snat ip6 to 2001:db8::1" => |w: &W| w.rule().oifname(interface("eth0")).snat(v6("2001:db8::1"));
    }
}

fn ip() -> Cases<Ip> {
    type W = World<Ip>;
    rows! { Ip, SETS;
        "", "tcp dport 22" => |w: &W| w.rule().tcp_dport(22).done();
        "", "ip saddr 10.0.0.1 tcp dport 22 accept" => |w: &W| w.rule().ip_saddr(v4("10.0.0.1")).tcp_dport(22).accept();
        "", "ip ttl 4 ip protocol tcp" => |w: &W| w.rule().ip_ttl(4).ip_protocol(Protocol::TCP).done();
        "", "ip protocol tcp tcp dport 4" => |w: &W| w.rule().ip_protocol(Protocol::TCP).tcp_dport(4).done();
        "", "icmp type echo-request icmp code 0" => |w: &W| w.rule().icmp_type(IcmpType::ECHO_REQUEST).icmp_code(0).done();
        "", "tcp dport 5 ip saddr 10.0.0.1 tcp sport 7" => |w: &W| w.rule().tcp_dport(5).ip_saddr(v4("10.0.0.1")).tcp_sport(7).done();
        "", "tcp sport 5 ip saddr 10.0.0.1 tcp dport 7" => |w: &W| w.rule().tcp_sport(5).ip_saddr(v4("10.0.0.1")).tcp_dport(7).done();
        "", "tcp dport 5 ct state new tcp sport 7" => |w: &W| w.rule().tcp_dport(5).ct_state(CtStates::NEW).tcp_sport(7).done();
        "", "ether saddr 02:00:00:00:00:01 ip saddr 10.0.0.1" => |w: &W| w.rule().ether_saddr(MAC).ip_saddr(v4("10.0.0.1")).done();
        "", "ip saddr . tcp dport @services" => |w: &W| w.rule().within((IP_SADDR, TCP_DPORT), &w.services).done();
        "", "update @recent { ip saddr }" => |w: &W| w.rule().update(&w.recent, IP_SADDR, Each::new()).done();
        INPUT, "reject" => |w: &W| w.rule().reject();
        INPUT, "reject with tcp reset" => |w: &W| w.rule().reject_tcp_reset();
        "", "ip dscp cs1 ip dscp set cs2" => |w: &W| w.rule().ip_dscp(Dscp::CS1).set_ip_dscp(Dscp::CS2).done();
        PREROUTING, "udp dport 53 tproxy to :5353" => |w: &W| w.rule().udp_dport(53).tproxy_to_port(5353).done();
        PREROUTING, "meta l4proto { tcp, udp } tproxy to 127.0.0.1:50080" => |w: &W| w.rule().l4proto([Protocol::TCP, Protocol::UDP]).tproxy(v4("127.0.0.1"), 50080).done();
        INPUT, "reject with icmp type host-unreachable" => |w: &W| w.rule().reject_icmp(1);
        PRE_NAT, "tcp dport 80 dnat to 10.0.0.1:8080" => |w: &W| w.rule().tcp_dport(80).dnat(NatTo::from(v4("10.0.0.1")).port(8080));
        POST_NAT, "ip saddr 10.0.0.0/24 masquerade" => |w: &W| w.rule().ip_saddr(net("10.0.0.0/24")).masquerade(Ports::any());
        POST_NAT, "snat to 10.0.0.1" => |w: &W| w.rule().snat(v4("10.0.0.1"));
    }
}

fn ip6() -> Cases<Ip6> {
    type W = World<Ip6>;
    rows! { Ip6, SETS;
        "", "tcp dport 22" => |w: &W| w.rule().tcp_dport(22).done();
        "", "ip6 saddr 2001:db8::/32 tcp dport 22" => |w: &W| w.rule().ip6_saddr(net6("2001:db8::/32")).tcp_dport(22).done();
        "", "ip6 length 9 ip6 nexthdr tcp ip6 hoplimit 9" => |w: &W| w.rule().ip6_length(9).ip6_nexthdr(Protocol::TCP).ip6_hoplimit(9).done();
        "", "icmpv6 type echo-request" => |w: &W| w.rule().icmpv6_type(Icmpv6Type::ECHO_REQUEST).done();
        "", "ip6 daddr @addresses6 accept" => |w: &W| w.rule().ip6_daddr(&w.addresses6).accept();
        INPUT, "reject" => |w: &W| w.rule().reject();
        "", "ip6 dscp set cs1" => |w: &W| w.rule().set_ip6_dscp(Dscp::CS1).done();
        INPUT, "reject with icmpv6 type no-route" => |w: &W| w.rule().reject_icmpv6(0);
        POST_NAT, "masquerade" => |w: &W| w.rule().masquerade(Ports::any());
    }
}

fn bridge() -> Cases<Bridge> {
    type W = World<Bridge>;
    rows! { Bridge, SETS;
        "", "tcp dport 22" => |w: &W| w.rule().tcp_dport(22).done();
        "", "ip saddr 10.0.0.1" => |w: &W| w.rule().ip_saddr(v4("10.0.0.1")).done();
        "", "ip6 saddr 2001:db8::1 tcp dport 4" => |w: &W| w.rule().ip6_saddr(v6("2001:db8::1")).tcp_dport(4).done();
        "", "icmp type echo-request" => |w: &W| w.rule().icmp_type(IcmpType::ECHO_REQUEST).done();
        "", "icmpv6 type nd-neighbor-solicit" => |w: &W| w.rule().icmpv6_type(Icmpv6Type::ND_NEIGHBOR_SOLICIT).done();
        "", "ip saddr 1.1.1.1 icmp type echo-request" => |w: &W| w.rule().ip_saddr(v4("1.1.1.1")).icmp_type(IcmpType::ECHO_REQUEST).done();
        "", "ether type ip6 icmpv6 type nd-neighbor-solicit" => |w: &W| w.rule().ether_type(EtherType::IP6).icmpv6_type(Icmpv6Type::ND_NEIGHBOR_SOLICIT).done();
        "", "meta protocol ip icmp type echo-request" => |w: &W| w.rule().protocol(EtherType::IP).icmp_type(IcmpType::ECHO_REQUEST).done();
        "", "ether saddr 02:00:00:00:00:01" => |w: &W| w.rule().ether_saddr(MAC).done();
        "", "ether saddr 02:00:00:00:00:01 ether daddr 02:00:00:00:00:02" => |w: &W| w.rule().ether_saddr(MAC).ether_daddr(MAC2).done();
        "", "ether saddr 02:00:00:00:00:01 ether type ip" => |w: &W| w.rule().ether_saddr(MAC).ether_type(EtherType::IP).done();
        "", "ether saddr 02:00:00:00:00:01 ip saddr 10.0.0.1" => |w: &W| w.rule().ether_saddr(MAC).ip_saddr(v4("10.0.0.1")).done();
        "", "ether type arp" => |w: &W| w.rule().ether_type(EtherType::ARP).done();
        "", "arp operation request" => |w: &W| w.rule().arp_operation(ArpOperation::REQUEST).done();
        "", "arp saddr ip 10.0.0.1" => |w: &W| w.rule().arp_saddr_ip(v4("10.0.0.1")).done();
        "", "vlan id 10" => |w: &W| w.rule().vlan_id(10).done();
        "", "vlan id 10 ip saddr 1.1.1.1" => |w: &W| w.rule().vlan_id(10).ip_saddr(v4("1.1.1.1")).done();
        "", "ether type vlan ip saddr 1.2.3.4" => |w: &W| w.rule().ether_type(EtherType::VLAN).ip_saddr(v4("1.2.3.4")).done();
        "", "ether saddr . ip saddr { 02:00:00:00:00:01 . 10.0.0.0/8 } accept" => |w: &W| w.rule().within((ETHER_SADDR, IP_SADDR), [(MAC, net("10.0.0.0/8"))]).accept();
        "", "iifname . ether saddr { \"eth0\" . 02:00:00:00:00:01 } accept" => |w: &W| w.rule().within((IIFNAME, ETHER_SADDR), [(interface("eth0"), MAC)]).accept();
        "", "ip saddr . tcp dport vmap @ways" => |w: &W| w.rule().vmap((IP_SADDR, TCP_DPORT), &w.ways).done();
        "", "arp saddr ip . arp saddr ether { 10.0.0.1 . 02:00:00:00:00:01 }" => |w: &W| w.rule().within((ARP_SADDR_IP, ARP_SADDR_ETHER), [(v4("10.0.0.1"), MAC)]).done();
        "", "meta mark set ether type map { ip : 1, arp : 2 }" => |w: &W| w.rule().set_mark_by(ETHER_TYPE, [(EtherType::IP, Mark(1)), (EtherType::ARP, Mark(2))]).done();
        "", "ip daddr @addresses" => |w: &W| w.rule().ip_daddr(&w.addresses).done();
    }
}

fn netdev() -> Cases<Netdev> {
    type W = World<Netdev>;
    rows! { Netdev, SETS;
        "", "ip saddr 1.1.1.1 drop" => |w: &W| w.rule().ip_saddr(v4("1.1.1.1")).drop();
        "", "tcp dport 22 ip saddr 1.1.1.1" => |w: &W| w.rule().tcp_dport(22).ip_saddr(v4("1.1.1.1")).done();
        "", "icmp type echo-request" => |w: &W| w.rule().icmp_type(IcmpType::ECHO_REQUEST).done();
        "", "icmpv6 type nd-neighbor-solicit" => |w: &W| w.rule().icmpv6_type(Icmpv6Type::ND_NEIGHBOR_SOLICIT).done();
        "", "ether saddr 02:00:00:00:00:01" => |w: &W| w.rule().ether_saddr(MAC).done();
        "", "ether type ip ip saddr 1.1.1.1" => |w: &W| w.rule().ether_type(EtherType::IP).ip_saddr(v4("1.1.1.1")).done();
        "", "meta protocol ip ip saddr 1.1.1.1" => |w: &W| w.rule().protocol(EtherType::IP).ip_saddr(v4("1.1.1.1")).done();
        "", "arp operation request" => |w: &W| w.rule().arp_operation(ArpOperation::REQUEST).done();
        "", "arp operation 1 arp saddr ether 02:00:00:00:00:01" => |w: &W| w.rule().arp_operation(1).arp_saddr_ether(MAC).done();
        "", "arp saddr ether 02:00:00:00:00:01 arp saddr ip 1.1.1.1" => |w: &W| w.rule().arp_saddr_ether(MAC).arp_saddr_ip(v4("1.1.1.1")).done();
        "", "vlan id 10" => |w: &W| w.rule().vlan_id(10).done();
        "", "ip protocol tcp tcp dport 5" => |w: &W| w.rule().ip_protocol(Protocol::TCP).tcp_dport(5).done();
        "", "limit rate 5/second meta mark set 7" => |w: &W| w.rule().limit(Limit::packets(5, Per::Second)).set_mark(7).done();
        "", "update @recent { ip saddr limit rate over 5/second } drop" => |w: &W| w.rule().update(&w.recent, IP_SADDR, Each::new().limit(Limit::packets(5, Per::Second).past())).drop();
        "", "ether saddr . ip saddr { 02:00:00:00:00:01 . 10.0.0.0/8 } accept" => |w: &W| w.rule().within((ETHER_SADDR, IP_SADDR), [(MAC, net("10.0.0.0/8"))]).accept();
        "", "iifname . ether saddr { \"eth0\" . 02:00:00:00:00:01 } accept" => |w: &W| w.rule().within((IIFNAME, ETHER_SADDR), [(interface("eth0"), MAC)]).accept();
        "", "ip saddr . tcp dport vmap @ways" => |w: &W| w.rule().vmap((IP_SADDR, TCP_DPORT), &w.ways).done();
        "", "arp saddr ip . arp saddr ether { 10.0.0.1 . 02:00:00:00:00:01 }" => |w: &W| w.rule().within((ARP_SADDR_IP, ARP_SADDR_ETHER), [(v4("10.0.0.1"), MAC)]).done();
        "", "meta mark set ether type map { ip : 1, arp : 2 }" => |w: &W| w.rule().set_mark_by(ETHER_TYPE, [(EtherType::IP, Mark(1)), (EtherType::ARP, Mark(2))]).done();
        "", "ether daddr 02:00:00:00:00:01 arp operation request" => |w: &W| w.rule().ether_daddr(MAC).arp_operation(ArpOperation::REQUEST).done();
        "", "ether daddr 02:00:00:00:00:01 ip6 saddr ::1" => |w: &W| w.rule().ether_daddr(MAC).ip6_saddr(v6("::1")).done();
        "", "vlan id 5 ip saddr 10.0.0.1" => |w: &W| w.rule().vlan_id(5).ip_saddr(v4("10.0.0.1")).done();
        "", "ip dscp set cs1" => |w: &W| w.rule().set_ip_dscp(Dscp::CS1).done();
        "", "vlan id { 1, 2 } vlan pcp 5" => |w: &W| w.rule().vlan_id([1, 2]).vlan_pcp(5).done();
        "type filter hook ingress device lo priority 0;", "fwd to lo" => |w: &W| w.rule().forward_to(1);
    }
}

fn arp() -> Cases<Arp> {
    type W = World<Arp>;
    rows! { Arp, "chain other { }";
        "", "arp operation request accept" => |w: &W| w.rule().arp_operation(ArpOperation::REQUEST).accept();
        "", "arp saddr ip 10.0.0.0/8 drop" => |w: &W| w.rule().arp_saddr_ip(net("10.0.0.0/8")).drop();
        "", "arp operation { request, reply } arp saddr ip . arp daddr ip { 10.0.0.0/24 . 10.0.0.1 } drop" => |w: &W| w.rule().arp_operation([ArpOperation::REQUEST, ArpOperation::REPLY]).within((ARP_SADDR_IP, ARP_DADDR_IP), [(net("10.0.0.0/24"), net("10.0.0.1/32"))]).drop();
        "", "meta mark set arp saddr ip map { 10.0.0.0/24 : 5 }" => |w: &W| w.rule().set_mark_by(ARP_SADDR_IP, [(net("10.0.0.0/24"), Mark(5))]).done();
        "", "arp htype 1 arp ptype ip" => |w: &W| w.rule().arp_htype(1).arp_ptype(EtherType::IP).done();
        "", "arp daddr ether 02:00:00:00:00:01" => |w: &W| w.rule().arp_daddr_ether(MAC).done();
        "", "iifname \"eth0\" arp daddr ip 10.0.0.1 counter drop" => |w: &W| w.rule().iifname(interface("eth0")).arp_daddr_ip(v4("10.0.0.1")).counter().drop();
    }
}

/// A rule as it can be compared: expressions, and the sets that belong to it instead of their names.
type Seen = (Vec<Expr>, Vec<(SetFlags, String, Vec<Element>)>, Option<String>);

fn seen(ruleset: &Ruleset) -> BTreeMap<ChainName, Seen> {
    let placeholder = |number: usize| SetName::new(&format!("__own{number}")).unwrap();
    let mut all = BTreeMap::new();
    for rule in &ruleset.rules {
        let mut sets = Vec::new();
        let mut exprs = rule.exprs.clone();
        for expr in &mut exprs {
            let (Expr::Lookup { set: name, .. }
            | Expr::Map { set: name, .. }
            | Expr::VerdictMap { set: name, .. }
            | Expr::ObjectMap { set: name, .. }) = expr
            else {
                continue;
            };
            let Some(set) = ruleset.sets.iter().find(|set| set.name == *name && set.flags.anonymous) else { continue };
            let elements = ruleset.elements.iter().find(|(_, of, _)| of == name);
            let mut elements = elements.map(|(_, _, elements)| elements.clone()).unwrap_or_default();
            elements.sort_by(|a, b| (&a.key, a.interval_end).cmp(&(&b.key, b.interval_end)));
            *name = placeholder(sets.len());
            // nft(8) counts ends of ranges that it then leaves out.
            assert!(set.size.is_some_and(|size| size as usize >= elements.len()));
            sets.push((set.flags, format!("{} : {:?}", set.key, set.data), elements));
        }
        let comment = rule.comment.as_ref().map(ToString::to_string);
        assert!(all.insert(rule.chain.clone(), (exprs, sets, comment)).is_none());
    }
    all
}

fn nft(netns: &Netns, script: &str) -> Result<(), String> {
    netns
        .run(|| {
            let mut child = Command::new("nft")
                .args(["-f", "-"])
                .env("TZ", "UTC")
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .map_err(|error| error.to_string())?;
            child.stdin.take().unwrap().write_all(script.as_bytes()).map_err(|error| error.to_string())?;
            let output = child.wait_with_output().map_err(|error| error.to_string())?;
            if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
        })
        .unwrap()
}

fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {}: {why}", std::thread::current().name().unwrap_or_default());
    assert_ne!(std::env::var("RINGFENCE_TEST_KERNEL").as_deref(), Ok("require"), "{why}");
}

fn compare<F: TableFamily>(cases: Cases<F>) {
    let (theirs, ours) = match (Netns::create_with(Socket::open), Netns::create_with(Socket::open)) {
        (Ok(theirs), Ok(ours)) => (theirs, ours),
        _ => return skip("no network namespace to be had"),
    };
    if Command::new("nft").arg("--version").output().is_err() {
        return skip("no `nft` here");
    }
    let family = F::FAMILY;
    let mut both = format!("table {family} t {{\n{}\n", cases.preamble);
    let mut rules = String::new();
    for (number, (hook, text, _)) in cases.rows.iter().enumerate() {
        writeln!(both, "chain c{number} {{ {hook} }}").unwrap();
        writeln!(rules, "add rule {family} t c{number} {text}").unwrap();
    }
    both.push_str("}\n");
    nft(&theirs.0, &(both.clone() + &rules)).unwrap_or_else(|error| panic!("nft refuses: {error}"));
    nft(&ours.0, &both).unwrap();
    let mut socket = ours.1.unwrap();
    let mut wrong = String::new();
    let mut meant = BTreeMap::new();
    for (number, (_, text, make)) in cases.rows.iter().enumerate() {
        let mut transaction = Transaction::new();
        match make(&World::new(&format!("c{number}"))) {
            Ok(written) => {
                // Sets that belong to a rule get other names when it is pushed.
                if written.sets().is_empty() {
                    meant.insert(written.rule().chain.clone(), written.rule().exprs.clone());
                }
                transaction.push_rule(Verb::Add, written);
            }
            Err(error) => writeln!(wrong, "{text}: {error}").unwrap(),
        }
        if let Err(error) = socket.commit(&transaction) {
            writeln!(wrong, "{text}: {}", error.chain()).unwrap();
        }
    }
    let theirs = seen(&theirs.1.unwrap().ruleset().unwrap());
    let ours = seen(&socket.ruleset().unwrap());
    assert_eq!(theirs.len(), cases.rows.len());
    for (number, (_, text, _)) in cases.rows.iter().enumerate() {
        let chain = ChainName::new(&format!("c{number}")).unwrap();
        if theirs.get(&chain) != ours.get(&chain) {
            writeln!(wrong, "{text}:\n  nft  {:?}\n  ours {:?}", theirs.get(&chain), ours.get(&chain)).unwrap();
        }
        // The kernel dumps what was meant, so that a ruleset of ours verifies.
        if let (Some(meant), Some((dumped, _, _))) = (meant.get(&chain), ours.get(&chain))
            && meant != dumped
        {
            writeln!(wrong, "{text}:\n  meant  {meant:?}\n  dumped {dumped:?}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    println!("{family}: {} rules, each as nft has it", cases.rows.len());
}

#[test]
fn inet_rules_are_as_nft_has_them() {
    compare(inet());
}

#[test]
fn ip_rules_are_as_nft_has_them() {
    compare(ip());
}

#[test]
fn ip6_rules_are_as_nft_has_them() {
    compare(ip6());
}

#[test]
fn bridge_rules_are_as_nft_has_them() {
    compare(bridge());
}

#[test]
fn netdev_rules_are_as_nft_has_them() {
    compare(netdev());
}

#[test]
fn arp_rules_are_as_nft_has_them() {
    compare(arp());
}

/// A whole ruleset, its anonymous sets among it, is committed and found again.
#[test]
fn a_ruleset_of_written_rules_verifies() {
    let Ok((_netns, socket)) = Netns::create_with(Socket::open) else {
        return skip("no network namespace to be had");
    };
    let mut socket = socket.unwrap();
    let world = World::<Inet>::new("c");
    let table = TableOf::<Inet>::new("t").unwrap();
    let mut ruleset = Ruleset { tables: vec![table.declare()], ..Ruleset::default() };
    ruleset.chains = vec![world.chain.declare(), world.other.declare()];
    ruleset.sets = vec![world.nets.declare(), world.services.declare(), world.ports.declare()];
    for _ in 0..3 {
        ruleset.push_rule(world.rule().tcp_dport([22, 80]).ip_saddr(&world.nets).accept().unwrap());
        let entries = [(22..=25, Verdict::Accept), (80..=80, world.other.jump())];
        ruleset.push_rule(world.rule().vmap(TCP_DPORT, entries).done().unwrap());
    }
    socket.commit(&ruleset.create()).unwrap();
    socket.verify(&ruleset).unwrap();
    // What comes later, in a transaction that does not know the names in use.
    let mut more = Transaction::new();
    more.push_rule(Verb::Add, world.rule().udp_dport([53, 123]).accept().unwrap());
    more.push_rule(Verb::Insert, world.rule().udp_dport([53, 123]).drop().unwrap());
    socket.commit(&more).unwrap();
    let id: &TableId = table.id();
    assert_eq!(socket.table(id).unwrap().unwrap().rules.len(), 8);
    let error = socket.verify(&ruleset).unwrap_err();
    assert!(error.to_string().contains('t'), "{error}");
}

#[test]
fn sets_and_maps_with_elements_are_as_nft_has_them() {
    let (theirs, ours) = match (Netns::create_with(Socket::open), Netns::create_with(Socket::open)) {
        (Ok(theirs), Ok(ours)) => (theirs, ours),
        _ => return skip("no network namespace to be had"),
    };
    if Command::new("nft").arg("--version").output().is_err() {
        return skip("no `nft` here");
    }
    let text = "table inet t {
        chain other { }
        set spans { type mark . ipv4_addr; flags interval; elements = { 1-5 . 10.0.0.0/24, 9 . 10.0.1.5 } }
        set wide { type ipv4_addr . inet_service . ipv4_addr; flags interval; elements = { 10.0.0.0/24 . 80-90 . 10.0.0.7 } }
        map ways { type ipv4_addr . inet_service : verdict; flags interval; elements = { 10.0.0.0/24 . 80-90 : jump other } }
        map classes { type ipv4_addr : mark; flags interval; elements = { 10.0.0.0/24 : 1, 10.0.1.0-10.0.1.9 : 2 } }
        map turned { type mark : mark; flags interval; elements = { 1-5 : 7 } }
        map servers { type inet_service : ipv4_addr . inet_service; elements = { 80 : 10.0.0.1 . 8080 } }
        map servers6 { type ipv6_addr . inet_service : ipv6_addr; elements = { 2001:db8::1 . 80 : 2001:db8::2 } }
        map moved { type inet_service : inet_service; flags timeout; timeout 1h; size 9; }
    }";
    nft(&theirs.0, text).unwrap();
    let (world, table) = (World::<Inet>::new("c"), TableOf::<Inet>::new("t").unwrap());
    let wide = table.set::<(Ipv4Addr, Port, Ipv4Addr)>("wide").unwrap().interval();
    let moved = world.moved.clone().timeout(Duration::from_secs(3600)).size(9);
    let mut ruleset = Ruleset { tables: vec![table.declare()], ..Ruleset::default() };
    ruleset.chains = vec![world.other.declare()];
    ruleset.sets = vec![
        world.spans.declare(),
        wide.declare(),
        world.ways.declare(),
        world.classes.declare(),
        world.turned.declare(),
        world.servers.declare(),
        world.servers6.declare(),
        moved.declare(),
    ];
    let elements = [
        world.spans.spans([(1..=5, net("10.0.0.0/24")), (9..=9, net("10.0.1.5/32"))]),
        wide.spans([(net("10.0.0.0/24"), 80..=90, v4("10.0.0.7"))]),
        world.ways.elements([((net("10.0.0.0/24"), 80..=90), world.other.jump())]),
        world
            .classes
            .elements([(v4("10.0.0.0")..=v4("10.0.0.255"), Mark(1)), (v4("10.0.1.0")..=v4("10.0.1.9"), Mark(2))]),
        world.turned.elements([(1..=5, Mark(7))]),
        world.servers.elements([(80, (v4("10.0.0.1"), Port(8080)))]),
        world.servers6.elements([((v6("2001:db8::1"), 80), v6("2001:db8::2"))]),
    ];
    elements.into_iter().for_each(|elements| ruleset.push_elements(elements.unwrap()));
    let mut socket = ours.1.unwrap();
    socket.commit(&ruleset.create()).unwrap();
    socket.verify(&ruleset).unwrap();
    let (theirs, ours) = (theirs.1.unwrap().ruleset().unwrap(), socket.ruleset().unwrap());
    for (their, our) in theirs.sets.iter().zip(&ours.sets) {
        let what = |set: &ringfence::nft::Set| {
            (set.name.clone(), set.key.clone(), set.data.clone(), set.flags, set.timeout, set.size)
        };
        assert_eq!(what(their), what(our));
        let elements = |ruleset: &Ruleset| {
            let of: Vec<_> = ruleset.elements.iter().filter(|(_, name, _)| *name == their.name).cloned().collect();
            let mut all: Vec<Element> = of.into_iter().flat_map(|(_, _, elements)| elements).collect();
            all.sort_by(|a, b| (&a.key, a.interval_end).cmp(&(&b.key, b.interval_end)));
            all
        };
        assert_eq!(elements(&theirs), elements(&ours), "{}", their.name);
        assert!(their.name.as_str() == "moved" || !elements(&ours).is_empty(), "{}", their.name);
    }
    assert_eq!((theirs.sets.len(), ours.sets.len()), (8, 8));
    // Handles of what was read are as good.
    let read = |name: &str| ours.sets.iter().find(|set| set.name.as_str() == name).unwrap();
    assert!(MapOf::<Port, (Ipv4Addr, Port)>::of(read("servers")).is_ok());
    assert!(MapOf::<Port, Ipv4Addr>::of(read("servers")).is_err());
    assert!(VerdictMapOf::<(Ipv4Addr, Port)>::of(read("ways")).is_ok());
    assert!(SetOf::<(Mark, Ipv4Addr)>::of(read("spans")).is_ok());
}

/// What comes and goes by and by.
#[test]
fn ranges_are_taken_out_as_they_were_put_in() {
    let Ok((_netns, socket)) = Netns::create_with(Socket::open) else {
        return skip("no network namespace to be had");
    };
    let mut socket = socket.unwrap();
    let (world, table) = (World::<Inet>::new("c"), TableOf::<Inet>::new("t").unwrap());
    let mut ruleset = Ruleset { tables: vec![table.declare()], ..Ruleset::default() };
    ruleset.chains = vec![world.other.declare()];
    ruleset.sets =
        vec![world.nets.declare(), world.spans.declare(), world.classes.declare(), world.addresses.declare()];
    // What is below all ranges is told once, and a key that is there twice as well.
    for one in [net("10.1.0.0/24"), net("10.2.0.0/24")] {
        ruleset.push_elements(world.nets.spans([one]).unwrap());
    }
    ruleset.push_elements(world.addresses.elements([v4("10.0.0.1"), v4("10.0.0.1")]).unwrap());
    socket.commit(&ruleset.create()).unwrap();
    socket.verify(&ruleset).unwrap();
    let mut change = |verb: Verb, elements: Elements| {
        let mut transaction = Transaction::new();
        transaction.push_elements(verb, elements);
        socket.commit(&transaction).map(|_| ()).map_err(|error| error.chain().to_string())
    };
    let (one, other) = (net("10.0.0.0/24"), net("10.0.2.0/24"));
    for verb in [Verb::Add, Verb::Delete, Verb::Create, Verb::Delete] {
        for one in [one, other] {
            assert_eq!(change(verb, world.nets.spans([one]).unwrap()), Ok(()), "{verb:?} {one}");
            assert_eq!(change(verb, world.spans.spans([(1..=5, one)]).unwrap()), Ok(()), "{verb:?} {one}");
            assert_eq!(change(verb, world.classes.elements([(one, Mark(1))]).unwrap()), Ok(()), "{verb:?} {one}");
        }
    }
    let dumped = socket.ruleset().unwrap();
    let left = dumped.elements.iter().flat_map(|(_, _, elements)| elements).filter(|element| !element.interval_end);
    assert_eq!(left.count(), 3);
}
