//! The command's process, from fork to exec. Async-signal-safe throughout, like the reaper.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::{
    CapabilitySet as Bits, CapabilitySets, LinkNameSpaceType, clear_ambient_capability_set,
    configure_capability_in_ambient_set, move_into_link_name_space, remove_capability_from_bounding_set,
    set_capabilities, set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use super::capability::CapabilitySet;
use super::message::{At, Failure, Report, Step};
use super::spec::{Pointers, Prepared, SHELL};
use super::{filter, notify, signal, sys};

/// Becomes the command, or reports why not.
pub(super) fn run(prepared: &Prepared, pointers: &mut Pointers<'_>, reaper: Pid) -> ! {
    let (step, errno) = match become_command(prepared, reaper) {
        Ok(()) => (Step::Exec, execute(prepared, pointers)),
        Err(failure) => failure,
    };
    Report::Failed(step, errno.raw_os_error()).send(&prepared.control);
    sys::exit(125)
}

fn become_command(prepared: &Prepared, reaper: Pid) -> Result<(), Failure> {
    let [input, output, error] = &prepared.stdio;
    input.as_ref().map_or(Ok(()), dup2_stdin).at(Step::Stdio)?;
    output.as_ref().map_or(Ok(()), dup2_stdout).at(Step::Stdio)?;
    error.as_ref().map_or(Ok(()), dup2_stderr).at(Step::Stdio)?;

    if let Some(userns) = &prepared.user_namespace {
        // Before all that is about users and capabilities: it fills every set of capabilities, the bounding set too. The mounts are made, by the
        // reaper, which stays outside and so can't be traced from inside.
        move_into_link_name_space(userns.as_fd(), Some(LinkNameSpaceType::User)).at(Step::UserNamespace)?;
    }
    become_user(prepared)?;
    set_no_new_privs(true).at(Step::NoNewPrivileges)?;
    filter::confine(&prepared.filter).at(Step::Seccomp)?;
    if let Some(ruleset) = &prepared.landlock {
        if prepared.pid_namespace {
            // This /proc was mounted after the ruleset had been made. One that a container masks is not there to be read.
            match open(c"/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
                Ok(proc) => sys::landlock_allow_reading(ruleset, proc).at(Step::Landlock)?,
                Err(Errno::NOENT) => {}
                Err(other) => return Err((Step::Landlock, other)),
            }
        }
        // After no_new_privs, which lets a process without CAP_SYS_ADMIN do it.
        sys::landlock_restrict_self(ruleset).at(Step::Landlock)?;
    }

    if !prepared.pid_namespace {
        // After the change of user, which clears it.
        set_parent_process_death_signal(Some(Signal::KILL)).at(Step::Lifeline)?;
        if getppid() != Some(reaper) {
            sys::exit(125);
        }
    }
    if let Some(filter) = &prepared.notify {
        // Behind all that might still make a connection: from here on they wait for the supervisor.
        notify::tell(filter, &prepared.control).at(Step::Notify)?;
    }
    // Dispositions before the mask: a signal that came in meanwhile must not run a handler of the supervisor's here.
    signal::restore_dispositions(prepared.ignored);
    signal::unblock_all();
    Report::Hello.send(&prepared.control);
    Ok(())
}

/// Changes user, groups and capabilities, in the one order in which each step still has the privilege it needs.
fn become_user(prepared: &Prepared) -> Result<(), Failure> {
    let plan = prepared.capabilities;
    // The bounding set first: it needs CAP_SETPCAP, which the change of user takes away.
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits(1 << number);
        if one.without(plan.bounding).is_empty() {
            continue;
        }
        match remove_capability_from_bounding_set(bits(one)) {
            // Past the last one that this kernel knows.
            Err(Errno::INVAL) => break,
            other => other.at(Step::Bounding)?,
        }
    }
    if let Some(ids) = &prepared.ids {
        // Or the change of user would empty the permitted set, from which the ambient one is filled below. Cleared by execve.
        set_keep_capabilities(true).at(Step::Uid)?;
        set_thread_groups(&ids.groups).at(Step::Groups)?;
        set_thread_res_gid(ids.gid, ids.gid, ids.gid).at(Step::Gid)?;
        set_thread_res_uid(ids.uid, ids.uid, ids.uid).at(Step::Uid)?;
    }
    let sets =
        CapabilitySets { effective: bits(plan.held), permitted: bits(plan.held), inheritable: bits(plan.ambient) };
    set_capabilities(None, sets).at(Step::Capabilities)?;
    clear_ambient_capability_set().at(Step::Ambient)?;
    for one in plan.ambient.each() {
        configure_capability_in_ambient_set(bits(one), true).at(Step::Ambient)?;
    }
    Ok(())
}

fn bits(set: CapabilitySet) -> Bits {
    Bits::from_bits_retain(set.bits())
}

/// Executes the first candidate that can be, as `execvp(3)` does; returns why none could.
fn execute(prepared: &Prepared, pointers: &mut Pointers<'_>) -> Errno {
    let mut denied = false;
    for candidate in &prepared.candidates {
        // SAFETY: path and arrays are NUL-terminated and were laid out before the fork; they point into `prepared`, which is alive.
        unsafe { libc::execve(candidate.as_ptr(), pointers.argv.as_ptr(), pointers.envp.as_ptr()) };
        let mut refused = sys::errno();
        if refused == Errno::NOEXEC {
            if let Some(script) = pointers.shell_argv.get_mut(1) {
                *script = candidate.as_ptr();
            }
            // SAFETY: as above.
            unsafe { libc::execve(SHELL.as_ptr(), pointers.shell_argv.as_ptr(), pointers.envp.as_ptr()) };
            refused = sys::errno();
        }
        match refused {
            // Another directory may have one that we may execute.
            Errno::ACCESS => denied = true,
            Errno::NOENT | Errno::NOTDIR | Errno::STALE | Errno::NODEV | Errno::TIMEDOUT if prepared.searched => {}
            other => return other,
        }
    }
    if denied { Errno::ACCESS } else { Errno::NOENT }
}
