//! Forwarding of the host's uplinks, switched on while sandboxes need it and shared between supervisors.
//!
//! Answers to a sandbox's flows arrive on an uplink, and the kernel forwards them only if that interface forwards. The
//! switch belongs to nobody: two supervisors may want it at once, and either may be killed. So each supervisor that
//! finds it off, or finds another supervisor's note that it was off, notes the uplink in its own owner table
//! ([`Outside::note_uplink`]) before it switches it on. Notes vanish with their writer. Who leaves switches the uplink
//! off where no other note is left, and takes its own note back.
//!
//! All of that happens under a mutex that is a table, too: created exclusively, owned by the socket of whoever holds it,
//! gone with it. It needs the same privilege as what it guards, so no other user of the host can hold it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::KernelError;
use super::forwarding::{self, Forwarding};
use super::{nftables, rtnetlink};
use crate::link::IfIndex;
use crate::nft::{Data, Family, Object, Table, TableFlags, TableId, TableName, Transaction, Verb};
use crate::plan::{Outside, TABLE_PREFIX, uplinks};
use crate::{Error, ErrorKind, Result};

/// Name of the table that is the mutex.
const MUTEX: &str = "ringfence.uplinks";

/// How long another supervisor may hold it. It takes each of them a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait between two tries.
const PAUSE: Duration = Duration::from_millis(2);

/// An interface, and the family it forwards for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uplink {
    /// The interface.
    pub index: IfIndex,
    /// IPv4, or else IPv6.
    pub v4: bool,
}

impl Uplink {
    fn wanted(self, now: Forwarding, on: bool) -> Forwarding {
        if self.v4 { Forwarding { v4: on, ..now } } else { Forwarding { v6: on, ..now } }
    }

    fn is_on(self, now: Forwarding) -> bool {
        if self.v4 { now.v4 } else { now.v6 }
    }
}

/// The way to the mutex, kept open between uses.
///
/// Closing an nf_tables socket waits until the kernel has taken apart what was deleted before, the mutex itself among it: some 10 ms.
#[derive(Debug, Default)]
pub struct Lock(Option<nftables::Socket>);

/// Makes an uplink forward. Gives back whether it was noted, and so must be [`release`]d.
///
/// # Errors
///
/// As [`forwarding::set`]; [`ErrorKind::Conflict`] when another supervisor holds the mutex for 5 s.
///
/// # Privileges
///
/// `CAP_NET_ADMIN`; for IPv6 as [`forwarding::set`].
pub fn acquire(
    table: &mut nftables::Socket,
    links: &mut rtnetlink::Socket,
    lock: &mut Lock,
    outside: &Outside,
    uplink: Uplink,
) -> Result<bool> {
    lock.locked(|lock| {
        let now = forwarding::read(links, uplink.index)?;
        // A router forwards IPv6 whatever the interface's own switch says.
        let on = uplink.is_on(now) || (!uplink.v4 && forwarding::is_router(links, false)?);
        if on && !noted_by_others(lock, outside, uplink)? {
            // It forwards by somebody else's will, and will go on to.
            return Ok(false);
        }
        table.commit(&outside.note_uplink(Verb::Add, uplink.v4, uplink.index.0))?;
        if let Err(error) = forwarding::set(links, uplink.index, uplink.wanted(now, true)) {
            table.commit(&outside.note_uplink(Verb::Delete, uplink.v4, uplink.index.0))?;
            return Err(error);
        }
        Ok(true)
    })
}

