//! Asks the host's name servers, one after the other, until one answers.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hickory_proto::rr::{Name, RecordType};
use rustix::net::{AddressFamily, SocketType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, timeout};

use super::answer::{Answer, Sent, Unusable};
use super::conf::{ResolvConf, Server};

/// How long a server is left alone before the next one is asked beside it.
const HEAD_START: Duration = Duration::from_millis(800);
/// How long a server that did not answer comes last.
const SHUNNED: Duration = Duration::from_secs(30);
/// Longest time that a question takes in all, whatever the host's settings.
const LONGEST: Duration = Duration::from_secs(30);
/// Room for an answer in a datagram. Longer than asked for, and it is cut off and can't be read.
const DATAGRAM: usize = 4096;

/// Which servers did not answer, and whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Upstream {
    silent: Mutex<HashMap<Server, Instant>>,
    turn: AtomicUsize,
}

impl Upstream {
    /// Asks until somebody answers.
    ///
    /// A server that fails makes way for the next one at once, and one that is slow is joined by it; whoever answers first is believed.
    pub async fn ask(&self, name: &Name, kind: RecordType, conf: &ResolvConf) -> Answer {
        let order = self.order(conf);
        let rounds: Vec<&Server> = (0..conf.attempts).flat_map(|_| &order).collect();
        let mut waiting = rounds.into_iter();
        let head_start = HEAD_START.min(conf.timeout);
        let mut asked = FuturesUnordered::new();
        let race = async {
            let mut last = None;
            loop {
                match waiting.next() {
                    Some(server) => {
                        asked.push(self.ask_one(server, name, kind, conf.timeout));
                        last = Some(server);
                    }
                    None if asked.is_empty() => return Answer::failed(),
                    None => {}
                }
                let more = waiting.len() > 0;
                tokio::select! {
                    Some(answer) = asked.next() => {
                        if let Some(answer) = answer {
                            return answer;
                        }
                    }
                    // The next question need not wait as long. Should it still answer, it is heard.
                    () = sleep(head_start), if more => {
                        if let Some(server) = last {
                            self.heard(server, false);
                        }
                    }
                }
            }
        };
        timeout(LONGEST, race).await.unwrap_or_else(|_| Answer::failed())
    }

    /// All servers: as the host has them, or taking turns; those that did not answer lately come last.
    fn order(&self, conf: &ResolvConf) -> Vec<Server> {
        let mut order = conf.servers.clone();
        if conf.rotate {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            order.rotate_left(turn % conf.servers.len().max(1));
        }
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.retain(|server, since| since.elapsed() < SHUNNED && conf.servers.contains(server));
        order.sort_by_key(|server| silent.contains_key(server));
        order
    }

    async fn ask_one(&self, server: &Server, name: &Name, kind: RecordType, patience: Duration) -> Option<Answer> {
        let answer = timeout(patience, exchange(server.at(interface), name, kind)).await;
        self.heard(server, matches!(answer, Ok(Ok(_) | Err(Failure::Answered))));
        answer.ok()?.ok()
    }

    /// Notes whether a server answers.
    fn heard(&self, server: &Server, answers: bool) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        if answers {
            silent.remove(server);
        } else {
            silent.insert(server.clone(), Instant::now());
        }
    }
}

enum Failure {
    /// The server answered with an error.
    Answered,
    /// It could not be reached.
    Unreachable,
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Failure::Unreachable
    }
}

/// Asks one server: over UDP with EDNS, and as it turns out to need.
async fn exchange(server: SocketAddr, name: &Name, kind: RecordType) -> Result<Answer, Failure> {
    let mut edns = true;
    let mut tcp = false;
    // Each round is another way of asking, and there are no more than these.
    for _ in 0..4 {
        let sent = Sent::new(name, kind, edns).ok_or(Failure::Answered)?;
        match if tcp { over_tcp(server, &sent).await? } else { over_udp(server, &sent).await? } {
            Ok(answer) => return Ok(answer),
            Err(Unusable::AskOverTcp) if !tcp => tcp = true,
            Err(Unusable::AskPlainly) if edns => edns = false,
            Err(_) => return Err(Failure::Answered),
        }
    }
    Err(Failure::Answered)
}

/// Asks over UDP, and waits for an answer to what was asked: what else comes is passed over.
async fn over_udp(server: SocketAddr, sent: &Sent) -> io::Result<Result<Answer, Unusable>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A socket for each question: the kernel picks its port by chance, and lets nobody but the server send to it.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(sent.bytes()).await?;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match sent.read(&buffer[..length], false) {
            Err(Unusable::NotOurs) => {}
            answer => return Ok(answer),
        }
    }
}

async fn over_tcp(server: SocketAddr, sent: &Sent) -> io::Result<Result<Answer, Unusable>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(sent.bytes().len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), sent.bytes()].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(sent.read(&answer, true))
}

/// Index of an interface of this thread's network namespace.
fn interface(name: &str) -> Option<u32> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    rustix::net::netdevice::name_to_index(socket, name).ok()
}
