//! What is open, why, and until when: the book-keeping, without clock or kernel.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::plan::{DirectAddress, Open, SLACK, permanent};
use crate::policy::{AllowHost, DnsName, EndpointHost, PatternMap, Policy, Sourced, Transport};
use crate::sandbox::known::Known;

/// The most addresses of names that are open at once, in one sandbox.
pub(super) const MOST: usize = 4096;

/// How long after the promised time an element is taken to be there still: the kernel's clock begins with the commit, and ours a little before.
const GONE: Duration = Duration::from_secs(SLACK.as_secs() + 1);

/// How long an address whose promised time is over stays open for a flow that lives, until that is looked at again.
const USE: Duration = Duration::from_secs(30);

/// The names of a policy.
#[derive(Debug)]
pub(super) struct Scope {
    /// Direct endpoints.
    pub(super) direct: PatternMap<(Transport, std::num::NonZeroU16)>,
    /// Destinations of the proxy.
    allow: PatternMap<()>,
    /// Whether every name may be asked for.
    open: bool,
}

impl Scope {
    pub(super) fn of(policy: &Policy) -> Self {
        let (mut direct, mut allow) = (PatternMap::default(), PatternMap::default());
        for Sourced { value, .. } in &policy.direct {
            if let EndpointHost::Pattern(pattern) = &value.host {
                direct.insert(pattern, (value.transport, value.port));
            }
        }
        for Sourced { value, .. } in &policy.allow {
            if let AllowHost::Pattern(pattern) = &value.host {
                allow.insert(pattern, ());
            }
        }
        Self { direct, allow, open: policy.dns.value == crate::policy::DnsMode::Open }
    }

    /// Whether a program may ask for that name.
    pub(super) fn covers(&self, name: &DnsName) -> bool {
        self.open || self.is_direct(name) || self.allow.matching(name).next().is_some()
    }

    /// Whether a direct endpoint has that name.
    pub(super) fn is_direct(&self, name: &DnsName) -> bool {
        self.direct.matching(name).next().is_some()
    }

    /// What is to be open at an address of that name.
    fn endpoints<'a>(&'a self, name: &'a DnsName, address: IpAddr) -> impl Iterator<Item = DirectAddress> + 'a {
        self.direct.matching(name).map(move |&(transport, port)| DirectAddress { address, transport, port })
    }
}

/// An element that runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Armed {
    /// Until when it was promised. The kernel has it [`SLACK`] longer.
    until: Instant,
    /// At the end of that time it was looked whether a flow to it lives, and none did.
    unused: bool,
}

/// What one sandbox has open.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) scope: std::sync::Arc<Scope>,
    /// Open for good.
    fixed: BTreeSet<DirectAddress>,
    /// Which addresses each name led to, and until when that holds.
    names: HashMap<DnsName, BTreeMap<IpAddr, Instant>>,
    /// How many addresses that are.
    count: usize,
    /// Before that moment none of them is forgotten: it was looked, and what came since holds for longer. `None` before the first look.
    stale: Option<Instant>,
    /// Open because of a name.
    armed: BTreeMap<DirectAddress, Armed>,
}

/// A book to come, and what it takes to get there.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) next: Book,
    pub(super) close: Vec<DirectAddress>,
    pub(super) open: Vec<Open>,
}

impl Book {
    /// Opens the book of a sandbox with nothing in it.
    pub(super) fn new(policy: &Policy) -> Self {
        let scope = std::sync::Arc::new(Scope::of(policy));
        Self { scope, fixed: BTreeSet::new(), names: HashMap::new(), count: 0, stale: None, armed: BTreeMap::new() }
    }

