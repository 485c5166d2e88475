//! Transactions against the real kernel, each test in a network namespace of its own that has no link but loopback.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::{Duration, Instant};

use ringfence::kernel::KernelError;
use ringfence::kernel::nftables::{Change, Monitor, Socket, dry_run};
use ringfence::nft::*;
use ringfence::wire::nftables::{Deleted, Edit};
use ringfence::{Error, ErrorKind};
use rustix::thread::{CapabilitySet, UnshareFlags, capabilities, set_capabilities, unshare_unsafe};

/// Whether what the kernel lacks is a failure, not a reason to skip.
fn required() -> bool {
    std::env::var("RINGFENCE_TEST_KERNEL").is_ok_and(|value| value == "require")
}

/// Runs `test` on a thread of its own in a new network namespace.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        // SAFETY: a network namespace changes nothing that other threads or Rust rely on; file descriptors stay shared.
        if let Err(error) = unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
            assert!(!required(), "no network namespace can be made: {error}");
            eprintln!("SKIPPED: no network namespace can be made: {error}");
            return;
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn id(family: Family, name: &str) -> TableId {
    TableId { family, name: TableName::new(name).unwrap() }
}

fn table(id: &TableId) -> Table {
    Table::new(id.clone())
}

fn chain_name(name: &str) -> ChainName {
    ChainName::new(name).unwrap()
}

fn chain(table: &TableId, name: &str, base: Option<BaseChain>) -> Chain {
    Chain { base, ..Chain::new(table, &chain_name(name)) }
}

fn base(hook: Hook) -> BaseChain {
    BaseChain {
        kind: ChainType::Filter,
        hook,
        priority: Priority::FILTER,
        policy: ChainPolicy::Accept,
        devices: Vec::new(),
    }
}

fn set(table: &TableId, name: &str, key: &[Datatype]) -> Set {
    Set::new(table, &SetName::new(name).unwrap(), KeyType(key.to_vec()))
}

/// A 32-bit number of a packet.
fn be32(number: u32) -> Data {
    Data::new(&number.to_be_bytes()).unwrap()
}

fn comment(text: &str) -> Option<Comment> {
    Some(Comment::new(text).unwrap())
}

fn add(objects: impl IntoIterator<Item = Object>) -> Transaction {
    let mut transaction = Transaction::new();
    objects.into_iter().for_each(|object| transaction.push(Verb::Add, object));
    transaction
}

fn leaf(error: &Error) -> &KernelError {
    std::error::Error::source(error).and_then(|source| source.downcast_ref()).expect("a kernel error as the cause")
}