/// Takes this supervisor's notes back, and switches off every uplink of them that no other supervisor has noted, unless
/// somebody has made the host a router meanwhile.
///
/// Goes on past what fails, and reports the first failure.
///
/// # Errors
///
/// As [`acquire`].
pub fn release(
    table: &mut nftables::Socket,
    links: &mut rtnetlink::Socket,
    lock: &mut Lock,
    outside: &Outside,
    noted: &BTreeSet<Uplink>,
) -> Result<()> {
    if noted.is_empty() {
        return Ok(());
    }
    lock.locked(|lock| {
        let mut first = Ok(());
        for uplink in noted {
            let mut one = || -> Result<()> {
                // The note goes last: should this process be killed in between, its guard finds the note and begins again. A note
                // that was never made means that the uplink is not ours to switch.
                if !is_noted(table, outside.table(), *uplink)? {
                    return Ok(());
                }
                // Whoever made the host a router meanwhile switched every interface on, over IPv4 by this very switch.
                let router = uplink.v4 && forwarding::is_router(links, true)?;
                if !router && !noted_by_others(lock, outside, *uplink)? {
                    let off = forwarding::read(links, uplink.index)
                        .and_then(|now| forwarding::set(links, uplink.index, uplink.wanted(now, false)));
                    match off {
                        // What went with its switch needs no switching off.
                        Err(error) if is_gone(&error) => {}
                        off => drop(off?),
                    }
                }
                table.commit(&outside.note_uplink(Verb::Delete, uplink.v4, uplink.index.0)).map(|_| ())
            };
            first = first.and(one());
        }
        first
    })
}

/// Whether the interface is what was missing.
fn is_gone(error: &Error) -> bool {
    let cause = std::error::Error::source(error);
    cause.and_then(|cause| cause.downcast_ref::<KernelError>()).is_some_and(|error| error.is(Errno::NODEV))
}

/// Whether another supervisor's table notes that the uplink did not forward before.
fn noted_by_others(socket: &mut nftables::Socket, outside: &Outside, uplink: Uplink) -> Result<bool> {
    for table in socket.tables()? {
        let theirs = table.id.family == Family::Inet && table.id.name.as_str().starts_with(TABLE_PREFIX);
        if theirs && table.id != *outside.table() && is_noted(socket, &table.id, uplink)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether that table notes the uplink. A table that is not there, as it may have gone while we looked, notes nothing.
fn is_noted(socket: &mut nftables::Socket, table: &TableId, uplink: Uplink) -> Result<bool> {
    let name = uplinks(uplink.v4).map_err(unnameable)?;
    let key = Data::native32(uplink.index.0);
    let elements = socket.elements(table, &name)?.unwrap_or_default();
    Ok(elements.iter().any(|element| element.key == key))
}

impl Lock {
    /// Runs `work` while no other supervisor of this network namespace does.
    ///
    /// Must run on a thread in that namespace.
    fn locked<T>(&mut self, work: impl FnOnce(&mut nftables::Socket) -> Result<T>) -> Result<T> {
        // A socket of its own: should `work` panic, it is closed here, and with it the mutex free.
        let mut socket = self.0.take().map_or_else(nftables::Socket::open, Ok)?;
        let id = TableId { family: Family::Inet, name: TableName::new(MUTEX).map_err(unnameable)? };
        let flags = TableFlags { owner: true, ..TableFlags::default() };
        let table = Object::Table(Table { flags, ..Table::new(id) });
        let mut take = Transaction::new();
        take.push(Verb::Create, table.clone());
        let deadline = Instant::now() + PATIENCE;
        loop {
            match socket.commit(&take) {
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::Conflict && Instant::now() < deadline => {
                    std::thread::sleep(PAUSE)
                }
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    let what =
                        format!("table inet {MUTEX} has been held by another supervisor for {} s", PATIENCE.as_secs());
                    return Err(Error::new(ErrorKind::Conflict, what).because(error));
                }
                Err(error) => return Err(error),
            }
        }
        let done = work(&mut socket);
        let mut give = Transaction::new();
        give.push(Verb::Delete, table);
        let given = socket.commit(&give);
        // Not kept if it may still hold the mutex.
        self.0 = given.is_ok().then_some(socket);
        done.and_then(|done| given.map(|_| done))
    }
}

fn unnameable(error: crate::nft::NameError) -> Error {
    Error::new(ErrorKind::Policy, "can't name a table").because(error)
}
