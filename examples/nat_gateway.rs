//! A gateway: the net behind `lan0` goes out by `wan0` with the gateway's address, and two of its services are reached from outside.
//!
//! Prints the ruleset in nft(8) syntax; with `--commit` it is committed to the caller's network namespace. Forwarding (`net.ipv4.ip_forward`) is
//! the caller's to switch on.
//!
//! ```console
//! $ cargo run --no-default-features --example nat_gateway
//! ```

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};

use ringfence::kernel::nftables::Socket;
use ringfence::nft::{
    BaseChain, Chain, ChainName, ChainPolicy, ChainType, Family, Hook, InterfaceName, Priority, Rule, Ruleset, Table,
    TableId, TableName, ct_state, not,
};

fn gateway() -> Result<Ruleset, Box<dyn Error>> {
    let table = TableId { family: Family::Inet, name: TableName::new("gateway")? };
    let (lan, wan) = (InterfaceName::new("lan0")?, InterfaceName::new("wan0")?);
    let net: ipnet::Ipv4Net = "10.0.0.0/24".parse()?;
    // Port outside, and where it leads.
    let services: [(u16, SocketAddr); 2] = [(80, "10.0.0.2:8080".parse()?), (2222, "10.0.0.3:22".parse()?)];

    let mut ruleset = Ruleset { tables: vec![Table::new(table.clone())], ..Ruleset::default() };
    let mut chain = |name: &str, kind, hook, priority, policy| -> Result<ChainName, Box<dyn Error>> {
        let name = ChainName::new(name)?;
        let base = BaseChain { kind, hook, priority, policy, devices: vec![] };
        ruleset.chains.push(Chain { base: Some(base), ..Chain::new(&table, &name) });
        Ok(name)
    };
    let arriving = chain("arriving", ChainType::Nat, Hook::Prerouting, Priority::DSTNAT, ChainPolicy::Accept)?;
    let leaving = chain("leaving", ChainType::Nat, Hook::Postrouting, Priority::SRCNAT, ChainPolicy::Accept)?;
    let forward = chain("forward", ChainType::Filter, Hook::Forward, Priority::FILTER, ChainPolicy::Drop)?;

    let at = |chain: &ChainName| Rule::new(&table, chain);
    for (port, to) in services {
        ruleset.rules.push(at(&arriving).iifname(wan.clone()).tcp_dport(port).counter().dnat(to));
        let SocketAddr::V4(v4) = to else { continue };
        ruleset.rules.push(at(&forward).iifname(wan.clone()).ip_daddr(*v4.ip()).tcp_dport(v4.port()).accept());
    }
    ruleset.rules.extend([
        at(&leaving).oifname(wan.clone()).ip_saddr(net).counter().masquerade(),
        at(&forward).ct_state(ct_state::ESTABLISHED | ct_state::RELATED).accept(),
        // Nobody behind the gateway may pretend to be somebody else.
        at(&forward).iifname(lan.clone()).ip_saddr(not(net)).counter().drop(),
        at(&forward).iifname(lan).oifname(wan).ip_daddr(not(Ipv4Addr::BROADCAST)).accept(),
    ]);
    Ok(ruleset)
}

fn main() -> Result<(), Box<dyn Error>> {
    let gateway = gateway()?;
    print!("{gateway}");
    if std::env::args().any(|argument| argument == "--commit") {
        let mut socket = Socket::open()?;
        socket.commit(&gateway.create())?;
        socket.verify(&gateway)?;
    }
    Ok(())
}
