//! A command inside a network namespace: started there, kept there, gone with its supervisor.
//!
//! ```text
//! supervisor ── keeper thread ─┬─ setns(network namespace)
//!                              └─ clone3(PID namespace, mount namespace) ── reaper, PID 1 inside ── command ── …
//! ```
//!
//! The **keeper** is a thread that lives as long as the child: it forks the reaper, hears from it, reaps it. The **reaper** closes the
//! supervisor's file descriptors, makes the mounts, forks the command, passes signals on, reaps orphans, reports how the command ended, and
//! ends with it; the kernel then kills whatever is left in the PID namespace. Supervisor and reaper share a socket pair, on which either
//! sees the other's end; the kernel kills the reaper when the keeper dies. So SIGKILL for the supervisor leaves nothing behind.
//!
//! The command keeps the caller's terminal, session, process group, working directory, umask, resource limits, cgroup, and the signals that
//! the caller ignored (but for SIGPIPE, which Rust ignores for itself). It gets no file descriptor but 0, 1 and 2.
//! In the caller's process group it may signal that group, as far as its user may.

#![allow(unsafe_code)]

mod calls;
mod capability;
mod command;
mod cover;
mod descendants;
mod filter;
mod keeper;
mod message;
mod notify;
mod reaper;
mod signal;
mod spec;
mod status;
mod sys;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use rustix::process::pidfd_send_signal;
use tokio::sync::watch;

pub use capability::{Capabilities, CapabilitySet};
pub use cover::Cover;
pub use signal::{Forwarding, Signal, forward_signals, hold_signals};
pub use spec::ChildSpec;
pub use status::{ExecError, ExitStatus};

pub(in crate::kernel) use filter::{confine, filter};
pub(in crate::kernel) use signal::{block_all, ignore_all, set_default, set_mask};
pub(in crate::kernel) use spec::gaps;
pub(in crate::kernel) use sys::{Fork, close_ranges, exit, fork, wait_for};

use crate::{Error, ErrorKind, Result};
use keeper::{Ending, Keeper, Launched};
use spec::Prepared;

/// A running command. Dropping it kills it, and all that it has started, and waits for their end.
///
/// A process that waits in the kernel, for a file system that does not answer, can't be killed. It is waited for no longer than 20 seconds; then
/// [`wait`](Self::wait) fails, and what is left of it ends when the kernel lets it.
///
/// With a PID namespace ([`ChildSpec::pid_namespace`]) the kernel sees to that. Without one the reaper does, as far as it can: it adopts
/// orphans and kills the descendants that `/proc` shows. What is then **not** guaranteed: if the reaper itself is killed, the command dies but its
/// descendants live on, and so they do where there is no `/proc` or where they fork faster than they can be killed. The command also sees all
/// processes of the machine, and may kill the reaper if its user may.
#[derive(Debug)]
pub struct Child {
    reaper: libc::pid_t,
    command: Option<libc::pid_t>,
    pidfd: OwnedFd,
    control: Arc<OwnedFd>,
    ended: watch::Receiver<Option<Ending>>,
    keeper: Option<JoinHandle<()>>,
    pid_namespace: bool,
    listener: Option<OwnedFd>,
}

