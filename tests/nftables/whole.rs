//! Everything that there is in a ruleset comes back as it was sent.

use super::*;

/// One of everything, in rules that the kernel accepts.
pub fn everything() -> Ruleset {
    let id = id(Family::Inet, "everything");
    let rule = |chain: &str, exprs: Vec<Expr>| Rule {
        table: id.clone(),
        chain: chain_name(chain),
        exprs,
        comment: None,
        handle: None,
        position: None,
        extra: Extra::default(),
    };
    let first = Register::FIRST;
    let port = || payload(PayloadBase::Transport, 2, 2);
    let tcp = [Expr::Meta { key: MetaKey::L4Proto, dreg: first }, cmp(CmpOp::Eq, Data::byte(6))];
    let with_tcp = |rest: &[Expr]| [&tcp[..], rest].concat();

    let mut sized = set(&id, "endpoints", &[Datatype::Ipv4Addr, Datatype::InetProto, Datatype::InetService]);
    sized.size = Some(4096);
    sized.flags.timeout = true;
    sized.timeout = Some(Duration::from_secs(3600));
    sized.comment = comment("where to");
    let mut ranges = set(&id, "ranges", &[Datatype::Ipv4Addr]);
    ranges.flags.interval = true;
    let mut fields = set(&id, "fields", &[Datatype::Ipv6Addr, Datatype::InetService]);
    fields.flags.interval = true;
    let mut constant = set(&id, "constant", &[Datatype::Mark]);
    constant.flags.constant = true;

    let address = Ipv4Addr::new(203, 0, 113, 9);
    let endpoint = |port| Data::concat(&[Data::ipv4(address), Data::byte(6), Data::be16(port)]).unwrap();
    let element =
        |key, timeout, text: Option<&str>| Element { timeout, comment: text.and_then(comment), ..Element::new(key) };
    let end = |last| Element { interval_end: true, ..Element::new(Data::ipv4(Ipv4Addr::new(198, 51, 100, last))) };
    let elements = vec![
        (
            sized.table.clone(),
            sized.name.clone(),
            vec![
                element(endpoint(443), None, None),
                element(endpoint(5432), Some(Duration::from_secs(90)), Some("database")),
            ],
        ),
        (
            ranges.table.clone(),
            ranges.name.clone(),
            vec![end(0), Element::new(Data::ipv4(Ipv4Addr::new(198, 51, 100, 8))), end(16)],
        ),
        (
            fields.table.clone(),
            fields.name.clone(),
            vec![Element::new(
                Data::concat(&[Data::ipv6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), Data::be16(53)]).unwrap(),
            )],
        ),
        (constant.table.clone(), constant.name.clone(), vec![Element::new(Data::native32(7))]),
    ];

    let drop_all = BaseChain { policy: ChainPolicy::Drop, priority: Priority(-150), ..base(Hook::Output) };
    let nat = BaseChain { kind: ChainType::Nat, priority: Priority::SRCNAT, ..base(Hook::Postrouting) };
    let log = Log { group: 7, prefix: Some("refused: ".into()), snaplen: Some(96), queue_threshold: Some(1) };
    let bare = Log { group: 0, prefix: None, snaplen: None, queue_threshold: None };
    let mut commented = rule("output", vec![Expr::Counter { packets: 0, bytes: 0 }]);
    commented.comment = comment("counts what comes");

    let mut rules = vec![
        commented,
        rule("output", with_tcp(&[port(), cmp(CmpOp::Eq, Data::be16(443)), Expr::Verdict(Verdict::Accept)])),
        rule(
            "output",
            with_tcp(&[
                port(),
                Expr::Range { negated: true, sreg: first, from: Data::be16(1024), to: Data::be16(2048) },
            ]),
        ),
        rule(
            "output",
            vec![
                Expr::Meta { key: MetaKey::NfProto, dreg: first },
                cmp(CmpOp::Eq, Data::byte(2)),
                payload(PayloadBase::Network, 16, 4),
                Expr::Bitwise {
                    sreg: first,
                    dreg: first,
                    len: 4,
                    op: BitwiseOp::MaskXor { mask: be32(0xffff_ff00), xor: be32(0) },
                },
                cmp(CmpOp::Neq, Data::ipv4(Ipv4Addr::new(203, 0, 113, 0))),
                Expr::Verdict(Verdict::Return),
            ],
        ),
        Rule::new(&id, &chain_name("output")).ct_state(ct_state::ESTABLISHED | ct_state::RELATED),
        rule(
            "output",
            vec![
                Expr::Meta { key: MetaKey::NfProto, dreg: first },
                cmp(CmpOp::Eq, Data::byte(2)),
                payload(PayloadBase::Network, 16, 4),
                Expr::Meta { key: MetaKey::L4Proto, dreg: Register::slot(1).unwrap() },
                Expr::Payload { base: PayloadBase::Transport, offset: 2, len: 2, dreg: Register::slot(2).unwrap() },
                Expr::Lookup { set: sized.name.clone(), sreg: first, negated: false },
            ],
        ),
        rule(
            "output",
            vec![
                Expr::Meta { key: MetaKey::NfProto, dreg: first },
                cmp(CmpOp::Eq, Data::byte(2)),
                payload(PayloadBase::Network, 12, 4),
                Expr::Lookup { set: ranges.name.clone(), sreg: first, negated: true },
            ],
        ),
        rule(
            "output",
            vec![
                Expr::Meta { key: MetaKey::Mark, dreg: first },
                Expr::Lookup { set: constant.name.clone(), sreg: first, negated: false },
            ],
        ),
        rule("output", vec![Expr::Immediate { dreg: Register::slot(5).unwrap(), data: be32(1) }]),
        rule("output", vec![Expr::Ct { key: CtKey::Status, dreg: first, direction: None }]),
        rule(
            "output",
            vec![Expr::Limit(Limit { rate: 10, seconds: 60, burst: 3, over: false, bytes: false }), Expr::Log(log)],
        ),
        rule(
            "output",
            vec![
                Expr::Limit(Limit { rate: 1, seconds: 1, burst: 0, over: true, bytes: false }),
                Expr::Log(bare),
                Expr::Verdict(Verdict::Drop),
            ],
        ),
        rule("output", with_tcp(&[Expr::Reject(Reject::TcpReset)])),
        rule("output", vec![Expr::Verdict(Verdict::Continue)]),
        rule("output", vec![Expr::Verdict(Verdict::Jump(chain_name("aside")))]),
        rule("output", vec![Expr::Verdict(Verdict::Goto(chain_name("aside")))]),
        rule("nat", vec![Expr::Masquerade(NatPorts::default())]),
    ];
    for key in [MetaKey::Protocol, MetaKey::Oif, MetaKey::OifName, MetaKey::SkUid] {
        rules.push(rule("output", vec![Expr::Meta { key, dreg: first }]));
    }
    for op in [CmpOp::Lt, CmpOp::Lte, CmpOp::Gt, CmpOp::Gte] {
        rules.push(rule("aside", vec![Expr::Meta { key: MetaKey::Mark, dreg: first }, cmp(op, be32(9))]));
    }
    for code in
        [RejectCode::NoRoute, RejectCode::PortUnreachable, RejectCode::HostUnreachable, RejectCode::AdminProhibited]
    {
        rules.push(rule("output", vec![Expr::Reject(Reject::Icmpx(code))]));
    }
    rules.push(rule(
        "output",
        vec![
            Expr::Meta { key: MetaKey::NfProto, dreg: first },
            cmp(CmpOp::Eq, Data::byte(2)),
            Expr::Reject(Reject::Icmp(13)),
        ],
    ));

    let mut output = chain(&id, "output", Some(drop_all));
    output.comment = comment("the fence");
    Ruleset {
        tables: vec![Table { comment: comment("one of everything"), ..table(&id) }],
        chains: vec![output, chain(&id, "aside", None), chain(&id, "nat", Some(nat))],
        sets: vec![sized, ranges, fields, constant],
        elements,
        rules,
        ..Ruleset::default()
    }
}

