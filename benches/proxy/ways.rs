//! The ways between a client and the origin.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ringfence::proxy::{FixedResolver, Proxy, ProxyConfig, Secret};
use rustix::pipe::{SpliceFlags, pipe, splice};
use rustls::{ClientConnection, StreamOwned};

use crate::origin::{NAME, Tls};
use crate::{Outcome, Stream, dial};

/// One of them.
#[derive(Clone)]
pub struct Way {
    pub name: &'static str,
    /// Where a `CONNECT` is sent, unless the origin is dialled itself.
    proxy: Option<u16>,
    /// Where bytes go through without a word.
    relay: Option<u16>,
    tls: bool,
    /// Sends a placeholder.
    pub secret: bool,
}

impl Way {
    /// Opens a connection to the origin on that port.
    pub fn open(&self, port: u16, tls: &Tls) -> Outcome<Box<dyn Stream>> {
        let mut stream = dial(self.proxy.or(self.relay).unwrap_or(port))?;
        if self.proxy.is_some() {
            // Squid and tinyproxy have no resolver here.
            let host = if self.name.starts_with("ringfence") { NAME } else { "127.0.0.1" };
            stream.write_all(format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n").as_bytes())?;
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte)?;
                head.push(byte[0]);
            }
            let status = head.split(|byte| *byte == b' ').nth(1);
            if status != Some(b"200") {
                return Err(format!("{}: {}", self.name, String::from_utf8_lossy(&head)).into());
            }
        }
        if !self.tls {
            return Ok(Box::new(stream));
        }
        let connection = ClientConnection::new(Arc::clone(&tls.client), NAME.try_into()?)?;
        Ok(Box::new(StreamOwned::new(connection, stream)))
    }
}

/// Everything that runs; ended when this is dropped.
pub struct Ways {
    ways: Vec<Way>,
    children: Vec<Child>,
    _directory: tempfile::TempDir,
}

impl Drop for Ways {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Ways {
    /// Starts all that there are. `secure` is the port of the origin over TLS.
    pub fn start(tls: &Tls, secure: u16) -> Outcome<Self> {
        let direct = |tls| Way { name: "direct", proxy: None, relay: None, tls, secret: false };
        let plain = ringfence(tls, None)?;
        let looking = ringfence(tls, Some(secure))?;
        let mut ways = vec![direct(false), direct(true)];
        ways.push(Way { name: "bare splice(2), two threads", relay: Some(0), ..direct(false) });
        ways.push(Way { name: "ringfence, CONNECT", proxy: Some(plain), ..direct(false) });
        ways.push(Way { name: "ringfence, CONNECT", proxy: Some(plain), ..direct(true) });
        ways.push(Way { name: "ringfence, looked into", proxy: Some(looking), ..direct(true) });
        ways.push(Way { name: "ringfence, a value put in", proxy: Some(looking), secret: true, ..direct(true) });
        let directory = tempfile::tempdir()?;
        let mut children = Vec::new();
        for (name, port) in [("tinyproxy, CONNECT", 3128), ("squid, CONNECT", 3129)] {
            let program = name.split(',').next().unwrap_or_default();
            match others(program, port, directory.path())? {
                Some(child) => {
                    children.push(child);
                    ways.push(Way { name, proxy: Some(port), ..direct(false) });
                    ways.push(Way { name, proxy: Some(port), ..direct(true) });
                }
                None => println!("{program} is not installed: no column"),
            }
        }
        Ok(Self { ways, children, _directory: directory })
    }

    pub fn clear(&self) -> Vec<Way> {
        self.of(false)
    }

    pub fn tls(&self) -> Vec<Way> {
        self.of(true)
    }

    fn of(&self, tls: bool) -> Vec<Way> {
        self.ways.iter().filter(|way| way.tls == tls).cloned().collect()
    }

    /// Gives the bare relay its origin.
    pub fn relay_to(&mut self, origin: u16) -> Outcome<()> {
        let port = relay(origin)?;
        for way in self.ways.iter_mut().filter(|way| way.relay.is_some()) {
            way.relay = Some(port);
        }
        Ok(())
    }
}

/// Starts the built-in proxy; it looks into the tunnels to that port, if there is one.
fn ringfence(tls: &Tls, secure: Option<u16>) -> Outcome<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let secret = |port: u16| -> Outcome<Secret> {
        Ok(Secret::new(format!("T=env:T,to={NAME}:{port}").parse()?, b"a value of some length".to_vec())?)
    };
    let config = ProxyConfig {
        allow: Some(vec![NAME.parse()?, "127.0.0.0/8".parse()?]),
        secrets: secure.map(secret).transpose()?.into_iter().collect(),
        interception: Some(Arc::clone(&tls.interception)),
        ..ProxyConfig::default()
    };
    let resolver = FixedResolver::new().with(NAME, [Ipv4Addr::LOCALHOST.into()]);
    let (ready, started) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // On this thread, which is where it dials from and asks the kernel from.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let serve = Proxy::new(config, Arc::new(resolver)).serve(vec![listener], std::future::pending());
        let _ = ready.send(());
        if let Ok(runtime) = runtime {
            let _ = runtime.block_on(serve);
        }
    });
    started.recv()?;
    Ok(port)
}

/// What a tunnel costs at the least: bytes that never leave the kernel.
fn relay(origin: u16) -> Outcome<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(origin) = dial(origin) else { continue };
            let _ = client.set_nodelay(true);
            let (Ok(client2), Ok(origin2)) = (client.try_clone(), origin.try_clone()) else { continue };
            std::thread::spawn(move || carry(&client, &origin));
            std::thread::spawn(move || carry(&origin2, &client2));
        }
    });
    Ok(port)
}

fn carry(from: &TcpStream, to: &TcpStream) {
    const MOST: usize = 1 << 16;
    let Ok((read, write)) = pipe() else { return };
    while let Ok(got @ 1..) = splice(from, None, &write, None, MOST, SpliceFlags::MOVE) {
        let mut left = got;
        while left > 0 {
            match splice(&read, None, to, None, left, SpliceFlags::MOVE) {
                Ok(sent @ 1..) => left -= sent,
                _ => return,
            }
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Starts somebody else's proxy, and waits until it listens.
fn others(program: &str, port: u16, directory: &Path) -> Outcome<Option<Child>> {
    let found =
        ["/usr/bin", "/usr/sbin"].map(|at| PathBuf::from(at).join(program)).into_iter().find(|path| path.exists());
    let Some(path) = found else { return Ok(None) };
    let config = directory.join(program);
    let at = directory.display();
    let mut command = Command::new(path);
    if program == "tinyproxy" {
        std::fs::write(
            &config,
            format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 100\nLogLevel Error\n"),
        )?;
        command.args(["-d", "-c"]);
    } else {
        use std::os::unix::fs::PermissionsExt;
        // It does not run as root, so it must be let in.
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?;
        let text = format!(
            "http_port 127.0.0.1:{port}\nhttp_access allow all\ncache deny all\ncache_mem 8 MB\npid_filename none\naccess_log none\n\
             cache_log /dev/null\ncoredump_dir {at}\ncache_effective_user nobody\nshutdown_lifetime 0 seconds\n\
             visible_hostname squid.example\nhosts_file none\ndns_nameservers 127.0.0.1\nnetdb_filename none\npinger_enable off\n"
        );
        std::fs::write(&config, text)?;
        command.args(["-N", "-n", &format!("ringfence{}", std::process::id()), "-f"]);
    }
    let mut child = command.arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    for _ in 0..200 {
        if dial(port).is_ok() {
            return Ok(Some(child));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(format!("{program} does not listen").into())
}
