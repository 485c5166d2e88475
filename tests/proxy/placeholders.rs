//! Where a placeholder can stand and where it can hide, and under which names a host can be asked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt;

use crate::intercepted::{VALUE, WORD, http1, http2, text};
use crate::network::{Running, allow, network, origin, rest, server};
use crate::tls::Tls;

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
const TOKEN: &str = "the/value";

/// A proxy that puts a value into requests in the clear to `web.example`, and nowhere else.
fn clear(port: u16) -> Running {
    let credential = format!("T=env:T,to=* http://web.example:{port}/a/*,in=header+query+path+body");
    allow(&["web.example", "a.web.example"]).secret(&credential, TOKEN).serve()
}

#[test]
fn a_placeholder_is_found_however_it_is_cut_and_nowhere_else() {
    network(|| async {
        let (port, mut heard) = origin("203.0.113.9", ANSWER).await;
        let proxy = clear(port);
        let post = format!("POST http://web.example:{port}/a/b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
        let get = |path: &str, more: &str| {
            format!("GET http://web.example:{port}/a/{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{more}\r\n")
        };
        let chunks = |body: &[&str]| -> String {
            let chunks: String = body.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
            format!("{post}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
        };
        let letters: Vec<String> = "x ringfence-T-secret y".chars().map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        // Found: the origin hears the value.
        for (request, sent) in [
            (chunks(&["x ringf", "ence-T-sec", "ret y"]), "the/value"),
            (chunks(&letters), "the/value"),
            (
                format!(
                    "{post}Transfer-Encoding: chunked\r\n\r\n12;ext=\"ringfence-\"\r\nringfence-T-secret\r\n0\r\n\r\n"
                ),
                "the/value",
            ),
            (
                format!("{post}Content-Length: 18\r\n\r\nringfence-T-secret"),
                "Content-Length: 9\r\nConnection: close\r\n\r\nthe/value",
            ),
            (get("b?q=%72ingfence-T-%73ecret", ""), "GET /a/b?q=the%2Fvalue HTTP/1.1"),
            (get("b", "X: a,ringfence-T-secret;b\r\n"), "X: a,the/value;b\r\n"),
            (
                get("b", "Authorization: bAsIc cmluZ2ZlbmNlLVQtc2VjcmV0Ong\r\n"),
                "Authorization: bAsIc dGhlL3ZhbHVlOng=\r\n",
            ),
        ] {
            let answer = proxy.ask(&request).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{request}\n{answer}");
            let request = heard.recv().await.unwrap();
            // Letters of a body may come in chunks of their own.
            let plain = request.replace("\r\n", "").replace(|letter: char| letter.is_ascii_digit(), "");
            assert!(request.contains(sent) || plain.contains(sent), "{request}");
            assert!(!request.contains("ringfence-T"), "{request}");
        }
        // Not found: a word like any other, without worth.
        for (request, sent) in [
            (get("b", "X: %72ingfence-T-secret\r\n"), "%72ingfence-T-secret"),
            (get("b", "X: cmluZ2ZlbmNlLVQtc2VjcmV0\r\n"), "cmluZ2ZlbmNlLVQtc2VjcmV0"),
            // Inside of base64, one byte further on: no decoding of a part of it is tried.
            (get("b", "Authorization: Bearer YXJpbmdmZW5jZS1ULXNlY3JldA==\r\n"), "YXJpbmdmZW5jZS1ULXNlY3JldA=="),
            (get("b?q=%2572ingfence-T-secret", ""), "%2572ingfence-T-secret"),
            (get("b", "X: ringfence-\r\nX: T-secret\r\n"), "X: ringfence-\r\nX: T-secret\r\n"),
            (get("b", "X: ringfence-T-Secret, ringfence--secret\r\n"), "ringfence-T-Secret, ringfence--secret"),
            (get("b", "Cookie: a=ringfence-; b=T-secret\r\n"), "a=ringfence-; b=T-secret"),
            // What would follow such an upgrade are requests that nobody judges: the request goes on without it.
            (
                get("b", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n")
                    .replace("close", "upgrade, HTTP2-Settings, close"),
                "GET /a/b",
            ),
        ] {
            let answer = proxy.ask(&request).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{request}\n{answer}");
            let request = heard.recv().await.unwrap();
            assert!(request.contains(sent) && !request.contains("value") && !request.contains("h2c"), "{request}");
        }
        // Refused, and never sent.
        for (request, status) in [
            (get("b", "X: a\r\n ringfence-T-secret\r\n"), "400"),
            (get("b", "X: a\rY: ringfence-T-secret\r\n"), "400"),
            (get("b", "ringfence-T-secret: a\r\n"), "403"),
            (get("b", "Proxy-Authorization: Basic cmluZ2ZlbmNlLVQtc2VjcmV0Ong=\r\n"), "403"),
            (get("b", "X: ringfence-U-secret\r\n"), "403"),
            (get("ringfence-T-secret/../../c", ""), "403"),
            // Its slash would be an escaped one, which has no one reading where a rule judges paths.
            (get("%72ingfence%2DT%2dsecret/c", ""), "403"),
            (get("b", &format!("X: {}\r\n", "ringfence-T-secret ".repeat(65))), "403"),
            (get("b", "X: ringfence-T-secret\r\n").replace("/a/b", "/b"), "403"),
            (get("b", "X: ringfence-T-secret\r\n").replace("web.example", "a.web.example"), "403"),
            (get("b", "X: ringfence-T-secret\r\n").replace("web.example", "203.0.113.9"), "403"),
            (get("b", "X: ringfence-T-secret\r\n").replace("web.example", "evil.example@web.example"), "400"),
            (get("b", "X: ringfence-T-secret\r\n").replace("GET", "TRACE"), "405"),
            (get("b", "X: ringfence-T-secret\r\n").replace("http:", "https:"), "501"),
        ] {
            let answer = proxy.ask(&request).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")) && !answer.contains(TOKEN),
                "{request}\n{answer}"
            );
        }
        assert!(heard.try_recv().is_err());
    });
}

#[test]
fn a_redirect_takes_no_value_along() {
    network(|| async {
        // The origin sends its client elsewhere, with what it was told.
        let port = server("203.0.113.9", |mut stream| async move {
            let head = crate::network::head(&mut stream).await;
            let said = head.split("Authorization: Bearer ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap();
            let answer = format!(
                "HTTP/1.1 302 Found\r\nLocation: http://a.web.example/a/b?{said}\r\nRefresh: 0; url=/{said}\r\nContent-Length: 0\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let credential = format!("T=env:T,to=* http://web.example:{port}/*");
        let proxy = allow(&["web.example", "a.web.example"]).secret(&credential, "the-value-itself").serve();
        let ask =
            |url: &str| format!("GET {url} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: {WORD}\r\n\r\n");
        let answer = proxy.ask(ask(&format!("http://web.example:{port}/"))).await;
        assert!(
            answer.contains("http://a.web.example/a/b?ringfence-T-secret\r\n") && !answer.contains("value"),
            "{answer}"
        );
        // Whoever goes there takes the placeholder along, in the URL or in the header, and is refused.
        let answer = proxy.ask(ask("http://a.web.example/a/b")).await;
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("may not go with this request"), "{answer}");
        let request =
            "GET http://a.web.example/a/b?ringfence-T-secret HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        assert!(proxy.ask(request).await.starts_with("HTTP/1.1 403 "));
        let denials = proxy.denials.lock().unwrap();
        assert!(denials.iter().all(|denial| denial.stage == "credential") && denials.len() == 2, "{denials:?}");
    });
}

#[test]
fn every_name_in_a_tunnel_is_the_tunnels() {
    network(|| async {
        let tls = Tls::new();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&heard);
        let port = tls.origin(&["h2", "http/1.1"], move |request: Request<Incoming>| {
            let host = request.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
            let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
            tell.lock().unwrap().push(host.or(authority).unwrap());
            std::future::ready(Response::new(text("")))
        });
        let proxy = allow(&["web.example", "other.example"])
            .secret(&format!("T=env:T,to=web.example:{port}"), VALUE)
            .trusting(&tls)
            .serve();
        // Spellings of one host are one host; the origin hears one of them.
        for (host, status) in [
            (format!("web.example:{port}"), 200),
            (format!("WEB.Example.:{port}"), 200),
            ("web.example".to_owned(), 421),
            (format!("other.example:{port}"), 421),
            (format!("a.web.example:{port}"), 421),
            (format!("203.0.113.9:{port}"), 421),
            (format!("web.example:{port}, other.example"), 421),
            (format!("web.example\t:{port}"), 421),
            (String::new(), 421),
        ] {
            let mut client = http1(tls.dial(&proxy, port, &["http/1.1"]).await).await;
            let request = Request::get("/").header("host", &host).header("authorization", WORD);
            let answer = client.send_request(request.body(text("")).unwrap()).await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{host}");
        }
        for (authority, host, status) in [
            (format!("web.example:{port}"), None, 200),
            (format!("WEB.Example.:{port}"), Some(format!("web.example:{port}")), 200),
            (format!("web.example:{port}"), Some("other.example".to_owned()), 421),
            (format!("other.example:{port}"), None, 421),
            (format!("other.example:{port}"), Some(format!("web.example:{port}")), 421),
        ] {
            let mut client = http2(tls.dial(&proxy, port, &["h2"]).await).await;
            let mut request = Request::get(format!("https://{authority}/")).header("authorization", WORD);
            if let Some(host) = &host {
                request = request.header("host", host);
            }
            let answer = client.send_request(request.body(text("")).unwrap()).await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{authority} {host:?}");
        }
        let expected = format!("web.example:{port}");
        assert_eq!(*heard.lock().unwrap(), [expected.as_str(); 4]);
        // The tunnel's name in another spelling; and TLS for another name than the tunnel's, or for an address.
        let tunnel = proxy.tunnel(&format!("WEB.example.:{port}")).await;
        assert!(tls.begin(tunnel, "web.example", &[]).await.is_ok());
        for name in ["other.example", "a.web.example"] {
            let tunnel = proxy.tunnel(&format!("web.example:{port}")).await;
            let error = tls.begin(tunnel, name, &[]).await.unwrap_err().to_string();
            assert!(error.contains("UnrecognisedName"), "{error}");
        }
        let codes: Vec<_> = proxy.denials.lock().unwrap().iter().map(|denial| denial.reason.code()).collect();
        assert_eq!(codes, ["server-name"; 2]);
    });
}

#[test]
fn an_address_is_looked_into_under_its_own_certificate() {
    network(|| async {
        let tls = Tls::new();
        for (address, written) in [("203.0.113.9", "203.0.113.9"), ("2001:db8::9", "[2001:DB8:0::9]")] {
            let port = tls.origin_at(address, &["h2", "http/1.1"], |request: Request<Incoming>| {
                let right =
                    request.headers().get("authorization").is_some_and(|value| value == &format!("Bearer {VALUE}"));
                std::future::ready(Response::new(text(right.to_string())))
            });
            let host = written.to_ascii_lowercase().replace(":0::", "::");
            let proxy = allow(&["203.0.113.9", "2001:db8::9"])
                .secret(&format!("T=env:T,to={host}:{port}"), VALUE)
                .trusting(&tls)
                .serve();
            let tunnel = proxy.tunnel(&format!("{written}:{port}")).await;
            let mut client = http1(tls.begin(tunnel, address, &["http/1.1"]).await.unwrap()).await;
            let request = Request::get("/").header("host", format!("{written}:{port}")).header("authorization", WORD);
            let answer = client.send_request(request.body(text("")).unwrap()).await.unwrap();
            let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
            assert_eq!(body, "true", "{address}");
        }
    });
}

#[test]
fn what_is_pipelined_is_judged_one_by_one() {
    network(|| async {
        let (port, mut heard) = origin("203.0.113.9", ANSWER).await;
        let proxy = clear(port);
        let one = |path: &str| {
            format!("GET http://web.example:{port}{path} HTTP/1.1\r\nHost: a\r\nX: ringfence-T-secret\r\n\r\n")
        };
        let mut client = proxy.dial().await;
        let all = [one("/a/1"), one("/b"), one("/a/2").replace("Host: a", "Host: a\r\nConnection: close")].concat();
        client.write_all(all.as_bytes()).await.unwrap();
        let answers = rest(&mut client).await;
        let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
        assert_eq!(statuses, ["200", "403", "200"], "{answers}");
        for path in ["/a/1", "/a/2"] {
            let request = tokio::time::timeout(Duration::from_secs(30), heard.recv()).await.unwrap().unwrap();
            assert!(request.starts_with(&format!("GET {path} ")) && request.contains("X: the/value\r\n"), "{request}");
        }
        assert!(heard.try_recv().is_err());
    });
}
