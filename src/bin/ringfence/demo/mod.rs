//! `ringfence demo`: a small internet made of namespaces, and the fence at work in it.
//!
//! Everything happens in namespaces that are made here and that only this process's descriptors hold. Nothing but this binary is
//! needed: the programs in the fences are this binary again.

mod dns;
mod internet;
mod probe;
mod screen;

use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringfence::kernel::child::Capabilities;
use ringfence::kernel::{nftables, rtnetlink};
use ringfence::policy::{OnTampering, Origin, Policy, Sourced, Variables};
use ringfence::{Command, Error, ErrorKind, Host, Result, Running, Sandbox, SandboxOptions};
use rustix::io::Errno;

use crate::args::PROBE;
use crate::io_error;
use internet::{
    DATABASE, DATABASE4, DATABASE6, DNS, HTTP, Internet, PAGE, RESOLVER4, RESOLVER6, SSH, UPLINK, WEB_NAME, WEB4, WEB6,
};
use probe::{Answer, Attempt, Outcome, Probe};
use screen::Screen;

pub use probe::serve as probe;

/// How long the kernel may take to clear up behind a sandbox.
const PATIENCE: Duration = Duration::from_secs(3);

/// A name that the policy does not allow.
const OTHER_NAME: &str = "other.example";

/// Runs the demo; 1 when a step of it was not as it should be.
pub fn demo() -> Result<u8> {
    let start = Instant::now();
    let internet = Internet::build()?;
    let mut screen = Screen::new();
    introduce(&mut screen, &internet, start.elapsed());
    // The runtime belongs into the namespace that plays the host: the proxy dials from where the runtime's threads are, and those
    // that it starts are where the one is that starts them.
    let shown = internet.host.run(|| -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| io_error("can't start the runtime", error))?;
        runtime.block_on(show(&mut screen, &internet))
    })?;
    shown?;
    let failed = screen.failed();
    screen.heading(&match failed {
        0 => format!("Everything is as it should be ({:.1} s).", start.elapsed().as_secs_f64()),
        1 => "1 step is not as it should be.".to_owned(),
        _ => format!("{failed} steps are not as they should be."),
    });
    screen.finish()?;
    Ok(u8::from(failed > 0))
}

fn introduce(screen: &mut Screen, internet: &Internet, time: Duration) {
    screen.text(
        "A small internet out of namespaces on this machine; no packet leaves it, and nothing of it is changed.\n",
    );
    let v6 = |address: IpAddr| if internet.ipv6 { address.to_string() } else { "-".to_owned() };
    for (who, v4, v6, what) in [
        (WEB_NAME, WEB4, v6(WEB6), format!("web server on port {HTTP}, ssh on {SSH}")),
        ("database", DATABASE4, v6(DATABASE6), format!("on port {DATABASE}, ssh on {SSH}")),
        ("resolver", RESOLVER4, v6(RESOLVER6), format!("DNS on port {DNS}")),
    ] {
        screen.text(&format!("  {who:<14}{:<16}{v6:<16}{what}", v4.to_string()));
    }
    screen.text("");
    screen.step("namespaces, line, servers", "built", Some(time), true);
}

async fn show(screen: &mut Screen, internet: &Internet) -> Result<()> {
    without_a_fence(screen, internet);
    // Opened here, so that its namespace is the one that plays the host.
    let host = Host::open()?;
    let mut policies = Policies::new(internet);
    with_a_fence(screen, internet, &host, &mut policies).await?;
    against_root(screen, internet, &host, &mut policies).await?;
    after_a_kill(screen).await
}

/// What has to come of an attempt.
enum Expected<'a> {
    /// An answer that has this in it.
    Answer(&'a str),
    /// The kernel's refusal, at once.
    Refusal(Errno),
}

use Expected::{Answer as Answered, Refusal as Refused};

impl Expected<'_> {
    fn is(&self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Self::Answer(part), Outcome::Done(said)) => said.contains(part),
            (Self::Refusal(wanted), Outcome::Refused(errno)) => wanted == errno,
            _ => false,
        }
    }
}

fn step(screen: &mut Screen, what: &str, answer: &Answer, expected: &Expected<'_>) {
    screen.step(what, &answer.outcome.to_string(), Some(answer.time), expected.is(&answer.outcome));
}

fn tcp(address: IpAddr, port: u16) -> (String, Attempt) {
    let to = SocketAddr::new(address, port);
    (format!("TCP to {to}"), Attempt::Tcp(to))
}

