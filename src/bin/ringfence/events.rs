//! `ringfence events`: follows an nflog group, as JSON lines on standard output.

use std::ffi::OsStr;
use std::io::{PipeReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ringfence::audit::{Event, Lost};
use ringfence::kernel::netns::Netns;
use ringfence::nflog::{Group, Options, Received, Receiver};
use ringfence::{Error, ErrorKind, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::EventsArguments;
use crate::io_error;

/// How long what has come already may take to be written once a signal has come: a reader who does not read must not keep us.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub fn events(arguments: &EventsArguments) -> Result<u8> {
    let bind = || Receiver::bind(Group(arguments.group), Options::latency());
    let receiver = match arguments.netns.as_deref() {
        Some(netns) => open(netns)?.run(bind)??,
        None => bind()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| io_error("can't start the runtime", error))?;
    let (until, stop) = std::io::pipe().map_err(|error| io_error("can't make a pipe", error))?;
    let (ended, mut end) = tokio::sync::oneshot::channel();
    // A thread of its own: a write may block for as long as the reader pleases, and signals must be heard nevertheless.
    let follow = move || {
        // Nobody waits for it any more once a signal has come and a second has passed.
        let _ = ended.send(follow(receiver, &until));
    };
    runtime.block_on(async {
        let catch = |kind| signal(kind).map_err(|error| io_error("can't wait for signals", error));
        let (mut interrupt, mut terminate) = (catch(SignalKind::interrupt())?, catch(SignalKind::terminate())?);
        std::thread::Builder::new()
            .name("rf-events".to_owned())
            .spawn(follow)
            .map_err(|error| io_error("can't start a thread", error))?;
        let result = tokio::select! {
            result = &mut end => Some(result),
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
        };
        drop(stop);
        let result = match result {
            Some(result) => result,
            None => match tokio::time::timeout(LAST_WORDS, end).await {
                Ok(result) => result,
                Err(_) => return Ok(0),
            },
        };
        result
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Io, "the thread that follows the group is gone")))
            .map(|()| 0)
    })
}

/// The namespace of a path, or of a name that ip-netns(8) knows.
pub fn open(netns: &OsStr) -> Result<Netns> {
    if netns.as_bytes().contains(&b'/') {
        return Netns::open(Path::new(netns));
    }
    Netns::open(Netns::path_of(&netns.to_string_lossy()))
}

/// Writes what comes until `until` is closed at its other end, or nobody reads any more.
fn follow(mut receiver: Receiver, until: &PipeReader) -> Result<()> {
    let output = std::io::stdout();
    loop {
        while let Some(received) = receiver.try_recv()? {
            let event = match received {
                // The kernel tells no time on the output hook.
                Received::Packet(message) => Event::of(&message, SystemTime::now()),
                Received::Lost { at_least } => {
                    Event::Lost(Lost { time: SystemTime::now(), sandbox: None, count: at_least })
                }
            };
            // Line by line, so that a reader is told at once and an end in between leaves whole lines.
            match output.lock().write_all((event.to_json() + "\n").as_bytes()) {
                Ok(()) => {}
                // The reader has seen enough: `ringfence events … | head`.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => return Err(io_error("can't write to standard output", error)),
            }
        }
        let mut waited = [
            PollFd::new(&receiver, PollFlags::IN),
            PollFd::new(until, PollFlags::IN),
            // Asked for nothing, it tells of its reader's end alone.
            PollFd::new(&output, PollFlags::empty()),
        ];
        match poll(&mut waited, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(io_error("can't wait for events", errno.into())),
        }
        let over = waited[1..].iter().any(|fd| !fd.revents().is_empty());
        if over && waited[0].revents().is_empty() {
            return Ok(());
        }
    }
}
