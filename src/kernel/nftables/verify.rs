//! Whether a table is what it was meant to be.

use std::time::Duration;

use crate::nft::{Chain, Data, Element, Rule, Ruleset, Set, TableId, still_element, still_rule};

/// The coarsest clock of a kernel ticks a hundred times a second, and timeouts are rounded to it.
const TICK: Duration = Duration::from_millis(10);

/// The first difference, as one clause, between a table as it was wanted and as it is.
pub(super) fn difference(id: &TableId, want: &Ruleset, have: &Ruleset) -> Option<String> {
    let table = |ruleset: &Ruleset| ruleset.tables.iter().find(|table| table.id == *id).cloned();
    if table(want) != table(have) {
        return Some(differs(&format!("table {id}"), &table(want), &table(have)));
    }
    let sets = |ruleset: &Ruleset| named(&ruleset.sets, |set| set.table == *id, |set: &Set| set.name.to_string());
    let chains = |ruleset: &Ruleset| {
        let mut chains = named(&ruleset.chains, |chain| chain.table == *id, |chain: &Chain| chain.name.to_string());
        for (_, chain) in &mut chains {
            if let Some(base) = &mut chain.base {
                base.devices.sort();
            }
        }
        chains
    };
    pairs(&format!("set {id}"), &sets(want), &sets(have))
        .or_else(|| pairs(&format!("chain {id}"), &chains(want), &chains(have)))
        .or_else(|| want.sets.iter().filter(|set| set.table == *id).find_map(|set| elements(set, want, have)))
        .or_else(|| want.chains.iter().filter(|chain| chain.table == *id).find_map(|chain| rules(chain, want, have)))
}

fn differs(what: &str, want: &impl std::fmt::Debug, have: &impl std::fmt::Debug) -> String {
    format!("{what} differs: wanted {want:?}, found {have:?}")
}

fn named<T: Clone>(all: &[T], wanted: impl Fn(&T) -> bool, name: impl Fn(&T) -> String) -> Vec<(String, T)> {
    let mut named: Vec<_> = all.iter().filter(|item| wanted(item)).map(|item| (name(item), item.clone())).collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named
}

/// Compares two lists that are sorted by name.
fn pairs<T: PartialEq + std::fmt::Debug>(what: &str, want: &[(String, T)], have: &[(String, T)]) -> Option<String> {
    let there = |list: &[(String, T)], name: &str| list.iter().any(|(other, _)| other == name);
    if let Some((name, _)) = want.iter().find(|(name, _)| !there(have, name)) {
        return Some(format!("{what} {name} is not there"));
    }
    if let Some((name, _)) = have.iter().find(|(name, _)| !there(want, name)) {
        return Some(format!("{what} {name} is there, and was not wanted"));
    }
    let different = want.iter().zip(have).find(|(want, have)| want != have);
    different.map(|((name, want), (_, have))| differs(&format!("{what} {name}"), want, have))
}

/// What identifies an element.
fn place(element: &Element) -> (&Data, Option<&Data>, bool, bool) {
    (&element.key, element.key_end.as_ref(), element.interval_end, element.catch_all)
}

fn elements(set: &Set, want: &Ruleset, have: &Ruleset) -> Option<String> {
    let of = |ruleset: &Ruleset| {
        let all = ruleset.elements.iter().filter(|(table, name, _)| *table == set.table && *name == set.name);
        let mut all: Vec<Element> = all.flat_map(|(_, _, elements)| elements.iter().cloned()).collect();
        for element in &mut all {
            // An end of an interval runs out with its start.
            let own = element.timeout.or(set.timeout).filter(|time| !time.is_zero() && !element.interval_end);
            *element = Element { timeout: own, ..still_element(element) };
        }
        all.sort_by(|a, b| place(a).cmp(&place(b)));
        // What was added twice is there once.
        all.dedup_by(|a, b| place(a) == place(b));
        all
    };
    let (want, have) = (of(want), of(have));
    let what = format!("set {} {}", set.table, set.name);
    let (mut left, mut right) = (want.iter().peekable(), have.iter().peekable());
    loop {
        match (left.next(), right.next()) {
            (None, None) => return None,
            (Some(missing), None) => return Some(format!("element {:?} of {what} is not there", missing.key)),
            (None, Some(extra)) => return Some(format!("element {:?} of {what} was not wanted", extra.key)),
            (Some(want), Some(have)) if place(want) < place(have) => {
                return Some(format!("element {:?} of {what} is not there", want.key));
            }
            (Some(want), Some(have)) if place(want) > place(have) => {
                return Some(format!("element {:?} of {what} was not wanted", have.key));
            }
            (Some(want), Some(have)) => {
                let same = Element { timeout: have.timeout, ..want.clone() };
                if same != *have || !close(want.timeout, have.timeout) {
                    return Some(differs(&format!("an element of {what}"), want, have));
                }
            }
        }
    }
}

fn close(want: Option<Duration>, have: Option<Duration>) -> bool {
    match (want, have) {
        (Some(want), Some(have)) => want.abs_diff(have) <= TICK,
        (want, have) => want == have,
    }
}

fn rules(chain: &Chain, want: &Ruleset, have: &Ruleset) -> Option<String> {
    let of = |ruleset: &'_ Ruleset| -> Vec<Rule> {
        let all = ruleset.rules.iter().filter(|rule| rule.table == chain.table && rule.chain == chain.name);
        all.map(still_rule).collect()
    };
    let (want, have) = (of(want), of(have));
    let what = format!("chain {} {}", chain.table, chain.name);
    if let Some(index) = want.iter().zip(&have).position(|(want, have)| want != have) {
        return Some(differs(&format!("rule {index} of {what}"), &want[index], &have[index]));
    }
    if want.len() != have.len() {
        return Some(format!("{what} has {} rules, {} were wanted", have.len(), want.len()));
    }
    None
}
