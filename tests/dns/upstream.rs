//! The host's name servers: in turn, over what works, and no more often than needed.

use std::time::{Duration, Instant};

use ringfence::kernel::rtnetlink::{Batch, Request, Socket};
use ringfence::link::IfIndex;

use crate::network::{A, Host, NXDOMAIN, REFUSED, SERVFAIL, Server, a, alone, soa};

const NINE: [u8; 4] = [203, 0, 113, 9];

#[test]
fn an_answer_is_remembered_for_its_time() {
    alone(|| async {
        let server = Server::start("127.0.0.53", |asked| vec![asked.addresses(2, &[NINE])]).await;
        let host = Host::new("nameserver 127.0.0.53\n", "");
        assert_eq!(host.addresses("web.example").await, "203.0.113.9 2");
        let before = server.asked();
        assert_eq!(host.addresses("web.example").await, "203.0.113.9 2");
        // The other family had no answer that says for how long.
        assert_eq!(server.asked(), before + 1);
        tokio::time::sleep(Duration::from_millis(2100)).await;
        assert_eq!(host.addresses("web.example").await, "203.0.113.9 2");
        assert_eq!(server.asked(), before + 3);
    });
}

#[test]
fn ttls_at_both_ends() {
    alone(|| async {
        let server = Server::start("127.0.0.53", |asked| {
            vec![match (asked.kind(), asked.name().as_str()) {
                (A, "zero.example") => asked.addresses(0, &[NINE]),
                (A, _) => asked.addresses(u32::MAX, &[NINE]),
                _ => asked.reply_with(0, &[], &[soa("example", 60)]),
            }]
        })
        .await;
        let host = Host::new("nameserver 127.0.0.53\n", "");
        assert_eq!(host.addresses("zero.example").await, "203.0.113.9 0");
        assert_eq!(host.addresses("zero.example").await, "203.0.113.9 0");
        assert_eq!(server.asked(), 3);
        assert_eq!(host.addresses("ever.example").await, "203.0.113.9 86400");
        assert_eq!(host.addresses("ever.example").await, "203.0.113.9 86400");
        assert_eq!(server.asked(), 5);
    });
}

#[test]
fn what_is_not_there_is_remembered_as_long_as_its_zone_says() {
    alone(|| async {
        let server = Server::start("127.0.0.53", |asked| {
            vec![asked.reply_with(NXDOMAIN, &[], &[soa("example", if asked.name() == "no.example" { 1 } else { 0 })])]
        })
        .await;
        let host = Host::new("nameserver 127.0.0.53\n", "");
        for _ in 0..3 {
            assert_eq!(host.addresses("no.example").await, "no such name");
        }
        assert_eq!(server.asked(), 2);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert_eq!(host.addresses("no.example").await, "no such name");
        assert_eq!(server.asked(), 4);
        for _ in 0..2 {
            host.addresses("never.example").await;
        }
        assert_eq!(server.asked(), 8);
    });
}

#[test]
fn the_first_of_three_servers_is_dead() {
    alone(|| async {
        // One that listens and says nothing, one where nobody listens.
        let silent = Server::start("127.0.0.2", |_| Vec::new()).await;
        let third = Server::start("127.0.0.4", |asked| vec![asked.addresses(60, &[NINE])]).await;
        let host = Host::new("nameserver 127.0.0.2\nnameserver 127.0.0.3\nnameserver 127.0.0.4\n", "");
        assert_eq!(host.addresses("web.example").await, "203.0.113.9 60");
        // Now it is known, and comes last.
        assert_eq!(host.addresses("other.example").await, "203.0.113.9 60");
        assert_eq!((silent.asked(), third.asked()), (2, 4));
    });
}

