//! Stateful objects and flowtables.

use std::time::Duration;

use super::fields::{self, Fields};
use super::{Rest, expr, missing, name, table, table_id};
use crate::nft::{
    Bytes, CtExpectation, CtHelper, CtTimeout, Family, Flowtable, FlowtableName, KnownObject, ObjectName, ObjectType,
    Priority, State, StatefulObject,
};
use crate::wire::netlink::{Attribute, Attributes, DecodeError};
use crate::wire::nftables::{flowtable_flag, user_data};

pub(super) fn stateful(
    family: Family,
    attributes: Attributes<'_>,
    offset: usize,
) -> Result<StatefulObject, DecodeError> {
    const WHAT: &str = "stateful object";
    let (mut table, mut object, mut kind, mut data, mut rest) = (None, None, None, None, Rest::default());
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            1 => table = Some(table_id(family, attribute)?),
            2 => object = Some(name(ObjectName::new, "object name", attribute)?),
            3 => kind = Some(ObjectType::from_wire(attribute.be32("object type")?)),
            4 => data = Some(attribute),
            // Use count, handle, padding.
            5..=7 => {}
            8 => rest.user_data = Some(attribute.payload),
            _ => rest.keep(attribute),
        }
    }
    let kind = kind.ok_or_else(|| missing(WHAT, offset, "a type"))?;
    let data = data.ok_or_else(|| missing(WHAT, offset, "its data"))?;
    let state = state(kind, data).unwrap_or_else(|| State::Raw { kind, data: Bytes(data.payload.to_vec()) });
    let (comment, extra) = rest.with_comment(user_data::COMMENT, &[]);
    Ok(StatefulObject {
        table: table.ok_or_else(|| missing(WHAT, offset, "a table"))?,
        name: object.ok_or_else(|| missing(WHAT, offset, "a name"))?,
        state,
        comment,
        extra,
    })
}

/// The state, if its type can say all that the attributes do.
fn state(kind: ObjectType, data: Attribute<'_>) -> Option<State> {
    let ObjectType::Known(kind) = kind else { return None };
    match kind {
        KnownObject::Counter => {
            let mut fields = Fields::<4>::nested(data)?;
            let state = State::Counter { bytes: fields.wide(1)?, packets: fields.wide(2)? };
            fields.all(state)
        }
        KnownObject::Quota => expr::quota(data).map(State::Quota),
        KnownObject::Limit => expr::limit(data).map(State::Limit),
        KnownObject::Connlimit => expr::connlimit(data).map(|(count, over)| State::Connlimit { count, over }),
        KnownObject::Synproxy => expr::synproxy(data).map(State::Synproxy),
        KnownObject::SecMark => {
            let mut fields = Fields::<2>::nested(data)?;
            let context = fields.text(1)?.to_owned();
            fields.all(State::SecMark(context))
        }
        KnownObject::CtHelper => {
            let mut fields = Fields::<4>::nested(data)?;
            let helper = CtHelper {
                helper: fields.text(1)?.to_owned(),
                l3proto: fields.maybe(2, fields::short)?,
                l4proto: fields.byte(3)?,
            };
            fields.all(State::CtHelper(helper))
        }
        KnownObject::CtTimeout => {
            let mut fields = Fields::<4>::nested(data)?;
            let (l3proto, l4proto) = (fields.short(1)?, fields.byte(2)?);
            let mut seconds = Vec::new();
            if let Some(list) = fields.take(3) {
                for item in list.nested() {
                    let item = item.ok()?;
                    seconds.push((item.kind, fields::number(item)?));
                }
            }
            fields.all(State::CtTimeout(CtTimeout { l3proto, l4proto, seconds }))
        }
        KnownObject::CtExpectation => {
            let mut fields = Fields::<6>::nested(data)?;
            // The time-out is in the machine's byte order, where all else is not.
            let timeout = fields.take(4)?.payload.try_into().ok().map(u32::from_ne_bytes)?;
            let expectation = CtExpectation {
                l3proto: fields.maybe(1, fields::short)?,
                l4proto: fields.byte(2)?,
                dport: fields.short(3)?,
                timeout: Duration::from_millis(timeout.into()),
                size: fields.byte(5)?,
            };
            fields.all(State::CtExpectation(expectation))
        }
        KnownObject::Tunnel => None,
    }
}

pub(super) fn flowtable(family: Family, attributes: Attributes<'_>, offset: usize) -> Result<Flowtable, DecodeError> {
    const WHAT: &str = "flowtable";
    let (mut table, mut flowtable, mut hook, mut flags, mut rest) = (None, None, None, 0, Rest::default());
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            1 => table = Some(table_id(family, attribute)?),
            2 => flowtable = Some(name(FlowtableName::new, "flowtable name", attribute)?),
            3 => hook = Some(attribute),
            // Use count, handle, padding.
            4..=6 => {}
            7 => {
                flags = attribute.be32("flowtable flags")?;
                rest.keep_if(flags & !(flowtable_flag::OFFLOAD | flowtable_flag::COUNTER) != 0, attribute);
            }
            _ => rest.keep(attribute),
        }
    }
    let nest = hook.ok_or_else(|| missing(WHAT, offset, "a hook"))?;
    let (mut priority, mut devices, mut whole) = (None, Some(Vec::new()), true);
    for attribute in nest.nested() {
        let attribute = attribute?;
        match attribute.kind {
            // Ingress is the only one there is.
            1 => whole &= attribute.be32("flowtable hook")? == 0,
            2 => priority = Some(Priority(attribute.be32("priority")? as i32)),
            3 => devices = table::device_list(attribute)?,
            _ => whole = false,
        }
    }
    if !whole || devices.is_none() {
        rest.keep(nest);
    }
    Ok(Flowtable {
        table: table.ok_or_else(|| missing(WHAT, offset, "a table"))?,
        name: flowtable.ok_or_else(|| missing(WHAT, offset, "a name"))?,
        priority: priority.ok_or_else(|| missing(WHAT, nest.offset, "a priority"))?,
        devices: devices.unwrap_or_default(),
        offload: flags & flowtable_flag::OFFLOAD != 0,
        counter: flags & flowtable_flag::COUNTER != 0,
        extra: rest.with_comment(user_data::COMMENT, &[]).1,
    })
}
