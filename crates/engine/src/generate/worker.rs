//! Holds: the batching loop of one model. One thread owns the context; everything else talks to it through the queue.
//!
//! Each pass takes one token of every sequence that is generating and a bounded piece of the prompts that are not read
//! yet, so that a long prompt never stalls the others. Cells of the cache outlive their sequences: the next request
//! with the same beginning takes it over.

use std::{
    num::NonZeroU32,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use batchin_domain::Class;
use llama_cpp_2::{
    DecodeError, LlamaContextLoadError,
    context::{LlamaContext, params::LlamaContextParams},
    llama_backend::LlamaBackend,
    llama_batch::LlamaBatch,
    model::LlamaModel,
    token::LlamaToken,
    vocab::LlamaVocab,
};
use tokio::time::Instant;
use tracing::{error, warn};

use super::{
    Finish, Queue, Sequence, TokenLogprob,
    prefix::{self, CellView},
    sampler::{Sampled, Scratch},
};
use crate::metrics::ModelMetrics;

/// Prompt tokens in a pass that also generates: about a quarter of a second on two cores.
const PROMPT_TOKENS_BESIDE_OTHERS: usize = 256;

/// Prompt tokens in a pass when nobody generates. More gains nothing and delays the notice of newcomers.
const PASS_TOKENS: usize = 512;

/// Generated tokens that a newcomer must have room for. What goes beyond is met by putting somebody back.
const HEADROOM_TOKENS: usize = 128;

/// Cells for each slot: those beyond one keep finished conversations and sequences that were put back.
const CELLS_PER_SLOT: usize = 2;

/// How a worker's context is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerSettings {
    pub(crate) context_tokens: u32,
    pub(crate) slots: usize,
    pub(crate) threads: i32,
}

/// One model's batching loop, not yet running.
pub(crate) struct Worker {
    pub(crate) backend: Arc<LlamaBackend>,
    pub(crate) model: Arc<LlamaModel>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) metrics: Arc<ModelMetrics>,
    pub(crate) settings: WorkerSettings,
}

impl Worker {
    /// Runs until the queue is closed. Tells `ready` first whether the context could be made.
    pub(crate) fn run(self, ready: impl FnOnce(Result<(), LlamaContextLoadError>)) {
        let WorkerSettings { context_tokens, slots, threads } = self.settings;
        let cells = slots * CELLS_PER_SLOT;
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(context_tokens))
            .with_n_batch(PASS_TOKENS as u32)
            .with_n_ubatch(PASS_TOKENS as u32)
            .with_n_seq_max(u32::try_from(cells).unwrap_or(u32::MAX))
            .with_kv_unified(true)
            .with_n_threads(threads)
            .with_n_threads_batch(threads)
            .with_no_perf(true);
        let context = match self.model.new_context(&self.backend, params) {
            Ok(context) => context,
            Err(error) => return ready(Err(error)),
        };
        ready(Ok(()));
        Batching {
            room: context.n_ctx() as usize,
            context,
            vocab: self.model.vocab(),
            cells: (0..cells).map(|_| Cell::default()).collect(),
            batch: LlamaBatch::new(PASS_TOKENS, 1),
            scratch: Scratch::default(),
            piece: Vec::with_capacity(64),
            ticks: 0,
            slots,
            // Their state has no positions that could be cut off.
            shares: !self.model.is_recurrent() && !self.model.is_hybrid(),
            queue: &self.queue,
            metrics: &self.metrics,
        }
        .run();
    }
}

struct Batching<'a> {
    context: LlamaContext<'a>,
    vocab: LlamaVocab<'a>,
    cells: Vec<Cell>,
    batch: LlamaBatch<'static>,
    scratch: Scratch,
    piece: Vec<u8>,
    ticks: u64,
    slots: usize,
    room: usize,
    shares: bool,
    queue: &'a Queue,
    metrics: &'a ModelMetrics,
}

/// One sequence id of the context.
#[derive(Default)]
struct Cell {
    /// Tokens whose keys and values are in the cache; a prefix of the live sequence's tokens.
    cached: Vec<LlamaToken>,
    live: Option<Live>,
    used_at: u64,
}

struct Live {
    sequence: Sequence,
    follow: Option<Follow>,
    /// Tokens of this sequence in the current pass.
    added: usize,
    /// Where in the pass its next token is decided, if it is.
    output: Option<i32>,
}

