//! Statements that hand a packet, a copy or word of it to somebody: refusals, queues, copies, logs.

use super::field::Network;
use super::rule::Reader;
use super::statement::Wanted;
use super::word;
use crate::nft::{Family, Log, LogFlags, QueueFlags, QueueNumber, Register, Reject, RejectCode, Syslog};

impl Reader<'_> {
    pub(super) fn queue(&mut self, to: QueueNumber, flags: QueueFlags) -> Result<String, String> {
        let words = [(QueueFlags::BYPASS, "bypass"), (QueueFlags::FANOUT, "fanout")];
        if flags.0 & !3 != 0 {
            return Err("nft(8) has no word for its flags".to_owned());
        }
        let names: Vec<_> = words.iter().filter(|(flag, _)| flags.0 & flag.0 != 0).map(|(_, name)| *name).collect();
        let flags = if names.is_empty() { String::new() } else { format!(" flags {}", names.join(",")) };
        let to = match to {
            QueueNumber::Range { first, total: 0 | 1 } => first.to_string(),
            QueueNumber::Range { first, total } => format!("{first}-{}", u32::from(first) + u32::from(total) - 1),
            QueueNumber::Register(_) => return Err("nft(8) syntax is not known for a queue by a value".to_owned()),
        };
        Ok(format!("queue{flags} to {to}"))
    }

    pub(super) fn dup(&mut self, address: Option<Register>, device: Option<Register>) -> Result<String, String> {
        let wanted = match self.rule.table.family {
            Family::Ip => Wanted::IPV4,
            Family::Ip6 => Wanted::IPV6,
            Family::Netdev => {
                let (None, Some(device)) = (address, device) else { return Err("it has no device".to_owned()) };
                return Ok(format!("dup to {}", self.argument(device, Wanted::INTERFACE)?));
            }
            _ => return Err("nft(8) takes no copy in this family".to_owned()),
        };
        let address = address.ok_or("it has no address")?;
        let mut text = format!("dup to {}", self.argument(address, wanted)?);
        if let Some(device) = device {
            text += &format!(" device {}", self.argument(device, Wanted::INTERFACE)?);
        }
        Ok(text)
    }

    pub(super) fn reject(&self, reject: Reject) -> Result<String, String> {
        let icmp = matches!(self.rule.table.family, Family::Inet | Family::Bridge | Family::Netdev);
        match (reject, self.context.network) {
            (Reject::TcpReset, _) if self.context.transport == Some(6) => Ok("reject with tcp reset".to_owned()),
            (Reject::TcpReset, _) => Err("nft(8) adds a match of TCP to a reset where the rule has none".to_owned()),
            (Reject::Icmpx(code), _) if icmp => {
                let code = match code {
                    RejectCode::NoRoute => "no-route",
                    RejectCode::PortUnreachable => "port-unreachable",
                    RejectCode::HostUnreachable => "host-unreachable",
                    RejectCode::AdminProhibited => "admin-prohibited",
                };
                Ok(format!("reject with icmpx {code}"))
            }
            (Reject::Icmpx(_), _) => Err("nft(8) takes icmpx in tables for both families alone".to_owned()),
            // It reads 255 as "not said" and sends code 0.
            (Reject::Icmp(255), _) => Err("nft(8) has no way to write a refusal with code 255".to_owned()),
            (Reject::Icmp(code), Some(Network::Ip)) => Ok(format!("reject with icmp {}", icmp_code(code))),
            (Reject::Icmp(code), Some(Network::Ip6)) => Ok(format!("reject with icmpv6 {}", icmpv6_code(code))),
            (Reject::Icmp(_), _) => {
                Err("nft(8) adds a match of the family to an ICMP refusal where the rule has none".to_owned())
            }
        }
    }
}

pub(super) fn show_log(log: &Log) -> Result<String, String> {
    let mut text = "log".to_owned();
    if let Some(prefix) = &log.prefix {
        text += &format!(" prefix {}", word::log_prefix(prefix)?);
    }
    text += &format!(" group {}", log.group);
    if let Some(snaplen) = log.snaplen {
        text += &format!(" snaplen {snaplen}");
    }
    if let Some(threshold) = log.queue_threshold {
        text += &format!(" queue-threshold {threshold}");
    }
    Ok(text)
}

pub(super) fn show_syslog(log: &Syslog) -> Result<String, String> {
    let mut text = "log".to_owned();
    if let Some(prefix) = &log.prefix {
        text += &format!(" prefix {}", word::log_prefix(prefix)?);
    }
    // By their number, as syslog(2) has them.
    const LEVELS: [&str; 9] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit"];
    if let Some(name) = log.level.and_then(|level| LEVELS.get(level.to_wire() as usize)) {
        text += &format!(" level {name}");
    }
    if log.flags == LogFlags::ALL {
        return Ok(text + " flags all");
    }
    let words = [
        (LogFlags::TCP_SEQUENCE, "tcp sequence"),
        (LogFlags::TCP_OPTIONS, "tcp options"),
        (LogFlags::IP_OPTIONS, "ip options"),
        (LogFlags::SKUID, "skuid"),
        (LogFlags::ETHER, "ether"),
    ];
    let known = words.iter().fold(0, |known, (flag, _)| known | flag.0);
    if log.flags.0 & !known != 0 {
        return Err(format!("nft(8) has no word for its flags {:#x}", log.flags.0));
    }
    for (flag, word) in words {
        if log.flags.0 & flag.0 != 0 {
            text += &format!(" flags {word}");
        }
    }
    Ok(text)
}

fn icmp_code(code: u8) -> String {
    match code {
        0 => "net-unreachable".to_owned(),
        1 => "host-unreachable".to_owned(),
        2 => "prot-unreachable".to_owned(),
        3 => "port-unreachable".to_owned(),
        9 => "net-prohibited".to_owned(),
        10 => "host-prohibited".to_owned(),
        13 => "admin-prohibited".to_owned(),
        other => other.to_string(),
    }
}

fn icmpv6_code(code: u8) -> String {
    match code {
        0 => "no-route".to_owned(),
        1 => "admin-prohibited".to_owned(),
        3 => "addr-unreachable".to_owned(),
        4 => "port-unreachable".to_owned(),
        5 => "policy-fail".to_owned(),
        6 => "reject-route".to_owned(),
        other => other.to_string(),
    }
}
