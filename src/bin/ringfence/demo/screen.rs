//! What is on the screen: a heading a chapter, a line a step.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use ringfence::Result;

use crate::io_error;

/// Width of the column that says what was tried.
const WHAT: usize = 44;

/// Standard output, and whether all that was shown on it is as it should be.
pub struct Screen {
    colour: bool,
    failed: usize,
    /// The first thing that could not be written; nothing is written after it.
    lost: Option<io::Error>,
}

impl Screen {
    pub fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colour: wanted && io::stdout().is_terminal(), failed: 0, lost: None }
    }

    /// Begins a chapter.
    pub fn heading(&mut self, text: &str) {
        let text = self.in_colour("1", text);
        self.write(&format!("\n{text}\n"));
    }

    /// Shows a line that is no step.
    pub fn text(&mut self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    /// Shows a step: what was tried, what came of it, in what time, and whether that is as it should be.
    pub fn step(&mut self, what: &str, result: &str, time: Option<Duration>, good: bool) {
        let mark = if good { self.in_colour("32", "ok    ") } else { self.in_colour("1;31", "FAILED") };
        self.failed += usize::from(!good);
        let time = time.map(|time| self.in_colour("2", &format!(" ({})", human(time)))).unwrap_or_default();
        self.write(&format!("  {mark}  {what:<WHAT$} … {result}{time}\n"));
    }

    /// Shows a step that this machine has no means for.
    pub fn skip(&mut self, what: &str, why: &str) {
        let mark = self.in_colour("33", "--    ");
        self.write(&format!("  {mark}  {what:<WHAT$} … {why}\n"));
    }

    /// How many steps were not as they should be.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// Ends the show.
    ///
    /// # Errors
    ///
    /// When something could not be shown. That the reader has seen enough (`ringfence demo | head`) is no error.
    pub fn finish(self) -> Result<()> {
        match self.lost {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(io_error("can't write to standard output", error))
            }
            _ => Ok(()),
        }
    }

    fn in_colour(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn write(&mut self, text: &str) {
        if self.lost.is_some() {
            return;
        }
        let mut out = io::stdout().lock();
        self.lost = out.write_all(text.as_bytes()).and_then(|()| out.flush()).err();
    }
}

/// A time with the unit that suits it.
fn human(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        ..1e3 => format!("{micros:.0} µs"),
        1e3..1e4 => format!("{:.1} ms", micros / 1e3),
        1e4..1e6 => format!("{:.0} ms", micros / 1e3),
        _ => format!("{:.1} s", micros / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_suits_them() {
        let shown = |nanos| human(Duration::from_nanos(nanos));
        assert_eq!(shown(17_400), "17 µs");
        assert_eq!(shown(8_140_000), "8.1 ms");
        assert_eq!(shown(81_400_000), "81 ms");
        assert_eq!(shown(1_500_000_000), "1.5 s");
    }
}
