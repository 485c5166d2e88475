//! Which system calls are refused to the command, why, and with what answer: the one table. `docs/security.md` shows it, and a test holds the two together.
//!
//! A call is here when the kernel would grant it to the command and it would get round the fence, or round who is told to have sent something. What takes a
//! capability of the machine's is refused by the kernel already, and here again only where it would replace the kernel itself.
//! The answer is the one that makes programs do without: that of a kernel which was built without the call, or which refuses it to everybody.
//!
//! # References
//! `syscalls(2)`, `asm/unistd_64.h`, `asm/unistd_32.h`, `asm-generic/unistd.h`, `arch/arm/tools/syscall.tbl`

use rustix::io::Errno;

use crate::policy::SeccompMode;

/// Which numbers an entry into the kernel has. x32 is no entry: all its calls answer ENOSYS.
#[derive(Debug, Clone, Copy)]
pub(super) enum Numbers {
    X86_64,
    I386,
    /// aarch64 and riscv64.
    Generic,
    Arm,
}

/// When a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Always,
    /// Its first argument is no family that stays inside.
    Family,
    /// Its first argument has `CLONE_NEWUSER`.
    NewUser,
    /// Its second argument may mean a user namespace: `CLONE_NEWUSER`, or 0, which is any.
    JoinsUser,
    /// Its second argument is `TIOCSTI` or `TIOCLINUX`.
    Types,
    /// One of its first so many arguments, 1 to 3, is the user who owns the user namespaces of sandboxes.
    Owner(u32),
}

/// In which modes a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// In all: without it the fence has a hole.
    Fence,
    /// Unless switched off.
    Default,
    /// Unless switched off, or user namespaces are allowed.
    Userns,
}

impl Part {
    pub(super) fn holds(self, mode: SeccompMode) -> bool {
        match mode {
            SeccompMode::Default => true,
            SeccompMode::Userns => self != Self::Userns,
            SeccompMode::Off => self == Self::Fence,
        }
    }
}

/// A call that is refused.
pub(super) struct Call {
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for those who read, and for the test that compares the document")
    )]
    pub name: &'static str,
    /// As [`Numbers`] has them.
    numbers: [Option<u32>; 4],
    pub when: When,
    pub answer: Errno,
    pub part: Part,
}

impl Call {
    pub(super) fn number(&self, numbers: Numbers) -> Option<u32> {
        match numbers {
            Numbers::X86_64 => self.numbers[0],
            Numbers::I386 => self.numbers[1],
            Numbers::Generic => self.numbers[2],
            Numbers::Arm => self.numbers[3],
        }
    }
}

const fn call(name: &'static str, numbers: [Option<u32>; 4], when: When, answer: Errno, part: Part) -> Call {
    Call { name, numbers, when, answer, part }
}

const fn all(x86_64: u32, i386: u32, generic: u32, arm: u32) -> [Option<u32>; 4] {
    [Some(x86_64), Some(i386), Some(generic), Some(arm)]
}

use Part::{Default, Fence, Userns};
use When::{Always, Family, JoinsUser, NewUser, Owner, Types};

