//! Whole rulesets, loaded by nft(8), against everything that takes one up and puts it back.
//!
//! `tests/golden/rulesets` has several hundred scripts, each about one thing; [`generate`] makes more, of any size. Each is loaded into a
//! scratch namespace and seen in three ways: as nft(8) lists it, as it lists it in JSON, and as the kernel dumps it. Then it is
//! taken away, put back, and seen again.
//!
//! - `RINGFENCE_RULESETS=NAME`: only scripts whose name contains this, with all that differs
//! - `RINGFENCE_RULESET_SEEDS=N`: how many rulesets to generate
//! - `RINGFENCE_RULESETS_FOLDER=PATH`: scripts from elsewhere, `*.nft`, for the test that takes them
//! - `RINGFENCE_RULESETS_PROGRAM=PATH`: another `ringfence` to try
#![cfg(feature = "cli")]

mod becomes;
mod beyond;
mod expired;
mod full;
mod generate;
mod listed;
mod netlink;
mod nft;
mod refused;
mod replay;
mod rules;
mod shot;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use std::{env, fs};

use netlink::{Message, Netfilter};
use nft::{in_namespace, in_parallel, links, load, nft, run};
use replay::ASYMMETRIES;
use shot::{Shot, difference, dump, raw_lines};

/// A ruleset to try.
#[derive(Debug, Clone)]
struct Script {
    name: String,
    text: String,
}

/// How a ruleset came back: what differs, seen in three ways, or why it did not come back at all.
#[derive(Debug, Clone)]
enum Back {
    Seen { text: Option<String>, json: Option<String>, raw: Option<String> },
    Refused(String),
}

impl Back {
    fn compare(had: &Shot, got: &Shot, most: usize) -> Self {
        Self::Seen {
            text: difference(&had.text, &got.text, most),
            json: difference(&had.json, &got.json, most),
            raw: difference(&had.raw, &got.raw, most),
        }
    }

    /// Whether listing, JSON and dump are the same.
    fn same(&self) -> [bool; 3] {
        match self {
            Self::Seen { text, json, raw } => [text.is_none(), json.is_none(), raw.is_none()],
            Self::Refused(_) => [false; 3],
        }
    }

    fn told(&self) -> String {
        match self {
            Self::Refused(why) => format!("    refused: {}\n", why.chars().take(600).collect::<String>()),
            Self::Seen { text, json, raw } => [("listing", text), ("JSON", json), ("dump", raw)]
                .into_iter()
                .filter_map(|(what, differs)| differs.as_ref().map(|differs| format!("    {what}:\n{differs}")))
                .collect(),
        }
    }
}

/// What is seen of one script.
#[derive(Debug)]
struct Outcome {
    name: String,
    rules: usize,
    seconds: f32,
    /// By way of taking it up and putting it back.
    ways: Vec<(&'static str, Back)>,
    /// By asymmetry that occurs: whether the kernel minded.
    minded: BTreeMap<usize, bool>,
}

impl Outcome {
    fn unloaded(script: &Script, why: &str) -> Self {
        let back = Back::Refused(format!("nft -f: {why}"));
        let ways = WAYS.map(|way| (way, back.clone())).to_vec();
        Self { name: script.name.clone(), rules: 0, seconds: 0.0, ways, minded: BTreeMap::new() }
    }
}

/// Ways of taking a ruleset up and putting it back.
const WAYS: [&str; 2] = ["raw replay", "save, restore"];

/// Says past the test harness, which hides what a passing test prints.
fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Whether the tests can run here. If they can't, says so, and fails where they must.
fn able() -> bool {
    let why = match (nft(&["--version"], None), ringfence::kernel::netns::Netns::new()) {
        (Ok(_), Ok(_)) => return true,
        (Err(error), _) => format!("nft(8) is needed: {error}"),
        (_, Err(error)) => format!("a network namespace is needed: {}", error.chain()),
    };
    tell(&format!("SKIPPED rulesets: {why}"));
    assert_ne!(env::var("RINGFENCE_TEST_KERNEL").as_deref(), Ok("require"), "{why}");
    false
}

fn wanted(name: &str) -> bool {
    env::var("RINGFENCE_RULESETS").map_or(true, |part| name.contains(&part))
}

fn most_lines() -> usize {
    if env::var_os("RINGFENCE_RULESETS").is_some() { 200 } else { 4 }
}

fn golden(folder: &str) -> Vec<Script> {
    scripts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/rulesets").join(folder))
}

/// The scripts of a folder, as far as they are wanted.
fn scripts(folder: &Path) -> Vec<Script> {
    let mut scripts: Vec<Script> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "nft"))
        .map(|path| Script {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            text: fs::read_to_string(&path).unwrap(),
        })
        .filter(|script| wanted(&script.name))
        .collect();
    scripts.sort_by(|one, other| one.name.cmp(&other.name));
    scripts
}

