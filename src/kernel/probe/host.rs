//! What is read of the caller and of the caller's namespace. Nothing here changes anything.

use rustix::fs::{CWD, StatVfsMountFlags};
use rustix::thread::CapabilitySet as Bits;

use super::{Outcome, Probe, features};
use crate::doctor::{Fact, ForeignChain};
use crate::kernel::child::CapabilitySet;
use crate::kernel::forwarding;
use crate::kernel::netns::Netns;
use crate::kernel::{nftables, passwd, rtnetlink};
use crate::link::IfIndex;
use crate::{Error, ErrorKind, Result};

/// Without these nothing can be fenced; the last is for port 53 inside, where the built-in resolver answers.
const NEEDED: CapabilitySet = CapabilitySet::from_bits(
    Bits::NET_ADMIN.bits() | Bits::SYS_ADMIN.bits() | Bits::SETPCAP.bits() | Bits::NET_BIND_SERVICE.bits(),
);

/// How much of a small file of procfs is read.
const SMALL: u64 = 4096;

pub(super) fn privileges(probe: &mut Probe) {
    probe.push(
        features::CAPABILITIES,
        match held() {
            Ok((effective, _)) => match NEEDED.without(effective) {
                missing if missing.is_empty() => Outcome::yes(),
                missing => Outcome::no(format!("missing: {missing}")),
            },
            Err(error) => Outcome::unknown(error.chain()),
        },
    );
    // The kernel lets nobody else ask for the namespace of a socket, so asking is proof, and changes nothing.
    let admin = rtnetlink::Socket::open().and_then(Netns::of_socket);
    probe.check(features::HOST_ADMIN, admin);
    probe.check(features::HOST_ENTRY, Netns::current().and_then(|host| host.run(|| ())));
}

/// Effective and permitted capabilities.
fn held() -> Result<(CapabilitySet, CapabilitySet)> {
    let sets = rustix::thread::capabilities(None)
        .map_err(|errno| Error::new(ErrorKind::Kernel, "can't read one's own capabilities").because(errno))?;
    Ok((CapabilitySet::from_bits(sets.effective.bits()), CapabilitySet::from_bits(sets.permitted.bits())))
}

/// Whether the host forwards all IPv6. Where that can't be told it is not.
pub(super) fn is_router6() -> bool {
    let read = || -> Result<bool> {
        let mut links = rtnetlink::Socket::open()?;
        // With a switch of its own, an interface does not tell of the host.
        match links.link(IfIndex(1))?.forwards6 {
            Some(_) => Ok(false),
            None => forwarding::read(&mut links, IfIndex(1)).map(|forwarding| forwarding.v6),
        }
    };
    read().unwrap_or(false)
}

pub(super) fn facts() -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut fact = |name, value: String| facts.push(Fact { name, value });
    let uname = rustix::system::uname();
    fact("kernel", format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()));
    let uid = rustix::process::geteuid().as_raw();
    fact(
        "user",
        match passwd::sudo_user() {
            Some(user) => {
                format!("{uid}, called through sudo by {}: a command runs as that user unless told", user.uid)
            }
            None => uid.to_string(),
        },
    );
    fact("user namespace", user_namespace());
    if let Ok((_, permitted)) = held() {
        let lacking = CapabilitySet::DOCKER_WITHOUT_NET_RAW.without(permitted);
        if !lacking.is_empty() {
            fact("capabilities that a command can't keep", lacking.to_string());
        }
    }
    fact("/proc", proc());
    fact("/sys", if exists("/sys/class/net") { "mounted" } else { "not there (not needed)" }.to_owned());
    facts
}

fn user_namespace() -> String {
    let Some(map) = text("/proc/self/uid_map") else { return "unknown: there is no /proc to tell".to_owned() };
    let numbers: Vec<&str> = map.split_ascii_whitespace().collect();
    match numbers[..] {
        // All of them, as they are: so it is in the first one alone, as far as anybody can tell.
        ["0", "0", "4294967295"] => "the initial one".to_owned(),
        [] => "one without users".to_owned(),
        _ => {
            let lines: Vec<String> = numbers.chunks(3).map(|line| line.join(" ")).collect();
            format!("not the initial one (uid_map: {})", lines.join(", "))
        }
    }
}

fn proc() -> String {
    if !exists("/proc/self") {
        return "not there (not needed)".to_owned();
    }
    match rustix::fs::statvfs("/proc/sys/net") {
        Ok(stat) if stat.f_flag.contains(StatVfsMountFlags::RDONLY) => "mounted, /proc/sys read-only".to_owned(),
        _ => "mounted".to_owned(),
    }
}

fn exists(path: &str) -> bool {
    rustix::fs::accessat(CWD, path, rustix::fs::Access::EXISTS, rustix::fs::AtFlags::empty()).is_ok()
}

fn text(path: &str) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(SMALL).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Reads what other people's chains drop by policy, and adds what could not be seen to the facts.
pub(super) fn foreign(facts: &mut Vec<Fact>) -> Option<Vec<ForeignChain>> {
    let legacy = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"].map(text);
    let names: Vec<&str> = legacy.iter().flatten().flat_map(|names| names.split_ascii_whitespace()).collect();
    if !names.is_empty() {
        let value = format!("tables there: {}; what they drop is not seen here", names.join(", "));
        facts.push(Fact { name: "legacy iptables", value });
    }
    let read = || -> Result<_> {
        let mut socket = nftables::Socket::open()?;
        Ok((socket.tables()?, socket.chains()?))
    };
    match read() {
        Ok((tables, chains)) => {
            let unread = chains.iter().filter(|chain| chain.is_err()).count();
            if unread > 0 {
                facts.push(Fact { name: "chains that could not be read", value: unread.to_string() });
            }
            let chains: Vec<_> = chains.into_iter().flatten().collect();
            Some(ForeignChain::among(&tables, &chains))
        }
        Err(error) => {
            facts.push(Fact { name: "other tables", value: format!("unknown: {}", error.chain()) });
            None
        }
    }
}
