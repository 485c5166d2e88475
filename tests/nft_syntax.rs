//! Rulesets shown in nft(8) syntax, held against what nft(8) itself makes of the text.
//!
//! The twin tests need `nft` and the privilege to make a network namespace, inside which alone anything is loaded. Where either is missing
//! they say so, and fail when `RINGFENCE_TEST_KERNEL=require`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use ringfence::nft::*;

const ENDPOINT: [Datatype; 3] = [Datatype::Ipv4Addr, Datatype::InetProto, Datatype::InetService];
const ENDPOINT6: [Datatype; 3] = [Datatype::Ipv6Addr, Datatype::InetProto, Datatype::InetService];

const IP_SADDR: Load = Load::Payload(PayloadBase::Network, 12, 4);
const IP_DADDR: Load = Load::Payload(PayloadBase::Network, 16, 4);
const IP6_SADDR: Load = Load::Payload(PayloadBase::Network, 8, 16);
const IP6_DADDR: Load = Load::Payload(PayloadBase::Network, 24, 16);
const L4PROTO: Load = Load::Meta(MetaKey::L4Proto, 1);
const SPORT: Load = Load::Payload(PayloadBase::Transport, 0, 2);
const DPORT: Load = Load::Payload(PayloadBase::Transport, 2, 2);
const IIF: Load = Load::Meta(MetaKey::Iif, 4);
const OIF: Load = Load::Meta(MetaKey::Oif, 4);

/// A field to load, and its length.
#[derive(Debug, Clone, Copy)]
enum Load {
    Meta(MetaKey, u32),
    Payload(PayloadBase, u32, u32),
    Ct(CtKey),
}

impl Load {
    fn len(self) -> u32 {
        match self {
            Load::Meta(_, len) | Load::Payload(_, _, len) => len,
            Load::Ct(_) => 4,
        }
    }

    fn load(self, dreg: Register) -> Expr {
        match self {
            Load::Meta(key, _) => Expr::Meta { key, dreg },
            Load::Payload(base, offset, len) => Expr::Payload { base, offset, len, dreg },
            Load::Ct(key) => Expr::Ct { key, direction: None, dreg },
        }
    }
}

const REG: Register = Register::FIRST;

/// Rule writing for tests, on the public interface alone.
trait Write {
    fn is(self, load: Load, data: Data) -> Self;
    fn cmp(self, load: Load, op: CmpOp, data: Data) -> Self;
    fn with_mask(self, load: Load, mask: &[u8], op: CmpOp, data: &[u8]) -> Self;
    fn lookup(self, fields: &[Load], set: &str, negated: bool) -> Self;
    fn set_mark(self, load: Load) -> Self;
    fn note(self, comment: &str) -> Self;
}

impl Write for Rule {
    fn is(self, load: Load, data: Data) -> Self {
        self.cmp(load, CmpOp::Eq, data)
    }

    fn cmp(self, load: Load, op: CmpOp, data: Data) -> Self {
        self.expr(load.load(REG)).expr(Expr::Cmp { op, sreg: REG, data })
    }

    fn with_mask(self, load: Load, mask: &[u8], op: CmpOp, data: &[u8]) -> Self {
        let mask_xor = BitwiseOp::MaskXor { mask: bytes(mask), xor: bytes(&vec![0; mask.len()]) };
        self.expr(load.load(REG))
            .expr(Expr::Bitwise { sreg: REG, dreg: REG, len: load.len(), op: mask_xor })
            .expr(Expr::Cmp { op, sreg: REG, data: bytes(data) })
    }

    fn lookup(mut self, fields: &[Load], set: &str, negated: bool) -> Self {
        let mut slot = 0;
        for field in fields {
            self = self.expr(field.load(Register::slot(slot).unwrap()));
            slot += field.len().div_ceil(4) as u8;
        }
        self.expr(Expr::Lookup { set: SetName::new(set).unwrap(), sreg: REG, negated })
    }

    fn set_mark(self, load: Load) -> Self {
        self.expr(load.load(REG)).expr(Expr::MetaSet { key: MetaKey::Mark, sreg: REG })
    }

    fn note(self, comment: &str) -> Self {
        self.comment(Comment::new(comment).unwrap())
    }
}

fn bytes(bytes: &[u8]) -> Data {
    Data::new(bytes).unwrap()
}

fn table(family: Family, name: &str) -> TableId {
    TableId { family, name: TableName::new(name).unwrap() }
}

fn plain_table(id: &TableId) -> Table {
    Table::new(id.clone())
}

fn chain(name: &str) -> ChainName {
    ChainName::new(name).unwrap()
}

fn set(table: &TableId, name: &str, key: &[Datatype]) -> Set {
    Set::new(table, &SetName::new(name).unwrap(), KeyType(key.to_vec()))
}

fn base(table: &TableId, name: &str, kind: ChainType, hook: Hook, priority: i32, policy: ChainPolicy) -> Chain {
    let base = BaseChain { kind, hook, priority: Priority(priority), policy, devices: Vec::new() };
    Chain { base: Some(base), ..Chain::new(table, &chain(name)) }
}

fn endpoint(address: &str, protocol: u8, port: u16) -> Data {
    let address = match address.parse().unwrap() {
        std::net::IpAddr::V4(v4) => Data::ipv4(v4),
        std::net::IpAddr::V6(v6) => Data::ipv6(v6),
    };
    Data::concat(&[address, Data::byte(protocol), Data::be16(port)]).unwrap()
}

fn log(prefix: &str) -> Log {
    Log { group: 100, prefix: Some(prefix.to_owned()), snaplen: Some(96), queue_threshold: Some(1) }
}

const NEIGHBOUR_DISCOVERY: [u8; 4] = [133, 134, 135, 136];

/// The ruleset inside: what the sandbox sends.
fn inside() -> Ruleset {
    let (id, link) = (table(Family::Inet, "ringfence"), table(Family::Netdev, "ringfence"));
    let output = chain("output");
    let rule = || Rule::new(&id, &output);
    let icmp_type = Load::Payload(PayloadBase::Transport, 0, 1);
    let mut rules = vec![
        rule().is(OIF, Data::native32(1)).counter().verdict(Verdict::Accept).note("loopback"),
        rule()
            .nfproto(Family::Ip)
            .with_mask(Load::Payload(PayloadBase::Network, 6, 2), &[0x3f, 0xff], CmpOp::Neq, &[0, 0])
            .counter()
            .verdict(Verdict::Drop)
            .note("fragments"),
        rule()
            .nfproto(Family::Ip)
            .with_mask(Load::Payload(PayloadBase::Network, 0, 1), &[0x0f], CmpOp::Neq, &[5])
            .counter()
            .verdict(Verdict::Drop)
            .note("IP options"),
        rule()
            .nfproto(Family::Ip6)
            .is(Load::Payload(PayloadBase::Network, 6, 1), Data::byte(44))
            .counter()
            .verdict(Verdict::Drop),
        rule().ct_state(ct_state::ESTABLISHED | ct_state::RELATED).counter().verdict(Verdict::Accept),
        rule()
            .nfproto(Family::Ip)
            .lookup(&[IP_DADDR, L4PROTO, DPORT], "endpoints4", false)
            .counter()
            .verdict(Verdict::Accept)
            .note("direct endpoints"),
        rule()
            .nfproto(Family::Ip6)
            .lookup(&[IP6_DADDR, L4PROTO, DPORT], "endpoints6", false)
            .counter()
            .verdict(Verdict::Accept),
    ];
    rules.extend(NEIGHBOUR_DISCOVERY.map(|kind| {
        rule().nfproto(Family::Ip6).l4proto(58).is(icmp_type, Data::byte(kind)).counter().verdict(Verdict::Accept)
    }));
    rules.extend([
        rule().l4proto(6).counter().log(log("rf1:tcp ")).reject(Reject::TcpReset).note("refuse TCP at once"),
        rule().counter().log(log("rf1: ")).reject(Reject::Icmpx(RejectCode::AdminProhibited)),
    ]);
    let egress = chain("egress");
    let frame = |ethertype: u16| Rule::new(&link, &egress).is(Load::Meta(MetaKey::Protocol, 2), Data::be16(ethertype));
    let own = Data::ipv4([10, 200, 0, 2].into());
    let own6: std::net::Ipv6Addr = "2001:db8::2".parse().unwrap();
    rules.extend([
        frame(0x0806).is(Load::Payload(PayloadBase::Network, 14, 4), own.clone()).counter().verdict(Verdict::Accept),
        frame(0x0800).is(IP_SADDR, own).counter().verdict(Verdict::Accept),
        frame(0x86dd)
            .is(Load::Payload(PayloadBase::Network, 8, 16), Data::ipv6(own6))
            .counter()
            .verdict(Verdict::Accept),
        frame(0x86dd).l4proto(58).is(icmp_type, Data::byte(135)).counter().verdict(Verdict::Accept),
    ]);
    let mut egress_chain = base(&link, "egress", ChainType::Filter, Hook::Egress, 0, ChainPolicy::Drop);
    if let Some(base) = &mut egress_chain.base {
        base.devices.push(InterfaceName::new("lo").unwrap());
    }
    let mut timed = set(&id, "endpoints4", &ENDPOINT);
    timed.flags.timeout = true;
    timed.comment = Some(Comment::new("{ direct } \\ # $endpoints").unwrap());
    let mut sized = set(&id, "endpoints6", &ENDPOINT6);
    sized.size = Some(65536);
    let mut learned = Element::new(endpoint("198.51.100.7", 17, 53));
    learned.timeout = Some(Duration::from_secs(90));
    learned.comment = Some(Comment::new("db.example").unwrap());
    Ruleset {
        tables: vec![
            Table { comment: Some(Comment::new("ringfence sandbox 1").unwrap()), ..plain_table(&id) },
            plain_table(&link),
        ],
        elements: vec![
            (id.clone(), timed.name.clone(), vec![Element::new(endpoint("203.0.113.9", 6, 5432)), learned]),
            (id.clone(), sized.name.clone(), vec![Element::new(endpoint("2001:db8::9", 132, 443))]),
        ],
        sets: vec![timed, sized],
        chains: vec![base(&id, "output", ChainType::Filter, Hook::Output, 0, ChainPolicy::Drop), egress_chain],
        rules,
        ..Ruleset::default()
    }
}

