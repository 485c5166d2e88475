//! Fenced children in real namespaces: what they inherit, how they end, what is left of them.
//!
//! Needs root. Where a test needs a process of its own to be a supervisor (to be killed, to have a terminal, to live in a chroot), it runs this
//! binary again for the test `supervisor`, which does what the environment variable `RINGFENCE_TEST_MODE` says.
#![cfg(feature = "sandbox")]

use std::error::Error as _;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringfence::kernel::child::{Capabilities, Child, ChildSpec, Cover, ExecError, ExitStatus, Signal, forward_signals};
use ringfence::kernel::guard::{Guard, Undo};
use ringfence::kernel::passwd::User;
use ringfence::policy::Capability;
use ringfence::{Error, ErrorKind};

const MODE: &str = "RINGFENCE_TEST_MODE";
const MARK: &str = "RINGFENCE_TEST_MARK";
const PATIENCE: Duration = Duration::from_secs(10);

/// A scratch network namespace; `None`, loudly, where there can be none.
fn netns() -> Option<OwnedFd> {
    let made = std::thread::spawn(|| {
        // SAFETY: changes the network namespace of this throwaway thread alone.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
    })
    .join()
    .unwrap();
    match made {
        Ok(netns) => Some(netns),
        Err(error) if std::env::var_os("RINGFENCE_TEST_KERNEL").is_some_and(|value| value == "require") => {
            panic!("kernel tests are required, and there is no network namespace: {error}")
        }
        Err(error) => {
            eprintln!("SKIPPED: no network namespace to be had: {error}");
            None
        }
    }
}

macro_rules! netns_or_skip {
    () => {
        match netns() {
            Some(netns) => netns,
            None => return,
        }
    };
}

fn spec(program: &str, args: &[&str]) -> ChildSpec {
    let mut spec = ChildSpec::new(program);
    spec.args = args.iter().map(OsString::from).collect();
    spec.env = vec![("PATH".into(), std::env::var_os("PATH").unwrap()), ("LC_ALL".into(), "C".into())];
    if let Some(mark) = std::env::var_os(MARK) {
        spec.env.push((MARK.into(), mark));
    }
    spec
}

fn sh(script: &str) -> ChildSpec {
    spec("sh", &["-c", script])
}

fn pipe() -> (File, OwnedFd) {
    let (reader, writer) = std::io::pipe().unwrap();
    (File::from(OwnedFd::from(reader)), writer.into())
}

/// Runs it to its end; gives status and standard output.
fn run(netns: &OwnedFd, mut spec: ChildSpec) -> (ExitStatus, String) {
    let (mut output, writer) = pipe();
    spec.stdio[1] = Some(writer);
    let mut child = Child::spawn(netns.as_fd(), spec).unwrap();
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    (child.wait_blocking().unwrap(), text)
}

fn refused(netns: &OwnedFd, spec: ChildSpec) -> Error {
    Child::spawn(netns.as_fd(), spec).map(drop).unwrap_err()
}

fn exec_error(error: &Error) -> &ExecError {
    assert_eq!(error.kind(), ErrorKind::Child, "{error:?}");
    error.source().and_then(|source| source.downcast_ref()).unwrap_or_else(|| panic!("no ExecError in {error:?}"))
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
        .unwrap_or_else(|| panic!("no {name} in {status}"))
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A mark for the environment of one supervisor and all it starts.
fn mark() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Everybody whose environment bears the mark: supervisor, reaper, guard, command and descendants.
fn marked(mark: &str) -> Vec<u32> {
    let needle = format!("{MARK}={mark}\0").into_bytes();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            std::fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|text| text.windows(needle.len()).any(|window| window == needle))
        })
        .collect()
}

/// This binary again, as a supervisor.
fn supervisor_command(mode: &str, mark: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["supervisor", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(MODE, mode)
        .env(MARK, mark);
    command
}

// ---- how it ends ----

#[test]
fn exit_codes_and_signals_pass_through() {
    let netns = netns_or_skip!();
    for code in [0, 1, 42, 255] {
        let (status, _) = run(&netns, sh(&format!("exit {code}")));
        assert_eq!((status.code(), status.code_for_shell()), (Some(code), code));
    }
    for (name, signal, code) in [("TERM", Signal::TERM, 143), ("KILL", Signal::KILL, 137), ("PIPE", Signal::PIPE, 141)]
    {
        let (status, _) = run(&netns, sh(&format!("kill -{name} $$; sleep 10")));
        assert_eq!((status.signal(), status.code_for_shell()), (Some(signal), code));
    }
}

#[tokio::test(flavor = "current_thread")]
async fn waiting_can_be_given_up_and_taken_up_again() {
    let netns = netns_or_skip!();
    let mut child = Child::spawn(netns.as_fd(), spec("sleep", &["0.3"])).unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(20), child.wait()).await.is_err());
    assert!(child.wait().await.unwrap().success());
    assert!(child.wait().await.unwrap().success());
    assert!(child.wait_blocking().unwrap().success());
    assert_eq!(child.signal(Signal::TERM).unwrap_err().advice(), Some("the command has ended"));
    child.kill().unwrap();
}

