//! What of a ruleset is compared: not what the kernel counts, and what was not said as the kernel makes it.

use std::collections::HashSet;
use std::time::Duration;

use super::{
    Chain, ChainPolicy, CtExpectation, CtHelper, Element, Expr, Flowtable, Limit, Log, LogLevel, Rule, Ruleset, Set,
    SetName, State, StatefulObject, TableId,
};

/// What the kernel makes of a burst of 0: `NFT_LIMIT_PKT_BURST_DEFAULT`.
const DEFAULT_BURST: u32 = 5;

/// What the kernel makes of the size of a set that says none, once a rule fills it.
const DEFAULT_SIZE: u32 = 65_535;

/// Whole ticks of a clock that ticks 100, 250, 300 or 1000 times a second, in milliseconds.
const TICKS: u128 = 20;

/// A time-out as it may be compared. The kernel cuts off what is no whole tick of its clock, but for the first: rounded down to whole ticks
/// of every clock, what was wanted and what was made of it are the same.
fn ticked(timeout: Duration) -> Option<Duration> {
    // What is sent is whole milliseconds.
    let sent = timeout.as_nanos().div_ceil(1_000_000);
    let rounded = u64::try_from((sent / TICKS).max(1) * TICKS).unwrap_or(u64::MAX);
    (sent > 0).then(|| Duration::from_millis(rounded))
}

fn still_limit(limit: &mut Limit) {
    if let Limit { burst: burst @ 0, bytes: false, .. } = limit {
        *burst = DEFAULT_BURST;
    }
}

fn still_expr(expr: &mut Expr) {
    match expr {
        Expr::Counter { packets, bytes } => (*packets, *bytes) = (0, 0),
        Expr::Quota(quota) => quota.used = 0,
        Expr::Last { set, milliseconds } => (*set, *milliseconds) = (false, 0),
        Expr::Dynset(dynset) => {
            dynset.timeout = dynset.timeout.and_then(ticked);
            dynset.exprs.iter_mut().for_each(still_expr);
        }
        Expr::Log(Log { queue_threshold: threshold @ Some(0), .. }) => *threshold = None,
        Expr::Syslog(syslog) => syslog.level = syslog.level.or(Some(LogLevel::Warning)),
        Expr::Nat(nat) => {
            // Set by the kernel where there are addresses and ports.
            nat.flags.0 |= u32::from(nat.addresses.is_some()) | u32::from(nat.ports.is_some()) << 1;
        }
        Expr::Limit(limit) => still_limit(limit),
        _ => {}
    }
}

/// A rule without its numbers.
pub(crate) fn still_rule(rule: &Rule) -> Rule {
    let mut rule = Rule { handle: None, position: None, ..rule.clone() };
    rule.exprs.iter_mut().for_each(still_expr);
    rule
}

/// A chain. Devices have no order.
pub(crate) fn still_chain(chain: &Chain) -> Chain {
    let mut chain = chain.clone();
    if let Some(base) = &mut chain.base {
        base.devices.sort();
    }
    chain
}

/// A chain without what can be changed: its policy.
pub(super) fn fixed_chain(chain: &Chain) -> Chain {
    let mut chain = still_chain(chain);
    if let Some(base) = &mut chain.base {
        base.policy = ChainPolicy::Accept;
    }
    chain
}

/// Sets that some of the rules fill.
pub(crate) fn filled<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> HashSet<&'a SetName> {
    let by = |expr: &'a Expr| match expr {
        Expr::Dynset(dynset) => Some(&dynset.set),
        _ => None,
    };
    rules.into_iter().flat_map(|rule| &rule.exprs).filter_map(by).collect()
}

/// Leaves out the size that the kernel gave to sets that rules fill, for it does so again once there is such a rule.
///
/// Told that size beforehand, it keeps a set that is not `dynamic` in a table of fixed size, which no rule can fill; nft(8) makes such maps.
/// And a set that had more elements before there was the rule would have no room for them.
pub(crate) fn forget_sizes_of_filled(ruleset: &mut Ruleset) {
    let by = |rule| filled([rule]).into_iter().map(move |set| (&rule.table, set));
    let filled: HashSet<(&TableId, &SetName)> = ruleset.rules.iter().flat_map(by).collect();
    let full = ruleset.elements.iter().filter(|(.., all)| all.len() > DEFAULT_SIZE as usize);
    let full: HashSet<(&TableId, &SetName)> = full.map(|(table, set, _)| (table, set)).collect();
    for set in &mut ruleset.sets {
        let known = (&set.table, &set.name);
        let unwanted = !set.flags.dynamic || full.contains(&known);
        if set.size == Some(DEFAULT_SIZE) && filled.contains(&known) && unwanted {
            set.size = None;
        }
    }
}

