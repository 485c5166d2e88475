//! Expressions: the instructions of the nf_tables virtual machine, as the kernel names them.

mod load;
pub(super) mod numbered;
mod statement;

use serde::{Deserialize, Serialize};

use super::{Bytes, ChainName, Data, Family, FlowtableName, ObjectName, ObjectType, SetName};
pub use load::*;
use numbered::numbered;
pub use statement::*;

/// A register, counted in units of four bytes from the first data register.
///
/// The kernel has two spellings for one file of 64 bytes: `NFT_REG_1` to `NFT_REG_4` of 16 bytes each, and
/// `NFT_REG32_00` to `NFT_REG32_15` of 4 bytes each. It dumps the first spelling where a register starts at a multiple of 16.
/// This type is the place, not the spelling, so that both compare equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Register(u8);

impl TryFrom<u8> for Register {
    type Error = String;
    fn try_from(slot: u8) -> Result<Self, String> {
        Register::slot(slot).ok_or_else(|| format!("found register {slot}, expected a register below 16"))
    }
}

impl From<Register> for u8 {
    fn from(register: Register) -> u8 {
        register.0
    }
}

impl Register {
    /// The first register, `NFT_REG_1` and `NFT_REG32_00` alike.
    #[doc(alias = "NFT_REG_1")]
    pub const FIRST: Register = Register(0);

    /// The register that starts `slot` times four bytes from the first. `None` from 16 on: there are sixteen.
    #[doc(alias = "NFT_REG32_00")]
    pub const fn slot(slot: u8) -> Option<Register> {
        if slot < 16 { Some(Register(slot)) } else { None }
    }

    /// Where it starts, in units of four bytes.
    pub const fn index(self) -> u8 {
        self.0
    }

    /// The number that stands for it in netlink attributes.
    pub const fn to_wire(self) -> u32 {
        if self.0.is_multiple_of(4) { self.0 as u32 / 4 + 1 } else { self.0 as u32 + 8 }
    }

    /// The register a netlink attribute's number stands for. `None` for 0 (the verdict register) and for what is no register.
    pub const fn from_wire(number: u32) -> Option<Register> {
        match number {
            1..=4 => Some(Register((number as u8 - 1) * 4)),
            8..=23 => Some(Register(number as u8 - 8)),
            _ => None,
        }
    }
}

numbered! {
    /// Comparison of a register with a value.
    CmpOp {
        /// Equal.
        Eq = 0,
        /// Not equal.
        Neq = 1,
        /// Less than, byte by byte from the first.
        Lt = 2,
        /// Less than or equal.
        Lte = 3,
        /// Greater than.
        Gt = 4,
        /// Greater than or equal.
        Gte = 5,
    }
}

numbered! {
    /// Which way bytes are turned around. On a machine that keeps numbers in network byte order neither does anything.
    ByteorderOp {
        /// From network byte order to the machine's.
        #[doc(alias = "NFT_BYTEORDER_NTOH")]
        ToMachine = 0,
        /// From the machine's byte order to that of the network.
        #[doc(alias = "NFT_BYTEORDER_HTON")]
        ToNetwork = 1,
    }
}

/// What a bitwise expression does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum BitwiseOp {
    /// `(register & mask) ^ xor`.
    MaskXor {
        /// Bits to keep.
        mask: Data,
        /// Bits to turn over afterwards.
        xor: Data,
    },
    /// Shifts to the left. nft(8): `<<`.
    #[doc(alias = "NFT_BITWISE_LSHIFT")]
    ShiftLeft(Data),
    /// Shifts to the right. nft(8): `>>`.
    #[doc(alias = "NFT_BITWISE_RSHIFT")]
    ShiftRight(Data),
    /// Ands with another register. Linux 6.13.
    #[doc(alias = "NFT_BITWISE_AND")]
    And(Register),
    /// Ors with another register. Linux 6.13.
    #[doc(alias = "NFT_BITWISE_OR")]
    Or(Register),
    /// Turns over the bits of another register. Linux 6.13.
    #[doc(alias = "NFT_BITWISE_XOR")]
    Xor(Register),
}

/// How a checksum is kept right when bytes of a packet are rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Checksum {
    /// 0 for none, 1 for the internet's, 2 for SCTP's.
    #[doc(alias = "NFTA_PAYLOAD_CSUM_TYPE")]
    pub kind: u32,
    /// Where it stands in the header.
    pub offset: u32,
    /// 1 when the transport header's checksum covers the bytes, too.
    #[doc(alias = "NFT_PAYLOAD_L4CSUM_PSEUDOHDR")]
    pub flags: u32,
}

