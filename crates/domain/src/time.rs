//! Holds: points in time and the windows that limits are counted in.

use std::{fmt, ops::Sub, time::Duration};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_MINUTE: i64 = 60;

/// Microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From seconds since the Unix epoch.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(MICROS_PER_SECOND))
    }

    /// Microseconds since the Unix epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(MICROS_PER_SECOND)
    }

    /// This much later; saturates at the end of time.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// This much earlier; saturates at the beginning of time.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long since `earlier`; zero if that is in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The calendar minute that this lies in.
    pub const fn minute(self) -> Minute {
        Minute(self.seconds().div_euclid(SECONDS_PER_MINUTE))
    }

    /// The calendar month, UTC, that this lies in.
    pub fn month(self) -> Month {
        let date = self.to_date_time();
        Month(i64::from(date.year()).saturating_mul(12).saturating_add(i64::from(u8::from(date.month())) - 1))
    }

    /// From RFC 3339 text such as `2026-11-22T08:00:00Z`.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let nanos = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
        i64::try_from(nanos.div_euclid(1_000)).ok().map(Self)
    }

    fn to_date_time(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0).saturating_mul(1_000))
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

/// RFC 3339, UTC, the form of the API.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_date_time().format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

impl Sub for Timestamp {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

/// A minute of the calendar, counted from the Unix epoch: the window of `rate_limit_rpm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Minute(i64);

impl Minute {
    /// From its index, as stored.
    pub const fn from_index(index: i64) -> Self {
        Self(index)
    }

    /// Minutes since the Unix epoch.
    pub const fn index(self) -> i64 {
        self.0
    }

    /// When the next minute begins.
    pub const fn end(self) -> Timestamp {
        Timestamp::from_seconds(self.0.saturating_add(1).saturating_mul(SECONDS_PER_MINUTE))
    }
}

/// A month of the calendar, UTC, counted from year 0: the window of `monthly_budget_cents`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(i64);

impl Month {
    /// From its index, as stored.
    pub const fn from_index(index: i64) -> Self {
        Self(index)
    }

    /// Months since January of year 0.
    pub const fn index(self) -> i64 {
        self.0
    }

    /// From its text, `2026-11`.
    pub fn parse(text: &str) -> Option<Self> {
        let (year, month) = text.split_once('-')?;
        let number = |text: &str, digits| match text.len() == digits && text.bytes().all(|b| b.is_ascii_digit()) {
            true => text.parse::<i64>().ok(),
            false => None,
        };
        let month = number(month, 2).filter(|month| (1..=12).contains(month))?;
        Some(Self(number(year, 4)?.saturating_mul(12).saturating_add(month - 1)))
    }

    /// The month after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// When it begins; the epoch for a month that no calendar has.
    pub fn start(self) -> Timestamp {
        let month = u8::try_from(self.0.rem_euclid(12) + 1).ok().and_then(|m| time::Month::try_from(m).ok());
        let year = i32::try_from(self.0.div_euclid(12)).ok();
        let date = month.zip(year).and_then(|(month, year)| time::Date::from_calendar_date(year, month, 1).ok());
        date.map_or(Timestamp(0), |date| Timestamp::from_seconds(date.midnight().assume_utc().unix_timestamp()))
    }
}

/// `2026-11`.
impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0.div_euclid(12), self.0.rem_euclid(12) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_and_minutes_roll_over_at_their_ends() {
        let last = Timestamp::parse_rfc3339("2026-12-31T23:59:59.999999Z").unwrap();
        let first = last.after(Duration::from_micros(1));
        assert_eq!(first.to_string(), "2027-01-01T00:00:00Z");
        assert_eq!(first.month().index() - last.month().index(), 1);
        assert_eq!(first.minute().index() - last.minute().index(), 1);
        assert_eq!(last.minute().end(), first);
        assert_eq!(last.month().next().start(), first);
        assert_eq!((last.month().to_string().as_str(), Month::parse("2026-12")), ("2026-12", Some(last.month())));
        for wrong in ["", "2026", "2026-00", "2026-13", "2026-1", "26-01", "+026-01", "2026-01-01", "2026-é"] {
            assert_eq!(Month::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn text_round_trips_to_the_microsecond() {
        let at = Timestamp::from_micros(1_795_000_000_123_456);
        assert_eq!(Timestamp::parse_rfc3339(&at.to_string()), Some(at));
    }
}
