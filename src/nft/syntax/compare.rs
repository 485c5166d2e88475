//! Comparisons of fields: with a value, a range, bits of them.

use super::field::{Field, Source};
use super::rule::Reader;
use super::value::{self, Kind};
use crate::nft::{CmpOp, Data, Register};

impl Reader<'_> {
    pub(super) fn compare(&mut self, sreg: Register, op: CmpOp, data: &Data) -> Result<(), String> {
        let value = self.take(sreg.index().into())?;
        if let (CmpOp::Eq, None, None) = (op, &value.mask, self.context.field(value.source))
            && let Some(fields) = self.context.joined(value.source)
            && data.len() == value.width
        {
            let mut rest = data.as_bytes();
            for (source, field) in fields {
                let (bytes, behind) = rest.split_at(field.width);
                let text = plain(&field, field.width, op, bytes);
                self.words
                    .push(text.ok_or_else(|| format!("nft(8) has no way to compare {} with {data:?}", field.text))?);
                self.comparisons.add(source, op, true)?;
                self.context.learn(source, &Data::new(bytes).map_err(|error| error.to_string())?)?;
                rest = behind;
            }
            return Ok(());
        }
        let text = match &value.mask {
            None if value.turned => {
                self.fields(value.source).find_map(|field| turned(&field, value.width, op, data.as_bytes()))
            }
            None => self.fields(value.source).find_map(|field| plain(&field, value.width, op, data.as_bytes())),
            Some((mask, xor)) if data.len() == value.width => {
                // (x ^ y) == z is x == (y ^ z), which is what nft(8) makes of it. Order has no such rule.
                let flipped: Vec<u8> = data.as_bytes().iter().zip(xor.as_bytes()).map(|(a, b)| a ^ b).collect();
                let either = || self.fields(value.source).find_map(|field| or(&field, mask, xor, op, data.as_bytes()));
                let plain_xor = xor.as_bytes().iter().all(|byte| *byte == 0);
                (!plain_xor).then(either).flatten().or_else(|| {
                    (plain_xor || matches!(op, CmpOp::Eq | CmpOp::Neq))
                        .then(|| {
                            let bits = || self.bits(value.source, mask.as_bytes(), op, &flipped);
                            bits().or_else(|| {
                                self.fields(value.source)
                                    .find_map(|field| masked(&field, mask.as_bytes(), op, &flipped))
                            })
                        })
                        .flatten()
                })
            }
            Some(_) => None,
        };
        let text =
            text.ok_or_else(|| format!("nft(8) has no way to compare {} with {data:?}", self.told(value.source)))?;
        // A prefix is no value to nft(8).
        if value.mask.is_none() && !text.contains('/') {
            self.comparisons.add(value.source, op, true)?;
        }
        self.words.push(text);
        if op == CmpOp::Eq && value.mask.is_none() {
            self.context.learn(value.source, data)?;
        }
        Ok(())
    }

    /// Fields that do not start and end at bytes.
    fn bits(&self, source: Source, mask: &[u8], op: CmpOp, data: &[u8]) -> Option<String> {
        let field = self.context.bit_field(source, mask)?;
        Some(format!("{}{} {}", field.text, sign(op), part(data, mask, field.shift)?))
    }

    pub(super) fn between(&mut self, sreg: Register, negated: bool, from: &Data, to: &Data) -> Option<String> {
        let value = self.peek(sreg)?.clone();
        if [from.len(), to.len()] != [value.width; 2] || from >= to {
            return None;
        }
        if let Some((mask, xor)) = &value.mask {
            let field = self.context.bit_field(value.source, mask.as_bytes())?;
            let plain = xor.as_bytes().iter().all(|byte| *byte == 0) && !value.turned;
            let bound = |data: &Data| part(data.as_bytes(), mask.as_bytes(), field.shift).filter(|_| plain);
            let (from, to) = (bound(from)?, bound(to)?);
            self.take(sreg.index().into()).ok()?;
            return Some(format!("{}{} {from}-{to}", field.text, if negated { " !=" } else { "" }));
        }
        // One byte has no order to turn around.
        let ordered = |field: &Field| {
            field.kind.ordered()
                || (field.kind.native() && (value.turned || value.width == 1))
                || field.kind == Kind::Proto
        };
        let field = self.fields(value.source).find(ordered)?;
        let (from, to) = (field.kind.show_bound(from.as_bytes())?, field.kind.show_bound(to.as_bytes())?);
        // In the reader's time, a range of hours may be one that goes past midnight.
        (!matches!(field.kind, Kind::Hour(_)) || from < to).then_some(())?;
        self.take(sreg.index().into()).ok()?;
        Some(format!("{}{} {from}-{to}", field.text, if negated { " !=" } else { "" }))
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

/// The bits of a field as a number. `None` when there are others beside them.
fn part(data: &[u8], mask: &[u8], shift: u32) -> Option<String> {
    let value = value::big(data)?;
    (value & !value::big(mask)? == 0).then(|| (value >> shift).to_string())
}

/// `field value`, `field != value`, `field < value`.
fn plain(field: &Field, width: usize, op: CmpOp, data: &[u8]) -> Option<String> {
    let equality = matches!(op, CmpOp::Eq | CmpOp::Neq);
    // One byte has no order to turn around.
    let ordered = field.kind.ordered() || (field.kind.native() && width == 1) || field.kind == Kind::Proto;
    let kind = match field.kind {
        // The first bytes of an address that was loaded whole. A prefix has no order for nft(8).
        Kind::Ipv4 if data.len() < width && equality => Kind::Ipv4Prefix,
        Kind::Ipv6 if data.len() < width && equality => Kind::Ipv6Prefix,
        Kind::IfName => Kind::IfName,
        kind if data.len() == width => kind,
        _ => return None,
    };
    if !(equality || ordered) {
        return None;
    }
    // Left unsaid, equality with bits would be read as "any of them".
    let sign = if op == CmpOp::Eq && field.kind.flags().is_some() { " ==" } else { sign(op) };
    let value = if equality { kind.show(data)? } else { kind.show_bound(data)? };
    Some(format!("{}{sign} {value}", field.text))
}

/// `field < value`, of a field whose bytes were turned around for it.
fn turned(field: &Field, width: usize, op: CmpOp, data: &[u8]) -> Option<String> {
    let order = matches!(op, CmpOp::Lt | CmpOp::Lte | CmpOp::Gt | CmpOp::Gte);
    (order && data.len() == width).then_some(())?;
    Some(format!("{}{} {}", field.text, sign(op), field.kind.show_bound(data)?))
}

/// `field & mask | bits == value`, which nft(8) does not move to the other side.
fn or(field: &Field, mask: &Data, bits: &Data, op: CmpOp, data: &[u8]) -> Option<String> {
    let (mask, bits) = (mask.as_bytes(), bits.as_bytes());
    let apart = mask.iter().zip(bits).all(|(mask, bits)| mask & bits == 0);
    let equality = matches!(op, CmpOp::Eq | CmpOp::Neq);
    (apart && equality && field.kind.maskable()).then_some(())?;
    let all = mask.iter().zip(bits).all(|(mask, bits)| mask | bits == 0xff);
    let and = if all { String::new() } else { format!(" & {}", field.kind.show_masked(mask)?) };
    let sign = if op == CmpOp::Eq { "==" } else { "!=" };
    let (bits, data) = (field.kind.show_masked(bits)?, field.kind.show_masked(data)?);
    Some(format!("{}{and} | {bits} {sign} {data}", field.text))
}

/// `field & mask == value`, or shorter where nft(8) has a shorter form for the same expressions.
fn masked(field: &Field, mask: &[u8], op: CmpOp, data: &[u8]) -> Option<String> {
    let equality = matches!(op, CmpOp::Eq | CmpOp::Neq);
    if !(field.kind.maskable() || field.kind == Kind::Label) || !(equality || field.kind.ordered()) {
        return None;
    }
    if let (Kind::Label, CmpOp::Neq, true) = (field.kind, op, data.iter().all(|byte| *byte == 0)) {
        return Some(format!("{} {}", field.text, field.kind.show(mask)?));
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
    field.kind.maskable().then_some(())?;
    let sign = if op == CmpOp::Eq { " ==" } else { sign(op) };
    let (mask, data) = (field.kind.show_masked(mask)?, field.kind.show_masked(data)?);
    Some(format!("{} & {mask}{sign} {data}", field.text))
}
