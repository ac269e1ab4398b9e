//! Holds: the record of one model server: its breaker, its health, its calls under way, its figures.
//!
//! Calls and probes enter what they find. It outlives the server's settings as long as a call is under way.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use batchin_tasks::Tasks;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    breaker::{Asker, Breaker, BreakerState, Outcome, Shut, Ticket, Trouble, Whose},
    health::{Health, Pulse},
    meters::Meters,
};

/// What is known of one server, by its name alone.
pub(crate) struct Record {
    pub(crate) name: String,
    outstanding: AtomicU32,
    /// std mutex: held for one transition, never across an await.
    breaker: Mutex<Breaker>,
    pub(crate) pulse: Pulse,
    /// A call was refused for our key, and no look has shown that it works since.
    pub(crate) suspect_key: AtomicBool,
    pub(crate) meters: Meters,
    chance: AtomicU64,
    pub(crate) tasks: Tasks,
}

impl Record {
    /// `seed` spreads the probations of many nodes.
    pub(crate) fn new(name: &str, seed: u64, tasks: Tasks) -> Self {
        Self {
            name: name.to_owned(),
            outstanding: AtomicU32::new(0),
            breaker: Mutex::new(Breaker::default()),
            pulse: Pulse::new(),
            suspect_key: AtomicBool::new(false),
            meters: Meters::of(name),
            chance: AtomicU64::new(seed),
            tasks,
        }
    }

    /// Calls under way.
    pub(crate) fn outstanding(&self) -> u32 {
        self.outstanding.load(Ordering::Relaxed)
    }

    pub(crate) fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The breaker, what holds calls back, and whether the server is well: it is not where it refuses our key or our account.
    pub(crate) fn state(&self) -> (BreakerState, Option<Trouble>, Health) {
        let (phase, shut) = {
            let breaker = self.breaker();
            (breaker.phase(), breaker.shut())
        };
        let trouble = shut.map(|shut| shut.trouble);
        let refused = trouble.is_some_and(Trouble::is_about_us);
        (phase.into(), trouble, if refused { Health::Ill } else { self.pulse.health() })
    }

    /// Shows in the metrics what is believed.
    pub(crate) fn show(&self) {
        let (breaker, trouble, health) = self.state();
        self.meters.healthy.set(if health == Health::Well { 1.0 } else { 0.0 });
        let key_refused = self.pulse.is_key_refused();
        let trouble = if key_refused { Some(Trouble::KeyRefused) } else { trouble };
        self.meters.show(breaker, trouble, self.pulse.health() == Health::Ill && !key_refused);
    }

    /// Lets a call through, which is under way until it has [`left`](Self::left); otherwise says until when it is held
    /// back, where that is known.
    pub(crate) fn admit(&self, asker: Asker, now: Instant) -> Result<Ticket, Option<Instant>> {
        let mut breaker = self.breaker();
        let before = breaker.phase();
        let admitted = breaker.admit(asker, now);
        let moved = breaker.phase() != before;
        drop(breaker);
        if moved {
            self.show();
        }
        let ticket = admitted?;
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        self.meters.outstanding.increment(1.0);
        Ok(ticket)
    }

    /// A call that was let through is over.
    pub(crate) fn left(&self) {
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
        self.meters.outstanding.decrement(1.0);
    }

    /// How a call that was let through went.
    pub(crate) fn note(&self, ticket: Ticket, outcome: Outcome) {
        let mut breaker = self.breaker();
        let (before, was) = (breaker.phase(), breaker.shut());
        breaker.after(ticket, outcome, Instant::now(), self.next_chance());
        let (after, is) = (breaker.phase(), breaker.shut());
        drop(breaker);
        if matches!(outcome, Outcome::KeyRefused | Outcome::Forbidden) {
            self.suspect_key.store(true, Ordering::Relaxed);
        }
        if before != after {
            self.show();
            self.tell(was, is);
        }
    }

    /// Tells the operator of a change, once.
    fn tell(&self, was: Option<Shut>, is: Option<Shut>) {
        let seen = |shut: Option<Shut>| {
            shut.map(|shut| (shut.trouble, shut.whose == Whose::Everybody || shut.trouble.is_about_us()))
        };
        let upstream = self.name.as_str();
        match (seen(was), seen(is)) {
            (was, is) if was == is => {}
            // The health check has met it, and that was told.
            (_, Some((Trouble::KeyRefused, _))) if self.pulse.is_key_refused() => {}
            (_, Some((trouble, everybody))) => {
                let for_whom = if everybody { "" } else { ", as far as the one account that asks can tell" };
                warn!(upstream, cause = trouble.name(), "upstream {upstream} {}{for_whom}", said(trouble));
            }
            (_, None) => info!(upstream, "upstream {upstream} works again"),
        }
    }

    /// SplitMix64: enough to spread probations, and the same for the same seed.
    fn next_chance(&self) -> u32 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.chance.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from(mixed >> 32).unwrap_or_default()
    }
}

/// What an operator is told.
fn said(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::Unreachable => "cannot be reached",
        Trouble::Failing => "fails",
        Trouble::KeyRefused => "refuses our key",
        Trouble::QuotaUsedUp => "wants to be paid: our account there is used up",
    }
}
