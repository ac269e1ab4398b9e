//! Holds: which of the members that we add to a body one server takes: as configured, and as its refusals have taught.
//!
//! A lesson is noted only once the server has answered the same call without what it refused, so that no client's text can
//! teach one.

use std::sync::Arc;

use arc_swap::ArcSwap;
use batchin_domain::{CallKind, Makes};
use batchin_openai::{LimitName, UpstreamError, added_alone, stated_limit};
use tracing::warn;

use crate::{
    adapters::Kind,
    body::Manner,
    call::Call,
    config::UpstreamConfig,
    failure::{CallError, CallErrorKind},
};

/// Lessons of one server. Each is about one model and call, so that a server with more refused models than this is asked
/// twice for each call to the rest of them.
const MAX_LESSONS: usize = 256;

/// Most times that one call is sent to one server: each member that may be left out can be refused once, a limit under both names.
const MAX_TRIES: u32 = 6;

/// What a server's refusals have taught, by call and model.
#[derive(Default)]
pub(crate) struct Lessons {
    /// Empty for nearly all servers; read with each call.
    learnt: ArcSwap<Vec<Lesson>>,
}

#[derive(Clone)]
struct Lesson {
    kind: CallKind,
    model: String,
    manner: Manner,
}

impl Lessons {
    /// How this call is sent at first.
    pub(crate) fn tries(&self, call: &Call<'_>, config: &UpstreamConfig) -> Tries {
        let learnt = self.learnt.load();
        let known = learnt.iter().find(|lesson| lesson.is_of(call));
        let manner = known.map_or_else(|| Manner::configured(call.kind, config), |lesson| lesson.manner);
        Tries { manner, refused: Refused::default(), kind: config.kind, sent: 1 }
    }

    /// Notes what an answered call has taught.
    pub(crate) fn note(&self, call: &Call<'_>, tries: &Tries, upstream: &str) {
        if tries.sent == 1 {
            return;
        }
        let lesson = Lesson { kind: call.kind, model: call.model().to_owned(), manner: tries.manner };
        let mut is_new = false;
        self.learnt.rcu(|learnt| {
            let known = learnt.iter().find(|known| known.is_of(call));
            is_new = known.is_none_or(|known| known.manner != lesson.manner)
                && (known.is_some() || learnt.len() < MAX_LESSONS);
            if !is_new {
                return Arc::clone(learnt);
            }
            let others = learnt.iter().filter(|known| !known.is_of(call)).cloned();
            Arc::new(others.chain([lesson.clone()]).collect())
        });
        if is_new {
            let model = call.model();
            let refused = tries.refused.names();
            let limit = tries.manner.limit.member().unwrap_or("no limit");
            warn!(
                upstream,
                model,
                refused,
                limit,
                "upstream {upstream} refuses `{refused}` for {model}, which is left out from now on"
            );
        }
    }
}

impl Lesson {
    fn is_of(&self, call: &Call<'_>) -> bool {
        self.kind == call.kind && self.model == call.model()
    }
}

/// One call to one server, which may be sent again without what it refuses.
pub(crate) struct Tries {
    /// How it is sent now.
    pub(crate) manner: Manner,
    refused: Refused,
    kind: Kind,
    sent: u32,
}

#[derive(Clone, Copy, Default)]
struct Refused {
    max_tokens: bool,
    max_completion_tokens: bool,
    stream_options: bool,
    priority: bool,
    suffix: bool,
    encoding_format: bool,
    response_format: bool,
    output_format: bool,
}

impl Refused {
    fn names(self) -> String {
        let all = [
            ("max_tokens", self.max_tokens),
            ("max_completion_tokens", self.max_completion_tokens),
            ("stream_options", self.stream_options),
            ("priority", self.priority),
            ("suffix", self.suffix),
            ("encoding_format", self.encoding_format),
            ("response_format", self.response_format),
            ("output_format", self.output_format),
        ];
        let refused: Vec<_> = all.into_iter().filter(|(_, refused)| *refused).map(|(name, _)| name).collect();
        refused.join(", ")
    }
}

impl Tries {
    /// Whether the call is worth sending again to a server that refused it so; then it is sent otherwise.
    ///
    /// Only what the server sees as we wrote it counts. For a limit, whose number may be the client's, the refusal must say
    /// that the name is unknown: a server that refuses a number might ignore the other name, and then knows no limit.
    pub(crate) fn again(&mut self, call: &Call<'_>, error: &CallError) -> bool {
        let (CallErrorKind::Status(400 | 422), Some(said)) = (error.kind, &error.client_error) else { return false };
        self.leaves_out(call, said)
    }

    /// The same of a refusal that came with a good status, as a body or as a stream's first event.
    pub(crate) fn again_after(&mut self, call: &Call<'_>, said: &UpstreamError) -> bool {
        said.blames_request() && self.leaves_out(call, said)
    }

    fn leaves_out(&mut self, call: &Call<'_>, said: &UpstreamError) -> bool {
        if self.sent == MAX_TRIES || !(self.drops_limit(call, said) || self.drops_ours(call, said)) {
            return false;
        }
        self.sent += 1;
        true
    }

    fn drops_limit(&mut self, call: &Call<'_>, said: &UpstreamError) -> bool {
        let Some(name) = self.manner.limit.member().filter(|name| said.names(name)) else { return false };
        let is_told = call.kind.generates() && (call.most(self.kind).is_some() || stated_limit(&call.body).is_some());
        // A protocol has one name for it.
        if !is_told || call.native.is_some() || !said.is_of_unknown_member() {
            return false;
        }
        match self.manner.limit {
            LimitName::MaxTokens => self.refused.max_tokens = true,
            LimitName::MaxCompletionTokens => self.refused.max_completion_tokens = true,
            LimitName::MaxOutputTokens | LimitName::None => {}
        }
        let other = if name == "max_tokens" { LimitName::MaxCompletionTokens } else { LimitName::MaxTokens };
        let is_over = self.refused.max_tokens && self.refused.max_completion_tokens;
        self.manner.limit = if is_over || call.kind == CallKind::Completions { LimitName::None } else { other };
        true
    }

    fn drops_ours(&mut self, call: &Call<'_>, said: &UpstreamError) -> bool {
        let ours = |is_sent: bool, name: &str| is_sent && said.names(name) && added_alone(&call.body, name);
        if ours(self.manner.stream_options && call.stream, "stream_options") {
            (self.manner.stream_options, self.refused.stream_options) = (false, true);
        } else if self.manner.priority && call.class_priority.is_some() && said.names("priority") {
            (self.manner.priority, self.refused.priority) = (false, true);
        } else if ours(self.manner.defaults && call.kind == CallKind::Completions, "suffix") {
            (self.manner.defaults, self.refused.suffix) = (false, true);
        } else if self.manner.encoding_format
            && call.kind == CallKind::Embeddings
            && said.names("encoding_format")
            && !added_alone(&call.body, "encoding_format")
        {
            // It is the client's own, but what comes without it is turned into what it asks for.
            (self.manner.encoding_format, self.refused.encoding_format) = (false, true);
        } else if self.manner.response_format && call.kind.makes() == Makes::Pictures && said.names("response_format") {
            (self.manner.response_format, self.refused.response_format) = (false, true);
        } else if self.manner.output_format
            && call.kind.makes() == Makes::Pictures
            && (said.names("output_format") || said.names("output_compression"))
        {
            // Pictures are made into the format here too.
            (self.manner.output_format, self.refused.output_format) = (false, true);
        } else {
            return false;
        }
        true
    }
}
