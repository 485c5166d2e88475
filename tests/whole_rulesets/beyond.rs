//! Rulesets that the kernel takes and nft(8) 1.0.6 has no words for, as messages.

use crate::netlink::{Attr, Body, Message, NEW_CHAIN, NEW_ELEMENTS, NEW_OBJECT, NEW_RULE, NEW_SET, NEW_TABLE};

const IPV4: u8 = 2;
const EQ: u32 = 0;
const NEQ: u32 = 1;
const LTE: u32 = 3;
const DROP: u32 = 0;

fn bytes(kind: u16, bytes: &[u8]) -> Attr {
    Attr::bytes(kind, bytes)
}

fn number(kind: u16, number: u32) -> Attr {
    bytes(kind, &number.to_be_bytes())
}

fn text(kind: u16, text: &str) -> Attr {
    bytes(kind, &[text.as_bytes(), &[0]].concat())
}

fn nest(kind: u16, attrs: Vec<Attr>) -> Attr {
    Attr { kind, body: Body::Nest(attrs) }
}

fn value(kind: u16, data: &[u8]) -> Attr {
    nest(kind, vec![bytes(1, data)])
}

fn expr(name: &str, data: Vec<Attr>) -> Attr {
    nest(1, vec![text(1, name), nest(2, data)])
}

fn meta(key: u32, register: u32) -> Attr {
    expr("meta", vec![number(2, key), number(1, register)])
}

fn payload(base: u32, offset: u32, len: u32, register: u32) -> Attr {
    expr("payload", vec![number(1, register), number(2, base), number(3, offset), number(4, len)])
}

fn cmp(op: u32, data: &[u8], register: u32) -> Attr {
    expr("cmp", vec![number(1, register), number(2, op), value(3, data)])
}

fn verdict(code: u32) -> Attr {
    expr("immediate", vec![number(1, 0), nest(2, vec![nest(2, vec![number(1, code)])])])
}

fn table() -> Message {
    Message { kind: NEW_TABLE, family: IPV4, attrs: vec![text(1, "t"), number(2, 0)] }
}

fn chain(more: Vec<Attr>) -> Message {
    Message { kind: NEW_CHAIN, family: IPV4, attrs: [vec![text(1, "t"), text(3, "c")], more].concat() }
}

fn rule(exprs: Vec<Attr>, more: Vec<Attr>) -> Message {
    Message { kind: NEW_RULE, family: IPV4, attrs: [vec![text(1, "t"), text(2, "c"), nest(4, exprs)], more].concat() }
}

fn set(name: &str, flags: u32, len: u32, more: Vec<Attr>) -> Message {
    let attrs = vec![text(1, "t"), text(2, name), number(3, flags), number(4, 7), number(5, len), number(10, 1)];
    Message { kind: NEW_SET, family: IPV4, attrs: [attrs, more].concat() }
}

fn elements(set: &str, elements: Vec<Vec<Attr>>) -> Message {
    let list = elements.into_iter().map(|element| nest(1, element)).collect();
    Message { kind: NEW_ELEMENTS, family: IPV4, attrs: vec![text(1, "t"), text(2, set), nest(3, list)] }
}

fn object(name: &str, kind: u32, data: Vec<Attr>, more: Vec<Attr>) -> Message {
    let attrs = vec![text(1, "t"), text(2, name), number(3, kind), nest(4, data)];
    Message { kind: NEW_OBJECT, family: IPV4, attrs: [attrs, more].concat() }
}

/// A chain with these rules in it.
fn rules(rules: Vec<Vec<Attr>>) -> Vec<Message> {
    [vec![table(), chain(vec![])], rules.into_iter().map(|exprs| rule(exprs, vec![])).collect()].concat()
}

