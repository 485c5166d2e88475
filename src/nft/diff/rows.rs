//! What must be done to the rules of a chain, so that it has others.

use std::collections::HashSet;

use super::super::still::{still_rule, still_set};
use super::super::{Chain, Element, Object, Operation, Rule, Set, Verb};
use super::elements::still_elements;
use super::{Part, step};

/// A rule as it is compared, with what is its own: the sets and chains that come and go with it.
#[derive(PartialEq)]
struct Whole {
    rule: Rule,
    sets: Vec<(Set, Vec<Element>)>,
    chains: Vec<(Chain, Vec<Whole>)>,
}

impl Part<'_> {
    fn whole_rules(&self, chain: &Chain) -> Vec<Whole> {
        let whole = |rule: &&Rule| Whole {
            rule: still_rule(rule),
            sets: self
                .sets_of(rule)
                .map(|set| (still_set(set, false), still_elements(set, self.elements_of(set))))
                .collect(),
            chains: self.chains_of(rule).map(|chain| (chain.clone(), self.whole_rules(chain))).collect(),
        };
        self.rules_of(chain).iter().map(whole).collect()
    }

    /// Puts out the rules of a chain that do not stay, and gives what puts in those that come. Those of the longest row that both have in
    /// common stay.
    pub(super) fn row(&self, chain: &Chain, want: &Part<'_>, steps: &mut Vec<Operation>, come: &mut Vec<Operation>) {
        let (old, new) = (self.rules_of(chain), want.rules_of(chain));
        let stays = common(&self.whole_rules(chain), &want.whole_rules(chain));
        let kept: HashSet<usize> = stays.iter().map(|(index, _)| *index).collect();
        for (_, rule) in old.iter().enumerate().filter(|(index, _)| !kept.contains(index)) {
            let rule = Rule { handle: rule.handle, ..Rule::new(&rule.table, &rule.chain) };
            steps.push(step(Verb::Delete, Object::Rule(rule)));
        }
        let mut stays = stays.into_iter().peekable();
        for (index, rule) in new.iter().enumerate() {
            match stays.peek() {
                Some((_, here)) if *here == index => {
                    stays.next();
                }
                // In front of the next that stays, or at the end.
                next => {
                    let position = next.and_then(|(before, _)| old[*before].handle);
                    let verb = if position.is_some() { Verb::Insert } else { Verb::Add };
                    want.put(verb, Rule { handle: None, position, ..(*rule).clone() }, come);
                }
            }
        }
    }

    /// Puts in a rule. Its own come first: a chain with its rules, for once the rule refers to it it takes no more.
    fn put(&self, verb: Verb, rule: Rule, steps: &mut Vec<Operation>) {
        for chain in self.chains_of(&rule) {
            steps.push(step(Verb::Add, Object::Chain(chain.clone())));
            for inner in self.rules_of(chain) {
                self.put(Verb::Add, (*inner).clone(), steps);
            }
        }
        for set in self.sets_of(&rule) {
            steps.push(step(Verb::Add, Object::Set(set.clone())));
            self.fill(set, steps);
        }
        steps.push(step(verb, Object::Rule(rule)));
    }
}

/// The places of a longest row that two rows have in common.
///
/// What is the same at both ends is cut off first, so that a change in the middle of a long chain costs no more than the change.
fn common<T: PartialEq>(old: &[T], new: &[T]) -> Vec<(usize, usize)> {
    let head = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let (rest_old, rest_new) = (&old[head..], &new[head..]);
    let tail = rest_old.iter().rev().zip(rest_new.iter().rev()).take_while(|(old, new)| old == new).count();
    let (middle_old, middle_new) = (&rest_old[..rest_old.len() - tail], &rest_new[..rest_new.len() - tail]);
    let mut pairs: Vec<(usize, usize)> = (0..head).map(|index| (index, index)).collect();
    // Larger ones are made anew: the table for them would be.
    const MOST: usize = 4_000_000;
    let (rows, columns) = (middle_old.len(), middle_new.len());
    if rows > 0 && columns > 0 && rows.saturating_mul(columns) <= MOST {
        // lengths[i][j]: how long the longest common row of what is behind i and j is.
        let mut lengths = vec![0u32; (rows + 1) * (columns + 1)];
        let at = |i: usize, j: usize| i * (columns + 1) + j;
        for i in (0..rows).rev() {
            for j in (0..columns).rev() {
                lengths[at(i, j)] = if middle_old[i] == middle_new[j] {
                    lengths[at(i + 1, j + 1)] + 1
                } else {
                    lengths[at(i + 1, j)].max(lengths[at(i, j + 1)])
                };
            }
        }
        let (mut i, mut j) = (0, 0);
        while i < rows && j < columns {
            if middle_old[i] == middle_new[j] {
                pairs.push((head + i, head + j));
                (i, j) = (i + 1, j + 1);
            } else if lengths[at(i + 1, j)] >= lengths[at(i, j + 1)] {
                i += 1;
            } else {
                j += 1;
            }
        }
    }
    pairs.extend((0..tail).map(|index| (old.len() - tail + index, new.len() - tail + index)));
    pairs
}
