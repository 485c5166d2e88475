//! A plan for people and for programs: text, JSON, nft(8) syntax, and a graph for dot(1).

use std::fmt::{self, Write};

use serde::Serialize;

use super::{FileAccess, Files, Plan, ProxyPlan};
use crate::policy::{Capabilities, DnsMode, EndpointHost, LandlockMode, RunOptions, Sourced};

/// How a plan is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
    /// Both rulesets as a file for `nft -f`.
    Nft,
    /// A graph for dot(1).
    Dot,
}

/// Version of the JSON document.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    plan: &'a Plan,
}

impl Plan {
    /// Shows the plan.
    pub fn show(&self, format: Format) -> String {
        let mut out = String::new();
        // Writing to a String can't fail.
        let _ = match format {
            Format::Text => self.text(&mut out),
            Format::Json => {
                let document = serde_json::to_string_pretty(&Document { schema: SCHEMA, plan: self });
                writeln!(out, "{}", document.unwrap_or_default())
            }
            Format::Nft => self.nft(&mut out),
            Format::Dot => self.dot(&mut out),
        };
        out
    }

    fn text(&self, out: &mut String) -> fmt::Result {
        let wire = &self.wire;
        let to = &wire.addresses;
        writeln!(out, "wire")?;
        writeln!(out, "  host     {}  {}  {}", wire.host, to.host4, to.host6)?;
        writeln!(out, "  sandbox  {}  {}  {}", wire.sandbox, to.sandbox4, to.sandbox6)?;
        let Sourced { value: pool, origin } = &self.pool;
        writeln!(out, "  pool     {}  {}  ({origin})", pool.v4, pool.v6)?;
        let audit = self.audit.value;
        if audit {
            writeln!(out, "audit\n  everything passes, and what would be refused is told  ({})", self.audit.origin)?;
        }
        let who = match self.dns.value {
            DnsMode::Auto if !audit => "the built-in resolver answers for names of the policy",
            DnsMode::Auto | DnsMode::Open => "the built-in resolver answers for every name",
            DnsMode::Off => "nobody answers",
            DnsMode::Server { .. } => "the sandbox asks a resolver itself",
        };
        writeln!(out, "names inside\n  {who}: dns = {}  ({})", self.dns.value, self.dns.origin)?;
        writeln!(out, "proxy")?;
        match &self.proxy {
            ProxyPlan::None => writeln!(out, "  none")?,
            ProxyPlan::At(at) => writeln!(out, "  at {}  ({})", at.value, at.origin)?,
            ProxyPlan::BuiltIn { listen, allow, upstream, credentials, sni } => {
                writeln!(out, "  built in, on {listen} of the sandbox")?;
                for entry in allow.iter().flatten() {
                    writeln!(out, "  allow {}  ({})", entry.value, entry.origin)?;
                }
                if allow.is_none() {
                    writeln!(out, "  allow whatever the upstream proxy allows")?;
                } else if audit {
                    writeln!(out, "  allow everything else, and tell of it  ({})", self.audit.origin)?;
                }
                for Sourced { value, origin } in credentials {
                    writeln!(out, "  credential {value}  ({origin})")?;
                }
                writeln!(out, "  sni = {}  ({})", sni.value, sni.origin)?;
                if let Some(Sourced { value, origin }) = upstream {
                    writeln!(out, "  through {value}  ({origin})")?;
                }
            }
        }
        writeln!(out, "direct")?;
        if self.endpoints.is_empty() {
            writeln!(out, "  none")?;
        }
        for Sourced { value, origin } in &self.endpoints {
            writeln!(out, "  {} {value}  ({origin})", value.transport)?;
        }
        if self.endpoints.iter().any(|to| matches!(to.value.host, EndpointHost::Pattern(_))) {
            let Sourced { value: grace, origin } = &self.dns_grace;
            writeln!(out, "  a name's address stays open {grace} s longer than its answer holds  ({origin})")?;
        }
        for Sourced { value, origin } in &self.private_names {
            writeln!(out, "  {value} may have private addresses  ({origin})")?;
        }
        let families = match (self.forwarding.v4, self.forwarding.v6) {
            (false, false) => "none: nothing of the sandbox is routed",
            (true, false) => "ipv4, masqueraded",
            (false, true) => "ipv6, masqueraded",
            (true, true) => "ipv4 and ipv6, masqueraded",
        };
        writeln!(out, "forwarding\n  {families}")?;
        writeln!(out, "rules changed by others\n  {}  ({})", self.tampering.value, self.tampering.origin)?;
        writeln!(out, "environment")?;
        let own =
            |name: &String| self.run.iter().flat_map(|run| &run.env).find(|variable| variable.value.name == *name);
        for (name, value) in &self.environment.set {
            match own(name) {
                Some(Sourced { origin, .. }) => writeln!(out, "  {name}={}  ({origin})", value.escape_debug())?,
                None => writeln!(out, "  {name}={value}")?,
            }
        }
        for name in &self.environment.remove {
            writeln!(out, "  {name} is taken away")?;
        }
        if let Some(files) = &self.files {
            self::files(out, files)?;
        }
        if let Some(run) = &self.run {
            let Sourced { value: mode, origin } = &run.seccomp;
            writeln!(out, "system calls\n  seccomp {mode} refuses {}  ({origin})", mode.refused().join(", "))?;
            command(out, run)?;
        }
        for (title, ruleset) in [("inside", &self.inside), ("outside", &self.outside)] {
            writeln!(out, "{title}")?;
            for line in ruleset.to_string().lines() {
                writeln!(out, "  {line}")?;
            }
        }
        Ok(())
    }

