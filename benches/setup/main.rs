//! What a sandbox and a transaction cost, side by side with the ordinary way and with the least that the kernel asks for.
//!
//! ```sh
//! cargo bench --bench setup             # needs root
//! cargo bench --bench setup -- --quick  # a few rounds of each, as CI runs it
//! cargo bench --bench setup -- transactions  # one part: `memory`, `sandbox`, `many` (10,000 endpoints) or `transactions`
//! ```
//!
//! Everything happens in a network namespace of its own, with a small internet beside it. In one round each way is taken once, in
//! turn, so that all see the same machine. `docs/benchmarks.md` tells what was found and how to read it.

mod internet;
mod many;
mod memory;
mod ordinary;
mod raw;
mod table;
mod time;
mod transactions;

use std::net::{IpAddr, TcpStream};
use std::time::Instant;

use ringfence::kernel::netns::Netns;
use ringfence::kernel::rtnetlink;
use ringfence::policy::Policy;
use ringfence::{Host, Sandbox};

use internet::Internet;
use table::{Row, Table};
use time::Times;
use transactions::{Kind, Sizes};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How much is done.
#[derive(Clone, Copy)]
struct Rounds {
    setups: usize,
    connects: usize,
    sizes: Sizes,
    memory: &'static [(Kind, usize)],
}

const FULL: Rounds = Rounds {
    setups: 100,
    connects: 2000,
    sizes: Sizes {
        rules: &[(100, 30), (1_000, 15), (10_000, 5), (100_000, 2)],
        elements: &[(1_000, 15), (10_000, 5), (100_000, 2), (1_000_000, 2)],
        read: &[(1_000, 15), (10_000, 5), (100_000, 2)],
    },
    memory: &[(Kind::Rules, 10_000), (Kind::Rules, 100_000), (Kind::Elements, 100_000), (Kind::Elements, 1_000_000)],
};
const QUICK: Rounds = Rounds {
    setups: 8,
    connects: 200,
    sizes: Sizes { rules: &[(100, 3), (1_000, 3)], elements: &[(1_000, 3)], read: &[(1_000, 3)] },
    memory: &[(Kind::Rules, 1_000), (Kind::Elements, 1_000)],
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().position(|argument| argument == memory::ALONE) {
        Some(at) => memory::alone(&arguments[at + 1..]),
        None => all(&arguments),
    };
    if let Err(error) = outcome {
        eprintln!("can't run the benchmarks: {error}");
        std::process::exit(1);
    }
}

/// All parts, or those that are named.
fn all(arguments: &[String]) -> Outcome<()> {
    // Cargo passes `--bench`.
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let rounds = if has("--quick") { QUICK } else { FULL };
    let wanted = |part: &str| arguments.iter().all(|argument| argument.starts_with('-')) || has(part);
    if wanted("memory") {
        memory::run(rounds.memory)?;
    }
    Netns::new()?.run(|| {
        if wanted("sandbox") || wanted("many") {
            sandboxes(rounds, wanted("sandbox"), wanted("many"))?;
        }
        if wanted("transactions") { transactions::run(&rounds.sizes) } else { Ok(()) }
    })?
}

/// Must run on a thread in a namespace of its own.
fn sandboxes(rounds: Rounds, common: bool, many: bool) -> Outcome<()> {
    let internet = Internet::new()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if many {
        runtime.block_on(many::run((rounds.setups / 8).max(3), rounds.connects))?;
    }
    if !common {
        return Ok(());
    }
    runtime.block_on(async {
        setups(rounds, "proxy only", Policy::builder().allow("example.com:443")?.build()?).await?;
        let direct = ["203.0.113.9:80", "203.0.113.9:443", "[2001:db8::9]:80"];
        let mut policy = Policy::builder().allow("example.com:443")?;
        for endpoint in direct {
            policy = policy.direct(endpoint)?;
        }
        let policy = policy.build()?;
        // Without `force_forwarding` (Linux 6.17) the host can't forward IPv6 for one interface alone.
        let policy = match probe(policy).await {
            Ok(policy) => policy,
            Err(error) => {
                println!("(no IPv6 among the direct endpoints: {error})\n");
                Policy::builder().allow("example.com:443")?.direct(direct[0])?.direct(direct[1])?.build()?
            }
        };
        setups(rounds, "direct endpoints", policy).await?;
        connects(rounds, &internet).await
    })
}

