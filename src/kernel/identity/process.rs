//! What is known of a process beyond its record: from `/proc`, as long as it is the same process.

use std::cell::LazyCell;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};

use super::memory::Memory;
use super::program::lock;
use super::ring::{One, Sender, arguments};
use crate::audit::{Ancestor, Process};

/// What may be read of one file of `/proc`.
const MOST: u64 = 64 << 10;

/// How many paths of cgroups are remembered.
const CGROUPS: usize = 1024;

/// How many processes that call are remembered, and for how long what was read of them is good.
const CALLERS: usize = 64;
const STALE: Duration = Duration::from_millis(100);

/// How many ancestors are told.
const ANCESTORS: usize = 12;

/// What the kernel writes behind the path of a file that has none any more.
const DELETED: &[u8] = b" (deleted)";

/// Nanoseconds in a tick of proc_pid_stat(5).
const TICK: u128 = 10_000_000;

/// Tells all that is known of the process in a sender.
pub(super) fn tell(sender: &Sender, cgroups: &Cgroups, memory: &Memory) -> Process {
    let mut chain = sender.chain().into_iter();
    let Some(one) = chain.next() else { return Process::default() };
    // Looked for only where the record does not say it all.
    let running = LazyCell::new(|| Running::find(one.pid, one.start));
    let exe = sender.path().or_else(|| running.as_ref()?.exe(one.inode));
    let argv = match sender.arguments() {
        None if sender.arguments_cut() => running.as_ref().and_then(|running| running.argv(one.inode, memory)),
        known => known,
    };
    let cgroup = cgroups.path(sender.cgroup(), || running.as_ref().and_then(Running::cgroup));
    Process {
        pid: one.pid,
        ns_pid: (one.ns_pid != 0).then_some(one.ns_pid),
        start_time: Some(one.start),
        exe,
        exe_file: (one.inode != 0).then(|| (device(one.device), one.inode)),
        exe_deleted: sender.deleted(),
        argv,
        uid: Some(sender.uid()),
        gid: Some(sender.gid()),
        cgroup,
        comm: one.comm.clone(),
        ancestors: chain.map(ancestor).collect(),
    }
}

fn ancestor(one: One) -> Ancestor {
    let exe = Running::find(one.pid, one.start).and_then(|running| running.exe(one.inode));
    Ancestor { pid: one.pid, ns_pid: (one.ns_pid != 0).then_some(one.ns_pid), comm: one.comm, exe }
}

/// A device number as stat(2) tells it, from the kernel's own.
fn device(device: u32) -> u64 {
    rustix::fs::makedev(device >> 20, device & 0xf_ffff)
}

/// The folder in `/proc` of a process that is known to be the one that was meant.
pub(super) struct Running {
    /// Stays that process's: when it has ended, nothing can be read through it any more.
    folder: OwnedFd,
}

impl Running {
    /// Finds a process by its number and its start.
    pub fn find(pid: u32, start: Duration) -> Option<Self> {
        let running = Self::open(pid)?;
        (running.start_ticks()? == start.as_nanos() / TICK).then_some(running)
    }

    /// Opens the folder of whoever has this number now.
    pub fn open(pid: u32) -> Option<Self> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let folder = rustix::fs::open(format!("/proc/{pid}"), flags, Mode::empty()).ok()?;
        Some(Self { folder })
    }

    /// When it began, in ticks since the machine's start.
    pub fn start_ticks(&self) -> Option<u128> {
        self.stat(20)
    }

    /// A number of its `stat` file, counted from the state, which is 1.
    pub fn stat<T: FromStr>(&self, field: usize) -> Option<T> {
        field_of(&self.read("stat")?, field)
    }

    /// The path of what it executes, if that is still the file with this inode.
    pub fn exe(&self, inode: u64) -> Option<String> {
        let exe = rustix::fs::openat(&self.folder, "exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
        if identity_of(&exe)?.1 != inode {
            return None;
        }
        let link = rustix::fs::readlinkat(&self.folder, "exe", Vec::new()).ok()?;
        let path = link.to_string_lossy();
        Some(path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned())
    }

    /// Its arguments, if it still executes the file with this inode.
    pub fn argv(&self, inode: u64, memory: &Memory) -> Option<Vec<String>> {
        let bytes = memory.arguments(&self.folder)?;
        self.exe(inode)?;
        Some(arguments(&bytes))
    }

    /// A whole file of its folder, if it is not too long. None that is in its memory: [`Memory`] says why.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let fd = rustix::fs::openat(&self.folder, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut bytes = Vec::new();
        File::from(fd).take(MOST).read_to_end(&mut bytes).ok()?;
        ((bytes.len() as u64) < MOST).then_some(bytes)
    }

    /// Path of its cgroup.
    pub fn cgroup(&self) -> Option<String> {
        cgroup_of(self.read("cgroup")?)
    }
}

