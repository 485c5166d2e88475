//! Statements that change the packet, or what the kernel notes about it.

use super::field::{Field, Network, Source};
use super::header::INTEGER;
use super::rule::Reader;
use super::statement::Wanted;
use super::value::{self, Kind};
use crate::nft::{CtDirection, CtKey, Expr, MetaKey, PayloadBase, Register};

const ANOTHER_CHECKSUM: &str = "nft(8) would keep another checksum right";

impl Reader<'_> {
    pub(super) fn meta_set(&mut self, key: MetaKey, sreg: Register) -> Result<String, String> {
        let field = self.context.field(Source::Meta(key)).ok_or("nft(8) has no way to write what it sets")?;
        let kind = if key == MetaKey::NfTrace { Kind::Number } else { field.kind };
        Ok(format!(
            "{} set {}",
            field.text,
            self.argument(sreg, Wanted::new(kind, field.datatype, key.size() as usize))?
        ))
    }

    pub(super) fn ct_set(
        &mut self,
        key: CtKey,
        direction: Option<CtDirection>,
        sreg: Register,
    ) -> Result<String, String> {
        if !matches!(key, CtKey::Mark | CtKey::Zone | CtKey::EventMask | CtKey::Labels) {
            return Err("nft(8) syntax is not known for what it sets of the flow".to_owned());
        }
        let field = self.context.field(Source::Ct(key, direction)).ok_or("nft(8) has no way to write what it sets")?;
        let width = super::field::ct_width(self.context.network, key).unwrap_or(4);
        Ok(format!("{} set {}", field.text, self.argument(sreg, Wanted::new(field.kind, field.datatype, width))?))
    }

    pub(super) fn payload_set(
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
        let kept = (checksum.kind, checksum.offset, checksum.flags);
        match &value.mask {
            // Bits of what stands there: nft(8) loads, changes and writes back.
            Some((keep, xor)) if value.source == source => {
                let mask: Vec<u8> = keep.as_bytes().iter().map(|byte| !byte).collect();
                let (field, shift) = self.context.changed(source, &mask).ok_or_else(unwritable)?;
                let (number, mask) = (value::big(xor.as_bytes()), value::big(&mask));
                let (number, mask) = number.zip(mask).ok_or_else(unwritable)?;
                if number & !mask != 0 {
                    return Err(unwritable());
                }
                let bytes = (number >> shift).to_be_bytes();
                let width = (mask >> shift).count_ones().div_ceil(8) as usize;
                // A protocol by its number: some of their names are statements.
                let set = field.kind.show_bound(&bytes[bytes.len() - width..]).ok_or_else(unwritable)?;
                if self.checksum(base, &field) != kept {
                    return Err(ANOTHER_CHECKSUM.to_owned());
                }
                Ok(format!("{} set {set}", field.text))
            }
            _ => {
                // With a name goes the checksum of the header, with a place none.
                let part = |field: &Field| matches!(field.kind, Kind::Ipv4Prefix | Kind::Ipv6Prefix);
                let named = self.context.field(source).filter(|field| !part(field));
                let named = named.map(|field| (self.checksum(base, &field), field));
                let placed = self.context.raw(source).filter(|_| base != PayloadBase::Inner);
                let mut fields = named.into_iter().chain(placed.map(|field| ((0, 0, 0), field))).peekable();
                fields.peek().ok_or_else(unwritable)?;
                // A checksum is computed over pairs of bytes.
                let even = checksum.kind == 0 || len.is_multiple_of(2);
                let (_, field) = fields.find(|(sum, _)| even && *sum == kept).ok_or(ANOTHER_CHECKSUM)?;
                let wanted = Wanted { turns: true, ..Wanted::new(field.kind, field.datatype, len as usize) };
                Ok(format!("{} set {}", field.text, self.argument_of(&value, wanted)?))
            }
        }
    }

    /// The checksum that nft(8) keeps right when it writes a field by its name: of which kind and where it is, and whether the
    /// transport's covers the field.
    fn checksum(&self, base: PayloadBase, field: &Field) -> (u32, u32, u32) {
        let (kind, place) = match (base, self.context.network, self.context.named_transport()) {
            (PayloadBase::Network, Some(Network::Ip), _) => (1, 10),
            (PayloadBase::Transport, _, Some(1 | 2 | 58)) => (1, 2),
            (PayloadBase::Transport, _, Some(6)) => (1, 16),
            (PayloadBase::Transport, _, Some(17)) => (1, 6),
            (PayloadBase::Transport, _, Some(132)) => (2, 8),
            _ => (0, 0),
        };
        let pseudo =
            ["ip saddr", "ip daddr", "ip protocol", "ip length", "ip6 saddr", "ip6 daddr", "ip6 nexthdr", "ip6 length"]
                .contains(&field.text.as_str());
        (kind, place, u32::from(pseudo))
    }

    pub(super) fn mss(&mut self, sreg: Register) -> Result<String, String> {
        let value = self.take(sreg.index().into())?;
        // Of all numbers of the machine's, nft 1.0.6 turns this one alone around here.
        let turns = self.fields(value.source).next().is_some_and(|field| field.text == "rt mtu");
        self.argument_of(&value, Wanted { turns, ..Wanted::new(Kind::Number, INTEGER, 2) })
    }
}
