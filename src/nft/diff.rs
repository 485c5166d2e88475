//! What must be done to one ruleset so that it becomes another.

mod elements;
mod rows;

use std::collections::{HashMap, HashSet};

use self::elements::{Change, change, same, still_elements};
use super::still::{filled, fixed_chain, same_object, still_chain, still_flowtable, still_rule, still_set};
use super::{
    Chain, ChainName, Element, Flowtable, Object, Operation, Rule, Ruleset, Set, SetName, StatefulObject, Table,
    TableId, Transaction, Verb,
};

/// The kernel follows jumps no deeper.
const MAX_DEPTH: usize = 16;

/// The transaction after which a namespace that has `have` has `want`. Empty when they say the same.
///
/// Tables that `want` lacks are deleted. What is the same stays as it is: rules keep their counters, sets their elements, and no packet sees
/// a table go and come. Within a chain, rules are compared as a row: what is in both stays, what is new is put in its place. Values that the
/// kernel counts (counters, quotas that were used, when an element runs out) make no difference, nor do handles, nor what the kernel makes of
/// what `want` does not say (the size of a dynamic set, the level of a log statement, times of states that a time-out policy does not name). What belongs to a rule (a set or chain of its own, by its name) is part of it: it comes and goes with the rule.
///
/// A set or chain that is to be of another type is deleted and made anew, and with it every rule of its table: the kernel deletes nothing that
/// something refers to. `have` is what was read from the kernel, so that its rules have handles.
///
/// # Examples
///
/// ```
/// use ringfence::nft::{Chain, ChainName, Family, Rule, Ruleset, Table, TableId, TableName, Verdict, diff};
///
/// let id = TableId { family: Family::Inet, name: TableName::new("guard")? };
/// let chain = ChainName::new("web")?;
/// let have = Ruleset { tables: vec![Table::new(id.clone())], chains: vec![Chain::new(&id, &chain)], ..Ruleset::default() };
/// let mut want = have.clone();
/// want.rules.push(Rule::new(&id, &chain).counter().verdict(Verdict::Accept));
/// let steps: Vec<String> = diff(&have, &want).operations().iter().map(ToString::to_string).collect();
/// assert_eq!(steps, ["add rule inet guard web"]);
/// assert!(diff(&want, &want).operations().is_empty());
/// # Ok::<(), ringfence::nft::NameError>(())
/// ```
pub fn diff(have: &Ruleset, want: &Ruleset) -> Transaction {
    let mut steps = Vec::new();
    let wanted: HashSet<&TableId> = want.tables.iter().map(|table| &table.id).collect();
    for table in have.tables.iter().filter(|table| !wanted.contains(&table.id)) {
        steps.push(step(Verb::Delete, Object::Table(table.clone())));
    }
    for table in &want.tables {
        let there = have.tables.iter().find(|there| there.id == table.id);
        let (old, new) = (Part::of(have, &table.id), Part::of(want, &table.id));
        match there {
            Some(there) if can_stay(there, table) && old.can_become(&new) && old.can_wake(there, &new, table) => {
                if there.flags != table.flags {
                    steps.push(step(Verb::Add, Object::Table(table.clone())));
                }
                old.become_(&new, &mut steps);
            }
            there => {
                if there.is_some() {
                    steps.push(step(Verb::Delete, Object::Table(table.clone())));
                }
                let whole = new.whole(table);
                steps.extend(whole.into_transaction().operations().iter().cloned());
            }
        }
    }
    steps.into_iter().collect()
}

fn step(verb: Verb, object: Object) -> Operation {
    Operation { verb, object }
}

/// Whether one table can be made of the other without deleting it: a comment can't be changed, nor an owner.
fn can_stay(have: &Table, want: &Table) -> bool {
    let flags = (have.flags.owner, have.flags.persist) == (want.flags.owner, want.flags.persist);
    flags && have.comment == want.comment && have.extra == want.extra
}

/// Sets and chains with what is in them.
type Strays = (Vec<(Set, Vec<Element>)>, Vec<(Chain, Vec<Rule>)>);

/// What is in one table.
struct Part<'a> {
    chains: Vec<&'a Chain>,
    objects: Vec<&'a StatefulObject>,
    flowtables: Vec<&'a Flowtable>,
    sets: Vec<&'a Set>,
    elements: HashMap<&'a SetName, Vec<&'a Element>>,
    rules: HashMap<&'a ChainName, Vec<&'a Rule>>,
    /// Of the sets and chains those that belong to a rule, and come and go with it.
    anonymous: HashMap<&'a SetName, &'a Set>,
    bound: HashMap<&'a ChainName, &'a Chain>,
}

