//! Asks as the host would: its hosts file, then its name servers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, fs, io};

use futures::future::BoxFuture;
use hickory_proto::rr::RecordType;
use tokio::sync::{Semaphore, watch};

use super::Handed;
use super::answer::{Answer, Outcome, wire_name};
use super::cache::{Cache, Found, Key};
use super::conf::{Hosts, ResolvConf, asks_servers, has_other_sources};
use super::upstream::Upstream;
use crate::policy::DnsName;
use crate::proxy::{Resolve, SystemResolver};

/// For how long an address of the hosts file is handed out, in seconds: the file may be changed.
const HOSTS_TTL: u32 = 60;
/// Questions that wait for a server at once. Each holds a socket.
const ASKED_AT_ONCE: usize = 96;
/// Questions that are remembered as asked; more are answered with a failure.
const PENDING: usize = 1024;
/// How often the host's files are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Longest file of the host's that is read.
const LONGEST_FILE: u64 = 16 << 20;

/// Where the host keeps its settings for names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFiles {
    /// resolv.conf(5).
    pub resolv_conf: PathBuf,
    /// hosts(5).
    pub hosts: PathBuf,
    /// nsswitch.conf(5).
    pub nsswitch: PathBuf,
}

impl Default for HostFiles {
    fn default() -> Self {
        let etc = |name| Path::new("/etc").join(name);
        Self { resolv_conf: etc("resolv.conf"), hosts: etc("hosts"), nsswitch: etc("nsswitch.conf") }
    }
}

/// Asks the host's name servers, and remembers what they said. Its clones share what they remember.
///
/// It reads the host's files again when they change. Its sockets are of the network namespace of the thread that runs it. What is asked twice while
/// an answer is due is asked once.
#[derive(Clone)]
pub struct HostResolver(Arc<Inner>);

struct Inner {
    files: Mutex<Files>,
    upstream: Upstream,
    state: Mutex<State>,
    asking: Semaphore,
    system: SystemResolver,
}

#[derive(Default)]
struct State {
    cache: Cache,
    pending: HashMap<Key, watch::Receiver<Option<Found>>>,
}

impl Default for HostResolver {
    fn default() -> Self {
        Self::new(HostFiles::default())
    }
}

impl fmt::Debug for HostResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostResolver").finish_non_exhaustive()
    }
}

impl HostResolver {
    /// A resolver of the host that has its settings there.
    pub fn new(files: HostFiles) -> Self {
        Self(Arc::new(Inner {
            files: Mutex::new(Files::new(files)),
            upstream: Upstream::default(),
            state: Mutex::default(),
            asking: Semaphore::new(ASKED_AT_ONCE),
            system: SystemResolver::default(),
        }))
    }

    /// What the host's resolv.conf says at present.
    pub fn settings(&self) -> Arc<ResolvConf> {
        self.0.settings().conf
    }

    /// What the host's hosts file says at present.
    pub fn hosts(&self) -> Arc<Hosts> {
        self.0.settings().hosts
    }

    /// Whether the host's hosts file has the name.
    pub fn in_hosts_file(&self, name: &DnsName) -> bool {
        self.0.settings().hosts.find(name).is_some()
    }

    /// Looks up all addresses of a name, with the time that each is good for. Only the hosts file and name servers are asked.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] for a name that does not exist or has no address, [`io::ErrorKind::TimedOut`] when no server answered.
    pub async fn addresses(&self, name: &DnsName) -> io::Result<Vec<Handed>> {
        let (four, six) =
            tokio::join!(self.look_up(name, RecordType::A, true), self.look_up(name, RecordType::AAAA, true));
        let mut all: Vec<Handed> = Vec::new();
        for found in [&four, &six] {
            let ttl = Duration::from_secs(found.ttl.into());
            for address in found.answer.addresses() {
                if !all.iter().any(|handed| handed.address == address) {
                    all.push(Handed { address, ttl });
                }
            }
        }
        if !all.is_empty() {
            return Ok(all);
        }
        Err(match (four.answer.outcome(), six.answer.outcome()) {
            (Outcome::Failed, _) | (_, Outcome::Failed) => {
                io::Error::new(io::ErrorKind::TimedOut, "no answer from the name servers")
            }
            (Outcome::NoName, _) | (_, Outcome::NoName) => io::Error::new(io::ErrorKind::NotFound, "no such name"),
            _ => io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
        })
    }

