use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Batch, decode, encode};
use crate::nft::*;
use crate::wire::netlink::{self, Message};

fn table_id() -> TableId {
    TableId { family: Family::Inet, name: TableName::new("t").unwrap() }
}

fn rule(exprs: Vec<Expr>) -> Rule {
    Rule { exprs, ..Rule::new(&table_id(), &ChainName::new("c").unwrap()) }
}

fn one(verb: Verb, object: Object) -> Transaction {
    let mut transaction = Transaction::new();
    transaction.push(verb, object);
    transaction
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just("x".to_owned()), "[a-zäß/ ]{1,40}", Just("n".repeat(255))]
}

fn data() -> impl Strategy<Value = Data> {
    vec(any::<u8>(), 0..=64).prop_map(|bytes| Data::new(&bytes).unwrap())
}

fn register() -> impl Strategy<Value = Register> {
    (0u8..16).prop_map(|slot| Register::slot(slot).unwrap())
}

fn id() -> impl Strategy<Value = TableId> {
    let families = [Family::Ip, Family::Ip6, Family::Inet, Family::Arp, Family::Bridge, Family::Netdev];
    (proptest::sample::select(families.to_vec()), name())
        .prop_map(|(family, name)| TableId { family, name: TableName::new(&name).unwrap() })
}

fn comment() -> impl Strategy<Value = Option<Comment>> {
    let text = prop_oneof![Just("c".repeat(128)), "[a-zß ]{1,20}"];
    proptest::option::of(text.prop_map(|text| Comment::new(&text).unwrap()))
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::Accept),
        Just(Verdict::Drop),
        Just(Verdict::Return),
        Just(Verdict::Continue),
        name().prop_map(|name| Verdict::Jump(ChainName::new(&name).unwrap())),
        name().prop_map(|name| Verdict::Goto(ChainName::new(&name).unwrap())),
    ]
}

fn expr() -> impl Strategy<Value = Expr> {
    use proptest::option::of;
    use proptest::sample::select;
    let bases = vec![PayloadBase::LinkLayer, PayloadBase::Network, PayloadBase::Transport];
    let keys = vec![
        MetaKey::Protocol,
        MetaKey::NfProto,
        MetaKey::L4Proto,
        MetaKey::Iif,
        MetaKey::Oif,
        MetaKey::IifName,
        MetaKey::OifName,
        MetaKey::Mark,
        MetaKey::SkUid,
    ];
    let ops = vec![CmpOp::Eq, CmpOp::Neq, CmpOp::Lt, CmpOp::Lte, CmpOp::Gt, CmpOp::Gte];
    let directions = vec![CtDirection::Original, CtDirection::Reply];
    let codes =
        [RejectCode::NoRoute, RejectCode::PortUnreachable, RejectCode::HostUnreachable, RejectCode::AdminProhibited];
    let mut rejects: Vec<Reject> = codes.map(Reject::Icmpx).to_vec();
    rejects.extend([Reject::TcpReset, Reject::Icmp(13)]);
    let loads =
        prop_oneof![
            (select(bases), any::<u32>(), any::<u32>(), register())
                .prop_map(|(base, offset, len, dreg)| Expr::Payload { base, offset, len, dreg }),
            (select(keys), register()).prop_map(|(key, dreg)| Expr::Meta { key, dreg }),
            (select(vec![CtKey::State, CtKey::Status]), of(select(directions)), register())
                .prop_map(|(key, direction, dreg)| Expr::Ct { key, direction, dreg }),
            (register(), data()).prop_map(|(dreg, data)| Expr::Immediate { dreg, data }),
        ];
    let matches = prop_oneof![
        (select(ops), register(), data()).prop_map(|(op, sreg, data)| Expr::Cmp { op, sreg, data }),
        (any::<bool>(), register(), data(), data()).prop_map(|(negated, sreg, from, to)| Expr::Range {
            negated,
            sreg,
            from,
            to
        }),
        (register(), register(), any::<u32>(), data(), data()).prop_map(|(sreg, dreg, len, mask, xor)| {
            Expr::Bitwise { sreg, dreg, len, op: BitwiseOp::MaskXor { mask, xor } }
        }),
        (name(), register(), any::<bool>()).prop_map(|(set, sreg, negated)| Expr::Lookup {
            set: SetName::new(&set).unwrap(),
            sreg,
            negated
        }),
    ];
    let prefix = prop_oneof![Just("p".repeat(Log::MAX_PREFIX)), "[a-zß ]{0,20}"];
    let statements = prop_oneof![
        verdict().prop_map(Expr::Verdict),
        any::<(u64, u64)>().prop_map(|(packets, bytes)| Expr::Counter { packets, bytes }),
        (any::<u16>(), of(prefix), any::<Option<u32>>(), any::<Option<u16>>()).prop_map(
            |(group, prefix, snaplen, queue_threshold)| Expr::Log(Log { group, prefix, snaplen, queue_threshold })
        ),
        select(rejects).prop_map(Expr::Reject),
        Just(Expr::Masquerade(NatPorts::default())),
        any::<(u64, u64, u32, bool)>().prop_map(|(rate, seconds, burst, over)| Expr::Limit(Limit {
            rate,
            seconds,
            burst,
            over,
            bytes: over
        })),
    ];
    prop_oneof![loads, matches, statements]
}

