//! The filter that refuses system calls to the command: those of [`calls`](super::calls), by every entry into the kernel that this machine has.
//!
//! A network namespace and its rules see IP. Some socket families go round both: AF_VSOCK reaches the hypervisor and other
//! programs on it from every namespace of a virtual machine. So the command may make sockets of those families alone
//! that are known to stay inside, whatever else is switched off.
//!
//! The filter is inherited by everything the command starts, and `no_new_privs` keeps it there.
//!
//! # References
//! `seccomp(2)`, `socket(2)`, `linux/filter.h`, `linux/audit.h`.

use rustix::io::Errno;

use super::calls::{CALLS, Numbers, When};
use super::sys;
use crate::policy::SeccompMode;

/// What may be made: unix, inet, inet6, netlink, packet and alg. All stay in the namespace or in the machine, and those that
/// carry packets carry them past the fence.
const ALLOWED: [i32; 6] =
    [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET, libc::AF_ALG];

/// Offsets in `struct seccomp_data`. The low halves of the arguments: families, flags, users and ioctl requests are 32 bits to the kernel, whatever stands above them.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = if cfg!(target_endian = "big") { 20 } else { 16 };
const SECOND_ARGUMENT: u32 = FIRST_ARGUMENT + 8;

const NEW_USER: u32 = libc::CLONE_NEWUSER.cast_unsigned();
/// `TIOCSTI` and `TIOCLINUX`: the same on every architecture here.
const TYPES: [u32; 2] = [0x5412, 0x541c];

/// A way into the kernel.
pub(super) struct Entry {
    pub architecture: u32,
    pub numbers: Numbers,
}

const I386: Entry = Entry { architecture: 0x4000_0003, numbers: Numbers::I386 };
const X86_64: Entry = Entry { architecture: 0xc000_003e, numbers: Numbers::X86_64 };
const AARCH64: Entry = Entry { architecture: 0xc000_00b7, numbers: Numbers::Generic };
const ARM: Entry = Entry { architecture: 0x4000_0028, numbers: Numbers::Arm };
const RISCV64: Entry = Entry { architecture: 0xc000_00f3, numbers: Numbers::Generic };

/// Those of this machine, all others end the program.
pub(super) const ENTRIES: &[Entry] = if cfg!(target_arch = "x86_64") {
    &[X86_64, I386]
} else if cfg!(target_arch = "aarch64") {
    &[AARCH64, ARM]
} else {
    &[RISCV64]
};
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
compile_error!("kernel/child/calls.rs needs this architecture's numbers");

/// On x86-64, the bit that tells the x32 way of calling, which has numbers of its own.
const X32: u32 = 0x4000_0000;

/// Where a jump goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    Next,
    Entry(usize),
    Families,
    NewUser,
    JoinsUser,
    Types,
    Owner(u32),
    Addressed,
    Notify,
    Allow,
    NoSuchCall,
    NotPermitted,
    Kill,
}

/// An instruction whose jumps are not yet counted.
pub(super) enum Step {
    /// Marks the place of a label; no instruction.
    Place(Label),
    Load(u32),
    Equal(u32, Label),
    AnyBit(u32, Label),
    Goto(Label),
    Return(u32),
}

/// Writes the filter. `owner` is the user who owns the user namespaces of sandboxes: see [`userns::owner`](crate::kernel::userns::owner).
pub(in crate::kernel) fn filter(mode: SeccompMode, owner: Option<u32>) -> Vec<libc::sock_filter> {
    filter_of(ENTRIES, mode, owner)
}

