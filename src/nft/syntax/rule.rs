//! Shows a rule from its expressions, by following the registers.
//!
//! nft(8) does the same when it lists, and the kernel keeps no more than the expressions. The text that comes out is a rule
//! that nft(8) makes the same matches and statements of. What may differ is where no packet can tell: the numbers of
//! registers, a field loaded again for a second comparison, `(x & m) ^ y == z` written as `x & m == y ^ z`, a range
//! written as its two bounds, equal bytes side by side compared at once, and the byteorder expression that nft 1.0.6 puts
//! behind a one-byte field in front of an interval set.

use super::field::{Context, Field, Network, Source};
use super::value::{self, Kind};
use super::{Sets, word};
use crate::nft::{
    BitwiseOp, CmpOp, Data, Expr, Family, Log, MetaKey, PayloadBase, Register, Reject, RejectCode, Rule, SetName,
    Verdict,
};

/// The rule in nft(8) syntax, without its comment; or why it has none.
pub(super) fn show(rule: &Rule, sets: &Sets<'_>) -> Result<String, String> {
    let mut reader = Reader {
        rule,
        sets,
        context: Context::new(rule.table.family),
        registers: [Slot::Empty; 16],
        values: Vec::new(),
        words: Vec::new(),
        neighbour: None,
    };
    reader.read()?;
    if reader.words.is_empty() {
        return Err("nft(8) has no empty rule".to_owned());
    }
    Ok(reader.words.join(" "))
}

/// What four bytes of the register file hold.
#[derive(Debug, Clone, Copy)]
enum Slot {
    Empty,
    /// The beginning of a value.
    Start(usize),
    /// More of the value that began before.
    Rest(usize),
}

/// A value that was loaded.
#[derive(Debug, Clone)]
struct Value {
    source: Source,
    width: usize,
    mask: Option<(Data, Data)>,
    used: bool,
}

