//! Holds: what a server was asked for and does not have: a model that is not loaded there, a kind of call.
//!
//! It steers requests to other servers and tells the operator; it never refuses anything.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use batchin_domain::CallKind;
use tokio::time::Instant;

/// How long others are preferred after the first refusal; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// A model that is loaded again is found within a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Models times kinds of call that are remembered: more than one server ever serves.
const MOST: usize = 1_024;

/// What a server does not have.
#[derive(Debug, Default)]
pub(crate) struct Absent {
    /// Whether there is anything, so that answers need not look.
    any: AtomicBool,
    /// std mutex: held for one look-up, never across an await.
    known: Mutex<HashMap<(String, CallKind), Absence>>,
}

#[derive(Clone, Copy, Debug)]
struct Absence {
    until: Instant,
    pause: Duration,
}

impl Absent {
    /// The server refused this model for this kind of call. Whether that is news.
    pub(crate) fn refused(&self, model: &str, kind: CallKind, now: Instant) -> bool {
        let mut known = self.lock();
        if let Some(absence) = known.get_mut(&(model.to_owned(), kind)) {
            // Calls that were under way together are one refusal.
            if absence.until <= now {
                let pause = (absence.pause * 2).min(LONGEST_PAUSE);
                *absence = Absence { until: now + pause, pause };
            }
            return false;
        }
        if known.len() >= MOST {
            return false;
        }
        known.insert((model.to_owned(), kind), Absence { until: now + FIRST_PAUSE, pause: FIRST_PAUSE });
        self.any.store(true, Ordering::Release);
        true
    }

    /// The server answered for this model. Whether that is news.
    pub(crate) fn answered(&self, model: &str, kind: CallKind) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let mut known = self.lock();
        let was_absent = known.remove(&(model.to_owned(), kind)).is_some();
        self.any.store(!known.is_empty(), Ordering::Release);
        was_absent
    }

    /// Whether the last answer for this model was that it is not there.
    pub(crate) fn lacks(&self, model: &str, kind: CallKind) -> bool {
        self.find(model, kind).is_some()
    }

    /// Whether others are to be preferred now.
    pub(crate) fn avoid(&self, model: &str, kind: CallKind, now: Instant) -> bool {
        self.find(model, kind).is_some_and(|absence| now < absence.until)
    }

    /// Forgets all of it.
    pub(crate) fn forget(&self) {
        let mut known = self.lock();
        known.clear();
        self.any.store(false, Ordering::Release);
    }

    /// Whether anything is absent.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    fn find(&self, model: &str, kind: CallKind) -> Option<Absence> {
        if !self.any() {
            return None;
        }
        self.lock().get(&(model.to_owned(), kind)).copied()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, CallKind), Absence>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_is_news_once_and_looked_for_again() {
        let (absent, now) = (Absent::default(), Instant::now());
        assert!(!absent.any() && !absent.answered("m", CallKind::Chat));
        assert!(absent.refused("m", CallKind::Chat, now));
        assert!(!absent.refused("m", CallKind::Chat, now), "known");
        assert!(absent.avoid("m", CallKind::Chat, now) && !absent.avoid("m", CallKind::Embeddings, now));
        let later = now + FIRST_PAUSE;
        assert!(!absent.avoid("m", CallKind::Chat, later) && absent.lacks("m", CallKind::Chat));
        assert!(!absent.refused("m", CallKind::Chat, later));
        assert!(absent.avoid("m", CallKind::Chat, later + FIRST_PAUSE));
        assert!(absent.answered("m", CallKind::Chat));
        assert!(!absent.any() && !absent.lacks("m", CallKind::Chat));
    }

    #[test]
    fn it_is_bounded() {
        let (absent, now) = (Absent::default(), Instant::now());
        for model in 0..2 * MOST {
            absent.refused(&model.to_string(), CallKind::Chat, now);
        }
        assert_eq!(absent.lock().len(), MOST);
    }
}
