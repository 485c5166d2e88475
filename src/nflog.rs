//! Packets that a firewall rule logged, received from the kernel: [`Receiver`] for the socket, [`Message`] for what the kernel
//! tells of a packet, [`Packet`] for its headers.

pub use crate::kernel::nflog::{Options, Received, Receiver};
pub use crate::wire::nflog::{Group, Hook, Message, Vlan};
pub use crate::wire::packet::{Fragment, Icmp, Packet, Protocol, Sctp, Tcp, TcpFlags, Transport, Udp, Version};
