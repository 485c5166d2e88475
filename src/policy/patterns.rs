//! Values that belong to patterns of names, found by a name.

use std::borrow::Borrow;
use std::collections::HashMap;

use super::{DnsName, HostPattern};

/// Values under patterns. A look-up takes one step a label, however many patterns there are.
#[derive(Debug, Clone)]
pub(crate) struct PatternMap<T> {
    exact: HashMap<DnsName, Vec<T>>,
    below: HashMap<DnsName, Vec<T>>,
}

impl<T> Default for PatternMap<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), below: HashMap::new() }
    }
}

impl<T> PatternMap<T> {
    /// Adds a value. One pattern may have several.
    pub(crate) fn insert(&mut self, pattern: &HostPattern, value: T) {
        let (map, name) = match pattern {
            HostPattern::Exact(name) => (&mut self.exact, name),
            HostPattern::Below(name) => (&mut self.below, name),
        };
        map.entry(name.clone()).or_default().push(value);
    }

    /// The values of every pattern that names that name.
    pub(crate) fn matching<'a>(&'a self, name: &'a DnsName) -> impl Iterator<Item = &'a T> {
        let mut rest = name.as_str();
        let above = std::iter::from_fn(move || {
            rest = rest.split_once('.')?.1;
            Some(rest)
        });
        let below = above.filter_map(|above| self.below.get(above));
        self.exact.get(name.as_str()).into_iter().chain(below).flatten()
    }
}

impl Borrow<str> for DnsName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_up_finds_what_matching_finds() {
        let patterns =
            ["example.com", "*.example.com", "*.com", "*.a.example.com", "com", "*.ample.com", "b.example.com"];
        let patterns: Vec<HostPattern> = patterns.map(|text| text.parse().unwrap()).into();
        let mut map = PatternMap::default();
        patterns.iter().for_each(|pattern| map.insert(pattern, pattern.clone()));
        for name in
            ["com", "example.com", "b.example.com", "x.a.example.com", "a.example.com", "example.net", "ample.com"]
        {
            let name: DnsName = name.parse().unwrap();
            let mut found: Vec<_> = map.matching(&name).cloned().collect();
            let mut wanted: Vec<_> = patterns.iter().filter(|pattern| pattern.matches(&name)).cloned().collect();
            found.sort();
            wanted.sort();
            assert_eq!(found, wanted, "{name}");
        }
    }
}