struct Reader<'a> {
    rule: &'a Rule,
    sets: &'a Sets<'a>,
    context: Context,
    registers: [Slot; 16],
    values: Vec<Value>,
    words: Vec<String>,
    /// The last comparison with bytes of the packet, and how many words there were behind it.
    neighbour: Option<(usize, PayloadBase, u32, u32, CmpOp)>,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), String> {
        let mut exprs = self.rule.exprs.iter().peekable();
        let mut ended = false;
        while let Some(expr) = exprs.next() {
            if ended {
                return Err("nft(8) takes nothing behind the statement that ends a rule".to_owned());
            }
            match expr {
                Expr::Payload { base, offset, len, dreg } => {
                    let source = Source::Payload { base: *base, offset: *offset, len: *len };
                    self.load(source, *len as usize, None, *dreg)?;
                }
                Expr::Meta { key, dreg } => self.load(Source::Meta(*key), meta_width(*key), None, *dreg)?,
                Expr::Ct { key, direction, dreg } => self.load(Source::Ct(*key, *direction), 4, None, *dreg)?,
                Expr::Bitwise { sreg, dreg, len, op } => self.mask(*sreg, *dreg, *len, op)?,
                Expr::Cmp { op, sreg, data } => {
                    // nft(8) makes two comparisons of one register out of a range.
                    let upper = match (op, exprs.peek()) {
                        (CmpOp::Gte, Some(Expr::Cmp { op: CmpOp::Lte, sreg: same, data: upper })) if same == sreg => {
                            self.between(*sreg, false, data, upper)
                        }
                        _ => None,
                    };
                    match upper {
                        Some(text) => {
                            exprs.next();
                            self.words.push(text);
                        }
                        None => self.compare(*sreg, *op, data)?,
                    }
                }
                Expr::Range { negated, sreg, from, to } => {
                    let text = self.between(*sreg, *negated, from, to);
                    self.words.push(text.ok_or("nft(8) has no way to write this range")?);
                }
                Expr::Lookup { set, sreg, negated } => self.lookup(set, *sreg, *negated)?,
                Expr::Immediate { .. } => {
                    return Err("nft(8) writes a constant only where a statement takes it".to_owned());
                }
                Expr::Verdict(_)
                | Expr::Counter { .. }
                | Expr::Log(_)
                | Expr::Reject(_)
                | Expr::Masquerade
                | Expr::Limit { .. } => ended = self.statement(expr)?,
            }
        }
        self.all_used()
    }

    /// A load ends the rule when the packet is too short, so one that nothing uses may not vanish, nor move past a statement.
    fn all_used(&self) -> Result<(), String> {
        match self.values.iter().find(|value| !value.used) {
            Some(value) => {
                Err(format!("it loads {:?} and does not compare it before the next statement", value.source))
            }
            None => Ok(()),
        }
    }

    fn load(&mut self, source: Source, width: usize, mask: Option<(Data, Data)>, dreg: Register) -> Result<(), String> {
        let (start, slots) = (usize::from(dreg.index()), width.div_ceil(4));
        if width == 0 || start + slots > self.registers.len() {
            return Err(format!("{source:?} of {width} bytes does not fit the registers from {start} on"));
        }
        for slot in start..start + slots {
            if let Slot::Start(old) | Slot::Rest(old) = self.registers[slot] {
                if !self.values[old].used {
                    return Err(format!("it loads {:?} and overwrites it unused", self.values[old].source));
                }
                for other in &mut self.registers {
                    if matches!(*other, Slot::Start(value) | Slot::Rest(value) if value == old) {
                        *other = Slot::Empty;
                    }
                }
            }
        }
        let value = self.values.len();
        self.values.push(Value { source, width, mask, used: false });
        self.registers[start] = Slot::Start(value);
        self.registers[start + 1..start + slots].fill(Slot::Rest(value));
        Ok(())
    }

    /// The value that starts in a register. It counts as used from here on.
    fn take(&mut self, slot: usize) -> Result<Value, String> {
        let Some(Slot::Start(value)) = self.registers.get(slot).copied() else {
            return Err(format!("it reads register {slot}, where no value starts"));
        };
        self.values[value].used = true;
        Ok(self.values[value].clone())
    }

    fn mask(&mut self, sreg: Register, dreg: Register, len: u32, op: &BitwiseOp) -> Result<(), String> {
        let BitwiseOp::MaskXor { mask, xor } = op;
        let value = self.take(sreg.index().into())?;
        if value.mask.is_some() {
            return Err("nft(8) has no way to write a mask on a masked value".to_owned());
        }
        if [len as usize, mask.len(), xor.len()] != [value.width; 3] {
            return Err(format!("it masks {len} of the {} bytes of {:?}", value.width, value.source));
        }
        self.load(value.source, value.width, Some((mask.clone(), xor.clone())), dreg)
    }

    /// The names a value may go by, best first.
    fn fields(&self, source: Source) -> impl Iterator<Item = Field> + use<> {
        [self.context.field(source), self.context.raw(source)].into_iter().flatten()
    }

    fn compare(&mut self, sreg: Register, op: CmpOp, data: &Data) -> Result<(), String> {
        let value = self.take(sreg.index().into())?;
        let text = match &value.mask {
            None => self.fields(value.source).find_map(|field| plain(&field, value.width, op, data.as_bytes())),
            Some((mask, xor)) if data.len() == value.width => {
                // (x ^ y) == z is x == (y ^ z), which is what nft(8) makes of it. Order has no such rule.
                let flipped: Vec<u8> = data.as_bytes().iter().zip(xor.as_bytes()).map(|(a, b)| a ^ b).collect();
                let plain_xor = xor.as_bytes().iter().all(|byte| *byte == 0);
                (plain_xor || matches!(op, CmpOp::Eq | CmpOp::Neq))
                    .then(|| {
                        self.nibble(value.source, mask.as_bytes(), op, &flipped).or_else(|| {
                            self.fields(value.source).find_map(|field| masked(&field, mask.as_bytes(), op, &flipped))
                        })
                    })
                    .flatten()
            }
            Some(_) => None,
        };
        let text = text.ok_or_else(|| format!("nft(8) has no way to compare {:?} with {data:?}", value.source))?;
        self.words.push(text);
        if let (Source::Payload { base, offset, len }, None) = (value.source, &value.mask) {
            self.keep_apart(base, offset, len, op)?;
        }
        if op == CmpOp::Eq && value.mask.is_none() {
            self.context.learn(value.source, data)?;
        }
        Ok(())
    }

    /// Refuses two comparisons side by side of bytes side by side that nft 1.0.6 joins wrongly: it makes `ab != xy`, which
    /// is "one of them differs", of `a != x b != y`, which is "both differ". Two equalities it may join.
    fn keep_apart(&mut self, base: PayloadBase, offset: u32, len: u32, op: CmpOp) -> Result<(), String> {
        let before = self.neighbour.replace((self.words.len(), base, offset, len, op));
        match before {
            Some((words, same_base, start, length, sign))
                if words + 1 == self.words.len()
                    && same_base == base
                    && (start.saturating_add(length) == offset || offset.saturating_add(len) == start)
                    && (sign, op) != (CmpOp::Eq, CmpOp::Eq) =>
            {
                Err("nft 1.0.6 would join two comparisons of neighbouring fields, and mean another thing".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The two halves of the first byte of an IPv4 header have names.
    fn nibble(&self, source: Source, mask: &[u8], op: CmpOp, data: &[u8]) -> Option<String> {
        let first = Source::Payload { base: PayloadBase::Network, offset: 0, len: 1 };
        if self.context.network != Some(Network::Ip) || source != first {
            return None;
        }
        match (mask, data) {
            ([0x0f], [number @ 0..=0x0f]) => Some(format!("ip hdrlength{} {number}", sign(op))),
            ([0xf0], [number]) if number & 0x0f == 0 && matches!(op, CmpOp::Eq | CmpOp::Neq) => {
                Some(format!("ip version{} {}", sign(op), number >> 4))
            }
            _ => None,
        }
    }

    fn between(&mut self, sreg: Register, negated: bool, from: &Data, to: &Data) -> Option<String> {
        let Some(Slot::Start(index)) = self.registers.get(usize::from(sreg.index())).copied() else { return None };
        let value = self.values[index].clone();
        if value.mask.is_some() || [from.len(), to.len()] != [value.width; 2] || from >= to {
            return None;
        }
        let field = self.fields(value.source).find(|field| field.kind.ordered())?;
        let (from, to) = (field.kind.show(from.as_bytes())?, field.kind.show(to.as_bytes())?);
        self.values[index].used = true;
        Some(format!("{}{} {from}-{to}", field.text, if negated { " !=" } else { "" }))
    }

    fn lookup(&mut self, name: &SetName, sreg: Register, negated: bool) -> Result<(), String> {
        let set = self.sets.find(&self.rule.table, name).ok_or_else(|| {
            format!(
                "the set {} is not in the ruleset, so the length of its key is unknown",
                word::literal(name.as_str())
            )
        })?;
        let shown_name = word::name(name.as_str())?;
        let mut slot = usize::from(sreg.index());
        let mut fields = Vec::new();
        for datatype in &set.key.0 {
            let value = self.take(slot)?;
            slot += value.width.div_ceil(4);
            // A set wants the type that it was declared with, which a field shown by its place does not have.
            let field = self
                .context
                .field(value.source)
                .filter(|field| field.kind == Kind::of(*datatype) && value.width == datatype.size())
                .ok_or_else(|| {
                    format!("nft(8) does not take {:?} here for a key of {}", value.source, datatype.name())
                })?;
            if set.flags.interval && matches!(field.kind, Kind::Mark | Kind::IfIndex) {
                return Err(format!("nft(8) turns the bytes of {} around for a set of ranges", field.text));
            }
            fields.push(match &value.mask {
                None => field.text,
                Some((mask, xor)) if xor.as_bytes().iter().all(|byte| *byte == 0) && field.kind.maskable() => {
                    let mask = field.kind.show_masked(mask.as_bytes()).ok_or("nft(8) has no way to write this mask")?;
                    format!("{} & {mask}", field.text)
                }
                Some(_) => return Err("nft(8) has no way to write this mask in front of a set".to_owned()),
            });
        }
        if fields.is_empty() {
            return Err("the key of the set has no type".to_owned());
        }
        self.words.push(format!("{}{} @{shown_name}", fields.join(" . "), if negated { " !=" } else { "" }));
        Ok(())
    }

    /// Shows a statement. Says whether it ends the rule.
    fn statement(&mut self, expr: &Expr) -> Result<bool, String> {
        self.all_used()?;
        let (text, ends) = match expr {
            Expr::Verdict(verdict) => match verdict {
                Verdict::Accept => ("accept".to_owned(), true),
                Verdict::Drop => ("drop".to_owned(), true),
                Verdict::Return => ("return".to_owned(), true),
                Verdict::Continue => ("continue".to_owned(), false),
                Verdict::Jump(chain) => (format!("jump {}", word::name(chain.as_str())?), true),
                Verdict::Goto(chain) => (format!("goto {}", word::name(chain.as_str())?), true),
            },
            Expr::Counter { packets, bytes } => (format!("counter packets {packets} bytes {bytes}"), false),
            Expr::Log(log) => (show_log(log)?, false),
            Expr::Reject(reject) => (self.reject(*reject)?, true),
            Expr::Masquerade if matches!(self.rule.table.family, Family::Inet | Family::Ip | Family::Ip6) => {
                ("masquerade".to_owned(), true)
            }
            Expr::Masquerade => return Err("nft(8) takes masquerade in tables for IPv4 and IPv6 alone".to_owned()),
            Expr::Limit { rate, seconds, burst, over } => (show_limit(*rate, *seconds, *burst, *over)?, false),
            other => return Err(format!("nft(8) has no way to write {other:?}")),
        };
        self.words.push(text);
        Ok(ends)
    }

    fn reject(&self, reject: Reject) -> Result<String, String> {
        let icmp = matches!(self.rule.table.family, Family::Inet | Family::Bridge | Family::Netdev);
        match (reject, self.context.network) {
            (Reject::TcpReset, _) if self.context.transport == Some(6) => Ok("reject with tcp reset".to_owned()),
            (Reject::TcpReset, _) => Err("nft(8) adds a match of TCP to a reset where the rule has none".to_owned()),
            (Reject::Icmpx(code), _) if icmp => {
                let code = match code {
                    RejectCode::NoRoute => "no-route",
                    RejectCode::PortUnreachable => "port-unreachable",
                    RejectCode::HostUnreachable => "host-unreachable",
                    RejectCode::AdminProhibited => "admin-prohibited",
                };
                Ok(format!("reject with icmpx {code}"))
            }
            (Reject::Icmpx(_), _) => Err("nft(8) takes icmpx in tables for both families alone".to_owned()),
            // It reads 255 as "not said" and sends code 0.
            (Reject::Icmp(255), _) => Err("nft(8) has no way to write a refusal with code 255".to_owned()),
            (Reject::Icmp(code), Some(Network::Ip)) => Ok(format!("reject with icmp {}", icmp_code(code))),
            (Reject::Icmp(code), Some(Network::Ip6)) => Ok(format!("reject with icmpv6 {}", icmpv6_code(code))),
            (Reject::Icmp(_), _) => {
                Err("nft(8) adds a match of the family to an ICMP refusal where the rule has none".to_owned())
            }
        }
    }
}

/// Bytes that a meta expression loads.
fn meta_width(key: MetaKey) -> usize {
    match key {
        MetaKey::NfProto | MetaKey::L4Proto => 1,
        MetaKey::Protocol => 2,
        MetaKey::Iif | MetaKey::Oif | MetaKey::Mark | MetaKey::SkUid => 4,
        MetaKey::IifName | MetaKey::OifName => 16,
    }
}

/// The operator behind a field. Equality is left unsaid.
fn sign(op: CmpOp) -> &'static str {
    match op {
        CmpOp::Eq => "",
        CmpOp::Neq => " !=",
        CmpOp::Lt => " <",
        CmpOp::Lte => " <=",
        CmpOp::Gt => " >",
        CmpOp::Gte => " >=",
    }
}

/// `field value`, `field != value`, `field < value`.
fn plain(field: &Field, width: usize, op: CmpOp, data: &[u8]) -> Option<String> {
    let equality = matches!(op, CmpOp::Eq | CmpOp::Neq);
    if !(equality || field.kind.ordered()) || (data.len() != width && field.kind != Kind::IfName) {
        return None;
    }
    // Left unsaid, equality with bits would be read as "any of them".
    let sign = if op == CmpOp::Eq && field.kind.flags().is_some() { " ==" } else { sign(op) };
    Some(format!("{}{sign} {}", field.text, field.kind.show(data)?))
}

/// `field & mask == value`, or shorter where nft(8) has a shorter form for the same expressions.
fn masked(field: &Field, mask: &[u8], op: CmpOp, data: &[u8]) -> Option<String> {
    let equality = matches!(op, CmpOp::Eq | CmpOp::Neq);
    if !field.kind.maskable() || !(equality || field.kind.ordered()) {
        return None;
    }
    let conntrack = matches!(field.kind, Kind::CtState | Kind::CtStatus);
    if let (true, CmpOp::Neq, Some(names)) = (conntrack, op, field.kind.flag_names(mask))
        && data.iter().all(|byte| *byte == 0)
    {
        return Some(format!("{} {}", field.text, names.join(",")));
    }
    if let (true, Kind::Ipv4 | Kind::Ipv6, Some(length)) = (equality, field.kind, value::prefix_length(mask)) {
        let inside = data.iter().zip(mask).all(|(byte, mask)| byte & !mask == 0);
        // A prefix that ends at a byte is a shorter load in nft(8)'s hands, not a mask.
        if inside && length % 8 != 0 {
            return Some(format!("{}{} {}/{length}", field.text, sign(op), field.kind.show(data)?));
        }
    }
    let sign = if op == CmpOp::Eq { " ==" } else { sign(op) };
    let (mask, data) = (field.kind.show_masked(mask)?, field.kind.show_masked(data)?);
    Some(format!("{} & {mask}{sign} {data}", field.text))
}

fn show_log(log: &Log) -> Result<String, String> {
    let mut text = "log".to_owned();
    if let Some(prefix) = &log.prefix {
        text += &format!(" prefix {}", word::log_prefix(prefix)?);
    }
    text += &format!(" group {}", log.group);
    if let Some(snaplen) = log.snaplen {
        text += &format!(" snaplen {snaplen}");
    }
    if let Some(threshold) = log.queue_threshold {
        text += &format!(" queue-threshold {threshold}");
    }
    Ok(text)
}

fn show_limit(rate: u64, seconds: u64, burst: u32, over: bool) -> Result<String, String> {
    let unit = match seconds {
        1 => "second",
        60 => "minute",
        3_600 => "hour",
        86_400 => "day",
        604_800 => "week",
        other => return Err(format!("nft(8) has no word for a limit per {other} seconds")),
    };
    if burst == 0 {
        return Err("nft(8) takes no limit with a burst of 0".to_owned());
    }
    Ok(format!("limit rate {}{rate}/{unit} burst {burst} packets", if over { "over " } else { "" }))
}

fn icmp_code(code: u8) -> String {
    match code {
        0 => "net-unreachable".to_owned(),
        1 => "host-unreachable".to_owned(),
        2 => "prot-unreachable".to_owned(),
        3 => "port-unreachable".to_owned(),
        9 => "net-prohibited".to_owned(),
        10 => "host-prohibited".to_owned(),
        13 => "admin-prohibited".to_owned(),
        other => other.to_string(),
    }
}

fn icmpv6_code(code: u8) -> String {
    match code {
        0 => "no-route".to_owned(),
        1 => "admin-prohibited".to_owned(),
        3 => "addr-unreachable".to_owned(),
        4 => "port-unreachable".to_owned(),
        5 => "policy-fail".to_owned(),
        6 => "reject-route".to_owned(),
        other => other.to_string(),
    }
}
