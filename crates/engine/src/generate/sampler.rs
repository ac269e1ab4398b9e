//! Holds: the choice of the next token from the model's scores.
//!
//! Never sorts the vocabulary: candidates are those within reach of the best score, and only they are looked at.

use std::collections::HashMap;

use llama_cpp_2::token::LlamaToken;
use llama_cpp_sys_2::llama_token_data;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::native::Grammar;

/// How tokens are chosen. Temperature comes first, as in OpenAI's API, then `min_p`, `top_k`, `top_p`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SamplingParams {
    /// 0 always takes the likeliest token.
    pub(crate) temperature: f32,
    pub(crate) top_p: f32,
    /// 0 means all.
    pub(crate) top_k: usize,
    pub(crate) min_p: f32,
    pub(crate) seed: u64,
    pub(crate) frequency_penalty: f32,
    pub(crate) presence_penalty: f32,
    pub(crate) logit_bias: Vec<(LlamaToken, f32)>,
    /// Report log probabilities, with so many alternatives.
    pub(crate) logprobs: Option<usize>,
}

/// Candidates whose probability is below e^-30 of the best are never drawn in practice.
const REACH: f32 = 30.0;

/// The choice of one sequence's tokens, with its memory.
pub(crate) struct Sampler {
    params: SamplingParams,
    random: StdRng,
    counts: HashMap<LlamaToken, u16>,
    grammar: Option<Grammar>,
}

impl std::fmt::Debug for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sampler").field("params", &self.params).finish_non_exhaustive()
    }
}

/// Room that all sequences of a worker use in turn.
#[derive(Default)]
pub(super) struct Scratch {
    scores: Vec<f32>,
    candidates: Vec<Candidate>,
}

#[derive(Clone, Copy)]
struct Candidate {
    token: LlamaToken,
    score: f32,
}

/// A token with what was asked about it.
pub(super) struct Sampled {
    pub(super) token: LlamaToken,
    /// Its log probability, and the likeliest tokens with theirs.
    pub(super) logprobs: Option<(f32, Vec<(LlamaToken, f32)>)>,
}

/// The grammar allows no token at all.
#[derive(Debug)]
pub(super) struct DeadEnd;

impl Sampler {
    pub(crate) fn new(params: SamplingParams, grammar: Option<Grammar>) -> Self {
        Self { random: StdRng::seed_from_u64(params.seed), counts: HashMap::new(), params, grammar }
    }

    /// Chooses a token and remembers it.
    pub(super) fn sample(&mut self, scores: &[f32], scratch: &mut Scratch) -> Result<Sampled, DeadEnd> {
        let Scratch { scores: room, candidates } = scratch;
        let adjusted = if self.adjusts() {
            room.clear();
            room.extend_from_slice(scores);
            self.adjust(room);
            room.as_slice()
        } else {
            scores
        };
        let mut token = self.pick(adjusted, candidates);
        if let Some(grammar) = &mut self.grammar
            && !grammar.allows(token)
        {
            let allowed = grammar.mask(adjusted);
            if allowed[best(&allowed)] == f32::NEG_INFINITY {
                return Err(DeadEnd);
            }
            token = self.pick(&allowed, candidates);
        }
        if let Some(grammar) = &mut self.grammar
            && !grammar.accept(token)
        {
            return Err(DeadEnd);
        }
        if self.params.frequency_penalty != 0.0 || self.params.presence_penalty != 0.0 {
            let count = self.counts.entry(token).or_default();
            *count = count.saturating_add(1);
        }
        let logprobs = self.params.logprobs.map(|top| log_probabilities(scores, token, top, candidates));
        Ok(Sampled { token, logprobs })
    }

    fn adjusts(&self) -> bool {
        !self.counts.is_empty() || !self.params.logit_bias.is_empty()
    }

    fn adjust(&self, scores: &mut [f32]) {
        for (token, &count) in &self.counts {
            if let Some(score) = score_mut(scores, *token) {
                *score -= self.params.presence_penalty + self.params.frequency_penalty * f32::from(count);
            }
        }
        for (token, bias) in &self.params.logit_bias {
            if let Some(score) = score_mut(scores, *token) {
                *score += bias;
            }
        }
    }

