//! The host's side: one table for all sandboxes of a supervisor, and the uplinks that forward for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::rand::GetRandomFlags;

use crate::kernel::forwarding::{self, Forwarding};
use crate::kernel::guard::{Guard, Undo};
use crate::kernel::identity::{Means, Way};
use crate::kernel::link::Wire;
use crate::kernel::netns::Netns;
use crate::kernel::rtnetlink::{Batch, Refusal, Reply, Request, RouteKind};
use crate::kernel::uplink::{self, Uplink};
use crate::kernel::{nftables, rtnetlink};
use crate::link::{IfIndex, VethPair};
use crate::nft::{Chain, Element, InterfaceName, Object, SetName, Transaction, Verb};
use crate::plan::{DirectAddress, Forwarded, Open, Outside, Plan, PlanError};
use crate::{Error, ErrorKind, Result};

use super::counters::{Counters, Rules};

/// The network namespace that sandboxes are let out into, as one supervisor sees it.
///
/// Cheap to clone; all clones are one. Its table is made with the first sandbox and removed with the last.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    netns: Netns,
    outside: Outside,
    suffix: String,
    /// Looked for once, and then the same for every sandbox.
    means: OnceLock<Means>,
    state: Mutex<State>,
}

struct State {
    /// Owns the table: as long as this is open, so is the fence outside.
    table: nftables::Socket,
    links: rtnetlink::Socket,
    lock: uplink::Lock,
    sandboxes: usize,
    /// The table is there.
    made: bool,
    /// The chain of each sandbox's wire, and the host's end that it is bound to.
    wires: Vec<(Chain, InterfaceName)>,
    routing: bool,
    noted: BTreeSet<Uplink>,
    /// Uplinks that were found to forward already, by somebody else's will.
    forwarding: BTreeSet<Uplink>,
    /// Releases them if this process is killed.
    guard: Option<Guard>,
}

