//! Something that was refused, as an event, and an event as JSON.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::{Identity, Summary, rfc3339};
use crate::wire::nflog::Message;
use crate::wire::packet::Version;

/// Version of the events' shape, the first field of each.
pub const SCHEMA: u32 = 1;

/// Rules of a fence by their prefix, and what they do with what they log.
const RULES: [(&str, &str); 12] = [
    ("bypass-tcp", "reject"),
    ("bypass-udp", "reject"),
    ("bypass-icmp", "reject"),
    ("bypass-icmpv6", "reject"),
    ("bypass-other", "reject"),
    ("bypass-malformed", "drop"),
    ("bypass-forward", "drop"),
    // Of an audit, in which they pass.
    ("audit-tcp", "accept"),
    ("audit-udp", "accept"),
    ("audit-icmp", "accept"),
    ("audit-icmpv6", "accept"),
    ("audit-other", "accept"),
];

/// Something that happened, to be told as one JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A fence refused a packet, or would have: see [`Attempt::verdict`].
    Bypass(Box<Attempt>),
    /// The built-in proxy or resolver refused a destination or a name, or would have.
    Denied(Box<Attempt>),
    /// A rule that is not of a fence logged a packet.
    Packet(Box<Attempt>),
    /// Somebody else than ringfence changed the rules of the fence.
    Tampering(Box<Tampering>),
    /// Events were lost.
    Lost(Lost),
    /// Everything that was refused, in short. The last event of a sandbox.
    Summary(Box<Summary>),
}

/// What the rule of a fence with that prefix does with what it logs; `None` of a rule that is not of a fence.
pub(crate) fn verdict_of(prefix: &str) -> Option<&'static str> {
    RULES.iter().find(|(rule, _)| *rule == prefix).map(|(_, verdict)| *verdict)
}

impl Event {
    /// The event of a logged packet. `received` stands in where the kernel does not tell the time, which on the output hook it never does.
    pub fn of(message: &Message<'_>, received: SystemTime) -> Self {
        let prefix = message.prefix.as_deref().unwrap_or_default();
        let verdict = verdict_of(prefix);
        let packet = message.packet().and_then(Result::ok);
        let ports = packet.as_ref().and_then(|packet| packet.ports());
        let attempt = Attempt {
            verdict,
            family: packet.as_ref().map(|packet| match packet.version {
                Version::V4 => "ipv4",
                Version::V6 => "ipv6",
            }),
            proto: packet.as_ref().map(|packet| packet.protocol.to_string()),
            src: packet.as_ref().map(|packet| packet.source),
            sport: ports.map(|(source, _)| source),
            dst: packet.as_ref().map(|packet| packet.destination),
            dport: ports.map(|(_, destination)| destination),
            uid: message.uid,
            gid: message.gid,
            identity: verdict.map(|_| Identity::unknown("nobody looked for the process")),
            rule: (!prefix.is_empty()).then(|| prefix.to_owned()),
            denial_stage: verdict.map(|_| "bypass"),
            ..Attempt::at(message.timestamp.unwrap_or(received))
        };
        if verdict.is_some() { Self::Bypass(Box::new(attempt)) } else { Self::Packet(Box::new(attempt)) }
    }

    /// The event as one line of JSON, without the line's end.
    ///
    /// What others wrote (a foreign rule's text, a program's name) may be anything: control characters and direction marks are
    /// escaped, so that they reach no terminal.
    pub fn to_json(&self) -> String {
        line(self)
    }

    /// How many refusals it stands for: one that is told, or those that were lost.
    pub fn weight(&self) -> u64 {
        match self {
            Self::Bypass(_) | Self::Denied(_) => 1,
            Self::Lost(lost) => lost.count,
            Self::Packet(_) | Self::Tampering(_) | Self::Summary(_) => 0,
        }
    }
}