/// Short enough that every jump fits its eight bits.
fn filter_of(entries: &[Entry], mode: SeccompMode, owner: Option<u32>) -> Vec<libc::sock_filter> {
    use Step::{AnyBit, Equal, Goto, Load, Place, Return};
    let errno = |errno: Errno| Return(libc::SECCOMP_RET_ERRNO | errno.raw_os_error().unsigned_abs());

    let mut steps = vec![Load(ARCHITECTURE)];
    steps.extend(entries.iter().enumerate().map(|(index, entry)| Equal(entry.architecture, Label::Entry(index))));
    steps.push(Goto(Label::Kill));
    for (index, entry) in entries.iter().enumerate() {
        steps.extend([Place(Label::Entry(index)), Load(NUMBER)]);
        if matches!(entry.numbers, Numbers::X86_64) {
            steps.push(AnyBit(X32, Label::NoSuchCall));
        }
        for call in CALLS.iter().filter(|call| call.part.holds(mode)) {
            let judged = match call.when {
                When::Always if call.answer == Errno::NOSYS => Label::NoSuchCall,
                When::Always => Label::NotPermitted,
                When::Family => Label::Families,
                When::NewUser => Label::NewUser,
                When::JoinsUser => Label::JoinsUser,
                When::Types => Label::Types,
                When::Owner(_) if owner.is_none() => continue,
                When::Owner(arguments) => Label::Owner(arguments),
            };
            steps.extend(call.number(entry.numbers).map(|number| Equal(number, judged)));
        }
        steps.push(Goto(Label::Allow));
    }
    if let Some(owner) = owner {
        // Each falls through to the one before it.
        for argument in [3, 2, 1] {
            steps.extend([Place(Label::Owner(argument)), Load(FIRST_ARGUMENT + 8 * (argument - 1))]);
            steps.push(Equal(owner, Label::NotPermitted));
        }
        steps.push(Goto(Label::Allow));
    }
    steps.extend([Place(Label::JoinsUser), Load(SECOND_ARGUMENT), Equal(0, Label::NotPermitted)]);
    steps.extend([AnyBit(NEW_USER, Label::NotPermitted), Goto(Label::Allow)]);
    steps.extend([Place(Label::NewUser), Load(FIRST_ARGUMENT)]);
    steps.extend([AnyBit(NEW_USER, Label::NotPermitted), Goto(Label::Allow)]);
    steps.extend([Place(Label::Types), Load(SECOND_ARGUMENT)]);
    steps.extend(TYPES.map(|request| Equal(request, Label::NotPermitted)));
    steps.push(Goto(Label::Allow));
    steps.extend([Place(Label::Families), Load(FIRST_ARGUMENT)]);
    steps.extend(ALLOWED.map(|family| Equal(family.unsigned_abs(), Label::Allow)));
    steps.push(errno(Errno::AFNOSUPPORT));
    steps.extend([Place(Label::Allow), Return(libc::SECCOMP_RET_ALLOW)]);
    steps.extend([Place(Label::NoSuchCall), errno(Errno::NOSYS)]);
    steps.extend([Place(Label::NotPermitted), errno(Errno::PERM)]);
    steps.extend([Place(Label::Kill), Return(libc::SECCOMP_RET_KILL_PROCESS)]);
    assemble(&steps)
}

pub(super) fn assemble(steps: &[Step]) -> Vec<libc::sock_filter> {
    let mut places = Vec::new();
    let mut length = 0usize;
    for step in steps {
        match step {
            Step::Place(label) => places.push((*label, length)),
            _ => length += 1,
        }
    }
    let mut program: Vec<libc::sock_filter> = Vec::with_capacity(length);
    for step in steps {
        let here = program.len() + 1;
        let distance = |label: Label| -> u8 {
            if label == Label::Next {
                return 0;
            }
            // Every label has a place, after every jump to it; 255 would lead past the end, which the kernel refuses.
            let place = places.iter().find(|(known, _)| *known == label).map(|(_, place)| *place);
            place.and_then(|place| place.checked_sub(here)).and_then(|far| u8::try_from(far).ok()).unwrap_or(u8::MAX)
        };
        let (code, label, k) = match *step {
            Step::Place(_) => continue,
            Step::Load(offset) => (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, Label::Next, offset),
            Step::Equal(value, label) => (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, label, value),
            Step::AnyBit(bits, label) => (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, label, bits),
            Step::Goto(label) => (libc::BPF_JMP | libc::BPF_JA, Label::Next, u32::from(distance(label))),
            Step::Return(value) => (libc::BPF_RET | libc::BPF_K, Label::Next, value),
        };
        // BPF opcodes are 16 bits.
        program.push(libc::sock_filter { code: code as u16, jt: distance(label), jf: 0, k });
    }
    program
}

