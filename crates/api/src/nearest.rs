//! Holds: the known name that somebody probably meant.

/// Names further apart than this are different words.
const SIMILAR: f64 = 0.75;

/// The known name nearest to `name`, if it is near.
pub(crate) fn name<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    // Comparing is quadratic in length; nobody mistypes a name of this length.
    if name.len() > 64 {
        return None;
    }
    let likeness = |known: &str| strsim::jaro_winkler(name, known);
    let (best, score) = known.iter().map(|known| (*known, likeness(known))).max_by(|a, b| a.1.total_cmp(&b.1))?;
    (score >= SIMILAR).then_some(best)
}