/// Another sequence that is computing a common prefix.
#[derive(Clone, Copy)]
struct Follow {
    cell: usize,
    sequence: u64,
    until: usize,
}

impl Batching<'_> {
    fn run(mut self) {
        while !self.queue.is_closed() {
            if self.live_count() == 0 && !self.queue.wait_for_work() {
                break;
            }
            self.drop_cancelled();
            let waiting = self.queue.purge();
            self.yield_to_interactive();
            self.admit();
            self.take_over_prefixes();
            self.note_load(waiting);
            let prompt_tokens = self.fill_batch();
            if self.batch.n_tokens() == 0 {
                continue;
            }
            let began = Instant::now();
            match self.context.decode(&mut self.batch) {
                Ok(()) => {
                    self.metrics.note_pass(prompt_tokens, self.outputs(), began.elapsed());
                    self.collect();
                }
                Err(DecodeError::NoKvCacheSlot) => self.make_room(),
                Err(error) => self.fail_all(&error),
            }
        }
    }

    fn live_count(&self) -> usize {
        self.cells.iter().filter(|cell| cell.live.is_some()).count()
    }

    fn note_load(&self, waiting: usize) {
        let live = self.live_count() as u64;
        let context: usize = self.cells.iter().filter(|cell| cell.live.is_some()).map(|cell| cell.cached.len()).sum();
        self.metrics.processing.store(live, Relaxed);
        self.metrics.deferred.store(waiting as u64, Relaxed);
        self.metrics.busy_slots.fetch_add(live, Relaxed);
        self.metrics.context_tokens_high.fetch_max(context as u64, Relaxed);
    }

    fn drop_cancelled(&mut self) {
        for cell in &mut self.cells {
            if cell.live.as_ref().is_some_and(|live| live.sequence.is_cancelled()) {
                cell.live = None;
            }
        }
        self.metrics.processing.store(self.live_count() as u64, Relaxed);
    }

    /// Puts the youngest fill sequence back when somebody interactive would have to wait for it.
    fn yield_to_interactive(&mut self) {
        if self.live_count() < self.slots || self.queue.next_class() != Some(Class::Interactive) {
            return;
        }
        if let Some(cell) = self.youngest(|class| class == Class::Fill) {
            self.put_back(cell);
        }
    }

    /// The live cell of the least urgent class, and the youngest among those.
    fn youngest(&self, eligible: impl Fn(Class) -> bool) -> Option<usize> {
        let live = self.cells.iter().enumerate().filter_map(|(i, cell)| Some((i, &cell.live.as_ref()?.sequence)));
        live.filter(|(_, sequence)| eligible(sequence.class)).max_by_key(|(_, s)| (s.class, s.id)).map(|(i, _)| i)
    }

    fn put_back(&mut self, cell: usize) {
        if let Some(live) = self.cells[cell].live.take() {
            self.metrics.preempted.fetch_add(1, Relaxed);
            self.queue.put_back(live.sequence);
        }
    }

    fn admit(&mut self) {
        while self.live_count() < self.slots {
            let live = self.cells.iter().filter_map(|cell| cell.live.as_ref());
            let taken: usize = live.map(|live| need(&live.sequence)).sum();
            let room = self.room;
            let Some(sequence) = self.queue.pop(|next| taken == 0 || taken + need(next) <= room) else { return };
            if !sequence.is_cancelled() {
                self.place(sequence);
            }
        }
    }

    fn place(&mut self, sequence: Sequence) {
        let views: Vec<CellView<'_>> = self.cells.iter().map(|cell| cell.view(self.shares)).collect();
        let Some(plan) = prefix::plan(&sequence.tokens, &views) else {
            error!("no cell is free although a slot is; the request is dropped");
            return sequence.fail();
        };
        match plan.source {
            Some((source, keep)) if source == plan.cell => self.truncate(source, keep),
            Some((source, keep)) => self.copy(source, plan.cell, keep),
            None => self.truncate(plan.cell, 0),
        }
        let follow = plan.follow.and_then(|(cell, until)| {
            let leader = self.cells[cell].live.as_ref()?;
            Some(Follow { cell, sequence: leader.sequence.id, until })
        });
        self.ticks += 1;
        let cell = &mut self.cells[plan.cell];
        cell.used_at = self.ticks;
        cell.live = Some(Live { sequence, follow, added: 0, output: None });
    }

    fn truncate(&mut self, cell: usize, keep: usize) {
        if self.cells[cell].cached.len() <= keep {
            return;
        }
        let from = (keep > 0).then(|| u32::try_from(keep).unwrap_or(u32::MAX));
        let cut = self.context.clear_kv_cache_seq(u32::try_from(cell).ok(), from, None);
        let cached = &mut self.cells[cell].cached;
        if matches!(cut, Ok(true)) {
            cached.truncate(keep);
        } else {
            // Sliding-window caches cannot give back the past; removing the whole sequence never fails.
            let _ = self.context.clear_kv_cache_seq(u32::try_from(cell).ok(), None, None);
            cached.clear();
        }
    }

    fn copy(&mut self, source: usize, target: usize, keep: usize) {
        self.truncate(target, 0);
        let (Ok(from), Ok(to), Ok(until)) = (i32::try_from(source), i32::try_from(target), u32::try_from(keep)) else {
            return;
        };
        if self.context.copy_kv_cache_seq(from, to, Some(0), Some(until)).is_ok() {
            let prefix = self.cells[source].cached[..keep].to_vec();
            self.cells[target].cached = prefix;
            self.ticks += 1;
            self.cells[source].used_at = self.ticks;
        }
    }

    /// Gives followers what their leaders have computed, once it is there or the leader is gone.
    fn take_over_prefixes(&mut self) {
        for at in 0..self.cells.len() {
            let Some(follow) = self.cells[at].live.as_ref().and_then(|live| live.follow) else { continue };
            let leader = &self.cells[follow.cell];
            let leads = leader.live.as_ref().is_some_and(|live| live.sequence.id == follow.sequence);
            if leads && leader.cached.len() < follow.until {
                continue;
            }
            let leader = std::mem::take(&mut self.cells[follow.cell].cached);
            let shared = match self.cells[at].live.as_mut() {
                Some(live) => {
                    live.follow = None;
                    prefix::common(&live.sequence.tokens[..live.sequence.tokens.len() - 1], &leader)
                }
                None => 0,
            };
            self.cells[follow.cell].cached = leader;
            if shared > self.cells[at].cached.len() {
                self.copy(follow.cell, at, shared);
            }
        }
    }

    /// Puts the next tokens of all sequences into the batch; returns how many of them are prompt tokens.
    fn fill_batch(&mut self) -> u64 {
        self.batch.clear();
        let (mut generating, mut prompt_tokens) = (0, 0);
        let mut reading = Vec::new();
        for (at, cell) in self.cells.iter_mut().enumerate() {
            let Some(live) = cell.live.as_mut() else { continue };
            (live.added, live.output) = (0, None);
            match live.sequence.tokens.len() - cell.cached.len() {
                _ if live.follow.is_some() => {}
                1 => {
                    prompt_tokens += u64::from(live.sequence.generated() == 0);
                    generating += add(&mut self.batch, at, cell, 1);
                }
                _ => reading.push((live.sequence.class, live.sequence.id, at)),
            }
        }
        let free = PASS_TOKENS.saturating_sub(generating);
        let mut budget = if generating > 0 { free.min(PROMPT_TOKENS_BESIDE_OTHERS) } else { free };
        reading.sort_unstable();
        for (_, _, at) in reading {
            if budget == 0 {
                break;
            }
            let added = add(&mut self.batch, at, &mut self.cells[at], budget);
            budget -= added;
            prompt_tokens += added as u64;
        }
        prompt_tokens
    }

    /// How many sequences get their next token from this pass.
    fn outputs(&self) -> u64 {
        self.cells.iter().filter(|cell| cell.live.as_ref().is_some_and(|live| live.output.is_some())).count() as u64
    }

    /// After a pass: notes what is cached now and takes the next token of each sequence that is due.
    fn collect(&mut self) {
        for at in 0..self.cells.len() {
            let cell = &mut self.cells[at];
            let Some(live) = cell.live.as_mut() else { continue };
            if live.added == 0 {
                continue;
            }
            let reused = cell.cached.len();
            if live.sequence.cached.is_none() {
                live.sequence.cached = Some(reused);
                self.metrics.cached_tokens.fetch_add(reused as u64, Relaxed);
            }
            cell.cached.extend_from_slice(&live.sequence.tokens[reused..reused + live.added]);
            let Some(output) = live.output else { continue };
            let finish = next_token(&self.context, &self.vocab, &mut self.scratch, &mut self.piece, (live, output));
            if let Some(finish) = finish
                && let Some(live) = cell.live.take()
            {
                self.ticks += 1;
                cell.used_at = self.ticks;
                // Whoever reads the end must find the slot free.
                self.metrics.processing.fetch_sub(1, Relaxed);
                live.sequence.finish(finish);
            }
        }
    }

    /// The cache is full: forgets the oldest finished conversation, or else puts the least urgent sequence back.
    fn make_room(&mut self) {
        let idle = self.cells.iter().enumerate().filter(|(_, cell)| cell.live.is_none() && !cell.cached.is_empty());
        if let Some((cell, _)) = idle.min_by_key(|(_, cell)| cell.used_at) {
            return self.truncate(cell, 0);
        }
        let Some(cell) = self.youngest(|_| true) else { return };
        self.truncate_live(cell);
        if self.live_count() > 1 {
            self.put_back(cell);
        } else if let Some(live) = self.cells[cell].live.take() {
            warn!("a single sequence filled the whole context");
            live.sequence.finish(Finish::Length);
        }
    }

    fn truncate_live(&mut self, cell: usize) {
        let _ = self.context.clear_kv_cache_seq(u32::try_from(cell).ok(), None, None);
        self.cells[cell].cached.clear();
    }

    fn fail_all(&mut self, cause: &DecodeError) {
        error!(error = %cause, "the model could not be computed; its requests fail");
        self.context.clear_kv_cache();
        for cell in &mut self.cells {
            cell.cached.clear();
            if let Some(live) = cell.live.take() {
                live.sequence.fail();
            }
        }
    }
}

