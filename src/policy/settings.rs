//! What came of all that was said.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use serde::Serialize;

use super::pool::pool;
use super::{
    AllowEntry, Capabilities, Credential, DnsGrace, DnsMode, DnsName, Endpoint, EndpointHost, HostPattern, Key, Layer,
    OnTampering, Origin, PolicyError, ProxyAt, ProxyUrl, RunOptions, SniCheck, Sourced,
};
use crate::link::Pool;

/// Who may be reached, and how. The default lets nothing out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// What the built-in proxy lets through; without an entry it is not started, unless there is a `proxy`.
    pub allow: Vec<Sourced<AllowEntry>>,
    /// Secrets that the built-in proxy puts into requests; their names differ.
    pub credentials: Vec<Sourced<Credential>>,
    /// Whether TLS in a tunnel must be for the host that the tunnel leads to.
    pub sni: Sourced<SniCheck>,
    /// The proxy that the built-in one goes through; without `allow` it alone decides.
    pub proxy: Option<Sourced<ProxyUrl>>,
    /// A proxy that the sandbox reaches itself. Never beside `allow` or `proxy`.
    pub proxy_at: Option<Sourced<ProxyAt>>,
    /// Endpoints past every proxy, each once: those of `direct`, then `direct-udp`, then `direct-host`.
    pub direct: Vec<Sourced<Endpoint>>,
    /// Who answers questions about names.
    pub dns: Sourced<DnsMode>,
    /// How long an address of a direct name stays open after its answer has run out.
    pub dns_grace: Sourced<DnsGrace>,
    /// Names whose addresses may be private, though they look public.
    pub private_names: Vec<Sourced<HostPattern>>,
    /// Whether everything passes, and is logged.
    pub audit: Sourced<bool>,
    /// What is done about somebody who changes the rules.
    pub tampering: Sourced<OnTampering>,
    /// Where addresses come from.
    pub pool: Sourced<Pool>,
}

impl Policy {
    /// Starts a policy of the caller's own.
    ///
    /// ```
    /// # fn main() -> Result<(), ringfence::policy::PolicyError> {
    /// use ringfence::policy::Policy;
    ///
    /// let policy = Policy::builder()
    ///     .allow("*.example.com:443")?
    ///     .direct("203.0.113.9:5432")?
    ///     .dns("off")?
    ///     .build()?;
    /// assert_eq!(policy.direct[0].value.to_string(), "203.0.113.9:5432");
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> PolicyBuilder {
        PolicyBuilder { layer: Layer::new() }
    }
}

impl Policy {
    /// Whether addresses of that name may be private: it is not a public one, or is listed among those that may.
    pub fn may_be_private(&self, name: &DnsName) -> bool {
        name.is_private() || self.private_names.iter().any(|pattern| pattern.value.matches(name))
    }

    /// Refuses a policy whose parts contradict each other: one that was not put together by [`Settings::from_layers`].
    pub(crate) fn check(&self) -> Result<(), PolicyError> {
        wildcards(&self.dns, self.direct.iter())
    }

    /// Whether a direct endpoint is known by name.
    pub fn has_direct_names(&self) -> bool {
        self.direct.iter().any(|to| matches!(to.value.host, EndpointHost::Pattern(_)))
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            credentials: Vec::new(),
            sni: Sourced::new(SniCheck::default(), Origin::Default),
            proxy: None,
            proxy_at: None,
            direct: Vec::new(),
            dns: Sourced::new(DnsMode::default(), Origin::Default),
            dns_grace: Sourced::new(DnsGrace::default(), Origin::Default),
            private_names: Vec::new(),
            audit: Sourced::new(false, Origin::Default),
            tampering: Sourced::new(OnTampering::default(), Origin::Default),
            pool: Sourced::new(Pool::default(), Origin::Default),
        }
    }
}

/// A policy in the making, value by value. The texts are those of the flags, lists with commas included.
#[derive(Debug, Clone)]
pub struct PolicyBuilder {
    layer: Layer,
}

