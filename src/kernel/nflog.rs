//! The receiver of an nflog group.
//!
//! The kernel hands packets over by a socket's receive buffer and drops what does not fit. It tells so twice: at once, by an
//! error on the next receive, without a number; and later, by a gap in the sequence numbers, exactly. Both become
//! [`Received::Lost`], and no packet is counted twice.
//!
//! # References
//!
//! `net/netfilter/nfnetlink_log.c`; netlink(7).

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::kernel::netns::refused;
use crate::kernel::refusal::{KernelError, undecodable};
use crate::wire::netlink::{self, Acknowledgement};
use crate::wire::nflog::{Config, Group, Message, NOT_A_REQUEST, request};
use crate::{Error, ErrorKind, Result};

/// `ENOTSUPP`, which is none of errno(3)'s and never meant for user space; nfnetlink_log answers it nevertheless.
const NOT_SUPPORTED: i32 = 524;

/// How many datagrams that are no acknowledgement may come before one.
const MAX_DATAGRAMS: usize = 1024;

/// Bytes of a message that are not the packet's: far more than all attributes together, a conntrack entry included.
const ATTRIBUTES: usize = 8192;

/// How a group hands packets over.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// How many bytes of each packet are handed over. 96 are enough for the headers that are usual, 128 for most others.
    /// A rule's own snaplen may ask for less.
    pub copy_range: u16,
    /// How many packets the kernel may collect before it wakes the reader. A rule's own threshold may ask for fewer.
    pub threshold: u32,
    /// How long the kernel may collect, rounded up to 10 ms; at least that.
    pub timeout: Duration,
    /// Room for what the kernel collects, in bytes. It takes at most 128 KiB.
    pub collected: u32,
    /// Size of the socket's receive buffer, in bytes. Without `CAP_NET_ADMIN` in the machine's first user namespace, the
    /// kernel gives less: `net.core.rmem_max`.
    pub receive_buffer: usize,
}

impl Options {
    /// Every packet at once: some 10 to 40 µs from the packet to its reader.
    pub fn latency() -> Self {
        Self {
            copy_range: 128,
            threshold: 1,
            timeout: Duration::from_millis(10),
            collected: 4096,
            receive_buffer: 64 << 20,
        }
    }

    /// A hundred packets at once, or those of 10 ms: least work for the most packets. The rules of a fence ask for each at once,
    /// whatever their reader would like.
    pub fn rate() -> Self {
        Self { threshold: 100, collected: 32768, ..Self::latency() }
    }

    /// Sets the receive buffer.
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = bytes;
        self
    }

    /// Sets how much of each packet is handed over.
    pub fn copy_range(mut self, bytes: u16) -> Self {
        self.copy_range = bytes;
        self
    }
}

impl Default for Options {
    /// [`Options::latency`].
    fn default() -> Self {
        Self::latency()
    }
}

/// What came from the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A packet.
    Packet(Box<Message<'static>>),
    /// Packets were lost between the one before and the one after. The sum of all of these is never more than what was lost; it is all
    /// of it once a packet came that was logged after the loss.
    Lost {
        /// How many, at least.
        at_least: u64,
    },
}

/// Receives the packets of an nflog group. The group is free again when this is dropped.
///
/// # Examples
///
/// ```no_run
/// use ringfence::nflog::{Group, Options, Received, Receiver};
///
/// let mut receiver = Receiver::bind(Group(1), Options::latency())?;
/// loop {
///     match receiver.recv()? {
///         Received::Packet(message) => println!("{:?}: {:?}", message.prefix, message.packet()),
///         Received::Lost { at_least } => println!("{at_least} lost"),
///     }
/// }
/// # Ok::<(), ringfence::Error>(())
/// ```
pub struct Receiver {
    socket: netlink_sys::Socket,
    group: Group,
    datagram: Box<[u8]>,
    /// What the last datagram held and nobody has asked for yet.
    queue: VecDeque<Result<Received>>,
    loss: Loss,
}

