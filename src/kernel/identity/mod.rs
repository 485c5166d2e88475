//! Who sent what a fence refused.
//!
//! A refused socket is closed and its port free within microseconds, so nobody finds it in `/proc` afterwards. It has to be noted when the
//! packet is sent:
//!
//! - [`Program`]: a BPF program at the output hook of the namespace notes who sends, before the fence looks at the packet. Needs privilege on
//!   the machine.
//! - [`Marks`]: a seccomp filter has the command's attempts wait until each socket has a mark, which its packets carry. Needs no more than
//!   a user has in a user namespace, costs each attempt more, and can't prove as much.
//!
//! # References
//!
//! bpf(2); `net/netfilter/nf_bpf_link.c`; `struct bpf_nf_ctx`

#![allow(unsafe_code)]

mod bpf;
mod marks;
mod means;
mod memory;
mod process;
mod program;
mod ring;
mod socket;
mod structs;
mod watch;

pub use marks::Marks;
pub use means::{Means, Nobody, Way};
#[doc(hidden)]
pub use process::read_process;
pub use program::{Logged, Program};
#[doc(hidden)]
pub use ring::read_record;
pub use watch::Watch;

/// Most processes that are named for one packet. Each is told with all that is known of it, and a program can start any number of them.
const CANDIDATES: usize = 16;

/// What is told for more.
const TOO_MANY: &str = "more processes sent what can't be told apart than are named";
