//! The floor: the fewest bytes that make the same, written by hand, four sends, nothing read back but complaints.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use ringfence::kernel::netns::Netns;
use ringfence::nft::{Object, Transaction, Verb};
use ringfence::plan::Plan;
use ringfence::wire::nftables;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};

use super::Outcome;

const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;
const NESTED: u16 = 0x8000;
const IFF_UP: u32 = 1;
const PERMANENT: u16 = 0x80;

/// Index of the sandbox's end, chosen by us so that nothing has to be asked.
const INSIDE: u32 = 2;
const HOST: u32 = 77_777;

/// A sandbox made of raw bytes.
pub struct Wired {
    _netns: Netns,
    rules: Socket,
    remove: Vec<u8>,
}

impl Wired {
    pub fn new(plan: &Plan) -> Outcome<Self> {
        let to = &plan.wire.addresses;
        let (host_mac, sandbox_mac) = (plan.wire.host_mac(), plan.wire.sandbox_mac());
        // What depends on neither namespace nor kernel could be made long before.
        let inside = nftables::encode(&plan.inside.create())?;
        let mut table = plan.outside.clone();
        table.tables.iter_mut().for_each(|table| table.flags.owner = false);
        let outside = nftables::encode(&table.create())?;
        let mut removal = Transaction::new();
        table.tables.iter().for_each(|table| removal.push(Verb::Delete, Object::Table(table.clone())));

        let host_links = open(NETLINK_ROUTE)?;
        let host_rules = open(NETLINK_NETFILTER)?;
        let (netns, sockets) =
            Netns::create_with(|| -> Outcome<_> { Ok((open(NETLINK_ROUTE)?, open(NETLINK_NETFILTER)?)) })?;
        let (inner_links, inner_rules) = sockets?;

        let mut outer = Bytes::default();
        outer.create_veth(plan, netns.as_fd().as_raw_fd(), host_mac, sandbox_mac);
        let mut inner = Bytes::default();
        inner.up(1);
        inner.no_link_local(INSIDE);
        inner.up(INSIDE);
        let pairs: [(IpAddr, IpAddr); 2] =
            [(to.host4.into(), to.sandbox4.into()), (to.host6.into(), to.sandbox6.into())];
        for (near, far) in pairs {
            outer.address(HOST, near);
            outer.route(HOST, Some(far), None);
            outer.neighbour(HOST, far, sandbox_mac);
            inner.address(INSIDE, far);
            inner.neighbour(INSIDE, near, host_mac);
            inner.route(INSIDE, None, Some(near));
        }
        deliver(&host_links, &outer.0)?;
        deliver(&inner_links, &inner.0)?;
        deliver(&inner_rules, inside.as_bytes())?;
        deliver(&host_rules, outside.as_bytes())?;
        Ok(Self { _netns: netns, rules: host_rules, remove: nftables::encode(&removal)?.as_bytes().to_vec() })
    }

    /// Closes the namespace, which takes the veth with it, and deletes the host's table.
    pub fn close(self) -> Outcome<()> {
        let Self { _netns, rules, remove } = self;
        drop(_netns);
        deliver(&rules, &remove)
    }
}

