//! `ringfence policy`: shows and changes the policy of a sandbox that another process holds.

use std::io::Write;

use ringfence::policy::{Key, Layer, Origin, PolicyError, SandboxName, Settings};
use ringfence::{RemoteControl, Result};

use crate::args::{Change, ChangeArguments, ConfinementArguments, EntryArguments, NamedArguments};
use crate::{io_error, settings};

pub fn policy(arguments: ChangeArguments) -> Result<u8> {
    match &arguments.change {
        Change::Show(named) => {
            let shown = remote(named)?.show()?;
            let mut out = std::io::stdout().lock();
            out.write_all(shown.as_bytes())
                .and_then(|()| out.flush())
                .map_err(|error| io_error("can't write the policy", error))?;
        }
        // Read like the policy of `run`: what was said there is said here in the same way.
        Change::Set(set) => {
            let sandbox = remote(&set.named)?;
            let settings = settings::settings(&set.policy, &ConfinementArguments::default(), None)?;
            drop(sandbox.set(&settings.policy)?)
        }
        Change::Allow(entries) => drop(remote(&entries.named)?.allow(&self::entries(entries)?.policy)?),
        Change::Revoke(entries) => drop(remote(&entries.named)?.revoke(&self::entries(entries)?.policy)?),
    }
    Ok(0)
}

fn remote(named: &NamedArguments) -> Result<RemoteControl> {
    let name: SandboxName =
        named.sandbox.parse().map_err(|error: PolicyError| error.at(Origin::Flag("SANDBOX".to_owned())))?;
    Ok(RemoteControl::of(&name))
}

fn entries(entries: &EntryArguments) -> Result<Settings> {
    let mut layer = Layer::new();
    for (key, values) in [
        (Key::Allow, &entries.allow),
        (Key::Direct, &entries.direct),
        (Key::DirectUdp, &entries.direct_udp),
        (Key::DirectHost, &entries.direct_host),
    ] {
        values.iter().try_for_each(|value| layer.flag(key, value))?;
    }
    Ok(Settings::from_layers([layer])?)
}
