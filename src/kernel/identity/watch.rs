//! Whose packet it was: the records of a namespace, matched with what its fence logs.
//!
//! A record is written before the fence sees its packet, so that it is there when the packet is told of. The two are matched by the packet's
//! first bytes, sequence number and all. Packets that look the same are told apart by their order only where it can't matter: when
//! all were sent by one process. Else the answer is that it was one of them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::memory::Memory;
use super::process::{self, Cgroups};
use super::program::Attached;
use super::ring::{HEAD, Ring, SLOTS, Sender, Sent, Told};
use super::{CANDIDATES, TOO_MANY};
use crate::audit::{Attempted, Identify, Identity, Process};
use crate::wire::packet::{self, Packet, Transport, Version};

/// How many records wait for their packets to be told of: more than fit a large receive buffer.
const MOST: usize = 1 << 16;

/// How many of them may look the same.
const ALIKE: usize = 1024;

/// How long they wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many records are remembered beyond that, for packets that have none of their own.
const HISTORY: usize = 1024;

/// How many records are remembered for those that refer to them.
const SENDERS: usize = SLOTS as usize;

const TCP: u8 = 6;

const OVERWRITTEN: &str = "its record was overwritten by those of newer packets";

/// Tells who sent what was refused in a namespace, from the records that the kernel keeps of it.
pub struct Watch {
    // Before the ring: once it is gone nothing is written any more.
    _attached: Attached,
    ring: Ring,
    cgroups: Arc<Cgroups>,
    memory: Memory,
    /// Records whose packets may yet be told of, by the packets' first bytes.
    waiting: BTreeMap<Sent, Vec<Waiting>>,
    /// The same, oldest first.
    order: VecDeque<(u64, Sent, Instant)>,
    /// Those that were taken out of the ring when it was last looked at: they may have been on their way.
    fresh: Vec<(u64, Sent)>,
    /// What was told, and what was let out, newest last.
    history: VecDeque<Past>,
    /// Processes that were seen lately, and the records that told of them.
    senders: VecDeque<(u64, Arc<Sender>)>,
    /// The next record to look at.
    next: u64,
    /// Records that were being written when they were looked at.
    late: Vec<u64>,
    lost: u64,
    lost_at: Option<Instant>,
}

/// A packet of the past, taken apart once: a flood has it compared with every packet that has no record of its own.
struct Past {
    protocol: u8,
    ends: (IpAddr, IpAddr),
    ports: (u16, u16),
    /// Of TCP.
    sequence: Option<u32>,
    sender: Arc<Sender>,
}

impl Past {
    /// `None` for what has no ports, and so is of no flow.
    fn of(sent: &Sent, sender: Arc<Sender>) -> Option<Self> {
        let packet = decode(sent)?;
        let sequence = match &packet.transport {
            Transport::Tcp(tcp) => tcp.sequence,
            _ => None,
        };
        let ends = (packet.source, packet.destination);
        Some(Self { protocol: packet.protocol.0, ends, ports: packet.ports()?, sequence, sender })
    }
}

struct Waiting {
    index: u64,
    sender: Arc<Sender>,
    /// It could not be told from another process's: how many of those that look the same have been answered since.
    contested: Option<usize>,
}

impl Watch {
    pub(super) fn new(attached: Attached, ring: Ring, cgroups: Arc<Cgroups>) -> Self {
        // What was sent meanwhile may be refused and told of already.
        let (next, lost) = (ring.begins(), ring.lost());
        Self {
            _attached: attached,
            ring,
            cgroups,
            memory: Memory::default(),
            waiting: BTreeMap::new(),
            order: VecDeque::new(),
            fresh: Vec::new(),
            history: VecDeque::new(),
            senders: VecDeque::new(),
            next,
            late: Vec::new(),
            lost,
            lost_at: None,
        }
    }

