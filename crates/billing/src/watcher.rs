//! Holds: watching a chain: from its blocks to payments that are seen, and on to their credits.
//!
//! One node watches a chain at a time, and any number stand by: whoever holds the turn goes on. Two that should watch at once all
//! the same are told apart by the version of what is written.

use std::{collections::HashMap, error::Error, sync::Arc, time::Duration};

use batchin_domain::{AccountId, Amount};
use batchin_evm::{Address, DeepReorg, Event, RpcError, Scan, ScanError, State, TokenKind, Watch, begin, heads, scan};
use batchin_store::{ChainEvent, ChainProgress, ChainScan, DepositError, SeenDeposit, StoreError};
use batchin_tasks::Tasks;
use metrics::{counter, gauge};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use uuid::Uuid;

use crate::{
    Billing,
    chains::{Addresses, LastLook, Usdc, WatchedChain, amount_of_units, reached_of},
    crediting::Found,
    second::SecondWord,
};

/// How long a turn is held without a word.
const TURN: Duration = Duration::from_secs(30);
/// Blocks that one step reads at most.
const BLOCKS: u64 = 64;
/// How many times the confirmations are read again where another endpoint or process begins.
const REREAD: u32 = 2;
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Why a look at a chain brought nothing; nothing changed, and it is looked again.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// An endpoint did not do its part.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The chain has left what is remembered.
    #[error(transparent)]
    Deep(#[from] DeepReorg),
    /// What is stored is not of this chain, or no state.
    #[error("what is stored of the chain cannot be used")]
    State,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An account would hold more than can be counted.
    #[error("an account would hold more than can be counted")]
    Overflow,
}

impl From<ScanError> for LookError {
    fn from(cause: ScanError) -> Self {
        match cause {
            ScanError::Rpc(cause) => Self::Rpc(cause),
            ScanError::Deep(cause) => Self::Deep(cause),
            ScanError::OtherChain { .. } => Self::State,
        }
    }
}

impl LookError {
    /// In a word, for who shows it.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Rpc(RpcError::Unreachable) => "unreachable",
            Self::Rpc(RpcError::TimedOut) => "no_answer",
            Self::Rpc(RpcError::Busy { .. }) => "busy",
            Self::Rpc(RpcError::Unauthorised) => "key_refused",
            Self::Rpc(RpcError::Lags) => "behind",
            Self::Rpc(RpcError::UnknownBlock) => "block_unknown",
            Self::Rpc(RpcError::TooMany) => "answer_too_large",
            Self::Rpc(RpcError::WrongChain { .. }) => "other_chain",
            Self::Rpc(RpcError::Lies(_)) => "contradicts_itself",
            Self::Rpc(RpcError::Refused { .. }) => "refuses",
            Self::Rpc(RpcError::Unreadable) => "unreadable",
            Self::Deep(_) => "deep_reorganisation",
            Self::State => "state_unusable",
            Self::Store(_) => "database",
            Self::Overflow => "too_much_to_count",
        }
    }
}

/// What a look did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Payments that were seen, also again.
    pub seen: usize,
    /// Payments that were credited.
    pub credited: usize,
    /// Blocks that are still to be read.
    pub behind: u64,
    /// There is more to be read at once.
    pub more: bool,
}

/// Watches one chain.
pub struct Watcher {
    billing: Billing,
    place: usize,
    /// The endpoint that is asked, and whether its chain was checked.
    endpoint: usize,
    is_checked: bool,
    /// The version that this watcher found or wrote last.
    version: Option<i64>,
    failures: u32,
    second: SecondWord,
}

impl Watcher {
    pub(crate) fn new(billing: Billing, place: usize) -> Self {
        let second = SecondWord::default();
        Self { billing, place, endpoint: 0, is_checked: false, version: None, failures: 0, second }
    }

    /// Watches until it is told to stop. `holder` names this node among those that stand by.
    pub(crate) fn start(self, holder: i64, tasks: &Tasks) {
        tasks.spawn("chain_watcher", move |stop| self.run(holder, stop));
    }

