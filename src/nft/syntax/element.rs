//! Elements of a set as nft(8) writes them.

use std::time::Duration;

use super::value::{self, Kind};
use super::{type_of, word};
use crate::nft::{Datatype, Element, ElementData, Expr, Limit, MapTo, Set, Verdict};

/// The longest time the kernel counts, in milliseconds: more would not fit 64 bits of nanoseconds.
const MAX_MILLISECONDS: u128 = (u64::MAX / 1_000_000) as u128;

/// What the fields of a set's keys are, as far as the set tells.
pub(super) fn kinds(set: &Set) -> Vec<Kind> {
    type_of::key(set).map_or_else(
        || set.key.0.iter().map_while(|field| type_of::kind(*field, type_of::key_order(set))).collect(),
        |fields| fields.iter().map(|field| field.kind).collect(),
    )
}

/// What the fields of a map's values are, as far as the set tells.
pub(super) fn data_kinds(set: &Set) -> Vec<Kind> {
    let Some(to) = type_of::data_type(set) else { return Vec::new() };
    type_of::data(set).map_or_else(
        || to.0.iter().map_while(|field| type_of::kind(*field, type_of::data_order(set))).collect(),
        |fields| fields.iter().map(|field| field.kind).collect(),
    )
}

/// Elements in nft(8) syntax, and those that have none with the reason.
#[derive(Debug, Default)]
pub(super) struct Elements {
    pub shown: Vec<String>,
    pub unshown: Vec<(String, String)>,
}

/// Shows elements, whose fields are of these kinds.
pub(super) fn show<'a>(set: &Set, kinds: &[Kind], elements: impl Iterator<Item = &'a Element>) -> Elements {
    let mut out = Elements::default();
    if set.flags.interval && set.key.0.len() == 1 {
        ranges(set, kinds, elements.collect(), &mut out);
    } else {
        for element in elements {
            let shown = if element.interval_end { Err(NO_RANGES.to_owned()) } else { key(set, kinds, element) };
            out.push(set, element, shown);
        }
    }
    out
}

const NO_RANGES: &str = "it ends a range, in a set that has none";

impl Elements {
    fn push(&mut self, set: &Set, element: &Element, key: Result<String, String>) {
        let shown = key.and_then(|key| {
            let mut text = key;
            // nft(8) prints these for an element and refuses to read them, but the kernel gives every element what its set has.
            let unread = element.exprs.iter().find_map(|expr| match expr {
                Expr::Quota(_) => Some("quota"),
                Expr::Limit(Limit { bytes: true, burst: 0, .. }) => Some("limit of bytes without a burst"),
                _ => None,
            });
            let inherited = unread.is_some() && element.exprs == set.exprs;
            if let (Some(what), false) = (unread, inherited) {
                return Err(format!("nft(8) has no way to write a {what} of its own"));
            }
            for expr in element.exprs.iter().filter(|_| !inherited) {
                text += &format!(" {}", super::statement::show_state(expr)?);
            }
            if let Some(time) = element.timeout {
                text += &format!(" timeout {}", show_time(time)?);
            }
            if let Some(left) = element.expires {
                if element.timeout.or(set.timeout).is_none() {
                    return Err("it runs out, and neither it nor its set has a timeout".to_owned());
                }
                text += &format!(" expires {}", show_time(left)?);
            }
            if let Some(comment) = &element.comment {
                text += &format!(" comment {}", word::quoted(comment.as_str())?);
            }
            if let Some(data) = &element.data {
                text += &format!(" : {}", show_data(set, data)?);
            }
            Ok(text)
        });
        match shown {
            Ok(text) => self.shown.push(text),
            Err(reason) => self.unshown.push((format!("element {:?}", element.key), reason)),
        }
    }
}

