//! What can be asked of the kernel.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, Emitable, NetlinkSerializable};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use rustix::io::Errno;

use crate::kernel::KernelError;
use crate::link::{IfIndex, Mtu};
use crate::wire::netlink::Acknowledgement;
use crate::{Error, ErrorKind};

/// The table of the host's own addresses.
const RT_TABLE_LOCAL: u8 = 255;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

/// One thing to ask of the kernel, with the words for a refusal.
#[derive(Debug, Clone)]
pub struct Request {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) payload: Vec<u8>,
    pub(super) operation: &'static str,
    pub(super) object: String,
    config: Option<&'static str>,
}

/// The two families of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl From<Family> for AddressFamily {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => Self::Inet,
            Family::V6 => Self::Inet6,
        }
    }
}

/// A veth pair to be created. One queue an end: a pair with one queue a processor takes longer to make.
#[derive(Debug, Clone, Copy)]
pub struct Veth<'a> {
    name: &'a str,
    peer: &'a str,
    peer_netns: Option<BorrowedFd<'a>>,
    mtu: Mtu,
    up: bool,
}

impl<'a> Veth<'a> {
    /// A pair of these two names, both ends in the namespace of the socket, with an MTU of 1500.
    pub fn new(name: &'a str, peer: &'a str) -> Self {
        Self { name, peer, peer_netns: None, mtu: Mtu::default(), up: false }
    }

    /// Lets the peer be born in that namespace. (To move it there later takes a hundred times as long.)
    #[doc(alias = "IFLA_NET_NS_FD")]
    pub fn peer_in(mut self, netns: &'a impl AsFd) -> Self {
        self.peer_netns = Some(netns.as_fd());
        self
    }

    /// Sets the MTU of both ends.
    pub fn mtu(mut self, mtu: Mtu) -> Self {
        self.mtu = mtu;
        self
    }

    /// Switches the near end on. The kernel does not take that for the peer.
    pub fn up(mut self) -> Self {
        self.up = true;
        self
    }
}

/// A route to be added.
#[derive(Debug, Clone, Copy)]
pub struct RouteTo {
    destination: IpNet,
    gateway: Option<IpAddr>,
    interface: Option<IfIndex>,
    onlink: bool,
    local: bool,
}

impl RouteTo {
    /// A route to there.
    pub fn new(destination: IpNet) -> Self {
        Self { destination: destination.trunc(), gateway: None, interface: None, onlink: false, local: false }
    }

    /// Through that router.
    #[doc(alias = "RTA_GATEWAY")]
    pub fn via(mut self, gateway: IpAddr) -> Self {
        self.gateway = Some(gateway);
        self
    }

    /// Out of that interface. Without a router, the destination is on the link itself.
    #[doc(alias = "RTA_OIF")]
    pub fn on(mut self, interface: IfIndex) -> Self {
        self.interface = Some(interface);
        self
    }

    /// Believes that the router is on the link, though no address of ours says so.
    #[doc(alias = "RTNH_F_ONLINK")]
    pub fn onlink(mut self) -> Self {
        self.onlink = true;
        self
    }

    /// The destination is this host itself; goes to the table `local`.
    #[doc(alias = "RTN_LOCAL")]
    pub fn local(mut self) -> Self {
        self.local = true;
        self
    }
}

const NO_PRIVILEGE: &str = "it takes CAP_NET_ADMIN there: run it as root, or in `unshare --user --map-root-user --net`";

/// A request that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What to decide by.
    pub kind: ErrorKind,
    /// What the kernel said.
    pub error: KernelError,
}

impl Refusal {
    /// Says whether the kernel answered `errno`.
    pub(crate) fn is(&self, errno: Errno) -> bool {
        self.error.is(errno)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        refusal.error.of_kind(refusal.kind)
    }
}

