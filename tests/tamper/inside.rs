//! The rules inside: changed by root of the host, who enters the sandbox's network, or by a program that may.

use std::time::Instant;

use ringfence::kernel::nftables::{Change, Monitor, Socket};
use ringfence::nft::{Family, Object, TableId, TableName, Transaction, Verb};
use ringfence::policy::Policy;
use ringfence::{Command, Host, Sandbox};

use super::{Fenced, same, world};
use crate::support::until;
use crate::world::{GAGS, RINGFENCE, World, good, oracle, text};

/// What can be done to the rules, and what is told of it. No more of it in one sandbox than is mended without an end.
const HARMS: [&[(&str, &str)]; 3] = [
    &[
        ("delete table inet ringfence", "delete table inet ringfence"),
        ("flush ruleset", "delete table"),
        ("delete rule inet ringfence output handle HANDLE", "delete rule inet ringfence output handle"),
        ("insert rule inet ringfence output accept", "add rule inet ringfence output handle"),
        ("insert rule inet ringfence output ip6 daddr 2001:db8::a accept", "add rule inet ringfence output handle"),
        ("rename chain inet ringfence refuse elsewhere", "add chain inet ringfence elsewhere"),
        ("flush chain inet ringfence refuse", "delete rule inet ringfence refuse handle"),
    ],
    &[
        (
            "add element inet ringfence direct4 { 203.0.113.10 . tcp . 5432 }",
            "add 1 element of set inet ringfence direct4",
        ),
        (
            "add element inet ringfence direct6 { 2001:db8::a . tcp . 5432 }",
            "add 1 element of set inet ringfence direct6",
        ),
        (
            "delete element inet ringfence direct4 { 203.0.113.9 . tcp . 5432 }",
            "delete 1 element of set inet ringfence direct4",
        ),
        ("flush set inet ringfence direct6", "delete 1 element of set inet ringfence direct6"),
        ("add table inet ringfence { flags dormant; }", "add table inet ringfence"),
        ("add chain inet ringfence output { policy accept; }", "add chain inet ringfence output"),
        ("add chain inet ringfence theirs", "add chain inet ringfence theirs"),
    ],
    &[
        ("delete table netdev ringfence", "delete table netdev ringfence"),
        ("flush chain netdev ringfence egress", "delete rule netdev ringfence egress handle"),
        ("insert rule netdev ringfence egress accept", "add rule netdev ringfence egress handle"),
        ("add set inet ringfence theirs { type ipv4_addr; }", "add set inet ringfence theirs"),
        ("add counter inet ringfence theirs", "add counter inet ringfence theirs"),
    ],
];

#[test]
fn what_others_do_is_told_and_mended() {
    let Some(world) = world() else { return };
    for (round, harms) in HARMS.into_iter().enumerate() {
        let fenced = Fenced::start(&world, &format!("mended{round}"), "");
        let before = fenced.rules();
        for (index, (harm, told)) in harms.iter().enumerate() {
            let now = fenced.rules();
            assert!(same(&now, &before), "before {harm}");
            let handle = now.rules.iter().rfind(|rule| rule.chain.as_str() == "output").unwrap().handle.unwrap();
            good(fenced.nft(&harm.replace("HANDLE", &handle.0.to_string())));
            let all = fenced.told_of(index + 1);
            let event = &all[index];
            assert_eq!(
                (&event["schema"], &event["sandbox"]),
                (&1.into(), &format!("mended{round}").into()),
                "{harm}: {event}"
            );
            assert_eq!((&event["side"], &event["action"]), (&"inside".into(), &"mended".into()), "{harm}: {event}");
            assert_eq!(event["process"]["comm"], "nft", "{harm}: {event}");
            let changes: Vec<&str> =
                event["changes"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
            assert!(changes.iter().any(|change| change.starts_with(told)), "{harm}: {event}");
            // It is told when it is done.
            assert!(same(&fenced.rules(), &before), "{harm} was not mended");
        }
        assert!(fenced.reaches("203.0.113.9:5432") && fenced.reaches("[2001:db8::9]:5432"));
        assert!(!fenced.reaches("203.0.113.10:5432") && !fenced.reaches("[2001:db8::a]:5432"));
        let (status, said) = fenced.end();
        // `read` at the end of its input.
        assert_eq!(status, Some(1), "{said}");
        let mended = said.lines().filter(|line| line.contains("they are what they were again")).count();
        assert_eq!(mended, harms.len(), "{said}");
        assert!(
            said.contains(&format!("somebody else changed the rules of the fence {} times", harms.len())),
            "{said}"
        );
    }
}

#[test]
fn with_the_rules_inside_gone_the_hosts_side_lets_out_no_more() {
    let Some(world) = world() else { return };
    let fenced = Fenced::start(&world, "told", "--tampering report");
    let wire = world.outer.watch();
    good(fenced.nft("flush ruleset"));
    let told = fenced.told_of(1);
    assert_eq!((&told[0]["action"], told[0].get("reason")), (&"reported".into(), None));
    assert!(fenced.rules().tables.is_empty());
    // A4 of the specification, and nothing else: not the host, not another address, not another port.
    assert!(fenced.reaches("203.0.113.9:5432") && fenced.reaches("[2001:db8::9]:5432"));
    for refused in ["203.0.113.10:5432", "[2001:db8::a]:5432", "203.0.113.9:80", "[2001:db8::9]:80", "198.51.100.1:80"]
    {
        let start = Instant::now();
        assert!(!fenced.reaches(refused), "{refused}");
        println!("{refused}: refused by the host after {:?}", start.elapsed());
    }
    let (status, said) = fenced.end();
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("changed the rules inside: delete"), "{said}");
    let ports = || -> Vec<u16> { wire.frames().iter().filter_map(|frame| frame.port()).collect() };
    until("what was let out is seen", || ports().contains(&5432));
    assert!(!ports().contains(&80), "{:?}", ports());
}