/// Device and inode of an open file, as the kernel has them in memory.
///
/// A file system is not asked: it may be the program's own (FUSE), and keep whoever asks waiting for ever.
#[doc(alias = "AT_STATX_DONT_SYNC")]
fn identity_of(file: &OwnedFd) -> Option<(u64, u64)> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let known = rustix::fs::statx(file, "", flags, StatxFlags::INO).ok()?;
    Some((rustix::fs::makedev(known.stx_dev_major, known.stx_dev_minor), known.stx_ino))
}

fn field_of<T: FromStr>(stat: &[u8], field: usize) -> Option<T> {
    // The name before it may hold anything, brackets too.
    let after = stat.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(stat.get(after + 1..)?).ok()?;
    text.split_ascii_whitespace().nth(field.checked_sub(1)?)?.parse().ok()
}

fn start_of(stat: &[u8]) -> Option<Duration> {
    let nanoseconds = field_of::<u128>(stat, 20)?.checked_mul(TICK)?;
    Some(Duration::from_nanos(nanoseconds.try_into().ok()?))
}

fn cgroup_of(file: Vec<u8>) -> Option<String> {
    let file = String::from_utf8(file).ok()?;
    file.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// Processes that are looked at while they wait.
#[derive(Default)]
pub(super) struct Callers {
    /// The last ones, newest last: one that connects often is read but once in a while.
    known: VecDeque<(Instant, Arc<Process>)>,
    memory: Memory,
}

impl Callers {
    /// The process that a thread belongs to.
    pub fn process_of(&self, thread: i32) -> Option<i32> {
        Running::open(thread.try_into().ok()?)?.status()?.number("Tgid")
    }

    /// Tells of the process of a thread that waits.
    pub fn look_at(&mut self, thread: i32) -> Option<Arc<Process>> {
        let pid: u32 = self.process_of(thread)?.try_into().ok()?;
        let running = Running::open(pid)?;
        let start = running.start_time()?;
        let file = running.exe_file();
        let comm = running.comm()?;
        self.known.retain(|(seen, _)| seen.elapsed() < STALE);
        let same = |known: &Process| {
            (known.pid, known.start_time, known.exe_file) == (pid, Some(start), file) && known.comm == comm
        };
        if let Some((_, known)) = self.known.iter().rev().find(|(_, known)| same(known)) {
            return Some(Arc::clone(known));
        }
        let status = running.status()?;
        let inode = file.map_or(0, |(_, inode)| inode);
        let link = rustix::fs::readlinkat(&running.folder, "exe", Vec::new()).ok();
        let process = Arc::new(Process {
            pid,
            ns_pid: status.last("NSpid"),
            start_time: Some(start),
            exe: running.exe(inode),
            exe_file: file,
            exe_deleted: link.is_some_and(|link| link.to_bytes().ends_with(DELETED)),
            argv: running.argv(inode, &self.memory),
            uid: status.second("Uid"),
            gid: status.second("Gid"),
            cgroup: running.cgroup(),
            comm,
            ancestors: running.ancestors(),
        });
        if self.known.len() >= CALLERS {
            self.known.pop_front();
        }
        self.known.push_back((Instant::now(), Arc::clone(&process)));
        Some(process)
    }
}

/// A `status` file of `/proc`.
struct Status(String);

impl Status {
    fn of(file: &[u8]) -> Self {
        // A name may hold bytes that are no text.
        Self(String::from_utf8_lossy(file).into_owned())
    }

    fn words(&self, name: &str) -> impl DoubleEndedIterator<Item = &str> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().split_ascii_whitespace()
    }

    fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        self.words(name).next()?.parse().ok()
    }

    fn second<T: FromStr>(&self, name: &str) -> Option<T> {
        self.words(name).nth(1)?.parse().ok()
    }

    fn last<T: FromStr>(&self, name: &str) -> Option<T> {
        self.words(name).next_back()?.parse().ok()
    }
}

