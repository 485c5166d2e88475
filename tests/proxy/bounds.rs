//! What one client can take up: time, connections, descriptors.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::network::{allow, alone, echo, head, network, origin, response, rest};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn a_head_has_its_time_however_it_trickles() {
    network(|| async {
        let (port, _) = origin("203.0.113.9", ANSWER).await;
        let proxy = allow(&["web.example"]).limits(|limits| limits.head_timeout = Duration::from_millis(400)).serve();
        let request = format!("GET http://web.example:{port}/ HTTP/1.1\r\nHost: a\r\n\r\n");
        // A byte every 40 ms: never idle, never done.
        let mut client = proxy.dial().await;
        let begun = Instant::now();
        let (mut read, mut write) = client.split();
        let sent = Cell::new(0);
        let trickle = async {
            for byte in request.bytes().take(30) {
                if write.write_all(&[byte]).await.is_err() {
                    break;
                }
                sent.set(sent.get() + 1);
                sleep(Duration::from_millis(40)).await;
            }
        };
        let receive = async {
            assert_eq!(read.read_u8().await.unwrap(), b'H');
            let (took, sent) = (begun.elapsed(), sent.get());
            let mut answer = String::from("H");
            read.read_to_string(&mut answer).await.unwrap();
            (answer, took.as_millis(), sent)
        };
        let (_, (answer, took, sent)) = tokio::join!(trickle, receive);
        assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
        // Its time since it began, that is, not since the last byte.
        assert!(took >= 400 && sent < 30, "{took} ms, {sent} bytes");

        // Whoever says nothing at all is told nothing.
        let begun = Instant::now();
        assert_eq!(rest(&mut proxy.dial().await).await, "");
        assert!(begun.elapsed() >= Duration::from_millis(400));

        // The time between two requests is another matter; the second head has its own clock.
        let mut client = proxy.dial().await;
        client.write_all(request.as_bytes()).await.unwrap();
        response(&mut client).await;
        sleep(Duration::from_millis(700)).await;
        client.write_all(request.as_bytes()).await.unwrap();
        response(&mut client).await;
        client.write_all(&request.as_bytes()[..20]).await.unwrap();
        assert!(rest(&mut client).await.starts_with("HTTP/1.1 408 "));
    });
}

#[test]
fn silence_ends_connections_and_tunnels() {
    network(|| async {
        let (port, _) = origin("203.0.113.9", ANSWER).await;
        let echo = echo("203.0.113.9").await;
        let proxy = allow(&["web.example"])
            .limits(|limits| {
                limits.idle_timeout = Duration::from_millis(300);
                limits.tunnel_idle = Some(Duration::from_secs(2));
            })
            .serve();
        let mut client = proxy.dial().await;
        client
            .write_all(format!("GET http://web.example:{port}/ HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
            .await
            .unwrap();
        response(&mut client).await;
        let begun = Instant::now();
        assert_eq!(rest(&mut client).await, "");
        assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());

        let mut tunnel = proxy.tunnel(&format!("web.example:{echo}")).await;
        for _ in 0..8 {
            sleep(Duration::from_millis(300)).await;
            tunnel.write_all(b"x").await.unwrap();
            tunnel.read_u8().await.unwrap();
        }
        let begun = Instant::now();
        rest(&mut tunnel).await;
        assert!(begun.elapsed() >= Duration::from_millis(1800), "{:?}", begun.elapsed());
    });
}

#[test]
fn too_many_connections_are_turned_away_until_one_ends() {
    network(|| async {
        let port = echo("203.0.113.9").await;
        let proxy = allow(&["web.example"]).limits(|limits| limits.connections = 3).serve();
        let target = format!("web.example:{port}");
        let mut open = Vec::new();
        for _ in 0..3 {
            open.push(proxy.tunnel(&target).await);
        }
        for _ in 0..100 {
            let mut client = proxy.dial().await;
            let _ = client.write_all(b"CONNECT web.example:443 HTTP/1.1\r\n\r\n").await;
            let answer = rest(&mut client).await;
            assert!(
                answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n") && answer.ends_with("close some, or wait\n"),
                "{answer}"
            );
        }
        // Far past the limit nobody is told, but the proxy stands.
        let crowd: Vec<TcpStream> = futures::future::join_all((0..300).map(|_| proxy.dial())).await;
        drop(crowd);
        drop(open.pop());
        let mut served = None;
        for _ in 0..100 {
            sleep(Duration::from_millis(20)).await;
            let mut client = proxy.dial().await;
            let _ = client.write_all(format!("CONNECT {target} HTTP/1.1\r\n\r\n").as_bytes()).await;
            if head(&mut client).await.contains(" 200 ") {
                served = Some(client);
                break;
            }
        }
        assert!(served.is_some(), "the place was given back");
    });
}

#[test]
fn shutdown_closes_everything() {
    network(|| async {
        let port = echo("203.0.113.9").await;
        let proxy = allow(&["web.example"]).serve();
        let mut tunnel = proxy.tunnel(&format!("web.example:{port}")).await;
        let mut waiting = proxy.dial().await;
        waiting.write_all(b"GET http://web").await.unwrap();
        sleep(Duration::from_millis(50)).await;
        proxy.stop.send(()).unwrap();
        timeout(Duration::from_secs(2), proxy.task).await.expect("it returns").unwrap();
        timeout(Duration::from_secs(2), rest(&mut tunnel)).await.expect("the tunnel ends");
        timeout(Duration::from_secs(2), rest(&mut waiting)).await.expect("the connection ends");
        assert!(TcpStream::connect(proxy.address).await.is_err(), "nobody listens");
    });
}

/// Sets the soft limit of open files.
fn open_files(limit: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum }).unwrap();
}

