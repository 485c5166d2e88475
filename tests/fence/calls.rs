//! System calls that are refused, by every entry that this machine has, and their neighbours that are not.

use std::collections::BTreeMap;
use std::process::{Output, Stdio};

use super::support::{Outer, python, skip, until};

/// Makes calls, and tells of each: entry, name, what was asked for, the answer, and what the kernel itself says of a neighbour (`-` of what is to be refused).
const ATTEMPT: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct call { const char *name; long ours, i386, a, b, c; const char *kernel; };
/* Stands for the owner of user namespaces. */
#define OWNER 0x0badbad
static struct call calls[] = {
    { "ioctl", SYS_ioctl, 54, 99, 0x5412, 0, "-" }, { "ioctl", SYS_ioctl, 54, 99, 0x541c, 0, "-" },
    /* The kernel looks at 32 bits. */
    { "ioctl", SYS_ioctl, 54, 99, 0x7700005412, 0, "-" },
    { "ioctl", SYS_ioctl, 54, 99, 0x5413, 0, "EBADF" }, { "ioctl", SYS_ioctl, 54, 0x5412, 0x5401, 0, "EBADF" },
    { "socket", SYS_socket, 359, 40, 1, 0, "-" }, { "socket", SYS_socket, 359, 0x7700000028, 1, 0, "-" },
    { "socket", SYS_socket, 359, 1, 1, 0, "done" }, { "socket", SYS_socket, 359, 2, 1, 0, "done" },
    { "socket", SYS_socket, 359, 10, 2, 0, "done" }, { "socket", SYS_socket, 359, 16, 3, 0, "done" },
    { "socketcall", -1, 102, 1, 0, 0, "-" },
    { "io_uring_setup", SYS_io_uring_setup, 425, 1, 0, 0, "-" },
    { "io_uring_enter", SYS_io_uring_enter, 426, 99, 0, 0, "-" },
    { "io_uring_register", SYS_io_uring_register, 427, 99, 0, 0, "-" },
    { "setuid", SYS_setuid, 213, OWNER, 0, 0, "-" }, { "setuid", SYS_setuid, 213, -1, OWNER, OWNER, "EINVAL" },
    { "setreuid", SYS_setreuid, 203, OWNER, -1, 0, "-" }, { "setreuid", SYS_setreuid, 203, -1, OWNER, 0, "-" },
    { "setreuid", SYS_setreuid, 203, -1, -1, OWNER, "done" },
    { "setresuid", SYS_setresuid, 208, OWNER, -1, -1, "-" }, { "setresuid", SYS_setresuid, 208, -1, OWNER, -1, "-" },
    { "setresuid", SYS_setresuid, 208, -1, -1, OWNER, "-" }, { "setresuid", SYS_setresuid, 208, -1, -1, -1, "done" },
    { "setuid16", -1, 23, 0, 0, 0, "-" }, { "setreuid16", -1, 70, 0, 0, 0, "-" }, { "setresuid16", -1, 164, 0, 0, 0, "-" },
    /* CLONE_FS beside CLONE_NEWUSER, and CLONE_THREAD alone, are refused by the kernel itself: nothing is made. */
    { "clone", SYS_clone, 120, 0x10000200, 0, 0, "-" },
    { "clone", SYS_clone, 120, 0x00010000, 0, 0, "EINVAL" },
    { "clone3", SYS_clone3, 435, 0, 0, 0, "-" },
    { "unshare", SYS_unshare, 310, 0x200, 0, 0, "done" },
    { "setns", SYS_setns, 346, 99, 0, 0, "-" }, { "setns", SYS_setns, 346, 99, 0x10000000, 0, "-" },
    { "setns", SYS_setns, 346, 99, 0x40000000, 0, "EBADF" }, { "setns", SYS_setns, 346, 99, 0x00020000, 0, "EBADF" },
    { "add_key", SYS_add_key, 286, 0, 0, 0, "-" },
    { "request_key", SYS_request_key, 287, 0, 0, 0, "-" },
    { "keyctl", SYS_keyctl, 288, 9999, 0, 0, "-" },
    { "bpf", SYS_bpf, 357, 99, 0, 0, "-" },
    { "kexec_load", SYS_kexec_load, 283, 0, 0, 0, "-" },
    { "kexec_file_load", SYS_kexec_file_load, -1, 99, 99, 0, "-" },
    { "init_module", SYS_init_module, 128, 0, 0, 0, "-" },
    { "finit_module", SYS_finit_module, 350, 99, 0, 0, "-" },
    { "delete_module", SYS_delete_module, 129, 0, 0, 0, "-" },
    { "ptrace", SYS_ptrace, 26, 16, 0x7fffffff, 0, "ESRCH" },
    { "perf_event_open", SYS_perf_event_open, 336, 0, 0, 0, "EFAULT" },
    /* Last: it lasts. */
    { "unshare", SYS_unshare, 310, 0x10000000, 0, 0, "-" },
};

