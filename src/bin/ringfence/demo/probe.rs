//! The program that runs in the demo's fences: this binary again, under a subcommand that no help shows.
//!
//! It does nothing by itself: line by line it is told what to try, and answers line by line, over a unix socket that is its standard
//! input and output. With any other input it refuses to serve, so that nobody has it send a packet by mistake.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::str::FromStr;
use std::time::{Duration, Instant};

use ringfence::kernel::nftables;
use ringfence::nft::{Object, Transaction, Verb};
use ringfence::{Error, ErrorKind, Result};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_domain};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

use super::dns;
use super::internet::SECRET_NAME;
use crate::io_error;

/// How often what is refused is tried; the time shown is the median.
const TRIES: usize = 5;

/// How long the probe waits for an answer that may never come.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long the demo waits for the probe: longer than the probe does for anything.
const PATIENCE_WITH_PROBE: Duration = Duration::from_secs(4);

/// Longest answer, in bytes.
const LONGEST: u64 = 4096;

/// Something to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// Nothing: says that the probe is there.
    Hello,
    /// Connects, says a line and reads one.
    Tcp(SocketAddr),
    /// Sends a question about a secret name and waits for the answer.
    Dns(SocketAddr),
    /// Sends an ICMP echo request from a raw socket.
    Ping(SocketAddr),
    /// Asks the proxy of the environment for a URL.
    Get(String),
    /// Deletes every nftables table of its own namespace.
    DeleteRules,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello => f.write_str("hello"),
            Self::Tcp(to) => write!(f, "tcp {to}"),
            Self::Dns(to) => write!(f, "dns {to}"),
            Self::Ping(to) => write!(f, "ping {to}"),
            Self::Get(url) => write!(f, "get {url}"),
            Self::DeleteRules => f.write_str("delete-rules"),
        }
    }
}

impl FromStr for Attempt {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let address = || rest.parse().map_err(|_| ());
        Ok(match verb {
            "hello" => Self::Hello,
            "tcp" => Self::Tcp(address()?),
            "dns" => Self::Dns(address()?),
            "ping" => Self::Ping(address()?),
            "get" => Self::Get(rest.to_owned()),
            "delete-rules" => Self::DeleteRules,
            _ => return Err(()),
        })
    }
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It worked, and this was answered.
    Done(String),
    /// The kernel refused.
    Refused(Errno),
    /// Nobody answered in time.
    Silence,
    /// Anything else.
    Failed(String),
}

impl From<io::Result<String>> for Outcome {
    fn from(result: io::Result<String>) -> Self {
        match result {
            Ok(said) => Self::Done(said),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::AGAIN) => Self::Silence,
                Some(errno) => Self::Refused(errno),
                None if error.kind() == io::ErrorKind::TimedOut => Self::Silence,
                None => Self::Failed(error.to_string()),
            },
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(said) => f.write_str(said),
            Self::Refused(errno) => f.write_str(&name(*errno)),
            Self::Silence => f.write_str("no answer"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// The name of an error number, as errno(3) has it.
fn name(errno: Errno) -> String {
    match errno {
        Errno::CONNREFUSED => "ECONNREFUSED".to_owned(),
        Errno::PERM => "EPERM".to_owned(),
        Errno::ACCESS => "EACCES".to_owned(),
        Errno::HOSTUNREACH => "EHOSTUNREACH".to_owned(),
        Errno::NETUNREACH => "ENETUNREACH".to_owned(),
        Errno::CONNRESET => "ECONNRESET".to_owned(),
        Errno::TIMEDOUT => "ETIMEDOUT".to_owned(),
        other => format!("errno {}", other.raw_os_error()),
    }
}

/// An outcome, and how long it took to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub outcome: Outcome,
    pub time: Duration,
}

impl Answer {
    /// A line without its end.
    fn line(&self) -> String {
        let nanos = self.time.as_nanos();
        let flat = |text: &str| text.replace(['\n', '\r'], " ");
        match &self.outcome {
            Outcome::Done(said) => format!("{nanos} done {}", flat(said)),
            Outcome::Refused(errno) => format!("{nanos} refused {}", errno.raw_os_error()),
            Outcome::Silence => format!("{nanos} silence "),
            Outcome::Failed(why) => format!("{nanos} failed {}", flat(why)),
        }
    }

