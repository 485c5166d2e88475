//! The built-in resolver: against servers that answer as they should not, against a real one, and with real programs inside.
#![cfg(feature = "sandbox")]

#[path = "../support/mod.rs"]
mod support;
#[path = "../world/mod.rs"]
mod world;

mod hostile;
mod inside;
mod load;
mod network;
mod serve;
mod upstream;
