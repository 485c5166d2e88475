//! System calls that rustix lacks, fit to be called between fork and exec: no memory, no locks, no panics.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::fd::AsFd;
use rustix::io::Errno;

/// Which process [`fork`] returned in.
pub(in crate::kernel) enum Fork {
    /// The new one.
    Child,
    /// The old one, with the new one's PID.
    Parent(libc::pid_t),
}

pub(super) fn errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn check(answer: libc::c_long) -> Result<libc::c_long, Errno> {
    if answer < 0 { Err(errno()) } else { Ok(answer) }
}

/// Forks into the namespaces that `flags` name; `exit_signal` 0 tells the parent nothing, so that neither a foreign `wait` nor an ignored
/// SIGCHLD takes the child from it.
///
/// # Safety
/// In the child only async-signal-safe code may run, and it must end in `execve` or `_exit`: other threads' locks stay locked for ever.
/// glibc is not told of the fork either, so its `setuid(3)` and `raise(3)` are out of bounds: they trust what it knows of threads.
///
/// # Kernel
/// 5.3
pub(in crate::kernel) unsafe fn fork(
    flags: libc::c_int,
    exit_signal: libc::c_int,
    pidfd: Option<&mut RawFd>,
) -> Result<Fork, Errno> {
    // SAFETY: zero is a value of every field of the struct.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags as u64;
    arguments.exit_signal = exit_signal as u64;
    if let Some(pidfd) = pidfd {
        arguments.flags |= libc::CLONE_PIDFD as u64;
        arguments.pidfd = std::ptr::from_mut(pidfd) as u64;
    }
    // SAFETY: without CLONE_VM the child gets a copy of this memory and goes on from here on the same stack, as fork(2) would; `arguments`
    // and `pidfd` live through the call. The caller answers for what the child does then.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) })?;
    Ok(if pid == 0 { Fork::Child } else { Fork::Parent(pid as libc::pid_t) })
}

/// Closes all file descriptors of the ranges.
///
/// # Kernel
/// 5.9
pub(in crate::kernel) fn close_ranges(ranges: &[(u32, u32)]) -> Result<(), Errno> {
    for &(first, last) in ranges {
        // SAFETY: closes descriptors in a process that was forked to run this module's code alone, and uses none of them after.
        check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
    }
    Ok(())
}

/// Ends the process at once.
pub(in crate::kernel) fn exit(code: i32) -> ! {
    // SAFETY: _exit(2) runs no destructors and no exit handlers, and takes any code.
    unsafe { libc::_exit(code) }
}

/// Receives every signal that is blocked through a file descriptor.
pub(super) fn signalfd() -> Result<OwnedFd, Errno> {
    let mut all = std::mem::MaybeUninit::uninit();
    // SAFETY: sigfillset(3) writes the whole set it is given; signalfd(2) then reads it and returns a new descriptor, which nobody else owns.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        let fd = check(libc::signalfd(-1, all.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK).into())?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// A signal read from [`signalfd`].
pub(super) struct Received {
    pub signal: libc::c_int,
    pub code: libc::c_int,
}

/// Takes the next signal, if one is there.
pub(super) fn next_signal(fd: impl AsFd) -> Option<Received> {
    let mut info = std::mem::MaybeUninit::<libc::signalfd_siginfo>::uninit();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: read(2) writes at most `size` bytes into a buffer of that size.
    let count = unsafe { libc::read(fd.as_fd().as_raw_fd(), info.as_mut_ptr().cast(), size) };
    if count != size as isize {
        return None;
    }
    // SAFETY: all bytes were written just now, and any bytes make a valid value.
    let info = unsafe { info.assume_init() };
    Some(Received { signal: info.ssi_signo as libc::c_int, code: info.ssi_code })
}

/// Sends a signal of any number, and lets it be when the process is gone.
pub(super) fn kill(pid: libc::pid_t, signal: libc::c_int) {
    // SAFETY: kill(2) touches no memory.
    unsafe { libc::kill(pid, signal) };
}

/// Reaps one child that has ended.
pub(super) enum Reaped {
    /// This one, with its status word.
    One(libc::pid_t, i32),
    /// None has ended.
    NotYet,
    /// There are no children.
    NoChildren,
}

/// Reaps one child that has ended, without waiting.
pub(super) fn reap() -> Reaped {
    let mut status = 0;
    // SAFETY: waitpid(2) writes the status word it is given a place for.
    match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) } {
        0 => Reaped::NotYet,
        pid if pid > 0 => Reaped::One(pid, status),
        _ => Reaped::NoChildren,
    }
}

