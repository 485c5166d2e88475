//! Reads: tables, sets, chains, rules and elements, as they were at one moment.

use std::collections::HashSet;

use super::whole::Uses;
use super::{ATTEMPTS, MAX_DATAGRAMS, Received, Socket, refusal, verify};
use crate::kernel::refusal::undecodable;
use crate::nft::{Chain, ChainName, Element, Handle, Object, Rule, Ruleset, SetName, StatefulObject, Table, TableId};
use crate::wire::netlink::{self, Acknowledgement, DecodeError, Message};
use crate::wire::nftables::{self, Request};
use crate::{Error, ErrorKind, Result};

/// How the kernel answered a question.
pub(super) struct Answer {
    /// The ruleset changed meanwhile, or part of the answer was lost.
    pub interrupted: bool,
    pub refused: Option<Acknowledgement>,
}

impl Socket {
    /// Reads one table with everything in it, as it was at one moment. `None` when it is not there.
    ///
    /// Counters have their values of that moment, rules their handles.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] when something in it has a name that is no UTF-8,
    /// [`ErrorKind::Conflict`] when the ruleset kept changing while it was read, and as [`Self::generation`].
    pub fn table(&mut self, id: &TableId) -> Result<Option<Ruleset>> {
        self.snapshot(|socket| socket.whole_table(id))
    }

    /// [`Self::table`], were it not for others: what they change meanwhile, in this table or elsewhere, is seen or not.
    ///
    /// Whoever commits without pause can't keep this from an answer.
    ///
    /// # Errors
    ///
    /// As [`Self::table`], without the conflict.
    pub fn glimpse(&mut self, id: &TableId) -> Result<Option<Ruleset>> {
        self.whole_table(id).map(|(table, _)| table)
    }

    fn whole_table(&mut self, id: &TableId) -> Result<(Option<Ruleset>, bool)> {
        let mut table = None;
        let answer = self.ask(Request::table(id), false, |message| {
            table = Some(nftables::decode(message).map_err(undecodable)?);
            Ok(())
        })?;
        match (answer.refused, table) {
            (Some(refused), _) if refused.errno == libc::ENOENT => Ok((None, false)),
            (Some(refused), _) => Err(refusal::of_question(&format!("read table {id}"), &refused)),
            (None, Some(Object::Table(table))) => {
                let mut ruleset = Ruleset { tables: vec![table], ..Ruleset::default() };
                let interrupted = self.contents(Some(id), &mut ruleset)?;
                Ok((Some(ruleset), interrupted))
            }
            (None, _) => Err(Error::new(ErrorKind::Decode, format!("the answer about table {id} holds no table"))),
        }
    }

