//! Fields that are some bits of the bytes that are loaded.

use super::StatementError;
use super::field::{FieldOf, Needs, Part, Proves, Source};
use super::value::Value;
use crate::nft::{BitwiseOp, Data, Element, Expr, Register};

/// Which bits of what is loaded are the field's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bits {
    /// Nothing when all are.
    pub mask: &'static [u8],
    /// How many there are to their right.
    pub shift: u32,
}

impl Bits {
    pub const ALL: Bits = Bits { mask: &[], shift: 0 };

    pub fn are_all(self) -> bool {
        self.mask.is_empty()
    }

    /// Leaves only these in a register; `moved` puts them to the right end.
    pub fn alone(self, reg: Register, moved: bool) -> Vec<Expr> {
        let mut exprs = Vec::new();
        if !self.are_all() {
            exprs.push(masked(reg, self.mask));
            if moved && self.shift > 0 {
                let (len, op) = (self.mask.len() as u32, BitwiseOp::ShiftRight(Data::native32(self.shift)));
                exprs.push(Expr::Bitwise { sreg: reg, dreg: reg, len, op });
            }
        }
        exprs
    }

    /// A value where these bits are, or at the right end when they were `moved` there.
    pub fn place(self, value: Vec<u8>, moved: bool) -> Result<Vec<u8>, StatementError> {
        if self.are_all() {
            return Ok(value);
        }
        let number = |bytes: &[u8]| bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        let (value, most) = (number(&value), number(self.mask) >> self.shift);
        if value > most {
            return Err(StatementError::TooLarge { value, bits: most.count_ones() });
        }
        let placed = if moved { value } else { value << self.shift };
        Ok(placed.to_be_bytes()[8 - self.mask.len()..].to_vec())
    }
}

/// Finds keys with values that the bits of their fields can't hold: nothing would ever be found under them.
pub(super) fn fit(fields: &[Part], elements: &[Element]) -> Result<(), StatementError> {
    let mut at = 0;
    for Part { bits, size, .. } in fields {
        let begins = elements.iter().filter(|element| !bits.are_all() && !element.interval_end);
        for key in begins.flat_map(|element| [Some(&element.key), element.key_end.as_ref()]).flatten() {
            bits.place(key.as_bytes().get(at..at + size).unwrap_or_default().to_vec(), true)?;
        }
        at += size.next_multiple_of(4);
    }
    Ok(())
}

/// A field as it is asked, whatever the type of its values.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub source: Source,
    pub needs: Needs,
    pub proves: Proves,
    pub bits: Bits,
    /// What else is masked.
    pub mask: Option<Data>,
}

impl<V: Value, L> FieldOf<V, L> {
    pub(super) fn asked(&self) -> Asked {
        let Self { source, needs, proves, bits, .. } = *self;
        Asked { source, needs, proves, bits, mask: None }
    }

    /// Some of its bits, which prove nothing.
    pub(super) fn masked(&self, mask: &V) -> Asked {
        Asked { mask: Some(mask.to_data()), proves: Proves::Nothing, ..self.asked() }
    }
}

/// Leaves some bits of a register.
pub(super) fn masked(reg: Register, mask: &[u8]) -> Expr {
    changed(reg, mask, &vec![0; mask.len()])
}

/// Leaves some bits of a register, and then turns some over.
pub(super) fn changed(reg: Register, mask: &[u8], xor: &[u8]) -> Expr {
    let data = |bytes: &[u8]| Data::new(bytes).unwrap_or_default();
    let op = BitwiseOp::MaskXor { mask: data(mask), xor: data(xor) };
    Expr::Bitwise { sreg: reg, dreg: reg, len: mask.len() as u32, op }
}
