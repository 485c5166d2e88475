//! Whether the kernel has told of every rule.
//!
//! It writes a dump into one buffer after another, none larger than 32 KiB, and ends the dump without a word at a rule that does not fit
//! an empty one. That rule is missing then, and so are all those behind it, in its chain and in every chain and table to come. What tells
//! of it is the chain, which counts its uses: each rule in it, and each jump to it.

use std::collections::{HashMap, HashSet};

use super::{Socket, refusal};
use crate::nft::{ChainName, ElementData, Expr, Handle, Ruleset, TableId, Verdict};
use crate::wire::nftables::Request;
use crate::{Error, ErrorKind, Result};

/// How often chains are used, as the kernel counts.
pub(super) type Uses = HashMap<(TableId, ChainName), u32>;

/// How far behind the highest handle that was told of a table another one is looked for.
const BEHIND: u64 = 1 << 16;

/// The highest handle that is asked for.
const MAX_HANDLE: u64 = 1 << 20;

impl Socket {
    /// Looks for rules that the kernel has left out. Says whether it is worth while to read again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] when there is a rule that the kernel can't tell of, naming its chain and handle.
    pub(super) fn is_whole(&mut self, ruleset: &Ruleset, uses: &Uses) -> Result<bool> {
        let told = told(ruleset);
        for ((table, chain), used) in uses {
            let told = told.get(&(table, chain)).copied().unwrap_or(0);
            // A count may be higher than what was told while others prepare a transaction, and by elements that have run out and were not
            // cleared away yet. So a difference is a reason to look, and no more.
            let missing = u64::from(*used).saturating_sub(told);
            if missing > 0 && !self.has_told(table, chain, ruleset, missing)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Asks for every rule of a chain by its handle, until as many are found as may be missing. Says whether none is.
    fn has_told(&mut self, table: &TableId, chain: &ChainName, ruleset: &Ruleset, missing: u64) -> Result<bool> {
        let of_table = ruleset.rules.iter().filter(|rule| rule.table == *table);
        let highest = of_table.clone().filter_map(|rule| rule.handle).map(|handle| handle.0).max().unwrap_or(0);
        let told: HashSet<u64> = of_table
            .filter(|rule| rule.chain == *chain)
            .filter_map(|rule| rule.handle)
            .map(|handle| handle.0)
            .collect();
        let (mut left_out, mut unreadable) = (0, Vec::new());
        for handle in 1..=highest.saturating_add(BEHIND).min(MAX_HANDLE) {
            if told.contains(&handle) {
                continue;
            }
            let answer = self.ask(Request::rule(table, chain, Handle(handle)), false, |_| Ok(()))?;
            match answer.refused.map(|refused| (refused.errno, refused)) {
                None => left_out += 1,
                Some((libc::ENOENT, _)) => {}
                // It does not fit an answer of one page. Up to 32 KiB it would have been told, but for being behind one that is larger.
                Some((libc::EPERM | libc::EMSGSIZE, _)) => unreadable.push(handle.to_string()),
                Some((_, refused)) => {
                    return Err(refusal::of_question(&format!("read a rule of chain {table} {chain}"), &refused));
                }
            }
            if left_out + unreadable.len() as u64 == missing {
                break;
            }
        }
        if unreadable.is_empty() {
            return Ok(left_out == 0);
        }
        let handles = unreadable.join(" or ");
        let what = format!(
            "rule with handle {handles} of chain {table} {chain} is larger than the 32 KiB that the kernel tells of a rule"
        );
        Err(Error::new(ErrorKind::Unsupported, what)
            .hint("nothing can read it, nor what is behind it: make several rules of it, and delete it by its handle"))
    }
}

/// How often each chain is used by what was told.
fn told(ruleset: &Ruleset) -> HashMap<(&TableId, &ChainName), u64> {
    let mut told = HashMap::new();
    let mut count = |table, chain| *told.entry((table, chain)).or_insert(0) += 1;
    for rule in &ruleset.rules {
        count(&rule.table, &rule.chain);
        for expr in &rule.exprs {
            if let Expr::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) = expr {
                count(&rule.table, chain);
            }
        }
    }
    for (table, _, elements) in &ruleset.elements {
        for element in elements {
            if let Some(ElementData::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain))) = &element.data {
                count(table, chain);
            }
        }
    }
    told
}
