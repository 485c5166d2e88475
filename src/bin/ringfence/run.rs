//! `ringfence run`: fences a command and passes its exit status on.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use ringfence::kernel::child::{self, ExecError};
use ringfence::kernel::passwd::{Account, sudo_user};
use ringfence::plan::Files;
use ringfence::policy::{Capabilities, RunOptions};
use ringfence::{Command, Error, ErrorKind, Host, Result, Sandbox, SandboxOptions};

use crate::args::RunArguments;
use crate::{FAILED, io_error, settings};

pub fn run(arguments: RunArguments) -> Result<u8> {
    log(arguments.options.quiet, arguments.options.verbose);
    let settings = settings::settings(&arguments.policy, &arguments.options.files, Some(&arguments.options))?;
    let command = command(&arguments.command, &settings.run)?;
    let mut options = SandboxOptions {
        name: settings.run.name.clone(),
        user_namespace: command.needs_user_namespace(),
        ..SandboxOptions::default()
    };
    if let Some(own) =
        settings.run.env.iter().rev().find(|variable| variable.value.name.eq_ignore_ascii_case("NO_PROXY"))
    {
        options.no_proxy = Some(own.value.value.clone());
    }
    // Two workers: one sandbox's proxy, and room for a slow client beside a fast one.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| io_error("can't start the runtime", error))?;
    runtime.block_on(async {
        let host = Host::open()?;
        let sandbox = Sandbox::prepare_with(&host, settings.policy, options).await?;
        // From before the command is there until everything is undone, no signal that can be passed on ends this process.
        let mut signals = child::hold_signals()?;
        let mut running = sandbox.spawn(command).await?;
        signals.pass_to(running.child());
        let status = running.wait().await?;
        // The command's end is what the caller waits for, and says nothing of what could not be undone after it.
        if let Err(error) = running.close().await {
            crate::complain(&error);
        }
        drop(signals);
        Ok(status.code_for_shell())
    })
}

/// The status that an error of ours ends with: 126 and 127 for a command that can't be executed, as with env(1).
pub fn status_of(error: &Error) -> u8 {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(exec) = error.downcast_ref::<ExecError>() {
            return exec.code_for_shell();
        }
        cause = error.source();
    }
    FAILED
}

fn command(line: &[std::ffi::OsString], options: &RunOptions) -> Result<Command> {
    let Some((program, args)) = line.split_first() else {
        return Err(Error::new(ErrorKind::Policy, "there is no command").hint("write it behind `--`"));
    };
    if program.is_empty() {
        return Err(Error::new(ErrorKind::Policy, "the command is empty").hint("write a program's name behind `--`"));
    }
    let mut command = Command::new(program).args(args);
    // Who called sudo is meant to run it, unless somebody else was asked for.
    let user = options.user.as_ref().map(|user| user.value).or_else(sudo_user);
    if let Some(user) = user {
        command = command.user(Account::read(user)?);
    }
    command = command.capabilities(match &options.capabilities.value {
        Capabilities::Default => child::Capabilities::Default,
        Capabilities::None => child::Capabilities::None,
        Capabilities::Keep(kept) => child::Capabilities::Keep(kept.iter().copied().collect()),
    });
    if options.share_pid.value {
        command = command.share_pid();
    }
    // A directory that is gone can't be given to anybody.
    command = command.files(Files::new(options, std::env::current_dir().ok().as_deref()));
    for variable in &options.env {
        command = command.env(&variable.value.name, OsStr::from_bytes(variable.value.value.as_bytes()));
    }
    Ok(command)
}

/// Sends what the library tells to standard error: warnings, and with `-v` more.
fn log(quiet: bool, verbose: u8) {
    let level = match (quiet, verbose) {
        (true, _) => tracing_subscriber::filter::LevelFilter::ERROR,
        (false, 0) => tracing_subscriber::filter::LevelFilter::WARN,
        (false, 1) => tracing_subscriber::filter::LevelFilter::INFO,
        (false, _) => tracing_subscriber::filter::LevelFilter::DEBUG,
    };
    // Fails only if somebody was faster, and then that one is as good.
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .try_init();
}
