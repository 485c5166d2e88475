//! Many endpoints.

use std::time::Instant;

use ringfence::policy::{Endpoint, Policy, Transport};
use ringfence::{Host, Sandbox, SandboxOptions};

use crate::support::Outer;

/// What it takes is printed, and not judged: that is for a quiet machine.
#[test]
fn ten_thousand_endpoints() {
    let Some(outer) = Outer::new() else { return };
    let measured = outer.host.run(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let host = Host::open().unwrap();
            let many = |count: u32| {
                let mut policy = Policy::builder();
                for n in 0..count {
                    policy =
                        policy.direct(&format!("11.{}.{}.{}:443", n >> 16 & 0xff, n >> 8 & 0xff, n & 0xff)).unwrap();
                }
                policy.build().unwrap()
            };
            for count in [1, 10_000] {
                let policy = many(count);
                let start = Instant::now();
                let sandbox = Sandbox::prepare_with(&host, policy.clone(), SandboxOptions::default()).await.unwrap();
                println!("{count} endpoints: prepared in {:?}", start.elapsed());
                let control = sandbox.control();
                let one = Endpoint::parse("203.0.113.9:5432", Transport::Tcp).unwrap();
                let start = Instant::now();
                control.allow([one.clone()]).await.unwrap();
                println!("{count} endpoints: one more in {:?}", start.elapsed());
                let start = Instant::now();
                control.revoke([one]).await.unwrap();
                println!("{count} endpoints: one less in {:?}", start.elapsed());
                let start = Instant::now();
                control.replace(many(1)).await.unwrap();
                println!("{count} endpoints: replaced by one in {:?}", start.elapsed());
                let start = Instant::now();
                control.replace(policy).await.unwrap();
                println!("{count} endpoints: instead of one in {:?}", start.elapsed());
                assert_eq!(control.policy().direct.len(), count as usize);
                let start = Instant::now();
                sandbox.close().await.unwrap();
                println!("{count} endpoints: closed in {:?}", start.elapsed());
            }
        });
    });
    measured.unwrap();
}
