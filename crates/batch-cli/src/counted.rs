//! Holds: numbers with their nouns.

use std::fmt::Display;

/// `1 task`, `2 tasks`; for nouns that take an s.
pub fn counted(count: impl Display, noun: &str) -> String {
    let count = count.to_string();
    let ending = if count == "1" { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn one_is_one() {
        let said = [0, 1, 2, 11].map(|count| counted(count, "task"));
        assert_eq!(said, ["0 tasks", "1 task", "2 tasks", "11 tasks"]);
    }
}
