//! Sockets that no network namespace holds, kept from the command.
//!
//! A network namespace and its rules see IP. Some socket families go round both: AF_VSOCK reaches the hypervisor and other
//! programs on it from every namespace of a virtual machine. So the command may make sockets of those families alone
//! that are known to stay inside. io_uring would make a socket without the system call that is looked at here, so it
//! answers as on a kernel without it.
//!
//! The filter is inherited by everything the command starts, and `no_new_privs` keeps it there.
//!
//! # References
//! `seccomp(2)`, `socket(2)`, `linux/filter.h`, `linux/audit.h`.

use rustix::io::Errno;

use super::sys;

/// What may be made: unix, inet, inet6, netlink, packet and alg. All stay in the namespace or in the machine, and those that
/// carry packets carry them past the fence.
const ALLOWED: [i32; 6] =
    [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET, libc::AF_ALG];

/// The same number on every architecture.
const IO_URING_SETUP: u32 = 425;

/// Offsets in `struct seccomp_data`. The low half of the first argument: a family is an int.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = if cfg!(target_endian = "big") { 20 } else { 16 };

/// A way into the kernel: an architecture, its number for socket(2), and a call that hides socket(2), where there is one.
struct Entry {
    architecture: u32,
    socket: u32,
    multiplexed: Option<u32>,
}

#[cfg(target_arch = "x86_64")]
const ENTRIES: &[Entry] = &[
    Entry { architecture: 0xc000_003e, socket: 41, multiplexed: None },
    // Programs for i386: socketcall(2) keeps the family in memory, where no filter can look.
    Entry { architecture: 0x4000_0003, socket: 359, multiplexed: Some(102) },
];
#[cfg(target_arch = "aarch64")]
const ENTRIES: &[Entry] = &[
    Entry { architecture: 0xc000_00b7, socket: 198, multiplexed: None },
    Entry { architecture: 0x4000_0028, socket: 281, multiplexed: None },
];
#[cfg(target_arch = "riscv64")]
const ENTRIES: &[Entry] = &[Entry { architecture: 0xc000_00f3, socket: 198, multiplexed: None }];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
compile_error!("kernel/child/families.rs needs this architecture's number for socket(2)");

/// On x86-64, the bit that tells the x32 way of calling, which has numbers of its own.
const X32: Option<u32> = if cfg!(target_arch = "x86_64") { Some(0x4000_0000) } else { None };

/// Where a jump goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    Next,
    Entry(usize),
    Families,
    Addressed,
    Notify,
    Allow,
    NoSuchCall,
    NoSuchFamily,
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

/// Writes the filter. Short enough that every jump fits its eight bits.
pub(super) fn filter() -> Vec<libc::sock_filter> {
    use Step::{AnyBit, Equal, Goto, Load, Place, Return};
    let errno = |errno: Errno| Return(libc::SECCOMP_RET_ERRNO | errno.raw_os_error().unsigned_abs());

    let mut steps = vec![Load(ARCHITECTURE)];
    steps.extend(ENTRIES.iter().enumerate().map(|(index, entry)| Equal(entry.architecture, Label::Entry(index))));
    steps.push(Goto(Label::Kill));
    for (index, entry) in ENTRIES.iter().enumerate() {
        steps.extend([Place(Label::Entry(index)), Load(NUMBER)]);
        if let (0, Some(bit)) = (index, X32) {
            steps.push(AnyBit(bit, Label::NoSuchCall));
        }
        steps.push(Equal(entry.socket, Label::Families));
        steps.push(Equal(IO_URING_SETUP, Label::NoSuchCall));
        steps.extend(entry.multiplexed.map(|number| Equal(number, Label::NoSuchCall)));
        steps.push(Goto(Label::Allow));
    }
    steps.extend([Place(Label::Families), Load(FIRST_ARGUMENT)]);
    steps.extend(ALLOWED.map(|family| Equal(family.unsigned_abs(), Label::Allow)));
    steps.extend([Place(Label::NoSuchFamily), errno(Errno::AFNOSUPPORT)]);
    steps.extend([Place(Label::Allow), Return(libc::SECCOMP_RET_ALLOW)]);
    steps.extend([Place(Label::NoSuchCall), errno(Errno::NOSYS)]);
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
pub(super) fn confine(filter: &[libc::sock_filter]) -> Result<(), Errno> {
    sys::seccomp_filter(filter)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

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

    fn judge(architecture: u32, number: u32, family: u32) -> u32 {
        run(&filter(), |at| match at {
            NUMBER => number,
            ARCHITECTURE => architecture,
            FIRST_ARGUMENT => family,
            other => panic!("loads at {other}"),
        })
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const NO_FAMILY: u32 = libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32;
    const NO_CALL: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

    #[test]
    fn sockets_are_of_the_families_that_stay_inside() {
        for entry in ENTRIES {
            for family in 0..64 {
                let verdict = judge(entry.architecture, entry.socket, family);
                let inside = ALLOWED.contains(&family.cast_signed());
                assert_eq!(verdict, if inside { ALLOW } else { NO_FAMILY }, "family {family}");
            }
            assert_eq!(judge(entry.architecture, IO_URING_SETUP, 1), NO_CALL);
            assert_eq!(judge(entry.architecture, 1, libc::AF_VSOCK as u32), ALLOW, "not a socket call");
            if let Some(number) = entry.multiplexed {
                assert_eq!(judge(entry.architecture, number, 1), NO_CALL);
            }
        }
        assert_eq!(judge(0xdead, 1, 1), libc::SECCOMP_RET_KILL_PROCESS);
        assert!(!ALLOWED.contains(&libc::AF_VSOCK));
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn x32_is_no_way_round() {
        assert_eq!(judge(0xc000_003e, 0x4000_0000 | 41, libc::AF_VSOCK as u32), NO_CALL);
    }
}
