//! A world with an origin behind a password in it, and a supervisor that knows the password.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::support::{python, until};
use crate::world::{World, text};

/// The secret that the stand-in asks for: with everything in it that a careless proxy would get wrong.
pub const TOKEN: &str = "s3cr3t/Token+of=the&api";
/// In which ports the stand-in listens, over TLS and in the clear.
pub const TLS: u16 = 8443;
pub const CLEAR: u16 = 8000;

/// A world, and servers in its internet: `web.example` is trusted by the host, the other names are somebody else's.
pub struct Office {
    pub world: World,
    servers: Vec<Child>,
}

impl Drop for Office {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

impl Office {
    pub fn new() -> Option<Self> {
        let python = python()?;
        let world = World::new()?;
        let mut office = Self { world, servers: Vec::new() };
        let hosts =
            "127.0.0.1 localhost\n203.0.113.9 web.example\n203.0.113.10 other.example\n203.0.113.10 wrong.example\n";
        std::fs::write(office.path("hosts"), hosts).unwrap();
        std::fs::create_dir(office.path("git")).unwrap();
        let trusted = certificates(&office, "trusted", &["web.example", "other.example"]);
        let stranger = certificates(&office, "stranger", &["wrong.example"]);
        std::fs::copy(office.path("trusted.ca"), office.path("roots.pem")).unwrap();
        for (address, port, chain) in [
            ("203.0.113.9", TLS, Some(&trusted)),
            ("203.0.113.10", TLS, Some(&trusted)),
            ("203.0.113.10", 9443, Some(&stranger)),
            ("203.0.113.9", CLEAR, None),
            ("203.0.113.10", CLEAR, None),
        ] {
            let mut command = office.world.program(python);
            command.arg("-I").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/secrets/stand_in.py"));
            command.args([address, &port.to_string()]).arg(office.world.directory());
            command.args(chain.into_iter().flatten());
            command.stdout(Stdio::null()).stderr(Stdio::inherit());
            office.servers.push(office.world.spawn_there(command));
            until("the stand-in listens", || {
                let dial = || std::net::TcpStream::connect((address, port)).is_ok();
                office.world.outer.internet.run(dial).unwrap()
            });
        }
        Some(office)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.world.directory().join(name)
    }

    /// `ringfence run` with those flags, by a supervisor that holds the secret.
    pub fn ringfence(&self, flags: &[&str], command: &[&str]) -> Command {
        let arguments = ["run"].iter().chain(flags).chain(&["--"]).chain(command);
        let mut run = self.world.ringfence(arguments);
        run.env("API_TOKEN", TOKEN).env("ALSO_THE_TOKEN", format!("Bearer {TOKEN}"));
        run.env("SSL_CERT_FILE", self.path("roots.pem"));
        run
    }

    /// Runs that to its end.
    pub fn run(&self, flags: &[&str], command: &[&str]) -> Output {
        self.world.output(self.ringfence(flags, command))
    }

    /// What the origins heard, and forgets it.
    pub fn heard(&self) -> String {
        let heard = std::fs::read_to_string(self.path("heard")).unwrap_or_default();
        let _ = std::fs::remove_file(self.path("heard"));
        heard
    }
}

/// The flags under which the stand-in is reached with its secret, by the name of `TOKEN`.
pub const FLAGS: [&str; 4] =
    ["--allow", "web.example,other.example,wrong.example", "--credential", "TOKEN=env:API_TOKEN,to=web.example:8443"];

/// Makes an authority and a certificate of its own: the paths of chain and key.
fn certificates(office: &Office, name: &str, hosts: &[&str]) -> [PathBuf; 2] {
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("{name} authority of a test"));
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(params, authority_key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(hosts.iter().map(|host| host.to_string()).collect::<Vec<_>>()).unwrap();
    params.use_authority_key_identifier_extension = true;
    let leaf = params.signed_by(&key, &issuer).unwrap();
    let paths = [office.path(&format!("{name}.pem")), office.path(&format!("{name}.key"))];
    std::fs::write(office.path(&format!("{name}.ca")), authority.pem()).unwrap();
    std::fs::write(&paths[0], leaf.pem()).unwrap();
    std::fs::write(&paths[1], key.serialize_pem()).unwrap();
    paths
}

/// Standard output of a run that ended well; what it said on standard error is shown when it did not.
#[track_caller]
pub fn good(output: Output) -> String {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}: {out}{err}", output.status);
    out
}
