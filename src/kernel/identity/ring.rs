//! A namespace's ring of records, as `refused.bpf.c` writes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use super::program::Claimed;

// Shared with refused.bpf.c.
pub(super) const SLOTS: u64 = 512;
pub(super) const HEAD: usize = 64;
const CHAIN: usize = 13;
const ONE: usize = 48;
const PATH: usize = 384;
const ARGS: usize = 256;
const CHAIN_AT: usize = 128;
const PATH_AT: usize = CHAIN_AT + CHAIN * ONE;
const ARGS_AT: usize = PATH_AT + PATH;
const SAME_AS: usize = ARGS_AT + ARGS;
const SIZE: usize = SAME_AS + 8;

const DELETED: u32 = 1;
const ARGS_CUT: u32 = 4;

/// Where a slot says which record it holds, which one is done, and which one's packet was let out.
const NUMBER: usize = 0;
const DONE: usize = 8;
const ACCEPTED: usize = 16;
/// What follows tells of the process, but for the packet.
const FLAGS: usize = 28;
const THREAD: usize = 40;
const LENGTH: usize = 56;
const HEAD_AT: usize = 64;
/// The same of the first slot: the number of the next record, of those that were lost, and of packets from raw sockets.
const NEXT: usize = 0;
const LOST: usize = 8;
const RAW: usize = 16;

/// Reads a ring that the kernel writes to.
pub(super) struct Ring {
    claimed: Arc<Claimed>,
    begins: u64,
}

impl Ring {
    /// Bytes of a slot.
    pub const SLOT: u32 = SIZE as u32;
    /// Slots of a ring, its first one included.
    pub const ENTRIES: u32 = 1 + SLOTS as u32;
    /// Bytes of a ring.
    pub const BYTES: usize = SIZE * Self::ENTRIES as usize;

    /// Takes a ring into use. What another namespace has left in it is nobody's.
    pub fn new(claimed: Arc<Claimed>) -> Self {
        let mut ring = Self { claimed, begins: 0 };
        ring.begins = ring.next();
        for index in 0..SLOTS {
            ring.finish(index, ring.number(index));
        }
        ring
    }

    /// The first record that is of this use of the ring.
    pub fn begins(&self) -> u64 {
        self.begins
    }

    /// How many records have been begun.
    pub fn next(&self) -> u64 {
        self.word(0, NEXT, Ordering::Acquire)
    }

    /// How many records were overwritten before they were done, or not written.
    pub fn lost(&self) -> u64 {
        self.word(0, LOST, Ordering::Relaxed)
    }

    /// Whether a raw socket has sent anything.
    pub fn raw(&self) -> bool {
        self.word(0, RAW, Ordering::Relaxed) != 0
    }

    /// Number of the record that a slot holds; 0 while it is written.
    pub fn number(&self, index: u64) -> u64 {
        self.word(1 + index % SLOTS, NUMBER, Ordering::Acquire)
    }

    /// Whether the packet of a record was let out, as far as is known: its record may have been overwritten since.
    pub fn accepted(&self, index: u64) -> bool {
        self.word(1 + index % SLOTS, ACCEPTED, Ordering::Relaxed) == index + 1
    }

    /// Notes that a record has been read. It says which, so that one which has taken its place meanwhile has not.
    fn finish(&self, index: u64, number: u64) {
        if let Some(word) = self.at(1 + index % SLOTS, DONE) {
            word.store(number, Ordering::Relaxed);
        }
    }

    /// Takes the record at a place; `None` while it is written, or when another one has taken its place.
    pub fn record(&self, index: u64) -> Option<Record> {
        let slot = 1 + index % SLOTS;
        let number = index + 1;
        if self.word(slot, NUMBER, Ordering::Acquire) != number {
            return None;
        }
        let mut bytes = Box::new([0u8; SIZE]);
        for (at, eight) in bytes.chunks_exact_mut(8).enumerate() {
            eight.copy_from_slice(&self.word(slot, at * 8, Ordering::Relaxed).to_ne_bytes());
        }
        // Or the number could be read before the rest.
        fence(Ordering::Acquire);
        if self.word(slot, NUMBER, Ordering::Relaxed) != number {
            return None;
        }
        self.finish(index, number);
        Some(Record::new(bytes))
    }

    fn word(&self, slot: u64, offset: usize, order: Ordering) -> u64 {
        self.at(slot, offset).map_or(0, |word| word.load(order))
    }