impl<'a> Part<'a> {
    fn of(ruleset: &'a Ruleset, id: &TableId) -> Self {
        let (mut elements, mut rules): (HashMap<_, Vec<_>>, HashMap<_, Vec<_>>) = Default::default();
        for (_, set, of_set) in ruleset.elements.iter().filter(|(table, ..)| table == id) {
            elements.entry(set).or_default().extend(of_set);
        }
        for rule in ruleset.rules.iter().filter(|rule| rule.table == *id) {
            rules.entry(&rule.chain).or_default().push(rule);
        }
        let sets: Vec<&Set> = ruleset.sets.iter().filter(|set| set.table == *id).collect();
        let chains: Vec<&Chain> = ruleset.chains.iter().filter(|chain| chain.table == *id).collect();
        let anonymous = sets.iter().filter(|set| set.flags.anonymous).map(|set| (&set.name, *set)).collect();
        let bound = chains.iter().filter(|chain| chain.flags.binding).map(|chain| (&chain.name, *chain)).collect();
        Self {
            chains,
            objects: ruleset.objects.iter().filter(|object| object.table == *id).collect(),
            flowtables: ruleset.flowtables.iter().filter(|flowtable| flowtable.table == *id).collect(),
            sets,
            elements,
            rules,
            anonymous,
            bound,
        }
    }

    fn whole(&self, table: &Table) -> Ruleset {
        let elements = self.sets.iter().filter_map(|set| {
            let elements = self.elements.get(&set.name)?.iter().copied().cloned().collect();
            Some((set.table.clone(), set.name.clone(), elements))
        });
        let rules = self.chains.iter().filter_map(|chain| self.rules.get(&chain.name)).flatten();
        Ruleset {
            tables: vec![table.clone()],
            chains: self.chains.iter().copied().cloned().collect(),
            objects: self.objects.iter().copied().cloned().collect(),
            flowtables: self.flowtables.iter().copied().cloned().collect(),
            sets: self.sets.iter().copied().cloned().collect(),
            elements: elements.collect(),
            rules: rules.copied().cloned().collect(),
        }
    }

    /// Whether it can be changed step by step. Where something that stays by name changes its nature, the table is made anew.
    fn can_become(&self, want: &Part<'_>) -> bool {
        let chains = self.chains().all(|old| {
            let new = want.chains.iter().find(|new| new.name == old.name);
            new.is_none_or(|new| fixed_chain(old) == fixed_chain(new))
        });
        let filled = filled(want.rules.values().flatten().copied());
        let sets = self.sets().all(|old| {
            let new = want.sets.iter().find(|new| new.name == old.name);
            new.is_none_or(|new| {
                let elements = || !old.flags.constant || same(new, self.elements_of(old), want.elements_of(new));
                let filled = filled.contains(&new.name);
                still_set(old, filled) == still_set(new, filled) && elements()
            })
        });
        let objects = self.objects.iter().all(|old| {
            let new = want.objects.iter().find(|new| (&new.name, new.state.kind()) == (&old.name, old.state.kind()));
            new.is_none_or(|new| same_object(old, new))
        });
        let flowtables = self.flowtables.iter().all(|old| {
            let new = want.flowtables.iter().find(|new| new.name == old.name);
            new.is_none_or(|new| still_flowtable(old) == still_flowtable(new))
        });
        let strays = || self.strays().is_some_and(|strays| want.strays() == Some(strays));
        chains && sets && objects && flowtables && strays()
    }

    /// Whether its flags can be changed: not while base chains come or go, for hooks are set up by both.
    fn can_wake(&self, there: &Table, want: &Part<'_>, table: &Table) -> bool {
        let same = |a: &Part<'_>, b: &Part<'_>| {
            let mut bases = a.chains.iter().filter(|chain| chain.base.is_some());
            bases.all(|chain| b.chains.iter().any(|other| other.name == chain.name))
        };
        there.flags == table.flags || same(self, want) && same(want, self)
    }

