//! Which name an address was handed out for.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Mutex;

use crate::policy::DnsName;

/// How many addresses are remembered. Past that, the one that was handed out longest ago is forgotten.
const REMEMBERED: usize = 16 * 1024;

/// Which name an address was last handed out for, as far as it is remembered.
///
/// An address may be many names'; what is remembered is the one that was asked for last.
#[derive(Debug, Default)]
pub struct Answers(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    names: HashMap<IpAddr, (DnsName, u64)>,
    /// What was noted, oldest first; a note whose number is not the address's is overtaken.
    notes: VecDeque<(IpAddr, u64)>,
    count: u64,
}

impl Answers {
    /// Remembers nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells which name an address was last handed out for.
    pub fn name_of(&self, address: IpAddr) -> Option<DnsName> {
        self.with(|remembered| remembered.names.get(&address.to_canonical()).map(|(name, _)| name.clone()))
    }

    /// Notes that these addresses leave in an answer to `name`.
    pub fn note(&self, name: &DnsName, addresses: impl IntoIterator<Item = IpAddr>) {
        self.with(|remembered| {
            for address in addresses {
                remembered.note(name, address.to_canonical());
            }
        });
    }

    /// Every address that is remembered, with its name.
    pub fn all(&self) -> BTreeMap<IpAddr, DnsName> {
        self.with(|remembered| remembered.names.iter().map(|(address, (name, _))| (*address, name.clone())).collect())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Remembered) -> T) -> T {
        // Whoever panicked while holding it left it whole: what is remembered is never needed to be right.
        work(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Remembered {
    fn note(&mut self, name: &DnsName, address: IpAddr) {
        self.count += 1;
        self.names.insert(address, (name.clone(), self.count));
        self.notes.push_back((address, self.count));
        // Each note is taken away once, so the work is spread evenly.
        while self.names.len() > REMEMBERED || self.notes.len() > 2 * REMEMBERED {
            let Some((address, number)) = self.notes.pop_front() else { return };
            if self.names.get(&address).is_some_and(|(_, last)| *last == number) {
                self.names.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_last_name_counts_and_memory_is_bounded() {
        let name = |text: &str| text.parse::<DnsName>().unwrap();
        let answers = Answers::new();
        let first = IpAddr::from([203, 0, 113, 1]);
        answers.note(&name("a.example"), [first, "::ffff:203.0.113.2".parse().unwrap()]);
        answers.note(&name("b.example"), [first]);
        assert_eq!(answers.name_of(first), Some(name("b.example")));
        assert_eq!(answers.name_of(IpAddr::from([203, 0, 113, 2])), Some(name("a.example")));
        for round in 0..3 {
            answers.note(&name("c.example"), (0..30_000).map(|n: u32| IpAddr::from(Ipv4Addr::from(n + round))));
        }
        assert_eq!(answers.name_of(first), None);
        assert_eq!(answers.all().len(), REMEMBERED);
        assert_eq!(answers.name_of(IpAddr::from(Ipv4Addr::from(30_001))), Some(name("c.example")));
        for _ in 0..100_000 {
            answers.note(&name("d.example"), [first]);
        }
        assert!(answers.with(|remembered| remembered.notes.len()) <= 2 * REMEMBERED);
        assert_eq!(answers.name_of(first), Some(name("d.example")));
    }
}
