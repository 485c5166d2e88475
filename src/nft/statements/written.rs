//! Rules that are whole, and their way into rulesets and transactions.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use super::Elements;
use crate::nft::{Element, Expr, Object, Rule, Ruleset, Set, SetName, Transaction, Verb};

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
    pub fn push_rule(&mut self, mut written: Written) {
        if !written.sets.is_empty() {
            let table = written.rule.table.clone();
            let mut taken: HashSet<SetName> = HashSet::new();
            taken.extend(self.sets.iter().filter(|set| set.table == table).map(|set| set.name.clone()));
            // Renamed in two steps, so that a new name is never mistaken for one that is still to be changed.
            written.rename(|set| SetName::new(&format!("_{}", set.name)).ok());
            written.rename(|set| {
                let kind = kind_of(set);
                let mut names = (0..=taken.len()).filter_map(|n| SetName::new(&format!("__{kind}{n}")).ok());
                let name = names.find(|name| !taken.contains(name))?;
                taken.insert(name.clone());
                Some(name)
            });
        }
        for (set, elements) in written.sets {
            self.elements.push((set.table.clone(), set.name.clone(), elements));
            self.sets.push(set);
        }
        self.rules.push(written.rule);
    }

    /// Appends elements of one of its sets.
    pub fn push_elements(&mut self, Elements { table, set, elements }: Elements) {
        self.elements.push((table, set, elements));
    }
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
    pub fn push_elements(&mut self, verb: Verb, Elements { table, set, elements }: Elements) {
        self.push(verb, Object::Elements { table, set, elements });
    }
}

fn kind_of(set: &Set) -> &'static str {
    if set.data.is_some() { "map" } else { "set" }
}
