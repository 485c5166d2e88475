//! What was wrong with the arguments, as an error of ours: one line that names the value, and what to do as a second.

use clap::error::{ContextKind, ContextValue, ErrorKind as ClapErrorKind};
use ringfence::{Error, ErrorKind};

/// Words the argument parser's error.
pub fn explain(error: &clap::Error) -> Error {
    let found = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(all)) => all.first().cloned(),
        _ => None,
    };
    let list = |kind| match error.get(kind) {
        Some(ContextValue::Strings(all)) => all.join(", "),
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    // `--flag <VALUE>` as the parser names it, without the value's placeholder.
    let flag = found(ContextKind::InvalidArg).unwrap_or_default();
    let flag = flag.split_once([' ', '=']).map_or(flag.as_str(), |(flag, _)| flag).trim_end_matches("...");
    let near = |kind| found(kind).map(|near| format!("did you mean `{near}`?"));
    let (what, advice) = match error.kind() {
        ClapErrorKind::MissingRequiredArgument if flag.starts_with('-') => {
            (format!("{flag} is missing"), Some(HELP.to_owned()))
        }
        ClapErrorKind::MissingRequiredArgument => (
            "there is no command".to_owned(),
            Some("write it behind `--`: ringfence run --allow example.com -- CMD".to_owned()),
        ),
        ClapErrorKind::UnknownArgument if flag.starts_with('-') => {
            (format!("`{flag}` is no flag here"), near(ContextKind::SuggestedArg).or_else(|| Some(HELP.to_owned())))
        }
        ClapErrorKind::UnknownArgument => (
            format!("`{flag}` is neither a flag nor a flag's value"),
            Some("a command is written behind `--`, and so are its arguments".to_owned()),
        ),
        ClapErrorKind::InvalidSubcommand => (
            format!("`{}` is no command of ringfence", found(ContextKind::InvalidSubcommand).unwrap_or_default()),
            near(ContextKind::SuggestedSubcommand).or_else(|| Some("try `ringfence --help`".to_owned())),
        ),
        ClapErrorKind::ArgumentConflict => {
            let prior = list(ContextKind::PriorArg);
            let prior = prior.split_once(' ').map_or(prior.as_str(), |(prior, _)| prior);
            let prior = prior.trim_end_matches("...");
            let what = match prior == flag {
                true => format!("{flag}: it may be given once, and is given again"),
                false => format!("{flag}: not possible beside {prior}"),
            };
            (what, None)
        }
        ClapErrorKind::InvalidValue if found(ContextKind::InvalidValue).is_none_or(|value| value.is_empty()) => {
            (format!("{flag}: the value is missing"), Some(HELP.to_owned()))
        }
        ClapErrorKind::InvalidValue => {
            let (value, valid) = (found(ContextKind::InvalidValue).unwrap_or_default(), list(ContextKind::ValidValue));
            (format!("{flag}: `{value}` is none of {valid}"), near(ContextKind::SuggestedValue))
        }
        ClapErrorKind::InvalidUtf8 => {
            // The parser does not say which. Behind `--` is the command's own business, in whatever bytes.
            let culprit =
                std::env::args_os().take_while(|argument| argument != "--").find(|one| one.to_str().is_none());
            (
                format!(
                    "argument `{}` is not UTF-8 text",
                    culprit.unwrap_or_default().as_encoded_bytes().escape_ascii()
                ),
                None,
            )
        }
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            (first.strip_prefix("error: ").unwrap_or(first).to_owned(), Some(HELP.to_owned()))
        }
    };
    let error = Error::new(ErrorKind::Policy, what);
    match advice {
        Some(advice) => error.hint(advice),
        None => error,
    }
}

const HELP: &str = "--help lists the flags and what they take";
