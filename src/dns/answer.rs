//! What a name server is asked, and what is believed of its answer.
//!
//! An answer is taken apart and only this is kept of it: the chain of aliases that begins at the name that was asked for, and the records of the kind that
//! was asked for at its end. What else a server sends, other names' addresses first of all, is not looked at.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::svcb::{SVCB, SvcParamKey, SvcParamValue};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::question::{address_record, encoded};
use crate::policy::DnsName;

/// Longest chain of aliases that is followed, in links.
const LONGEST_CHAIN: usize = 16;
/// Longest time that a record is believed, in seconds.
const LONGEST_TTL: u32 = 24 * 60 * 60;
/// Longest time that the absence of a record is believed, in seconds.
const LONGEST_ABSENCE: u32 = 15 * 60;
/// How long nobody is asked again after all servers failed (RFC 9520, section 3.2).
const AFTER_FAILURE: u32 = 1;
/// What fits through any network in one piece (DNS flag day 2020).
const DATAGRAM: u16 = 1232;

/// What came of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The records.
    Found,
    /// The name is there, without such a record.
    NoData,
    /// There is no such name.
    NoName,
    /// Nobody could say.
    Failed,
}

/// What is known about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    outcome: Outcome,
    /// The chain of aliases, then what is at its end.
    records: Vec<Record>,
    /// Says how long something is known not to be there.
    authority: Option<Record>,
    ttl: u32,
}

impl Answer {
    /// Says that nobody could say.
    pub(super) fn failed() -> Self {
        Self { outcome: Outcome::Failed, records: Vec::new(), authority: None, ttl: AFTER_FAILURE }
    }

    /// Says that there is no such name, for now.
    pub(super) fn unknown() -> Self {
        Self { outcome: Outcome::NoName, ..Self::failed() }
    }

    /// Answers with addresses that are known without a server; without one, says that there is none of that kind.
    pub(super) fn known(name: &Name, addresses: impl Iterator<Item = IpAddr>, ttl: u32) -> Self {
        let records: Vec<Record> = addresses.map(|address| address_record(name, address)).collect();
        let outcome = if records.is_empty() { Outcome::NoData } else { Outcome::Found };
        Self { outcome, records, authority: None, ttl }
    }

    /// The same answer, to somebody who asked for `name` and was helped out with a name of the search list.
    pub(super) fn as_asked(&self, name: &Name) -> Self {
        let mut answer = self.clone();
        if let Some(found) = self.records.first().map(|record| record.name.clone()) {
            let alias = hickory_proto::rr::rdata::CNAME(found);
            answer.records.insert(0, Record::from_rdata(name.clone(), self.ttl, RData::CNAME(alias)));
        }
        answer
    }

    /// What came of it.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// For how many seconds it is good, from when it came.
    pub fn ttl(&self) -> u32 {
        self.ttl
    }

    /// Every address in it.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.records.iter().filter_map(|record| match record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        })
    }

    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(super) fn authority(&self) -> Option<&Record> {
        self.authority.as_ref()
    }

    /// About how many bytes it takes up.
    pub(super) fn weight(&self) -> usize {
        // A name is 80 bytes on its own; data that lies elsewhere is at most as long as the record was on the wire.
        let weigh = |record: &Record| {
            size_of::<Record>()
                + match &record.data {
                    RData::A(_) | RData::AAAA(_) | RData::CNAME(_) | RData::SOA(_) => 0,
                    RData::HTTPS(service) => service_weight(&service.0),
                    RData::SVCB(service) => service_weight(service),
                    _ => 512,
                }
        };
        size_of::<Self>() + self.records.iter().chain(&self.authority).map(weigh).sum::<usize>()
    }
}

/// About how many bytes a service's parameters take up.
fn service_weight(service: &SVCB) -> usize {
    let value = |value: &SvcParamValue| match value {
        SvcParamValue::EchConfigList(list) => list.0.len(),
        SvcParamValue::Unknown(bytes) => bytes.0.len(),
        SvcParamValue::Alpn(alpn) => alpn.0.iter().map(|name| 32 + name.len()).sum(),
        _ => 32,
    };
    service.svc_params.iter().map(|(_, one)| 64 + value(one)).sum()
}