impl Child {
    /// Starts a command inside a network namespace; returns when it has been executed.
    ///
    /// Blocks for the few milliseconds that this takes.
    ///
    /// # Errors
    /// `Child` with an [`ExecError`] as its source when the program can't be executed; `Child` for a string with a NUL byte; `Privilege` when
    /// a capability is missing; `Kernel` or `Unsupported`, naming the step, when the kernel refuses. In each case nothing is left.
    ///
    /// # Privileges
    /// CAP_SYS_ADMIN; CAP_SETPCAP unless all capabilities are kept; CAP_SETUID and CAP_SETGID to change the user.
    ///
    /// # Kernel
    /// 5.9
    ///
    /// # References
    /// `clone(2)`, `pid_namespaces(7)`, `mount_namespaces(7)`, `capabilities(7)`, `PR_SET_PDEATHSIG(2const)`
    #[doc(alias = "CLONE_NEWPID")]
    #[doc(alias = "PR_SET_PDEATHSIG")]
    pub fn spawn(netns: BorrowedFd<'_>, spec: ChildSpec) -> Result<Self> {
        let (ours, theirs) = control_pair()?;
        let control = Arc::new(ours);
        let (program, pid_namespace) = (spec.program.clone(), spec.pid_namespace);
        let prepared = Prepared::new(spec, theirs)?;
        let netns = netns
            .try_clone_to_owned()
            .map_err(|error| Error::new(ErrorKind::Io, "can't duplicate the network namespace").because(error))?;

        let (launched, answer) = sync_channel(1);
        let (ending, ended) = watch::channel(None);
        let keeper = Keeper { program, prepared, netns, control: Arc::clone(&control), launched, ended: ending };
        let keeper = std::thread::Builder::new()
            .name("ringfence-keep".into())
            .stack_size(256 * 1024)
            .spawn(move || keeper.run())
            .map_err(|error| Error::new(ErrorKind::Io, "can't start the child's keeper thread").because(error))?;
        match answer.recv() {
            Ok(Ok(Launched { reaper, command, pidfd, listener })) => {
                Ok(Self { reaper, command, pidfd, control, ended, keeper: Some(keeper), pid_namespace, listener })
            }
            Ok(Err(error)) => {
                let _ = keeper.join();
                Err(error)
            }
            Err(_) => Err(Error::new(ErrorKind::Child, "the child's keeper thread was lost")),
        }
    }

    /// PID of the reaper, as this process counts. A signal sent there is passed on to the command.
    pub fn pid(&self) -> u32 {
        self.reaper.unsigned_abs()
    }

    /// PID of the command itself, as this process counts, if the kernel told. It may be another's once the command has ended.
    pub fn command_pid(&self) -> Option<u32> {
        self.command.map(i32::unsigned_abs)
    }

    /// Takes what tells of the command's attempts to connect and to send, where [`ChildSpec::notify`] asked for it. While nobody answers they
    /// wait; once it is closed they fail with ENOSYS.
    pub fn listener(&mut self) -> Option<OwnedFd> {
        self.listener.take()
    }

    /// The reaper's pidfd: readable once everything inside has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Sends a signal to the command: to that process alone, SIGKILL and SIGSTOP too.
    ///
    /// # Errors
    /// `Child` when the command has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.order(signal.as_raw()).map_err(|errno| {
            let error = Error::new(ErrorKind::Child, format!("can't send {signal} to the command")).because(errno);
            if matches!(errno, Errno::PIPE | Errno::CONNRESET) { error.hint("the command has ended") } else { error }
        })
    }

    /// Kills the command and all that it has started. That they have ended, [`wait`](Self::wait) tells.
    ///
    /// # Errors
    /// `Child` when the kernel refuses the signal. That all have ended already is no error.
    pub fn kill(&self) -> Result<()> {
        kill(self.pidfd.as_fd(), &self.control, self.pid_namespace)
    }

    /// What kills the command from elsewhere.
    ///
    /// # Errors
    /// `Io` when the process has no descriptor left.
    pub(crate) fn killer(&self) -> Result<Killer> {
        let pidfd = self
            .pidfd
            .try_clone()
            .map_err(|error| Error::new(ErrorKind::Io, "can't duplicate the descriptor of a process").because(error))?;
        Ok(Killer { pidfd, control: self.control(), pid_namespace: self.pid_namespace })
    }

    /// Waits until the command, and with it everything inside, has ended. May be called again, and dropped in between.
    ///
    /// # Errors
    /// `Child` when how it ended can't be known, or something inside can't be ended.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        match self.ended.wait_for(Option::is_some).await {
            Ok(ending) => status(*ending),
            Err(_) => Err(lost()),
        }
    }

    /// Waits like [`wait`](Self::wait), blocking the thread.
    ///
    /// # Errors
    /// `Child` when how it ended can't be known, or something inside can't be ended.
    pub fn wait_blocking(&mut self) -> Result<ExitStatus> {
        if let Some(keeper) = self.keeper.take() {
            keeper.join().map_err(|_| lost())?;
        }
        status(*self.ended.borrow())
    }

    /// Does what dropping it does, and says whether everything inside has ended.
    pub(crate) fn end(mut self) -> bool {
        self.kill_and_wait();
        !matches!(*self.ended.borrow(), Some(Ending::Stuck))
    }

    fn kill_and_wait(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            // Refused it may be only when everything has ended: then there is but the keeper to wait for.
            let _ = self.kill();
            let _ = keeper.join();
        }
    }

    fn order(&self, order: i32) -> Result<(), Errno> {
        self::order(&self.control, order)
    }

    fn control(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.control)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill_and_wait();
    }
}

