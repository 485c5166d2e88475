//! Handles of named maps, and what fields are looked up in: sets and maps, named ones and those of the rule itself.

use std::collections::HashSet;
use std::marker::PhantomData;
use std::time::Duration;

use super::StatementError;
use super::interval::element;
use super::key::{Entry, Key, Spanning};
use super::set::{Elements, SetOf, handle};
use crate::nft::{Element, ElementData, KeyType, MapTo, Set, SetFlags, SetName, TableId, Verdict};

/// What a map can lead to: a [`Verdict`], a value, a tuple of two to five values, or the name of a stateful object.
#[diagnostic::on_unimplemented(message = "a map can't lead to `{Self}`")]
pub trait MapValue {
    /// Its type.
    fn map_to() -> MapTo;
    /// It, as an element has it.
    ///
    /// # Errors
    ///
    /// [`StatementError::TooLong`] when its fields don't fit the registers.
    fn data(&self) -> Result<ElementData, StatementError>;
}

impl<K: Key> MapValue for K {
    fn map_to() -> MapTo {
        MapTo::Value(KeyType(K::datatypes()))
    }
    fn data(&self) -> Result<ElementData, StatementError> {
        self.key().map(ElementData::Value).map_err(|_| StatementError::TooLong)
    }
}

impl MapValue for Verdict {
    fn map_to() -> MapTo {
        MapTo::Verdict
    }
    fn data(&self) -> Result<ElementData, StatementError> {
        Ok(ElementData::Verdict(self.clone()))
    }
}

/// A named map from keys of type `K` to values of type `D`, to verdicts, or to stateful objects.
///
/// # Examples
///
/// ```
/// use ringfence::nft::statements::{Inet, Port, TCP_DPORT, TableOf};
/// use std::net::Ipv4Addr;
///
/// let table = TableOf::<Inet>::new("nat")?;
/// let servers = table.map::<Port, (Ipv4Addr, Port)>("servers")?;
/// let web = (Ipv4Addr::new(198, 51, 100, 7), Port(8080));
/// let elements = servers.elements([(80, web), (443, web)])?;
/// // dnat ip to tcp dport map @servers
/// let rule = table.chain("prerouting")?.rule().dnat_by(TCP_DPORT, &servers)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct MapOf<K, D> {
    set: Set,
    types: PhantomData<fn() -> (K, D)>,
}

/// A named map from keys of type `K` to verdicts.
pub type VerdictMapOf<K> = MapOf<K, Verdict>;

handle!(MapOf<K, D>);

impl<K: Key, D: MapValue> MapOf<K, D> {
    pub(super) fn new(table: &TableId, name: &SetName) -> Self {
        Self { set: Set::map(table, name, KeyType(K::datatypes()), D::map_to()), types: PhantomData }
    }

    /// The handle of a map as it was read or declared elsewhere.
    ///
    /// # Errors
    ///
    /// [`StatementError::OtherKeys`] when it leads from keys or to values of another type, or is a set.
    pub fn of(map: &Set) -> Result<Self, StatementError> {
        if map.key.0 != K::datatypes() || map.data != Some(D::map_to()) {
            return Err(StatementError::OtherKeys(map.name.clone()));
        }
        Ok(Self { set: map.clone(), types: PhantomData })
    }

    /// Elements that lead from these keys to those values; of a map of [`Self::interval`], from ranges.
    ///
    /// # Errors
    ///
    /// [`StatementError::NoRanges`] when a key is a range and the map is not of ranges, [`StatementError::TooLong`] when the fields of a key
    /// or value don't fit the registers, [`StatementError::Overlap`] when two keys stand for the same.
    pub fn elements<S: Spanning<K>>(
        &self,
        entries: impl IntoIterator<Item = (S, D)>,
    ) -> Result<Elements, StatementError> {
        let entries = leading(entries)?;
        let elements = if self.set.flags.interval {
            K::ranges(entries, false)?
        } else if entries.iter().any(|(span, _)| K::is_range(span)) {
            return Err(StatementError::NoRanges(self.set.name.clone()));
        } else {
            singles::<K>(entries)?
        };
        Ok(self.holding(elements))
    }
}

fn leading<K: Key, D: MapValue, S: Spanning<K>>(
    entries: impl IntoIterator<Item = (S, D)>,
) -> Result<Vec<Entry<K::Span>>, StatementError> {
    entries.into_iter().map(|(span, to)| Ok((span.span(), Some(to.data()?)))).collect()
}

