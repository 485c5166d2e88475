//! Parsers of what people write.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fmt::{Debug, Display};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::str::FromStr;

use ringfence::kernel::identity::Way;
use ringfence::kernel::passwd::Account;
use ringfence::link::VethPair;
use ringfence::nft::{InterfaceName, Ruleset};
use ringfence::parsers::{identity_map, read_answer, read_order};
use ringfence::plan::{Format, HostView, Plan};
use ringfence::policy::*;
use ringfence::wire::nftables;

/// Tries every parser of the policy's. A value that one takes shows as itself; an error is one printable line.
pub fn policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    round_trip(text, DnsName::from_str);
    round_trip(text, Host::from_str);
    round_trip(text, HostPattern::from_str);
    round_trip(text, AllowEntry::from_str);
    round_trip(text, |text| Endpoint::parse(text, Transport::Tcp));
    round_trip(text, |text| Endpoint::parse(text, Transport::Udp));
    round_trip(text, ProxyAt::from_str);
    round_trip(text, DnsMode::from_str);
    round_trip(text, PoolPrefix::from_str);
    round_trip(text, Capability::from_str);
    round_trip(text, User::from_str);
    round_trip(text, EnvVar::from_str);
    round_trip(text, SandboxName::from_str);
    round_trip(text, DnsGrace::from_str);
    round_trip(text, EventsTo::from_str);
    round_trip(text, EventsFormat::from_str);
    round_trip(text, LearnTo::from_str);
    round_trip(text, MetricsTo::from_str);
    round_trip(text, LandlockMode::from_str);
    round_trip(text, FilePath::from_str);
    if let Ok(way) = text.parse::<Way>() {
        assert_eq!(way.to_string(), text);
    }
    // Shown with its port, which a direct host does not take back.
    if let Err(error) = Endpoint::parse_host(text) {
        one_line(&error);
    }
    match text.parse::<ProxyUrl>() {
        Ok(url) if url.credentials.is_none() => round_trip(text, ProxyUrl::from_str),
        // Shown without its password.
        Ok(_) => {}
        Err(error) => one_line(&error),
    }
    // What one entry lets through does not depend on how it is spelled.
    if let (Ok(entry), Ok(host)) = (text.parse::<AllowEntry>(), text.parse::<Host>()) {
        let port = entry.port.map_or(443, |port| port.get());
        assert!(entry.matches(&host, port), "{entry} does not cover {host}");
    }
}

fn round_trip<T: PartialEq + Debug + Display>(text: &str, parse: impl Fn(&str) -> Result<T, PolicyError>) {
    match parse(text) {
        Ok(value) => {
            let shown = value.to_string();
            assert_eq!(parse(&shown).as_ref(), Ok(&value), "{text:?} is shown as {shown:?}");
        }
        Err(error) => one_line(&error),
    }
}

fn one_line(error: &PolicyError) {
    let line = error.to_string();
    assert!(!line.contains(char::is_control), "{line:?}");
    assert!(line.chars().count() < 2000, "{line}");
}

/// Reads a policy file, and makes of it what `run` would: settings, a plan, a batch for the kernel.
pub fn toml(bytes: &[u8]) {
    match Layer::from_toml(bytes, Path::new("policy.toml")).and_then(|layer| Settings::from_layers([layer])) {
        Ok(settings) => {
            plan(&settings.policy);
            // What is written of it, as orders and audits do, says the same.
            let written = settings.policy.to_toml_with_credentials();
            let again = Layer::from_toml(written.as_bytes(), Path::new("written.toml"))
                .and_then(|layer| Settings::from_layers([layer]))
                .unwrap_or_else(|error| panic!("{error}\n{written}"));
            assert_eq!(again.policy.to_toml_with_credentials(), written);
        }
        Err(error) => one_line(&error),
    }
}