    /// How many packets have been recorded: those that may be refused, and the first one a second of each UDP flow that is let out.
    pub fn recorded(&self) -> u64 {
        self.ring.next() - self.ring.begins()
    }

    /// Takes what has been recorded since the last time.
    fn look(&mut self) {
        let now = Instant::now();
        for (index, packet) in std::mem::take(&mut self.fresh) {
            if self.ring.accepted(index) {
                self.settle(index, &packet);
            }
        }
        let end = self.ring.next();
        let oldest = end.saturating_sub(SLOTS);
        let late = std::mem::take(&mut self.late);
        for index in late.into_iter().filter(|index| *index >= oldest).chain(self.next.max(oldest)..end) {
            let Some(record) = self.ring.record(index) else {
                if self.ring.number(index) <= index {
                    // Not yet written. Its packet is not told of yet either, so nobody waits for it.
                    self.late.push(index);
                }
                continue;
            };
            let packet = record.packet;
            let Some(sender) = self.sender(index, record.sender) else {
                // The one that told of its process is gone.
                self.lost_at = Some(now);
                continue;
            };
            if self.ring.accepted(index) {
                self.remember(packet, sender);
                continue;
            }
            let all = self.waiting.entry(packet).or_default();
            all.push(Waiting { index, sender, contested: None });
            if all.len() > ALIKE {
                all.remove(0);
                self.lost_at = Some(now);
            }
            self.order.push_back((index, packet, now));
            self.fresh.push((index, packet));
        }
        self.next = end;
        self.forget(now);
        let lost = self.ring.lost();
        if lost != self.lost {
            (self.lost, self.lost_at) = (lost, Some(now));
        }
    }

    /// The process that a record tells of, itself or by an older one.
    fn sender(&mut self, index: u64, told: Told) -> Option<Arc<Sender>> {
        let (index, sender) = match told {
            Told::Here(sender) => (index, sender),
            Told::As(older) => {
                if let Some((_, known)) = self.senders.iter().rev().find(|(at, _)| *at == older) {
                    return Some(Arc::clone(known));
                }
                match self.ring.record(older)?.sender {
                    Told::Here(sender) => (older, sender),
                    Told::As(_) => return None,
                }
            }
        };
        // One that sends much is kept but once.
        let known = self.senders.iter().rev().find(|(_, known)| **known == sender);
        let sender = known.map_or_else(|| Arc::new(sender), |(_, known)| Arc::clone(known));
        if self.senders.len() >= SENDERS {
            self.senders.pop_front();
        }
        self.senders.push_back((index, Arc::clone(&sender)));
        Some(sender)
    }

    /// Drops records that nobody has asked for.
    fn forget(&mut self, now: Instant) {
        while let Some((index, packet, since)) = self.order.front().copied() {
            let settled = !self.waiting.get(&packet).is_some_and(|all| all.iter().any(|one| one.index == index));
            if !settled && self.order.len() <= MOST && now.duration_since(since) < PATIENCE {
                break;
            }
            self.order.pop_front();
            self.settle(index, &packet);
            if !settled && self.order.len() >= MOST {
                self.lost_at = Some(now);
            }
        }
    }

    /// Takes a record out of those that wait.
    fn settle(&mut self, index: u64, packet: &Sent) {
        let Some(all) = self.waiting.get_mut(packet) else { return };
        let Some(at) = all.iter().position(|one| one.index == index) else { return };
        let one = all.remove(at);
        if all.is_empty() {
            self.waiting.remove(packet);
        }
        self.remember(*packet, one.sender);
    }

    fn remember(&mut self, packet: Sent, sender: Arc<Sender>) {
        let Some(past) = Past::of(&packet, sender) else { return };
        if self.history.len() >= HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(past);
    }

    /// What waits and looks like the packet, as far as both are known.
    fn key(&self, attempted: &Attempted) -> Option<Sent> {
        let whole = Sent::of(&attempted.head);
        if self.waiting.contains_key(&whole) {
            return Some(whole);
        }
        // A rule may hand over less than is kept here.
        let part = attempted.head.len() < HEAD && length(&attempted.head)? > attempted.head.len();
        if part { beginning(&self.waiting, &attempted.head) } else { None }
    }

