//! Whether the kernel has told of all elements of a set.
//!
//! A set that grows or shrinks is moved to another table in the background, which takes some milliseconds, or as long as nobody gives the
//! kernel's thread a processor. A dump of several datagrams that comes meanwhile tells of some elements twice, and of some not at all, without
//! a word. So what was told is held against what the kernel counts. Packets change some sets while they are dumped: of those nothing may be
//! lost from one look to the next, and what is new there must be younger than the look before.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::read::{doubted, passed};
use super::whole::{LOOKS, NEVER};
use super::{Socket, refusal};
use crate::kernel::refusal::undecodable;
use crate::nft::{Element, Object, Set, SetName, SetPolicy, TableId};
use crate::wire::nftables::{self, Request};
use crate::{Error, ErrorKind, Result};

/// Elements with less time left may run out between two looks.
const SOON: Duration = Duration::from_secs(60);

/// Two ticks of the slowest clock.
const TICKS: Duration = Duration::from_millis(20);

/// What a look at the elements of a set gave.
struct Told {
    set: Set,
    elements: Vec<Element>,
    begun: Instant,
}

impl Socket {
    /// Reads the elements of one set. `None` when the set or its table is not there.
    ///
    /// # Errors
    ///
    /// As [`Self::table`].
    pub fn elements(&mut self, table: &TableId, set: &SetName) -> Result<Option<Vec<Element>>> {
        let alike = |a: &Option<Told>, b: &Option<Told>| match (a, b) {
            (Some(a), Some(b)) if b.set.flags.dynamic => {
                nothing_lost(&b.set, &a.elements, &b.elements, a.begun.elapsed())
            }
            (Some(a), Some(b)) => same_elements(&a.elements, &b.elements),
            (a, b) => a.is_none() && b.is_none(),
        };
        let mut doubt = None;
        let told = self.snapshot(alike, passed, |socket| {
            let begun = Instant::now();
            let question = format!("read set {table} {set}");
            let header = socket.one(Request::set(table, set), &question, |message| {
                let count = nftables::count(message).map_err(undecodable)?;
                match nftables::decode(message).map_err(undecodable)? {
                    Object::Set(set) => Ok(Some((set, count))),
                    _ => Err(Error::new(ErrorKind::Decode, "the answer about a set holds no set")),
                }
            })?;
            let Some((set, count)) = header else { return Ok((None, Some(1))) };
            let mut elements = Vec::new();
            let answer = socket.ask(Request::elements(table, &set.name), true, |message| {
                if let Object::Elements { elements: more, .. } = nftables::decode(message).map_err(undecodable)? {
                    elements.extend(more);
                }
                Ok(())
            })?;
            match answer.refused {
                None => {
                    once(&mut elements);
                    // Which rules change it is not known.
                    let looks = looks_at(&set, Some(false), count, &elements, answer.parts);
                    doubt = (looks == NEVER).then(|| miscounted(&set, count, &elements));
                    Ok((Some(Told { set, elements, begun }), (!answer.interrupted).then_some(looks)))
                }
                Some(refused) if refused.errno == libc::ENOENT => Ok((None, Some(1))),
                Some(refused) => {
                    Err(refusal::of_question(&format!("list elements of set {table} {}", set.name), &refused))
                }
            }
        });
        Ok(told.map_err(|error| doubted(error, doubt))?.map(|told| told.elements))
    }
}

/// How many looks in a row must tell the same of a set, which the kernel counts so many elements of, and told of in so many datagrams.
///
/// `changed` says whether rules change it, and whether they take elements out.
pub(super) fn looks_at(set: &Set, changed: Option<bool>, count: Option<u32>, told: &[Element], parts: usize) -> usize {
    // One for all keys is not counted.
    let told = told.iter().filter(|element| !element.catch_all).count();
    match count.map(|count| count as usize) {
        _ if parts <= 1 => 1,
        Some(count) if count == told => 1,
        // Rules have added some since it was counted.
        Some(count) if count < told && changed.is_some() => 1,
        // In a tree, starts and ends of intervals are counted as half a one each, and what is left over is not. Intervals are
        // kept in one, and so may be single elements where memory is dear.
        Some(count) if (set.flags.interval || set.policy == SetPolicy::Memory) && count == told / 2 => 2,
        Some(_) if !set.flags.interval && !set.flags.timeout && changed != Some(true) => NEVER,
        _ => LOOKS,
    }
}

/// That the kernel counts another number of elements than it told of.
pub(super) fn miscounted(set: &Set, count: Option<u32>, told: &[Element]) -> String {
    let (told, count) = (told.iter().filter(|element| !element.catch_all).count(), count.unwrap_or_default());
    format!("it told of {told} elements of set {} {}, and counts {count}", set.table, set.name)
}

/// Leaves one of each element. A set that is being made larger is told in part twice.
pub(super) fn once(elements: &mut Vec<Element>) {
    let mut known = HashSet::with_capacity(elements.len());
    let first: Vec<bool> = elements.iter().map(|element| known.insert(element.place())).collect();
    if known.len() < first.len() {
        let mut first = first.into_iter();
        elements.retain(|_| first.next().unwrap_or(true));
    }
}

