//! `--audit` and `--learn`: what would be refused passes, is told, and becomes a policy under which nothing is refused.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::{Authority, Inside, echo, hears, no_policy, policy};
use crate::world::{World, finish, text};

const NAMES: &str = r#"{"a.direct.example": [60, ["203.0.113.9"]], "six.direct.example": [60, ["2001:db8::9"]], "only.looked.example": [60, ["203.0.113.10"]]}"#;

/// What a program inside does, and how it goes when nothing is refused.
const TRIES: [(&str, &str); 9] = [
    ("tcp 203.0.113.10 7", "connected 203.0.113.10"),
    ("tcp 2001:db8::a 7", "connected 2001:db8::a"),
    ("udp 203.0.113.10 9", "answered heard"),
    ("udp 2001:db8::a 9", "answered heard"),
    // By names that our resolver answers for, and by one that the hosts file of the host has.
    ("tcp a.direct.example 7", "connected 203.0.113.9"),
    ("tcp six.direct.example 7", "connected 2001:db8::9"),
    ("proxy web.example 7", "HTTP/1.1 200 OK"),
    ("proxy a.direct.example 8", "HTTP/1.1 200 OK"),
    ("tcp 203.0.113.10 7", "connected 203.0.113.10"),
];

struct Learning {
    world: World,
    _authority: Authority,
    file: PathBuf,
}

impl Learning {
    fn new() -> Option<Self> {
        let world = World::new()?;
        for address in ["203.0.113.9:7", "203.0.113.9:8", "203.0.113.10:7", "[2001:db8::9]:7", "[2001:db8::a]:7"] {
            echo(&world, address);
        }
        for address in ["203.0.113.10:9", "[2001:db8::a]:9"] {
            hears(&world, address);
        }
        let authority = Authority::start(&world, NAMES)?;
        let file = world.directory().join("learned.toml");
        Some(Self { world, _authority: authority, file })
    }
}

/// The lines of a learned policy without what is remarked beside them.
fn entries(learned: &str) -> Vec<&str> {
    let lines = learned.lines().map(|line| line.split("  # ").next().unwrap().trim());
    lines.filter(|line| !line.starts_with('#')).collect()
}

#[test]
fn what_an_audit_learned_refuses_nothing() {
    let Some(Learning { world, _authority, file }) = Learning::new() else { return };
    let before = world.state();
    let events = world.directory().join("events.json");
    let flags = format!(
        "--audit --learn {} --events {} --user 0:0 --keep-caps NET_RAW --name audit",
        file.display(),
        events.display()
    );
    let Some(mut inside) = Inside::start(&world, &flags) else { return };
    for (words, how) in TRIES {
        assert_eq!(inside.ask(words), how, "{words}");
    }
    assert_eq!(inside.ask("ping 203.0.113.10"), "answered");
    assert_eq!(inside.ask("ping 2001:db8::a"), "answered");
    assert_eq!(inside.ask("resolve only.looked.example"), "203.0.113.10");
    let report = inside.report();
    // Forwarding, tables, everything is as it was.
    world.nothing_left(&before, "by an audit");

    for wanted in [
        "ringfence: would have refused ",
        "to allow it: --direct 203.0.113.10:7",
        "ringfence: a policy that allows this:\n",
    ] {
        assert!(report.contains(wanted), "{wanted}: {report}");
    }
    let learned = std::fs::read_to_string(&file).unwrap();
    assert!(report.ends_with(&learned), "{report}\n{learned}");
    assert_eq!(
        entries(&learned),
        [
            "allow = [",
            "\"web.example:7\",",
            "\"a.direct.example:8\",",
            "]",
            "direct = [",
            "\"203.0.113.10:7\",",
            "\"[2001:db8::a]:7\",",
            "\"a.direct.example:7\",",
            "\"six.direct.example:7\",",
            "]",
            "direct-udp = [",
            "\"203.0.113.10:9\",",
            "\"[2001:db8::a]:9\",",
            "]",
        ],
        "{learned}"
    );
    for remark in [
        "# no policy allows icmp to 203.0.113.10",
        "# no policy allows icmpv6 to 2001:db8::a",
        "# looked up, and not connected to: only.looked.example",
    ] {
        assert!(learned.contains(remark), "{learned}");
    }
    let told = std::fs::read_to_string(&events).unwrap();
    let told: Vec<serde_json::Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (summary, told) = told.split_last().unwrap();
    assert!(told.iter().all(|event| event["verdict"] == "accept"), "{told:#?}");
    // One line a flow and question, and no line for each packet of a flow.
    let of = |dst: &str, dport: u64| told.iter().filter(|event| event["dst"] == dst && event["dport"] == dport).count();
    assert_eq!((of("203.0.113.10", 7), of("203.0.113.10", 9), of("203.0.113.9", 7)), (2, 1, 1), "{told:#?}");
    let named = told.iter().find(|event| event["dst"] == "203.0.113.9" && event["dport"] == 7).unwrap();
    assert_eq!(named["host"], "a.direct.example", "{named}");
    assert!(["exact", "inferred"].contains(&named["identity"].as_str().unwrap()), "{named}");
    assert!(named["process"]["comm"].as_str().unwrap().starts_with("python"), "{named}");
    assert_eq!(summary["lost"], 0);

    // The same again, under what was learned: not a word.
    let Some(mut inside) = Inside::start(&world, &format!("--policy {} --name again", file.display())) else { return };
    for (words, how) in TRIES {
        assert_eq!(inside.ask(words), how, "{words}");
    }
    // It allows that, and no more.
    assert_eq!(inside.ask("tcp 203.0.113.9 9"), "ECONNREFUSED");
    assert_eq!(inside.ask("resolve other.example"), "gaierror");
    let report = inside.report();
    assert!(report.contains("refused 3 times"), "{report}");
    let Some(mut inside) = Inside::start(&world, &format!("--policy {} --name third", file.display())) else { return };
    for (words, how) in TRIES {
        assert_eq!(inside.ask(words), how, "{words}");
    }
    assert_eq!(inside.report(), "");
    world.nothing_left(&before, "by a policy that was learned");
}

