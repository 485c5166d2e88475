//! The lifecycle: a [`Host`], on it a [`Sandbox`] that is prepared, in it a command that is [`Running`].
//!
//! ```text
//! Policy ── Sandbox::prepare ──> Sandbox ── Sandbox::spawn ──> Running ── wait, close
//!           namespace, wire, both rulesets,      the command, created inside
//!           committed and read back
//! ```

mod command;
mod control;
mod counters;
mod host;
mod known;
mod listener;
mod live;
mod monitor;
mod resolver;
mod running;
mod secrets;
mod tamper;

use std::collections::BTreeMap;
use std::net::{IpAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::dns::{Answers, HostResolver, Sockets};
use crate::kernel::guard::Guard;
use crate::kernel::identity::{Means, Way};
use crate::kernel::link::{Wire, wire};
use crate::kernel::netns::{NamedNetns, Netns};
use crate::kernel::nflog::Receiver;
use crate::kernel::rtnetlink::{Batch, Reply, Request, RouteKind};
use crate::kernel::userns::Userns;
use crate::kernel::{nftables, rtnetlink};
use crate::link::{Mtu, VethPair};
use crate::nft::InterfaceName;
use crate::plan::{HostView, Plan, PlanError, ProxyPlan};
use crate::policy::{DnsName, EndpointHost, HostPattern, Policy, SandboxName, Sourced};
use crate::proxy::{OnDenial, Resolve};
use crate::{Error, ErrorKind, Result};

pub use command::Command;
pub use control::RemoteControl;
#[doc(hidden)]
pub use control::{read_answer, read_order};
pub use counters::{Counted, Counters};
pub use host::Host;
pub use live::{Control, Entry};
pub use monitor::{EventStream, OnReport};
pub use running::Running;

use host::Admission;
use live::{Kept, Live};
use monitor::Hub;

/// What a caller may choose about a sandbox besides its policy.
#[derive(Clone)]
pub struct SandboxOptions {
    /// Name of its namespace, visible to ip-netns(8); without one, only file descriptors hold it.
    pub name: Option<Sourced<SandboxName>>,
    /// The user's own `NO_PROXY`, which the sandbox's is merged with. Taken from the environment unless set.
    pub no_proxy: Option<String>,
    /// Resolves the names of direct endpoints and those that the built-in proxy is asked for.
    pub resolver: Arc<dyn Resolve>,
    /// Asks the host's name servers for the built-in resolver.
    pub names: HostResolver,
    /// Is told of every destination that the built-in proxy refuses. [`Sandbox::events`] tells of all refusals.
    pub on_denial: Option<OnDenial>,
    /// Is told of every question that the built-in resolver refuses.
    pub on_dns_denial: Option<crate::dns::OnDenial>,
    /// Is told of everything that was refused so far, each time that something was since, and once more at the end.
    pub on_report: Option<OnReport>,
    /// How often at most.
    pub report_interval: Duration,
    /// How to find out which process tried what is refused.
    pub identity: Way,
    /// Largest packet on the wire.
    pub mtu: Mtu,
    /// Gives it a user namespace of its own, with the same users: capabilities that the command keeps hold in the sandbox alone.
    /// One that keeps more than Docker does is refused without, see [`Command::needs_user_namespace`].
    pub user_namespace: bool,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let names = HostResolver::default();
        Self {
            name: None,
            no_proxy: variable("NO_PROXY").or_else(|| variable("no_proxy")),
            resolver: Arc::new(names.clone()),
            names,
            on_denial: None,
            on_dns_denial: None,
            on_report: None,
            report_interval: Duration::from_secs(10),
            identity: Way::Auto,
            mtu: Mtu::default(),
            user_namespace: false,
        }
    }
}

impl std::fmt::Debug for SandboxOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SandboxOptions")
            .field("name", &self.name)
            .field("mtu", &self.mtu)
            .field("user_namespace", &self.user_namespace)
            .finish_non_exhaustive()
    }
}

