//! Statements to expressions, as nft(8) 1.0.6 does it: what a field depends on, how it is compared, what is joined.

use super::StatementError;
use super::bits::{Asked, fit, masked};
use super::field::{From, Needs, Part, Proves, Source};
use super::interval::{ordered, prefix_len, prefix_mask};
use super::join::{Step, join};
use super::map::{Looked, Own, Place};
use super::operand::{Kind, Span, Test};
use super::value::{EtherType, Protocol, Value, registered};
use crate::nft::{
    ByteorderOp, CmpOp, Data, Datatype, Element, Expr, Family, Hash, MetaKey, PayloadBase, Register, Set, SetName,
    TableId,
};

/// A rule as it grows.
#[derive(Debug, Clone)]
pub(super) struct Lowering {
    pub table: TableId,
    steps: Vec<Step>,
    pub sets: Vec<(Set, Vec<Element>)>,
    /// The network protocol that is known by here, as its EtherType.
    network: Option<EtherType>,
    transport: Option<Protocol>,
    /// Whether the transport protocol was asked about at all.
    about_transport: bool,
    /// Whether frames are known to be Ethernet's.
    ether: bool,
    vlan: bool,
}

/// `ARPHRD_ETHER`.
const ETHERNET: u16 = 1;

impl Lowering {
    pub fn new(table: &TableId) -> Self {
        let network = match table.family {
            Family::Ip => Some(EtherType::IP),
            Family::Ip6 => Some(EtherType::IP6),
            Family::Arp => Some(EtherType::ARP),
            _ => None,
        };
        Self {
            table: table.clone(),
            steps: Vec::new(),
            sets: Vec::new(),
            network,
            transport: None,
            about_transport: false,
            ether: table.family == Family::Bridge,
            vlan: false,
        }
    }

    pub fn network(&self) -> Option<EtherType> {
        self.network
    }

    /// Finds that ports can't be told: a translation to a port needs it.
    pub fn has_ports(&self) -> Result<(), StatementError> {
        if self.about_transport { Ok(()) } else { Err(StatementError::NoTransport) }
    }

    /// Finds that packets can't be of that network protocol.
    pub fn may_be(&mut self, network: EtherType) -> Result<(), StatementError> {
        match self.network {
            Some(known) if known != network => self.need_network(network, true),
            _ => Ok(()),
        }
    }

    /// Appends a statement that has an effect.
    pub fn effect(&mut self, exprs: impl IntoIterator<Item = Expr>) {
        self.steps.push(Step::Effect(exprs.into_iter().collect()));
    }

    fn fixed(&mut self, exprs: impl IntoIterator<Item = Expr>) {
        self.steps.push(Step::Fixed(exprs.into_iter().collect()));
    }

    /// Finds that a set, map or chain is of another table: by its name the kernel would find another one, or none.
    pub fn own(&self, what: &'static str, table: &TableId, name: &impl ToString) -> Result<(), StatementError> {
        if *table == self.table {
            return Ok(());
        }
        let (name, theirs) = (name.to_string(), table.clone());
        Err(StatementError::Elsewhere { what, name, theirs, ours: self.table.clone() })
    }

    fn equals(&mut self, key: MetaKey, data: Data) {
        let dreg = Register::FIRST;
        self.fixed([Expr::Meta { key, dreg }, Expr::Cmp { op: CmpOp::Eq, sreg: dreg, data }]);
    }

    /// Notes what a match proves of the packet, or finds that it proves the contrary of another.
    fn learn_network(&mut self, want: EtherType) -> Result<bool, StatementError> {
        match self.network {
            Some(known) if known == want => Ok(false),
            Some(known) => Err(StatementError::Conflict { first: ether_name(known), second: ether_name(want) }),
            None => {
                self.network = Some(want);
                Ok(true)
            }
        }
    }

    fn learn_transport(&mut self, want: Protocol) -> Result<bool, StatementError> {
        self.about_transport = true;
        match self.transport {
            Some(known) if known == want => Ok(false),
            Some(known) => Err(StatementError::Conflict { first: protocol_name(known), second: protocol_name(want) }),
            None => {
                self.transport = Some(want);
                Ok(true)
            }
        }
    }

