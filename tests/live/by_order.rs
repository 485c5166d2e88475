//! `ringfence policy`: from another shell, while the program runs.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{Inside, echo, no_policy, policy};
use crate::world::World;

#[test]
fn a_download_is_cut_when_its_endpoint_is_revoked() {
    let Some(world) = World::new() else { return };
    for (flag, host, bracketed) in [
        ("direct", "203.0.113.9", "203.0.113.9"),
        ("direct", "2001:db8::9", "[2001:db8::9]"),
        ("direct-udp", "203.0.113.9", "203.0.113.9"),
        ("direct-udp", "2001:db8::9", "[2001:db8::9]"),
    ] {
        let port = if host.contains(':') { 7006 } else { 7004 };
        let (ended, end) = mpsc::channel();
        let tcp = flag == "direct";
        if tcp {
            world.serve(&format!("{bracketed}:{port}"), move |mut stream| {
                let mut go = [0; 2];
                let _ = stream.read_exact(&mut go);
                while stream.write_all(&[7; 1400]).is_ok() {
                    std::thread::sleep(Duration::from_micros(500));
                }
                let _ = ended.send(Instant::now());
            });
        } else {
            let socket = world.outer.internet.run(|| UdpSocket::bind((host, port)).unwrap()).unwrap();
            std::thread::spawn(move || {
                let (_, peer) = socket.recv_from(&mut [0; 16]).unwrap();
                for _ in 0..20_000 {
                    let _ = socket.send_to(&[7; 1400], peer);
                    std::thread::sleep(Duration::from_micros(500));
                }
            });
        }
        let name = format!("{flag}-{port}");
        let flags = format!("--name {name} --{flag} {bracketed}:{port} --direct 203.0.113.9:9");
        let Some(mut inside) = Inside::start(&world, &flags) else { return };
        inside.tell(&format!("download {} {host} {port}", if tcp { "tcp" } else { "udp" }));
        assert_eq!(inside.hear(), "first True", "{flags}");
        std::thread::sleep(Duration::from_millis(100));
        let wire = world.outer.watch();
        let before = Instant::now();
        policy(&world, &format!("revoke {name} --{flag} {bracketed}:{port}"));
        let revoked = before.elapsed();
        // The program hears of it at once, and not by a time-out of its own.
        assert_eq!(inside.hear(), "cut ECONNABORTED", "{flags}");
        println!("{flags}: revoked in {revoked:?}, the program knows after {:?}", before.elapsed());
        if tcp {
            // And so does the peer.
            let told = end.recv_timeout(Duration::from_secs(20)).expect("the server was not told");
            println!("{flags}: the server knows after {:?}", told - before);
        }
        // Nothing more passes in either direction, and a new flow is refused.
        let again = inside.ask(&format!("{} {host} {port}", if tcp { "tcp" } else { "udp" }));
        assert!(["ECONNREFUSED", "EPERM"].contains(&again.as_str()), "{again}");
        let _ = wire;
        assert_eq!(inside.end(), "");
    }
}

#[test]
fn an_endpoint_is_allowed_and_revoked() {
    let Some(world) = World::new() else { return };
    echo(&world, "203.0.113.9:7");
    echo(&world, "[2001:db8::9]:7");
    let before = world.state();
    // Nothing is routed at first.
    let Some(mut inside) = Inside::start(&world, "--name quiet") else { return };
    for (host, bracketed) in [("203.0.113.9", "203.0.113.9"), ("2001:db8::9", "[2001:db8::9]")] {
        assert_eq!(inside.ask(&format!("tcp {host} 7")), "ECONNREFUSED");
        policy(&world, &format!("allow quiet --direct {bracketed}:7"));
        assert_eq!(inside.ask(&format!("keep {host} {host} 7")), format!("connected {host}"));
        assert_eq!(inside.ask(&format!("echo {host}")), "echoed True");
        // Twice is no error.
        policy(&world, &format!("allow quiet --direct {bracketed}:7"));
    }
    assert_eq!(policy(&world, "show quiet"), "direct = [\n    \"203.0.113.9:7\",\n    \"[2001:db8::9]:7\",\n]\n");
    policy(&world, "revoke quiet --direct 203.0.113.9:7");
    assert_eq!(inside.ask("echo 203.0.113.9"), "ECONNABORTED");
    assert_eq!(inside.ask("echo 2001:db8::9"), "echoed True");
    let error = no_policy(&world, "revoke quiet --direct 203.0.113.9:7");
    assert!(error.contains("`--direct 203.0.113.9:7` is not in the policy"), "{error}");
    assert_eq!(inside.end(), "");
    world.nothing_left(&before, "by a sandbox whose policy changed");
}

