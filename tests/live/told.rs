//! What the fence, the proxy and the resolver refuse of one program, in one stream.

use serde_json::Value;

use super::{Authority, Inside, echo};
use crate::world::{World, oracle, text};

#[test]
fn packets_questions_and_requests_are_told_in_their_order() {
    let Some(world) = World::new() else { return };
    echo(&world, "203.0.113.9:7");
    let names =
        r#"{"a.direct.example": [60, ["203.0.113.9", "2001:db8::9"]], "loop.direct.example": [60, ["127.0.0.1"]]}"#;
    let Some(_authority) = Authority::start(&world, names) else { return };
    let file = world.directory().join("events");
    let flags = format!("--name told --allow web.example:8 --direct *.direct.example:7 --events {}", file.display());
    let Some(mut inside) = Inside::start(&world, &flags) else { return };
    // An address before anybody was told that it is that name's, and after.
    assert_eq!(inside.ask("tcp 203.0.113.9 9"), "ECONNREFUSED");
    assert_eq!(inside.ask("tcp a.direct.example 9"), "ECONNREFUSED");
    assert_eq!(inside.ask("udp a.direct.example 9"), "EPERM");
    assert_eq!(inside.ask("proxy other.example 443"), "HTTP/1.1 403 Forbidden");
    assert_eq!(inside.ask("resolve secret.attacker.example"), "gaierror");
    // A name that leads where it must not.
    assert_eq!(inside.ask("resolve loop.direct.example"), "gaierror");
    inside.end();

    let told = std::fs::read_to_string(&file).unwrap();
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shown: Vec<String> = told
        .iter()
        .map(|event| {
            let word = |key: &str| event[key].as_str().unwrap_or("-").to_owned();
            format!("{} {} {} {} {}", word("event"), word("denial_stage"), word("host"), event["dport"], word("rule"))
        })
        .collect();
    // By whichever family comes first, and by the other then.
    let mut seen = shown.clone();
    seen.dedup();
    assert_eq!(
        seen,
        [
            "bypass bypass - 9 bypass-tcp",
            "bypass bypass a.direct.example 9 bypass-tcp",
            "bypass bypass a.direct.example 9 bypass-udp",
            "denied connect other.example 443 not-listed",
            "denied dns secret.attacker.example null not-listed",
            "denied dns loop.direct.example null special-address",
            "summary - - null -",
        ],
        "{told:#?}"
    );
    for event in told.iter().filter(|event| event["event"] == "bypass") {
        assert!(event["process"]["exe"].as_str().is_some_and(|exe| exe.contains("python")), "{event}");
    }
    for event in told.iter().filter(|event| event["event"] == "denied") {
        assert_eq!((&event["verdict"], &event["identity"]), (&"deny".into(), &"unknown".into()), "{event}");
        assert!(event["hint"].is_string() && event.get("process").is_none(), "{event}");
    }
    let summary = told.last().unwrap();
    assert_eq!(summary["refused"], told.len() as u64 - 1, "{summary}");
    let counts: u64 = summary["denials"].as_array().unwrap().iter().map(|one| one["count"].as_u64().unwrap()).sum();
    assert_eq!(counts, told.len() as u64 - 1);
}

#[test]
fn node_goes_past_the_proxy_where_it_may() {
    let (Some(world), Some(_)) = (World::new(), oracle("node")) else { return };
    std::fs::write(world.directory().join("file"), "served\n").unwrap();
    world.web(world.directory());
    // Node reads these variables since 24, and programs before that through libraries that read the same two.
    let code = "console.log(process.env.NO_PROXY, process.env.no_proxy, process.env.HTTP_PROXY, process.env.NODE_USE_ENV_PROXY); \
        require('http').get('http://web.example:8080/file', r => r.on('data', d => process.stdout.write(d))).on('error', e => console.log(e.code)); \
        fetch('http://six.example:8080/file').then(r => r.text()).then(t => process.stdout.write(t), e => console.log(e.cause && e.cause.code));";
    let mut command = world.ringfence(
        "run -q --allow other.example --direct web.example:8080,six.example:8080,*.wild.example:1 --".split(' '),
    );
    command.args(["node", "-e", code]);
    let said = text(&world.output(command).stdout);
    let own = "localhost,127.0.0.1,::1,web.example,six.example,.wild.example";
    assert_eq!(said, format!("{own} {own} http://127.0.0.1:3128 1\nserved\nserved\n"));
}
