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
use ringfence::nft::statements::{CtStates, IcmpType, Icmpv6Type, Inet, Per, Port, Protocol, TableOf};
use ringfence::nft::{
    ChainPolicy, ChainType, Comment, Hook, Limit, Object, Priority, RejectCode, Ruleset, Table, Transaction, Verb,
};

fn firewall() -> Result<Ruleset, Box<dyn Error>> {
    let table = TableOf::<Inet>::new("firewall")?;
    let input = table.chain("input")?;
    let open = table.set::<Port>("open_ports")?;
    let pings = Limit::packets(10, Per::Second).burst(20);

    let mut ruleset = Ruleset {
        tables: vec![Table { comment: Some(Comment::new("what may come in")?), ..table.declare() }],
        // A rule that is forgotten closes, not opens.
        chains: vec![input.declare_base(ChainType::Filter, Hook::Input, Priority::FILTER, ChainPolicy::Drop)],
        sets: vec![open.declare()],
        ..Ruleset::default()
    };
    ruleset.push_elements(open.elements([22, 80, 443].map(Port))?);
    // Neighbour discovery, without which IPv6 does not work at all.
    let neighbours = Icmpv6Type::ND_ROUTER_SOLICIT..=Icmpv6Type::ND_NEIGHBOR_ADVERT;
    for rule in [
        input.rule().ct_state(CtStates::ESTABLISHED | CtStates::RELATED).accept()?,
        input.rule().ct_state(CtStates::INVALID).counter().drop()?,
        // Index 1 is the loopback interface of every network namespace.
        input.rule().iif(1).accept()?,
        input.rule().icmp_type(IcmpType::ECHO_REQUEST).limit(pings).accept()?,
        input.rule().icmpv6_type(neighbours).accept()?,
        input.rule().icmpv6_type(Icmpv6Type::ECHO_REQUEST).limit(pings).accept()?,
        input.rule().tcp_dport(&open).counter().comment(Comment::new("services")?).accept()?,
        input.rule().l4proto(Protocol::TCP).counter().reject_tcp_reset()?,
        input.rule().counter().reject_icmpx(RejectCode::PortUnreachable)?,
    ] {
        ruleset.push_rule(rule);
    }
    Ok(ruleset)
}

fn main() -> Result<(), Box<dyn Error>> {
    let firewall = firewall()?;
    print!("{firewall}");
    if std::env::args().any(|argument| argument == "--commit") {
        let mut transaction = Transaction::new();
        // Linux 6.3: gone if it is there.
        transaction.push(Verb::Destroy, Object::Table(firewall.tables[0].clone()));
        transaction.extend(firewall.create());
        let mut socket = Socket::open()?;
        let generation = socket.commit(&transaction)?;
        // What stands is what was meant, or this says what differs.
        socket.verify(&firewall)?;
        eprintln!("committed: the ruleset is at generation {}", generation.0);
    }
    Ok(())
}
