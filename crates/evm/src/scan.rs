//! Holds: one step of watching a chain: from where it was read to, toward its end.

use crate::{
    chain::{Chain, Reached},
    follower::{DeepReorg, Event, Follower},
    header::{BlockRef, Header, Heads},
    rpc::{Filter, Lie, Rpc, RpcError},
    state::{AGAIN, State},
    transfer::Skipped,
    watch::Watch,
};

/// Headers that are fetched at once to find where a fork begins; the next look is twice as deep.
const FIRST_LOOK_BACK: u64 = 8;
/// Blocks that are read again together, in one range: one by one would ask for the logs of each three times.
const AGAIN_TOGETHER: u64 = 8;

/// What one step brought. It is stored whole, in one transaction, before the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// What the next step begins with.
    pub state: State,
    /// What happened, in order: first what was orphaned, then what was seen.
    pub events: Vec<Event>,
    /// What was passed over.
    pub skipped: Skipped,
    /// How far the chain is read: what [`Chain::standing`] asks for.
    pub reached: Reached,
    /// Blocks that are still to be read; above 0 another step can follow at once.
    pub behind: u64,
}

/// A step brought nothing, and nothing changed. It can be done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// The endpoint did not do its part.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The chain has left what is remembered.
    #[error(transparent)]
    Deep(#[from] DeepReorg),
    /// The state is of another chain than what is watched.
    #[error("the stored state is of the chain {stored}, not of {watched}")]
    OtherChain {
        /// The state's.
        stored: u64,
        /// The one that is watched.
        watched: u64,
    },
}

/// How far the chain has come. Asked before the watched addresses are read, and handed to [`scan`].
pub async fn heads(rpc: &Rpc) -> Result<Heads, RpcError> {
    rpc.heads().await
}

/// The state of whoever begins to watch: as many blocks before the chain's end as are remembered, so that a reorganisation can
/// be followed from the first moment on.
pub async fn begin(rpc: &Rpc, chain: &Chain, heads: &Heads) -> Result<State, RpcError> {
    let number = heads.latest.number.saturating_sub(u64::from(chain.window()));
    let first = rpc.header(number).await?.ok_or(RpcError::Lags)?;
    Ok(State::at(chain.id, &first))
}

/// Reads at most `limit` blocks (or, far from the chain's end, as many as the endpoint gives in one answer), none beyond
/// `heads`. With the same state and chain it brings the same again.
pub async fn scan(rpc: &Rpc, watch: &Watch, state: State, heads: &Heads, limit: u64) -> Result<Scan, ScanError> {
    if state.chain_id() != watch.chain_id {
        return Err(ScanError::OtherChain { stored: state.chain_id(), watched: watch.chain_id });
    }
    let filter = Filter::new(watch);
    let mut step = Step {
        rpc,
        watch,
        filter,
        heads,
        limit: limit.max(1),
        follower: Follower::new(state, watch.window),
        events: Vec::new(),
    };
    let is_all_read = step.follower.unread().is_none();
    if is_all_read && step.is_far() {
        step.leap().await?;
    } else {
        let before = step.follower.state().clone();
        step.follow().await?;
        let is_moved = *step.follower.state() != before;
        step.read(is_moved).await?;
        step.read_again().await?;
    }
    step.end()
}

struct Step<'a> {
    rpc: &'a Rpc,
    watch: &'a Watch,
    filter: Filter,
    heads: &'a Heads,
    limit: u64,
    follower: Follower,
    events: Vec<Event>,
}

