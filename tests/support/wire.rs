//! What passes on every interface of a namespace, frame by frame.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use ringfence::kernel::netns::Netns;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType};

use super::{HOST_MAC, until};

/// All ethertypes, in network order.
const ETH_P_ALL: u32 = (0x0003_u16).to_be() as u32;

/// One Ethernet frame.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame(pub Vec<u8>);

impl Frame {
    fn at(&self, offset: usize, length: usize) -> &[u8] {
        self.0.get(offset..offset + length).unwrap_or_default()
    }

    fn u16_at(&self, offset: usize) -> u16 {
        self.at(offset, 2).try_into().map_or(0, u16::from_be_bytes)
    }

    /// Whether the host put it on the uplink.
    pub fn is_from_host(&self) -> bool {
        self.at(6, 6) == HOST_MAC
    }

    /// Type of its payload: 0x0800 for IPv4, 0x86dd for IPv6, 0x0806 for ARP.
    pub fn ethertype(&self) -> u16 {
        self.u16_at(12)
    }

    /// Source address.
    pub fn source(&self) -> Option<IpAddr> {
        self.address(12, 8)
    }

    /// Destination address.
    pub fn destination(&self) -> Option<IpAddr> {
        self.address(16, 24)
    }

    fn address(&self, v4: usize, v6: usize) -> Option<IpAddr> {
        match self.ethertype() {
            0x0800 => <[u8; 4]>::try_from(self.at(14 + v4, 4)).ok().map(|address| Ipv4Addr::from(address).into()),
            0x86dd => <[u8; 16]>::try_from(self.at(14 + v6, 16)).ok().map(|address| Ipv6Addr::from(address).into()),
            _ => None,
        }
    }

    /// Protocol, as the fixed header has it.
    pub fn protocol(&self) -> Option<u8> {
        match self.ethertype() {
            0x0800 => self.0.get(14 + 9).copied(),
            0x86dd => self.0.get(14 + 6).copied(),
            _ => None,
        }
    }

    /// Port it goes to, of a packet with no options and no extension headers.
    pub fn port(&self) -> Option<u16> {
        let header = match self.ethertype() {
            0x0800 if self.at(14, 1) == [0x45] => 20,
            0x86dd => 40,
            _ => return None,
        };
        matches!(self.protocol(), Some(6 | 17)).then(|| self.u16_at(14 + header + 2))
    }

    /// Whether it is a fragment, or an IPv4 packet with options.
    pub fn is_malformed(&self) -> bool {
        match self.ethertype() {
            0x0800 => self.at(14, 1) != [0x45] || self.u16_at(14 + 6) & 0x3fff != 0,
            0x86dd => !matches!(self.protocol(), Some(6 | 17 | 58)),
            _ => true,
        }
    }

    /// Whether these bytes are somewhere in it.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        self.0.windows(bytes.len()).any(|window| window == bytes)
    }

    /// Whether it is what a kernel says to its neighbours by itself: ARP, neighbour and router solicitations, group
    /// memberships. None of it is large enough to carry anything away.
    pub fn is_chatter(&self) -> bool {
        match self.ethertype() {
            0x0806 => self.0.len() <= 60,
            0x86dd => {
                let hop_by_hop = self.protocol() == Some(0);
                let kind = self.0.get(if hop_by_hop { 14 + 48 } else { 14 + 40 }).copied();
                let membership = hop_by_hop && self.0.get(14 + 40).copied() == Some(58) && kind == Some(143);
                let discovery = self.protocol() == Some(58) && matches!(kind, Some(133 | 135 | 136));
                (membership || discovery) && self.0.len() <= 14 + 40 + 8 + 8 + 20 * 4
            }
            // 802.1 and loopback tests of drivers are none of a kernel's own.
            _ => false,
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}", self.ethertype())?;
        if let (Some(source), Some(destination), Some(protocol)) = (self.source(), self.destination(), self.protocol())
        {
            write!(f, " {source} > {destination} protocol {protocol}")?;
        }
        if let Some(port) = self.port() {
            write!(f, " port {port}")?;
        }
        write!(f, " ({} bytes)", self.0.len())?;
        self.0.iter().take(96).try_for_each(|byte| write!(f, " {byte:02x}"))
    }
}

/// A tap on every interface of a namespace but loopback.
pub struct Wire {
    frames: Arc<Mutex<Vec<Frame>>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// Starts collecting.
    pub fn tap(netns: &Netns) -> Self {
        let protocol = NonZeroU32::new(ETH_P_ALL).map(Protocol::from_raw);
        let open = || -> rustix::io::Result<OwnedFd> {
            // Given a protocol at birth, it listens from birth on, to all interfaces there are and all that come.
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, protocol)?;
            rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 64 << 20)?;
            Ok(socket)
        };
        let socket = netns.run(open).unwrap().unwrap();
        let (frames, ending) = (Arc::<Mutex<Vec<Frame>>>::default(), Arc::<AtomicBool>::default());
        let thread = std::thread::spawn({
            let (frames, ending) = (frames.clone(), ending.clone());
            move || collect(&socket, &frames, &ending)
        });
        Self { frames, ending, thread: Some(thread) }
    }

    /// Everything that passed so far.
    pub fn frames(&self) -> Vec<Frame> {
        self.frames.lock().unwrap().clone()
    }

    /// How many frames so far hold these bytes and came from the host.
    pub fn count(&self, marker: &str) -> usize {
        let frames = self.frames.lock().unwrap();
        frames.iter().filter(|frame| frame.is_from_host() && frame.holds(marker.as_bytes())).count()
    }

    /// Waits until a frame with these bytes has come from the host: the wire is seen, and all that was sent before has passed.
    pub fn until_seen(&self, marker: &str) {
        until(&format!("`{marker}` is on the wire"), || self.count(marker) > 0);
    }

    /// What the host sent and neither `expected` nor its kernel accounts for.
    ///
    /// Waits a little first, for what the kernel may have put off.
    pub fn strangers(&self, expected: impl Fn(&Frame) -> bool) -> Vec<Frame> {
        std::thread::sleep(Duration::from_millis(60));
        let frames = self.frames.lock().unwrap();
        frames.iter().filter(|frame| frame.is_from_host() && !frame.is_chatter() && !expected(frame)).cloned().collect()
    }

    /// Forgets what passed so far.
    pub fn clear(&self) {
        self.frames.lock().unwrap().clear();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn collect(socket: &OwnedFd, frames: &Mutex<Vec<Frame>>, ending: &AtomicBool) {
    // As long as an Ethernet frame gets with segmentation left to the card.
    let mut buffer = vec![0; 1 << 17];
    while !ending.load(Ordering::SeqCst) {
        match rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((length, _)) => frames.lock().unwrap().push(Frame(buffer[..length].to_vec())),
            Err(Errno::AGAIN) => {
                let mut ready = [PollFd::new(socket, PollFlags::IN)];
                let _ = rustix::event::poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 }));
            }
            // An interface of the namespace went down or away: not the end of the others.
            Err(Errno::NETDOWN | Errno::INTR) => {}
            Err(errno) => panic!("the wire can't be watched: {errno}"),
        }
    }
}
