//! What was refused, as the outside is told of it.

mod event;
#[cfg(feature = "sandbox")]
pub mod hint;
mod identity;
#[cfg(feature = "sandbox")]
mod learn;
pub mod ocsf;
#[cfg(feature = "sandbox")]
mod report;
mod summary;
mod time;

#[cfg(feature = "sandbox")]
pub(crate) use event::verdict_of;
pub use event::{Attempt, Event, Lost, SCHEMA, Tamperer, Tampering};
pub use identity::{Ancestor, Attempted, Identify, Identity, Process};
#[cfg(feature = "sandbox")]
pub use learn::learned;
#[cfg(feature = "sandbox")]
pub use report::Report;
pub use summary::{Denial, RuleCount, Summary};
pub use time::rfc3339;
