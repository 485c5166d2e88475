//! Events through the library: many sandboxes at once, slow subscribers, reports.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use ringfence::audit::{Event, Identity, Summary};
use ringfence::kernel::identity::Program;
use ringfence::policy::Policy;
use ringfence::{Command, EventStream, Host, Sandbox, SandboxOptions};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::support::PATIENCE;
use crate::world::{World, oracle};

const SANDBOXES: u16 = 200;

/// Runs in the host of a small internet: threads of a runtime are born in the namespace of the one that makes it.
fn in_world<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send) {
    let Some(world) = World::new() else { return };
    if oracle("bash").is_none() {
        return;
    }
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    world
        .outer
        .host
        .run(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async { tokio::time::timeout(4 * PATIENCE, work()).await.expect("an end") });
        })
        .unwrap();
}

fn attempts(script: &str) -> Command {
    Command::new("bash").args(["-c", &format!("{{ {script}; }} 2>/dev/null; true")])
}

async fn run(host: &Host, options: SandboxOptions, script: &str) -> (Summary, EventStream) {
    let sandbox = Sandbox::prepare_with(host, Policy::default(), options).await.unwrap();
    let events = sandbox.events();
    let mut running = sandbox.spawn(attempts(script)).await.unwrap();
    running.wait().await.unwrap();
    let (summary, undone) = running.finish().await;
    undone.unwrap();
    (summary, events)
}

#[test]
fn each_of_two_hundred_sees_its_own_and_nobody_elses() {
    in_world(|| async {
        let start = Instant::now();
        let host = Host::open().unwrap();
        let mut all = tokio::task::JoinSet::new();
        for number in 0..SANDBOXES {
            let host = host.clone();
            all.spawn(async move {
                let port = 1000 + number;
                let script = format!("for i in 1 2 3; do (echo x > /dev/udp/203.0.113.10/{port}); done");
                let (summary, events) = run(&host, SandboxOptions::default(), &script).await;
                let events: Vec<_> = events.collect().await;
                (port, summary, events)
            });
        }
        let mut ids = std::collections::BTreeSet::new();
        let mut named = 0;
        while let Some(ended) = all.join_next().await {
            let (port, summary, events) = ended.unwrap();
            assert_eq!((summary.refused, summary.lost, summary.denials.len()), (3, 0, 1), "{summary:?}");
            assert_eq!(events.len(), 4, "{events:?}");
            for event in &events[..3] {
                let Event::Bypass(attempt) = &**event else { panic!("{event:?}") };
                assert_eq!((attempt.dport, attempt.sandbox.as_ref()), (Some(port), Some(&summary.sandbox)));
                // Not another sandbox's process either: the script has the port in it.
                match &attempt.identity {
                    Some(Identity::Exact(process) | Identity::Inferred { process, .. }) => {
                        let argv = process.argv.clone().unwrap_or_default();
                        assert!(argv.iter().any(|word| word.contains(&format!("/{port})"))), "{process:?}");
                        named += 1;
                    }
                    Some(Identity::Ambiguous { .. }) | None => panic!("{attempt:?}"),
                    _ => {}
                }
            }
            assert!(matches!(&*events[3], Event::Summary(last) if **last == summary), "{events:?}");
            ids.insert(summary.sandbox);
        }
        assert_eq!(ids.len(), usize::from(SANDBOXES));
        println!("{SANDBOXES} sandboxes, each with its own events, {named} with a process: {:?}", start.elapsed());
        if Program::load().is_ok() {
            assert_eq!(named, 3 * usize::from(SANDBOXES));
        }
    });
}

