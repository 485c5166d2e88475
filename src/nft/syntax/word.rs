//! Words of nft(8)'s language: what may stand as a name, and what between quotes.

/// Words that nft(8)'s grammar keeps for itself where a table, chain or set is named.
///
/// Found by asking nft 1.0.6 with the words of its grammar, and adding words of later versions. A word that is missing here
/// makes nft(8) refuse the text; it can't make it mean something else.
const RESERVED: &[&str] = &[
    "accept",
    "add",
    "ah",
    "all",
    "and",
    "arp",
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
    "update",
    "vlan",
    "vmap",
    "vxlan",
    "xfrm",
    "xor",
    "xt",
];

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
