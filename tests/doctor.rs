//! `ringfence doctor` in the situations that it is for: as root, in a user namespace, as nobody, with a read-only /proc/sys, in an
//! empty image; next to other people's firewalls; and that it leaves everything as it was.
//!
//! Each test makes a network namespace of its own and starts the program in it. What else a situation takes is set up by unshare(1),
//! mount(8) and setpriv(1), which are in every Debian.
#![cfg(feature = "cli")]

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use ringfence::kernel::netns::Netns;
use ringfence::kernel::{nftables, rtnetlink};
use ringfence::nft::*;
use serde_json::Value;

const RINGFENCE: &str = env!("CARGO_BIN_EXE_ringfence");

/// Says so past the test harness, which hides what a passing test prints.
fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {}: {why}", std::thread::current().name().unwrap_or_default());
    assert_ne!(std::env::var("RINGFENCE_TEST_KERNEL").as_deref(), Ok("require"), "{why}");
}

/// Runs a test inside a namespace of its own that has nothing but a loopback interface.
fn outer(test: impl FnOnce() + Send) {
    if let Err(error) = Netns::create_with(test) {
        skip(&format!("no network namespace to be had: {}", error.chain()));
    }
}

/// Runs a shell script in the thread's namespace; `$1` is the program.
fn shell(script: &str) -> Output {
    Command::new("sh")
        .args(["-euc", script, "sh", RINGFENCE])
        .env_remove("SUDO_UID")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// What `ringfence doctor --format json` says when a script runs it, and its exit status.
fn json(script: &str) -> (Value, i32) {
    let output = shell(script);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(error, "", "nothing belongs on standard error");
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {:?}", output.stdout));
    (report, output.status.code().unwrap())
}

fn checks(report: &Value) -> &Vec<Value> {
    report["checks"].as_array().unwrap()
}

fn status<'a>(report: &'a Value, name: &str) -> &'a str {
    let check = checks(report).iter().find(|check| check["name"] == name);
    check.unwrap_or_else(|| panic!("no check {name}"))["status"].as_str().unwrap()
}

fn fact<'a>(report: &'a Value, name: &str) -> Option<&'a str> {
    report["facts"].as_array().unwrap().iter().find(|fact| fact["name"] == name)?["value"].as_str()
}

/// Names of the checks of that status.
fn of_status<'a>(report: &'a Value, status: &str) -> BTreeSet<&'a str> {
    checks(report)
        .iter()
        .filter(|check| check["status"] == status)
        .map(|check| check["name"].as_str().unwrap())
        .collect()
}

/// What must hold of every report.
fn is_sound(report: &Value, exit: i32) {
    assert_eq!(report["schema"], 1);
    let mut works = true;
    for check in checks(report) {
        for key in ["name", "needed_for", "without", "how"] {
            assert!(check[key].as_str().is_some_and(|text| !text.is_empty()), "{check} has no {key}");
        }
        let status = check["status"].as_str().unwrap();
        assert!(["yes", "no", "unknown"].contains(&status), "{check}");
        works &= status == "yes" || !check["required"].as_bool().unwrap();
        let reason = check["detail"].is_string() || check["blocked_by"].is_string();
        assert!(status == "yes" || reason, "{check} does not say why");
        assert!(
            check["blocked_by"].is_null() || status == "unknown",
            "{check} was not tried, and is said to be {status}"
        );
    }
    assert_eq!((report["works"].as_bool().unwrap(), exit), (works, i32::from(!works)));
}

/// Links, addresses, routes, tables and forwarding of the thread's namespace.
fn state() -> String {
    let mut links = rtnetlink::Socket::open().unwrap();
    let mut rules = nftables::Socket::open().unwrap();
    format!(
        "{:?} {:?} {:?} {:?} {:?}",
        links.links().unwrap(),
        links.addresses().unwrap(),
        links.routes().unwrap(),
        rules.ruleset().unwrap(),
        rules.generation().unwrap(),
    )
}

#[test]
fn as_root_everything_is_tried_and_nothing_is_changed() {
    outer(|| {
        let before = state();
        let (report, exit) = json("\"$1\" doctor --format json");
        is_sound(&report, exit);
        let missing = of_status(&report, "no");
        if report["works"] == false {
            return skip(&format!("this kernel lacks {missing:?}"));
        }
        assert_eq!(exit, 0);
        assert!(of_status(&report, "unknown").is_empty(), "{:?}", of_status(&report, "unknown"));
        assert_eq!(report["foreign"], Value::Array(Vec::new()));
        // The generation is part of it: not even a commit that changes nothing was made.
        assert_eq!(state(), before);
        // It says yes: then it must be true.
        assert_eq!(shell("\"$1\" run -- sh -c 'exit 7'").status.code(), Some(7));
    });
}

