//! What must be done to one ruleset so that it becomes another.

use std::collections::{HashMap, HashSet};

use super::{
    Chain, ChainName, Element, Expr, Flowtable, Object, Operation, Rule, Ruleset, Set, SetName, StatefulObject, Table,
    TableId, Transaction, Verb,
};

/// The transaction after which a namespace that has `have` has `want`. Empty when they say the same.
///
/// Tables that `want` lacks are deleted. What is the same stays as it is: rules keep their counters, sets their elements, and no packet sees
/// a table go and come. Within a chain, rules are compared as a row: what is in both stays, what is new is put in its place. Values that the
/// kernel counts (counters, quotas that were used, when an element runs out) make no difference, nor do handles.
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
            Some(there) if can_stay(there, table) && old.can_become(&new) => {
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

/// What is in one table.
struct Part<'a> {
    chains: Vec<&'a Chain>,
    objects: Vec<&'a StatefulObject>,
    flowtables: Vec<&'a Flowtable>,
    sets: Vec<&'a Set>,
    elements: HashMap<&'a SetName, Vec<&'a Element>>,
    rules: HashMap<&'a ChainName, Vec<&'a Rule>>,
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
        Self {
            chains: ruleset.chains.iter().filter(|chain| chain.table == *id).collect(),
            objects: ruleset.objects.iter().filter(|object| object.table == *id).collect(),
            flowtables: ruleset.flowtables.iter().filter(|flowtable| flowtable.table == *id).collect(),
            sets: ruleset.sets.iter().filter(|set| set.table == *id).collect(),
            elements,
            rules,
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

    /// Whether it can be changed step by step. Where something that stays by name changes its nature, and where rules with sets
    /// or chains of their own differ, the table is made anew.
    fn can_become(&self, want: &Part<'_>) -> bool {
        let chains = self.chains.iter().all(|old| {
            let new = want.chains.iter().find(|new| new.name == old.name);
            new.is_none_or(|new| plain_chain(old) == plain_chain(new))
        });
        let sets = self.sets.iter().all(|old| {
            want.sets.iter().find(|new| new.name == old.name).is_none_or(|new| still_set(old) == still_set(new))
        });
        let objects = self.objects.iter().all(|old| {
            let new = want.objects.iter().find(|new| (&new.name, new.state.kind()) == (&old.name, old.state.kind()));
            new.is_none_or(|new| still_object(old) == still_object(new))
        });
        let flowtables = self
            .flowtables
            .iter()
            .all(|old| want.flowtables.iter().find(|new| new.name == old.name).is_none_or(|new| old == new));
        let fixed = |set: &&Set| set.flags.anonymous || set.flags.constant;
        let same_fixed = self.sets.iter().chain(&want.sets).filter(|set| fixed(set)).all(|set| {
            let there = |part: &Part<'_>| part.sets.iter().any(|other| other.name == set.name);
            there(self) && there(want) && self.elements_of(&set.name) == want.elements_of(&set.name)
        });
        let bound = |part: &Part<'_>| -> Vec<String> {
            let names = part.chains.iter().filter(|chain| chain.flags.binding).map(|chain| &chain.name);
            names.map(|name| format!("{:?}", part.rules_of(name))).collect()
        };
        // A rule with a set or chain of its own can't be made anew alone: its own would have to be, too.
        let owners = |part: &Part<'_>| -> Vec<Rule> {
            let rules = part.chains.iter().flat_map(|chain| part.rules_of(&chain.name));
            rules.filter(|rule| rule.exprs.iter().any(|expr| part.owned_by(expr))).collect()
        };
        chains
            && sets
            && objects
            && flowtables
            && same_fixed
            && bound(self) == bound(want)
            && owners(self) == owners(want)
    }

    fn owned_by(&self, expr: &Expr) -> bool {
        let set = expr.set().is_some_and(|name| self.sets.iter().any(|set| set.flags.anonymous && set.name == *name));
        let chain = |name: &ChainName| self.chains.iter().any(|chain| chain.flags.binding && chain.name == *name);
        set || expr.chain().is_some_and(chain)
    }

    /// Elements without what the kernel counts, in an order of their own.
    fn elements_of(&self, set: &SetName) -> Vec<Element> {
        let mut all: Vec<Element> =
            self.elements.get(set).into_iter().flatten().map(|element| still_element(element)).collect();
        all.sort_by(|a, b| place(a).cmp(&place(b)));
        all
    }

    fn rules_of(&self, chain: &ChainName) -> Vec<Rule> {
        self.rules.get(chain).into_iter().flatten().map(|rule| still_rule(rule)).collect()
    }

    fn become_(&self, want: &Part<'_>, steps: &mut Vec<Operation>) {
        // First what others will refer to.
        for new in &want.chains {
            match self.chains.iter().find(|old| old.name == new.name) {
                Some(old) if old == new => {}
                // New, or of another policy.
                _ => steps.push(step(Verb::Add, Object::Chain((*new).clone()))),
            }
        }
        for new in &want.objects {
            if !self.objects.iter().any(|old| (&old.name, old.state.kind()) == (&new.name, new.state.kind())) {
                steps.push(step(Verb::Add, Object::Stateful((*new).clone())));
            }
        }
        for new in &want.sets {
            if !self.sets.iter().any(|old| old.name == new.name) {
                steps.push(step(Verb::Add, Object::Set((*new).clone())));
            }
        }
        for new in &want.flowtables {
            if !self.flowtables.iter().any(|old| old.name == new.name) {
                steps.push(step(Verb::Add, Object::Flowtable((*new).clone())));
            }
        }
        for set in &want.sets {
            self.elements(set, want, steps);
        }
        for chain in &want.chains {
            self.row(chain, want, steps);
        }
        // At last what nothing refers to any more.
        let gone = |name: &ChainName| !want.chains.iter().any(|new| new.name == *name);
        let chains: Vec<_> = self.chains.iter().filter(|chain| gone(&chain.name)).collect();
        for chain in &chains {
            if self.rules.contains_key(&chain.name) {
                steps.push(step(Verb::Flush, Object::Chain((**chain).clone())));
            }
        }
        for set in self.sets.iter().filter(|old| !want.sets.iter().any(|new| new.name == old.name)) {
            steps.push(step(Verb::Delete, Object::Set((*set).clone())));
        }
        for chain in chains {
            steps.push(step(Verb::Delete, Object::Chain((*chain).clone())));
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
        if set.flags.dynamic && want.elements_of(&set.name).is_empty() {
            return;
        }
        let (old, new) = (self.elements_of(&set.name), want.elements_of(&set.name));
        if old == new {
            return;
        }
        let of =
            |elements: Vec<Element>| Object::Elements { table: set.table.clone(), set: set.name.clone(), elements };
        // The bounds of ranges mean something together only, so such a set is filled anew.
        if set.flags.interval && set.key.0.len() == 1 {
            if !old.is_empty() {
                steps.push(step(Verb::Flush, of(Vec::new())));
            }
            if !new.is_empty() {
                steps.push(step(Verb::Add, of(new)));
            }
            return;
        }
        let missing = |from: &[Element], other: &[Element]| -> Vec<Element> {
            let there = |element: &Element| other.binary_search_by(|other| place(other).cmp(&place(element))).ok();
            let differs = |element: &&Element| there(element).is_none_or(|index| other[index] != **element);
            from.iter().filter(differs).cloned().collect()
        };
        let (gone, come) = (missing(&old, &new), missing(&new, &old));
        if !gone.is_empty() {
            steps.push(step(Verb::Delete, of(gone)));
        }
        if !come.is_empty() {
            steps.push(step(Verb::Add, of(come)));
        }
    }

    /// Takes out and puts in rules of a chain: those of the longest row that both have in common stay.
    fn row(&self, chain: &Chain, want: &Part<'_>, steps: &mut Vec<Operation>) {
        let (old, new) = (self.rules_of(&chain.name), want.rules_of(&chain.name));
        let handles: Vec<_> = self.rules.get(&chain.name).into_iter().flatten().map(|rule| rule.handle).collect();
        let originals: Vec<_> = want.rules.get(&chain.name).into_iter().flatten().collect();
        let stays = common(&old, &new);
        let kept: HashSet<usize> = stays.iter().map(|(index, _)| *index).collect();
        for (index, handle) in handles.iter().enumerate().filter(|(index, _)| !kept.contains(index)) {
            let rule = Rule { handle: *handle, ..Rule::new(&chain.table, &old[index].chain) };
            steps.push(step(Verb::Delete, Object::Rule(rule)));
        }
        let mut stays = stays.into_iter().peekable();
        for (index, rule) in originals.into_iter().enumerate() {
            match stays.peek() {
                Some((_, here)) if *here == index => {
                    stays.next();
                }
                // In front of the next that stays, or at the end.
                next => {
                    let position = next.and_then(|(before, _)| handles.get(*before).copied().flatten());
                    let verb = if position.is_some() { Verb::Insert } else { Verb::Add };
                    let rule = Rule { handle: None, position, ..(*rule).clone() };
                    steps.push(step(verb, Object::Rule(rule)));
                }
            }
        }
    }
}

