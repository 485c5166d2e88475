//! Adds up what was refused: who wanted where, how often, and what would allow it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::hint::{Advice, Entry};
use super::{Attempt, Denial, Identity, RuleCount, Summary};

/// How many denials are told apart. A program that tries every port of every address makes no more.
const ROWS: usize = 512;

/// How many rules are counted apart. Those of the fence are fewer; a program that may write rules of its own can log with any prefix.
const RULES: usize = 64;

/// How many ancestors a denial keeps.
const ANCESTORS: usize = 8;

/// Adds up attempts. Its memory is bounded, whatever a program does.
#[derive(Debug)]
pub struct Report {
    sandbox: Arc<str>,
    audit: bool,
    places: HashMap<Key, usize>,
    rows: Vec<Denial>,
    others: u64,
    told: u64,
    lost: u64,
    tampered: u64,
    /// Packets that came with an event, by rule.
    received: BTreeMap<String, u64>,
}

/// What makes two attempts the same. Addresses of one name are one destination.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    stage: &'static str,
    verdict: Option<&'static str>,
    destination: Destination,
    dport: Option<u16>,
    proto: Option<String>,
    program: Option<String>,
    /// Of a request to a host that takes some: the rule that would let it through.
    rule: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Destination {
    Name(String),
    Address(IpAddr),
    Unknown,
}

impl Report {
    /// Nothing yet; of a sandbox in which what would be refused passes, or not.
    pub fn new(sandbox: Arc<str>, audit: bool) -> Self {
        Self {
            sandbox,
            audit,
            places: HashMap::new(),
            rows: Vec::new(),
            others: 0,
            told: 0,
            lost: 0,
            tampered: 0,
            received: BTreeMap::new(),
        }
    }

    /// Notes that somebody else changed the rules.
    pub fn tamper(&mut self) {
        self.tampered += 1;
    }

    /// Adds an attempt, and what there is to do about it.
    pub fn add(&mut self, attempt: &Attempt, advice: &Advice) {
        self.told += 1;
        let stage = attempt.denial_stage.unwrap_or("bypass");
        if stage == "bypass"
            && let Some(rule) = &attempt.rule
        {
            let room = self.received.len() < RULES;
            match self.received.get_mut(rule) {
                Some(count) => *count += 1,
                None if room => drop(self.received.insert(rule.clone(), 1)),
                None => {}
            }
        }
        let process = attempt.identity.as_ref().and_then(Identity::process);
        let key = Key {
            stage,
            verdict: attempt.verdict,
            destination: match (&attempt.host, attempt.dst) {
                (Some(host), _) => Destination::Name(host.clone()),
                (None, Some(dst)) => Destination::Address(dst),
                (None, None) => Destination::Unknown,
            },
            dport: attempt.dport,
            proto: attempt.proto.clone(),
            program: process.and_then(|process| process.exe.clone().or_else(|| Some(process.comm.clone()))),
            rule: advice.entry.as_ref().filter(|_| stage == "request").map(|entry| entry.value.clone()),
        };
        if let Some(row) = self.places.get(&key).and_then(|place| self.rows.get_mut(*place)) {
            row.count += 1;
            row.last = row.last.max(attempt.time);
            return;
        }
        if self.rows.len() == ROWS {
            self.others += 1;
            return;
        }
        self.places.insert(key, self.rows.len());
        self.rows.push(Denial {
            denial_stage: stage,
            verdict: attempt.verdict,
            dst: attempt.dst,
            host: attempt.host.clone(),
            dport: attempt.dport,
            proto: attempt.proto.clone(),
            exe: process.and_then(|process| process.exe.clone()),
            comm: process.map(|process| process.comm.clone()),
            first: attempt.time,
            last: attempt.time,
            count: 1,
            ancestors: process
                .map_or_else(Vec::new, |process| process.ancestors.iter().take(ANCESTORS).cloned().collect()),
            hint: advice.text.clone(),
            flag: advice.entry.as_ref().map(Entry::flag),
            policy: advice.entry.as_ref().map(Entry::policy),
            entry: advice.entry.clone(),
        });
    }

    /// Adds refusals that nothing else is known of.
    pub fn lose(&mut self, count: u64) {
        self.lost += count;
    }

    /// How many refusals there were, those included that were lost.
    pub fn refused(&self) -> u64 {
        self.told + self.lost
    }

    /// How many packets came with an event by that rule.
    pub fn received(&self, rule: &str) -> u64 {
        self.received.get(rule).copied().unwrap_or_default()
    }

    /// Compares what was received with what the kernel counted by rule: how many were lost that nobody has told of yet.
    ///
    /// A rule that received more than was counted has gone on since.
    pub fn unaccounted(&self, counted: &[(String, u64)]) -> u64 {
        let missing: u64 = counted.iter().map(|(rule, count)| count.saturating_sub(self.received(rule))).sum();
        missing.saturating_sub(self.lost)
    }