/// One instruction.
///
/// What this crate has no word for, an expression of a newer kernel or one with an unknown attribute, is [`Expr::Raw`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Expr {
    /// Loads bytes of the packet.
    Payload {
        /// Header that the offset counts from.
        base: PayloadBase,
        /// First byte.
        offset: u32,
        /// How many bytes.
        len: u32,
        /// Where they go.
        dreg: Register,
    },
    /// Rewrites bytes of the packet.
    PayloadWrite {
        /// Header that the offset counts from.
        base: PayloadBase,
        /// First byte.
        offset: u32,
        /// How many bytes.
        len: u32,
        /// Where the new ones are.
        sreg: Register,
        /// Which checksum follows.
        #[serde(default)]
        checksum: Checksum,
    },
    /// Loads what the kernel knows about the packet.
    Meta {
        /// What to load.
        key: MetaKey,
        /// Where it goes.
        dreg: Register,
    },
    /// Sets what the kernel knows about the packet.
    MetaSet {
        /// What to set.
        key: MetaKey,
        /// Where the value is.
        sreg: Register,
    },
    /// Loads what conntrack knows about the flow.
    Ct {
        /// What to load.
        key: CtKey,
        /// Direction, for the keys that need one.
        direction: Option<CtDirection>,
        /// Where it goes.
        dreg: Register,
    },
    /// Sets what conntrack knows about the flow.
    CtSet {
        /// What to set.
        key: CtKey,
        /// Direction, for the keys that need one.
        direction: Option<CtDirection>,
        /// Where the value is.
        sreg: Register,
    },
    /// Loads what is known of the route.
    Rt {
        /// What to load.
        key: RtKey,
        /// Where it goes.
        dreg: Register,
    },
    /// Loads what is known of the socket that the packet is for.
    Socket {
        /// What to load.
        key: SocketKey,
        /// Which ancestor of the control group, from the root.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        level: Option<u32>,
        /// Where it goes.
        dreg: Register,
    },
    /// Looks the packet up in the routing tables.
    Fib {
        /// What to load.
        result: FibResult,
        /// What the look-up goes by.
        flags: FibFlags,
        /// Where it goes.
        dreg: Register,
    },
    /// Loads bytes of an extension header or option, or whether there is one.
    Exthdr {
        /// Where it is looked for.
        op: ExthdrOp,
        /// Which one.
        kind: u8,
        /// First byte.
        offset: u32,
        /// How many bytes.
        len: u32,
        /// Loads one byte instead: 1 when it is there, else 0.
        #[serde(default)]
        present: bool,
        /// Where they go.
        dreg: Register,
    },
    /// Rewrites bytes of a TCP option. nft(8): `tcp option maxseg size set`.
    ExthdrWrite {
        /// Where it is looked for.
        op: ExthdrOp,
        /// Which one.
        kind: u8,
        /// First byte.
        offset: u32,
        /// How many bytes.
        len: u32,
        /// Where the new ones are.
        sreg: Register,
    },
    /// Overwrites a TCP option with padding. nft(8): `reset tcp option`. Linux 5.18.
    ExthdrReset {
        /// Where it is looked for.
        op: ExthdrOp,
        /// Which one.
        kind: u8,
    },
    /// Hashes, and takes the hash modulo a number.
    Hash {
        /// What is hashed.
        of: Hash,
        /// The number.
        modulus: u32,
        /// What is added afterwards.
        #[serde(default)]
        offset: u32,
        /// Where it goes.
        dreg: Register,
    },
    /// Loads a number that counts packets or is drawn.
    Numgen {
        /// How it counts.
        kind: NumgenKind,
        /// The number is below this.
        modulus: u32,
        /// What is added afterwards.
        #[serde(default)]
        offset: u32,
        /// Where it goes.
        dreg: Register,
    },
    /// Guesses the operating system of the sender of a SYN.
    Osf {
        /// How the time to live is compared: 0 true, 1 loose, 2 not at all.
        ttl: u8,
        /// 1 for name and version.
        flags: u32,
        /// Where the name goes.
        dreg: Register,
    },
    /// Loads what is known of the packet's tunnel.
    Tunnel {
        /// What to load.
        key: TunnelKey,
        /// Which tunnel.
        mode: TunnelMode,
        /// Where it goes.
        dreg: Register,
    },
    /// Loads what is known of the packet's IPsec state.
    Xfrm {
        /// What to load.
        key: XfrmKey,
        /// Which state.
        direction: XfrmDirection,
        /// Which transformation, from the outermost.
        spnum: u32,
        /// Where it goes.
        dreg: Register,
    },
    /// Ends the rule unless the comparison holds.
    Cmp {
        /// Comparison.
        op: CmpOp,
        /// Register compared.
        sreg: Register,
        /// Value it is compared with.
        data: Data,
    },
    /// Ends the rule unless the register is within (or, negated, outside) two bounds.
    Range {
        /// Whether outside is asked for.
        negated: bool,
        /// Register compared.
        sreg: Register,
        /// Lower bound, inclusive.
        from: Data,
        /// Upper bound, inclusive.
        to: Data,
    },
    /// Computes on a register.
    Bitwise {
        /// Where the value is.
        sreg: Register,
        /// Where the result goes.
        dreg: Register,
        /// How many bytes.
        len: u32,
        /// What is done.
        op: BitwiseOp,
    },
    /// Turns bytes around.
    Byteorder {
        /// Where the value is.
        sreg: Register,
        /// Where the result goes.
        dreg: Register,
        /// Which way.
        op: ByteorderOp,
        /// How many bytes.
        len: u32,
        /// How many bytes each number in it has.
        size: u32,
    },
    /// Ends the rule unless the set holds (or, negated, lacks) what is in the register.
    Lookup {
        /// The set.
        set: SetName,
        /// Where the key is.
        sreg: Register,
        /// Whether absence is asked for.
        negated: bool,
    },
    /// Loads what a map has for a key. Ends the rule when it has nothing.
    Map {
        /// The map.
        set: SetName,
        /// Where the key is.
        sreg: Register,
        /// Where the value goes.
        dreg: Register,
    },
    /// Decides as a map has it for a key. Goes on when it has nothing. nft(8): `vmap`.
    VerdictMap {
        /// The map.
        set: SetName,
        /// Where the key is.
        sreg: Register,
    },
    /// Changes a set from the packet path.
    Dynset(Dynset),
    /// Puts a constant into a register.
    Immediate {
        /// Where it goes.
        dreg: Register,
        /// The constant.
        data: Data,
    },
    /// Decides. An immediate into the verdict register.
    Verdict(Verdict),
    /// Counts packets and bytes. In a dump the values are those of that moment.
    Counter {
        /// Packets so far.
        packets: u64,
        /// Bytes so far.
        bytes: u64,
    },
    /// Hands the packet to an nflog group.
    Log(Log),
    /// Writes a line to the kernel log.
    Syslog(Syslog),
    /// Refuses the packet and tells the sender.
    Reject(Reject),
    /// Rewrites the source to the primary address of the interface that the packet leaves by.
    Masquerade(NatPorts),
    /// Rewrites the destination to this host. nft(8): `redirect`.
    Redirect(NatPorts),
    /// Rewrites addresses and ports. nft(8): `snat`, `dnat`.
    Nat(Nat),
    /// Hands the packet to a local socket without rewriting it.
    Tproxy {
        /// Of which family packets are; either when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        family: Option<Family>,
        /// Where the address is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<Register>,
        /// Where the port is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<Register>,
    },
    /// Ends the rule when more packets or bytes come than that.
    Limit(Limit),
    /// Ends the rule when an amount of bytes is used up.
    Quota(Quota),
    /// Ends the rule when there are more flows than that. nft(8): `ct count`.
    Connlimit {
        /// How many.
        count: u32,
        /// Whether the rule goes on only past the limit.
        #[serde(default)]
        over: bool,
    },
    /// Remembers when a packet came here last. nft(8): `last`.
    Last {
        /// Whether one ever did.
        set: bool,
        /// How many milliseconds ago.
        milliseconds: u64,
    },
    /// Applies a stateful object. nft(8): `counter name`, `ct helper set`…
    ObjectRef {
        /// What it is.
        kind: ObjectType,
        /// Its name.
        name: ObjectName,
    },
    /// Applies the stateful object that a map has for a key.
    ObjectMap {
        /// The map.
        set: SetName,
        /// Where the key is.
        sreg: Register,
    },
    /// Spares the packet conntrack.
    Notrack,
    /// Lets a program decide.
    Queue {
        /// Where the packet waits.
        to: QueueNumber,
        /// Flags.
        #[serde(default)]
        flags: QueueFlags,
    },
    /// Sends a copy elsewhere.
    Dup {
        /// Where the address is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<Register>,
        /// Where the interface index is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<Register>,
    },
    /// Sends the packet out of another device. Family netdev.
    Fwd {
        /// Where the interface index is.
        device: Register,
        /// Where the address of the neighbour is, and of which family.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        neighbour: Option<(Register, Family)>,
    },
    /// Lets a flow pass by the rules from here on. nft(8): `flow add`.
    FlowOffload {
        /// The flowtable.
        flowtable: FlowtableName,
    },
    /// Answers SYNs for the server.
    Synproxy(Synproxy),
    /// A match of iptables(8).
    Match(Xt),
    /// A target of iptables(8).
    Target(Xt),
    /// An expression that this crate has no word for, as the kernel spells it.
    Raw {
        /// The kernel's name for it.
        name: String,
        /// Its attributes; none when it takes none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data: Option<Bytes>,
    },
}

