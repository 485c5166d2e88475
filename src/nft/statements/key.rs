//! Types of keys, and what stands for several of them.

use super::StatementError;
use super::interval::{boxes, intervals};
use super::operand::Span;
use super::value::Value;
use crate::nft::{Data, DataTooLong, Datatype, Element, ElementData};

/// Keys of sets: a value, or a tuple of two to five of them.
pub trait Key {
    /// The keys from one to another: a [`Span`] of a value, or a tuple of them.
    type Span;
    /// Types of its fields.
    fn datatypes() -> Vec<Datatype>;
    /// The key as it stands in the registers.
    ///
    /// # Errors
    ///
    /// [`DataTooLong`] when the fields don't fit them.
    fn key(&self) -> Result<Data, DataTooLong>;
    /// Whether these are more than one key.
    #[doc(hidden)]
    fn is_range(span: &Self::Span) -> bool;
    /// The element of a set without ranges.
    #[doc(hidden)]
    fn single(span: &Self::Span) -> Result<Data, DataTooLong>;
    /// The elements of a set of ranges. See [`intervals`] for `own`.
    #[doc(hidden)]
    fn ranges(entries: Vec<Entry<Self::Span>>, own: bool) -> Result<Vec<Element>, StatementError>;
}

/// Keys of a set or map, and what they lead to in a map.
pub type Entry<S> = (S, Option<ElementData>);

impl<V: Value> Key for V {
    type Span = Span<V>;
    fn datatypes() -> Vec<Datatype> {
        vec![V::DATATYPE]
    }
    fn key(&self) -> Result<Data, DataTooLong> {
        Ok(self.to_data())
    }
    fn is_range(span: &Span<V>) -> bool {
        span.is_range()
    }
    fn single(span: &Span<V>) -> Result<Data, DataTooLong> {
        span.first.key()
    }
    fn ranges(entries: Vec<Entry<Span<V>>>, own: bool) -> Result<Vec<Element>, StatementError> {
        intervals(entries, own)
    }
}

macro_rules! tuples {
    ($(($($field:ident $from:ident $place:tt),*))*) => {$(
        impl<$($field: Value),*> Key for ($($field,)*) {
            type Span = ($(Span<$field>,)*);
            fn datatypes() -> Vec<Datatype> {
                vec![$($field::DATATYPE),*]
            }
            fn key(&self) -> Result<Data, DataTooLong> {
                Data::concat(&[$(self.$place.to_data()),*])
            }
            fn is_range(span: &Self::Span) -> bool {
                $(span.$place.is_range())||*
            }
            fn single(span: &Self::Span) -> Result<Data, DataTooLong> {
                Data::concat(&[$(span.$place.first.to_data()),*])
            }
            fn ranges(entries: Vec<Entry<Self::Span>>, _own: bool) -> Result<Vec<Element>, StatementError> {
                let fields = |(span, to): Entry<Self::Span>| (vec![$(span.$place.ends()),*], to);
                boxes(entries.into_iter().map(fields))
            }
        }

        impl<$($field: Value, $from: Into<Span<$field>>),*> Spanning<($($field,)*)> for ($($from,)*) {
            fn span(self) -> ($(Span<$field>,)*) {
                ($(self.$place.into(),)*)
            }
        }
    )*};
}
tuples! {
    (A P 0, B Q 1)
    (A P 0, B Q 1, C R 2)
    (A P 0, B Q 1, C R 2, D S 3)
    (A P 0, B Q 1, C R 2, D S 3, E T 4)
}

/// What stands for keys of type `K`: a key, a range or prefix of them, or a tuple with one of these for each field.
#[diagnostic::on_unimplemented(message = "`{Self}` does not stand for keys of type `{K}`")]
pub trait Spanning<K: Key> {
    /// The keys.
    fn span(self) -> K::Span;
}

impl<V: Value, T: Into<Span<V>>> Spanning<V> for T {
    fn span(self) -> Span<V> {
        self.into()
    }
}
