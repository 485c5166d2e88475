//! What can't be is refused in one line that says what and where, with nothing on standard output and nothing left behind.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::process::Command;

use crate::world::{RINGFENCE, World, finish, set_mode, text};

/// Runs `command`, and fails unless it ends with `status` and exactly these lines on standard error.
#[track_caller]
fn ends(world: &World, command: Command, status: i32, lines: &[&str]) {
    let shown = format!("{command:?}");
    let before = world.state();
    let output = world.output(command);
    let stderr = text(&output.stderr);
    let expected: String = lines.iter().map(|line| format!("ringfence: {line}\n")).collect();
    assert_eq!(stderr, expected, "{shown}");
    assert_eq!(text(&output.stdout), "", "{shown}");
    assert_eq!(output.status.code(), Some(status), "{shown}");
    world.nothing_left(&before, &shown);
}

/// As [`ends`], for `ringfence run ARGUMENTS -- true`.
#[track_caller]
fn refused(world: &World, arguments: &[&str], line: &str) {
    let mut command = world.ringfence(["run"]);
    command.args(arguments).args(["--", "true"]);
    ends(world, command, 125, &[line]);
}

#[test]
fn endpoints_that_cannot_be() {
    let Some(world) = World::new() else { return };
    refused(
        &world,
        &["--dns", "off", "--direct", "nosuch.example:5432"],
        "--direct: can't resolve `nosuch.example`: no such name",
    );
    refused(
        &world,
        &["--dns", "203.0.113.53", "--direct", "*.example:5432"],
        "--direct: `*.example:5432` is not possible beside `dns = 203.0.113.53` (--dns says `203.0.113.53`; \
         a wildcard direct endpoint needs the built-in resolver: `auto` or `open`)",
    );
    let endpoint = "is not a direct endpoint `HOST:PORT`";
    for (value, why) in [
        ("203.0.113.9:0", "port 0 cannot be connected to"),
        ("203.0.113.9:65536", "`65536` is no port from 1 to 65535"),
        ("203.0.113.9:-1", "`-1` is no port from 1 to 65535"),
        ("203.0.113.9", "the port is missing: write `203.0.113.9:443`"),
        ("2001:db8::9:80", "an IPv6 address with a port stands in brackets: `[2001:db8::9]:80`"),
        ("203.0.113.0/24:80", "one address is due here, and `203.0.113.0/24` is a range"),
    ] {
        for flag in ["--direct", "--direct-udp"] {
            refused(&world, &[flag, value], &format!("{flag}: `{value}` {endpoint} ({why})"));
        }
    }
    refused(
        &world,
        &["--proxy-at", "web.example:3128"],
        "--proxy-at: `web.example:3128` is not a proxy `ADDRESS:PORT` (an address is due here, and `web.example` is a name)",
    );
    for (flag, what) in
        [("--proxy", "`http://[USER[:PASSWORD]@]HOST[:PORT]` or `HOST:PORT`"), ("--proxy-at", "`ADDRESS:PORT`")]
    {
        let line =
            format!("{flag}: `203.0.113.9` is not a proxy {what} (the port is missing: write `203.0.113.9:3128`)");
        refused(&world, &[flag, "203.0.113.9"], &line);
    }
    refused(
        &world,
        &["--allow", "not a name"],
        "--allow: `not a name` is not a destination `HOST[:PORT]` (` ` is no character of a name)",
    );
    refused(
        &world,
        &["--proxy", "socks5://203.0.113.9:1080"],
        "--proxy: `socks5://203.0.113.9:1080` is not a proxy `http://[USER[:PASSWORD]@]HOST[:PORT]` or `HOST:PORT` \
         (SOCKS is not supported: the proxy is spoken to in HTTP)",
    );
}

