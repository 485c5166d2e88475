//! Files under Landlock: what a command may touch, what it may not, and that a terminal can still be had.
#![cfg(feature = "cli")]

#[path = "../support/mod.rs"]
mod support;
#[path = "../world/mod.rs"]
mod world;

use std::process::Output;

use world::{World, oracle};

/// Runs a shell script fenced, and gives status, output and errors as one text each.
fn run(world: &World, flags: &str, script: &str) -> (i32, String, String) {
    // What enters the mount namespace starts at its root.
    let mut command = world.program("sh");
    command
        .args(["-c", "cd \"$1\" && shift && exec \"$@\"", "sh"])
        .arg(world.directory())
        .args([world::RINGFENCE, "run"]);
    command.args(flags.split_whitespace()).args(["--", "sh", "-c", script]);
    let Output { status, stdout, stderr } = world.output(command);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// A file outside of every directory that the baseline opens for writing.
fn elsewhere(world: &World) -> std::path::PathBuf {
    let place = std::path::PathBuf::from(format!(
        "/var/lib/ringfence-test-{}",
        world.directory().file_name().unwrap().display()
    ));
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("file"), "as it was").unwrap();
    place
}

/// Removes what [`elsewhere`] made.
struct Place(std::path::PathBuf);

impl Place {
    fn new(world: &World) -> Self {
        Self(elsewhere(world))
    }

