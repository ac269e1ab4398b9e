//! Holds: what a request asks for, checked against the model, and the most that it can cost.

use std::{sync::Arc, time::Duration};

use batchin_domain::{BatchId, Class, Price, RequestId, TaskId, Units};
use batchin_openai::{Endpoint, Peek, peek};
use bytes::Bytes;

use crate::{Availability, Capability, Catalog, IdempotencyKey, Model, RequestError, reserve::Ceiling};

/// Tokens that a chat template may add around one message.
const TEMPLATE_TOKENS_PER_MESSAGE: u64 = 16;
/// Tokens that a template may add around a conversation: a default system prompt, the opening of the answer.
const TEMPLATE_TOKENS: u64 = 64;
/// What templates say about how to use tools, beside the tools themselves.
const TOOL_TEMPLATE_TOKENS: u64 = 1_024;

/// An operator has taken the model out of service; a client that asks every minute learns soon enough that it is back.
const OFFLINE_RETRY: Duration = Duration::from_secs(60);

/// A request as it came in.
#[derive(Clone)]
pub struct Inbound {
    /// The kind of call.
    pub endpoint: Endpoint,
    /// The client's bytes, untouched.
    pub body: Bytes,
    /// Names the request, its usage row and its charges.
    pub request: RequestId,
    /// How urgent it is, and the price that follows.
    pub class: Class,
    /// The batch task that it runs for; its answer is never streamed.
    pub task: Option<(BatchId, TaskId)>,
    /// The client's own name for it.
    pub idempotency: Option<IdempotencyKey>,
}

/// A request that the model can serve.
pub struct Admitted {
    /// What the body asks for.
    pub peek: Peek,
    /// The model.
    pub model: Arc<Model>,
    /// In the request's class.
    pub price: Price,
    /// The most that it can cost.
    pub ceiling: Ceiling,
    /// What the upstream is told where the client states no limit, or a larger one.
    pub max_tokens: Option<u32>,
}

/// Bytes of English text that make a token, roughly.
const BYTES_PER_TOKEN: u64 = 4;
/// Completion tokens of an answer, roughly, where the body allows as many.
const USUAL_OUTPUT: u64 = 256;

impl Admitted {
    /// What the request will consume, roughly: a token for four bytes of prompt, and answers as long as usual or as the
    /// body allows. For estimates; nothing is ever charged by it.
    pub fn expected(&self, endpoint: Endpoint) -> Units {
        let bound = &self.peek.bound;
        let input =
            (bound.text_bytes / BYTES_PER_TOKEN).saturating_add(bound.token_ids).clamp(1, self.ceiling.input.max(1));
        let most = self.peek.max_output.map_or(USUAL_OUTPUT, u64::from).min(USUAL_OUTPUT);
        let output = if endpoint.generates() { most.saturating_mul(self.ceiling.choices) } else { 0 };
        Units { input, output, cached: 0 }
    }
}

/// Checks a request against the catalogue.
pub fn admit(catalog: &Catalog, inbound: &Inbound) -> Result<Admitted, RequestError> {
    let peek = peek(inbound.endpoint, &inbound.body).map_err(RequestError::Invalid)?;
    let Some(model) = catalog.find(&peek.model) else {
        return Err(RequestError::ModelNotFound { model: peek.model });
    };
    if model.availability == Availability::Offline {
        return Err(RequestError::NoUpstream { retry_after: OFFLINE_RETRY });
    }
    let needs = Capability::of(inbound.endpoint);
    if !model.capabilities.contains(&needs) {
        return Err(RequestError::NotCapable { model: model.id.clone(), needs });
    }
    let context = u64::from(model.context_length);
    let input = input_bound(&peek, context);
    let choices = u64::from(peek.choices.max(1));
    let (output, max_tokens) = output_bound(&peek, model, inbound.endpoint, input)?;
    let price = model.prices.in_class(inbound.class);
    let units = Units { input, output: output.saturating_mul(choices), cached: 0 };
    let ceiling = Ceiling { cost: price.cost(units), price, input, choices };
    Ok(Admitted { model: Arc::clone(model), price, ceiling, max_tokens, peek })
}

/// The most prompt tokens: a token is at least one byte of text, and no prompt is longer than the context.
fn input_bound(peek: &Peek, context: u64) -> u64 {
    let bound = &peek.bound;
    let items = u64::from(bound.items.max(1));
    // Each input of a list has the context for itself.
    let most = context.saturating_mul(items);
    if bound.has_media {
        return most;
    }
    let template = TEMPLATE_TOKENS
        .saturating_mul(items)
        .saturating_add(u64::from(bound.messages).saturating_mul(TEMPLATE_TOKENS_PER_MESSAGE))
        .saturating_add(if bound.has_tools { TOOL_TEMPLATE_TOKENS } else { 0 });
    bound.text_bytes.saturating_add(bound.token_ids).saturating_add(template).min(most)
}

/// The most completion tokens of one choice, and the limit to send along where the client states none.
fn output_bound(
    peek: &Peek,
    model: &Model,
    endpoint: Endpoint,
    input: u64,
) -> Result<(u64, Option<u32>), RequestError> {
    if !endpoint.generates() {
        return Ok((0, None));
    }
    let context = u64::from(model.context_length);
    let limit = model.max_output_tokens.map_or(context, |limit| u64::from(limit).min(context));
    match peek.max_output.filter(|_| peek.max_output_stated) {
        Some(asked) if u64::from(asked) > limit => {
            Err(RequestError::OverModelLimit { param: peek.max_output_name, asked: u64::from(asked), limit })
        }
        Some(asked) => Ok((u64::from(asked), None)),
        None => {
            let default = peek.max_output.map_or(limit, |tokens| u64::from(tokens).min(limit));
            // Some servers refuse a limit that does not fit behind the prompt; then the context is the limit.
            let fits = input.saturating_add(default) <= context;
            match u32::try_from(default) {
                Ok(tokens) if fits && default < context => Ok((default, Some(tokens))),
                _ => Ok((context, None)),
            }
        }
    }
}