impl Cell {
    fn view(&self, shares: bool) -> CellView<'_> {
        CellView {
            cached: if shares { &self.cached } else { &[] },
            live: self.live.as_ref().map(|live| if shares { live.sequence.tokens.as_slice() } else { &[] }),
            used_at: self.used_at,
        }
    }
}

/// Cache cells that a sequence will need.
fn need(sequence: &Sequence) -> usize {
    sequence.tokens.len() + (sequence.max_new - sequence.generated()).min(HEADROOM_TOKENS)
}

/// Adds at most `budget` of the cell's next tokens, and returns how many.
fn add(batch: &mut LlamaBatch<'_>, at: usize, cell: &mut Cell, budget: usize) -> usize {
    let Some(live) = cell.live.as_mut() else { return 0 };
    let tokens = &live.sequence.tokens;
    let from = cell.cached.len();
    let until = tokens.len().min(from + budget);
    let (Ok(id), Ok(first)) = (i32::try_from(at), i32::try_from(from)) else { return 0 };
    for (position, &token) in (first..).zip(&tokens[from..until]) {
        let decides = position as usize + 1 == tokens.len();
        if batch.add(token, position, &[id], decides).is_err() {
            break;
        }
        live.added += 1;
        if decides {
            live.output = Some(batch.n_tokens() - 1);
        }
    }
    live.added
}

/// Chooses and takes the sequence's next token. Returns why the sequence is over, if it is.
fn next_token(
    context: &LlamaContext<'_>,
    vocab: &LlamaVocab<'_>,
    scratch: &mut Scratch,
    piece: &mut Vec<u8>,
    (live, output): (&mut Live, i32),
) -> Option<Finish> {
    let sequence = &mut live.sequence;
    let Ok(Sampled { token, logprobs }) = sequence.sampler.sample(context.get_logits_ith(output), scratch) else {
        sequence.text.finish();
        return Some(Finish::Stop);
    };
    piece.clear();
    vocab.token_to_piece_into(token, piece, false, None);
    let end_of_text = vocab.is_eog(token);
    if let Some((logprob, top)) = logprobs
        && !end_of_text
    {
        let bytes = |token| vocab.token_to_piece(token, true, None);
        let top = top.into_iter().map(|(token, logprob)| (bytes(token), logprob)).collect();
        sequence.text.note_logprob(TokenLogprob { bytes: bytes(token), logprob, top });
    }
    let finish = sequence.accept(token, end_of_text, piece);
    if finish.is_none() {
        sequence.flush();
    }
    finish
}
