//! The built-in proxy, asked by a client that may say anything.

use std::cell::LazyCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use ringfence::policy::DnsName;
use ringfence::proxy::{Proxy, ProxyConfig, Resolve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

/// The proxy must have answered and hung up by then.
const PATIENCE: Duration = Duration::from_secs(5);

/// Resolves what is on the list to loopback, which is not: nothing that the client says may lead to a connection.
struct Listed;

impl Resolve for Listed {
    fn resolve<'a>(&'a self, name: &'a DnsName) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        assert!(
            name.as_str() == "allowed.test" || name.as_str().ends_with(".wild.test"),
            "asked for {name}, which no entry names"
        );
        Box::pin(async { Ok(vec![Ipv4Addr::LOCALHOST.into()]) })
    }
}

thread_local! {
    static SERVED: LazyCell<(Runtime, SocketAddr)> = LazyCell::new(|| {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port on loopback");
        let address = listener.local_addr().expect("its address");
        let allow = ["allowed.test", "*.wild.test:80"];
        let config = ProxyConfig {
            allow: Some(allow.iter().filter_map(|entry| entry.parse().ok()).collect()),
            ..ProxyConfig::default()
        };
        let proxy = Proxy::new(config, Arc::new(Listed));
        runtime.spawn(proxy.serve(vec![listener], std::future::pending()));
        (runtime, address)
    });
}

/// Sends the bytes to a proxy and reads to the end. Names that are not on the list are not resolved, nothing is answered but
/// refusals, and the connection ends.
pub fn proxy(bytes: &[u8]) {
    SERVED.with(|served| {
        let (runtime, address) = &**served;
        let talk = async {
            let mut client = TcpStream::connect(address).await.expect("the proxy listens");
            client.set_zero_linger().expect("a socket");
            let mut answer = Vec::new();
            // It may hang up on what it was told before it has read all.
            let _ = client.write_all(bytes).await;
            let _ = client.shutdown().await;
            let _ = client.read_to_end(&mut answer).await;
            answer
        };
        let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, talk).await });
        let answer = answer.expect("the proxy hangs up on a client that has said all");
        if !answer.is_empty() {
            let status =
                answer.get(9..12).and_then(|code| std::str::from_utf8(code).ok()).and_then(|code| code.parse().ok());
            let status: u16 = status.unwrap_or_else(|| panic!("no status in {}", answer.escape_ascii()));
            assert!((400..600).contains(&status), "{}", answer.escape_ascii());
        }
    });
}