fn chain() -> impl Strategy<Value = Chain> {
    use proptest::sample::select;
    let hooks = vec![
        (Family::Inet, Hook::Output),
        (Family::Inet, Hook::Ingress),
        (Family::Ip, Hook::Postrouting),
        (Family::Ip6, Hook::Prerouting),
        (Family::Arp, Hook::Input),
        (Family::Bridge, Hook::Forward),
        (Family::Netdev, Hook::Egress),
    ];
    let base = (
        select(vec![ChainType::Filter, ChainType::Nat, ChainType::Route]),
        any::<i32>(),
        select(vec![ChainPolicy::Accept, ChainPolicy::Drop]),
        vec("[a-z]{15}", 0..=256),
    );
    (id(), select(hooks), name(), proptest::option::of(base), comment()).prop_map(
        |(mut table, (family, hook), name, base, comment)| {
            table.family = family;
            let base = base.map(|(kind, priority, policy, devices)| BaseChain {
                kind,
                hook,
                priority: Priority(priority),
                policy,
                devices: devices.iter().map(|device| InterfaceName::new(device).unwrap()).collect(),
            });
            Chain { base, comment, ..Chain::new(&table, &ChainName::new(&name).unwrap()) }
        },
    )
}

fn millis() -> impl Strategy<Value = Option<Duration>> {
    proptest::option::of((0u64..=u64::MAX).prop_map(Duration::from_millis))
}

fn set() -> impl Strategy<Value = Set> {
    let narrow = Datatype::ALL.iter().copied().filter(|field| *field != Datatype::Ipv6Addr).collect::<Vec<_>>();
    let key = prop_oneof![
        vec(proptest::sample::select(narrow), 1..=5),
        vec(proptest::sample::select(Datatype::ALL.to_vec()), 1..=4)
    ];
    (id(), name(), key, any::<[bool; 3]>(), millis(), any::<Option<u32>>(), comment()).prop_map(
        |(table, name, key, [constant, interval, timeout], default, size, comment)| Set {
            flags: SetFlags { constant, interval, timeout, ..SetFlags::default() },
            timeout: default,
            size,
            comment,
            ..Set::new(&table, &SetName::new(&name).unwrap(), KeyType(key))
        },
    )
}

fn element() -> impl Strategy<Value = Element> {
    (data(), any::<bool>(), millis(), comment()).prop_map(|(key, interval_end, timeout, comment)| Element {
        interval_end,
        timeout: timeout.filter(|timeout| !timeout.is_zero()),
        comment,
        ..Element::new(key)
    })
}

fn object() -> impl Strategy<Value = Object> {
    let table = (id(), any::<[bool; 3]>(), comment()).prop_map(|(id, [dormant, owner, persist], comment)| {
        Object::Table(Table { flags: TableFlags { dormant, owner, persist }, comment, ..Table::new(id) })
    });
    let rule = (id(), name(), vec(expr(), 0..12), comment()).prop_map(|(table, chain, exprs, comment)| {
        Object::Rule(Rule { exprs, comment, ..Rule::new(&table, &ChainName::new(&chain).unwrap()) })
    });
    let elements = (id(), name(), vec(element(), 1..40)).prop_map(|(table, set, elements)| Object::Elements {
        table,
        set: SetName::new(&set).unwrap(),
        elements,
    });
    prop_oneof![table, chain().prop_map(Object::Chain), rule, set().prop_map(Object::Set), elements]
}

