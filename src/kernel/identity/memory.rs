//! What is in the memory of other processes: read by a thread that nobody waits for long.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use super::program::lock;

/// Most bytes of arguments that are told. A program chooses them, and every event that waits for its reader holds a copy.
const ARGUMENTS: u64 = 8 << 10;

/// How long an answer is waited for at most: what was not waited in the time before, up to this.
const MOST: Duration = Duration::from_millis(250);

/// Which part of the time is waited, at most.
const SHARE: u32 = 10;

/// Reads the arguments of other processes.
///
/// They are in the process's memory, and whoever reads there has to have its lock. A process can keep it for as long as it likes: one of its threads maps
/// a file of a file system of its own (FUSE), and waits, with the lock, for an answer that the file system does not give. So a thread of its own reads, does
/// nothing else, and is not asked while it waits. Other files of `/proc` that need that lock (`environ`, `maps`, `mem`) are read by nobody here; `stat`,
/// `status`, `comm`, `cgroup` and the link `exe` do without.
///
/// # References
/// `fs/proc/base.c`: `get_mm_cmdline`; `mm/memory.c`: `__access_remote_vm`; `fs/fuse/file.c`: `fuse_file_mmap`
#[doc(alias = "mmap_lock")]
pub(super) struct Memory(Mutex<Asking>);

struct Asking {
    /// There with the first question.
    reader: Option<Sender<Question>>,
    /// Whose answer was not waited for to the end.
    late: Option<Receiver<Answer>>,
    /// How long may be waited now, as of then.
    allowance: Duration,
    since: Instant,
}

/// The folder in `/proc` of the process, and where the answer goes.
type Question = (OwnedFd, SyncSender<Answer>);
type Answer = Option<Vec<u8>>;

impl Default for Memory {
    fn default() -> Self {
        Self(Mutex::new(Asking { reader: None, late: None, allowance: MOST, since: Instant::now() }))
    }
}

impl Memory {
    /// The arguments of the process with this folder in `/proc`, as the kernel keeps them. None if nobody knows soon enough.
    pub fn arguments(&self, folder: &OwnedFd) -> Answer {
        let folder = folder.try_clone().ok()?;
        lock(&self.0).ask(folder)
    }
}

impl Asking {
    fn ask(&mut self, folder: OwnedFd) -> Answer {
        let asked = Instant::now();
        self.allowance = MOST.min(self.allowance + (asked - self.since) / SHARE);
        self.since = asked;
        if self.late.as_ref().is_some_and(|late| matches!(late.try_recv(), Err(TryRecvError::Empty))) {
            return None;
        }
        self.late = None;
        if self.reader.is_none() {
            self.reader = Some(reader().ok()?);
        }
        let (tell, told) = mpsc::sync_channel(1);
        self.reader.as_ref()?.send((folder, tell)).ok()?;
        let answer = told.recv_timeout(self.allowance);
        self.allowance = self.allowance.saturating_sub(asked.elapsed());
        if matches!(answer, Err(RecvTimeoutError::Timeout)) {
            self.late = Some(told);
        }
        answer.ok().flatten()
    }
}

/// Starts the thread. It ends with whoever asks, or when it has its last answer.
fn reader() -> std::io::Result<Sender<Question>> {
    let (ask, questions) = mpsc::channel::<Question>();
    std::thread::Builder::new().name("ringfence-argv".to_owned()).spawn(move || {
        for (folder, tell) in questions {
            // Too late for whoever asked, perhaps.
            let _ = tell.send(read(&folder));
        }
    })?;
    Ok(ask)
}

fn read(folder: &OwnedFd) -> Answer {
    let fd = rustix::fs::openat(folder, "cmdline", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut bytes = Vec::new();
    File::from(fd).take(ARGUMENTS).read_to_end(&mut bytes).ok()?;
    (!bytes.is_empty() && (bytes.len() as u64) < ARGUMENTS).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(path: &std::path::Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn whoever_does_not_answer_is_not_waited_for_and_nobody_is_asked_meanwhile() {
        let [silent, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        // Who opens it waits until somebody writes.
        let fifo = silent.path().join("cmdline");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        std::fs::write(other.path().join("cmdline"), b"curl\0-s\0").unwrap();
        let (silent, other) = (folder(silent.path()), folder(other.path()));
        let memory = Memory::default();
        assert_eq!(memory.arguments(&silent), None);
        {
            let asking = lock(&memory.0);
            assert!(asking.late.is_some() && asking.allowance < MOST);
        }
        assert_eq!([memory.arguments(&other), memory.arguments(&silent)], [None, None]);
        assert!(lock(&memory.0).late.is_some(), "the first one was answered");
        std::fs::write(&fifo, b"sh\0").unwrap();
        let start = Instant::now();
        let answer = loop {
            let answer = memory.arguments(&other);
            if answer.is_some() || start.elapsed() > Duration::from_secs(60) {
                break answer;
            }
        };
        assert_eq!(answer.as_deref(), Some(&b"curl\0-s\0"[..]), "an answer that comes late is another's");
    }

    #[test]
    fn arguments_that_are_too_long_are_left_out() {
        let directory = tempfile::tempdir().unwrap();
        for (length, told) in [(0, false), (1, true), (ARGUMENTS as usize - 1, true), (ARGUMENTS as usize, false)] {
            std::fs::write(directory.path().join("cmdline"), vec![b'a'; length]).unwrap();
            assert_eq!(read(&folder(directory.path())).is_some(), told, "{length} bytes");
        }
    }
}
