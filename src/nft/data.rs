//! Bytes as they stand in a register of the nf_tables virtual machine.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Register contents: at most 64 bytes, in the order the kernel keeps them.
///
/// Fields of a packet are in network byte order there; numbers the kernel itself makes (interface index, mark, conntrack
/// state) are in the machine's. The constructors know which is which, so no caller has to.
///
/// # References
///
/// `linux/netfilter/nf_tables.h`: `NFT_DATA_VALUE_MAXLEN`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Data(Vec<u8>);

/// Says that a value does not fit the registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes of register data, more than the kernel's 64")]
pub struct DataTooLong {
    /// How long the value was, in bytes.
    pub len: usize,
}

impl Data {
    /// The most that one value may hold, in bytes.
    #[doc(alias = "NFT_DATA_VALUE_MAXLEN")]
    pub const MAX_LEN: usize = 64;

    /// Takes raw bytes.
    ///
    /// # Errors
    ///
    /// [`DataTooLong`] past 64 bytes: libnftnl would copy them past the end of its own buffer.
    pub fn new(bytes: &[u8]) -> Result<Self, DataTooLong> {
        if bytes.len() > Self::MAX_LEN { Err(DataTooLong { len: bytes.len() }) } else { Ok(Self(bytes.to_vec())) }
    }

    /// A field of one byte: a protocol number, an ICMP type.
    pub fn byte(value: u8) -> Self {
        Self(vec![value])
    }

    /// A 16-bit field of a packet: a port, an EtherType. Network byte order.
    pub fn be16(value: u16) -> Self {
        Self(value.to_be_bytes().to_vec())
    }

    /// A 32-bit number of the kernel's own: interface index, mark, conntrack state. The machine's byte order.
    pub fn native32(value: u32) -> Self {
        Self(value.to_ne_bytes().to_vec())
    }

    /// An IPv4 address.
    pub fn ipv4(address: Ipv4Addr) -> Self {
        Self(address.octets().to_vec())
    }

    /// An IPv6 address.
    pub fn ipv6(address: Ipv6Addr) -> Self {
        Self(address.octets().to_vec())
    }

    /// Joins fields to the key of a concatenation: each field starts at a multiple of four bytes.
    ///
    /// # Errors
    ///
    /// [`DataTooLong`] past 64 bytes.
    pub fn concat(fields: &[Data]) -> Result<Self, DataTooLong> {
        let mut bytes = Vec::with_capacity(Self::MAX_LEN);
        for field in fields {
            bytes.extend_from_slice(&field.0);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        if bytes.len() > Self::MAX_LEN { Err(DataTooLong { len: bytes.len() }) } else { Ok(Self(bytes)) }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl TryFrom<Vec<u8>> for Data {
    type Error = DataTooLong;
    fn try_from(bytes: Vec<u8>) -> Result<Self, DataTooLong> {
        Self::new(&bytes)
    }
}

impl From<Data> for Vec<u8> {
    fn from(data: Data) -> Vec<u8> {
        data.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concatenation_pads_each_field_to_four_bytes() {
        let key = Data::concat(&[Data::ipv4(Ipv4Addr::new(203, 0, 113, 9)), Data::byte(6), Data::be16(5432)]).unwrap();
        assert_eq!(key.as_bytes(), [203, 0, 113, 9, 6, 0, 0, 0, 0x15, 0x38, 0, 0]);
    }

    #[test]
    fn more_than_the_registers_hold_is_refused() {
        assert_eq!(Data::new(&[0; 65]), Err(DataTooLong { len: 65 }));
        assert!(Data::concat(&vec![Data::byte(1); 17]).is_err());
    }
}
