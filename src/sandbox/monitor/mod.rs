//! Who tried: what the fence inside refuses, joined with what the proxy and the resolver refuse, as one stream and one report.
//!
//! The nflog group is bound inside the namespace before the rules are committed, so that nothing is refused before somebody
//! listens. Until the command is started what comes waits in the socket; from then on a task of the caller's runtime reads it.
//!
//! Loss has two places. Packets that do not fit the socket's receive buffer are counted by the kernel, rule by rule, and the
//! sum is made exact when the last program has ended. Events that a slow subscriber has not read in time are dropped for
//! that subscriber alone: every event carries how many refusals there were up to it, so a gap has its number.

mod watch;

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, SystemTime};

use futures::Stream;
use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::{Notify, broadcast};

pub(super) use self::watch::{Watch, bind};
use crate::Result;
use crate::audit::hint::{Advice, Entry, Scene, advice};
use crate::audit::{Attempt, Attempted, Event, Identify, Identity, Lost, Report, Summary, Tampering};
use crate::dns::{self, Answers};
use crate::kernel::identity::{Marks, Nobody};
use crate::kernel::nflog::Received;
use crate::plan::{Plan, ProxyPlan};
use crate::policy::{DnsMode, DnsName, Key};
use crate::proxy;
use crate::wire::nflog::Message;

/// How many events wait for a slow subscriber.
const QUEUE: usize = 4096;

/// How many denials of the proxy's wait for their turn.
const DENIALS: usize = 256;

/// How many changes of the rules wait to be told. More are counted.
const TAMPERINGS: usize = 256;

/// How long what is still to be told at the end is waited for. Nothing that it waits for is known to take so long.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(10);

/// Is told from time to time of everything that was refused so far. Called on a task of the runtime: it must not block.
pub type OnReport = Arc<dyn Fn(&Summary) + Send + Sync>;

/// Events of one sandbox, from when this was subscribed to on, up to the [`Summary`] that closes them.
///
/// Whoever reads too slowly is told how much was missed, as [`Event::Lost`], and memory stays bounded.
#[must_use = "what is not read waits, and is lost in the end"]
pub struct EventStream(BoxStream<'static, Arc<Event>>);

impl Stream for EventStream {
    type Item = Arc<Event>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").finish_non_exhaustive()
    }
}

/// What becomes of a request that is told of.
fn verdict(passed: bool) -> &'static str {
    if passed { "accept" } else { "deny" }
}

/// Knows nobody, and says why.
pub(super) fn nobody(reason: impl Into<Cow<'static, str>>) -> Box<dyn Identify> {
    Box::new(Nobody { reason: reason.into() })
}

/// Where all refusals of a sandbox come together.
pub(super) struct Hub {
    sandbox: Arc<str>,
    scene: Scene,
    answers: Arc<Answers>,
    on_report: Option<(OnReport, Duration)>,
    /// A denial or a change of the rules waits to be told.
    waiting: Notify,
    /// Has a lock of its own, and is asked before the state is locked: it looks at processes that others own.
    identify: Mutex<Box<dyn Identify>>,
    /// So has this: whoever stands by the rules waits for nobody who tells.
    tampered: Mutex<Tampered>,
    state: Mutex<State>,
}

/// Changes of the rules that are to be told, and how many more there were.
#[derive(Default)]
struct Tampered {
    waiting: Vec<Tampering>,
    more: u64,
}

struct State {
    report: Report,
    /// There with the first subscriber.
    sender: Option<broadcast::Sender<Told>>,
    /// Told when what the fence refused before has been: the proxy hears of its client sooner than we of a packet.
    denials: Vec<(Attempt, Advice)>,
    /// How many refusals there were, those included that were lost.
    upto: u64,
    /// That many when the report was last told.
    reported: u64,
    over: bool,
}

/// An event, and how many refusals there were up to it and with it.
#[derive(Clone)]
struct Told {
    upto: u64,
    event: Arc<Event>,
}

