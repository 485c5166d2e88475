//! Orders from another process: a unix socket by which the owner of a sandbox changes its policy.
//!
//! The socket is an abstract one of the host's network namespace, `@ringfence/NAME`. Such a name belongs to a network namespace, so a program in
//! the sandbox, which has another, can't reach it, whoever it runs as and whatever files it sees; a socket in the file system would be a file
//! like others there. And it goes with its supervisor, however that ends. It has no permissions of its own: whoever connects is asked of the kernel
//! (`SO_PEERCRED`), and sent away unless it is the supervisor's user or root. The client asks the same of the server, for anybody may take a
//! name that is free.
//!
//! One request a connection, one line of JSON each way:
//!
//! ```text
//! {"ringfence":1,"order":"allow","policy":"direct = [\"203.0.113.9:5432\"]\n"}
//! {"ringfence":1,"policy":"…"}
//! {"ringfence":1,"error":"…","hint":"…"}
//! ```
//!
//! `order` is `show`, `set`, `allow` or `revoke`; `policy` is a policy file.

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::policy::{Layer, Origin, Policy, SandboxName, Settings, Sourced};
use crate::{Error, ErrorKind, Result};

use super::live::{Control, Entry};

/// Version of the protocol.
const VERSION: u32 = 1;

/// The longest line: a policy file, each character of it escaped, and room for what is around it.
const LONGEST: usize = 2 * Layer::MAX_FILE + 4096;

/// How long a client may take to say what it wants, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the client waits for its answer: a name may have to be resolved first.
const ANSWER: Duration = Duration::from_secs(60);

/// How many clients are listened to at once. Others wait in the kernel's queue, or are refused by it.
const CLIENTS: usize = 4;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Order {
    Show,
    Set,
    Allow,
    Revoke,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    ringfence: u32,
    order: Order,
    #[serde(default)]
    policy: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Answer {
    ringfence: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

fn address(name: &SandboxName) -> std::io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("ringfence/{name}"))
}

/// Takes the name of a sandbox in the calling thread's network namespace.
///
/// # Errors
///
/// [`ErrorKind::Conflict`] when somebody has it.
pub(super) fn listen(name: &Sourced<SandboxName>) -> Result<UnixListener> {
    address(&name.value).and_then(|address| UnixListener::bind_addr(&address)).map_err(|error| {
        let what = format!("{}: can't listen for orders as `@ringfence/{}`", name.origin, name.value);
        match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                Error::new(ErrorKind::Conflict, what).because(error).hint("take another name")
            }
            _ => Error::new(ErrorKind::Io, what).because(error),
        }
    })
}

/// Takes orders for ever.
pub(super) async fn serve(listener: UnixListener, control: Control) {
    let listener = match listener.set_nonblocking(true).and_then(|()| tokio::net::UnixListener::from_std(listener)) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "nobody listens for orders"),
    };
    let places = Arc::new(Semaphore::new(CLIENTS));
    let mut clients = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        while clients.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let control = control.clone();
                clients.spawn(async move {
                    let _place = place;
                    if let Err(error) = attend(stream, &control).await {
                        tracing::debug!(%error, "a client that gave orders was lost");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "can't accept who gives orders");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn attend(mut stream: tokio::net::UnixStream, control: &Control) -> std::io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let own = rustix::process::geteuid().as_raw();
    let answer = if uid != own && uid != 0 {
        let what = format!("the sandbox belongs to user {own}, and user {uid} asks");
        Err(Error::new(ErrorKind::Privilege, what))
    } else {
        match timeout(PATIENCE, line(&mut stream)).await {
            Ok(Ok(Some(line))) => obey(&line, control).await,
            Ok(Ok(None)) => Err(Error::new(ErrorKind::Decode, format!("an order has {LONGEST} bytes at most"))),
            Ok(Err(error)) => return Err(error),
            Err(_) => Err(Error::new(ErrorKind::Decode, "the order took too long")),
        }
    };
    let answer = match answer {
        Ok(policy) => Answer { ringfence: VERSION, policy: Some(policy), ..Answer::default() },
        Err(error) => Answer {
            ringfence: VERSION,
            error: Some(error.chain().to_string()),
            hint: error.advice().map(str::to_owned),
            ..Answer::default()
        },
    };
    let mut bytes = serde_json::to_vec(&answer).map_err(std::io::Error::other)?;
    bytes.push(b'\n');
    timeout(PATIENCE, stream.write_all(&bytes)).await??;
    Ok(())
}

/// Reads a line; none when it is too long.
async fn line(stream: &mut tokio::net::UnixStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).await?;
        let part = &buffer[..read];
        match part.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                bytes.extend(&part[..end]);
                return Ok(Some(bytes));
            }
            None if read == 0 => return Ok(Some(bytes)),
            None => bytes.extend(part),
        }
        if bytes.len() > LONGEST {
            return Ok(None);
        }
    }
}