/// A fence that stands, with nobody inside yet.
///
/// Dropping it takes everything down again; [`Sandbox::close`] does the same and says what went wrong.
#[derive(Debug)]
pub struct Sandbox {
    // In the order in which they go: the name, then our hold on the namespace and with it the wire, then the host's table.
    /// With whoever removes it if this process is killed, and so has to go after it.
    name: Option<(NamedNetns, Guard)>,
    listeners: Vec<TcpListener>,
    /// Where the built-in resolver is asked.
    questions: Sockets,
    /// Which names it handed addresses out for.
    answers: Arc<Answers>,
    /// Hears who else changes the rules inside; the command's sentinel takes it.
    changes: Option<nftables::Monitor>,
    /// What the fence refuses waits in it; the command's monitor takes it.
    receiver: Option<Receiver>,
    hub: Arc<Hub>,
    /// Looks for a way to tell who tried, while the caller goes on.
    means: Option<JoinHandle<Result<Means>>>,
    netns: Netns,
    /// Owns the network namespace; the command's, once it is there.
    userns: Option<Userns>,
    wire: Wire,
    /// What changes while it stands, and its place in the host's table.
    kept: Kept,
    /// Takes orders from other processes.
    orders: Option<UnixListener>,
    host: Host,
    plan: Plan,
    options: SandboxOptions,
    /// For the proxy alone.
    held: secrets::Held,
}

impl Sandbox {
    /// Prepares a sandbox with the default options; see [`Sandbox::prepare_with`].
    ///
    /// # Errors
    ///
    /// As [`Sandbox::prepare_with`].
    pub async fn prepare(host: &Host, policy: Policy) -> Result<Self> {
        Self::prepare_with(host, policy, SandboxOptions::default()).await
    }

    /// Makes the namespace and its wire, commits both rulesets, and reads them back.
    ///
    /// When this returns, the fence stands, and the first connection of a program inside does not wait for anything.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Resolve`] for a direct endpoint whose name has no address where the built-in resolver is not there to wait for one, [`ErrorKind::Privilege`] without the
    /// privileges, [`ErrorKind::Exhausted`] when the pool has no address left, [`ErrorKind::Conflict`] when the name is
    /// taken, [`ErrorKind::Unsupported`] for what this kernel lacks, [`ErrorKind::Verify`] when the kernel holds something
    /// else than what was committed. Whatever had been set up is gone again.
    ///
    /// # Privileges
    ///
    /// `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`, in the user namespace that owns the host's network namespace; `CAP_NET_BIND_SERVICE` for the built-in
    /// resolver, and `CAP_SETPCAP` to start a command.
    ///
    /// # Kernel
    ///
    /// 5.16
    pub async fn prepare_with(host: &Host, policy: Policy, options: SandboxOptions) -> Result<Self> {
        let resolved = known::names(&policy, options.resolver.as_ref(), &options.names).await?;
        let held = secrets::Held::fetch(&policy).await?;
        let host = host.clone();
        // The first time it takes longer than all the rest, and nobody needs it before a command is there.
        let (finder, way) = (host.clone(), options.identity);
        let means = tokio::task::spawn_blocking(move || finder.means(way));
        let build = move || {
            let netns = host.netns().try_clone()?;
            // The host's namespace is where this thread must be, wherever the caller's runtime is.
            netns.run_near(|| Self::build(host, &policy, resolved, options, held)).and_then(|built| built).map_err(
                |error| match error.kind() {
                    ErrorKind::Privilege => Error::new(ErrorKind::Privilege, NEEDED).because(error),
                    _ => error,
                },
            )
        };
        match tokio::task::spawn_blocking(build).await {
            Ok(built) => built.map(|mut sandbox: Self| {
                sandbox.kept.start();
                sandbox.means = Some(means);
                sandbox
            }),
            Err(lost) => Err(Error::new(ErrorKind::Io, "the thread that prepared the sandbox was lost").because(lost)),
        }
    }

