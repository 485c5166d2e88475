//! What an audit has learned: the policy that would have allowed what was used.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;

use super::hint::Entry;
use super::{Denial, Summary};
use crate::policy::{Endpoint, Key, Origin, Policy, Sourced, Transport};

/// How many programs are named beside an entry.
const PROGRAMS: usize = 3;

/// Writes the policy file that would have allowed what was used, and what the policy allows already: names instead of addresses where the resolver
/// handed them out, each new entry with a remark on who used it and how often.
///
/// It holds no audit any more, and leaves out the credentials of a proxy. What no policy can allow stands in it as remarks, and so do names that were
/// looked up and led to no attempt.
pub fn learned(policy: &Policy, summary: &Summary) -> String {
    let mut policy = policy.clone();
    policy.audit = Sourced::new(false, Origin::Default);
    // Both may be long, the policy and what was refused.
    let allowed: HashSet<String> = policy.allow.iter().map(|allowed| allowed.value.to_string()).collect();
    let endpoint = |to: &Endpoint| (to.transport, to.to_string());
    let direct: HashSet<(Transport, String)> = policy.direct.iter().map(|direct| endpoint(&direct.value)).collect();
    let known = |entry: &Entry, transport| match entry.key {
        Key::Allow => allowed.contains(&entry.value),
        _ => direct.contains(&(transport, entry.value.clone())),
    };
    let connected: HashSet<Option<&str>> = summary
        .denials
        .iter()
        .filter(|denial| denial.denial_stage != "dns")
        .map(|denial| denial.host.as_deref())
        .collect();
    let mut new: BTreeMap<&str, Vec<(String, Vec<&Denial>)>> = BTreeMap::new();
    let mut remarks = Vec::new();
    for denial in &summary.denials {
        let transport = if denial.proto.as_deref() == Some("udp") { Transport::Udp } else { Transport::Tcp };
        match &denial.entry {
            // Whoever connects afterwards is told of for that, and its entry has the name in it.
            _ if denial.denial_stage == "dns" => {
                if !connected.contains(&denial.host.as_deref()) {
                    remarks.push(format!(
                        "looked up, and not connected to: {}{}",
                        destination(denial),
                        used(&[denial])
                    ));
                }
            }
            Some(entry) if known(entry, transport) => {}
            Some(entry) => {
                let of_key = new.entry(entry.key.name()).or_default();
                match of_key.iter_mut().find(|(value, _)| *value == entry.value) {
                    Some((_, denials)) => denials.push(denial),
                    None => of_key.push((entry.value.clone(), vec![denial])),
                }
            }
            None => {
                let proto = denial.proto.as_deref().unwrap_or("a packet");
                remarks.push(format!("no policy allows {proto} to {}{}", destination(denial), used(&[denial])));
            }
        }
    }
    if summary.others + summary.lost > 0 {
        let more = summary.others + summary.lost;
        remarks.push(format!("not complete: {more} attempts more could not be told apart"));
    }

    let mut out =
        String::from("# What an audit has learned. Read it before you trust it: whatever the program did is in it.\n");
    for remark in remarks {
        // Writing to a String can't fail; so below.
        let _ = writeln!(out, "# {}", plain(&remark));
    }
    // A list is written by the policy up to its end, and goes on from there.
    for line in policy.to_toml().lines() {
        if line == "]" {
            continue_list(&mut out, &mut new);
        } else if line.starts_with("[[") {
            // What followed would be the table's.
            write_lists(&mut out, &mut new);
        }
        let _ = writeln!(out, "{line}");
    }
    write_lists(&mut out, &mut new);
    out
}

fn write_lists(out: &mut String, new: &mut BTreeMap<&str, Vec<(String, Vec<&Denial>)>>) {
    for (key, entries) in std::mem::take(new) {
        let _ = writeln!(out, "{key} = [");
        write_entries(out, &entries);
        out.push_str("]\n");
    }
}

/// Adds to the list that was begun last what is new in it.
fn continue_list(out: &mut String, new: &mut BTreeMap<&str, Vec<(String, Vec<&Denial>)>>) {
    let begun = out.lines().rev().find_map(|line| line.strip_suffix(" = ["));
    if let Some(entries) = begun.map(str::to_owned).and_then(|key| new.remove(key.as_str())) {
        write_entries(out, &entries);
    }
}

fn write_entries(out: &mut String, entries: &[(String, Vec<&Denial>)]) {
    for (value, denials) in entries {
        // As JSON escapes it, so does TOML.
        let value = serde_json::Value::from(value.as_str());
        let _ = writeln!(out, "    {value},{}", used(denials).replacen(": ", "  # ", 1));
    }
}

fn destination(denial: &Denial) -> String {
    let host =
        denial.host.clone().or_else(|| denial.dst.map(|dst| dst.to_string())).unwrap_or_else(|| "somewhere".into());
    match denial.dport {
        Some(port) => format!("{host} port {port}"),
        None => host,
    }
}

