//! Programs that others wrote, as clients and as upstreams.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::network::{Running, allow, echo, network, origin, server, through};

/// Finds a program; without it there is nothing to test, which is said, or with `RINGFENCE_TEST_ORACLES=require` is a failure.
pub fn program(name: &str) -> Option<String> {
    let found = ["/usr/bin", "/usr/sbin", "/usr/local/bin"]
        .iter()
        .map(|at| format!("{at}/{name}"))
        .find(|path| Path::new(path).exists());
    if found.is_none() {
        let required = std::env::var("RINGFENCE_TEST_ORACLES").is_ok_and(|value| value == "require");
        assert!(!required, "{name} is not installed");
        eprintln!("SKIPPED, NOTHING WAS TESTED: {name} is not installed");
    }
    found
}

async fn run(program: &str, arguments: &[&str], proxy: &Running) -> Output {
    Command::new(program)
        .args(arguments)
        .env_clear()
        .env("http_proxy", format!("http://{}", proxy.address))
        .env("https_proxy", format!("http://{}", proxy.address))
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn curl_is_served() {
    let Some(curl) = program("curl") else { return };
    network(|| async move {
        let (port, mut seen) = origin("203.0.113.9", ANSWER).await;
        let (six, _) = origin("2001:db8::9", ANSWER).await;
        let proxy = allow(&["web.example", "six.example"]).serve();
        let url = format!("http://web.example:{port}/");
        let refused = format!("http://evil.example:{port}/");
        let six = format!("http://six.example:{six}/");
        for arguments in [
            &["-sS", &url][..],
            &["-sS", "--http1.0", &url],
            &["-sS", "--proxytunnel", &url],
            &["-sS", "--proxy1.0", &proxy.address.to_string(), "--proxytunnel", &url],
            &["-sS", "-d", "a=b", &url],
            &["-sS", "-H", "Expect: 100-continue", "-d", "a=b", &url],
            &["-sS", "-H", "Transfer-Encoding: chunked", "-d", "a=b", &url],
            &["-sS", "-T", "/proc/version", &url],
            &["-sS", "-4", &six],
        ] {
            let output = run(&curl, arguments, &proxy).await;
            assert_eq!(String::from_utf8_lossy(&output.stdout), "hi", "{arguments:?}: {output:?}");
        }
        while seen.try_recv().is_ok() {}
        let output = run(&curl, &["-sS", "-I", &url], &proxy).await;
        assert!(String::from_utf8_lossy(&output.stdout).starts_with("HTTP/1.1 200 OK\r\n"), "{output:?}");
        // Two hosts and a refusal on one connection.
        let output = run(&curl, &["-sS", "-w", "%{http_code} %{num_connects} ", &url, &refused, &six], &proxy).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.starts_with("hi200 1 ringfence: evil.example") && text.contains("403 0 hi200 0 "), "{text}");
        let output = run(&curl, &["-sS", "--proxytunnel", &refused], &proxy).await;
        assert_eq!(output.status.code(), Some(56), "{output:?}");
    });
}

#[test]
fn pythons_urllib_is_served() {
    let Some(python) = program("python3") else { return };
    network(|| async move {
        let (port, _) = origin("203.0.113.9", ANSWER).await;
        let proxy = allow(&["web.example"]).serve();
        let script = "import sys, urllib.request, urllib.error\n\
                      print(urllib.request.urlopen(sys.argv[1]).read().decode())\n\
                      try: urllib.request.urlopen(sys.argv[2])\n\
                      except urllib.error.HTTPError as error: print(error.code, error.read().decode(), end='')\n\
                      try: urllib.request.urlopen(sys.argv[2].replace('http:', 'https:'))\n\
                      except urllib.error.URLError as error: print(error.reason)\n";
        let output =
            run(&python, &["-c", script, &format!("http://web.example:{port}/"), "http://evil.example/"], &proxy).await;
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "hi\n403 ringfence: evil.example:80 is not on the allow-list; --allow evil.example:80 would allow it\n\
             Tunnel connection failed: 403 Forbidden\n",
            "{output:?}"
        );
    });
}

