//! Shows a rule from its expressions, by following the registers.
//!
//! nft(8) does the same when it lists, and the kernel keeps no more than the expressions. The text that comes out is a rule
//! that nft(8) makes the same matches and statements of. What may differ is where no packet can tell: the numbers of
//! registers, a field loaded again for a second comparison, `(x & m) ^ y == z` written as `x & m == y ^ z`, a range
//! written as its two bounds, equal bytes side by side compared at once, and the byteorder expression that nft 1.0.6 puts
//! behind a one-byte field in front of an interval set.

use super::apart::Comparisons;
use super::field::{self, Context, Field, Source};
use super::value::Kind;
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

    /// The value that starts in a register, if one does.
    pub(super) fn peek(&self, register: Register) -> Option<&Value> {
        match self.registers.get(usize::from(register.index())) {
            Some(Slot::Start(value)) => self.values.get(*value),
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
        let only = self.peek(sreg).map(|value| value.source).filter(|_| set.key.0.len() == 1);
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
