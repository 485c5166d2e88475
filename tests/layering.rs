//! Holds the floors of `docs/architecture.md`: each imports only what lies below it.
//!
//! Reads every `crate::…` path in `src/`, in `use` lines and elsewhere. A folder that is in no table fails the test, so that nobody
//! adds a room without saying on which floor it stands.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Floor of each module of the library.
const FLOORS: [(&str, u8); 13] = [
    ("error", 0),
    ("link", 0),
    ("policy", 0),
    ("nft", 0),
    ("wire", 0),
    ("plan", 1),
    ("audit", 1),
    ("doctor", 1),
    ("kernel", 2),
    ("nflog", 3),
    ("proxy", 3),
    ("dns", 3),
    ("sandbox", 4),
];

/// Imports within a floor, and why each is there.
const WITHIN: [(&str, &str); 10] = [
    ("wire", "link"),   // what the bytes stand for
    ("link", "nft"),    // interface names
    ("policy", "link"), // the address pool
    ("wire", "nft"),    // what the bytes stand for
    ("dns", "proxy"),   // answers what the proxy asks
    ("link", "error"),
    ("policy", "error"),
    ("nft", "error"),
    ("wire", "error"),
    ("policy", "nft"), // names that become the kernel's
];

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// The modules that a source file names after `crate::`, one level deep, groups (`crate::{a, b}`) included.
fn imports(source: &str) -> Vec<String> {
    let mut modules = Vec::new();
    let code: String =
        source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let word = |text: &str| -> String {
            text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        };
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut start = 0;
            for (index, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth > 0 => depth -= 1,
                    '}' | ',' if depth == 0 => {
                        modules.push(word(&group[start..index]));
                        start = index + 1;
                        if c == '}' {
                            break;
                        }
                    }
                    _ => {}
                }
            }
        } else {
            modules.push(word(rest));
        }
    }
    modules.retain(|module| !module.is_empty());
    modules
}

#[test]
fn every_floor_imports_only_floors_below_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let floors: BTreeMap<&str, u8> = FLOORS.into_iter().collect();
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 20, "only {} source files found: is this the right folder?", files.len());
    let mut wrong = Vec::new();
    let mut edges = 0;
    for file in &files {
        let relative = file.strip_prefix(&root).unwrap();
        let room = relative.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        if room == "lib" || room == "bin" {
            continue;
        }
        let Some(&floor) = floors.get(room) else {
            wrong.push(format!(
                "{} stands on no floor: add it to the table and to docs/architecture.md",
                relative.display()
            ));
            continue;
        };
        for module in imports(&fs::read_to_string(file).unwrap()) {
            // `crate::Error` and the like are re-exports of the root.
            if module == room || module.chars().next().is_some_and(char::is_uppercase) {
                continue;
            }
            edges += 1;
            let Some(&below) = floors.get(module.as_str()) else {
                wrong.push(format!("{} names crate::{module}, which stands on no floor", relative.display()));
                continue;
            };
            if below >= floor && !WITHIN.contains(&(room, module.as_str())) {
                wrong.push(format!("{} (floor {floor}) imports {module} (floor {below})", relative.display()));
            }
        }
    }
    assert!(edges > 20, "only {edges} imports found: does the reader still understand the sources?");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_command_line_uses_the_public_api_alone() {
    let bin = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin/ringfence");
    let mut files = Vec::new();
    sources(&bin, &mut files);
    assert!(!files.is_empty());
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        assert!(!source.contains("#[path"), "{} reaches into the library by path", file.display());
        assert!(!source.contains("unsafe"), "{} has unsafe code", file.display());
    }
}

#[test]
fn unsafe_code_stands_in_two_places_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    for file in files {
        let relative = file.strip_prefix(&root).unwrap();
        let may = relative.starts_with("kernel") || relative.starts_with("wire/nftables");
        let source = fs::read_to_string(&file).unwrap();
        let has = source.contains("allow(unsafe_code)") || source.contains("unsafe {");
        assert!(may || !has, "{} has unsafe code", relative.display());
        let blocks = source.matches("unsafe {").count();
        let reasons = source.matches("SAFETY:").count();
        assert!(reasons >= blocks.min(1), "{}: unsafe without a reason", relative.display());
    }
}

#[test]
fn the_reader_of_imports_understands_groups() {
    let source = "use crate::{Error, nft::{Data, Rule}, link};\nlet x = crate::wire::decode(); // crate::proxy";
    assert_eq!(imports(source), ["Error", "nft", "link", "wire"]);
}