fn get(host: &str) -> (String, Attempt) {
    let url = format!("http://{host}/");
    (format!("GET {url}"), Attempt::Get(url))
}

fn dns(address: IpAddr) -> (String, Attempt) {
    let to = SocketAddr::new(address, DNS);
    (format!("UDP to {to}, a question for DNS"), Attempt::Dns(to))
}

fn ping() -> Attempt {
    Attempt::Ping(SocketAddr::new(WEB4, 0))
}

/// The control: what is refused later is there, and answers.
fn without_a_fence(screen: &mut Screen, internet: &Internet) {
    screen.heading("Without a fence, everybody answers");
    let mut attempts = vec![tcp(WEB4, SSH), tcp(WEB6, SSH), dns(RESOLVER4), ("ICMP echo".to_owned(), ping())];
    attempts.retain(|(_, attempt)| internet.ipv6 || !is_ipv6(attempt));
    let connections = attempts.iter().filter(|(_, attempt)| matches!(attempt, Attempt::Tcp(_))).count();
    for (what, attempt) in attempts {
        step(screen, &what, &attempt.run(), &Answered(""));
    }
    seen(screen, internet, (connections, 1));
}

fn is_ipv6(attempt: &Attempt) -> bool {
    matches!(attempt, Attempt::Tcp(to) | Attempt::Dns(to) | Attempt::Ping(to) if to.is_ipv6())
}

/// Asks the other side, which can't be fooled, what arrived there.
fn seen(screen: &mut Screen, internet: &Internet, expected: (usize, usize)) {
    let seen = internet.seen();
    let result = format!("connections: {}, questions: {}", seen.0, seen.1);
    screen.step("arrived on the internet's side", &result, None, seen == expected);
}

/// A policy, and the flags that say the same.
fn policy(allow: &[&str], direct: &[SocketAddr]) -> Result<(Policy, Vec<String>)> {
    let (mut policy, mut flags) = (Policy::builder(), Vec::new());
    for allowed in allow {
        policy = policy.allow(allowed)?;
        flags.extend(["--allow".to_owned(), (*allowed).to_owned()]);
    }
    for endpoint in direct {
        policy = policy.direct(&endpoint.to_string())?;
        flags.extend(["--direct".to_owned(), endpoint.to_string()]);
    }
    Ok((policy.build()?, flags))
}

/// A probe in its fence, and how long it took to make both.
struct Fenced {
    running: Running,
    probe: Probe,
    prepared: Duration,
    started: Duration,
}

async fn fence(host: &Host, policy: Policy, capabilities: Capabilities) -> Result<Fenced> {
    let options = SandboxOptions {
        no_proxy: None,
        resolver: Arc::new(dns::Client(internet::resolver())),
        user_namespace: matches!(capabilities, Capabilities::All),
        ..SandboxOptions::default()
    };
    let start = Instant::now();
    let sandbox = Sandbox::prepare_with(host, policy, options).await?;
    let prepared = start.elapsed();
    let (probe, [input, output]) = Probe::line()?;
    let command =
        Command::new(own_executable()?).arg(PROBE).stdio([Some(input), Some(output), None]).capabilities(capabilities);
    let start = Instant::now();
    let running = sandbox.spawn(command).await?;
    Ok(Fenced { running, probe, prepared, started: start.elapsed() })
}

/// This program, for another of its processes: by /proc where there is one, which finds it even if its file was replaced; else by
/// the name it was called by. (The kernel's own record of that, AT_EXECFN, a static binary has no safe way to.)
fn own_executable() -> Result<PathBuf> {
    let link = PathBuf::from("/proc/self/exe");
    if link.metadata().is_ok() {
        return Ok(link);
    }
    let called = PathBuf::from(std::env::args_os().next().unwrap_or_default());
    let found = if called.as_os_str().as_bytes().contains(&b'/') {
        Some(called)
    } else {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
        std::env::split_paths(&path).map(|folder| folder.join(&called)).find(|file| file.is_file())
    };
    // Absolute, because without a slash it would be looked up again.
    found.and_then(|file| std::path::absolute(file).ok()).filter(|file| file.is_file()).ok_or_else(|| {
        let what = "can't find the file of ringfence itself, and there is no /proc to ask";
        Error::new(ErrorKind::Io, what).hint("call it by its path")
    })
}

/// The demo's policy, and why it does without a direct endpoint over IPv6, if it does.
struct Policies {
    direct: Vec<SocketAddr>,
    lacking: Option<String>,
}

