//! The resolver as a program of the sandbox sees it.

use std::net::IpAddr;
use std::time::Duration;

use ringfence::dns::{DenialReason, Limits};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::network::{
    A, AAAA, ANY, FORMERR, Host, NXDOMAIN, PTR, REFUSED, SERVFAIL, Server, Serving, TXT, alone, ask, ask_tcp, code,
    question, receive, send, soa, tell,
};

const NINE: [u8; 4] = [203, 0, 113, 9];
const CONF: &str = "nameserver 127.0.0.53\noptions timeout:1 attempts:1\n";

async fn upstream() -> Server {
    Server::start("127.0.0.53", |asked| {
        let count = asked.name().split('.').next().and_then(|label| label.strip_prefix('n')?.parse::<u8>().ok());
        let many: Vec<[u8; 4]> = (0..count.unwrap_or(1)).map(|n| [203, 0, 113, n.wrapping_add(9)]).collect();
        vec![match (asked.kind(), asked.name().as_str()) {
            (A, "metadata.example") => asked.addresses(60, &[[169, 254, 169, 254]]),
            (A, "db.corp.example") => asked.addresses(60, &[NINE]),
            (_, "db") | (_, "none.example") => asked.reply_with(NXDOMAIN, &[], &[soa("example", 60)]),
            (A, _) => asked.addresses(60, &many),
            _ => asked.reply_with(0, &[], &[soa("example", 60)]),
        }]
    })
    .await
}

#[test]
fn the_gate_hears_of_an_address_before_it_leaves_each_time() {
    alone(|| async {
        let server = upstream().await;
        let host = Host::new(CONF, "203.0.113.20 file.example\n");
        let serving = Serving::start(&host, Limits::default());
        for round in 1..=3 {
            let said = ask("Web.Example", A, None).await;
            assert_eq!((code(&said), said.answers.len()), (0, 1));
            assert_eq!(said.answers[0].name.to_ascii(), "Web.Example.", "as it was written");
            // The answer is here, so the gate has finished.
            let admitted = serving.door.admitted.lock().unwrap().clone();
            assert_eq!(admitted.len(), round);
            assert_eq!(admitted[round - 1].0, "web.example");
            assert_eq!(admitted[round - 1].1[0].address, IpAddr::from(NINE));
            assert_eq!(admitted[round - 1].1[0].ttl.as_secs(), u64::from(said.answers[0].ttl));
        }
        assert_eq!(server.asked(), 1);
        assert_eq!(serving.answers.name_of(NINE.into()).unwrap().as_str(), "web.example");
        // Of the hosts file, too; loopback's name is the sandbox's own.
        assert_eq!(ask("file.example", A, None).await.answers.len(), 1);
        assert_eq!(serving.door.admitted.lock().unwrap().last().unwrap().0, "file.example");
        assert_eq!(ask("localhost", AAAA, None).await.answers.len(), 1);
        assert_eq!(serving.door.admitted.lock().unwrap().len(), 4);
        assert!(serving.denials.lock().unwrap().is_empty());
    });
}

#[test]
fn what_the_gate_refuses_does_not_leave() {
    alone(|| async {
        let _server = upstream().await;
        let host = Host::new(CONF, "");
        let serving = Serving::start(&host, Limits::default());
        assert_eq!(code(&ask("metadata.example", A, None).await), NXDOMAIN);
        assert_eq!(code(&ask("broken.example", A, None).await), SERVFAIL);
        let denials = serving.denials.lock().unwrap();
        let address = IpAddr::from([169, 254, 169, 254]);
        assert_eq!(denials[0].reason, DenialReason::Special { address, class: "a cloud metadata address" });
        assert_eq!((denials[0].name.as_str(), denials[0].kind.as_str()), ("metadata.example", "A"));
        assert_eq!((denials[0].stage, denials[0].client.ip()), ("dns", IpAddr::from([127, 0, 0, 1])));
        assert_eq!(denials[1].reason, DenialReason::Failed);
        assert_eq!(serving.answers.name_of(address), None);
    });
}

