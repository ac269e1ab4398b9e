//! Holds: the gateway itself: what the pipeline's steps share.

use std::{sync::Arc, time::Duration};

use crate::{
    Availability, Catalog, Dispatcher, Epoch, Keeper, Model, Shelf, looks::Looks, meters::Meters, waiters::Waiters,
};
use arc_swap::ArcSwap;
use batchin_domain::{AccountId, CallKind, Class, Clock, IdSource};
use batchin_media::Programs;
use batchin_shares::{ShareLimits, Shares};
use batchin_store::{Answers, Drains, Voices};
use batchin_tasks::{Sweeps, Tasks};
use batchin_upstream::{Fleet, Replica};

/// How long the answer to an Idempotency-Key is kept.
const IDEMPOTENCY_AGE: Duration = Duration::from_secs(24 * 3600);

/// How long a request of the tier `flex` waits for room: OpenAI's clients are told to wait as long.
pub const FLEX_PATIENCE: Duration = Duration::from_secs(600);

/// What the gateway works with.
pub struct GatewayParts {
    /// What was answered under an Idempotency-Key.
    pub answers: Answers,
    /// Voices that accounts have made.
    pub voices: Voices,
    /// Which model servers get nothing new.
    pub drains: Drains,
    /// The model servers.
    pub fleet: Fleet,
    /// The models.
    pub catalog: Catalog,
    /// This node's lease.
    pub keeper: Arc<Keeper>,
    /// Who runs next and where.
    pub dispatcher: Arc<Dispatcher>,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids.
    pub ids: Arc<dyn IdSource>,
    /// Work beside requests.
    pub tasks: Tasks,
    /// Where pictures are kept.
    pub shelf: Shelf,
    /// What makes sound into the formats that are asked for.
    pub programs: Arc<Programs>,
}

/// The gateway's bounds.
#[derive(Clone, Copy, Debug)]
pub struct GatewayOptions {
    /// Interactive requests in flight; what comes on top is refused.
    pub max_in_flight: usize,
    /// What one account may have of them while it is alone, in percent, 1 to 100; see [`ShareLimits`].
    pub max_account_percent: u64,
    /// How long a request of the tier `flex` waits for room; [`FLEX_PATIENCE`] outside of tests.
    pub flex_patience: Duration,
}

struct Inner {
    parts: GatewayParts,
    looks: Looks,
    catalog: ArcSwap<Catalog>,
    in_flight: Arc<Shares<AccountId>>,
    /// As many again for requests of the tier `flex`, which would wait in the places of others.
    flex: Arc<Shares<AccountId>>,
    flex_patience: Duration,
    waiters: Arc<Waiters>,
    meters: Meters,
}

/// The pipeline. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

