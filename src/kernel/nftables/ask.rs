//! Questions: what is asked of the kernel, of one thing or of many, and counts that start anew.

use super::{MAX_DATAGRAMS, Received, Socket, refusal};
use crate::kernel::refusal::undecodable;
use crate::nft::{ChainName, Element, Handle, Object, Rule, SetName, StatefulObject, TableId};
use crate::wire::netlink::{self, Acknowledgement, Message};
use crate::wire::nftables::{self, Request};
use crate::{Error, ErrorKind, Result};

/// How the kernel answered a question.
pub(super) struct Answer {
    /// The ruleset changed meanwhile, or part of the answer was lost.
    pub interrupted: bool,
    /// How many datagrams had something to tell. One of a dump is made in one go, and nothing can come between.
    pub parts: usize,
    pub refused: Option<Acknowledgement>,
}

impl Answer {
    /// How many looks in a row must tell the same, of things that the kernel does not count. None if this was none.
    pub fn looks(&self) -> Option<usize> {
        (!self.interrupted).then_some(if self.parts > 1 { 2 } else { 1 })
    }
}

impl Socket {
    /// Reads the stateful objects of a table and starts their counts anew.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Kernel`] when the table is not there, and as [`Self::table`].
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
        if objects.is_empty() {
            self.is_there(table)?;
        }
        Ok(objects)
    }

    /// Reads the rules of a table and starts their counters and quotas anew.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Kernel`] when the table is not there, and as [`Self::table`].
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
        if rules.is_empty() {
            self.is_there(table)?;
        }
        Ok(rules)
    }

    /// Finds that a table is not there, which dumps of what is in it don't say.
    fn is_there(&mut self, id: &TableId) -> Result<()> {
        let refused = self.ask(Request::table(id), false, |_| Ok(()))?.refused;
        refused.map_or(Ok(()), |refused| Err(refusal::of_question(&format!("read table {id}"), &refused)))
    }

    /// Reads the elements of a set and starts their counters and quotas anew.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Kernel`] when the set is not there, and as [`Self::table`].
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

    /// Reads one rule. `None` when it is not there.
    ///
    /// # Errors
    ///
    /// As [`Self::table`].
    #[cfg(feature = "sandbox")]
    pub(crate) fn rule(&mut self, table: &TableId, chain: &ChainName, rule: Handle) -> Result<Option<Rule>> {
        let read = |message: &Message<'_>| match nftables::decode(message).map_err(undecodable)? {
            Object::Rule(rule) => Ok(Some(rule)),
            _ => Ok(None),
        };
        self.one(Request::rule(table, chain, rule), &format!("read a rule of chain {table} {chain}"), read)
    }

    /// How many chains, sets of a name, stateful objects and flowtables are in a table. `None` when it is not there.
    ///
    /// # Errors
    ///
    /// As [`Self::table`].
    #[cfg(feature = "sandbox")]
    pub(crate) fn table_uses(&mut self, id: &TableId) -> Result<Option<u32>> {
        self.one(Request::table(id), &format!("read table {id}"), |message| {
            nftables::count(message).map_err(undecodable)
        })
    }

    /// How many rules are in a chain and how many jumps lead to it. `None` when it is not there.
    ///
    /// # Errors
    ///
    /// As [`Self::table`].
    pub(crate) fn chain_uses(&mut self, table: &TableId, chain: &ChainName) -> Result<Option<u32>> {
        self.one(Request::chain(table, chain), &format!("read chain {table} {chain}"), |message| {
            nftables::count(message).map_err(undecodable)
        })
    }

    /// The number of a table, which no other table of its namespace ever had. `None` when it is not there.
    ///
    /// # Errors
    ///
    /// As [`Self::table`].
    #[doc(alias = "NFTA_TABLE_HANDLE")]
    pub fn table_handle(&mut self, id: &TableId) -> Result<Option<Handle>> {
        self.one(Request::table(id), &format!("read table {id}"), |message| {
            nftables::handle(message).map_err(undecodable)
        })
    }

    /// The number of a chain, by which it is renamed. `None` when it is not there.
    ///
    /// # Errors
    ///
    /// As [`Self::table`].
    pub fn chain_handle(&mut self, table: &TableId, chain: &ChainName) -> Result<Option<Handle>> {
        self.one(Request::chain(table, chain), &format!("read chain {table} {chain}"), |message| {
            nftables::handle(message).map_err(undecodable)
        })
    }

    pub(super) fn one<T>(
        &mut self,
        request: Request,
        question: &str,
        read: impl Fn(&Message<'_>) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let mut found = None;
        let answer = self.ask(request, false, |message| {
            found = read(message)?;
            Ok(())
        })?;
        match answer.refused {
            None => Ok(found),
            Some(refused) if refused.errno == libc::ENOENT => Ok(None),
            Some(refused) => Err(refusal::of_question(question, &refused)),
        }
    }

    pub(super) fn dump(&mut self, request: Request, what: &str, mut each: impl FnMut(Object)) -> Result<bool> {
        let answer = self.dump_messages(request, what, |object, _| {
            each(object);
            Ok(())
        })?;
        Ok(answer.interrupted)
    }

    pub(super) fn dump_messages(
        &mut self,
        request: Request,
        what: &str,
        mut each: impl FnMut(Object, &Message<'_>) -> Result<()>,
    ) -> Result<Answer> {
        let answer =
            self.ask(request, true, |message| each(nftables::decode(message).map_err(undecodable)?, message))?;
        match answer.refused {
            Some(refused) => Err(refusal::of_question(&format!("list {what}"), &refused)),
            None => Ok(answer),
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
        let mut answer = Answer { interrupted: false, parts: 0, refused: None };
        let mut outcome = Ok(());
        for _ in 0..MAX_DATAGRAMS {
            let len = match self.receive()? {
                Received::Datagram(len) => {
                    self.left = self.left.checked_sub(1).ok_or_else(|| {
                        Error::new(ErrorKind::Conflict, "there is more in the ruleset than was to be looked at")
                    })?;
                    len
                }
                Received::Lost => {
                    answer.interrupted = true;
                    continue;
                }
                Received::Nothing => {
                    self.wait()?;
                    continue;
                }
            };
            let mut told = false;
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
                    answer.parts += usize::from(!std::mem::replace(&mut told, true));
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