/// Chains without number, and elements that lead to them and have run out: until the next commit the kernel counts their jumps, and tells of none.
#[test]
fn what_can_not_be_read_in_whole_is_mended_all_the_same() {
    let Some(world) = world() else { return };
    let chains = 120;
    let mut script = String::from("flush chain inet ringfence output\n");
    (0..chains).for_each(|chain| script += &format!("add chain inet ringfence k{chain}\n"));
    script += "add map inet ringfence zz { type ipv4_addr : verdict; flags interval, timeout; }\n";
    let elements = (0..chains).map(|n| format!("198.51.100.{} timeout 1ms : jump k{n}", n * 2));
    script += &format!("add element inet ringfence zz {{ {} }}\n", elements.collect::<Vec<_>>().join(", "));
    let path = world.directory().join("harm.nft");
    std::fs::write(&path, script).unwrap();
    let harm = format!("-f {}", path.display());

    let fenced = Fenced::start(&world, "filled", "");
    let before = fenced.rules();
    good(fenced.nft(&harm));
    fenced.told_of(1);
    assert!(same(&fenced.rules(), &before));
    let (status, said) = fenced.end();
    assert_eq!(status, Some(1), "{said}");

    // What the rules counted is read at the end, with those things there.
    let fenced = Fenced::start(&world, "filled-up", "--tampering report --keep-caps NET_ADMIN --user 0:0");
    good(fenced.nft(&harm));
    fenced.told_of(1);
    let (status, said) = fenced.end();
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("rules inside are not those that were made"), "{said}");
}

/// How long it takes, for the documentation: no test of a time.
#[test]
fn how_soon() {
    let Some(world) = world() else { return };
    let fenced = Fenced::start(&world, "soon", "");
    let before = fenced.rules();
    let (mut monitor, mut socket) = fenced.netns.run(|| (Monitor::open().unwrap(), Socket::open().unwrap())).unwrap();
    let mut harm = Transaction::new();
    harm.push(Verb::Delete, Object::Table(before.tables[0].clone()));
    let mut took = Vec::new();
    for round in 1..=9 {
        // Where it is quiet, as it is when it matters how soon.
        std::thread::sleep(std::time::Duration::from_millis(300));
        let start = Instant::now();
        socket.commit(&harm).unwrap();
        until("it was mended", || {
            let change = monitor.next(Some(std::time::Duration::from_secs(20))).unwrap();
            matches!(change, Some(Change::Committed { port, .. }) if port != socket.port())
        });
        took.push(start.elapsed());
        fenced.told_of(round);
        assert!(same(&fenced.rules(), &before));
    }
    took.sort();
    println!("mended after {:?} at best, {:?} in the median, {:?} at worst", took[0], took[4], took[8]);
    assert_eq!(fenced.end().0, Some(1));
}

