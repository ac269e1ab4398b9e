//! Holds: prices, and the one place where counts become money.
#![deny(clippy::float_arithmetic)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::fmt;

use crate::{Amount, Class, Counts, Measure};

/// Pico-dollars in a nano-dollar.
const PICO_PER_NANO: u128 = 1_000;
/// A dollar per million tokens is a micro-dollar, a million pico-dollars, per token.
const RATE_DECIMALS: u32 = 6;
/// A dollar is so many decimals of pico-dollars.
const UNIT_DECIMALS: u32 = 12;
const PPM: u128 = 1_000_000;

/// Pico-dollars per unit: per token, character, document, second, or picture of 1024 by 1024 ([`Measure::per_price`]).
/// `$0.02` per million tokens is 20,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

/// The version of a price list; the one in force when the hold is opened is the one charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PriceVersion(pub i64);

/// What one of each measure costs, in one class: one of a part what the part costs, in place of what its whole does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tariff([Rate; Measure::ALL.len()]);

/// A model's prices in every class, all of one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassPrices {
    standard: Tariff,
    classes: [Tariff; 4],
}

/// A factor on the standard price, in parts per million: 0.5 is 500,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factor(u32);

/// Why a text is no price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParsePriceError {
    /// Not a plain non-negative decimal.
    #[error("must be a decimal number of dollars, zero or more, such as 0.02")]
    NotADecimal,
    /// More decimals than it can have: six, or twelve of what is priced one by one.
    #[error("must have at most {0} decimals")]
    TooFine(u32),
    /// Out of range.
    #[error("is too large")]
    TooLarge,
}

impl Rate {
    /// Free of charge.
    pub const FREE: Self = Self(0);

    /// From pico-dollars per unit.
    pub const fn from_pico(pico: u64) -> Self {
        Self(pico)
    }

    /// Pico-dollars per unit.
    pub const fn pico(self) -> u64 {
        self.0
    }

    /// From decimal dollars per million units, exactly: `"0.02"` is 20,000 pico-dollars per unit.
    pub fn parse_dollars_per_million(text: &str) -> Result<Self, ParsePriceError> {
        parse_fixed(text, RATE_DECIMALS).map(Self)
    }

    /// From decimal dollars per unit, exactly: `"0.0001"` is 100,000,000 pico-dollars.
    pub fn parse_dollars(text: &str) -> Result<Self, ParsePriceError> {
        parse_fixed(text, UNIT_DECIMALS).map(Self)
    }

    /// Decimal dollars per unit: `0.0001`.
    pub fn to_dollars_text(self) -> String {
        fixed_text(self.0, UNIT_DECIMALS)
    }

    /// Decimal dollars per million units: `0.02`.
    pub fn to_dollars_per_million_text(self) -> String {
        fixed_text(self.0, RATE_DECIMALS)
    }

    /// This rate times a factor, rounded up to a whole pico-dollar.
    #[must_use]
    pub fn scaled(self, factor: Factor) -> Self {
        let scaled = u128::from(self.0).saturating_mul(u128::from(factor.0)).div_ceil(PPM);
        Self(u64::try_from(scaled).unwrap_or(u64::MAX))
    }
}

impl Factor {
    /// The standard price itself.
    pub const ONE: Self = Self(1_000_000);

    /// From decimal text: `"0.5"`. At most six decimals.
    pub fn parse(text: &str) -> Result<Self, ParsePriceError> {
        u32::try_from(parse_fixed(text, RATE_DECIMALS)?).map(Self).map_err(|_| ParsePriceError::TooLarge)
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&fixed_text(u64::from(self.0), RATE_DECIMALS))
    }
}

impl Tariff {
    /// Nothing costs anything.
    pub const FREE: Self = Self([Rate::FREE; Measure::ALL.len()]);

    /// Tokens read and produced at these prices; those found in a cache or written to one cost what all that are read do.
    pub const fn of_tokens(prompt: Rate, completion: Rate) -> Self {
        Self::FREE
            .with(Measure::PromptTokens, prompt)
            .with(Measure::CachedTokens, prompt)
            .with(Measure::CacheWriteTokens, prompt)
            .with(Measure::CompletionTokens, completion)
    }

    /// The same with this price of a measure; its parts keep theirs.
    #[must_use]
    pub const fn with(mut self, measure: Measure, rate: Rate) -> Self {
        self.0[measure as usize] = rate;
        self
    }

