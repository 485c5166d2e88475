//! A fence that changes while it stands: addresses of names come and go with their answers, endpoints by order.
//!
//! Everything that is open to a sandbox beyond what it began with goes through one lock and is committed as one transaction on each side of the
//! fence: outside first, then inside, so that what the inside lets out is never refused outside. The path of packets adds
//! and refreshes nothing by itself: what is taken out is out.

mod book;
mod change;
mod hand;
mod keeper;
mod mend;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::sync::{Notify, OwnedMutexGuard, watch};
use tokio::task::JoinHandle;

use crate::dns::{Gate, Handed, HostResolver, Refused};
use crate::kernel::netns::Netns;
use crate::kernel::{conntrack, inet_diag, nftables};
use crate::link::Addresses;
use crate::plan::{DirectAddress, HELD, Open, change_inside};
use crate::policy::{DnsName, Policy, Transport, special};
use crate::proxy::{AllowList, Resolve};
use crate::{Error, ErrorKind, Result};

use super::host::{Admission, Reach};
use super::known::Known;
use super::secrets;

use book::{Book, Scope};
use hand::Hand;

pub use change::{Control, Entry};

/// One sandbox's fence, as it is now.
pub(super) struct Live {
    /// Does what blocks.
    hand: Hand,
    state: Mutex<State>,
    /// Whoever changes anything has it, from the first look at the state to the last note in it. The state's own lock is given back where something is
    /// asked of the sandbox's namespace: a program that may do so can make the kernel take long there, and nobody else is to wait for it.
    ///
    /// None when the sandbox is gone. Whoever still has it, or waits for it, keeps it until he lets go.
    inside: Mutex<Option<Arc<tokio::sync::Mutex<Inside>>>>,
    /// Read on every question for a name, while a commit may hold the other lock.
    scope: RwLock<Arc<Scope>>,
    /// What the built-in proxy lets through.
    allow: watch::Sender<AllowList>,
    /// Something runs out earlier than the keeper expects, or is gone altogether.
    sooner: Notify,
    /// One change of the policy at a time.
    changing: tokio::sync::Mutex<()>,
    /// Names of direct endpoints, where the built-in resolver is off.
    resolver: Arc<dyn Resolve>,
    /// Knows the host's hosts file.
    names: HostResolver,
    /// The program trusts an authority, so that the proxy can look into TLS.
    intercepted: bool,
    /// The built-in proxy is there.
    proxied: bool,
}

struct State {
    policy: Policy,
    book: Book,
    /// None when the sandbox is gone.
    admission: Option<Admission>,
    /// When the keeper looks next.
    wake: Option<Instant>,
}

/// What reaches into the sandbox's namespace, and what belongs to a change.
struct Inside {
    /// The wire's addresses: what flows of the sandbox come from.
    addresses: Addresses,
    /// Those inside.
    rules: nftables::Socket,
    /// The host's. Opened when first needed.
    flows: Option<conntrack::Socket>,
    sockets: Option<inet_diag::Socket>,
}

/// The right to change what a sandbox has open.
pub(super) struct Turn {
    live: Arc<Live>,
    /// None when the sandbox is gone.
    inside: Option<OwnedMutexGuard<Inside>>,
}

impl Live {
    /// Takes over a fence that stands as planned.
    pub(super) fn new(
        policy: &Policy,
        known: &Known,
        addresses: Addresses,
        rules: nftables::Socket,
        admission: Admission,
        (resolver, names): (Arc<dyn Resolve>, HostResolver),
    ) -> Result<Arc<Self>> {
        let now = Instant::now();
        let (hosts, led) = told_apart(policy, known, now);
        // The plan has opened exactly this.
        let book = Book::new(policy).change(policy, &hosts, &led, now).next;
        let scope = RwLock::new(book.scope.clone());
        let state = State { policy: policy.clone(), book, admission: Some(admission), wake: None };
        let inside = Inside { addresses, rules, flows: None, sockets: None };
        Ok(Arc::new(Self {
            hand: Hand::new()?,
            state: Mutex::new(state),
            inside: Mutex::new(Some(Arc::new(tokio::sync::Mutex::new(inside)))),
            scope,
            allow: watch::channel(allow_list(policy)).0,
            sooner: Notify::new(),
            changing: tokio::sync::Mutex::new(()),
            resolver,
            names,
            intercepted: secrets::looks_into_tls(policy),
            proxied: !policy.allow.is_empty() || policy.proxy.is_some(),
        }))
    }

