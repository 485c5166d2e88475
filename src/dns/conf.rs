//! The host's own settings for names: resolv.conf(5), hosts(5), nsswitch.conf(5). Pure.
//!
//! Read as libc reads them: a line that makes no sense is passed over, a number that is too large is the largest.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::policy::DnsName;

/// Most name servers that are asked. libc takes three.
const MOST_SERVERS: usize = 16;
/// Most options that are read.
const MOST_OPTIONS: usize = 32;
/// Most domains of a search list. Kubernetes takes as many.
const MOST_DOMAINS: usize = 32;

/// A name server's address; one that is link-local is on the interface that is named with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    /// Its address.
    pub address: IpAddr,
    /// Name or number of an interface.
    pub zone: Option<String>,
}

/// What resolv.conf says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvConf {
    /// Whom to ask, in this order.
    pub servers: Vec<Server>,
    /// What is put behind a short name.
    pub search: Vec<String>,
    /// A name with fewer dots is short.
    pub ndots: usize,
    /// How long a server has.
    pub timeout: Duration,
    /// How often each is asked.
    pub attempts: usize,
    /// Each question begins with another server.
    pub rotate: bool,
    /// All options, as they are written.
    pub options: Vec<String>,
}

impl Default for ResolvConf {
    /// What libc does without a file.
    fn default() -> Self {
        Self {
            servers: vec![Server { address: Ipv4Addr::LOCALHOST.into(), zone: None }],
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
            options: Vec::new(),
        }
    }
}

impl ResolvConf {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Self {
        let mut conf = Self { servers: Vec::new(), ..Self::default() };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().and_then(Server::parse)),
                // The last of them counts, whichever it is.
                Some("search") => conf.search = domains(words),
                Some("domain") => conf.search = domains(words.take(1)),
                Some("options") => words.for_each(|option| conf.option(option)),
                _ => {}
            }
        }
        conf.servers.truncate(MOST_SERVERS);
        if conf.servers.is_empty() {
            conf.servers = Self::default().servers;
        }
        conf
    }

    fn option(&mut self, option: &str) {
        // What is not passed on to the sandbox does not count here either.
        let plain = option.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.".contains(&byte));
        if !plain || option.len() > 64 || self.options.len() == MOST_OPTIONS {
            return;
        }
        self.options.push(option.to_owned());
        let number = |text: &str, most: usize| text.parse::<usize>().map_or(most, |number| number.min(most));
        match option.split_once(':') {
            Some(("ndots", text)) => self.ndots = number(text, 15),
            Some(("timeout", text)) => self.timeout = Duration::from_secs(number(text, 30).max(1) as u64),
            Some(("attempts", text)) => self.attempts = number(text, 5).max(1),
            _ if option == "rotate" => self.rotate = true,
            _ => {}
        }
    }

    /// Writes the file that a sandbox gets: one server, and the search list and options that are the host's.
    pub fn inside(&self, server: IpAddr) -> String {
        let mut text = format!("# Written by ringfence for this sandbox alone.\nnameserver {server}\n");
        if !self.search.is_empty() {
            text += &format!("search {}\n", self.search.join(" "));
        }
        // With one server there is nothing to rotate; and nobody here vouches for what servers say that they checked.
        let kept: Vec<&str> =
            self.options.iter().map(String::as_str).filter(|o| !matches!(*o, "rotate" | "trust-ad")).collect();
        if !kept.is_empty() {
            text += &format!("options {}\n", kept.join(" "));
        }
        text
    }

    /// The names that a name may stand for, in the order in which they are asked for.
    ///
    /// libc asks for a short name's long forms first. Here a name with a dot is tried as it is first: what it is in the world should not depend on a
    /// search list that answers for everything.
    pub fn candidates(&self, name: &DnsName) -> Vec<DnsName> {
        let dots = name.as_str().matches('.').count();
        let long = self.search.iter().filter(|_| dots < self.ndots);
        let mut all: Vec<DnsName> = long.filter_map(|domain| format!("{name}.{domain}").parse().ok()).collect();
        all.insert(if dots == 0 { all.len() } else { 0 }, name.clone());
        all
    }
}

/// Reads a search list. `.` stands for no domain at all.
fn domains<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let names = words.filter_map(|word| word.parse::<DnsName>().ok());
    names.take(MOST_DOMAINS).map(|name| name.as_str().to_owned()).collect()
}

impl Server {
    fn parse(text: &str) -> Option<Self> {
        let (address, zone) = match text.split_once('%') {
            Some((address, zone)) => (address, Some(zone.to_owned())),
            None => (text, None),
        };
        Some(Self { address: address.parse().ok()?, zone })
    }

    /// Where it is asked. `index` finds an interface.
    pub fn at(&self, index: impl FnOnce(&str) -> Option<u32>) -> SocketAddr {
        const DOMAIN: u16 = 53;
        match (self.address, &self.zone) {
            (IpAddr::V6(address), Some(zone)) => {
                let scope = zone.parse().ok().or_else(|| index(zone)).unwrap_or(0);
                std::net::SocketAddrV6::new(address, DOMAIN, 0, scope).into()
            }
            (address, _) => SocketAddr::new(address, DOMAIN),
        }
    }
}

/// What hosts(5) says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(HashMap<DnsName, Vec<IpAddr>>);

impl Hosts {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Self {
        let mut hosts: HashMap<DnsName, Vec<IpAddr>> = HashMap::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
            // A zone means something to the host alone.
            let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
            for name in words.filter_map(|word| word.parse::<DnsName>().ok()) {
                let addresses = hosts.entry(name).or_default();
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        Self(hosts)
    }

