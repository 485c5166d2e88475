//! A firewall for a host: what it asked for may come in, ssh and the web may, the rest is counted and refused.
//!
//! Prints the ruleset in nft(8) syntax. With `--commit` it is committed to the caller's network namespace in one transaction, in place of
//! what an earlier run left: a packet meets the old rules or the new ones, never none.
//!
//! ```console
//! $ cargo run --no-default-features --example host_firewall
//! # unshare -n target/debug/examples/host_firewall --commit
//! ```

use std::error::Error;

use ringfence::kernel::nftables::Socket;
use ringfence::nft::{
    BaseChain, Chain, ChainName, ChainPolicy, ChainType, Comment, Data, Datatype, Element, Family, Hook, KeyType,
    Limit, Object, Priority, Reject, RejectCode, Rule, Ruleset, Set, SetName, Table, TableId, TableName, Transaction,
    Verb, ct_state,
};

fn firewall() -> Result<Ruleset, Box<dyn Error>> {
    let table = TableId { family: Family::Inet, name: TableName::new("firewall")? };
    let input = ChainName::new("input")?;
    let open = SetName::new("open_ports")?;
    let rule = || Rule::new(&table, &input);
    // Ten a second, and a burst of twenty.
    let pings = Limit { rate: 10, seconds: 1, burst: 20, over: false, bytes: false };
    let base = BaseChain {
        kind: ChainType::Filter,
        hook: Hook::Input,
        priority: Priority::FILTER,
        // A rule that is forgotten closes, not opens.
        policy: ChainPolicy::Drop,
        devices: vec![],
    };
    let rules = vec![
        rule().ct_state(ct_state::ESTABLISHED | ct_state::RELATED).accept(),
        rule().ct_state(ct_state::INVALID).counter().drop(),
        // Index 1 is the loopback interface of every network namespace.
        rule().iif(1).accept(),
        rule().icmp_type(8).limit(pings).accept(),
        // Neighbour discovery, without which IPv6 does not work at all.
        rule().icmpv6_type(133..=136).accept(),
        rule().icmpv6_type(128).limit(pings).accept(),
        rule().tcp_dport(&open).counter().accept().comment(Comment::new("services")?),
        rule().l4proto(6).counter().reject(Reject::TcpReset),
        rule().counter().reject(Reject::Icmpx(RejectCode::PortUnreachable)),
    ];
    Ok(Ruleset {
        tables: vec![Table { comment: Some(Comment::new("what may come in")?), ..Table::new(table.clone()) }],
        chains: vec![Chain { base: Some(base), ..Chain::new(&table, &input) }],
        sets: vec![Set::new(&table, &open, KeyType(vec![Datatype::InetService]))],
        elements: vec![(table.clone(), open, [22, 80, 443].map(|port| Element::new(Data::be16(port))).to_vec())],
        rules,
        ..Ruleset::default()
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let firewall = firewall()?;
    print!("{firewall}");
    if std::env::args().any(|argument| argument == "--commit") {
        let mut transaction = Transaction::new();
        // Linux 6.3: gone if it is there.
        transaction.push(Verb::Destroy, Object::Table(firewall.tables[0].clone()));
        for operation in firewall.create().operations() {
            transaction.push(operation.verb, operation.object.clone());
        }
        let mut socket = Socket::open()?;
        let generation = socket.commit(&transaction)?;
        // What stands is what was meant, or this says what differs.
        socket.verify(&firewall)?;
        eprintln!("committed: the ruleset is at generation {}", generation.0);
    }
    Ok(())
}
