//! The second way to know who tried: a mark on the socket, set before the kernel acts.
//!
//! The command and all that it starts are under a seccomp filter that tells of connect(2), sendto(2) with an address, sendmsg(2) and sendmmsg(2)
//! before the kernel makes them. While the caller waits, it is looked at, its socket gets a mark of its own, and the kernel goes on. A
//! packet that is refused carries its socket's mark, and so names its sender. It needs no privilege but what a user has in a user namespace.
//!
//! The mark is on the socket and not in the call, so it does not matter what the caller's memory says meanwhile. But a socket may be shared, and
//! who shares one may send by a call that is not told, or put the socket in another's place: so the answer is never more than
//! [`Identity::Inferred`], and all are named who were seen to use a socket.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use rustix::rand::{GetRandomFlags, getrandom};

use super::CANDIDATES;
use super::process::Callers;
use super::program::lock;
use super::socket::{self, Notified};
use crate::audit::{Attempted, Identify, Identity, Process};
use crate::{Error, ErrorKind, Result};

/// How many marks, and how many sockets, are remembered: more than packets wait to be told of.
const MOST: usize = 1 << 14;

/// `PIDFD_THREAD`: the thread itself, which may have descriptors of its own.
///
/// # Kernel
/// 6.9
const THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL as u32);

/// Tells who sent what was refused, from marks on sockets.
pub struct Marks {
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    /// By mark, the socket that got it.
    marks: HashMap<u32, u64>,
    order: VecDeque<u32>,
    /// By cookie of a socket, who has used it.
    users: HashMap<u64, Vec<Arc<Process>>>,
    sockets: VecDeque<u64>,
    /// Why a socket could not be marked, the last time that it was so.
    failed: Option<Errno>,
}

/// A socket could not be marked, and may bear another's mark.
struct Unmarked {
    /// Which one; it may be any when nobody knows.
    cookie: Option<u64>,
    errno: Errno,
}

impl From<Errno> for Unmarked {
    fn from(errno: Errno) -> Self {
        Self { cookie: None, errno }
    }
}

impl Marks {
    /// Answers, on a thread of its own, for as long as a process of the command is there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when no thread can be had.
    ///
    /// # Privileges
    ///
    /// `CAP_SYS_PTRACE` in the user namespace in which the caller was executed; `CAP_NET_ADMIN` in the one that owns the command's network namespace.
    ///
    /// # Kernel
    ///
    /// 5.9
    pub fn listen(listener: OwnedFd) -> Result<Self> {
        let known = Arc::new(Mutex::new(Known::default()));
        let shared = Arc::clone(&known);
        std::thread::Builder::new().name("ringfence-who".into()).spawn(move || attend(&listener, &shared)).map_err(
            |error| Error::new(ErrorKind::Io, "can't start the thread that looks who connects").because(error),
        )?;
        Ok(Self { known })
    }
}

/// The number of this thread's network namespace; none before Linux 5.14.
fn own_netns() -> Option<u64> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    socket::netns_cookie(socket.as_fd()).ok()
}

