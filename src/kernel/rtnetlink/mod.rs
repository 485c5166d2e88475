//! Links, addresses, routes and neighbours of one network namespace, over a synchronous netlink socket.
//!
//! [`Request`]s are put in a [`Batch`], a batch goes out in one send (32 requests at most), and each refusal comes back as a [`Refusal`]
//! that names the operation, its object, the errno and what the kernel had to say about it. The kernel works through
//! all of a batch inside the send, so nothing here ever waits: there is no async version because there is nothing to
//! await. **A batch is not atomic**: requests after a refused one are carried out all the same.
//!
//! Requests are built by `rtnetlink` and `netlink-packet-route`. Replies are decoded here, field by field as needed:
//! the crate's decoders index into payloads that they have not measured.
//!
//! ```no_run
//! use ringfence::kernel::netns::Netns;
//! use ringfence::kernel::rtnetlink::{Batch, Request, Socket, Veth};
//!
//! # fn main() -> ringfence::Result<()> {
//! let (inside, there) = Netns::create_with(Socket::open)?;
//! let mut here = Socket::open()?;
//! here.commit(Batch::from([Request::create_veth(&Veth::new("outer", "inner").peer_in(&inside))]))?;
//! let inner = there?.link_named("inner")?;
//! # Ok(())
//! # }
//! ```
//!
//! # References
//!
//! rtnetlink(7), linux/rtnetlink.h, linux/if_link.h

mod request;
mod socket;

pub use crate::wire::rtnetlink::{Address, Link, Route, RouteKind};
pub use request::{Refusal, Request, RouteTo, Veth};
pub use socket::{Batch, Reply, Socket};
