//! Documents that `restore` does not take: they change nothing, and it says what is wrong and where.

use std::process::Command;

use crate::nft::{in_namespace, load, run};
use crate::shot::{dump, raw_lines};
use crate::{able, program, rules};

#[test]
fn what_cannot_be_restored_changes_nothing() {
    if !able() {
        return;
    }
    in_namespace(&[], || {
        load("table inet kept {\nchain c {\ncounter accept\n}\n}\n").unwrap();
        let saved = rules(&["save"], None).unwrap();
        let before = raw_lines(&dump());
        let refused_bytes = |document: &[u8], expected: &[&str]| {
            let error = run(Command::new(program()).args(["rules", "restore"]), Some(document))
                .expect_err("a document with a mistake");
            assert!(error.starts_with("exit status: 125"), "{error}");
            for part in expected {
                assert!(error.contains(part), "{error}\nlacks {part}");
            }
            assert!(raw_lines(&dump()) == before, "{error}");
        };
        let refused = |document: &str, expected: &[&str]| refused_bytes(document.as_bytes(), expected);
        refused_bytes(b"{\n\"\xff", &["standard input:2:2: not UTF-8", "nothing was changed"]);
        refused("", &["standard input:1:0", "EOF"]);
        refused(
            &saved.replace("\"inet\"", "\"internet\""),
            &["standard input:3:", "tables[0].id.family", "found `internet`"],
        );
        refused(&saved.replace("\"counter\"", "\"count\""), &["rules[0].exprs[0]", "found `count`, expected one of"]);
        refused(&saved.replace("\"packets\":0", "\"packets\":-1"), &["packets", "expected a whole number from 0 to"]);
        let place = |part: &str| {
            let before = &saved[..saved.find(part).unwrap()];
            let (line, start) = (before.matches('\n').count() + 1, before.rfind('\n').map_or(0, |end| end + 1));
            (line, before.len() - start + 1)
        };
        let (line, column) = place("0,\"bytes\"");
        refused(
            &saved.replace("\"packets\":0", "\"paquets\":0"),
            &[
                &format!("standard input:{line}:{column}: `ringfence.ruleset.rules[0].exprs[0].counter.paquets`:"),
                "found key `paquets`, expected `packets` or `bytes`",
                "nothing was changed",
            ],
        );
        refused(
            &saved.replace("\"schema\":1", "\"schema\":9"),
            &["standard input:1:24: `ringfence.schema`: found schema 9, expected 1"],
        );
        refused(&saved.replace("\n\"objects\":[],", ""), &["`ringfence.ruleset`: found no key `objects`"]);
        // What the kernel refuses, it refuses as a whole.
        refused(&saved.replace("\"accept\"", "{\"jump\":\"nowhere\"}"), &["add rule inet kept c", "immediate"]);
        let owned = saved.replace("\"owner\":false", "\"owner\":true");
        refused(&owned, &["table inet kept has the flag `owner`"]);
    });
}