    fn build(
        host: Host,
        policy: &Policy,
        mut resolved: BTreeMap<DnsName, Vec<IpAddr>>,
        options: SandboxOptions,
        held: secrets::Held,
    ) -> Result<Self> {
        let mut links = rtnetlink::Socket::open()?;
        refuse_own(&mut links, policy, &mut resolved)?;
        let open = || -> Result<_> {
            let names = resolver::sockets(policy.dns.value)?;
            let rules = (nftables::Socket::open()?, nftables::Socket::open()?);
            let sockets = (rtnetlink::Socket::open()?, rules, listener::socket()?, names);
            Ok((sockets, monitor::bind()?))
        };
        let (userns, netns, sockets) = if options.user_namespace {
            let (userns, netns, sockets) = Userns::create_with(open)?;
            (Some(userns), netns, sockets)
        } else {
            // Cheaper by a process.
            let (netns, sockets) = Netns::create_with(open)?;
            (None, netns, sockets)
        };
        let ((mut inner_links, (mut rules, changes), unbound, unbound_names), receiver) = sockets?;
        // First the guard, then the name: a kill between the two leaves nothing either.
        let named = |name: &Sourced<SandboxName>| -> Result<_> {
            let guard = running::guard_name(&netns, name.value.as_str())?;
            let named = netns.name(name.value.as_str()).map_err(|error| {
                let what = format!("{}: can't name the sandbox `{}`", name.origin, name.value);
                Error::new(error.kind(), what).because(error)
            })?;
            Ok((named, guard))
        };
        let name = options.name.as_ref().map(named).transpose()?;
        let orders = options.name.as_ref().map(control::listen).transpose()?;
        let wire = wire(&mut links, &mut inner_links, &policy.pool.value, options.mtu)?;
        let mut plan = Plan::new(
            policy,
            &HostView {
                wire: wire.pair.clone(),
                host_index: wire.host_index.0,
                table_suffix: host.suffix().to_owned(),
                resolved: resolved.clone(),
                no_proxy: options.no_proxy.clone(),
            },
        )?;
        secrets::show_trust(&mut plan, policy);
        if !wire.ipv6 && plan.by_address().iter().any(IpAddr::is_ipv6) {
            let what = "a direct endpoint has an IPv6 address, and IPv6 is switched off on this host";
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        rules.commit(&plan.inside.create())?;
        // Between the two, so that what is verified is what stays, or its change is heard.
        let changes =
            nftables::Monitor::on(changes, plan.inside.tables.iter().map(|table| table.id.clone()).collect())?;
        rules.verify(&plan.inside)?;
        let id = options.name.as_ref().map_or_else(|| wire.pair.host.to_string(), |name| name.value.to_string());
        let on_report = options.on_report.clone().map(|tell| (tell, options.report_interval));
        let answers = Arc::new(Answers::new());
        let hub = Hub::new(id.into(), &plan, answers.clone(), on_report);
        let admission = host.admit(&wire, &plan)?;
        let resolvers = (options.resolver.clone(), options.names.clone());
        let live = Live::new(policy, &resolved, wire.pair.addresses, rules, admission, resolvers)?;
        let listeners = match &plan.proxy {
            ProxyPlan::BuiltIn { listen, .. } => vec![listener::listen(unbound, *listen)?],
            ProxyPlan::None | ProxyPlan::At(_) => Vec::new(),
        };
        let questions = resolver::listen(unbound_names)?;
        tracing::info!(
            wire = %wire.pair.host,
            index = wire.host_index.0,
            address4 = %wire.pair.addresses.sandbox4,
            address6 = %wire.pair.addresses.sandbox6,
            table = %host.suffix(),
            "the fence stands"
        );
        let kept = Kept::new(live);
        Ok(Self {
            name,
            listeners,
            questions,
            answers,
            changes: Some(changes),
            receiver: Some(receiver),
            hub,
            means: None,
            netns,
            userns,
            wire,
            kept,
            orders,
            host,
            plan,
            options,
            held,
        })
    }

    /// What was planned, and stood when it was prepared.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What changes its policy while it stands.
    pub fn control(&self) -> Control {
        Control(self.kept.live().clone())
    }

    /// The sandbox's namespace, for a caller with business of its own in it.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// What is refused, from the command's first instruction on: the fence's refusals, the proxy's and the resolver's. To be called
    /// as often as there are listeners. Each is told of what comes after the call, up to the [summary](crate::audit::Summary) that closes the stream.
    pub fn events(&self) -> EventStream {
        self.hub.events()
    }

    /// Where the namespace is mounted, if it has a name.
    pub fn path(&self) -> Option<&Path> {
        self.name.as_ref().map(|(name, _)| name.path())
    }

    /// Starts a command inside.
    ///
    /// The built-in proxy, where the policy asks for it, serves on the caller's tokio runtime from here on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Policy`] when it keeps capabilities that take [a user namespace](SandboxOptions::user_namespace) and there is none.
    /// [`ErrorKind::Child`] when the command can't be executed, with
    /// [`ExecError`](crate::kernel::child::ExecError) as a cause; otherwise as
    /// [`Child::spawn`](crate::kernel::child::Child::spawn). The sandbox is then gone.
    pub async fn spawn(self, command: Command) -> Result<Running> {
        Running::start(self, command).await
    }

    /// Takes everything down.
    ///
    /// # Errors
    ///
    /// The first thing that could not be undone; all else was.
    pub async fn close(mut self) -> Result<()> {
        let name = self.name.take();
        let admission = self.kept.retire();
        // Closing the namespace is what removes the wire; the kernel does it on its own time.
        drop(self);
        withdraw(name, admission).await
    }
}

/// What a caller without the privileges is told before the system call that was refused.
const NEEDED: &str = "a sandbox takes CAP_SYS_ADMIN and CAP_NET_ADMIN to make";

/// Undoes what the kernel does not undo by itself.
async fn withdraw(name: Option<(NamedNetns, Guard)>, admission: Option<Admission>) -> Result<()> {
    let undo = move || {
        // The guard goes when there is no name left for it to remove; until then it holds the namespace.
        let (name, guard) = name.unzip();
        let removed = name.map_or(Ok(()), NamedNetns::remove);
        let disarmed = guard.map_or(Ok(()), Guard::disarm);
        Error::all([removed, disarmed, admission.map_or(Ok(()), Admission::withdraw)])
    };
    match tokio::task::spawn_blocking(undo).await {
        Ok(undone) => undone,
        Err(lost) => Err(Error::new(ErrorKind::Io, "the thread that took the sandbox down was lost").because(lost)),
    }
}

/// Refuses a name that leads to this host itself: who answers for a name must not open the host's own services. An address
/// that the policy writes is the policy's word.
///
/// What a wildcard happens to cover is left out: the host itself is in its own hosts file.
fn refuse_own(
    links: &mut rtnetlink::Socket,
    policy: &Policy,
    resolved: &mut BTreeMap<DnsName, Vec<IpAddr>>,
) -> Result<()> {
    let named = |name: &DnsName| EndpointHost::Pattern(HostPattern::Exact(name.clone()));
    for (name, addresses) in resolved {
        let mut own = Vec::new();
        let mut lookups = Batch::default();
        addresses.iter().for_each(|address| lookups.push(Request::lookup(address.to_canonical())));
        for (address, reply) in addresses.iter().zip(links.try_each(lookups)?) {
            // Without a route there is nothing to refuse yet; that is said where routes are needed.
            if matches!(reply, Ok(Reply::Route(route)) if route.kind == RouteKind::Local) {
                own.push(*address);
                if !policy.direct.iter().any(|to| to.value.host == named(name)) {
                    continue;
                }
                let what = format!("`{name}` resolves to {address}, an address of this host");
                return Err(Error::new(ErrorKind::Resolve, what).hint("write the address itself if that is meant"));
            }
        }
        addresses.retain(|address| !own.contains(address));
    }
    Ok(())
}

/// Plans without doing: what [`Sandbox::prepare_with`] would set up if it were the only one on this host.
///
/// Names of direct endpoints are looked up in `/etc/hosts`, or resolved where the built-in resolver is off; nothing else is asked of the machine. The host's end of the wire has no index
/// yet and appears as 0.
///
/// # Errors
///
/// [`ErrorKind::Resolve`] and [`ErrorKind::Policy`], as [`Sandbox::prepare_with`].
pub async fn plan(policy: &Policy, options: &SandboxOptions) -> Result<Plan> {
    let resolved = known::names(policy, options.resolver.as_ref(), &options.names).await?;
    let name = |name| InterfaceName::new(name).map_err(PlanError::from);
    let exhausted = || Error::new(ErrorKind::Exhausted, format!("address pool {} has no slot", policy.pool.value.v4));
    let wire = VethPair {
        host: name("rf0")?,
        sandbox: name("eth0")?,
        addresses: policy.pool.value.slot(0).ok_or_else(exhausted)?,
    };
    let view =
        HostView { wire, host_index: 0, table_suffix: "0".to_owned(), resolved, no_proxy: options.no_proxy.clone() };
    let mut plan = Plan::new(policy, &view)?;
    secrets::show_trust(&mut plan, policy);
    Ok(plan)
}
