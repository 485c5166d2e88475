//! Programs, run in the namespace of the calling thread, and threads that each have a namespace of their own.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ringfence::kernel::netns::Netns;

/// Runs nft(8) to its end and gives what it prints, or what it complains of.
pub fn nft(arguments: &[&str], input: Option<&str>) -> Result<String, String> {
    run(Command::new("nft").args(arguments), input.map(str::as_bytes))
}

/// Loads a script.
pub fn load(script: &str) -> Result<(), String> {
    nft(&["-f", "-"], Some(script)).map(|_| ())
}

/// Runs a program to its end.
pub fn run(command: &mut Command, input: Option<&[u8]>) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
    thread::scope(|scope| {
        let stdin = child.stdin.take();
        scope.spawn(move || {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                // Who stops reading says why by its status.
                let _ = stdin.write_all(input);
            }
        });
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
        }
    })
}

/// Runs `work` in a new namespace with these links in it.
pub fn in_namespace<T: Send>(links: &[&str], work: impl FnOnce() -> T + Send) -> T {
    let machine = Netns::current().expect("the machine's namespace");
    let (netns, result) = Netns::create_with(|| {
        // The promise of these tests: nothing here is done to the machine's own network.
        let here = Netns::current().expect("a namespace of its own");
        assert!(!here.same_as(&machine).unwrap());
        for (at, link) in links.iter().enumerate() {
            // Two ends, because that is the one kind of link that every kernel with namespaces has.
            let peer = format!("peer{at}");
            let mut ip = Command::new("ip");
            run(ip.args(["link", "add", link, "type", "veth", "peer", "name", &peer]), None).expect("a link");
        }
        work()
    })
    .expect("a network namespace");
    drop(netns);
    result
}

/// The links that a script asks for in its first line.
pub fn links(script: &str) -> Vec<&str> {
    let first = script.lines().next().unwrap_or_default();
    first.strip_prefix("# links: ").map(|links| links.split_whitespace().collect()).unwrap_or_default()
}

/// Does work on every item, on as many threads as there are processors and two more: nft(8) waits for the kernel now and then.
pub fn in_parallel<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = thread::available_parallelism().map_or(2, usize::from) + 2;
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { break };
                    let result = work(item);
                    results.lock().unwrap().push((at, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}
