//! Everything that talks to the kernel.

pub mod forwarding;
pub mod link;
pub mod netns;
pub mod nftables;
mod refusal;
pub mod rtnetlink;

pub use refusal::KernelError;
