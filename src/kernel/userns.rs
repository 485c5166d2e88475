//! A user namespace that owns a network namespace, so that a capability kept in there is worth nothing elsewhere.
//!
//! For every network namespace that a request touches, the kernel asks for `CAP_NET_ADMIN` in the user namespace that owns it. A program
//! that keeps this capability of the host's user namespace therefore has it on the host's network too, wherever its own network namespace
//! is: it needs but a number for the host's, and each veth carries one. In a user namespace of its own it has it there alone.
//!
//! Users and groups are those of the caller, number for number, so files and processes look and belong as they did.
//!
//! A process with threads can't enter a user namespace, so both namespaces are made with a process of their own. It lives
//! until they are held by descriptors.
//!
//! # References
//!
//! user_namespaces(7)

#![allow(unsafe_code)]

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::{Signal, pidfd_send_signal};
use rustix::thread::{
    LinkNameSpaceType, UnshareFlags, capabilities, move_into_link_name_space, set_capabilities, unshare_unsafe,
};

use super::child::{self, Fork};
use super::forwarding::{hosts_procfs, own_procfs};
use super::netns::{Netns, descriptor_ioctl, on_thread, refused};
use crate::{Error, ErrorKind, Result};

/// `_IO(0xb7, 1)` of linux/nsfs.h.
const NS_GET_USERNS: u32 = 0xb701;

/// A user namespace, held by a close-on-exec file descriptor.
#[doc(alias = "CLONE_NEWUSER")]
pub struct Userns {
    fd: OwnedFd,
}

impl Userns {
    /// Creates a user namespace that has the caller's users and groups under their own numbers, and a network namespace that
    /// belongs to it; does the first piece of work in the latter, as [`Netns::create_with`] does.
    ///
    /// It is owned by the last user that the caller's user namespace has. A process out there with its owner's number has all capabilities
    /// in it, without having any where it is: it must not be every root, and no command can become it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Privilege`] where the kernel refuses (in a chroot it always does), [`ErrorKind::Unsupported`] on a kernel without
    /// user namespaces, [`ErrorKind::Exhausted`] when there are too many (`/proc/sys/user/max_user_namespaces`).
    ///
    /// # Panics
    ///
    /// With the panic of `work`, if it panics.
    ///
    /// # Privileges
    ///
    /// `CAP_SYS_ADMIN`, `CAP_NET_ADMIN`, `CAP_SETUID`, `CAP_SETGID` and `CAP_SETFCAP` in the caller's user namespace, and `CAP_DAC_OVERRIDE`
    /// for a caller who is not root there.
    ///
    /// # Kernel
    ///
    /// 5.9
    pub fn create_with<T: Send>(work: impl FnOnce() -> T + Send) -> Result<(Self, Netns, T)> {
        on_thread(|| {
            let maps = with_procfs(Maps::read).map_err(|errno| refused(errno, "can't read ringfence's own users"))?;
            let founder = Founder::fork(maps.owner)?;
            let netns = founder.netns()?;
            with_procfs(|proc| maps.write(proc, &founder.pidfd)).map_err(|errno| {
                let what = "can't map users into a user namespace";
                match errno {
                    Errno::PERM | Errno::ACCESS => Error::new(ErrorKind::Privilege, what)
                        .because(io::Error::from(errno))
                        .hint("this needs CAP_SETUID, CAP_SETGID and CAP_SETFCAP; of others than root also CAP_DAC_OVERRIDE"),
                    _ => refused(errno, what),
                }
            })?;
            let fd = descriptor_ioctl(netns.as_fd(), NS_GET_USERNS)
                .map_err(|errno| refused(errno, "can't tell the user namespace of a network namespace"))?;
            drop(founder);
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|errno| refused(errno, format!("can't enter {netns:?}")))?;
            Ok((Self { fd }, netns, work()))
        })?
    }
}

impl AsFd for Userns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Userns> for OwnedFd {
    fn from(userns: Userns) -> Self {
        userns.fd
    }
}

impl fmt::Debug for Userns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match rustix::fs::fstat(&self.fd) {
            // The way `readlink /proc/self/ns/user` shows it.
            Ok(stat) => write!(f, "user:[{}]", stat.st_ino),
            Err(_) => f.write_str("user:[?]"),
        }
    }
}

