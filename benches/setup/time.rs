//! Times, by their median and minimum.

use std::time::{Duration, Instant};

/// What all threads of this process have had of the processors. On a busy machine it says more than the clock.
pub fn processor() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[derive(Default, Clone)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Notes the time since `start`, unless the round is one that warms up.
    pub fn note(&mut self, kept: bool, start: Instant) {
        self.add(kept, start.elapsed());
    }

    /// Notes a time that was taken otherwise.
    pub fn add(&mut self, kept: bool, time: Duration) {
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
