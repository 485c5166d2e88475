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
    let said = [
        (Key::Allow, &policy.allow),
        (Key::Credential, &policy.credential),
        (Key::Sni, &policy.sni),
        (Key::Proxy, &policy.proxy),
        (Key::ProxyAt, &policy.proxy_at),
        (Key::Direct, &policy.direct),
        (Key::DirectUdp, &policy.direct_udp),
        (Key::DirectHost, &policy.direct_host),
        (Key::Dns, &policy.dns),
        (Key::DnsGrace, &policy.dns_grace),
        (Key::PrivateName, &policy.private_name),
        (Key::Tampering, &policy.tampering),
        (Key::Pool, &policy.pool),
        (Key::Landlock, &confinement.landlock),
        (Key::Ro, &confinement.ro),
        (Key::Rw, &confinement.rw),
        (Key::Seccomp, &confinement.seccomp),
    ];
    let of_the_command = options.iter().flat_map(|options| {
        [
            (Key::User, &options.user),
            (Key::Env, &options.env),
            (Key::Name, &options.name),
            (Key::KeepCaps, &options.keep_caps),
            (Key::Events, &options.telling.events),
            (Key::EventsFormat, &options.telling.events_format),
            (Key::Metrics, &options.telling.metrics),
            (Key::Learn, &options.telling.learn),
        ]
    });
    for (key, values) in said.into_iter().chain(of_the_command) {
        values.iter().try_for_each(|value| layer.flag(key, value))?;
    }
    for (key, on) in [
        (Key::Audit, policy.audit),
        (Key::SharePid, options.is_some_and(|options| options.share_pid)),
        (Key::DropCaps, options.is_some_and(|options| options.drop_caps)),
    ] {
        if on {
            layer.flag(key, "true")?;
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
