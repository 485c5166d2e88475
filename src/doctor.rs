//! What a machine has of what a fence needs, as values: checks, facts, and other people's chains.
//!
//! [`kernel::probe`](crate::kernel::probe) fills a [`Report`] in by trying each feature in a namespace made for that; nothing
//! here looks at the machine.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Serialize, Serializer};

use crate::nft::{Chain, ChainName, ChainPolicy, ChainType, Family, Hook, Priority, Table, TableId};

/// Version of the report as JSON. It grows when a reader of an older one would read a newer one wrongly.
pub const SCHEMA: u32 = 1;

/// What was found out about one feature. Not known is not the same as not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It was tried, and works.
    Yes,
    /// It was tried, and the answer can only mean that it is missing.
    No,
    /// It could not be tried, or failed in a way that does not say why.
    Unknown,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        })
    }
}

/// A feature of the kernel, or a privilege.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Feature {
    /// What it is.
    pub name: &'static str,
    /// Whether no command can be fenced without it.
    pub required: bool,
    /// What needs it.
    pub needed_for: &'static str,
    /// What happens without it.
    pub without: &'static str,
    /// How to get it.
    pub how: &'static str,
}

/// What was found out about a [`Feature`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The feature.
    pub feature: Feature,
    /// Whether it is there.
    pub status: Status,
    /// What was found, or how the attempt failed.
    pub detail: Option<String>,
    /// The feature whose absence kept this one from being tried; it is then [`Status::Unknown`].
    pub blocked_by: Option<&'static str>,
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Flat<'a> {
            name: &'a str,
            status: Status,
            required: bool,
            needed_for: &'a str,
            without: &'a str,
            how: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            detail: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            blocked_by: Option<&'a str>,
        }
        let Feature { name, required, needed_for, without, how } = self.feature;
        let detail = self.detail.as_deref();
        let Self { status, blocked_by, .. } = *self;
        Flat { name, status, required, needed_for, without, how, detail, blocked_by }.serialize(serializer)
    }
}

/// Something worth knowing about the machine that is neither good nor bad.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// What it is about.
    pub name: &'static str,
    /// What was found.
    pub value: String,
}

/// A base chain of somebody else's that drops what none of its rules accepts, whatever the fence lets out.
///
/// The kernel asks every base chain at a hook, in the order of their priorities, and one that drops is enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ForeignChain {
    /// Family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub chain: ChainName,
    /// Where it stands.
    pub hook: Hook,
    /// Its place among the chains there: lower comes first.
    pub priority: Priority,
    /// What it does with a packet for which no rule decided.
    pub policy: ChainPolicy,
    /// What it may keep from working.
    pub stops: &'static str,
}

impl ForeignChain {
    /// Picks those that may drop packets of sandboxes or of the built-in proxy from what stands in the host's namespace.
    ///
    /// Chains of dormant tables see no packets and don't count. What single rules do is not looked at.
    pub fn among(tables: &[Table], chains: &[Chain]) -> Vec<Self> {
        let dormant: BTreeSet<&TableId> =
            tables.iter().filter(|table| table.flags.dormant).map(|table| &table.id).collect();
        let mut found: Vec<Self> =
            chains.iter().filter(|chain| !dormant.contains(&chain.table)).filter_map(Self::of).collect();
        found.sort_by_key(|chain| (chain.hook as u8, chain.priority, chain.table.clone()));
        found
    }

    fn of(chain: &Chain) -> Option<Self> {
        let base = chain.base.as_ref()?;
        let family = chain.table.family;
        let seen = matches!(family, Family::Ip | Family::Ip6 | Family::Inet);
        if !seen || base.policy != ChainPolicy::Drop || base.kind == ChainType::Nat {
            return None;
        }
        let stops = match base.hook {
            Hook::Forward | Hook::Postrouting => "direct endpoints",
            Hook::Prerouting => "everything that a sandbox sends past the built-in proxy",
            Hook::Input => {
                "endpoints at the host's own addresses, --proxy-at among them; answers to the built-in proxy"
            }
            Hook::Output => "what the built-in proxy asks for",
            Hook::Ingress | Hook::Egress => return None,
        };
        Some(Self {
            family,
            table: chain.table.name.as_str().to_owned(),
            chain: chain.name.clone(),
            hook: base.hook,
            priority: base.priority,
            policy: base.policy,
            stops,
        })
    }
}

