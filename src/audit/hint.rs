//! What to do about a refusal: the entry of a policy that would allow it, and a word about programs that are known for it.

use std::net::IpAddr;

use super::{Attempt, Identity};
use crate::policy::special::{self, Class};
use crate::policy::{Endpoint, Key, Transport};

/// What there is in a sandbox that a hint may point to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Scene {
    /// Where an HTTP proxy is reached from inside, as `HOST:PORT`.
    pub proxy: Option<String>,
    /// Whether a resolver answers inside.
    pub resolver: bool,
    /// The host's ends of the wire.
    pub gateways: Vec<IpAddr>,
}

/// An entry of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Flag, and key of a policy file.
    pub key: Key,
    /// Value.
    pub value: String,
}

impl Entry {
    /// As arguments of a command line, quoted for a shell where that is needed: `--direct '*.example.com'`.
    pub fn flag(&self) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.,:/@%+=".contains(c);
        // Names and addresses have no quote of their own; what a program made up may.
        if self.value.chars().all(plain) && !self.value.is_empty() {
            format!("--{} {}", self.key, self.value)
        } else {
            format!("--{} '{}'", self.key, self.value.replace('\'', r"'\''"))
        }
    }

    /// As a line of a policy file: `direct = ["203.0.113.9:5432"]`.
    pub fn policy(&self) -> String {
        // What stands in an entry that parses needs no escape.
        format!("{} = [\"{}\"]", self.key, self.value)
    }
}

/// The entry that would let a refused packet out; `None` where no policy can.
pub fn entry(attempt: &Attempt) -> Option<Entry> {
    let (key, transport) = match attempt.proto.as_deref()? {
        "tcp" => (Key::Direct, Transport::Tcp),
        "udp" => (Key::DirectUdp, Transport::Udp),
        _ => return None,
    };
    let (dst, port) = (attempt.dst?, attempt.dport?);
    // The sender's fragments and options are refused, whatever the destination.
    if attempt.rule.as_deref().is_some_and(|rule| !rule.ends_with(attempt.proto.as_deref().unwrap_or_default())) {
        return None;
    }
    let address = match dst {
        IpAddr::V4(dst) => format!("{dst}:{port}"),
        IpAddr::V6(dst) => format!("[{dst}]:{port}"),
    };
    let value = attempt.host.as_ref().map_or(address, |host| format!("{host}:{port}"));
    // A hint that the policy's own parser refuses would help nobody.
    Endpoint::parse(&value, transport).ok()?;
    Some(Entry { key, value })
}

/// What to do about a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Advice {
    /// What it was for, and what else there is to do.
    pub text: Option<String>,
    /// What would allow it.
    pub entry: Option<Entry>,
}

impl Advice {
    /// Advice in so many words, with the entry that would allow it.
    pub fn new(text: impl Into<String>, entry: Option<Entry>) -> Self {
        Self { text: Some(text.into()), entry }
    }

    /// Both in one line; nothing when there is nothing to say.
    pub fn line(&self) -> Option<String> {
        match (&self.text, &self.entry) {
            (Some(text), Some(entry)) => Some(format!("{text}; to let it out: {}", entry.flag())),
            (None, Some(entry)) => Some(format!("to let it out: {}", entry.flag())),
            (text, None) => text.clone(),
        }
    }
}

/// What a person would like to be told of a refused packet.
///
/// Each word is true of every packet that it is told of, or says what it depends on.
pub fn advice(attempt: &Attempt, scene: &Scene) -> Advice {
    Advice { text: text(attempt, scene), entry: entry(attempt) }
}

fn text(attempt: &Attempt, scene: &Scene) -> Option<String> {
    let proto = attempt.proto.as_deref()?;
    let dst = attempt.dst?;
    let udp = proto == "udp";
    let tcp = proto == "tcp";
    match attempt.rule.as_deref() {
        Some("bypass-malformed") => {
            return Some("fragments and IP options are refused whatever their destination".into());
        }
        Some("bypass-forward") => return Some("a sandbox forwards for nobody".into()),
        _ => {}
    }
    if scene.gateways.contains(&dst) {
        return Some("this is the host's end of the sandbox's wire, and nothing is served there".into());
    }
    let class = special::class(dst);
    match class {
        Some(Class::Metadata) => {
            return Some(
                "a cloud's metadata service hands out the host's credentials: allow it only on purpose".into(),
            );
        }
        Some(Class::Multicast | Class::Broadcast) => return Some(multicast(attempt.dport).into()),
        _ => {}
    }
    match (proto, attempt.dport) {
        ("icmp" | "icmpv6", _) => return Some("ping does not leave a sandbox: try a connection instead".into()),
        ("tcp" | "udp", Some(53)) => return Some(dns(scene).into()),
        ("tcp" | "udp", Some(853)) => {
            return Some(format!("DNS over {} goes past the sandbox's resolver", if tcp { "TLS" } else { "QUIC" }));
        }
        ("tcp" | "udp", Some(443)) if resolves_publicly(dst) => {
            return Some("DNS over HTTPS to a public resolver: switch it off in the program, and names are asked for in the usual way".into());
        }
        ("udp", Some(443)) => {
            return Some("QUIC (HTTP/3) knows no proxy; most programs go on over TCP by themselves".into());
        }
        ("udp", Some(123)) => {
            return Some(
                "a clock is asked for the time: the sandbox has the host's clock, which is set already".into(),
            );
        }
        ("udp", Some(137 | 138)) => return Some("NetBIOS looks for neighbours, and there are none".into()),
        _ => {}
    }
    if udp {
        return None;
    }
    if !tcp {
        return Some(format!("of {proto} nothing leaves a sandbox: TCP and UDP endpoints can be allowed"));
    }
    tcp_text(attempt, scene)
}

