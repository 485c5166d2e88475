//! Replays the fuzzers' seeds and everything that once crashed, through the very functions that the fuzz targets call.
//!
//! What it proves is told in `docs/testing.md`; how to fuzz, too.
#![cfg(feature = "sandbox")]

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::cell::Cell;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Once;

use fuzz::TARGETS;

/// The most that one corpus may hold: seeds are read by people, and run with every test.
const MOST_FILES: usize = 300;
const MOST_BYTES: u64 = 1024 * 1024;

thread_local! {
    /// Panics on this thread, those that a task of tokio's swallowed too.
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

/// The files of a folder, in order. A folder that isn't there holds none.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn replay(name: &str) {
    count_panics();
    let (_, target) = TARGETS.into_iter().find(|(known, _)| *known == name).unwrap();
    let seeds = files(&folder("corpus").join(name));
    assert!(!seeds.is_empty(), "no seeds for {name}");
    let bytes: u64 = seeds.iter().map(|seed| fs::metadata(seed).unwrap().len()).sum();
    assert!(seeds.len() <= MOST_FILES && bytes <= MOST_BYTES, "{} seeds of {bytes} bytes for {name}", seeds.len());
    for file in seeds.into_iter().chain(files(&folder("crashes").join(name))) {
        let bytes = fs::read(&file).unwrap();
        let before = PANICS.get();
        let _ = panic::catch_unwind(AssertUnwindSafe(|| target(&bytes)));
        assert_eq!(PANICS.get(), before, "{} does harm", file.display());
    }
}

macro_rules! replays {
    ($($target:ident)*) => {
        $(#[test]
        fn $target() {
            replay(stringify!($target));
        })*

        #[test]
        fn every_target_is_replayed_and_has_a_binary() {
            let replayed = [$(stringify!($target)),*];
            let mut known: Vec<&str> = TARGETS.map(|(name, _)| name).to_vec();
            let mut binaries: Vec<String> = files(&folder("fuzz_targets"))
                .iter()
                .map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned())
                .collect();
            known.sort_unstable();
            binaries.sort_unstable();
            assert_eq!(known, binaries);
            assert!(known.iter().all(|name| replayed.contains(name)), "{known:?}, and {replayed:?} are replayed");
            for entry in ["corpus", "crashes"].into_iter().flat_map(|name| files(&folder(name))) {
                let name = entry.file_name().unwrap().to_str().unwrap();
                assert!(known.contains(&name), "{} is of no target", entry.display());
            }
        }
    };
}

replays!(netlink nftables transaction ruleset json policy toml variables passwd proxy secrets hello rewrite packet nflog dns btf conntrack inet_diag netfilter
    rtnetlink order answer record process learn);

/// Hands a target pseudo-random bytes: xorshift, the same on every machine.
fn draw(times: usize, target: impl Fn(&[u8])) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..times {
        let len = 16 + (next() % 1500) as usize;
        let bytes: Vec<u8> = (0..len).map(|_| (next() >> 32) as u8).collect();
        target(&bytes);
    }
}

/// Every type of the model is encoded by libnftnl and read back by us, whatever the seeds hold.
#[test]
fn transactions_of_any_bytes_come_back() {
    draw(10_000, fuzz::transaction);
}

/// What the kernel takes of any rulesets comes back from it, and can be put back.
#[test]
fn rulesets_of_any_bytes_come_back() {
    draw(1_000, fuzz::ruleset);
}