    /// Everything so far. `counted` is what the kernel counted by rule, where it was asked.
    pub fn summary(&self, time: SystemTime, counted: &[(String, u64)]) -> Summary {
        let rule = |(rule, counted): &(String, u64)| {
            let received = self.received(rule);
            RuleCount { rule: rule.clone(), counted: *counted, received, lost: counted.saturating_sub(received) }
        };
        Summary {
            time,
            sandbox: self.sandbox.clone(),
            audit: self.audit,
            refused: self.refused(),
            lost: self.lost,
            tampered: self.tampered,
            rules: counted.iter().filter(|(_, counted)| *counted > 0).map(rule).collect(),
            denials: self.rows.clone(),
            others: self.others,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::audit::Process;

    fn attempt(second: u64, dst: &str, dport: u16) -> Attempt {
        let mut attempt = Attempt::at(UNIX_EPOCH + Duration::from_secs(second));
        attempt.proto = Some("tcp".to_owned());
        attempt.dst = Some(dst.parse().unwrap());
        attempt.dport = Some(dport);
        attempt.rule = Some("bypass-tcp".to_owned());
        attempt.denial_stage = Some("bypass");
        attempt
    }

    fn by(exe: &str, mut attempt: Attempt) -> Attempt {
        let process = Process { comm: "x".to_owned(), exe: Some(exe.to_owned()), ..Process::default() };
        attempt.identity = Some(Identity::Exact(process));
        attempt
    }

    #[test]
    fn the_same_is_told_once() {
        let mut report = Report::new("job".into(), false);
        let advice = Advice::default();
        report.add(&by("/bin/a", attempt(3, "203.0.113.9", 1)), &advice);
        report.add(&by("/bin/a", attempt(1, "203.0.113.9", 1)), &advice);
        report.add(&by("/bin/a", attempt(9, "203.0.113.9", 1)), &advice);
        report.add(&by("/bin/b", attempt(2, "203.0.113.9", 1)), &advice);
        report.add(&attempt(2, "203.0.113.9", 2), &advice);
        // Addresses of one name are one destination.
        for dst in ["203.0.113.1", "203.0.113.2"] {
            let mut named = attempt(2, dst, 1);
            named.host = Some("a.example".to_owned());
            report.add(&named, &advice);
        }
        let summary = report.summary(UNIX_EPOCH, &[]);
        let counts: Vec<_> = summary.denials.iter().map(|denial| denial.count).collect();
        assert_eq!((counts.as_slice(), summary.refused), ([3, 1, 1, 2].as_slice(), 7));
        let first = &summary.denials[0];
        assert_eq!(
            (first.first, first.last),
            (UNIX_EPOCH + Duration::from_secs(3), UNIX_EPOCH + Duration::from_secs(9))
        );
    }

    #[test]
    fn requests_that_different_rules_would_allow_are_told_apart() {
        let mut report = Report::new("job".into(), true);
        for (stage, path) in
            [("request", "/a"), ("request", "/b"), ("request", "/a"), ("connect", "/a"), ("connect", "/b")]
        {
            let mut asked = attempt(1, "203.0.113.9", 443);
            asked.denial_stage = Some(stage);
            let value = format!("GET https://203.0.113.9:443{path}");
            let entry = Some(Entry { key: crate::policy::Key::Allow, value });
            report.add(&asked, &Advice::new("", entry));
        }
        let summary = report.summary(UNIX_EPOCH, &[]);
        let counts: Vec<_> = summary.denials.iter().map(|denial| denial.count).collect();
        assert_eq!(counts, [2, 1, 2]);
    }

    #[test]
    fn what_an_audit_let_pass_and_what_it_refused_are_told_apart() {
        let mut report = Report::new("job".into(), true);
        for verdict in ["accept", "drop", "accept"] {
            let mut sent = attempt(1, "203.0.113.9", 443);
            sent.verdict = Some(verdict);
            report.add(&sent, &Advice::default());
        }
        let summary = report.summary(UNIX_EPOCH, &[]);
        let told: Vec<_> = summary.denials.iter().map(|denial| (denial.verdict, denial.count)).collect();
        assert_eq!(told, [(Some("accept"), 2), (Some("drop"), 1)]);
    }

    #[test]
    fn what_was_lost_is_what_is_missing_and_was_not_told() {
        let mut report = Report::new("job".into(), false);
        for _ in 0..3 {
            report.add(&attempt(1, "203.0.113.9", 1), &Advice::default());
        }
        report.lose(4);
        let counted = [("bypass-tcp".to_owned(), 10), ("bypass-udp".to_owned(), 0)];
        assert_eq!(report.unaccounted(&counted), 3);
        report.lose(3);
        assert_eq!(report.unaccounted(&counted), 0);
        let summary = report.summary(UNIX_EPOCH, &counted);
        assert_eq!((summary.refused, summary.lost, summary.rules.len()), (10, 7, 1));
        let rule = &summary.rules[0];
        assert_eq!((rule.counted, rule.received, rule.lost), (10, 3, 7));
    }

    #[test]
    fn a_program_that_tries_everything_fills_no_memory() {
        let mut report = Report::new("job".into(), false);
        for port in 1..=u16::MAX {
            report.add(&attempt(1, "203.0.113.9", port), &Advice::default());
        }
        let summary = report.summary(UNIX_EPOCH, &[]);
        assert_eq!((summary.denials.len(), summary.others), (ROWS, u64::from(u16::MAX) - ROWS as u64));
        assert_eq!(summary.refused, u64::from(u16::MAX));
    }

    #[test]
    fn a_program_that_logs_with_rules_of_its_own_fills_no_memory() {
        let mut report = Report::new("job".into(), false);
        for number in 0..10_000 {
            let mut forged = attempt(1, "203.0.113.9", 1);
            forged.rule = Some(format!("forged-{number}"));
            report.add(&forged, &Advice::default());
        }
        assert_eq!(report.received.len(), RULES);
        assert_eq!(report.refused(), 10_000);
    }
}