/// What a line asks for.
#[derive(Debug)]
enum Asked {
    Show,
    Set(Box<Policy>),
    Allow(Vec<Entry>),
    Revoke(Vec<Entry>),
}

impl Asked {
    fn read(line: &[u8]) -> Result<Self> {
        let request: Request = serde_json::from_slice(line)
            .map_err(|error| Error::new(ErrorKind::Decode, "the order can't be read").because(error))?;
        if request.ringfence != VERSION {
            let what =
                format!("this is version {VERSION} of the protocol, and version {} was spoken", request.ringfence);
            return Err(
                Error::new(ErrorKind::Unsupported, what).hint("use the ringfence that the sandbox was started with")
            );
        }
        if request.order == Order::Show {
            return Ok(Self::Show);
        }
        let layer = Layer::from_toml(request.policy.as_bytes(), Path::new("order"))?;
        let Settings { policy, .. } = Settings::from_layers([layer])?;
        Ok(match request.order {
            Order::Show => Self::Show,
            Order::Set => Self::Set(Box::new(policy)),
            Order::Allow => Self::Allow(entries(policy, "allow")?),
            Order::Revoke => Self::Revoke(entries(policy, "revoke")?),
        })
    }
}

/// Reads an order as a sandbox would, and gives back what it asks for, to be shown. For the fuzz targets, which have no sandbox.
#[doc(hidden)]
pub fn read_order(line: &[u8]) -> Result<String> {
    Asked::read(line).map(|asked| format!("{asked:?}"))
}

/// Does what a line says, and gives back the policy as it is then.
async fn obey(line: &[u8], control: &Control) -> Result<String> {
    let order = match Asked::read(line)? {
        Asked::Show => return Ok(control.policy().to_toml()),
        Asked::Set(policy) => {
            control.replace(*policy).await?;
            Order::Set
        }
        Asked::Allow(entries) => {
            control.allow(entries).await?;
            Order::Allow
        }
        Asked::Revoke(entries) => {
            control.revoke(entries).await?;
            Order::Revoke
        }
    };
    tracing::info!(?order, "the policy was changed by order");
    Ok(control.policy().to_toml())
}

/// The lines of a policy that can be added and taken away one by one, and that it has to have.
fn entries(policy: Policy, order: &str) -> Result<Vec<Entry>> {
    let direct = policy.direct.into_iter().map(|to| Entry::Direct(to.value));
    let entries: Vec<Entry> = direct.chain(policy.allow.into_iter().map(|entry| Entry::Allow(entry.value))).collect();
    let other = policy.proxy.is_some()
        || policy.proxy_at.is_some()
        || !policy.private_names.is_empty()
        || !policy.credentials.is_empty()
        || [
            policy.dns.origin,
            policy.dns_grace.origin,
            policy.audit.origin,
            policy.pool.origin,
            policy.sni.origin,
            policy.tampering.origin,
        ]
        .iter()
        .any(|origin| *origin != Origin::Default);
    let what = match (other, entries.is_empty()) {
        (false, false) => return Ok(entries),
        (true, _) => {
            "destinations and direct endpoints are allowed and revoked one by one, and nothing else".to_owned()
        }
        (false, true) => format!("nothing to {order} was named"),
    };
    Err(Error::new(ErrorKind::Policy, what).hint("--allow, --direct, --direct-udp, --direct-host"))
}

/// Gives orders to a sandbox of another process on this host, by its name.
///
/// # Examples
///
/// ```no_run
/// use ringfence::RemoteControl;
/// use ringfence::policy::Policy;
///
/// let build = RemoteControl::of(&"build-7".parse()?);
/// build.allow(&Policy::builder().direct("203.0.113.9:5432")?.build()?)?;
/// println!("{}", build.show()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct RemoteControl {
    name: SandboxName,
}

impl RemoteControl {
    /// Means the sandbox of that name. Nothing is sent yet.
    pub fn of(name: &SandboxName) -> Self {
        Self { name: name.clone() }
    }

    /// The policy as it is now, as a policy file without credentials.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when there is no sandbox of that name in the caller's network namespace, [`ErrorKind::Privilege`] when it is not the
    /// caller's. So with all.
    pub fn show(&self) -> Result<String> {
        self.order(Order::Show, String::new())
    }

