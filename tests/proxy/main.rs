//! The built-in proxy on real sockets: what it lets through, what it refuses and how, and what it withstands.
#![cfg(feature = "sandbox")]

mod bounds;
mod bulk;
mod flood;
mod forward;
mod hellos;
mod hostile;
mod intercepted;
mod network;
mod origins;
mod placeholders;
mod policy;
mod programs;
mod revoked;
mod tls;
mod tunnel;
mod upstream;
