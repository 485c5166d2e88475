//! Transactions of every shape that the types allow, through libnftnl and back.

use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};
use ringfence::nft::*;
use ringfence::wire::netlink;
use ringfence::wire::nftables::{self, Batch};

use super::bytes::{join, says_something};

/// Makes a transaction of the bytes, encodes it, decodes every message and compares. What can't be encoded is an error, never a
/// write past a buffer: this is the target for AddressSanitizer.
pub fn transaction(bytes: &[u8]) {
    let mut source = Unstructured::new(bytes);
    let mut transaction = Transaction::new();
    for _ in 0..source.int_in_range(1..=8).unwrap_or(1) {
        let Ok((verb, object)) = operation(&mut source) else { break };
        transaction.push(verb, object);
    }
    if let Ok(true) = source.arbitrary() {
        transaction.bind(Generation(source.arbitrary().unwrap_or(1)));
    }
    let Ok(batch) = nftables::encode(&transaction) else { return };
    assert_eq!(batch.bound(), transaction.generation().filter(|generation| generation.0 != 0));
    compare(&transaction, &batch);
    // Where a complaint would point to.
    for _ in 0..4 {
        let (seq, offset) = source.arbitrary::<(u8, u32)>().unwrap_or_default();
        let _ = batch.locate(u32::from(seq), offset);
        let _ = batch.locate(u32::from(seq), offset % 512);
    }
}

fn compare(transaction: &Transaction, batch: &Batch) {
    let messages: Vec<_> = netlink::messages(batch.as_bytes()).collect::<std::result::Result<_, _>>().expect("framing");
    let mut found: Vec<Option<Object>> = transaction.operations().iter().map(|_| None).collect();
    for message in &messages[1..messages.len() - 1] {
        let operation = batch.operation(message.header.seq).expect("a message belongs to an operation");
        // Those that remove have no decoder: nobody but us sends them.
        let makes = matches!(transaction.operations()[operation].verb, Verb::Add | Verb::Create | Verb::Insert);
        let decoded = nftables::decode(message);
        if makes {
            let object = decoded.expect("our own message");
            found[operation] = Some(match found[operation].take() {
                Some(before) => join(before, object),
                None => object,
            });
        }
    }
    for (operation, found) in transaction.operations().iter().zip(found) {
        if matches!(operation.verb, Verb::Add | Verb::Create | Verb::Insert) {
            let mut wanted = operation.object.clone();
            if let Object::Rule(rule) = &mut wanted {
                rule.handle = None;
            }
            assert_eq!(found, Some(wanted).filter(says_something), "{operation}");
        }
    }
}

fn operation(u: &mut Unstructured<'_>) -> Result<(Verb, Object)> {
    let verbs = [Verb::Add, Verb::Create, Verb::Insert, Verb::Delete, Verb::Destroy, Verb::Flush];
    Ok((*u.choose(&verbs)?, object(u)?))
}

fn object(u: &mut Unstructured<'_>) -> Result<Object> {
    Ok(match u.int_in_range(0..=4)? {
        0 => {
            let [dormant, owner, persist] = u.arbitrary()?;
            let flags = TableFlags { dormant, owner, persist };
            Object::Table(Table { id: table(u)?, flags, comment: comment(u)? })
        }
        1 => Object::Chain(Chain { table: table(u)?, name: chain(u)?, base: maybe(u, base)?, comment: comment(u)? }),
        2 => Object::Rule(Rule {
            table: table(u)?,
            chain: chain(u)?,
            exprs: many(u, 130, expr)?,
            comment: comment(u)?,
            handle: u.arbitrary::<Option<u64>>()?.map(Handle),
        }),
        3 => {
            let [constant, interval, timeout] = u.arbitrary()?;
            Object::Set(Set {
                table: table(u)?,
                name: set(u)?,
                key: KeyType(many(u, 6, |u| u.choose(&Datatype::ALL).copied())?),
                flags: SetFlags { constant, interval, timeout },
                timeout: maybe(u, millis)?,
                size: u.arbitrary()?,
                comment: comment(u)?,
            })
        }
        _ => {
            let (table, set, mut elements) = (table(u)?, set(u)?, many(u, 64, element)?);
            // Now and then more than one message holds.
            let times = if u.ratio(1u8, 64u8)? { u.int_in_range(1..=2000)? } else { 1 };
            if let Some(first) = elements.first().cloned() {
                elements.extend(std::iter::repeat_n(first, times - 1));
            }
            Object::Elements { table, set, elements }
        }
    })
}

