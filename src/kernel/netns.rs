//! Network namespaces, held by file descriptor.
//!
//! A namespace lives as long as something refers to it. A [`Netns`] is such a reference: it has no name, no process and
//! no file, so it vanishes with its last descriptor, even when its holder is killed. [`Netns::name`] gives it a name
//! that `ip netns` knows, for those who want one.
//!
//! A thread, not a process, is in a network namespace. Everything here that must be done inside one is done on a thread
//! that lives for that one piece of work, so that no pooled thread, no worker of an async runtime and no thread of the
//! caller's is ever left in the wrong place.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::panic;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::{Error, ErrorKind, Result};

/// Where ip-netns(8) keeps the names.
const NAMES: &str = "/run/netns";

/// `_IO(0xff, 4)` of linux/pidfd.h.
const PIDFD_GET_NET_NAMESPACE: u32 = 0xff04;
/// linux/sockios.h.
const SIOCGSKNS: u32 = 0x894c;
/// `_IO(0xb7, 3)` of linux/nsfs.h.
const NS_GET_NSTYPE: u32 = 0xb703;

/// A network namespace, held by a close-on-exec file descriptor.
///
/// # References
///
/// network_namespaces(7), setns(2)
#[doc(alias = "CLONE_NEWNET")]
pub struct Netns {
    fd: OwnedFd,
}

impl Netns {
    /// Creates a namespace with nothing in it but a loopback interface that is down.
    ///
    /// # Errors
    ///
    /// As [`create_with`](Self::create_with).
    ///
    /// # Privileges
    ///
    /// `CAP_SYS_ADMIN` in the caller's user namespace.
    pub fn new() -> Result<Self> {
        Ok(Self::create_with(|| ())?.0)
    }

