//! Whether the kernel has told of everything.
//!
//! A dump leaves things out, without a word, for two reasons. Somebody prepares a transaction and gives it up, as `nft -c` does, while a dump of several
//! datagrams is under way: it goes on at the wrong place. And a rule has no room: the kernel writes a dump into one buffer after another, none
//! larger than 32 KiB, and ends it at a rule that does not fit an empty one. That rule is missing then, and so are all those behind it, in its
//! chain and in every chain and table to come.
//!
//! What tells of either is what the kernel counts: of a table, what is in it; of a chain, its rules and whatever jumps to it; of a set, its elements. Where
//! the counts are those of what was told, one look is enough. They may differ for good reasons, too: others prepare something, elements have run
//! out that were not cleared away, a kernel before 6.17 does not count elements. Then it is looked at again, until the counts agree or,
//! where one of the others may be why they do not, several looks in a row tell the same.

use std::collections::{HashMap, HashSet};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::elements::{looks_at, miscounted, nothing_lost, same_elements};
use super::{Socket, refusal};
use crate::nft::{
    Chain, ChainName, DynsetOp, Element, ElementData, Expr, Handle, MapTo, Ruleset, Set, SetName, Table, TableId,
    Verdict,
};
use crate::wire::nftables::Request;
use crate::{Error, ErrorKind, Result};

/// How many looks in a row must tell the same where counts differ from it.
pub(super) const LOOKS: usize = 3;

/// No number of looks is enough: it is looked at until the counts agree.
pub(super) const NEVER: usize = usize::MAX;

/// How often a chain's count is read before it is believed, and how long is waited in between.
const COUNTS: usize = 20;
const BETWEEN_COUNTS: Duration = Duration::from_millis(5);

/// How many handles are asked for to find a rule that can't be read. A question takes some 25 µs.
const QUESTIONS: u64 = 1 << 16;

/// What a look at the ruleset, or at one table, gave.
#[derive(Default)]
pub(super) struct Seen {
    pub ruleset: Ruleset,
    tables: HashMap<TableId, u32>,
    chains: HashMap<(TableId, ChainName), u32>,
    sets: HashMap<(TableId, SetName), u32>,
    /// How many looks like it the elements of the sets take.
    looks: usize,
    /// A set whose elements nothing explains.
    unexplained: Option<String>,
    /// Sets that rules change, and whether some take elements out.
    changed: HashMap<(TableId, SetName), bool>,
    /// Those of them that are counted to have more than was told.
    doubted: HashSet<(TableId, SetName)>,
    /// When the look began.
    begun: Moment,
}

/// When it was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment(Instant);

impl Default for Moment {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Seen {
    pub fn table(&mut self, table: Table, count: Option<u32>) {
        self.tables.extend(count.map(|count| (table.id.clone(), count)));
        self.ruleset.tables.push(table);
    }

    pub fn set(&mut self, set: Set, count: Option<u32>) {
        self.sets.extend(count.map(|count| ((set.table.clone(), set.name.clone()), count)));
        self.ruleset.sets.push(set);
    }

    pub fn chain(&mut self, chain: Chain, count: Option<u32>) {
        self.chains.extend(count.map(|count| ((chain.table.clone(), chain.name.clone()), count)));
        self.ruleset.chains.push(chain);
    }

    /// Notes which sets rules change. All sets and rules were told.
    pub fn find_changed(&mut self) {
        let Ruleset { sets, rules, .. } = &self.ruleset;
        let dynamic = sets.iter().filter(|set| set.flags.dynamic);
        self.changed.extend(dynamic.map(|set| ((set.table.clone(), set.name.clone()), false)));
        for rule in rules {
            for expr in &rule.exprs {
                if let Expr::Dynset(change) = expr {
                    let deletes = self.changed.entry((rule.table.clone(), change.set.clone())).or_default();
                    *deletes |= change.op == DynsetOp::Delete;
                }
            }
        }
    }

