//! Names to addresses.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::Semaphore;

use crate::policy::DnsName;

/// Resolves names for the proxy.
///
/// What it gives back is not trusted: the proxy vets every address. It is asked only for names that the allow-list names,
/// and for the upstream's.
pub trait Resolve: Send + Sync {
    /// Looks up all addresses of a name, best first.
    ///
    /// # Errors
    ///
    /// Whatever kept it from an answer; a name that does not exist is [`io::ErrorKind::NotFound`].
    fn resolve<'a>(&'a self, name: &'a DnsName) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// Asks the system's resolver: `/etc/hosts`, then DNS, as getaddrinfo(3) is set up.
///
/// getaddrinfo blocks a thread, and cannot be called off. At most 32 calls run at once, each on a thread of tokio's blocking
/// pool, so that names whose servers do not answer never take all of the pool.
#[derive(Debug, Clone)]
pub struct SystemResolver {
    running: Arc<Semaphore>,
    timeout: Duration,
}

impl SystemResolver {
    /// A resolver that gives up on a name after `timeout`.
    pub fn new(timeout: Duration) -> Self {
        Self { running: Arc::new(Semaphore::new(32)), timeout }
    }
}

impl Default for SystemResolver {
    /// Gives up after 10 seconds.
    fn default() -> Self {
        Self::new(Duration::from_secs(10))
    }
}

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a DnsName) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let running = Arc::clone(&self.running);
        let name = name.as_str().to_owned();
        Box::pin(async move {
            let lookup = async {
                let permit = running.acquire_owned().await.map_err(io::Error::other)?;
                // The permit goes with the call, not with whoever waits for it.
                let call = tokio::task::spawn_blocking(move || {
                    let _permit = permit;
                    let found = (name.as_str(), 0).to_socket_addrs()?;
                    let mut addresses: Vec<IpAddr> = Vec::new();
                    for address in found.map(|address| address.ip()) {
                        if !addresses.contains(&address) {
                            addresses.push(address);
                        }
                    }
                    Ok(addresses)
                });
                call.await.map_err(io::Error::other)?
            };
            match tokio::time::timeout(self.timeout, lookup).await {
                Ok(found) => found,
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer from the name servers")),
            }
        })
    }
}

/// Knows the names that it was given and no other.
#[derive(Debug, Clone, Default)]
pub struct FixedResolver(BTreeMap<String, Vec<IpAddr>>);

impl FixedResolver {
    /// A resolver that knows no name.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a name and its addresses; the same name again replaces them.
    pub fn with(mut self, name: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.0.insert(name.to_ascii_lowercase(), addresses.into_iter().collect());
        self
    }
}

impl Resolve for FixedResolver {
    fn resolve<'a>(&'a self, name: &'a DnsName) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let found = self.0.get(name.as_str()).cloned();
        Box::pin(async move { found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such name")) })
    }
}
