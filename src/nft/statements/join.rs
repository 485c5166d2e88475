//! Comparisons of neighbouring fields become one.

use crate::nft::{Expr, PayloadBase};

/// One step of a rule.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Expressions that stay as they are.
    Fixed(Vec<Expr>),
    /// Ends a stretch within which comparisons may be joined: what stands behind it has an effect.
    Effect(Vec<Expr>),
    /// A field of a header that must have one value.
    Equal { base: PayloadBase, offset: u32, data: Vec<u8>, proves: bool },
}

/// Joins comparisons of neighbouring fields to one.
///
/// nft(8) joins across statements that have an effect and joins `!=` as well, either of which changes what the rule means.
/// This does neither. A joined comparison stands where that of the first bytes stood, unless what came earlier tells what is behind it.
pub(super) fn join(steps: &mut [Step]) {
    let mut order: Vec<usize> = (0..steps.len()).filter(|at| matches!(steps[*at], Step::Equal { .. })).collect();
    order.sort_by_key(|at| match &steps[*at] {
        Step::Equal { base, offset, .. } => (*base, *offset),
        _ => (PayloadBase::LinkLayer, 0),
    });
    let mut last: Option<usize> = None;
    for at in order {
        let Some(before) = last.replace(at) else { continue };
        let (
            Step::Equal { base, offset, data, proves },
            Step::Equal { base: next_base, offset: next_offset, data: next_data, proves: next_proves },
        ) = (&steps[before], &steps[at])
        else {
            continue;
        };
        let total = data.len() + next_data.len();
        let adjacent = base == next_base && *offset as usize + data.len() == *next_offset as usize;
        // One word is compared faster than two.
        let worth = total <= 16 && !(total > 4 && data.len() <= 4 && next_data.len() <= 4);
        if !adjacent || !worth {
            continue;
        }
        let joined = Step::Equal {
            base: *base,
            offset: *offset,
            data: [data.as_slice(), next_data].concat(),
            proves: *proves || *next_proves,
        };
        let (earlier, later) = (before.min(at), before.max(at));
        let told = matches!(steps[earlier], Step::Equal { proves: true, .. });
        let (place, gone) = if told { (earlier, later) } else { (before, at) };
        steps[place] = joined;
        steps[gone] = Step::Fixed(Vec::new());
        last = Some(place);
    }
}