#[test]
fn text_has_a_line_a_check_and_a_verdict_at_the_end() {
    outer(|| {
        let output = shell("\"$1\" doctor");
        let text = String::from_utf8(output.stdout).unwrap();
        let (report, exit) = json("\"$1\" doctor --format json");
        for check in checks(&report) {
            let line = format!("  {:<7}  {}", check["status"].as_str().unwrap(), check["name"].as_str().unwrap());
            assert_eq!(text.lines().filter(|l| *l == line || l.starts_with(&format!("{line} ("))).count(), 1, "{line}");
        }
        let last = text.lines().last().unwrap();
        assert!(last.starts_with(if exit == 0 {
            "`ringfence run` works here"
        } else {
            "`ringfence run` does not work here"
        }));
        assert!(text.contains("legacy iptables, are not seen"));
        assert_eq!(output.status.code(), Some(exit));
        assert!(text.is_ascii() && !text.contains('\x1b'));
    });
}

#[test]
fn nobody_is_told_what_is_missing_and_what_could_not_be_told() {
    outer(|| {
        let nobody = "t=$(mktemp -d); trap 'rm -rf $t' EXIT; chmod 755 $t; cp \"$1\" $t/r; \
                      setpriv --reuid 65534 --regid 65534 --clear-groups $t/r doctor --format json";
        let (report, exit) = json(nobody);
        is_sound(&report, exit);
        assert_eq!((exit, &report["works"]), (1, &Value::Bool(false)));
        for name in ["capabilities", "CAP_NET_ADMIN on the host", "entering the host's namespace", "network namespaces"]
        {
            assert_eq!(status(&report, name), "no", "{name}");
        }
        // Nobody knows whether the kernel has them: it is not said that it has not.
        for name in ["veth", "nf_tables", "netdev egress hook", "owner tables", "conntrack", "the whole fence"] {
            assert_eq!(status(&report, name), "unknown", "{name}");
        }
        assert_eq!(status(&report, "no_new_privs"), "yes");
        assert_eq!(report["foreign"], Value::Null);
        assert!(fact(&report, "other tables").unwrap().starts_with("unknown"));
    });
}

#[test]
fn a_user_namespace_with_a_network_namespace_is_enough() {
    outer(|| {
        if !shell("unshare --user --map-root-user --net true").status.success() {
            return skip("no user namespace to be had");
        }
        let (report, exit) = json("unshare --user --map-root-user --net \"$1\" doctor --format json");
        is_sound(&report, exit);
        if json("\"$1\" doctor --format json").1 != 0 {
            return skip("not even root has all it takes");
        }
        assert_eq!(exit, 0, "{:?}", of_status(&report, "no"));
        assert!(fact(&report, "user namespace").unwrap().starts_with("not the initial one"));
        // One user is mapped, and no group may be set: that is known, and named.
        assert_eq!(status(&report, "becoming another user"), "no");
    });
}

#[test]
fn a_user_namespace_alone_is_not() {
    outer(|| {
        if !shell("unshare --user --map-root-user true").status.success() {
            return skip("no user namespace to be had");
        }
        let (report, exit) = json("unshare --user --map-root-user \"$1\" doctor --format json");
        is_sound(&report, exit);
        assert_eq!(exit, 1);
        let needed: Vec<&str> = checks(&report)
            .iter()
            .filter(|c| c["required"] == true && c["status"] != "yes")
            .map(|c| c["name"].as_str().unwrap())
            .collect();
        assert_eq!(needed, ["CAP_NET_ADMIN on the host", "entering the host's namespace"]);
    });
}

#[test]
fn a_limit_that_is_reached_is_not_called_a_missing_feature() {
    outer(|| {
        // A user namespace's own limit, so nobody else's is touched.
        let script = "unshare --user --map-root-user --net --mount sh -euc 'echo 0 > /proc/sys/user/max_net_namespaces; \
                      exec \"$1\" doctor --format json' sh \"$1\"";
        if !shell("unshare --user --map-root-user --net sh -c 'echo 0 > /proc/sys/user/max_net_namespaces'")
            .status
            .success()
        {
            return skip("no user namespace to be had, or its limits can't be set");
        }
        let (report, exit) = json(script);
        is_sound(&report, exit);
        assert_eq!(exit, 1);
        let check = checks(&report).iter().find(|check| check["name"] == "network namespaces").unwrap();
        assert_eq!(check["status"], "unknown");
        assert!(check["detail"].as_str().unwrap().contains("max_net_namespaces"), "{check}");
        assert!(of_status(&report, "no").is_empty(), "{:?}", of_status(&report, "no"));
    });
}

#[test]
fn one_capability_less_is_named() {
    outer(|| {
        let (report, exit) = json("setpriv --bounding-set=-setpcap --inh-caps=-setpcap \"$1\" doctor --format json");
        is_sound(&report, exit);
        assert_eq!(exit, 1);
        let check = checks(&report).iter().find(|check| check["name"] == "capabilities").unwrap();
        assert_eq!((&check["status"], &check["detail"]), (&"no".into(), &"missing: CAP_SETPCAP".into()));
        // Tried, not only counted.
        assert_eq!(status(&report, "a command in a mount namespace"), "no");
    });
}