impl Receiver {
    /// Makes a group of the calling thread's network namespace this receiver's.
    ///
    /// Packets that a rule logs from now on are received; before, the kernel threw them away.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`] when another socket has the group, [`ErrorKind::Privilege`] without the privilege,
    /// [`ErrorKind::Unsupported`] when the kernel has no nfnetlink_log.
    ///
    /// # Privileges
    ///
    /// `CAP_NET_ADMIN` in the user namespace that owns the network namespace.
    #[doc(alias = "NETLINK_NETFILTER")]
    pub fn bind(group: Group, options: Options) -> Result<Self> {
        let open = || {
            // Close-on-exec: netlink-sys asks for it.
            let socket = netlink_sys::Socket::new(NETLINK_NETFILTER)?;
            // Connected to the kernel, so that no other process can pass its own messages for packets.
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|error: io::Error| {
            refused(Errno::from_io_error(&error).unwrap_or(Errno::IO), "can't open an nflog socket")
        })?;
        // What the caller wants, or what this user may have.
        let size = options.receive_buffer;
        sockopt::set_socket_recv_buffer_size_force(&socket, size)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, size))
            .map_err(|errno| refused(errno, format!("can't have a receive buffer of {size} bytes")))?;

        // A packet that does not fit what is collected has a datagram of its own.
        let most = (options.collected.min(128 << 10) as usize) + usize::from(options.copy_range) + ATTRIBUTES;
        let mut receiver = Self {
            socket,
            group,
            datagram: vec![0; most].into_boxed_slice(),
            queue: VecDeque::new(),
            loss: Loss::default(),
        };
        let config = Config {
            bind: true,
            copy_range: Some(options.copy_range),
            buffer: Some(options.collected),
            timeout: Some(options.timeout),
            threshold: Some(options.threshold.max(1)),
            sequence: true,
        };
        let answer = receiver.ask(&config.encode(group, 1), 1)?;
        if answer.errno != 0 {
            return Err(receiver.not_bound(&answer));
        }
        Ok(receiver)
    }

    /// The group.
    pub fn group(&self) -> Group {
        self.group
    }

    /// Waits for what comes next, and blocks the thread until then.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] for a message that is not what it should be; those behind it can be received.
    /// [`ErrorKind::Kernel`] when the socket can't be read any more.
    pub fn recv(&mut self) -> Result<Received> {
        loop {
            if let Some(received) = self.try_recv()? {
                return Ok(received);
            }
            self.wait(None)?;
        }
    }

    /// Waits for what comes next, but no longer than that; `None` when nothing came.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv`].
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Received>> {
        let start = Instant::now();
        loop {
            if let Some(received) = self.try_recv()? {
                return Ok(Some(received));
            }
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            self.wait(Some(left))?;
        }
    }

    /// Takes what has come already; `None` when there is nothing.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv`].
    pub fn try_recv(&mut self) -> Result<Option<Received>> {
        loop {
            if let Some(received) = self.queue.pop_front() {
                return received.map(Some);
            }
            match self.receive() {
                Ok(0) => {}
                Ok(length) => self.take(length)?,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::NOBUFS) => return Ok(Some(self.loss.overrun())),
                Err(errno) => return Err(refused(errno, format!("can't receive from nflog group {}", self.group))),
            }
        }
    }

    /// Everything that comes, for as long as it is polled. Backpressure is the kernel's: what is not asked for stays in the
    /// receive buffer, and what does not fit there is told as [`Received::Lost`].
    ///
    /// An error of kind [`ErrorKind::Decode`] is about one message. After any other the stream ends.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the runtime can't watch the socket.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O enabled.
    pub fn into_stream(self) -> Result<BoxStream<'static, Result<Received>>> {
        // Deprecated for types that may close or change their descriptor; a receiver does neither while it lives.
        #[allow(deprecated)]
        let receiver = AsyncFd::with_interest(self, Interest::READABLE)
            .map_err(|error| Error::new(ErrorKind::Io, "can't watch an nflog socket").because(error))?;
        let next = |state: Option<AsyncFd<Self>>| async move {
            let mut receiver = state?;
            let item = next(&mut receiver).await;
            let ends = item.as_ref().is_err_and(|error| error.kind() != ErrorKind::Decode);
            Some((item, (!ends).then_some(receiver)))
        };
        Ok(stream::unfold(Some(receiver), next).boxed())
    }

    fn wait(&self, timeout: Option<Duration>) -> Result<()> {
        // Longer than a time can be told is for ever.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut [PollFd::new(self, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(refused(errno, format!("can't wait for nflog group {}", self.group))),
        }
    }

    /// Receives one datagram, and gives its length, whether it fitted or not.
    fn receive(&mut self) -> rustix::io::Result<usize> {
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        let (_, length) = rustix::io::retry_on_intr(|| rustix::net::recv(&self.socket, &mut *self.datagram, flags))?;
        Ok(length)
    }

    /// Takes a datagram's packets into the queue. How many that can be is bounded by its length.
    fn take(&mut self, length: usize) -> Result<()> {
        let Self { datagram, queue, loss, .. } = self;
        let Some(datagram) = datagram.get(..length) else {
            let what = format!("a message of {length} bytes is longer than any that was asked for");
            return Err(Error::new(ErrorKind::Decode, what));
        };
        for message in netlink::messages(datagram) {
            match message.and_then(|message| Message::decode(&message)) {
                // The end of those that came together, or an acknowledgement.
                Ok(None) => {}
                Ok(Some(message)) => {
                    queue.extend(message.seq.and_then(|seq| loss.gap(seq)).map(Ok));
                    queue.push_back(Ok(Received::Packet(Box::new(message.into_owned()))));
                }
                Err(error) => {
                    queue.push_back(Err(Error::new(ErrorKind::Decode, "can't decode an nflog message").because(error)));
                }
            }
        }
        Ok(())
    }

    /// Sends a request and waits for its acknowledgement. Packets that come before it are kept.
    fn ask(&mut self, request: &[u8], seq: u32) -> Result<Acknowledgement> {
        let what = "can't configure an nflog group";
        rustix::io::retry_on_intr(|| rustix::net::send(&self.socket, request, SendFlags::empty()))
            .map_err(|errno| refused(errno, what))?;
        for _ in 0..MAX_DATAGRAMS {
            // The kernel has answered before our send came back.
            let length = match self.receive() {
                Ok(length) => length,
                // Packets had filled a small buffer before the answer, which may still be in it.
                Err(Errno::NOBUFS) => {
                    self.queue.push_back(Ok(self.loss.overrun()));
                    continue;
                }
                Err(errno) => return Err(refused(errno, what)),
            };
            let datagram = self.datagram.get(..length).unwrap_or_default();
            for message in netlink::messages(datagram) {
                let message = message.map_err(undecodable)?;
                match netlink::acknowledgement(&message).map_err(undecodable)? {
                    Some(answer) if answer.seq == seq => return Ok(answer),
                    _ => {}
                }
            }
            self.take(length)?;
        }
        Err(Error::new(ErrorKind::Kernel, format!("{what}: the kernel owes an answer")))
    }

    /// Why the group could not be had.
    fn not_bound(&mut self, answer: &Acknowledgement) -> Error {
        let group = self.group;
        let operation = format!("bind nflog group {group}");
        let refusal = |hint: &str| KernelError::new(operation.clone(), answer, Some(hint.to_owned()));
        match Errno::from_raw_os_error(answer.errno) {
            // The same for a group that is taken and for a caller who may not ask. A message that is refused to everybody else
            // tells the two apart.
            Errno::PERM => {
                let privileged = self.ask(&request(NOT_A_REQUEST, group, 2, &[]), 2);
                if privileged.is_ok_and(|answer| answer.errno == NOT_SUPPORTED) {
                    refusal("another program reads it; /proc/net/netfilter/nfnetlink_log in that namespace shows the port of its socket")
                        .of_kind(ErrorKind::Conflict)
                } else {
                    refusal("CAP_NET_ADMIN is needed in the user namespace that owns the network namespace")
                        .of_kind(ErrorKind::Privilege)
                }
            }
            Errno::BUSY => refusal("another program reads it").of_kind(ErrorKind::Conflict),
            // No such subsystem.
            Errno::INVAL | Errno::OPNOTSUPP => {
                refusal("the kernel lacks CONFIG_NETFILTER_NETLINK_LOG").of_kind(ErrorKind::Unsupported)
            }
            _ => KernelError::new(operation, answer, None).of_kind(ErrorKind::Kernel),
        }
    }
}

