//! Servers that lie. Nothing of it is believed, nothing of it does harm.

use std::time::Duration;

use tokio::net::UdpSocket;

use crate::network::{A, Asked, HTTPS, Host, Server, Serving, a, alone, ask, cname, code, record, wire};

const NINE: [u8; 4] = [203, 0, 113, 9];
const EVIL: [u8; 4] = [203, 0, 113, 66];
const CONF: &str = "nameserver 127.0.0.53\noptions timeout:1 attempts:1\n";

/// What comes before the true answer, and must not be taken for it.
fn lies(asked: &Asked) -> Vec<Vec<u8>> {
    let evil = asked.addresses(60, &[EVIL]);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = evil.clone();
        change(&mut bytes);
        bytes
    };
    vec![
        Vec::new(),
        vec![0; 11],
        b"junk".repeat(1000),
        with(&|bytes| bytes[0] ^= 1),
        with(&|bytes| bytes[1] ^= 0x80),
        // A question, not an answer; another operation.
        with(&|bytes| bytes[2] &= 0x7f),
        with(&|bytes| bytes[2] |= 0x10),
        // Another name, another kind, another class, no question, cut off.
        with(&|bytes| bytes[13] = b'z'),
        with(&|bytes| {
            let end = 12 + asked.name().len() + 2;
            bytes[end + 1] = 16;
        }),
        with(&|bytes| {
            let end = 12 + asked.name().len() + 2;
            bytes[end + 3] = 3;
        }),
        with(&|bytes| bytes[5] = 0),
        with(&|bytes| bytes[5] = 2),
        with(&|bytes| bytes.truncate(bytes.len() - 1)),
        with(&|bytes| bytes[7] = 200),
        // A name that points at itself.
        with(&|bytes| {
            let end = 12 + asked.name().len() + 2 + 4;
            bytes.truncate(end);
            bytes.extend([0xc0, end as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 66]);
            bytes[7] = 1;
        }),
    ]
}

#[test]
fn what_is_no_answer_to_the_question_is_passed_over() {
    alone(|| async {
        let server = Server::start("127.0.0.53", |asked| {
            let mut messages = lies(asked);
            messages.push(asked.addresses(60, &[NINE]));
            messages
        })
        .await;
        let host = Host::new(CONF, "");
        for number in 0..20 {
            assert_eq!(host.addresses(&format!("n{number}.example")).await, "203.0.113.9 60");
        }
        assert_eq!(server.asked(), 40);
    });
}

#[test]
fn lies_alone_end_in_nothing() {
    alone(|| async {
        let _server = Server::start("127.0.0.53", lies).await;
        let host = Host::new(CONF, "");
        assert_eq!(host.addresses("web.example").await, "no answer from the name servers");
    });
}