/// A set. `filled` says whether a wanted rule fills it.
pub(crate) fn still_set(set: &Set, filled: bool) -> Set {
    let mut set = set.clone();
    set.exprs.iter_mut().for_each(still_expr);
    set.timeout = set.timeout.and_then(ticked);
    set.size = set.size.filter(|size| *size > 0).or((set.flags.dynamic || filled).then_some(DEFAULT_SIZE));
    set
}

/// How long an element lives, if it ever runs out. An end of a range does so with its start.
fn life(set: &Set, element: &Element) -> Option<Duration> {
    element.timeout.or(set.timeout).filter(|_| !element.interval_end).and_then(ticked)
}

/// An element of a set, which gives it the set's time-out and expressions where it has none of its own.
pub(super) fn still_element(set: &Set, element: &Element) -> Element {
    let mut element = Element { timeout: life(set, element), expires: None, ..element.clone() };
    if element.exprs.is_empty() && !element.interval_end {
        element.exprs.clone_from(&set.exprs);
    }
    element.exprs.iter_mut().for_each(still_expr);
    element
}

/// Whether two elements of a place in a set are the same.
pub(crate) fn same_element(set: &Set, a: &Element, b: &Element) -> bool {
    // Few have expressions, and there may be a great many of the others.
    if set.exprs.is_empty() && a.exprs.is_empty() && b.exprs.is_empty() {
        (&a.data, &a.comment, &a.extra) == (&b.data, &b.comment, &b.extra) && life(set, a) == life(set, b)
    } else {
        still_element(set, a) == still_element(set, b)
    }
}

fn still_object(object: &StatefulObject) -> StatefulObject {
    let mut object = object.clone();
    match &mut object.state {
        State::Counter { packets, bytes } => (*packets, *bytes) = (0, 0),
        State::Quota(quota) => quota.used = 0,
        State::Limit(limit) => still_limit(limit),
        State::CtHelper(CtHelper { l3proto, .. }) | State::CtExpectation(CtExpectation { l3proto, .. }) => {
            *l3proto = l3proto.or(Some(object.table.family.to_wire().into()));
        }
        _ => {}
    }
    object
}

/// Whether an object is what was wanted. The kernel gives a time-out policy its own times for the states that were not named.
pub(crate) fn same_object(have: &StatefulObject, want: &StatefulObject) -> bool {
    let (mut have, mut want) = (still_object(have), still_object(want));
    if let (State::CtTimeout(have), State::CtTimeout(want)) = (&mut have.state, &mut want.state) {
        have.seconds.retain(|(state, _)| want.seconds.iter().any(|(named, _)| named == state));
        have.seconds.sort_unstable();
        want.seconds.sort_unstable();
    }
    have == want
}

/// A flowtable. Devices have no order.
pub(crate) fn still_flowtable(flowtable: &Flowtable) -> Flowtable {
    let mut flowtable = flowtable.clone();
    flowtable.devices.sort();
    flowtable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_the_same_before_and_after_the_kernel_counted_it_in_ticks() {
        for hertz in [100_u128, 250, 300, 1000] {
            for milliseconds in (0..3_000_u64).chain(3_600_000..3_600_100) {
                let ticks = u128::from(milliseconds) * hertz / 1000;
                let made = match (milliseconds, ticks) {
                    (0, _) => None,
                    (_, ticks) => Some(u64::try_from(ticks.max(1) * 1000 / hertz).unwrap()),
                };
                let made = made.map(Duration::from_millis);
                assert_eq!(ticked(Duration::from_millis(milliseconds)), made.and_then(ticked), "{milliseconds} ms");
            }
        }
        assert_eq!(ticked(Duration::from_micros(59_999_500)), Some(Duration::from_secs(60)));
        assert_eq!(ticked(Duration::MAX), Some(Duration::from_millis(u64::MAX)));
        assert_ne!(ticked(Duration::from_secs(60)), ticked(Duration::from_secs(61)));
    }
}