fn program() -> String {
    env::var("RINGFENCE_RULESETS_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_ringfence").to_owned())
}

/// Runs `ringfence rules …` in the namespace of the calling thread.
fn rules(arguments: &[&str], input: Option<&str>) -> Result<String, String> {
    run(Command::new(program()).arg("rules").args(arguments), input.map(str::as_bytes))
}

/// Takes everything away, in the namespace of the calling thread.
fn flush() {
    /// NFT_MSG_DELTABLE without a name.
    const EVERY_TABLE: Message = Message { kind: 2, family: 0, attrs: Vec::new() };
    Netfilter::open().commit(&[EVERY_TABLE]).unwrap();
}

fn replayed(dump: &[Message], without: Option<usize>) -> Result<(), String> {
    let messages = replay::again(dump, without);
    Netfilter::open().commit(&messages).map_err(|refusal| {
        let mut told = format!("{} at offset {:?}", refusal.error, refusal.offset);
        if let Some(message) = refusal.at.and_then(|at| messages.get(at)) {
            let mut lines = Vec::new();
            netlink::show(&message.attrs, "", &mut lines);
            let _ = write!(told, " of message {}: {}", message.kind, lines.join("; "));
        }
        told
    })
}

/// Loads a script, takes it up in each of the ways, and puts it back.
fn try_ours(script: &Script) -> Outcome {
    in_namespace(&links(&script.text), || {
        let (started, mut ways) = (Instant::now(), Vec::new());
        if let Err(why) = load(&script.text) {
            return Outcome::unloaded(script, &why);
        }
        let had = Shot::take();
        let bytes = dump();
        let saved = rules(&["save"], None);
        let mut back = |way, put: &dyn Fn() -> Result<(), String>| {
            flush();
            ways.push((
                way,
                match put() {
                    Ok(()) => Back::compare(&had, &Shot::take(), most_lines()),
                    Err(why) => Back::Refused(why),
                },
            ));
        };
        back(WAYS[0], &|| replayed(&bytes, None));
        back(WAYS[1], &|| {
            let saved = saved.as_ref().map_err(|why| format!("save: {why}"))?;
            rules(&["restore"], Some(saved)).map(drop).map_err(|why| format!("restore: {why}"))
        });
        let (mut minded, filled) = (BTreeMap::new(), replay::filled(&bytes));
        for (at, asymmetry) in ASYMMETRIES.iter().enumerate() {
            if bytes.clone().iter_mut().any(|message| (asymmetry.mend)(message, &filled)) {
                flush();
                minded.insert(at, replayed(&bytes, Some(at)).is_err());
            }
        }
        Outcome { name: script.name.clone(), rules: had.rules, seconds: started.elapsed().as_secs_f32(), ways, minded }
    })
}