/// The ruleset outside: what comes from the host ends of the sandboxes.
fn outside() -> Ruleset {
    let id = table(Family::Inet, "ringfence-4711");
    let keyed = [&[Datatype::IfaceIndex][..], &ENDPOINT].concat();
    let keyed6 = [&[Datatype::IfaceIndex][..], &ENDPOINT6].concat();
    let source = [Datatype::IfaceIndex, Datatype::Ipv4Addr];
    let rule = |name: &str| Rule::new(&id, &chain(name));
    let key = |index, address, protocol, port| {
        Element::new(bytes(&[Data::native32(index).as_bytes(), endpoint(address, protocol, port).as_bytes()].concat()))
    };
    let own = Data::concat(&[Data::native32(7), Data::ipv4([10, 200, 0, 2].into())]).unwrap();
    let sets = vec![
        set(&id, "hosts", &[Datatype::IfaceIndex]),
        set(&id, "sources", &source),
        set(&id, "allowed4", &keyed),
        set(&id, "allowed6", &keyed6),
    ];
    let name = |name| SetName::new(name).unwrap();
    Ruleset {
        tables: vec![plain_table(&id)],
        elements: vec![
            (id.clone(), name("hosts"), vec![Element::new(Data::native32(7)), Element::new(Data::native32(1))]),
            (id.clone(), name("sources"), vec![Element::new(own)]),
            (id.clone(), name("allowed4"), vec![key(7, "203.0.113.9", 6, 5432)]),
            (id.clone(), name("allowed6"), vec![key(7, "2001:db8::9", 17, 53)]),
        ],
        sets,
        chains: vec![
            base(&id, "prerouting", ChainType::Filter, Hook::Prerouting, -450, ChainPolicy::Accept),
            base(&id, "input", ChainType::Filter, Hook::Input, 0, ChainPolicy::Accept),
            base(&id, "forward", ChainType::Filter, Hook::Forward, 0, ChainPolicy::Accept),
            base(&id, "postrouting", ChainType::Nat, Hook::Postrouting, 100, ChainPolicy::Accept),
            Chain { comment: Some(Comment::new("ours").unwrap()), ..Chain::new(&id, &chain("sandbox")) },
        ],
        rules: vec![
            rule("prerouting")
                .nfproto(Family::Ip)
                .lookup(&[IIF], "hosts", false)
                .lookup(&[IIF, IP_SADDR], "sources", true)
                .counter()
                .verdict(Verdict::Drop)
                .note("spoofed"),
            rule("input").lookup(&[IIF], "hosts", false).counter().verdict(Verdict::Drop),
            rule("forward").lookup(&[IIF], "hosts", false).verdict(Verdict::Goto(chain("sandbox"))),
            rule("forward")
                .lookup(&[OIF], "hosts", false)
                .ct_state(ct_state::ESTABLISHED | ct_state::RELATED)
                .verdict(Verdict::Accept),
            rule("forward").lookup(&[OIF], "hosts", false).counter().verdict(Verdict::Drop),
            rule("postrouting")
                .nfproto(Family::Ip)
                .lookup(&[IIF], "hosts", false)
                .expr(Expr::Masquerade(NatPorts::default())),
            rule("sandbox")
                .nfproto(Family::Ip)
                .lookup(&[IIF, IP_DADDR, L4PROTO, DPORT], "allowed4", false)
                .counter()
                .verdict(Verdict::Accept),
            rule("sandbox")
                .nfproto(Family::Ip6)
                .lookup(&[IIF, IP6_DADDR, L4PROTO, DPORT], "allowed6", false)
                .counter()
                .verdict(Verdict::Accept),
            rule("sandbox").l4proto(6).counter().reject(Reject::TcpReset),
            rule("sandbox")
                .expr(Expr::Limit(Limit { rate: 50, seconds: 1, burst: 100, over: false, bytes: false }))
                .counter()
                .reject(Reject::Icmpx(RejectCode::AdminProhibited)),
            rule("sandbox").counter().verdict(Verdict::Drop),
        ],
        ..Ruleset::default()
    }
}

