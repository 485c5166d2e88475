//! Shows a ruleset in nft(8) syntax.
//!
//! What comes out, `nft -f` takes in, and makes the same ruleset of. nft(8) cannot write everything that the kernel can hold: a set may
//! be called `x { }`, a rule may load a field and never look at it. Such a thing stands in the text as a comment, with the reason,
//! and [`Syntax::unshown`] lists it, so that nobody takes a text with holes for the whole.

mod apart;
mod compare;
mod element;
mod field;
mod header;
mod load;
mod object;
mod rewrite;
mod rule;
mod send;
mod statement;
mod translate;
mod type_of;
mod value;
mod word;

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::{
    BaseChain, Chain, ChainName, ChainPolicy, ChainType, Datatype, Element, Family, Flowtable, Hook, MapTo, Rule,
    Ruleset, Set, SetName, SetPolicy, StatefulObject, Table, TableId,
};

/// The user data of a comment without a word, which is no [`Comment`](super::Comment).
const NO_WORDS: &[u8] = &[0, 1, 0];

/// NFTA_CHAIN_COUNTERS, what a base chain's policy has judged, which iptables-nft(8) asks for. nft(8) neither shows it nor asks.
const COUNTERS: u16 = 8;

/// A ruleset in nft(8) syntax.
///
/// # References
///
/// nft(8).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Syntax {
    text: String,
    unshown: Vec<Unshown>,
}

/// Names something that a ruleset has and nft(8) cannot write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unshown {
    /// The thing: `rule 3 of chain inet guard output`. Escaped, fit for a terminal.
    pub what: String,
    /// Why nft(8) cannot write it, or would make something else of it.
    pub reason: String,
}

impl fmt::Display for Unshown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.reason)
    }
}

impl Syntax {
    /// The text, for `nft -f`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands in the text as a comment alone, because nft(8) cannot write it.
    ///
    /// When there is any, the text is not the whole ruleset.
    pub fn unshown(&self) -> &[Unshown] {
        &self.unshown
    }

    fn line(&mut self, indent: usize, text: &str) {
        self.text.extend(std::iter::repeat_n('\t', indent));
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn omit(&mut self, indent: usize, what: String, reason: String) {
        let unshown = Unshown { what, reason };
        self.line(indent, &format!("# {unshown}"));
        self.unshown.push(unshown);
    }

    /// Writes a comment of an object, inside its braces.
    fn comment(
        &mut self,
        indent: usize,
        of: impl FnOnce() -> String,
        comment: Option<&super::Comment>,
        extra: &super::Extra,
    ) {
        if comment.is_none() && extra.user_data() == Some(NO_WORDS) {
            self.line(indent, "comment \"\"");
        }
        if let Some(comment) = comment {
            match word::quoted(comment.as_str()) {
                Ok(text) => self.line(indent, &format!("comment {text}")),
                Err(reason) => self.omit(indent, format!("comment of {}", of()), reason),
            }
        }
    }
}

impl fmt::Display for Syntax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Ruleset {
    /// Shows it in nft(8) syntax, and says what nft(8) cannot write.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringfence::nft::{Family, Rule, Ruleset, Table, TableId, TableName, Chain, ChainName, Verdict};
    ///
    /// let id = TableId { family: Family::Inet, name: TableName::new("guard")? };
    /// let name = ChainName::new("web")?;
    /// let ruleset = Ruleset {
    ///     tables: vec![Table::new(id.clone())],
    ///     chains: vec![Chain::new(&id, &name)],
    ///     rules: vec![Rule::new(&id, &name).l4proto(6).verdict(Verdict::Accept)],
    ///     ..Ruleset::default()
    /// };
    /// assert!(ruleset.syntax().unshown().is_empty());
    /// assert_eq!(ruleset.to_string(), "table inet guard {\n\tchain web {\n\t\tmeta l4proto tcp accept\n\t}\n}\n");
    /// # Ok::<(), ringfence::nft::NameError>(())
    /// ```
    pub fn syntax(&self) -> Syntax {
        self.write(None)
    }