#[test]
fn options_that_cannot_be() {
    let Some(world) = World::new() else { return };
    for (arguments, line) in [
        (
            ["--pool", "10.0.0.0/33"],
            "--pool: `10.0.0.0/33` is not a prefix for a pool of addresses (`33` is no prefix length from 0 to 32)",
        ),
        (
            ["--pool", "10.0.0.0/31"],
            "--pool: `10.0.0.0/31` is not a prefix for a pool of addresses (its length is from 8 to 30)",
        ),
        (
            ["--name", "../x"],
            "--name: `../x` is not a name for a sandbox (`/` is none of letters, digits, `.`, `_` and `-`)",
        ),
        (["--name", ""], "--name: `` is not a name for a sandbox (it is empty)"),
        (
            ["--user", "nobody"],
            "--user: `nobody` is not a user `UID[:GID]` (`nobody` is no number from 0 to 4294967293)",
        ),
        (
            ["--user", "4294967295"],
            "--user: `4294967295` is not a user `UID[:GID]` (`4294967295` is no number from 0 to 4294967293)",
        ),
        (["--env", "NAME"], "--env: `NAME` is not a variable `NAME=VALUE` (the `=` is missing)"),
        (["--keep-caps", "NET_ADMN"], "--keep-caps: `NET_ADMN` is not a capability (did you mean `CAP_NET_ADMIN`?)"),
    ] {
        refused(&world, &arguments, line);
    }
    refused(
        &world,
        &["--proxy", "127.0.0.1:3128", "--proxy-at", "203.0.113.9:3128"],
        "--proxy-at: `proxy-at = 203.0.113.9:3128` is not possible beside `proxy` (--proxy says `http://127.0.0.1:3128`; \
         with a proxy of its own address no other is started)",
    );
    refused(&world, &["--drop-caps", "--keep-caps", "CHOWN"], "--drop-caps: not possible beside --keep-caps");
    refused(
        &world,
        &["--learn", "x.toml"],
        "--learn: `learn = x.toml` is not possible without `audit` (what would be refused is learned while it passes)",
    );
    refused(&world, &["--audit", "--learn", ""], "--learn: `` is not a file (it is empty)");
    for (value, why) in [
        ("on", "a resolver is named by its address, and this is none"),
        ("ns.example", "a resolver is named by its address, and this is none"),
        ("", "a resolver is named by its address, and this is none"),
        ("203.0.113.53:0", "port 0 cannot be connected to"),
        ("203.0.113.53:65536", "`65536` is no port from 1 to 65535"),
        ("2001:db8::53:x", "several colons, and no IPv6 address in brackets such as `[2001:db8::9]:53`"),
    ] {
        let what = "is not `auto`, `open`, `off` or a resolver `ADDRESS[:PORT]`";
        refused(&world, &["--dns", value], &format!("--dns: `{value}` {what} ({why})"));
    }
    for value in ["1d", "86401", "", "1.5"] {
        let line = format!("--dns-grace: `{value}` is not whole seconds from 0 to 86400");
        refused(&world, &["--dns-grace", value], &line);
    }
    refused(
        &world,
        &["--private-name", "*"],
        "--private-name: `*` is not a DNS name or `*.NAME` (a lone `*` is everybody: name who may be reached)",
    );
    refused(&world, &["-q", "-v"], "--quiet: not possible beside --verbose");
    refused(&world, &["--name", "a", "--name", "b"], "--name: `b` is not the only `name` (--name says `a`)");
    refused(&world, &["--policy", "a", "--policy", "a"], "--policy: it may be given once, and is given again");
}

