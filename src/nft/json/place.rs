//! Where in a document's text a value stands.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_path_to_error::{Path, Segment};

use super::words::excerpt;
use crate::nft::{Object, Operation, Ruleset};

/// One step down to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// The steps to where an error arose, as far as they are known.
pub(super) fn steps(path: &Path) -> Vec<Step> {
    let step = |segment: &Segment| match segment {
        Segment::Map { key: name } | Segment::Enum { variant: name } => Some(Step::Key(name.clone())),
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Unknown => None,
    };
    path.iter().map_while(step).collect()
}

/// Writes steps as errors show them: `ringfence.ruleset.tables[0].id.family`.
pub(super) fn shown(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Index(index) => path += &format!("[{index}]"),
            Step::Key(key) if path.is_empty() => path += &excerpt(key),
            Step::Key(key) => path += &format!(".{}", excerpt(key)),
        }
    }
    path
}

/// Line and column at which the value stands that the steps lead to.
///
/// Reads the text anew, up to that value: only what went wrong has to be found. Of keys that are there twice, the first counts.
pub(super) fn find(text: &str, steps: &[Step]) -> Option<(usize, usize)> {
    let reached = Cell::new(false);
    let walk = Walk { steps, reached: &reached };
    let stopped = walk.deserialize(&mut serde_json::Deserializer::from_str(text)).err()?;
    // Its column is that of the byte in front.
    (reached.get() && stopped.line() > 0).then(|| (stopped.line(), stopped.column() + 1))
}

/// Reads up to a value and fails there, for serde_json says where it stands when something fails.
#[derive(Clone, Copy)]
struct Walk<'a> {
    steps: &'a [Step],
    reached: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.steps.is_empty() {
            self.reached.set(true);
            return Err(D::Error::custom("reached"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Step::Key(wanted), steps)) = self.steps.split_first() else {
            return Err(A::Error::custom("an object"));
        };
        while let Some(key) = map.next_key::<String>()? {
            if key == *wanted {
                map.next_value_seed(Walk { steps, ..self })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((Step::Index(wanted), steps)) = self.steps.split_first() else {
            return Err(A::Error::custom("an array"));
        };
        for _ in 0..*wanted {
            if list.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        list.next_element_seed(Walk { steps, ..self }).map(drop)
    }
}

/// The steps to what an operation makes of a ruleset. `None` when there is nothing of it in the ruleset.
///
/// Operations come in another order than the lists have. But of those that are the same, the first makes what stands first.
pub(super) fn origin(ruleset: &Ruleset, operations: &[Operation], operation: usize) -> Option<Vec<Step>> {
    let object = &operations.get(operation)?.object;
    let same = |other: &Operation| match (object, &other.object) {
        // Some elements of a set may have been left out.
        (Object::Elements { table, set, .. }, Object::Elements { table: of, set: other, .. }) => {
            (table, set) == (of, other)
        }
        (object, other) => object == other,
    };
    let before = operations.iter().take(operation).filter(|other| same(other)).count();
    let (list, index) = match object {
        Object::Table(table) => ("tables", nth(&ruleset.tables, before, |other| other == table)),
        Object::Chain(chain) => ("chains", nth(&ruleset.chains, before, |other| other == chain)),
        Object::Stateful(object) => ("objects", nth(&ruleset.objects, before, |other| other == object)),
        Object::Flowtable(table) => ("flowtables", nth(&ruleset.flowtables, before, |other| other == table)),
        Object::Set(set) => ("sets", nth(&ruleset.sets, before, |other| other == set)),
        Object::Elements { table, set, .. } => {
            ("elements", nth(&ruleset.elements, before, |(of, other, _)| (of, other) == (table, set)))
        }
        Object::Rule(rule) => ("rules", nth(&ruleset.rules, before, |other| other == rule)),
        Object::ChainName { .. } | Object::Everything => return None,
    };
    let keys = ["ringfence", "ruleset", list].map(|key| Step::Key(key.to_owned()));
    Some(keys.into_iter().chain([Step::Index(index?)]).collect())
}

/// Index of the nth item that is meant, counted from 0.
fn nth<T>(items: &[T], nth: usize, meant: impl Fn(&T) -> bool) -> Option<usize> {
    items.iter().enumerate().filter(|(_, item)| meant(item)).nth(nth).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found() {
        let text = "{\"a\": [1,\n  {\"b\":\n {\"c\": 2}}], \"d\":3, \"é\" : [4]}";
        let (a, b, c) = (Step::Key("a".into()), Step::Key("b".into()), Step::Key("c".into()));
        let of = |steps: &[&Step]| find(text, &steps.iter().map(|step| (*step).clone()).collect::<Vec<_>>());
        let [zero, one, two] = [0, 1, 2].map(Step::Index);
        assert_eq!(of(&[&a]), Some((1, 7)));
        assert_eq!(of(&[&a, &zero]), Some((1, 8)));
        assert_eq!(of(&[&a, &one]), Some((2, 3)));
        assert_eq!(of(&[&a, &one, &b]), Some((3, 2)));
        assert_eq!(of(&[&a, &one, &b, &c]), Some((3, 8)));
        assert_eq!(of(&[&Step::Key("é".into()), &zero]), Some((3, 29)));
        for nowhere in [&[&a, &two] as &[&Step], &[&b], &[&zero], &[&a, &zero, &a], &[&a, &a]] {
            assert_eq!(of(nowhere), None, "{nowhere:?}");
        }
        // What comes behind it need not be JSON.
        assert_eq!(find("{\"a\":\n[", &[Step::Key("a".into())]), Some((2, 1)));
    }
}