fn contents(batch: &Batch) -> Vec<Message<'_>> {
    let all: Vec<_> = netlink::messages(batch.as_bytes()).collect::<Result<_, _>>().unwrap();
    assert_eq!((all[0].header.kind, all[0].header.seq), (16, batch.begin()));
    assert_eq!((all[all.len() - 1].header.kind, all[all.len() - 1].header.seq), (17, batch.end()));
    all[1..all.len() - 1].to_vec()
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(objects in vec(object(), 1..6)) {
        let mut transaction = Transaction::new();
        for object in &objects {
            transaction.push(Verb::Add, object.clone());
        }
        let batch = encode(&transaction).unwrap();
        let messages = contents(&batch);
        prop_assert_eq!(messages.len(), objects.len());
        for (index, message) in messages.iter().enumerate() {
            prop_assert_eq!(batch.operation(message.header.seq), Some(index));
            prop_assert_eq!(&decode(message).unwrap(), &objects[index]);
        }
    }

    /// One byte changed anywhere: an error or another object, never a panic.
    #[test]
    fn damaged_bytes_do_no_harm(object in object(), at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let batch = encode(&one(Verb::Add, object)).unwrap();
        let mut bytes = batch.as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        for message in netlink::messages(&bytes).flatten() {
            let _ = decode(&message);
        }
        for message in netlink::messages(&bytes[..at]).flatten() {
            let _ = decode(&message);
        }
    }
}

#[test]
fn the_longest_objects_fit_the_room_they_are_given() {
    let long = |len| "n".repeat(len);
    let wide = Data::new(&[7; 64]).unwrap();
    let chain = ChainName::new(&long(255)).unwrap();
    for expr in [
        Expr::Verdict(Verdict::Goto(chain.clone())),
        Expr::Lookup { set: SetName::new(&long(255)).unwrap(), sreg: Register::FIRST, negated: true },
        Expr::Range { negated: true, sreg: Register::FIRST, from: wide.clone(), to: wide.clone() },
        Expr::Limit(Limit { rate: u64::MAX, seconds: 1, burst: 1, over: true, bytes: false }),
    ] {
        let table = TableId { family: Family::Inet, name: TableName::new(&long(255)).unwrap() };
        let rule = Rule {
            exprs: vec![expr; Rule::MAX_EXPRS],
            comment: Some(Comment::new(&long(128)).unwrap()),
            ..Rule::new(&table, &chain)
        };
        let batch = encode(&one(Verb::Add, Object::Rule(rule.clone()))).unwrap();
        assert_eq!(decode(&contents(&batch)[0]).unwrap(), Object::Rule(rule));
    }
}

#[test]
fn many_elements_are_split_and_lead_back_to_their_operation() {
    let set = SetName::new("s").unwrap();
    let elements: Vec<_> = (0..100_000u32).map(|n| Element::new(Data::new(&n.to_be_bytes()).unwrap())).collect();
    let table = Object::Table(Table::new(table_id()));
    let mut transaction = one(Verb::Add, table.clone());
    let none = Object::Elements { table: table_id(), set: set.clone(), elements: Vec::new() };
    let all = Object::Elements { table: table_id(), set, elements: elements.clone() };
    transaction.push(Verb::Add, none);
    transaction.push(Verb::Add, all);
    transaction.push(Verb::Delete, table);
    let batch = encode(&transaction).unwrap();
    let messages = contents(&batch);
    assert!(messages.len() > 10);
    let mut read = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let want = if index == 0 {
            0
        } else if index + 1 == messages.len() {
            3
        } else {
            2
        };
        assert_eq!(batch.operation(message.header.seq), Some(want));
        if want == 2 {
            let Ok(Object::Elements { elements, .. }) = decode(message) else { panic!("not elements") };
            read.extend(elements);
        }
    }
    assert!(read == elements);
    assert_eq!([batch.begin(), batch.end(), batch.end() + 1, 0].map(|seq| batch.operation(seq)), [None; 4]);
}