fn key(set: &Set, kinds: &[Kind], element: &Element) -> Result<String, String> {
    if element.catch_all {
        return Ok("*".to_owned());
    }
    let (bytes, end) = (element.key.as_bytes(), element.key_end.as_ref().unwrap_or(&element.key).as_bytes());
    if [bytes.len(), end.len()] != [set.key.len(); 2] {
        return Err(format!("its key has {} bytes, that of the set {}", bytes.len(), set.key.len()));
    }
    let mut fields = Vec::new();
    let (mut rest, mut last) = (bytes, end);
    for (index, datatype) in set.key.0.iter().enumerate() {
        let (field, more) = rest.split_at(datatype.size());
        let (upper, more_of_last) = last.split_at(datatype.size());
        let kind = *kinds.get(index).ok_or_else(|| format!("nft(8) syntax is not known for {}", datatype.name()))?;
        let text = if field != upper {
            field_range(kind, field, upper)
        } else if set.flags.interval {
            kind.show_bound(field)
        } else {
            kind.show(field)
        };
        fields.push(text.ok_or_else(|| format!("nft(8) has no way to write this value of {}", datatype.name()))?);
        if set.key.0.len() > 1 {
            rest = behind(*datatype, more)?;
            last = behind(*datatype, more_of_last)?;
        }
    }
    if fields.is_empty() { Err("the key of the set has no type".to_owned()) } else { Ok(fields.join(" . ")) }
}

/// What comes behind a field and its padding, which nft(8) fills with zeros.
fn behind(datatype: Datatype, bytes: &[u8]) -> Result<&[u8], String> {
    let padding = (datatype.size().next_multiple_of(4) - datatype.size()).min(bytes.len());
    let (padding, more) = bytes.split_at(padding);
    match padding.iter().any(|byte| *byte != 0) {
        true => Err(format!("the bytes behind its {} are not zero", datatype.name())),
        false => Ok(more),
    }
}

/// The range of one field of a concatenation, as a prefix where it is one.
pub(super) fn field_range(kind: Kind, from: &[u8], to: &[u8]) -> Option<String> {
    if from > to {
        return None;
    }
    if kind == Kind::IfName {
        // All names that begin so.
        let end = from.iter().position(|byte| *byte == 0)?;
        let all = from[end..].iter().all(|byte| *byte == 0) && to[end..].iter().all(|byte| *byte == 0xff);
        return (all && from[..end] == to[..end]).then(|| kind.show(&from[..end]))?;
    }
    if let (Kind::Ipv4 | Kind::Ipv6, Some(first), Some(last)) = (kind, value::big(from), value::big(to)) {
        let host_bits = (last - first).trailing_ones();
        if last - first == (1u128 << host_bits.min(127)) - 1 && first & (last - first) == 0 {
            return Some(format!("{}/{}", kind.show_bound(from)?, 8 * from.len() as u32 - host_bits));
        }
    }
    Some(format!("{}-{}", kind.show_bound(from)?, kind.show_bound(to)?))
}

/// What an element of a map leads to.
fn show_data(set: &Set, data: &ElementData) -> Result<String, String> {
    match data {
        ElementData::Object(name) => {
            let Some(MapTo::Object(kind)) = set.data else { return Err("its set has no objects".to_owned()) };
            word::quoted(word::object(kind, name.as_str())?)
        }
        ElementData::Verdict(verdict) => Ok(match verdict {
            Verdict::Accept => "accept".to_owned(),
            Verdict::Drop => "drop".to_owned(),
            Verdict::Return => "return".to_owned(),
            Verdict::Continue => "continue".to_owned(),
            Verdict::Jump(chain) => format!("jump {}", word::name(chain.as_str())?),
            Verdict::Goto(chain) => format!("goto {}", word::name(chain.as_str())?),
        }),
        ElementData::Value(data) => {
            let Some(MapTo::Value(to)) = &set.data else { return Err("its set has no values".to_owned()) };
            if data.len() != to.len() {
                return Err("its value is not as long as those of the map".to_owned());
            }
            let to = type_of::data_type(set).ok_or("nft(8) syntax is not known for the type of its value")?;
            let (bytes, kinds) = (data.as_bytes(), data_kinds(set));
            let (mut from, mut last) = if type_of::has_ranges(set) { bytes.split_at(to.len()) } else { (bytes, bytes) };
            let mut fields = Vec::new();
            for (at, datatype) in to.0.iter().enumerate() {
                let unwritable = || format!("nft(8) has no way to write this value of {}", datatype.name());
                let size = datatype.size();
                let lower = from.split_at_checked(size).ok_or_else(unwritable)?;
                let upper = last.split_at_checked(size).ok_or_else(unwritable)?;
                let text = kinds.get(at).and_then(|kind| match lower.0 == upper.0 {
                    true => kind.show(lower.0),
                    false => value_range(*kind, lower.0, upper.0),
                });
                fields.push(text.ok_or_else(unwritable)?);
                from = behind(*datatype, lower.1)?;
                last = behind(*datatype, upper.1)?;
            }
            Ok(fields.join(" . "))
        }
    }
}