#[test]
fn with_end_the_sandbox_ends_and_says_why() {
    let Some(world) = world() else { return };
    let before = world.state();
    for flags in ["--tampering end", "--tampering end --share-pid"] {
        let fenced = Fenced::start(&world, "ended", flags);
        let start = Instant::now();
        good(fenced.nft("insert rule inet ringfence output accept"));
        let output = crate::world::finish(fenced.child);
        println!("{flags}: ended after {:?}", start.elapsed());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(said.contains("ringfence: the sandbox was ended: `nft` (process "), "{said}");
        assert!(said.contains("changed the rules inside: add rule inet ringfence output"), "{said}");
        let events = std::fs::read_to_string(&fenced.events).unwrap();
        let last: serde_json::Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
        assert_eq!((&last["event"], &last["tampered"]), (&"summary".into(), &1.into()), "{events}");
        assert!(events.contains(r#""side":"inside","action":"ended""#), "{events}");
        std::fs::remove_file(&fenced.events).unwrap();
    }
    world.nothing_left(&before, "by a sandbox that was ended");
}

#[test]
fn a_program_that_may_write_rules_is_mended_behind_and_in_the_end_ended() {
    let Some(world) = world() else { return };
    let flags = "--keep-caps NET_ADMIN --user 0:0";
    // What many programs do that bring rules of their own, and mean nothing by it.
    let script = "nft flush ruleset && nft add table ip own && echo up; read line; nft list tables >/dev/null";
    let fenced = Fenced::running(&world, "own", flags, script);
    let told = fenced.told_of(1);
    assert_eq!(told[0]["process"]["comm"], "nft", "{told:?}");
    let own = TableId { family: Family::Ip, name: TableName::new("own").unwrap() };
    assert!(fenced.rules().tables.iter().any(|table| table.id == own), "its own table was touched");
    assert_eq!(fenced.rules().tables.len(), 3);
    assert_eq!(fenced.end().0, Some(0));

    // The last thing that it does, in the pause after the first.
    let script = "echo up; read line; nft insert rule inet ringfence output accept; nft flush ruleset";
    let fenced = Fenced::running(&world, "last", flags, script);
    let events = fenced.events.clone();
    assert_eq!(fenced.end().0, Some(0));
    let events = std::fs::read_to_string(events).unwrap();
    assert!(events.contains("delete table inet ringfence"), "{events}");

    let script = "echo up; while :; do nft flush ruleset; done";
    let fenced = Fenced::running(&world, "war", flags, script);
    let events = fenced.events.clone();
    let output = crate::world::finish(fenced.child);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("they were mended 10 times within 10 s already"), "{said}");
    let events = std::fs::read_to_string(events).unwrap();
    assert!(events.matches(r#""action":"mended""#).count() >= 10, "{events}");

    // Whoever takes the table for himself can't be mended behind.
    let script = "echo up; (echo 'delete table inet ringfence; add table inet ringfence { flags owner; }'; sleep 60) | nft -i >/dev/null";
    let fenced = Fenced::running(&world, "taken", flags, script);
    let output = crate::world::finish(fenced.child);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("they can't be mended"), "{said}");
}

#[test]
fn by_whatever_way_it_is_said() {
    let Some(world) = World::new() else { return };
    let plan = |arguments: &str| good(world.run(&format!("plan {arguments}")));
    assert!(plan("").contains("rules changed by others\n  mend  (default)"), "{}", plan(""));
    assert!(plan("--tampering end").contains("rules changed by others\n  end  (--tampering)"));
    let file = world.directory().join("policy.toml");
    std::fs::write(&file, "tampering = 'report'\n").unwrap();
    assert!(plan(&format!("--policy {}", file.display())).contains("\n  report  ("));
    let mut command = world.ringfence(["plan"]);
    command.env("RINGFENCE_TAMPERING", "end");
    assert!(good(world.output(command)).contains("\n  end  (RINGFENCE_TAMPERING)"));
    let output = world.run("plan --tampering never");
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("--tampering: `never` is not `report`, `mend` or `end`"));
}

#[test]
fn what_the_fence_does_itself_is_no_tampering() {
    let Some(world) = world() else { return };
    let fenced = Fenced::start(&world, "first", "--tampering end");
    let mut monitor = fenced.netns.run(|| Monitor::open().unwrap()).unwrap();
    for round in 0..5 {
        // Another sandbox of the same host, by another process, comes and goes.
        let second = Fenced::start(&world, "second", "--tampering end");
        good(world.run(&format!("policy allow first --direct 203.0.113.{}:9", 20 + round)));
        good(world.run(&format!("policy allow first --direct [2001:db8::{round}]:9")));
        good(world.run(&format!("policy revoke first --direct 203.0.113.{}:9", 20 + round)));
        assert!(second.told().is_empty());
        assert_eq!(second.end().0, Some(1));
        std::fs::remove_file(world.directory().join("second.json")).unwrap();
    }
    let mut heard = 0;
    while let Some(change) = monitor.next(Some(std::time::Duration::ZERO)).unwrap() {
        assert!(matches!(change, Change::Committed { .. }), "{change:?}");
        heard += 1;
    }
    assert_eq!(heard, 15, "the fence inside was not changed as often as it should have been");
    // The next one would have come after them.
    good(fenced.nft("add table ip elsewhere"));
    let ours = fenced.rules();
    assert_eq!(fenced.told().len(), 0);
    // And what was allowed stays so when it is mended.
    good(world.run("policy set --tampering mend --direct 203.0.113.9:5432,203.0.113.77:9 first"));
    let want = fenced.rules();
    assert!(!same(&want, &ours));
    good(fenced.nft("delete table inet ringfence"));
    fenced.told_of(1);
    assert!(same(&fenced.rules(), &want));
    until("its table is there", || fenced.netns.run(|| Socket::open().unwrap().tables().unwrap().len()).unwrap() == 3);
    let (status, said) = fenced.end();
    assert_eq!(status, Some(1), "{said}");
}

/// Tampers with standard error full.
const TAMPERS: &str = "
import subprocess, sys, time
def nft(*words):
    return subprocess.run(['nft', *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
print('up', flush=True)
for _ in range(3):
    nft('flush', 'ruleset')
    give_up = time.monotonic() + 60
    while nft('list', 'ruleset') == b'':
        if time.monotonic() > give_up: sys.exit('they stay away')
        time.sleep(0.01)
";

#[test]
fn a_program_that_gags_standard_error_does_not_get_away_with_it() {
    let Some(world) = world() else { return };
    let Some(python) = oracle("python3") else { return };
    let file = world.directory().join("gags.py");
    std::fs::write(&file, [GAGS, TAMPERS].concat()).unwrap();
    let script = format!("exec {} -I {}", python.display(), file.display());
    for (how, status, action) in [("end", 125, "ended"), ("mend", 0, "mended")] {
        let flags = format!("--keep-caps NET_ADMIN -v --tampering {how}");
        let mut fenced = Fenced::running(&world, how, &flags, &script);
        // Nobody reads what is said before all of it is over.
        until("it is over", || fenced.child.try_wait().unwrap().is_some());
        let events = std::fs::read_to_string(&fenced.events).unwrap();
        let (ended, said) = fenced.end();
        assert_eq!(ended, Some(status), "{events}{said}");
        let told = events.matches(&format!(r#""action":"{action}""#)).count();
        assert_eq!(told, if how == "end" { 1 } else { 3 }, "{events}{said}");
    }
}

/// Runs what its arguments are on a terminal that nobody reads, and says how it ended.
const TERMINAL: &str = "
import os, pty, sys
pid, fd = pty.fork()
if pid == 0: os.execv(sys.argv[1], sys.argv[1:])
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

#[test]
fn a_stopped_terminal_stops_nobody() {
    let Some(world) = world() else { return };
    let Some(python) = oracle("python3") else { return };
    let stops = "import subprocess, termios, time; termios.tcflow(2, termios.TCOOFF); \
                 subprocess.run(['nft', 'flush', 'ruleset']); time.sleep(600)";
    let mut command = world.program(&python);
    command.args([
        "-I",
        "-c",
        TERMINAL,
        RINGFENCE,
        "run",
        "-v",
        "--keep-caps",
        "NET_ADMIN",
        "--tampering",
        "end",
        "--",
    ]);
    command.arg(&python).args(["-I", "-c", stops]);
    assert_eq!(good(world.output(command)), "125\n");
}

/// The program that a sandbox is part of has whatever panics when it is told something.
#[test]
fn whoever_panics_when_told_keeps_nothing_from_being_mended() {
    let Some(world) = world() else { return };
    let panics = || -> std::io::Sink { panic!("on purpose") };
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(panics).try_init().unwrap();
    let ended = world.outer.host.run(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let sandbox = Sandbox::prepare(&Host::open().unwrap(), Policy::default()).await.unwrap();
            let running = sandbox.spawn(Command::new("sleep").args(["600"])).await.unwrap();
            let mut socket = running.netns().run(Socket::open).unwrap().unwrap();
            let made = socket.ruleset().unwrap();
            for _ in 0..3 {
                let mut harm = Transaction::new();
                made.tables.iter().for_each(|table| harm.push(Verb::Delete, Object::Table(table.clone())));
                socket.commit(&harm).unwrap();
                until("the rules are mended", || same(&socket.ruleset().unwrap(), &made));
            }
            running.summary().tampered
        })
    });
    assert!(ended.unwrap() > 0, "nobody was told");
}
