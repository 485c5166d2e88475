//! What to run, and the same as memory laid out before the fork.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::ptr;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::thread::{Gid, Uid};

use super::capability::{CapabilityPlan, CapabilitySet};
use super::cover::{Cover, PreparedCover};
use super::{Capabilities, cover, filter, notify, signal};
use crate::kernel::passwd::User;
use crate::kernel::userns::{self, Userns};
use crate::policy::SeccompMode;
use crate::{Error, ErrorKind, Result};

/// Where `execvp(3)` looks for a program when the environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// What to run, as whom, with what.
#[derive(Debug)]
pub struct ChildSpec {
    /// The program: a path if it holds a slash, else looked up in the `PATH` of [`env`](Self::env).
    pub program: OsString,
    /// Its arguments, without the program's own name.
    pub args: Vec<OsString>,
    /// Its whole environment; nothing is inherited.
    pub env: Vec<(OsString, OsString)>,
    /// Whom to run it as; `None` leaves user and groups as they are. Not the last user that the caller's user namespace has: the user namespaces of
    /// sandboxes belong to it.
    pub user: Option<User>,
    /// What it may do beyond an ordinary user.
    pub capabilities: Capabilities,
    /// Gives it a PID namespace of its own. See [`Child`](super::Child) for what holds without.
    pub pid_namespace: bool,
    /// A user namespace to put it in, the one that owns the network namespace: what it keeps of [`capabilities`](Self::capabilities) holds
    /// there and nowhere else.
    pub user_namespace: Option<Userns>,
    /// Which system calls it is refused, besides those that always are.
    pub seccomp: SeccompMode,
    /// A Landlock ruleset to restrict it with, as `landlock_create_ruleset(2)` made it. The /proc of a PID namespace of its own is added, for reading.
    pub landlock: Option<OwnedFd>,
    /// What it sees in place of the host's files. Nothing of the host's is changed.
    pub covers: Vec<Cover>,
    /// Has its attempts to connect and to send told, so that [`identity::Marks`](crate::kernel::identity::Marks) can say who made them. They wait
    /// until somebody answers: take [`Child::listener`](super::Child::listener).
    pub notify: bool,
    /// Standard input, output and error; `None` shares the caller's.
    pub stdio: [Option<OwnedFd>; 3],
}

impl ChildSpec {
    /// Describes `program` with an empty environment, the caller's user, default capabilities and its own PID namespace.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            user: None,
            capabilities: Capabilities::Default,
            pid_namespace: true,
            user_namespace: None,
            seccomp: SeccompMode::default(),
            landlock: None,
            covers: Vec::new(),
            notify: false,
            stdio: [None, None, None],
        }
    }
}

/// A [`ChildSpec`] of which nothing needs memory any more: what runs between fork and exec only reads it.
pub(super) struct Prepared {
    /// Every path to try, in order.
    pub candidates: Vec<CString>,
    /// They come from `PATH`.
    pub searched: bool,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    pub ids: Option<Ids>,
    pub capabilities: CapabilityPlan,
    pub pid_namespace: bool,
    /// What refuses it system calls.
    pub filter: Vec<libc::sock_filter>,
    /// What has its attempts told.
    pub notify: Option<Vec<libc::sock_filter>>,
    pub user_namespace: Option<OwnedFd>,
    pub landlock: Option<OwnedFd>,
    pub covers: Vec<PreparedCover>,
    pub stdio: [Option<OwnedFd>; 3],
    /// The child's end of the control socket.
    pub control: OwnedFd,
    /// File descriptors to close, as ranges: all from 3 up but those above.
    pub close: Vec<(u32, u32)>,
    /// Signals that the caller had ignored, bit `n - 1` for signal `n`.
    pub ignored: u64,
}

/// Whom to become.
pub(super) struct Ids {
    pub uid: Uid,
    pub gid: Gid,
    pub groups: Vec<Gid>,
}

impl Prepared {
    pub fn new(spec: ChildSpec, control: OwnedFd) -> Result<Self> {
        let ours = rustix::thread::capabilities(None)
            .map_err(|errno| Error::new(ErrorKind::Kernel, "can't read ringfence's own capabilities").because(errno))?;
        let owner = userns::owner()?;
        let uid = spec.user.as_ref().map_or_else(|| rustix::process::geteuid().as_raw(), |user| user.uid);
        if owner == Some(uid) {
            let what = format!("can't run as user {uid}: the user namespaces of sandboxes belong to that number");
            return Err(Error::new(ErrorKind::Policy, what).hint("choose another user"));
        }
        let capabilities =
            CapabilityPlan::new(spec.capabilities, uid == 0, CapabilitySet::from_bits(ours.permitted.bits()))?;

        let path = spec.env.iter().find(|(name, _)| name == "PATH").map_or(DEFAULT_PATH, |(_, value)| value.as_bytes());
        let candidates = candidates(&spec.program, path)?;
        let searched = !spec.program.as_bytes().contains(&b'/');
        let mut arguments = vec![c_string(spec.program, "the program's name")?];
        for (position, argument) in spec.args.into_iter().enumerate() {
            arguments.push(c_string(argument, &format!("argument {}", position + 1))?);
        }
        let mut environment = Vec::with_capacity(spec.env.len());
        for (name, value) in spec.env {
            if name.is_empty() || name.as_bytes().contains(&b'=') {
                let name = name.display();
                return Err(Error::new(
                    ErrorKind::Child,
                    format!("`{name}` can't be the name of an environment variable"),
                ));
            }
            let what = format!("environment variable {}", name.display());
            let mut entry = name;
            entry.push("=");
            entry.push(value);
            environment.push(c_string(entry, &what)?);
        }

        let covers = cover::prepare(spec.covers)?;

        // Duplicates, so that all are close-on-exec and none is 0, 1 or 2, whatever the caller's were.
        let [input, output, error] = spec.stdio.map(|stream| stream.map(above_stdio).transpose());
        let stdio = [input?, output?, error?];
        let landlock = spec.landlock.map(above_stdio).transpose()?;
        let user_namespace = spec.user_namespace.map(|userns| above_stdio(userns.into())).transpose()?;
        let handed = stdio.iter().flatten().chain(&landlock).chain(&user_namespace).chain([&control]);
        let mut kept: Vec<u32> = handed.map(|fd| fd.as_raw_fd() as u32).collect();
        kept.sort_unstable();

        Ok(Self {
            candidates,
            searched,
            arguments,
            environment,
            ids: spec.user.map(|user| Ids {
                uid: Uid::from_raw(user.uid),
                gid: Gid::from_raw(user.gid),
                groups: user.groups.into_iter().map(Gid::from_raw).collect(),
            }),
            capabilities,
            pid_namespace: spec.pid_namespace,
            filter: filter::filter(spec.seccomp, owner),
            notify: spec.notify.then(notify::filter),
            user_namespace,
            landlock,
            covers,
            stdio,
            control,
            close: gaps(&kept),
            ignored: signal::ignored(),
        })
    }
}

