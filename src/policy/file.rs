//! Policy files: TOML, in which every flag has a key of the same name.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::layer::Arity;
use super::near::nearest;
use super::{Credential, EnvVar, Key, Layer, Origin, PolicyError};

impl Layer {
    /// How long a policy file may be, in bytes.
    pub const MAX_FILE: usize = 1 << 20;

    /// Parses the bytes of a policy file. The path is not opened: it is what errors and origins say.
    ///
    /// # Errors
    /// Whatever is not UTF-8, TOML, a known key, or a value of the key's; more than [`MAX_FILE`](Self::MAX_FILE) bytes
    /// or [`MAX_ENTRIES`](Self::MAX_ENTRIES) entries. The error's origin is the exact place, of an entry inside a list
    /// too; of several errors it is the first of the file.
    pub fn from_toml(bytes: &[u8], path: &Path) -> Result<Self, PolicyError> {
        if bytes.len() > Self::MAX_FILE {
            return Err(PolicyError::new(
                format!("at most the {} of a policy file", Self::MAX_FILE),
                format!("{} bytes", bytes.len()),
            )
            .at(Origin::File { path: path.into(), line: 1, column: 1 }));
        }
        // A mark of the byte order is no character of the first line.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let places = Places::new(bytes, path);
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let at = error.valid_up_to();
            PolicyError::new("UTF-8 text", format!("byte 0x{:02x}", bytes[at])).at(places.origin(at))
        })?;
        let document = DeTable::parse(text).map_err(|error| not_toml(&error, text, &places))?;
        let mut layer = Layer::new();
        for (key, value) in in_order(document.get_ref()) {
            let name = key.get_ref();
            let origin = places.origin(key.span().start);
            let Some(known) = Key::named(name) else {
                let error = PolicyError::new("a key of a policy file", name.as_ref()).at(origin);
                return Err(match nearest(name, Key::ALL.map(Key::name)) {
                    Some(near) => error.because(format!("did you mean `{near}`?")),
                    None => error.because(format!("there are {}", Key::ALL.map(Key::name).join(", "))),
                });
            };
            read(&mut layer, known, value, &places)?;
        }
        Ok(layer)
    }
}

/// Adds the value of one key.
fn read(layer: &mut Layer, key: Key, value: &Spanned<DeValue<'_>>, places: &Places<'_>) -> Result<(), PolicyError> {
    let origin = places.origin(value.span().start);
    match (key.arity(), value.get_ref()) {
        (Arity::Switch, DeValue::Boolean(on)) => layer.add(key, if *on { "true" } else { "false" }, &origin),
        (Arity::One | Arity::Many, DeValue::String(text)) => layer.add(key, text, &origin),
        (Arity::One, DeValue::Integer(number)) if key == Key::DnsGrace => layer.add(key, &number.to_string(), &origin),
        (Arity::Many, DeValue::Array(items)) if key == Key::KeepCaps && items.is_empty() => {
            Err(PolicyError::new("a list of capabilities to keep", "keep-caps = []")
                .because("to keep none, write `drop-caps = true`")
                .at(origin))
        }
        (Arity::Many, DeValue::Array(items)) => {
            layer.declare(key);
            for item in items {
                let origin = places.origin(item.span().start);
                match item.get_ref() {
                    DeValue::String(text) => layer.add(key, text, &origin)?,
                    DeValue::Table(parts) if key == Key::Credential => credential(layer, parts, &origin, places)?,
                    other => return Err(wrong_type(key, other, "a string in the list").at(origin)),
                }
            }
            Ok(())
        }
        (Arity::Many, DeValue::Table(parts)) if key == Key::Credential => credential(layer, parts, &origin, places),
        (Arity::Many, DeValue::Table(variables)) if key == Key::Env => {
            layer.declare(key);
            for (name, value) in in_order(variables) {
                let origin = places.origin(value.span().start);
                let DeValue::String(text) = value.get_ref() else {
                    return Err(PolicyError::new(
                        "a string",
                        format!("env.{} = {}", name.get_ref(), type_of(value.get_ref())),
                    )
                    .because("write it in quotes")
                    .at(origin));
                };
                EnvVar::new(name.get_ref(), text)
                    .map_err(|error| error.at(places.origin(name.span().start)))
                    .and_then(|variable| layer.push_env(variable, &origin).map_err(|error| error.at(origin)))?;
            }
            Ok(())
        }
        (arity, other) => {
            let expected = match (arity, key) {
                (Arity::Switch, _) => "`true` or `false` without quotes",
                (Arity::One, Key::DnsGrace) => "whole seconds",
                (Arity::One, _) => "a string",
                (Arity::Many, Key::Env) => "a string, a list of strings, or a table",
                (Arity::Many, Key::Credential) => "a string, a table, or a list of these (`[[credential]]`)",
                (Arity::Many, _) => "a string, or a list of strings",
            };
            Err(wrong_type(key, other, expected).at(origin))
        }
    }
}

