//! What becomes of what was refused: records of who sent it, reports, OCSF, and the policy that an audit learns.

use std::path::Path;
use std::time::{Duration, SystemTime};

use arbitrary::{Result, Unstructured};
use ringfence::audit::hint::{Scene, advice};
use ringfence::audit::{Ancestor, Attempt, Event, Identity, Process, Report, learned};
use ringfence::parsers::{read_process, read_record};
use ringfence::policy::{Layer, Policy, Settings};
use ringfence::wire::{netlink, nflog};

/// The longest text that a process or a resolver may have in store: longer than any name, and full of whatever it likes.
const LONGEST: usize = 40;

/// Reads a record of the BPF program's: whatever lengths it names, texts are cut where they end.
pub fn record(bytes: &[u8]) {
    for text in read_record(bytes) {
        assert!(!text.contains('\0'), "{text:?}");
    }
}

/// What the kernel writes into `stat` and `status` of a process whose name is made up: whatever it is, the numbers behind it are those of the
/// process. And whatever stands in its files, which are parted by a byte that text does not have, texts end where they end.
pub fn process(bytes: &[u8]) {
    let mut parts = bytes.splitn(4, |byte| *byte == 0xff);
    let [name, status, cmdline, cgroup] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    let anything = read_process([name, status, cmdline, cgroup]);
    assert!(anything.argv.iter().flatten().all(|argument| !argument.contains('\0')), "{anything:?}");
    assert!(anything.cgroup.iter().all(|path| !path.contains('\n')), "{anything:?}");
    // proc_pid_stat(5): the name as it is, between brackets. proc_pid_status(5): line ends and backslashes escaped.
    let stat = [b"77 (", name, b") S 41 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 1 1\n"].concat();
    let escaped: Vec<u8> = name.iter().flat_map(|byte| escape(*byte)).collect();
    let numbers = b"\nUmask:\t0022\nTgid:\t77\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nNSpid:\t77\t9\n";
    let status = [b"Name:\t", &escaped[..], numbers].concat();
    let process = read_process([&stat, &status, cmdline, cgroup]);
    let told = (process.pid, process.ns_pid, process.uid, process.gid, process.start_time, process.ancestors[0].pid);
    let start = Some(Duration::from_millis(42_420));
    assert_eq!(told, (77, Some(9), Some(2), Some(6), start, 41), "{}", name.escape_ascii());
}

fn escape(byte: u8) -> Vec<u8> {
    match byte {
        b'\n' => br"\n".to_vec(),
        b'\\' => br"\\".to_vec(),
        byte => vec![byte],
    }
}

/// Adds up attempts of made-up programs to made-up names, and makes a policy of them, which has to be one. Every line on the way is one line of JSON.
pub fn learn(bytes: &[u8]) {
    let mut source = Unstructured::new(bytes);
    let mut report = Report::new("wire".into(), true);
    let scene = Scene::default();
    for _ in 0..4 {
        let Ok(Some(mut attempt)) = attempt(&mut source) else { break };
        let advice = advice(&attempt, &scene);
        attempt.hint = advice.line();
        report.add(&attempt, &advice);
        told(&Event::Bypass(Box::new(attempt)));
    }
    let summary = report.summary(SystemTime::UNIX_EPOCH, &[("audit-tcp".to_owned(), 7)]);
    let policy = Policy::builder().allow("example.com").and_then(|builder| builder.direct("203.0.113.9:5432"));
    let policy = policy.and_then(|builder| builder.build()).expect("a policy");
    let text = learned(&policy, &summary);
    let settings = Layer::from_toml(text.as_bytes(), Path::new("learned.toml"))
        .and_then(|layer| Settings::from_layers([layer]))
        .unwrap_or_else(|error| panic!("{error}\n{text}"));
    // What was allowed before still is, and what was not asked for is not.
    assert!(settings.policy.direct.iter().any(|to| to.value.to_string() == "203.0.113.9:5432"), "{text}");
    let entries = summary.denials.iter().filter(|denial| denial.entry.is_some()).count();
    assert!(settings.policy.direct.len() + settings.policy.allow.len() <= entries + 2, "{text}");
    assert!(!text.chars().any(|character| character.is_control() && character != '\n'), "{text:?}");
    told(&Event::Summary(Box::new(summary)));
}

