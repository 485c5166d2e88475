//! Several supervisors at once on one host.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Stdio};

use ringfence::kernel::forwarding::Forwarding;

use crate::support::until;
use crate::world::{State, World, finish, good};

const CROWD: usize = 8;

#[test]
fn all_that_start_at_the_same_moment_work() {
    let Some(world) = World::new() else { return };
    let before = world.state();
    let start = |number: usize| {
        let flags = ["", "--allow web.example", "--direct 203.0.113.9:5432", "--keep-caps NET_RAW"][number % 4];
        let mut command = world.ringfence("run".split(' ').chain(flags.split_whitespace()));
        // Stays until it is told to end, for an address is free again when its sandbox has gone.
        command.args(["--", "sh", "-c", "cat /proc/net/fib_trie; read end; exit 0"]).stdin(Stdio::piped());
        world.spawn(command)
    };
    let mut running: Vec<Child> = (0..CROWD).map(start).collect();
    // The route to a sandbox is its claim on the address.
    let claims = |state: &crate::world::State| {
        let claim = |route: &&String| route.contains("destination: 10.200.") && route.contains("Unicast");
        state.routes.iter().filter(claim).count()
    };
    until("all of them stand", || claims(&world.state()) == CROWD);
    running.iter_mut().for_each(|child| drop(child.stdin.take()));
    let mut addresses = std::collections::BTreeSet::new();
    for child in running {
        let table = good(finish(child));
        let own = table.lines().filter(|line| line.trim_start().starts_with("|-- 10.200."));
        addresses.extend(own.map(|line| line.trim().to_owned()));
    }
    assert_eq!(addresses.len(), CROWD, "{addresses:?}");
    world.nothing_left(&before, "by a crowd");
}

/// A fenced shell that asks the echo server whenever it is told to.
struct Asking {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Asking {
    fn start(world: &World) -> Self {
        let mut command = world.ringfence("run --direct 203.0.113.9:5432,[2001:db8::9]:5432 -- bash -c".split(' '));
        command.stdin(Stdio::piped());
        command.arg(
            "while read -r word; do for to in 203.0.113.9 2001:db8::9; do \
               exec 3<>/dev/tcp/$to/5432 || exit 1; echo \"$word from $to\" >&3; head -n 1 <&3; exec 3>&-; \
             done; done",
        );
        let mut child = world.spawn(command);
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, answers }
    }

    fn ask(&mut self, word: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{word}").unwrap();
        for to in ["203.0.113.9", "2001:db8::9"] {
            let mut line = String::new();
            self.answers.read_line(&mut line).unwrap();
            if line.is_empty() {
                let mut why = String::new();
                let _ = std::io::Read::read_to_string(self.child.stderr.as_mut().unwrap(), &mut why);
                panic!("no answer to {word}: {why}");
            }
            assert_eq!(line, format!("{word} from {to}\n"));
        }
    }
}

fn uplink(state: &State) -> Option<Forwarding> {
    state.forwarding.iter().find(|(name, _)| name == "up0").unwrap().1
}

#[test]
fn an_uplink_forwards_until_the_last_of_them_is_gone() {
    let Some(world) = World::new() else { return };
    let before = world.state();
    assert_eq!(uplink(&before), Some(Forwarding::default()));
    let mut crowd: Vec<Asking> = (0..CROWD).map(|_| Asking::start(&world)).collect();
    crowd.iter_mut().for_each(|one| one.ask("first"));
    // The first to come is killed, then it is one's turn to end by itself, and so on.
    for turn in 0..CROWD {
        let mut gone = crowd.remove(0);
        if turn % 2 == 0 {
            gone.child.kill().unwrap();
            gone.child.wait().unwrap();
        } else {
            drop(gone.child.stdin.take());
            good(finish(gone.child));
        }
        crowd.iter_mut().for_each(|one| one.ask("again"));
        if !crowd.is_empty() {
            // The guard of the one that was killed is done in a moment, and must not have been too thorough.
            std::thread::sleep(std::time::Duration::from_millis(100));
            crowd.iter_mut().for_each(|one| one.ask("later"));
            assert_eq!(uplink(&world.state()), Some(Forwarding { v4: true, v6: true }));
        }
    }
    world.nothing_left(&before, "by a crowd of which half was killed");
}

#[test]
fn a_crowd_that_is_killed_at_once_leaves_nothing() {
    let Some(world) = World::new() else { return };
    let before = world.state();
    let mut crowd: Vec<Asking> = (0..CROWD).map(|_| Asking::start(&world)).collect();
    // Half of them at work, the others wherever they are.
    crowd.iter_mut().take(CROWD / 2).for_each(|one| one.ask("up"));
    crowd.iter_mut().for_each(|one| one.child.kill().unwrap());
    crowd.iter_mut().for_each(|one| assert!(!one.child.wait().unwrap().success()));
    world.nothing_left(&before, "by a crowd that was killed at once");
}

#[test]
fn of_many_that_want_one_name_one_gets_it() {
    let Some(world) = World::new() else { return };
    let before = world.state();
    let start = |_| {
        let mut command = world.ringfence("run --name wanted -- sh -c".split(' '));
        command.arg("read end; exit 0").stdin(Stdio::piped());
        world.spawn(command)
    };
    let mut crowd: Vec<Child> = (0..CROWD).map(start).collect();
    // All but one end without being told to.
    until("all but one are refused", || {
        crowd.iter_mut().filter_map(|child| child.try_wait().unwrap()).filter(|end| end.code() == Some(125)).count()
            == CROWD - 1
    });
    assert!(world.state().names.contains(std::ffi::OsStr::new("wanted")), "who lost took the name along");
    crowd.iter_mut().for_each(|child| drop(child.stdin.take()));
    assert_eq!(crowd.into_iter().map(finish).filter(|output| output.status.success()).count(), 1);
    world.nothing_left(&before, "by many of one name");
}
