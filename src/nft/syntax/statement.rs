//! Statements, and the values that they take.

use super::field::{Network, Source};
use super::object::{show_limit, show_quota};
use super::rule::{Reader, Value};
use super::value::{self, Kind};
use super::{element, word};
use crate::nft::{
    CtDirection, CtKey, Dynset, DynsetOp, Expr, ExthdrOp, Family, FibFlags, FibResult, Hash, KnownObject, Log,
    LogFlags, MapTo, MetaKey, Nat, NatFlags, NatKind, NatPorts, NumgenKind, ObjectType, PayloadBase, QueueFlags,
    QueueNumber, Register, RegisterRange, Reject, RejectCode, RtKey, Set, SocketKey, Syslog, Verdict, XfrmDirection,
    XfrmKey,
};

impl Reader<'_> {
    /// Puts a load into words, if it is one that nft(8) names in no other way. Says whether it is.
    pub(super) fn worded(&mut self, expr: &Expr) -> Result<bool, String> {
        let (text, kind, width, dreg) = match expr {
            Expr::Rt { key, dreg } => {
                let (text, kind, width) = match key {
                    RtKey::ClassId => ("rt classid", Kind::Native, 4),
                    RtKey::NextHop4 => ("rt ip nexthop", Kind::Ipv4, 4),
                    RtKey::NextHop6 => ("rt ip6 nexthop", Kind::Ipv6, 16),
                    RtKey::TcpMss => ("rt mtu", Kind::Native, 2),
                    RtKey::Xfrm => ("rt ipsec", Kind::Exists, 1),
                };
                (text.to_owned(), kind, width, dreg)
            }
            Expr::Socket { key, level, dreg } => {
                let (text, kind, width) = match (key, level) {
                    (SocketKey::Transparent, None | Some(0)) => ("socket transparent", Kind::Native, 1),
                    (SocketKey::Mark, None | Some(0)) => ("socket mark", Kind::Mark, 4),
                    (SocketKey::Wildcard, None | Some(0)) => ("socket wildcard", Kind::Native, 1),
                    // It names a directory of the machine that it was written on.
                    _ => return Err("nft(8) writes a control group by its path".to_owned()),
                };
                (text.to_owned(), kind, width, dreg)
            }
            Expr::Fib { result, flags, dreg } => {
                let (text, kind, width) = fib(*result, *flags)?;
                (text, kind, width, dreg)
            }
            Expr::Exthdr { op, kind, present: true, dreg, .. } => (exthdr(*op, *kind)?, Kind::Exists, 1, dreg),
            Expr::Exthdr { op: op @ (ExthdrOp::Ipv6 | ExthdrOp::Ipv4Option), kind, offset, len, dreg, .. } => {
                let field = header_field(*op, *kind, *offset, *len);
                let (text, kind) = field.ok_or("nft(8) syntax is not known for that part of a header")?;
                (text.to_owned(), kind, *len as usize, dreg)
            }
            Expr::Exthdr { op: ExthdrOp::TcpOption, kind, offset, len, dreg, .. } if *len <= 16 => {
                let text = format!("tcp option @{kind},{},{}", offset * 8, len * 8);
                let (text, shown) = match (*kind, *offset, *len) {
                    (2, 2, 2) => ("tcp option maxseg size".to_owned(), Kind::Number),
                    (3, 2, 1) => ("tcp option window count".to_owned(), Kind::Number),
                    (8, 2, 4) => ("tcp option timestamp tsval".to_owned(), Kind::Number),
                    (8, 6, 4) => ("tcp option timestamp tsecr".to_owned(), Kind::Number),
                    _ => (text, Kind::Bits),
                };
                (text, shown, *len as usize, dreg)
            }
            Expr::Hash { of, modulus, offset, dreg } => {
                let offset = if *offset == 0 { String::new() } else { format!(" offset {offset}") };
                let text = match of {
                    Hash::Symmetric => format!("symhash mod {modulus}{offset}"),
                    Hash::Jenkins { sreg, len, seed } => {
                        let seed = seed.map(|seed| format!(" seed 0x{seed:x}")).unwrap_or_default();
                        format!("jhash {} mod {modulus}{seed}{offset}", self.hashed(*sreg, *len as usize)?)
                    }
                };
                (text, Kind::Native, 4, dreg)
            }
            Expr::Numgen { kind, modulus, offset, dreg } => {
                let kind = match kind {
                    NumgenKind::Incremental => "inc",
                    NumgenKind::Random => "random",
                };
                let offset = if *offset == 0 { String::new() } else { format!(" offset {offset}") };
                (format!("numgen {kind} mod {modulus}{offset}"), Kind::Native, 4, dreg)
            }
            Expr::Osf { ttl, flags, dreg } => {
                let ttl = match ttl {
                    0 => "",
                    1 => " ttl loose",
                    2 => " ttl skip",
                    _ => return Err("nft(8) has no word for how it compares the time to live".to_owned()),
                };
                let what = if *flags == 0 { "name" } else { "version" };
                (format!("osf{ttl} {what}"), Kind::Text, 16, dreg)
            }
            Expr::Xfrm { key, direction, spnum, dreg } => {
                let direction = match direction {
                    XfrmDirection::In => "in",
                    XfrmDirection::Out => "out",
                };
                let (key, kind, width) = match key {
                    XfrmKey::Daddr4 => ("ip daddr", Kind::Ipv4, 4),
                    XfrmKey::Daddr6 => ("ip6 daddr", Kind::Ipv6, 16),
                    XfrmKey::Saddr4 => ("ip saddr", Kind::Ipv4, 4),
                    XfrmKey::Saddr6 => ("ip6 saddr", Kind::Ipv6, 16),
                    XfrmKey::ReqId => ("reqid", Kind::Native, 4),
                    XfrmKey::Spi => ("spi", Kind::Number, 4),
                };
                let spnum = if *spnum == 0 { String::new() } else { format!(" spnum {spnum}") };
                (format!("ipsec {direction}{spnum} {key}"), kind, width, dreg)
            }
            _ => return Ok(false),
        };
        self.word(text, kind, width, *dreg)?;
        Ok(true)
    }

    /// The fields that a hash is of.
    fn hashed(&mut self, sreg: Register, len: usize) -> Result<String, String> {
        let (mut slot, mut left, mut fields) = (usize::from(sreg.index()), len, Vec::new());
        while left > 0 {
            let value = self.take(slot)?;
            let padded = value.width.next_multiple_of(4);
            left = match left.checked_sub(padded) {
                Some(left) => left,
                // The last one, or the only one, has no padding.
                None => left.checked_sub(value.width).filter(|left| *left == 0).ok_or("it hashes part of a field")?,
            };
            slot += padded / 4;
            fields.push(self.bare(&value)?);
        }
        Ok(fields.join(" . "))
    }

    /// A value that is nothing but a field.
    fn bare(&self, value: &Value) -> Result<String, String> {
        let field = self.fields(value.source).next().filter(|_| value.mask.is_none() && !value.turned);
        field.map(|field| field.text).ok_or_else(|| format!("nft(8) has no way to write {:?} here", value.source))
    }

    /// What a statement takes from a register, where it wants values of a kind.
    fn argument(&mut self, register: Register, kind: Kind, width: usize) -> Result<String, String> {
        let value = self.take(register.index().into())?;
        self.argument_of(&value, kind, width)
    }

    fn argument_of(&self, value: &Value, kind: Kind, width: usize) -> Result<String, String> {
        let unwritable = || format!("nft(8) has no way to write {:?} here", value.source);
        if let Source::Constant(index) = value.source {
            if value.mask.is_some() || value.turned || value.width != width {
                return Err(unwritable());
            }
            return kind.show(self.constants[index].as_bytes()).ok_or_else(unwritable);
        }
        let field = self.fields(value.source).next().ok_or_else(unwritable)?;
        if value.turned || value.width != width {
            return Err(unwritable());
        }
        let Some((mask, xor)) = &value.mask else { return Ok(field.text) };
        if !(kind.maskable() && field.kind.maskable()) {
            return Err(unwritable());
        }
        let zero = |bytes: &[u8], all: u8| bytes.iter().all(|byte| *byte == all);
        let mut text = field.text;
        if !zero(mask.as_bytes(), 0xff) {
            text += &format!(" & {}", field.kind.show_masked(mask.as_bytes()).ok_or_else(unwritable)?);
        }
        if !zero(xor.as_bytes(), 0) {
            text += &format!(" ^ {}", field.kind.show_masked(xor.as_bytes()).ok_or_else(unwritable)?);
        }
        Ok(text)
    }

    /// Shows a statement. Says whether it ends the rule.
    pub(super) fn statement(&mut self, expr: &Expr) -> Result<bool, String> {
        let ip = matches!(self.rule.table.family, Family::Inet | Family::Ip | Family::Ip6);
        let (text, ends) = match expr {
            Expr::Verdict(verdict) => match verdict {
                Verdict::Accept => ("accept".to_owned(), true),
                Verdict::Drop => ("drop".to_owned(), true),
                Verdict::Return => ("return".to_owned(), true),
                Verdict::Continue => ("continue".to_owned(), false),
                Verdict::Jump(chain) => (format!("jump {}", self.target(chain)?), true),
                Verdict::Goto(chain) => (format!("goto {}", self.target(chain)?), true),
            },
            Expr::Counter { packets, bytes } => (format!("counter packets {packets} bytes {bytes}"), false),
            Expr::Log(log) => (show_log(log)?, false),
            Expr::Syslog(syslog) => (show_syslog(syslog)?, false),
            Expr::Reject(reject) => (self.reject(*reject)?, true),
            Expr::Limit(limit) => (show_limit(limit).map(|limit| format!("limit {limit}"))?, false),
            Expr::Quota(quota) => (format!("quota {}", show_quota(quota)), false),
            Expr::Connlimit { count, over } => (format!("ct count {}{count}", if *over { "over " } else { "" }), false),
            Expr::Notrack => ("notrack".to_owned(), false),
            Expr::MetaSet { key, sreg } => (self.meta_set(*key, *sreg)?, false),
            Expr::CtSet { key, direction, sreg } => (self.ct_set(*key, *direction, *sreg)?, false),
            Expr::PayloadWrite { base, offset, len, sreg, .. } => {
                (self.payload_set(expr, *base, *offset, *len, *sreg)?, false)
            }
            Expr::ExthdrWrite { op: ExthdrOp::TcpOption, kind: 2, offset: 2, len: 2, sreg } => {
                (format!("tcp option maxseg size set {}", self.mss(*sreg)?), false)
            }
            Expr::ExthdrReset { op: ExthdrOp::TcpOption, kind } => (format!("reset tcp option {kind}"), false),
            Expr::Masquerade(ports) if ip => (self.ports("masquerade", ports)?, true),
            Expr::Redirect(ports) if ip => (self.ports("redirect", ports)?, true),
            Expr::Masquerade(_) | Expr::Redirect(_) => {
                return Err("nft(8) takes it in tables for IPv4 and IPv6 alone".to_owned());
            }
            Expr::Nat(nat) if ip => (self.nat(nat)?, true),
            Expr::Tproxy { family, address, port } => (self.tproxy(*family, *address, *port)?, false),
            Expr::Dynset(dynset) => (self.dynset(dynset)?, false),
            Expr::ObjectRef { kind, name } => {
                let name = word::quoted(word::name(name.as_str())?)?;
                (format!("{} {name}", reference(*kind)?), false)
            }
            Expr::ObjectMap { set, sreg } => {
                let set = self.set(set)?;
                let Some(MapTo::Object(kind)) = set.data else {
                    return Err("it refers to objects by a map that has none".to_owned());
                };
                let (key, kinds) = self.key(set, *sreg)?;
                (format!("{} {key} map {}", reference(kind)?, self.set_text(set, &kinds)?), false)
            }
            Expr::Queue { to, flags } => (self.queue(*to, *flags)?, true),
            Expr::Dup { address, device } => (self.dup(*address, *device)?, false),
            Expr::Fwd { device, neighbour: None } => {
                (format!("fwd to {}", self.argument(*device, Kind::IfIndex, 4)?), true)
            }
            Expr::Synproxy(synproxy) => (format!("synproxy{}", super::object::show_synproxy(synproxy, " ")), false),
            Expr::FlowOffload { flowtable } => (format!("flow add @{}", word::name(flowtable.as_str())?), false),
            other => return Err(format!("nft(8) syntax is not known for its expression `{}`", other.kernel_name())),
        };
        self.all_used()?;
        self.words.push(text);
        Ok(ends)
    }

    /// A chain by its name, or, if it is the rule's own, by its rules.
    fn target(&self, chain: &crate::nft::ChainName) -> Result<String, String> {
        match self.sets.inner(&self.rule.table, chain) {
            None => word::name(chain.as_str()).map(str::to_owned),
            Some(rules) => {
                let mut text = String::from("{ ");
                for rule in rules {
                    text += &super::rule::show(rule, self.sets)?;
                    if let Some(comment) = &rule.comment {
                        text += &format!(" comment {}", word::quoted(comment.as_str())?);
                    }
                    text += "; ";
                }
                Ok(text + "}")
            }
        }
    }

    fn meta_set(&mut self, key: MetaKey, sreg: Register) -> Result<String, String> {
        let field = self.context.field(Source::Meta(key)).ok_or("nft(8) has no way to write what it sets")?;
        let kind = if key == MetaKey::NfTrace { Kind::Number } else { field.kind };
        Ok(format!("{} set {}", field.text, self.argument(sreg, kind, key.size() as usize)?))
    }

    fn ct_set(&mut self, key: CtKey, direction: Option<CtDirection>, sreg: Register) -> Result<String, String> {
        if !matches!(key, CtKey::Mark | CtKey::Zone | CtKey::EventMask) {
            return Err("nft(8) syntax is not known for what it sets of the flow".to_owned());
        }
        let field = self.context.field(Source::Ct(key, direction)).ok_or("nft(8) has no way to write what it sets")?;
        let width = super::field::ct_width(self.rule.table.family, key).unwrap_or(4);
        Ok(format!("{} set {}", field.text, self.argument(sreg, field.kind, width)?))
    }

    fn payload_set(
        &mut self,
        expr: &Expr,
        base: PayloadBase,
        offset: u32,
        len: u32,
        sreg: Register,
    ) -> Result<String, String> {
        let unwritable = || "nft(8) has no way to write what it rewrites".to_owned();
        let Expr::PayloadWrite { checksum, .. } = expr else { return Err(unwritable()) };
        let source = Source::Payload { base, offset, len };
        let value = self.take(sreg.index().into())?;
        let (text, set) = match &value.mask {
            // Bits of what stands there: nft(8) loads, changes and writes back.
            Some((keep, xor)) if value.source == source => {
                let mask: Vec<u8> = keep.as_bytes().iter().map(|byte| !byte).collect();
                let (text, shift) = self.context.changed(source, &mask).ok_or_else(unwritable)?;
                let number = value::big(xor.as_bytes()).ok_or_else(unwritable)?;
                if number & !value::big(&mask).ok_or_else(unwritable)? != 0 {
                    return Err(unwritable());
                }
                (text, (number >> shift).to_string())
            }
            _ => {
                let field = self.context.field(source).ok_or_else(unwritable)?;
                let set = self.argument_of(&value, field.kind, len as usize)?;
                (field.text, set)
            }
        };
        // The checksum that nft(8) keeps right, and whether the transport's covers the bytes.
        let (kind, place) = match (base, self.context.network, self.context.transport) {
            (PayloadBase::Network, Some(Network::Ip), _) => (1, 10),
            (PayloadBase::Network | PayloadBase::LinkLayer, ..) => (0, 0),
            (PayloadBase::Transport, _, Some(6)) => (1, 16),
            (PayloadBase::Transport, _, Some(17)) => (1, 6),
            _ => return Err(unwritable()),
        };
        let pseudo = text.starts_with("ip saddr")
            || text.starts_with("ip daddr")
            || text.starts_with("ip6 saddr")
            || text.starts_with("ip6 daddr");
        if (checksum.kind, checksum.offset, checksum.flags) != (kind, place, u32::from(pseudo)) {
            return Err("nft(8) would keep another checksum right".to_owned());
        }
        Ok(format!("{text} set {set}"))
    }

    fn mss(&mut self, sreg: Register) -> Result<String, String> {
        let mut value = self.take(sreg.index().into())?;
        // What the kernel has as a number of the machine's, nft(8) turns into one of the packet.
        let native = self.fields(value.source).next().is_some_and(|field| field.kind == Kind::Native);
        if native != value.turned {
            return Err("nft(8) would turn its bytes around".to_owned());
        }
        value.turned = false;
        self.argument_of(&value, Kind::Number, 2)
    }

    fn ports(&mut self, what: &str, to: &NatPorts) -> Result<String, String> {
        let mut text = what.to_owned();
        if let Some(ports) = to.ports {
            if !matches!(self.context.transport, Some(6 | 17 | 33 | 132 | 136)) {
                return Err("nft(8) asks for a transport protocol in front of ports".to_owned());
            }
            text += &format!(" to :{}", self.range(ports, Kind::Port, 2)?);
        }
        Ok(text + &nat_flags(to.flags, NatFlags(2))?)
    }

    fn range(&mut self, range: RegisterRange, kind: Kind, width: usize) -> Result<String, String> {
        let min = self.argument(range.min, kind, width)?;
        if range.min == range.max { Ok(min) } else { Ok(format!("{min}-{}", self.argument(range.max, kind, width)?)) }
    }

    fn nat(&mut self, nat: &Nat) -> Result<String, String> {
        let statement = match nat.kind {
            NatKind::Source => "snat",
            NatKind::Destination => "dnat",
        };
        let (word, kind, width) = match nat.family {
            Family::Ip => (" ip", Kind::Ipv4, 4),
            Family::Ip6 => (" ip6", Kind::Ipv6, 16),
            _ => ("", Kind::Ipv4, 4),
        };
        let known = match nat.family {
            Family::Ip => Some(Network::Ip),
            Family::Ip6 => Some(Network::Ip6),
            _ => None,
        };
        if nat.addresses.is_some() && known.is_none() {
            return Err("nft(8) needs to know of which family an address is".to_owned());
        }
        if known.is_some() && self.context.network.is_some_and(|network| Some(network) != known) {
            return Err("it translates to an address of another family than it asks for".to_owned());
        }
        // Only a table of both families has a choice.
        let word = if self.rule.table.family == Family::Inet { word } else { "" };
        if nat.flags.has(NatFlags::NETMAP) {
            return Err("nft(8) syntax is not known for prefixes that are mapped on each other".to_owned());
        }
        let addresses = match nat.addresses {
            None => String::new(),
            Some(RegisterRange { min, max }) if min == max => {
                let value = self.take(min.index().into())?;
                // A map to addresses and ports fills both registers.
                let both = nat.ports.is_some_and(|ports| {
                    ports.min == ports.max
                        && usize::from(ports.min.index()) == usize::from(min.index()) + width / 4
                        && value.width == width + 4
                });
                if both {
                    let text = self.bare(&value)?;
                    return Ok(format!("{statement}{word} to {text}{}", nat_flags(nat.flags, NatFlags(3))?));
                }
                if value.width != width {
                    return Err("nft(8) syntax is not known for a map to ranges".to_owned());
                }
                self.argument_of(&value, kind, width)?
            }
            Some(range) => self.range(range, kind, width)?,
        };
        let ports = match nat.ports {
            None => String::new(),
            Some(_) if !matches!(self.context.transport, Some(6 | 17 | 33 | 132 | 136)) => {
                return Err("nft(8) asks for a transport protocol in front of ports".to_owned());
            }
            Some(ports) => format!(":{}", self.range(ports, Kind::Port, 2)?),
        };
        let addresses = match (nat.family, ports.is_empty()) {
            (Family::Ip6, false) if !addresses.is_empty() => format!("[{addresses}]"),
            _ => addresses,
        };
        Ok(format!("{statement}{word} to {addresses}{ports}{}", nat_flags(nat.flags, NatFlags(3))?))
    }

    fn tproxy(
        &mut self,
        family: Option<Family>,
        address: Option<Register>,
        port: Option<Register>,
    ) -> Result<String, String> {
        if !matches!(self.context.transport, Some(6 | 17)) {
            return Err("nft(8) asks for TCP or UDP in front of it".to_owned());
        }
        let (word, kind, width) = match family {
            Some(Family::Ip) => ("ip ", Kind::Ipv4, 4),
            Some(Family::Ip6) => ("ip6 ", Kind::Ipv6, 16),
            _ if address.is_none() => ("", Kind::Ipv4, 4),
            _ => return Err("nft(8) needs to know of which family an address is".to_owned()),
        };
        let word = if self.rule.table.family == Family::Inet { word } else { "" };
        let address = address.map(|address| self.argument(address, kind, width)).transpose()?;
        let address = match (address, width, port) {
            (Some(address), 16, Some(_)) => format!("[{address}]"),
            (address, ..) => address.unwrap_or_default(),
        };
        let port = port.map(|port| self.argument(port, Kind::Port, 2)).transpose()?;
        Ok(format!("tproxy {word}to {address}{}", port.map(|port| format!(":{port}")).unwrap_or_default()))
    }

    fn dynset(&mut self, dynset: &Dynset) -> Result<String, String> {
        let set = self.set(&dynset.set)?;
        if dynset.negated {
            return Err("nft(8) has no word for what it does when the set is full".to_owned());
        }
        let op = match dynset.op {
            DynsetOp::Add => "add",
            DynsetOp::Update => "update",
            DynsetOp::Delete => "delete",
        };
        let (mut text, _) = self.key(set, dynset.key)?;
        if let Some(timeout) = dynset.timeout {
            text += &format!(" timeout {}", element::show_time(timeout)?);
        }
        for expr in &dynset.exprs {
            text += &format!(" {}", show_state(expr)?);
        }
        if let Some(data) = dynset.data {
            text += &format!(" : {}", self.mapped(set, data)?);
        }
        let name = word::name(set.name.as_str())?;
        if !set.flags.anonymous {
            return Ok(format!("{op} @{name} {{ {text} }}"));
        }
        // A set of the rule's own, by a name.
        let usual = if set.flags.timeout { DynsetOp::Update } else { DynsetOp::Add };
        match (set.size, dynset.exprs.as_slice()) {
            (Some(size), [_]) if dynset.op == usual => Ok(format!("meter {name} size {size} {{ {text} }}")),
            _ => Err("nft(8) has no way to write it".to_owned()),
        }
    }

    fn mapped(&mut self, set: &Set, data: Register) -> Result<String, String> {
        let Some(MapTo::Value(to)) = &set.data else { return Err("the set has no values".to_owned()) };
        let [single] = to.0.as_slice() else { return Err("nft(8) syntax is not known for its value".to_owned()) };
        let kind = Kind::of(*single).ok_or("nft(8) syntax is not known for its value")?;
        self.argument(data, kind, single.size())
    }

    fn queue(&mut self, to: QueueNumber, flags: QueueFlags) -> Result<String, String> {
        let words = [(QueueFlags::BYPASS, "bypass"), (QueueFlags::FANOUT, "fanout")];
        if flags.0 & !3 != 0 {
            return Err("nft(8) has no word for its flags".to_owned());
        }
        let names: Vec<_> = words.iter().filter(|(flag, _)| flags.0 & flag.0 != 0).map(|(_, name)| *name).collect();
        let flags = if names.is_empty() { String::new() } else { format!(" flags {}", names.join(",")) };
        let to = match to {
            QueueNumber::Range { first, total: 0 | 1 } => first.to_string(),
            QueueNumber::Range { first, total } => format!("{first}-{}", u32::from(first) + u32::from(total) - 1),
            QueueNumber::Register(_) => return Err("nft(8) syntax is not known for a queue by a value".to_owned()),
        };
        Ok(format!("queue{flags} to {to}"))
    }

    fn dup(&mut self, address: Option<Register>, device: Option<Register>) -> Result<String, String> {
        let (kind, width) = match self.rule.table.family {
            Family::Ip => (Kind::Ipv4, 4),
            Family::Ip6 => (Kind::Ipv6, 16),
            Family::Netdev => {
                let (None, Some(device)) = (address, device) else { return Err("it has no device".to_owned()) };
                return Ok(format!("dup to {}", self.argument(device, Kind::IfIndex, 4)?));
            }
            _ => return Err("nft(8) takes no copy in this family".to_owned()),
        };
        let address = address.ok_or("it has no address")?;
        let mut text = format!("dup to {}", self.argument(address, kind, width)?);
        if let Some(device) = device {
            text += &format!(" device {}", self.argument(device, Kind::IfIndex, 4)?);
        }
        Ok(text)
    }

    fn reject(&self, reject: Reject) -> Result<String, String> {
        let icmp = matches!(self.rule.table.family, Family::Inet | Family::Bridge | Family::Netdev);
        match (reject, self.context.network) {
            (Reject::TcpReset, _) if self.context.transport == Some(6) => Ok("reject with tcp reset".to_owned()),
            (Reject::TcpReset, _) => Err("nft(8) adds a match of TCP to a reset where the rule has none".to_owned()),
            (Reject::Icmpx(code), _) if icmp => {
                let code = match code {
                    RejectCode::NoRoute => "no-route",
                    RejectCode::PortUnreachable => "port-unreachable",
                    RejectCode::HostUnreachable => "host-unreachable",
                    RejectCode::AdminProhibited => "admin-prohibited",
                };
                Ok(format!("reject with icmpx {code}"))
            }
            (Reject::Icmpx(_), _) => Err("nft(8) takes icmpx in tables for both families alone".to_owned()),
            // It reads 255 as "not said" and sends code 0.
            (Reject::Icmp(255), _) => Err("nft(8) has no way to write a refusal with code 255".to_owned()),
            (Reject::Icmp(code), Some(Network::Ip)) => Ok(format!("reject with icmp {}", icmp_code(code))),
            (Reject::Icmp(code), Some(Network::Ip6)) => Ok(format!("reject with icmpv6 {}", icmpv6_code(code))),
            (Reject::Icmp(_), _) => {
                Err("nft(8) adds a match of the family to an ICMP refusal where the rule has none".to_owned())
            }
        }
    }
}

