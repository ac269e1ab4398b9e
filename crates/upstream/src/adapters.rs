//! Holds: the kinds of model servers: the table of them, and in what they may differ. Each has a file that says how it does.
//!
//! Data only: what is put into a body, how its limit is told, where health is asked. What is left out is the same for all
//! of them and stands in `openai/steering.rs`.

mod comfyui;
mod cosyvoice;
mod embedded;
mod llamacpp;
mod ollama;
mod openai;
mod sdcpp;
mod sglang;
mod sglang_diffusion;
mod vllm;
mod vllm_omni;

use std::{fmt, ops::Deref};

use batchin_domain::Capability;

/// The program behind an upstream.
#[derive(Clone, Copy)]
pub struct Kind(&'static Adapter);

macro_rules! kinds {
    ($($(#[$meta:meta])* $kind:ident = $file:ident;)+) => {
        impl Kind {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            $($(#[$meta])* pub const $kind: Self = Self(&$file::ADAPTER);)+
        }
    };
}

// A file without its line here is an unused constant.
kinds! {
    /// Any server with OpenAI's API, hosted ones included.
    OPENAI = openai;
    /// vLLM.
    VLLM = vllm;
    /// SGLang.
    SGLANG = sglang;
    /// llama.cpp's `llama-server`.
    LLAMACPP = llamacpp;
    /// Ollama.
    OLLAMA = ollama;
    /// vLLM-Omni.
    VLLM_OMNI = vllm_omni;
    /// SGLang Diffusion.
    SGLANG_DIFFUSION = sglang_diffusion;
    /// stable-diffusion.cpp's server.
    SDCPP = sdcpp;
    /// ComfyUI.
    COMFYUI = comfyui;
    /// CosyVoice's FastAPI runtime.
    COSYVOICE = cosyvoice;
    /// The engine that ships with us, on a private socket.
    EMBEDDED = embedded;
}

impl Kind {
    /// The kind with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name == name)
    }

    /// The names of all of them, for messages.
    pub fn names() -> String {
        Self::ALL.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ")
    }

    /// Whether it tells its counts in every chunk when asked to.
    pub fn counts_all_along(self) -> bool {
        self.counts != Counts::AtTheEnd
    }

    /// Those on which a model can do this.
    pub fn that_can(capability: Capability) -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(move |kind| kind.can.contains(&capability))
    }

    /// Whether a server that lists these models serves this one.
    pub fn has(self, listed: &[String], model: &str) -> bool {
        let is = |name: &String| name == model || (self.lists_as)(name, model);
        (self.takes_any_name && listed.len() == 1) || listed.iter().any(is)
    }
}

/// In what a kind of server differs from others.
pub struct Adapter {
    /// The word in the configuration.
    pub name: &'static str,
    /// What models can do on it.
    pub can: &'static [Capability],
    /// Whether we start it, on a socket of our own: it needs no entry and no address, and loads until it first answers.
    pub is_ours: bool,
    /// Whether it computes on the processor that this process runs on.
    pub shares_processor: bool,
    /// Whether tool calls are the same in a stream and in a whole answer. Most servers read them out of the text by two
    /// programs, one for each, which differ on what they take for a call.
    pub streams_tool_calls_alike: bool,
    /// Whether each piece of its streams is one token.
    pub streams_token_by_token: bool,
    /// Whether it puts the prompt before a completion that asks for it by `echo`. The others ignore or refuse it.
    pub echoes: bool,
    /// Whether it gives one answer, whatever `n` says.
    pub ignores_n: bool,
    /// Whether its counts are those of one answer where several are asked for: `n`, or a list of prompts.
    pub(crate) counts_one_answer: bool,
    /// Whether a call whose connection is closed stops there. A hosted API may go on computing, and charging.
    pub stops_when_left: bool,
    /// What it counts all along.
    pub(crate) counts: Counts,
    /// Where a cheap answer tells that the server lives.
    pub(crate) health_path: Path,
    /// What a server answers only to whoever has its key, where that can be asked without any work.
    pub(crate) guarded_path: Path,
    /// Whether a name in its list of models, the first, means a model by another one.
    lists_as: fn(&str, &str) -> bool,
    /// Whether a server with one model takes any name for it.
    takes_any_name: bool,
    pub(crate) priority_order: PriorityOrder,
    /// The least limit that it is told.
    pub(crate) least_limit: u32,
    /// Whether it takes a limit that does not fit behind the prompt, and ends the answer where the context does. The others
    /// refuse it.
    pub(crate) takes_any_limit: bool,
    /// Whether it refuses members for being there at all, null or not.
    pub(crate) drops_nulls: bool,
    /// Members to add where a text completion has none.
    pub(crate) completion_defaults: &'static [(&'static str, &'static str)],
    /// How it is asked for the middle of a text.
    pub(crate) suffix: Suffix,
    /// Most texts that may end an answer.
    pub(crate) most_stops: usize,
    /// How it is asked to speak.
    pub(crate) speech: Speaking,
    /// Whether it is told how pictures are to come: a server of another kind sends them in base64 whatever it is told.
    pub(crate) told_how_pictures_come: bool,
    /// Whether it takes names of files out of prompts, and reads those files.
    pub(crate) reads_files_by_prompt: bool,
    /// How it is asked for films, where it makes any.
    pub(crate) film: Option<FilmManner>,
    /// Whether it does nothing but what stands in a workflow that the operator wrote.
    pub needs_workflow: bool,
}

/// What servers of language models can do.
const READERS: &[Capability] = &[
    Capability::Chat,
    Capability::Completions,
    Capability::Embeddings,
    Capability::Rerank,
    Capability::Transcription,
    Capability::Responses,
    Capability::Messages,
];

/// What may be said of any server with OpenAI's API.
const ANY: Adapter = Adapter {
    name: "",
    can: &Capability::ALL,
    is_ours: false,
    shares_processor: false,
    streams_tool_calls_alike: false,
    streams_token_by_token: false,
    echoes: true,
    ignores_n: false,
    counts_one_answer: false,
    stops_when_left: false,
    counts: Counts::AtTheEnd,
    health_path: MODELS_PATH,
    guarded_path: MODELS_PATH,
    lists_as: |_, _| false,
    takes_any_name: false,
    priority_order: PriorityOrder::None,
    least_limit: 0,
    takes_any_limit: false,
    drops_nulls: false,
    completion_defaults: &[],
    suffix: Suffix::Filled,
    most_stops: usize::MAX,
    speech: Speaking::AsAsked,
    told_how_pictures_come: true,
    reads_files_by_prompt: false,
    film: None,
    needs_workflow: false,
};

/// How a server is asked for what stands between a prompt and a `suffix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suffix {
    /// By `suffix`, to which it applies the model's own template whatever else it is sent.
    Own,
    /// By `suffix`, unless the model is configured to be sent a prompt with its marks.
    Taken,
    /// By a prompt with the model's marks.
    Filled,
    /// So, or by llama.cpp's `/infill` where its marks are not known here.
    Infill,
}

/// How a server is asked to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaking {
    /// By OpenAI's call, in the format that the client hears; in WAV where that is refused.
    AsAsked,
    /// By OpenAI's call, in WAV, which it sends while it speaks. Members that have it do so; values are JSON.
    InWav(&'static [(&'static str, &'static str)]),
    /// By CosyVoice's forms, which are answered with samples that have no head.
    ByForm,
}

/// How a kind of server is had to make films.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilmManner {
    /// By jobs of its own.
    Jobs(FilmJobs),
    /// By the operator's workflow.
    Workflow,
}

/// In whose words a kind of server takes jobs that make films; `film.rs` has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilmJobs {
    /// OpenAI's, as JSON.
    OpenAi,
    /// OpenAI's with frames and their rate, as a form alone.
    Form,
    /// The same as JSON; a number of seconds is one.
    Frames,
    /// stable-diffusion.cpp's own.
    Sdcpp,
}