    fn read(line: &str) -> Option<Self> {
        let mut parts = line.trim_end_matches('\n').splitn(3, ' ');
        let time = Duration::from_nanos(parts.next()?.parse().ok()?);
        let (kind, rest) = (parts.next()?, parts.next()?);
        let outcome = match kind {
            "done" => Outcome::Done(rest.to_owned()),
            "refused" => Outcome::Refused(Errno::from_raw_os_error(rest.parse().ok()?)),
            "silence" => Outcome::Silence,
            "failed" => Outcome::Failed(rest.to_owned()),
            _ => return None,
        };
        Some(Self { outcome, time })
    }
}

/// Tries what standard input says, until that ends.
///
/// # Errors
///
/// [`ErrorKind::Policy`] when that is no unix socket, and for a line that is no attempt; [`ErrorKind::Io`] when the streams fail.
pub fn serve() -> Result<u8> {
    let useless = || Error::new(ErrorKind::Policy, "this subcommand serves `ringfence demo` and is of no other use");
    if socket_domain(io::stdin()) != Ok(AddressFamily::UNIX) {
        return Err(useless());
    }
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| io_error("can't read from standard input", error))?;
        let attempt: Attempt = line.parse().map_err(|()| useless())?;
        let answer = attempt.run().line();
        let mut out = io::stdout().lock();
        writeln!(out, "{answer}")
            .and_then(|()| out.flush())
            .map_err(|error| io_error("can't write to standard output", error))?;
    }
    Ok(0)
}

impl Attempt {
    /// Tries it; what is refused, several times.
    pub fn run(&self) -> Answer {
        let mut answers = vec![self.once()];
        while answers.len() < TRIES && matches!(answers[0].outcome, Outcome::Refused(_)) {
            let again = self.once();
            // One that is not refused as the others were is what has to be shown.
            if again.outcome != answers[0].outcome {
                return again;
            }
            answers.push(again);
        }
        answers.sort_by_key(|answer| answer.time);
        answers.swap_remove(answers.len() / 2)
    }

    fn once(&self) -> Answer {
        let start = Instant::now();
        let outcome = match self {
            Self::Hello => Outcome::Done("hello".to_owned()),
            Self::Tcp(to) => converse(*to).into(),
            Self::Dns(to) => ask(*to).into(),
            Self::Ping(to) => ping(*to).into(),
            Self::Get(url) => get(url).into(),
            Self::DeleteRules => match delete_rules() {
                Ok(deleted) => Outcome::Done(deleted),
                Err(error) if error.kind() == ErrorKind::Privilege => Outcome::Refused(Errno::PERM),
                Err(error) => Outcome::Failed(error.chain()),
            },
        };
        Answer { outcome, time: start.elapsed() }
    }
}

fn converse(to: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"are you there?\n")?;
    let mut line = String::new();
    BufReader::new(stream).take(LONGEST).read_line(&mut line)?;
    Ok(format!("\"{}\"", line.trim_end()))
}

fn ask(to: SocketAddr) -> io::Result<String> {
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(to)?;
    let question = dns::question(1, SECRET_NAME, to.is_ipv6()).ok_or(io::ErrorKind::InvalidInput)?;
    socket.send(&question)?;
    let mut answer = [0; dns::LONGEST];
    let length = socket.recv(&mut answer)?;
    Ok(format!("an answer of {length} bytes"))
}