/// Reads an order on the control socket. One that is refused is refused in one line.
pub fn order(bytes: &[u8]) {
    if let Err(error) = read_order(bytes) {
        let line = error.chain().to_string();
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}

/// Reads what answers to the name of a sandbox, and a user namespace's map. An error is one line; every number of a map is given to itself.
pub fn answer(bytes: &[u8]) {
    let name: SandboxName = "box".parse().expect("a name");
    if let Err(error) = read_answer(&name, bytes) {
        let line = error.chain();
        assert!(!line.contains(char::is_control), "{line:?}");
    }
    let Some((map, last)) = std::str::from_utf8(bytes).ok().and_then(identity_map) else { return };
    let lines = map.lines().map(|line| line.split(' ').map(|number| number.parse().expect("a number")).collect());
    let lasts = lines.map(|line: Vec<u32>| {
        assert!(line.len() == 3 && line[0] == line[1] && line[2] > 0, "{map}");
        line[0].checked_add(line[2] - 1).expect("a number that there is")
    });
    assert_eq!(lasts.max(), Some(last));
}

/// Reads the environment: one value a line, in the order of the variables' names.
pub fn variables(bytes: &[u8]) {
    let values: BTreeMap<&str, OsString> = Variables::names()
        .zip(bytes.split(|byte| *byte == b'\n').map(|value| OsString::from_vec(value.to_vec())))
        .collect();
    match Variables::parse(|name| values.get(name).cloned()).and_then(|read| Settings::from_layers([read.layer])) {
        Ok(settings) => plan(&settings.policy),
        Err(error) => one_line(&error),
    }
}

/// A policy that was taken can be planned, shown and encoded, and its plan lets out what it names and nothing else.
fn plan(policy: &Policy) {
    let Some(addresses) = policy.pool.value.slot(0) else { return };
    let name = |name| InterfaceName::new(name).expect("a short name");
    let answer: [IpAddr; 2] = [Ipv4Addr::new(203, 0, 113, 9).into(), Ipv6Addr::from_str("2001:db8::9").unwrap().into()];
    let names = policy.direct.iter().filter_map(|endpoint| match &endpoint.value.host {
        EndpointHost::Pattern(HostPattern::Exact(name)) => Some((name.clone(), answer.to_vec())),
        EndpointHost::Pattern(HostPattern::Below(_)) | EndpointHost::Address(_) => None,
    });
    let host = HostView {
        wire: VethPair { host: name("rf0"), sandbox: name("eth0"), addresses },
        host_index: 7,
        table_suffix: "0".to_owned(),
        resolved: names.collect(),
        no_proxy: None,
    };
    let plan = Plan::new(policy, &host).expect("every name has an address");
    let named: HashSet<IpAddr> = policy
        .direct
        .iter()
        .filter_map(|endpoint| match endpoint.value.host {
            EndpointHost::Address(address) => Some(address),
            EndpointHost::Pattern(_) => None,
        })
        .chain(policy.proxy_at.iter().map(|at| at.value.address))
        .chain(policy.dns.value.server().map(|server| server.ip()))
        .chain(answer)
        .collect();
    for to in &plan.direct {
        assert!(named.contains(&to.address), "{} is let out, and nobody named it", to.address);
    }
    for format in [Format::Text, Format::Json, Format::Nft, Format::Dot] {
        assert!(!plan.show(format).is_empty());
    }
    for ruleset in [&plan.inside, &plan.outside] {
        nftables::encode(&ruleset.create()).expect("a plan can be encoded");
    }
}

/// Reads a saved ruleset. One that was taken is written and read to itself, can be shown in nft(8) syntax, and can be handed to
/// libnftnl, which may be asked to hold more than it can. One that was not taken is wrong in a line, which is told in few words.
pub fn json(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Ruleset::from_json(text) {
        Ok(ruleset) => {
            assert_eq!(Ruleset::from_json(&ruleset.to_json()).as_ref(), Ok(&ruleset));
            let _ = ruleset.syntax().as_str().len();
            let _ = nftables::encode(&ruleset.create());
        }
        Err(error) => {
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
            assert!(error.line > 0 && error.problem.len() < 4096, "{error:?}");
        }
    }
}

/// Looks a user up. The first four bytes are its UID; passwd(5) and group(5) are parted by a byte that text does not have.
pub fn passwd(bytes: &[u8]) {
    let Some((uid, files)) = bytes.split_first_chunk::<4>() else { return };
    let mut files = files.splitn(2, |byte| *byte == 0xff);
    let (passwd, group) = (files.next().unwrap_or_default(), files.next().unwrap_or_default());
    let own = Account::find(User { uid: u32::from_ne_bytes(*uid), gid: None }, passwd, group);
    let other = Account::find(User { uid: u32::from_ne_bytes(*uid), gid: Some(4242) }, passwd, group);
    for account in [&own, &other] {
        assert_eq!(account.user.uid, u32::from_ne_bytes(*uid));
        for path in [&account.home, &account.shell].into_iter().flatten() {
            assert!(path.is_absolute());
            assert!(!path.as_os_str().as_bytes().contains(&0));
        }
        if let Some(name) = &account.name {
            assert!(!name.is_empty() && *name != *OsStr::new("+"));
            // It becomes a variable's value.
            assert!(!name.as_bytes().contains(&0));
        }
    }
    assert_eq!(other.user.gid, 4242);
    // Who names another group means that one alone.
    assert!(own.user.gid == 4242 || other.user.groups.is_empty(), "{other:?}");
}
