//! Answers that are still good.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;

use super::answer::Answer;
use crate::policy::DnsName;

/// What a question is known by.
pub(super) type Key = (DnsName, RecordType);

/// Most answers that are kept.
const MOST: usize = 4096;
/// Most bytes that they take up, about.
const WEIGHT: usize = 8 << 20;

/// Answers that are still good, in bounded memory: who came first goes first.
#[derive(Debug, Default)]
pub(super) struct Cache {
    answers: HashMap<Key, Kept>,
    /// In the order in which they came; a number that is not the answer's is an older one's.
    order: VecDeque<(Key, u64)>,
    weight: usize,
    count: u64,
}

#[derive(Debug)]
struct Kept {
    answer: Arc<Answer>,
    until: Instant,
    number: u64,
}

/// An answer, and for how many seconds more it is good.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub answer: Arc<Answer>,
    pub ttl: u32,
}

impl Cache {
    /// Finds an answer that is good for a second or more.
    pub fn find(&self, key: &Key, now: Instant) -> Option<Found> {
        let kept = self.answers.get(key)?;
        // Whole seconds, rounded down: nobody is promised more than there is.
        let left = kept.until.saturating_duration_since(now).as_secs();
        let ttl = u32::try_from(left).ok().filter(|ttl| *ttl > 0)?;
        Some(Found { answer: Arc::clone(&kept.answer), ttl })
    }

    /// Keeps an answer for as long as it is good.
    pub fn keep(&mut self, key: Key, answer: Arc<Answer>, now: Instant) {
        if answer.ttl() == 0 {
            return;
        }
        self.count += 1;
        // A moment is added, or an answer of one second would never be found.
        let until = now + Duration::from_secs(answer.ttl().into()) + Duration::from_millis(1);
        self.weight += answer.weight();
        self.order.push_back((key.clone(), self.count));
        if let Some(before) = self.answers.insert(key, Kept { answer, until, number: self.count }) {
            self.weight -= before.answer.weight();
        }
        while self.answers.len() > MOST || self.weight > WEIGHT || self.order.len() > 2 * MOST {
            let Some((key, number)) = self.order.pop_front() else { return };
            if self.answers.get(&key).is_some_and(|kept| kept.number == number)
                && let Some(gone) = self.answers.remove(&key)
            {
                self.weight -= gone.answer.weight();
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self { count: self.count, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::answer::wire_name;

    fn key(name: &str) -> Key {
        (name.parse().unwrap(), RecordType::A)
    }

    fn answer(name: &str, ttl: u32) -> Arc<Answer> {
        let addresses = [std::net::IpAddr::from([203, 0, 113, 9])];
        Arc::new(Answer::known(&wire_name(&name.parse().unwrap()).unwrap(), addresses.into_iter(), ttl))
    }

    #[test]
    fn an_answer_is_good_for_its_time_and_no_longer() {
        let mut cache = Cache::default();
        let now = Instant::now();
        cache.keep(key("a.example"), answer("a.example", 10), now);
        cache.keep(key("b.example"), answer("b.example", 0), now);
        let left = |cache: &Cache, name: &str, after: u64| {
            cache.find(&key(name), now + Duration::from_millis(after)).map(|found| found.ttl)
        };
        assert_eq!(left(&cache, "a.example", 0), Some(10));
        assert_eq!(left(&cache, "a.example", 100), Some(9));
        assert_eq!(left(&cache, "a.example", 9000), Some(1));
        assert_eq!(left(&cache, "a.example", 9100), None);
        assert_eq!(left(&cache, "b.example", 0), None);
        cache.keep(key("a.example"), answer("a.example", 100), now);
        assert_eq!(left(&cache, "a.example", 0), Some(100));
        cache.clear();
        assert_eq!(left(&cache, "a.example", 0), None);
        assert_eq!(cache.weight, 0);
    }

    #[test]
    fn memory_is_bounded() {
        let mut cache = Cache::default();
        let now = Instant::now();
        for number in 0..3 * MOST {
            let name = format!("n{number}.example");
            cache.keep(key(&name), answer(&name, 60), now);
            cache.keep(key("same.example"), answer("same.example", 60), now);
        }
        assert!(cache.answers.len() <= MOST && cache.order.len() <= 2 * MOST, "{}", cache.answers.len());
        assert_eq!(cache.weight, cache.answers.values().map(|kept| kept.answer.weight()).sum::<usize>());
        assert!(cache.find(&key(&format!("n{}.example", 3 * MOST - 1)), now).is_some());
        assert!(cache.find(&key("n0.example"), now).is_none());
    }
}