#[test]
fn what_cannot_be_executed_is_told_from_what_is_not_there() {
    let netns = netns_or_skip!();
    let directory = tempfile::tempdir().unwrap();
    let plain = directory.path().join("plain");
    std::fs::write(&plain, "#!/bin/sh\n").unwrap();
    let plain = plain.to_str().unwrap();

    let missing = refused(&netns, spec("no-such-program", &[]));
    assert_eq!(missing.to_string(), "can't execute `no-such-program`");
    assert_eq!((exec_error(&missing).code_for_shell(), exec_error(&missing).errno()), (127, libc::ENOENT));
    assert_eq!(exec_error(&refused(&netns, spec("/no/such/program", &[]))).code_for_shell(), 127);
    assert_eq!(exec_error(&refused(&netns, spec("", &[]))).code_for_shell(), 127);
    assert_eq!(exec_error(&refused(&netns, spec(plain, &[]))).code_for_shell(), 126);
    assert_eq!(exec_error(&refused(&netns, spec("/", &[]))).code_for_shell(), 126);

    // Found but not executable in one directory, not there in the next: execvp(3) remembers the first.
    let mut in_path = spec("plain", &[]);
    in_path.env = vec![("PATH".into(), format!("{}:/bin:/etc/passwd", directory.path().display()).into())];
    assert_eq!(exec_error(&refused(&netns, in_path)).code_for_shell(), 126);
    let mut odd_path = spec("no-such-program", &[]);
    odd_path.env = vec![("PATH".into(), "/bin:/etc/passwd".into())];
    assert_eq!(exec_error(&refused(&netns, odd_path)).code_for_shell(), 127);

    for (bad, what) in [(spec("a\0b", &[]), "the program's name"), (spec("true", &["ok", "\0"]), "argument 2")] {
        assert_eq!(refused(&netns, bad).to_string(), format!("{what} holds a NUL byte"));
    }
    let mut odd = spec("true", &[]);
    odd.env.push(("A=B".into(), "".into()));
    assert_eq!(refused(&netns, odd).kind(), ErrorKind::Child);
}

