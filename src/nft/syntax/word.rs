//! Words of nft(8)'s language: what may stand as a name, and what between quotes.

use crate::nft::{KnownObject, ObjectType};

/// Words that nft(8)'s grammar keeps for itself where a table, chain or set is named.
///
/// Found by asking nft 1.0.6 with the words of its grammar, and adding words of later versions. A word that is missing here
/// makes nft(8) refuse the text; it can't make it mean something else. `tests/nft_syntax` asks again.
const RESERVED: &[&str] = &[
    "accept",
    "add",
    "ah",
    "all",
    "and",
    "arp",
    "auto-merge",
    "bridge",
    "cgroup",
    "chain",
    "comment",
    "comp",
    "constant",
    "continue",
    "counter",
    "cpu",
    "create",
    "ct",
    "day",
    "dccp",
    "define",
    "delete",
    "describe",
    "destroy",
    "device",
    "devices",
    "dnat",
    "drop",
    "dst",
    "dup",
    "dynamic",
    "ecn",
    "element",
    "elements",
    "eq",
    "esp",
    "ether",
    "exists",
    "expires",
    "export",
    "exthdr",
    "fib",
    "flags",
    "flow",
    "flowtable",
    "flush",
    "frag",
    "fwd",
    "gc-interval",
    "ge",
    "geneve",
    "get",
    "goto",
    "gre",
    "gretap",
    "gt",
    "handle",
    "hbh",
    "hook",
    "hour",
    "ibriport",
    "ibrname",
    "icmp",
    "icmpv6",
    "igmp",
    "iif",
    "iifgroup",
    "iifname",
    "iiftype",
    "import",
    "include",
    "index",
    "inet",
    "inner",
    "insert",
    "interval",
    "ip",
    "ip6",
    "ipsec",
    "jhash",
    "jump",
    "last",
    "le",
    "limit",
    "list",
    "ll",
    "log",
    "lshift",
    "lt",
    "map",
    "mark",
    "masquerade",
    "meta",
    "meter",
    "mh",
    "missing",
    "monitor",
    "ne",
    "netdev",
    "nftrace",
    "nh",
    "not",
    "notrack",
    "numgen",
    "obriport",
    "obrname",
    "offload",
    "oif",
    "oifgroup",
    "oifname",
    "oiftype",
    "or",
    "osf",
    "pkttype",
    "policy",
    "position",
    "priority",
    "queue",
    "quota",
    "random",
    "redefine",
    "redirect",
    "reject",
    "rename",
    "replace",
    "reset",
    "return",
    "rshift",
    "rt",
    "rt0",
    "rt2",
    "rtclassid",
    "rule",
    "ruleset",
    "sctp",
    "secmark",
    "secpath",
    "set",
    "size",
    "skgid",
    "skuid",
    "snat",
    "socket",
    "srh",
    "string",
    "symhash",
    "synproxy",
    "table",
    "tcp",
    "th",
    "time",
    "timeout",
    "tproxy",
    "tunnel",
    "type",
    "typeof",
    "udp",
    "udplite",
    "undefine",
    "update",
    "vlan",
    "vmap",
    "vxlan",
    "xfrm",
    "xor",
    "xt",
];

/// Words that the grammar keeps for itself behind `counter`.
const OF_COUNTERS: &[&str] = &["bytes", "name", "packets"];
/// Words that it keeps for itself behind `limit`.
const OF_LIMITS: &[&str] = &["burst", "bytes", "minute", "name", "over", "packets", "rate", "second", "week"];
/// Words that it keeps for itself behind `quota`.
const OF_QUOTAS: &[&str] = &["bytes", "name", "over", "until", "used"];
/// Words that it keeps for itself behind `synproxy`.
const OF_SYNPROXIES: &[&str] = &["maxseg", "mss", "name", "sack-perm", "sack-permitted", "timestamp", "wscale"];
/// Words that it keeps for itself behind `ct`.
const OF_CONNTRACK: &[&str] = &[
    "avgpkt",
    "bytes",
    "count",
    "daddr",
    "direction",
    "dport",
    "event",
    "expectation",
    "expiration",
    "helper",
    "helpers",
    "id",
    "l3proto",
    "label",
    "original",
    "over",
    "packets",
    "proto-dst",
    "proto-src",
    "protocol",
    "reply",
    "saddr",
    "state",
    "status",
    "zone",
];

