//! Stateful objects and flowtables.
//!
//! Their attributes are few and flat, and libnftnl ends the process over a length that it did not expect: they are written here.

use std::borrow::Cow;

use super::attributes::Attributes;
use super::object::Fault;
use super::table::MAX_DEVICES;
use super::{Encoder, kept, kind_of, milliseconds, notes, overridden};
use crate::nft::{Flowtable, State, StatefulObject, Verb};
use crate::wire::nftables::{Kind, LIMIT_OVER, flowtable_flag, quota_flag, user_data};

impl Encoder {
    /// nft(8): `add counter`, `add quota`, `add ct helper`…
    pub(super) fn stateful(&mut self, verb: Verb, object: &StatefulObject) -> Result<(), Fault> {
        let kinds = [Kind::NewObject, Kind::DelObject, Kind::DestroyObject];
        let (kind, flags) = kind_of(verb, kinds, "stateful object")?;
        let mut attributes = Attributes::new();
        attributes.text(1, object.table.name.as_str())?;
        attributes.text(2, object.name.as_str())?;
        attributes.number(3, object.state.kind().to_wire())?;
        if kind == Kind::NewObject {
            attributes.nest(4, &state(&object.state)?)?;
            if let Some(data) = notes(user_data::COMMENT, object.comment.as_ref(), &object.extra, &[])? {
                attributes.bytes(8, &data)?;
            }
            attributes.join(kept(&object.extra)?);
        }
        self.plain(kind, flags, Some(object.table.family), &attributes);
        Ok(())
    }

    /// nft(8): `add flowtable`
    pub(super) fn flowtable(&mut self, verb: Verb, flowtable: &Flowtable) -> Result<(), Fault> {
        let kinds = [Kind::NewFlowtable, Kind::DelFlowtable, Kind::DestroyFlowtable];
        let (kind, flags) = kind_of(verb, kinds, "flowtable")?;
        let mut attributes = Attributes::new();
        attributes.text(1, flowtable.table.name.as_str())?;
        attributes.text(2, flowtable.name.as_str())?;
        if kind == Kind::NewFlowtable {
            if flowtable.devices.len() > MAX_DEVICES {
                let count = flowtable.devices.len();
                return Err(Cow::Owned(format!("{count} devices, more than the kernel's {MAX_DEVICES}")));
            }
            let (mut hook, mut devices) = (Attributes::new(), Attributes::new());
            // Ingress is the only one there is.
            hook.number(1, 0)?;
            hook.number(2, flowtable.priority.0 as u32)?;
            for device in &flowtable.devices {
                devices.text(1, device.as_str())?;
            }
            if !flowtable.devices.is_empty() {
                hook.nest(3, &devices)?;
            }
            if !overridden(&flowtable.extra, 3) {
                attributes.nest(3, &hook)?;
            }
            let bits = [(flowtable.offload, flowtable_flag::OFFLOAD), (flowtable.counter, flowtable_flag::COUNTER)];
            let bits: u32 = bits.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
            if bits != 0 && !overridden(&flowtable.extra, 7) {
                attributes.number(7, bits)?;
            }
            attributes.join(kept(&flowtable.extra)?);
        }
        self.plain(kind, flags, Some(flowtable.table.family), &attributes);
        Ok(())
    }
}

fn state(state: &State) -> Result<Attributes, Fault> {
    let mut data = Attributes::new();
    match state {
        State::Counter { packets, bytes } => {
            data.wide(1, *bytes)?;
            data.wide(2, *packets)?;
        }
        State::Quota(quota) => {
            data.wide(1, quota.bytes)?;
            data.number(2, if quota.over { quota_flag::OVER } else { 0 })?;
            data.wide(4, quota.used)?;
        }
        State::Limit(limit) => {
            data.wide(1, limit.rate)?;
            data.wide(2, limit.seconds)?;
            data.number(3, limit.burst)?;
            data.number(4, u32::from(limit.bytes))?;
            data.number(5, if limit.over { LIMIT_OVER } else { 0 })?;
        }
        State::Connlimit { count, over } => {
            data.number(1, *count)?;
            data.number(2, u32::from(*over))?;
        }
        State::CtHelper(helper) => {
            data.text(1, &helper.helper)?;
            if let Some(l3proto) = helper.l3proto {
                data.short(2, l3proto)?;
            }
            data.byte(3, helper.l4proto)?;
        }
        State::CtTimeout(timeout) => {
            data.short(1, timeout.l3proto)?;
            data.byte(2, timeout.l4proto)?;
            let mut seconds = Attributes::new();
            for (state, time) in &timeout.seconds {
                seconds.number(*state, *time)?;
            }
            data.nest(3, &seconds)?;
        }
        State::CtExpectation(expectation) => {
            if let Some(l3proto) = expectation.l3proto {
                data.short(1, l3proto)?;
            }
            data.byte(2, expectation.l4proto)?;
            data.short(3, expectation.dport)?;
            let timeout = u32::try_from(milliseconds(expectation.timeout)?);
            let timeout = timeout.map_err(|_| "an expectation longer than the kernel counts")?;
            // The one number in the machine's byte order.
            data.bytes(4, &timeout.to_ne_bytes())?;
            data.byte(5, expectation.size)?;
        }
        State::Synproxy(synproxy) => {
            data.short(1, synproxy.mss)?;
            data.byte(2, synproxy.wscale)?;
            data.number(3, synproxy.flags)?;
        }
        State::SecMark(context) => data.text(1, context)?,
        State::Raw { data: raw, .. } => data = Attributes::from_bytes(raw.as_slice().to_vec()),
    }
    Ok(data)
}
