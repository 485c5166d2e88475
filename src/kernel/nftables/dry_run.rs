//! A transaction tried where it does no harm.

use std::collections::HashMap;

use super::Socket;
use crate::kernel::netns::Netns;
use crate::kernel::rtnetlink::{self, Request, Veth};
use crate::nft::{Handle, Object, Operation, Ruleset, TableFlags, Transaction};
use crate::{Error, ErrorKind, Result};

/// Carries a transaction out in a network namespace that is made for it and vanishes, and which has the ruleset `have`. Gives the ruleset as it
/// would be.
///
/// The kernel itself says yes or no, with the error that the commit would have. Devices that chains of `have` or of the transaction hang on are
/// there by name. What depends on the machine's own namespace is not: routes, and interfaces that rules name by number.
///
/// # Errors
///
/// As [`Socket::commit`]; and what [`Netns::new`] can't do.
///
/// # Privileges
///
/// `CAP_SYS_ADMIN` to make a network namespace, or a user namespace of one's own.
pub fn dry_run(have: &Ruleset, transaction: &Transaction) -> Result<Ruleset> {
    let (_netns, outcome) = Netns::create_with(|| try_here(have, transaction))?;
    outcome
}

fn try_here(have: &Ruleset, transaction: &Transaction) -> Result<Ruleset> {
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
    // Rules have other numbers here.
    let mut numbers: HashMap<Handle, Handle> = HashMap::new();
    for (operation, handle) in before.operations().iter().zip(made) {
        if let (Object::Rule(rule), Some(handle)) = (&operation.object, handle)
            && let Some(original) = rule.handle
        {
            numbers.insert(original, handle);
        }
    }
    let number = |handle: Option<Handle>| handle.map(|handle| numbers.get(&handle).copied().unwrap_or(handle));
    let translated = |operation: &Operation| {
        let mut operation = operation.clone();
        if let Object::Rule(rule) = &mut operation.object {
            rule.handle = number(rule.handle);
            rule.position = number(rule.position);
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