impl Expr {
    /// The kernel's name for it.
    pub fn kernel_name(&self) -> &str {
        match self {
            Expr::Payload { .. } | Expr::PayloadWrite { .. } => "payload",
            Expr::Meta { .. } | Expr::MetaSet { .. } => "meta",
            Expr::Ct { .. } | Expr::CtSet { .. } => "ct",
            Expr::Rt { .. } => "rt",
            Expr::Socket { .. } => "socket",
            Expr::Fib { .. } => "fib",
            Expr::Exthdr { .. } | Expr::ExthdrWrite { .. } | Expr::ExthdrReset { .. } => "exthdr",
            Expr::Hash { .. } => "hash",
            Expr::Numgen { .. } => "numgen",
            Expr::Osf { .. } => "osf",
            Expr::Tunnel { .. } => "tunnel",
            Expr::Xfrm { .. } => "xfrm",
            Expr::Cmp { .. } => "cmp",
            Expr::Range { .. } => "range",
            Expr::Bitwise { .. } => "bitwise",
            Expr::Byteorder { .. } => "byteorder",
            Expr::Lookup { .. } | Expr::Map { .. } | Expr::VerdictMap { .. } => "lookup",
            Expr::Dynset(_) => "dynset",
            Expr::Immediate { .. } | Expr::Verdict(_) => "immediate",
            Expr::Counter { .. } => "counter",
            Expr::Log(_) | Expr::Syslog(_) => "log",
            Expr::Reject(_) => "reject",
            Expr::Masquerade(_) => "masq",
            Expr::Redirect(_) => "redir",
            Expr::Nat(_) => "nat",
            Expr::Tproxy { .. } => "tproxy",
            Expr::Limit(_) => "limit",
            Expr::Quota(_) => "quota",
            Expr::Connlimit { .. } => "connlimit",
            Expr::Last { .. } => "last",
            Expr::ObjectRef { .. } | Expr::ObjectMap { .. } => "objref",
            Expr::Notrack => "notrack",
            Expr::Queue { .. } => "queue",
            Expr::Dup { .. } => "dup",
            Expr::Fwd { .. } => "fwd",
            Expr::FlowOffload { .. } => "flow_offload",
            Expr::Synproxy(_) => "synproxy",
            Expr::Match(_) => "match",
            Expr::Target(_) => "target",
            Expr::Raw { name, .. } => name,
        }
    }