impl PolicyBuilder {
    /// Lets the built-in proxy through to `HOST[:PORT]`.
    ///
    /// # Errors
    /// A text that is no such destination.
    pub fn allow(self, destination: &str) -> Result<Self, PolicyError> {
        self.add(Key::Allow, destination)
    }

    /// Has the built-in proxy put a secret into requests: `NAME=env:VARIABLE,to=HOST[:PORT]`, and so on.
    ///
    /// # Errors
    /// A text that is no credential.
    pub fn credential(self, credential: &str) -> Result<Self, PolicyError> {
        self.add(Key::Credential, credential)
    }

    /// Says whether TLS in a tunnel must be for the host that the tunnel leads to: `check` or `any`.
    ///
    /// # Errors
    /// A text that is neither, or the opposite of what was said before.
    pub fn sni(self, check: &str) -> Result<Self, PolicyError> {
        self.add(Key::Sni, check)
    }

    /// Goes through an HTTP proxy that the host reaches: a URL, or `HOST:PORT`.
    ///
    /// # Errors
    /// A text that is no such proxy, or a second and different one.
    pub fn proxy(self, url: &str) -> Result<Self, PolicyError> {
        self.add(Key::Proxy, url)
    }

    /// Lets the sandbox reach a proxy at `ADDRESS:PORT` itself.
    ///
    /// # Errors
    /// A text that is no such address, or a second and different one.
    pub fn proxy_at(self, address: &str) -> Result<Self, PolicyError> {
        self.add(Key::ProxyAt, address)
    }

    /// Lets TCP out to `HOST:PORT`, past the proxy.
    ///
    /// # Errors
    /// A text that is no such endpoint.
    pub fn direct(self, endpoint: &str) -> Result<Self, PolicyError> {
        self.add(Key::Direct, endpoint)
    }

    /// Lets UDP out to `HOST:PORT`.
    ///
    /// # Errors
    /// A text that is no such endpoint.
    pub fn direct_udp(self, endpoint: &str) -> Result<Self, PolicyError> {
        self.add(Key::DirectUdp, endpoint)
    }

    /// Lets TCP out to port 443 of a host.
    ///
    /// # Errors
    /// A text that is no host.
    pub fn direct_host(self, host: &str) -> Result<Self, PolicyError> {
        self.add(Key::DirectHost, host)
    }

    /// Says who answers questions about names.
    ///
    /// # Errors
    /// A text that is none of `auto`, `open`, `off` and `ADDRESS[:PORT]`, or a second and different one.
    pub fn dns(self, mode: &str) -> Result<Self, PolicyError> {
        self.add(Key::Dns, mode)
    }

    /// Says for how many seconds an address of a direct name stays open after its answer has run out.
    ///
    /// # Errors
    /// A text that is no number from 0 to 86400, or a second and different one.
    pub fn dns_grace(self, seconds: &str) -> Result<Self, PolicyError> {
        self.add(Key::DnsGrace, seconds)
    }

    /// Lets a name (or `*.NAME`) have private addresses, though it looks public.
    ///
    /// # Errors
    /// A text that is no such name.
    pub fn private_name(self, name: &str) -> Result<Self, PolicyError> {
        self.add(Key::PrivateName, name)
    }

    /// Lets everything pass and logs it, or not.
    ///
    /// # Errors
    /// The opposite of what was said before.
    pub fn audit(self, audit: bool) -> Result<Self, PolicyError> {
        self.add(Key::Audit, if audit { "true" } else { "false" })
    }

    /// Says what is done about somebody who changes the rules: `report`, `mend` or `end`.
    ///
    /// # Errors
    /// Another word, or a second and different one.
    pub fn tampering(self, what: &str) -> Result<Self, PolicyError> {
        self.add(Key::Tampering, what)
    }

    /// Takes the sandbox's addresses from a prefix: one of each family at most.
    ///
    /// # Errors
    /// A text that is no prefix that can be used so.
    pub fn pool(self, prefix: &str) -> Result<Self, PolicyError> {
        self.add(Key::Pool, prefix)
    }

