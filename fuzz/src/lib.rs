//! What every fuzz target does with its bytes.
//!
//! Each function takes what comes and panics when something that must hold does not. `fuzz_targets/` hands them what libFuzzer
//! makes up, `tests/corpora.rs` of the main package what is kept in `corpus/` and `crashes/`.

mod bytes;
mod dns;
mod kernel;
mod proxy;
mod text;
mod transaction;

pub use bytes::{btf, conntrack, inet_diag, netlink, nflog, nftables, packet};
pub use dns::dns;
pub use kernel::ruleset;
pub use proxy::proxy;
pub use text::{json, passwd, policy, toml, variables};
pub use transaction::transaction;

/// What a target does with its bytes.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 16] = [
    ("netlink", netlink),
    ("nftables", nftables),
    ("transaction", transaction),
    ("ruleset", ruleset),
    ("json", json),
    ("policy", policy),
    ("toml", toml),
    ("variables", variables),
    ("passwd", passwd),
    ("proxy", proxy),
    ("packet", packet),
    ("nflog", nflog),
    ("dns", dns),
    ("btf", btf),
    ("conntrack", conntrack),
    ("inet_diag", inet_diag),
];
