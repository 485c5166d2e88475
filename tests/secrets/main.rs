//! Secrets that the program never holds: real programs with a placeholder, and what a hostile one can find out.
#![cfg(feature = "cli")]

#[path = "../support/mod.rs"]
mod support;
#[path = "../world/mod.rs"]
mod world;

mod changed;
mod hidden;
mod learn;
mod office;
mod programs;
mod rules;
