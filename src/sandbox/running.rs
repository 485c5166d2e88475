//! A command at work in its sandbox, and the guard that stands by where the kernel alone would end things in the wrong order.
//!
//! A guard is forked, before the command, when the program holds capabilities with which it could open the fence inside, or
//! may outlive the supervisor: it shares the host's PIDs, or may make user namespaces, and in one of them mount a file system that
//! keeps it waiting in the kernel, where nothing kills it. Then the host's table, which goes with its last descriptor, must
//! not go before the wire. The guard holds a descriptor of the table's socket, and on the supervisor's end removes the wire
//! first. Another one stands by where the sandbox has a name, because a bind mount under `/run/netns` stays after whoever made it.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use crate::audit::Summary;
use crate::dns::Answers;
use crate::kernel::child::{self, Child, ExitStatus, Signal};
use crate::kernel::guard::{Guard, Undo};
use crate::kernel::identity::{Logged, Marks, Means, Way};
use crate::kernel::landlock::Enforcement;
use crate::kernel::netns::Netns;
use crate::kernel::nftables;
use crate::kernel::rtnetlink::{self, Batch, Request};
use crate::plan::{Plan, ProxyPlan};
use crate::policy::Policy;
use crate::proxy::{Proxy, ProxyConfig, Upstream};
use crate::{Error, ErrorKind, Result};

use super::counters::{Counters, Rules};
use super::monitor::{EventStream, Watch, nobody};
use super::resolver::ServingNames;
use super::tamper::{Sentinel, Verdict};
use super::{Command, Control, Entry, Sandbox, control, resolver, withdraw};

/// A command that runs in its sandbox.
///
/// Dropping it kills the command and takes the sandbox down; [`Running::close`] does the same and says what went wrong.
#[derive(Debug)]
pub struct Running {
    // In the order in which they go: the command, the proxy, the monitor, the sandbox, and the guard last.
    child: Child,
    proxy: Option<Serving>,
    names: Option<ServingNames>,
    orders: Option<Serving>,
    watch: Option<Watch>,
    sentinel: Option<Sentinel>,
    verdict: Verdict,
    sandbox: Sandbox,
    guard: Option<Guard>,
    files: Enforcement,
    /// Those inside.
    rules: Rules,
    /// How the command ended has been told, or that it did not.
    waited: bool,
}

impl Running {
    pub(super) async fn start(mut sandbox: Sandbox, command: Command) -> Result<Self> {
        if sandbox.userns.is_none() {
            command.must_not_reach_out()?;
        }
        let command = command.withhold(|value| sandbox.held.are_in(value));
        let trust = sandbox.held.covers();
        let proxy = serve(&mut sandbox)?;
        let names = resolver::serve(&mut sandbox);
        let covers = resolver::covers(sandbox.plan.dns.value, &sandbox.options.names);
        let watch = sandbox.receiver.take().map(|receiver| Watch::start(receiver, sandbox.hub.clone()));
        let environment = sandbox.plan.environment.clone();
        let means =
            sandbox.means.take().ok_or_else(|| Error::new(ErrorKind::Child, "the sandbox was never prepared"))?;
        let means = means.await.map_err(|lost| {
            Error::new(ErrorKind::Io, "the thread that looked for a way to tell who tries was lost").because(lost)
        })??;
        tracing::info!(%means, "who tries is told");
        let verdict = Verdict::default();
        let told = verdict.clone();
        let start = move || -> Result<_> {
            identify(&sandbox, &means)?;
            let guard = sandbox.host.netns().run_near(|| guard(&sandbox, &command)).and_then(|guard| guard)?;
            let tables = sandbox.plan.inside.tables.iter().map(|table| table.id.clone());
            let rules = if guard.is_some() {
                sandbox.kept.live().expect_queues();
                Rules::now(&mut sandbox.netns.run(nftables::Socket::open)??, tables)?
            } else {
                // Nobody inside can change them.
                Rules::of(tables)
            };
            let (mut spec, files) = command.into_spec(&environment, sandbox.userns.take())?;
            spec.covers = covers;
            spec.covers.extend(trust);
            spec.notify = matches!(means, Means::Seccomp { .. });
            let mut child = Child::spawn(sandbox.netns.as_fd(), spec)?;
            // Without a thread for it, which a command may leave no room for, there is no command.
            let sentinel = sandbox.changes.take();
            let sentinel =
                sentinel.map(|changes| Sentinel::start(changes, &sandbox, &child, told.clone())).transpose()?;
            if let Some(listener) = child.listener() {
                // Its first attempt to connect waits until this stands.
                sandbox.hub.identify_by(|| Marks::listen(listener))?;
            }
            // Dropped in this order should nobody wait for it any more.
            Ok((child, sentinel, sandbox, guard, files, rules))
        };
        let (child, sentinel, mut sandbox, guard, files, rules) =
            tokio::task::spawn_blocking(start).await.map_err(|lost| {
                Error::new(ErrorKind::Io, "the thread that started the command was lost").because(lost)
            })??;
        tracing::info!(pid = child.pid(), guard = guard.as_ref().map(Guard::pid), "the command runs");
        let orders = sandbox.orders.take();
        let orders = orders.map(|orders| Serving(tokio::spawn(control::serve(orders, sandbox.control()))));
        Ok(Self { child, proxy, names, orders, watch, sentinel, verdict, sandbox, guard, files, rules, waited: false })
    }

