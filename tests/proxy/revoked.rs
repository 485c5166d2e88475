//! What becomes of what is under way when the list lets it through no longer, and of what an audit lets through.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use ringfence::proxy::DenialReason;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::intercepted::{VALUE, WORD, http1, http2, stream, text};
use crate::network::{allow, echo, list, network, response, rest};
use crate::tls::Tls;

/// For what may take as long as it likes under load.
const PATIENCE: Duration = Duration::from_secs(60);

/// Reads until the other end is gone, and says how that was.
async fn gone(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut scrap = [0; 4096];
    let read = async {
        while stream.read(&mut scrap).await? > 0 {}
        Ok(())
    };
    timeout(PATIENCE, read).await.expect("an end")
}

/// Says something and hears it again.
async fn roundtrip(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    stream.write_all(b"echo").await.unwrap();
    let mut back = [0; 4];
    timeout(PATIENCE, stream.read_exact(&mut back)).await.expect("an echo").unwrap();
    assert_eq!(&back, b"echo");
}

#[test]
fn a_closed_tunnel_is_cut_when_only_rules_are_left_for_its_host() {
    network(|| async {
        let tls = Tls::new();
        let (port, other) = (echo("203.0.113.9").await, echo("2001:db8::9").await);
        let (setup, change) = allow(&["web.example", "six.example"]).trusting(&tls).following();
        let proxy = setup.serve();
        let mut cut = proxy.tunnel(&format!("web.example:{port}")).await;
        let mut kept = proxy.tunnel(&format!("six.example:{other}")).await;
        roundtrip(&mut cut).await;
        roundtrip(&mut kept).await;
        // An entry without a rule still covers both: nothing has to be seen.
        change.send_replace(list(&[&format!("GET https://web.example:{port}/*"), "web.example", "six.example"]));
        roundtrip(&mut cut).await;
        change.send_replace(list(&[&format!("GET https://web.example:{port}/*"), "six.example"]));
        assert_eq!(rest(&mut cut).await, "<reset>");
        roundtrip(&mut kept).await;
        // The next one is looked into, and what it says in the clear is covered by no rule about TLS.
        let mut next = proxy.tunnel(&format!("web.example:{port}")).await;
        next.write_all(format!("GET / HTTP/1.1\r\nHost: web.example:{port}\r\n\r\n").as_bytes()).await.unwrap();
        assert!(response(&mut next).await.starts_with("HTTP/1.1 403 "));
    });
}

#[test]
fn a_call_over_http2_is_cut_with_its_rule() {
    network(|| async {
        let tls = Tls::new();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let port = tls.origin(&["h2"], move |request: Request<Incoming>| {
            let tell = tell.clone();
            async move {
                // An answer that goes on until nobody takes it.
                let (send, frames) = tokio::sync::mpsc::unbounded_channel();
                send.send(Frame::data(Bytes::from("first"))).unwrap();
                tell.send((request.uri().path().to_owned(), send)).unwrap();
                Response::new(stream(frames))
            }
        });
        let rule = |path: &str| format!("GET https://web.example:{port}/{path}/*");
        let (setup, change) = allow(&[]).trusting(&tls).following();
        change.send_replace(list(&[&rule("a"), &rule("b")]));
        let proxy = setup.serve();
        let call = async |path: &str| {
            let mut client = http2(tls.dial(&proxy, port, &["h2"]).await).await;
            let request = Request::get(format!("https://web.example:{port}/{path}/events")).body(text("")).unwrap();
            let answer = client.send_request(request).await.unwrap();
            assert_eq!(answer.status(), 200);
            let mut body = answer.into_body();
            let first = timeout(PATIENCE, body.frame()).await.expect("a frame").unwrap().unwrap();
            assert_eq!(first.into_data().unwrap(), "first");
            (client, body)
        };
        let (_client, mut cut) = call("a").await;
        let (_other, mut kept) = call("b").await;
        let (_, cut_at_origin) = told.recv().await.unwrap();
        let (_, kept_at_origin) = told.recv().await.unwrap();
        change.send_replace(list(&[&rule("b")]));
        // An error, and no end that would make it look whole.
        assert!(timeout(PATIENCE, cut.frame()).await.expect("a cut").unwrap().is_err());
        timeout(PATIENCE, cut_at_origin.closed()).await.expect("the origin hears of it");
        kept_at_origin.send(Frame::data(Bytes::from("second"))).unwrap();
        let second = timeout(PATIENCE, kept.frame()).await.expect("a frame").unwrap().unwrap();
        assert_eq!(second.into_data().unwrap(), "second");
    });
}

