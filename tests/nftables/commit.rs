//! Transactions: what each verb does, and what is said of one that is refused.

use super::*;

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