#[test]
fn what_the_kernel_would_misread_is_refused() {
    let handleless = encode(&one(Verb::Delete, Object::Rule(rule(Vec::new())))).unwrap_err();
    assert_eq!(handleless.to_string(), "delete rule inet t c: a rule is found by its handle, and this one has none");
    let long = rule(vec![Expr::Masquerade(NatPorts::default()); Rule::MAX_EXPRS + 1]);
    assert_eq!(
        encode(&one(Verb::Add, Object::Rule(long))).unwrap_err().reason,
        "129 expressions, more than the kernel's 128"
    );
    for prefix in ["p".repeat(128), "a\0b".to_owned()] {
        let log = Log { group: 1, prefix: Some(prefix), snaplen: None, queue_threshold: None };
        assert!(encode(&one(Verb::Add, Object::Rule(rule(vec![Expr::Log(log)])))).is_err());
    }
    let key = |fields| Set::new(&table_id(), &SetName::new("s").unwrap(), KeyType(fields));
    for fields in [vec![], vec![Datatype::Mark; 6], vec![Datatype::Ipv6Addr; 5]] {
        assert!(encode(&one(Verb::Add, Object::Set(key(fields)))).is_err());
    }
}

#[test]
fn a_bound_batch_bears_its_generation_and_an_unbound_one_none() {
    let mut transaction = Transaction::new();
    assert_eq!(encode(&transaction).unwrap().bound(), None);
    transaction.bind(Generation(0x01020304));
    let mut batch = encode(&transaction).unwrap();
    assert_eq!(batch.as_bytes()[20..28], [8, 0, 1, 0, 1, 2, 3, 4]);
    batch.bind(Generation(5));
    assert_eq!(batch.bound(), Some(Generation(5)));
}

#[test]
fn an_offset_leads_to_the_expression_or_element() {
    let exprs = vec![Expr::Masquerade(NatPorts::default()), Expr::Verdict(Verdict::Drop)];
    let mut transaction = one(Verb::Add, Object::Rule(rule(exprs)));
    let elements = (0..3).map(|n| Element::new(Data::byte(n))).collect();
    let elements = Object::Elements { table: table_id(), set: SetName::new("s").unwrap(), elements };
    transaction.push(Verb::Delete, elements);
    let batch = encode(&transaction).unwrap();
    // Headers 20, two names of 8, a nest of 4; the first expression takes 4 + 12 + 4.
    let located = |seq, offset| batch.locate(seq, offset).map(|part| part.to_string());
    assert_eq!(located(2, 40).as_deref(), Some("expression 0 (`masq`)"));
    assert_eq!(located(2, 60).as_deref(), Some("expression 1 (`immediate`)"));
    assert_eq!(located(3, 40 + 16).as_deref(), Some("element 0x01"));
    assert_eq!(located(3, u32::MAX), None);
    assert_eq!(located(99, 40), None);
}

#[test]
fn unknown_expressions_are_kept() {
    let batch = encode(&one(Verb::Add, Object::Rule(rule(vec![Expr::Masquerade(NatPorts::default())])))).unwrap();
    let mut bytes = batch.as_bytes().to_vec();
    let at = bytes.windows(4).position(|window| window == b"masq").unwrap();
    bytes[at..at + 4].copy_from_slice(b"mask");
    let message = netlink::messages(&bytes).nth(1).unwrap().unwrap();
    let raw = Expr::Raw { name: "mask".to_owned(), data: Some(Bytes::default()) };
    assert_eq!(decode(&message).unwrap(), Object::Rule(rule(vec![raw])));
}

/// How long encoding takes: `cargo test --release cost_of_encoding -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a check"]
fn cost_of_encoding() {
    let set = SetName::new("endpoints").unwrap();
    let rule = |n: u32| {
        Rule::new(&table_id(), &ChainName::new("c").unwrap())
            .expr(Expr::Payload { base: PayloadBase::Network, offset: 16, len: 4, dreg: Register::FIRST })
            .expr(Expr::Cmp { op: CmpOp::Eq, sreg: Register::FIRST, data: Data::native32(n) })
            .counter()
            .verdict(Verdict::Accept)
    };
    let mut rules = Transaction::new();
    (0..100_000).for_each(|n| rules.push(Verb::Add, Object::Rule(rule(n))));
    let elements = (0..100_000u32).map(|n| Element::new(Data::native32(n))).collect();
    let elements = one(Verb::Add, Object::Elements { table: table_id(), set, elements });
    for (what, transaction) in [("rule of 4 expressions", &rules), ("element", &elements)] {
        let best = (0..5)
            .map(|_| {
                let start = std::time::Instant::now();
                std::hint::black_box(encode(transaction).unwrap());
                start.elapsed()
            })
            .min()
            .unwrap();
        eprintln!("{} ns a {what}", best.as_nanos() / 100_000);
    }
}
