//! The thread that forks the reaper and stays until it has reaped it.
//!
//! It has to stay: `PR_SET_PDEATHSIG` fires when the *thread* that forked ends, not when its process does.

use std::ffi::OsString;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, test_kill_process_group};
use rustix::termios::{tcgetpgrp, tcsetpgrp};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::watch;

use super::message::{Report, Step};
use super::spec::{Pointers, Prepared};
use super::sys::{self, Fork};
use super::{ExecError, ExitStatus, notify, reaper, signal};
use crate::{Error, ErrorKind, Result};

/// What the keeper has to do its work with.
pub(super) struct Keeper {
    pub program: OsString,
    pub prepared: Prepared,
    pub netns: OwnedFd,
    /// The supervisor's end of the control socket.
    pub control: Arc<OwnedFd>,
    /// Told once: the command runs, or why not.
    pub launched: SyncSender<Result<Launched>>,
    /// Told once: how it ended.
    pub ended: watch::Sender<Option<Ending>>,
}

/// How long what a command leaves may take to end, once the reaper has been told to or has ended itself. A process that waits in the kernel can't be
/// killed, and may be waiting for ever: for a FUSE file system of its own, whose server is among the dead.
const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// What became of everything inside.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ending {
    /// It has ended, and the command like that.
    Ended(ExitStatus),
    /// Some of it has not, though it was killed.
    Stuck,
}

/// A command that runs.
pub(super) struct Launched {
    pub reaper: libc::pid_t,
    pub command: Option<libc::pid_t>,
    pub pidfd: OwnedFd,
    pub listener: Option<OwnedFd>,
}

/// What the child's side has said so far.
#[derive(Default)]
struct Heard {
    command: Option<libc::pid_t>,
    failed: Option<(Step, i32)>,
    started: bool,
    ended: Option<i32>,
    listener: Option<OwnedFd>,
}

impl Keeper {
    /// Starts the command, tells how that went, waits for the end, tells of that.
    pub fn run(self) {
        let Self { program, prepared, netns, control, launched, ended } = self;
        // For good on this thread. The child inherits it, and must not run a handler of the supervisor's before it has got rid of them.
        signal::block_all();
        let terminal = Terminal::held();
        let (reaper, pidfd) = match fork(prepared, &netns) {
            Ok(forked) => forked,
            Err(error) => return drop(launched.send(Err(error))),
        };
        drop(netns);

        let mut heard = Heard::default();
        let mut launched = Some(launched);
        loop {
            let ended = wait_for_news(&control, &pidfd);
            let hung_up = heard.listen(&control);
            if heard.started
                && heard.failed.is_none()
                && let Some(launched) = launched.take()
            {
                let listener = heard.listener.take();
                let answer = pidfd
                    .try_clone()
                    .map(|pidfd| Launched { reaper, command: heard.command, pidfd, listener })
                    .map_err(|error| Error::new(ErrorKind::Io, "can't duplicate the child's pidfd").because(error));
                // `spawn` waits for it, and for nothing else.
                let _ = launched.send(answer);
            }
            if ended || hung_up {
                break;
            }
        }
        let gone = ends_within(&pidfd, &PATIENCE);
        let reaped = if gone { sys::wait_for(&pidfd) } else { None };
        if let Some(terminal) = terminal {
            terminal.take_back();
        }
        match launched {
            None => {
                let status = heard.ended.or(reaped).map(ExitStatus::from_raw);
                let ending = if gone { status.map(Ending::Ended) } else { Some(Ending::Stuck) };
                // Nobody has to wait for it.
                let _ = ended.send(ending);
            }
            Some(launched) => drop(launched.send(Err(failure(program, heard.failed, reaped)))),
        }
        if !gone {
            // Or there would be a zombie, should it end after all. Nobody waits for this thread.
            let reap = std::thread::Builder::new().name("ringfence-keep".into()).stack_size(64 * 1024);
            let _ = reap.spawn(move || sys::wait_for(&pidfd));
        }
    }
}

/// Forks the reaper into the network namespace and new ones; `prepared` goes with it.
fn fork(prepared: Prepared, netns: &OwnedFd) -> Result<(libc::pid_t, OwnedFd)> {
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|errno| {
        let kind = if errno == Errno::PERM { ErrorKind::Privilege } else { ErrorKind::Kernel };
        Error::new(kind, "can't enter the command's network namespace").because(errno)
    })?;
    let mut pointers = Pointers::new(&prepared);
    let flags = libc::CLONE_NEWNS | if prepared.pid_namespace { libc::CLONE_NEWPID } else { 0 };
    let mut pidfd = -1;
    // SAFETY: `reaper::run` is made for this place, and never returns.
    match unsafe { sys::fork(flags, 0, Some(&mut pidfd)) } {
        Ok(Fork::Child) => reaper::run(&prepared, &mut pointers),
        // SAFETY: clone3(2) made this descriptor just now for us alone.
        Ok(Fork::Parent(pid)) => Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) })),
        Err(errno) => {
            let what = "can't create the command's namespaces";
            Err(match errno {
                Errno::PERM => Error::new(ErrorKind::Privilege, what).hint("this needs CAP_SYS_ADMIN"),
                Errno::NOSYS => Error::new(ErrorKind::Unsupported, what).hint(
                    "this needs Linux 5.9 (clone3, close_range), and no seccomp filter that refuses clone3, as that of a sandbox does",
                ),
                Errno::NOSPC | Errno::USERS | Errno::AGAIN | Errno::NOMEM => Error::new(ErrorKind::Exhausted, what)
                    .hint("see /proc/sys/user/max_pid_namespaces, max_mnt_namespaces, and ulimit -u"),
                _ => Error::new(ErrorKind::Kernel, what),
            }
            .because(errno))
        }
    }
}

