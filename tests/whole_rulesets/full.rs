//! Sets that are full: their size is a cap.

use crate::nft::{in_namespace, load, nft};
use crate::{able, flush, rules};

const FULL: &str = "
table inet full {
	chain there {
	}
	set one {
		type ipv4_addr
		size 1
		flags interval
		elements = { 198.51.100.0/28 }
	}
	set from-zero {
		type inet_service
		size 2
		flags interval
		elements = { 0-21, 443-65535 }
	}
	set touching {
		type inet_service
		size 3
		flags interval
		elements = { 1-5, 6-15, 16-20 }
	}
	set timed {
		type ipv6_addr
		size 2
		flags interval,timeout
		elements = { 2001:db8::/64 timeout 1d, 2001:db8:1::/64 }
	}
	map values {
		type inet_service : mark
		size 2
		flags interval
		elements = { 1-5 : 0x1, 6-15 : 0x2 }
	}
	map verdicts {
		type ipv4_addr : verdict
		size 2
		flags interval
		elements = { 198.51.100.0/25 : drop, 198.51.100.128/25 : jump there }
	}
	set pairs {
		type ipv4_addr . inet_service
		size 2
		flags interval
		elements = { 198.51.100.0/25 . 1-5, 203.0.113.0/25 . 80 }
	}
	set plain {
		type inet_service
		size 2
		elements = { 22, 443 }
	}
}
";

/// The kernel tells ranges downwards. Made in that order, the last end of a full set finds no room.
#[test]
fn full_sets_of_ranges_come_back() {
    if !able() {
        return;
    }
    in_namespace(&[], || {
        load(FULL).unwrap();
        let listed = nft(&["-s", "list", "ruleset"], None).unwrap();
        let saved = rules(&["save"], None).unwrap();
        flush();
        rules(&["restore"], Some(&saved)).unwrap();
        assert_eq!(nft(&["-s", "list", "ruleset"], None).unwrap(), listed);
        let more = nft(&["add", "element", "inet", "full", "one", "{ 203.0.113.0/28 }"], None).unwrap_err();
        assert!(more.contains("Too many open files in system"), "{more}");
    });
}
