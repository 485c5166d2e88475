//! The kernel's messages, decoded by us and by the crate `netlink-packet-netfilter`: where both take one, both must have read the same.

use std::cell::Cell;
use std::net::IpAddr;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::{Duration, SystemTime};

use netlink_packet_core::{Nla, ParseableParametrized};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP};
use netlink_packet_netfilter::conntrack::{ProtoTuple, Tuple};
use netlink_packet_netfilter::nflog::{PacketNla, ULogMessage};
use netlink_packet_netfilter::nftables::*;
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use ringfence::nft::{BitwiseOp, ElementData, Expr, MapTo, Object};
use ringfence::wire::conntrack::{self, Flow, TcpState};
use ringfence::wire::netlink::{self, Message};
use ringfence::wire::{nflog, nftables};

thread_local! {
    /// The other decoder is at work.
    static THEIRS: Cell<bool> = const { Cell::new(false) };
}

/// Decodes messages of nflog, conntrack and nf_tables twice.
///
/// Nothing is said of what only one of the two takes: we want names and lengths as the kernel has them, and keep expressions that the other
/// one refuses.
pub fn netfilter(datagram: &[u8]) {
    for message in netlink::messages(datagram) {
        let Ok(message) = message else { break };
        let Some(theirs) = theirs(&message) else { continue };
        match theirs.inner {
            NetfilterMessageInner::ULog(ULogMessage::Packet(attributes)) => {
                if let Ok(Some(ours)) = nflog::Message::decode(&message) {
                    assert_eq!((ours.family, ours.group.0), (theirs.header.family.into(), theirs.header.res_id));
                    packet(&ours, &attributes);
                }
            }
            NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) => {
                if let Ok(Some(ours)) = conntrack::flow(&message) {
                    flow(&ours, &attributes);
                }
            }
            NetfilterMessageInner::NfTables(theirs) => rules(&message, theirs),
            _ => {}
        }
    }
}

/// What the other crate makes of a message. It takes lengths within elements of a set on trust, and panics where they lie: that is `None`.
fn theirs(message: &Message<'_>) -> Option<NetfilterMessage> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        // libFuzzer's own hook ends the process at any panic, caught or not.
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !THEIRS.get() {
                before(info);
            }
        }));
    });
    THEIRS.set(true);
    let parsed = panic::catch_unwind(AssertUnwindSafe(|| {
        NetfilterMessage::parse_with_param(message.payload, message.header.kind)
    }));
    THEIRS.set(false);
    parsed.ok()?.ok()
}

/// The last attribute of a kind: it is the one that counts.
macro_rules! last {
    ($attributes:expr, $kind:path) => {
        $attributes.iter().rev().find_map(|attribute| match attribute {
            $kind(value) => Some(value.clone()),
            _ => None,
        })
    };
}

fn value(attribute: &impl Nla) -> Vec<u8> {
    let mut bytes = vec![0; attribute.value_len()];
    attribute.emit_value(&mut bytes);
    bytes
}

fn packet(ours: &nflog::Message<'_>, theirs: &[PacketNla]) {
    let index = |index: Option<ringfence::link::IfIndex>| index.map(|index| index.0);
    assert_eq!(ours.mark, last!(theirs, PacketNla::Mark));
    assert_eq!(index(ours.indev), last!(theirs, PacketNla::IfIndexInDev));
    assert_eq!(index(ours.outdev), last!(theirs, PacketNla::IfIndexOutDev));
    assert_eq!(index(ours.physindev), last!(theirs, PacketNla::IfIndexPhysInDev));
    assert_eq!(index(ours.physoutdev), last!(theirs, PacketNla::IfIndexPhysOutDev));
    assert_eq!(ours.payload.as_deref(), last!(theirs, PacketNla::Payload).as_deref());
    assert_eq!(ours.uid, last!(theirs, PacketNla::Uid));
    assert_eq!(ours.gid, last!(theirs, PacketNla::Gid));
    assert_eq!(ours.seq, last!(theirs, PacketNla::Seq));
    assert_eq!(ours.seq_global, last!(theirs, PacketNla::SeqGlobal));
    assert_eq!(ours.hwtype, last!(theirs, PacketNla::HwType));
    assert_eq!(ours.hwlen, last!(theirs, PacketNla::HwHeaderLen));
    assert_eq!(ours.hwheader.as_deref(), last!(theirs, PacketNla::HwHeader).as_deref());
    let prefix = last!(theirs, PacketNla::Prefix).map(|text| text.to_string_lossy().into_owned());
    assert_eq!(ours.prefix.as_deref(), prefix.as_deref());
    // The others have no fields to ask for, but can be written down again.
    let header = last!(theirs, PacketNla::PacketHdr).map(|header| value(&header));
    let ethertype = ours.ethertype.map(u16::to_be_bytes);
    assert_eq!(
        ethertype.zip(ours.hook).map(|([high, low], hook)| vec![high, low, hook.0, 0]),
        header,
        "header of the packet"
    );
    let stamp = last!(theirs, PacketNla::Timestamp).map(|stamp| value(&stamp));
    let time = stamp.map(|bytes| {
        let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        SystemTime::UNIX_EPOCH + Duration::from_secs(number(0)) + Duration::from_micros(number(8))
    });
    assert_eq!(ours.timestamp, time);
    let address = last!(theirs, PacketNla::HwAddr).map(|address| value(&address));
    if let (Some(ours), Some(theirs)) = (&ours.hwaddr, address) {
        // They keep eight bytes at most, whatever the length says.
        assert_eq!(usize::from(u16::from_be_bytes([theirs[0], theirs[1]])), ours.len());
        let len = ours.len().min(8);
        assert_eq!(ours[..len], theirs[4..4 + len]);
    }
}