    /// Reads what tables there are, of every family.
    ///
    /// # Errors
    ///
    /// As [`Self::table`].
    pub fn tables(&mut self) -> Result<Vec<Table>> {
        self.snapshot(|socket| {
            let mut tables = Vec::new();
            let interrupted = socket.dump_tables(&mut tables)?;
            Ok((tables, interrupted))
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
        self.snapshot(|socket| {
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
                None => Ok((chains, answer.interrupted)),
            }
        })
    }

    /// Reads the elements of one set. `None` when the set or its table is not there.
    ///
    /// # Errors
    ///
    /// As [`Self::table`].
    pub fn elements(&mut self, table: &TableId, set: &SetName) -> Result<Option<Vec<Element>>> {
        self.snapshot(|socket| {
            let mut all = Vec::new();
            let answer = socket.ask(Request::elements(table, set), true, |message| {
                if let Object::Elements { elements, .. } = nftables::decode(message).map_err(undecodable)? {
                    all.extend(elements);
                }
                Ok(())
            })?;
            match answer.refused {
                None => Ok((Some(all), answer.interrupted)),
                Some(refused) if refused.errno == libc::ENOENT => Ok((None, false)),
                Some(refused) => Err(refusal::of_question(&format!("list elements of set {table} {set}"), &refused)),
            }
        })
    }

    /// Reads every table with everything in it, as it was at one moment.
    ///
    /// # Errors
    ///
    /// As [`Self::table`].
    pub fn ruleset(&mut self) -> Result<Ruleset> {
        self.snapshot(|socket| {
            let mut ruleset = Ruleset::default();
            let interrupted = socket.dump_tables(&mut ruleset.tables)?;
            let more = socket.contents(None, &mut ruleset)?;
            Ok((ruleset, interrupted | more))
        })
    }

    /// Reads the stateful objects of a table and starts their counts anew.
    ///
    /// # Errors
    ///
    /// As [`Self::table`].
    #[doc(alias = "NFT_MSG_GETOBJ_RESET")]
    pub fn reset_objects(&mut self, table: &TableId) -> Result<Vec<StatefulObject>> {
        let mut objects = Vec::new();
        self.dump(Request::objects_reset(table), "stateful objects", |object| {
            if let Object::Stateful(object) = object
                && object.table == *table
            {
                objects.push(object);
            }
        })?;
        Ok(objects)
    }

    /// Reads the rules of a table and starts their counters and quotas anew.
    ///
    /// # Errors
    ///
    /// As [`Self::table`].
    ///
    /// # Kernel
    ///
    /// Linux 6.2.
    #[doc(alias = "NFT_MSG_GETRULE_RESET")]
    pub fn reset_rules(&mut self, table: &TableId) -> Result<Vec<Rule>> {
        let mut rules = Vec::new();
        self.dump(Request::rules_reset(table), "rules", |object| {
            if let Object::Rule(rule) = object
                && rule.table == *table
            {
                rules.push(rule);
            }
        })?;
        Ok(rules)
    }

    /// Reads the elements of a set and starts their counters and quotas anew.
    ///
    /// # Errors
    ///
    /// As [`Self::table`].
    ///
    /// # Kernel
    ///
    /// Linux 6.5.
    #[doc(alias = "NFT_MSG_GETSETELEM_RESET")]
    pub fn reset_elements(&mut self, table: &TableId, set: &SetName) -> Result<Vec<Element>> {
        let mut all = Vec::new();
        self.dump(Request::elements_reset(table, set), "elements", |object| {
            if let Object::Elements { elements, .. } = object {
                all.extend(elements);
            }
        })?;
        Ok(all)
    }

    /// The number of a table, which no other table of its namespace ever had. `None` when it is not there.
    ///
    /// # Errors
    ///
    /// As [`Self::table`].
    #[doc(alias = "NFTA_TABLE_HANDLE")]
    pub fn table_handle(&mut self, id: &TableId) -> Result<Option<Handle>> {
        self.handle(Request::table(id), &format!("read table {id}"))
    }

    /// The number of a chain, by which it is renamed. `None` when it is not there.
    ///
    /// # Errors
    ///
    /// As [`Self::table`].
    pub fn chain_handle(&mut self, table: &TableId, chain: &ChainName) -> Result<Option<Handle>> {
        self.handle(Request::chain(table, chain), &format!("read chain {table} {chain}"))
    }

    fn handle(&mut self, request: Request, question: &str) -> Result<Option<Handle>> {
        let mut handle = None;
        let answer = self.ask(request, false, |message| {
            handle = nftables::handle(message).map_err(undecodable)?;
            Ok(())
        })?;
        match answer.refused {
            None => Ok(handle),
            Some(refused) if refused.errno == libc::ENOENT => Ok(None),
            Some(refused) => Err(refusal::of_question(question, &refused)),
        }
    }

    /// Reads every table of `want` back and compares it, whole: a table that holds more than was wanted differs too.
    ///
    /// The order of rules counts. The order of elements, handles, and the values of counters do not; timeouts may differ by
    /// what the kernel's clock rounds.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Verify`], naming the first difference, and as [`Self::table`].
    pub fn verify(&mut self, want: &Ruleset) -> Result<()> {
        for table in &want.tables {
            let mut difference = None;
            for _ in 0..ATTEMPTS {
                difference = match self.table(&table.id)? {
                    Some(have) => verify::difference(&table.id, want, &have),
                    None => Some(format!("table {} is not there", table.id)),
                };
                // Where a transaction of somebody else's is given up during a dump, an object may be left out of it, and nothing tells. What is
                // really different stays so.
                if difference.is_none() {
                    break;
                }
            }
            if let Some(difference) = difference {
                return Err(Error::new(ErrorKind::Verify, difference));
            }
        }
        Ok(())
    }

    /// Reads under a generation that is the same before and after, or again.
    fn snapshot<T>(&mut self, mut read: impl FnMut(&mut Self) -> Result<(T, bool)>) -> Result<T> {
        for _ in 0..ATTEMPTS {
            // Seen at any time before: the same number afterwards means that nothing has changed since then, so not during the read.
            let before = self.last_seen()?;
            let outcome = read(self);
            // An object may vanish between the list that names it and the question about it: that is a change as well.
            let same = self.generation()? == before;
            match outcome {
                Ok((value, false)) if same => return Ok(value),
                Err(error) if same => return Err(error),
                _ => {}
            }
        }
        Err(Error::new(ErrorKind::Conflict, "the ruleset kept changing while it was read"))
    }

    fn dump_tables(&mut self, tables: &mut Vec<Table>) -> Result<bool> {
        self.dump(Request::tables(), "tables", |object| {
            if let Object::Table(table) = object
                && !tables.contains(&table)
            {
                tables.push(table);
            }
        })
    }

    /// Adds sets, chains, elements and rules, of one table or of all. Tells whether the dumps were interrupted.
    fn contents(&mut self, id: Option<&TableId>, ruleset: &mut Ruleset) -> Result<bool> {
        let Ruleset { sets, chains, elements, rules, objects, flowtables, .. } = ruleset;
        // Kernels filter dumps by family alone, or by table too, depending on the object and their age.
        let wanted = |table: &TableId| id.is_none_or(|id| id == table);
        // The kernel goes on with a dump behind as many objects as it has told, and counts objects of a transaction that is not committed yet among
        // them: some are told twice then, without a word of warning.
        let (mut known_sets, mut known_chains, mut known_rules) = (HashSet::new(), HashSet::new(), HashSet::new());
        let mut interrupted = self.dump(Request::sets(id), "sets", |object| {
            if let Object::Set(set) = object
                && wanted(&set.table)
                && known_sets.insert((set.table.clone(), set.name.clone()))
            {
                sets.push(set);
            }
        })?;
        let mut uses = Uses::new();
        interrupted |= self.dump_messages(Request::chains(id), "chains", |object, message| {
            if let Object::Chain(chain) = object
                && wanted(&chain.table)
                && known_chains.insert((chain.table.clone(), chain.name.clone()))
            {
                if let Some(count) = nftables::uses(message).map_err(undecodable)? {
                    uses.insert((chain.table.clone(), chain.name.clone()), count);
                }
                chains.push(chain);
            }
            Ok(())
        })?;
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
            {
                objects.push(object);
            }
        })?;
        interrupted |= self.dump(Request::flowtables(id), "flowtables", |object| {
            if let Object::Flowtable(flowtable) = object
                && wanted(&flowtable.table)
            {
                flowtables.push(flowtable);
            }
        })?;
        for set in sets.iter() {
            let mut all: Vec<Element> = Vec::new();
            let request = Request::elements(&set.table, &set.name);
            interrupted |= self.dump(request, "elements", |object| {
                if let Object::Elements { elements, .. } = object {
                    all.extend(elements);
                }
            })?;
            set.drop_stray_ends(&mut all);
            if !all.is_empty() {
                let entry: (TableId, SetName, Vec<Element>) = (set.table.clone(), set.name.clone(), all);
                elements.push(entry);
            }
        }
        Ok(interrupted || !self.is_whole(ruleset, &uses)?)
    }

    fn dump(&mut self, request: Request, what: &str, mut each: impl FnMut(Object)) -> Result<bool> {
        self.dump_messages(request, what, |object, _| {
            each(object);
            Ok(())
        })
    }

    fn dump_messages(
        &mut self,
        request: Request,
        what: &str,
        mut each: impl FnMut(Object, &Message<'_>) -> Result<()>,
    ) -> Result<bool> {
        let answer =
            self.ask(request, true, |message| each(nftables::decode(message).map_err(undecodable)?, message))?;
        match answer.refused {
            Some(refused) => Err(refusal::of_question(&format!("list {what}"), &refused)),
            None => Ok(answer.interrupted),
        }
    }

    /// Asks, and hands each message of the answer to `each`.
    pub(super) fn ask(
        &mut self,
        request: Request,
        dump: bool,
        mut each: impl FnMut(&Message<'_>) -> Result<()>,
    ) -> Result<Answer> {
        let seq = self.seq;
        self.seq = self.seq.wrapping_add(1);
        self.send(&request.numbered(seq))?;
        let mut answer = Answer { interrupted: false, refused: None };
        let mut outcome = Ok(());
        for _ in 0..MAX_DATAGRAMS {
            let len = match self.receive()? {
                Received::Datagram(len) => len,
                Received::Lost => {
                    answer.interrupted = true;
                    continue;
                }
                Received::Nothing => {
                    self.wait()?;
                    continue;
                }
            };
            for message in netlink::messages(&self.buffer[..len]) {
                let message = message.map_err(undecodable)?;
                // Late answers to a question that was given up.
                if message.header.seq != seq {
                    continue;
                }
                if let Some(acknowledgement) = netlink::acknowledgement(&message).map_err(undecodable)? {
                    answer.refused = Some(acknowledgement).filter(|ack| ack.errno != 0);
                    return outcome.map(|()| answer);
                }
                if let Some(errno) = netlink::end_of_dump(&message).map_err(undecodable)? {
                    if errno != 0 {
                        answer.refused = Some(Acknowledgement::of_errno(errno, message.header));
                    }
                    return outcome.map(|()| answer);
                }
                answer.interrupted |= message.header.flags & netlink::DUMP_INTERRUPTED != 0;
                if message.header.kind == netlink::OVERRUN {
                    answer.interrupted = true;
                } else if outcome.is_ok() {
                    // After an error the rest of a dump is still read: with one under way the kernel starts no other.
                    outcome = each(&message);
                }
                if !dump {
                    return outcome.map(|()| answer);
                }
            }
        }
        Err(Error::new(ErrorKind::Kernel, "the kernel's answer does not end"))
    }
}