    /// Shows it in nft(8) syntax, for who reads it where clocks are `ahead` seconds ahead of UTC.
    ///
    /// The kernel knows hours (`meta hour`) in UTC; nft(8) reads and writes them in the local time of the moment. [`Self::syntax`] counts
    /// them among what nft(8) cannot write.
    pub fn syntax_at(&self, ahead: i32) -> Syntax {
        self.write(Some(ahead))
    }

    fn write(&self, hours: Option<i32>) -> Syntax {
        let sets: Vec<Set> = self.sets.iter().map(type_of::resolved).collect();
        let (contents, sets) = (Contents::by_table(self, &sets), Sets::new(self, &sets, hours));
        let mut page = Page { ruleset: self, contents, sets, out: Syntax::default() };
        page.tables();
        page.strays();
        page.out
    }
}

impl fmt::Display for Ruleset {
    /// Shows it in nft(8) syntax. [`Ruleset::syntax`] tells besides what nft(8) cannot write.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.syntax().as_str())
    }
}

/// What rules refer to: sets with their elements, and chains with their rules.
struct Sets<'a> {
    sets: HashMap<(&'a TableId, &'a SetName), (&'a Set, Vec<&'a Element>)>,
    rules: HashMap<(&'a TableId, &'a ChainName), Vec<&'a Rule>>,
    /// The chains that belong to one rule.
    inner: HashSet<(&'a TableId, &'a ChainName)>,
    /// How many seconds the reader's clock is ahead of UTC, if that is known.
    hours: Option<i32>,
}

impl<'a> Sets<'a> {
    fn new(ruleset: &'a Ruleset, all: &'a [Set], hours: Option<i32>) -> Self {
        let mut sets = HashMap::new();
        for set in all {
            sets.entry((&set.table, &set.name)).or_insert((set, Vec::new()));
        }
        for (table, set, elements) in &ruleset.elements {
            if let Some((_, all)) = sets.get_mut(&(table, set)) {
                all.extend(elements);
            }
        }
        let mut rules: HashMap<_, Vec<&'a Rule>> = HashMap::new();
        for rule in &ruleset.rules {
            rules.entry((&rule.table, &rule.chain)).or_default().push(rule);
        }
        let inner = ruleset.chains.iter().filter(|chain| chain.flags.binding);
        Self { sets, rules, inner: inner.map(|chain| (&chain.table, &chain.name)).collect(), hours }
    }

    fn find(&self, table: &TableId, name: &SetName) -> Option<&'a Set> {
        self.sets.get(&(table, name)).map(|(set, _)| *set)
    }

    fn elements(&self, set: &Set) -> impl Iterator<Item = &'a Element> + use<'a> {
        let elements = self.sets.get(&(&set.table, &set.name)).map(|(_, elements)| elements.clone());
        elements.unwrap_or_default().into_iter()
    }

    fn rules(&self, table: &TableId, chain: &ChainName) -> Vec<&'a Rule> {
        self.rules.get(&(table, chain)).cloned().unwrap_or_default()
    }

    /// The rules of a chain that belongs to the one rule that jumps there.
    fn inner(&self, table: &TableId, chain: &ChainName) -> Option<Vec<&'a Rule>> {
        self.inner.contains(&(table, chain)).then(|| self.rules(table, chain))
    }
}

/// What stands in a table.
#[derive(Default)]
struct Contents<'a> {
    objects: Vec<&'a StatefulObject>,
    flowtables: Vec<&'a Flowtable>,
    /// With all that is known of their types.
    sets: Vec<&'a Set>,
    chains: Vec<&'a Chain>,
}

