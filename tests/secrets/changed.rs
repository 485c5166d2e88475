//! Rules that change while a sandbox stands.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};

use crate::office::{Office, TLS};
use crate::world::oracle;

/// Opens a tunnel, asks in it once, says the status, and then waits for whatever comes; over TLS.
const PROGRAM: &str = r#"
import errno, os, socket, ssl, sys
host, port, tls = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "tls"
proxy = os.environ["http_proxy"].split("//")[1].split(":")
sock = socket.create_connection((proxy[0], int(proxy[1])))
sock.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
head = sock.recv(4096)
if tls and b" 200 " in head:
    context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    sock = context.wrap_socket(sock, server_hostname=host)
    sock.sendall(f"GET /open HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    head = sock.recv(4096)
print(head.split()[1].decode(), flush=True)
sock.settimeout(10)
try:
    # Past TLS, which takes a reset for an end.
    raw = socket.socket(fileno=os.dup(sock.fileno()))
    raw.settimeout(10)
    while raw.recv(4096): pass
    print("ended", flush=True)
except OSError as error:
    print(errno.errorcode.get(error.errno, repr(error)), flush=True)
sys.stdin.read()
"#;

#[test]
fn a_tunnel_is_cut_with_the_rule_that_let_it_through() {
    let (Some(python), Some(office)) = (crate::support::python(), Office::new()) else { return };
    let rule = format!("GET https://web.example:{TLS}/*");
    let file = office.path("program.py");
    std::fs::write(&file, PROGRAM).unwrap();
    let policy = |words: &[&str]| {
        let output = office.world.output(office.world.ringfence(["policy"].iter().chain(words)));
        (output.status.success(), crate::world::text(&output.stdout), crate::world::text(&output.stderr))
    };
    let command =
        [python, "-I", &file.display().to_string(), "web.example", &TLS.to_string(), "tls"].map(str::to_owned);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let flags = ["--name", "changed", "--allow", &rule, "--credential", "T=env:API_TOKEN,to=other.example"];
    let mut run = office.ringfence(&flags, &command);
    run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut run = office.world.spawn(run);
    let mut said = BufReader::new(run.stdout.take().unwrap());
    let mut hear = || {
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    assert_eq!(hear(), "200");
    // What is shown says the rule and the credential, and is taken back without a change.
    let (_, shown, error) = policy(&["show", "changed"]);
    assert!(shown.contains(&rule) && shown.contains("from = \"env:API_TOKEN\"\n"), "{shown}{error}");
    std::fs::write(office.path("shown.toml"), &shown).unwrap();
    let (good, _, error) = policy(&["set", "changed", "--policy", &office.path("shown.toml").display().to_string()]);
    assert!(good, "{error}");
    assert_eq!(policy(&["show", "changed"]).1, shown);
    let other = ["set", "changed", "--allow", &rule, "--credential", "T=env:OTHER,to=other.example"];
    let (good, _, error) = policy(&other);
    assert!(!good && error.contains("`credential` can't change while a sandbox stands"), "{error}");
    let (good, _, error) = policy(&["revoke", "changed", "--allow", &rule]);
    assert!(good, "{error}");
    assert_eq!(hear(), "ECONNRESET");
    drop(run.stdin.take());
    let mut error = String::new();
    run.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    assert!(run.wait().unwrap().success(), "{error}");
}

/// A sandbox whose program asks for what it is told to.
struct Asking<'a> {
    office: &'a Office,
    name: &'a str,
    run: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl<'a> Asking<'a> {
    fn new(office: &'a Office, name: &'a str, flags: &[&str]) -> Self {
        let program = "while read -r line; do \
            eval \"curl -sS --max-time 20 -o /dev/null -w '%{http_connect} %{http_code}\\n' $line\" 2>&1 | tail -n 1; done";
        let mut run = office.ringfence(&[&["--name", name], flags].concat(), &["sh", "-c", program]);
        run.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut run = office.world.spawn(run);
        let said = BufReader::new(run.stdout.take().unwrap());
        Self { office, name, run, said }
    }

    /// What the proxy says of the tunnel, and what comes of the request in it.
    fn ask(&mut self, words: &str) -> String {
        writeln!(self.run.stdin.as_mut().unwrap(), "{words}").unwrap();
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn policy(&self, what: &str, entry: &str) -> Result<(), String> {
        let output =
            self.office.world.output(self.office.world.ringfence(["policy", what, self.name, "--allow", entry]));
        if output.status.success() { Ok(()) } else { Err(crate::world::text(&output.stderr)) }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        drop(self.run.stdin.take());
        let _ = self.run.wait();
    }
}

#[test]
fn a_rule_about_tls_needs_a_program_that_trusts_the_proxy() {
    let (Some(_), Some(office)) = (oracle("curl"), Office::new()) else { return };
    let (open, rule) = (format!("https://web.example:{TLS}/open"), format!("GET https://web.example:{TLS}/open"));
    // Nothing was looked into when this began: it says so, and nothing has changed.
    let mut closed = Asking::new(&office, "closed", &["--allow", "other.example"]);
    assert_eq!(closed.ask(&open), "403 000");
    for what in ["allow", "set"] {
        let error = closed.policy(what, &rule).unwrap_err();
        assert!(
            error.contains(&format!("`--allow '{rule}'` has TLS looked into"))
                && error.contains("start it with the rule, or with a credential"),
            "{error}"
        );
    }
    assert_eq!(closed.ask(&open), "403 000");
    // A rule about the clear needs no trust.
    let clear = format!("http://web.example:{}/open", crate::office::CLEAR);
    closed.policy("allow", &format!("GET {clear}")).unwrap();
    assert_eq!(closed.ask(&clear), "000 200");
    assert_eq!(closed.ask(&format!("-X DELETE {clear}")), "000 403");

    let mut looking = Asking::new(
        &office,
        "looking",
        &["--allow", "other.example", "--credential", "T=env:API_TOKEN,to=elsewhere.example"],
    );
    assert_eq!(looking.ask(&open), "403 000");
    looking.policy("allow", &rule).unwrap();
    assert_eq!(looking.ask(&open), "200 200");
    assert_eq!(looking.ask(&format!("-X DELETE {open}")), "200 403");
    assert_eq!(looking.ask(&format!("https://web.example:{TLS}/echo")), "200 403");
    looking.policy("revoke", &rule).unwrap();
    assert_eq!(looking.ask(&open), "403 000");
}
