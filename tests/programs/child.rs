//! The command as a process: its status, its streams, its terminal, its user.

use std::io::{Read, Write};
use std::process::Stdio;

use crate::support::python;
use crate::world::{RINGFENCE, World, finish, good, text};

#[test]
fn the_status_is_the_commands() {
    let Some(world) = World::new() else { return };
    for (script, status) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 22", 22),
        ("exit 125", 125),
        ("exit 255", 255),
        ("kill -TERM $$", 128 + 15),
        ("kill -INT $$", 128 + 2),
        ("kill -KILL $$", 128 + 9),
        ("kill -SEGV $$", 128 + 11),
    ] {
        let mut command = world.ringfence(["run", "--", "sh", "-c"]);
        command.arg(format!("ulimit -c 0; echo out; echo err >&2; {script}"));
        let output = world.output(command);
        assert_eq!(output.status.code(), Some(status), "{script}");
        // And nothing of ours on either stream.
        assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("out\n", "err\n"), "{script}");
    }
}

#[test]
fn even_the_most_talkative_ringfence_leaves_standard_output_alone() {
    let Some(world) = World::new() else { return };
    let output = world.run("run -vv --allow web.example --direct 203.0.113.9:80 -- echo out");
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("out\n", Some(0)));
    assert!(text(&output.stderr).contains("the fence stands"), "{}", text(&output.stderr));
    assert_eq!(good(world.run("run -q --allow web.example -- echo out")), "out\n");
}

/// A stream of bytes that never repeats, in blocks.
struct Stream(u64);

impl Stream {
    const BLOCK: usize = 1 << 16;

    fn block(&mut self) -> Vec<u8> {
        let next = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.0.to_le_bytes()
        };
        std::iter::repeat_with(next).take(Self::BLOCK / 8).flatten().collect()
    }
}

#[test]
fn a_hundred_megabytes_pass_through_unchanged() {
    const BLOCKS: usize = 100 * 1024 * 1024 / Stream::BLOCK;
    let Some(world) = World::new() else { return };
    let mut command = world.ringfence(["run", "--allow", "web.example", "--", "cat"]);
    command.stdin(Stdio::piped());
    let mut child = world.spawn(command);
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let writer = std::thread::spawn(move || {
        let mut stream = Stream(1);
        (0..BLOCKS).for_each(|_| input.write_all(&stream.block()).unwrap());
    });
    let (mut stream, mut block) = (Stream(1), vec![0; Stream::BLOCK]);
    for number in 0..BLOCKS {
        output.read_exact(&mut block).unwrap();
        assert!(block == stream.block(), "block {number} is another");
    }
    assert_eq!(output.read(&mut block).unwrap(), 0);
    writer.join().unwrap();
    good(finish(child));
}

#[test]
fn a_shell_has_its_terminal() {
    let (Some(python), Some(world)) = (python(), World::new()) else { return };
    let before = world.state();
    let mut command = world.program(python);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/terminal.py");
    command.args([
        "-I",
        script,
        RINGFENCE,
        "run",
        "--allow",
        "web.example",
        "--",
        "bash",
        "--norc",
        "--noprofile",
        "-i",
    ]);
    command.env("TERM", "dumb").env("PS1", "> ");
    assert_eq!(good(world.output(command)), "a terminal\n42\ninterrupted\nresumed\nexit 3\n");
    world.nothing_left(&before, "by a session at a terminal");
}

#[test]
fn it_runs_as_who_was_asked_for() {
    let Some(world) = World::new() else { return };
    let ids = "echo $(id -u):$(id -g):$(id -G)";
    let run = |arguments: &str, set: &[(&str, &str)]| {
        let mut command =
            world.ringfence("run".split(' ').chain(arguments.split_whitespace()).chain(["--", "sh", "-c", ids]));
        command.envs(set.iter().copied());
        good(world.output(command))
    };
    assert_eq!(run("--user 65534:65533", &[]), "65534:65533:65533\n");
    assert_eq!(run("--user 12345:23456 --allow web.example", &[]), "12345:23456:23456\n");
    assert_eq!(run("--user 12345", &[]), "12345:12345:12345\n");
    // As sudo(8) leaves it.
    let sudo = [("SUDO_UID", "12345"), ("SUDO_GID", "23456"), ("SUDO_USER", "somebody")];
    assert_eq!(run("", &sudo), "12345:23456:23456\n");
    assert!(run("--user 0:0", &sudo).starts_with("0:0:"));
    assert!(run("", &[]).starts_with("0:0:"));
}

#[test]
fn variables_that_no_shell_can_make_are_left_behind() {
    let (Some(python), Some(world)) = (python(), World::new()) else { return };
    let script = "import os, sys; os.execve(sys.argv[1], sys.argv[1:], {b'=a': b'b', b'd': b'=\\xff', b'PATH': os.environb[b'PATH']})";
    let mut command = world.program(python);
    command.args(["-I", "-c", script, RINGFENCE, "run", "--", "env"]);
    let output = world.output(command);
    let lines: Vec<&[u8]> =
        output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"PATH=")).collect();
    assert_eq!(lines, [&b"d==\xff"[..], b""], "{}", text(&output.stderr));
}
