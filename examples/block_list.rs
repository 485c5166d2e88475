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
use std::time::Instant;

use ringfence::kernel::nftables::Socket;
use ringfence::nft::{
    BaseChain, Chain, ChainName, ChainPolicy, ChainType, Data, Datatype, Element, Family, Hook, KeyType, Object,
    Priority, Rule, Ruleset, Set, SetName, Table, TableId, TableName, Transaction, Verb,
};

/// Addresses from which nothing ever comes: 240.0.0.0/4 is reserved.
fn address(number: u32) -> Element {
    Element::new(Data::ipv4(Ipv4Addr::from(0xf000_0000 + number)))
}

fn main() -> Result<(), Box<dyn Error>> {
    let count: u32 = std::env::args().nth(1).map_or(Ok(1_000_000), |count| count.parse())?;
    let table = TableId { family: Family::Inet, name: TableName::new("blocked")? };
    let (input, blocked) = (ChainName::new("input")?, SetName::new("blocked4")?);
    let base = BaseChain {
        kind: ChainType::Filter,
        hook: Hook::Input,
        priority: Priority::RAW,
        policy: ChainPolicy::Accept,
        devices: vec![],
    };
    let ruleset = Ruleset {
        tables: vec![Table::new(table.clone())],
        chains: vec![Chain { base: Some(base), ..Chain::new(&table, &input) }],
        // A size makes the hash table large enough from the start, and adding three times as fast. It is a hard cap.
        sets: vec![Set { size: Some(count + 1_000), ..Set::new(&table, &blocked, KeyType(vec![Datatype::Ipv4Addr])) }],
        elements: vec![(table.clone(), blocked.clone(), (0..count).map(address).collect())],
        rules: vec![Rule::new(&table, &input).ip_saddr(&blocked).counter().drop()],
        ..Ruleset::default()
    };

    let mut socket = Socket::open()?;
    let start = Instant::now();
    socket.commit(&ruleset.into_transaction())?;
    println!("{count} addresses in one transaction: {:?}", start.elapsed());

    let change = |verb, elements| {
        let mut transaction = Transaction::new();
        transaction.push(verb, Object::Elements { table: table.clone(), set: blocked.clone(), elements });
        transaction
    };
    let start = Instant::now();
    socket.commit(&change(Verb::Add, vec![address(count)]))?;
    println!("one more: {:?}", start.elapsed());

    let start = Instant::now();
    socket.commit(&change(Verb::Delete, (0..count.min(1_000)).map(address).collect()))?;
    println!("the first thousand taken out: {:?}", start.elapsed());

    let start = Instant::now();
    let left = socket.elements(&table, &blocked)?.unwrap_or_default().len();
    println!("{left} addresses read back: {:?}", start.elapsed());
    Ok(())
}