impl Policies {
    fn new(internet: &Internet) -> Self {
        let mut direct = vec![SocketAddr::new(DATABASE4, DATABASE)];
        let lacking = if internet.ipv6 {
            direct.push(SocketAddr::new(DATABASE6, DATABASE));
            None
        } else {
            Some("there is no IPv6 on this machine".to_owned())
        };
        Self { direct, lacking }
    }

    fn policy(&self) -> Result<(Policy, Vec<String>)> {
        policy(&[WEB_NAME, &WEB4.to_string()], &self.direct)
    }

    /// Fences a probe; without the direct endpoint over IPv6 where this machine has no means for that.
    async fn fence(&mut self, host: &Host, capabilities: Capabilities) -> Result<Fenced> {
        let (policy, _) = self.policy()?;
        match fence(host, policy, capabilities).await {
            // One interface alone forwards IPv6 from Linux 6.17 on, and only where there is a way to procfs.
            Err(error)
                if self.lacking.is_none() && matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Privilege) =>
            {
                self.lacking = Some(error.chain());
                self.direct.retain(SocketAddr::is_ipv4);
                let (policy, _) = self.policy()?;
                fence(host, policy, capabilities).await
            }
            made => made,
        }
    }
}

async fn with_a_fence(screen: &mut Screen, internet: &Internet, host: &Host, policies: &mut Policies) -> Result<()> {
    let Fenced { running, mut probe, prepared, started } = policies.fence(host, Capabilities::Default).await?;
    screen.heading(&format!("Behind `ringfence run {}`", policies.policy()?.1.join(" ")));
    screen.step("the fence", "both rulesets committed and read back", Some(prepared), true);
    screen.step("a program in it", "started", Some(started), true);

    screen.heading("What the policy names is let out");
    for (what, attempt) in [get(WEB_NAME), get(&WEB4.to_string())] {
        let answer = probe.attempt(&attempt).await?;
        step(screen, &format!("{what}, by the proxy"), &answer, &Answered(&format!("200 \"{PAGE}\"")));
    }
    for &to in &policies.direct {
        let (what, attempt) = tcp(to.ip(), to.port());
        step(screen, &format!("{what}, directly"), &probe.attempt(&attempt).await?, &Answered("database: "));
    }
    if let Some(why) = &policies.lacking {
        screen.skip(&format!("{}, directly", tcp(DATABASE6, DATABASE).0), why);
    }

    screen.heading("What the proxy refuses, it gives a reason for");
    let (what, attempt) = get(OTHER_NAME);
    let denied = probe.attempt(&attempt).await?;
    step(screen, &what, &denied, &Answered("403 \"ringfence: "));

    screen.heading("All else is refused at once (median of 5)");
    let mut refused = Vec::new();
    for (address, port) in [(WEB4, SSH), (WEB4, HTTP), (WEB6, HTTP), (DATABASE4, SSH), (DATABASE6, SSH)] {
        refused.push((tcp(address, port), Errno::CONNREFUSED));
    }
    refused.push((dns(RESOLVER4), Errno::PERM));
    refused.push((dns(RESOLVER6), Errno::PERM));
    refused.push((("ICMP echo, needs a raw socket".to_owned(), ping()), Errno::PERM));
    refused.push((("deleting the fence's rules".to_owned(), Attempt::DeleteRules), Errno::PERM));
    for ((what, attempt), errno) in refused {
        if internet.ipv6 || !is_ipv6(&attempt) {
            step(screen, &what, &probe.attempt(&attempt).await?, &Refused(errno));
        }
    }
    seen(screen, internet, (0, 0));

    screen.heading("When it ends, everything is gone");
    close(screen, running, probe).await
}

/// A program that may do whatever root may, within its namespace: then the host's end of the wire holds.
async fn against_root(screen: &mut Screen, internet: &Internet, host: &Host, policies: &mut Policies) -> Result<()> {
    screen.heading("Against root with every capability, the host's side holds");
    let (mut policy, _) = policies.policy()?;
    // Mended, the rules inside would be there again before the host's side is asked.
    policy.tampering = Sourced::new(OnTampering::Report, Origin::Api);
    let fenced = match fence(host, policy, Capabilities::All).await {
        // It takes a user namespace, which the kernel makes for nobody in a chroot, and on some machines not at all.
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Privilege) => {
            screen.skip("a program that keeps them", &error.chain());
            return Ok(());
        }
        fenced => fenced?,
    };
    let Fenced { running, mut probe, .. } = fenced;
    step(screen, "ICMP echo from a raw socket", &probe.attempt(&ping()).await?, &Refused(Errno::PERM));
    let deleted = probe.attempt(&Attempt::DeleteRules).await?;
    step(screen, "deleting the rules inside", &deleted, &Answered("deleted"));
    for (what, attempt) in [tcp(WEB4, SSH), tcp(DATABASE6, SSH), dns(RESOLVER4)] {
        // Without an endpoint of that family nothing of it is forwarded, and nobody answers.
        if policies.lacking.is_none() || !is_ipv6(&attempt) {
            step(screen, &what, &probe.attempt(&attempt).await?, &Refused(Errno::CONNREFUSED));
        }
    }
    seen(screen, internet, (0, 0));
    close(screen, running, probe).await
}