/// Why an answer of a server's is of no use, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// It answers something else, or can't be read. The true one may still come.
    NotOurs,
    /// It is cut short, or does not repeat the name letter for letter. Over TCP it would be whole, and nobody's but the server's.
    AskOverTcp,
    /// The server does not know EDNS.
    AskPlainly,
    /// The server can't answer. Another one may.
    AskAnother,
}

/// A question on its way to a server.
#[derive(Debug, Clone)]
pub struct Sent {
    id: u16,
    query: Query,
    bytes: Vec<u8>,
}

impl Sent {
    /// Writes a question for the addresses of a name: of IPv4, or IPv6.
    pub fn for_addresses(name: &DnsName, ipv6: bool) -> Option<Self> {
        Self::new(&wire_name(name)?, if ipv6 { RecordType::AAAA } else { RecordType::A }, true)
    }

    /// Writes a question, with a number and capitals by chance: who can't see it must guess both (draft-vixie-dnsext-dns0x20).
    pub(super) fn new(name: &Name, kind: RecordType, edns: bool) -> Option<Self> {
        // A bit for each letter of the longest name.
        let mut chance = [0; 2 + 256 / 8];
        fill_by_chance(&mut chance)?;
        let [first, second, capitals @ ..] = &chance;
        let mut message = Message::new(u16::from_be_bytes([*first, *second]), MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        let query = Query::query(with_capitals(name, capitals)?, kind);
        message.add_query(query.clone());
        if edns {
            let mut edns = Edns::new();
            edns.set_max_payload(DATAGRAM);
            message.set_edns(edns);
        }
        Some(Self { id: message.metadata.id, query, bytes: encoded(&message)? })
    }

    /// The question as it goes over the wire.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads an answer to it. Over TCP, capitals may differ.
    ///
    /// # Errors
    ///
    /// [`Unusable`]: what to do instead of using it.
    pub fn read(&self, bytes: &[u8], tcp: bool) -> Result<Answer, Unusable> {
        let message = Message::from_vec(bytes).map_err(|_| Unusable::NotOurs)?;
        let head = &message.metadata;
        if head.id != self.id || head.message_type != MessageType::Response || head.op_code != OpCode::Query {
            return Err(Unusable::NotOurs);
        }
        // Servers that do not know EDNS may answer without the question.
        if matches!(head.response_code, ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS)
            && message.queries.is_empty()
        {
            return Err(Unusable::AskPlainly);
        }
        let [query] = message.queries.as_slice() else { return Err(Unusable::NotOurs) };
        if *query != self.query {
            return Err(Unusable::NotOurs);
        }
        if !tcp && (head.truncation || !query.name.eq_case(&self.query.name)) {
            return Err(Unusable::AskOverTcp);
        }
        match head.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => self.believe(&message),
            ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS => Err(Unusable::AskPlainly),
            _ => Err(Unusable::AskAnother),
        }
    }

    /// Takes of a message what it says about the question.
    fn believe(&self, message: &Message) -> Result<Answer, Unusable> {
        let of = |owner: &Name, kind: RecordType| {
            let owner = owner.clone();
            message.answers.iter().filter(move |record| {
                record.dns_class == DNSClass::IN && record.record_type() == kind && record.name == owner
            })
        };
        let mut records: Vec<Record> = Vec::new();
        let mut owner = self.query.name.to_lowercase();
        let found = loop {
            let found: Vec<Record> = of(&owner, self.query.query_type).cloned().map(without_hints).collect();
            let alias = of(&owner, RecordType::CNAME).next();
            match (found.is_empty(), alias) {
                (true, Some(alias)) => {
                    let RData::CNAME(to) = &alias.data else { return Err(Unusable::AskAnother) };
                    // A longer chain, or one that bites its tail, leads nowhere.
                    if records.len() == LONGEST_CHAIN {
                        return Err(Unusable::AskAnother);
                    }
                    owner = to.0.to_lowercase();
                    records.push(alias.clone());
                }
                _ => break found,
            }
        };
        let there = !found.is_empty();
        records.extend(found);
        let ttl = records.iter().map(|record| record.ttl).min();
        if there {
            // RFC 8767, section 4: a number that would be negative is a large one.
            let ttl = ttl.unwrap_or(0).min(LONGEST_TTL);
            return Ok(Answer { outcome: Outcome::Found, records, authority: None, ttl });
        }
        let outcome = match message.metadata.response_code {
            ResponseCode::NXDomain => Outcome::NoName,
            _ => Outcome::NoData,
        };
        // RFC 2308, section 5. Without the record nobody says for how long, so it is not for long.
        let authority = message.authorities.iter().find(|record| matches!(record.data, RData::SOA(_))).cloned();
        let absent = authority.as_ref().map_or(0, |record| match &record.data {
            RData::SOA(zone) => zone.minimum.min(record.ttl),
            _ => 0,
        });
        let ttl = ttl.unwrap_or(u32::MAX).min(absent).min(LONGEST_ABSENCE);
        Ok(Answer { outcome, records, authority, ttl })
    }
}

