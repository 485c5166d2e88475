//! Rulesets shown in nft(8) syntax, held against what nft(8) itself makes of the text.
//!
//! The twin tests need `nft` and the privilege to make a network namespace, inside which alone anything is loaded. Where either is missing
//! they say so, and fail when `RINGFENCE_TEST_KERNEL=require`.

mod drawn;
mod samples;
mod shown;
mod twin;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use drawn::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use ringfence::nft::*;
use samples::*;
use twin::*;

const IP_SADDR: Load = Load::Payload(PayloadBase::Network, 12, 4);
const IP_DADDR: Load = Load::Payload(PayloadBase::Network, 16, 4);
const IP6_SADDR: Load = Load::Payload(PayloadBase::Network, 8, 16);
const IP6_DADDR: Load = Load::Payload(PayloadBase::Network, 24, 16);
const L4PROTO: Load = Load::Meta(MetaKey::L4Proto, 1);
const SPORT: Load = Load::Payload(PayloadBase::Transport, 0, 2);
const DPORT: Load = Load::Payload(PayloadBase::Transport, 2, 2);
const IIF: Load = Load::Meta(MetaKey::Iif, 4);
const OIF: Load = Load::Meta(MetaKey::Oif, 4);

/// A field to load, and its length.
#[derive(Debug, Clone, Copy)]
enum Load {
    Meta(MetaKey, u32),
    Payload(PayloadBase, u32, u32),
    Ct(CtKey),
}

impl Load {
    fn len(self) -> u32 {
        match self {
            Load::Meta(_, len) | Load::Payload(_, _, len) => len,
            Load::Ct(_) => 4,
        }
    }

    fn load(self, dreg: Register) -> Expr {
        match self {
            Load::Meta(key, _) => Expr::Meta { key, dreg },
            Load::Payload(base, offset, len) => Expr::Payload { base, offset, len, dreg },
            Load::Ct(key) => Expr::Ct { key, direction: None, dreg },
        }
    }
}

const REG: Register = Register::FIRST;

/// Rule writing for tests, on the public interface alone.
trait Write {
    fn is(self, load: Load, data: Data) -> Self;
    fn cmp(self, load: Load, op: CmpOp, data: Data) -> Self;
    fn with_mask(self, load: Load, mask: &[u8], op: CmpOp, data: &[u8]) -> Self;
    fn lookup(self, fields: &[Load], set: &str, negated: bool) -> Self;
    fn set_mark(self, load: Load) -> Self;
    fn note(self, comment: &str) -> Self;
}

impl Write for Rule {
    fn is(self, load: Load, data: Data) -> Self {
        self.cmp(load, CmpOp::Eq, data)
    }

    fn cmp(self, load: Load, op: CmpOp, data: Data) -> Self {
        self.expr(load.load(REG)).expr(Expr::Cmp { op, sreg: REG, data })
    }

    fn with_mask(self, load: Load, mask: &[u8], op: CmpOp, data: &[u8]) -> Self {
        let mask_xor = BitwiseOp::MaskXor { mask: bytes(mask), xor: bytes(&vec![0; mask.len()]) };
        self.expr(load.load(REG))
            .expr(Expr::Bitwise { sreg: REG, dreg: REG, len: load.len(), op: mask_xor })
            .expr(Expr::Cmp { op, sreg: REG, data: bytes(data) })
    }

    fn lookup(mut self, fields: &[Load], set: &str, negated: bool) -> Self {
        let mut slot = 0;
        for field in fields {
            self = self.expr(field.load(Register::slot(slot).unwrap()));
            slot += field.len().div_ceil(4) as u8;
        }
        self.expr(Expr::Lookup { set: SetName::new(set).unwrap(), sreg: REG, negated })
    }

    fn set_mark(self, load: Load) -> Self {
        self.expr(load.load(REG)).expr(Expr::MetaSet { key: MetaKey::Mark, sreg: REG })
    }

    fn note(self, comment: &str) -> Self {
        self.comment(Comment::new(comment).unwrap())
    }
}

fn bytes(bytes: &[u8]) -> Data {
    Data::new(bytes).unwrap()
}

fn table(family: Family, name: &str) -> TableId {
    TableId { family, name: TableName::new(name).unwrap() }
}

fn plain_table(id: &TableId) -> Table {
    Table::new(id.clone())
}

fn chain(name: &str) -> ChainName {
    ChainName::new(name).unwrap()
}

fn set(table: &TableId, name: &str, key: &[Datatype]) -> Set {
    Set::new(table, &SetName::new(name).unwrap(), KeyType(key.to_vec()))
}

fn base(table: &TableId, name: &str, kind: ChainType, hook: Hook, priority: i32, policy: ChainPolicy) -> Chain {
    let base = BaseChain { kind, hook, priority: Priority(priority), policy, devices: Vec::new() };
    Chain { base: Some(base), ..Chain::new(table, &chain(name)) }
}
