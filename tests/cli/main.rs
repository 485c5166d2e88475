//! Standard output, standard error and exit status of every subcommand, bad input first of all.
//!
//! Every command runs in a small internet of its own, where a name that the hosts file does not have leads nowhere.
#![cfg(feature = "cli")]

#[path = "../support/mod.rs"]
mod support;
#[path = "../world/mod.rs"]
mod world;

mod help;
mod plan;
mod refused;
mod rules;
