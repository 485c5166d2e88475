//! Clients of the web.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::Server;
use crate::support::{GREETING, python, until};
use crate::world::{World, finish, good, oracle, text};

#[test]
fn curl_gets_the_page() {
    let (Some(_), Some(world)) = (oracle("curl"), World::new()) else { return };
    for (flags, url) in [
        ("--allow web.example", "http://web.example/"),
        ("--allow web.example:80", "http://web.example/"),
        ("--allow *.example", "http://six.example/"),
        ("--allow 203.0.113.9", "http://203.0.113.9/"),
        ("--allow 203.0.113.0/24", "http://203.0.113.10/"),
        ("--allow [2001:db8::9]:80", "http://[2001:db8::9]/"),
        ("--direct 203.0.113.9:80", "http://203.0.113.9/"),
        ("--direct web.example:80", "http://web.example/"),
        ("--direct six.example:80", "http://six.example/"),
        ("--direct [2001:db8::9]:80", "http://[2001:db8::9]/"),
        ("--allow web.example --direct 203.0.113.10:80", "http://203.0.113.10/"),
    ] {
        let output = world.run(&format!("run {flags} -- curl -sS --max-time 20 {url}"));
        assert_eq!(text(&output.stderr), "", "{flags} {url}");
        assert_eq!((text(&output.stdout).as_str(), output.status.code()), (GREETING, Some(0)), "{flags} {url}");
    }
    // A tunnel rather than a request.
    let output = world.run("run --allow web.example -- curl -sS --proxytunnel --max-time 20 http://web.example/");
    assert_eq!(good(output), GREETING);
}

#[test]
fn curl_is_refused_at_once() {
    let (Some(_), Some(world)) = (oracle("curl"), World::new()) else { return };
    for url in ["http://203.0.113.10/", "http://[2001:db8::a]/", "http://198.51.100.1:22/", "http://203.0.113.9:5432/"]
    {
        let mut command =
            world.ringfence("run --allow web.example --direct 203.0.113.9:80 -- curl -sS --noproxy".split(' '));
        command.args(["*", "--max-time", "20", "-w", "%{time_total}", url]);
        let output = world.output(command);
        // Curl's own status for "failed to connect".
        assert_eq!(output.status.code(), Some(7), "{url}: {}", text(&output.stderr));
        let took: f64 = text(&output.stdout).parse().unwrap();
        assert!(took < 0.5, "{url}: {took} s");
    }
    // By the proxy, with a status that curl makes 22 of.
    let output = world.run("run --allow web.example -- curl -sS --fail --max-time 20 http://203.0.113.10/");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(22), 0), "{}", text(&output.stderr));
    // And by nobody at all, for there is no proxy.
    let output = world.run("run -- curl -sS --max-time 20 http://web.example/");
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
}

#[test]
fn python_fetches_through_the_proxy() {
    let (Some(python), Some(world)) = (python(), World::new()) else { return };
    let script = "import sys, urllib.request, urllib.error\n\
        print(urllib.request.urlopen('http://web.example/', timeout=20).read().decode(), end='')\n\
        try: urllib.request.urlopen('http://203.0.113.10/', timeout=20)\n\
        except urllib.error.HTTPError as error: print(error.code)\n";
    let mut command = world.ringfence(["run", "-q", "--allow", "web.example", "--", python, "-I", "-c"]);
    command.arg(script);
    assert_eq!(good(world.output(command)), format!("{GREETING}403\n"));
}

#[test]
fn git_clones() {
    let (Some(_), Some(world)) = (oracle("git"), World::new()) else { return };
    // Served as plain files: this needs no program on the other side.
    let script = "cd \"$HOME\" && export GIT_CONFIG_NOSYSTEM=1 && git init -q -b main work && cd work && \
        head -c 100000 /dev/urandom > blob && git add blob && \
        git -c user.name=a -c user.email=a@example commit -q -m first && \
        git clone -q --bare . ../repository.git && git -C ../repository.git update-server-info";
    let mut prepare = world.program("sh");
    prepare.args(["-c", script]);
    good(world.output(prepare));
    world.web(world.directory());
    for (number, (flags, host)) in [
        ("--allow web.example:8080", "web.example"),
        ("--direct 203.0.113.9:8080", "203.0.113.9"),
        ("--direct [2001:db8::9]:8080", "[2001:db8::9]"),
    ]
    .into_iter()
    .enumerate()
    {
        let copy = world.directory().join(format!("clone{number}"));
        let mut command =
            world.ringfence("run -q".split(' ').chain(flags.split(' ')).chain(["--", "git", "clone", "-q"]));
        command.arg(format!("http://{host}:8080/repository.git")).arg(&copy);
        good(world.output(command));
        let blob = |at: &std::path::Path| std::fs::read(at.join("blob")).unwrap();
        assert_eq!(blob(&copy), blob(&world.directory().join("work")));
    }
}

#[test]
fn a_web_socket_passes_through_connect() {
    let (Some(python), Some(world)) = (python(), World::new()) else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/websocket.py");
    let mut server = Command::new(python);
    server.args(["-I", script, "serve", "203.0.113.9", "9000"]);
    let _server = Server::start(|command| world.spawn_there(command), server);
    until("the server listens", || {
        world.outer.internet.run(|| std::net::TcpStream::connect("203.0.113.9:9000").is_ok()).unwrap()
    });
    let command = world.ringfence([
        "run",
        "--allow",
        "web.example:9000",
        "--",
        python,
        "-I",
        script,
        "ask",
        "web.example",
        "9000",
    ]);
    let start = Instant::now();
    assert_eq!(good(finish(world.spawn(command))), "echo: first\necho: second\nclosed\n");
    assert!(start.elapsed() < Duration::from_secs(10));
}