fn flow(ours: &Flow, theirs: &[ConntrackAttribute]) {
    let tuple = last!(theirs, ConntrackAttribute::CtaTupleOrig).unwrap_or_default();
    let all_of = |wanted: fn(&Tuple) -> Option<&Vec<IPTuple>>| tuple.iter().filter_map(wanted).flatten();
    let address = |wanted: fn(&IPTuple) -> Option<IpAddr>| {
        let found = all_of(|part| if let Tuple::Ip(part) = part { Some(part) } else { None });
        found.filter_map(wanted).next_back()
    };
    let source = address(|part| if let IPTuple::SourceAddress(ip) = part { Some(*ip) } else { None });
    let destination = address(|part| if let IPTuple::DestinationAddress(ip) = part { Some(*ip) } else { None });
    assert_eq!((Some(ours.original.source), Some(ours.original.destination)), (source, destination));
    let parts = tuple.iter().filter_map(|part| if let Tuple::Proto(part) = part { Some(part) } else { None }).flatten();
    let (mut protocol, mut source, mut destination) = (None, 0, 0);
    for part in parts {
        match part {
            ProtoTuple::Protocol(number) => protocol = Some(u8::from(*number)),
            ProtoTuple::SourcePort(port) => source = *port,
            ProtoTuple::DestinationPort(port) => destination = *port,
            _ => {}
        }
    }
    let original = ours.original;
    assert_eq!(
        (Some(original.protocol), original.source_port, original.destination_port),
        (protocol, source, destination)
    );
    let info = last!(theirs, ConntrackAttribute::CtaProtoInfo).unwrap_or_default();
    if let (Some(state), [ProtoInfo::TCP(info)]) = (ours.tcp, info.as_slice()) {
        let number = last!(info, ProtoInfoTCP::State);
        let known = match number {
            Some(1 | 2 | 9) => TcpState::Opening,
            Some(3) => TcpState::Established,
            Some(4 | 5) => TcpState::HalfClosed,
            _ => TcpState::Closed,
        };
        assert_eq!(state, known, "{number:?}");
    }
    let other = |kind: u16| {
        let of_kind = theirs.iter().rev().find(|attribute| attribute.kind() & 0x3fff == kind);
        of_kind.map(|attribute| value(attribute).iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    };
    assert_eq!(ours.id, other(12));
    assert_eq!(u32::from(ours.zone), other(18).unwrap_or(0));
}

fn rules(message: &Message<'_>, theirs: NfTablesMessage) {
    use NfTablesMessage::{NewChain, NewGen, NewRule, NewSet, NewSetElement, NewTable};
    if let NewGen(theirs) = &theirs {
        if let Ok((generation, by)) = nftables::commit(message) {
            assert_eq!(Some(generation.0), last!(theirs.attributes, GenAttribute::Id));
            assert_eq!(by.as_ref().map(|by| by.pid), last!(theirs.attributes, GenAttribute::ProcPid));
        }
        return;
    }
    let Ok(ours) = nftables::decode(message) else { return };
    match (ours, theirs) {
        (Object::Table(ours), NewTable(theirs)) => {
            let theirs = theirs.attributes;
            assert_eq!(Some(ours.id.name.as_str()), last!(theirs, TableAttribute::Name).as_deref());
            let flags = last!(theirs, TableAttribute::Flags).map_or(0, |flags| flags.bits());
            assert_eq!(
                [ours.flags.dormant, ours.flags.owner, ours.flags.persist],
                [1, 2, 4].map(|bit| flags & bit != 0)
            );
        }
        (Object::Chain(ours), NewChain(theirs)) => {
            let theirs = theirs.attributes;
            assert_eq!(Some(ours.table.name.as_str()), last!(theirs, ChainAttribute::Table).as_deref());
            assert_eq!(Some(ours.name.as_str()), last!(theirs, ChainAttribute::Name).as_deref());
            let flags = last!(theirs, ChainAttribute::Flags).map_or(0, |flags| flags.bits());
            assert_eq!([ours.flags.offload, ours.flags.binding], [2, 4].map(|bit| flags & bit != 0));
            let hook = last!(theirs, ChainAttribute::Hook);
            assert_eq!(ours.base.is_some(), hook.is_some());
            if let (Some(base), Some(hook)) = (ours.base, hook) {
                assert_eq!(Some(base.priority.0 as u32), last!(hook, Hook::Priority));
                let accepts = last!(theirs, ChainAttribute::Policy).unwrap_or(1) == 1;
                assert_eq!(base.policy == ringfence::nft::ChainPolicy::Accept, accepts);
                let kind = last!(theirs, ChainAttribute::Type).unwrap_or_else(|| "filter".to_owned());
                assert_eq!(format!("{:?}", base.kind).to_lowercase(), kind);
                if !hook.iter().any(|part| matches!(part, Hook::NetDevices(_))) {
                    let device = last!(hook, Hook::NetDeviceName);
                    // A name that no interface has is kept with what has no field.
                    if let [ours] = base.devices.as_slice() {
                        assert_eq!(Some(ours.as_str()), device.as_deref());
                    }
                }
            }
        }
        (Object::Rule(ours), NewRule(theirs)) => {
            let theirs = theirs.attributes;
            assert_eq!(Some(ours.table.name.as_str()), last!(theirs, RuleAttribute::Table).as_deref());
            assert_eq!(Some(ours.chain.as_str()), last!(theirs, RuleAttribute::Chain).as_deref());
            assert_eq!(ours.handle.map(|handle| handle.0), last!(theirs, RuleAttribute::Handle));
            expressions(&ours.exprs, &last!(theirs, RuleAttribute::Expressions).unwrap_or_default());
        }
        (Object::Set(ours), NewSet(theirs)) => {
            let theirs = theirs.attributes;
            assert_eq!(Some(ours.table.name.as_str()), last!(theirs, SetAttribute::Table).as_deref());
            assert_eq!(Some(ours.name.as_str()), last!(theirs, SetAttribute::Name).as_deref());
            assert_eq!(Some(ours.key.number()), last!(theirs, SetAttribute::KeyType));
            assert_eq!(Some(ours.key.len() as u32), last!(theirs, SetAttribute::KeyLen));
            if let Some(MapTo::Value(to)) = &ours.data {
                assert_eq!(Some(to.number()), last!(theirs, SetAttribute::DataType));
                assert_eq!(Some(to.len() as u32), last!(theirs, SetAttribute::DataLen));
            }
            let flags = last!(theirs, SetAttribute::Flags).map_or(0, |flags| flags.bits());
            let said = &ours.flags;
            assert_eq!(
                [said.anonymous, said.constant, said.interval, said.timeout, said.dynamic, said.expressions],
                [1, 2, 4, 0x10, 0x20, 0x100].map(|bit| flags & bit != 0)
            );
            assert_eq!(ours.timeout, last!(theirs, SetAttribute::Timeout).map(Duration::from_millis));
            let interval = last!(theirs, SetAttribute::GarbageCollectionInterval);
            assert_eq!(ours.gc_interval, interval.map(|millis| Duration::from_millis(millis.into())));
            if let (Some(size), Some(theirs)) = (ours.size, last!(theirs, SetAttribute::Description)) {
                assert_eq!(Some(size), last!(theirs, SetDescription::Size));
            }
        }
        (Object::Elements { table, set, elements: ours }, NewSetElement(theirs)) => {
            let theirs = theirs.attributes;
            assert_eq!(Some(table.name.as_str()), last!(theirs, SetElementList::Table).as_deref());
            assert_eq!(Some(set.as_str()), last!(theirs, SetElementList::Set).as_deref());
            let theirs = last!(theirs, SetElementList::Elements).unwrap_or_default();
            assert_eq!(ours.len(), theirs.len());
            for (ours, theirs) in ours.iter().zip(theirs) {
                let ListAttribute::Element(theirs) = theirs else { continue };
                if let Some(DataAttribute::Value(key)) = last!(theirs, SetElementAttribute::Key) {
                    assert_eq!(ours.key.as_bytes(), key);
                }
                if let (Some(ElementData::Value(to)), Some(DataAttribute::Value(theirs))) =
                    (&ours.data, last!(theirs, SetElementAttribute::Data))
                {
                    assert_eq!(to.as_bytes(), theirs);
                }
                let flags = last!(theirs, SetElementAttribute::Flags).map_or(0, |flags| flags.bits());
                assert_eq!([ours.interval_end, ours.catch_all], [1, 2].map(|bit| flags & bit != 0));
                assert_eq!(ours.timeout, last!(theirs, SetElementAttribute::Timeout).map(Duration::from_millis));
            }
        }
        _ => {}
    }
}

/// Expressions that both have a type for.
fn expressions(ours: &[Expr], theirs: &[ListAttribute<ExpressionAttribute>]) {
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        let ListAttribute::Element(theirs) = theirs else { continue };
        assert_eq!(Some(ours.kernel_name()), last!(theirs, ExpressionAttribute::Name).as_deref());
        let Some(theirs) = last!(theirs, ExpressionAttribute::Data) else { continue };
        expression(ours, theirs);
    }
}