    /// Creates a namespace and does the first piece of work in it, on the thread that made it.
    ///
    /// A socket stays in the namespace where it was opened, whoever uses it later: open here what is wanted of the
    /// namespace, and save the thread that [`run`](Self::run) would cost.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Privilege`] without `CAP_SYS_ADMIN`, [`ErrorKind::Unsupported`] on a kernel without network
    /// namespaces, [`ErrorKind::Exhausted`] when there are too many (`/proc/sys/user/max_net_namespaces`).
    ///
    /// # Panics
    ///
    /// With the panic of `work`, if it panics.
    ///
    /// # Privileges
    ///
    /// `CAP_SYS_ADMIN` in the caller's user namespace.
    pub fn create_with<T: Send>(work: impl FnOnce() -> T + Send) -> Result<(Self, T)> {
        on_thread(|| {
            // SAFETY: `unshare_unsafe` is unsafe because unsharing the file descriptor table (CLONE_FILES) breaks I/O
            // safety. Only the network namespace is unshared, and of a thread that ends with this closure.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|errno| {
                let what = "can't create a network namespace";
                match errno {
                    Errno::INVAL => Error::new(ErrorKind::Unsupported, what)
                        .because(io::Error::from(errno))
                        .hint("use a kernel with CONFIG_NET_NS"),
                    Errno::NOSPC | Errno::USERS => Error::new(ErrorKind::Exhausted, what)
                        .because(io::Error::from(errno))
                        .hint("raise /proc/sys/user/max_net_namespaces"),
                    _ => refused(errno, what),
                }
            })?;
            let netns = Self::of_this_thread()?;
            Ok((netns, work()))
        })?
    }

    /// Takes the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Privilege`] for a caller without `CAP_NET_ADMIN` that has no `/proc` either.
    pub fn current() -> Result<Self> {
        // Without /proc there is the socket, without the privilege that needs there is /proc.
        Self::of_this_thread().or_else(|error| Self::open("/proc/thread-self/ns/net").map_err(|_| error))
    }

    fn of_this_thread() -> Result<Self> {
        // A netlink socket, because that family is in every kernel that has network namespaces.
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .map_err(|errno| refused(errno, "can't open a netlink socket"))?;
        Self::of_socket(socket)
    }

    /// Takes the namespace in which a socket was opened. Needs no `/proc`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Privilege`] without `CAP_NET_ADMIN` there.
    ///
    /// # Privileges
    ///
    /// `CAP_NET_ADMIN` in the user namespace that owns the network namespace.
    ///
    /// # Kernel
    ///
    /// 4.10
    #[doc(alias = "SIOCGSKNS")]
    pub fn of_socket(socket: impl AsFd) -> Result<Self> {
        let fd = descriptor_ioctl(socket.as_fd(), SIOCGSKNS)
            .map_err(|errno| refused(errno, "can't tell the network namespace of a socket"))?;
        Ok(Self { fd })
    }

    /// Opens the namespace that is mounted at `path`: `/run/netns/NAME`, `/proc/PID/ns/net`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when there is nothing, or something else, at `path`; [`ErrorKind::Privilege`] when it may not
    /// be opened.
    ///
    /// # Kernel
    ///
    /// 4.11
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let what = || format!("can't open the network namespace `{}`", path.display());
        // NONBLOCK so that a FIFO put there doesn't hold us up.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| refused(errno, what()))?;
        // SAFETY: NS_GET_NSTYPE takes no argument and touches no memory of ours; `fd` is open for the call.
        let kind = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE as libc::Ioctl) };
        if kind != libc::CLONE_NEWNET {
            return Err(Error::new(ErrorKind::Io, format!("`{}` is not a network namespace", path.display())));
        }
        Ok(Self { fd })
    }

    /// Takes the namespace of a process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when there is no such process, [`ErrorKind::Privilege`] when the caller may not look at it.
    ///
    /// # Privileges
    ///
    /// What ptrace(2) calls `PTRACE_MODE_READ_FSCREDS`.
    ///
    /// # Kernel
    ///
    /// 5.3; before 6.11 it needs `/proc`.
    #[doc(alias = "PIDFD_GET_NET_NAMESPACE")]
    pub fn of_pid(pid: u32) -> Result<Self> {
        let gone = || Error::new(ErrorKind::Io, format!("there is no process {pid}"));
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
        let pidfd = rustix::process::pidfd_open(id, PidfdFlags::empty()).map_err(|errno| match errno {
            Errno::SRCH | Errno::INVAL => gone(),
            errno => refused(errno, format!("can't open process {pid}")),
        })?;
        match descriptor_ioctl(pidfd.as_fd(), PIDFD_GET_NET_NAMESPACE) {
            Ok(fd) => return Ok(Self { fd }),
            Err(Errno::NOTTY | Errno::INVAL | Errno::OPNOTSUPP) => {}
            Err(Errno::SRCH) => return Err(gone()),
            Err(errno) => return Err(refused(errno, format!("can't open the network namespace of process {pid}"))),
        }
        let netns = Self::open(format!("/proc/{pid}/ns/net"))?;
        // The number may have passed to another process between the two opens; not if the first one still runs.
        let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
        match rustix::event::poll(&mut ended, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) => Ok(netns),
            _ => Err(gone()),
        }
    }

    /// Runs `work` inside the namespace, on a thread of its own, and waits for it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Privilege`] when the namespace may not be entered.
    ///
    /// # Panics
    ///
    /// With the panic of `work`, if it panics.
    ///
    /// # Privileges
    ///
    /// `CAP_SYS_ADMIN` in the caller's user namespace and in the one that owns the network namespace.
    #[doc(alias = "setns")]
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_thread(|| {
            rustix::thread::move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|errno| refused(errno, format!("can't enter {self:?}")))?;
            Ok(work())
        })?
    }

    /// Runs `work` inside the namespace: here, if the calling thread is in it, otherwise as [`run`](Self::run) does.
    ///
    /// A thread costs two hand-overs by the scheduler, on a busy machine milliseconds each. For work that leaves the thread as
    /// it finds it.
    pub fn run_near<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let here = Self::of_this_thread().and_then(|here| self.same_as(&here));
        if here.unwrap_or(false) { Ok(work()) } else { self.run(work) }
    }

    /// Says whether both are the same namespace.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the kernel can't be asked.
    pub fn same_as(&self, other: &Self) -> Result<bool> {
        Ok(self.identity()? == other.identity()?)
    }

    /// A second reference to the same namespace.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when there are no more file descriptors.
    pub fn try_clone(&self) -> Result<Self> {
        let fd = self.fd.try_clone().map_err(|error| {
            Error::new(ErrorKind::Io, "can't duplicate the descriptor of a network namespace").because(error)
        })?;
        Ok(Self { fd })
    }

    /// Device and inode, which together name a namespace for as long as it lives.
    fn identity(&self) -> Result<(u64, u64)> {
        let stat = rustix::fs::fstat(&self.fd).map_err(|errno| refused(errno, "can't stat a network namespace"))?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Gives the namespace a name, as `ip netns attach` does, so that `ip netns exec NAME` finds it.
    ///
    /// The name holds the namespace too: it lives until the name is removed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`] when the name is taken, [`ErrorKind::Policy`] when it can't be a file name,
    /// [`ErrorKind::Privilege`] without `CAP_SYS_ADMIN`.
    ///
    /// # Privileges
    ///
    /// `CAP_SYS_ADMIN` in the user namespace that owns the mount namespace, and leave to write `/run/netns`.
    ///
    /// # Kernel
    ///
    /// 5.2
    ///
    /// # References
    ///
    /// ip-netns(8)
    pub fn name(&self, name: &str) -> Result<NamedNetns> {
        if name.is_empty() || name == "." || name == ".." || name.len() > 255 || name.contains(['/', '\0']) {
            let shown: String = name.chars().take(80).collect();
            let what = format!("`{}` can't name a network namespace", shown.escape_debug());
            return Err(Error::new(ErrorKind::Policy, what).hint("take a file name of 1 to 255 bytes, without a slash"));
        }
        let netns = self.try_clone()?;
        let directory = shared_directory()?;
        let path = Self::path_of(name);
        let what = || format!("can't name a network namespace `{name}`");
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&directory, name, flags, UNMOUNTED).map_err(|errno| match errno {
            Errno::EXIST => Error::new(ErrorKind::Conflict, format!("the name `{name}` is taken"))
                .hint(format!("take another name, or, if nobody uses it any more, delete it: ip netns delete {name}")),
            errno => refused(errno, what()),
        })?;
        // Mounted by descriptor at both ends: needs no /proc, and nobody can put another file under the path meanwhile.
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let both_empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        let mounted = rustix::mount::open_tree(&self.fd, "", flags)
            .and_then(|tree| rustix::mount::move_mount(tree, "", &file, "", both_empty));
        if let Err(errno) = mounted {
            // The file is ours, and without the mount it would only be in the way.
            let _ = rustix::fs::unlinkat(&directory, name, AtFlags::empty());
            return Err(refused(errno, what()));
        }
        Ok(NamedNetns { path, netns, armed: true })
    }

    /// Where [`Netns::name`] puts a name.
    pub fn path_of(name: &str) -> PathBuf {
        Path::new(NAMES).join(name)
    }

    /// Removes a name if it is this namespace's, or the file that a killed [`Netns::name`] had made for a mount it never made.
    /// What is anything else stays.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Kernel`] when the kernel refuses.
    pub fn unname(&self, path: &Path) -> Result<()> {
        let what = || format!("can't remove the name `{}`", path.display());
        let found = match Self::open(path) {
            Ok(found) => found.same_as(self)?,
            Err(_) => false,
        };
        if found {
            rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
                .map_err(|errno| refused(errno, what()))?;
        } else {
            let Ok(file) = rustix::fs::lstat(path) else { return Ok(()) };
            let regular = FileType::from_raw_mode(file.st_mode) == FileType::RegularFile;
            if !regular || Mode::from_raw_mode(file.st_mode) != UNMOUNTED || file.st_size != 0 {
                return Ok(());
            }
        }
        rustix::fs::unlink(path).map_err(|errno| refused(errno, what()))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Netns> for OwnedFd {
    fn from(netns: Netns) -> Self {
        netns.fd
    }
}

impl fmt::Debug for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.identity() {
            // The way `readlink /proc/self/ns/net` shows it.
            Ok((_, inode)) => write!(f, "net:[{inode}]"),
            Err(_) => f.write_str("net:[?]"),
        }
    }
}

