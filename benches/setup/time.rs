//! Times, by their median and minimum.

use std::time::{Duration, Instant};

#[derive(Default, Clone)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Notes the time since `start`, unless the round is one that warms up.
    pub fn note(&mut self, kept: bool, start: Instant) {
        let time = start.elapsed();
        if kept {
            self.0.push(time);
        }
    }

    pub fn median(&self) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    pub fn min(&self) -> Duration {
        self.0.iter().min().copied().unwrap_or_default()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}
