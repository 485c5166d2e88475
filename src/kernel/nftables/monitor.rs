//! Changes of a namespace's ruleset, as they are committed.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt;

use super::refusal::NO_PRIVILEGE;
use super::{MAX_DATAGRAMS, Received, Socket};
use crate::kernel::refusal::undecodable;
use crate::nft::{Generation, TableId};
use crate::wire::netlink;
use crate::wire::nftables::{self, Author, Edit};
use crate::{Error, ErrorKind, Result};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;

/// Room for what a large transaction tells. Without `CAP_NET_ADMIN` the kernel gives less.
const RECEIVE_BUFFER: usize = 32 << 20;

/// Room where a few tables are listened to: whoever changes others can make the kernel hold no more than that for us.
const RECEIVE_BUFFER_OF_SOME: usize = 1 << 18;

/// How many edits of one transaction are kept then, and how many transactions wait: whoever listens decides what memory it costs, not whoever commits.
const MOST_OF_SOME: usize = 128;

/// How many datagrams are read then before the caller has its turn: in a flood it would else never end.
const BURST_OF_SOME: usize = 512;

/// What one transaction changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A transaction was committed.
    Committed {
        /// The number of the ruleset that it made.
        generation: Generation,
        /// The port of the socket that it came by: see [`Socket::port`].
        port: u32,
        /// Who committed it, as far as the kernel tells.
        by: Option<Author>,
        /// What it added and deleted, in order. What could not be decoded is left out, and counted, and so is what a monitor
        /// [of some tables](Monitor::on) keeps no more of.
        edits: Vec<Edit>,
        /// How many messages were left out.
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
///         Some(Change::Committed { generation, by, edits, .. }) => {
///             let by = by.map(|by| by.name).unwrap_or_default();
///             println!("generation {}: {} changes by {by}", generation.0, edits.len());
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
    /// The tables that count; all when absent.
    only: Option<Vec<TableId>>,
    /// Of the transaction whose messages are being read.
    edits: Vec<Edit>,
    undecoded: usize,
    /// Nothing waited any more when it was last looked.
    drained: bool,
    /// How many datagrams were read then.
    read: usize,
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
        Self::join(socket, None)
    }

    /// Listens through a socket that was opened before, for changes of these tables alone. Others cost no more than to be passed by.
    ///
    /// Memory is bounded, whatever others do: in the kernel, and by how much of a transaction is kept.
    ///
    /// # Errors
    ///
    /// As [`Monitor::open`].
    pub fn on(socket: Socket, tables: Vec<TableId>) -> Result<Self> {
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_OF_SOME).is_err() {
            let _ = sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_OF_SOME);
        }
        Self::join(socket, Some(tables))
    }

    fn join(socket: Socket, only: Option<Vec<TableId>>) -> Result<Self> {
        socket.join(GROUP).map_err(|cause| {
            const WHAT: &str = "can't listen for changes of the ruleset";
            match cause.raw_os_error() {
                Some(libc::EPERM) => Error::new(ErrorKind::Privilege, WHAT).hint(NO_PRIVILEGE),
                _ => Error::new(ErrorKind::Io, WHAT),
            }
            .because(cause)
        })?;
        let ready = std::collections::VecDeque::new();
        Ok(Self { socket, only, edits: Vec::new(), undecoded: 0, drained: false, read: 0, ready })
    }

    /// Takes the next change that has come already. `None` when there is none, or not after some thousand messages that are about other tables.
    ///
    /// # Errors
    ///
    /// As [`Monitor::next`].
    pub fn try_next(&mut self) -> Result<Option<Change>> {
        if self.ready.is_empty() {
            self.drain()?;
        }
        Ok(self.ready.pop_front())
    }

    /// Waits for the next change, for as long as `patience` lets it; for ever when it is `None`. `None` when there was none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the socket fails, [`ErrorKind::Decode`] when what comes is no netlink.
    pub fn next(&mut self, patience: Option<Duration>) -> Result<Option<Change>> {
        // What ends past the end of time never does.
        let end = patience.and_then(|patience| std::time::Instant::now().checked_add(patience));
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

    /// Whether there was nothing more to read when [`Monitor::try_next`] last did.
    pub fn drained(&self) -> bool {
        self.drained
    }

    /// How many datagrams [`Monitor::try_next`] last read, of whatever tables.
    pub fn read(&self) -> usize {
        self.read
    }

    /// Reads what is there, or as much of it as is kept at once.
    fn drain(&mut self) -> Result<()> {
        (self.drained, self.read) = (false, 0);
        let most = if self.only.is_some() { BURST_OF_SOME } else { MAX_DATAGRAMS };
        for _ in 0..most {
            if self.only.is_some() && self.ready.len() >= MOST_OF_SOME {
                return Ok(());
            }
            let len = match self.socket.receive()? {
                Received::Nothing => {
                    self.drained = true;
                    return Ok(());
                }
                Received::Lost => {
                    self.edits.clear();
                    self.undecoded = 0;
                    if self.ready.back() != Some(&Change::Lost) {
                        self.ready.push_back(Change::Lost);
                    }
                    continue;
                }
                Received::Datagram(len) => len,
            };
            self.read += 1;
            for message in netlink::messages(&self.socket.buffer[..len]) {
                let message = message.map_err(undecodable)?;
                if nftables::is_commit(&message) {
                    let (generation, by) = nftables::commit(&message).map_err(undecodable)?;
                    let edits = std::mem::take(&mut self.edits);
                    let undecoded = std::mem::take(&mut self.undecoded);
                    if self.only.is_none() || !edits.is_empty() || undecoded > 0 {
                        let port = message.header.port;
                        self.ready.push_back(Change::Committed { generation, port, by, edits, undecoded });
                    }
                } else if self.only.as_ref().is_none_or(|only| only.iter().any(|id| nftables::is_of(&message, id))) {
                    if self.only.is_some() && self.edits.len() == MOST_OF_SOME {
                        self.undecoded += 1;
                        continue;
                    }
                    match nftables::change(&message) {
                        Ok(edit) => self.edits.push(edit),
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

impl std::os::fd::AsRawFd for Monitor {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        std::os::fd::AsFd::as_fd(self).as_raw_fd()
    }
}
