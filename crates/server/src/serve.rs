//! Holds: the running server: its parts, their order of starting, and their order of ending.

mod accepting;
mod agreement;
mod connections;
mod engine;
mod listen;
mod outgoing;
mod patience;
mod reload;
mod webhooks;

pub use agreement::BLOBS;

use std::{io::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use batchin_api::{ApiParts, ApiSettings};
use batchin_audit::Audit;
use batchin_batch::{Batches, FilmParts, Films, Maker, Worker, WorkerParts};
use batchin_billing::{Billing, BillingParts, Pace};
use batchin_config::{Config, Sources};
use batchin_domain::{Clock, IdSource};
use batchin_files::{Blobs, Files, FilesParts};
use batchin_gateway::{
    Books, Catalog, Dispatcher, Gateway, GatewayParts, Keeper, KeeperOptions, Links, PICTURES_KEPT, Shelf,
};
use batchin_scheduler::Policy;
use batchin_store::Store;
use batchin_tasks::{Sweeps, Tasks};
use batchin_upstream::Fleet;
use batchin_webhooks::Webhooks;
use metrics_exporter_prometheus::PrometheusHandle;
use reload::Reloader;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    audit_log, secret_key,
    wiring::{self, NodeFolder},
    world::World,
};

/// How long background work may take to end once it is asked to.
const TASK_PATIENCE: Duration = Duration::from_secs(10);
/// How long the last group commits may take.
const WRITER_PATIENCE: Duration = Duration::from_secs(15);
/// The metrics recorder forgets old samples this often.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// Task groups in the order in which they end.
struct Groups {
    /// Claim and run tasks.
    workers: Tasks,
    /// Everything beside requests.
    beside: Tasks,
    /// Group commits.
    writers: Tasks,
}

/// Runs the server until it is told to stop, then ends it in good order.
pub async fn serve(config: Config, sources: Sources, migrate: bool) -> Result<()> {
    let metrics = crate::telemetry::install_metrics().context("metrics cannot be recorded")?;
    let groups = Groups { workers: Tasks::new(), beside: Tasks::new(), writers: Tasks::new() };
    let node = NodeFolder::open(&config.server.data_dir, &World)?;
    config.warnings().iter().for_each(|warning| warn!("{warning}"));
    // Held until the process ends.
    let _database_lock = wiring::lock_database(&config)?;
    let store = wiring::connect(&config, migrate).await?;
    let blobs = Blobs::open(&config.blobs).context("blobs")?;
    agreement::check_blobs(&store.agreement(), &blobs, &config.blobs).await?;
    let parts = FilesParts {
        rows: store.file_rows(),
        blobs: blobs.clone(),
        clock: Arc::new(World),
        ids: Arc::new(World),
        tasks: groups.beside.clone(),
    };
    let files = Files::new(parts, config.files.clone());
    let key = secret_key::find_or_make(&config, &World)?;
    let shelf = Shelf {
        files: files.clone(),
        links: Links::new(&key.derive("addresses of pictures"), config.server.public_url.as_str()),
        kept: PICTURES_KEPT,
        kept_of_batches: config.batches.worker.retention,
    };
    let gateway = start_gateway(&config, &store, (&node, &groups), shelf).await?;
    agreement::watch(gateway.clone(), (store.agreement(), store.prices()), &groups.beside);
    let webhooks = webhooks::open(&key, &store).await?;
    let batches = Batches::new(gateway.clone(), (store.openings(), store.endings()), blobs.clone(), files.clone())
        .with_webhook_targets(config.webhooks.targets.clone())
        .with_open_limits(config.batches.open);
    let films = Films::new(gateway.clone(), store.film_rows(), (blobs.clone(), files.clone()), config.films);
    let billing = open_billing(&config, &store, &groups)?;
    let audit = audit_log::open(&config, key.clone(), &store, &groups.beside).await?;
    engine::start(&config, gateway.fleet(), &groups.beside);
    let mut sweeps = Sweeps::default();
    gateway.add_sweeps(&mut sweeps);
    let statements = store.statements();
    sweeps.add("statements could not be added up", move || {
        let statements = statements.clone();
        async move { statements.keep_up(World.now()).await }
    });
    if config.server.roles.worker {
        let parts = WorkerParts {
            gateway: gateway.clone(),
            claims: store.claims(),
            endings: store.endings(),
            keys: store.keys(),
            chores: store.chores(),
            rows: store.batch_rows(),
            blobs: blobs.clone(),
            files: files.clone(),
        };
        Worker::start(parts, &batches, config.batches.worker, &groups.workers);
        files.add_sweep(&mut sweeps);
        let parts = FilmParts { gateway: gateway.clone(), claims: store.film_claims(), keys: store.keys(), blobs };
        Maker::start(parts, &films, &groups.workers);
        webhooks::start(&config, &webhooks, &gateway, (&groups.workers, &mut sweeps))?;
        billing.start(Pace::default(), &groups.workers);
        billing.add_sweep(&mut sweeps);
    }
    audit.start(&groups.workers);
    sweeps.start(&groups.beside);
    upkeep(&metrics, &groups.beside);
    let stopping = CancellationToken::new();
    let parts = api_parts(
        &config,
        (&gateway, &store),
        (batches, films, files, webhooks, billing, audit),
        (metrics, stopping.clone()),
    );
    let listener = listen::bind(&config.server)?;
    let (started, tls) = (config.clone(), listener.tls());
    reload::watch(Reloader { sources, started, prices: store.prices(), gateway: gateway.clone(), tls }, &groups.beside);
    node.note_address(listener.address()?).context("the data folder")?;
    announce(&config, listener.address()?)?;
    let (drain, grace) = (config.shutdown.drain, config.server.shutdown_grace);
    let stop = Stop { stopping, listener: listener.handle(), drain, grace };
    run_until_stopped(listener.serve(batchin_api::router(parts)), stop).await?;
    end(gateway, store, groups).await
}

