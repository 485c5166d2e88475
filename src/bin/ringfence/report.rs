//! What a person is told at the end of `ringfence run`: who was refused, and what to type so that it is not.

use std::fmt::Write;

use ringfence::audit::{Denial, Summary};

/// How many destinations are told of, those first tried first.
const SHOWN: usize = 12;

/// How many ancestors of a program are named.
const ANCESTORS: usize = 3;

/// The report as text for a terminal or a log; nothing when nothing was refused.
pub fn report(summary: &Summary, colour: bool) -> String {
    let mut text = String::new();
    if summary.tampered > 0 {
        // Writing to a string can't fail.
        let _ = writeln!(text, "ringfence: somebody else changed the rules of the fence {}", times(summary.tampered));
    }
    if summary.refused == 0 {
        return text;
    }
    let (bold, off) = if colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    let (times, what) = (times(summary.refused), destinations(summary));
    let refused = if summary.audit { "would have refused" } else { "refused" };
    let _ = writeln!(text, "ringfence: {refused} {times}{what}");
    for denial in summary.denials.iter().take(SHOWN) {
        let _ = write!(text, "  {bold}{}{off}", destination(denial));
        if let Some(program) = program(denial) {
            let _ = write!(text, " by {program}");
        }
        let _ = writeln!(text, ", {}", self::times(denial.count));
        if let Some(hint) = &denial.hint {
            let _ = writeln!(text, "    {}", plain(hint));
        }
        if let Some(flag) = &denial.flag {
            let allow = if summary.audit { "to allow it" } else { "to let it out" };
            let _ = writeln!(text, "    {allow}: {bold}{}{off}", plain(flag));
        }
    }
    let hidden: u64 = summary.denials.iter().skip(SHOWN).map(|denial| denial.count).sum::<u64>() + summary.others;
    if hidden > 0 {
        let _ = writeln!(text, "  and {hidden} more of other destinations or programs (--events FILE tells of each)");
    }
    if summary.lost > 0 {
        let _ = writeln!(text, "  and {} that came too fast to be told apart", summary.lost);
    }
    text
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        more => format!("{more} times"),
    }
}

fn destinations(summary: &Summary) -> String {
    match summary.denials.len() {
        0 | 1 => ":".to_owned(),
        some => format!(", {some} destinations or programs:"),
    }
}

fn destination(denial: &Denial) -> String {
    let host = match (&denial.host, denial.dst) {
        (Some(host), _) => plain(host),
        (None, Some(dst)) if dst.is_ipv6() && denial.dport.is_some() => format!("[{dst}]"),
        (None, Some(dst)) => dst.to_string(),
        (None, None) => "somewhere".to_owned(),
    };
    let port = denial.dport.map_or_else(String::new, |port| format!(":{port}"));
    let how = match (denial.denial_stage, denial.proto.as_deref()) {
        ("connect", _) => "by the proxy",
        ("dns", _) => "name",
        (_, Some(proto)) => proto,
        (_, None) => "packet",
    };
    format!("{host}{port} ({how})")
}

/// `curl (bash, make)`: the program, and whom it descends from.
fn program(denial: &Denial) -> Option<String> {
    let name = denial.exe.as_deref().or(denial.comm.as_deref())?;
    let mut text = plain(name);
    let ancestors = match denial.ancestors.as_slice() {
        // Our own first process, which all others descend from.
        [programs @ .., first] if first.comm == "ringfence-init" => programs,
        programs => programs,
    };
    let ancestors: Vec<String> = ancestors.iter().take(ANCESTORS).map(|ancestor| plain(&ancestor.comm)).collect();
    if !ancestors.is_empty() {
        let _ = write!(text, " (under {})", ancestors.join(", "));
    }
    Some(text)
}

/// A program chooses its name and may choose one that moves a cursor.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        // Of the printable ones, `escape_debug` escapes these three alone.
        if matches!(character, '\'' | '"' | '\\') {
            plain.push(character);
        } else {
            plain.extend(character.escape_debug());
        }
    }
    plain
}