/// As `docs/policy.md` says of one layer, and files are not the only layer.
#[test]
fn twice_the_same_is_no_error() {
    let Some(world) = World::new() else { return };
    let mut command =
        world.ringfence("run --dns auto --dns auto --audit --audit --share-pid --share-pid --tampering end".split(' '));
    command.args("--tampering end --seccomp off --seccomp off --user 0:0 --user 0:0 -q".split(' '));
    command.args(["--keep-caps", "kill", "--keep-caps", "chown,kill", "--", "grep", "CapEff", "/proc/self/status"]);
    let output = world.output(command);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    // Lists grow.
    assert_eq!(text(&output.stdout).trim_end(), "CapEff:\t0000000000000021");
    let output = world.run("run --drop-caps --drop-caps -- true");
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

#[test]
fn names_that_cannot_be() {
    let Some(world) = World::new() else { return };
    for name in ["HTTPS_PROXY", "no_proxy", "SSL_CERT_FILE"] {
        refused(
            &world,
            &["--allow", "web.example", "--credential", &format!("{name}=env:PATH,to=web.example")],
            &format!(
                "--credential: no credential can be named `{name}`: it is a variable that ringfence sets, of proxies or of whom to trust"
            ),
        );
    }
    for (value, why) in [
        ("a..b:5", "a label is empty"),
        ("a b:5", "` ` is no character of a name"),
        ("*.:5", "the host is missing"),
        ("*.*.example:5", "only the first label may be `*`"),
        ("xn--:5", "the label `xn--` starts or ends with a hyphen"),
    ] {
        for flag in ["--direct", "--direct-udp"] {
            refused(&world, &[flag, value], &format!("{flag}: `{value}` is not a direct endpoint `HOST:PORT` ({why})"));
        }
    }
    refused(
        &world,
        &["--direct", "a.example:5,,b.example:6"],
        "--direct: `a.example:5,,b.example:6` is not a list of entries separated by commas (entry 2 is empty)",
    );
    for (value, why) in [
        ("*", "a lone `*` is everybody: name who may be reached"),
        ("a..b", "a label is empty"),
        ("203.0.113.9:1", "a host is due here, without a port"),
        ("", "it is empty"),
    ] {
        let line = format!("--direct-host: `{value}` is not a host to reach on TCP port 443 ({why})");
        refused(&world, &["--direct-host", value], &line);
    }
}

#[test]
fn arguments_that_the_parser_refuses() {
    let Some(world) = World::new() else { return };
    let behind = "a command is written behind `--`, and so are its arguments";
    let help = "--help lists the flags and what they take";
    for (arguments, lines) in [
        (vec!["run"], ["there is no command", "write it behind `--`: ringfence run --allow example.com -- CMD"]),
        (vec!["run", "--"], ["there is no command", "write it behind `--`: ringfence run --allow example.com -- CMD"]),
        (vec!["run", "--", ""], ["the command is empty", "write a program's name behind `--`"]),
        (vec!["run", "true"], ["`true` is neither a flag nor a flag's value", behind]),
        (vec!["run", "--alow", "x", "--", "true"], ["`--alow` is no flag here", "did you mean `--allow`?"]),
        (vec!["run", "--zzz", "--", "true"], ["`--zzz` is no flag here", help]),
        (vec!["run", "--zzz=\u{1b}[2J\n", "--", "true"], ["`--zzz` is no flag here", help]),
        (vec!["run", "--z\u{1b}[2J\r\n\u{7}", "--", "true"], [r"`--z\u{1b}[2J\r\n\u{7}` is no flag here", help]),
        (vec!["run", "--allow"], ["--allow: the value is missing", help]),
        (vec!["plna"], ["`plna` is no command of ringfence", "did you mean `plan`?"]),
        (vec!["fence"], ["`fence` is no command of ringfence", "try `ringfence --help`"]),
        (vec!["plan", "extra"], ["`extra` is neither a flag nor a flag's value", behind]),
        (vec!["plan", "--format", "jsn"], ["--format: `jsn` is none of text, json, nft, dot", "did you mean `json`?"]),
    ] {
        ends(&world, world.ringfence(arguments), 125, &lines);
    }
    let bytes = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    let command =
        world.ringfence([OsStr::new("run"), &bytes(b"--allow=a\xff\x1b"), OsStr::new("--"), OsStr::new("true")]);
    ends(&world, command, 125, &[r"argument `--allow=a\xff\x1b` is not UTF-8 text"]);
}

#[test]
fn policy_files_that_cannot_be() {
    let Some(world) = World::new() else { return };
    let file = world.directory().join("policy.toml");
    let path = file.to_str().unwrap();
    for (content, line) in [
        (&b"alow = [\"web.example\"]"[..], ":1:1: `alow` is not a key of a policy file (did you mean `allow`?)"),
        (
            b"allow = [\"web.example\"]\n\n  direct-hots = \"x\"",
            ":3:3: `direct-hots` is not a key of a policy file (did you mean `direct-host`?)",
        ),
        (
            b"direct = [\n  \"203.0.113.9:80\",\n  \"203.0.113.9:0\",\n]",
            ":3:3: `203.0.113.9:0` is not a direct endpoint `HOST:PORT` (port 0 cannot be connected to)",
        ),
        (b"allow = [\"a\xff\"]", ":1:12: `byte 0xff` is not UTF-8 text"),
        (b"allow = [\n", r":1:10: `\n` is not TOML here (unclosed array, expected `]`)"),
        (b"[direct]\nx = 1", ":1:1: `direct = <table>` is not a string, or a list of strings"),
        (
            b"allow = \"\\u001b[2J\\nx\"",
            r":1:9: `\u{1b}[2J\nx` is not a destination `HOST[:PORT]` (`\u{1b}` is no character of a name)",
        ),
    ] {
        std::fs::write(&file, content).unwrap();
        refused(&world, &["--policy", path], &format!("{path}{line}"));
        let mut command = world.ringfence(["run", "--", "true"]);
        command.env("RINGFENCE_POLICY", path);
        ends(&world, command, 125, &[&format!("{path}{line}")]);
    }
    refused(
        &world,
        &["--policy", "/no/such"],
        "--policy: can't read policy file `/no/such`: No such file or directory (os error 2)",
    );
    refused(&world, &["--policy", "/"], "--policy: can't read policy file `/`: Is a directory (os error 21)");
    refused(
        &world,
        &["--policy", "/no\u{1b}[2J\n"],
        r"--policy: can't read policy file `/no\u{1b}[2J\n`: No such file or directory (os error 2)",
    );
    let mut command = world.ringfence(["run", "--", "true"]);
    command.env("RINGFENCE_POLICY", "/no/such");
    ends(
        &world,
        command,
        125,
        &["RINGFENCE_POLICY: can't read policy file `/no/such`: No such file or directory (os error 2)"],
    );
    // A file without end.
    let output = world.run("run --policy /dev/zero -- true");
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).starts_with("ringfence: /dev/zero:"), "{}", text(&output.stderr));
}

