//! Rules and rulesets as they are drawn, likely and unlikely ones.

use super::*;

pub fn op() -> impl Strategy<Value = CmpOp> {
    use CmpOp::{Eq, Gt, Gte, Lt, Lte, Neq};
    prop_oneof![6 => Just(Eq), 3 => Just(Neq), 1 => Just(Lt), 1 => Just(Lte), 1 => Just(Gt), 1 => Just(Gte)]
}

pub fn meta_key() -> impl Strategy<Value = (MetaKey, u32)> {
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

pub fn payload_base() -> impl Strategy<Value = PayloadBase> {
    proptest::sample::select(vec![PayloadBase::LinkLayer, PayloadBase::Network, PayloadBase::Transport])
}

/// Places in headers that have names, in one family or another.
pub const NAMED: [(PayloadBase, u32, u32); 26] = {
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

pub fn likely_load() -> impl Strategy<Value = Load> {
    prop_oneof![
        4 => meta_key().prop_map(|(key, len)| Load::Meta(key, len)),
        6 => proptest::sample::select(NAMED.to_vec()).prop_map(|(base, offset, len)| Load::Payload(base, offset, len)),
        3 => (payload_base(), 0u32..26, proptest::sample::select(vec![1, 2, 4, 6, 16]))
            .prop_map(|(base, offset, len)| Load::Payload(base, offset, len)),
        1 => proptest::sample::select(vec![CtKey::State, CtKey::Status]).prop_map(Load::Ct),
    ]
}

pub fn likely_data(len: u32) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        2 => Just(0u8), 6 => proptest::sample::select(vec![1, 2, 6, 10, 17, 58, 255]), 1 => any::<u8>(),
    ];
    proptest::collection::vec(byte, len as usize)
}

/// A match of the shape that rules have: load, perhaps mask, compare.
pub fn likely_match() -> impl Strategy<Value = Vec<Expr>> {
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

pub fn statement() -> impl Strategy<Value = Expr> {
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
pub fn change() -> impl Strategy<Value = [Expr; 2]> {
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

pub fn last() -> impl Strategy<Value = Expr> {
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

pub fn likely_rule() -> impl Strategy<Value = Rule> {
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
pub fn any_expr() -> impl Strategy<Value = Expr> {
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

pub fn any_ruleset() -> impl Strategy<Value = Ruleset> {
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
