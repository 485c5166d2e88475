//! The bodies that pass through: never held, only handed on.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::{Empty, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::pulse::Busy;

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
#[derive(Debug)]
pub(super) struct ResponseBody {
    source: Source,
    _busy: Option<Busy>,
    _driver: Option<Driver>,
}

#[derive(Debug)]
enum Source {
    Empty(Empty<Bytes>),
    Line(Full<Bytes>),
    Origin(Incoming),
}

impl ResponseBody {
    pub(super) fn empty() -> Self {
        Self { source: Source::Empty(Empty::new()), _busy: None, _driver: None }
    }

    pub(super) fn line(text: String, busy: Busy) -> Self {
        Self { source: Source::Line(Full::from(text)), _busy: Some(busy), _driver: None }
    }

    pub(super) fn origin(body: Incoming, busy: Busy, driver: Driver) -> Self {
        Self { source: Source::Origin(body), _busy: Some(busy), _driver: Some(driver) }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let certain = |frame: Option<Result<Frame<Bytes>, Infallible>>| {
            frame.map(|frame| match frame {
                Ok(frame) => Ok(frame),
                Err(never) => match never {},
            })
        };
        match &mut self.source {
            Source::Empty(body) => Pin::new(body).poll_frame(cx).map(certain),
            Source::Line(body) => Pin::new(body).poll_frame(cx).map(certain),
            Source::Origin(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty(body) => body.is_end_stream(),
            Source::Line(body) => body.is_end_stream(),
            Source::Origin(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty(body) => body.size_hint(),
            Source::Line(body) => body.size_hint(),
            Source::Origin(body) => body.size_hint(),
        }
    }
}

/// Body of a request on its way to the origin.
///
/// hyper tells a client that waits for `100 Continue` to go on when its body is first polled: a closed gate puts that off
/// until the origin has said so.
pub(super) struct RequestBody {
    source: Option<Incoming>,
    gate: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl RequestBody {
    pub(super) fn new(source: Incoming) -> Self {
        Self { source: Some(source), gate: None }
    }

    /// No body: for a request of the proxy's own.
    pub(super) fn empty() -> Self {
        Self { source: None, gate: None }
    }

    /// Holds the body back until `open` is true. When the sender is gone before, the body is never asked for.
    pub(super) fn gated(source: Incoming, mut open: watch::Receiver<bool>) -> Self {
        let gate = async move {
            if open.wait_for(|open| *open).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        Self { source: Some(source), gate: Some(Box::pin(gate)) }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(gate) = &mut self.gate {
            ready!(gate.as_mut().poll(cx));
            self.gate = None;
        }
        match &mut self.source {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.source.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.source.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}