#[test]
fn a_server_that_can_not_say_makes_way_at_once() {
    alone(|| async {
        let _first = Server::start("127.0.0.2", |asked| vec![asked.reply(SERVFAIL, &[])]).await;
        let _second = Server::start("127.0.0.3", |asked| vec![asked.reply(REFUSED, &[])]).await;
        let _third = Server::start("127.0.0.4", |asked| vec![asked.addresses(60, &[NINE])]).await;
        let conf = "nameserver 127.0.0.2\nnameserver 127.0.0.3\nnameserver 127.0.0.4\noptions timeout:30\n";
        let host = Host::new(conf, "");
        let start = Instant::now();
        assert_eq!(host.addresses("web.example").await, "203.0.113.9 60");
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    });
}

#[test]
fn all_servers_fail_and_that_is_said_in_time() {
    alone(|| async {
        let host = Host::new("nameserver 127.0.0.2\nnameserver 127.0.0.3\noptions timeout:30\n", "");
        let start = Instant::now();
        assert_eq!(host.addresses("web.example").await, "no answer from the name servers");
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        let _silent = Server::start("127.0.0.2", |_| Vec::new()).await;
        let host = Host::new("nameserver 127.0.0.2\noptions timeout:1 attempts:2\n", "");
        assert_eq!(host.addresses("web.example").await, "no answer from the name servers");
    });
}

#[test]
fn what_does_not_fit_is_asked_for_over_tcp() {
    alone(|| async {
        // 600 bytes, 5,000 bytes, 60,000 bytes.
        let server = Server::start("127.0.0.11", |asked| {
            let count: u8 = asked.name().split('.').next().unwrap()[1..].parse().unwrap();
            let count = usize::from(count) * 16;
            let records: Vec<_> = (0..count).map(|n| a(&asked.name(), 60, [203, 0, (n >> 8) as u8, n as u8])).collect();
            vec![match (asked.kind(), asked.tcp) {
                (A, true) => asked.reply(0, &records),
                (A, false) => asked.truncated(),
                _ => asked.reply(0, &[]),
            }]
        })
        .await;
        let host = Host::new("nameserver 127.0.0.11\n", "");
        for (name, count) in [("n2.example", 32), ("n12.example", 192), ("n120.example", 1920)] {
            assert_eq!(host.resolver.addresses(&name.parse().unwrap()).await.unwrap().len(), count, "{name}");
            assert!(server.seen().contains(&format!("{name} 1 tcp")));
        }
    });
}