    /// Finishes the policy.
    ///
    /// # Errors
    /// Values that contradict each other.
    pub fn build(self) -> Result<Policy, PolicyError> {
        Ok(Settings::from_layers([self.layer])?.policy)
    }

    fn add(mut self, key: Key, text: &str) -> Result<Self, PolicyError> {
        self.layer.add(key, text, &Origin::Api)?;
        Ok(self)
    }
}

/// A policy, and how the command runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Settings {
    /// Who may be reached.
    pub policy: Policy,
    /// How the command runs.
    pub run: RunOptions,
}

impl Settings {
    /// Merges layers, the strongest first, key by key ([`Layer::over`]), and fills in what nobody said.
    ///
    /// Of entries that stand twice the first stays; of variables of one name, the last.
    ///
    /// # Errors
    /// Values that contradict each other, wherever they came from.
    pub fn from_layers(layers: impl IntoIterator<Item = Layer>) -> Result<Self, PolicyError> {
        let said = layers.into_iter().fold(Layer::new(), Layer::over);
        contradictions(&said)?;
        let default = Self::default();
        let pool_origin = said.pool.iter().flatten().next().map_or(Origin::Default, |prefix| prefix.origin.clone());
        let direct = [said.direct, said.direct_udp, said.direct_host].into_iter().flatten().flatten();
        Ok(Self {
            policy: Policy {
                allow: first_of_each(said.allow.into_iter().flatten()),
                credentials: first_of_each(said.credential.into_iter().flatten()),
                sni: said.sni.unwrap_or(default.policy.sni),
                proxy: said.proxy,
                proxy_at: said.proxy_at,
                direct: first_of_each(direct),
                dns: said.dns.unwrap_or(default.policy.dns),
                dns_grace: said.dns_grace.unwrap_or(default.policy.dns_grace),
                private_names: first_of_each(said.private_name.into_iter().flatten()),
                audit: said.audit.unwrap_or(default.policy.audit),
                tampering: said.tampering.unwrap_or(default.policy.tampering),
                pool: Sourced::new(pool(said.pool.as_deref().unwrap_or_default())?, pool_origin),
            },
            run: RunOptions {
                user: said.user,
                env: last_of_each(said.env.unwrap_or_default()),
                capabilities: capabilities(said.drop_caps, said.keep_caps),
                name: said.name,
                share_pid: said.share_pid.unwrap_or(default.run.share_pid),
                landlock: said.landlock,
                ro: first_of_each(said.ro.into_iter().flatten()),
                rw: first_of_each(said.rw.into_iter().flatten()),
                seccomp: said.seccomp.unwrap_or(default.run.seccomp),
                events: said.events,
                events_format: said.events_format.unwrap_or(default.run.events_format),
                metrics: said.metrics,
                learn: said.learn,
            },
        })
    }
}

/// Refuses credentials that share a name, that a variable of the policy's own would cover up, or that no proxy would put in.
fn credentials(said: &Layer) -> Result<(), PolicyError> {
    let all = said.credential.as_deref().unwrap_or_default();
    for (index, Sourced { value, origin }) in all.iter().enumerate() {
        let refuse = |expected: &str, reason: String| {
            Err(PolicyError::new(expected, value.name.as_str()).because(reason).at(origin.clone()))
        };
        if let Some(first) = all[..index].iter().find(|first| first.value.name == value.name && first.value != *value) {
            return refuse("the only credential of its name", format!("{} says another", first.origin));
        }
        if let Some(set) = said.env.iter().flatten().find(|variable| variable.value.name == value.name.as_str()) {
            return refuse("a variable for a placeholder", format!("{} sets it to something else", set.origin));
        }
        if said.allow.iter().flatten().next().is_none() && said.proxy.is_none() {
            let reason = "the built-in proxy puts it in, and is there with `allow` or `proxy` alone".to_owned();
            return refuse("possible without the built-in proxy", reason);
        }
    }
    Ok(())
}

