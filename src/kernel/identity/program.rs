//! The program and its rings: loaded once, put into each namespace.

use std::collections::HashSet;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya_obj::{Function, Object};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::bpf::{self, ARRAY, HASH, LRU_HASH, MMAPABLE, MapShape, Mapped};
use super::process::Cgroups;
use super::ring::Ring;
use super::structs::{self, broken};
use super::watch::Watch;
use crate::kernel::netns::Netns;
use crate::{Error, ErrorKind, Result};

/// In front of the fence's chains, whose priority is 0, and behind them.
const BEFORE: i32 = -1;
const BEHIND: i32 = 1;
/// Only one program of this kind may have a priority. Somebody else's may stand at the next ones.
const TRIES: i32 = 8;

/// `NFPROTO_IPV4` and `NFPROTO_IPV6`.
const FAMILIES: [u32; 2] = [2, 10];

/// How many rings the largest set of them has.
const MOST_RINGS: u32 = 16;

/// Which packets are logged in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Logged {
    /// Those that are refused. Who sent what the fence accepts need not be remembered.
    Refused,
    /// Some that are accepted, too.
    Any,
}

/// The program that notes who sends, loaded into the kernel. Clones share it; it is gone with the last of them and of the [`Watch`]es.
///
/// # Privileges
///
/// `CAP_BPF`, `CAP_NET_ADMIN` and `CAP_PERFMON` in the machine's first user namespace.
///
/// # Kernel
///
/// 6.4
#[doc(alias = "BPF_PROG_TYPE_NETFILTER")]
#[derive(Clone)]
pub struct Program {
    shared: Arc<Shared>,
}

struct Shared {
    /// The object, its offsets those of this kernel.
    object: Object,
    /// A set of rings is never given back before the last clone is gone, and is used again.
    sets: Mutex<Vec<Arc<Set>>>,
    cgroups: Arc<Cgroups>,
}

/// A number of rings, and the two programs that write to them.
pub(super) struct Set {
    before: OwnedFd,
    behind: OwnedFd,
    rings: OwnedFd,
    pub mapped: Mapped,
    free: Mutex<Vec<u32>>,
}

