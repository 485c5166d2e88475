//! What the rules inside should be now, whether they are, and how they become that again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::Result;
use crate::kernel::netns::Netns;
use crate::kernel::nftables::{Change, Socket};
use crate::nft::{Data, Element, Object, Ruleset, Table, Transaction, Verb, diff};
use crate::plan::{SLACK, elements_inside};

use super::{State, Turn};

/// How far the kernel's clock of an element may be from ours: as long as a commit may take on a machine that is busy.
const DRIFT: Duration = Duration::from_secs(10);

/// How often a difference has to be read before it is believed. A transaction of somebody else's that is given up during a dump leaves objects out of
/// it.
const LOOKS: usize = 3;

/// How many datagrams of 32 KiB a look at the rules may take, beside those of what is promised. Whoever fills the tables, to keep mending busy with
/// reading, gets them made anew.
const GLIMPSE: usize = 256;

/// How many elements are in each of them, at least.
const IN_DATAGRAM: usize = 64;

impl Turn {
    /// Says whether somebody else changed the rules inside, and which of what was heard tells of it: none where only a look at the
    /// rules does. Blocks.
    ///
    /// `want` is the fence as it was committed, without elements.
    pub(in crate::sandbox) fn tampered<'a>(mut self, want: &Ruleset, heard: &'a [Change]) -> Option<Vec<&'a Change>> {
        // Every commit of our own was noted in its turn.
        let rules = &self.inside().ok()?.rules;
        let (mut theirs, mut doubtful) = (Vec::new(), false);
        for change in heard {
            match change {
                Change::Committed { port, .. } if *port != rules.port() => theirs.push(change),
                Change::Committed { generation, .. } if rules.made(*generation) => {}
                // One whose answer was lost, or somebody has our socket.
                Change::Committed { .. } | Change::Lost => doubtful = true,
            }
        }
        if !theirs.is_empty() {
            return Some(theirs);
        }
        if !doubtful {
            return None;
        }
        for _ in 0..LOOKS {
            // What can't be read is not what was written.
            if self.difference(want).is_ok_and(|steps| steps.operations().is_empty()) {
                return None;
            }
        }
        Some(theirs)
    }

    /// Makes the rules inside what they should be, in one transaction. Blocks.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) when somebody else owns the table, or as
    /// [`Socket::commit`].
    pub(in crate::sandbox) fn mend(mut self, want: &Ruleset) -> Result<()> {
        let steps = self.difference(want);
        let rules = &mut self.inside()?.rules;
        if steps.is_ok_and(|steps| steps.operations().is_empty() || rules.commit(&steps).is_ok()) {
            return Ok(());
        }
        // Somebody was faster, and what was to be mended is not there any more; or it can't even be read. Made anew it does not matter what is there.
        let mut anew = Transaction::new();
        for table in &want.tables {
            anew.push(Verb::Add, Object::Table(Table::new(table.id.clone())));
            anew.push(Verb::Delete, Object::Table(Table::new(table.id.clone())));
        }
        let whole = self.live.state().now(want, &Ruleset::default())?;
        whole.into_transaction().operations().iter().for_each(|step| anew.push(step.verb, step.object.clone()));
        self.inside()?.rules.commit(&anew).map(drop)
    }

    /// What it takes to make the rules inside what they should be.
    fn difference(&mut self, want: &Ruleset) -> Result<Transaction> {
        let promised = elements_inside(&self.live.state().book.promised(Instant::now()))?;
        let promised: usize = promised.iter().map(|(_, elements)| elements.len()).sum();
        // A socket of its own, for what is left in it of a look that was given up.
        let look = Netns::of_socket(&self.inside()?.rules)?.run(Socket::open)??;
        let have = look.glimpse(want.tables.iter().map(|table| &table.id), GLIMPSE + promised / IN_DATAGRAM)?;
        Ok(diff(&have, &self.live.state().now(want, &have)?))
    }
}

impl State {
    /// The rules as they should be now. Of elements that are there and run out when they should, it has what is there.
    fn now(&self, want: &Ruleset, have: &Ruleset) -> Result<Ruleset> {
        let now = Instant::now();
        let mut want = want.clone();
        for (name, mut elements) in elements_inside(&self.book.promised(now))? {
            let Some(set) = want.sets.iter().find(|set| set.name == name) else { continue };
            let of_set = have.elements.iter().filter(|(table, other, _)| (table, other) == (&set.table, &name));
            let there: HashMap<&Data, &Element> =
                of_set.flat_map(|(.., elements)| elements.iter().map(|element| (&element.key, element))).collect();
            elements.retain_mut(|element| match there.get(&element.key) {
                Some(there) if as_promised(element, there) => {
                    *element = (*there).clone();
                    true
                }
                Some(_) => true,
                // What has run out as promised stays closed.
                None => element.timeout.is_none_or(|left| left > SLACK + Duration::from_millis(1)),
            });
            want.elements.push((set.table.clone(), name, elements));
        }
        Ok(want)
    }
}

/// Whether an element that is there runs out when the promised one would.
fn as_promised(promised: &Element, there: &Element) -> bool {
    match (promised.timeout, there.timeout) {
        (None, None) => true,
        (Some(left), Some(all)) => there.expires.unwrap_or(all).abs_diff(left) <= DRIFT,
        _ => false,
    }
}
