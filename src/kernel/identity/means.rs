//! Which of the ways there is here.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use super::program::{Program, has};
use crate::audit::{Attempted, Identify, Identity};
use crate::{Error, ErrorKind, Result};

/// How to find out who tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Way {
    /// The best that there is.
    #[default]
    Auto,
    /// By BPF, or not at all.
    Bpf,
    /// By marks on sockets, or not at all.
    Seccomp,
    /// Not at all.
    Off,
}

impl Way {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Auto, "auto"), (Self::Bpf, "bpf"), (Self::Seccomp, "seccomp"), (Self::Off, "off")];
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::ALL.iter().find(|(way, _)| way == self).map_or("auto", |(_, word)| *word);
        f.pad(word)
    }
}

impl FromStr for Way {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.iter().find(|(_, word)| *word == text).map(|(way, _)| *way);
        found.ok_or_else(|| {
            let what = format!("`{}` is no way to find out who tried", text.escape_debug());
            Error::new(ErrorKind::Policy, what).hint("auto, bpf, seccomp or off")
        })
    }
}

/// A way that works here. Found once a process; clones share what was loaded.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Means {
    /// A program that is put into each namespace: [`Program::attach`].
    Bpf(Program),
    /// Marks on sockets: the command is started with [`ChildSpec::notify`](crate::kernel::child::ChildSpec::notify), and
    /// [`Marks::listen`](super::Marks::listen) takes its listener. It works for what such a command starts, and for nobody else in the namespace.
    Seccomp {
        /// Why it is not BPF, if that was looked for.
        instead: Option<Cow<'static, str>>,
    },
    /// None: [`Nobody`] answers.
    None {
        /// Why not.
        reason: Cow<'static, str>,
    },
}

impl Means {
    /// Finds one. [`Way::Auto`] and [`Way::Off`] always do, and at worst say why there is none.
    ///
    /// # Errors
    ///
    /// For [`Way::Bpf`] and [`Way::Seccomp`], why it can't be had.
    pub fn find(way: Way) -> Result<Self> {
        match way {
            Way::Off => Ok(Self::None { reason: "nobody asked for it".into() }),
            Way::Bpf => Program::load().map(Self::Bpf),
            Way::Seccomp => marks().map(|()| Self::Seccomp { instead: None }),
            Way::Auto => Ok(match Program::load() {
                Ok(program) => Self::Bpf(program),
                Err(no_bpf) => match marks() {
                    Ok(()) => Self::Seccomp { instead: Some(no_bpf.chain().into()) },
                    Err(no_marks) => {
                        let reason = format!("no BPF: {}; no marks: {}", no_bpf.chain(), no_marks.chain());
                        Self::None { reason: reason.into() }
                    }
                },
            }),
        }
    }
}

impl fmt::Display for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bpf(_) => f.write_str("exact, by BPF"),
            Self::Seccomp { instead: None } => f.write_str("inferred, by seccomp"),
            Self::Seccomp { instead: Some(why) } => write!(f, "inferred, by seccomp; not by BPF: {why}"),
            Self::None { reason } => write!(f, "unknown: {reason}"),
        }
    }
}

/// Whether sockets of another process can be marked.
fn marks() -> Result<()> {
    for (number, name) in [(19, "CAP_SYS_PTRACE"), (12, "CAP_NET_ADMIN")] {
        if !has(number)? {
            return Err(Error::new(ErrorKind::Privilege, format!("{name} is missing")));
        }
    }
    // Such a kernel lets nobody take a descriptor of another process.
    match std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").as_deref().map(str::trim_ascii) {
        Ok("3") => Err(Error::new(ErrorKind::Privilege, "kernel.yama.ptrace_scope is 3")),
        _ => Ok(()),
    }
}

/// Knows nobody, and says why.
#[derive(Debug, Clone)]
pub struct Nobody {
    /// Why not.
    pub reason: Cow<'static, str>,
}

impl Identify for Nobody {
    fn identify(&mut self, _: &Attempted) -> Identity {
        Identity::Unknown { reason: self.reason.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_the_word_for_it() {
        for (way, word) in Way::ALL {
            assert_eq!(word.parse::<Way>().unwrap(), way);
            assert_eq!(way.to_string(), word);
        }
        assert_eq!("BPF\n".parse::<Way>().unwrap_err().to_string(), r"`BPF\n` is no way to find out who tried");
    }

    #[test]
    fn nobody_is_looked_for_when_nobody_asked() {
        let off = Means::find(Way::Off).unwrap();
        assert_eq!(off.to_string(), "unknown: nobody asked for it");
    }
}
