//! Names: what an answer opens, for how long, and what it never does.

use std::time::{Duration, Instant};

use ringfence::kernel::nftables::Socket;
use ringfence::nft::SetName;

use super::{Authority, Inside, echo, policy};
use crate::world::World;

/// How many IPv4 endpoints are open on the host's side.
pub(super) fn open4(world: &World) -> usize {
    let count = || {
        let mut socket = Socket::open().unwrap();
        let tables = socket.tables().unwrap();
        let ours = tables.iter().filter(|table| table.id.name.as_str().starts_with("ringfence-"));
        let set = SetName::new("direct4").unwrap();
        ours.map(|table| socket.elements(&table.id, &set).unwrap().unwrap_or_default().len()).sum()
    };
    world.outer.host.run(count).unwrap()
}

fn sleep(seconds: f64) {
    std::thread::sleep(Duration::from_secs_f64(seconds));
}

#[test]
fn an_answer_opens_its_addresses_for_its_time_and_a_grace() {
    let Some(world) = World::new() else { return };
    for address in ["203.0.113.9:7", "203.0.113.10:7", "[2001:db8::9]:7"] {
        echo(&world, address);
    }
    let names =
        r#"{"a.direct.example": [1, ["203.0.113.9", "2001:db8::9"]], "b.direct.example": [1, ["203.0.113.10"]]}"#;
    let Some(_authority) = Authority::start(&world, names) else { return };
    let Some(mut inside) = Inside::start(&world, "--name n --dns-grace 1 --direct *.direct.example:7") else { return };
    // Nobody has asked: nothing is open.
    assert_eq!(inside.ask("tcp 203.0.113.9 7"), "ECONNREFUSED");
    assert_eq!(inside.ask("tcp a.direct.example 7").split(' ').next(), Some("connected"));
    assert_eq!(inside.ask("tcp 203.0.113.9 7"), "connected 203.0.113.9");
    assert_eq!(inside.ask("tcp 2001:db8::9 7"), "connected 2001:db8::9");
    // Another address, and another port.
    assert_eq!(inside.ask("tcp 203.0.113.10 7"), "ECONNREFUSED");
    assert_eq!(inside.ask("tcp 203.0.113.9 8"), "ECONNREFUSED");
    // What nobody uses runs out: a second of the answer's, one of grace, and what the keeper takes to look.
    sleep(6.0);
    assert_eq!(inside.ask("tcp 203.0.113.9 7"), "ECONNREFUSED");
    // And is there again when somebody asks again.
    assert_eq!(inside.ask("tcp b.direct.example 7"), "connected 203.0.113.10");
    assert_eq!(inside.ask("tcp a.direct.example 7").split(' ').next(), Some("connected"));
    assert_eq!(inside.end(), "");
}

#[test]
fn what_is_in_use_stays_open_and_what_is_revoked_does_not() {
    let Some(world) = World::new() else { return };
    echo(&world, "203.0.113.9:7");
    echo(&world, "203.0.113.9:8");
    let Some(_authority) = Authority::start(&world, r#"{"a.direct.example": [1, ["203.0.113.9"]]}"#) else { return };
    let Some(mut inside) =
        Inside::start(&world, "--name use --dns-grace 0 --direct a.direct.example:7,a.direct.example:8")
    else {
        return;
    };
    assert_eq!(inside.ask("keep k a.direct.example 7"), "connected 203.0.113.9");
    // Idle for longer than the answer held: the flow lives on, and so does its address on that port, and no other.
    sleep(8.0);
    assert_eq!(inside.ask("echo k"), "echoed True");
    assert_eq!(inside.ask("tcp 203.0.113.9 8"), "ECONNREFUSED");
    policy(&world, "revoke use --direct a.direct.example:7");
    assert_eq!(inside.ask("echo k"), "ECONNABORTED");
    assert_eq!(inside.ask("tcp 203.0.113.9 7"), "ECONNREFUSED");
    // The name may still be asked for, for the sake of the other endpoint; then no more.
    assert_eq!(inside.ask("tcp a.direct.example 8"), "connected 203.0.113.9");
    policy(&world, "set use");
    assert_eq!(inside.ask("resolve a.direct.example"), "gaierror");
    policy(&world, "allow use --direct a.direct.example:7");
    assert_eq!(inside.ask("tcp a.direct.example 7"), "connected 203.0.113.9");
    assert_eq!(inside.end(), "");
}

#[test]
fn no_answer_opens_what_is_not_the_names_to_give() {
    let Some(world) = World::new() else { return };
    let names = r#"{
        "loop.bad.example": [60, ["127.0.0.1"]], "metadata.bad.example": [60, ["169.254.169.254"]], "own.bad.example": [60, ["198.51.100.1"]],
        "own6.bad.example": [60, ["2001:db8:1::1"]], "private.bad.example": [60, ["10.1.2.3"]], "mixed.bad.example": [60, ["203.0.113.9", "192.168.0.1"]],
        "gateway.bad.example": [60, ["10.200.0.1"]], "ula.bad.example": [60, ["fd00::1"]],
        "fine.bad.example": [60, ["203.0.113.9"]], "db.internal": [60, ["10.1.2.3"]], "may.good.example": [60, ["10.1.2.3"]]
    }"#;
    let Some(_authority) = Authority::start(&world, names) else { return };
    let flags = "--name bad --direct *.bad.example:7,db.internal:7,*.good.example:7 --private-name *.good.example";
    let Some(mut inside) = Inside::start(&world, flags) else { return };
    for name in ["loop", "metadata", "own", "own6", "private", "mixed", "gateway", "ula"] {
        assert_eq!(inside.ask(&format!("resolve {name}.bad.example")), "gaierror", "{name}");
    }
    assert_eq!(inside.ask("resolve fine.bad.example"), "203.0.113.9");
    assert_eq!(inside.ask("resolve db.internal"), "10.1.2.3");
    assert_eq!(inside.ask("resolve may.good.example"), "10.1.2.3");
    for address in ["198.51.100.1", "169.254.169.254", "192.168.0.1"] {
        assert_eq!(inside.ask(&format!("tcp {address} 7")), "ECONNREFUSED", "{address}");
    }
    assert_eq!(inside.end(), "");
}

