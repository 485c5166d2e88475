//! `ringfence plan` in all its formats.

use std::process::Command;

use ringfence::kernel::netns::Netns;
use ringfence::kernel::rtnetlink::{Batch, Request, Socket, Veth};

use crate::world::{World, finish, good, oracle, text};

const POLICY: &str = "--allow web.example --allow *.example.com:8443 --direct 203.0.113.9:5432 --direct-udp [2001:db8::9]:53 --direct-host web.example";

fn plan(world: &World, format: &str) -> String {
    let arguments = format!("plan {POLICY} --format {format}");
    let first = good(world.run(&arguments));
    assert_eq!(good(world.run(&arguments)), first, "two plans of one policy differ");
    first
}

#[test]
fn it_changes_nothing_and_is_the_same_every_time() {
    let Some(world) = World::new() else { return };
    let before = world.state();
    for format in ["text", "json", "nft", "dot"] {
        plan(&world, format);
    }
    assert_eq!(good(world.run(&format!("plan {POLICY}"))), plan(&world, "text"));
    assert_eq!(world.state(), before);
}

#[test]
fn json_is_one_object_with_the_rules_and_origins_in_it() {
    let Some(world) = World::new() else { return };
    let document: serde_json::Value = serde_json::from_str(&plan(&world, "json")).unwrap();
    assert_eq!(document["schema"], 1);
    let plan = &document["plan"];
    assert_eq!(plan["wire"]["addresses"]["sandbox4"], "10.200.0.2");
    assert_eq!(plan["endpoints"][0]["origin"]["flag"], "--direct");
    assert_eq!(plan["endpoints"][2]["value"]["host"], "web.example");
    // What the name stands for, once resolved.
    assert_eq!(plan["direct"].as_array().unwrap().iter().filter(|to| to["port"] == 443).count(), 1);
    assert_eq!(plan["forwarding"], serde_json::json!({"v4": true, "v6": true}));
    for side in ["inside", "outside"] {
        assert!(plan[side]["rules"].as_array().is_some_and(|rules| rules.len() > 5), "{side}");
    }
    assert_eq!(plan["environment"]["set"]["https_proxy"], "http://127.0.0.1:3128");
}

#[test]
fn the_graph_is_well_formed() {
    let Some(world) = World::new() else { return };
    let dot = plan(&world, "dot");
    let lines: Vec<&str> = dot.lines().collect();
    assert_eq!((lines.first(), lines.last()), (Some(&"digraph ringfence {"), Some(&"}")));
    for line in &lines[1..lines.len() - 1] {
        let line = line.strip_prefix("  ").and_then(|line| line.strip_suffix(';')).expect(line);
        // Quotes in pairs, and what stands outside them is of the language.
        let outside: String = line.split('"').step_by(2).collect();
        assert_eq!(line.matches('"').count() % 2, 0, "{line}");
        let statement = outside.trim().starts_with("->") || ["rankdir=LR", "node [shape=box]"].contains(&line);
        assert!(statement, "{line}");
    }
    for node in ["\"web.example\"", "\"*.example.com:8443\"", "\"203.0.113.9:5432\"", "\"[2001:db8::9]:53\""] {
        assert!(dot.contains(node), "{node} in {dot}");
    }
}

/// A kernel before 6.16 refuses a netdev chain whose interface is not there, so there is an `eth0`, as in a sandbox.
#[test]
fn nft_takes_the_rules() {
    let Some(nft) = oracle("nft") else { return };
    let Some(world) = World::new() else { return };
    let file = world.directory().join("rules.nft");
    std::fs::write(&file, plan(&world, "nft")).unwrap();
    let sandbox = Netns::create_with(|| {
        Socket::open().unwrap().commit(Batch::from([Request::create_veth(&Veth::new("eth0", "rf0"))])).unwrap();
    });
    let mut check = Command::new(nft);
    check
        .arg("--check")
        .arg("--file")
        .arg(file)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let output = finish(sandbox.unwrap().0.run(|| check.spawn()).unwrap().unwrap());
    assert_eq!(
        (output.status.code(), text(&output.stdout), text(&output.stderr)),
        (Some(0), String::new(), String::new())
    );
}

