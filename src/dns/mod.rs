//! The built-in resolver.
//!
//! It answers on sockets that somebody opened inside the sandbox's namespace, and asks the host's name servers from the
//! namespace it runs in. Which names may be asked for, and which addresses may be handed out, a [`Gate`] decides.
//!
//! | asked | answered |
//! | --- | --- |
//! | `A`, `AAAA`, `HTTPS`, `SVCB`, `CNAME` of a name that the gate covers | what the host's servers say; addresses that stand in service records as hints are taken out |
//! | a name that the gate does not cover, and `PTR` | `NXDOMAIN`: nobody outside is asked |
//! | a name whose addresses the gate refuses | `NXDOMAIN`; `SERVFAIL` if the gate failed |
//! | any other kind, transfers and `ANY` included | `REFUSED` |
//! | what can't be read, or is not exactly one question | `FORMERR` |
//! | another operation than a query; another class; EDNS of another version | `NOTIMP`; `REFUSED`; `BADVERS` |
//! | more than [`Limits::questions`] at once; a name that no server can say anything about | `SERVFAIL` |
//! | `localhost`, and names below it | loopback |
//!
//! Who asks with EDNS is told why (RFC 8914). It is not `REFUSED` that answers for a strange name, because musl's resolver passes over that and waits
//! for another answer until its time is up, five seconds, where `NXDOMAIN` ends the matter at once for every client.
//!
//! What it holds to:
//!
//! - **First the rules, then the answer.** An address leaves only after the gate has let it through, when it comes out of memory too.
//! - **Only what was asked.** Of a server's answer the chain of aliases from the name that was asked for is kept, and the records at its end. An answer
//!   counts if it comes from the server that was asked, to the port, with the number and the capitals of the question; over TCP otherwise.
//! - **Bounded.** Memory, sockets, questions and connections each have a limit, and what is past it is told so.

mod answer;
mod answers;
mod cache;
mod conf;
mod host;
mod question;
mod serve;
mod upstream;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::Error;
use crate::policy::DnsName;

pub use answer::{Answer, Outcome, Sent, Unusable};
pub use answers::Answers;
pub use conf::{Hosts, ResolvConf, Server, has_other_sources, nsswitch_inside};
pub use host::{HostFiles, HostResolver};
pub use question::{Carrier, Question, Unread};
pub use serve::{Limits, Resolver, Sockets};

/// Decides which names may be asked for, and hears of every address before the answer leaves.
pub trait Gate: Send + Sync + 'static {
    /// Says whether a program of the sandbox may ask for this name at all.
    fn covers(&self, name: &DnsName) -> bool;

    /// Hears of all addresses of an answer to `asked`, before it leaves, whether it comes from a server or from memory.
    ///
    /// # Errors
    ///
    /// [`Refused`] when the answer must not leave. Who asked is told that there is no such name, or `SERVFAIL` if the gate itself failed.
    fn admit<'a>(&'a self, asked: &'a DnsName, addresses: &'a [Handed]) -> BoxFuture<'a, Result<(), Refused>>;
}

/// An address that is about to be handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handed {
    /// The address. IPv4-mapped IPv6 is left as it is.
    pub address: IpAddr,
    /// For how long whoever gets it may use it.
    pub ttl: Duration,
}

/// Why an answer must not leave.
#[derive(Debug)]
#[non_exhaustive]
pub enum Refused {
    /// An address that a public name has no business resolving to.
    Special {
        /// The address.
        address: IpAddr,
        /// What it is, with its article.
        class: &'static str,
    },
    /// There is no room for more addresses.
    TooMany,
    /// The addresses could not be let through.
    Failed(Error),
}

/// A question that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Denial {
    /// Who asked, in the sandbox's namespace.
    pub client: SocketAddr,
    /// The name that was asked for, as it was written on the wire. Not escaped.
    pub name: String,
    /// What was asked for: `A`, `AAAA`, `PTR`, `TYPE65280`.
    pub kind: String,
    /// Why.
    pub reason: DenialReason,
    /// Where in its way it was refused: always `dns` here.
    pub stage: &'static str,
    /// It was answered all the same, for an audit.
    pub passed: bool,
}

/// Why a question was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DenialReason {
    /// The policy has no such name.
    NotCovered,
    /// The policy has the name, and what is asked of it says nothing about addresses.
    Kind,
    /// It leads to an address that a public name has no business resolving to.
    Special {
        /// The address.
        address: IpAddr,
        /// What it is, with its article.
        class: &'static str,
    },
    /// There is no room for more addresses.
    TooMany,
    /// The addresses could not be let through.
    Failed,
}

impl DenialReason {
    /// The reason in one word, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            DenialReason::NotCovered => "not-listed",
            DenialReason::Kind => "kind",
            DenialReason::Special { .. } => "special-address",
            DenialReason::TooMany => "too-many",
            DenialReason::Failed => "failed",
        }
    }
}

impl fmt::Display for DenialReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DenialReason::NotCovered => f.write_str("the policy has no such name"),
            DenialReason::Kind => f.write_str("only addresses are answered for"),
            DenialReason::Special { address, class } => write!(f, "it leads to {address}, {class}"),
            DenialReason::TooMany => f.write_str("there is no room for more addresses"),
            DenialReason::Failed => f.write_str("its addresses could not be let through"),
        }
    }
}

/// Is told of every denial, on the resolver's own task: it must not block.
pub type OnDenial = Arc<dyn Fn(Denial) + Send + Sync>;