impl Gateway {
    /// A gateway of these parts.
    pub fn new(parts: GatewayParts, options: GatewayOptions) -> Self {
        let catalog = ArcSwap::from_pointee(parts.catalog.clone());
        let most_percent = options.max_account_percent;
        let [in_flight, flex] =
            [(); 2].map(|()| Shares::new(ShareLimits { capacity: options.max_in_flight as u64, most_percent }));
        let inner = Inner {
            parts,
            looks: Looks::default(),
            catalog,
            in_flight,
            flex,
            flex_patience: options.flex_patience,
            waiters: Waiters::new(most_percent),
            meters: Meters::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The models in force.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.inner.catalog.load_full()
    }

    /// Takes over models, prices and what the fleet has taken over before; requests under way keep those that they began
    /// with.
    pub fn reload(&self, catalog: Catalog) {
        // In this order: nobody sees a model whose servers cannot be asked yet.
        self.inner.parts.dispatcher.set_replicas(&self.inner.parts.fleet);
        self.inner.catalog.store(Arc::new(catalog));
    }

    /// The model servers.
    pub fn fleet(&self) -> &Fleet {
        &self.inner.parts.fleet
    }

    /// Wall-clock time.
    pub fn clock(&self) -> &dyn Clock {
        &*self.inner.parts.clock
    }

    /// Fresh ids.
    pub fn ids(&self) -> &dyn IdSource {
        &*self.inner.parts.ids
    }

    /// Fresh ids, for work that outlives a borrow.
    pub fn shared_ids(&self) -> Arc<dyn IdSource> {
        Arc::clone(&self.inner.parts.ids)
    }

    /// Who runs next and where.
    pub fn dispatcher(&self) -> &Arc<Dispatcher> {
        &self.inner.parts.dispatcher
    }

    /// This node's lease.
    pub fn keeper(&self) -> &Arc<Keeper> {
        &self.inner.parts.keeper
    }

    /// The epoch in force.
    pub fn epoch(&self) -> Arc<Epoch> {
        self.inner.parts.keeper.epoch()
    }

    /// The upstreams of a model, also where a reload has just taken them from it.
    pub fn replicas_of(&self, model: &Model) -> Vec<Arc<Replica>> {
        model.upstreams.iter().filter_map(|name| self.inner.parts.fleet.known(name)).collect()
    }

    /// Whether some model server can serve it now.
    pub fn is_up(&self, model: &Model) -> bool {
        let asked = || CallKind::ALL.into_iter().filter_map(|call| call.asked_of(&model.capabilities));
        model.availability != Availability::Offline
            && self.replicas_of(model).iter().any(|replica| replica.serves(&model.id, asked()))
    }

    /// The upstreams of a model that are up, and apart from them those that said of late that they don't have it: for
    /// when none of the others takes a request.
    pub(crate) fn replicas_for(&self, model: &Model, call: CallKind) -> [Vec<Arc<Replica>>; 2] {
        let (spare, first) = self.replicas_of(model).into_iter().partition(|replica| replica.avoids(&model.id, call));
        [first, spare]
    }

    /// The same as the models in force have it, for who has waited.
    pub(crate) fn replicas_now(&self, model: &Model, call: CallKind) -> [Vec<Arc<Replica>>; 2] {
        self.replicas_for(self.catalog().find(&model.id).map_or(model, |model| model), call)
    }

    /// Has the windows of minutes that are over and old answers removed.
    pub fn add_sweeps(&self, sweeps: &mut Sweeps) {
        const FAILED: &str = "old rows could not be swept";
        let gateway = self.clone();
        sweeps.add(FAILED, move || {
            let (purses, now) = (gateway.keeper().books.purses.clone(), gateway.clock().now());
            async move { purses.sweep_minutes(now.minute()).await.map(drop) }
        });
        let gateway = self.clone();
        sweeps.add(FAILED, move || {
            let (answers, now) = (gateway.answers().clone(), gateway.clock().now());
            async move { answers.sweep_idempotent(now, IDEMPOTENCY_AGE).await.map(drop) }
        });
    }

    /// Work beside requests.
    pub fn tasks(&self) -> &Tasks {
        &self.inner.parts.tasks
    }

    /// Where pictures are kept.
    pub fn shelf(&self) -> &Shelf {
        &self.inner.parts.shelf
    }

    pub(crate) fn voices(&self) -> &Voices {
        &self.inner.parts.voices
    }

    pub(crate) fn programs(&self) -> &Arc<Programs> {
        &self.inner.parts.programs
    }

    pub(crate) fn looks(&self) -> &Looks {
        &self.inner.looks
    }

    pub(crate) fn drains(&self) -> &Drains {
        &self.inner.parts.drains
    }

    pub(crate) fn answers(&self) -> &Answers {
        &self.inner.parts.answers
    }

    pub(crate) fn meters(&self) -> &Meters {
        &self.inner.meters
    }

    /// The places of requests of this class whose clients wait.
    pub(crate) fn in_flight(&self, class: Class) -> &Arc<Shares<AccountId>> {
        if class == Class::Interactive { &self.inner.in_flight } else { &self.inner.flex }
    }

    pub(crate) fn flex_patience(&self) -> Duration {
        self.inner.flex_patience
    }

    pub(crate) fn waiters(&self) -> &Arc<Waiters> {
        &self.inner.waiters
    }
}