#[test]
fn a_websocket_is_cut_with_its_rule() {
    network(|| async {
        let tls = Tls::new();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let port = tls.origin(&["http/1.1"], move |mut request: Request<Incoming>| {
            let (tell, switched) = (tell.clone(), hyper::upgrade::on(&mut request));
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(TokioIo::new(switched.await.unwrap()));
                let _ = tell.send(tokio::io::copy(&mut read, &mut write).await.map_err(|error| error.kind()));
            });
            let answer = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "websocket");
            std::future::ready(answer.body(text("")).unwrap())
        });
        let (setup, change) = allow(&[]).trusting(&tls).following();
        change.send_replace(list(&[&format!("GET https://web.example:{port}/socket")]));
        let proxy = setup.serve();
        let client = http1(tls.dial(&proxy, port, &["http/1.1"]).await).await;
        let mut client = client;
        let request = Request::get("/socket")
            .header("host", format!("web.example:{port}"))
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .body(Empty::new().boxed())
            .unwrap();
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 101);
        let mut socket = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
        roundtrip(&mut socket).await;
        change.send_replace(list(&[&format!("GET https://web.example:{port}/other")]));
        assert_eq!(gone(&mut socket).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let ended = timeout(PATIENCE, told.recv()).await.expect("the origin hears of it").unwrap();
        assert_eq!(ended, Err(io::ErrorKind::ConnectionReset));
    });
}

#[test]
fn an_audit_lets_through_what_no_rule_covers_and_tells_the_rule() {
    network(|| async {
        let tls = Tls::new();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&heard);
        let port = tls.origin(&["http/1.1"], move |request: Request<Incoming>| {
            tell.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
            std::future::ready(Response::new(text("here")))
        });
        let (setup, change) = allow(&[])
            .secret(&format!("T=env:T,to=GET https://web.example:{port}/a/*"), VALUE)
            .trusting(&tls)
            .audit()
            .following();
        change.send_replace(list(&[&format!("GET https://web.example:{port}/a/*")]));
        let proxy = setup.serve();
        let ask = async |method: &str, path: &str, authorization: Option<&str>| {
            let mut client = http1(tls.dial(&proxy, port, &["http/1.1"]).await).await;
            let mut request = Request::builder().method(method).uri(path).header("host", format!("web.example:{port}"));
            if let Some(authorization) = authorization {
                request = request.header("authorization", authorization);
            }
            client.send_request(request.body(text("")).unwrap()).await.unwrap().status().as_u16()
        };
        assert_eq!(ask("GET", "/a/b", Some(WORD)).await, 200);
        assert!(proxy.denials.lock().unwrap().is_empty());
        assert_eq!(ask("DELETE", "/a/b", None).await, 200);
        assert_eq!(ask("GET", "/c?d", None).await, 200);
        // What nobody can say what it would have been is refused all the same, and no value goes where it may not.
        assert_eq!(ask("GET", "/a/../c", None).await, 403);
        assert_eq!(ask("GET", "/c", Some(WORD)).await, 403);
        assert_eq!(*heard.lock().unwrap(), ["GET /a/b", "DELETE /a/b", "GET /c?d"]);
        let denials = proxy.denials.lock().unwrap().clone();
        let told: Vec<_> = denials
            .iter()
            .map(|denial| (denial.reason.code(), denial.passed, denial.hint.as_ref().map(ToString::to_string)))
            .collect();
        let https = format!("https://web.example:{port}");
        assert_eq!(
            told,
            [
                ("request", true, Some(format!("DELETE {https}/a/b"))),
                ("request", true, Some(format!("GET {https}/c"))),
                ("request", false, None),
                ("credential", false, None),
            ]
        );
        assert!(
            matches!(&denials[1].reason, DenialReason::Request { method, path } if method == "GET" && path == "/c")
        );
        // In an audit a change of the list cuts nothing.
        let mut open = http1(tls.dial(&proxy, port, &["http/1.1"]).await).await;
        change.send_replace(list(&[]));
        let request = Request::get("/a/b").header("host", format!("web.example:{port}"));
        assert_eq!(open.send_request(request.body(text("")).unwrap()).await.unwrap().status(), 200);
    });
}