/// Every kind of expression beside the text it must become, in one chain a family.
fn kinds() -> Vec<(Rule, &'static str)> {
    let inet = table(Family::Inet, "kinds");
    let rule = || Rule::new(&inet, &chain("c"));
    let ip = || rule().nfproto(Family::Ip);
    let network = |offset, len| Load::Payload(PayloadBase::Network, offset, len);
    let transport = |offset, len| Load::Payload(PayloadBase::Transport, offset, len);
    let range = |load: Load, negated, from: &[u8], to: &[u8]| {
        rule().expr(load.load(REG)).expr(Expr::Range { negated, sreg: REG, from: bytes(from), to: bytes(to) })
    };
    let bits = |bits: u32| bits.to_ne_bytes();
    let name = |name: &[u8]| {
        let mut padded = [0; 16];
        padded[..name.len()].copy_from_slice(name);
        bytes(&padded)
    };
    let six = |n| Family::Ip6.to_wire() + n;
    vec![
        (ip(), "meta nfproto ipv4"),
        (rule().cmp(Load::Meta(MetaKey::NfProto, 1), CmpOp::Neq, Data::byte(six(0))), "meta nfproto != ipv6"),
        (rule().l4proto(47), "meta l4proto 47"),
        (rule().is(Load::Meta(MetaKey::Protocol, 2), Data::be16(0x88cc)), "meta protocol 0x88cc"),
        (rule().is(IIF, Data::native32(1)), "iif \"lo\""),
        (rule().cmp(OIF, CmpOp::Neq, Data::native32(4000)), "oif != 4000"),
        (rule().is(Load::Meta(MetaKey::OifName, 16), name(b"veth*")), "oifname \"veth\\*\""),
        (rule().is(Load::Meta(MetaKey::IifName, 16), bytes(b"veth")), "iifname \"veth*\""),
        (rule().is(Load::Meta(MetaKey::Mark, 4), Data::native32(0x2a)), "meta mark 0x0000002a"),
        (
            rule().with_mask(Load::Meta(MetaKey::Mark, 4), &bits(0xff), CmpOp::Neq, &bits(3)),
            "meta mark & 0x000000ff != 0x00000003",
        ),
        (rule().is(Load::Meta(MetaKey::SkUid, 4), Data::native32(1000)), "meta skuid 1000"),
        (rule().is(IP_DADDR, Data::ipv4([203, 0, 113, 9].into())), "@nh,128,32 0xcb007109"),
        (ip().is(IP_DADDR, Data::ipv4([203, 0, 113, 9].into())), "meta nfproto ipv4 ip daddr 203.0.113.9"),
        (ip().cmp(network(12, 1), CmpOp::Neq, Data::byte(10)), "meta nfproto ipv4 ip saddr != 10.0.0.0/8"),
        (
            ip().with_mask(IP_SADDR, &[255, 240, 0, 0], CmpOp::Eq, &[10, 16, 0, 0]),
            "meta nfproto ipv4 ip saddr 10.16.0.0/12",
        ),
        (
            ip().with_mask(IP_SADDR, &[255, 255, 0, 0], CmpOp::Eq, &[10, 16, 0, 0]),
            "meta nfproto ipv4 ip saddr & 255.255.0.0 == 10.16.0.0",
        ),
        (ip().cmp(IP_SADDR, CmpOp::Gte, bytes(&[10, 0, 0, 1])), "meta nfproto ipv4 ip saddr >= 10.0.0.1"),
        (
            ip().with_mask(network(6, 2), &[0x3f, 0xff], CmpOp::Neq, &[0, 0]),
            "meta nfproto ipv4 ip frag-off & 0x3fff != 0",
        ),
        (ip().with_mask(network(0, 1), &[0x0f], CmpOp::Gt, &[5]), "meta nfproto ipv4 ip hdrlength > 5"),
        (ip().with_mask(network(0, 1), &[0xf0], CmpOp::Eq, &[0x40]), "meta nfproto ipv4 ip version 4"),
        (
            ip().is(network(9, 1), Data::byte(17)).is(DPORT, Data::be16(53)),
            "meta nfproto ipv4 ip protocol udp udp dport 53",
        ),
        (
            rule().nfproto(Family::Ip6).is(network(24, 8), bytes(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0])),
            "meta nfproto ipv6 ip6 daddr 2001:db8::/64",
        ),
        (rule().with_mask(network(6, 2), &[0x3f, 0xff], CmpOp::Neq, &[0, 0]), "@nh,48,16 & 0x3fff != 0"),
        (rule().is(Load::Payload(PayloadBase::LinkLayer, 12, 2), Data::be16(0x0806)), "@ll,96,16 0x806"),
        (rule().is(DPORT, Data::be16(53)), "th dport 53"),
        (rule().l4proto(6).is(SPORT, Data::be16(22)), "meta l4proto tcp tcp sport 22"),
        (
            rule().l4proto(6).with_mask(transport(13, 1), &[0x12], CmpOp::Eq, &[2]),
            "meta l4proto tcp tcp flags & (syn | ack) == syn",
        ),
        (rule().l4proto(6).is(transport(13, 1), Data::byte(0x12)), "meta l4proto tcp tcp flags == syn | ack"),
        (rule().l4proto(1).is(transport(0, 1), Data::byte(8)), "meta l4proto icmp icmp type 8"),
        (
            rule().l4proto(58).is(transport(0, 1), Data::byte(135)),
            "meta l4proto icmpv6 icmpv6 type nd-neighbor-solicit",
        ),
        (rule().ct_state(ct_state::ESTABLISHED | ct_state::RELATED), "ct state established,related"),
        (rule().is(Load::Ct(CtKey::State), Data::native32(ct_state::NEW)), "ct state == new"),
        (rule().with_mask(Load::Ct(CtKey::State), &bits(6), CmpOp::Eq, &bits(2)), "ct state & 0x6 == established"),
        (rule().with_mask(Load::Ct(CtKey::Status), &bits(0x20), CmpOp::Neq, &bits(0)), "ct status dnat"),
        (range(DPORT, false, &[0, 1], &[0x03, 0xff]), "th dport 1-1023"),
        (range(DPORT, true, &[0, 1], &[0x03, 0xff]), "th dport != 1-1023"),
        (
            rule().cmp(DPORT, CmpOp::Gte, Data::be16(1)).expr(Expr::Cmp {
                op: CmpOp::Lte,
                sreg: REG,
                data: Data::be16(9),
            }),
            "th dport 1-9",
        ),
        (
            ip().lookup(&[IP_DADDR, L4PROTO, DPORT], "pairs", true),
            "meta nfproto ipv4 ip daddr . meta l4proto . th dport != @pairs",
        ),
        (ip().lookup(&[IP_DADDR], "ranges", false), "meta nfproto ipv4 ip daddr @ranges"),
        (rule().expr(Expr::Counter { packets: 5, bytes: u64::MAX }), "counter packets 5 bytes 18446744073709551615"),
        (rule().log(log("a b: ")), "log prefix \"a b: \" group 100 snaplen 96 queue-threshold 1"),
        (rule().log(Log { group: 0, prefix: None, snaplen: None, queue_threshold: None }), "log group 0"),
        (rule().l4proto(6).reject(Reject::TcpReset), "meta l4proto tcp reject with tcp reset"),
        (rule().reject(Reject::Icmpx(RejectCode::PortUnreachable)), "reject with icmpx port-unreachable"),
        (rule().reject(Reject::Icmpx(RejectCode::NoRoute)), "reject with icmpx no-route"),
        (rule().reject(Reject::Icmpx(RejectCode::HostUnreachable)), "reject with icmpx host-unreachable"),
        (ip().reject(Reject::Icmp(13)), "meta nfproto ipv4 reject with icmp admin-prohibited"),
        (rule().nfproto(Family::Ip6).reject(Reject::Icmp(1)), "meta nfproto ipv6 reject with icmpv6 admin-prohibited"),
        (
            rule().expr(Expr::Limit(Limit { rate: 5, seconds: 60, burst: 7, over: true, bytes: false })),
            "limit rate over 5/minute burst 7 packets",
        ),
        (rule().verdict(Verdict::Continue), "continue"),
        (rule().verdict(Verdict::Return), "return"),
        (rule().verdict(Verdict::Jump(chain("d"))), "jump d"),
        (rule().verdict(Verdict::Goto(chain("d"))), "goto d"),
        (
            rule().l4proto(6).is(SPORT, Data::be16(1)).cmp(DPORT, CmpOp::Neq, Data::be16(2)),
            "meta l4proto tcp tcp sport 1 tcp dport != 2",
        ),
        (
            rule().nfproto(Family::Ip6).cmp(IP6_SADDR, CmpOp::Neq, Data::ipv6([0x20; 16].into())).cmp(
                IP6_DADDR,
                CmpOp::Neq,
                Data::ipv6([0x21; 16].into()),
            ),
            "meta nfproto ipv6 ip6 saddr != 2020:2020:2020:2020:2020:2020:2020:2020 \
             ip6 daddr != 2121:2121:2121:2121:2121:2121:2121:2121",
        ),
        (
            rule()
                .nfproto(Family::Ip)
                .l4proto(6)
                .is(SPORT, Data::be16(1))
                .is(IP_SADDR, Data::ipv4([198, 51, 100, 1].into()))
                .counter()
                .is(DPORT, Data::be16(2)),
            "meta nfproto ipv4 meta l4proto tcp tcp sport 1 ip saddr 198.51.100.1 counter packets 0 bytes 0 tcp dport 2",
        ),
    ]
}

/// The rules of one chain, with the table, sets and chains they need.
fn around(rules: Vec<Rule>) -> Ruleset {
    let id = table(Family::Inet, "kinds");
    let mut ranges = set(&id, "ranges", &[Datatype::Ipv4Addr]);
    ranges.flags.interval = true;
    let bound = |octets: [u8; 4], interval_end| Element { interval_end, ..Element::new(Data::ipv4(octets.into())) };
    Ruleset {
        tables: vec![plain_table(&id)],
        elements: vec![(
            id.clone(),
            ranges.name.clone(),
            vec![
                bound([10, 0, 0, 1], false),
                bound([10, 0, 0, 5], true),
                bound([198, 51, 100, 0], false),
                bound([198, 51, 101, 0], true),
            ],
        )],
        sets: vec![ranges, set(&id, "pairs", &ENDPOINT), set(&id, "ports", &[Datatype::InetService])],
        chains: ["c", "d"].map(|name| Chain::new(&id, &chain(name))).to_vec(),
        rules,
        ..Ruleset::default()
    }
}

