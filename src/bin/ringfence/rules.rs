//! `ringfence rules`: saves, restores and lists the whole nftables ruleset of a network namespace.

use std::io::{Read, Write};
use std::string::FromUtf8Error;

use ringfence::kernel::nftables::Socket;
use ringfence::nft::{JsonError, Ruleset};
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
    drop(text);
    if let Some(table) = ruleset.tables.iter().find(|table| table.flags.owner && !table.flags.persist) {
        let what = format!("table {} has the flag `owner`, and would vanish when ringfence ends", table.id);
        return Err(Error::new(ErrorKind::Policy, what).hint(
            "it belongs to the program that made it, which makes it again; take the table and what is in it out of the file",
        ));
    }
    socket.commit(&ruleset.replace())?;
    Ok(0)
}

const UNCHANGED: &str = "nothing was changed; a ruleset is what `ringfence rules save` prints";

fn no_text(error: &FromUtf8Error) -> Error {
    let read = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    let line = read.split(|byte| *byte == b'\n').count();
    let column = read.rsplit(|byte| *byte == b'\n').next().map_or(0, <[u8]>::len) + 1;
    Error::new(ErrorKind::Policy, format!("standard input:{line}:{column}: not UTF-8")).hint(UNCHANGED)
}

/// An error about the document: `standard input:LINE:COLUMN: PATH: …`.
fn unreadable(error: &JsonError) -> Error {
    let place = match (error.line, error.column) {
        (0, _) => "standard input".to_owned(),
        (line, column) => format!("standard input:{line}:{column}"),
    };
    let path = if error.path.is_empty() { String::new() } else { format!("`{}`: ", error.path.escape_debug()) };
    Error::new(ErrorKind::Policy, format!("{place}: {path}{}", error.problem)).hint(UNCHANGED)
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