/// A value as one line of JSON.
pub(super) fn line(value: &impl Serialize) -> String {
    // Only a map with keys that are no text, or a writer, can fail.
    let json = serde_json::to_string(value).unwrap_or_default();
    // serde_json has escaped what lies below; nearly every line is done here.
    if json.bytes().all(|byte| byte < 0x7f) {
        return json;
    }
    let mut line = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            // Only strings have any. All of them lie below U+10000, so that one escape is enough.
            '\u{7f}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                line.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            plain => line.push(plain),
        }
    }
    line
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line<'a, T> {
            schema: u32,
            event: &'static str,
            #[serde(flatten)]
            told: &'a T,
        }
        fn told<S: Serializer, T: Serialize>(event: &'static str, told: &T, serializer: S) -> Result<S::Ok, S::Error> {
            Line { schema: SCHEMA, event, told }.serialize(serializer)
        }
        match self {
            Self::Bypass(attempt) => told("bypass", attempt, serializer),
            Self::Denied(attempt) => told("denied", attempt, serializer),
            Self::Packet(attempt) => told("packet", attempt, serializer),
            Self::Tampering(tampering) => told("tampering", tampering, serializer),
            Self::Lost(lost) => told("lost", lost, serializer),
            Self::Summary(summary) => told("summary", summary, serializer),
        }
    }
}

/// Events that were lost, of which nothing else is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// When that was seen.
    #[serde(serialize_with = "as_rfc3339")]
    pub time: SystemTime,
    /// The sandbox, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Arc<str>>,
    /// How many.
    pub count: u64,
}

/// A change of the rules of a fence by somebody else. What is not known is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Tampering {
    /// When it was heard of.
    #[serde(serialize_with = "as_rfc3339")]
    pub time: SystemTime,
    /// The sandbox's name, or the host's end of its wire where it has none.
    pub sandbox: Arc<str>,
    /// Which side of the fence: `inside` or `outside`.
    pub side: &'static str,
    /// What was done about it: `reported`, `mended`, or `ended`, the sandbox with it.
    pub action: &'static str,
    /// Why it ended, where it was to be mended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who did it, as the kernel tells: the first of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Tamperer>,
    /// What was done to the rules, the first few: `delete table inet ringfence`. Empty where changes came too fast to be read one by one.
    pub changes: Vec<String>,
    /// How many changes there were; 0 where that is not known.
    pub count: u64,
}

/// A process that changed rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Tamperer {
    /// Its number, as the machine's first PID namespace counts.
    pub pid: u32,
    /// What it calls itself.
    pub comm: String,
}

impl Tampering {
    /// A change of which only the side and what was done about it are known.
    pub fn at(time: SystemTime, sandbox: Arc<str>, side: &'static str, action: &'static str) -> Self {
        Self { time, sandbox, side, action, reason: None, process: None, changes: Vec::new(), count: 0 }
    }

    /// Adds a commit: who made it, and what it did.
    pub fn add(&mut self, by: Option<(u32, &str)>, changes: impl IntoIterator<Item = String>, more: u64) {
        /// How many changes are told one by one.
        const SHOWN: usize = 16;
        if self.process.is_none() {
            self.process = by.map(|(pid, comm)| Tamperer { pid, comm: comm.to_owned() });
        }
        for change in changes {
            if self.changes.len() < SHOWN {
                self.changes.push(change);
            }
            self.count += 1;
        }
        self.count += more;
    }
}

impl std::fmt::Display for Tampering {
    /// As one clause: who did what, on which side. What others wrote is escaped.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.process {
            Some(by) => write!(f, "`{}` (process {}) changed the rules {}", by.comm.escape_debug(), by.pid, self.side)?,
            None => write!(f, "somebody changed the rules {}", self.side)?,
        }
        match (self.changes.first(), self.count) {
            (Some(first), 1) => write!(f, ": {}", first.escape_debug()),
            (Some(first), count) => write!(f, ": {}, and {} more", first.escape_debug(), count - 1),
            (None, 0) => f.write_str(", too fast to be told what"),
            (None, count) => write!(f, " {count} times"),
        }
    }
}