/// `fib saddr . iif oif`
fn fib(result: FibResult, flags: FibFlags) -> Result<(String, Kind, usize), String> {
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
    let present = flags.has(FibFlags::PRESENT);
    let (result, kind, width) = match result {
        FibResult::Oif if present => ("oif", Kind::Exists, 4),
        FibResult::Oif => ("oif", Kind::IfIndex, 4),
        FibResult::OifName if !present => ("oifname", Kind::IfName, 16),
        FibResult::AddrType if !present => ("type", Kind::AddrType, 4),
        _ => return Err("nft(8) has no way to write this look-up of a route".to_owned()),
    };
    Ok((format!("fib {} {result}", key.join(" . ")), kind, width))
}

/// The header or option whose presence is asked for.
fn exthdr(op: ExthdrOp, kind: u8) -> Result<String, String> {
    let unknown = || format!("nft(8) syntax is not known for {op:?} {kind}");
    Ok(match op {
        ExthdrOp::Ipv6 => {
            let name = match kind {
                0 => "hbh",
                43 => "rt",
                44 => "frag",
                60 => "dst",
                135 => "mh",
                _ => return Err(unknown()),
            };
            format!("exthdr {name}")
        }
        ExthdrOp::TcpOption => format!("tcp option {kind}"),
        ExthdrOp::Ipv4Option => {
            let name = match kind {
                7 => "rr",
                131 => "lsrr",
                137 => "ssrr",
                148 => "ra",
                _ => return Err(unknown()),
            };
            format!("ip option {name}")
        }
        ExthdrOp::SctpChunk | ExthdrOp::DccpOption => return Err(unknown()),
    })
}

