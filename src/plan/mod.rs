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

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::link::{Pool, VethPair};
use crate::nft::{DataTooLong, NameError, Ruleset};
use crate::policy::{
    AllowEntry, Credential, CredentialName, DnsGrace, DnsMode, DnsName, Endpoint, EndpointHost, EnvVar, HostPattern,
    OnTampering, Origin, PatternMap, Policy, ProxyAt, ProxyUrl, RunOptions, SniCheck, Sourced, Transport, special,
};

pub use environment::Environment;
pub use files::{FileAccess, FileRule, Files};
pub(crate) use inside::elements as elements_inside;
pub use inside::{NFLOG_GROUP, change_inside};
pub use outside::{Outside, TABLE_PREFIX, uplinks};
pub use show::Format;

/// Port on which the built-in proxy listens, on the sandbox's own loopback.
pub const PROXY_PORT: u16 = 3128;

/// How often a name is asked for where ringfence itself resolves names, and nobody says how long an answer holds.
pub const REFRESH: Duration = Duration::from_secs(30);

/// How long an answer is taken to hold there: until the next time, and while it is asked.
pub const HELD: Duration = Duration::from_secs(40);

/// How much longer than promised the kernel keeps an address of a name: the time to find out whether a flow to it lives.
pub const SLACK: Duration = Duration::from_secs(2);

/// What a plan needs to know of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostView {
    /// The wire that the sandbox has or would have.
    pub wire: VethPair,
    /// Index of the host's end of it.
    pub host_index: u32,
    /// What tells this supervisor's table from another's.
    pub table_suffix: String,
    /// Names of direct endpoints and their addresses as far as they are known beforehand: under the built-in resolver what the host's
    /// `/etc/hosts` says, otherwise those of every name, as the host resolved them.
    pub resolved: BTreeMap<DnsName, Vec<IpAddr>>,
    /// The user's own `NO_PROXY`.
    pub no_proxy: Option<String>,
}

/// An address of a name, and the endpoint that it is open for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NamedAddress {
    /// Where.
    #[serde(flatten)]
    pub to: DirectAddress,
    /// The name that led there.
    pub name: DnsName,
}

/// A direct endpoint at one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
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
        /// What it puts into requests.
        credentials: Vec<Sourced<Credential>>,
        /// What it makes of TLS that it does not look into.
        sni: Sourced<SniCheck>,
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
    /// Whether everything passes, and what would be refused is told.
    pub audit: Sourced<bool>,
    /// What is done about somebody who changes the rules.
    pub tampering: Sourced<OnTampering>,
    /// Where requests go.
    pub proxy: ProxyPlan,
    /// Direct endpoints, as the policy names them.
    pub endpoints: Vec<Sourced<Endpoint>>,
    /// Direct endpoints, by address, that are open from the start and stay so: the list that both rulesets are compiled from.
    pub direct: Vec<DirectAddress>,
    /// Addresses of names that are open from the start, and for as long as their answer holds.
    pub named: Vec<NamedAddress>,
    /// How long an address of a name stays open after its answer has run out.
    pub dns_grace: Sourced<DnsGrace>,
    /// Names whose addresses may be private, though they look public.
    pub private_names: Vec<Sourced<HostPattern>>,
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
    /// How the program runs, where the caller planned that too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunOptions>,
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
    /// An address that whoever answers for a name must not open.
    #[error("{origin}: `{name}` resolves to {address}, {class}, which a name may not open")]
    Special {
        /// Where the name stood.
        origin: Origin,
        /// The name.
        name: DnsName,
        /// What it resolved to.
        address: IpAddr,
        /// What that is, with its article.
        class: &'static str,
    },
    /// A credential whose placeholder would have to be where ringfence itself puts something.
    #[error(
        "{origin}: no credential can be named `{name}`: it is a variable that ringfence sets, of proxies or of whom to trust"
    )]
    Variable {
        /// Where the credential was said.
        origin: Origin,
        /// Its name.
        name: CredentialName,
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
        let advice = match &error {
            PlanError::Special { name, address, .. } if special::refused_to_name(*address, true).is_none() => {
                Some(format!("if that is meant: --private-name {name}"))
            }
            _ => None,
        };
        let error = crate::Error::new(kind, error.to_string());
        match advice {
            Some(advice) => error.hint(advice),
            None => error,
        }
    }
}