static void told(const char *entry, const struct call *call, long answer)
{
    const char *word = answer >= 0 ? "done" : strerrorname_np(-answer);
    printf("%s %s %lx,%lx %s %s\n", entry, call->name, call->a, call->b, word ? word : "?", call->kernel);
}

int main(void)
{
    setvbuf(stdout, 0, _IOLBF, 0);
    unsigned first, count, owner = 0;
    FILE *users = fopen("/proc/self/uid_map", "r");
    while (users && fscanf(users, "%u %*u %u", &first, &count) == 2)
        if (first + count - 1 > owner) owner = first + count - 1;
    for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (calls[i].a == OWNER) calls[i].a = owner;
        if (calls[i].b == OWNER) calls[i].b = owner;
        if (calls[i].c == OWNER) calls[i].c = owner;
    }
#ifdef __x86_64__
    static const struct call x32 = { "socket", 0x40000000 | 41, -1, 2, 1, 0, "-" };
    long number = syscall(x32.ours, x32.a, x32.b, x32.c);
    told("x32", &x32, number < 0 ? -errno : number);
    pid_t child = fork();
    for (unsigned i = 0; child == 0 && i < sizeof calls / sizeof *calls; i++) {
        long answer = calls[i].i386;
        if (answer < 0) continue;
        __asm__ volatile("int $0x80" : "+a"(answer) : "b"(calls[i].a), "c"(calls[i].b), "d"(calls[i].c), "S"(0L), "D"(0L) : "memory", "r8", "r9", "r10", "r11");
        told("i386", &calls[i], (int)answer);
    }
    if (child == 0) return 0;
    int status;
    if (waitpid(child, &status, 0) != child || status != 0) return 1;
#endif
    for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (calls[i].ours < 0) continue;
        long answer = syscall(calls[i].ours, calls[i].a, calls[i].b, calls[i].c, 0, 0);
        told("native", &calls[i], answer < 0 ? -errno : answer);
    }
    return 0;
}
"#;

/// Compiles the program above.
fn attempt() -> Option<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("ringfence-calls").tempdir_in("/var/tmp").unwrap();
    std::fs::write(folder.path().join("attempt.c"), ATTEMPT).unwrap();
    let compiled = std::process::Command::new("cc")
        .args(["-O1", "-fno-pie", "-no-pie", "-o", "attempt", "attempt.c"])
        .current_dir(folder.path())
        .status();
    match compiled {
        Ok(status) if status.success() => Some(folder),
        other => {
            skip(&format!("no C compiler: {other:?}"));
            None
        }
    }
}

/// The answer of the filter.
fn refused(name: &str) -> &'static str {
    match name {
        "socket" => "EAFNOSUPPORT",
        "socketcall" | "io_uring_setup" | "io_uring_enter" | "io_uring_register" | "clone3" | "add_key"
        | "request_key" | "keyctl" | "setuid16" | "setreuid16" | "setresuid16" => "ENOSYS",
        _ => "EPERM",
    }
}

const USERNS: [&str; 4] = ["clone", "clone3", "unshare", "setns"];
/// What the kernel refuses already to programs without privilege, in the same words.
const SECOND_LOCKS: [&str; 6] =
    ["bpf", "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module"];

