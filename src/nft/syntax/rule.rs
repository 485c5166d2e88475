//! Shows a rule from its expressions, by following the registers.
//!
//! nft(8) does the same when it lists, and the kernel keeps no more than the expressions. The text that comes out is a rule
//! that nft(8) makes the same matches and statements of. What may differ is where no packet can tell: the numbers of
//! registers, a field loaded again for a second comparison, `(x & m) ^ y == z` written as `x & m == y ^ z`, a range
//! written as its two bounds, equal bytes side by side compared at once, and the byteorder expression that nft 1.0.6 puts
//! behind a one-byte field in front of an interval set.

use super::apart::Comparisons;
use super::field::{self, Context, Field, Source};
use super::value::{self, Kind};
use super::{Sets, element, word};
use crate::nft::{BitwiseOp, ByteorderOp, CmpOp, Data, Expr, MapTo, MetaKey, Register, Rule, Set, SetName};

/// The rule in nft(8) syntax, without its comment; or why it has none.
pub(super) fn show(rule: &Rule, sets: &Sets<'_>) -> Result<String, String> {
    let mut reader = Reader {
        rule,
        sets,
        context: Context::new(rule.table.family, sets.hours),
        registers: [Slot::Empty; 16],
        values: Vec::new(),
        words: Vec::new(),
        constants: Vec::new(),
        worded: Vec::new(),
        comparisons: Comparisons::default(),
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
pub(super) struct Value {
    pub source: Source,
    pub width: usize,
    pub mask: Option<(Data, Data)>,
    /// Whether its bytes were turned around.
    pub turned: bool,
    used: bool,
}

pub(super) struct Reader<'a> {
    pub rule: &'a Rule,
    pub sets: &'a Sets<'a>,
    pub context: Context,
    registers: [Slot; 16],
    values: Vec<Value>,
    pub words: Vec<String>,
    /// What immediates put into registers.
    pub constants: Vec<Data>,
    /// What was put into words when it was loaded.
    worded: Vec<Field>,
    /// What nft 1.0.6 may join.
    pub comparisons: Comparisons,
}

impl<'a> Reader<'a> {
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
                Expr::Meta { key, dreg } => self.load(Source::Meta(*key), key.size() as usize, None, *dreg)?,
                Expr::Ct { key, direction, dreg } => {
                    let width = field::ct_width(self.context.network, *key)
                        .ok_or("nft(8) needs to know of which family an address is")?;
                    self.load(Source::Ct(*key, *direction), width, None, *dreg)?;
                }
                Expr::Exthdr { op, kind, offset, len, present: false, dreg } => {
                    let source = Source::Exthdr { op: *op, kind: *kind, offset: *offset, len: *len };
                    self.load(source, *len as usize, None, *dreg)?;
                }
                Expr::Bitwise { sreg, dreg, len, op } => self.mask(*sreg, *dreg, *len, op)?,
                Expr::Byteorder { sreg, dreg, op, len, size } => self.turn(*sreg, *dreg, *op, *len, *size)?,
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
                Expr::VerdictMap { set, sreg } => {
                    self.verdict_map(set, *sreg)?;
                }
                Expr::Map { set, sreg, dreg } => self.map(set, *sreg, *dreg)?,
                Expr::Immediate { dreg, data } => {
                    self.constants.push(data.clone());
                    self.load(Source::Constant(self.constants.len() - 1), data.len(), None, *dreg)?;
                }
                _ if self.worded(expr)? => {}
                _ => ended = self.statement(expr)?,
            }
        }
        self.all_used()
    }

    /// A load ends the rule when the packet is too short, so one that nothing uses may not vanish, nor move past a statement.
    pub(super) fn all_used(&self) -> Result<(), String> {
        match self.values.iter().find(|value| !value.used) {
            Some(Value { source: Source::Constant(_), .. }) => {
                Err("nft(8) writes a constant only where a statement takes it".to_owned())
            }
            Some(value) => {
                Err(format!("it loads {} and does not compare it before the next statement", self.told(value.source)))
            }
            None => Ok(()),
        }
    }

    pub(super) fn load(
        &mut self,
        source: Source,
        width: usize,
        mask: Option<(Data, Data)>,
        dreg: Register,
    ) -> Result<(), String> {
        let (start, slots) = (usize::from(dreg.index()), width.div_ceil(4));
        if width == 0 || start + slots > self.registers.len() {
            return Err(format!("{} of {width} bytes does not fit the registers from {start} on", self.told(source)));
        }
        for slot in start..start + slots {
            if let Slot::Start(old) | Slot::Rest(old) = self.registers[slot] {
                if !self.values[old].used {
                    return Err(format!("it loads {} and overwrites it unused", self.told(self.values[old].source)));
                }
                for other in &mut self.registers {
                    if matches!(*other, Slot::Start(value) | Slot::Rest(value) if value == old) {
                        *other = Slot::Empty;
                    }
                }
            }
        }
        let value = self.values.len();
        // A load of these never ends the rule, so that nothing is lost without it: iptables-nft(8) loads one for `-i +` and compares nothing.
        let used = matches!(source, Source::Meta(MetaKey::IifName | MetaKey::OifName));
        self.values.push(Value { source, width, mask, turned: false, used });
        self.registers[start] = Slot::Start(value);
        self.registers[start + 1..start + slots].fill(Slot::Rest(value));
        Ok(())
    }

    /// The value that starts in a register. It counts as used from here on.
    pub(super) fn take(&mut self, slot: usize) -> Result<Value, String> {
        let Some(Slot::Start(value)) = self.registers.get(slot).copied() else {
            return Err(format!("it reads register {slot}, where no value starts"));
        };
        self.values[value].used = true;
        Ok(self.values[value].clone())
    }

    fn mask(&mut self, sreg: Register, dreg: Register, len: u32, op: &BitwiseOp) -> Result<(), String> {
        let value = self.take(sreg.index().into())?;
        if len as usize != value.width {
            return Err(format!("it changes {len} of the {} bytes of {}", value.width, self.told(value.source)));
        }
        if let (BitwiseOp::ShiftRight(by), Some((mask, xor))) = (op, &value.mask)
            && let Some(field) = self.context.bit_field(value.source, mask.as_bytes())
            && by.as_bytes() == field.shift.to_ne_bytes()
            && xor.as_bytes().iter().all(|byte| *byte == 0)
        {
            // The bits of a field, moved to where they are a number.
            return self.word(Field::new(field.text, Kind::Number, field.datatype, field.width), dreg);
        }
        if let BitwiseOp::ShiftLeft(by) | BitwiseOp::ShiftRight(by) = op {
            return self.shift(&value, dreg, if matches!(op, BitwiseOp::ShiftLeft(_)) { "<<" } else { ">>" }, by);
        }
        if value.mask.is_some() || value.turned {
            return Err("nft(8) has no way to write a mask on a masked value".to_owned());
        }
        match op {
            BitwiseOp::MaskXor { mask, xor } => {
                if [mask.len(), xor.len()] != [value.width; 2] {
                    return Err(format!("its mask has another length than {}", self.told(value.source)));
                }
                self.load(value.source, value.width, Some((mask.clone(), xor.clone())), dreg)
            }
            _ => Err("nft(8) syntax is not known for its shift".to_owned()),
        }
    }

    /// Takes a number of the machine's whose bits are moved.
    fn shift(&mut self, value: &Value, dreg: Register, sign: &str, by: &Data) -> Result<(), String> {
        let unwritable = || format!("nft(8) has no way to write a shift of {}", self.told(value.source));
        let field = self.fields(value.source).next().filter(|field| field.kind.native() && !value.turned);
        let field = field.ok_or_else(unwritable)?;
        let text = self.changed_text(value).filter(|_| value.width == field.width).ok_or_else(unwritable)?;
        let text = if value.mask.is_some() { format!("({text})") } else { text };
        let by = u32::from_ne_bytes(by.as_bytes().try_into().map_err(|_| unwritable())?);
        self.word(Field { text: format!("{text} {sign} {by}"), ..field }, dreg)
    }

    /// `field & mask ^ xor`
    pub(super) fn changed_text(&self, value: &Value) -> Option<String> {
        let field = self.fields(value.source).next()?;
        let Some((mask, xor)) = &value.mask else { return Some(field.text) };
        let all = |bytes: &[u8], all: u8| bytes.iter().all(|byte| *byte == all);
        let mut text = field.text;
        let (mask, xor) = (mask.as_bytes(), xor.as_bytes());
        if !all(mask, 0xff) {
            text += &format!(" & {}", field.kind.show_masked(mask)?);
        }
        if !all(xor, 0) {
            text += &format!(" ^ {}", field.kind.show_masked(xor)?);
        }
        Some(text)
    }

    /// Takes a value whose bytes are turned around, as nft(8) does with numbers in the machine's byte order before it compares them
    /// by order.
    fn turn(&mut self, sreg: Register, dreg: Register, op: ByteorderOp, len: u32, size: u32) -> Result<(), String> {
        let value = self.take(sreg.index().into())?;
        let whole = [len as usize, size as usize] == [value.width; 2] && op == ByteorderOp::ToNetwork;
        // A protocol from the kernel is a number of the machine's to nft(8), with one byte to turn around.
        let protocol = value.source == Source::Meta(MetaKey::L4Proto);
        let native = protocol || self.fields(value.source).next().is_some_and(|field| field.kind.native());
        let whole = whole || (protocol && op == ByteorderOp::ToNetwork && len == 1);
        if !whole || !native || value.mask.is_some() || value.turned {
            return Err(format!("nft(8) does not turn the bytes of {} around", self.told(value.source)));
        }
        self.load(value.source, value.width, None, dreg)?;
        if let Some(Slot::Start(index)) = self.registers.get(usize::from(dreg.index())) {
            self.values[*index].turned = true;
        }
        Ok(())
    }

    /// The names a value may go by, best first.
    pub(super) fn fields(&self, source: Source) -> impl Iterator<Item = Field> + use<> {
        let worded = match source {
            Source::Worded(index) => self.worded.get(index).cloned(),
            _ => None,
        };
        [worded, self.context.field(source), self.context.raw(source)].into_iter().flatten()
    }

    /// What a value is called where there is no text for what is done with it.
    pub(super) fn told(&self, source: Source) -> String {
        match source {
            Source::Constant(_) => "a constant".to_owned(),
            _ => self.fields(source).next().map_or_else(|| format!("{source:?}"), |field| field.text),
        }
    }

    fn compare(&mut self, sreg: Register, op: CmpOp, data: &Data) -> Result<(), String> {
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

    fn between(&mut self, sreg: Register, negated: bool, from: &Data, to: &Data) -> Option<String> {
        let Some(Slot::Start(index)) = self.registers.get(usize::from(sreg.index())).copied() else { return None };
        let value = self.values[index].clone();
        if [from.len(), to.len()] != [value.width; 2] || from >= to {
            return None;
        }
        if let Some((mask, xor)) = &value.mask {
            let field = self.context.bit_field(value.source, mask.as_bytes())?;
            let plain = xor.as_bytes().iter().all(|byte| *byte == 0) && !value.turned;
            let bound = |data: &Data| part(data.as_bytes(), mask.as_bytes(), field.shift).filter(|_| plain);
            let (from, to) = (bound(from)?, bound(to)?);
            self.values[index].used = true;
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
        self.values[index].used = true;
        Some(format!("{}{} {from}-{to}", field.text, if negated { " !=" } else { "" }))
    }

    /// The set that a rule refers to.
    pub(super) fn set(&self, name: &SetName) -> Result<&'a Set, String> {
        self.sets.find(&self.rule.table, name).ok_or_else(|| {
            let name = word::literal(name.as_str());
            format!("the set {name} is not in the ruleset, so the length of its key is unknown")
        })
    }

    /// A set by its name, or, if it is the rule's own, by its elements.
    pub(super) fn set_text(&self, set: &Set, kinds: &[Kind]) -> Result<String, String> {
        if !set.flags.anonymous {
            return Ok(format!("@{}", word::name(set.name.as_str())?));
        }
        let elements = element::show(set, kinds, self.sets.elements(set));
        if let Some((what, reason)) = elements.unshown.first() {
            return Err(format!("{what} of its set: {reason}"));
        }
        if elements.shown.is_empty() {
            return Err("nft(8) has no empty set in a rule".to_owned());
        }
        Ok(format!("{{ {} }}", elements.shown.join(", ")))
    }

    /// The key of a look-up: fields that have the types of the set's key; and what they are, by which elements are written.
    pub(super) fn key(&mut self, set: &Set, sreg: Register) -> Result<(String, Vec<Kind>), String> {
        let mut slot = usize::from(sreg.index());
        let (mut fields, mut kinds) = (Vec::new(), Vec::new());
        for datatype in &set.key.0 {
            let value = self.take(slot)?;
            slot += value.width.div_ceil(4);
            // A set wants the type that it was declared with, which a field shown by its place may not have.
            let fits = |field: &Field| field.datatype == datatype.number() && value.width == datatype.size();
            let unfit =
                || format!("nft(8) does not take {} here for a key of {}", self.told(value.source), datatype.name());
            let constant = || match value.source {
                Source::Constant(index) if value.width == datatype.size() && !set.flags.interval => {
                    let kind = Kind::of(*datatype)?;
                    let text = kind.show(self.constants[index].as_bytes())?;
                    Some(Field::new(text, kind, datatype.number(), value.width))
                }
                _ => None,
            };
            let field = match &value.mask {
                None if matches!(value.source, Source::Constant(_)) => constant().ok_or_else(unfit)?,
                None => self.fields(value.source).find(fits).ok_or_else(unfit)?,
                Some((mask, xor)) if xor.as_bytes().iter().all(|byte| *byte == 0) => {
                    self.masked_key(set, &value, mask).filter(fits).ok_or_else(unfit)?
                }
                Some(_) => return Err("nft(8) has no way to write this mask in front of a set".to_owned()),
            };
            let turns = field.kind.native() && (set.key.0.len() == 1 || value.width > 1);
            let protocol = value.source == Source::Meta(MetaKey::L4Proto);
            if set.flags.interval && turns != value.turned && !protocol {
                return Err(format!("nft(8) turns the bytes of {} around for a set of ranges", field.text));
            }
            kinds.push(field.kind);
            fields.push(field.text);
        }
        if fields.is_empty() {
            return Err("the key of the set has no type".to_owned());
        }
        Ok((fields.join(" . "), kinds))
    }

    /// Where the value in a register came from.
    fn source(&self, register: Register) -> Option<Source> {
        match self.registers.get(usize::from(register.index())) {
            Some(Slot::Start(value)) => Some(self.values[*value].source),
            _ => None,
        }
    }

    /// How many bytes the value in a register has.
    pub(super) fn width(&self, register: Register) -> Option<usize> {
        match self.registers.get(usize::from(register.index())) {
            Some(Slot::Start(value)) => Some(self.values[*value].width),
            _ => None,
        }
    }

    /// What a mask leaves of a field, as a key.
    fn masked_key(&self, set: &Set, value: &Value, mask: &Data) -> Option<Field> {
        if let Some(field) = self.context.bit_field(value.source, mask.as_bytes()) {
            // In a set of the rule's own nft(8) moves the elements to where the bits are; in a named one, the bits. Where there are none
            // behind them, it is the same.
            let behind = u8::try_from(field.shift).ok().filter(|shift| set.flags.anonymous || *shift == 0)?;
            return Some(Field::new(field.text, Kind::Part { bits: field.bits, behind }, field.datatype, value.width));
        }
        let field = self.fields(value.source).next().filter(|field| field.kind.maskable())?;
        let text = format!("{} & {}", field.text, field.kind.show_masked(mask.as_bytes())?);
        Some(Field { text, ..field })
    }

    fn lookup(&mut self, name: &SetName, sreg: Register, negated: bool) -> Result<(), String> {
        let set = self.set(name)?;
        if set.data.is_some() {
            return Err("nft(8) has no way to ask whether a map has a key".to_owned());
        }
        // Of a concatenation nft(8) learns nothing.
        let only = self.source(sreg).filter(|_| set.key.0.len() == 1);
        let source = only.filter(|_| set.flags.anonymous && !negated);
        let (key, kinds) = self.key(set, sreg)?;
        let text = self.set_text(set, &kinds)?;
        if let (Some(source), true, false) = (only, set.flags.anonymous, text.contains(',')) {
            // nft(8) makes a comparison of it.
            self.comparisons.add(source, if negated { CmpOp::Neq } else { CmpOp::Eq }, false)?;
        }
        if let Some(source) = source {
            self.context.learn_protocols(source);
            self.context.learn_echo(source, self.sets.elements(set).map(|element| element.key.as_bytes()));
        }
        self.words.push(format!("{key}{} {text}", if negated { " !=" } else { "" }));
        Ok(())
    }

    fn verdict_map(&mut self, name: &SetName, sreg: Register) -> Result<(), String> {
        let set = self.set(name)?;
        if set.data != Some(MapTo::Verdict) {
            return Err("it decides by a map that has no verdicts".to_owned());
        }
        let (key, kinds) = self.key(set, sreg)?;
        let set = self.set_text(set, &kinds)?;
        self.all_used()?;
        self.words.push(format!("{key} vmap {set}"));
        Ok(())
    }

    /// Takes what a map has for a key as a value.
    fn map(&mut self, name: &SetName, sreg: Register, dreg: Register) -> Result<(), String> {
        let set = self.set(name)?;
        let Some(MapTo::Value(to)) = &set.data else { return Err("it loads from a set that has no values".to_owned()) };
        let (key, kinds) = self.key(set, sreg)?;
        let text = format!("{key} map {}", self.set_text(set, &kinds)?);
        let kind = match element::data_kinds(set).as_slice() {
            [] => return Err(format!("nft(8) syntax is not known for values of {to}")),
            [single] => *single,
            // Named by who takes it apart.
            _ => Kind::Bits,
        };
        self.word(Field::new(text, kind, to.number(), to.len()), dreg)
    }

    /// Takes what was put into words as the value of a register.
    pub(super) fn word(&mut self, field: Field, dreg: Register) -> Result<(), String> {
        let width = field.width;
        self.worded.push(field);
        self.load(Source::Worded(self.worded.len() - 1), width, None, dreg)
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
