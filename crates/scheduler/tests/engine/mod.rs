//! An engine with continuous batching, first come first served, in steps.

use std::{collections::VecDeque, time::Duration};

use batchin_domain::Class;

/// How an engine's step time comes about.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    pub slots: u32,
    pub cpu: bool,
    step_micros: u64,
    per_sequence_micros: u64,
    per_prompt_token_micros: u64,
    chunk: u32,
}

impl Speed {
    pub const GPU: Self = Self {
        slots: 64,
        cpu: false,
        step_micros: 12_000,
        per_sequence_micros: 150,
        per_prompt_token_micros: 25,
        chunk: 2_048,
    };
    pub const SMALL_GPU: Self = Self {
        slots: 16,
        cpu: false,
        step_micros: 25_000,
        per_sequence_micros: 600,
        per_prompt_token_micros: 120,
        chunk: 1_024,
    };
    pub const CPU: Self = Self {
        slots: 8,
        cpu: true,
        step_micros: 90_000,
        per_sequence_micros: 6_000,
        per_prompt_token_micros: 2_500,
        chunk: 256,
    };
}

pub enum Report {
    FirstByte(u64),
    Token(u64, Class),
    Done(u64),
}

struct Sequence {
    ticket: u64,
    class: Class,
    prompt_left: u32,
    output_left: u32,
}

pub struct Engine {
    pub speed: Speed,
    running: Vec<Sequence>,
    waiting: VecDeque<Sequence>,
}

impl Engine {
    pub fn new(speed: Speed) -> Self {
        Self { speed, running: Vec::new(), waiting: VecDeque::new() }
    }

    pub fn len(&self) -> usize {
        self.running.len() + self.waiting.len()
    }

    pub fn push(&mut self, ticket: u64, class: Class, prompt: u32, output: u32) {
        self.waiting.push_back(Sequence { ticket, class, prompt_left: prompt, output_left: output });
    }

    pub fn cancel(&mut self, ticket: u64) {
        self.running.retain(|one| one.ticket != ticket);
        self.waiting.retain(|one| one.ticket != ticket);
    }

    /// One forward pass; an idle engine lets 5 ms go by.
    pub fn step(&mut self) -> (Duration, Vec<Report>) {
        while self.running.len() < self.speed.slots as usize {
            let Some(next) = self.waiting.pop_front() else { break };
            self.running.push(next);
        }
        if self.running.is_empty() {
            return (Duration::from_millis(5), Vec::new());
        }
        let (mut budget, mut decoding, mut reports) = (self.speed.chunk, 0, Vec::new());
        for one in &mut self.running {
            if one.prompt_left == 0 {
                decoding += 1;
                one.output_left -= 1;
                reports.push(Report::Token(one.ticket, one.class));
            } else {
                let taken = one.prompt_left.min(budget);
                budget -= taken;
                one.prompt_left -= taken;
                if one.prompt_left == 0 {
                    reports.push(Report::FirstByte(one.ticket));
                }
            }
        }
        let ended = self.running.extract_if(.., |one| one.output_left == 0);
        reports.extend(ended.map(|one| Report::Done(one.ticket)));
        let prefilled = u64::from(self.speed.chunk - budget);
        let micros = self.speed.step_micros
            + decoding * self.speed.per_sequence_micros
            + prefilled * self.speed.per_prompt_token_micros;
        (Duration::from_micros(micros), reports)
    }
}
