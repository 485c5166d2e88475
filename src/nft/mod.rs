//! The typed nftables model: tables, chains, rules, sets and the transaction that changes them.
//!
//! Everything here is a value. Nothing in this module talks to the kernel: [`crate::wire::nftables`] turns these
//! values into netlink bytes and back, and [`crate::kernel::nftables`] commits them.
//!
//! A rule is a list of [`Expr`], the kernel's own instructions, so that what was meant and what the kernel
//! dumps can be compared one to one. [`Rule`] has readable constructors for the matches and statements in use, each
//! naming the nft(8) statement it stands for; the `syntax` module shows a ruleset in nft(8) syntax.

mod data;
mod expr;
mod json;
mod name;
mod rule;
mod set;
mod syntax;
mod table;
mod transaction;

pub use data::{Data, DataTooLong};
pub use expr::{
    BitwiseOp, CmpOp, CtDirection, CtKey, Expr, Log, LogFlags, MetaKey, PayloadBase, Register, Reject, RejectCode,
    Verdict,
};
pub use json::JsonError;
pub use name::{ChainName, Comment, InterfaceName, NameError, SetName, TableName};
pub use rule::{Field, Rule, ct_state};
pub use set::{Datatype, Element, KeyType, Set, SetFlags};
pub use syntax::{Syntax, Unshown};
pub use table::{BaseChain, Chain, ChainPolicy, ChainType, Family, Hook, Priority, Table, TableFlags, TableId};
pub use transaction::{Generation, Handle, Object, Operation, Ruleset, Transaction, Verb};