    /// The set or map that it looks into or changes.
    pub fn set(&self) -> Option<&SetName> {
        match self {
            Expr::Lookup { set, .. }
            | Expr::Map { set, .. }
            | Expr::VerdictMap { set, .. }
            | Expr::ObjectMap { set, .. }
            | Expr::Dynset(Dynset { set, .. }) => Some(set),
            _ => None,
        }
    }

    pub(in crate::nft) fn set_mut(&mut self) -> Option<&mut SetName> {
        match self {
            Expr::Lookup { set, .. }
            | Expr::Map { set, .. }
            | Expr::VerdictMap { set, .. }
            | Expr::ObjectMap { set, .. }
            | Expr::Dynset(Dynset { set, .. }) => Some(set),
            _ => None,
        }
    }

    /// The chain that it jumps or goes to.
    pub fn chain(&self) -> Option<&ChainName> {
        match self {
            Expr::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => Some(chain),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_register_are_one() {
        for slot in 0..16 {
            let register = Register::slot(slot).unwrap();
            assert_eq!(Register::from_wire(register.to_wire()), Some(register));
            assert_eq!(Register::from_wire(8 + u32::from(slot)), Some(register));
        }
        assert_eq!(Register::from_wire(2), Register::slot(4));
        assert_eq!([0, 5, 7, 24, u32::MAX].map(Register::from_wire), [None; 5]);
    }
}
