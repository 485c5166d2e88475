//! What must be done to the elements of a set, so that it holds others.

use super::super::still::{same_element, still_element};
use super::super::{Element, Set};

/// Elements that come and go together: one; or, in a set of ranges, the first key of a range with the first past it.
struct Unit<'a> {
    first: &'a Element,
    past: Option<&'a Element>,
}

/// What must be done to the elements of a set: first taken out, then put in.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Change {
    /// Everything is taken out.
    pub flush: bool,
    /// What is taken out, by key alone.
    pub gone: Vec<Element>,
    /// What is put in, as it was wanted.
    pub come: Vec<Element>,
}

/// What makes of the one elements the others. Empty when they are the same.
pub(super) fn change(set: &Set, old: &[&Element], new: &[&Element]) -> Change {
    let (old, new) = (in_order(set, old), in_order(set, new));
    if alike(set, &old, &new) {
        return Change::default();
    }
    let (Some(was), Some(will)) = (units(set, &old), units(set, &new)) else {
        // What is no row of ranges can't be changed range by range.
        return Change { flush: !old.is_empty(), gone: Vec::new(), come: new.into_iter().cloned().collect() };
    };
    let differs = |unit: &&Unit<'_>, others: &[Unit<'_>]| {
        let there = others.binary_search_by(|other| other.first.place().cmp(&unit.first.place()));
        there.map_or(true, |index| !unit.same(set, &others[index]))
    };
    let gone = was.iter().filter(|unit| differs(unit, &will)).flat_map(Unit::elements);
    let come = will.iter().filter(|unit| differs(unit, &was)).flat_map(Unit::elements);
    Change { flush: false, gone: gone.map(bare).collect(), come: come.cloned().collect() }
}

/// Whether they are the same, in whatever order.
pub(super) fn same(set: &Set, a: &[&Element], b: &[&Element]) -> bool {
    alike(set, &in_order(set, a), &in_order(set, b))
}

/// Elements as they are compared.
pub(super) fn still_elements(set: &Set, elements: &[&Element]) -> Vec<Element> {
    in_order(set, elements).into_iter().map(|element| still_element(set, element)).collect()
}

/// Elements in an order of their own, what was said twice once.
fn in_order<'a>(set: &Set, elements: &[&'a Element]) -> Vec<&'a Element> {
    let mut elements = elements.to_vec();
    elements.sort_by(|a, b| a.place().cmp(&b.place()));
    elements.dedup_by(|b, a| a.place() == b.place() && same_element(set, a, b));
    elements
}

fn alike(set: &Set, a: &[&Element], b: &[&Element]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.place() == b.place() && same_element(set, a, b))
}

/// Pairs each start with its end, of elements in order. None where that can't be done.
///
/// The last range needs no end. nft(8) puts the end of "nothing" at key 0 of most sets of ranges: it stands alone.
fn units<'a>(set: &Set, elements: &[&'a Element]) -> Option<Vec<Unit<'a>>> {
    let ranges = set.flags.interval && set.key.0.len() == 1;
    let mut units: Vec<Unit<'a>> = Vec::with_capacity(elements.len());
    let mut open = false;
    for element in elements {
        if ranges && element.interval_end {
            let first_key = element.key.as_bytes().iter().all(|byte| *byte == 0);
            match units.last_mut().filter(|_| open) {
                Some(unit) => unit.past = Some(element),
                None if first_key => units.push(Unit { first: element, past: None }),
                // Of a range that has run out.
                None if set.has_timed_ranges() => {}
                None => return None,
            }
            open = false;
        } else {
            if open {
                return None;
            }
            open = ranges && !element.catch_all;
            units.push(Unit { first: element, past: None });
        }
    }
    Some(units)
}

