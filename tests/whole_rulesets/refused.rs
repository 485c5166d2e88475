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
        // What would vanish with ringfence, and what the kernel or the encoder refuses, has its place, too.
        let owned = saved.replace("\"owner\":false", "\"owner\":true");
        refused(
            &owned,
            &["standard input:3:1: `ringfence.ruleset.tables[0]`: ", "has the flag `owner`", "nothing was changed"],
        );
        let (line, _) = place("{\"counter\"");
        refused(
            &saved.replace("\"accept\"", "{\"jump\":\"nowhere\"}"),
            &[
                &format!("standard input:{line}:1: `ringfence.ruleset.rules[0]`: can't add rule inet kept c"),
                "immediate",
                "nothing was changed; table inet kept has no chain `nowhere`",
            ],
        );
        // Of three rules without a handle, in a file that another program has laid out, the second is wrong.
        let mut document: serde_json::Value = serde_json::from_str(&saved).unwrap();
        let rules = document["ringfence"]["ruleset"]["rules"].as_array_mut().unwrap();
        rules[0].as_object_mut().unwrap().remove("handle");
        let mut wrong = rules[0].clone();
        rules.extend([rules[0].clone(), rules[0].clone()]);
        let refused_second = |wrong: &serde_json::Value, expected: &str| {
            let mut document = document.clone();
            document["ringfence"]["ruleset"]["rules"][1] = wrong.clone();
            let text = serde_json::to_string_pretty(&document).unwrap();
            let rules = text.lines().position(|line| line.contains("\"rules\"")).unwrap();
            let first = |line: &&str| *line == "        {";
            let line =
                rules + 1 + text.lines().skip(rules).enumerate().filter(|(_, line)| first(line)).nth(1).unwrap().0;
            let place = format!("standard input:{line}:9: `ringfence.ruleset.rules[1]`: ");
            refused(&text, &[&place, expected, "nothing was changed"]);
        };
        let verdict = serde_json::json!({"verdict": {"jump": "nowhere"}});
        wrong["exprs"] = serde_json::json!([verdict]);
        refused_second(&wrong, "can't add rule inet kept c");
        wrong["exprs"] = vec![serde_json::json!({"verdict": "continue"}); 1000].into();
        refused_second(&wrong, "1000 expressions, more than the kernel's 128");
    });
}