    /// Makes sure that the packet is of that network protocol.
    ///
    /// nft(8) asks frames for their own EtherType once they are known to be Ethernet's; those of a bridge, which always are, only where what
    /// follows is not in the network header. `in_header` says whether it is.
    pub fn need_network(&mut self, want: EtherType, in_header: bool) -> Result<(), StatementError> {
        if !self.learn_network(want)? {
            return Ok(());
        }
        match self.table.family {
            _ if self.vlan => self.ether_type(16, want),
            Family::Bridge if in_header => self.equals(MetaKey::Protocol, want.to_data()),
            _ if self.ether => self.ether_type(12, want),
            Family::Inet => {
                let family = if want == EtherType::IP { Family::Ip } else { Family::Ip6 };
                self.equals(MetaKey::NfProto, Data::byte(family.to_wire()));
            }
            _ => self.equals(MetaKey::Protocol, want.to_data()),
        }
        Ok(())
    }

    fn ether_type(&mut self, offset: u32, want: EtherType) {
        let base = PayloadBase::LinkLayer;
        self.steps.push(Step::Equal { base, offset, data: want.to_bytes(), proves: true });
    }

    /// Makes sure that the packet is of that transport protocol.
    pub fn need_transport(&mut self, want: Protocol) -> Result<(), StatementError> {
        if self.learn_transport(want)? {
            self.equals(MetaKey::L4Proto, Data::byte(want.0));
        }
        Ok(())
    }

    fn need_ether(&mut self) {
        if !self.ether {
            self.ether = true;
            self.equals(MetaKey::IifType, registered(ETHERNET.to_be_bytes().to_vec(), true));
        }
    }

    /// Puts in front of a field what it depends on.
    pub fn need(&mut self, needs: Needs) -> Result<(), StatementError> {
        match needs {
            Needs::Nothing => Ok(()),
            Needs::Network(protocol) => self.need_network(protocol, true),
            Needs::Header(protocol) => self.need_network(protocol, protocol != EtherType::ARP),
            Needs::Transport(protocol) => self.need_transport(protocol),
            Needs::Icmp => {
                self.need_network(EtherType::IP, false)?;
                self.need_transport(Protocol::ICMP)
            }
            Needs::Icmpv6 => {
                self.need_network(EtherType::IP6, false)?;
                self.need_transport(Protocol::ICMPV6)
            }
            Needs::Ether => {
                self.need_ether();
                Ok(())
            }
            Needs::Vlan => {
                self.need_ether();
                if !self.vlan {
                    self.vlan = true;
                    self.ether_type(12, EtherType::VLAN);
                }
                Ok(())
            }
        }
    }