#[test]
fn what_two_endpoints_allow_one_may_lose() {
    let Some(world) = World::new() else { return };
    echo(&world, "203.0.113.9:7");
    // web.example is 203.0.113.9, by the hosts file.
    let Some(mut inside) = Inside::start(&world, "--name two --direct 203.0.113.9:7,web.example:7") else { return };
    assert_eq!(inside.ask("keep k web.example 7"), "connected 203.0.113.9");
    policy(&world, "revoke two --direct 203.0.113.9:7");
    assert_eq!(inside.ask("echo k"), "echoed True");
    policy(&world, "revoke two --direct web.example:7");
    assert_eq!(inside.ask("echo k"), "ECONNABORTED");
    assert_eq!(inside.ask("tcp 203.0.113.9 7"), "ECONNREFUSED");
    assert_eq!(inside.end(), "");
}

#[test]
fn a_policy_is_replaced_as_a_whole() {
    let Some(world) = World::new() else { return };
    echo(&world, "203.0.113.9:7");
    echo(&world, "203.0.113.9:8");
    let Some(mut inside) = Inside::start(&world, "--name whole --allow web.example:80 --direct 203.0.113.9:7") else {
        return;
    };
    assert_eq!(inside.ask("keep seven 203.0.113.9 7"), "connected 203.0.113.9");
    // What is shown is taken back, and changes nothing.
    let shown = policy(&world, "show whole");
    let file = world.directory().join("shown.toml");
    std::fs::write(&file, &shown).unwrap();
    policy(&world, &format!("set whole --policy {}", file.display()));
    assert_eq!(policy(&world, "show whole"), shown);
    assert_eq!(inside.ask("echo seven"), "echoed True");
    policy(&world, "set whole --allow six.example --direct 203.0.113.9:8");
    assert_eq!(inside.ask("echo seven"), "ECONNABORTED");
    assert_eq!(inside.ask("tcp 203.0.113.9 8"), "connected 203.0.113.9");
    assert_eq!(
        policy(&world, "show whole"),
        "allow = [\n    \"six.example\",\n]\ndirect = [\n    \"203.0.113.9:8\",\n]\n"
    );
    for (words, error) in [
        ("set whole --dns off", "`dns` can't change while a sandbox stands: it is auto, and would be off"),
        ("set whole --pool 10.9.0.0/16", "`pool` can't change while a sandbox stands: it is 10.200.0.0/16, "),
        (
            "set whole --proxy proxy.example:1",
            "`proxy` can't change while a sandbox stands: it is none, and would be http://proxy.example:1",
        ),
        ("set whole --proxy-at 203.0.113.9:1", "`proxy-at` can't change while a sandbox stands"),
        ("allow whole --direct nonsense", "--direct: `nonsense` is not a direct endpoint"),
        ("allow whole", "sandbox `whole`: nothing to allow was named"),
        ("revoke whole", "sandbox `whole`: nothing to revoke was named"),
        ("allow whole --direct 127.0.0.1:1", "`127.0.0.1` is the sandbox's own loopback"),
        ("show nobody", "there is no sandbox `nobody` that takes orders"),
        ("show -", "`-` is not"),
    ] {
        let said = no_policy(&world, words);
        assert!(said.contains(error), "policy {words}: {said}");
    }
    assert_eq!(
        policy(&world, "show whole"),
        "allow = [\n    \"six.example\",\n]\ndirect = [\n    \"203.0.113.9:8\",\n]\n"
    );
    assert_eq!(inside.end(), "");
}

