//! Tunnels that the proxy looks into: what goes through whole, and what does not.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::network::{Setup, allow, alone, network, rest, through};
use crate::tls::{Body, Tls};

pub const VALUE: &str = "the value that nobody sees";
pub const WORD: &str = "Bearer ringfence-T-secret";

pub fn setup(tls: &Tls, port: u16) -> Setup {
    allow(&["web.example"]).secret(&format!("T=env:T,to=web.example:{port},in=header+body"), VALUE).trusting(tls)
}

pub fn text(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed()
}

pub fn stream(frames: tokio::sync::mpsc::UnboundedReceiver<Frame<Bytes>>) -> Body {
    let frames = futures::stream::unfold(frames, |mut frames| async move {
        frames.recv().await.map(|frame| (Ok::<_, std::convert::Infallible>(frame), frames))
    });
    BodyExt::boxed(StreamBody::new(frames))
}

pub async fn http2(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
) -> hyper::client::conn::http2::SendRequest<Body> {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub async fn http1(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
) -> hyper::client::conn::http1::SendRequest<Body> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

#[test]
fn a_call_with_trailers_is_http2_all_the_way() {
    network(|| async {
        let tls = Tls::new();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&heard);
        let port = tls.origin(&["h2", "http/1.1"], move |request: Request<Incoming>| {
            let tell = Arc::clone(&tell);
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                tell.lock().unwrap().push((parts.version, parts.uri.to_string(), parts.headers, body.clone()));
                let (send, frames) = tokio::sync::mpsc::unbounded_channel();
                send.send(Frame::data(body)).unwrap();
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                trailers.insert("grpc-message", HeaderValue::from_static(VALUE));
                send.send(Frame::trailers(trailers)).unwrap();
                Response::builder().header("content-type", "application/grpc").body(stream(frames)).unwrap()
            }
        });
        let proxy = setup(&tls, port).serve();
        let client = tls.dial(&proxy, port, &["h2", "http/1.1"]).await;
        assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let mut client = http2(client).await;
        // Several at once, on one connection each side.
        let mut calls = Vec::new();
        for call in 0..20 {
            let request = Request::post(format!("https://web.example:{port}/package.Service/Method{call}"))
                .header("te", "trailers")
                .header("authorization", WORD)
                .header("content-type", "application/grpc")
                .body(text(vec![0, 0, 0, 0, 2, 8, call]))
                .unwrap();
            client.ready().await.unwrap();
            calls.push((call, client.send_request(request)));
        }
        for (call, answer) in calls {
            let answer = answer.await.unwrap();
            assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
            let whole = answer.into_body().collect().await.unwrap();
            let trailers = whole.trailers().unwrap().clone();
            assert_eq!(trailers["grpc-status"], "0");
            assert_eq!(trailers["grpc-message"], "ringfence-T-secret");
            assert_eq!(whole.to_bytes(), vec![0, 0, 0, 0, 2, 8, call]);
        }
        for (version, url, headers, _) in heard.lock().unwrap().iter() {
            assert_eq!(*version, Version::HTTP_2);
            assert!(url.starts_with(&format!("https://web.example:{port}/package.Service/Method")), "{url}");
            assert_eq!(headers["authorization"], format!("Bearer {VALUE}"));
            assert_eq!(headers["te"], "trailers");
            assert!(!headers.contains_key("host") && !headers.contains_key("connection"));
        }
    });
}

