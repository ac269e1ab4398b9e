//! Holds: what is counted of a call, and how much of each.

use crate::listed;

listed! {
    /// Something that is counted of a call.
    pub enum Measure {
        /// Tokens read.
        PromptTokens,
        /// Those of them that the model server found in its prefix cache.
        CachedTokens,
        /// Those of the prompt that the server wrote to its cache and says so. None of them was found there.
        CacheWriteTokens,
        /// Tokens produced, hidden reasoning among them.
        CompletionTokens,
        /// Unicode scalars of a text that is spoken, in normalisation form C.
        Characters,
        /// Milliseconds of sound, heard or made.
        AudioMs,
        /// Pictures made. They are priced by their pixels.
        Images,
        /// Pixels of the pictures made, all together.
        Pixels,
        /// Milliseconds of film made.
        VideoMs,
        /// Documents ranked.
        Searches,
    }
}

/// Pixels of a picture of 1024 by 1024, by which pictures are priced.
const PIXELS_OF_AN_IMAGE: u64 = 1_024 * 1_024;
const MS_PER_SECOND: u64 = 1_000;

/// How much of each measure a request came to, or many together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; Measure::ALL.len()]);

impl Measure {
    /// The measure that it is a part of, and no addition to. Of several parts of one whole none has what another has.
    pub const fn part_of(self) -> Option<Self> {
        match self {
            Self::CachedTokens | Self::CacheWriteTokens => Some(Self::PromptTokens),
            Self::PromptTokens
            | Self::CompletionTokens
            | Self::Characters
            | Self::AudioMs
            | Self::Images
            | Self::Pixels
            | Self::VideoMs
            | Self::Searches => None,
        }
    }

    /// Whether tokens are counted. Everything else is counted of few requests.
    pub const fn is_of_tokens(self) -> bool {
        matches!(self, Self::PromptTokens | Self::CachedTokens | Self::CacheWriteTokens | Self::CompletionTokens)
    }

    /// How many of it a price is for: sound and film are priced by the second, pictures by 1024 times 1024 pixels.
    pub const fn per_price(self) -> u64 {
        match self {
            Self::AudioMs | Self::VideoMs => MS_PER_SECOND,
            Self::Pixels => PIXELS_OF_AN_IMAGE,
            Self::PromptTokens
            | Self::CachedTokens
            | Self::CacheWriteTokens
            | Self::CompletionTokens
            | Self::Characters
            | Self::Images
            | Self::Searches => 1,
        }
    }

    /// Those of which few requests have any.
    pub fn made() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|measure| !measure.is_of_tokens())
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

    /// The smaller of each, and of parts together no more than of what they are parts of.
    #[must_use]
    #[inline]
    pub fn at_most(self, most: Self) -> Self {
        let smaller = Measure::ALL
            .into_iter()
            .fold(self, |counts, measure| counts.with(measure, counts.of(measure).min(most.of(measure))));
        let apart = smaller.apart();
        let parts = Measure::ALL.into_iter().filter(|measure| measure.part_of().is_some());
        parts.fold(smaller, |counts, part| counts.with(part, apart.of(part)))
    }

    /// The same with each unit in one place: a part has no more than the parts before it leave of its whole, and of the
    /// whole is there what is in no part.
    #[must_use]
    #[inline]
    pub fn apart(self) -> Self {
        Measure::ALL.into_iter().fold(self, |counts, measure| match measure.part_of() {
            Some(whole) => {
                let part = counts.of(measure).min(counts.of(whole));
                counts.with(measure, part).with(whole, counts.of(whole).saturating_sub(part))
            }
            None => counts,
        })
    }

    /// The same without parts.
    #[must_use]
    #[inline]
    pub fn whole(self) -> Self {
        let parts = Measure::ALL.into_iter().filter(|measure| measure.part_of().is_some());
        parts.fold(self, |counts, part| counts.with(part, 0))
    }

    /// Both together, as far as numbers go.
    #[must_use]
    #[inline]
    pub fn plus(self, more: Self) -> Self {
        let add = |sum: Self, measure| sum.with(measure, sum.of(measure).saturating_add(more.of(measure)));
        Measure::ALL.into_iter().fold(self, add)
    }

    /// Whether anything but tokens was counted.
    pub fn has_made(self) -> bool {
        Measure::made().any(|measure| self.of(measure) > 0)
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

    #[test]
    fn what_was_found_goes_before_what_was_written() {
        let told = |cached, written| {
            Counts::of_tokens(9, 3).with(Measure::CachedTokens, cached).with(Measure::CacheWriteTokens, written)
        };
        for (counts, expected) in [
            (told(4, 5), told(4, 5)),
            (told(4, 6), told(4, 5)),
            (told(9, 9), told(9, 0)),
            (told(u64::MAX, u64::MAX), told(9, 0)),
            (told(0, u64::MAX), told(0, 9)),
        ] {
            assert_eq!(counts.at_most(Counts([u64::MAX; Measure::ALL.len()])), expected);
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
            prop_assert_eq!(bounded.at_most(most), bounded);
        }

        #[test]
        fn each_unit_is_in_one_place(some in counts()) {
            let (apart, bounded) = (some.apart(), some.at_most(some));
            for whole in Measure::ALL.into_iter().filter(|measure| measure.part_of().is_none()) {
                let parts = Measure::ALL.into_iter().filter(|part| part.part_of() == Some(whole));
                let sum: u128 = parts.map(|part| u128::from(apart.of(part))).sum();
                prop_assert_eq!(sum + u128::from(apart.of(whole)), u128::from(some.of(whole)));
            }
            for part in Measure::ALL.into_iter().filter(|measure| measure.part_of().is_some()) {
                prop_assert_eq!(apart.of(part), bounded.of(part));
            }
        }
    }
}
