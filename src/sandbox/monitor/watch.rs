//! The task that reads what the fence refuses, from the first packet to the summary.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use super::{Hub, LAST_WORDS};
use crate::audit::Summary;
use crate::kernel::netns::Netns;
use crate::kernel::nflog::{Options, Receiver};
use crate::kernel::nftables;
use crate::plan::NFLOG_GROUP;
use crate::sandbox::counters::Rules;
use crate::wire::nflog::Group;
use crate::{Error, ErrorKind, Result};

/// Room for refused packets that wait to be read, some ten thousand of them. Only what waits takes memory.
const RECEIVE_BUFFER: usize = 16 << 20;

/// How many packets are read before other tasks of the runtime have their turn.
const BURST: usize = 128;

/// How often the counters are read until they stand still.
const SETTLING: usize = 20;

/// Takes the nflog group of the calling thread's namespace, which no rule logs to yet.
pub(in crate::sandbox) fn bind() -> Result<Receiver> {
    Receiver::bind(Group(NFLOG_GROUP), Options::latency().receive_buffer(RECEIVE_BUFFER))
}

/// The task that reads what is refused.
#[derive(Debug)]
pub(in crate::sandbox) struct Watch {
    task: tokio::task::JoinHandle<Result<Receiver>>,
    stop: Option<oneshot::Sender<()>>,
    hub: Arc<Hub>,
}

impl Watch {
    /// Starts it on the caller's runtime.
    pub(in crate::sandbox) fn start(receiver: Receiver, hub: Arc<Hub>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let ours = hub.clone();
        let task = tokio::spawn(async move {
            let mut stopped = stopped;
            let watched = watch(receiver, &ours, &mut stopped).await;
            if let Err(error) = &watched {
                tracing::error!(error = %error.chain(), "what the fence refuses is not told any more");
                // What others have to tell is.
                tokio::select! {
                    _ = stopped => {}
                    never = ours.tell_on() => match never {},
                }
            }
            watched
        });
        Self { task, stop: Some(stop), hub }
    }

    /// Ends it without a last word, and gives the namespace free.
    pub(in crate::sandbox) async fn stop(mut self) {
        self.ended().await;
        self.hub.tell_waiting();
        self.hub.forget();
    }

    /// Waits for the task's end, and gives the socket back if that is still good. Nothing that is to be taken down waits for it any longer.
    async fn ended(&mut self) -> Option<Receiver> {
        self.stop.take();
        match tokio::time::timeout(LAST_WORDS, &mut self.task).await {
            Ok(Ok(receiver)) => receiver.ok(),
            Ok(Err(error)) => {
                tracing::error!(%error, "the task that reads refused packets was lost");
                None
            }
            Err(_) => {
                tracing::error!("the task that reads refused packets does not get on, and is left behind");
                None
            }
        }
    }

    /// Ends it: what still waits is told, what the rules in the namespace counted is read, and the summary closes the streams.
    ///
    /// Every program of the sandbox must have ended.
    pub(in crate::sandbox) async fn finish(mut self, netns: Netns, rules: Rules) -> Summary {
        // What can't be read any more is counted all the same, and so told as lost.
        let mut receiver = self.ended().await;
        let hub = self.hub.clone();
        let settled = tokio::task::spawn_blocking(move || {
            let counted = settle(receiver.as_mut(), &hub, &netns, &rules).unwrap_or_else(|error| {
                tracing::warn!(error = %error.chain(), "can't tell how many refused packets were lost");
                Vec::new()
            });
            hub.close(&counted)
        });
        match tokio::time::timeout(LAST_WORDS, settled).await {
            Ok(Ok(summary)) => summary,
            // It panicked, does not get on, or the runtime is going down.
            Ok(Err(_)) | Err(_) => self.hub.close(&[]),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads until it is told to stop, and hands the socket back.
async fn watch(receiver: Receiver, hub: &Hub, stop: &mut oneshot::Receiver<()>) -> Result<Receiver> {
    // Deprecated for types that may close or change their descriptor; a receiver does neither while it lives.
    #[allow(deprecated)]
    let mut receiver = AsyncFd::with_interest(receiver, Interest::READABLE)
        .map_err(|error| Error::new(ErrorKind::Io, "can't watch an nflog socket").because(error))?;
    let period = hub.on_report.as_ref().map(|(_, period)| (*period).max(Duration::from_millis(1)));
    let mut ticks = period.map(|period| {
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    });
    // What came while the group was bound waits in the receiver, and the socket says nothing of it.
    drain(receiver.get_mut(), hub, usize::MAX)?;
    loop {
        let tick = async {
            match &mut ticks {
                Some(ticks) => drop(ticks.tick().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = &mut *stop => return Ok(receiver.into_inner()),
            () = tick => hub.report(),
            () = hub.waiting.notified() => {
                drain(receiver.get_mut(), hub, BURST)?;
                hub.tell_waiting();
            }
            ready = receiver.ready_mut(Interest::READABLE | Interest::ERROR) => {
                let mut ready = ready.map_err(|error| Error::new(ErrorKind::Io, "can't wait for an nflog group").because(error))?;
                if drain(ready.get_inner_mut(), hub, BURST)? {
                    ready.clear_ready();
                } else {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// Tells of what has come, `most` packets of it. Says whether that was all.
fn drain(receiver: &mut Receiver, hub: &Hub, most: usize) -> Result<bool> {
    for _ in 0..most {
        match receiver.try_recv() {
            Ok(Some(received)) => hub.take(received),
            Ok(None) => return Ok(true),
            // Counted, and so told as lost in the end.
            Err(error) if error.kind() == ErrorKind::Decode => {
                tracing::warn!(error = %error.chain(), "an event was lost")
            }
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Reads the counters and what waits until both stand still.
fn settle(mut receiver: Option<&mut Receiver>, hub: &Hub, netns: &Netns, rules: &Rules) -> Result<Vec<(String, u64)>> {
    let mut socket = netns.run(nftables::Socket::open)??;
    let (mut counted, intact) = rules.logged(&mut socket)?;
    if !intact {
        tracing::warn!("rules inside are not those that were made: what was lost can't be told exactly");
    }
    for _ in 0..SETTLING {
        // A packet is logged before it is counted: what is in the counters is in the socket, or lost.
        if let Some(receiver) = &mut receiver {
            while !drain(receiver, hub, BURST)? {}
        }
        let (now, _) = rules.logged(&mut socket)?;
        if now == counted {
            break;
        }
        counted = now;
    }
    Ok(counted)
}