/// Looks at each caller and lets it go on.
fn attend(listener: &OwnedFd, known: &Mutex<Known>) {
    let mut callers = Callers::default();
    let own = own_netns();
    loop {
        let mut ready = [PollFd::new(listener, PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        if !ready[0].revents().contains(PollFlags::IN) {
            // Nobody is left who could call.
            return;
        }
        // Interrupted, or the caller was killed meanwhile.
        let Ok(notified) = Notified::receive(listener.as_fd()) else { continue };
        if let Err(unmarked) = mark(&notified, listener, own, &mut callers, known)
            && notified.is_valid(listener.as_fd())
        {
            // The call goes on nevertheless: who is watched must not be worse off.
            let errno = unmarked.errno;
            if lock(known).doubt(&unmarked) {
                tracing::warn!(%errno, "can't mark a socket, so who used it is not told");
            }
        }
        notified.go_on(listener.as_fd());
    }
}

/// Marks the socket of a call, if it is one that sends packets.
fn mark(
    notified: &Notified,
    listener: &OwnedFd,
    own: Option<u64>,
    callers: &mut Callers,
    known: &Mutex<Known>,
) -> std::result::Result<(), Unmarked> {
    let pid = Pid::from_raw(notified.thread()).ok_or(Errno::PERM)?;
    let pidfd = match pidfd_open(pid, THREAD) {
        Err(Errno::INVAL) => {
            let process = callers.process_of(notified.thread()).and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
            pidfd_open(process, PidfdFlags::empty())?
        }
        other => other?,
    };
    let socket = match pidfd_getfd(&pidfd, notified.descriptor(), PidfdGetfdFlags::empty()) {
        // The kernel will say so itself.
        Err(Errno::BADF) => return Ok(()),
        other => other?,
    };
    match sockopt::socket_domain(&socket) {
        Ok(AddressFamily::INET | AddressFamily::INET6) => {}
        // Of another family, or no socket at all.
        _ => return Ok(()),
    }
    // One that was handed in, as descriptor 0 or over a unix socket: a mark of ours could lead the host's packets another way.
    if own.is_some() && socket::netns_cookie(socket.as_fd()).ok() == own {
        return Ok(());
    }
    let cookie = sockopt::socket_cookie(&socket)?;
    let unmarked = |errno| Unmarked { cookie: Some(cookie), errno };
    // Whom nobody can look at leaves no mark, another's least of all.
    let Some(process) = callers.look_at(notified.thread()) else {
        return socket::set_mark(socket.as_fd(), 0).map_err(unmarked);
    };
    if !notified.is_valid(listener.as_fd()) {
        // Whoever was looked at may be another by now, and nobody waits for an answer.
        return Ok(());
    }
    let mark = lock(known).note(cookie, process).map_err(unmarked)?;
    socket::set_mark(socket.as_fd(), mark).map_err(unmarked)
}

impl Known {
    /// Believes no mark any more that the socket may bear. Says whether it is the first time that one could not be marked.
    fn doubt(&mut self, unmarked: &Unmarked) -> bool {
        match unmarked.cookie {
            Some(cookie) => {
                if self.users.remove(&cookie).is_some() {
                    self.sockets.retain(|other| *other != cookie);
                }
            }
            None => {
                self.marks.clear();
                self.order.clear();
                self.users.clear();
                self.sockets.clear();
            }
        }
        self.failed.replace(unmarked.errno).is_none()
    }

    /// Notes that a process is about to use a socket, and gives the mark for that.
    fn note(&mut self, cookie: u64, process: Arc<Process>) -> std::result::Result<u32, Errno> {
        while self.order.len() >= MOST {
            if let Some(oldest) = self.order.pop_front() {
                self.marks.remove(&oldest);
            }
        }
        while self.sockets.len() >= MOST {
            if let Some(oldest) = self.sockets.pop_front() {
                self.users.remove(&oldest);
            }
        }
        let users = self.users.entry(cookie).or_insert_with(|| {
            self.sockets.push_back(cookie);
            Vec::new()
        });
        let same = |one: &Arc<Process>| (one.pid, one.start_time) == (process.pid, process.start_time);
        let room = users.len() <= CANDIDATES;
        match users.iter_mut().find(|one| same(one)) {
            // It may have executed another program since.
            Some(known) => *known = process,
            // One more than are named tells that there were too many. A program can have any number of processes use a socket.
            None if room => users.push(process),
            None => {}
        }
        let mark = loop {
            let mut bytes = [0u8; 4];
            // Not to be guessed: whoever has CAP_NET_RAW may set any.
            getrandom(&mut bytes, GetRandomFlags::empty())?;
            let mark = u32::from_ne_bytes(bytes);
            if mark != 0 && !self.marks.contains_key(&mark) {
                break mark;
            }
        };
        self.marks.insert(mark, cookie);
        self.order.push_back(mark);
        Ok(mark)
    }
}

impl Identify for Marks {
    fn identify(&mut self, attempted: &Attempted) -> Identity {
        let known = lock(&self.known);
        // Of those that could not be marked it may be one.
        let told = |why: &'static str| match known.failed {
            None => Identity::unknown(why),
            Some(Errno::PERM | Errno::ACCESS) => {
                Identity::unknown("sockets can't be marked: CAP_SYS_PTRACE or CAP_NET_ADMIN is missing")
            }
            Some(errno) => Identity::unknown(format!("{why}, or could not be given one: {errno}")),
        };
        let Some(mark) = attempted.mark else {
            return told("its socket has no mark: it was used by no call that is told");
        };
        let users = known.marks.get(&mark).and_then(|cookie| known.users.get(cookie)).map(Vec::as_slice);
        match users {
            Some([one]) => Identity::Inferred {
                process: Process::clone(one),
                reason: "it was the last to be seen with this socket, which another process may share".into(),
            },
            Some(several) if several.len() > CANDIDATES => Identity::unknown(super::TOO_MANY),
            Some(several @ [_, ..]) => {
                Identity::Ambiguous { candidates: several.iter().map(|one| Process::clone(one)).collect() }
            }
            _ => told("the mark on its socket is none that was given"),
        }
    }
}

impl fmt::Debug for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Marks").field("given", &lock(&self.known).marks.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32) -> Arc<Process> {
        Arc::new(Process { pid, ..Process::default() })
    }

    fn ask(marks: &mut Marks, mark: Option<u32>) -> Identity {
        let nowhere = std::net::Ipv4Addr::UNSPECIFIED.into();
        marks.identify(&Attempted {
            protocol: 17,
            source: nowhere,
            sport: None,
            destination: nowhere,
            dport: None,
            tcp_seq: None,
            mark,
            uid: None,
            head: Vec::new(),
        })
    }

    #[test]
    fn all_who_used_a_socket_are_named_and_nobody_for_a_strange_mark() {
        let mut marks = Marks { known: Arc::default() };
        let first = lock(&marks.known).note(7, process(1)).unwrap();
        let again = lock(&marks.known).note(7, process(1)).unwrap();
        assert_ne!(first, again);
        for mark in [first, again] {
            assert_eq!(ask(&mut marks, Some(mark)).process().map(|process| process.pid), Some(1));
        }
        let other = lock(&marks.known).note(7, process(2)).unwrap();
        for mark in [first, other] {
            assert_eq!(ask(&mut marks, Some(mark)).certainty(), "ambiguous");
        }
        let alone = lock(&marks.known).note(8, process(2)).unwrap();
        assert_eq!(ask(&mut marks, Some(alone)).certainty(), "inferred");
        let strange = (1..).find(|mark| ![first, again, other, alone].contains(mark)).unwrap();
        for mark in [None, Some(strange)] {
            assert_eq!(ask(&mut marks, mark).certainty(), "unknown");
        }
    }

    #[test]
    fn a_socket_that_could_not_be_marked_costs_no_other_its_name() {
        let mut marks = Marks { known: Arc::default() };
        let (first, other) = {
            let mut known = lock(&marks.known);
            (known.note(7, process(1)).unwrap(), known.note(8, process(2)).unwrap())
        };
        assert!(lock(&marks.known).doubt(&Unmarked { cookie: Some(7), errno: Errno::NOMEM }));
        assert_eq!(ask(&mut marks, Some(first)).certainty(), "unknown");
        assert_eq!(ask(&mut marks, Some(other)).process().map(|process| process.pid), Some(2));
        // Nobody knows which: then none that was marked before is believed, and those that are marked afterwards are.
        assert!(!lock(&marks.known).doubt(&Unmarked::from(Errno::PERM)));
        assert_eq!(ask(&mut marks, Some(other)).certainty(), "unknown");
        let Identity::Unknown { reason } = ask(&mut marks, None) else { panic!("nobody is named") };
        assert!(reason.contains("CAP_SYS_PTRACE"), "{reason}");
        let again = lock(&marks.known).note(8, process(2)).unwrap();
        assert_eq!(ask(&mut marks, Some(again)).process().map(|process| process.pid), Some(2));
        let known = lock(&marks.known);
        assert_eq!((known.marks.len(), known.order.len(), known.users.len(), known.sockets.len()), (1, 1, 1, 1));
    }

    #[test]
    fn a_socket_that_all_use_is_nobodys_and_takes_no_more_memory() {
        let mut marks = Marks { known: Arc::default() };
        let mut last = 0;
        for pid in 1..=100 * CANDIDATES as u32 {
            last = lock(&marks.known).note(7, process(pid)).unwrap();
            let told = ask(&mut marks, Some(last));
            let expected = match pid as usize {
                1 => "inferred",
                few if few <= CANDIDATES => "ambiguous",
                _ => "unknown",
            };
            assert_eq!(told.certainty(), expected, "{pid} processes");
        }
        assert_eq!(lock(&marks.known).users[&7].len(), CANDIDATES + 1);
        // Nor is it anybody's again when the last that was noted comes back.
        let again = lock(&marks.known).note(7, process(1)).unwrap();
        assert_ne!(again, last);
        assert_eq!(ask(&mut marks, Some(again)).certainty(), "unknown");
    }

    #[test]
    fn marks_and_sockets_are_forgotten_before_they_are_too_many() {
        let mut known = Known::default();
        for cookie in 0..MOST as u64 + 10 {
            known.note(cookie, process(1)).unwrap();
        }
        assert_eq!((known.marks.len(), known.users.len()), (MOST, MOST));
        assert_eq!((known.order.len(), known.sockets.len()), (MOST, MOST));
    }
}