    fn at(&self, slot: u64, offset: usize) -> Option<&AtomicU64> {
        let at = self.claimed.index as usize * Self::BYTES + slot as usize * SIZE + offset;
        let address = self.claimed.set.mapped.at(at, 8)?;
        // SAFETY: eight mapped bytes, and aligned: the map begins at a page and all offsets are multiples of eight. They stay mapped as long as
        // `self` borrows the set. The kernel and this process write them as whole words, or read them between two looks at the number.
        Some(unsafe { AtomicU64::from_ptr(address.as_ptr().cast()) })
    }
}

/// A record: who sent a packet.
pub(super) struct Record {
    pub packet: Sent,
    pub sender: Told,
}

/// Where a record tells of its process.
pub(super) enum Told {
    /// Here.
    Here(Sender),
    /// As the record of this index did.
    As(u64),
}

/// A packet, as far as records tell packets apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Sent {
    /// Its first bytes, and zeros behind its end.
    pub head: [u8; HEAD],
    /// How many bytes of it that is.
    pub length: u8,
}

impl Sent {
    /// Takes the first bytes of a packet.
    pub fn of(packet: &[u8]) -> Self {
        let mut head = [0; HEAD];
        let length = packet.len().min(HEAD);
        for (to, from) in head.iter_mut().zip(packet) {
            *to = *from;
        }
        // At most HEAD.
        Self { head, length: length as u8 }
    }

    /// What is known of the packet.
    pub fn known(&self) -> &[u8] {
        self.head.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// The process in a record. Two of the same process, unchanged, are equal.
#[derive(PartialEq, Eq)]
pub(super) struct Sender {
    /// The slot, with zeros in place of what is about the packet.
    bytes: Box<[u8; SIZE]>,
}

/// A process in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct One {
    pub start: Duration,
    pub inode: u64,
    pub device: u32,
    pub pid: u32,
    pub ns_pid: u32,
    pub comm: String,
}

impl Record {
    fn new(mut bytes: Box<[u8; SIZE]>) -> Self {
        let u32_at =
            |at: usize| bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |four| u32::from_ne_bytes(*four));
        let length = u32_at(LENGTH).min(HEAD as u32) as usize;
        let packet = Sent::of(bytes.get(HEAD_AT..HEAD_AT + length).unwrap_or_default());
        let same_as = bytes.get(SAME_AS..).and_then(<[u8]>::first_chunk).map_or(0, |eight| u64::from_ne_bytes(*eight));
        if let Some(index) = same_as.checked_sub(1) {
            return Self { packet, sender: Told::As(index) };
        }
        for range in [0..FLAGS, THREAD..THREAD + 4, LENGTH..LENGTH + 4, HEAD_AT..HEAD_AT + HEAD] {
            bytes.get_mut(range).unwrap_or_default().fill(0);
        }
        let mut sender = Sender { bytes };
        sender.trim();
        Self { packet, sender: Told::Here(sender) }
    }
}

impl Sender {
    /// Clears what an older record in the same slot has left behind what counts, so that equal ones are equal.
    fn trim(&mut self) {
        let chain = CHAIN_AT + usize::from(self.bytes[61]).min(CHAIN) * ONE;
        let path = PATH_AT + usize::from(u16::from_ne_bytes([self.bytes[62], self.bytes[63]])).min(PATH);
        let args = ARGS_AT + (self.u32(52) as usize).min(ARGS);
        for range in [chain..PATH_AT, path..ARGS_AT, args..SAME_AS] {
            self.bytes.get_mut(range).unwrap_or_default().fill(0);
        }
    }

    /// Number and start of the process that sent it.
    pub fn process(&self) -> (u32, u64) {
        (self.u32(CHAIN_AT + 20), self.u64(CHAIN_AT))
    }

    /// The process that sent it, and its ancestors.
    pub fn chain(&self) -> Vec<One> {
        let count = usize::from(self.bytes[61]).min(CHAIN);
        (0..count).map(|index| self.one(CHAIN_AT + index * ONE)).collect()
    }

    pub fn cgroup(&self) -> u64 {
        self.u64(32)
    }

    pub fn uid(&self) -> u32 {
        self.u32(44)
    }

    pub fn gid(&self) -> u32 {
        self.u32(48)
    }

    /// Whether what it executes was deleted.
    pub fn deleted(&self) -> bool {
        self.u32(FLAGS) & DELETED != 0
    }

    /// The path of what it executes, where it was short enough.
    pub fn path(&self) -> Option<String> {
        let length = usize::from(u16::from_ne_bytes([self.bytes[62], self.bytes[63]]));
        let names = self.bytes.get(PATH_AT..PATH_AT + length.min(PATH))?.strip_suffix(&[0])?;
        // The file's own name comes first.
        let names: Vec<_> = names.split(|byte| *byte == 0).rev().map(String::from_utf8_lossy).collect();
        Some(format!("/{}", names.join("/")))
    }

