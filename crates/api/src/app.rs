//! Holds: what the handlers work with.

use std::{num::NonZeroU32, ops::Deref, sync::Arc, time::Duration};

use axum::extract::FromRef;
use batchin_audit::Audit;
use batchin_batch::{Batches, Films};
use batchin_billing::Billing;
use batchin_domain::{Clock, IdSource, Timestamp};
use batchin_files::Files;
use batchin_gateway::Gateway;
use batchin_store::{
    Accounts, AdminLog, Alerts, Balances, BatchRows, Credit, DeliveryLog, Keys, Pulse, Statements, Topups, Usage,
    Voices,
};
use batchin_tasks::Tasks;
use batchin_webhooks::Webhooks;
use ipnet::IpNet;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::{
    attempts::Attempts, auth::KeyBook, body::BodyMemory, password::Passwords, payers::Payers, readers::Readers,
    throttle::Throttle,
};

/// Registrations, logins and look-ups of one client address in a minute: plenty for people behind one address, and
/// a site's back end has its token.
const PUBLIC_CALLS_PER_MINUTE: NonZeroU32 = NonZeroU32::MIN.saturating_add(119);
/// Silence after which a stream says that it is still there: half of what common proxies allow.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A body that is waited for must bring its least in each of these: longer than a network is gone for, and short enough
/// that a place is not held by a client that only pretends to send.
pub const BODY_WINDOW: Duration = Duration::from_secs(20);

/// What the operator may set.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// What a site's back end sends as `X-Internal-Token` with the public calls; they demand it when it is set.
    pub internal_token: Option<SecretString>,
    /// Whether the look-up by email is open to anybody: on loopback, or because the operator says so.
    pub public_lookup: bool,
    /// Whether that holds for what came through a proxy or under a public name too: because the operator says so.
    pub proxied_lookup: bool,
    /// Whether new users may be made over HTTP.
    pub registration_open: bool,
    /// Requests a minute of a key that was made without a limit; above zero.
    pub default_rate_limit_rpm: u32,
    /// Largest body of an inference call, in bytes.
    pub max_body_bytes: usize,
    /// Largest file of sound in a call, in bytes.
    pub max_sound_bytes: u64,
    /// Largest inline batch, in bytes.
    pub max_inline_batch_bytes: usize,
    /// Whether `/metrics` answers.
    pub metrics_enabled: bool,
    /// Demanded by `/metrics` as a bearer token when it is set.
    pub metrics_token: Option<SecretString>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Silence after which a stream says that it is still there, and after which its headers leave without an event.
    pub keep_alive: Duration,
    /// How long a client may take nothing of its stream; longer than `keep_alive`.
    pub reader_patience: Duration,
    /// Least that a request's body brings while it is waited for, in bytes a second; zero turns that off.
    pub min_body_bytes_per_second: u64,
    /// Over how long that is counted.
    pub body_window: Duration,
    /// What one account may have of the memory for bodies while it is alone, in percent, 1 to 100.
    pub max_account_percent: u64,
    /// What one network address may have of the memory for bodies that came without a key, in percent, 1 to 100.
    pub max_address_percent: u64,
    /// Origins whose pages may call, each exactly as browsers send it, or `*` for all.
    pub cors_origins: Vec<String>,
    /// How clients reach this server, without a slash at its end: links begin with it.
    pub public_url: String,
    /// Whether mail is sent.
    pub mail: bool,
    /// Whether requests are answered at all; a node that only runs batch tasks still tells of its health.
    pub serves: bool,
}

