//! The host's table: it belongs to the supervisor's socket, and the kernel refuses everybody else.

use std::os::fd::OwnedFd;

use ringfence::kernel::netns::Netns;
use ringfence::kernel::nftables::Socket;
use ringfence::nft::{Object, Table, TableFlags, TableId, Transaction, Verb};
use ringfence::wire::nftables::encode;
use rustix::net::{AddressFamily, SendFlags, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::{Fenced, rules, same, world};
use crate::support::until;
use crate::world::{good, text};

#[test]
fn the_hosts_table_can_be_changed_by_nobody_else() {
    let Some(world) = world() else { return };
    let fenced = Fenced::start(&world, "held", "--tampering end");
    let host = &world.outer.host;
    let nft = |command: &str| {
        let mut nft = world.program("nft");
        nft.args(command.split_whitespace());
        world.output(nft)
    };
    let before = rules(host);
    let table = before.tables.iter().find(|table| table.id.name.as_str().starts_with("ringfence-")).unwrap();
    let table = table.id.name.as_str();
    let handle = before.rules.iter().find(|rule| rule.chain.as_str() == "refuse").unwrap().handle.unwrap().0;
    for harm in [
        format!("delete table inet {table}"),
        format!("flush table inet {table}"),
        format!("add table inet {table} {{ flags dormant; }}"),
        format!("insert rule inet {table} from-sandbox accept"),
        format!("insert rule inet {table} input accept"),
        format!("delete rule inet {table} refuse handle {handle}"),
        format!("flush chain inet {table} refuse"),
        format!("rename chain inet {table} refuse elsewhere"),
        format!("add chain inet {table} theirs"),
        format!("flush set inet {table} links"),
        format!("add element inet {table} audited {{ 1 }}"),
    ] {
        let output = nft(&harm);
        assert!(!output.status.success(), "{harm} was carried out");
        assert!(text(&output.stderr).contains("Operation not permitted"), "{harm}: {}", text(&output.stderr));
    }
    // This one passes it by, and so does a service that begins with it, as firewalld and nftables.service do when they load anew.
    good(nft("flush ruleset"));
    assert!(same(&rules(host), &before));
    // A table of somebody else's can take away what ours lets out, and let nothing out that ours does not.
    good(nft("add table inet theirs"));
    for hook in ["prerouting", "input", "forward", "postrouting"] {
        for priority in [-500, 500] {
            let name = format!("{hook}{}", priority + 500);
            good(nft(&format!(
                "add chain inet theirs {name} {{ type filter hook {hook} priority {priority}; policy accept; }}"
            )));
            good(nft(&format!("add rule inet theirs {name} accept")));
        }
    }
    assert!(fenced.reaches("203.0.113.9:5432") && fenced.reaches("[2001:db8::9]:5432"));
    good(fenced.nft("list ruleset"));
    for refused in ["203.0.113.10:5432", "[2001:db8::a]:5432", "203.0.113.9:80", "198.51.100.1:80"] {
        assert!(!fenced.reaches(refused), "{refused}");
    }
    assert!(fenced.told().is_empty());
    let (status, said) = fenced.end();
    assert_eq!(status, Some(1), "{said}");
}

/// The supervisor's socket that owns the host's table, taken by root of the host: what it takes to change that table without ending its owner.
fn stolen(pid: u32, table: &TableId, host: &Netns) -> OwnedFd {
    let pidfd = pidfd_open(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), PidfdFlags::empty()).unwrap();
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    for descriptor in descriptors {
        let number: i32 = descriptor.file_name().to_str().unwrap().parse().unwrap();
        let Ok(socket) = pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()) else { continue };
        let netlink = sockopt::socket_domain(&socket).is_ok_and(|domain| domain == AddressFamily::NETLINK);
        if !netlink || sockopt::socket_protocol(&socket).ok().flatten() != Some(rustix::net::netlink::NETFILTER) {
            continue;
        }
        // Nothing changes when the owner sets no flag anew; somebody else is refused.
        let owned = Table { flags: TableFlags { owner: true, ..TableFlags::default() }, ..Table::new(table.clone()) };
        let mut harmless = Transaction::new();
        harmless.push(Verb::Add, Object::Table(owned.clone()));
        harmless.push(Verb::Delete, Object::Table(owned));
        let gone = || host.run(|| Socket::open().unwrap().table(table).unwrap().is_none()).unwrap();
        let batch = encode(&harmless).unwrap();
        let _ = rustix::net::send(&socket, batch.as_bytes(), SendFlags::empty());
        if gone() {
            return socket;
        }
    }
    panic!("no socket owns {table}");
}

#[test]
fn with_the_hosts_table_gone_the_rules_inside_let_out_no_more() {
    let Some(world) = world() else { return };
    let fenced = Fenced::start(&world, "alone", "");
    let host = &world.outer.host;
    let before = rules(host);
    let table = before.tables.iter().find(|table| table.id.name.as_str().starts_with("ringfence-")).unwrap();
    let wire = world.outer.watch();
    drop(stolen(fenced.child.id(), &table.id, host));
    for refused in ["203.0.113.10:5432", "[2001:db8::a]:5432", "203.0.113.9:80", "[2001:db8::9]:80", "198.51.100.1:80"]
    {
        assert!(!fenced.reaches(refused), "{refused}");
    }
    // What is let out inside is seen, with nobody who gives it the host's address, and so without an answer.
    let to = "203.0.113.9:5353";
    let send = || std::net::UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"let out", to);
    fenced.netns.run(send).unwrap().unwrap();
    until("what was let out is seen", || wire.frames().iter().any(|frame| frame.holds(b"let out")));
    let ports: Vec<u16> = wire.frames().iter().filter_map(|frame| frame.port()).collect();
    assert!(!ports.contains(&80) && !ports.contains(&5432), "{ports:?}");
    drop(fenced.end());
}
