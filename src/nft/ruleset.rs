//! Rulesets: what stands together, in an order in which the kernel can make it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{
    Chain, ChainName, Element, Flowtable, Object, Rule, Set, SetName, StatefulObject, Table, TableId, Transaction, Verb,
};

/// Elements of one set.
type SetElements = (TableId, SetName, Vec<Element>);

/// Tables, chains, sets, elements and rules that stand together.
///
/// A plan holds two of these, and a dump of a table or a namespace is one, so that what was meant and what is there can be compared.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ruleset {
    /// Tables.
    pub tables: Vec<Table>,
    /// Chains, in order.
    pub chains: Vec<Chain>,
    /// Stateful objects.
    pub objects: Vec<StatefulObject>,
    /// Flowtables.
    pub flowtables: Vec<Flowtable>,
    /// Sets.
    pub sets: Vec<Set>,
    /// Elements of sets.
    pub elements: Vec<SetElements>,
    /// Rules, in order.
    pub rules: Vec<Rule>,
}

impl Ruleset {
    /// The transaction that makes it. Tables are created, so that one that exists is an error and never merged into.
    pub fn create(&self) -> Transaction {
        self.clone().into_transaction()
    }

    /// [`Self::create`], of a ruleset that is not needed any more.
    pub fn into_transaction(self) -> Transaction {
        let mut transaction = Transaction::new();
        self.push_onto(&mut transaction);
        transaction
    }

    /// The transaction after which the namespace has this ruleset and no other, but for tables that belong to other sockets.
    ///
    /// The kernel carries it out all at once: no packet meets anything but the old ruleset or the new one.
    pub fn replace(self) -> Transaction {
        let mut transaction = Transaction::new();
        transaction.push(Verb::Flush, Object::Everything);
        self.push_onto(&mut transaction);
        transaction
    }

    /// Appends what makes it.
    ///
    /// nft(8) makes a table's contents in this order too, so that objects get the numbers that it would give them: chains, for
    /// verdicts name them; objects, for maps name them; sets and elements; rules at last. A set that belongs to a rule comes
    /// right before that rule. A chain that belongs to a rule has its own rules made first, for afterwards it takes no more.
    fn push_onto(self, transaction: &mut Transaction) {
        let mut parts = Parts::new(&self.sets, &self.chains);
        for table in self.tables {
            transaction.push(Verb::Create, Object::Table(table));
        }
        for chain in self.chains {
            transaction.push(Verb::Add, Object::Chain(chain));
        }
        for object in self.objects {
            transaction.push(Verb::Add, Object::Stateful(object));
        }
        let timed = self.sets.iter().filter(|set| set.has_timed_ranges());
        let timed: HashMap<_, _> = timed.map(|set| ((&set.table, &set.name), set)).collect();
        for (table, set, mut elements) in self.elements {
            if let Some(timed) = timed.get(&(&table, &set)) {
                timed.drop_stray_ends(&mut elements);
            }
            Element::upwards(&mut elements);
            match parts.anonymous.get_mut(&(table.clone(), set.clone())) {
                Some((_, of_rule)) => of_rule.extend(elements),
                None => parts.elements.push((table, set, elements)),
            }
        }
        for set in self.sets.into_iter().filter(|set| !set.flags.anonymous) {
            transaction.push(Verb::Add, Object::Set(set));
        }
        for flowtable in self.flowtables {
            transaction.push(Verb::Add, Object::Flowtable(flowtable));
        }
        for (table, set, elements) in std::mem::take(&mut parts.elements) {
            transaction.push(Verb::Add, Object::Elements { table, set, elements });
        }
        let mut rules = Vec::new();
        for rule in self.rules {
            let chain = (rule.table.clone(), rule.chain.clone());
            match parts.bound.get_mut(&chain) {
                Some(of_chain) => of_chain.push(rule),
                None => rules.push(rule),
            }
        }
        for rule in rules {
            parts.rule(rule, transaction, 0);
        }
        parts.rest(transaction);
    }
}

/// What is made when the rule that owns it is.
struct Parts {
    anonymous: HashMap<(TableId, SetName), (Set, Vec<Element>)>,
    elements: Vec<SetElements>,
    bound: HashMap<(TableId, ChainName), Vec<Rule>>,
    /// Names in `anonymous` and `bound` in the order in which they stood, for what no rule owns.
    sets: Vec<(TableId, SetName)>,
    chains: Vec<(TableId, ChainName)>,
}

impl Parts {
    /// The kernel follows jumps no deeper.
    const MAX_DEPTH: usize = 16;

    fn new(sets: &[Set], chains: &[Chain]) -> Self {
        let (mut anonymous, mut order) = (HashMap::new(), Vec::new());
        for set in sets.iter().filter(|set| set.flags.anonymous) {
            let key = (set.table.clone(), set.name.clone());
            order.push(key.clone());
            anonymous.insert(key, (set.clone(), Vec::new()));
        }
        let bound: Vec<_> = chains.iter().filter(|chain| chain.flags.binding).collect();
        let chains: Vec<_> = bound.iter().map(|chain| (chain.table.clone(), chain.name.clone())).collect();
        let bound = chains.iter().cloned().map(|key| (key, Vec::new())).collect();
        Self { anonymous, elements: Vec::new(), bound, sets: order, chains }
    }

    fn rule(&mut self, rule: Rule, transaction: &mut Transaction, depth: usize) {
        if depth < Self::MAX_DEPTH {
            for chain in rule.exprs.iter().filter_map(|expr| expr.chain()) {
                for inner in self.bound.remove(&(rule.table.clone(), chain.clone())).unwrap_or_default() {
                    self.rule(inner, transaction, depth + 1);
                }
            }
        }
        for set in rule.exprs.iter().filter_map(|expr| expr.set()) {
            self.set(&(rule.table.clone(), set.clone()), transaction);
        }
        transaction.push(Verb::Add, Object::Rule(rule));
    }

    fn set(&mut self, key: &(TableId, SetName), transaction: &mut Transaction) {
        let Some((set, elements)) = self.anonymous.remove(key) else { return };
        let (table, name) = (set.table.clone(), set.name.clone());
        transaction.push(Verb::Add, Object::Set(set));
        if !elements.is_empty() {
            transaction.push(Verb::Add, Object::Elements { table, set: name, elements });
        }
    }

    /// What no rule owns. The kernel refuses it, and says why.
    fn rest(mut self, transaction: &mut Transaction) {
        for key in std::mem::take(&mut self.sets) {
            self.set(&key, transaction);
        }
        for key in std::mem::take(&mut self.chains) {
            for rule in self.bound.remove(&key).unwrap_or_default() {
                transaction.push(Verb::Add, Object::Rule(rule));
            }
        }
    }
}