/// Starts a proxy of others', and waits until it listens.
async fn start(program: &str, arguments: &[&str], port: u16) -> Child {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    for _ in 0..200 {
        if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return child;
        }
        if let Ok(Some(status)) = child.try_wait() {
            panic!("{program} ended: {status}");
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{program} does not listen");
}

/// What any upstream must do for us. The targets are addresses: it has no resolver here.
async fn exercise(port: u16, secret: Option<(&str, &str)>) {
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    let (web, mut seen) = origin("203.0.113.9", ANSWER).await;
    let echo = echo("203.0.113.9").await;
    let proxy = through(address, secret).serve();
    let get = format!("GET http://203.0.113.9:{web}/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    for _ in 0..2 {
        let answer = proxy.ask(&get).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("hi"), "{answer}");
        let request = seen.recv().await.unwrap();
        assert!(request.starts_with("GET /x HTTP/1."), "{request}");
        assert!(!request.to_lowercase().contains("proxy-authorization"), "{request}");
        let mut tunnel = proxy.tunnel(&format!("203.0.113.9:{echo}")).await;
        tunnel.write_all(b"through a stranger").await.unwrap();
        let mut back = [0; 18];
        tunnel.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"through a stranger");
    }
    let post = format!(
        "POST http://203.0.113.9:{web}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"
    );
    assert!(proxy.ask(&post).await.contains("hi"));
    assert!(seen.recv().await.unwrap().ends_with("\r\n\r\nabc"));
    if secret.is_some() {
        for wrong in [None, Some(("ring", "wrong"))] {
            let proxy = through(address, wrong).serve();
            for request in [get.clone(), format!("CONNECT 203.0.113.9:{echo} HTTP/1.1\r\nHost: x\r\n\r\n")] {
                let answer = proxy.ask(&request).await;
                let status = &answer[..answer.len().min(12)];
                // tinyproxy calls wrong credentials 401.
                assert!(["HTTP/1.1 407", "HTTP/1.1 401"].contains(&status), "{wrong:?}: {answer}");
                assert!(answer.to_lowercase().contains("authenticate: basic realm="), "{answer}");
            }
        }
    }
}

const SECRET: Option<(&str, &str)> = Some(("ring", "fence"));

#[test]
fn tinyproxy_serves_as_upstream() {
    let Some(tinyproxy) = program("tinyproxy") else { return };
    network(|| async move {
        let directory = tempfile::tempdir().unwrap();
        for (port, secret, line) in [(3128, None, ""), (3129, SECRET, "BasicAuth ring fence\n")] {
            let config = directory.path().join(port.to_string());
            std::fs::write(&config, format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\n{line}"))
                .unwrap();
            let mut child = start(&tinyproxy, &["-d", "-c", config.to_str().unwrap()], port).await;
            exercise(port, secret).await;
            child.kill().await.unwrap();
        }
    });
}

/// Segments under `/dev/shm` whose names begin so, removed when dropped.
struct SharedMemory(String);

impl Drop for SharedMemory {
    fn drop(&mut self) {
        for entry in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&format!("{}-", self.0)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

#[test]
fn squid_serves_as_upstream() {
    let Some(squid) = program("squid") else { return };
    let helper = ["/usr/lib/squid/basic_ncsa_auth", "/usr/lib64/squid/basic_ncsa_auth"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    network(move || async move {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().to_str().unwrap().to_owned();
        // It does not run as root, so it must be let in.
        std::fs::set_permissions(&at, std::fs::Permissions::from_mode(0o755)).unwrap();
        // `fence`, as openssl passwd -apr1 hashes it.
        std::fs::write(directory.path().join("users"), "ring:$apr1$ringfenc$eA7pdEFjbiPaOdzXEdc6t0\n").unwrap();
        let open = "http_access allow all\n".to_owned();
        let closed = helper.map(|helper| {
            format!(
                "auth_param basic program {helper} {at}/users\nauth_param basic realm ringfence\n\
                 acl known proxy_auth REQUIRED\nhttp_access allow known\nhttp_access deny all\n"
            )
        });
        for (port, secret, access) in [(3128, None, Some(open)), (3129, SECRET, closed)] {
            let Some(access) = access else { continue };
            let config = directory.path().join(port.to_string());
            let text = format!(
                "http_port 127.0.0.1:{port}\n{access}cache deny all\ncache_mem 8 MB\npid_filename none\naccess_log none\n\
                 cache_log /dev/null\ncoredump_dir {at}\ncache_effective_user nobody\nshutdown_lifetime 0 seconds\n\
                 visible_hostname squid.example\nhosts_file none\ndns_nameservers 127.0.0.1\nnetdb_filename none\npinger_enable off\n"
            );
            std::fs::write(&config, text).unwrap();
            // Its shared memory has names that the whole machine sees; a killed squid leaves it there.
            let name = format!("ringfence{}x{port}", std::process::id());
            let _leftovers = SharedMemory(name.clone());
            let mut child = start(&squid, &["-N", "-n", &name, "-f", config.to_str().unwrap()], port).await;
            exercise(port, secret).await;
            child.kill().await.unwrap();
        }
    });
}

#[test]
fn a_program_that_answers_slowly_is_waited_for() {
    network(|| async {
        let port = server("203.0.113.9", |mut stream| async move {
            crate::network::head(&mut stream).await;
            for piece in ["HTTP/1.1 200 OK\r\n", "Content-Length: 2\r\n", "\r\nh", "i"] {
                sleep(Duration::from_millis(100)).await;
                stream.write_all(piece.as_bytes()).await.unwrap();
            }
        })
        .await;
        let proxy = allow(&["web.example"]).serve();
        let answer =
            proxy.ask(format!("GET http://web.example:{port}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.ends_with("hi"), "{answer}");
    });
}
