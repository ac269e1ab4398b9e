//! Holds: the known name that a mistyped one most likely meant.

/// Below this similarity (0 to 1) a suggestion would only confuse.
const LEAST_SIMILARITY: f64 = 0.7;

/// The most similar of `known`, when one is similar at all.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(typed, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= LEAST_SIMILARITY)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_slip_is_understood_and_another_word_is_not() {
        let known = ["listen", "public_url", "data_dir"];
        for (typed, expected) in [
            ("lisen", Some("listen")),
            ("publicurl", Some("public_url")),
            ("datadir", Some("data_dir")),
            ("colour", None),
        ] {
            assert_eq!(super::nearest(typed, known), expected, "{typed}");
        }
    }
}