    /// Answers for a name: from the hosts file, from memory, from a server. With `search`, a short name may be another one's beginning.
    pub(super) async fn look_up(&self, name: &DnsName, kind: RecordType, search: bool) -> Found {
        let Settings { conf, hosts, sources } = self.0.settings();
        let Some(wire) = wire_name(name) else { return failed() };
        let loopback = [IpAddr::from([127, 0, 0, 1]), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)];
        let known = match hosts.find(name) {
            Some(known) => Some(known),
            // RFC 6761, section 6.3: it is nobody else's to answer.
            None if name.is_localhost() => Some(loopback.as_slice()),
            None => None,
        };
        if let Some(known) = known {
            // As libc does: a name that the file has is not looked for elsewhere.
            let asked = known.iter().filter(|address| match kind {
                RecordType::A => address.is_ipv4(),
                RecordType::AAAA => address.is_ipv6(),
                _ => false,
            });
            return Found { answer: Arc::new(Answer::known(&wire, asked.copied(), HOSTS_TTL)), ttl: HOSTS_TTL };
        }
        if !sources.servers {
            return Found { answer: Arc::new(Answer::unknown()), ttl: 0 };
        }
        if !search {
            return self.ask(&(name.clone(), kind), &conf).await;
        }
        let (mut own, mut silence) = (None, None);
        for candidate in conf.candidates(name) {
            let found = self.ask(&(candidate.clone(), kind), &conf).await;
            match found.answer.outcome() {
                Outcome::Found if candidate != *name => {
                    return Found { answer: Arc::new(found.answer.as_asked(&wire)), ttl: found.ttl };
                }
                Outcome::Found => return found,
                // The name is there, whatever else could be.
                Outcome::NoData if candidate == *name => return found,
                Outcome::Failed => silence = Some(found),
                Outcome::NoData | Outcome::NoName if candidate == *name => own = Some(found),
                Outcome::NoData | Outcome::NoName => {}
            }
        }
        // As long as one of them is not known about, the name may exist.
        silence.or(own).unwrap_or_else(failed)
    }

    /// Asks for exactly this, unless the answer is known, or somebody has just asked.
    async fn ask(&self, key: &Key, conf: &Arc<ResolvConf>) -> Found {
        let mut first = None;
        let mut answer = {
            let mut state = self.0.state();
            if let Some(found) = state.cache.find(key, Instant::now()) {
                return found;
            }
            match state.pending.get(key) {
                Some(answer) => answer.clone(),
                None if state.pending.len() >= PENDING => return failed(),
                None => {
                    let (tell, told) = watch::channel(None);
                    state.pending.insert(key.clone(), told.clone());
                    first = Some((Asking { resolver: self.clone(), key: key.clone() }, tell));
                    told
                }
            }
        };
        // A task of its own: who asked first may go away, and others wait too. Not with the state locked, for a runtime that is ending drops it at
        // once.
        if let Some((asking, tell)) = first {
            tokio::spawn(asking.run(Arc::clone(conf), tell));
        }
        match answer.wait_for(Option::is_some).await {
            Ok(found) => found.clone().unwrap_or_else(failed),
            Err(_) => failed(),
        }
    }
}

fn failed() -> Found {
    Found { answer: Arc::new(Answer::failed()), ttl: 0 }
}

/// A question on its way. Nobody waits for it any more once it is dropped.
struct Asking {
    resolver: HostResolver,
    key: Key,
}

