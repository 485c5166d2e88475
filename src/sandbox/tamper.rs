//! Stands by the rules inside: hears who else changes them, tells of it, and does what the policy says.
//!
//! Only a program that keeps `CAP_NET_ADMIN`, or somebody who enters the sandbox's network from outside, can change them. The host's side, which neither
//! reaches, holds meanwhile: what is lost with the rules inside is that refusing is fast, and told. The host's table needs nobody to stand by: it belongs to
//! our socket (flag `owner`), and the kernel refuses everybody else.
//!
//! What was heard is judged by whose commit it was, which the kernel tells; only where something was lost the rules are read and compared. Whoever
//! changes rules without pause, his own or ours, is listened to at intervals, so that it costs the supervisor a bounded share of a processor.
//!
//! Somebody who can't be seen to is not to be hidden from, either: this is a thread that waits for nobody in the rest of the supervisor but for whose turn it
//! is to change the fence. It does what is to be done before it tells of it, and leaves the telling to the monitor's task. Should it end before its time, so
//! does the sandbox.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::Sandbox;
use super::live::Live;
use super::monitor::{Hub, LAST_WORDS};
use crate::audit::Tampering;
use crate::kernel::child::{Child, Killer};
use crate::kernel::nftables::{Change, Monitor};
use crate::nft::{Object, Ruleset};
use crate::policy::OnTampering;
use crate::wire::nftables::{Deleted, Edit};
use crate::{Error, ErrorKind, Result};

/// How long nothing is listened to after something was heard. It doubles while the rules keep being changed, or others without pause.
const PAUSE: Duration = Duration::from_millis(10);

/// How long at most, where more is to be done than to tell.
const LONGEST_MENDING: Duration = Duration::from_millis(100);

/// How long at most, where it is told and no more.
const LONGEST_TELLING: Duration = Duration::from_secs(1);

/// How often the rules are mended within [`PATIENCE`]. Somebody who changes them once more does not mean to stop.
const MENDINGS: usize = 10;

/// How long it takes for a mending to be forgotten.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many changes are judged at once.
const BATCH: usize = 64;

/// How many messages in one pause are noise: then the next one is longer, and what does not fit the receive buffer costs nobody anything.
const NOISE: usize = 64;

/// Why a sandbox was ended, if it was.
#[derive(Debug, Clone, Default)]
pub(super) struct Verdict(Arc<OnceLock<String>>);

impl Verdict {
    pub(super) fn error(&self) -> Option<Error> {
        let error = Error::new(ErrorKind::Tampered, format!("the sandbox was ended: {}", self.0.get()?));
        Some(error.hint("--tampering says what is done about that: report, mend or end"))
    }
}

/// The thread that stands by, for as long as this lives.
#[derive(Debug)]
pub(super) struct Sentinel {
    stop: oneshot::Sender<Infallible>,
    /// Closed when it has ended.
    ended: oneshot::Receiver<Infallible>,
}

impl Sentinel {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// When there is no room for a thread. Then the command must not go on.
    pub(super) fn start(changes: Monitor, sandbox: &Sandbox, child: &Child, verdict: Verdict) -> Result<Self> {
        // All but the elements, of which there may be many; those that are due are known to `Live`.
        let Ruleset { tables, chains, objects, flowtables, sets, elements: _, rules } = &sandbox.plan.inside;
        let want = Ruleset {
            tables: tables.clone(),
            chains: chains.clone(),
            objects: objects.clone(),
            flowtables: flowtables.clone(),
            sets: sets.clone(),
            elements: Vec::new(),
            rules: rules.clone(),
        };
        let live = sandbox.kept.live().clone();
        let policy = live.clone();
        let charge = Charge {
            policy: Box::new(move || policy.policy().tampering.value),
            killer: child.killer()?,
            verdict,
            relieved: false,
        };
        let post = Post { want, live, hub: sandbox.hub.clone(), charge, mended: VecDeque::new() };
        let failed =
            |error| Error::new(ErrorKind::Io, "can't start the thread that stands by the rules").because(error);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        let stand = move || {
            // The last to go, a panic or not.
            let _ending = ending;
            let mut post = post;
            match runtime.block_on(post.stand(changes, stopped)) {
                Ok(()) => post.charge.relieved = true,
                Err(error) => post.charge.desert(&error.chain()),
            }
        };
        std::thread::Builder::new().name("ringfence-rules".to_owned()).spawn(stand).map_err(failed)?;
        Ok(Self { stop, ended })
    }

