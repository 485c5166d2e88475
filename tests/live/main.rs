//! A fence that changes while it stands: names that come and go with their answers, endpoints by order of the owner.
#![cfg(feature = "cli")]

#[path = "../support/mod.rs"]
mod support;
#[path = "../world/mod.rs"]
mod world;

mod by_name;
mod by_order;
mod learn;
mod many;
mod orders;
mod rotation;
mod servers;
mod slow;
mod told;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Output, Stdio};
use std::time::Duration;

use support::python;
use world::{World, text};

const INSIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live/inside.py");
const AUTHORITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live/authority.py");

/// What every sandbox of these tests is started with, but for audits, which write down what they were started with.
const TAMPERING: &str = "--tampering end";

/// A sandbox with a program in it that does what it is told.
struct Inside {
    child: Child,
    words: Option<ChildStdin>,
    said: BufReader<ChildStdout>,
}

impl Inside {
    /// Starts one with these flags of `run`; none without Python.
    fn start(world: &World, flags: &str) -> Option<Self> {
        let python = python()?;
        let mut command = world.ringfence("run".split(' ').chain(flags.split_whitespace()));
        if !flags.contains("--audit") {
            // Whatever these tests do by order or by name is the fence's own doing: a sandbox that took it for tampering would end.
            command.args(TAMPERING.split(' '));
        }
        command.args(["--", python, "-I", INSIDE]).stdin(Stdio::piped());
        let mut child = world.spawn(command);
        let (words, said) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut inside = Self { child, words, said };
        // It is there when it does something.
        if inside.ask("sleep 0") != "slept" {
            let mut why = String::new();
            inside.child.stderr.take().unwrap().read_to_string(&mut why).unwrap();
            panic!("run {flags}: {why}");
        }
        Some(inside)
    }

    fn tell(&mut self, words: &str) {
        let _ = writeln!(self.words.as_mut().unwrap(), "{words}");
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn ask(&mut self, words: &str) -> String {
        self.tell(words);
        self.hear()
    }

    /// Ends it, and gives what ringfence complained of on standard error: all but the report of what was refused.
    fn end(self) -> String {
        let said = self.report();
        let report = ["ringfence: refused ", "ringfence: would have refused "];
        said.lines().take_while(|line| !report.iter().any(|start| line.starts_with(start))).collect()
    }

    /// Ends it, and gives all that ringfence said on standard error.
    fn report(mut self) -> String {
        drop(self.words.take());
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(self.child.wait().unwrap().success(), "{said}");
        said
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // At the end of the program's input, it ends; after a failure it may not, and is killed.
        drop(self.words.take());
        for _ in 0..200 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `ringfence policy WORDS` on the host, which must succeed; gives its standard output.
#[track_caller]
fn policy(world: &World, words: &str) -> String {
    let said = world::good(world.run(&format!("policy {words}")));
    said.replace("tampering = \"end\"\n", "")
}

/// The same, which must fail: its standard error.
#[track_caller]
fn no_policy(world: &World, words: &str) -> String {
    let Output { status, stderr, .. } = world.run(&format!("policy {words}"));
    assert_eq!(status.code(), Some(125), "{}", text(&stderr));
    text(&stderr)
}

/// A name server in the internet, which the host asks.
struct Authority(Child);

impl Authority {
    fn start(world: &World, names: &str) -> Option<Self> {
        std::fs::write(world.directory().join("resolv.conf"), "nameserver 198.51.100.254\n").unwrap();
        std::fs::write(world.directory().join("nsswitch.conf"), "hosts: files dns\npasswd: files\ngroup: files\n")
            .unwrap();
        let mut command = world.program(python()?);
        command.args(["-I", AUTHORITY, "198.51.100.254", names]);
        let mut child = world.spawn_there(command);
        let mut up = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
        Some(Self(child))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server in the internet that answers every datagram with `heard`.
fn hears(world: &World, address: &str) {
    let socket = world.outer.internet.run(|| std::net::UdpSocket::bind(address)).unwrap().unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(b"heard", peer);
        }
    });
}

/// A server in the internet that sends back what it gets.
fn echo(world: &World, address: &str) {
    world.serve(address, |mut stream| {
        let mut byte = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut byte) {
            if stream.write_all(&byte[..read]).is_err() {
                return;
            }
        }
    });
}