#[test]
fn everything_comes_back_as_it_was_sent() {
    in_namespace(|| {
        let want = everything();
        let mut socket = Socket::open().unwrap();
        assert!(socket.table(&want.tables[0].id).unwrap().is_none());
        let before = socket.generation().unwrap();
        let generation = socket.commit(&want.create()).unwrap();
        assert_eq!(generation.0, before.0 + 1);
        assert_eq!(generation, socket.generation().unwrap());
        socket.verify(&want).unwrap();

        let have = socket.ruleset().unwrap();
        assert_eq!(have.tables, want.tables);
        assert_eq!(have.tables, socket.tables().unwrap());
        assert_eq!(have.rules.len(), want.rules.len());
        assert!(have.rules.iter().all(|rule| rule.handle.is_some()));
        // What was read can be written again, in a namespace that knows nothing of it.
        let again = Ruleset { rules: have.rules, ..want.clone() };
        in_namespace(move || {
            let mut socket = Socket::open().unwrap();
            socket.commit(&again.create()).unwrap();
            socket.verify(&want).unwrap();
        });
    });
}

#[test]
fn nft_prints_what_was_meant() {
    in_namespace(|| {
        Socket::open().unwrap().commit(&everything().create()).unwrap();
        let Some(list) = nft_list() else {
            eprintln!("SKIPPED: no nft(8) to compare with");
            return;
        };
        for line in [
            "comment \"one of everything\"",
            "comment \"the fence\"",
            "comment \"where to\"",
            "type ipv4_addr . inet_proto . inet_service",
            "size 4096",
            "timeout 1h",
            "203.0.113.9 . tcp . 5432 timeout 1m30s",
            "comment \"database\"",
            "elements = { 198.51.100.8/29 }",
            "2001:db8::1 . 53",
            "type filter hook output priority mangle; policy drop;",
            "type nat hook postrouting priority srcnat; policy accept;",
            "counter packets 0 bytes 0 comment \"counts what comes\"",
            "tcp dport 443 accept",
            "tcp dport != 1024-2048",
            "ip daddr != 203.0.113.0/24 return",
            "ct state established,related",
            "ip daddr . meta l4proto . th dport @endpoints",
            "ip saddr != @ranges",
            "meta mark @constant",
            "limit rate 10/minute burst 3 packets log prefix \"refused: \" group 7 snaplen 96 queue-threshold 1",
            "limit rate over 1/second log group 0 drop",
            "meta l4proto tcp reject with tcp reset",
            "jump aside",
            "goto aside",
            "masquerade",
            "reject with icmpx no-route",
            "reject with icmpx admin-prohibited",
            "reject with icmp admin-prohibited",
        ] {
            assert!(list.contains(line), "nft(8) does not print `{line}`:\n{list}");
        }
    });
}

