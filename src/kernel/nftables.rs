//! The nf_tables socket: commits transactions, reads rulesets back.
//!
//! A commit is one `send`, whatever its size, because the kernel takes one datagram all together or not at all. The kernel
//! has carried it out by the time `send` returns, so its answers are read without waiting.
//!
//! # References
//!
//! netlink(7); `linux/netfilter/nfnetlink.h`; `net/netfilter/nfnetlink.c`: `nfnetlink_rcv_batch`.
#![allow(unsafe_code)]

mod ask;
mod dry_run;
mod elements;
mod monitor;
mod read;
mod refusal;
mod verify;
mod whole;

use std::collections::VecDeque;
use std::ffi::c_void;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd};
use std::ptr::NonNull;

use mnl::mnl_sys;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, recvfrom, sockopt};

use crate::kernel::refusal::undecodable;
use crate::nft::{Generation, Handle, Transaction};
use crate::wire::netlink::{self, Acknowledgement};
use crate::wire::nftables::{self, Batch, Request};
use crate::{Error, ErrorKind, Result};

pub use dry_run::dry_run;
pub use monitor::{Change, Monitor};

/// Large enough for any datagram that the kernel makes of a dump (32 KiB) or of an error.
const RECEIVE_LEN: usize = 128 * 1024;

/// Room for the errors of a large batch. Without `CAP_NET_ADMIN` the kernel gives less.
const RECEIVE_BUFFER: usize = 8 << 20;

/// How long the kernel may take for the next part of a dump.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// How often a dump is tried again when somebody else changed the ruleset meanwhile.
const ATTEMPTS: usize = 64;

/// How often a commit is. Each time it is overtaken somebody else has got on, and it takes some 20 µs to find out: who commits
/// without pause can keep another waiting, but hardly for so long.
const COMMIT_ATTEMPTS: usize = 10_000;

/// How many generations of its own a socket remembers.
const REMEMBERED: usize = 1024;

/// The most datagrams of one answer that are looked at.
const MAX_DATAGRAMS: usize = 1 << 22;

/// A socket to nf_tables, of the network namespace that the calling thread was in when it was opened.
///
/// A table made through it with [`TableFlags::owner`](crate::nft::TableFlags::owner) set lives as long as the socket does.
/// Dropping a socket that owns tables blocks for 10 to 14 ms a table.
///
/// # Examples
///
/// ```no_run
/// use ringfence::kernel::nftables::Socket;
/// use ringfence::nft::{Family, Object, Table, TableFlags, TableId, TableName, Transaction, Verb};
///
/// let id = TableId { family: Family::Inet, name: TableName::new("guard")? };
/// let table = Table { flags: TableFlags { owner: true, ..TableFlags::default() }, ..Table::new(id) };
/// let mut transaction = Transaction::new();
/// transaction.push(Verb::Create, Object::Table(table));
/// let generation = Socket::open()?.commit(&transaction)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "NETLINK_NETFILTER")]
pub struct Socket {
    raw: NonNull<mnl_sys::mnl_socket>,
    /// Sequence number of the next message.
    seq: u32,
    buffer: Vec<u8>,
    /// The ruleset's generation when it was last looked at. If it still is that one later, nothing has changed in between.
    seen: Option<Generation>,
    /// The largest datagram that is known to fit the send buffer.
    room: usize,
    /// The generations that its own commits made, the last of them.
    made: VecDeque<Generation>,
    /// How many datagrams of answers it may still take.
    left: usize,
}

// SAFETY: libmnl's socket is a file descriptor and an address in memory of its own; nothing in it belongs to a thread.
unsafe impl Send for Socket {}

// SAFETY: through a shared reference its descriptor and port are read, which do not change, and options set by a system call.
unsafe impl Sync for Socket {}