/// A field of an IPv6 extension header or IPv4 option.
fn header_field(op: ExthdrOp, kind: u8, offset: u32, len: u32) -> Option<(&'static str, Kind)> {
    const FIELDS: &[(ExthdrOp, u8, u32, u32, &str, Kind)] = &[
        (ExthdrOp::Ipv6, 0, 0, 1, "hbh nexthdr", Kind::Proto),
        (ExthdrOp::Ipv6, 0, 1, 1, "hbh hdrlength", Kind::Number),
        (ExthdrOp::Ipv6, 43, 0, 1, "rt nexthdr", Kind::Proto),
        (ExthdrOp::Ipv6, 43, 1, 1, "rt hdrlength", Kind::Number),
        (ExthdrOp::Ipv6, 43, 2, 1, "rt type", Kind::Number),
        (ExthdrOp::Ipv6, 43, 3, 1, "rt seg-left", Kind::Number),
        (ExthdrOp::Ipv6, 44, 0, 1, "frag nexthdr", Kind::Proto),
        (ExthdrOp::Ipv6, 44, 1, 1, "frag reserved", Kind::Number),
        (ExthdrOp::Ipv6, 44, 4, 4, "frag id", Kind::Number),
        (ExthdrOp::Ipv6, 60, 0, 1, "dst nexthdr", Kind::Proto),
        (ExthdrOp::Ipv6, 60, 1, 1, "dst hdrlength", Kind::Number),
        (ExthdrOp::Ipv6, 135, 0, 1, "mh nexthdr", Kind::Proto),
        (ExthdrOp::Ipv6, 135, 1, 1, "mh hdrlength", Kind::Number),
        (ExthdrOp::Ipv6, 135, 4, 2, "mh checksum", Kind::Number),
        (ExthdrOp::Ipv4Option, 7, 0, 1, "ip option rr type", Kind::Number),
        (ExthdrOp::Ipv4Option, 7, 1, 1, "ip option rr length", Kind::Number),
        (ExthdrOp::Ipv4Option, 7, 2, 1, "ip option rr ptr", Kind::Number),
        (ExthdrOp::Ipv4Option, 131, 0, 1, "ip option lsrr type", Kind::Number),
        (ExthdrOp::Ipv4Option, 131, 2, 1, "ip option lsrr ptr", Kind::Number),
        (ExthdrOp::Ipv4Option, 137, 0, 1, "ip option ssrr type", Kind::Number),
        (ExthdrOp::Ipv4Option, 137, 2, 1, "ip option ssrr ptr", Kind::Number),
        (ExthdrOp::Ipv4Option, 148, 2, 2, "ip option ra value", Kind::Number),
    ];
    let place = (op, kind, offset, len);
    let field = FIELDS.iter().find(|(op, kind, offset, len, ..)| (*op, *kind, *offset, *len) == place)?;
    Some((field.4, field.5))
}