#[test]
fn a_subscriber_who_does_not_read_is_told_exactly_what_it_missed() {
    in_world(|| async {
        let host = Host::open().unwrap();
        // More than a queue holds.
        let script = "exec 3<>/dev/udp/203.0.113.10/9; for ((i = 0; i < 12000; i++)); do echo x >&3; done";
        let (summary, events) = run(&host, SandboxOptions::default(), script).await;
        let (mut told, mut lost, mut first) = (0, 0, None);
        let mut last = None;
        let events: Vec<_> = events.collect().await;
        for event in events {
            match &*event {
                Event::Bypass(_) => told += 1,
                Event::Lost(missed) => {
                    first.get_or_insert(told);
                    lost += missed.count;
                }
                _ => {}
            }
            last = Some(event);
        }
        println!("{told} told, {lost} lost");
        assert!(lost > 0 && told > 0);
        assert_eq!(first, Some(0), "the loss is told where it was");
        assert_eq!(told + lost, summary.refused);
        assert_eq!(summary.rules.iter().map(|rule| rule.counted).sum::<u64>(), summary.refused);
        // Not lost for anybody else.
        // What came so fast that its sender was not found has a row of its own.
        let counted: u64 = summary.denials.iter().map(|denial| denial.count).sum();
        assert_eq!(counted, summary.refused - summary.lost);
        assert!(matches!(last.as_deref(), Some(Event::Summary(_))));
    });
}

#[test]
fn a_report_is_told_from_time_to_time_and_at_the_end() {
    in_world(|| async {
        let host = Host::open().unwrap();
        let told: Arc<Mutex<Vec<u64>>> = Arc::default();
        let keep = told.clone();
        let options = SandboxOptions {
            on_report: Some(Arc::new(move |summary| keep.lock().unwrap().push(summary.refused))),
            report_interval: Duration::from_millis(50),
            ..SandboxOptions::default()
        };
        let script = "for i in 1 2 3; do (echo x > /dev/udp/203.0.113.10/9); sleep 0.3; done";
        let (summary, _events) = run(&host, options, script).await;
        let told = told.lock().unwrap().clone();
        assert_eq!(summary.refused, 3);
        // Not while nothing new happens, and once more at the end.
        assert_eq!(told, [1, 2, 3, 3]);
    });
}

#[test]
fn what_nobody_is_left_to_read_is_counted() {
    in_world(|| async {
        let host = Host::open().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let told = directory.path().join("told");
        let script = format!(
            "refused() {{ (echo x > /dev/udp/203.0.113.10/9); }}; refused; \
             for ((i = 0; i < 6000; i++)); do [ -e {} ] && break; sleep 0.01; done; refused; refused",
            told.display()
        );
        let options = SandboxOptions {
            // The first time it is on the task that reads.
            on_report: Some(Arc::new(move |_| assert!(std::fs::File::create_new(&told).is_err(), "on purpose"))),
            report_interval: Duration::from_millis(10),
            ..SandboxOptions::default()
        };
        let (summary, _events) = run(&host, options, &script).await;
        assert_eq!((summary.refused, summary.lost), (3, 2), "{summary:?}");
    });
}

#[test]
fn several_subscribers_are_told_the_same_and_late_ones_what_comes() {
    in_world(|| async {
        let host = Host::open().unwrap();
        let sandbox = Sandbox::prepare(&host, Policy::default()).await.unwrap();
        let (one, two) = (sandbox.events(), sandbox.events());
        let mut running = sandbox
            .spawn(attempts("(echo x > /dev/udp/203.0.113.10/1); sleep 1; (echo x > /dev/udp/203.0.113.10/2)"))
            .await
            .unwrap();
        let mut one = one;
        // Before the command has ended: it is told as it happens.
        let first = one.next().await.unwrap();
        assert!(matches!(&*first, Event::Bypass(attempt) if attempt.dport == Some(1)), "{first:?}");
        let late = running.events();
        assert_eq!(running.summary().refused, 1);
        running.wait().await.unwrap();
        running.close().await.unwrap();
        let rest: Vec<_> = one.collect().await;
        let all: Vec<_> = two.collect().await;
        assert_eq!((rest.as_slice(), &first), (&all[1..], &all[0]));
        assert_eq!(late.collect::<Vec<_>>().await.as_slice(), rest.as_slice());
    });
}