fn expression(ours: &Expr, theirs: Expressions) {
    // Both spellings of the first registers are one place.
    let slot = |number: Option<Register>| number.and_then(|number| ringfence::nft::Register::from_wire(number.into()));
    let bytes = |data: Option<DataAttribute>| match data {
        Some(DataAttribute::Value(bytes)) => Some(bytes),
        _ => None,
    };
    match (ours, theirs) {
        (Expr::Payload { base, offset, len, dreg }, Expressions::Payload(theirs)) => {
            assert_eq!(Some(base.to_wire()), last!(theirs, Payload::Base));
            assert_eq!((Some(*offset), Some(*len)), (last!(theirs, Payload::Offset), last!(theirs, Payload::Len)));
            assert_eq!(Some(*dreg), slot(last!(theirs, Payload::DestinationRegister)));
        }
        (Expr::PayloadWrite { base, offset, len, sreg, checksum }, Expressions::Payload(theirs)) => {
            assert_eq!(Some(base.to_wire()), last!(theirs, Payload::Base));
            assert_eq!((Some(*offset), Some(*len)), (last!(theirs, Payload::Offset), last!(theirs, Payload::Len)));
            assert_eq!(Some(*sreg), slot(last!(theirs, Payload::SourceRegister)));
            assert_eq!(checksum.kind, last!(theirs, Payload::CsumType).map_or(0, u32::from));
            assert_eq!(checksum.offset, last!(theirs, Payload::CsumOffset).unwrap_or(0));
        }
        (Expr::Meta { key, dreg }, Expressions::Meta(theirs)) => {
            assert_eq!(Some(key.to_wire()), last!(theirs, Meta::Key).map(u32::from));
            assert_eq!(Some(*dreg), slot(last!(theirs, Meta::DestinationRegister)));
        }
        (Expr::MetaSet { key, sreg }, Expressions::Meta(theirs)) => {
            assert_eq!(Some(key.to_wire()), last!(theirs, Meta::Key).map(u32::from));
            assert_eq!(Some(*sreg), slot(last!(theirs, Meta::SourceRegister)));
        }
        (Expr::Cmp { op, sreg, data }, Expressions::Cmp(theirs)) => {
            assert_eq!(Some(op.to_wire()), last!(theirs, Cmp::Op).map(u32::from));
            assert_eq!(Some(*sreg), slot(last!(theirs, Cmp::SourceRegister)));
            assert_eq!(Some(data.as_bytes()), bytes(last!(theirs, Cmp::Data)).as_deref());
        }
        (Expr::Bitwise { sreg, dreg, len, op }, Expressions::Bitwise(theirs)) => {
            assert_eq!(Some(*sreg), slot(last!(theirs, Bitwise::SourceRegister)));
            assert_eq!(Some(*dreg), slot(last!(theirs, Bitwise::DestinationRegister)));
            assert_eq!(Some(*len), last!(theirs, Bitwise::Length));
            if let BitwiseOp::MaskXor { mask, xor } = op {
                assert_eq!(Some(mask.as_bytes()), bytes(last!(theirs, Bitwise::Mask)).as_deref());
                assert_eq!(Some(xor.as_bytes()), bytes(last!(theirs, Bitwise::Xor)).as_deref());
            }
        }
        (
            Expr::Lookup { set, sreg, .. } | Expr::Map { set, sreg, .. } | Expr::VerdictMap { set, sreg, .. },
            Expressions::Lookup(theirs),
        ) => {
            assert_eq!(Some(set.as_str()), last!(theirs, Lookup::Set).as_deref());
            assert_eq!(Some(*sreg), slot(last!(theirs, Lookup::SourceRegister)));
        }
        (Expr::Immediate { dreg, data }, Expressions::Immediate(theirs)) => {
            assert_eq!(Some(*dreg), slot(last!(theirs, Immediate::DestinationRegister)));
            assert_eq!(Some(data.as_bytes()), bytes(last!(theirs, Immediate::Data)).as_deref());
        }
        _ => {}
    }
}