#[test]
fn every_value_is_shown_with_where_it_came_from() {
    let Some(world) = World::new() else { return };
    let file = world.directory().join("policy.toml");
    std::fs::write(&file, "allow = \"from-file.example\"\n\ndirect-udp = [\n  \"203.0.113.9:53\"]\n").unwrap();
    let mut command = world.ringfence(["plan", "--direct", "203.0.113.9:22"]);
    command
        .env("RINGFENCE_POLICY", &file)
        .env("RINGFENCE_PROXY", "http://user:secret@127.0.0.1:8080")
        .env("RINGFENCE_DIRECT_TCP_HOSTS", "web.example")
        .env("NO_PROXY", ".corp.example");
    let shown = good(world.output(command));
    let file = file.display();
    for line in [
        format!("  allow from-file.example  ({file}:1:9)"),
        "  through http://<redacted>@127.0.0.1:8080  (RINGFENCE_PROXY)".into(),
        format!("  udp 203.0.113.9:53  ({file}:4:3)"),
        "  tcp web.example:443  (RINGFENCE_DIRECT_TCP_HOSTS)".into(),
        "  tcp 203.0.113.9:22  (--direct)".into(),
    ] {
        assert!(shown.lines().any(|have| have == line), "no `{line}` in {shown}");
    }
    assert!(!shown.contains("secret"));
    let mut command = world.ringfence(["plan"]);
    command
        .env("OPENSHELL_DIRECT_TCP_ENDPOINTS", "203.0.113.9:80,[2001:db8::9]:80")
        .env("OPENSHELL_DIRECT_TCP_HOSTS", "six.example");
    let shown = good(world.output(command));
    for line in [
        "  tcp 203.0.113.9:80  (OPENSHELL_DIRECT_TCP_ENDPOINTS)",
        "  tcp [2001:db8::9]:80  (OPENSHELL_DIRECT_TCP_ENDPOINTS)",
        "  tcp six.example:443  (OPENSHELL_DIRECT_TCP_HOSTS)",
    ] {
        assert!(shown.lines().any(|have| have == line), "no `{line}` in {shown}");
    }
}

/// What a file says of the command is what `run` would do.
#[test]
fn the_command_is_shown_as_it_would_run() {
    let Some(world) = World::new() else { return };
    let file = world.directory().join("policy.toml");
    let policy = "allow = 'web.example'\ndirect = '203.0.113.9:22'\nuser = '1000:100'\nname = 'box'\nkeep-caps = ['kill', 'chown']\n\
                  events = 'e.json'\nevents-format = 'ocsf'\nmetrics = 'unix:m'\n\
                  [env]\nHTTPS_PROXY = 'http://203.0.113.9:1'\nno_proxy = 'own.example'\nMINE = 'x'\n";
    std::fs::write(&file, policy).unwrap();
    let planned = |format: &str| {
        let mut command = world.ringfence(["plan", "--format", format]);
        command.env("RINGFENCE_POLICY", &file).env("NO_PROXY", "the.callers.example");
        good(world.output(command))
    };
    let shown = planned("text");
    let file = file.display();
    let no_proxy = "localhost,127.0.0.1,::1,203.0.113.9,own.example";
    for line in [
        format!("  HTTPS_PROXY=http://203.0.113.9:1  ({file}:10:15)"),
        "  https_proxy=http://127.0.0.1:3128".into(),
        format!("  no_proxy={no_proxy}  ({file}:11:12)"),
        format!("  NO_PROXY={no_proxy}"),
        format!("  MINE=x  ({file}:12:8)"),
        format!("  user 1000:100  ({file}:3:8)"),
        format!("  capabilities CAP_CHOWN, CAP_KILL  ({file}:5:14)"),
        "  PID namespace of its own  (default)".into(),
        format!("  name box  ({file}:4:8)"),
        format!("  events to e.json as ocsf  ({file}:6:10)"),
        format!("  metrics at unix:m  ({file}:8:11)"),
    ] {
        assert!(shown.lines().any(|have| have == line), "no `{line}` in {shown}");
    }
    let document: serde_json::Value = serde_json::from_str(&planned("json")).unwrap();
    let plan = &document["plan"];
    assert_eq!(plan["environment"]["set"]["HTTPS_PROXY"], "http://203.0.113.9:1");
    assert_eq!(plan["run"]["name"]["value"], "box");
    assert_eq!(plan["run"]["seccomp"]["value"], "default");
    // Without a proxy, a variable that names one goes, unless it is said for the command.
    std::fs::write(world.directory().join("policy.toml"), "env = 'http_proxy=http://203.0.113.9:1'").unwrap();
    let shown = planned("text");
    assert!(
        shown.contains("  http_proxy=http://203.0.113.9:1  (") && !shown.contains("http_proxy is taken"),
        "{shown}"
    );
}

#[test]
fn an_audit_and_a_resolver_are_shown_for_what_they_are() {
    let Some(world) = World::new() else { return };
    let audit = good(world.run("plan --audit --allow web.example"));
    for line in [
        "  everything passes, and what would be refused is told  (--audit)",
        "  the built-in resolver answers for every name: dns = auto  (default)",
        "  allow everything else, and tell of it  (--audit)",
    ] {
        assert!(audit.lines().any(|have| have == line), "no `{line}` in {audit}");
    }
    let plain = good(world.run("plan --allow web.example"));
    assert!(!plain.contains("everything") && plain.contains("answers for names of the policy"), "{plain}");
    let dot = good(world.run("plan --audit --dns 203.0.113.53 --format dot"));
    assert!(dot.contains("\"passes, logged\"") && !dot.contains("refused"), "{dot}");
    assert!(dot.contains("  \"host\\nrf0\" -> \"203.0.113.53:53\" [label=\"names, udp and tcp\"];\n"), "{dot}");
    let dot = good(world.run("plan --format dot"));
    assert!(dot.contains("\"refused, logged\"") && !dot.contains("passes"), "{dot}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let Some(world) = World::new() else { return };
    let mut command = world.program("sh");
    command.args(["-c", "\"$0\" plan --allow web.example | head -n 1"]).arg(crate::world::RINGFENCE);
    assert_eq!(good(world.output(command)), "wire\n");
}