/// How a rule refers to an object of a type.
fn reference(kind: ObjectType) -> Result<&'static str, String> {
    match kind {
        ObjectType::Known(KnownObject::Counter) => Ok("counter name"),
        ObjectType::Known(KnownObject::Quota) => Ok("quota name"),
        ObjectType::Known(KnownObject::Limit) => Ok("limit name"),
        ObjectType::Known(KnownObject::Synproxy) => Ok("synproxy name"),
        ObjectType::Known(KnownObject::CtHelper) => Ok("ct helper set"),
        ObjectType::Known(KnownObject::CtTimeout) => Ok("ct timeout set"),
        ObjectType::Known(KnownObject::CtExpectation) => Ok("ct expectation set"),
        ObjectType::Known(KnownObject::SecMark) => Ok("meta secmark set"),
        other => Err(format!("nft(8) has no way to refer to a {other}")),
    }
}

/// What an element keeps: a counter, a limit…
pub(super) fn show_state(expr: &Expr) -> Result<String, String> {
    Ok(match expr {
        Expr::Counter { packets, bytes } => format!("counter packets {packets} bytes {bytes}"),
        Expr::Limit(limit) => format!("limit {}", show_limit(limit)?),
        Expr::Quota(quota) => format!("quota {}", show_quota(quota)),
        Expr::Connlimit { count, over } => format!("ct count {}{count}", if *over { "over " } else { "" }),
        other => return Err(format!("nft(8) syntax is not known for `{}` in a set", other.kernel_name())),
    })
}

