//! A rate limiter with dynamic sets: each source address has a bucket of its own, made by its first packet and gone a minute after its last.
//! Who runs over is banned for ten minutes, by the packet path alone: no program looks on.
//!
//! Prints the ruleset in nft(8) syntax; with `--commit` it is committed to the caller's network namespace, in the place of what an earlier run left there.
//!
//! ```console
//! $ cargo run --no-default-features --example rate_limiter
//! ```

use std::error::Error;
use std::net::Ipv4Addr;
use std::time::Duration;

use ringfence::kernel::nftables::Socket;
use ringfence::nft::statements::{Each, IP_SADDR, Inet, Per, SetOf, TableOf};
use ringfence::nft::{ChainPolicy, ChainType, Hook, Limit, NameError, Object, Priority, Ruleset, Transaction, Verb};

fn limiter() -> Result<Ruleset, Box<dyn Error>> {
    let table = TableOf::<Inet>::new("limiter")?;
    let input = table.chain("input")?;
    let dynamic = |name, seconds| -> Result<SetOf<Ipv4Addr>, NameError> {
        // A flood from made-up addresses fills the set, not the memory.
        Ok(table.set(name)?.dynamic().timeout(Duration::from_secs(seconds)).size(65_536))
    };
    let (seen, banned) = (dynamic("seen4", 60)?, dynamic("banned4", 600)?);
    let limit = Limit::packets(50, Per::Second).burst(100).past();

    let mut ruleset = Ruleset {
        tables: vec![table.declare()],
        // Before conntrack, so that a flood costs no table entries.
        chains: vec![input.declare_base(ChainType::Filter, Hook::Input, Priority::RAW, ChainPolicy::Accept)],
        sets: vec![seen.declare(), banned.declare()],
        ..Ruleset::default()
    };
    ruleset.push_rule(input.rule().ip_saddr(&banned).counter().drop()?);
    let fast = input.rule().ipv4().tcp_dport(443).update(&seen, IP_SADDR, Each::new().limit(limit));
    ruleset.push_rule(fast.add_to(&banned, IP_SADDR, Each::new()).counter().drop()?);
    Ok(ruleset)
}

fn main() -> Result<(), Box<dyn Error>> {
    let limiter = limiter()?;
    print!("{limiter}");
    if std::env::args().any(|argument| argument == "--commit") {
        let mut transaction = Transaction::new();
        // Linux 6.3: gone if it is there.
        transaction.push(Verb::Destroy, Object::Table(limiter.tables[0].clone()));
        transaction.extend(limiter.create());
        Socket::open()?.commit(&transaction)?;
    }
    Ok(())
}
