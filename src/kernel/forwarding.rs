//! Forwarding of packets that arrive on one interface, without making the host a router.
//!
//! `net.ipv4.ip_forward` and `net.ipv6.conf.all.forwarding` open every interface at once, and the second one makes the
//! host a router: it stops listening to router advertisements, and may lose its own way out. So neither is ever
//! switched on here. IPv4 has a switch an interface, which rtnetlink can set. IPv6 has one since Linux 6.17,
//! `net.ipv6.conf.IF.force_forwarding`, which only procfs can set: through `/proc/sys` where that is writable, else
//! through a procfs of our own that nobody else sees.
//!
//! Forwarding is decided where a packet comes in: a flow and its answers need the switch on both of its interfaces.
//!
//! # References
//!
//! Linux `Documentation/networking/ip-sysctl.rst`

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::netns::{Netns, refused};
use super::rtnetlink::{Batch, Request, Socket};
use crate::link::IfIndex;
use crate::{Error, ErrorKind, Result};

/// Whether packets that arrive on an interface are forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Forwarding {
    /// Those of IPv4.
    #[doc(alias = "IPV4_DEVCONF_FORWARDING")]
    pub v4: bool,
    /// Those of IPv6.
    #[doc(alias = "DEVCONF_FORCE_FORWARDING")]
    pub v6: bool,
}

/// Reads what an interface forwards, in the namespace of `socket`.
///
/// `v6` is the interface's own switch where the kernel has one; before, it is that of the whole host.
///
/// # Errors
///
/// [`ErrorKind::Kernel`] when there is no such interface.
///
/// # Privileges
///
/// None from Linux 6.17 on; before, those of [`Netns::run`].
pub fn read(socket: &mut Socket, index: IfIndex) -> Result<Forwarding> {
    let link = socket.link(index)?;
    let v6 = match link.forwards6 {
        Some(on) => on,
        None => is_router(socket, false)?,
    };
    Ok(Forwarding { v4: link.forwards4.unwrap_or(false), v6 })
}

/// Sets what an interface forwards, in the namespace of `socket`, and gives back what it was before. What is as wanted
/// already is not touched.
///
/// Set over rtnetlink, IPv4 forwarding leaves large receive offload on, which sysctl would switch off: on one of the few
/// network cards that come with it on, switch it off with `ethtool --offload`.
///
/// # Errors
///
/// [`ErrorKind::Unsupported`] when IPv6 is to be forwarded, the kernel has no switch for one interface, and the host is
/// no router. [`ErrorKind::Privilege`] without `CAP_NET_ADMIN`. IPv4 is then as it was.
///
/// # Privileges
///
/// `CAP_NET_ADMIN` in the user namespace that owns the network namespace; for IPv6 also `CAP_SYS_ADMIN`, to enter the
/// namespace.
///
/// # Kernel
///
/// 6.17 for IPv6
pub fn set(socket: &mut Socket, index: IfIndex, wanted: Forwarding) -> Result<Forwarding> {
    let link = socket.link(index)?;
    let before = read(socket, index)?;
    // IPv6 first: it may be impossible, and then nothing has been changed.
    if wanted.v6 != before.v6 {
        match link.forwards6 {
            Some(_) => write6(socket, &link.name, wanted.v6)?,
            // The host is a router and stays one: that is not ours to undo.
            None if before.v6 => {}
            None => {
                let what = format!("can't forward IPv6 from {} alone", link.name);
                return Err(Error::new(ErrorKind::Unsupported, what).hint(
                    "use Linux 6.17 or later, or make the host a router yourself: \
                     sysctl net.ipv6.conf.all.forwarding=1",
                ));
            }
        }
    }
    if wanted.v4 != before.v4
        && let Err(error) = socket.commit(Batch::from([Request::forwarding4(index, wanted.v4)]))
    {
        if wanted.v6 != before.v6 && link.forwards6.is_some() {
            write6(socket, &link.name, before.v6)?;
        }
        return Err(error);
    }
    Ok(before)
}

fn write6(socket: &Socket, interface: &str, on: bool) -> Result<()> {
    let path = format!("sys/net/ipv6/conf/{interface}/force_forwarding");
    let value: &[u8] = if on { b"1" } else { b"0" };
    let written = Netns::of_socket(socket)?.run(|| {
        let write = |proc: OwnedFd| {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let file = rustix::fs::openat(&proc, &path, flags, Mode::empty())?;
            rustix::io::write(&file, value).map(|_| ())
        };
        // EACCES and EPERM too: an unwritable sysctl file, not only an unwritable mount.
        hosts_procfs().and_then(write).or_else(|_| own_procfs().and_then(write))
    })?;
    written.map_err(|errno| {
        let error = refused(errno, format!("can't set IPv6 forwarding of {interface}"));
        match errno {
            // A user namespace may mount procfs only where it sees all of one already.
            Errno::PERM | Errno::ACCESS | Errno::ROFS => error.hint(format!(
                "make /proc/sys writable, or set it outside: sysctl net.{}=1",
                path[8..].replace('/', ".")
            )),
            _ => error,
        }
    })
}

/// Says whether the host as a whole is a router of that family, as by `sysctl net.ipv4.ip_forward=1`.
///
/// # Errors
///
/// [`ErrorKind::Privilege`] when the namespace of `socket` may not be entered.
pub fn is_router(socket: &Socket, v4: bool) -> Result<bool> {
    let path = if v4 { "sys/net/ipv4/conf/all/forwarding" } else { "sys/net/ipv6/conf/all/forwarding" };
    Netns::of_socket(socket)?.run(|| {
        let read = |proc: OwnedFd| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let file = rustix::fs::openat(&proc, path, flags, Mode::empty())?;
            let mut value = [0; 1];
            rustix::io::read(&file, &mut value)?;
            Ok(value != *b"0")
        };
        // A host without that sysctl, or without a way to it, counts as no router.
        hosts_procfs().and_then(read).or_else(|_: Errno| own_procfs().and_then(read)).unwrap_or(false)
    })
}

/// The procfs that is mounted at /proc, if it is one.
pub(super) fn hosts_procfs() -> rustix::io::Result<OwnedFd> {
    const PROC_SUPER_MAGIC: u64 = 0x9fa0;
    let proc = rustix::fs::open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // What somebody else put there is not asked what to write.
    match rustix::fs::fstatfs(&proc)?.f_type as u64 {
        PROC_SUPER_MAGIC => Ok(proc),
        _ => Err(Errno::NODEV),
    }
}

/// A procfs that is mounted nowhere and gone with its descriptor.
pub(super) fn own_procfs() -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
