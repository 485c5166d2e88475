//! A transaction tried where it does no harm.

use std::collections::{HashMap, HashSet};

use super::Socket;
use crate::kernel::netns::Netns;
use crate::kernel::rtnetlink::{self, Request, Veth};
use crate::nft::{ChainName, Handle, Object, Operation, Rule, Ruleset, TableFlags, TableId, Transaction};
use crate::{Error, ErrorKind, Result};

/// Numbers of chains, which a ruleset does not tell.
type ChainNumbers = HashMap<(TableId, Handle), ChainName>;

/// A number that the kernel gives to nothing: it stands for what `have` does not hold.
const NOBODYS: Handle = Handle(u64::MAX);

/// Carries a transaction out in a network namespace that is made for it and vanishes, and which has the ruleset `have`. Gives the ruleset as it
/// would be.
///
/// The kernel itself says yes or no, with the error that the commit would have. Devices that chains of `have` or of the transaction hang on are
/// there by name. What depends on the machine's own namespace is not: routes, and interfaces that rules name by number.
///
/// Rules are known by the handles that they have in `have`. A chain that is renamed is looked up by its handle in the present namespace.
///
/// # Errors
///
/// As [`Socket::commit`]; and what [`Netns::new`] can't do.
///
/// # Privileges
///
/// `CAP_SYS_ADMIN` to make a network namespace, or a user namespace of one's own.
pub fn dry_run(have: &Ruleset, transaction: &Transaction) -> Result<Ruleset> {
    let names = chain_numbers(have, transaction)?;
    let (_netns, outcome) = Netns::create_with(|| try_here(have, transaction, &names))?;
    outcome
}

/// What chains are numbered in the present namespace, of the tables in which one is renamed.
fn chain_numbers(have: &Ruleset, transaction: &Transaction) -> Result<ChainNumbers> {
    let renamed = transaction.operations().iter().filter_map(|operation| match &operation.object {
        Object::ChainName { table, .. } => Some(table),
        _ => None,
    });
    let renamed: HashSet<&TableId> = renamed.collect();
    let mut numbers = HashMap::new();
    if renamed.is_empty() {
        return Ok(numbers);
    }
    let mut socket = Socket::open()?;
    for chain in have.chains.iter().filter(|chain| renamed.contains(&chain.table)) {
        if let Some(handle) = socket.chain_handle(&chain.table, &chain.name)? {
            numbers.insert((chain.table.clone(), handle), chain.name.clone());
        }
    }
    Ok(numbers)
}

fn try_here(have: &Ruleset, transaction: &Transaction, names: &ChainNumbers) -> Result<Ruleset> {
    make_devices(have, transaction)?;
    let mut socket = Socket::open()?;
    let mut there = have.clone();
    // Owned by others, and they are not here: what is left of the flag would be ours.
    for table in &mut there.tables {
        table.flags = TableFlags { dormant: table.flags.dormant, ..TableFlags::default() };
    }
    let before = there.into_transaction();
    let (_, made) = socket.commit_echo(&before).map_err(|error| {
        Error::new(ErrorKind::Kernel, "can't make the present ruleset anew to try on").because(error)
    })?;
    // Rules and chains have other numbers here.
    let (mut rules, mut chains) = (HashMap::new(), HashMap::new());
    for (operation, made) in before.operations().iter().zip(made) {
        match (&operation.object, made) {
            (Object::Rule(Rule { table, handle: Some(original), .. }), Some(made)) => {
                rules.insert((table, *original), made);
            }
            (Object::Chain(chain), Some(made)) => {
                chains.insert((&chain.table, &chain.name), made);
            }
            _ => {}
        }
    }
    let rule = |table: &TableId, original: Handle| rules.get(&(table, original)).copied().unwrap_or(NOBODYS);
    let chain = |table: &TableId, original: Handle| {
        let name = names.get(&(table.clone(), original));
        name.and_then(|name| chains.get(&(table, name))).copied().unwrap_or(NOBODYS)
    };
    let translated = |operation: &Operation| {
        let mut operation = operation.clone();
        match &mut operation.object {
            Object::Rule(Rule { table, handle, position, .. }) => {
                *handle = handle.map(|handle| rule(table, handle));
                *position = position.map(|position| rule(table, position));
            }
            Object::ChainName { table, handle, .. } => *handle = chain(table, *handle),
            _ => {}
        }
        operation
    };
    let transaction: Transaction = transaction.operations().iter().map(translated).collect();
    socket.commit(&transaction)?;
    socket.ruleset()
}

/// Makes every device that a chain or flowtable hangs on.
fn make_devices(have: &Ruleset, transaction: &Transaction) -> Result<()> {
    let mut names = Vec::new();
    let mut note = |devices: &[crate::nft::InterfaceName]| {
        for device in devices {
            if device.as_str() != "lo" && !names.contains(device) {
                names.push(device.clone());
            }
        }
    };
    let bases = have.chains.iter().filter_map(|chain| chain.base.as_ref());
    bases.for_each(|base| note(&base.devices));
    have.flowtables.iter().for_each(|flowtable| note(&flowtable.devices));
    for operation in transaction.operations() {
        match &operation.object {
            Object::Chain(chain) => chain.base.iter().for_each(|base| note(&base.devices)),
            Object::Flowtable(flowtable) => note(&flowtable.devices),
            _ => {}
        }
    }
    if names.is_empty() {
        return Ok(());
    }
    let mut links = rtnetlink::Socket::open()?;
    let mut batch = rtnetlink::Batch::new();
    for (index, name) in names.iter().enumerate() {
        // The other end is nobody's. Names that begin with a dash are hardly anybody's.
        let other = format!("-dry{index}");
        batch.push(Request::create_veth(&Veth::new(name.as_str(), &other)));
    }
    links.commit(batch).map(drop)
}
