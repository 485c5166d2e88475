//! Stateful objects and flowtables, and what rules have in common with them.

use super::word;
use crate::nft::{CtTimeout, Flowtable, Limit, Quota, State, StatefulObject, Synproxy, TableId};

/// `counter web { … }`, line by line; or why nft(8) has no way to write it.
pub(super) fn show(object: &StatefulObject) -> Result<Vec<String>, String> {
    let name = word::object(object.state.kind(), object.name.as_str())?;
    let (head, mut body) = match &object.state {
        State::Counter { packets, bytes } => ("counter", vec![format!("packets {packets} bytes {bytes}")]),
        State::Quota(quota) => ("quota", vec![show_quota(quota)]),
        State::Limit(limit) => ("limit", vec![show_limit(limit)?]),
        State::Synproxy(synproxy) => (
            "synproxy",
            show_synproxy(synproxy, "\n")
                .lines()
                .map(|line| line.trim().to_owned())
                .filter(|line| !line.is_empty())
                .collect(),
        ),
        State::SecMark(context) => ("secmark", vec![word::quoted(context)?]),
        State::CtHelper(helper) => {
            let mut body =
                vec![format!("type {} protocol {};", word::quoted(&helper.helper)?, protocol(helper.l4proto)?)];
            body.extend(l3proto(&object.table, helper.l3proto)?);
            ("ct helper", body)
        }
        State::CtTimeout(timeout) => ("ct timeout", show_timeout(&object.table, timeout)?),
        State::CtExpectation(expectation) => {
            let mut body = vec![
                format!("protocol {};", protocol(expectation.l4proto)?),
                format!("dport {};", expectation.dport),
                format!("timeout {};", super::element::show_time(expectation.timeout)?),
                format!("size {};", expectation.size),
            ];
            body.extend(l3proto(&object.table, expectation.l3proto)?);
            ("ct expectation", body)
        }
        State::Connlimit { .. } | State::Raw { .. } => {
            return Err(format!("nft(8) has no way to write a {}", object.state.kind()));
        }
    };
    if let Some(comment) = &object.comment {
        body.insert(0, format!("comment {}", word::quoted(comment.as_str())?));
    }
    body.insert(0, format!("{head} {name} {{"));
    body.push("}".to_owned());
    Ok(body)
}

/// `flowtable flows { … }`, line by line.
pub(super) fn show_flowtable(flowtable: &Flowtable) -> Result<Vec<String>, String> {
    let devices =
        flowtable.devices.iter().map(|device| word::quoted(device.as_str())).collect::<Result<Vec<_>, _>>()?;
    let mut lines = vec![
        format!("flowtable {} {{", word::name(flowtable.name.as_str())?),
        format!("hook ingress priority {};", flowtable.priority.0),
    ];
    if !devices.is_empty() {
        lines.push(format!("devices = {{ {} }};", devices.join(", ")));
    }
    if flowtable.offload {
        lines.push("flags offload;".to_owned());
    }
    if flowtable.counter {
        lines.push("counter".to_owned());
    }
    lines.push("}".to_owned());
    Ok(lines)
}

fn protocol(number: u8) -> Result<&'static str, String> {
    match number {
        6 => Ok("tcp"),
        17 => Ok("udp"),
        33 => Ok("dccp"),
        132 => Ok("sctp"),
        other => Err(format!("nft(8) has no way to write protocol {other} here")),
    }
}

/// The network protocol. nft(8) takes the table's own when there is none.
fn l3proto(table: &TableId, number: Option<u16>) -> Result<Option<String>, String> {
    match number {
        None => Ok(None),
        Some(number) => match u8::try_from(number).ok().and_then(crate::nft::Family::from_wire) {
            Some(family) => Ok(Some(format!("l3proto {family};"))),
            None => Err(format!("nft(8) has no word for network protocol {number} of an object of {table}")),
        },
    }
}

fn show_timeout(table: &TableId, timeout: &CtTimeout) -> Result<Vec<String>, String> {
    /// Names of the states, by their number, with what nft(8) leaves out of the list because it is the kernel's own choice.
    const TCP: [(&str, u32); 11] = [
        ("syn_sent", 120),
        ("syn_recv", 60),
        ("established", 432_000),
        ("fin_wait", 120),
        ("close_wait", 60),
        ("last_ack", 30),
        ("time_wait", 120),
        ("close", 10),
        ("syn_sent2", 120),
        ("retrans", 300),
        ("unack", 300),
    ];
    const UDP: [(&str, u32); 2] = [("unreplied", 30), ("replied", 120)];
    let states: &[(&str, u32)] = match timeout.l4proto {
        6 => &TCP,
        17 => &UDP,
        other => return Err(format!("nft(8) has no words for the states of protocol {other}")),
    };
    let mut policy = Vec::new();
    for (state, seconds) in &timeout.seconds {
        let state = usize::from(*state).checked_sub(1).and_then(|state| states.get(state));
        let (name, default) = state.ok_or("nft(8) has no word for one of its states")?;
        if seconds != default {
            policy.push(format!("{name}: {seconds}"));
        }
    }
    let mut body = vec![format!("protocol {};", protocol(timeout.l4proto)?)];
    body.extend(l3proto(table, Some(timeout.l3proto))?);
    if !policy.is_empty() {
        body.push(format!("policy = {{ {} }};", policy.join(", ")));
    }
    Ok(body)
}

/// `rate over 10/second burst 5 packets`
pub(super) fn show_limit(limit: &Limit) -> Result<String, String> {
    let Limit { rate, seconds, burst, over, bytes } = *limit;
    let unit = match seconds {
        1 => "second",
        60 => "minute",
        3_600 => "hour",
        86_400 => "day",
        604_800 => "week",
        other => return Err(format!("nft(8) has no word for a limit per {other} seconds")),
    };
    let over = if over { "over " } else { "" };
    if bytes {
        // Any burst but none is written; nft(8) makes none of its own here.
        let burst = if burst == 0 { String::new() } else { format!(" burst {burst} bytes") };
        return Ok(format!("rate {over}{rate} bytes/{unit}{burst}"));
    }
    if burst == 0 {
        return Err("nft(8) takes no limit with a burst of 0".to_owned());
    }
    Ok(format!("rate {over}{rate}/{unit} burst {burst} packets"))
}

/// `over 10 bytes used 5 bytes`
pub(super) fn show_quota(quota: &Quota) -> String {
    let over = if quota.over { "over " } else { "" };
    let used = if quota.used == 0 { String::new() } else { format!(" used {} bytes", quota.used) };
    format!("{over}{} bytes{used}", quota.bytes)
}

/// `mss 1460 wscale 7 timestamp sack-perm`, each behind a separator.
pub(super) fn show_synproxy(synproxy: &Synproxy, separator: &str) -> String {
    let mut text = String::new();
    let line = if separator == "\n" { "\n" } else { " " };
    if synproxy.flags & 1 != 0 {
        text += &format!("{separator}mss {}", synproxy.mss);
    }
    if synproxy.flags & 2 != 0 {
        text += &format!("{line}wscale {}", synproxy.wscale);
    }
    if synproxy.flags & 8 != 0 {
        text += &format!("{line}timestamp");
    }
    if synproxy.flags & 4 != 0 {
        text += &format!("{}sack-perm", if separator == "\n" && synproxy.flags & 8 != 0 { " " } else { line });
    }
    text
}
