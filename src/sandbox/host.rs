//! The host's side: one table for all sandboxes of a supervisor, and the uplinks that forward for them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::rand::GetRandomFlags;

use crate::kernel::forwarding::{self, Forwarding};
use crate::kernel::guard::{Guard, Undo};
use crate::kernel::link::Wire;
use crate::kernel::netns::Netns;
use crate::kernel::rtnetlink::{Batch, Request, RouteKind};
use crate::kernel::uplink::{self, Uplink};
use crate::kernel::{nftables, rtnetlink};
use crate::link::IfIndex;
use crate::nft::{Chain, Element, InterfaceName, Object, SetName, Transaction, Verb};
use crate::plan::{DirectAddress, Outside, Plan};
use crate::{Error, ErrorKind, Result};

/// The network namespace that sandboxes are let out into, as one supervisor sees it.
///
/// Cheap to clone; all clones are one. Its table is made with the first sandbox and removed with the last.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    netns: Netns,
    outside: Outside,
    suffix: String,
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
    /// None yet. [`Sandbox::prepare`](crate::Sandbox::prepare) needs `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`.
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
            state: Mutex::new(State {
                table: nftables::Socket::open()?,
                links: rtnetlink::Socket::open()?,
                lock: uplink::Lock::default(),
                sandboxes: 0,
                made: false,
                wires: Vec::new(),
                routing: false,
                noted: BTreeSet::new(),
                guard: None,
            }),
        })))
    }

    /// The host's namespace.
    pub fn netns(&self) -> &Netns {
        &self.0.netns
    }

    /// What tells this supervisor's table from another's.
    pub(super) fn suffix(&self) -> &str {
        &self.0.suffix
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
        let elements = outside
            .sandbox(wire.host_index.0, &wire.pair.addresses, &plan.direct)
            .map_err(crate::plan::PlanError::from)?;
        // Before the lock is taken, and so dropped after it was given back: dropping it takes the lock again.
        let mut admission = Admission {
            host: self.clone(),
            index: wire.host_index,
            outlives: false,
            wire: None,
            elements: Vec::new(),
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
            let (chain, rule) = outside.wire(&wire.pair.host)?;
            let mut transaction = Transaction::new();
            transaction.push(Verb::Create, Object::Chain(chain.clone()));
            transaction.push(Verb::Add, Object::Rule(rule));
            for (set, elements) in &elements {
                let (table, set, elements) = (outside.table().clone(), set.clone(), elements.clone());
                transaction.push(Verb::Add, Object::Elements { table, set, elements });
            }
            state.table.commit(&transaction)?;
            admission.elements = elements;
            admission.wire = Some(chain.clone());
            state.wires.push((chain, wire.pair.host.clone()));
            if !plan.direct.is_empty() {
                state.route(outside, wire.host_index, &plan.direct)?;
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

    /// Adds what direct endpoints need, and switches forwarding on where their packets pass.
    fn route(&mut self, outside: &Outside, host_index: IfIndex, direct: &[DirectAddress]) -> Result<()> {
        if !self.routing {
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
        }
        let v4 = direct.iter().any(|to| to.address.is_ipv4());
        let v6 = direct.iter().any(|to| to.address.is_ipv6());
        forwarding::set(&mut self.links, host_index, Forwarding { v4, v6 })?;
        let mut new = uplinks(&mut self.links, direct)?;
        new.retain(|(uplink, _)| !self.noted.contains(uplink));
        if new.is_empty() {
            return Ok(());
        }
        self.guard(outside, new.iter().map(|(uplink, _)| *uplink))?;
        for (uplink, to) in new {
            let noted = uplink::acquire(&mut self.table, &mut self.links, &mut self.lock, outside, uplink);
            let noted = noted.map_err(|error| {
                let what = format!("can't let answers from {to} in by interface {}", uplink.index);
                Error::new(error.kind(), what).because(error)
            })?;
            if noted {
                self.noted.insert(uplink);
            }
        }
        Ok(())
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

/// The interfaces by which packets to these endpoints leave, each with one endpoint that is behind it.
fn uplinks(links: &mut rtnetlink::Socket, direct: &[DirectAddress]) -> Result<Vec<(Uplink, IpAddr)>> {
    let mut found: Vec<(Uplink, IpAddr)> = Vec::new();
    let mut lookups = Batch::default();
    direct.iter().for_each(|to| lookups.push(Request::lookup(to.address)));
    for (to, reply) in direct.iter().zip(links.try_each(lookups)?) {
        let route = match reply {
            Ok(reply) => reply.route()?,
            Err(error) => {
                let what = format!("the host has no route to {}", to.address);
                return Err(Error::new(ErrorKind::Kernel, what).because(Error::from(error)));
            }
        };
        // An address of the host's own is delivered, not forwarded.
        if route.kind == RouteKind::Local {
            continue;
        }
        let Some(index) = route.interface else { continue };
        let uplink = Uplink { index, v4: to.address.is_ipv4() };
        if !found.iter().any(|(known, _)| *known == uplink) {
            found.push((uplink, to.address));
        }
    }
    Ok(found)
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
    elements: Vec<(SetName, Vec<Element>)>,
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

    /// Takes the sandbox out of the table, reporting the first thing that went wrong.
    pub(super) fn withdraw(mut self) -> Result<()> {
        self.undo()
    }

    fn undo(&mut self) -> Result<()> {
        self.withdrawn = true;
        let host = self.host.clone();
        let mut state = host.state();
        let outside = &host.0.outside;
        let elements = std::mem::take(&mut self.elements);
        let mut first = Ok(());
        if self.outlives {
            // An error means that it is gone already.
            let _ = state.links.commit(Batch::from([Request::delete_link(self.index)]));
        }
        if !elements.is_empty() {
            first = state.table.commit(&outside.change(Verb::Delete, elements)).map(|_| ());
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
                    state.guard = None;
                    state.remove(outside)
                }
                failed => failed,
            };
            first = first.and(removed);
        }
        first
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