async fn close(screen: &mut Screen, running: Running, probe: Probe) -> Result<()> {
    let start = Instant::now();
    running.close().await?;
    screen.step("the sandbox", "closed", Some(start.elapsed()), true);
    gone(screen, probe, start).await
}

/// The same with a supervisor that is not asked: another process of this binary, and SIGKILL.
async fn after_a_kill(screen: &mut Screen) -> Result<()> {
    let (_, flags) = policy(&[WEB_NAME], &[SocketAddr::new(DATABASE4, DATABASE)])?;
    let (mut probe, [input, output]) = Probe::line()?;
    let mut command = std::process::Command::new(own_executable()?);
    command.arg("run").args(&flags).arg("--").arg(own_executable()?).arg(PROBE);
    // The policy is that of the flags alone, and the probe runs as we do.
    for name in Variables::names().chain(["SUDO_UID", "SUDO_GID"]) {
        command.env_remove(name);
    }
    let mut supervisor = command
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output))
        .spawn()
        .map_err(|error| io_error("can't start another ringfence", error))?;
    // It holds the probe's end of the line, whose closing is to tell that the probe is gone.
    drop(command);
    let hello = probe.attempt(&Attempt::Hello).await;
    let standing = Left::read();
    let start = Instant::now();
    let killed = supervisor.kill().and_then(|()| supervisor.wait());
    let (hello, standing) = (hello?, standing?);
    let killed = killed.map_err(|error| io_error("can't kill the other ringfence", error))?;

    screen.heading(&format!("When its supervisor is killed, too: `ringfence run {}`", flags.join(" ")));
    let there = matches!(hello.outcome, Outcome::Done(_)) && standing.links.len() == 1 && standing.tables.len() == 1;
    screen.step("what the host has, read back", &standing.to_string(), None, there && standing.forwarding);
    let by_kill = std::os::unix::process::ExitStatusExt::signal(&killed) == Some(9);
    screen.step("SIGKILL to the supervisor", &killed.to_string(), Some(start.elapsed()), by_kill);
    gone(screen, probe, start).await
}

/// What of a sandbox the host's namespace shows.
struct Left {
    links: Vec<String>,
    tables: Vec<String>,
    /// Whether the uplink forwards.
    forwarding: bool,
}

impl Left {
    fn read() -> Result<Self> {
        let mut links = rtnetlink::Socket::open()?.links()?;
        let forwarding = links
            .iter()
            .any(|link| link.name == UPLINK && (link.forwards4 == Some(true) || link.forwards6 == Some(true)));
        links.retain(|link| link.name != UPLINK && link.name != "lo");
        let tables = nftables::Socket::open()?.tables()?;
        Ok(Self {
            links: links.into_iter().map(|link| link.name).collect(),
            tables: tables.into_iter().map(|table| table.id.to_string()).collect(),
            forwarding,
        })
    }
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let or_none = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let forwarding = if self.forwarding { "on" } else { "off" };
        write!(f, "links: {}; tables: {}; forwarding: {forwarding}", or_none(&self.links), or_none(&self.tables))
    }
}

/// Waits until nothing of a sandbox is left, and shows that, or what is.
async fn gone(screen: &mut Screen, probe: Probe, start: Instant) -> Result<()> {
    let ended = probe.gone().await;
    let result = if ended { "ended" } else { "still runs" };
    screen.step("its processes", result, Some(start.elapsed()), ended);
    loop {
        let left = Left::read()?;
        let nothing = left.links.is_empty() && left.tables.is_empty() && !left.forwarding;
        if nothing || start.elapsed() > PATIENCE {
            screen.step("what the host still has, read back", &left.to_string(), Some(start.elapsed()), nothing);
            return Ok(());
        }
        // The kernel takes a namespace down on its own time.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
