//! Rulesets as JSON documents: what `ringfence rules save` writes and `restore` reads.
//!
//! The document is ours, not nft(8)'s: it holds the kernel's own expressions, so that nothing is lost on the way.
//!
//! ```json
//! {"ringfence":{"schema":1,"ruleset":{"tables":[],"chains":[],"objects":[],"flowtables":[],"sets":[],"elements":[],"rules":[]}}}
//! ```

mod place;
mod words;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::error::Category;

use self::place::Step;
pub(super) use self::words::excerpt;
use super::{Ruleset, Transaction};

/// The version of the document's shape that this crate writes, and the only one it reads.
const SCHEMA: u64 = 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    ringfence: Body,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(rename = "schema")]
    _schema: Schema,
    ruleset: Ruleset,
}

/// A document of whatever schema.
#[derive(Deserialize)]
struct AnyDocument {
    #[serde(rename = "ringfence")]
    _ringfence: AnyBody,
}

#[derive(Deserialize)]
struct AnyBody {
    #[serde(rename = "schema")]
    _schema: Schema,
}

/// The one schema.
struct Schema;

impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            SCHEMA => Ok(Self),
            found => Err(de::Error::custom(format_args!("found schema {found}, expected {SCHEMA}"))),
        }
    }
}

/// Says what is wrong with a JSON document, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    /// Path to the value: `ringfence.ruleset.tables[0].id.family`. Empty when the text is no JSON at all, or ends too early.
    pub path: String,
    /// What was found and what was expected.
    pub problem: String,
    /// Line, counted from 1: where the value begins, or where the text ends to be JSON.
    pub line: usize,
    /// Column, counted in bytes from 1; 0 where nothing stands in that line.
    pub column: usize,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "`{}`: ", self.path.escape_debug())?;
        }
        write!(f, "{} (line {}, column {})", self.problem, self.line, self.column)
    }
}

impl std::error::Error for JsonError {}

impl JsonError {
    /// Says of an operation where in the document that its transaction was made of it stands: [`Ruleset::create`] and
    /// [`Ruleset::replace`] of what [`Ruleset::from_json`] read. The kernel's and the encoder's errors tell which operation it was.
    ///
    /// `None` when nothing in the document has asked for it, as for the flush with which a replacement begins.
    ///
    /// Reads the document once more, so that nothing has to be noted for the case that something goes wrong.
    pub fn of_operation(text: &str, transaction: &Transaction, operation: usize, problem: &str) -> Option<JsonError> {
        let ruleset = Ruleset::from_json(text).ok()?;
        let steps = place::origin(&ruleset, transaction.operations(), operation)?;
        let (line, column) = place::find(text, &steps)?;
        let problem = problem.chars().flat_map(shown).collect();
        Some(JsonError { path: place::shown(&steps), problem, line, column })
    }