#[test]
fn events_arrive_when_they_are_sent() {
    network(|| async {
        let tls = Tls::new();
        let (go, gone) = tokio::sync::mpsc::unbounded_channel::<()>();
        let gone = Arc::new(tokio::sync::Mutex::new(gone));
        let port = tls.origin(&["h2", "http/1.1"], move |_| {
            let gone = Arc::clone(&gone);
            async move {
                let (send, frames) = tokio::sync::mpsc::unbounded_channel();
                tokio::spawn(async move {
                    for event in 0..3 {
                        send.send(Frame::data(Bytes::from(format!("data: the valley {event}\n\n")))).unwrap();
                        // The next is not sent before this one has been seen.
                        gone.lock().await.recv().await.unwrap();
                    }
                });
                Response::builder().header("content-type", "text/event-stream").body(stream(frames)).unwrap()
            }
        });
        let proxy = setup(&tls, port).serve();
        for protocol in ["h2", "http/1.1"] {
            let client = tls.dial(&proxy, port, &[protocol]).await;
            let request =
                Request::get(if protocol == "h2" { format!("https://web.example:{port}/") } else { "/".into() });
            let request = request.header("authorization", WORD);
            let answer = if protocol == "h2" {
                http2(client).await.send_request(request.body(text("")).unwrap()).await.unwrap()
            } else {
                let request = request.header("host", format!("web.example:{port}"));
                http1(client).await.send_request(request.body(text("")).unwrap()).await.unwrap()
            };
            let mut body = answer.into_body();
            for event in 0..3 {
                let frame = timeout(Duration::from_secs(60), body.frame()).await.expect("an event in time");
                assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), format!("data: the valley {event}\n\n"));
                go.send(()).unwrap();
            }
            // HTTP/2 may say the end with a frame that has nothing else in it.
            let end = body.collect().await.unwrap().to_bytes();
            assert!(end.is_empty(), "{protocol}: {end:?}");
        }
    });
}

#[test]
fn what_begins_like_a_value_arrives_before_the_end() {
    network(|| async {
        let tls = Tls::new();
        // Says what it hears, and ends when its client does.
        let port = tls.origin(&["h2"], move |request: Request<Incoming>| async move {
            let (send, frames) = tokio::sync::mpsc::unbounded_channel();
            tokio::spawn(async move {
                let mut body = request.into_body();
                while let Some(Ok(frame)) = body.frame().await {
                    let Ok(data) = frame.into_data() else { return };
                    let _ = send.send(Frame::data(data));
                }
            });
            Response::new(stream(frames))
        });
        let proxy = setup(&tls, port).serve();
        let mut client = http2(tls.dial(&proxy, port, &["h2"]).await).await;
        let (say, said) = tokio::sync::mpsc::unbounded_channel();
        let request = Request::post(format!("https://web.example:{port}/")).header("authorization", WORD);
        let mut body = client.send_request(request.body(stream(said)).unwrap()).await.unwrap().into_body();
        // The first ends as a placeholder begins, the others as the value does.
        for message in ["list your repositor", "your list: the", "the valu", "the value that nobody see"] {
            say.send(Frame::data(Bytes::from(message))).unwrap();
            let mut heard = Vec::new();
            while heard.len() < message.len() {
                let frame = timeout(Duration::from_secs(60), body.frame()).await.expect("all of it in time");
                heard.extend(frame.unwrap().unwrap().into_data().unwrap());
            }
            assert_eq!(String::from_utf8(heard).unwrap(), message);
        }
        // Of a value that was begun the rest is not told.
        say.send(Frame::data(Bytes::from("s, and more"))).unwrap();
        drop(say);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "ringfence-T-secret, and more");
    });
}

#[test]
fn a_websocket_is_opened_with_a_word() {
    network(|| async {
        let tls = Tls::new();
        let port = tls.origin(&["http/1.1"], |mut request: Request<Incoming>| async move {
            if request.headers().get("authorization").is_none_or(|value| value != &format!("Bearer {VALUE}")) {
                return Response::builder().status(401).body(text("")).unwrap();
            }
            let switched = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(TokioIo::new(switched.await.unwrap()));
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
            let answer = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "websocket");
            answer.body(text("")).unwrap()
        });
        let proxy = setup(&tls, port).serve();
        // A client that would have HTTP/2 is given what the origin speaks.
        let client = tls.dial(&proxy, port, &["h2", "http/1.1"]).await;
        assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let request = Request::get("/socket")
            .header("host", format!("web.example:{port}"))
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("authorization", WORD)
            .body(Empty::new().boxed())
            .unwrap();
        let answer = http1(client).await.send_request(request).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers()["upgrade"].as_bytes()), (101, &b"websocket"[..]));
        let mut socket = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
        for piece in [vec![0x81, 2, b'h', b'i'], vec![7; 100_000]] {
            socket.write_all(&piece).await.unwrap();
            let mut back = vec![0; piece.len()];
            socket.read_exact(&mut back).await.unwrap();
            assert_eq!(back, piece);
        }
    });
}

