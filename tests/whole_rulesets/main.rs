//! Whole rulesets, loaded by nft(8), against everything that takes one up and puts it back.
//!
//! `tests/golden/rulesets` has several hundred scripts, each about one thing; [`generate`] makes more, of any size. Each is loaded into a
//! scratch namespace and seen in three ways: as nft(8) lists it, as it lists it in JSON, and as the kernel dumps it. Then it is
//! taken away, put back, and seen again.
//!
//! - `RINGFENCE_RULESETS=NAME`: only scripts whose name contains this, with all that differs
//! - `RINGFENCE_RULESET_SEEDS=N`: how many rulesets to generate
//! - `RINGFENCE_RULESETS_PROGRAM=PATH`: another `ringfence` to try

mod beyond;
mod generate;
mod netlink;
mod nft;
mod replay;
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
const WAYS: [&str; 3] = ["raw replay", "save, restore", "list, nft -f"];

/// How a refusal begins of a ruleset for which nft(8) has no words, or of which ringfence doesn't know them.
const UNSAID: &str = "list: ";

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
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/rulesets").join(folder);
    let mut scripts: Vec<Script> = fs::read_dir(&folder)
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
    run(Command::new(program()).arg("rules").args(arguments), input)
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
fn try_ours(script: &Script, ours: bool) -> Outcome {
    in_namespace(&links(&script.text), || {
        let (started, mut ways) = (Instant::now(), Vec::new());
        if let Err(why) = load(&script.text) {
            return Outcome::unloaded(script, &why);
        }
        let had = Shot::take();
        let bytes = dump();
        let saved = ours.then(|| rules(&["save"], None));
        let listed = ours.then(|| rules(&["list"], None));
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
        if let Some(saved) = &saved {
            back(WAYS[1], &|| {
                let saved = saved.as_ref().map_err(|why| format!("save: {why}"))?;
                rules(&["restore"], Some(saved)).map(drop).map_err(|why| format!("restore: {why}"))
            });
        }
        if let Some(listed) = &listed {
            back(WAYS[2], &|| load(listed.as_ref().map_err(|why| format!("{UNSAID}{why}"))?));
        }
        let mut minded = BTreeMap::new();
        for (at, asymmetry) in ASYMMETRIES.iter().enumerate() {
            if bytes.clone().iter_mut().any(|message| (asymmetry.mend)(message)) {
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

/// Scripts that `list` says in other words than nft(8), with the same meaning, or in words that nft(8) does not take: see docs/known-limits.md.
const OTHER_WORDS: [&str; 4] = ["l4-udplite", "meta-keys", "nat-ip6", "set-quotas"];

/// Every way of ours must bring back everything. Text says less than a dump, and `list` says what it can't say; what it does say must be what nft(8)
/// shows. Of drawn rulesets it is not held to that: they have `typeof` sets, of which it writes the type.
fn hold(outcomes: &[Outcome], drawn: bool) {
    let mut lost: Vec<String> = Vec::new();
    for outcome in outcomes {
        for (way, back) in &outcome.ways {
            let same = match back {
                _ if *way == WAYS[2] && (drawn || OTHER_WORDS.contains(&outcome.name.as_str())) => true,
                Back::Refused(why) if *way == WAYS[2] && why.starts_with(UNSAID) => true,
                back if *way == WAYS[2] => back.same()[0],
                back => back.same() == [true; 3],
            };
            if !same {
                lost.push(format!("{} by {way}", outcome.name));
            }
        }
    }
    assert!(lost.is_empty(), "{} came back differently: {lost:#?}", lost.len());
}

#[test]
fn every_ruleset_of_the_corpus_comes_back() {
    if !able() {
        return;
    }
    let started = Instant::now();
    let (scripts, ours) = (golden(""), true);
    let outcomes = in_parallel(&scripts, |script| try_ours(script, ours));
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
    hold(&outcomes, false);
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
    let (started, ours) = (Instant::now(), true);
    let scripts: Vec<Script> = generate::large()
        .into_iter()
        .map(|(name, text)| Script { name, text })
        .filter(|script| wanted(&script.name))
        .collect();
    let outcomes = in_parallel(&scripts, |script| try_ours(script, ours));
    report("large", &outcomes, started);
    hold(&outcomes, true);
}

#[test]
fn generated_rulesets_come_back() {
    if !able() {
        return;
    }
    let seeds: u64 = env::var("RINGFENCE_RULESET_SEEDS").map_or(60, |seeds| seeds.parse().expect("a number of seeds"));
    let (started, ours) = (Instant::now(), true);
    let scripts: Vec<Script> = (0..seeds)
        .map(|seed| Script { name: format!("seed-{seed}"), text: generate::script(seed) })
        .filter(|script| wanted(&script.name))
        .collect();
    let outcomes = in_parallel(&scripts, |script| try_ours(script, ours));
    report("generated", &outcomes, started);
    hold(&outcomes, true);
}

/// Where nft(8) has no words, what the kernel dumps must be the same.
#[test]
fn what_nft_cannot_say_comes_back() {
    if !able() {
        return;
    }
    let (started, ours) = (Instant::now(), true);
    let (mut outcomes, mut refused) = (Vec::new(), Vec::new());
    for (name, messages) in beyond::rulesets().into_iter().filter(|(name, _)| wanted(name)) {
        match in_namespace(&[], || try_messages(name, &messages, ours)) {
            Ok(outcome) => outcomes.push(outcome),
            Err(why) => refused.push(format!("{name}: {why}")),
        }
    }
    tell(&format!("SKIPPED rulesets, because this kernel refuses them: {refused:#?}"));
    report("beyond nft(8)", &outcomes, started);
    hold(&outcomes, false);
}

/// Makes what messages say, takes it up, and puts it back.
fn try_messages(name: &str, messages: &[Message], ours: bool) -> Result<Outcome, String> {
    let started = Instant::now();
    Netfilter::open().commit(messages).map_err(|refusal| format!("{refusal:?}"))?;
    let bytes = dump();
    let had = raw_lines(&bytes);
    let rules_of = |messages: &[Message]| messages.iter().filter(|message| message.kind == netlink::NEW_RULE).count();
    assert_eq!(rules_of(&bytes), rules_of(messages), "{name}: the dump lacks rules");
    let saved = ours.then(|| rules(&["save"], None));
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
    if let Some(saved) = &saved {
        back(WAYS[1], &|| {
            let saved = saved.as_ref().map_err(|why| format!("save: {why}"))?;
            rules(&["restore"], Some(saved)).map(drop).map_err(|why| format!("restore: {why}"))
        });
    }
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
    let (started, ours) = (Instant::now(), true);
    let (mut loaded, mut missing) = (Vec::new(), Vec::new());
    for script in golden("unsupported") {
        match in_namespace(&links(&script.text), || load(&script.text)) {
            Ok(()) => loaded.push(script),
            Err(_) => missing.push(script.name),
        }
    }
    tell(&format!("SKIPPED rulesets, because this kernel has nothing to run them: {missing:?}"));
    let outcomes = in_parallel(&loaded, |script| try_ours(script, ours));
    report("corpus, for other kernels", &outcomes, started);
    hold(&outcomes, false);
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
