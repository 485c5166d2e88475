//! Flags, variables and the policy file, handed to the library's parsers, each with its origin.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use ringfence::policy::{Key, Layer, Origin, PolicyError, RunOptions, Settings, Sourced, Variables};
use ringfence::{Error, ErrorKind, Result, SandboxOptions};

use crate::args::{ConfinementArguments, OptionArguments, PolicyArguments};

/// Puts flags over variables over the file.
pub fn settings(
    policy: &PolicyArguments,
    confinement: &ConfinementArguments,
    options: Option<&OptionArguments>,
) -> Result<Settings> {
    let flags = flags(policy, confinement, options)?;
    let variables = Variables::parse(|name| std::env::var_os(name))?;
    let file = match &policy.policy {
        Some(path) => Some(Sourced::new(path.clone(), Origin::Flag("--policy".to_owned()))),
        None => variables.policy_file,
    };
    let file = match file {
        Some(Sourced { value, origin }) => read(&value, &origin)?,
        None => Layer::new(),
    };
    Ok(Settings::from_layers([flags, variables.layer, file])?)
}

/// What the sandbox is made with, where a variable for the command has a say in it: its own `NO_PROXY` is meant, not the caller's.
pub fn options(run: &RunOptions) -> SandboxOptions {
    let mut options = SandboxOptions::default();
    let own = run.env.iter().rev().find(|variable| variable.value.name.eq_ignore_ascii_case("NO_PROXY"));
    if let Some(own) = own {
        options.no_proxy = Some(own.value.value.clone());
    }
    options
}

fn flags(
    policy: &PolicyArguments,
    confinement: &ConfinementArguments,
    options: Option<&OptionArguments>,
) -> Result<Layer, PolicyError> {
    let mut layer = Layer::new();
    let lists = [
        (Key::Allow, &policy.allow),
        (Key::Credential, &policy.credential),
        (Key::Direct, &policy.direct),
        (Key::DirectUdp, &policy.direct_udp),
        (Key::DirectHost, &policy.direct_host),
        (Key::PrivateName, &policy.private_name),
        (Key::Pool, &policy.pool),
        (Key::Ro, &confinement.ro),
        (Key::Rw, &confinement.rw),
    ];
    for (key, values) in lists {
        values.iter().try_for_each(|value| layer.flag(key, value))?;
    }
    if policy.audit {
        layer.flag(Key::Audit, "true")?;
    }
    let mut single = |key, value: &Option<String>| value.iter().try_for_each(|value| layer.flag(key, value));
    single(Key::Sni, &policy.sni)?;
    single(Key::Proxy, &policy.proxy)?;
    single(Key::ProxyAt, &policy.proxy_at)?;
    single(Key::Dns, &policy.dns)?;
    single(Key::DnsGrace, &policy.dns_grace)?;
    single(Key::Tampering, &policy.tampering)?;
    single(Key::Landlock, &confinement.landlock)?;
    single(Key::Seccomp, &confinement.seccomp)?;
    if let Some(options) = options {
        single(Key::User, &options.user)?;
        single(Key::Name, &options.name)?;
        single(Key::KeepCaps, &options.keep_caps)?;
        single(Key::Events, &options.events)?;
        single(Key::EventsFormat, &options.events_format)?;
        single(Key::Metrics, &options.metrics)?;
        single(Key::Learn, &options.learn)?;
        options.env.iter().try_for_each(|value| layer.flag(Key::Env, value))?;
        if options.share_pid {
            layer.flag(Key::SharePid, "true")?;
        }
        if options.drop_caps {
            layer.flag(Key::DropCaps, "true")?;
        }
    }
    Ok(layer)
}

/// Reads a policy file: no more of it than a policy may have, so that a device or a pipe can't fill the memory.
fn read(path: &Path, origin: &Origin) -> Result<Layer> {
    let fail = |error| {
        Error::new(ErrorKind::Policy, format!("{origin}: can't read policy file `{}`", path.display())).because(error)
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(fail)?;
    file.take(Layer::MAX_FILE as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
    Ok(Layer::from_toml(&bytes, path)?)
}