    /// Whether a measure costs anything.
    pub fn charges_for(self, measure: Measure) -> bool {
        self.rate(measure) != Rate::FREE
    }

    /// What one of a measure costs.
    pub const fn rate(self, measure: Measure) -> Rate {
        self.0[measure as usize]
    }

    /// What `counts` cost: `ceil(sum(count * rate) / 1000)` nano-dollars, rounded once, each unit at one rate: of a whole
    /// what is in no part, of its parts together no more than the whole. What is counted finer than it is priced is
    /// rounded up to a whole pico-dollar, each measure once.
    pub fn cost(self, counts: Counts) -> Amount {
        rounded_up(self.pico(counts.apart()))
    }

    /// The most that counts can cost of which none is larger than in `most`, whatever parts they have. This is what is held
    /// for: how much of a prompt is found in a cache or written to one is known only afterwards.
    pub fn highest_cost(self, most: Counts) -> Amount {
        rounded_up(self.highest().pico(most.whole()))
    }

    /// The most of a measure that `money` pays for beside the other counts of `most`, whatever parts they have; `None` when
    /// it is free.
    pub fn affordable(self, measure: Measure, money: Amount, most: Counts) -> Option<u64> {
        let (highest, budget) =
            (self.highest(), u128::from(money.nanos().unsigned_abs()).saturating_mul(PICO_PER_NANO));
        let left = budget.saturating_sub(highest.pico(most.with(measure, 0).whole()));
        let left = left.saturating_mul(u128::from(measure.per_price()));
        left.checked_div(u128::from(highest.rate(measure).0)).map(|count| u64::try_from(count).unwrap_or(u64::MAX))
    }

    /// Wholes at the highest rate that one of them can have.
    fn highest(self) -> Self {
        let parts = Measure::ALL.into_iter().filter_map(|part| Some((part, part.part_of()?)));
        parts.fold(self, |tariff, (part, whole)| tariff.with(whole, tariff.rate(whole).max(tariff.rate(part))))
    }

    fn pico(self, counts: Counts) -> u128 {
        let of = |measure: Measure| {
            let cost = u128::from(counts.of(measure)).saturating_mul(u128::from(self.rate(measure).0));
            if measure.per_price() == 1 { cost } else { cost.div_ceil(u128::from(measure.per_price())) }
        };
        Measure::ALL.into_iter().map(of).fold(0, u128::saturating_add)
    }

    fn scaled(self, factor: Factor) -> Self {
        Self(self.0.map(|rate| rate.scaled(factor)))
    }
}

impl ClassPrices {
    /// Prices from the standard price and the factors of the three batch classes.
    pub fn new(standard: Tariff, high: Factor, low: Factor, fill: Factor) -> Self {
        Self { standard, classes: [standard, standard.scaled(high), standard.scaled(low), standard.scaled(fill)] }
    }

    /// The interactive price.
    pub const fn standard(&self) -> Tariff {
        self.standard
    }

    /// The price in a class.
    pub fn in_class(&self, class: Class) -> Tariff {
        let [interactive, high, low, fill] = self.classes;
        match class {
            Class::Interactive => interactive,
            Class::High => high,
            Class::Low => low,
            Class::Fill => fill,
        }
    }
}

fn rounded_up(pico: u128) -> Amount {
    Amount::saturating_from_nanos(pico.div_ceil(PICO_PER_NANO))
}

/// Decimal text to units of its last possible decimal.
fn parse_fixed(text: &str, decimals: u32) -> Result<u64, ParsePriceError> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let all_digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) {
        return Err(ParsePriceError::NotADecimal);
    }
    let fraction = fraction.trim_end_matches('0');
    let missing = u32::try_from(fraction.len())
        .ok()
        .and_then(|len| decimals.checked_sub(len))
        .ok_or(ParsePriceError::TooFine(decimals))?;
    let digits: u64 = format!("{whole}{fraction}").parse().map_err(|_| ParsePriceError::TooLarge)?;
    10_u64.checked_pow(missing).and_then(|scale| digits.checked_mul(scale)).ok_or(ParsePriceError::TooLarge)
}