/// Of TCP: protocols that no HTTP proxy serves, then programs that do not ask one.
fn tcp_text(attempt: &Attempt, scene: &Scene) -> Option<String> {
    let port = attempt.dport?;
    let speaks = match port {
        22 => return Some("SSH knows no HTTP proxy; git can use https instead (git config --global url.https://HOST/.insteadOf git@HOST:)".into()),
        9418 => return Some("the git protocol knows no HTTP proxy: use an https URL".into()),
        5432 => Some("PostgreSQL"),
        3306 => Some("MySQL"),
        6379 => Some("Redis"),
        27017 => Some("MongoDB"),
        1433 => Some("SQL Server"),
        5672 => Some("AMQP"),
        9092 => Some("Kafka"),
        11211 => Some("memcached"),
        25 | 465 | 587 => Some("SMTP"),
        _ => None,
    };
    if let Some(name) = speaks {
        return Some(format!("{name} clients know no HTTP proxy and need a direct endpoint"));
    }
    let Some(proxy) = &scene.proxy else {
        return match port {
            80 | 443 => Some(
                "there is no proxy in this sandbox; --allow NAME starts one for programs that honour HTTPS_PROXY"
                    .into(),
            ),
            _ => None,
        };
    };
    let (host, proxy_port) = proxy.rsplit_once(':').unwrap_or((proxy, ""));
    Some(match program(attempt).unwrap_or_default() {
        "node" | "bun" | "deno" | "npm" | "electron" => "went past the proxy: fetch asks it with NODE_USE_ENV_PROXY=1 (Node 22.21, 24), which is set here; \
            `ws` and other modules need an agent (https-proxy-agent)"
            .into(),
        "java" => format!(
            "Java reads no proxy variables: java -Dhttps.proxyHost={host} -Dhttps.proxyPort={proxy_port} \
             -Dhttp.proxyHost={host} -Dhttp.proxyPort={proxy_port}, or the same in JAVA_TOOL_OPTIONS"
        ),
        name if name.starts_with("python") => {
            "went past the proxy: requests, urllib and httpx ask it by themselves, aiohttp with trust_env=True, grpc by grpc_proxy; \
             sockets of its own do not"
                .into()
        }
        "curl" | "wget" | "git" | "pip" | "cargo" => {
            "this program asks a proxy unless told otherwise: look at NO_PROXY, and at options and settings of its own".into()
        }
        _ if matches!(port, 80 | 443) => {
            "went past the proxy, which HTTP_PROXY and HTTPS_PROXY name; a Go program asks it if its Transport has \
             Proxy: http.ProxyFromEnvironment"
                .into()
        }
        _ => return None,
    })
}

fn multicast(port: Option<u16>) -> &'static str {
    match port {
        Some(5353) => "mDNS looks for neighbours, and there are none: multicast never leaves a sandbox",
        Some(1900) => "SSDP (UPnP) looks for neighbours, and there are none: multicast never leaves a sandbox",
        Some(5355) => "LLMNR looks for neighbours, and there are none: multicast never leaves a sandbox",
        Some(67 | 547) => "DHCP asks for an address, and the sandbox has one",
        _ => "multicast and broadcast never leave a sandbox",
    }
}

fn dns(scene: &Scene) -> &'static str {
    if scene.resolver {
        "the sandbox's own resolver answers for the policy's names, and this is another one"
    } else {
        "no resolver answers in this sandbox; a proxy resolves for programs that ask it"
    }
}

/// Whether that is one of the resolvers that programs have built in for DNS over HTTPS.
fn resolves_publicly(address: IpAddr) -> bool {
    const KNOWN: [&str; 14] = [
        "1.1.1.1",
        "1.0.0.1",
        "1.1.1.2",
        "1.1.1.3",
        "8.8.8.8",
        "8.8.4.4",
        "9.9.9.9",
        "149.112.112.112",
        "208.67.222.222",
        "2606:4700:4700::1111",
        "2606:4700:4700::1001",
        "2001:4860:4860::8888",
        "2001:4860:4860::8844",
        "2620:fe::fe",
    ];
    KNOWN.iter().any(|known| known.parse() == Ok(address))
}