#[test]
fn every_answer_may_be_another() {
    let Some(world) = World::new() else { return };
    for address in ["203.0.113.9:7", "203.0.113.10:7"] {
        echo(&world, address);
    }
    let names = r#"{"turns.direct.example": [-1, ["203.0.113.9", "203.0.113.10"]]}"#;
    let Some(_authority) = Authority::start(&world, names) else { return };
    let Some(mut inside) = Inside::start(&world, "--name turns --direct turns.direct.example:7") else { return };
    let start = Instant::now();
    let (mut seen, mut count) = (std::collections::BTreeSet::new(), 0);
    while start.elapsed() < Duration::from_secs(4) {
        let said = inside.ask("tcp turns.direct.example 7");
        assert!(said.starts_with("connected "), "{said}");
        seen.insert(said);
        count += 1;
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
    println!("{count} connections by name");
    // What was never handed out is refused, and 20 s after the last answer nothing is open any more.
    assert_eq!(inside.ask("tcp 203.0.113.11 7"), "ECONNREFUSED");
    let last = Instant::now();
    assert!(open4(&world) > 0);
    while open4(&world) > 0 {
        assert!(last.elapsed() < Duration::from_secs(20), "{} elements are left", open4(&world));
        sleep(0.1);
    }
    println!("empty after {:?}", last.elapsed());
    assert_eq!(inside.ask("tcp turns.direct.example 7").split(' ').next(), Some("connected"));
    assert_eq!(inside.end(), "");
}

#[test]
fn without_our_resolver_names_are_resolved_at_the_start() {
    let Some(world) = World::new() else { return };
    echo(&world, "203.0.113.9:7");
    let Some(_authority) = Authority::start(&world, r#"{"a.direct.example": [60, ["203.0.113.9"]]}"#) else { return };
    let Some(mut inside) = Inside::start(&world, "--dns off --direct a.direct.example:7") else { return };
    assert_eq!(inside.ask("tcp 203.0.113.9 7"), "connected 203.0.113.9");
    assert_eq!(inside.end(), "");
    // The server that is named answers inside, over UDP.
    let Some(mut inside) = Inside::start(&world, "--dns 198.51.100.254 --direct a.direct.example:7") else { return };
    assert_eq!(inside.ask("resolve a.direct.example"), "203.0.113.9");
    assert_eq!(inside.ask("tcp a.direct.example 7"), "connected 203.0.113.9");
    assert_eq!(inside.end(), "");
    let output = world.run("run --dns off --direct nobody.direct.example:7 -- true");
    assert_eq!(output.status.code(), Some(125));
    assert!(crate::world::text(&output.stderr).contains("--direct: can't resolve `nobody.direct.example`"));
    let output = world.run("run --dns off --direct *.direct.example:7 -- true");
    assert!(crate::world::text(&output.stderr).contains("is not possible beside `dns = off`"));
}
