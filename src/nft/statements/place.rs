//! Tables and chains, with their family as a type.

use std::marker::PhantomData;

use super::lower::Lowering;
use super::{Key, MapOf, MapValue, SetOf, Statements, TableFamily, VerdictMapOf};
use crate::nft::{
    BaseChain, Chain, ChainName, ChainPolicy, ChainType, Hook, NameError, Priority, SetName, Table, TableId, TableName,
    Verdict,
};

/// A table of the family `F`.
#[derive(Debug, Clone)]
pub struct TableOf<F> {
    id: TableId,
    family: PhantomData<F>,
}

impl<F: TableFamily> TableOf<F> {
    /// Names a table.
    ///
    /// # Errors
    ///
    /// [`NameError`] when it is no name.
    pub fn new(name: &str) -> Result<Self, NameError> {
        Ok(Self { id: TableId { family: F::FAMILY, name: TableName::new(name)? }, family: PhantomData })
    }

    /// Family and name.
    pub fn id(&self) -> &TableId {
        &self.id
    }

    /// The table, to be added to a ruleset.
    pub fn declare(&self) -> Table {
        Table::new(self.id.clone())
    }

    /// Names one of its chains.
    ///
    /// # Errors
    ///
    /// [`NameError`] when it is no name.
    pub fn chain(&self, name: &str) -> Result<ChainOf<F>, NameError> {
        Ok(ChainOf { table: self.id.clone(), name: ChainName::new(name)?, family: PhantomData })
    }

    /// Names one of its sets.
    ///
    /// What the handle is told of the set ([`SetOf::interval`]) decides what rules and elements become, so it must be what the set is: a set
    /// of ranges that is taken for one of single elements is asked, for marks, users and whatever else the kernel keeps in the machine's
    /// byte order, for other values than the packet has. [`SetOf::of`] takes it from the set.
    ///
    /// # Errors
    ///
    /// [`NameError`] when it is no name.
    pub fn set<K: Key>(&self, name: &str) -> Result<SetOf<K>, NameError> {
        Ok(SetOf::new(&self.id, &SetName::new(name)?))
    }

    /// Names one of its maps, as [`Self::set`] does its sets.
    ///
    /// # Errors
    ///
    /// [`NameError`] when it is no name.
    pub fn map<K: Key, D: MapValue>(&self, name: &str) -> Result<MapOf<K, D>, NameError> {
        Ok(MapOf::new(&self.id, &SetName::new(name)?))
    }

    /// Names one of its verdict maps.
    ///
    /// # Errors
    ///
    /// [`NameError`] when it is no name.
    pub fn verdict_map<K: Key>(&self, name: &str) -> Result<VerdictMapOf<K>, NameError> {
        self.map(name)
    }
}

/// A chain of a table of the family `F`.
#[derive(Debug, Clone)]
pub struct ChainOf<F> {
    table: TableId,
    name: ChainName,
    family: PhantomData<F>,
}

impl<F: TableFamily> ChainOf<F> {
    /// Its name.
    pub fn name(&self) -> &ChainName {
        &self.name
    }

    pub(super) fn table(&self) -> &TableId {
        &self.table
    }

    /// Starts a rule.
    pub fn rule(&self) -> Statements<F> {
        Statements {
            chain: self.name.clone(),
            comment: None,
            lowering: Lowering::new(&self.table),
            error: None,
            family: PhantomData,
        }
    }

    /// The chain, to be added to a table, as one that others jump to.
    pub fn declare(&self) -> Chain {
        Chain::new(&self.table, &self.name)
    }

    /// The chain, to be added to a table, as one that a hook leads to.
    pub fn declare_base(&self, kind: ChainType, hook: Hook, priority: Priority, policy: ChainPolicy) -> Chain {
        Chain { base: Some(BaseChain { kind, hook, priority, policy, devices: Vec::new() }), ..self.declare() }
    }

    /// nft(8): `jump CHAIN`.
    pub fn jump(&self) -> Verdict {
        Verdict::Jump(self.name.clone())
    }

    /// nft(8): `goto CHAIN`.
    pub fn goto(&self) -> Verdict {
        Verdict::Goto(self.name.clone())
    }
}
