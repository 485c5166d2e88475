//! nf_tables messages: [`nft`](crate::nft) types to bytes and back.
//!
//! [`encode`](fn@encode) goes through libnftnl, [`decode`](fn@decode) is our own, so that the two check each other:
//! `decode(encode(x)) == x` is a property test.
//!
//! # References
//!
//! `linux/netfilter/nf_tables.h`, `linux/netfilter/nfnetlink.h`.

mod attribute;
mod decode;
mod encode;
mod layout;
mod request;
#[cfg(test)]
mod tests;
mod user_data;

pub use decode::{Author, Deleted, Edit, change, commit, decode, generation, handle};
pub(crate) use decode::{count, is_commit, is_of};
pub(crate) use encode::encode_from;
pub use encode::{Batch, EncodeError, Part, encode};
pub(crate) use request::Request;

/// `NFNL_SUBSYS_NFTABLES`, in the upper byte of a message's type.
const SUBSYSTEM: u16 = 10;

/// `struct nfgenmsg` behind the netlink header.
const GENERIC_LEN: usize = 4;

/// `enum nf_tables_msg_types`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
enum Kind {
    NewTable = 0,
    GetTable = 1,
    DelTable = 2,
    NewChain = 3,
    GetChain = 4,
    DelChain = 5,
    NewRule = 6,
    GetRule = 7,
    DelRule = 8,
    NewSet = 9,
    GetSet = 10,
    DelSet = 11,
    NewSetElem = 12,
    GetSetElem = 13,
    DelSetElem = 14,
    NewGen = 15,
    GetGen = 16,
    NewObject = 18,
    GetObject = 19,
    DelObject = 20,
    GetObjectReset = 21,
    NewFlowtable = 22,
    GetFlowtable = 23,
    DelFlowtable = 24,
    // Linux 6.2.
    GetRuleReset = 25,
    // Linux 6.3: delete what need not be there.
    DestroyTable = 26,
    DestroyChain = 27,
    DestroyRule = 28,
    DestroySet = 29,
    DestroySetElem = 30,
    DestroyObject = 31,
    DestroyFlowtable = 32,
    // Linux 6.5.
    GetSetElemReset = 33,
}

impl Kind {
    const fn to_wire(self) -> u16 {
        SUBSYSTEM << 8 | self as u16
    }
}

/// Flags of `struct nlmsghdr` that requests use.
mod flag {
    pub const REQUEST: u16 = 1;
    pub const ACK: u16 = 4;
    pub const DUMP: u16 = 0x300;
    pub const EXCL: u16 = 0x200;
    pub const CREATE: u16 = 0x400;
    pub const APPEND: u16 = 0x800;
    pub const REPLACE: u16 = 0x100;
    pub const ECHO: u16 = 8;
}

/// `enum nft_table_flags`. The headers of Debian 12 do not know `NFT_TABLE_F_PERSIST` yet.
mod table_flag {
    pub const DORMANT: u32 = 1;
    pub const OWNER: u32 = 2;
    pub const PERSIST: u32 = 4;
}

/// `enum nft_chain_flags`.
mod chain_flag {
    pub const BASE: u32 = 1;
    pub const OFFLOAD: u32 = 2;
    pub const BINDING: u32 = 4;
}

/// `enum nft_flowtable_flags`.
mod flowtable_flag {
    pub const OFFLOAD: u32 = 1;
    pub const COUNTER: u32 = 2;
}

/// `enum nft_dynset_flags`.
mod dynset_flag {
    pub const NEGATED: u32 = 1;
    pub const EXPRESSIONS: u32 = 2;
}

/// `enum nft_quota_flags`.
mod quota_flag {
    pub const OVER: u32 = 1;
    pub const DEPLETED: u32 = 2;
}

/// `NFT_DATA_VERDICT`: the type of what a verdict map leads to.
const DATA_VERDICT: u32 = 0xffff_ff00;

/// How deep expressions may stand in one another. The kernel's go one deep.
const MAX_NESTING: usize = 2;

/// `enum nft_set_flags`.
mod set_flag {
    pub const ANONYMOUS: u32 = 1;
    pub const MAP: u32 = 8;
    pub const EVAL: u32 = 0x20;
    pub const OBJECT: u32 = 0x40;
    pub const EXPR: u32 = 0x100;
    pub const CONSTANT: u32 = 2;
    pub const INTERVAL: u32 = 4;
    pub const TIMEOUT: u32 = 0x10;
    pub const CONCAT: u32 = 0x80;
}

/// `NFT_SET_ELEM_INTERVAL_END`.
const ELEMENT_INTERVAL_END: u32 = 1;

/// `NFT_SET_ELEM_CATCHALL`.
const ELEMENT_CATCH_ALL: u32 = 2;

/// `NFT_LIMIT_F_INV`.
const LIMIT_OVER: u32 = 1;

/// `NFT_LOOKUP_F_INV`.
const LOOKUP_NEGATED: u32 = 1;

/// Numbers that stand for hooks, which depend on the family of the table.
mod hook {
    use crate::nft::{Family, Hook};

    /// Every hook a family has, with its number.
    const fn of(family: Family) -> &'static [(Hook, u32)] {
        match family {
            Family::Ip | Family::Ip6 | Family::Bridge => &[
                (Hook::Prerouting, 0),
                (Hook::Input, 1),
                (Hook::Forward, 2),
                (Hook::Output, 3),
                (Hook::Postrouting, 4),
            ],
            Family::Inet => &[
                (Hook::Prerouting, 0),
                (Hook::Input, 1),
                (Hook::Forward, 2),
                (Hook::Output, 3),
                (Hook::Postrouting, 4),
                (Hook::Ingress, 5),
            ],
            Family::Arp => &[(Hook::Input, 0), (Hook::Output, 1), (Hook::Forward, 2)],
            Family::Netdev => &[(Hook::Ingress, 0), (Hook::Egress, 1)],
        }
    }

    pub fn to_wire(family: Family, hook: Hook) -> Option<u32> {
        of(family).iter().find(|(known, _)| *known == hook).map(|(_, number)| *number)
    }

    pub fn from_wire(family: Family, number: u32) -> Option<Hook> {
        of(family).iter().find(|(_, known)| *known == number).map(|(hook, _)| *hook)
    }
}
