//! Wires a sandbox to its host: a veth pair, its addresses, routes and neighbours, all there when [`wire`] returns.
//!
//! # How an address is claimed
//!
//! There is no lock file and no registry. The host's route to the sandbox's address is the claim: the kernel adds it
//! only if no route to exactly that address is there (`NLM_F_EXCL`), so of two processes that want the same slot at the
//! same moment one gets `EEXIST` and goes on to another. The claim lives as long as the veth does, and like the veth it
//! goes when its holder is killed.
//!
//! Before that, the host is asked for the way to each of the four addresses of a slot. Anything but its default route,
//! or the halves into which VPNs cut one, means that the slot is in use: an address of the host, a network it is on, a VPN, another sandbox. That is four
//! questions whatever the number of routes and sandboxes. The slot's first and last address, of which IPv4 used to make
//! a network and a broadcast address, are not asked for, because they are not used: every address and route of a wire
//! is a /32 or a /128. Routes that refuse (`blackhole`, `unreachable`, `prohibit`) don't count: ours are more specific,
//! and nobody lives there.
//!
//! The question is asked as for an unmarked packet of the host itself. Tables that only a rule on a mark, a user, an
//! input interface or a source address leads to are not seen; they are the administrator's, and apply to the sandbox's
//! packets as to any other. What is verified in the end is that the host's own packets to the sandbox take the new link.
//!
//! # Ready means ready
//!
//! With duplicate address detection off, an IPv6 address is still completed by a work queue, and a link's carrier by
//! another. While other links are torn down these queues wait, and for a second or so the first connection from a new
//! sandbox goes nowhere. So nothing is left to them: the address has its local route from us, the neighbours are
//! written, not found, and reading each link as the last step makes the kernel finish what its queue holds for it.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::IpNet;
use rustix::io::Errno;
use rustix::rand::GetRandomFlags;

use super::netns::Netns;
use super::rtnetlink::{Batch, Refusal, Reply, Request, RouteKind, RouteTo, Socket, Veth};
use crate::link::{Addresses, IfIndex, Mtu, Pool, VethPair};
use crate::nft::InterfaceName;
use crate::{Error, ErrorKind, Result};

/// Name of the sandbox's end.
const INSIDE: &str = "eth0";

/// The loopback interface is the first of every namespace.
const LOOPBACK: IfIndex = IfIndex(1);

/// How many names for the host's end are tried. They are random, so even a second one is rare.
const NAME_TRIES: u32 = 8;

/// How many slots are tried before a pool counts as exhausted: a fraction of a second.
const SLOT_TRIES: u32 = 32 * 1024;

/// A sandbox's connection to its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wire {
    /// Names and addresses of both ends.
    pub pair: VethPair,
    /// The host's end, in the host's namespace.
    pub host_index: IfIndex,
    /// The sandbox's end, in the sandbox's namespace.
    pub sandbox_index: IfIndex,
    /// Whether the IPv6 addresses are in use: not where the host has switched IPv6 off.
    pub ipv6: bool,
}

impl Wire {
    /// Removes both ends, and with them the claim on the addresses.
    ///
    /// This takes some 40 ms. It is quicker to close the last descriptor of the sandbox's namespace, with which the kernel
    /// removes the link by itself.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Kernel`] when it is gone already.
    pub fn remove(&self, host: &mut Socket) -> Result<()> {
        host.commit(Batch::from([Request::delete_link(self.host_index)])).map(|_| ())
    }
}

/// Connects the namespace in which `sandbox` was opened to the namespace in which `host` was opened.
///
/// The sandbox gets its loopback switched on, and an interface `eth0` with one address a family and a default route
/// through the host. Nothing is forwarded by that alone: see [`forwarding`](super::forwarding).
///
/// # Errors
///
/// [`ErrorKind::Exhausted`] when no slot of the pool is free, [`ErrorKind::Conflict`] when the sandbox has an `eth0` already
/// or a policy rule of the host leads packets for the sandbox elsewhere, [`ErrorKind::Privilege`] without
/// `CAP_NET_ADMIN`, [`ErrorKind::Unsupported`] on a kernel without veth. Whatever had been set up is removed again.
///
/// # Privileges
///
/// `CAP_NET_ADMIN` in the user namespaces that own the two network namespaces.
///
/// # References
///
/// veth(4), rtnetlink(7)
pub fn wire(host: &mut Socket, sandbox: &mut Socket, pool: &Pool, mtu: Mtu) -> Result<Wire> {
    let ends = create(host, sandbox, mtu)?;
    connect(host, sandbox, pool, ends).map_err(|error| undo(sandbox, error))
}

