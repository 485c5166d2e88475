//! What a group is told to do.

use std::time::Duration;

use super::{CONFIG, GENERIC_LEN, Group, PACKET};
use crate::wire::netlink::{ACK, HEADER_LEN, REQUEST};

/// Type of a message that the kernel sends and never takes: who sends one is told `ENOTSUPP`, or `EPERM` without `CAP_NET_ADMIN`.
pub const NOT_A_REQUEST: u16 = PACKET;

/// Settings of a group. What is `None` is left as it is.
///
/// All that is set goes into one request, so that no packet is handed over between one setting and the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Config {
    /// Makes the group this socket's.
    #[doc(alias = "NFULNL_CFG_CMD_BIND")]
    pub bind: bool,
    /// How many bytes of each packet are handed over; 0 for the rest of what is known of it alone.
    #[doc(alias = "NFULNL_COPY_PACKET")]
    pub copy_range: Option<u16>,
    /// Size of the kernel's buffer for messages that it sends together, in bytes.
    #[doc(alias = "NFULA_CFG_NLBUFSIZ")]
    pub buffer: Option<u32>,
    /// How long the kernel may collect, in steps of 10 ms.
    #[doc(alias = "NFULA_CFG_TIMEOUT")]
    pub timeout: Option<Duration>,
    /// How many packets the kernel may collect.
    #[doc(alias = "NFULA_CFG_QTHRESH")]
    pub threshold: Option<u32>,
    /// Whether packets are numbered in their group and among all groups.
    #[doc(alias = "NFULNL_CFG_F_SEQ")]
    #[doc(alias = "NFULNL_CFG_F_SEQ_GLOBAL")]
    pub sequence: bool,
}

impl Config {
    /// Encodes it as a request that is to be acknowledged.
    pub fn encode(&self, group: Group, seq: u32) -> Vec<u8> {
        let mut attributes = Vec::with_capacity(64);
        if self.bind {
            attribute(&mut attributes, 1, &[1]);
        }
        if let Some(range) = self.copy_range {
            // 0 would mean as much as fits, so that nothing has a mode of its own.
            let mode = if range == 0 { 1 } else { 2 };
            let [a, b, c, d] = u32::from(range).to_be_bytes();
            attribute(&mut attributes, 2, &[a, b, c, d, mode, 0]);
        }
        if let Some(bytes) = self.buffer {
            attribute(&mut attributes, 3, &bytes.to_be_bytes());
        }
        if let Some(timeout) = self.timeout {
            // Rounded up, for 0 would be never.
            let steps = timeout.as_millis().div_ceil(10).clamp(1, u32::MAX.into()) as u32;
            attribute(&mut attributes, 4, &steps.to_be_bytes());
        }
        if let Some(packets) = self.threshold {
            attribute(&mut attributes, 5, &packets.to_be_bytes());
        }
        if self.sequence {
            attribute(&mut attributes, 6, &3u16.to_be_bytes());
        }
        request(CONFIG, group, seq, &attributes)
    }
}

/// A message to nfnetlink_log, with attributes that are encoded already.
pub fn request(kind: u16, group: Group, seq: u32, attributes: &[u8]) -> Vec<u8> {
    let len = HEADER_LEN + GENERIC_LEN + attributes.len();
    let mut bytes = Vec::with_capacity(len);
    bytes.extend((len as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((REQUEST | ACK).to_ne_bytes());
    bytes.extend(seq.to_ne_bytes());
    // The port is the kernel's to fill in; then no family, version 0, and the group.
    bytes.extend([0; 6]);
    bytes.extend(group.0.to_be_bytes());
    bytes.extend(attributes);
    bytes
}

fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // No value here is longer than six bytes.
    bytes.extend((4 + value.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}