    /// Puts another policy in the place of the present one; see [`Control::replace`]. Gives back the policy as it is then.
    ///
    /// # Errors
    ///
    /// As [`Control::replace`].
    pub fn set(&self, policy: &Policy) -> Result<String> {
        self.order(Order::Set, policy.to_toml_with_credentials())
    }

    /// Adds a policy's destinations and direct endpoints; see [`Control::allow`]. Gives back the policy as it is then.
    ///
    /// # Errors
    ///
    /// As [`Control::allow`]; [`ErrorKind::Policy`] when it says anything else.
    pub fn allow(&self, entries: &Policy) -> Result<String> {
        self.order(Order::Allow, entries.to_toml_with_credentials())
    }

    /// Takes a policy's destinations and direct endpoints out, and cuts their flows; see [`Control::revoke`]. Gives back the policy as it is then.
    ///
    /// # Errors
    ///
    /// As [`Control::revoke`]; [`ErrorKind::Policy`] when it says anything else.
    pub fn revoke(&self, entries: &Policy) -> Result<String> {
        self.order(Order::Revoke, entries.to_toml_with_credentials())
    }

    fn order(&self, order: Order, policy: String) -> Result<String> {
        let name = &self.name;
        let mut stream = address(name).and_then(|address| UnixStream::connect_addr(&address)).map_err(|error| {
            Error::new(ErrorKind::Io, format!("there is no sandbox `{name}` that takes orders")).because(error).hint(
                "a sandbox takes orders while its command runs, if it was started with --name, in the network namespace of its host",
            )
        })?;
        let lost = |error: std::io::Error| {
            Error::new(ErrorKind::Io, format!("can't give orders to the sandbox `{name}`")).because(error)
        };
        let server = socket_peercred(&stream).map_err(|errno| lost(errno.into()))?.uid;
        if !server.is_root() && server != rustix::process::geteuid() {
            let what = format!("user {} answers to the name of the sandbox `{name}`", server.as_raw());
            return Err(Error::new(ErrorKind::Privilege, what).hint("run it as that user, if the sandbox is theirs"));
        }
        let request = Request { ringfence: VERSION, order, policy };
        let mut bytes = serde_json::to_vec(&request).map_err(|error| lost(error.into()))?;
        bytes.push(b'\n');
        let mut answered = || -> std::io::Result<Vec<u8>> {
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.set_read_timeout(Some(ANSWER))?;
            let written = stream.write_all(&bytes);
            let mut answer = Vec::new();
            // Who is sent away is told why, whether or not the order was read.
            Read::by_ref(&mut stream).take(2 * LONGEST as u64).read_to_end(&mut answer)?;
            if answer.is_empty() { written.map(|()| answer) } else { Ok(answer) }
        };
        read_answer(name, &answered().map_err(lost)?)
    }
}

/// Reads what a sandbox answers: its policy, or why not. Public for the fuzz targets, which have no sandbox.
#[doc(hidden)]
pub fn read_answer(name: &SandboxName, answer: &[u8]) -> Result<String> {
    let answer = serde_json::from_slice(answer).map_err(|error| {
        Error::new(ErrorKind::Decode, format!("the answer of the sandbox `{name}` can't be read")).because(error)
    })?;
    match answer {
        Answer { error: Some(error), hint, .. } => {
            let error = Error::new(ErrorKind::Policy, format!("sandbox `{name}`: {error}"));
            Err(match hint {
                Some(hint) => error.hint(hint),
                None => error,
            })
        }
        Answer { policy: Some(policy), .. } => Ok(policy),
        _ => Err(Error::new(ErrorKind::Decode, format!("the sandbox `{name}` gave no answer"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_alone_and_there_is_one() {
        let read = |order: &str, policy: &str| {
            let line = serde_json::json!({"ringfence": VERSION, "order": order, "policy": policy}).to_string();
            read_order(line.as_bytes()).map_err(|error| error.to_string())
        };
        for order in ["allow", "revoke"] {
            assert!(read(order, "allow = 'a'\ndirect = 'b:1'").is_ok());
            assert_eq!(read(order, ""), Err(format!("nothing to {order} was named")));
            for other in [
                "proxy = 'p:1'",
                "dns = 'auto'",
                "dns-grace = 15",
                "private-name = 'a'",
                "audit = false",
                "tampering = 'end'",
                "pool = '10.9.0.0/16'",
                "sni = 'any'",
                "credential = 'A=env:B,to=a'",
            ] {
                let error = read(order, &format!("allow = 'a'\n{other}")).unwrap_err();
                assert!(error.ends_with("allowed and revoked one by one, and nothing else"), "{other}: {error}");
            }
        }
    }
}
