//! Cleans up after a supervisor that was killed, where the kernel would not.
//!
//! Most of what a sandbox is made of goes with the file descriptors of its supervisor. A bind mount under `/run/netns` and the forwarding
//! flag of an uplink don't. For these a [`Guard`] waits: a small process that does nothing but read a pipe of which the supervisor holds the
//! other end. A byte means that the supervisor has undone everything itself; end of file means that it is gone.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::net::{SendFlags, send};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{DumpableBehavior, set_dumpable_behavior, setsid};

use super::child;
use crate::{Error, ErrorKind, Result};

/// Something to undo.
#[non_exhaustive]
pub enum Undo {
    /// Detaches a mount and removes the file it was mounted on.
    Unmount {
        /// Where it is mounted.
        path: CString,
    },
    /// Sends a netlink message to the kernel; the answer is not waited for.
    Netlink {
        /// A netlink socket, opened in the network namespace that the message is for.
        socket: OwnedFd,
        /// One complete message, header included.
        message: Vec<u8>,
    },
    /// Runs code. It runs in a fork of a threaded process: allocating is fine with glibc, but a lock that another thread of the supervisor
    /// held at [`Guard::arm`] stays locked for ever, so it should make system calls and no more.
    Call {
        /// The file descriptors that the code uses; all others are closed in the guard.
        keep: Vec<RawFd>,
        /// What to do.
        run: Box<dyn FnOnce() + Send>,
    },
}

impl fmt::Debug for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmount { path } => f.debug_struct("Unmount").field("path", path).finish(),
            Self::Netlink { socket, message } => f
                .debug_struct("Netlink")
                .field("socket", socket)
                .field("message", &format_args!("{} bytes", message.len()))
                .finish(),
            Self::Call { keep, .. } => f.debug_struct("Call").field("keep", keep).finish_non_exhaustive(),
        }
    }
}

impl Undo {
    /// The file descriptors it needs.
    fn descriptors(&self) -> Vec<RawFd> {
        match self {
            Self::Unmount { .. } => Vec::new(),
            Self::Netlink { socket, .. } => vec![socket.as_raw_fd()],
            Self::Call { keep, .. } => keep.clone(),
        }
    }

    /// Undoes it. There is nobody left to tell of an error.
    fn run(self) {
        match self {
            Self::Unmount { path } => {
                let _ = unmount(path.as_c_str(), UnmountFlags::DETACH);
                let _ = rustix::fs::unlink(path.as_c_str());
            }
            Self::Netlink { socket, message } => {
                let _ = send(socket.as_fd(), &message, SendFlags::NOSIGNAL);
            }
            Self::Call { run, .. } => run(),
        }
    }
}

/// A process that undoes things once this one is gone. Dropping it disarms it.
///
/// It has a session of its own, ignores signals, and is called `ringfence-guard`. Nothing but SIGKILL for the guard itself (as when a
/// service manager kills a whole control group) keeps it from its work.
#[derive(Debug)]
pub struct Guard {
    pid: libc::pid_t,
    /// Writing end of the pipe; gone once disarmed.
    life: Option<OwnedFd>,
}

impl Guard {
    /// Forks the guard, which will run `undo` in order if this process ends without disarming it.
    ///
    /// # Errors
    /// `Exhausted` or `Kernel` when no process can be made; `Unsupported` without `close_range(2)`.
    ///
    /// # Kernel
    /// 5.9
    pub fn arm(undo: Vec<Undo>) -> Result<Self> {
        // Tried here on no descriptor at all: in the guard there would be nobody to tell.
        child::close_ranges(&[(u32::MAX, u32::MAX)]).map_err(|errno| failed(ErrorKind::Unsupported, errno))?;
        let (watched, life) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(ErrorKind::Io, errno))?;
        let mut kept: Vec<u32> =
            undo.iter().flat_map(Undo::descriptors).chain([watched.as_raw_fd()]).map(RawFd::cast_unsigned).collect();
        kept.sort_unstable();
        // The standard streams as well, or a pipe that the supervisor wrote to would stay open.
        let mut close: Vec<(u32, u32)> = (0..3).filter(|fd| !kept.contains(fd)).map(|fd| (fd, fd)).collect();
        close.extend(child::gaps(&kept));

        // Until the guard ignores them: a handler of the supervisor's must not run in it.
        let mask = child::block_all();
        // SAFETY: fork(3) of the C library, which leaves its allocator usable in the child. There, `stand` makes system calls only until the
        // supervisor is gone, what it runs then is bound by the contract of `Undo`, and it ends in _exit(2).
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            stand(undo, &close, &watched);
        }
        let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
        child::set_mask(&mask);
        if pid < 0 {
            let kind =
                if matches!(errno, Errno::AGAIN | Errno::NOMEM) { ErrorKind::Exhausted } else { ErrorKind::Kernel };
            return Err(failed(kind, errno));
        }
        Ok(Self { pid, life: Some(life) })
    }

    /// PID of the guard's process.
    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Ends the guard without its undoing anything, and waits for its end.
    ///
    /// # Errors
    /// `Child` when the guard was gone already, killed by somebody else.
    pub fn disarm(mut self) -> Result<()> {
        self.end()
    }

    /// Has the guard undo everything now, and does not wait for it.
    ///
    /// For a supervisor that tried, failed, and has nobody left to try again.
    pub fn fire(mut self) {
        // End of file is the order to undo. Its end is reaped by whoever reaps this process's children after it.
        self.life = None;
    }

    fn end(&mut self) -> Result<()> {
        let Some(life) = self.life.take() else { return Ok(()) };
        let told = rustix::io::retry_on_intr(|| rustix::io::write(&life, &[0]));
        // After the byte: end of file alone would be the order to undo.
        drop(life);
        loop {
            // SAFETY: waitpid(2) may be told of no place for the status.
            let reaped = unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
            // An error other than EINTR means that somebody else has waited for it: it is gone all the same.
            if reaped >= 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
                break;
            }
        }
        told.map(drop).map_err(|errno| {
            Error::new(ErrorKind::Child, format!("the guard (PID {}) was lost", self.pid)).because(errno)
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn failed(kind: ErrorKind, errno: Errno) -> Error {
    Error::new(kind, "can't make the process that cleans up should ringfence be killed").because(errno)
}

/// The guard's process.
fn stand(undo: Vec<Undo>, close: &[(u32, u32)], watched: &OwnedFd) -> ! {
    // The writing end of our own pipe is among these, and so are those of other guards: with one left open, none would ever see its end.
    if child::close_ranges(close).is_err() {
        // A guard that keeps its own pipe open would never see the end of file, only stay for ever.
        child::exit(1);
    }
    child::ignore_all();
    // What is undone may fork and wait; an ignored SIGCHLD would leave nothing to wait for.
    child::set_default(libc::SIGCHLD);
    // None of these is needed to do the work: a session of its own, a name, a working directory that keeps no mount busy, memory (a copy of the
    // supervisor's) that nobody may read.
    let _ = setsid();
    let _ = rustix::thread::set_name(c"ringfence-guard");
    let _ = rustix::process::chdir(c"/");
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);

    match rustix::io::retry_on_intr(|| rustix::io::read(watched, &mut [0u8])) {
        Ok(0) => undo.into_iter().for_each(Undo::run),
        _ => child::exit(0),
    }
    child::exit(0)
}