fn fixed_text(units: u64, decimals: u32) -> String {
    let text = format!("{units:0width$}", width = decimals.saturating_add(1) as usize);
    let (whole, rest) = text.split_at(text.len().saturating_sub(decimals as usize));
    let rest = rest.trim_end_matches('0');
    if rest.is_empty() { whole.to_owned() } else { format!("{whole}.{rest}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tariff(input: &str, output: &str) -> Tariff {
        let rate = |text| Rate::parse_dollars_per_million(text).unwrap();
        Tariff::of_tokens(rate(input), rate(output))
    }

    #[test]
    fn a_dollar_price_is_exact_pico_dollars() {
        assert_eq!(Rate::parse_dollars_per_million("0.02"), Ok(Rate::from_pico(20_000)));
        assert_eq!(Rate::parse_dollars_per_million("0.0000001"), Err(ParsePriceError::TooFine(6)));
        assert_eq!(Rate::parse_dollars_per_million("-1"), Err(ParsePriceError::NotADecimal));
        assert_eq!(Rate::from_pico(20_000).to_dollars_per_million_text(), "0.02");
        assert_eq!(Rate::from_pico(3_000_000).to_dollars_per_million_text(), "3");
        let second = Rate::from_pico(100_000_000);
        assert_eq!((Rate::parse_dollars("0.0001"), second.to_dollars_text().as_str()), (Ok(second), "0.0001"));
        assert_eq!(Rate::parse_dollars("0.0000000000001"), Err(ParsePriceError::TooFine(12)));
        assert_eq!(Rate::FREE.to_dollars_text(), "0");
    }

    #[test]
    fn cost_rounds_up_once_over_both_sides() {
        // 1 x 20,000.4 pico would be 21 + 81 nano when rounded per side; together it is one rounding.
        let tariff = Tariff::of_tokens(Rate::from_pico(20_400), Rate::from_pico(80_400));
        assert_eq!(tariff.cost(Counts::of_tokens(1, 1)).nanos(), 101);
        assert_eq!(self::tariff("0.02", "0.08").cost(Counts::of_tokens(12, 92)).nanos(), 7_600);
    }

    #[test]
    fn a_part_costs_what_it_costs_in_place_of_its_whole() {
        let rate = |text| Rate::parse_dollars_per_million(text).unwrap();
        let tariff = tariff("0.02", "0.08")
            .with(Measure::CachedTokens, rate("0.005"))
            .with(Measure::CacheWriteTokens, rate("0.025"));
        let counts = |cached, written| {
            Counts::of_tokens(100, 10).with(Measure::CachedTokens, cached).with(Measure::CacheWriteTokens, written)
        };
        for (counts, nanos) in [
            (counts(0, 0), 2_000 + 800),
            (counts(60, 30), 200 + 300 + 750 + 800),
            (counts(100, 0), 500 + 800),
            (counts(0, 100), 2_500 + 800),
            // More than there was to read is priced nowhere.
            (counts(100, 100), 500 + 800),
            (counts(90, u64::MAX), 450 + 250 + 800),
        ] {
            assert_eq!(tariff.cost(counts).nanos(), nanos, "{counts:?}");
            assert_eq!(tariff.highest_cost(counts).nanos(), 2_500 + 800, "{counts:?}");
        }
    }

    #[test]
    fn what_is_made_is_priced_by_its_unit() {
        let dollars = |text| Rate::parse_dollars(text).unwrap();
        let tariff = Tariff::FREE
            .with(Measure::Characters, Rate::parse_dollars_per_million("15").unwrap())
            .with(Measure::AudioMs, dollars("0.0001"))
            .with(Measure::Pixels, dollars("0.003"))
            .with(Measure::VideoMs, dollars("0.05"))
            .with(Measure::Searches, dollars("0.001"));
        for (measure, count, nanos) in [
            (Measure::Characters, 1_000, 15_000_000),
            (Measure::AudioMs, 1_500, 150_000),
            (Measure::AudioMs, 1, 100),
            (Measure::Pixels, 1_024 * 1_024, 3_000_000),
            (Measure::Pixels, 512 * 512, 750_000),
            (Measure::Pixels, 1, 3),
            (Measure::VideoMs, 5_041, 252_050_000),
            (Measure::Searches, 3, 3_000_000),
            (Measure::Images, 9, 0),
        ] {
            let counts = Counts::NONE.with(measure, count);
            assert_eq!(tariff.cost(counts).nanos(), nanos, "{measure:?} {count}");
            assert_eq!(tariff.highest_cost(counts), tariff.cost(counts));
        }
        // Rounded once: of two that are each a part of a nano-dollar.
        let counts = Counts::of_tokens(1, 0).with(Measure::AudioMs, 1);
        let fine = Tariff::of_tokens(Rate::from_pico(400), Rate::FREE).with(Measure::AudioMs, Rate::from_pico(400_000));
        assert_eq!(fine.cost(counts).nanos(), 1);
    }

    #[test]
    fn the_largest_counts_and_rates_overflow_nothing() {
        let most = Measure::ALL.into_iter().fold(Counts::NONE, |counts, measure| counts.with(measure, u64::MAX));
        let dear = Tariff([Rate::from_pico(u64::MAX); Measure::ALL.len()]);
        assert_eq!(dear.cost(most), dear.highest_cost(most));
        assert_eq!(dear.affordable(Measure::CompletionTokens, dear.cost(most), most), Some(0));
    }

    fn any_tariff(rates: std::ops::Range<u64>) -> impl Strategy<Value = Tariff> {
        proptest::array::uniform(rates).prop_map(|rates| Tariff(rates.map(Rate::from_pico)))
    }

    fn any_counts(counts: std::ops::Range<u64>) -> impl Strategy<Value = Counts> {
        let place = |counts: Counts, (measure, count)| counts.with(measure, count);
        let all = proptest::array::uniform::<_, { Measure::ALL.len() }>(counts);
        all.prop_map(move |all| Measure::ALL.into_iter().zip(all).fold(Counts::NONE, place))
    }

    proptest! {
        #[test]
        fn cost_is_monotonic_and_never_below_the_exact_value(
            tariff in any_tariff(0..10_000_000), counts in any_counts(0..1_000_000), more in 0u64..1_000,
        ) {
            let cost = tariff.cost(counts);
            let [prompt, cached, written, made @ ..] = Measure::ALL.map(|measure| u128::from(counts.of(measure)));
            let cached = cached.min(prompt);
            let written = written.min(prompt - cached);
            let each = [prompt - cached - written, cached, written].into_iter().chain(made).zip(tariff.0);
            let each = each.zip(Measure::ALL.map(|measure| u128::from(measure.per_price())));
            let exact: u128 = each.map(|((count, rate), per)| (count * u128::from(rate.pico())).div_ceil(per)).sum();
            let nanos = u128::from(cost.nanos().unsigned_abs());
            prop_assert!(nanos * 1000 >= exact && nanos * 1000 < exact + 1000);
            for whole in Measure::ALL.into_iter().filter(|measure| measure.part_of().is_none()) {
                prop_assert!(tariff.cost(counts.with(whole, counts.of(whole) + more)) >= cost);
            }
        }

        #[test]
        fn the_highest_cost_covers_whatever_parts_a_prompt_has(
            tariff in any_tariff(0..u64::MAX), most in any_counts(0..u64::MAX), told in any_counts(0..u64::MAX),
        ) {
            let parts = [Measure::CachedTokens, Measure::CacheWriteTokens];
            let bound = parts.into_iter().fold(most, |bound, part| bound.with(part, most.of(Measure::PromptTokens)));
            prop_assert!(tariff.cost(told.at_most(bound)) <= tariff.highest_cost(most));
            // And no more than that: a prompt that is all one of its parts can cost it.
            let all_of = |part| most.whole().with(part, most.of(Measure::PromptTokens));
            let dearest = parts.map(|part| tariff.cost(all_of(part))).into_iter().max().unwrap();
            prop_assert_eq!(tariff.highest_cost(most), dearest.max(tariff.cost(most.whole())));
        }

        #[test]
        fn parts_without_a_price_of_their_own_change_nothing(
            input in 0u64..u64::MAX, output in 0u64..u64::MAX, counts in any_counts(0..u64::MAX),
        ) {
            let tariff = Tariff::of_tokens(Rate::from_pico(input), Rate::from_pico(output))
                .with(Measure::Pixels, Rate::from_pico(output));
            prop_assert_eq!(tariff.cost(counts), tariff.cost(counts.whole()));
            prop_assert_eq!(tariff.cost(counts), tariff.highest_cost(counts));
        }

        #[test]
        fn what_is_called_affordable_is(
            money in 0i64..1_000_000_000_000, most in any_counts(0..10_000), tariff in any_tariff(1..10_000_000),
        ) {
            let money = Amount::from_nanos(money).unwrap();
            let output = tariff.affordable(Measure::CompletionTokens, money, most).unwrap();
            if output > 0 {
                let with = |output| tariff.highest_cost(most.with(Measure::CompletionTokens, output));
                prop_assert!(with(output) <= money && with(output + 1) > money);
            }
        }
    }
}
