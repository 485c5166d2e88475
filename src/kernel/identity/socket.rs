//! What rustix does not ask a socket for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// The number of a socket's network namespace, which is never used again.
///
/// # Kernel
///
/// 5.14
#[doc(alias = "SO_NETNS_COOKIE")]
pub(super) fn netns_cookie(socket: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_NETNS_COOKIE);
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `cookie`.
    let answer =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut cookie).cast(), &raw mut length) };
    if answer == 0 { Ok(cookie) } else { Err(last()) }
}

/// Sets the mark that every packet of a socket carries from now on.
///
/// # Privileges
///
/// `CAP_NET_ADMIN` in the user namespace that owns the socket's network namespace.
#[doc(alias = "SO_MARK")]
pub(super) fn set_mark(socket: BorrowedFd<'_>, mark: u32) -> Result<(), Errno> {
    let length = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes, which is the size of `mark`.
    let answer = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MARK, (&raw const mark).cast(), length)
    };
    if answer == 0 { Ok(()) } else { Err(last()) }
}

fn last() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// A system call that waits for its answer.
pub(super) struct Notified(libc::seccomp_notif);

impl Notified {
    /// Receives the next one.
    #[doc(alias = "SECCOMP_IOCTL_NOTIF_RECV")]
    pub fn receive(listener: BorrowedFd<'_>) -> Result<Self, Errno> {
        // SAFETY: zero is a value of every field of the struct, and the one that the kernel wants to find.
        let mut notified: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes one struct of this size.
        let answer = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notified) };
        if answer == 0 { Ok(Self(notified)) } else { Err(last()) }
    }

    /// The thread that waits, as this process counts; 0 if it can't be seen from here.
    pub fn thread(&self) -> i32 {
        self.0.pid.cast_signed()
    }

    /// The first argument, which is a file descriptor.
    pub fn descriptor(&self) -> i32 {
        // An int: the upper half may be anything.
        self.0.data.args[0] as i32
    }

    /// Whether the thread still waits. If so, it is the one that has waited all the time.
    #[doc(alias = "SECCOMP_IOCTL_NOTIF_ID_VALID")]
    pub fn is_valid(&self, listener: BorrowedFd<'_>) -> bool {
        // SAFETY: the kernel reads eight bytes.
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const self.0.id) == 0 }
    }

    /// Lets the kernel make the call.
    #[doc(alias = "SECCOMP_USER_NOTIF_FLAG_CONTINUE")]
    pub fn go_on(&self, listener: BorrowedFd<'_>) {
        let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        let response = libc::seccomp_notif_resp { id: self.0.id, val: 0, error: 0, flags };
        // SAFETY: the kernel reads one struct of this size. That nobody waits any more is no error.
        let _ = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const response) };
    }
}