    /// Says what serde found wrong at the value that the steps lead to.
    fn explain(text: &str, steps: &[Step], error: &serde_json::Error) -> JsonError {
        let at = (error.line(), error.column());
        let begin = place::find(text, steps);
        // The place stands in fields of its own.
        let problem = error.to_string();
        let problem = problem.strip_suffix(&format!(" at line {} column {}", at.0, at.1)).unwrap_or(&problem);
        let (problem, (line, column)) = match error.classify() {
            // Of a key that is there twice it knows the second.
            Category::Data if problem.starts_with("duplicate field") => (words::of_data(problem), at),
            // It tells where it was when it found out: behind the value, and often in a line behind it.
            Category::Data => (words::of_data(problem), begin.unwrap_or(at)),
            _ => (words::of_syntax(text, problem, at, begin).unwrap_or_else(|| problem.to_owned()), at),
        };
        // It quotes what was found, which may move a terminal's cursor.
        let problem = problem.chars().flat_map(shown).collect();
        JsonError { path: place::shown(steps), problem, line, column }
    }
}

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
    /// [`JsonError`] when it is no JSON, of another schema, when one of its lists is missing, or when a value is not what must stand
    /// there. A key that nothing would read is an error too: a misspelled `policy` must not become a default.
    pub fn from_json(text: &str) -> Result<Ruleset, JsonError> {
        let read = parse::<Document>(text).map(|document| document.ringfence.ruleset);
        // The schema first, wherever it stands: what else a document of another one has is none of our business.
        read.map_err(|error| match parse::<AnyDocument>(text) {
            Err(schema) if schema.path == "ringfence.schema" => schema,
            _ => error,
        })
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

/// Reads a document.
fn parse<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, JsonError> {
    let mut json = serde_json::Deserializer::from_str(text);
    let mut track = serde_path_to_error::Track::new();
    let read = T::deserialize(serde_path_to_error::Deserializer::new(&mut json, &mut track));
    let value = read.map_err(|error| JsonError::explain(text, &place::steps(&track.path()), &error))?;
    json.end().map_err(|error| JsonError::explain(text, &[], &error))?;
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
                "`ringfence.ruleset.tables[0].id.family`: found `internet`, expected one of `ip`, `ip6`",
            ),
            ("\"t\"", "7", "`ringfence.ruleset.tables[0].id.name`: found integer `7`, expected a string"),
            ("\"t\"", "\"\"", "`ringfence.ruleset.tables[0].id.name`: table name `` is empty"),
            ("\"schema\":1", "\"schema\":2", "`ringfence.schema`: found schema 2, expected 1"),
            ("\"schema\":1", "\"schema\":-1", "`ringfence.schema`: found integer `-1`, expected a whole number"),
            (
                "\"rules\":[]",
                "\"rules\":[],\"rulez\":[]",
                "`ringfence.ruleset.rulez`: found key `rulez`, expected one of `tables`, `chains`",
            ),
            ("\"rules\":[]", "\"sets\":[]", "`ringfence.ruleset`: found key `sets` twice, expected it once"),
            (
                "\"objects\":[],",
                "",
                "`ringfence.ruleset`: found no key `objects`, expected it here (line 1, column 36)",
            ),
            ("\"flowtables\":[],", "", "`ringfence.ruleset`: found no key `flowtables`"),
            (",\"elements\":[]", "", "`ringfence.ruleset`: found no key `elements`"),
            (
                "\"t\"}",
                "\"t\",\"\\u001b\":1}",
                "`ringfence.ruleset.tables[0].id.\\u{1b}`: found key `\\u{1b}`, expected `family` or",
            ),
            ("}}}", "}}", "EOF while parsing an object"),
            ("}}}", "}}}}", "found `}`, expected nothing more"),
            ("}}}", "};}}", "`ringfence`: found `;`, expected `,` or `}`"),
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

    /// A document with an object of every kind that there is.
    const WHOLE: &str = r#"{"ringfence":{"schema":1,"ruleset":{
        "tables":[{"id":{"family":"inet","name":"t"},"flags":{"dormant":false},"comment":"x",
            "extra":{"user_data":"0x00","attributes":[{"kind":9,"value":"0x01"}]}}],
        "chains":[{"table":{"family":"inet","name":"t"},"name":"c","flags":{"offload":false},
            "base":{"type":"filter","hook":"input","priority":0,"policy":"accept","devices":["eth0"]}}],
        "objects":[
            {"table":{"family":"inet","name":"t"},"name":"o","state":{"counter":{"packets":1,"bytes":2}}},
            {"table":{"family":"inet","name":"t"},"name":"o","state":{"quota":{"bytes":1}}},
            {"table":{"family":"inet","name":"t"},"name":"o","state":{"limit":{"rate":1,"seconds":1,"burst":5}}},
            {"table":{"family":"inet","name":"t"},"name":"o","state":{"connlimit":{"count":1,"over":true}}},
            {"table":{"family":"inet","name":"t"},"name":"o","state":{"ct-helper":{"helper":"ftp","l3proto":2,"l4proto":6}}},
            {"table":{"family":"inet","name":"t"},"name":"o","state":{"ct-timeout":{"l3proto":2,"l4proto":6,"seconds":[[7,120]]}}},
            {"table":{"family":"inet","name":"t"},"name":"o",
                "state":{"ct-expectation":{"l4proto":6,"dport":5,"timeout":{"secs":1,"nanos":0},"size":1}}},
            {"table":{"family":"inet","name":"t"},"name":"o","state":{"synproxy":{"mss":1,"wscale":1,"flags":0}}},
            {"table":{"family":"inet","name":"t"},"name":"o","state":{"raw":{"kind":77,"data":"0x"}}}],
        "flowtables":[{"table":{"family":"inet","name":"t"},"name":"f","priority":0,"devices":["eth0"]}],
        "sets":[{"table":{"family":"inet","name":"t"},"name":"s","key":["ipv4_addr",{"other":{"number":4,"size":4}}],
            "data":{"object":"counter"},"flags":{"timeout":true},"timeout":{"secs":1,"nanos":0},"exprs":[]}],
        "elements":[[{"family":"inet","name":"t"},"s",[{"key":[1,2],"data":{"verdict":{"jump":"c"}},"expires":{"secs":1,"nanos":0}}]]],
        "rules":[{"table":{"family":"inet","name":"t"},"chain":"c","comment":"x","handle":1,"position":2,"exprs":[
            {"payload-write":{"base":"network","offset":0,"len":1,"sreg":0,"checksum":{"kind":1}}},
            {"hash":{"of":{"jenkins":{"sreg":0,"len":4,"seed":null}},"modulus":2,"dreg":0}},
            {"bitwise":{"sreg":0,"dreg":0,"len":4,"op":{"mask-xor":{"mask":[0],"xor":[0]}}}},
            {"cmp":{"op":"eq","sreg":0,"data":[1]}},
            {"dynset":{"set":"s","op":"add","key":0,"exprs":[{"counter":{"packets":1,"bytes":1}}]}},
            {"log":{"group":1,"prefix":"p","snaplen":null,"queue_threshold":null}},
            {"syslog":{"prefix":null,"level":"debug"}},
            {"reject":{"icmpx":"no-route"}},
            {"masquerade":{"ports":{"min":0,"max":1},"flags":0}},
            {"nat":{"kind":"source","family":"ip","addresses":{"min":0,"max":0}}},
            {"queue":{"to":{"range":{"first":1,"total":2}}}},
            {"fwd":{"device":0,"neighbour":[1,"ip"]}},
            {"object-ref":{"kind":"quota","name":"o"}},
            {"match":{"name":"m","revision":0,"info":"0x"}},
            {"raw":{"name":"n","data":"0x"}},
            "notrack",
            {"verdict":"accept"}]}]}}}"#;

    type Json = serde_json::Value;

    /// Changes every value of the document, one after the other, and tells what came of it: the changed text, and its error.
    fn each_changed(change: &dyn Fn(&mut Json) -> bool, told: &mut dyn FnMut(&str, Option<JsonError>)) -> usize {
        fn values(value: &Json, at: &str, found: &mut Vec<String>) {
            found.push(at.to_owned());
            match value {
                Json::Object(map) => map.iter().for_each(|(key, value)| values(value, &format!("{at}/{key}"), found)),
                Json::Array(list) => {
                    list.iter().enumerate().for_each(|(index, value)| values(value, &format!("{at}/{index}"), found));
                }
                _ => {}
            }
        }
        let whole: Json = serde_json::from_str(WHOLE).unwrap();
        let (mut places, mut changed) = (Vec::new(), 0);
        values(&whole, "", &mut places);
        for place in places {
            let mut document = whole.clone();
            if change(document.pointer_mut(&place).unwrap()) {
                changed += 1;
                let text = serde_json::to_string_pretty(&document).unwrap();
                told(&text, Ruleset::from_json(&text).err());
            }
        }
        changed
    }

    #[test]
    fn no_object_takes_a_key_that_nothing_reads_and_its_line_is_told() {
        Ruleset::from_json(WHOLE).unwrap();
        let stray = |value: &mut Json| {
            let object = value.as_object_mut();
            object.map(|object| object.insert("zzz".to_owned(), Json::Null)).is_some()
        };
        let objects = each_changed(&stray, &mut |text, error| {
            let error = error.unwrap_or_else(|| panic!("taken: {text}"));
            let line = 1 + text.lines().position(|line| line.contains("\"zzz\"")).unwrap();
            if error.problem == "found `,`, expected `}`" {
                // Of several kinds of values, one alone: it stops at the comma, in the line before.
                assert!(error.line == line || error.line + 1 == line, "{error}\n{text}");
            } else {
                assert!(error.path.ends_with("zzz"), "{error}\n{text}");
                assert!(error.problem.starts_with("found key `zzz`, expected "), "{error}\n{text}");
                assert_eq!(error.line, line, "{error}\n{text}");
            }
        });
        assert!(objects > 80, "{objects}");
    }

    #[test]
    fn no_error_speaks_of_types_of_this_crate() {
        let long = "x".repeat(10_000);
        let wrong = [r#"7"#, r#""x""#, "[]", "{}", "null", "true", "-1", "1.5", "[[1,2],3]", "{\"x\":1}", "4294967296"];
        let wrong =
            wrong.into_iter().map(|wrong| serde_json::from_str(wrong).unwrap()).chain([Json::String(long.clone())]);
        for wrong in wrong {
            each_changed(
                &|value| {
                    *value = wrong.clone();
                    true
                },
                &mut |text, error| {
                    let Some(error) = error else { return };
                    let told = error.to_string();
                    for word in
                        ["struct", "variant", "enum", "tuple", "untagged", "u8", "u16", "u32", "u64", "i32", "::"]
                    {
                        assert!(!told.contains(word), "{told}");
                    }
                    assert!(error.line > 0 && error.problem.len() < 2000, "{told}");
                    let of_its_own = error.problem.contains(" `") || error.problem.contains("register data");
                    assert!(told.contains("found") && told.contains("expected") || of_its_own, "{told}");
                    let line = text.lines().nth(error.line - 1).unwrap();
                    assert!((1..=line.len()).contains(&error.column), "{told}\n{line}");
                },
            );
        }
        // As a key, too.
        let text = TABLE.replace("\"family\"", &format!("\"{long}\""));
        assert!(Ruleset::from_json(&text).unwrap_err().to_string().len() < 500);
    }

    #[test]
    fn what_is_wrong_is_told_in_words_of_the_document() {
        for (from, to, expected) in [
            ("[[7,120]]", "[[7,120,120]]", "seconds[0]`: found `120`, expected `]`"),
            ("[[7,120]]", "[[7]]", "seconds[0]`: found an array of length 1, expected an array of 2 values"),
            ("{\"dormant\":false}", "7", "tables[0].flags`: found integer `7`, expected an object"),
            (
                "\"object\":\"counter\"",
                "\"object\":-1",
                "data.object`: found integer `-1`, expected a type of stateful objects",
            ),
            (
                "\"object\":\"counter\"",
                "\"object\":\"count\"",
                "data.object`: found `count`, expected one of `counter`, ",
            ),
            ("{\"verdict\":\"accept\"}", "{\"verdict\":7}", "found `7`, expected a word or an object"),
            (
                "{\"verdict\":\"accept\"}",
                "{\"verdict\":\"jump\"}",
                "found a word alone, expected an object with that key",
            ),
            ("{\"verdict\":\"accept\"}", "{\"verdict\":\"accept\" \"x\"}", "found `\"x\"`, expected `}`"),
            ("{\"verdict\":\"accept\"}", "{ }", "exprs[16]`: found `}`, expected a key"),
            ("\"mask\":[0]", "7:[0]", "mask-xor`: found `7`, expected a key"),
            ("\"mask\":[0]", "\"mask\":[0,]", "mask`: found `]` behind a comma, expected one more"),
            ("{\"verdict\":\"accept\"}", "{\"reject\":{\"icmp\":7,\"x\":1}}", "found `,`, expected `}`"),
        ] {
            assert!(WHOLE.contains(from), "{from}");
            let error = Ruleset::from_json(&WHOLE.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}\n{expected}");
        }
        assert_eq!(excerpt(&"é".repeat(65)), format!("{}…", "é".repeat(64)));
    }
}