impl<'a> Contents<'a> {
    fn by_table(ruleset: &'a Ruleset, sets: &'a [Set]) -> HashMap<&'a TableId, Self> {
        let mut tables: HashMap<&'a TableId, Self> = HashMap::new();
        for object in &ruleset.objects {
            tables.entry(&object.table).or_default().objects.push(object);
        }
        for flowtable in &ruleset.flowtables {
            tables.entry(&flowtable.table).or_default().flowtables.push(flowtable);
        }
        for set in sets {
            tables.entry(&set.table).or_default().sets.push(set);
        }
        for chain in &ruleset.chains {
            tables.entry(&chain.table).or_default().chains.push(chain);
        }
        tables
    }
}

struct Page<'a> {
    ruleset: &'a Ruleset,
    contents: HashMap<&'a TableId, Contents<'a>>,
    sets: Sets<'a>,
    out: Syntax,
}

impl<'a> Page<'a> {
    fn tables(&mut self) {
        let mut seen = HashSet::new();
        for table in &self.ruleset.tables {
            if !seen.insert(&table.id) {
                self.out.omit(0, of_table(&table.id), "a table of that name stands above".to_owned());
                continue;
            }
            let contents = self.contents.remove(&table.id).unwrap_or_default();
            match word::name(table.id.name.as_str()) {
                Ok(_) => self.table(table, &contents),
                Err(reason) => {
                    self.out.omit(0, of_table(&table.id), reason);
                    self.untold(&contents, "its table can't be shown");
                }
            }
        }
    }

    fn table(&mut self, table: &'a Table, contents: &Contents<'a>) {
        self.out.line(0, &format!("table {} {{", table.id));
        self.out.comment(1, || of_table(&table.id), table.comment.as_ref(), &table.extra);
        // One line a flag: nft 1.0.6 takes no list here.
        if table.flags.dormant {
            self.out.line(1, "flags dormant");
        }
        if table.flags.persist {
            // An owned table without `persist` vanishes with its owner: shown as `owner` alone, a fence would open.
            let flags = if table.flags.owner { "owner,persist" } else { "persist" };
            let reason =
                "nft(8) before 1.1.1 does not know the flag persist, and none can own a table for longer than it runs";
            self.out.omit(1, format!("flags {flags} of {}", of_table(&table.id)), reason.to_owned());
        } else if table.flags.owner {
            self.out.line(1, "flags owner");
        }
        self.named(table, contents);
        let (mut sets, mut chains) = (HashSet::new(), HashSet::new());
        // Sets and chains that belong to a rule are shown within it.
        for set in contents.sets.iter().filter(|set| !set.flags.anonymous) {
            if sets.insert(&set.name) {
                self.set(set);
            } else {
                self.out.omit(1, of_set(&set.table, &set.name), "a set of that name stands above".to_owned());
            }
        }
        for chain in contents.chains.iter().filter(|chain| !chain.flags.binding) {
            if chains.insert(&chain.name) {
                self.chain(chain);
            } else {
                self.out.omit(1, of_chain(&chain.table, &chain.name), "a chain of that name stands above".to_owned());
            }
        }
        self.out.line(0, "}");
    }

    /// Stateful objects and flowtables.
    fn named(&mut self, table: &'a Table, contents: &Contents<'a>) {
        for object in &contents.objects {
            let what = || {
                let (kind, name) = (object.state.kind(), object.name.as_str().escape_debug());
                format!("{kind} {name} of {}", of_table(&table.id))
            };
            self.block(object::show(object), what);
        }
        for flowtable in &contents.flowtables {
            let what = || format!("flowtable {} of {}", flowtable.name.as_str().escape_debug(), of_table(&table.id));
            self.block(object::show_flowtable(flowtable), what);
        }
    }

    fn block(&mut self, lines: Result<Vec<String>, String>, what: impl FnOnce() -> String) {
        match lines {
            Err(reason) => self.out.omit(1, what(), reason),
            Ok(lines) => {
                for (index, line) in lines.iter().enumerate() {
                    self.out.line(if index == 0 || index + 1 == lines.len() { 1 } else { 2 }, line);
                }
            }
        }
    }

