//! Rules that are whole, and their way into rulesets and transactions.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use super::Elements;
use crate::nft::{Element, Expr, Object, Rule, Ruleset, Set, SetName, TableId, Transaction, Verb};

/// A rule that is whole: its expressions, and the sets that belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a rule does nothing until it is pushed onto a ruleset or transaction and committed"]
pub struct Written {
    pub(super) rule: Rule,
    pub(super) sets: Vec<(Set, Vec<Element>)>,
}

impl Written {
    /// The rule. Sets that belong to it have names that are numbered from 0 on.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// The sets that belong to the rule, with their elements.
    pub fn sets(&self) -> &[(Set, Vec<Element>)] {
        &self.sets
    }

    /// Gives each set another name.
    fn rename(&mut self, mut fresh: impl FnMut(&Set) -> Option<SetName>) {
        for (set, _) in &mut self.sets {
            let Some(name) = fresh(set) else { continue };
            for used in self.rule.exprs.iter_mut().filter_map(Expr::set_mut).filter(|used| **used == set.name) {
                used.clone_from(&name);
            }
            set.name = name;
        }
    }
}

impl Ruleset {
    /// Appends a rule and the sets that belong to it, under names that are free in its table.
    ///
    /// Each call looks at all sets: of many rules with sets of their own [`Self::push_rules`] makes less work.
    pub fn push_rule(&mut self, written: Written) {
        self.push_rules([written]);
    }

    /// Appends rules as [`Self::push_rule`] does.
    pub fn push_rules(&mut self, all: impl IntoIterator<Item = Written>) {
        let mut free = Free::default();
        for mut written in all {
            if !written.sets.is_empty() {
                // Renamed in two steps, so that a new name is never mistaken for one that is still to be changed.
                written.rename(|set| SetName::new(&format!("_{}", set.name)).ok());
                written.rename(|set| free.name(set, &self.sets));
            }
            for (set, elements) in written.sets {
                self.elements.push((set.table.clone(), set.name.clone(), elements));
                self.sets.push(set);
            }
            self.rules.push(written.rule);
        }
    }

    /// Appends elements of one of its sets.
    pub fn push_elements(&mut self, Elements { table, set, mut elements }: Elements) {
        let before = self.elements.iter().rev().filter(|(of, name, _)| *name == set && *of == table);
        if elements.first().is_some_and(is_below_all) && before.flat_map(|(.., all)| all.first()).any(is_below_all) {
            elements.remove(0);
        }
        self.elements.push((table, set, elements));
    }
}

/// Numbers for names of sets that no set of a table has yet.
#[derive(Default)]
struct Free(HashMap<(TableId, &'static str), Option<u64>>);

impl Free {
    /// A name for a set, when there are such sets already.
    fn name(&mut self, set: &Set, sets: &[Set]) -> Option<SetName> {
        let kind = kind_of(set);
        let next = self.0.entry((set.table.clone(), kind)).or_insert_with(|| {
            let numbers = sets.iter().filter(|other| other.table == set.table).filter_map(|other| {
                let number = other.name.as_str().strip_prefix("__")?.strip_prefix(kind)?;
                number.parse::<u64>().ok()
            });
            numbers.max().map_or(Some(0), |last| last.checked_add(1))
        });
        let number = (*next)?;
        *next = number.checked_add(1);
        SetName::new(&format!("__{kind}{number}")).ok()
    }
}

/// Whether it says that what is below the first range is outside.
fn is_below_all(element: &Element) -> bool {
    element.interval_end && element.key.as_bytes().iter().all(|byte| *byte == 0)
}

impl Transaction {
    /// Appends what adds or inserts a rule, and the sets that belong to it in front of it.
    ///
    /// The sets get names that no other has, for the table may hold what is not known here.
    pub fn push_rule(&mut self, verb: Verb, mut written: Written) {
        written.rename(|set| {
            let unique = RandomState::new().hash_one(&set.name);
            SetName::new(&format!("__{}-{unique:016x}", kind_of(set))).ok()
        });
        for (set, elements) in written.sets {
            let (table, name) = (set.table.clone(), set.name.clone());
            self.push(Verb::Create, Object::Set(set));
            self.push(Verb::Add, Object::Elements { table, set: name, elements });
        }
        self.push(verb, Object::Rule(written.rule));
    }

    /// Appends what adds or deletes elements of a set.
    ///
    /// What says that nothing below the first range is in a set belongs to all of its ranges: it is added if it is not there, and stays.
    pub fn push_elements(&mut self, verb: Verb, Elements { table, set, mut elements }: Elements) {
        if verb != Verb::Add && elements.first().is_some_and(is_below_all) {
            let below = elements.remove(0);
            if verb == Verb::Create {
                self.push(
                    Verb::Add,
                    Object::Elements { table: table.clone(), set: set.clone(), elements: vec![below] },
                );
            }
        }
        self.push(verb, Object::Elements { table, set, elements });
    }
}

fn kind_of(set: &Set) -> &'static str {
    if set.data.is_some() { "map" } else { "set" }
}