/// Waits for what comes next without blocking the thread.
async fn next(receiver: &mut AsyncFd<Receiver>) -> Result<Received> {
    loop {
        if let Some(received) = receiver.get_mut().queue.pop_front() {
            return received;
        }
        // An overrun is an error condition, and may be all there is.
        let mut ready = receiver
            .ready_mut(Interest::READABLE | Interest::ERROR)
            .await
            .map_err(|error| Error::new(ErrorKind::Io, "can't wait for an nflog group").because(error))?;
        match ready.get_inner_mut().try_recv()? {
            Some(received) => return Ok(received),
            None => ready.clear_ready(),
        }
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Receiver {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("fd", &self.as_fd()).field("group", &self.group).finish_non_exhaustive()
    }
}

/// Adds up what was lost, from two witnesses who may tell of the same packets.
#[derive(Debug, Default)]
struct Loss {
    /// Sequence number of the next packet, if none is lost.
    expected: u32,
    /// How many were told of by overruns, and have not shown up as a gap yet.
    ahead: u64,
}

impl Loss {
    /// The receive buffer was full: one packet at least is lost, and will be missing behind those that are in the buffer.
    fn overrun(&mut self) -> Received {
        self.ahead += 1;
        Received::Lost { at_least: 1 }
    }

    /// A packet came: what is missing before it, and has not been told.
    fn gap(&mut self, seq: u32) -> Option<Received> {
        let missing = u64::from(seq.wrapping_sub(self.expected));
        self.expected = seq.wrapping_add(1);
        let untold = missing.saturating_sub(self.ahead);
        self.ahead = self.ahead.saturating_sub(missing);
        (untold > 0).then_some(Received::Lost { at_least: untold })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(at_least: u64) -> Option<Received> {
        Some(Received::Lost { at_least })
    }

    #[test]
    fn a_loss_is_told_once() {
        let mut loss = Loss::default();
        assert_eq!(loss.gap(0), None);
        assert_eq!(loss.gap(3), lost(2));
        // The buffer ran over; what is in it comes first, then the gap.
        assert_eq!(Some(loss.overrun()), lost(1));
        assert_eq!(loss.gap(4), None);
        assert_eq!(loss.gap(10), lost(4));
        // Twice over before it was emptied, and exactly two were lost.
        loss.overrun();
        loss.overrun();
        assert_eq!(loss.gap(13), None);
        assert_eq!(loss.gap(15), lost(1));
    }

    #[test]
    fn numbers_begin_again_after_the_last() {
        let mut loss = Loss { expected: u32::MAX, ahead: 0 };
        assert_eq!(loss.gap(u32::MAX), None);
        assert_eq!(loss.gap(0), None);
        let mut loss = Loss { expected: u32::MAX, ahead: 0 };
        assert_eq!(loss.gap(1), lost(2));
    }

    #[test]
    fn what_was_lost_before_the_first_packet_counts() {
        assert_eq!(Loss::default().gap(5), lost(5));
    }
}