    fn pick(&mut self, scores: &[f32], candidates: &mut Vec<Candidate>) -> LlamaToken {
        let top = best(scores);
        if self.params.temperature <= 0.0 {
            return token_at(top);
        }
        let SamplingParams { temperature, top_p, top_k, min_p, .. } = self.params;
        let reach = if min_p > 0.0 { -min_p.ln() } else { REACH }.min(REACH);
        let floor = scores[top] - reach * temperature;
        gather(scores, floor, candidates);
        if top_k > 0 && candidates.len() > top_k {
            candidates.select_nth_unstable_by(top_k, by_score);
            candidates.truncate(top_k);
        }
        let highest = scores[top];
        for candidate in candidates.iter_mut() {
            candidate.score = ((candidate.score - highest) / temperature).exp();
        }
        let mut total: f32 = candidates.iter().map(|candidate| candidate.score).sum();
        if top_p < 1.0 {
            candidates.sort_unstable_by(by_score);
            total = keep_nucleus(candidates, top_p * total);
        }
        draw(candidates, self.random.random::<f32>() * total).unwrap_or_else(|| token_at(top))
    }
}

impl Grammar {
    fn allows(&mut self, token: LlamaToken) -> bool {
        let mut one = [llama_token_data { id: token.0, logit: 1.0, p: 0.0 }];
        self.apply(&mut one);
        one[0].logit != f32::NEG_INFINITY
    }

    /// The scores with everything the grammar forbids at minus infinity.
    fn mask(&mut self, scores: &[f32]) -> Vec<f32> {
        let all = (0..).zip(scores).map(|(id, &logit)| llama_token_data { id, logit, p: 0.0 });
        let mut all: Vec<_> = all.collect();
        self.apply(&mut all);
        all.iter().map(|data| data.logit).collect()
    }
}

fn score_mut(scores: &mut [f32], token: LlamaToken) -> Option<&mut f32> {
    scores.get_mut(usize::try_from(token.0).ok()?)
}

fn token_at(index: usize) -> LlamaToken {
    // Vocabularies are counted in i32 by llama.cpp itself.
    LlamaToken(i32::try_from(index).unwrap_or(i32::MAX))
}

fn by_score(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.score.total_cmp(&a.score)
}

/// The index of the highest score, the first of several. Written so that it compiles to vector instructions.
fn best(scores: &[f32]) -> usize {
    const LANES: usize = 32;
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = scores.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &score) in lanes.iter_mut().zip(chunk) {
            *lane = if score > *lane { score } else { *lane };
        }
    }
    let highest = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    scores.iter().position(|&score| score == highest).unwrap_or(0)
}

fn gather(scores: &[f32], floor: f32, candidates: &mut Vec<Candidate>) {
    const CHUNK: usize = 64;
    candidates.clear();
    for (chunk, base) in scores.chunks(CHUNK).zip((0..).step_by(CHUNK)) {
        // Nearly every chunk has nothing; finding that out needs no branch per token.
        if chunk.iter().fold(false, |any, &score| any | (score >= floor)) {
            let within = chunk.iter().enumerate().filter(|&(_, &score)| score >= floor);
            candidates.extend(within.map(|(i, &score)| Candidate { token: token_at(base + i), score }));
        }
    }
}

/// Keeps the likeliest candidates that together have `mass`, and returns what they have.
fn keep_nucleus(candidates: &mut Vec<Candidate>, mass: f32) -> f32 {
    let mut sum = 0.0;
    let mut keep = 0;
    while keep < candidates.len() && (keep == 0 || sum < mass) {
        sum += candidates[keep].score;
        keep += 1;
    }
    candidates.truncate(keep);
    sum
}

fn draw(candidates: &[Candidate], mut at: f32) -> Option<LlamaToken> {
    for candidate in candidates {
        at -= candidate.score;
        if at < 0.0 {
            return Some(candidate.token);
        }
    }
    candidates.last().map(|candidate| candidate.token)
}

