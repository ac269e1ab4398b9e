//! Holds: chat and text completion: a request becomes sequences, and their events become the answer.

use batchin_domain::Class;
use http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use llama_cpp_2::token::LlamaToken;
use tokio::sync::mpsc;

use super::{
    AnswerBody, Role, ServedModel, Service,
    answer::{self, Frame, Shape},
    body::{self, GenerateBody, Prompt},
    cancel::CancelOnDrop,
    error::ApiError,
    messages, sampling, stream,
    tools::{self, ToolUse},
};
use crate::{
    generate::{Event, Queue, Sampler, Sequence, Sink, TextOut},
    text::chat_template::{ChatTemplate, Conversation, RenderError},
};

/// Answers to one prompt.
const MAX_N: usize = 8;

/// Answers to all prompts of a request; each needs a slot.
const MAX_CHOICES: usize = 64;

/// As in OpenAI's API, where completions are short unless asked for more.
const COMPLETION_TOKENS: usize = 16;

/// Prompts above this are tokenised off the thread that serves connections.
const LONG_PROMPT_BYTES: usize = 64 * 1024;

/// A body's bytes are never shorter than its tokens in any known vocabulary by more than this; longer prompts are
/// refused without being tokenised.
const MAX_BYTES_PER_TOKEN: usize = 128;

/// A request that has become work.
struct Plan {
    prompts: Vec<Vec<LlamaToken>>,
    max_new: usize,
    /// The grammar, and the field that asked for it.
    grammar: Option<(&'static str, String)>,
    frame: Frame,
}

pub(super) async fn chat(service: &Service, request: Request<Incoming>) -> Result<Response<AnswerBody>, ApiError> {
    let (parts, incoming) = request.into_parts();
    let mut body: GenerateBody = body::parse(&body::read(incoming).await?)?;
    let (served, queue, template) = generator(service, &body)?;
    let class = class(&parts.headers)?;
    let template =
        template.ok_or_else(|| ApiError::invalid("model", "This model has no chat template; use /v1/completions."))?;
    let messages = body.messages.take().ok_or_else(|| ApiError::invalid("messages", "`messages` is required."))?;
    let messages = messages::normalise(messages)?;
    let tools = tools::tool_use(&mut body, template)?;
    let conversation =
        Conversation { messages: &messages, tools: tools.listed(), arguments: body.chat_template_kwargs.as_ref() };
    let text = template.render(&conversation).map_err(|error| match error {
        RenderError::Refused { reason } => {
            ApiError::invalid("messages", format!("The chat template refuses: {reason}"))
        }
        RenderError::Failed(_) => ApiError::invalid("messages", error.to_string()),
    })?;
    let begins = !template.bos_token().is_empty() && text.starts_with(template.bos_token());
    let prompt = tokenise(served, ("messages", text), !begins, true).await?;
    let grammar = match &tools {
        ToolUse::Forced(_, grammar) => Some(("tools", grammar.clone())),
        ToolUse::Off | ToolUse::Free(_) => {
            sampling::response_grammar(body.response_format.as_ref())?.map(|grammar| ("response_format", grammar))
        }
    };
    let room = room(served, "messages", &prompt)?;
    let max_new = body.max_completion_tokens.or(body.max_tokens).map_or(room, |max| (max as usize).min(room));
    let frame = Frame::new(
        Shape::Chat { tools: tools.listed().is_some() },
        &served.id,
        wants_usage(&body),
        body.n.unwrap_or(1).max(1),
    );
    respond(service, (served, queue), class, body, Plan { prompts: vec![prompt], max_new, grammar, frame }).await
}

pub(super) async fn completion(
    service: &Service,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, ApiError> {
    let (parts, incoming) = request.into_parts();
    let mut body: GenerateBody = body::parse(&body::read(incoming).await?)?;
    let (served, queue, _) = generator(service, &body)?;
    let class = class(&parts.headers)?;
    if body.echo == Some(true) {
        return Err(ApiError::invalid("echo", "`echo` is not supported."));
    }
    if body.best_of.is_some_and(|best_of| best_of > 1) {
        return Err(ApiError::invalid("best_of", "`best_of` is not supported beyond 1."));
    }
    let prompt = body.prompt.take().ok_or_else(|| ApiError::invalid("prompt", "`prompt` is required."))?;
    let prompts = match body.suffix.take() {
        Some(suffix) => vec![fill_in_the_middle(served, prompt, suffix).await?],
        None => plain_prompts(served, prompt).await?,
    };
    let mut room = usize::MAX;
    for prompt in &prompts {
        room = room.min(self::room(served, "prompt", prompt)?);
    }
    let grammar = sampling::response_grammar(body.response_format.as_ref())?.map(|g| ("response_format", g));
    let max_new =
        body.max_tokens.or(body.max_completion_tokens).map_or(COMPLETION_TOKENS, |max| max as usize).min(room);
    let frame = Frame::new(Shape::Completion, &served.id, wants_usage(&body), body.n.unwrap_or(1).max(1));
    respond(service, (served, queue), class, body, Plan { prompts, max_new, grammar, frame }).await
}

fn generator<'a>(
    service: &'a Service,
    body: &GenerateBody,
) -> Result<(&'a ServedModel, &'a Queue, Option<&'a ChatTemplate>), ApiError> {
    let served = service.find(body.model.as_deref(), |role| matches!(role, Role::Generate { .. }))?;
    match &served.role {
        Role::Generate { queue, template, .. } => Ok((served, queue, template.as_deref())),
        Role::Embed { .. } => Err(ApiError::internal()),
    }
}

/// The class from the header: a body is the client's, and clients do not choose theirs.
fn class(headers: &http::HeaderMap) -> Result<Class, ApiError> {
    const NAME: &str = "x-batchin-class";
    let named = headers.get(NAME).map(|value| value.to_str().unwrap_or_default());
    named.map_or(Ok(Class::Interactive), |name| {
        Class::from_name(name).ok_or_else(|| ApiError::invalid(NAME, "The class is interactive, high, low or fill."))
    })
}

fn wants_usage(body: &GenerateBody) -> bool {
    body.stream_options.as_ref().and_then(|options| options.include_usage).unwrap_or(false)
}

/// Tokens that an answer to this prompt may have.
fn room(served: &ServedModel, param: &str, prompt: &[LlamaToken]) -> Result<usize, ApiError> {
    if prompt.is_empty() {
        return Err(ApiError::invalid(param, format!("`{param}` has no tokens.")));
    }
    match served.context_limit.checked_sub(prompt.len()) {
        None | Some(0) => Err(ApiError::context_length(param, prompt.len(), served.context_limit)),
        Some(room) => Ok(room),
    }
}

async fn tokenise(
    served: &ServedModel,
    (param, text): (&str, String),
    add_special: bool,
    parse_special: bool,
) -> Result<Vec<LlamaToken>, ApiError> {
    if text.len() > served.context_limit.saturating_mul(MAX_BYTES_PER_TOKEN) {
        let at_least = text.len() / MAX_BYTES_PER_TOKEN;
        return Err(ApiError::context_length(param, at_least, served.context_limit));
    }
    if text.len() < LONG_PROMPT_BYTES {
        return Ok(served.model.vocab().tokenize(text.as_bytes(), add_special, parse_special));
    }
    let model = served.model.clone();
    let work = move || model.vocab().tokenize(text.as_bytes(), add_special, parse_special);
    tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::internal())
}

