//! What a program of the sandbox asks, and what it is told.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::answer::{Answer, Outcome};
use crate::policy::DnsName;

/// Longest question that is read. A question with its options is some hundred bytes.
pub(super) const LONGEST_QUESTION: usize = 2048;
/// Largest answer in a datagram, whatever the client would take.
const LARGEST_DATAGRAM: u16 = 4096;
/// What a client takes that does not say (RFC 1035, section 4.2.1).
const SMALLEST_DATAGRAM: u16 = 512;
/// The option that says more than an answer's code (RFC 8914).
const EXTENDED_ERROR: u16 = 15;

/// How an answer travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// In a datagram, which is bounded by what the client said that it takes.
    Udp,
    /// On a connection, after its length.
    Tcp,
}

/// One question, read.
#[derive(Debug, Clone)]
pub struct Question {
    id: u16,
    query: Query,
    recursion_desired: bool,
    checking_disabled: bool,
    /// Largest datagram that the client takes, if it speaks EDNS.
    payload: Option<u16>,
}

/// What there is to say of bytes that are no question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// Nothing: they are an answer, or not even a header.
    Silence,
    /// This error.
    Error(Vec<u8>),
}

/// Why a question is not answered with records, for those who ask with EDNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocked {
    /// The policy has no such name, or its addresses may not be handed out.
    Policy,
    /// Only addresses are answered for.
    Kind,
}

impl Question {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// [`Unread`]: what to say instead of an answer. `FORMERR` to what can't be read, or has not exactly one question; `NOTIMP` to other operations
    /// than a query; `REFUSED` to other classes than the internet's; `BADVERS` to EDNS of another version.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unread> {
        let &[id_high, id_low, flags, _, ..] = bytes else { return Err(Unread::Silence) };
        const HEADER: usize = 12;
        const ANSWER: u8 = 0x80;
        if bytes.len() < HEADER || flags & ANSWER != 0 {
            return Err(Unread::Silence);
        }
        let id = u16::from_be_bytes([id_high, id_low]);
        let operation = OpCode::from_u8((flags >> 3) & 0x0f);
        let error = |code| Unread::Error(encoded(&Message::error_msg(id, operation, code)).unwrap_or_default());
        if operation != OpCode::Query {
            return Err(error(ResponseCode::NotImp));
        }
        if bytes.len() > LONGEST_QUESTION {
            return Err(error(ResponseCode::FormErr));
        }
        let Ok(mut message) = Message::from_vec(bytes) else { return Err(error(ResponseCode::FormErr)) };
        let (Some(query), None) = (message.queries.pop(), message.queries.pop()) else {
            return Err(error(ResponseCode::FormErr));
        };
        let question = Self {
            id,
            query,
            recursion_desired: message.metadata.recursion_desired,
            checking_disabled: message.metadata.checking_disabled,
            payload: message.edns.as_ref().map(Edns::max_payload),
        };
        if message.version() > 0 {
            return Err(Unread::Error(question.failure(ResponseCode::BADVERS)));
        }
        if question.query.query_class != DNSClass::IN {
            return Err(Unread::Error(question.failure(ResponseCode::Refused)));
        }
        Ok(question)
    }

    /// The name, if it is one that a policy could hold.
    pub fn name(&self) -> Option<DnsName> {
        self.query.name.to_ascii().parse().ok()
    }

    /// The name as it was written, without its final dot.
    pub fn written(&self) -> String {
        let name = self.query.name.to_ascii();
        name.strip_suffix('.').filter(|name| !name.is_empty()).unwrap_or(&name).to_owned()
    }

    /// What is asked for, as in `A` or `TYPE65280`.
    pub fn kind_name(&self) -> String {
        match self.kind() {
            RecordType::Unknown(number) => format!("TYPE{number}"),
            kind => kind.to_string(),
        }
    }

    pub(super) fn kind(&self) -> RecordType {
        self.query.query_type
    }

    /// An error without a reason.
    pub(super) fn failure(&self, code: ResponseCode) -> Vec<u8> {
        encoded(&self.message(code, None)).unwrap_or_default()
    }

    /// An error that the policy is the reason of.
    pub(super) fn blocked(&self, code: ResponseCode, why: Blocked) -> Vec<u8> {
        encoded(&self.message(code, Some(why))).unwrap_or_default()
    }

    /// Writes an answer whose records are good for `ttl` seconds more.
    pub fn reply(&self, answer: &Answer, ttl: u32, carrier: Carrier) -> Vec<u8> {
        let code = match answer.outcome() {
            Outcome::Found | Outcome::NoData => ResponseCode::NoError,
            Outcome::NoName => ResponseCode::NXDomain,
            Outcome::Failed => ResponseCode::ServFail,
        };
        let mut message = self.message(code, None);
        // The first owner is written as the client wrote it: some compare it byte by byte.
        let owned = |record: &Record| {
            let mut record = record.clone();
            record.ttl = ttl;
            if record.name == self.query.name {
                record.name = self.query.name.clone();
            }
            record
        };
        message.add_answers(answer.records().iter().map(owned));
        message.add_authorities(answer.authority().map(owned));
        let limit = match carrier {
            Carrier::Tcp => u16::MAX,
            Carrier::Udp => self.payload.unwrap_or(0).clamp(SMALLEST_DATAGRAM, LARGEST_DATAGRAM),
        };
        fit(message, usize::from(limit))
    }

    fn message(&self, code: ResponseCode, blocked: Option<Blocked>) -> Message {
        let mut message = Message::error_msg(self.id, OpCode::Query, code);
        message.metadata.message_type = MessageType::Response;
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = self.checking_disabled;
        message.add_query(self.query.clone());
        if self.payload.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(LARGEST_DATAGRAM);
            if let Some(why) = blocked {
                // 15 is "blocked", 21 "not supported".
                let (number, text) = match why {
                    Blocked::Policy => (15u16, "not in the sandbox's policy"),
                    Blocked::Kind => (21, "only addresses are answered for"),
                };
                let data = [&number.to_be_bytes(), text.as_bytes()].concat();
                edns.options_mut().insert(EdnsOption::Unknown(EXTENDED_ERROR, data));
            }
            message.set_edns(edns);
        }
        message
    }
}

