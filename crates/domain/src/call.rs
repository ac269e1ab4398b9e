//! Holds: the kinds of inference call: one line of a table for each.
//!
//! What a kind accepts stands in `openai`, in a file of its own.

use crate::{listed, stored};

listed! {
    /// What a model can be asked for, by its name in the configuration and in the API, in the order of the documentation.
    /// Several kinds of call may need the same.
    pub enum Capability {
        /// Chat completions.
        Chat => "chat",
        /// Text completions.
        Completions => "completions",
        /// Embeddings.
        Embeddings => "embeddings",
        /// Ranking documents by a query.
        Rerank => "rerank",
        /// Speaking a text.
        Speech => "speech",
        /// Writing down or translating what is said.
        Transcription => "transcription",
        /// Making pictures.
        Images => "images",
        /// Making a film.
        Video => "video",
        /// OpenAI's Responses protocol, by its servers themselves.
        Responses => "responses",
        /// Anthropic's Messages protocol, by its servers themselves.
        Messages => "messages",
    }
}

/// What an answer is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Makes {
    /// Text, of completion tokens, whole or as a stream of events.
    Text,
    /// Numbers: vectors, ranks.
    Values,
    /// Sound, as bytes of one of its formats.
    Sound,
    /// What is said in a sound: text that costs by the sound's length, whole or as a stream of events.
    Transcript,
    /// Pictures, which are kept and named by addresses.
    Pictures,
    /// A film, by a job that goes on without whoever asked.
    Film,
}

macro_rules! call_kinds {
    ($($kind:ident = $code:literal, $name:literal at $path:literal, prompt $prompt:literal, ids $id:literal, asks $asks:ident, needs $needs:ident, makes $makes:ident;)+) => {
        stored! {
            /// A kind of inference call: one that a model answers. Listed in the order of the documentation.
            pub enum CallKind {
                $(#[doc = concat!("`/v1", $path, "`")] $kind = $code),+
            }
        }

        impl CallKind {
            /// The word for logs and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),+ }
            }

            /// The documented path, with `/v1`.
            pub const fn path(self) -> &'static str {
                match self { $(Self::$kind => concat!("/v1", $path)),+ }
            }

            /// The path below a base URL that already ends in `/v1`.
            pub const fn path_below_v1(self) -> &'static str {
                match self { $(Self::$kind => $path),+ }
            }

            /// The member of its body that is the prompt.
            pub const fn prompt(self) -> &'static str {
                match self { $(Self::$kind => $prompt),+ }
            }

            /// What the ids of its answers begin with.
            pub const fn id_prefix(self) -> &'static str {
                match self { $(Self::$kind => $id),+ }
            }

            /// The kind of call that model servers are asked for it. Another one than itself where its protocol is told in
            /// that one's.
            pub const fn asks(self) -> Self {
                match self { $(Self::$kind => Self::$asks),+ }
            }

            /// What the model must be able to do.
            pub const fn needs(self) -> Capability {
                match self { $(Self::$kind => Capability::$needs),+ }
            }

            /// What its answer is made of.
            pub const fn makes(self) -> Makes {
                match self { $(Self::$kind => Makes::$makes),+ }
            }
        }
    };
}

call_kinds! {
    Chat = 0, "chat" at "/chat/completions", prompt "messages", ids "chatcmpl_", asks Chat, needs Chat, makes Text;
    Completions = 1, "completions" at "/completions", prompt "prompt", ids "cmpl_", asks Completions, needs Completions, makes Text;
    // OpenAI's have no ids, and Mistral's packages demand one.
    Embeddings = 2, "embeddings" at "/embeddings", prompt "input", ids "embd_", asks Embeddings, needs Embeddings, makes Values;
    Responses = 3, "responses" at "/responses", prompt "input", ids "resp_", asks Chat, needs Chat, makes Text;
    Messages = 4, "messages" at "/messages", prompt "messages", ids "msg_", asks Chat, needs Chat, makes Text;
    // Mistral's, for the middle of a text.
    Fim = 5, "fim" at "/fim/completions", prompt "prompt", ids "fim_", asks Completions, needs Completions, makes Text;
    Rerank = 6, "rerank" at "/rerank", prompt "query", ids "rerank_", asks Rerank, needs Rerank, makes Values;
    Speech = 7, "speech" at "/audio/speech", prompt "input", ids "speech_", asks Speech, needs Speech, makes Sound;
    Transcriptions = 8, "transcriptions" at "/audio/transcriptions", prompt "file", ids "transcr_", asks Transcriptions, needs Transcription, makes Transcript;
    Translations = 9, "translations" at "/audio/translations", prompt "file", ids "transl_", asks Translations, needs Transcription, makes Transcript;
    Images = 10, "images" at "/images/generations", prompt "prompt", ids "img_", asks Images, needs Images, makes Pictures;
    ImageEdits = 11, "image_edits" at "/images/edits", prompt "prompt", ids "img_", asks ImageEdits, needs Images, makes Pictures;
    Video = 12, "video" at "/video/generate", prompt "prompt", ids "video_", asks Video, needs Video, makes Film;
}

