//! Whether a table is what it was meant to be.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::nft::{
    Chain, Element, Rule, Ruleset, Set, TableId, filled, same_element, same_object, still_chain, still_flowtable,
    still_rule, still_set,
};

/// The first difference, as one clause, between a table as it was wanted and as it is.
pub(super) fn difference(id: &TableId, want: &Ruleset, have: &Ruleset) -> Option<String> {
    let table = |ruleset: &Ruleset| ruleset.tables.iter().find(|table| table.id == *id).cloned();
    if table(want) != table(have) {
        return Some(differs(&format!("table {id}"), &table(want), &table(have)));
    }
    let filled = filled(want.rules.iter().filter(|rule| rule.table == *id));
    let sets = |ruleset: &Ruleset| {
        named(
            &ruleset.sets,
            |set| set.table == *id,
            |set| (format!("set {id} {}", set.name), still_set(set, filled.contains(&set.name))),
        )
    };
    let chains = |ruleset: &Ruleset| {
        named(
            &ruleset.chains,
            |chain| chain.table == *id,
            |chain| (format!("chain {id} {}", chain.name), still_chain(chain)),
        )
    };
    let objects = |ruleset: &Ruleset| {
        named(
            &ruleset.objects,
            |object| object.table == *id,
            |object| (format!("{} {id} {}", object.state.kind(), object.name), object.clone()),
        )
    };
    let flowtables = |ruleset: &Ruleset| {
        named(
            &ruleset.flowtables,
            |flowtable| flowtable.table == *id,
            |flowtable| (format!("flowtable {id} {}", flowtable.name), still_flowtable(flowtable)),
        )
    };
    pairs(&sets(want), &sets(have), PartialEq::eq)
        .or_else(|| pairs(&chains(want), &chains(have), PartialEq::eq))
        .or_else(|| pairs(&objects(want), &objects(have), |want, have| same_object(have, want)))
        .or_else(|| pairs(&flowtables(want), &flowtables(have), PartialEq::eq))
        .or_else(|| want.sets.iter().filter(|set| set.table == *id).find_map(|set| elements(set, want, have)))
        .or_else(|| want.chains.iter().filter(|chain| chain.table == *id).find_map(|chain| rules(chain, want, have)))
}

fn differs(what: &str, want: &impl std::fmt::Debug, have: &impl std::fmt::Debug) -> String {
    format!("{what} differs: wanted {want:?}, found {have:?}")
}

/// Those of a table, each under what it is called and as it is compared, in order of that.
fn named<T>(all: &[T], of_table: impl Fn(&T) -> bool, as_compared: impl Fn(&T) -> (String, T)) -> Vec<(String, T)> {
    let mut named: Vec<_> = all.iter().filter(|item| of_table(item)).map(as_compared).collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named
}

/// Compares two lists that are sorted by name.
fn pairs<T: std::fmt::Debug>(
    want: &[(String, T)],
    have: &[(String, T)],
    same: impl Fn(&T, &T) -> bool,
) -> Option<String> {
    let there = |list: &[(String, T)], name: &str| list.binary_search_by(|(other, _)| other.as_str().cmp(name)).is_ok();
    if let Some((name, _)) = want.iter().find(|(name, _)| !there(have, name)) {
        return Some(format!("{name} is not there"));
    }
    if let Some((name, _)) = have.iter().find(|(name, _)| !there(want, name)) {
        return Some(format!("{name} is there, and was not wanted"));
    }
    let different = want.iter().zip(have).find(|((_, want), (_, have))| !same(want, have));
    different.map(|((name, want), (_, have))| differs(name, want, have))
}

fn elements(set: &Set, want: &Ruleset, have: &Ruleset) -> Option<String> {
    fn of<'a>(ruleset: &'a Ruleset, set: &Set) -> impl Iterator<Item = &'a Element> {
        let all = ruleset.elements.iter().filter(|(table, name, _)| *table == set.table && *name == set.name);
        all.flat_map(|(_, _, elements)| elements)
    }
    // What packets add is not wanted or unwanted, as in a difference.
    if set.flags.dynamic && of(want, set).next().is_none() {
        return None;
    }
    let what = format!("set {} {}", set.table, set.name);
    // There may be a great many of them. What was added twice is there once.
    let mut wanted = HashMap::new();
    for element in of(want, set) {
        wanted.entry(element.place()).or_insert((element, false));
    }
    for element in of(have, set) {
        match wanted.entry(element.place()) {
            Entry::Vacant(_) => return Some(format!("element {:?} of {what} was not wanted", element.key)),
            Entry::Occupied(mut there) => {
                let (want, seen) = there.get_mut();
                if !same_element(set, want, element) {
                    return Some(differs(&format!("an element of {what}"), want, element));
                }
                *seen = true;
            }
        }
    }
    let missing = of(want, set).find(|element| wanted.get(&element.place()).is_none_or(|(_, seen)| !seen));
    missing.map(|element| format!("element {:?} of {what} is not there", element.key))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{Extra, Family, Flowtable, FlowtableName, InterfaceName, Priority, Table, TableName};

    /// The kernels of tests may have no flowtables.
    #[test]
    fn flowtables_are_compared() {
        let id = TableId { family: Family::Inet, name: TableName::new("t").unwrap() };
        let flowtable = Flowtable {
            table: id.clone(),
            name: FlowtableName::new("fast").unwrap(),
            priority: Priority(0),
            devices: ["b", "a"].map(|name| InterfaceName::new(name).unwrap()).to_vec(),
            offload: false,
            counter: false,
            extra: Extra::default(),
        };
        let want =
            Ruleset { tables: vec![Table::new(id.clone())], flowtables: vec![flowtable.clone()], ..Ruleset::default() };
        let of = |flowtables| difference(&id, &want, &Ruleset { flowtables, ..want.clone() });
        let (mut turned, mut other) = (flowtable.clone(), flowtable.clone());
        turned.devices.reverse();
        other.counter = true;
        assert_eq!(of(vec![turned]), None);
        assert_eq!(of(vec![]).as_deref(), Some("flowtable inet t fast is not there"));
        assert!(of(vec![other]).is_some_and(|clause| clause.starts_with("flowtable inet t fast differs")));
        let more = Flowtable { name: FlowtableName::new("more").unwrap(), ..flowtable.clone() };
        assert_eq!(of(vec![flowtable, more]).as_deref(), Some("flowtable inet t more is there, and was not wanted"));
    }
}
