//! What a fence refuses, told: the receiver of an nflog group, and `ringfence events` beside a real fence.

#[path = "../support/mod.rs"]
mod support;
#[path = "../world/mod.rs"]
mod world;

mod follow;
mod receiver;
mod rules;
