//! Who tried: programs that try to get out of a real fence in every way that is known, and who is told to have done it.
//!
//! Needs root, and a C compiler for the programs.
#![cfg(feature = "sandbox")]

#[path = "../support/mod.rs"]
mod support;

mod cell;
mod cost;
mod hostile;
mod marked;
mod object;
mod programs;
