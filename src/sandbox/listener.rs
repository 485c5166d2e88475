//! The built-in proxy's listener, born inside the sandbox.
//!
//! A socket belongs to the namespace of the thread that opened it. So it is opened together with the namespace, and bound from outside once
//! the loopback interface is on: that spares a second thread inside.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::{Error, ErrorKind, Result};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Opens a socket for [`listen`], in the namespace of the calling thread.
pub(super) fn socket() -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).map_err(failed)
}

/// Binds it to an IPv4 address and listens.
pub(super) fn listen(socket: OwnedFd, address: SocketAddr) -> Result<TcpListener> {
    rustix::net::bind(&socket, &address).and_then(|()| rustix::net::listen(&socket, BACKLOG)).map_err(failed)?;
    Ok(TcpListener::from(socket))
}

fn failed(errno: Errno) -> Error {
    Error::new(ErrorKind::Io, "can't listen inside the sandbox").because(std::io::Error::from(errno))
}