#[test]
fn nothing_but_what_the_gate_covers_is_asked_outside() {
    alone(|| async {
        let server = upstream().await;
        let host = Host::new(CONF, "203.0.113.20 other.test\n");
        let serving = Serving::start(&host, Limits::default());
        let secret = "c2VjcmV0.attacker.test";
        for (name, kind, expected) in [
            (secret, A, NXDOMAIN),
            (secret, AAAA, NXDOMAIN),
            (secret, TXT, NXDOMAIN),
            (secret, 65280, NXDOMAIN),
            ("other.test", A, NXDOMAIN),
            ("", A, NXDOMAIN),
            ("with space.example", A, NXDOMAIN),
            ("9.113.0.203.in-addr.arpa", PTR, NXDOMAIN),
            ("web.example", PTR, NXDOMAIN),
            ("web.example", TXT, REFUSED),
            ("web.example", ANY, REFUSED),
            ("web.example", 252, REFUSED),
            (secret, 252, REFUSED),
            (".", ANY, REFUSED),
        ] {
            let said = ask(name, kind, Some(1232)).await;
            assert_eq!(code(&said), expected, "{name} {kind}: {said}");
            assert!(said.answers.is_empty() && said.edns.is_some());
        }
        assert_eq!(server.asked(), 0);
        let denials = serving.denials.lock().unwrap().clone();
        assert_eq!(denials.len(), 14);
        assert_eq!((denials[3].name.as_str(), denials[3].kind.as_str()), (secret, "TYPE65280"));
        assert_eq!(denials[3].reason, DenialReason::NotCovered);
        assert_eq!(denials[9].reason, DenialReason::Kind);
        // A name of the policy that is not there is no denial.
        assert_eq!(code(&ask("none.example", A, None).await), NXDOMAIN);
        assert_eq!(serving.denials.lock().unwrap().len(), 14);
    });
}

#[test]
fn what_can_not_be_read_is_told_so_or_nothing() {
    alone(|| async {
        let server = upstream().await;
        let host = Host::new(CONF, "");
        let _serving = Serving::start(&host, Limits::default());
        let good = question(7, "web.example", A, Some(1232));
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            bytes
        };
        let class = 12 + "web.example".len() + 2 + 3;
        for (bytes, expected) in [
            (with(&|bytes| bytes.truncate(20)), FORMERR),
            (with(&|bytes| bytes[5] = 0), FORMERR),
            (with(&|bytes| bytes[5] = 2), FORMERR),
            (with(&|bytes| bytes[4] = 255), FORMERR),
            (good[..12].to_vec(), FORMERR),
            (vec![7; 2049], FORMERR),
            (with(&|bytes| bytes.resize(2049, 0)), FORMERR),
            (with(&|bytes| bytes[2] = 0x10), 4),
            (with(&|bytes| bytes[2] = 0x28), 4),
            (with(&|bytes| bytes[class] = 3), REFUSED),
            (with(&|bytes| bytes[class] = 255), REFUSED),
        ] {
            let said = tell(&bytes).await.expect("an answer");
            assert_eq!(said[3] & 15, expected, "{}", bytes.escape_ascii());
            assert_eq!(said[..2], bytes[..2]);
        }
        // EDNS of another version: its number is in the option's own field.
        let said = tell(&with(&|bytes| *bytes.iter_mut().rev().nth(4).unwrap() = 1)).await.unwrap();
        assert_eq!(hickory_proto::op::Message::from_vec(&said).unwrap().metadata.response_code, 16.into());
        assert_eq!(server.asked(), 0);
        let silent = [vec![], vec![1; 11], with(&|bytes| bytes[2] |= 0x80)];
        for bytes in silent {
            let quiet = timeout(Duration::from_millis(100), tell(&bytes)).await;
            assert!(quiet.is_err(), "{}", bytes.escape_ascii());
        }
    });
}

