//! Keys, and the layers that give them values: flags, variables, a file, a caller.

use std::fmt;
use std::str::FromStr;

use super::{
    AllowEntry, Capability, Credential, DnsGrace, DnsMode, Endpoint, EnvVar, EventsFormat, EventsTo, FilePath,
    HostPattern, LandlockMode, LearnTo, MetricsTo, OnTampering, Origin, PolicyError, PoolPrefix, ProxyAt, ProxyUrl,
    SandboxName, SeccompMode, SniCheck, Sourced, Transport, User,
};

/// A thing that can be said: a flag `--NAME`, or a key `NAME` of a policy file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Destinations that the built-in proxy lets through. Repeatable.
    Allow,
    /// Secrets that the built-in proxy puts into requests. Repeatable, and not separated by commas.
    Credential,
    /// Whether TLS in a tunnel must be for the host that the tunnel leads to.
    Sni,
    /// An HTTP proxy, reached from the host.
    Proxy,
    /// A proxy that the sandbox reaches itself.
    ProxyAt,
    /// Direct TCP endpoints. Repeatable.
    Direct,
    /// Direct UDP endpoints. Repeatable.
    DirectUdp,
    /// Hosts whose TCP port 443 is a direct endpoint. Repeatable.
    DirectHost,
    /// Who answers questions about names.
    Dns,
    /// How long an address of a direct name stays open after its answer has run out.
    DnsGrace,
    /// Names whose addresses may be private, though they look public. Repeatable.
    PrivateName,
    /// Let everything pass, and log it.
    Audit,
    /// What is done about somebody who changes the rules.
    Tampering,
    /// Where addresses come from. Repeatable.
    Pool,
    /// As whom the command runs.
    User,
    /// Variables of the command. Repeatable, and not separated by commas.
    Env,
    /// What the sandbox is called.
    Name,
    /// Stay in the caller's PID namespace.
    SharePid,
    /// Keep no capability.
    DropCaps,
    /// Keep these capabilities. Repeatable.
    KeepCaps,
    /// Whether Landlock keeps the command from files.
    Landlock,
    /// Files and directories to read. Repeatable, and not separated by commas.
    Ro,
    /// Files and directories to write. Repeatable, and not separated by commas.
    Rw,
    /// Which system calls are refused.
    Seccomp,
    /// Where events go.
    Events,
    /// In which words.
    EventsFormat,
    /// Where metrics are found.
    Metrics,
    /// Where the policy is written that an audit has learned.
    Learn,
}

/// How often a key takes a value, and of which type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arity {
    Switch,
    One,
    Many,
}

impl Key {
    /// All of them, in the order of the command line's help.
    pub const ALL: [Key; 28] = [
        Key::Allow,
        Key::Credential,
        Key::Sni,
        Key::Proxy,
        Key::ProxyAt,
        Key::Direct,
        Key::DirectUdp,
        Key::DirectHost,
        Key::Dns,
        Key::DnsGrace,
        Key::PrivateName,
        Key::Audit,
        Key::Tampering,
        Key::Pool,
        Key::User,
        Key::Env,
        Key::Name,
        Key::SharePid,
        Key::DropCaps,
        Key::KeepCaps,
        Key::Landlock,
        Key::Ro,
        Key::Rw,
        Key::Seccomp,
        Key::Events,
        Key::EventsFormat,
        Key::Metrics,
        Key::Learn,
    ];

