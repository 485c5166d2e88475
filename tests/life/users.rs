//! Sandboxes with a user namespace of their own, on hosts that are not as hosts usually are.

use std::process::Command;

use crate::world::{RINGFENCE, World, good, text};

/// `script` after `unshare ARGUMENTS`, with `ringfence` as `$0`.
fn script(world: &World, unshare: &str, script: &str) -> Command {
    let mut command = world.program("unshare");
    command.args(unshare.split(' ')).args(["--propagation", "private", "sh", "-ec", script, RINGFENCE]);
    command
}

/// A command that says whether it has the capability, and that the fence stands.
const ASK: &str = "\"$0\" run -q --allow web.example --keep-caps NET_ADMIN -- sh -c '\
    ip link set lo mtu 1400; ip link set eth0 promisc on; ! bash -c \": 2>&- </dev/tcp/203.0.113.9/80\" 2>/dev/null; echo fenced'";

#[track_caller]
fn works(world: &World, unshare: &str, prepare: &str) {
    let before = world.state();
    assert_eq!(good(world.output(script(world, unshare, &format!("{prepare}; {ASK}")))), "fenced\n", "{prepare}");
    world.nothing_left(&before, prepare);
}

#[test]
fn in_a_user_namespace() {
    let Some(world) = World::new() else { return };
    for own in ["-Urnm", "-Urnmpf", "-Urnmpf --mount-proc"] {
        works(&world, own, ":");
    }
}

#[test]
fn without_a_proc_of_its_own() {
    let Some(world) = World::new() else { return };
    works(&world, "--mount", "umount --lazy /proc; ! test -e /proc/self");
    works(&world, "--mount", "mount -o remount,bind,ro /proc; ! sh -c 'echo 1 > /proc/self/oom_score_adj' 2>/dev/null");
    // It shows the processes of another PID namespace, under numbers that are others' here.
    works(&world, "--mount --pid --fork", "test \"$(readlink /proc/self)\" != $$");
}

/// The kernel makes no user namespace: then nothing runs, and nothing is left.
#[test]
fn where_there_are_no_user_namespaces() {
    let Some(world) = World::new() else { return };
    let before = world.state();
    let mark = world.directory().join("ran");
    let run = format!("\"$0\" run --keep-caps NET_ADMIN -- touch {}", mark.display());
    let fails = |command: Command, error: &str, advice: &str| {
        let output = world.output(command);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{stderr}");
        assert!(stderr.contains(error) && stderr.contains(advice), "{stderr}");
        assert!(!mark.exists());
        world.nothing_left(&before, error);
    };
    // This limit is the outer user namespace's own.
    let limited = format!("echo 0 > /proc/sys/user/max_user_namespaces; {run}");
    fails(
        script(&world, "-Urnm", &limited),
        "can't create a user namespace: No space left on device (os error 28)",
        "raise /proc/sys/user/max_user_namespaces",
    );
    let plain = limited.replace("--keep-caps NET_ADMIN -- touch", "--keep-caps NET_RAW -- echo");
    assert_eq!(good(world.output(script(&world, "-Urnm", &plain))), format!("{}\n", mark.display()));
    let chrooted = format!(
        "mkdir {0}/root; mount --rbind / {0}/root; exec chroot {0}/root sh -ec '{run}' \"$0\"",
        world.directory().display()
    );
    fails(
        script(&world, "--mount", &chrooted),
        "can't create a user namespace: Operation not permitted (os error 1)",
        "no chroot",
    );
}
