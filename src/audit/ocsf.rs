//! Events in the words of OCSF, the Open Cybersecurity Schema Framework, version 1.3.0.
//!
//! | event | class | |
//! | --- | --- | --- |
//! | `bypass`, `denied`, `packet` | 4001 Network Activity | activity 5, Refuse; what an audit let pass, and a foreign rule's packet, 6, Traffic |
//! | `tampering` | 2004 Detection Finding, activity 1, Create | severity High |
//! | `lost` | 0 Base Event | activity 99, with a `count` |
//! | `summary` | 2004 Detection Finding | one for each denial, activity 1, Create |
//!
//! With profile `security_control` for what became of it and `host` for who did it. What OCSF has no attribute for stands under
//! `unmapped`, by the name that it has in our own JSON.
//!
//! # References
//!
//! <https://schema.ocsf.io/1.3.0/>

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::event::line;
use super::{Attempt, Denial, Event, Identity, Lost, Process, Summary, Tampering};

/// The version of the schema that these events follow.
pub const VERSION: &str = "1.3.0";

const BASE_EVENT: u64 = 0;
const NETWORK_ACTIVITY: u64 = 4001;
const DETECTION_FINDING: u64 = 2004;

/// The action of what was refused.
const DENIED: u64 = 2;

/// Severities: a packet is no more than information, a program that would not keep to its policy a little more.
const INFORMATIONAL: u64 = 1;
const LOW: u64 = 2;
const MEDIUM: u64 = 3;
const HIGH: u64 = 4;

impl Event {
    /// The event as lines of OCSF JSON, without the lines' ends. Only a summary is more than one: a finding for each denial.
    pub fn to_ocsf(&self) -> Vec<String> {
        match self {
            Self::Bypass(attempt) | Self::Denied(attempt) => vec![line(&activity(attempt, LOW))],
            Self::Packet(attempt) => vec![line(&activity(attempt, INFORMATIONAL))],
            Self::Tampering(tampering) => vec![line(&tampered(tampering))],
            Self::Lost(lost) => vec![line(&base(lost))],
            Self::Summary(summary) => summary.denials.iter().map(|denial| line(&finding(summary, denial))).collect(),
        }
    }
}

/// What became of an attempt, in the words of profile `security_control`.
#[derive(Debug, Clone, Copy, Serialize)]
struct Outcome {
    action_id: u64,
    action: &'static str,
    disposition_id: u64,
    disposition: &'static str,
}

impl Outcome {
    fn of(verdict: Option<&str>) -> Self {
        let (action_id, action, disposition_id, disposition) = match verdict {
            Some("reject") => (DENIED, "Denied", 25, "Rejected"),
            Some("drop") => (DENIED, "Denied", 6, "Dropped"),
            // Of an audit, which does no more about it than to log it.
            Some("accept") => (1, "Allowed", 17, "Logged"),
            Some(_) => (DENIED, "Denied", 2, "Blocked"),
            None => (0, "Unknown", 17, "Logged"),
        };
        Self { action_id, action, disposition_id, disposition }
    }
}

/// What every event has.
#[derive(Serialize)]
struct Head {
    class_uid: u64,
    class_name: &'static str,
    category_uid: u64,
    category_name: &'static str,
    activity_id: u64,
    activity_name: &'static str,
    type_uid: u64,
    type_name: String,
    severity_id: u64,
    severity: &'static str,
    time: u64,
    metadata: Metadata,
}

#[derive(Serialize)]
struct Metadata {
    version: &'static str,
    product: Product,
    profiles: &'static [&'static str],
}

#[derive(Serialize)]
struct Product {
    name: &'static str,
    vendor_name: &'static str,
    version: &'static str,
}

fn head(class: u64, activity: u64, activity_name: &'static str, severity: u64, time: SystemTime) -> Head {
    let (class_name, category_name) = match class {
        NETWORK_ACTIVITY => ("Network Activity", "Network Activity"),
        DETECTION_FINDING => ("Detection Finding", "Findings"),
        _ => ("Base Event", "Uncategorized"),
    };
    Head {
        class_uid: class,
        class_name,
        category_uid: class / 1000,
        category_name,
        activity_id: activity,
        activity_name,
        type_uid: class * 100 + activity,
        type_name: format!("{class_name}: {activity_name}"),
        severity_id: severity,
        severity: match severity {
            INFORMATIONAL => "Informational",
            LOW => "Low",
            HIGH => "High",
            _ => "Medium",
        },
        time: millis(time),
        metadata: Metadata {
            version: VERSION,
            product: Product { name: "ringfence", vendor_name: "ringfence", version: env!("CARGO_PKG_VERSION") },
            profiles: if class == BASE_EVENT { &[] } else { &["host", "security_control"] },
        },
    }
}

/// The same, to be added to. For the few events that come at the end.
fn classified(class: u64, activity: u64, name: &'static str, severity: u64, time: SystemTime) -> Map<String, Value> {
    object(serde_json::to_value(head(class, activity, name, severity, time)).unwrap_or_default())
}

