//! Somebody else changes the rules of a fence: it is told, mended, or the end. With the real nft(8), on either side.
#![cfg(feature = "cli")]

#[path = "../support/mod.rs"]
mod support;
#[path = "../world/mod.rs"]
mod world;

mod flood;
mod inside;
mod outside;

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Output, Stdio};
use std::time::Duration;

use ringfence::kernel::netns::Netns;
use ringfence::kernel::nftables::Socket;
use ringfence::nft::{Ruleset, diff};
use support::until;
use world::{World, oracle, text};

/// What the sandboxes are let out to.
const DIRECT: &str = "--direct 203.0.113.9:5432,[2001:db8::9]:5432 --direct-udp 203.0.113.9:5353";

/// A sandbox with a name, in which a shell waits for its input to end.
struct Fenced<'a> {
    world: &'a World,
    child: Child,
    input: Option<ChildStdin>,
    netns: Netns,
    events: PathBuf,
}

impl<'a> Fenced<'a> {
    fn start(world: &'a World, name: &str, flags: &str) -> Self {
        Self::running(world, name, flags, "echo up; read line")
    }

    /// Starts one with another script, which has to say `up`.
    fn running(world: &'a World, name: &str, flags: &str, script: &str) -> Self {
        let events = world.directory().join(format!("{name}.json"));
        let arguments = format!("run --name {name} {DIRECT} {flags} --events");
        let mut command = world.ringfence(arguments.split_whitespace());
        command.arg(&events).args(["--", "sh", "-c", script]).stdin(Stdio::piped());
        let mut child = world.spawn(command);
        let input = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line != "up\n" {
            let mut why = String::new();
            child.stderr.take().unwrap().read_to_string(&mut why).unwrap();
            panic!("run {flags}: {line}{why}");
        }
        Self { world, child, input, netns: world.named(name), events }
    }

    /// The rules inside, as they are now.
    fn rules(&self) -> Ruleset {
        rules(&self.netns)
    }

    /// Runs nft(8) as root of the host who enters the sandbox's network.
    fn nft(&self, command: &str) -> Output {
        let mut nft = self.world.program("nft");
        nft.args(command.split_whitespace());
        world::finish(self.netns.run(|| nft.spawn()).unwrap().unwrap())
    }

    /// The events of tampering that were told so far.
    fn told(&self) -> Vec<serde_json::Value> {
        let told = std::fs::read_to_string(&self.events).unwrap();
        // A line may be on its way.
        let whole = told.lines().filter_map(|line| serde_json::from_str(line).ok());
        whole.filter(|event: &serde_json::Value| event["event"] == "tampering").collect()
    }

    /// Waits for so many of them.
    #[track_caller]
    fn told_of(&self, count: usize) -> Vec<serde_json::Value> {
        until(&format!("there are {count} events of tampering"), || self.told().len() >= count);
        let told = self.told();
        assert_eq!(told.len(), count, "{told:#?}");
        told
    }

    /// Whether a connection gets through, as a program inside would try. Whoever is refused is so at once.
    fn reaches(&self, to: &str) -> bool {
        let to: SocketAddr = to.parse().unwrap();
        self.netns.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)).is_ok()).unwrap()
    }

    /// Ends the program and gives its status and what was said on standard error.
    fn end(mut self) -> (Option<i32>, String) {
        drop(self.input.take());
        let output = world::finish(self.child);
        (output.status.code(), text(&output.stderr))
    }
}

/// The ruleset of a namespace.
fn rules(netns: &Netns) -> Ruleset {
    netns.run(|| Socket::open().unwrap().ruleset().unwrap()).unwrap()
}

/// Whether two rulesets say the same.
fn same(have: &Ruleset, want: &Ruleset) -> bool {
    diff(have, want).operations().is_empty()
}

/// A world with nft(8) in it.
fn world() -> Option<World> {
    let (world, _) = (World::new()?, oracle("nft")?);
    Some(world)
}
