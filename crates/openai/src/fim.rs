//! Holds: how models fill in the middle: the marks of each family, and the prompt that they make of two texts.
//!
//! A server that has no template of its own for a `suffix` is sent this one. Texts are put between marks as they lie in
//! JSON; they are decoded only to see that they have no mark in them.

use std::fmt;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::{
    heard::text_of,
    members::{each_item, quoted},
    peek::{InvalidRequest, one_text},
    rewrite::members_of,
};

/// Models that were trained with the same marks.
pub struct Family {
    /// The word in the configuration.
    pub name: &'static str,
    /// What stands before, between and behind the two texts.
    around: [&'static str; 3],
    /// Whether the suffix comes first.
    suffix_first: bool,
    /// What splits a text in the eyes of its models: never taken within one, and an answer ends before it.
    marks: &'static [&'static str],
    /// What an answer ends before too, and any text may have in it.
    ends: &'static [&'static str],
    /// Whether a model is surely one of it, by its name in small letters.
    has: fn(&str) -> bool,
}

/// All of them, in the order of the documentation.
pub const FAMILIES: &[Family] = &[
    // "Qwen2.5-Coder Technical Report"; the README of Qwen3-Coder.
    Family {
        name: "qwen",
        around: ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
        suffix_first: false,
        marks: &["<|file_sep|>", "<|fim_pad|>", "<|repo_name|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
        ends: &["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        has: |name| has_any(name, &["qwen2.5-coder", "qwen3-coder"]),
    },
    // "StarCoder 2 and The Stack v2"; the cards of stable-code-3b, CodeQwen1.5 and Granite-Code, which took StarCoder's
    // marks over.
    Family {
        name: "starcoder",
        around: ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
        suffix_first: false,
        marks: &["<file_sep>", "<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<fim_pad>"],
        ends: &["<|endoftext|>"],
        has: |name| {
            has_any(name, &["starcoder", "stable-code", "codeqwen"])
                || (name.contains("granite") && name.contains("-code-"))
        },
    },
    // "Code Llama: Open Foundation Models for Code": 7B and 13B alone, and none of the Python models.
    Family {
        name: "codellama",
        around: ["<PRE> ", " <SUF>", " <MID>"],
        suffix_first: false,
        marks: &["<EOT>", "<PRE>", "<SUF>", "<MID>"],
        ends: &[],
        has: |name| {
            has_any(name, &["codellama", "code-llama"]) && has_any(name, &["7b", "13b"]) && !name.contains("python")
        },
    },
    // "DeepSeek-Coder: When the Large Language Model Meets Programming"; "DeepSeek-V3 Technical Report". The bars are
    // U+FF5C, the blanks U+2581.
    Family {
        name: "deepseek",
        around: ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
        suffix_first: false,
        marks: &["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
        ends: &["<｜end▁of▁sentence｜>"],
        has: |name| has_any(name, &["deepseek-coder", "deepseek-v3", "deepseek-v4"]) && !name.contains("distill"),
    },
    // Mistral's tokenizers (mistral-common): the prefix comes last, and nothing behind it.
    Family {
        name: "codestral",
        around: ["[SUFFIX]", "[PREFIX]", ""],
        suffix_first: true,
        marks: &["[PREFIX]", "[SUFFIX]", "[MIDDLE]"],
        ends: &["</s>"],
        has: |name| name.contains("codestral") && !has_any(name, &["mamba", "embed"]),
    },
    // The documentation of Granite 4.
    Family {
        name: "granite",
        around: ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
        suffix_first: false,
        marks: &["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>"],
        ends: &["<|end_of_text|>"],
        has: |name| has_any(name, &["granite-4", "granite4"]),
    },
    // The card of Seed-Coder-8B-Base.
    Family {
        name: "seed",
        around: ["<[fim-suffix]>", "<[fim-prefix]>", "<[fim-middle]>"],
        suffix_first: true,
        marks: &["<[fim-suffix]>", "<[fim-prefix]>", "<[fim-middle]>"],
        ends: &["<[end▁of▁sentence]>"],
        has: |name| name.contains("seed-coder") && !name.contains("reasoning"),
    },
    // "CodeGemma: Open Code Models Based on Gemma".
    Family {
        name: "codegemma",
        around: ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
        suffix_first: false,
        marks: &["<|file_separator|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
        ends: &["<end_of_turn>", "<eos>"],
        has: |name| name.contains("codegemma") && !name.contains("-it"),
    },
];

/// Who asks a model for the middle, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fim {
    /// The server, where its kind takes a suffix; else we, with the template of this family, if the model's name tells one.
    Usual(Option<&'static Family>),
    /// We, with this template, except where the server applies one of its own in any case.
    Filled(&'static Family),
    /// The server, which was set up for it.
    Server,
    /// Nobody: the model was not trained for it.
    Off,
}

/// The words of [`Fim::Server`] and [`Fim::Off`].
const SERVER: &str = "server";
const OFF: &str = "none";

impl Fim {
    /// The words in the configuration.
    pub const NAMES: [&'static str; 10] =
        ["qwen", "starcoder", "codellama", "deepseek", "codestral", "granite", "seed", "codegemma", SERVER, OFF];

    /// What a configuration says.
    pub fn named(word: &str) -> Option<Self> {
        match word {
            SERVER => Some(Self::Server),
            OFF => Some(Self::Off),
            _ => FAMILIES.iter().find(|family| family.name == word).map(Self::Filled),
        }
    }

    /// What is done where nothing is said, by the name that the model has at its servers.
    pub fn usual(model: &str) -> Self {
        let name = model.to_ascii_lowercase();
        Self::Usual(FAMILIES.iter().find(|family| (family.has)(&name)))
    }
}

fn has_any(name: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| name.contains(part))
}

impl Family {
    /// What is added to a prompt, in bytes of UTF-8.
    pub fn added_bytes(&self) -> usize {
        self.around.iter().map(|mark| mark.len()).sum()
    }

    /// What ends an answer, the likeliest first.
    fn stops(&self) -> impl Iterator<Item = &'static str> {
        self.marks.iter().chain(self.ends).copied()
    }

    /// A JSON string of both texts, which are JSON strings too.
    fn prompt(&self, prefix: &str, suffix: &str) -> String {
        let [first, second] = if self.suffix_first { [suffix, prefix] } else { [prefix, suffix] };
        let [before, between, behind] = self.around;
        // No mark needs escapes.
        ["\"", before, inner(first), between, inner(second), behind, "\""].concat()
    }

    fn mark_in(&self, json: &str) -> Option<&'static str> {
        let text = text_of(json)?;
        self.marks.iter().find(|mark| text.contains(**mark)).copied()
    }
}

/// What stands between the quotes of a JSON string.
fn inner(json: &str) -> &str {
    json.get(1..json.len().saturating_sub(1)).unwrap_or_default()
}

/// The two texts of a body, as JSON strings, and its stops.
struct Gap<'a> {
    prefix: &'a str,
    suffix: &'a str,
    stop: Option<&'a str>,
}

impl<'a> Gap<'a> {
    fn of(body: &'a Bytes) -> Result<Self, InvalidRequest> {
        let (_, members) = members_of(body).unwrap_or_default();
        let find = |name: &str| {
            let found = members.iter().rev().find(|member| member.key == name);
            found.map(|member| member.value.get()).filter(|value| *value != "null")
        };
        let text = |name: &'static str| find(name).filter(|value| value.starts_with('"')).ok_or_else(|| one_text(name));
        Ok(Self { prefix: text("prompt")?, suffix: text("suffix")?, stop: find("stop") })
    }

    /// The client's stops as JSON; `None` where they are not what a server takes, which then refuses them.
    fn stops(&self) -> Option<Vec<String>> {
        let Some(stated) = self.stop else { return Some(Vec::new()) };
        if stated.starts_with('"') {
            return Some(vec![stated.to_owned()]);
        }
        let mut stops = Vec::new();
        each_item(stated, |stop: &RawValue| stops.push(stop.get().to_owned())).ok()?;
        Some(stops)
    }
}

/// Members that take the place of a body's own; values are JSON.
pub type Members = Vec<(&'static str, String)>;

/// What a body with a `suffix` says to a model of this family in place of that: a `prompt` with both texts, and `stop`
/// with as many of the family's as fit into so many. A mark within a text is refused.
pub fn filled(body: &Bytes, family: &Family, most_stops: usize) -> Result<Members, InvalidRequest> {
    let gap = Gap::of(body)?;
    for (name, text) in [("prompt", gap.prefix), ("suffix", gap.suffix)] {
        if let Some(mark) = family.mark_in(text) {
            let message = format!(
                "`{name}` has `{mark}` in it, by which this model tells what is before the gap from what is behind it; \
                 send the text without it"
            );
            return Err(InvalidRequest::at(name, message));
        }
    }
    let mut members = vec![("prompt", family.prompt(gap.prefix, gap.suffix))];
    if let Some(mut stops) = gap.stops() {
        let room = most_stops.saturating_sub(stops.len());
        stops.extend(family.stops().take(room).map(quoted));
        members.push(("stop", format!("[{}]", stops.join(","))));
    }
    Ok(members)
}

/// The same for llama.cpp's `/infill`, which has the model's own marks and reads no text as one.
pub fn infill(body: &Bytes) -> Result<Members, InvalidRequest> {
    let gap = Gap::of(body)?;
    let mut members = vec![("input_prefix", gap.prefix.to_owned()), ("input_suffix", gap.suffix.to_owned())];
    // A list alone is read there.
    if let Some(stop) = gap.stop.filter(|stop| stop.starts_with('"')) {
        members.push(("stop", format!("[{stop}]")));
    }
    Ok(members)
}

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Family {}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(name: &str) -> &'static Family {
        match Fim::named(name) {
            Some(Fim::Filled(family)) => family,
            other => panic!("{name}: {other:?}"),
        }
    }

    fn written(body: &str, family: &Family, most_stops: usize) -> Vec<(&'static str, serde_json::Value)> {
        let members = filled(&Bytes::copy_from_slice(body.as_bytes()), family, most_stops).unwrap();
        members.into_iter().map(|(name, json)| (name, serde_json::from_str(&json).unwrap())).collect()
    }

    /// As the papers and cards have them that stand beside the table.
    #[test]
    fn each_family_has_its_prompt() {
        for (name, expected) in [
            ("qwen", "<|fim_prefix|>def f(a):\n    <|fim_suffix|>\n    return b<|fim_middle|>"),
            ("starcoder", "<fim_prefix>def f(a):\n    <fim_suffix>\n    return b<fim_middle>"),
            ("codellama", "<PRE> def f(a):\n     <SUF>\n    return b <MID>"),
            ("deepseek", "<｜fim▁begin｜>def f(a):\n    <｜fim▁hole｜>\n    return b<｜fim▁end｜>"),
            ("codestral", "[SUFFIX]\n    return b[PREFIX]def f(a):\n    "),
            ("granite", "<|fim_prefix|>def f(a):\n    <|fim_suffix|>\n    return b<|fim_middle|>"),
            ("seed", "<[fim-suffix]>\n    return b<[fim-prefix]>def f(a):\n    <[fim-middle]>"),
            ("codegemma", "<|fim_prefix|>def f(a):\n    <|fim_suffix|>\n    return b<|fim_middle|>"),
        ] {
            let body = r#"{"prompt":"def f(a):\n    ","suffix":"\n    return b"}"#;
            let members = written(body, family(name), usize::MAX);
            assert_eq!(members[0], ("prompt", expected.into()), "{name}");
        }
    }

    #[test]
    fn the_words_are_all_of_the_table() {
        let words: Vec<_> = FAMILIES.iter().map(|family| family.name).chain([SERVER, OFF]).collect();
        assert_eq!(words, Fim::NAMES);
        assert!(Fim::NAMES.iter().all(|word| Fim::named(word).is_some()) && Fim::named("").is_none());
    }

    #[test]
    fn every_mark_of_a_prompt_is_kept_out_of_texts_and_ends_answers() {
        for family in FAMILIES {
            for mark in family.around.map(str::trim).into_iter().filter(|mark| !mark.is_empty()) {
                assert!(family.marks.contains(&mark), "{family:?}: {mark}");
            }
            let mut texts = family.stops().chain(family.around);
            assert!(texts.all(|text| quoted(text) == format!("\"{text}\"")), "{family:?}: escapes");
        }
    }

    #[test]
    fn names_tell_the_family_where_they_surely_do() {
        for (model, expected) in [
            ("Qwen/Qwen2.5-Coder-7B-Instruct", Some("qwen")),
            ("qwen3-coder:30b", Some("qwen")),
            ("Qwen/Qwen2.5-7B-Instruct", None),
            ("Qwen/CodeQwen1.5-7B", Some("starcoder")),
            ("bigcode/starcoder2-15b", Some("starcoder")),
            ("stabilityai/stable-code-3b", Some("starcoder")),
            ("ibm-granite/granite-8b-code-base-4k", Some("starcoder")),
            ("ibm-granite/granite-4.0-h-small", Some("granite")),
            ("ibm-granite/granite-3.0-8b-instruct", None),
            ("codellama/CodeLlama-13b-hf", Some("codellama")),
            ("codellama/CodeLlama-7b-Python-hf", None),
            ("codellama/CodeLlama-34b-hf", None),
            ("codellama/CodeLlama-70b-hf", None),
            ("deepseek-ai/deepseek-coder-6.7b-base", Some("deepseek")),
            ("deepseek-ai/DeepSeek-V3.1", Some("deepseek")),
            ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", None),
            ("mistralai/Codestral-22B-v0.1", Some("codestral")),
            ("mistralai/Mamba-Codestral-7B-v0.1", None),
            ("ByteDance-Seed/Seed-Coder-8B-Base", Some("seed")),
            ("ByteDance-Seed/Seed-Coder-8B-Reasoning", None),
            ("google/codegemma-2b", Some("codegemma")),
            ("google/codegemma-7b-it", None),
            ("meta-llama/Llama-3.1-8B", None),
        ] {
            let Fim::Usual(found) = Fim::usual(model) else { panic!("{model}") };
            assert_eq!(found.map(|family| family.name), expected, "{model}");
        }
    }

    #[test]
    fn stops_are_the_clients_and_then_ours_as_far_as_there_is_room() {
        let stops = |stop: &str, most: usize| {
            let body = format!(r#"{{"prompt":"a","suffix":"b"{stop}}}"#);
            let members = written(&body, family("codellama"), most);
            members.get(1).map(|(_, stops)| stops.to_string())
        };
        let all = usize::MAX;
        assert_eq!(stops("", all).as_deref(), Some(r#"["<EOT>","<PRE>","<SUF>","<MID>"]"#));
        assert_eq!(stops(r#","stop":null"#, 1).as_deref(), Some(r#"["<EOT>"]"#));
        assert_eq!(stops(r#","stop":"\n""#, 2).as_deref(), Some(r#"["\n","<EOT>"]"#));
        assert_eq!(stops(r#","stop":[ "x" , "y" ]"#, 4).as_deref(), Some(r#"["x","y","<EOT>","<PRE>"]"#));
        assert_eq!(stops(r#","stop":["1","2","3","4","5"]"#, 4).as_deref(), Some(r#"["1","2","3","4","5"]"#));
        assert_eq!(stops(r#","stop":7"#, 4), None, "the server's to refuse");
    }

    #[test]
    fn marks_in_texts_are_refused_however_they_are_spelled() {
        let refused = |body: &str, name: &str| {
            let body = Bytes::copy_from_slice(body.as_bytes());
            filled(&body, family(name), 4).err().map(|fault| (fault.param.unwrap(), fault.message))
        };
        for (body, param) in [
            (r#"{"prompt":"a<|fim_suffix|>b","suffix":"c"}"#, "prompt"),
            (r#"{"prompt":"a","suffix":"\u003c|fim_middle|\u003e"}"#, "suffix"),
            (r#"{"prompt":"\ud800<|file_sep|>","suffix":"c"}"#, "prompt"),
        ] {
            let (found, message) = refused(body, "qwen").unwrap();
            assert!(found == param && message.contains("<|fi"), "{body}: {message}");
        }
        // Another family's marks, and what merely ends a text, are text.
        assert_eq!(refused(r#"{"prompt":"<fim_suffix> <|endoftext|>","suffix":"<PRE>"}"#, "qwen"), None);
        assert_eq!(refused(r#"{"prompt":["a"],"suffix":"c"}"#, "qwen").unwrap().0, "prompt");
    }

    #[test]
    fn texts_keep_their_bytes() {
        let body = Bytes::from_static(br#"{"prompt":"\u0061\ud800\"","suffix":"\/b","stop":"x"}"#);
        let members = filled(&body, family("starcoder"), 1).unwrap();
        assert_eq!(members[0].1, r#""<fim_prefix>\u0061\ud800\"<fim_suffix>\/b<fim_middle>""#);
        let native = infill(&body).unwrap();
        let expected = [("input_prefix", r#""\u0061\ud800\"""#), ("input_suffix", r#""\/b""#), ("stop", r#"["x"]"#)];
        assert_eq!(native, expected.map(|(name, json)| (name, json.to_owned())));
    }
}
