//! Questions to the kernel: single objects, dumps and the generation.

use super::{GENERIC_LEN, Kind, flag};
use crate::nft::{ChainName, Family, Handle, SetName, TableId};
use crate::wire::netlink::HEADER_LEN;

/// A question, as bytes that lack just their sequence number.
///
/// Names are at most 255 bytes, so lengths cannot overflow.
#[derive(Debug, Clone)]
pub(crate) struct Request(Vec<u8>);

impl Request {
    fn new(kind: Kind, family: Option<Family>, flags: u16) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_LEN + GENERIC_LEN);
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(kind.to_wire().to_ne_bytes());
        bytes.extend((flag::REQUEST | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        // Family 0 asks for all of them.
        bytes.extend([family.map_or(0, Family::to_wire), 0, 0, 0]);
        Self(bytes)
    }

    fn text(mut self, kind: u16, value: &str) -> Self {
        let len = (4 + value.len() + 1) as u16;
        self.0.extend(len.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value.as_bytes());
        self.0.push(0);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// The number of the ruleset.
    pub fn generation() -> Self {
        Self::new(Kind::GetGen, None, 0)
    }

    /// One table.
    pub fn table(id: &TableId) -> Self {
        Self::new(Kind::GetTable, Some(id.family), 0).text(1, id.name.as_str())
    }

    /// Every table.
    pub fn tables() -> Self {
        Self::new(Kind::GetTable, None, flag::DUMP)
    }

    /// Every chain, of the table's family when one is given: the kernel filters no finer.
    pub fn chains(table: Option<&TableId>) -> Self {
        Self::new(Kind::GetChain, table.map(|id| id.family), flag::DUMP)
    }

    /// Every rule, or those of one table.
    pub fn rules(table: Option<&TableId>) -> Self {
        let request = Self::new(Kind::GetRule, table.map(|id| id.family), flag::DUMP);
        table.map_or(request.clone(), |id| request.text(1, id.name.as_str()))
    }

    /// One rule.
    pub fn rule(table: &TableId, chain: &ChainName, handle: Handle) -> Self {
        let mut request = Self::new(Kind::GetRule, Some(table.family), 0);
        request = request.text(1, table.name.as_str()).text(2, chain.as_str());
        request.0.extend(12u16.to_ne_bytes());
        request.0.extend(3u16.to_ne_bytes());
        request.0.extend(handle.0.to_be_bytes());
        request
    }

    /// Every set, or those of one table.
    pub fn sets(table: Option<&TableId>) -> Self {
        let request = Self::new(Kind::GetSet, table.map(|id| id.family), flag::DUMP);
        table.map_or(request.clone(), |id| request.text(1, id.name.as_str()))
    }

    /// One set.
    pub fn set(table: &TableId, set: &SetName) -> Self {
        Self::new(Kind::GetSet, Some(table.family), 0).text(1, table.name.as_str()).text(2, set.as_str())
    }

    /// Every stateful object. Kernels filter by table, or not at all.
    pub fn objects(table: Option<&TableId>) -> Self {
        let request = Self::new(Kind::GetObject, table.map(|id| id.family), flag::DUMP);
        table.map_or(request.clone(), |id| request.text(1, id.name.as_str()))
    }

    /// Every stateful object of a table, whose counts start anew.
    pub fn objects_reset(table: &TableId) -> Self {
        Self::new(Kind::GetObjectReset, Some(table.family), flag::DUMP).text(1, table.name.as_str())
    }

    /// Every rule of a table, whose counters start anew.
    pub fn rules_reset(table: &TableId) -> Self {
        Self::new(Kind::GetRuleReset, Some(table.family), flag::DUMP).text(1, table.name.as_str())
    }

    /// Every element of a set, whose counters start anew.
    pub fn elements_reset(table: &TableId, set: &SetName) -> Self {
        let request = Self::new(Kind::GetSetElemReset, Some(table.family), flag::DUMP);
        request.text(1, table.name.as_str()).text(2, set.as_str())
    }

    /// One chain.
    pub fn chain(table: &TableId, chain: &ChainName) -> Self {
        Self::new(Kind::GetChain, Some(table.family), 0).text(1, table.name.as_str()).text(3, chain.as_str())
    }

    /// Every flowtable.
    pub fn flowtables(table: Option<&TableId>) -> Self {
        let request = Self::new(Kind::GetFlowtable, table.map(|id| id.family), flag::DUMP);
        table.map_or(request.clone(), |id| request.text(1, id.name.as_str()))
    }

    /// Every element of a set.
    pub fn elements(table: &TableId, set: &SetName) -> Self {
        Self::new(Kind::GetSetElem, Some(table.family), flag::DUMP).text(1, table.name.as_str()).text(2, set.as_str())
    }

    /// The message, numbered.
    pub fn numbered(mut self, seq: u32) -> Vec<u8> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0[8..12].copy_from_slice(&seq.to_ne_bytes());
        self.0
    }
}
