//! What the library tells beside its results, on standard error.

use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, fmt};
use tracing_subscriber::registry::LookupSpan;

use crate::report::plain;
use crate::stderr;

/// Sends it there: errors with `quiet`, else warnings too, and with `verbose` more, with the time and the place in the source.
pub fn start(quiet: bool, verbose: u8) {
    let level = match (quiet, verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, _) => LevelFilter::DEBUG,
    };
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = fmt().with_max_level(level).with_writer(|| stderr::Log).log_internal_errors(false).with_ansi(ansi);
    // Fails only if somebody was faster, and then that one is as good.
    let _ = if verbose == 0 { log.event_format(Lines).try_init() } else { log.try_init() };
}

/// One line an event, for whoever runs a command: neither the time nor the place says anything to them.
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut told = Told::default();
        event.record(&mut told);
        let error = *event.metadata().level() == Level::ERROR;
        let (on, off) =
            if to.has_ansi_escapes() { (if error { "\x1b[31m" } else { "\x1b[33m" }, "\x1b[0m") } else { ("", "") };
        let (what, Told { message, fields, cause }) = (if error { "" } else { " warning:" }, told);
        writeln!(to, "{on}ringfence:{what}{off} {}", plain(&(message + &fields + &cause)))
    }
}

/// What an event says, in three parts: what happened, to what, and why.
#[derive(Default)]
struct Told {
    message: String,
    fields: String,
    cause: String,
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string can't fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "error" => write!(self.cause, ": {value:?}"),
            name => write!(self.fields, ", {name} {value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_a_line_whatever_it_quotes() {
        let written = Written::default();
        let to = written.clone();
        let log = fmt().with_writer(move || to.clone()).with_ansi(false).event_format(Lines).finish();
        tracing::subscriber::with_default(log, || {
            tracing::warn!("--ro: `{}` does not exist, and is left out", "/a\n\u{1b}[2J");
            tracing::warn!(name = %"a.example", error = %"no such name", "can't be resolved again");
            tracing::error!(error = %"it ended", "the built-in proxy is gone");
        });
        let expected = [
            r"ringfence: warning: --ro: `/a\n\u{1b}[2J` does not exist, and is left out",
            "ringfence: warning: can't be resolved again, name a.example: no such name",
            "ringfence: the built-in proxy is gone: it ended",
            "",
        ];
        assert_eq!(String::from_utf8(written.0.lock().unwrap().clone()).unwrap(), expected.join("\n"));
    }
}
