//! Two hundred sandboxes of one process at once. Alone in its binary, for it counts the process's file descriptors.
#![cfg(feature = "cli")]

#[path = "support/mod.rs"]
mod support;
#[path = "world/mod.rs"]
mod world;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ringfence::policy::Policy;
use ringfence::{Command, Host, Sandbox};
use rustix::process::{Resource, getrlimit, setrlimit};
use world::World;

const SANDBOXES: usize = 200;

fn descriptors() -> BTreeSet<String> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    // A descriptor that is gone by now is the one that reads the directory.
    entries
        .filter_map(|entry| {
            Some(format!("{} {}", entry.file_name().display(), std::fs::read_link(entry.path()).ok()?.display()))
        })
        .collect()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn all_of_two_hundred_work() {
    let Some(world) = World::new() else { return };
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let before = world.state();
    // The first runtime of a process makes a pair of sockets for signals, which stays.
    drop(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
    let (fds, tasks) = (descriptors(), threads());
    let start = Instant::now();
    // Threads of a runtime are born in the namespace of the one that makes it.
    world
        .outer
        .host
        .run(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(all());
        })
        .unwrap();
    println!("{SANDBOXES} sandboxes, made, tried and gone: {:?}", start.elapsed());
    world.nothing_left(&before, "by two hundred sandboxes");
    let deadline = Instant::now() + Duration::from_secs(3);
    while (descriptors(), threads()) != (fds.clone(), tasks) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!((descriptors(), threads()), (fds, tasks));
}

async fn all() {
    let start = Instant::now();
    let host = Host::open().unwrap();
    let policy =
        || Policy::builder().allow("web.example:80").unwrap().direct("203.0.113.9:5432").unwrap().build().unwrap();
    let mut preparing = tokio::task::JoinSet::new();
    for _ in 0..SANDBOXES {
        let (host, policy) = (host.clone(), policy());
        preparing.spawn(async move {
            let sandbox = Sandbox::prepare(&host, policy).await?;
            sandbox.spawn(Command::new("sleep").arg("1000")).await
        });
    }
    let mut running = Vec::new();
    while let Some(started) = preparing.join_next().await {
        running.push(started.unwrap().unwrap_or_else(|error| panic!("{}", error.chain())));
    }
    println!("{SANDBOXES} commands run: {:?}", start.elapsed());
    let addresses: BTreeSet<String> =
        running.iter().map(|one| one.plan().wire.addresses.sandbox4.to_string()).collect();
    let addresses6: BTreeSet<String> =
        running.iter().map(|one| one.plan().wire.addresses.sandbox6.to_string()).collect();
    assert_eq!((addresses.len(), addresses6.len()), (SANDBOXES, SANDBOXES));
    // All of them stand: each is let out where it may go, and refused elsewhere, and not by silence.
    for one in &running {
        let connect = |to: &str| {
            let to = to.parse().unwrap();
            let outcome = one.netns().run(|| TcpStream::connect_timeout(&to, Duration::from_secs(5))).unwrap();
            outcome.map(drop).map_err(|error| error.kind())
        };
        assert_eq!(connect("203.0.113.9:5432"), Ok(()));
        assert_eq!(connect("203.0.113.10:80"), Err(ErrorKind::ConnectionRefused));
    }
    println!("all tried: {:?}", start.elapsed());
    let mut closing = tokio::task::JoinSet::new();
    for mut one in running {
        closing.spawn(async move {
            one.child().kill()?;
            let status = one.wait().await?;
            one.close().await.map(|()| status)
        });
    }
    while let Some(closed) = closing.join_next().await {
        let status = closed.unwrap().unwrap_or_else(|error| panic!("{}", error.chain()));
        assert_eq!(status.signal().map(|signal| signal.as_raw()), Some(9));
    }
}