async fn start_gateway(
    config: &Config,
    store: &Store,
    (node, groups): (&NodeFolder, &Groups),
    shelf: Shelf,
) -> Result<Gateway> {
    let (clock, ids): (Arc<dyn Clock>, Arc<dyn IdSource>) = (Arc::new(World), Arc::new(World));
    // Half a lease more than a group commit that was under way when the lease ended may take.
    let lease = config.server.node_lease;
    let options = KeeperOptions { node: node.id, lease, grace: lease / 2 };
    let world = (Arc::clone(&clock), Arc::clone(&ids));
    let books = Books { nodes: store.nodes(), purses: store.purses(), ledger: store.ledger() };
    let keeper = Keeper::start(books, world, options, &groups.beside, &groups.writers)
        .await
        .context("this node cannot join the database")?;
    let (fingerprint, body) = wiring::price_list(config);
    let version = store.prices().publish_prices(&fingerprint, &body, clock.now()).await.context("prices")?;
    batchin_faults::point("prices.published");
    let catalog = Catalog::new(version, config.models.clone())?;
    let seed = u64::from_le_bytes(ids.secret()[..8].try_into().context("a seed has eight bytes")?);
    let fleet = Fleet::new(config.upstreams.clone(), &groups.beside, seed)?;
    let sharing = (Policy::default(), config.server.gateway.max_account_percent);
    let dispatcher = Dispatcher::start(&fleet, sharing, Arc::clone(&clock), &groups.beside);
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
        tasks: groups.beside.clone(),
        shelf,
        programs: Arc::new(batchin_media::Programs::find()),
    };
    let gateway = Gateway::new(parts, config.server.gateway);
    gateway.follow_drains().await.context("the drained model servers")?;
    Ok(gateway)
}

fn open_billing(config: &Config, store: &Store, groups: &Groups) -> Result<Billing> {
    let parts = BillingParts {
        topups: store.topups(),
        inbox: store.inbox(),
        deposits: store.deposits(),
        auto: store.auto_topups(),
        clock: Arc::new(World),
        ids: Arc::new(World),
        tasks: groups.beside.clone(),
        stripe: config.stripe.clone(),
        usdc: config.usdc.clone(),
    };
    Billing::new(parts).context("money in")
}

