//! Holds: the server of a test, from its database to its socket.

use std::{
    future::{Future, IntoFuture},
    path::Path,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use batchin_api::{ApiParts, ApiSettings, BODY_WINDOW, KEEP_ALIVE, router};
use batchin_batch::{Batches, Films, FilmsOptions, Maker, Worker, WorkerOptions};
use batchin_billing::{Billing, Pace, StripeOptions, UsdcOptions};
use batchin_domain::{
    Amount, Balance, Capability, Clock, IdSource, NodeId, Timestamp, TransferId, webhook::TargetPolicy,
};
use batchin_files::{Blobs, BlobsPlace, Files, FilesOptions, FilesParts};
use batchin_gateway::{
    Books, Catalog, Dispatcher, FLEX_PATIENCE, Gateway, GatewayOptions, GatewayParts, Keeper, KeeperOptions, Links,
    Shelf,
};
use batchin_scheduler::Policy;
use batchin_sim::SimServer;
use batchin_store::{ConnectOptions, CreditGrant, PriceList, Role, Store};
use batchin_tasks::Tasks;
use batchin_upstream::{Fim, Fleet, Kind, UpstreamConfig, Workflow};
use batchin_webhooks::{MasterKey, Webhooks};
use http::Method;
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::{
    Backend, Call, TestClock,
    account::{Account, new_account},
    beside::{deliver, listen},
    database::Database,
    models::{CachePrices, film_model, models, picture_model},
    money,
    parts::{film_parts, shelf, worker_parts},
    usd,
    world::RealIds,
};

/// Longer than any test pauses, so that a busy machine does not fence its own node.
const LEASE: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(10);

/// Largest upload, in bytes: more than any test sends but the one that sends too much.
const MAX_FILE_BYTES: u64 = 100_000_000;

/// How long what came of a batch is kept.
pub const RETENTION: Duration = Duration::from_secs(30 * 24 * 3_600);

/// What webhook secrets are sealed with.
const SECRET_KEY: &str = "the tests' own key, as good as any other";

/// How a server is to be.
pub struct ServerBuilder {
    backend: Backend,
    balance: Amount,
    rpm: u32,
    budget: Option<Amount>,
    settings: ApiSettings,
    max_file_bytes: u64,
    files: FilesOptions,
    max_in_flight: usize,
    flex_patience: Duration,
    worker: bool,
    second_sim: bool,
    targets: TargetPolicy,
    kind: Kind,
    slots: Option<u32>,
    cache: Option<CachePrices>,
    fim: Fim,
    natively: bool,
    real: Option<String>,
    workflow: (String, &'static str),
    stripe: Option<StripeOptions>,
    pub(crate) usdc: Option<UsdcOptions>,
}

/// A running server with a simulated model server behind it.
pub struct TestServer {
    /// The model server.
    pub sim: SimServer,
    /// The second model server of each model, where there is one.
    pub other_sim: Option<SimServer>,
    /// The first account.
    pub owner: Account,
    /// The store that the server works on.
    pub store: Store,
    /// The pipeline.
    pub gateway: Gateway,
    /// Its files.
    pub files: Files,
    /// Where it keeps blobs.
    pub blobs: Blobs,
    /// Money in.
    pub billing: Billing,
    /// The server's clock.
    pub clock: Arc<TestClock>,
    /// Fires to make the server say that it stops.
    pub stopping: CancellationToken,
    router: batchin_api::Api,
    base: String,
    http: reqwest::Client,
    groups: [Tasks; 3],
    /// Its database.
    pub database: Database,
    _folder: TempDir,
}

impl ServerBuilder {
    /// On this database; SQLite without it.
    pub fn on(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// What the first account has, in dollars.
    pub fn with_balance(mut self, dollars: &str) -> Self {
        self.balance = usd(dollars);
        self
    }

    /// Requests a minute of the first account's key.
    pub fn with_rpm(mut self, rpm: u32) -> Self {
        self.rpm = rpm;
        self
    }

    /// The monthly budget of the first account's key, in dollars.
    pub fn with_budget(mut self, dollars: &str) -> Self {
        self.budget = Some(usd(dollars));
        self
    }

    /// Changes what an operator may set.
    pub fn with_settings(mut self, change: impl FnOnce(&mut ApiSettings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// The largest upload, in bytes.
    pub fn with_max_file_bytes(mut self, bytes: u64) -> Self {
        self.max_file_bytes = bytes;
        self
    }

    /// Changes what an operator may set about files.
    pub fn with_files(mut self, change: impl FnOnce(&mut FilesOptions)) -> Self {
        change(&mut self.files);
        self
    }

    /// Requests in flight at once.
    pub fn with_max_in_flight(mut self, requests: usize) -> Self {
        self.max_in_flight = requests;
        self
    }

    /// How long requests of the tier `flex` wait for room.
    pub fn with_flex_patience(mut self, patience: Duration) -> Self {
        self.flex_patience = patience;
        self
    }

    /// Lets webhooks go to receivers on this machine, over plain HTTP.
    pub fn with_local_webhooks(mut self) -> Self {
        self.targets = TargetPolicy { allow_http: true, allow: vec!["127.0.0.0/8".parse().unwrap()], own: Vec::new() };
        self
    }

    /// Serves every model on two model servers.
    pub fn with_second_sim(mut self) -> Self {
        self.second_sim = true;
        self
    }

    /// The program that the model server is taken for; vLLM without it.
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// How many calls at once each model server is said to work on; unknown without it.
    pub fn with_slots(mut self, slots: u32) -> Self {
        self.slots = Some(slots);
        self
    }

    /// What `chat-model`'s tokens cost that its server found in its cache, and those that it wrote there, in dollars per
    /// million; without it what the others of the prompt cost.
    pub fn with_cache_prices(mut self, cached: &'static str, written: &'static str) -> Self {
        self.cache = Some([cached, written]);
        self
    }

    /// How models are asked to fill in the middle, by a word of the configuration; as their names tell without it.
    pub fn with_fim(mut self, word: &str) -> Self {
        self.fim = Fim::named(word).unwrap();
        self
    }

    /// Has `chat-model` asked for responses and messages in their own protocols, which the simulated servers then have.
    pub fn natively(mut self) -> Self {
        self.natively = true;
        self
    }

    /// What a server of kind comfyui runs, and the node that saves what was made; [`batchin_sim::comfyui::PICTURES`] without it.
    pub fn with_workflow(mut self, graph: &str, output: &'static str) -> Self {
        self.workflow = (graph.to_owned(), output);
        self
    }

    /// Serves every model on a real model server at this address, and none on the simulated one.
    pub fn with_model_server(mut self, base_url: String) -> Self {
        self.real = Some(base_url);
        self
    }

    /// Takes payments by card, by a Stripe at this address that has the fake's key and secret. Nothing but its reports tells of
    /// them, with [`Self::with_worker`] at once, else when the test says [`TestServer::billing`].
    pub fn with_stripe(mut self, base: &str) -> Self {
        self.stripe = Some(money::stripe(base));
        self
    }

    /// Runs batch tasks and delivers webhooks too.
    pub fn with_worker(mut self) -> Self {
        self.worker = true;
        self
    }
}

impl IntoFuture for ServerBuilder {
    type Output = TestServer;
    type IntoFuture = Pin<Box<dyn Future<Output = TestServer> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(TestServer::run(self))
    }
}

impl TestServer {
    /// A server on loopback with nothing configured but its models; the first account has one dollar.
    pub fn start() -> ServerBuilder {
        ServerBuilder {
            backend: Backend::Sqlite,
            balance: usd("1"),
            rpm: 1_000_000,
            budget: None,
            settings: nothing_configured(),
            max_file_bytes: MAX_FILE_BYTES,
            files: FilesOptions::default(),
            max_in_flight: 512,
            flex_patience: FLEX_PATIENCE,
            worker: false,
            second_sim: false,
            targets: TargetPolicy::default(),
            kind: Kind::VLLM,
            slots: None,
            cache: None,
            fim: Fim::Usual(None),
            natively: false,
            real: None,
            workflow: (batchin_sim::comfyui::PICTURES.to_owned(), "9"),
            stripe: None,
            usdc: None,
        }
    }

    async fn run(builder: ServerBuilder) -> Self {
        // Whoever installed one before installed the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let database = Database::new(builder.backend, folder.path());
        let sim = SimServer::start().await.unwrap();
        let other_sim = if builder.second_sim { Some(SimServer::start().await.unwrap()) } else { None };
        let options = ConnectOptions { url: database.url.clone(), max_connections: 8 };
        let store = Store::connect(options, true).await.unwrap();
        let clock = Arc::new(TestClock::default());
        let groups = [Tasks::new(), Tasks::new(), Tasks::new()];
        let served = served(&builder, &sim, other_sim.as_ref());
        let (blobs, files) = open_files(&store, &builder, folder.path(), (&clock, &groups[1]));
        let shelf = shelf(&files, Links::new(&[7; 32], &builder.settings.public_url), RETENTION);
        let gateway = start_gateway(&store, (served, shelf), gateway_options(&builder), (&clock, &groups)).await;
        let batches = Batches::new(gateway.clone(), (store.openings(), store.endings()), blobs.clone(), files.clone())
            .with_webhook_targets(builder.targets.clone());
        let key = MasterKey::new(SECRET_KEY.to_owned().into()).unwrap();
        let webhooks = Webhooks::open(store.outbox(), &key, clock.clone(), Arc::new(RealIds)).await.unwrap();
        let films =
            Films::new(gateway.clone(), store.film_rows(), (blobs.clone(), files.clone()), FilmsOptions::default());
        let billing = money::billing(&store, &clock, &groups[1], (builder.stripe.clone(), builder.usdc.clone()));
        if builder.worker {
            Maker::start(film_parts(&store, &gateway, &blobs), &films, &groups[0]);
            let options = WorkerOptions { concurrency: 4, max_attempts: 3, retention: RETENTION };
            Worker::start(worker_parts(&store, &gateway, (&blobs, &files)), &batches, options, &groups[0]);
            deliver(&gateway, &webhooks, builder.targets.clone(), &groups[0]);
            billing.start(Pace::default(), &groups[0]);
        }
        let stopping = CancellationToken::new();
        let parts = ApiParts {
            accounts: store.accounts(),
            keys: store.keys(),
            balances: store.balances(),
            topups: store.topups(),
            alerts: store.alerts(),
            credit: store.credit(),
            admin_log: store.admin_log(),
            billing: billing.clone(),
            usage: store.usage(),
            statements: store.statements(),
            voices: store.voices(),
            batch_rows: store.batch_rows(),
            delivery_log: store.delivery_log(),
            pulse: store.pulse(),
            gateway: gateway.clone(),
            batches,
            films,
            files: files.clone(),
            webhooks,
            clock: clock.clone(),
            ids: Arc::new(RealIds),
            settings: builder.settings.clone(),
            metrics: Arc::new(|| "batchin_up 1\n".to_owned()),
            stopping: stopping.clone(),
        };
        let router = router(parts);
        let base = listen(router.clone(), &groups[1]).await;
        let owner = new_account((&store, &clock), ("ada@example.com", Role::User), builder.rpm, builder.budget).await;
        let server = Self {
            sim,
            other_sim,
            owner,
            store,
            gateway,
            files,
            blobs,
            billing,
            clock,
            stopping,
            router,
            base,
            http: reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap(),
            groups,
            database,
            _folder: folder,
        };
        server.grant(&server.owner, builder.balance).await;
        server
    }

    /// Another account with a key and no credit.
    pub async fn account(&self, email: &str) -> Account {
        new_account((&self.store, &self.clock), (email, Role::User), 1_000_000, None).await
    }

    /// An account that may operate the platform.
    pub async fn admin(&self, email: &str) -> Account {
        new_account((&self.store, &self.clock), (email, Role::Admin), 1_000_000, None).await
    }

    /// Gives credit.
    pub async fn grant(&self, account: &Account, amount: Amount) {
        if amount.is_zero() {
            return;
        }
        let grant = CreditGrant {
            id: TransferId::new(RealIds.uuid()),
            account: account.id,
            amount,
            actor: "test".to_owned(),
            reason: "test".to_owned(),
            reference: None,
            reverses: None,
            now: self.clock.now(),
        };
        self.store.credit().grant_credit(grant).await.unwrap();
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The router itself, for a test that takes a request apart.
    pub fn router(&self) -> batchin_api::Api {
        self.router.clone()
    }

    /// A call without a key.
    pub fn anonymous(&self, method: Method, path: &str) -> Call {
        Call::new(self.http.request(method, self.url(path)))
    }

    /// A call with the first account's key.
    pub fn call(&self, method: Method, path: &str) -> Call {
        self.anonymous(method, path).key(&self.owner.key)
    }

    /// `GET` with the first account's key.
    pub fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    /// `POST` of JSON with the first account's key.
    pub fn post(&self, path: &str, body: serde_json::Value) -> Call {
        self.call(Method::POST, path).json(body)
    }

    /// A chat with the first account's key.
    pub fn chat(&self, model: &str) -> Call {
        let messages = json!([{ "role": "user", "content": "hello" }]);
        self.post("/v1/chat/completions", json!({ "model": model, "messages": messages }))
    }

    /// A time that everything done so far lies before.
    pub fn clock_ahead(&self) -> Timestamp {
        self.clock.now().after(Duration::from_secs(1))
    }

    /// The folder with the blobs.
    pub fn blob_folder(&self) -> std::path::PathBuf {
        self._folder.path().join("blobs")
    }

    /// What the first account has.
    pub async fn balance(&self) -> Balance {
        self.store.accounts().user(self.owner.id).await.unwrap().unwrap().balance
    }

    /// The ledger has no fault.
    pub async fn ledger_check(&self) {
        assert_eq!(self.store.check().await.unwrap().faults, []);
    }

    /// Ends everything in good order, and checks the ledger at its end.
    pub async fn stop(self) {
        let [workers, beside, writers] = &self.groups;
        self.stopping.cancel();
        assert_eq!(workers.shutdown(PATIENCE).await, 0, "workers end");
        assert_eq!(beside.shutdown(PATIENCE).await, 0, "everything beside requests ends");
        self.gateway.keeper().leave(PATIENCE).await.unwrap();
        writers.shutdown(PATIENCE).await;
        self.ledger_check().await;
        self.sim.stop().await;
        if let Some(other) = self.other_sim {
            other.stop().await;
        }
    }
}

/// As on loopback with nothing configured.
fn nothing_configured() -> ApiSettings {
    ApiSettings {
        internal_token: None,
        public_lookup: true,
        proxied_lookup: false,
        registration_open: true,
        default_rate_limit_rpm: 600,
        max_body_bytes: 16 * 1024 * 1024,
        max_sound_bytes: 1_000_000,
        max_inline_batch_bytes: 2_000_000,
        metrics_enabled: true,
        metrics_token: None,
        trusted_proxies: Vec::new(),
        keep_alive: KEEP_ALIVE,
        reader_patience: Duration::from_secs(60),
        min_body_bytes_per_second: 500,
        body_window: BODY_WINDOW,
        max_account_percent: 90,
        max_address_percent: 50,
        cors_origins: Vec::new(),
        public_url: "http://batchin.test".to_owned(),
        serves: true,
    }
}

/// The model servers, and how they are used.
struct Served {
    addresses: Vec<String>,
    kind: Kind,
    slots: Option<u32>,
    cache: Option<CachePrices>,
    fim: Fim,
    natively: bool,
    workflow: Option<Arc<Workflow>>,
}

fn served(builder: &ServerBuilder, sim: &SimServer, other: Option<&SimServer>) -> Served {
    let sims = || [Some(sim), other].into_iter().flatten();
    sims().for_each(|sim| sim.speak_natively(builder.natively));
    Served {
        addresses: builder.real.clone().map_or_else(|| sims().map(SimServer::base_url).collect(), |real| vec![real]),
        kind: builder.kind,
        slots: builder.slots,
        cache: builder.cache,
        fim: builder.fim,
        natively: builder.natively,
        workflow: builder.kind.needs_workflow.then(|| {
            let (graph, output) = &builder.workflow;
            Arc::new(Workflow::parse(graph, output).unwrap())
        }),
    }
}

fn open_files(
    store: &Store,
    builder: &ServerBuilder,
    folder: &Path,
    (clock, tasks): (&Arc<TestClock>, &Tasks),
) -> (Blobs, Files) {
    let blobs = Blobs::open(&BlobsPlace::Folder(folder.join("blobs"))).unwrap();
    let options =
        FilesOptions { max_bytes: builder.max_file_bytes, spool: folder.join("uploads"), ..builder.files.clone() };
    let parts = FilesParts {
        rows: store.file_rows(),
        blobs: blobs.clone(),
        clock: clock.clone(),
        ids: Arc::new(RealIds),
        tasks: tasks.clone(),
    };
    (blobs, Files::new(parts, options))
}

const fn gateway_options(builder: &ServerBuilder) -> GatewayOptions {
    GatewayOptions {
        max_in_flight: builder.max_in_flight,
        max_account_percent: 90,
        flex_patience: builder.flex_patience,
    }
}

async fn start_gateway(
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