    async fn run(mut self, holder: i64, stop: CancellationToken) {
        loop {
            let Some(pause) = stop.run_until_cancelled(self.turn(holder)).await else { return };
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// One turn, if it is this node's; how long to wait for the next. `holder` names this node among those that stand by.
    pub async fn turn(&mut self, holder: i64) -> Duration {
        let billing = self.billing.clone();
        let Some(watched) = billing.usdc().and_then(|usdc| usdc.chains.get(self.place)) else { return LONGEST_PAUSE };
        let (every, now) = (watched.options.every, billing.now());
        let name = format!("chain:{}", watched.options.chain.id);
        match billing.inbox().hold_turn((&name, holder), now, now.after(TURN)).await {
            Ok(true) => {}
            Ok(false) => {
                // What another node's endpoint left out meanwhile is read again.
                self.is_checked = false;
                watched.note(None);
                return every;
            }
            Err(cause) => {
                warn!(error = &cause as &dyn Error, "the turn to watch a chain could not be taken");
                return every;
            }
        }
        match self.look().await {
            Ok(looked) => {
                self.failures = 0;
                if looked.more { Duration::ZERO } else { every }
            }
            Err(cause) => self.failed(&cause, watched),
        }
    }

    /// Tells of a failure, goes over to the next endpoint where this one is to blame, and says how long to wait.
    fn failed(&mut self, cause: &LookError, watched: &WatchedChain) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let (chain, every) = (watched.options.chain.name.to_string(), watched.options.every);
        let endpoints = watched.endpoints.len();
        let endpoint = watched.endpoints.get(self.endpoint).map(|rpc| rpc.name().to_owned()).unwrap_or_default();
        let mut pause = every.saturating_mul(1 << self.failures.min(6)).min(LONGEST_PAUSE);
        // With another one to ask there is no need to wait.
        let is_last = usize::try_from(self.failures).is_ok_and(|failures| failures >= endpoints);
        if !is_last {
            pause = every;
        }
        let alarm = |what: &'static str| counter!("batchin_money_alarms_total", "what" => what).increment(1);
        match cause {
            LookError::Rpc(RpcError::Busy { retry_after }) => {
                if is_last {
                    pause = retry_after.unwrap_or(pause).min(LONGEST_PAUSE);
                }
                self.next_endpoint(endpoints);
                warn!(chain, endpoint, "an endpoint has too much to do");
            }
            LookError::Rpc(rpc) => {
                // That a block goes between two questions is no endpoint's fault, unless that happens again.
                if *rpc != RpcError::UnknownBlock || self.failures > 1 {
                    self.next_endpoint(endpoints);
                }
                if matches!(rpc, RpcError::Lies(_) | RpcError::WrongChain { .. } | RpcError::Unauthorised) {
                    alarm("endpoint");
                    error!(chain, endpoint, error = rpc as &dyn Error, "an endpoint of a chain is not believed: {rpc}");
                } else if *rpc == RpcError::TooMany && is_last {
                    alarm("answer_too_large");
                    error!(
                        chain,
                        endpoint, "no endpoint of a chain gives the transfers of its next block; it is not read on"
                    );
                } else {
                    warn!(chain, endpoint, error = rpc as &dyn Error, "a chain could not be read: {rpc}");
                }
            }
            LookError::Deep(deep) => {
                self.next_endpoint(endpoints);
                if is_last {
                    alarm("deep_reorg");
                    error!(chain, endpoint, "{deep}, and then the chain restarted (batchin deposits restart)");
                } else {
                    warn!(chain, endpoint, "an endpoint shows another chain than was read: {deep}");
                }
            }
            LookError::State | LookError::Overflow => {
                alarm("chain");
                error!(chain, error = cause as &dyn Error, "a chain is not watched any more: {cause}");
            }
            LookError::Store(cause) => {
                warn!(chain, error = cause as &dyn Error, "a chain's payments could not be stored");
            }
        }
        pause
    }

    const fn next_endpoint(&mut self, endpoints: usize) {
        self.endpoint = if self.endpoint + 1 < endpoints { self.endpoint + 1 } else { 0 };
        self.is_checked = false;
    }

    /// Reads what is new on the chain, has it written, and credits what is final.
    pub async fn look(&mut self) -> Result<Looked, LookError> {
        let billing = self.billing.clone();
        let Some(usdc) = billing.usdc() else { return Ok(Looked::default()) };
        let Some(watched) = usdc.chains.get(self.place) else { return Ok(Looked::default()) };
        let endpoint = watched.endpoints.get(self.endpoint).map(|rpc| rpc.name().to_owned()).unwrap_or_default();
        let looked = self.look_at(usdc, watched).await;
        let behind = looked.as_ref().ok().map(|looked| looked.behind);
        let failure = looked.as_ref().err().map(LookError::word);
        watched.note(Some(LastLook { endpoint, failure, behind, at: billing.now() }));
        looked
    }

    async fn look_at(&mut self, usdc: &Usdc, watched: &WatchedChain) -> Result<Looked, LookError> {
        let billing = self.billing.clone();
        let Some(rpc) = watched.endpoints.get(self.endpoint) else { return Ok(Looked::default()) };
        let chain = &watched.options.chain;
        if !self.is_checked {
            rpc.check_chain(chain.id).await?;
        }
        let heads = heads(rpc).await?;
        // After the heads were asked for: an address that was handed out before a block was made is known when that is read.
        let addresses = billing.addresses(usdc).await?;
        let before = billing.deposits().chain_progress(chain.id).await?;
        let found = before.as_ref().map(|before| before.version);
        // Another endpoint, or another watcher since: what the one before may have left out is read again.
        let is_new = !self.is_checked || self.version != found;
        let state = match &before {
            Some(progress) => {
                let state: State = serde_json::from_str(&progress.state).map_err(|_| LookError::State)?;
                if is_new { state.rewound(chain.required_confirmations.saturating_mul(REREAD)) } else { state }
            }
            None => begin(rpc, chain, &heads).await?,
        };
        let watch = Watch::new(chain, Arc::clone(&addresses.all));
        let brought = scan(rpc, &watch, state, &heads, BLOCKS).await?;
        (self.is_checked, self.version) = (true, found);
        batchin_faults::point("chain.scanned");
        let seen = brought.events.iter().filter(|event| matches!(event, Event::Seen(_))).count();
        let behind = brought.behind;
        let progress = billing.progress_of(&brought.state, &brought.reached)?;
        gauge!("batchin_chain_block", "chain" => chain.name.to_string()).set(to_f64(progress.read_to));
        let version = match self.write(watched, (before, &progress), (brought, &addresses)).await? {
            Some(version) => version,
            // Somebody else watches too; what they know is read the next time.
            None => return Ok(Looked { seen, credited: 0, behind, more: true }),
        };
        batchin_faults::point("chain.written");
        let reached = reached_of(&progress);
        let found = Found { billing: &billing, usdc, watched, endpoint: self.endpoint, reached, version };
        let credited = found.credit(&mut self.second).await.map_err(of_deposits)?;
        Ok(Looked { seen, credited, behind, more: behind > 0 })
    }

    /// Writes what a scan brought, if it brought anything; the version at which the chain then stands, unless that has changed.
    async fn write(
        &mut self,
        watched: &WatchedChain,
        (before, progress): (Option<ChainProgress>, &ChainProgress),
        (brought, addresses): (Scan, &Addresses),
    ) -> Result<Option<i64>, LookError> {
        let (billing, chain) = (&self.billing, &watched.options.chain);
        let version = before.as_ref().map_or(0, |before| before.version);
        if before.is_some_and(|before| is_same(&before, progress)) && brought.events.is_empty() {
            return Ok(Some(version));
        }
        let events = brought.events.iter().filter_map(|event| billing.event_of(event, &addresses.of)).collect();
        let written = ChainScan { chain_id: chain.id, version, progress: progress.clone(), events };
        match billing.deposits().write_scan(&written).await {
            Ok((version, taken_back)) => {
                self.version = Some(version);
                if taken_back > 0 {
                    counter!("batchin_money_alarms_total", "what" => "orphaned_credit").increment(1);
                    error!(
                        chain = &*chain.name,
                        "{taken_back} credited payment(s) went with their blocks and were taken back"
                    );
                }
                Ok(Some(version))
            }
            Err(DepositError::Stale) => Ok(None),
            Err(other) => Err(of_deposits(other)),
        }
    }
}

/// What is stale was dealt with by then.
fn of_deposits(cause: DepositError) -> LookError {
    match cause {
        DepositError::Stale => LookError::State,
        DepositError::Overflow => LookError::Overflow,
        DepositError::Store(cause) => LookError::Store(cause),
    }
}

impl Billing {
    /// Every address that was handed out, and whose it is.
    async fn addresses(&self, usdc: &Usdc) -> Result<Addresses, StoreError> {
        let mut known = usdc.addresses.lock().await;
        for fresh in self.deposits().addresses_from(known.next).await? {
            known.next = u64::from(fresh.index).saturating_add(1);
            // Only addresses that were made here are stored.
            if let Ok(address) = fresh.address.parse() {
                known.add(address, fresh.account);
            }
        }
        Ok(known.clone())
    }