impl Program {
    /// Loads the program.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Privilege`] without a capability, by its name; [`ErrorKind::Unsupported`] on a kernel without such programs or without
    /// a description of its own structs.
    pub fn load() -> Result<Self> {
        missing_capability()?;
        // The cheapest thing that the kernel refuses to whoever has the capabilities in a user namespace of their own alone.
        map("rings", HASH, 8, 4, 1, 0)?;
        let object = structs::fitted()?;
        let first = Set::new(&object, 1)?;
        let shared = Shared { object, sets: Mutex::new(vec![Arc::new(first)]), cgroups: Arc::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Notes from now on who sends what in a namespace.
    ///
    /// To be called before its rules log: a packet that was sent earlier is nobody's.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Kernel`] when the kernel refuses, [`ErrorKind::Exhausted`] when there is no memory left for another ring.
    pub fn attach(&self, netns: &Netns, logged: Logged) -> Result<Watch> {
        let mut attached = Attached { links: Vec::new(), cookie: None, ring: self.ring()? };
        // Before anything is written to it.
        let ring = Ring::new(Arc::clone(&attached.ring));
        netns.run_near(|| attached.place(logged))??;
        Ok(Watch::new(attached, ring, Arc::clone(&self.shared.cgroups)))
    }

    /// Takes a ring that is free, or makes more of them.
    fn ring(&self) -> Result<Arc<Claimed>> {
        let mut sets = lock(&self.shared.sets);
        if let Some(found) = sets.iter().find_map(Claimed::of) {
            return Ok(Arc::new(found));
        }
        // As many as there are, so that loading is soon done, and one sandbox alone does not cost the memory of many.
        let rings =
            1u32.checked_shl(sets.len().try_into().unwrap_or(u32::MAX)).map_or(MOST_RINGS, |many| many.min(MOST_RINGS));
        let set = Arc::new(Set::new(&self.shared.object, rings)?);
        sets.push(Arc::clone(&set));
        Claimed::of(&set).map(Arc::new).ok_or_else(|| Error::new(ErrorKind::Exhausted, "a set of rings has none"))
    }
}

/// A ring that is one namespace's, for as long as this lives.
pub(super) struct Claimed {
    pub set: Arc<Set>,
    pub index: u32,
}

impl Claimed {
    fn of(set: &Arc<Set>) -> Option<Self> {
        let index = lock(&set.free).pop()?;
        Some(Self { set: Arc::clone(set), index })
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        lock(&self.set.free).push(self.index);
    }
}

/// The programs in a namespace, for as long as this lives.
pub(super) struct Attached {
    links: Vec<OwnedFd>,
    cookie: Option<u64>,
    ring: Arc<Claimed>,
}

impl Attached {
    /// Puts the programs into the calling thread's namespace.
    fn place(&mut self, logged: Logged) -> Result<()> {
        let cookie = cookie()?;
        // The ring is named first, or the first packets would have none.
        self.ring.set.name(cookie, self.ring.index)?;
        self.cookie = Some(cookie);
        self.links = self.ring.set.link(logged)?;
        Ok(())
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // The name goes last: the programs find nowhere to write once it is gone, and then the ring may be another's.
        self.links.clear();
        if let Some(cookie) = self.cookie {
            self.ring.set.forget(cookie);
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("sets", &lock(&self.shared.sets).len()).finish_non_exhaustive()
    }
}

impl Set {
    fn new(object: &Object, count: u32) -> Result<Self> {
        let slots = map("slots", ARRAY, 4, Ring::SLOT, count * Ring::ENTRIES, MMAPABLE)?;
        let rings = map("rings", HASH, 8, 4, count, 0)?;
        let passing = map("passing", LRU_HASH, 8, 16, 4096, 0)?;
        let accepted = map("accepted", LRU_HASH, 48, 8, 8192, 0)?;
        let lately = map("lately", LRU_HASH, 8, 80, 4096, 0)?;
        let pidns = map("pidns", ARRAY, 4, 4, 1, 0)?;
        // Where `/proc` is missing the numbers are those of the machine's first PID namespace.
        let ours = rustix::fs::stat("/proc/self/ns/pid").map_or(0, |stat| stat.st_ino as u32);
        // SAFETY: the map has keys and values of four bytes.
        unsafe { bpf::update(pidns.as_fd(), &0u32, &ours) }
            .map_err(|errno| refused(errno, "can't fill the map `pidns`"))?;

        let mut object = object.clone();
        let maps = [
            ("slots", &slots),
            ("rings", &rings),
            ("lately", &lately),
            ("passing", &passing),
            ("accepted", &accepted),
            ("pidns", &pidns),
        ];
        let text = object.functions.keys().map(|(section, _)| *section).collect::<HashSet<_>>();
        let described = object.maps.clone();
        // Or the relocation would panic.
        if let Some(name) = described.keys().find(|name| maps.iter().all(|(known, _)| known != name)) {
            return Err(broken(std::io::Error::other(format!("no map `{name}`"))));
        }
        let placed = maps.iter().filter_map(|(name, fd)| Some((*name, fd.as_raw_fd(), described.get(*name)?)));
        object.relocate_maps(placed, &text).map_err(broken)?;
        object.relocate_calls(&text).map_err(broken)?;
        let mapped = Mapped::new(slots.as_fd(), count as usize * Ring::BYTES)
            .map_err(|errno| refused(errno, "can't map the rings"))?;
        Ok(Self {
            before: load(&object, "before")?,
            behind: load(&object, "behind")?,
            rings,
            mapped,
            free: Mutex::new((0..count).rev().collect()),
        })
    }

    fn name(&self, cookie: u64, index: u32) -> Result<()> {
        // SAFETY: the map has keys of eight bytes and values of four.
        unsafe { bpf::update(self.rings.as_fd(), &cookie, &index) }
            .map_err(|errno| refused(errno, "can't give a namespace its ring"))
    }

    fn forget(&self, cookie: u64) {
        // SAFETY: the map has keys of eight bytes. That there is none is what is wanted.
        let _ = unsafe { bpf::delete(self.rings.as_fd(), &cookie) };
    }

    /// Puts the programs into the calling thread's namespace.
    fn link(&self, logged: Logged) -> Result<Vec<OwnedFd>> {
        let mut links = Vec::with_capacity(4);
        for family in FAMILIES {
            if logged == Logged::Refused {
                links.push(place(self.behind.as_fd(), family, BEHIND, 1)?);
            }
            links.push(place(self.before.as_fd(), family, BEFORE, -1)?);
        }
        Ok(links)
    }
}

/// Links a program at the first priority from `priority` on that is free, going by `step`.
fn place(program: BorrowedFd<'_>, family: u32, priority: i32, step: i32) -> Result<OwnedFd> {
    let mut last = Errno::BUSY;
    for at in (0..TRIES).map(|tried| priority + tried * step) {
        match bpf::link(program, family, at) {
            Ok(link) => return Ok(link),
            Err(Errno::BUSY) => {}
            Err(errno) => {
                last = errno;
                break;
            }
        }
    }
    Err(refused(last, format!("can't put a program at the output hook of family {family}")))
}

fn load(object: &Object, name: &str) -> Result<OwnedFd> {
    let program = object.programs.get(name).and_then(|program| object.functions.get(&program.function_key()));
    let Function { instructions, func_info, .. } =
        program.ok_or_else(|| broken(std::io::Error::other(format!("no program `{name}`"))))?;
    let bytes: &[u8] = {
        let size = size_of_val(instructions.as_slice());
        // SAFETY: an instruction is eight bytes without padding, and any of them may be read as bytes.
        unsafe { std::slice::from_raw_parts(instructions.as_ptr().cast(), size) }
    };
    let mut short = [0u8; 16];
    for (to, from) in short.iter_mut().zip(b"ringfence_".iter().chain(name.as_bytes()).take(15)) {
        *to = *from;
    }
    let functions = func_info.func_info.iter().map(|function| function.insn_off);
    bpf::load(bytes, functions, &object.license, short).map_err(|(errno, log)| {
        let what = format!("the kernel refuses the program `{name}`");
        if errno == Errno::PERM {
            return refused(errno, what);
        }
        // What the verifier says last is why.
        let why =
            log.as_deref().and_then(|log| log.lines().rfind(|line| !line.starts_with("processed")).map(str::to_owned));
        let error =
            Error::new(ErrorKind::Unsupported, what).hint("this needs Linux 6.4 with CONFIG_NETFILTER_BPF_LINK");
        match why {
            Some(why) => error.because(std::io::Error::other(why)),
            None => error.because(errno),
        }
    })
}

fn map(name: &str, kind: u32, key_size: u32, value_size: u32, max_entries: u32, flags: u32) -> Result<OwnedFd> {
    bpf::create_map(&MapShape { kind, key_size, value_size, max_entries, flags }).map_err(|errno| match errno {
        Errno::PERM => {
            Error::new(ErrorKind::Privilege, "BPF is not for a user namespace of its own, nor where it is filtered")
        }
        errno => refused(errno, format!("can't make the map `{name}`")),
    })
}

/// Says which capability is missing, before the kernel answers with an errno that could be about any.
fn missing_capability() -> Result<()> {
    // CAP_SYS_ADMIN stands in for the two that were cut out of it.
    let admin = has(21)?;
    for (number, name, implied) in [(39, "CAP_BPF", true), (38, "CAP_PERFMON", true), (12, "CAP_NET_ADMIN", false)] {
        let enough = has(number)? || (implied && admin);
        if !enough {
            return Err(Error::new(ErrorKind::Privilege, format!("{name} is missing")));
        }
    }
    Ok(())
}

/// Says whether this process has a capability, in whatever user namespace it is.
pub(super) fn has(number: u32) -> Result<bool> {
    let held = rustix::thread::capabilities(None)
        .map_err(|errno| Error::new(ErrorKind::Kernel, "can't read ringfence's own capabilities").because(errno))?;
    Ok(held.effective.bits() & (1 << number) != 0)
}

/// The number of the calling thread's network namespace that is never used again.
fn cookie() -> Result<u64> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(|errno| refused(errno, "can't make a socket"))?;
    super::socket::netns_cookie(socket.as_fd()).map_err(|errno| refused(errno, "can't read a namespace's cookie"))
}

fn refused(errno: Errno, what: impl Into<String>) -> Error {
    let kind = match errno {
        // In a user namespace of its own, a process has the capabilities there and not where they are needed.
        Errno::PERM | Errno::ACCESS => ErrorKind::Privilege,
        Errno::NOSYS | Errno::OPNOTSUPP => ErrorKind::Unsupported,
        Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::TOOBIG | Errno::NOSPC => ErrorKind::Exhausted,
        _ => ErrorKind::Kernel,
    };
    Error::new(kind, what).because(errno)
}

/// A lock is poisoned when its holder panicked; what it holds here is whole at every point.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
