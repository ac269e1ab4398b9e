//! Holds: the model servers of a test, and the gateway to them.

use std::{sync::Arc, time::Duration};

use batchin_domain::{Capability, Clock, IdSource, NodeId};
use batchin_gateway::{
    Books, Catalog, Dispatcher, Gateway, GatewayOptions, GatewayParts, Keeper, KeeperOptions, Shelf,
};
use batchin_scheduler::Policy;
use batchin_store::{PriceList, Store};
use batchin_tasks::Tasks;
use batchin_upstream::{Fim, Fleet, Kind, UpstreamConfig, Workflow};

use crate::{
    TestClock,
    models::{CachePrices, film_model, models, picture_model},
    world::RealIds,
};

/// Longer than any test pauses, so that a busy machine does not fence its own node.
const LEASE: Duration = Duration::from_secs(20);

/// The model servers, and how they are used.
pub(crate) struct Served {
    pub(crate) addresses: Vec<String>,
    pub(crate) kind: Kind,
    pub(crate) slots: Option<u32>,
    pub(crate) cache: Option<CachePrices>,
    pub(crate) fim: Fim,
    pub(crate) natively: bool,
    pub(crate) workflow: Option<Arc<Workflow>>,
}

/// A gateway with the models of tests.
pub(crate) async fn start_gateway(
    store: &Store,
    (served, shelf): (Served, Shelf),
    bounds: GatewayOptions,
    (clock, groups): (&Arc<TestClock>, &[Tasks; 3]),
) -> Gateway {
    let Served { addresses, kind, slots, cache, fim, natively, workflow } = served;
    let [_, beside, writers] = groups;
    let (clock, ids): (Arc<dyn Clock>, Arc<dyn IdSource>) = (clock.clone(), Arc::new(RealIds));
    let options = KeeperOptions { node: NodeId::new(ids.uuid()), lease: LEASE, grace: LEASE / 2 };
    let world = (Arc::clone(&clock), Arc::clone(&ids));
    let books = Books { nodes: store.nodes(), purses: store.purses(), ledger: store.ledger() };
    let keeper = Keeper::start(books, world, options, beside, writers).await.unwrap();
    let names = &["sim", "sim-2"][..addresses.len()];
    let mut models = models(names, cache, fim);
    if natively && let Some(chats) = models.iter_mut().find(|model| model.id == "chat-model") {
        chats.capabilities.extend([Capability::Responses, Capability::Messages]);
    }
    if kind != Kind::VLLM && kind.can.contains(&Capability::Video) {
        models.push(film_model(names));
    }
    if kind != Kind::VLLM && kind.can.contains(&Capability::Images) {
        models.push(picture_model(names));
    }
    let body = PriceList::body(models.iter().map(|model| (model.id.as_str(), &model.prices)));
    let version = store.prices().publish_prices("test", &body, clock.now()).await.unwrap();
    let catalog = Catalog::new(version, models).unwrap();
    let upstream = |(name, address): (&&str, &String)| {
        let mut config = UpstreamConfig::new(name, kind, address).unwrap();
        config.slots = slots;
        config.workflow = workflow.clone();
        config
    };
    let upstreams = names.iter().zip(&addresses).map(upstream).collect();
    let fleet = Fleet::new(upstreams, beside, 1).unwrap();
    let dispatcher = Dispatcher::start(&fleet, (Policy::default(), 90), Arc::clone(&clock), beside);
    let tasks = beside.clone();
    let parts = GatewayParts {
        answers: store.answers(),
        voices: store.voices(),
        drains: store.drains(),
        fleet,
        catalog,
        keeper,
        dispatcher,
        clock,
        ids,
        tasks,
        shelf,
        programs: Arc::new(batchin_media::Programs::find()),
    };
    let gateway = Gateway::new(parts, bounds);
    gateway.follow_drains().await.unwrap();
    gateway
}