/// What nft(8) itself makes of its own listings.
fn try_nft(script: &Script) -> Outcome {
    in_namespace(&links(&script.text), || {
        let (started, mut ways) = (Instant::now(), Vec::new());
        if let Err(why) = load(&script.text) {
            return Outcome::unloaded(script, &why);
        }
        let had = Shot::take();
        let text = nft(&["list", "ruleset"], None).unwrap();
        let json = nft(&["-j", "list", "ruleset"], None).unwrap();
        for (way, arguments, input) in
            [("nft list", &["-f", "-"][..], &text), ("nft -j list", &["-j", "-f", "-"], &json)]
        {
            flush();
            ways.push((
                way,
                match nft(arguments, Some(input)) {
                    Ok(_) => Back::compare(&had, &Shot::take(), most_lines()),
                    Err(why) => Back::Refused(why),
                },
            ));
        }
        Outcome {
            name: script.name.clone(),
            rules: had.rules,
            seconds: started.elapsed().as_secs_f32(),
            ways,
            minded: BTreeMap::new(),
        }
    })
}

/// A table of how many came back, and the names and differences of those that did not.
fn report(title: &str, outcomes: &[Outcome], started: Instant) {
    let rules: usize = outcomes.iter().map(|outcome| outcome.rules).sum();
    let mut table = format!(
        "\n{title}: {} scripts, {rules} rules, {:.1} s\n  {:<16} {:>9} {:>9} {:>9}\n",
        outcomes.len(),
        started.elapsed().as_secs_f32(),
        "same",
        "listing",
        "JSON",
        "dump"
    );
    let mut differing = String::new();
    let mut ways: Vec<&str> = Vec::new();
    for (way, _) in outcomes.iter().flat_map(|outcome| &outcome.ways) {
        if !ways.contains(way) {
            ways.push(way);
        }
    }
    for way in ways {
        let back =
            |outcome: &'_ Outcome| outcome.ways.iter().find(|(this, _)| *this == way).map(|(_, back)| back.clone());
        let same = |outcome: &Outcome| back(outcome).map_or([false; 3], |back| back.same());
        let counts = [0, 1, 2].map(|seen| outcomes.iter().filter(|outcome| same(outcome)[seen]).count());
        let share = counts.map(|count| format!("{:.1} %", 100.0 * count as f64 / outcomes.len().max(1) as f64));
        let _ = writeln!(table, "  {way:<16} {:>9} {:>9} {:>9}", share[0], share[1], share[2]);
        for outcome in outcomes.iter().filter(|outcome| same(outcome) != [true; 3]) {
            let told = back(outcome).map(|back| back.told()).unwrap_or_default();
            let _ = write!(differing, "  {way}: {}\n{told}", outcome.name);
        }
    }
    if let Some(slowest) = outcomes.iter().max_by(|one, other| one.seconds.total_cmp(&other.seconds)) {
        let _ = writeln!(table, "  longest: {:.1} s, {}", slowest.seconds, slowest.name);
    }
    tell(&format!("{table}{differing}"));
}

/// Every way of ours must bring back everything.
fn hold(outcomes: &[Outcome]) {
    let mut lost: Vec<String> = Vec::new();
    for outcome in outcomes {
        for (way, _) in outcome.ways.iter().filter(|(_, back)| back.same() != [true; 3]) {
            lost.push(format!("{} by {way}", outcome.name));
        }
    }
    assert!(lost.is_empty(), "{} came back differently: {lost:#?}", lost.len());
}

/// Scripts in which nft(8) makes a comparison of a set that is left with one range.
const SAME_MEANING: [&str; 4] = ["l4-comp", "l4-dccp", "l4-udplite", "meta-keys"];

