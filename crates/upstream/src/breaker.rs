//! Holds: whether an upstream that failed is asked again, when, and by whom.
//!
//! A pure state machine: `(state, event, now) → state`. Chance is an argument, too.
//!
//! A failure that may belong to a request is evidence, not proof. Each account has one vote, whatever it sends: what fails
//! for one account alone shuts the server for nobody else. Only what cannot come from a request (that there is no
//! connection) shuts it whoever saw it.

use std::time::Duration;

use batchin_domain::listed;
use tokio::time::Instant;

/// Attempts to connect that failed in a row: two may be chance, e.g. a restart.
const LOST_TO_OPEN: u8 = 3;

/// Failures in a row of an account that is alone with a server, after which it prefers others.
const FAILURES_ALONE: u8 = 3;

/// What one account's failures weigh at most, in failures.
const MOST_WEIGHT: u8 = 2;

/// Failures that open the breaker, counted with each account's weight: two of two accounts, or one of each of four.
const WEIGHT_TO_OPEN: u32 = 4;

/// How long an account's last outcome is evidence. Long enough for a person's next message.
const WINDOW: Duration = Duration::from_secs(30);

/// Accounts whose last outcomes are remembered, the latest ones: enough for a ratio, and found in a few nanoseconds.
const VOTERS: usize = 16;

/// First probation; each failed trial doubles it.
const FIRST_PROBATION: Duration = Duration::from_secs(1);

/// Longest probation, so that a server that was away for a day is found within a minute.
const LONGEST_PROBATION: Duration = Duration::from_secs(60);

/// How much later a batch task may make the trial than a person: most servers have a caller a second.
const BATCH_LEAD: Duration = Duration::from_secs(1);

/// How much later the account may make the trial whose last one failed.
const REPEAT_LEAD: Duration = Duration::from_secs(2);

/// Pause after an overload without `retry-after`. Short: the scheduler lowers its own limit as well.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(250);

/// Longest pause that a server can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// Who asks, as far as the breaker tells callers apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asker {
    /// Stands for the account that pays.
    pub account: u64,
    /// A person waits for the answer.
    pub urgent: bool,
    /// No other server that could serve the request takes it.
    pub last_resort: bool,
}

/// A call that was let through; its outcome is told with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Whether it decides about the upstream.
    pub trial: bool,
    account: u64,
    epoch: u32,
}

/// How a call ended, as far as the upstream's health is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered.
    Answered,
    /// It refused something that only the request can be blamed for, or that concerns one model.
    Declined,
    /// There was no connection.
    Lost,
    /// It failed, broke off or took too long.
    Failed,
    /// It refuses our key.
    KeyRefused,
    /// It refuses our key, or what one account asks.
    Forbidden,
    /// It wants to be paid first.
    QuotaUsedUp,
    /// It has too much to do.
    Overloaded {
        /// What it asked for.
        retry_after: Option<Duration>,
    },
    /// It was given up by us.
    Abandoned,
}

listed! {
    /// Why an upstream is not asked as usual.
    pub enum Trouble {
        /// Connections fail.
        Unreachable => "unreachable",
        /// Calls fail.
        Failing => "failing",
        /// It refuses our key.
        KeyRefused => "key_refused",
        /// Our account there is used up.
        QuotaUsedUp => "quota_used_up",
    }
}

impl Trouble {
    /// Whether it is about the operator's account there, so that waiting alone mends nothing.
    pub const fn is_about_us(self) -> bool {
        matches!(self, Self::KeyRefused | Self::QuotaUsedUp)
    }
}

/// Whose calls are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's.
    Everybody,
    /// This account's, which alone had failures.
    One(u64),
}

impl Whose {
    fn includes(self, account: u64) -> bool {
        match self {
            Self::Everybody => true,
            Self::One(only) => only == account,
        }
    }

    fn is_one(self) -> bool {
        matches!(self, Self::One(_))
    }
}

/// Why and until when it is shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shut {
    /// When a person's request may make a trial.
    pub until: Instant,
    /// For whom.
    pub whose: Whose,
    /// What happened.
    pub trouble: Trouble,
    /// Probations in a row.
    strikes: u32,
    /// Whose trial failed last.
    tried_by: Option<u64>,
}

/// What is believed about an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It works, as far as is known.
    Closed,
    /// It asked to be left alone for a while.
    Cooling {
        /// When it may be asked again.
        until: Instant,
        /// Whom it asked.
        whose: Whose,
        /// It named the time itself.
        named: bool,
    },
    /// It failed repeatedly.
    Open(Shut),
    /// One trial is under way.
    Trying(Shut),
}

