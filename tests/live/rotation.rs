//! Programs that everybody uses, and a name whose server gives another address in every answer.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringfence::kernel::rtnetlink::{Batch, Request, Socket};
use ringfence::link::IfIndex;

use super::by_name::open4;
use super::{Authority, Inside};
use crate::support::python;
use crate::world::{World, finish, oracle, read_head, text};

/// Connections by name, each.
const TIMES: usize = 500;

/// The addresses that take turns, and one that is never handed out.
const TURNS: std::ops::Range<u8> = 20..140;
const NEVER: &str = "203.0.113.200";

#[test]
fn five_hundred_connections_each_by_curl_python_and_node() {
    let Some(world) = World::new() else { return };
    let mut addresses: Vec<String> = TURNS.map(|last| format!("203.0.113.{last}")).collect();
    let names = format!(r#"{{"turns.direct.example": [-1, {addresses:?}]}}"#);
    addresses.push(NEVER.to_owned());
    let mut own = Batch::from([Request::up(IfIndex(1))]);
    for address in &addresses {
        own.push(Request::add_address(IfIndex(1), format!("{address}/32").parse().unwrap()));
    }
    world.outer.internet.run(|| Socket::open().unwrap().commit(own)).unwrap().unwrap();
    let seen: Arc<Mutex<BTreeSet<IpAddr>>> = Arc::default();
    let note = seen.clone();
    world.serve("0.0.0.0:8000", move |mut stream| {
        note.lock().unwrap().insert(stream.local_addr().unwrap().ip());
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    });
    let Some(_authority) = Authority::start(&world, &names) else { return };

    let url = "http://turns.direct.example:8000/";
    let mut programs = Vec::new();
    if oracle("curl").is_some() {
        programs.push(("curl", format!("for i in $(seq {TIMES}); do curl -sS -o /dev/null {url} && echo ok; done")));
    }
    if let Some(python) = python() {
        let code = format!(
            "import time, urllib.request as u\nfor _ in range({TIMES}):\n    if u.urlopen(\"{url}\").read() == b\"ok\": print(\"ok\")\n    time.sleep(0.02)\n"
        );
        programs.push(("python", format!("{python} -I -c '{code}'")));
    }
    if oracle("node").is_some() {
        let code = format!(
            "const http = require(\"http\"); let left = {TIMES};\n\
             const next = () => {{ if (left-- > 0) http.get(\"{url}\", {{agent: false}}, r => r.resume().on(\"end\", () => {{ console.log(\"ok\"); setTimeout(next, 20); }})); }};\n\
             next();"
        );
        programs.push(("node", format!("node -e '{code}'")));
    }
    let flags = "run -q --name turns --direct turns.direct.example:8000 -- sh -c";
    let start = Instant::now();
    // Beside each other, in a sandbox each: each learns of addresses on its own.
    let children: Vec<_> = programs
        .iter()
        .map(|(name, line)| {
            let flags = flags.replace("--name turns", &format!("--name turns-{name}"));
            let mut command = world.ringfence(flags.split(' '));
            command.arg(line);
            (name, world.spawn(command))
        })
        .collect();
    for (name, child) in children {
        let output = finish(child);
        let (out, error) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{name}: {error}");
        assert_eq!((out.matches("ok").count(), error.as_str()), (TIMES, ""), "{name}");
    }
    let handed_out = seen.lock().unwrap().len();
    println!(
        "{} programs, {TIMES} connections each, {handed_out} addresses, none refused, in {:?}",
        programs.len(),
        start.elapsed()
    );
    assert!(handed_out > 3, "{:?}", seen.lock().unwrap());

    let Some(mut inside) = Inside::start(&world, "--name turns --direct turns.direct.example:8000") else { return };
    assert!(inside.ask("tcp turns.direct.example 8000").starts_with("connected 203.0.113."));
    assert_eq!(inside.ask(&format!("tcp {NEVER} 8000")), "ECONNREFUSED");
    let last = Instant::now();
    assert!(open4(&world) > 0);
    while open4(&world) > 0 {
        assert!(last.elapsed() < Duration::from_secs(20), "{} elements are left", open4(&world));
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("empty {:?} after the last answer", last.elapsed());
    assert!(!seen.lock().unwrap().contains(&NEVER.parse().unwrap()));
    let said = inside.report();
    assert!(said.contains(NEVER) || said.contains("refused once"), "{said}");
}
