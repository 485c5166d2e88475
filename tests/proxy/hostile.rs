//! Clients that mean harm.

use tokio::io::AsyncWriteExt;

use crate::network::{allow, network, origin, rest};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn what_is_no_request_to_a_proxy_is_told_so() {
    network(|| async {
        let proxy = allow(&["web.example"]).serve();
        for (request, status, text) in [
            ("GET / HTTP/1.1\r\nHost: web.example\r\n\r\n", "400", "this is a proxy, not a web server"),
            ("OPTIONS * HTTP/1.1\r\nHost: web.example\r\n\r\n", "400", "this is a proxy, not a web server"),
            ("GET web.example:80 HTTP/1.1\r\nHost: web.example\r\n\r\n", "400", "this is a proxy, not a web server"),
            ("GET https://web.example/ HTTP/1.1\r\nHost: web.example\r\n\r\n", "501", "with CONNECT"),
            ("GET ftp://web.example/ HTTP/1.1\r\nHost: web.example\r\n\r\n", "501", "scheme ftp"),
            (
                "GET http://user:secret@web.example/ HTTP/1.1\r\nHost: web.example\r\n\r\n",
                "400",
                "Authorization header",
            ),
            ("GET http://web.example:99999/ HTTP/1.1\r\nHost: web.example\r\n\r\n", "400", "a port from 1 to 65535"),
            ("GET http://web.example:080x/ HTTP/1.1\r\nHost: web.example\r\n\r\n", "400", ""),
            ("GET http://web.example/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400", "one Host header"),
            ("GET http:///path HTTP/1.1\r\nHost: a\r\n\r\n", "400", ""),
            ("GET http://b\u{fc}cher.example/ HTTP/1.1\r\nHost: a\r\n\r\n", "400", ""),
            ("GET http://we%62.example/ HTTP/1.1\r\nHost: a\r\n\r\n", "400", ""),
            ("GET http://web.example\\@evil.example/ HTTP/1.1\r\nHost: a\r\n\r\n", "400", ""),
        ] {
            let answer = proxy.ask(request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
            assert!(answer.contains(text), "{request:?}: {answer}");
            assert!(!answer.contains("secret"), "{answer}");
        }
    });
}

#[test]
fn a_request_cannot_hide_another() {
    network(|| async {
        let (port, mut seen) = origin("203.0.113.9", ANSWER).await;
        let proxy = allow(&["web.example"]).serve();
        let hidden = "GET http://evil.example/hidden HTTP/1.1\r\nHost: evil.example\r\n\r\n";
        // Refused before anything is sent on.
        for headers in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length:\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding:\x0bchunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            " Transfer-Encoding: chunked\r\n",
            "X: y\r\n Transfer-Encoding: chunked\r\n",
            "X: y\nX\0: z\r\n",
            "X: \0\r\n",
            "X\r\n",
            ": x\r\n",
        ] {
            let request =
                format!("POST http://web.example:{port}/ HTTP/1.1\r\nHost: a\r\n{headers}\r\n0\r\n\r\n{hidden}");
            let answer = proxy.ask(request).await;
            let status = &answer[..answer.len().min(13)];
            assert!(["HTTP/1.1 400 ", "HTTP/1.1 501 "].contains(&status), "{headers:?}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{headers:?}: {answer}");
        }
        assert!(seen.try_recv().is_err(), "the origin was reached");

        // Both framings: chunks count, the length is gone, and nothing after it is read as a request.
        for headers in [
            "Content-Length: 60\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        ] {
            let request = format!(
                "POST http://web.example:{port}/ HTTP/1.1\r\nHost: a\r\n{headers}\r\n1\r\nx\r\n0\r\n\r\n{hidden}"
            );
            let answer = proxy.ask(request).await;
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
            let request = seen.recv().await.unwrap();
            assert!(
                !request.to_lowercase().contains("content-length") && request.ends_with("\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
                "{request}"
            );
        }
        // HTTP/1.0 has no chunks.
        let answer = proxy
            .ask(format!("POST http://web.example:{port}/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"))
            .await;
        assert!(answer.contains(" 400 "), "{answer}");
        // What `Connection` lists is taken away, but never the framing.
        let request = format!(
            "POST http://web.example:{port}/ HTTP/1.1\r\nHost: a\r\nConnection: close, content-length, host\r\nContent-Length: 2\r\n\r\nab"
        );
        assert!(proxy.ask(request).await.ends_with("hi"));
        let request = seen.recv().await.unwrap();
        assert!(
            request.ends_with("\r\n\r\nab") && request.contains(&format!("Host: web.example:{port}\r\n")),
            "{request}"
        );
        assert!(seen.try_recv().is_err());
        // A refused request's body is not a request either.
        let answer = proxy
            .ask(format!("POST http://evil.example/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()))
            .await;
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        let hosts: Vec<String> = proxy.denials.lock().unwrap().iter().map(|denial| denial.host.clone()).collect();
        assert_eq!(hosts, ["evil.example"]);
    });
}

#[test]
fn chunks_that_are_none_end_the_exchange() {
    network(|| async {
        let (port, mut seen) = origin("203.0.113.9", ANSWER).await;
        let proxy = allow(&["web.example"]).serve();
        for chunk in ["zz\r\n", "fffffffffffffffff\r\nx", "-1\r\n", "1\r\nxy\r\n0\r\n\r\n", "0\r\nX: y"] {
            let mut client = proxy.dial().await;
            let head = format!(
                "POST http://web.example:{port}/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"
            );
            client.write_all(head.as_bytes()).await.unwrap();
            client.shutdown().await.unwrap();
            let answer = rest(&mut client).await;
            assert!(!answer.contains(" 200 ") && !answer.contains(" 502 "), "{chunk:?}: {answer}");
            // Whoever goes on listening is told whose fault it is.
            let mut client = proxy.dial().await;
            client.write_all(head.as_bytes()).await.unwrap();
            if chunk != "0\r\nX: y" {
                let answer = rest(&mut client).await;
                assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("the body did not come"), "{answer}");
            }
        }
        assert!(seen.try_recv().is_err());
    });
}

#[test]
fn absurd_heads_are_refused_and_survived() {
    network(|| async {
        let (port, _) = origin("203.0.113.9", ANSWER).await;
        let proxy = allow(&["web.example"]).serve();
        let get = format!("GET http://web.example:{port}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
        let long_header = format!("{get}X: {}\r\n\r\n", "x".repeat(70_000));
        let many_headers = format!("{get}{}\r\n", "X: y\r\n".repeat(101));
        let endless = format!("{get}X: {}", "x".repeat(1_000_000));
        let long_url = format!("GET http://web.example/{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(65_500));
        let long_host = format!("CONNECT {}:443 HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(60_000));
        let long_method =
            format!("{} http://web.example/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "X".repeat(60_000));
        for (request, statuses) in [
            (long_header.as_bytes(), &["431"][..]),
            (many_headers.as_bytes(), &["431"]),
            (endless.as_bytes(), &["431"]),
            (long_url.as_bytes(), &["414", "431"]),
            (long_host.as_bytes(), &["400"]),
            (long_method.as_bytes(), &["502"]),
            (b"\r\n\r\n\r\nGET\r\n\r\n", &["400"]),
            (b"GET http://web.example/ HTTP/9.9\r\n\r\n", &["400"]),
            (b"G\0T http://web.example/ HTTP/1.1\r\n\r\n", &["400"]),
            (b"GET http://web.example/\x80\xff HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &["400", "502"]),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &["400"]),
            (b"\x05\x01\x00", &["400"]),
            (b"\xff\xff\xff\xff\r\n\r\n", &["400"]),
        ] {
            let mut client = proxy.dial().await;
            // The proxy may have closed before the last of it.
            let _ = client.write_all(request).await;
            let answer = rest(&mut client).await;
            let shown = String::from_utf8_lossy(&request[..request.len().min(60)]);
            assert!(
                statuses.iter().any(|status| answer.starts_with(&format!("HTTP/1.1 {status} "))),
                "{shown:?}: {answer}"
            );
            assert!(answer.len() < 1000, "{shown:?}: {} bytes", answer.len());
        }
        // HTTP/2 without being asked: closed, whatever is said.
        proxy.ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        assert!(proxy.ask(format!("{get}\r\n")).await.ends_with("hi"), "it serves on");
    });
}
