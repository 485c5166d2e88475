//! What is to run in a sandbox, as a caller says it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::kernel::child::{Capabilities, ChildSpec};
use crate::kernel::landlock::{Enforcement, Landlock};
use crate::kernel::passwd::Account;
use crate::kernel::userns::Userns;
use crate::plan::{Environment, FileAccess, FileRule, Files};
use crate::policy::{Origin, SeccompMode, Variables};
use crate::{Error, ErrorKind, Result};

/// A command to be fenced, in the manner of [`std::process::Command`].
///
/// It inherits the caller's environment, working directory, standard streams and terminal. What the plan says of the
/// environment is put over what is inherited, and what is set here over that.
#[derive(Debug)]
pub struct Command {
    program: OsString,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    /// Variables of the caller's that it does not inherit.
    withheld: Vec<OsString>,
    user: Option<Account>,
    capabilities: Capabilities,
    share_pid: bool,
    seccomp: SeccompMode,
    files: Option<Files>,
    stdio: [Option<OwnedFd>; 3],
}

impl Command {
    /// A command that is looked up in `PATH` unless it has a slash.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: BTreeMap::new(),
            withheld: Vec::new(),
            user: None,
            capabilities: Capabilities::default(),
            share_pid: false,
            seccomp: SeccompMode::default(),
            files: None,
            stdio: [None, None, None],
        }
    }

    /// Appends an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Appends arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Runs it as that user, with that user's `HOME`, `USER`, `LOGNAME` and `SHELL` where they are known.
    pub fn user(mut self, user: Account) -> Self {
        self.user = Some(user);
        self
    }

    /// Says which capabilities it keeps. More than Docker does takes a sandbox with [a user namespace](super::SandboxOptions::user_namespace).
    pub fn capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Leaves it in the caller's PID namespace. It then may outlive a supervisor that is killed; see `docs/known-limits.md`.
    pub fn share_pid(mut self) -> Self {
        self.share_pid = true;
        self
    }

    /// Says which system calls it is refused. User namespaces are among them unless told otherwise.
    pub fn seccomp(mut self, mode: SeccompMode) -> Self {
        self.seccomp = mode;
        self
    }

    /// Keeps it from all files but these, with Landlock. The program's own file is added.
    pub fn files(mut self, files: Files) -> Self {
        self.files = Some(files);
        self
    }

    /// Gives it other standard streams than the caller's; `None` shares the caller's.
    pub fn stdio(mut self, stdio: [Option<OwnedFd>; 3]) -> Self {
        self.stdio = stdio;
        self
    }

    /// Keeps from it every variable of the caller's whose value is one that `secret` knows.
    pub(super) fn withhold(mut self, secret: impl Fn(&[u8]) -> bool) -> Self {
        let found = std::env::vars_os().filter(|(_, value)| secret(value.as_encoded_bytes())).map(|(name, _)| name);
        self.withheld.extend(found);
        self
    }

    /// Says whether it keeps capabilities that would reach past its sandbox, were it not for
    /// [a user namespace](super::SandboxOptions::user_namespace) of its own.
    pub fn needs_user_namespace(&self) -> bool {
        !self.capabilities.reaching_out().is_empty()
    }

    /// Refuses capabilities that would reach past a sandbox without a user namespace.
    pub(super) fn must_not_reach_out(&self) -> Result<()> {
        let beyond = self.capabilities.reaching_out();
        if beyond.is_empty() {
            return Ok(());
        }
        let what =
            format!("can't keep {beyond} in a sandbox without a user namespace: that would hold on the host as well");
        Err(Error::new(ErrorKind::Policy, what).hint("prepare the sandbox with SandboxOptions::user_namespace"))
    }

    /// Whether the kernel alone can't be trusted to end it in the right order; see [`super::running`].
    pub(super) fn needs_guard(&self) -> bool {
        self.share_pid
            || self.seccomp != SeccompMode::Default
            || matches!(self.capabilities, Capabilities::Keep(_) | Capabilities::All)
    }

    /// Joins everything for the kernel floor.
    ///
    /// # Errors
    ///
    /// As [`Landlock::new`].
    pub(super) fn into_spec(
        self,
        environment: &Environment,
        user_namespace: Option<Userns>,
    ) -> Result<(ChildSpec, Enforcement)> {
        // `=a=b` is a variable that no shell can make and no program looks for, and that execve(2) would pass on all the same.
        let possible = |name: &OsString| !name.is_empty() && !name.as_encoded_bytes().contains(&b'=');
        let mut env: BTreeMap<OsString, OsString> = std::env::vars_os().filter(|(name, _)| possible(name)).collect();
        for name in &self.withheld {
            env.remove(name);
        }
        if let Some(account) = &self.user {
            // As sudo(8) does: a program that finds root's HOME can't write its own files.
            let text = |path: &Option<std::path::PathBuf>| path.clone().map(OsString::from);
            let own = [
                ("HOME", text(&account.home)),
                ("SHELL", text(&account.shell)),
                ("USER", account.name.clone()),
                ("LOGNAME", account.name.clone()),
            ];
            env.extend(own.into_iter().filter_map(|(name, value)| Some((OsString::from(name), value?))));
        }
        // They say what was asked of ringfence, an upstream proxy's password among it. None of that is for the command.
        for name in Variables::names() {
            env.remove(OsStr::new(name));
        }
        for name in &environment.remove {
            env.remove(OsStr::new(name));
        }
        for (name, value) in &environment.set {
            env.insert(name.into(), value.into());
        }
        env.extend(self.env);
        let mut spec = ChildSpec::new(self.program);
        spec.args = self.args;
        spec.env = env.into_iter().collect();
        spec.user = self.user.map(|account| account.user);
        spec.capabilities = self.capabilities;
        spec.pid_namespace = !self.share_pid;
        spec.user_namespace = user_namespace;
        spec.seccomp = self.seccomp;
        spec.stdio = self.stdio;
        let Some(mut files) = self.files else { return Ok((spec, Enforcement::Off)) };
        let path = spec.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
        // Whoever names a program means it to be executed, wherever it is.
        files.rules.extend(own_file(&spec.program, path).map(|path| FileRule {
            path,
            access: FileAccess::Read,
            origin: Origin::Default,
        }));
        let landlock = Landlock::new(&files)?;
        spec.landlock = landlock.ruleset;
        Ok((spec, landlock.enforcement))
    }
}

/// The file that a program's name means, as `execvp(3)` looks for it.
fn own_file(program: &OsStr, path: Option<OsString>) -> Option<PathBuf> {
    if program.as_encoded_bytes().contains(&b'/') {
        return Some(PathBuf::from(program));
    }
    std::env::split_paths(&path?).map(|directory| directory.join(program)).find(|file| Path::is_file(file))
}