    /// What has to be opened, or opened for longer, so that these addresses of a name are open until then. Nothing where all of it is
    /// open for as long already: then it has been committed for this name, or another, with the same time or a later one.
    pub(super) fn missing(&self, name: &DnsName, addresses: &[(IpAddr, Instant)]) -> Vec<(DirectAddress, Instant)> {
        let scope = self.scope.clone();
        let mut missing: BTreeMap<DirectAddress, Instant> = BTreeMap::new();
        for (address, until) in addresses {
            for to in scope.endpoints(name, *address) {
                let enough = self.fixed.contains(&to) || self.armed.get(&to).is_some_and(|armed| armed.until >= *until);
                if !enough {
                    let longest = missing.entry(to).or_insert(*until);
                    *longest = (*longest).max(*until);
                }
            }
        }
        missing.into_iter().collect()
    }

    /// Whether these addresses of a name find room, after what has run out is forgotten.
    pub(super) fn has_room(&mut self, name: &DnsName, addresses: &[(IpAddr, Instant)], now: Instant) -> bool {
        let known = self.names.get(name);
        let new: BTreeSet<IpAddr> = addresses
            .iter()
            .map(|(address, _)| *address)
            .filter(|address| known.is_none_or(|known| !known.contains_key(address)))
            .collect();
        // All are looked through only when one of them may have run out.
        if self.count + new.len() > MOST && self.stale.is_none_or(|stale| stale < now) {
            self.forget_names(now);
        }
        self.count + new.len() <= MOST
    }

    /// Notes what a name led to.
    pub(super) fn led(&mut self, name: &DnsName, addresses: &[(IpAddr, Instant)]) {
        if addresses.is_empty() {
            return;
        }
        let known = self.names.entry(name.clone()).or_default();
        for (address, until) in addresses {
            self.stale = self.stale.map(|stale| stale.min(*until + GONE));
            let longest = known.entry(*address).or_insert_with(|| {
                self.count += 1;
                *until
            });
            *longest = (*longest).max(*until);
        }
    }

    /// Whether everything that a name can open at an address is open for good.
    pub(super) fn stays_open(&self, name: &DnsName, address: IpAddr) -> bool {
        self.scope.endpoints(name, address).all(|to| self.fixed.contains(&to))
    }

    /// Whether that is open.
    pub(super) fn has(&self, to: &DirectAddress) -> bool {
        self.fixed.contains(to) || self.armed.contains_key(to)
    }

    /// Elements that are open until then.
    pub(super) fn elements(&self, until: &[(DirectAddress, Instant)], now: Instant) -> Vec<Open> {
        let open = |&(to, until): &(DirectAddress, Instant)| Open {
            to,
            timeout: Some(timeout(until, now)),
            there: self.has(&to),
        };
        until.iter().map(open).collect()
    }

    /// Notes what was opened.
    pub(super) fn armed(&mut self, opened: &[(DirectAddress, Instant)]) {
        for (to, until) in opened {
            self.armed.insert(*to, Armed { until: *until, unused: false });
        }
    }

    /// Everything that is promised to be open, and for how long.
    pub(super) fn promised(&self, now: Instant) -> Vec<Open> {
        let fixed = self.fixed.iter().map(|to| Open { to: *to, timeout: None, there: true });
        let armed = self.armed.iter();
        fixed
            .chain(armed.map(|(to, armed)| Open { to: *to, timeout: Some(timeout(armed.until, now)), there: true }))
            .collect()
    }

