//! Programs that keep others waiting for a file system of their own that does not answer any more.

use std::fs::File;

use crate::support::{python, skip};
use crate::world::{World, good};

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
