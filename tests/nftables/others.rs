//! Whoever else has a socket: generations, owners, changes that are heard, and what is prepared and given up.

use super::*;

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
