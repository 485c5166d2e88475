//! Ends sockets of a namespace, so that their programs hear at once that a connection is no more.
//!
//! # References
//!
//! sock_diag(7)

use std::net::IpAddr;

use rustix::io::Errno;
use rustix::net::netlink::SOCK_DIAG;

use super::dialogue::Dialogue;
use super::netns::refused;
use crate::Result;
use crate::wire::inet_diag::{self as wire, Peered};
use crate::wire::netlink::Message;

/// A socket to sock_diag(7), of the network namespace that the calling thread was in when it was opened.
#[derive(Debug)]
#[doc(alias = "NETLINK_SOCK_DIAG")]
pub struct Socket(Dialogue);

impl Socket {
    /// Opens a socket.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](crate::ErrorKind::Unsupported) when the kernel has no sock_diag(7), [`Io`](crate::ErrorKind::Io) without a free
    /// file descriptor.
    pub fn open() -> Result<Self> {
        Dialogue::open(SOCK_DIAG, "a sock_diag socket").map(Self)
    }

    /// Aborts the namespace's connections of that protocol whose peer `unwanted` names: a call that waits on one returns
    /// `ECONNABORTED`, and a TCP peer is sent a reset. Gives back how many it were.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](crate::ErrorKind::Unsupported) when the kernel was built without `CONFIG_INET_DIAG_DESTROY`,
    /// [`Privilege`](crate::ErrorKind::Privilege) without `CAP_NET_ADMIN`.
    ///
    /// # Kernel
    ///
    /// 4.5 for TCP, 4.9 for UDP
    #[doc(alias = "SOCK_DESTROY")]
    pub fn abort(&mut self, protocol: u8, unwanted: impl Fn(IpAddr, u16) -> bool) -> Result<usize> {
        let mut aborted = 0;
        for v4 in [true, false] {
            let decode = |message: &Message<'_>| {
                wire::peered(message).map(|socket| Some(socket).filter(|socket| unwanted(socket.address, socket.port)))
            };
            let question = |seq| wire::dump(v4, protocol, seq);
            let sockets: Vec<Peered> = self.0.dump("list sockets", wire::BY_FAMILY, question, decode)?;
            for socket in &sockets {
                match self.0.order("abort a connection", |seq| wire::destroy(socket, protocol, seq))? {
                    None => aborted += 1,
                    // Gone by itself meanwhile.
                    Some(Errno::NOENT | Errno::STALE) => {}
                    Some(errno) => return Err(refused(errno, "can't abort a connection")),
                }
            }
        }
        Ok(aborted)
    }
}
