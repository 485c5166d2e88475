//! `ringfence run --metrics`: what the fence counts, for Prometheus: a file that is replaced, or a socket that answers HTTP.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use ringfence::policy::{MetricsTo, Sourced};
use ringfence::{Counters, Error, ErrorKind, Result};
use rustix::fs::FileType;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Interval;

use crate::place::Place;

/// How often the file is replaced.
const PERIOD: Duration = Duration::from_secs(10);

/// How many scrapes may wait for their answer.
const SCRAPES: usize = 8;

/// Whoever asks for metrics, and how they get them.
pub enum Metrics {
    /// Written from time to time.
    File { place: Place, shown: String, ticks: Interval },
    /// Asked for.
    Socket { place: Place, own: Option<(FileType, u64, u64)>, asked: mpsc::Receiver<Ask>, _serving: JoinSet<()> },
}

/// Somebody waits for text.
type Ask = oneshot::Sender<String>;

impl Metrics {
    /// Opens the place, so that a wrong one is an error before the command is started.
    ///
    /// Must be called within a tokio runtime.
    pub fn open(to: &Sourced<MetricsTo>) -> Result<Self> {
        let fail = |error: std::io::Error| {
            let what = format!("{}: can't show metrics at `{}`", to.origin, to.value);
            Error::new(ErrorKind::Io, what).because(error)
        };
        match &to.value {
            MetricsTo::File(path) => {
                let place = Place::of_file(path).map_err(fail)?;
                place.replace("").map_err(fail)?;
                Ok(Self::File { place, shown: path.display().to_string(), ticks: tokio::time::interval(PERIOD) })
            }
            MetricsTo::Unix(path) => {
                // Left over from one that was killed: nobody listens there any more.
                let place = Place::open(path).map_err(fail)?;
                let socket = place.identity().is_some_and(|(kind, ..)| kind == FileType::Socket);
                if socket && std::os::unix::net::UnixStream::connect(path).is_err() {
                    place.remove().map_err(fail)?;
                }
                let listener = UnixListener::bind(path).map_err(fail)?;
                let own = place.identity();
                let (ask, asked) = mpsc::channel(SCRAPES);
                let mut serving = JoinSet::new();
                serving.spawn(serve(listener, ask));
                Ok(Self::Socket { place, own, asked, _serving: serving })
            }
        }
    }

    /// Waits until metrics are wanted. May be dropped in between.
    pub async fn wanted(&mut self) -> Option<Ask> {
        match self {
            Self::File { ticks, .. } => {
                ticks.tick().await;
                None
            }
            Self::Socket { asked, .. } => match asked.recv().await {
                Some(ask) => Some(ask),
                None => std::future::pending().await,
            },
        }
    }

    /// Hands them over. What can't be is said, and changes nothing else.
    pub fn tell(&self, ask: Option<Ask>, counters: Result<Vec<Counters>>) {
        let text = match counters {
            Ok(counters) => Counters::to_prometheus(&counters),
            Err(error) => return tracing::warn!(error = %error.chain(), "can't read the counters"),
        };
        match (self, ask) {
            // Whoever asked may have gone.
            (_, Some(ask)) => drop(ask.send(text)),
            (Self::File { place, shown, .. }, None) => {
                if let Err(error) = place.replace(&text) {
                    tracing::warn!(%error, "can't write metrics to `{shown}`");
                }
            }
            (Self::Socket { .. }, None) => {}
        }
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        // What somebody else put there is theirs.
        if let Self::Socket { place, own, .. } = self
            && place.identity() == *own
        {
            // Nobody is left to be told.
            let _ = place.remove();
        }
    }
}

async fn serve(listener: UnixListener, ask: mpsc::Sender<Ask>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if connections.len() >= SCRAPES {
            continue;
        }
        let ask = ask.clone();
        connections.spawn(async move {
            let answer = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let (ask, get) = (ask.clone(), request.method() == Method::GET);
                async move { Ok::<_, Infallible>(answer(get, &ask).await) }
            });
            let serving = hyper::server::conn::http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            // Who does not ask in time is not answered.
            let _ = tokio::time::timeout(PERIOD, serving).await;
        });
    }
}

async fn answer(get: bool, ask: &mpsc::Sender<Ask>) -> Response<Full<Bytes>> {
    let status = |status: StatusCode| {
        let mut response = Response::new(Full::default());
        *response.status_mut() = status;
        response
    };
    if !get {
        return status(StatusCode::METHOD_NOT_ALLOWED);
    }
    let (tell, told) = oneshot::channel();
    if ask.send(tell).await.is_err() {
        return status(StatusCode::SERVICE_UNAVAILABLE);
    }
    match told.await {
        Ok(text) => {
            let mut response = Response::new(Full::from(text));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(Counters::MEDIA_TYPE));
            response
        }
        Err(_) => status(StatusCode::SERVICE_UNAVAILABLE),
    }
}
