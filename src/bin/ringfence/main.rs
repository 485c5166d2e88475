//! `ringfence`: fences a command, shows what it would do, and says whether this machine can.
//!
//! Turns arguments into calls of the library and results into text. Nothing of ours is ever written to standard output
//! while a fenced command runs: that stream is its own.

mod args;
mod demo;
mod doctor;
mod events;
mod log;
mod metrics;
mod place;
mod plan;
mod policy;
mod report;
mod rules;
mod run;
mod settings;
mod stderr;
mod tell;
mod usage;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind as ClapErrorKind;
use ringfence::{Error, ErrorKind};

use args::{Arguments, Subcommand};

/// Exit status of our own failures, as with env(1) and `docker run`.
const FAILED: u8 = 125;

fn main() -> ExitCode {
    let _settled = stderr::Settled;
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return not_arguments(&error),
    };
    let result = match arguments.subcommand {
        Subcommand::Run(arguments) => run::run(*arguments),
        Subcommand::Plan(arguments) => plan::plan(*arguments),
        Subcommand::Policy(arguments) => policy::policy(arguments),
        Subcommand::Doctor(arguments) => doctor::doctor(arguments),
        Subcommand::Events(arguments) => events::events(&arguments),
        Subcommand::Rules(arguments) => rules::rules(&arguments),
        Subcommand::Demo => demo::demo(),
        Subcommand::Probe => demo::probe(),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            complain(&error);
            ExitCode::from(run::status_of(&error))
        }
    }
}

/// Shows help and version as asked for, and every other message of the argument parser as one line of ours.
fn not_arguments(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ClapErrorKind::DisplayHelp | ClapErrorKind::DisplayVersion => {
            // Nobody is there to be told when even that can't be written.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ClapErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(FAILED)
        }
        _ => {
            complain(&usage::explain(error));
            ExitCode::from(FAILED)
        }
    }
}

/// Writes the error as one line to standard error, and what to do about it as a second.
fn complain(error: &Error) {
    let (on, off) = if std::io::stderr().is_terminal() { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
    let mut text = format!("{on}ringfence:{off} {}\n", error.chain());
    if let Some(advice) = error.advice() {
        text += &format!("ringfence: {advice}\n");
    }
    stderr::say(text);
}

/// An error about something that is neither policy nor kernel.
fn io_error(what: impl Into<String>, source: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, what).because(source)
}