    /// What was planned, and stood when the sandbox was prepared.
    pub fn plan(&self) -> &Plan {
        &self.sandbox.plan
    }

    /// What changes the policy, for whoever is not this value's owner, or waits for the command.
    pub fn control(&self) -> Control {
        self.sandbox.control()
    }

    /// The policy as it is now.
    pub fn policy(&self) -> Policy {
        self.control().policy()
    }

    /// [`Control::allow`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn allow<T: Into<Entry>>(&self, entries: impl IntoIterator<Item = T>) -> Result<()> {
        self.control().allow(entries).await
    }

    /// [`Control::revoke`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn revoke<T: Into<Entry>>(&self, entries: impl IntoIterator<Item = T>) -> Result<()> {
        self.control().revoke(entries).await
    }

    /// [`Control::replace`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn replace(&self, policy: Policy) -> Result<()> {
        self.control().replace(policy).await
    }

    /// The sandbox's namespace.
    pub fn netns(&self) -> &Netns {
        &self.sandbox.netns
    }

    /// Which names the built-in resolver has handed addresses out for.
    pub fn answers(&self) -> &Arc<Answers> {
        &self.sandbox.answers
    }

    /// The command's process, for signals and status.
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// How far the kernel keeps the command from files.
    pub fn files(&self) -> &Enforcement {
        &self.files
    }

    /// Sends the command a signal.
    ///
    /// # Errors
    ///
    /// As [`Child::signal`].
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.child.signal(signal)
    }

    /// Waits for the command's end. The sandbox stays.
    ///
    /// # Errors
    ///
    /// As [`Child::wait`]; [`ErrorKind::Tampered`] when it was ended because somebody changed the rules of its fence.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        let status = self.child.wait().await;
        match self.verdict.error() {
            Some(tampered) => Err(tampered),
            None => {
                self.waited = true;
                status
            }
        }
    }

    /// What is refused from now on; see [`Sandbox::events`]. Subscribe before the command is started to miss nothing.
    pub fn events(&self) -> EventStream {
        self.sandbox.hub.events()
    }

    /// Everything that was refused so far.
    pub fn summary(&self) -> Summary {
        self.sandbox.hub.summary()
    }

    /// What the rules inside counted so far. Takes a thread inside for a fraction of a millisecond: not for every packet.
    ///
    /// # Errors
    ///
    /// As [`nftables::Socket::open`] and [`nftables::Socket::table`].
    pub fn counters(&self) -> Result<Counters> {
        let (rules, intact) = self.rules.read(&mut self.sandbox.netns.run(nftables::Socket::open)??)?;
        let Summary { sandbox, refused, lost, .. } = self.summary();
        Ok(Counters { of: sandbox, rules, refused: Some(refused), lost: Some(lost), intact })
    }

    /// Kills what still runs and takes everything down.
    ///
    /// [`Running::finish`] does the same, and says what was refused.
    ///
    /// # Errors
    ///
    /// The first thing that could not be undone; all else was.
    pub async fn close(self) -> Result<()> {
        if self.sandbox.hub.heard() {
            return self.finish().await.1;
        }
        let (killed, Ended { watch, sandbox, guard, .. }) = self.kill().await;
        if let Some(watch) = watch {
            watch.stop().await;
        }
        killed.and(take_down(sandbox, guard).await)
    }

    /// Kills what still runs, tells every event that still waits, and takes everything down. Gives the summary that closes the streams of
    /// events: with it, what was received and what was lost are what the kernel counted.
    ///
    /// Beside it, the first thing that could not be undone; all else was.
    pub async fn finish(self) -> (Summary, Result<()>) {
        let (killed, Ended { watch, sandbox, guard, rules }) = self.kill().await;
        let summary = match (watch, sandbox.netns.try_clone()) {
            (Some(watch), Ok(netns)) => watch.finish(netns, rules).await,
            _ => sandbox.hub.summary(),
        };
        (summary, killed.and(take_down(sandbox, guard).await))
    }

    /// Ends every process of the sandbox, the proxy and the resolver. Where a process can't be ended, has the wire removed before all else.
    async fn kill(self) -> (Result<()>, Ended) {
        let Self { child, proxy, names, orders, watch, sentinel, sandbox, guard, rules, waited, .. } = self;
        // Blocks until the last process of the sandbox is gone, and with them their hold on the namespace.
        let killed = tokio::task::spawn_blocking(move || child.end()).await;
        drop((proxy, names, orders));
        if let Some(sentinel) = sentinel {
            // What was done to the rules up to here is told before the stream ends.
            sentinel.finish().await;
        }
        let killed = match killed {
            Ok(true) => Ok(()),
            Ok(false) => {
                // What still holds the namespace holds its end of the wire.
                sandbox.kept.live().expect_queues();
                // Once is enough.
                if waited { Ok(()) } else { Err(child::stuck()) }
            }
            Err(lost) => Err(Error::new(ErrorKind::Io, "the thread that ended the command was lost").because(lost)),
        };
        (killed, Ended { watch, sandbox, guard, rules })
    }
}