/// How often, and how far apart, the lock on `/run/netns` is tried: a second in all.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Mode of the file that a name is mounted on. ip-netns(8) makes its own with none at all, so that a file without a mount tells
/// whose it is.
const UNMOUNTED: Mode = Mode::XUSR;

/// A name at `/run/netns`, removed when dropped.
#[derive(Debug)]
pub struct NamedNetns {
    path: PathBuf,
    netns: Netns,
    armed: bool,
}

impl NamedNetns {
    /// Where the name stands.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The namespace that is named.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Leaves the name in place for good; `ip netns delete` removes it.
    pub fn keep(mut self) -> PathBuf {
        self.armed = false;
        self.path.clone()
    }

    /// Removes the name. The namespace ends with its last reference. That the name is gone already is no error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`] when another namespace has that name by now, [`ErrorKind::Kernel`] when the kernel
    /// refuses.
    pub fn remove(mut self) -> Result<()> {
        self.armed = false;
        self.unname()
    }

    fn unname(&self) -> Result<()> {
        let what = || format!("can't remove the name `{}`", self.path.display());
        // Somebody may have deleted our name, as `ip netns delete` does,
        if matches!(rustix::fs::lstat(&self.path), Err(Errno::NOENT)) {
            return Ok(());
        }
        // and given it to another namespace.
        if !Netns::open(&self.path)
            .and_then(|found| found.same_as(&self.netns))
            .map_err(|error| Error::new(ErrorKind::Conflict, what()).because(error))?
        {
            return Err(Error::new(ErrorKind::Conflict, format!("{}: it is another namespace's", what())));
        }
        rustix::mount::unmount(&self.path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
            .and_then(|()| rustix::fs::unlink(&self.path))
            .map_err(|errno| refused(errno, what()))
    }
}

impl Drop for NamedNetns {
    fn drop(&mut self) {
        if self.armed
            && let Err(error) = self.unname()
        {
            tracing::warn!(error = %error.chain(), "a network namespace keeps its name");
        }
    }
}

/// Makes `/run/netns` what ip-netns(8) makes of it: a mount point with shared propagation, so that a name given in one
/// mount namespace shows in the others.
fn shared_directory() -> Result<OwnedFd> {
    let what = || format!("can't prepare {NAMES}");
    match rustix::fs::mkdir(NAMES, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(refused(errno, what())),
    }
    let open = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::open(NAMES, flags, Mode::empty()).map_err(|errno| refused(errno, what()))
    };
    // The lock that ip(8) takes: two processes at once would bind the directory twice. Anybody who can read the directory can hold
    // it, so it is not waited for long: a second bind does no harm.
    let lock = open()?;
    for _ in 0..LOCK_TRIES {
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => thread::sleep(LOCK_PAUSE),
            Err(errno) => return Err(refused(errno, what())),
            Ok(()) => break,
        }
    }
    let share = || rustix::mount::mount_change(NAMES, MountPropagationFlags::SHARED | MountPropagationFlags::REC);
    match share() {
        Ok(()) => {}
        // Not a mount point yet.
        Err(Errno::INVAL) => {
            rustix::mount::mount_bind_recursive(NAMES, NAMES)
                .and_then(|()| share())
                .map_err(|errno| refused(errno, what()))?;
        }
        Err(errno) => return Err(refused(errno, what())),
    }
    // Opened again: the first descriptor looks under the mount.
    open()
}

