//! Holds: what is counted of a call, and how much of each.

use crate::listed;

listed! {
    /// Something that is counted of a call.
    pub enum Measure {
        /// Tokens read.
        PromptTokens,
        /// Those of them that the model server found in its prefix cache.
        CachedTokens,
        /// Tokens produced, hidden reasoning among them.
        CompletionTokens,
    }
}

/// How much of each measure a request came to, or many together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; Measure::ALL.len()]);

impl Measure {
    /// The measure that it is a part of, and no addition to.
    pub const fn part_of(self) -> Option<Self> {
        match self {
            Self::CachedTokens => Some(Self::PromptTokens),
            Self::PromptTokens | Self::CompletionTokens => None,
        }
    }
}

impl Counts {
    /// Nothing.
    pub const NONE: Self = Self([0; Measure::ALL.len()]);

    /// So many tokens read and produced.
    pub const fn of_tokens(prompt: u64, completion: u64) -> Self {
        Self::NONE.with(Measure::PromptTokens, prompt).with(Measure::CompletionTokens, completion)
    }

    /// The same with this count of a measure.
    #[must_use]
    pub const fn with(mut self, measure: Measure, count: u64) -> Self {
        self.0[measure as usize] = count;
        self
    }

    /// How much of a measure.
    pub const fn of(self, measure: Measure) -> u64 {
        self.0[measure as usize]
    }

    /// The smaller of each, and of a part no more than of what it is a part of.
    #[must_use]
    pub fn at_most(self, most: Self) -> Self {
        let smaller = Measure::ALL
            .into_iter()
            .fold(self, |counts, measure| counts.with(measure, counts.of(measure).min(most.of(measure))));
        Measure::ALL.into_iter().fold(smaller, |counts, measure| match measure.part_of() {
            Some(whole) => counts.with(measure, counts.of(measure).min(counts.of(whole))),
            None => counts,
        })
    }

    /// Whether any is larger than in `most`, parts aside.
    pub fn is_over(self, most: Self) -> bool {
        Measure::ALL.into_iter().any(|measure| measure.part_of().is_none() && self.of(measure) > most.of(measure))
    }

    /// Prompt and completion tokens together.
    pub const fn tokens(self) -> u64 {
        self.of(Measure::PromptTokens).saturating_add(self.of(Measure::CompletionTokens))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts() -> impl Strategy<Value = Counts> {
        any::<[u64; Measure::ALL.len()]>().prop_map(Counts)
    }

    #[test]
    fn every_measure_has_a_place_of_its_own() {
        for (index, measure) in Measure::ALL.into_iter().enumerate() {
            let counts = Counts::NONE.with(measure, 7);
            assert_eq!((measure as usize, counts.of(measure)), (index, 7));
            assert!(Measure::ALL.into_iter().all(|other| other == measure || counts.of(other) == 0));
        }
    }

    proptest! {
        #[test]
        fn what_is_bounded_is_over_nothing(some in counts(), most in counts()) {
            let bounded = some.at_most(most);
            prop_assert!(!bounded.is_over(most));
            for measure in Measure::ALL {
                prop_assert!(bounded.of(measure) <= some.of(measure).min(most.of(measure)));
                prop_assert!(measure.part_of().is_none_or(|whole| bounded.of(measure) <= bounded.of(whole)));
            }
            prop_assert!(some.is_over(most) || some.tokens() == bounded.tokens());
        }
    }
}
