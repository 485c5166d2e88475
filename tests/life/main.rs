//! What a sandbox's life and death leave behind, wherever and however it ends: nothing.
#![cfg(feature = "cli")]

#[path = "../support/mod.rs"]
mod support;
#[path = "../world/mod.rs"]
mod world;

mod crowd;
mod frozen;
mod killed;
mod places;
mod troubled;
mod users;
