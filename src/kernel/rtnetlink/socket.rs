//! The socket and the batch.

use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::request::{Family, Refusal, Request};
use crate::kernel::netns::refused;
use crate::kernel::refusal::undecodable;
use crate::link::IfIndex;
use crate::wire::netlink::{self, ACK, Acknowledgement, DUMP, DecodeError, HEADER_LEN, Message, REQUEST};
use crate::wire::rtnetlink::{self as decode, Address, Link, NEW_ADDRESS, NEW_LINK, NEW_ROUTE, Route};
use crate::{Error, ErrorKind, Result};

/// The kernel fills at most this much of a dump at once, and a single reply is shorter. What doesn't fit is an error,
/// not a loss: the kernel says how long it was.
const DATAGRAM: usize = 32 * 1024;

/// How many requests go out in one send: so many that their answers fit the receive buffer, whatever they are. (A batch is
/// not atomic, so nothing is lost when a long one goes out in parts.)
const ONE_SEND: usize = 32;

/// How often a dump that others changed under our hands is begun again.
const DUMP_TRIES: usize = 16;

/// Requests that go out together.
#[derive(Debug, Default)]
pub struct Batch {
    requests: Vec<Request>,
}

impl Batch {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a request at the end.
    pub fn push(&mut self, request: Request) {
        self.requests.push(request);
    }
}

impl<const N: usize> From<[Request; N]> for Batch {
    fn from(requests: [Request; N]) -> Self {
        Self { requests: requests.into() }
    }
}

impl FromIterator<Request> for Batch {
    fn from_iter<I: IntoIterator<Item = Request>>(requests: I) -> Self {
        Self { requests: requests.into_iter().collect() }
    }
}

/// What the kernel gave back for a request that it carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// Nothing: it is done.
    Done,
    /// A link, asked for by [`Request::link`] or [`Request::link_named`].
    Link(Link),
    /// A route, asked for by [`Request::lookup`].
    Route(Route),
}

impl Reply {
    /// The link that was asked for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] when the kernel answered something else.
    pub fn link(self) -> Result<Link> {
        match self {
            Self::Link(link) => Ok(link),
            other => Err(Error::new(ErrorKind::Decode, format!("a link was asked for, and the answer is {other:?}"))),
        }
    }

    /// The route that was asked for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] when the kernel answered something else.
    pub fn route(self) -> Result<Route> {
        match self {
            Self::Route(route) => Ok(route),
            other => Err(Error::new(ErrorKind::Decode, format!("a route was asked for, and the answer is {other:?}"))),
        }
    }
}

