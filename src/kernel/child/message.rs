//! What supervisor, reaper and command say to each other over the control socket: one fixed-size record a message.

use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

/// What the child's side was doing when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Step {
    Lifeline,
    Descriptors,
    Propagation,
    Proc,
    ProcSys,
    Covers,
    Signals,
    Fork,
    Stdio,
    UserNamespace,
    Bounding,
    Groups,
    Gid,
    Uid,
    Capabilities,
    Ambient,
    NoNewPrivileges,
    Seccomp,
    Notify,
    Landlock,
    Exec,
}

impl Step {
    const ALL: [Self; 21] = [
        Self::Lifeline,
        Self::Descriptors,
        Self::Propagation,
        Self::Proc,
        Self::ProcSys,
        Self::Covers,
        Self::Signals,
        Self::Fork,
        Self::Stdio,
        Self::UserNamespace,
        Self::Bounding,
        Self::Groups,
        Self::Gid,
        Self::Uid,
        Self::Capabilities,
        Self::Ambient,
        Self::NoNewPrivileges,
        Self::Seccomp,
        Self::Notify,
        Self::Landlock,
        Self::Exec,
    ];

    fn from_raw(raw: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|step| *step as i32 == raw)
    }

    /// The failure as a clause.
    pub fn failure(self) -> &'static str {
        match self {
            Self::Lifeline => "can't tie the command to its supervisor",
            Self::Descriptors => "can't close the supervisor's file descriptors for the command",
            Self::Propagation => "can't keep the command's mounts from the host",
            Self::Proc => "can't mount /proc for the command's PID namespace",
            Self::ProcSys => "can't make /proc/sys read-only for the command",
            Self::Covers => "can't put the sandbox's own files over the host's for the command",
            Self::Signals => "can't take over signals for the command",
            Self::Fork => "can't fork the command",
            Self::Stdio => "can't hand the command its standard streams",
            Self::UserNamespace => "can't put the command into its user namespace",
            Self::Bounding => "can't limit the command's capability bounding set",
            Self::Groups => "can't set the command's supplementary groups",
            Self::Gid => "can't set the command's group",
            Self::Uid => "can't set the command's user",
            Self::Capabilities => "can't set the command's capabilities",
            Self::Ambient => "can't set the command's ambient capabilities",
            Self::NoNewPrivileges => "can't set no_new_privs for the command",
            Self::Seccomp => "can't put the command under its seccomp filter",
            Self::Notify => "can't have the command's attempts to connect told",
            Self::Landlock => "can't put the command under its Landlock ruleset",
            Self::Exec => "can't execute the command",
        }
    }

    /// What the user can do about it.
    pub fn advice(self) -> Option<&'static str> {
        Some(match self {
            Self::Descriptors => "this needs Linux 5.9 (close_range)",
            Self::Seccomp => "this needs a kernel with CONFIG_SECCOMP_FILTER",
            Self::Notify => "this needs Linux 5.9 (pidfd_getfd) and CAP_SYS_PTRACE",
            Self::Proc => {
                "inside a container that masks parts of /proc the kernel refuses a new one; --share-pid does without a PID namespace"
            }
            Self::Propagation | Self::ProcSys | Self::Covers | Self::UserNamespace => "this needs CAP_SYS_ADMIN",
            Self::Bounding => "this needs CAP_SETPCAP",
            Self::Groups | Self::Gid => "this needs CAP_SETGID",
            Self::Uid => "this needs CAP_SETUID",
            _ => return None,
        })
    }
}

/// An error of the child's side: where, and the kernel's number.
pub(super) type Failure = (Step, Errno);

/// Says at which step a system call failed.
pub(super) trait At<T> {
    fn at(self, step: Step) -> Result<T, Failure>;
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.map_err(|errno| (step, errno))
    }
}

/// From the child's side to the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// The command's process, about to execute; its credentials, attached by the kernel, tell its PID.
    Hello,
    /// The process has a descriptor of this number by which its attempts to connect are told, and waits until the supervisor has it, too.
    Listening(i32),
    /// The command has been executed.
    Started,
    /// It never will be.
    Failed(Step, i32),
    /// The command has ended, with this status word of `wait(2)`.
    Ended(i32),
}

impl Report {
    const SIZE: usize = 12;

    fn encode(self) -> [u8; Self::SIZE] {
        let [tag, first, second] = match self {
            Self::Hello => [1, 0, 0],
            Self::Started => [2, 0, 0],
            Self::Failed(step, errno) => [3, step as i32, errno],
            Self::Ended(status) => [4, status, 0],
            Self::Listening(fd) => [5, fd, 0],
        };
        let ([a, b, c, d], [e, f, g, h], [i, j, k, l]) = (tag.to_ne_bytes(), first.to_ne_bytes(), second.to_ne_bytes());
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, d, e, f, g, h, i, j, k, l] = bytes else { return None };
        let first = i32::from_ne_bytes([e, f, g, h]);
        match i32::from_ne_bytes([a, b, c, d]) {
            1 => Some(Self::Hello),
            2 => Some(Self::Started),
            3 => Some(Self::Failed(Step::from_raw(first)?, i32::from_ne_bytes([i, j, k, l]))),
            4 => Some(Self::Ended(first)),
            5 => Some(Self::Listening(first)),
            _ => None,
        }
    }

    /// Sends it, if anybody still listens. Async-signal-safe.
    pub fn send(self, control: impl AsFd) {
        // Nobody listening means the supervisor is gone, which the reader of the same socket notices.
        let _ = send(control, &self.encode(), SendFlags::NOSIGNAL);
    }
}

/// From the supervisor to the reaper: a signal's number for the command, or this, which ends the reaper and all it can see.
pub(super) const KILL_EVERYTHING: i32 = -1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_wire_and_anything_else_is_refused() {
        let mut reports = vec![Report::Hello, Report::Listening(7), Report::Started, Report::Ended(0x8b)];
        reports.extend(Step::ALL.map(|step| Report::Failed(step, libc::EPERM)));
        for report in reports {
            let bytes = report.encode();
            assert_eq!(Report::decode(&bytes), Some(report));
            assert_eq!(Report::decode(&bytes[..11]), None);
        }
        assert_eq!(Report::decode(&[9; 12]), None);
    }
}