fn maybe<'a, T>(u: &mut Unstructured<'a>, make: fn(&mut Unstructured<'a>) -> Result<T>) -> Result<Option<T>> {
    if u.arbitrary()? { make(u).map(Some) } else { Ok(None) }
}

fn many<'a, T>(
    u: &mut Unstructured<'a>,
    most: usize,
    make: impl Fn(&mut Unstructured<'a>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut all = Vec::new();
    // Short ones mostly, and those at the limit.
    let count = if u.ratio(1u8, 16u8)? { u.int_in_range(0..=most)? } else { u.int_in_range(0..=most.min(8))? };
    for _ in 0..count {
        if u.is_empty() {
            break;
        }
        all.push(make(u)?);
    }
    Ok(all)
}

/// Text without NUL, of a length that the bytes say: short, or up to `most` bytes of one letter.
fn text(u: &mut Unstructured<'_>, most: usize) -> Result<String> {
    if u.ratio(1u8, 8u8)? {
        return Ok("n".repeat(u.int_in_range(0..=most)?));
    }
    let len = u.int_in_range(0..=12)?;
    let letters = String::from_utf8_lossy(u.bytes(len)?).replace('\0', "0");
    Ok(letters
        .chars()
        .scan(0, |len, c| {
            *len += c.len_utf8();
            (*len <= most).then_some(c)
        })
        .collect())
}

fn table(u: &mut Unstructured<'_>) -> Result<TableId> {
    let families = [Family::Ip, Family::Ip6, Family::Inet, Family::Arp, Family::Bridge, Family::Netdev];
    let family = *u.choose(&families)?;
    let name = TableName::new(&text(u, 255)?).or_else(|_| TableName::new("t"));
    Ok(TableId { family, name: name.map_err(|_| arbitrary::Error::IncorrectFormat)? })
}

fn chain(u: &mut Unstructured<'_>) -> Result<ChainName> {
    ChainName::new(&text(u, 255)?).map_err(|_| arbitrary::Error::IncorrectFormat)
}

fn set(u: &mut Unstructured<'_>) -> Result<SetName> {
    SetName::new(&text(u, 255)?).map_err(|_| arbitrary::Error::IncorrectFormat)
}

fn comment(u: &mut Unstructured<'_>) -> Result<Option<Comment>> {
    maybe(u, |u| Comment::new(&text(u, 128)?).map_err(|_| arbitrary::Error::IncorrectFormat))
}

/// The kernel's unit; finer ones are rounded up.
fn millis(u: &mut Unstructured<'_>) -> Result<Duration> {
    u.arbitrary().map(Duration::from_millis)
}

fn data(u: &mut Unstructured<'_>) -> Result<Data> {
    let len = u.int_in_range(0..=Data::MAX_LEN)?;
    let bytes = u.bytes(len.min(u.len()))?;
    Data::new(bytes).map_err(|_| arbitrary::Error::IncorrectFormat)
}

fn register(u: &mut Unstructured<'_>) -> Result<Register> {
    Register::slot(u.int_in_range(0..=15)?).ok_or(arbitrary::Error::IncorrectFormat)
}