#[test]
fn what_gets_round_the_fence_is_refused_by_every_entry() {
    let (Some(outer), Some(folder)) = (Outer::new(), attempt()) else { return };
    let program = folder.path().join("attempt");
    let mut seen = BTreeMap::new();
    for (flags, mode) in [
        ("", "default"),
        ("--seccomp default --user 65534:65534", "default"),
        ("--drop-caps", "default"),
        ("--keep-caps NET_ADMIN,NET_RAW,SYS_ADMIN,SYS_MODULE,BPF,SYS_BOOT", "default"),
        ("--share-pid", "default"),
        ("--seccomp userns", "userns"),
        ("--seccomp off", "off"),
    ] {
        let said = outer.run(flags, &[program.to_str().unwrap()]);
        assert!(said.lines().count() >= 30, "{flags}: {said}");
        for line in said.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let [entry, name, _, got, kernel] = words[..] else { panic!("{flags}: {line}") };
            let always =
                ["socket", "io_uring", "setuid", "setreuid", "setresuid"].iter().any(|call| name.starts_with(call));
            if entry == "x32" {
                assert_eq!(got, "ENOSYS", "{flags}: {line}");
            } else if kernel != "-" {
                assert_eq!(got, kernel, "{flags}: {line}");
            } else if always || mode == "default" || mode == "userns" && !USERNS.contains(&name) {
                assert_eq!(got, refused(name), "{flags}: {line}");
            } else if !SECOND_LOCKS.contains(&name) {
                // So that the answer above was the filter's.
                assert_ne!(got, refused(name), "{flags}: {line}");
            }
            *seen.entry((entry.to_owned(), mode)).or_insert(0) += 1;
        }
    }
    println!("{seen:?}");
}

