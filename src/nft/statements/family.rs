//! Families as types: what a table of a family cannot see does not compile.

use crate::nft::Family;

/// A family of tables, as a type.
pub trait TableFamily: Copy + Send + Sync + 'static {
    /// The family.
    const FAMILY: Family;
}

/// Says that packets with such a header (a type of [`layer`]) come by tables of this family.
#[diagnostic::on_unimplemented(
    message = "no packet with `{L}` comes by a table of family `{Self}`",
    label = "not in a table of family `{Self}`"
)]
pub trait Sees<L>: TableFamily {}

/// Says that tables of this family can rewrite addresses.
#[diagnostic::on_unimplemented(message = "addresses can't be rewritten in a table of family `{Self}`")]
pub trait Translates: TableFamily {}

/// Says that tables of this family see packets of IPv4 and of IPv6, and may refuse them by a code that fits either.
#[diagnostic::on_unimplemented(
    message = "a table of family `{Self}` sees one kind of packet: refuse it by ICMP or ICMPv6"
)]
pub trait Mixed: TableFamily {}

/// What a field is part of.
pub mod layer {
    /// An Ethernet header.
    #[derive(Debug, Clone, Copy)]
    pub struct Ether;
    /// An ARP header.
    #[derive(Debug, Clone, Copy)]
    pub struct Arp;
    /// An IPv4 header.
    #[derive(Debug, Clone, Copy)]
    pub struct V4;
    /// An IPv6 header.
    #[derive(Debug, Clone, Copy)]
    pub struct V6;
    /// A transport header, or what is known of a packet's flow, socket or route.
    #[derive(Debug, Clone, Copy)]
    pub struct Upper;
    /// What the kernel knows of every packet.
    #[derive(Debug, Clone, Copy)]
    pub struct Any;
}

macro_rules! families {
    ($($(#[$doc:meta])* $name:ident sees $($layer:ident)*;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name;
        impl TableFamily for $name {
            const FAMILY: Family = Family::$name;
        }
        $(impl Sees<layer::$layer> for $name {})*
    )*};
}

families! {
    /// IPv4.
    Ip sees Any Ether V4 Upper;
    /// IPv6.
    Ip6 sees Any Ether V6 Upper;
    /// IPv4 and IPv6.
    Inet sees Any Ether V4 V6 Upper;
    /// ARP.
    Arp sees Any Arp;
    /// Frames that pass a bridge.
    Bridge sees Any Ether Arp V4 V6 Upper;
    /// Frames that enter or leave one device.
    Netdev sees Any Ether Arp V4 V6 Upper;
}

impl Translates for Ip {}
impl Translates for Ip6 {}
impl Translates for Inet {}
impl Mixed for Inet {}
impl Mixed for Bridge {}
impl Mixed for Netdev {}