/// Says what became of scripts whose text of `list` nft(8) loaded, and holds that nothing became something else, and how many rules of a
/// hundred have a text.
fn hold_listed(title: &str, scripts: &[Script], least: usize) {
    let listed = in_parallel(scripts, |script| {
        in_namespace(&links(&script.text), || match load(&script.text) {
            Ok(()) => listed::try_list(most_lines()),
            Err(why) => panic!("{}: {why}", script.name),
        })
    });
    let (mut told, mut changed) = (String::new(), Vec::new());
    let mut reasons: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for (script, listed) in scripts.iter().zip(&listed) {
        for what in &listed.unshown {
            let reason = what.split_once(": ").map_or(what.as_str(), |(_, reason)| reason);
            let reason: String = reason.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect();
            let entry = reasons.entry(reason).or_insert_with(|| (0, format!("{}: {what}", script.name)));
            entry.0 += 1;
        }
        for changed in &listed.changed {
            let _ = writeln!(told, "  CHANGED {}: {changed}", script.name);
        }
        if !SAME_MEANING.contains(&script.name.as_str()) {
            changed.extend(listed.changed.iter().map(|what| format!("{}: {what}", script.name)));
        }
    }
    for (reason, (count, example)) in reasons {
        let _ = writeln!(told, "  UNSHOWN {count}: {reason}\n      {example}");
    }
    let sum = |of: fn(&listed::Listed) -> usize| listed.iter().map(of).sum::<usize>();
    let (rules, same) = (sum(|listed| listed.rules), sum(|listed| listed.same));
    let (unshown, count) = (sum(|listed| listed.unshown.len()), sum(|listed| listed.changed.len()));
    tell(&format!(
        "{told}{title}, list: {rules} rules, {same} in chains that come back as they were, {unshown} unshown, {count} changed"
    ));
    assert!(changed.is_empty(), "text that means something else: {changed:#?}");
    assert!((rules - unshown.min(rules)) * 100 >= rules * least, "{unshown} of {rules} have no text");
}

#[test]
fn every_ruleset_of_the_corpus_comes_back() {
    if !able() {
        return;
    }
    let started = Instant::now();
    let scripts = golden("");
    let outcomes = in_parallel(&scripts, try_ours);
    report("corpus", &outcomes, started);
    let mut minded: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for (at, did) in outcomes.iter().flat_map(|outcome| &outcome.minded) {
        let counts = minded.entry(*at).or_default();
        *(if *did { &mut counts.0 } else { &mut counts.1 }) += 1;
    }
    let mut told = String::from("  the kernel dumps and refuses, in scripts:\n");
    for (at, asymmetry) in ASYMMETRIES.iter().enumerate() {
        let (refused, taken) = minded.get(&at).copied().unwrap_or_default();
        let _ = writeln!(told, "    {} refused, {} taken: {}", refused, taken, asymmetry.name);
    }
    tell(&told);
    hold(&outcomes);
    if env::var_os("RINGFENCE_RULESETS").is_none() {
        for (at, asymmetry) in ASYMMETRIES.iter().enumerate() {
            assert!(minded.get(&at).is_some_and(|(refused, _)| *refused > 0), "nothing minds {}", asymmetry.name);
        }
    }
}

#[test]
fn large_rulesets_come_back() {
    if !able() {
        return;
    }
    let started = Instant::now();
    let scripts: Vec<Script> = generate::large()
        .into_iter()
        .map(|(name, text)| Script { name, text })
        .filter(|script| wanted(&script.name))
        .collect();
    let outcomes = in_parallel(&scripts, try_ours);
    report("large", &outcomes, started);
    hold(&outcomes);
}

#[test]
fn generated_rulesets_come_back() {
    if !able() {
        return;
    }
    let seeds: u64 = env::var("RINGFENCE_RULESET_SEEDS").map_or(60, |seeds| seeds.parse().expect("a number of seeds"));
    let started = Instant::now();
    let scripts: Vec<Script> = (0..seeds)
        .map(|seed| Script { name: format!("seed-{seed}"), text: generate::script(seed) })
        .filter(|script| wanted(&script.name))
        .collect();
    let outcomes = in_parallel(&scripts, try_ours);
    report("generated", &outcomes, started);
    hold(&outcomes);
}

/// Where nft(8) has no words, what the kernel dumps must be the same.
#[test]
fn what_nft_cannot_say_comes_back() {
    if !able() {
        return;
    }
    let started = Instant::now();
    let (mut outcomes, mut refused) = (Vec::new(), Vec::new());
    for (name, messages) in beyond::rulesets().into_iter().filter(|(name, _)| wanted(name)) {
        match in_namespace(&[], || try_messages(name, &messages)) {
            Ok(outcome) => outcomes.push(outcome),
            Err(why) => refused.push(format!("{name}: {why}")),
        }
    }
    tell(&format!("SKIPPED rulesets, because this kernel refuses them: {refused:#?}"));
    report("beyond nft(8)", &outcomes, started);
    hold(&outcomes);
}

