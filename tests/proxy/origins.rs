//! Origins that mean harm, or go away in the middle.

use std::future::Future;
use std::io;
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use crate::flood::{CONTINUATION, HEADERS, PING, SETTINGS, frame, resident};
use crate::intercepted::{VALUE, WORD, http1, http2, setup, text};
use crate::network::{alone, head, network, rest, server};
use crate::tls::Tls;

/// For what may take as long as it likes under load.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers the first request with those bytes, and goes away: with a reset, or in good order.
fn says(answer: &'static [u8], reset: bool) -> impl Fn(TlsStream<TcpStream>) -> Ending + Clone + Send + Sync + 'static {
    move |mut stream| {
        Box::pin(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            let _ = stream.write_all(answer).await;
            let _ = stream.flush().await;
            if reset {
                // Once it has arrived: a reset takes back what is still on its way.
                tokio::time::sleep(Duration::from_millis(50)).await;
                rustix::net::sockopt::set_socket_linger(stream.get_ref().0, Some(Duration::ZERO)).unwrap();
            } else {
                let _ = stream.shutdown().await;
            }
        })
    }
}

type Ending = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

#[test]
fn an_answer_that_is_cut_off_inside_of_tls_does_not_look_whole() {
    network(|| async {
        let tls = Tls::new();
        for answer in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbeginning"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nbeginning\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nbeginning",
        ] {
            let port = tls.server(&["http/1.1"], says(answer, true)).await;
            let proxy = setup(&tls, port).serve();
            let mut client = tls.dial(&proxy, port, &["http/1.1"]).await;
            let request = format!("GET / HTTP/1.1\r\nHost: web.example:{port}\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let mut got = Vec::new();
            let ended = timeout(PATIENCE, client.read_to_end(&mut got)).await.expect("an end");
            let got = String::from_utf8_lossy(&got).into_owned();
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{got}");
            // The proxy may have been told of the reset before it had handed on what came before.
            assert!(!got.contains("\r\n0\r\n") && (got.is_empty() || got.starts_with("HTTP/1.1 ")), "{got}");
        }
    });
}

#[test]
fn of_an_answer_that_breaks_off_all_that_came_arrives() {
    const CAME: &str = "tok the value that nobody sees end";
    network(|| async {
        let tls = Tls::new();
        // One byte too few, half of a chunk, and no word of TLS that it was all.
        for head in ["Content-Length: 35\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n30\r\n", "\r\n"] {
            let answer = format!("HTTP/1.1 200 OK\r\n{head}{CAME}");
            let port = tls
                .server(&["http/1.1"], move |mut stream| {
                    let answer = answer.clone();
                    async move {
                        let mut asked = Vec::new();
                        while !asked.ends_with(b"\r\n\r\n") {
                            asked.push(stream.read_u8().await.unwrap());
                        }
                        stream.write_all(answer.as_bytes()).await.unwrap();
                        stream.flush().await.unwrap();
                    }
                })
                .await;
            let proxy = setup(&tls, port).serve();
            let mut client = http1(tls.dial(&proxy, port, &["http/1.1"]).await).await;
            let request = Request::get("/").header("host", format!("web.example:{port}")).header("authorization", WORD);
            let mut body = client.send_request(request.body(text("")).unwrap()).await.unwrap().into_body();
            let mut got = Vec::new();
            let ended = loop {
                match timeout(PATIENCE, body.frame()).await.expect("an end") {
                    Some(Ok(frame)) => got.extend(frame.into_data().unwrap()),
                    other => break other,
                }
            };
            assert_eq!(String::from_utf8(got).unwrap(), CAME.replace(VALUE, "ringfence-T-secret"), "{head}");
            assert!(ended.is_some_and(|frame| frame.is_err()), "{head}: it looks whole");
        }
    });
}

