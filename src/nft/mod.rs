//! The typed nftables model: tables, chains, rules, sets and the transaction that changes them.
//!
//! Everything here is a value. Nothing in this module talks to the kernel: [`crate::wire::nftables`] turns these
//! values into netlink bytes and back, and [`crate::kernel::nftables`] commits them.
//!
//! A rule is a list of [`Expr`], the kernel's own instructions, so that what was meant and what the kernel
//! dumps can be compared one to one. [`statements`] is the way to write one in nft(8)'s words; the `syntax` module
//! shows a ruleset in nft(8) syntax.

mod data;
mod diff;
mod expr;
mod json;
mod name;
mod object;
mod raw;
mod rule;
mod ruleset;
mod set;
pub mod statements;
mod still;
mod syntax;
mod table;
mod transaction;

pub use data::{Data, DataTooLong};
pub use diff::diff;
pub use expr::*;
pub use json::JsonError;
pub use name::{ChainName, Comment, FlowtableName, InterfaceName, NameError, ObjectName, SetName, TableName};
pub use object::{CtExpectation, CtHelper, CtTimeout, Flowtable, KnownObject, ObjectType, State, StatefulObject};
pub use raw::{Bytes, Extra, RawAttribute};
pub use rule::{Field, Rule, ct_state};
pub use ruleset::Ruleset;
pub use set::{Datatype, Element, ElementData, KeyType, MapTo, Set, SetFlags, SetPolicy};
pub(crate) use still::{
    filled, forget_sizes_of_filled, same_element, same_object, still_chain, still_flowtable, still_rule, still_set,
};
pub use syntax::{Syntax, Unshown};
pub use table::{
    BaseChain, Chain, ChainFlags, ChainPolicy, ChainType, Family, Hook, Priority, Table, TableFlags, TableId,
};
pub use transaction::{Generation, Handle, Object, Operation, Transaction, Verb};