    /// Notes what a field tells that has this one value.
    fn prove(&mut self, proves: Proves, value: &[u8]) -> Result<(), StatementError> {
        match (proves, value) {
            (Proves::Nothing, _) => {}
            (Proves::Transport, [protocol]) => {
                self.learn_transport(Protocol(*protocol))?;
            }
            (Proves::Family, [family]) => {
                let network = match Family::from_wire(*family) {
                    Some(Family::Ip) => EtherType::IP,
                    Some(Family::Ip6) => EtherType::IP6,
                    _ => return Ok(()),
                };
                self.learn_network(network)?;
            }
            (Proves::Network | Proves::Frame, [high, low]) => {
                let protocol = EtherType(u16::from_be_bytes([*high, *low]));
                if protocol == EtherType::VLAN {
                    self.vlan = true;
                } else if proves == Proves::Frame || self.table.family != Family::Inet {
                    self.learn_network(protocol)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Appends a match of one field.
    pub fn matches<V: Value>(&mut self, asked: &Asked, test: Test<V>) -> Result<(), StatementError> {
        let Asked { source, needs, proves, bits, mask } = asked;
        let (source, proves, bits) = (*source, *proves, *bits);
        self.need(*needs)?;
        let Test { negated, kind } = test;
        // Any other protocol may be one without ports.
        let open = negated || matches!(kind, Kind::Compare(..));
        self.about_transport |= proves == Proves::Transport && !open;
        let eq = if negated { CmpOp::Neq } else { CmpOp::Eq };
        let sreg = Register::FIRST;
        // A constant is put where the bits are; what is looked up, or masked once more, is put where constants are.
        let moved = match &kind {
            Kind::Among(spans) => spans.len() > 1,
            Kind::In { .. } => true,
            _ => mask.is_some(),
        };
        let bytes = |value: &V| bits.place(value.to_bytes(), moved);
        let whole = bits.are_all() && mask.is_none();
        let mut exprs = vec![source.load(sreg)];
        exprs.extend(bits.alone(sreg, moved));
        exprs.extend(mask.as_ref().map(|mask| masked(sreg, mask.as_bytes())));
        let turned = |exprs: &mut Vec<Expr>| exprs.extend(turned(V::MACHINE, V::DATATYPE.size()));
        match kind {
            Kind::Is(value) => {
                if !negated {
                    self.prove(proves, &value.to_bytes())?;
                    if let Some((base, offset)) = source.header().filter(|_| whole) {
                        let proves = proves != Proves::Nothing;
                        self.steps.push(Step::Equal { base, offset, data: value.to_bytes(), proves });
                        return Ok(());
                    }
                }
                exprs.push(Expr::Cmp { op: eq, sreg, data: registered(bytes(&value)?, V::MACHINE) });
            }
            Kind::Starts(bytes) => {
                exprs.push(Expr::Cmp { op: eq, sreg, data: Data::new(&bytes).unwrap_or_default() });
            }
            Kind::Prefix(value, len) => {
                let bytes = value.to_bytes();
                let full = len as usize / 8;
                let value = if len % 8 == 0 && full > 0 && whole {
                    // Whole bytes are loaded, and nothing is masked.
                    exprs = vec![source.shortened(full as u32).load(sreg)];
                    &bytes[..full.min(bytes.len())]
                } else {
                    exprs.push(masked(sreg, &prefix_mask(len, bytes.len())));
                    &bytes[..]
                };
                exprs.push(Expr::Cmp { op: eq, sreg, data: Data::new(value).unwrap_or_default() });
            }
            Kind::Within(first, last) => {
                let (from, to) = (bytes(&first)?, bytes(&last)?);
                ordered(&from, &to)?;
                turned(&mut exprs);
                exprs.extend(within(negated, &from, &to));
            }
            Kind::Compare(op, value) => {
                let op = if negated { contrary(op) } else { op };
                turned(&mut exprs);
                exprs.push(Expr::Cmp { op, sreg, data: Data::new(&bytes(&value)?).unwrap_or_default() });
            }
            Kind::Among(spans) => match <[Span<V>; 1]>::try_from(spans) {
                // As nft(8) does: a list of one is that one.
                Ok([Span { first, last, starts }]) => {
                    let kind = match last {
                        None if starts => {
                            Kind::Starts(first.to_bytes().into_iter().filter(|byte| *byte != 0).collect())
                        }
                        None => Kind::Is(first),
                        Some(last) => one_range(first, last),
                    };
                    return self.matches(asked, Test { negated, kind });
                }
                Err(spans) if spans.is_empty() => return Err(StatementError::Empty),
                Err(spans) => {
                    for Span { first, last, .. } in &spans {
                        bytes(last.as_ref().unwrap_or(first))?;
                    }
                    let own = Own::new::<V>(spans.into_iter().map(|span| (span, None)).collect(), None)?;
                    if own.interval {
                        turned(&mut exprs);
                    }
                    exprs.push(Expr::Lookup { set: self.anonymous(own)?, sreg, negated });
                }
            },
            Kind::In { table, set, interval } => {
                self.own("set", &table, &set)?;
                if interval {
                    turned(&mut exprs);
                }
                exprs.push(Expr::Lookup { set, sreg, negated });
            }
        }
        self.fixed(exprs);
        Ok(())
    }

    /// Puts fields into registers, one behind the other, and gives the expressions that do so.
    ///
    /// `ranges` says that they are looked up among ranges.
    pub fn load(&mut self, fields: &[Part], ranges: bool) -> Result<Vec<Expr>, StatementError> {
        let mut loads = Vec::new();
        self.load_behind(0, fields, ranges, &mut loads)?;
        Ok(loads)
    }

    /// Puts the fields of a key into registers, and those of what it leads to behind them, from a register of 16 bytes on.
    pub fn load_pair(&mut self, key: &[Part], to: &[Part]) -> Result<(Vec<Expr>, Register), StatementError> {
        let mut loads = Vec::new();
        let begin = self.load_behind(0, key, false, &mut loads)?.next_multiple_of(4);
        self.load_behind(begin, to, false, &mut loads)?;
        Ok((loads, register(begin)?))
    }

    /// As [`Self::load`], from that 4-byte register on. Gives the one behind them.
    fn load_behind(
        &mut self,
        first: usize,
        fields: &[Part],
        ranges: bool,
        loads: &mut Vec<Expr>,
    ) -> Result<usize, StatementError> {
        let mut slot = first;
        for Part { from, needs, bits, size, machine } in fields {
            if matches!(
                from,
                From::Source(Source::Numgen(_, 0) | Source::SymmetricHash(0)) | From::Hash { modulus: 0, .. }
            ) {
                return Err(StatementError::Zero { what: "modulus" });
            }
            self.need(*needs)?;
            let dreg = register(slot)?;
            match from {
                From::Source(source) => {
                    loads.push(source.load(dreg));
                    loads.extend(bits.alone(dreg, true));
                }
                From::Hash { of, modulus, seed } => {
                    // What is hashed goes behind what comes out, in registers of 16 bytes.
                    let begin = (slot + 1).next_multiple_of(4);
                    let end = self.load_behind(begin, of, false, loads)?;
                    // One field is hashed without what fills up its register.
                    let len = if let [one] = &of[..] { one.size } else { (end - begin) * 4 };
                    let of = Hash::Jenkins { sreg: register(begin)?, len: len as u32, seed: *seed };
                    loads.push(Expr::Hash { of, modulus: *modulus, offset: 0, dreg });
                }
            }
            if ranges {
                loads.extend(turned_in(dreg, *machine, *size));
            }
            slot += size.div_ceil(4);
            if slot > 16 {
                return Err(StatementError::TooLong);
            }
        }
        Ok(slot)
    }

    /// Looks fields up: gives the expressions that load them, and the name of the set.
    pub fn look(&mut self, fields: &[Part], place: Looked) -> Result<(Vec<Expr>, SetName), StatementError> {
        match place {
            Looked(Place::Named { what, table, set, interval }) => {
                self.own(what, &table, &set)?;
                Ok((self.load(fields, interval)?, set))
            }
            Looked(Place::Own(own)) => {
                let own = own?;
                fit(fields, &own.elements)?;
                Ok((self.load(fields, own.interval)?, self.anonymous(own)?))
            }
        }
    }

    /// Appends a look-up.
    pub fn lookup(&mut self, fields: &[Part], place: Looked, negated: bool) -> Result<(), StatementError> {
        let (mut exprs, set) = self.look(fields, place)?;
        exprs.push(Expr::Lookup { set, sreg: Register::FIRST, negated });
        self.fixed(exprs);
        Ok(())
    }

    /// Gives expressions that put what a map has for fields into the first registers.
    pub fn map(&mut self, fields: &[Part], place: Looked) -> Result<Vec<Expr>, StatementError> {
        let (mut exprs, set) = self.look(fields, place)?;
        exprs.push(Expr::Map { set, sreg: Register::FIRST, dreg: Register::FIRST });
        Ok(exprs)
    }

    /// Makes a set or map that belongs to the rule.
    fn anonymous(&mut self, own: Own) -> Result<SetName, StatementError> {
        let kind = if own.data.is_some() { "map" } else { "set" };
        let name = SetName::new(&format!("__{kind}{}", self.sets.len())).map_err(|_| StatementError::TooLong)?;
        self.sets.push(own.named(&self.table, &name));
        Ok(name)
    }

    /// The expressions.
    pub fn finish(mut self) -> (Vec<Expr>, Vec<(Set, Vec<Element>)>) {
        for stretch in self.steps.split_mut(|step| matches!(step, Step::Effect(_))) {
            join(stretch);
        }
        let mut exprs = Vec::new();
        for step in self.steps {
            match step {
                Step::Fixed(more) | Step::Effect(more) => exprs.extend(more),
                Step::Equal { data, .. } if data.is_empty() => {}
                Step::Equal { base, offset, data, .. } => {
                    let (len, dreg) = (data.len() as u32, Register::FIRST);
                    exprs.push(Expr::Payload { base, offset, len, dreg });
                    exprs.push(Expr::Cmp { op: CmpOp::Eq, sreg: dreg, data: Data::new(&data).unwrap_or_default() });
                }
            }
        }
        (exprs, self.sets)
    }
}

/// A range in a list of one: a prefix where it is one, as nft(8) has it.
fn one_range<V: Value>(first: V, last: V) -> Kind<V> {
    let (from, to) = (first.to_bytes(), last.to_bytes());
    match prefix_len(&from, &to) {
        Some(bits) if matches!(V::DATATYPE, Datatype::Ipv4Addr | Datatype::Ipv6Addr) => Kind::Prefix(first, bits),
        _ => Kind::Within(first, last),
    }
}

/// Turns the first register to network byte order: ordering and ranges compare bytes from the first on.
fn turned(machine: bool, size: usize) -> Option<Expr> {
    turned_in(Register::FIRST, machine, size)
}

/// The register of four bytes with that number.
fn register(slot: usize) -> Result<Register, StatementError> {
    u8::try_from(slot).ok().and_then(Register::slot).ok_or(StatementError::TooLong)
}

fn turned_in(sreg: Register, machine: bool, size: usize) -> Option<Expr> {
    let len = size as u32;
    (machine && size > 1).then_some(Expr::Byteorder { sreg, dreg: sreg, op: ByteorderOp::ToNetwork, len, size: len })
}

fn within(negated: bool, from: &[u8], to: &[u8]) -> Vec<Expr> {
    let data = |bytes: &[u8]| Data::new(bytes).unwrap_or_default();
    let sreg = Register::FIRST;
    if negated {
        vec![Expr::Range { negated, sreg, from: data(from), to: data(to) }]
    } else {
        vec![Expr::Cmp { op: CmpOp::Gte, sreg, data: data(from) }, Expr::Cmp { op: CmpOp::Lte, sreg, data: data(to) }]
    }
}

fn contrary(op: CmpOp) -> CmpOp {
    match op {
        CmpOp::Eq => CmpOp::Neq,
        CmpOp::Neq => CmpOp::Eq,
        CmpOp::Lt => CmpOp::Gte,
        CmpOp::Gte => CmpOp::Lt,
        CmpOp::Gt => CmpOp::Lte,
        CmpOp::Lte => CmpOp::Gt,
    }
}

fn ether_name(protocol: EtherType) -> String {
    match protocol {
        EtherType::IP => "IPv4".to_owned(),
        EtherType::IP6 => "IPv6".to_owned(),
        EtherType::ARP => "ARP".to_owned(),
        EtherType(other) => format!("EtherType {other:#06x}"),
    }
}

fn protocol_name(protocol: Protocol) -> String {
    match protocol {
        Protocol::TCP => "TCP".to_owned(),
        Protocol::UDP => "UDP".to_owned(),
        Protocol::ICMP => "ICMP".to_owned(),
        Protocol::ICMPV6 => "ICMPv6".to_owned(),
        Protocol(other) => format!("transport protocol {other}"),
    }
}
