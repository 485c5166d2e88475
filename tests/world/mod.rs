//! A host as a whole: the small internet of `support`, a mount namespace of its own in which names resolve by a hosts file
//! alone, and an account of everything that a sandbox may leave behind.
#![allow(dead_code)] // each test binary uses a part of it

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ringfence::kernel::forwarding::{self, Forwarding};
use ringfence::kernel::netns::Netns;
use ringfence::kernel::nftables;
use ringfence::kernel::rtnetlink::{RouteKind, Socket};

use crate::support::{Outer, Shape};

/// The binary under test.
pub const RINGFENCE: &str = env!("CARGO_BIN_EXE_ringfence");

/// What marks every process that a world has started, and whatever these start.
const MARK: &str = "RINGFENCE_TEST_WORLD";

/// How long the environment of a process is waited for. Who keeps it longer is none of a world's.
const READING: Duration = Duration::from_secs(3);

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Python that fills standard error, and has whoever writes there not wait: nobody reads it while such a program runs.
pub const GAGS: &str = "
import fcntl, os
fcntl.fcntl(2, fcntl.F_SETFL, fcntl.fcntl(2, fcntl.F_GETFL) | os.O_NONBLOCK)
for size in (4096, 1):
    try:
        while True: os.write(2, b'\\n' * size)
    except BlockingIOError: pass
";