#[test]
fn variables_that_cannot_be() {
    let Some(world) = World::new() else { return };
    let endpoint = "is not a direct endpoint `HOST:PORT`";
    for (name, value, line) in [
        ("RINGFENCE_DIRECT_TCP_ENDPOINTS", "web.example", format!("`web.example` {endpoint} (the port is missing: write `web.example:443`)")),
        ("OPENSHELL_DIRECT_TCP_ENDPOINTS", "web.example:99999", format!("`web.example:99999` {endpoint} (`99999` is no port from 1 to 65535)")),
        ("RINGFENCE_DIRECT_TCP_HOSTS", "*", "`*` is not a host to reach on TCP port 443 (a lone `*` is everybody: name who may be reached)".into()),
        ("RINGFENCE_PROXY", "ftp://203.0.113.9", "`ftp://203.0.113.9` is not a proxy `http://[USER[:PASSWORD]@]HOST[:PORT]` or `HOST:PORT` (the scheme `ftp` is not supported, `http` is)".into()),
        ("RINGFENCE_DNS_SERVER", "web.example", "`web.example` is not `auto`, `open`, `off` or a resolver `ADDRESS[:PORT]` (a resolver is named by its address, and this is none)".into()),
    ] {
        let mut command = world.ringfence(["run", "--", "true"]);
        command.env(name, value);
        ends(&world, command, 125, &[&format!("{name}: {line}")]);
    }
    let mut command = world.ringfence(["run", "--", "true"]);
    command.env("RINGFENCE_PROXY", OsString::from_vec(b"\xff".to_vec()));
    ends(&world, command, 125, &["RINGFENCE_PROXY: `the value` is not UTF-8 text"]);
    // Whatever else is wrong with it, a password is not shown.
    let mut command = world.ringfence(["run", "--", "true"]);
    command.env("RINGFENCE_PROXY", "ftp://user:secret@203.0.113.9");
    let output = world.output(command);
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("ringfence: RINGFENCE_PROXY: ") && !stderr.contains("secret"), "{stderr}");
}

