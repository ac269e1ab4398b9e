//! Holds: a call's body as one server wants it.

use batchin_domain::{CallKind, Capability};
use batchin_openai::{
    InvalidRequest, Limit, LimitName, PictureAsked, Pictures, Rewrite, Wanted, picture_asked, rewrite,
};
use bytes::Bytes;

use crate::{
    adapters::{Counts, Kind, PriorityOrder},
    call::Call,
    config::UpstreamConfig,
    failure::CallError,
    middle::Middle,
};

/// What goes into a body beside the client's own members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    /// The name of the limit.
    pub(crate) limit: LimitName,
    /// Whether streams are asked for their usage.
    pub(crate) stream_options: bool,
    /// Whether our class is sent as the server's priority.
    pub(crate) priority: bool,
    /// Whether members that its kind needs are added.
    pub(crate) defaults: bool,
    /// Whether it is told how vectors are to be written, which can be done here too.
    pub(crate) encoding_format: bool,
    /// Whether it is told that pictures are to come in base64.
    pub(crate) response_format: bool,
    /// Whether it is told in which format pictures are to be, which can be done here too.
    pub(crate) output_format: bool,
}

impl Manner {
    /// As the settings say.
    pub(crate) fn configured(kind: CallKind, config: &UpstreamConfig) -> Self {
        let limit = match (kind, config.limit_name) {
            // No server reads the newer name there.
            (CallKind::Completions, LimitName::MaxCompletionTokens) => LimitName::MaxTokens,
            // Servers that have these protocols know the protocol's name, and demand one of a message.
            (CallKind::Responses, LimitName::MaxTokens | LimitName::MaxCompletionTokens) => LimitName::MaxOutputTokens,
            (CallKind::Messages, _) => LimitName::MaxTokens,
            (_, name) => name,
        };
        Self {
            limit,
            stream_options: config.stream_options,
            priority: config.priority_enabled,
            defaults: true,
            encoding_format: true,
            response_format: config.kind.told_how_pictures_come,
            output_format: true,
        }
    }
}

/// Whether counts are asked for in every chunk, so that an answer which breaks off is billed by its server's own count.
pub(crate) fn counts_all_along(call: &Call<'_>, kind: Kind) -> bool {
    match kind.counts {
        _ if call.native.is_some() => false,
        Counts::AtTheEnd => false,
        Counts::OfEachAnswer => call.answers == 1,
        Counts::OfAllAnswers => true,
    }
}

/// The body as this upstream wants it.
pub(crate) fn request_body(call: &Call<'_>, config: &UpstreamConfig, manner: Manner, middle: &Middle) -> Bytes {
    let kind = config.kind;
    let generates = call.kind.generates();
    let priority = call.class_priority.filter(|_| manner.priority && generates && call.kind != CallKind::Messages);
    let is_counted = call.stream && generates && call.native.is_none();
    let adds = manner.defaults && call.kind == CallKind::Completions;
    let mut remove = middle.remove.clone();
    if !manner.stream_options {
        remove.push("stream_options");
    }
    if !manner.encoding_format {
        remove.push("encoding_format");
    }
    let of_pictures = picture_members(call, manner, &mut remove);
    // A server that has a place to store answers does so unless it is told.
    let unstored = [("store", "false".to_owned())];
    let edit = Rewrite {
        model: call.upstream_model,
        stream: call.kind.tells_events().then_some(call.stream),
        include_usage: is_counted && manner.stream_options,
        continuous_usage: is_counted && manner.stream_options && counts_all_along(call, kind),
        limit: generates.then_some(Limit { name: manner.limit, most: call.most(kind), least: kind.least_limit }),
        priority: priority.and_then(|priority| match kind.priority_order {
            PriorityOrder::LowerFirst => Some(priority),
            PriorityOrder::HigherFirst => Some(priority.saturating_neg()),
            PriorityOrder::None => None,
        }),
        defaults: if adds && !middle.is_infill { kind.completion_defaults } else { &[] },
        set: match call.kind {
            CallKind::Responses => &unstored,
            kind if kind.needs() == Capability::Images => &of_pictures,
            _ => &middle.set,
        },
        remove: &remove,
        tidy: true,
        drop_nulls: kind.drops_nulls,
    };
    rewrite(&call.body, &edit)
}