    /// When something has to be looked at next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.armed.values().map(|armed| if armed.unused { armed.until + GONE } else { armed.until }).min()
    }

    /// What is due for a look at whether flows to it live.
    pub(super) fn due(&self, now: Instant) -> Vec<DirectAddress> {
        let due = |armed: &Armed| !armed.unused && armed.until <= now;
        self.armed.iter().filter(|(_, armed)| due(armed)).map(|(to, _)| *to).collect()
    }

    /// What stays open because a flow to it lives, and until when.
    pub(super) fn used(&self, due: &[DirectAddress], now: Instant) -> Vec<(DirectAddress, Instant)> {
        due.iter().map(|to| (*to, now + USE)).collect()
    }

    /// Notes what was kept open, for the names that led there.
    pub(super) fn kept(&mut self, kept: &[(DirectAddress, Instant)]) {
        self.armed(kept);
        let scope = self.scope.clone();
        let mut by_address: HashMap<IpAddr, Vec<(DirectAddress, Instant)>> = HashMap::new();
        for (to, until) in kept {
            by_address.entry(to.address).or_default().push((*to, *until));
        }
        for (name, addresses) in &mut self.names {
            for (address, known) in addresses {
                for (to, until) in by_address.get(address).into_iter().flatten() {
                    if scope.endpoints(name, *address).any(|endpoint| endpoint == *to) {
                        *known = (*known).max(*until);
                    }
                }
            }
        }
    }

    /// Notes what runs out now.
    pub(super) fn unused(&mut self, due: &[DirectAddress]) {
        for to in due {
            if let Some(armed) = self.armed.get_mut(to) {
                armed.unused = true;
            }
        }
    }

    /// Forgets what the kernel has dropped by now, and gives it back.
    pub(super) fn prune(&mut self, now: Instant) -> Vec<DirectAddress> {
        let gone = |until: Instant| until + GONE < now;
        let dropped: Vec<_> = self.armed.iter().filter(|(_, armed)| gone(armed.until)).map(|(to, _)| *to).collect();
        dropped.iter().for_each(|to| {
            self.armed.remove(to);
        });
        self.forget_names(now);
        dropped
    }

    fn forget_names(&mut self, now: Instant) {
        self.names.retain(|_, addresses| {
            addresses.retain(|_, until| *until + GONE >= now);
            !addresses.is_empty()
        });
        self.count = self.names.values().map(BTreeMap::len).sum();
        // Nothing there: what comes first says when.
        let earliest = self.names.values().flat_map(BTreeMap::values).min();
        self.stale = earliest.map(|until| *until + GONE);
    }

    /// What another policy takes: `hosts` is what is known of its names for good, `led` where its names lead until then.
    pub(super) fn change(
        &self,
        policy: &Policy,
        hosts: &Known,
        led: &[(DnsName, IpAddr, Instant)],
        now: Instant,
    ) -> Change {
        let mut next = Self::new(policy);
        let scope = next.scope.clone();
        next.fixed.extend(permanent(policy));
        for (name, addresses) in hosts {
            next.fixed.extend(addresses.iter().flat_map(|address| scope.endpoints(name, address.to_canonical())));
        }
        let known = self.names.iter().flat_map(|(name, addresses)| {
            addresses.iter().map(move |(address, until)| (name, *address, *until, false))
        });
        for (name, address, until, new) in
            known.chain(led.iter().map(|(name, address, until)| (name, *address, *until, true)))
        {
            let mut any = false;
            for to in scope.endpoints(name, address) {
                any = true;
                // What ran out by itself while its name lived on stays closed.
                let was = self.armed.get(&to);
                let asked_for = new
                    || was.is_some()
                    || self.fixed.contains(&to)
                    || !self.scope.endpoints(name, address).any(|old| old == to);
                if next.fixed.contains(&to) || !asked_for {
                    continue;
                }
                let until = was.map_or(until, |was| if new { was.until.max(until) } else { was.until.min(until) });
                let armed = next.armed.entry(to).or_insert(Armed { until, unused: false });
                armed.until = armed.until.max(until);
            }
            if any {
                next.led(name, &[(address, until)]);
            }
        }
        let stays = |to: &DirectAddress| next.fixed.contains(to) || next.armed.contains_key(to);
        let close = self.fixed.iter().chain(self.armed.keys()).filter(|to| !stays(to)).copied().collect();
        let mut open: Vec<Open> = Vec::new();
        for to in next.fixed.difference(&self.fixed) {
            open.push(Open { to: *to, timeout: None, there: self.armed.contains_key(to) });
        }
        for (to, armed) in &next.armed {
            if self.armed.get(to).is_none_or(|was| was.until != armed.until) {
                open.push(Open { to: *to, timeout: Some(timeout(armed.until, now)), there: self.has(to) });
            }
        }
        Change { next, close, open }
    }
}

