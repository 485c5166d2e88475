//! Rules as the kernel has them.

use serde::{Deserialize, Serialize};

use super::{
    BitwiseOp, ChainName, CmpOp, Comment, CtKey, Data, DataTooLong, Expr, Extra, Family, Handle, Log, MetaKey,
    NatPorts, PayloadBase, Register, Reject, SetName, TableId, Verdict,
};

/// A rule: expressions that are evaluated in order until one ends it or decides.
///
/// Each method appends the expressions that it names and nothing else: what they depend on is the caller's to ask for.
/// [`statements`](super::statements) write rules in nft(8)'s words, with types, dependencies and sets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Table it is in.
    pub table: TableId,
    /// Chain it is in.
    pub chain: ChainName,
    /// Expressions.
    pub exprs: Vec<Expr>,
    /// Comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<Comment>,
    /// Number the kernel gave it; none before it is committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<Handle>,
    /// The rule behind which it is added, or in front of which it is inserted. At the end or head of its chain when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Handle>,
    /// What else it carries.
    #[serde(default, skip_serializing_if = "Extra::is_empty")]
    pub extra: Extra,
}

/// A field of a packet, or of what the kernel knows about it, that a rule can load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// What the kernel knows.
    Meta(MetaKey),
    /// Bytes of a header.
    Payload {
        /// The header.
        base: PayloadBase,
        /// Where the field starts in it, in bytes.
        offset: u32,
        /// How long it is, in bytes.
        len: u32,
    },
}

/// A field of the network header.
const fn network(offset: u32, len: u32) -> Field {
    Field::Payload { base: PayloadBase::Network, offset, len }
}

/// A field of the transport header.
const fn transport(offset: u32, len: u32) -> Field {
    Field::Payload { base: PayloadBase::Transport, offset, len }
}

impl Field {
    /// nft(8): `iif`.
    pub const IIF: Field = Field::Meta(MetaKey::Iif);
    /// nft(8): `oif`.
    pub const OIF: Field = Field::Meta(MetaKey::Oif);
    /// nft(8): `meta nfproto`.
    pub const NFPROTO: Field = Field::Meta(MetaKey::NfProto);
    /// nft(8): `meta l4proto`.
    pub const L4PROTO: Field = Field::Meta(MetaKey::L4Proto);
    /// nft(8): `meta protocol`.
    pub const PROTOCOL: Field = Field::Meta(MetaKey::Protocol);
    /// Version and header length. nft(8): `ip version`, `ip hdrlength`.
    pub const IP_HDRLENGTH: Field = network(0, 1);
    /// Fragment flags and offset. nft(8): `ip frag-off`.
    pub const IP_FRAGMENT: Field = network(6, 2);
    /// nft(8): `ip protocol`.
    pub const IP_PROTOCOL: Field = network(9, 1);
    /// nft(8): `ip saddr`.
    pub const IP_SADDR: Field = network(12, 4);
    /// nft(8): `ip daddr`.
    pub const IP_DADDR: Field = network(16, 4);
    /// nft(8): `ip6 nexthdr`.
    pub const IP6_NEXTHDR: Field = network(6, 1);
    /// nft(8): `ip6 hoplimit`.
    pub const IP6_HOPLIMIT: Field = network(7, 1);
    /// nft(8): `ip6 saddr`.
    pub const IP6_SADDR: Field = network(8, 16);
    /// nft(8): `ip6 daddr`.
    pub const IP6_DADDR: Field = network(24, 16);
    /// nft(8): `arp saddr ip`.
    pub const ARP_SENDER_IP: Field = network(14, 4);
    /// nft(8): `icmp type`, `icmpv6 type`.
    pub const ICMP_TYPE: Field = transport(0, 1);
    /// nft(8): `th sport`.
    pub const SPORT: Field = transport(0, 2);
    /// nft(8): `th dport`.
    pub const DPORT: Field = transport(2, 2);

    fn len(self) -> u32 {
        match self {
            Field::Payload { len, .. } => len,
            Field::Meta(key) => key.size(),
        }
    }

    fn load(self, dreg: Register) -> Expr {
        match self {
            Field::Meta(key) => Expr::Meta { key, dreg },
            Field::Payload { base, offset, len } => Expr::Payload { base, offset, len, dreg },
        }
    }
}

impl Rule {
    /// The most expressions of one rule that the encoder takes.
    #[doc(alias = "NFT_RULE_MAXEXPRS")]
    pub const MAX_EXPRS: usize = 128;

    /// An empty rule in a chain.
    pub fn new(table: &TableId, chain: &ChainName) -> Self {
        Self {
            table: table.clone(),
            chain: chain.clone(),
            exprs: Vec::new(),
            comment: None,
            handle: None,
            position: None,
            extra: Extra::default(),
        }
    }