#[test]
fn commands_that_cannot_be_executed() {
    let Some(world) = World::new() else { return };
    let write = |name: &str, content: &str, mode| {
        let path = world.directory().join(name);
        std::fs::write(&path, content).unwrap();
        set_mode(&path, mode);
        path.to_str().unwrap().to_owned()
    };
    let plain = write("plain", "text", 0o644);
    let orphan = write("orphan", "#!/no/such/interpreter\n", 0o755);
    for (program, status, why) in [
        ("no-such-program", 127, "No such file or directory (os error 2)"),
        ("/no/such/program", 127, "No such file or directory (os error 2)"),
        ("/", 126, "it is a directory"),
        (plain.as_str(), 126, "Permission denied (os error 13)"),
        (orphan.as_str(), 127, "the interpreter that it asks for is not there"),
    ] {
        let line = format!("can't execute `{program}`: {why}");
        ends(&world, world.ringfence(["run", "--", program]), status, &[&line]);
    }
    let line = r"can't execute `/no\u{1b}]0;x\u{7}\nringfence: all is well`: No such file or directory (os error 2)";
    ends(&world, world.ringfence(["run", "--", "/no\u{1b}]0;x\u{7}\nringfence: all is well"]), 127, &[line]);
}

#[test]
fn without_the_privileges() {
    let Some(world) = World::new() else { return };
    // Nobody may read the build directory.
    let binary = world.directory().join("ringfence");
    std::fs::copy(RINGFENCE, &binary).unwrap();
    let mut command = world.program("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(binary).args([
        "run",
        "--allow",
        "web.example",
        "--",
        "true",
    ]);
    let before = world.state();
    let output = world.output(command);
    let stderr = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(125), ""), "{stderr}");
    let lines: Vec<&str> = stderr.lines().collect();
    assert!(lines[0].starts_with("ringfence: a sandbox takes CAP_SYS_ADMIN and CAP_NET_ADMIN to make: "), "{stderr}");
    assert!(lines[0].ends_with("Operation not permitted (os error 1)"), "{stderr}");
    let advice = "ringfence: run it as root, or in a user namespace of its own: unshare --user --map-root-user --net";
    assert_eq!(lines[1..], [advice]);
    world.nothing_left(&before, "by a caller without privileges");
}

#[test]
fn what_another_sandbox_has() {
    let Some(world) = World::new() else { return };
    let idle = world.state();
    let mut first =
        world.ringfence(["run", "--name", "taken", "--pool", "10.9.8.4/30", "--", "sh", "-c", "echo up; read end"]);
    first.stdin(std::process::Stdio::piped());
    let mut first = world.spawn(first);
    let mut up = [0; 3];
    std::io::Read::read_exact(first.stdout.as_mut().unwrap(), &mut up).unwrap();
    let command = world.ringfence(["run", "--pool", "10.9.8.4/30", "--", "true"]);
    ends(&world, command, 125, &["address pool 10.9.8.4/30 is exhausted", "take a larger pool"]);
    let command = world.ringfence(["run", "--name", "taken", "--", "true"]);
    ends(
        &world,
        command,
        125,
        &[
            "--name: can't name the sandbox `taken`: the name `taken` is taken",
            "take another name, or, if nobody uses it any more, delete it: ip netns delete taken",
        ],
    );
    drop(first.stdin.take());
    // `read` meets the end of file.
    assert_eq!(crate::world::finish(first).status.code(), Some(1));
    world.nothing_left(&idle, "by the first");
}

#[test]
fn where_standard_error_takes_nothing_the_status_is_the_same() {
    let Some(world) = World::new() else { return };
    for (arguments, status) in [
        ("run -- /nowhere/nosuch", 127),
        ("run -v -- sh -c 'exit 7'", 7),
        ("run --direct nothing -- true", 125),
        ("plan >/dev/full", 125),
        ("plan --nosuch", 125),
    ] {
        // No room, and no reader.
        for shell in [format!("exec \"$0\" {arguments} 2>/dev/full"), format!("sleep 1; exec \"$0\" {arguments}")] {
            let mut command = world.program("sh");
            command.args(["-c", &shell, RINGFENCE]);
            let mut child = world.spawn(command);
            drop(child.stderr.take());
            assert_eq!(finish(child).status.code(), Some(status), "{shell}");
        }
    }
}