/// The time-out of an element that is promised until then: rounded up to the kernel's milliseconds, and never none.
fn timeout(until: Instant, now: Instant) -> Duration {
    let left = until.saturating_duration_since(now) + SLACK;
    Duration::from_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX).saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy(direct: &str) -> Policy {
        Policy::builder().direct(direct).unwrap().build().unwrap()
    }

    fn name(text: &str) -> DnsName {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn shown(all: &[DirectAddress]) -> Vec<String> {
        all.iter()
            .map(|to| format!("{} {}", std::net::SocketAddr::new(to.address, to.port.get()), to.transport))
            .collect()
    }

    fn opened(book: &mut Book, of: &str, addresses: &[(IpAddr, Instant)]) -> Vec<String> {
        let missing = book.missing(&name(of), addresses);
        book.led(&name(of), addresses);
        book.armed(&missing);
        shown(&missing.iter().map(|(to, _)| *to).collect::<Vec<_>>())
    }

    #[test]
    fn an_answer_opens_each_endpoint_of_its_name_once() {
        let now = Instant::now();
        let mut book = Book::new(&policy("*.example.com:443,a.example.com:80,b.example.com:1,203.0.113.7:443"));
        let to = [(ip("203.0.113.7"), now + 5 * SECOND), (ip("2001:db8::7"), now + 5 * SECOND)];
        let wanted = ["203.0.113.7:443 tcp", "203.0.113.7:80 tcp", "[2001:db8::7]:443 tcp", "[2001:db8::7]:80 tcp"];
        let mut found = opened(&mut book, "a.example.com", &to);
        found.sort();
        let mut sorted = wanted.to_vec();
        sorted.sort_unstable();
        assert_eq!(found, sorted);
        // The same again, or for less long, takes nothing; for longer takes all.
        assert_eq!(opened(&mut book, "a.example.com", &to), [""; 0]);
        assert_eq!(opened(&mut book, "a.example.com", &[(ip("203.0.113.7"), now + SECOND)]), [""; 0]);
        assert_eq!(opened(&mut book, "a.example.com", &[(ip("203.0.113.7"), now + 6 * SECOND)]).len(), 2);
        // Another name that leads there.
        assert_eq!(opened(&mut book, "b.example.com", &[(ip("203.0.113.7"), now + SECOND)]), ["203.0.113.7:1 tcp"]);
        assert_eq!(opened(&mut book, "example.com", &to), [""; 0]);
    }

    #[test]
    fn what_is_used_stays_and_what_is_not_runs_out() {
        let now = Instant::now();
        let mut book = Book::new(&policy("*.example.com:443"));
        assert_eq!(book.next(), None);
        opened(&mut book, "a.example.com", &[(ip("203.0.113.7"), now + SECOND), (ip("203.0.113.8"), now + 9 * SECOND)]);
        assert_eq!(book.next(), Some(now + SECOND));
        assert_eq!(book.due(now), []);
        let due = book.due(now + SECOND);
        assert_eq!(shown(&due), ["203.0.113.7:443 tcp"]);
        let kept = book.used(&due, now + SECOND);
        book.kept(&kept);
        assert_eq!(book.next(), Some(now + 9 * SECOND));
        let later = now + 31 * SECOND;
        let due = book.due(later);
        assert_eq!(due.len(), 2);
        book.unused(&due);
        assert_eq!(book.due(later), []);
        assert_eq!(book.next(), Some(now + 9 * SECOND + GONE));
        assert_eq!(shown(&book.prune(later)), ["203.0.113.8:443 tcp"]);
        assert_eq!(shown(&book.prune(later + GONE + SECOND)), ["203.0.113.7:443 tcp"]);
        assert_eq!((book.next(), book.names.len()), (None, 0));
    }

    #[test]
    fn room_is_bounded_and_comes_back() {
        let now = Instant::now();
        let mut book = Book::new(&policy("*.example.com:443"));
        let many: Vec<_> =
            (0..MOST).map(|n| (IpAddr::from(std::net::Ipv4Addr::from(0x0b00_0000 + n as u32)), now + SECOND)).collect();
        let a = name("a.example.com");
        assert!(book.has_room(&a, &many, now));
        book.led(&a, &many);
        assert!(book.has_room(&a, &many, now), "what is known needs no more room");
        assert!(!book.has_room(&name("b.example.com"), &many[..1], now));
        // It was looked, and is not again before something may have run out.
        assert_eq!(book.stale, Some(now + SECOND + GONE));
        book.led(&a, &[(many[0].0, now + 5 * SECOND)]);
        assert!(!book.has_room(&name("b.example.com"), &many[..1], now + SECOND));
        assert!(book.has_room(&name("b.example.com"), &many[..1], now + GONE + 2 * SECOND));
        // An address that an answer has twice takes the room of one.
        let mut book = Book::new(&policy("*.example.com:443"));
        book.led(&a, &many[1..]);
        assert!(book.has_room(&a, &[many[0], many[0]], now));
    }

    #[test]
    fn a_change_keeps_what_another_endpoint_still_allows() {
        let now = Instant::now();
        let none = Known::new();
        let first = policy("*.example.com:443,a.example.com:80,203.0.113.7:443,203.0.113.9:1");
        let mut book = Book::new(&first).change(&first, &none, &[], now).next;
        opened(
            &mut book,
            "a.example.com",
            &[(ip("203.0.113.7"), now + 5 * SECOND), (ip("203.0.113.8"), now + 5 * SECOND)],
        );

        // The address goes; the name still leads there. Port 80 goes for good.
        let change = book.change(&policy("*.example.com:443,203.0.113.9:1"), &none, &[], now);
        assert_eq!(shown(&change.close), ["203.0.113.7:80 tcp", "203.0.113.8:80 tcp"]);
        let reopened: Vec<_> = change.open.iter().map(|open| (open.to.address, open.timeout.is_some())).collect();
        assert_eq!(reopened, [(ip("203.0.113.7"), true)]);

        // The names go; the address stays.
        let change = book.change(&policy("203.0.113.7:443,203.0.113.9:1"), &none, &[], now);
        assert_eq!(shown(&change.close), ["203.0.113.7:80 tcp", "203.0.113.8:80 tcp", "203.0.113.8:443 tcp"]);
        assert_eq!(change.open, []);
        assert!(change.next.names.is_empty());

        // A new endpoint of a name that has been asked for opens where it led.
        let change = book.change(
            &policy("*.example.com:443,a.example.com:80,*.com:22,203.0.113.9:1,203.0.113.7:443"),
            &none,
            &[],
            now,
        );
        assert_eq!(change.close, []);
        assert_eq!(change.open.len(), 2);
        assert!(
            change
                .open
                .iter()
                .all(|open| open.to.port.get() == 22 && open.timeout.is_some_and(|time| time >= 5 * SECOND))
        );
        // And nothing changes where nothing does.
        let change = book.change(&first, &none, &[], now);
        assert_eq!((change.close, change.open), (vec![], vec![]));
    }

    #[test]
    fn what_is_known_for_good_and_for_a_time() {
        let now = Instant::now();
        let policy = policy("a.example.com:443,db:5432");
        let hosts = Known::from([(name("db"), vec![ip("10.0.0.1")])]);
        let led = [(name("a.example.com"), ip("203.0.113.7"), now + SECOND)];
        let change = Book::new(&policy).change(&policy, &hosts, &led, now);
        let open: Vec<_> = change.open.iter().map(|open| (open.to.address, open.timeout.is_some())).collect();
        assert_eq!(open, [(ip("10.0.0.1"), false), (ip("203.0.113.7"), true)]);
        assert_eq!(change.next.next(), Some(now + SECOND));
    }
}