    /// What the built-in proxy lets through, now and later.
    pub(super) fn allow_list(&self) -> watch::Receiver<AllowList> {
        self.allow.subscribe()
    }

    /// The policy as it is now.
    pub(super) fn policy(&self) -> Policy {
        self.state().policy.clone()
    }

    /// Changes the host's side before anything else ends: see [`Admission::expect_queues`].
    pub(super) fn expect_queues(&self) {
        if let Some(admission) = &mut self.state().admission {
            admission.expect_queues();
        }
    }

    /// Lets go of the namespace, and gives back the place in the host's table. Nothing can be changed from here on.
    pub(super) fn retire(&self) -> Option<Admission> {
        let admission = self.state().admission.take();
        self.sooner.notify_one();
        *self.inside.lock().unwrap_or_else(PoisonError::into_inner) = None;
        admission
    }

    fn inside(&self) -> Option<Arc<tokio::sync::Mutex<Inside>>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits, without a thread, until nobody else changes anything.
    pub(super) async fn turn(self: &Arc<Self>) -> Turn {
        let inside = match self.inside() {
            Some(inside) => Some(inside.lock_owned().await),
            None => None,
        };
        Turn { live: self.clone(), inside }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What is in there is noted after it was done, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn scope(&self) -> Arc<Scope> {
        self.scope.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What can be said of an answer without committing anything, or waiting for anybody: an answer from memory finds everything open, mostly.
    fn open_already(
        &self,
        name: &DnsName,
        addresses: &[(IpAddr, Duration)],
    ) -> Option<std::result::Result<(), Refused>> {
        let inside = self.inside()?;
        let _turn = inside.try_lock().ok()?;
        let mut state = self.state.try_lock().ok()?;
        state
            .wanting(name, addresses, Instant::now())
            .map(|wanting| wanting.is_none())
            .map_or_else(|refused| Some(Err(refused)), |already| already.then_some(Ok(())))
    }
}

impl Turn {
    /// Opens what a name leads to. Blocks.
    fn open(mut self, name: &DnsName, addresses: &[(IpAddr, Duration)]) -> std::result::Result<(), Refused> {
        let live = self.live.clone();
        let mut state = live.state();
        let now = Instant::now();
        let Some(until) = state.wanting(name, addresses, now)? else { return Ok(()) };
        let only: Vec<IpAddr> = until.iter().map(|(address, _)| *address).collect();
        let admission = state.admission.as_mut().ok_or_else(|| Refused::Failed(gone()))?;
        let reached = admission.reach(&only).map_err(Refused::Failed)?;
        let mut ready = Vec::with_capacity(until.len());
        for (to, reach) in until.into_iter().zip(reached) {
            match reach {
                Reach::Own => return Err(Refused::Special { address: to.0, class: "an address of this host" }),
                // Not opened, so refused at once, where it would else be waited for; other addresses of the name may do.
                Reach::Nowhere => {}
                Reach::Ready => ready.push(to),
            }
        }
        let missing = state.book.missing(name, &ready);
        let open = state.book.elements(&missing, now);
        drop(state);
        self.commit(&open).map_err(Refused::Failed)?;
        let mut state = live.state();
        state.book.led(name, &ready);
        state.book.armed(&missing);
        // What was armed before is known to the keeper.
        let next = missing.iter().map(|(_, until)| *until).min();
        if let Some(next) = next.filter(|next| state.wake.is_none_or(|wake| *next + keeper::TOGETHER < wake)) {
            state.wake = Some(next);
            live.sooner.notify_one();
        }
        Ok(())
    }

    /// Opens on both sides, outside first. What could not be opened inside is closed outside.
    fn commit(&mut self, open: &[Open]) -> Result<()> {
        if open.is_empty() {
            return Ok(());
        }
        self.commit_outside(&[], open)?;
        self.commit_inside(&[], open).inspect_err(|_| {
            let new: Vec<DirectAddress> = open.iter().filter(|open| !open.there).map(|open| open.to).collect();
            let _ = self.commit_outside(&new, &[]);
        })
    }

    fn commit_outside(&self, close: &[DirectAddress], open: &[Open]) -> Result<()> {
        self.live.state().admission.as_mut().ok_or_else(gone)?.change(close, open)
    }

    fn commit_inside(&mut self, close: &[DirectAddress], open: &[Open]) -> Result<()> {
        self.inside()?.rules.commit(&change_inside(close, open)?).map(drop)
    }

    fn inside(&mut self) -> Result<&mut Inside> {
        self.inside.as_deref_mut().ok_or_else(gone)
    }

    /// Which of these endpoints have a flow that lives.
    fn used(&mut self, due: &[DirectAddress]) -> Result<HashSet<DirectAddress>> {
        let due: HashSet<DirectAddress> = due.iter().copied().collect();
        let flows = self.flows()?.into_iter().filter(|flow| flow.lives());
        Ok(flows.filter_map(|flow| endpoint(&flow)).filter(|to| due.contains(to)).collect())
    }

    /// The sandbox's flows through the host.
    fn flows(&mut self) -> Result<Vec<crate::wire::conntrack::Flow>> {
        let addresses = self.inside()?.addresses;
        let socket = self.conntrack()?;
        let mut flows = socket.from(addresses.sandbox4.into())?;
        flows.extend(socket.from(addresses.sandbox6.into())?);
        Ok(flows)
    }

    fn conntrack(&mut self) -> Result<&mut conntrack::Socket> {
        let host = self.live.state().admission.as_ref().ok_or_else(gone)?.host().clone();
        match &mut self.inside()?.flows {
            Some(socket) => Ok(socket),
            empty => Ok(empty.insert(host.netns().run_near(conntrack::Socket::open)??)),
        }
    }

    /// Ends the flows to these endpoints: connections inside are aborted, which tells the peer, and the host forgets them.
    fn cut(&mut self, closed: &[DirectAddress]) -> Result<()> {
        let unwanted: HashSet<DirectAddress> = closed.iter().copied().collect();
        for flow in self.flows()? {
            if endpoint(&flow).is_some_and(|to| unwanted.contains(&to)) {
                self.conntrack()?.delete(&flow)?;
            }
        }
        Ok(())
    }

    /// Aborts the connections inside that lead to these endpoints, so that their programs hear of it at once.
    fn abort(&mut self, closed: &[DirectAddress]) {
        let mut abort = || -> Result<()> {
            let Inside { rules, sockets, .. } = self.inside()?;
            let sockets = match sockets {
                Some(sockets) => sockets,
                empty => empty.insert(Netns::of_socket(rules)?.run(inet_diag::Socket::open)??),
            };
            for transport in [Transport::Tcp, Transport::Udp] {
                let unwanted: HashSet<(IpAddr, u16)> = closed
                    .iter()
                    .filter(|to| to.transport == transport)
                    .map(|to| (to.address, to.port.get()))
                    .collect();
                if !unwanted.is_empty() {
                    sockets.abort(transport.protocol(), |address, port| unwanted.contains(&(address, port)))?;
                }
            }
            Ok(())
        };
        // Their packets are refused either way: a program hears of it when it sends next, or runs into a time-out.
        if let Err(error) = abort() {
            tracing::warn!(error = %error.chain(), "connections to a revoked endpoint can't be aborted inside");
        }
    }
}

impl State {
    /// Until when each address of a name is to be open, if any of it is not yet.
    fn wanting(
        &mut self,
        name: &DnsName,
        addresses: &[(IpAddr, Duration)],
        now: Instant,
    ) -> std::result::Result<Option<Vec<(IpAddr, Instant)>>, Refused> {
        if self.admission.is_none() {
            return Err(Refused::Failed(gone()));
        }
        // The policy that counts is the one under this lock: it may have changed since the question was let through.
        if !self.book.scope.is_direct(name) {
            return Ok(None);
        }
        let private = self.policy.may_be_private(name);
        for (address, _) in addresses {
            // What is open for good, because the policy or the host's own file says so, is somebody else's word.
            if self.book.stays_open(name, *address) {
                continue;
            }
            if let Some(class) = special::refused_to_name(*address, private) {
                return Err(Refused::Special { address: *address, class: class.name() });
            }
            let pool = &self.policy.pool.value;
            let ours = match address {
                IpAddr::V4(address) => pool.v4.contains(address),
                IpAddr::V6(address) => pool.v6.contains(address),
            };
            if ours {
                return Err(Refused::Special { address: *address, class: "an address of a sandbox" });
            }
        }
        let grace = self.policy.dns_grace.value.duration();
        let until: Vec<_> = addresses.iter().map(|(address, ttl)| (*address, now + *ttl + grace)).collect();
        if !self.book.has_room(name, &until, now) {
            return Err(Refused::TooMany);
        }
        if self.book.missing(name, &until).is_empty() {
            self.book.led(name, &until);
            return Ok(None);
        }
        Ok(Some(until))
    }
}

/// The endpoint that a flow leads to.
fn endpoint(flow: &crate::wire::conntrack::Flow) -> Option<DirectAddress> {
    let to = &flow.original;
    let transport = [Transport::Tcp, Transport::Udp].into_iter().find(|one| one.protocol() == to.protocol)?;
    let port = std::num::NonZeroU16::new(to.destination_port)?;
    Some(DirectAddress { address: to.destination, transport, port })
}

fn gone() -> Error {
    Error::new(ErrorKind::Conflict, "the sandbox is gone")
}

/// What the built-in proxy lets through under a policy. With an upstream and no list of our own, the upstream alone decides.
fn allow_list(policy: &Policy) -> AllowList {
    let entries = || policy.allow.iter().map(|entry| entry.value.clone()).collect();
    (!policy.allow.is_empty() || policy.proxy.is_none()).then(entries)
}

/// Tells what is known for good, as the host's file says it, from what was resolved and holds for a while.
fn told_apart(policy: &Policy, known: &Known, now: Instant) -> (Known, Vec<(DnsName, IpAddr, Instant)>) {
    if policy.dns.value.is_built_in() {
        return (known.clone(), Vec::new());
    }
    let until = now + HELD + policy.dns_grace.value.duration();
    let led = known.iter().flat_map(|(name, addresses)| {
        addresses.iter().map(move |address| (name.clone(), address.to_canonical(), until))
    });
    (Known::new(), led.collect())
}

/// The gate of the built-in resolver.
pub(super) struct LiveGate(pub(super) Arc<Live>);

impl Gate for LiveGate {
    fn covers(&self, name: &DnsName) -> bool {
        self.0.scope().covers(name)
    }

    fn admit<'a>(
        &'a self,
        asked: &'a DnsName,
        addresses: &'a [Handed],
    ) -> BoxFuture<'a, std::result::Result<(), Refused>> {
        Box::pin(async move {
            // Nothing opens for a name that only the proxy, or nobody, lets through.
            if addresses.is_empty() || !self.0.scope().is_direct(asked) {
                return Ok(());
            }
            let addresses: Vec<(IpAddr, Duration)> =
                addresses.iter().map(|handed| (handed.address.to_canonical(), handed.ttl)).collect();
            if let Some(answer) = self.0.open_already(asked, &addresses) {
                return answer;
            }
            let (turn, name) = (self.0.turn().await, asked.clone());
            let opened = self.0.hand.does(move || turn.open(&name, &addresses)).await;
            opened.unwrap_or_else(|lost| Err(Refused::Failed(lost)))
        })
    }
}

/// Keeps a fence for as long as this lives: its keeper runs, and its end takes the sandbox out of the host's table.
pub(super) struct Kept {
    live: Arc<Live>,
    keeper: Vec<JoinHandle<()>>,
}

impl Kept {
    pub(super) fn new(live: Arc<Live>) -> Self {
        Self { live, keeper: Vec::new() }
    }

    /// Starts what goes on by itself, on the runtime of the caller.
    pub(super) fn start(&mut self) {
        if !self.keeper.is_empty() {
            return;
        }
        let idle = self.live.state().book.next().is_none();
        self.keeper.push(tokio::spawn(keeper::keep(self.live.clone(), idle)));
        if !self.live.state().policy.dns.value.is_built_in() {
            self.keeper.push(tokio::spawn(keeper::refresh(self.live.clone())));
        }
    }

    pub(super) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Ends it, and gives back the place in the host's table.
    pub(super) fn retire(&mut self) -> Option<Admission> {
        self.keeper.drain(..).for_each(|task| task.abort());
        self.live.retire()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.retire());
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}
