//! Databases, past every proxy, over IPv4 and IPv6.

use std::path::PathBuf;

use crate::Server;
use crate::support::until;
use crate::world::{World, good, oracle, set_mode, text};

const ADDRESSES: [(&str, &str); 2] = [("203.0.113.9", "203.0.113.9"), ("2001:db8::9", "[2001:db8::9]")];

fn listens(world: &World, port: u16) {
    for (_, host) in ADDRESSES {
        let to = format!("{host}:{port}");
        until("the server listens", || world.outer.internet.run(|| std::net::TcpStream::connect(&to).is_ok()).unwrap());
    }
}

#[test]
fn redis_answers() {
    let (Some(_), Some(_), Some(world)) = (oracle("redis-server"), oracle("redis-cli"), World::new()) else { return };
    let mut server = world.program("redis-server");
    server.args([
        "--port",
        "6379",
        "--bind",
        "203.0.113.9",
        "2001:db8::9",
        "--protected-mode",
        "no",
        "--save",
        "",
        "--appendonly",
        "no",
    ]);
    server.arg("--dir").arg(world.directory());
    let _server = Server::start(|command| world.spawn_there(command), server);
    listens(&world, 6379);
    for (address, host) in ADDRESSES {
        let said = good(world.run(&format!("run --direct {host}:6379 -- redis-cli -h {address} SET from {address}")));
        assert_eq!(said, "OK\n");
        let said = good(world.run(&format!("run --direct {host}:6379 -- redis-cli -h {address} GET from")));
        assert_eq!(said, format!("{address}\n"));
        // Another port, another address.
        let output = world.run(&format!("run --direct {host}:6380 -- redis-cli -h {address} GET from"));
        assert!(!output.status.success() || text(&output.stderr).contains("refused"), "{}", text(&output.stdout));
    }
}

/// The newest `initdb` of those that are installed side by side.
fn postgres() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max();
    // Says so if not.
    found.or_else(|| oracle("initdb").and_then(|path| path.parent().map(PathBuf::from)))
}

#[test]
fn postgres_answers() {
    let (Some(_), Some(bin), Some(world)) = (oracle("psql"), postgres(), World::new()) else { return };
    // PostgreSQL does not run as root.
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let data = world.directory().join("data");
    std::fs::create_dir(&data).unwrap();
    std::os::unix::fs::chown(&data, Some(65534), Some(65534)).unwrap();
    set_mode(&data, 0o700);
    let mut init = world.program("setpriv");
    init.args(nobody).arg(bin.join("initdb")).args(["-U", "tester", "-A", "trust", "--no-sync", "-D"]).arg(&data);
    assert!(world.output(init).status.success());
    let access = "host all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n";
    std::fs::write(data.join("pg_hba.conf"), access).unwrap();
    let mut server = world.program("setpriv");
    server.args(nobody).arg(bin.join("postgres")).arg("-D").arg(&data);
    server.args(["-c", "listen_addresses=203.0.113.9,2001:db8::9", "-p", "5433", "-c", "fsync=off", "-k"]).arg(&data);
    let _server = Server::start(|command| world.spawn_there(command), server);
    listens(&world, 5433);
    for (address, host) in ADDRESSES {
        let mut command =
            world.ringfence(["run", "--direct", &format!("{host}:5433"), "--", "psql", "-XAtq", "-h", address]);
        command.args(["-p", "5433", "-U", "tester", "-d", "postgres"]);
        command.args([
            "-c",
            "SELECT host(inet_server_addr()), sum(length(repeat('x', n))) FROM generate_series(1, 3000) AS n",
        ]);
        // Masqueraded, so the server may answer.
        assert_eq!(good(world.output(command)), format!("{address}|4501500\n"));
        let refused =
            world.run(&format!("run --direct {host}:5434 -- psql -h {address} -p 5433 -U tester -d postgres -c end"));
        assert_eq!(refused.status.code(), Some(2));
        assert!(text(&refused.stderr).contains("Connection refused"), "{}", text(&refused.stderr));
    }
}
