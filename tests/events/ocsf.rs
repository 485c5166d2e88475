//! What OCSF 1.3.0 asks of the classes and objects that we use, and a check of events against it.
//!
//! Facts of <https://schema.ocsf.io/1.3.0/>: which attributes there are, of which type, which must be there, and which numbers
//! an enumeration has. An attribute that is not in a table is an error, so whoever writes another one adds it here.

use serde_json::Value;

#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Integer,
    /// Milliseconds since 1970.
    Time,
    Port,
    Address,
    /// One of these numbers.
    OneOf(&'static [u64]),
    Object(&'static str),
    Objects(&'static str),
    Texts,
    /// Anything of our own.
    Unmapped,
}

use Kind::*;

/// Name, whether it must be there, and what it is.
type Attribute = (&'static str, bool, Kind);

const SEVERITY: Kind = OneOf(&[0, 1, 2, 3, 4, 5, 6, 99]);

/// Of every class.
const BASE: &[Attribute] = &[
    ("activity_id", true, Integer),
    ("activity_name", false, Text),
    ("category_name", false, Text),
    ("category_uid", true, Integer),
    ("class_name", false, Text),
    ("class_uid", true, Integer),
    ("count", false, Integer),
    ("end_time", false, Time),
    ("message", false, Text),
    ("metadata", true, Object("metadata")),
    ("severity", false, Text),
    ("severity_id", true, SEVERITY),
    ("start_time", false, Time),
    ("status", false, Text),
    ("status_detail", false, Text),
    ("time", true, Time),
    ("type_name", false, Text),
    ("type_uid", true, Integer),
    ("unmapped", false, Unmapped),
];

/// Of the profiles `host` and `security_control`.
const PROFILES: &[Attribute] = &[
    ("action", false, Text),
    ("action_id", true, OneOf(&[0, 1, 2])),
    ("actor", false, Object("actor")),
    (
        "disposition_id",
        false,
        OneOf(&[
            0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 99,
        ]),
    ),
    ("disposition", false, Text),
    ("firewall_rule", false, Object("firewall_rule")),
];

fn class(uid: u64) -> (&'static [Attribute], &'static [u64], &'static str) {
    match uid {
        0 => (&[], &[0, 99], "Base Event"),
        2004 => (
            &[
                ("status_id", false, OneOf(&[0, 1, 2, 3, 4, 99])),
                ("finding_info", true, Object("finding_info")),
                ("evidences", false, Objects("evidences")),
                ("remediation", false, Object("remediation")),
            ],
            &[0, 1, 2, 3, 99],
            "Detection Finding",
        ),
        4001 => (
            &[
                ("status_id", false, OneOf(&[0, 1, 2, 99])),
                ("connection_info", false, Object("network_connection_info")),
                ("dst_endpoint", true, Object("network_endpoint")),
                ("src_endpoint", false, Object("network_endpoint")),
            ],
            &[0, 1, 2, 3, 4, 5, 6, 7, 99],
            "Network Activity",
        ),
        other => panic!("class {other} is none that we use"),
    }
}

/// Attributes of an object, and those of which it must have one.
fn object(name: &str) -> (&'static [Attribute], &'static [&'static str]) {
    match name {
        "metadata" => {
            (&[("product", true, Object("product")), ("profiles", false, Texts), ("version", true, Text)], &[])
        }
        "product" => {
            (&[("name", false, Text), ("vendor_name", true, Text), ("version", false, Text)], &["name", "uid"])
        }
        "network_endpoint" => (
            &[("hostname", false, Text), ("ip", false, Address), ("name", false, Text), ("port", false, Port)],
            &["ip", "uid", "name", "hostname"],
        ),
        "network_connection_info" => (
            &[
                ("direction", false, Text),
                ("direction_id", true, OneOf(&[0, 1, 2, 3, 99])),
                ("protocol_name", false, Text),
                ("protocol_num", false, Integer),
                ("protocol_ver_id", false, OneOf(&[0, 4, 6, 99])),
            ],
            &[],
        ),
        "actor" => (&[("process", false, Object("process")), ("user", false, Object("user"))], &["process", "user"]),
        "process" => (
            &[
                ("cmd_line", false, Text),
                ("file", false, Object("file")),
                ("name", false, Text),
                ("parent_process", false, Object("process")),
                ("pid", false, Integer),
                ("user", false, Object("user")),
            ],
            &["pid", "uid"],
        ),
        "user" => (&[("uid", false, Text)], &["account", "name", "uid"]),
        "file" => (
            &[("name", true, Text), ("path", false, Text), ("type_id", true, OneOf(&[0, 1, 2, 3, 4, 5, 6, 7, 99]))],
            &[],
        ),
        "firewall_rule" => (&[("name", false, Text)], &["name", "uid"]),
        "finding_info" => (
            &[
                ("analytic", false, Object("analytic")),
                ("first_seen_time", false, Time),
                ("last_seen_time", false, Time),
                ("title", true, Text),
                ("types", false, Texts),
                ("uid", true, Text),
            ],
            &[],
        ),
        "analytic" => (
            &[
                ("name", false, Text),
                ("type", false, Text),
                ("type_id", true, OneOf(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 99])),
            ],
            &["name", "uid"],
        ),
        "evidences" => (
            &[
                ("connection_info", false, Object("network_connection_info")),
                ("data", false, Unmapped),
                ("dst_endpoint", false, Object("network_endpoint")),
                ("process", false, Object("process")),
            ],
            &["connection_info", "data", "dst_endpoint", "process"],
        ),
        "remediation" => (&[("desc", true, Text)], &[]),
        other => panic!("object {other} is none that we use"),
    }
}

/// Fails with the place and the reason if an event is not what the schema asks for.
#[track_caller]
pub fn validate(event: &Value) {
    if let Err(wrong) = check(event) {
        panic!("{wrong}: {event:#}");
    }
}

pub fn check(event: &Value) -> Result<(), String> {
    let number = |name: &str| event[name].as_u64().ok_or(format!("{name} is no number"));
    let (uid, activity) = (number("class_uid")?, number("activity_id")?);
    let (own, activities, class_name) = class(uid);
    let profiles: &[Attribute] = if uid == 0 { &[] } else { PROFILES };
    if !activities.contains(&activity) {
        return Err(format!("class {uid} has no activity {activity}"));
    }
    if number("type_uid")? != uid * 100 + activity || number("category_uid")? != uid / 1000 {
        return Err("type_uid or category_uid does not follow from the class".into());
    }
    if event["class_name"] != class_name || event["metadata"]["version"] != "1.3.0" {
        return Err("the class's name or the schema's version is another".into());
    }
    let attributes: Vec<Attribute> = [BASE, profiles, own].concat();
    fields("event", event, &attributes, &[])
}

fn fields(place: &str, value: &Value, attributes: &[Attribute], one_of: &[&str]) -> Result<(), String> {
    let Some(map) = value.as_object() else { return Err(format!("{place} is no object")) };
    for (name, required, _) in attributes {
        if *required && !map.contains_key(*name) {
            return Err(format!("{place}.{name} is missing"));
        }
    }
    if !one_of.is_empty() && !one_of.iter().any(|name| map.contains_key(*name)) {
        return Err(format!("{place} has none of {one_of:?}"));
    }
    for (name, value) in map {
        let place = format!("{place}.{name}");
        let Some((_, _, kind)) = attributes.iter().find(|(known, _, _)| known == name) else {
            return Err(format!("{place} is not of the schema"));
        };
        kind.check(&place, value)?;
    }
    Ok(())
}

impl Kind {
    fn check(self, place: &str, value: &Value) -> Result<(), String> {
        let right = match self {
            Text => value.as_str().is_some_and(|text| !text.is_empty()),
            Texts => value.as_array().is_some_and(|all| all.iter().all(Value::is_string)),
            Integer => value.is_i64() || value.is_u64(),
            // Of this century, or the zero of a test.
            Time => value.as_u64().is_some_and(|time| time < 4_102_444_800_000),
            Port => value.as_u64().is_some_and(|port| port <= 65_535),
            Address => value.as_str().is_some_and(|text| text.parse::<std::net::IpAddr>().is_ok()),
            OneOf(numbers) => value.as_u64().is_some_and(|number| numbers.contains(&number)),
            Unmapped => value.is_object(),
            Object(name) => {
                let (attributes, one_of) = object(name);
                return fields(place, value, attributes, one_of);
            }
            Objects(name) => {
                let (attributes, one_of) = object(name);
                let Some(all) = value.as_array() else { return Err(format!("{place} is no list")) };
                return all.iter().try_for_each(|value| fields(place, value, attributes, one_of));
            }
        };
        if right { Ok(()) } else { Err(format!("{place} is not {self:?}")) }
    }
}

mod tests {
    use std::time::UNIX_EPOCH;

    use ringfence::audit::{Ancestor, Attempt, Event, Identity, Lost, Process, Tampering};

    use super::*;

    fn one(event: &Event) -> Value {
        let [line] = <[String; 1]>::try_from(event.to_ocsf()).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn events_that_know_much_and_events_that_know_nothing_are_valid() {
        let mut attempt = Attempt::at(UNIX_EPOCH);
        validate(&one(&Event::Packet(Box::new(attempt.clone()))));
        validate(&one(&Event::Denied(Box::new(attempt.clone()))));
        attempt.sandbox = Some("job".into());
        (attempt.verdict, attempt.family, attempt.proto) = (Some("reject"), Some("ipv6"), Some("tcp".into()));
        (attempt.dst, attempt.dport) = (Some("2001:db8::9".parse().unwrap()), Some(443));
        (attempt.src, attempt.sport) = (Some("2001:db8::1".parse().unwrap()), Some(40_000));
        (attempt.host, attempt.hint, attempt.rule) = (Some("a.example".into()), Some("hint".into()), Some("r".into()));
        (attempt.uid, attempt.gid) = (Some(1), Some(2));
        let ancestor = |pid| Ancestor { pid, comm: "sh".into(), exe: Some("/bin/sh".into()), ..Ancestor::default() };
        attempt.identity = Some(Identity::Exact(Process {
            pid: 7,
            comm: "curl".into(),
            exe: Some("/usr/bin/curl".into()),
            argv: Some(vec!["curl".into(), "-s".into()]),
            uid: Some(1),
            ancestors: vec![ancestor(6), ancestor(5)],
            ..Process::default()
        }));
        let told = one(&Event::Bypass(Box::new(attempt.clone())));
        validate(&told);
        assert_eq!(told["actor"]["process"]["parent_process"]["parent_process"]["pid"], 5);
        assert_eq!((&told["activity_id"], &told["disposition_id"]), (&5.into(), &25.into()));
        assert_eq!(told["unmapped"]["identity"], "exact");
        // In an audit it passed.
        attempt.verdict = Some("accept");
        let told = one(&Event::Bypass(Box::new(attempt)));
        validate(&told);
        assert_eq!((&told["type_name"], &told["action"]), (&"Network Activity: Traffic".into(), &"Allowed".into()));
        assert_eq!((&told["disposition"], told.get("status")), (&"Logged".into(), None));
        validate(&one(&Event::Lost(Lost { time: UNIX_EPOCH, sandbox: Some("job".into()), count: 3 })));
        let mut tampering = Tampering::at(UNIX_EPOCH, "job".into(), "inside", "mended");
        validate(&one(&Event::Tampering(Box::new(tampering.clone()))));
        tampering.add(Some((7, "nft")), ["delete table inet ringfence".to_owned()], 25);
        tampering.reason = Some("why".into());
        let told = one(&Event::Tampering(Box::new(tampering.clone())));
        validate(&told);
        assert_eq!((&told["disposition"], &told["count"]), (&"Corrected".into(), &26.into()));
        assert_eq!(
            told["message"],
            "`nft` (process 7) changed the rules inside: delete table inet ringfence, and 25 more"
        );
        let own = Event::Tampering(Box::new(tampering)).to_json();
        let wanted = r#"{"schema":1,"event":"tampering","time":"1970-01-01T00:00:00.000000Z","sandbox":"job","side":"inside","action":"mended","reason":"why","process":{"pid":7,"comm":"nft"},"changes":["delete table inet ringfence"],"count":26}"#;
        assert_eq!(own, wanted);
    }

    #[test]
    fn the_check_can_fail() {
        let good = one(&Event::Packet(Box::new(Attempt::at(UNIX_EPOCH))));
        for (pointer, value) in [
            ("/severity_id", Value::from(7)),
            ("/type_uid", 1.into()),
            ("/dst_endpoint", Value::Object(Default::default())),
            ("/dst_endpoint/name", 1.into()),
            ("/metadata/product/vendor_name", Value::Null),
            ("/connection_info/direction_id", 4.into()),
            ("/time", "now".into()),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).unwrap() = value;
            assert!(check(&bad).is_err(), "{pointer}");
        }
        let mut more = good.clone();
        more["made_up"] = 1.into();
        assert!(check(&more).is_err());
    }
}
