//! Rulesets as JSON documents: what `ringfence rules save` writes and `restore` reads.
//!
//! The document is ours, not nft(8)'s: it holds the kernel's own expressions, so that nothing is lost on the way.
//!
//! ```json
//! {"ringfence":{"schema":1,"ruleset":{"tables":[],"chains":[],"objects":[],"flowtables":[],"sets":[],"elements":[],"rules":[]}}}
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Ruleset;

/// The version of the document's shape that this crate writes, and the only one it reads.
const SCHEMA: u64 = 1;

#[derive(Deserialize)]
struct Document<T> {
    ringfence: T,
}

#[derive(Deserialize)]
struct In {
    #[serde(rename = "schema")]
    _schema: u64,
    ruleset: Ruleset,
}

#[derive(Deserialize)]
struct Schema {
    schema: u64,
}

/// Says what is wrong with a JSON document, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    /// Path to the value: `ringfence.ruleset.tables[0].id.family`. Empty when the text is no JSON at all, or ends too early.
    pub path: String,
    /// What was found and what was expected.
    pub problem: String,
    /// Line, counted from 1; 0 when it is not known.
    pub line: usize,
    /// Column, counted from 1; 0 when it is not known.
    pub column: usize,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "`{}`: ", self.path.escape_debug())?;
        }
        f.write_str(&self.problem)?;
        if self.line > 0 {
            write!(f, " (line {}, column {})", self.line, self.column)?;
        }
        Ok(())
    }
}

impl std::error::Error for JsonError {}

impl Ruleset {
    /// Writes it as a JSON document with a line for each table, chain, set, set's elements and rule.
    ///
    /// Numbers are written as they are, up to all 64 bits of a counter.
    pub fn to_json(&self) -> String {
        let mut text = format!("{{\"ringfence\":{{\"schema\":{SCHEMA},\"ruleset\":{{");
        list(&mut text, "tables", &self.tables);
        list(&mut text, "chains", &self.chains);
        list(&mut text, "objects", &self.objects);
        list(&mut text, "flowtables", &self.flowtables);
        list(&mut text, "sets", &self.sets);
        list(&mut text, "elements", &self.elements);
        list(&mut text, "rules", &self.rules);
        text.push_str("\n}}}\n");
        text
    }

    /// Reads a document that [`Ruleset::to_json`] wrote.
    ///
    /// # Errors
    ///
    /// [`JsonError`] when it is no JSON, of another schema, when one of its lists is missing, or when a value is not what must stand there. A key that nothing
    /// would read is an error too: a misspelled `policy` must not become a default.
    pub fn from_json(text: &str) -> Result<Ruleset, JsonError> {
        let found = parse::<Document<Schema>>(text, |_| {})?.ringfence.schema;
        if found != SCHEMA {
            let problem = format!("found schema {found}, expected {SCHEMA}");
            return Err(JsonError { path: "ringfence.schema".to_owned(), problem, line: 0, column: 0 });
        }
        let mut stray = None;
        let document = parse::<Document<In>>(text, |path| {
            stray.get_or_insert(path);
        })?;
        match stray {
            Some(path) => {
                let problem = "found a key that means nothing here, expected none of that name".to_owned();
                Err(JsonError { path, problem, line: 0, column: 0 })
            }
            None => Ok(document.ringfence.ruleset),
        }
    }
}

/// Writes a list of the ruleset, an item a line.
fn list(text: &mut String, name: &str, items: &[impl Serialize]) {
    text.push_str(if text.ends_with('{') { "\n\"" } else { ",\n\"" });
    text.push_str(name);
    text.push_str("\":[");
    for (index, item) in items.iter().enumerate() {
        text.push_str(if index == 0 { "\n" } else { ",\n" });
        // Can't fail: no map in it has keys that are not text, and writing to memory does not fail.
        text.push_str(&serde_json::to_string(item).unwrap_or_default());
    }
    text.push(']');
}

/// A character as it can stand in a line of text.
fn shown(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_debug());
    let plain = escaped.is_none().then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

