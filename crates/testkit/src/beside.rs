//! Holds: what runs beside the server of a test: its socket, and who works in the background.

use std::{convert::Infallible, future::ready, sync::Arc, time::Duration};

use axum::serve::IncomingStream;
use batchin_audit::Audit;
use batchin_batch::{Batches, Films, Maker, Worker, WorkerOptions};
use batchin_billing::{Billing, Pace};
use batchin_domain::webhook::TargetPolicy;
use batchin_files::{Blobs, Files};
use batchin_gateway::Gateway;
use batchin_store::Store;
use batchin_tasks::Tasks;
use batchin_webhooks::{Deliverer, DelivererParts, MailOptions, Mailer, MasterKey, Sender, SystemLookup, Webhooks};
use tokio::net::TcpListener;

use crate::{
    TestClock,
    parts::{film_parts, worker_parts},
    world::RealIds,
};

/// What webhook secrets are sealed with.
const SECRET_KEY: &str = "the tests' own key, as good as any other";

/// Opens the accounts' secrets.
pub(crate) async fn secrets(store: &Store, clock: &Arc<TestClock>) -> Webhooks {
    let key = MasterKey::new(SECRET_KEY.to_owned().into()).unwrap();
    Webhooks::open(store.outbox(), &key, clock.clone(), Arc::new(RealIds)).await.unwrap()
}

/// Where webhooks and mail may go.
pub(crate) type Told<'a> = (&'a Webhooks, TargetPolicy, Option<MailOptions>);

/// Runs all that works in the background.
pub(crate) fn work(
    (store, gateway): (&Store, &Gateway),
    (batches, films): (&Batches, &Films),
    ((blobs, files), retention): ((&Blobs, &Files), Duration),
    ((webhooks, targets, mail), billing, audit): (Told<'_>, &Billing, &Audit),
    tasks: &Tasks,
) {
    Maker::start(film_parts(store, gateway, blobs), films, tasks);
    let options = WorkerOptions { concurrency: 4, max_attempts: 3, retention };
    Worker::start(worker_parts(store, gateway, (blobs, files)), batches, options, tasks);
    deliver((gateway, webhooks), (targets, mail), tasks);
    billing.start(Pace::default(), tasks);
    audit.start(tasks);
}

/// Sends what webhooks are to be told.
fn deliver(
    (gateway, webhooks): (&Gateway, &Webhooks),
    (targets, mail): (TargetPolicy, Option<MailOptions>),
    tasks: &Tasks,
) {
    let (webhooks, keeper) = (webhooks.clone(), Arc::clone(gateway.keeper()));
    let identity = Arc::new(move || Some(keeper.epoch()).filter(|epoch| epoch.holds()).map(|epoch| epoch.identity));
    let sender = Sender::new(targets, Arc::new(SystemLookup)).unwrap();
    let mailer = mail.map(|options| Mailer::new(options).unwrap());
    Deliverer::start(DelivererParts { webhooks, sender, mailer, identity }, tasks);
}

/// Serves a router on a port of its own; its address.
pub(crate) async fn listen(router: batchin_api::Api, tasks: &Tasks) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = tower::service_fn(move |stream: IncomingStream<'_, TcpListener>| {
        ready(Ok::<_, Infallible>(router.clone().for_peer(*stream.remote_addr())))
    });
    tasks.spawn("http", move |stop| async move {
        let stopped = async move { stop.cancelled().await };
        axum::serve(listener, service).with_graceful_shutdown(stopped).await.unwrap();
    });
    format!("http://{address}")
}