    fn set(&mut self, set: &'a Set) {
        let elements = || self.sets.elements(set);
        let writable = match word::name(set.name.as_str()) {
            Err(reason) => Err(reason),
            Ok(_) if set.key.is_empty() => Err("its key has no type".to_owned()),
            Ok(_) if set.timeout.is_some() && !set.flags.timeout => {
                Err("nft(8) would add the flag timeout, which it lacks".to_owned())
            }
            Ok(name) => show_type(set).and_then(|types| {
                let timeout = set.timeout.map(element::show_time).transpose()?;
                let interval = set.gc_interval.map(element::show_time).transpose()?;
                let state = set.exprs.iter().map(statement::show_state).collect::<Result<Vec<_>, _>>()?;
                Ok((name, types, timeout, interval, state))
            }),
        };
        let (name, types, timeout, interval, state) = match writable {
            Ok(found) => found,
            Err(reason) => {
                let count = elements().count();
                let reason = if count == 0 { reason } else { format!("{reason}; nor its {count} elements") };
                return self.out.omit(1, of_set(&set.table, &set.name), reason);
            }
        };
        let elements = element::show(set, &element::kinds(set), elements());
        self.out.line(1, &format!("{} {name} {{", if set.data.is_some() { "map" } else { "set" }));
        self.out.line(2, &types);
        let flags = [
            ("constant", set.flags.constant),
            ("interval", set.flags.interval),
            ("dynamic", set.flags.dynamic),
            ("timeout", set.flags.timeout),
        ];
        let flags: Vec<_> = flags.iter().filter(|(_, on)| *on).map(|(flag, _)| *flag).collect();
        if !flags.is_empty() {
            self.out.line(2, &format!("flags {}", flags.join(",")));
        }
        if let Some(timeout) = timeout {
            self.out.line(2, &format!("timeout {timeout}"));
        }
        if let Some(interval) = interval {
            self.out.line(2, &format!("gc-interval {interval}"));
        }
        if set.policy == SetPolicy::Memory {
            self.out.line(2, "policy memory");
        }
        if type_of::merges(set) {
            self.out.line(2, "auto-merge");
        }
        for state in state {
            self.out.line(2, &state);
        }
        if let Some(size) = set.size {
            self.out.line(2, &format!("size {size}"));
        }
        self.out.comment(2, || of_set(&set.table, &set.name), set.comment.as_ref(), &set.extra);
        for (what, reason) in elements.unshown {
            self.out.omit(2, format!("{what} of {}", of_set(&set.table, &set.name)), reason);
        }
        if let Some((last, rest)) = elements.shown.split_last() {
            self.out.line(2, "elements = {");
            for element in rest {
                self.out.line(3, &format!("{element},"));
            }
            self.out.line(3, last);
            self.out.line(2, "}");
        }
        self.out.line(1, "}");
    }

    fn chain(&mut self, chain: &'a Chain) {
        let unknown = chain.extra.attributes().iter().find(|kept| kept.kind != COUNTERS);
        let head = word::name(chain.name.as_str()).map(|_| ()).and_then(|()| match (&chain.base, unknown) {
            _ if chain.flags.offload => Err("nft(8) syntax is not known for rules in a network card".to_owned()),
            (_, Some(kept)) => Err(format!("nft(8) has no word for what its attribute {} says", kept.kind)),
            (Some(base), None) => show_base(chain.table.family, base).map(Some),
            (None, None) => Ok(None),
        });
        let base = match head {
            Ok(base) => base,
            Err(reason) => {
                self.out.omit(1, of_chain(&chain.table, &chain.name), reason);
                return self.rules_untold(&chain.table, &chain.name, "its chain can't be shown");
            }
        };
        self.out.line(1, &format!("chain {} {{", chain.name));
        self.out.comment(2, || of_chain(&chain.table, &chain.name), chain.comment.as_ref(), &chain.extra);
        if let Some(base) = base {
            self.out.line(2, &base);
        }
        for (index, rule) in self.sets.rules(&chain.table, &chain.name).into_iter().enumerate() {
            self.rule(index, rule);
        }
        self.out.line(1, "}");
    }

