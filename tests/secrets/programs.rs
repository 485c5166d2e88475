//! Programs that others wrote, with a placeholder where their secret should be.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::office::{FLAGS, Office, TOKEN, good};
use crate::support::python;
use crate::world::oracle;

#[test]
fn curl_is_welcome_with_a_bearer_it_does_not_know() {
    let (Some(_), Some(office)) = (oracle("curl"), Office::new()) else { return };
    let ask = "curl -sS --fail --max-time 20 -H \"Authorization: Bearer $TOKEN\" https://web.example:8443/token";
    let http1 = ask.replace("-sS", "-sS --http1.1");
    for ask in [ask, http1.as_str()] {
        assert_eq!(good(office.run(&FLAGS, &["sh", "-c", ask])), "welcome\n");
    }
    // Twice on one connection.
    let twice = format!("{ask} https://web.example:8443/token");
    assert_eq!(good(office.run(&FLAGS, &["sh", "-c", &twice])), "welcome\nwelcome\n");
    assert!(office.heard().contains(TOKEN));
    // Without a credential nobody looks into the tunnel, and the placeholder is what it is.
    let output =
        office.run(&["--allow", "web.example"], &["sh", "-c", &format!("TOKEN=x; {ask} --cacert /dev/null -k")]);
    assert_eq!(output.status.code(), Some(22));
}

#[test]
fn curl_uploads_and_downloads_through() {
    let (Some(_), Some(office)) = (oracle("curl"), Office::new()) else { return };
    let flags =
        ["--allow", "web.example", "--credential", "TOKEN=env:API_TOKEN,to=web.example:8443,in=header+query+body"];
    let echo = "curl -sS --fail --max-time 20 https://web.example:8443/echo";
    for (more, sent) in [
        ("-d \"key=$TOKEN&x=1\"", "key=s3cr3t%2FToken%2Bof%3Dthe%26api&x=1"),
        (
            "-H 'Content-Type: application/json' -d \"{\\\"key\\\":\\\"$TOKEN\\\"}\"",
            "{\\\"key\\\":\\\"s3cr3t/Token+of=the&api\\\"}",
        ),
        (
            "-H 'Transfer-Encoding: chunked' -H 'Content-Type: text/plain' -d \"$TOKEN.$TOKEN\"",
            "s3cr3t/Token+of=the&api.s3cr3t/Token+of=the&api",
        ),
        ("-G --data-urlencode \"key=$TOKEN\"", "GET /echo?key=s3cr3t%2FToken%2Bof%3Dthe%26api HTTP/1.1"),
        ("-u \"alice:$TOKEN\"", "Basic YWxpY2U6czNjcjN0L1Rva2VuK29mPXRoZSZhcGk="),
    ] {
        let shown = good(office.run(&flags, &["sh", "-c", &format!("{echo} {more}")]));
        let heard = office.heard();
        assert!(heard.contains(sent), "{more}: {heard}");
        // What comes back says what the program said.
        assert!(!shown.contains("s3cr3t") && !shown.contains("czNjcjN0"), "{more}: {shown}");
    }
}

#[test]
fn git_clones_a_private_repository() {
    let (Some(_), Some(office)) = (oracle("git"), Office::new()) else { return };
    let script = "cd \"$HOME\" && export GIT_CONFIG_NOSYSTEM=1 && git init -q -b main work && cd work && \
        head -c 300000 /dev/urandom > blob && git add blob && \
        git -c user.name=a -c user.email=a@example commit -q -m first && git clone -q --bare . ../private.git && \
        git -C ../private.git config http.receivepack true";
    let mut prepare = office.world.program("sh");
    prepare.args(["-c", script]);
    good(office.world.output(prepare));
    let clone = "cd \"$(mktemp -d)\" && export GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0 && \
        git clone -q \"https://alice:$TOKEN@web.example:8443/git/private.git\" copy && cd copy && cmp blob \"$HOME/work/blob\" && \
        echo more > more && git add more && git -c user.name=a -c user.email=a@example commit -q -m second && \
        git push -q origin main && ! grep -r s3cr3t . && echo cloned and pushed";
    assert_eq!(good(office.run(&FLAGS, &["sh", "-c", clone])), "cloned and pushed\n");
    let wrong = clone.replace("alice:$TOKEN@", "");
    assert!(!office.run(&FLAGS, &["sh", "-c", &wrong]).status.success());
}

/// A Python that has pip, or a loud skip.
fn pip() -> Option<PathBuf> {
    oracle("pip").or_else(|| oracle("pip3"))?;
    let mut ask = Command::new("python3");
    let found = ask.args(["-c", "import pip, sys; print(sys.executable)"]).output().ok()?;
    let path = String::from_utf8(found.stdout).ok()?;
    (found.status.success()).then(|| PathBuf::from(path.trim()))
}

