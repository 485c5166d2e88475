//! The receiver, in a namespace of its own: a rule that logs and drops, a sender, and the rule's counter as the judge.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use ringfence::ErrorKind;
use ringfence::kernel::netns::Netns;
use ringfence::kernel::nftables;
use ringfence::kernel::rtnetlink::{Batch, Request, Socket};
use ringfence::link::IfIndex;
use ringfence::nflog::{Group, Hook, Options, Protocol, Received, Receiver};
use ringfence::nft::{
    BaseChain, Chain, ChainName, ChainPolicy, ChainType, Data, Expr, Family, Field, Hook as NftHook, Log, Priority,
    Rule, Ruleset, Table, TableId, TableName, Verdict,
};

use crate::support::skip;

const GROUP: Group = Group(7);
const PORT: u16 = 5353;

/// A namespace in which a datagram to [`PORT`] is logged, counted and dropped.
struct Logged {
    netns: Netns,
}

impl Logged {
    fn new(threshold: Option<u16>) -> Option<Self> {
        let (netns, links) = match Netns::create_with(Socket::open) {
            Ok(made) => made,
            Err(error) => {
                skip(&format!("no network namespace to be had: {}", error.chain()));
                return None;
            }
        };
        links.unwrap().commit(Batch::from([Request::up(IfIndex(1))])).unwrap();
        let (table, output) = names();
        let log = Log { group: GROUP.0, prefix: Some("test".to_owned()), snaplen: None, queue_threshold: threshold };
        let ruleset = Ruleset {
            tables: vec![Table::new(table.clone())],
            chains: vec![Chain {
                base: Some(BaseChain {
                    kind: ChainType::Filter,
                    hook: NftHook::Output,
                    priority: Priority::FILTER,
                    policy: ChainPolicy::Accept,
                    devices: vec![],
                }),
                ..Chain::new(&table, &output)
            }],
            rules: vec![
                Rule::new(&table, &output)
                    .l4proto(17)
                    .equals(Field::DPORT, Data::be16(PORT))
                    .log(log)
                    .counter()
                    .verdict(Verdict::Drop),
            ],
            ..Ruleset::default()
        };
        netns.run(|| nftables::Socket::open().unwrap().commit(&ruleset.create())).unwrap().unwrap();
        Some(Self { netns })
    }

    fn bind(&self, options: Options) -> ringfence::Result<Receiver> {
        self.netns.run(|| Receiver::bind(GROUP, options)).unwrap()
    }

    /// A socket that sends to the port.
    fn sender(&self) -> UdpSocket {
        let socket = self.netns.run(|| UdpSocket::bind("127.0.0.1:0")).unwrap().unwrap();
        socket.connect(("127.0.0.1", PORT)).unwrap();
        socket
    }

    /// How many packets the rule has seen.
    fn counted(&self) -> u64 {
        let (table, _) = names();
        let held =
            self.netns.run(|| nftables::Socket::open().unwrap().table(&table)).unwrap().unwrap().expect("the table");
        let counters = held.rules.iter().flat_map(|rule| &rule.exprs).filter_map(|expr| match expr {
            Expr::Counter { packets, .. } => Some(*packets),
            _ => None,
        });
        counters.sum()
    }
}

fn names() -> (TableId, ChainName) {
    (TableId { family: Family::Inet, name: TableName::new("logged").unwrap() }, ChainName::new("output").unwrap())
}

fn send(socket: &UdpSocket, packets: u32) {
    for number in 0..packets {
        // The rule drops it, and says so.
        assert!(socket.send(&number.to_be_bytes()).is_err());
    }
}

/// Everything that is there: packets, and how many are told to be lost.
fn drain(receiver: &mut Receiver) -> (u64, u64) {
    let (mut packets, mut lost) = (0, 0);
    while let Some(received) = receiver.recv_timeout(Duration::from_millis(50)).unwrap() {
        match received {
            Received::Packet(_) => packets += 1,
            Received::Lost { at_least } => lost += at_least,
        }
    }
    (packets, lost)
}

#[test]
fn a_packet_comes_with_all_that_the_kernel_tells() {
    let Some(logged) = Logged::new(None) else { return };
    let mut receiver = logged.bind(Options::latency()).unwrap();
    assert_eq!(receiver.try_recv().unwrap(), None);
    let sender = logged.sender();
    send(&sender, 2);
    for number in 0..2 {
        let Received::Packet(message) = receiver.recv().unwrap() else { panic!("nothing is lost") };
        assert_eq!((message.group, message.hook, message.seq), (GROUP, Some(Hook::OUTPUT), Some(number)));
        assert_eq!(
            (message.uid, message.gid),
            (Some(rustix::process::getuid().as_raw()), Some(rustix::process::getgid().as_raw()))
        );
        assert_eq!((message.prefix.as_deref(), message.outdev), (Some("test"), Some(IfIndex(1))));
        assert!(message.seq_global.is_some() && message.unknown.is_empty(), "{message:?}");
        let packet = message.packet().unwrap().unwrap();
        assert_eq!((packet.protocol, packet.cut), (Protocol::UDP, false));
        assert_eq!(packet.ports(), Some((sender.local_addr().unwrap().port(), PORT)));
    }
    assert_eq!(receiver.recv_timeout(Duration::from_millis(10)).unwrap(), None);
}