#[test]
fn servers_that_know_no_edns_and_no_capitals_are_asked_as_they_need() {
    alone(|| async {
        let server = Server::start("127.0.0.53", |asked| {
            if asked.has_edns() {
                // Not even the question comes back.
                let mut bytes = asked.bytes[..12].to_vec();
                bytes[2..].copy_from_slice(&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
                return vec![bytes];
            }
            let mut bytes = asked.addresses(60, &[NINE]);
            let question = asked.name().len() + 2;
            bytes[12..12 + question].make_ascii_lowercase();
            vec![bytes]
        })
        .await;
        let host = Host::new("nameserver 127.0.0.53\n", "");
        assert_eq!(host.addresses("a-name-of-many-letters.example").await, "203.0.113.9 60");
        let seen = server.seen();
        assert!(seen.iter().any(|line| line.ends_with("1 tcp")), "{seen:?}");
    });
}

#[test]
fn what_is_asked_at_once_is_asked_once() {
    alone(|| async {
        let server = Server::start("127.0.0.53", |asked| vec![asked.addresses(60, &[NINE])]).await;
        let host = Host::new("nameserver 127.0.0.53\n", "");
        let all = futures::future::join_all((0..200).map(|_| host.addresses("web.example"))).await;
        assert!(all.iter().all(|said| said == "203.0.113.9 60"));
        assert_eq!(server.asked(), 2, "one for each family");
    });
}

#[test]
fn the_hosts_files_count_and_are_read_again_when_they_change() {
    alone(|| async {
        let first = Server::start("127.0.0.2", |asked| vec![asked.addresses(60, &[[203, 0, 113, 2]])]).await;
        let _second = Server::start("127.0.0.3", |asked| vec![asked.addresses(60, &[[203, 0, 113, 3]])]).await;
        let host = Host::new("nameserver 127.0.0.2\n", "203.0.113.7 file.example\n2001:db8::7 file.example\n");
        assert_eq!(host.addresses("file.example").await, "203.0.113.7 60, 2001:db8::7 60");
        assert_eq!(host.addresses("localhost").await, "127.0.0.1 60, ::1 60");
        assert_eq!(host.addresses("a.localhost").await, "127.0.0.1 60, ::1 60");
        assert_eq!(first.asked(), 0);
        assert_eq!(host.addresses("web.example").await, "203.0.113.2 60");
        std::fs::write(host.file("hosts"), "203.0.113.8 file.example\n").unwrap();
        // Another server may say something else, so what the first one said is forgotten.
        std::fs::write(host.file("resolv.conf"), "nameserver 127.0.0.3\n").unwrap();
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(host.addresses("file.example").await, "203.0.113.8 60");
        assert_eq!(host.addresses("web.example").await, "203.0.113.3 60");
    });
}

#[test]
fn a_short_name_is_looked_for_with_the_search_list() {
    alone(|| async {
        let server = Server::start("127.0.0.53", |asked| {
            vec![match asked.name().as_str() {
                "db.b.example" => asked.addresses(60, &[NINE]),
                _ => asked.reply_with(NXDOMAIN, &[], &[soa("example", 60)]),
            }]
        })
        .await;
        let host = Host::new("nameserver 127.0.0.53\nsearch a.example b.example\n", "");
        assert_eq!(host.addresses("db").await, "203.0.113.9 60");
        assert_eq!(host.addresses("db.none").await, "no such name");
        assert!(server.seen().iter().all(|line| !line.starts_with("db.none.")), "ndots is 1: {:?}", server.seen());
    });
}

#[test]
fn servers_take_turns_where_the_host_says_so() {
    alone(|| async {
        let mut servers = Vec::new();
        for address in ["127.0.0.2", "127.0.0.3"] {
            servers.push(Server::start(address, |asked| vec![asked.addresses(60, &[NINE])]).await);
        }
        let host = Host::new("nameserver 127.0.0.2\nnameserver 127.0.0.3\noptions rotate\n", "");
        for number in 0..10 {
            host.addresses(&format!("n{number}.example")).await;
        }
        assert!(servers.iter().all(|server| server.asked() == 10), "{:?}", servers[0].asked());
    });
}

#[test]
fn a_host_that_asks_nobody_is_not_made_to() {
    alone(|| async {
        let server = Server::start("127.0.0.53", |asked| vec![asked.addresses(60, &[NINE])]).await;
        let host = Host::new("nameserver 127.0.0.53\n", "203.0.113.7 file.example\n");
        std::fs::write(host.file("nsswitch.conf"), "hosts: files\n").unwrap();
        assert_eq!(host.addresses("file.example").await, "203.0.113.7 60");
        assert_eq!(host.addresses("web.example").await, "no such name");
        assert_eq!(server.asked(), 0);
    });
}

#[test]
fn servers_are_asked_whatever_their_address() {
    alone(|| async {
        let link_local = "fe80::53/64".parse().unwrap();
        Socket::open().unwrap().commit(Batch::from([Request::add_address(IfIndex(1), link_local)])).unwrap();
        for (server, conf) in [
            ("127.0.0.53", "127.0.0.53"),
            ("127.0.0.11", "127.0.0.11"),
            ("::1", "::1"),
            ("fe80::53%1", "fe80::53%lo"),
            ("fe80::53%1", "fe80::53%1"),
        ] {
            let server = Server::start(server, |asked| {
                vec![if asked.tcp || asked.kind() != A { asked.addresses(60, &[NINE]) } else { asked.truncated() }]
            })
            .await;
            let host = Host::new(&format!("nameserver {conf}\n"), "");
            assert_eq!(host.addresses("web.example").await, "203.0.113.9 60", "{conf}");
            assert!(server.seen().contains(&"web.example 1 tcp".to_owned()), "{conf}: {:?}", server.seen());
            server.stop().await;
        }
    });
}
