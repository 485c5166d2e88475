//! `Policy` and what is known of the host become a [`Plan`]: the wire, both rulesets, the environment.
//!
//! Pure and deterministic: the same policy and the same host give the same plan, and nothing here looks at the machine.
//! What is let out, and the order of the rules, is decided here and nowhere else; both rulesets come from one list of
//! endpoints, so whoever adds a way out adds it in one place.

mod environment;
mod files;
mod inside;
mod outside;
mod show;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;

use serde::Serialize;

use crate::link::{Pool, VethPair};
use crate::nft::{DataTooLong, NameError, Ruleset};
use crate::policy::{
    AllowEntry, DnsMode, DnsName, Endpoint, Host, Origin, Policy, ProxyAt, ProxyUrl, Sourced, Transport, special,
};

pub use environment::Environment;
pub use files::{FileAccess, FileRule, Files};
pub use inside::NFLOG_GROUP;
pub use outside::{Outside, TABLE_PREFIX, uplinks};
pub use show::Format;

/// Port on which the built-in proxy listens, on the sandbox's own loopback.
pub const PROXY_PORT: u16 = 3128;

/// What a plan needs to know of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostView {
    /// The wire that the sandbox has or would have.
    pub wire: VethPair,
    /// Index of the host's end of it.
    pub host_index: u32,
    /// What tells this supervisor's table from another's.
    pub table_suffix: String,
    /// The addresses of every name among the direct endpoints, as the host resolved them.
    pub resolved: BTreeMap<DnsName, Vec<IpAddr>>,
    /// The user's own `NO_PROXY`.
    pub no_proxy: Option<String>,
}

/// A direct endpoint at one address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct DirectAddress {
    /// Address.
    pub address: IpAddr,
    /// TCP or UDP.
    pub transport: Transport,
    /// Port.
    pub port: NonZeroU16,
}

/// How requests find their way to a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyPlan {
    /// There is none.
    None,
    /// The built-in proxy, or the relay to an upstream proxy: a listener on the sandbox's loopback.
    BuiltIn {
        /// Where it listens, in the sandbox's namespace.
        listen: SocketAddr,
        /// What it lets through; everything that the upstream lets through when absent.
        allow: Option<Vec<Sourced<AllowEntry>>>,
        /// The proxy that it hands requests to.
        upstream: Option<Sourced<ProxyUrl>>,
    },
    /// Somebody else's proxy at an address that the sandbox reaches itself.
    At(Sourced<ProxyAt>),
}

/// Everything that `run` would do, as values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Where the addresses of the wire come from.
    pub pool: Sourced<Pool>,
    /// The wire.
    pub wire: VethPair,
    /// Who answers questions about names inside.
    pub dns: Sourced<DnsMode>,
    /// Where requests go.
    pub proxy: ProxyPlan,
    /// Direct endpoints, as the policy names them.
    pub endpoints: Vec<Sourced<Endpoint>>,
    /// Direct endpoints, by address: the list that both rulesets are compiled from.
    pub direct: Vec<DirectAddress>,
    /// Whether packets of the sandbox are forwarded at all, and of which family.
    pub forwarding: Forwarded,
    /// The ruleset of the sandbox's namespace.
    pub inside: Ruleset,
    /// The ruleset of the host's namespace, with this sandbox in it.
    pub outside: Ruleset,
    /// The program's environment.
    pub environment: Environment,
    /// Which files the program may touch, where the caller planned that too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
}

/// Which families the host forwards for a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Forwarded {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// Says why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A name of the policy's has no address.
    #[error("{origin}: `{name}` has no address")]
    Unresolved {
        /// Where the name stood.
        origin: Origin,
        /// The name.
        name: DnsName,
    },
    /// An address that a direct endpoint can't have, as it would be the sandbox's own or nobody's.
    #[error("{origin}: `{name}` resolves to {address}, which can't be reached from a sandbox")]
    Unreachable {
        /// Where the name stood.
        origin: Origin,
        /// The name.
        name: DnsName,
        /// What it resolved to.
        address: IpAddr,
    },
    /// A name that the kernel would not take.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A key that the kernel would not take.
    #[error(transparent)]
    Data(#[from] DataTooLong),
}

