//! Holds: what a request asks for, checked against the model, and the most that it can cost.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use batchin_domain::{
    AccountId, BatchId, CallKind, Capability, Class, Counts, Makes, Measure, RequestId, Tariff, TaskId,
};
use batchin_openai::{
    InvalidRequest, Peek, Pictures, SoundFormat, Tier, USUAL_EDIT_PIXELS, Wanted, peek, tokens_as_texts,
};
use batchin_store::VoiceSound;
use batchin_upstream::{Speech, Upload, Voice};
use bytes::Bytes;

use crate::{
    Availability, Catalog, IdempotencyKey, Model, OverLimit, Shown, Sound, TokenInput, Work,
    reserve::Ceiling,
    retell::{Asked, Beside, asked, asked_natively},
};

/// Tokens that a chat template may add around one message.
const TEMPLATE_TOKENS_PER_MESSAGE: u64 = 16;
/// Tokens that a template may add around a conversation: a default system prompt, the opening of the answer; and around a
/// gap, by its marks.
const TEMPLATE_TOKENS: u64 = 64;
/// What templates say about how to use tools, beside the tools themselves.
const TOOL_TEMPLATE_TOKENS: u64 = 1_024;

/// An operator has taken the model out of service; a client that asks every minute learns soon enough that it is back.
const OFFLINE_RETRY: Duration = Duration::from_secs(60);

/// A request as it came in.
#[derive(Clone)]
pub struct Inbound {
    /// The kind of call.
    pub call: CallKind,
    /// The client's bytes, untouched. Kept as long as the request, also where another body is sent: they carry its share of
    /// the memory for bodies.
    pub body: Bytes,
    /// Names the request, its usage row and its charges.
    pub request: RequestId,
    /// How urgent it is where it says nothing of it itself, and the price that follows.
    pub class: Class,
    /// The batch task that it runs for; its answer is never streamed.
    pub task: Option<(BatchId, TaskId)>,
    /// What it is to hear, where that came beside its body.
    pub sound: Option<Sound>,
    /// What it is to change, where that came beside its body.
    pub shown: Option<Shown>,
    /// Whether pictures are told both by their addresses and as they are, where its body does not say how.
    pub pictures_in_both: bool,
    /// The client's own name for it.
    pub idempotency: Option<IdempotencyKey>,
}

/// Why no model can serve a request.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// The body is not what the call takes.
    #[error("the request is invalid")]
    Invalid(InvalidRequest),
    /// No model of that name is served.
    #[error("the model is not served here")]
    ModelNotFound {
        /// The name asked for.
        model: String,
    },
    /// An operator has taken the model out of service.
    #[error("the model is offline")]
    Offline {
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// The model cannot do this.
    #[error("the model cannot do this")]
    NotCapable {
        /// The model's id.
        model: String,
        /// What it would need.
        needs: Capability,
    },
    /// The prompt, or prompt and output together, are over the model's limits.
    #[error("the request is over the model's limits")]
    OverModelLimit {
        /// The field at fault.
        param: &'static str,
        /// What it asks for.
        asked: u64,
        /// What the model has.
        limit: u64,
    },
}

/// A request that the model can serve.
pub struct Admitted {
    /// What the body asks for.
    pub peek: Peek,
    /// The model.
    pub model: Arc<Model>,
    /// How urgent it is.
    pub class: Class,
    /// In that class.
    pub tariff: Tariff,
    /// The most that it can cost.
    pub ceiling: Ceiling,
    /// Its prompt's tokens, where no model server counts them.
    pub prompt_guess: u64,
    /// How a text is to be spoken.
    pub(crate) speech: Option<Speech>,
    /// Sent to the upstream where the client states no limit, or a larger one.
    pub max_tokens: Option<u32>,
    /// What it is to hear.
    pub(crate) sound: Option<Sound>,
    /// What it is to change.
    pub(crate) shown: Option<Shown>,
    /// What model servers are asked.
    pub(crate) asked: Asked,
}

/// Bytes by which prompts are told to begin alike: some hundred tokens, below which a server reads a prompt faster than it
/// is worth to look for.
const LONG_PROMPT: usize = 2_048;

/// Completion tokens of an answer, roughly, where the body allows as many.
const USUAL_OUTPUT: u64 = 256;

