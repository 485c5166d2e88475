//! Programs that wait, or keep others waiting, for a file system of their own that does not answer any more.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use ringfence::kernel::nftables::Socket;
use ringfence::nft::diff;

use crate::support::{python, skip, until};
use crate::world::{State, World, finish, good, oracle, text};

const FROZEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/frozen.py");
/// What lets a program mount a file system.
const WAYS: [&str; 2] = ["--keep-caps SYS_ADMIN", "--seccomp userns"];

/// Whether there is FUSE; without it, says so loudly.
fn fuse() -> bool {
    let device = File::options().read(true).write(true).open("/dev/fuse");
    if let Err(error) = &device {
        skip(&format!("no FUSE: {error}"));
    }
    device.is_ok()
}

#[test]
fn a_file_that_does_not_answer_holds_up_no_events() {
    let (Some(world), Some(python), true) = (World::new(), python(), fuse()) else { return };
    let before = world.state();
    for way in WAYS {
        let events = tempfile::NamedTempFile::new_in(world.directory()).unwrap();
        let mount = world.directory().join("mount");
        let mut command = world.ringfence("run -q --user 0:0 --events".split(' '));
        command.arg(events.path()).args(way.split(' ')).args(["--", python, "-I", FROZEN, "told"]);
        command.arg(mount).arg(events.path());
        assert_eq!(good(world.output(command)), "told\n", "{way}");
        world.nothing_left(&before, way);
    }
}

/// A process that can't be killed, until this is dropped.
struct Stuck<'a> {
    world: &'a World,
    /// Where it said the number of its file system.
    said: PathBuf,
}

impl<'a> Stuck<'a> {
    /// Starts it in a sandbox, by a script that is given the words that do so and the file that is written then, and waits until it is stuck.
    fn start(world: &'a World, python: &str, way: &str, script: impl Fn(&str, &Path) -> String) -> (Child, Self) {
        Self::start_as("stuck", world, python, way, script)
    }

    /// The same, or with the other thing that `frozen.py` does, which waits for [`Aborting`].
    fn start_as(
        how: &str,
        world: &'a World,
        python: &str,
        way: &str,
        script: impl Fn(&str, &Path) -> String,
    ) -> (Child, Self) {
        let (said, mount) = (world.directory().join("said"), world.directory().join("mount"));
        let _ = std::fs::remove_file(&said);
        // Arguments that are longer than a record.
        let (long, mount) = ("x".repeat(300), mount.display());
        let stuck = format!("{python} -I {FROZEN} {how} {mount} {long} </dev/null >{} 2>/dev/null", said.display());
        let words = "run -q --user 0:0 --name stuck --direct 203.0.113.9:5432".split(' ').chain(way.split(' '));
        let mut command = world.ringfence(words);
        command.args(["--", "sh", "-c", &script(&stuck, &said)]);
        let supervisor = world.spawn(command);
        until("a process is stuck", || std::fs::read_to_string(&said).is_ok_and(|text| text.ends_with('\n')));
        (supervisor, Self { world, said })
    }

    /// Fails unless all is gone but that process.
    fn is_all_that_is_left(&self, before: &State, what: &str) {
        until(what, || State { processes: before.processes.clone(), ..self.world.state() } == *before);
        let number = std::fs::read_to_string(&self.said).unwrap();
        assert!(self.connection("test -e").success(), "the file system {number} is gone, so this test shows nothing");
    }

    fn connection(&self, what: &str) -> std::process::ExitStatus {
        let number = std::fs::read_to_string(&self.said).unwrap();
        let script = format!(
            "mount -t fusectl none /mnt && {what} /mnt/{}/abort; code=$?; umount /mnt; exit $code",
            number.trim()
        );
        let mut command = self.world.program("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        self.world.output(command).status
    }
}

impl Drop for Stuck<'_> {
    fn drop(&mut self) {
        self.connection("echo 1 >");
    }
}

#[test]
fn what_can_not_be_ended_is_told_and_has_no_wire() {
    let (Some(world), Some(python), true) = (World::new(), python(), fuse()) else { return };
    let before = world.state();
    for way in WAYS {
        let (supervisor, stuck) = Stuck::start(&world, python, way, |stuck, said| {
            format!("{stuck} & until test -s {}; do sleep 0.1; done; exit 3", said.display())
        });
        let output = finish(supervisor);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{way}: {stderr}");
        assert_eq!(stderr.matches("can't be ended").count(), 1, "{way}: {stderr}");
        stuck.is_all_that_is_left(&before, way);
        drop(stuck);
        world.nothing_left(&before, way);
    }
}

