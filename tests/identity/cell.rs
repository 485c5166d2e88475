//! A fence that stands, a program behind it, and everybody who was told to have tried.

use std::collections::HashMap;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringfence::audit::{Attempted, Identify, Identity};
use ringfence::kernel::identity::{Logged, Program};
use ringfence::kernel::netns::Netns;
use ringfence::kernel::rtnetlink::{Batch, Request, Socket};
use ringfence::kernel::{link, nftables};
use ringfence::link::{IfIndex, Mtu, Pool};
use ringfence::nflog::{Group, Options, Received, Receiver};
use ringfence::plan::{HostView, NFLOG_GROUP, Plan};
use ringfence::policy::Policy;

use crate::support::{PATIENCE, skip};

/// The port that is allowed, of TCP and UDP.
pub const ALLOWED: u16 = 4444;

/// Silence after which no packet is on its way any more.
const SILENCE: Duration = Duration::from_millis(150);

/// What the kernel told of one attempt, and who is said to have made it.
#[derive(Debug, Clone)]
pub struct Told {
    pub attempted: Attempted,
    pub identity: Identity,
    /// How long it took to tell.
    pub took: Duration,
}

impl Told {
    /// The process that says so in a datagram of `attempt.c` itself, behind all that is looked at.
    pub fn signed(&self) -> Option<u32> {
        let text = self.attempted.head.get(28..81)?;
        std::str::from_utf8(text.get(42..)?).ok()?.parse().ok()
    }
}

/// A namespace with the fence of a policy.
pub struct Cell {
    pub netns: Netns,
    pub address: IpAddr,
    pub host: Netns,
}

impl Cell {
    /// Builds one; loudly none where there can't be one.
    pub fn new() -> Option<Self> {
        let made = Netns::create_with(Socket::open).and_then(|host| Ok((host, Netns::create_with(Socket::open)?)));
        let ((host, host_links), (netns, links)) = match made {
            Ok(made) => made,
            Err(error) => {
                skip(&format!("no network namespace to be had: {}", error.chain()));
                return None;
            }
        };
        let (mut host_links, mut links) = (host_links.unwrap(), links.unwrap());
        let loopback = || Batch::from([Request::up(IfIndex(1))]);
        host_links.commit(loopback()).unwrap();
        links.commit(loopback()).unwrap();
        let wire = link::wire(&mut host_links, &mut links, &Pool::default(), Mtu::default()).unwrap();
        let direct = format!("203.0.113.9:{ALLOWED}");
        let policy = Policy::builder().direct(&direct).unwrap().direct_udp(&direct).unwrap().build().unwrap();
        let view = HostView {
            wire: wire.pair.clone(),
            host_index: wire.host_index.0,
            table_suffix: "identity".to_owned(),
            resolved: Default::default(),
            no_proxy: None,
        };
        let plan = Plan::new(&policy, &view).unwrap();
        netns.run(|| nftables::Socket::open().unwrap().commit(&plan.inside.create())).unwrap().unwrap();
        Some(Self { netns, address: wire.pair.addresses.sandbox4.into(), host })
    }

    /// Watches by BPF while `work` is done, and gives everything that was told.
    pub fn watch<T>(&self, program: &Program, work: impl FnOnce() -> T) -> (T, Vec<Told>) {
        let watch = program.attach(&self.netns, Logged::Refused).unwrap();
        self.listen(watch, work)
    }