impl<'a> Unit<'a> {
    fn same(&self, set: &Set, other: &Unit<'_>) -> bool {
        let past = match (self.past, other.past) {
            (Some(a), Some(b)) => a.key == b.key && same_element(set, a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        past && same_element(set, self.first, other.first)
    }

    fn elements(&self) -> impl Iterator<Item = &'a Element> + use<'a> {
        [Some(self.first), self.past].into_iter().flatten()
    }
}

/// What of an element says which it is.
fn bare(element: &Element) -> Element {
    let Element { key, key_end, interval_end, catch_all, .. } = element;
    let (key_end, interval_end, catch_all) = (key_end.clone(), *interval_end, *catch_all);
    Element { key_end, interval_end, catch_all, ..Element::new(key.clone()) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::nft::{Data, Datatype, ElementData, Family, KeyType, SetName, TableId, TableName, Verdict};

    fn set(interval: bool) -> Set {
        let id = TableId { family: Family::Inet, name: TableName::new("t").unwrap() };
        let mut set = Set::new(&id, &SetName::new("s").unwrap(), KeyType(vec![Datatype::InetService]));
        set.flags.interval = interval;
        set
    }

    fn start(port: u16) -> Element {
        Element::new(Data::be16(port))
    }

    fn end(port: u16) -> Element {
        Element { interval_end: true, ..start(port) }
    }

    fn changed(set: &Set, old: &[Element], new: &[Element]) -> Change {
        change(set, &old.iter().collect::<Vec<_>>(), &new.iter().collect::<Vec<_>>())
    }

    fn by_steps(gone: &[Element], come: &[Element]) -> Change {
        Change { flush: false, gone: gone.to_vec(), come: come.to_vec() }
    }

    #[test]
    fn whole_ranges_come_and_go() {
        let set = set(true);
        let old = [end(0), start(1), end(6), start(6), end(16), start(100), end(101)];
        assert_eq!(changed(&set, &old, &old), Change::default());
        // In any order, and said twice.
        let again = [end(6), start(100), start(1), end(0), end(0), start(6), end(101), end(16)];
        assert_eq!(changed(&set, &old, &again), Change::default());
        // One goes from between two that touch it, one grows, one comes that has no end.
        let new = [end(0), start(1), end(6), start(100), end(102), start(60_000)];
        let (gone, come) = ([start(6), end(16), start(100), end(101)], [start(100), end(102), start(60_000)]);
        assert_eq!(changed(&set, &old, &new), by_steps(&gone, &come));
        // The first key is in a range now.
        let new = [&[start(0)], &old[2..]].concat();
        assert_eq!(changed(&set, &old, &new), by_steps(&[end(0), start(1), end(6)], &[start(0), end(6)]));
    }

    #[test]
    fn what_is_no_row_of_ranges_is_filled_anew() {
        let new = [start(1), start(3), end(6)];
        let expected = Change { flush: true, gone: Vec::new(), come: new.to_vec() };
        assert_eq!(changed(&set(true), &[start(1), end(6)], &new), expected);
        assert_eq!(changed(&set(true), &new, &new), Change::default());
    }

    #[test]
    fn what_comes_comes_as_it_was_wanted() {
        let mut set = set(true);
        set.flags.timeout = true;
        let (timeout, expires) = (Some(Duration::from_secs(60)), Some(Duration::from_secs(9)));
        let timed = |port| Element { timeout, expires, ..start(port) };
        let rest = |seconds, port| Element { expires: Some(Duration::from_secs(seconds)), ..timed(port) };
        // An end that is left of a range that has run out counts for nothing.
        let (old, new) = ([rest(5, 1), end(6), end(30)], [timed(1), end(6), timed(10), end(20)]);
        assert_eq!(changed(&set, &old, &new), by_steps(&[], &[timed(10), end(20)]));
    }

    #[test]
    fn what_leads_elsewhere_goes_and_comes() {
        let to = |verdict| ElementData::Verdict(verdict);
        let leading = |port, verdict| Element::leading(Data::be16(port), to(verdict));
        let old = [leading(1, Verdict::Accept), end(6), leading(6, Verdict::Drop), end(9)];
        let new = [leading(1, Verdict::Drop), end(6), leading(6, Verdict::Drop), end(9)];
        assert_eq!(
            changed(&set(true), &old, &new),
            by_steps(&[start(1), end(6)], &[leading(1, Verdict::Drop), end(6)])
        );
        let (old, new) = ([leading(1, Verdict::Accept)], [leading(1, Verdict::Drop)]);
        assert_eq!(changed(&set(false), &old, &new), by_steps(&[start(1)], &new));
    }
}