async fn plain_prompts(served: &ServedModel, prompt: Prompt) -> Result<Vec<Vec<LlamaToken>>, ApiError> {
    let texts = match prompt {
        Prompt::Text(text) => vec![text],
        Prompt::Texts(texts) => texts,
        Prompt::Tokens(tokens) => return Ok(vec![known_tokens(served, tokens)?]),
        Prompt::TokenLists(lists) => return lists.into_iter().map(|list| known_tokens(served, list)).collect(),
    };
    let mut prompts = Vec::with_capacity(texts.len());
    for text in texts {
        prompts.push(tokenise(served, ("prompt", text), true, true).await?);
    }
    Ok(prompts)
}

fn known_tokens(served: &ServedModel, tokens: Vec<i32>) -> Result<Vec<LlamaToken>, ApiError> {
    let known = 0..served.model.n_vocab();
    if tokens.iter().all(|token| known.contains(token)) {
        Ok(tokens.into_iter().map(LlamaToken).collect())
    } else {
        Err(ApiError::invalid("prompt", "`prompt` has token ids that this model's vocabulary does not have."))
    }
}

/// The vocabulary's own marks around prefix and suffix. What the client sends is never read as a mark.
async fn fill_in_the_middle(served: &ServedModel, prompt: Prompt, suffix: String) -> Result<Vec<LlamaToken>, ApiError> {
    let vocab = served.model.vocab();
    let marks = [vocab.fim_pre(), vocab.fim_suf(), vocab.fim_mid()];
    if marks.iter().any(|mark| mark.0 < 0) {
        return Err(ApiError::invalid("suffix", "This model cannot fill in the middle; leave out `suffix`."));
    }
    let Prompt::Text(prefix) = prompt else {
        return Err(ApiError::invalid("prompt", "With `suffix`, `prompt` must be one string."));
    };
    let [pre, suf, mid] = marks;
    let mut tokens = vec![pre];
    tokens.extend(tokenise(served, ("prompt", prefix), false, false).await?);
    tokens.push(suf);
    tokens.extend(tokenise(served, ("suffix", suffix), false, false).await?);
    tokens.push(mid);
    Ok(tokens)
}