impl Host {
    /// Takes the caller's network namespace as host.
    ///
    /// Nothing is changed yet. The built-in proxy dials and resolves from where the threads of the caller's tokio runtime are, and
    /// a thread starts where the one was that started it. So build the runtime and call this on threads in the same namespace:
    /// a process that has only one needs to do nothing, and one that plays host somewhere else does both in [`Netns::run`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Kernel`] or [`ErrorKind::Io`] when the netlink sockets can't be opened.
    ///
    /// # Privileges
    ///
    /// None yet. [`Sandbox::prepare`](crate::Sandbox::prepare) says what it needs.
    pub fn open() -> Result<Self> {
        let mut random = [0u8; 6];
        rustix::rand::getrandom(&mut random, GetRandomFlags::empty()).map_err(|errno| {
            Error::new(ErrorKind::Io, "can't get random bytes").because(std::io::Error::from(errno))
        })?;
        let suffix: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self(Arc::new(Inner {
            netns: Netns::current()?,
            outside: Outside::new(&suffix).map_err(crate::plan::PlanError::from)?,
            suffix,
            means: OnceLock::new(),
            state: Mutex::new(State {
                table: nftables::Socket::open()?,
                links: rtnetlink::Socket::open()?,
                lock: uplink::Lock::default(),
                sandboxes: 0,
                made: false,
                wires: Vec::new(),
                routing: false,
                noted: BTreeSet::new(),
                forwarding: BTreeSet::new(),
                guard: None,
            }),
        })))
    }

    /// The host's namespace.
    pub fn netns(&self) -> &Netns {
        &self.0.netns
    }

    /// What the rules on the host's side counted so far, those of all sandboxes together. No rules before there is a sandbox.
    ///
    /// # Errors
    ///
    /// As [`nftables::Socket::table`].
    pub fn counters(&self) -> Result<Counters> {
        let id = self.0.outside.table();
        let rules = Rules::of([id.clone()]);
        let (rules, _) = rules.read(&mut self.state().table)?;
        // Nobody else may change it.
        Ok(Counters { of: id.name.as_str().into(), rules, refused: None, lost: None, intact: true })
    }

    /// What tells this supervisor's table from another's.
    pub(super) fn suffix(&self) -> &str {
        &self.0.suffix
    }

    /// Finds a way to tell who tried, or takes the one that was found before. Blocks: a program may have to be loaded.
    pub(super) fn means(&self, way: Way) -> Result<Means> {
        match (way, self.0.means.get()) {
            (Way::Auto, _) => {
                // At worst it says that there is none.
                let find =
                    || Means::find(Way::Auto).unwrap_or_else(|error| Means::None { reason: error.chain().into() });
                Ok(self.0.means.get_or_init(find).clone())
            }
            (Way::Bpf, Some(found @ Means::Bpf(_))) => Ok(found.clone()),
            (way, _) => Means::find(way),
        }
    }

    /// A second descriptor of the socket that owns the table: while it is open, the table stays.
    pub(super) fn share_table(&self) -> Result<nftables::Socket> {
        self.state().table.try_clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What is in there is true after every step, so a panic elsewhere does not spoil it.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a sandbox known to the host's fence, and opens its direct endpoints there.
    ///
    /// Must run on a thread in the host's namespace.
    pub(super) fn admit(&self, wire: &Wire, plan: &Plan) -> Result<Admission> {
        let outside = &self.0.outside;
        let open = plan.opened();
        let (index, audit) = (wire.host_index.0, plan.audit.value);
        let sandbox = |open| outside.sandbox(index, &wire.pair.addresses, open, audit).map_err(PlanError::from);
        let (all, elements) = (sandbox(&open)?, sandbox(&[])?);
        // Before the lock is taken, and so dropped after it was given back: dropping it takes the lock again.
        let mut admission = Admission {
            host: self.clone(),
            index: wire.host_index,
            outlives: false,
            wire: None,
            elements: Vec::new(),
            open: BTreeSet::new(),
            forwards: Forwarding::default(),
            withdrawn: true,
        };
        let mut state = self.state();
        if !state.made {
            state.create(outside)?;
        }
        state.sandboxes += 1;
        // From here on, dropping the admission undoes what was done.
        admission.withdrawn = false;
        let prepare = || -> Result<()> {
            if plan.forwarding != Forwarded::default() {
                // Before there are elements, or they would be read back with the rules.
                state.have_routing(outside)?;
            }
            let (chain, rule) = outside.wire(&wire.pair.host)?;
            let mut transaction = Transaction::new();
            transaction.push(Verb::Create, Object::Chain(chain.clone()));
            transaction.push(Verb::Add, Object::Rule(rule));
            for (set, elements) in &all {
                let (table, set, elements) = (outside.table().clone(), set.clone(), elements.clone());
                transaction.push(Verb::Add, Object::Elements { table, set, elements });
            }
            state.table.commit(&transaction)?;
            admission.elements = elements;
            admission.open = open.iter().map(|open| open.to).collect();
            admission.wire = Some(chain.clone());
            state.wires.push((chain, wire.pair.host.clone()));
            if plan.forwarding != Forwarded::default() {
                let addresses: BTreeSet<IpAddr> = open.iter().map(|open| open.to.address).collect();
                let must = plan.by_address();
                let must6 = must.iter().any(IpAddr::is_ipv6);
                admission.forwards = state.route(outside, wire.host_index, plan.forwarding, must6)?;
                let mut uplinks = Vec::new();
                for (address, way) in state.ways(&addresses.into_iter().collect::<Vec<_>>())? {
                    let forwards = if address.is_ipv4() { admission.forwards.v4 } else { admission.forwards.v6 };
                    match way.uplink(address) {
                        Ok(uplink) => uplinks.extend(uplink.filter(|_| forwards)),
                        Err(error) if must.contains(&address) => return Err(error),
                        // That one of the addresses to which names lead can't be reached is no reason not to start.
                        Err(error) => tracing::info!(error = %error.chain(), "an address of a name can't be reached"),
                    }
                }
                if plan.audit.value {
                    uplinks.extend(state.everywhere(admission.forwards)?);
                }
                state.note(outside, uplinks)?;
            }
            Ok(())
        };
        let prepared = prepare();
        drop(state);
        prepared.map(|()| admission)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("table", self.0.outside.table()).finish_non_exhaustive()
    }
}

impl State {
    /// Makes the table and reads it back.
    fn create(&mut self, outside: &Outside) -> Result<()> {
        let ruleset = outside.ruleset()?;
        self.table.commit(&ruleset.create())?;
        self.made = true;
        self.table.verify(&ruleset).inspect_err(|_| {
            // The error that matters is the first.
            let _ = self.remove(outside);
        })
    }

