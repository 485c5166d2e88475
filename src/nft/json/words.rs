//! What serde and serde_json say about a document, in words of the document: they speak of types of this crate.

use std::borrow::Cow;

/// The most characters of a wrong value that an error quotes.
const QUOTED: usize = 64;

/// The start of a text that may be of any length.
pub(in crate::nft) fn excerpt(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// A value that can't stand where it stands.
pub(super) fn of_data(problem: &str) -> String {
    let (found, expected) = problem.rsplit_once(", expected ").unwrap_or((problem, ""));
    for (says, means) in [
        ("invalid type: ", ""),
        ("invalid value: ", ""),
        ("invalid length ", "an array of length "),
        ("unknown variant ", ""),
        ("unknown field ", "key "),
    ] {
        if let Some(found) = found.strip_prefix(says) {
            return format!("found {means}{}, expected {}", value(found), kind(expected));
        }
    }
    if let Some(key) = problem.strip_prefix("missing field ") {
        return format!("found no key {key}, expected it here");
    }
    if let Some(key) = problem.strip_prefix("duplicate field ") {
        return format!("found key {key} twice, expected it once");
    }
    problem.to_owned()
}

/// What was found. Its quotation marks are the first and the last.
fn value(found: &str) -> Cow<'_, str> {
    match found {
        "map" => return Cow::Borrowed("an object"),
        "sequence" => return Cow::Borrowed("an array"),
        "unit variant" => return Cow::Borrowed("a word alone"),
        _ => {}
    }
    let Some(start) = found.find(['`', '"']) else { return excerpt(found) };
    let (head, quoted) = found.split_at(start);
    let mark = &quoted[..1];
    match quoted[1..].strip_suffix(mark) {
        Some(inner) => Cow::Owned(format!("{head}{mark}{}{mark}", excerpt(inner))),
        None => excerpt(found),
    }
}

/// What was expected.
fn kind(expected: &str) -> Cow<'_, str> {
    let number = |least: i128, most: i128| Cow::Owned(format!("a whole number from {least} to {most}"));
    match expected {
        "u8" => number(0, u8::MAX.into()),
        "u16" => number(0, u16::MAX.into()),
        "u32" => number(0, u32::MAX.into()),
        "u64" => number(0, u64::MAX.into()),
        "i32" => number(i32::MIN.into(), i32::MAX.into()),
        "unit" => Cow::Borrowed("null"),
        "a sequence" => Cow::Borrowed("an array"),
        "newtype variant" | "struct variant" | "tuple variant" => Cow::Borrowed("an object with that key"),
        _ if expected.starts_with("struct ") => Cow::Borrowed("an object"),
        _ => match expected.strip_prefix("a tuple of size ") {
            Some(size) => Cow::Owned(format!("an array of {size} values")),
            None => Cow::Borrowed(expected),
        },
    }
}

/// What is no JSON, or none that can be read here: serde_json's words, where it stopped, and where the value begins that it was reading.
pub(super) fn of_syntax(
    text: &str,
    problem: &str,
    at: (usize, usize),
    begin: Option<(usize, usize)>,
) -> Option<String> {
    let at = offset(text, at)?;
    let found = |from: usize| text.get(from..).map(token).filter(|token| !token.is_empty());
    let here = found(at)?;
    Some(match problem {
        "trailing characters" if begin.is_some() => format!("found `{here}`, expected `]`"),
        "trailing characters" => format!("found `{here}`, expected nothing more"),
        "expected value" => match begin.and_then(|begin| offset(text, begin)) {
            // A value that is one of several kinds, of which the key says which.
            Some(begin) if begin < at && text[begin..].starts_with('{') => {
                if text.get(begin + 1..at).is_some_and(|between| between.trim().is_empty()) {
                    format!("found `{here}`, expected a key")
                } else {
                    // It had read on behind the key's value.
                    let behind = at + text.get(at..)?.chars().next().map_or(0, char::len_utf8);
                    format!("found `{}`, expected `}}`", found(behind)?)
                }
            }
            _ if here.starts_with(|c: char| c == '[' || c == '-' || c.is_ascii_alphanumeric()) => {
                format!("found `{here}`, expected a word or an object")
            }
            _ => format!("found `{here}`, expected a value"),
        },
        "key must be a string" => format!("found `{here}`, expected a key"),
        "trailing comma" => format!("found `{here}` behind a comma, expected one more"),
        _ if problem.starts_with("expected ") => format!("found `{here}`, {problem}"),
        _ => return None,
    })
}

/// Where in the text the byte is that serde_json names by line and column.
fn offset(text: &str, (line, column): (usize, usize)) -> Option<usize> {
    let before: usize = text.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    Some(before + column.checked_sub(1)?)
}

/// The start of what stands there: a number or word, a string, a sign.
fn token(text: &str) -> Cow<'_, str> {
    let text = text.trim_start();
    let len = match text.chars().next() {
        None => 0,
        Some('"') => text[1..].find('"').map_or(text.len(), |end| end + 2),
        Some(c) if c == '-' || c.is_alphanumeric() => {
            text.find(|c: char| !(c.is_alphanumeric() || "+-._".contains(c))).unwrap_or(text.len())
        }
        Some(c) => c.len_utf8(),
    };
    excerpt(&text[..len])
}
