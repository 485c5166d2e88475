//! A logged packet as an event, and an event as JSON.

use std::net::IpAddr;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::rfc3339;
use crate::wire::nflog::Message;
use crate::wire::packet::Version;

/// Version of the events' shape, the first field of each.
pub const SCHEMA: u32 = 1;

/// Rules of a fence by their prefix, and what they do with what they log.
const RULES: [(&str, &str); 7] = [
    ("bypass-tcp", "reject"),
    ("bypass-udp", "reject"),
    ("bypass-icmp", "reject"),
    ("bypass-icmpv6", "reject"),
    ("bypass-other", "reject"),
    ("bypass-malformed", "drop"),
    ("bypass-forward", "drop"),
];

/// Something that happened, to be told as one JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A fence refused a packet.
    Bypass(Attempt),
    /// A rule that is not of a fence logged a packet.
    Packet(Attempt),
    /// Events were lost.
    Lost {
        /// How many, at least.
        count: u64,
    },
}

impl Event {
    /// The event of a logged packet. `received` stands in where the kernel does not tell the time, which on the output hook it never does.
    pub fn of(message: &Message<'_>, received: SystemTime) -> Self {
        let prefix = message.prefix.as_deref().unwrap_or_default();
        let ours = RULES.iter().find(|(rule, _)| *rule == prefix);
        let packet = message.packet().and_then(Result::ok);
        let ports = packet.as_ref().and_then(|packet| packet.ports());
        let attempt = Attempt {
            time: message.timestamp.unwrap_or(received),
            verdict: ours.map(|(_, verdict)| *verdict),
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
            identity: ours.map(|_| Identity::Unknown { reason: "this version does not look for the process" }),
            rule: (!prefix.is_empty()).then(|| prefix.to_owned()),
        };
        if ours.is_some() { Self::Bypass(attempt) } else { Self::Packet(attempt) }
    }

    /// The event as one line of JSON, without the line's end.
    ///
    /// A foreign rule's text may be anything: control characters and direction marks are escaped, so that they reach no terminal.
    pub fn to_json(&self) -> String {
        // Only a map with keys that are no text, or a writer, can fail.
        let json = serde_json::to_string(self).unwrap_or_default();
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
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line<'a> {
            schema: u32,
            event: &'static str,
            #[serde(flatten)]
            attempt: Option<&'a Attempt>,
            #[serde(skip_serializing_if = "Option::is_none")]
            count: Option<u64>,
        }
        let line = |event, attempt, count| Line { schema: SCHEMA, event, attempt, count };
        match self {
            Self::Bypass(attempt) => line("bypass", Some(attempt), None),
            Self::Packet(attempt) => line("packet", Some(attempt), None),
            Self::Lost { count } => line("lost", None, Some(*count)),
        }
        .serialize(serializer)
    }
}

/// A packet that somebody tried to send. What is not known is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Attempt {
    /// When.
    #[serde(serialize_with = "as_rfc3339")]
    pub time: SystemTime,
    /// What became of it: `reject`, with an answer to its sender, or `drop`. Not known of foreign rules.
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
    /// User who opened the socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group of who opened the socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// How sure it is which process that was. Not looked for where a foreign rule logged.
    #[serde(flatten)]
    pub identity: Option<Identity>,
    /// The rule's prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// How sure it is which process tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "identity", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Identity {
    /// It is not known.
    Unknown {
        /// Why not.
        reason: &'static str,
    },
}

fn as_rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
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
            r#"{{"schema":1,"event":"bypass","time":"2026-01-02T12:00:00.000001Z","verdict":"reject","family":"ipv4","proto":"tcp","src":"10.200.0.2","sport":{sport},"dst":"203.0.113.10","dport":443,"uid":{uid},"gid":{gid},"identity":"unknown","reason":"this version does not look for the process","rule":"bypass-tcp"}}"#
        );
        assert_eq!(Event::of(&message, noon()).to_json(), wanted);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let json = Event::of(&captured(ICMPV6), noon()).to_json();
        assert!(json.contains(r#""family":"ipv6","proto":"icmpv6","src":"#), "{json}");
        assert!(!json.contains("port\":") && !json.contains("null"), "{json}");
        assert_eq!(Event::Lost { count: 7 }.to_json(), r#"{"schema":1,"event":"lost","count":7}"#);
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