impl Request {
    fn new(message: RouteNetlinkMessage, flags: u16, operation: &'static str, object: String) -> Self {
        let mut payload = vec![0; NetlinkSerializable::buffer_len(&message)];
        NetlinkSerializable::serialize(&message, &mut payload);
        Self { kind: message.message_type(), flags, payload, operation, object, config: None }
    }

    fn needs(mut self, config: &'static str) -> Self {
        self.config = Some(config);
        self
    }

    /// IPv4 is in every kernel that has rtnetlink, IPv6 is not.
    fn needs_family_of(self, address: IpAddr) -> Self {
        if address.is_ipv6() { self.needs("CONFIG_IPV6") } else { self }
    }

    pub(super) fn refused(&self, refused: &Acknowledgement) -> Refusal {
        let (kind, hint) = match Errno::from_raw_os_error(refused.errno) {
            Errno::PERM => (ErrorKind::Privilege, Some(NO_PRIVILEGE.to_owned())),
            Errno::EXIST => (ErrorKind::Conflict, None),
            Errno::OPNOTSUPP | Errno::AFNOSUPPORT => {
                (ErrorKind::Unsupported, self.config.map(|config| format!("use a kernel with {config}")))
            }
            _ => (ErrorKind::Kernel, None),
        };
        Refusal { kind, error: KernelError::new(format!("{} {}", self.operation, self.object), refused, hint) }
    }

