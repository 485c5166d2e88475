//! What goes on by itself: addresses in use stay open, and names that nobody asks our resolver for are asked for again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;

use crate::dns::Refused;
use crate::plan::{HELD, REFRESH};
use crate::policy::{DnsName, EndpointHost, HostPattern};
use crate::{Error, ErrorKind, Result};

use super::{Live, Turn, gone};

/// What runs out within that time is looked at in one go: answers may come and run out by the hundred.
pub(super) const TOGETHER: Duration = Duration::from_millis(200);

/// How long to wait after something went wrong, and when it has gone wrong again and again.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(60);

/// Keeps addresses open to which flows live, and sleeps while nothing runs out.
///
/// `idle` tells that nothing does yet, as with most sandboxes: then not even a look is taken.
pub(super) async fn keep(live: Arc<Live>, idle: bool) {
    if idle {
        live.sooner.notified().await;
    }
    let mut pause = PAUSE;
    loop {
        let turn = live.turn().await;
        let wake = match live.hand.does(move || turn.look()).await.and_then(|looked| looked) {
            Ok(wake) => {
                pause = PAUSE;
                wake
            }
            Err(error) => {
                if live.state().admission.is_none() {
                    return;
                }
                // A program that may do so can spoil the rules inside for good. Once is enough to tell.
                if pause == PAUSE {
                    tracing::warn!(error = %error.chain(), "addresses in use may be closed early");
                }
                let wake = Instant::now() + pause;
                pause = LONGEST.min(2 * pause);
                Some(wake)
            }
        };
        match wake {
            Some(wake) => {
                tokio::select! {
                    () = tokio::time::sleep_until(wake.into()) => {}
                    () = live.sooner.notified() => {}
                }
            }
            None => live.sooner.notified().await,
        }
    }
}

/// How many names are asked for at once.
const AT_ONCE: usize = 16;

impl Turn {
    /// Opens for longer what is in use and due, forgets what is gone, and says when to look again. Blocks.
    fn look(mut self) -> Result<Option<Instant>> {
        let live = self.live.clone();
        let mut state = live.state();
        if state.admission.is_none() {
            return Err(gone());
        }
        let now = Instant::now();
        let dropped = state.book.prune(now);
        if let Some(admission) = &mut state.admission {
            admission.forget(&dropped);
        }
        let due = state.book.due(now);
        if !due.is_empty() {
            drop(state);
            let used = self.used(&due)?;
            let (used, unused): (Vec<_>, Vec<_>) = due.into_iter().partition(|to| used.contains(to));
            let kept = live.state().book.used(&used, now);
            let open = live.state().book.elements(&kept, now);
            self.commit(&open)?;
            state = live.state();
            state.book.kept(&kept);
            state.book.unused(&unused);
        }
        state.wake = state.book.next().map(|next| next.max(now) + TOGETHER);
        Ok(state.wake)
    }
}

/// Asks for the names of direct endpoints again and again, where no resolver of ours hears of their answers, and nobody says how long one
/// holds.
pub(super) async fn refresh(live: Arc<Live>) {
    loop {
        tokio::time::sleep(REFRESH).await;
        let names: BTreeMap<DnsName, ()> = {
            let state = live.state();
            let direct = state.policy.direct.iter().filter_map(|to| match &to.value.host {
                EndpointHost::Pattern(HostPattern::Exact(name)) => Some((name.clone(), ())),
                _ => None,
            });
            direct.collect()
        };
        let renewed = futures::stream::iter(names.into_keys()).for_each_concurrent(AT_ONCE, async |name| {
            if let Err(error) = renew(&live, &name).await {
                // What it led to before stays for the grace, and for as long as it is used.
                tracing::warn!(%name, error = %error.chain(), "a direct endpoint's name can't be resolved again");
            }
        });
        renewed.await;
    }
}

async fn renew(live: &Arc<Live>, name: &DnsName) -> Result<()> {
    let addresses = live.resolver.resolve(name).await;
    let addresses: Vec<(IpAddr, Duration)> = addresses
        .map_err(|error| Error::new(ErrorKind::Resolve, "no answer").because(error))?
        .into_iter()
        .map(|address| (address.to_canonical(), HELD))
        .collect();
    let (turn, asked) = (live.turn().await, name.clone());
    match live.hand.does(move || turn.open(&asked, &addresses)).await? {
        Ok(()) => Ok(()),
        Err(Refused::Special { address, class }) => {
            Err(Error::new(ErrorKind::Resolve, format!("it leads to {address}, {class}")))
        }
        Err(Refused::TooMany) => Err(Error::new(ErrorKind::Exhausted, "there is no room for more addresses")),
        Err(Refused::Failed(error)) => Err(error),
    }
}