/// The kernel ends a dump where a rule has no room in it, without a word: who saves what was dumped has lost the rest.
#[test]
fn a_rule_too_large_for_a_dump_is_not_passed_over() {
    if !able() {
        return;
    }
    in_namespace(&[], || {
        if let Err(refusal) = Netfilter::open().commit(&beyond::rule_too_large_to_dump()) {
            return tell(&format!("SKIPPED rulesets: this kernel refuses a rule of 38 KiB: {refusal:?}"));
        }
        let dumped = || dump().iter().filter(|message| message.kind == netlink::NEW_RULE).count();
        if dumped() == 4 {
            return tell("SKIPPED rulesets: this kernel dumps a rule of 38 KiB");
        }
        for what in ["save", "list"] {
            let refused = rules(&[what], None).expect_err("a ruleset with a hole");
            for part in ["rule with handle 3 of chain ip t c", "32 KiB"] {
                assert!(refused.contains(part), "{refused}");
            }
        }
        nft(&["delete", "rule", "ip", "t", "c", "handle", "3"], None).unwrap();
        let saved = rules(&["save"], None).unwrap();
        let had = dump();
        assert_eq!(dumped(), 3);
        flush();
        rules(&["restore"], Some(&saved)).unwrap();
        assert_eq!(raw_lines(&dump()), raw_lines(&had));
    });
}

/// Numbers of rules go up with every transaction that is tried and given up, so that one may be far from those before it.
#[test]
fn a_rule_too_large_for_a_dump_is_not_passed_over_wherever_its_number_is() {
    if !able() {
        return;
    }
    in_namespace(&[], || {
        let accepts = |count| format!("table ip t {{\nchain c {{\n{}}}\n}}\n", "accept\n".repeat(count));
        load(&accepts(1)).unwrap();
        for _ in 0..2 {
            nft(&["-c", "-f", "-"], Some(&accepts(40_000))).unwrap();
        }
        let large = beyond::rule_too_large_to_dump().swap_remove(3);
        if let Err(refusal) = Netfilter::open().commit(&[large]) {
            return tell(&format!("SKIPPED rulesets: this kernel refuses a rule of 38 KiB: {refusal:?}"));
        }
        load("table ip t {\nchain c {\ndrop\n}\n}\n").unwrap();
        if dump().iter().filter(|message| message.kind == netlink::NEW_RULE).count() == 3 {
            return tell("SKIPPED rulesets: this kernel dumps a rule of 38 KiB");
        }
        for what in ["save", "list"] {
            let refused = rules(&[what], None).expect_err("a ruleset with a hole");
            for part in ["from chain ip t c on", "32 KiB"] {
                assert!(refused.contains(part), "{refused}");
            }
        }
    });
}

/// Makes what messages say, takes it up, and puts it back.
fn try_messages(name: &str, messages: &[Message]) -> Result<Outcome, String> {
    let started = Instant::now();
    Netfilter::open().commit(messages).map_err(|refusal| format!("{refusal:?}"))?;
    let bytes = dump();
    let had = raw_lines(&bytes);
    let rules_of = |messages: &[Message]| messages.iter().filter(|message| message.kind == netlink::NEW_RULE).count();
    assert_eq!(rules_of(&bytes), rules_of(messages), "{name}: the dump lacks rules");
    let saved = rules(&["save"], None);
    let mut ways = Vec::new();
    let mut back = |way, put: &dyn Fn() -> Result<(), String>| {
        flush();
        let back = put().map(|()| difference(&had, &raw_lines(&dump()), most_lines()));
        ways.push((
            way,
            match back {
                Ok(raw) => Back::Seen { text: None, json: None, raw },
                Err(why) => Back::Refused(why),
            },
        ));
    };
    back(WAYS[0], &|| replayed(&bytes, None));
    back(WAYS[1], &|| {
        let saved = saved.as_ref().map_err(|why| format!("save: {why}"))?;
        rules(&["restore"], Some(saved)).map(drop).map_err(|why| format!("restore: {why}"))
    });
    let rules = messages.iter().filter(|message| message.kind == netlink::NEW_RULE).count();
    Ok(Outcome {
        name: name.to_owned(),
        rules,
        seconds: started.elapsed().as_secs_f32(),
        ways,
        minded: BTreeMap::new(),
    })
}

