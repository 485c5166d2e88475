//! The bodies that pass through: handed on as they come, or edited piece by piece.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep};

use super::exchange::Asked;
use super::pulse::Busy;
use super::rewrite::{Edit, Rewriter};
use super::secret::{self, Stray};

/// What goes wrong with a body on its way.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A placeholder in a body where no value may stand.
#[derive(Debug, thiserror::Error)]
#[error("a placeholder in it is refused")]
pub(super) struct Refused;

/// Is told of what was refused.
pub(super) type OnStray = Arc<dyn Fn(Stray) + Send + Sync>;

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

pub(super) enum Source {
    Empty,
    Whole(Full<Bytes>, Option<HeaderMap>),
    Passed(Incoming),
    Edited(Box<Edited>),
}

impl Source {
    /// One that was read to its end already.
    pub(super) fn whole(bytes: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self::Whole(Full::from(bytes), trailers)
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Source::Empty => Poll::Ready(None),
            Source::Whole(body, trailers) => {
                let data =
                    Pin::new(body).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(|never| match never {})));
                data.map(|frame| frame.or_else(|| trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))))
            }
            Source::Passed(body) => Pin::new(body).poll_frame(cx).map(|frame| frame.map(|frame| Ok(frame?))),
            Source::Edited(body) => Pin::new(body.as_mut()).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Source::Empty => true,
            Source::Whole(body, trailers) => body.is_end_stream() && trailers.is_none(),
            Source::Passed(body) => body.is_end_stream(),
            Source::Edited(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Source::Empty => SizeHint::with_exact(0),
            Source::Whole(body, _) => body.size_hint(),
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
        Self { source: Source::Whole(Full::from(text), None), busy: None, asked: None, _driver: None }
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
    on_stray: Option<OnStray>,
    gate: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl RequestBody {
    pub(super) fn new(source: Incoming) -> Self {
        Self::from(Source::Passed(source))
    }

    pub(super) fn from(source: Source) -> Self {
        Self { source, on_stray: None, gate: None }
    }

    /// No body: for a request of the proxy's own.
    pub(super) fn empty() -> Self {
        Self::from(Source::Empty)
    }

    /// Edited on its way.
    pub(super) fn edited(source: Edited) -> Self {
        Self::from(Source::Edited(Box::new(source)))
    }

    /// Refuses a placeholder in its trailers: no value goes there.
    pub(super) fn refusing(mut self, on_stray: OnStray) -> Self {
        self.on_stray = Some(on_stray);
        self
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
        let frame = ready!(self.source.poll_frame(cx));
        let trailers = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.trailers_ref());
        if let (Some(stray), Some(tell)) = (trailers.and_then(secret::in_trailers), &self.on_stray) {
            tell(stray);
            return Poll::Ready(Some(Err(Refused.into())));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}

/// How long nothing comes before what is kept back of a body is sent. Longer than the pause that a far origin makes when a window is full, as an answer that says
/// a value might be cut there; short enough for whoever waits for the end of a message.
const SILENCE: Duration = Duration::from_millis(200);
/// It is counted in so many steps, each from when the one before was noticed: where the supervisor had no time itself, nobody was silent.
const STEPS: u32 = 4;

/// A silence that goes on.
struct Silence {
    clock: Pin<Box<Sleep>>,
    steps: u32,
}

impl Silence {
    fn begin() -> Self {
        Self { clock: Box::pin(sleep(SILENCE / STEPS)), steps: 0 }
    }

    /// Waits until it was long enough.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.steps < STEPS {
            ready!(self.clock.as_mut().poll(cx));
            self.steps += 1;
            self.clock.as_mut().reset(Instant::now() + SILENCE / STEPS);
        }
        Poll::Ready(())
    }
}

/// A body that is edited on its way.
pub(super) struct Edited {
    source: Source,
    rewriter: Rewriter,
    on_stray: Option<OnStray>,
    silence: Option<Silence>,
    trailers: Option<HeaderMap>,
    /// Why it breaks off, which is told behind what has come.
    failed: Option<BodyError>,
    ended: bool,
}

impl Edited {
    pub(super) fn new(source: Source, edit: Edit, on_stray: Option<OnStray>) -> Self {
        let rewriter = Rewriter::new(edit);
        Self { source, rewriter, on_stray, silence: None, trailers: None, failed: None, ended: false }
    }

    fn push(&mut self, piece: Bytes, all: bool) -> Result<Bytes, BodyError> {
        self.rewriter.push(piece, all).map_err(|stray| {
            if let Some(tell) = &self.on_stray {
                tell(stray);
            }
            Refused.into()
        })
    }
}

impl Body for Edited {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if self.rewriter.more() {
                let all = self.ended;
                return Poll::Ready(Some(self.push(Bytes::new(), all).map(Frame::data)));
            }
            if self.ended {
                if self.failed.is_some() {
                    // Whoever is told at once throws away what it has not sent yet.
                    ready!(self.silence.get_or_insert_with(Silence::begin).poll(cx));
                    return Poll::Ready(self.failed.take().map(Err));
                }
                return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            }
            let sent = match self.source.poll_frame(cx) {
                Poll::Pending => {
                    if !self.rewriter.waits() {
                        return Poll::Pending;
                    }
                    // It begins with the first time that there was nothing: a body that nobody asks for is not silent.
                    ready!(self.silence.get_or_insert_with(Silence::begin).poll(cx));
                    self.silence = None;
                    self.push(Bytes::new(), true)
                }
                Poll::Ready(frame) => {
                    self.silence = None;
                    match frame.map(|frame| frame.map(Frame::into_data)) {
                        Some(Ok(Ok(data))) => {
                            self.ended = self.source.is_end_stream();
                            let all = self.ended;
                            self.push(data, all)
                        }
                        Some(Err(error)) => {
                            self.ended = true;
                            self.failed = Some(error);
                            self.push(Bytes::new(), true)
                        }
                        other => {
                            self.ended = true;
                            let frame = other.and_then(Result::ok).and_then(Result::err);
                            self.trailers = frame.and_then(|frame| frame.into_trailers().ok());
                            let Self { rewriter, trailers, .. } = &mut *self;
                            if let Some(trailers) = trailers {
                                rewriter.in_trailers(trailers);
                            }
                            self.push(Bytes::new(), true)
                        }
                    }
                }
            };
            match sent {
                Ok(sent) if sent.is_empty() => {}
                Ok(sent) => return Poll::Ready(Some(Ok(Frame::data(sent)))),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let waits = self.rewriter.more() || self.rewriter.waits() || self.trailers.is_some() || self.failed.is_some();
        !waits && (self.ended || self.source.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}