impl Hub {
    pub(super) fn new(
        sandbox: Arc<str>,
        plan: &Plan,
        answers: Arc<Answers>,
        on_report: Option<(OnReport, Duration)>,
    ) -> Arc<Self> {
        let addresses = &plan.wire.addresses;
        let scene = Scene {
            proxy: match &plan.proxy {
                ProxyPlan::None => None,
                ProxyPlan::BuiltIn { listen, .. } => Some(listen.to_string()),
                ProxyPlan::At(at) => Some(at.value.to_string()),
            },
            resolver: plan.dns.value != DnsMode::Off,
            gateways: vec![IpAddr::V4(addresses.host4), IpAddr::V6(addresses.host6)],
        };
        let state = State {
            report: Report::new(sandbox.clone(), plan.audit.value),
            sender: None,
            denials: Vec::new(),
            upto: 0,
            reported: 0,
            over: false,
        };
        Arc::new(Self {
            sandbox,
            scene,
            answers,
            on_report,
            waiting: Notify::new(),
            identify: Mutex::new(nobody("no command was started yet")),
            tampered: Mutex::default(),
            state: Mutex::new(state),
        })
    }

    /// Has whoever sends what is refused looked for in that way.
    pub(super) fn identify(&self, identify: Box<dyn Identify>) {
        *lock(&self.identify) = identify;
    }

    /// The same, where who is looked for may send as soon as the way is there: what is told of them waits for it.
    pub(super) fn identify_by(&self, way: impl FnOnce() -> Result<Marks>) -> Result<()> {
        let mut identify = lock(&self.identify);
        *identify = Box::new(way()?);
        Ok(())
    }

    /// Everything from now on.
    pub(super) fn events(&self) -> EventStream {
        let mut state = self.state();
        if state.over {
            return EventStream(stream::empty().boxed());
        }
        let subscription = Subscription {
            receiver: state.sender.get_or_insert_with(|| broadcast::Sender::new(QUEUE)).subscribe(),
            seen: state.upto,
            next: None,
            sandbox: self.sandbox.clone(),
        };
        EventStream(stream::unfold(subscription, Subscription::next).fuse().boxed())
    }

    /// Everything that was refused so far.
    pub(super) fn summary(&self) -> Summary {
        self.state().report.summary(SystemTime::now(), &[])
    }

    /// Whether anybody would hear of it.
    pub(super) fn heard(&self) -> bool {
        self.on_report.is_some() || self.state().sender.as_ref().is_some_and(|sender| sender.receiver_count() > 0)
    }

