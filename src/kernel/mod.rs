//! Everything that talks to the kernel.

#[cfg(feature = "sandbox")]
pub mod child;
pub mod clock;
#[cfg(feature = "sandbox")]
pub mod conntrack;
#[cfg(feature = "sandbox")]
pub mod descriptor;
#[cfg(feature = "sandbox")]
mod dialogue;
pub mod forwarding;
#[cfg(feature = "sandbox")]
pub mod guard;
#[cfg(feature = "sandbox")]
pub mod identity;
#[cfg(feature = "sandbox")]
pub mod inet_diag;
#[cfg(feature = "sandbox")]
pub mod landlock;
pub mod link;
pub mod netns;
pub mod nflog;
pub mod nftables;
#[cfg(feature = "sandbox")]
pub mod passwd;
#[cfg(feature = "sandbox")]
pub mod probe;
mod refusal;
pub mod rtnetlink;
#[cfg(feature = "sandbox")]
pub mod uplink;
#[cfg(feature = "sandbox")]
pub mod userns;

pub use refusal::KernelError;
