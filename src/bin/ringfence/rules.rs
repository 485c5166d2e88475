//! `ringfence rules`: saves, restores and lists the whole nftables ruleset of a network namespace.

use std::io::{Read, Write};
use std::string::FromUtf8Error;

use ringfence::kernel::nftables::Socket;
use ringfence::nft::{JsonError, Object, Operation, Ruleset, Transaction};
use ringfence::{Error, ErrorKind, Result};

use crate::args::{Rules, RulesArguments};
use crate::{events, io_error};

pub fn rules(arguments: &RulesArguments) -> Result<u8> {
    let mut socket = match arguments.netns.as_deref() {
        Some(netns) => events::open(netns)?.run(Socket::open)??,
        None => Socket::open()?,
    };
    match arguments.what {
        Rules::Save => write(&socket.ruleset()?.to_json()),
        Rules::Restore => restore(&mut socket),
        Rules::List => list(&socket.ruleset()?),
    }
}

fn restore(socket: &mut Socket) -> Result<u8> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map_err(|error| io_error("can't read standard input", error))?;
    let text = String::from_utf8(bytes).map_err(|error| no_text(&error))?;
    let ruleset = Ruleset::from_json(&text).map_err(|error| unreadable(&error))?;
    let transaction = ruleset.replace();
    if let Some(owned) = transaction.operations().iter().position(vanishes) {
        let problem = "the table has the flag `owner`, and would vanish when ringfence ends";
        let what = at(&text, &transaction, owned, problem).unwrap_or_else(|| problem.to_owned());
        return Err(Error::new(ErrorKind::Policy, what).hint(
            "nothing was changed; it belongs to the program that made it, which makes it again: take the table and what is in it out of the file",
        ));
    }
    socket.commit(&transaction).map_err(|error| refused(error, &text, &transaction))?;
    Ok(0)
}

/// Whether it makes a table that is gone with the socket.
fn vanishes(operation: &Operation) -> bool {
    matches!(&operation.object, Object::Table(table) if table.flags.owner && !table.flags.persist)
}

/// An error about the commit, with the place of what it was refused for.
fn refused(error: Error, text: &str, transaction: &Transaction) -> Error {
    // Of what went wrong on the way, the answer included, nobody knows.
    if error.operation().is_none() && matches!(error.kind(), ErrorKind::Io | ErrorKind::Decode | ErrorKind::Kernel) {
        return error;
    }
    let hint = match error.advice() {
        Some(advice) => format!("nothing was changed; {advice}"),
        None => "nothing was changed".to_owned(),
    };
    let place = error.operation().and_then(|operation| at(text, transaction, operation, &error.chain()));
    match place {
        Some(what) => Error::new(error.kind(), what).hint(hint),
        None => error.hint(hint),
    }
}

/// What is wrong with an operation, in front of it the place of what it makes.
fn at(text: &str, transaction: &Transaction, operation: usize, problem: &str) -> Option<String> {
    JsonError::of_operation(text, transaction, operation, problem).map(|error| shown(&error))
}

const UNCHANGED: &str = "nothing was changed; a ruleset is what `ringfence rules save` prints";

fn no_text(error: &FromUtf8Error) -> Error {
    let read = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    let line = read.split(|byte| *byte == b'\n').count();
    let column = read.rsplit(|byte| *byte == b'\n').next().map_or(0, <[u8]>::len) + 1;
    Error::new(ErrorKind::Policy, format!("standard input:{line}:{column}: not UTF-8")).hint(UNCHANGED)
}

/// An error about the document.
fn unreadable(error: &JsonError) -> Error {
    Error::new(ErrorKind::Policy, shown(error)).hint(UNCHANGED)
}

/// `standard input:LINE:COLUMN: PATH: …`
fn shown(error: &JsonError) -> String {
    let path = if error.path.is_empty() { String::new() } else { format!("`{}`: ", error.path.escape_debug()) };
    format!("standard input:{}:{}: {path}{}", error.line, error.column, error.problem)
}

fn list(ruleset: &Ruleset) -> Result<u8> {
    let syntax = ruleset.syntax_at(ringfence::kernel::clock::ahead());
    let status = write(syntax.as_str())?;
    match syntax.unshown() {
        [] => Ok(status),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
            let what = format!("nft(8) syntax cannot say everything that is there: {first}{more}");
            let hint = "what is missing stands in the text as a comment; `ringfence rules save` keeps all of it";
            Err(Error::new(ErrorKind::Unsupported, what).hint(hint))
        }
    }
}

fn write(text: &str) -> Result<u8> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // The reader has seen enough: `ringfence rules list | head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(0),
        Err(error) => Err(io_error("can't write to standard output", error)),
        Ok(()) => Ok(0),
    }
}