/// The user to whom the user namespaces of sandboxes belong, and whom no command may be or become. Nobody where the caller's user namespace
/// has one user alone: that one everybody is.
///
/// Where no procfs is to be had, as in an empty chroot of a user namespace, none of these can be made: it is the one that they have on a host then.
///
/// # Errors
///
/// As [`Userns::create_with`].
pub(super) fn owner() -> Result<Option<u32>> {
    let maps = match with_procfs(Maps::read) {
        Err(Errno::PERM | Errno::ACCESS | Errno::NOENT) => return Ok(Some(u32::MAX - 1)),
        maps => maps.map_err(|errno| refused(errno, "can't read ringfence's own users"))?,
    };
    let alone = maps.users == format!("{0} {0} 1\n", maps.owner);
    Ok((!alone).then_some(maps.owner))
}

/// The process with which both namespaces are born. Dropping it ends it.
struct Founder {
    pidfd: OwnedFd,
    /// Its end closes, and so ends the founder, should this process be killed.
    control: OwnedFd,
}

impl Founder {
    /// Forks it; it will take the user `owner` for what it makes, where that is another than ours.
    fn fork(owner: u32) -> Result<Self> {
        let (control, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(|errno| refused(errno, "can't make a socket to the founder of a user namespace"))?;
        let owner = (owner != rustix::process::geteuid().as_raw()).then_some(owner);
        // All but its own end: with a copy of the other one open it would never see that one close.
        let kept = theirs.as_raw_fd().cast_unsigned();
        let mut close: Vec<(u32, u32)> = (0..3).filter(|fd| *fd != kept).map(|fd| (fd, fd)).collect();
        close.extend(child::gaps(&[kept]));
        let mut pidfd = -1;
        // A handler of this process must not run there.
        let mask = child::block_all();
        // SAFETY: in the child `found` makes system calls alone, and never returns.
        let forked = unsafe { child::fork(0, 0, Some(&mut pidfd)) };
        if let Ok(Fork::Child) = forked {
            found(&close, &theirs, owner);
        }
        child::set_mask(&mask);
        forked.map_err(failed)?;
        // SAFETY: clone3(2) made this descriptor just now for us alone.
        Ok(Self { pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) }, control })
    }

    /// Hears that the namespaces are there, and takes the network's.
    fn netns(&self) -> Result<Netns> {
        let mut bytes = [0u8; 4];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let count = rustix::io::retry_on_intr(|| {
            recvmsg(&self.control, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        })
        .map_err(failed)?
        .bytes;
        let socket = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
            _ => None,
        });
        match (count, i32::from_ne_bytes(bytes), socket) {
            (4, 0, Some(socket)) => Netns::of_socket(socket),
            (4, errno, _) if errno != 0 => Err(failed(Errno::from_raw_os_error(errno))),
            _ => Err(Error::new(ErrorKind::Child, "the founder of a user namespace was lost")),
        }
    }
}

impl Drop for Founder {
    fn drop(&mut self) {
        // Refused it can be only when it has ended already.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = child::wait_for(&self.pidfd);
    }
}

fn failed(errno: Errno) -> Error {
    let what = "can't create a user namespace";
    let error = |kind| Error::new(kind, what).because(io::Error::from(errno));
    match errno {
        Errno::PERM | Errno::ACCESS => error(ErrorKind::Privilege)
            .hint("this needs CAP_SYS_ADMIN and CAP_SETUID, no chroot, and a kernel that lets user namespaces be made"),
        Errno::INVAL => error(ErrorKind::Unsupported).hint("use a kernel with CONFIG_USER_NS and CONFIG_NET_NS"),
        Errno::NOSPC | Errno::USERS | Errno::AGAIN | Errno::NOMEM => error(ErrorKind::Exhausted).hint(
            "raise /proc/sys/user/max_user_namespaces or max_net_namespaces; user namespaces nest 32 deep at most",
        ),
        _ => refused(errno, what),
    }
}

/// The founder's process. Async-signal-safe.
fn found(close: &[(u32, u32)], control: &OwnedFd, owner: Option<u32>) -> ! {
    let (errno, socket) = match make_namespaces(close, owner) {
        Ok(socket) => (0, Some(socket)),
        Err(errno) => (errno.raw_os_error(), None),
    };
    let borrowed = socket.as_ref().map(AsFd::as_fd);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(borrowed.as_slice()));
    // Nobody listening means that the supervisor is gone, which the next line notices.
    let _ = sendmsg(control, &[IoSlice::new(&errno.to_ne_bytes())], &mut ancillary, SendFlags::NOSIGNAL);
    // Until killed, or the end of the stream.
    while rustix::io::read(control, &mut [0u8]) == Err(Errno::INTR) {}
    child::exit(0)
}

