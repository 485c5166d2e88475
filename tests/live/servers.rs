//! `--dns`: whom a program asks, and what may be learned there. The server is bind9, in the internet, at an address of its own.

use std::io::Read;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use ringfence::kernel::rtnetlink::{Batch, Request, Socket};
use ringfence::link::IfIndex;

use super::by_name::open4;
use super::{Authority, Inside, echo};
use crate::support::until;
use crate::world::{World, oracle, text};

/// More than fit into 4,096 bytes.
const MANY: usize = 300;

/// bind9 at 203.0.113.77, on ports 53 and 5353.
struct Named(Child);

impl Named {
    fn start(world: &World) -> Option<Self> {
        let program = oracle("named")?;
        oracle("dig")?;
        let own = Request::add_address(IfIndex(1), "203.0.113.77/32".parse().unwrap());
        world.outer.internet.run(|| Socket::open().unwrap().commit(Batch::from([own]))).unwrap().unwrap();
        let folder = world.directory().join("named");
        std::fs::create_dir(&folder).unwrap();
        let mut zone =
            "$TTL 60\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 203.0.113.77\na A 203.0.113.9\na AAAA 2001:db8::9\n"
                .to_owned();
        for number in 0..MANY {
            zone.push_str(&format!("many A 203.0.{}.{}\n", 113 + number / 200 * 2, number % 200 + 9));
        }
        std::fs::write(folder.join("zone"), zone).unwrap();
        let conf = format!(
            "options {{ directory \"{}\"; listen-on port 53 {{ 203.0.113.77; }}; listen-on port 5353 {{ 203.0.113.77; }}; listen-on-v6 {{ none; }}; \
             recursion no; dnssec-validation no; empty-zones-enable no; pid-file none; session-keyfile none; max-records-per-type 0; }};\n\
             controls {{ }};\nzone \"direct.example\" {{ type primary; file \"zone\"; }};\n",
            folder.display()
        );
        std::fs::write(folder.join("named.conf"), conf).unwrap();
        std::fs::write(world.directory().join("resolv.conf"), "nameserver 203.0.113.77\n").unwrap();
        std::fs::write(world.directory().join("nsswitch.conf"), "hosts: files dns\npasswd: files\ngroup: files\n")
            .unwrap();
        let mut command = world.program(program);
        command.arg("-g").arg("-c").arg(folder.join("named.conf")).stdout(Stdio::null());
        command.stderr(std::fs::File::create(folder.join("log")).unwrap());
        let named = Self(world.spawn_there(command));
        until("named answers", || {
            let mut dig = world.program("dig");
            dig.args(["@203.0.113.77", "+short", "+time=1", "+tries=1", "a.direct.example"]);
            text(&world.output(dig).stdout).contains("203.0.113.9")
        });
        Some(named)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn inside(world: &World, flags: &str, line: &str) -> String {
    let arguments = "run -q".split(' ').chain(flags.split_whitespace()).chain(["--", "sh", "-c", line]);
    let output = world.output(world.ringfence(arguments));
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_server_that_is_named_is_asked_over_udp_and_tcp_and_no_other_is() {
    let Some(world) = World::new() else { return };
    let Some(_named) = Named::start(&world) else { return };
    let ask = "dig +short +time=2 +tries=1";
    let wire = world.outer.watch();
    let said = inside(
        &world,
        "--dns 203.0.113.77",
        &format!(
            "{ask} a.direct.example; {ask} +tcp a.direct.example; {ask} many.direct.example | wc -l; getent ahostsv4 many.direct.example | grep -c STREAM; grep nameserver /etc/resolv.conf"
        ),
    );
    assert_eq!(said, format!("203.0.113.9\n203.0.113.9\n{MANY}\n{MANY}\nnameserver 203.0.113.77\n"));
    let to = |port| {
        move |frame: &crate::support::Frame| {
            frame.port() == Some(port) && frame.destination() == "203.0.113.77".parse().ok()
        }
    };
    assert_eq!(wire.strangers(to(53)), []);
    drop(wire);
    let wire = world.outer.watch();
    let said = inside(
        &world,
        "--dns 203.0.113.77:5353",
        &format!(
            "{ask} -p 5353 @203.0.113.77 a.direct.example; {ask} -p 5353 +tcp @203.0.113.77 a.direct.example; {ask} @203.0.113.77 a.direct.example | grep -c '^203'; {ask} @203.0.113.10 a.direct.example | grep -c '^203'"
        ),
    );
    assert_eq!(said, "203.0.113.9\n203.0.113.9\n0\n0\n");
    assert_eq!(wire.strangers(to(5353)), []);
    // By variables, in both spellings.
    for variable in ["RINGFENCE_DNS_SERVER", "OPENSHELL_DNS_SERVER"] {
        let mut command = world.ringfence(["run", "-q", "--", "sh", "-c", &format!("{ask} +tcp a.direct.example")]);
        command.env(variable, "203.0.113.77");
        assert_eq!(text(&world.output(command).stdout), "203.0.113.9\n", "{variable}");
    }
}

#[test]
fn an_answer_of_more_than_four_kilobytes_is_whole_and_opens_every_address() {
    let Some(world) = World::new() else { return };
    echo(&world, "203.0.113.9:7");
    let Some(_named) = Named::start(&world) else { return };
    for mode in ["auto", "open"] {
        let flags = format!("--dns {mode} --direct many.direct.example:7");
        let Some(mut inside) = Inside::start(&world, &flags) else { return };
        assert_eq!(inside.ask("tcp 203.0.113.9 7"), "ECONNREFUSED");
        assert_eq!(inside.ask("resolve many.direct.example").split(' ').count(), MANY);
        assert_eq!(open4(&world), MANY);
        assert_eq!(inside.ask("tcp 203.0.113.9 7"), "connected 203.0.113.9");
        // Names that are not of the policy: with `open` they are found, and open nothing.
        let said = inside.ask("resolve a.direct.example");
        assert_eq!(said, if mode == "open" { "2001:db8::9 203.0.113.9" } else { "gaierror" });
        assert_eq!(open4(&world), MANY);
        assert_eq!(inside.ask("tcp 2001:db8::9 7"), "ECONNREFUSED");
        inside.end();
    }
}

#[test]
fn without_our_resolver_names_are_looked_up_again() {
    let Some(world) = World::new() else { return };
    echo(&world, "203.0.113.9:7");
    echo(&world, "203.0.113.10:7");
    let Some(first) = Authority::start(&world, r#"{"a.direct.example": [1, ["203.0.113.9"]]}"#) else { return };
    let mut both = Vec::new();
    for mode in ["off", "198.51.100.254"] {
        let Some(mut inside) = Inside::start(&world, &format!("--dns {mode} --direct a.direct.example:7")) else {
            return;
        };
        assert_eq!(inside.ask("tcp 203.0.113.9 7"), "connected 203.0.113.9");
        assert_eq!(inside.ask("tcp 203.0.113.10 7"), "ECONNREFUSED");
        both.push(inside);
    }
    drop(first);
    let Some(_second) = Authority::start(&world, r#"{"a.direct.example": [1, ["203.0.113.10"]]}"#) else { return };
    let start = Instant::now();
    for inside in &mut both {
        while inside.ask("tcp 203.0.113.10 7") != "connected 203.0.113.10" {
            assert!(start.elapsed() < Duration::from_secs(50), "not looked up again");
            std::thread::sleep(Duration::from_millis(200));
        }
        println!("found after {:?}", start.elapsed());
    }
    // What nobody uses and the name does not lead to any more is closed with its time.
    for inside in &mut both {
        while inside.ask("tcp 203.0.113.9 7") != "ECONNREFUSED" {
            assert!(start.elapsed() < Duration::from_secs(100), "still open");
            std::thread::sleep(Duration::from_millis(500));
        }
        println!("the old one closed after {:?}", start.elapsed());
    }
    for inside in both {
        inside.end();
    }
}

#[test]
fn names_of_the_hosts_file_are_open_without_a_question() {
    let Some(world) = World::new() else { return };
    echo(&world, "203.0.113.9:7");
    echo(&world, "[2001:db8::9]:7");
    // No name server at all.
    for mode in ["auto", "open", "off"] {
        let flags = format!("--dns {mode} --direct web.example:7,six.example:7");
        let Some(mut inside) = Inside::start(&world, &flags) else { return };
        assert_eq!(inside.ask("tcp web.example 7"), "connected 203.0.113.9", "{mode}");
        assert_eq!(inside.ask("tcp six.example 7"), "connected 2001:db8::9", "{mode}");
        assert_eq!(inside.ask("tcp 203.0.113.10 7"), "ECONNREFUSED");
        let mut said = String::new();
        drop(inside.words.take());
        inside.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(said.contains("refused once"), "{said}");
    }
}
