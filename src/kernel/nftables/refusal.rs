//! Error numbers to errors that name the operation and say what to do.

use crate::kernel::refusal::KernelError;
use crate::nft::{Expr, Generation, KnownObject, Object, ObjectType, Operation, Transaction, Verb};
use crate::wire::netlink::Acknowledgement;
use crate::wire::nftables::{Batch, Part};
use crate::{Error, ErrorKind};

const NO_PRIVILEGE: &str =
    "it takes CAP_NET_ADMIN in the user namespace that owns the network namespace: run it as root";
const NO_NFTABLES: &str = "the kernel has no nf_tables: it lacks CONFIG_NF_TABLES, or the module can't be loaded";

/// A question that was refused.
pub(super) fn of_question(operation: &str, refused: &Acknowledgement) -> Error {
    let (kind, hint) = of_everything(refused.errno);
    error(kind, operation.to_owned(), refused, hint)
}

/// The question about the generation that was refused. It has nothing that could be wrong: an answer of `EINVAL` is nfnetlink's own,
/// which finds nobody who takes messages for nf_tables.
pub(super) fn of_first_question(operation: &str, refused: &Acknowledgement) -> Error {
    match refused.errno {
        libc::EINVAL => error(ErrorKind::Unsupported, operation.to_owned(), refused, Some(NO_NFTABLES)),
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
    // Out of memory, nfnetlink answers to the batch's first message, whichever it was.
    if nack.errno == libc::ENOMEM {
        let hint = "something in it takes more memory than there is: a set that says its `size` takes room for so many at once";
        return error(ErrorKind::Exhausted, "commit the transaction".to_owned(), nack, Some(hint));
    }
    let operation = batch.operation(nack.seq).and_then(|index| transaction.operations().get(index));
    let Some(operation) = operation else {
        let operation = "commit the transaction".to_owned();
        return match (nack.errno, transaction.generation()) {
            (libc::ERESTART, Some(Generation(bound))) => {
                let hint = "read the ruleset again and decide anew";
                let operation = format!("commit: the ruleset is no longer at generation {bound}");
                error(ErrorKind::Conflict, operation, nack, Some(hint))
            }
            (libc::ERESTART, None) => {
                error(ErrorKind::Conflict, operation, nack, Some("others change the ruleset without pause"))
            }
            _ => {
                let (kind, hint) = of_everything(nack.errno);
                error(kind, operation, nack, hint)
            }
        };
    };
    let part = nack.offset.and_then(|offset| batch.locate(nack.seq, offset));
    let attribute = match part {
        // These say where it is, and better.
        Some(Part::Expression { .. } | Part::Element { .. }) => None,
        _ => nack.offset.and_then(|offset| batch.attribute(nack.seq, offset)),
    };
    let (kind, hint) = of_operation(operation, part.as_ref(), nack.errno);
    let hint = match nack.errno {
        libc::ENOENT => not_there(operation, part.as_ref()).or(hint.map(str::to_owned)),
        _ => hint.map(str::to_owned),
    };
    let mut refusal = KernelError::new(operation.to_string(), nack, hint);
    refusal.object = part.map(|part| part.to_string());
    refusal.attribute = attribute.map(String::into_boxed_str);
    refusal.of_kind(kind)
}

fn of_operation(operation: &Operation, part: Option<&Part>, errno: i32) -> (ErrorKind, Option<&'static str>) {
    match errno {
        libc::EEXIST => (ErrorKind::Conflict, Some("it is there already, or differs from the one that is")),
        // Privilege was checked for the whole batch before its first operation.
        libc::EPERM => (ErrorKind::Conflict, Some("the table belongs to another process (flag `owner`)")),
        libc::EOPNOTSUPP if has_table_flags(operation) => {
            (ErrorKind::Unsupported, Some("flag `owner` needs Linux 5.12, `persist` Linux 6.9"))
        }
        libc::ENOENT if missing(operation, part).is_some() => (ErrorKind::Unsupported, missing(operation, part)),
        libc::ENOENT => (ErrorKind::Kernel, Some("a table, chain, set or rule that it needs is not there")),
        libc::EINVAL if operation.verb == Verb::Destroy => (ErrorKind::Kernel, Some("`destroy` needs Linux 6.3")),
        libc::EBUSY => (ErrorKind::Kernel, Some("something still refers to it")),
        libc::ENFILE => (ErrorKind::Exhausted, Some("the set is full: its size is a hard cap")),
        libc::E2BIG => (ErrorKind::Exhausted, Some("the kernel takes 1024 base chains at one hook")),
        libc::ELOOP | libc::EMLINK => (ErrorKind::Kernel, Some("chains jump in a circle, or too deep")),
        _ => (ErrorKind::Kernel, None),
    }
}

/// What the operation refers to and is not there. Of an expression the kernel points to the whole, and not to the name in it.
fn not_there(operation: &Operation, part: Option<&Part>) -> Option<String> {
    let (Object::Rule(rule), Some(Part::Expression { index, .. })) = (&operation.object, part) else { return None };
    let expr = rule.exprs.get(*index)?;
    let what = match expr {
        Expr::ObjectRef { kind, name } => format!("{kind} `{name}`"),
        Expr::FlowOffload { flowtable } => format!("flowtable `{flowtable}`"),
        _ => match (expr.set(), expr.chain()) {
            (Some(set), _) => format!("set or map `{set}`"),
            (None, Some(chain)) => format!("chain `{chain}`"),
            (None, None) => return None,
        },
    };
    Some(format!("table {} has no {what}", rule.table))
}

fn has_table_flags(operation: &Operation) -> bool {
    matches!(&operation.object, Object::Table(table) if table.flags.owner || table.flags.persist)
}

/// What of the kernel is missing, when it can't be something that the operation refers to.
fn missing(operation: &Operation, part: Option<&Part>) -> Option<&'static str> {
    match (&operation.object, part) {
        (Object::Rule(rule), Some(Part::Expression { index, .. })) => {
            let expr = rule.exprs.get(*index)?;
            let refers = expr.set().is_some()
                || expr.chain().is_some()
                || matches!(expr, Expr::ObjectRef { .. } | Expr::FlowOffload { .. });
            (!refers).then(|| option_of(expr.kernel_name()))
        }
        (Object::Stateful(object), Some(Part::Attribute { name: "type" })) => Some(match object.state.kind() {
            ObjectType::Known(KnownObject::CtHelper | KnownObject::CtTimeout | KnownObject::CtExpectation) => {
                option_of("ct")
            }
            ObjectType::Known(KnownObject::Quota) => option_of("quota"),
            ObjectType::Known(KnownObject::Limit) => option_of("limit"),
            ObjectType::Known(KnownObject::Connlimit) => option_of("connlimit"),
            ObjectType::Known(KnownObject::Tunnel) => option_of("tunnel"),
            ObjectType::Known(KnownObject::Synproxy) => option_of("synproxy"),
            _ => option_of(""),
        }),
        _ => None,
    }
}

