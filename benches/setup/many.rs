//! A policy of very many endpoints: what committing it takes beyond what the kernel takes for the elements alone, and what a packet pays for it.

use std::net::UdpSocket;
use std::time::Instant;

use netlink_sys::protocols::NETLINK_NETFILTER;
use ringfence::kernel::netns::Netns;
use ringfence::nft::Ruleset;
use ringfence::policy::{Endpoint, Policy, Transport};
use ringfence::wire::nftables;
use ringfence::{Host, Sandbox};

use super::table::{Row, Table};
use super::time::{Times, processor};
use super::{Outcome, raw, settle};

const MANY: u32 = 10_000;
/// Packets that are timed together: one alone is too short for the clock.
const BURST: usize = 100;

pub async fn run(rounds: usize, packets: usize) -> Outcome<()> {
    let (one, many) = (policy(1)?, policy(MANY)?);
    let (mut ready, mut ready_one, mut by_hand) = <(Times, Times, Times)>::default();
    let (mut work, mut work_one, mut work_by_hand) = <(Times, Times, Times)>::default();
    let (mut more, mut more_one) = <(Times, Times)>::default();
    let (mut packet, mut packet_one) = <(Times, Times)>::default();
    for round in 0..=rounds {
        let kept = round > 0;
        for (policy, ready, work, more, packet) in [
            (&one, &mut ready_one, &mut work_one, &mut more_one, &mut packet_one),
            (&many, &mut ready, &mut work, &mut more, &mut packet),
        ] {
            let host = Host::open()?;
            let (start, before) = (Instant::now(), processor());
            let sandbox = Sandbox::prepare(&host, policy.clone()).await?;
            ready.note(kept, start);
            work.add(kept, processor() - before);
            let plan = sandbox.plan().clone();
            let control = sandbox.control();
            let endpoint = Endpoint::parse("203.0.113.9:5432", Transport::Tcp)?;
            let start = Instant::now();
            control.allow([endpoint]).await?;
            more.note(kept, start);
            sandbox.netns().run(|| -> Outcome<()> {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                // Nobody is there, and its host says so now and then.
                socket.send_to(b"x", "203.0.113.9:9")?;
                for _ in 0..packets / BURST {
                    let start = Instant::now();
                    for _ in 0..BURST {
                        socket.send_to(b"x", "203.0.113.9:9")?;
                    }
                    packet.note(kept, start);
                }
                Ok(())
            })??;
            sandbox.close().await?;
            drop(host);
            settle()?;
            if policy.direct.len() > 2 {
                let bytes = [elements(&plan.inside)?, elements(&plan.outside)?];
                let (_netns, socket) = Netns::create_with(|| raw::open(NETLINK_NETFILTER))?;
                let socket = socket?;
                let (start, before) = (Instant::now(), processor());
                for bytes in &bytes {
                    raw::deliver(&socket, bytes)?;
                }
                by_hand.note(kept, start);
                work_by_hand.add(kept, processor() - before);
            }
        }
    }
    let over = ready.median().saturating_sub(by_hand.median());
    let work_over = work.median().saturating_sub(work_by_hand.median());
    let mut table = Table::new("a policy of 10,000 endpoints", ["a policy of one", "the same elements by hand"]);
    table.row(Row::new("policy to ready", ready).other(Some(&ready_one), "").other(Some(&by_hand), ""));
    table.row(Row::new("the same, processor time", work).other(Some(&work_one), "").other(Some(&work_by_hand), ""));
    table.row(Row::new("one endpoint more", more).other(Some(&more_one), ""));
    table.row(Row::new("100 UDP packets to one of them", packet).other(Some(&packet_one), ""));
    table.print();
    println!("over the raw cost: {over:?}, of the processors {work_over:?}\n");
    Ok(())
}

/// One endpoint that packets are sent to, and so many in all.
fn policy(count: u32) -> Outcome<Policy> {
    let mut policy = Policy::builder().direct_udp("203.0.113.9:9")?;
    for n in 1..count {
        policy = policy.direct(&format!("203.0.{}.{}:{}", 113 + n % 2, n % 250 + 1, 1000 + n))?;
    }
    Ok(policy.build()?)
}

/// The sets of a ruleset and their elements, as bytes.
fn elements(ruleset: &Ruleset) -> Outcome<Vec<u8>> {
    let tables = ruleset.tables.iter().filter(|table| ruleset.sets.iter().any(|set| set.table == table.id));
    let tables = tables.cloned().collect();
    let (sets, elements) = (ruleset.sets.clone(), ruleset.elements.clone());
    Ok(nftables::encode(&Ruleset { tables, sets, elements, ..Ruleset::default() }.create())?.as_bytes().to_vec())
}