/// A packet that somebody tried to send, or a destination that somebody asked for. What is not known is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Attempt {
    /// When.
    #[serde(serialize_with = "as_rfc3339")]
    pub time: SystemTime,
    /// The sandbox's name, or the host's end of its wire where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Arc<str>>,
    /// What became of it: `reject`, with an answer to its sender, or `drop`; `deny` by the proxy and the resolver; `accept` where an audit let it
    /// pass. Not known of foreign rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<&'static str>,
    /// `ipv4` or `ipv6`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<&'static str>,
    /// Name of the protocol, or its number as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<String>,
    /// Source address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src: Option<IpAddr>,
    /// Source port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// Destination address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst: Option<IpAddr>,
    /// Destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// The name that was asked for, or that the built-in resolver handed the destination address out for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What the resolver was asked for: `A`, `AAAA`, ….
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// User who opened the socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group of who opened the socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// How sure it is which process that was, and which. Not looked for where a foreign rule logged.
    #[serde(flatten)]
    pub identity: Option<Identity>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The rule's prefix; of the proxy and the resolver, their reason in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Where in its way it was refused: `bypass` by the fence; `connect` by the proxy, `request` for what rules say of requests, `credential` for a
    /// placeholder out of its place; `dns` by the resolver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denial_stage: Option<&'static str>,
}

impl Attempt {
    /// An attempt of which only the time is known.
    pub fn at(time: SystemTime) -> Self {
        Self {
            time,
            sandbox: None,
            verdict: None,
            family: None,
            proto: None,
            src: None,
            sport: None,
            dst: None,
            dport: None,
            host: None,
            query: None,
            uid: None,
            gid: None,
            identity: None,
            hint: None,
            rule: None,
            denial_stage: None,
        }
    }
}

pub(super) fn as_rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*time))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::wire::netlink::messages;

    fn captured(bytes: &[u8]) -> Message<'_> {
        Message::decode(&messages(bytes).next().unwrap().unwrap()).unwrap().unwrap()
    }

    const TCP: &[u8] = include_bytes!("../../tests/golden/nflog/refused-tcp");
    const ICMPV6: &[u8] = include_bytes!("../../tests/golden/nflog/refused-icmpv6");

    fn noon() -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(1_767_355_200_000_001)
    }

    #[test]
    fn a_refused_connect_is_one_line_of_json() {
        let message = captured(TCP);
        let sport = message.packet().unwrap().unwrap().ports().unwrap().0;
        let (uid, gid) = (message.uid.unwrap(), message.gid.unwrap());
        let wanted = format!(
            r#"{{"schema":1,"event":"bypass","time":"2026-01-02T12:00:00.000001Z","verdict":"reject","family":"ipv4","proto":"tcp","src":"10.200.0.2","sport":{sport},"dst":"203.0.113.10","dport":443,"uid":{uid},"gid":{gid},"identity":"unknown","reason":"nobody looked for the process","rule":"bypass-tcp","denial_stage":"bypass"}}"#
        );
        assert_eq!(Event::of(&message, noon()).to_json(), wanted);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let json = Event::of(&captured(ICMPV6), noon()).to_json();
        assert!(json.contains(r#""family":"ipv6","proto":"icmpv6","src":"#), "{json}");
        assert!(!json.contains("port\":") && !json.contains("null"), "{json}");
        let lost = Event::Lost(Lost { time: UNIX_EPOCH, sandbox: None, count: 7 });
        assert_eq!(lost.to_json(), r#"{"schema":1,"event":"lost","time":"1970-01-01T00:00:00.000000Z","count":7}"#);
    }

    #[test]
    fn a_foreign_rule_is_told_as_such() {
        let mut message = captured(TCP);
        message.prefix = Some("drop\n\u{1b}[2J\u{7f}\u{9b}\u{202e}ä".into());
        message.timestamp = Some(UNIX_EPOCH);
        message.payload = None;
        let wanted = format!(
            r#"{{"schema":1,"event":"packet","time":"1970-01-01T00:00:00.000000Z","uid":{},"gid":{},"rule":"drop\n\u001b[2J\u007f\u009b\u202eä"}}"#,
            message.uid.unwrap(),
            message.gid.unwrap()
        );
        assert_eq!(Event::of(&message, noon()).to_json(), wanted);
        message.prefix = None;
        assert!(!Event::of(&message, noon()).to_json().contains("rule"));
    }
}
