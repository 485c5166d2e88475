//! What somebody may have meant.

/// The known word nearest to a wrong one, where it is near enough to be meant.
pub(super) fn nearest(wrong: &str, known: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    let near = |distance: usize, word: &str| distance * 3 <= word.len().max(3);
    // Distance costs length times length, and is not less than the difference of the two.
    let length = wrong.chars().count();
    let alike = known.into_iter().filter(|word| near(length.abs_diff(word.len()), word));
    let (distance, word) = alike.map(|word| (strsim::osa_distance(wrong, word), word)).min()?;
    near(distance, word).then_some(word)
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
