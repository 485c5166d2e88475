//! Connection tracking: which flows live, and how to have the kernel forget one.
//!
//! # References
//!
//! `linux/netfilter/nfnetlink_conntrack.h`

use std::net::IpAddr;

use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;

use super::dialogue::Dialogue;
use super::netns::refused;
use crate::Result;
use crate::wire::conntrack::{self as wire, Flow};

/// A socket to connection tracking, of the network namespace that the calling thread was in when it was opened.
#[derive(Debug)]
#[doc(alias = "NFNL_SUBSYS_CTNETLINK")]
pub struct Socket(Dialogue);

impl Socket {
    /// Opens a socket.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](crate::ErrorKind::Unsupported) when the kernel has no netfilter netlink,
    /// [`Io`](crate::ErrorKind::Io) without a free file descriptor.
    pub fn open() -> Result<Self> {
        Dialogue::open(NETFILTER, "a connection tracking socket").map(Self)
    }

    /// Lists the flows whose first packet came from that address.
    ///
    /// # Errors
    ///
    /// [`Privilege`](crate::ErrorKind::Privilege) without `CAP_NET_ADMIN`.
    ///
    /// # Kernel
    ///
    /// From 5.8 on the kernel looks for them; before, it tells all flows and they are looked for here.
    pub fn from(&mut self, source: IpAddr) -> Result<Vec<Flow>> {
        let ours = |flow: Option<Flow>| flow.filter(|flow| flow.original.source == source);
        self.0.dump(
            "list flows",
            wire::NEW,
            |seq| wire::dump_from(source, seq),
            |message| wire::flow(message).map(ours),
        )
    }

    /// Has the kernel forget a flow. Its next packet is that of a new one. That it is gone already is no error.
    ///
    /// # Errors
    ///
    /// [`Privilege`](crate::ErrorKind::Privilege) without `CAP_NET_ADMIN`.
    pub fn delete(&mut self, flow: &Flow) -> Result<()> {
        match self.0.order("forget a flow", |seq| wire::delete(flow, seq))? {
            None | Some(Errno::NOENT) => Ok(()),
            Some(errno) => Err(refused(errno, "can't forget a flow")),
        }
    }
}
