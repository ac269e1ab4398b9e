//! Holds: films: what a job may cost, set aside as long as it is worked on; the server that it is begun on; its charge.
//!
//! A job outlives any request and any process. Its money is held in memory as a task's is: when the node ends, the hold goes
//! with its lease, and whoever goes on with the job sets it aside anew.

use std::sync::Arc;

use batchin_domain::{CallKind, Class, Measure, RequestId};
use batchin_scheduler::Outcome as Ended;
use batchin_store::{FilmFinish, FilmOrder, Outcome};
use batchin_upstream::{FilmAsk, FilmBytes, FilmState, Replica};

pub use batchin_upstream::CallError as FilmTrouble;
use bytes::Bytes;

use crate::{
    AnswerError, Caller, Gateway, Inbound, Model, SettleError, TaskError,
    admit::{Admitted, admit},
    bill::{Arrival, Bill},
    dispatch::{Running, Work},
    failover::Failover,
    reserve::{Reservation, reserve, take_request},
};

/// What a film weighs where servers are compared by the tokens of their work: more than nearly any chat.
const FILM_TOKENS: u64 = 65_536;

/// A job whose highest cost is set aside. Dropped, it is free again.
pub struct HeldFilm {
    arrival: Arrival,
    caller: Caller,
    inbound: Inbound,
    admitted: Admitted,
    reservation: Reservation,
}

/// A job's place at a server.
pub struct FilmSeat {
    replica: Arc<Replica>,
    /// `None` where the server is full by our count, and has the job all the same.
    running: Option<Running>,
}

/// The body by which a job is checked and priced.
#[derive(serde::Serialize)]
struct Priced<'a> {
    model: &'a str,
    prompt: &'a str,
    duration_seconds: u32,
}

impl Gateway {
    /// Checks what is asked for, and that it can be paid for now; nothing stays set aside. It counts as one of the key's
    /// minute. Returns the model that would make it.
    pub async fn check_film(
        &self,
        caller: &Caller,
        (model, prompt, seconds): (&str, &str, u32),
    ) -> Result<Arc<Model>, AnswerError> {
        let arrival = self.arrival()?;
        take_request(&arrival.epoch, caller, arrival.came_in).await?;
        let inbound = inbound((model, prompt, seconds), RequestId::new(self.ids().uuid()));
        let admitted = admit(&arrival.catalog, &inbound)?;
        drop(reserve(&arrival.epoch, caller, admitted.ceiling, arrival.came_in).await?);
        Ok(admitted.model)
    }

    /// Sets aside what a job may cost.
    pub async fn hold_film(&self, caller: &Caller, order: &FilmOrder) -> Result<HeldFilm, TaskError> {
        let arrival = self.arrival()?;
        let inbound = inbound((&order.model, &order.prompt, order.seconds), order.request);
        let admitted = admit(&arrival.catalog, &inbound)?;
        let reservation = reserve(&arrival.epoch, caller, admitted.ceiling, arrival.came_in).await?;
        Ok(HeldFilm { arrival, caller: caller.clone(), inbound, admitted, reservation })
    }

    /// Begins a job on one server or another; returns what the server calls it.
    pub async fn submit_film(&self, held: &HeldFilm, order: &FilmOrder) -> Result<(FilmSeat, String), TaskError> {
        let model = &*held.admitted.model;
        let mut failover = Failover::new(self.replicas_for(model, CallKind::Video), held.work());
        let request_id = order.request.to_string();
        loop {
            let running = failover.begin(self.dispatcher())?;
            let ask = FilmAsk {
                prompt: &order.prompt,
                upstream_model: model.upstream_name(),
                public_model: &model.id,
                seconds: order.seconds,
                fps: model.film.fps,
                frame: order.frame,
                request_id: &request_id,
                asker: running.asker,
            };
            match running.replica.submit_film(&ask).await {
                Ok(remote) => {
                    let seat = FilmSeat { replica: Arc::clone(&running.replica), running: Some(running) };
                    return Ok((seat, remote));
                }
                Err(error) => failover.failed(running, error, false)?,
            }
        }
    }