/// Takes the addresses out of a service record: they would be handed out without having been asked for, and a client that misses them asks.
fn without_hints(mut record: Record) -> Record {
    match &mut record.data {
        RData::HTTPS(service) => strip(&mut service.0),
        RData::SVCB(service) => strip(service),
        _ => {}
    }
    record
}

fn strip(service: &mut SVCB) {
    let hint = |key: &SvcParamKey| matches!(key, SvcParamKey::Ipv4Hint | SvcParamKey::Ipv6Hint);
    for (_, value) in &mut service.svc_params {
        if let SvcParamValue::Mandatory(mandatory) = value {
            mandatory.0.retain(|key| !hint(key));
        }
    }
    service.svc_params.retain(|(key, value)| {
        !hint(key) && !matches!(value, SvcParamValue::Mandatory(mandatory) if mandatory.0.is_empty())
    });
}

/// Fills bytes by chance, from the system call itself. The protocol library's own source panics where there is no /dev, in a static binary alone in its
/// root.
fn fill_by_chance(bytes: &mut [u8]) -> Option<()> {
    let filled = rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty()).ok()?;
    // The kernel gives 256 bytes and fewer whole.
    (filled == bytes.len()).then_some(())
}

/// The same name, with each letter that has its bit set in the other case.
fn with_capitals(name: &Name, bits: &[u8]) -> Option<Name> {
    let mut bits = bits.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
    let mut turned =
        |byte: &u8| if bits.next() == Some(true) && byte.is_ascii_alphabetic() { byte ^ 0x20 } else { *byte };
    let labels: Vec<Vec<u8>> = name.iter().map(|label| label.iter().map(&mut turned).collect()).collect();
    let mut name = Name::from_labels(labels.iter().map(Vec::as_slice)).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// A policy's name as it goes over the wire.
pub(super) fn wire_name(name: &DnsName) -> Option<Name> {
    let mut wire = Name::from_ascii(name.as_str()).ok()?;
    wire.set_fqdn(true);
    Some(wire)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        wire_name(&text.parse().unwrap()).unwrap()
    }

    fn sent() -> Sent {
        Sent::new(&name("www.example.com"), RecordType::A, true).unwrap()
    }

    /// An answer to it, as a server would write it.
    fn reply(sent: &Sent, change: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = Message::response(sent.id, OpCode::Query);
        message.add_query(sent.query.clone());
        change(&mut message);
        message.to_vec().unwrap()
    }

    fn alias(from: &str, to: &str) -> Record {
        Record::from_rdata(name(from), 60, RData::CNAME(hickory_proto::rr::rdata::CNAME(name(to))))
    }

    #[test]
    fn every_name_of_a_policy_can_be_asked_for() {
        for text in [
            "a",
            "_dmarc.example.com",
            "a-b.xn--bcher-kva.example",
            &format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61)),
        ] {
            assert_eq!(wire_name(&text.parse().unwrap()).unwrap().to_ascii(), format!("{text}."));
        }
    }

    #[test]
    fn questions_differ_by_number_and_capitals() {
        let all: std::collections::BTreeSet<Vec<u8>> = (0..20).map(|_| sent().bytes).collect();
        assert_eq!(all.len(), 20);
        let capitals: std::collections::BTreeSet<Vec<u8>> = all.iter().map(|bytes| bytes[12..29].to_vec()).collect();
        assert!(capitals.len() > 15);
    }

    #[test]
    fn a_chain_is_followed_to_its_end_and_nothing_else_is_kept() {
        let sent = sent();
        let bytes = reply(&sent, |message| {
            let address = |owner: &str, last: u8| address_record(&name(owner), IpAddr::from([203, 0, 113, last]));
            message.add_answers([
                address("other.example", 66),
                address("b.example", 9),
                alias("a.example", "b.example"),
                alias("www.example.com", "a.example"),
            ]);
            message.add_additional(address("www.example.com", 67));
        });
        let answer = sent.read(&bytes, false).unwrap();
        assert_eq!(answer.addresses().collect::<Vec<_>>(), [IpAddr::from([203, 0, 113, 9])]);
        assert_eq!((answer.records().len(), answer.outcome(), answer.ttl()), (3, Outcome::Found, 0));
    }

    #[test]
    fn chains_that_are_too_long_or_bite_their_tail_are_no_answers() {
        for links in [LONGEST_CHAIN - 1, LONGEST_CHAIN + 1] {
            let sent = sent();
            let bytes = reply(&sent, |message| {
                message.add_answer(alias("www.example.com", "l0.example"));
                message
                    .add_answers((0..links).map(|n| alias(&format!("l{n}.example"), &format!("l{}.example", n + 1))));
                message.add_answer(address_record(&name(&format!("l{links}.example")), IpAddr::from([203, 0, 113, 9])));
            });
            assert_eq!(sent.read(&bytes, false).is_ok(), links < LONGEST_CHAIN, "{links}");
        }
        let sent = sent();
        let tail = reply(&sent, |message| {
            message.add_answers([alias("www.example.com", "a.example"), alias("a.example", "www.example.com")]);
        });
        assert_eq!(sent.read(&tail, true).unwrap_err(), Unusable::AskAnother);
    }

    #[test]
    fn what_is_no_answer_to_the_question_is_told_from_one_that_is_of_no_use() {
        let sent = sent();
        let of =
            |change: &dyn Fn(&mut Message), tcp| sent.read(&reply(&sent, change), tcp).map(|answer| answer.outcome());
        assert_eq!(of(&|_| {}, false), Ok(Outcome::NoData));
        assert_eq!(of(&|message| message.metadata.response_code = ResponseCode::NXDomain, false), Ok(Outcome::NoName));
        assert_eq!(of(&|message| message.metadata.id ^= 1, false), Err(Unusable::NotOurs));
        assert_eq!(of(&|message| message.metadata.message_type = MessageType::Query, false), Err(Unusable::NotOurs));
        assert_eq!(of(&|message| message.queries.clear(), false), Err(Unusable::NotOurs));
        assert_eq!(of(&|message| message.queries[0].query_type = RecordType::AAAA, true), Err(Unusable::NotOurs));
        assert_eq!(of(&|message| message.metadata.truncation = true, false), Err(Unusable::AskOverTcp));
        assert_eq!(
            of(&|message| message.metadata.response_code = ResponseCode::FormErr, false),
            Err(Unusable::AskPlainly)
        );
        assert_eq!(
            of(&|message| message.metadata.response_code = ResponseCode::Refused, true),
            Err(Unusable::AskAnother)
        );
        let lost = |message: &mut Message| message.queries[0].name = name("www.example.com");
        let mut sent = Sent::new(&name("www.example.com"), RecordType::A, true).unwrap();
        sent.query.name = Name::from_ascii("wWw.example.com.").unwrap();
        assert_eq!(sent.read(&reply(&sent, lost), false).unwrap_err(), Unusable::AskOverTcp);
        assert_eq!(sent.read(&reply(&sent, lost), true).unwrap().outcome(), Outcome::NoData);
    }
}
