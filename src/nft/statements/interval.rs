//! Ranges of values, and the elements of sets that they become.

use std::collections::HashSet;

use super::StatementError;
use super::key::Entry;
use super::operand::{Ends, Span};
use super::value::Value;
use crate::nft::{Data, Element, ElementData, Extra};

/// A range of bytes in network byte order, and what it leads to.
type Range = (Vec<u8>, Vec<u8>, Option<ElementData>);

/// nft(8)'s flag in the user data of an element that begins the last range of its type.
const OPEN_INTERVAL: [u8; 6] = [1, 4, 1, 0, 0, 0];

/// How many bits the ends have in common, when the others are all clear in one and set in the other.
pub(super) fn prefix_len(from: &[u8], to: &[u8]) -> Option<u32> {
    let bits = from.len() as u32 * 8;
    let same = from
        .iter()
        .zip(to)
        .position(|(a, b)| a != b)
        .map_or(bits, |at| at as u32 * 8 + (from[at] ^ to[at]).leading_zeros());
    let mask = prefix_mask(same, from.len());
    let fits = from.iter().zip(to).zip(&mask).all(|((a, b), mask)| a & !mask == 0 && b | mask == 0xff);
    fits.then_some(same)
}

pub(super) fn prefix_mask(bits: u32, len: usize) -> Vec<u8> {
    (0..len as u32).map(|at| !(0xffu16 >> bits.saturating_sub(at * 8).min(8)) as u8).collect()
}

pub(super) fn ordered(from: &[u8], to: &[u8]) -> Result<(), StatementError> {
    if from <= to { Ok(()) } else { Err(StatementError::Backwards) }
}

/// The next value, unless it is the last one.
fn after(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut next = bytes.to_vec();
    for byte in next.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(next);
        }
    }
    None
}

pub(super) fn element(key: Data, to: Option<ElementData>) -> Element {
    Element { data: to, ..Element::new(key) }
}

/// Elements of a set of ranges in several fields: the first key of each, and the last one.
pub(super) fn boxes(entries: impl Iterator<Item = Entry<Vec<Ends>>>) -> Result<Vec<Element>, StatementError> {
    let (mut elements, mut known) = (Vec::new(), HashSet::new());
    for (fields, to) in entries {
        fields.iter().try_for_each(|(from, last)| ordered(from, last))?;
        let join = |end: fn(&Ends) -> &Vec<u8>| {
            let fields: Vec<_> = fields.iter().map(|field| Data::new(end(field)).unwrap_or_default()).collect();
            Data::concat(&fields).map_err(|_| StatementError::TooLong)
        };
        let (key, last) = (join(|(from, _)| from)?, join(|(_, to)| to)?);
        if known.insert((key.clone(), last.clone())) {
            elements.push(Element { key_end: Some(last), ..element(key, to) });
        } else if to.is_some() {
            return Err(StatementError::Overlap);
        }
    }
    Ok(elements)
}

/// Elements of an interval set: where each range begins, and the first value past it.
///
/// Ranges of a set that touch or overlap become one; in a map ranges may not overlap. Of a set that is the rule's `own` the next range ends the
/// one before, as nft(8) has it; in a set with a name the kernel wants each one ended.
pub(super) fn intervals<V: Value>(spans: Vec<Entry<Span<V>>>, own: bool) -> Result<Vec<Element>, StatementError> {
    let mut entries: Vec<Range> = Vec::with_capacity(spans.len());
    for (span, leads) in spans {
        let (from, to) = span.ends();
        ordered(&from, &to)?;
        entries.push((from, to, leads));
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    let mut ranges: Vec<Range> = Vec::with_capacity(entries.len());
    for (from, to, leads) in entries {
        if let Some((_, end, before)) = ranges.last_mut() {
            let touches = after(end).is_none_or(|next| from <= next);
            if *before == leads && touches {
                if to > *end {
                    *end = to;
                }
                continue;
            }
            if from <= *end {
                return Err(StatementError::Overlap);
            }
        }
        ranges.push((from, to, leads));
    }
    let data = |bytes: &[u8]| Data::new(bytes).unwrap_or_default();
    let mut elements = Vec::with_capacity(2 * ranges.len() + 1);
    let end = |bytes: &[u8]| Element { interval_end: true, ..Element::new(data(bytes)) };
    // What is below the first range is outside.
    if let Some((from, _, _)) = ranges.first().filter(|(from, _, _)| from.iter().any(|byte| *byte != 0)) {
        elements.push(end(&vec![0; from.len()]));
    }
    let mut starts = ranges.iter().map(|(from, _, _)| from.clone()).skip(1).collect::<Vec<_>>().into_iter();
    for (from, to, leads) in ranges {
        let next = starts.next();
        let mut one = element(data(&from), leads);
        match after(&to) {
            Some(past) => {
                elements.push(one);
                if !own || next.as_ref() != Some(&past) {
                    elements.push(end(&past));
                }
            }
            None => {
                one.extra = Extra::new(Some(OPEN_INTERVAL.to_vec()), Vec::new());
                elements.push(one);
            }
        }
    }
    Ok(elements)
}