fn contradictions(said: &Layer) -> Result<(), PolicyError> {
    credentials(said)?;
    if let Some(learn) = &said.learn
        && !said.audit.as_ref().is_some_and(|audit| audit.value)
    {
        return Err(PolicyError::new("possible without `audit`", format!("learn = {}", learn.value))
            .because("what would be refused is learned while it passes")
            .at(learn.origin.clone()));
    }
    if let Some(proxy_at) = &said.proxy_at {
        let beside = |what: &str, other: String, origin: &Origin| {
            Err(PolicyError::new(format!("possible beside `{what}`"), format!("proxy-at = {}", proxy_at.value))
                .because(format!("{origin} says `{other}`; with a proxy of its own address no other is started"))
                .at(proxy_at.origin.clone()))
        };
        if let Some(allow) = said.allow.iter().flatten().next() {
            return beside("allow", allow.value.to_string(), &allow.origin);
        }
        if let Some(proxy) = &said.proxy {
            return beside("proxy", proxy.value.to_string(), &proxy.origin);
        }
    }
    if let Some(dns) = &said.dns {
        wildcards(dns, [&said.direct, &said.direct_udp, &said.direct_host].into_iter().flatten().flatten())?;
    }
    if let (Some(Sourced { value: true, origin }), Some(kept)) = (&said.drop_caps, &said.keep_caps) {
        let error = PolicyError::new("possible beside `keep-caps`", "drop-caps").at(origin.clone());
        return Err(match kept.first() {
            Some(first) => error.because(format!("{} keeps `{}`", first.origin, first.value)),
            None => error,
        });
    }
    Ok(())
}

/// A wildcard says which names, and not which addresses: somebody has to hear the answers.
fn wildcards<'a>(
    dns: &Sourced<DnsMode>,
    mut direct: impl Iterator<Item = &'a Sourced<Endpoint>>,
) -> Result<(), PolicyError> {
    let wild = |to: &&Sourced<Endpoint>| matches!(to.value.host, EndpointHost::Pattern(HostPattern::Below(_)));
    match direct.find(wild) {
        Some(Sourced { value, origin }) if !dns.value.is_built_in() => {
            Err(PolicyError::new(format!("possible beside `dns = {}`", dns.value), value.to_string())
                .because(format!(
                    "{} says `{}`; a wildcard direct endpoint needs the built-in resolver: `auto` or `open`",
                    dns.origin, dns.value
                ))
                .at(origin.clone()))
        }
        _ => Ok(()),
    }
}

fn capabilities(drop: Option<Sourced<bool>>, keep: Option<Vec<Sourced<super::Capability>>>) -> Sourced<Capabilities> {
    match (drop, keep.as_deref()) {
        (Some(Sourced { value: true, origin }), _) => Sourced::new(Capabilities::None, origin),
        (_, Some([first, rest @ ..])) => {
            let kept = std::iter::once(first).chain(rest).map(|capability| capability.value).collect();
            Sourced::new(Capabilities::Keep(kept), first.origin.clone())
        }
        (Some(Sourced { value: false, origin }), _) => Sourced::new(Capabilities::Default, origin),
        (None, _) => Sourced::new(Capabilities::Default, Origin::Default),
    }
}

fn first_of_each<T: Clone + Eq + Hash>(all: impl Iterator<Item = Sourced<T>>) -> Vec<Sourced<T>> {
    let mut seen = HashSet::new();
    all.filter(|entry| seen.insert(entry.value.clone())).collect()
}