    /// Ends it when all that was heard up to now has been judged. Nothing that is to be taken down waits for it any longer than for other last words.
    pub(super) async fn finish(self) {
        let Self { stop, ended } = self;
        drop(stop);
        // Whatever went wrong with it is over.
        let _ = tokio::time::timeout(LAST_WORDS, ended).await;
    }
}

/// What the thread knows, and what it can do.
struct Post {
    want: Ruleset,
    live: Arc<Live>,
    hub: Arc<Hub>,
    charge: Charge,
    /// When the rules were mended, lately.
    mended: VecDeque<Instant>,
}

/// The sandbox is in somebody's charge: should he be lost, so is it, unless he was relieved.
struct Charge {
    /// What the policy says now.
    policy: Box<dyn Fn() -> OnTampering + Send>,
    killer: Killer,
    verdict: Verdict,
    relieved: bool,
}

impl Charge {
    fn end(&self, why: String) -> Result<()> {
        // Before the kill, so that whoever hears of the end finds out why.
        let _ = self.verdict.0.set(why);
        self.killer.kill()
    }

    /// Ends the sandbox when nobody stands by its rules any more, unless to tell of changes is all that would have been done.
    fn desert(&mut self, why: &str) {
        self.relieved = true;
        let what = format!("who changes the rules inside is not heard any more: {why}");
        let ended = match (self.policy)() {
            OnTampering::Report => Ok(()),
            OnTampering::Mend | OnTampering::End => self.end(what.clone()),
        };
        // Whoever listens may be why this thread panics.
        if std::thread::panicking() {
            return;
        }
        tracing::error!(target: "ringfence::tampering", "{what}");
        if let Err(error) = ended {
            tracing::error!(target: "ringfence::tampering", error = %error.chain(), "the sandbox can't be ended");
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if !self.relieved {
            self.desert("it was lost");
        }
    }
}

impl Post {
    async fn stand(&mut self, changes: Monitor, mut stop: oneshot::Receiver<Infallible>) -> Result<()> {
        // Deprecated for types that may close or change their descriptor; a monitor does neither while it lives.
        #[allow(deprecated)]
        let mut changes = AsyncFd::with_interest(changes, Interest::READABLE)
            .map_err(|error| Error::new(ErrorKind::Io, "can't watch an nf_tables socket").because(error))?;
        let (mut pause, mut stopped) = (PAUSE, false);
        loop {
            if !stopped {
                tokio::select! {
                    biased;
                    ready = changes.ready_mut(Interest::READABLE | Interest::ERROR) => {
                        let wrong = |error| Error::new(ErrorKind::Io, "can't wait for changes of the ruleset").because(error);
                        let mut ready = ready.map_err(wrong)?;
                        // Before it is read: what comes in between makes it ready anew.
                        ready.clear_ready();
                    }
                    _ = &mut stop => stopped = true,
                }
            }
            // All that is there, so that it is ready again only when more comes; at intervals, so that there is an end to it.
            loop {
                let heard = hear(changes.get_mut());
                let all = heard.len() < BATCH && changes.get_ref().drained();
                let tampered = if heard.is_empty() { false } else { self.judge(heard).await? };
                if self.charge.verdict.0.get().is_some() {
                    return Ok(());
                }
                if stopped {
                    break;
                }
                pause = match tampered {
                    true => self.longer(pause),
                    false if changes.get_ref().read() > NOISE => (pause * 2).min(LONGEST_MENDING),
                    false => PAUSE,
                };
                tokio::select! {
                    () = tokio::time::sleep(pause) => if all { break },
                    // And once more, for what came in the pause.
                    _ = &mut stop => stopped = true,
                }
            }
            if stopped {
                return Ok(());
            }
        }
    }

    fn longer(&self, pause: Duration) -> Duration {
        let most = match (self.charge.policy)() {
            OnTampering::Report => LONGEST_TELLING,
            OnTampering::Mend | OnTampering::End => LONGEST_MENDING,
        };
        (pause * 2).min(most)
    }

