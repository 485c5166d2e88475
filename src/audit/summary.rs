//! Everything that was refused, in short.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::Ancestor;
use super::event::as_rfc3339;
#[cfg(feature = "sandbox")]
use super::hint::Entry;

/// Everything that a sandbox was refused, up to a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// Up to when.
    #[serde(serialize_with = "as_rfc3339")]
    pub time: SystemTime,
    /// The sandbox's name, or the host's end of its wire where it has none.
    pub sandbox: Arc<str>,
    /// It was an audit: what follows has passed where its verdict is `accept`, and would have been refused.
    #[serde(skip_serializing_if = "is_false")]
    pub audit: bool,
    /// How many refusals there were, those included that were lost.
    pub refused: u64,
    /// How many of them nothing else is known of.
    pub lost: u64,
    /// How often somebody else changed the rules of the fence.
    #[serde(skip_serializing_if = "is_zero")]
    pub tampered: u64,
    /// What the kernel counted, rule by rule, where it was asked: once the last program has ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleCount>,
    /// Who wanted where, each once, in the order in which they first tried.
    pub denials: Vec<Denial>,
    /// Refusals that are told of, and for which there was no room among the denials.
    #[serde(skip_serializing_if = "is_zero")]
    pub others: u64,
}

/// What a rule refused. What was received and what was lost together are what the kernel counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RuleCount {
    /// The rule's prefix.
    pub rule: String,
    /// Packets that the kernel counted.
    pub counted: u64,
    /// Packets that came with an event.
    pub received: u64,
    /// Packets that were lost on their way.
    pub lost: u64,
}

/// Attempts of one program to reach one destination. What is not known is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Denial {
    /// Where in their way they were refused, as in [`Attempt::denial_stage`](super::Attempt::denial_stage).
    pub denial_stage: &'static str,
    /// What became of them, as in [`Attempt::verdict`](super::Attempt::verdict). An audit lets most pass, and not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<&'static str>,
    /// Destination; of a name with several addresses, the first that was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst: Option<IpAddr>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// Name of the protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<String>,
    /// The program's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// What the program called itself when it first tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// When it first tried.
    #[serde(serialize_with = "as_rfc3339")]
    pub first: SystemTime,
    /// When it last tried.
    #[serde(serialize_with = "as_rfc3339")]
    pub last: SystemTime,
    /// How often.
    pub count: u64,
    /// The processes that the first attempt's descended from, the nearest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<Ancestor>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The flag that would allow it, quoted for a shell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flag: Option<String>,
    /// The line of a policy file that would allow it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The same as a value.
    #[cfg(feature = "sandbox")]
    #[serde(skip)]
    pub entry: Option<Entry>,
}

fn is_false(truth: &bool) -> bool {
    !*truth
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}