    /// Every name, and its addresses.
    pub fn iter(&self) -> impl Iterator<Item = (&DnsName, &[IpAddr])> {
        self.0.iter().map(|(name, addresses)| (name, addresses.as_slice()))
    }

    /// The addresses of a name that the file has.
    pub fn find(&self, name: &DnsName) -> Option<&[IpAddr]> {
        self.0.get(name).map(Vec::as_slice)
    }
}

/// Whether the host asks anybody for names, by its nsswitch.conf: not when that names the hosts file alone.
pub(super) fn asks_servers(nsswitch: &str) -> bool {
    let mut sources = sources(nsswitch).peekable();
    sources.peek().is_none() || sources.any(|source| !matches!(source, "files" | "myhostname"))
}

/// Whether nsswitch.conf names sources of host names besides the hosts file and DNS.
pub fn has_other_sources(nsswitch: &str) -> bool {
    sources(nsswitch).any(|source| !matches!(source, "files" | "dns" | "myhostname"))
}

/// Rewrites nsswitch.conf for a sandbox: names come from the hosts file and, with `dns`, from the name server. All else stays.
///
/// `myhostname`, which knows the machine's own name and asks nobody, stays where it was used.
pub fn nsswitch_inside(text: &str, dns: bool) -> String {
    let own = if sources(text).any(|source| source == "myhostname") { " myhostname" } else { "" };
    let rest = text.lines().filter(|line| !is_hosts(line)).map(|line| format!("{line}\n")).collect::<String>();
    format!("{rest}hosts: files{own}{}\n", if dns { " dns" } else { "" })
}

fn is_hosts(line: &str) -> bool {
    line.trim_start().strip_prefix("hosts").is_some_and(|rest| rest.trim_start().starts_with(':'))
}

/// The sources of host names in their order, without what is to be done after each.
fn sources(nsswitch: &str) -> impl Iterator<Item = &str> {
    let line = nsswitch.lines().find(|line| is_hosts(line)).unwrap_or_default();
    let list = line.split('#').next().unwrap_or_default().split_once(':').map_or("", |(_, list)| list);
    let mut depth = 0;
    list.split_ascii_whitespace().filter(move |word| {
        let inside = depth > 0 || word.starts_with('[');
        depth += word.matches('[').count();
        depth -= word.matches(']').count().min(depth);
        !inside
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_libc_reads_it() {
        let text = "# c\nnameserver 127.0.0.53\nnameserver fe80::1%eth0 # x\nnameserver bad\ndomain a.example\n\
            search Corp.Example. b.example .\noptions ndots:99 timeout:0 attempts:9 rotate edns0 trust-ad\n";
        let conf = ResolvConf::parse(text);
        assert_eq!(conf.servers.len(), 2);
        assert_eq!(conf.servers[1].at(|zone| (zone == "eth0").then_some(7)).to_string(), "[fe80::1%7]:53");
        assert_eq!(conf.search, ["corp.example", "b.example"]);
        assert_eq!((conf.ndots, conf.attempts, conf.rotate), (15, 5, true));
        assert_eq!(conf.timeout, Duration::from_secs(1));
        assert_eq!(
            conf.inside("127.0.0.1".parse().unwrap()),
            "# Written by ringfence for this sandbox alone.\nnameserver 127.0.0.1\nsearch corp.example b.example\n\
             options ndots:99 timeout:0 attempts:9 edns0\n"
        );
        assert_eq!(ResolvConf::parse("junk\nnameserver\n"), ResolvConf::default());
        assert_eq!(ResolvConf::parse(&"nameserver 203.0.113.1\n".repeat(100)).servers.len(), MOST_SERVERS);
    }

    #[test]
    fn a_short_name_is_looked_for_where_the_host_would() {
        let candidates = |conf: &str, name: &str| {
            let all = ResolvConf::parse(conf).candidates(&name.parse().unwrap());
            all.iter().map(DnsName::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(candidates("", "db"), "db");
        assert_eq!(candidates("search a.example b.example", "db"), "db.a.example db.b.example db");
        assert_eq!(candidates("search a.example", "db.ns"), "db.ns");
        assert_eq!(candidates("search a.example\noptions ndots:5", "db.ns"), "db.ns db.ns.a.example");
    }

    #[test]
    fn hosts_are_read_and_nonsense_passed_over() {
        let hosts = Hosts::parse(
            "203.0.113.9 Web.Example web # x\n2001:db8::9\tweb.example\nbad name\n1.2.3.4\nfe80::1%lo z\n",
        );
        let name = |text: &str| text.parse::<DnsName>().unwrap();
        assert_eq!(hosts.find(&name("web.example")).unwrap().len(), 2);
        assert_eq!(hosts.find(&name("web")).unwrap().len(), 1);
        assert_eq!(hosts.find(&name("name")), None);
        assert_eq!(hosts.find(&name("z")), None);
    }

    #[test]
    fn only_the_line_for_hosts_is_changed() {
        let text =
            "passwd: files systemd\nhosts:  files mdns4_minimal [NOTFOUND=return] dns myhostname # x\nshadow: files";
        assert!(has_other_sources(text));
        assert!(!has_other_sources("hosts: files [!UNAVAIL = return] dns\n"));
        assert!(!has_other_sources(""));
        assert!(asks_servers("") && asks_servers(text) && asks_servers("hosts: resolve"));
        assert!(!asks_servers("hosts: files [NOTFOUND=return] myhostname"));
        let inside = "passwd: files systemd\nshadow: files\nhosts: files myhostname dns\n";
        assert_eq!(nsswitch_inside(text, true), inside);
        assert_eq!(nsswitch_inside("hosts : dns", false), "hosts: files\n");
    }
}
