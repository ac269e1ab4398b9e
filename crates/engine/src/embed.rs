//! Holds: sentence embeddings with one model: inputs of all requests together in bounded batches, on one thread.

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
};

use llama_cpp_2::{
    LlamaContextLoadError,
    context::{
        LlamaContext,
        params::{LlamaContextParams, LlamaPoolingType},
    },
    llama_backend::LlamaBackend,
    llama_batch::LlamaBatch,
    model::LlamaModel,
    token::LlamaToken,
};
use tokio::{sync::oneshot, time::Instant};
use tracing::error;

use crate::metrics::ModelMetrics;

/// Tokens in one pass. Attention is computed over the whole pass, so that larger ones waste more than they gain.
pub(crate) const PASS_TOKENS: usize = 1024;

/// Inputs in one pass.
const PASS_INPUTS: usize = 32;

/// The inputs of one request.
pub(crate) struct EmbedJob {
    inputs: Vec<Vec<LlamaToken>>,
    done: Vec<Vec<f32>>,
    reply: oneshot::Sender<Vec<Vec<f32>>>,
}

impl EmbedJob {
    /// A job and where its vectors arrive, in order. The sender is dropped when the engine cannot go on; the job is
    /// given up when the receiver is.
    pub(crate) fn new(inputs: Vec<Vec<LlamaToken>>) -> (Self, oneshot::Receiver<Vec<Vec<f32>>>) {
        let (reply, vectors) = oneshot::channel();
        (Self { done: Vec::with_capacity(inputs.len()), inputs, reply }, vectors)
    }
}

/// One model's embedding loop, not yet running.
pub(crate) struct EmbedWorker {
    pub(crate) backend: Arc<LlamaBackend>,
    pub(crate) model: Arc<LlamaModel>,
    pub(crate) jobs: mpsc::Receiver<EmbedJob>,
    pub(crate) metrics: Arc<ModelMetrics>,
    pub(crate) threads: i32,
}

impl EmbedWorker {
    /// Runs until all senders of jobs are gone. Tells `ready` first whether the context could be made.
    pub(crate) fn run(self, ready: impl FnOnce(Result<(), LlamaContextLoadError>)) {
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(PASS_TOKENS as u32))
            .with_n_batch(PASS_TOKENS as u32)
            .with_n_ubatch(PASS_TOKENS as u32)
            .with_n_seq_max(PASS_INPUTS as u32)
            .with_kv_unified(true)
            .with_embeddings(true)
            .with_pooling_type(pooling(&self.model))
            .with_n_threads(self.threads)
            .with_n_threads_batch(self.threads)
            .with_no_perf(true);
        let mut context = match self.model.new_context(&self.backend, params) {
            Ok(context) => context,
            Err(error) => return ready(Err(error)),
        };
        ready(Ok(()));
        let mut batch = LlamaBatch::new(PASS_TOKENS, 1);
        let mut open = VecDeque::new();
        loop {
            if open.is_empty() {
                let Ok(job) = self.jobs.recv() else { return };
                open.push_back(job);
            }
            open.extend(self.jobs.try_iter());
            open.retain(|job: &EmbedJob| !job.reply.is_closed());
            self.metrics.processing.store(open.len() as u64, Relaxed);
            let taken = fill(&mut batch, &open);
            if batch.n_tokens() == 0 {
                continue;
            }
            let began = Instant::now();
            if let Err(error) = compute(&mut context, &mut batch, &taken, &mut open) {
                error!(%error, "embeddings could not be computed; their requests fail");
                open.clear();
            }
            self.metrics.note_pass(u64::try_from(batch.n_tokens()).unwrap_or(0), 0, began.elapsed());
            self.deliver(&mut open);
        }
    }

    fn deliver(&self, open: &mut VecDeque<EmbedJob>) {
        let (done, rest): (VecDeque<_>, _) = open.drain(..).partition(|job| job.done.len() == job.inputs.len());
        *open = rest;
        self.metrics.processing.store(open.len() as u64, Relaxed);
        for job in done {
            // The client may have gone; nobody else wants its vectors.
            let _ = job.reply.send(job.done);
        }
    }
}

/// Mean pooling unless the model says otherwise.
fn pooling(model: &LlamaModel) -> LlamaPoolingType {
    let architecture = model.meta_val_str("general.architecture").unwrap_or_default();
    match model.meta_val_str(&format!("{architecture}.pooling_type")) {
        Ok(_) => LlamaPoolingType::Unspecified,
        Err(_) => LlamaPoolingType::Mean,
    }
}

/// Fills a batch with one input of each job in turn, so that a long list does not hold up a single question. Returns
/// the job of each sequence in the batch.
fn fill(batch: &mut LlamaBatch<'_>, open: &VecDeque<EmbedJob>) -> Vec<usize> {
    batch.clear();
    let mut taken = Vec::new();
    for round in 0..PASS_INPUTS {
        let before = taken.len();
        for (at, job) in open.iter().enumerate() {
            let Some(input) = job.inputs.get(job.done.len() + round) else { continue };
            let used = usize::try_from(batch.n_tokens()).unwrap_or(PASS_TOKENS);
            if taken.len() == PASS_INPUTS || used + input.len() > PASS_TOKENS {
                return taken;
            }
            let sequence = i32::try_from(taken.len()).unwrap_or(i32::MAX);
            for (position, &token) in (0..).zip(input) {
                if batch.add(token, position, &[sequence], true).is_err() {
                    return taken;
                }
            }
            taken.push(at);
        }
        if taken.len() == before {
            break;
        }
    }
    taken
}

#[derive(Debug, thiserror::Error)]
enum ComputeError {
    #[error("llama.cpp could not encode the batch")]
    Encode(#[from] llama_cpp_2::EncodeError),
    #[error("the model gave no pooled embedding")]
    Pooling(#[from] llama_cpp_2::EmbeddingsSeqError),
}

fn compute(
    context: &mut LlamaContext<'_>,
    batch: &mut LlamaBatch<'_>,
    taken: &[usize],
    open: &mut VecDeque<EmbedJob>,
) -> Result<(), ComputeError> {
    context.encode(batch)?;
    for (sequence, &job) in (0..).zip(taken) {
        let vector = normalised(context.embeddings_seq_ith(sequence)?);
        open[job].done.push(vector);
    }
    Ok(())
}

fn normalised(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
    vector.iter().map(|x| x * scale).collect()
}
