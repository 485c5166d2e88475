//! What is known of the names of direct endpoints before anybody asks for them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::dns::{HostResolver, Hosts};
use crate::policy::{DnsName, EndpointHost, HostPattern, PatternMap, Policy, Sourced};
use crate::proxy::Resolve;
use crate::{Error, ErrorKind, Result};

/// Addresses of names.
pub(super) type Known = BTreeMap<DnsName, Vec<IpAddr>>;

/// Under the built-in resolver, what the host's hosts file says of the names: programs inside read that file themselves, and ask nobody.
/// Otherwise all of them, as the host resolves them.
pub(super) async fn names(policy: &Policy, resolver: &dyn Resolve, names: &HostResolver) -> Result<Known> {
    if !policy.has_direct_names() {
        return Ok(Known::new());
    }
    if !policy.dns.value.is_built_in() {
        return resolve(policy, resolver).await;
    }
    let patterns = patterns(policy);
    // The file may be read anew.
    let names = names.clone();
    let hosts = tokio::task::spawn_blocking(move || names.hosts()).await;
    let hosts = hosts
        .map_err(|lost| Error::new(ErrorKind::Io, "the thread that read the hosts file was lost").because(lost))?;
    Ok(in_hosts(&hosts, &patterns))
}

/// The patterns among the direct endpoints.
fn patterns(policy: &Policy) -> PatternMap<()> {
    let mut patterns = PatternMap::default();
    for Sourced { value, .. } in &policy.direct {
        if let EndpointHost::Pattern(pattern) = &value.host {
            patterns.insert(pattern, ());
        }
    }
    patterns
}

/// What a hosts file says of the names that patterns name.
fn in_hosts(hosts: &Hosts, patterns: &PatternMap<()>) -> Known {
    let named = hosts.iter().filter(|(name, _)| patterns.matching(name).next().is_some());
    named.map(|(name, addresses)| (name.clone(), addresses.to_vec())).collect()
}

/// Resolves each name among the direct endpoints.
async fn resolve(policy: &Policy, resolver: &dyn Resolve) -> Result<Known> {
    let mut resolved = Known::new();
    for Sourced { value, origin } in &policy.direct {
        let EndpointHost::Pattern(HostPattern::Exact(name)) = &value.host else { continue };
        if resolved.contains_key(name) {
            continue;
        }
        let addresses = resolver.resolve(name).await.map_err(|error| {
            Error::new(ErrorKind::Resolve, format!("{origin}: can't resolve `{name}`")).because(error)
        })?;
        resolved.insert(name.clone(), addresses);
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_file_says_what_it_says() {
        let policy = Policy::builder().direct("*.example:1,db:2,six.example.org:3").unwrap().build().unwrap();
        let text = "127.0.0.1 localhost\n203.0.113.9\tA.example  db # c.example\n# 203.0.113.8 d.example\n2001:db8::9 six.example.org a.example\n\
                    fe80::1%eth0 z.example\n203.0.113.9 a.example\nnonsense b.example\n203.0.113.7\n";
        let known = in_hosts(&Hosts::parse(text), &patterns(&policy));
        let shown: Vec<_> = known.iter().map(|(name, addresses)| format!("{name} {addresses:?}")).collect();
        assert_eq!(
            shown,
            ["a.example [203.0.113.9, 2001:db8::9]", "db [203.0.113.9]", "six.example.org [2001:db8::9]"]
        );
    }
}
