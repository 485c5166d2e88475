//! Programs that wait, or keep others waiting, for a file system of their own that does not answer any more.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Child;

use crate::support::{python, skip, until};
use crate::world::{State, World, finish, good, text};

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
        let (said, mount) = (world.directory().join("said"), world.directory().join("mount"));
        let _ = std::fs::remove_file(&said);
        let stuck =
            format!("{python} -I {FROZEN} stuck {} </dev/null >{} 2>/dev/null", mount.display(), said.display());
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
