//! What rules counted.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::audit::verdict_of;
use crate::kernel::nftables::Socket;
use crate::nft::{ChainName, CmpOp, Expr, Handle, MetaKey, Rule, Ruleset, TableId, Verdict};
use crate::{Error, ErrorKind, Result};

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
    /// Whether all rules are still those that were made. A program that keeps `CAP_NET_ADMIN` can put others in their place, which are not
    /// counted here; and it can start a rule's count anew, of which nothing tells.
    pub intact: bool,
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
        let proto = rule.exprs.windows(2).find_map(|pair| match pair {
            [Expr::Meta { key: MetaKey::L4Proto, .. }, Expr::Cmp { op: CmpOp::Eq, data, .. }] => {
                match data.as_bytes() {
                    [1] => Some("icmp"),
                    [6] => Some("tcp"),
                    [17] => Some("udp"),
                    [58] => Some("icmpv6"),
                    _ => None,
                }
            }
            _ => None,
        });
        Some(Self { chain: rule.chain.to_string(), verdict: verdict?, rule: named, proto, packets, bytes })
    }
}

type Labels = Vec<(&'static str, String)>;

impl Counters {
    /// Counters as text for Prometheus, of any number of sandboxes and hosts: `ringfence_packets_total`, `ringfence_traffic_bytes_total`,
    /// `ringfence_refusals_total`, `ringfence_events_lost_total` and `ringfence_rules_intact`.
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
        let intact = Family::<Labels, Gauge>::default();
        registry.register("rules_intact", "Whether all rules are still those that were made", intact.clone());
        for one in all {
            // A host's table is no sandbox.
            let side = if one.refused.is_some() { "sandbox" } else { "host" };
            let of = || vec![(side, one.of.to_string())];
            intact.get_or_create(&of()).set(one.intact.into());
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

/// The rules whose counts are read.
#[derive(Debug)]
pub(super) enum Rules {
    /// All that tables of these names have.
    All(Vec<TableId>),
    /// Those that were there, where a program may make others of the same names.
    Own(Vec<Own>),
}

/// Of a table, and of its chains by name. Nothing of what is not there.
type Uses = (Option<u32>, Vec<(ChainName, Option<u32>)>);

/// What is known of a table before there is anybody who could change it. The kernel gives no number twice.
#[derive(Debug)]
pub(super) struct Own {
    table: TableId,
    number: Option<Handle>,
    /// How many things are in the table, and how often each chain is used.
    counts: Uses,
    rules: Vec<(ChainName, Handle)>,
}

impl Rules {
    /// All that tables of these names have.
    pub(super) fn of(tables: impl IntoIterator<Item = TableId>) -> Self {
        Self::All(tables.into_iter().collect())
    }

    /// Those that are there now, and no others later. To be called before a program is there that could change them.
    pub(super) fn now(socket: &mut Socket, tables: impl IntoIterator<Item = TableId>) -> Result<Self> {
        let own = tables.into_iter().map(|table| {
            let gone = || Error::new(ErrorKind::Verify, format!("table {table} is not there"));
            let number = socket.table_handle(&table)?;
            let Ruleset { chains, rules, .. } = socket.table(&table)?.ok_or_else(gone)?;
            let rules = rules.into_iter().filter_map(|rule| Some((rule.chain, rule.handle?))).collect();
            let counts = counts(socket, &table, chains.into_iter().map(|chain| chain.name))?;
            Ok(Own { table, number, counts, rules })
        });
        own.collect::<Result<_>>().map(Self::Own)
    }

    /// What each rule that counts and decides has counted, and whether all are still there, and no others.
    ///
    /// Own rules are asked for one by one, so that it takes no longer whatever else was put into their tables.
    pub(super) fn read(&self, socket: &mut Socket) -> Result<(Vec<Counted>, bool)> {
        let (mut counted, mut intact) = (Vec::new(), true);
        match self {
            Self::All(tables) => {
                for table in tables {
                    let found = socket.table(table)?;
                    intact &= found.is_some();
                    let rules = found.map(|ruleset| ruleset.rules).unwrap_or_default();
                    counted.extend(rules.iter().filter_map(Counted::of));
                }
            }
            Self::Own(tables) => {
                for Own { table, number, counts: before, rules } in tables {
                    let found = rules.iter().map(|(chain, handle)| socket.rule(table, chain, *handle));
                    let found: Vec<Option<Rule>> = found.collect::<Result<_>>()?;
                    let now = counts(socket, table, before.1.iter().map(|(chain, _)| chain.clone()))?;
                    // Asked afterwards: if it is the same number then, it was the same table all along.
                    if socket.table_handle(table)? != *number {
                        intact = false;
                        continue;
                    }
                    intact &= now == *before && found.iter().all(Option::is_some);
                    counted.extend(found.iter().flatten().filter_map(Counted::of));
                }
            }
        }
        Ok((counted, intact))
    }

    /// Packets that each logging rule of a fence counted, by the rule's prefix.
    pub(super) fn logged(&self, socket: &mut Socket) -> Result<(Vec<(String, u64)>, bool)> {
        let (counted, intact) = self.read(socket)?;
        let mut logged: Vec<(String, u64)> = Vec::new();
        for Counted { rule, packets, .. } in counted {
            let Some(rule) = rule.filter(|rule| verdict_of(rule).is_some()) else { continue };
            match logged.iter_mut().find(|(known, _)| *known == rule) {
                Some((_, sum)) => *sum += packets,
                None => logged.push((rule, packets)),
            }
        }
        Ok((logged, intact))
    }
}

/// How many things are in a table, and how often these chains of it are used.
fn counts(socket: &mut Socket, table: &TableId, chains: impl IntoIterator<Item = ChainName>) -> Result<Uses> {
    let chains = chains.into_iter().map(|chain| {
        let uses = socket.chain_uses(table, &chain)?;
        Ok((chain, uses))
    });
    let chains = chains.collect::<Result<_>>()?;
    Ok((socket.table_uses(table)?, chains))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{ChainName, Family, Log, TableName};

    #[test]
    fn a_rule_about_one_protocol_says_which() {
        let table = TableId { family: Family::Inet, name: TableName::new("ringfence").unwrap() };
        let chain = ChainName::new("refuse").unwrap();
        let rule = || Rule::new(&table, &chain);
        let log =
            |prefix: &str| Log { group: 1, prefix: Some(prefix.to_owned()), snaplen: None, queue_threshold: None };
        for (rule, wanted) in [
            (rule().l4proto(17).log(log("audit-udp")), (Some("audit-udp"), Some("udp"))),
            (rule().l4proto(58).log(log("bypass-icmpv6")), (Some("bypass-icmpv6"), Some("icmpv6"))),
            (rule().l4proto(6), (None, Some("tcp"))),
            (rule().log(log("audit-other")), (Some("audit-other"), None)),
        ] {
            let counted = Counted::of(&rule.counter().verdict(Verdict::Accept)).unwrap();
            assert_eq!((counted.rule.as_deref(), counted.proto), wanted);
        }
    }

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
            intact: false,
        };
        let host = Counters {
            of: "ringfence-1".into(),
            rules: vec![rule("drop", "x", None, 2), rule("drop", "x", None, 3)],
            refused: None,
            lost: None,
            intact: true,
        };
        let text = Counters::to_prometheus(&[sandbox, host]);
        for line in [
            "# TYPE ringfence_packets counter",
            r#"ringfence_packets_total{sandbox="jo\"b",chain="refuse",verdict="reject",rule="bypass-tcp",proto="tcp"} 7"#,
            r#"ringfence_packets_total{sandbox="jo\"b",chain="refuse",verdict="accept",rule="direct4"} 9"#,
            r#"ringfence_traffic_bytes_total{sandbox="jo\"b",chain="refuse",verdict="accept",rule="direct4"} 540"#,
            r#"ringfence_packets_total{host="ringfence-1",chain="refuse",verdict="drop",rule="x"} 5"#,
            r#"ringfence_refusals_total{sandbox="jo\"b"} 8"#,
            r#"ringfence_rules_intact{sandbox="jo\"b"} 0"#,
            r#"ringfence_rules_intact{host="ringfence-1"} 1"#,
            r#"ringfence_events_lost_total{sandbox="jo\"b"} 1"#,
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
    }
}