#[test]
fn a_script_without_an_interpreter_line_runs_in_the_shell() {
    let netns = netns_or_skip!();
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    std::fs::write(&script, "echo \"$0 $# $2\"\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script = script.to_str().unwrap();
    let (status, output) = run(&netns, spec(script, &["one", "two words"]));
    assert_eq!((status.code(), output), (Some(0), format!("{script} 2 two words\n")));
}

#[test]
fn orphans_are_reaped_and_die_with_the_command() {
    let netns = netns_or_skip!();
    for pid_namespace in [true, false] {
        let mark = mark();
        let mut spec = sh("(setsid sleep 1000 &) ; (sleep 0.05 &) ; sleep 0.2; ps -e -o stat= | grep -c Z; exit 5");
        spec.env.push((MARK.into(), mark.clone().into()));
        spec.pid_namespace = pid_namespace;
        let (status, output) = run(&netns, spec);
        assert_eq!(status.code(), Some(5));
        if pid_namespace {
            assert_eq!(output, "0\n", "zombies inside");
        }
        assert_eq!(marked(&mark), Vec::<u32>::new(), "pid_namespace: {pid_namespace}");
    }
}

#[test]
fn killing_and_dropping_leave_nothing() {
    let netns = netns_or_skip!();
    for pid_namespace in [true, false] {
        for drop_it in [true, false] {
            let mark = mark();
            let mut spec = sh("trap '' TERM INT HUP; setsid sleep 1000 & sleep 1000 & echo ready; wait");
            spec.env.push((MARK.into(), mark.clone().into()));
            spec.pid_namespace = pid_namespace;
            let (mut output, writer) = pipe();
            spec.stdio[1] = Some(writer);
            let mut child = Child::spawn(netns.as_fd(), spec).unwrap();
            output.read_exact(&mut [0; 6]).unwrap();
            assert!(marked(&mark).len() >= 2);
            if !drop_it {
                child.kill().unwrap();
                assert_eq!(child.wait_blocking().unwrap().signal(), Some(Signal::KILL));
            }
            drop(child);
            assert_eq!(marked(&mark), Vec::<u32>::new(), "pid_namespace: {pid_namespace}, dropped: {drop_it}");
        }
    }
}

#[test]
fn nothing_outlives_a_killed_supervisor_at_any_moment() {
    let _netns = netns_or_skip!();
    let mut running = 0;
    for mode in ["tree", "shared-tree"] {
        for moment in 0..50u64 {
            let mark = mark();
            let mut supervisor =
                supervisor_command(mode, &mark).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            // The first milliseconds belong to exec and set-up; most moments are there.
            std::thread::sleep(Duration::from_micros(moment * moment * 25));
            running += usize::from(marked(&mark).len() > 3);
            supervisor.kill().unwrap();
            supervisor.wait().unwrap();
            wait_until("everybody is gone", || marked(&mark).is_empty());
        }
    }
    assert!(running >= 10, "the supervisor was never killed with its children running ({running})");
}

#[test]
fn without_a_pid_namespace_the_command_dies_with_a_killed_reaper() {
    let netns = netns_or_skip!();
    let mark = mark();
    let mut spec = spec("sleep", &["1000"]);
    spec.env.push((MARK.into(), mark.clone().into()));
    spec.pid_namespace = false;
    let mut child = Child::spawn(netns.as_fd(), spec).unwrap();
    // SAFETY: kill(2) of a process that this test started and has not reaped.
    unsafe { libc::kill(child.pid() as i32, libc::SIGKILL) };
    assert_eq!(child.wait_blocking().unwrap().signal(), Some(Signal::KILL));
    wait_until("the command is gone", || marked(&mark).is_empty());
}

#[test]
fn a_masked_proc_is_refused_with_advice() {
    let _netns = netns_or_skip!();
    // Masked first, then a user namespace, as in a rootless container: only there the kernel minds what a new /proc would reveal.
    let mut shell = Command::new("unshare");
    let script = "mount -t tmpfs none /proc/irq && exec unshare --user --map-root-user --mount \"$SUPERVISOR\" supervisor --exact --ignored --nocapture";
    shell.args(["--mount", "sh", "-c", script]);
    let output = shell.env(MODE, "masked").env("SUPERVISOR", std::env::current_exe().unwrap()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("can't mount /proc for the command's PID namespace: "),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("--share-pid does without"), "{text}");
    assert_eq!(output.status.code(), Some(8), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

// ---- what it inherits ----

#[test]
fn its_streams_are_its_own_to_close() {
    let netns = netns_or_skip!();
    let (mut output, writer) = pipe();
    let mut spec = sh("echo said; exec >&-; exec sleep 1000");
    spec.stdio[1] = Some(writer);
    let child = Child::spawn(netns.as_fd(), spec).unwrap();
    let mut text = String::new();
    // Ends only if nobody else, the reaper least of all, holds the pipe.
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "said\n");
    drop(child);
}

#[test]
fn it_is_under_the_landlock_ruleset() {
    let netns = netns_or_skip!();
    // struct landlock_ruleset_attr with LANDLOCK_ACCESS_FS_WRITE_FILE handled: with no rule, nobody may write a file.
    let attributes = 2u64;
    // SAFETY: landlock_create_ruleset(2) reads as many bytes as it is told and returns a new descriptor.
    let ruleset = unsafe {
        let fd = libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attributes, size_of_val(&attributes), 0);
        if fd < 0 {
            eprintln!("SKIPPED: no Landlock: {}", std::io::Error::last_os_error());
            assert!(std::env::var_os("RINGFENCE_TEST_KERNEL").is_none_or(|value| value != "require"));
            return;
        }
        OwnedFd::from_raw_fd(fd as i32)
    };
    let mut spec = sh("cat /dev/null && echo read; (echo x >/dev/null) 2>&1 || echo kept");
    spec.landlock = Some(ruleset);
    let (_, output) = run(&netns, spec);
    assert!(output.starts_with("read\n") && output.ends_with("kept\n"), "{output}");
}

#[test]
fn no_file_descriptor_of_the_supervisor_leaks_in() {
    let netns = netns_or_skip!();
    // SAFETY: duplicates a descriptor without close-on-exec, to be leaked on purpose, and closes it again.
    let leak = unsafe { libc::dup(netns.as_raw_fd()) };
    for pid_namespace in [true, false] {
        let mut spec = sh("ls /proc/$$/fd; true");
        spec.pid_namespace = pid_namespace;
        assert_eq!(run(&netns, spec).1, "0\n1\n2\n");
    }
    // SAFETY: ours, made above.
    unsafe { libc::close(leak) };
}

#[test]
fn it_is_in_the_network_namespace() {
    let netns = netns_or_skip!();
    let inside = run(&netns, spec("readlink", &["/proc/self/ns/net"])).1;
    let there = std::fs::read_link(format!("/proc/self/fd/{}", netns.as_raw_fd())).unwrap();
    assert_eq!(inside.trim(), there.to_str().unwrap());
}

#[test]
fn capabilities_are_what_was_asked_for() {
    let netns = netns_or_skip!();
    let docker = "00000000a80405fb";
    let none = "0000000000000000";
    let kill_and_bind = "0000000000000420";
    let keep = Capabilities::Keep(
        ["KILL", "NET_BIND_SERVICE"].map(|name| name.parse::<Capability>().unwrap()).into_iter().collect(),
    );
    let nobody = || Some(User { uid: 65534, gid: 65534, groups: vec![] });
    //  what,                  as whom,  bounding,      effective,     ambient
    let table = [
        (Capabilities::Default, None, docker, docker, none),
        (Capabilities::None, None, none, none, none),
        (keep, None, kill_and_bind, kill_and_bind, none),
        (Capabilities::Default, nobody(), docker, none, none),
        (Capabilities::None, nobody(), none, none, none),
        (keep, nobody(), kill_and_bind, kill_and_bind, kill_and_bind),
    ];
    for (capabilities, user, bounding, effective, ambient) in table {
        let mut spec = spec("cat", &["/proc/self/status"]);
        let who = format!("{capabilities:?} as {user:?}");
        (spec.capabilities, spec.user) = (capabilities, user);
        let status = run(&netns, spec).1;
        assert_eq!(field(&status, "CapBnd"), bounding, "{who}");
        assert_eq!(field(&status, "CapEff"), effective, "{who}");
        assert_eq!(field(&status, "CapPrm"), effective, "{who}");
        assert_eq!(field(&status, "CapAmb"), ambient, "{who}");
        assert_eq!(field(&status, "CapInh"), ambient, "{who}");
        assert_eq!(field(&status, "NoNewPrivs"), "1", "{who}");
    }
    let mut all = spec("cat", &["/proc/self/status"]);
    all.capabilities = Capabilities::All;
    let ours = std::fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(field(&run(&netns, all).1, "CapEff"), field(&ours, "CapEff"));
}

#[test]
fn user_and_groups_are_what_was_asked_for() {
    let netns = netns_or_skip!();
    let mut spec = spec("cat", &["/proc/self/status"]);
    spec.user = Some(User { uid: 4242, gid: 4243, groups: vec![4243, 10, 29] });
    let status = run(&netns, spec).1;
    assert_eq!(field(&status, "Uid"), "4242\t4242\t4242\t4242");
    assert_eq!(field(&status, "Gid"), "4243\t4243\t4243\t4243");
    assert_eq!(field(&status, "Groups"), "10 29 4243");
}

#[test]
fn a_working_directory_that_the_user_may_not_enter_is_kept() {
    let netns = netns_or_skip!();
    let mut spec = sh("readlink /proc/self/cwd >/dev/null; exit 3");
    spec.user = Some(User { uid: 4242, gid: 4242, groups: vec![] });
    assert_eq!(run(&netns, spec).0.code(), Some(3));
}

#[test]
fn proc_shows_the_processes_inside_alone_and_sysctls_are_read_only() {
    let netns = netns_or_skip!();
    let (_, pids) = run(&netns, sh("cd /proc && for pid in [0-9]*; do echo $pid; done; cat /proc/1/comm"));
    assert_eq!(pids, "1\n2\nringfence-init\n");
    for pid_namespace in [true, false] {
        let mut spec = sh(
            "echo 1 > /proc/sys/net/ipv4/ip_forward || echo refused; touch /proc/sys/net 2>/dev/null || echo refused",
        );
        (spec.pid_namespace, spec.stdio[2]) = (pid_namespace, Some(File::create("/dev/null").unwrap().into()));
        assert_eq!(run(&netns, spec).1, "refused\nrefused\n");
    }
    // Nobody inside may look into the reaper, whose memory is the supervisor's.
    let (_, output) = run(&netns, sh("head -c1 /proc/1/mem 2>&1; cat /proc/1/environ 2>&1; ls -l /proc/1/fd/0 2>&1"));
    assert_eq!(output.matches("ermission denied").count(), 3, "{output}");
}

#[test]
fn mounts_inside_stay_inside() {
    let netns = netns_or_skip!();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap().to_owned();
    let mut spec = spec("mount", &["-t", "tmpfs", "none", &path]);
    spec.capabilities = Capabilities::All;
    assert_eq!(run(&netns, spec).0.code(), Some(0));
    assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&path));
}