    fn rule(&mut self, index: usize, rule: &Rule) {
        let mut text = match rule::show(rule, &self.sets) {
            Ok(text) => text,
            Err(reason) => {
                self.out.omit(2, of_rule(index, rule), reason);
                return self.out.line(2, &format!("# {:?}", rule.exprs));
            }
        };
        match rule.comment.as_ref().map(|comment| word::quoted(comment.as_str())).transpose() {
            Ok(None) if rule.extra.user_data() == Some(NO_WORDS) => text += " comment \"\"",
            Ok(None) => {}
            Ok(Some(comment)) => text += &format!(" comment {comment}"),
            Err(reason) => self.out.omit(2, format!("comment of {}", of_rule(index, rule)), reason),
        }
        self.out.line(2, &text);
    }

    /// Tells what is in a table that can't be shown.
    fn untold(&mut self, contents: &Contents<'a>, reason: &str) {
        for set in &contents.sets {
            self.out.omit(0, of_set(&set.table, &set.name), reason.to_owned());
        }
        for chain in &contents.chains {
            self.out.omit(0, of_chain(&chain.table, &chain.name), reason.to_owned());
            self.rules_untold(&chain.table, &chain.name, reason);
        }
    }

    fn rules_untold(&mut self, table: &TableId, chain: &ChainName, reason: &str) {
        for (index, rule) in self.sets.rules(table, chain).into_iter().enumerate() {
            self.out.omit(0, of_rule(index, rule), reason.to_owned());
        }
    }

    /// Tells what refers to a table, set or chain that the ruleset lacks.
    fn strays(&mut self) {
        let ruleset = self.ruleset;
        let tables: HashSet<_> = ruleset.tables.iter().map(|table| &table.id).collect();
        let chains: HashSet<_> = ruleset.chains.iter().map(|chain| (&chain.table, &chain.name)).collect();
        for set in ruleset.sets.iter().filter(|set| !tables.contains(&set.table)) {
            self.out.omit(0, of_set(&set.table, &set.name), "its table is not in the ruleset".to_owned());
        }
        for (table, set, elements) in &ruleset.elements {
            if self.sets.find(table, set).is_none() {
                let what = format!("{} elements of {}", elements.len(), of_set(table, set));
                self.out.omit(0, what, "the set is not in the ruleset".to_owned());
            }
        }
        for chain in ruleset.chains.iter().filter(|chain| !tables.contains(&chain.table)) {
            self.out.omit(0, of_chain(&chain.table, &chain.name), "its table is not in the ruleset".to_owned());
            self.rules_untold(&chain.table, &chain.name, "its table is not in the ruleset");
        }
        for (index, rule) in ruleset.rules.iter().enumerate() {
            if !chains.contains(&(&rule.table, &rule.chain)) {
                self.out.omit(0, of_rule(index, rule), "its chain is not in the ruleset".to_owned());
            }
        }
    }
}