/// The path of a program that a test needs as a partner, or a loud skip.
pub fn oracle(program: &str) -> Option<PathBuf> {
    let found = find(program);
    if found.is_none() {
        let test = std::thread::current();
        // Past the test harness, which hides what a passing test prints.
        let _ =
            writeln!(std::io::stderr(), "SKIPPED {}: `{program}` is not installed", test.name().unwrap_or_default());
        assert_ne!(std::env::var("RINGFENCE_TEST_ORACLES").as_deref(), Ok("require"), "`{program}` is not installed");
    }
    found
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// Waits until the kernel has made the routes that come with addresses: an account of the host that is taken before would miss them.
fn settled(host: &Netns) {
    let made = || {
        let mut links = Socket::open().unwrap();
        let routes = links.routes().unwrap();
        let local = |address: std::net::IpAddr| {
            routes.iter().any(|route| route.kind == RouteKind::Local && route.destination.addr() == address)
        };
        links.addresses().unwrap().iter().all(|address| local(address.address.addr()))
    };
    let deadline = Instant::now() + PATIENCE;
    while !host.run(made).unwrap() {
        assert!(Instant::now() < deadline, "the routes of the host's addresses were not made");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A host with an uplink to an internet. Everything is gone when it is dropped.
pub struct World {
    pub outer: Outer,
    /// Holds the mount namespace, and ends when its standard input does.
    mounts: Child,
    directory: tempfile::TempDir,
    mark: String,
}

impl World {
    /// Makes one, or says loudly why not.
    pub fn new() -> Option<Self> {
        Self::shaped(Shape::default())
    }

    /// Makes one of that shape.
    pub fn shaped(shape: Shape) -> Option<Self> {
        let outer = Outer::shaped(shape)?;
        let directory = tempfile::tempdir().unwrap();
        // Read and executed by whatever user a test runs a command as.
        set_mode(directory.path(), 0o755);
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write("hosts", "127.0.0.1 localhost\n::1 localhost\n203.0.113.9 web.example\n2001:db8::9 six.example\n");
        write("resolv.conf", "");
        write("nsswitch.conf", "hosts: files\npasswd: files\ngroup: files\n");
        let script = "mount -t tmpfs none /run && for file in hosts resolv.conf nsswitch.conf; do \
            if test -e /etc/$file; then mount --bind \"$0/$file\" /etc/$file; else cp \"$0/$file\" /etc/$file; fi || exit 1; done; \
            echo ready; exec cat";
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut mounts = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(mounts.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the mount namespace could not be prepared");
        settled(&outer.host);
        Some(Self { outer, mounts, directory, mark })
    }

    /// A directory that is removed with this.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The network namespace of a sandbox that was given that name.
    pub fn named(&self, name: &str) -> Netns {
        Netns::open(format!("/proc/{}/root/run/netns/{name}", self.mounts.id())).unwrap()
    }

    /// A program as the host would run it. Spawn it with [`World::spawn`] or [`World::output`] alone.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.mounts.id())).arg("--").arg(program);
        // Nothing that whoever runs the tests has set is to decide how they end.
        command
            .env_clear()
            .env(MARK, &self.mark)
            .env("HOME", self.directory())
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).current_dir("/");
        command
    }

    /// `ringfence` with those arguments.
    pub fn ringfence<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Command {
        let mut command = self.program(RINGFENCE);
        command.args(arguments);
        command
    }

    /// Starts a command on the host.
    pub fn spawn(&self, mut command: Command) -> Child {
        // A child is in the network namespace of the thread that forks it.
        self.outer.host.run(|| command.spawn()).unwrap().unwrap()
    }

    /// Starts a command in the internet.
    pub fn spawn_there(&self, mut command: Command) -> Child {
        self.outer.internet.run(|| command.spawn()).unwrap().unwrap()
    }

    /// Runs a command on the host to its end.
    pub fn output(&self, command: Command) -> Output {
        finish(self.spawn(command))
    }

    /// Runs `ringfence` with those arguments, split at spaces.
    pub fn run(&self, arguments: &str) -> Output {
        self.output(self.ringfence(arguments.split_whitespace()))
    }

    /// Serves every connection to `address` in the internet.
    pub fn serve(&self, address: &str, handler: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
        serve_in(&self.outer.internet, address, handler)
    }

    /// A web server in the internet, on port 8080 of both addresses: the files of `root`.
    pub fn web(&self, root: impl Into<PathBuf>) {
        let root = root.into();
        for address in ["203.0.113.9:8080", "[2001:db8::9]:8080"] {
            let root = root.clone();
            self.serve(address, move |stream| answer_file(stream, &root));
        }
    }

    /// Everything of the host's that a sandbox may leave behind.
    pub fn state(&self) -> State {
        let (links, addresses, routes, tables, forwarding) = self
            .outer
            .host
            .run(|| {
                let mut socket = Socket::open().unwrap();
                let links = socket.links().unwrap();
                let forwarding = links
                    .iter()
                    .map(|link| (link.name.clone(), forwarding::read(&mut socket, link.index).ok()))
                    .collect();
                // The kernel gives the uplink a link-local address of its own, and takes it into use a second or two later.
                let up0 = links.iter().find(|link| link.name == "up0").map(|link| link.index);
                let settled = |interface, text: &String| interface != up0 || !text.contains("fe80::");
                let routes = socket.routes().unwrap().into_iter().map(|route| (route.interface, format!("{route:?}")));
                let routes =
                    routes.filter(|(interface, text)| settled(*interface, text)).map(|(_, text)| text).collect();
                let addresses =
                    socket.addresses().unwrap().into_iter().map(|one| (Some(one.interface), format!("{one:?}")));
                let addresses =
                    addresses.filter(|(interface, text)| settled(*interface, text)).map(|(_, text)| text).collect();
                let links = links.into_iter().map(|link| link.name).collect();
                let tables = nftables::Socket::open().unwrap().tables().unwrap();
                (links, addresses, routes, tables.iter().map(|table| format!("{:?}", table.id)).collect(), forwarding)
            })
            .unwrap();
        let names = std::fs::read_dir(format!("/proc/{}/root/run/netns", self.mounts.id()))
            .map(|entries| entries.map(|entry| entry.unwrap().file_name()).collect())
            .unwrap_or_default();
        State {
            links,
            addresses,
            routes,
            tables,
            forwarding,
            sysctls: self.sysctls(),
            names,
            processes: self.processes(),
        }
    }

    /// The switches of the host that concern forwarding, as its own procfs shows them.
    fn sysctls(&self) -> Vec<(String, String)> {
        // /proc/sys/net shows the namespace of the thread that looks.
        let read = |path: &str| std::fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap_or_default();
        let all = [
            "ipv4/ip_forward",
            "ipv4/conf/all/forwarding",
            "ipv4/conf/default/forwarding",
            "ipv6/conf/all/forwarding",
            "ipv6/conf/default/forwarding",
            "ipv6/conf/all/accept_ra",
            "ipv4/conf/all/rp_filter",
            "ipv4/conf/up0/rp_filter",
        ];
        self.outer.host.run(|| all.map(|path| (path.to_owned(), read(path))).to_vec()).unwrap()
    }

    /// Every process that carries this world's mark: what was started here, and what that started.
    pub fn processes(&self) -> Vec<String> {
        let mark = format!("{MARK}={}", self.mark);
        let mut found = Vec::new();
        let (mut ask, mut answers) = reader();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            // Fails below if it can't be asked.
            let _ = ask.send(entry.path().join("environ"));
            let environment = answers.recv_timeout(READING).unwrap_or_else(|_| {
                (ask, answers) = reader();
                Vec::new()
            });
            if environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
                let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                found.push(format!("{pid} {}", name.trim()));
            }
        }
        found
    }

    /// Fails unless the host is as it was, ten seconds from now at the latest. The kernel takes namespaces apart one after the
    /// other, and other tests make and leave hundreds meanwhile.
    pub fn nothing_left(&self, before: &State, what: impl std::fmt::Display) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let now = self.state();
            if now == *before {
                return;
            }
            assert!(Instant::now() < deadline, "left behind {what}:\n{now:#?}\nwhere there was:\n{before:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.mounts.stdin.take());
        let _ = self.mounts.wait();
    }
}

