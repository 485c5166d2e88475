//! What is read back, and compared with what was meant.

use super::*;

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
fn sets_that_rules_fill_come_back_whatever_size_the_kernel_gave_them() {
    in_namespace(|| {
        let id = id(Family::Inet, "filled");
        for (dynamic, count) in [(false, 3), (true, 3), (false, 70_000), (true, 70_000)] {
            let mut filled = set(&id, "seen", &[Datatype::Mark]);
            filled.flags.dynamic = dynamic;
            let change = Dynset {
                set: filled.name.clone(),
                op: DynsetOp::Add,
                key: Register::FIRST,
                data: None,
                timeout: None,
                negated: false,
                exprs: Vec::new(),
            };
            let load = Expr::Meta { key: MetaKey::Mark, dreg: Register::FIRST };
            let want = Ruleset {
                tables: vec![table(&id)],
                chains: vec![chain(&id, "c", None)],
                sets: vec![filled.clone()],
                elements: vec![(id.clone(), filled.name, (0..count).map(|key| Element::new(be32(key))).collect())],
                rules: vec![Rule::new(&id, &chain_name("c")).expr(load).expr(Expr::Dynset(change))],
                ..Ruleset::default()
            };
            let mut socket = Socket::open().unwrap();
            socket.commit(&want.clone().replace()).unwrap();
            let read = socket.ruleset().unwrap();
            socket
                .commit(&read.clone().replace())
                .unwrap_or_else(|error| panic!("{dynamic} {count}: {}", error.chain()));
            let again = socket.ruleset().unwrap();
            assert_eq!((&again.sets, again.elements[0].2.len()), (&read.sets, read.elements[0].2.len()));
            assert_eq!(again.elements[0].2.len(), count as usize, "{dynamic}, {} at first", read.elements[0].2.len());
            socket.verify(&want).unwrap();
        }
    });
}