listed! {
    /// The breaker, for people and pickers.
    pub enum BreakerState {
        /// Works.
        Closed => "closed",
        /// Asked for a pause.
        Cooling => "cooling",
        /// Failed repeatedly.
        Open => "open",
        /// One trial is under way.
        Trying => "trying",
    }
}

impl From<Phase> for BreakerState {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Closed => Self::Closed,
            Phase::Cooling { .. } => Self::Cooling,
            Phase::Open(_) => Self::Open,
            Phase::Trying(_) => Self::Trying,
        }
    }
}

/// The last outcome of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Voter {
    account: u64,
    at: Instant,
    /// In a row.
    failures: u8,
    overloaded: bool,
}

/// What is believed about an upstream, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    phase: Phase,
    /// Grows whenever it opens; outcomes of calls from before are known by it.
    epoch: u32,
    /// Failed attempts to connect in a row.
    lost: u8,
    /// The last real answer.
    answered: Option<Instant>,
    voters: [Option<Voter>; VOTERS],
}

impl Default for Breaker {
    fn default() -> Self {
        Self { phase: Phase::Closed, epoch: 0, lost: 0, answered: None, voters: [None; VOTERS] }
    }
}

impl Breaker {
    /// What is believed now.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Why it is shut, if it is, and for whom.
    pub fn shut(&self) -> Option<Shut> {
        match self.phase {
            Phase::Open(shut) | Phase::Trying(shut) => Some(shut),
            Phase::Closed | Phase::Cooling { .. } => None,
        }
    }

    /// Whether it answered anybody of late.
    pub fn answered_lately(&self, now: Instant) -> bool {
        self.answered.is_some_and(|at| now.saturating_duration_since(at) < WINDOW)
    }

    /// Whether the last outcome of some other account of late was an answer.
    pub fn answers_others(&self, account: u64, now: Instant) -> bool {
        self.recent(now).any(|voter| voter.account != account && voter.failures == 0 && !voter.overloaded)
    }

    /// Whether a call would be let through now.
    pub fn would_admit(&self, asker: Asker, now: Instant) -> bool {
        self.phase.admit(asker, now).is_ok()
    }

    /// How long such a call is held back still, where that is known.
    pub fn pause(&self, asker: Asker, now: Instant) -> Option<Duration> {
        self.phase.admit(asker, now).err().flatten().map(|until| until.saturating_duration_since(now))
    }

    /// Lets a call through; its outcome must be told. The error says when to ask again: `None` while a trial is under
    /// way.
    pub fn admit(&mut self, asker: Asker, now: Instant) -> Result<Ticket, Option<Instant>> {
        let (phase, trial) = self.phase.admit(asker, now)?;
        self.phase = phase;
        Ok(Ticket { trial, account: asker.account, epoch: self.epoch })
    }

    /// Takes in how a call ended. `chance` is uniform over `u32` and spreads the probations of many nodes.
    ///
    /// While the breaker is open, the outcomes of calls from before are ignored.
    pub fn after(&mut self, ticket: Ticket, outcome: Outcome, now: Instant, chance: u32) {
        let recent = ticket.epoch == self.epoch;
        match self.phase {
            Phase::Open(_) | Phase::Trying(_) if !recent => {}
            Phase::Trying(shut) if ticket.trial => self.tried(shut, (ticket.account, outcome), now, chance),
            Phase::Open(shut) | Phase::Trying(shut) => self.while_shut(shut, (ticket.account, outcome), now, chance),
            Phase::Closed | Phase::Cooling { .. } => {
                self.take_in(ticket.account, outcome, now);
                self.judge((ticket.account, outcome), now, chance);
            }
        }
    }

    /// The trial has ended.
    fn tried(&mut self, shut: Shut, (account, outcome): (u64, Outcome), now: Instant, chance: u32) {
        self.take_in(account, outcome, now);
        let again = |whose, trouble| Shut {
            whose,
            trouble,
            tried_by: Some(account),
            ..probation(shut.strikes.saturating_add(1), now, chance)
        };
        match outcome {
            Outcome::Abandoned => self.phase = Phase::Open(Shut { until: now, ..shut }),
            Outcome::Answered | Outcome::Declined => self.close(),
            Outcome::Lost => self.phase = Phase::Open(again(Whose::Everybody, Trouble::Unreachable)),
            // It can be reached again. Whether it works is another question, and one account does not answer it.
            Outcome::Failed if shut.trouble == Trouble::Unreachable => {
                self.phase = Phase::Closed;
                self.judge((account, outcome), now, chance);
            }
            Outcome::Failed => self.phase = Phase::Open(again(shut.whose, Trouble::Failing)),
            Outcome::KeyRefused | Outcome::Forbidden | Outcome::QuotaUsedUp => {
                self.phase = Phase::Open(again(shut.whose, trouble_of(outcome, shut.whose)));
            }
            Outcome::Overloaded { .. } => {
                self.phase = Phase::Closed;
                self.judge((account, outcome), now, chance);
            }
        }
    }