    /// Names of the sets and chains whose owners are known. None where one has several, or they are too deep: the kernel has no such.
    fn owned(&self) -> Option<(HashSet<&'a SetName>, HashSet<&'a ChainName>)> {
        let (mut sets, mut chains) = (HashSet::new(), HashSet::new());
        let mut row: Vec<&Chain> = self.chains().collect();
        for _ in 0..=MAX_DEPTH {
            let mut inner = Vec::new();
            for rule in row.into_iter().flat_map(|chain| self.rules_of(chain)) {
                inner.extend(self.chains_of(rule));
                let once = self.sets_of(rule).all(|set| sets.insert(&set.name));
                if !(once && self.chains_of(rule).all(|chain| chains.insert(&chain.name))) {
                    return None;
                }
            }
            row = inner;
        }
        row.is_empty().then_some((sets, chains))
    }

    /// What belongs to a rule that is not known: an expression of a newer kernel may refer to it. Nothing can be changed in it.
    fn strays(&self) -> Option<Strays> {
        let (sets, chains) = self.owned()?;
        let sets = self.sets.iter().filter(|set| set.flags.anonymous && !sets.contains(&set.name));
        let chains = self.chains.iter().filter(|chain| chain.flags.binding && !chains.contains(&chain.name));
        let rules = |chain: &Chain| self.rules_of(chain).iter().map(|rule| still_rule(rule)).collect();
        Some((
            sets.map(|set| (still_set(set, false), still_elements(set, self.elements_of(set)))).collect(),
            chains.map(|chain| ((*chain).clone(), rules(chain))).collect(),
        ))
    }

