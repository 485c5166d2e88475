//! What it costs to tell who tried: `ringfence run --events` beside the least that a reader of an nflog group can do, in C, and beside ulogd2.
//!
//! The same packets (one UDP datagram each, refused or dropped by a rule that logs 128 bytes with queue-threshold 1) at full speed, and at rates. Everything happens in network
//! namespaces of the benchmark's own. C sources are compiled with cc(1); without it, or without ulogd(8), the column says so.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringfence::kernel::netns::Netns;
use ringfence::kernel::nftables;
use ringfence::kernel::rtnetlink::{Batch, Request, Socket};
use ringfence::link::IfIndex;
use ringfence::nft::{
    BaseChain, Chain, ChainName, ChainPolicy, ChainType, Data, Expr, Family, Field, Hook, Log, Priority, Reject,
    RejectCode, Rule, Ruleset, Table, TableId, TableName,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Where the datagrams go: nowhere.
const TO: &str = "203.0.113.10";
/// As large as the monitor's.
const RECEIVE_BUFFER: usize = 16 << 20;

struct Bench {
    directory: PathBuf,
    packets: u64,
}

/// What came of so many packets.
struct Outcome {
    sent_per_second: f64,
    told: u64,
    lost: u64,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let share = self.told as f64 * 100.0 / (self.told + self.lost).max(1) as f64;
        write!(f, "{:.0} k/s sent, {} told ({share:.1} %), {} lost", self.sent_per_second / 1e3, self.told, self.lost)
    }
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let directory = std::env::temp_dir().join(format!("ringfence-events-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let bench = Bench { directory: directory.clone(), packets: if quick { 20_000 } else { 200_000 } };
    if bench.compile("flood") && bench.compile("reader") {
        for pause in [0, 20_000, 10_000, 5_000] {
            match pause {
                0 => println!("{} packets at full speed", bench.packets),
                pause => println!("{} packets, one each {} µs", bench.packets, pause / 1000),
            }
            for _ in 0..if quick { 1 } else { 3 } {
                println!("  ringfence run --events, JSON to a file: {}", bench.run(pause, "json"));
                println!("  ringfence run --events, OCSF to a file: {}", bench.run(pause, "ocsf"));
                println!("  C reader that counts and writes nothing: {}", bench.reader(pause));
                println!(
                    "  ulogd2, text to a file: {}",
                    bench.ulogd(pause).map_or("not installed".into(), |out| out.to_string())
                );
            }
        }
    } else {
        println!("no cc(1)");
    }
    std::fs::remove_dir_all(directory).unwrap();
}

/// A namespace with a rule as the fence has it, and a route into nowhere.
fn logged() -> Netns {
    let (netns, links) = Netns::create_with(Socket::open).unwrap();
    let mut links = links.unwrap();
    let any = "0.0.0.0/0".parse().unwrap();
    links.commit(Batch::from([Request::up(IfIndex(1))])).unwrap();
    links.commit(Batch::from([Request::add_address(IfIndex(1), "198.51.100.1/32".parse().unwrap())])).unwrap();
    links
        .commit(Batch::from([Request::add_route(&ringfence::kernel::rtnetlink::RouteTo::new(any).on(IfIndex(1)))]))
        .unwrap();
    let (table, output) = names();
    let log = Log { group: 1, prefix: Some("bypass-udp".to_owned()), snaplen: Some(128), queue_threshold: Some(1) };
    let ruleset = Ruleset {
        tables: vec![Table::new(table.clone())],
        chains: vec![Chain {
            base: Some(BaseChain {
                kind: ChainType::Filter,
                hook: Hook::Output,
                priority: Priority::FILTER,
                policy: ChainPolicy::Accept,
                devices: vec![],
            }),
            ..Chain::new(&table, &output)
        }],
        rules: vec![
            Rule::new(&table, &output)
                .l4proto(17)
                .equals(Field::DPORT, Data::be16(9))
                .log(log)
                .counter()
                .reject(Reject::Icmpx(RejectCode::PortUnreachable)),
        ],
        ..Ruleset::default()
    };
    netns.run(|| nftables::Socket::open().unwrap().commit(&ruleset.create())).unwrap().unwrap();
    netns
}

fn names() -> (TableId, ChainName) {
    (TableId { family: Family::Inet, name: TableName::new("logged").unwrap() }, ChainName::new("output").unwrap())
}

fn counted(netns: &Netns) -> u64 {
    let held = netns.run(|| nftables::Socket::open().unwrap().table(&names().0)).unwrap().unwrap().unwrap();
    let packets = held.rules.iter().flat_map(|rule| &rule.exprs).filter_map(|expr| match expr {
        Expr::Counter { packets, .. } => Some(*packets),
        _ => None,
    });
    packets.sum()
}

impl Bench {
    fn compile(&self, name: &str) -> bool {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("benches/events/{name}.c"));
        let status = Command::new("cc").args(["-O2", "-o"]).arg(self.directory.join(name)).arg(source).status();
        status.is_ok_and(|status| status.success())
    }

    fn flood(&self, pause: u64) -> [String; 4] {
        let program = self.directory.join("flood").display().to_string();
        [program, TO.to_owned(), self.packets.to_string(), pause.to_string()]
    }

    fn per_second(&self, micros: &str) -> f64 {
        self.packets as f64 * 1e6 / micros.trim().parse::<f64>().unwrap()
    }

    fn run(&self, pause: u64, format: &str) -> Outcome {
        let file = self.directory.join("events");
        let _ = std::fs::remove_file(&file);
        // A host of its own.
        let (host, links) = Netns::create_with(Socket::open).unwrap();
        links.unwrap().commit(Batch::from([Request::up(IfIndex(1))])).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
        command.args(["run", "-q", "--user", "0:0", "--events-format", format, "--events"]).arg(&file).arg("--");
        command.args(self.flood(pause)).stdin(Stdio::null()).stdout(Stdio::piped());
        let output = host.run(|| command.output()).unwrap().unwrap();
        assert!(output.status.success());
        let (mut told, mut lost) = (0, 0);
        for line in BufReader::new(std::fs::File::open(&file).unwrap()).lines() {
            let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if event["event"] == "bypass" || event["class_uid"] == 4001 {
                told += 1;
            } else if event["event"] == "lost" || event["class_uid"] == 0 {
                lost += event["count"].as_u64().unwrap();
            }
        }
        assert_eq!(told + lost, self.packets, "an exact account");
        Outcome { sent_per_second: self.per_second(&String::from_utf8(output.stdout).unwrap()), told, lost }
    }

    /// Floods beside a reader, and says how fast.
    fn beside(&self, netns: &Netns, pause: u64) -> f64 {
        let [program, arguments @ ..] = self.flood(pause);
        let output = netns.run(|| Command::new(program).args(arguments).output()).unwrap().unwrap();
        self.per_second(&String::from_utf8(output.stdout).unwrap())
    }

    fn reader(&self, pause: u64) -> Outcome {
        let netns = logged();
        let mut command = Command::new(self.directory.join("reader"));
        command.args(["1", &RECEIVE_BUFFER.to_string()]).stdout(Stdio::piped());
        let mut child = netns.run(|| command.spawn()).unwrap().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "bound\n");
        let sent_per_second = self.beside(&netns, pause);
        // What waits is a matter of milliseconds.
        std::thread::sleep(Duration::from_millis(500));
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        line.clear();
        output.read_to_string(&mut line).unwrap();
        child.wait().unwrap();
        let told: u64 = line.split(' ').next().unwrap().parse().unwrap();
        Outcome { sent_per_second, told, lost: counted(&netns) - told }
    }

    fn ulogd(&self, pause: u64) -> Option<Outcome> {
        let program = ["/usr/sbin/ulogd", "/sbin/ulogd"].into_iter().find(|path| Path::new(path).exists())?;
        let plugins = Path::new("/usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH)).join("ulogd");
        let (file, config) = (self.directory.join("ulogd.txt"), self.directory.join("ulogd.conf"));
        let _ = std::fs::remove_file(&file);
        let all =
            ["inppkt_NFLOG", "raw2packet_BASE", "filter_IFINDEX", "filter_IP2STR", "filter_PRINTPKT", "output_LOGEMU"];
        let loads: String =
            all.iter().map(|plugin| format!("plugin=\"{}/ulogd_{plugin}.so\"\n", plugins.display())).collect();
        let text = format!(
            "[global]\nlogfile=\"syslog\"\nloglevel=5\n{loads}\
             stack=log1:NFLOG,base1:BASE,ifi1:IFINDEX,ip2str1:IP2STR,print1:PRINTPKT,emu1:LOGEMU\n\
             [log1]\ngroup=1\nnetlink_socket_buffer_size={RECEIVE_BUFFER}\nnetlink_socket_buffer_maxsize={RECEIVE_BUFFER}\n\
             netlink_qthreshold=1\n[emu1]\nsync=0\nfile=\"{}\"\n",
            file.display()
        );
        std::fs::write(&config, text).unwrap();
        let netns = logged();
        let mut command = Command::new(program);
        command.arg("-c").arg(&config).arg("-v").stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = netns.run(|| command.spawn()).unwrap().unwrap();
        wait_until_bound(&netns, &mut child);
        let sent_per_second = self.beside(&netns, pause);
        std::thread::sleep(Duration::from_millis(500));
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        child.wait().unwrap();
        let told = std::fs::read(&file).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count() as u64;
        Some(Outcome { sent_per_second, told, lost: counted(&netns).saturating_sub(told) })
    }
}

fn wait_until_bound(netns: &Netns, child: &mut Child) {
    let start = Instant::now();
    loop {
        let groups =
            netns.run(|| std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_log")).unwrap().unwrap();
        if groups.lines().any(|line| line.split_whitespace().next() == Some("1")) {
            return;
        }
        assert!(
            child.try_wait().unwrap().is_none() && start.elapsed() < Duration::from_secs(5),
            "ulogd does not start"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