#[test]
fn a_body_with_values_is_counted_or_cut_into_chunks() {
    network(|| async {
        let tls = Tls::new();
        let port = tls.origin(&["http/1.1"], |request: Request<Incoming>| async move {
            let length = request.headers().get("content-length").cloned();
            let chunked = request.headers().contains_key("transfer-encoding");
            let Ok(body) = request.into_body().collect().await else { return Response::new(text("cut")) };
            let body = body.to_bytes();
            let counted = length.is_some_and(|length| length == body.len().to_string().as_str());
            let hits = memchr::memmem::find_iter(&body, VALUE.as_bytes()).count();
            Response::new(text(format!("{counted} {chunked} {hits} {}", body.len())))
        });
        let proxy = setup(&tls, port).serve();
        let post = async |body: String| {
            let client = tls.dial(&proxy, port, &["http/1.1"]).await;
            let request = Request::post("/").header("host", format!("web.example:{port}")).body(text(body)).unwrap();
            let answer = http1(client).await.send_request(request).await.unwrap();
            let status = answer.status().as_u16();
            (status, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
        };
        let grown = VALUE.len() - "ringfence-T-secret".len();
        let short = format!("a ringfence-T-secret {}", "x".repeat(1000));
        assert_eq!(post(short.clone()).await, (200, format!("true false 1 {}", short.len() + grown)));
        let long = "ringfence-T-secret 123456789".repeat(20_000);
        assert_eq!(post(long.clone()).await, (200, format!("false true 20000 {}", long.len() + 20_000 * grown)));
        // A stranger in the body: refused before the head is gone, or cut off in the middle.
        for filler in [1, 400_000] {
            let (status, line) = post(format!("{} ringfence-X-secret", "y".repeat(filler))).await;
            assert_eq!(status, 403, "{line}");
            assert!(line.contains("there is no credential `X`"), "{line}");
        }
        let denials = proxy.denials.lock().unwrap();
        assert!(denials.len() == 2 && denials.iter().all(|denial| denial.stage == "credential"), "{denials:?}");
    });
}

#[test]
fn how_long_a_value_is_decides_nothing_about_a_body() {
    network(|| async {
        let tls = Tls::new();
        let port = tls.origin(&["http/1.1"], |request: Request<Incoming>| async move {
            let length = request.headers().get("content-length").cloned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let hits = memchr::memmem::find_iter(&body, &[b'v'; 4000]).count();
            Response::new(text(format!("{length:?} {hits}")))
        });
        let credential = format!("T=env:T,to=web.example:{port},in=body");
        let proxy = allow(&["web.example"]).secret(&credential, &"v".repeat(4000)).trusting(&tls).serve();
        let mut client = tls.dial(&proxy, port, &["http/1.1"]).await;
        let head = format!(
            "POST / HTTP/1.1\r\nHost: web.example:{port}\r\nConnection: close\r\nContent-Length: 100000\r\n\r\nringfe"
        );
        client.write_all(head.as_bytes()).await.unwrap();
        client.flush().await.unwrap();
        // As long as nothing comes, nobody knows that it was a placeholder.
        tokio::time::sleep(Duration::from_millis(400)).await;
        client.write_all(["nce-T-secret", &"x".repeat(99_982)].concat().as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = timeout(Duration::from_secs(60), client.read_to_string(&mut answer)).await.expect("an answer");
        assert!(answer.contains(r#"Some("103982") 1"#), "{answer}");
    });
}

#[test]
fn trailers_of_a_request_arrive_and_hold_no_placeholder() {
    network(|| async {
        let tls = Tls::new();
        let port = tls.origin(&["h2"], |request: Request<Incoming>| async move {
            let announced = request.headers().get("trailer").cloned();
            let Ok(whole) = request.into_body().collect().await else { return Response::new(text("cut")) };
            let sum = whole.trailers().and_then(|trailers| trailers.get("x-sum")).cloned();
            let said = format!("{announced:?} {sum:?} {}", whole.to_bytes().len());
            let (send, frames) = tokio::sync::mpsc::unbounded_channel();
            send.send(Frame::data(Bytes::from(said))).unwrap();
            send.send(Frame::trailers(HeaderMap::from_iter([("x-done".parse().unwrap(), "1".parse().unwrap())])))
                .unwrap();
            Response::builder().header("trailer", "x-done").body(stream(frames)).unwrap()
        });
        // With values in the body, read whole before it goes on or not; and with none there.
        for (places, length) in [("header+body", true), ("header+body", false), ("header", true), ("header", false)] {
            let credential = format!("T=env:T,to=web.example:{port},in={places}");
            let proxy = allow(&["web.example"]).secret(&credential, VALUE).trusting(&tls).serve();
            let mut client = http2(tls.dial(&proxy, port, &["h2"]).await).await;
            let mut post = async |sum: &str| {
                let (send, frames) = tokio::sync::mpsc::unbounded_channel();
                send.send(Frame::data(Bytes::from("12345"))).unwrap();
                send.send(Frame::trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), sum.parse().unwrap())])))
                    .unwrap();
                drop(send);
                let mut request = Request::post(format!("https://web.example:{port}/")).header("trailer", "x-sum");
                if length {
                    request = request.header("content-length", "5");
                }
                let request = request.header("authorization", WORD).body(stream(frames)).unwrap();
                client.ready().await.unwrap();
                client.send_request(request).await.unwrap()
            };
            let answer = post("abc").await;
            assert_eq!(
                (answer.status().as_u16(), &answer.headers()["trailer"]),
                (200, &HeaderValue::from_static("x-done"))
            );
            let whole = answer.into_body().collect().await.unwrap();
            assert_eq!(whole.trailers().unwrap()["x-done"], "1");
            assert_eq!(whole.to_bytes(), r#"Some("x-sum") Some("abc") 5"#, "{places} {length}");
            let answer = post("ringfence-T-secret").await;
            assert_eq!(answer.status().as_u16(), 403, "{places} {length}");
            let line = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(line.ends_with(b"credential `T` is not put into a trailer\n"), "{}", line.escape_ascii());
            assert_eq!(proxy.denials.lock().unwrap().last().unwrap().stage, "credential");
        }
    });
}