    /// Appends one expression.
    pub fn expr(mut self, expr: Expr) -> Self {
        self.exprs.push(expr);
        self
    }

    /// Sets the comment.
    pub fn comment(mut self, comment: Comment) -> Self {
        self.comment = Some(comment);
        self
    }

    fn compare(self, field: Field, op: CmpOp, data: Data) -> Self {
        self.expr(field.load(Register::FIRST)).expr(Expr::Cmp { op, sreg: Register::FIRST, data })
    }

    /// Matches when the field has that value.
    pub fn equals(self, field: Field, data: Data) -> Self {
        self.compare(field, CmpOp::Eq, data)
    }

    /// Matches when the masked field has (or lacks) that value.
    pub fn masked(self, field: Field, mask: Data, op: CmpOp, data: Data) -> Self {
        let len = field.len();
        let xor = Data::new(&vec![0; mask.len()]).unwrap_or_default();
        self.expr(field.load(Register::FIRST))
            .expr(Expr::Bitwise {
                sreg: Register::FIRST,
                dreg: Register::FIRST,
                len,
                op: BitwiseOp::MaskXor { mask, xor },
            })
            .expr(Expr::Cmp { op, sreg: Register::FIRST, data })
    }

    /// Matches when the set holds (or, negated, lacks) the concatenation of the fields. nft(8): `FIELD . FIELD … @SET`.
    ///
    /// # Errors
    ///
    /// [`DataTooLong`] when the fields, each padded to four bytes, don't fit the registers.
    pub fn in_set(mut self, fields: &[Field], set: &SetName, negated: bool) -> Result<Self, DataTooLong> {
        let mut slot = 0;
        for field in fields {
            let words = field.len().div_ceil(4) as usize;
            let too_long = DataTooLong { len: (slot + words) * 4 };
            let dreg = u8::try_from(slot).ok().and_then(Register::slot).ok_or(too_long)?;
            slot += words;
            if slot * 4 > Data::MAX_LEN {
                return Err(too_long);
            }
            self.exprs.push(field.load(dreg));
        }
        Ok(self.expr(Expr::Lookup { set: set.clone(), sreg: Register::FIRST, negated }))
    }

    /// nft(8): `meta nfproto ipv4` or `meta nfproto ipv6`.
    pub fn nfproto(self, family: Family) -> Self {
        self.equals(Field::NFPROTO, Data::byte(family.to_wire()))
    }

    /// nft(8): `meta l4proto PROTO`, by protocol number.
    pub fn l4proto(self, protocol: u8) -> Self {
        self.equals(Field::L4PROTO, Data::byte(protocol))
    }

    /// nft(8): `ct state STATE,…`: matches when the flow is in one of the states.
    pub fn ct_state(self, states: u32) -> Self {
        let (mask, zero) = (Data::native32(states), Data::native32(0));
        self.expr(Expr::Ct { key: CtKey::State, direction: None, dreg: Register::FIRST })
            .expr(Expr::Bitwise {
                sreg: Register::FIRST,
                dreg: Register::FIRST,
                len: 4,
                op: BitwiseOp::MaskXor { mask, xor: zero.clone() },
            })
            .expr(Expr::Cmp { op: CmpOp::Neq, sreg: Register::FIRST, data: zero })
    }

    /// nft(8): `counter`.
    pub fn counter(self) -> Self {
        self.expr(Expr::Counter { packets: 0, bytes: 0 })
    }

    /// nft(8): `log group N …`.
    pub fn log(self, log: Log) -> Self {
        self.expr(Expr::Log(log))
    }

    /// nft(8): `reject with …`.
    pub fn reject(self, reject: Reject) -> Self {
        self.expr(Expr::Reject(reject))
    }

    /// nft(8): `masquerade`.
    pub fn masquerade(self) -> Self {
        self.expr(Expr::Masquerade(NatPorts::default()))
    }

    /// nft(8): `accept`, `drop`, `return`, `jump CHAIN`, `goto CHAIN`.
    pub fn verdict(self, verdict: Verdict) -> Self {
        self.expr(Expr::Verdict(verdict))
    }
}

/// Bits of `ct state`, as nft(8) names them.
///
/// # References
///
/// `linux/netfilter/nf_conntrack_common.h`: `NF_CT_STATE_BIT`.
pub mod ct_state {
    /// Belongs to no flow that conntrack can follow.
    pub const INVALID: u32 = 1;
    /// Belongs to a flow that has seen packets both ways.
    pub const ESTABLISHED: u32 = 2;
    /// Starts a flow that belongs to another, or is an ICMP error about one.
    pub const RELATED: u32 = 4;
    /// Starts a flow.
    pub const NEW: u32 = 8;
    /// Is not followed: by its kind, or because a rule said so.
    pub const UNTRACKED: u32 = 64;
}