/// The kernel's build option for an expression.
fn option_of(expression: &str) -> &'static str {
    match expression {
        "ct" | "notrack" => "the kernel lacks CONFIG_NFT_CT, or the module can't be loaded",
        "connlimit" => "the kernel lacks CONFIG_NFT_CONNLIMIT, or the module can't be loaded",
        "log" => "the kernel lacks CONFIG_NFT_LOG, or the module can't be loaded",
        "limit" => "the kernel lacks CONFIG_NFT_LIMIT, or the module can't be loaded",
        "masq" => "the kernel lacks CONFIG_NFT_MASQ, or the module can't be loaded",
        "redir" => "the kernel lacks CONFIG_NFT_REDIR, or the module can't be loaded",
        "nat" => "the kernel lacks CONFIG_NFT_NAT, or the module can't be loaded",
        "tunnel" => "the kernel lacks CONFIG_NFT_TUNNEL, or the module can't be loaded",
        "queue" => "the kernel lacks CONFIG_NFT_QUEUE, or the module can't be loaded",
        "quota" => "the kernel lacks CONFIG_NFT_QUOTA, or the module can't be loaded",
        "reject" => "the kernel lacks CONFIG_NFT_REJECT for that family, or the module can't be loaded",
        "match" | "target" => "the kernel lacks CONFIG_NFT_COMPAT or that extension of iptables(8)",
        "hash" => "the kernel lacks CONFIG_NFT_HASH, or the module can't be loaded",
        "fib" => "the kernel lacks CONFIG_NFT_FIB for that family, or the module can't be loaded",
        "xfrm" => "the kernel lacks CONFIG_NFT_XFRM, or the module can't be loaded",
        "socket" => "the kernel lacks CONFIG_NFT_SOCKET, or the module can't be loaded",
        "osf" => "the kernel lacks CONFIG_NFT_OSF, or the module can't be loaded",
        "tproxy" => "the kernel lacks CONFIG_NFT_TPROXY, or the module can't be loaded",
        "synproxy" => "the kernel lacks CONFIG_NFT_SYNPROXY, or the module can't be loaded",
        "dup" => "the kernel lacks CONFIG_NFT_DUP for that family, or the module can't be loaded",
        "fwd" => "the kernel lacks CONFIG_NFT_FWD_NETDEV, or the module can't be loaded",
        "flow_offload" => "the kernel lacks CONFIG_NFT_FLOW_OFFLOAD, or the module can't be loaded",
        "numgen" => "the kernel lacks CONFIG_NFT_NUMGEN, or the module can't be loaded",
        _ => "the kernel lacks that expression or object, or its module can't be loaded",
    }
}

fn error(kind: ErrorKind, operation: String, nack: &Acknowledgement, hint: Option<&'static str>) -> Error {
    KernelError::new(operation, nack, hint.map(str::to_owned)).of_kind(kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::netlink::Header;
    use crate::wire::nftables;

    #[test]
    fn no_operation_is_blamed_for_want_of_memory() {
        let mut transaction = Transaction::new();
        transaction.push(Verb::Flush, Object::Everything);
        let batch = nftables::encode_from(&transaction, 1, false).unwrap();
        let of = |errno| {
            let request = Header { len: 0, kind: 0, flags: 0, seq: batch.begin() + 1, port: 0 };
            of_commit(&batch, &transaction, &Acknowledgement::of_errno(errno, request))
        };
        assert_eq!(of(libc::EBUSY).to_string(), "can't flush ruleset");
        assert_eq!(of(libc::ENOMEM).to_string(), "can't commit the transaction");
        assert_eq!(of(libc::ENOMEM).kind(), ErrorKind::Exhausted);
    }
}