impl Asking {
    async fn run(self, conf: Arc<ResolvConf>, tell: watch::Sender<Option<Found>>) {
        let inner = &self.resolver.0;
        // Never closed.
        let _permit = inner.asking.acquire().await;
        let answer = match wire_name(&self.key.0) {
            Some(name) => Arc::new(inner.upstream.ask(&name, self.key.1, &conf).await),
            None => Arc::new(Answer::failed()),
        };
        let found = Found { ttl: answer.ttl(), answer: Arc::clone(&answer) };
        inner.state().cache.keep(self.key.clone(), answer, Instant::now());
        tell.send_replace(Some(found));
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.resolver.0.state().pending.remove(&self.key);
    }
}

impl Inner {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // What a panic left behind is whole: nothing in here is changed in two steps that must go together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host's settings, read again if they have changed.
    fn settings(&self) -> Settings {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let other_servers = files.look();
        let settings = Settings {
            conf: Arc::clone(&files.conf.value),
            hosts: Arc::clone(&files.hosts.value),
            sources: Arc::clone(&files.sources.value),
        };
        drop(files);
        if other_servers {
            // Other servers may tell other things, as inside a VPN.
            self.state().cache.clear();
        }
        settings
    }
}

impl Resolve for HostResolver {
    /// Asks the hosts file and the name servers; where they have no such name and the host may have other sources, asks the system.
    fn resolve<'a>(&'a self, name: &'a DnsName) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            match self.addresses(name).await {
                Ok(all) => Ok(all.into_iter().map(|handed| handed.address).collect()),
                Err(error) => {
                    if self.0.settings().sources.others {
                        return self.0.system.resolve(name).await.map_err(|_| error);
                    }
                    Err(error)
                }
            }
        })
    }
}

/// What the host's files say.
struct Settings {
    conf: Arc<ResolvConf>,
    hosts: Arc<Hosts>,
    sources: Arc<Sources>,
}

/// Where the host's names come from besides the hosts file.
struct Sources {
    servers: bool,
    others: bool,
}

impl Sources {
    fn parse(nsswitch: &str) -> Self {
        Self { servers: asks_servers(nsswitch), others: has_other_sources(nsswitch) }
    }
}

impl Default for Sources {
    fn default() -> Self {
        Self::parse("")
    }
}

/// The host's files, and when they were last looked at.
struct Files {
    paths: HostFiles,
    looked: Option<Instant>,
    conf: Watched<ResolvConf>,
    hosts: Watched<Hosts>,
    sources: Watched<Sources>,
}

/// What a file says, and what it looked like when it was read.
#[derive(Default)]
struct Watched<T> {
    stamp: Option<Stamp>,
    value: Arc<T>,
}

/// What of a file changes with its content: device, inode, size, and the times of its content and of itself.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

impl Files {
    fn new(paths: HostFiles) -> Self {
        let (conf, hosts, sources) = (Watched::default(), Watched::default(), Watched::default());
        Self { paths, looked: None, conf, hosts, sources }
    }

    /// Reads what has changed; says whether that were the servers.
    fn look(&mut self) -> bool {
        let now = Instant::now();
        if self.looked.is_some_and(|last| now.duration_since(last) < LOOK) {
            return false;
        }
        self.looked = Some(now);
        self.hosts.look(&self.paths.hosts, Hosts::parse);
        self.sources.look(&self.paths.nsswitch, Sources::parse);
        self.conf.look(&self.paths.resolv_conf, ResolvConf::parse)
    }
}

impl<T: Default> Watched<T> {
    fn look(&mut self, path: &Path, parse: impl FnOnce(&str) -> T) -> bool {
        use std::os::unix::fs::MetadataExt;
        let stamp = fs::metadata(path).ok().map(|file| {
            (file.dev(), file.ino(), file.size(), (file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()))
        });
        if stamp == self.stamp {
            return false;
        }
        // A file that went away says what an absent one says.
        self.value = Arc::new(read(path).map_or_else(|_| T::default(), |text| parse(&text)));
        self.stamp = stamp;
        true
    }
}

/// Reads a file of the host's, as far as it is text.
fn read(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(LONGEST_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
