//! The rules of a fence that log, against what events make of their prefixes.

use ringfence::SandboxOptions;
use ringfence::audit::Event;
use ringfence::nflog::Message;
use ringfence::nft::{Expr, Verdict};
use ringfence::policy::Policy;
use ringfence::wire::netlink;

/// A refused connect, as the kernel told of it.
const CAPTURED: &[u8] = include_bytes!("../golden/nflog/refused-tcp");

#[test]
fn every_rule_that_logs_becomes_an_event_with_the_verdict_that_it_has() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let framed = netlink::messages(CAPTURED).next().unwrap().unwrap();
    for audit in [false, true] {
        let policy = Policy::builder().direct("203.0.113.9:5432").unwrap().audit(audit).unwrap().build().unwrap();
        let plan = runtime.block_on(ringfence::plan(&policy, &SandboxOptions::default())).unwrap();
        let mut message = Message::decode(&framed).unwrap().unwrap();
        let mut logging = 0;
        for rule in &plan.inside.rules {
            let log = rule.exprs.iter().find_map(|expr| if let Expr::Log(log) = expr { Some(log) } else { None });
            let Some(log) = log else { continue };
            logging += 1;
            let verdict = rule.exprs.iter().find_map(|expr| match expr {
                Expr::Reject(_) => Some("reject"),
                Expr::Verdict(Verdict::Drop) => Some("drop"),
                Expr::Verdict(Verdict::Accept) => Some("accept"),
                _ => None,
            });
            message.prefix = log.prefix.as_deref().map(Into::into);
            match Event::of(&message, std::time::UNIX_EPOCH) {
                Event::Bypass(attempt) => assert_eq!(attempt.verdict, verdict, "{:?}", log.prefix),
                other => panic!("{:?} is no rule of ours: {other:?}", log.prefix),
            }
        }
        assert_eq!(logging, 7, "with audit {audit}");
    }
}