/// A range of values, which have no order for the kernel to go by.
fn value_range(kind: Kind, from: &[u8], last: &[u8]) -> Option<String> {
    if kind.native() {
        return Some(format!("{}-{}", kind.show(from)?, kind.show(last)?));
    }
    field_range(kind, from, last)
}

/// Shows the elements of a plain set of ranges, which are the first keys of ranges and the first keys past them.
fn ranges(set: &Set, kinds: &[Kind], mut elements: Vec<&Element>, out: &mut Elements) {
    // The kernel dumps them from the highest key down. Where one range ends and the next begins, the end comes first.
    elements.sort_by(|a, b| a.key.cmp(&b.key).then(b.interval_end.cmp(&a.interval_end)));
    let mut open: Option<&Element> = None;
    for element in elements {
        if element.catch_all {
            out.push(set, element, Ok("*".to_owned()));
            continue;
        }
        if element.key.len() != set.key.len() {
            out.push(
                set,
                element,
                Err(format!("its key has {} bytes, that of the set {}", element.key.len(), set.key.len())),
            );
            continue;
        }
        match (open.take(), element.interval_end) {
            (Some(start), true) => out.push(set, start, range(set, kinds, start, Some(element))),
            // One range ends where the next begins.
            (Some(start), false) => {
                out.push(set, start, range(set, kinds, start, Some(element)));
                open = Some(element);
            }
            (None, false) => open = Some(element),
            // nft(8) puts the end of "nothing" at key 0 of every such set, and so does the kernel's dump show it.
            (None, true) if element.key.as_bytes().iter().all(|byte| *byte == 0) => {}
            (None, true) => out.push(set, element, Err("it ends a range that none begins".to_owned())),
        }
    }
    if let Some(start) = open {
        out.push(set, start, range(set, kinds, start, None));
    }
}

/// Shows the range from one key to the one before another, or to the highest.
fn range(set: &Set, kinds: &[Kind], start: &Element, end: Option<&Element>) -> Result<String, String> {
    let unwritable = || "nft(8) has no way to write this range".to_owned();
    let [datatype] = set.key.0.as_slice() else { return Err(unwritable()) };
    let (kind, width) = (*kinds.first().ok_or_else(unwritable)?, datatype.size());
    let from = value::big(start.key.as_bytes()).ok_or_else(unwritable)?;
    let highest = match kind {
        Kind::Part { bits, behind } => u128::MAX >> 128_u8.saturating_sub(bits).min(127) << behind,
        _ => u128::MAX >> (128 - 8 * width),
    };
    let to = match end {
        Some(end) => value::big(end.key.as_bytes()).and_then(|end| end.checked_sub(1)).ok_or_else(unwritable)?,
        None => highest,
    };
    if to < from {
        return Err("its range is empty".to_owned());
    }
    if kind == Kind::IfName {
        // All names that begin so: the beginning, and as many bytes as are left of whatever value.
        let name = start.key.as_bytes().iter().position(|byte| *byte == 0).unwrap_or(width);
        let name = start.key.as_bytes().get(..name).unwrap_or_default();
        let rest = 8 * (width - name.len()) as u32;
        return match to - from {
            0 => kind.show(start.key.as_bytes()).ok_or_else(unwritable),
            span if rest < 128 && span == (1u128 << rest) - 1 => kind.show(name).ok_or_else(unwritable),
            _ => Err(unwritable()),
        };
    }
    let bound = |number: u128| kind.show_bound(number.to_be_bytes().get(16 - width..)?);
    let first = bound(from).ok_or_else(unwritable)?;
    if from == to {
        return Ok(first);
    }
    let host_bits = (to - from).trailing_ones();
    // As many ones as the range is long, and the first key a multiple of that: a prefix.
    let is_prefix = (to - from).count_ones() == host_bits
        && 128 - (to - from).leading_zeros() == host_bits
        && from & (to - from) == 0;
    if is_prefix && matches!(kind, Kind::Ipv4 | Kind::Ipv6) {
        return Ok(format!("{first}/{}", 8 * width as u32 - host_bits));
    }
    Ok(format!("{first}-{}", bound(to).ok_or_else(unwritable)?))
}