/// Rulesets by name. What a kernel refuses of them it has no code for.
pub fn rulesets() -> Vec<(&'static str, Vec<Message>)> {
    let hook = |number_of: u32| nest(4, vec![number(1, number_of), number(2, 0)]);
    let comment: Vec<u8> = [&b"a comment of xtables"[..], &[0; 236]].concat();
    let multiport: Vec<u8> = [&[1, 2, 22, 0, 80, 0][..], &[0; 42]].concat();
    let anything: Vec<u8> = (0..=255).collect();
    vec![
        ("last", rules(vec![vec![expr("last", vec![])], vec![expr("last", vec![]), verdict(DROP)]])),
        (
            "bitwise of two registers",
            rules(
                [3, 4, 5]
                    .map(|op| {
                        let bitwise = vec![number(1, 8), number(8, 9), number(2, 8), number(3, 4), number(6, op)];
                        vec![
                            meta(3, 8),
                            meta(0, 9),
                            expr("bitwise", bitwise),
                            expr("meta", vec![number(2, 3), number(3, 8)]),
                        ]
                    })
                    .to_vec(),
            ),
        ),
        (
            "xtables match",
            rules(vec![vec![expr("match", vec![text(1, "comment"), number(2, 0), bytes(3, &comment)]), verdict(DROP)]]),
        ),
        (
            "xtables match that needs a protocol",
            vec![
                table(),
                chain(vec![]),
                rule(
                    vec![
                        meta(16, 1),
                        cmp(EQ, &[6], 1),
                        expr("match", vec![text(1, "multiport"), number(2, 1), bytes(3, &multiport)]),
                    ],
                    vec![nest(5, vec![number(1, 6), number(2, 0)])],
                ),
            ],
        ),
        (
            "xtables target",
            rules(vec![vec![expr(
                "target",
                vec![text(1, "MARK"), number(2, 2), bytes(3, &[5, 0, 0, 0, 255, 0, 0, 0])],
            )]]),
        ),
        (
            "user data that nft(8) would not write",
            vec![
                Message { kind: NEW_TABLE, family: IPV4, attrs: vec![text(1, "t"), number(2, 0), bytes(6, &anything)] },
                chain(vec![bytes(12, &anything)]),
                set("s", 0, 4, vec![bytes(13, &anything)]),
                object("n", 1, vec![bytes(1, &[0; 8]), bytes(2, &[0; 8])], vec![bytes(8, &anything)]),
                elements("s", vec![vec![value(1, &[198, 51, 100, 1]), bytes(6, &anything[..200])]]),
                rule(vec![verdict(DROP)], vec![bytes(7, &anything)]),
                rule(vec![verdict(DROP)], vec![bytes(7, &[0])]),
            ],
        ),
        ("user data of no length", vec![table(), chain(vec![]), rule(vec![verdict(DROP)], vec![bytes(7, &[0, 0])])]),
        (
            "counters of a base chain",
            vec![
                table(),
                chain(vec![
                    hook(1),
                    text(7, "filter"),
                    number(5, 1),
                    nest(8, vec![bytes(1, &500_u64.to_be_bytes()), bytes(2, &7_u64.to_be_bytes())]),
                ]),
            ],
        ),
        (
            "comparisons of many bytes",
            rules(vec![
                vec![payload(1, 0, 16, 1), cmp(LTE, &[7; 16], 1)],
                vec![payload(1, 0, 13, 4), cmp(NEQ, &[9; 13], 4)],
                vec![payload(0, 3, 5, 2), cmp(EQ, &[1, 2, 3, 4, 5], 2)],
                vec![payload(2, 1, 3, 8), cmp(EQ, &[1, 2, 3], 8)],
                vec![
                    payload(1, 8, 16, 3),
                    expr("range", vec![number(1, 3), number(2, 1), value(3, &[1; 16]), value(4, &[2; 16])]),
                ],
            ]),
        ),
        (
            "every register",
            rules(
                (8..24).chain(1..5).map(|register| vec![meta(3, register), cmp(EQ, &[1, 0, 0, 0], register)]).collect(),
            ),
        ),
        ("nothing in a rule", rules(vec![vec![], vec![verdict(DROP)], vec![]])),
        ("128 expressions in a rule", rules(vec![vec![expr("counter", vec![]); 128]])),
        (
            "conntrack time-outs of other protocols",
            vec![
                table(),
                object("icmp", 7, vec![bytes(1, &[0, 2]), bytes(2, &[1]), nest(3, vec![number(1, 9)])], vec![]),
                object("generic", 7, vec![bytes(1, &[0, 2]), bytes(2, &[99]), nest(3, vec![number(1, 77)])], vec![]),
            ],
        ),
        (
            "tunnel",
            [
                vec![table()],
                vec![object(
                    "tun",
                    6,
                    vec![
                        number(1, 10),
                        nest(2, vec![bytes(1, &[198, 51, 100, 1]), bytes(2, &[198, 51, 100, 2])]),
                        bytes(7, &[64]),
                    ],
                    vec![],
                )],
                vec![
                    chain(vec![]),
                    rule(vec![expr("tunnel", vec![number(1, 1), number(2, 1)]), cmp(EQ, &[0, 0, 0, 5], 1)], vec![]),
                ],
            ]
            .concat(),
        ),
        (
            "inner header",
            rules(vec![vec![
                meta(16, 1),
                cmp(EQ, &[17], 1),
                expr(
                    "inner",
                    vec![
                        number(1, 0),
                        number(2, 1),
                        number(3, 15),
                        number(4, 8),
                        nest(
                            5,
                            vec![
                                text(1, "payload"),
                                nest(2, vec![number(1, 1), number(2, 1), number(3, 12), number(4, 4)]),
                            ],
                        ),
                    ],
                ),
                cmp(EQ, &[198, 51, 100, 1], 1),
            ]]),
        ),
        (
            "elements with expressions, sets without",
            vec![
                table(),
                set("s", 0, 4, vec![]),
                elements(
                    "s",
                    vec![
                        vec![value(1, &[198, 51, 100, 1]), nest(7, vec![text(1, "counter"), nest(2, vec![])])],
                        vec![value(1, &[198, 51, 100, 2])],
                    ],
                ),
            ],
        ),
        (
            "set with counter and last",
            vec![
                table(),
                set("s", 0x10, 4, vec![nest(18, vec![expr("counter", vec![]), expr("last", vec![])])]),
                elements("s", vec![vec![value(1, &[198, 51, 100, 1])]]),
            ],
        ),
        (
            "intervals as they come",
            vec![
                table(),
                set("s", 0x4, 4, vec![]),
                elements(
                    "s",
                    vec![
                        vec![value(1, &[10, 0, 0, 0])],
                        vec![value(1, &[10, 0, 0, 9]), number(3, 1)],
                        vec![value(1, &[10, 0, 1, 0])],
                    ],
                ),
            ],
        ),
        ("data of a type of its own", vec![table(), set("m", 0x8, 4, vec![number(6, 0x1234), number(7, 13)])]),
        (
            "dynset that inverts",
            vec![
                table(),
                set("s", 0x10, 4, vec![nest(9, vec![number(1, 9)])]),
                chain(vec![]),
                rule(
                    vec![
                        payload(1, 12, 4, 1),
                        expr("dynset", vec![text(1, "s"), number(3, 0), number(4, 1), number(9, 1)]),
                    ],
                    vec![],
                ),
            ],
        ),
        (
            "socket's cgroup",
            rules(vec![vec![expr("socket", vec![number(1, 3), number(2, 1), number(3, 1)]), cmp(EQ, &[1; 8], 1)]]),
        ),
        ("table that stays", vec![Message { kind: NEW_TABLE, family: IPV4, attrs: vec![text(1, "t"), number(2, 4)] }]),
        (
            "log in every way at once",
            rules(vec![vec![expr(
                "log",
                vec![bytes(1, &[0, 3]), text(2, &"x".repeat(127)), number(3, 9), bytes(4, &[0, 5])],
            )]]),
        ),
    ]
}

