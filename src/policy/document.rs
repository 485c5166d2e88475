//! Holds `docs/policy.md` to what the parsers do.

use std::path::Path;

use super::*;

const DOCUMENT: &str = include_str!("../../docs/policy.md");

/// The fenced blocks of the document: what stands behind the fence, and the lines within.
fn blocks() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut blocks = Vec::new();
    let mut lines = DOCUMENT.lines();
    while let Some(line) = lines.next() {
        if let Some(info) = line.strip_prefix("```") {
            blocks.push((info, lines.by_ref().take_while(|line| *line != "```").collect()));
        }
    }
    blocks
}

#[test]
fn the_example_file_uses_every_key_that_goes_with_the_others() {
    let examples: Vec<_> = blocks().into_iter().filter(|(info, _)| *info == "toml").collect();
    let [(_, example)] = examples.as_slice() else { panic!("one example file is due, not {}", examples.len()) };
    let text = example.join("\n");
    let layer = Layer::from_toml(text.as_bytes(), Path::new("example.toml")).unwrap();
    let Settings { policy, run } = Settings::from_layers([layer]).unwrap();
    assert_eq!((policy.allow.len(), policy.direct.len(), run.env.len()), (4, 5, 2));
    assert_eq!(policy.proxy.unwrap().value.credentials.unwrap().password(), "p@ss");
    assert_eq!(policy.pool.value, crate::link::Pool::default(), "the document names the default pool");
    for key in Key::ALL.into_iter().filter(|key| !matches!(key, Key::ProxyAt | Key::DropCaps | Key::Learn)) {
        let (value, table) = (format!("{key} = "), format!("[{key}]"));
        let tables = format!("[[{key}]]");
        let says = |line: &&str| line.starts_with(&value) || **line == table || **line == tables;
        assert!(example.iter().any(says), "{key} is missing");
    }
}

#[test]
fn every_spelling_is_accepted() {
    let mut keys = 0;
    for (info, lines) in blocks() {
        let Some(name) = info.strip_prefix("text ").filter(|name| *name != "refused") else { continue };
        let key = Key::named(name).unwrap_or_else(|| panic!("{name} is no key"));
        keys += 1;
        for line in lines {
            Layer::new().flag(key, line).unwrap();
        }
    }
    assert_eq!(keys, 25);
}

#[test]
fn every_error_is_what_is_printed() {
    let refused: Vec<_> = blocks().into_iter().filter(|(info, _)| *info == "text refused").collect();
    let [(_, lines)] = refused.as_slice() else { panic!("one block of errors is due") };
    for pair in lines.chunks(2) {
        let [given, error] = pair else { panic!("{pair:?} is half a pair") };
        let (flag, text) = given.split_once(' ').unwrap();
        let key = Key::named(flag.trim_start_matches("--")).unwrap();
        assert_eq!(Layer::new().flag(key, text).unwrap_err().to_string(), *error);
    }
}

#[test]
fn every_key_and_variable_is_listed() {
    for key in Key::ALL {
        let row = format!("| `{}` |", key.name());
        assert!(DOCUMENT.contains(&row) && DOCUMENT.contains(&format!("| `--{key}")), "{key}");
    }
    for variable in Variables::names() {
        assert!(DOCUMENT.contains(variable), "{variable}");
    }
}