/// Written without a tree of values in between: there may be tens of thousands a second.
#[derive(Serialize)]
struct Activity<'a> {
    #[serde(flatten)]
    head: Head,
    #[serde(flatten)]
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    message: String,
    dst_endpoint: Endpoint<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_endpoint: Option<Endpoint<'a>>,
    connection_info: Connection<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<Actor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    firewall_rule: Option<FirewallRule<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_detail: Option<&'a str>,
    unmapped: Unmapped<'a>,
}

#[derive(Serialize)]
struct Endpoint<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

#[derive(Serialize)]
struct Connection<'a> {
    direction_id: u64,
    direction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol_num: Option<u8>,
    protocol_ver_id: u64,
}

#[derive(Serialize)]
struct Actor {
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<User>,
}

#[derive(Serialize)]
struct User {
    uid: String,
}

#[derive(Serialize)]
struct FirewallRule<'a> {
    name: &'a str,
}

/// In our own words: the sandbox, the stage, and how sure the process is.
#[derive(Serialize)]
struct Unmapped<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidates: Option<&'a [Process]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    denial_stage: Option<&'static str>,
}

fn activity(attempt: &Attempt, severity: u64) -> Activity<'_> {
    let identity = attempt.identity.as_ref();
    let (process, uid) = (identity.and_then(Identity::process), attempt.uid);
    let outcome = Outcome::of(attempt.verdict);
    let refused = outcome.action_id == DENIED;
    let (id, name) = if refused { (5, "Refuse") } else { (6, "Traffic") };
    Activity {
        head: head(NETWORK_ACTIVITY, id, name, severity, attempt.time),
        outcome,
        // Whether what was let out got there is not known.
        status_id: refused.then_some(2),
        status: refused.then_some("Failure"),
        message: format!("{} to {}", attempt.proto.as_deref().unwrap_or("a packet"), shown(attempt)),
        dst_endpoint: endpoint(attempt.dst, attempt.host.as_deref(), attempt.dport),
        src_endpoint: attempt.src.map(|src| endpoint(Some(src), None, attempt.sport)),
        connection_info: connection(attempt.proto.as_deref(), attempt.family),
        actor: (process.is_some() || uid.is_some())
            .then(|| Actor { process: process.map(self::process), user: uid.map(|uid| User { uid: uid.to_string() }) }),
        firewall_rule: attempt.rule.as_deref().map(|name| FirewallRule { name }),
        status_detail: attempt.hint.as_deref(),
        unmapped: Unmapped {
            sandbox: attempt.sandbox.as_deref(),
            query: attempt.query.as_deref(),
            gid: attempt.gid,
            candidates: match identity {
                Some(Identity::Ambiguous { candidates }) => Some(candidates),
                _ => None,
            },
            identity: identity.map(Identity::certainty),
            reason: match identity {
                Some(Identity::Inferred { reason, .. } | Identity::Unknown { reason }) => Some(reason),
                _ => None,
            },
            denial_stage: attempt.denial_stage,
        },
    }
}

fn base(lost: &Lost) -> Value {
    let mut event = classified(BASE_EVENT, 99, "Lost", MEDIUM, lost.time);
    event.insert("message".into(), "events were lost".into());
    event.insert("count".into(), lost.count.into());
    if let Some(sandbox) = &lost.sandbox {
        event.insert("unmapped".into(), json!({ "sandbox": sandbox }));
    }
    event.into()
}

fn tampered(tampering: &Tampering) -> Value {
    let mut event = classified(DETECTION_FINDING, 1, "Create", HIGH, tampering.time);
    let (disposition_id, disposition) = match tampering.action {
        "mended" => (11, "Corrected"),
        "ended" => (2, "Blocked"),
        _ => (17, "Logged"),
    };
    // What was done had been done already.
    event.insert("action_id".into(), 1.into());
    event.insert("action".into(), "Allowed".into());
    event.insert("disposition_id".into(), disposition_id.into());
    event.insert("disposition".into(), disposition.into());
    event.insert("status_id".into(), 1.into());
    event.insert("status".into(), "New".into());
    event.insert("message".into(), tampering.to_string().into());
    event.insert("count".into(), tampering.count.max(1).into());
    event.insert(
        "finding_info".into(),
        json!({
            "uid": format!("{}|tampering|{}", tampering.sandbox, tampering.side),
            "title": format!("the rules of a fence were changed by somebody else, {}", tampering.side),
            "types": ["tampering"],
            "analytic": { "name": "tampering", "type_id": 1, "type": "Rule" },
        }),
    );
    let mut evidence = object(json!({ "data": { "changes": tampering.changes } }));
    if let Some(by) = &tampering.process {
        evidence.insert("process".into(), json!({ "pid": by.pid, "name": by.comm }));
    }
    event.insert("evidences".into(), json!([evidence]));
    let mut unmapped =
        object(json!({ "sandbox": tampering.sandbox, "side": tampering.side, "action": tampering.action }));
    if let Some(reason) = &tampering.reason {
        unmapped.insert("reason".into(), reason.as_str().into());
    }
    event.insert("unmapped".into(), unmapped.into());
    event.into()
}