/// `: 3 times, by curl, git`.
fn used(denials: &[&Denial]) -> String {
    let count: u64 = denials.iter().map(|denial| denial.count).sum();
    let mut text = match count {
        1 => ": once".to_owned(),
        more => format!(": {more} times"),
    };
    let mut programs: Vec<&str> =
        denials.iter().filter_map(|denial| denial.exe.as_deref().or(denial.comm.as_deref())).collect();
    programs.dedup();
    for (place, program) in programs.iter().take(PROGRAMS).enumerate() {
        text.push_str(if place == 0 { ", by " } else { ", " });
        text.push_str(&plain(program));
    }
    text
}

/// A program chooses its name, and must not end a remark with it, nor have it read otherwise than it stands there: what has no shape of its own,
/// marks that turn the direction of text among it, is escaped.
fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|character| match character {
            // `escape_debug` escapes these of the printable ones, and no others.
            '\'' | '"' | '\\' => vec![character],
            other => other.escape_debug().collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::audit::hint::{Advice, entry};
    use crate::audit::{Attempt, Identity, Process, Report};
    use crate::policy::{Layer, Settings};

    fn attempt(
        stage: &'static str,
        proto: &str,
        host: Option<&str>,
        dst: &str,
        dport: Option<u16>,
        exe: &str,
    ) -> Attempt {
        let mut attempt = Attempt::at(UNIX_EPOCH + Duration::from_secs(1));
        attempt.denial_stage = Some(stage);
        attempt.proto = Some(proto.to_owned());
        attempt.host = host.map(str::to_owned);
        attempt.dst = dst.parse().ok();
        attempt.dport = dport;
        attempt.rule = Some(format!("audit-{proto}"));
        let process = Process { comm: "x".to_owned(), exe: Some(exe.to_owned()), ..Process::default() };
        attempt.identity = Some(Identity::Exact(process));
        attempt
    }

    fn report(attempts: &[Attempt]) -> Summary {
        let mut report = Report::new("job".into(), true);
        for attempt in attempts {
            let allow = attempt.host.as_ref().map(|host| Entry { key: Key::Allow, value: format!("{host}:443") });
            let entry = if attempt.denial_stage == Some("connect") { allow } else { entry(attempt) };
            report.add(attempt, &Advice::new("", entry));
        }
        report.summary(UNIX_EPOCH, &[])
    }

    #[test]
    fn what_was_used_is_what_is_learned() {
        let policy = Policy::builder().direct("db.example.com:5432").unwrap().audit(true).unwrap().build().unwrap();
        let summary = report(&[
            attempt("connect", "tcp", Some("api.example.com"), "-", Some(443), "/usr/bin/curl"),
            attempt("bypass", "tcp", None, "203.0.113.9", Some(22), "/usr/bin/ssh"),
            attempt("bypass", "tcp", None, "203.0.113.9", Some(22), "/usr/bin/ssh"),
            attempt("bypass", "tcp", None, "203.0.113.9", Some(22), "/evil\n\"]\u{202e}\u{2028}"),
            attempt("dns", "dns", Some("a.example.com"), "-", None, "/x"),
            attempt("bypass", "udp", Some("a.example.com"), "203.0.113.7", Some(123), "/usr/sbin/ntpd"),
            attempt("dns", "dns", Some("only.example.com"), "-", None, "/x"),
            attempt("bypass", "icmp", None, "203.0.113.8", None, "/bin/ping"),
            attempt("bypass", "tcp", Some("db.example.com"), "203.0.113.5", Some(5432), "/usr/bin/psql"),
        ]);
        let text = learned(&policy, &summary);
        assert_eq!(
            text,
            r#"# What an audit has learned. Read it before you trust it: whatever the program did is in it.
# looked up, and not connected to: only.example.com: once, by /x
# no policy allows icmp to 203.0.113.8: once, by /bin/ping
direct = [
    "db.example.com:5432",
    "203.0.113.9:22",  # 3 times, by /usr/bin/ssh, /evil\n"]\u{202e}\u{2028}
]
allow = [
    "api.example.com:443",  # once, by /usr/bin/curl
]
direct-udp = [
    "a.example.com:123",  # once, by /usr/sbin/ntpd
]
"#
        );
        let layer = Layer::from_toml(text.as_bytes(), Path::new("learned.toml")).unwrap();
        let learned = Settings::from_layers([layer]).unwrap().policy;
        assert_eq!((learned.allow.len(), learned.direct.len(), learned.audit.value), (1, 3, false));
    }

    #[test]
    fn nothing_used_is_an_empty_policy() {
        let policy = Policy::builder().audit(true).unwrap().build().unwrap();
        let text = learned(&policy, &report(&[]));
        let layer = Layer::from_toml(text.as_bytes(), Path::new("learned.toml")).unwrap();
        assert_eq!(Settings::from_layers([layer]).unwrap().policy, Policy::default());
    }
}