impl Plan {
    /// Plans the sandbox.
    ///
    /// # Errors
    ///
    /// [`PlanError`] when a name among the direct endpoints has an address in `host` that a name may not open, or, without the built-in
    /// resolver, none at all; when a credential is named as a variable that leads programs to the proxy.
    pub fn new(policy: &Policy, host: &HostView) -> Result<Plan, PlanError> {
        if let Some(Sourced { value, origin }) =
            policy.credentials.iter().find(|said| Environment::own(said.value.name.as_str()))
        {
            return Err(PlanError::Variable { origin: origin.clone(), name: value.name.clone() });
        }
        let proxy = proxy(policy);
        let (direct, named) = endpoints(policy, host)?;
        let open = opened(&direct, &named, policy.dns_grace.value);
        // Whatever a name may yet lead to is routed by rules that stand beforehand.
        let audit = policy.audit.value;
        let anywhere = audit || policy.has_direct_names();

        let outside = Outside::new(&host.table_suffix)?;
        let mut ruleset = if open.is_empty() && !anywhere { outside.ruleset()? } else { outside.routing_ruleset()? };
        let (chain, rule) = outside.wire(&host.wire.host)?;
        ruleset.chains.push(chain);
        ruleset.rules.push(rule);
        for (set, elements) in outside.sandbox(host.host_index, &host.wire.addresses, &open, audit)? {
            ruleset.elements.push((outside.table().clone(), set, elements));
        }
        let url = match &proxy {
            ProxyPlan::None => None,
            ProxyPlan::BuiltIn { listen, .. } => Some(format!("http://{listen}")),
            ProxyPlan::At(at) => Some(format!("http://{}", at.value)),
        };
        let mut environment = environment::environment(
            url.as_deref(),
            policy.direct.iter().map(|endpoint| &endpoint.value),
            host.no_proxy.as_deref(),
        );
        environment.conceal(policy.credentials.iter().map(|credential| &credential.value));
        Ok(Plan {
            pool: policy.pool.clone(),
            wire: host.wire.clone(),
            dns: policy.dns.clone(),
            audit: policy.audit.clone(),
            tampering: policy.tampering.clone(),
            proxy,
            endpoints: policy.direct.clone(),
            forwarding: Forwarded {
                v4: anywhere || direct.iter().any(|to| to.address.is_ipv4()),
                v6: anywhere || direct.iter().any(|to| to.address.is_ipv6()),
            },
            inside: inside::ruleset(&host.wire, &open, audit)?,
            outside: ruleset,
            environment,
            files: None,
            run: None,
            direct,
            named,
            dns_grace: policy.dns_grace.clone(),
            private_names: policy.private_names.clone(),
        })
    }
}

impl Plan {
    /// Plans the command, too: how it runs, which variables of its own it has, which files it may touch from that directory.
    pub fn command(mut self, run: RunOptions, working_directory: Option<&Path>) -> Self {
        for EnvVar { name, value } in run.env.iter().map(|variable| &variable.value) {
            if !self.environment.merges(name) {
                self.environment.remove.retain(|removed| removed != name);
                self.environment.set.insert(name.clone(), value.clone());
            }
        }
        self.files = Some(Files::new(&run, working_directory));
        self.run = Some(run);
        self
    }

    /// The addresses that the policy itself names, and that have to be reachable.
    pub fn by_address(&self) -> BTreeSet<IpAddr> {
        let mut all: BTreeSet<IpAddr> = self.dns.value.server().map(|server| server.ip()).into_iter().collect();
        if let ProxyPlan::At(at) = &self.proxy {
            all.insert(at.value.address);
        }
        all.extend(self.endpoints.iter().filter_map(|to| match to.value.host {
            EndpointHost::Address(address) => Some(address),
            EndpointHost::Pattern(_) => None,
        }));
        all
    }

    /// The elements of direct endpoints that both rulesets begin with.
    pub fn opened(&self) -> Vec<Open> {
        opened(&self.direct, &self.named, self.dns_grace.value)
    }
}

