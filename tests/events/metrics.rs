//! `ringfence run --metrics`: counters for Prometheus, in a file and on a socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use crate::support::until;
use crate::world::{World, finish, oracle, text};

const ATTEMPTS: &str = "for i in 1 2 3; do (echo x > /dev/udp/203.0.113.10/53); done; \
    (: < /dev/tcp/203.0.113.10/443); (: < /dev/tcp/203.0.113.9/8080); read line";

fn value(text: &str, start: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}:\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn check(text: &str) {
    assert!(text.ends_with("# EOF\n"), "{text}");
    let packets = |rule: &str| value(text, &format!("ringfence_packets_total{{sandbox=\"job\",chain={rule}"));
    assert_eq!(packets(r#""refuse",verdict="reject",rule="bypass-udp",proto="udp"}"#), 3);
    assert_eq!(packets(r#""refuse",verdict="reject",rule="bypass-tcp",proto="tcp"}"#), 1);
    assert!(packets(r#""output",verdict="accept",rule="direct4"}"#) > 0);
    assert_eq!(value(text, r#"ringfence_refusals_total{sandbox="job"}"#), 4);
    assert_eq!(value(text, r#"ringfence_events_lost_total{sandbox="job"}"#), 0);
    assert!(text.contains("ringfence_packets_total{host=\"ringfence"), "{text}");
}

#[test]
fn a_file_and_a_socket_show_what_was_counted() {
    let Some(world) = World::new() else { return };
    let Some(bash) = oracle("bash") else { return };
    let file = world.directory().join("metrics.prom");
    let socket = world.directory().join("metrics.sock");
    // What one that was killed has left is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    for to in [file.display().to_string(), format!("unix:{}", socket.display())] {
        let mut command =
            world.ringfence(["run", "-q", "--name", "job", "--direct", "203.0.113.9:8080", "--metrics", &to]);
        command.arg("--").arg(&bash).args(["-c", ATTEMPTS]).stdin(Stdio::piped());
        let mut child = world.spawn(command);
        let ask = || {
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        if to.starts_with("unix:") {
            until("the socket is there", || UnixStream::connect(&socket).is_ok());
            until("all is counted", || ask().contains("ringfence_refusals_total{sandbox=\"job\"} 4\n"));
            let answer = ask();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("openmetrics-text"), "{head}");
            check(body);
        }
        child.stdin.take();
        let output = finish(child);
        assert!(
            text(&output.stderr).is_empty() || !output.stderr.starts_with(b"ringfence"),
            "{}",
            text(&output.stderr)
        );
        if !to.starts_with("unix:") {
            check(&std::fs::read_to_string(&file).unwrap());
        }
        let left: Vec<_> =
            std::fs::read_dir(world.directory()).unwrap().flatten().map(|file| file.file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().starts_with('.')), "{left:?}");
    }
    assert!(!socket.exists());
}

/// The directory may be one that the program inside writes to, and the supervisor root.
#[test]
fn a_link_in_the_way_of_metrics_is_not_followed() {
    let Some(world) = World::new() else { return };
    let (file, victim) = (world.directory().join("metrics.prom"), world.directory().join("victim"));
    std::fs::write(&victim, "untouched").unwrap();
    let mut command = world.program("sh");
    // The number that the supervisor will have.
    let script = r#"ln -s "$1" "$2/.metrics.prom.$$"; exec "$3" run -q --metrics "$2/metrics.prom" -- true"#;
    command.args(["-c", script, "sh"]).arg(&victim).arg(world.directory()).arg(env!("CARGO_BIN_EXE_ringfence"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = finish(world.spawn(command));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
    assert!(std::fs::symlink_metadata(&file).unwrap().is_file());
}

#[test]
fn where_metrics_can_not_be_shown_nothing_is_started() {
    let Some(world) = World::new() else { return };
    let pipe = world.directory().join("pipe").display().to_string();
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    for (to, wanted) in [
        (pipe.as_str(), "only a regular file can be replaced"),
        ("/nowhere/metrics", "--metrics: can't show metrics at `/nowhere/metrics`: No such file or directory"),
        ("unix:/nowhere/metrics", "can't show metrics at `unix:/nowhere/metrics`: No such file or directory"),
        ("unix:", "it is empty"),
    ] {
        let output = world.output(world.ringfence(["run", "--metrics", to, "--", "echo", "started"]));
        let error = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(125), String::new()), "{error}");
        assert!(error.starts_with("ringfence: ") && error.contains(wanted), "{error}");
    }
}
