//! A gibibyte, without holding it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::network::{allow, alone, echo, head, network, server};

const GIB: usize = 1 << 30;
/// What the process may grow by, whatever passes through: buffers, the client's and the origin's included.
const GROWTH_KIB: usize = 16 * 1024;

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

/// Sends a gibibyte and reads as much back, at once.
async fn exchange(client: &mut TcpStream) {
    let (mut read, mut write) = client.split();
    let send = async {
        let block = vec![0x5a; 1 << 18];
        for _ in 0..GIB / block.len() {
            write.write_all(&block).await.unwrap();
        }
    };
    let receive = async {
        let mut block = vec![0; 1 << 18];
        let mut left = GIB;
        while left > 0 {
            let most = left.min(block.len());
            let got = read.read(&mut block[..most]).await.unwrap();
            assert!(got > 0, "{left} bytes short");
            assert!(block[..got].iter().all(|&byte| byte == 0x5a));
            left -= got;
        }
    };
    tokio::join!(send, receive);
}

#[test]
fn a_gibibyte_passes_both_ways_in_constant_memory() {
    alone("bulk::a_gibibyte_passes_both_ways_in_constant_memory", || {
        network(|| async {
            let tunnelled = echo("203.0.113.9").await;
            let forwarded = server("203.0.113.9", |mut stream| async move {
                head(&mut stream).await;
                stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {GIB}\r\n\r\n").as_bytes()).await.unwrap();
                let (read, mut write) = stream.split();
                tokio::io::copy(&mut read.take(GIB as u64), &mut write).await.unwrap();
            })
            .await;
            let proxy = allow(&["web.example"]).serve();

            // Whatever is set up once is set up before the first look.
            let mut client = proxy.tunnel(&format!("web.example:{tunnelled}")).await;
            client.write_all(&vec![0; 1 << 16]).await.unwrap();
            client.read_exact(&mut vec![0; 1 << 16]).await.unwrap();
            let before = peak();
            exchange(&mut client).await;
            let tunnel = peak();

            let mut client = proxy.dial().await;
            let request =
                format!("POST http://web.example:{forwarded}/ HTTP/1.1\r\nHost: a\r\nContent-Length: {GIB}\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            assert!(head(&mut client).await.starts_with("HTTP/1.1 200 "));
            exchange(&mut client).await;
            let forward = peak();
            eprintln!("peak {before} KiB, {tunnel} after the tunnel, {forward} after the request");
            assert!(forward - before < GROWTH_KIB, "{before} to {tunnel} to {forward} KiB");
        });
    });
}