#[test]
fn every_family_and_hook_comes_back() {
    in_namespace(|| {
        let hooks: [(Family, &[Hook]); 6] = [
            (Family::Ip, &[Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting]),
            (Family::Ip6, &[Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting]),
            (Family::Inet, &[Hook::Prerouting, Hook::Input, Hook::Ingress]),
            (Family::Arp, &[Hook::Input, Hook::Output]),
            (Family::Bridge, &[Hook::Prerouting, Hook::Forward]),
            (Family::Netdev, &[Hook::Ingress, Hook::Egress]),
        ];
        let mut want = Ruleset::default();
        for (family, hooks) in hooks {
            let id = id(family, "hooks");
            want.tables.push(table(&id));
            for hook in hooks {
                let mut base = base(*hook);
                if matches!(hook, Hook::Ingress | Hook::Egress) {
                    base.devices = vec![InterfaceName::new("lo").unwrap()];
                }
                want.chains.push(chain(&id, &format!("{hook:?}"), Some(base)));
            }
        }
        let mut socket = Socket::open().unwrap();
        match socket.commit(&want.create()) {
            Ok(_) => socket.verify(&want).unwrap(),
            // A kernel without bridges says so; it must then say it of the bridge.
            Err(error) => {
                assert!(error.to_string().contains("bridge"), "{error:?}");
                assert!(!required(), "{error:?}");
                eprintln!("SKIPPED bridge: {error:?}");
                want.tables.retain(|table| table.id.family != Family::Bridge);
                want.chains.retain(|chain| chain.table.family != Family::Bridge);
                socket.commit(&want.create()).unwrap();
                socket.verify(&want).unwrap();
            }
        }
        // One table is read without the others that have its name.
        let netdev = socket.table(&id(Family::Netdev, "hooks")).unwrap().unwrap();
        assert_eq!(netdev.chains.len(), 2);
    });
}