/// Elements of a set without ranges. What a set has twice is one; a map may not have two for one key.
fn singles<K: Key>(entries: Vec<Entry<K::Span>>) -> Result<Vec<Element>, StatementError> {
    let (mut elements, mut known) = (Vec::with_capacity(entries.len()), HashSet::new());
    for (span, to) in entries {
        let key = K::single(&span).map_err(|_| StatementError::TooLong)?;
        if known.insert(key.clone()) {
            elements.push(element(key, to));
        } else if to.is_some() {
            return Err(StatementError::Overlap);
        }
    }
    Ok(elements)
}

/// Where the values of fields are looked up.
#[derive(Debug)]
pub struct Looked(pub(super) Place);

#[derive(Debug)]
pub(super) enum Place {
    /// A set or map with a name.
    Named { what: &'static str, table: TableId, set: SetName, interval: bool },
    /// One that belongs to the rule.
    Own(Result<Own, StatementError>),
}

/// A set or map that belongs to a rule.
#[derive(Debug)]
pub(super) struct Own {
    pub key: KeyType,
    pub data: Option<MapTo>,
    pub interval: bool,
    pub elements: Vec<Element>,
}

impl Own {
    pub fn new<K: Key>(entries: Vec<Entry<K::Span>>, data: Option<MapTo>) -> Result<Self, StatementError> {
        if entries.is_empty() {
            return Err(StatementError::Empty);
        }
        let interval = entries.iter().any(|(span, _)| K::is_range(span));
        let elements = if interval { K::ranges(entries, true)? } else { singles::<K>(entries)? };
        Ok(Self { key: KeyType(K::datatypes()), data, interval, elements })
    }

    fn map<K: Key, D: MapValue, S: Spanning<K>>(entries: impl IntoIterator<Item = (S, D)>) -> Looked {
        let own = leading::<K, D, S>(entries).and_then(|entries| Self::new::<K>(entries, Some(D::map_to())));
        Looked(Place::Own(own))
    }

    fn set<K: Key, S: Spanning<K>>(spans: impl IntoIterator<Item = S>) -> Looked {
        Looked(Place::Own(Self::new::<K>(spans.into_iter().map(|span| (span.span(), None)).collect(), None)))
    }

    /// The set, by that name.
    pub fn named(self, table: &TableId, name: &SetName) -> (Set, Vec<Element>) {
        let Self { key, data, interval, elements } = self;
        let flags = SetFlags { anonymous: true, constant: true, interval, ..SetFlags::default() };
        let size = u32::try_from(elements.len()).ok();
        (Set { flags, data, size, ..Set::new(table, name, key) }, elements)
    }
}

/// What can have keys of type `K`: a set, or a list of keys, which becomes a set of the rule's own.
#[diagnostic::on_unimplemented(
    message = "fields whose values are of type `{K}` can't be looked up in `{Self}`",
    label = "neither a set nor a list of them"
)]
pub trait Members<K> {
    /// The set.
    fn look(self) -> Looked;
}

impl<K> Members<K> for &SetOf<K> {
    fn look(self) -> Looked {
        let (table, set) = (self.table().clone(), self.name().clone());
        Looked(Place::Named { what: "set", table, set, interval: self.is_interval() })
    }
}

impl<K: Key, S: Spanning<K>, const N: usize> Members<K> for [S; N] {
    fn look(self) -> Looked {
        Own::set::<K, S>(self)
    }
}

impl<K: Key, S: Spanning<K>> Members<K> for Vec<S> {
    fn look(self) -> Looked {
        Own::set::<K, S>(self)
    }
}

/// What leads from keys of type `K` to values of type `D`: a map, or a list of pairs, which becomes a map of the rule's own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not lead from `{K}` to `{D}`",
    label = "neither a map nor a list of pairs of them"
)]
pub trait Mapping<K, D> {
    /// The map.
    fn look(self) -> Looked;
}

impl<K, D> Mapping<K, D> for &MapOf<K, D> {
    fn look(self) -> Looked {
        let (table, set) = (self.table().clone(), self.name().clone());
        Looked(Place::Named { what: "map", table, set, interval: self.is_interval() })
    }
}

impl<K: Key, D: MapValue, S: Spanning<K>, const N: usize> Mapping<K, D> for [(S, D); N] {
    fn look(self) -> Looked {
        Own::map::<K, D, S>(self)
    }
}

impl<K: Key, D: MapValue, S: Spanning<K>> Mapping<K, D> for Vec<(S, D)> {
    fn look(self) -> Looked {
        Own::map::<K, D, S>(self)
    }
}
