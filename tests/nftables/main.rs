//! Transactions against the real kernel, each test in a network namespace of its own that has no link but loopback.

mod commit;
mod others;
mod read;
mod whole;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::{Duration, Instant};

use ringfence::kernel::KernelError;
use ringfence::kernel::nftables::{Change, Monitor, Socket, dry_run};
use ringfence::nft::*;
use ringfence::wire::nftables::{Deleted, Edit};
use ringfence::{Error, ErrorKind};
use rustix::thread::{CapabilitySet, UnshareFlags, capabilities, set_capabilities, unshare_unsafe};
use whole::everything;

/// Whether what the kernel lacks is a failure, not a reason to skip.
fn required() -> bool {
    std::env::var("RINGFENCE_TEST_KERNEL").is_ok_and(|value| value == "require")
}

/// Runs `test` on a thread of its own in a new network namespace.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        // SAFETY: a network namespace changes nothing that other threads or Rust rely on; file descriptors stay shared.
        if let Err(error) = unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
            assert!(!required(), "no network namespace can be made: {error}");
            eprintln!("SKIPPED: no network namespace can be made: {error}");
            return;
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn id(family: Family, name: &str) -> TableId {
    TableId { family, name: TableName::new(name).unwrap() }
}

fn table(id: &TableId) -> Table {
    Table::new(id.clone())
}

fn chain_name(name: &str) -> ChainName {
    ChainName::new(name).unwrap()
}

fn chain(table: &TableId, name: &str, base: Option<BaseChain>) -> Chain {
    Chain { base, ..Chain::new(table, &chain_name(name)) }
}

fn base(hook: Hook) -> BaseChain {
    BaseChain {
        kind: ChainType::Filter,
        hook,
        priority: Priority::FILTER,
        policy: ChainPolicy::Accept,
        devices: Vec::new(),
    }
}

fn set(table: &TableId, name: &str, key: &[Datatype]) -> Set {
    Set::new(table, &SetName::new(name).unwrap(), KeyType(key.to_vec()))
}

/// A 32-bit number of a packet.
fn be32(number: u32) -> Data {
    Data::new(&number.to_be_bytes()).unwrap()
}

fn comment(text: &str) -> Option<Comment> {
    Some(Comment::new(text).unwrap())
}

fn add(objects: impl IntoIterator<Item = Object>) -> Transaction {
    let mut transaction = Transaction::new();
    objects.into_iter().for_each(|object| transaction.push(Verb::Add, object));
    transaction
}

fn leaf(error: &Error) -> &KernelError {
    std::error::Error::source(error).and_then(|source| source.downcast_ref()).expect("a kernel error as the cause")
}

/// What nft(8) prints, if it is there. It runs in the thread's namespace.
fn nft_list() -> Option<String> {
    let output = Command::new("nft").args(["list", "ruleset"]).output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

fn payload(base: PayloadBase, offset: u32, len: u32) -> Expr {
    Expr::Payload { base, offset, len, dreg: Register::FIRST }
}

fn cmp(op: CmpOp, data: Data) -> Expr {
    Expr::Cmp { op, sreg: Register::FIRST, data }
}
