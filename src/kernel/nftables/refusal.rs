//! Error numbers to errors that name the operation and say what to do.

use crate::kernel::refusal::KernelError;
use crate::nft::{Expr, Generation, Object, Operation, Transaction, Verb, Verdict};
use crate::wire::netlink::Acknowledgement;
use crate::wire::nftables::{Batch, Part};
use crate::{Error, ErrorKind};

const NO_PRIVILEGE: &str =
    "it takes CAP_NET_ADMIN in the user namespace that owns the network namespace: run it as root";
const NO_NFTABLES: &str = "the kernel has no nf_tables: it lacks CONFIG_NF_TABLES, or the module can't be loaded";

/// A question that was refused.
pub(super) fn of_question(operation: &str, refused: &Acknowledgement) -> Error {
    let (kind, hint) = of_everything(refused.errno);
    error(kind, operation.to_owned(), None, refused, hint)
}

/// The question about the generation that was refused. It has nothing that could be wrong: an answer of `EINVAL` is nfnetlink's own,
/// which finds nobody who takes messages for nf_tables.
pub(super) fn of_first_question(operation: &str, refused: &Acknowledgement) -> Error {
    match refused.errno {
        libc::EINVAL => error(ErrorKind::Unsupported, operation.to_owned(), None, refused, Some(NO_NFTABLES)),
        _ => of_question(operation, refused),
    }
}

/// What an error number means that is not about any one object.
fn of_everything(errno: i32) -> (ErrorKind, Option<&'static str>) {
    match errno {
        libc::EPERM => (ErrorKind::Privilege, Some(NO_PRIVILEGE)),
        // nfnetlink finds nobody who takes batches for nf_tables.
        libc::EOPNOTSUPP => (ErrorKind::Unsupported, Some(NO_NFTABLES)),
        _ => (ErrorKind::Kernel, None),
    }
}

/// A commit that was refused.
pub(super) fn of_commit(batch: &Batch, transaction: &Transaction, nack: &Acknowledgement) -> Error {
    let operation = batch.operation(nack.seq).and_then(|index| transaction.operations().get(index));
    let Some(operation) = operation else {
        let operation = "commit the transaction".to_owned();
        return match (nack.errno, transaction.generation()) {
            (libc::ERESTART, Some(Generation(bound))) => {
                let hint = "read the ruleset again and decide anew";
                let operation = format!("commit: the ruleset is no longer at generation {bound}");
                error(ErrorKind::Conflict, operation, None, nack, Some(hint))
            }
            (libc::ERESTART, None) => {
                error(ErrorKind::Conflict, operation, None, nack, Some("others change the ruleset without pause"))
            }
            _ => {
                let (kind, hint) = of_everything(nack.errno);
                error(kind, operation, None, nack, hint)
            }
        };
    };
    let part = nack.offset.and_then(|offset| batch.locate(nack.seq, offset));
    let (kind, hint) = of_operation(operation, part.as_ref(), nack.errno);
    error(kind, operation.to_string(), part, nack, hint)
}

fn of_operation(operation: &Operation, part: Option<&Part>, errno: i32) -> (ErrorKind, Option<&'static str>) {
    match errno {
        libc::EEXIST => (ErrorKind::Conflict, Some("it is there already, or differs from the one that is")),
        // Privilege was checked for the whole batch before its first operation.
        libc::EPERM => (ErrorKind::Conflict, Some("the table belongs to another process (flag `owner`)")),
        libc::EOPNOTSUPP if has_table_flags(operation) => {
            (ErrorKind::Unsupported, Some("flag `owner` needs Linux 5.12, `persist` Linux 6.9"))
        }
        libc::ENOENT if names_nothing(operation, part) => {
            (ErrorKind::Unsupported, Some("the kernel lacks that expression, or its module can't be loaded"))
        }
        libc::ENOENT => (ErrorKind::Kernel, Some("a table, chain, set or rule that it needs is not there")),
        libc::EINVAL if operation.verb == Verb::Destroy => (ErrorKind::Kernel, Some("`destroy` needs Linux 6.3")),
        libc::EBUSY => (ErrorKind::Kernel, Some("something still refers to it")),
        libc::ENFILE => (ErrorKind::Exhausted, Some("the set is full: its size is a hard cap")),
        libc::E2BIG => (ErrorKind::Exhausted, Some("the kernel takes 1024 base chains at one hook")),
        libc::ELOOP | libc::EMLINK => (ErrorKind::Kernel, Some("chains jump in a circle, or too deep")),
        _ => (ErrorKind::Kernel, None),
    }
}

fn has_table_flags(operation: &Operation) -> bool {
    matches!(&operation.object, Object::Table(table) if table.flags.owner || table.flags.persist)
}

/// Whether the expression refers to nothing that could be missing, so that what is missing is the expression itself.
fn names_nothing(operation: &Operation, part: Option<&Part>) -> bool {
    let (Object::Rule(rule), Some(Part::Expression { index, .. })) = (&operation.object, part) else { return false };
    rule.exprs
        .get(*index)
        .is_some_and(|expr| !matches!(expr, Expr::Lookup { .. } | Expr::Verdict(Verdict::Jump(_) | Verdict::Goto(_))))
}

fn error(
    kind: ErrorKind,
    operation: String,
    part: Option<Part>,
    nack: &Acknowledgement,
    hint: Option<&'static str>,
) -> Error {
    let mut refusal = KernelError::new(operation, nack, hint.map(str::to_owned));
    refusal.object = part.map(|part| part.to_string());
    refusal.of_kind(kind)
}