    /// Adds the rules that direct endpoints need, and reads them back.
    fn have_routing(&mut self, outside: &Outside) -> Result<()> {
        if self.routing {
            return Ok(());
        }
        self.table.commit(&outside.add_routing()?)?;
        let mut want = outside.routing_ruleset()?;
        // The rules are what is compared here; the elements of other sandboxes stand in the sets already.
        if let Some(have) = self.table.table(outside.table())? {
            want.elements = have.elements;
            for (chain, wire) in &self.wires {
                // Before Linux 6.16, the kernel removes a chain with the interface that it is bound to.
                if have.chains.iter().any(|there| there.name == chain.name) {
                    let (chain, rule) = outside.wire(wire)?;
                    want.chains.push(chain);
                    want.rules.push(rule);
                }
            }
        }
        // Until they are what was meant, nobody is routed by them.
        self.table.verify(&want)?;
        self.routing = true;
        Ok(())
    }

    /// Adds what direct endpoints need, and switches forwarding on where the sandbox's packets arrive. Gives back what forwards now, which
    /// lacks IPv6 where that can't be had and need not be.
    fn route(&mut self, outside: &Outside, host_index: IfIndex, wanted: Forwarded, must6: bool) -> Result<Forwarding> {
        self.have_routing(outside)?;
        let wanted = Forwarding { v4: wanted.v4, v6: wanted.v6 };
        match forwarding::set(&mut self.links, host_index, wanted) {
            Ok(_) => Ok(wanted),
            Err(error) if wanted.v6 && !must6 => {
                tracing::info!(error = %error.chain(), "IPv6 addresses of names can't be reached");
                let only4 = Forwarding { v6: false, ..wanted };
                forwarding::set(&mut self.links, host_index, only4).map(|_| only4)
            }
            Err(error) => Err(error),
        }
    }

    /// Where packets to these addresses go.
    fn ways(&mut self, addresses: &[IpAddr]) -> Result<Vec<(IpAddr, Hop)>> {
        let lookups: Batch = addresses.iter().map(|address| Request::lookup(*address)).collect();
        let replies = self.links.try_each(lookups)?;
        let way = |reply: std::result::Result<Reply, Refusal>| match reply {
            Ok(reply) => reply.route().map(|route| match (route.kind, route.interface) {
                (RouteKind::Local, _) => Hop::Own,
                (RouteKind::Broadcast | RouteKind::Multicast, _) => Hop::Many,
                (_, interface) => Hop::By(interface),
            }),
            Err(refusal) => Ok(Hop::Nowhere(Error::from(refusal))),
        };
        addresses.iter().zip(replies).map(|(address, reply)| Ok((*address, way(reply)?))).collect()
    }

    /// Every interface that something is routed by, but for the sandboxes' own, each with an address that is behind it.
    fn everywhere(&mut self, forwards: Forwarding) -> Result<Vec<(Uplink, IpAddr)>> {
        let links = self.links.links()?;
        let others = |index| links.iter().any(|link| link.index == index && !VethPair::is_host_end(&link.name));
        let ways = self.links.routes()?.into_iter().filter(|route| route.kind == RouteKind::Unicast);
        Ok(ways
            .filter_map(|route| {
                let address = route.destination.addr();
                let uplink = Uplink { index: route.interface?, v4: address.is_ipv4() };
                let wanted = if uplink.v4 { forwards.v4 } else { forwards.v6 };
                (wanted && others(uplink.index)).then_some((uplink, address))
            })
            .collect())
    }

