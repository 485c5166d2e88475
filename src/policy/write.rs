//! A policy as a file: TOML that [`Layer::from_toml`](super::Layer::from_toml) takes.

use std::fmt::{Display, Write};

use super::{Credential, Endpoint, Origin, Policy, ProxyUrl, Sourced, Transport};

impl Policy {
    /// Writes the policy as a policy file, without what nobody said.
    ///
    /// Of a credential it has where the value comes from, as the policy does; nobody's value is in it. Credentials of a proxy are `<redacted>` in it, which no parser takes: a policy is never weaker than the file that it is read from.
    pub fn to_toml(&self) -> String {
        self.write(ProxyUrl::to_string)
    }

    /// [`to_toml`](Self::to_toml) with the credentials in it, for nobody's eyes.
    pub fn to_toml_with_credentials(&self) -> String {
        self.write(ProxyUrl::with_credentials)
    }

    fn write(&self, proxy: impl Fn(&ProxyUrl) -> String) -> String {
        let mut out = String::new();
        list(&mut out, "allow", self.allow.iter().map(|entry| &entry.value));
        single(&mut out, "proxy", self.proxy.as_ref().map(|url| proxy(&url.value)));
        single(&mut out, "proxy-at", self.proxy_at.as_ref().map(|at| at.value.to_string()));
        for (key, transport) in [("direct", Transport::Tcp), ("direct-udp", Transport::Udp)] {
            let endpoints = self.direct.iter().map(|to| &to.value);
            list(&mut out, key, endpoints.filter(|to: &&Endpoint| to.transport == transport));
        }
        single(&mut out, "dns", said(&self.dns).map(|mode| mode.to_string()));
        if let Some(seconds) = said(&self.dns_grace) {
            // Writing to a String can't fail; so below.
            let _ = writeln!(out, "dns-grace = {seconds}");
        }
        list(&mut out, "private-name", self.private_names.iter().map(|name| &name.value));
        if let Some(audit) = said(&self.audit) {
            let _ = writeln!(out, "audit = {audit}");
        }
        single(&mut out, "tampering", said(&self.tampering).map(|what| what.to_string()));
        if let Some(pool) = said(&self.pool) {
            list(&mut out, "pool", [pool.v4.to_string(), pool.v6.to_string()].iter());
        }
        single(&mut out, "sni", said(&self.sni).map(|sni| sni.to_string()));
        // Last: what follows a table's head is the table's.
        for Credential { name, from, to, places } in self.credentials.iter().map(|credential| &credential.value) {
            out.push_str("\n[[credential]]\n");
            single(&mut out, "name", Some(name.to_string()));
            single(&mut out, "from", Some(from.to_string()));
            list(&mut out, "to", to.iter());
            list(&mut out, "in", places.words());
        }
        out
    }
}

fn said<T>(value: &Sourced<T>) -> Option<&T> {
    (value.origin != Origin::Default).then_some(&value.value)
}

fn single(out: &mut String, key: &str, value: Option<String>) {
    if let Some(value) = value {
        let _ = writeln!(out, "{key} = {}", quoted(&value));
    }
}

fn list<T: Display>(out: &mut String, key: &str, values: impl Iterator<Item = T>) {
    let mut values = values.map(|value| quoted(&value.to_string())).peekable();
    if values.peek().is_none() {
        return;
    }
    let _ = writeln!(out, "{key} = [");
    for value in values {
        let _ = writeln!(out, "    {value},");
    }
    out.push_str("]\n");
}

/// As a TOML string. What stands in a policy is ASCII without control characters; JSON escapes the two that count alike.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Layer, Settings};
    use super::*;

    fn values(policy: &Policy) -> String {
        let mut json = serde_json::to_value(policy).unwrap();
        fn strip(value: &mut serde_json::Value) {
            match value {
                serde_json::Value::Object(map) => {
                    map.remove("origin");
                    map.values_mut().for_each(strip);
                }
                serde_json::Value::Array(items) => items.iter_mut().for_each(strip),
                _ => {}
            }
        }
        strip(&mut json);
        json.to_string()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let text = "allow = ['GET|POST https://r.example/v1/*', 'a:1', '*.b', '203.0.113.0/24:443', '[2001:db8::/32]:1']\nproxy = 'http://al%40ice:p%2F%22ss%25@proxy.example:1'\n\
                    direct = ['c:2', '*.d:3', '[2001:db8::9]:4']\ndirect-udp = '203.0.113.9:5'\ndns = 'auto'\ndns-grace = 7\n\
                    private-name = ['*.f', 'g.example']\naudit = false\ntampering = 'end'\npool = '10.9.0.0/16'\nsni = 'any'\n\
                    [[credential]]\nname = 'T'\nfrom = 'env:X'\nto = ['a', '* http://b/*']\nin = ['header', 'body']\n\
                    [[credential]]\nname = 'U'\nfrom = 'command:pass \"show\" u'\nto = 'c:8443'\n";
        let read = |text: &str| {
            let layer = Layer::from_toml(text.as_bytes(), Path::new("p.toml"))?;
            Settings::from_layers([layer]).map(|settings| settings.policy)
        };
        let policy = read(text).unwrap();
        let again = read(&policy.to_toml_with_credentials()).unwrap();
        assert_eq!(values(&again), values(&policy));
        let (old, new) = (policy.proxy.as_ref().unwrap(), again.proxy.as_ref().unwrap());
        assert_eq!(old.value, new.value);
        let shown = policy.to_toml();
        assert!(shown.contains("http://<redacted>@proxy.example:1") && !shown.contains("p%2F"), "{shown}");
        assert!(read(&shown).is_err(), "a file without its credentials was taken");
        assert_eq!(Policy::default().to_toml(), "");
    }
}