/// Waits until a process has ended, all its threads and, of the first one of a PID namespace, all others in there; says whether they have.
fn ends_within(pidfd: &OwnedFd, patience: &Timespec) -> bool {
    // All signals are blocked: nothing cuts it short.
    !matches!(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(patience)), Ok(0))
}

/// Waits until there is something to read, or the reaper has ended; says whether it has.
fn wait_for_news(control: &OwnedFd, pidfd: &OwnedFd) -> bool {
    // Not for the end of the socket's stream alone: a process that another thread is forking may hold the child's end open for a while.
    let mut ready = [PollFd::new(control, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
    match poll(&mut ready, None) {
        Ok(_) => !ready[1].revents().is_empty(),
        // All signals are blocked; an error here can only mean that memory is short, and waiting for the reaper needs none.
        Err(_) => true,
    }
}

impl Heard {
    /// Reads all that is there; says whether the child's side has hung up.
    fn listen(&mut self, control: &OwnedFd) -> bool {
        loop {
            match receive(control.as_fd()) {
                Received::Report(Report::Hello, sender) => self.command = sender,
                Received::Report(Report::Listening(fd), sender) => {
                    let taken = sender.map_or(Err(Errno::SRCH), |pid| notify::take(pid, fd));
                    notify::answer(control, taken.as_ref().map(drop).map_err(|errno| *errno));
                    self.listener = taken.ok();
                }
                Received::Report(Report::Started, _) => self.started = true,
                Received::Report(Report::Failed(step, errno), _) => self.failed = Some((step, errno)),
                Received::Report(Report::Ended(status), _) => self.ended = Some(status),
                Received::Nothing => return false,
                Received::End => return true,
            }
        }
    }
}

/// What the control socket had.
enum Received {
    /// A report, and its sender's PID as this PID namespace counts.
    Report(Report, Option<libc::pid_t>),
    Nothing,
    End,
}

fn receive(control: BorrowedFd<'_>) -> Received {
    let mut bytes = [0u8; 16];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let count = match recvmsg(control, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
        Ok(received) => received.bytes,
        Err(Errno::AGAIN | Errno::INTR) => return Received::Nothing,
        Err(_) => return Received::End,
    };
    // The child's side sends nothing but whole reports, so anything else is the empty read at the end.
    let Some(report) = bytes.get(..count).and_then(Report::decode) else { return Received::End };
    let sender = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(credentials) => Some(credentials.pid.as_raw_nonzero().get()),
        _ => None,
    });
    Received::Report(report, sender)
}

/// Why the command never ran.
fn failure(program: OsString, failed: Option<(Step, i32)>, reaped: Option<i32>) -> Error {
    match failed {
        Some((Step::Exec, errno)) => Error::new(ErrorKind::Child, format!("can't execute `{}`", program.display()))
            .because(ExecError::new(program, errno)),
        Some((step, errno)) => {
            let kind = match errno {
                libc::EPERM | libc::EACCES => ErrorKind::Privilege,
                libc::ENOSYS => ErrorKind::Unsupported,
                _ => ErrorKind::Kernel,
            };
            let error = Error::new(kind, step.failure()).because(std::io::Error::from_raw_os_error(errno));
            match step.advice() {
                Some(advice) => error.hint(advice),
                None => error,
            }
        }
        None => {
            let status =
                reaped.map_or_else(|| "unknown status".to_owned(), |status| ExitStatus::from_raw(status).to_string());
            Error::new(ErrorKind::Child, format!("the command's reaper was lost while it started: {status}"))
        }
    }
}

/// The terminal in whose foreground we are.
///
/// A shell inside makes itself the foreground process group and, when it ends, can't give the terminal back: the group it should name is
/// outside its PID namespace, where it reads as 0.
struct Terminal {
    fd: OwnedFd,
    group: Pid,
}

impl Terminal {
    fn held() -> Option<Self> {
        // SAFETY: getpgrp(2) takes nothing and can't fail. Not rustix's, whose `Pid` is never 0: the process group of somebody in a PID
        // namespace whose group leader is outside of it is, as under `unshare --pid --fork`. Then no terminal can be named ours.
        let group = Pid::from_raw(unsafe { libc::getpgrp() })?;
        [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
            .into_iter()
            .find(|fd| tcgetpgrp(fd) == Ok(group))
            .and_then(|fd| fd.try_clone_to_owned().ok())
            .map(|fd| Self { fd, group })
    }

    /// Takes the terminal back from a group of which nobody is left. From one that lives, nobody may take it: we may have been put in
    /// the background.
    fn take_back(self) {
        if let Ok(group) = tcgetpgrp(&self.fd)
            && group != self.group
            && test_kill_process_group(group) == Err(Errno::SRCH)
        {
            // SIGTTOU is blocked on this thread, so it does not stop us. A terminal that hung up meanwhile needs no owner.
            let _ = tcsetpgrp(&self.fd, self.group);
        }
    }
}
