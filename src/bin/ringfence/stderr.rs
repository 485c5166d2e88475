//! Standard error, which a fenced program shares with us while it runs.
//!
//! There it may have any write of ours fail (`O_NONBLOCK` belongs to the open file, which both have, and a full pipe then refuses), or take as long as it
//! likes (a pipe that nobody empties, a terminal that it has stopped). So one thread writes, which is left behind where it does not get on, and
//! whatever else goes on waits for it at the end alone, and not for long.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringfence::Result;
use rustix::event::{PollFd, PollFlags, poll};

use crate::io_error;

/// How long a reader who reads nothing is waited for at the end.
pub const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long a slow one is.
pub const LONGEST: Duration = Duration::from_secs(10);

/// How many lines of the log wait to be written.
const MOST: usize = 1024;

/// How long to wait where the kernel says that there is room to write, and that there is none.
const AGAIN: Duration = Duration::from_millis(10);

static WAITING: Mutex<Waiting> =
    Mutex::new(Waiting { texts: VecDeque::new(), lost: 0, taken: 0, written: 0, thread: false });
static CHANGED: Condvar = Condvar::new();

struct Waiting {
    texts: VecDeque<String>,
    /// How many lines of the log found no room since the last one that did.
    lost: u64,
    /// How many texts the thread has taken, and how many of those it is done with.
    taken: u64,
    written: u64,
    /// Whether there is one. Before that nobody shares standard error.
    thread: bool,
}

impl Waiting {
    fn lock() -> MutexGuard<'static, Self> {
        // It is true after every step.
        WAITING.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&mut self, text: String) {
        self.admit_loss();
        self.texts.push_back(text);
        CHANGED.notify_all();
    }

    /// Says what was lost in the place where it was.
    fn admit_loss(&mut self) {
        if self.lost > 0 {
            self.texts.push_back(format!("ringfence: warning: {} lines found no room here\n", self.lost));
            self.lost = 0;
            CHANGED.notify_all();
        }
    }

    fn idle(&self) -> bool {
        self.texts.is_empty() && self.taken == self.written
    }
}

/// Has all that is said from now on written by a thread. To be called before there is a program that shares standard error.
pub fn share() -> Result<()> {
    Waiting::lock().thread = true;
    std::thread::Builder::new()
        .name("rf-stderr".to_owned())
        .spawn(write_on)
        .map_err(|error| io_error("can't start a thread", error))
        .inspect_err(|_| Waiting::lock().thread = false)?;
    // The standard library's would write by itself, and wait for it.
    std::panic::set_hook(Box::new(|panic| {
        let trace = std::backtrace::Backtrace::capture();
        let trace = if trace.status() == std::backtrace::BacktraceStatus::Captured {
            format!("\n{trace}")
        } else {
            String::new()
        };
        say(format!("ringfence: {panic}{trace}\n"));
    }));
    Ok(())
}

fn write_on() {
    loop {
        let mut waiting = Waiting::lock();
        let text = loop {
            match waiting.texts.pop_front() {
                Some(text) => break text,
                None => waiting = CHANGED.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            }
        };
        waiting.taken += 1;
        drop(waiting);
        // Nobody is there to be told when even that can't be written.
        let _ = write_all(io::stderr().lock(), &mut text.as_bytes());
        Waiting::lock().written += 1;
        CHANGED.notify_all();
    }
}

/// Writes a text of ours to standard error, in its turn. Waits for nothing while a program runs.
pub fn say(text: String) {
    let mut waiting = Waiting::lock();
    if waiting.thread {
        waiting.push(text);
    } else {
        // Nobody is there to be told when even that can't be written.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// Waits until all that was said has been written, or nobody reads it.
pub fn settle() {
    let start = Instant::now();
    let mut waiting = Waiting::lock();
    waiting.admit_loss();
    while waiting.thread && !waiting.idle() && start.elapsed() < LONGEST {
        let before = waiting.written;
        let still = |waiting: &mut Waiting| waiting.written == before;
        let (now, waited) =
            CHANGED.wait_timeout_while(waiting, LAST_WORDS, still).unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return;
        }
        waiting = now;
    }
}

/// Settles when it goes, however that comes about.
pub struct Settled;

impl Drop for Settled {
    fn drop(&mut self) {
        settle();
    }
}

/// Takes the lines of the log, each of them whole. It has room for so many, and never fails: whoever writes a log could do no better than to panic.
pub struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = Waiting::lock();
        if waiting.texts.len() < MOST {
            waiting.push(String::from_utf8_lossy(line).into_owned());
        } else {
            waiting.lost += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes all of it, for as long as that takes, even where somebody who shares the open file has made it one that refuses to wait. What `text` still has
/// after an error was not written.
pub fn write_all(mut to: impl Write + AsFd, text: &mut &[u8]) -> io::Result<()> {
    let mut waited = false;
    while !text.is_empty() {
        match to.write(text) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => (*text, waited) = (&text[written..], false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if waited {
                    std::thread::sleep(AGAIN);
                }
                // An error of this one's own is the next write's too.
                let _ = poll(&mut [PollFd::new(&to, PollFlags::OUT)], None);
                waited = true;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