/// Both lists as one. An address that stays needs no time-out from a name that leads there, too.
fn opened(direct: &[DirectAddress], named: &[NamedAddress], grace: DnsGrace) -> Vec<Open> {
    let mut passing: Vec<DirectAddress> = named.iter().map(|named| named.to).collect();
    passing.dedup();
    passing.retain(|to| direct.binary_search(to).is_err());
    let timeout = Some(HELD + grace.duration() + SLACK);
    let stay = direct.iter().map(|to| Open { to: *to, timeout: None, there: false });
    stay.chain(passing.into_iter().map(|to| Open { to, timeout, there: false })).collect()
}

fn proxy(policy: &Policy) -> ProxyPlan {
    if let Some(at) = &policy.proxy_at {
        return ProxyPlan::At(at.clone());
    }
    // An audit has one in any case: a program that can be told to ask for names shall do so.
    if policy.allow.is_empty() && policy.proxy.is_none() && !policy.audit.value {
        return ProxyPlan::None;
    }
    ProxyPlan::BuiltIn {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, PROXY_PORT)),
        // With an upstream and no list of our own, the upstream alone decides.
        allow: if policy.allow.is_empty() && policy.proxy.is_some() { None } else { Some(policy.allow.clone()) },
        upstream: policy.proxy.clone(),
        credentials: policy.credentials.clone(),
        sni: policy.sni.clone(),
    }
}

/// An element of the sets of direct endpoints, and for how long it stays; for good without a time-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// Where to.
    pub to: DirectAddress,
    /// For how long, counted from the commit.
    pub timeout: Option<Duration>,
    /// It may be there already, with another time-out.
    pub there: bool,
}

/// What is open from the start: for good, and for a time. Both sorted, each once.
fn endpoints(policy: &Policy, host: &HostView) -> Result<(Vec<DirectAddress>, Vec<NamedAddress>), PlanError> {
    let mut direct = permanent(policy);
    let mut named = Vec::new();
    let mut patterns = PatternMap::default();
    let built_in = policy.dns.value.is_built_in();
    for Sourced { value: Endpoint { host: to, port, transport }, origin } in &policy.direct {
        let EndpointHost::Pattern(pattern) = to else { continue };
        let exact = matches!(pattern, HostPattern::Exact(_));
        patterns.insert(pattern, (*port, *transport, origin, exact));
        match pattern {
            HostPattern::Exact(name) if !built_in && host.resolved.get(name).is_none_or(Vec::is_empty) => {
                return Err(PlanError::Unresolved { origin: origin.clone(), name: name.clone() });
            }
            HostPattern::Exact(_) | HostPattern::Below(_) => {}
        }
    }
    for (name, addresses) in &host.resolved {
        for (port, transport, origin, exact) in patterns.matching(name) {
            for address in addresses.iter().map(IpAddr::to_canonical) {
                // The host's own file is its administrator's word.
                let private = built_in || policy.may_be_private(name);
                if let Some(class) = special::refused_to_name(address, private) {
                    // What a wildcard happens to cover is not what was meant: the host itself is in its own file.
                    if !exact {
                        continue;
                    }
                    let (origin, name) = ((*origin).clone(), name.clone());
                    return Err(PlanError::Special { origin, name, address, class: class.name() });
                }
                let to = DirectAddress { address, transport: *transport, port: *port };
                if built_in { direct.push(to) } else { named.push(NamedAddress { to, name: name.clone() }) }
            }
        }
    }
    direct.sort();
    direct.dedup();
    named.sort();
    named.dedup();
    Ok((direct, named))
}

/// What a policy opens by address: direct endpoints, a proxy at an address, a resolver that is asked without us.
pub fn permanent(policy: &Policy) -> Vec<DirectAddress> {
    let by_address = policy.direct.iter().filter_map(|Sourced { value, .. }| match value.host {
        EndpointHost::Address(address) => Some(DirectAddress { address, transport: value.transport, port: value.port }),
        EndpointHost::Pattern(_) => None,
    });
    let proxy = policy.proxy_at.iter().map(|Sourced { value: ProxyAt { address, port }, .. }| DirectAddress {
        address: *address,
        transport: Transport::Tcp,
        port: *port,
    });
    let mut all: Vec<DirectAddress> = by_address.chain(proxy).collect();
    if let DnsMode::Server { address, port } = policy.dns.value {
        // Long answers come by TCP.
        all.extend([Transport::Udp, Transport::Tcp].map(|transport| DirectAddress { address, transport, port }));
    }
    all
}
