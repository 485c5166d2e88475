//! What a program can find out that wants the secret itself.

use crate::office::{CLEAR, FLAGS, Office, TOKEN, good};
use crate::support::python;
use crate::world::{oracle, text};

#[test]
fn nowhere_inside_is_the_value() {
    let (Some(python), Some(office)) = (python(), Office::new()) else { return };
    // Everything that the program may read of every process it can see, and of its own environment.
    let script = "import glob, os\n\
        needle = os.environ['NEEDLE'][::-1].encode()\n\
        seen = 0\n\
        for path in glob.glob('/proc/[0-9]*/*') + glob.glob('/proc/[0-9]*/task/*/*') + glob.glob('/proc/[0-9]*/fd/*'):\n\
        \x20   if os.path.basename(path) in ('kmsg', 'mem', 'pagemap', 'clear_refs') or not os.path.isfile(path): continue\n\
        \x20   try: data = open(path, 'rb').read(1 << 20)\n\
        \x20   except OSError: continue\n\
        \x20   seen += 1\n\
        \x20   if needle in data: print('found in', path)\n\
        print(seen > 20, os.environ['TOKEN'], 'API_TOKEN' in os.environ, 'ALSO_THE_TOKEN' in os.environ)\n\
        for path in ('/proc/1/environ', '/proc/1/mem', '/proc/1/maps'):\n\
        \x20   try: open(path, 'rb').read(1); print(path, 'can be read')\n\
        \x20   except OSError: pass\n\
        for name in os.listdir('/proc/self/fd'): \n\
        \x20   if int(name) > 3: print('descriptor', name)";
    let reversed: String = TOKEN.chars().rev().collect();
    for user in [&[][..], &["--user", "0:0"], &["--user", "1000:1000"], &["--keep-caps", "SYS_PTRACE"]] {
        let flags = [&FLAGS[..], user, &["--env"]].concat();
        let needle = format!("NEEDLE={reversed}");
        let flags = [&flags[..], &[needle.as_str()]].concat();
        let shown = good(office.run(&flags, &[python, "-I", "-c", script]));
        assert_eq!(shown, "True ringfence-TOKEN-secret False False\n", "{user:?}");
    }
}

#[test]
fn a_placeholder_goes_nowhere_else_and_is_told() {
    let (Some(_), Some(office)) = (oracle("curl"), Office::new()) else { return };
    let ask = |more: &str, url: &str| {
        let command = format!("curl -sS --max-time 20 -D - {more} {url}");
        let shown = good(office.run(&FLAGS, &["sh", "-c", &command]));
        let heard = office.heard();
        assert!(!heard.contains("s3cr3t"), "{more} {url}: {heard}");
        assert!(!shown.contains("s3cr3t"), "{more} {url}: {shown}");
        (shown, heard)
    };
    let bearer = "-H \"Authorization: Bearer $TOKEN\"";
    // In the clear, to the right host and to a wrong one: seen, and refused.
    for host in ["web.example", "other.example"] {
        for more in [bearer, "-u \"a:$TOKEN\"", "-H \"Cookie: a=$TOKEN\"", "-G -d \"a=$TOKEN\""] {
            let (shown, heard) = ask(more, &format!("http://{host}:{CLEAR}/echo"));
            assert!(
                shown.contains("403 Forbidden") && shown.contains("X-Ringfence-Denied: credential")
                    || shown.contains("x-ringfence-denied: credential"),
                "{shown}"
            );
            assert!(shown.contains("credential `TOKEN` may not go with this request"), "{shown}");
            assert_eq!(heard, "", "{more}");
        }
    }
    // Inside of TLS to an allowed host that is none of the credential's, the origin gets what the program has: a word.
    let (shown, _) = ask(bearer, "https://other.example:8443/echo");
    assert!(shown.contains("Bearer ringfence-TOKEN-secret"), "{shown}");
    // A name that no credential has.
    let (shown, heard) = ask("-H 'X-Key: ringfence-OTHER-secret'", "https://web.example:8443/echo");
    assert!(shown.contains("there is no credential `OTHER`") && heard.is_empty(), "{shown}");
    // A host that is not allowed at all.
    let (shown, _) = ask(bearer, "http://198.51.100.254/");
    assert!(shown.contains("is not on the allow-list"), "{shown}");
    // The right host's connection, with another host's name in the request.
    let (shown, heard) = ask("-H 'Host: other.example'", "https://web.example:8443/echo");
    assert!(shown.contains(" 421") && heard.is_empty(), "{shown}");
}