/// The members that are pictures.
const SHOWN: [&str; 4] = ["image", "image[]", "images", "mask"];

/// What a call for pictures says whatever its body does: the size that is held for, and that they are to come in the answer.
/// An address of the server's own would be of no use to whoever asked.
fn picture_members(call: &Call<'_>, manner: Manner, remove: &mut Vec<&'static str>) -> Vec<(&'static str, String)> {
    let Wanted::Pictures(Pictures { size, .. }) = call.wanted else { return Vec::new() };
    let sized = |(width, height)| ("size", format!("\"{width}x{height}\""));
    let mut set: Vec<_> = size.map(sized).into_iter().collect();
    if manner.response_format {
        set.push(("response_format", "\"b64_json\"".to_owned()));
    } else {
        remove.push("response_format");
    }
    if !manner.output_format {
        remove.extend(["output_format", "output_compression"]);
    }
    remove.push("stream");
    if call.kind.shows() {
        // They go as files.
        remove.extend(SHOWN);
    }
    set
}

/// What stable-diffusion.cpp reads a file for, by a name that follows.
const FILE_IN_A_PROMPT: &str = "<lora:";

/// Whether a server of this kind may be given what is to be seen on pictures.
pub(crate) fn check_pictured(call: &Call<'_>, kind: Kind) -> Result<(), CallError> {
    if !kind.reads_files_by_prompt || call.kind.needs() != Capability::Images {
        return Ok(());
    }
    let PictureAsked { prompt, .. } = picture_asked(&call.body);
    check_prompt(&prompt)
}

