//! Holds: the numbers that the scheduler decides by, each with its reason.

use std::time::Duration;

use batchin_domain::Class;

/// What an operator may tune. The defaults come from simulation on public traces of conversations.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Interactive requests are refused once a replica has this many times its slots in flight. Deep enough for a burst,
    /// shallow enough that the last one still starts within a few answers' time.
    pub overcommit: u32,
    /// Slots assumed for comparing loads while they are unknown; a common default of engines on one GPU.
    pub assumed_slots: u32,
    /// Part of the slots that batch work leaves free for the next person; at least one slot where there are two.
    pub reserve: f64,
    /// Prompt tokens of low and fill work that may wait for their first byte on a replica: half of an engine's usual
    /// prefill chunk, so that an arriving person waits at most for one step.
    pub prefill_tokens: u32,
    /// The same on engines that run on a CPU, whose prefill is an order of magnitude slower.
    pub prefill_tokens_cpu: u32,
    /// Time between tokens that `low` work may cause; `None` learns it from what interactive requests have alone.
    pub low_target: Option<Duration>,
    /// Time between tokens that `fill` work may cause; `None` learns it from what interactive requests have alone.
    pub fill_target: Option<Duration>,
    /// Limits are reconsidered this often: several engine steps, and still well under a person's patience.
    pub control_interval: Duration,
    /// Work in flight that a class begins with; slow start passes 64 within five seconds.
    pub initial_limit: u32,
    /// Bounds a limit where the slots are unknown.
    pub max_limit: u32,
    /// First pause after a 429 or 503; doubles with each one that follows.
    pub cool_down: Duration,
    /// Longest pause after 429s, also when the upstream asks for more.
    pub max_cool_down: Duration,
    /// For this long after the last interactive request its limits stay in force, so that pauses between the turns of
    /// a conversation do not count as an idle machine.
    pub linger: Duration,
    /// An interactive request that waits this long for its first byte on a full replica has fill work cancelled.
    pub preempt_after: Duration,
    /// The same on replicas with few slots, where a free one is rarer.
    pub preempt_after_small: Duration,
    /// A task is cancelled for others at most this often.
    pub max_preemptions: u8,
}

/// Most slots that count as few for [`Policy::preempt_after_small`].
pub(crate) const FEW_SLOTS: u32 = 16;
/// Fill tasks cancelled in one round: enough for a burst, and little work lost when it was a false alarm.
pub(crate) const MAX_CANCELS: u32 = 4;
/// Gaps or completions that make a control decision more than noise.
pub(crate) const MIN_EVIDENCE: u32 = 3;
/// Tolerated token gap until the replica's own is learned: 20 tokens a second still reads fluently.
const DEFAULT_FILL_TARGET: Duration = Duration::from_millis(50);
/// `low` is paid for more than `fill` and may disturb a little more.
const DEFAULT_LOW_TARGET: Duration = Duration::from_millis(60);
/// Learned targets lie at least this far above what was measured, so that jitter of fast engines is not an alarm.
const TARGET_HEADROOM: Duration = Duration::from_millis(10);

impl Default for Policy {
    fn default() -> Self {
        Self {
            overcommit: 4,
            assumed_slots: 32,
            reserve: 0.06,
            prefill_tokens: 1_024,
            prefill_tokens_cpu: 256,
            low_target: None,
            fill_target: None,
            control_interval: Duration::from_millis(500),
            initial_limit: 2,
            max_limit: 1_024,
            cool_down: Duration::from_secs(1),
            max_cool_down: Duration::from_secs(30),
            linger: Duration::from_secs(2),
            preempt_after: Duration::from_millis(250),
            preempt_after_small: Duration::from_millis(100),
            max_preemptions: 5,
        }
    }
}

impl Policy {
    /// Slots of `slots` that batch work may hold: all but the reserve, and at least one, or a replica with a single
    /// slot would never run a batch.
    pub fn batch_slots(&self, slots: u32) -> u32 {
        let reserve = (f64::from(slots) * self.reserve).ceil() as u32;
        slots.saturating_sub(reserve.max(1)).max(1)
    }

    pub(crate) fn interactive_cap(&self, slots: u32) -> u32 {
        slots.saturating_mul(self.overcommit.max(1))
    }

    pub(crate) fn prefill_budget(&self, cpu: bool) -> u32 {
        if cpu { self.prefill_tokens_cpu } else { self.prefill_tokens }
    }

    pub(crate) fn objective(&self, class: Class) -> Option<Duration> {
        if class == Class::Low { self.low_target } else { self.fill_target }
    }

    /// The target where no objective is set; `alone` is the median gap without batch work.
    pub(crate) fn learned_target(class: Class, alone: Option<Duration>) -> Duration {
        match alone {
            Some(gap) => (gap + gap / 2).max(gap + TARGET_HEADROOM),
            None if class == Class::Low => DEFAULT_LOW_TARGET,
            None => DEFAULT_FILL_TARGET,
        }
    }

    pub(crate) fn patience(&self, slots: Option<u32>) -> Duration {
        if slots.is_some_and(|slots| slots <= FEW_SLOTS) { self.preempt_after_small } else { self.preempt_after }
    }
}