    /// A call has ended that was let through beside the trial.
    fn while_shut(&mut self, shut: Shut, (account, outcome): (u64, Outcome), now: Instant, chance: u32) {
        self.take_in(account, outcome, now);
        match outcome {
            Outcome::Answered => self.close(),
            // One account alone shut it, and now others fail as well.
            Outcome::Failed | Outcome::KeyRefused | Outcome::Forbidden | Outcome::QuotaUsedUp | Outcome::Lost
                if shut.whose.is_one()
                    && (self.verdict(account, now) == Some(Whose::Everybody) || self.lost >= LOST_TO_OPEN) =>
            {
                self.open(Whose::Everybody, trouble_of(outcome, Whose::Everybody), now, chance);
            }
            _ => {}
        }
    }

    /// What the evidence says after this outcome.
    fn judge(&mut self, (account, outcome): (u64, Outcome), now: Instant, chance: u32) {
        match outcome {
            Outcome::Lost if self.lost >= LOST_TO_OPEN => {
                self.open(Whose::Everybody, Trouble::Unreachable, now, chance);
            }
            Outcome::Failed | Outcome::KeyRefused | Outcome::Forbidden | Outcome::QuotaUsedUp => {
                if let Some(whose) = self.verdict(account, now) {
                    self.open(whose, trouble_of(outcome, whose), now, chance);
                }
            }
            Outcome::Overloaded { retry_after } => self.cool(account, retry_after, now),
            Outcome::Answered | Outcome::Declined | Outcome::Lost | Outcome::Abandoned => {}
        }
    }

    fn cool(&mut self, account: u64, retry_after: Option<Duration>, now: Instant) {
        let (mut voters, mut overloaded) = (0, 0);
        for voter in self.recent(now) {
            voters += 1;
            overloaded += u32::from(voter.overloaded);
        }
        let whose = if overloaded > 1 && 2 * overloaded > voters { Whose::Everybody } else { Whose::One(account) };
        let pause = retry_after.map_or(OVERLOAD_PAUSE, |asked| asked.min(LONGEST_PAUSE));
        if let Phase::Cooling { until, whose: known, .. } = self.phase
            && now < until
            // What it told everybody is not undone by what it tells one, nor a longer pause by a shorter one.
            && (known == Whose::Everybody && whose != known || known == whose && until >= now + pause)
        {
            return;
        }
        self.phase = Phase::Cooling { until: now + pause, whose, named: retry_after.is_some() };
    }

    /// Whom the failures speak for, if they open the breaker.
    fn verdict(&self, account: u64, now: Instant) -> Option<Whose> {
        let (mut voters, mut failing, mut weight, mut own) = (0_u32, 0_u32, 0_u32, 0);
        for voter in self.recent(now) {
            voters += 1;
            failing += u32::from(voter.failures > 0);
            weight += u32::from(voter.failures.min(MOST_WEIGHT));
            if voter.account == account {
                own = voter.failures;
            }
        }
        if failing > 1 && 2 * failing > voters && weight >= WEIGHT_TO_OPEN {
            return Some(Whose::Everybody);
        }
        (voters == 1 && own >= FAILURES_ALONE).then_some(Whose::One(account))
    }

    fn recent(&self, now: Instant) -> impl Iterator<Item = &Voter> {
        self.voters.iter().flatten().filter(move |voter| now.saturating_duration_since(voter.at) < WINDOW)
    }

    fn open(&mut self, whose: Whose, trouble: Trouble, now: Instant, chance: u32) {
        self.epoch = self.epoch.wrapping_add(1);
        self.phase = Phase::Open(Shut { whose, trouble, ..probation(0, now, chance) });
    }

    /// It works again; what was held against it is over.
    fn close(&mut self) {
        self.phase = Phase::Closed;
        self.voters.iter_mut().flatten().for_each(|voter| voter.failures = 0);
    }