/// A synchronous rtnetlink socket. It stays in the network namespace where it was opened, whoever uses it.
#[doc(alias = "NETLINK_ROUTE")]
pub struct Socket {
    socket: netlink_sys::Socket,
    sequence: u32,
    datagram: Box<[u8]>,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] without netlink, [`ErrorKind::Io`] without a free file descriptor.
    pub fn open() -> Result<Self> {
        let open = || {
            // Close-on-exec: netlink-sys asks for it.
            let socket = netlink_sys::Socket::new(NETLINK_ROUTE)?;
            // Connected to the kernel, so that a message from any other socket is refused before it reaches us.
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|error: std::io::Error| {
            refused(Errno::from_io_error(&error).unwrap_or(Errno::IO), "can't open a routing socket")
        })?;
        Ok(Self { socket, sequence: 0, datagram: vec![0; DATAGRAM].into_boxed_slice() })
    }

    /// Sends a batch and gives back one reply a request.
    ///
    /// # Errors
    ///
    /// That of the first request that was refused. The others have been carried out, those behind it included.
    pub fn commit(&mut self, batch: Batch) -> Result<Vec<Reply>> {
        self.try_each(batch)?.into_iter().map(|result| result.map_err(Error::from)).collect()
    }

    /// Sends a batch and gives back, request by request, the reply or the refusal.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Kernel`] when the batch could not be sent or its answers were lost: then nothing is known about it.
    pub fn try_each(&mut self, batch: Batch) -> Result<Vec<std::result::Result<Reply, Refusal>>> {
        let mut results = Vec::with_capacity(batch.requests.len());
        for requests in batch.requests.chunks(ONE_SEND) {
            results.append(&mut self.send_requests(requests)?);
        }
        Ok(results)
    }

    fn send_requests(&mut self, requests: &[Request]) -> Result<Vec<std::result::Result<Reply, Refusal>>> {
        let last = requests.len() - 1;
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(256 * requests.len());
        for (position, request) in requests.iter().enumerate() {
            // A refusal comes unasked; one acknowledgement, on the last request, marks the end.
            let ack = if position == last { ACK } else { 0 };
            self.sequence = self.sequence.wrapping_add(1);
            append(&mut bytes, request.kind, REQUEST | request.flags | ack, self.sequence, &request.payload);
        }
        self.send(&bytes)?;

        let mut results: Vec<_> = requests.iter().map(|_| Ok(Reply::Done)).collect();
        let mut failure = None;
        loop {
            let done = self.receive(|message| {
                // Older ones are the rest of something that was given up.
                let position = message.header.seq.wrapping_sub(first) as usize;
                let (Some(request), Some(result)) = (requests.get(position), results.get_mut(position)) else {
                    return false;
                };
                let acknowledged = match netlink::acknowledgement(message) {
                    Ok(acknowledged) => acknowledged,
                    Err(error) => {
                        failure.get_or_insert(undecodable(error));
                        return position == last;
                    }
                };
                if let Some(acknowledged) = acknowledged {
                    if acknowledged.errno != 0 {
                        *result = Err(request.refused(&acknowledged));
                    }
                    return position == last;
                }
                let reply = match message.header.kind {
                    NEW_LINK => decode::link(message).map(Reply::Link),
                    NEW_ROUTE => decode::route(message).and_then(|route| {
                        let unknown =
                            || DecodeError::new("route message", message.offset, "IPv4 or IPv6", "another family");
                        route.map(Reply::Route).ok_or_else(unknown)
                    }),
                    _ => Ok(Reply::Done),
                };
                match reply {
                    Ok(reply) => *result = Ok(reply),
                    Err(error) => {
                        failure.get_or_insert(undecodable(error));
                    }
                }
                false
            })?;
            if done {
                break;
            }
        }
        failure.map_or(Ok(results), Err)
    }

    fn one(&mut self, request: Request) -> Result<Reply> {
        let mut replies = self.commit(Batch::from([request]))?;
        Ok(replies.pop().unwrap_or(Reply::Done))
    }

    /// Reads a link by its number.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Kernel`] when there is none.
    pub fn link(&mut self, index: IfIndex) -> Result<Link> {
        self.one(Request::link(index))?.link()
    }

    /// Reads a link by its name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Kernel`] when there is none.
    pub fn link_named(&mut self, name: &str) -> Result<Link> {
        self.one(Request::link_named(name))?.link()
    }

    /// Reads all links.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`] when others change them faster than they can be read.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let request = Request::dump_links();
        self.dump(&request, NEW_LINK, |message| decode::link(message).map(Some))
    }

    /// Reads all addresses.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`] when others change them faster than they can be read.
    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        self.dump(&Request::dump_addresses(), NEW_ADDRESS, decode::address)
    }

    /// Reads all routes of all tables, IPv4 first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`] when others change them faster than they can be read.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut routes = self.dump(&Request::dump_routes(Family::V4), NEW_ROUTE, decode::route)?;
        routes.extend(self.dump(&Request::dump_routes(Family::V6), NEW_ROUTE, decode::route)?);
        Ok(routes)
    }

    fn dump<T>(
        &mut self,
        request: &Request,
        kind: u16,
        decode: impl Fn(&Message<'_>) -> Result<Option<T>, DecodeError>,
    ) -> Result<Vec<T>> {
        for _ in 0..DUMP_TRIES {
            self.sequence = self.sequence.wrapping_add(1);
            let sequence = self.sequence;
            let mut bytes = Vec::new();
            append(&mut bytes, request.kind, REQUEST | DUMP, sequence, &request.payload);
            self.send(&bytes)?;

            let (mut found, mut failure, mut interrupted) = (Vec::new(), None, false);
            let refuse = |failure: &mut Option<Error>, refused: Acknowledgement| {
                if refused.errno != 0 {
                    failure.get_or_insert(request.refused(&refused).into());
                }
            };
            loop {
                // Read to its end even after an error: an unfinished dump would keep the socket from beginning another.
                let done = self.receive(|message| {
                    if message.header.seq != sequence {
                        return false;
                    }
                    interrupted |= message.header.flags & netlink::DUMP_INTERRUPTED != 0;
                    if let Some(ended) = netlink::end_of_dump(message).transpose() {
                        match ended {
                            Ok(0) => {}
                            Ok(errno) => refuse(&mut failure, Acknowledgement::of_errno(errno, message.header)),
                            Err(error) => drop(failure.get_or_insert(undecodable(error))),
                        }
                        return true;
                    }
                    if let Some(refused) = netlink::acknowledgement(message).transpose() {
                        match refused {
                            Ok(refused) => refuse(&mut failure, refused),
                            Err(error) => drop(failure.get_or_insert(undecodable(error))),
                        }
                        return true;
                    }
                    if message.header.kind == kind {
                        match decode(message) {
                            Ok(item) => found.extend(item),
                            Err(error) => drop(failure.get_or_insert(undecodable(error))),
                        }
                    }
                    false
                })?;
                if done {
                    break;
                }
            }
            match failure {
                // EINTR is how some dumps of newer kernels say that they were interrupted.
                _ if interrupted => {}
                Some(error) => return Err(error),
                None => return Ok(found),
            }
        }
        let what = format!("can't {} {}: they change while they are read", request.operation, request.object);
        Err(Error::new(ErrorKind::Conflict, what).hint("try again"))
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        let lost = |errno| match errno {
            Errno::MSGSIZE => {
                Error::new(ErrorKind::Kernel, format!("a batch of {} bytes is too long to send at once", bytes.len()))
            }
            errno => refused(errno, "can't send to the kernel's routing socket"),
        };
        match rustix::io::retry_on_intr(|| rustix::net::send(self.as_fd(), bytes, SendFlags::empty())) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(lost(Errno::MSGSIZE)),
            Err(errno) => Err(lost(errno)),
        }
    }

    /// Receives one datagram and shows its messages to `each` until that says that the last one came.
    fn receive(&mut self, mut each: impl FnMut(&Message<'_>) -> bool) -> Result<bool> {
        // The kernel has answered before our send came back, and refills a dump before our receive does: if there is
        // nothing to read, nothing will come.
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        let received = rustix::io::retry_on_intr(|| rustix::net::recv(&self.socket, &mut *self.datagram, flags));
        let (_, length) = received.map_err(|errno| match errno {
            Errno::AGAIN => Error::new(ErrorKind::Kernel, "the kernel's routing socket owes an answer"),
            Errno::NOBUFS => {
                // What is still there would be in the way of the next answers.
                while rustix::net::recv(&self.socket, &mut *self.datagram, flags).is_ok() {}
                Error::new(ErrorKind::Kernel, "answers of the kernel's routing socket were lost")
            }
            errno => refused(errno, "can't receive from the kernel's routing socket"),
        })?;
        let datagram = self.datagram.get(..length).ok_or_else(|| {
            Error::new(ErrorKind::Decode, format!("an answer of {length} bytes is longer than any the kernel sends"))
        })?;
        for message in netlink::messages(datagram) {
            if each(&message.map_err(undecodable)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("fd", &self.as_fd()).field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// Appends a message with its header.
fn append(bytes: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, payload: &[u8]) {
    // Requests are a few hundred bytes: no name, address or nest in one is longer.
    let length = (HEADER_LEN + payload.len()) as u32;
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    // Port 0: the kernel knows who we are.
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}
