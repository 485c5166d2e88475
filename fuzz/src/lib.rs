//! What every fuzz target does with its bytes.
//!
//! Each function takes what comes and panics when something that must hold does not. `fuzz_targets/` hands them what libFuzzer
//! makes up, `tests/corpora.rs` of the main package what is kept in `corpus/` and `crashes/`.

mod audit;
mod bytes;
mod dns;
mod kernel;
mod netfilter;
mod proxy;
mod secrets;
mod stream;
mod text;
mod transaction;

pub use audit::{learn, process, record};
pub use bytes::{btf, conntrack, inet_diag, netlink, nflog, nftables, packet, rtnetlink};
pub use dns::dns;
pub use kernel::ruleset;
pub use netfilter::netfilter;
pub use proxy::proxy;
pub use secrets::secrets;
pub use stream::{hello, rewrite};
pub use text::{answer, json, order, passwd, policy, toml, variables};
pub use transaction::transaction;

/// What a target does with its bytes.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 26] = [
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
    ("secrets", secrets),
    ("hello", hello),
    ("rewrite", rewrite),
    ("packet", packet),
    ("nflog", nflog),
    ("dns", dns),
    ("btf", btf),
    ("conntrack", conntrack),
    ("inet_diag", inet_diag),
    ("netfilter", netfilter),
    ("rtnetlink", rtnetlink),
    ("order", order),
    ("answer", answer),
    ("record", record),
    ("process", process),
    ("learn", learn),
];
