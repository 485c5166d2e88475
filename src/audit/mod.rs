//! What was refused, as the outside is told of it.

mod event;
mod time;

pub use event::{Attempt, Event, Identity, SCHEMA};
pub use time::rfc3339;