/// Puts the calling thread under the filter. Needs `no_new_privs`; async-signal-safe.
///
/// # Kernel
/// 4.14 (`SECCOMP_RET_KILL_PROCESS`)
pub(in crate::kernel) fn confine(filter: &[libc::sock_filter]) -> Result<(), Errno> {
    sys::seccomp_filter(filter)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::kernel::child::calls::Part;

    const ALL: [&[Entry]; 3] = [&[X86_64, I386], &[AARCH64, ARM], &[RISCV64]];
    const OWNER: u32 = 4_294_967_294;
    const MODES: [SeccompMode; 3] = [SeccompMode::Default, SeccompMode::Userns, SeccompMode::Off];

    /// Runs a filter on one system call, of which `load` gives the words of `struct seccomp_data`.
    pub(in super::super) fn run(program: &[libc::sock_filter], load: impl Fn(u32) -> u32) -> u32 {
        let (mut at, mut value) = (0usize, 0u32);
        for _ in 0..program.len() {
            let step = &program[at];
            at += 1;
            match u32::from(step.code) {
                0x20 => value = load(step.k),
                0x15 => at += usize::from(if value == step.k { step.jt } else { step.jf }),
                0x45 => at += usize::from(if value & step.k != 0 { step.jt } else { step.jf }),
                0x05 => at += step.k as usize,
                0x06 => return step.k,
                other => panic!("opcode {other:#x}"),
            }
        }
        panic!("ran past the end");
    }

    fn judge<const N: usize>(
        program: &[libc::sock_filter],
        architecture: u32,
        number: u32,
        arguments: [u32; N],
    ) -> u32 {
        run(program, |at| match at {
            NUMBER => number,
            ARCHITECTURE => architecture,
            at => match at.checked_sub(FIRST_ARGUMENT) {
                Some(far) if far % 8 == 0 => arguments.get(far as usize / 8).copied().unwrap_or(0),
                _ => panic!("loads at {at}"),
            },
        })
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

    #[test]
    fn every_call_is_refused_by_every_entry_in_its_modes_alone() {
        for (entries, mode) in ALL.into_iter().flat_map(|entries| MODES.map(|mode| (entries, mode))) {
            let program = filter_of(entries, mode, Some(OWNER));
            for (entry, call) in entries.iter().flat_map(|entry| CALLS.iter().map(move |call| (entry, call))) {
                let Some(number) = call.number(entry.numbers) else { continue };
                let judge = |arguments: [u32; 3]| judge(&program, entry.architecture, number, arguments);
                let refused = libc::SECCOMP_RET_ERRNO | call.answer.raw_os_error().unsigned_abs();
                let expected = if call.part.holds(mode) { refused } else { ALLOW };
                // With arguments that are meant, and with those that are not.
                let (meant, innocent): (&[[u32; 3]], &[[u32; 3]]) = match call.when {
                    When::Always => (&[[0, 0, 0], [1, 1, 1], [u32::MAX; 3]], &[]),
                    When::Family => (&[[40, 0, 0], [u32::MAX, 0, 0]], &[[1, 0, 0], [2, 40, 0], [10, 0, 0]]),
                    When::NewUser => (
                        &[[NEW_USER, 0, 0], [u32::MAX, 0, 0]],
                        &[[0, NEW_USER, 0], [0x3d0f00, 0, 0], [!NEW_USER, 0, 0]],
                    ),
                    When::JoinsUser => (
                        &[[3, 0, 0], [3, NEW_USER, 0], [3, NEW_USER | 0x4000_0000, 0]],
                        &[[3, 0x4000_0000, 0], [3, 0x2000_0000, 0]],
                    ),
                    When::Types => (&[[0, 0x5412, 0], [0, 0x541c, 0]], &[[0x5412, 0x5401, 0], [0, 0x5413, 0]]),
                    // What stands behind the arguments of a call is left over from another.
                    When::Owner(1) => (&[[OWNER, 0, 0]], &[[0, OWNER, OWNER], [u32::MAX; 3]]),
                    When::Owner(2) => (&[[OWNER, 0, 0], [0, OWNER, 0]], &[[0, 0, OWNER], [u32::MAX; 3]]),
                    When::Owner(_) => (&[[OWNER, 0, 0], [0, OWNER, 0], [0, 0, OWNER]], &[[0, 0, 0], [u32::MAX; 3]]),
                };
                for arguments in meant {
                    assert_eq!(
                        judge(*arguments),
                        expected,
                        "{} {mode} {arguments:x?} {:x}",
                        call.name,
                        entry.architecture
                    );
                }
                for arguments in innocent {
                    assert_eq!(
                        judge(*arguments),
                        ALLOW,
                        "{} {mode} {arguments:x?} {:x}",
                        call.name,
                        entry.architecture
                    );
                }
            }
            for entry in entries {
                // One of all these numbers is read(2), and nothing else is refused.
                let listed: Vec<_> = CALLS.iter().filter_map(|call| call.number(entry.numbers)).collect();
                for number in (0..600).filter(|number| !listed.contains(number)) {
                    assert_eq!(judge(&program, entry.architecture, number, [NEW_USER, 0x5412]), ALLOW, "{number}");
                }
            }
            assert_eq!(judge(&program, 0xdead, 1, [1, 1]), libc::SECCOMP_RET_KILL_PROCESS);
        }
    }

    #[test]
    fn where_everybody_is_the_owner_nobody_is_kept_from_it() {
        for (entries, mode) in ALL.into_iter().flat_map(|entries| MODES.map(|mode| (entries, mode))) {
            let program = filter_of(entries, mode, None);
            for call in CALLS.iter().filter(|call| matches!(call.when, When::Owner(_))) {
                for entry in entries {
                    let number = call.number(entry.numbers).unwrap();
                    assert_eq!(judge(&program, entry.architecture, number, [0, 0, 0]), ALLOW, "{}", call.name);
                }
            }
        }
    }

    #[test]
    fn sockets_are_of_the_families_that_stay_inside() {
        let socket = CALLS.iter().find(|call| call.when == When::Family).unwrap();
        assert!(socket.part == Part::Fence && !ALLOWED.contains(&libc::AF_VSOCK));
        for (entry, mode) in ENTRIES.iter().flat_map(|entry| MODES.map(|mode| (entry, mode))) {
            let program = filter(mode, None);
            for family in 0..64 {
                let verdict = judge(&program, entry.architecture, socket.number(entry.numbers).unwrap(), [family, 0]);
                assert_eq!(verdict == ALLOW, ALLOWED.contains(&family.cast_signed()), "family {family}");
            }
        }
    }

    #[test]
    fn x32_is_no_way_round() {
        for mode in MODES {
            let program = filter_of(ALL[0], mode, None);
            let no_call = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
            for number in 0..600 {
                assert_eq!(judge(&program, X86_64.architecture, X32 | number, [2, 0]), no_call);
            }
        }
    }
}
