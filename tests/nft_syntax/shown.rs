//! The text itself, and what is told of what has none.

use super::*;

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