/// What a server counts in every chunk when asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counts {
    /// Nothing.
    AtTheEnd,
    /// Each answer for itself, so that those of several say nothing.
    OfEachAnswer,
    /// All answers together.
    OfAllAnswers,
}

/// Which request a server's scheduler takes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PriorityOrder {
    LowerFirst,
    HigherFirst,
    None,
}

/// A path of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    AtRoot(&'static str),
    BelowBase(&'static str),
}

/// The list of models, which every kind has.
pub(crate) const MODELS_PATH: Path = Path::BelowBase("/models");

/// Where llama.cpp fills in the middle.
pub(crate) const INFILL_PATH: Path = Path::AtRoot("/infill");

impl Deref for Kind {
    type Target = Adapter;

    fn deref(&self) -> &Adapter {
        self.0
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Kind {}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::named(kind.name), Some(*kind));
            assert!(Kind::names().split(", ").any(|name| name == kind.name));
        }
        assert_eq!((Kind::named("VLLM"), Kind::named("")), (None, None));
    }

    #[test]
    fn a_server_has_the_models_that_it_lists_in_its_way() {
        let list = ["llama3:latest".to_owned(), "models/gemini".to_owned(), "b".to_owned()];
        let having = |model| Kind::ALL.iter().copied().filter(|kind| kind.has(&list, model)).collect::<Vec<_>>();
        assert_eq!((having("b"), having("any")), (Kind::ALL.to_vec(), Vec::new()));
        assert_eq!((having("llama3"), having("gemini")), (vec![Kind::OLLAMA], vec![Kind::OPENAI]));
        assert!(Kind::LLAMACPP.has(&list[..1], "any") && !Kind::VLLM.has(&list[..1], "any"));
    }
}