#[test]
fn an_audit_lets_nobody_else_out() {
    let Some(Learning { world, .. }) = Learning::new() else { return };
    let before = world.state();
    let Some(mut audited) = Inside::start(&world, "--audit --name audited") else { return };
    let Some(mut fenced) = Inside::start(&world, "--name fenced --direct 203.0.113.9:8") else { return };
    let Some(mut quiet) = Inside::start(&world, "--name quiet") else { return };
    assert_eq!(audited.ask("tcp 203.0.113.10 7"), "connected 203.0.113.10");
    for other in [&mut fenced, &mut quiet] {
        for words in ["tcp 203.0.113.10 7", "tcp 2001:db8::a 7"] {
            assert_eq!(other.ask(words), "ECONNREFUSED", "{words}");
        }
        assert_eq!(other.ask("udp 203.0.113.10 9"), "EPERM");
        assert_eq!(other.ask("resolve a.direct.example"), "gaierror");
    }
    assert_eq!(fenced.ask("tcp 203.0.113.9 8"), "connected 203.0.113.9");
    // Nor does it reach others, or they it, whoever listens there.
    for other in [&mut fenced, &mut quiet] {
        for family in ["203.0.113.9", "2001:db8::9"] {
            let (one, two) = (audited.ask(&format!("own {family}")), other.ask(&format!("own {family}")));
            assert_ne!(one, two);
            let port = |said: String| said.rsplit(' ').next().unwrap().to_owned();
            let (here, there) = (port(audited.ask("listen l")), port(other.ask("listen l")));
            let said = audited.ask(&format!("tcp {two} {there}"));
            assert!(!said.starts_with("connected"), "{said}");
            let said = other.ask(&format!("tcp {one} {here}"));
            assert!(!said.starts_with("connected"), "{said}");
        }
    }
    // What an audit is can't be changed while it stands.
    let error = no_policy(&world, "set fenced --audit");
    assert!(error.contains("`audit` can't change while a sandbox stands"), "{error}");
    assert_eq!(policy(&world, "show fenced"), "direct = [\n    \"203.0.113.9:8\",\n]\n");
    audited.end();
    assert_eq!(fenced.ask("tcp 203.0.113.9 8"), "connected 203.0.113.9");
    assert_eq!(fenced.ask("tcp 203.0.113.10 7"), "ECONNREFUSED");
    fenced.end();
    quiet.end();
    world.nothing_left(&before, "by an audit beside others");
}

#[test]
fn what_no_policy_allows_is_refused_in_an_audit_too() {
    let Some(Learning { world, .. }) = Learning::new() else { return };
    let script = "
import socket
def attempt(what, send):
    try: send(); print(what, 'sent')
    except OSError as error: print(what, 'refused')
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 255)
head = bytes.fromhex('4500001c00072000401100000a0000007f000001')
option = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
option.setsockopt(0, 4, b'\\x07\\x0b\\x04' + bytes(9))
attempt('fragment', lambda: raw.sendto(head[:16] + socket.inet_aton('203.0.113.10') + bytes(8), ('203.0.113.10', 0)))
attempt('options', lambda: option.sendto(b'x', ('203.0.113.10', 9)))
";
    let wire = world.outer.watch();
    let mut command = world.ringfence("run -q --audit --user 0:0 --keep-caps NET_RAW --".split(' '));
    command.args(["/usr/bin/python3", "-I", "-c", script]);
    let output = world.output(command);
    assert!(output.status.success(), "{}", text(&output.stderr));
    // Whatever the program is told, nothing of the kind reaches the uplink.
    let strange = wire.strangers(|_| false);
    assert_eq!(strange, [], "{}", text(&output.stdout));
}

