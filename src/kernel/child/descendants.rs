//! Killing without a PID namespace: the descendants that can be seen, again and again until none is left.
//!
//! Async-signal-safe. An orphan becomes the reaper's own child (it is a subreaper), so killing children is enough.

use rustix::fs::{Mode, OFlags, open};
use rustix::time::Timespec;

use super::sys::{self, Reaped};

/// How often to look, a millisecond apart: two seconds against a program that forks as fast as it can.
const ROUNDS: u32 = 2000;

/// Kills and reaps all children that `/proc` shows, their orphans too.
pub(super) fn kill_all() {
    for _ in 0..ROUNDS {
        let seen = kill_children();
        loop {
            match sys::reap() {
                Reaped::One(..) => {}
                Reaped::NotYet => break,
                Reaped::NoChildren => return,
            }
        }
        if !seen {
            // Children there are, but /proc does not show them.
            return;
        }
        let _ = rustix::thread::nanosleep(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 });
    }
}

/// Kills every child that `/proc` lists; says whether it lists any.
///
/// # References
/// `proc_pid_task(5)`: `/proc/tid/children`, a list of PIDs, each followed by a space.
fn kill_children() -> bool {
    let Ok(list) = open(c"/proc/thread-self/children", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
        return false;
    };
    let mut seen = false;
    let mut pid: libc::pid_t = 0;
    let mut buffer = [0u8; 512];
    while let Ok(count @ 1..) = rustix::io::read(&list, &mut buffer) {
        for byte in buffer.iter().take(count) {
            match byte {
                b'0'..=b'9' => pid = pid.wrapping_mul(10).wrapping_add(libc::pid_t::from(byte - b'0')),
                _ => {
                    // Never 0 or below, which would name a group of processes.
                    if pid > 1 {
                        sys::kill(pid, libc::SIGKILL);
                        seen = true;
                    }
                    pid = 0;
                }
            }
        }
    }
    seen
}