/// `type ipv4_addr : verdict`, or `typeof ip saddr : meta mark` where the set was declared so.
fn show_type(set: &Set) -> Result<String, String> {
    let joined = |fields: Vec<field::Field>| fields.into_iter().map(|field| field.text).collect::<Vec<_>>().join(" . ");
    let ranges = if type_of::has_ranges(set) { "interval " } else { "" };
    let to = match &set.data {
        None => Some((String::new(), String::new())),
        Some(MapTo::Verdict) => Some((" : verdict".to_owned(), " : verdict".to_owned())),
        Some(MapTo::Object(kind)) => Some((format!(" : {kind}"), format!(" : {kind}"))),
        Some(MapTo::Value(_)) => None,
    };
    if let Some(key) = type_of::key(set)
        && let Some(to) = to
            .as_ref()
            .map(|(to, _)| to.clone())
            .or_else(|| Some(format!(" : {ranges}{}", joined(type_of::data(set)?))))
    {
        return Ok(format!("typeof {}{to}", joined(key)));
    }
    // Those of clocks have names that nft(8)'s grammar keeps for itself.
    let unnamed = |key: &crate::nft::KeyType| {
        key.0.iter().any(|field| matches!(field, Datatype::Other { .. } | Datatype::Hour | Datatype::Day))
    };
    if unnamed(&set.key) {
        return Err("nft(8) syntax is not known for the type of its key".to_owned());
    }
    let to = match to {
        Some((_, to)) => to,
        None => match type_of::data_type(set).filter(|to| !unnamed(to)) {
            Some(to) => format!(" : {ranges}{to}"),
            None => return Err("nft(8) syntax is not known for the type of its values".to_owned()),
        },
    };
    Ok(format!("type {}{to}", set.key))
}

/// `type filter hook output priority filter; policy drop;`
fn show_base(family: Family, base: &BaseChain) -> Result<String, String> {
    let kind = match base.kind {
        ChainType::Filter => "filter",
        ChainType::Nat => "nat",
        ChainType::Route => "route",
    };
    let hook = match base.hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
        Hook::Ingress => "ingress",
        Hook::Egress => "egress",
    };
    let mut names = Vec::new();
    // nft(8) hands them to the kernel last first.
    for device in base.devices.iter().rev() {
        let device = device.as_str();
        // nft(8) from 1.1.4 on reads a star as "all that begin so".
        if device.ends_with('*') || device.contains('\\') {
            return Err(format!("nft(8) does not take the device {} for the name it is", word::literal(device)));
        }
        names.push(word::quoted(device)?);
    }
    let devices = match names.as_slice() {
        [] if matches!(base.hook, Hook::Egress | Hook::Ingress) => {
            return Err("nft(8) takes no chain on that hook without a device".to_owned());
        }
        [] => String::new(),
        [one] => format!(" device {one}"),
        many => format!(" devices = {{ {} }}", many.join(", ")),
    };
    let priority = show_priority(family, base);
    let policy = match base.policy {
        ChainPolicy::Accept => "accept",
        ChainPolicy::Drop => "drop",
    };
    Ok(format!("type {kind} hook {hook}{devices} priority {priority}; policy {policy};"))
}

/// The priority by name where nft(8) has one for that number, family and hook.
fn show_priority(family: Family, base: &BaseChain) -> String {
    let layer3 = matches!(family, Family::Ip | Family::Ip6 | Family::Inet) && base.hook != Hook::Ingress;
    let name = match (base.priority.0, base.hook) {
        (0, _) if layer3 || family == Family::Netdev => "filter",
        (-300, _) if layer3 => "raw",
        (-150, _) if layer3 => "mangle",
        (-100, Hook::Prerouting) if layer3 => "dstnat",
        (50, _) if layer3 => "security",
        (100, Hook::Postrouting) if layer3 => "srcnat",
        (number, _) => return number.to_string(),
    };
    name.to_owned()
}

fn of_table(table: &TableId) -> String {
    format!("table {} {}", table.family, table.name.as_str().escape_debug())
}

fn of_set(table: &TableId, set: &SetName) -> String {
    format!("set {} {} {}", table.family, table.name.as_str().escape_debug(), set.as_str().escape_debug())
}

fn of_chain(table: &TableId, chain: &ChainName) -> String {
    format!("chain {} {} {}", table.family, table.name.as_str().escape_debug(), chain.as_str().escape_debug())
}

fn of_rule(index: usize, rule: &Rule) -> String {
    let handle = rule.handle.map(|handle| format!(" (handle {})", handle.0)).unwrap_or_default();
    format!("rule {}{handle} of {}", index + 1, of_chain(&rule.table, &rule.chain))
}