fn finding(summary: &Summary, denial: &Denial) -> Value {
    let mut event = classified(DETECTION_FINDING, 1, "Create", LOW, summary.time);
    event.extend(object(serde_json::to_value(Outcome::of(denial.verdict)).unwrap_or_default()));
    event.insert("status_id".into(), 1.into());
    event.insert("status".into(), "New".into());
    event.insert("count".into(), denial.count.into());
    event.insert("start_time".into(), millis(denial.first).into());
    event.insert("end_time".into(), millis(denial.last).into());
    let destination = denial.host.clone().or(denial.dst.map(|dst| dst.to_string())).unwrap_or_else(|| UNKNOWN.into());
    let port = denial.dport.map_or_else(String::new, |port| format!(":{port}"));
    let program = denial.exe.as_deref().or(denial.comm.as_deref());
    let proto = denial.proto.as_deref();
    // The same attempts of the same sandbox are the same finding, whenever they are told.
    let uid = [
        &*summary.sandbox,
        denial.denial_stage,
        denial.verdict.unwrap_or("-"),
        proto.unwrap_or("-"),
        &destination,
        &port,
        program.unwrap_or("-"),
    ];
    event.insert(
        "finding_info".into(),
        json!({
            "uid": uid.join("|"),
            "title": format!("{} tried to reach {destination}{port}", program.unwrap_or("a program")),
            "types": [denial.denial_stage],
            "first_seen_time": millis(denial.first),
            "last_seen_time": millis(denial.last),
            "analytic": { "name": denial.denial_stage, "type_id": 1, "type": "Rule" },
        }),
    );
    let endpoint = endpoint(denial.dst, denial.host.as_deref(), denial.dport);
    let evidence = json!({ "dst_endpoint": endpoint, "connection_info": connection(proto, None) });
    event.insert("evidences".into(), json!([evidence]));
    let advice: Vec<String> = [denial.hint.clone(), denial.flag.as_ref().map(|flag| format!("to allow it: {flag}"))]
        .into_iter()
        .flatten()
        .collect();
    if !advice.is_empty() {
        event.insert("remediation".into(), json!({ "desc": advice.join("; ") }));
    }
    let mut unmapped = object(json!({ "sandbox": summary.sandbox }));
    let own = object(serde_json::to_value(denial).unwrap_or_default());
    let kept = ["exe", "comm", "ancestors", "flag", "policy"];
    unmapped.extend(own.into_iter().filter(|(name, _)| kept.contains(&name.as_str())));
    event.insert("unmapped".into(), unmapped.into());
    event.into()
}

/// Stands where the schema wants a name and there is none.
const UNKNOWN: &str = "unknown";

fn endpoint(ip: Option<IpAddr>, hostname: Option<&str>, port: Option<u16>) -> Endpoint<'_> {
    Endpoint { ip, hostname, name: (ip.is_none() && hostname.is_none()).then_some(UNKNOWN), port }
}

fn connection<'a>(proto: Option<&'a str>, family: Option<&str>) -> Connection<'a> {
    Connection {
        direction_id: 2,
        direction: "Outbound",
        protocol_name: proto,
        protocol_num: match proto {
            Some("icmp") => Some(1),
            Some("tcp") => Some(6),
            Some("udp") => Some(17),
            Some("icmpv6") => Some(58),
            Some("sctp") => Some(132),
            other => other.and_then(|number| number.parse().ok()),
        },
        protocol_ver_id: match family {
            Some("ipv4") => 4,
            Some("ipv6") => 6,
            _ => 0,
        },
    }
}

fn process(process: &Process) -> Value {
    let mut told = Map::new();
    told.insert("pid".into(), process.pid.into());
    told.insert("name".into(), process.comm.as_str().into());
    if let Some(exe) = &process.exe {
        told.insert("file".into(), file(exe));
    }
    if let Some(argv) = &process.argv {
        told.insert("cmd_line".into(), argv.join(" ").into());
    }
    if let Some(uid) = process.uid {
        told.insert("user".into(), json!({ "uid": uid.to_string() }));
    }
    // Each ancestor is the parent of the one before.
    let parent = process.ancestors.iter().rev().fold(None, |parent: Option<Value>, ancestor| {
        let mut told = Map::new();
        told.insert("pid".into(), ancestor.pid.into());
        told.insert("name".into(), ancestor.comm.as_str().into());
        if let Some(exe) = &ancestor.exe {
            told.insert("file".into(), file(exe));
        }
        if let Some(parent) = parent {
            told.insert("parent_process".into(), parent);
        }
        Some(told.into())
    });
    if let Some(parent) = parent {
        told.insert("parent_process".into(), parent);
    }
    told.into()
}

fn file(path: &str) -> Value {
    let name = path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path);
    json!({ "name": name, "path": path, "type_id": 1 })
}

fn shown(attempt: &Attempt) -> String {
    let host = attempt.host.clone().or(attempt.dst.map(|dst| dst.to_string())).unwrap_or_else(|| UNKNOWN.into());
    match attempt.dport {
        Some(port) => format!("{host} port {port}"),
        None => host,
    }
}

fn millis(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
