//! A gateway: the net behind `lan0` goes out by `wan0` with the gateway's address, and two of its services are reached from outside.
//!
//! Prints the ruleset in nft(8) syntax; with `--commit` it is committed to the caller's network namespace. Forwarding (`net.ipv4.ip_forward`) is
//! the caller's to switch on.
//!
//! ```console
//! $ cargo run --no-default-features --example nat_gateway
//! ```

use std::error::Error;
use std::net::SocketAddrV4;

use ringfence::kernel::nftables::Socket;
use ringfence::nft::statements::{CtStates, Inet, NatTo, Ports, TableOf, not};
use ringfence::nft::{ChainPolicy, ChainType, Hook, InterfaceName, Priority, Ruleset};

fn gateway() -> Result<Ruleset, Box<dyn Error>> {
    let table = TableOf::<Inet>::new("gateway")?;
    let (arriving, leaving, forward) = (table.chain("arriving")?, table.chain("leaving")?, table.chain("forward")?);
    let (lan, wan) = (InterfaceName::new("lan0")?, InterfaceName::new("wan0")?);
    let net: ipnet::Ipv4Net = "10.0.0.0/24".parse()?;
    // Port outside, and where it leads.
    let services: [(u16, SocketAddrV4); 2] = [(80, "10.0.0.2:8080".parse()?), (2222, "10.0.0.3:22".parse()?)];

    let mut ruleset = Ruleset {
        tables: vec![table.declare()],
        chains: vec![
            arriving.declare_base(ChainType::Nat, Hook::Prerouting, Priority::DSTNAT, ChainPolicy::Accept),
            leaving.declare_base(ChainType::Nat, Hook::Postrouting, Priority::SRCNAT, ChainPolicy::Accept),
            forward.declare_base(ChainType::Filter, Hook::Forward, Priority::FILTER, ChainPolicy::Drop),
        ],
        ..Ruleset::default()
    };
    for (port, to) in services {
        let (address, inner) = (*to.ip(), to.port());
        let arrived = arriving.rule().iifname(wan.clone()).tcp_dport(port);
        ruleset.push_rule(arrived.counter().dnat(NatTo::from(address).port(inner))?);
        ruleset.push_rule(forward.rule().iifname(wan.clone()).ip_daddr(address).tcp_dport(inner).accept()?);
    }
    ruleset.push_rule(leaving.rule().oifname(wan.clone()).ip_saddr(net).counter().masquerade(Ports::any())?);
    ruleset.push_rule(forward.rule().ct_state(CtStates::ESTABLISHED | CtStates::RELATED).accept()?);
    // Nobody behind the gateway may pretend to be somebody else.
    ruleset.push_rule(forward.rule().iifname(lan.clone()).ip_saddr(not(net)).counter().drop()?);
    ruleset.push_rule(forward.rule().ipv4().iifname(lan).oifname(wan).accept()?);
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