/// A pair that is not connected yet.
struct Ends {
    host: InterfaceName,
    host_index: IfIndex,
    sandbox: InterfaceName,
    sandbox_index: IfIndex,
}

/// Removes the pair again after `error`, from the inside: there its name can't be anybody else's.
fn undo(sandbox: &mut Socket, error: Error) -> Error {
    match sandbox.commit(Batch::from([Request::delete_link_named(INSIDE)])) {
        Ok(_) => error,
        Err(left) => {
            Error::new(error.kind(), format!("{error}, and its veth pair is left ({})", left.chain())).because(error)
        }
    }
}

fn unnameable(error: crate::nft::NameError) -> Error {
    Error::new(ErrorKind::Policy, "can't name the veth pair").because(error)
}

fn random() -> Result<u32> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|errno| Error::new(ErrorKind::Io, "can't get random bytes").because(std::io::Error::from(errno)))?;
    Ok(u32::from_ne_bytes(bytes))
}

/// Creates the pair: the host's end on, the other one off.
fn create(host: &mut Socket, sandbox: &mut Socket, mtu: Mtu) -> Result<Ends> {
    let inside = Netns::of_socket(&*sandbox)?;
    let sandbox_name = InterfaceName::new(INSIDE).map_err(unnameable)?;
    let mut tries = 0;
    loop {
        tries += 1;
        let name = InterfaceName::new(&format!("rf{:08x}", random()?)).map_err(unnameable)?;
        let veth = Veth::new(name.as_str(), INSIDE).peer_in(&inside).mtu(mtu).up();
        let batch = Batch::from([Request::create_veth(&veth), Request::link_named(name.as_str())]);
        let mut replies = host.try_each(batch)?.into_iter();
        match replies.next() {
            Some(Err(error)) if error.is(Errno::EXIST) && tries < NAME_TRIES => continue,
            Some(Err(error)) => return Err(error.into()),
            _ => {}
        }
        let read = match replies.next() {
            Some(Ok(reply)) => reply.link(),
            Some(Err(error)) => Err(error.into()),
            None => Reply::Done.link(),
        };
        // Of a veth, the interface it hangs on is its peer.
        return match read {
            Ok(link) => match link.parent {
                Some(peer) => {
                    Ok(Ends { host: name, host_index: link.index, sandbox: sandbox_name, sandbox_index: peer })
                }
                None => Err(undo(sandbox, Error::new(ErrorKind::Decode, format!("{name} has no peer")))),
            },
            Err(error) => Err(undo(sandbox, error)),
        };
    }
}

/// Requests of which those for IPv6 may be refused, as a whole, by a host without IPv6.
#[derive(Default)]
struct Steps {
    batch: Batch,
    ipv6: Vec<bool>,
}

impl Steps {
    fn push(&mut self, request: Request) {
        self.batch.push(request);
        self.ipv6.push(false);
    }

    fn push6(&mut self, request: Request) {
        self.batch.push(request);
        self.ipv6.push(true);
    }