    /// Listens to the fence while `work` is done, and asks who it was.
    pub fn listen<T>(&self, mut identify: impl Identify, work: impl FnOnce() -> T) -> (T, Vec<Told>) {
        let mut receiver = self.netns.run(|| Receiver::bind(Group(NFLOG_GROUP), Options::latency())).unwrap().unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let listener = scope.spawn(|| {
                let mut told = Vec::new();
                loop {
                    let last = over.load(Ordering::Relaxed);
                    match receiver.recv_timeout(SILENCE).unwrap() {
                        Some(Received::Packet(message)) => {
                            let attempted = Attempted::of(&message).expect("a packet of the output hook");
                            let start = Instant::now();
                            let identity = identify.identify(&attempted);
                            told.push(Told { attempted, identity, took: start.elapsed() });
                        }
                        Some(Received::Lost { .. }) => {}
                        None if last => return told,
                        None => {}
                    }
                }
            });
            let done = work();
            over.store(true, Ordering::Relaxed);
            (done, listener.join().unwrap())
        })
    }

    /// Runs a program inside to its end, and gives its PID and what it printed.
    pub fn run(&self, command: &mut Command) -> (u32, Output) {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A child is born in the namespace of the thread that forks it.
        let mut child = self.netns.run(|| command.spawn()).unwrap().unwrap();
        let pid = child.id();
        let mut stdout = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "a program does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut output = child.wait_with_output().unwrap();
        output.stdout = stdout;
        (pid, output)
    }
}

/// Who really tried, as the programs say: by protocol, source port (0 for any) and destination port, in the order of trying.
pub type Truth = HashMap<(u8, u16, u16), Vec<u32>>;

/// Reads what `attempt.c` prints.
pub fn truth(output: &Output) -> Truth {
    let mut truth = Truth::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let numbers: Vec<u32> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        if let [protocol, sport, dport, pid] = numbers[..] {
            truth.entry((protocol as u8, sport as u16, dport as u16)).or_default().push(pid);
        }
    }
    truth
}

/// How the answers compare with the truth.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
pub struct Score {
    pub right: usize,
    pub wrong: usize,
    pub inferred: usize,
    pub ambiguous: usize,
    pub unknown: usize,
}

/// Judges each answer. An attempt of nobody counts as wrong.
pub fn judge(told: &[Told], truth: &Truth) -> Score {
    let mut truth = truth.clone();
    let mut score = Score::default();
    for one in told {
        let attempted = &one.attempted;
        let (sport, dport) = (attempted.sport.unwrap_or(0), attempted.dport.unwrap_or(0));
        let key = [(attempted.protocol, sport, dport), (attempted.protocol, 0, dport)]
            .into_iter()
            .find(|key| truth.get(key).is_some_and(|pids| !pids.is_empty()));
        let real = key.and_then(|key| truth.get_mut(&key)).map(|pids| pids.remove(0));
        let real = one.signed().or(real);
        match &one.identity {
            Identity::Exact(process) if Some(process.pid) == real => score.right += 1,
            Identity::Inferred { process, .. } if Some(process.pid) == real => score.inferred += 1,
            Identity::Ambiguous { candidates } if candidates.iter().any(|one| Some(one.pid) == real) => {
                score.ambiguous += 1
            }
            Identity::Unknown { .. } => score.unknown += 1,
            _ => {
                eprintln!("wrong: it was {real:?}, and told is {one:?}");
                score.wrong += 1;
            }
        }
    }
    score
}

/// The program of this process, loaded once; loudly none where there can't be one.
pub fn program() -> Option<&'static Program> {
    static PROGRAM: OnceLock<Result<Program, String>> = OnceLock::new();
    match PROGRAM.get_or_init(|| Program::load().map_err(|error| error.chain())) {
        Ok(program) => Some(program),
        Err(error) => {
            skip(&format!("BPF can't tell who tried: {error}"));
            None
        }
    }
}

/// `attempt.c`, compiled once; loudly none without a compiler.
pub fn attempt() -> Option<&'static Path> {
    static BINARY: OnceLock<Option<(tempfile::TempDir, PathBuf)>> = OnceLock::new();
    let compiled = BINARY.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("attempt");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/identity/attempt.c");
        let compile = Command::new("cc").args(["-O1", "-o"]).arg(&binary).arg(source).arg("-lpthread").output();
        match compile {
            Ok(output) if output.status.success() => Some((folder, binary)),
            Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
            Err(_) => None,
        }
    });
    if compiled.is_none() {
        skip("no C compiler");
    }
    compiled.as_ref().map(|(_, binary)| binary.as_path())
}
