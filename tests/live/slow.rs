//! A program that keeps the kernel busy in its own namespace.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ringfence::kernel::netns::Netns;
use ringfence::kernel::nftables;
use ringfence::nft::{Chain, ChainName, Family, Object, Rule, Table, TableId, TableName, Transaction, Verb, Verdict};
use ringfence::policy::{Endpoint, Policy, Transport};
use ringfence::{Host, Sandbox};

use crate::support::Outer;

/// Commits long transactions until it is told to stop. `busy` is odd while the kernel is at one.
fn keep_busy(netns: &Netns, busy: &AtomicUsize, stop: &AtomicBool) {
    let table = TableId { family: Family::Inet, name: TableName::new("busy").unwrap() };
    let chain = ChainName::new("busy").unwrap();
    let mut long = Transaction::new();
    long.push(Verb::Add, Object::Table(Table::new(table.clone())));
    long.push(Verb::Add, Object::Chain(Chain::new(&table, &chain)));
    for _ in 0..20_000 {
        long.push(Verb::Add, Object::Rule(Rule::new(&table, &chain).counter().verdict(Verdict::Accept)));
    }
    let mut gone = Transaction::new();
    gone.push(Verb::Delete, Object::Table(Table::new(table)));
    let mut socket = netns.run(nftables::Socket::open).unwrap().unwrap();
    // Never for ever, should the test fail.
    for _ in 0..200 {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        busy.fetch_add(1, Ordering::SeqCst);
        socket.commit(&long).unwrap();
        busy.fetch_add(1, Ordering::SeqCst);
        socket.commit(&gone).unwrap();
    }
}

/// What is ordered holds outside, and is told, while the kernel has yet to get to it inside.
#[test]
fn nobody_waits_for_what_takes_long_inside() {
    let Some(outer) = Outer::new() else { return };
    let tried = outer.host.run(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let host = Host::open().unwrap();
            let policy = Policy::builder().direct("203.0.113.9:1").unwrap().build().unwrap();
            let sandbox = Sandbox::prepare(&host, policy).await.unwrap();
            let control = sandbox.control();
            let (busy, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
            let hostile = std::thread::spawn({
                let (netns, busy, stop) = (sandbox.netns().try_clone().unwrap(), busy.clone(), stop.clone());
                move || keep_busy(&netns, &busy, &stop)
            });
            let mut seen = false;
            for port in 2..100 {
                let to = Endpoint::parse(&format!("203.0.113.9:{port}"), Transport::Tcp).unwrap();
                let (ordered, entry) = (control.clone(), to.clone());
                let order = tokio::spawn(async move { ordered.allow([entry]).await });
                while !order.is_finished() && !seen {
                    let before = busy.load(Ordering::SeqCst);
                    let holds = control.policy().direct.iter().any(|there| there.value == to);
                    let after = busy.load(Ordering::SeqCst);
                    // The kernel was at the same transaction all the while, and the order is not through.
                    seen = holds && before == after && before % 2 == 1 && !order.is_finished();
                    tokio::task::yield_now().await;
                }
                order.await.unwrap().unwrap();
                if seen {
                    break;
                }
            }
            stop.store(true, Ordering::SeqCst);
            hostile.join().unwrap();
            sandbox.close().await.unwrap();
            seen
        })
    });
    assert!(tried.unwrap(), "the policy was told only when the commit inside was through");
}

/// Whoever keeps a [`ringfence::Control`] does not keep the sandbox's namespace, whatever was about to look at it when it closed.
#[test]
fn a_control_that_is_kept_holds_nothing() {
    let Some(outer) = Outer::new() else { return };
    let left = outer.host.run(|| {
        // One thread: what an order wakes gets to run when the sandbox is closed, not before.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let host = Host::open().unwrap();
            let mut controls = Vec::new();
            let mut policy = Policy::builder();
            // Closing takes long enough for others to come in between.
            for port in 1..500 {
                policy = policy.direct(&format!("203.0.113.9:{port}")).unwrap();
            }
            let policy = policy.build().unwrap();
            for _ in 0..20 {
                let sandbox = Sandbox::prepare(&host, policy.clone()).await.unwrap();
                let control = sandbox.control();
                let to = Endpoint::parse("203.0.113.9:5432", Transport::Tcp).unwrap();
                control.allow([to]).await.unwrap();
                sandbox.close().await.unwrap();
                controls.push(control);
            }
            let mut links = ringfence::kernel::rtnetlink::Socket::open().unwrap();
            let mut left = usize::MAX;
            for _ in 0..3_000 {
                left = links.links().unwrap().iter().filter(|link| link.name.starts_with("rf")).count();
                if left == 0 {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            let gone = controls[0].allow([Endpoint::parse("203.0.113.9:9", Transport::Tcp).unwrap()]).await;
            assert_eq!(gone.unwrap_err().kind(), ringfence::ErrorKind::Conflict);
            left
        })
    });
    assert_eq!(left.unwrap(), 0, "wires of closed sandboxes are held");
}