/// The arrays that `execve(2)` reads: pointers into a [`Prepared`].
pub(super) struct Pointers<'a> {
    pub argv: Vec<*const libc::c_char>,
    /// `/bin/sh`, a slot for the script's path, the arguments.
    pub shell_argv: Vec<*const libc::c_char>,
    pub envp: Vec<*const libc::c_char>,
    _prepared: std::marker::PhantomData<&'a Prepared>,
}

/// What runs a script without `#!`, as in `execvp(3)`.
pub(super) const SHELL: &CStr = c"/bin/sh";

impl<'a> Pointers<'a> {
    pub fn new(prepared: &'a Prepared) -> Self {
        let array = |strings: &[CString]| -> Vec<*const libc::c_char> {
            strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
        };
        let argv = array(&prepared.arguments);
        let mut shell_argv = vec![SHELL.as_ptr(), ptr::null()];
        shell_argv.extend(argv.iter().skip(1));
        Self { argv, shell_argv, envp: array(&prepared.environment), _prepared: std::marker::PhantomData }
    }
}

/// Moves a file descriptor above 2 and makes it close-on-exec.
pub(super) fn above_stdio(fd: OwnedFd) -> Result<OwnedFd> {
    fcntl_dupfd_cloexec(fd.as_fd(), 3)
        .map_err(|errno| Error::new(ErrorKind::Io, "can't duplicate a file descriptor").because(errno))
}

/// Everything from 3 up that is not in the sorted list, as inclusive ranges.
pub(in crate::kernel) fn gaps(kept: &[u32]) -> Vec<(u32, u32)> {
    let mut ranges = Vec::with_capacity(kept.len() + 1);
    let mut first = 3;
    for &fd in kept {
        if fd > first {
            ranges.push((first, fd - 1));
        }
        first = first.max(fd.saturating_add(1));
    }
    ranges.push((first, u32::MAX));
    ranges
}

/// The paths that `execvp(3)` would try.
fn candidates(program: &OsStr, path: &[u8]) -> Result<Vec<CString>> {
    let program = program.as_bytes();
    let what = "the program's name";
    if program.is_empty() || program.contains(&b'/') {
        return Ok(vec![c_string(OsString::from_vec(program.to_vec()), what)?]);
    }
    path.split(|byte| *byte == b':')
        .map(|directory| {
            let mut candidate = directory.to_vec();
            // An empty element means the working directory.
            if !candidate.is_empty() {
                candidate.push(b'/');
            }
            candidate.extend_from_slice(program);
            c_string(OsString::from_vec(candidate), what)
        })
        .collect()
}

pub(super) fn c_string(text: OsString, what: &str) -> Result<CString> {
    CString::new(text.into_vec()).map_err(|_| Error::new(ErrorKind::Child, format!("{what} holds a NUL byte")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_looked_up_in_path_unless_it_has_a_slash() {
        let of = |program: &str, path: &str| -> Vec<String> {
            candidates(program.as_ref(), path.as_bytes())
                .unwrap()
                .into_iter()
                .map(|path| path.into_string().unwrap())
                .collect()
        };
        assert_eq!(of("ls", "/a:/b"), ["/a/ls", "/b/ls"]);
        assert_eq!(of("ls", ":/b:"), ["ls", "/b/ls", "ls"]);
        assert_eq!(of("./ls", "/a"), ["./ls"]);
        assert_eq!(of("", "/a"), [""]);
        assert_eq!(candidates("a\0b".as_ref(), b"/a").unwrap_err().to_string(), "the program's name holds a NUL byte");
    }

    #[test]
    fn gaps_cover_all_but_what_is_kept() {
        assert_eq!(gaps(&[]), [(3, u32::MAX)]);
        assert_eq!(gaps(&[3, 4, 9]), [(5, 8), (10, u32::MAX)]);
        assert_eq!(gaps(&[5, 5]), [(3, 4), (6, u32::MAX)]);
    }
}