/// Adds a credential that is written as a table.
fn credential(layer: &mut Layer, parts: &DeTable<'_>, origin: &Origin, places: &Places<'_>) -> Result<(), PolicyError> {
    const KEYS: [&str; 4] = ["name", "from", "to", "in"];
    let mut said: [Vec<&str>; 4] = Default::default();
    for (key, value) in in_order(parts) {
        let at = places.origin(value.span().start);
        let name = key.get_ref().as_ref();
        let Some(index) = KEYS.iter().position(|known| *known == name) else {
            let error = PolicyError::new("a key of a credential", name).at(places.origin(key.span().start));
            return Err(error.because(format!("there are {}", KEYS.join(", "))));
        };
        match value.get_ref() {
            DeValue::String(text) => said[index].push(text),
            DeValue::Array(items) if index >= 2 => {
                for item in items {
                    let DeValue::String(text) = item.get_ref() else {
                        let at = places.origin(item.span().start);
                        return Err(wrong_type(Key::Credential, item.get_ref(), "a string in the list").at(at));
                    };
                    said[index].push(text);
                }
            }
            other => {
                let expected = if index < 2 { "a string" } else { "a string, or a list of strings" };
                return Err(PolicyError::new(expected, format!("credential.{name} = {}", type_of(other))).at(at));
            }
        }
    }
    let [name, from, to, parts] = said;
    let missing =
        |what: &str| PolicyError::new("a credential", "[[credential]]").because(format!("`{what}` is missing"));
    let one = |list: &[&'_ str], what: &str| list.first().copied().map(str::to_owned).ok_or_else(|| missing(what));
    one(&name, "name")
        .and_then(|name| Ok((name, one(&from, "from")?)))
        .and_then(|(name, from)| Credential::from_parts(&name, &from, &to, &parts))
        .and_then(|credential| layer.push_credential(credential, origin))
        .map_err(|error| error.at(origin.clone()))
}

/// The value is left out: it may be a list with a password somewhere in it.
fn wrong_type(key: Key, value: &DeValue<'_>, expected: &str) -> PolicyError {
    let error = PolicyError::new(expected, format!("{key} = {}", type_of(value)));
    match value {
        // Nothing becomes whole in quotes.
        _ if key == Key::DnsGrace => error,
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Datetime(_) => error.because("write it in quotes"),
        _ => error,
    }
}

fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "<string>",
        DeValue::Integer(_) => "<integer>",
        DeValue::Float(_) => "<float>",
        DeValue::Boolean(_) => "<boolean>",
        DeValue::Datetime(_) => "<datetime>",
        DeValue::Array(_) => "<list>",
        DeValue::Table(_) => "<table>",
    }
}