#[test]
fn in_a_tunnel_that_is_looked_into_a_reset_stays_a_reset() {
    network(|| async {
        let tls = Tls::new();
        // In the clear, to a client that knows the end of an answer by the end of the connection alone.
        let port = server("203.0.113.9", |mut stream| async move {
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nbeginning").await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        })
        .await;
        let proxy = setup(&tls, port).serve();
        let mut tunnel = proxy.tunnel(&format!("web.example:{port}")).await;
        tunnel.write_all(format!("GET / HTTP/1.0\r\nHost: web.example:{port}\r\n\r\n").as_bytes()).await.unwrap();
        let shown = rest(&mut tunnel).await;
        assert!(shown.ends_with("<reset>"), "{shown}");

        // A WebSocket, over TLS.
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhi";
        let port = tls.server(&["http/1.1"], says(switch, true)).await;
        let proxy = setup(&tls, port).serve();
        let mut client = http1(tls.dial(&proxy, port, &["http/1.1"]).await).await;
        let request = Request::get("/").header("host", format!("web.example:{port}"));
        let request = request.header("connection", "upgrade").header("upgrade", "websocket");
        let answer = client.send_request(request.body(Empty::new().boxed()).unwrap()).await.unwrap();
        let mut socket = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
        let ended = timeout(PATIENCE, socket.read_to_end(&mut Vec::new())).await.expect("an end");
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn what_an_origin_says_of_the_value_in_odd_places_is_kept_from_the_program() {
    const ODD: &str = "s3cr3t-Token-0123456789";
    network(|| async {
        let tls = Tls::new();
        let answer = concat!(
            "HTTP/1.1 103 Early Hints\r\nLink: s3cr3t-Token-0123456789\r\n\r\n",
            "HTTP/1.1 200 s3cr3t-Token-0123456789\r\nX-s3cr3t-Token-0123456789: a\r\nX-S3CR3T-TOKEN-0123456789-: b\r\n",
            "Set-Cookie: a=s3cr3t-Token-0123456789; b=czNjcjN0LVRva2VuLTAxMjM0NTY3ODk=\r\nTransfer-Encoding: chunked\r\n",
            "Trailer: x-last\r\n\r\n5\r\ns3cr3\r\n12\r\nt-Token-0123456789\r\n0\r\nX-Last: s3cr3t-Token-0123456789\r\n\r\n",
        );
        let port = tls.server(&["http/1.1"], says(answer.as_bytes(), false)).await;
        let credential = format!("T=env:T,to=web.example:{port}");
        let proxy = crate::network::allow(&["web.example"]).secret(&credential, ODD).trusting(&tls).serve();
        let ask = async |authorization: &str| {
            let mut client = tls.dial(&proxy, port, &["http/1.1"]).await;
            let request = format!(
                "GET / HTTP/1.1\r\nHost: web.example:{port}\r\nConnection: close\r\nTE: trailers\r\nAuthorization: {authorization}\r\n\r\n"
            );
            client.write_all(request.as_bytes()).await.unwrap();
            let mut got = Vec::new();
            timeout(PATIENCE, client.read_to_end(&mut got)).await.expect("an end").unwrap();
            String::from_utf8(got).unwrap()
        };
        let got = ask("Bearer ringfence-T-secret").await;
        assert!(got.starts_with("HTTP/1.1 200 OK\r\n") && got.contains("a=ringfence-T-secret"), "{got}");
        assert!(!got.to_ascii_lowercase().contains("s3cr3t"), "{got}");
        // The base64 that was sent; `ringfence-T-secret` alone, without a user.
        let got = ask("Basic cmluZ2ZlbmNlLVQtc2VjcmV0").await;
        assert!(!got.contains("czNjcjN0") && !got.to_ascii_lowercase().contains("s3cr3t-t"), "{got}");
    });
}

#[cfg(feature = "cli")]
#[test]
fn no_log_at_any_level_has_the_value() {
    const ODD: &str = "s3cr3t-Token-0123456789";
    /// A place for a log.
    #[derive(Clone, Default)]
    struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    network(|| async {
        let (tls, log) = (Tls::new(), Log::default());
        let writer = log.clone();
        // All that libraries say in this thread, which the proxy, the client and the origin share.
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone())
            .finish();
        let _logged = tracing::subscriber::set_default(subscriber);
        let port = tls.origin(&["h2", "http/1.1"], |request: Request<hyper::body::Incoming>| async move {
            let said = format!("{} {:?}", request.uri(), request.headers());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let heard = said.contains(ODD) && body == ODD;
            http::Response::builder().header("x-echo", ODD).body(text(format!("{heard} {said}"))).unwrap()
        });
        let credential = format!("T=env:T,to=web.example:{port},in=header+query+path+body");
        let proxy = crate::network::allow(&["web.example"]).secret(&credential, ODD).trusting(&tls).serve();
        for protocol in ["h2", "http/1.1"] {
            let client = tls.dial(&proxy, port, &[protocol]).await;
            let origin = if protocol == "h2" { format!("https://web.example:{port}") } else { String::new() };
            let request = Request::post(format!("{origin}/ringfence-T-secret?q=ringfence-T-secret"))
                .header("authorization", "Basic cmluZ2ZlbmNlLVQtc2VjcmV0")
                .header("cookie", "a=ringfence-T-secret");
            let answer = if protocol == "h2" {
                http2(client).await.send_request(request.body(text("ringfence-T-secret")).unwrap()).await.unwrap()
            } else {
                let request = request.header("host", format!("web.example:{port}"));
                http1(client).await.send_request(request.body(text("ringfence-T-secret")).unwrap()).await.unwrap()
            };
            let body = String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
            assert!(body.starts_with("true ") && !body.contains("s3cr3t"), "{body}");
        }
        let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
        assert!(log.contains("let through") && log.contains("h2::"), "{log}");
        for value in [ODD, "czNjcjN0LVRva2VuLTAxMjM0NTY3ODk="] {
            assert!(!log.contains(value), "{}", log.lines().find(|line| line.contains(value)).unwrap());
        }
    });
}

#[test]
fn an_answer_that_can_be_read_in_two_ways_is_no_answer() {
    network(|| async {
        let tls = Tls::new();
        for (answer, status) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc"[..], "502"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc", "502"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc", "502"),
            (b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc", "502"),
            (b"HTTP/2.0 200 OK\r\n\r\n", "502"),
            (b"\0\0\0\x04\0\0\0\0\0", "502"),
            (b"", "502"),
            // What comes behind the end belongs to nobody.
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhidden",
                "200",
            ),
            (b"HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\nhidden", "204"),
            (b"HTTP/1.1 200 OK\r\nX: a\r\n hidden\r\nContent-Length: 2\r\n\r\nab", "502"),
        ] {
            let port = tls.server(&["http/1.1"], says(answer, false)).await;
            let proxy = setup(&tls, port).serve();
            let mut client = tls.dial(&proxy, port, &["http/1.1"]).await;
            // The second request must not be answered by what is left of the first's answer.
            let request = format!("GET / HTTP/1.1\r\nHost: web.example:{port}\r\nConnection: close\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let mut got = Vec::new();
            let _ = timeout(PATIENCE, client.read_to_end(&mut got)).await.expect("an end");
            let got = String::from_utf8_lossy(&got).into_owned();
            let shown = String::from_utf8_lossy(answer);
            assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{shown}: {got}");
            assert!(!got.contains("hidden") && got.matches("HTTP/1.1").count() == 1, "{shown}: {got}");
        }
    });
}

/// Says the beginning of HTTP/2, and then those bytes again and again until nobody takes them or it is enough; says how many
/// were taken.
fn floods(
    flood: Vec<u8>,
    most: usize,
    tell: tokio::sync::mpsc::UnboundedSender<Option<usize>>,
) -> impl Fn(TlsStream<TcpStream>) -> Ending + Clone + Send + Sync + 'static {
    move |stream| {
        let (flood, tell) = (flood.clone(), tell.clone());
        Box::pin(async move {
            let (mut read, mut write) = tokio::io::split(stream);
            let reading = tokio::spawn(async move {
                let mut scrap = vec![0; 1 << 16];
                while matches!(read.read(&mut scrap).await, Ok(1..)) {}
            });
            let mut sent = 0;
            let _ = write.write_all(&frame(SETTINGS, 0, 0, &[])).await;
            while sent < most && !reading.is_finished() && write.write_all(&flood).await.is_ok() {
                sent += flood.len();
            }
            let _ = tell.send((sent < most).then_some(sent));
        })
    }
}

#[test]
fn an_origin_that_floods_is_let_go_of() {
    alone("origins::an_origin_that_floods_is_let_go_of", || {
        network(|| async {
            let tls = Tls::new();
            let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
            let literal = [&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e][..], &[b'b'; 4000]].concat();
            for (name, flood, ends) in [
                // The answer's head never ends.
                ("continuation", frame(CONTINUATION, 0, 1, &[0x00, 1, b'a', 1, b'b'].repeat(100)), true),
                // One header of 4,000 bytes, named by a byte each time again.
                ("hpack", frame(HEADERS, 4, 1, &[&[0x88][..], &literal, &[0xbe; 4000]].concat()), true),
                ("pushed", frame(5, 4, 1, &[0, 0, 0, 2, 0x82]), true),
                ("settings", frame(SETTINGS, 0, 0, &[]).repeat(1000), false),
                ("ping", frame(PING, 0, 0, &[7; 8]).repeat(1000), false),
                ("streams", frame(HEADERS, 4, 2, &[0x88]).repeat(1000), true),
            ] {
                let flood = match name {
                    "continuation" => [frame(HEADERS, 0, 1, &[0x88]), flood.repeat(4_000)].concat(),
                    _ => flood,
                };
                let memory = resident();
                let port = tls.server(&["h2"], floods(flood, if ends { 8 << 20 } else { 1 << 20 }, tell.clone())).await;
                let proxy = setup(&tls, port).serve();
                let mut client = http2(tls.dial(&proxy, port, &["h2"]).await).await;
                let request = Request::get(format!("https://web.example:{port}/")).body(text("")).unwrap();
                let asked = tokio::spawn(client.send_request(request));
                let sent = timeout(10 * PATIENCE, told.recv()).await.expect("an end").unwrap();
                println!("{name}: ended after {sent:?} bytes");
                assert!(sent.is_some() || !ends, "{name}: all was taken");
                if ends {
                    let answer = timeout(PATIENCE, asked).await.expect("an answer").unwrap();
                    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() == 502), "{name}");
                }
                let grown = resident().saturating_sub(memory);
                assert!(grown < 48 << 10, "{name}: {grown} KiB");
            }
        });
    });
}
