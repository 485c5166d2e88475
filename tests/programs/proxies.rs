//! Proxies of others, and what a command learns of its own.

use std::process::Command;

use crate::Server;
use crate::support::{GREETING, until};
use crate::world::{World, good, oracle, text};

fn tinyproxy(world: &World, listen: &str, port: u16, more: &str) -> Option<Command> {
    oracle("tinyproxy")?;
    let file = world.directory().join(format!("tinyproxy{port}.conf"));
    let text =
        format!("Port {port}\nListen {listen}\nTimeout 20\nMaxClients 20\nAllow 0.0.0.0/0\nLogLevel Error\n{more}");
    std::fs::write(&file, text).unwrap();
    let mut command = world.program("tinyproxy");
    command.args(["-d", "-c"]).arg(file);
    Some(command)
}

#[test]
fn an_upstream_proxy_on_the_hosts_loopback_is_reached() {
    let (Some(_), Some(world)) = (oracle("curl"), World::new()) else { return };
    let Some(open) = tinyproxy(&world, "127.0.0.1", 8081, "") else { return };
    let Some(closed) = tinyproxy(&world, "127.0.0.1", 8082, "BasicAuth alice s3cr3t\n") else { return };
    let _servers = [open, closed].map(|command| Server::start(|command| world.spawn(command), command));
    for port in [8081, 8082] {
        until("the proxy listens", || {
            world.outer.host.run(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).unwrap()
        });
    }
    let curl = "-- curl -sS --fail --max-time 20";
    for flags in
        ["--proxy http://127.0.0.1:8081", "--proxy 127.0.0.1:8081", "--proxy http://alice:s3cr3t@127.0.0.1:8082"]
    {
        assert_eq!(good(world.run(&format!("run {flags} {curl} http://web.example/"))), GREETING);
        assert_eq!(good(world.run(&format!("run {flags} {curl} http://203.0.113.10/"))), GREETING);
        assert_eq!(good(world.run(&format!("run {flags} {curl} --proxytunnel http://web.example/"))), GREETING);
        // Our own list is asked first, where there is one.
        let listed = format!("run {flags} --allow web.example");
        assert_eq!(good(world.run(&format!("{listed} {curl} http://web.example/"))), GREETING);
        assert_eq!(world.run(&format!("{listed} {curl} http://203.0.113.10/")).status.code(), Some(22));
        // Past it there is no way.
        assert_eq!(world.run(&format!("run {flags} {curl} --noproxy * http://203.0.113.9/")).status.code(), Some(7));
    }
    let wrong = ["--proxy http://127.0.0.1:8082", "--proxy http://alice:wrong@127.0.0.1:8082"];
    for flags in wrong {
        let output = world.run(&format!("run {flags} {curl} http://web.example/"));
        assert_eq!(output.status.code(), Some(22), "{}{}", text(&output.stdout), text(&output.stderr));
    }
    // The password is the supervisor's to keep.
    let environment = good(world.run("run --proxy http://alice:s3cr3t@127.0.0.1:8082 -- env"));
    assert!(environment.contains("\nhttp_proxy=http://127.0.0.1:"), "{environment}");
    assert!(!environment.contains("s3cr3t") && !environment.contains("alice"), "{environment}");
}

#[test]
fn a_proxy_at_an_address_is_reached_by_the_sandbox_itself() {
    let (Some(_), Some(world)) = (oracle("curl"), World::new()) else { return };
    let Some(there) = tinyproxy(&world, "203.0.113.9", 3128, "") else { return };
    let _server = Server::start(|command| world.spawn_there(command), there);
    until("the proxy listens", || {
        world.outer.internet.run(|| std::net::TcpStream::connect("203.0.113.9:3128").is_ok()).unwrap()
    });
    let curl = "-- curl -sS --fail --max-time 20";
    assert_eq!(good(world.run(&format!("run --proxy-at 203.0.113.9:3128 {curl} http://203.0.113.10/"))), GREETING);
    let past = world.run(&format!("run --proxy-at 203.0.113.9:3128 {curl} --noproxy * http://203.0.113.9/"));
    assert_eq!(past.status.code(), Some(7));
    // On the host itself, at an address that is not its loopback.
    let Some(here) = tinyproxy(&world, "198.51.100.1", 3129, "") else { return };
    let _server = Server::start(|command| world.spawn(command), here);
    until("the proxy listens", || {
        world.outer.host.run(|| std::net::TcpStream::connect("198.51.100.1:3129").is_ok()).unwrap()
    });
    assert_eq!(good(world.run(&format!("run --proxy-at 198.51.100.1:3129 {curl} http://web.example/"))), GREETING);
}

#[test]
fn a_command_learns_of_its_proxy_and_of_no_other() {
    let Some(world) = World::new() else { return };
    let environment = |arguments: &str, set: &[(&str, &str)]| {
        let mut command = world.ringfence("run".split(' ').chain(arguments.split_whitespace()).chain(["--", "env"]));
        command.envs(set.iter().copied());
        good(world.output(command))
    };
    let users = [
        ("HTTP_PROXY", "http://10.0.0.1:8080"),
        ("https_proxy", "http://10.0.0.1:8080"),
        ("ALL_PROXY", "socks5://10.0.0.1"),
    ];
    let none = environment("", &users);
    assert!(!none.to_ascii_lowercase().contains("_proxy="), "{none}");
    let ours = environment("--allow web.example", &users);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        assert!(ours.lines().any(|line| line == format!("{name}=http://127.0.0.1:3128")), "{name}: {ours}");
    }
    assert!(ours.contains("NODE_USE_ENV_PROXY=1\n") && !ours.contains("10.0.0.1"), "{ours}");
    let merged = "NO_PROXY=localhost,127.0.0.1,::1,203.0.113.9,.corp.example,10.1.2.3\n";
    let direct = "--allow web.example --direct 203.0.113.9:22";
    for name in ["NO_PROXY", "no_proxy"] {
        let shown = environment(direct, &[(name, ".corp.example, 10.1.2.3")]);
        assert!(shown.contains(merged) && shown.contains(&merged.replace("NO_PROXY", "no_proxy")), "{shown}");
    }
    // Said for the command, in whatever case: both spellings have all of it, and there is no third.
    for name in ["NO_PROXY", "no_proxy", "No_Proxy"] {
        let own = format!("{direct} --env {name}=.corp.example,10.1.2.3 --env MINE=x=y");
        let shown = environment(&own, &[("NO_PROXY", "the.callers.example")]);
        let mut found: Vec<_> =
            shown.lines().filter(|line| line.to_ascii_lowercase().starts_with("no_proxy=")).collect();
        found.sort_unstable();
        assert_eq!(found, [merged.trim_end(), &merged.trim_end().replace("NO_PROXY", "no_proxy")], "{name}");
        assert!(shown.contains("MINE=x=y\n"), "{shown}");
        // Without a proxy it is a variable like any other.
        let alone = environment(&format!("--direct 203.0.113.9:22 --env {name}=a"), &[]);
        assert!(alone.lines().any(|line| line == format!("{name}=a")), "{alone}");
    }
    let emptied = environment(&format!("{direct} --env no_proxy="), &[("NO_PROXY", "the.callers.example")]);
    let merged = "NO_PROXY=localhost,127.0.0.1,::1,203.0.113.9\n";
    assert!(emptied.contains(merged) && emptied.contains(&merged.replace("NO_PROXY", "no_proxy")), "{emptied}");
}