    /// Makes uplinks forward, each with one address that is behind it.
    ///
    /// Must run on a thread in the host's namespace.
    fn note(&mut self, outside: &Outside, uplinks: Vec<(Uplink, IpAddr)>) -> Result<()> {
        let mut new: BTreeMap<Uplink, IpAddr> = BTreeMap::new();
        for (uplink, to) in uplinks {
            if !self.noted.contains(&uplink) {
                new.entry(uplink).or_insert(to);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        self.guard(outside, new.keys().copied())?;
        for (uplink, to) in new {
            let noted = uplink::acquire(&mut self.table, &mut self.links, &mut self.lock, outside, uplink);
            let noted = noted.map_err(|error| {
                let what = format!("can't let answers from {to} in by interface {}", uplink.index);
                Error::new(error.kind(), what).because(error)
            })?;
            if noted {
                self.noted.insert(uplink)
            } else {
                self.forwarding.insert(uplink)
            };
        }
        Ok(())
    }

    /// [`State::note`] from any thread.
    fn note_near(&mut self, host: &Host, uplinks: Vec<(Uplink, IpAddr)>) -> Result<()> {
        if uplinks.iter().all(|(uplink, _)| self.noted.contains(uplink) || self.forwarding.contains(uplink)) {
            return Ok(());
        }
        host.netns().run_near(|| self.note(&host.0.outside, uplinks)).and_then(|noted| noted)
    }

    /// Forks a guard that releases what was noted and `next`, before `next` is. A note that was never made can't be
    /// taken back, and an uplink without a note is left as it is.
    fn guard(&mut self, outside: &Outside, next: impl IntoIterator<Item = Uplink>) -> Result<()> {
        let mut table = self.table.try_clone()?;
        let mut links = rtnetlink::Socket::open()?;
        let keep = vec![table.as_fd().as_raw_fd(), links.as_fd().as_raw_fd()];
        let outside = outside.clone();
        let mut noted = self.noted.clone();
        noted.extend(next);
        let run = Box::new(move || {
            // Nobody is left to be told what could not be undone.
            let _ = uplink::release(&mut table, &mut links, &mut uplink::Lock::default(), &outside, &noted);
        });
        // The one before goes when this one stands.
        self.guard = Some(Guard::arm(vec![Undo::Call { keep, run }])?);
        Ok(())
    }

    fn remove(&mut self, outside: &Outside) -> Result<()> {
        let ruleset = outside.ruleset()?;
        let mut transaction = Transaction::new();
        for table in ruleset.tables {
            transaction.push(Verb::Delete, Object::Table(table));
        }
        self.table.commit(&transaction)?;
        (self.made, self.routing) = (false, false);
        Ok(())
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if !self.noted.is_empty()
            && let Some(guard) = self.guard.take()
        {
            guard.fire();
        }
    }
}

/// Where packets to an address go.
#[derive(Debug)]
enum Hop {
    /// To this host itself: delivered, not forwarded.
    Own,
    /// To all of a network.
    Many,
    /// Out by an interface.
    By(Option<IfIndex>),
    /// There is no route.
    Nowhere(Error),
}

impl Hop {
    /// The uplink that answers from that address come in by, if they come by one.
    fn uplink(self, address: IpAddr) -> Result<Option<(Uplink, IpAddr)>> {
        match self {
            Hop::Own | Hop::Many | Hop::By(None) => Ok(None),
            Hop::By(Some(index)) => Ok(Some((Uplink { index, v4: address.is_ipv4() }, address))),
            Hop::Nowhere(error) => {
                Err(Error::new(ErrorKind::Kernel, format!("the host has no route to {address}")).because(error))
            }
        }
    }
}

/// Whether an address of a name can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// It is an address of this host.
    Own,
    /// Packets would go nowhere.
    Nowhere,
    /// Answers find their way back.
    Ready,
}

/// A sandbox's place in the host's table. Dropping it takes the sandbox out, and with the last one the table.
#[derive(Debug)]
pub(super) struct Admission {
    host: Host,
    /// The host's end of its wire.
    index: IfIndex,
    /// Whether the wire may outlive its programs.
    outlives: bool,
    /// The chain of its wire.
    wire: Option<Chain>,
    /// What stands for the sandbox itself.
    elements: Vec<(SetName, Vec<Element>)>,
    /// Direct endpoints that may still be open; some may have run out.
    open: BTreeSet<DirectAddress>,
    /// What its wire forwards.
    forwards: Forwarding,
    withdrawn: bool,
}

impl Admission {
    /// Has the wire removed before the sandbox is taken out of the table.
    ///
    /// A program with CAP_NET_ADMIN may have put a queue of its own on the wire. Packets that wait there hold their namespace
    /// after the last program has gone, and must not find the host's side open when their time comes.
    pub(super) fn expect_queues(&mut self) {
        self.outlives = true;
    }

    /// Has everything ready for packets to these addresses, which names led to, as far as it can be.
    pub(super) fn reach(&mut self, addresses: &[IpAddr]) -> Result<Vec<Reach>> {
        let host = self.host.clone();
        let mut state = host.state();
        let mut reached = Vec::with_capacity(addresses.len());
        for (address, way) in state.ways(addresses)? {
            let forwards = if address.is_ipv4() { self.forwards.v4 } else { self.forwards.v6 };
            reached.push(match way {
                Hop::Own => Reach::Own,
                Hop::Nowhere(_) | Hop::Many => Reach::Nowhere,
                Hop::By(_) if !forwards => Reach::Nowhere,
                Hop::By(None) => Reach::Ready,
                Hop::By(Some(index)) => {
                    let uplink = Uplink { index, v4: address.is_ipv4() };
                    let noted = state.note_near(&host, vec![(uplink, address)]);
                    noted
                        .inspect_err(
                            |error| tracing::warn!(error = %error.chain(), "an address of a name stays closed"),
                        )
                        .map_or(Reach::Nowhere, |()| Reach::Ready)
                }
            });
        }
        Ok(reached)
    }

