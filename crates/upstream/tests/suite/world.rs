//! Holds: a simulated model server, calls to it, and what comes back.

use std::{sync::Arc, time::Duration};

use batchin_domain::CallKind;
use batchin_openai::{Usage, peek};
use batchin_sim::{Answer as SimAnswer, Behaviour, End, SimServer, token_text};
use batchin_tasks::Tasks;
use batchin_upstream::{
    Answer, Asker, Call, CallError, Event, EventKind, Events, Fleet, Kind, Progress, Replica, StreamError,
    UpstreamConfig,
};
use bytes::Bytes;

/// A test that waits longer than this has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A person of one account.
pub(crate) const ADA: Asker = Asker { account: 1, urgent: true, last_resort: false };
/// Another one.
pub(crate) const BOB: Asker = Asker { account: 2, ..ADA };

pub(crate) struct World {
    pub(crate) sim: SimServer,
    pub(crate) fleet: Fleet,
    pub(crate) tasks: Tasks,
}

impl World {
    pub(crate) async fn of(kind: Kind) -> Self {
        Self::with(kind, |_| {}).await
    }

    pub(crate) async fn with(kind: Kind, adjust: impl FnOnce(&mut UpstreamConfig)) -> Self {
        let sim = SimServer::start().await.unwrap();
        let mut config = UpstreamConfig::new("gpu-1", kind, &sim.base_url()).unwrap();
        adjust(&mut config);
        let tasks = Tasks::new();
        let fleet = Fleet::new(vec![config], &tasks, 7).unwrap();
        Self { sim, fleet, tasks }
    }

    pub(crate) fn replica(&self) -> Arc<Replica> {
        self.fleet.replica("gpu-1").unwrap()
    }

    pub(crate) async fn call(&self, call: Call<'_>) -> Result<Answer, CallError> {
        tokio::time::timeout(PATIENCE, self.replica().call(call)).await.expect("the call hangs")
    }

    pub(crate) async fn stream(&self, behaviour: Behaviour) -> (Vec<Event>, Option<StreamError>) {
        self.sim.script_all(behaviour);
        all(events(self.call(streaming()).await.unwrap())).await
    }

    pub(crate) async fn refused(&self, behaviour: Behaviour, call: Call<'_>) -> CallError {
        self.sim.script_all(behaviour);
        self.call(call).await.expect_err("the call succeeded")
    }

    pub(crate) async fn end(self) {
        assert_eq!(self.replica().outstanding(), 0);
        assert_eq!(self.tasks.shutdown(PATIENCE).await, 0);
        self.sim.stop().await;
    }
}

pub(crate) const CHAT: &str = r#"{"model":"qwen","messages":[{"role":"user","content":"one two three"}]}"#;

pub(crate) fn chat(body: &'static str) -> Call<'static> {
    let peeked = peek(CallKind::Chat, body.as_bytes()).unwrap();
    Call {
        kind: CallKind::Chat,
        native: None,
        body: Bytes::from_static(body.as_bytes()),
        upstream_model: Some("Qwen/Qwen3"),
        public_id: "chatcmpl_1".to_owned(),
        public_model: "qwen",
        stream: peeked.stream,
        include_usage: true,
        continuous_usage: false,
        answers: 1,
        wanted: peeked.wanted,
        tier: None,
        request_id: "req-1".to_owned(),
        class_priority: None,
        max_tokens: None,
        held: None,
        fim: None,
        speech: None,
        uploads: Vec::new(),
        created: 7,
        asker: ADA,
    }
}

pub(crate) fn whole() -> Call<'static> {
    chat(CHAT)
}

pub(crate) fn streaming() -> Call<'static> {
    Call { stream: true, ..whole() }
}

pub(crate) fn completion(stream: bool) -> Call<'static> {
    let body = Bytes::from_static(br#"{"model":"qwen","prompt":"a b","max_tokens":100}"#);
    Call { kind: CallKind::Completions, body, stream, ..whole() }
}

pub(crate) fn of(tokens: u32) -> SimAnswer {
    SimAnswer::of(tokens)
}

pub(crate) fn ending(tokens: u32, end: End) -> Behaviour {
    Behaviour::Answer(SimAnswer { end, ..of(tokens) })
}

pub(crate) fn raw(pieces: &[&'static str], end: End) -> Behaviour {
    raw_as("text/event-stream", pieces, end)
}

pub(crate) fn raw_as(content_type: &'static str, pieces: &[&'static str], end: End) -> Behaviour {
    let pieces = pieces.iter().map(|piece| Bytes::from_static(piece.as_bytes())).collect();
    Behaviour::Raw { content_type, pieces, gap: Duration::ZERO, end }
}

pub(crate) fn events(answer: Answer) -> Events {
    match answer {
        Answer::Events(events) => *events,
        Answer::Whole { .. } | Answer::Sound(_) | Answer::Pictures(_) => panic!("not a stream"),
    }
}

pub(crate) async fn all(mut events: Events) -> (Vec<Event>, Option<StreamError>) {
    let mut seen = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, events.next()).await.expect("the stream hangs") {
            Some(Ok(event)) => seen.push(event),
            Some(Err(error)) => {
                assert!(events.next().await.is_none());
                return (seen, Some(error));
            }
            None => return (seen, None),
        }
    }
}

pub(crate) fn kinds(events: &[Event]) -> Vec<&'static str> {
    let kind = |event: &Event| match event.kind {
        EventKind::Delta => "delta",
        EventKind::Finish => "finish",
        EventKind::Usage => "usage",
        EventKind::Done => "done",
        EventKind::Error(_) => "error",
        EventKind::KeepAlive => "keep-alive",
    };
    events.iter().map(kind).collect()
}

pub(crate) fn usage(prompt_tokens: u64, completion_tokens: u64) -> Option<Usage> {
    Some(Usage::of(prompt_tokens, completion_tokens))
}

pub(crate) fn last_usage(events: &[Event]) -> Option<Usage> {
    events.iter().rev().find_map(|event| event.usage)
}

/// Bytes of text of the simulated model's first tokens.
pub(crate) fn said(tokens: u32) -> u64 {
    (0..tokens).map(|token| token_text(token).len() as u64).sum()
}

pub(crate) fn deltas(events: &[Event]) -> u32 {
    events.iter().map(|event| event.deltas).sum()
}

/// Takes an assembly to its end.
pub(crate) async fn put_together(
    replica: Arc<Replica>,
    call: Call<'_>,
) -> Result<(serde_json::Value, u64, u64), CallError> {
    let mut assembly = replica.assemble(call).await?;
    let mut pieces = 0;
    loop {
        match assembly.next().await? {
            Progress::Piece { deltas, .. } => pieces += u64::from(deltas),
            Progress::Whole(answer) => {
                return Ok((serde_json::from_slice(&answer.body).unwrap(), pieces, answer.text_bytes));
            }
        }
    }
}
