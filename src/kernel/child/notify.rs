//! The command's attempts to connect and to send, told to the supervisor before the kernel makes them.
//!
//! A filter of its own, because one that tells can't be told apart from those before it: a process has one listener at most. Calls that
//! name no address pass unseen: what a connected socket sends goes where the connection went, which was told.
//!
//! # References
//! `seccomp_unotify(2)`

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::calls::Numbers;
use super::filter::{ARCHITECTURE, ENTRIES, Label, NUMBER, Step, assemble};
use super::sys;

/// Halves of the fifth argument of sendto(2), the address, in `struct seccomp_data`.
const ADDRESS: [u32; 2] = [48, 52];

/// The numbers of connect, sendmsg and sendmmsg, and that of sendto.
fn told(numbers: Numbers) -> ([u32; 3], u32) {
    match numbers {
        Numbers::X86_64 => ([42, 46, 307], 44),
        Numbers::I386 => ([362, 370, 345], 369),
        Numbers::Generic => ([203, 211, 269], 206),
        Numbers::Arm => ([283, 296, 374], 290),
    }
}

/// Writes the filter.
pub(super) fn filter() -> Vec<libc::sock_filter> {
    use Step::{AnyBit, Equal, Goto, Load, Place, Return};
    let mut steps = vec![Load(ARCHITECTURE)];
    steps.extend(ENTRIES.iter().enumerate().map(|(index, entry)| Equal(entry.architecture, Label::Entry(index))));
    // The filter of calls ends whoever comes another way.
    steps.push(Goto(Label::Allow));
    for (index, entry) in ENTRIES.iter().enumerate() {
        let (always, sendto) = told(entry.numbers);
        steps.extend([Place(Label::Entry(index)), Load(NUMBER)]);
        steps.extend(always.map(|number| Equal(number, Label::Notify)));
        steps.extend([Equal(sendto, Label::Addressed), Goto(Label::Allow)]);
    }
    steps.push(Place(Label::Addressed));
    for half in ADDRESS {
        steps.extend([Load(half), AnyBit(u32::MAX, Label::Notify)]);
    }
    steps.extend([Place(Label::Allow), Return(libc::SECCOMP_RET_ALLOW)]);
    steps.extend([Place(Label::Notify), Return(libc::SECCOMP_RET_USER_NOTIF)]);
    assemble(&steps)
}

/// Puts the calling process under the filter, and waits until the supervisor has what tells it. Async-signal-safe.
pub(super) fn tell(filter: &[libc::sock_filter], control: impl AsFd) -> Result<(), Errno> {
    let listener = sys::seccomp_listener(filter)?;
    // Not passed with the message: that takes sendmsg(2), which waits for the supervisor from now on.
    super::message::Report::Listening(listener.as_raw_fd()).send(&control);
    let mut answer = [0u8; 4];
    loop {
        return match recv(&control, &mut answer, RecvFlags::empty()) {
            Err(Errno::INTR) => continue,
            Err(errno) => Err(errno),
            Ok((4, _)) => match i32::from_ne_bytes(answer) {
                0 => Ok(()),
                errno => Err(Errno::from_raw_os_error(errno)),
            },
            Ok(_) => Err(Errno::PIPE),
        };
    }
}

/// Takes the descriptor out of the process that waits in [`tell`].
///
/// # Privileges
/// `CAP_SYS_PTRACE` in the user namespace in which ringfence was executed: the process can't be traced by anybody else.
pub(super) fn take(pid: libc::pid_t, fd: i32) -> Result<OwnedFd, Errno> {
    let pid = Pid::from_raw(pid).ok_or(Errno::SRCH)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    pidfd_getfd(&pidfd, fd, PidfdGetfdFlags::empty())
}

/// Lets the process go on, or tells it why not.
pub(super) fn answer(control: impl AsFd, taken: Result<(), Errno>) {
    let errno = taken.err().map_or(0, Errno::raw_os_error);
    // Whoever does not listen any more is gone.
    let _ = send(control, &errno.to_ne_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::child::filter::Entry;

    /// Runs the filter on one system call, whose fifth argument is `address`.
    fn judge(architecture: u32, number: u32, address: u64) -> u32 {
        super::super::filter::tests::run(&filter(), |at| match at {
            NUMBER => number,
            ARCHITECTURE => architecture,
            48 => address as u32,
            52 => (address >> 32) as u32,
            other => panic!("loads at {other}"),
        })
    }

    #[test]
    fn calls_that_name_an_address_are_told() {
        const TOLD: u32 = libc::SECCOMP_RET_USER_NOTIF;
        for &Entry { architecture, numbers } in ENTRIES {
            let (always, sendto) = told(numbers);
            for number in always {
                assert_eq!(judge(architecture, number, 0), TOLD);
            }
            assert_eq!(judge(architecture, sendto, 1), TOLD);
            assert_eq!(judge(architecture, sendto, 1 << 32), TOLD);
            assert_eq!(judge(architecture, sendto, 0), libc::SECCOMP_RET_ALLOW, "a connected socket's");
            assert_eq!(judge(architecture, 1, 1), libc::SECCOMP_RET_ALLOW, "another call");
        }
        // These are the numbers of the machine that this was compiled for.
        let known = [libc::SYS_connect, libc::SYS_sendmsg, libc::SYS_sendmmsg].map(|number| number as u32);
        assert_eq!(told(ENTRIES[0].numbers), (known, libc::SYS_sendto as u32));
    }
}
