//! Rules of a fence's names that are not the fence's.

use ringfence::kernel::nftables;
use ringfence::nft::{
    ChainName, CmpOp, Data, Expr, Family, Field, Log, Object, Rule, TableId, TableName, Transaction, Verb, Verdict,
};
use ringfence::plan::NFLOG_GROUP;
use ringfence::policy::Policy;
use ringfence::{Command, Counters, Host, Sandbox};

use crate::support::Outer;

/// Packets that a prefix's rules are said to have counted.
fn packets(counters: &Counters, prefix: &str) -> u64 {
    counters.rules.iter().filter(|rule| rule.rule.as_deref() == Some(prefix)).map(|rule| rule.packets).sum()
}

#[test]
fn a_rule_that_somebody_else_made_is_not_counted() {
    let Some(outer) = Outer::new() else { return };
    let tried = outer.host.run(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let host = Host::open().unwrap();
            // Mended, the rules would be what they were before they are counted.
            let policy = Policy::builder().tampering("report").and_then(|policy| policy.build()).unwrap();
            let sandbox = Sandbox::prepare(&host, policy).await.unwrap();
            // One whose program may change rules inside is looked at before there is a program.
            let running = sandbox.spawn(Command::new("sleep").arg("1000").share_pid()).await.unwrap();
            let counters = running.counters().unwrap();
            assert!(counters.intact, "{counters:?}");
            let rules = counters.rules.len();

            let table = TableId { family: Family::Inet, name: TableName::new("ringfence").unwrap() };
            let chain = ChainName::new("refuse").unwrap();
            let log =
                Log { group: NFLOG_GROUP, prefix: Some("bypass-tcp".to_owned()), snaplen: None, queue_threshold: None };
            let mut forged = Rule::new(&table, &chain)
                .masked(Field::IP_FRAGMENT, Data::be16(1), CmpOp::Eq, Data::be16(1))
                .log(log)
                .counter()
                .verdict(Verdict::Drop);
            for expr in &mut forged.exprs {
                if let Expr::Counter { packets, .. } = expr {
                    *packets = 1_000_000;
                }
            }
            let mut socket = running.netns().run(nftables::Socket::open).unwrap().unwrap();
            let mut transaction = Transaction::new();
            transaction.push(Verb::Add, Object::Rule(forged));
            socket.commit(&transaction).unwrap();
            let counters = running.counters().unwrap();
            assert!(!counters.intact, "{counters:?}");
            assert_eq!((packets(&counters, "bypass-tcp"), counters.rules.len()), (0, rules));

            // A whole table in the place of the fence's, rule for rule, with numbers that begin at 1 again.
            let was = socket.table(&table).unwrap().unwrap();
            let mut transaction = Transaction::new();
            transaction.push(Verb::Delete, Object::Table(was.tables[0].clone()));
            for operation in was.create().operations() {
                transaction.push(operation.verb, operation.object.clone());
            }
            socket.commit(&transaction).unwrap();
            let counters = running.counters().unwrap();
            assert!(!counters.intact, "{counters:?}");
            assert_eq!(packets(&counters, "bypass-tcp"), 0);
            let (summary, closed) = running.finish().await;
            closed.unwrap();
            assert_eq!((summary.refused, summary.lost), (0, 0));
        });
    });
    tried.unwrap();
}