/// A socket with room for any batch.
pub fn open(protocol: isize) -> Outcome<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// One send; the kernel has done it when that returns. Then its complaints, of which there should be none.
pub fn deliver(socket: &Socket, bytes: &[u8]) -> Outcome<()> {
    let room = bytes.len() + 1024;
    if sockopt::socket_send_buffer_size(socket)? < room {
        sockopt::set_socket_send_buffer_size_force(socket, room)?;
    }
    send(socket, bytes, SendFlags::empty())?;
    let mut answer = [0; 4096];
    loop {
        match recv(socket, &mut answer[..], RecvFlags::DONTWAIT) {
            Ok((_, len)) => {
                for message in ringfence::wire::netlink::messages(&answer[..len.min(answer.len())]) {
                    let message = message?;
                    let refused = ringfence::wire::netlink::acknowledgement(&message)?.filter(|ack| ack.errno != 0);
                    if let Some(refused) = refused {
                        return Err(format!("the kernel refuses raw bytes: {refused:?}").into());
                    }
                }
            }
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// rtnetlink messages, one after the other.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn message(&mut self, kind: u16, flags: u16, header: &[u8], attributes: &[u8]) {
        let len = 16 + header.len() + attributes.len();
        self.0.extend((len as u32).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend((1 | flags).to_ne_bytes());
        self.0.extend([0; 8]);
        self.0.extend(header);
        self.0.extend(attributes);
    }

    /// `RTM_NEWLINK` with `VETH_INFO_PEER`: both ends with their addresses, the host's up.
    fn create_veth(&mut self, plan: &Plan, netns: i32, host_mac: [u8; 6], sandbox_mac: [u8; 6]) {
        let queues = [attribute(31, &1u32.to_ne_bytes()), attribute(32, &1u32.to_ne_bytes())].concat();
        let peer = [
            link(INSIDE, 0),
            attribute(3, &text(plan.wire.sandbox.as_str())),
            attribute(1, &sandbox_mac),
            attribute(28, &netns.to_ne_bytes()),
            queues.clone(),
        ]
        .concat();
        let info = [attribute(1, b"veth\0"), attribute(2 | NESTED, &attribute(1 | NESTED, &peer))].concat();
        let name = attribute(3, &text(plan.wire.host.as_str()));
        let attributes = [name, attribute(1, &host_mac), queues, attribute(18 | NESTED, &info)].concat();
        self.message(16, CREATE | EXCLUSIVE, &link(HOST, 0), &attributes);
        self.no_link_local(HOST);
        self.up(HOST);
    }

    /// `IFLA_INET6_ADDR_GEN_MODE` none. In a message of its own: the kernel looks at flags first.
    fn no_link_local(&mut self, index: u32) {
        let inet6 = attribute(10 | NESTED, &attribute(8, &[1]));
        self.message(16, 0, &link(index, 0), &attribute(26 | NESTED, &inet6));
    }

    fn up(&mut self, index: u32) {
        self.message(16, 0, &link(index, IFF_UP), &[]);
    }

    fn address(&mut self, index: u32, address: IpAddr) {
        let (family, octets) = octets(address);
        // IFA_F_NODAD.
        let header = [&[family, octets.len() as u8 * 8, 2, 0][..], &index.to_ne_bytes()].concat();
        self.message(20, CREATE, &header, &[attribute(2, &octets), attribute(1, &octets)].concat());
    }

    fn route(&mut self, index: u32, to: Option<IpAddr>, via: Option<IpAddr>) {
        let Some((family, _)) = to.or(via).map(octets) else { return };
        let destination = to.map(|to| octets(to).1).unwrap_or_default();
        // Main table, by the administrator, on the link or universe, unicast, onlink where there is a gateway.
        let (scope, flags) = if via.is_some() {
            (0, 4u32)
        } else if family == 2 {
            (253, 0)
        } else {
            (0, 0)
        };
        let header =
            [&[family, destination.len() as u8 * 8, 0, 0, 254, 4, scope, 1][..], &flags.to_ne_bytes()].concat();
        let mut attributes = attribute(4, &index.to_ne_bytes());
        if to.is_some() {
            attributes.extend(attribute(1, &destination));
        }
        if let Some(via) = via {
            attributes.extend(attribute(5, &octets(via).1));
        }
        self.message(24, CREATE, &header, &attributes);
    }

    fn neighbour(&mut self, index: u32, address: IpAddr, mac: [u8; 6]) {
        let (family, octets) = octets(address);
        let header = [&[family, 0, 0, 0][..], &index.to_ne_bytes(), &PERMANENT.to_ne_bytes(), &[0, 0]].concat();
        self.message(28, CREATE, &header, &[attribute(1, &octets), attribute(2, &mac)].concat());
    }
}

/// `struct ifinfomsg`.
fn link(index: u32, flags: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), flags.to_ne_bytes()].concat()
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = [(4 + value.len() as u16).to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

fn octets(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (2, v4.octets().to_vec()),
        IpAddr::V6(v6) => (10, v6.octets().to_vec()),
    }
}
