//! The built-in resolver's messages: questions of a program inside, answers of a server outside, the host's settings.

use std::net::IpAddr;

use ringfence::dns::{
    Answer, Carrier, Hosts, Outcome, Question, ResolvConf, Sent, Unread, has_other_sources, nsswitch_inside,
};
use ringfence::policy::DnsName;

/// Longest time that a record is believed.
const DAY: u32 = 24 * 60 * 60;

/// Reads the bytes as a question, as an answer, as the answer to a question that was just asked, and as settings. Whatever they hold, an error
/// is one to this question, an answer fits where it is to go, and settings lead to one server.
pub fn dns(bytes: &[u8]) {
    let name: DnsName = "www.example.com".parse().expect("a name");
    for ipv6 in [false, true] {
        let sent = Sent::for_addresses(&name, ipv6).expect("a question");
        let ours = Question::parse(sent.bytes()).expect("our own question");
        assert_eq!(ours.name().as_ref(), Some(&name));
        for tcp in [false, true] {
            // As it is, and as from somebody who knows number and name; what follows is the records.
            let mut known = sent.bytes()[..2].to_vec();
            known.extend(bytes.get(..10).unwrap_or(&[0x81, 0x80, 0, 1, 0, 9, 0, 0, 0, 0]));
            known[2] |= 0x80;
            (known[4], known[5]) = (0, 1);
            let end = sent.bytes().len() - 11;
            known.extend(&sent.bytes()[12..end]);
            known.extend(bytes.get(10..).unwrap_or_default());
            for message in [bytes, &known] {
                if let Ok(answer) = sent.read(message, tcp) {
                    believed(&ours, &answer, ipv6);
                }
            }
        }
    }
    match Question::parse(bytes) {
        Ok(question) => {
            assert!(!question.written().is_empty() && !question.kind_name().is_empty());
            let answer = Sent::for_addresses(&name, false).and_then(|sent| sent.read(bytes, true).ok());
            assert!(answer.is_none(), "a question is no answer");
        }
        Err(Unread::Error(error)) => {
            assert_eq!(error[..2], bytes[..2]);
            assert!(error[2] & 0x80 != 0 && error.len() <= 600);
        }
        Err(Unread::Silence) => assert!(bytes.len() < 12 || bytes[2] & 0x80 != 0),
    }
    settings(&String::from_utf8_lossy(bytes));
}

fn believed(question: &Question, answer: &Answer, ipv6: bool) {
    assert!(answer.ttl() <= DAY);
    let addresses: Vec<IpAddr> = answer.addresses().collect();
    assert!(addresses.iter().all(|address| address.is_ipv6() == ipv6));
    assert_eq!(addresses.is_empty(), answer.outcome() != Outcome::Found);
    for carrier in [Carrier::Udp, Carrier::Tcp] {
        let reply = question.reply(answer, 7, carrier);
        // Our own questions say that they take 1,232 bytes.
        let limit = if carrier == Carrier::Udp { 1232 } else { 65535 };
        assert!((12..=limit).contains(&reply.len()), "{}", reply.len());
        assert!(matches!(Question::parse(&reply), Err(Unread::Silence)), "an answer is no question");
        if reply[2] & 0x02 == 0 && carrier == Carrier::Tcp {
            // What is handed on says what was believed.
            let count = usize::from(u16::from_be_bytes([reply[6], reply[7]]));
            assert!(count >= addresses.len());
        }
    }
}

fn settings(text: &str) {
    let conf = ResolvConf::parse(text);
    assert!(!conf.servers.is_empty() && conf.ndots <= 15 && (1..=5).contains(&conf.attempts));
    for server in &conf.servers {
        assert_eq!(server.at(|_| None).port(), 53);
    }
    let inside = ResolvConf::parse(&conf.inside(IpAddr::from([127, 0, 0, 1])));
    assert_eq!(inside.servers, ResolvConf::default().servers);
    assert_eq!((&inside.search, inside.ndots), (&conf.search, conf.ndots));
    let name: DnsName = "db".parse().expect("a name");
    assert!(conf.candidates(&name).contains(&name));
    let _ = Hosts::parse(text).find(&name);
    assert!(!has_other_sources(&nsswitch_inside(text, true)));
}