#[test]
fn bodies_that_are_read_whole_have_so_much_room_and_time() {
    network(|| async {
        let tls = Tls::new();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let port = tls.origin(&["http/1.1"], move |request: Request<Incoming>| {
            tell.send(request.headers().contains_key("content-length")).unwrap();
            async { Response::new(text("")) }
        });
        // The longest that is read whole, for which there is room 64 times.
        const LENGTH: usize = 256 << 10;
        let head = format!("POST / HTTP/1.1\r\nHost: web.example:{port}\r\nContent-Length: {LENGTH}\r\n\r\n");
        let begin = async |proxy: &crate::network::Running| {
            let mut client = tls.dial(proxy, port, &["http/1.1"]).await;
            client.write_all(&[head.as_bytes(), &[b'x'; LENGTH - 1]].concat()).await.unwrap();
            client
        };
        let proxy = setup(&tls, port).serve();
        let mut begun = Vec::new();
        for _ in 0..68 {
            begun.push(begin(&proxy).await);
        }
        for _ in 0..4 {
            let counted = timeout(Duration::from_secs(60), told.recv()).await.expect("those that have no room go on");
            assert_eq!(counted, Some(false));
        }
        // What is whole goes on with its length.
        for client in &mut begun {
            let _ = client.write_all(b"x").await;
        }
        for _ in 0..64 {
            let counted = timeout(Duration::from_secs(60), told.recv()).await.expect("those that have room go on");
            assert_eq!(counted, Some(true));
        }
        // Then there is room again.
        drop(begun);
        let again = async {
            loop {
                let mut client = begin(&proxy).await;
                client.write_all(b"x").await.unwrap();
                if told.recv().await.unwrap() {
                    break;
                }
            }
        };
        timeout(Duration::from_secs(60), again).await.expect("room again");

        let proxy = setup(&tls, port).limits(|limits| limits.head_timeout = Duration::from_secs(5)).serve();
        let mut answer = Vec::new();
        let _ =
            timeout(Duration::from_secs(60), begin(&proxy).await.read_to_end(&mut answer)).await.expect("an answer");
        assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", answer.escape_ascii());
    });
}

