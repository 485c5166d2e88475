//! Values of credentials: fetched once, before anything of a sandbox is there, and held by the proxy alone.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::kernel::child::Cover;
use crate::plan::{Plan, ProxyPlan};
use crate::policy::{AllowEntry, Credential, Policy, Scheme, SecretSource, Sourced};
use crate::proxy::{Interception, Roots, Secret, SecretError};
use crate::{Error, ErrorKind, Result};

/// How long a program is given to say a value.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the proxy of one sandbox holds for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    pub(super) secrets: Arc<[Secret]>,
    pub(super) interception: Option<Arc<Interception>>,
}

impl Held {
    /// Fetches every value, and makes the sandbox's authority where TLS is to be looked into.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Policy`] for a value that can't be had or can't be used. As [`Roots::of_host`] and [`Interception::new`].
    pub(super) async fn fetch(policy: &Policy) -> Result<Self> {
        let mut secrets = Vec::new();
        for Sourced { value: credential, origin } in &policy.credentials {
            let fail = |what: String| {
                let Credential { name, from, .. } = credential;
                Error::new(ErrorKind::Policy, format!("{origin}: can't take credential `{name}` from {from}: {what}"))
            };
            let mut value = fetch(&credential.from).await.map_err(fail)?;
            let value = std::mem::take(&mut *value);
            secrets.push(Secret::new(credential.clone(), value).map_err(|error| fail(error.to_string()))?);
        }
        let interception = match looks_into_tls(policy) {
            true => Some(Arc::new(Interception::new(Roots::of_host()?)?)),
            false => None,
        };
        Ok(Self { secrets: secrets.into(), interception })
    }

    /// Whether a text holds one of the values.
    pub(super) fn are_in(&self, text: &[u8]) -> bool {
        self.secrets.iter().any(|secret| secret.is_in(text))
    }

    /// What the command sees in place of the host's files of trusted certificates, and of the files that values came from.
    pub(super) fn covers(&self) -> Vec<Cover> {
        let mut covers = Vec::new();
        if let Some(interception) = &self.interception {
            let content = interception.bundle();
            let places = interception.roots().places().into_iter();
            covers.extend(places.map(|path| Cover::File { path, content: content.clone() }));
        }
        for credential in self.secrets.iter().map(Secret::credential) {
            let SecretSource::File(path) = &credential.from else { continue };
            // Where it is, whatever links lead there. A pipe was empty when it had been read.
            let Some(path) = path.canonicalize().ok().filter(|path| path.is_file()) else { continue };
            covers.push(Cover::File { path, content: format!("{}\n", credential.placeholder()).into_bytes() });
        }
        covers
    }
}

/// Says in a plan what the command trusts, as far as this host is known to have it.
pub(super) fn show_trust(plan: &mut Plan, policy: &Policy) {
    if matches!(plan.proxy, ProxyPlan::BuiltIn { .. })
        && looks_into_tls(policy)
        && let Some(path) = Roots::path_of_host()
    {
        plan.environment.trust(&path.to_string_lossy());
    }
}

/// Whether the policy has the proxy look into TLS at all.
pub(super) fn looks_into_tls(policy: &Policy) -> bool {
    let ruled = policy.allow.iter().any(|entry| takes_tls(&entry.value));
    let to = policy.credentials.iter().flat_map(|credential| &credential.value.to);
    ruled || to.into_iter().any(|entry| entry.rule.is_none() || takes_tls(entry))
}

/// Whether it judges requests inside of TLS.
pub(super) fn takes_tls(entry: &AllowEntry) -> bool {
    entry.rule.as_ref().is_some_and(|rule| rule.scheme() == Scheme::Https)
}

async fn fetch(source: &SecretSource) -> std::result::Result<Zeroizing<Vec<u8>>, String> {
    match source {
        SecretSource::Env(name) => {
            let value = std::env::var_os(name).map(OsString::into_vec).map(Zeroizing::new);
            value.ok_or_else(|| "the variable is not set".to_owned())
        }
        SecretSource::File(path) => {
            let file = tokio::fs::File::open(path).await.map_err(|error| error.to_string())?;
            read(file).await
        }
        SecretSource::Command(words) => {
            let Some((program, arguments)) = words.split_first() else { return Err("there is no program".to_owned()) };
            let mut child = tokio::process::Command::new(program)
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .map_err(|error| error.to_string())?;
            let Some(output) = child.stdout.take() else { return Err("it has no output".to_owned()) };
            let run = async {
                let value = read(output).await?;
                // It may be killed by its own output when nobody reads the rest, which would be told in the place of this.
                if value.len() > Secret::LONGEST {
                    return Err(SecretError::TooLong.to_string());
                }
                let status = child.wait().await.map_err(|error| error.to_string())?;
                if status.success() { Ok(value) } else { Err(format!("it ended with {status}")) }
            };
            timeout(PATIENCE, run).await.unwrap_or_else(|_| Err(format!("no end after {} s", PATIENCE.as_secs())))
        }
    }
}

/// Reads a value, without the one line end that files and programs put behind it.
async fn read(source: impl AsyncRead + Unpin) -> std::result::Result<Zeroizing<Vec<u8>>, String> {
    // In one piece, so that it leaves no halves behind in memory where it grew.
    let limit = Secret::LONGEST + 3;
    let mut value = Zeroizing::new(Vec::with_capacity(limit));
    let mut source = source.take(limit as u64);
    loop {
        match source.read_buf(&mut *value).await {
            Ok(0) => break,
            Ok(_) if value.len() >= limit => break,
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    if value.ends_with(b"\n") {
        value.pop();
        if value.ends_with(b"\r") {
            value.pop();
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fetched(from: &str) -> Result<Vec<u8>, String> {
        let policy = crate::policy::Policy::builder()
            .allow("a.example")
            .and_then(|policy| policy.credential(&format!("T={from},to=GET http://a.example/*")))
            .and_then(|policy| policy.build())
            .unwrap();
        let held = Held::fetch(&policy).await.map_err(|error| error.chain().to_string())?;
        assert!(held.interception.is_none() && held.covers().len() == usize::from(from.starts_with("file:")));
        // As whoever looks through the environment for it.
        Ok((0..=u8::MAX).filter(|byte| held.are_in(&[*byte])).collect())
    }

    #[tokio::test]
    async fn values_come_from_where_the_policy_says() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, content).unwrap();
            format!("file:{}", path.display())
        };
        for (name, content) in [("a", "v"), ("b", "v\n"), ("c", "v\r\n")] {
            assert_eq!(fetched(&file(name, content)).await.unwrap(), b"v", "{content:?}");
        }
        assert_eq!(fetched("command:printf v").await.unwrap(), b"v");
        for (from, error) in [
            (file("d", "v\n\n"), "line end"),
            (file("e", ""), "the value is empty"),
            (file("f", &"x".repeat(20_000)), "longer than"),
            ("file:/nonexistent".to_owned(), "No such file"),
            ("env:RINGFENCE_TEST_NOT_SET".to_owned(), "the variable is not set"),
            ("command:false".to_owned(), "exit status: 1"),
            ("command:head -c 100000 /dev/zero".to_owned(), "longer than"),
            ("command:/nonexistent".to_owned(), "No such file"),
        ] {
            let found = fetched(&from).await.unwrap_err();
            assert!(found.contains(error) && found.contains("can't take credential `T` from "), "{found}");
        }
    }
}