#[test]
fn a_read_only_proc_sys_is_no_hindrance() {
    outer(|| {
        let script = "unshare --mount sh -euc 'mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys; \
                      exec \"$1\" doctor --format json' sh \"$1\"";
        let (report, exit) = json(script);
        is_sound(&report, exit);
        let (plain, plainly) = json("\"$1\" doctor --format json");
        assert_eq!(exit, plainly);
        assert_eq!(fact(&report, "/proc"), Some("mounted, /proc/sys read-only"));
        assert_eq!(of_status(&report, "yes"), of_status(&plain, "yes"));
    });
}

#[test]
fn a_masked_proc_is_what_share_pid_is_for() {
    outer(|| {
        // As containers do: something of /proc is covered, so the kernel refuses a new one to a user namespace.
        let masked = |command: &str| {
            format!(
                "unshare --mount sh -euc 'mount -t tmpfs none /proc/fs; \
                 exec unshare --user --map-root-user --net --mount {command}' sh \"$1\""
            )
        };
        if !shell(&masked("true")).status.success() {
            return skip("/proc can't be masked here, or there is no user namespace to be had");
        }
        let (report, exit) = json(&masked("\"$1\" doctor --format json"));
        is_sound(&report, exit);
        let check = checks(&report).iter().find(|check| check["name"] == "PID namespace with its own /proc").unwrap();
        assert_eq!(check["status"], "no");
        assert!(check["without"].as_str().unwrap().contains("--share-pid"));
        assert_eq!(status(&report, "a command in a mount namespace"), "yes");
        let shared = shell(&masked("\"$1\" run --share-pid -- true"));
        assert!(shared.status.success(), "{}", String::from_utf8_lossy(&shared.stderr));
    });
}

/// A base chain in a table of its own.
fn chain(into: &mut Ruleset, table: &str, flags: TableFlags, hook: Hook, policy: ChainPolicy) {
    let id = TableId { family: Family::Ip, name: TableName::new(table).unwrap() };
    into.tables.push(Table { flags, ..Table::new(id.clone()) });
    let base = BaseChain { kind: ChainType::Filter, hook, priority: Priority(-10), policy, devices: Vec::new() };
    let name = ChainName::new("FORWARD").unwrap();
    into.chains.push(Chain { base: Some(base), ..Chain::new(&id, &name) });
}

#[test]
fn chains_of_others_that_drop_by_policy_are_named() {
    outer(|| {
        let mut others = Ruleset::default();
        chain(&mut others, "docker", TableFlags::default(), Hook::Forward, ChainPolicy::Drop);
        chain(&mut others, "firewall", TableFlags::default(), Hook::Input, ChainPolicy::Drop);
        chain(&mut others, "open", TableFlags::default(), Hook::Forward, ChainPolicy::Accept);
        let dormant = TableFlags { dormant: true, ..TableFlags::default() };
        chain(&mut others, "asleep", dormant, Hook::Forward, ChainPolicy::Drop);
        if let Err(error) = nftables::Socket::open().unwrap().commit(&others.create()) {
            return skip(&error.chain());
        }
        let (report, exit) = json("\"$1\" doctor --format json");
        is_sound(&report, exit);
        let foreign = report["foreign"].as_array().unwrap();
        let named: Vec<&str> = foreign.iter().map(|chain| chain["table"].as_str().unwrap()).collect();
        assert_eq!(named, ["firewall", "docker"]);
        let docker = &foreign[1];
        assert_eq!(
            (&docker["family"], &docker["chain"], &docker["hook"], &docker["priority"], &docker["policy"]),
            (&"ip".into(), &"FORWARD".into(), &"forward".into(), &(-10).into(), &"drop".into())
        );
        let text = String::from_utf8(shell("\"$1\" doctor || true").stdout).unwrap();
        assert!(
            text.contains("  ip docker FORWARD: hook forward, priority -10, policy drop; may stop direct endpoints\n"),
            "{text}"
        );
    });
}

#[test]
fn rules_and_chains_of_every_kind_don_t_hide_those_that_drop() {
    outer(|| {
        let script = "add table inet other; add chain inet other forward { type filter hook forward priority 5; policy drop; }; \
                      add rule inet other forward fib saddr type local limit rate 1/second counter accept; \
                      add rule inet other forward tcp dport 22 jump { accept ; }";
        let made = Command::new("nft").arg(script).output();
        if !made.is_ok_and(|made| made.status.success()) {
            return skip("nft(8) is not there, or would not make the rules");
        }
        let (report, exit) = json("\"$1\" doctor --format json");
        is_sound(&report, exit);
        assert_eq!(report["foreign"][0]["table"], "other");
        assert_eq!(fact(&report, "chains that could not be read"), None);
    });
}

#[test]
fn whoever_reads_the_first_line_alone_breaks_nothing() {
    outer(|| {
        let output = shell("\"$1\" doctor | head -n 1; \"$1\" doctor > /dev/full || echo $? >&2");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "Needed by every `ringfence run`\n");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(error.lines().last(), Some("125"), "{error}");
        assert!(error.starts_with("ringfence: can't write to standard output"), "{error}");
    });
}
