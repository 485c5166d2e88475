//! Transactions: operations that the kernel carries out all together or not at all.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Chain, ChainName, Element, Flowtable, Rule, Set, SetName, StatefulObject, Table, TableId};

/// Number that the kernel gives to a table, chain, rule or set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Handle(pub u64);

/// Number of a namespace's ruleset: it grows with every transaction that was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[doc(alias = "NFNL_BATCH_GENID")]
pub struct Generation(pub u32);

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Make it; an object that is there already and the same stays. Rules are appended.
    Add,
    /// Make it; it is an error when it is there already.
    Create,
    /// Make a rule at the head of its chain, or in front of the one that its position names.
    Insert,
    /// Put a rule in the place of the one with its handle.
    Replace,
    /// Give a chain another name.
    Rename,
    /// Remove it; it is an error when it is not there.
    Delete,
    /// Remove it if it is there. Linux 6.3.
    Destroy,
    /// Remove what is in it: the rules of a chain or of a table's chains, the elements of a set, every table of the namespace.
    Flush,
}

/// What an operation is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Object {
    /// A table.
    Table(Table),
    /// A chain.
    Chain(Chain),
    /// A rule. To delete one, its handle is what counts.
    Rule(Rule),
    /// A set.
    Set(Set),
    /// Elements of a set.
    Elements {
        /// Table the set is in.
        table: TableId,
        /// The set.
        set: SetName,
        /// The elements.
        elements: Vec<Element>,
    },
    /// A stateful object.
    Stateful(StatefulObject),
    /// A flowtable.
    Flowtable(Flowtable),
    /// A chain's name, to be changed. The kernel finds the chain by its handle.
    ChainName {
        /// Table the chain is in.
        table: TableId,
        /// The chain's handle.
        handle: Handle,
        /// The new name.
        to: ChainName,
    },
    /// Every table of the namespace, but for those that belong to other sockets: the kernel passes them by.
    Everything,
}

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// What is done.
    pub verb: Verb,
    /// To what.
    pub object: Object,
}

impl fmt::Display for Verb {
    /// As nft(8) names it, where it has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verb::Add => "add",
            Verb::Create => "create",
            Verb::Insert => "insert",
            Verb::Replace => "replace",
            Verb::Rename => "rename",
            Verb::Delete => "delete",
            Verb::Destroy => "destroy",
            Verb::Flush => "flush",
        })
    }
}

impl fmt::Display for Object {
    /// Shows what names it: `rule inet ringfence output`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Table(table) => write!(f, "table {}", table.id),
            Object::Chain(chain) => write!(f, "chain {} {}", chain.table, chain.name),
            Object::Rule(rule) => {
                write!(f, "rule {} {}", rule.table, rule.chain)?;
                match (&rule.comment, rule.handle) {
                    (Some(comment), _) => write!(f, " (\"{comment}\")"),
                    (None, Some(handle)) => write!(f, " handle {}", handle.0),
                    (None, None) => Ok(()),
                }
            }
            Object::Set(set) if set.data.is_some() => write!(f, "map {} {}", set.table, set.name),
            Object::Set(set) => write!(f, "set {} {}", set.table, set.name),
            Object::Elements { table, set, elements } => match elements.len() {
                1 => write!(f, "1 element of set {table} {set}"),
                many => write!(f, "{many} elements of set {table} {set}"),
            },
            Object::Stateful(object) => write!(f, "{} {} {}", object.state.kind(), object.table, object.name),
            Object::Flowtable(flowtable) => write!(f, "flowtable {} {}", flowtable.table, flowtable.name),
            Object::ChainName { table, handle, to } => write!(f, "chain {table} handle {} to {to}", handle.0),
            Object::Everything => f.write_str("ruleset"),
        }
    }
}

impl fmt::Display for Operation {
    /// Shows it as an error message names it: `add rule inet ringfence output`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.verb, &self.object) {
            // It names none of them.
            (Verb::Flush, Object::Elements { table, set, .. }) => write!(f, "flush set {table} {set}"),
            (verb, object) => write!(f, "{verb} {object}"),
        }
    }
}

/// Operations for one commit, in order.
///
/// # Examples
///
/// ```
/// use ringfence::nft::{Family, Table, TableId, TableName, Transaction, Object, Verb};
///
/// let id = TableId { family: Family::Inet, name: TableName::new("guard")? };
/// let mut transaction = Transaction::new();
/// transaction.push(Verb::Add, Object::Table(Table::new(id)));
/// assert_eq!(transaction.operations()[0].to_string(), "add table inet guard");
/// // One behind the other: the table is gone, if it was there, and made anew.
/// let id = TableId { family: Family::Inet, name: TableName::new("guard")? };
/// let mut anew = Transaction::new();
/// anew.push(Verb::Destroy, Object::Table(Table::new(id)));
/// anew.extend(transaction);
/// assert_eq!(anew.operations().len(), 2);
/// # Ok::<(), ringfence::nft::NameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Transaction {
    operations: Vec<Operation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generation: Option<Generation>,
}

impl Transaction {
    /// An empty transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one operation.
    pub fn push(&mut self, verb: Verb, object: Object) {
        self.operations.push(Operation { verb, object });
    }

    /// Binds it to the ruleset of that generation: when somebody changed the ruleset since, the commit fails with a conflict.
    pub fn bind(&mut self, generation: Generation) {
        self.generation = Some(generation);
    }

    /// The generation that it is bound to.
    pub fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// The operations, in order.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }
}

impl FromIterator<Operation> for Transaction {
    fn from_iter<T: IntoIterator<Item = Operation>>(operations: T) -> Self {
        Self { operations: operations.into_iter().collect(), generation: None }
    }
}

impl Extend<Operation> for Transaction {
    /// Appends operations. What it is bound to stays.
    fn extend<T: IntoIterator<Item = Operation>>(&mut self, operations: T) {
        self.operations.extend(operations);
    }
}

impl IntoIterator for Transaction {
    type Item = Operation;
    type IntoIter = std::vec::IntoIter<Operation>;
    fn into_iter(self) -> Self::IntoIter {
        self.operations.into_iter()
    }
}