fn golden(name: &str, shown: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/nft_syntax").join(name);
    if std::env::var_os("RINGFENCE_BLESS").is_some() {
        std::fs::write(&path, shown).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert!(shown == expected, "not as {} (RINGFENCE_BLESS=1 rewrites it):\n{shown}", path.display());
}

#[test]
fn the_fence_is_shown_whole() {
    for (name, ruleset) in [("inside.nft", inside()), ("outside.nft", outside())] {
        let syntax = ruleset.syntax();
        assert_eq!(syntax.unshown(), []);
        golden(name, syntax.as_str());
    }
}

#[test]
fn every_kind_of_expression_has_its_text() {
    let (rules, texts): (Vec<_>, Vec<_>) = kinds().into_iter().unzip();
    let shown = around(rules).syntax();
    assert_eq!(shown.unshown(), []);
    let lines: Vec<_> = shown.as_str().lines().filter_map(|line| line.strip_prefix("\t\t")).collect();
    let first = lines.iter().position(|line| *line == texts[0]).unwrap();
    assert_eq!(lines[first..], texts);
}

#[test]
fn what_nft_cannot_write_is_told() {
    let id = table(Family::Inet, "kinds");
    let rule = || Rule::new(&id, &chain("c"));
    let load = L4PROTO.load(REG);
    let mut wide = rule();
    wide.table = table(Family::Ip, "kinds");
    for (rule, reason) in [
        (rule(), "no empty rule"),
        (rule().expr(load.clone()), "does not compare it before"),
        (
            rule().expr(load.clone()).counter().expr(Expr::Cmp { op: CmpOp::Eq, sreg: REG, data: Data::byte(6) }),
            "before the next statement",
        ),
        (rule().expr(load.clone()).is(DPORT, Data::be16(1)), "overwrites it unused"),
        (rule().expr(Expr::Cmp { op: CmpOp::Eq, sreg: REG, data: Data::byte(6) }), "where no value starts"),
        (rule().verdict(Verdict::Accept).counter(), "behind the statement that ends"),
        (rule().reject(Reject::TcpReset), "adds a match of TCP"),
        (rule().reject(Reject::Icmp(3)), "adds a match of the family"),
        (rule().expr(Expr::Limit(Limit { rate: 1, seconds: 7, burst: 1, over: false, bytes: false })), "per 7 seconds"),
        (
            rule().log(Log { group: 1, prefix: Some("$x".to_owned()), snaplen: None, queue_threshold: None }),
            "for a variable",
        ),
        (rule().log(log("a\" accept \"")), "double quote"),
        (rule().cmp(SPORT, CmpOp::Neq, Data::be16(1)).cmp(DPORT, CmpOp::Neq, Data::be16(2)), "mean another thing"),
        (
            rule().cmp(DPORT, CmpOp::Neq, Data::be16(1)).is(OIF, Data::native32(1)).cmp(
                SPORT,
                CmpOp::Neq,
                Data::be16(2),
            ),
            "mean another thing",
        ),
        (rule().is(SPORT, Data::be16(1)).counter().is(DPORT, Data::be16(2)), "mean another thing"),
        (
            rule().is(SPORT, Data::be16(1)).counter().is(OIF, Data::native32(1)).counter().is(DPORT, Data::be16(2)),
            "mean another thing",
        ),
        (rule().lookup(&[DPORT], "nowhere", false), "not in the ruleset"),
        (rule().lookup(&[SPORT], "pairs", false), "for a key of ipv4_addr"),
        (rule().lookup(&[IP_DADDR, L4PROTO, DPORT], "pairs", false), "for a key of ipv4_addr"),
        (rule().cmp(Load::Meta(MetaKey::Mark, 4), CmpOp::Gt, Data::native32(1)), "no way to compare"),
        (rule().verdict(Verdict::Jump(chain("d\naccept"))), "names of letters"),
        (rule().expr(Expr::Immediate { dreg: REG, data: Data::byte(1) }), "only where a statement takes it"),
        (rule().nfproto(Family::Ip).cmp(IP_SADDR, CmpOp::Lte, bytes(&[1, 244])), "no way to compare"),
        (rule().nfproto(Family::Ip).set_mark(IP_SADDR), "does not take ip saddr here, which is of another type"),
        (rule().set_mark(Load::Meta(MetaKey::Priority, 4)), "of another type"),
        (rule().set_mark(Load::Meta(MetaKey::IifGroup, 4)), "of another type"),
        (
            rule().nfproto(Family::Ip).expr(Load::Meta(MetaKey::Cpu, 4).load(REG)).expr(Expr::PayloadWrite {
                base: PayloadBase::Network,
                offset: 12,
                len: 4,
                sreg: REG,
                checksum: Checksum { kind: 1, offset: 10, flags: 1 },
            }),
            "would turn the bytes of meta cpu around",
        ),
        (
            rule().expr(Expr::Redirect(NatPorts { ports: None, flags: NatFlags::PROTO_SPECIFIED })),
            "no word for its flags 0x2",
        ),
        (
            rule().nfproto(Family::Ip).expr(IP_SADDR.load(REG)).expr(Expr::Nat(Nat {
                kind: NatKind::Destination,
                family: Family::Ip,
                addresses: Some(RegisterRange { min: REG, max: REG }),
                ports: None,
                flags: NatFlags::MAP_IPS.and(NatFlags::PROTO_SPECIFIED),
            })),
            "no word for its flags 0x3",
        ),
        (
            rule().expr(Load::Meta(MetaKey::Mark, 4).load(REG)).expr(Expr::Bitwise {
                sreg: REG,
                dreg: REG,
                len: 2,
                op: BitwiseOp::ShiftRight(Data::native32(1)),
            }),
            "changes 2 of the 4 bytes",
        ),
    ] {
        let shown = around(vec![rule.clone().note("x")]).syntax();
        let [unshown] = shown.unshown() else { panic!("{shown}") };
        assert!(unshown.reason.contains(reason), "{unshown}\nlacks {reason}");
        assert_eq!(unshown.what, "rule 1 of chain inet kinds c");
        assert!(shown.as_str().contains("\t\t# rule 1 of chain inet kinds c: "), "{shown}");
    }
}

/// Names and comments that would be something else in nft(8)'s eyes.
fn hostile() -> Ruleset {
    let id = table(Family::Inet, "kinds");
    let evil = table(Family::Inet, "x {\n}\nflush ruleset");
    let mut ruleset = around(vec![
        Rule::new(&id, &chain("c")).verdict(Verdict::Accept).note("a\nflush ruleset"),
        Rule::new(&id, &chain("c")).verdict(Verdict::Accept).note("\" ; flush ruleset ; \""),
        Rule::new(&id, &chain("c")).lookup(&[DPORT], "x { }", false).verdict(Verdict::Accept),
        Rule::new(&evil, &chain("c")).verdict(Verdict::Accept),
        Rule::new(&id, &chain("gone")).verdict(Verdict::Accept),
    ]);
    ruleset.tables.push(Table { comment: Some(Comment::new("x").unwrap()), ..Table::new(evil.clone()) });
    ruleset.tables.push(ruleset.tables[0].clone());
    ruleset.chains.push(Chain::new(&evil, &chain("c")));
    ruleset.sets.push(set(&id, "x { }", &[Datatype::InetService]));
    ruleset.sets.push(set(&evil, "s", &[Datatype::InetService]));
    ruleset.elements.push((id.clone(), SetName::new("x { }").unwrap(), vec![Element::new(Data::be16(1))]));
    ruleset.elements.push((id, SetName::new("gone").unwrap(), vec![Element::new(Data::be16(1))]));
    ruleset
}

#[test]
fn hostile_names_do_not_break_out() {
    let shown = hostile().syntax();
    assert_eq!(shown.unshown().len(), 11, "{shown}");
    for line in shown.as_str().lines().filter(|line| line.contains("flush ruleset") || line.contains("x {")) {
        assert!(line.trim_start().starts_with('#'), "{line}");
    }
}

/// nft(8) would add `meta iiftype ether`, which never matches on `lo`.
#[test]
fn fields_of_a_frame_have_names_where_the_device_is_known_to_have_frames() {
    const DESTINATION: Load = Load::Payload(PayloadBase::LinkLayer, 0, 6);
    let ether = |key| Load::Meta(key, 2);
    let arphrd_ether = || bytes(&1u16.to_ne_bytes());
    for (family, known, text) in [
        (Family::Netdev, None, "@ll,0,48 0x20000000001 accept"),
        (Family::Netdev, Some(MetaKey::OifType), "oiftype 1 @ll,0,48 0x20000000001 accept"),
        (Family::Inet, Some(MetaKey::OifType), "oiftype 1 @ll,0,48 0x20000000001 accept"),
        (Family::Netdev, Some(MetaKey::IifType), "iiftype 1 ether daddr 02:00:00:00:00:01 accept"),
        (Family::Bridge, None, "ether daddr 02:00:00:00:00:01 accept"),
    ] {
        let id = table(family, "kinds");
        let mut rule = Rule::new(&id, &chain("c"));
        if let Some(key) = known {
            rule = rule.is(ether(key), arphrd_ether());
        }
        let rule = rule.is(DESTINATION, bytes(&[2, 0, 0, 0, 0, 1])).verdict(Verdict::Accept);
        let mut ruleset = around(vec![rule]);
        move_to(&mut ruleset, family);
        let shown = ruleset.syntax();
        assert_eq!(shown.unshown(), []);
        assert!(shown.as_str().lines().any(|line| line.trim() == text), "{family}: lacks {text}:\n{shown}");
    }
}

/// An echo request and its reply have the same fields, and nft(8) puts a choice of the two in front of them.
#[test]
fn fields_of_echoes_have_names_behind_a_choice_of_the_two() {
    const TYPE: Load = Load::Payload(PayloadBase::Transport, 0, 1);
    const ID: Load = Load::Payload(PayloadBase::Transport, 4, 2);
    for (protocol, types, text) in [
        (1, &[8, 0][..], "meta l4proto icmp icmp type { 8, 0 } icmp id 22"),
        (58, &[128, 129], "meta l4proto icmpv6 icmpv6 type { echo-request, echo-reply } icmpv6 id 22"),
        (1, &[8], "meta l4proto icmp icmp type { 8 } @th,32,16 0x16"),
        (1, &[8, 0, 3], "meta l4proto icmp icmp type { 8, 0, 3 } @th,32,16 0x16"),
        (58, &[8, 0], "meta l4proto icmpv6 icmpv6 type { 8, 0 } @th,32,16 0x16"),
    ] {
        let id = table(Family::Inet, "kinds");
        let rule = Rule::new(&id, &chain("c")).l4proto(protocol).lookup(&[TYPE], "__set0", false);
        let mut ruleset = around(vec![rule.is(ID, Data::be16(22))]);
        let key = if protocol == 1 { Datatype::IcmpType } else { Datatype::Icmpv6Type };
        let mut choice = set(&id, "__set0", &[key]);
        choice.flags = SetFlags { anonymous: true, constant: true, ..SetFlags::default() };
        let elements = types.iter().map(|kind| Element::new(Data::byte(*kind))).collect();
        ruleset.elements.push((id.clone(), choice.name.clone(), elements));
        ruleset.sets.push(choice);
        let shown = ruleset.syntax();
        assert_eq!(shown.unshown(), []);
        assert!(shown.as_str().lines().any(|line| line.trim() == text), "lacks {text}:\n{shown}");
    }
}

#[test]
fn what_iptables_has_and_nft_has_not_is_named() {
    let id = table(Family::Inet, "kinds");
    let conntrack = Expr::Match(Xt { name: "conntrack".to_owned(), revision: 3, info: Bytes(vec![0; 8]) });
    let shown = around(vec![Rule::new(&id, &chain("c")).expr(conntrack)]).syntax();
    let [unshown] = shown.unshown() else { panic!("{shown}") };
    assert!(unshown.reason.contains("the match \"conntrack\" of iptables(8)"), "{unshown}");
}

#[test]
fn a_flag_that_old_nft_refuses_is_told() {
    let mut ruleset = inside();
    ruleset.tables[0].flags = TableFlags { owner: true, persist: true, ..TableFlags::default() };
    let shown = ruleset.syntax();
    assert_eq!(shown.unshown().len(), 1);
    assert!(!shown.as_str().contains("\n\tflags owner"), "an owner without persist fails open");
}

// ── Twins ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Runs a shell line in a network namespace of its own. `$1` is a file with the text.
fn in_scratch(line: &str, text: &str) -> (bool, String, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let output = Command::new("unshare").args(["-n", "sh", "-c", line, "sh"]).arg(file.path()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// Whether the twin can be asked. Without it a test proves nothing, and says so.
fn twin_is_there(test: &str) -> bool {
    let found = Command::new("unshare").args(["-n", "nft", "list", "ruleset"]).output();
    let missing = match found {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    eprintln!("NOT TESTED: {test} needs nft(8) and the privilege to make a network namespace: {missing}");
    assert!(std::env::var("RINGFENCE_TEST_KERNEL").as_deref() != Ok("require"), "{test}: {missing}");
    false
}

/// Expressions as libnftnl prints them, after what `src/nft/syntax/rule.rs` says may differ.
fn bytecode(rule: &Rule) -> Vec<String> {
    let mut lines = Vec::new();
    let mut xor = Vec::new();
    for expr in &rule.exprs {
        let line = match expr {
            Expr::Payload { base, offset, len, dreg } => {
                let base = match base {
                    PayloadBase::LinkLayer => "link",
                    PayloadBase::Network => "network",
                    PayloadBase::Transport => "transport",
                    other => panic!("{other:?} has no name here"),
                };
                format!("payload load {len}b @ {base} header + {offset} => reg {}", dreg.to_wire())
            }
            Expr::Meta { key, dreg } => {
                format!("meta load {} => reg {}", format!("{key:?}").to_lowercase(), dreg.to_wire())
            }
            Expr::Ct { key, dreg, .. } => {
                format!("ct load {} => reg {}", format!("{key:?}").to_lowercase(), dreg.to_wire())
            }
            Expr::Cmp { op, sreg, data } => {
                let flipped: Vec<u8> =
                    data.as_bytes().iter().enumerate().map(|(at, byte)| byte ^ xor.get(at).unwrap_or(&0)).collect();
                xor.clear();
                format!("cmp {} reg {} {}", format!("{op:?}").to_lowercase(), sreg.to_wire(), words(&flipped))
            }
            Expr::Range { negated: false, sreg, from, to } => {
                lines.push(format!("cmp gte reg {} {}", sreg.to_wire(), words(from.as_bytes())));
                format!("cmp lte reg {} {}", sreg.to_wire(), words(to.as_bytes()))
            }
            Expr::Range { sreg, from, to, .. } => {
                format!("range neq reg {} {} {}", sreg.to_wire(), words(from.as_bytes()), words(to.as_bytes()))
            }
            Expr::Bitwise { sreg, dreg, op: BitwiseOp::MaskXor { mask, xor: bits }, .. } => {
                xor = bits.as_bytes().to_vec();
                let (dreg, sreg) = (dreg.to_wire(), sreg.to_wire());
                let zero = words(&vec![0; mask.len()]);
                format!("bitwise reg {dreg} = ( reg {sreg} & {} ) ^ {zero}", words(mask.as_bytes()))
            }
            Expr::Lookup { set, sreg, negated } => {
                format!("lookup reg {} set {set}{}", sreg.to_wire(), if *negated { " 0x1" } else { "" })
            }
            Expr::Verdict(Verdict::Jump(chain)) => format!("immediate reg 0 jump -> {chain}"),
            Expr::Verdict(Verdict::Goto(chain)) => format!("immediate reg 0 goto -> {chain}"),
            Expr::Verdict(verdict) => format!("immediate reg 0 {}", format!("{verdict:?}").to_lowercase()),
            Expr::Counter { packets, bytes } => format!("counter pkts {packets} bytes {bytes}"),
            Expr::Log(log) => {
                let prefix = log.prefix.as_ref().map(|prefix| format!("prefix {prefix} ")).unwrap_or_default();
                let (snaplen, threshold) = (log.snaplen.unwrap_or(0), log.queue_threshold.unwrap_or(0));
                format!("log {prefix}group {} snaplen {snaplen} qthreshold {threshold}", log.group)
            }
            Expr::Reject(Reject::Icmp(code)) => format!("reject type 0 code {code}"),
            Expr::Reject(Reject::TcpReset) => "reject type 1 code 0".to_owned(),
            Expr::Reject(Reject::Icmpx(code)) => format!("reject type 2 code {}", *code as u8),
            Expr::Masquerade(_) => "masq".to_owned(),
            Expr::MetaSet { key, sreg } => {
                format!("meta set {} with reg {}", format!("{key:?}").to_lowercase(), sreg.to_wire())
            }
            Expr::CtSet { key, sreg, .. } => {
                format!("ct set {} with reg {}", format!("{key:?}").to_lowercase(), sreg.to_wire())
            }
            Expr::Limit(Limit { rate, seconds, burst, over, .. }) => {
                let unit = match seconds {
                    1 => "second",
                    60 => "minute",
                    3_600 => "hour",
                    86_400 => "day",
                    _ => "week",
                };
                format!("limit rate {rate}/{unit} burst {burst} type packets flags 0x{}", u8::from(*over))
            }
            other => panic!("{other:?} has no bytecode here"),
        };
        lines.push(line);
    }
    lines
}

/// Register contents as libnftnl prints them: words of four bytes in the machine's order.
fn words(bytes: &[u8]) -> String {
    let mut line = String::new();
    for word in bytes.chunks(4) {
        let mut whole = [0; 4];
        whole[..word.len()].copy_from_slice(word);
        write!(line, " 0x{:08x}", u32::from_ne_bytes(whole)).unwrap();
    }
    line.trim_start().to_owned()
}

/// What nft(8) makes of a text: the expressions of each rule, and the elements, in the order of the text.
fn made_by_nft(text: &str) -> (Vec<Vec<String>>, Vec<String>) {
    let (_, out, err) = in_scratch("nft --debug=netlink -c -f \"$1\"", text);
    // Whether the kernel would take it depends on chain and hook, and is not asked here.
    let refused: Vec<_> =
        err.lines().filter(|line| line.contains("Error:") && !line.contains("Could not process rule")).collect();
    assert!(refused.is_empty(), "nft(8) refuses:\n{err}\n{text}");
    let (mut rules, mut elements): (Vec<Vec<String>>, Vec<String>) = Default::default();
    for line in out.lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        if let Some(expr) = line.strip_prefix("  [ ") {
            let expr = expr.trim_end().trim_end_matches(']').trim_end();
            // One byte has no order to turn around.
            if !(expr.starts_with("byteorder") && expr.ends_with("2, 1)")) {
                rules.last_mut().expect("a rule has a head").push(expr.to_owned());
            }
        } else if line.starts_with('\t') {
            elements.extend(
                line.split("element ").skip(1).map(|element| element.split(':').next().unwrap().trim().to_owned()),
            );
        } else if fields.len() == 3 && ["inet", "netdev", "ip", "ip6", "bridge"].contains(&fields[0]) {
            rules.push(Vec::new());
        }
    }
    (rules, elements)
}

/// Takes equality of bytes of the packet apart, byte by byte: nft(8) joins two such matches when they stand side by side.
fn byte_by_byte(lines: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    let mut lines = lines.iter().peekable();
    while let Some(line) = lines.next() {
        let place = line.strip_prefix("payload load ").and_then(|rest| rest.split_once("b @ "));
        let equal = lines.peek().and_then(|next| next.strip_prefix("cmp eq reg 1 "));
        if let (Some((len, place)), Some(data)) = (place, equal) {
            let (base, offset) = place.trim_end_matches(" => reg 1").split_once(" header + ").unwrap();
            let offset: usize = offset.parse().unwrap();
            let word = |word: &str| u32::from_str_radix(word.trim_start_matches("0x"), 16).unwrap().to_ne_bytes();
            let data: Vec<u8> = data.split(' ').flat_map(word).collect();
            out.extend((0..len.parse().unwrap()).map(|at: usize| format!("{base} {} == {}", offset + at, data[at])));
            lines.next();
        } else {
            out.push(line.clone());
        }
    }
    // Joined, they stand in the packet's order.
    out.chunk_by_mut(|a, b| a.contains(" == ") && b.contains(" == ")).for_each(<[String]>::sort);
    out
}

/// Moves bits that are turned over before a comparison to its other side, as [`bytecode`] does.
fn moved(lines: &[String]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for line in lines {
        let turned =
            out.last().and_then(|last| last.split_once(" ) ^ ")).map(|(head, bits)| (head.to_owned(), bits.to_owned()));
        match (turned, line.strip_prefix("cmp ").and_then(|rest| rest.split_once(" 0x"))) {
            (Some((head, bits)), Some((compared, data))) => {
                let word = |word: &str| u32::from_str_radix(word.trim_start_matches("0x"), 16).unwrap();
                let both = bits.split(' ').zip(data.split(' '));
                let data: Vec<String> =
                    both.clone().map(|(bits, data)| format!("0x{:08x}", word(bits) ^ word(data))).collect();
                let zero: Vec<&str> = both.map(|_| "0x00000000").collect();
                *out.last_mut().unwrap() = format!("{head} ) ^ {}", zero.join(" "));
                out.push(format!("cmp {compared} {}", data.join(" ")));
            }
            _ => out.push(line.clone()),
        }
    }
    out
}

fn assert_twin(ruleset: &Ruleset) {
    let syntax = ruleset.syntax();
    let (made, _) = made_by_nft(syntax.as_str());
    let mut ours = Vec::new();
    for chain in &ruleset.chains {
        ours.extend(
            ruleset.rules.iter().filter(|rule| rule.table == chain.table && rule.chain == chain.name).map(bytecode),
        );
    }
    for (ours, made) in ours.iter().zip(&made) {
        assert_eq!(byte_by_byte(&moved(made)), byte_by_byte(ours), "in\n{syntax}");
    }
    assert_eq!(made.len(), ours.len(), "{syntax}");
}

#[test]
fn nft_makes_the_same_expressions() {
    if !twin_is_there("nft_makes_the_same_expressions") {
        return;
    }
    for ruleset in [inside(), outside(), around(kinds().into_iter().map(|(rule, _)| rule).collect())] {
        assert_eq!(ruleset.syntax().unshown(), []);
        assert_twin(&ruleset);
    }
}

#[test]
fn nft_makes_the_same_elements() {
    if !twin_is_there("nft_makes_the_same_elements") {
        return;
    }
    for ruleset in [inside(), outside()] {
        let (_, mut made) = made_by_nft(&ruleset.to_string());
        let mut ours: Vec<_> = ruleset
            .elements
            .iter()
            .flat_map(|(_, _, elements)| elements)
            .map(|element| words(element.key.as_bytes()).replace("0x", ""))
            .collect();
        made.sort();
        ours.sort();
        assert_eq!(made, ours);
    }
}

#[test]
fn nft_loads_it_and_lists_the_same() {
    if !twin_is_there("nft_loads_it_and_lists_the_same") {
        return;
    }
    for (ruleset, lines) in [
        (
            inside(),
            &[
                "type filter hook output priority filter; policy drop;",
                "type filter hook egress device \"lo\" priority filter; policy drop;",
                "oif \"lo\" counter packets 0 bytes 0 accept comment \"loopback\"",
                "ip frag-off & 16383 != 0 counter packets 0 bytes 0 drop comment \"fragments\"",
                "ip daddr . meta l4proto . th dport @endpoints4 counter packets 0 bytes 0 accept comment \"direct endpoints\"",
                "arp saddr ip 10.200.0.2 counter packets 0 bytes 0 accept",
                "comment \"ringfence sandbox 1\"",
                "comment \"{ direct } \\ # $endpoints\"",
                "size 65536",
            ][..],
        ),
        (
            outside(),
            &[
                "type nat hook postrouting priority srcnat; policy accept;",
                "type filter hook prerouting priority -450; policy accept;",
                "type iface_index . ipv4_addr . inet_proto . inet_service",
                "elements = { 7 . 203.0.113.9 . tcp . 5432 }",
                "elements = { \"lo\", 7 }",
                "iif @hosts iif . ip saddr != @sources counter packets 0 bytes 0 drop comment \"spoofed\"",
                "meta nfproto ipv4 iif @hosts masquerade",
                "iif @hosts goto sandbox",
            ],
        ),
        (around(Vec::new()), &["elements = { 10.0.0.1-10.0.0.4, 198.51.100.0/24 }"]),
    ] {
        let text = ruleset.to_string();
        let (loaded, listed, err) = in_scratch("nft -f \"$1\" && nft list ruleset", &text);
        assert!(loaded, "{err}\n{text}");
        for line in lines {
            assert!(listed.lines().any(|found| found.trim() == *line), "lacks {line}:\n{listed}");
        }
        let (taken, _, err) = in_scratch("nft -c -f \"$1\"", &text);
        assert!(taken, "{err}");
    }
}

#[test]
fn nft_takes_what_hostile_names_leave() {
    if !twin_is_there("nft_takes_what_hostile_names_leave") {
        return;
    }
    let (loaded, listed, err) = in_scratch("nft -f \"$1\" && nft list ruleset", &hostile().to_string());
    assert!(loaded, "{err}");
    assert_eq!(listed.lines().filter(|line| line.starts_with("table ")).collect::<Vec<_>>(), ["table inet kinds {"]);
    assert!(!listed.contains("flush") && listed.matches("accept").count() == 2, "{listed}");
}

/// A table, and in another one a chain, a set and an object of each kind, with these names.
fn named(words: &[&str]) -> Ruleset {
    let id = table(Family::Ip, "t");
    let all = chain("all-of-them");
    let mut ruleset = Ruleset { tables: vec![plain_table(&id)], ..Ruleset::default() };
    ruleset.chains.push(Chain::new(&id, &all));
    let seconds = vec![(8, 12)];
    let states = [
        State::Counter { packets: 0, bytes: 0 },
        State::Quota(Quota { bytes: 1, used: 0, over: true }),
        State::Limit(Limit { rate: 1, seconds: 1, burst: 5, over: false, bytes: false }),
        State::Synproxy(Synproxy { mss: 1460, wscale: 7, flags: 15 }),
        State::CtHelper(CtHelper { helper: "ftp".to_owned(), l3proto: None, l4proto: 6 }),
        State::CtTimeout(CtTimeout { l3proto: 2, l4proto: 6, seconds }),
    ];
    for word in words {
        ruleset.tables.push(plain_table(&table(Family::Ip, word)));
        ruleset.chains.push(Chain::new(&id, &chain(word)));
        ruleset.sets.push(set(&id, word, &[Datatype::Ipv4Addr]));
        ruleset.rules.push(Rule::new(&id, &all).lookup(&[IP_SADDR], word, false).verdict(Verdict::Jump(chain(word))));
        for state in &states {
            let (kind, name) = (state.kind(), ObjectName::new(word).unwrap());
            ruleset.objects.push(StatefulObject::new(&id, &name, state.clone()));
            ruleset.rules.push(Rule::new(&id, &all).expr(Expr::ObjectRef { kind, name }));
        }
    }
    ruleset
}

#[test]
fn words_of_nft_are_names_where_it_takes_them() {
    if !twin_is_there("words_of_nft_are_names_where_it_takes_them") {
        return;
    }
    let words =
        std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/nft_syntax/keywords.txt"))
            .unwrap();
    let words: Vec<_> = words.lines().filter(|line| !line.starts_with('#')).collect();
    let shown = named(&words).syntax();
    // Words that are kept for one place are names in all others.
    for free in
        ["chain packets {", "set bytes {", "counter state {", "quota rate {", "limit used {", "ct helper week {"]
    {
        assert!(shown.as_str().lines().any(|line| line.trim() == free), "lacks {free}");
    }
    let (_, _, err) = in_scratch("nft -c -f \"$1\"", shown.as_str());
    // A kernel need not have every kind of object.
    let refused: Vec<_> =
        err.lines().filter(|line| line.contains("Error:") && !line.contains("Could not process rule")).collect();
    assert!(refused.is_empty(), "nft(8) refuses:\n{err}");
}

#[test]
fn whatever_is_shown_nft_makes_the_same_of() {
    if !twin_is_there("whatever_is_shown_nft_makes_the_same_of") {
        return;
    }
    let mut runner = TestRunner::deterministic();
    for family in [Family::Inet, Family::Ip, Family::Ip6, Family::Netdev, Family::Bridge] {
        let (mut shown, mut tried) = (Vec::new(), 0);
        while shown.len() < 200 && tried < 4_000 {
            tried += 1;
            let rule = likely_rule().new_tree(&mut runner).unwrap().current();
            let mut ruleset = around(vec![named_for(rule, family)]);
            move_to(&mut ruleset, family);
            if ruleset.syntax().unshown().is_empty() {
                shown.append(&mut ruleset.rules);
            }
        }
        assert!(shown.len() >= 100, "{family}: only {} of {tried} rules could be shown", shown.len());
        // In portions, so that a failure shows a text that a person can read.
        for rules in shown.chunks(25) {
            let mut ruleset = around(rules.to_vec());
            move_to(&mut ruleset, family);
            assert_twin(&ruleset);
        }
    }
}

/// Says in the words of another family which packets a rule that begins with `meta nfproto` is about.
fn named_for(mut rule: Rule, family: Family) -> Rule {
    let nfproto = Load::Meta(MetaKey::NfProto, 1).load(REG);
    if family == Family::Inet || rule.exprs.first() != Some(&nfproto) {
        return rule;
    }
    let ethertype =
        if rule.exprs[1] == (Expr::Cmp { op: CmpOp::Eq, sreg: REG, data: Data::byte(2) }) { 0x0800 } else { 0x86dd };
    let link = [
        Load::Meta(MetaKey::Protocol, 2).load(REG),
        Expr::Cmp { op: CmpOp::Eq, sreg: REG, data: Data::be16(ethertype) },
    ];
    let link = if matches!(family, Family::Netdev | Family::Bridge) { link.to_vec() } else { Vec::new() };
    rule.exprs.splice(..2, link);
    rule
}

fn move_to(ruleset: &mut Ruleset, family: Family) {
    let tables = ruleset.tables.iter_mut().map(|table| &mut table.id);
    let sets = ruleset.sets.iter_mut().map(|set| &mut set.table);
    let chains = ruleset.chains.iter_mut().map(|chain| &mut chain.table);
    let elements = ruleset.elements.iter_mut().map(|(table, _, _)| table);
    let rules = ruleset.rules.iter_mut().map(|rule| &mut rule.table);
    for id in tables.chain(sets).chain(chains).chain(elements).chain(rules) {
        id.family = family;
    }
}

// ── Properties ───────────────────────────────────────────────────────────────────────────────────────────────────────

fn op() -> impl Strategy<Value = CmpOp> {
    use CmpOp::{Eq, Gt, Gte, Lt, Lte, Neq};
    prop_oneof![6 => Just(Eq), 3 => Just(Neq), 1 => Just(Lt), 1 => Just(Lte), 1 => Just(Gt), 1 => Just(Gte)]
}

fn meta_key() -> impl Strategy<Value = (MetaKey, u32)> {
    use MetaKey::*;
    proptest::sample::select(vec![
        (Protocol, 2),
        (NfProto, 1),
        (NfProto, 1),
        (L4Proto, 1),
        (L4Proto, 1),
        (Iif, 4),
        (Oif, 4),
        (IifName, 16),
        (OifName, 16),
        (Mark, 4),
        (SkUid, 4),
    ])
}

fn payload_base() -> impl Strategy<Value = PayloadBase> {
    proptest::sample::select(vec![PayloadBase::LinkLayer, PayloadBase::Network, PayloadBase::Transport])
}

/// Places in headers that have names, in one family or another.
const NAMED: [(PayloadBase, u32, u32); 26] = {
    use PayloadBase::{Network, Transport};
    [
        (Network, 0, 1),
        (Network, 2, 2),
        (Network, 4, 2),
        (Network, 6, 2),
        (Network, 8, 1),
        (Network, 9, 1),
        (Network, 12, 4),
        (Network, 16, 4),
        (Network, 12, 2),
        (Network, 16, 3),
        (Network, 6, 1),
        (Network, 7, 1),
        (Network, 8, 16),
        (Network, 24, 16),
        (Network, 8, 6),
        (Network, 24, 8),
        (Transport, 0, 2),
        (Transport, 2, 2),
        (Transport, 4, 4),
        (Transport, 8, 4),
        (Transport, 13, 1),
        (Transport, 4, 2),
        (Transport, 0, 1),
        (Transport, 1, 1),
        (Transport, 0, 1),
        (Transport, 2, 2),
    ]
};

fn likely_load() -> impl Strategy<Value = Load> {
    prop_oneof![
        4 => meta_key().prop_map(|(key, len)| Load::Meta(key, len)),
        6 => proptest::sample::select(NAMED.to_vec()).prop_map(|(base, offset, len)| Load::Payload(base, offset, len)),
        3 => (payload_base(), 0u32..26, proptest::sample::select(vec![1, 2, 4, 6, 16]))
            .prop_map(|(base, offset, len)| Load::Payload(base, offset, len)),
        1 => proptest::sample::select(vec![CtKey::State, CtKey::Status]).prop_map(Load::Ct),
    ]
}

fn likely_data(len: u32) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        2 => Just(0u8), 6 => proptest::sample::select(vec![1, 2, 6, 10, 17, 58, 255]), 1 => any::<u8>(),
    ];
    proptest::collection::vec(byte, len as usize)
}

/// A match of the shape that rules have: load, perhaps mask, compare.
fn likely_match() -> impl Strategy<Value = Vec<Expr>> {
    likely_load().prop_flat_map(|load| {
        let len = load.len();
        (op(), likely_data(len), proptest::option::weighted(0.3, likely_data(len)), any::<bool>(), likely_data(len))
            .prop_map(move |(op, data, mask, flip, xor)| {
                let mut exprs = vec![load.load(REG)];
                if let Some(mask) = mask {
                    // What lies outside the mask can never be equal.
                    let xor = if flip { xor } else { vec![0; mask.len()] };
                    let op = BitwiseOp::MaskXor { mask: bytes(&mask), xor: bytes(&xor) };
                    exprs.push(Expr::Bitwise { sreg: REG, dreg: REG, len, op });
                }
                exprs.push(Expr::Cmp { op, sreg: REG, data: bytes(&data) });
                exprs
            })
    })
}

fn statement() -> impl Strategy<Value = Expr> {
    let text = proptest::option::of("[ -~]{0,12}");
    prop_oneof![
        (any::<u64>(), any::<u64>()).prop_map(|(packets, bytes)| Expr::Counter { packets, bytes }),
        (any::<u16>(), text, proptest::option::of(any::<u32>()), proptest::option::of(any::<u16>())).prop_map(
            |(group, prefix, snaplen, queue_threshold)| Expr::Log(Log { group, prefix, snaplen, queue_threshold })
        ),
        (1u64..9, proptest::sample::select(vec![1u64, 60, 3_600, 7]), 0u32..9, any::<bool>())
            .prop_map(|(rate, seconds, burst, over)| Expr::Limit(Limit { rate, seconds, burst, over, bytes: false })),
    ]
}

/// A statement that takes a field.
fn change() -> impl Strategy<Value = [Expr; 2]> {
    let number = proptest::sample::select(vec![
        MetaKey::Cpu,
        MetaKey::Mark,
        MetaKey::Priority,
        MetaKey::IifGroup,
        MetaKey::SkUid,
    ]);
    let load = prop_oneof![likely_load(), number.prop_map(|key| Load::Meta(key, 4)), Just(IP_SADDR)];
    let set = proptest::sample::select(vec![
        Expr::MetaSet { key: MetaKey::Mark, sreg: REG },
        Expr::MetaSet { key: MetaKey::Priority, sreg: REG },
        Expr::CtSet { key: CtKey::Mark, direction: None, sreg: REG },
        Expr::CtSet { key: CtKey::Zone, direction: None, sreg: REG },
    ]);
    (load, set).prop_map(|(load, set)| [load.load(REG), set])
}

fn last() -> impl Strategy<Value = Expr> {
    prop_oneof![
        Just(Expr::Verdict(Verdict::Accept)),
        Just(Expr::Verdict(Verdict::Continue)),
        Just(Expr::Masquerade(NatPorts::default())),
        Just(Expr::Reject(Reject::TcpReset)),
        Just(Expr::Reject(Reject::Icmpx(RejectCode::NoRoute))),
        any::<u8>().prop_map(|code| Expr::Reject(Reject::Icmp(code))),
        "\\PC{1,9}".prop_map(|name| Expr::Verdict(Verdict::Jump(chain(&name)))),
    ]
}

fn likely_rule() -> impl Strategy<Value = Rule> {
    let family = proptest::option::weighted(0.6, proptest::sample::select(vec![Family::Ip, Family::Ip6]));
    let protocol = proptest::option::weighted(0.5, proptest::sample::select(vec![1, 6, 17, 58, 132]));
    let matches = proptest::collection::vec(likely_match(), 0..3);
    let change = proptest::option::weighted(0.2, change());
    let statements = proptest::collection::vec(statement(), 0..2);
    (family, protocol, matches, change, statements, proptest::option::of(last())).prop_map(
        |(family, protocol, matches, change, statements, last)| {
            let mut rule = Rule::new(&table(Family::Inet, "kinds"), &chain("c"));
            if let Some(family) = family {
                rule = rule.nfproto(family);
            }
            if let Some(protocol) = protocol {
                rule = rule.l4proto(protocol);
            }
            rule.exprs.extend(matches.into_iter().flatten());
            rule.exprs.extend(change.into_iter().flatten().chain(statements).chain(last));
            rule
        },
    )
}

/// Anything at all that the types can hold.
fn any_expr() -> impl Strategy<Value = Expr> {
    let register = || (0u8..16).prop_map(|slot| Register::slot(slot).unwrap());
    let data = || proptest::collection::vec(any::<u8>(), 0..=64).prop_map(|raw| bytes(&raw));
    let name = || "(?s).{1,9}".prop_filter_map("NUL", |name| SetName::new(&name).ok());
    prop_oneof![
        (payload_base(), any::<u32>(), any::<u32>(), register()).prop_map(|(base, offset, len, dreg)| Expr::Payload {
            base,
            offset,
            len,
            dreg
        }),
        (payload_base(), 0u32..40, 0u32..20, register()).prop_map(|(base, offset, len, dreg)| Expr::Payload {
            base,
            offset,
            len,
            dreg
        }),
        (meta_key(), register()).prop_map(|((key, _), dreg)| Expr::Meta { key, dreg }),
        (op(), register(), data()).prop_map(|(op, sreg, data)| Expr::Cmp { op, sreg, data }),
        (any::<bool>(), register(), data(), data()).prop_map(|(negated, sreg, from, to)| Expr::Range {
            negated,
            sreg,
            from,
            to
        }),
        (register(), register(), any::<u32>(), data(), data()).prop_map(|(sreg, dreg, len, mask, xor)| Expr::Bitwise {
            sreg,
            dreg,
            len,
            op: BitwiseOp::MaskXor { mask, xor }
        }),
        (prop_oneof![Just(SetName::new("pairs").unwrap()), name()], register(), any::<bool>())
            .prop_map(|(set, sreg, negated)| Expr::Lookup { set, sreg, negated }),
        (register(), data()).prop_map(|(dreg, data)| Expr::Immediate { dreg, data }),
        (any::<u64>(), any::<u64>(), any::<u32>(), any::<bool>())
            .prop_map(|(rate, seconds, burst, over)| Expr::Limit(Limit { rate, seconds, burst, over, bytes: false })),
        (any::<u16>(), proptest::option::of("(?s).{0,9}")).prop_map(|(group, prefix)| Expr::Log(Log {
            group,
            prefix,
            snaplen: None,
            queue_threshold: None
        })),
        statement(),
        last(),
    ]
}

fn any_ruleset() -> impl Strategy<Value = Ruleset> {
    let rule = proptest::collection::vec(any_expr(), 0..8)
        .prop_map(|exprs| exprs.into_iter().fold(Rule::new(&table(Family::Inet, "kinds"), &chain("c")), Rule::expr));
    let family = proptest::sample::select(vec![
        Family::Ip,
        Family::Ip6,
        Family::Inet,
        Family::Arp,
        Family::Bridge,
        Family::Netdev,
    ]);
    let key = proptest::collection::vec(proptest::sample::select(Datatype::ALL.to_vec()), 0..6);
    let element =
        (proptest::collection::vec(any::<u8>(), 0..=64), any::<bool>(), proptest::option::of(any::<Duration>()));
    let name = "(?s).{1,9}".prop_filter_map("NUL", |name| SetName::new(&name).ok());
    let names = (name, proptest::option::of("(?s).{1,9}".prop_filter_map("NUL", |text| Comment::new(&text).ok())));
    (
        proptest::collection::vec(prop_oneof![rule, likely_rule()], 0..6),
        family,
        key,
        proptest::collection::vec(element, 0..6),
        names,
        any::<[bool; 3]>(),
    )
        .prop_map(|(rules, family, key, elements, (name, comment), [interval, timeout, fit])| {
            let mut ruleset = around(rules);
            move_to(&mut ruleset, family);
            let mut odd = set(&table(family, "kinds"), "s", &key);
            odd.name = name;
            odd.flags = SetFlags { interval, timeout, ..SetFlags::default() };
            odd.comment = comment.clone();
            let length = odd.key.len().min(64);
            let elements = elements.into_iter().map(|(mut key, interval_end, timeout)| {
                if fit {
                    key.resize(length, 0);
                }
                Element { interval_end, timeout, comment: comment.clone(), ..Element::new(bytes(&key)) }
            });
            ruleset.elements.push((odd.table.clone(), odd.name.clone(), elements.collect()));
            ruleset.sets.push(odd);
            ruleset
        })
}

proptest! {
    #[test]
    fn showing_never_panics_and_comments_stay_comments(ruleset in any_ruleset()) {
        let shown = ruleset.syntax();
        let comments = shown.as_str().lines().filter(|line| line.trim_start().starts_with("# ")).count();
        prop_assert!(comments >= shown.unshown().len());
        prop_assert!(!shown.as_str().contains(|c: char| c.is_control() && c != '\n' && c != '\t'));
        let depth = shown.as_str().lines().fold(0, |depth, line| match line {
            line if line.ends_with('{') && !line.trim_start().starts_with('#') => depth + 1,
            line if line.trim_start() == "}" => depth - 1,
            _ => depth,
        });
        prop_assert_eq!(depth, 0);
    }

    #[test]
    fn json_is_read_as_it_was_written(ruleset in any_ruleset()) {
        prop_assert_eq!(Ruleset::from_json(&ruleset.to_json()), Ok(ruleset));
    }

    #[test]
    fn json_of_any_text_is_an_error_or_a_ruleset(text in "(?s).{0,40}") {
        prop_assert!(Ruleset::from_json(&text).is_err());
    }
}
