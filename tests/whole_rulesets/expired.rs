//! Sets of ranges of which some have run out.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::nft::{in_namespace, load, nft};
use crate::{able, flush, rules};

/// The kernel tells the ends of such ranges until a commit clears them away, and refuses to make them.
#[test]
fn ranges_that_ran_out_are_left_out() {
    if !able() {
        return;
    }
    in_namespace(&[], || {
        load(
            "table inet t {\nset s {\ntype ipv4_addr; flags interval,timeout; timeout 10m; elements = { \
             198.51.100.1 timeout 1s, 198.51.100.7 timeout 1h, 198.51.100.8 timeout 1s, 203.0.113.0/24 timeout 1s }\n}\n}\n",
        )
        .unwrap();
        let left = || nft(&["list", "set", "inet", "t", "s"], None).unwrap();
        let started = Instant::now();
        while left().contains("timeout 1s") {
            assert!(started.elapsed() < Duration::from_secs(120), "{}", left());
            sleep(Duration::from_millis(50));
        }
        let saved = rules(&["save"], None).unwrap();
        let listed = rules(&["list"], None).unwrap();
        let alone = |text: &str| {
            assert!(text.contains("198.51.100.7 timeout 1h"), "{text}");
            for gone in ["198.51.100.1 ", "198.51.100.8", "203.0.113"] {
                assert!(!text.contains(gone), "{text}");
            }
        };
        alone(&listed);
        flush();
        rules(&["restore"], Some(&saved)).unwrap();
        alone(&left());

        // A file that has such an end in it.
        let mut document: Value = serde_json::from_str(&saved).unwrap();
        let elements = document["ringfence"]["ruleset"]["elements"][0][2].as_array_mut().unwrap();
        for end in [[198, 51, 100, 2], [198, 51, 100, 9], [203, 0, 114, 0]] {
            elements.push(json!({ "key": end, "interval_end": true }));
        }
        flush();
        rules(&["restore"], Some(&document.to_string())).unwrap();
        alone(&left());
    });
}