async fn respond(
    service: &Service,
    (served, queue): (&ServedModel, &Queue),
    class: Class,
    body: GenerateBody,
    plan: Plan,
) -> Result<Response<AnswerBody>, ApiError> {
    let n = body.n.unwrap_or(1);
    if !(1..=MAX_N).contains(&n) {
        return Err(ApiError::invalid("n", format!("`n` must be between 1 and {MAX_N}.")));
    }
    let choices = n * plan.prompts.len();
    if choices == 0 || choices > MAX_CHOICES {
        return Err(ApiError::invalid("prompt", format!("A request has between 1 and {MAX_CHOICES} answers.")));
    }
    if plan.max_new == 0 && matches!(plan.frame.shape(), Shape::Chat { .. }) {
        return Err(ApiError::invalid("max_tokens", "`max_tokens` must be at least 1."));
    }
    let params = sampling::params(&body, served.model.n_vocab())?;
    let stops = sampling::stops(&body)?;
    let streams = body.stream == Some(true);
    let counts = body.stream_options.as_ref().and_then(|options| options.continuous_usage_stats) == Some(true);
    let frame = if counts { plan.frame.counting(plan.prompts.iter().map(Vec::len).sum()) } else { plan.frame };
    // Every token makes at most one event, and every choice one more for its end.
    let (events, inbox) = mpsc::channel(choices * (plan.max_new + 1));
    let guard = CancelOnDrop::default();
    let mut sequences = Vec::with_capacity(choices);
    let prompts = plan.prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt, n));
    for (choice, prompt) in prompts.enumerate() {
        let sink = Sink { choice, events: events.clone(), streams };
        if plan.max_new == 0 {
            sink.end_unbegun(prompt.len());
            continue;
        }
        let grammar =
            plan.grammar.as_ref().map(|(param, text)| sampling::compile(param, &served.model, text)).transpose()?;
        let seed = params.seed.wrapping_add(choice as u64);
        sequences.push(Sequence {
            id: service.next_sequence_id(),
            class,
            prompt_len: prompt.len(),
            tokens: prompt.clone(),
            max_new: plan.max_new,
            ignore_eos: body.ignore_eos == Some(true),
            sampler: Sampler::new(crate::generate::SamplingParams { seed, ..params.clone() }, grammar),
            text: TextOut::new(stops.clone()),
            sink,
            cancelled: guard.cancelled.clone(),
            cached: None,
        });
    }
    drop(events);
    // Asked for no tokens, the prompts are counted and that is all.
    if !sequences.is_empty() {
        queue.push(sequences).map_err(|_| ApiError::unavailable("Too many requests wait for this model."))?;
    }
    if streams {
        return Ok(event_stream(stream::Answer::new(guard, inbox, frame, choices)));
    }
    let whole = collect(guard, inbox, frame, choices).await?;
    let mut response = Response::new(super::full(whole));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn event_stream(answer: stream::Answer) -> Response<AnswerBody> {
    let mut response = Response::new(answer.boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Waits for all choices. The guard gives them up when the connection closes meanwhile.
async fn collect(
    _guard: CancelOnDrop,
    mut inbox: mpsc::Receiver<Event>,
    frame: Frame,
    choices: usize,
) -> Result<String, ApiError> {
    let mut done = Vec::with_capacity(choices);
    while done.len() < choices {
        match inbox.recv().await {
            Some(Event::Done { choice, text, logprobs, finish, usage }) => {
                done.push(answer::Done { choice, text, logprobs, finish, usage });
            }
            Some(Event::Delta { .. }) => {}
            Some(Event::Failed) => return Err(ApiError::internal()),
            None => return Err(ApiError::unavailable("The engine is stopping.")),
        }
    }
    done.sort_unstable_by_key(|done| done.choice);
    Ok(frame.whole(done).to_string())
}
