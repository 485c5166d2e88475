//! Statements, and the values that they take.

use super::field::{Field, Source};
use super::header::{INTEGER, presence};
use super::object::{show_limit, show_quota};
use super::rule::{Reader, Value};
use super::value::Kind;
use super::{element, load, send, word};
use crate::nft::{
    Datatype, Dynset, DynsetOp, Expr, ExthdrOp, Family, Hash, KnownObject, MapTo, ObjectType, Register, Set, Verdict,
};

/// What a statement wants in a register.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub kind: Kind,
    /// nft(8)'s number of its type.
    pub datatype: u32,
    pub width: usize,
    /// Whether nft(8) turns numbers of the machine's around for it.
    pub turns: bool,
}

impl Wanted {
    pub(super) const IPV4: Self = Self::new(Kind::Ipv4, Datatype::Ipv4Addr.number(), 4);
    pub(super) const IPV6: Self = Self::new(Kind::Ipv6, Datatype::Ipv6Addr.number(), 16);
    pub(super) const PORT: Self = Self::new(Kind::Port, Datatype::InetService.number(), 2);
    pub(super) const INTERFACE: Self = Self::new(Kind::IfIndex, Datatype::IfaceIndex.number(), 4);

    pub(super) const fn new(kind: Kind, datatype: u32, width: usize) -> Self {
        Self { kind, datatype, width, turns: false }
    }

    /// Whether nft(8) takes a field for it: one of the same type, or a number without one.
    fn takes(self, field: &Field) -> bool {
        let text = matches!(self.kind, Kind::IfName | Kind::Text);
        field.datatype == self.datatype || (field.datatype == INTEGER && !text)
    }
}

impl Reader<'_> {
    /// Puts a load into words, if it is one that nft(8) names in no other way. Says whether it is.
    pub(super) fn worded(&mut self, expr: &Expr) -> Result<bool, String> {
        let (field, dreg) = match expr {
            Expr::Rt { key, dreg } => (load::rt(*key), dreg),
            Expr::Socket { key, level, dreg } => (load::socket(*key, *level)?, dreg),
            Expr::Fib { result, flags, dreg } => (load::fib(*result, *flags)?, dreg),
            Expr::Exthdr { op, kind, present: true, dreg, .. } => {
                if !self.context.has_extensions(*op) {
                    return Err("nft(8) adds a match of the protocol where the rule has none".to_owned());
                }
                let text =
                    presence(*op, *kind).ok_or_else(|| format!("nft(8) syntax is not known for {op:?} {kind}"))?;
                (Field::new(text, Kind::Exists, Datatype::Boolean.number(), 1), dreg)
            }
            Expr::Hash { of, modulus, offset, dreg } => {
                let fields = match of {
                    Hash::Symmetric => String::new(),
                    Hash::Jenkins { sreg, len, .. } => self.hashed(*sreg, *len as usize)?,
                };
                (load::hash(of, &fields, *modulus, *offset), dreg)
            }
            Expr::Numgen { kind, modulus, offset, dreg } => (load::numgen(*kind, *modulus, *offset), dreg),
            Expr::Osf { ttl, flags, dreg } => (load::osf(*ttl, *flags)?, dreg),
            Expr::Xfrm { key, direction, spnum, dreg } => (load::xfrm(*key, *direction, *spnum), dreg),
            _ => return Ok(false),
        };
        self.word(field, *dreg)?;
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
    pub(super) fn bare(&self, value: &Value) -> Result<String, String> {
        let field = self.fields(value.source).next().filter(|_| value.mask.is_none() && !value.turned);
        field
            .map(|field| field.text)
            .ok_or_else(|| format!("nft(8) has no way to write {} here", self.told(value.source)))
    }

    /// What a statement takes from a register.
    pub(super) fn argument(&mut self, register: Register, wanted: Wanted) -> Result<String, String> {
        let value = self.take(register.index().into())?;
        self.argument_of(&value, wanted)
    }

    pub(super) fn argument_of(&self, value: &Value, wanted: Wanted) -> Result<String, String> {
        let unwritable = || format!("nft(8) has no way to write {} here", self.told(value.source));
        if value.width != wanted.width {
            return Err(unwritable());
        }
        if let Source::Constant(index) = value.source {
            if value.mask.is_some() || value.turned {
                return Err(unwritable());
            }
            return wanted.kind.show(self.constants[index].as_bytes()).ok_or_else(unwritable);
        }
        let field = self.fields(value.source).next().ok_or_else(unwritable)?;
        if !wanted.takes(&field) {
            return Err(format!("nft(8) does not take {} here, which is of another type", field.text));
        }
        match (value.turned, wanted.turns && field.kind.native()) {
            (false, true) => return Err(format!("nft(8) would turn the bytes of {} around", field.text)),
            (true, false) => return Err(format!("nft(8) would not turn the bytes of {} around", field.text)),
            _ => {}
        }
        let Some((mask, xor)) = &value.mask else { return Ok(field.text) };
        if !(wanted.kind.maskable() && field.kind.maskable()) {
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
        self.comparisons.statement();
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
            Expr::Log(log) => (send::show_log(log)?, false),
            Expr::Syslog(syslog) => (send::show_syslog(syslog)?, false),
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
                let name = word::quoted(word::object(*kind, name.as_str())?)?;
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
                (format!("fwd to {}", self.argument(*device, Wanted::INTERFACE)?), true)
            }
            Expr::Fwd { device, neighbour: Some((address, family)) } => {
                let wanted = match family {
                    Family::Ip => Wanted::IPV4,
                    Family::Ip6 => Wanted::IPV6,
                    _ => return Err("nft(8) knows neighbours by IPv4 and IPv6 addresses alone".to_owned()),
                };
                let device = self.argument(*device, Wanted::INTERFACE)?;
                (format!("fwd {family} to {} device {device}", self.argument(*address, wanted)?), true)
            }
            Expr::Synproxy(synproxy) => (format!("synproxy{}", super::object::show_synproxy(synproxy, " ")), false),
            Expr::FlowOffload { flowtable } => (format!("flow add @{}", word::name(flowtable.as_str())?), false),
            Expr::Match(xt) => {
                return Err(format!("there is no nft(8) syntax for the match {:?} of iptables(8)", xt.name));
            }
            Expr::Target(xt) => {
                return Err(format!("there is no nft(8) syntax for the target {:?} of iptables(8)", xt.name));
            }
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
        self.argument(data, Wanted::new(kind, single.number(), single.size()))
    }
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
