//! The bodies that pass through: handed on as they come, or edited piece by piece.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::exchange::Asked;
use super::pulse::Busy;
use super::rewrite::{BodyError, Edited};

/// The task that drives one connection to an origin or upstream; dropping it closes that connection.
#[derive(Debug)]
pub(super) struct Driver(JoinHandle<()>);

impl Driver {
    /// Starts driving. Must be called from within a tokio runtime.
    pub(super) fn start(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) -> Self {
        Self(tokio::spawn(async move {
            // Whoever waits for the response is told of the error by hyper.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to an origin ended badly");
            }
        }))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Body of a response to the client, with what lives exactly as long as it is being sent.
pub(super) struct ResponseBody {
    source: Source,
    busy: Option<Busy>,
    asked: Option<Arc<Asked>>,
    _driver: Option<Driver>,
}

enum Source {
    Empty,
    Whole(Full<Bytes>),
    Passed(Incoming),
    Edited(Box<Edited>),
}

impl Source {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Source::Empty => Poll::Ready(None),
            Source::Whole(body) => {
                Pin::new(body).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(|never| match never {})))
            }
            Source::Passed(body) => Pin::new(body).poll_frame(cx).map(|frame| frame.map(|frame| Ok(frame?))),
            Source::Edited(body) => Pin::new(body.as_mut()).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Source::Empty => true,
            Source::Whole(body) => body.is_end_stream(),
            Source::Passed(body) => body.is_end_stream(),
            Source::Edited(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Source::Empty => SizeHint::with_exact(0),
            Source::Whole(body) => body.size_hint(),
            Source::Passed(body) => body.size_hint(),
            Source::Edited(body) => body.size_hint(),
        }
    }
}

impl ResponseBody {
    pub(super) fn empty() -> Self {
        Self { source: Source::Empty, busy: None, asked: None, _driver: None }
    }

    pub(super) fn line(text: String) -> Self {
        Self { source: Source::Whole(Full::from(text)), busy: None, asked: None, _driver: None }
    }

    /// An origin's, as it comes. The driver is of the one connection that brings it.
    pub(super) fn origin(body: Incoming, driver: Option<Driver>) -> Self {
        Self { source: Source::Passed(body), busy: None, asked: None, _driver: driver }
    }

    /// An origin's, edited on its way.
    pub(super) fn edited(body: Edited, driver: Option<Driver>) -> Self {
        Self { source: Source::Edited(Box::new(body)), busy: None, asked: None, _driver: driver }
    }

    /// Keeps the request under way until this is sent.
    pub(super) fn answering(mut self, asked: Arc<Asked>) -> Self {
        self.asked = Some(asked);
        self
    }

    /// Keeps the exchange going until this is sent.
    pub(super) fn during(mut self, busy: Option<Busy>) -> Self {
        self.busy = busy;
        self
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.source.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}

/// Body of a request on its way to the origin.
///
/// hyper tells a client that waits for `100 Continue` to go on when its body is first polled: a closed gate puts that off
/// until the origin has said so.
pub(super) struct RequestBody {
    source: Source,
    gate: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl RequestBody {
    pub(super) fn new(source: Incoming) -> Self {
        Self { source: Source::Passed(source), gate: None }
    }

    /// No body: for a request of the proxy's own.
    pub(super) fn empty() -> Self {
        Self { source: Source::Empty, gate: None }
    }

    /// One that was read to its end already.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self { source: Source::Whole(Full::from(bytes)), gate: None }
    }

    /// Edited on its way.
    pub(super) fn edited(source: Edited) -> Self {
        Self { source: Source::Edited(Box::new(source)), gate: None }
    }

    /// Holds the body back until `open` is true. When the sender is gone before, the body is never asked for.
    pub(super) fn gated(mut self, mut open: watch::Receiver<bool>) -> Self {
        let gate = async move {
            if open.wait_for(|open| *open).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        self.gate = Some(Box::pin(gate));
        self
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(gate) = &mut self.gate {
            ready!(gate.as_mut().poll(cx));
            self.gate = None;
        }
        self.source.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}
