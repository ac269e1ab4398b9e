//! Holds: the configuration that a test's servers run with.

use std::fmt::Write as _;

use batchin_testkit::sim::stripe::{STRIPE_KEY, STRIPE_WEBHOOK_SECRET};

/// Nano-dollars of one token of an answer at the price below. Prompts are free, so that a hold is `max_tokens` times this.
pub const TOKEN: i64 = 100_000;
/// Nano-dollars of one cent.
pub const CENT: i64 = 10_000_000;
/// The chain that payments come on, if any do: its number, its token, and when a payment there is final.
pub const CHAIN_ID: u64 = 31_337;
pub const USDC: &str = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913";
pub const CONFIRMATIONS: u64 = 3;
/// Of the phrase "abandon abandon … about", m/44'/60'/0': another one than that of anvil's accounts, who pay.
const XPUB: &str =
    "xpub6DCoCpSuQZB2jawqnGMEPS63ePKWkwWPH4TU45Q7LPXWuNd8TMtVxRrgjtEshuqpK3mdhaWHPFsBngh5GFZaM6si3yZdUsT8ddYM3PwnATt";
/// Dollars per million tokens.
const PRICE: &str = "100";

/// What a model of films can do.
const FILMS: &str = "\"video\"";
/// What a model of pictures can do.
const PICTURES: &str = "\"images\"";

/// What the servers of a test are told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `server.node_lease_seconds`.
    pub lease_seconds: u32,
    /// `server.shutdown_grace_seconds`.
    pub grace_seconds: u32,
    /// `shutdown.drain_seconds`.
    pub drain_seconds: u32,
    /// Requests that the simulated model server says it runs at once.
    pub slots: u32,
    /// Requests that a server takes on at once.
    pub max_in_flight: u32,
    /// `batches.max_attempts`.
    pub max_attempts: u32,
    /// `batches.concurrency`.
    pub tasks_at_once: u32,
    /// The simulated server that is taken for a hosted one, by its number; the others are vLLM.
    pub hosted: Option<usize>,
    /// Where Stripe is taken to be, and nobody pays by card without: the fake one, with its key and its secret.
    pub stripe: Option<String>,
    /// Where the one chain that takes payments is asked, and nobody pays in USDC without.
    pub chain: Option<String>,
    /// What is served.
    pub models: Vec<Model>,
}

/// A model of the simulated server.
#[derive(Clone, Debug)]
pub struct Model {
    id: String,
    /// The simulated server reads its behaviour from this.
    script: String,
    price: String,
    upstream: usize,
    capabilities: &'static str,
}

impl Default for Settings {
    /// One model, `fixed`, whose answer always has ten tokens.
    fn default() -> Self {
        let settings = Self {
            lease_seconds: 2,
            grace_seconds: 20,
            drain_seconds: 0,
            slots: 512,
            max_in_flight: 2_048,
            max_attempts: 3,
            tasks_at_once: 256,
            hosted: None,
            stripe: None,
            chain: None,
            models: Vec::new(),
        };
        settings.model("fixed", "sim:tokens=10")
    }
}

impl Settings {
    /// Also a model that does what its script says.
    pub fn model(self, id: &str, script: &str) -> Self {
        self.model_on(0, id, script)
    }

    /// Also a model on the test's `upstream`th simulated server.
    pub fn model_on(mut self, upstream: usize, id: &str, script: &str) -> Self {
        let (id, script, price) = (id.to_owned(), script.to_owned(), PRICE.to_owned());
        let capabilities = "\"chat\", \"completions\"";
        self.models.push(Model { id, script, price, upstream, capabilities });
        self
    }

    /// Also a model that speaks, whose characters cost what tokens of the others do.
    pub fn speaking_model_on(self, upstream: usize, id: &str, script: &str) -> Self {
        let mut settings = self.model_on(upstream, id, script);
        if let Some(model) = settings.models.last_mut() {
            model.capabilities = "\"speech\"";
        }
        settings
    }

    /// Also a model that embeds.
    pub fn embedding_model(self, id: &str, script: &str) -> Self {
        self.model_for("\"embeddings\"", id, script)
    }

