//! The batch's bytes: one contiguous buffer, in which there is always room before libnftnl writes.

use std::ffi::c_char;

use mnl::mnl_sys;
use mnl::mnl_sys::libc::nlmsghdr;
use nftnl::nftnl_sys as sys;

use super::attributes::Attributes;
use crate::wire::netlink::HEADER_LEN;
use crate::wire::nftables::{GENERIC_LEN, Kind};

/// Netlink and nfnetlink header of a message.
pub(super) const HEADERS: usize = HEADER_LEN + GENERIC_LEN;

/// Bytes that grow by whole messages. Words, because `struct nlmsghdr` must stand at a multiple of four.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Buffer(Vec<u32>);

/// What stands in front of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    /// `NFNL_SUBSYS_NFTABLES` and the kind of message.
    pub kind: u16,
    pub family: u8,
    pub flags: u16,
    pub seq: u32,
}

impl Buffer {
    pub fn reserve(&mut self, bytes: usize) {
        self.0.reserve(bytes / 4);
    }

    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: a `u32` has no padding and any of its bytes is a valid `u8`; the length is that of the same allocation.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * 4) }
    }

    pub fn set_word(&mut self, at: usize, word: u32) {
        self.0[at / 4] = word;
    }

    pub fn word(&self, at: usize) -> u32 {
        self.0[at / 4]
    }

    pub fn push_words(&mut self, words: &[u32]) {
        self.0.extend_from_slice(words);
    }

    /// Appends a message of nf_tables' own.
    ///
    /// # Safety
    ///
    /// `fill` appends no more than `room` bytes to the message, headers not counted.
    pub unsafe fn message(&mut self, head: Head, room: usize, fill: impl FnOnce(*mut nlmsghdr)) {
        let Head { kind, family, flags, seq } = head;
        // SAFETY: passed on; the builder writes the two headers, for which `append` makes room.
        unsafe {
            self.append(room, |at| {
                let message = sys::nftnl_nlmsg_build_hdr(at, kind, family.into(), flags, seq);
                fill(message.cast());
                message.cast()
            });
        }
    }

    /// Appends the message that opens a batch.
    pub fn begin(&mut self, seq: u32) {
        // SAFETY: the builder writes the two headers and nothing else.
        unsafe { self.append(0, |at| sys::nftnl_batch_begin(at, seq).cast()) }
    }

    /// Appends the message that closes a batch.
    pub fn end(&mut self, seq: u32) {
        // SAFETY: the builder writes the two headers and nothing else.
        unsafe { self.append(0, |at| sys::nftnl_batch_end(at, seq).cast()) }
    }

    /// What `fill` would append to a message.
    ///
    /// # Safety
    ///
    /// `fill` appends no more than `room` bytes.
    pub unsafe fn attributes(room: usize, fill: impl FnOnce(*mut nlmsghdr)) -> Attributes {
        let mut buffer = Self::default();
        // SAFETY: passed on.
        unsafe { buffer.message(Head { kind: Kind::NewRule.to_wire(), family: 0, flags: 0, seq: 0 }, room, fill) };
        Attributes::from_bytes(buffer.as_bytes()[HEADERS..].to_vec())
    }

    /// # Safety
    ///
    /// `build` writes at most the two headers and `room` bytes from the place it is given, and returns that place.
    unsafe fn append(&mut self, room: usize, build: impl FnOnce(*mut c_char) -> *mut nlmsghdr) {
        let start = self.0.len();
        let room = HEADERS + room.next_multiple_of(4);
        // Zeroed, so that padding carries none of this process's memory to the kernel.
        self.0.resize(start + room / 4, 0);
        let message = build(self.0[start..].as_mut_ptr().cast());
        // SAFETY: `build` has written a header there, at a multiple of four, within the buffer.
        let len = unsafe { (*message).nlmsg_len } as usize;
        debug_assert!(len <= room, "{len} bytes written, room for {room}");
        self.0.truncate(start + len.div_ceil(4));
    }
}

/// Appends a nest to a message, and in it what `fill` appends.
///
/// # Safety
///
/// `message` points to a netlink message behind which there is zeroed room for a header of four bytes and what `fill` appends.
pub(super) unsafe fn nest(message: *mut nlmsghdr, kind: u16, fill: impl FnOnce(*mut nlmsghdr)) {
    // SAFETY: the caller vouches for the room; the nest lies in the message, which does not move meanwhile.
    unsafe {
        let start = mnl_sys::mnl_attr_nest_start(message, kind);
        fill(message);
        mnl_sys::mnl_attr_nest_end(message, start);
    }
}

/// Appends attributes to a message.
///
/// # Safety
///
/// `message` points to a netlink message behind which there is room for so many bytes.
pub(super) unsafe fn append(message: *mut nlmsghdr, attributes: &[u8]) {
    // SAFETY: the tail of the message lies in its buffer, which has the room; the attributes are ours and elsewhere.
    unsafe {
        let tail = mnl_sys::mnl_nlmsg_get_payload_tail(message).cast::<u8>();
        std::ptr::copy_nonoverlapping(attributes.as_ptr(), tail, attributes.len());
        (*message).nlmsg_len += attributes.len() as u32;
    }
}