/// The name of an object of a type, behind whose word nft(8) keeps more words for itself.
pub(super) fn object(kind: ObjectType, object: &str) -> Result<&str, String> {
    let reserved = match kind {
        ObjectType::Known(KnownObject::Counter) => OF_COUNTERS,
        ObjectType::Known(KnownObject::Limit) => OF_LIMITS,
        ObjectType::Known(KnownObject::Quota) => OF_QUOTAS,
        ObjectType::Known(KnownObject::Synproxy) => OF_SYNPROXIES,
        ObjectType::Known(KnownObject::CtHelper | KnownObject::CtTimeout | KnownObject::CtExpectation) => OF_CONNTRACK,
        _ => &[],
    };
    if reserved.contains(&object) {
        return Err(format!("{} is a word of nft(8)'s own behind `{kind}`", literal(object)));
    }
    name(object)
}

/// The name as nft(8) takes it, which has no way to quote one.
pub(super) fn name(name: &str) -> Result<&str, String> {
    let mut chars = name.chars();
    let head = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    let tail = chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'));
    if !(head && tail) {
        return Err(format!(
            "nft(8) takes names of letters, digits and _ - . / that start with a letter or _, not {}",
            literal(name)
        ));
    }
    if RESERVED.binary_search(&name).is_ok() {
        return Err(format!("{} is a word of nft(8)'s own", literal(name)));
    }
    Ok(name)
}

/// The text between double quotes. nft(8) knows no escapes there, so what would end the quotes can't be shown.
pub(super) fn quoted(text: &str) -> Result<String, String> {
    match text.chars().find(|&c| c == '"' || c.is_control()) {
        Some('"') => Err(format!("nft(8) has no way to write the double quote in {}", literal(text))),
        Some(_) => Err(format!("the control character in {} would reach the reader's terminal", literal(text))),
        None => Ok(format!("\"{text}\"")),
    }
}

/// A prefix of a log statement. Unlike in a comment, nft(8) replaces `$name` in it.
pub(super) fn log_prefix(text: &str) -> Result<String, String> {
    if text.contains('$') {
        return Err(format!("nft(8) takes the dollar sign in the log prefix {} for a variable", literal(text)));
    }
    if text.len() > crate::nft::Log::MAX_PREFIX {
        return Err(format!("the log prefix {} is longer than the kernel's 127 bytes", literal(text)));
    }
    quoted(text)
}

/// The name of an interface, exactly. A star at its end would make a pattern of it, so it is escaped.
pub(super) fn interface(name: &str) -> Result<String, String> {
    if name.contains('\\') {
        return Err(format!("nft(8) takes the backslash in {} for an escape", literal(name)));
    }
    match name.strip_suffix('*') {
        Some(head) => quoted(&format!("{head}\\*")),
        None => quoted(name),
    }
}

/// The text for the eye, with everything escaped that could end a line or a quotation.
pub(super) fn literal(text: &str) -> String {
    format!("`{}`", text.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_words_are_sorted_for_the_search() {
        assert!(RESERVED.is_sorted());
        assert!(name("counter").is_err());
        assert_eq!(name("ringfence-7.a/b"), Ok("ringfence-7.a/b"));
    }

    #[test]
    fn hostile_words_do_not_break_out() {
        for word in ["x { }", "", "1x", "a\nb", "a;b", "-a", "é", "a b", "$x", "@x", "a\"b", "."] {
            assert!(name(word).is_err(), "{word:?}");
        }
        assert!(quoted("a\" ; flush ruleset ; \"").is_err());
        assert!(quoted("a\nflush ruleset").is_err());
        assert_eq!(quoted("{ } ; # \\ $x"), Ok("\"{ } ; # \\ $x\"".to_owned()));
        assert!(log_prefix("$x").is_err());
        assert_eq!(interface("veth*"), Ok("\"veth\\*\"".to_owned()));
    }
}