/// Waits until a child of any exit signal has ended; `None` if it was no child of ours any more.
pub(in crate::kernel) fn wait_for(pidfd: impl AsFd) -> Option<i32> {
    loop {
        // SAFETY: zero is a value of every field of the struct.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let id = pidfd.as_fd().as_raw_fd() as libc::id_t;
        // SAFETY: waitid(2) writes the struct it is given.
        let answer = unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED | libc::__WALL) };
        if answer == 0 {
            // SAFETY: waitid(2) returned a child, so the fields of SIGCHLD are the ones that are set.
            let value = unsafe { info.si_status() };
            // As a status word of wait(2).
            return Some(match info.si_code {
                libc::CLD_EXITED => (value & 0xff) << 8,
                libc::CLD_DUMPED => value | 0x80,
                _ => value,
            });
        }
        if errno() != Errno::INTR {
            return None;
        }
    }
}

/// Lets a Landlock ruleset read what lies beneath an open path, as far as it keeps anybody from reading at all.
///
/// # Kernel
/// 5.13
///
/// # References
/// `landlock_add_rule(2)`, `struct landlock_path_beneath_attr`
pub(super) fn landlock_allow_reading(ruleset: impl AsFd, beneath: impl AsFd) -> Result<(), Errno> {
    const RULE_PATH_BENEATH: libc::c_int = 1;
    const EXECUTE: u64 = 1 << 0;
    const READ_FILE: u64 = 1 << 2;
    const READ_DIR: u64 = 1 << 3;
    /// The kernel's struct is packed: an integer of 64 bits and one of 32.
    #[repr(C, packed)]
    struct PathBeneath {
        allowed: u64,
        parent: i32,
    }
    let ruleset = ruleset.as_fd().as_raw_fd();
    for allowed in [EXECUTE, READ_FILE, READ_DIR] {
        let rule = PathBeneath { allowed, parent: beneath.as_fd().as_raw_fd() };
        // SAFETY: the kernel reads one struct of this type, which outlives the call.
        let added =
            unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &raw const rule, 0) };
        match check(added) {
            // A right that the ruleset does not know, and so keeps nobody from.
            Ok(_) | Err(Errno::INVAL) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

/// Restricts the calling thread with a Landlock ruleset.
///
/// # Kernel
/// 5.13
pub(super) fn landlock_restrict_self(ruleset: impl AsFd) -> Result<(), Errno> {
    // SAFETY: the call takes a descriptor and flags, and touches no memory.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_fd().as_raw_fd(), 0) }).map(drop)
}

/// Puts the calling thread, and what it becomes and starts, under a seccomp filter.
///
/// # Kernel
/// 3.5
///
/// # References
/// `PR_SET_SECCOMP(2const)`
pub(super) fn seccomp_filter(filter: &[libc::sock_filter]) -> Result<(), Errno> {
    let Ok(len) = u16::try_from(filter.len()) else { return Err(Errno::INVAL) };
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `len` instructions, which is no more than `filter` has, and does not write to them.
    check(unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::c_ulong::from(libc::SECCOMP_MODE_FILTER), &raw const program).into()
    })
    .map(drop)
}

/// Puts the calling thread, and what it becomes and starts, under a seccomp filter whose notifications come by the descriptor that this gives.
///
/// # Kernel
/// 5.0
///
/// # References
/// `seccomp_unotify(2)`
#[doc(alias = "SECCOMP_FILTER_FLAG_NEW_LISTENER")]
pub(super) fn seccomp_listener(filter: &[libc::sock_filter]) -> Result<OwnedFd, Errno> {
    let Ok(len) = u16::try_from(filter.len()) else { return Err(Errno::INVAL) };
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    let install = |flags: libc::c_ulong| {
        // SAFETY: the kernel copies `len` instructions, which is no more than `filter` has, and does not write to them.
        check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) })
    };
    // A call that is being looked at is not begun anew for each signal: from 5.19 on.
    let fd = match install(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        Err(Errno::INVAL) => install(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?,
        other => other?,
    };
    // SAFETY: the kernel made the descriptor just now, close-on-exec, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