impl CallKind {
    /// Paths beside the documented ones under which clients of other APIs make a call. Batches take the documented ones alone.
    pub const BESIDE: [(&str, Self); 1] = [("/v2/rerank", Self::Rerank)];

    /// Position in [`CallKind::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The kind of a call to this path that is answered at once, with or without `/v1`.
    pub fn from_url(url: &str) -> Option<Self> {
        Self::answered().find(|kind| url == kind.path() || url == kind.path_below_v1())
    }

    /// The paths of those that are answered at once, for whoever named another.
    pub fn paths() -> String {
        Self::answered().map(Self::path).collect::<Vec<_>>().join(", ")
    }

    /// Whether it begins a job, whose answer says no more than that. A batch has none of these: they are jobs already.
    pub const fn is_job(self) -> bool {
        matches!(self.makes(), Makes::Film)
    }

    /// Those that are answered at once.
    pub fn answered() -> impl Iterator<Item = Self> + Clone {
        Self::ALL.into_iter().filter(|kind| !kind.is_job())
    }

    /// Whether the call produces completion tokens, whose text can be streamed.
    pub const fn generates(self) -> bool {
        matches!(self.makes(), Makes::Text)
    }

    /// Whether it reads a sound, which a request brings as a file beside its members.
    pub const fn hears(self) -> bool {
        matches!(self.makes(), Makes::Transcript)
    }

    /// Whether it changes pictures, which a request brings as files beside its members.
    pub const fn shows(self) -> bool {
        matches!(self, Self::ImageEdits)
    }

    /// Whether its answer is a stream of events where a request says `stream`.
    pub const fn tells_events(self) -> bool {
        matches!(self.makes(), Makes::Text | Makes::Transcript)
    }

    /// Whether it is asked of model servers as another kind of call.
    pub fn is_retold(self) -> bool {
        self.asks() != self
    }

    /// What a model can do whose servers have the call's own protocol, of a call that is asked as another where they do not.
    pub const fn native(self) -> Option<Capability> {
        match self {
            Self::Responses => Some(Capability::Responses),
            Self::Messages => Some(Capability::Messages),
            Self::Chat
            | Self::Completions
            | Self::Embeddings
            | Self::Fim
            | Self::Rerank
            | Self::Speech
            | Self::Transcriptions
            | Self::Translations
            | Self::Images
            | Self::ImageEdits
            | Self::Video => None,
        }
    }

    /// The kind of call that servers of a model are asked for it, by what the model can do; `None` where that is not enough.
    pub fn asked_of(self, capabilities: &[Capability]) -> Option<Self> {
        if self.native().is_some_and(|native| capabilities.contains(&native)) {
            return Some(self);
        }
        capabilities.contains(&self.needs()).then_some(self.asks())
    }

