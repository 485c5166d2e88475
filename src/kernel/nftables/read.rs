//! Reads: tables, sets, chains, rules and elements, as they were at one moment.

use std::collections::HashSet;

use super::ask::Answer;
use super::elements::once;
use super::whole::{NEVER, Seen};
use super::{ATTEMPTS, Socket, refusal, verify};
use crate::kernel::refusal::undecodable;
use crate::nft::{Chain, Element, Object, Ruleset, Table, TableId, forget_sizes_of_filled};
use crate::wire::netlink::DecodeError;
use crate::wire::nftables::{self, Request};
use crate::{Error, ErrorKind, Result};

impl Socket {
    /// Reads one table with everything in it, as it was at one moment. `None` when it is not there.
    ///
    /// Counters have their values of that moment, rules their handles.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] when something in it has a name that is no UTF-8,
    /// [`ErrorKind::Conflict`] when the ruleset kept changing while it was read,
    /// [`ErrorKind::Unsupported`] when it has a rule that the kernel can't tell of, and as [`Self::generation`].
    pub fn table(&mut self, id: &TableId) -> Result<Option<Ruleset>> {
        let alike = |a: &Option<Seen>, b: &Option<Seen>| match (a, b) {
            (Some(a), Some(b)) => a.alike(b),
            (a, b) => a.is_none() && b.is_none(),
        };
        let judge = |socket: &mut Self, seen: &Option<Seen>| {
            seen.as_ref().map_or(Ok(()), |seen| socket.has_room_for_all(seen, false))
        };
        let mut doubt = None;
        let seen = self.snapshot(alike, judge, |socket| {
            let (seen, looks) = socket.whole_table(id)?;
            doubt = seen.as_ref().filter(|_| looks == Some(NEVER)).and_then(Seen::doubt);
            Ok((seen, looks))
        });
        Ok(seen.map_err(|error| doubted(error, doubt))?.map(|seen| seen.ruleset))
    }