fn nat_flags(flags: NatFlags, implied: NatFlags) -> Result<String, String> {
    let words =
        [(NatFlags::RANDOM, "random"), (NatFlags::FULLY_RANDOM, "fully-random"), (NatFlags::PERSISTENT, "persistent")];
    let known = words.iter().fold(implied, |known, (flag, _)| known.and(*flag));
    if flags.0 & !known.0 != 0 {
        return Err(format!("nft(8) has no word for its flags {:#x}", flags.0));
    }
    let names: Vec<_> = words.iter().filter(|(flag, _)| flags.has(*flag)).map(|(_, name)| *name).collect();
    Ok(if names.is_empty() { String::new() } else { format!(" {}", names.join(",")) })
}

fn show_log(log: &Log) -> Result<String, String> {
    let mut text = "log".to_owned();
    if let Some(prefix) = &log.prefix {
        text += &format!(" prefix {}", word::log_prefix(prefix)?);
    }
    text += &format!(" group {}", log.group);
    if let Some(snaplen) = log.snaplen {
        text += &format!(" snaplen {snaplen}");
    }
    if let Some(threshold) = log.queue_threshold {
        text += &format!(" queue-threshold {threshold}");
    }
    Ok(text)
}

fn show_syslog(log: &Syslog) -> Result<String, String> {
    let mut text = "log".to_owned();
    if let Some(prefix) = &log.prefix {
        text += &format!(" prefix {}", word::log_prefix(prefix)?);
    }
    // By their number, as syslog(2) has them.
    const LEVELS: [&str; 9] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit"];
    if let Some(name) = log.level.and_then(|level| LEVELS.get(level.to_wire() as usize)) {
        text += &format!(" level {name}");
    }
    if log.flags == LogFlags::ALL {
        return Ok(text + " flags all");
    }
    let words = [
        (LogFlags::TCP_SEQUENCE, "tcp sequence"),
        (LogFlags::TCP_OPTIONS, "tcp options"),
        (LogFlags::IP_OPTIONS, "ip options"),
        (LogFlags::SKUID, "skuid"),
        (LogFlags::ETHER, "ether"),
    ];
    let known = words.iter().fold(0, |known, (flag, _)| known | flag.0);
    if log.flags.0 & !known != 0 {
        return Err(format!("nft(8) has no word for its flags {:#x}", log.flags.0));
    }
    for (flag, word) in words {
        if log.flags.0 & flag.0 != 0 {
            text += &format!(" flags {word}");
        }
    }
    Ok(text)
}

fn icmp_code(code: u8) -> String {
    match code {
        0 => "net-unreachable".to_owned(),
        1 => "host-unreachable".to_owned(),
        2 => "prot-unreachable".to_owned(),
        3 => "port-unreachable".to_owned(),
        9 => "net-prohibited".to_owned(),
        10 => "host-prohibited".to_owned(),
        13 => "admin-prohibited".to_owned(),
        other => other.to_string(),
    }
}

fn icmpv6_code(code: u8) -> String {
    match code {
        0 => "no-route".to_owned(),
        1 => "admin-prohibited".to_owned(),
        3 => "addr-unreachable".to_owned(),
        4 => "port-unreachable".to_owned(),
        5 => "policy-fail".to_owned(),
        6 => "reject-route".to_owned(),
        other => other.to_string(),
    }
}
