//! The static binary where it is alone: an image that holds nothing else, no /proc, no /dev, no /etc.
//!
//! `.ci/static` builds it, and RINGFENCE_STATIC says where it is; without that nothing is tested here, which is said. What is fenced is
//! the binary itself, and a small C program where there is a compiler that links statically.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ringfence::kernel::netns::Netns;
use ringfence::kernel::nftables;
use ringfence::kernel::rtnetlink::{Batch, Request, Socket};
use ringfence::link::IfIndex;
use serde_json::Value;

/// How long one call of the binary may take, the demo included.
const PATIENCE: u64 = 60;

/// Says so past the test harness, which hides what a passing test prints.
fn skip(why: &str) {
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED, NOTHING WAS TESTED: {name}: {why}");
}

/// Who calls the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Root,
    /// Nobody, as root of a user namespace with a network namespace of its own.
    Mapped,
}

/// A directory that holds the binary and nothing else, to be the root of a file system.
struct Image {
    root: tempfile::TempDir,
}

impl Image {
    /// `None` when there is no static binary to be tested.
    fn new() -> Option<Self> {
        let Some(binary) = std::env::var_os("RINGFENCE_STATIC").map(PathBuf::from) else {
            skip(
                "RINGFENCE_STATIC is not set: build the static binary with .ci/static, and set it to target/static/ringfence",
            );
            return None;
        };
        let root = tempfile::tempdir().unwrap();
        // Open to nobody, too.
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(&binary, root.path().join("ringfence"))
            .unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
        Some(Self { root })
    }

    /// Compiles a C program into the image; `None` when that is not possible here.
    fn compile(&self, source: &str, name: &str) -> Option<()> {
        let code = tempfile::Builder::new().suffix(".c").tempfile().unwrap();
        fs::write(code.path(), source).unwrap();
        let made = Command::new("cc")
            .args(["-static", "-O1", "-o"])
            .arg(self.root.path().join(name))
            .arg(code.path())
            .stdin(Stdio::null())
            .output();
        match made {
            Ok(made) if made.status.success() => Some(()),
            Ok(made) => {
                skip(&format!("cc can't link statically: {}", String::from_utf8_lossy(&made.stderr)));
                None
            }
            Err(error) => {
                skip(&format!("there is no C compiler: {error}"));
                None
            }
        }
    }

    /// Calls the binary in the image, in the thread's network namespace.
    fn call(&self, caller: Caller, arguments: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", &PATIENCE.to_string()]);
        if caller == Caller::Mapped {
            command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
            command.args(["unshare", "--user", "--map-root-user", "--net", "--"]);
        }
        command.arg("chroot").arg(self.root.path()).arg("/ringfence").args(arguments);
        // Whoever called the tests through sudo is none of this test's business.
        command.env_remove("SUDO_UID").env_remove("SUDO_GID");
        for variable in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"] {
            command.env_remove(variable);
        }
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Runs a test inside a namespace of its own, whose loopback interface is switched on.
fn outer(test: impl FnOnce() + Send) {
    let made = Netns::create_with(|| {
        Socket::open().unwrap().commit(Batch::from([Request::up(IfIndex(1))])).unwrap();
        test();
    });
    if let Err(error) = made {
        let why = format!("no network namespace to be had: {}", error.chain());
        assert_ne!(std::env::var("RINGFENCE_TEST_KERNEL").as_deref(), Ok("require"), "{why}");
        skip(&why);
    }
}

/// Every caller that this machine lets call.
fn callers() -> Vec<Caller> {
    let mapped = Command::new("unshare").args(["--user", "--map-root-user", "--net", "true"]).status();
    if mapped.is_ok_and(|status| status.success()) {
        vec![Caller::Root, Caller::Mapped]
    } else {
        skip("no user namespace to be had: as root alone");
        vec![Caller::Root]
    }
}

/// Standard output of a call that succeeded without a word on standard error.
fn quiet(output: &Output) -> String {
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {out}{error}", output.status);
    assert_eq!(error, "");
    out.into_owned()
}

#[test]
fn it_is_static() {
    let Some(image) = Image::new() else { return };
    // No program header of an ELF file asks for an interpreter: PT_INTERP is type 3.
    let bytes = fs::read(image.root.path().join("ringfence")).unwrap();
    assert_eq!(&bytes[..5], b"\x7fELF\x02", "no 64-bit ELF file");
    let number =
        |at: usize, len: usize| bytes[at..at + len].iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte));
    let (offset, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    assert!((0..count).all(|header| number(offset + header * size, 4) != 3), "it needs a dynamic linker");
}

