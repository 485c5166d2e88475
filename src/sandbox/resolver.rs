//! The built-in resolver inside a sandbox: its sockets, and what the program sees of the host's settings for names.
//!
//! The sockets are born as [`super::listener`]'s is. They stand at every address that a resolv.conf of the host may name, so that a program that has
//! read it before, or brings its own, finds somebody who answers: libc's default, systemd-resolved's and Docker's.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::dns::{HostFiles, HostResolver, ResolvConf, Resolver, Sockets, nsswitch_inside};
use crate::kernel::child::Cover;
use crate::policy::DnsMode;
use crate::{Error, ErrorKind, Result};

use super::Sandbox;
use super::live::LiveGate;

/// Port of name servers.
const DOMAIN: u16 = 53;
/// Connections that wait to be accepted, on each address.
const BACKLOG: i32 = 64;
/// Room for questions that wait to be read, in bytes: some two thousand.
const WAITING: usize = 1 << 20;
/// Where the resolver answers.
const ADDRESSES: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)),
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];
/// Other ways to ask for names, past the resolver: sockets of services on the host that answer for whoever connects.
const SERVICES: [&str; 4] = ["/run/systemd/resolve", "/run/nscd", "/var/run/nscd", "/var/run/systemd/resolve"];

/// Sockets that have no address yet.
pub(super) struct Unbound(Vec<(OwnedFd, SocketType, IpAddr)>);

/// Opens the sockets for [`listen`], in the namespace of the calling thread; none where the resolver is not built in.
pub(super) fn sockets(mode: DnsMode) -> Result<Unbound> {
    let mut sockets = Vec::new();
    if !is_built_in(mode) {
        return Ok(Unbound(sockets));
    }
    for address in ADDRESSES {
        for kind in [SocketType::DGRAM, SocketType::STREAM] {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            match rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None) {
                Ok(socket) => sockets.push((socket, kind, address)),
                // A kernel without IPv6.
                Err(Errno::AFNOSUPPORT) if address.is_ipv6() => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
    }
    Ok(Unbound(sockets))
}

/// Gives them their addresses.
pub(super) fn listen(unbound: Unbound) -> Result<Sockets> {
    let mut sockets = Sockets::default();
    for (socket, kind, address) in unbound.0 {
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, true).map_err(failed)?;
        }
        match rustix::net::bind(&socket, &SocketAddr::new(address, DOMAIN)) {
            // IPv6 is switched off.
            Err(Errno::ADDRNOTAVAIL) if address.is_ipv6() => continue,
            other => other.map_err(failed)?,
        }
        if kind == SocketType::STREAM {
            rustix::net::listen(&socket, BACKLOG).map_err(failed)?;
            sockets.tcp.push(socket.into());
        } else {
            // Past the host's limit, which holds some 270. Without the privilege it is those.
            let _ = sockopt::set_socket_recv_buffer_size_force(&socket, WAITING);
            sockets.udp.push(socket.into());
        }
    }
    Ok(sockets)
}

/// The built-in resolver, for as long as this lives.
#[derive(Debug)]
pub(super) struct ServingNames(tokio::task::JoinHandle<()>);

impl Drop for ServingNames {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Serves on the caller's runtime, if the resolver is built in.
pub(super) fn serve(sandbox: &mut Sandbox) -> Option<ServingNames> {
    let mode = sandbox.plan.dns.value;
    if !is_built_in(mode) {
        return None;
    }
    let sockets = std::mem::take(&mut sandbox.questions);
    let gate = Arc::new(LiveGate(sandbox.kept.live().clone()));
    let mut resolver = Resolver::new(sandbox.options.names.clone(), gate)
        .answers(Arc::clone(&sandbox.answers))
        // Under `open` libc's own search finds what there is.
        .search(mode == DnsMode::Auto)
        .audit(sandbox.plan.audit.value);
    let (hub, callback) = (Arc::clone(&sandbox.hub), sandbox.options.on_dns_denial.clone());
    resolver = resolver.on_denial(Arc::new(move |denial| {
        hub.denied_by_resolver(&denial);
        if let Some(callback) = &callback {
            callback(denial);
        }
    }));
    let serving = resolver.serve(sockets, std::future::pending());
    Some(ServingNames(tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "the built-in resolver ended");
        }
    })))
}

fn is_built_in(mode: DnsMode) -> bool {
    matches!(mode, DnsMode::Auto | DnsMode::Open)
}

/// What the program sees of the host's settings for names.
///
/// Reads the host's files; what can't be read is taken for absent.
pub(super) fn covers(mode: DnsMode, names: &HostResolver) -> Vec<Cover> {
    let HostFiles { resolv_conf, nsswitch, .. } = HostFiles::default();
    let settings = names.settings();
    let conf = match mode {
        DnsMode::Auto | DnsMode::Open => settings.inside(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        DnsMode::Server { address, port } => {
            if port.get() != DOMAIN {
                tracing::warn!(%port, "resolv.conf can't name a port: only programs that know it ask there");
            }
            settings.inside(address)
        }
        DnsMode::Off => nobody(),
    };
    let mut covers = vec![file(&resolv_conf, conf)];
    if let Ok(text) = std::fs::read(&nsswitch) {
        let text = nsswitch_inside(&String::from_utf8_lossy(&text), mode != DnsMode::Off);
        covers.push(file(&nsswitch, text));
    }
    // `/var/run` is `/run` nearly everywhere: each is covered once.
    let services: BTreeSet<PathBuf> = SERVICES.iter().filter_map(|path| std::fs::canonicalize(path).ok()).collect();
    covers.extend(services.into_iter().map(|path| Cover::Nothing { path }));
    covers
}

fn file(path: &Path, content: String) -> Cover {
    Cover::File { path: path.to_owned(), content: content.into_bytes() }
}

/// A resolv.conf of which nothing comes. Without a server libc would ask its own host, so that is said; nobody listens there, which shows at once. musl
/// does not see it and waits: not for long.
fn nobody() -> String {
    let none = ResolvConf { options: vec!["timeout:1".to_owned(), "attempts:1".to_owned()], ..ResolvConf::default() };
    none.inside(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn failed(errno: Errno) -> Error {
    let what = "can't answer for names inside the sandbox";
    match errno {
        Errno::ACCESS => Error::new(ErrorKind::Privilege, what)
            .because(std::io::Error::from(errno))
            .hint("port 53 takes CAP_NET_BIND_SERVICE; `--dns off` does without"),
        _ => Error::new(ErrorKind::Io, what).because(std::io::Error::from(errno)),
    }
}