    fn nft(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "# inside: the sandbox's namespace")?;
        write!(out, "{}", self.inside)?;
        writeln!(out, "# outside: the host's namespace")?;
        writeln!(
            out,
            "# an interface index of 0 stands for the host's end of the wire, which gets its number when it is made"
        )?;
        write!(out, "{}", self.outside)
    }

    fn dot(&self, out: &mut String) -> fmt::Result {
        let node = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        writeln!(out, "digraph ringfence {{")?;
        writeln!(out, "  rankdir=LR;")?;
        writeln!(out, "  node [shape=box];")?;
        let sandbox = node(&format!("sandbox\n{}", self.wire.addresses.sandbox4)).replace('\n', "\\n");
        let host = node(&format!("host\n{}", self.wire.host)).replace('\n', "\\n");
        writeln!(out, "  {sandbox} -> {host} [label=\"wire\", dir=both];")?;
        match &self.proxy {
            ProxyPlan::None => {}
            ProxyPlan::At(at) => {
                writeln!(out, "  {sandbox} -> {} [label=\"proxy\"];", node(&at.value.to_string()))?;
            }
            ProxyPlan::BuiltIn { listen, allow, upstream, .. } => {
                let proxy = node(&format!("proxy {listen}"));
                writeln!(out, "  {sandbox} -> {proxy} [label=\"http\"];")?;
                let next = match upstream {
                    Some(upstream) => {
                        let next = node(&upstream.value.to_string());
                        writeln!(out, "  {proxy} -> {next} [label=\"upstream\"];")?;
                        next
                    }
                    None => proxy,
                };
                for entry in allow.iter().flatten() {
                    writeln!(out, "  {next} -> {} [label=\"allow\"];", node(&entry.value.to_string()))?;
                }
            }
        }
        for Sourced { value, .. } in &self.endpoints {
            writeln!(out, "  {host} -> {} [label=\"direct {}\"];", node(&value.to_string()), value.transport)?;
        }
        if let Some(server) = self.dns.value.server() {
            writeln!(out, "  {host} -> {} [label=\"names, udp and tcp\"];", node(&server.to_string()))?;
        }
        let rest = if self.audit.value { "passes, logged" } else { "refused, logged" };
        writeln!(out, "  {sandbox} -> {} [label=\"all else\", style=dashed];", node(rest))?;
        writeln!(out, "}}")
    }
}

fn command(out: &mut String, run: &RunOptions) -> fmt::Result {
    writeln!(out, "command")?;
    match &run.user {
        Some(Sourced { value, origin }) => writeln!(out, "  user {value}  ({origin})")?,
        None => writeln!(out, "  the user who called sudo, or else the caller")?,
    }
    let Sourced { value, origin } = &run.capabilities;
    let kept = match value {
        Capabilities::Default => "that Docker keeps, without CAP_NET_RAW".to_owned(),
        Capabilities::None => "none".to_owned(),
        Capabilities::Keep(kept) => kept.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    writeln!(out, "  capabilities {kept}  ({origin})")?;
    let Sourced { value: shared, origin } = &run.share_pid;
    writeln!(out, "  PID namespace {}  ({origin})", if *shared { "of the caller" } else { "of its own" })?;
    if let Some(Sourced { value, origin }) = &run.name {
        writeln!(out, "  name {value}  ({origin})")?;
    }
    if let Some(Sourced { value, origin }) = &run.events {
        writeln!(out, "  events to {value} as {}  ({origin})", run.events_format.value)?;
    }
    if let Some(Sourced { value, origin }) = &run.metrics {
        writeln!(out, "  metrics at {value}  ({origin})")?;
    }
    if let Some(Sourced { value, origin }) = &run.learn {
        writeln!(out, "  what is learned to {value}  ({origin})")?;
    }
    Ok(())
}

fn files(out: &mut String, files: &Files) -> fmt::Result {
    let Sourced { value: mode, origin } = &files.mode;
    writeln!(out, "files\n  landlock {mode}  ({origin})")?;
    if *mode == LandlockMode::Off {
        return Ok(());
    }
    for rule in &files.rules {
        let access = match rule.access {
            FileAccess::Read => "read ",
            FileAccess::Write => "write",
        };
        writeln!(out, "  {access} {}  ({})", rule.path.display(), rule.origin)?;
    }
    Ok(())
}
