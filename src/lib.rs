// Examples for the sandbox need it.
#![cfg_attr(feature = "sandbox", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "sandbox"),
    doc = "The rules layer of ringfence alone: nf_tables and nflog, without the sandbox."
)]
//!
#![cfg_attr(feature = "sandbox", doc = include_str!("../docs/library.md"))]
#![cfg_attr(
    not(feature = "sandbox"),
    doc = "Begin with [`nft`], [`nft::statements`] and [`kernel::nftables::Socket`]; what it costs and five whole programs are in `docs/library.md`."
)]
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

/// Parsers of bytes from outside that are no part of the API, for the fuzz targets.
#[cfg(feature = "sandbox")]
#[doc(hidden)]
pub mod parsers {
    pub use crate::kernel::identity::{read_process, read_record};
    pub use crate::kernel::userns::identity_map;
    pub use crate::proxy::{Opening, edit_body, read_hello};
    pub use crate::sandbox::{read_answer, read_order};
}
