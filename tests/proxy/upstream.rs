//! Another proxy behind this one.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::network::{allow, echo, head, network, origin, response, rest, server, through};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn two_in_a_row_carry_tunnels_requests_and_refusals() {
    network(|| async {
        let (port, mut seen) = origin("203.0.113.9", ANSWER).await;
        let echo = echo("203.0.113.9").await;
        let second = allow(&["web.example"]).serve();
        let first = through(second.address, None).serve();

        let mut tunnel = first.tunnel(&format!("web.example:{echo}")).await;
        tunnel.write_all(b"through both").await.unwrap();
        tunnel.shutdown().await.unwrap();
        assert_eq!(rest(&mut tunnel).await, "through both");

        let answer = first
            .ask(format!("GET http://web.example:{port}/p HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
            .await;
        assert!(answer.ends_with("hi"), "{answer}");
        assert!(seen.recv().await.unwrap().starts_with(&format!("GET /p HTTP/1.1\r\nHost: web.example:{port}\r\n")));

        for request in [
            "CONNECT evil.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET http://evil.example/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        ] {
            let answer = first.ask(request).await;
            assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("--allow evil.example:"), "{answer}");
        }
        assert!(first.denials.lock().unwrap().is_empty());
        assert_eq!(second.denials.lock().unwrap().len(), 2);
    });
}