    /// Commits them and says whether there is IPv6.
    fn commit(self, socket: &mut Socket) -> Result<bool> {
        let mut ipv6 = true;
        for (result, optional) in socket.try_each(self.batch)?.into_iter().zip(self.ipv6) {
            match result {
                Err(error) if optional && lacks_ipv6(&error) => ipv6 = false,
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
        }
        Ok(ipv6)
    }
}

/// IPv6 is not in the kernel, or `disable_ipv6` is set for the interface.
fn lacks_ipv6(error: &Refusal) -> bool {
    [Errno::AFNOSUPPORT, Errno::OPNOTSUPP, Errno::ACCESS].into_iter().any(|errno| error.is(errno))
}

fn connect(host: &mut Socket, sandbox: &mut Socket, pool: &Pool, ends: Ends) -> Result<Wire> {
    let Ends { host_index, sandbox_index, .. } = ends;
    let (addresses, mut ipv6) = claim(host, pool, host_index)?;
    let pair = VethPair { host: ends.host, sandbox: ends.sandbox, addresses };
    let [host4, sandbox4, host6, sandbox6] = all(&addresses);

    let mut outer = Steps::default();
    outer.push(Request::link_address(host_index, pair.host_mac()));
    outer.push(Request::add_lone_address(host_index, host4.into()));
    outer.push(Request::add_neighbour(host_index, sandbox4, pair.sandbox_mac()));
    if ipv6 {
        outer.push6(Request::add_lone_address(host_index, host6.into()));
        outer.push6(Request::add_route(&RouteTo::new(host6.into()).on(host_index).local()));
        outer.push6(Request::add_neighbour(host_index, sandbox6, pair.sandbox_mac()));
    }
    ipv6 &= outer.commit(host)?;

    let mut inner = Steps::default();
    inner.push(Request::up(LOOPBACK));
    inner.push(Request::link_address(sandbox_index, pair.sandbox_mac()));
    // Before it goes up: then it would have a link-local address already.
    inner.push6(Request::no_link_local(sandbox_index));
    inner.push(Request::up(sandbox_index));
    inner.push(Request::add_lone_address(sandbox_index, sandbox4.into()));
    inner.push(Request::add_neighbour(sandbox_index, host4, pair.host_mac()));
    inner.push(Request::add_route(&default_route(host4).on(sandbox_index)));
    if ipv6 {
        inner.push6(Request::add_lone_address(sandbox_index, sandbox6.into()));
        inner.push6(Request::add_route(&RouteTo::new(sandbox6.into()).on(sandbox_index).local()));
        inner.push6(Request::add_neighbour(sandbox_index, host6, pair.host_mac()));
        inner.push6(Request::add_route(&default_route(host6).on(sandbox_index)));
    }
    // Last: reading a link completes what the kernel had put off for it.
    inner.push(Request::link(sandbox_index));
    ipv6 &= inner.commit(sandbox)?;

    // Only now has the host's end a carrier.
    host.link(host_index)?;
    let lookups = [sandbox4, sandbox6].into_iter().take(if ipv6 { 2 } else { 1 });
    for (result, to) in host.try_each(lookups.clone().map(Request::lookup).collect())?.into_iter().zip(lookups) {
        if !matches!(&result, Ok(Reply::Route(route)) if route.interface == Some(host_index)) {
            let error =
                Error::new(ErrorKind::Conflict, format!("a policy rule of the host leads packets for {to} elsewhere"));
            return Err(error.hint(format!(
                "let the table `main` come first for the pool: ip rule add to {} lookup main priority 1",
                if to.is_ipv4() { IpNet::V4(pool.v4) } else { IpNet::V6(pool.v6) }
            )));
        }
    }
    Ok(Wire { pair, host_index, sandbox_index, ipv6 })
}

fn all(addresses: &Addresses) -> [IpAddr; 4] {
    [addresses.host4.into(), addresses.sandbox4.into(), addresses.host6.into(), addresses.sandbox6.into()]
}

fn default_route(router: IpAddr) -> RouteTo {
    let everywhere = match router {
        IpAddr::V4(_) => IpNet::V4(Default::default()),
        IpAddr::V6(_) => IpNet::V6(Default::default()),
    };
    // On the link by our word: no address here has a prefix that says so.
    RouteTo::new(everywhere).via(router).onlink()
}

/// Finds a free slot and claims it; says whether with IPv6.
fn claim(host: &mut Socket, pool: &Pool, host_index: IfIndex) -> Result<(Addresses, bool)> {
    // No link-local address, or it would come up with the carrier. (Here, because it must come before that.)
    let mut prepare = Steps::default();
    prepare.push6(Request::no_link_local(host_index));
    prepare.commit(host)?;

    let mut slots = Slots::new(pool.slots());
    let mut taken = None;
    while let Some(slot) = slots.current()
        && let Some(addresses) = pool.slot(slot)
    {
        match occupant(host, &addresses)? {
            Some(prefix) => {
                slots.advance(pool.slot_past(prefix));
                taken = Some(prefix);
            }
            None => match claim_slot(host, &addresses, host_index)? {
                ControlFlow::Break(ipv6) => {
                    if slot > 0 {
                        NEXT.store(slot, Ordering::Relaxed);
                    }
                    return Ok((addresses, ipv6));
                }
                ControlFlow::Continue(()) => slots.advance(0),
            },
        }
    }
    let error = Error::new(ErrorKind::Exhausted, format!("address pool {} is exhausted", pool.v4));
    Err(match taken {
        Some(prefix) if prefix.prefix_len() < if matches!(prefix, IpNet::V4(_)) { 32 } else { 128 } => {
            error.hint(format!("the host has a route to {prefix} there: take another pool"))
        }
        _ => error.hint("take a larger pool"),
    })
}

/// How the kernel says that there is no route, that there is one that refuses, or that there is no IPv6.
const NOT_THERE: [Errno; 6] =
    [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::ACCESS, Errno::INVAL, Errno::AFNOSUPPORT, Errno::OPNOTSUPP];

/// What of the host's, if anything, has one of these addresses.
fn occupant(host: &mut Socket, addresses: &Addresses) -> Result<Option<IpNet>> {
    for result in host.try_each(all(addresses).map(Request::lookup).into())? {
        match result {
            Ok(Reply::Route(route)) if route.kind == RouteKind::Refuse || is_catch_all(route.destination) => {}
            Ok(reply) => return reply.route().map(|route| Some(route.destination)),
            Err(error) if NOT_THERE.into_iter().any(|errno| error.is(errno)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// A default route, or what VPNs put over one without touching it: 0.0.0.0/1 and 128.0.0.0/1; for IPv6 a few of up to
/// seven bits, of which fc00::/7 is all of the private addresses. Nobody's own network is that large.
fn is_catch_all(prefix: IpNet) -> bool {
    prefix.prefix_len() <= if matches!(prefix, IpNet::V4(_)) { 1 } else { 7 }
}

/// Claims one slot: breaks with "has IPv6", continues when somebody else was quicker.
fn claim_slot(host: &mut Socket, addresses: &Addresses, host_index: IfIndex) -> Result<ControlFlow<bool>> {
    let routes = [IpNet::from(IpAddr::V4(addresses.sandbox4)), IpNet::from(IpAddr::V6(addresses.sandbox6))];
    let claims = routes.map(|to| Request::add_route(&RouteTo::new(to).on(host_index)));
    let mut results = host.try_each(claims.into())?.into_iter();
    let (v4, v6) = (results.next().unwrap_or(Ok(Reply::Done)), results.next().unwrap_or(Ok(Reply::Done)));
    let lost =
        |result: &std::result::Result<Reply, Refusal>| result.as_ref().is_err_and(|error| error.is(Errno::EXIST));
    if lost(&v4) || lost(&v6) {
        // Half a claim is given back.
        let won = [v4, v6].into_iter().zip(routes).filter(|(result, _)| result.is_ok());
        host.commit(won.map(|(_, to)| Request::delete_route(to, host_index)).collect())?;
        return Ok(ControlFlow::Continue(()));
    }
    v4?;
    match v6 {
        Ok(_) => Ok(ControlFlow::Break(true)),
        Err(error) if lacks_ipv6(&error) => Ok(ControlFlow::Break(false)),
        Err(error) => Err(error.into()),
    }
}

/// Where the next search of this process begins: behind the slot that the last one found, or, the first time, somewhere,
/// so that two processes with many sandboxes don't plod through each other's. A hint; nothing goes wrong with any value.
static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(random().unwrap_or_default()));

/// The order in which slots are tried: the first one, so that the usual single sandbox has the usual addresses; then
/// all others in a ring that begins at [`NEXT`], so that a search is short however many sandboxes there are.
struct Slots {
    count: u32,
    start: u32,
    tried: u32,
    /// Place in the order; 0 is slot 0, `n` the n-th of the ring.
    place: u32,
}

impl Slots {
    fn new(count: u32) -> Self {
        Self { count, start: NEXT.fetch_add(1, Ordering::Relaxed), tried: 0, place: 0 }
    }

    fn current(&self) -> Option<u32> {
        if self.place >= self.count || self.tried >= SLOT_TRIES {
            None
        } else if self.place == 0 {
            Some(0)
        } else {
            let ring = self.count - 1;
            Some(1 + (self.start % ring + self.place - 1) % ring)
        }
    }

    /// On to the next slot, or to slot `past` if that lies ahead.
    fn advance(&mut self, past: u32) {
        let Some(current) = self.current() else { return };
        self.tried += 1;
        // Slot 0 stands outside of the ring: what covers it may cover slots in the middle of the ring.
        self.place += match (current, past.checked_sub(current)) {
            (1.., Some(ahead @ 1..)) => ahead.min(self.count - current),
            _ => 1,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(mut slots: Slots) -> Vec<u32> {
        let mut order = Vec::new();
        while let Some(slot) = slots.current() {
            order.push(slot);
            slots.advance(0);
        }
        order
    }

    #[test]
    fn every_slot_is_tried_once_and_the_first_one_first() {
        for count in 1..20 {
            for start in [0, 1, 7, u32::MAX] {
                let mut tried = order(Slots { count, start, tried: 0, place: 0 });
                assert_eq!(tried.first(), Some(&0));
                tried.sort_unstable();
                assert_eq!(tried, (0..count).collect::<Vec<_>>(), "count {count}, start {start}");
            }
        }
    }

    #[test]
    fn a_covering_route_is_passed_in_one_step() {
        let mut slots = Slots { count: 16384, start: 99, tried: 0, place: 0 };
        slots.advance(16384);
        assert_eq!(slots.current(), Some(100));
        slots.advance(16384);
        // Round the end of the ring, to what lies before.
        assert_eq!(slots.current(), Some(1));
        slots.advance(16384);
        assert_eq!(slots.current(), None);
    }

    #[test]
    fn a_search_ends() {
        let all = order(Slots { count: 1 << 30, start: 5, tried: 0, place: 0 });
        assert_eq!(all.len(), SLOT_TRIES as usize);
    }
}
