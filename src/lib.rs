#![doc = include_str!("../README.md")]
//!
#![doc = include_str!("../docs/library.md")]
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod audit;
#[cfg(feature = "sandbox")]
pub mod dns;
#[cfg(feature = "sandbox")]
pub mod doctor;
mod error;
pub mod kernel;
pub mod link;
pub mod nflog;
pub mod nft;
#[cfg(feature = "sandbox")]
pub mod plan;
#[cfg(feature = "sandbox")]
pub mod policy;
#[cfg(feature = "sandbox")]
pub mod proxy;
#[cfg(feature = "sandbox")]
mod sandbox;
pub mod wire;

pub use error::{Error, ErrorKind, Result};
#[cfg(feature = "sandbox")]
pub use sandbox::{
    Command, Control, Counted, Counters, Entry, EventStream, Host, OnReport, RemoteControl, Running, Sandbox,
    SandboxOptions, plan,
};
