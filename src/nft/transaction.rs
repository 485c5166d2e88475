//! Transactions: operations that the kernel carries out all together or not at all.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Chain, Element, Rule, Set, SetName, Table, TableId};

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
    /// Make a rule at the head of its chain.
    Insert,
    /// Remove it; it is an error when it is not there.
    Delete,
    /// Remove it if it is there. Linux 6.3.
    Destroy,
    /// Remove what is in it: the rules of a chain or of a table's chains, the elements of a set.
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
}

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// What is done.
    pub verb: Verb,
    /// To what.
    pub object: Object,
}

impl fmt::Display for Operation {
    /// Shows it as an error message names it: `add rule inet ringfence output`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.verb {
            Verb::Add => "add",
            Verb::Create => "create",
            Verb::Insert => "insert",
            Verb::Delete => "delete",
            Verb::Destroy => "destroy",
            Verb::Flush => "flush",
        };
        match &self.object {
            Object::Table(table) => write!(f, "{verb} table {}", table.id),
            Object::Chain(chain) => write!(f, "{verb} chain {} {}", chain.table, chain.name),
            Object::Rule(rule) => {
                write!(f, "{verb} rule {} {}", rule.table, rule.chain)?;
                match (&rule.comment, rule.handle) {
                    (Some(comment), _) => write!(f, " (\"{comment}\")"),
                    (None, Some(handle)) => write!(f, " handle {}", handle.0),
                    (None, None) => Ok(()),
                }
            }
            Object::Set(set) => write!(f, "{verb} set {} {}", set.table, set.name),
            Object::Elements { table, set, elements } => {
                write!(f, "{verb} {} elements of set {table} {set}", elements.len())
            }
        }
    }
}

/// Operations for one commit, in order.
///
/// # Examples
///
/// ```
/// use ringfence::nft::{Family, Table, TableFlags, TableId, TableName, Transaction, Object, Verb};
///
/// let id = TableId { family: Family::Inet, name: TableName::new("guard")? };
/// let mut transaction = Transaction::new();
/// transaction.push(Verb::Add, Object::Table(Table { id, flags: TableFlags::default(), comment: None }));
/// assert_eq!(transaction.operations()[0].to_string(), "add table inet guard");
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

/// Tables, chains, sets, elements and rules that stand together, in the order in which they can be made.
///
/// A plan holds two of these, and a dump of a table is one, so that what was meant and what is there can be compared.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ruleset {
    /// Tables.
    pub tables: Vec<Table>,
    /// Sets.
    pub sets: Vec<Set>,
    /// Chains, in order.
    pub chains: Vec<Chain>,
    /// Elements of sets.
    pub elements: Vec<(TableId, SetName, Vec<Element>)>,
    /// Rules, in order.
    pub rules: Vec<Rule>,
}

impl Ruleset {
    /// The transaction that makes it. Tables are created, so that one that exists is an error and never merged into.
    pub fn create(&self) -> Transaction {
        let mut transaction = Transaction::new();
        for table in &self.tables {
            transaction.push(Verb::Create, Object::Table(table.clone()));
        }
        for set in &self.sets {
            transaction.push(Verb::Add, Object::Set(set.clone()));
        }
        for chain in &self.chains {
            transaction.push(Verb::Add, Object::Chain(chain.clone()));
        }
        for (table, set, elements) in &self.elements {
            transaction.push(
                Verb::Add,
                Object::Elements { table: table.clone(), set: set.clone(), elements: elements.clone() },
            );
        }
        for rule in &self.rules {
            transaction.push(Verb::Add, Object::Rule(rule.clone()));
        }
        transaction
    }
}
