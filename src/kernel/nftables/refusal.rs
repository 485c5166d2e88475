//! Error numbers to errors that name the operation and say what to do.

use std::borrow::Cow;

use crate::kernel::refusal::KernelError;
use crate::nft::{
    Chain, ChainType, CtHelper, CtKey, ElementData, Expr, Family, Generation, Hook, KnownObject, MetaKey, Nat, NatKind,
    Object, ObjectType, Operation, RtKey, State, StatefulObject, Transaction, Verb, Verdict,
};
use crate::wire::netlink::Acknowledgement;
use crate::wire::nftables::{Batch, Part};
use crate::{Error, ErrorKind};

pub(super) const NO_PRIVILEGE: &str =
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
    let mut refusal = KernelError::new(operation.to_string(), nack, hint.map(Cow::into_owned));
    refusal.object = part.map(|part| part.to_string());
    refusal.attribute = attribute.map(String::into_boxed_str);
    refusal.of_kind(kind)
}

/// What to do about it.
type Hint = Cow<'static, str>;

fn of_operation(operation: &Operation, part: Option<&Part>, errno: i32) -> (ErrorKind, Option<Hint>) {
    if let Some(lacking) = lacking(operation, part, errno) {
        return (ErrorKind::Unsupported, Some(lacking));
    }
    let (kind, hint) = match errno {
        libc::EOPNOTSUPP => return unfit(operation, part),
        libc::ENOENT => {
            let hint = not_there(operation, part).map(Hint::Owned);
            let hint = hint.unwrap_or(Hint::Borrowed("a table, chain, set or rule that it needs is not there"));
            return (ErrorKind::Kernel, Some(hint));
        }
        libc::EEXIST => (ErrorKind::Conflict, Some("it is there already, or differs from the one that is")),
        // Privilege was checked for the whole batch before its first operation.
        libc::EPERM => (ErrorKind::Conflict, Some("the table belongs to another process (flag `owner`)")),
        libc::EINVAL if operation.verb == Verb::Destroy => (ErrorKind::Kernel, Some("`destroy` needs Linux 6.3")),
        libc::EBUSY if matches!(operation.object, Object::Elements { .. }) => {
            (ErrorKind::Kernel, Some("the set is constant, and in use: what is in it can't be changed any more"))
        }
        libc::EBUSY => (ErrorKind::Kernel, Some("something still refers to it")),
        libc::ENFILE => (ErrorKind::Exhausted, Some("the set is full: its size is a hard cap")),
        libc::E2BIG => (ErrorKind::Exhausted, Some("the kernel takes 1024 base chains at one hook")),
        libc::ELOOP | libc::EMLINK => (ErrorKind::Kernel, Some("chains jump in a circle, or too deep")),
        _ => (ErrorKind::Kernel, None),
    };
    (kind, hint.map(Hint::Borrowed))
}

