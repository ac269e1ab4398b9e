//! Holds: watching a chain: from its blocks to payments that are seen, and on to their credits.
//!
//! One node watches a chain at a time, and any number stand by: whoever holds the turn goes on. Two that should watch at once all
//! the same are told apart by the version of what is written.

use std::{collections::HashMap, error::Error, time::Duration};

use batchin_domain::{AccountId, Amount, DepositStatus, TransferId};
use batchin_evm::{
    Address, BlockRef, Confirmation, DeepReorg, Event, Hash, RpcError, ScanError, Seen, State, TokenKind, Watch, begin,
    confirm, heads, scan,
};
use batchin_store::{
    ChainEvent, ChainProgress, ChainScan, DepositCredit, DepositError, DepositRow, SeenDeposit, StoreError,
};
use batchin_tasks::Tasks;
use metrics::{counter, gauge};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::{
    Billing,
    chains::{Usdc, WatchedChain, amount_of_units, reached_of},
};

/// How long a turn is held without a word.
const TURN: Duration = Duration::from_secs(30);
/// Blocks that one step reads at most.
const BLOCKS: u64 = 64;
/// How many times the confirmations are read again where another endpoint or process begins.
const REREAD: u32 = 2;
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Credits of one transaction, in payments.
const TOGETHER: usize = 500;

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

/// What a look did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Payments that were seen, also again.
    pub seen: usize,
    /// Payments that were credited.
    pub credited: usize,
    /// There is more to be read at once.
    pub more: bool,
}

/// Watches one chain.
pub(crate) struct Watcher {
    billing: Billing,
    place: usize,
    /// The endpoint that is asked, and whether its chain was checked.
    endpoint: usize,
    is_checked: bool,
    failures: u32,
}

