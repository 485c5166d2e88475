//! How a command ended, or why it never began.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::process::ExitStatusExt;

use super::Signal;

/// How the command ended, as `wait(2)` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExitStatus(i32);

impl ExitStatus {
    /// Takes the status word of `wait(2)`.
    pub const fn from_raw(raw: i32) -> Self {
        Self(raw)
    }

    /// Gives the status word of `wait(2)`.
    pub const fn into_raw(self) -> i32 {
        self.0
    }

    /// The code it exited with; `None` if a signal ended it.
    pub fn code(self) -> Option<u8> {
        self.std().code().map(|code| code as u8)
    }

    /// The signal that ended it; `None` if it exited.
    pub fn signal(self) -> Option<Signal> {
        self.std().signal().and_then(Signal::from_raw)
    }

    /// Says whether it left a core dump.
    pub fn core_dumped(self) -> bool {
        self.std().core_dumped()
    }

    /// Says whether it exited with code 0.
    pub fn success(self) -> bool {
        self.std().success()
    }

    /// The code as shells give it: its own, or 128 plus the number of the signal.
    pub fn code_for_shell(self) -> u8 {
        match (self.code(), self.signal()) {
            (Some(code), _) => code,
            (None, Some(signal)) => 128 | signal.as_raw() as u8,
            // A status word that says neither is none of wait(2)'s.
            (None, None) => 125,
        }
    }

    fn std(self) -> std::process::ExitStatus {
        std::process::ExitStatus::from_raw(self.0)
    }
}

impl From<ExitStatus> for std::process::ExitStatus {
    fn from(status: ExitStatus) -> Self {
        status.std()
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code(), self.signal()) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "{signal}{}", if self.core_dumped() { " (core dumped)" } else { "" }),
            (None, None) => write!(f, "wait status {:#x}", self.0),
        }
    }
}

/// The command could not be executed; the cause inside an error of kind [`Child`](crate::ErrorKind::Child).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecError {
    program: OsString,
    errno: i32,
    /// More than the kernel's number says, where it is known.
    known: Option<&'static str>,
}

impl ExecError {
    pub(super) fn new(program: OsString, errno: i32) -> Self {
        // The kernel has one number for a directory and for a file without the x bit, and one for a file that is not there and for one whose
        // interpreter is not. Looked at afterwards, and for the message alone: it may have changed meanwhile. What was searched for in PATH is
        // not looked at, for it may stand in any of its directories.
        let path = std::path::Path::new(&program);
        let known = if !program.as_encoded_bytes().contains(&b'/') {
            None
        } else if errno == libc::EACCES && path.is_dir() {
            Some("it is a directory")
        } else if errno == libc::ENOENT && path.exists() {
            Some("the interpreter that it asks for is not there")
        } else {
            None
        };
        Self { program, errno, known }
    }

    /// The program as it was asked for.
    pub fn program(&self) -> &std::ffi::OsStr {
        &self.program
    }

    /// What `execve(2)` answered.
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// The exit code that `env(1)` and shells give for it: 127 if there is no such program, else 126.
    pub fn code_for_shell(&self) -> u8 {
        if self.errno == libc::ENOENT { 127 } else { 126 }
    }
}

impl fmt::Display for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known {
            Some(known) => f.write_str(known),
            None => write!(f, "{}", std::io::Error::from_raw_os_error(self.errno)),
        }
    }
}

impl std::error::Error for ExecError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_word_is_a_code_or_a_signal() {
        let exited = ExitStatus::from_raw(42 << 8);
        assert_eq!((exited.code(), exited.signal(), exited.code_for_shell()), (Some(42), None, 42));
        let killed = ExitStatus::from_raw(libc::SIGKILL);
        assert_eq!((killed.code(), killed.signal(), killed.code_for_shell()), (None, Some(Signal::KILL), 137));
        assert!(ExitStatus::from_raw(0).success());
        assert_eq!(ExitStatus::from_raw(libc::SIGSEGV | 0x80).to_string(), "SIGSEGV (core dumped)");
    }

    #[test]
    fn no_such_program_is_127_and_the_rest_126() {
        let of = |errno| ExecError::new("x".into(), errno).code_for_shell();
        assert_eq!((of(libc::ENOENT), of(libc::EACCES), of(libc::ENOEXEC)), (127, 126, 126));
    }
}