    /// Adds the elements of the set in a place, which came in so many datagrams.
    pub fn elements(&mut self, place: usize, mut elements: Vec<Element>, parts: usize) {
        let set = &self.ruleset.sets[place];
        let key = (set.table.clone(), set.name.clone());
        let (count, changed) = (self.sets.get(&key).copied(), self.changed.get(&key).copied());
        let looks = looks_at(set, changed, count, &elements, parts);
        if looks > 1 && changed.is_some() {
            self.doubted.insert(key.clone());
        }
        if looks == NEVER {
            self.unexplained = Some(miscounted(set, count, &elements));
        }
        self.looks = self.looks.max(looks);
        // They are counted as well.
        set.drop_stray_ends(&mut elements);
        if !elements.is_empty() {
            self.ruleset.elements.push((key.0, key.1, elements));
        }
    }

    /// How many looks in a row must tell the same.
    pub fn looks(&self) -> usize {
        let of_chains = match self.counts_agree() {
            true => 1,
            false if self.chains_explained() => LOOKS,
            false => NEVER,
        };
        let of_tables = if self.miscounted_table().is_none() { 1 } else { NEVER };
        self.looks.max(of_chains).max(of_tables)
    }

    /// Whether there is a reason why chains are used more often than was told. Three looks may tell of the same hole, so where
    /// nothing explains the difference they prove nothing.
    fn chains_explained(&self) -> bool {
        !self.behind_the_last().is_empty() || self.ruleset.tables.iter().any(|table| self.runs_out(&table.id))
    }

    /// What keeps it from being believed, however often it is told.
    pub fn doubt(&self) -> Option<String> {
        let chain = || {
            let chain = self.miscounted_chains().next().filter(|_| !self.chains_explained())?;
            Some(format!("it told of other uses of chain {} {} than it counts", chain.table, chain.name))
        };
        let table = || {
            let (table, told, used) = self.miscounted_table()?;
            Some(format!("it told of {told} chains, sets and objects of table {table}, and counts {used}"))
        };
        self.unexplained.clone().or_else(chain).or_else(table)
    }

    /// Whether another look told of the same things.
    pub fn alike(&self, other: &Self) -> bool {
        let (a, b) = (&self.ruleset, &other.ruleset);
        let (of_a, of_b) = (elements(a), elements(b));
        a.tables.iter().map(|table| &table.id).eq(b.tables.iter().map(|table| &table.id))
            && a.chains.iter().map(named).eq(b.chains.iter().map(named))
            && a.sets.iter().map(|set| (&set.table, &set.name)).eq(b.sets.iter().map(|set| (&set.table, &set.name)))
            && a.objects
                .iter()
                .map(|one| (&one.table, &one.name))
                .eq(b.objects.iter().map(|one| (&one.table, &one.name)))
            && a.flowtables
                .iter()
                .map(|one| (&one.table, &one.name))
                .eq(b.flowtables.iter().map(|one| (&one.table, &one.name)))
            && a.rules
                .iter()
                .map(|rule| (&rule.table, rule.handle))
                .eq(b.rules.iter().map(|rule| (&rule.table, rule.handle)))
            && a.sets.iter().all(|set| {
                let key = (set.table.clone(), set.name.clone());
                let none: &[Element] = &[];
                let (of_a, of_b) = (
                    of_a.get(&(&set.table, &set.name)).unwrap_or(&none),
                    of_b.get(&(&set.table, &set.name)).unwrap_or(&none),
                );
                match self.changed.get(&key) {
                    None => same_elements(of_a, of_b),
                    // What rules take out is missing for good.
                    Some(true) => true,
                    Some(false) if !(self.doubted.contains(&key) || other.doubted.contains(&key)) => true,
                    Some(false) => nothing_lost(set, of_a, of_b, self.begun.0.elapsed()),
                }
            })
    }