impl Admitted {
    /// What the request is to the scheduler.
    pub(crate) fn work(&self, inbound: &Inbound, account: AccountId) -> Work {
        Work {
            class: self.class,
            prompt_bound: self.ceiling.most.of(Measure::PromptTokens),
            expected: self.expected(inbound.call).tokens(),
            beginning: self.beginning(),
            task: inbound.task.map(|(_, task)| task),
            unseen: false,
            account,
        }
    }

    /// How the prompt begins, where it may matter which of the model's servers has read that before.
    pub(crate) fn beginning(&self) -> Option<u64> {
        if self.model.upstreams.len() < 2 || self.peek.prompt.len() < LONG_PROMPT {
            return None;
        }
        let prompt = self.asked.body.get(self.peek.prompt.clone())?;
        let mut hasher = DefaultHasher::new();
        (&self.model.id, prompt.get(..LONG_PROMPT)?).hash(&mut hasher);
        Some(hasher.finish())
    }

    /// The files that go along.
    pub(crate) fn uploads(&self) -> Vec<Arc<Upload>> {
        let shown = self.shown.iter().flat_map(|shown| &shown.uploads);
        self.sound.iter().map(|sound| &sound.upload).chain(shown).cloned().collect()
    }

    /// The tier that the answer names: where a client who waits asked for one.
    pub(crate) fn tier(&self, inbound: &Inbound) -> Option<Tier> {
        self.peek.tier.filter(|_| inbound.task.is_none())
    }

    /// How many choices the client gets, over all prompts.
    pub fn given(&self) -> u32 {
        self.peek.given.max(1).saturating_mul(self.peek.bound.items.max(1))
    }

    /// The most tokens of one answer: what is held for, and no more than the model gives.
    pub(crate) fn most_of_each(&self) -> Option<u32> {
        let held = self.ceiling.most.of(Measure::CompletionTokens) / self.ceiling.answers.max(1);
        let given = self.model.max_output_tokens.map_or(held, |limit| held.min(u64::from(limit)));
        u32::try_from(given).ok()
    }

    /// What the request will consume, roughly: the prompt as it is counted where no server counts it, and answers as long
    /// as usual or as the body allows. For estimates; nothing is ever charged by it.
    pub fn expected(&self, call: CallKind) -> Counts {
        let input = self.prompt_guess.clamp(1, self.ceiling.most.of(Measure::PromptTokens).max(1));
        let most = self.peek.max_output.map_or(USUAL_OUTPUT, u64::from).min(USUAL_OUTPUT);
        let output = if call.generates() { most.saturating_mul(self.ceiling.answers) } else { 0 };
        if reads_tokens(call) {
            Counts::of_tokens(input, output).plus(self.peek.bound.made)
        } else {
            self.peek.bound.made
        }
    }
}

/// Whether tokens are counted of it.
const fn reads_tokens(call: CallKind) -> bool {
    match call.makes() {
        Makes::Text | Makes::Values => true,
        Makes::Sound | Makes::Transcript | Makes::Pictures | Makes::Film => false,
    }
}

/// Checks a request against the catalogue. Where its model is out of service, its fallback takes it.
pub fn admit(catalog: &Catalog, inbound: &Inbound) -> Result<Admitted, AdmitError> {
    let read = read(inbound)?;
    let Some(mut model) = catalog.find(&read.1.model) else {
        return Err(AdmitError::ModelNotFound { model: read.1.model });
    };
    if model.availability == Availability::Offline {
        model = catalog.fallback_of(model).ok_or(AdmitError::Offline { retry_after: OFFLINE_RETRY })?;
    }
    checked(model, inbound, read)
}

/// Checks a request against another model than the one that it names.
pub(crate) fn admit_on(model: &Arc<Model>, inbound: &Inbound) -> Result<Admitted, AdmitError> {
    checked(model, inbound, read(inbound)?)
}

/// Checks a request against the model that stands in for its own, whose servers are away. What only that one cannot do waits
/// for them.
pub(crate) fn admit_instead(catalog: &Catalog, model: &Arc<Model>, inbound: &Inbound) -> Result<Admitted, AdmitError> {
    admit(catalog, inbound)?;
    admit_on(model, inbound).map_err(|_| AdmitError::Offline { retry_after: OFFLINE_RETRY })
}