fn told(event: &Event) {
    for line in event.to_ocsf().iter().chain([&event.to_json()]) {
        assert!(!line.contains(char::is_control), "{line:?}");
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value.is_object());
    }
}

/// An attempt out of a logged packet, as the kernel tells of it, and out of what a process says of itself.
fn attempt(u: &mut Unstructured<'_>) -> Result<Option<Attempt>> {
    let mut payload = vec![2, 0, 0, 1];
    let ipv6: bool = u.arbitrary()?;
    payload[0] = if ipv6 { 10 } else { 2 };
    let rules = ["audit-tcp", "audit-udp", "audit-icmp", "audit-other", "bypass-tcp", "bypass-malformed"];
    let prefix: &str = u.choose(&rules)?;
    let (protocol, from, to): (u8, u16, u16) =
        (*u.choose(&[6, 6, 17, 17, 1, 58, 132])?, u.arbitrary()?, u.arbitrary()?);
    let transport = [from.to_be_bytes(), to.to_be_bytes()].concat();
    let mut packet = if ipv6 {
        [&[0x60, 0, 0, 0, 0, 40, protocol, 64][..], &u.arbitrary::<[u8; 32]>()?].concat()
    } else {
        [&[0x45, 0, 0, 60, 0, 0, 0, 0, 64, protocol, 0, 0][..], &u.arbitrary::<[u8; 8]>()?].concat()
    };
    packet.extend(transport);
    packet.resize(packet.len() + 36, 0);
    let ethertype: u16 = if ipv6 { 0x86dd } else { 0x0800 };
    attribute(&mut payload, 1, &[ethertype.to_be_bytes(), [3, 0]].concat());
    attribute(&mut payload, 10, &[prefix.as_bytes(), b"\0"].concat());
    attribute(&mut payload, 9, &packet);
    let mut datagram = ((16 + payload.len()) as u32).to_ne_bytes().to_vec();
    datagram.extend(nflog::PACKET.to_ne_bytes());
    datagram.extend([0; 10]);
    datagram.extend(payload);
    let message = netlink::messages(&datagram).next().expect("one message").expect("our own message");
    let message = nflog::Message::decode(&message).expect("our own message").expect("a packet");
    let Event::Bypass(attempt) = Event::of(&message, SystemTime::UNIX_EPOCH) else { return Ok(None) };
    let mut attempt = *attempt;
    if u.arbitrary()? {
        attempt.host = Some(text(u)?);
    }
    if u.ratio(1, 4)? {
        attempt.denial_stage = Some("dns");
        attempt.query = Some(text(u)?);
    }
    let ancestors = vec![Ancestor { comm: text(u)?, exe: Some(text(u)?), ..Ancestor::default() }];
    let process =
        Process { comm: text(u)?, exe: maybe(u)?, argv: Some(vec![text(u)?]), ancestors, ..Process::default() };
    attempt.identity = Some(match u.int_in_range(0..=2)? {
        0 => Identity::Exact(process),
        1 => Identity::Inferred { process, reason: text(u)?.into() },
        _ => Identity::Ambiguous { candidates: vec![process.clone(), process] },
    });
    Ok(Some(attempt))
}

fn attribute(into: &mut Vec<u8>, kind: u16, value: &[u8]) {
    into.extend(((4 + value.len()) as u16).to_ne_bytes());
    into.extend(kind.to_ne_bytes());
    into.extend(value);
    into.resize(into.len().next_multiple_of(4), 0);
}

fn maybe(u: &mut Unstructured<'_>) -> Result<Option<String>> {
    if u.arbitrary()? { text(u).map(Some) } else { Ok(None) }
}

fn text(u: &mut Unstructured<'_>) -> Result<String> {
    let len = u.int_in_range(0..=LONGEST)?.min(u.len());
    Ok(String::from_utf8_lossy(u.bytes(len)?).into_owned())
}