/// Everything that was found out about a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Features and privileges, in the order in which a sandbox needs them.
    pub checks: Vec<Check>,
    /// What else is worth knowing.
    pub facts: Vec<Fact>,
    /// Other people's chains in the host's namespace; `None` (as JSON, `null`) when they could not be read.
    pub foreign: Option<Vec<ForeignChain>>,
}

impl Report {
    /// Whether a command can be fenced here: everything that is required is there, and known to be.
    pub fn works(&self) -> bool {
        self.checks.iter().all(|check| !check.feature.required || check.status == Status::Yes)
    }

    /// The check of that name.
    pub fn check(&self, name: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.feature.name == name)
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Whole<'a> {
            schema: u32,
            works: bool,
            checks: &'a [Check],
            facts: &'a [Fact],
            foreign: &'a Option<Vec<ForeignChain>>,
        }
        let Self { checks, facts, foreign } = self;
        Whole { schema: SCHEMA, works: self.works(), checks, facts, foreign }.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{BaseChain, TableFlags, TableName};

    fn chain(family: Family, table: &str, hook: Hook, kind: ChainType, policy: ChainPolicy) -> Chain {
        let table = TableId { family, name: TableName::new(table).unwrap() };
        let base = BaseChain { kind, hook, priority: Priority::FILTER, policy, devices: Vec::new() };
        Chain { base: Some(base), ..Chain::new(&table, &ChainName::new("c").unwrap()) }
    }

    #[test]
    fn a_chain_counts_when_its_policy_drops_what_a_sandbox_sends() {
        use ChainPolicy::{Accept, Drop};
        use ChainType::{Filter, Nat};
        let mut regular = chain(Family::Ip, "regular", Hook::Forward, Filter, Drop);
        regular.base = None;
        let chains = [
            chain(Family::Ip, "output", Hook::Output, Filter, Drop),
            chain(Family::Ip, "docker", Hook::Forward, Filter, Drop),
            chain(Family::Inet, "ufw", Hook::Input, Filter, Drop),
            chain(Family::Inet, "sleeps", Hook::Forward, Filter, Drop),
            chain(Family::Inet, "lets", Hook::Forward, Filter, Accept),
            chain(Family::Ip, "nat", Hook::Postrouting, Nat, Drop),
            chain(Family::Bridge, "bridge", Hook::Forward, Filter, Drop),
            regular,
        ];
        let flags = TableFlags { dormant: true, ..TableFlags::default() };
        let tables = [Table { flags, ..Table::new(chains[3].table.clone()) }];
        let found: Vec<String> = ForeignChain::among(&tables, &chains).into_iter().map(|chain| chain.table).collect();
        assert_eq!(found, ["ufw", "docker", "output"]);
    }

    #[test]
    fn what_is_not_known_does_not_count_as_there() {
        let feature = |required| Feature { name: "x", required, needed_for: "", without: "", how: "" };
        let works = |required, status| {
            let check = Check { feature: feature(required), status, detail: None, blocked_by: None };
            Report { checks: vec![check], ..Report::default() }.works()
        };
        assert!(works(true, Status::Yes) && works(false, Status::No) && works(false, Status::Unknown));
        assert!(!works(true, Status::No) && !works(true, Status::Unknown));
    }

    #[test]
    fn the_report_as_json_has_the_keys_that_are_promised() {
        let feature = Feature { name: "veth", required: true, needed_for: "a", without: "b", how: "c" };
        let check = Check { feature, status: Status::Unknown, detail: None, blocked_by: None };
        let foreign = ForeignChain::among(
            &[],
            &[chain(Family::Ip, "filter", Hook::Forward, ChainType::Filter, ChainPolicy::Drop)],
        );
        let report = Report { checks: vec![check], facts: Vec::new(), foreign: Some(foreign) };
        let expected = concat!(
            r#"{"schema":1,"works":false,"checks":[{"name":"veth","status":"unknown","required":true,"#,
            r#""needed_for":"a","without":"b","how":"c"}],"facts":[],"foreign":[{"family":"ip","table":"filter","#,
            r#""chain":"c","hook":"forward","priority":0,"policy":"drop","stops":"direct endpoints"}]}"#
        );
        assert_eq!(serde_json::to_string(&report).unwrap(), expected);
    }
}