#[test]
fn the_allow_list_filters_first_and_names_are_left_to_the_upstream() {
    network(|| async {
        let (upstream, mut seen) = origin("127.0.0.1", ANSWER).await;
        let mut setup = through(format!("127.0.0.1:{upstream}").parse().unwrap(), None);
        setup.allow = Some(vec!["known-to-the-upstream.example", "203.0.113.0/24"]);
        let proxy = setup.serve();
        let ask = |host: &str| format!("GET http://{host}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        for host in ["known-to-the-upstream.example", "203.0.113.77"] {
            assert!(proxy.ask(ask(host)).await.ends_with("hi"));
            let request = seen.recv().await.unwrap();
            assert!(request.starts_with(&format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n")), "{request}");
        }
        for host in ["evil.example", "127.0.0.1", "169.254.169.254", "[::1]", "0x7f.1", "10.0.0.1"] {
            let answer = proxy.ask(ask(host)).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{host}: {answer}");
        }
        assert!(seen.try_recv().is_err());
    });
}

#[test]
fn credentials_go_to_the_upstream_and_no_further() {
    network(|| async {
        let (port, mut at_upstream) = origin("127.0.0.1", ANSWER).await;
        let address = format!("127.0.0.1:{port}").parse().unwrap();
        let ask = "GET http://web.example/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic Y2xpZW50\r\nConnection: close\r\n\r\n";
        for (credentials, expected) in [(Some(("user", "p:w")), "Basic dXNlcjpwOnc="), (None, "Basic Y2xpZW50")] {
            let proxy = through(address, credentials).serve();
            proxy.ask(ask).await;
            let request = at_upstream.recv().await.unwrap();
            let lines: Vec<_> = request.lines().filter(|line| line.to_lowercase().starts_with("proxy-auth")).collect();
            assert_eq!(lines, [format!("Proxy-Authorization: {expected}")]);
            proxy.ask(ask.replace("GET http://web.example/", "CONNECT web.example:80")).await;
            let request = at_upstream.recv().await.unwrap();
            assert!(
                request.starts_with("CONNECT web.example:80 HTTP/1.1\r\n") && request.contains(expected),
                "{request}"
            );
        }
    });
}

#[test]
fn what_the_upstream_says_is_passed_on() {
    network(|| async {
        let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"up\"\r\nContent-Length: 4\r\n\r\nwho?";
        let (port, _) = origin("127.0.0.1", answer).await;
        let proxy = through(format!("127.0.0.1:{port}").parse().unwrap(), None).serve();
        for request in [
            "CONNECT web.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET http://web.example/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        ] {
            let answer = proxy.ask(request).await;
            assert!(answer.starts_with("HTTP/1.1 407 Proxy Authentication Required\r\n"), "{answer}");
            assert!(
                answer.contains("Proxy-Authenticate: Basic realm=\"up\"\r\n") && answer.ends_with("who?"),
                "{answer}"
            );
        }

        // Bytes that come in one piece with the upstream's consent belong to the tunnel.
        let port = server("127.0.0.1", |mut stream| async move {
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\nbanner").await.unwrap();
        })
        .await;
        let proxy = through(format!("127.0.0.1:{port}").parse().unwrap(), None).serve();
        let mut tunnel = proxy.tunnel("web.example:22").await;
        assert_eq!(rest(&mut tunnel).await, "banner");

        // An upstream that is not there.
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let gone = taken.local_addr().unwrap();
        drop(taken);
        let answer = through(gone, None).serve().ask("CONNECT web.example:443 HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let line = format!("ringfence: can't reach the upstream proxy {gone}: Connection refused (os error 111)\n");
        assert!(answer.starts_with("HTTP/1.1 502 ") && answer.ends_with(&line), "{answer}");
    });
}

/// An upstream that agrees to every upgrade and stays in HTTP all the same: it tells of every head that it is sent.
async fn hypocrite() -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    let port = server("127.0.0.1", move |mut stream| {
        let tell = tell.clone();
        async move {
            let mut all = Vec::new();
            let mut seen = 0;
            while let Ok(byte) = stream.read_u8().await {
                all.push(byte);
                if !all.ends_with(b"\r\n\r\n") {
                    continue;
                }
                let request = String::from_utf8_lossy(&all[seen..]).into_owned();
                seen = all.len();
                let answer = match request.starts_with("CONNECT ") {
                    true => "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
                    false => "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
                };
                let _ = tell.send(request);
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    })
    .await;
    (port, told)
}

#[test]
fn an_upgrade_smuggles_nothing_to_the_upstream() {
    network(|| async {
        let (port, mut seen) = hypocrite().await;
        let mut setup = through(format!("127.0.0.1:{port}").parse().unwrap(), None);
        setup.allow = Some(vec!["web.example"]);
        let proxy = setup.serve();
        let upgrade =
            "GET http://web.example/chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let smuggled = "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n";
        let mut client = proxy.dial().await;
        client.write_all(upgrade.as_bytes()).await.unwrap();
        let answer = response(&mut client).await;
        assert!(
            answer.starts_with("HTTP/1.1 502 ") && answer.contains("switched protocols without being asked"),
            "{answer}"
        );
        client.write_all(smuggled.as_bytes()).await.unwrap();
        let answer = rest(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("evil.example:443 is not"), "{answer}");

        assert!(seen.recv().await.unwrap().starts_with("CONNECT web.example:80 HTTP/1.1\r\n"));
        let request = seen.recv().await.unwrap();
        assert!(request.starts_with("GET http://web.example/chat HTTP/1.1\r\n"), "{request}");
        assert!(!request.to_lowercase().contains("upgrade"), "{request}");
        assert!(seen.try_recv().is_err(), "the upstream was sent what nobody had decided on");
    });
}

#[test]
fn an_upgrade_goes_through_a_tunnel_of_the_upstreams() {
    network(|| async {
        let port = server("203.0.113.9", |mut stream| async move {
            let request = head(&mut stream).await;
            assert!(request.starts_with("GET /chat HTTP/1.1\r\n") && request.contains("Upgrade: websocket\r\n"));
            assert!(!request.to_lowercase().contains("proxy-"), "{request}");
            let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello ";
            stream.write_all(switch.as_bytes()).await.unwrap();
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        })
        .await;
        let second = allow(&["web.example"]).serve();
        let first = through(second.address, Some(("user", "secret"))).serve();
        let mut client = first.dial().await;
        let upgrade = format!(
            "GET http://web.example:{port}/chat HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic eA==\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        );
        client.write_all(upgrade.as_bytes()).await.unwrap();
        let answer = head(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains("websocket"), "{answer}");
        client.write_all(b"CONNECT evil.example:443 HTTP/1.1\r\n\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(rest(&mut client).await, "hello CONNECT evil.example:443 HTTP/1.1\r\n\r\n");
        assert!(second.denials.lock().unwrap().is_empty());

        // An upstream that has tunnels to other ports only is asked without the upgrade.
        let (port, mut seen) = origin("127.0.0.1", ANSWER).await;
        let upstream = server("127.0.0.1", move |mut stream| async move {
            let request = head(&mut stream).await;
            if request.starts_with("CONNECT ") {
                let no = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(no.as_bytes()).await.unwrap();
                return;
            }
            let mut on = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            on.write_all(request.as_bytes()).await.unwrap();
            tokio::io::copy_bidirectional(&mut stream, &mut on).await.unwrap();
        })
        .await;
        let proxy = through(format!("127.0.0.1:{upstream}").parse().unwrap(), None).serve();
        let mut client = proxy.dial().await;
        let upgrade = "GET http://web.example/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
        client.write_all(upgrade.as_bytes()).await.unwrap();
        assert!(response(&mut client).await.ends_with("hi"));
        assert!(seen.recv().await.unwrap().starts_with("GET http://web.example/ HTTP/1.1\r\n"));
    });
}

#[test]
fn nobody_is_asked_to_echo_credentials() {
    network(|| async {
        let (port, mut seen) = origin("127.0.0.1", ANSWER).await;
        let proxy = through(format!("127.0.0.1:{port}").parse().unwrap(), Some(("user", "secret"))).serve();
        for (method, header, status) in [
            ("TRACE", "", "405 Method Not Allowed"),
            ("TRACE", "Max-Forwards: 5\r\n", "405 Method Not Allowed"),
            ("OPTIONS", "Max-Forwards: 0\r\n", "501 Not Implemented"),
            ("GET", "Max-Forwards:  00 \r\n", "501 Not Implemented"),
            ("GET", "Max-Forwards: 3\r\nMax-Forwards: 0\r\n", "501 Not Implemented"),
        ] {
            let answer = proxy.ask(format!("{method} http://web.example/ HTTP/1.1\r\nHost: a\r\n{header}\r\n")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{method} {header}: {answer}");
            assert_eq!(
                answer.to_lowercase().contains("\r\nallow: connect, get"),
                status.starts_with("405"),
                "{answer}"
            );
        }
        assert!(seen.try_recv().is_err(), "the upstream was asked");

        // One that is not used up yet is not for the upstream to use up either.
        let ask = "OPTIONS http://web.example/ HTTP/1.1\r\nHost: a\r\nMax-Forwards: 1\r\nConnection: close\r\n\r\n";
        assert!(proxy.ask(ask).await.ends_with("hi"));
        assert!(!seen.recv().await.unwrap().to_lowercase().contains("max-forwards"));
    });
}