/// Runs `work` on a thread that ends with it.
pub(super) fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("rf-netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|error| Error::new(ErrorKind::Io, "can't start a thread").because(error))?;
        match thread.join() {
            Ok(value) => Ok(value),
            Err(panic) => panic::resume_unwind(panic),
        }
    })
}

/// An ioctl without argument whose result is a new descriptor, close-on-exec by the kernel's own doing.
pub(super) fn descriptor_ioctl(fd: BorrowedFd<'_>, request: u32) -> rustix::io::Result<OwnedFd> {
    // SAFETY: the requests this is called with, SIOCGSKNS, PIDFD_GET_NET_NAMESPACE and NS_GET_USERNS, take a zero argument,
    // read and write no memory of ours; `fd` is open for the call.
    let new = unsafe { libc::ioctl(fd.as_raw_fd(), request as libc::Ioctl, 0) };
    if new < 0 {
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    // SAFETY: the kernel just made this descriptor for us (`open_related_ns` in fs/nsfs.c) and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// The error for a system call that was refused.
pub(super) fn refused(errno: Errno, what: impl Into<String>) -> Error {
    let error = |kind| Error::new(kind, what).because(io::Error::from(errno));
    match errno {
        Errno::PERM | Errno::ACCESS => error(ErrorKind::Privilege)
            .hint("run it as root, or in a user namespace of its own: unshare --user --map-root-user --net"),
        Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOTTY => error(ErrorKind::Unsupported),
        Errno::NOENT | Errno::NFILE | Errno::MFILE | Errno::LOOP | Errno::NOTDIR => error(ErrorKind::Io),
        _ => error(ErrorKind::Kernel),
    }
}