#[test]
fn a_true_answer_from_another_source_is_not_heard() {
    alone(|| async {
        // It sees the question, and where it came from, and answers right from another address and another port.
        let server = UdpSocket::bind("127.0.0.53:53").await.unwrap();
        let others = [UdpSocket::bind("127.0.0.99:53").await.unwrap(), UdpSocket::bind("127.0.0.53:54").await.unwrap()];
        tokio::spawn(async move {
            let mut buffer = vec![0; 512];
            while let Ok((length, client)) = server.recv_from(&mut buffer).await {
                let asked = Asked { bytes: buffer[..length].to_vec(), tcp: false };
                for other in &others {
                    let _ = other.send_to(&asked.addresses(60, &[EVIL]), client).await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
                let _ = server.send_to(&asked.addresses(60, &[NINE]), client).await;
            }
        });
        let host = Host::new(CONF, "");
        assert_eq!(host.addresses("web.example").await, "203.0.113.9 60");
    });
}

#[test]
fn other_names_addresses_are_not_taken_along() {
    alone(|| async {
        let _server = Server::start("127.0.0.53", |asked| {
            let name = asked.name();
            let (all, more) = match name.as_str() {
                "alias.example" => (vec![cname(&name, "web.example"), a("web.example", 60, NINE)], vec![]),
                // Aliases out of order and in capitals are aliases.
                "mixed.example" => (
                    vec![a("END.example", 60, NINE), cname("Mid.Example", "end.example"), cname(&name, "mid.EXAMPLE")],
                    vec![],
                ),
                "stuffed.example" => (
                    vec![a(&name, 60, NINE), a("bank.example", 60, EVIL), cname("bank.example", "evil.example")],
                    vec![a("ns.example", 60, EVIL)],
                ),
                "only-others.example" => (vec![a("bank.example", 60, EVIL)], vec![]),
                "loop.example" => (vec![cname(&name, "pool.example"), cname("pool.example", &name)], vec![]),
                "self.example" => (vec![cname(&name, &name)], vec![]),
                "long.example" => {
                    let link = |n: usize| if n == 0 { name.clone() } else { format!("l{n}.example") };
                    let mut all: Vec<_> = (0..30).map(|n| cname(&link(n), &link(n + 1))).collect();
                    all.push(a(&link(30), 60, EVIL));
                    (all, vec![])
                }
                "other-class.example" => {
                    let mut one = a(&name, 60, EVIL);
                    let at = wire(&name).len() + 3;
                    one[at] = 3;
                    (vec![one], vec![])
                }
                _ => (vec![], vec![]),
            };
            vec![if asked.kind() == A { asked.reply_with(0, &all, &more) } else { asked.reply(0, &[]) }]
        })
        .await;
        let host = Host::new(CONF, "");
        let serving = Serving::start(&host, Default::default());
        for (name, records) in [("alias.example", 2), ("mixed.example", 3), ("stuffed.example", 1)] {
            let said = ask(name, A, None).await;
            assert_eq!(said.answers.len(), records, "{name}: {said}");
            assert_eq!(said.authorities.len() + said.additionals.len(), 0, "{name}: {said}");
        }
        for name in ["only-others.example", "loop.example", "self.example", "long.example", "other-class.example"] {
            let said = ask(name, A, None).await;
            assert!(said.answers.is_empty(), "{name}: {said}");
        }
        assert_eq!(code(&ask("loop.example", A, None).await), 2);
        let admitted = serving.door.admitted.lock().unwrap();
        assert!(admitted.iter().all(|(_, all)| all.len() == 1 && all[0].address == std::net::IpAddr::from(NINE)));
        assert_eq!(serving.answers.name_of(NINE.into()).unwrap().as_str(), "stuffed.example");
        assert_eq!(serving.answers.name_of(EVIL.into()), None);
    });
}

#[test]
fn service_records_come_without_the_addresses_in_them() {
    alone(|| async {
        let _server = Server::start("127.0.0.53", |asked| {
            // Priority 1, this name, mandatory = ipv4hint and alpn, alpn h2, port 8443, ipv4hint, ipv6hint.
            let data = [
                &[0, 1, 0][..],
                &[0, 0, 0, 4, 0, 1, 0, 4],
                &[0, 1, 0, 3, 2, b'h', b'2'],
                &[0, 3, 0, 2, 0x20, 0xfb],
                &[0, 4, 0, 4, 203, 0, 113, 66],
                &[0, 6, 0, 16, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 66],
            ]
            .concat();
            vec![asked.reply(0, &[record(&asked.name(), HTTPS, 60, &data)])]
        })
        .await;
        let host = Host::new(CONF, "");
        let _serving = Serving::start(&host, Default::default());
        let said = ask("web.example", HTTPS, None).await;
        assert_eq!(said.answers.len(), 1, "{said}");
        let text = said.answers[0].data.to_string();
        assert!(
            text.contains("h2") && text.contains("8443") && !text.contains("hint") && !text.contains("66"),
            "{text}"
        );
        let bytes = said.to_vec().unwrap();
        assert!(!bytes.windows(4).any(|window| window == EVIL));
    });
}

#[test]
fn an_answer_of_thousands_of_addresses_is_whole_or_refused() {
    alone(|| async {
        let _server = Server::start("127.0.0.53", |asked| {
            let many = if asked.name().starts_with("many") { 1500 } else { 2600 };
            let records: Vec<_> = (0..many).map(|n| a("x.example", 60, [203, 0, (n >> 8) as u8, n as u8])).collect();
            let mut records: Vec<_> = records.into_iter().collect();
            records.insert(0, cname(&asked.name(), "x.example"));
            vec![match (asked.kind(), asked.tcp) {
                (A, true) => asked.reply(0, &records),
                (A, false) => asked.truncated(),
                _ => asked.reply(0, &[]),
            }]
        })
        .await;
        let host = Host::new(CONF, "");
        let serving = Serving::start(&host, Default::default());
        let whole = crate::network::ask_tcp("many.example", A).await;
        assert_eq!(whole.answers.len(), 1501);
        let cut = ask("many.example", A, None).await;
        assert!(cut.metadata.truncation && cut.answers.len() > 5, "{}", cut.answers.len());
        assert_eq!(code(&ask("more.example", A, None).await), 3);
        let denials = serving.denials.lock().unwrap();
        assert_eq!(denials[0].reason, ringfence::dns::DenialReason::TooMany);
    });
}