#[test]
fn refusals_are_clear_and_can_be_switched_off() {
    let Some(outer) = Outer::new() else { return };
    let run = |flags: &str, command: &[&str]| -> (bool, String) {
        let arguments = std::iter::once("run").chain(flags.split_whitespace()).chain(["--"]);
        let Output { status, stdout, stderr } =
            outer.output(&mut outer.ringfence(arguments.chain(command.iter().copied())));
        (status.success(), String::from_utf8([stdout, stderr].concat()).unwrap())
    };
    let make = ["unshare", "--user", "--map-root-user", "id", "-u"];
    let (works, said) = run("", &make);
    assert!(!works && said.contains("Operation not permitted"), "{said}");
    for flags in ["--seccomp userns", "--seccomp off"] {
        assert_eq!(run(flags, &make), (true, "0\n".into()), "{flags}");
    }
    // The policy file says so, too, and a flag beats it.
    let file = tempfile::Builder::new().suffix(".toml").tempfile_in("/var/tmp").unwrap();
    std::fs::write(file.path(), "seccomp = \"userns\"\n").unwrap();
    let policy = format!("--policy {}", file.path().display());
    assert_eq!(run(&policy, &make), (true, "0\n".into()));
    assert!(!run(&format!("{policy} --seccomp default"), &make).0);
    let (works, said) = run("--seccomp on", &make);
    assert!(!works && said.starts_with("ringfence: --seccomp: `on` is not `default`, `userns` or `off`"), "{said}");

    let plan = |flags: &str| {
        let output = outer.output(&mut outer.ringfence(std::iter::once("plan").chain(flags.split_whitespace())));
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    for (flags, line) in [
        (
            "",
            "  seccomp default refuses sockets that no network namespace holds, io_uring, becoming the owner of user namespaces, typing into the terminal, keyrings, bpf, kexec, kernel modules, user namespaces  (default)\n",
        ),
        (
            "--seccomp off",
            "  seccomp off refuses sockets that no network namespace holds, io_uring, becoming the owner of user namespaces  (--seccomp)\n",
        ),
        ("--seccomp userns --format json", "\"value\": \"userns\""),
    ] {
        let said = plan(flags);
        assert!(said.contains(line), "{line} is missing in {said}");
    }
    assert!(plan(&policy).contains("  seccomp userns refuses "));
}

#[test]
fn a_process_outside_is_not_there_to_be_traced() {
    let (Some(outer), Some(python)) = (Outer::new(), python()) else { return };
    // Of the same user, and without capabilities: nothing but the fence is between them.
    let mut setpriv = std::process::Command::new("setpriv");
    setpriv
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let mut victim = outer.spawn(&mut setpriv);
    let status = format!("/proc/{}/status", victim.id());
    until("the victim has become nobody", || std::fs::read_to_string(&status).unwrap().starts_with("Name:\tcat\n"));
    // Its own child may be traced, or no debugger would work.
    let script = format!(
        "
import ctypes, subprocess
libc = ctypes.CDLL(None, use_errno=True)
def attach(pid): return 0 if libc.ptrace(0x4206, pid, None, None) == 0 else ctypes.get_errno()
child = subprocess.Popen(['cat'], stdin=subprocess.PIPE)
print(attach(child.pid), attach({}))
child.kill()
",
        victim.id()
    );
    let command = [python, "-I", "-c", &script];
    assert_eq!(outer.run("--user 65534:65534", &command), format!("0 {}\n", libc::ESRCH));
    // Without a PID namespace it has a number, and Landlock is what stands between.
    if let Err(reason) = ringfence::kernel::landlock::version() {
        skip(&format!("no Landlock: {reason}"));
    } else {
        let flags = "--user 65534:65534 --share-pid --landlock required";
        assert_eq!(outer.run(flags, &command), format!("0 {}\n", libc::EPERM));
    }
    drop(victim.stdin.take());
    victim.wait().unwrap();
}

#[test]
fn programs_that_make_threads_and_processes_work() {
    let (Some(outer), Some(python)) = (Outer::new(), python()) else { return };
    let threads = "
import threading, multiprocessing, subprocess, concurrent.futures, os
def one(n): return n * n
if __name__ == '__main__':
    with concurrent.futures.ThreadPoolExecutor(8) as pool: assert sum(pool.map(one, range(99))) == 318549
    for way in 'fork', 'spawn', 'forkserver':
        with multiprocessing.get_context(way).Pool(2) as pool: assert sum(pool.map(abs, range(9))) == 36
    assert subprocess.run(['true']).returncode == 0
    pid = os.posix_spawn('/bin/true', ['true'], {}); os.waitpid(pid, 0)
    print('python')
";
    let threads_file = tempfile::Builder::new().suffix(".py").tempfile_in("/var/tmp").unwrap();
    std::fs::write(threads_file.path(), threads).unwrap();
    let path = threads_file.path().to_str().unwrap();
    assert_eq!(outer.run("", &[python, "-I", path]), "python\n");
    let node = "const {Worker} = require('worker_threads'); const {execFileSync} = require('child_process');
        new Worker('require(\"worker_threads\").parentPort.postMessage(7)', {eval: true}).on('message', n => console.log('node', n + execFileSync('true').length))";
    for (program, arguments, expected) in [
        (
            "bash",
            vec!["-c", "cat <(echo one) | while read -r word; do echo $word and $(echo two) & wait; done"],
            "one and two",
        ),
        ("node", vec!["-e", node], "node 7"),
        ("go", vec!["version"], "go version"),
        ("git", vec!["--version"], "git version"),
        ("curl", vec!["--version"], "curl "),
        ("strace", vec!["-f", "-o", "/dev/null", "sh", "-c", "(echo traced)"], "traced"),
        ("gdb", vec!["-nx", "-batch", "-ex", "run", "-ex", "info inferiors", "/bin/true"], "exited normally"),
    ] {
        if std::process::Command::new(program).arg("--version").output().is_err() {
            // Of these alone CI has every one.
            if !["strace", "gdb"].contains(&program) {
                skip(&format!("{program} is not here"));
            }
            continue;
        }
        let said = outer.run("", &[&[program][..], &arguments[..]].concat());
        assert!(said.contains(expected), "{program}: {said}");
    }
}