/// What nft(8) prints, if it is there. It runs in the thread's namespace.
fn nft_list() -> Option<String> {
    let output = Command::new("nft").args(["list", "ruleset"]).output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

fn payload(base: PayloadBase, offset: u32, len: u32) -> Expr {
    Expr::Payload { base, offset, len, dreg: Register::FIRST }
}

fn cmp(op: CmpOp, data: Data) -> Expr {
    Expr::Cmp { op, sreg: Register::FIRST, data }
}

/// One of everything, in rules that the kernel accepts.
fn everything() -> Ruleset {
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

#[test]
fn every_verb_does_what_it_says() {
    in_namespace(|| {
        let id = id(Family::Inet, "verbs");
        let name = set(&id, "s", &[Datatype::Ipv4Addr]).name;
        let a_set = || Object::Set(set(&id, "s", &[Datatype::Ipv4Addr]));
        let a_chain = || Object::Chain(chain(&id, "c", None));
        let a_table = || Object::Table(table(&id));
        let rule = |n: u32| {
            let rule = Rule::new(&id, &chain_name("c")).expr(Expr::Meta { key: MetaKey::Mark, dreg: Register::FIRST });
            Object::Rule(rule.expr(cmp(CmpOp::Eq, Data::native32(n))))
        };
        let elements = |last: &[u8]| Object::Elements {
            table: id.clone(),
            set: name.clone(),
            elements: last.iter().map(|n| Element::new(Data::ipv4(Ipv4Addr::new(203, 0, 113, *n)))).collect(),
        };
        let mut socket = Socket::open().unwrap();
        let run = |socket: &mut Socket, verb, object| {
            let mut transaction = Transaction::new();
            transaction.push(verb, object);
            socket.commit(&transaction).map_err(|error| (error.kind(), leaf(&error).errno))
        };
        let read = |socket: &mut Socket| socket.table(&id).unwrap().unwrap();
        let marks =
            |ruleset: &Ruleset| -> Vec<Expr> { ruleset.rules.iter().map(|rule| rule.exprs[1].clone()).collect() };
        let mark = |n| cmp(CmpOp::Eq, Data::native32(n));

        run(&mut socket, Verb::Create, a_table()).unwrap();
        let there = socket.generation().unwrap();
        assert_eq!(run(&mut socket, Verb::Add, a_table()), Ok(there), "nothing changed, so no generation is made");
        for verb in [Verb::Add, Verb::Add, Verb::Create] {
            let expected = if verb == Verb::Create { Err((ErrorKind::Conflict, libc::EEXIST)) } else { Ok(()) };
            for object in [a_set(), a_chain()] {
                assert_eq!(run(&mut socket, verb, object).map(drop), expected);
            }
        }
        run(&mut socket, Verb::Add, rule(1)).unwrap();
        run(&mut socket, Verb::Create, rule(2)).unwrap();
        run(&mut socket, Verb::Insert, rule(3)).unwrap();
        assert_eq!(marks(&read(&mut socket)), [3, 1, 2].map(mark));
        let second = read(&mut socket).rules.remove(1);
        run(&mut socket, Verb::Delete, Object::Rule(second.clone())).unwrap();
        assert_eq!(marks(&read(&mut socket)), [3, 2].map(mark));
        assert_eq!(
            run(&mut socket, Verb::Delete, Object::Rule(second.clone())),
            Err((ErrorKind::Kernel, libc::ENOENT))
        );
        run(&mut socket, Verb::Destroy, Object::Rule(second)).unwrap();
        run(&mut socket, Verb::Flush, a_chain()).unwrap();
        assert_eq!(read(&mut socket).rules, []);
        run(&mut socket, Verb::Add, rule(1)).unwrap();
        run(&mut socket, Verb::Flush, a_table()).unwrap();
        assert_eq!(read(&mut socket).rules, []);

        run(&mut socket, Verb::Add, elements(&[1, 2])).unwrap();
        run(&mut socket, Verb::Add, elements(&[2, 3])).unwrap();
        assert_eq!(run(&mut socket, Verb::Create, elements(&[3])), Err((ErrorKind::Conflict, libc::EEXIST)));
        run(&mut socket, Verb::Delete, elements(&[1])).unwrap();
        run(&mut socket, Verb::Destroy, elements(&[1, 2])).unwrap();
        assert_eq!(read(&mut socket).elements[0].2, [Element::new(Data::ipv4(Ipv4Addr::new(203, 0, 113, 3)))]);
        run(&mut socket, Verb::Flush, a_set()).unwrap();
        assert_eq!(read(&mut socket).elements, []);

        for verb in [Verb::Delete, Verb::Destroy] {
            for object in [a_set(), a_chain()] {
                run(&mut socket, verb, object).unwrap();
            }
        }
        run(&mut socket, Verb::Delete, a_table()).unwrap();
        run(&mut socket, Verb::Destroy, a_table()).unwrap();
        assert_eq!(socket.tables().unwrap(), []);
    });
}

#[test]
fn fifty_thousand_rules_and_elements_in_one_commit() {
    in_namespace(|| {
        const MANY: u32 = 50_000;
        let id = id(Family::Inet, "many");
        let a_set = set(&id, "s", &[Datatype::Ipv4Addr]);
        let rule = |n| {
            let rule = Rule::new(&id, &chain_name("c")).expr(Expr::Meta { key: MetaKey::Mark, dreg: Register::FIRST });
            rule.expr(cmp(CmpOp::Eq, Data::native32(n))).counter().verdict(Verdict::Accept)
        };
        let elements = (0..MANY).map(|n| Element::new(be32(0xcb00_0000 + n))).collect();
        let want = Ruleset {
            tables: vec![table(&id)],
            chains: vec![chain(&id, "c", None)],
            elements: vec![(id.clone(), a_set.name.clone(), elements)],
            sets: vec![a_set],
            rules: (0..MANY).map(rule).collect(),
            ..Ruleset::default()
        };
        let mut socket = Socket::open().unwrap();
        let start = Instant::now();
        socket.commit(&want.create()).unwrap();
        eprintln!("{MANY} rules and elements committed in {:?}", start.elapsed());
        socket.verify(&want).unwrap();

        let mut other = want.clone();
        other.rules.swap(40_000, 40_001);
        let error = socket.verify(&other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Verify);
        assert!(error.to_string().starts_with("rule 40000 of chain inet many c differs: "), "{error}");
    });
}

/// Operation `bad` of `count` fails, and with `rest` all behind it as well.
fn fail_at(socket: &mut Socket, count: usize, bad: usize, rest: bool) {
    let id = id(Family::Inet, "broken");
    let mut transaction = Transaction::new();
    transaction.push(Verb::Create, Object::Table(table(&id)));
    transaction.push(Verb::Add, Object::Chain(chain(&id, "there", None)));
    for n in 2..count + 2 {
        let fails = n == bad + 2 || rest && n > bad + 2;
        let name = chain_name(if fails { "missing" } else { "there" });
        let mut rule = Rule::new(&id, &name).counter();
        rule.comment = comment(&format!("number {n}"));
        transaction.push(Verb::Add, Object::Rule(rule));
    }
    let before = socket.generation().unwrap();
    let error = socket.commit(&transaction).unwrap_err();
    assert_eq!(leaf(&error).errno, libc::ENOENT, "{error:?}");
    let number = bad + 2;
    assert_eq!(leaf(&error).operation, format!("add rule inet broken missing (\"number {number}\")"));
    assert!(error.chain().starts_with("can't add rule inet broken missing (\"number "), "{error:?}");
    assert_eq!(socket.generation().unwrap(), before);
    assert_eq!(socket.tables().unwrap(), []);
}

#[test]
fn a_failure_anywhere_leaves_nothing_and_is_named() {
    in_namespace(|| {
        let mut socket = Socket::open().unwrap();
        for count in [1, 300, 1_000, 20_000] {
            for bad in [0, count / 2, count - 1] {
                fail_at(&mut socket, count, bad, false);
                fail_at(&mut socket, count, bad, true);
            }
        }
    });
}

#[test]
fn more_complaints_than_the_receive_buffer_holds_still_name_the_first() {
    in_namespace(|| {
        let mut socket = Socket::open().unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
        fail_at(&mut socket, 20_000, 0, true);
        fail_at(&mut socket, 20_000, 10_000, true);
        // And the socket is as good as before.
        socket.commit(&everything().create()).unwrap();
        socket.verify(&everything()).unwrap();
    });
}

#[test]
fn the_part_that_is_wrong_is_named() {
    in_namespace(|| {
        let id = id(Family::Inet, "parts");
        let missing = SetName::new("missing").unwrap();
        let rule = Rule::new(&id, &chain_name("c"))
            .counter()
            .expr(payload(PayloadBase::Network, 12, 4))
            .expr(Expr::Lookup { set: missing, sreg: Register::FIRST, negated: false });
        let start = [Object::Table(table(&id)), Object::Chain(chain(&id, "c", None))];
        let mut socket = Socket::open().unwrap();
        let error = socket.commit(&add(start.clone().into_iter().chain([Object::Rule(rule)]))).unwrap_err();
        assert_eq!((error.kind(), leaf(&error).errno), (ErrorKind::Kernel, libc::ENOENT));
        assert_eq!(leaf(&error).object.as_deref(), Some("expression 2 (`lookup`)"), "{error:?}");
        assert_eq!(error.advice(), Some("table inet parts has no set or map `missing`"));

        // Of an object that is refused, its field.
        let nowhere = Rule::new(&id, &chain_name("nowhere")).counter();
        let error = socket.commit(&add(start.clone().into_iter().chain([Object::Rule(nowhere)]))).unwrap_err();
        assert_eq!(
            (leaf(&error).object.as_deref(), leaf(&error).attribute.as_deref()),
            (Some("chain"), Some("NFTA_RULE_CHAIN"))
        );

        let a_set = set(&id, "s", &[Datatype::Ipv4Addr]);
        let (table, set) = (id.clone(), a_set.name.clone());
        let elements = vec![Element::new(be32(1)), Element::new(Data::be16(2))];
        let elements = Object::Elements { table, set, elements };
        let error = socket.commit(&add(start.into_iter().chain([Object::Set(a_set), elements]))).unwrap_err();
        assert_eq!(leaf(&error).errno, libc::EINVAL, "{error:?}");
        assert_eq!(leaf(&error).object.as_deref(), Some("element 0x0002"), "{error:?}");
        assert_eq!(leaf(&error).operation, "add 2 elements of set inet parts s");
    });
}

#[test]
fn why_something_is_refused_is_told() {
    in_namespace(|| {
        let id = id(Family::Inet, "why");
        let (map, fixed) = (SetName::new("m").unwrap(), set(&id, "fixed", &[Datatype::InetService]));
        let fixed = Set { flags: SetFlags { constant: true, ..SetFlags::default() }, ..fixed };
        let uses = Rule::new(&id, &chain_name("c")).expr(payload(PayloadBase::Transport, 2, 2)).expr(Expr::Lookup {
            set: fixed.name.clone(),
            sreg: Register::FIRST,
            negated: false,
        });
        let start = [
            Object::Table(table(&id)),
            Object::Chain(chain(&id, "c", Some(base(Hook::Input)))),
            Object::Set(Set { data: Some(MapTo::Verdict), name: map.clone(), ..fixed.clone() }),
            Object::Set(fixed.clone()),
            Object::Rule(uses),
        ];
        let mut socket = Socket::open().unwrap();
        socket.commit(&add(start)).unwrap();
        let of =
            |set: &SetName, element| Object::Elements { table: id.clone(), set: set.clone(), elements: vec![element] };
        let leading = |chain| {
            let verdict = ElementData::Verdict(Verdict::Jump(chain_name(chain)));
            of(&map, Element::leading(Data::be16(5), verdict))
        };
        let rule = |expr| Object::Rule(Rule::new(&id, &chain_name("c")).expr(expr));
        let at = |kind, hook, priority| {
            let base = BaseChain { kind, priority: Priority(priority), ..base(hook) };
            Object::Chain(chain(&id, "n", Some(base)))
        };
        let masquerade = Expr::Masquerade(NatPorts { ports: None, flags: NatFlags(0) });
        let mut change = |verb, object: Object, hint: &str| {
            let shown = object.to_string();
            let mut transaction = Transaction::new();
            transaction.push(verb, object);
            let error = socket.commit(&transaction).unwrap_err();
            assert!(error.advice().is_some_and(|advice| advice.contains(hint)), "{shown}: {error:?}");
            assert_eq!(error.kind(), ErrorKind::Kernel, "{shown}: {error:?}");
        };
        change(Verb::Add, leading("nowhere"), "table inet why has no chain `nowhere`");
        change(Verb::Add, leading("c"), "an element can't jump to a base chain");
        change(Verb::Add, rule(Expr::Verdict(Verdict::Jump(chain_name("c")))), "a rule can't jump to a base chain");
        change(Verb::Delete, of(&map, Element::new(Data::be16(7))), "set m has no element 0x0007");
        change(Verb::Add, of(&fixed.name, Element::new(Data::be16(7))), "the set is constant, and in use");
        change(Verb::Add, rule(masquerade), "`masquerade` is for chains of type nat at hook postrouting");
        change(Verb::Add, at(ChainType::Nat, Hook::Forward, 0), "a chain of type nat is at hook prerouting,");
        change(Verb::Add, at(ChainType::Nat, Hook::Prerouting, -300), "has a priority above -200");
        change(Verb::Add, at(ChainType::Route, Hook::Input, 0), "a chain of type route is at hook output");
        let moved = Object::Chain(chain(&id, "c", Some(base(Hook::Output))));
        change(Verb::Add, moved, "a chain that is there stays at its hook");
    });
}

#[test]
fn a_feature_that_the_kernel_lacks_is_unsupported() {
    in_namespace(|| {
        let id = id(Family::Ip, "lacking");
        let helper = CtHelper { helper: "nobody".into(), l3proto: None, l4proto: 6 };
        let object = StatefulObject::new(&id, &ObjectName::new("h").unwrap(), State::CtHelper(helper));
        let start = [Object::Table(table(&id)), Object::Stateful(object.clone())];
        let mut socket = Socket::open().unwrap();
        let error = socket.commit(&add(start)).unwrap_err();
        assert_eq!((error.kind(), leaf(&error).errno), (ErrorKind::Unsupported, libc::ENOENT), "{error:?}");
        assert!(error.advice().unwrap().contains("`nobody`"), "{error:?}");
        // Without its table it is not the kernel that lacks something.
        let error = socket.commit(&add([Object::Stateful(object)])).unwrap_err();
        assert_eq!((error.kind(), leaf(&error).errno), (ErrorKind::Kernel, libc::ENOENT), "{error:?}");
    });
}

#[test]
fn a_match_of_ebtables_is_told_the_protocol() {
    in_namespace(|| {
        let id = id(Family::Bridge, "filter");
        // `ebtables -p ARP --arp-op Request`: the kernel takes it where it is told of ARP alone.
        let mut info = vec![0; 56];
        (info[5], info[48]) = (1, 1);
        let arp = Expr::Match(Xt { name: "arp".into(), revision: 0, info: Bytes(info) });
        let ether_type = payload(PayloadBase::LinkLayer, 12, 2);
        let rule = Rule::new(&id, &chain_name("INPUT"))
            .expr(ether_type.clone())
            .expr(cmp(CmpOp::Eq, Data::be16(0x0806)))
            .expr(arp.clone());
        let all = [Object::Table(table(&id)), Object::Chain(chain(&id, "INPUT", Some(base(Hook::Input))))];
        let mut socket = Socket::open().unwrap();
        match socket.commit(&add(all.clone().into_iter().chain([Object::Rule(rule.clone())]))) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                assert!(!required(), "{error:?}");
                eprintln!("SKIPPED: {}", error.chain());
            }
            committed => {
                committed.unwrap();
                assert_eq!(socket.table(&id).unwrap().unwrap().rules[0].exprs, rule.exprs);
                let other = Rule::new(&id, &chain_name("INPUT")).expr(ether_type).expr(cmp(CmpOp::Eq, Data::be16(1)));
                socket.commit(&add([Object::Rule(other.expr(arp))])).unwrap_err();
            }
        }
    });
}