    /// Answers with one of the records that look like the packet.
    fn claim(&mut self, packet: &Sent, attempted: &Attempted) -> Option<Identity> {
        let all = self.waiting.get(packet)?;
        let accepted: Vec<u64> = all.iter().map(|one| one.index).filter(|index| self.ring.accepted(*index)).collect();
        for index in accepted {
            self.settle(index, packet);
        }
        let all = self.waiting.get_mut(packet)?;
        let first = all.first()?;
        let (index, sender) = (first.index, Arc::clone(&first.sender));
        if all.iter().all(|one| one.contested.is_none() && one.sender.process() == sender.process()) {
            self.settle(index, packet);
            let process = process::tell(&sender, &self.cgroups, &self.memory);
            return Some(if self.in_doubt(attempted) {
                let reason = "records of other packets were lost, and one of those may have looked the same";
                Identity::Inferred { process, reason: reason.into() }
            } else {
                Identity::Exact(process)
            });
        }
        // Which of them this one is can't be known. When each has had its answer, all are settled.
        let answered = all.iter().filter_map(|one| one.contested).max().unwrap_or(0) + 1;
        for one in all.iter_mut() {
            one.contested = Some(answered);
        }
        let senders: Vec<_> = all.iter().map(|one| Arc::clone(&one.sender)).collect();
        if answered >= all.len() {
            self.waiting.remove(packet);
        }
        Some(match self.tell(senders) {
            Some(candidates) => Identity::Ambiguous { candidates },
            None => Identity::unknown(TOO_MANY),
        })
    }

    /// The processes, each once; `None` for more than are named. What `/proc` says of each is read, and a program can have as many as it likes.
    fn tell(&self, senders: impl IntoIterator<Item = Arc<Sender>>) -> Option<Vec<Process>> {
        let mut known: Vec<Arc<Sender>> = Vec::new();
        for sender in senders {
            if !known.iter().any(|known| known.process() == sender.process()) {
                if known.len() == CANDIDATES {
                    return None;
                }
                known.push(sender);
            }
        }
        Some(known.iter().map(|sender| process::tell(sender, &self.cgroups, &self.memory)).collect())
    }

    /// Whether a record was lost that may have been this packet's. The kernel gives each SYN a number of its own, so that only a
    /// raw socket can send another process's.
    fn in_doubt(&self, attempted: &Attempted) -> bool {
        self.lost_lately() && (attempted.protocol != TCP || self.ring.raw())
    }

    fn lost_lately(&self) -> bool {
        self.lost_at.is_some_and(|at| at.elapsed() < PATIENCE)
    }

    /// Answers for a packet that has no record of its own: a SYN that is sent once more, or a later packet of a flow that was let out.
    fn follow(&self, attempted: &Attempted) -> Identity {
        let ends = (attempted.source, attempted.destination);
        let ports = attempted.sport.zip(attempted.dport);
        let of_flow = |wanted: &dyn Fn(&Past) -> bool| {
            let all = self.history.iter().filter(|past| {
                past.protocol == attempted.protocol && past.ends == ends && Some(past.ports) == ports && wanted(past)
            });
            self.tell(all.map(|past| Arc::clone(&past.sender)))
        };
        // Looking through what was is the dearest part of an answer, and packets that flood have no sequence number.
        let same_syn = |past: &Past| past.sequence.is_some() && past.sequence == attempted.tcp_seq;
        let found = if attempted.tcp_seq.is_some() { of_flow(&same_syn) } else { Some(Vec::new()) };
        let Some(mut told) = found else { return Identity::unknown(TOO_MANY) };
        if let (1, Some(process), false) = (told.len(), told.pop(), self.in_doubt(attempted)) {
            return Identity::Exact(process);
        }
        if self.lost_lately() {
            return Identity::unknown(OVERWRITTEN);
        }
        let Some(mut told) = of_flow(&|_| true) else { return Identity::unknown(TOO_MANY) };
        match (told.len(), told.pop()) {
            (1, Some(process)) => {
                let reason =
                    "it sent the flow's last packet that was recorded; another process may have its socket by now";
                Identity::Inferred { process, reason: reason.into() }
            }
            (_, Some(last)) => Identity::Ambiguous { candidates: told.into_iter().chain([last]).collect() },
            (_, None) => Identity::unknown(
                "no process was seen to send it: it may be the kernel's own, or of a flow from before",
            ),
        }
    }
}

