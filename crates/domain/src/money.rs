//! Holds: money as integers.
//!
//! The unit is the nano-US-dollar; one cent is 10,000,000 of them. There is no float anywhere: text in and text out
//! are decimal, and arithmetic is checked.
#![deny(clippy::float_arithmetic)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::fmt;

/// Nano-dollars in one cent.
pub const NANOS_PER_CENT: i64 = 10_000_000;
const CENT_DECIMALS: usize = 7;

/// A sum that cannot be negative: a price, a hold, a charge. At most about 9.2 billion dollars.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(i64);

/// A sum that may be negative: what an account has.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Balance(i64);

/// Why a text is no amount of cents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseCentsError {
    /// Not a plain decimal number.
    #[error("must be a number of US cents, such as 500 or 0.25")]
    NotANumber,
    /// Below zero.
    #[error("must not be negative")]
    Negative,
    /// More than seven decimals of a cent.
    #[error("must be a whole number of nano-dollars: at most 7 decimals of a cent")]
    TooFine,
    /// Over what a ledger account can hold.
    #[error("must be at most 922337203685 cents")]
    TooLarge,
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The most that can be expressed.
    pub const MAX: Self = Self(i64::MAX);

    /// From nano-dollars; `None` below zero.
    pub const fn from_nanos(nanos: i64) -> Option<Self> {
        if nanos < 0 { None } else { Some(Self(nanos)) }
    }

    /// From nano-dollars, for values computed without sign; saturates at [`Amount::MAX`].
    pub fn saturating_from_nanos(nanos: u128) -> Self {
        Self(i64::try_from(nanos).unwrap_or(i64::MAX))
    }

    /// From whole cents; saturates at [`Amount::MAX`].
    pub const fn from_cents(cents: u32) -> Self {
        Self((cents as i64).saturating_mul(NANOS_PER_CENT))
    }

    /// Nano-dollars, zero or more.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Whether this is nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum; `None` on overflow.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The sum, at most [`Amount::MAX`].
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference; `None` if it would be negative.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).and_then(Self::from_nanos)
    }

    /// The difference, at least nothing.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0).max(0))
    }

    /// A decimal number of cents, exact: `100`, `0.00076`.
    pub fn to_cents_text(self) -> String {
        Balance(self.0).to_cents_text()
    }

    /// From a decimal number of cents as JSON or a person writes it: `500`, `0.25`, `1e2`.
    pub fn parse_cents(text: &str) -> Result<Self, ParseCentsError> {
        parse_decimal(text, CENT_DECIMALS).and_then(|nanos| Self::from_nanos(nanos).ok_or(ParseCentsError::Negative))
    }
}

impl Balance {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// From nano-dollars.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Nano-dollars, possibly negative.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// What of it can be spent: nothing when negative.
    pub fn spendable(self) -> Amount {
        Amount(self.0.max(0))
    }

    /// A decimal number of cents, exact: `100`, `0.00076`, `-2.5`.
    pub fn to_cents_text(self) -> String {
        const PER_CENT: u64 = NANOS_PER_CENT.unsigned_abs();
        let magnitude = self.0.unsigned_abs();
        let (whole, rest) = (magnitude / PER_CENT, magnitude % PER_CENT);
        let sign = if self.0 < 0 { "-" } else { "" };
        if rest == 0 {
            return format!("{sign}{whole}");
        }
        let rest = format!("{rest:0CENT_DECIMALS$}");
        format!("{sign}{whole}.{}", rest.trim_end_matches('0'))
    }
}

/// Exact decimal text to an integer of `10^-decimals`. Accepts JSON's number grammar with a small exponent.
fn parse_decimal(text: &str, decimals: usize) -> Result<i64, ParseCentsError> {
    use ParseCentsError::{NotANumber, TooFine, TooLarge};
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| NotANumber)?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let all_digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) {
        return Err(NotANumber);
    }
    let fraction = fraction.trim_end_matches('0');
    let digits: String = format!("{whole}{fraction}").trim_start_matches('0').to_owned();
    if digits.is_empty() {
        return Ok(0);
    }
    let decimals = i64::try_from(decimals).map_err(|_| TooFine)?;
    let fraction_len = i64::try_from(fraction.len()).map_err(|_| TooFine)?;
    let shift = decimals.saturating_sub(fraction_len).saturating_add(i64::from(exponent));
    let (digits, shift) = if shift < 0 {
        let cut = usize::try_from(shift.unsigned_abs()).map_err(|_| TooFine)?;
        let keep = digits.len().checked_sub(cut).ok_or(TooFine)?;
        let (kept, dropped) = digits.split_at(keep);
        if dropped.bytes().any(|b| b != b'0') {
            return Err(TooFine);
        }
        (kept.to_owned(), 0)
    } else {
        (digits, u32::try_from(shift).map_err(|_| TooLarge)?)
    };
    let value: i64 = digits.parse().map_err(|_| TooLarge)?;
    let value = 10_i64.checked_pow(shift).and_then(|scale| value.checked_mul(scale)).ok_or(TooLarge)?;
    Ok(if negative { value.saturating_neg() } else { value })
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}¢", self.to_cents_text())
    }
}

impl fmt::Debug for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}¢", self.to_cents_text())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cents_print_as_the_contract_shows_them() {
        for (nanos, text) in
            [(1_000_000_000, "100"), (7_600, "0.00076"), (0, "0"), (-25_000_000, "-2.5"), (1, "0.0000001")]
        {
            assert_eq!(Balance::from_nanos(nanos).to_cents_text(), text);
        }
    }

    #[test]
    fn cents_parse_exactly_or_say_why_not() {
        use ParseCentsError::*;
        for (text, want) in [
            ("500", Ok(5_000_000_000)),
            ("0.25", Ok(2_500_000)),
            ("1e2", Ok(1_000_000_000)),
            ("1.50e1", Ok(150_000_000)),
            ("0.0000001", Ok(1)),
            ("0.00000001", Err(TooFine)),
            ("0", Ok(0)),
            ("-1", Err(Negative)),
            ("1e30", Err(TooLarge)),
            ("922337203686", Err(TooLarge)),
            ("1e999999999999", Err(NotANumber)),
            ("", Err(NotANumber)),
            ("1.", Err(NotANumber)),
            ("NaN", Err(NotANumber)),
        ] {
            assert_eq!(Amount::parse_cents(text).map(Amount::nanos), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(nanos in 0..=i64::MAX) {
            let amount = Amount::from_nanos(nanos).unwrap();
            prop_assert_eq!(Amount::parse_cents(&amount.to_cents_text()), Ok(amount));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = Amount::parse_cents(&text);
        }
    }
}