async fn probe(policy: Policy) -> Outcome<Policy> {
    Sandbox::prepare(&Host::open()?, policy.clone()).await?.close().await?;
    settle()?;
    Ok(policy)
}

/// Policy to ready, and down again.
async fn setups(rounds: Rounds, what: &str, policy: Policy) -> Outcome<()> {
    let (mut first, mut next, mut close, mut close_next) = <(Times, Times, Times, Times)>::default();
    let mut ordinary = ordinary::Ways::default();
    let (mut raw_up, mut raw_down) = <(Times, Times)>::default();
    for round in 0..=rounds.setups {
        // The first round warms up.
        let kept = round > 0;

        let start = Instant::now();
        let host = Host::open()?;
        let sandbox = Sandbox::prepare(&host, policy.clone()).await?;
        first.note(kept, start);
        let plan = sandbox.plan().clone();

        // Another one on the same host.
        let start = Instant::now();
        let second = Sandbox::prepare(&host, policy.clone()).await?;
        next.note(kept, start);
        let start = Instant::now();
        second.close().await?;
        close_next.note(kept, start);

        let start = Instant::now();
        sandbox.close().await?;
        close.note(kept, start);
        drop(host);
        settle()?;

        ordinary.round(kept, &plan)?;
        settle()?;

        let start = Instant::now();
        let wired = raw::Wired::new(&plan)?;
        raw_up.note(kept, start);
        let start = Instant::now();
        wired.close()?;
        raw_down.note(kept, start);
        settle()?;
    }
    let missing = ordinary.missing();
    let mut table = Table::new(&format!("one sandbox, {what}"), ["ip + nft -f", "raw netlink"]);
    table.row(
        Row::new("first of a host, policy to ready", first)
            .other(ordinary.up.as_ref(), &missing)
            .other(Some(&raw_up), ""),
    );
    table.row(Row::new("another one", next).other(ordinary.up.as_ref(), &missing).other(Some(&raw_up), ""));
    table.row(
        Row::new("close, the host's last", close).other(ordinary.down.as_ref(), &missing).other(Some(&raw_down), ""),
    );
    table.row(
        Row::new("close, others remain", close_next).other(ordinary.down.as_ref(), &missing).other(Some(&raw_down), ""),
    );
    table.print();
    Ok(())
}

/// Waits until what went down is gone: the kernel takes interfaces apart on its own time, and holds locks that the next set-up needs.
fn settle() -> Outcome<()> {
    let mut links = rtnetlink::Socket::open()?;
    for _ in 0..5_000 {
        // Loopback and the uplink.
        if links.links()?.len() <= 2 {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let left: Vec<String> = links.links()?.into_iter().map(|link| link.name).collect();
    Err(format!("interfaces of a sandbox are still there after ten seconds: {}", left.join(", ")).into())
}

/// How long a program inside waits for a connection, or for the refusal of one.
async fn connects(rounds: Rounds, internet: &Internet) -> Outcome<()> {
    let host = Host::open()?;
    let policy = Policy::builder().direct("203.0.113.9:80")?.build()?;
    let sandbox = Sandbox::prepare(&host, policy).await?;
    let [served, silent]: [IpAddr; 2] = [internet.served.into(), internet.silent.into()];
    let connect = |to: IpAddr, port: u16| -> Outcome<Times> {
        let mut times = Times::default();
        for round in 0..=rounds.connects {
            let start = Instant::now();
            // Refused or not is what the caller knows; either is an answer.
            let _ = TcpStream::connect((to, port));
            times.note(round > 0, start);
        }
        Ok(times)
    };
    if sandbox.netns().run(|| TcpStream::connect((served, 80)).is_err() || TcpStream::connect((silent, 80)).is_ok())? {
        return Err("the fence does not stand as it should".into());
    }
    let (allowed, refused) = sandbox.netns().run(|| (connect(served, 80), connect(silent, 80)))?;
    // The same without a fence: the internet's own reset is the ordinary refusal.
    let (open, closed) = (connect(served, 80)?, connect(served, 81)?);
    let mut table = Table::new("connect, as the program sees it", ["from the host, no fence", ""]);
    table.row(Row::new("to a direct endpoint", allowed?).other(Some(&open), ""));
    table.row(Row::new("to anything else: refused", refused?).other(Some(&closed), ""));
    table.print();
    sandbox.close().await?;
    settle()
}