/// A packet that begins with these bytes. There may be a great many that do not.
fn beginning<T>(packets: &BTreeMap<Sent, T>, head: &[u8]) -> Option<Sent> {
    // Those that begin so follow one another, behind shorter ones that are told apart from them by their length alone.
    let from = Sent { length: 0, ..Sent::of(head) };
    let mut behind = packets.range(from..).map(|(packet, _)| packet).take(HEAD + 1);
    behind.find(|packet| packet.known().starts_with(head)).copied()
}

/// The length that a packet gives itself; `None` for less than its header.
fn length(packet: &[u8]) -> Option<usize> {
    let at = |at: usize| packet.get(at..)?.first_chunk().map(|two| usize::from(u16::from_be_bytes(*two)));
    match packet.first()? >> 4 {
        4 if packet.len() >= 20 => at(2),
        6 if packet.len() >= 40 => Some(40 + at(4)?),
        _ => None,
    }
}

fn decode(sent: &Sent) -> Option<Packet> {
    let known = sent.known();
    let version = if known.first()? >> 4 == 6 { Version::V6 } else { Version::V4 };
    packet::decode(version, known).ok()
}

impl Identify for Watch {
    fn identify(&mut self, attempted: &Attempted) -> Identity {
        self.look();
        let packet = self.key(attempted);
        packet.and_then(|packet| self.claim(&packet, attempted)).unwrap_or_else(|| self.follow(attempted))
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("waiting", &self.order.len()).field("lost", &self.lost).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_found_by_its_beginning() {
        let packets = [&b"ab"[..], b"ab\0\0", b"ab\0\0\0", b"ab\0\0x", b"ac", b"b", b"\xff\xff"];
        let packets: BTreeMap<Sent, ()> = packets.iter().map(|packet| (Sent::of(packet), ())).collect();
        let found = |head: &[u8]| beginning(&packets, head).map(|packet| packet.known().to_vec());
        assert_eq!(found(b"ab\0").unwrap(), b"ab\0\0");
        assert_eq!(found(b"ab\0\0\0").unwrap(), b"ab\0\0\0");
        assert_eq!(found(b"ab\0\0x").unwrap(), b"ab\0\0x");
        assert_eq!(found(b"\xff").unwrap(), b"\xff\xff");
        assert_eq!([found(b"ab\0\0\0\0"), found(b"aa"), found(b"\xff\xff\xff")], [None, None, None]);
        // Behind as many shorter ones as there can be.
        let packets: BTreeMap<Sent, ()> = (0..=HEAD).map(|length| (Sent::of(&vec![0; length]), ())).collect();
        assert_eq!(beginning(&packets, &[0; HEAD]).map(|packet| packet.length), Some(HEAD as u8));
    }

    #[test]
    fn a_packet_says_how_long_it_is() {
        let mut four = [0u8; 28];
        (four[0], four[3]) = (0x45, 60);
        assert_eq!(length(&four), Some(60));
        let mut six = [0u8; 48];
        (six[0], six[5]) = (0x60, 8);
        assert_eq!(length(&six), Some(48));
        assert_eq!([length(&four[..19]), length(&six[..39]), length(&[]), length(&[0xff; 64])], [None; 4]);
    }
}
