//! Which process tried, and how sure that is.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::wire::nflog::{Hook, Message};
use crate::wire::packet::Transport;

/// Ticks a second that proc_pid_stat(5) counts in, on every architecture that this library is for.
const TICKS: u128 = 100;

/// How sure it is which process tried. Never a guess: what can't be known is [`Unknown`](Self::Unknown).
///
/// As JSON: `process` or `candidates`, then `identity`, then `reason`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Identity {
    /// This process, as the kernel told at the time of the attempt.
    Exact(Process),
    /// Most likely this process; the reason says what is not proven.
    Inferred {
        /// The process.
        process: Process,
        /// What is not proven.
        reason: Cow<'static, str>,
    },
    /// One of these: they sent what can't be told apart.
    Ambiguous {
        /// The processes.
        candidates: Vec<Process>,
    },
    /// It is not known.
    Unknown {
        /// Why not.
        reason: Cow<'static, str>,
    },
}

impl Identity {
    /// Not known, for this reason.
    pub fn unknown(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Unknown { reason: reason.into() }
    }

    /// The process, when there is one that is known or inferred.
    pub fn process(&self) -> Option<&Process> {
        match self {
            Self::Exact(process) | Self::Inferred { process, .. } => Some(process),
            Self::Ambiguous { .. } | Self::Unknown { .. } => None,
        }
    }

    /// The word that JSON has for it.
    pub fn certainty(&self) -> &'static str {
        match self {
            Self::Exact(_) => "exact",
            Self::Inferred { .. } => "inferred",
            Self::Ambiguous { .. } => "ambiguous",
            Self::Unknown { .. } => "unknown",
        }
    }
}

impl Serialize for Identity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Exact(process) | Self::Inferred { process, .. } => map.serialize_entry("process", process)?,
            Self::Ambiguous { candidates } => map.serialize_entry("candidates", candidates)?,
            Self::Unknown { .. } => {}
        }
        map.serialize_entry("identity", self.certainty())?;
        if let Self::Inferred { reason, .. } | Self::Unknown { reason } = self {
            map.serialize_entry("reason", reason)?;
        }
        map.end()
    }
}

/// A process at the time of an attempt. What is not known is left out.
///
/// A process may call itself what it likes ([`comm`](Self::comm), [`argv`](Self::argv)); its [`exe`](Self::exe) is the kernel's word. Texts are
/// as the process has them, with what is not UTF-8 replaced: escape them before a terminal sees them, as [`Event::to_json`](super::Event::to_json) does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Process {
    /// Its number, as the supervisor sees it.
    pub pid: u32,
    /// Its number in its own PID namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns_pid: Option<u32>,
    /// When it began, since the machine's start, time asleep included. With the number it names one process for good.
    ///
    /// As JSON in hundredths of a second, like `starttime` in proc_pid_stat(5).
    #[serde(serialize_with = "as_ticks", skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Duration>,
    /// The name that it goes by, of 15 bytes at most.
    pub comm: String,
    /// Path of what it executes, in its own mount namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// Device and inode of what it executes.
    #[serde(flatten, serialize_with = "as_file", skip_serializing_if = "Option::is_none")]
    pub exe_file: Option<(u64, u64)>,
    /// Whether what it executes has been deleted or replaced since: the path is then the one that it had.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub exe_deleted: bool,
    /// Its arguments, its own name first. Left out where they are longer than 8 KiB in all, or where the process keeps whoever asks for them waiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// Its effective user, which may be another than the one who opened the socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its effective group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Path of its cgroup, of the second version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Its parent, its parent's parent, and so on to the first process in the sandbox.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<Ancestor>,
}

/// A process that another one descends from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Ancestor {
    /// Its number, as the supervisor sees it.
    pub pid: u32,
    /// Its number in its own PID namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns_pid: Option<u32>,
    /// The name that it goes by.
    pub comm: String,
    /// Path of what it executes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
}

/// What is known of an attempt from the packet that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempted {
    /// Number of the protocol.
    pub protocol: u8,
    /// Source address.
    pub source: IpAddr,
    /// Source port.
    pub sport: Option<u16>,
    /// Destination address.
    pub destination: IpAddr,
    /// Destination port.
    pub dport: Option<u16>,
    /// TCP's sequence number.
    pub tcp_seq: Option<u32>,
    /// Mark of the packet.
    pub mark: Option<u32>,
    /// User who opened the socket.
    pub uid: Option<u32>,
    /// The packet as far as it was handed over, from its IP header on.
    pub head: Vec<u8>,
}

