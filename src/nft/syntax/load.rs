//! What is loaded and is no field of a header: of the route, the socket, the state of IPsec, and numbers that are made.
//!
//! Each as nft(8) writes it.

use super::field::Field;
use super::header::{INTEGER, STRING};
use super::value::Kind;
use crate::nft::{Datatype, FibFlags, FibResult, Hash, NumgenKind, RtKey, SocketKey, XfrmDirection, XfrmKey};

fn of(text: impl Into<String>, kind: Kind, datatype: Datatype) -> Field {
    Field::new(text, kind, datatype.number(), datatype.size())
}

fn number(text: impl Into<String>, kind: Kind, width: usize) -> Field {
    Field::new(text, kind, INTEGER, width)
}

pub(super) fn rt(key: RtKey) -> Field {
    match key {
        RtKey::ClassId => of("rt classid", Kind::Native, Datatype::Realm),
        RtKey::NextHop4 => of("rt ip nexthop", Kind::Ipv4, Datatype::Ipv4Addr),
        RtKey::NextHop6 => of("rt ip6 nexthop", Kind::Ipv6, Datatype::Ipv6Addr),
        RtKey::TcpMss => number("rt mtu", Kind::Native, 2),
        RtKey::Xfrm => of("rt ipsec", Kind::Exists, Datatype::Boolean),
    }
}

pub(super) fn socket(key: SocketKey, level: Option<u32>) -> Result<Field, String> {
    match (key, level) {
        (SocketKey::Transparent, None | Some(0)) => Ok(number("socket transparent", Kind::Native, 1)),
        (SocketKey::Mark, None | Some(0)) => Ok(of("socket mark", Kind::Mark, Datatype::Mark)),
        (SocketKey::Wildcard, None | Some(0)) => Ok(number("socket wildcard", Kind::Native, 1)),
        // It names a directory of the machine that it was written on.
        _ => Err("nft(8) writes a control group by its path".to_owned()),
    }
}

pub(super) fn osf(ttl: u8, flags: u32) -> Result<Field, String> {
    let ttl = match ttl {
        0 => "",
        1 => " ttl loose",
        2 => " ttl skip",
        _ => return Err("nft(8) has no word for how it compares the time to live".to_owned()),
    };
    let what = if flags == 0 { "name" } else { "version" };
    Ok(Field::new(format!("osf{ttl} {what}"), Kind::Text, STRING, 16))
}

/// `fib saddr . iif oif`
pub(super) fn fib(result: FibResult, flags: FibFlags) -> Result<Field, String> {
    let words = [
        (FibFlags::SADDR, "saddr"),
        (FibFlags::DADDR, "daddr"),
        (FibFlags::MARK, "mark"),
        (FibFlags::IIF, "iif"),
        (FibFlags::OIF, "oif"),
    ];
    if flags.0 & !63 != 0 {
        return Err("nft(8) has no word for what its look-up goes by".to_owned());
    }
    let key: Vec<_> = words.iter().filter(|(flag, _)| flags.has(*flag)).map(|(_, word)| *word).collect();
    let key = key.join(" . ");
    let present = flags.has(FibFlags::PRESENT);
    match result {
        FibResult::Oif if present => {
            Ok(Field::new(format!("fib {key} oif"), Kind::Exists, Datatype::Boolean.number(), 4))
        }
        FibResult::Oif => Ok(of(format!("fib {key} oif"), Kind::IfIndex, Datatype::IfaceIndex)),
        // A text to nft(8) where a set's type is asked for, a name of an interface where it is compared.
        FibResult::OifName if !present => Ok(Field::new(format!("fib {key} oifname"), Kind::IfName, STRING, 16)),
        FibResult::AddrType if !present => Ok(of(format!("fib {key} type"), Kind::AddrType, Datatype::FibAddrType)),
        _ => Err("nft(8) has no way to write this look-up of a route".to_owned()),
    }
}

pub(super) fn xfrm(key: XfrmKey, direction: XfrmDirection, spnum: u32) -> Field {
    let direction = match direction {
        XfrmDirection::In => "in",
        XfrmDirection::Out => "out",
    };
    let head = if spnum == 0 { format!("ipsec {direction}") } else { format!("ipsec {direction} spnum {spnum}") };
    match key {
        XfrmKey::Daddr4 => of(format!("{head} ip daddr"), Kind::Ipv4, Datatype::Ipv4Addr),
        XfrmKey::Daddr6 => of(format!("{head} ip6 daddr"), Kind::Ipv6, Datatype::Ipv6Addr),
        XfrmKey::Saddr4 => of(format!("{head} ip saddr"), Kind::Ipv4, Datatype::Ipv4Addr),
        XfrmKey::Saddr6 => of(format!("{head} ip6 saddr"), Kind::Ipv6, Datatype::Ipv6Addr),
        XfrmKey::ReqId => number(format!("{head} reqid"), Kind::Native, 4),
        XfrmKey::Spi => number(format!("{head} spi"), Kind::Number, 4),
    }
}

pub(super) fn numgen(kind: NumgenKind, modulus: u32, offset: u32) -> Field {
    let kind = match kind {
        NumgenKind::Incremental => "inc",
        NumgenKind::Random => "random",
    };
    number(format!("numgen {kind} mod {modulus}{}", behind(offset)), Kind::Native, 4)
}

/// `fields` is what is hashed.
pub(super) fn hash(of: &Hash, fields: &str, modulus: u32, offset: u32) -> Field {
    let text = match of {
        Hash::Symmetric => format!("symhash mod {modulus}{}", behind(offset)),
        Hash::Jenkins { seed, .. } => {
            let seed = seed.map(|seed| format!(" seed 0x{seed:x}")).unwrap_or_default();
            format!("jhash {fields} mod {modulus}{seed}{}", behind(offset))
        }
    };
    number(text, Kind::Native, 4)
}

fn behind(offset: u32) -> String {
    if offset == 0 { String::new() } else { format!(" offset {offset}") }
}