/// Scripts for kernels with more in them: where they load, they must come back, too.
#[test]
fn what_a_kernel_need_not_have_comes_back_where_it_has_it() {
    if !able() {
        return;
    }
    let started = Instant::now();
    let (mut loaded, mut missing) = (Vec::new(), Vec::new());
    for script in golden("unsupported") {
        match in_namespace(&links(&script.text), || load(&script.text)) {
            Ok(()) => loaded.push(script),
            Err(_) => missing.push(script.name),
        }
    }
    tell(&format!("SKIPPED rulesets, because this kernel has nothing to run them: {missing:?}"));
    let outcomes = in_parallel(&loaded, try_ours);
    report("corpus, for other kernels", &outcomes, started);
    hold(&outcomes);
}

/// For docs/testing.md.
#[test]
#[ignore = "measures nft(8), not ringfence"]
fn what_nft_loses_of_its_own_listings() {
    if !able() {
        return;
    }
    let started = Instant::now();
    let outcomes = in_parallel(&golden(""), try_nft);
    report("nft(8) by itself", &outcomes, started);
}

/// Scripts from elsewhere: how many come back, and what `list` says of them.
#[test]
fn rulesets_from_elsewhere_come_back() {
    let Some(folder) = env::var_os("RINGFENCE_RULESETS_FOLDER").filter(|_| able()) else { return };
    let started = Instant::now();
    let mut scripts = scripts(Path::new(&folder));
    let loads = in_parallel(&scripts, |script| in_namespace(&links(&script.text), || load(&script.text)));
    let mut refused = Vec::new();
    let mut loads = loads.into_iter();
    scripts.retain(|script| match loads.next().expect("one for each") {
        Ok(()) => true,
        Err(why) => {
            refused.push(format!("{}: {}", script.name, why.lines().take(2).collect::<Vec<_>>().join(" ")));
            false
        }
    });
    if env::var_os("RINGFENCE_RULESETS").is_some() {
        tell(&format!("refused by nft(8): {refused:#?}"));
    }
    tell(&format!("{} loaded, {} refused by nft(8)", scripts.len(), refused.len()));
    let outcomes = in_parallel(&scripts, try_ours);
    report("from elsewhere", &outcomes, started);
    hold(&outcomes);
    hold_listed("from elsewhere", &scripts, 99);
}

/// What `list` says, nft(8) makes the same of, byte for byte; what it can't say, it says that it can't.
#[test]
fn what_is_listed_nft_makes_the_same_of() {
    if !able() {
        return;
    }
    let mut scripts = golden("");
    scripts.extend(rules::apart());
    scripts.extend((0..20).map(|seed| Script { name: format!("seed-{seed}"), text: generate::script(seed) }));
    scripts.retain(|script| wanted(&script.name));
    hold_listed("corpus", &scripts, 99);
}

/// What nft(8) lists of iptables-nft(8)'s and reads again, `list` shows.
#[test]
fn what_iptables_wrote_is_listed() {
    if !able() {
        return;
    }
    in_namespace(&[], || {
        Netfilter::open().commit(&beyond::of_iptables()).unwrap();
        let listed = listed::try_list(200);
        assert_eq!((&listed.changed, &listed.unshown), (&vec![], &vec![]));
        assert_eq!((listed.same, listed.rules), (7, 7));
    });
}

#[test]
fn every_rule_comes_back() {
    if !able() {
        return;
    }
    let started = Instant::now();
    let mut scripts = rules::apart();
    scripts.push(rules::drawn());
    scripts.retain(|script| wanted(&script.name));
    let outcomes = in_parallel(&scripts, try_ours);
    report("rules", &outcomes, started);
    hold(&outcomes);
}