/// Shows a time as nft(8) writes it: `1d2h3m4s5ms`.
pub(super) fn show_time(time: Duration) -> Result<String, String> {
    let total = time.as_millis();
    if total == 0 {
        return Err("nft(8) has no timeout below a millisecond".to_owned());
    }
    if total > MAX_MILLISECONDS {
        return Err("its timeout is longer than the kernel counts".to_owned());
    }
    let units =
        [(86_400_000, u128::MAX, "d"), (3_600_000, 24, "h"), (60_000, 60, "m"), (1_000, 60, "s"), (1, 1_000, "ms")];
    let parts = units.map(|(length, wrap, unit)| match total / length % wrap {
        0 => String::new(),
        count => format!("{count}{unit}"),
    });
    Ok(parts.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{Comment, Data, Family, KeyType, SetFlags, SetName, TableId, TableName};

    fn set(types: &[Datatype], interval: bool) -> Set {
        let table = TableId { family: Family::Inet, name: TableName::new("t").unwrap() };
        let flags = SetFlags { interval, ..SetFlags::default() };
        Set { flags, ..Set::new(&table, &SetName::new("s").unwrap(), KeyType(types.to_vec())) }
    }

    fn bound(octets: [u8; 4], interval_end: bool) -> Element {
        Element { interval_end, ..Element::new(Data::ipv4(octets.into())) }
    }

    #[test]
    fn a_concatenation_is_taken_apart() {
        let mut element = Element::new(
            Data::concat(&[Data::ipv4([203, 0, 113, 9].into()), Data::byte(6), Data::be16(5432)]).unwrap(),
        );
        element.timeout = Some(Duration::from_millis(90_500));
        element.comment = Some(Comment::new("db").unwrap());
        let set = set(&[Datatype::Ipv4Addr, Datatype::InetProto, Datatype::InetService], false);
        let out = show(&set, &kinds(&set), [&element, &Element::new(Data::byte(1))].into_iter());
        assert_eq!(out.shown, ["203.0.113.9 . tcp . 5432 timeout 1m30s500ms comment \"db\""]);
        assert_eq!(out.unshown.len(), 1);
    }

    #[test]
    fn what_stands_behind_a_field_is_not_dropped() {
        let padded = |bytes: [u8; 8]| Data::new(&bytes).unwrap();
        let (key, end) = (padded([6, 0, 0, 0, 0, 1, 0, 0]), padded([6, 0, 0, 0, 0, 2, 0, 0]));
        let set = set(&[Datatype::InetProto, Datatype::InetService], true);
        let range = |end: &Data| Element { key_end: Some(end.clone()), ..Element::new(key.clone()) };
        assert_eq!(show(&set, &kinds(&set), [&range(&end)].into_iter()).shown, ["6 . 1-2"]);
        let odd = range(&padded([6, 0, 0, 0, 0, 2, 0, 9]));
        assert_eq!(show(&set, &kinds(&set), [&odd].into_iter()).unshown.len(), 1);

        let to = KeyType(vec![Datatype::InetService, Datatype::InetProto]);
        let map = Set { data: Some(MapTo::Value(to)), ..self::set(&[Datatype::InetService], false) };
        let leading = |bytes| Element::leading(Data::be16(1), ElementData::Value(padded(bytes)));
        let plain = leading([0, 80, 0, 0, 6, 0, 0, 0]);
        assert_eq!(show(&map, &kinds(&map), [&plain].into_iter()).shown, ["1 : 80 . tcp"]);
        let odd = leading([0, 80, 7, 0, 6, 0, 0, 0]);
        assert_eq!(show(&map, &kinds(&map), [&odd].into_iter()).unshown.len(), 1);
    }

    #[test]
    fn ranges_are_paired_whatever_their_order() {
        let elements = [
            bound([255, 0, 0, 0], false),
            bound([198, 51, 101, 0], true),
            bound([198, 51, 100, 0], false),
            bound([10, 0, 0, 6], true),
            bound([10, 0, 0, 2], false),
            bound([10, 0, 0, 2], true),
            bound([10, 0, 0, 1], false),
            bound([0, 0, 0, 0], true),
        ];
        let set = set(&[Datatype::Ipv4Addr], true);
        let out = show(&set, &kinds(&set), elements.iter());
        assert_eq!(out.shown, ["10.0.0.1", "10.0.0.2-10.0.0.5", "198.51.100.0/24", "255.0.0.0/8"]);
        assert!(out.unshown.is_empty());
    }

    #[test]
    fn broken_ranges_are_told() {
        let elements = [bound([1, 0, 0, 0], true), bound([2, 0, 0, 0], false), bound([3, 0, 0, 0], false)];
        let set = set(&[Datatype::Ipv4Addr], true);
        let out = show(&set, &kinds(&set), elements.iter());
        // Where one begins, the one before ends.
        assert_eq!(out.shown, ["2.0.0.0/8", "3.0.0.0-255.255.255.255"]);
        assert_eq!(out.unshown.len(), 1);
    }

    #[test]
    fn what_is_left_of_a_time_is_told() {
        let hour = Duration::from_secs(3_600);
        let mut set = set(&[Datatype::Ipv4Addr], false);
        let address = || Element::new(Data::ipv4([203, 0, 113, 9].into()));
        let shown = |set: &Set, element: Element| show(set, &kinds(set), [&element].into_iter());
        let own = || Element { timeout: Some(hour), expires: Some(hour / 2), ..address() };
        assert_eq!(shown(&set, own()).shown, ["203.0.113.9 timeout 1h expires 30m"]);
        let inherited = || Element { expires: Some(hour / 2), ..address() };
        assert_eq!(shown(&set, inherited()).unshown.len(), 1);
        set.timeout = Some(2 * hour);
        assert_eq!(shown(&set, own()).shown, ["203.0.113.9 timeout 1h expires 30m"]);
        assert_eq!(shown(&set, inherited()).shown, ["203.0.113.9 expires 30m"]);
        assert_eq!(shown(&set, address()).shown, ["203.0.113.9"]);
    }

    #[test]
    fn a_limit_that_nft_does_not_read_is_left_to_the_set() {
        let limit = |burst| Expr::Limit(Limit { rate: 512, seconds: 1, burst, over: false, bytes: true });
        let mut set = set(&[Datatype::Ipv4Addr], false);
        let element =
            |burst| Element { exprs: vec![limit(burst)], ..Element::new(Data::ipv4([203, 0, 113, 9].into())) };
        let shown = |set: &Set, element: Element| show(set, &kinds(set), [&element].into_iter());
        assert_eq!(shown(&set, element(0)).unshown.len(), 1);
        set.exprs = vec![limit(0)];
        assert_eq!(shown(&set, element(0)).shown, ["203.0.113.9"]);
        assert_eq!(shown(&set, element(9)).shown, ["203.0.113.9 limit rate 512 bytes/second burst 9 bytes"]);
    }

    #[test]
    fn times_are_bounded() {
        assert_eq!(show_time(Duration::from_secs(93_784)).as_deref(), Ok("1d2h3m4s"));
        assert!(show_time(Duration::from_micros(999)).is_err());
        assert!(show_time(Duration::MAX).is_err());
    }
}
