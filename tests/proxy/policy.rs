//! Who may be reached, and what is said to whom may not.

use std::sync::Arc;
use std::time::Duration;

use ringfence::proxy::{DenialReason, SystemResolver};

use crate::network::{Silent, allow, bind, echo, network, origin, rest};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn a_refusal_says_what_why_and_what_would_help() {
    network(|| async {
        let proxy =
            allow(&["web.example:443", "loop.example", "inner.example", "metadata.example", "mapped.example"]).serve();
        let refused = [
            (
                "evil.example:443",
                "not-listed",
                "evil.example:443 is not on the allow-list; --allow evil.example:443 would allow it",
            ),
            (
                "WEB.example.:80",
                "not-listed",
                "web.example:80 is not on the allow-list; --allow web.example:80 would allow it",
            ),
            (
                "203.0.113.9:443",
                "not-listed",
                "203.0.113.9:443 is not on the allow-list; --allow 203.0.113.9:443 would allow it",
            ),
            (
                "[2001:db8::9]:1",
                "not-listed",
                "[2001:db8::9]:1 is not on the allow-list; --allow [2001:db8::9]:1 would allow it",
            ),
            (
                "[::ffff:127.0.0.1]:1",
                "not-listed",
                "127.0.0.1:1 is not on the allow-list; --allow 127.0.0.1:1 would allow it",
            ),
            (
                "loop.example:1",
                "special-address",
                "loop.example:1 resolves to 127.0.0.1, a loopback address; --allow 127.0.0.1:1 would allow it",
            ),
            (
                "inner.example:1",
                "special-address",
                "inner.example:1 resolves to 10.0.0.5, a private address; --allow 10.0.0.5:1 would allow it",
            ),
            (
                "mapped.example:1",
                "special-address",
                "mapped.example:1 resolves to 127.0.0.1, a loopback address; --allow 127.0.0.1:1 would allow it",
            ),
            (
                "metadata.example:80",
                "special-address",
                "metadata.example:80 resolves to 169.254.169.254, a cloud metadata address; --allow 169.254.169.254:80 would allow it",
            ),
            (
                "0x7f.1:80",
                "numeric-name",
                "0x7f.1:80 is an odd spelling of an address; write four decimal numbers without leading zeros",
            ),
            (
                "2130706433:80",
                "numeric-name",
                "2130706433:80 is an odd spelling of an address; write four decimal numbers without leading zeros",
            ),
        ];
        for (target, code, line) in refused {
            let expected = format!(
                "HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain; charset=utf-8\r\nx-ringfence-denied: {code}\r\nconnection: close\r\n\
                 content-length: {}\r\n\r\nringfence: {line}\n",
                line.len() + 12
            );
            assert_eq!(proxy.ask(format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n")).await, expected);
            let forwarded =
                proxy.ask(format!("GET http://{target}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
            assert!(forwarded.ends_with(&format!("\r\n\r\nringfence: {line}\n")), "{forwarded}");
        }
        let denials = proxy.denials.lock().unwrap();
        assert_eq!(denials.len(), refused.len() * 2);
        let first = &denials[0];
        assert_eq!((first.host.as_str(), first.port, first.stage), ("evil.example", Some(443), "connect"));
        assert_eq!((&first.reason, first.client.ip().to_string().as_str()), (&DenialReason::NotListed, "127.0.0.1"));
        assert_eq!(first.hint.as_ref().unwrap().to_string(), "evil.example:443");
        assert!(denials.last().unwrap().hint.is_none());
    });
}

#[test]
fn the_allow_list_lets_through_names_suffixes_addresses_and_ranges() {
    network(|| async {
        let (four, _) = origin("203.0.113.9", ANSWER).await;
        let (six, _) = origin("2001:db8::9", ANSWER).await;
        let (local, _) = origin("127.0.0.1", ANSWER).await;
        for (entry, target) in [
            ("web.example", format!("WEB.example.:{four}")),
            ("*.web.example", format!("a.web.example:{four}")),
            ("203.0.113.9", format!("203.0.113.9:{four}")),
            ("203.0.113.0/24", format!("[::ffff:203.0.113.9]:{four}")),
            ("2001:db8::/32", format!("[2001:db8:0::9]:{six}")),
            ("six.example", format!("six.example:{six}")),
            ("127.0.0.0/8", format!("127.0.0.1:{local}")),
        ] {
            let proxy = allow(&[entry]).serve();
            let answer =
                proxy.ask(format!("GET http://{target}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hi"), "{target}: {answer}");
            assert!(proxy.denials.lock().unwrap().is_empty());
        }
        // A name that leads to loopback needs an entry for where it leads.
        let proxy = allow(&["loop.example", "127.0.0.1"]).serve();
        let answer = proxy.ask(format!("GET http://loop.example:{local}/ HTTP/1.0\r\n\r\n")).await;
        assert!(answer.ends_with("hi"), "{answer}");
    });
}

#[test]
fn of_a_names_addresses_only_the_vetted_are_dialled() {
    network(|| async {
        // Both listen on one port; the loopback one comes first in the answer.
        let inner = bind("127.0.0.1", 0);
        let port = inner.local_addr().unwrap().port();
        let outer = bind("203.0.113.9", port);
        let proxy = allow(&["mixed.example"]).serve();
        let _client = proxy.tunnel(&format!("mixed.example:{port}")).await;
        outer.accept().await.unwrap();
        assert!(
            tokio::time::timeout(Duration::from_millis(100), inner.accept()).await.is_err(),
            "loopback was dialled"
        );
    });
}

#[test]
fn a_name_does_not_lead_to_the_hosts_own_services() {
    network(|| async {
        // As a service of the host's that listens everywhere.
        let (four, mut reached) = origin("0.0.0.0", ANSWER).await;
        let (six, mut reached_six) = origin("::", ANSWER).await;
        let proxy = allow(&["own.example", "own-mapped.example"]).serve();
        for target in
            [format!("own.example:{four}"), format!("own.example:{six}"), format!("own-mapped.example:{four}")]
        {
            let answer = proxy.ask(format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            let port = target.rsplit(':').next().unwrap();
            let line = format!(
                "ringfence: {target} resolves to 203.0.113.1, an address of this host; --allow 203.0.113.1:{port} would allow it\n"
            );
            let denied =
                answer.starts_with("HTTP/1.1 403 ") && answer.contains("x-ringfence-denied: special-address\r\n");
            assert!(denied && answer.ends_with(&line), "{answer}");
        }
        assert_eq!(proxy.denials.lock().unwrap().len(), 3);
        assert!(reached.try_recv().is_err() && reached_six.try_recv().is_err());

        // An entry for the address says that it is meant.
        for (entry, port) in [("203.0.113.1", four), ("2001:db8::/64", six)] {
            let proxy = allow(&["own.example", entry]).serve();
            let answer = proxy.ask(format!("GET http://own.example:{port}/ HTTP/1.0\r\n\r\n")).await;
            assert!(answer.ends_with("hi"), "{answer}");
        }

        // Beside the host's own address, a public one is reached, and it alone.
        let inner = bind("203.0.113.1", 0);
        let port = inner.local_addr().unwrap().port();
        let outer = bind("203.0.113.9", port);
        let proxy = allow(&["half-own.example"]).serve();
        let _client = proxy.tunnel(&format!("half-own.example:{port}")).await;
        outer.accept().await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(100), inner.accept()).await.is_err());
    });
}

#[test]
fn nobody_is_let_through_by_nobody() {
    network(|| async {
        let mut setup = allow(&[]);
        setup.allow = None;
        let answer = setup.serve().ask("CONNECT web.example:443 HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.contains(" 403 ") && answer.contains("not on the allow-list"), "{answer}");
    });
}

#[test]
fn trouble_on_the_way_is_named() {
    network(|| async {
        let everything = ["web.example", "slow.example", "half-slow.example", "nobody.example", "unknown.example"];
        let proxy = allow(&everything).limits(|limits| limits.connect_timeout = Duration::from_secs(2)).serve();
        let taken = bind("203.0.113.9", 0);
        let closed = taken.local_addr().unwrap().port();
        drop(taken);
        for (target, status, line) in [
            (
                format!("web.example:{closed}"),
                "502 Bad Gateway",
                format!("can't reach web.example:{closed}: Connection refused (os error 111)"),
            ),
            (
                "slow.example:80".into(),
                "504 Gateway Timeout",
                "can't reach slow.example:80: no answer within 2 s".into(),
            ),
            (
                "nobody.example:80".into(),
                "502 Bad Gateway",
                "can't resolve nobody.example:80: it has no address".into(),
            ),
            ("unknown.example:80".into(), "502 Bad Gateway", "can't resolve unknown.example:80: no such name".into()),
        ] {
            let answer = proxy.ask(format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
            assert!(answer.ends_with(&format!("\r\n\r\nringfence: {line}\n")), "{answer}");
        }
        assert!(proxy.denials.lock().unwrap().is_empty());

        // Two addresses that do not answer do not keep the third from being tried in time.
        let port = echo("203.0.113.9").await;
        proxy.tunnel(&format!("half-slow.example:{port}")).await;

        let proxy = allow(&["web.example"]).limits(|limits| limits.connect_timeout = Duration::from_millis(200));
        let answer =
            proxy.serve_with(Arc::new(Silent)).ask("CONNECT web.example:443 HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(
            answer.starts_with("HTTP/1.1 504 ") && answer.contains("can't resolve web.example:443: no answer in time")
        );
    });
}

#[test]
fn the_systems_resolver_is_not_trusted_either() {
    network(|| async {
        let proxy = allow(&["localhost"]).serve_with(Arc::new(SystemResolver::default()));
        let mut client = proxy.dial().await;
        let request = b"GET http://localhost:1/ HTTP/1.0\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut client, request).await.unwrap();
        let answer = rest(&mut client).await;
        assert!(answer.contains(" 403 ") && answer.contains("a loopback address"), "{answer}");
    });
}