/// The most frequent first: every call of the command's goes through the list until it is found not to be there.
pub(super) const CALLS: &[Call] = &[
    call("ioctl", all(16, 54, 29, 54), Types, Errno::PERM, Default),
    call("socket", all(41, 359, 198, 281), Family, Errno::AFNOSUPPORT, Fence),
    // It keeps the family in memory, where no filter can look.
    call("socketcall", [None, Some(102), None, None], Always, Errno::NOSYS, Fence),
    call("io_uring_setup", all(425, 425, 425, 425), Always, Errno::NOSYS, Fence),
    call("io_uring_enter", all(426, 426, 426, 426), Always, Errno::NOSYS, Fence),
    call("io_uring_register", all(427, 427, 427, 427), Always, Errno::NOSYS, Fence),
    call("setuid", all(105, 213, 146, 213), Owner(1), Errno::PERM, Fence),
    call("setreuid", all(113, 203, 145, 203), Owner(2), Errno::PERM, Fence),
    call("setresuid", all(117, 208, 147, 208), Owner(3), Errno::PERM, Fence),
    // They cut a number down to 16 bits, so that many mean the same one. No C library has used them since there were others.
    call("setuid16", [None, Some(23), None, Some(23)], Always, Errno::NOSYS, Fence),
    call("setreuid16", [None, Some(70), None, Some(70)], Always, Errno::NOSYS, Fence),
    call("setresuid16", [None, Some(164), None, Some(164)], Always, Errno::NOSYS, Fence),
    call("clone", all(56, 120, 220, 120), NewUser, Errno::PERM, Userns),
    // It keeps the flags in memory. Every C library goes on with clone(2).
    call("clone3", all(435, 435, 435, 435), Always, Errno::NOSYS, Userns),
    call("unshare", all(272, 310, 97, 337), NewUser, Errno::PERM, Userns),
    call("setns", all(308, 346, 268, 375), JoinsUser, Errno::PERM, Userns),
    call("add_key", all(248, 286, 217, 309), Always, Errno::NOSYS, Default),
    call("request_key", all(249, 287, 218, 310), Always, Errno::NOSYS, Default),
    call("keyctl", all(250, 288, 219, 311), Always, Errno::NOSYS, Default),
    call("bpf", all(321, 357, 280, 386), Always, Errno::PERM, Default),
    call("kexec_load", all(246, 283, 104, 347), Always, Errno::PERM, Default),
    call("kexec_file_load", [Some(320), None, Some(294), Some(401)], Always, Errno::PERM, Default),
    call("init_module", all(175, 128, 105, 128), Always, Errno::PERM, Default),
    call("finit_module", all(313, 350, 273, 379), Always, Errno::PERM, Default),
    call("delete_module", all(176, 129, 106, 129), Always, Errno::PERM, Default),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_are_those_of_this_machine() {
        let ours = if cfg!(target_arch = "x86_64") { Numbers::X86_64 } else { Numbers::Generic };
        let known = [
            ("ioctl", libc::SYS_ioctl),
            ("socket", libc::SYS_socket),
            ("io_uring_setup", libc::SYS_io_uring_setup),
            ("io_uring_enter", libc::SYS_io_uring_enter),
            ("io_uring_register", libc::SYS_io_uring_register),
            ("setuid", libc::SYS_setuid),
            ("setreuid", libc::SYS_setreuid),
            ("setresuid", libc::SYS_setresuid),
            ("clone", libc::SYS_clone),
            ("clone3", libc::SYS_clone3),
            ("unshare", libc::SYS_unshare),
            ("setns", libc::SYS_setns),
            ("add_key", libc::SYS_add_key),
            ("request_key", libc::SYS_request_key),
            ("keyctl", libc::SYS_keyctl),
            ("bpf", libc::SYS_bpf),
            ("kexec_load", libc::SYS_kexec_load),
            ("kexec_file_load", libc::SYS_kexec_file_load),
            ("init_module", libc::SYS_init_module),
            ("finit_module", libc::SYS_finit_module),
            ("delete_module", libc::SYS_delete_module),
        ];
        let here = CALLS.iter().filter_map(|call| Some((call.name, libc::c_long::from(call.number(ours)?))));
        assert_eq!(here.collect::<Vec<_>>(), known);
    }

    #[test]
    fn what_a_mode_says_in_words_is_what_it_refuses() {
        let word = |name| match name {
            "socket" | "socketcall" => "sockets that no network namespace holds",
            "setuid" | "setreuid" | "setresuid" | "setuid16" | "setreuid16" | "setresuid16" => {
                "becoming the owner of user namespaces"
            }
            "ioctl" => "typing into the terminal",
            "clone" | "clone3" | "unshare" | "setns" => "user namespaces",
            "add_key" | "request_key" | "keyctl" => "keyrings",
            "bpf" => "bpf",
            "kexec_load" | "kexec_file_load" => "kexec",
            "init_module" | "finit_module" | "delete_module" => "kernel modules",
            name if name.starts_with("io_uring") => "io_uring",
            name => panic!("no words for {name}"),
        };
        for mode in [SeccompMode::Default, SeccompMode::Userns, SeccompMode::Off] {
            let refused = CALLS.iter().filter(|call| call.part.holds(mode)).map(|call| word(call.name));
            assert_eq!(refused.collect::<BTreeSet<_>>(), mode.refused().iter().copied().collect(), "{mode}");
        }
    }

    #[test]
    fn the_document_has_every_call_with_its_answer() {
        let document = include_str!("../../../docs/security.md");
        let rows: Vec<_> = document
            .lines()
            .filter_map(|line| {
                let mut cells = line.strip_prefix("| `")?.split('|').map(|cell| cell.trim().trim_matches('`'));
                let (name, _what, answer, part) = (cells.next()?, cells.next()?, cells.next()?, cells.next()?);
                Some((name.trim_end_matches('`'), answer, part))
            })
            .collect();
        let calls: Vec<_> = CALLS
            .iter()
            .map(|call| {
                let answer = match call.answer {
                    Errno::PERM => "EPERM",
                    Errno::NOSYS => "ENOSYS",
                    Errno::AFNOSUPPORT => "EAFNOSUPPORT",
                    other => panic!("{other}"),
                };
                let modes = match call.part {
                    Fence => "always",
                    Default => "default, userns",
                    Userns => "default",
                };
                (call.name, answer, modes)
            })
            .collect();
        assert_eq!(rows, calls);
    }
}
