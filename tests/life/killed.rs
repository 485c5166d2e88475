//! SIGKILL of the supervisor, before, during and after set-up.

use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringfence::kernel::forwarding::Forwarding;

use crate::world::{World, text};

/// How often each kind of sandbox is killed.
const TIMES: u32 = 100;

/// Moments that nobody chose, and that a failure can name.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self(now.as_nanos() as u64 | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Kills `ringfence run ARGUMENTS -- sleep` again and again, and fails unless the host is as before each time.
fn killed_at_any_time(arguments: &str) {
    let Some(world) = World::new() else { return };
    let before = world.state();
    // How long it takes here until the command runs: half of the moments are to be before that.
    let start = std::time::Instant::now();
    let output = world.run(&format!("run {arguments} -- true"));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let whole = u64::try_from(start.elapsed().as_micros()).unwrap();
    world.nothing_left(&before, "by a sandbox that ended by itself");

    let mut random = Random::new();
    for time in 0..TIMES {
        // While it is set up, while it runs, and while it is taken down.
        let (micros, script) = match time % 4 {
            0 | 1 => (random.below(whole), "sleep 1000"),
            2 => (whole + random.below(3 * whole), "sleep 1000"),
            _ => (random.below(2 * whole), "true"),
        };
        let words = "run".split(' ').chain(arguments.split_whitespace()).chain(["--"]).chain(script.split(' '));
        let mut command = world.ringfence(words);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut supervisor = world.spawn(command);
        std::thread::sleep(Duration::from_micros(micros));
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
        world.nothing_left(
            &before,
            format_args!("by `run {arguments}`, killed after {micros} µs of {whole} with `{script}`"),
        );
    }
}

#[test]
fn plain() {
    killed_at_any_time("");
}

#[test]
fn with_the_proxy() {
    killed_at_any_time("--allow web.example");
}

#[test]
fn with_direct_endpoints() {
    killed_at_any_time("--direct 203.0.113.9:5432 --direct [2001:db8::9]:5432");
}

#[test]
fn with_a_name() {
    killed_at_any_time("--name killed");
}

#[test]
fn with_capabilities_that_need_a_guard() {
    killed_at_any_time("--keep-caps NET_ADMIN,NET_RAW");
}

#[test]
fn with_the_hosts_pids() {
    killed_at_any_time("--share-pid --direct 203.0.113.9:5432");
}

#[test]
fn with_the_hosts_pids_and_a_user_namespace() {
    killed_at_any_time("--share-pid --keep-caps NET_ADMIN,SYS_ADMIN");
}

#[test]
fn with_an_audit() {
    killed_at_any_time("--audit --name audited");
}

#[test]
fn with_names_that_lead_to_direct_endpoints() {
    killed_at_any_time("--name live --direct *.example.com:443,web.example:80");
}

#[test]
fn with_everything() {
    killed_at_any_time(
        "--name all --keep-caps NET_ADMIN --allow web.example --direct 203.0.113.9:5432,[2001:db8::9]:5432",
    );
}

/// The test above would pass if nothing were ever set up.
#[test]
fn what_is_looked_for_is_seen_while_it_is_there() {
    let Some(world) = World::new() else { return };
    let before = world.state();
    let arguments = "run --name seen --keep-caps NET_ADMIN --direct 203.0.113.9:5432,[2001:db8::9]:5432 -- sh -c";
    let mut command = world.ringfence(arguments.split(' '));
    command.arg("echo up; exec sleep 1000");
    let mut supervisor = world.spawn(command);
    let mut up = [0; 3];
    std::io::Read::read_exact(supervisor.stdout.as_mut().unwrap(), &mut up).unwrap();
    let during = world.state();
    assert_eq!(during.links.difference(&before.links).count(), 1);
    assert_eq!(during.tables.difference(&before.tables).count(), 1);
    assert!(during.names.contains(std::ffi::OsStr::new("seen")));
    let forwards = |name: &str| during.forwarding.iter().find(|(link, _)| link == name).unwrap().1;
    assert_eq!(forwards("up0"), Some(Forwarding { v4: true, v6: true }));
    // The supervisor, the reaper, the command, and guards.
    assert!(during.processes.len() >= 4, "{:?}", during.processes);
    assert_eq!(during.sysctls, before.sysctls, "the host became a router");
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    world.nothing_left(&before, "by a supervisor that was killed");
}