    /// `ip link add NAME type veth peer name PEER netns …`
    #[doc(alias = "VETH_INFO_PEER")]
    pub fn create_veth(veth: &Veth<'_>) -> Self {
        let one_queue = [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];
        let mtu = u32::from(veth.mtu.bytes());
        let mut peer = LinkMessageBuilder::<LinkUnspec>::new().name(veth.peer).mtu(mtu);
        if let Some(netns) = veth.peer_netns {
            peer = peer.setns_by_fd(netns.as_raw_fd());
        }
        let mut peer = peer.build();
        peer.attributes.extend(one_queue.clone());
        let near = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(veth.name)
            .mtu(mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        let mut near = if veth.up { near.up() } else { near }.build();
        near.attributes.extend(one_queue);
        let object = format!("{} to {}", veth.name, veth.peer);
        Self::new(RouteNetlinkMessage::NewLink(near), NLM_F_CREATE | NLM_F_EXCL, "create veth pair", object)
            .needs("CONFIG_VETH")
    }

    /// `ip link set … up`
    #[doc(alias = "IFF_UP")]
    pub fn up(index: IfIndex) -> Self {
        let message = LinkUnspec::new_with_index(index.0).up().build();
        Self::new(RouteNetlinkMessage::SetLink(message), 0, "switch on interface", index.to_string())
    }

    /// `ip link set … down`
    pub fn down(index: IfIndex) -> Self {
        let message = LinkUnspec::new_with_index(index.0).down().build();
        Self::new(RouteNetlinkMessage::SetLink(message), 0, "switch off interface", index.to_string())
    }

    /// `ip link set … address …`
    #[doc(alias = "IFLA_ADDRESS")]
    pub fn link_address(index: IfIndex, mac: [u8; 6]) -> Self {
        let message = LinkUnspec::new_with_index(index.0).address(mac.to_vec()).build();
        Self::new(RouteNetlinkMessage::SetLink(message), 0, "set link-layer address of interface", index.to_string())
    }

    /// `ip link set … addrgenmode none`: no link-local address comes up by itself.
    #[doc(alias = "IFLA_INET6_ADDR_GEN_MODE")]
    pub fn no_link_local(index: IfIndex) -> Self {
        let spec = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        Self::set_af_spec(index, spec, "switch off IPv6 address generation of interface").needs("CONFIG_IPV6")
    }

    /// `sysctl net.ipv4.conf.….forwarding=…`, which needs no `/proc`.
    #[doc(alias = "IPV4_DEVCONF_FORWARDING")]
    pub fn forwarding4(index: IfIndex, on: bool) -> Self {
        const IFLA_INET_CONF: u16 = 1;
        const NLA_F_NESTED: u16 = 0x8000;
        const IPV4_DEVCONF_FORWARDING: u16 = 1;
        // By hand, because `AfSpecInet::DevConfRequest` leaves out what is to be 0.
        let setting = DefaultNla::new(IPV4_DEVCONF_FORWARDING, u32::from(on).to_ne_bytes().to_vec());
        let mut list = vec![0; setting.buffer_len()];
        setting.emit(&mut list);
        let spec = AfSpecUnspec::Inet(vec![AfSpecInet::Other(DefaultNla::new(IFLA_INET_CONF | NLA_F_NESTED, list))]);
        Self::set_af_spec(index, spec, "set IPv4 forwarding of interface")
    }

    fn set_af_spec(index: IfIndex, spec: AfSpecUnspec, operation: &'static str) -> Self {
        let message =
            LinkUnspec::new_with_index(index.0).append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![spec])).build();
        Self::new(RouteNetlinkMessage::SetLink(message), 0, operation, index.to_string())
    }

    /// `ip link delete …`. Waits until no processor uses the interface any more, some tens of milliseconds.
    pub fn delete_link(index: IfIndex) -> Self {
        let message = LinkUnspec::new_with_index(index.0).build();
        Self::new(RouteNetlinkMessage::DelLink(message), 0, "delete interface", index.to_string())
    }

    /// `ip link delete …`, by name.
    pub fn delete_link_named(name: &str) -> Self {
        let message = LinkUnspec::new_with_name(name).build();
        Self::new(RouteNetlinkMessage::DelLink(message), 0, "delete interface", name.to_owned())
    }

    /// `ip link show …`
    pub fn link(index: IfIndex) -> Self {
        let message = LinkUnspec::new_with_index(index.0).build();
        Self::new(RouteNetlinkMessage::GetLink(message), 0, "read interface", index.to_string())
    }

    /// `ip link show …`, by name.
    pub fn link_named(name: &str) -> Self {
        let message = LinkUnspec::new_with_name(name).build();
        Self::new(RouteNetlinkMessage::GetLink(message), 0, "read interface", name.to_owned())
    }

    pub(super) fn dump_links() -> Self {
        Self::new(RouteNetlinkMessage::GetLink(LinkMessage::default()), 0, "read", "all interfaces".to_owned())
    }

    pub(super) fn dump_addresses() -> Self {
        Self::new(RouteNetlinkMessage::GetAddress(AddressMessage::default()), 0, "read", "all addresses".to_owned())
    }

    pub(super) fn dump_routes(family: Family) -> Self {
        let mut message = RouteMessage::default();
        message.header.address_family = family.into();
        Self::new(RouteNetlinkMessage::GetRoute(message), 0, "read", "all routes".to_owned())
    }

    /// `ip address add … dev … [nodad]`. Duplicate address detection is left out for IPv6: it would take a second.
    #[doc(alias = "IFA_F_NODAD")]
    pub fn add_address(index: IfIndex, address: IpNet) -> Self {
        Self::address(index, address, AddressFlags::empty())
    }

    /// `ip address add … dev … noprefixroute [nodad]`: as [`add_address`](Self::add_address), and the kernel makes no
    /// route to the rest of its network.
    #[doc(alias = "IFA_F_NOPREFIXROUTE")]
    pub fn add_lone_address(index: IfIndex, address: IpNet) -> Self {
        Self::address(index, address, AddressFlags::Noprefixroute)
    }

    fn address(index: IfIndex, address: IpNet, flags: AddressFlags) -> Self {
        let mut message = AddressMessage::default();
        message.header.family = Family::of(address.addr()).into();
        message.header.prefix_len = address.prefix_len();
        message.header.index = index.0;
        message.header.scope = AddressScope::Universe;
        message.attributes.push(AddressAttribute::Local(address.addr()));
        message.attributes.push(AddressAttribute::Address(address.addr()));
        let flags = match address {
            IpNet::V4(net) => {
                if net.prefix_len() < 31 {
                    message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
                }
                flags
            }
            IpNet::V6(_) => {
                message.header.flags = AddressHeaderFlags::Nodad;
                flags | AddressFlags::Nodad
            }
        };
        message.attributes.push(AddressAttribute::Flags(flags));
        let object = format!("{address} to interface {index}");
        Self::new(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL, "add address", object)
            .needs_family_of(address.addr())
    }

    /// `ip route add …`: refused with [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) when that destination has a
    /// route of the same metric already, through whatever interface.
    pub fn add_route(route: &RouteTo) -> Self {
        let mut message = RouteMessageBuilder::<IpAddr>::new().build();
        let header = &mut message.header;
        header.address_family = Family::of(route.destination.addr()).into();
        header.destination_prefix_length = route.destination.prefix_len();
        header.protocol = RouteProtocol::Static;
        if route.local {
            header.kind = RouteType::Local;
            header.table = RT_TABLE_LOCAL;
            header.scope = RouteScope::Host;
        } else if route.gateway.is_none() {
            header.scope = RouteScope::Link;
        }
        if route.onlink {
            header.flags |= RouteFlags::Onlink;
        }
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Destination(route.destination.addr().into()));
        match (route.gateway, route.destination) {
            (Some(IpAddr::V6(router)), IpNet::V4(_)) => attributes.push(RouteAttribute::Via(RouteVia::Inet6(router))),
            (Some(router), _) => attributes.push(RouteAttribute::Gateway(router.into())),
            (None, _) => {}
        }
        let mut object = format!("to {}", route.destination);
        if let Some(router) = route.gateway {
            object.push_str(&format!(" via {router}"));
        }
        if let Some(interface) = route.interface {
            attributes.push(RouteAttribute::Oif(interface.0));
            object.push_str(&format!(" on interface {interface}"));
        }
        Self::new(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL, "add route", object)
            .needs_family_of(route.destination.addr())
    }

    /// `ip route delete TO dev …`
    pub fn delete_route(destination: IpNet, interface: IfIndex) -> Self {
        let mut message = RouteMessage::default();
        message.header.address_family = Family::of(destination.addr()).into();
        message.header.destination_prefix_length = destination.prefix_len();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.scope = RouteScope::NoWhere;
        message.attributes.push(RouteAttribute::Destination(destination.trunc().addr().into()));
        message.attributes.push(RouteAttribute::Oif(interface.0));
        let object = format!("to {destination} on interface {interface}");
        Self::new(RouteNetlinkMessage::DelRoute(message), 0, "delete route", object)
    }

    /// `ip route get fibmatch …`: the route that a packet from this host to there would take.
    #[doc(alias = "RTM_F_FIB_MATCH")]
    pub fn lookup(destination: IpAddr) -> Self {
        let mut message = RouteMessage::default();
        message.header.address_family = Family::of(destination).into();
        message.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
        message.header.flags = RouteFlags::FibMatch;
        message.attributes.push(RouteAttribute::Destination(destination.into()));
        Self::new(RouteNetlinkMessage::GetRoute(message), 0, "look up the route to", destination.to_string())
    }

    /// `ip neighbour add … lladdr … nud permanent`: nobody has to be asked who has that address.
    #[doc(alias = "NUD_PERMANENT")]
    pub fn add_neighbour(index: IfIndex, address: IpAddr, mac: [u8; 6]) -> Self {
        let mut message = NeighbourMessage::default();
        message.header.family = Family::of(address).into();
        message.header.ifindex = index.0;
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(address) => NeighbourAddress::Inet(address),
            IpAddr::V6(address) => NeighbourAddress::Inet6(address),
        }));
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        let object = format!("{address} on interface {index}");
        Self::new(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_EXCL, "add neighbour", object)
            .needs_family_of(address)
    }
}