#[test]
fn signals_are_inherited_as_the_caller_had_them() {
    let _netns = netns_or_skip!();
    for ignore in [true, false] {
        let mut command = supervisor_command("status", &mark());
        // SAFETY: signal(2) is async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                libc::signal(libc::SIGHUP, if ignore { libc::SIG_IGN } else { libc::SIG_DFL });
                Ok(())
            });
        }
        let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let ignored = u64::from_str_radix(field(&output, "SigIgn"), 16).unwrap();
        // Signal 32 is the C library's own; its posix_spawn, with which this test itself may have been started, has it ignored.
        let ignored = ignored & !(1 << 31);
        // Bit 0 is SIGHUP; bit 12 would be SIGPIPE, which Rust's runtime ignores.
        assert_eq!(ignored, u64::from(ignore));
        assert_eq!(field(&output, "SigBlk"), "0000000000000000");
    }
}

#[test]
fn it_starts_in_a_chroot_with_and_without_proc() {
    let _netns = netns_or_skip!();
    for (with_proc, expected) in [(true, "inside: 1\n"), (false, "inside: no proc\n")] {
        let root = tempfile::tempdir().unwrap();
        plant(root.path(), "/bin/sh");
        if with_proc {
            std::fs::create_dir(root.path().join("proc")).unwrap();
        }
        let output = supervisor_command("chroot", &mark()).env("RINGFENCE_TEST_ROOT", root.path()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(expected), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn what_is_covered_in_the_root_directory_leaves_nothing_there() {
    let _netns = netns_or_skip!();
    let root = tempfile::tempdir().unwrap();
    plant(root.path(), "/bin/sh");
    std::fs::write(root.path().join("file"), "host\n").unwrap();
    std::os::unix::fs::symlink("/", root.path().join("link")).unwrap();
    let names = || {
        let mut names: Vec<_> =
            std::fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    for path in ["/file", "/link/file", "/./file"] {
        let mut command = supervisor_command("covered-root", &mark());
        let output = command.env("RINGFENCE_TEST_ROOT", root.path()).env("RINGFENCE_TEST_PATH", path).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("own\n"), "{path}: {text}{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!((output.status.code(), names()), (Some(0), before.clone()), "{path}: {text}");
    }
    assert_eq!(std::fs::read_to_string(root.path().join("file")).unwrap(), "host\n");
}

/// Covers a file of the root directory, without a new /proc under which it could be made.
fn covered_root(root: &Path) -> i32 {
    let netns = netns().unwrap();
    // SAFETY: gives this thread a file system state and a mount namespace of its own; the rest of the process does not mind.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0);
    rustix::process::chroot(root).unwrap();
    rustix::process::chdir("/").unwrap();
    let mut spec = ChildSpec::new("/bin/sh");
    spec.args = vec!["-c".into(), "read line < /file; echo $line".into()];
    spec.pid_namespace = false;
    let path = std::env::var_os("RINGFENCE_TEST_PATH").unwrap().into();
    spec.covers = vec![Cover::File { path, content: b"own\n".into() }];
    let (status, said) = run(&netns, spec);
    println!("{said}");
    i32::from(!status.success())
}

/// Copies a program and the libraries it needs.
fn plant(root: &Path, program: &str) {
    let listing = Command::new("ldd").arg(program).output().unwrap().stdout;
    let listing = String::from_utf8(listing).unwrap();
    for file in listing.split_whitespace().filter(|word| word.starts_with('/')).chain([program]) {
        let copy = root.join(file.trim_start_matches('/'));
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(file, copy).unwrap();
    }
}

// ---- signals ----

#[test]
fn signals_reach_the_command() {
    let netns = netns_or_skip!();
    for pid_namespace in [true, false] {
        for by_reaper in [true, false] {
            let (mut output, writer) = pipe();
            let mut spec = sh("trap 'echo usr1; exit 9' USR1; echo ready; while :; do sleep 0.02; done");
            (spec.pid_namespace, spec.stdio[1]) = (pid_namespace, Some(writer));
            let mut child = Child::spawn(netns.as_fd(), spec).unwrap();
            output.read_exact(&mut [0; 6]).unwrap();
            let command = child.command_pid().unwrap();
            assert_eq!(std::fs::read_to_string(format!("/proc/{command}/comm")).unwrap(), "sh\n");
            if by_reaper {
                // SAFETY: kill(2) of a process that this test started and has not reaped.
                unsafe { libc::kill(child.pid() as i32, libc::SIGUSR1) };
            } else {
                child.signal(Signal::USR1).unwrap();
            }
            assert_eq!(child.wait_blocking().unwrap().code(), Some(9));
            let mut text = String::new();
            output.read_to_string(&mut text).unwrap();
            assert_eq!(text, "usr1\n");
        }
    }
}

#[test]
fn signals_for_the_supervisor_reach_the_command() {
    let _netns = netns_or_skip!();
    for (signal, code) in [(libc::SIGUSR1, 9), (libc::SIGTERM, 143), (libc::SIGHUP, 129)] {
        let mut supervisor = supervisor_command("forward", &mark()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = supervisor.stdout.take().unwrap();
        read_until(&mut output, &["ready", "supervised"]);
        // SAFETY: kill(2) of a process that this test started and has not reaped.
        unsafe { libc::kill(supervisor.id() as i32, signal) };
        wait_until("the supervisor ends", || supervisor.try_wait().unwrap().is_some());
        assert_eq!(supervisor.wait().unwrap().code(), Some(code));
    }
}

/// Reads until all of them have come.
fn read_until(from: &mut impl Read, needles: &[&str]) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !needles.iter().all(|needle| String::from_utf8_lossy(&text).contains(needle)) {
        match from.read(&mut byte) {
            Ok(1) => text.push(byte[0]),
            other => panic!("{other:?} before {needles:?}: {}", String::from_utf8_lossy(&text)),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// A process on a terminal of its own.
struct Terminal {
    master: File,
    process: std::process::Child,
    /// Read, and not expected yet.
    unread: String,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let (mut master, mut slave) = (-1, -1);
        // SAFETY: openpty(3) writes two descriptors, owned by nobody else; the rest may be null.
        let (master, slave) = unsafe {
            assert_eq!(
                libc::openpty(&mut master, &mut slave, std::ptr::null_mut(), std::ptr::null(), std::ptr::null()),
                0
            );
            libc::fcntl(master, libc::F_SETFD, libc::FD_CLOEXEC);
            (File::from_raw_fd(master), File::from_raw_fd(slave))
        };
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        // SAFETY: setsid(2) and ioctl(2) are async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let process = command.spawn().unwrap();
        Self { master, process, unread: String::new() }
    }

    fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Reads up to the needle and past it; gives what came until there.
    fn expect(&mut self, needle: &str) -> String {
        let start = Instant::now();
        loop {
            if let Some(position) = self.unread.find(needle) {
                let rest = self.unread.split_off(position + needle.len());
                return std::mem::replace(&mut self.unread, rest);
            }
            assert!(start.elapsed() < PATIENCE, "no {needle:?} in {:?}", self.unread);
            let mut ready = libc::pollfd { fd: self.master.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd, as the count says.
            if unsafe { libc::poll(&raw mut ready, 1, 100) } == 1 {
                let mut bytes = [0; 4096];
                let count = self
                    .master
                    .read(&mut bytes)
                    .unwrap_or_else(|error| panic!("{error} before {needle:?}: {}", self.unread));
                self.unread.push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        }
    }

    /// Waits for its end; gives the exit code.
    fn end(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until("the process on the terminal ends", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status?.code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn an_interactive_shell_has_job_control() {
    let _netns = netns_or_skip!();
    let mut terminal = Terminal::start(supervisor_command("bash", &mark()));
    terminal.send("PS1=; stty -echo; echo re''ady\n");
    let start = terminal.expect("ready\r\n");
    assert!(!start.contains("job control") && !start.contains("process group"), "{start}");
    // A job says when it runs: a key that comes earlier is the shell's, not the job's.
    terminal.send("sh -c 'echo run\"\"ning; exec sleep 1000'\n");
    terminal.expect("running");
    terminal.send("\x03");
    terminal.send("echo status=$?\n");
    terminal.expect("status=130");
    terminal.send("sh -c 'echo run\"\"ning; exec sleep 1000'\n");
    terminal.expect("running");
    terminal.send("\x1a");
    terminal.expect("Stopped");
    // Without -f, `wait` is content with a job that is stopped still, and `exit` is not.
    terminal.send("kill -KILL %1; wait -f %1; jobs; echo fin''ished\n");
    terminal.expect("finished");
    terminal.send("exit 7\n");
    assert_eq!(terminal.end(), Some(7));
}

#[test]
fn a_terminal_that_hangs_up_ends_the_command() {
    let _netns = netns_or_skip!();
    let mark = mark();
    let mut terminal = Terminal::start(supervisor_command("bash", &mark));
    terminal.send("PS1=; stty -echo; sh -c 'echo run\"\"ning; exec sleep 1000'\n");
    if !terminal.expect("running").contains("supervised") {
        terminal.expect("supervised");
    }
    // The last who holds the other end lets go.
    terminal.master = File::open("/dev/null").unwrap();
    assert_eq!(terminal.end(), Some(128 + libc::SIGHUP));
    wait_until("all are gone", || marked(&mark).is_empty());
}

#[test]
fn a_terminals_interrupt_reaches_the_command_once() {
    let _netns = netns_or_skip!();
    let mut terminal = Terminal::start(supervisor_command("count-interrupts", &mark()));
    if !terminal.expect("counting").contains("supervised") {
        terminal.expect("supervised");
    }
    for count in 1..=5 {
        terminal.send("\x03");
        // Two that wait for one process are one.
        terminal.expect(&format!("counted {count}\r\n"));
    }
    // SAFETY: kill(2) of a process that this test started and has not reaped.
    unsafe { libc::kill(terminal.process.id() as i32, libc::SIGTERM) };
    assert_eq!(terminal.end(), Some(5), "as many as the command counted");
}

#[test]
fn a_shell_outside_can_stop_it_and_go_on() {
    let _netns = netns_or_skip!();
    let mut bash = Command::new("bash");
    bash.args(["--norc", "--noprofile", "-i"])
        .env(MODE, "countdown")
        .env("SUPERVISOR", std::env::current_exe().unwrap());
    let mut terminal = Terminal::start(bash);
    terminal.send("PS1=; stty -echo\n");
    terminal.send("\"$SUPERVISOR\" supervisor --exact --ignored --nocapture --test-threads=1; echo code=$?\n");
    terminal.expect("going");
    terminal.send("\x1a");
    terminal.expect("Stopped");
    terminal.send("echo he''re; fg; echo code=$?\n");
    terminal.expect("here");
    terminal.expect("gone");
    // The shell's own line, after its job has ended.
    terminal.expect("code=6");
}

#[test]
fn the_terminal_comes_back_from_an_interactive_shell() {
    let _netns = netns_or_skip!();
    // A script has no job control, so nobody but us takes the terminal back; without it `read` fails.
    let mut script = Command::new("sh");
    script.args([
        "-c",
        "\"$SUPERVISOR\" supervisor --exact --ignored --nocapture --test-threads=1; echo ba''ck; read line && echo \"read=$line\"",
    ]);
    script.env(MODE, "bash").env("SUPERVISOR", std::env::current_exe().unwrap());
    let mut terminal = Terminal::start(script);
    terminal.send("PS1=; echo re''ady\n");
    terminal.expect("ready\r\n");
    terminal.send("exit\n");
    terminal.expect("exit\r\n");
    terminal.expect("back\r\n");
    terminal.send("hello\n");
    terminal.expect("read=hello");
}

// ---- the guard ----

#[test]
fn a_guard_undoes_in_order_when_its_supervisor_is_killed_and_only_then() {
    let _netns = netns_or_skip!();
    for (mode, undone) in [("guard-killed", true), ("guard-disarmed", false), ("guard-dropped", false)] {
        let directory = tempfile::tempdir().unwrap();
        let (mark, log) = (mark(), directory.path().join("log"));
        let mut supervisor = supervisor_command(mode, &mark)
            .env("RINGFENCE_TEST_ROOT", directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        read_until(supervisor.stdout.as_mut().unwrap(), &["armed"]);
        let guards = || {
            let name = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm"));
            marked(&mark).iter().filter(|pid| name(pid).is_ok_and(|name| name == "ringfence-guard\n")).count()
        };
        // A guard takes its name after it was forked.
        wait_until("as many guards as are armed", || guards() == if undone { 2 } else { 0 });
        if undone {
            supervisor.kill().unwrap();
        }
        let status = supervisor.wait().unwrap();
        assert_eq!(status.signal(), undone.then_some(libc::SIGKILL), "{status}");
        wait_until("the guard is gone", || marked(&mark).is_empty());
        assert_eq!(std::fs::read_to_string(&log).unwrap_or_default(), if undone { "first second " } else { "" });
        let mount = directory.path().join("mount");
        assert_eq!(mount.exists(), !undone, "the mount point");
        let mounted = std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(mount.to_str().unwrap());
        assert_eq!(mounted, !undone, "the mount");
        if mounted {
            rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH).unwrap();
        }
    }
}

#[test]
fn a_guard_that_was_killed_is_told_of() {
    let _netns = netns_or_skip!();
    let guard = Guard::arm(Vec::new()).unwrap();
    // SAFETY: kill(2) of a process that this test started and has not reaped.
    unsafe { libc::kill(guard.pid() as i32, libc::SIGKILL) };
    std::thread::sleep(Duration::from_millis(50));
    let pid = guard.pid();
    assert_eq!(guard.disarm().unwrap_err().to_string(), format!("the guard (PID {pid}) was lost"));
}

#[test]
fn a_guard_sends_its_netlink_message_where_the_socket_belongs() {
    let netns = netns_or_skip!();
    let mark = mark();
    let mut supervisor = supervisor_command("guard-netlink", &mark)
        .stdin(Stdio::from(netns.try_clone().unwrap()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    read_until(supervisor.stdout.as_mut().unwrap(), &["armed"]);
    let flags = |netns: &OwnedFd| run(netns, spec("cat", &["/proc/self/net/dev_mcast", "/proc/self/net/if_inet6"])).1;
    assert!(!flags(&netns).contains(" lo\n"), "lo is down at first");
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    wait_until("lo is up", || flags(&netns).contains(" lo\n"));
}

// ---- what this binary does when it is run again ----

#[test]
#[ignore = "the part of a supervisor; other tests run it"]
fn supervisor() {
    let Ok(mode) = std::env::var(MODE) else { return };
    std::process::exit(act(&mode));
}

fn act(mode: &str) -> i32 {
    let root = || std::env::var_os("RINGFENCE_TEST_ROOT").unwrap();
    let armed_and_waiting = || {
        println!("armed");
        std::thread::sleep(PATIENCE);
        99
    };
    match mode {
        "tree" | "shared-tree" => {
            let netns = netns().unwrap();
            let mut children = Vec::new();
            for _ in 0..10 {
                let mut spec = sh("(setsid sleep 1000 &); sleep 1000 & exec sleep 1000");
                spec.pid_namespace = mode == "tree";
                children.push(Child::spawn(netns.as_fd(), spec).unwrap());
            }
            std::thread::sleep(PATIENCE);
            99
        }
        "status" => supervise(spec("cat", &["/proc/self/status"])),
        "forward" => supervise(sh("trap 'exit 9' USR1; echo ready; while :; do sleep 0.02; done")),
        "bash" => supervise(spec("bash", &["--norc", "--noprofile", "-i"])),
        "count-interrupts" => {
            let program = std::env::current_exe().unwrap();
            let mut spec = spec(program.to_str().unwrap(), &["supervisor", "--exact", "--ignored", "--nocapture"]);
            spec.env.push((MODE.into(), "counter".into()));
            supervise(spec)
        }
        "counter" => count_interrupts(),
        "countdown" => {
            supervise(sh("echo going; i=0; while [ $i -lt 20 ]; do sleep 0.05; i=$((i+1)); done; echo gone; exit 6"))
        }
        "masked" => {
            let netns = netns().unwrap();
            let error = refused(&netns, sh("exit 7"));
            println!("{} ({})", error.chain(), error.advice().unwrap());
            let mut shared = sh("exit 8");
            shared.pid_namespace = false;
            i32::from(Child::spawn(netns.as_fd(), shared).unwrap().wait_blocking().unwrap().code_for_shell())
        }
        "chroot" => in_chroot(Path::new(&root())),
        "covered-root" => covered_root(Path::new(&root())),
        "guard-killed" | "guard-disarmed" | "guard-dropped" => {
            let mount = Path::new(&root()).join("mount");
            File::create(&mount).unwrap();
            rustix::mount::mount_bind("/dev/null", &mount).unwrap();
            let log = File::create(Path::new(&root()).join("log")).unwrap();
            let note = |text: &'static [u8]| {
                let log = log.try_clone().unwrap();
                Undo::Call { keep: vec![log.as_raw_fd()], run: Box::new(move || drop((&log).write_all(text))) }
            };
            let unmount = Undo::Unmount { path: CString::new(mount.as_os_str().as_bytes()).unwrap() };
            let guard = Guard::arm(vec![note(b"first "), unmount, note(b"second ")]).unwrap();
            // A second one, forked while the first one's pipe is open here.
            let other = Guard::arm(Vec::new()).unwrap();
            // And a command, whose reaper was forked while both were.
            let child = Child::spawn(netns().unwrap().as_fd(), sh("sleep 1000")).unwrap();
            match mode {
                "guard-killed" => {
                    let code = armed_and_waiting();
                    drop((guard, other, child));
                    code
                }
                "guard-disarmed" => {
                    drop(child);
                    guard.disarm().unwrap();
                    other.disarm().unwrap();
                    println!("armed");
                    0
                }
                _ => {
                    drop((guard, other, child));
                    println!("armed");
                    0
                }
            }
        }
        "guard-netlink" => {
            let guard = Guard::arm(vec![loopback_up()]).unwrap();
            let code = armed_and_waiting();
            drop(guard);
            code
        }
        other => panic!("no mode {other}"),
    }
}

/// Runs a command as the command line would.
fn supervise(spec: ChildSpec) -> i32 {
    let mut child = Child::spawn(netns().unwrap().as_fd(), spec).unwrap();
    let forwarding = forward_signals(&child).unwrap();
    assert_eq!(forward_signals(&child).unwrap_err().kind(), ErrorKind::Conflict);
    println!("supervised");
    let status = child.wait_blocking().unwrap();
    drop(forwarding);
    i32::from(status.code_for_shell())
}

/// Counts SIGINT until SIGTERM. A shell's trap would not do: it runs once for two signals that come together.
fn count_interrupts() -> i32 {
    static INTERRUPTS: AtomicU32 = AtomicU32::new(0);
    static TERMINATED: AtomicU32 = AtomicU32::new(0);
    extern "C" fn count(signal: libc::c_int) {
        let counter = if signal == libc::SIGINT { &INTERRUPTS } else { &TERMINATED };
        counter.fetch_add(1, Ordering::SeqCst);
    }
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler only adds to an atomic number.
        unsafe { libc::signal(signal, count as *const () as libc::sighandler_t) };
    }
    println!("counting");
    let mut told = 0;
    let mut start = Instant::now();
    while TERMINATED.load(Ordering::SeqCst) == 0 {
        while told < INTERRUPTS.load(Ordering::SeqCst) {
            told += 1;
            println!("counted {told}");
            start = Instant::now();
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain to be terminated");
        std::thread::sleep(Duration::from_millis(2));
    }
    INTERRUPTS.load(Ordering::SeqCst) as i32
}

/// Starts a command where the root directory is no mount point, beneath a mount that is shared.
fn in_chroot(root: &Path) -> i32 {
    use rustix::mount::{MountPropagationFlags, mount_change};
    let netns = netns().unwrap();
    let mut mounts = File::open("/proc/self/mountinfo").unwrap();
    let spec = |script: &str| {
        let mut spec = ChildSpec::new("/bin/sh");
        spec.args = vec!["-c".into(), script.into()];
        spec
    };
    // SAFETY: gives this thread a file system state and a mount namespace of its own; the rest of the process does not mind.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0);
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC).unwrap();
    let mut own_mounts = File::open("/proc/thread-self/mountinfo").unwrap();
    rustix::process::chroot(root).unwrap();
    rustix::process::chdir("/").unwrap();

    let (mut output, writer) = pipe();
    let mut long = spec(
        "if [ -d /proc/1 ]; then for pid in /proc/1; do echo inside: ${pid#/proc/}; done; else echo inside: no proc; fi; read line",
    );
    let (_input, input) = {
        let (reader, writer) = std::io::pipe().unwrap();
        (writer, OwnedFd::from(reader))
    };
    (long.stdio[0], long.stdio[1]) = (Some(input), Some(writer));
    // Spawned from this thread, whose root is the chroot: the keeper inherits it.
    let child = Child::spawn(netns.as_fd(), long).unwrap();
    println!("{}", read_until(&mut output, &["\n"]).trim_end());
    // While it runs, its mounts must be nowhere here.
    for file in [&mut mounts, &mut own_mounts] {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert!(!text.contains(root.to_str().unwrap()), "{text}");
    }
    drop(child);
    0
}

/// RTM_NEWLINK that sets IFF_UP on interface 1, with a socket of the namespace on standard input.
fn loopback_up() -> Undo {
    let netns = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let socket = std::thread::spawn(move || {
        rustix::thread::move_into_link_name_space(netns.as_fd(), Some(rustix::thread::LinkNameSpaceType::Network))
            .unwrap();
        rustix::net::socket(rustix::net::AddressFamily::NETLINK, rustix::net::SocketType::RAW, None).unwrap()
    })
    .join()
    .unwrap();
    let mut message = Vec::new();
    message.extend(32u32.to_ne_bytes()); // nlmsg_len
    message.extend(16u16.to_ne_bytes()); // RTM_NEWLINK
    message.extend(1u16.to_ne_bytes()); // NLM_F_REQUEST
    message.extend([0; 8]); // sequence, port
    message.extend([0; 4]); // AF_UNSPEC, padding, type
    message.extend(1i32.to_ne_bytes()); // interface
    message.extend(1u32.to_ne_bytes()); // IFF_UP
    message.extend(1u32.to_ne_bytes()); // change
    Undo::Netlink { socket, message }
}

#[test]
fn what_is_covered_looks_otherwise_to_the_command_and_to_nobody_else() {
    let netns = netns_or_skip!();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("file"), "host\n").unwrap();
    std::os::unix::fs::symlink("file", at("link")).unwrap();
    std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
    std::fs::create_dir(at("full")).unwrap();
    std::fs::write(at("full/socket"), "").unwrap();
    let file = |name: &str| Cover::File { path: at(name), content: format!("own {name}\n").into_bytes() };
    let mut spec = sh("cd $0; cat file link dangling; ls full; ls; echo written > file; cat file; umask");
    spec.args.push(folder.path().into());
    let mut shared = sh("cat $0/file; ls -A /proc/self/ns/pid");
    shared.args.push(folder.path().into());
    (shared.covers, shared.pid_namespace) = (vec![file("file")], false);
    assert_eq!(run(&netns, shared).1, "own file\n/proc/self/ns/pid\n");
    let mut many = sh("cat $0/file");
    many.args.push(folder.path().into());
    many.covers = vec![file("file"); 32];
    assert_eq!(run(&netns, many).1, "own file\n");
    // Neither what is not there nor what is something else is made.
    let nothing = |name: &str| Cover::Nothing { path: at(name) };
    spec.covers = vec![
        file("file"),
        file("link"),
        file("dangling"),
        file("absent"),
        file("full"),
        nothing("full"),
        nothing("file"),
    ];
    let (status, said) = run(&netns, spec);
    assert!(status.success(), "{status:?} {said}");
    assert!(said.starts_with("own file\nown link\nown dangling\ndangling\nfile\nfull\nlink\nwritten\n"), "{said}");
    assert_eq!(std::fs::read_to_string(at("file")).unwrap(), "host\n");
    assert_eq!(std::fs::read_to_string(at("link")).unwrap(), "host\n");
    assert!(at("full/socket").exists() && !at("dangling").exists() && !at("absent").exists());

    for (covers, expected) in [
        (vec![file("file"); 33], "33 paths can't be covered: 32 can at most"),
        (vec![Cover::Nothing { path: "relative".into() }], "`relative` can't be covered: it is no absolute path"),
        (vec![Cover::Nothing { path: "/".into() }], "`/` can't be covered: it is no absolute path"),
    ] {
        let mut spec = sh("true");
        spec.covers = covers;
        assert_eq!(Child::spawn(netns.as_fd(), spec).unwrap_err().to_string(), expected);
    }
}
