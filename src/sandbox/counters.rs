//! What rules counted.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use crate::Result;
use crate::kernel::nftables::Socket;
use crate::nft::{Expr, Rule, TableId, Verdict};

/// What the rules of a sandbox, or of a host's table, counted so far.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// The sandbox's name, or the host's end of its wire; of a host, its table.
    pub of: Arc<str>,
    /// Rule by rule.
    pub rules: Vec<Counted>,
    /// Refusals that are told of, by the fence, the proxy and the resolver; `None` of a host.
    pub refused: Option<u64>,
    /// Refusals that nothing else is known of; `None` of a host.
    pub lost: Option<u64>,
}

/// What one rule counted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counted {
    /// The chain that it is in.
    pub chain: String,
    /// `accept`, `reject` or `drop`.
    pub verdict: &'static str,
    /// The prefix that it logs with, or the set that it looks into.
    pub rule: Option<String>,
    /// The protocol that it is about, where it is about one.
    pub proto: Option<&'static str>,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Counted {
    /// `None` of a rule that does not count, or decides nothing.
    fn of(rule: &Rule) -> Option<Self> {
        let (mut counter, mut verdict, mut named) = (None, None, None);
        for expr in &rule.exprs {
            match expr {
                Expr::Counter { packets, bytes } => counter = Some((*packets, *bytes)),
                Expr::Verdict(Verdict::Accept) => verdict = Some("accept"),
                Expr::Verdict(Verdict::Drop) => verdict = Some("drop"),
                Expr::Reject(_) => verdict = Some("reject"),
                Expr::Log(log) => named = log.prefix.clone(),
                Expr::Lookup { set, .. } => named = Some(set.to_string()),
                _ => {}
            }
        }
        let (packets, bytes) = counter?;
        let proto = match named.as_deref() {
            Some("bypass-tcp") => Some("tcp"),
            Some("bypass-udp") => Some("udp"),
            Some("bypass-icmp") => Some("icmp"),
            Some("bypass-icmpv6") => Some("icmpv6"),
            _ => None,
        };
        Some(Self { chain: rule.chain.to_string(), verdict: verdict?, rule: named, proto, packets, bytes })
    }
}

type Labels = Vec<(&'static str, String)>;

impl Counters {
    /// Counters as text for Prometheus, of any number of sandboxes and hosts: `ringfence_packets_total`, `ringfence_traffic_bytes_total`,
    /// `ringfence_refusals_total` and `ringfence_events_lost_total`.
    ///
    /// # References
    ///
    /// OpenMetrics 1.0, media type [`Counters::MEDIA_TYPE`], which Prometheus and the textfile collector of node_exporter read.
    pub fn to_prometheus(all: &[Self]) -> String {
        let mut registry = Registry::with_prefix("ringfence");
        let (packets, bytes) = (Family::<Labels, Counter>::default(), Family::<Labels, Counter>::default());
        let (refused, lost) = (Family::<Labels, Counter>::default(), Family::<Labels, Counter>::default());
        registry.register("packets", "Packets that a rule of the fence let out or refused", packets.clone());
        registry.register_with_unit("traffic", "The same in bytes", Unit::Bytes, bytes.clone());
        registry.register("refusals", "Refusals by the fence, the proxy and the resolver", refused.clone());
        registry.register("events_lost", "Refusals that came too fast to be told apart", lost.clone());
        for one in all {
            // A host's table is no sandbox.
            let side = if one.refused.is_some() { "sandbox" } else { "host" };
            let of = || vec![(side, one.of.to_string())];
            for rule in &one.rules {
                let mut labels = of();
                labels.extend([("chain", rule.chain.clone()), ("verdict", rule.verdict.to_owned())]);
                labels.extend(rule.rule.clone().map(|name| ("rule", name)));
                labels.extend(rule.proto.map(|proto| ("proto", proto.to_owned())));
                packets.get_or_create(&labels).inc_by(rule.packets);
                bytes.get_or_create(&labels).inc_by(rule.bytes);
            }
            if let Some(count) = one.refused {
                refused.get_or_create(&of()).inc_by(count);
            }
            if let Some(count) = one.lost {
                lost.get_or_create(&of()).inc_by(count);
            }
        }
        let mut text = String::new();
        // Only a writer can fail, and a string does not.
        let _: fmt::Result = encode(&mut text, &registry);
        text
    }

    /// The media type of [`Counters::to_prometheus`].
    pub const MEDIA_TYPE: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
}

/// Every rule of these tables that counts and decides.
pub(super) fn read<'a>(socket: &mut Socket, tables: impl IntoIterator<Item = &'a TableId>) -> Result<Vec<Counted>> {
    let mut counted = Vec::new();
    for table in tables {
        // A program with the capability to do so may have removed it.
        let Some(ruleset) = socket.table(table)? else { continue };
        counted.extend(ruleset.rules.iter().filter_map(Counted::of));
    }
    Ok(counted)
}

/// Packets that each logging rule of these tables counted, by the rule's prefix.
pub(super) fn logged(socket: &mut Socket, tables: &[TableId]) -> Result<Vec<(String, u64)>> {
    let mut logged: Vec<(String, u64)> = Vec::new();
    for Counted { rule, packets, .. } in read(socket, tables)? {
        let Some(rule) = rule.filter(|rule| rule.starts_with("bypass-")) else { continue };
        match logged.iter_mut().find(|(known, _)| *known == rule) {
            Some((_, sum)) => *sum += packets,
            None => logged.push((rule, packets)),
        }
    }
    Ok(logged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_told_by_verdict_protocol_and_sandbox() {
        let rule = |verdict, rule: &str, proto, packets| Counted {
            chain: "refuse".to_owned(),
            verdict,
            rule: Some(rule.to_owned()),
            proto,
            packets,
            bytes: packets * 60,
        };
        let sandbox = Counters {
            of: "jo\"b".into(),
            rules: vec![rule("reject", "bypass-tcp", Some("tcp"), 7), rule("accept", "direct4", None, 9)],
            refused: Some(8),
            lost: Some(1),
        };
        let host = Counters {
            of: "ringfence-1".into(),
            rules: vec![rule("drop", "x", None, 2), rule("drop", "x", None, 3)],
            refused: None,
            lost: None,
        };
        let text = Counters::to_prometheus(&[sandbox, host]);
        for line in [
            "# TYPE ringfence_packets counter",
            r#"ringfence_packets_total{sandbox="jo\"b",chain="refuse",verdict="reject",rule="bypass-tcp",proto="tcp"} 7"#,
            r#"ringfence_packets_total{sandbox="jo\"b",chain="refuse",verdict="accept",rule="direct4"} 9"#,
            r#"ringfence_traffic_bytes_total{sandbox="jo\"b",chain="refuse",verdict="accept",rule="direct4"} 540"#,
            r#"ringfence_packets_total{host="ringfence-1",chain="refuse",verdict="drop",rule="x"} 5"#,
            r#"ringfence_refusals_total{sandbox="jo\"b"} 8"#,
            r#"ringfence_events_lost_total{sandbox="jo\"b"} 1"#,
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
    }
}
