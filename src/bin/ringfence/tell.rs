//! `ringfence run --events`: writes what is refused, as it comes, and never holds anybody up.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind as IoErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use ringfence::audit::Event;
use ringfence::kernel::descriptor;
use ringfence::policy::{EventsFormat, EventsTo, RunOptions, Sourced};
use ringfence::{Error, ErrorKind, EventStream, Result};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::io_error;
use crate::stderr::{LAST_WORDS, LONGEST, write_all};

/// How long to wait where there was no room for events. There may be some again: a program may fill a disk for a moment.
const AGAIN: Duration = Duration::from_millis(100);

/// How much is written in one call, in bytes, where there is so much.
const AT_ONCE: usize = 64 << 10;

/// Where events go, open, and in which words.
pub struct Output {
    file: File,
    format: EventsFormat,
    /// Whether a person reads standard error beside them.
    pub stderr: bool,
}

/// Opens what the options name. To be called before anything else is opened: a descriptor is named by its number.
pub fn open(options: &RunOptions) -> Result<Option<Output>> {
    let Some(Sourced { value, origin }) = &options.events else { return Ok(None) };
    let fail =
        |error: Error| Error::new(error.kind(), format!("{origin}: can't tell events to `{value}`")).because(error);
    let (file, stderr) = match value {
        EventsTo::Stderr => (descriptor::inherited(2).map_err(fail)?.into(), true),
        EventsTo::Descriptor(number) => (descriptor::inherited(*number).map_err(fail)?.into(), *number == 2),
        EventsTo::File(path) => {
            // A FIFO that nobody reads is an error then, and a terminal does not become ours.
            let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
            let opened = OpenOptions::new().append(true).create(true).custom_flags(flags.bits() as i32).open(path);
            let opened = opened.map_err(|error| match Errno::from_io_error(&error) {
                Some(Errno::NXIO) => fail(io_error("nobody reads it", error)).hint("start its reader first"),
                _ => fail(io_error("can't open it", error)),
            });
            (opened?, false)
        }
    };
    if !stderr && is_stdout(&file) {
        let what = "that is the command's standard output, which is its own";
        return Err(fail(Error::new(ErrorKind::Policy, what)));
    }
    Ok(Some(Output { file, format: options.events_format.value, stderr }))
}

/// Whether it is what standard output is. A terminal or `/dev/null` may be both.
fn is_stdout(file: &File) -> bool {
    let stdout = descriptor::inherited(1)
        .map(File::from)
        .and_then(|file| file.metadata().map_err(|error| io_error("can't look at standard output", error)));
    let (Ok(ours), Ok(theirs)) = (file.metadata(), stdout) else { return false };
    !ours.file_type().is_char_device() && (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
}

/// The thread that writes. A write may block for as long as the reader pleases, or there may be no room for it; what can't wait is told as lost, in the
/// place where it was.
pub struct Teller {
    ended: mpsc::Receiver<()>,
    progress: Arc<Mutex<Progress>>,
}

#[derive(Default)]
struct Progress {
    /// How often something was written.
    written: u64,
    /// Why what is next could not be, the last time.
    trouble: Option<String>,
}

impl Output {
    /// Writes what comes by `events`, to its end or until nobody reads any more.
    pub fn follow(self, events: EventStream) -> Result<Teller> {
        let (ended, end) = mpsc::channel();
        let progress = Arc::<Mutex<Progress>>::default();
        let ours = progress.clone();
        std::thread::Builder::new()
            .name("rf-events".to_owned())
            .spawn(move || {
                self.write(events, &ours);
                // Nobody waits for it any more once the time for last words has passed.
                let _ = ended.send(());
            })
            .map_err(|error| io_error("can't start a thread", error))?;
        Ok(Teller { ended: end, progress })
    }

    fn write(self, mut events: EventStream, progress: &Mutex<Progress>) {
        while let Some(event) = futures::executor::block_on(events.next()) {
            let mut lines = self.lines(&event);
            // What else is there already goes with it: a system call for each would be most of the work.
            while lines.len() < AT_ONCE
                && let Some(Some(event)) = events.next().now_or_never()
            {
                lines.push_str(&self.lines(&event));
            }
            let mut rest = lines.as_bytes();
            while let Err(error) = self.write_lines(&mut rest) {
                // The reader has seen enough.
                if error.kind() == IoErrorKind::BrokenPipe {
                    return;
                }
                let before = progress.lock().unwrap_or_else(PoisonError::into_inner).trouble.replace(error.to_string());
                if before.is_none() {
                    tracing::warn!(%error, "events can't be told, and wait");
                }
                std::thread::sleep(AGAIN);
            }
            let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress.written += 1;
            progress.trouble = None;
        }
    }

    fn write_lines(&self, lines: &mut &[u8]) -> std::io::Result<()> {
        // Lines of the log that go there too stand between events, not in them.
        let _whole = self.stderr.then(|| std::io::stderr().lock());
        write_all(&self.file, lines)
    }

    fn lines(&self, event: &Event) -> String {
        match self.format {
            EventsFormat::Json => event.to_json() + "\n",
            EventsFormat::Ocsf => event.to_ocsf().into_iter().flat_map(|line| [line, "\n".to_owned()]).collect(),
        }
    }
}

impl Teller {
    /// Waits for the last event to be written.
    pub fn finish(self) {
        let (start, mut before) = (Instant::now(), None);
        while let Err(mpsc::RecvTimeoutError::Timeout) = self.ended.recv_timeout(LAST_WORDS) {
            let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Some(progress.written);
            if now == before || start.elapsed() > LONGEST {
                let why = progress.trouble.as_deref().unwrap_or("nobody reads them");
                tracing::error!("the last events could not be told: {why}");
                return;
            }
            before = now;
        }
    }
}