/// What model servers are asked, what that says, and what is to be heard or changed.
type Read = (Asked, Peek, (Option<Sound>, Option<Shown>));

fn read(inbound: &Inbound) -> Result<Read, AdmitError> {
    let sound = sound_of(inbound).map_err(AdmitError::Invalid)?;
    let beside =
        Beside { sound_ms: sound.as_ref().map_or(0, |sound| sound.ms), is_kept: inbound.class != Class::Interactive };
    let asked = asked(inbound.call, &inbound.body, beside).map_err(AdmitError::Invalid)?;
    let mut peek = peek(inbound.call.asks(), &asked.body).map_err(|fault| AdmitError::Invalid(asked.renamed(fault)))?;
    if let Some(sound) = &sound {
        peek.bound.made = peek.bound.made.with(Measure::AudioMs, sound.ms);
    }
    let shown = shown_in(inbound).map_err(AdmitError::Invalid)?;
    if let (Some(shown), Wanted::Pictures(Pictures { most, size: None, .. })) = (&shown, peek.wanted) {
        let pixels = shown.pixels.max(USUAL_EDIT_PIXELS).saturating_mul(most.into());
        peek.bound.made = peek.bound.made.with(Measure::Pixels, pixels);
    }
    Ok((asked, peek, (sound, shown)))
}

fn checked(model: &Arc<Model>, inbound: &Inbound, (asked, peek, (sound, shown)): Read) -> Result<Admitted, AdmitError> {
    let Some(call) = inbound.call.asked_of(&model.capabilities) else {
        return Err(AdmitError::NotCapable { model: model.id.clone(), needs: inbound.call.needs() });
    };
    let (asked, peek) = in_texts((asked, peek), inbound.call, model.token_input).map_err(AdmitError::Invalid)?;
    let prompt_guess = if reads_tokens(inbound.call) { prompt_guess(&peek, &asked.body) } else { 0 };
    let (asked, peek) = if call == asked.call { (asked, peek) } else { in_its_own_protocol((asked, peek), inbound) };
    let context = u64::from(model.context_length);
    let input = if reads_tokens(inbound.call) { input_bound(&peek, context) } else { 0 };
    // Each prompt of a list is answered so many times.
    let answers = u64::from(peek.choices.max(1)).saturating_mul(u64::from(peek.bound.items.max(1)));
    let limited = output_limit(&peek, model, inbound.call, input);
    let Limit { most, max_tokens } = limited.map_err(|(over, limit)| AdmitError::OverModelLimit {
        param: asked.member(peek.max_output_name),
        asked: over,
        limit,
    })?;
    let class = class_of(inbound, &peek, model);
    let tariff = model.prices.in_class(class);
    let most = Counts::of_tokens(input, most.saturating_mul(answers)).plus(peek.bound.made);
    let ceiling = Ceiling { cost: tariff.highest_cost(most), tariff, most, answers };
    let speech = speech(&peek, model, tariff);
    let model = Arc::clone(model);
    Ok(Admitted { speech, sound, shown, model, class, tariff, ceiling, prompt_guess, max_tokens, peek, asked })
}

/// Who speaks, by the name that the model's servers know, and in what. A name that is none of the model's may be one that the
/// account has made.
fn speech(peek: &Peek, model: &Model, tariff: Tariff) -> Option<Speech> {
    let Wanted::Sound(spoken) = peek.wanted else { return None };
    let own = |name: &String| model.voices.iter().find(|(known, _)| known == name).map(|(_, own)| own);
    let voice = match (&peek.voice, model.voices.first()) {
        (None, None) => Voice::Unsaid,
        (None, Some((_, first))) => Voice::Named(first.clone()),
        (Some(name), _) => Voice::Named(own(name).unwrap_or(name).clone()),
    };
    // What is counted by the second must be heard here.
    let format = if tariff.charges_for(Measure::AudioMs) { SoundFormat::Wav } else { spoken.format };
    Some(Speech { voice, format })
}

impl Admitted {
    /// The voice that is asked for and is none of the model's, so that it may be one of the account's.
    pub(crate) fn own_voice(&self) -> Option<&str> {
        let name = self.peek.voice.as_ref()?;
        let is_known = self.model.voices.iter().any(|(known, _)| known == name);
        (!is_known).then_some(name.as_str())
    }