impl Attempted {
    /// Takes it from a logged packet. `None` for what was not sent by a process in the namespace, or can't be read.
    pub fn of(message: &Message<'_>) -> Option<Self> {
        // A packet that is forwarded, or that a device sends, passed no hook at which its sender is known.
        if message.hook != Some(Hook::OUTPUT) || !matches!(message.family, 2 | 10) {
            return None;
        }
        let packet = message.packet()?.ok()?;
        let ports = packet.ports();
        Some(Self {
            protocol: packet.protocol.0,
            source: packet.source,
            sport: ports.map(|(source, _)| source),
            destination: packet.destination,
            dport: ports.map(|(_, destination)| destination),
            tcp_seq: match &packet.transport {
                Transport::Tcp(tcp) => tcp.sequence,
                _ => None,
            },
            mark: message.mark,
            uid: message.uid,
            head: message.payload.as_deref().unwrap_or_default().to_vec(),
        })
    }
}

/// Tells who sent a packet that was refused.
pub trait Identify: Send {
    /// Tells who it was. To be asked once for each packet, in the order in which they came, and soon.
    fn identify(&mut self, attempted: &Attempted) -> Identity;
}

impl<I: Identify + ?Sized> Identify for Box<I> {
    fn identify(&mut self, attempted: &Attempted) -> Identity {
        (**self).identify(attempted)
    }
}

fn as_ticks<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    let ticks = time.map(|time| u64::try_from(time.as_nanos() * TICKS / 1_000_000_000).unwrap_or(u64::MAX));
    ticks.serialize(serializer)
}

fn as_file<S: Serializer>(file: &Option<(u64, u64)>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct File {
        exe_dev: u64,
        exe_inode: u64,
    }
    file.map(|(exe_dev, exe_inode)| File { exe_dev, exe_inode }).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(identity: &Identity) -> String {
        serde_json::to_string(identity).unwrap()
    }

    #[test]
    fn what_is_known_is_told_and_the_rest_left_out() {
        let bash = Ancestor { pid: 4121, ns_pid: Some(1), comm: "bash".into(), exe: Some("/usr/bin/bash".into()) };
        let mut curl = Process {
            pid: 4123,
            ns_pid: Some(3),
            comm: "curl".into(),
            exe: Some("/usr/bin/curl".into()),
            ancestors: vec![bash],
            ..Process::default()
        };
        assert_eq!(
            json(&Identity::Exact(curl.clone())),
            r#"{"process":{"pid":4123,"ns_pid":3,"comm":"curl","exe":"/usr/bin/curl","ancestors":[{"pid":4121,"ns_pid":1,"comm":"bash","exe":"/usr/bin/bash"}]},"identity":"exact"}"#
        );
        curl.start_time = Some(Duration::from_nanos(12_345_678_901));
        curl.exe_file = Some((2049, 77));
        curl.exe_deleted = true;
        curl.argv = Some(vec!["curl".into(), "-s".into()]);
        (curl.uid, curl.gid, curl.cgroup) = (Some(1000), Some(100), Some("/user.slice".into()));
        curl.ancestors.clear();
        assert_eq!(
            json(&Identity::Inferred { process: curl, reason: "so".into() }),
            r#"{"process":{"pid":4123,"ns_pid":3,"start_time":1234,"comm":"curl","exe":"/usr/bin/curl","exe_dev":2049,"exe_inode":77,"exe_deleted":true,"argv":["curl","-s"],"uid":1000,"gid":100,"cgroup":"/user.slice"},"identity":"inferred","reason":"so"}"#
        );
    }

    #[test]
    fn what_is_not_known_says_why() {
        assert_eq!(json(&Identity::unknown("no BPF")), r#"{"identity":"unknown","reason":"no BPF"}"#);
        let one = |pid| Process { pid, comm: "x".into(), ..Process::default() };
        assert_eq!(
            json(&Identity::Ambiguous { candidates: vec![one(1), one(2)] }),
            r#"{"candidates":[{"pid":1,"comm":"x"},{"pid":2,"comm":"x"}],"identity":"ambiguous"}"#
        );
    }
}