    fn file(&self) -> String {
        self.0.join("file").display().to_string()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_is_not_named_is_not_touched() {
    let Some(world) = World::new() else { return };
    let place = Place::new(&world);
    let file = place.file();
    let read = format!("cat {file}");
    // The ordinary case first, so that a refusal below is Landlock's.
    assert_eq!(run(&world, "--landlock off", &read), (0, "as it was".into(), String::new()));
    let (status, out, error) = run(&world, "--landlock required", &read);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(error.contains("Permission denied"), "{error}");
    for script in [
        "echo x > FILE",
        "echo x >> FILE",
        "truncate -s 0 FILE",
        "rm FILE",
        "mv FILE /tmp/",
        "ln FILE /tmp/x",
        "mkdir FILE.d",
    ] {
        let (status, ..) = run(&world, "--landlock required", &script.replace("FILE", &file));
        assert_ne!(status, 0, "{script}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "as it was");
}

#[test]
fn what_is_named_is_and_no_more() {
    let Some(world) = World::new() else { return };
    let place = Place::new(&world);
    let (file, directory) = (place.file(), place.0.display());
    let script = format!("cat {file} && ! echo x > {file}");
    let (status, out, _) = run(&world, &format!("--ro {directory}"), &script);
    assert_eq!((status, out.as_str()), (0, "as it was"), "--ro alone means that it is required");
    let (status, _, error) =
        run(&world, &format!("--landlock best-effort --rw {directory}"), &format!("echo new > {file}"));
    assert_eq!(status, 0, "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "new\n");
    // A single file, not its neighbours.
    let script = format!("echo again > {file} && ! echo x > {directory}/other");
    let (status, _, error) = run(&world, &format!("--rw {file}"), &script);
    assert_eq!(status, 0, "{error}");
}

#[test]
fn one_bad_path_does_not_void_the_rest() {
    let Some(world) = World::new() else { return };
    let place = Place::new(&world);
    let flags = format!("--landlock required --ro /no/such/path --rw {}", place.0.display());
    let (status, out, error) = run(&world, &flags, &format!("echo ok > {} && ! cat /root/.profile 2>&-", place.file()));
    assert_eq!((status, out.as_str()), (0, ""), "{error}");
    assert_eq!(error, "ringfence: warning: --ro: `/no/such/path` does not exist, and is left out\n");
    assert_eq!(std::fs::read_to_string(place.file()).unwrap(), "ok\n");
}

#[test]
fn the_working_directory_and_what_programs_need_are_there() {
    let Some(world) = World::new() else { return };
    let script = "echo here > made && cat made && rm made && echo t > /tmp/rf.$$ && rm /tmp/rf.$$ && echo x > /dev/null \
        && head -c 4 /dev/urandom | wc -c && cat /proc/self/comm && test -r /etc/passwd && test \"$(cat /proc/sys/kernel/ostype)\" = Linux";
    let (status, out, error) = run(&world, "--landlock required", script);
    assert_eq!((status, out.as_str()), (0, "here\n4\ncat\n"), "{error}");
    // Nothing but the command's own streams is said, even about what of the baseline is missing here.
    assert_eq!(error, "");
}

#[test]
fn a_program_that_was_named_is_executed_wherever_it_is() {
    let Some(world) = World::new() else { return };
    let place = Place::new(&world);
    let program = place.0.join("own-true");
    std::fs::copy("/bin/true", &program).unwrap();
    let mut command = world.ringfence(["run", "--landlock", "required", "--"]);
    command.arg(&program);
    let output = world.output(command);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn devices_are_not_made_and_outsiders_not_signalled() {
    let Some(world) = World::new() else { return };
    let (status, ..) = run(&world, "--user 0:0", "mknod /tmp/rf-disk b 7 0 && rm /tmp/rf-disk");
    assert_eq!(status, 0, "without Landlock, root makes devices");
    let (status, _, error) = run(&world, "--user 0:0 --landlock required", "mknod /tmp/rf-disk b 7 0");
    assert!(status != 0 && error.contains("Permission denied"), "{error}");
    // Its own, it may.
    let (status, _, error) = run(&world, "--landlock required", "sleep 100 & kill $! && wait $! ; test $? = 143");
    assert_eq!(status, 0, "{error}");
    let victim = std::process::Command::new("sleep").arg("100").spawn().unwrap();
    let (status, _, error) =
        run(&world, "--landlock required --share-pid --user 0:0", &format!("kill {}", victim.id()));
    let mut victim = victim;
    assert_eq!(victim.try_wait().unwrap(), None, "the outsider was killed");
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(status != 0, "{error}");
}

#[test]
fn terminals_can_be_had() {
    let Some(world) = World::new() else { return };
    for (program, script, wanted) in [
        ("script", "script -qec 'test -t 0 -a -t 1 && tty' /dev/null </dev/null", "/dev/pts/"),
        (
            "tmux",
            "tmux -S $PWD/tmux.sock -f /dev/null new-session -d 'tty > $PWD/tty' && for i in 1 2 3 4 5 6 7 8 9 10; do test -s tty && break; sleep 0.2; done; cat tty",
            "/dev/pts/",
        ),
        (
            "python3",
            "python3 -c 'import os,pty; pid, fd = pty.fork(); pid or os.execvp(\"tty\", [\"tty\"]); print(os.read(fd, 99).decode())'",
            "/dev/pts/",
        ),
    ] {
        if oracle(program).is_none() {
            continue;
        }
        let (status, out, error) = run(&world, "--landlock required", script);
        assert!(out.contains(wanted), "{program}: {status} {out} {error}");
    }
}

#[test]
fn as_another_user_and_with_a_user_namespace() {
    let Some(world) = World::new() else { return };
    let place = Place::new(&world);
    for flags in ["--user 65534", "--keep-caps SYS_ADMIN", "--drop-caps", "--share-pid"] {
        let (status, _, error) = run(&world, &format!("--landlock required {flags}"), &format!("cat {}", place.file()));
        assert!(status == 1 && error.contains("Permission denied"), "{flags}: {status} {error}");
    }
}

#[test]
fn bad_values_name_themselves() {
    let Some(world) = World::new() else { return };
    for (flags, message) in [
        ("--landlock on", "ringfence: --landlock: `on` is not `off`, `best-effort` or `required`"),
        ("--ro data", "ringfence: --ro: `data` is not an absolute path (it does not start at the root: write `/…`)"),
        ("--rw=", "ringfence: --rw: `` is not an absolute path (it is empty)"),
    ] {
        let (status, out, error) = run(&world, flags, "true");
        assert_eq!((status, out.as_str()), (125, ""));
        assert!(error.starts_with(message), "{error}");
    }
    let plan = world.ringfence(["plan", "--landlock", "best-effort", "--rw", "/srv"]);
    let text = String::from_utf8(world.output(plan).stdout).unwrap();
    for line in [
        "  landlock best-effort  (--landlock)",
        "  write /srv  (--rw)",
        "  write /dev/ptmx  (default)",
        "  read  /usr  (default)",
    ] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
}