    /// The place of a job that a server has; `None` where no server of this name is configured any more.
    pub fn film_seat(&self, held: &HeldFilm, upstream: &str) -> Option<FilmSeat> {
        let replica = self.fleet().replica(upstream)?;
        let running = self.dispatcher().begin(&[Arc::clone(&replica)], held.work()).ok();
        Some(FilmSeat { replica, running })
    }
}

impl Gateway {
    /// Tells a server that nobody waits for its job any more. Whether there is nothing more to tell: it was told, or no
    /// server of this name is configured any more.
    pub async fn leave_film(&self, upstream: &str, remote: &str) -> bool {
        match self.fleet().replica(upstream) {
            Some(replica) => replica.leave_film(remote).await.is_ok(),
            None => true,
        }
    }
}

impl HeldFilm {
    /// Whether the node may still go on with it: its money is set aside in an epoch that is in force.
    pub fn holds(&self, gateway: &Gateway) -> bool {
        let epoch = gateway.epoch();
        epoch.holds() && epoch.identity == self.arrival.epoch.identity
    }

    /// Frames a second, as the model makes them.
    pub fn fps(&self) -> u32 {
        self.admitted.model.film.fps
    }

    /// Charges for so many milliseconds and ends the job, in one transaction; the film must lie in its blob before. What was
    /// not measured, but is as long as it was asked to be, is marked as estimated.
    pub async fn settle(self, gateway: &Gateway, finish: FilmFinish, estimated: bool) -> Result<(), SettleError> {
        let Self { arrival, caller, inbound, admitted, reservation } = self;
        let mut bill = Bill::open(gateway.clone(), arrival, &caller, (inbound, admitted), reservation.amount());
        bill.meter.made(Measure::VideoMs, finish.film.ms);
        let mut settlement = bill.settlement(Outcome::Completed, &reservation);
        // What is told of the film is what is charged.
        let charged = settlement.usage.as_ref().map_or(0, |usage| usage.counts.of(Measure::VideoMs));
        let film = batchin_store::StoredFilm { ms: charged, ..finish.film };
        settlement.film = Some(Box::new(FilmFinish { film, ..finish }));
        if let Some(usage) = &mut settlement.usage {
            usage.estimated |= estimated;
        }
        let charging = reservation.charging(settlement.charge);
        charging.end(bill.epoch.committer.commit(settlement).await)?;
        bill.note(Outcome::Completed);
        Ok(())
    }

    fn work(&self) -> Work {
        let account = self.caller.account;
        let (class, expected) = (Class::Interactive, FILM_TOKENS);
        Work { class, prompt_bound: 0, expected, beginning: None, task: None, unseen: true, account }
    }
}

impl FilmSeat {
    /// The server's configured name.
    pub fn name(&self) -> &str {
        self.replica.name()
    }

    /// How the server's job stands.
    pub async fn state(&self, remote: &str) -> Result<FilmState, FilmTrouble> {
        self.replica.film_state(remote).await
    }

    /// The film; `None` where the server does not have it.
    pub async fn content(&self, remote: &str) -> Result<Option<FilmBytes>, FilmTrouble> {
        self.replica.film_content(remote).await
    }

    /// Nobody needs the server's job any more.
    pub async fn leave(&self, remote: &str) -> Result<(), FilmTrouble> {
        self.replica.leave_film(remote).await
    }

    /// The server has made it.
    pub fn done(self) {
        if let Some(running) = self.running {
            running.finish(Ended::Ok);
        }
    }

    /// The server failed at it.
    pub fn failed(self) {
        if let Some(running) = self.running {
            running.finish(Ended::Failed);
        }
    }
}

fn inbound((model, prompt, duration_seconds): (&str, &str, u32), request: RequestId) -> Inbound {
    // Texts and a number always serialise.
    let body = serde_json::to_vec(&Priced { model, prompt, duration_seconds }).unwrap_or_default();
    Inbound {
        call: CallKind::Video,
        body: Bytes::from(body),
        request,
        class: Class::Interactive,
        task: None,
        shown: None,
        pictures_in_both: false,
        idempotency: None,
        sound: None,
    }
}
