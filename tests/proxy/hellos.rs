//! TLS in tunnels that are not looked into: it is for the tunnel's host, or nobody hears of it.

use std::sync::Arc;
use std::time::Duration;

use ringfence::proxy::DenialReason;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use crate::network::{Running, allow, network, server};

const PATIENCE: Duration = Duration::from_secs(60);
/// Fatal: unrecognized_name.
const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
const CHANGE_CIPHER_SPEC: [u8; 6] = [20, 3, 3, 0, 1, 1];
/// What makes a ServerHello one that asks for another hello: RFC 8446, section 4.1.3.
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// What a client says first that asks for `name`.
fn hello(name: &str) -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut bytes = Vec::new();
    let name = name.to_owned().try_into().unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

/// A ServerHello with that `random`.
fn answer(random: [u8; 32]) -> Vec<u8> {
    [&[22, 3, 3, 0, 44, 2, 0, 0, 40, 3, 3], &random[..], &[0, 0x13, 1, 0, 0, 0]].concat()
}

/// A server that gives `answers` one after the other, one for each time that it has heard `hello`; tells all it hears.
async fn origin(hello: &[u8], answers: &'static [[u8; 32]]) -> (u16, UnboundedReceiver<Vec<u8>>) {
    let (tell, told) = unbounded_channel();
    let hello = hello.to_vec();
    let port = server("203.0.113.9", move |mut stream| {
        let (tell, hello) = (tell.clone(), hello.clone());
        async move {
            let mut answers = answers.iter();
            let (mut all, mut piece) = (Vec::new(), vec![0; 1 << 16]);
            while let Ok(got @ 1..) = stream.read(&mut piece).await {
                all.extend_from_slice(&piece[..got]);
                tell.send(piece[..got].to_vec()).unwrap();
                if all.ends_with(&hello)
                    && let Some(random) = answers.next()
                {
                    stream.write_all(&answer(*random)).await.unwrap();
                }
            }
            // The end is told, too.
            tell.send(Vec::new()).unwrap();
        }
    })
    .await;
    (port, told)
}

async fn heard(told: &mut UnboundedReceiver<Vec<u8>>, length: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < length {
        all.extend(timeout(PATIENCE, told.recv()).await.expect("in time").expect("an origin"));
    }
    all
}

async fn read(client: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    timeout(PATIENCE, client.read_exact(&mut bytes)).await.expect("in time").unwrap();
    bytes
}

/// A client is told that its host is unknown, and so is whoever looks after it.
async fn refused(client: &mut TcpStream, proxy: &Running, name: &str) {
    let mut said = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut said)).await.expect("an end").unwrap();
    assert_eq!(said, ALERT, "{name}");
    let denials: Vec<_> = proxy.denials.lock().unwrap().drain(..).map(|denial| denial.reason).collect();
    assert_eq!(denials, [DenialReason::OtherServerName { name: name.to_owned() }]);
}

#[test]
fn no_first_word_hides_who_is_asked_for() {
    network(|| async {
        let (port, mut told) = origin(b"", &[]).await;
        let proxy = allow(&["web.example"]).serve();
        let other = hello("a.web.example");
        let version = [&[22, 2, 1], &other[3..]].concat();
        let alert = [&[21, 3, 1, 0, 2, 1, 90], &other[..]].concat();
        let two = {
            let (one, other) = (hello("web.example"), &other[5..]);
            let length = u16::try_from(one.len() - 5 + other.len()).unwrap();
            [&one[..3], &length.to_be_bytes(), &one[5..], other].concat()
        };
        for (said, name) in [(other, "a.web.example"), (version, "a.web.example"), (alert, ""), (two, "")] {
            let mut client = proxy.tunnel(&format!("web.example:{port}")).await;
            client.write_all(&said).await.unwrap();
            refused(&mut client, &proxy, name).await;
        }
        while let Ok(piece) = told.try_recv() {
            assert_eq!(piece, b"", "the origin heard of it");
        }
    });
}

#[test]
fn a_second_hello_is_looked_at_as_the_first() {
    network(|| async {
        let proxy = allow(&["web.example"]).serve();
        let (first, other) = (hello("web.example"), hello("a.web.example"));
        let (retry, taken) = (answer(RETRY), answer([7; 32]));
        // Data that may come early, and the server passes over.
        let early = [&[23, 3, 3, 0, 200], &[22; 200][..]].concat();
        for between in [&b""[..], &CHANGE_CIPHER_SPEC, &early] {
            let (port, mut told) = origin(&first, &[RETRY]).await;
            let mut client = proxy.tunnel(&format!("web.example:{port}")).await;
            client.write_all(&first).await.unwrap();
            assert_eq!(heard(&mut told, first.len()).await, first);
            assert_eq!(read(&mut client, retry.len()).await, retry);
            client.write_all(&[between, &other].concat()).await.unwrap();
            refused(&mut client, &proxy, "a.web.example").await;
            let mut last = Vec::new();
            loop {
                let piece = timeout(PATIENCE, told.recv()).await.expect("an end").unwrap();
                if piece.is_empty() {
                    break;
                }
                last.extend(piece);
            }
            assert!(between.starts_with(&last), "{}", last.escape_ascii());
        }

        let (port, mut told) = origin(&first, &[RETRY, [7; 32]]).await;
        let mut client = proxy.tunnel(&format!("web.example:{port}")).await;
        client.write_all(&first).await.unwrap();
        assert_eq!(heard(&mut told, first.len()).await, first);
        assert_eq!(read(&mut client, retry.len()).await, retry);
        let again = [&CHANGE_CIPHER_SPEC[..], &first].concat();
        client.write_all(&again).await.unwrap();
        assert_eq!(heard(&mut told, again.len()).await, again);
        assert_eq!(read(&mut client, taken.len()).await, taken);
        // Now there are keys, and what begins like a hello is none.
        let sealed = [&CHANGE_CIPHER_SPEC[..], &other, b"anything"].concat();
        client.write_all(&sealed).await.unwrap();
        assert_eq!(heard(&mut told, sealed.len()).await, sealed);
        assert!(proxy.denials.lock().unwrap().is_empty());
    });
}