    /// Its name in a policy file; with `--` in front, its flag.
    pub const fn name(self) -> &'static str {
        match self {
            Key::Allow => "allow",
            Key::Credential => "credential",
            Key::Sni => "sni",
            Key::Proxy => "proxy",
            Key::ProxyAt => "proxy-at",
            Key::Direct => "direct",
            Key::DirectUdp => "direct-udp",
            Key::DirectHost => "direct-host",
            Key::Dns => "dns",
            Key::DnsGrace => "dns-grace",
            Key::PrivateName => "private-name",
            Key::Audit => "audit",
            Key::Tampering => "tampering",
            Key::Pool => "pool",
            Key::User => "user",
            Key::Env => "env",
            Key::Name => "name",
            Key::SharePid => "share-pid",
            Key::DropCaps => "drop-caps",
            Key::KeepCaps => "keep-caps",
            Key::Landlock => "landlock",
            Key::Ro => "ro",
            Key::Rw => "rw",
            Key::Seccomp => "seccomp",
            Key::Events => "events",
            Key::EventsFormat => "events-format",
            Key::Metrics => "metrics",
            Key::Learn => "learn",
        }
    }

    pub(super) fn named(name: &str) -> Option<Key> {
        Key::ALL.into_iter().find(|key| key.name() == name)
    }

    pub(super) const fn arity(self) -> Arity {
        match self {
            Key::Audit | Key::SharePid | Key::DropCaps => Arity::Switch,
            Key::Sni | Key::Proxy | Key::ProxyAt | Key::Dns | Key::DnsGrace | Key::User | Key::Name | Key::Landlock => {
                Arity::One
            }
            Key::Seccomp | Key::Events | Key::EventsFormat | Key::Metrics | Key::Learn | Key::Tampering => Arity::One,
            Key::Allow
            | Key::Credential
            | Key::Direct
            | Key::DirectUdp
            | Key::DirectHost
            | Key::PrivateName
            | Key::Pool
            | Key::Env
            | Key::KeepCaps
            | Key::Ro
            | Key::Rw => Arity::Many,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Everything that one source says, parsed, each value with its origin.
///
/// A key that was not given is told apart from one that was given an empty list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layer {
    pub(super) allow: Option<Vec<Sourced<AllowEntry>>>,
    pub(super) credential: Option<Vec<Sourced<Credential>>>,
    pub(super) sni: Option<Sourced<SniCheck>>,
    pub(super) proxy: Option<Sourced<ProxyUrl>>,
    pub(super) proxy_at: Option<Sourced<ProxyAt>>,
    pub(super) direct: Option<Vec<Sourced<Endpoint>>>,
    pub(super) direct_udp: Option<Vec<Sourced<Endpoint>>>,
    pub(super) direct_host: Option<Vec<Sourced<Endpoint>>>,
    pub(super) dns: Option<Sourced<DnsMode>>,
    pub(super) dns_grace: Option<Sourced<DnsGrace>>,
    pub(super) private_name: Option<Vec<Sourced<HostPattern>>>,
    pub(super) audit: Option<Sourced<bool>>,
    pub(super) tampering: Option<Sourced<OnTampering>>,
    pub(super) pool: Option<Vec<Sourced<PoolPrefix>>>,
    pub(super) user: Option<Sourced<User>>,
    pub(super) env: Option<Vec<Sourced<EnvVar>>>,
    pub(super) name: Option<Sourced<SandboxName>>,
    pub(super) share_pid: Option<Sourced<bool>>,
    pub(super) drop_caps: Option<Sourced<bool>>,
    pub(super) keep_caps: Option<Vec<Sourced<Capability>>>,
    pub(super) landlock: Option<Sourced<LandlockMode>>,
    pub(super) ro: Option<Vec<Sourced<FilePath>>>,
    pub(super) rw: Option<Vec<Sourced<FilePath>>>,
    pub(super) seccomp: Option<Sourced<SeccompMode>>,
    pub(super) events: Option<Sourced<EventsTo>>,
    pub(super) events_format: Option<Sourced<EventsFormat>>,
    pub(super) metrics: Option<Sourced<MetricsTo>>,
    pub(super) learn: Option<Sourced<LearnTo>>,
    entries: usize,
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
    /// Lists take several entries separated by commas (`env`, `ro` and `rw` do not, for a comma may be part of theirs), and grow
    /// with each call; switches take `true` and `false`.
    ///
    /// # Errors
    /// A value that does not parse, an empty entry of a list, a second and different value where there can be one, and
    /// the entry after [`MAX_ENTRIES`](Self::MAX_ENTRIES).
    pub fn add(&mut self, key: Key, text: &str, origin: &Origin) -> Result<(), PolicyError> {
        let entries = &mut self.entries;
        let added = match key {
            Key::Allow => many(&mut self.allow, entries, text, origin, AllowEntry::from_str),
            Key::Credential => text.parse().and_then(|credential| self.push_credential(credential, origin)),
            Key::Sni => one(&mut self.sni, key, text, origin, SniCheck::from_str),
            Key::Proxy => one(&mut self.proxy, key, text, origin, ProxyUrl::from_str),
            Key::ProxyAt => one(&mut self.proxy_at, key, text, origin, ProxyAt::from_str),
            Key::Direct => many(&mut self.direct, entries, text, origin, |item| Endpoint::parse(item, Transport::Tcp)),
            Key::DirectUdp => {
                many(&mut self.direct_udp, entries, text, origin, |item| Endpoint::parse(item, Transport::Udp))
            }
            Key::DirectHost => many(&mut self.direct_host, entries, text, origin, Endpoint::parse_host),
            Key::Dns => one(&mut self.dns, key, text, origin, DnsMode::from_str),
            Key::DnsGrace => one(&mut self.dns_grace, key, text, origin, DnsGrace::from_str),
            Key::PrivateName => many(&mut self.private_name, entries, text, origin, HostPattern::from_str),
            Key::Audit => one(&mut self.audit, key, text, origin, switch),
            Key::Tampering => one(&mut self.tampering, key, text, origin, OnTampering::from_str),
            Key::Pool => many(&mut self.pool, entries, text, origin, PoolPrefix::from_str),
            Key::User => one(&mut self.user, key, text, origin, User::from_str),
            Key::Env => text.parse().and_then(|variable| self.push_env(variable, origin)),
            Key::Name => one(&mut self.name, key, text, origin, SandboxName::from_str),
            Key::SharePid => one(&mut self.share_pid, key, text, origin, switch),
            Key::DropCaps => one(&mut self.drop_caps, key, text, origin, switch),
            Key::KeepCaps => many(&mut self.keep_caps, entries, text, origin, Capability::from_str),
            Key::Landlock => one(&mut self.landlock, key, text, origin, LandlockMode::from_str),
            Key::Ro => whole(&mut self.ro, entries, text, origin),
            Key::Rw => whole(&mut self.rw, entries, text, origin),
            Key::Seccomp => one(&mut self.seccomp, key, text, origin, SeccompMode::from_str),
            Key::Events => one(&mut self.events, key, text, origin, EventsTo::from_str),
            Key::EventsFormat => one(&mut self.events_format, key, text, origin, EventsFormat::from_str),
            Key::Metrics => one(&mut self.metrics, key, text, origin, MetricsTo::from_str),
            Key::Learn => one(&mut self.learn, key, text, origin, LearnTo::from_str),
        };
        added.map_err(|error| error.at(origin.clone()))
    }

    pub(super) fn push_credential(&mut self, credential: Credential, origin: &Origin) -> Result<(), PolicyError> {
        count(&mut self.entries)?;
        self.credential.get_or_insert_default().push(Sourced::new(credential, origin.clone()));
        Ok(())
    }

    pub(super) fn push_env(&mut self, variable: EnvVar, origin: &Origin) -> Result<(), PolicyError> {
        count(&mut self.entries)?;
        self.env.get_or_insert_default().push(Sourced::new(variable, origin.clone()));
        Ok(())
    }

    /// Says that a list was given, if only an empty one. Does nothing to a key that is no list, nor to `keep-caps`: an
    /// empty list of those is an error of the reader's to make, for it must never end as the default.
    pub(super) fn declare(&mut self, key: Key) {
        match key {
            Key::Allow => drop(self.allow.get_or_insert_default()),
            Key::Credential => drop(self.credential.get_or_insert_default()),
            Key::Direct => drop(self.direct.get_or_insert_default()),
            Key::DirectUdp => drop(self.direct_udp.get_or_insert_default()),
            Key::DirectHost => drop(self.direct_host.get_or_insert_default()),
            Key::PrivateName => drop(self.private_name.get_or_insert_default()),
            Key::Pool => drop(self.pool.get_or_insert_default()),
            Key::Env => drop(self.env.get_or_insert_default()),
            Key::Ro => drop(self.ro.get_or_insert_default()),
            Key::Rw => drop(self.rw.get_or_insert_default()),
            Key::Sni
            | Key::Proxy
            | Key::ProxyAt
            | Key::Dns
            | Key::DnsGrace
            | Key::Audit
            | Key::Tampering
            | Key::User
            | Key::Name
            | Key::SharePid
            | Key::DropCaps
            | Key::KeepCaps
            | Key::Landlock
            | Key::Seccomp
            | Key::Events
            | Key::EventsFormat
            | Key::Metrics
            | Key::Learn => {}
        }
    }

    /// Puts this layer over a weaker one: of a key that this one gives, the weaker one's values are dropped whole.
    ///
    /// `drop-caps` and `keep-caps` say the same thing in two ways, and count as one key here.
    pub fn over(self, weaker: Layer) -> Layer {
        let caps_given = self.drop_caps.is_some() || self.keep_caps.is_some();
        let (drop_caps, keep_caps) =
            if caps_given { (self.drop_caps, self.keep_caps) } else { (weaker.drop_caps, weaker.keep_caps) };
        Layer {
            allow: self.allow.or(weaker.allow),
            credential: self.credential.or(weaker.credential),
            sni: self.sni.or(weaker.sni),
            proxy: self.proxy.or(weaker.proxy),
            proxy_at: self.proxy_at.or(weaker.proxy_at),
            direct: self.direct.or(weaker.direct),
            direct_udp: self.direct_udp.or(weaker.direct_udp),
            direct_host: self.direct_host.or(weaker.direct_host),
            dns: self.dns.or(weaker.dns),
            dns_grace: self.dns_grace.or(weaker.dns_grace),
            private_name: self.private_name.or(weaker.private_name),
            audit: self.audit.or(weaker.audit),
            tampering: self.tampering.or(weaker.tampering),
            pool: self.pool.or(weaker.pool),
            user: self.user.or(weaker.user),
            env: self.env.or(weaker.env),
            name: self.name.or(weaker.name),
            share_pid: self.share_pid.or(weaker.share_pid),
            drop_caps,
            keep_caps,
            landlock: self.landlock.or(weaker.landlock),
            ro: self.ro.or(weaker.ro),
            rw: self.rw.or(weaker.rw),
            seccomp: self.seccomp.or(weaker.seccomp),
            events: self.events.or(weaker.events),
            events_format: self.events_format.or(weaker.events_format),
            metrics: self.metrics.or(weaker.metrics),
            learn: self.learn.or(weaker.learn),
            entries: 0,
        }
    }
}

type Parse<T> = Result<T, PolicyError>;

fn one<T: PartialEq + fmt::Display>(
    slot: &mut Option<Sourced<T>>,
    key: Key,
    text: &str,
    origin: &Origin,
    parse: impl Fn(&str) -> Parse<T>,
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

fn many<T>(
    slot: &mut Option<Vec<Sourced<T>>>,
    entries: &mut usize,
    text: &str,
    origin: &Origin,
    parse: impl Fn(&str) -> Parse<T>,
) -> Result<(), PolicyError> {
    let mut parsed = Vec::new();
    for (index, item) in text.split(',').enumerate() {
        let item = item.trim_ascii();
        // An empty value has no entry to be empty: what it should have been is the parser's to say.
        if item.is_empty() && text.contains(',') {
            return Err(PolicyError::new("a list of entries separated by commas", text)
                .because(format!("entry {} is empty", index + 1)));
        }
        count(entries)?;
        parsed.push(Sourced::new(parse(item)?, origin.clone()));
    }
    slot.get_or_insert_default().append(&mut parsed);
    Ok(())
}

/// Adds one entry that is the whole text.
fn whole(
    slot: &mut Option<Vec<Sourced<FilePath>>>,
    entries: &mut usize,
    text: &str,
    origin: &Origin,
) -> Result<(), PolicyError> {
    count(entries)?;
    slot.get_or_insert_default().push(Sourced::new(text.parse()?, origin.clone()));
    Ok(())
}

fn count(entries: &mut usize) -> Result<(), PolicyError> {
    if *entries == Layer::MAX_ENTRIES {
        let too_many = format!("entry {}", Layer::MAX_ENTRIES + 1);
        return Err(PolicyError::new(format!("one of {} entries at most", Layer::MAX_ENTRIES), too_many));
    }
    *entries += 1;
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