/// Makes both namespaces for the founder; gives a socket in the network's.
fn make_namespaces(close: &[(u32, u32)], owner: Option<u32>) -> rustix::io::Result<OwnedFd> {
    child::close_ranges(close)?;
    // A name to be found by in a process list; that it can't be set is no reason to stop.
    let _ = rustix::thread::set_name(c"ringfence-users");
    if let Some(owner) = owner {
        // The effective user alone: with the others it would lose its capabilities for good, and so they are but put aside.
        let unchanged = libc::uid_t::MAX;
        // SAFETY: the system call takes three numbers. Not setresuid(3), which would tell threads that are not there.
        if unsafe { libc::syscall(libc::SYS_setresuid, unchanged, owner, unchanged) } != 0 {
            return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::PERM));
        }
        let mut sets = capabilities(None)?;
        sets.effective = sets.permitted;
        set_capabilities(None, sets)?;
    }
    // SAFETY: `unshare_unsafe` is unsafe because of CLONE_FILES, which is not among the flags.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNET) }?;
    rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
}

/// Does something by way of the procfs at /proc, or where there is none to be used, by one of our own.
fn with_procfs<T>(work: impl Fn(&OwnedFd) -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    let usual = hosts_procfs().and_then(|proc| work(&proc));
    // Also where /proc is read-only, or shows the processes of another PID namespace.
    usual.or_else(|first| {
        // Where there was none, what counts is why there can't be one of our own.
        let missing = matches!(first, Errno::NOENT | Errno::NODEV);
        own_procfs().map_err(|own| if missing { own } else { first }).and_then(|proc| work(&proc))
    })
}

/// The users and groups of the caller's user namespace, each under its own number.
struct Maps {
    users: String,
    groups: String,
    /// The last of the users.
    owner: u32,
}

impl Maps {
    fn read(proc: &OwnedFd) -> rustix::io::Result<Self> {
        let (users, owner) = identity_map(&read(proc, "self/uid_map")?).ok_or(Errno::INVAL)?;
        let (groups, _) = identity_map(&read(proc, "self/gid_map")?).ok_or(Errno::INVAL)?;
        Ok(Self { users, groups, owner })
    }

    /// Gives them to the founder's user namespace. Done from out here, which leaves it setgroups(2).
    fn write(&self, proc: &OwnedFd, founder: &OwnedFd) -> rustix::io::Result<()> {
        // As this procfs counts, which may be another PID namespace's than ours.
        let pid = read(proc, &format!("self/fdinfo/{}", founder.as_raw_fd()))?;
        let pid = pid.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<u32>().ok());
        let pid = pid.filter(|pid| *pid > 0).ok_or(Errno::SRCH)?;
        for (file, map) in [("uid_map", &self.users), ("gid_map", &self.groups)] {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let target = rustix::fs::openat(proc, format!("{pid}/{file}"), flags, Mode::empty())?;
            // In one piece: the kernel takes no second.
            if rustix::io::write(&target, map.as_bytes())? != map.len() {
                return Err(Errno::IO);
            }
        }
        Ok(())
    }
}

fn read(proc: &OwnedFd, path: &str) -> rustix::io::Result<String> {
    let file = rustix::fs::openat(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    match File::from(file).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

/// The map that gives every number of `own` to itself, and the last of these numbers. `own` is a `uid_map` or `gid_map` as its user namespace
/// sees it: first number inside, first number outside, count.
#[doc(hidden)]
pub fn identity_map(own: &str) -> Option<(String, u32)> {
    let mut map = String::new();
    let mut last = None;
    for line in own.lines() {
        let mut fields = line.split_whitespace().map(str::parse::<u32>);
        let (Some(Ok(first)), Some(Ok(_)), Some(Ok(count)), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return None;
        };
        writeln!(map, "{first} {first} {count}").ok()?;
        last = last.max(Some(first.checked_add(count.checked_sub(1)?)?));
    }
    Some((map, last?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_gives_every_number_to_itself() {
        assert_eq!(
            identity_map("         0          0 4294967295\n"),
            Some(("0 0 4294967295\n".to_owned(), 4_294_967_294))
        );
        let nested = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(identity_map(nested), Some(("0 0 1\n1 1 65536\n".to_owned(), 65536)));
        for bad in ["", "0 0\n", "0 0 1 1\n", "0 0 -1\n", "0 0 0\n", "4294967295 0 2\n", "a b c\n"] {
            assert_eq!(identity_map(bad), None, "{bad:?}");
        }
    }
}