    /// Whether every chain is used as often as was told.
    pub fn counts_agree(&self) -> bool {
        self.miscounted_chains().next().is_none()
    }

    /// Chains that are not used as often as was told.
    fn miscounted_chains(&self) -> impl Iterator<Item = &Chain> {
        let told = told(&self.ruleset);
        self.ruleset.chains.iter().filter(move |chain| {
            let told = told.get(&named(chain)).copied().unwrap_or(0);
            let may = told..=told + once_more(chain);
            self.chains
                .get(&(chain.table.clone(), chain.name.clone()))
                .is_some_and(|used| !may.contains(&u64::from(*used)))
        })
    }

    /// A table that has not as many things in it as were told, with what was told and what is counted. Sets that belong to a rule are not
    /// counted.
    fn miscounted_table(&self) -> Option<(&TableId, u32, u32)> {
        let mut told: HashMap<&TableId, u32> = HashMap::new();
        let ruleset = &self.ruleset;
        let chains = ruleset.chains.iter().map(|chain| &chain.table);
        let sets = ruleset.sets.iter().filter(|set| !set.flags.anonymous).map(|set| &set.table);
        let objects = ruleset.objects.iter().map(|object| &object.table);
        let flowtables = ruleset.flowtables.iter().map(|flowtable| &flowtable.table);
        for table in chains.chain(sets).chain(objects).chain(flowtables) {
            *told.entry(table).or_default() += 1;
        }
        let counted = self.tables.iter().map(|(table, used)| (table, told.get(table).copied().unwrap_or(0), *used));
        counted.into_iter().find(|(_, told, used)| told != used)
    }

    /// Chains that are used more often than was told, and which a rule without room may be in: the last one that rules were told of, and those
    /// behind it. With each the uses that were told.
    fn behind_the_last(&self) -> Vec<(&Chain, u64)> {
        let chains = &self.ruleset.chains;
        let with_rules: HashSet<_> = self.ruleset.rules.iter().map(|rule| (&rule.table, &rule.chain)).collect();
        let last = chains.iter().rposition(|chain| with_rules.contains(&named(chain))).unwrap_or(0);
        let told = told(&self.ruleset);
        let told = |chain| told.get(&named(chain)).copied().unwrap_or(0) + once_more(chain);
        let behind = chains[last.min(chains.len())..].iter().map(|chain| (chain, told(chain)));
        let used = |chain: &Chain| self.chains.get(&(chain.table.clone(), chain.name.clone())).copied();
        behind.filter(|(chain, told)| used(chain).is_some_and(|used| u64::from(used) > *told)).collect()
    }

    /// Whether elements that lead to chains may run out there. Until the next commit the kernel counts what it no longer tells of.
    fn runs_out(&self, table: &TableId) -> bool {
        let mut sets = self.ruleset.sets.iter();
        sets.any(|set| set.table == *table && set.flags.timeout && set.data == Some(MapTo::Verdict))
    }
}

impl Socket {
    /// Looks for a rule that the kernel has no room to tell of, in what several looks told. With `by_handle` it is asked for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] when there is one, naming its chain and, where it was found, its handle.
    pub(super) fn has_room_for_all(&mut self, seen: &Seen, by_handle: bool) -> Result<()> {
        let mut doubtful = seen.behind_the_last();
        // Others may be about to add rules, for most of the time even.
        for _ in 0..COUNTS {
            if doubtful.is_empty() {
                return Ok(());
            }
            sleep(BETWEEN_COUNTS);
            let mut used = Vec::with_capacity(doubtful.len());
            for (chain, _) in &doubtful {
                used.push(self.chain_uses(&chain.table, &chain.name)?);
            }
            let mut used = used.into_iter();
            doubtful.retain(|(_, told)| used.next().flatten().is_some_and(|used| u64::from(used) > *told));
        }
        let mut questions = QUESTIONS;
        for (chain, _) in doubtful.iter().filter(|_| by_handle) {
            if let Some(handle) = self.unreadable(chain, &seen.ruleset, &mut questions)? {
                let Chain { table, name, .. } = chain;
                let what = format!(
                    "rule with handle {} of chain {table} {name} is larger than the 32 KiB that the kernel tells of a rule",
                    handle.0
                );
                return Err(Error::new(ErrorKind::Unsupported, what).hint(
                    "nothing can read it, nor what is behind it: make several rules of it, and delete it by its handle",
                ));
            }
        }
        match doubtful.iter().find(|(chain, _)| !seen.runs_out(&chain.table)) {
            None => Ok(()),
            Some((Chain { table, name, .. }, _)) => {
                let what = format!(
                    "the kernel tells of fewer rules than it counts, from chain {table} {name} on: one is larger than the 32 KiB that it tells of a rule"
                );
                Err(Error::new(ErrorKind::Unsupported, what)
                    .hint("nothing can read it, nor what is behind it: make several rules of it, and flush the chain"))
            }
        }
    }

