//! The built-in proxy on real sockets: what it lets through, what it refuses and how, and what it withstands.
#![cfg(feature = "sandbox")]

mod bounds;
mod bulk;
mod forward;
mod hostile;
mod network;
mod policy;
mod programs;
mod tunnel;
mod upstream;
