//! What somebody may have meant.

/// The known word nearest to a wrong one, where it is near enough to be meant.
pub(super) fn nearest(wrong: &str, known: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    // Nobody mistypes a word of that length, and distance costs length times length.
    const LONGEST: usize = 64;
    if wrong.len() > LONGEST {
        return None;
    }
    let (distance, word) = known.into_iter().map(|word| (strsim::osa_distance(wrong, word), word)).min()?;
    (distance * 3 <= word.len().max(3)).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_is_a_third_of_the_word() {
        let known = ["allow", "proxy", "dns"];
        assert_eq!(nearest("alow", known), Some("allow"));
        assert_eq!(nearest("porxy", known), Some("proxy"));
        assert_eq!(nearest("dn", known), Some("dns"));
        assert_eq!(nearest("deny", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest(&"a".repeat(1 << 20), known), None);
    }
}