/// What the operation refers to and is not there. Of an expression or element the kernel points to the whole, and not to the name in it.
fn not_there(operation: &Operation, part: Option<&Part>) -> Option<String> {
    match (&operation.object, part?) {
        (Object::Rule(rule), Part::Expression { index, .. }) => {
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
        (Object::Elements { set, .. }, Part::Element { key }) if operation.verb == Verb::Delete => {
            Some(format!("set {set} has no element {key:?}"))
        }
        (Object::Elements { table, elements, .. }, Part::Element { key }) => {
            let leads_to =
                elements.iter().filter(|element| element.key == *key).find_map(|element| element.data.as_ref());
            match leads_to? {
                ElementData::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => {
                    Some(format!("table {table} has no chain `{chain}`"))
                }
                ElementData::Object(name) => {
                    Some(format!("table {table} has no `{name}` of the map's type of objects"))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// Why something is not where it could be.
fn unfit(operation: &Operation, part: Option<&Part>) -> (ErrorKind, Option<Hint>) {
    let hint: Hint = match (&operation.object, part) {
        (Object::Chain(Chain { base: Some(base), .. }), _) => match (base.kind, base.hook) {
            (ChainType::Nat, Hook::Prerouting | Hook::Input | Hook::Output | Hook::Postrouting)
                if base.priority.0 <= CONNTRACK =>
            {
                "a chain of type nat has a priority above -200, where conntrack is".into()
            }
            (ChainType::Route, hook) if hook != Hook::Output => "a chain of type route is at hook output".into(),
            (ChainType::Nat, Hook::Forward | Hook::Ingress | Hook::Egress) => {
                "a chain of type nat is at hook prerouting, input, output or postrouting".into()
            }
            _ => "a chain that is there stays at its hook; or the kernel has no such hook in that family".into(),
        },
        (Object::Rule(rule), Some(Part::Expression { index, .. })) => match rule.exprs.get(*index) {
            Some(Expr::Dynset(dynset)) => format!(
                "rules can't do that to elements of set `{}`: it takes flag `dynamic`, and `timeout` for one of theirs",
                dynset.set
            )
            .into(),
            Some(Expr::Verdict(_)) => "a rule can't jump to a base chain".into(),
            Some(expr) => return (ErrorKind::Unsupported, Some(option_of_key(expr).into())),
            None => return (ErrorKind::Kernel, None),
        },
        // The kernel looks where rules stand after all of them were read.
        (Object::Rule(rule), None) => match rule.exprs.iter().find_map(only_at) {
            Some(place) => place.into(),
            None => "something in it can't be at the hook, or in the type of chain, that leads to it".into(),
        },
        (Object::Elements { .. }, Some(Part::Element { .. })) => "an element can't jump to a base chain".into(),
        _ => return (ErrorKind::Kernel, None),
    };
    (ErrorKind::Kernel, Some(hint))
}

/// `NF_IP_PRI_CONNTRACK`.
const CONNTRACK: i32 = -200;

/// Where expressions may be that may not be everywhere.
fn only_at(expr: &Expr) -> Option<&'static str> {
    Some(match expr {
        Expr::Masquerade(_) => "`masquerade` is for chains of type nat at hook postrouting",
        Expr::Redirect(_) => "`redirect` is for chains of type nat at hooks prerouting and output",
        Expr::Nat(Nat { kind: NatKind::Source, .. }) => {
            "`snat` is for chains of type nat at hooks input and postrouting"
        }
        Expr::Nat(Nat { kind: NatKind::Destination, .. }) => {
            "`dnat` is for chains of type nat at hooks prerouting and output"
        }
        Expr::Rt { key: RtKey::TcpMss, .. } => "`rt mtu` is for hooks forward, output and postrouting",
        Expr::Tproxy { .. } => "`tproxy` is for hook prerouting",
        Expr::Synproxy(_) => "`synproxy` is for hooks input and forward",
        Expr::FlowOffload { .. } => "`flow add` is for hook forward",
        Expr::Reject(_) => "`reject` is for hooks prerouting, input, forward and output",
        _ => return None,
    })
}

/// The kernel's build option for what an expression asks for.
fn option_of_key(expr: &Expr) -> &'static str {
    match expr {
        Expr::Ct { key, .. } | Expr::CtSet { key, .. } => match key {
            CtKey::Mark => "the kernel lacks CONFIG_NF_CONNTRACK_MARK",
            CtKey::SecMark => "the kernel lacks CONFIG_NF_CONNTRACK_SECMARK",
            CtKey::Labels => "the kernel lacks CONFIG_NF_CONNTRACK_LABELS",
            CtKey::Zone => "the kernel lacks CONFIG_NF_CONNTRACK_ZONES",
            CtKey::EventMask => "the kernel lacks CONFIG_NF_CONNTRACK_EVENTS",
            _ => UNKNOWN_TO_IT,
        },
        Expr::Meta { key, .. } | Expr::MetaSet { key, .. } => match key {
            MetaKey::RtClassId => "the kernel lacks CONFIG_IP_ROUTE_CLASSID",
            MetaKey::SecMark => "the kernel lacks CONFIG_NETWORK_SECMARK",
            MetaKey::Cgroup => "the kernel lacks CONFIG_CGROUP_NET_CLASSID",
            MetaKey::BridgeIifName
            | MetaKey::BridgeOifName
            | MetaKey::BridgeIifPvid
            | MetaKey::BridgeIifVproto
            | MetaKey::BridgeRoute => "it is for tables of family bridge, or the kernel lacks CONFIG_NFT_BRIDGE_META",
            _ => UNKNOWN_TO_IT,
        },
        _ => UNKNOWN_TO_IT,
    }
}

const UNKNOWN_TO_IT: &str = "the kernel knows the expression, and not what it asks for, or not in that family";

/// What the kernel lacks, where that is why it refuses.
fn lacking(operation: &Operation, part: Option<&Part>, errno: i32) -> Option<Hint> {
    let new = matches!(operation.verb, Verb::Add | Verb::Create);
    let hint = match (errno, &operation.object, part) {
        (libc::EOPNOTSUPP, Object::Table(table), _) if table.flags.owner || table.flags.persist => {
            "flag `owner` needs Linux 5.12, `persist` Linux 6.9"
        }
        (libc::EOPNOTSUPP, Object::Table(table), _) if new && table.extra.is_empty() => {
            option_of_family(table.id.family)
        }
        // Whatever else an expression needs it names.
        (libc::ENOENT, Object::Rule(rule), Some(Part::Expression { index, .. })) => {
            let expr = rule.exprs.get(*index)?;
            let names = expr.set().is_some()
                || expr.chain().is_some()
                || matches!(expr, Expr::ObjectRef { .. } | Expr::FlowOffload { .. });
            return (!names).then(|| Hint::Borrowed(option_of(expr.kernel_name())));
        }
        (libc::ENOENT, Object::Chain(Chain { base: Some(base), .. }), Some(Part::Attribute { name: "type" })) => {
            match base.kind {
                ChainType::Nat => option_of("nat"),
                ChainType::Filter | ChainType::Route => "the kernel has no chains of that type in that family",
            }
        }
        // To a table that is not there the kernel points, and to nothing where it does not know the type.
        (libc::ENOENT, Object::Stateful(object), None) if new => return Some(option_of_object(object)),
        (libc::ENOENT, Object::Flowtable(_), None) if new => {
            "the kernel lacks CONFIG_NF_FLOW_TABLE or CONFIG_NF_FLOW_TABLE_INET, or the modules can't be loaded (older ones say the same of a device that is not there)"
        }
        _ => return None,
    };
    Some(Hint::Borrowed(hint))
}

fn option_of_family(family: Family) -> &'static str {
    match family {
        Family::Ip => "the kernel lacks CONFIG_NF_TABLES_IPV4",
        Family::Ip6 => "the kernel lacks CONFIG_NF_TABLES_IPV6",
        Family::Inet => "the kernel lacks CONFIG_NF_TABLES_INET",
        Family::Arp => "the kernel lacks CONFIG_NF_TABLES_ARP",
        Family::Bridge => "the kernel lacks CONFIG_NF_TABLES_BRIDGE, or the module can't be loaded",
        Family::Netdev => "the kernel lacks CONFIG_NF_TABLES_NETDEV",
    }
}

fn option_of_object(object: &StatefulObject) -> Hint {
    if let State::CtHelper(CtHelper { helper, .. }) = &object.state {
        let option = match helper.as_str() {
            "amanda" => "CONFIG_NF_CONNTRACK_AMANDA",
            "ftp" => "CONFIG_NF_CONNTRACK_FTP",
            "RAS" | "Q.931" => "CONFIG_NF_CONNTRACK_H323",
            "irc" => "CONFIG_NF_CONNTRACK_IRC",
            "netbios-ns" => "CONFIG_NF_CONNTRACK_NETBIOS_NS",
            "pptp" => "CONFIG_NF_CONNTRACK_PPTP",
            "sane" => "CONFIG_NF_CONNTRACK_SANE",
            "sip" => "CONFIG_NF_CONNTRACK_SIP",
            "snmp" => "CONFIG_NF_CONNTRACK_SNMP",
            "tftp" => "CONFIG_NF_CONNTRACK_TFTP",
            _ => {
                let helper = helper.escape_debug();
                return Hint::Owned(format!(
                    "no conntrack helper is called `{helper}`, or the kernel lacks CONFIG_NFT_CT"
                ));
            }
        };
        return Hint::Owned(format!(
            "the kernel lacks {option} or CONFIG_NFT_CT, or has no such helper for that protocol"
        ));
    }
    Hint::Borrowed(match object.state.kind() {
        ObjectType::Known(KnownObject::CtHelper | KnownObject::CtTimeout | KnownObject::CtExpectation) => {
            option_of("ct")
        }
        ObjectType::Known(KnownObject::Quota) => option_of("quota"),
        ObjectType::Known(KnownObject::Limit) => option_of("limit"),
        ObjectType::Known(KnownObject::Connlimit) => option_of("connlimit"),
        ObjectType::Known(KnownObject::Tunnel) => option_of("tunnel"),
        ObjectType::Known(KnownObject::Synproxy) => option_of("synproxy"),
        ObjectType::Known(KnownObject::SecMark) => "the kernel lacks CONFIG_NETWORK_SECMARK, or knows no such context",
        ObjectType::Known(KnownObject::Counter) | ObjectType::Other(_) => option_of(""),
    })
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
    use crate::nft::{Bytes, Extra, FlowtableName, ObjectName, Priority, Table, TableId, TableName};
    use crate::wire::netlink::Header;
    use crate::wire::nftables;

    /// The error for a transaction of one operation, where the kernel points to nothing.
    fn refused(verb: Verb, object: Object, errno: i32) -> Error {
        let mut transaction = Transaction::new();
        transaction.push(verb, object);
        let batch = nftables::encode_from(&transaction, 1, false).unwrap();
        let request = Header { len: 0, kind: 0, flags: 0, seq: batch.begin() + 1, port: 0 };
        of_commit(&batch, &transaction, &Acknowledgement::of_errno(errno, request))
    }

    fn id() -> TableId {
        TableId { family: Family::Inet, name: TableName::new("t").unwrap() }
    }

    #[test]
    fn no_operation_is_blamed_for_want_of_memory() {
        let of = |errno| refused(Verb::Flush, Object::Everything, errno);
        assert_eq!(of(libc::EBUSY).to_string(), "can't flush ruleset");
        assert_eq!(of(libc::ENOMEM).to_string(), "can't commit the transaction");
        assert_eq!(of(libc::ENOMEM).kind(), ErrorKind::Exhausted);
    }

    #[test]
    fn what_the_kernel_lacks_is_unsupported_and_named() {
        let object = |state| Object::Stateful(StatefulObject::new(&id(), &ObjectName::new("o").unwrap(), state));
        let helper = |name: &str| object(State::CtHelper(CtHelper { helper: name.into(), l3proto: None, l4proto: 6 }));
        let flowtable = Object::Flowtable(crate::nft::Flowtable {
            table: id(),
            name: FlowtableName::new("f").unwrap(),
            priority: Priority(0),
            devices: Vec::new(),
            offload: false,
            counter: false,
            extra: Extra::default(),
        });
        let tunnel = object(State::Raw { kind: KnownObject::Tunnel.into(), data: Bytes::default() });
        let arp = TableId { family: Family::Arp, ..id() };
        let lacking = [
            (flowtable.clone(), libc::ENOENT, "CONFIG_NF_FLOW_TABLE"),
            (tunnel.clone(), libc::ENOENT, "CONFIG_NFT_TUNNEL"),
            (helper("ftp"), libc::ENOENT, "CONFIG_NF_CONNTRACK_FTP"),
            (helper("nobody"), libc::ENOENT, "helper is called `nobody`"),
            (Object::Table(Table::new(arp)), libc::EOPNOTSUPP, "CONFIG_NF_TABLES_ARP"),
        ];
        for (object, errno, option) in lacking {
            let error = refused(Verb::Create, object, errno);
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
            assert!(error.advice().is_some_and(|advice| advice.contains(option)), "{error:?}");
        }
        for object in [flowtable, tunnel] {
            assert_eq!(refused(Verb::Delete, object, libc::ENOENT).kind(), ErrorKind::Kernel);
        }
    }
}