impl Step<'_> {
    /// Whether so much is missing that nothing of the next blocks can be reorganised any more.
    fn is_far(&self) -> bool {
        self.heads.latest.number.saturating_sub(self.follower.state().tip().number) > u64::from(self.watch.window)
    }

    /// A range of blocks that are deeper than any reorganisation that is followed.
    async fn leap(&mut self) -> Result<(), ScanError> {
        let tip = self.follower.state().tip();
        let there = self.rpc.header(tip.number).await?.ok_or(RpcError::Lags)?;
        if there.hash != tip.hash {
            return self.fork(tip.number, Vec::new()).await;
        }
        // A leap forgets what it leaves behind.
        self.read_again().await?;
        let end = self.heads.latest.number.saturating_sub(u64::from(self.watch.window));
        let (last, logs) = self.rpc.logs_between(tip.number.saturating_add(1), end, &self.filter).await?;
        self.events.extend(self.follower.leap(self.watch, &last, &logs));
        Ok(())
    }

    /// Headers up to the chain's end, or as many as one step reads.
    async fn follow(&mut self) -> Result<(), ScanError> {
        let (tip, latest) = (self.follower.state().tip(), self.heads.latest);
        if latest.number <= tip.number {
            return match self.follower.state().hash_at(latest.number) {
                Some(hash) if hash == latest.hash && latest.number == tip.number => Ok(()),
                Some(hash) if hash != latest.hash => self.fork(latest.number, Vec::new()).await,
                Some(_) | None => Err(RpcError::Lags.into()),
            };
        }
        let read_to = self.follower.state().read_to();
        // Far from the end what is followed is read first: a leap begins where all is read.
        let end = if self.is_far() { tip.number } else { latest.number.min(read_to.saturating_add(self.limit)) };
        if end <= tip.number {
            let there = self.rpc.header(tip.number).await?.ok_or(RpcError::Lags)?;
            return if there.hash == tip.hash { Ok(()) } else { self.fork(tip.number, Vec::new()).await };
        }
        let headers = self.headers(tip.number.saturating_add(1), end).await?;
        match headers.first() {
            Some(first) if first.parent != tip.hash => self.fork(tip.number, headers).await,
            Some(_) => self.extend(&headers),
            None => Err(RpcError::Lags.into()),
        }
    }

    /// The headers of these numbers. Ends early where they stop following each other: then the chain was reorganised
    /// in between, and the next step sees it.
    async fn headers(&self, from: u64, to: u64) -> Result<Vec<Header>, RpcError> {
        let latest = self.heads.latest;
        let numbers: Vec<_> = (from..=to).filter(|number| *number != latest.number).collect();
        let mut found = self.rpc.headers(&numbers).await?;
        if to == latest.number {
            found.push(Some(latest));
        }
        let mut headers: Vec<Header> = Vec::with_capacity(found.len());
        for header in found {
            let Some(header) = header else { break };
            if headers.last().is_some_and(|last| last.hash != header.parent) {
                break;
            }
            headers.push(header);
        }
        Ok(headers)
    }

    /// Goes back from this number to the newest block that is remembered and still there; then along the chain to the
    /// headers above, which were fetched already.
    async fn fork(&mut self, from: u64, above: Vec<Header>) -> Result<(), ScanError> {
        let state = self.follower.state();
        let (chain_id, first) = (state.chain_id(), state.first());
        let mut newer = above;
        let (mut high, mut depth) = (from, FIRST_LOOK_BACK);
        loop {
            let low = high.saturating_sub(depth - 1).max(first);
            let numbers: Vec<_> = (low..=high).collect();
            let mut found: Vec<Header> =
                self.rpc.headers(&numbers).await?.into_iter().collect::<Option<_>>().ok_or(RpcError::Lags)?;
            // A reorganisation between two requests: nothing is known, the next step begins anew.
            let is_chain = found.iter().chain(newer.first()).is_sorted_by(|one, next| one.hash == next.parent);
            if !is_chain {
                return Err(RpcError::Lies(Lie::Parent).into());
            }
            let is_known = |header: &Header| self.follower.state().hash_at(header.number) == Some(header.hash);
            if let Some(place) = found.iter().rposition(is_known) {
                let ancestor = found[place].block();
                newer.splice(0..0, found.drain(place + 1..));
                self.events.extend(self.follower.fork(ancestor)?);
                return self.extend(&newer);
            }
            if low == first {
                return Err(DeepReorg { chain_id, below: first }.into());
            }
            newer.splice(0..0, found);
            (high, depth) = (low - 1, depth * 2);
        }
    }

    fn extend(&mut self, headers: &[Header]) -> Result<(), ScanError> {
        for header in headers {
            self.follower.follow(header).map_err(|_| RpcError::Lies(Lie::Parent))?;
        }
        Ok(())
    }

    /// What the followed blocks hold. A block that is unknown by now ends it, without an error if there was progress.
    async fn read(&mut self, is_moved: bool) -> Result<(), ScanError> {
        let (from, tip) = (self.follower.state().read_to().saturating_add(1), self.follower.state().tip().number);
        let to = tip.min(from.saturating_add(self.limit - 1));
        let hash_at = |number| Some(BlockRef { number, hash: self.follower.state().hash_at(number)? });
        let blocks: Vec<BlockRef> = (from..=to).filter_map(hash_at).collect();
        let logs = match self.rpc.logs_of(&blocks, &self.filter).await {
            Err(RpcError::UnknownBlock) if is_moved => return Ok(()),
            logs => logs?,
        };
        for logs in &logs {
            self.events.extend(self.follower.read(self.watch, logs));
        }
        Ok(())
    }

    /// What blocks hold that were read before: an endpoint may have had their headers before it had their logs, and nothing
    /// in an empty answer tells. By ranges, as soon as some are due together.
    async fn read_again(&mut self) -> Result<(), ScanError> {
        for time in 0..AGAIN {
            let to = self.due_again(time);
            let missing = to.saturating_sub(self.follower.state().again(time));
            if missing >= AGAIN_TOGETHER || (missing > 0 && self.is_far()) {
                self.read_again_to(time, to).await?;
            }
        }
        Ok(())
    }

    /// The newest block that is deep enough to be read again.
    fn due_again(&self, time: usize) -> u64 {
        let depth = self.watch.again.get(time).copied().unwrap_or(self.watch.window);
        let deep = self.heads.latest.number.saturating_add(1).saturating_sub(u64::from(depth));
        deep.min(self.follower.state().read_to())
    }

    async fn read_again_to(&mut self, time: usize, to: u64) -> Result<(), ScanError> {
        while self.follower.state().again(time) < to {
            if self.filter.is_idle() {
                self.follower.again(self.watch, time, to, &[]);
                return Ok(());
            }
            let from = self.follower.state().again(time).saturating_add(1);
            let (last, logs) = self.rpc.logs_between(from, to, &self.filter).await?;
            // Of another fork than was followed, by now or at another place of the endpoint: the next step sees which.
            let is_ours = |block: BlockRef| self.follower.state().hash_at(block.number) == Some(block.hash);
            if !is_ours(last.block()) || !logs.iter().all(|log| is_ours(log.block)) {
                return Err(RpcError::UnknownBlock.into());
            }
            self.events.extend(self.follower.again(self.watch, time, last.number, &logs));
        }
        Ok(())
    }

    fn end(self) -> Result<Scan, ScanError> {
        let state = self.follower.state();
        let on_ours = |head: Option<BlockRef>| match head {
            // On another fork than the blocks that were read: one of both is not true.
            Some(head) if state.hash_at(head.number).is_some_and(|hash| hash != head.hash) => {
                Err(RpcError::Lies(Lie::Heads))
            }
            head => Ok(head.map(|head| head.number.min(state.read_to()))),
        };
        let reached = Reached {
            read_to: state.read_to(),
            safe: on_ours(self.heads.safe)?,
            finalized: on_ours(self.heads.finalized)?,
        };
        let behind = self.heads.latest.number.saturating_sub(reached.read_to);
        let (state, skipped) = self.follower.finish();
        Ok(Scan { state, events: self.events, skipped, reached, behind })
    }
}
