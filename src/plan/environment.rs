//! The environment of a fenced program: how it learns of its proxy, and what it may reach past it.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use serde::Serialize;

use crate::policy::{Credential, Endpoint, EndpointHost, HostPattern, SecretSource, Transport};

/// What is different in the child's environment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Environment {
    /// Variables that are set.
    pub set: BTreeMap<String, String>,
    /// Variables that are taken away, because they would name a proxy that cannot be reached from inside.
    pub remove: Vec<String>,
}

/// Every spelling under which programs look for an HTTP proxy. curl, for one, reads `http_proxy` in lower case alone.
const PROXY_VARIABLES: [&str; 8] =
    ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "GRPC_PROXY", "http_proxy", "https_proxy", "all_proxy", "grpc_proxy"];

/// Node's fetch asks for a proxy only when it is told to (Node 24, and 22.21).
const NODE: &str = "NODE_USE_ENV_PROXY";

/// Names and addresses that no proxy is asked for: the sandbox's own loopback.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Every variable by which programs find the certificates that they trust.
const TRUST_VARIABLES: [&str; 9] = [
    "SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "DENO_CERT",
    "PIP_CERT",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
];

impl Environment {
    /// Puts placeholders where programs look for secrets, and takes away the variables that the secrets themselves are in.
    pub(super) fn conceal<'a>(&mut self, credentials: impl Iterator<Item = &'a Credential>) {
        for credential in credentials {
            self.set.insert(credential.name.to_string(), credential.placeholder());
            if let SecretSource::Env(source) = &credential.from {
                self.remove.push(source.clone());
            }
        }
        // What is set is not taken away: it has the placeholder now.
        self.remove.retain(|name| !self.set.contains_key(name));
    }

    /// Whether ringfence says itself what is in that variable, so that no placeholder can.
    pub(super) fn own(name: &str) -> bool {
        let named = |variables: &[&str]| variables.contains(&name);
        named(&PROXY_VARIABLES) || named(&TRUST_VARIABLES) || name == NODE || name.eq_ignore_ascii_case("NO_PROXY")
    }

    /// Whether what the user says of that variable is merged into what is set here, and not put over it: `NO_PROXY`, in whatever case a program
    /// reads it, where there is a proxy.
    pub fn merges(&self, name: &str) -> bool {
        self.set.contains_key("NO_PROXY") && name.eq_ignore_ascii_case("NO_PROXY")
    }

    /// Has programs trust the certificates of that file.
    pub(crate) fn trust(&mut self, bundle: &str) {
        for variable in TRUST_VARIABLES {
            self.set.insert(variable.to_owned(), bundle.to_owned());
        }
    }
}

/// Compiles the environment: `proxy` is the URL as seen from inside, `no_proxy` the user's own list.
pub(super) fn environment<'a>(
    proxy: Option<&str>,
    direct: impl Iterator<Item = &'a Endpoint>,
    no_proxy: Option<&str>,
) -> Environment {
    let mut environment = Environment::default();
    let Some(proxy) = proxy else {
        environment.remove = PROXY_VARIABLES.map(String::from).to_vec();
        return environment;
    };
    for variable in PROXY_VARIABLES {
        environment.set.insert(variable.to_owned(), proxy.to_owned());
    }
    environment.set.insert(NODE.to_owned(), "1".to_owned());
    let list = merge(direct, no_proxy);
    environment.set.insert("NO_PROXY".to_owned(), list.clone());
    environment.set.insert("no_proxy".to_owned(), list);
    environment
}

/// Joins loopback, direct hosts and the user's own entries, each once, in that order.
fn merge<'a>(direct: impl Iterator<Item = &'a Endpoint>, no_proxy: Option<&str>) -> String {
    let mut known = HashSet::new();
    let mut entries: Vec<String> = Vec::new();
    // A proxy is asked for TCP alone.
    let hosts = direct.filter(|to| to.transport == Transport::Tcp).flat_map(|to| spellings(&to.host));
    // Some programs part the list at commas, some at spaces too: what the user wrote is read both ways.
    let own = no_proxy.unwrap_or_default().split([',', ' ', '\t']).map(str::to_owned);
    for entry in LOOPBACK.map(String::from).into_iter().chain(hosts).chain(own) {
        if !entry.is_empty() && known.insert(entry.clone()) {
            entries.push(entry);
        }
    }
    entries.join(",")
}

/// The entries by which programs know a host. `docs/policy.md` says which program reads what.
fn spellings(host: &EndpointHost) -> Vec<String> {
    match host {
        // With brackets for Python's urllib, without for all others.
        EndpointHost::Address(IpAddr::V6(address)) => vec![address.to_string(), format!("[{address}]")],
        EndpointHost::Address(address) => vec![address.to_string()],
        EndpointHost::Pattern(HostPattern::Exact(name)) => vec![name.to_string()],
        // Go alone takes `*.NAME`, and everybody takes this.
        EndpointHost::Pattern(HostPattern::Below(name)) => vec![format!(".{name}")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::parse(text, Transport::Tcp).unwrap()
    }

    #[test]
    fn no_proxy_is_loopback_then_direct_then_the_users_own() {
        let direct = [
            endpoint("203.0.113.9:5432"),
            endpoint("[2001:db8::9]:5432"),
            endpoint("203.0.113.9:1"),
            endpoint("*.example.com:1"),
            endpoint("example.com:1"),
            Endpoint::parse("198.51.100.123:123", Transport::Udp).unwrap(),
        ];
        let environment =
            environment(Some("http://127.0.0.1:3128"), direct.iter(), Some(".corp.example, 203.0.113.9,"));
        let expected =
            "localhost,127.0.0.1,::1,203.0.113.9,2001:db8::9,[2001:db8::9],.example.com,example.com,.corp.example";
        assert_eq!(environment.set["NO_PROXY"], expected);
        assert_eq!(environment.set["no_proxy"], expected);
        assert_eq!(environment.set["https_proxy"], "http://127.0.0.1:3128");
        assert_eq!(environment.set["NODE_USE_ENV_PROXY"], "1");
        assert!(environment.remove.is_empty());
        assert!(["NO_PROXY", "no_proxy", "No_Proxy"].into_iter().all(|name| environment.merges(name)));
        assert!(!environment.merges("HTTPS_PROXY"));
    }

    #[test]
    fn a_secret_is_a_placeholder_inside() {
        let mut environment = Environment::default();
        let credentials: Vec<Credential> =
            ["A=env:A,to=x", "B=env:C,to=x", "D=file:/d,to=x"].iter().map(|text| text.parse().unwrap()).collect();
        environment.conceal(credentials.iter());
        let set: Vec<_> = environment.set.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(set, ["A=ringfence-A-secret", "B=ringfence-B-secret", "D=ringfence-D-secret"]);
        assert_eq!(environment.remove, ["C"]);
    }

    #[test]
    fn a_variable_of_our_own_holds_no_secret() {
        let mut environment = environment(Some("http://127.0.0.1:3128"), [].iter(), None);
        environment.trust("/bundle");
        assert!(environment.set.keys().all(|name| Environment::own(name)) && Environment::own("No_Proxy"));
        assert!(!["TOKEN", "PROXY", "Https_Proxy"].into_iter().any(Environment::own));
    }

    #[test]
    fn without_a_proxy_the_variables_that_name_one_go() {
        let environment = environment(None, [].iter(), Some("corp.example"));
        assert!(environment.set.is_empty() && !environment.merges("NO_PROXY"));
        assert!(environment.remove.iter().any(|name| name == "https_proxy"));
    }
}