    /// Reads what there is of some tables, in bounded time whatever others do: it looks once, and takes no more datagrams than `most`.
    ///
    /// What others change or prepare meanwhile is seen or not. The socket is used up, for a dump may be left unfinished in it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`] when there is more than that, or when not all rules were told, and as [`Self::table`].
    pub fn glimpse<'a>(mut self, tables: impl IntoIterator<Item = &'a TableId>, most: usize) -> Result<Ruleset> {
        self.left = most;
        let mut have = Ruleset::default();
        for id in tables {
            let (Some(seen), _) = self.whole_table(id)? else { continue };
            if !seen.counts_agree() {
                let what = format!("not all rules of table {id} were told");
                return Err(Error::new(ErrorKind::Conflict, what));
            }
            let there = seen.ruleset;
            have.tables.extend(there.tables);
            have.chains.extend(there.chains);
            have.objects.extend(there.objects);
            have.flowtables.extend(there.flowtables);
            have.sets.extend(there.sets);
            have.elements.extend(there.elements);
            have.rules.extend(there.rules);
        }
        Ok(have)
    }

    fn whole_table(&mut self, id: &TableId) -> Result<(Option<Seen>, Option<usize>)> {
        let mut seen = None;
        let answer = self.ask(Request::table(id), false, |message| {
            if let Object::Table(table) = nftables::decode(message).map_err(undecodable)? {
                seen.insert(Seen::default()).table(table, nftables::count(message).map_err(undecodable)?);
            }
            Ok(())
        })?;
        match (answer.refused, seen) {
            (Some(refused), _) if refused.errno == libc::ENOENT => Ok((None, Some(1))),
            (Some(refused), _) => Err(refusal::of_question(&format!("read table {id}"), &refused)),
            (None, Some(mut seen)) => {
                let complete = self.contents(Some(id), &mut seen)?;
                let looks = complete.then(|| seen.looks());
                Ok((Some(seen), looks))
            }
            (None, None) => Err(Error::new(ErrorKind::Decode, format!("the answer about table {id} holds no table"))),
        }
    }

    /// Reads what tables there are, of every family.
    ///
    /// # Errors
    ///
    /// As [`Self::table`].
    pub fn tables(&mut self) -> Result<Vec<Table>> {
        let alike =
            |a: &Vec<Table>, b: &Vec<Table>| a.iter().map(|table| &table.id).eq(b.iter().map(|table| &table.id));
        self.snapshot(alike, passed, |socket| {
            let mut tables = Vec::new();
            let answer = socket.dump_tables(|table, _| tables.push(table))?;
            Ok((tables, answer.looks()))
        })
    }

    /// Reads what chains there are, of every table, and not what rules are in them.
    ///
    /// Those that the [`nft`](crate::nft) types have no word for, as other people's may be, come as the reason why.
    ///
    /// # Errors
    ///
    /// As [`Self::tables`].
    pub fn chains(&mut self) -> Result<Vec<Result<Chain, DecodeError>>> {
        self.snapshot(
            |a: &Vec<_>, b| same_chains(a, b),
            passed,
            |socket| {
                let mut chains = Vec::new();
                let answer = socket.ask(Request::chains(None), true, |message| {
                    match nftables::decode(message) {
                        Ok(Object::Chain(chain)) => chains.push(Ok(chain)),
                        Ok(_) => {}
                        Err(error) => chains.push(Err(error)),
                    }
                    Ok(())
                })?;
                match answer.refused {
                    Some(refused) => Err(refusal::of_question("list chains", &refused)),
                    None => Ok((chains, answer.looks())),
                }
            },
        )
    }

    /// Reads every table with everything in it, as it was at one moment.
    ///
    /// # Errors
    ///
    /// As [`Self::table`]. Where the kernel can't tell of a rule, it is looked for, for some seconds, to name its handle.
    pub fn ruleset(&mut self) -> Result<Ruleset> {
        let judge = |socket: &mut Self, seen: &Seen| socket.has_room_for_all(seen, true);
        let mut doubt = None;
        let seen = self.snapshot(Seen::alike, judge, |socket| {
            let mut seen = Seen::default();
            let tables = socket.dump_tables(|table, count| seen.table(table, count))?;
            let complete = socket.contents(None, &mut seen)?;
            let looks = tables.looks().filter(|_| complete).map(|looks| looks.max(seen.looks()));
            doubt = Some(&seen).filter(|_| looks == Some(NEVER)).and_then(Seen::doubt);
            Ok((seen, looks))
        });
        Ok(seen.map_err(|error| doubted(error, doubt))?.ruleset)
    }

    /// Reads every table of `want` back and compares it, whole: a table that holds more than was wanted differs too.
    ///
    /// The order of rules counts. The order of elements, handles, and what counters and quotas have counted do not; timeouts may differ by
    /// what the kernel's clock rounds. Of a dynamic set without wanted elements none is unwanted: packets add them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Verify`], naming the first difference, and as [`Self::table`].
    pub fn verify(&mut self, want: &Ruleset) -> Result<()> {
        for table in &want.tables {
            let difference = match self.table(&table.id)? {
                Some(have) => verify::difference(&table.id, want, &have),
                None => Some(format!("table {} is not there", table.id)),
            };
            if let Some(difference) = difference {
                return Err(Error::new(ErrorKind::Verify, difference));
            }
        }
        Ok(())
    }

    /// Reads under a generation that is the same before and after, or again. Every look says how many like it, in a row, are needed to be
    /// believed; what they tell is judged once more in the end.
    ///
    /// Who prepares a transaction and gives it up, as `nft -c` does, makes no generation, and moves what a dump counts its place by: things are told
    /// twice then, or not at all.
    pub(super) fn snapshot<T>(
        &mut self,
        alike: impl Fn(&T, &T) -> bool,
        judge: impl Fn(&mut Self, &T) -> Result<()>,
        mut read: impl FnMut(&mut Self) -> Result<(T, Option<usize>)>,
    ) -> Result<T> {
        let mut before_that: Option<(T, usize)> = None;
        for _ in 0..ATTEMPTS {
            // Seen at any time before: the same number afterwards means that nothing has changed since then, so not during the read.
            let before = self.last_seen()?;
            let mut outcome = read(self).map(|(value, looks)| {
                let last = before_that.take().filter(|(last, _)| alike(last, &value));
                (value, last.map_or(1, |(_, row)| row + 1), looks)
            });
            let believed = matches!(outcome, Ok((_, row, Some(looks))) if row >= looks);
            if believed && let Ok((value, ..)) = &outcome {
                let judged = judge(self, value);
                outcome = judged.and(outcome);
            }
            // An object may vanish between the list that names it and the question about it: that is a change as well.
            let same = self.generation()? == before;
            match outcome {
                Ok((value, ..)) if same && believed => return Ok(value),
                Ok((value, row, Some(_))) if same => before_that = Some((value, row)),
                Err(error) if same => return Err(error),
                _ => {}
            }
        }
        Err(Error::new(ErrorKind::Conflict, "the ruleset kept changing, or being about to, while it was read"))
    }

    fn dump_tables(&mut self, mut each: impl FnMut(Table, Option<u32>)) -> Result<Answer> {
        let mut known = HashSet::new();
        self.dump_messages(Request::tables(), "tables", |object, message| {
            if let Object::Table(table) = object
                && known.insert(table.id.clone())
            {
                each(table, nftables::count(message).map_err(undecodable)?);
            }
            Ok(())
        })
    }

    /// Adds sets, chains, elements and rules, of one table or of all. Tells whether no dump was interrupted.
    fn contents(&mut self, id: Option<&TableId>, seen: &mut Seen) -> Result<bool> {
        // Kernels filter dumps by family alone, or by table too, depending on the object and their age.
        let wanted = |table: &TableId| id.is_none_or(|id| id == table);
        // The kernel goes on with a dump behind as many objects as it has told, and counts objects of a transaction that is not committed yet among
        // them: some are told twice then, without a word of warning.
        let (mut known_sets, mut known_chains, mut known_rules) = (HashSet::new(), HashSet::new(), HashSet::new());
        let (mut known_objects, mut known_flowtables) = (HashSet::new(), HashSet::new());
        let sets = self.dump_messages(Request::sets(id), "sets", |object, message| {
            if let Object::Set(set) = object
                && wanted(&set.table)
                && known_sets.insert((set.table.clone(), set.name.clone()))
            {
                seen.set(set, nftables::count(message).map_err(undecodable)?);
            }
            Ok(())
        })?;
        let chains = self.dump_messages(Request::chains(id), "chains", |object, message| {
            if let Object::Chain(chain) = object
                && wanted(&chain.table)
                && known_chains.insert((chain.table.clone(), chain.name.clone()))
            {
                seen.chain(chain, nftables::count(message).map_err(undecodable)?);
            }
            Ok(())
        })?;
        let Ruleset { rules, objects, flowtables, .. } = &mut seen.ruleset;
        let mut interrupted = sets.interrupted | chains.interrupted;
        interrupted |= self.dump(Request::rules(id), "rules", |object| {
            if let Object::Rule(rule) = object
                && wanted(&rule.table)
                && known_rules.insert((rule.table.clone(), rule.handle))
            {
                rules.push(rule);
            }
        })?;
        interrupted |= self.dump(Request::objects(id), "stateful objects", |object| {
            if let Object::Stateful(object) = object
                && wanted(&object.table)
                && known_objects.insert((object.table.clone(), object.name.clone(), object.state.kind()))
            {
                objects.push(object);
            }
        })?;
        interrupted |= self.dump(Request::flowtables(id), "flowtables", |object| {
            if let Object::Flowtable(flowtable) = object
                && wanted(&flowtable.table)
                && known_flowtables.insert((flowtable.table.clone(), flowtable.name.clone()))
            {
                flowtables.push(flowtable);
            }
        })?;
        seen.find_changed();
        for place in 0..seen.ruleset.sets.len() {
            let set = &seen.ruleset.sets[place];
            let (table, name) = (set.table.clone(), set.name.clone());
            let mut all: Vec<Element> = Vec::new();
            let answer = self.dump_messages(Request::elements(&table, &name), "elements", |object, _| {
                if let Object::Elements { elements, .. } = object {
                    all.extend(elements);
                }
                Ok(())
            })?;
            interrupted |= answer.interrupted;
            once(&mut all);
            seen.elements(place, all, answer.parts);
        }
        forget_sizes_of_filled(&mut seen.ruleset);
        Ok(!interrupted)
    }
}

/// That a ruleset kept changing, with what the last look was doubted for.
pub(super) fn doubted(error: Error, doubt: Option<String>) -> Error {
    match doubt {
        Some(doubt) if error.kind() == ErrorKind::Conflict => {
            let what = format!("the kernel does not count what it tells: {doubt}");
            Error::new(ErrorKind::Conflict, what).hint("others may be changing the ruleset, or about to, without pause")
        }
        _ => error,
    }
}

/// Of what is believed as it was told.
pub(super) fn passed<T>(_: &mut Socket, _: &T) -> Result<()> {
    Ok(())
}

fn same_chains(a: &[Result<Chain, DecodeError>], b: &[Result<Chain, DecodeError>]) -> bool {
    let named =
        |chain: &Result<Chain, DecodeError>| chain.as_ref().ok().map(|chain| (chain.table.clone(), chain.name.clone()));
    a.iter().map(named).eq(b.iter().map(named))
}