#[test]
fn a_stale_generation_is_a_conflict() {
    in_namespace(|| {
        let mut socket = Socket::open().unwrap();
        let mut other = Socket::open().unwrap();
        let bound = socket.generation().unwrap();
        let (ours, theirs) = (id(Family::Inet, "ours"), id(Family::Inet, "theirs"));
        other.commit(&add([Object::Table(table(&theirs))])).unwrap();
        let mut transaction = add([Object::Table(table(&ours))]);
        transaction.bind(bound);
        let error = socket.commit(&transaction).unwrap_err();
        assert_eq!((error.kind(), leaf(&error).errno), (ErrorKind::Conflict, libc::ERESTART));
        assert!(error.to_string().contains(&format!("no longer at generation {}", bound.0)), "{error}");
        assert!(socket.table(&ours).unwrap().is_none());
        transaction.bind(socket.generation().unwrap());
        socket.commit(&transaction).unwrap();
    });
}

#[test]
fn commits_race_and_each_knows_its_own_generation() {
    in_namespace(|| {
        let sockets: Vec<_> = (0..4).map(|_| Socket::open().unwrap()).collect();
        let start = Socket::open().unwrap().generation().unwrap().0;
        let racers: Vec<_> = sockets
            .into_iter()
            .enumerate()
            .map(|(index, mut socket)| {
                std::thread::spawn(move || {
                    let commit = |n| {
                        let id = id(Family::Inet, &format!("racer {index} {n}"));
                        socket.commit(&add([Object::Table(table(&id))])).unwrap().0
                    };
                    (0..100).map(commit).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut generations: Vec<u32> = racers.into_iter().flat_map(|racer| racer.join().unwrap()).collect();
        generations.sort_unstable();
        assert_eq!(generations, (start + 1..=start + 400).collect::<Vec<_>>());
    });
}

#[test]
fn what_a_socket_saw_before_misleads_neither_reads_nor_commits() {
    in_namespace(|| {
        let (mut socket, mut other) = (Socket::open().unwrap(), Socket::open().unwrap());
        let table = |name: &str| Object::Table(table(&id(Family::Inet, name)));
        let mine = socket.commit(&add([table("mine")])).unwrap();
        let theirs = other.commit(&add([table("theirs")])).unwrap();
        assert_eq!(theirs.0, mine.0 + 1);
        assert_eq!(socket.tables().unwrap().len(), 2);
        other.commit(&add([table("more")])).unwrap();
        assert!(socket.table(&id(Family::Inet, "more")).unwrap().is_some());
        // Asks for what is there: the generation is the present one, not the one that was seen.
        let last = other.commit(&add([table("last")])).unwrap();
        assert_eq!(socket.commit(&add([table("last")])).unwrap(), last);
        other.commit(&add([table("very last")])).unwrap();
        assert_eq!(socket.commit(&add([table("own")])).unwrap().0, last.0 + 2);
    });
}

#[test]
fn an_owner_table_refuses_others_and_goes_with_its_socket() {
    in_namespace(|| {
        let id = id(Family::Inet, "owned");
        let owned = Table { flags: TableFlags { owner: true, ..TableFlags::default() }, ..table(&id) };
        let mut owner = Socket::open().unwrap();
        owner.commit(&add([Object::Table(owned.clone())])).unwrap();
        owner.verify(&Ruleset { tables: vec![owned], ..Ruleset::default() }).unwrap();
        let mut other = Socket::open().unwrap();
        let mut delete = Transaction::new();
        delete.push(Verb::Delete, Object::Table(table(&id)));
        let error = other.commit(&delete).unwrap_err();
        assert_eq!((error.kind(), leaf(&error).errno), (ErrorKind::Conflict, libc::EPERM));
        assert!(error.advice().unwrap().contains("another process"), "{error:?}");
        assert!(other.table(&id).unwrap().is_some());
        drop(owner);
        // The kernel removes it from the close itself, but promises no moment.
        let deadline = Instant::now() + Duration::from_secs(5);
        while other.table(&id).unwrap().is_some() {
            assert!(Instant::now() < deadline, "the table outlives its owner");
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}

#[test]
fn a_persistent_owner_table_outlives_its_socket_and_can_be_adopted() {
    in_namespace(|| {
        let id = id(Family::Inet, "kept");
        let flags = TableFlags { owner: true, persist: true, ..TableFlags::default() };
        let kept = add([Object::Table(Table { flags, ..table(&id) })]);
        let mut owner = Socket::open().unwrap();
        match owner.commit(&kept) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                assert!(!required(), "{error:?}");
                eprintln!("SKIPPED: {error:?}");
                return;
            }
            outcome => drop(outcome.unwrap()),
        }
        drop(owner);
        let mut heir = Socket::open().unwrap();
        // An orphan shows itself without its owner flag until somebody takes it.
        let orphan = heir.table(&id).unwrap().expect("it outlives its owner").tables.remove(0);
        assert!(orphan.flags.persist, "{orphan:?}");
        heir.commit(&kept).unwrap();
        let mut delete = Transaction::new();
        delete.push(Verb::Delete, Object::Table(table(&id)));
        assert_eq!(Socket::open().unwrap().commit(&delete).unwrap_err().kind(), ErrorKind::Conflict);
        heir.commit(&delete).unwrap();
    });
}

#[test]
fn chains_that_jump_in_a_circle_are_refused_by_name() {
    in_namespace(|| {
        let id = id(Family::Inet, "circle");
        let jump = |from: &str, to: &str| {
            Object::Rule(Rule::new(&id, &chain_name(from)).verdict(Verdict::Jump(chain_name(to))))
        };
        let transaction = add([
            Object::Table(table(&id)),
            Object::Chain(chain(&id, "a", None)),
            Object::Chain(chain(&id, "b", None)),
            Object::Chain(chain(&id, "output", Some(base(Hook::Output)))),
            jump("output", "a"),
            jump("a", "b"),
            jump("b", "a"),
        ]);
        let mut socket = Socket::open().unwrap();
        let error = socket.commit(&transaction).unwrap_err();
        assert!(matches!(leaf(&error).errno, libc::ELOOP | libc::EMLINK), "{error:?}");
        assert_eq!(leaf(&error).operation, "add rule inet circle b");
        assert!(socket.table(&id).unwrap().is_none());
    });
}

#[test]
fn without_privilege_the_error_says_what_is_missing() {
    in_namespace(|| {
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::NET_ADMIN);
        set_capabilities(None, sets).unwrap();
        let mut socket = Socket::open().unwrap();
        let id = id(Family::Inet, "t");
        let mut bound = add([Object::Table(table(&id))]);
        let unbound = socket.commit(&bound).unwrap_err();
        bound.bind(Generation(1));
        let deaf = Monitor::open().unwrap_err();
        assert_eq!(deaf.kind(), ErrorKind::Privilege);
        assert!(deaf.advice().unwrap().contains("CAP_NET_ADMIN"), "{deaf:?}");
        for error in [unbound, socket.commit(&bound).unwrap_err(), socket.table(&id).unwrap_err()] {
            assert_eq!((error.kind(), leaf(&error).errno), (ErrorKind::Privilege, libc::EPERM));
            assert!(error.advice().unwrap().contains("CAP_NET_ADMIN"), "{error:?}");
        }
        // Nor may it send as much as it likes.
        let set = SetName::new("s").unwrap();
        let elements = (0..4_000_000u32).map(|n| Element::new(be32(n))).collect();
        let mut large = add([Object::Elements { table: id, set, elements }]);
        large.bind(Generation(1));
        let error = socket.commit(&large).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{error:?}");
        assert!(error.advice().unwrap().contains("wmem_max"), "{error:?}");
    });
}

#[test]
fn verify_names_the_first_difference() {
    in_namespace(|| {
        let want = everything();
        let mut socket = Socket::open().unwrap();
        socket.commit(&want.create()).unwrap();
        let id = want.tables[0].id.clone();
        let mut expect = |start: &str, change: &dyn Fn(&mut Ruleset)| {
            let mut other = want.clone();
            change(&mut other);
            let error = socket.verify(&other).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Verify);
            assert!(error.to_string().starts_with(start), "{error}");
        };
        expect("table inet everything differs", &|other| other.tables[0].comment = None);
        expect("table inet gone is not there", &|other| other.tables[0].id.name = TableName::new("gone").unwrap());
        expect("set inet everything endpoints differs", &|other| other.sets[0].size = Some(1));
        expect("set inet everything more is not there", &|other| {
            other.sets.push(set(&id, "more", &[Datatype::Mark]));
        });
        expect("chain inet everything aside is there, and was not wanted", &|other| {
            other.chains.remove(1);
        });
        expect("chain inet everything output differs", &|other| {
            other.chains[0].base.as_mut().unwrap().policy = ChainPolicy::Accept;
        });
        expect("element 0xcb0071090600000001bb0000 of set inet everything endpoints was not wanted", &|other| {
            other.elements[0].2.remove(0);
        });
        expect("an element of set inet everything endpoints differs", &|other| {
            other.elements[0].2[1].timeout = Some(Duration::from_secs(91));
        });
        expect("rule 1 of chain inet everything output differs", &|other| other.rules.swap(1, 2));
        expect("chain inet everything nat has 1 rules, 0 were wanted", &|other| {
            other.rules.retain(|rule| rule.chain.as_str() != "nat");
        });
    });
}

#[test]
fn verify_compares_stateful_objects() {
    in_namespace(|| {
        let id = id(Family::Inet, "objects");
        let object = |name: &str, state| StatefulObject::new(&id, &ObjectName::new(name).unwrap(), state);
        let quota = |bytes| State::Quota(Quota { bytes, used: 0, over: false });
        let counter = |packets| State::Counter { packets, bytes: 100 * packets };
        let mut want = Ruleset { tables: vec![table(&id)], ..Ruleset::default() };
        want.objects = vec![object("hits", counter(7)), object("hits", quota(1000))];
        let mut socket = Socket::open().unwrap();
        socket.commit(&want.create()).unwrap();
        // What is counted, and their order, make no difference.
        want.objects = vec![object("hits", quota(1000)), object("hits", counter(0))];
        socket.verify(&want).unwrap();
        let mut expect = |start: &str, objects: Vec<StatefulObject>| {
            let error = socket.verify(&Ruleset { objects, ..want.clone() }).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Verify);
            assert!(error.to_string().starts_with(start), "{error}");
        };
        expect("counter inet objects hits is there, and was not wanted", vec![object("hits", quota(1000))]);
        let more = [object("more", counter(0))];
        expect("counter inet objects more is not there", want.objects.iter().cloned().chain(more).collect());
        expect("quota inet objects hits differs", vec![object("hits", quota(999_999)), object("hits", counter(0))]);
    });
}

#[test]
fn what_the_kernel_adds_by_itself_is_not_unwanted() {
    in_namespace(|| {
        let id = id(Family::Inet, "adds");
        let timeout = |seconds| {
            // TCP: established and close-wait, by numbers of the kernel.
            let policy = CtTimeout { l3proto: 2, l4proto: 6, seconds };
            StatefulObject::new(&id, &ObjectName::new("patient").unwrap(), State::CtTimeout(policy))
        };
        let mut seen = set(&id, "seen", &[Datatype::Ipv4Addr]);
        seen.flags.dynamic = true;
        let want = Ruleset {
            tables: vec![table(&id)],
            objects: vec![timeout(vec![(5, 9), (3, 7777)])],
            sets: vec![seen.clone()],
            ..Ruleset::default()
        };
        let mut socket = Socket::open().unwrap();
        socket.commit(&want.create()).unwrap();
        let have = socket.ruleset().unwrap();
        assert!(matches!(&have.objects[0].state, State::CtTimeout(policy) if policy.seconds.len() > 2), "{have:?}");
        // As a packet would.
        let elements = vec![Element::new(be32(0x0a00_0001))];
        let added = Object::Elements { table: id.clone(), set: seen.name.clone(), elements };
        socket.commit(&add([added])).unwrap();
        let have = socket.ruleset().unwrap();
        assert_eq!(have.elements[0].2.len(), 1);
        socket.verify(&want).unwrap();
        assert!(diff(&have, &want).operations().is_empty());
        // What was named still counts, and so do elements where some were wanted.
        let other = Ruleset { objects: vec![timeout(vec![(3, 1)])], ..want.clone() };
        assert_eq!(socket.verify(&other).unwrap_err().kind(), ErrorKind::Verify);
        assert!(!diff(&have, &other).operations().is_empty());
        let elements = vec![(id.clone(), seen.name.clone(), vec![Element::new(be32(7))])];
        let error = socket.verify(&Ruleset { elements, ..want }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Verify);
    });
}

#[test]
fn a_set_that_is_counted_in_halves_is_read() {
    in_namespace(|| {
        let id = id(Family::Inet, "halves");
        let mut socket = Socket::open().unwrap();
        let memory = Set { policy: SetPolicy::Memory, size: Some(1000), ..set(&id, "s", &[Datatype::Ipv4Addr]) };
        let want = Ruleset {
            tables: vec![table(&id)],
            // Where Linux 6.18 keeps such a set in a tree, it takes no more than one.
            elements: vec![(id.clone(), memory.name.clone(), vec![Element::new(be32(7))])],
            sets: vec![memory],
            ..Ruleset::default()
        };
        socket.commit(&want.create()).unwrap();
        socket.verify(&want).unwrap();
        assert_eq!(socket.ruleset().unwrap().elements, want.elements);
    });
}

#[test]
fn counters_are_read_with_their_values() {
    in_namespace(|| {
        let id = id(Family::Inet, "counts");
        let rule = Rule::new(&id, &chain_name("c")).expr(Expr::Counter { packets: 3, bytes: 400 });
        let mut socket = Socket::open().unwrap();
        let objects = [Object::Table(table(&id)), Object::Chain(chain(&id, "c", None)), Object::Rule(rule)];
        socket.commit(&add(objects)).unwrap();
        let read = socket.table(&id).unwrap().unwrap();
        assert_eq!(read.rules[0].exprs, [Expr::Counter { packets: 3, bytes: 400 }]);
    });
}

#[test]
fn numbers_are_echoed_and_a_chain_is_renamed_by_its_own() {
    in_namespace(|| {
        let id = id(Family::Inet, "echo");
        let mut socket = Socket::open().unwrap();
        let rule = |port| Rule::new(&id, &chain_name("c")).equals(Field::DPORT, Data::be16(port)).counter();
        let objects = [
            Object::Table(table(&id)),
            Object::Chain(chain(&id, "c", None)),
            Object::Rule(rule(1)),
            Object::Rule(rule(2)),
            Object::Set(set(&id, "s", &[Datatype::Mark])),
        ];
        let (generation, handles) = socket.commit_echo(&add(objects)).unwrap();
        assert_eq!(generation, socket.generation().unwrap());
        assert!(handles.iter().all(Option::is_some), "{handles:?}");
        let first = handles[2];
        assert_eq!(socket.table(&id).unwrap().unwrap().rules[0].handle, first);

        // In front of, behind, in the place of.
        let mut transaction = Transaction::new();
        transaction.push(Verb::Insert, Object::Rule(Rule { position: handles[3], ..rule(15) }));
        transaction.push(Verb::Add, Object::Rule(Rule { position: first, ..rule(11) }));
        transaction.push(Verb::Replace, Object::Rule(Rule { handle: first, ..rule(10) }));
        transaction.push(
            Verb::Rename,
            Object::ChainName { table: id.clone(), handle: handles[1].unwrap(), to: chain_name("d") },
        );
        socket.commit(&transaction).unwrap();
        assert_eq!(socket.chain_handle(&id, &chain_name("c")).unwrap(), None);
        assert_eq!(socket.chain_handle(&id, &chain_name("d")).unwrap(), handles[1]);
        let have = socket.table(&id).unwrap().unwrap();
        let ports: Vec<_> = have.rules.iter().map(|rule| rule.exprs[1].clone()).collect();
        let expected: Vec<_> = [10, 11, 15, 2].map(|port| cmp(CmpOp::Eq, Data::be16(port))).to_vec();
        assert_eq!(ports, expected);
    });
}

#[test]
fn counts_start_anew() {
    in_namespace(|| {
        let id = id(Family::Ip, "counts");
        let mut socket = Socket::open().unwrap();
        let counter = State::Counter { packets: 5, bytes: 60 };
        let object = StatefulObject::new(&id, &ObjectName::new("n").unwrap(), counter.clone());
        let rule = Rule::new(&id, &chain_name("c")).expr(Expr::Counter { packets: 7, bytes: 80 });
        let objects = [
            Object::Table(table(&id)),
            Object::Chain(chain(&id, "c", None)),
            Object::Stateful(object),
            Object::Rule(rule),
        ];
        socket.commit(&add(objects)).unwrap();
        assert_eq!(socket.reset_objects(&id).unwrap()[0].state, counter);
        assert_eq!(socket.reset_rules(&id).unwrap()[0].exprs, [Expr::Counter { packets: 7, bytes: 80 }]);
        let missing = TableId { name: TableName::new("missing").unwrap(), ..id.clone() };
        for error in [socket.reset_objects(&missing).unwrap_err(), socket.reset_rules(&missing).unwrap_err()] {
            assert!(error.chain().starts_with("can't read table ip missing: No such file"), "{}", error.chain());
        }
        let have = socket.table(&id).unwrap().unwrap();
        assert_eq!(have.objects[0].state, State::Counter { packets: 0, bytes: 0 });
        assert_eq!(have.rules[0].exprs, [Expr::Counter { packets: 0, bytes: 0 }]);
    });
}

#[test]
fn changes_by_others_are_heard() {
    in_namespace(|| {
        let id = id(Family::Inet, "heard");
        let mut monitor = Monitor::open().unwrap();
        assert_eq!(monitor.next(Some(Duration::ZERO)).unwrap(), None);
        let mut socket = Socket::open().unwrap();
        let rule = Rule::new(&id, &chain_name("c")).counter().verdict(Verdict::Drop);
        let objects = [Object::Table(table(&id)), Object::Chain(chain(&id, "c", None)), Object::Rule(rule.clone())];
        let made = socket.commit(&add(objects)).unwrap();
        let patience = Some(Duration::MAX);
        let Some(Change::Committed { generation, by, edits, undecoded, .. }) = monitor.next(patience).unwrap() else {
            panic!("nothing heard")
        };
        assert_eq!((generation, undecoded), (made, 0));
        assert!(by.is_some());
        let shown: Vec<_> = edits.iter().map(ToString::to_string).collect();
        assert_eq!(shown[..2], ["add table inet heard", "add chain inet heard c"]);
        assert!(matches!(&edits[2], Edit::Added(Object::Rule(heard)) if heard.exprs == rule.exprs));

        let mut transaction = Transaction::new();
        transaction.push(Verb::Delete, Object::Table(table(&id)));
        socket.commit(&transaction).unwrap();
        let Some(Change::Committed { edits, .. }) = monitor.next(patience).unwrap() else { panic!("nothing heard") };
        assert!(edits.iter().all(|edit| matches!(edit, Edit::Deleted(_))));
        assert!(edits.contains(&Edit::Deleted(Deleted::Table(id.clone()))));
    });
}

#[test]
fn whatever_is_deleted_is_heard_by_its_name() {
    in_namespace(|| {
        let id = id(Family::Inet, "gone");
        let (table_id, name) = (id.clone(), |name| SetName::new(name).unwrap());
        let object = |name, state| StatefulObject::new(&id, &ObjectName::new(name).unwrap(), state);
        let counter = object("n", State::Counter { packets: 0, bytes: 0 });
        let quota = object("n", State::Quota(Quota { bytes: 50, used: 0, over: false }));
        let map = Set { data: Some(MapTo::Verdict), ..set(&id, "m", &[Datatype::Ipv4Addr]) };
        let elements = vec![Element::new(be32(1)), Element::new(be32(2))];
        let of_set = |elements| Object::Elements { table: id.clone(), set: name("s"), elements };
        let mut monitor = Monitor::open().unwrap();
        let mut socket = Socket::open().unwrap();
        let mut edits = |transaction: &Transaction| {
            socket.commit(transaction).unwrap();
            match monitor.next(Some(Duration::from_secs(30))).unwrap() {
                Some(Change::Committed { edits, undecoded: 0, .. }) => edits,
                other => panic!("{other:?}"),
            }
        };
        for verb in [Verb::Delete, Verb::Destroy] {
            let made = edits(&add([
                Object::Table(table(&id)),
                Object::Chain(chain(&id, "c", Some(base(Hook::Input)))),
                Object::Stateful(counter.clone()),
                Object::Stateful(quota.clone()),
                Object::Set(set(&id, "s", &[Datatype::Ipv4Addr])),
                Object::Set(map.clone()),
                of_set(elements.clone()),
                Object::Rule(Rule::new(&id, &chain_name("c")).counter()),
            ]));
            let rule = made.iter().find_map(|edit| match edit {
                Edit::Added(Object::Rule(rule)) => Some(rule.clone()),
                _ => None,
            });
            let rule = rule.unwrap();
            let handle = rule.handle.unwrap();
            let table = || table_id.clone();
            let stateful = |object: &StatefulObject| Deleted::Stateful {
                table: table(),
                name: object.name.clone(),
                kind: object.state.kind(),
            };
            let each = [
                (Object::Rule(rule), Deleted::Rule { table: table(), chain: chain_name("c"), handle }),
                (
                    of_set(elements[1..].to_vec()),
                    Deleted::Elements { table: table(), set: name("s"), elements: elements[1..].to_vec() },
                ),
                (Object::Set(set(&id, "s", &[Datatype::Mark])), Deleted::Set { table: table(), name: name("s") }),
                (Object::Set(map.clone()), Deleted::Set { table: table(), name: name("m") }),
                (Object::Stateful(counter.clone()), stateful(&counter)),
                (Object::Stateful(quota.clone()), stateful(&quota)),
                (
                    Object::Chain(chain(&id, "c", None)),
                    Deleted::Chain { table: table(), name: chain_name("c"), devices: Vec::new() },
                ),
                (Object::Table(Table::new(id.clone())), Deleted::Table(table())),
            ];
            for (object, deleted) in each {
                let shown = format!("{verb} {object}");
                let mut transaction = Transaction::new();
                transaction.push(verb, object);
                let heard = edits(&transaction);
                assert!(heard.contains(&Edit::Deleted(deleted.clone())), "{shown}: {heard:?}");
                assert!(heard.iter().all(|edit| matches!(edit, Edit::Deleted(_))), "{shown}: {heard:?}");
            }
        }
    });
}

#[test]
fn a_dry_run_says_what_a_commit_would() {
    in_namespace(|| {
        let want = everything();
        let mut socket = Socket::open().unwrap();
        socket.commit(&want.create()).unwrap();
        let have = socket.ruleset().unwrap();
        let generation = socket.generation().unwrap();

        let id = &want.tables[0].id;
        let last = have.rules.iter().rev().find(|rule| rule.chain.as_str() == "output").unwrap();
        let mut transaction = Transaction::new();
        transaction.push(Verb::Delete, Object::Rule(last.clone()));
        let after = dry_run(&have, &transaction).unwrap();
        assert_eq!(after.rules.len() + 1, have.rules.len());

        transaction.push(Verb::Create, Object::Chain(chain(id, "output", None)));
        let error = dry_run(&have, &transaction).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(leaf(&error).operation, "create chain inet everything output");
        // Nothing happened here.
        assert_eq!((socket.ruleset().unwrap().rules, socket.generation().unwrap()), (have.rules, generation));
    });
}

#[test]
fn a_dry_run_tells_the_rules_and_chains_of_tables_apart_that_have_the_same_numbers() {
    in_namespace(|| {
        let mut socket = Socket::open().unwrap();
        let tables = [id(Family::Inet, "one"), id(Family::Inet, "two")];
        for id in &tables {
            let rule = |port| Object::Rule(Rule::new(id, &chain_name("c")).equals(Field::DPORT, Data::be16(port)));
            let chains = ["c", "d", "e"].map(|name| Object::Chain(chain(id, name, None)));
            let objects = [Object::Table(table(id))].into_iter().chain(chains).chain([1, 2, 3].map(rule));
            socket.commit(&add(objects)).unwrap();
        }
        let delete = |object| {
            let mut transaction = Transaction::new();
            transaction.push(Verb::Delete, object);
            transaction
        };
        // From here on rules and chains of the first are numbered otherwise when they are made anew.
        let first = socket.ruleset().unwrap().rules[0].clone();
        socket.commit(&delete(Object::Rule(first))).unwrap();
        socket.commit(&delete(Object::Chain(chain(&tables[0], "d", None)))).unwrap();
        let have = socket.ruleset().unwrap();
        for rule in &have.rules {
            let after = dry_run(&have, &delete(Object::Rule(rule.clone()))).unwrap();
            let left = |ruleset: &Ruleset| -> Vec<_> {
                ruleset.rules.iter().map(|rule| (rule.table.clone(), rule.exprs.clone())).collect()
            };
            let mut expected = have.clone();
            expected.rules.retain(|other| other != rule);
            assert_eq!(left(&after), left(&expected));
        }
        for chain in &have.chains {
            let handle = socket.chain_handle(&chain.table, &chain.name).unwrap().unwrap();
            let to = chain_name("renamed");
            let mut transaction = Transaction::new();
            transaction.push(Verb::Rename, Object::ChainName { table: chain.table.clone(), handle, to: to.clone() });
            let after = dry_run(&have, &transaction).unwrap();
            let renamed: Vec<_> = after.chains.iter().filter(|chain| chain.name == to).map(|it| &it.table).collect();
            assert_eq!(renamed, [&chain.table]);
            assert!(!after.chains.iter().any(|other| (&other.table, &other.name) == (&chain.table, &chain.name)));
        }
        // What is not there is not there.
        let stranger = Rule { handle: Some(Handle(77)), ..have.rules[0].clone() };
        let error = dry_run(&have, &delete(Object::Rule(stranger))).unwrap_err();
        assert_eq!(leaf(&error).errno, libc::ENOENT);
    });
}

#[test]
fn what_others_prepare_meanwhile_is_not_taken_for_a_difference() {
    in_namespace(|| {
        let (other, own) = (id(Family::Inet, "other"), id(Family::Inet, "own"));
        let mut want = Ruleset { tables: vec![table(&own)], ..Ruleset::default() };
        // More than one datagram of chains.
        want.chains = (0..400).map(|n| chain(&own, &format!("chain-{n:04}"), None)).collect();
        let mut socket = Socket::open().unwrap();
        // The other table is told first.
        socket.commit(&add([Object::Table(table(&other))])).unwrap();
        socket.commit(&want.create()).unwrap();
        let over = std::sync::atomic::AtomicBool::new(false);
        let mut beside = Socket::open().unwrap();
        std::thread::scope(|scope| {
            let work = scope.spawn(|| {
                // Prepared, and given up for its last part: the ruleset never changes.
                let mut objects: Vec<Object> =
                    (0..3000).map(|n| Object::Chain(chain(&other, &format!("x{n}"), None))).collect();
                objects.push(Object::Chain(chain(&id(Family::Inet, "nowhere"), "x", None)));
                let transaction = add(objects);
                let mut given_up = 0u32;
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    beside.commit(&transaction).unwrap_err();
                    given_up += 1;
                }
                given_up
            });
            let verified: Vec<_> = (0..300).map(|_| socket.verify(&want).map_err(|error| error.chain())).collect();
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            println!("{} transactions were given up meanwhile", work.join().unwrap());
            let wrong: Vec<_> = verified.iter().filter_map(|one| one.as_ref().err()).collect();
            assert!(wrong.is_empty(), "{} of 300, first: {}", wrong.len(), wrong[0]);
        });
    });
}

#[test]
fn nothing_is_left_out_or_told_twice_while_others_prepare_something() {
    in_namespace(|| {
        let (other, own) = (id(Family::Inet, "other"), id(Family::Inet, "own"));
        let mut socket = Socket::open().unwrap();
        // The other table is told first.
        socket.commit(&add([Object::Table(table(&other))])).unwrap();
        let hash = set(&own, "hash", &[Datatype::Ipv4Addr]);
        let ranges = Set {
            flags: SetFlags { interval: true, ..SetFlags::default() },
            ..set(&own, "ranges", &[Datatype::Ipv4Addr])
        };
        let counter = |table: &TableId, n: u32| {
            let (name, state) = (format!("counter-{n:04}"), State::Counter { bytes: 0, packets: 0 });
            let (name, comment) = (ObjectName::new(&name).unwrap(), None);
            StatefulObject { table: table.clone(), name, state, comment, extra: Extra::default() }
        };
        let element = |n: u32| Element::new(be32(n));
        let range = |n: u32| [element(n), Element { interval_end: true, ..element(n + 5) }];
        // More than one datagram of each.
        let want = Ruleset {
            tables: vec![table(&own)],
            chains: (0..2000).map(|n| chain(&own, &format!("chain-{n:04}"), None)).collect(),
            objects: (0..1500).map(|n| counter(&own, n)).collect(),
            elements: vec![
                (own.clone(), hash.name.clone(), (0..4000).map(|n| element(n * 99)).collect()),
                (own.clone(), ranges.name.clone(), (1..2000).flat_map(|n| range(n * 10)).collect()),
            ],
            sets: vec![hash.clone(), ranges.clone()],
            ..Ruleset::default()
        };
        socket.commit(&want.create()).unwrap();
        let quiet = socket.ruleset().unwrap();
        let names = |ruleset: &Ruleset| {
            let chains = ruleset.chains.iter().map(|chain| chain.name.to_string());
            let objects = ruleset.objects.iter().map(|object| object.name.to_string());
            let elements = ruleset.elements.iter().flat_map(|(_, set, elements)| {
                elements.iter().map(move |element| format!("{set} {:?} {}", element.key, element.interval_end))
            });
            let mut names: Vec<String> = chains.chain(objects).chain(elements).collect();
            names.sort();
            names
        };
        let expected = names(&quiet);
        let over = std::sync::atomic::AtomicBool::new(false);
        let mut beside = Socket::open().unwrap();
        std::thread::scope(|scope| {
            let work = scope.spawn(|| {
                // Prepared, and given up for its last part: the ruleset never changes.
                let mut objects: Vec<Object> =
                    (0..400).map(|n| Object::Chain(chain(&other, &format!("x{n}"), None))).collect();
                objects.extend((0..400).map(|n| Object::Stateful(counter(&other, n))));
                let elements = |set: &Set, elements: Vec<Element>| Object::Elements {
                    table: own.clone(),
                    set: set.name.clone(),
                    elements,
                };
                objects.push(elements(&hash, (0..600).map(|n| element(n * 99 + 7)).collect()));
                objects.push(elements(&ranges, (4000..4300).flat_map(|n| range(n * 10)).collect()));
                objects.push(Object::Chain(chain(&id(Family::Inet, "nowhere"), "x", None)));
                let transaction = add(objects);
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    beside.commit(&transaction).unwrap_err();
                    // As long as nft(8) takes to start.
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
            let mut conflicts = 0;
            let mut wrong = Vec::new();
            for _ in 0..30 {
                match socket.ruleset() {
                    Ok(have) if names(&have) == expected => {}
                    Ok(have) => wrong.push(format!("{} things", names(&have).len())),
                    // Nobody can tell, and that is what is said.
                    Err(error) if error.kind() == ErrorKind::Conflict => conflicts += 1,
                    Err(error) => wrong.push(error.chain()),
                }
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            work.join().unwrap();
            println!("{conflicts} of 30 could not be read");
            assert!(wrong.is_empty(), "{} of 30, not {} things: {wrong:?}", wrong.len(), expected.len());
            assert!(conflicts < 30, "nothing could be read");
        });
    });
}
