//! Holds: the tiers in which OpenAI's clients ask to be served, and those that there are here.

/// A tier of service: how long a client waits, and what it pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// At once, at the standard price.
    Default,
    /// When nobody else needs the model servers, for less.
    Flex,
}

/// OpenAI's words. Its faster tiers are served as the standard one, as it does itself for who is not entitled to them.
const WORDS: [(&str, Tier); 6] = [
    ("\"auto\"", Tier::Default),
    ("\"default\"", Tier::Default),
    ("\"flex\"", Tier::Flex),
    ("\"priority\"", Tier::Default),
    ("\"scale\"", Tier::Default),
    ("\"fast\"", Tier::Default),
];

impl Tier {
    /// The word in an answer.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Flex => "flex",
        }
    }

    /// The word in an answer, as JSON.
    pub(crate) const fn json(self) -> &'static str {
        match self {
            Self::Default => "\"default\"",
            Self::Flex => "\"flex\"",
        }
    }

    /// The tier that a body asks for by this JSON.
    pub(crate) fn asked(json: &str) -> Option<Self> {
        WORDS.into_iter().find(|(word, _)| *word == json).map(|(_, tier)| tier)
    }

    /// The words that can be asked for, for a message.
    pub(crate) fn words() -> String {
        WORDS.map(|(word, _)| word.trim_matches('"')).join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faster_tiers_are_the_standard_one() {
        for (word, tier) in [("auto", "default"), ("default", "default"), ("flex", "flex"), ("priority", "default")] {
            let asked = Tier::asked(&format!("\"{word}\"")).unwrap();
            assert_eq!((asked.name(), asked.json()), (tier, format!("\"{tier}\"").as_str()));
        }
        for other in ["\"standard_only\"", "\"\"", "1", "\"Flex\""] {
            assert_eq!(Tier::asked(other), None, "{other}");
        }
        assert_eq!(Tier::words(), "auto, default, flex, priority, scale, fast");
    }
}
