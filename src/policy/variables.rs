//! What the environment of ringfence itself says.

use std::ffi::OsString;
use std::path::PathBuf;

use super::{Key, Layer, Origin, PolicyError, Sourced};

/// Which variables say what: the first of each list that is set and not empty counts.
const VARIABLES: [(Key, &[&str]); 5] = [
    (Key::Direct, &["RINGFENCE_DIRECT_TCP_ENDPOINTS", "OPENSHELL_DIRECT_TCP_ENDPOINTS"]),
    (Key::DirectHost, &["RINGFENCE_DIRECT_TCP_HOSTS", "OPENSHELL_DIRECT_TCP_HOSTS"]),
    (Key::Dns, &["RINGFENCE_DNS_SERVER", "OPENSHELL_DNS_SERVER"]),
    (Key::Proxy, &["RINGFENCE_PROXY"]),
    (Key::Tampering, &["RINGFENCE_TAMPERING"]),
];
const POLICY: &str = "RINGFENCE_POLICY";

/// What variables say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variables {
    /// Values of keys.
    pub layer: Layer,
    /// `RINGFENCE_POLICY`: a file to read, unless a flag names one.
    pub policy_file: Option<Sourced<PathBuf>>,
}

impl Variables {
    /// Names of the variables that are read, the stronger spelling of a key first.
    pub fn names() -> impl Iterator<Item = &'static str> {
        VARIABLES.into_iter().flat_map(|(_, names)| names.iter().copied()).chain([POLICY])
    }

    /// Parses what `lookup` knows of the variables: `Variables::parse(|name| std::env::var_os(name))`.
    ///
    /// A variable that is empty counts as not set. The `OPENSHELL_` spelling of a variable is read where the
    /// `RINGFENCE_` one isn't set.
    ///
    /// # Errors
    /// A value that does not parse or is not UTF-8.
    pub fn parse(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, PolicyError> {
        let set = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let mut layer = Layer::new();
        for (key, names) in VARIABLES {
            let Some((name, value)) = names.iter().find_map(|name| Some((*name, set(name)?))) else { continue };
            let origin = Origin::Variable(name.into());
            match value.to_str() {
                Some(text) => layer.add(key, text, &origin)?,
                // Not even shown: a proxy's may have a password among the bytes.
                None => return Err(PolicyError::new("UTF-8 text", "the value").at(origin)),
            }
        }
        let policy_file = set(POLICY).map(|path| Sourced::new(path.into(), Origin::Variable(POLICY.into())));
        Ok(Self { layer, policy_file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn parse(variables: &[(&str, &str)]) -> Result<Variables, String> {
        Variables::parse(|name| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| value.into()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn each_variable_says_its_key() {
        let parsed = parse(&[
            ("RINGFENCE_DIRECT_TCP_ENDPOINTS", "a:1,[2001:db8::9]:2"),
            ("RINGFENCE_DIRECT_TCP_HOSTS", "b,203.0.113.9"),
            ("RINGFENCE_DNS_SERVER", "203.0.113.53"),
            ("RINGFENCE_PROXY", "http://u:secret@proxy.example"),
            ("RINGFENCE_POLICY", "/etc/fence.toml"),
            ("RINGFENCE_TAMPERING", "end"),
        ])
        .unwrap();
        assert_eq!(parsed.layer.tampering.as_ref().unwrap().value, crate::policy::OnTampering::End);
        let shown = |list: Option<Vec<Sourced<crate::policy::Endpoint>>>| {
            list.unwrap().iter().map(|item| format!("{}: {}", item.origin, item.value)).collect::<Vec<_>>()
        };
        assert_eq!(
            shown(parsed.layer.direct),
            ["RINGFENCE_DIRECT_TCP_ENDPOINTS: a:1", "RINGFENCE_DIRECT_TCP_ENDPOINTS: [2001:db8::9]:2"]
        );
        assert_eq!(
            shown(parsed.layer.direct_host),
            ["RINGFENCE_DIRECT_TCP_HOSTS: b:443", "RINGFENCE_DIRECT_TCP_HOSTS: 203.0.113.9:443"]
        );
        assert_eq!(parsed.layer.dns.unwrap().value.to_string(), "203.0.113.53");
        assert_eq!(parsed.layer.proxy.unwrap().value.to_string(), "http://<redacted>@proxy.example:80");
        let file = parsed.policy_file.unwrap();
        assert_eq!((file.value, file.origin.to_string()), ("/etc/fence.toml".into(), "RINGFENCE_POLICY".into()));
    }

    #[test]
    fn our_spelling_wins_and_empty_is_not_set() {
        let origin = |variables: &[(&str, &str)]| parse(variables).unwrap().layer.dns.map(|dns| dns.origin.to_string());
        let (ours, theirs) = ("RINGFENCE_DNS_SERVER", "OPENSHELL_DNS_SERVER");
        assert_eq!(origin(&[(ours, "off"), (theirs, "open")]).as_deref(), Some(ours));
        assert_eq!(origin(&[(ours, ""), (theirs, "open")]).as_deref(), Some(theirs));
        assert_eq!(origin(&[(ours, ""), (theirs, "")]), None);
        // What lost is not looked at.
        assert_eq!(origin(&[(ours, "off"), (theirs, "nonsense")]).as_deref(), Some(ours));
        assert_eq!(parse(&[("RINGFENCE_POLICY", "")]), Ok(Variables::default()));
        assert!(parse(&[("OPENSHELL_DIRECT_TCP_ENDPOINTS", "a:1"), ("OPENSHELL_DIRECT_TCP_HOSTS", "a")]).is_ok());
    }

    #[test]
    fn errors_name_the_variable() {
        assert_eq!(
            parse(&[("OPENSHELL_DIRECT_TCP_ENDPOINTS", "a:1,b")]).unwrap_err(),
            "OPENSHELL_DIRECT_TCP_ENDPOINTS: `b` is not a direct endpoint `HOST:PORT` (the port is missing: write `b:443`)"
        );
        let bytes = |name: &str| (name == "RINGFENCE_PROXY").then(|| OsString::from_vec(vec![0xff]));
        assert_eq!(Variables::parse(bytes).unwrap_err().to_string(), "RINGFENCE_PROXY: `the value` is not UTF-8 text");
    }

    #[test]
    fn names_are_all_that_is_read() {
        let asked = std::cell::RefCell::new(Vec::new());
        Variables::parse(|name| {
            asked.borrow_mut().push(name.to_owned());
            None
        })
        .unwrap();
        assert_eq!(asked.into_inner(), Variables::names().collect::<Vec<_>>());
    }
}
