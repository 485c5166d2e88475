//! One socket of one netlink family, for questions and orders that are one message each.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::netns::refused;
use super::refusal::{KernelError, undecodable};
use crate::wire::netlink::{self, Acknowledgement, DecodeError, Message};
use crate::{Error, ErrorKind, Result};

/// The kernel fills at most this much of a dump at once.
const DATAGRAM: usize = 32 * 1024;

/// How often a dump that others changed under our hands is begun again. What is missing in the last one is in the next.
const DUMP_TRIES: usize = 4;

/// A netlink socket, of the network namespace that the calling thread was in when it was opened. The kernel has answered by the time
/// that a send returns, so nothing here waits.
#[derive(Debug)]
pub(super) struct Dialogue {
    socket: OwnedFd,
    sequence: u32,
    datagram: Box<[u8]>,
}

impl Dialogue {
    /// Opens a socket; `what` is what an error says can't be opened.
    pub(super) fn open(protocol: Protocol, what: &'static str) -> Result<Self> {
        let open = || {
            let flags = SocketFlags::CLOEXEC;
            let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(protocol))?;
            // Connected to the kernel, so that a message from any other socket is refused before it reaches us.
            rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
            // Room for the answers to many orders; the kernel gives what it may.
            let _ = sockopt::set_socket_recv_buffer_size(&socket, 1 << 20);
            Ok(socket)
        };
        let socket = open().map_err(|errno: Errno| match errno {
            Errno::PROTONOSUPPORT => {
                Error::new(ErrorKind::Unsupported, format!("can't open {what}")).because(std::io::Error::from(errno))
            }
            errno => refused(errno, format!("can't open {what}")),
        })?;
        Ok(Self { socket, sequence: 0, datagram: vec![0; DATAGRAM].into_boxed_slice() })
    }

    /// Asks for everything there is, and decodes the messages of that kind.
    pub(super) fn dump<T>(
        &mut self,
        operation: &str,
        kind: u16,
        question: impl Fn(u32) -> Vec<u8>,
        decode: impl Fn(&Message<'_>) -> std::result::Result<Option<T>, DecodeError>,
    ) -> Result<Vec<T>> {
        for attempt in 1.. {
            self.sequence = self.sequence.wrapping_add(1);
            let sequence = self.sequence;
            self.send(&question(sequence), operation)?;
            let (mut found, mut failure, mut interrupted) = (Vec::new(), None, false);
            // Read to its end even after an error: an unfinished dump would keep the socket from beginning another.
            while !self.receive(operation, |message| {
                if message.header.seq != sequence {
                    return false;
                }
                interrupted |= message.header.flags & netlink::DUMP_INTERRUPTED != 0;
                let ended = match (netlink::end_of_dump(message), netlink::acknowledgement(message)) {
                    (Ok(Some(errno)), _) => Acknowledgement::of_errno(errno, message.header),
                    (_, Ok(Some(refused))) => refused,
                    (Err(error), _) | (_, Err(error)) => {
                        failure.get_or_insert(undecodable(error));
                        return true;
                    }
                    (Ok(None), Ok(None)) => {
                        if message.header.kind == kind {
                            match decode(message) {
                                Ok(item) => found.extend(item),
                                Err(error) => drop(failure.get_or_insert(undecodable(error))),
                            }
                        }
                        return false;
                    }
                };
                if ended.errno != 0 {
                    failure.get_or_insert(refusal(operation, &ended));
                }
                true
            })? {}
            match failure {
                _ if interrupted && attempt < DUMP_TRIES => {}
                Some(error) => return Err(error),
                None => return Ok(found),
            }
        }
        Err(Error::new(ErrorKind::Conflict, format!("can't {operation}: it changes while it is read")))
    }

    /// Gives an order and tells what the kernel answered: nothing, or its error number.
    pub(super) fn order(&mut self, operation: &str, order: impl Fn(u32) -> Vec<u8>) -> Result<Option<Errno>> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        self.send(&order(sequence), operation)?;
        let mut answer = Ok(None);
        while !self.receive(operation, |message| {
            if message.header.seq != sequence {
                return false;
            }
            match netlink::acknowledgement(message) {
                Ok(Some(done)) if done.errno == 0 => {}
                Ok(Some(refused)) => answer = Ok(Some(Errno::from_raw_os_error(refused.errno))),
                Ok(None) => return false,
                Err(error) => answer = Err(undecodable(error)),
            }
            true
        })? {}
        answer
    }

    fn send(&self, bytes: &[u8], operation: &str) -> Result<()> {
        let sent = rustix::io::retry_on_intr(|| rustix::net::send(self.socket.as_fd(), bytes, SendFlags::empty()));
        sent.map(drop).map_err(|errno| refused(errno, format!("can't {operation}")))
    }

    /// Receives one datagram and shows its messages to `each` until that says that the last one came.
    fn receive(&mut self, operation: &str, mut each: impl FnMut(&Message<'_>) -> bool) -> Result<bool> {
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        let lost = |what: &str| Error::new(ErrorKind::Kernel, format!("can't {operation}: {what}"));
        let received = rustix::io::retry_on_intr(|| rustix::net::recv(&self.socket, &mut *self.datagram, flags));
        let (_, length) = received.map_err(|errno| match errno {
            Errno::AGAIN => lost("the kernel owes an answer"),
            Errno::NOBUFS => {
                // What is still there would be in the way of the next answers.
                while rustix::net::recv(&self.socket, &mut *self.datagram, flags).is_ok() {}
                lost("answers of the kernel's were lost")
            }
            errno => refused(errno, format!("can't {operation}")),
        })?;
        let datagram =
            self.datagram.get(..length).ok_or_else(|| lost("an answer is longer than any the kernel sends"))?;
        for message in netlink::messages(datagram) {
            if each(&message.map_err(undecodable)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn refusal(operation: &str, refused: &Acknowledgement) -> Error {
    let kind = match Errno::from_raw_os_error(refused.errno) {
        Errno::PERM | Errno::ACCESS => ErrorKind::Privilege,
        Errno::OPNOTSUPP | Errno::NOENT | Errno::INVAL => ErrorKind::Unsupported,
        _ => ErrorKind::Kernel,
    };
    KernelError::new(operation.to_owned(), refused, None).of_kind(kind)
}
