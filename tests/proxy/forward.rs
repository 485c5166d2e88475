//! Requests with an absolute URL.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::network::{allow, bind, head, network, origin, response, rest, server};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn the_origin_sees_a_request_of_its_own() {
    network(|| async {
        let (port, mut seen) = origin("203.0.113.9", ANSWER).await;
        let proxy = allow(&["web.example"]).serve();
        let answer = proxy
            .ask(format!(
                "GET http://web.example:{port}/a/b?c=%20d HTTP/1.1\r\nHost: other.example\r\nUser-Agent: x\r\n\
                 Proxy-Authorization: Basic c2VjcmV0\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\nTrailer: x\r\n\
                 Keep-Alive: 5\r\nConnection: close, X-Private\r\nX-Private: 1\r\nX-MiXed-Case: 2\r\nUpgrade: h2c\r\n\r\n"
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hi"), "{answer}");
        assert_eq!(
            seen.recv().await.unwrap(),
            format!(
                "GET /a/b?c=%20d HTTP/1.1\r\nHost: web.example:{port}\r\nUser-Agent: x\r\nX-MiXed-Case: 2\r\nConnection: close\r\n\r\n"
            )
        );
    });
}

#[test]
fn the_client_sees_a_response_of_its_own() {
    network(|| async {
        let (port, _) = origin(
            "203.0.113.9",
            "HTTP/1.1 299 Very Odd\r\nX-Kept: 1\r\nConnection: x-gone, close\r\nX-Gone: 1\r\nKeep-Alive: 1\r\nProxy-Authenticate: Basic\r\n\
             Upgrade: h2c\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nhi",
        )
        .await;
        let proxy = allow(&["web.example"]).serve();
        let mut client = proxy.dial().await;
        client
            .write_all(format!("GET http://web.example:{port} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
            .await
            .unwrap();
        assert_eq!(
            response(&mut client).await,
            "HTTP/1.1 299 Very Odd\r\nX-Kept: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nhi"
        );
    });
}

#[test]
fn one_connection_serves_many_hosts_and_refusals() {
    network(|| async {
        let (four, _) = origin("203.0.113.9", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour").await;
        let (six, _) =
            origin("2001:db8::9", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nsix\r\n0\r\n\r\n").await;
        let proxy = allow(&["web.example", "six.example"]).serve();
        let mut client = proxy.dial().await;
        for _ in 0..3 {
            let ask = |host: &str, port: u16| format!("GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
            client.write_all(ask("web.example", four).as_bytes()).await.unwrap();
            assert!(response(&mut client).await.ends_with("four"));
            client.write_all(ask("evil.example", four).as_bytes()).await.unwrap();
            assert!(response(&mut client).await.starts_with("HTTP/1.1 403 "));
            client.write_all(ask("six.example", six).as_bytes()).await.unwrap();
            assert!(head(&mut client).await.contains("chunked"));
            let mut body = [0; 13];
            client.read_exact(&mut body).await.unwrap();
            assert_eq!(&body, b"3\r\nsix\r\n0\r\n\r\n");
        }
        // Two at once: answered one after the other.
        let two = format!("GET http://web.example:{four}/ HTTP/1.1\r\nHost: a\r\n\r\n").repeat(2);
        client.write_all(two.as_bytes()).await.unwrap();
        assert!(response(&mut client).await.ends_with("four"));
        assert!(response(&mut client).await.ends_with("four"));
    });
}

#[test]
fn bodies_keep_their_bounds() {
    network(|| async {
        let (port, mut seen) = origin("203.0.113.9", ANSWER).await;
        let proxy = allow(&["web.example"]).serve();
        for (method, framing, sent, expected) in [
            ("POST", "Content-Length: 5\r\n", "12345", "Content-Length: 5\r\nConnection: close\r\n\r\n12345"),
            ("POST", "Content-Length: 0\r\n", "", "Content-Length: 0\r\nConnection: close\r\n\r\n"),
            ("PUT", "Transfer-Encoding: chunked\r\n", "3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "0\r\n\r\n"),
            ("GET", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n"),
            ("DELETE", "Content-Length: 2\r\n", "no", "\r\n\r\nno"),
            ("QUERY", "", "", "Connection: close\r\n\r\n"),
        ] {
            let answer = proxy
                .ask(format!("{method} http://web.example:{port}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{framing}\r\n{sent}"))
                .await;
            assert!(answer.ends_with("hi"), "{answer}");
            let request = seen.recv().await.unwrap();
            assert!(request.starts_with(&format!("{method} / HTTP/1.1\r\n")), "{request}");
            assert!(request.ends_with(expected), "{method} {framing}: {request}");
            assert_eq!(
                request.matches("ontent-").count() + request.matches("ransfer-").count(),
                usize::from(!framing.is_empty())
            );
        }
    });
}

#[test]
fn responses_without_a_body_have_none() {
    network(|| async {
        let proxy = allow(&["web.example"]).serve();
        for (method, answer, expected) in [
            (
                "HEAD",
                "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
                "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
            ),
            ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"),
            ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "HTTP/1.1 304 Not Modified\r\n\r\n"),
            ("GET", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"),
        ] {
            let (port, _) = origin("203.0.113.9", answer).await;
            let mut client = proxy.dial().await;
            let request = format!("{method} http://web.example:{port}/ HTTP/1.1\r\nHost: a\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(head(&mut client).await, expected);
            // The connection is still good, so nothing was left on it.
            client.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(head(&mut client).await, expected);
        }
    });
}

#[test]
fn old_clients_and_old_origins_are_understood() {
    network(|| async {
        let proxy = allow(&["web.example"]).serve();
        let (old, _) = origin("203.0.113.9", "HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
        let answer = proxy.ask(format!("GET http://web.example:{old}/ HTTP/1.0\r\n\r\n")).await;
        assert_eq!(answer, "HTTP/1.0 200 OK\r\n\r\nuntil the end");
        let answer =
            proxy.ask(format!("GET http://web.example:{old}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        let answer = answer.to_lowercase();
        assert!(answer.contains("transfer-") && answer.ends_with("d\r\nuntil the end\r\n0\r\n\r\n"), "{answer}");
        let (new, mut seen) =
            origin("203.0.113.9", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n").await;
        let answer = proxy.ask(format!("POST http://web.example:{new}/ HTTP/1.0\r\nContent-Length: 2\r\n\r\nab")).await;
        assert_eq!(answer, "HTTP/1.0 200 OK\r\n\r\nhi");
        assert!(seen.recv().await.unwrap().ends_with("\r\n\r\nab"));
        // Keep-alive as HTTP/1.0 has it.
        let (port, _) = origin("203.0.113.9", ANSWER).await;
        let mut client = proxy.dial().await;
        for _ in 0..2 {
            let request = format!("GET http://web.example:{port}/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let answer = response(&mut client).await;
            assert!(
                answer.starts_with("HTTP/1.0 200 ") && answer.to_lowercase().contains("connection: keep-alive"),
                "{answer}"
            );
        }
    });
}

#[test]
fn the_origin_decides_when_an_expected_body_comes() {
    network(|| async {
        let proxy = allow(&["web.example"]).serve();
        let ask = |port: u16| {
            format!(
                "POST http://web.example:{port}/ HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
            )
        };
        // It says go on.
        let port = server("203.0.113.9", |mut stream| async move {
            assert!(head(&mut stream).await.contains("Expect: 100-continue"));
            tokio::time::sleep(Duration::from_millis(300)).await;
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            let mut body = [0; 4];
            stream.read_exact(&mut body).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").await.unwrap();
            stream.write_all(&body).await.unwrap();
        })
        .await;
        let mut client = proxy.dial().await;
        let begun = std::time::Instant::now();
        client.write_all(ask(port).as_bytes()).await.unwrap();
        assert_eq!(head(&mut client).await, "HTTP/1.1 100 Continue\r\n\r\n");
        assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
        client.write_all(b"body").await.unwrap();
        assert!(response(&mut client).await.ends_with("body"));

        // It refuses without having seen the body, and the client never sends it.
        let port = server("203.0.113.9", |mut stream| async move {
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
            assert_eq!(rest(&mut stream).await, "");
        })
        .await;
        let mut client = proxy.dial().await;
        client.write_all(ask(port).as_bytes()).await.unwrap();
        let answer = response(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 417 ") && answer.ends_with("no"), "{answer}");
        // What would come next could be the body or a request: the connection ends.
        assert_eq!(rest(&mut client).await, "");

        // It says nothing, and waits: the client is told to go on after a second.
        let (port, _) = origin("203.0.113.9", ANSWER).await;
        let mut client = proxy.dial().await;
        client.write_all(ask(port).as_bytes()).await.unwrap();
        assert_eq!(head(&mut client).await, "HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"body").await.unwrap();
        assert!(response(&mut client).await.ends_with("hi"));
    });
}

#[test]
fn a_refused_upload_can_read_why() {
    network(|| async {
        let proxy = allow(&[]).serve();
        let mut client = proxy.dial().await;
        let head = "POST http://evil.example/ HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        // It reads nothing before all is sent: a reset would come first, and make the sending fail.
        client.write_all(&vec![b'x'; 10_000_000]).await.expect("the whole body is taken");
        let answer = rest(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.ends_with("would allow it\n"), "{answer}");
    });
}

#[test]
fn an_upgrade_becomes_a_tunnel_if_both_ends_want_it() {
    network(|| async {
        let port = server("203.0.113.9", |mut stream| async move {
            let request = head(&mut stream).await;
            assert!(request.contains("Connection: upgrade\r\n") && request.contains("Upgrade: websocket\r\n"), "{request}");
            let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Key: 1\r\n\r\nhello";
            stream.write_all(switch.as_bytes()).await.unwrap();
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        })
        .await;
        let proxy = allow(&["web.example"]).serve();
        let ask = format!(
            "GET http://web.example:{port}/chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
        );
        let mut client = proxy.dial().await;
        client.write_all(ask.as_bytes()).await.unwrap();
        let answer = head(&mut client).await;
        assert!(
            answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n") && answer.contains("X-Key: 1\r\n"),
            "{answer}"
        );
        assert!(answer.to_lowercase().contains("connection: upgrade\r\n") && answer.contains("websocket"), "{answer}");
        let mut word = [0; 5];
        client.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"hello");
        client.write_all(b"\x81\x02hi").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(rest(&mut client).await, "\u{fffd}\u{2}hi");

        // The origin need not want it.
        let (port, _) = origin("203.0.113.9", ANSWER).await;
        let mut client = proxy.dial().await;
        for _ in 0..2 {
            let ask = format!(
                "GET http://web.example:{port}/ HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
            );
            client.write_all(ask.as_bytes()).await.unwrap();
            assert!(response(&mut client).await.ends_with("hi"));
        }

        // And it may not switch unasked.
        let (port, _) =
            origin("203.0.113.9", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
                .await;
        let answer =
            proxy.ask(format!("GET http://web.example:{port}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        assert!(
            answer.starts_with("HTTP/1.1 502 ") && answer.contains("switched protocols without being asked"),
            "{answer}"
        );
    });
}

#[test]
fn an_answer_cut_short_does_not_look_whole() {
    network(|| async {
        let proxy = allow(&["web.example"]).serve();
        let (port, _) = origin("203.0.113.9", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").await;
        let answer = proxy.ask(format!("GET http://web.example:{port}/ HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert!(answer.ends_with("<reset>"), "{answer}");
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n";
        let (port, _) = origin("203.0.113.9", chunked).await;
        // This client has no other way to know: its body ends with the connection.
        let answer = proxy.ask(format!("GET http://web.example:{port}/ HTTP/1.0\r\n\r\n")).await;
        assert!(answer.ends_with("<reset>"), "{answer}");
    });
}

#[test]
fn a_broken_origin_is_named() {
    network(|| async {
        let proxy = allow(&["web.example"]).serve();
        for answer in [
            "",
            "nonsense\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2p1\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
            "HTTP/1.1 200",
        ] {
            let (port, _) = origin("203.0.113.9", answer).await;
            let got = proxy
                .ask(format!("GET http://web.example:{port}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
                .await;
            assert!(
                got.starts_with("HTTP/1.1 502 ") && got.contains(&format!("ringfence: web.example:{port} ")),
                "{answer:?}: {got}"
            );
        }
    });
}

#[test]
fn a_client_that_goes_away_takes_its_request_along() {
    network(|| async {
        let listener = bind("203.0.113.9", 0);
        let proxy = allow(&["web.example"]).serve();
        let port = listener.local_addr().unwrap().port();
        let mut client = proxy.dial().await;
        client
            .write_all(format!("GET http://web.example:{port}/ HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await;
        drop(client);
        timeout(Duration::from_secs(5), rest(&mut stream)).await.expect("the origin is told");
    });
}