#[test]
fn tunnels_of_the_proxy_are_cut() {
    let Some(world) = World::new() else { return };
    echo(&world, "203.0.113.9:7");
    let Some(mut inside) = Inside::start(&world, "--name tunnels --allow web.example:7 --allow other.example") else {
        return;
    };
    assert!(inside.ask("proxy web.example 7").starts_with("HTTP/1.1 200"));
    assert_eq!(inside.ask("echo tunnel"), "echoed True");
    // Another entry goes, and the tunnel stays.
    policy(&world, "revoke tunnels --allow other.example");
    assert_eq!(inside.ask("echo tunnel"), "echoed True");
    inside.tell("wait tunnel");
    std::thread::sleep(Duration::from_millis(50));
    let before = Instant::now();
    policy(&world, "revoke tunnels --allow web.example:7");
    assert_eq!(inside.hear(), "ECONNRESET");
    println!("a tunnel: the program knows after {:?}", before.elapsed());
    assert!(inside.ask("proxy web.example 7").starts_with("HTTP/1.1 403"));
    policy(&world, "allow tunnels --allow web.example:7");
    assert!(inside.ask("proxy web.example 7").starts_with("HTTP/1.1 200"));
    assert_eq!(inside.end(), "");
}

#[test]
fn the_proxy_is_not_started_later() {
    let Some(world) = World::new() else { return };
    let Some(inside) = Inside::start(&world, "--name bare") else { return };
    let error = no_policy(&world, "allow bare --allow web.example");
    assert!(
        error.contains("`--allow web.example` needs the built-in proxy, which this sandbox was started without"),
        "{error}"
    );
    assert_eq!(inside.end(), "");
}

#[test]
fn a_name_that_is_allowed_later_opens_no_more_than_one_at_the_start() {
    let Some(world) = World::new() else { return };
    echo(&world, "203.0.113.9:7");
    let hosts = "203.0.113.9 web.example\n198.51.100.1 self.example\n127.0.1.1 host.example\n10.1.2.3 db.example\n";
    std::fs::write(world.directory().join("hosts"), hosts).unwrap();
    let Some(mut inside) = Inside::start(&world, "--name later") else { return };
    for (name, class) in [("self", "an address of this host"), ("host", "a loopback address")] {
        let error = no_policy(&world, &format!("allow later --direct {name}.example:7"));
        assert!(error.contains(class) && error.contains("which a name may not open"), "{error}");
    }
    // A wildcard covers all of them, and opens those that may be.
    policy(&world, "allow later --direct *.example:7");
    assert_eq!(inside.ask("tcp web.example 7"), "connected 203.0.113.9");
    assert_eq!(inside.ask("tcp self.example 7"), "ECONNREFUSED");
    policy(&world, "revoke later --direct *.example:7");
    assert_eq!(inside.ask("tcp web.example 7"), "ECONNREFUSED");
    assert_eq!(inside.end(), "");
}

#[test]
fn a_policy_without_destinations_does_not_open_everything_behind_an_upstream() {
    let Some(world) = World::new() else { return };
    let Some(inside) = Inside::start(&world, "--name chained --proxy 127.0.0.1:3128 --allow a.example") else { return };
    for words in ["revoke chained --allow a.example", "set chained --direct 203.0.113.9:80"] {
        let error = no_policy(&world, words);
        assert!(error.contains("without one the upstream proxy decides alone"), "{words}: {error}");
        assert!(policy(&world, "show chained").contains("a.example"), "{words}");
    }
    // Who says so may have it.
    let now = policy(&world, "set chained --direct 203.0.113.9:80 --proxy 127.0.0.1:3128");
    assert!(!now.contains("allow"), "{now}");
    assert_eq!(inside.end(), "");
}