/// Refuses a prompt that would have a server read files of its own.
pub(crate) fn check_prompt(prompt: &str) -> Result<(), CallError> {
    if prompt.to_ascii_lowercase().contains(FILE_IN_A_PROMPT) {
        let message = format!("`prompt` must not contain {FILE_IN_A_PROMPT}, which names a file of the model server's");
        return Err(CallError::unfit(InvalidRequest::at("prompt", message)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use batchin_openai::Fim;

    use super::*;
    use crate::{call::tests::call, learnt::Lessons};

    fn config(kind: Kind, priority_enabled: bool) -> UpstreamConfig {
        UpstreamConfig { priority_enabled, ..UpstreamConfig::new("a", kind, "http://h").unwrap() }
    }

    /// The body as it goes to a server of this kind.
    fn sent(kind: Kind, priority_enabled: bool, call: &Call<'_>) -> Bytes {
        let config = config(kind, priority_enabled);
        let manner = Lessons::default().tries(call, &config).manner;
        request_body(call, &config, manner, &Middle::of(call, kind).unwrap())
    }

    #[test]
    fn body_fits_the_kind() {
        let check = |kind, enabled, stream, body, expected: &str| {
            assert_eq!(sent(kind, enabled, &call(body, stream)), expected);
        };
        check(Kind::OPENAI, true, false, r#"{"model":"m","priority":1}"#, r#"{"model":"m"}"#);
        check(Kind::VLLM, false, false, r#"{"model":"m","priority":-9}"#, r#"{"model":"m"}"#);
        check(Kind::VLLM, true, false, r#"{"model":"m","priority":-9}"#, r#"{"model":"m","priority":5}"#);
        check(Kind::SGLANG, true, false, r#"{"model":"m"}"#, r#"{"model":"m","priority":-5}"#);
        check(Kind::LLAMACPP, true, false, r#"{"suffix":null,"n_predict":9,"best_of":null,"a":1}"#, r#"{"a":1}"#);
        let asked = r#"{"stream":true,"stream_options":{"include_usage":true}}"#;
        check(Kind::OPENAI, true, true, "{\"stream\":true}", asked);
        let untouched = call(asked, true);
        assert_eq!(sent(Kind::OPENAI, false, &untouched).as_ptr(), untouched.body.as_ptr());
    }

    #[test]
    fn counts_of_several_answers_are_asked_for_where_they_are_sums() {
        for (kind, of_one, of_more) in
            [(Kind::EMBEDDED, true, true), (Kind::VLLM, true, false), (Kind::OPENAI, false, false)]
        {
            for (answers, expected) in [(1, of_one), (2, of_more)] {
                let body = sent(kind, false, &Call { answers, ..call("{}", true) });
                let asked = String::from_utf8_lossy(&body).contains("continuous_usage_stats");
                assert_eq!(asked, expected, "{kind}, {answers}");
            }
        }
    }

    #[test]
    fn every_kind_is_told_the_held_limit_and_nothing_that_steers() {
        for kind in Kind::that_can(Capability::Chat) {
            let body = r#"{"max_completion_tokens":7,"service_tier":"flex","options":{"num_predict":9},"x-batchin-class":"high","n_predict":9,"keep_alive":"9h"}"#;
            assert_eq!(sent(kind, false, &call(body, false)), r#"{"max_tokens":7}"#, "{kind}");
            let held = Call { max_tokens: Some(5), ..call(r#"{"max_tokens":9,"max_completion_tokens":7}"#, false) };
            assert_eq!(sent(kind, false, &held), r#"{"max_tokens":5}"#, "{kind}");
            let unstated = Call { held: Some(5), ..call("{}", false) };
            let any = if kind.takes_any_limit { r#"{"max_tokens":5}"# } else { "{}" };
            assert_eq!(sent(kind, false, &unstated), any, "{kind}");
            let none = Call { kind: CallKind::Completions, ..call(r#"{"max_tokens":0,"suffix":""}"#, false) };
            let told = if kind == Kind::OLLAMA { 1 } else { 0 };
            // Nothing behind the answer asks for nothing, and some refuse to be told so.
            let suffix =
                if [Kind::VLLM, Kind::VLLM_OMNI, Kind::LLAMACPP].contains(&kind) { "" } else { r#","suffix":"""# };
            assert_eq!(sent(kind, false, &none), format!(r#"{{"max_tokens":{told}{suffix}}}"#), "{kind}");
            let embeddings = Call { kind: CallKind::Embeddings, ..call(r#"{"input":"a","priority":1}"#, false) };
            assert_eq!(sent(kind, false, &embeddings), r#"{"input":"a"}"#, "{kind}");
        }
    }

    #[test]
    fn settings_name_the_limit_and_spare_stream_options() {
        let told = |limit_name, stream_options, call: &Call<'_>| {
            let config = UpstreamConfig { limit_name, stream_options, ..config(Kind::OPENAI, false) };
            request_body(call, &config, Lessons::default().tries(call, &config).manner, &Middle::default())
        };
        let chat = call(r#"{"max_tokens":7,"stream":true,"stream_options":{"include_usage":true}}"#, true);
        let asked = r#"{"stream":true,"stream_options":{"include_usage":true},"max_completion_tokens":7}"#;
        assert_eq!(told(LimitName::MaxCompletionTokens, true, &chat), asked);
        assert_eq!(told(LimitName::None, false, &chat), r#"{"stream":true}"#);
        let completion = Call { kind: CallKind::Completions, ..call(r#"{"prompt":"a","max_tokens":7}"#, false) };
        assert_eq!(told(LimitName::MaxCompletionTokens, true, &completion), completion.body);
    }

    #[test]
    fn sglang_completions_get_an_empty_suffix() {
        let completions = |body| Call { kind: CallKind::Completions, ..call(body, false) };
        let check = |body, expected: &str| assert_eq!(sent(Kind::SGLANG, false, &completions(body)), expected);
        check(r#"{"prompt":"a"}"#, r#"{"prompt":"a","suffix":""}"#);
        check(r#"{"prompt":"a","suffix":null}"#, r#"{"prompt":"a","suffix":""}"#);
    }

    fn filling(body: &'static str, fim: Fim) -> Call<'static> {
        Call { kind: CallKind::Completions, fim: Some(fim), ..call(body, false) }
    }

    const GAP: &str = r#"{"prompt":"a","suffix":"b","x":1.0}"#;
    const FILLED: &str = r#"{"prompt":"<PRE> a <SUF>b <MID>","x":1.0"#;
    const STOPS: &str = r#","stop":["<EOT>","<PRE>","<SUF>","<MID>"]"#;

    #[test]
    fn a_gap_is_told_as_each_kind_takes_it() {
        let family = Fim::usual("CodeLlama-7b");
        for (kind, expected) in [
            (Kind::OPENAI, GAP.to_owned()),
            (Kind::OLLAMA, GAP.to_owned()),
            (Kind::EMBEDDED, GAP.to_owned()),
            (Kind::VLLM, format!("{FILLED}{STOPS}}}")),
            (Kind::LLAMACPP, format!("{FILLED}{STOPS}}}")),
            // With a completion template, it would fill an absent suffix in.
            (Kind::SGLANG, format!(r#"{FILLED}{STOPS},"suffix":""}}"#)),
        ] {
            assert_eq!(sent(kind, false, &filling(GAP, family)), expected, "{kind}");
        }
        let named = Fim::named("codellama").unwrap();
        assert_eq!(sent(Kind::OPENAI, false, &filling(GAP, named)), format!("{FILLED}{STOPS}}}"));
        let stopped = r#"{"prompt":"a","suffix":"b","stop":["x","y","z"]}"#;
        let few = r#"{"prompt":"<PRE> a <SUF>b <MID>","stop":["x","y","z","<EOT>"]}"#;
        assert_eq!(sent(Kind::OPENAI, false, &filling(stopped, named)), few);
        for kind in [Kind::OLLAMA, Kind::EMBEDDED] {
            assert_eq!(sent(kind, false, &filling(GAP, named)), GAP, "{kind}: its own");
        }
        for kind in [Kind::VLLM, Kind::SGLANG, Kind::OPENAI] {
            assert_eq!(sent(kind, false, &filling(GAP, Fim::Server)), GAP, "{kind}: set up for it");
        }
    }

    #[test]
    fn llama_cpp_is_asked_for_its_own_marks_where_none_are_known() {
        let body =
            r#"{"prompt":"a","suffix":"b","stop":"x","max_tokens":9,"input_extra":[{"text":"y"}],"input_prefix":"z"}"#;
        let expected = r#"{"stop":["x"],"max_tokens":5,"input_prefix":"a","input_suffix":"b"}"#;
        for fim in [Fim::usual("m"), Fim::Server] {
            let call = Call { max_tokens: Some(5), ..filling(body, fim) };
            assert!(Middle::of(&call, Kind::LLAMACPP).unwrap().is_infill);
            assert_eq!(sent(Kind::LLAMACPP, false, &call), expected);
        }
    }

    #[test]
    fn what_no_server_of_a_kind_can_do_is_said_of_the_member() {
        let param = |kind, call: &Call<'_>| {
            let error = Middle::of(call, kind).unwrap_err();
            assert!(error.is_of_server(), "another kind may do it");
            error.client_error.unwrap().param.unwrap()
        };
        for kind in [Kind::VLLM, Kind::SGLANG] {
            assert_eq!(param(kind, &filling(GAP, Fim::usual("m"))), "suffix", "{kind}");
        }
        for &kind in Kind::ALL {
            assert_eq!(param(kind, &filling(GAP, Fim::Off)), "suffix", "{kind}");
        }
        let marked = filling(r#"{"prompt":"a","suffix":"<MID>"}"#, Fim::usual("codellama-7b"));
        assert_eq!(param(Kind::VLLM, &marked), "suffix");
        assert!(Middle::of(&marked, Kind::EMBEDDED).is_ok(), "it reads no text as a mark");
        let several = Call { answers: 2, ..filling(GAP, Fim::Server) };
        assert_eq!(param(Kind::LLAMACPP, &several), "n");
    }
}
