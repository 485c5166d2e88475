//! Bytes to types and back.
//!
//! Decoding is safe Rust over borrowed slices: it never panics and never reads past what it was given, whatever the bytes
//! say. Byte order is handled here and nowhere else.

pub mod btf;
pub mod conntrack;
pub mod inet_diag;
pub mod netlink;
pub mod nflog;
pub mod nftables;
pub mod packet;
pub mod rtnetlink;
