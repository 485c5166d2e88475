//! A live block list of a million addresses, in a set: a packet pays one look-up, whether there are ten or a million.
//!
//! Takes the number of addresses, a million unless told. Prints how long it takes to make the list, to add one address, and to take a thousand
//! out again, in the caller's network namespace: run it in one of its own.
//!
//! ```console
//! # unshare -n cargo run --release --no-default-features --example block_list
//! ```

use std::error::Error;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::time::Instant;

use ringfence::kernel::nftables::Socket;
use ringfence::nft::statements::{Inet, TableOf};
use ringfence::nft::{ChainPolicy, ChainType, Hook, Priority, Ruleset, Transaction, Verb};

/// Addresses from which nothing ever comes: 240.0.0.0/4 is reserved.
fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0xf000_0000 + number)
}

fn main() -> Result<(), Box<dyn Error>> {
    let count: u32 = std::env::args().nth(1).map_or(Ok(1_000_000), |count| count.parse())?;
    let table = TableOf::<Inet>::new("blocked")?;
    let input = table.chain("input")?;
    // A size makes the hash table large enough from the start, and adding three times as fast. It is a hard cap.
    let size = count.checked_add(1_000).ok_or("there are not that many addresses")?;
    let blocked = table.set::<Ipv4Addr>("blocked4")?.size(size);
    let of = |numbers: Range<u32>| blocked.elements(numbers.map(address));

    let mut ruleset = Ruleset {
        tables: vec![table.declare()],
        chains: vec![input.declare_base(ChainType::Filter, Hook::Input, Priority::RAW, ChainPolicy::Accept)],
        sets: vec![blocked.declare()],
        ..Ruleset::default()
    };
    ruleset.push_elements(of(0..count)?);
    ruleset.push_rule(input.rule().ip_saddr(&blocked).counter().drop()?);

    let mut socket = Socket::open()?;
    let start = Instant::now();
    socket.commit(&ruleset.into_transaction())?;
    println!("{count} addresses in one transaction: {:?}", start.elapsed());

    let change = |verb, elements| {
        let mut transaction = Transaction::new();
        transaction.push_elements(verb, elements);
        transaction
    };
    let start = Instant::now();
    socket.commit(&change(Verb::Add, of(count..count + 1)?))?;
    println!("one more: {:?}", start.elapsed());

    let start = Instant::now();
    socket.commit(&change(Verb::Delete, of(0..count.min(1_000))?))?;
    println!("the first thousand taken out: {:?}", start.elapsed());

    let start = Instant::now();
    let left = socket.elements(table.id(), blocked.name())?.unwrap_or_default().len();
    println!("{left} addresses read back: {:?}", start.elapsed());
    Ok(())
}