    /// Asks for rules of a chain that were not told, by handles: upwards from the highest that was told of it, then downwards.
    fn unreadable(&mut self, chain: &Chain, ruleset: &Ruleset, questions: &mut u64) -> Result<Option<Handle>> {
        let Chain { table, name, .. } = chain;
        let of_chain = ruleset.rules.iter().filter(|rule| named(chain) == (&rule.table, &rule.chain));
        let told: HashSet<u64> = of_chain.filter_map(|rule| rule.handle).map(|handle| handle.0).collect();
        let from = told.iter().max().map_or(1, |highest| highest.saturating_add(1));
        let upwards = from..from.saturating_add(QUESTIONS / 2);
        for handle in upwards.chain((1..from).rev()).filter(|handle| !told.contains(handle)) {
            let Some(left) = questions.checked_sub(1) else { break };
            *questions = left;
            let answer = self.ask(Request::rule(table, name, Handle(handle)), false, |_| Ok(()))?;
            match answer.refused.map(|refused| (refused.errno, refused)) {
                // None of that number, or it is only behind the one that is looked for.
                None | Some((libc::ENOENT, _)) => {}
                // It does not fit an answer of one page. Up to 32 KiB it would have been told, but for being behind one that is larger.
                Some((libc::EPERM | libc::EMSGSIZE, _)) => return Ok(Some(Handle(handle))),
                Some((_, refused)) => {
                    return Err(refusal::of_question(&format!("read a rule of chain {table} {name}"), &refused));
                }
            }
        }
        Ok(None)
    }
}

/// The elements of each set that has any.
fn elements(ruleset: &Ruleset) -> HashMap<(&TableId, &SetName), &[Element]> {
    ruleset.elements.iter().map(|(table, name, elements)| ((table, name), &elements[..])).collect()
}

fn named(chain: &Chain) -> (&TableId, &ChainName) {
    (&chain.table, &chain.name)
}

/// The jump to a chain of a rule's own is counted twice (seen with Linux 6.18).
fn once_more(chain: &Chain) -> u64 {
    chain.flags.binding.into()
}

/// How often each chain is used by what was told.
fn told(ruleset: &Ruleset) -> HashMap<(&TableId, &ChainName), u64> {
    let mut told = HashMap::new();
    let mut count = |table, chain| *told.entry((table, chain)).or_insert(0) += 1;
    for rule in &ruleset.rules {
        count(&rule.table, &rule.chain);
        for expr in &rule.exprs {
            if let Expr::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) = expr {
                count(&rule.table, chain);
            }
        }
    }
    for (table, _, elements) in &ruleset.elements {
        for element in elements {
            if let Some(ElementData::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain))) = &element.data {
                count(table, chain);
            }
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{ChainFlags, Data, Datatype, Family, KeyType, Rule, SetPolicy, TableName};

    fn table() -> TableId {
        TableId { family: Family::Inet, name: TableName::new("t").unwrap() }
    }

