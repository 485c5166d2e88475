//! The thread that changes a fence.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use tokio::sync::oneshot;

use crate::{Error, ErrorKind, Result};

type Work = Box<dyn FnOnce() + Send>;

/// A thread of one sandbox, which does what blocks while somebody has the [turn](super::Turn). It is there before the program is: one that leaves no
/// room for another thread, which a runtime's pool may want at any time, keeps nothing from being done. It ends with this value.
pub(super) struct Hand(mpsc::Sender<Work>);

impl Hand {
    pub(super) fn new() -> Result<Self> {
        let (order, orders) = mpsc::channel::<Work>();
        std::thread::Builder::new()
            .name("ringfence-live".to_owned())
            .spawn(move || {
                for work in orders {
                    // Whoever waits for it hears that it was lost; what is next has nothing to do with it.
                    let _ = catch_unwind(AssertUnwindSafe(work));
                }
            })
            .map_err(|error| Error::new(ErrorKind::Io, "can't start a sandbox's thread").because(error))?;
        Ok(Self(order))
    }

    /// Does it as soon as what was asked for before is done. It is done also where nobody waits for it any more.
    pub(super) async fn does<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (tell, told) = oneshot::channel();
        let lost = || Error::new(ErrorKind::Io, "the thread that changes the fence was lost");
        self.0.send(Box::new(move || drop(tell.send(work())))).map_err(|_| lost())?;
        told.await.map_err(|_| lost())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_panics_is_lost_and_what_comes_next_is_done() {
        let hand = Hand::new().unwrap();
        let lost = hand.does(|| -> u8 { panic!("on purpose") }).await.unwrap_err();
        assert!(lost.to_string().contains("was lost"), "{lost}");
        assert_eq!(hand.does(|| 7).await.unwrap(), 7);
    }
}