/// Base chains with counters, as iptables-nft-restore(8) makes them, with rules that compare no more of an interface's name than it has.
pub fn of_iptables() -> Vec<Message> {
    let base = |name: &str, number_of: u32, policy: u32, [packets, bytes_of]: [u64; 2]| {
        let counters = vec![bytes(1, &bytes_of.to_be_bytes()), bytes(2, &packets.to_be_bytes())];
        let hook = nest(4, vec![number(1, number_of), number(2, 0)]);
        let attrs = vec![text(1, "t"), text(3, name), hook, number(5, policy), text(7, "filter"), nest(8, counters)];
        Message { kind: NEW_CHAIN, family: IPV4, attrs }
    };
    let mut messages = vec![table(), base("unseen", 2, 0, [0, 0]), base("c", 1, 1, [7, 500])];
    for (op, key, name) in [
        (EQ, 6, &b"eth0\0"[..]),
        (NEQ, 7, b"eth0\0"),
        (EQ, 6, b"fifteen-letters\0"),
        // `-i eth+`
        (EQ, 6, b"eth"),
        (EQ, 6, b"lo*\0"),
    ] {
        messages.push(rule(vec![meta(key, 1), cmp(op, name, 1), expr("counter", vec![]), verdict(DROP)], vec![]));
    }
    // `-i +`, and `-i + -s 198.51.100.1`
    messages.push(rule(vec![meta(6, 1), expr("counter", vec![]), verdict(DROP)], vec![]));
    messages.push(rule(vec![meta(7, 1), payload(1, 12, 4, 1), cmp(EQ, &[198, 51, 100, 1], 1), verdict(DROP)], vec![]));
    messages
}

/// A rule that no dump has room for, between two others, and a table behind it. The kernel takes it, and its dumps end before it as if
/// there were no more.
pub fn rule_too_large_to_dump() -> Vec<Message> {
    let comment: Vec<u8> = [&b"a comment of xtables"[..], &[0; 236]].concat();
    let large = vec![expr("match", vec![text(1, "comment"), number(2, 0), bytes(3, &comment)]); 128];
    let mut messages = rules(vec![vec![verdict(DROP)], large, vec![verdict(DROP)]]);
    let behind = |mut message: Message| {
        message.attrs[0] = text(1, "u");
        message
    };
    messages.extend([table(), chain(vec![]), rule(vec![verdict(DROP)], vec![])].map(behind));
    messages
}
