//! Answers on sockets inside the sandbox.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::answer::Outcome;
use super::cache::Found;
use super::host::HostResolver;
use super::question::{Blocked, Carrier, LONGEST_QUESTION, Question, Unread, is_answered};
use super::{Answers, Denial, DenialReason, Gate, Handed, OnDenial, Refused};
use crate::policy::DnsName;

/// Longest pause after an error of a listener's, when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(50);

/// Bounds on what one sandbox can take up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Questions that are being answered at once; one more is told `SERVFAIL`.
    pub questions: usize,
    /// Connections that are served at once; one more is closed.
    pub connections: usize,
    /// Questions of one connection that are being answered at once; the next one is read when there is room.
    pub pipelined: usize,
    /// Longest time that a connection is kept without a whole question, or without its answer being taken.
    pub idle: Duration,
}

impl Default for Limits {
    /// 1024 questions, 64 connections with 32 questions each, 10 s of silence.
    fn default() -> Self {
        Self { questions: 1024, connections: 64, pipelined: 32, idle: Duration::from_secs(10) }
    }
}

/// Where questions come from.
#[derive(Debug, Default)]
pub struct Sockets {
    /// For datagrams.
    pub udp: Vec<UdpSocket>,
    /// For connections.
    pub tcp: Vec<TcpListener>,
}

