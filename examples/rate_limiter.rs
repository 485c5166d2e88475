//! A rate limiter with dynamic sets: each source address has a bucket of its own, made by its first packet and gone a minute after its last.
//! Who runs over is banned for ten minutes, by the packet path alone: no program looks on.
//!
//! Prints the ruleset in nft(8) syntax; with `--commit` it is committed to the caller's network namespace, and who is banned is shown.
//!
//! ```console
//! $ cargo run --no-default-features --example rate_limiter
//! ```

use std::error::Error;
use std::time::Duration;

use ringfence::kernel::nftables::Socket;
use ringfence::nft::{
    BaseChain, Chain, ChainName, ChainPolicy, ChainType, Datatype, DynsetOp, Expr, Family, Field, Hook, KeyType, Limit,
    Priority, Rule, Ruleset, Set, SetFlags, SetName, Table, TableId, TableName,
};

fn limiter() -> Result<Ruleset, Box<dyn Error>> {
    let table = TableId { family: Family::Inet, name: TableName::new("limiter")? };
    let (input, seen, banned) = (ChainName::new("input")?, SetName::new("seen4")?, SetName::new("banned4")?);
    let dynamic = |name: &SetName, timeout| Set {
        flags: SetFlags { dynamic: true, timeout: true, ..SetFlags::default() },
        timeout: Some(Duration::from_secs(timeout)),
        // A flood from made-up addresses fills the set, not the memory.
        size: Some(65_536),
        ..Set::new(&table, name, KeyType(vec![Datatype::Ipv4Addr]))
    };
    let base = BaseChain {
        kind: ChainType::Filter,
        hook: Hook::Input,
        // Before conntrack, so that a flood costs no table entries.
        priority: Priority::RAW,
        policy: ChainPolicy::Accept,
        devices: vec![],
    };
    let rule = || Rule::new(&table, &input);
    let limit = Limit { rate: 50, seconds: 1, burst: 100, over: true, bytes: false };
    let rules = vec![
        rule().ip_saddr(&banned).counter().drop(),
        rule()
            .nfproto(Family::Ip)
            .tcp_dport(443)
            .into_set(DynsetOp::Update, &[Field::IP_SADDR], &seen, None, vec![Expr::Limit(limit)])?
            .into_set(DynsetOp::Add, &[Field::IP_SADDR], &banned, None, vec![])?
            .counter()
            .drop(),
    ];
    Ok(Ruleset {
        tables: vec![Table::new(table.clone())],
        chains: vec![Chain { base: Some(base), ..Chain::new(&table, &input) }],
        sets: vec![dynamic(&seen, 60), dynamic(&banned, 600)],
        rules,
        ..Ruleset::default()
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let limiter = limiter()?;
    print!("{limiter}");
    if std::env::args().any(|argument| argument == "--commit") {
        let mut socket = Socket::open()?;
        socket.commit(&limiter.create())?;
        let banned = &limiter.sets[1];
        let now = socket.elements(&banned.table, &banned.name)?.unwrap_or_default();
        eprintln!("{} addresses are banned", now.len());
    }
    Ok(())
}