fn log_probabilities(
    scores: &[f32],
    token: LlamaToken,
    top: usize,
    candidates: &mut Vec<Candidate>,
) -> (f32, Vec<(LlamaToken, f32)>) {
    let highest = scores[best(scores)];
    let total: f32 = scores.iter().map(|score| (score - highest).exp()).sum();
    let log_total = highest + total.ln();
    let own = usize::try_from(token.0).ok().and_then(|i| scores.get(i)).map_or(f32::MIN, |score| score - log_total);
    if top == 0 {
        return (own, Vec::new());
    }
    gather(scores, f32::NEG_INFINITY, candidates);
    if candidates.len() > top {
        candidates.select_nth_unstable_by(top, by_score);
        candidates.truncate(top);
    }
    candidates.sort_unstable_by(by_score);
    (own, candidates.iter().map(|candidate| (candidate.token, candidate.score - log_total)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params() -> SamplingParams {
        SamplingParams {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            seed: 1,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            logprobs: None,
        }
    }

    /// How often each of the tokens is drawn in 20,000 tries.
    fn shares(params: SamplingParams, scores: &[f32]) -> Vec<f32> {
        let mut sampler = Sampler::new(params, None);
        let mut scratch = Scratch::default();
        let mut seen = vec![0.0; scores.len()];
        for _ in 0..20_000 {
            seen[sampler.sample(scores, &mut scratch).unwrap().token.0 as usize] += 1.0 / 20_000.0;
        }
        seen
    }

    /// Three tokens with probabilities 0.6, 0.3 and 0.1 among many impossible ones.
    fn scores() -> Vec<f32> {
        let mut scores = vec![-100.0; 1000];
        for (at, p) in [(7, 0.6_f32), (500, 0.3), (999, 0.1)] {
            scores[at] = p.ln();
        }
        scores
    }

    fn check(params: SamplingParams, expected: [f32; 3]) {
        let seen = shares(params, &scores());
        let seen = [seen[7], seen[500], seen[999]];
        assert!(seen.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.02), "{seen:?} is not {expected:?}");
    }

    #[test]
    fn draws_follow_the_probabilities() {
        check(params(), [0.6, 0.3, 0.1]);
        check(SamplingParams { temperature: 0.0, ..params() }, [1.0, 0.0, 0.0]);
        check(SamplingParams { temperature: 0.5, ..params() }, [0.783, 0.196, 0.022]);
        check(SamplingParams { top_k: 2, ..params() }, [0.667, 0.333, 0.0]);
        check(SamplingParams { top_p: 0.85, ..params() }, [0.667, 0.333, 0.0]);
        check(SamplingParams { top_p: 0.0, ..params() }, [1.0, 0.0, 0.0]);
        check(SamplingParams { min_p: 0.4, ..params() }, [0.667, 0.333, 0.0]);
        check(SamplingParams { logit_bias: vec![(LlamaToken(7), -100.0)], ..params() }, [0.0, 0.75, 0.25]);
    }

    #[test]
    fn penalties_push_to_other_tokens() {
        let params = SamplingParams { temperature: 0.0, presence_penalty: 2.0, ..params() };
        let mut sampler = Sampler::new(params, None);
        let mut scratch = Scratch::default();
        let drawn: Vec<i32> = (0..3).map(|_| sampler.sample(&scores(), &mut scratch).unwrap().token.0).collect();
        assert_eq!(drawn, [7, 500, 999]);
    }

    #[test]
    fn log_probabilities_are_of_the_models_own_distribution() {
        let mut sampler = Sampler::new(SamplingParams { temperature: 0.0, logprobs: Some(2), ..params() }, None);
        let (own, top) = sampler.sample(&scores(), &mut Scratch::default()).unwrap().logprobs.unwrap();
        assert!((own.exp() - 0.6).abs() < 1e-3);
        assert_eq!(top.iter().map(|(token, _)| token.0).collect::<Vec<_>>(), [7, 500]);
    }

    #[test]
    fn the_same_seed_draws_the_same_tokens() {
        let draw = || {
            let mut sampler = Sampler::new(params(), None);
            let mut scratch = Scratch::default();
            (0..50).map(|_| sampler.sample(&scores(), &mut scratch).unwrap().token.0).collect::<Vec<_>>()
        };
        assert_eq!(draw(), draw());
    }
}