#[test]
fn the_framing_of_a_request_is_read_in_one_way() {
    network(|| async {
        let tls = Tls::new();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&heard);
        let port = tls.origin(&["http/1.1"], move |request: Request<Incoming>| {
            tell.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
            async { Response::new(text("")) }
        });
        let proxy = setup(&tls, port).serve();
        let host = format!("Host: web.example:{port}\r\n");
        let ask = async |request: String| {
            let mut client = tls.dial(&proxy, port, &["http/1.1"]).await;
            client.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let _ = timeout(Duration::from_secs(60), client.read_to_end(&mut answer)).await.expect("an end");
            String::from_utf8_lossy(&answer).into_owned()
        };
        let hidden = "GET /hidden HTTP/1.1\r\nHost: web.example\r\n\r\n";
        for (request, status) in [
            (format!("POST / HTTP/1.1\r\n{host}Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde"), "400"),
            (format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), "501"),
            (format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: xchunked\r\n\r\n{hidden}"), "400"),
            (format!("GET / HTTP/1.1\r\n{host}X: a\rb\r\n\r\n"), "400"),
            (format!("GET / HTTP/1.1\r\n{host}X : a\r\n\r\n"), "400"),
            (format!("GET / HTTP/1.1\r\n{host} folded: a\r\n\r\n"), "400"),
            (format!("GET / HTTP/1.1\r\n{host}{host}\r\n"), "421"),
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), "421"),
            (format!("GET http://other.example/ HTTP/1.1\r\n{host}\r\n"), "421"),
            (format!("CONNECT other.example:443 HTTP/1.1\r\n{host}\r\n"), "501"),
            (format!("TRACE / HTTP/1.1\r\n{host}Authorization: {WORD}\r\n\r\n"), "405"),
            (format!("GET / HTTP/1.1\r\n{host}X: {}\r\n\r\n", "y".repeat(70_000)), "431"),
        ] {
            let answer = ask(request.clone()).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.200}\n{answer:.300}");
        }
        assert!(heard.lock().unwrap().is_empty(), "{:?}", heard.lock().unwrap());
        // Both lengths: chunks count, the origin hears of one framing, and what follows is a request of its own.
        let both = format!(
            "POST /a HTTP/1.1\r\n{host}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /b HTTP/1.1\r\n{host}Connection: close\r\n\r\n"
        );
        let answer = ask(both).await;
        let heard = heard.lock().unwrap().clone();
        assert!(answer.starts_with("HTTP/1.1 400 ") || heard.iter().all(|line| !line.contains("hidden")), "{answer}");
    });
}

#[test]
fn through_an_upstream_it_is_a_tunnel_of_the_upstreams() {
    network(|| async {
        let tls = Tls::new();
        let port = tls.origin(&["h2", "http/1.1"], |request: Request<Incoming>| async move {
            let right = request.headers().get("authorization").is_some_and(|value| value == &format!("Bearer {VALUE}"));
            Response::new(text(right.to_string()))
        });
        let upstream = allow(&["web.example"]).serve();
        let setup = |upstream: &crate::network::Running| {
            let credential = format!("T=env:T,to=web.example:{port}");
            through(upstream.address, None).secret(&credential, VALUE).trusting(&tls)
        };
        let proxy = setup(&upstream).serve();
        for protocol in ["http/1.1", "h2"] {
            // Twice: the second request of HTTP/1.1 has a connection of its own.
            let client = tls.dial(&proxy, port, &[protocol]).await;
            if protocol == "h2" {
                let mut client = http2(client).await;
                for _ in 0..2 {
                    let request = Request::get(format!("https://web.example:{port}/")).header("authorization", WORD);
                    let answer = client.send_request(request.body(text("")).unwrap()).await.unwrap();
                    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "true");
                }
            } else {
                let mut client = http1(client).await;
                for _ in 0..2 {
                    let request = Request::get("/").header("host", format!("web.example:{port}"));
                    let request = request.header("authorization", WORD).body(text("")).unwrap();
                    client.ready().await.unwrap();
                    let answer = client.send_request(request).await.unwrap();
                    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "true");
                }
            }
        }
        // What the upstream refuses is said before there is a tunnel.
        let closed = allow(&["other.example"]).serve();
        let answer = setup(&closed).serve().ask(format!("CONNECT web.example:{port} HTTP/1.1\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("opens no tunnel to web.example"), "{answer}");
    });
}