#[test]
fn a_packet_is_cut_where_it_was_asked_to_be() {
    let Some(logged) = Logged::new(None) else { return };
    let mut receiver = logged.bind(Options::latency().copy_range(22)).unwrap();
    send(&logged.sender(), 1);
    let Received::Packet(message) = receiver.recv().unwrap() else { panic!("nothing is lost") };
    let packet = message.packet().unwrap().unwrap();
    assert!(packet.cut && packet.ports().is_none(), "{packet:?}");
    drop(receiver);
    let mut receiver = logged.bind(Options::latency().copy_range(0)).unwrap();
    send(&logged.sender(), 1);
    let Received::Packet(message) = receiver.recv().unwrap() else { panic!("nothing is lost") };
    assert_eq!((message.payload.as_deref(), message.packet()), (None, None));
}

#[test]
fn a_group_has_one_receiver_at_a_time() {
    let Some(logged) = Logged::new(None) else { return };
    let first = logged.bind(Options::latency()).unwrap();
    let error = logged.bind(Options::latency()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    assert!(error.chain().contains("bind nflog group 7"), "{error:?}");
    assert!(error.advice().is_some());
    // Another group, and the same one in another namespace, are free.
    let _other = logged.netns.run(|| Receiver::bind(Group(8), Options::rate())).unwrap().unwrap();
    let elsewhere = Logged::new(None).unwrap();
    let _elsewhere = elsewhere.bind(Options::latency()).unwrap();
    drop(first);
    // The kernel takes a group back in its own time.
    crate::support::until("the group is free", || logged.bind(Options::latency()).is_ok());
}

#[test]
fn without_the_privilege_that_is_what_is_said() {
    let Some(logged) = Logged::new(None) else { return };
    // Capabilities are a thread's.
    let error = logged
        .netns
        .run(|| {
            rustix::thread::set_capabilities(
                None,
                rustix::thread::CapabilitySets {
                    effective: rustix::thread::CapabilitySet::empty(),
                    permitted: rustix::thread::CapabilitySet::empty(),
                    inheritable: rustix::thread::CapabilitySet::empty(),
                },
            )
            .unwrap();
            Receiver::bind(GROUP, Options::latency())
        })
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Privilege, "{error:?}");
    assert!(error.advice().unwrap().contains("CAP_NET_ADMIN"), "{error:?}");
}

#[test]
fn ten_thousand_at_full_speed_are_all_accounted_for() {
    for options in [Options::latency(), Options::rate()] {
        let Some(logged) = Logged::new(None) else { return };
        let mut receiver = logged.bind(options.clone()).unwrap();
        let sender = logged.sender();
        let start = Instant::now();
        let (packets, lost) = std::thread::scope(|scope| {
            scope.spawn(|| send(&sender, 10_000));
            let mut packets = 0;
            while packets < 10_000 {
                match receiver.recv_timeout(Duration::from_secs(2)).unwrap() {
                    Some(Received::Packet(message)) => {
                        assert_eq!(message.seq, Some(packets));
                        packets += 1;
                    }
                    Some(Received::Lost { at_least }) => return (packets, at_least),
                    None => break,
                }
            }
            (packets, 0)
        });
        println!("{options:?}: {packets} in {:?}", start.elapsed());
        assert_eq!(logged.counted(), 10_000);
        assert_eq!((packets, lost), (10_000, 0));
        assert_eq!(drain(&mut receiver), (0, 0));
    }
}

#[test]
fn what_does_not_fit_is_told_and_the_sum_is_exact_with_the_next_packet() {
    for options in [Options::latency(), Options::rate()] {
        let Some(logged) = Logged::new(None) else { return };
        let mut receiver = logged.bind(options.receive_buffer(8192)).unwrap();
        let sender = logged.sender();
        let (mut packets, mut lost) = (0, 0);
        for _ in 0..3 {
            send(&sender, 3000);
            let told = drain(&mut receiver);
            assert!(told.1 > 0, "3000 packets fit in 8 KiB");
            packets += told.0;
            lost += told.1;
            assert!(packets + lost <= logged.counted());
        }
        // Numbers come with packets.
        send(&sender, 1);
        let told = drain(&mut receiver);
        assert_eq!(packets + told.0 + lost + told.1, logged.counted());
        assert_eq!(logged.counted(), 9001);
    }
}

#[test]
fn a_stream_tells_the_same() {
    let Some(logged) = Logged::new(None) else { return };
    let receiver = logged.bind(Options::latency().receive_buffer(8192)).unwrap();
    let sender = logged.sender();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sum = runtime.block_on(async {
        let mut stream = receiver.into_stream().unwrap();
        let first = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            send(&sender, 1);
        };
        // It wakes whoever waits.
        let (received, ()) = tokio::join!(stream.next(), first);
        assert!(matches!(received, Some(Ok(Received::Packet(_)))), "{received:?}");
        send(&sender, 3000);
        let mut sum = 1;
        let mut told = false;
        let mut take = async |sum: &mut u64, told: &mut bool| {
            while let Ok(Some(received)) = tokio::time::timeout(Duration::from_millis(50), stream.next()).await {
                *sum += match received.unwrap() {
                    Received::Packet(_) => 1,
                    Received::Lost { at_least } => {
                        *told = true;
                        at_least
                    }
                };
            }
        };
        take(&mut sum, &mut told).await;
        assert!(told);
        send(&sender, 1);
        take(&mut sum, &mut told).await;
        sum
    });
    assert_eq!(sum, logged.counted());
    assert_eq!(sum, 3002);
}