    /// Its arguments; `None` where they were too long or could not be read.
    pub fn arguments(&self) -> Option<Vec<String>> {
        let bytes = self.bytes.get(ARGS_AT..ARGS_AT + (self.u32(52) as usize).min(ARGS))?;
        (!bytes.is_empty()).then(|| arguments(bytes))
    }

    /// Whether there were more arguments than a record has room for.
    pub fn arguments_cut(&self) -> bool {
        self.u32(FLAGS) & ARGS_CUT != 0
    }

    fn one(&self, at: usize) -> One {
        let comm = self.bytes.get(at + 32..at + 48).unwrap_or_default();
        let end = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
        One {
            start: Duration::from_nanos(self.u64(at)),
            inode: self.u64(at + 8),
            device: self.u32(at + 16),
            pid: self.u32(at + 20),
            ns_pid: self.u32(at + 24),
            comm: String::from_utf8_lossy(comm.get(..end).unwrap_or_default()).into_owned(),
        }
    }

    fn u64(&self, at: usize) -> u64 {
        self.bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    }

    fn u32(&self, at: usize) -> u32 {
        self.bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    }
}

/// Reads a slot of a ring, cut or filled up to its size, and gives back every text in it. For the fuzz targets, which have no ring of the kernel's.
#[doc(hidden)]
pub fn read_record(bytes: &[u8]) -> Vec<String> {
    let mut slot = Box::new([0; SIZE]);
    slot.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let record = Record::new(slot);
    assert!(record.packet.known().len() <= HEAD);
    let Told::Here(sender) = record.sender else { return Vec::new() };
    let names = sender.chain().into_iter().map(|one| one.comm);
    names.chain(sender.path()).chain(sender.arguments().unwrap_or_default()).collect()
}

/// Arguments as the kernel keeps them, each with a NUL behind it.
pub(super) fn arguments(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    bytes.split(|byte| *byte == 0).map(|one| String::from_utf8_lossy(one).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record as the kernel writes it, with rubbish of an older one behind all that counts.
    fn written(same_as: u64) -> Box<[u8; SIZE]> {
        let mut bytes = Box::new([0xa5; SIZE]);
        let mut put = |at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
        put(FLAGS, &DELETED.to_ne_bytes());
        put(44, &1000u32.to_ne_bytes());
        put(52, &9u32.to_ne_bytes());
        put(LENGTH, &28u32.to_ne_bytes());
        put(61, &[1]);
        put(62, &13u16.to_ne_bytes());
        put(HEAD_AT, &[0x45; 28]);
        put(CHAIN_AT, &5_000_000_000u64.to_ne_bytes());
        put(CHAIN_AT + 20, &4123u32.to_ne_bytes());
        put(CHAIN_AT + 32, b"cu\xffrl\0");
        put(PATH_AT, b"curl\0bin\0usr\0");
        put(ARGS_AT, b"curl\0-s\0\0");
        put(SAME_AS, &same_as.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_record_tells_of_its_process_and_of_nothing_older() {
        let Record { packet, sender: Told::Here(sender) } = Record::new(written(0)) else { panic!("it is told here") };
        assert_eq!(packet, Sent::of(&[0x45; 28]));
        assert_eq!(packet.known().len(), 28);
        assert_eq!(sender.process(), (4123, 5_000_000_000));
        assert_eq!(sender.path().as_deref(), Some("/usr/bin/curl"));
        assert_eq!(sender.arguments().unwrap(), ["curl", "-s", ""]);
        assert!(sender.deleted() && !sender.arguments_cut());
        let chain = sender.chain();
        assert_eq!((chain.len(), chain[0].comm.as_str()), (1, "cu\u{fffd}rl"));
        // What was left behind does not make another process of it.
        let mut other = written(0);
        other[PATH_AT + 20] = 0;
        other[THREAD] = 7;
        let Told::Here(other) = Record::new(other).sender else { panic!("it is told here") };
        assert!(other == sender);
    }

    #[test]
    fn a_record_may_refer_to_an_older_one() {
        assert!(matches!(Record::new(written(42)).sender, Told::As(41)));
    }

    #[test]
    fn lengths_that_cannot_be_are_cut() {
        let Told::Here(sender) = Record::new(Box::new([0xff; SIZE])).sender else { return };
        assert_eq!(sender.chain().len(), CHAIN);
        let _ = (sender.path(), sender.arguments());
    }
}