/// Counts warnings, and has no interest in anything else.
struct Warnings(Arc<AtomicUsize>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() == tracing::Level::WARN
    }

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn without_descriptors_it_waits_and_lives() {
    alone("bounds::without_descriptors_it_waits_and_lives", || {
        network(|| async {
            let warnings = Arc::new(AtomicUsize::new(0));
            let _subscriber = tracing::subscriber::set_default(Warnings(Arc::clone(&warnings)));
            let (port, _) = origin("203.0.113.9", ANSWER).await;
            let proxy = allow(&["web.example"]).serve();
            let request = format!("GET http://web.example:{port}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            assert!(proxy.ask(&request).await.ends_with("hi"));

            let mut served = Vec::new();
            for _ in 0..30 {
                served.push(proxy.dial().await);
            }
            sleep(Duration::from_millis(50)).await;
            // Clients' ends first, so that the proxy finds nothing left to accept with.
            let before = getrlimit(Resource::Nofile);
            let mut clients = Vec::new();
            for _ in 0..20 {
                clients.push(std::net::TcpStream::connect(proxy.address).unwrap());
            }
            open_files(3);
            let cpu = || rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            let spent = cpu();
            sleep(Duration::from_secs(1)).await;
            // Each that ends makes the proxy try again at once.
            for client in served {
                drop(client);
                sleep(Duration::from_millis(20)).await;
            }
            let now = cpu();
            let spent = (now.tv_sec - spent.tv_sec) * 1000 + (now.tv_nsec - spent.tv_nsec) / 1_000_000;
            assert!(spent < 200, "{spent} ms of processor time while waiting for descriptors");
            let warnings = warnings.load(Ordering::Relaxed);
            assert!((1..=3).contains(&warnings), "{warnings} warnings");
            assert!(!proxy.task.is_finished());
            setrlimit(Resource::Nofile, before).unwrap();
            drop(clients);
            assert!(proxy.ask(&request).await.ends_with("hi"), "it serves on");
        });
    });
}

#[test]
fn no_more_is_served_than_there_are_descriptors_for() {
    alone("bounds::no_more_is_served_than_there_are_descriptors_for", || {
        network(|| async {
            let port = echo("203.0.113.9").await;
            open_files(232);
            let proxy = allow(&["web.example"]).serve();
            let target = format!("web.example:{port}");
            // 232 less 192 in reserve, two each. The ends of this test's own take up the reserve.
            let mut tunnels = Vec::new();
            for _ in 0..20 {
                tunnels.push(proxy.tunnel(&target).await);
            }
            let answer = proxy.ask(format!("CONNECT {target} HTTP/1.1\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            for tunnel in &mut tunnels {
                tunnel.write_all(b"x").await.unwrap();
                assert_eq!(tunnel.read_u8().await.unwrap(), b'x');
            }
        });
    });
}

#[test]
fn nothing_is_left_behind() {
    alone("bounds::nothing_is_left_behind", || {
        network(|| async {
            let (port, _) = origin("203.0.113.9", ANSWER).await;
            let echo = echo("203.0.113.9").await;
            let proxy = allow(&["web.example", "loop.example"]).serve();
            let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
            let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
            let mut before = (0, 0);
            for round in 0..40 {
                for request in [
                    format!("GET http://web.example:{port}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
                    format!(
                        "GET http://web.example:{port}/ HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
                    ),
                    "GET http://loop.example/ HTTP/1.0\r\n\r\n".to_owned(),
                    "nonsense\r\n\r\n".to_owned(),
                ] {
                    let mut client = proxy.dial().await;
                    client.write_all(request.as_bytes()).await.unwrap();
                    response(&mut client).await;
                }
                let mut tunnel = proxy.tunnel(&format!("web.example:{echo}")).await;
                tunnel.write_all(b"x").await.unwrap();
                drop(tunnel);
                // One that goes in the middle of its head, and one in the middle of its body.
                proxy.dial().await.write_all(b"GET http://web").await.unwrap();
                let half =
                    format!("POST http://web.example:{port}/ HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhal");
                proxy.dial().await.write_all(half.as_bytes()).await.unwrap();
                if round == 10 || round == 39 {
                    for _ in 0..100 {
                        sleep(Duration::from_millis(20)).await;
                        if (descriptors(), tasks()) == before {
                            break;
                        }
                    }
                }
                if round == 10 {
                    before = (descriptors(), tasks());
                }
            }
            assert_eq!((descriptors(), tasks()), before);
        });
    });
}