    /// Also a model that ranks documents.
    pub fn ranking_model(self, id: &str, script: &str) -> Self {
        self.model_for("\"rerank\"", id, script)
    }

    /// Also a model that makes films, at so many dollars a second, on the test's `upstream`th simulated server.
    pub fn film_model_on(self, upstream: usize, id: &str, price: &str) -> Self {
        let mut settings = self.model_on(upstream, id, id);
        if let Some(model) = settings.models.last_mut() {
            model.capabilities = FILMS;
            price.clone_into(&mut model.price);
        }
        settings
    }

    /// Also a model that makes pictures, at so many dollars for one of 1024 by 1024.
    pub fn picture_model_on(self, upstream: usize, id: &str, price: &str) -> Self {
        let mut settings = self.film_model_on(upstream, id, price);
        if let Some(model) = settings.models.last_mut() {
            model.capabilities = PICTURES;
        }
        settings
    }

    fn model_for(self, capabilities: &'static str, id: &str, script: &str) -> Self {
        let mut settings = self.model(id, script);
        if let Some(model) = settings.models.last_mut() {
            model.capabilities = capabilities;
        }
        settings
    }

    /// This model at so many dollars per million tokens.
    pub fn priced(mut self, id: &str, price: &str) -> Self {
        let model = self.models.iter_mut().find(|model| model.id == id).expect("a model of this test");
        price.clone_into(&mut model.price);
        self
    }

    /// As `batchin.toml` has it.
    pub fn text(&self, database: &str, blobs: &str, upstreams: &[String]) -> String {
        let mut text = format!(
            "[server]\nnode_lease_seconds = {}\nshutdown_grace_seconds = {}\nmax_in_flight = {}\n\
             [shutdown]\ndrain_seconds = {}\n[database]\nurl = \"{database}\"\n[blobs]\nurl = \"file:{blobs}\"\n[engine]\nenabled = false\n\
             [batches]\nmax_attempts = {}\nconcurrency = {}\n[log]\nlevel = \"info,batchin::requests=warn\"\n",
            self.lease_seconds,
            self.grace_seconds,
            self.max_in_flight,
            self.drain_seconds,
            self.max_attempts,
            self.tasks_at_once,
        );
        if let Some(api_base) = &self.stripe {
            writeln!(text, "[stripe]\napi_base = \"{api_base}\"\nsecret_key = \"{STRIPE_KEY}\"").unwrap();
            writeln!(text, "webhook_secret = \"{STRIPE_WEBHOOK_SECRET}\"").unwrap();
        }
        if let Some(endpoint) = &self.chain {
            writeln!(
                text,
                "[usdc]\nxpub = \"{XPUB}\"\n[[usdc.chains]]\nchain = \"local\"\nchain_id = {CHAIN_ID}\n\
                 usdc_contract = \"{USDC}\"\nrequired_confirmations = {CONFIRMATIONS}\npoll_seconds = 1\n\
                 rpc_urls = [\"{endpoint}\"]"
            )
            .unwrap();
        }
        for (index, url) in upstreams.iter().enumerate() {
            let slots = self.slots;
            let kind = if self.hosted == Some(index) { "openai" } else { "vllm" };
            writeln!(text, "[[upstreams]]\nname = \"sim-{index}\"\nkind = \"{kind}\"").unwrap();
            writeln!(text, "base_url = \"{url}\"\nslots = {slots}").unwrap();
        }
        for Model { id, script, price, upstream, capabilities } in &self.models {
            let priced = match *capabilities {
                FILMS => format!("video_second = {price}"),
                PICTURES => format!("image = {price}"),
                _ => format!("std_input = 0\nstd_output = {price}\ncharacters = {price}"),
            };
            writeln!(
                text,
                "[[models]]\nid = \"{id}\"\nupstreams = [\"sim-{upstream}\"]\nupstream_model = \"{script}\"\n\
                 capabilities = [{capabilities}]\ntoken_input = \"pass\"\ncontext_length = 131072\nmax_output_tokens = 65536\n\
                 [models.pricing]\n{priced}"
            )
            .unwrap();
        }
        text
    }
}