    /// The same with the voice of what it takes the place of, where the account has made that.
    pub(crate) fn speaking_as(mut self, first: &Self) -> Self {
        let made = first.speech.as_ref().filter(|speech| matches!(speech.voice, Voice::Like { .. }));
        if let (Some(speech), Some(made)) = (&mut self.speech, made) {
            speech.voice = made.voice.clone();
        }
        self
    }

    /// The account has made it.
    pub(crate) fn speak_like(&mut self, made: VoiceSound) {
        if let Some(speech) = &mut self.speech {
            let VoiceSound { sound, content_type, words } = made;
            speech.voice = Voice::Like { sound: sound.into(), content_type, words };
        }
    }

    /// What is said of a voice that nobody knows. Where the model's are not listed, its servers may.
    pub(crate) fn no_such_voice(&self) -> Result<(), AdmitError> {
        if self.model.voices.is_empty() {
            return Ok(());
        }
        let known: Vec<_> = self.model.voices.iter().map(|(known, _)| known.as_str()).collect();
        let message = format!("`voice` must be one of {} for this model, or one of yours", known.join(", "));
        Err(AdmitError::Invalid(InvalidRequest::at("voice", message)))
    }
}

/// A client that waits may ask for a slower tier. A batch's tasks have the class of their batch.
fn class_of(inbound: &Inbound, peek: &Peek, model: &Model) -> Class {
    match (peek.tier, inbound.task) {
        (Some(Tier::Flex), None) => model.flex_class,
        _ => inbound.class,
    }
}

/// What a request is to hear: read before, or in its body.
fn sound_of(inbound: &Inbound) -> Result<Option<Sound>, InvalidRequest> {
    match &inbound.sound {
        _ if !inbound.call.hears() => Ok(None),
        Some(sound) => Ok(Some(sound.clone())),
        None => Sound::of_body(&inbound.body).map(Some),
    }
}

/// What a request is to change: looked at before, or in its body.
fn shown_in(inbound: &Inbound) -> Result<Option<Shown>, InvalidRequest> {
    match &inbound.shown {
        _ if !inbound.call.shows() => Ok(None),
        Some(shown) => Ok(Some(shown.clone())),
        None => Shown::of_body(&inbound.body).map(Some),
    }
}

impl Inbound {
    /// Whether it brings files.
    pub(crate) const fn brings(&self) -> bool {
        self.call.hears() || self.call.shows()
    }

    /// The same with the files that its body has in it read, which takes a while.
    pub(crate) async fn opened(mut self) -> Result<Self, AdmitError> {
        if self.call.hears() && self.sound.is_none() {
            self.sound = Some(Sound::in_body(self.body.clone()).await.map_err(AdmitError::Invalid)?);
        }
        if self.call.shows() && self.shown.is_none() {
            self.shown = Some(Shown::in_body(self.body.clone()).await.map_err(AdmitError::Invalid)?);
        }
        Ok(self)
    }
}

/// Token ids as the input of embeddings, as the model's settings have them. As texts they are held for and counted as texts.
fn in_texts(
    (mut asked, as_ids): (Asked, Peek),
    call: CallKind,
    token_input: TokenInput,
) -> Result<(Asked, Peek), InvalidRequest> {
    if call != CallKind::Embeddings || as_ids.bound.token_ids == 0 {
        return Ok((asked, as_ids));
    }
    match token_input {
        TokenInput::Pass => Ok((asked, as_ids)),
        TokenInput::Cl100k => {
            asked.body = tokens_as_texts(&asked.body)?;
            let as_texts = peek(call, &asked.body)?;
            Ok((asked, as_texts))
        }
        TokenInput::Refuse => {
            let message = "`input` has token ids, which mean something else to this model than to OpenAI's; send texts (in \
                           LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))";
            Err(InvalidRequest::at("input", message))
        }
    }
}

/// The request as it came, for servers that have its protocol. What it may cost follows from its own body, of which its
/// servers may read more than is asked as a chat.
fn in_its_own_protocol((asked, mut peek): (Asked, Peek), inbound: &Inbound) -> (Asked, Peek) {
    let Some(own) = asked_natively(inbound.call, &inbound.body) else { return (asked, peek) };
    peek.bound.text_bytes = peek.bound.text_bytes.max(inbound.body.len() as u64);
    // One for what stands before the conversation.
    peek.bound.messages = peek.bound.messages.max(own.items.saturating_add(1));
    peek.prompt = own.prompt;
    (Asked { call: inbound.call, body: own.body, native: Some(own.native), ..asked }, peek)
}