fn ping(to: SocketAddr) -> io::Result<String> {
    // Echo request, identifier and sequence 0; the checksum of eight bytes is known beforehand.
    const ECHO: [u8; 8] = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    rustix::net::connect(&socket, &to)?;
    rustix::net::send(&socket, &ECHO, SendFlags::empty())?;
    let mut answer = [0; 128];
    let (length, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    Ok(format!("an answer of {length} bytes"))
}

/// Asks the proxy as every HTTP client does that knows of one.
fn get(url: &str) -> io::Result<String> {
    let other = |what: &str| io::Error::other(what.to_owned());
    let proxy = std::env::var("http_proxy").map_err(|_| other("there is no proxy in the environment"))?;
    let proxy = proxy.trim_start_matches("http://").trim_end_matches('/');
    let proxy: SocketAddr = proxy.parse().map_err(|_| other("the proxy's address can't be read"))?;
    let host = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect_timeout(&proxy, PATIENCE)?;
    stream.set_read_timeout(Some(4 * PATIENCE))?;
    write!(stream, "GET {url} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.take(LONGEST).read_to_string(&mut response)?;
    let (head, body) = response.split_once("\r\n\r\n").ok_or_else(|| other("the proxy's answer has no end"))?;
    let status = head.split(' ').nth(1).ok_or_else(|| other("the proxy's answer has no status"))?;
    Ok(format!("{status} \"{}\"", body.trim_end()))
}

fn delete_rules() -> Result<String> {
    let mut socket = nftables::Socket::open()?;
    let mut transaction = Transaction::new();
    let tables = socket.tables()?;
    let deleted = tables.len();
    for table in tables {
        transaction.push(Verb::Delete, Object::Table(table));
    }
    socket.commit(&transaction)?;
    Ok(format!("{deleted} tables deleted"))
}

/// The demo's end of the line to a probe.
pub struct Probe {
    read: tokio::io::BufReader<tokio::net::unix::OwnedReadHalf>,
    write: tokio::net::unix::OwnedWriteHalf,
}

impl Probe {
    /// Makes the line: our end, and the other as the probe's standard input and output.
    pub fn line() -> Result<(Self, [OwnedFd; 2])> {
        let line = || -> io::Result<_> {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            let (read, write) = tokio::net::UnixStream::from_std(ours)?.into_split();
            let output = theirs.as_fd().try_clone_to_owned()?;
            Ok((Self { read: tokio::io::BufReader::new(read), write }, [theirs.into(), output]))
        };
        line().map_err(|error| io_error("can't make the line to the demo's probe", error))
    }

    /// Has the probe try something.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Child`] when it does not answer.
    pub async fn attempt(&mut self, attempt: &Attempt) -> Result<Answer> {
        let lost =
            |why: &str| Error::new(ErrorKind::Child, format!("the demo's probe was asked to `{attempt}` and {why}"));
        let exchange = async {
            self.write.write_all(format!("{attempt}\n").as_bytes()).await?;
            let mut line = String::new();
            (&mut self.read).take(LONGEST).read_line(&mut line).await?;
            Ok::<_, io::Error>(line)
        };
        match tokio::time::timeout(PATIENCE_WITH_PROBE, exchange).await {
            Ok(Ok(line)) => Answer::read(&line).ok_or_else(|| lost("answered what can't be read")),
            Ok(Err(error)) => Err(lost("was lost").because(error)),
            Err(_) => Err(lost("did not answer")),
        }
    }

    /// Waits until no process holds the probe's end of the line any more; false when one still does after some seconds.
    pub async fn gone(mut self) -> bool {
        let mut rest = [0; 1];
        // A reset is an end, too: the probe died with something unread.
        tokio::time::timeout(PATIENCE_WITH_PROBE, self.read.read(&mut rest))
            .await
            .is_ok_and(|read| !matches!(read, Ok(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_and_answers_are_read_as_they_were_written() {
        let to: SocketAddr = "[2001:db8::9]:22".parse().unwrap();
        let get = Attempt::Get("http://web.example/".to_owned());
        for attempt in
            [Attempt::Hello, Attempt::Tcp(to), Attempt::Dns(to), Attempt::Ping(to), get, Attempt::DeleteRules]
        {
            assert_eq!(attempt.to_string().parse(), Ok(attempt));
        }
        let outcomes = [
            Outcome::Done("200 \"a b\"".to_owned()),
            Outcome::Refused(Errno::PERM),
            Outcome::Silence,
            Outcome::Failed("why not".to_owned()),
        ];
        for outcome in outcomes {
            let answer = Answer { outcome, time: Duration::from_nanos(12_345) };
            assert_eq!(Answer::read(&answer.line()), Some(answer));
        }
        assert_eq!("rm -rf /".parse::<Attempt>(), Err(()));
    }
}