/// As env(1): who says a name again means the later value. It keeps the place of the first.
fn last_of_each(all: Vec<Sourced<super::EnvVar>>) -> Vec<Sourced<super::EnvVar>> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut kept: Vec<Sourced<super::EnvVar>> = Vec::new();
    for variable in all {
        match places.get(&variable.value.name) {
            Some(place) => kept[*place] = variable,
            None => {
                places.insert(variable.value.name.clone(), kept.len());
                kept.push(variable);
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Variables;
    use std::path::Path;

    fn flags(flags: &[(Key, &str)]) -> Layer {
        let mut layer = Layer::new();
        for (key, text) in flags {
            layer.flag(*key, text).unwrap();
        }
        layer
    }

    #[test]
    fn nothing_said_is_nothing_let_out() {
        let settings = Settings::from_layers([]).unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!(settings.policy, Policy::builder().build().unwrap());
        assert!(settings.policy.allow.is_empty() && settings.policy.direct.is_empty());
        assert_eq!((settings.policy.dns.value, settings.policy.dns.origin), (DnsMode::Auto, Origin::Default));
        assert_eq!(settings.run.capabilities.value, Capabilities::Default);
    }

    #[test]
    fn a_flag_beats_a_variable_beats_the_file() {
        let file = Layer::from_toml(
            b"direct = ['f:1', 'f:2']\ndirect-udp = 'f:3'\ndirect-host = 'f'\ndns = 'off'\naudit = true\nallow = 'f'",
            Path::new("p.toml"),
        );
        let variables = Variables::parse(|name| match name {
            "RINGFENCE_DIRECT_TCP_ENDPOINTS" => Some("v:1".into()),
            "OPENSHELL_DIRECT_TCP_HOSTS" => Some("v".into()),
            "RINGFENCE_DNS_SERVER" => Some("203.0.113.53".into()),
            _ => None,
        });
        let flags = flags(&[(Key::Direct, "a:1"), (Key::Audit, "false")]);
        let policy = Settings::from_layers([flags, variables.unwrap().layer, file.unwrap()]).unwrap().policy;
        let direct: Vec<_> = policy.direct.iter().map(|e| format!("{} from {}", e.value, e.origin)).collect();
        assert_eq!(direct, ["a:1 from --direct", "f:3 from p.toml:2:14", "v:443 from OPENSHELL_DIRECT_TCP_HOSTS"]);
        assert_eq!(policy.dns.origin.to_string(), "RINGFENCE_DNS_SERVER");
        assert_eq!((policy.audit.value, policy.audit.origin.to_string().as_str()), (false, "--audit"));
        assert_eq!(policy.allow[0].origin.to_string(), "p.toml:6:9");
    }

    #[test]
    fn what_stands_twice_is_kept_once() {
        let said = flags(&[
            (Key::DirectHost, "a"),
            (Key::Direct, "a:443,A.:443,b:1"),
            (Key::DirectUdp, "a:443"),
            (Key::Allow, "x,203.0.113.9/32,X.,203.0.113.9"),
            (Key::Env, "A=1"),
            (Key::Env, "B=2"),
            (Key::Env, "A=3"),
            (Key::KeepCaps, "kill,CAP_KILL"),
        ]);
        let Settings { policy, run } = Settings::from_layers([said]).unwrap();
        let direct: Vec<_> =
            policy.direct.iter().map(|e| format!("{}/{} {}", e.value, e.value.transport, e.origin)).collect();
        assert_eq!(direct, ["a:443/tcp --direct", "b:1/tcp --direct", "a:443/udp --direct-udp"]);
        let allow: Vec<_> = policy.allow.iter().map(|entry| entry.value.to_string()).collect();
        assert_eq!(allow, ["x", "203.0.113.9"]);
        let env: Vec<_> = run.env.iter().map(|variable| variable.value.to_string()).collect();
        assert_eq!(env, ["A=3", "B=2"]);
        let kill = "KILL".parse().unwrap();
        assert_eq!(run.capabilities.value, Capabilities::Keep([kill].into()));
    }

    #[test]
    fn contradictions_name_both_sides() {
        let file = || Layer::from_toml(b"allow = 'a'\nkeep-caps = 'kill'", Path::new("p.toml")).unwrap();
        let proxy_at = (Key::ProxyAt, "203.0.113.9:3128");
        for (layers, error) in [
            (
                vec![flags(&[proxy_at]), file()],
                "--proxy-at: `proxy-at = 203.0.113.9:3128` is not possible beside `allow` (p.toml:1:9 says `a`; with a proxy of its own address no other is started)",
            ),
            (
                vec![flags(&[proxy_at, (Key::Proxy, "http://u:secret@h:1")])],
                "--proxy-at: `proxy-at = 203.0.113.9:3128` is not possible beside `proxy` (--proxy says `http://<redacted>@h:1`; with a proxy of its own address no other is started)",
            ),
            (
                vec![flags(&[(Key::DropCaps, "true"), (Key::KeepCaps, "kill")])],
                "--drop-caps: `drop-caps` is not possible beside `keep-caps` (--keep-caps keeps `CAP_KILL`)",
            ),
            (
                vec![
                    flags(&[(Key::DirectHost, "*.example.com")]),
                    Layer::from_toml(b"dns = '203.0.113.53'", Path::new("p.toml")).unwrap(),
                ],
                "--direct-host: `*.example.com:443` is not possible beside `dns = 203.0.113.53` (p.toml:1:7 says `203.0.113.53`; a wildcard direct endpoint needs the built-in resolver: `auto` or `open`)",
            ),
            (
                vec![flags(&[(Key::Dns, "off"), (Key::DirectUdp, "*.example.com:53")])],
                "--direct-udp: `*.example.com:53` is not possible beside `dns = off` (--dns says `off`; a wildcard direct endpoint needs the built-in resolver: `auto` or `open`)",
            ),
            (
                vec![flags(&[(Key::Pool, "10.1.0.0/16,10.2.0.0/16")])],
                "--pool: `10.2.0.0/16` is not the only prefix of its family (--pool says `10.1.0.0/16`)",
            ),
        ] {
            assert_eq!(Settings::from_layers(layers).unwrap_err().to_string(), error);
        }
        // A stronger layer settles it.
        assert_eq!(
            Settings::from_layers([flags(&[(Key::DropCaps, "true")]), file()]).unwrap().run.capabilities.value,
            Capabilities::None
        );
        assert!(Settings::from_layers([flags(&[(Key::Allow, "a"), (Key::Proxy, "h:1")])]).is_ok());
        assert!(Settings::from_layers([flags(&[proxy_at, (Key::Direct, "a:1")])]).is_ok());
    }

    #[test]
    fn the_builder_takes_what_flags_take() {
        let policy = Policy::builder()
            .allow("example.com:443")
            .and_then(|policy| policy.proxy("http://u:secret@proxy.example:3128"))
            .and_then(|policy| policy.direct("203.0.113.9:5432,a:1"))
            .and_then(|policy| policy.direct_udp("203.0.113.9:123"))
            .and_then(|policy| policy.direct_host("b"))
            .and_then(|policy| policy.dns("open"))
            .and_then(|policy| policy.dns_grace("0"))
            .and_then(|policy| policy.private_name("*.b.example"))
            .and_then(|policy| policy.audit(true))
            .and_then(|policy| policy.tampering("end"))
            .and_then(|policy| policy.pool("10.1.0.0/16"))
            .and_then(PolicyBuilder::build)
            .unwrap();
        assert_eq!((policy.allow.len(), policy.direct.len(), policy.audit.value), (1, 4, true));
        assert!(policy.direct.iter().all(|endpoint| endpoint.origin == Origin::Api));
        assert_eq!(policy.pool.origin, Origin::Api);
        let both = Policy::builder().allow("a").and_then(|policy| policy.proxy_at("203.0.113.9:1"));
        assert!(both.and_then(PolicyBuilder::build).is_err());
        for shown in [
            format!("{policy:?}"),
            serde_json::to_string(&policy).unwrap(),
            format!("{:?}", Policy::builder().proxy("http://u:secret@h:1")),
        ] {
            assert!(shown.contains("<redacted>") && !shown.contains("secret"), "{shown}");
        }
    }
}