    /// A look at chains with the use that the kernel counts, and at one rule in each of the first so many.
    fn seen(chains: &[(&str, u32)], with_rules: usize) -> Seen {
        let mut seen = Seen::default();
        seen.table(Table::new(table()), Some(chains.len() as u32));
        for (name, used) in chains {
            seen.chain(Chain::new(&table(), &ChainName::new(name).unwrap()), Some(*used));
        }
        for chain in &chains[..with_rules] {
            seen.ruleset.rules.push(Rule::new(&table(), &ChainName::new(chain.0).unwrap()));
        }
        seen
    }

    fn behind(seen: &Seen) -> Vec<&str> {
        seen.behind_the_last().into_iter().map(|(chain, _)| chain.name.as_str()).collect()
    }

    #[test]
    fn a_rule_without_room_is_looked_for_where_no_other_was_told_behind_it() {
        assert!(behind(&Seen::default()).is_empty());
        assert!(behind(&seen(&[("a", 1), ("b", 1)], 2)).is_empty());
        // Something leads to the first that was not told. It is whole, for the next has rules.
        assert!(behind(&seen(&[("a", 2), ("b", 1)], 2)).is_empty());
        assert_eq!(behind(&seen(&[("a", 2), ("b", 2), ("c", 0), ("d", 1)], 2)), ["b", "d"]);
        assert_eq!(behind(&seen(&[("a", 1), ("b", 1)], 0)), ["a", "b"]);
    }

    #[test]
    fn one_look_is_enough_where_the_kernel_counts_what_it_tells() {
        assert_eq!(seen(&[("a", 1), ("b", 0)], 1).looks(), 1);
        assert_eq!(seen(&[("a", 2)], 1).looks(), LOOKS);
        assert_eq!(seen(&[("a", 0)], 1).looks(), NEVER);
        assert_eq!(seen(&[("a", 2), ("b", 1)], 2).looks(), NEVER);
        let mut short = seen(&[("a", 1), ("b", 0)], 1);
        short.ruleset.chains.pop();
        assert_eq!(short.looks(), NEVER);
        // A chain of a rule's own.
        let mut own = seen(&[("a", 2)], 1);
        own.ruleset.chains[0].flags = ChainFlags { binding: true, ..ChainFlags::default() };
        assert_eq!((own.looks(), behind(&own)), (1, vec![]));
    }

    #[test]
    fn what_is_counted_in_halves_is_looked_at_twice_and_what_nothing_explains_is_named() {
        let of = |policy, told: u16, counted| {
            let mut seen = Seen::default();
            seen.table(Table::new(table()), Some(1));
            let key = KeyType(vec![Datatype::InetService]);
            let set = Set { policy, ..Set::new(&table(), &SetName::new("s").unwrap(), key) };
            seen.set(set, Some(counted));
            seen.elements(0, (0..told).map(|port| Element::new(Data::be16(port))).collect(), 2);
            (seen.looks(), seen.doubt())
        };
        assert_eq!(of(SetPolicy::Memory, 1, 0), (2, None));
        assert_eq!(of(SetPolicy::Memory, 5, 2), (2, None));
        assert_eq!(of(SetPolicy::Memory, 5, 5), (1, None));
        let doubt = "it told of 5 elements of set inet t s, and counts 2".to_owned();
        assert_eq!(of(SetPolicy::Performance, 5, 2), (NEVER, Some(doubt)));
        let mut short = seen(&[("a", 1), ("b", 0)], 1);
        short.ruleset.chains.pop();
        assert_eq!(
            short.doubt().as_deref(),
            Some("it told of 1 chains, sets and objects of table inet t, and counts 2")
        );
        let chain = seen(&[("a", 2), ("b", 1)], 2).doubt();
        assert_eq!(chain.as_deref(), Some("it told of other uses of chain inet t a than it counts"));
        assert_eq!(seen(&[("a", 2)], 1).doubt(), None);
    }
}
