//! A program that changes rules of its own without pause.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ringfence::kernel::nftables::Socket;
use ringfence::nft::{Family, Object, Table, TableId, TableName, Transaction, Verb};

use super::{Fenced, same, world};
use crate::support::until;
use crate::world::good;

/// What a process has used of a processor, in ticks of which there are a hundred a second.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// The supervisor below the program that starts it.
fn supervisor(pid: u32) -> u32 {
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(comm, "ringfence\n");
    pid
}

#[test]
fn changes_of_other_tables_cost_little_and_hide_nothing() {
    let Some(world) = world() else { return };
    let fenced = Fenced::start(&world, "busy", "");
    let before = fenced.rules();
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (stopped, counted) = (stop.clone(), count.clone());
    let netns = fenced.netns.try_clone().unwrap();
    let noise = std::thread::spawn(move || {
        netns
            .run(|| {
                let mut socket = Socket::open().unwrap();
                let table = Table::new(TableId { family: Family::Ip, name: TableName::new("own").unwrap() });
                let mut both = Transaction::new();
                both.push(Verb::Add, Object::Table(table.clone()));
                both.push(Verb::Delete, Object::Table(table));
                while !stopped.load(Ordering::Relaxed) {
                    socket.commit(&both).unwrap();
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            })
            .unwrap();
    });
    let pid = supervisor(fenced.child.id());
    let (start, used) = (std::time::Instant::now(), ticks(pid));
    until("there was some noise", || count.load(Ordering::Relaxed) >= 20_000);
    let (took, used) = (start.elapsed(), ticks(pid) - used);
    let rate = count.load(Ordering::Relaxed) as f64 / took.as_secs_f64();
    println!(
        "{rate:.0} commits of others a second cost the supervisor {:.1} % of a processor",
        used as f64 / took.as_secs_f64()
    );
    assert!(fenced.told().is_empty());
    // In the midst of it.
    good(fenced.nft("delete table inet ringfence"));
    fenced.told_of(1);
    stop.store(true, Ordering::Relaxed);
    noise.join().unwrap();
    assert!(same(&fenced.rules(), &before));
    let (status, said) = fenced.end();
    assert_eq!(status, Some(1), "{said}");
}
