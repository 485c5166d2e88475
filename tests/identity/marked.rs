//! The second way, by marks on sockets: as root, and in a user namespace without any privilege on the machine.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, ExitStatus, Output};
use std::sync::{Arc, Mutex, OnceLock};

use ringfence::audit::{Attempted, Identify, Identity};
use ringfence::kernel::child::{Child, ChildSpec};
use ringfence::kernel::identity::{Marks, Program};

use crate::cell::{Cell, Score, Told, attempt, judge, truth};
use crate::support::until;

/// Ways of `attempt.c`, and how many packets of each are told of one process and of several.
const WAYS: [(&str, usize, usize); 20] = [
    ("tcp", 1, 0),
    ("udp", 1, 0),
    ("connected-udp", 2, 0),
    ("parallel", 320, 0),
    ("parallel-udp", 320, 0),
    ("threads", 8, 0),
    ("leaderless", 1, 0),
    ("uring", 0, 0),
    ("mapped", 1, 0),
    ("six", 2, 0),
    ("fast-open", 1, 0),
    ("fork-exit", 20, 0),
    ("exec-after", 1, 0),
    // The datagram before the other process had the socket, and the connection that it alone made; then there are two.
    ("inherited", 2, 2),
    ("passed", 1, 0),
    ("deleted", 1, 0),
    ("daemon", 1, 0),
    ("forged-comm", 1, 0),
    ("shared-port", 50, 0),
    ("both-share", 1, 999),
];

/// Marks that are there once the program is, which can't send without.
#[derive(Default)]
pub struct Late(pub Arc<OnceLock<Mutex<Marks>>>);

impl Identify for Late {
    fn identify(&mut self, attempted: &Attempted) -> Identity {
        until("marks are given", || self.0.get().is_some());
        self.0.get().unwrap().lock().unwrap().identify(attempted)
    }
}

/// Starts a way under the filter, and gives what it printed and who was told.
fn marked(cell: &Cell, program: &std::path::Path, way: &str) -> (Output, Vec<Told>) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut spec = ChildSpec::new(program);
    spec.args = vec![OsString::from(way)];
    // PIDs as the program prints them are then those that are told.
    spec.pid_namespace = false;
    spec.notify = true;
    spec.stdio[1] = Some(OwnedFd::from(writer));
    let marks = Late::default();
    // The listener to the fence is there before the program is.
    let (status, told) = cell.listen(Late(Arc::clone(&marks.0)), || {
        let mut child = Child::spawn(cell.netns.as_fd(), spec).unwrap();
        marks.0.set(Mutex::new(Marks::listen(child.listener().expect("a listener")).unwrap())).unwrap();
        child.wait_blocking().unwrap()
    });
    let mut stdout = Vec::new();
    File::from(OwnedFd::from(reader)).read_to_end(&mut stdout).unwrap();
    (Output { status: ExitStatus::from(status), stdout, stderr: Vec::new() }, told)
}

#[test]
fn marks_name_whoever_was_seen_with_the_socket() {
    let (Some(cell), Some(attempt)) = (Cell::new(), attempt()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut table = String::new();
    for (way, one, several) in WAYS {
        let binary = folder.path().join(format!("attempt-{way}"));
        std::fs::copy(attempt, &binary).unwrap();
        let (output, told) = marked(&cell, &binary, way);
        assert!(output.status.success(), "{way}: {}", output.status);
        let score = judge(&told, &truth(&output));
        table.push_str(&format!("{way:16} {score:?}\n"));
        if several > 0 {
            // How many the first one sends before the second has used the socket is chance, and so is whether the second has before an answer is asked for.
            let least = if way == "both-share" { 0 } else { several };
            assert!(score.ambiguous >= least, "{way} {score:?}: {told:#?}");
            assert_eq!(
                (score.inferred + score.ambiguous, score.wrong),
                (one + several, 0),
                "{way} {score:?}: {told:#?}"
            );
        } else {
            assert_eq!(score, Score { inferred: one, ..Score::default() }, "{way}: {told:#?}");
        }
        if way == "uring" {
            assert!(String::from_utf8_lossy(&output.stdout).contains("no io_uring"));
        }
    }
    println!("{table}");
}

#[test]
fn marks_need_no_privilege_on_the_machine() {
    const INSIDE: &str = "RINGFENCE_TEST_USERNS";
    if std::env::var_os(INSIDE).is_some() {
        let error = Program::load().expect_err("BPF must not be had in a user namespace");
        println!("without privilege: {}", error.chain());
        return marks_name_whoever_was_seen_with_the_socket();
    }
    let again = Command::new("unshare")
        .args(["--user", "--map-root-user"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "marked::marks_need_no_privilege_on_the_machine", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    println!("{}", text(&again.stdout));
    assert!(again.status.success(), "{}{}", text(&again.stdout), text(&again.stderr));
}
