//! Holds: how often a password may be tried: for an account from one address, for an account from anywhere, and how many
//! of one address are hashed at once.
//!
//! Whoever tries too often is not shut out, since that would shut out the owner with them: a few attempts go on being
//! checked, and a wrong one among them is told the same as one that was not checked. Nothing here knows whether an
//! account exists.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use batchin_openai::Code;
use moka::sync::Cache;
use tokio::time::{Instant, sleep};

use crate::{error::ApiError, throttle::network};

/// Of one account from one address: plenty for a person who looks for the right one, hopeless for guessing.
const FROM_ONE: Lane = Lane { at_once: 20, every: Duration::from_secs(3) };
/// Beyond that: the owner, who shares the address with somebody who guesses, gets in within a few tries.
const FROM_ONE_BEYOND: Lane = Lane { at_once: 1, every: Duration::from_secs(5) };
/// Of one account from all addresses that nobody has logged into it from: more addresses guess no faster.
const FROM_ALL: Lane = Lane { at_once: 60, every: Duration::from_secs(1) };
/// How long one of these waits for its turn; with the lane above, five of an account wait at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// Accounts, and accounts with an address, that are remembered; the least used are forgotten first.
const MAX_REMEMBERED: u64 = 50_000;
/// Longer than any lane takes to be free again.
const FORGET_AFTER: Duration = Duration::from_secs(300);
/// How long an address stays known as one that an account was logged into from.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Passwords of one address in work or waiting: half of all places.
const MAX_OF_ADDRESS: u32 = 32;

/// An account's email and the network of an address.
type Pair = (String, IpAddr);
/// std mutex: held to read and move a point in time, never across an await.
type Point = Arc<Mutex<Option<Instant>>>;

/// Where a password comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// The client's address, as far as trusted proxies name it.
    pub(crate) address: IpAddr,
    /// Sent by the site's own back end, which speaks for many people.
    pub(crate) vouched: bool,
}

/// A steady number, of which some may come at once.
#[derive(Clone, Copy)]
struct Lane {
    at_once: u32,
    every: Duration,
}

impl Lane {
    /// Takes one place: how long to wait for it, at most `patience`, or else when to come again. `free` is when every
    /// place is free again.
    fn take(self, free: &mut Option<Instant>, now: Instant, patience: Duration) -> Result<Duration, Duration> {
        let after = free.map_or(now, |free| free.max(now)) + self.every;
        let wait = after.saturating_duration_since(now).saturating_sub(self.every * self.at_once);
        if wait > patience {
            return Err(wait - patience);
        }
        *free = Some(after);
        Ok(wait)
    }
}

/// Counts attempts.
pub(crate) struct Attempts {
    from_one: Cache<Pair, Point>,
    beyond: Cache<Pair, Point>,
    from_all: Cache<String, Point>,
    known: Cache<Pair, ()>,
    in_work: InWork,
}

/// std mutex: held for one count, never across an await.
type InWork = Arc<Mutex<HashMap<IpAddr, u32>>>;

/// The right to hash or check one password.
pub(crate) struct Attempt<'a> {
    attempts: &'a Attempts,
    pair: Pair,
    /// When to come again with one that was too many and still is checked.
    one_too_many: Option<Duration>,
    _place: Place,
}

/// One of an address's places.
struct Place(Option<(InWork, IpAddr)>);

impl Attempts {
    pub(crate) fn new() -> Self {
        let known = Cache::builder().max_capacity(MAX_REMEMBERED).time_to_live(KNOWN_FOR).build();
        Self { from_one: points(), beyond: points(), from_all: points(), known, in_work: InWork::default() }
    }

    /// One attempt at the password of this email, whoever has it.
    pub(crate) async fn begin(&self, email: &str, from: Origin) -> Result<Attempt<'_>, ApiError> {
        let pair = (email.to_owned(), network(from.address));
        let place = self.place(from)?;
        let (wait, one_too_many) = self.draw(&pair, Instant::now()).map_err(too_many)?;
        if !wait.is_zero() {
            sleep(wait).await;
        }
        Ok(Attempt { attempts: self, pair, one_too_many, _place: place })
    }

    /// How long an attempt waits, and whether it was one too many; or when to come again.
    fn draw(&self, pair: &Pair, now: Instant) -> Result<(Duration, Option<Duration>), Duration> {
        let from_one = self.from_one.get_with_by_ref(pair, Point::default);
        let mut one_too_many = None;
        if FROM_ONE.take(&mut held(&from_one), now, Duration::ZERO).is_err() {
            let beyond = self.beyond.get_with_by_ref(pair, Point::default);
            FROM_ONE_BEYOND.take(&mut held(&beyond), now, Duration::ZERO)?;
            one_too_many = Some(FROM_ONE_BEYOND.every);
        }
        if self.known.contains_key(pair) {
            return Ok((Duration::ZERO, one_too_many));
        }
        let from_all = self.from_all.get_with_by_ref(&pair.0, Point::default);
        let wait = FROM_ALL.take(&mut held(&from_all), now, PATIENCE)?;
        Ok((wait, one_too_many.or_else(|| (!wait.is_zero()).then_some(FROM_ALL.every))))
    }

    fn place(&self, from: Origin) -> Result<Place, ApiError> {
        if from.vouched {
            return Ok(Place(None));
        }
        let address = network(from.address);
        let mut in_work = held(&self.in_work);
        let count = in_work.entry(address).or_default();
        if *count >= MAX_OF_ADDRESS {
            return Err(too_many(FROM_ALL.every));
        }
        *count += 1;
        Ok(Place(Some((Arc::clone(&self.in_work), address))))
    }
}