impl Drop for Socket {
    fn drop(&mut self) {
        // SAFETY: the socket is owned by `self` alone and not used again.
        unsafe { mnl_sys::mnl_socket_close(self.raw.as_ptr()) };
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as `self` lives.
        unsafe { BorrowedFd::borrow_raw(mnl_sys::mnl_socket_get_fd(self.raw.as_ptr())) }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("fd", &self.as_fd()).finish_non_exhaustive()
    }
}

/// What one `recv` gave.
enum Received {
    /// That many bytes of the kernel's.
    Datagram(usize),
    /// Messages were dropped before these could be read. What is queued can still be.
    Lost,
    Nothing,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] when the kernel has no netfilter netlink, [`ErrorKind::Io`] otherwise.
    ///
    /// # Privileges
    ///
    /// None to open it. Every question and commit needs `CAP_NET_ADMIN` in the user namespace that owns the network namespace.
    pub fn open() -> Result<Self> {
        const WHAT: &str = "can't open an nf_tables socket";
        // Close-on-exec from birth: a child that inherited the socket would keep its owner tables alive.
        // SAFETY: takes two numbers, gives a new socket or NULL with errno.
        let raw = unsafe { mnl_sys::mnl_socket_open2(libc::NETLINK_NETFILTER, libc::SOCK_CLOEXEC) };
        let Some(raw) = NonNull::new(raw) else {
            let cause = io::Error::last_os_error();
            return Err(match cause.raw_os_error() {
                Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => {
                    Error::new(ErrorKind::Unsupported, WHAT).hint("the kernel lacks CONFIG_NETFILTER_NETLINK")
                }
                _ => Error::new(ErrorKind::Io, WHAT),
            }
            .because(cause));
        };
        let socket = Self {
            raw,
            seq: 1,
            buffer: vec![0; RECEIVE_LEN],
            seen: None,
            room: 0,
            made: VecDeque::new(),
            left: usize::MAX,
        };
        // SAFETY: the socket is alive.
        if unsafe { mnl_sys::mnl_socket_bind(raw.as_ptr(), 0, mnl_sys::MNL_SOCKET_AUTOPID) } < 0 {
            return Err(Error::new(ErrorKind::Io, WHAT).because(io::Error::last_os_error()));
        }
        // Each makes answers shorter or clearer; a kernel that lacks one says less, and nothing depends on it.
        for option in [libc::NETLINK_CAP_ACK, libc::NETLINK_EXT_ACK, libc::NETLINK_GET_STRICT_CHK] {
            let mut on: i32 = 1;
            let len = size_of::<i32>() as u32;
            // SAFETY: the socket is alive and `on` is `len` bytes long; libmnl reads it only.
            unsafe {
                let on = (&raw mut on).cast::<c_void>();
                mnl_sys::mnl_socket_setsockopt(raw.as_ptr(), option, on, len);
            }
        }
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            // As much as `net.core.rmem_max` lets through.
            let _ = sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER);
        }
        Ok(socket)
    }

    /// The number that the kernel tells this socket from others of its namespace by, as a [`Monitor`] hears it.
    pub fn port(&self) -> u32 {
        // SAFETY: the socket is alive; libmnl reads what it noted when it was bound.
        unsafe { mnl_sys::mnl_socket_get_portid(self.raw.as_ptr()) }
    }

    /// Whether one of this socket's commits made that generation, as far as it remembers: some thousand commits.
    pub fn made(&self, generation: Generation) -> bool {
        self.made.contains(&generation)
    }

    /// Hears what the kernel tells to a multicast group, too.
    fn join(&self, mut group: u32) -> io::Result<()> {
        let len = size_of::<u32>() as u32;
        // SAFETY: the socket is alive and `group` is `len` bytes long; libmnl reads it only.
        let answer = unsafe {
            let group = (&raw mut group).cast::<c_void>();
            mnl_sys::mnl_socket_setsockopt(self.raw.as_ptr(), libc::NETLINK_ADD_MEMBERSHIP, group, len)
        };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Opens a second descriptor of the same socket. What the socket owns lives until the last of them is closed.
    ///
    /// Both get the same answers, each whoever reads first: only one at a time may be used.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the process has no descriptor left.
    pub fn try_clone(&self) -> Result<Self> {
        let failed = |cause: io::Error| Error::new(ErrorKind::Io, "can't duplicate an nf_tables socket").because(cause);
        let fd = self.as_fd().try_clone_to_owned().map_err(failed)?;
        // SAFETY: takes a descriptor of a bound netlink socket, gives a new handle for it or NULL with errno.
        let raw = unsafe { mnl_sys::mnl_socket_fdopen(fd.as_raw_fd()) };
        let raw = NonNull::new(raw).ok_or_else(|| failed(io::Error::last_os_error()))?;
        // The handle closes it from here on.
        let _ = fd.into_raw_fd();
        let made = self.made.clone();
        Ok(Self {
            raw,
            seq: self.seq,
            buffer: vec![0; RECEIVE_LEN],
            seen: self.seen,
            room: self.room,
            made,
            left: self.left,
        })
    }

    /// Commits a transaction: all of it or, on error, nothing. Gives the generation that it made.
    ///
    /// That is the present one when the transaction asked for what was there already. An unbound transaction is bound to
    /// the present ruleset and tried again when somebody else was faster, so that the generation is known to be its own.
    ///
    /// # Errors
    ///
    /// With a [`KernelError`](super::KernelError) as the cause that names the operation, where the kernel told which one it was:
    ///
    /// - [`ErrorKind::Conflict`]: the object exists, belongs to another socket, or the ruleset is no longer at the generation
    ///   that the transaction was bound to;
    /// - [`ErrorKind::Privilege`]: `CAP_NET_ADMIN` is missing;
    /// - [`ErrorKind::Unsupported`]: the kernel has no nf_tables, or not that expression, object or table flag; the advice names the option
    ///   of its build;
    /// - [`ErrorKind::Exhausted`]: the batch is larger than an unprivileged socket may send, or the kernel has no memory for it;
    /// - [`ErrorKind::Kernel`]: anything else; where nothing could be sent, an [`EncodeError`](nftables::EncodeError) is the cause.
    pub fn commit(&mut self, transaction: &Transaction) -> Result<Generation> {
        self.carry_out(transaction, None)
    }

    /// [`Self::commit`], and tells which numbers the kernel gave to what was made: one place an operation, in order.
    ///
    /// A place is empty where the operation made nothing that has a number. The kernel sends back everything that it made, so a transaction
    /// of thousands of operations takes about twice as long.
    ///
    /// # Errors
    ///
    /// As [`Self::commit`]. [`ErrorKind::Exhausted`] when it was carried out and its echo did not fit the receive buffer.
    #[doc(alias = "NLM_F_ECHO")]
    pub fn commit_echo(&mut self, transaction: &Transaction) -> Result<(Generation, Vec<Option<Handle>>)> {
        let mut handles = vec![None; transaction.operations().len()];
        let generation = self.carry_out(transaction, Some(&mut handles))?;
        Ok((generation, handles))
    }

    fn carry_out(&mut self, transaction: &Transaction, mut echo: Option<&mut [Option<Handle>]>) -> Result<Generation> {
        let mut batch = nftables::encode_from(transaction, self.seq, echo.is_some()).map_err(|error| {
            let operation = Some(error.operation);
            Error::new(ErrorKind::Kernel, "can't encode the transaction").because(error).at(operation)
        })?;
        self.seq = batch.end().wrapping_add(1);
        let mut attempts = 0;
        loop {
            let before = match transaction.generation() {
                Some(generation) => generation,
                // What was seen last will do to begin with: the kernel refuses it if it is no longer true.
                None if attempts == 0 => self.last_seen()?,
                None => self.generation()?,
            };
            batch.bind(before);
            let Some(nack) = self.deliver(&batch, echo.as_deref_mut())? else {
                // A commit that changes nothing makes no generation. One that does counts up by one, past zero.
                let after = self.generation()?;
                let own = Generation(before.0.checked_add(1).unwrap_or(1));
                if after == before {
                    return Ok(before);
                }
                if self.made.len() == REMEMBERED {
                    self.made.pop_front();
                }
                self.made.push_back(own);
                return Ok(own);
            };
            attempts += 1;
            let stale = nack.errno == libc::ERESTART && nack.seq == batch.begin();
            if !(stale && transaction.generation().is_none() && attempts < COMMIT_ATTEMPTS) {
                // Out of memory, nfnetlink answers to the first message, whichever it was.
                let operation = batch.operation(nack.seq).filter(|_| nack.errno != libc::ENOMEM);
                return Err(refusal::of_commit(&batch, transaction, &nack).at(operation));
            }
        }
    }

    /// The number of the ruleset as it is now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Privilege`] without `CAP_NET_ADMIN`, [`ErrorKind::Unsupported`] when the kernel has no nf_tables.
    #[doc(alias = "NFT_MSG_GETGEN")]
    pub fn generation(&mut self) -> Result<Generation> {
        const WHAT: &str = "read the generation of the ruleset";
        let mut found = None;
        let answer = self.ask(Request::generation(), false, |message| {
            found = Some(nftables::generation(message).map_err(undecodable)?);
            Ok(())
        })?;
        match (answer.refused, found) {
            (Some(refused), _) => Err(refusal::of_first_question(WHAT, &refused)),
            (None, Some(generation)) => {
                self.seen = Some(generation);
                Ok(generation)
            }
            (None, None) => Err(Error::new(ErrorKind::Kernel, format!("can't {WHAT}: no answer"))),
        }
    }

    /// The generation as it was last seen, which need not be the present one.
    fn last_seen(&mut self) -> Result<Generation> {
        self.seen.map_or_else(|| self.generation(), Ok)
    }

    /// Sends a batch and gives the kernel's first complaint, if it has one.
    fn deliver(&mut self, batch: &Batch, mut echo: Option<&mut [Option<Handle>]>) -> Result<Option<Acknowledgement>> {
        // Left over from a question that was given up; nothing is lost, its sequence number is no more.
        for _ in 0..MAX_DATAGRAMS {
            if let Received::Nothing = self.receive()? {
                break;
            }
        }
        self.send(batch.as_bytes())?;
        let (mut nack, mut ended, mut lost): (Option<Acknowledgement>, _, _) = (None, false, false);
        for _ in 0..MAX_DATAGRAMS {
            let len = match self.receive()? {
                Received::Datagram(len) => len,
                // The queue overflowed: too many complaints. The first of them are still in it.
                Received::Lost => {
                    lost = true;
                    continue;
                }
                Received::Nothing => break,
            };
            for message in netlink::messages(&self.buffer[..len]) {
                let message = message.map_err(undecodable)?;
                let Some(ack) = netlink::acknowledgement(&message).map_err(undecodable)? else {
                    let place = batch.operation(message.header.seq);
                    if let (Some(echo), Some(place)) = (echo.as_deref_mut(), place)
                        && let (Some(slot), Some(handle)) =
                            (echo.get_mut(place), nftables::handle(&message).map_err(undecodable)?)
                    {
                        *slot = Some(handle);
                    }
                    continue;
                };
                let own = ack.seq == batch.begin() || ack.seq == batch.end() || batch.operation(ack.seq).is_some();
                if !own {
                    continue;
                }
                if ack.errno == 0 {
                    // Kernels before 6.10 do not acknowledge the end; there silence is consent.
                    ended |= ack.seq == batch.end();
                } else if nack.is_none() {
                    // In order: the first is the cause, the others may follow from it.
                    nack = Some(ack);
                }
            }
        }
        if nack.is_none() && lost && echo.is_some() {
            return Err(Error::new(ErrorKind::Exhausted, "the transaction was carried out, and its echo was lost")
                .hint("raise net.core.rmem_max, or read the ruleset to learn the handles"));
        }
        if nack.is_none() && lost && !ended {
            return Err(Error::new(ErrorKind::Kernel, "the kernel's answer to the commit was lost")
                .hint("read the ruleset back to learn whether it was carried out"));
        }
        Ok(nack)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.make_room(bytes.len())?;
        loop {
            // SAFETY: the socket is alive, and so many bytes can be read; libmnl addresses the kernel.
            let sent =
                unsafe { mnl_sys::mnl_socket_sendto(self.raw.as_ptr(), bytes.as_ptr().cast::<c_void>(), bytes.len()) };
            if sent >= 0 {
                return Ok(());
            }
            let cause = io::Error::last_os_error();
            // A signal can interrupt before the kernel has taken the datagram, not after.
            if cause.kind() != io::ErrorKind::Interrupted {
                return Err(
                    Error::new(ErrorKind::Io, format!("can't send {} bytes to nf_tables", bytes.len())).because(cause)
                );
            }
        }
    }

    /// Makes the send buffer large enough for one datagram of that size.
    fn make_room(&mut self, len: usize) -> Result<()> {
        if len <= self.room {
            return Ok(());
        }
        // `netlink_sendmsg` takes datagrams up to 32 bytes less than the buffer.
        let room = |socket: &Self| sockopt::socket_send_buffer_size(socket).map(|size| size.saturating_sub(32));
        let failed = |cause: Errno| Error::new(ErrorKind::Io, "can't ask for the size of a send buffer").because(cause);
        self.room = room(self).map_err(failed)?;
        if len <= self.room {
            return Ok(());
        }
        // The kernel doubles what it is told.
        if sockopt::set_socket_send_buffer_size_force(&*self, len).is_err() {
            let _ = sockopt::set_socket_send_buffer_size(&*self, len);
        }
        self.room = room(self).map_err(failed)?;
        if len <= self.room {
            return Ok(());
        }
        let most = self.room;
        let what = format!("a transaction of {len} bytes does not fit one datagram, which takes {most} here");
        Err(Error::new(ErrorKind::Exhausted, what)
            .hint("raise net.core.wmem_max, or run it with CAP_NET_ADMIN in the initial user namespace"))
    }

    fn receive(&mut self) -> Result<Received> {
        // SAFETY: the descriptor is open for as long as `self` lives; borrowed apart from the buffer.
        let fd = unsafe { BorrowedFd::borrow_raw(mnl_sys::mnl_socket_get_fd(self.raw.as_ptr())) };
        loop {
            return match recvfrom(fd, &mut self.buffer[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
                Ok((_, len, from)) => {
                    // Other processes can send to this socket; only port 0 is the kernel.
                    let kernel = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
                    if kernel.is_none_or(|from| from.pid() != 0) {
                        // Counted like any other by the callers, who bound how many they read.
                        return Ok(Received::Datagram(0));
                    }
                    if len > self.buffer.len() {
                        let what = format!("a datagram of {len} bytes from nf_tables, more than any it should send");
                        return Err(Error::new(ErrorKind::Decode, what));
                    }
                    Ok(Received::Datagram(len))
                }
                Err(Errno::AGAIN) => Ok(Received::Nothing),
                Err(Errno::NOBUFS) => Ok(Received::Lost),
                Err(Errno::INTR) => continue,
                Err(cause) => Err(Error::new(ErrorKind::Io, "can't receive from nf_tables").because(cause)),
            };
        }
    }

    fn wait(&self) -> Result<()> {
        match poll(&mut [PollFd::new(self, PollFlags::IN)], Some(&PATIENCE)) {
            Ok(0) => Err(Error::new(ErrorKind::Kernel, "nf_tables gives no answer")),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(cause) => Err(Error::new(ErrorKind::Io, "can't wait for nf_tables").because(cause)),
        }
    }
}