/// What of a host a sandbox may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub links: BTreeSet<String>,
    pub addresses: BTreeSet<String>,
    pub routes: BTreeSet<String>,
    pub tables: BTreeSet<String>,
    pub forwarding: Vec<(String, Option<Forwarding>)>,
    pub sysctls: Vec<(String, String)>,
    pub names: BTreeSet<OsString>,
    pub processes: Vec<String>,
}

/// A thread that reads files. A process that keeps the lock of its memory has whoever reads there wait, and another test may have such a process.
fn reader() -> (mpsc::Sender<PathBuf>, mpsc::Receiver<Vec<u8>>) {
    let ((ask, questions), (tell, answers)) = (mpsc::channel(), mpsc::channel());
    std::thread::spawn(move || {
        for path in questions {
            let _ = tell.send(std::fs::read(path).unwrap_or_default());
        }
    });
    (ask, answers)
}

/// Waits for a child and reads what it writes, and kills it rather than wait for ever.
pub fn finish(mut child: Child) -> Output {
    fn read(stream: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                let _ = stream.read_to_end(&mut bytes);
            }
            let _ = tell.send(bytes);
        });
        told
    }
    let (stdout, stderr) = (read(child.stdout.take()), read(child.stderr.take()));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("no end after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    // Longer than that, and somebody who should be gone still holds the other end.
    let all =
        |stream: mpsc::Receiver<Vec<u8>>| stream.recv_timeout(Duration::from_secs(10)).expect("a stream stays open");
    Output { status, stdout: all(stdout), stderr: all(stderr) }
}

/// Standard output of a run that ended well and said nothing on standard error.
#[track_caller]
pub fn good(output: Output) -> String {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}: {out}{err}", output.status);
    assert_eq!(err, "", "{out}");
    out
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Serves every connection to `address` in a namespace.
pub fn serve_in(netns: &Netns, address: &str, handler: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    // A socket stays where it was made, whatever thread uses it.
    let listener = netns.run(|| TcpListener::bind(address)).unwrap().unwrap();
    let at = listener.local_addr().unwrap();
    let handler = std::sync::Arc::new(handler);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handler = handler.clone();
            std::thread::spawn(move || handler(stream));
        }
    });
    at
}

/// Reads a request's head.
pub fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 65536 && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    text(&head)
}

/// Answers one request with a file.
fn answer_file(mut stream: TcpStream, root: &Path) {
    let head = read_head(&mut stream);
    let path = head.split(' ').nth(1).unwrap_or("/").split('?').next().unwrap_or_default().trim_start_matches('/');
    let (status, body) = match std::fs::read(root.join(path)) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}
