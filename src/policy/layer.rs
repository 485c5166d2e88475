//! Keys, and the layers that give them values: flags, variables, a file, a caller.

use std::fmt;
use std::str::FromStr;

use super::{
    AllowEntry, Capability, Credential, DnsGrace, DnsMode, Endpoint, EnvVar, EventsFormat, EventsTo, FilePath,
    HostPattern, LandlockMode, LearnTo, MetricsTo, OnTampering, Origin, PolicyError, PoolPrefix, ProxyAt, ProxyUrl,
    SandboxName, SeccompMode, SniCheck, Sourced, Transport, User,
};

/// Makes of one table of keys, in the order of the command line's help, all that there is for each of them: its variant and name, its place in a
/// layer, and how its text is read.
macro_rules! keys {
    ($($(#[$doc:meta])* $key:ident $name:literal, $field:ident: $arity:ident<$type:ty>, $add:ident($parse:expr);)+) => {
        /// A thing that can be said: a flag `--NAME`, or a key `NAME` of a policy file.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Key {
            $($(#[$doc])* $key,)+
        }

        impl Key {
            /// All of them, in the order of the command line's help.
            pub const ALL: [Key; [$(Key::$key),+].len()] = [$(Key::$key),+];

            /// Its name in a policy file; with `--` in front, its flag.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Key::$key => $name,)+
                }
            }

            pub(super) const fn arity(self) -> Arity {
                match self {
                    $(Key::$key => Arity::$arity,)+
                }
            }
        }

        /// Everything that one source says, parsed, each value with its origin.
        ///
        /// A key that was not given is told apart from one that was given an empty list.
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct Layer {
            $(pub(super) $field: $arity<$type>,)+
            entries: usize,
        }

        impl Layer {
            fn read(&mut self, key: Key, text: &str, origin: &Origin) -> Result<(), PolicyError> {
                match key {
                    $(Key::$key => $add(&mut self.$field, key, &mut self.entries, text, origin, $parse),)+
                }
            }

            /// Says that a list was given, if only an empty one. Does nothing to a key that is no list.
            pub(super) fn declare(&mut self, key: Key) {
                match key {
                    $(Key::$key => self.$field.declare(),)+
                }
            }

            fn each_over(self, weaker: Layer) -> Layer {
                Layer { $($field: self.$field.or(weaker.$field),)+ entries: 0 }
            }
        }
    };
}

keys! {
    /// Destinations that the built-in proxy lets through. Repeatable.
    Allow "allow", allow: Many<AllowEntry>, split(AllowEntry::from_str);
    /// Secrets that the built-in proxy puts into requests. Repeatable, and not separated by commas.
    Credential "credential", credential: Many<Credential>, whole(Credential::from_str);
    /// Whether TLS in a tunnel must be for the host that the tunnel leads to.
    Sni "sni", sni: One<SniCheck>, once(SniCheck::from_str);
    /// An HTTP proxy, reached from the host.
    Proxy "proxy", proxy: One<ProxyUrl>, once(ProxyUrl::from_str);
    /// A proxy that the sandbox reaches itself.
    ProxyAt "proxy-at", proxy_at: One<ProxyAt>, once(ProxyAt::from_str);
    /// Direct TCP endpoints. Repeatable.
    Direct "direct", direct: Many<Endpoint>, split(|item| Endpoint::parse(item, Transport::Tcp));
    /// Direct UDP endpoints. Repeatable.
    DirectUdp "direct-udp", direct_udp: Many<Endpoint>, split(|item| Endpoint::parse(item, Transport::Udp));
    /// Hosts whose TCP port 443 is a direct endpoint. Repeatable.
    DirectHost "direct-host", direct_host: Many<Endpoint>, split(Endpoint::parse_host);
    /// Who answers questions about names.
    Dns "dns", dns: One<DnsMode>, once(DnsMode::from_str);
    /// How long an address of a direct name stays open after its answer has run out.
    DnsGrace "dns-grace", dns_grace: One<DnsGrace>, once(DnsGrace::from_str);
    /// Names whose addresses may be private, though they look public. Repeatable.
    PrivateName "private-name", private_name: Many<HostPattern>, split(HostPattern::from_str);
    /// Let everything pass, and log it.
    Audit "audit", audit: Switch<bool>, once(switch);
    /// What is done about somebody who changes the rules.
    Tampering "tampering", tampering: One<OnTampering>, once(OnTampering::from_str);
    /// Where addresses come from. Repeatable.
    Pool "pool", pool: Many<PoolPrefix>, split(PoolPrefix::from_str);
    /// As whom the command runs.
    User "user", user: One<User>, once(User::from_str);
    /// Variables of the command. Repeatable, and not separated by commas.
    Env "env", env: Many<EnvVar>, whole(EnvVar::from_str);
    /// What the sandbox is called.
    Name "name", name: One<SandboxName>, once(SandboxName::from_str);
    /// Stay in the caller's PID namespace.
    SharePid "share-pid", share_pid: Switch<bool>, once(switch);
    /// Keep no capability.
    DropCaps "drop-caps", drop_caps: Switch<bool>, once(switch);
    /// Keep these capabilities. Repeatable.
    KeepCaps "keep-caps", keep_caps: Many<Capability>, split(Capability::from_str);
    /// Whether Landlock keeps the command from files.
    Landlock "landlock", landlock: One<LandlockMode>, once(LandlockMode::from_str);
    /// Files and directories to read. Repeatable, and not separated by commas.
    Ro "ro", ro: Many<FilePath>, whole(FilePath::from_str);
    /// Files and directories to write. Repeatable, and not separated by commas.
    Rw "rw", rw: Many<FilePath>, whole(FilePath::from_str);
    /// Which system calls are refused.
    Seccomp "seccomp", seccomp: One<SeccompMode>, once(SeccompMode::from_str);
    /// Where events go.
    Events "events", events: One<EventsTo>, once(EventsTo::from_str);
    /// In which words.
    EventsFormat "events-format", events_format: One<EventsFormat>, once(EventsFormat::from_str);
    /// Where metrics are found.
    Metrics "metrics", metrics: One<MetricsTo>, once(MetricsTo::from_str);
    /// Where the policy is written that an audit has learned.
    Learn "learn", learn: One<LearnTo>, once(LearnTo::from_str);
}

/// How often a key takes a value, and of which type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arity {
    Switch,
    One,
    Many,
}

