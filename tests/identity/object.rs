//! The object that is committed is what clang makes of its source.

use std::io::Write as _;
use std::process::Command;

use crate::support::skip;

#[test]
fn the_object_is_what_clang_makes_of_its_source() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/kernel/identity");
    let scratch = tempfile::tempdir().unwrap();
    let made = scratch.path().join("refused.bpf.o");
    let Ok(version) = Command::new("clang").arg("--version").output() else {
        return skip("no clang to build the BPF object with");
    };
    let run = |command: &mut Command| {
        let output = command.current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let flags = [
        "-O2",
        "-g",
        "-mcpu=v3",
        "-target",
        "bpf",
        "-Wall",
        "-Werror",
        "-Wno-unused-function",
        // Or the folder's name would be in the object.
        "-fdebug-compilation-dir=.",
    ];
    run(Command::new("clang").args(flags).args(["-c", "refused.bpf.c", "-o"]).arg(&made));
    let strip =
        ["llvm-strip", "llvm-strip-14"].into_iter().find(|name| Command::new(name).arg("--version").output().is_ok());
    let Some(strip) = strip else { return skip("no llvm-strip to build the BPF object with") };
    run(Command::new(strip).arg("-g").arg(&made));
    let committed = std::fs::read(format!("{folder}/refused.bpf.o")).unwrap();
    if std::fs::read(&made).unwrap() != committed {
        let version = String::from_utf8_lossy(&version.stdout).lines().next().unwrap_or_default().to_owned();
        // Another compiler may write the same program otherwise; the one that wrote it may not.
        if !version.contains("version 14.") {
            let _ = writeln!(
                std::io::stderr(),
                "NOT COMPARED: the BPF object was built with clang 14, and this is {version}"
            );
            return;
        }
        panic!("refused.bpf.o is not what {version} makes of refused.bpf.c");
    }
}