/// The name of the program's file, or what it calls itself.
fn program(attempt: &Attempt) -> Option<&str> {
    let process = attempt.identity.as_ref().and_then(Identity::process)?;
    let exe = process.exe.as_deref().and_then(|exe| exe.rsplit('/').next());
    exe.filter(|name| !name.is_empty()).or(Some(&process.comm))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::audit::Process;

    fn attempt(proto: &str, dst: &str, dport: u16) -> Attempt {
        let mut attempt = Attempt::at(UNIX_EPOCH);
        attempt.proto = Some(proto.to_owned());
        attempt.dst = Some(dst.parse().unwrap());
        attempt.dport = Some(dport);
        attempt.rule = Some(format!("bypass-{proto}"));
        attempt
    }

    fn scene() -> Scene {
        Scene {
            proxy: Some("127.0.0.1:3128".to_owned()),
            resolver: true,
            gateways: vec!["10.200.0.1".parse().unwrap()],
        }
    }

    fn by(exe: &str, mut attempt: Attempt) -> Attempt {
        attempt.identity = Some(Identity::Exact(Process {
            comm: "other".to_owned(),
            exe: Some(exe.to_owned()),
            ..Process::default()
        }));
        attempt
    }

    #[test]
    fn what_a_flag_can_allow_has_one_that_parses() {
        for (proto, dst, dport, flag) in [
            ("tcp", "203.0.113.9", 443, Some("--direct 203.0.113.9:443")),
            ("tcp", "2001:db8::9", 22, Some("--direct '[2001:db8::9]:22'")),
            ("udp", "203.0.113.9", 53, Some("--direct-udp 203.0.113.9:53")),
            ("udp", "224.0.0.251", 5353, None),
            ("tcp", "fe80::1", 80, None),
            ("sctp", "203.0.113.9", 80, None),
            ("tcp", "203.0.113.9", 0, None),
        ] {
            assert_eq!(entry(&attempt(proto, dst, dport)).map(|entry| entry.flag()).as_deref(), flag, "{proto} {dst}");
        }
        let mut named = attempt("tcp", "203.0.113.9", 443);
        named.host = Some("api.example.com".to_owned());
        assert_eq!(entry(&named).unwrap().policy(), r#"direct = ["api.example.com:443"]"#);
        // Allowing the destination would not let a fragment out.
        named.rule = Some("bypass-malformed".to_owned());
        assert_eq!(entry(&named), None);
    }

    #[test]
    fn a_flag_is_safe_to_paste() {
        let entry = |value: &str| Entry { key: Key::Allow, value: value.to_owned() }.flag();
        assert_eq!(entry("*.example.com:443"), "--allow '*.example.com:443'");
        assert_eq!(entry("[2001:db8::9]:1"), "--allow '[2001:db8::9]:1'");
        assert_eq!(entry("a'; rm -rf"), r"--allow 'a'\''; rm -rf'");
        assert_eq!(entry("example.com"), "--allow example.com");
    }

    #[test]
    fn usual_offenders_are_known() {
        for (attempt, word) in [
            (attempt("tcp", "169.254.169.254", 80), "metadata"),
            (attempt("udp", "203.0.113.9", 53), "resolver"),
            (attempt("tcp", "203.0.113.9", 853), "DNS over TLS"),
            (attempt("tcp", "8.8.8.8", 443), "DNS over HTTPS"),
            (attempt("udp", "203.0.113.9", 443), "QUIC"),
            (attempt("udp", "203.0.113.9", 123), "clock"),
            (attempt("icmp", "203.0.113.9", 0), "ping"),
            (attempt("udp", "224.0.0.251", 5353), "mDNS"),
            (attempt("udp", "239.255.255.250", 1900), "SSDP"),
            (attempt("tcp", "203.0.113.9", 22), "SSH"),
            (attempt("tcp", "203.0.113.9", 5432), "PostgreSQL"),
            (attempt("tcp", "203.0.113.9", 6379), "Redis"),
            (attempt("tcp", "10.200.0.1", 22), "the host's end"),
            (attempt("sctp", "203.0.113.9", 22), "of sctp nothing"),
            (attempt("tcp", "203.0.113.9", 443), "http.ProxyFromEnvironment"),
            (by("/usr/bin/node", attempt("tcp", "203.0.113.9", 443)), "`ws`"),
            (
                by("/opt/jdk/bin/java", attempt("tcp", "203.0.113.9", 8443)),
                "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=3128",
            ),
            (by("/usr/bin/python3.13", attempt("tcp", "203.0.113.9", 50051)), "grpc_proxy"),
            (by("/usr/bin/curl", attempt("tcp", "203.0.113.9", 443)), "NO_PROXY"),
        ] {
            let line = advice(&attempt, &scene()).line().unwrap_or_default();
            assert!(line.contains(word), "{attempt:?}: {line}");
        }
        // Nothing is known of it but what would allow it.
        let plain = advice(&attempt("udp", "203.0.113.9", 7777), &scene());
        assert_eq!(plain.line().as_deref(), Some("to let it out: --direct-udp 203.0.113.9:7777"));
    }
}