/// Reads a document, and tells of each key that nothing reads.
fn parse<T: for<'de> Deserialize<'de>>(text: &str, mut stray: impl FnMut(String)) -> Result<T, JsonError> {
    let mut json = serde_json::Deserializer::from_str(text);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let value = serde_ignored::deserialize(tracked, |path| stray(path.to_string()));
    let fail = |path: String, error: serde_json::Error| {
        // The place stands in fields of its own.
        let place = format!(" at line {} column {}", error.line(), error.column());
        let problem = error.to_string();
        let problem = problem.strip_suffix(&place).unwrap_or(&problem);
        // It quotes what was found, which may move a terminal's cursor.
        let problem = problem.chars().flat_map(shown).collect();
        JsonError { path, problem, line: error.line(), column: error.column() }
    };
    let value = value.map_err(|error| {
        let path = track.path().to_string();
        // The root is "." there, and a place between two values "?".
        fail(if matches!(path.as_str(), "." | "?") { String::new() } else { path }, error)
    })?;
    json.end().map_err(|error| fail(String::new(), error))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = r#"{"ringfence":{"schema":1,"ruleset":{"tables":[{"id":{"family":"inet","name":"t"}}],
        "sets":[],"chains":[],"objects":[],"flowtables":[],"elements":[],"rules":[]}}}"#;

    fn problem(from: &str, to: &str) -> String {
        assert!(TABLE.contains(from));
        Ruleset::from_json(&TABLE.replace(from, to)).unwrap_err().to_string()
    }

    #[test]
    fn a_document_is_read() {
        let ruleset = Ruleset::from_json(TABLE).unwrap();
        assert_eq!(ruleset.tables.len(), 1);
        assert_eq!(Ruleset::from_json(&ruleset.to_json()), Ok(ruleset));
    }

    #[test]
    fn what_an_error_quotes_is_fit_for_a_terminal() {
        let error = problem("\"inet\"", "\"\\u001b[2J\\n\"");
        assert!(!error.contains(char::is_control) && error.contains("\\u{1b}[2J\\n"), "{error:?}");
    }

    #[test]
    fn errors_name_the_path_and_what_was_expected() {
        for (from, to, expected) in [
            (
                "\"inet\"",
                "\"internet\"",
                "`ringfence.ruleset.tables[0].id.family`: unknown variant `internet`, expected one of",
            ),
            ("\"t\"", "7", "`ringfence.ruleset.tables[0].id.name`: invalid type: integer `7`, expected a string"),
            ("\"t\"", "\"\"", "`ringfence.ruleset.tables[0].id.name`: table name `` is empty"),
            ("\"schema\":1", "\"schema\":2", "`ringfence.schema`: found schema 2, expected 1"),
            ("\"schema\":1", "\"schema\":-1", "`ringfence.schema`: invalid value: integer `-1`, expected u64"),
            ("\"rules\":[]", "\"rules\":[],\"rulez\":[]", "`ringfence.ruleset.rulez`: found a key that means nothing"),
            ("\"rules\":[]", "\"sets\":[]", "`ringfence.ruleset`: duplicate field `sets`"),
            ("\"objects\":[],", "", "`ringfence.ruleset`: missing field `objects`"),
            ("\"flowtables\":[],", "", "`ringfence.ruleset`: missing field `flowtables`"),
            (",\"elements\":[]", "", "`ringfence.ruleset`: missing field `elements`"),
            ("}}}", "}}", "EOF while parsing an object"),
            ("}}}", "}}}}", "trailing characters"),
        ] {
            let problem = problem(from, to);
            assert!(problem.starts_with(expected), "{problem}\n{expected}");
        }
    }

    #[test]
    fn what_would_not_fit_a_register_is_refused() {
        let rule = |register: &str| {
            let rule = format!(
                r#""rules":[{{"table":{{"family":"inet","name":"t"}},"chain":"c","exprs":[{{"meta":{{"key":"oif","dreg":{register}}}}}]}}]"#
            );
            Ruleset::from_json(&TABLE.replace("\"rules\":[]", &rule))
        };
        assert!(rule("15").is_ok());
        let error = rule("16").unwrap_err().to_string();
        assert!(error.contains("dreg") && error.contains("expected a register below 16"), "{error}");
    }
}
