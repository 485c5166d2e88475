//! Changes of a namespace's ruleset, as they are committed.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt;

use super::{MAX_DATAGRAMS, Received, Socket};
use crate::kernel::refusal::undecodable;
use crate::nft::{Generation, Operation};
use crate::wire::netlink;
use crate::wire::nftables::{self, Author};
use crate::{Error, ErrorKind, Result};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;

/// Room for what a large transaction tells. Without `CAP_NET_ADMIN` the kernel gives less.
const RECEIVE_BUFFER: usize = 32 << 20;

/// What one transaction changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A transaction was committed.
    Committed {
        /// The number of the ruleset that it made.
        generation: Generation,
        /// Who committed it, as far as the kernel tells.
        by: Option<Author>,
        /// What it added ([`Verb::Add`](crate::nft::Verb::Add)) and deleted ([`Verb::Delete`](crate::nft::Verb::Delete)), in order. What
        /// could not be decoded is left out, and counted.
        operations: Vec<Operation>,
        /// How many messages could not be decoded.
        undecoded: usize,
    },
    /// Changes came faster than they were read, and some were lost: read the ruleset anew.
    Lost,
}

/// Hears of every change of the ruleset of the network namespace in which it was opened.
///
/// Elements that packets add or that run out are changes without a commit, of which the kernel tells nothing.
///
/// # Examples
///
/// ```no_run
/// use ringfence::kernel::nftables::{Change, Monitor};
///
/// let mut monitor = Monitor::open()?;
/// loop {
///     match monitor.next(None)? {
///         Some(Change::Committed { generation, by, operations, .. }) => {
///             let by = by.map(|by| by.name).unwrap_or_default();
///             println!("generation {}: {} changes by {by}", generation.0, operations.len());
///         }
///         Some(Change::Lost) => println!("some changes were lost"),
///         _ => {}
///     }
/// }
/// # #[allow(unreachable_code)]
/// # Ok::<(), ringfence::Error>(())
/// ```
#[derive(Debug)]
#[doc(alias = "NFNLGRP_NFTABLES")]
pub struct Monitor {
    socket: Socket,
    /// Of the transaction whose messages are being read.
    operations: Vec<Operation>,
    undecoded: usize,
    ready: std::collections::VecDeque<Change>,
}

impl Monitor {
    /// Opens one in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// As [`Socket::open`]; [`ErrorKind::Privilege`] without `CAP_NET_ADMIN`.
    pub fn open() -> Result<Self> {
        let socket = Socket::open()?;
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            // As much as `net.core.rmem_max` lets through.
            let _ = sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER);
        }
        socket.join(GROUP).map_err(|cause| {
            let kind = match cause.raw_os_error() {
                Some(libc::EPERM) => ErrorKind::Privilege,
                _ => ErrorKind::Io,
            };
            Error::new(kind, "can't listen for changes of the ruleset").because(cause)
        })?;
        Ok(Self { socket, operations: Vec::new(), undecoded: 0, ready: std::collections::VecDeque::new() })
    }

    /// Waits for the next change, for as long as `patience` lets it; for ever when it is `None`. `None` when there was none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the socket fails, [`ErrorKind::Decode`] when what comes is no netlink.
    pub fn next(&mut self, patience: Option<Duration>) -> Result<Option<Change>> {
        let end = patience.map(|patience| std::time::Instant::now() + patience);
        loop {
            self.drain()?;
            if let Some(change) = self.ready.pop_front() {
                return Ok(Some(change));
            }
            let left = end.map(|end| end.saturating_duration_since(std::time::Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], left.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(cause) => {
                    return Err(Error::new(ErrorKind::Io, "can't wait for changes of the ruleset").because(cause));
                }
            }
        }
    }

    /// Reads what is there.
    fn drain(&mut self) -> Result<()> {
        for _ in 0..MAX_DATAGRAMS {
            let len = match self.socket.receive()? {
                Received::Nothing => return Ok(()),
                Received::Lost => {
                    self.operations.clear();
                    self.undecoded = 0;
                    self.ready.push_back(Change::Lost);
                    continue;
                }
                Received::Datagram(len) => len,
            };
            for message in netlink::messages(&self.socket.buffer[..len]) {
                let message = message.map_err(undecodable)?;
                if nftables::is_commit(&message) {
                    let (generation, by) = nftables::commit(&message).map_err(undecodable)?;
                    let operations = std::mem::take(&mut self.operations);
                    let undecoded = std::mem::take(&mut self.undecoded);
                    self.ready.push_back(Change::Committed { generation, by, operations, undecoded });
                } else {
                    match nftables::change(&message) {
                        Ok(operation) => self.operations.push(operation),
                        Err(_) => self.undecoded += 1,
                    }
                }
            }
        }
        Ok(())
    }
}

impl std::os::fd::AsFd for Monitor {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