#[test]
fn an_origin_that_ends_its_connection_ends_the_programs() {
    network(|| async {
        let tls = Tls::new();
        let served = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = Arc::clone(&served);
        let port = tls.origin(&["h2"], move |_| {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            async { Response::new(text("hi")) }
        });
        let proxy = setup(&tls, port).serve();
        let mut client = http2(tls.dial(&proxy, port, &["h2"]).await).await;
        let get = || Request::get(format!("https://web.example:{port}/")).body(text("")).unwrap();
        assert_eq!(client.send_request(get()).await.unwrap().status(), 200);
        tls.hang_up();
        // A pool of connections sees it and opens another, rather than be told 502 for ever.
        timeout(Duration::from_secs(60), async {
            while !client.is_closed() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("the program's connection ends");
        assert_eq!(served.load(std::sync::atomic::Ordering::Relaxed), 1);
    });
}

#[test]
fn who_does_not_finish_its_hello_is_not_waited_for() {
    network(|| async {
        let tls = Tls::new();
        let port = tls.origin(&["http/1.1"], |_| async { Response::new(text("")) });
        let proxy = setup(&tls, port).limits(|limits| limits.head_timeout = Duration::from_millis(300)).serve();
        for said in [&b""[..], &[0x16], &[0x16, 3, 1, 2, 0, 1], b"GE"] {
            let mut tunnel = proxy.tunnel(&format!("web.example:{port}")).await;
            tunnel.write_all(said).await.unwrap();
            let begun = std::time::Instant::now();
            // What began as HTTP has the time between two requests.
            if said != b"GE" {
                rest(&mut tunnel).await;
                assert!(begun.elapsed() < Duration::from_secs(25), "{said:?}: {:?}", begun.elapsed());
            }
        }
    });
}

/// Peak resident memory of the process.
///
/// # Units
///
/// KiB.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_gibibyte_is_looked_through_and_not_held() {
    const BLOCK: usize = 1 << 16;
    fn blocks(count: usize) -> Body {
        let block = || Ok(Frame::data(Bytes::from_static(&[0x5a; BLOCK])));
        BodyExt::boxed(StreamBody::new(futures::stream::iter((0..count).map(move |_| block()))))
    }
    async fn count(mut body: Incoming) -> usize {
        let mut got = 0;
        while let Some(frame) = body.frame().await {
            got += frame.unwrap().into_data().map(|data| data.len()).unwrap_or_default();
        }
        got
    }
    alone("intercepted::a_gibibyte_is_looked_through_and_not_held", || {
        network(|| async {
            let tls = Tls::new();
            // Sends as many blocks as the path says, or says how many bytes came.
            let port = tls.origin(&["h2", "http/1.1"], |request: Request<Incoming>| async move {
                let wanted = request.uri().path().trim_start_matches('/').parse().unwrap();
                let got = count(request.into_body()).await;
                Response::new(if wanted > 0 { blocks(wanted) } else { text(got.to_string()) })
            });
            let proxy = setup(&tls, port).serve();
            // What comes is searched for the value over HTTP/2; what goes is searched for placeholders over HTTP/1.1.
            let pass = async |up: usize, down: usize| {
                let protocol = if down > 0 { "h2" } else { "http/1.1" };
                let client = tls.dial(&proxy, port, &[protocol]).await;
                let url = if down > 0 { format!("https://web.example:{port}/{down}") } else { "/0".into() };
                let request = Request::post(url).header("authorization", WORD);
                let answer = if down > 0 {
                    http2(client).await.send_request(request.body(blocks(up)).unwrap()).await.unwrap()
                } else {
                    let request = request.header("host", format!("web.example:{port}"));
                    http1(client).await.send_request(request.body(blocks(up)).unwrap()).await.unwrap()
                };
                if down > 0 {
                    assert_eq!(count(answer.into_body()).await, down * BLOCK);
                } else {
                    let told = answer.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(told, (up * BLOCK).to_string());
                }
            };
            pass(0, 64).await;
            pass(64, 0).await;
            let before = peak();
            pass(0, (1 << 30) / BLOCK).await;
            let down = peak();
            pass((1 << 30) / BLOCK, 0).await;
            println!("peak {before} KiB, {down} after a gibibyte down, {} after one up", peak());
            assert!(peak() - before < 32 * 1024, "{before} KiB before, {down} and {} after", peak());
        });
    });
}