/// Bytes of text in one token where nobody has counted: the usual figure for English, and for most other languages within
/// a third of it.
const BYTES_PER_TOKEN: u64 = 4;
/// Tokens that an image, a sound or another part without text is counted as: what a picture of usual size takes in most
/// models.
const MEDIA_TOKENS: u64 = 1_000;
/// A text that begins with so many bytes as base64 has, without a blank, is an image or a sound.
const MEDIA_BYTES: usize = 512;

/// How many tokens a text is counted as where the model server does not say: one for each four bytes or part of them.
pub(crate) const fn tokens_of_text(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN)
}

/// The prompt's tokens by the rule for text; images and sounds, whose bytes are no text, by their number.
fn prompt_guess(peek: &Peek, body: &[u8]) -> u64 {
    let bound = &peek.bound;
    let (in_it, bytes) = if bound.media > 0 { media(body) } else { (0, 0) };
    let text = tokens_of_text(bound.text_bytes.saturating_sub(bytes).saturating_sub(bound.repeated_bytes));
    // Those that are named by their addresses lie elsewhere; of one part several may lie in the body.
    let number = in_it.max(u64::from(bound.media));
    text.saturating_add(bound.token_ids).saturating_add(number.saturating_mul(MEDIA_TOKENS))
}

/// How many texts of a JSON body are media, and their bytes together.
fn media(body: &[u8]) -> (u64, u64) {
    let (mut number, mut bytes, mut start, mut escaped) = (0, 0, None, false);
    for (at, byte) in body.iter().enumerate() {
        match (start, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (None, b'"') => start = Some(at + 1),
            (Some(from), b'"') => {
                let text = body.get(from..at).unwrap_or_default();
                if text.first_chunk::<MEDIA_BYTES>().is_some_and(is_base64) {
                    number += 1;
                    bytes += text.len() as u64;
                }
                start = None;
            }
            _ => {}
        }
    }
    (number, bytes)
}

/// Whether the beginning of a JSON string may be base64, with or without the address before it. Languages without blanks
/// are no ASCII, or escapes.
fn is_base64(head: &[u8; MEDIA_BYTES]) -> bool {
    head.iter().all(u8::is_ascii_graphic) && head.windows(2).all(|pair| pair[0] != b'\\' || pair[1] == b'/')
}

/// The most prompt tokens: a token is at least one byte of text, and no prompt is longer than the context.
fn input_bound(peek: &Peek, context: u64) -> u64 {
    let bound = &peek.bound;
    let items = u64::from(bound.items.max(1));
    // Each input of a list has the context for itself.
    let most = context.saturating_mul(items);
    if bound.media > 0 {
        return most;
    }
    let template = TEMPLATE_TOKENS
        .saturating_mul(items)
        .saturating_add(u64::from(bound.messages).saturating_mul(TEMPLATE_TOKENS_PER_MESSAGE))
        .saturating_add(if bound.has_tools { TOOL_TEMPLATE_TOKENS } else { 0 });
    bound.text_bytes.saturating_add(bound.token_ids).saturating_add(template).min(most)
}

/// What bounds one answer.
struct Limit {
    /// The most completion tokens.
    most: u64,
    /// The limit to send along where the client states none, or a larger one.
    max_tokens: Option<u32>,
}

/// Of a context, what an answer may have at least when it may have all that the prompt leaves: prompts have far fewer tokens
/// than their bound, which is in bytes.
const SURE_SHARE: u64 = 4;