#[test]
fn learning_that_cannot_be() {
    let Some(world) = World::new() else { return };
    let refused = |arguments: &str| {
        let output = world.run(&format!("run {arguments} -- echo started"));
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, error) = refused("--learn /tmp/x.toml");
    assert_eq!((code, out.as_str()), (Some(125), ""), "{error}");
    assert!(error.starts_with("ringfence: --learn: ") && error.contains("audit"), "{error}");
    let (code, out, error) = refused("--audit --learn ");
    assert_eq!((code, out.as_str()), (Some(125), ""), "{error}");
    let link = world.directory().join("link.toml");
    let pipe = world.directory().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    std::os::unix::fs::symlink(&pipe, &link).unwrap();
    for (file, why) in [
        (Path::new("/nowhere/learned.toml"), "No such file or directory"),
        (link.as_path(), "only a regular file can be replaced"),
        (pipe.as_path(), "only a regular file can be replaced"),
    ] {
        let (code, out, error) = refused(&format!("--audit --learn {}", file.display()));
        assert_eq!((code, out.as_str()), (Some(125), ""), "{error}");
        assert!(error.contains(&format!("can't write what was learned to `{}`: {why}", file.display())), "{error}");
    }
    // A file that is there is replaced as a whole, a folder is not.
    let file = world.directory().join("learned.toml");
    std::fs::write(&file, "old").unwrap();
    let (code, _, error) = refused(&format!("-q --audit --learn {}", file.display()));
    assert_eq!(code, Some(0), "{error}");
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("# What an audit has learned."));
    let left: Vec<_> = std::fs::read_dir(world.directory()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("learned.toml.")), "{left:?}");
}

#[test]
fn nothing_that_is_put_in_the_way_keeps_the_policy_from_being_written() {
    let Some(world) = World::new() else { return };
    let path = |name: &str| world.directory().join(name);
    let file = path("learned.toml");
    let mut command = world.ringfence("run -q --audit --learn".split(' '));
    command.arg(&file).args(["--", "sh", "-c", "echo up; read end; true"]).stdin(Stdio::piped());
    let mut running = world.spawn(command);
    running.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    // What a program inside could guess of a name that depends on the process alone, and a link instead of the file.
    let guessed = [format!("learned.toml.{}", running.id()), format!(".learned.toml.{}", running.id())];
    for name in &guessed {
        std::fs::write(path(name), "somebody's own").unwrap();
    }
    std::fs::write(path("victim"), "untouched").unwrap();
    std::os::unix::fs::symlink(path("victim"), &file).unwrap();
    drop(running.stdin.take());
    let output = finish(running);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    assert!(std::fs::symlink_metadata(&file).unwrap().is_file());
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("# What an audit has learned."));
    for (name, content) in [("victim", "untouched"), (&guessed[0], "somebody's own"), (&guessed[1], "somebody's own")] {
        assert_eq!(std::fs::read_to_string(path(name)).ok().as_deref(), Some(content), "{name}");
    }
}

#[test]
fn a_directory_that_is_moved_away_is_the_one_that_was_meant() {
    let Some(world) = World::new() else { return };
    let path = |name: &str| world.directory().join(name);
    for folder in ["out", "elsewhere"] {
        std::fs::create_dir(path(folder)).unwrap();
    }
    for name in ["learned.toml", "m.prom", "m.sock"] {
        std::fs::write(path("elsewhere").join(name), "untouched").unwrap();
    }
    for metrics in ["m.prom", "unix:m.sock"] {
        let (unix, name) = metrics.split_once(':').map_or(("", metrics), |(_, name)| ("unix:", name));
        let metrics = format!("{unix}{}", path("out").join(name).display());
        let mut command = world.ringfence(["run", "-q", "--audit", "--metrics", &metrics, "--learn"]);
        command.arg(path("out/learned.toml")).args(["--", "sh", "-c", "cd $0 && mv out moved && ln -s elsewhere out"]);
        command.arg(world.directory());
        let output = world.output(command);
        assert!(output.status.success(), "{}", text(&output.stderr));
        for name in ["learned.toml", "m.prom", "m.sock"] {
            assert_eq!(std::fs::read_to_string(path("elsewhere").join(name)).unwrap(), "untouched", "{name}");
        }
        assert!(
            std::fs::read_to_string(path("moved/learned.toml")).unwrap().starts_with("# What an audit has learned.")
        );
        assert!(!path("moved/m.sock").exists());
        std::fs::remove_file(path("out")).unwrap();
        std::fs::rename(path("moved"), path("out")).unwrap();
    }
}
