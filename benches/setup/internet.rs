//! A small internet beside the host: one address that serves port 80, one where nobody is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

use ipnet::IpNet;
use ringfence::kernel::netns::Netns;
use ringfence::kernel::rtnetlink::{Batch, Request, RouteTo, Socket, Veth};
use ringfence::link::IfIndex;

use super::Outcome;

const LOOPBACK: IfIndex = IfIndex(1);

/// Lives as long as this does.
pub struct Internet {
    _netns: Netns,
    pub served: Ipv4Addr,
    pub silent: Ipv4Addr,
}

impl Internet {
    /// Makes it, and routes to it from the calling thread's namespace.
    pub fn new() -> Outcome<Self> {
        let (netns, there) = Netns::create_with(Socket::open)?;
        let (mut here, mut there) = (Socket::open()?, there?);
        here.commit(Batch::from([
            Request::up(LOOPBACK),
            Request::create_veth(&Veth::new("up0", "eth0").peer_in(&netns).up()),
        ]))?;
        there.commit(Batch::from([Request::up(LOOPBACK)]))?;
        let (near, far) = (here.link_named("up0")?.index, there.link_named("eth0")?.index);
        there.commit(Batch::from([Request::up(far)]))?;

        let served = Ipv4Addr::new(203, 0, 113, 9);
        let served6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
        let link: [(IpAddr, IpAddr, u8); 2] = [
            (Ipv4Addr::new(198, 51, 100, 1).into(), Ipv4Addr::new(198, 51, 100, 254).into(), 24),
            (
                Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1).into(),
                Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xfe).into(),
                64,
            ),
        ];
        for (ours, theirs, prefix) in link {
            here.commit(Batch::from([Request::add_address(near, IpNet::new(ours, prefix)?)]))?;
            there.commit(Batch::from([Request::add_address(far, IpNet::new(theirs, prefix)?)]))?;
            let everywhere = if ours.is_ipv4() { "0.0.0.0/0" } else { "::/0" }.parse()?;
            here.commit(Batch::from([Request::add_route(&RouteTo::new(everywhere).via(theirs).on(near))]))?;
            there.commit(Batch::from([Request::add_route(&RouteTo::new(everywhere).via(ours).on(far))]))?;
        }
        for address in [IpAddr::from(served), served6.into()] {
            there.commit(Batch::from([Request::add_address(LOOPBACK, address.into())]))?;
        }
        let listener = netns.run(|| TcpListener::bind((served, 80)))??;
        // Ends with the process. Closed at once: what is measured is the handshake.
        std::thread::spawn(move || listener.incoming().for_each(drop));
        Ok(Self { _netns: netns, served, silent: Ipv4Addr::new(203, 0, 113, 10) })
    }
}
