//! The ordinary way: `ip -batch` twice and `nft -f` twice, for the same links, addresses, routes, neighbours and rulesets.
//!
//! In its favour: the namespace is made and entered by us, so no process is started for that; and nothing is read back.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::time::Instant;

use ringfence::kernel::netns::Netns;
use ringfence::nft::Ruleset;
use ringfence::plan::Plan;

use super::Outcome;
use super::time::Times;

#[derive(Default)]
pub struct Ways {
    pub up: Option<Times>,
    pub down: Option<Times>,
    missing: Option<&'static str>,
}

impl Ways {
    /// Why there are no times.
    pub fn missing(&self) -> String {
        self.missing.map(|program| format!("no `{program}` here")).unwrap_or_default()
    }

    pub fn round(&mut self, kept: bool, plan: &Plan) -> Outcome<()> {
        self.missing = ["ip", "nft"].into_iter().find(|program| !installed(program));
        if self.missing.is_some() {
            return Ok(());
        }
        let scripts = Scripts::new(plan)?;
        let (up, down) = (self.up.get_or_insert_default(), self.down.get_or_insert_default());
        let start = Instant::now();
        let netns = Netns::new()?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd());
        feed("ip", &["-batch", "-"], &scripts.host_links.replace("NETNS", &path))?;
        netns.run(|| feed("ip", &["-batch", "-"], &scripts.inner_links))??;
        netns.run(|| feed("nft", &["-f", "-"], &scripts.inner_rules))??;
        feed("nft", &["-f", "-"], &scripts.host_rules)?;
        up.note(kept, start);

        let start = Instant::now();
        feed("ip", &["link", "del", plan.wire.host.as_str()], "")?;
        drop(netns);
        feed("nft", &["delete", "table", "inet", &scripts.host_table], "")?;
        down.note(kept, start);
        Ok(())
    }
}

struct Scripts {
    host_links: String,
    inner_links: String,
    inner_rules: String,
    host_rules: String,
    host_table: String,
}

impl Scripts {
    fn new(plan: &Plan) -> Outcome<Self> {
        let (host, sandbox, to) = (&plan.wire.host, &plan.wire.sandbox, &plan.wire.addresses);
        let (host_mac, sandbox_mac) = (mac(plan.wire.host_mac()), mac(plan.wire.sandbox_mac()));
        let mut outer = String::new();
        let mut inner = String::new();
        writeln!(
            outer,
            "link add {host} address {host_mac} mtu 1500 numtxqueues 1 numrxqueues 1 type veth peer name {sandbox} address {sandbox_mac} netns NETNS"
        )?;
        writeln!(outer, "link set {host} addrgenmode none up")?;
        writeln!(inner, "link set lo up\nlink set {sandbox} addrgenmode none up")?;
        let pairs: [(IpAddr, IpAddr, u8); 2] =
            [(to.host4.into(), to.sandbox4.into(), 32), (to.host6.into(), to.sandbox6.into(), 128)];
        for (near, far, all) in pairs {
            let nodad = if all == 32 { "" } else { "nodad" };
            let everywhere = if all == 32 { "0.0.0.0/0" } else { "::/0" };
            writeln!(
                outer,
                "addr add {near}/{all} dev {host} {nodad}\nneigh add {far} lladdr {sandbox_mac} nud permanent dev {host}"
            )?;
            writeln!(outer, "route add {far}/{all} dev {host}")?;
            writeln!(
                inner,
                "addr add {far}/{all} dev {sandbox} {nodad}\nneigh add {near} lladdr {host_mac} nud permanent dev {sandbox}"
            )?;
            writeln!(inner, "route add {everywhere} via {near} dev {sandbox} onlink")?;
        }
        Ok(Self {
            host_links: outer,
            inner_links: inner,
            inner_rules: text(&plan.inside),
            host_rules: text(&plan.outside),
            host_table: plan.outside.tables.first().map(|table| table.id.name.to_string()).unwrap_or_default(),
        })
    }
}

fn text(ruleset: &Ruleset) -> String {
    let mut ruleset = ruleset.clone();
    for table in &mut ruleset.tables {
        // nft(8)'s socket goes with its process, and an owner's table with the socket.
        table.flags.owner = false;
    }
    ruleset.syntax().as_str().to_owned()
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

pub fn installed(program: &str) -> bool {
    let version = if program == "ip" { "-V" } else { "--version" };
    Command::new(program).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Runs a program in the calling thread's namespace, with that text as its input.
pub fn feed(program: &str, arguments: &[&str], input: &str) -> Outcome<()> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let done = child.wait_with_output()?;
    if done.status.success() {
        Ok(())
    } else {
        Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr)).into())
    }
}