/// Writes a message into `limit` bytes: with as many of its records as fit, and marked when that is not all of them.
///
/// Not with none of them: there are clients that take what a marked answer holds and never come back over TCP.
fn fit(mut message: Message, limit: usize) -> Vec<u8> {
    loop {
        match encoded(&message) {
            Some(bytes) if bytes.len() <= limit => return bytes,
            written => {
                // What could not be written at all is longer than any limit.
                let length = written.map_or(2 * usize::from(u16::MAX), |bytes| bytes.len());
                let records = message.answers.len();
                if records == 0 {
                    // A question alone is some 270 bytes at the most, and fits.
                    message = message.truncate();
                    return encoded(&message).unwrap_or_default();
                }
                message.metadata.truncation = true;
                message.authorities.clear();
                message.answers.truncate((records * limit / length).min(records - 1));
            }
        }
    }
}

/// Writes a message; `None` when it is longer than a message can be.
pub(super) fn encoded(message: &Message) -> Option<Vec<u8>> {
    message.to_vec().ok().filter(|bytes| {
        // The encoder stops at the longest message and marks it truncated, which one that was whole is not.
        const TRUNCATED: u8 = 0x02;
        message.metadata.truncation || bytes.get(2).is_some_and(|flags| flags & TRUNCATED == 0)
    })
}

/// Whether anything is answered for it but an error.
pub(super) fn is_answered(kind: RecordType) -> bool {
    matches!(kind, RecordType::A | RecordType::AAAA | RecordType::HTTPS | RecordType::SVCB | RecordType::CNAME)
}

/// The record that says that a name has an address.
pub(super) fn address_record(owner: &Name, address: std::net::IpAddr) -> Record {
    let data = match address {
        std::net::IpAddr::V4(address) => RData::A(address.into()),
        std::net::IpAddr::V6(address) => RData::AAAA(address.into()),
    };
    Record::from_rdata(owner.clone(), 0, data)
}