/// Kills a command, and all that it has started, from elsewhere than where its [`Child`] is.
#[derive(Debug)]
pub(crate) struct Killer {
    pidfd: OwnedFd,
    control: Arc<OwnedFd>,
    pid_namespace: bool,
}

impl Killer {
    /// As [`Child::kill`].
    pub(crate) fn kill(&self) -> Result<()> {
        kill(self.pidfd.as_fd(), &self.control, self.pid_namespace)
    }

    /// Kills a process as if it were the first of a sandbox's PID namespace.
    #[cfg(test)]
    pub(crate) fn of(pid: u32) -> rustix::io::Result<Self> {
        use rustix::process::{Pid, PidfdFlags, pidfd_open};
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let control = Arc::new(rustix::io::fcntl_dupfd_cloexec(&pidfd, 0)?);
        Ok(Self { pidfd, control, pid_namespace: true })
    }
}

fn kill(reaper: BorrowedFd<'_>, control: &OwnedFd, pid_namespace: bool) -> Result<()> {
    use rustix::process::Signal;
    let killed = if pid_namespace {
        pidfd_send_signal(reaper, Signal::KILL)
    } else {
        // The reaper has to do it. Should somebody have stopped it, it is to go on first.
        pidfd_send_signal(reaper, Signal::CONT).and_then(|()| order(control, message::KILL_EVERYTHING))
    };
    match killed {
        Ok(()) | Err(Errno::SRCH | Errno::PIPE | Errno::CONNRESET) => Ok(()),
        Err(errno) => Err(Error::new(ErrorKind::Child, "can't kill the command").because(errno)),
    }
}

fn order(control: &OwnedFd, order: i32) -> Result<(), Errno> {
    send(control, &order.to_ne_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT).map(drop)
}

fn status(ending: Option<Ending>) -> Result<ExitStatus> {
    match ending.ok_or_else(lost)? {
        Ending::Ended(status) => Ok(status),
        Ending::Stuck => Err(stuck()),
    }
}

/// What is said of processes that can't be killed.
pub(crate) fn stuck() -> Error {
    Error::new(
        ErrorKind::Child,
        "a process that the command started can't be ended: it was killed, and still waits in the kernel",
    )
    .hint("it waits for a file system that does not answer, a FUSE mount of its own most likely")
}

fn lost() -> Error {
    Error::new(ErrorKind::Child, "how the command ended can't be known")
}

/// Makes the socket pair of supervisor and child's side. It keeps the bounds of messages and, towards the supervisor, says who sent them.
fn control_pair() -> Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Error::new(ErrorKind::Io, "can't make the child's control socket").because(errno))?;
    set_socket_passcred(&ours, true).map_err(|errno| {
        Error::new(ErrorKind::Io, "can't have the child's control socket tell who sends").because(errno)
    })?;
    Ok((spec::above_stdio(ours)?, spec::above_stdio(theirs)?))
}
