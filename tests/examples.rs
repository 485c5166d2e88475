//! The examples do what they say, each in a network namespace of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use ringfence::kernel::nftables::Socket;
use rustix::thread::{UnshareFlags, unshare_unsafe};

fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        // SAFETY: a network namespace changes nothing that other threads or Rust rely on; file descriptors stay shared.
        if let Err(error) = unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
            let required = std::env::var("RINGFENCE_TEST_KERNEL").is_ok_and(|value| value == "require");
            assert!(!required, "no network namespace can be made: {error}");
            eprintln!("SKIPPED: no network namespace can be made: {error}");
            return;
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs an example in the calling thread's namespace.
fn run(name: &str, arguments: &[&str]) -> Output {
    let path = built().join(name);
    Command::new(&path).args(arguments).output().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Where the examples are. `cargo test` builds them before it runs tests, `cargo test --test examples` does not.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // TARGET/PROFILE/deps/examples-HASH
        let own = std::env::current_exe().unwrap();
        let [profile, target] = [2, 3].map(|up| own.ancestors().nth(up).unwrap());
        let cargo = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--examples", "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
            .env("CARGO_TARGET_DIR", target)
            .args((profile.file_name() == Some("release".as_ref())).then_some("--release"))
            .status();
        assert!(cargo.is_ok_and(|status| status.success()), "the examples can't be built");
        profile.join("examples")
    })
}

fn text(name: &str, arguments: &[&str]) -> String {
    let output = run(name, arguments);
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_firewall_stands_and_is_replaced() {
    in_namespace(|| {
        let shown = text("host_firewall", &["--commit"]);
        assert!(shown.contains("tcp dport @open_ports"), "{shown}");
        assert!(!shown.contains("# "), "something has no nft(8) syntax:\n{shown}");
        text("host_firewall", &["--commit"]);
        assert_eq!(Socket::open().unwrap().tables().unwrap().len(), 1);
    });
}

#[test]
fn a_gateway_stands() {
    in_namespace(|| {
        let shown = text("nat_gateway", &["--commit"]);
        assert!(shown.contains("dnat ip to 10.0.0.2:8080") && shown.contains("masquerade"), "{shown}");
        assert!(!shown.contains("# "), "something has no nft(8) syntax:\n{shown}");
    });
}

#[test]
fn a_limiter_stands() {
    in_namespace(|| {
        let shown = text("rate_limiter", &["--commit"]);
        assert!(shown.contains("update @seen4 { ip saddr limit rate over 50/second burst 100 packets }"), "{shown}");
        assert!(!shown.contains("# "), "something has no nft(8) syntax:\n{shown}");
    });
}

#[test]
fn a_block_list_lives() {
    in_namespace(|| {
        let shown = text("block_list", &["20000"]);
        assert!(shown.contains("19001 addresses read back"), "{shown}");
    });
}

#[test]
fn drift_is_found_and_mended() {
    in_namespace(|| {
        text("host_firewall", &["--commit"]);
        let mut socket = Socket::open().unwrap();
        let wanted = socket.ruleset().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), wanted.to_json()).unwrap();
        let file = file.path().to_str().unwrap();
        assert_eq!(text("drift_audit", &[file]), "");
        text("nat_gateway", &["--commit"]);
        let output = run("drift_audit", &[file]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "delete table inet gateway\n");
        assert_eq!(text("drift_audit", &[file, "--mend"]), "delete table inet gateway\nmended\n");
        assert_eq!(text("drift_audit", &[file]), "");
    });
}