#[test]
fn what_can_not_be_killed_with_its_supervisor_has_no_wire() {
    let (Some(world), Some(python), true) = (World::new(), python(), fuse()) else { return };
    let before = world.state();
    for way in WAYS {
        let (mut supervisor, stuck) = Stuck::start(&world, python, way, |stuck, _| format!("exec {stuck}"));
        assert_ne!(world.state().links, before.links, "{way}: there never was a wire");
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
        stuck.is_all_that_is_left(&before, way);
        drop(stuck);
        world.nothing_left(&before, way);
    }
}

/// Aborts the connection of a file system when this is dropped, when whoever has it has died, and after 100 seconds at the latest.
struct Aborting(Child);

impl Aborting {
    fn arm(stuck: &Stuck<'_>) -> Self {
        let number = std::fs::read_to_string(&stuck.said).unwrap();
        let abort = format!("/mnt/{}/abort", number.trim());
        let script = format!(
            "mount -t fusectl none /mnt && test -e {abort} && echo armed && timeout 100 cat; test ! -e {abort} || echo 1 >{abort}"
        );
        let mut command = stuck.world.program("unshare");
        command.args(["--mount", "sh", "-c", &script]).stdin(Stdio::piped());
        let mut armed = Self(stuck.world.spawn(command));
        let mut line = String::new();
        BufReader::new(armed.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "armed\n");
        std::fs::write(stuck.world.directory().join("mount.armed"), "").unwrap();
        armed
    }
}

impl Drop for Aborting {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A supervisor that does not outlive the test, however that ends.
struct Supervisor(Option<Child>);

impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whether a thread of the process waits in the kernel, and goes on waiting. Does not look at its memory.
fn waits(process: u64) -> bool {
    (0..10).all(|_| {
        std::thread::sleep(Duration::from_millis(10));
        let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return false };
        let mut stats = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
        stats.any(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" D")))
    })
}

#[test]
fn a_process_that_keeps_the_lock_of_its_memory_holds_up_nobody() {
    let (Some(world), Some(python), true) = (World::new(), python(), fuse()) else { return };
    let Some(_) = oracle("nft") else { return };
    let before = world.state();
    let at = |name: &str| world.directory().join(name);
    let (events, go, end) = (at("events"), at("go"), at("end"));
    let way = format!("--keep-caps SYS_ADMIN --events {}", events.display());
    let (supervisor, stuck) = Stuck::start_as("held", &world, python, &way, |held, _| {
        let wait = |file: &Path| format!("until test -e {}; do sleep 0.1; done", file.display());
        let refused = format!("{python} -I {FROZEN} refused {}", events.display());
        format!("{held} & {}; {refused}; {}; exit 3", wait(&go), wait(&end))
    });
    let mut supervisor = Supervisor(Some(supervisor));
    let told = |wanted: &dyn Fn(&serde_json::Value) -> bool| {
        let told = std::fs::read_to_string(&events).unwrap();
        // A line may be on its way.
        let all = told.lines().filter_map(|line| serde_json::from_str(line).ok());
        all.filter(|event| wanted(event)).collect::<Vec<_>>()
    };
    let netns = world.named("stuck");
    let rules = || netns.run(|| Socket::open().unwrap().ruleset().unwrap()).unwrap();
    let made = rules();
    let aborting = Aborting::arm(&stuck);
    let theirs = |event: &serde_json::Value| event["dport"] == 301;
    until("a process sends", || !told(&theirs).is_empty());
    let process = told(&theirs)[0]["process"]["pid"].as_u64();
    until("the lock is kept", || process.is_none_or(waits));
    // It sends again and again, and its arguments are asked for each time.
    let so_far = told(&theirs).len();
    until("the process that keeps it is told of", || told(&theirs).len() > so_far + 2);
    std::fs::write(&go, "").unwrap();
    until("another one is told of", || !told(&|event| event["dport"] == 200).is_empty());
    for times in 1..=3 {
        let mut nft = world.program("nft");
        nft.args(["flush", "ruleset"]);
        good(finish(netns.run(|| nft.spawn()).unwrap().unwrap()));
        until("the rules are mended", || diff(&rules(), &made).operations().is_empty());
        until("that is told", || told(&|event| event["action"] == "mended").len() == times);
    }
    if process.is_some() {
        let last = told(&theirs).pop().unwrap();
        assert!(last["process"]["argv"].is_null(), "nothing was asked: {last}");
    }
    std::fs::write(&end, "").unwrap();
    let output = finish(supervisor.0.take().unwrap());
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert_eq!(text(&output.stdout), "told\n");
    assert_eq!(stderr.matches("can't be ended").count(), 1, "{stderr}");
    stuck.is_all_that_is_left(&before, "beside the process that keeps the lock");
    drop(aborting);
    drop(stuck);
    world.nothing_left(&before, "after the lock was given back");
}