/// The places of a longest row that two rows of rules have in common.
///
/// What is the same at both ends is cut off first, so that a change in the middle of a long chain costs no more than the change.
fn common(old: &[Rule], new: &[Rule]) -> Vec<(usize, usize)> {
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

/// A chain without what can be changed: its policy. Devices have no order.
fn plain_chain(chain: &Chain) -> Chain {
    let mut chain = chain.clone();
    if let Some(base) = &mut chain.base {
        base.policy = super::ChainPolicy::Accept;
        base.devices.sort();
    }
    chain
}

/// Where an element stands among those of its set. Where one range ends and the next begins, the end comes first: the kernel takes no
/// beginning within a range.
fn place(element: &Element) -> (&super::Data, Option<&super::Data>, bool, bool) {
    (&element.key, element.key_end.as_ref(), !element.interval_end, element.catch_all)
}

/// What the kernel makes of a burst of 0: `NFT_LIMIT_PKT_BURST_DEFAULT`.
const DEFAULT_BURST: u32 = 5;

/// Forgets what the kernel counts, and spells what was not said as the kernel's dump does.
fn still_expr(expr: &mut Expr) {
    match expr {
        Expr::Counter { packets, bytes } => (*packets, *bytes) = (0, 0),
        Expr::Quota(quota) => quota.used = 0,
        Expr::Last { set, milliseconds } => (*set, *milliseconds) = (false, 0),
        Expr::Dynset(dynset) => dynset.exprs.iter_mut().for_each(still_expr),
        // What the kernel makes of a threshold or burst that was not said.
        Expr::Log(super::Log { queue_threshold: threshold @ Some(0), .. }) => *threshold = None,
        Expr::Nat(nat) => {
            // Set by the kernel where there are addresses and ports.
            nat.flags.0 |= u32::from(nat.addresses.is_some()) | u32::from(nat.ports.is_some()) << 1;
        }
        Expr::Limit(super::Limit { burst: burst @ 0, bytes: false, .. }) => *burst = DEFAULT_BURST,
        _ => {}
    }
}

/// A rule without its numbers and what the kernel counts, for comparison.
pub(crate) fn still_rule(rule: &Rule) -> Rule {
    let mut rule = Rule { handle: None, position: None, ..rule.clone() };
    rule.exprs.iter_mut().for_each(still_expr);
    rule
}

/// A set without what the kernel counts by the expressions that its elements are given, for comparison.
pub(crate) fn still_set(set: &Set) -> Set {
    let mut set = set.clone();
    set.exprs.iter_mut().for_each(still_expr);
    set
}

/// An element without what the kernel counts, for comparison.
pub(crate) fn still_element(element: &Element) -> Element {
    let mut element = Element { expires: None, ..element.clone() };
    element.exprs.iter_mut().for_each(still_expr);
    element
}

/// An object without what the kernel counts, for comparison.
pub(crate) fn still_object(object: &StatefulObject) -> StatefulObject {
    let mut object = object.clone();
    match &mut object.state {
        super::State::Counter { packets, bytes } => (*packets, *bytes) = (0, 0),
        super::State::Quota(quota) => quota.used = 0,
        _ => {}
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{Data, Datatype, Family, Handle, KeyType, TableName, Verdict};

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
        assert_eq!(steps(&have, &want), ["delete 1 elements of set inet t s", "add 2 elements of set inet t s"]);
    }

    #[test]
    fn a_range_ends_before_the_next_begins() {
        let have = ruleset(&[], &[]);
        let mut want = have.clone();
        want.sets[0].flags.interval = true;
        let have = Ruleset { sets: want.sets.clone(), ..have };
        let start = |port| Element::new(Data::be16(port));
        let end = |port| Element { interval_end: true, ..start(port) };
        want.elements[0].2 = vec![start(6), start(1), end(6), end(0), end(9)];
        let transaction = diff(&have, &want);
        let [Operation { verb: Verb::Add, object: Object::Elements { elements, .. } }] = transaction.operations()
        else {
            panic!("{transaction:?}");
        };
        assert_eq!(*elements, [end(0), start(1), end(6), start(6), end(9)]);
    }

    #[test]
    fn what_changes_its_nature_is_made_anew() {
        let (have, mut want) = (ruleset(&[1], &[]), ruleset(&[1], &[]));
        want.sets[0].key = KeyType(vec![Datatype::Mark]);
        assert_eq!(steps(&have, &want)[..2], ["delete table inet t", "create table inet t"]);
        assert_eq!(steps(&have, &Ruleset::default()), ["delete table inet t"]);
    }
}
