//! Rulesets by hand: what a fence is made of, and every kind of expression.

use super::*;

pub const ENDPOINT: [Datatype; 3] = [Datatype::Ipv4Addr, Datatype::InetProto, Datatype::InetService];
pub const ENDPOINT6: [Datatype; 3] = [Datatype::Ipv6Addr, Datatype::InetProto, Datatype::InetService];

pub fn endpoint(address: &str, protocol: u8, port: u16) -> Data {
    let address = match address.parse().unwrap() {
        std::net::IpAddr::V4(v4) => Data::ipv4(v4),
        std::net::IpAddr::V6(v6) => Data::ipv6(v6),
    };
    Data::concat(&[address, Data::byte(protocol), Data::be16(port)]).unwrap()
}

pub fn log(prefix: &str) -> Log {
    Log { group: 100, prefix: Some(prefix.to_owned()), snaplen: Some(96), queue_threshold: Some(1) }
}

pub const NEIGHBOUR_DISCOVERY: [u8; 4] = [133, 134, 135, 136];

/// The ruleset inside: what the sandbox sends.
pub fn inside() -> Ruleset {
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
pub fn outside() -> Ruleset {
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
pub fn kinds() -> Vec<(Rule, &'static str)> {
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
pub fn around(rules: Vec<Rule>) -> Ruleset {
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

/// Names and comments that would be something else in nft(8)'s eyes.
pub fn hostile() -> Ruleset {
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
