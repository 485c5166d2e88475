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
    Ok(match u.int_in_range(0..=6)? {
        0 => {
            let [dormant, owner, persist] = u.arbitrary()?;
            let flags = TableFlags { dormant, owner, persist };
            Object::Table(Table { flags, comment: comment(u)?, ..Table::new(table(u)?) })
        }
        1 => {
            let [offload, binding] = u.arbitrary()?;
            let plain = Chain::new(&table(u)?, &chain(u)?);
            let flags = ChainFlags { offload, binding };
            Object::Chain(Chain { base: maybe(u, base)?, flags, comment: comment(u)?, ..plain })
        }
        2 => {
            let plain = Rule::new(&table(u)?, &chain(u)?);
            let exprs = many(u, 130, expr)?;
            Object::Rule(Rule {
                exprs,
                comment: comment(u)?,
                handle: u.arbitrary::<Option<u64>>()?.map(Handle),
                ..plain
            })
        }
        3 => {
            let [anonymous, constant, interval, timeout, dynamic, expressions] = u.arbitrary()?;
            let exprs = many(u, 3, simple)?;
            // Several take the flag with them.
            let expressions = expressions || exprs.len() > 1;
            let plain = Set::new(&table(u)?, &set(u)?, key_type(u)?);
            Object::Set(Set {
                data: maybe(u, map_to)?,
                flags: SetFlags { anonymous, constant, interval, timeout, dynamic, expressions },
                timeout: maybe(u, millis)?,
                gc_interval: maybe(u, |u| u.arbitrary::<u32>().map(|time| Duration::from_millis(time.into())))?,
                size: u.arbitrary()?,
                policy: if u.arbitrary()? { SetPolicy::Memory } else { SetPolicy::Performance },
                exprs,
                comment: comment(u)?,
                ..plain
            })
        }
        4 => {
            let plain = StatefulObject::new(&table(u)?, &object_name(u)?, state(u)?);
            Object::Stateful(StatefulObject { comment: comment(u)?, ..plain })
        }
        5 => Object::Flowtable(Flowtable {
            table: table(u)?,
            name: FlowtableName::new(&text(u, 255)?).map_err(|_| arbitrary::Error::IncorrectFormat)?,
            priority: Priority(u.arbitrary()?),
            devices: many(u, 8, device)?,
            offload: u.arbitrary()?,
            counter: u.arbitrary()?,
            extra: Extra::default(),
        }),
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

pub(super) fn key_type(u: &mut Unstructured<'_>) -> Result<KeyType> {
    many(u, 6, |u| u.choose(Datatype::ALL).copied()).map(KeyType)
}

pub(super) fn map_to(u: &mut Unstructured<'_>) -> Result<MapTo> {
    Ok(match u.int_in_range(0..=2)? {
        0 => MapTo::Verdict,
        1 => MapTo::Object((*u.choose(KnownObject::ALL)?).into()),
        _ => MapTo::Value(key_type(u)?),
    })
}

fn object_name(u: &mut Unstructured<'_>) -> Result<ObjectName> {
    ObjectName::new(&text(u, 255)?).map_err(|_| arbitrary::Error::IncorrectFormat)
}

pub(super) fn state(u: &mut Unstructured<'_>) -> Result<State> {
    Ok(match u.int_in_range(0..=8)? {
        0 => State::Counter { packets: u.arbitrary()?, bytes: u.arbitrary()? },
        1 => State::Quota(quota(u)?),
        2 => State::Limit(limit(u)?),
        3 => State::Connlimit { count: u.arbitrary()?, over: u.arbitrary()? },
        4 => State::CtHelper(CtHelper { helper: text(u, 16)?, l3proto: u.arbitrary()?, l4proto: u.arbitrary()? }),
        5 => State::CtTimeout(CtTimeout {
            l3proto: u.arbitrary()?,
            l4proto: u.arbitrary()?,
            // The upper two bits of an attribute's number are flags.
            seconds: many(u, 12, |u| Ok((u.int_in_range(1..=0x3fff)?, u.arbitrary()?)))?,
        }),
        6 => State::CtExpectation(CtExpectation {
            l3proto: u.arbitrary()?,
            l4proto: u.arbitrary()?,
            dport: u.arbitrary()?,
            timeout: u.arbitrary::<u32>().map(|time| Duration::from_millis(time.into()))?,
            size: u.arbitrary()?,
        }),
        7 => State::Synproxy(synproxy(u)?),
        _ => State::SecMark(text(u, 200)?),
    })
}

pub(super) fn maybe<'a, T>(
    u: &mut Unstructured<'a>,
    make: fn(&mut Unstructured<'a>) -> Result<T>,
) -> Result<Option<T>> {
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

fn device(u: &mut Unstructured<'_>) -> Result<InterfaceName> {
    InterfaceName::new(&format!("dev{}", u.arbitrary::<u16>()?)).map_err(|_| arbitrary::Error::IncorrectFormat)
}

fn base(u: &mut Unstructured<'_>) -> Result<BaseChain> {
    let hooks =
        [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting, Hook::Ingress, Hook::Egress];
    Ok(BaseChain {
        kind: *u.choose(&[ChainType::Filter, ChainType::Nat, ChainType::Route])?,
        hook: *u.choose(&hooks)?,
        priority: Priority(u.arbitrary()?),
        policy: *u.choose(&[ChainPolicy::Accept, ChainPolicy::Drop])?,
        devices: many(u, 258, device)?,
    })
}

pub(super) fn element(u: &mut Unstructured<'_>) -> Result<Element> {
    let (interval_end, catch_all) = (u.arbitrary()?, u.ratio(1u8, 8u8)?);
    // A catch-all element has no key.
    let key = if catch_all { Data::default() } else { data(u)? };
    Ok(Element {
        key_end: maybe(u, data)?,
        interval_end,
        catch_all,
        data: maybe(u, |u| {
            Ok(match u.int_in_range(0..=2)? {
                0 => ElementData::Verdict(verdict(u)?),
                1 => ElementData::Object(object_name(u)?),
                _ => ElementData::Value(data(u)?),
            })
        })?,
        // A timeout of nothing is none, and the end of a range has none of its own.
        timeout: maybe(u, millis)?.filter(|timeout| !timeout.is_zero()),
        expires: maybe(u, millis)?.filter(|expires| !interval_end && !expires.is_zero()),
        exprs: many(u, 3, simple)?,
        comment: comment(u)?,
        ..Element::new(key)
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

fn limit(u: &mut Unstructured<'_>) -> Result<Limit> {
    let (rate, seconds, burst, over, bytes) = Arbitrary::arbitrary(u)?;
    Ok(Limit { rate, seconds, burst, over, bytes })
}

fn quota(u: &mut Unstructured<'_>) -> Result<Quota> {
    let (bytes, used, over) = Arbitrary::arbitrary(u)?;
    Ok(Quota { bytes, used, over })
}

fn synproxy(u: &mut Unstructured<'_>) -> Result<Synproxy> {
    let (mss, wscale, flags) = Arbitrary::arbitrary(u)?;
    Ok(Synproxy { mss, wscale, flags })
}

/// What elements and sets may hold.
pub(super) fn simple(u: &mut Unstructured<'_>) -> Result<Expr> {
    Ok(match u.int_in_range(0..=4)? {
        0 => Expr::Counter { packets: u.arbitrary()?, bytes: u.arbitrary()? },
        1 => Expr::Limit(limit(u)?),
        2 => Expr::Quota(quota(u)?),
        3 => Expr::Connlimit { count: u.arbitrary()?, over: u.arbitrary()? },
        _ => Expr::Last { set: u.arbitrary()?, milliseconds: u.arbitrary()? },
    })
}

fn range(u: &mut Unstructured<'_>) -> Result<RegisterRange> {
    Ok(RegisterRange { min: register(u)?, max: register(u)? })
}

fn ports(u: &mut Unstructured<'_>) -> Result<NatPorts> {
    Ok(NatPorts { ports: maybe(u, range)?, flags: NatFlags(u.arbitrary()?) })
}

fn family(u: &mut Unstructured<'_>) -> Result<Family> {
    u.choose(&[Family::Ip, Family::Ip6, Family::Inet]).copied()
}

fn xt(u: &mut Unstructured<'_>) -> Result<Xt> {
    Ok(Xt { name: text(u, 28)?, revision: u.arbitrary()?, info: Bytes(u.arbitrary()?) })
}

pub(super) fn expr(u: &mut Unstructured<'_>) -> Result<Expr> {
    let direction = |u: &mut Unstructured<'_>| maybe(u, |u| u.choose(CtDirection::ALL).copied());
    Ok(match u.int_in_range(0..=47)? {
        0 => Expr::Payload {
            base: *u.choose(PayloadBase::ALL)?,
            offset: u.arbitrary()?,
            len: u.arbitrary()?,
            dreg: register(u)?,
        },
        1 => Expr::PayloadWrite {
            base: *u.choose(PayloadBase::ALL)?,
            offset: u.arbitrary()?,
            len: u.arbitrary()?,
            sreg: register(u)?,
            checksum: Checksum { kind: u.arbitrary()?, offset: u.arbitrary()?, flags: u.arbitrary()? },
        },
        2 => Expr::Meta { key: *u.choose(MetaKey::ALL)?, dreg: register(u)? },
        3 => Expr::MetaSet { key: *u.choose(MetaKey::ALL)?, sreg: register(u)? },
        4 => Expr::Ct { key: *u.choose(CtKey::ALL)?, direction: direction(u)?, dreg: register(u)? },
        5 => Expr::CtSet { key: *u.choose(CtKey::ALL)?, direction: direction(u)?, sreg: register(u)? },
        6 => Expr::Rt { key: *u.choose(RtKey::ALL)?, dreg: register(u)? },
        7 => Expr::Socket { key: *u.choose(SocketKey::ALL)?, level: u.arbitrary()?, dreg: register(u)? },
        8 => Expr::Fib { result: *u.choose(FibResult::ALL)?, flags: FibFlags(u.arbitrary()?), dreg: register(u)? },
        9 => Expr::Exthdr {
            op: *u.choose(ExthdrOp::ALL)?,
            kind: u.arbitrary()?,
            offset: u.arbitrary()?,
            len: u.arbitrary()?,
            present: u.arbitrary()?,
            dreg: register(u)?,
        },
        10 => Expr::ExthdrWrite {
            op: *u.choose(ExthdrOp::ALL)?,
            kind: u.arbitrary()?,
            offset: u.arbitrary()?,
            len: u.arbitrary()?,
            sreg: register(u)?,
        },
        11 => Expr::ExthdrReset { op: *u.choose(ExthdrOp::ALL)?, kind: u.arbitrary()? },
        12 => Expr::Hash {
            of: if u.arbitrary()? {
                Hash::Symmetric
            } else {
                Hash::Jenkins { sreg: register(u)?, len: u.arbitrary()?, seed: u.arbitrary()? }
            },
            modulus: u.arbitrary()?,
            offset: u.arbitrary()?,
            dreg: register(u)?,
        },
        13 => Expr::Numgen {
            kind: *u.choose(NumgenKind::ALL)?,
            modulus: u.arbitrary()?,
            offset: u.arbitrary()?,
            dreg: register(u)?,
        },
        14 => Expr::Osf { ttl: u.arbitrary()?, flags: u.arbitrary()?, dreg: register(u)? },
        15 => Expr::Tunnel { key: *u.choose(TunnelKey::ALL)?, mode: *u.choose(TunnelMode::ALL)?, dreg: register(u)? },
        16 => Expr::Xfrm {
            key: *u.choose(XfrmKey::ALL)?,
            direction: *u.choose(XfrmDirection::ALL)?,
            spnum: u.arbitrary()?,
            dreg: register(u)?,
        },
        17 => Expr::Cmp { op: *u.choose(CmpOp::ALL)?, sreg: register(u)?, data: data(u)? },
        18 => Expr::Range { negated: u.arbitrary()?, sreg: register(u)?, from: data(u)?, to: data(u)? },
        19 => Expr::Bitwise {
            sreg: register(u)?,
            dreg: register(u)?,
            len: u.arbitrary()?,
            op: match u.int_in_range(0..=5)? {
                0 => BitwiseOp::MaskXor { mask: data(u)?, xor: data(u)? },
                1 => BitwiseOp::ShiftLeft(data(u)?),
                2 => BitwiseOp::ShiftRight(data(u)?),
                3 => BitwiseOp::And(register(u)?),
                4 => BitwiseOp::Or(register(u)?),
                _ => BitwiseOp::Xor(register(u)?),
            },
        },
        20 => Expr::Byteorder {
            sreg: register(u)?,
            dreg: register(u)?,
            op: *u.choose(ByteorderOp::ALL)?,
            len: u.arbitrary()?,
            size: u.arbitrary()?,
        },
        21 => Expr::Lookup { set: set(u)?, sreg: register(u)?, negated: u.arbitrary()? },
        22 => Expr::Map { set: set(u)?, sreg: register(u)?, dreg: register(u)? },
        23 => Expr::VerdictMap { set: set(u)?, sreg: register(u)? },
        24 => Expr::Dynset(Dynset {
            set: set(u)?,
            op: *u.choose(DynsetOp::ALL)?,
            key: register(u)?,
            data: maybe(u, register)?,
            timeout: maybe(u, millis)?.filter(|timeout| !timeout.is_zero()),
            negated: u.arbitrary()?,
            exprs: many(u, 3, simple)?,
        }),
        25 => Expr::Immediate { dreg: register(u)?, data: data(u)? },
        26 => Expr::Verdict(verdict(u)?),
        27 => Expr::Log(Log {
            group: u.arbitrary()?,
            prefix: maybe(u, |u| text(u, 130))?,
            snaplen: u.arbitrary()?,
            queue_threshold: u.arbitrary()?,
        }),
        28 => Expr::Syslog(Syslog {
            prefix: maybe(u, |u| text(u, 130))?,
            level: maybe(u, |u| u.choose(LogLevel::ALL).copied())?,
            flags: LogFlags(u.arbitrary()?),
        }),
        29 => Expr::Reject(match u.int_in_range(0..=2)? {
            0 => Reject::TcpReset,
            1 => Reject::Icmpx(*u.choose(RejectCode::ALL)?),
            _ => Reject::Icmp(u.arbitrary()?),
        }),
        30 => Expr::Masquerade(ports(u)?),
        31 => Expr::Redirect(ports(u)?),
        32 => Expr::Nat(Nat {
            kind: *u.choose(NatKind::ALL)?,
            family: family(u)?,
            addresses: maybe(u, range)?,
            ports: maybe(u, range)?,
            flags: NatFlags(u.arbitrary()?),
        }),
        33 => Expr::Tproxy { family: maybe(u, family)?, address: maybe(u, register)?, port: maybe(u, register)? },
        34 => Expr::ObjectRef { kind: ObjectType::from_wire(u.arbitrary()?), name: object_name(u)? },
        35 => Expr::ObjectMap { set: set(u)?, sreg: register(u)? },
        36 => Expr::Notrack,
        37 => Expr::Queue {
            to: if u.arbitrary()? {
                QueueNumber::Register(register(u)?)
            } else {
                QueueNumber::Range { first: u.arbitrary()?, total: u.arbitrary()? }
            },
            flags: QueueFlags(u.arbitrary()?),
        },
        38 => Expr::Dup { address: maybe(u, register)?, device: maybe(u, register)? },
        39 => Expr::Fwd { device: register(u)?, neighbour: maybe(u, |u| Ok((register(u)?, family(u)?)))? },
        40 => Expr::FlowOffload {
            flowtable: FlowtableName::new(&text(u, 255)?).map_err(|_| arbitrary::Error::IncorrectFormat)?,
        },
        41 => Expr::Synproxy(synproxy(u)?),
        42 => Expr::Match(xt(u)?),
        43 => Expr::Target(xt(u)?),
        44 => Expr::Raw { name: format!("new{}", u.arbitrary::<u8>()?), data: maybe(u, |u| u.arbitrary().map(Bytes))? },
        _ => simple(u)?,
    })
}
