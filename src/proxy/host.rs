//! The host's own addresses.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::Result;
use crate::kernel::rtnetlink::{Batch, Request, RouteKind, Socket};

/// Tells which addresses are the host's own, in the namespace that is dialled from.
///
/// A connection to one of them never leaves the host, so it reaches whatever listens on all interfaces, past every firewall
/// that stands before the host.
pub(super) struct HostAddresses(Mutex<Socket>);

impl HostAddresses {
    /// Opens the one socket that the kernel is asked on.
    ///
    /// It is kept, so that a client that has used up the descriptors cannot make the question impossible to ask.
    ///
    /// # Errors
    ///
    /// As [`Socket::open`].
    pub(super) fn open() -> Result<Self> {
        Ok(Self(Mutex::new(Socket::open()?)))
    }

    /// Keeps those of `addresses` that are the host's own now.
    ///
    /// # Errors
    ///
    /// When the kernel's answer was lost: then nothing is known about them.
    pub(super) fn among(&self, addresses: &[IpAddr]) -> Result<Vec<IpAddr>> {
        let asked = || addresses.iter().map(IpAddr::to_canonical);
        let batch: Batch = asked().map(Request::lookup).collect();
        // The kernel answers within the send, so nothing waits here. Answers are told apart by their numbers, so whoever
        // panicked in the middle leaves nothing behind that could be taken for an answer to this.
        let replies = self.0.lock().unwrap_or_else(PoisonError::into_inner).try_each(batch)?;
        let mut own = Vec::new();
        for (address, reply) in asked().zip(replies) {
            match reply {
                Ok(reply) => own.extend((reply.route()?.kind == RouteKind::Local).then_some(address)),
                // Where the kernel has no route there is no connection either.
                Err(refusal) => tracing::debug!(%address, error = %refusal.error, "no route"),
            }
        }
        Ok(own)
    }
}
