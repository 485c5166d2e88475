//! What a fence refuses, told: the receiver of an nflog group, and `ringfence events` beside a real fence.
#![cfg(feature = "cli")]

#[path = "../support/mod.rs"]
mod support;
#[path = "../world/mod.rs"]
mod world;

mod follow;
mod many;
mod metrics;
mod ocsf;
mod receiver;
mod rules;
mod strangers;
mod told;
mod who;