#[test]
fn the_file_that_a_value_came_from_holds_the_placeholder() {
    let (Some(_), Some(office)) = (oracle("curl"), Office::new()) else { return };
    let file = office.path("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    std::os::unix::fs::symlink(&file, office.path("link")).unwrap();
    let link = office.path("link").display().to_string();
    let credential = format!("TOKEN=file:{link},to=web.example:8443");
    let asks = format!(
        "cat {link} {}; curl -sS --max-time 20 -H \"Authorization: Bearer $(cat {link})\" https://web.example:8443/token",
        file.display()
    );
    // Under Landlock and as somebody else, too.
    for more in [
        &[][..],
        &["--user", "1000:1000"],
        &["--landlock", "required", "--ro", office.world.directory().to_str().unwrap()],
    ] {
        let flags = [&["--allow", "web.example", "--credential", &credential], more].concat();
        let shown = good(office.run(&flags, &["sh", "-c", &asks]));
        assert_eq!(shown, "ringfence-TOKEN-secret\nringfence-TOKEN-secret\nwelcome\n", "{more:?}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{TOKEN}\n"));
}

#[test]
fn no_log_and_no_plan_has_the_value() {
    let (Some(_), Some(office)) = (oracle("curl"), Office::new()) else { return };
    let flags = [&FLAGS[..], &["-vv"]].concat();
    let asks = "curl -sS --max-time 20 -H \"Authorization: Bearer $TOKEN\" https://web.example:8443/token; \
        curl -sS --max-time 20 -u \"a:$TOKEN\" \"https://web.example:8443/echo?$TOKEN\" > /dev/null; \
        curl -sS --max-time 20 -u \"a:$TOKEN\" http://web.example:8000/echo > /dev/null";
    let output = office.run(&flags, &["sh", "-c", asks]);
    let told = text(&output.stderr);
    assert_eq!(text(&output.stdout), "welcome\n", "{told}");
    assert!(office.heard().contains(TOKEN));
    assert!(told.contains("denied") && told.contains("let through"), "{told}");
    assert!(!told.contains("s3cr3t") && !told.contains("czNjcjN0"), "{told}");
    let mut plan = office.world.ringfence(["plan", "--format", "json"].iter().chain(&FLAGS));
    plan.env("API_TOKEN", TOKEN).env("SSL_CERT_FILE", office.path("roots.pem"));
    let plan = good(office.world.output(plan));
    assert!(
        plan.contains("ringfence-TOKEN-secret") && plan.contains("SSL_CERT_FILE") && !plan.contains("s3cr3t"),
        "{plan}"
    );
}

#[test]
fn an_origin_that_is_not_who_it_says_gets_nothing() {
    let (Some(_), Some(office)) = (oracle("curl"), Office::new()) else { return };
    let flags = ["--allow", "wrong.example", "--credential", "TOKEN=env:API_TOKEN,to=wrong.example:9443"];
    for version in ["--http1.1", "--http2"] {
        let ask = format!(
            "curl -sS {version} --max-time 20 -w '%{{http_code}}' -H \"X: $TOKEN\" https://wrong.example:9443/echo"
        );
        let shown = good(office.run(&flags, &["sh", "-c", &ask]));
        assert!(
            shown.ends_with("502")
                && shown.contains("can't begin TLS with wrong.example:9443: invalid peer certificate"),
            "{shown}"
        );
    }
    assert_eq!(office.heard(), "");
}

#[test]
fn values_that_can_not_be_had_end_it_before_it_begins() {
    let Some(office) = Office::new() else { return };
    for (credential, error) in [
        (
            "T=env:NOT_SET,to=web.example",
            "--credential: can't take credential `T` from env:NOT_SET: the variable is not set",
        ),
        (
            "T=command:printf s3cr3t\\r\\nX:,to=web.example",
            "the value has a line end or another control character in it",
        ),
    ] {
        let output = office.run(&["--allow", "web.example", "--credential", credential], &["true"]);
        let shown = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{shown}");
        assert!(shown.contains(error) && shown.starts_with("ringfence: "), "{shown}");
    }
    let mut run = office.ringfence(&FLAGS, &["true"]);
    run.env("SSL_CERT_FILE", "/dev/null");
    let output = office.world.output(run);
    assert_eq!(text(&output.stderr), "ringfence: found no trusted certificates from `/dev/null`\n");
}

#[test]
fn nothing_is_left_when_the_supervisor_is_killed() {
    let (Some(_), Some(office)) = (oracle("curl"), Office::new()) else { return };
    let before = (office.world.state(), std::fs::read(office.path("roots.pem")).unwrap());
    let command = "curl -sS --max-time 20 -H \"Authorization: Bearer $TOKEN\" https://web.example:8443/token; \
        grep -c BEGIN \"$SSL_CERT_FILE\"; exec sleep 60";
    let mut child = office.world.spawn(office.ringfence(&FLAGS, &["sh", "-c", command]));
    let mut said = String::new();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
    for _ in 0..2 {
        std::io::BufRead::read_line(&mut lines, &mut said).unwrap();
    }
    // The host's one root, and the sandbox's own.
    assert_eq!(said, "welcome\n2\n");
    assert_eq!(std::fs::read(office.path("roots.pem")).unwrap(), before.1);
    child.kill().unwrap();
    child.wait().unwrap();
    office.world.nothing_left(&before.0, "by a supervisor that was killed");
    assert_eq!(std::fs::read(office.path("roots.pem")).unwrap(), before.1);
}