    /// Sets that belong to a rule.
    fn sets_of(&self, rule: &Rule) -> impl Iterator<Item = &'a Set> {
        rule.exprs.iter().filter_map(|expr| self.anonymous.get(expr.set()?).copied())
    }

    /// Chains that belong to a rule.
    fn chains_of(&self, rule: &Rule) -> impl Iterator<Item = &'a Chain> {
        rule.exprs.iter().filter_map(|expr| self.bound.get(expr.chain()?).copied())
    }

    /// Sets that stand by themselves.
    fn sets(&self) -> impl Iterator<Item = &'a Set> {
        self.sets.iter().copied().filter(|set| !set.flags.anonymous)
    }

    /// Chains that stand by themselves.
    fn chains(&self) -> impl Iterator<Item = &'a Chain> {
        self.chains.iter().copied().filter(|chain| !chain.flags.binding)
    }

    fn elements_of(&self, set: &Set) -> &[&'a Element] {
        self.elements.get(&set.name).map_or(&[], Vec::as_slice)
    }

    fn rules_of(&self, chain: &Chain) -> &[&'a Rule] {
        self.rules.get(&chain.name).map_or(&[], Vec::as_slice)
    }

    fn become_(&self, want: &Part<'_>, steps: &mut Vec<Operation>) {
        // First what others will refer to.
        for new in want.chains() {
            match self.chains.iter().find(|old| old.name == new.name) {
                Some(old) if still_chain(old) == still_chain(new) => {}
                // New, or of another policy.
                _ => steps.push(step(Verb::Add, Object::Chain(new.clone()))),
            }
        }
        for new in &want.objects {
            if !self.objects.iter().any(|old| (&old.name, old.state.kind()) == (&new.name, new.state.kind())) {
                steps.push(step(Verb::Add, Object::Stateful((*new).clone())));
            }
        }
        for new in want.sets() {
            if !self.sets.iter().any(|old| old.name == new.name) {
                steps.push(step(Verb::Add, Object::Set(new.clone())));
            }
        }
        for new in &want.flowtables {
            if !self.flowtables.iter().any(|old| old.name == new.name) {
                steps.push(step(Verb::Add, Object::Flowtable((*new).clone())));
            }
        }
        for set in want.sets() {
            self.elements(set, want, steps);
        }
        // Rules go before any come: what comes may have a set of the name of one that went.
        let gone: Vec<_> = self.chains().filter(|old| !want.chains.iter().any(|new| new.name == old.name)).collect();
        for chain in gone.iter().filter(|chain| !self.rules_of(chain).is_empty()) {
            steps.push(step(Verb::Flush, Object::Chain((*chain).clone())));
        }
        let mut come = Vec::new();
        for chain in want.chains() {
            self.row(chain, want, steps, &mut come);
        }
        steps.append(&mut come);
        // At last what nothing refers to any more.
        for set in self.sets().filter(|old| !want.sets.iter().any(|new| new.name == old.name)) {
            steps.push(step(Verb::Delete, Object::Set(set.clone())));
        }
        for chain in gone {
            steps.push(step(Verb::Delete, Object::Chain(chain.clone())));
        }
        for old in &self.objects {
            if !want.objects.iter().any(|new| (&old.name, old.state.kind()) == (&new.name, new.state.kind())) {
                steps.push(step(Verb::Delete, Object::Stateful((*old).clone())));
            }
        }
        for old in self.flowtables.iter().filter(|old| !want.flowtables.iter().any(|new| new.name == old.name)) {
            steps.push(step(Verb::Delete, Object::Flowtable((*old).clone())));
        }
    }

    /// Takes out and puts in elements of a set.
    fn elements(&self, set: &Set, want: &Part<'_>, steps: &mut Vec<Operation>) {
        // A set that rules fill holds what packets made of it.
        if set.flags.dynamic && want.elements_of(set).is_empty() {
            return;
        }
        let Change { flush, gone, come } = change(set, self.elements_of(set), want.elements_of(set));
        let of =
            |elements: Vec<Element>| Object::Elements { table: set.table.clone(), set: set.name.clone(), elements };
        if flush {
            steps.push(step(Verb::Flush, of(Vec::new())));
        }
        if !gone.is_empty() {
            steps.push(step(Verb::Delete, of(gone)));
        }
        if !come.is_empty() {
            steps.push(step(Verb::Add, of(come)));
        }
    }

    /// Puts its elements into a set that was made just now.
    fn fill(&self, set: &Set, steps: &mut Vec<Operation>) {
        let mut elements: Vec<_> = self.elements_of(set).iter().copied().cloned().collect();
        Element::upwards(&mut elements);
        if !elements.is_empty() {
            let (table, set) = (set.table.clone(), set.name.clone());
            steps.push(step(Verb::Add, Object::Elements { table, set, elements }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{Data, Datatype, Expr, Family, Handle, KeyType, TableName, Verdict};

    fn id() -> TableId {
        TableId { family: Family::Inet, name: TableName::new("t").unwrap() }
    }

    fn rule(port: u16, handle: u64) -> Rule {
        let rule = Rule::new(&id(), &ChainName::new("c").unwrap());
        let mut rule = rule.equals(crate::nft::Field::DPORT, Data::be16(port)).counter().verdict(Verdict::Accept);
        rule.handle = Some(Handle(handle));
        rule
    }

    fn ruleset(ports: &[u16], elements: &[u16]) -> Ruleset {
        let set = Set::new(&id(), &SetName::new("s").unwrap(), KeyType(vec![Datatype::InetService]));
        let elements = elements.iter().map(|port| Element::new(Data::be16(*port))).collect();
        Ruleset {
            tables: vec![Table::new(id())],
            chains: vec![Chain::new(&id(), &ChainName::new("c").unwrap())],
            elements: vec![(id(), set.name.clone(), elements)],
            sets: vec![set],
            rules: ports.iter().zip(1..).map(|(port, handle)| rule(*port, handle)).collect(),
            ..Ruleset::default()
        }
    }

    fn steps(have: &Ruleset, want: &Ruleset) -> Vec<String> {
        diff(have, want).operations().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_a_set_gives_its_elements_may_count() {
        let mut have = ruleset(&[1], &[7]);
        have.sets[0].exprs = vec![Expr::Last { set: true, milliseconds: 4 }];
        let mut want = have.clone();
        want.sets[0].exprs = vec![Expr::Last { set: true, milliseconds: 12 }];
        assert_eq!(steps(&have, &want), [""; 0]);
        want.sets[0].exprs.clear();
        assert_ne!(steps(&have, &want), [""; 0]);
    }

    #[test]
    fn the_same_needs_nothing() {
        let have = ruleset(&[1, 2, 3], &[7]);
        let mut want = have.clone();
        want.rules[1].handle = None;
        want.rules[1].exprs[2] = Expr::Counter { packets: 9, bytes: 9 };
        assert!(steps(&have, &want).is_empty());
    }

    #[test]
    fn rules_that_are_in_both_stay() {
        let have = ruleset(&[1, 2, 3, 4], &[]);
        let want = ruleset(&[1, 9, 3, 5], &[]);
        let transaction = diff(&have, &want);
        let shown: Vec<_> = transaction
            .operations()
            .iter()
            .map(|step| match &step.object {
                Object::Rule(rule) => (step.verb, rule.handle, rule.position),
                other => panic!("{other:?}"),
            })
            .collect();
        let handle = |number| Some(Handle(number));
        assert_eq!(
            shown,
            [
                (Verb::Delete, handle(2), None),
                (Verb::Delete, handle(4), None),
                (Verb::Insert, None, handle(3)),
                (Verb::Add, None, None)
            ]
        );
    }

    #[test]
    fn elements_come_and_go() {
        let (have, want) = (ruleset(&[], &[1, 2, 3]), ruleset(&[], &[2, 3, 4, 5]));
        assert_eq!(steps(&have, &want), ["delete 1 element of set inet t s", "add 2 elements of set inet t s"]);
    }

    /// Gives a rule a set of its own.
    fn own(ruleset: &mut Ruleset, rule: usize, name: &str, ports: &[u16]) {
        let name = SetName::new(name).unwrap();
        let mut set = Set::new(&id(), &name, KeyType(vec![Datatype::InetService]));
        (set.flags.anonymous, set.flags.constant) = (true, true);
        ruleset.sets.push(set);
        let elements = ports.iter().map(|port| Element::new(Data::be16(*port))).collect();
        ruleset.elements.push((id(), name.clone(), elements));
        let sreg = crate::nft::Register::FIRST;
        ruleset.rules[rule].exprs.insert(1, Expr::Lookup { set: name, sreg, negated: false });
    }

    #[test]
    fn what_belongs_to_a_rule_comes_and_goes_with_it() {
        let mut have = ruleset(&[1, 2, 3], &[]);
        own(&mut have, 0, "__set0", &[80, 443]);
        own(&mut have, 2, "__set1", &[53]);
        assert_eq!(steps(&have, &have), [""; 0]);
        // A neighbour changes places with it.
        let mut want = have.clone();
        want.rules.swap(0, 1);
        let anew = [
            "delete rule inet t c handle 1",
            "add set inet t __set0",
            "add 2 elements of set inet t __set0",
            "insert rule inet t c",
        ];
        let by_moving_the_other = ["delete rule inet t c handle 2", "insert rule inet t c"];
        let shown = steps(&have, &want);
        assert!(shown == anew || shown == by_moving_the_other, "{shown:?}");
        // Only what it holds changes.
        let mut want = have.clone();
        want.elements[2].2.push(Element::new(Data::be16(853)));
        let anew = [
            "delete rule inet t c handle 3",
            "add set inet t __set1",
            "add 2 elements of set inet t __set1",
            "add rule inet t c",
        ];
        assert_eq!(steps(&have, &want), anew);
        // The last goes.
        let mut want = have.clone();
        want.rules.pop();
        want.sets.pop();
        want.elements.pop();
        assert_eq!(steps(&have, &want), ["delete rule inet t c handle 3"]);
        // What refers to it may be an expression that is not known.
        let mut unknown = have.clone();
        unknown.rules[2].exprs.remove(1);
        assert_eq!(steps(&unknown, &unknown), [""; 0]);
        // The kernel takes no set that no rule owns, and says so.
        want.rules.remove(0);
        assert_eq!(steps(&have, &want)[0], "delete table inet t");
    }

    /// The kernel has no such chains. They may be in a file.
    #[test]
    fn chains_within_chains_are_followed_no_deeper_than_the_kernel_does() {
        let nested = |depth: u32, first: u32| {
            let mut all = ruleset(&[], &[]);
            let name = |number: u32| ChainName::new(&format!("__chain{number}")).unwrap();
            for number in first..depth {
                let mut chain = Chain::new(&id(), &name(number));
                chain.flags.binding = true;
                all.chains.push(chain);
                let outer = if number == 0 { ChainName::new("c").unwrap() } else { name(number - 1) };
                all.rules.push(Rule::new(&id(), &outer).verdict(Verdict::Jump(name(number))));
            }
            all
        };
        assert_eq!(steps(&nested(16, 0), &nested(16, 0)), [""; 0]);
        assert_eq!(steps(&nested(16, 0), &nested(15, 0))[0], "delete rule inet t c");
        assert_eq!(steps(&ruleset(&[], &[]), &nested(50_000, 0))[0], "delete table inet t");
    }

    #[test]
    fn what_changes_its_nature_is_made_anew() {
        let (have, mut want) = (ruleset(&[1], &[]), ruleset(&[1], &[]));
        want.sets[0].key = KeyType(vec![Datatype::Mark]);
        assert_eq!(steps(&have, &want)[..2], ["delete table inet t", "create table inet t"]);
        assert_eq!(steps(&have, &Ruleset::default()), ["delete table inet t"]);
    }
}