    /// Those that are asked of model servers, whatever a model says.
    pub fn asked() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|kind| !kind.is_retold())
    }

    /// Those that a body is taken for which does not say so, in that order. A text completion comes last: other calls may
    /// have a `prompt` beside their own member. What is asked as another kind has its prompt's name from that, and says
    /// which it is; so does what makes neither text nor values.
    pub fn by_meaning() -> impl Iterator<Item = Self> {
        let is_meant = |kind: &Self| matches!(kind.makes(), Makes::Text | Makes::Values);
        Self::asked().filter(is_meant).filter(|kind| *kind != Self::Completions).chain([Self::Completions])
    }

    /// The kind that a body is meant for which does not say so, by the members it has.
    pub fn meant_by(has: impl Fn(&str) -> bool) -> Option<Self> {
        Self::by_meaning().find(|kind| has(kind.prompt()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_known_with_and_without_version() {
        for kind in CallKind::ALL {
            let answered = (!kind.is_job()).then_some(kind);
            assert_eq!(CallKind::from_url(kind.path()), answered);
            assert_eq!(CallKind::from_url(kind.path_below_v1()), answered);
        }
        assert_eq!(CallKind::from_url("/v1/images/variations"), None);
        assert_eq!(CallKind::from_url("/v1/chat/completions/"), None);
    }

    #[test]
    fn members_tell_the_kind_of_call() {
        for (members, kind) in [
            (&["messages"][..], Some(CallKind::Chat)),
            (&["input"], Some(CallKind::Embeddings)),
            (&["prompt"], Some(CallKind::Completions)),
            (&["prompt", "messages"], Some(CallKind::Chat)),
            (&["prompt", "input"], Some(CallKind::Embeddings)),
            (&["documents", "query"], Some(CallKind::Rerank)),
            (&["text"], None),
        ] {
            assert_eq!(CallKind::meant_by(|name| members.contains(&name)), kind, "{members:?}");
        }
        assert!(CallKind::by_meaning().all(|kind| CallKind::meant_by(|name| name == kind.prompt()) == Some(kind)));
    }

    #[test]
    fn lines_of_the_table_are_apart() {
        for (index, kind) in CallKind::ALL.into_iter().enumerate() {
            assert_eq!((kind.index(), CallKind::from_code(kind.code())), (index, Some(kind)));
            let same = |other: &CallKind| kind.name() == other.name() || kind.path() == other.path();
            assert_eq!(CallKind::ALL.iter().filter(|other| same(other)).count(), 1, "{kind:?}");
        }
        // What rows in databases say.
        assert_eq!(
            [0, 1, 2].map(CallKind::from_code),
            [Some(CallKind::Chat), Some(CallKind::Completions), Some(CallKind::Embeddings)]
        );
        assert_eq!(
            [3, 4, 5, 6].map(CallKind::from_code),
            [Some(CallKind::Responses), Some(CallKind::Messages), Some(CallKind::Fim), Some(CallKind::Rerank)]
        );
        assert_eq!(
            [7, 8, 9].map(CallKind::from_code),
            [Some(CallKind::Speech), Some(CallKind::Transcriptions), Some(CallKind::Translations)]
        );
        assert_eq!(
            [10, 11, 12].map(CallKind::from_code),
            [Some(CallKind::Images), Some(CallKind::ImageEdits), Some(CallKind::Video)]
        );
    }

    #[test]
    fn what_a_model_says_tells_how_its_servers_are_asked() {
        use Capability::{Chat, Embeddings, Messages};
        for (call, capabilities, asked) in [
            (CallKind::Messages, &[Chat][..], Some(CallKind::Chat)),
            (CallKind::Messages, &[Chat, Messages], Some(CallKind::Messages)),
            (CallKind::Messages, &[Messages], Some(CallKind::Messages)),
            (CallKind::Responses, &[Chat, Messages], Some(CallKind::Chat)),
            (CallKind::Responses, &[Messages], None),
            (CallKind::Chat, &[Messages], None),
            (CallKind::Chat, &[Chat, Messages], Some(CallKind::Chat)),
            (CallKind::Fim, &[Embeddings], None),
        ] {
            assert_eq!(call.asked_of(capabilities), asked, "{call:?} of {capabilities:?}");
        }
        assert!(CallKind::ALL.iter().all(|kind| kind.native().is_none() || kind.is_retold()));
    }

    #[test]
    fn what_is_retold_is_asked_as_what_is_not() {
        for kind in CallKind::ALL {
            assert!(!kind.asks().is_retold(), "{kind:?}");
            assert_eq!((kind.needs(), kind.generates()), (kind.asks().needs(), kind.asks().generates()), "{kind:?}");
        }
    }
}
