//! The process between supervisor and command: PID 1 of the command's PID namespace.
//!
//! Everything here runs after a fork of a threaded program, so it only makes system calls: no memory, no locks, no panics.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_remount};
use rustix::net::{RecvFlags, recv};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    DumpableBehavior, PidfdFlags, Signal, chroot, fchdir, getpid, pidfd_open, set_child_subreaper,
    set_dumpable_behavior, set_parent_process_death_signal, setpgid,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::message::{At, Failure, KILL_EVERYTHING, Report, Step};
use super::spec::{Pointers, Prepared};
use super::sys::{self, Fork, Reaped};
use super::{command, cover, descendants, signal};

/// Sets up the namespaces, runs the command, and ends when it has ended.
pub(super) fn run(prepared: &Prepared, pointers: &mut Pointers<'_>) -> ! {
    match set_up(prepared, pointers) {
        Ok((command, signals)) => supervise(prepared, command, &signals),
        Err((step, errno)) => {
            Report::Failed(step, errno.raw_os_error()).send(&prepared.control);
            sys::exit(125)
        }
    }
}

fn set_up(prepared: &Prepared, pointers: &mut Pointers<'_>) -> Result<(libc::pid_t, OwnedFd), Failure> {
    // First of all the supervisor's file descriptors: among them may be its end of the control socket of another child, and the other
    // child must see that end close when the supervisor dies.
    sys::close_ranges(&prepared.close).at(Step::Descriptors)?;
    if prepared.pid_namespace {
        set_parent_process_death_signal(Some(Signal::KILL)).at(Step::Lifeline)?;
    } else {
        // Without a PID namespace a killed reaper could not take anybody with it. It learns from the control socket instead.
        set_child_subreaper(Some(getpid())).at(Step::Lifeline)?;
    }
    // A supervisor that died before the line above sent no signal, but its end of the socket is closed.
    if supervisor_is_gone(prepared) {
        sys::exit(125);
    }
    // Our memory is a copy of the supervisor's, and we keep its capabilities: nobody inside may trace us.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Step::Lifeline)?;
    // A name to be found by in a process list; that it can't be set is no reason to stop.
    let _ = rustix::thread::set_name(c"ringfence-init");

    keep_mounts_from_host().at(Step::Propagation)?;
    cover::cover_all(&prepared.covers, prepared.pid_namespace).at(Step::Covers)?;
    if prepared.pid_namespace {
        mount_proc().at(Step::Proc)?;
    }
    make_sysctls_read_only().at(Step::ProcSys)?;

    // The caller may have ignored SIGCHLD, and then nothing could be waited for. The command gets that back.
    signal::set_default(libc::SIGCHLD);
    let signals = sys::signalfd().at(Step::Signals)?;

    // Closes when the command's process executes or ends.
    let (executed, executing) = pipe_with(PipeFlags::CLOEXEC).at(Step::Fork)?;
    let reaper = getpid();
    // SAFETY: `command::run` is made for this place, and never returns.
    let command = match unsafe { sys::fork(0, libc::SIGCHLD, None) }.at(Step::Fork)? {
        Fork::Child => command::run(prepared, pointers, reaper),
        Fork::Parent(pid) => pid,
    };
    drop(executing);
    // The command's now: who reads from it must see its end of file when the command closes it.
    for fd in prepared.stdio.iter().flatten().chain(&prepared.landlock) {
        let number = fd.as_raw_fd().cast_unsigned();
        let _ = sys::close_ranges(&[(number, number)]);
    }
    // Out of the terminal's foreground group, where the command stays: whatever signal still arrives was meant for us.
    let _ = setpgid(None, None);
    while rustix::io::read(&executed, &mut [0u8]) == Err(Errno::INTR) {}
    Report::Started.send(&prepared.control);
    Ok((command, signals))
}

/// Passes on signals and reaps orphans until the command has ended or the supervisor is gone.
fn supervise(prepared: &Prepared, command: libc::pid_t, signals: &OwnedFd) -> ! {
    loop {
        let mut ready = [PollFd::new(signals, PollFlags::IN), PollFd::new(&prepared.control, PollFlags::IN)];
        if poll(&mut ready, None).is_err() {
            continue;
        }
        let [signaled, spoken] = ready.map(|fd| !fd.revents().is_empty());
        if spoken {
            obey(prepared, command);
        }
        if signaled {
            while let Some(received) = sys::next_signal(signals) {
                if received.signal != libc::SIGCHLD && signal::is_forwarded(received.signal, received.code) {
                    sys::kill(command, received.signal);
                }
            }
            // Several children may have ended for one SIGCHLD.
            while let Reaped::One(pid, status) = sys::reap() {
                if pid == command {
                    Report::Ended(status).send(&prepared.control);
                    end(prepared, None);
                }
            }
        }
    }
}

/// Does what the supervisor says over the control socket.
fn obey(prepared: &Prepared, command: libc::pid_t) {
    let mut order = [0u8; 4];
    match recv(&prepared.control, &mut order, RecvFlags::DONTWAIT) {
        Ok((4, _)) => match i32::from_ne_bytes(order) {
            KILL_EVERYTHING => end(prepared, Some(command)),
            signal => sys::kill(command, signal),
        },
        Ok((0, _)) | Err(Errno::CONNRESET) => end(prepared, Some(command)),
        _ => {}
    }
}

/// Ends the reaper, and `command` if that still runs. The kernel ends its PID namespace with it; without one, kills what it can see first.
fn end(prepared: &Prepared, command: Option<libc::pid_t>) -> ! {
    if !prepared.pid_namespace {
        if let Some(command) = command {
            sys::kill(command, libc::SIGKILL);
        }
        descendants::kill_all();
    }
    if command.is_some() {
        Report::Ended(libc::SIGKILL).send(&prepared.control);
    }
    sys::exit(0)
}

fn supervisor_is_gone(prepared: &Prepared) -> bool {
    matches!(
        recv(&prepared.control, &mut [0u8; 4], RecvFlags::DONTWAIT | RecvFlags::PEEK),
        Ok((0, _)) | Err(Errno::CONNRESET)
    )
}

/// Makes the new mount namespace a slave of the host's: mounts of the host arrive, ours stay.
///
/// # Kernel
/// 5.8 in a chroot
fn keep_mounts_from_host() -> Result<(), Errno> {
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    match mount_change(c"/", slave) {
        // The root of a chroot need not be a mount point. setns(2) into our own namespace leads out to one; the descriptors lead back.
        Err(Errno::INVAL) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = open(c"/", flags, Mode::empty())?;
            let directory = open(c".", flags, Mode::empty())?;
            let ourselves = pidfd_open(getpid(), PidfdFlags::empty())?;
            move_into_link_name_space(ourselves.as_fd(), Some(LinkNameSpaceType::Mount))?;
            mount_change(c"/", slave)?;
            fchdir(&root)?;
            chroot(c".")?;
            fchdir(&directory)
        }
        other => other,
    }
}

/// Mounts a /proc that shows the new PID namespace, if there is a /proc at all.
fn mount_proc() -> Result<(), Errno> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match mount(c"proc", c"/proc", c"proc", flags, None) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
        other => other,
    }
}

/// Makes /proc/sys read-only: uid 0 owns the sysctls of its network namespace, capabilities or not.
fn make_sysctls_read_only() -> Result<(), Errno> {
    match mount_bind(c"/proc/sys", c"/proc/sys") {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        other => other?,
    }
    // A read-only bind mount takes two calls: the first one ignores all flags but MS_BIND and MS_REC.
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_remount(c"/proc/sys", flags, c"")
}