    /// Notes the outcome as evidence.
    fn take_in(&mut self, account: u64, outcome: Outcome, now: Instant) {
        self.lost = match outcome {
            Outcome::Lost => self.lost.saturating_add(1),
            Outcome::Abandoned => return,
            _ => 0,
        };
        if outcome == Outcome::Lost {
            return;
        }
        if outcome == Outcome::Answered {
            self.answered = Some(now);
        }
        let voter = self.voter(account, now);
        // An account that was silent for long begins anew.
        let before = if now.saturating_duration_since(voter.at) < WINDOW { voter.failures } else { 0 };
        (voter.at, voter.overloaded) = (now, matches!(outcome, Outcome::Overloaded { .. }));
        voter.failures = match outcome {
            Outcome::Failed => before.saturating_add(1),
            // Nothing about it passes by itself.
            Outcome::KeyRefused | Outcome::Forbidden | Outcome::QuotaUsedUp => before.max(FAILURES_ALONE),
            Outcome::Overloaded { .. } => before,
            Outcome::Answered | Outcome::Declined | Outcome::Lost | Outcome::Abandoned => 0,
        };
    }

    /// The account's place, in that of the one that was silent longest if it has none.
    fn voter(&mut self, account: u64, now: Instant) -> &mut Voter {
        let known = self.voters.iter().position(|voter| voter.is_some_and(|voter| voter.account == account));
        let place = known.unwrap_or_else(|| {
            let silent = |(_, voter): &(usize, &Option<Voter>)| voter.map(|voter| voter.at);
            self.voters.iter().enumerate().min_by_key(silent).map_or(0, |(place, _)| place)
        });
        let fresh = Voter { account, at: now, failures: 0, overloaded: false };
        if known.is_none() {
            self.voters[place] = None;
        }
        self.voters[place].get_or_insert(fresh)
    }
}

impl Phase {
    /// The phase when such a call is let through, and whether it is the trial; or until when it is not.
    fn admit(self, asker: Asker, now: Instant) -> Result<(Self, bool), Option<Instant>> {
        let whose = match self {
            Self::Closed => return Ok((self, false)),
            Self::Cooling { until, .. } if until <= now => return Ok((Self::Closed, false)),
            Self::Cooling { whose, .. } => whose,
            Self::Open(shut) | Self::Trying(shut) => shut.whose,
        };
        if !whose.includes(asker.account) {
            return Ok((self, false));
        }
        match self {
            Self::Open(shut) if shut.until + shut.lead(asker) <= now => return Ok((Self::Trying(shut), true)),
            // Nobody is refused for what may be somebody's request, where nobody else could serve it. Batch tasks of an
            // account that is alone with its failures have pauses of their own.
            Self::Open(_) | Self::Trying(_) if asker.last_resort && (asker.urgent || whose.is_one()) => {
                return Ok((self, false));
            }
            Self::Cooling { named, .. } if asker.last_resort => {
                let obeyed = named && asker.urgent;
                if !obeyed && (asker.urgent || whose.is_one()) {
                    return Ok((self, false));
                }
            }
            Self::Closed | Self::Cooling { .. } | Self::Open(_) | Self::Trying(_) => {}
        }
        Err(match self {
            Self::Cooling { until, .. } => Some(until),
            Self::Open(shut) => Some(shut.until + shut.lead(asker)),
            Self::Closed | Self::Trying(_) => None,
        })
    }
}

impl Shut {
    /// How much later than `until` this asker may make the trial.
    fn lead(&self, asker: Asker) -> Duration {
        let behind_people = if asker.urgent { Duration::ZERO } else { BATCH_LEAD };
        let repeats = self.tried_by == Some(asker.account);
        behind_people + if repeats { REPEAT_LEAD } else { Duration::ZERO }
    }
}

fn trouble_of(outcome: Outcome, whose: Whose) -> Trouble {
    match outcome {
        Outcome::Lost => Trouble::Unreachable,
        Outcome::KeyRefused => Trouble::KeyRefused,
        // What is forbidden to one account may be what it asks for.
        Outcome::Forbidden if whose == Whose::Everybody => Trouble::KeyRefused,
        Outcome::Forbidden => Trouble::Failing,
        Outcome::QuotaUsedUp => Trouble::QuotaUsedUp,
        Outcome::Answered | Outcome::Declined | Outcome::Failed | Outcome::Overloaded { .. } | Outcome::Abandoned => {
            Trouble::Failing
        }
    }
}

/// Probation of 75 to 125 % of its nominal length.
fn probation(strikes: u32, now: Instant, chance: u32) -> Shut {
    let nominal = FIRST_PROBATION.saturating_mul(1_u32 << strikes.min(16)).min(LONGEST_PROBATION);
    let spread = (nominal / 2).mul_f64(f64::from(chance) / f64::from(u32::MAX));
    let until = now + nominal * 3 / 4 + spread;
    Shut { until, strikes, whose: Whose::Everybody, trouble: Trouble::Failing, tried_by: None }
}

#[cfg(test)]
mod tests;