impl Watcher {
    pub(crate) const fn new(billing: Billing, place: usize) -> Self {
        Self { billing, place, endpoint: 0, is_checked: false, failures: 0 }
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

    /// One turn, if it is this node's; how long to wait for the next.
    async fn turn(&mut self, holder: i64) -> Duration {
        let Some(every) = self.chain().map(|(_, watched)| watched.options.every) else { return LONGEST_PAUSE };
        let now = self.billing.now();
        let name = self.chain().map(|(_, watched)| format!("chain:{}", watched.options.chain.id)).unwrap_or_default();
        match self.billing.inbox().hold_turn((&name, holder), now, now.after(TURN)).await {
            Ok(true) => {}
            Ok(false) => return every,
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
            Err(cause) => self.failed(&cause, every),
        }
    }

    /// Tells of a failure, goes over to the next endpoint where this one is to blame, and says how long to wait.
    fn failed(&mut self, cause: &LookError, every: Duration) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let Some((_, watched)) = self.chain() else { return LONGEST_PAUSE };
        let (chain, endpoints) = (watched.options.chain.name.to_string(), watched.endpoints.len());
        let endpoint = watched.endpoints.get(self.endpoint).map(|rpc| rpc.name().to_owned()).unwrap_or_default();
        let mut pause = every.saturating_mul(1 << self.failures.min(6)).min(LONGEST_PAUSE);
        match cause {
            LookError::Rpc(RpcError::Busy { retry_after }) => {
                pause = retry_after.unwrap_or(pause).min(LONGEST_PAUSE);
                self.next_endpoint(endpoints);
                warn!(chain, endpoint, "an endpoint has too much to do");
            }
            LookError::Rpc(rpc) => {
                if rpc.is_sick() {
                    self.next_endpoint(endpoints);
                }
                if matches!(rpc, RpcError::Lies(_) | RpcError::WrongChain { .. } | RpcError::Unauthorised) {
                    counter!("batchin_money_alarms_total", "what" => "endpoint").increment(1);
                    error!(chain, endpoint, error = rpc as &dyn Error, "an endpoint of a chain is not believed: {rpc}");
                } else {
                    warn!(chain, endpoint, error = rpc as &dyn Error, "a chain could not be read: {rpc}");
                }
                // With another one to ask there is no need to wait.
                if endpoints > 1 && usize::try_from(self.failures).unwrap_or(usize::MAX) < endpoints {
                    pause = every;
                }
            }
            LookError::Deep(deep) => {
                counter!("batchin_money_alarms_total", "what" => "deep_reorg").increment(1);
                error!(chain, "{deep}");
            }
            LookError::State | LookError::Overflow => {
                counter!("batchin_money_alarms_total", "what" => "chain").increment(1);
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

    fn chain(&self) -> Option<(&Usdc, &WatchedChain)> {
        let usdc = self.billing.usdc()?;
        Some((usdc, usdc.chains.get(self.place)?))
    }

    /// Reads what is new on the chain, has it written, and credits what is final.
    pub(crate) async fn look(&mut self) -> Result<Looked, LookError> {
        let billing = self.billing.clone();
        let Some(usdc) = billing.usdc() else { return Ok(Looked::default()) };
        let Some(watched) = usdc.chains.get(self.place) else { return Ok(Looked::default()) };
        let Some(rpc) = watched.endpoints.get(self.endpoint) else { return Ok(Looked::default()) };
        let chain = &watched.options.chain;
        let is_new = !self.is_checked;
        if is_new {
            rpc.check_chain(chain.id).await?;
        }
        let heads = heads(rpc).await?;
        // After the heads were asked for: an address that was handed out before a block was made is known when that is read.
        let addresses = billing.addresses(usdc).await?;
        let before = billing.deposits().chain_progress(chain.id).await?;
        let state = match &before {
            Some(progress) => {
                let state: State = serde_json::from_str(&progress.state).map_err(|_| LookError::State)?;
                // Another endpoint, or another process: what the one before may have left out is read again.
                if is_new { state.rewound(chain.required_confirmations.saturating_mul(REREAD)) } else { state }
            }
            None => begin(rpc, chain, &heads).await?,
        };
        let watch = Watch::new(chain, addresses.keys().copied().collect());
        let brought = scan(rpc, &watch, state, &heads, BLOCKS).await?;
        self.is_checked = true;
        batchin_faults::point("chain.scanned");
        let seen = brought.events.iter().filter(|event| matches!(event, Event::Seen(_))).count();
        let progress = billing.progress_of(&brought.state, &brought.reached)?;
        gauge!("batchin_chain_block", "chain" => chain.name.to_string()).set(to_f64(progress.read_to));
        let version = if before.as_ref().is_some_and(|before| is_same(before, &progress)) && brought.events.is_empty() {
            before.map_or(0, |before| before.version)
        } else {
            let events = brought.events.iter().filter_map(|event| billing.event_of(event, &addresses)).collect();
            let version = before.map_or(0, |before| before.version);
            let written = ChainScan { chain_id: chain.id, version, progress: progress.clone(), events };
            match billing.deposits().write_scan(&written).await {
                Ok((version, 0)) => version,
                Ok((version, taken_back)) => {
                    counter!("batchin_money_alarms_total", "what" => "orphaned_credit").increment(1);
                    error!(
                        chain = &*chain.name,
                        "{taken_back} credited payment(s) went with their blocks and were taken back"
                    );
                    version
                }
                // Somebody else watches too; what they know is read the next time.
                Err(DepositError::Stale) => return Ok(Looked { seen, credited: 0, more: true }),
                Err(DepositError::Overflow) => return Err(LookError::Overflow),
                Err(DepositError::Store(cause)) => return Err(cause.into()),
            }
        };
        batchin_faults::point("chain.written");
        let credited = self.credit((usdc, watched), &progress, version).await?;
        Ok(Looked { seen, credited, more: brought.behind > 0 })
    }

    /// Credits what is final, and how many that were.
    async fn credit(
        &self,
        (usdc, watched): (&Usdc, &WatchedChain),
        progress: &ChainProgress,
        version: i64,
    ) -> Result<usize, LookError> {
        let billing = &self.billing;
        let chain = &watched.options.chain;
        let reached = reached_of(progress);
        let up_to = (progress.read_to + 1).saturating_sub(u64::from(chain.required_confirmations));
        let open = billing.deposits().open_deposits(chain.id, up_to).await?;
        let is_final =
            |row: &DepositRow| chain.standing(row.seen.block_number, row.seen.base_units, &reached).is_final();
        let open: Vec<DepositRow> = open.into_iter().filter(is_final).collect();
        let open = self.agreed(usdc, watched, open).await;
        let mut of: HashMap<AccountId, Vec<DepositRow>> = HashMap::new();
        for row in open {
            of.entry(row.seen.account).or_default().push(row);
        }
        let (mut credits, mut held) = (Vec::new(), Vec::new());
        for (account, rows) in of {
            let sum = rows.iter().fold(Amount::ZERO, |sum, row| sum.saturating_add(row.seen.amount));
            if sum >= usdc.options.min {
                let deposits = rows.into_iter().map(|row| (row, TransferId::new(billing.ids().uuid()))).collect();
                credits.push(DepositCredit { topup: billing.topup_id(), account, deposits });
            } else {
                held.extend(rows.iter().filter(|row| row.status == DepositStatus::Confirming).map(|row| row.id));
            }
        }
        let mut credited = 0;
        for some in credits.chunks(TOGETHER) {
            let held = std::mem::take(&mut held);
            match billing.deposits().credit_deposits((chain.id, version), some, &held, billing.now()).await {
                Ok(()) => credited += some.iter().map(|credit| credit.deposits.len()).sum::<usize>(),
                Err(DepositError::Stale) => return Ok(credited),
                Err(DepositError::Overflow) => return Err(LookError::Overflow),
                Err(DepositError::Store(cause)) => return Err(cause.into()),
            }
            batchin_faults::point("deposits.credited");
        }
        if !held.is_empty() {
            match billing.deposits().credit_deposits((chain.id, version), &[], &held, billing.now()).await {
                Ok(()) | Err(DepositError::Stale | DepositError::Overflow) => {}
                Err(DepositError::Store(cause)) => return Err(cause.into()),
            }
        }
        if credited > 0 {
            info!(chain = &*chain.name, "{credited} payment(s) in USDC were credited");
        }
        Ok(credited)
    }

    /// Those of which nothing more is asked, and those large ones that a second endpoint says the same of.
    async fn agreed(&self, usdc: &Usdc, watched: &WatchedChain, open: Vec<DepositRow>) -> Vec<DepositRow> {
        let (large, mut agreed): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|row| row.seen.amount >= usdc.options.agree_from);
        if large.is_empty() {
            return agreed;
        }
        let chain = &watched.options.chain;
        let alarm = |what: &'static str| counter!("batchin_money_alarms_total", "what" => what).increment(1);
        let others = watched.endpoints.len();
        let second = (1..others).map(|step| (self.endpoint + step) % others).filter_map(|at| watched.endpoints.get(at));
        let seen: Vec<(DepositRow, Seen)> =
            large.into_iter().filter_map(|row| seen_of(&row).map(|seen| (row, seen))).collect();
        let asked: Vec<Seen> = seen.iter().map(|(_, seen)| seen.clone()).collect();
        for rpc in second {
            let said = match rpc.check_chain(chain.id).await {
                Ok(()) => confirm(rpc, chain, &asked).await,
                Err(cause) => Err(cause),
            };
            match said {
                Ok(said) => {
                    for ((row, _), said) in seen.into_iter().zip(said) {
                        match said {
                            Confirmation::Agrees => agreed.push(row),
                            Confirmation::Unknown | Confirmation::OtherBlock => {}
                            Confirmation::Contradicts => {
                                alarm("endpoints_disagree");
                                error!(
                                    chain = &*chain.name,
                                    payment = row.seen.name,
                                    endpoint = rpc.name(),
                                    "two endpoints say different things of a payment; it is not credited"
                                );
                            }
                        }
                    }
                    return agreed;
                }
                Err(cause) => {
                    warn!(
                        chain = &*chain.name,
                        endpoint = rpc.name(),
                        error = &cause as &dyn Error,
                        "a second endpoint could not be asked"
                    );
                }
            }
        }
        alarm("no_second_endpoint");
        error!(chain = &*chain.name, "a large payment waits: no second endpoint of this chain could be asked about it");
        agreed
    }
}

impl Billing {
    /// Every address that was handed out, and whose it is.
    async fn addresses(&self, usdc: &Usdc) -> Result<HashMap<Address, AccountId>, StoreError> {
        let mut known = usdc.addresses.lock().await;
        for fresh in self.deposits().addresses_from(known.next).await? {
            known.next = u64::from(fresh.index).saturating_add(1);
            // Only addresses that were made here are stored.
            if let Ok(address) = fresh.address.parse() {
                known.of.insert(address, fresh.account);
            }
        }
        Ok(known.of.clone())
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

/// A stored payment as a scan would see it.
fn seen_of(row: &DepositRow) -> Option<Seen> {
    let hash: Hash = row.seen.block_hash.parse().ok()?;
    Some(Seen {
        id: row.seen.name.parse().ok()?,
        kind: TokenKind::Usdc,
        from: row.seen.payer.parse().ok()?,
        value: row.seen.base_units,
        block: BlockRef { number: row.seen.block_number, hash },
        log_index: row.seen.log_index,
    })
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
