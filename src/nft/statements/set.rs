//! Handles of named sets whose keys have a type.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::marker::PhantomData;
use std::time::Duration;

use super::StatementError;
use super::key::{Key, Spanning};
use crate::nft::{Element, KeyType, Set, SetName, TableId};

/// Elements of one set, to be pushed onto a ruleset or a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "elements do nothing until they are pushed onto a ruleset or transaction and committed"]
pub struct Elements {
    pub(super) table: TableId,
    pub(super) set: SetName,
    pub(super) elements: Vec<Element>,
}

/// What handles of sets and of maps are told of them, and say of them.
macro_rules! handle {
    ($handle:ident<$($type:ident),*>) => {
        impl<$($type),*> $handle<$($type),*> {
            /// Lets elements run out after that time. nft(8): `timeout`.
            pub fn timeout(mut self, timeout: Duration) -> Self {
                self.set.flags.timeout = true;
                self.set.timeout = Some(timeout);
                self
            }

            /// Lets each element run out after a time of its own. nft(8): `flags timeout`.
            pub fn timeouts(mut self) -> Self {
                self.set.flags.timeout = true;
                self
            }

            /// Lets rules add elements from the packet path. nft(8): `flags dynamic`.
            pub fn dynamic(mut self) -> Self {
                self.set.flags.dynamic = true;
                self
            }

            /// Sets the most elements it takes, which sizes its hash table as well.
            pub fn size(mut self, size: u32) -> Self {
                self.set.size = Some(size);
                self
            }

            /// Makes its keys ranges. nft(8): `flags interval`.
            pub fn interval(mut self) -> Self {
                self.set.flags.interval = true;
                self
            }

            /// The set or map, to be added to a table.
            pub fn declare(&self) -> Set {
                self.set.clone()
            }

            /// These elements, for they have time-outs or comments of their own.
            pub fn holding(&self, elements: Vec<Element>) -> Elements {
                Elements { table: self.set.table.clone(), set: self.set.name.clone(), elements }
            }

            /// Its name.
            pub fn name(&self) -> &SetName {
                &self.set.name
            }

            pub(super) fn table(&self) -> &TableId {
                &self.set.table
            }

            /// Whether its keys are ranges.
            pub(super) fn is_interval(&self) -> bool {
                self.set.flags.interval
            }
        }
    };
}
pub(super) use handle;

/// A named set with keys of type `K`.
///
/// # Examples
///
/// ```
/// use ringfence::nft::statements::{Inet, Port, TableOf};
/// use std::net::Ipv4Addr;
///
/// let table = TableOf::<Inet>::new("guard")?;
/// let allowed = table.set::<(Ipv4Addr, Port)>("allowed")?.size(1000);
/// assert_eq!(allowed.declare().key.to_string(), "ipv4_addr . inet_service");
/// # Ok::<(), ringfence::nft::NameError>(())
/// ```
#[derive(Debug, Clone)]
pub struct SetOf<K> {
    set: Set,
    keys: PhantomData<fn() -> K>,
}

handle!(SetOf<K>);

impl<K: Key> SetOf<K> {
    pub(super) fn new(table: &TableId, name: &SetName) -> Self {
        Self { set: Set::new(table, name, KeyType(K::datatypes())), keys: PhantomData }
    }

    /// The handle of a set as it was read or declared elsewhere.
    ///
    /// # Errors
    ///
    /// [`StatementError::OtherKeys`] when its keys are of another type, or it is a map.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use ringfence::kernel::nftables::Socket;
    /// use ringfence::nft::statements::{Inet, Mark, SetOf, TableOf};
    /// use ringfence::nft::{Transaction, Verb};
    ///
    /// let guard = TableOf::<Inet>::new("guard")?;
    /// let mut socket = Socket::open()?;
    /// let there = socket.table(guard.id())?.unwrap_or_default();
    /// let marks = there.sets.iter().find(|set| set.name.as_str() == "marks").ok_or("no such set")?;
    /// let mut transaction = Transaction::new();
    /// let rule = guard.chain("input")?.rule().mark(&SetOf::<Mark>::of(marks)?).drop()?;
    /// transaction.push_rule(Verb::Add, rule);
    /// socket.commit(&transaction)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn of(set: &Set) -> Result<Self, StatementError> {
        if set.key.0 != K::datatypes() || set.data.is_some() {
            return Err(StatementError::OtherKeys(set.name.clone()));
        }
        Ok(Self { set: set.clone(), keys: PhantomData })
    }

    /// An element.
    ///
    /// # Errors
    ///
    /// [`StatementError::TooLong`] when the fields of the key don't fit the registers, [`StatementError::OfRanges`] when the set holds ranges.
    pub fn element(&self, key: &K) -> Result<Element, StatementError> {
        if self.is_interval() {
            return Err(StatementError::OfRanges(self.set.name.clone()));
        }
        Ok(Element::new(key.key().map_err(|_| StatementError::TooLong)?))
    }

    /// Elements with these keys. A key that is there twice counts once.
    ///
    /// # Errors
    ///
    /// As [`Self::element`].
    pub fn elements(&self, keys: impl IntoIterator<Item: Borrow<K>>) -> Result<Elements, StatementError> {
        let (mut elements, mut known) = (Vec::new(), HashSet::new());
        for key in keys {
            let element = self.element(key.borrow())?;
            if known.insert(element.key.clone()) {
                elements.push(element);
            }
        }
        Ok(self.holding(elements))
    }

    /// The elements that make up ranges, for a set of [`Self::interval`].
    ///
    /// Ranges of one field that touch or overlap become one. Of several fields they stay what they are, and the kernel refuses those that overlap.
    ///
    /// # Errors
    ///
    /// [`StatementError`] when a range ends before it begins, or the set does not hold ranges.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringfence::nft::statements::{Inet, Port, TableOf};
    /// use std::net::Ipv4Addr;
    ///
    /// let table = TableOf::<Inet>::new("guard")?;
    /// let services = table.set::<(Ipv4Addr, Port)>("services")?.interval();
    /// let office: ipnet::Ipv4Net = "198.51.100.0/24".parse()?;
    /// let elements = services.spans([(office, 8000..=8999)])?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spans<T: Spanning<K>>(&self, spans: impl IntoIterator<Item = T>) -> Result<Elements, StatementError> {
        if !self.is_interval() {
            return Err(StatementError::NoRanges(self.set.name.clone()));
        }
        Ok(self.holding(K::ranges(spans.into_iter().map(|span| (span.span(), None)).collect(), false)?))
    }
}
