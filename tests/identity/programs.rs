//! The table: each way to try, and the share that is given to the right process.

use std::process::Command;

use ringfence::audit::Identity;

use crate::cell::{Cell, Score, attempt, judge, program, truth};
use crate::support::skip;

/// Ways of `attempt.c`, and how many packets each sends.
const WAYS: [(&str, usize); 22] = [
    ("tcp", 1),
    ("udp", 1),
    ("connected-udp", 2),
    ("parallel", 320),
    ("parallel-udp", 320),
    ("threads", 8),
    ("leaderless", 1),
    ("uring", 1),
    ("raw", 2),
    ("mapped", 1),
    ("six", 2),
    ("fast-open", 1),
    ("fork-exit", 20),
    ("exec-after", 1),
    ("inherited", 4),
    ("passed", 1),
    ("deleted", 1),
    ("replaced", 1),
    ("daemon", 1),
    ("forged-comm", 1),
    ("other-exe", 1),
    ("pid-namespace", 1),
];

#[test]
fn every_way_to_try_is_given_to_the_process_that_tried() {
    let (Some(cell), Some(program), Some(attempt)) = (Cell::new(), program(), attempt()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut table = String::new();
    for (way, packets) in WAYS {
        // Some remove the file that they are, or put another in its place.
        let binary = folder.path().join(format!("attempt-{way}"));
        let other = folder.path().join("other");
        std::fs::copy(attempt, &binary).unwrap();
        std::fs::copy(attempt, &other).unwrap();
        let argument = if way == "raw" { cell.address.to_string().into() } else { other.into_os_string() };
        let ((pid, output), told) =
            cell.watch(program, || cell.run(Command::new(&binary).args([way.into(), argument])));
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{way}: {} {complaint}", output.status);
        let score = judge(&told, &truth(&output));
        table.push_str(&format!("{way:16} {score:?}\n"));
        assert_eq!(
            score,
            Score { right: packets, ..Score::default() },
            "{way}: {told:#?}\n{}",
            String::from_utf8_lossy(&output.stdout)
        );
        for one in &told {
            let Identity::Exact(process) = &one.identity else { unreachable!("all are right") };
            let name = format!("attempt-{way}");
            let exe = process.exe.as_deref().unwrap_or_else(|| panic!("{way}: {process:?}"));
            assert!(exe.ends_with(&name), "{way}: {process:?}");
            assert_eq!(process.exe_deleted, ["deleted", "replaced"].contains(&way), "{way}: {process:?}");
            assert!(
                process.argv.is_some() && process.start_time.is_some() && process.exe_file.is_some(),
                "{process:?}"
            );
            assert_eq!((process.uid, process.gid), (Some(0), Some(0)), "{process:?}");
            // Whatever is not the first process has it among its ancestors, but for orphans.
            let first = process.pid == pid || process.ancestors.last().is_some_and(|last| last.pid == pid);
            assert!(first || way == "daemon", "{way}: {process:?}");
            if way == "pid-namespace" {
                assert_eq!(process.ns_pid, Some(1), "{process:?}");
            }
            if way == "exec-after" {
                assert_eq!(process.argv.as_deref().map(|argv| argv[0].as_str()), Some("second-program"));
            }
        }
    }
    println!("{table}");
}

#[test]
fn programs_that_everybody_has_are_named() {
    let (Some(cell), Some(by)) = (Cell::new(), program()) else { return };
    let python = "import socket; socket.socket().connect_ex(('203.0.113.9', 80))";
    let commands: [(&str, &[&str]); 3] = [
        ("python3", &["-I", "-c", python]),
        ("bash", &["-c", "exec 3<>/dev/tcp/203.0.113.9/80"]),
        ("curl", &["-s", "--noproxy", "*", "http://203.0.113.9/"]),
    ];
    for (name, arguments) in commands {
        if Command::new(name).arg("--version").output().is_err() {
            skip(&format!("no {name}"));
            continue;
        }
        let ((pid, _), told) = cell.watch(by, || cell.run(Command::new(name).args(arguments)));
        assert!(!told.is_empty(), "{name} did not try");
        for one in &told {
            let Identity::Exact(process) = &one.identity else { panic!("{name}: {:?}", one.identity) };
            assert_eq!(process.pid, pid, "{name}: {process:?}");
            assert_eq!(process.argv.as_deref().map(|argv| argv.len()), Some(1 + arguments.len()), "{process:?}");
            let name = name.trim_end_matches('3');
            assert!(process.exe.as_deref().is_some_and(|exe| exe.contains(name)), "{process:?}");
        }
    }
}