/// Refused with what is asked for and the limit that it is over.
fn output_limit(peek: &Peek, model: &Model, call: CallKind, input: u64) -> Result<Limit, (u64, u64)> {
    let unlimited = |most| Limit { most, max_tokens: None };
    if !call.generates() {
        return Ok(unlimited(0));
    }
    let context = u64::from(model.context_length);
    let limit = model.max_output_tokens.map_or(context, |limit| u64::from(limit).min(context));
    match peek.max_output.filter(|_| peek.max_output_stated).map(u64::from) {
        Some(asked) if asked > limit => match model.over_limit {
            OverLimit::Clamp => {
                // A limit as long as the context fits behind no prompt, and servers refuse it.
                let left = context.saturating_sub(input).max(context / SURE_SHARE).max(1);
                let most = if limit < context { limit } else { left };
                Ok(Limit { most, max_tokens: u32::try_from(most).ok() })
            }
            OverLimit::Refuse => Err((asked, limit)),
        },
        Some(asked) => Ok(unlimited(asked)),
        None => {
            let default = peek.max_output.map_or(limit, |tokens| u64::from(tokens).min(limit));
            // Some servers refuse a limit that does not fit behind the prompt; then the context is the limit. Completions
            // have a default that is small, and a list of prompts whose bound says little about each of them.
            let fits = peek.max_output.is_some() || input.saturating_add(default) <= context;
            match u32::try_from(default) {
                Ok(tokens) if fits && default < context => Ok(Limit { max_tokens: Some(tokens), ..unlimited(default) }),
                _ => Ok(unlimited(context)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use batchin_openai::{FAMILIES, peek};

    use super::*;

    #[test]
    fn the_marks_around_a_gap_are_held_for() {
        for family in FAMILIES {
            // At worst each byte of them is a token, behind one with which a prompt begins.
            assert!((family.added_bytes() as u64) < TEMPLATE_TOKENS, "{family:?}");
        }
    }

    #[test]
    fn what_is_no_text_is_not_counted_as_text() {
        let image = format!("data:image/png;base64,{}", "iVBORw0KGgo\\/".repeat(10_000));
        let content = serde_text(&image);
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":{content}}}]}}"#);
        let peeked = peek(CallKind::Chat, body.as_bytes()).unwrap();
        assert!(peeked.bound.media == 1 && peeked.bound.text_bytes > 100_000);
        let guess = prompt_guess(&peeked, body.as_bytes());
        assert!((1_000..1_100).contains(&guess), "{guess}");
    }

    #[test]
    fn text_beside_an_image_is_text_in_every_language() {
        let guess = |text: &str, image: &str| {
            let content = serde_text(image).replace("what", text);
            let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":{content}}}]}}"#);
            prompt_guess(&peek(CallKind::Chat, body.as_bytes()).unwrap(), body.as_bytes())
        };
        let address = "https://example.com/cat.png";
        let named = guess("", address);
        assert!((1_000..1_100).contains(&named), "{named}");
        for text in ["\u{4e2d}".repeat(4_000), "\u{e01}".repeat(4_000), "\\u4e2d".repeat(2_000)] {
            let expected = named + (text.len() as u64).div_ceil(4);
            assert!(guess(&text, address).abs_diff(expected) <= 1);
        }
    }

    #[test]
    fn each_image_counts_wherever_it_lies() {
        let data = format!("data:image/png;base64,{}", "iVBORw0KGgo\\/".repeat(1_000));
        let named = "https://example.com/cat.png".to_owned();
        for (images, expected) in [
            (vec![&named], 1_000),
            (vec![&named; 8], 8_000),
            (vec![&data; 3], 3_000),
            (vec![&named, &data, &named, &data], 4_000),
        ] {
            let part = |url: &&String| format!(r#"{{"type":"image_url","image_url":{{"url":"{url}"}}}}"#);
            let parts: Vec<_> = images.iter().map(part).collect();
            let message = format!(r#"{{"role":"user","content":[{}]}}"#, parts.join(","));
            // In one message or in several.
            for body in [
                format!(r#"{{"model":"m","messages":[{message}]}}"#),
                format!(
                    r#"{{"model":"m","messages":[{}]}}"#,
                    [r#"{"role":"user","content":"hi"}"#, &message].join(",")
                ),
            ] {
                let guess = prompt_guess(&peek(CallKind::Chat, body.as_bytes()).unwrap(), body.as_bytes());
                assert!((expected..expected + 250).contains(&guess), "{} images: {guess}", images.len());
            }
        }
    }

    fn serde_text(image: &str) -> String {
        format!(
            r#"[{{"type":"text","text":"what \"is\" it?"}},{{"type":"image_url","image_url":{{"url":"{image}"}}}}]"#
        )
    }
}