    /// Tells of a destination that the built-in proxy refused.
    pub(super) fn denied_by_proxy(&self, denial: &proxy::Denial) {
        let allow = denial.hint.as_ref().map(|entry| Entry { key: Key::Allow, value: entry.to_string() });
        let mut attempt = Attempt::at(SystemTime::now());
        attempt.proto = Some("tcp".to_owned());
        attempt.src = Some(denial.client.ip().to_canonical());
        attempt.sport = Some(denial.client.port());
        attempt.dport = denial.port;
        match denial.host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => attempt.dst = Some(address.to_canonical()),
            Err(_) => attempt.host = Some(bounded(&denial.host)),
        }
        attempt.rule = Some(denial.reason.code().to_owned());
        attempt.denial_stage = Some(denial.stage);
        let why = match &denial.reason {
            proxy::DenialReason::SpecialAddress { address, class } => {
                format!("the proxy's list has it, and it leads to {address}, {class}")
            }
            proxy::DenialReason::NumericName => "write the address the usual way".to_owned(),
            proxy::DenialReason::OtherServerName { name } if name.is_empty() => {
                "TLS in its tunnel was for a host that can't be read".to_owned()
            }
            proxy::DenialReason::OtherServerName { name } => format!("TLS in its tunnel was for {}", bounded(name)),
            proxy::DenialReason::Request { method, path } => {
                format!("the proxy's list has it for other requests than {} {}", bounded(method), bounded(path))
            }
            proxy::DenialReason::Credential { name } => format!("the value of {} may not go there", bounded(name)),
            _ => "the proxy's list does not have it".to_owned(),
        };
        attempt.verdict = Some(verdict(denial.passed));
        self.denied(attempt, Advice::new(why, allow));
    }

    /// Tells of a question that the built-in resolver refused.
    pub(super) fn denied_by_resolver(&self, denial: &dns::Denial) {
        let listed = denial.reason == dns::DenialReason::NotCovered && denial.kind != "PTR";
        let allow = Some(bounded(&denial.name)).filter(|name| listed && name.parse::<DnsName>().is_ok());
        let mut attempt = Attempt::at(SystemTime::now());
        attempt.proto = Some("dns".to_owned());
        attempt.src = Some(denial.client.ip().to_canonical());
        attempt.sport = Some(denial.client.port());
        attempt.host = Some(bounded(&denial.name));
        attempt.query = Some(denial.kind.clone());
        attempt.rule = Some(denial.reason.code().to_owned());
        attempt.denial_stage = Some(denial.stage);
        attempt.verdict = Some(verdict(denial.passed));
        let why = format!("it asked for {} of that name, and {}", denial.kind, denial.reason);
        self.denied(attempt, Advice::new(why, allow.map(|value| Entry { key: Key::Allow, value })));
    }

    /// Tells of a refusal by the proxy or the resolver.
    fn denied(&self, mut attempt: Attempt, advice: Advice) {
        attempt.sandbox = Some(self.sandbox.clone());
        attempt.family = attempt.dst.map(|dst| if dst.is_ipv4() { "ipv4" } else { "ipv6" });
        attempt.hint = advice.line();
        attempt.identity = Some(Identity::unknown("the proxy and the resolver see an address, not a process"));
        let mut state = self.state();
        state.denials.push((attempt, advice));
        if state.denials.len() == DENIALS {
            // Out of order then, and not lost.
            state.tell_denials();
        }
        drop(state);
        self.waiting.notify_one();
    }

    /// Tells of a packet that the fence refused.
    fn refused(&self, message: &Message<'_>) {
        let mut event = Event::of(message, SystemTime::now());
        let Event::Bypass(attempt) = &mut event else { return self.state().tell(event) };
        attempt.sandbox = Some(self.sandbox.clone());
        attempt.host = attempt.dst.and_then(|dst| self.answers.name_of(dst)).map(|name| name.to_string());
        attempt.identity = Some(match Attempted::of(message) {
            Some(attempted) => lock(&self.identify).identify(&attempted),
            None => Identity::unknown("no process of the namespace sent it in the ordinary way"),
        });
        let advice = advice(attempt, &self.scene);
        attempt.hint = advice.line();
        let mut state = self.state();
        trace(attempt);
        state.report.add(attempt, &advice);
        state.tell(event);
    }

    /// The sandbox's name in events.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.sandbox
    }

    /// Has it told soon that somebody changed the rules, and what was done about it. Waits for nobody.
    pub(super) fn tampered(&self, tampering: Tampering) {
        let mut tampered = lock(&self.tampered);
        if tampered.waiting.len() < TAMPERINGS {
            tampered.waiting.push(tampering);
        } else {
            tampered.more += 1;
        }
        drop(tampered);
        self.waiting.notify_one();
    }

    /// Tells what waits for it.
    fn tell_waiting(&self) {
        let Tampered { waiting, more } = std::mem::take(&mut *lock(&self.tampered));
        let mut state = self.state();
        state.tell_denials();
        (0..more).for_each(|_| state.report.tamper());
        for tampering in &waiting {
            state.report.tamper();
            state.tell(Event::Tampering(Box::new(tampering.clone())));
        }
        drop(state);
        waiting.iter().for_each(trace_tampering);
        if more > 0 {
            tracing::warn!(target: "ringfence::tampering", "the rules were changed {more} more times");
        }
    }

    /// Tells what waits for it whenever there is something.
    async fn tell_on(&self) -> Infallible {
        loop {
            self.waiting.notified().await;
            self.tell_waiting();
        }
    }

    fn lost(&self, count: u64) {
        let mut state = self.state();
        state.report.lose(count);
        let lost = Lost { time: SystemTime::now(), sandbox: Some(self.sandbox.clone()), count };
        state.tell(Event::Lost(lost));
    }

    fn take(&self, received: Received) {
        match received {
            Received::Packet(message) => self.refused(&message),
            Received::Lost { at_least } => self.lost(at_least),
        }
    }

    /// Tells the report if there is something new in it.
    fn report(&self) {
        let Some((tell, _)) = &self.on_report else { return };
        let mut state = self.state();
        if state.reported == state.report.refused() {
            return;
        }
        state.reported = state.report.refused();
        let summary = state.report.summary(SystemTime::now(), &[]);
        drop(state);
        tell(&summary);
    }

    /// Makes the loss exact, and tells the last event.
    fn close(&self, counted: &[(String, u64)]) -> Summary {
        if self.state().over {
            return self.summary();
        }
        self.tell_waiting();
        let unaccounted = self.state().report.unaccounted(counted);
        if unaccounted > 0 {
            self.lost(unaccounted);
        }
        let mut state = self.state();
        let summary = state.report.summary(SystemTime::now(), counted);
        state.tell(Event::Summary(Box::new(summary.clone())));
        state.over = true;
        // The streams end when they have been read.
        state.sender = None;
        drop(state);
        self.forget();
        if let Some((tell, _)) = &self.on_report {
            tell(&summary);
        }
        summary
    }

    /// Lets go of what knows who sends: it may hold the namespace. Whoever still asks it has it for as long as that takes.
    fn forget(&self) {
        match self.identify.try_lock() {
            Ok(mut identify) => *identify = nobody("the sandbox is gone"),
            Err(TryLockError::Poisoned(poisoned)) => *poisoned.into_inner() = nobody("the sandbox is gone"),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Takes a lock. What is behind each of them is true after every step, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn tell_denials(&mut self) {
        for (attempt, advice) in std::mem::take(&mut self.denials) {
            trace(&attempt);
            self.report.add(&attempt, &advice);
            self.tell(Event::Denied(Box::new(attempt)));
        }
    }

    fn tell(&mut self, event: Event) {
        self.upto += event.weight();
        if let Some(sender) = &self.sender {
            // An error means that nobody listens any more.
            let _ = sender.send(Told { upto: self.upto, event: Arc::new(event) });
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("sandbox", &self.sandbox).finish_non_exhaustive()
    }
}

struct Subscription {
    receiver: broadcast::Receiver<Told>,
    /// How many refusals this subscriber has been told of, or told that they were lost.
    seen: u64,
    /// Comes behind a loss that was told first.
    next: Option<Arc<Event>>,
    sandbox: Arc<str>,
}

impl Subscription {
    async fn next(mut self) -> Option<(Arc<Event>, Self)> {
        if let Some(event) = self.next.take() {
            return Some((event, self));
        }
        loop {
            match self.receiver.recv().await {
                Ok(Told { upto, event }) => {
                    let missed = upto.saturating_sub(event.weight()).saturating_sub(self.seen);
                    self.seen = upto;
                    if missed == 0 {
                        return Some((event, self));
                    }
                    self.next = Some(event);
                    let lost = Lost { time: SystemTime::now(), sandbox: Some(self.sandbox.clone()), count: missed };
                    return Some((Arc::new(Event::Lost(lost)), self));
                }
                // How many events that were says nothing of how many refusals; the next one does.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// Hands the attempt to `tracing`, with the fields of its JSON.
fn trace(attempt: &Attempt) {
    let process = attempt.identity.as_ref().and_then(Identity::process);
    tracing::event!(
        name: "BYPASS_DETECT",
        target: "ringfence::bypass",
        tracing::Level::INFO,
        sandbox = attempt.sandbox.as_deref(),
        verdict = attempt.verdict,
        family = attempt.family,
        proto = attempt.proto,
        src = attempt.src.map(tracing::field::display),
        sport = attempt.sport,
        dst = attempt.dst.map(tracing::field::display),
        dport = attempt.dport,
        host = attempt.host.as_deref().map(tracing::field::debug),
        query = attempt.query,
        uid = attempt.uid,
        gid = attempt.gid,
        pid = process.map(|process| process.pid),
        comm = process.map(|process| tracing::field::debug(&process.comm)),
        exe = process.and_then(|process| process.exe.as_deref()).map(tracing::field::debug),
        identity = attempt.identity.as_ref().map(Identity::certainty),
        hint = attempt.hint,
        rule = attempt.rule,
        denial_stage = attempt.denial_stage,
        "BYPASS_DETECT"
    );
}

/// Hands a change of the rules to `tracing`.
fn trace_tampering(tampering: &Tampering) {
    match (tampering.action, &tampering.reason) {
        ("ended", Some(reason)) => {
            tracing::error!(target: "ringfence::tampering", "{tampering}, and {reason}; the sandbox ends")
        }
        ("ended", None) => tracing::error!(target: "ringfence::tampering", "{tampering}; the sandbox ends"),
        ("mended", _) => tracing::warn!(target: "ringfence::tampering", "{tampering}; they are what they were again"),
        _ => tracing::warn!(target: "ringfence::tampering", "{tampering}"),
    }
}

/// What a client wrote, no longer than a name can be.
fn bounded(text: &str) -> String {
    text.chars().take(255).collect()
}