impl Attempt<'_> {
    /// It was right: from there the account is reached whatever others try elsewhere.
    pub(crate) fn right(self) {
        self.attempts.known.insert(self.pair, ());
    }

    /// What a wrong one is told: this, unless it was one too many.
    pub(crate) fn wrong(self, told: impl Into<ApiError>) -> ApiError {
        self.one_too_many.map_or_else(|| told.into(), too_many)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((in_work, address)) = &self.0 else { return };
        let mut in_work = held(in_work);
        if let Some(count) = in_work.get_mut(address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                in_work.remove(address);
            }
        }
    }
}

fn points<K: std::hash::Hash + Eq + Send + Sync + 'static>() -> Cache<K, Point> {
    Cache::builder().max_capacity(MAX_REMEMBERED).time_to_idle(FORGET_AFTER).build()
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn too_many(pause: Duration) -> ApiError {
    ApiError::new(Code::RateLimitExceeded, "Too many attempts; wait and try again.").retry_after(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(email: &str, host: u16) -> Pair {
        (email.to_owned(), format!("198.51.{}.{}", host / 256, host % 256).parse().unwrap())
    }

    #[tokio::test]
    async fn a_lane_is_free_again_with_time() {
        let lane = Lane { at_once: 2, every: Duration::from_secs(10) };
        let (now, mut free) = (Instant::now(), None);
        let mut take = |after: u64, patience: u64| {
            lane.take(&mut free, now + Duration::from_secs(after), Duration::from_secs(patience))
        };
        assert_eq!((take(0, 0), take(0, 0)), (Ok(Duration::ZERO), Ok(Duration::ZERO)));
        assert_eq!(take(0, 0), Err(Duration::from_secs(10)));
        assert_eq!(take(4, 6), Ok(Duration::from_secs(6)));
        assert_eq!(take(10, 0), Err(Duration::from_secs(10)));
        assert_eq!(take(20, 0), Ok(Duration::ZERO));
        assert_eq!((take(100, 0), take(100, 0)), (Ok(Duration::ZERO), Ok(Duration::ZERO)));
    }

    #[tokio::test]
    async fn whoever_guesses_from_one_address_stops_nobody_elsewhere_and_hardly_there() {
        let (attempts, now) = (Attempts::new(), Instant::now());
        let guess = |host, after| attempts.draw(&pair("ada@example.com", host), now + Duration::from_secs(after));
        for _ in 0..20 {
            assert_eq!(guess(1, 0), Ok((Duration::ZERO, None)));
        }
        assert_eq!(guess(1, 0), Ok((Duration::ZERO, Some(Duration::from_secs(5)))), "one is checked all the same");
        for _ in 0..1_000 {
            assert!(guess(1, 0).is_err());
        }
        assert_eq!(guess(2, 0), Ok((Duration::ZERO, None)), "what was refused took nobody's place");
        assert_eq!(guess(1, 3), Ok((Duration::ZERO, None)));
    }

    #[tokio::test]
    async fn many_addresses_guess_no_faster_and_do_not_keep_the_owner_out() {
        let (attempts, now) = (Attempts::new(), Instant::now());
        attempts.known.insert(pair("ada@example.com", 9_999), ());
        let checked = |email: &str, hosts: std::ops::Range<u16>| {
            let guess = |host| attempts.draw(&pair(email, host), now).is_ok();
            hosts.filter(|host| guess(*host)).count()
        };
        assert_eq!(checked("ada@example.com", 0..5_000), 65, "sixty, and five that wait");
        assert_eq!(checked("eve@example.com", 0..1), 1);
        let owner = attempts.draw(&pair("ada@example.com", 9_999), now);
        assert_eq!(owner, Ok((Duration::ZERO, None)), "from where the account was logged into before");
        let later = attempts.draw(&pair("ada@example.com", 8_888), now + Duration::from_secs(3));
        assert!(later.is_ok_and(|(wait, _)| wait <= PATIENCE), "elsewhere in their turn");
    }

    #[tokio::test]
    async fn one_address_takes_its_share_of_places_and_gives_them_back() {
        let attempts = Attempts::new();
        let from = |address: &str, vouched| Origin { address: address.parse().unwrap(), vouched };
        let (one, other) = (from("192.0.2.1", false), from("192.0.2.2", false));
        let mut places: Vec<_> = (0..32).map(|_| attempts.place(one).unwrap_or_else(|_| panic!("a share"))).collect();
        assert!(attempts.place(one).is_err());
        assert!(attempts.place(other).is_ok() && attempts.place(from("192.0.2.1", true)).is_ok());
        places.pop();
        assert!(attempts.place(one).is_ok());
        places.clear();
        assert!(held(&attempts.in_work).is_empty());
    }
}