impl From<PlanError> for crate::Error {
    fn from(error: PlanError) -> Self {
        let kind = match error {
            PlanError::Unresolved { .. } => crate::ErrorKind::Resolve,
            _ => crate::ErrorKind::Policy,
        };
        crate::Error::new(kind, error.to_string())
    }
}

impl Plan {
    /// Plans the sandbox.
    ///
    /// # Errors
    ///
    /// [`PlanError`] when a name among the direct endpoints has no address in `host`, or one that can't be reached.
    pub fn new(policy: &Policy, host: &HostView) -> Result<Plan, PlanError> {
        let proxy = proxy(policy);
        let mut direct = Vec::new();
        for endpoint in &policy.direct {
            for address in addresses(endpoint, host)? {
                let Endpoint { transport, port, .. } = endpoint.value;
                direct.push(DirectAddress { address, transport, port });
            }
        }
        if let ProxyPlan::At(Sourced { value: ProxyAt { address, port }, .. }) = &proxy {
            direct.push(DirectAddress { address: *address, transport: Transport::Tcp, port: *port });
        }
        direct.sort();
        direct.dedup();

        let outside = Outside::new(&host.table_suffix)?;
        let mut ruleset = if direct.is_empty() { outside.ruleset()? } else { outside.routing_ruleset()? };
        let (chain, rule) = outside.wire(&host.wire.host)?;
        ruleset.chains.push(chain);
        ruleset.rules.push(rule);
        for (set, elements) in outside.sandbox(host.host_index, &host.wire.addresses, &direct)? {
            ruleset.elements.push((outside.table().clone(), set, elements));
        }
        let url = match &proxy {
            ProxyPlan::None => None,
            ProxyPlan::BuiltIn { listen, .. } => Some(format!("http://{listen}")),
            ProxyPlan::At(at) => Some(format!("http://{}", at.value)),
        };
        let environment = environment::environment(
            url.as_deref(),
            policy.direct.iter().map(|endpoint| &endpoint.value),
            host.no_proxy.as_deref(),
        );
        Ok(Plan {
            pool: policy.pool.clone(),
            wire: host.wire.clone(),
            dns: policy.dns.clone(),
            proxy,
            endpoints: policy.direct.clone(),
            forwarding: Forwarded {
                v4: direct.iter().any(|to| to.address.is_ipv4()),
                v6: direct.iter().any(|to| to.address.is_ipv6()),
            },
            inside: inside::ruleset(&host.wire, &direct)?,
            outside: ruleset,
            environment,
            files: None,
            direct,
        })
    }
}

fn proxy(policy: &Policy) -> ProxyPlan {
    if let Some(at) = &policy.proxy_at {
        return ProxyPlan::At(at.clone());
    }
    if policy.allow.is_empty() && policy.proxy.is_none() {
        return ProxyPlan::None;
    }
    ProxyPlan::BuiltIn {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, PROXY_PORT)),
        // With an upstream and no list of our own, the upstream alone decides.
        allow: if policy.allow.is_empty() { None } else { Some(policy.allow.clone()) },
        upstream: policy.proxy.clone(),
    }
}

/// The addresses of one endpoint.
fn addresses(endpoint: &Sourced<Endpoint>, host: &HostView) -> Result<Vec<IpAddr>, PlanError> {
    let name = match &endpoint.value.host {
        Host::Address(address) => return Ok(vec![*address]),
        Host::Name(name) => name,
    };
    let origin = || endpoint.origin.clone();
    let found = host.resolved.get(name).map(Vec::as_slice).unwrap_or_default();
    if found.is_empty() {
        return Err(PlanError::Unresolved { origin: origin(), name: name.clone() });
    }
    let canonical: Vec<IpAddr> = found.iter().map(IpAddr::to_canonical).collect();
    match canonical.iter().find(|address| !reachable_by_name(address)) {
        Some(address) => Err(PlanError::Unreachable { origin: origin(), name: name.clone(), address: *address }),
        None => Ok(canonical),
    }
}

/// Whether a name may lead there. A private address may be what a name is for; an address that means something else on every host,
/// a cloud's metadata service among them, is what somebody who answers for a name would like to open.
fn reachable_by_name(address: &IpAddr) -> bool {
    use special::Class::{Broadcast, LinkLocal, Loopback, Metadata, Multicast, Unspecified};
    let refused = [Broadcast, LinkLocal, Loopback, Metadata, Multicast, Unspecified];
    special::class(*address).is_none_or(|class| !refused.contains(&class))
}