#[test]
fn pip_installs_from_a_registry_behind_a_password() {
    let (Some(python), Some(office)) = (pip(), Office::new()) else { return };
    let python = python.to_str().unwrap().to_owned();
    let install = "cd \"$(mktemp -d)\" && \"$0\" -I -m pip -q --disable-pip-version-check --no-cache-dir --no-input install \
        --index-url \"https://alice:$TOKEN@web.example:8443/simple/\" --target lib fenced && cat lib/fenced.py";
    let mut run = office.ringfence(&FLAGS, &["sh", "-c", install, &python]);
    run.env("PIP_ROOT_USER_ACTION", "ignore");
    assert_eq!(good(office.world.output(run)), "ANSWER = 42\n");
    // requests, as pip has it.
    let script = "import os, sys\nfrom pip._vendor import requests\n\
        answer = requests.get('https://web.example:8443/token', headers={'Authorization': 'Bearer ' + os.environ['TOKEN']})\n\
        print(answer.text, end='')";
    // -I would leave out REQUESTS_CA_BUNDLE no more than HTTPS_PROXY: both are read by requests, not by Python.
    assert_eq!(good(office.run(&FLAGS, &[&python, "-I", "-c", script])), "welcome\n");
}

#[test]
fn pythons_urllib_is_welcome() {
    let (Some(python), Some(office)) = (python(), Office::new()) else { return };
    let script = "import os, urllib.request\n\
        ask = urllib.request.Request('https://web.example:8443/token', headers={'Authorization': 'Bearer ' + os.environ['TOKEN']})\n\
        print(urllib.request.urlopen(ask, timeout=20).read().decode(), end='')";
    // -I, for OpenSSL's own variable is read by OpenSSL.
    assert_eq!(good(office.run(&FLAGS, &[python, "-I", "-c", script])), "welcome\n");
}

#[test]
fn npm_installs_from_a_registry_behind_a_password() {
    let (Some(_), Some(_), Some(office)) = (oracle("npm"), oracle("node"), Office::new()) else { return };
    let install = "cd \"$(mktemp -d)\" && echo '{\"name\":\"x\",\"version\":\"1.0.0\"}' > package.json && \
        printf '//web.example:8443/npm/:_auth=%s\\nupdate-notifier=false\\nfund=false\\naudit=false\\n' \
            \"$(printf %s \"alice:$TOKEN\" | base64 -w0)\" > .npmrc && \
        HOME=$PWD npm install --registry https://web.example:8443/npm/ --silent --no-progress fenced && \
        node -p 'require(\"fenced\")'";
    assert_eq!(good(office.run(&FLAGS, &["sh", "-c", install])), "42\n");
}

/// Whether this Node's own `fetch` can go through a proxy by itself.
fn node_knows_proxies() -> bool {
    let asked = Command::new("node").args(["-p", "process.versions.node"]).output();
    let version = asked.map(|asked| String::from_utf8_lossy(&asked.stdout).into_owned()).unwrap_or_default();
    let mut parts = version.trim().split('.').map(|part| part.parse::<u32>().unwrap_or_default());
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    major >= 24 || major == 22 && minor >= 21
}

#[test]
fn node_is_welcome_through_a_tunnel_that_it_opens() {
    let (Some(_), Some(office)) = (oracle("node"), Office::new()) else { return };
    let tunnel = "const http = require('http'), https = require('https'), proxy = new URL(process.env.HTTPS_PROXY);\
        http.request({ host: proxy.hostname, port: proxy.port, method: 'CONNECT', path: 'web.example:8443' })\
        .on('connect', (_, socket) => https.get({ host: 'web.example', path: '/token', port: 8443, servername: 'web.example', \
            createConnection: () => require('tls').connect({ socket, servername: 'web.example' }), \
            headers: { Authorization: 'Bearer ' + process.env.TOKEN } }, \
            answer => answer.on('data', data => process.stdout.write(data)).on('end', () => process.exit()))).end()";
    assert_eq!(good(office.run(&FLAGS, &["node", "-e", tunnel])), "welcome\n");
}

#[test]
fn nodes_own_fetch_is_welcome() {
    let (Some(_), Some(office)) = (oracle("node"), Office::new()) else { return };
    let fetch = "fetch('https://web.example:8443/token', { headers: { Authorization: 'Bearer ' + process.env.TOKEN } })\
        .then(async answer => process.stdout.write(await answer.text()))";
    if node_knows_proxies() {
        assert_eq!(good(office.run(&FLAGS, &["node", "-e", fetch])), "welcome\n");
        return;
    }
    // What docs/known-limits.md names for older ones: undici shows the way to the proxy, and `fetch` stays Node's own.
    // Debian's own node looks there by itself, another one does not. The sandbox's environment is the test's own.
    let modules = std::env::var("NODE_PATH").unwrap_or_else(|_| "/usr/share/nodejs".to_owned());
    let mut undici = Command::new("node");
    let undici = undici.args(["-e", "require('undici')"]).env("NODE_PATH", &modules).stderr(Stdio::null()).status();
    if !undici.is_ok_and(|status| status.success()) {
        eprintln!(
            "SKIPPED, NODE'S FETCH WAS NOT TESTED: before 22.21 it finds no proxy, and undici (Debian's node-undici) is not here"
        );
        return;
    }
    let shown = format!(
        "const {{ ProxyAgent, setGlobalDispatcher }} = require('undici');\
        setGlobalDispatcher(new ProxyAgent(process.env.HTTPS_PROXY)); {fetch}"
    );
    let path = format!("NODE_PATH={modules}");
    let flags = [&FLAGS[..], &["--env", &path]].concat();
    assert_eq!(good(office.run(&flags, &["node", "-e", &shown])), "welcome\n");
}