#[test]
fn help_and_version_need_nothing() {
    let Some(image) = Image::new() else { return };
    outer(|| {
        for caller in callers() {
            assert!(quiet(&image.call(caller, &["--help"])).contains("Usage: ringfence"));
            assert_eq!(
                quiet(&image.call(caller, &["--version"])),
                concat!("ringfence ", env!("CARGO_PKG_VERSION"), "\n")
            );
        }
    });
}

#[test]
fn plan_in_every_format() {
    let Some(image) = Image::new() else { return };
    outer(|| {
        for caller in callers() {
            let policy =
                ["--allow", "*.example.com", "--direct", "203.0.113.9:5432", "--direct-udp", "[2001:db8::9]:53"];
            let plan = |format| {
                let arguments = [&["plan", "--format", format], &policy[..]].concat();
                quiet(&image.call(caller, &arguments))
            };
            assert!(plan("text").contains("203.0.113.9"));
            let json: Value = serde_json::from_str(&plan("json")).unwrap();
            assert!(json.is_object());
            assert!(plan("nft").contains("table inet ringfence"));
            assert!(plan("dot").starts_with("digraph"));
        }
    });
}

#[test]
fn doctor_says_that_it_works_and_why_it_can() {
    let Some(image) = Image::new() else { return };
    outer(|| {
        for caller in callers() {
            let output = image.call(caller, &["doctor", "--format", "json"]);
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(output.status.code(), Some(0), "{caller:?}: {report:#}");
            assert_eq!((&report["works"], &report["foreign"]), (&Value::Bool(true), &Value::Array(Vec::new())));
            let facts = report["facts"].as_array().unwrap();
            let fact = |name: &str| facts.iter().find(|fact| fact["name"] == name).unwrap()["value"].as_str().unwrap();
            assert!(fact("/proc").starts_with("not there") && fact("/sys").starts_with("not there"));
            assert!(fact("user namespace").starts_with("unknown"));
            assert!(quiet(&image.call(caller, &["doctor"])).ends_with(".\n"));
        }
    });
}

#[test]
fn run_fences_itself() {
    let Some(image) = Image::new() else { return };
    outer(|| {
        for caller in callers() {
            let output = image.call(caller, &["run", "--", "/ringfence", "plan", "--format", "json"]);
            assert!(serde_json::from_str::<Value>(&quiet(&output)).unwrap().is_object());
            // The status is the command's: of one that fails in the fence for want of every privilege, and of two that never ran.
            let status = |arguments: &[&str]| image.call(caller, &[&["run"], arguments].concat()).status.code();
            assert_eq!(status(&["--", "/ringfence", "doctor"]), Some(1));
            assert_eq!(status(&["--share-pid", "--", "/ringfence", "--version"]), Some(0));
            assert_eq!(status(&["--drop-caps", "--", "/ringfence", "--version"]), Some(0));
            assert_eq!(status(&["--", "/nowhere"]), Some(127));
            assert_eq!(status(&["--", "/"]), Some(126));
        }
        assert_eq!(
            image.call(Caller::Root, &["run", "--user", "1234:1234", "--", "/ringfence", "--version"]).status.code(),
            Some(0)
        );
        assert_eq!(image.names(), ["ringfence"], "it left something in the image");
    });
}

/// Connects to argv[1] port argv[2], sends argv[3] if there is one, copies what comes to standard output.
const PROBE: &str = r#"
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[2])) };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(atoi(argv[2])) };
    int is4 = inet_pton(AF_INET, argv[1], &v4.sin_addr) == 1;
    if (!is4 && inet_pton(AF_INET6, argv[1], &v6.sin6_addr) != 1) return 2;
    int s = socket(is4 ? AF_INET : AF_INET6, SOCK_STREAM, 0);
    if (connect(s, is4 ? (void *)&v4 : (void *)&v6, is4 ? sizeof v4 : sizeof v6)) { puts(strerror(errno)); return 1; }
    if (argc > 3 && write(s, argv[3], strlen(argv[3])) < 0) return 3;
    char buffer[4096];
    ssize_t n;
    while ((n = read(s, buffer, sizeof buffer)) > 0) fwrite(buffer, 1, n, stdout);
    return 0;
}
"#;

/// Answers every connection with a line, after what was sent if that is asked for, for as long as the test lives.
fn serve(address: SocketAddr, answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    let bound = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { continue };
            let _ = connection.set_read_timeout(Some(Duration::from_millis(300)));
            if answer.starts_with("HTTP") {
                let _ = connection.read(&mut [0; 4096]);
            }
            let _ = connection.write_all(answer.as_bytes());
        }
    });
    bound
}

/// A name server that knows one address, for every name, for as long as the test lives.
fn serve_names(at: SocketAddr, address: Ipv4Addr) {
    let socket = UdpSocket::bind(at).unwrap();
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut question) {
            // Name, kind and class; what follows is the option record.
            let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
            let is_a = question[end - 4..end - 2] == [0, 1];
            let mut answer = question[..end.min(length)].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            if is_a {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend(address.octets());
            }
            let _ = socket.send_to(&answer, client);
        }
    });
}