/// What the API is made of.
pub struct ApiParts {
    /// Who there is.
    pub accounts: Accounts,
    /// What a key is good for.
    pub keys: Keys,
    /// What accounts were given.
    pub balances: Balances,
    /// Payments.
    pub topups: Topups,
    /// What owners want to be told of.
    pub alerts: Alerts,
    /// Giving credit and taking it back, for admins.
    pub credit: Credit,
    /// What operators did about money.
    pub admin_log: AdminLog,
    /// Money in.
    pub billing: Billing,
    /// The audit log.
    pub audit: Audit,
    /// What requests consumed.
    pub usage: Usage,
    /// Statements of accounts.
    pub statements: Statements,
    /// Voices that accounts have made.
    pub voices: Voices,
    /// Batches as they stand.
    pub batch_rows: BatchRows,
    /// What became of deliveries.
    pub delivery_log: DeliveryLog,
    /// Whether the database is there.
    pub pulse: Pulse,
    /// Answers requests now; brings the models.
    pub gateway: Gateway,
    /// Answers them later.
    pub batches: Batches,
    /// Answers with films, later still.
    pub films: Films,
    /// Files, of clients and of batches.
    pub files: Files,
    /// Tells customers of what has ended.
    pub webhooks: Webhooks,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids and secrets.
    pub ids: Arc<dyn IdSource>,
    /// What the operator may set.
    pub settings: ApiSettings,
    /// All metrics in Prometheus' text form.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Fires when the server should not be sent requests any more.
    pub stopping: CancellationToken,
}

/// The state of every handler. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) accounts: Accounts,
    pub(crate) balances: Balances,
    pub(crate) topups: Topups,
    pub(crate) alerts: Alerts,
    pub(crate) credit: Credit,
    pub(crate) admin_log: AdminLog,
    pub(crate) billing: Billing,
    pub(crate) audit: Audit,
    pub(crate) usage: Usage,
    pub(crate) statements: Statements,
    pub(crate) voices: Voices,
    pub(crate) batch_rows: BatchRows,
    pub(crate) delivery_log: DeliveryLog,
    pub(crate) pulse: Pulse,
    pub(crate) gateway: Gateway,
    pub(crate) batches: Batches,
    pub(crate) films: Films,
    pub(crate) files: Files,
    pub(crate) webhooks: Webhooks,
    pub(crate) ids: Arc<dyn IdSource>,
    pub(crate) tasks: Tasks,
    pub(crate) stopping: CancellationToken,
    pub(crate) settings: ApiSettings,
    pub(crate) metrics: Arc<dyn Fn() -> String + Send + Sync>,
    pub(crate) keys: Arc<KeyBook>,
    pub(crate) passwords: Passwords,
    pub(crate) throttle: Throttle,
    pub(crate) attempts: Attempts,
    pub(crate) payers: Payers,
    pub(crate) bodies: BodyMemory,
    pub(crate) readers: Arc<Readers>,
    pub(crate) started_at: Timestamp,
    clock: Arc<dyn Clock>,
}

impl App {
    pub(crate) fn new(parts: ApiParts) -> Self {
        let tasks = parts.gateway.tasks().clone();
        Self(Arc::new(Inner {
            keys: KeyBook::start(parts.keys, Arc::clone(&parts.clock), &tasks),
            passwords: Passwords::new(),
            throttle: Throttle::new(PUBLIC_CALLS_PER_MINUTE),
            attempts: Attempts::new(),
            payers: Payers::new(),
            bodies: BodyMemory::new(parts.settings.max_account_percent, parts.settings.max_address_percent),
            readers: Readers::start(parts.settings.reader_patience, &tasks),
            started_at: parts.clock.now(),
            accounts: parts.accounts,
            balances: parts.balances,
            topups: parts.topups,
            alerts: parts.alerts,
            credit: parts.credit,
            admin_log: parts.admin_log,
            billing: parts.billing,
            audit: parts.audit,
            usage: parts.usage,
            statements: parts.statements,
            voices: parts.voices,
            batch_rows: parts.batch_rows,
            delivery_log: parts.delivery_log,
            pulse: parts.pulse,
            gateway: parts.gateway,
            batches: parts.batches,
            films: parts.films,
            files: parts.files,
            webhooks: parts.webhooks,
            ids: parts.ids,
            tasks,
            stopping: parts.stopping,
            settings: parts.settings,
            metrics: parts.metrics,
            clock: parts.clock,
        }))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// What a handler takes as `State` if it needs nothing else.
macro_rules! parts {
    ($($field:ident: $part:ty),+) => {
        $(
            impl FromRef<App> for $part {
                fn from_ref(app: &App) -> Self {
                    app.$field.clone()
                }
            }
        )+
    };
}

parts! {
    accounts: Accounts,
    balances: Balances,
    usage: Usage,
    batch_rows: BatchRows,
    delivery_log: DeliveryLog,
    batches: Batches,
    files: Files
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}
