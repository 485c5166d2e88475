//! Comparisons that nft 1.0.6 joins when it reads a rule.
//!
//! nft 1.0.6 collects the comparisons of bytes of the packet with values, whatever stands between them, and makes one of two that are of
//! bytes side by side. What it has collected it joins at the next statement and at the end of the rule; a statement that comes
//! when it has a single one it passes over.

use super::field::Source;
use crate::nft::{CmpOp, PayloadBase};

/// The comparisons of a rule so far.
#[derive(Debug, Default)]
pub(super) struct Comparisons {
    collected: Vec<Comparison>,
    statements: usize,
}

#[derive(Debug)]
struct Comparison {
    base: PayloadBase,
    offset: u32,
    len: u32,
    op: CmpOp,
    /// Whether nft(8) surely collects it.
    sure: bool,
    /// How many statements are in front of it.
    statements: usize,
}

impl Comparisons {
    /// Adds one of a field with a value. `sure` is whether nft(8) collects it whatever it makes of the text.
    ///
    /// # Errors
    ///
    /// When joined with one before it means another thing. `ab != xy`, which is "one of them differs", is made of `a != x b != y`, which is
    /// "both differ". Two equalities may be joined, but not past a statement between them: one of them moves to its other side.
    pub(super) fn add(&mut self, source: Source, op: CmpOp, sure: bool) -> Result<(), String> {
        let (Source::Payload { base, offset, len }, CmpOp::Eq | CmpOp::Neq) = (source, op) else { return Ok(()) };
        let statements = self.statements;
        let joined = |other: &Comparison| {
            let beside = other.offset.saturating_add(other.len) == offset || offset.saturating_add(len) == other.offset;
            // No more than a register has.
            beside && (other.base, other.op) == (base, op) && other.len.saturating_add(len) <= 16
        };
        let harms = |other: &Comparison| op == CmpOp::Neq || other.statements != statements;
        if self.collected.iter().any(|other| joined(other) && harms(other)) {
            return Err(
                "nft 1.0.6 would join two comparisons of neighbouring fields, and mean another thing".to_owned()
            );
        }
        self.collected.push(Comparison { base, offset, len, op, sure, statements });
        Ok(())
    }

    /// Notes a statement.
    pub(super) fn statement(&mut self) {
        if self.collected.iter().filter(|comparison| comparison.sure).count() > 1 {
            self.collected.clear();
        }
        self.statements += 1;
    }
}
