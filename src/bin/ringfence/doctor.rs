//! `ringfence doctor`: what is there of what `run` needs, on standard output.

use std::fmt::Write as _;
use std::io::Write as _;

use ringfence::Result;
use ringfence::doctor::{Check, Report, Status};
use ringfence::kernel::probe;

use crate::args::{DoctorArguments, DoctorFormat};
use crate::io_error;

/// Ends with 0 where a command can be fenced, else with 1.
pub fn doctor(arguments: DoctorArguments) -> Result<u8> {
    let report = probe::report();
    let shown = match arguments.format {
        DoctorFormat::Text => text(&report),
        DoctorFormat::Json => {
            let json = serde_json::to_string(&report);
            json.map_err(|error| io_error("can't write the report as JSON", error.into()))? + "\n"
        }
    };
    let status = if report.works() { 0 } else { 1 };
    match std::io::stdout().write_all(shown.as_bytes()) {
        // The reader has seen enough: `ringfence doctor | head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(status),
        Err(error) => Err(io_error("can't write to standard output", error)),
        Ok(()) => Ok(status),
    }
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    section(&mut out, "Needed by every `ringfence run`", report.checks.iter().filter(|check| check.feature.required));
    section(&mut out, "Needed by some of it", report.checks.iter().filter(|check| !check.feature.required));
    out.push_str("This machine\n");
    let width = report.facts.iter().map(|fact| fact.name.len()).max().unwrap_or(0);
    for fact in &report.facts {
        let _ = writeln!(out, "  {:width$}  {}", fact.name, fact.value);
    }
    foreign(&mut out, report);
    verdict(&mut out, report);
    out
}

fn section<'a>(out: &mut String, title: &str, checks: impl Iterator<Item = &'a Check>) {
    let _ = writeln!(out, "{title}");
    for Check { feature, status, detail, blocked_by } in checks {
        if *status == Status::Yes {
            let note = detail.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
            let _ = writeln!(out, "  {status:<7}  {}{note}", feature.name);
            continue;
        }
        if let Some(other) = blocked_by {
            let _ = writeln!(out, "  {status:<7}  {} (can't be tried without: {other})", feature.name);
            continue;
        }
        let _ = writeln!(out, "  {status:<7}  {}", feature.name);
        let found = detail.as_deref().unwrap_or_default();
        for (label, text) in [
            ("found", found),
            ("needed for", feature.needed_for),
            ("without it", feature.without),
            ("how to get it", feature.how),
        ] {
            let _ = writeln!(out, "           {label:<13}  {text}");
        }
    }
    out.push('\n');
}

fn foreign(out: &mut String, report: &Report) {
    match &report.foreign {
        None => out.push_str("\nOther tables on the host could not be read: what they drop is unknown.\n"),
        Some(chains) if chains.is_empty() => {
            out.push_str("\nNo other nf_tables chain on the host drops by policy.\n");
        }
        Some(chains) => {
            out.push_str("\nOther chains on the host that drop what their rules don't accept\n");
            for chain in chains {
                let _ = writeln!(
                    out,
                    "  {} {} {}: hook {}, priority {}, policy drop; may stop {}",
                    chain.family,
                    chain.table,
                    chain.chain,
                    format!("{:?}", chain.hook).to_lowercase(),
                    chain.priority.0,
                    chain.stops
                );
            }
        }
    }
    out.push_str("Single rules that drop, and anything of legacy iptables, are not seen.\n\n");
}

fn verdict(out: &mut String, report: &Report) {
    if !report.works() {
        let count = |status| report.checks.iter().filter(|c| c.feature.required && c.status == status).count();
        let _ = writeln!(
            out,
            "`ringfence run` does not work here: {} missing, {} could not be told.",
            count(Status::No),
            count(Status::Unknown)
        );
        return;
    }
    let lacking: Vec<&str> =
        report.checks.iter().filter(|check| check.status != Status::Yes).map(|check| check.feature.name).collect();
    if lacking.is_empty() {
        out.push_str("`ringfence run` works here.\n");
    } else {
        let _ = writeln!(out, "`ringfence run` works here, but not with everything: see {}.", lacking.join(", "));
    }
}