#[test]
fn a_program_in_the_fence_reaches_what_the_policy_names_and_nothing_else() {
    let Some(image) = Image::new() else { return };
    if image.compile(PROBE, "probe").is_none() {
        return;
    }
    outer(|| {
        let (here4, here6) = (Ipv4Addr::new(203, 0, 113, 9), "2001:db8::9".parse::<Ipv6Addr>().unwrap());
        let own = [format!("{here4}/32"), format!("{here6}/128")];
        let requests: Vec<Request> =
            own.iter().map(|own| Request::add_address(IfIndex(1), own.parse().unwrap())).collect();
        Socket::open().unwrap().commit(requests.into_iter().collect()).unwrap();
        let hello = serve((here4, 0).into(), "hello\n");
        let other = serve((here4, 0).into(), "hello\n");
        let hello6 = serve((here6, 0).into(), "hello\n");
        let web = serve((here4, 0).into(), "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nweb");

        let run = |policy: &[&str], to: SocketAddr, text: &str| {
            let (ip, port) = (to.ip().to_string(), to.port().to_string());
            let command = ["--", "/probe", &ip, &port, text];
            let command = if text.is_empty() { &command[..4] } else { &command[..] };
            let start = Instant::now();
            let output = image.call(Caller::Root, &[&["run", "-q"], policy, command].concat());
            // Refused, that is, and not given up: the kernel asks for two minutes.
            assert!(start.elapsed() < Duration::from_secs(60), "{to} took {:?}", start.elapsed());
            assert_eq!(String::from_utf8_lossy(&output.stderr), "");
            (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let direct = [hello.to_string(), hello6.to_string()];
        let direct = ["--direct", &direct[0], "--direct", &direct[1]];
        assert_eq!(run(&direct, hello, ""), (0, "hello\n".to_owned()));
        assert_eq!(run(&direct, hello6, ""), (0, "hello\n".to_owned()));
        assert_eq!(run(&direct, other, ""), (1, "Connection refused\n".to_owned()));
        assert_eq!(run(&[], hello6, ""), (1, "Connection refused\n".to_owned()));

        let proxy: SocketAddr = "127.0.0.1:3128".parse().unwrap();
        let get = |to: SocketAddr| format!("GET http://{to}/ HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
        let allow = ["--allow", &web.to_string()];
        let (status, answer) = run(&allow, proxy, &get(web));
        assert!(status == 0 && answer.starts_with("HTTP/1.1 200") && answer.ends_with("web"), "{answer}");
        let (_, answer) = run(&allow, proxy, &get(other));
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");

        // Names, too, without a C library's resolver, which would load libraries that are not here.
        serve_names("127.0.0.53:53".parse().unwrap(), here4);
        fs::create_dir(image.root.path().join("etc")).unwrap();
        fs::write(image.root.path().join("etc/resolv.conf"), "nameserver 127.0.0.53\n").unwrap();
        let name = format!("http://web.example:{}/", web.port());
        let get = format!("GET {name} HTTP/1.1\r\nHost: web.example:{}\r\nConnection: close\r\n\r\n", web.port());
        // The address as well, for it is this host's own.
        let (status, answer) = run(&["--allow", "web.example", "--allow", &web.to_string()], proxy, &get);
        assert!(status == 0 && answer.starts_with("HTTP/1.1 200") && answer.ends_with("web"), "{answer}");

        assert!(nftables::Socket::open().unwrap().tables().unwrap().is_empty());
    });
}

#[test]
fn a_name_that_nobody_can_resolve_is_an_error_and_no_hang() {
    let Some(image) = Image::new() else { return };
    outer(|| {
        for caller in callers() {
            let start = Instant::now();
            // Without the resolver inside, names are looked up at the start.
            let flags = ["run", "--dns", "off", "--direct", "db.example:5432", "--", "/ringfence", "--version"];
            let output = image.call(caller, &flags);
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(125), "{error}");
            assert!(error.starts_with("ringfence: --direct: can't resolve `db.example`"), "{error}");
            assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        }
    });
}

#[test]
fn the_demo_shows_the_fence_at_work() {
    let Some(image) = Image::new() else { return };
    outer(|| {
        for caller in callers() {
            let output = image.call(caller, &["demo"]);
            let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert_eq!(output.status.code(), Some(0), "{caller:?}: {out}{error}");
            for word in ["refused", "203.0.113."] {
                assert!(out.contains(word), "{caller:?}: no `{word}` in {out}");
            }
        }
        assert_eq!(image.names(), ["ringfence"], "it left something in the image");
    });
}
