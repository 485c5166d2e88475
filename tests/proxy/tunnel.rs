//! CONNECT.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::network::{allow, bind, echo, head, network, rest};

#[test]
fn bytes_pass_both_ways() {
    network(|| async {
        let (four, six) = (echo("203.0.113.9").await, echo("2001:db8::9").await);
        let proxy = allow(&["web.example", "six.example", "2001:db8::9"]).serve();
        for target in [format!("web.example:{four}"), format!("six.example:{six}"), format!("[2001:db8::9]:{six}")] {
            let mut client = proxy.tunnel(&target).await;
            for word in ["one", "\0\r\n\r\n\u{ff}", "GET / HTTP/1.1\r\n\r\n"] {
                client.write_all(word.as_bytes()).await.unwrap();
                let mut back = vec![0; word.len()];
                client.read_exact(&mut back).await.unwrap();
                assert_eq!(back, word.as_bytes());
            }
            client.shutdown().await.unwrap();
            assert_eq!(rest(&mut client).await, "");
        }
    });
}

#[test]
fn what_a_client_sends_too_early_is_the_tunnels() {
    network(|| async {
        let port = echo("203.0.113.9").await;
        let proxy = allow(&["web.example"]).serve();
        for version in ["1.1", "1.0"] {
            let mut client = proxy.dial().await;
            client
                .write_all(format!("CONNECT web.example:{port} HTTP/{version}\r\n\r\nearly").as_bytes())
                .await
                .unwrap();
            let answer = head(&mut client).await;
            assert!(answer.starts_with(&format!("HTTP/{version} 200 OK\r\n")), "{answer}");
            assert!(!answer.to_lowercase().contains("content-length"), "{answer}");
            client.write_all(b" and late").await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(rest(&mut client).await, "early and late");
        }
    });
}

/// A tunnel, both ends in hand.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = bind("203.0.113.9", 0);
    let proxy = allow(&["web.example"]).serve();
    let client = proxy.tunnel(&format!("web.example:{}", listener.local_addr().unwrap().port())).await;
    std::mem::forget(proxy.stop);
    (client, listener.accept().await.unwrap().0)
}

#[test]
fn either_end_can_stop_sending_and_go_on_receiving() {
    network(|| async {
        for client_first in [true, false] {
            let (client, origin) = pair().await;
            let (mut first, mut second) = if client_first { (client, origin) } else { (origin, client) };
            first.write_all(b"last words").await.unwrap();
            first.shutdown().await.unwrap();
            assert_eq!(rest(&mut second).await, "last words");
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                second.write_all(b"still here ").await.unwrap();
            }
            second.shutdown().await.unwrap();
            assert_eq!(rest(&mut first).await, "still here still here still here ");
        }
    });
}

#[test]
fn a_reset_stays_a_reset() {
    network(|| async {
        for client_first in [true, false] {
            let (client, origin) = pair().await;
            let (first, mut second) = if client_first { (client, origin) } else { (origin, client) };
            rustix::net::sockopt::set_socket_linger(&first, Some(Duration::ZERO)).unwrap();
            drop(first);
            assert_eq!(rest(&mut second).await, "<reset>");
        }
    });
}

#[test]
fn two_hundred_at_once() {
    network(|| async {
        let port = echo("203.0.113.9").await;
        let proxy = allow(&["web.example"]).serve();
        let mut clients = Vec::new();
        for _ in 0..200 {
            clients.push(proxy.tunnel(&format!("web.example:{port}")).await);
        }
        let talk = clients.into_iter().enumerate().map(|(number, mut client)| async move {
            let word = format!("{number};").repeat(2000);
            let (mut read, mut write) = client.split();
            let send = async {
                write.write_all(word.as_bytes()).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let mut back = String::new();
            let (_, received) = tokio::join!(send, read.read_to_string(&mut back));
            received.unwrap();
            assert!(back == word, "tunnel {number}");
        });
        timeout(Duration::from_secs(30), futures::future::join_all(talk)).await.unwrap();
    });
}

#[test]
fn only_a_host_and_port_can_be_asked_for() {
    network(|| async {
        let proxy = allow(&["web.example"]).serve();
        for target in [
            "web.example",
            "web.example:",
            "web.example:0",
            "web.example:65536",
            "user@web.example:443",
            "http://web.example:443/",
            "/",
            "web.example:443/path",
            "*",
            ":443",
            "[::1",
            "web..example:443",
            "b\u{fc}cher.example:443",
            "web.example:443:443",
        ] {
            let answer = proxy.ask(format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{target}: {answer}");
        }
        for header in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
            let answer =
                proxy.ask(format!("CONNECT web.example:443 HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n0\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("has no body"), "{answer}");
        }
    });
}