#[test]
fn an_answer_is_as_large_as_the_client_takes() {
    alone(|| async {
        let _server = upstream().await;
        let host = Host::new(CONF, "");
        let _serving = Serving::start(&host, Limits::default());
        for (name, payload, cut) in [
            ("n20.example", None, false),
            ("n100.example", None, true),
            ("n100.example", Some(100), true),
            ("n100.example", Some(1232), true),
            ("n100.example", Some(4096), false),
            ("n100.example", Some(65535), false),
        ] {
            let bytes = tell(&question(7, name, A, payload)).await.unwrap();
            let said = hickory_proto::op::Message::from_vec(&bytes).unwrap();
            assert_eq!(said.metadata.truncation, cut, "{name} {payload:?}");
            assert!(bytes.len() <= usize::from(payload.unwrap_or(512).max(512)), "{}", bytes.len());
            // There are clients that make do with what is there.
            assert!(said.answers.len() >= 20);
        }
        assert_eq!(ask_tcp("n100.example", A).await.answers.len(), 100);
    });
}

#[test]
fn many_questions_on_one_connection() {
    alone(|| async {
        let _server = upstream().await;
        let host = Host::new(CONF, "");
        let _serving = Serving::start(&host, Limits::default());
        let mut stream = TcpStream::connect("127.0.0.1:53").await.unwrap();
        for id in 0..300 {
            send(&mut stream, &question(id, &format!("a{id}.example"), A, None)).await;
        }
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..300 {
            let said = receive(&mut stream).await.unwrap();
            assert_eq!(said.answers.len(), 1);
            assert_eq!(said.queries[0].name.to_ascii(), format!("a{}.example.", said.metadata.id));
            seen.insert(said.metadata.id);
        }
        assert_eq!(seen.len(), 300);
        // One that ends its side gets what it has asked for.
        send(&mut stream, &question(1, "last.example", A, None)).await;
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await.unwrap();
        assert_eq!(receive(&mut stream).await.unwrap().answers.len(), 1);
        assert!(receive(&mut stream).await.is_none());
    });
}

#[test]
fn connections_are_bounded_in_number_and_time() {
    alone(|| async {
        let _server = upstream().await;
        let host = Host::new(CONF, "");
        let limits = Limits { connections: 4, idle: Duration::from_millis(500), ..Limits::default() };
        let _serving = Serving::start(&host, limits);
        let mut held = Vec::new();
        for _ in 0..4 {
            let mut stream = TcpStream::connect("127.0.0.1:53").await.unwrap();
            send(&mut stream, &question(1, "web.example", A, None)).await;
            assert!(receive(&mut stream).await.is_some());
            held.push(stream);
        }
        let mut fifth = TcpStream::connect("127.0.0.1:53").await.unwrap();
        assert!(timeout(Duration::from_millis(300), receive(&mut fifth)).await.unwrap().is_none(), "closed at once");
        // Half a question does not keep a connection.
        tokio::io::AsyncWriteExt::write_all(&mut held[0], &[0]).await.unwrap();
        for stream in &mut held {
            assert!(timeout(Duration::from_secs(2), receive(stream)).await.unwrap().is_none());
        }
        assert_eq!(ask_tcp("web.example", A).await.answers.len(), 1);
    });
}

#[test]
fn a_short_name_of_the_policy_is_found_with_the_hosts_search_list() {
    alone(|| async {
        let _server = upstream().await;
        let host = Host::new(&format!("{CONF}search corp.example\n"), "");
        let serving = Serving::start(&host, Limits::default());
        let said = ask("db", A, None).await;
        assert_eq!(said.answers.len(), 2, "an alias and its address: {said}");
        assert_eq!(said.answers[0].name.to_ascii(), "db.");
        assert_eq!(serving.door.admitted.lock().unwrap()[0].0, "db");
    });
}
