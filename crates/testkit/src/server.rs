//! Holds: the server of a test, from its database to its socket.

use std::{
    future::{Future, IntoFuture},
    path::Path,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use batchin_api::{ApiParts, ApiSettings, router};
use batchin_audit::Audit;
use batchin_batch::{Batches, Films, FilmsOptions};
use batchin_billing::{Billing, StripeOptions, UsdcOptions};
use batchin_domain::{Amount, Balance, Clock, IdSource, Timestamp, TransferId, webhook::TargetPolicy};
use batchin_files::{Blobs, BlobsPlace, Files, FilesOptions, FilesParts};
use batchin_gateway::{FLEX_PATIENCE, Gateway, GatewayOptions, Links};
use batchin_sim::SimServer;
use batchin_store::{ConnectOptions, CreditGrant, Role, Store};
use batchin_tasks::Tasks;
use batchin_upstream::{Fim, Kind, Workflow};
use batchin_webhooks::MailOptions;
use http::Method;
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::{
    Backend, Call, TestClock,
    account::{Account, new_account},
    audit,
    beside::{listen, secrets, work},
    database::Database,
    models::CachePrices,
    money,
    parts::{nothing_configured, shelf},
    served::{Served, start_gateway},
    usd,
    world::RealIds,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Largest upload, in bytes: more than any test sends but the one that sends too much.
const MAX_FILE_BYTES: u64 = 100_000_000;

/// How long what came of a batch is kept.
pub const RETENTION: Duration = Duration::from_secs(30 * 24 * 3_600);

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
    mail: Option<MailOptions>,
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
    /// The audit log, which a test extends where there is no worker.
    pub audit: Audit,
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

    /// Sends mail by this server, with [`Self::with_worker`].
    pub fn with_mail(mut self, server: MailOptions) -> Self {
        self.settings.mail = true;
        self.mail = Some(server);
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
            mail: None,
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
        let webhooks = secrets(&store, &clock).await;
        let films =
            Films::new(gateway.clone(), store.film_rows(), (blobs.clone(), files.clone()), FilmsOptions::default());
        let billing = money::billing(&store, &clock, &groups[1], (builder.stripe.clone(), builder.usdc.clone()));
        let audit = audit::open(&store, (&clock, &groups[1]), &folder.path().join("audit_signed.json")).await;
        if builder.worker {
            let told = (&webhooks, builder.targets.clone(), builder.mail.clone());
            let things = ((&blobs, &files), RETENTION);
            work((&store, &gateway), (&batches, &films), things, (told, &billing, &audit), &groups[0]);
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
            audit: audit.clone(),
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
            audit,
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
