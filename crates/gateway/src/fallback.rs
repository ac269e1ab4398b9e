//! Holds: which model answers where no server of the one that was asked for does.
//!
//! What the first model's hold covers the next one's need not: its own is taken in place of it, so that no more is ever
//! charged than is held.

use std::sync::Arc;

use batchin_scheduler::Gate;
use metrics::counter;

use crate::{
    Availability, Caller, Catalog, DispatchError, Dispatcher, Gateway, Inbound, Model, Running, Work,
    admit::{Admitted, admit_on},
    bill::Arrival,
    reserve::{Reservation, reserve},
};

/// Models that are asked after the first at most: each has its own tries, and a client waits for all of them.
pub(crate) const MAX_FALLBACKS: usize = 3;

impl Catalog {
    /// The model that answers in place of this one: the next of its fallbacks that is in service.
    pub(crate) fn fallback_of(&self, model: &Model) -> Option<&Arc<Model>> {
        let mut next = self.find(model.fallback.as_deref()?)?;
        for _ in 0..MAX_FALLBACKS {
            if next.availability != Availability::Offline {
                // A configuration has no circles; a catalogue that was put together otherwise ends here.
                return (next.id != model.id).then_some(next);
            }
            next = self.find(next.fallback.as_deref()?)?;
        }
        None
    }
}

impl DispatchError {
    /// Whether another model's servers may do better: not where the request is at fault, nor where it was to wait.
    fn is_of_servers(&self) -> bool {
        match self {
            Self::NoRoom(_) | Self::Failed | Self::TimedOut => true,
            Self::Refused { .. } | Self::NotFree { .. } => false,
        }
    }
}

impl Gateway {
    /// Begins a task of a model on one of its servers, or, where none of them is there, on one of its fallback's.
    pub fn begin_task(&self, model: &Model, work: Work) -> Result<Running, Gate> {
        let replicas = self.replicas_of(model);
        let refused = match self.dispatcher().begin(&replicas, work) {
            Err(Gate::Unavailable) if !Dispatcher::is_one_up(&replicas, work) => Gate::Unavailable,
            begun => return begun,
        };
        let catalog = self.catalog();
        let mut next = catalog.fallback_of(model);
        for _ in 0..MAX_FALLBACKS {
            let Some(other) = next else { break };
            let replicas = self.replicas_of(other);
            if Dispatcher::is_one_up(&replicas, work) {
                let mut running = self.dispatcher().begin(&replicas, work)?;
                running.instead = Some(Arc::clone(other));
                return Ok(running);
            }
            next = catalog.fallback_of(other);
        }
        Err(refused)
    }

    /// What another model would do for a request whose servers failed so, and what is set aside for it. What was set aside
    /// before is free. `None` where none may, can, or can be paid for: then the failure stands.
    pub(crate) async fn fall_back(
        &self,
        arrival: &Arrival,
        (caller, inbound): (&Caller, &Inbound),
        (admitted, reservation): (&Admitted, Reservation),
        cause: &DispatchError,
    ) -> Option<(Admitted, Reservation)> {
        let model = arrival.catalog.fallback_of(&admitted.model).filter(|_| cause.is_of_servers())?;
        let next = admit_on(model, inbound).ok()?.speaking_as(admitted);
        // The rest of a balance may cover one of them and not both.
        drop(reservation);
        let reservation = reserve(&arrival.epoch, caller, next.ceiling, arrival.came_in).await.ok()?;
        note(&admitted.model, model);
        Some((next, reservation))
    }
}

/// The model that answers a request, where it is not the one that it names.
pub(crate) fn served_instead(catalog: &Catalog, admitted: &Admitted) -> Option<String> {
    let asked = catalog.find(&admitted.peek.model)?;
    (asked.id != admitted.model.id).then(|| admitted.model.id.clone())
}

pub(crate) fn note(from: &Model, to: &Model) {
    counter!("batchin_fallbacks_total", "from" => from.id.clone(), "to" => to.id.clone()).increment(1);
}