/// Whether these are the same elements, in whatever order, as far as time alone does not take them away: those that have little left may be there
/// or not, and what ends a range goes with what begins it.
pub(super) fn same_elements(a: &[Element], b: &[Element]) -> bool {
    let timed = a.iter().chain(b).any(|element| element.expires.is_some());
    let stays = |element: &&Element| !(timed && element.interval_end) && element.expires.is_none_or(|left| left > SOON);
    let places: HashSet<_> = a.iter().filter(stays).map(Element::place).collect();
    b.iter().filter(stays).count() == places.len()
        && b.iter().filter(stays).all(|element| places.contains(&element.place()))
}

/// Whether a look at a set that rules add to has everything of the one before, which began so long ago, and no more than could be added since.
pub(super) fn nothing_lost(set: &Set, before: &[Element], after: &[Element], since: Duration) -> bool {
    let earlier: HashSet<_> = before.iter().map(Element::place).collect();
    let later: HashSet<_> = after.iter().map(Element::place).collect();
    let stays = |element: &&Element| element.expires.is_none_or(|left| left > SOON);
    let young = |element: &Element| match (element.timeout.or(set.timeout), element.expires) {
        (Some(whole), Some(left)) => whole.saturating_sub(left) <= since + TICKS,
        _ => true,
    };
    before.iter().filter(stays).all(|element| later.contains(&element.place()))
        && after.iter().all(|element| earlier.contains(&element.place()) || young(element))
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;
    use crate::nft::{Data, Datatype, Family, KeyType, TableName};

    fn set() -> Set {
        let table = TableId { family: Family::Inet, name: TableName::new("t").unwrap() };
        Set::new(&table, &SetName::new("s").unwrap(), KeyType(vec![Datatype::InetService]))
    }

    #[test]
    fn what_is_counted_decides_how_often_it_is_looked_at() {
        let told: Vec<_> = (0..9).map(|key| Element::new(Data::be16(key))).collect();
        let mut timed = set();
        timed.flags.timeout = true;
        let of = |set: &Set, changed, count| looks_at(set, changed, count, &told, 2);
        for changed in [None, Some(false), Some(true)] {
            assert_eq!(of(&set(), changed, Some(9)), 1);
            assert_eq!(looks_at(&set(), changed, Some(100), &told, 1), 1);
            // A kernel that does not count.
            assert_eq!(of(&set(), changed, None), LOOKS);
            assert_eq!(of(&timed, changed, Some(10)), LOOKS);
        }
        // Packets add some meanwhile; only where they take some out there may be fewer than were counted.
        assert_eq!([None, Some(false), Some(true)].map(|changed| of(&set(), changed, Some(8))), [NEVER, 1, 1]);
        assert_eq!([None, Some(false), Some(true)].map(|changed| of(&set(), changed, Some(10))), [NEVER, NEVER, LOOKS]);
    }

    #[test]
    fn packets_add_what_is_new_and_nothing_else() {
        let minute = Duration::from_secs(60);
        let of = |key: u16, left: Option<Duration>| Element {
            timeout: left.map(|_| 60 * minute),
            expires: left,
            ..Element::new(Data::be16(key))
        };
        let second = Duration::from_secs(1);
        let lost = |before: &[Element], after: &[Element]| !nothing_lost(&set(), before, after, second);
        let whole = Some(60 * minute);
        let old = of(1, Some(10 * minute));
        assert!(!lost(from_ref(&old), &[of(2, whole), old.clone()]));
        assert!(!lost(from_ref(&old), &[of(2, Some(60 * minute - second)), old.clone()]));
        // It was there before, so the look before had a hole.
        assert!(lost(from_ref(&old), &[of(2, Some(59 * minute)), old.clone()]));
        assert!(lost(&[old.clone(), of(2, whole)], from_ref(&old)));
        // What may have run out, and what has no time.
        assert!(!lost(&[old.clone(), of(2, Some(second))], from_ref(&old)));
        assert!(!lost(from_ref(&old), &[old.clone(), of(3, None)]));
        assert!(lost(&[old.clone(), of(3, None)], from_ref(&old)));
    }

    #[test]
    fn elements_are_the_same_in_whatever_order() {
        let element = |byte| Element::new(Data::new(&[byte]).unwrap());
        let (a, b) = (element(1), Element { interval_end: true, ..element(1) });
        assert!(same_elements(&[a.clone(), b.clone()], &[b.clone(), a.clone()]));
        assert!(!same_elements(from_ref(&a), from_ref(&b)));
        assert!(!same_elements(from_ref(&a), &[a.clone(), b]));
    }

    #[test]
    fn what_time_takes_away_makes_no_difference() {
        let of = |key: u16, seconds: Option<u64>| Element {
            expires: seconds.map(Duration::from_secs),
            ..Element::new(Data::be16(key))
        };
        let end = |key| Element { interval_end: true, ..of(key, None) };
        let before = [of(1, None), of(2, Some(3600)), of(3, Some(2)), end(4)];
        assert!(same_elements(&before, &[of(2, Some(3599)), of(1, None)]));
        assert!(!same_elements(&before, &[of(1, None), of(3, Some(1)), end(4)]));
        assert!(!same_elements(&before, &[of(2, Some(3600)), of(5, None)]));
        // Where nothing runs out, everything counts.
        assert!(!same_elements(&[of(1, None), end(4)], &[of(1, None)]));
    }
}