type One<T> = Option<Sourced<T>>;
type Switch<T> = One<T>;
type Many<T> = Option<Vec<Sourced<T>>>;

/// What a layer has for a key.
trait Slot {
    /// Makes an empty list of no list.
    fn declare(&mut self);
}

impl<T> Slot for One<T> {
    fn declare(&mut self) {}
}

impl<T> Slot for Many<T> {
    fn declare(&mut self) {
        self.get_or_insert_default();
    }
}

impl Key {
    pub(super) fn named(name: &str) -> Option<Key> {
        Key::ALL.into_iter().find(|key| key.name() == name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Layer {
    /// How many list entries one layer may have, all keys together.
    pub const MAX_ENTRIES: usize = 100_000;

    /// A layer that says nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what a flag says: [`add`](Self::add) with `--KEY` as origin.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn flag(&mut self, key: Key, text: &str) -> Result<(), PolicyError> {
        self.add(key, text, &Origin::Flag(format!("--{key}")))
    }

    /// Parses a value of that key and adds it to what the layer says.
    ///
    /// Lists take several entries separated by commas (`credential`, `env`, `ro` and `rw` do not, for a comma may be part of theirs), and grow
    /// with each call; switches take `true` and `false`.
    ///
    /// # Errors
    /// A value that does not parse, an empty entry of a list, a second and different value where there can be one, and
    /// the entry after [`MAX_ENTRIES`](Self::MAX_ENTRIES).
    pub fn add(&mut self, key: Key, text: &str, origin: &Origin) -> Result<(), PolicyError> {
        self.read(key, text, origin).map_err(|error| error.at(origin.clone()))
    }

    pub(super) fn push_credential(&mut self, credential: Credential, origin: &Origin) -> Result<(), PolicyError> {
        push(&mut self.credential, &mut self.entries, origin, || Ok(credential))
    }

    pub(super) fn push_env(&mut self, variable: EnvVar, origin: &Origin) -> Result<(), PolicyError> {
        push(&mut self.env, &mut self.entries, origin, || Ok(variable))
    }

    /// Puts this layer over a weaker one: of a key that this one gives, the weaker one's values are dropped whole.
    ///
    /// `drop-caps` and `keep-caps` say the same thing in two ways, and count as one key here.
    pub fn over(self, mut weaker: Layer) -> Layer {
        if self.drop_caps.is_some() || self.keep_caps.is_some() {
            (weaker.drop_caps, weaker.keep_caps) = (None, None);
        }
        self.each_over(weaker)
    }
}

/// Reads what can be said once.
fn once<T: PartialEq + fmt::Display>(
    slot: &mut One<T>,
    key: Key,
    _: &mut usize,
    text: &str,
    origin: &Origin,
    parse: impl Fn(&str) -> Result<T, PolicyError>,
) -> Result<(), PolicyError> {
    let value = parse(text)?;
    match slot {
        Some(first) if first.value != value => Err(PolicyError::new(format!("the only `{key}`"), value.to_string())
            .because(format!("{} says `{}`", first.origin, first.value))),
        Some(_) => Ok(()),
        None => {
            *slot = Some(Sourced::new(value, origin.clone()));
            Ok(())
        }
    }
}

/// Reads entries between commas.
fn split<T>(
    slot: &mut Many<T>,
    _: Key,
    entries: &mut usize,
    text: &str,
    origin: &Origin,
    parse: impl Fn(&str) -> Result<T, PolicyError>,
) -> Result<(), PolicyError> {
    let mut parsed = Some(Vec::new());
    for (index, item) in text.split(',').enumerate() {
        let item = item.trim_ascii();
        // An empty value has no entry to be empty: what it should have been is the parser's to say.
        if item.is_empty() && text.contains(',') {
            return Err(PolicyError::new("a list of entries separated by commas", text)
                .because(format!("entry {} is empty", index + 1)));
        }
        push(&mut parsed, entries, origin, || parse(item))?;
    }
    slot.get_or_insert_default().extend(parsed.into_iter().flatten());
    Ok(())
}

/// Reads one entry that is the whole text.
fn whole<T>(
    slot: &mut Many<T>,
    _: Key,
    entries: &mut usize,
    text: &str,
    origin: &Origin,
    parse: impl Fn(&str) -> Result<T, PolicyError>,
) -> Result<(), PolicyError> {
    push(slot, entries, origin, || parse(text))
}

fn push<T>(
    slot: &mut Many<T>,
    entries: &mut usize,
    origin: &Origin,
    entry: impl FnOnce() -> Result<T, PolicyError>,
) -> Result<(), PolicyError> {
    if *entries == Layer::MAX_ENTRIES {
        let too_many = format!("entry {}", Layer::MAX_ENTRIES + 1);
        return Err(PolicyError::new(format!("one of {} entries at most", Layer::MAX_ENTRIES), too_many));
    }
    *entries += 1;
    let entry = Sourced::new(entry()?, origin.clone());
    slot.get_or_insert_default().push(entry);
    Ok(())
}

fn switch(text: &str) -> Result<bool, PolicyError> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(PolicyError::new("`true` or `false`", text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(flags: &[(Key, &str)]) -> Result<Layer, String> {
        let mut layer = Layer::new();
        for (key, text) in flags {
            layer.flag(*key, text).map_err(|error| error.to_string())?;
        }
        Ok(layer)
    }

    #[test]
    fn every_key_has_a_name_and_a_parser() {
        for key in Key::ALL {
            assert_eq!(Key::named(key.name()), Some(key));
            let text = match key {
                Key::Allow | Key::DirectHost | Key::Name => "a",
                Key::Credential => "A=env:B,to=a",
                Key::Sni => "any",
                Key::Proxy | Key::Direct | Key::DirectUdp => "a:1",
                Key::ProxyAt => "203.0.113.9:1",
                Key::Dns | Key::Seccomp => "off",
                Key::DnsGrace => "0",
                Key::PrivateName => "*.a",
                Key::Audit | Key::SharePid | Key::DropCaps => "true",
                Key::Pool => "10.1.0.0/16",
                Key::User => "1",
                Key::Env => "A=a,b",
                Key::KeepCaps => "kill",
                Key::Landlock => "required",
                Key::Ro | Key::Rw => "/srv/a,b",
                Key::Events => "fd:3",
                Key::EventsFormat => "ocsf",
                Key::Metrics | Key::Learn => "m",
                Key::Tampering => "end",
            };
            let given = layer(&[(key, text)]).unwrap();
            assert_ne!(Layer { entries: 0, ..given }, Layer::new(), "{key} left no trace");
            let error = layer(&[(key, "\u{1b}")]).unwrap_err();
            // What may be a secret is not quoted.
            let quoted = if key == Key::Credential { "…" } else { "\\u{1b}" };
            assert!(error.starts_with(&format!("--{key}: `{quoted}` is not ")), "{error}");
        }
        assert_eq!(Key::named("Allow"), None);
    }

    #[test]
    fn lists_are_split_at_commas_and_have_no_empty_entry() {
        let both = layer(&[(Key::Direct, "a:1, b:2"), (Key::Direct, "c:3")]).unwrap();
        let shown: Vec<_> = both.direct.unwrap().iter().map(|endpoint| endpoint.value.to_string()).collect();
        assert_eq!(shown, ["a:1", "b:2", "c:3"]);
        for (text, error) in [
            ("a:1,", "--direct: `a:1,` is not a list of entries separated by commas (entry 2 is empty)"),
            (",a:1", "--direct: `,a:1` is not a list of entries separated by commas (entry 1 is empty)"),
            ("a:1, ,b:1", "--direct: `a:1, ,b:1` is not a list of entries separated by commas (entry 2 is empty)"),
            ("", "--direct: `` is not a direct endpoint `HOST:PORT` (it is empty)"),
            ("a:1,b", "--direct: `b` is not a direct endpoint `HOST:PORT` (the port is missing: write `b:443`)"),
        ] {
            assert_eq!(layer(&[(Key::Direct, text)]), Err(error.into()));
        }
    }

    #[test]
    fn a_single_value_is_given_once_or_twice_the_same() {
        assert!(layer(&[(Key::Dns, "203.0.113.53"), (Key::Dns, "203.0.113.53:53")]).is_ok());
        assert!(layer(&[(Key::Audit, "true"), (Key::Audit, "true")]).is_ok());
        assert_eq!(
            layer(&[(Key::Dns, "auto"), (Key::Dns, "off")]),
            Err("--dns: `off` is not the only `dns` (--dns says `auto`)".into())
        );
        assert_eq!(
            layer(&[(Key::Proxy, "http://u:secret@h:1"), (Key::Proxy, "http://u:other@h:1")]),
            Err("--proxy: `http://<redacted>@h:1` is not the only `proxy` (--proxy says `http://<redacted>@h:1`)"
                .into())
        );
        assert_eq!(layer(&[(Key::Audit, "yes")]), Err("--audit: `yes` is not `true` or `false`".into()));
    }

    #[test]
    fn a_layer_is_bounded() {
        let mut layer = Layer::new();
        let thousand = vec!["a:1"; 1000].join(",");
        for _ in 0..Layer::MAX_ENTRIES / 1000 {
            layer.flag(Key::Direct, &thousand).unwrap();
        }
        for (key, text) in [(Key::Direct, "b:1"), (Key::Allow, "b"), (Key::Env, "A=b")] {
            assert_eq!(
                layer.flag(key, text).unwrap_err().to_string(),
                format!("--{key}: `entry 100001` is not one of 100000 entries at most")
            );
        }
        layer.flag(Key::Dns, "off").unwrap();
    }

    #[test]
    fn the_stronger_layer_takes_a_key_whole() {
        let strong = layer(&[(Key::Direct, "a:1"), (Key::KeepCaps, "kill")]).unwrap();
        let weak =
            layer(&[(Key::Direct, "b:1,c:1"), (Key::DirectHost, "d"), (Key::DropCaps, "true"), (Key::Dns, "off")])
                .unwrap();
        let merged = strong.clone().over(weak.clone());
        assert_eq!(merged.direct, strong.direct);
        assert_eq!(merged.direct_host, weak.direct_host);
        assert_eq!((merged.drop_caps, merged.keep_caps), (None, strong.keep_caps));
        assert_eq!(merged.dns, weak.dns);

        let mut empty = Layer::new();
        empty.declare(Key::Direct);
        assert_eq!(empty.over(weak).direct, Some(vec![]));
    }
}