    /// Says whether the rules were changed, after what is to be done about it has been.
    async fn judge(&mut self, heard: Vec<Change>) -> Result<bool> {
        let Some(theirs) = self.live.turn().await.tampered(&self.want, &heard) else { return Ok(false) };
        let mut tampering = describe(&self.hub, &theirs);
        match (self.charge.policy)() {
            OnTampering::Report => {
                self.hub.tampered(tampering);
                return Ok(true);
            }
            OnTampering::Mend => match self.mend().await {
                Ok(()) => {
                    tampering.action = "mended";
                    self.hub.tampered(tampering);
                    return Ok(true);
                }
                Err(error) => tampering.reason = Some(error.chain()),
            },
            OnTampering::End => {}
        }
        tampering.action = "ended";
        let why = match &tampering.reason {
            Some(reason) => format!("{tampering}, and {reason}"),
            None => tampering.to_string(),
        };
        let ended = self.charge.end(why);
        self.hub.tampered(tampering);
        ended.map(|()| true)
    }

    /// Makes the rules what they were, unless that was done too often.
    async fn mend(&mut self) -> Result<()> {
        let now = Instant::now();
        while self.mended.front().is_some_and(|then| now.duration_since(*then) > PATIENCE) {
            self.mended.pop_front();
        }
        if self.mended.len() == MENDINGS {
            let seconds = PATIENCE.as_secs();
            let what = format!("they were mended {MENDINGS} times within {seconds} s already");
            return Err(Error::new(ErrorKind::Tampered, what));
        }
        self.mended.push_back(now);
        let mended = self.live.turn().await.mend(&self.want);
        mended.map_err(|error| Error::new(error.kind(), "they can't be mended").because(error))
    }
}

/// What has come already, as much of it as is judged at once.
fn hear(changes: &mut Monitor) -> Vec<Change> {
    let mut heard = Vec::new();
    while heard.len() < BATCH {
        match changes.try_next() {
            Ok(Some(change)) => heard.push(change),
            Ok(None) => break,
            // What was no netlink may have been about anything.
            Err(error) => {
                tracing::warn!(error = %error.chain(), "a change of the rules inside could not be read");
                heard.push(Change::Lost);
                break;
            }
        }
    }
    heard
}

fn describe(hub: &Hub, theirs: &[&Change]) -> Tampering {
    let mut tampering = Tampering::at(SystemTime::now(), hub.name().clone(), "inside", "reported");
    for change in theirs {
        if let Change::Committed { by, edits, undecoded, .. } = change {
            let by = by.as_ref().map(|by| (by.pid, by.name.as_str()));
            // Who deletes a table deletes all that is in it first: what says most comes first here.
            let mut edits: Vec<&Edit> = edits.iter().collect();
            edits.sort_by_key(|edit| match edit {
                Edit::Added(Object::Table(_)) | Edit::Deleted(Deleted::Table(_)) => 0,
                Edit::Added(Object::Chain(_) | Object::Set(_)) => 1,
                Edit::Deleted(Deleted::Chain { .. } | Deleted::Set { .. }) => 1,
                _ => 2,
            });
            tampering.add(by, edits.iter().map(ToString::to_string), *undecoded as u64);
        }
    }
    tampering
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_sandbox_in_the_charge_of_a_thread_that_panics_is_ended() {
        let run = || Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let charge = |child: &std::process::Child, says| {
            let killer = Killer::of(child.id()).unwrap();
            Charge { policy: Box::new(move || says), killer, verdict: Verdict::default(), relieved: false }
        };
        for says in [OnTampering::Mend, OnTampering::End] {
            let mut command = run();
            let charge = charge(&command, says);
            let verdict = charge.verdict.clone();
            let lost = std::thread::spawn(move || {
                let _charge = charge;
                panic!("as a bug would have it");
            });
            assert!(lost.join().is_err());
            // It would wait for its input, which is open.
            assert_eq!(command.wait().unwrap().signal(), Some(9));
            let why = verdict.error().unwrap().to_string();
            assert!(why.contains("not heard any more: it was lost"), "{why}");
        }
        let mut command = run();
        drop(charge(&command, OnTampering::Report));
        let mut relieved = charge(&command, OnTampering::End);
        relieved.relieved = true;
        let verdict = relieved.verdict.clone();
        drop(relieved);
        assert!(verdict.error().is_none());
        drop(command.stdin.take());
        assert_eq!(command.wait().unwrap().code(), Some(0));
    }
}