    /// Has everything ready for packets to these addresses, which the policy names; `names` tells that it has names, too.
    pub(super) fn route(&mut self, addresses: &BTreeSet<IpAddr>, names: bool) -> Result<()> {
        let host = self.host.clone();
        let mut state = host.state();
        let must6 = addresses.iter().any(IpAddr::is_ipv6);
        let wanted = Forwarded {
            v4: self.forwards.v4 || names || addresses.iter().any(IpAddr::is_ipv4),
            v6: self.forwards.v6 || names || must6,
        };
        // Once it was tried for names alone and could not be had, it is not tried for them again.
        let missing6 = wanted.v6 && !self.forwards.v6 && (must6 || !self.forwards.v4);
        if (wanted.v4 && !self.forwards.v4) || missing6 {
            self.forwards = state.route(&host.0.outside, self.index, wanted, must6)?;
        }
        let ways = state.ways(&addresses.iter().copied().collect::<Vec<_>>())?;
        let uplinks = ways.into_iter().filter_map(|(address, way)| way.uplink(address).transpose());
        state.note_near(&host, uplinks.collect::<Result<_>>()?)
    }

    /// Closes and opens direct endpoints, in one transaction.
    pub(super) fn change(&mut self, close: &[DirectAddress], open: &[Open]) -> Result<()> {
        let host = self.host.clone();
        let transaction = host.0.outside.change_direct(self.index.0, close, open).map_err(PlanError::from)?;
        // Before, so that what a lost answer leaves in doubt is taken out in the end.
        self.open.extend(open.iter().map(|open| open.to));
        host.state().table.commit(&transaction)?;
        for to in close {
            self.open.remove(to);
        }
        Ok(())
    }

    /// Forgets endpoints that have run out.
    pub(super) fn forget(&mut self, gone: &[DirectAddress]) {
        for to in gone {
            self.open.remove(to);
        }
    }

    /// The host that it is in.
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// Takes the sandbox out of the table, reporting everything that went wrong.
    pub(super) fn withdraw(mut self) -> Result<()> {
        self.undo()
    }

    fn undo(&mut self) -> Result<()> {
        self.withdrawn = true;
        let host = self.host.clone();
        let mut state = host.state();
        let outside = &host.0.outside;
        let elements = std::mem::take(&mut self.elements);
        let open: Vec<DirectAddress> = std::mem::take(&mut self.open).into_iter().collect();
        let mut outcomes = Vec::new();
        if self.outlives {
            // An error means that it is gone already.
            let _ = state.links.commit(Batch::from([Request::delete_link(self.index)]));
        }
        if !elements.is_empty() {
            let closed = outside.change_direct(self.index.0, &open, &[]).map_err(|error| PlanError::from(error).into());
            outcomes.push(closed.and_then(|closed| {
                let mut transaction = outside.change(Verb::Delete, elements);
                closed.operations().iter().for_each(|step| transaction.push(step.verb, step.object.clone()));
                state.table.commit(&transaction).map(|_| ())
            }));
        }
        if let Some(chain) = self.wire.take() {
            state.wires.retain(|(other, _)| other.name != chain.name);
            let mut transaction = Transaction::new();
            transaction.push(Verb::Delete, Object::Chain(chain));
            // Before Linux 6.16, the kernel removes it with the interface that it is bound to.
            let _ = state.table.commit(&transaction);
        }
        state.sandboxes -= 1;
        if state.sandboxes == 0 {
            let State { table, links, lock, noted, .. } = &mut *state;
            let released = if noted.is_empty() {
                Ok(())
            } else {
                host.0.netns.run_near(|| uplink::release(table, links, lock, outside, noted)).and_then(|done| done)
            };
            // What could not be released stays noted, in the table as here: the next sandbox's end tries again, and in the end the
            // guard does.
            let removed = match released {
                Ok(()) => {
                    state.noted.clear();
                    state.forwarding.clear();
                    state.guard = None;
                    state.remove(outside)
                }
                failed => failed,
            };
            outcomes.push(removed);
        }
        Error::all(outcomes)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.withdrawn {
            return;
        }
        // Something failed before, and that is the error to report.
        if let Err(error) = self.undo() {
            tracing::warn!(error = %error.chain(), "can't take a sandbox out of the host's table");
        }
    }
}