impl Running {
    fn status(&self) -> Option<Status> {
        self.read("status").map(|file| Status::of(&file))
    }

    fn start_time(&self) -> Option<Duration> {
        start_of(&self.read("stat")?)
    }

    fn comm(&self) -> Option<String> {
        let bytes = self.read("comm")?;
        Some(String::from_utf8_lossy(bytes.strip_suffix(b"\n").unwrap_or(&bytes)).into_owned())
    }

    fn exe_file(&self) -> Option<(u64, u64)> {
        let exe = rustix::fs::openat(&self.folder, "exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
        identity_of(&exe)
    }

    fn netns(&self) -> Option<u64> {
        rustix::fs::statat(&self.folder, "ns/net", AtFlags::empty()).ok().map(|stat| stat.st_ino)
    }

    /// Its parent and so on, as far as they are in its network namespace.
    fn ancestors(&self) -> Vec<Ancestor> {
        let mut ancestors = Vec::new();
        let netns = self.netns();
        let mut parent: Option<u32> = self.stat(2);
        while let Some(pid) = parent.filter(|pid| *pid != 0 && ancestors.len() < ANCESTORS) {
            let Some(running) = Self::open(pid) else { break };
            let (Some(status), Some(comm)) = (running.status(), running.comm()) else { break };
            if running.netns() != netns {
                break;
            }
            let inode = running.exe_file().map_or(0, |(_, inode)| inode);
            ancestors.push(Ancestor { pid, ns_pid: status.last("NSpid"), comm, exe: running.exe(inode) });
            parent = running.stat(2);
        }
        ancestors
    }
}

/// Reads what `/proc` says of a process: `stat`, `status`, `cmdline`, `cgroup`. For the fuzz targets, which have no process.
#[doc(hidden)]
pub fn read_process([stat, status, cmdline, cgroup]: [&[u8]; 4]) -> Process {
    let status = Status::of(status);
    Process {
        pid: status.number("Tgid").unwrap_or_default(),
        ns_pid: status.last("NSpid"),
        start_time: start_of(stat),
        argv: Some(arguments(cmdline)),
        uid: status.second("Uid"),
        gid: status.second("Gid"),
        cgroup: cgroup_of(cgroup.to_vec()),
        ancestors: vec![Ancestor { pid: field_of(stat, 2).unwrap_or_default(), ..Ancestor::default() }],
        ..Process::default()
    }
}

/// Paths of cgroups by the number that the kernel has for them.
#[derive(Default)]
pub(super) struct Cgroups {
    known: Mutex<HashMap<u64, String>>,
}

impl Cgroups {
    /// The path of a cgroup: of one that was asked for before, this process's, or the one that `its` finds.
    fn path(&self, id: u64, its: impl FnOnce() -> Option<String>) -> Option<String> {
        if id == 0 {
            return None;
        }
        if let Some(path) = lock(&self.known).get(&id) {
            return Some(path.clone());
        }
        let own = || Running::open(std::process::id()).and_then(|this| this.cgroup());
        let is = |path: &String| id_of(path) == Some(id);
        let found = own().filter(is).or_else(|| its().filter(is))?;
        let mut known = lock(&self.known);
        if known.len() >= CGROUPS {
            known.clear();
        }
        known.insert(id, found.clone());
        Some(found)
    }
}

/// The number of the cgroup at a path: the inode of its folder.
fn id_of(path: &str) -> Option<u64> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .iter()
        .find_map(|root| std::fs::metadata(format!("{root}{path}")).ok())
        .map(|folder| folder.ino())
}
