//! `ringfence run --events`: writes what is refused, as it comes, and never holds anybody up.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind as IoErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use futures::{FutureExt, StreamExt};
use ringfence::audit::Event;
use ringfence::kernel::descriptor;
use ringfence::policy::{EventsFormat, EventsTo, RunOptions, Sourced};
use ringfence::{Error, ErrorKind, EventStream, Result};

use crate::io_error;
use crate::stderr::{LAST_WORDS, LONGEST, write_all};

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
            let opened = OpenOptions::new().append(true).create(true).open(path);
            (opened.map_err(|error| fail(io_error("can't open it", error)))?, false)
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

/// The thread that writes. A write may block for as long as the reader pleases; what can't wait is told as lost.
pub struct Teller {
    ended: mpsc::Receiver<()>,
    /// How often something was written.
    written: Arc<AtomicU64>,
}

impl Output {
    /// Writes what comes by `events`, to its end or until nobody reads any more.
    pub fn follow(self, events: EventStream) -> Result<Teller> {
        let (ended, end) = mpsc::channel();
        let written = Arc::<AtomicU64>::default();
        let progress = written.clone();
        std::thread::Builder::new()
            .name("rf-events".to_owned())
            .spawn(move || {
                self.write(events, &progress);
                // Nobody waits for it any more once the time for last words has passed.
                let _ = ended.send(());
            })
            .map_err(|error| io_error("can't start a thread", error))?;
        Ok(Teller { ended: end, written })
    }

    fn write(self, mut events: EventStream, progress: &AtomicU64) {
        while let Some(event) = futures::executor::block_on(events.next()) {
            let mut lines = self.lines(&event);
            // What else is there already goes with it: a system call for each would be most of the work.
            while lines.len() < AT_ONCE
                && let Some(Some(event)) = events.next().now_or_never()
            {
                lines.push_str(&self.lines(&event));
            }
            // Lines of the log that go there too stand between events, not in them.
            let _whole = self.stderr.then(|| std::io::stderr().lock());
            match write_all(&self.file, &mut lines.as_bytes()) {
                Ok(()) => drop(progress.fetch_add(1, Ordering::Relaxed)),
                // The reader has seen enough.
                Err(error) if error.kind() == IoErrorKind::BrokenPipe => return,
                Err(error) => {
                    tracing::warn!(%error, "events are not told any more");
                    return;
                }
            }
        }
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
            let now = Some(self.written.load(Ordering::Relaxed));
            if now == before || start.elapsed() > LONGEST {
                tracing::warn!("the last events could not be told: nobody reads them");
                return;
            }
            before = now;
        }
    }
}