/// The resolver, ready to serve.
pub struct Resolver {
    host: HostResolver,
    gate: Arc<dyn Gate>,
    answers: Arc<Answers>,
    on_denial: Option<OnDenial>,
    search: bool,
    audit: bool,
    limits: Limits,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Resolver {
    /// Makes a resolver that asks as the host would, and hands out what the gate admits.
    pub fn new(host: HostResolver, gate: Arc<dyn Gate>) -> Self {
        Self {
            host,
            gate,
            answers: Arc::default(),
            on_denial: None,
            search: true,
            audit: false,
            limits: Limits::default(),
        }
    }

    /// Tells `callback` of every question that is refused.
    pub fn on_denial(mut self, callback: OnDenial) -> Self {
        self.on_denial = Some(callback);
        self
    }

    /// Notes there what is handed out.
    pub fn answers(mut self, answers: Arc<Answers>) -> Self {
        self.answers = answers;
        self
    }

    /// Says whether a short name is looked for with the host's search list. A program's own libc does that too, and where every name may be asked
    /// for, once is enough.
    pub fn search(mut self, search: bool) -> Self {
        self.search = search;
        self
    }

    /// Says whether names that the gate does not cover, and addresses that it does not admit, are told of and handed out: an audit.
    pub fn audit(mut self, audit: bool) -> Self {
        self.audit = audit;
        self
    }

    /// Bounds what one sandbox can take up.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Serves until `shutdown`, then drops what is not answered.
    ///
    /// # Errors
    ///
    /// When a socket can't be registered with the runtime.
    pub async fn serve(self, sockets: Sockets, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let server = Arc::new(Server {
            questions: Arc::new(Semaphore::new(self.limits.questions)),
            connections: Arc::new(Semaphore::new(self.limits.connections)),
            resolver: self,
        });
        let mut tasks = JoinSet::new();
        for socket in sockets.udp {
            socket.set_nonblocking(true)?;
            let socket = Arc::new(tokio::net::UdpSocket::from_std(socket)?);
            tasks.spawn(datagrams(Arc::clone(&server), socket));
        }
        for listener in sockets.tcp {
            listener.set_nonblocking(true)?;
            tasks.spawn(connections(Arc::clone(&server), tokio::net::TcpListener::from_std(listener)?));
        }
        // Dropping the set ends all that it has, and each of these all that it has started.
        shutdown.await;
        Ok(())
    }

    /// Answers one message; `None` for what deserves no answer.
    async fn answer(&self, message: &[u8], client: SocketAddr, carrier: Carrier) -> Option<Vec<u8>> {
        let question = match Question::parse(message) {
            Ok(question) => question,
            Err(Unread::Error(error)) => return Some(error),
            Err(Unread::Silence) => return None,
        };
        let denied = |reason, passed| {
            if let Some(callback) = &self.on_denial {
                let (name, kind) = (question.written(), question.kind_name());
                callback(Denial { client, name, kind, reason, stage: "dns", passed });
            }
        };
        // `localhost` is the sandbox's own, whatever the policy.
        let covered = |name: &DnsName| name.is_localhost() || self.gate.covers(name);
        let passes = || {
            let audited = self.audit && is_answered(question.kind());
            if audited {
                denied(DenialReason::NotCovered, true);
            }
            audited
        };
        let name = question.name().filter(|name| covered(name) || passes());
        if question.kind() == RecordType::PTR
            || name.is_none() && !matches!(question.kind(), RecordType::ANY | RecordType::AXFR | RecordType::IXFR)
        {
            // Not REFUSED: musl's resolver passes over that and waits for an answer until its time is up, and a search list is not followed past it.
            denied(if name.is_some() { DenialReason::Kind } else { DenialReason::NotCovered }, false);
            return Some(question.blocked(ResponseCode::NXDomain, Blocked::Policy));
        }
        let Some(name) = name.filter(|_| is_answered(question.kind())) else {
            denied(DenialReason::Kind, false);
            return Some(question.blocked(ResponseCode::Refused, Blocked::Kind));
        };
        let found = self.host.look_up(&name, question.kind(), self.search).await;
        match self.admit(&name, &found).await {
            Ok(()) => {
                let ttl = if found.answer.outcome() == Outcome::Failed { 0 } else { found.ttl };
                Some(question.reply(&found.answer, ttl, carrier))
            }
            Err(refused) => {
                let (code, reason) = match refused {
                    Refused::Special { address, class } => {
                        (ResponseCode::NXDomain, DenialReason::Special { address, class })
                    }
                    Refused::TooMany => (ResponseCode::NXDomain, DenialReason::TooMany),
                    Refused::Failed(error) => {
                        tracing::error!(error = %error.chain(), %name, "addresses could not be let through");
                        (ResponseCode::ServFail, DenialReason::Failed)
                    }
                };
                denied(reason, self.audit);
                if !self.audit {
                    return Some(question.blocked(code, Blocked::Policy));
                }
                self.answers.note(&name, found.answer.addresses());
                Some(question.reply(&found.answer, found.ttl, carrier))
            }
        }
    }

    /// Lets the addresses of an answer through before it leaves.
    async fn admit(&self, name: &DnsName, found: &Found) -> Result<(), Refused> {
        if name.is_localhost() {
            return Ok(());
        }
        let ttl = Duration::from_secs(found.ttl.into());
        let handed: Vec<Handed> = found.answer.addresses().map(|address| Handed { address, ttl }).collect();
        if handed.is_empty() {
            return Ok(());
        }
        self.gate.admit(name, &handed).await?;
        self.answers.note(name, handed.iter().map(|handed| handed.address));
        Ok(())
    }
}

/// A resolver at work.
struct Server {
    resolver: Resolver,
    questions: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

impl Server {
    /// Answers one message if there is room, and says so if there is none.
    async fn answer(&self, message: &[u8], client: SocketAddr, carrier: Carrier) -> Option<Vec<u8>> {
        match self.questions.try_acquire() {
            Ok(_permit) => self.resolver.answer(message, client, carrier).await,
            Err(_) => Question::parse(message).ok().map(|question| question.failure(ResponseCode::ServFail)),
        }
    }
}

/// Answers datagrams.
async fn datagrams(server: Arc<Server>, socket: Arc<tokio::net::UdpSocket>) {
    let mut answering = JoinSet::new();
    // One byte more, so that a longer one is seen to be longer.
    let mut buffer = vec![0; LONGEST_QUESTION + 1];
    loop {
        while answering.try_join_next().is_some() {}
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(_) => {
                sleep(PAUSE).await;
                continue;
            }
        };
        let message = buffer[..length].to_vec();
        let (server, socket) = (Arc::clone(&server), Arc::clone(&socket));
        answering.spawn(async move {
            if let Some(answer) = server.answer(&message, client, Carrier::Udp).await {
                // Whoever went away needs no answer; a full queue loses it, as datagrams are lost.
                let _ = socket.send_to(&answer, client).await;
            }
        });
    }
}

/// Takes connections.
async fn connections(server: Arc<Server>, listener: tokio::net::TcpListener) {
    let mut serving = JoinSet::new();
    loop {
        while serving.try_join_next().is_some() {}
        let Ok((stream, client)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        // Without a permit it is closed at once.
        if let Ok(permit) = Arc::clone(&server.connections).try_acquire_owned() {
            let server = Arc::clone(&server);
            serving.spawn(async move {
                serve(server, stream, client).await;
                drop(permit);
            });
        }
    }
}

/// Answers what comes on one connection, each question when its answer is there (RFC 7766, section 6.2.1.1).
async fn serve(server: Arc<Server>, stream: TcpStream, client: SocketAddr) {
    let limits = server.resolver.limits.clone();
    let _ = stream.set_nodelay(true);
    let (mut reading, writing) = stream.into_split();
    let (tell, told) = mpsc::channel(limits.pipelined);
    let mut tasks = JoinSet::new();
    tasks.spawn(write(writing, told, limits.idle));
    let room = Arc::new(Semaphore::new(limits.pipelined));
    // The writer ends first only when nobody takes what it writes; then there is nothing left to do.
    while !tell.is_closed() {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break };
        while tasks.try_join_next().is_some() {}
        let Ok(Ok(message)) = timeout(limits.idle, read(&mut reading)).await else { break };
        let (server, tell) = (Arc::clone(&server), tell.clone());
        tasks.spawn(async move {
            if let Some(answer) = server.answer(&message, client, Carrier::Tcp).await {
                let _ = tell.send(answer).await;
            }
            drop(permit);
        });
    }
    // A client may end its side and wait for what it has asked.
    drop(tell);
    while tasks.join_next().await.is_some() {}
}

/// Reads a message after its length.
async fn read(stream: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > LONGEST_QUESTION {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes answers as they come, each after its length.
async fn write(mut stream: OwnedWriteHalf, mut answers: mpsc::Receiver<Vec<u8>>, patience: Duration) {
    while let Some(answer) = answers.recv().await {
        let Ok(length) = u16::try_from(answer.len()) else { continue };
        let whole = [&length.to_be_bytes(), answer.as_slice()].concat();
        if !matches!(timeout(patience, stream.write_all(&whole)).await, Ok(Ok(()))) {
            return;
        }
    }
}