fn base(u: &mut Unstructured<'_>) -> Result<BaseChain> {
    let hooks =
        [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting, Hook::Ingress, Hook::Egress];
    Ok(BaseChain {
        kind: *u.choose(&[ChainType::Filter, ChainType::Nat, ChainType::Route])?,
        hook: *u.choose(&hooks)?,
        priority: Priority(u.arbitrary()?),
        policy: *u.choose(&[ChainPolicy::Accept, ChainPolicy::Drop])?,
        devices: many(u, 258, |u| {
            InterfaceName::new(&format!("dev{}", u.arbitrary::<u16>()?)).map_err(|_| arbitrary::Error::IncorrectFormat)
        })?,
    })
}

fn element(u: &mut Unstructured<'_>) -> Result<Element> {
    Ok(Element {
        key: data(u)?,
        interval_end: u.arbitrary()?,
        // A timeout of nothing is none.
        timeout: maybe(u, millis)?.filter(|timeout| !timeout.is_zero()),
        comment: comment(u)?,
    })
}

fn verdict(u: &mut Unstructured<'_>) -> Result<Verdict> {
    Ok(match u.int_in_range(0..=5)? {
        0 => Verdict::Accept,
        1 => Verdict::Drop,
        2 => Verdict::Return,
        3 => Verdict::Continue,
        4 => Verdict::Jump(chain(u)?),
        _ => Verdict::Goto(chain(u)?),
    })
}

fn expr(u: &mut Unstructured<'_>) -> Result<Expr> {
    let keys = [
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
    let ops = [CmpOp::Eq, CmpOp::Neq, CmpOp::Lt, CmpOp::Lte, CmpOp::Gt, CmpOp::Gte];
    let rejects = [
        Reject::TcpReset,
        Reject::Icmpx(RejectCode::NoRoute),
        Reject::Icmpx(RejectCode::PortUnreachable),
        Reject::Icmpx(RejectCode::HostUnreachable),
        Reject::Icmpx(RejectCode::AdminProhibited),
    ];
    let bases = [PayloadBase::LinkLayer, PayloadBase::Network, PayloadBase::Transport];
    Ok(match u.int_in_range(0..=14)? {
        0 => {
            Expr::Payload { base: *u.choose(&bases)?, offset: u.arbitrary()?, len: u.arbitrary()?, dreg: register(u)? }
        }
        1 => Expr::Meta { key: *u.choose(&keys)?, dreg: register(u)? },
        2 => Expr::Ct {
            key: *u.choose(&[CtKey::State, CtKey::Status])?,
            direction: maybe(u, |u| u.choose(&[CtDirection::Original, CtDirection::Reply]).copied())?,
            dreg: register(u)?,
        },
        3 => Expr::Cmp { op: *u.choose(&ops)?, sreg: register(u)?, data: data(u)? },
        4 => Expr::Range { negated: u.arbitrary()?, sreg: register(u)?, from: data(u)?, to: data(u)? },
        5 => Expr::Bitwise {
            sreg: register(u)?,
            dreg: register(u)?,
            len: u.arbitrary()?,
            op: BitwiseOp::MaskXor { mask: data(u)?, xor: data(u)? },
        },
        6 => Expr::Lookup { set: set(u)?, sreg: register(u)?, negated: u.arbitrary()? },
        7 => Expr::Immediate { dreg: register(u)?, data: data(u)? },
        8 => Expr::Verdict(verdict(u)?),
        9 => Expr::Counter { packets: u.arbitrary()?, bytes: u.arbitrary()? },
        10 => Expr::Log(Log {
            group: u.arbitrary()?,
            prefix: maybe(u, |u| text(u, 130))?,
            snaplen: u.arbitrary()?,
            queue_threshold: u.arbitrary()?,
        }),
        11 => Expr::Reject(*u.choose(&rejects)?),
        12 => Expr::Reject(Reject::Icmp(u.arbitrary()?)),
        13 => Expr::Masquerade,
        _ => {
            let (rate, seconds, burst, over) = Arbitrary::arbitrary(u)?;
            Expr::Limit { rate, seconds, burst, over }
        }
    })
}