    fn progress_of(&self, state: &State, reached: &batchin_evm::Reached) -> Result<ChainProgress, LookError> {
        Ok(ChainProgress {
            version: 0,
            state: serde_json::to_string(state).map_err(|_| LookError::State)?,
            read_to: reached.read_to,
            safe: reached.safe,
            finalized: reached.finalized,
            updated_at: self.now(),
        })
    }

    fn event_of(&self, event: &Event, addresses: &HashMap<Address, AccountId>) -> Option<ChainEvent> {
        match event {
            Event::Orphaned(block) => Some(ChainEvent::Orphaned { number: block.number, hash: block.hash.to_string() }),
            Event::Seen(seen) => {
                let account = *addresses.get(&seen.id.to)?;
                let amount = amount_of_units(seen.value).filter(|_| seen.kind == TokenKind::Usdc);
                Some(ChainEvent::Seen(Box::new(SeenDeposit {
                    name: seen.id.to_string(),
                    id: self.ids().uuid(),
                    account,
                    supported: amount.is_some(),
                    payer: seen.from.to_string(),
                    base_units: seen.value,
                    amount: amount.unwrap_or(Amount::ZERO),
                    block_number: seen.block.number,
                    block_hash: seen.block.hash.to_string(),
                    log_index: seen.log_index,
                })))
            }
        }
    }
}

/// Whether a scan has come no further.
fn is_same(before: &ChainProgress, after: &ChainProgress) -> bool {
    (&before.state, before.read_to, before.safe, before.finalized)
        == (&after.state, after.read_to, after.safe, after.finalized)
}

#[expect(clippy::cast_precision_loss, reason = "a gauge, of numbers far below 2^53")]
const fn to_f64(number: u64) -> f64 {
    number as f64
}

/// Names a holder of turns.
pub(crate) fn holder_of(id: Uuid) -> i64 {
    i64::try_from(id.as_u128() & 0x7fff_ffff_ffff_fff0).unwrap_or(1).max(1)
}