/// The entries of a table as the file has them: the parser sorts by name, and errors come in the order of the file.
fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(&'t Spanned<toml::de::DeString<'i>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// What the TOML parser says, on one line. Of the file it quotes one character, or a key that stands twice: the rest may
/// be a password.
fn not_toml(error: &toml::de::Error, text: &str, places: &Places<'_>) -> PolicyError {
    let span = error.span().unwrap_or(text.len()..text.len());
    let at = (0..=span.start.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let origin = places.origin(at);
    if error.message().starts_with("duplicate key") {
        let key = text.get(span).unwrap_or_default();
        return PolicyError::new("possible twice", key).because("a key stands once in a file").at(origin);
    }
    let found = text[at..].chars().next().map_or("the end of the file".into(), String::from);
    PolicyError::new("TOML here", found).because(error.message()).at(origin)
}

/// Lines and columns of a text, each found in logarithmic time: a file of one long line has as many places as entries.
struct Places<'a> {
    path: &'a Path,
    /// Where lines start.
    lines: Vec<usize>,
    /// Where bytes stand that continue a character.
    continuations: Vec<usize>,
}

impl<'a> Places<'a> {
    fn new(bytes: &[u8], path: &'a Path) -> Self {
        let at =
            |wanted: fn(u8) -> bool| bytes.iter().enumerate().filter(move |(_, byte)| wanted(**byte)).map(|(at, _)| at);
        let lines = std::iter::once(0).chain(at(|byte| byte == b'\n').map(|newline| newline + 1)).collect();
        Self { path, lines, continuations: at(|byte| byte & 0xc0 == 0x80).collect() }
    }

    fn origin(&self, at: usize) -> Origin {
        let line = self.lines.partition_point(|start| *start <= at);
        let start = self.lines[line - 1];
        let before = |at: usize| self.continuations.partition_point(|continuation| *continuation < at);
        Origin::File { path: self.path.into(), line, column: at - start - (before(at) - before(start)) + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Capabilities, Settings};

    fn parse(text: &str) -> Result<Layer, String> {
        Layer::from_toml(text.as_bytes(), Path::new("p.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_is_read_from_its_place() {
        let text = r#"# comment
allow = ["example.com:443", "*.example.org"]
proxy = "http://u:secret@proxy.example:3128"
direct = "a:1,b:2"
direct-udp = [
    "c:3",
    # ä
    "d:4", "e:5",
]

direct-host = "f"
dns = "off"
audit = true
pool = ["10.1.0.0/16", "fd00::/64"]
user = "1000:100"
name = "box"
share-pid = true
keep-caps = ["kill", "CAP_CHOWN"]
env = { B = "ä,2", A = "" }
"#;
        let Settings { policy, run } = Settings::from_layers([parse(text).unwrap()]).unwrap();
        let places: Vec<_> =
            policy.direct.iter().map(|e| format!("{} {}/{}", e.origin, e.value, e.value.transport)).collect();
        assert_eq!(
            places,
            [
                "p.toml:4:10 a:1/tcp",
                "p.toml:4:10 b:2/tcp",
                "p.toml:6:5 c:3/udp",
                "p.toml:8:5 d:4/udp",
                "p.toml:8:12 e:5/udp",
                "p.toml:11:15 f:443/tcp"
            ]
        );
        let places: Vec<_> = policy.allow.iter().map(|e| format!("{} {}", e.origin, e.value)).collect();
        assert_eq!(places, ["p.toml:2:10 example.com:443", "p.toml:2:29 *.example.org"]);
        let proxy = policy.proxy.unwrap();
        assert_eq!(
            (proxy.origin.to_string().as_str(), proxy.value.credentials.unwrap().password()),
            ("p.toml:3:9", "secret")
        );
        assert_eq!((policy.dns.value.to_string().as_str(), policy.audit.value), ("off", true));
        assert_eq!(policy.pool.origin.to_string(), "p.toml:14:9");
        assert_eq!(
            (policy.pool.value.v4.to_string().as_str(), policy.pool.value.v6.to_string().as_str()),
            ("10.1.0.0/16", "fd00::/64")
        );
        assert_eq!(run.user.unwrap().value.to_string(), "1000:100");
        assert_eq!((run.name.unwrap().value.as_str(), run.share_pid.value), ("box", true));
        assert!(matches!(&run.capabilities.value, Capabilities::Keep(kept) if kept.len() == 2));
        let env: Vec<_> = run.env.iter().map(|variable| format!("{} {}", variable.origin, variable.value)).collect();
        assert_eq!(env, ["p.toml:19:13 B=ä,2", "p.toml:19:24 A="]);
    }

    #[test]
    fn the_environment_has_three_forms() {
        for text in ["env = 'A=1,2'", "env = ['A=1,2']", "env = { A = '1,2' }", "[env]\nA = '1,2'", "env.A = '1,2'"] {
            let settings = Settings::from_layers([parse(text).unwrap()]).unwrap();
            assert_eq!(settings.run.env[0].value.to_string(), "A=1,2", "{text}");
        }
    }

    #[test]
    fn a_credential_is_a_table_or_a_string() {
        let table =
            "allow = 'a'\n[[credential]]\nname = 'T'\nfrom = 'env:X'\nto = ['a', 'GET https://b/*']\nin = 'header'\n";
        let string = "allow = 'a'\ncredential = 'T=env:X,to=a,to=GET https://b/*,in=header'";
        let read = |text: &str| {
            let policy = Settings::from_layers([parse(text).unwrap()]).unwrap().policy;
            policy.credentials.into_iter().map(|credential| credential.value).collect::<Vec<_>>()
        };
        assert_eq!(read(table), read(string));
        assert_eq!(read(&table.replace("[[credential]]", "[credential]")), read(string));
        for (text, error) in [
            (
                "[[credential]]\nname = 'T'\nvalue = 's3cr3t'",
                "p.toml:3:1: `value` is not a key of a credential (there are name, from, to, in)",
            ),
            (
                "[[credential]]\nname = 'T'\nto = 'a'",
                "p.toml:1:1: `[[credential]]` is not a credential (`from` is missing)",
            ),
            ("[[credential]]\nname = 'T'\nfrom = 'env:X'", "(`to` is missing: where may it go?)"),
            (
                "allow = 'a'\n[credential]\nname = 'T'",
                "p.toml:2:1: `[[credential]]` is not a credential (`from` is missing)",
            ),
            ("credential = 1", "p.toml:1:14: `credential = <integer>` is not a string, a table, or a list of these"),
            ("[[credential]]\nname = 1", "p.toml:2:8: `credential.name = <integer>` is not a string"),
            (
                "[[credential]]\nto = [1]",
                "p.toml:2:7: `credential = <integer>` is not a string in the list (write it in quotes)",
            ),
            ("[[credential]]\nname = 'T'\nfrom = 's3cr3t'\nto = 'a'", "p.toml:1:1: `…` is not the source of a secret"),
        ] {
            let found = parse(text).unwrap_err();
            assert!(found.contains(error) && !found.contains("s3cr3t"), "{text}: {found}");
        }
        let contradiction = |text: &str| Settings::from_layers([parse(text).unwrap()]).unwrap_err().to_string();
        let one = "credential = 'T=env:X,to=a'";
        for (text, error) in [
            (
                one.to_owned(),
                "p.toml:1:14: `T` is not possible without the built-in proxy (the built-in proxy puts it in, and is there with `allow` or `proxy` alone)",
            ),
            (
                "allow = 'a'\ncredential = ['T=env:X,to=a', 'T=env:Y,to=a']".to_owned(),
                "p.toml:2:31: `T` is not the only credential of its name (p.toml:2:15 says another)",
            ),
            (
                format!("allow = 'a'\n{one}\nenv = 'T=1'"),
                "p.toml:2:14: `T` is not a variable for a placeholder (p.toml:3:7 sets it to something else)",
            ),
        ] {
            assert_eq!(contradiction(&text), error);
        }
    }

    #[test]
    fn mistakes_are_told_at_their_place() {
        for (text, error) in [
            ("alow = 'a'", "p.toml:1:1: `alow` is not a key of a policy file (did you mean `allow`?)"),
            (
                "\n  direct_udp = 'a:1'",
                "p.toml:2:3: `direct_udp` is not a key of a policy file (did you mean `direct-udp`?)",
            ),
            (
                "policy = 'a'",
                "p.toml:1:1: `policy` is not a key of a policy file (there are allow, credential, sni, proxy, proxy-at, direct, direct-udp, direct-host, dns, dns-grace, private-name, audit, tampering, pool, user, env, name, share-pid, drop-caps, keep-caps, landlock, ro, rw, seccomp, events, events-format, metrics, learn)",
            ),
            (
                "[sandbox]\nname = 'a'",
                "p.toml:1:2: `sandbox` is not a key of a policy file (there are allow, credential, sni, proxy, proxy-at, direct, direct-udp, direct-host, dns, dns-grace, private-name, audit, tampering, pool, user, env, name, share-pid, drop-caps, keep-caps, landlock, ro, rw, seccomp, events, events-format, metrics, learn)",
            ),
            (
                "allow = ['a', 'b c', '']",
                "p.toml:1:15: `b c` is not a destination `HOST[:PORT]` (` ` is no character of a name)",
            ),
            (
                "# ä\nallow = ['a',\n 'b',\t'-']",
                "p.toml:3:7: `-` is not a destination `HOST[:PORT]` (the label `-` starts or ends with a hyphen)",
            ),
            ("allow = ['a', 1]", "p.toml:1:15: `allow = <integer>` is not a string in the list (write it in quotes)"),
            ("allow = [['a']]", "p.toml:1:10: `allow = <list>` is not a string in the list"),
            ("allow = true", "p.toml:1:9: `allow = <boolean>` is not a string, or a list of strings"),
            ("allow = { a = 'b' }", "p.toml:1:9: `allow = <table>` is not a string, or a list of strings"),
            (
                "env = 1",
                "p.toml:1:7: `env = <integer>` is not a string, a list of strings, or a table (write it in quotes)",
            ),
            ("env = { A = 1 }", "p.toml:1:13: `env.A = <integer>` is not a string (write it in quotes)"),
            (
                "env = { '=' = 'secret' }",
                "p.toml:1:9: `=` is not a variable `NAME=VALUE` (a name has neither `=` nor control characters)",
            ),
            ("dns = ['off']", "p.toml:1:7: `dns = <list>` is not a string"),
            ("user = 1000", "p.toml:1:8: `user = <integer>` is not a string (write it in quotes)"),
            ("audit = 'true'", "p.toml:1:9: `audit = <string>` is not `true` or `false` without quotes"),
            (
                "keep-caps = []",
                "p.toml:1:13: `keep-caps = []` is not a list of capabilities to keep (to keep none, write `drop-caps = true`)",
            ),
            ("dns-grace = 7.0", "p.toml:1:13: `dns-grace = <float>` is not whole seconds"),
            ("dns-grace = ['7']", "p.toml:1:13: `dns-grace = <list>` is not whole seconds"),
            ("dns-grace = '7.0'", "p.toml:1:13: `7.0` is not whole seconds from 0 to 86400"),
            ("dns-grace = -1", "p.toml:1:13: `-1` is not whole seconds from 0 to 86400"),
            ("dns = 'off'\ndns = 'off'", "p.toml:2:1: `dns` is not possible twice (a key stands once in a file)"),
            ("[env]\nA = ''\nA = ''", "p.toml:3:1: `A` is not possible twice (a key stands once in a file)"),
            (
                "dns = secret",
                "p.toml:1:7: `s` is not TOML here (string values must be quoted, expected literal string)",
            ),
            (
                "dns = 'secret",
                "p.toml:1:14: `the end of the file` is not TOML here (invalid literal string, expected `'`)",
            ),
            ("allow = ['a'", "p.toml:1:13: `the end of the file` is not TOML here (unclosed array, expected `]`)"),
            ("allow", "p.toml:1:6: `the end of the file` is not TOML here (key with no value, expected `=`)"),
            ("allow = 'a' 'b'", "p.toml:1:13: `'` is not TOML here (unexpected key or value, expected newline, `#`)"),
            (
                "\u{feff}dns = 'off'\naudit = ''",
                "p.toml:2:9: `audit = <string>` is not `true` or `false` without quotes",
            ),
            ("\u{feff}audit = ''", "p.toml:1:9: `audit = <string>` is not `true` or `false` without quotes"),
            // The first mistake of the file, not of the alphabet.
            (
                "dns = 'x'\nallow = ''",
                "p.toml:1:7: `x` is not `auto`, `open`, `off` or a resolver `ADDRESS[:PORT]` (a resolver is named by its address, and this is none)",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_told_at_their_place() {
        let error = Layer::from_toml(b"# \xc3\xa4\ndns = '\xff'", Path::new("p.toml")).unwrap_err();
        assert_eq!(error.to_string(), "p.toml:2:8: `byte 0xff` is not UTF-8 text");
    }

    #[test]
    fn a_file_is_bounded() {
        let comment = vec![b'#'; Layer::MAX_FILE];
        assert_eq!(Layer::from_toml(&comment, Path::new("p.toml")), Ok(Layer::new()));
        let error = Layer::from_toml(&[comment, vec![b'#']].concat(), Path::new("p.toml")).unwrap_err();
        assert_eq!(error.to_string(), "p.toml:1:1: `1048577 bytes` is not at most the 1048576 of a policy file");
    }

    #[test]
    fn many_entries_on_one_line_are_read_in_no_time() {
        let text = |entries: usize| format!("env=[{}]", vec!["'A=ä'"; entries].join(","));
        assert!(parse(&text(Layer::MAX_ENTRIES)).is_ok());
        let error = parse(&text(Layer::MAX_ENTRIES + 1)).unwrap_err();
        assert_eq!(error, "p.toml:1:600006: `entry 100001` is not one of 100000 entries at most");
    }
}