/// A sandbox whose last process has ended.
struct Ended {
    watch: Option<Watch>,
    sandbox: Sandbox,
    guard: Option<Guard>,
    rules: Rules,
}

async fn take_down(mut sandbox: Sandbox, guard: Option<Guard>) -> Result<()> {
    let name = sandbox.name.take();
    let admission = sandbox.kept.retire();
    drop(sandbox);
    let withdrawn = withdraw(name, admission).await;
    // Last: until here there was something that it would have had to undo.
    let disarmed = guard.map_or(Ok(()), Guard::disarm);
    tracing::info!("the sandbox is gone");
    withdrawn.and(disarmed)
}

/// A task that serves, for as long as this lives.
#[derive(Debug)]
struct Serving(tokio::task::JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn serve(sandbox: &mut Sandbox) -> Result<Option<Serving>> {
    let ProxyPlan::BuiltIn { allow, upstream, sni, .. } = &sandbox.plan.proxy else { return Ok(None) };
    let config = ProxyConfig {
        allow: allow.as_ref().map(|entries| entries.iter().map(|entry| entry.value.clone()).collect()),
        audit: sandbox.plan.audit.value,
        upstream: upstream.as_ref().map(|upstream| Upstream::from(upstream.value.clone())),
        secrets: sandbox.held.secrets.clone(),
        interception: sandbox.held.interception.clone(),
        sni: sni.value,
        ..ProxyConfig::default()
    };
    let mut proxy = Proxy::new(config, sandbox.options.resolver.clone()).follow(sandbox.kept.live().allow_list());
    let (hub, callback) = (sandbox.hub.clone(), sandbox.options.on_denial.clone());
    proxy = proxy.on_denial(Arc::new(move |denial| {
        hub.denied_by_proxy(&denial);
        if let Some(callback) = &callback {
            callback(denial);
        }
    }));
    let listeners = std::mem::take(&mut sandbox.listeners);
    let serving = proxy.serve(listeners, std::future::pending());
    Ok(Some(Serving(tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(error = %error.chain(), "the built-in proxy ended");
        }
    }))))
}

/// Has the processes noted that send something in the sandbox, as far as that can be done before there is one.
fn identify(sandbox: &Sandbox, means: &Means) -> Result<()> {
    let logged = if sandbox.plan.audit.value { Logged::Any } else { Logged::Refused };
    let reason = match means {
        Means::Bpf(program) => match program.attach(&sandbox.netns, logged) {
            Ok(watch) => {
                sandbox.hub.identify(Box::new(watch));
                return Ok(());
            }
            Err(error) if sandbox.options.identity == Way::Bpf => return Err(error),
            Err(error) => format!("no BPF in this namespace: {}", error.chain()).into(),
        },
        // Its listener comes with the command.
        Means::Seccomp { .. } => return Ok(()),
        Means::None { reason } => reason.clone(),
    };
    sandbox.hub.identify(nobody(reason));
    Ok(())
}

/// Forks a guard if the sandbox needs one.
///
/// Must run on a thread in the host's namespace.
fn guard(sandbox: &Sandbox, command: &Command) -> Result<Option<Guard>> {
    if !command.needs_guard() {
        return Ok(None);
    }
    // Its own descriptor of the socket that owns the host's table, which stays while the guard does.
    let table = sandbox.host.share_table()?;
    let mut links = rtnetlink::Socket::open()?;
    let index = sandbox.wire.host_index;
    let keep = vec![table.as_fd().as_raw_fd(), links.as_fd().as_raw_fd()];
    let run = Box::new(move || {
        // Nobody is left to be told what could not be undone.
        let _ = links.commit(Batch::from([Request::delete_link(index)]));
        drop(table);
    });
    Guard::arm(vec![Undo::Call { keep, run }]).map(Some)
}

/// Forks a guard that takes the name of a namespace away. It holds the namespace until it is disarmed.
pub(super) fn guard_name(netns: &Netns, name: &str) -> Result<Guard> {
    let netns = netns.try_clone()?;
    let path = Netns::path_of(name);
    let keep = vec![netns.as_fd().as_raw_fd()];
    let run = Box::new(move || {
        let _ = netns.unname(&path);
    });
    Guard::arm(vec![Undo::Call { keep, run }])
}