fn api_parts(
    config: &Config,
    (gateway, store): (&Gateway, &Store),
    later: (Batches, Films, Files, Webhooks, Billing, Audit),
    rest: (PrometheusHandle, CancellationToken),
) -> ApiParts {
    let ((batches, films, files, webhooks, billing, audit), (metrics, stopping)) = (later, rest);
    let settings = ApiSettings {
        internal_token: config.users.internal_token.clone(),
        public_lookup: config.is_lookup_open(),
        proxied_lookup: config.users.public_lookup,
        registration_open: config.users.registration_open,
        default_rate_limit_rpm: config.keys.default_rate_limit_rpm,
        max_body_bytes: config.server.max_body_bytes,
        max_sound_bytes: config.audio.max_upload_bytes,
        max_inline_batch_bytes: config.batches.max_inline_bytes,
        metrics_enabled: config.metrics.enabled,
        metrics_token: config.metrics.token.clone(),
        trusted_proxies: config.server.trusted_proxies.clone(),
        keep_alive: batchin_api::KEEP_ALIVE,
        reader_patience: config.server.write_timeout,
        min_body_bytes_per_second: config.server.min_body_bytes_per_second,
        body_window: batchin_api::BODY_WINDOW,
        max_account_percent: config.server.gateway.max_account_percent,
        max_address_percent: config.server.max_address_percent,
        cors_origins: config.server.cors_origins.clone(),
        public_url: config.server.public_url.as_str().trim_end_matches('/').to_owned(),
        mail: config.smtp.is_some(),
        serves: config.server.roles.api,
    };
    ApiParts {
        accounts: store.accounts(),
        keys: store.keys(),
        balances: store.balances(),
        topups: store.topups(),
        alerts: store.alerts(),
        credit: store.credit(),
        admin_log: store.admin_log(),
        billing,
        audit,
        usage: store.usage(),
        statements: store.statements(),
        voices: store.voices(),
        batch_rows: store.batch_rows(),
        delivery_log: store.delivery_log(),
        pulse: store.pulse(),
        gateway: gateway.clone(),
        batches,
        films,
        files,
        webhooks,
        clock: Arc::new(World),
        ids: Arc::new(World),
        settings,
        metrics: Arc::new(move || metrics.render()),
        stopping,
    }
}

fn upkeep(metrics: &PrometheusHandle, tasks: &Tasks) {
    let metrics = metrics.clone();
    tasks.spawn("metrics_upkeep", move |stop| async move {
        let mut ticks = tokio::time::interval(METRICS_UPKEEP);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            metrics.run_upkeep();
        }
    });
}

fn announce(config: &Config, address: SocketAddr) -> Result<()> {
    let scheme = if config.server.tls.is_some() { "https" } else { "http" };
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on {scheme}://{address}")?;
    out.flush()?;
    Ok(())
}

/// How to stop serving.
struct Stop {
    /// The server says that it is not ready any more.
    stopping: CancellationToken,
    listener: accepting::Handle,
    /// Requests are still taken for so long.
    drain: Duration,
    grace: Duration,
}

/// Serves until a signal comes; then lets requests under way end, for as long as the grace lasts.
async fn run_until_stopped(served: impl Future<Output = std::io::Result<()>>, stop: Stop) -> Result<()> {
    let grace = stop.grace;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::pin!(served);
    // Nobody balances what a person stops at a terminal.
    let drain = tokio::select! {
        ended = &mut served => return ended.context("the listener failed"),
        _ = terminate.recv() => stop.drain,
        _ = interrupt.recv() => Duration::ZERO,
    };
    stop.stopping.cancel();
    if !drain.is_zero() {
        info!("stopping: not ready any more, and requests are taken for another {drain:?}");
        tokio::select! {
            ended = &mut served => return ended.context("the listener failed"),
            () = tokio::time::sleep(drain) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
    info!("stopping: requests under way have {grace:?}");
    stop.listener.close();
    tokio::select! {
        ended = &mut served => return ended.context("the listener failed"),
        () = tokio::time::sleep(grace) => warn!("requests still under way after {grace:?} are cut off"),
        _ = terminate.recv() => warn!("told again to stop: requests under way are cut off"),
        _ = interrupt.recv() => warn!("told again to stop: requests under way are cut off"),
    }
    // Their streams settle what was delivered when they are dropped.
    stop.listener.cut();
    served.await.context("the listener failed")
}

/// Who settles ends before who writes, and both before the leases go back.
async fn end(gateway: Gateway, store: Store, groups: Groups) -> Result<()> {
    groups.workers.shutdown(TASK_PATIENCE).await;
    let keeper = Arc::clone(gateway.keeper());
    drop(gateway);
    groups.beside.shutdown(TASK_PATIENCE).await;
    keeper.leave(WRITER_PATIENCE).await.context("leases could not be given back")?;
    store.close().await.context("the database")?;
    info!("stopped");
    Ok(())
}
