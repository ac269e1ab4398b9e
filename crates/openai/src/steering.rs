//! Holds: the members of a body that would steer a model server past what its request pays for, by who reads them.
//!
//! Names alone. They are part of no request that is priced here, so they go to no server at all: one of them may stand
//! behind another, and a server's next version may read what this one ignores.

use std::sync::LazyLock;

/// Who reads some members, and the members. docs/models.md shows the same lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steering {
    /// The servers, as the documentation calls them.
    pub readers: &'static str,
    /// What the members would do.
    pub effect: &'static str,
    /// Their names.
    pub names: &'static [&'static str],
}

/// Every member that is taken out of a body before it goes to a model server.
pub const STEERING: &[Steering] = &[
    Steering {
        readers: "any",
        effect: "more tokens or answers than are held",
        names: &[
            "n_predict",
            "num_predict",
            "max_new_tokens",
            "max_output_tokens",
            "max_length",
            "max_tokens_to_sample",
            "n_cmpl",
            "num_return_sequences",
            "num_beams",
            "beam_width",
            "use_beam_search",
        ],
    },
    Steering {
        readers: "any",
        effect: "members within members, which some clients and proxies unpack",
        names: &["extra_body", "extra_headers", "extra_query", "options", "sampling_params", "nvext"],
    },
    Steering {
        readers: "vLLM, SGLang",
        effect: "a place in the queue, a worker, an adapter, code, the name of another's request",
        names: &[
            "priority",
            "request_id",
            "rid",
            "session_id",
            "session_params",
            "kv_transfer_params",
            "vllm_xargs",
            "logits_processors",
            "custom_logit_processor",
            "custom_params",
            "lora_path",
            "lora_request",
            "adapter_id",
            "data_parallel_rank",
            "routed_dp_rank",
            "disagg_prefill_dp_rank",
            "bootstrap_host",
            "bootstrap_port",
            "bootstrap_room",
            "bootstrap_pair_key",
        ],
    },
    Steering {
        readers: "llama.cpp",
        effect: "a slot, its cache, an adapter, time",
        names: &[
            "id_slot",
            "slot_id",
            "cache_prompt",
            "n_keep",
            "n_discard",
            "n_cache_reuse",
            "t_max_prompt_ms",
            "t_max_predict_ms",
            "sse_ping_interval",
            "lora",
            "speculative.n_max",
            "speculative.n_min",
            "speculative.p_min",
            "speculative.type",
        ],
    },
    Steering {
        readers: "Ollama",
        effect: "memory, the length of its stay, the template",
        names: &[
            "num_ctx",
            "num_keep",
            "num_batch",
            "num_gpu",
            "num_thread",
            "main_gpu",
            "use_mmap",
            "keep_alive",
            "template",
            "raw",
            "context",
            "shift",
            "_debug_render_only",
        ],
    },
    Steering {
        readers: "vLLM-Omni, SGLang Diffusion",
        effect: "more pictures than are held, members within members, files on the server's disk",
        names: &[
            "layers",
            "num_outputs_per_prompt",
            "extra_params",
            "extra_args",
            "extra_json",
            "output_path",
            "output_file_name",
            "save_output",
            "return_file_paths_only",
            "image_path",
        ],
    },
    Steering { readers: "the embedded engine", effect: "the class", names: &["x-batchin-class"] },
    Steering {
        readers: "hosted servers",
        effect: "the operator's price, what is stored in the operator's account, tools that are billed by the call",
        names: &[
            "service_tier",
            "prediction",
            "store",
            "metadata",
            "prompt_cache_retention",
            "web_search_options",
            "search_parameters",
            "search_options",
            "search_settings",
            "enable_search",
            "data_sources",
        ],
    },
    Steering {
        readers: "routers and proxies",
        effect: "another model, another server, another key",
        names: &[
            "models",
            "route",
            "provider",
            "plugins",
            "transforms",
            "preset",
            "fallbacks",
            "context_window_fallback_dict",
            "model_list",
            "user_config",
            "api_base",
            "api_key",
            "api_version",
            "base_url",
            "custom_llm_provider",
            "specific_deployment",
            "litellm_metadata",
            "litellm_params",
            "mock_response",
            "num_retries",
            "max_retries",
            "timeout",
            "request_timeout",
            "cache",
            "caching",
            "guardrails",
            "tags",
        ],
    },
];

/// All names of [`STEERING`], sorted.
static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let mut names: Vec<_> = STEERING.iter().flat_map(|group| group.names).copied().collect();
    names.sort_unstable();
    names
});

/// Whether this member goes to no server.
pub(crate) fn is_steering(name: &str) -> bool {
    NAMES.binary_search(&name).is_ok()
}

/// The member of these from which this one differs by case alone.
///
/// Servers written in Go take both for the same one, and the last one wins. Case is folded as Go's `encoding/json` folds it:
/// besides the letters of ASCII, `ſ` is an s and the Kelvin sign a k.
pub(crate) fn folds_to(name: &str, names: &[&'static str]) -> Option<&'static str> {
    // Names are in small letters of ASCII; only others can differ by case.
    if name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        return None;
    }
    let folded = folded(name);
    names.iter().find(|known| **known == folded).copied()
}

/// As [`folds_to`], of [`STEERING`].
pub(crate) fn folds_to_steering(name: &str) -> Option<&'static str> {
    folds_to(name, &NAMES)
}

fn folded(name: &str) -> String {
    let fold = |letter: char| match letter {
        'ſ' => 's',
        '\u{212a}' => 'k',
        _ => letter.to_ascii_lowercase(),
    };
    name.chars().map(fold).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_small_letters_and_stand_once() {
        assert!(NAMES.iter().all(|name| name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase())));
        let doubled: Vec<_> = NAMES.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(doubled.is_empty(), "{doubled:?}");
        assert!(is_steering("priority") && is_steering("x-batchin-class") && !is_steering("temperature"));
    }

    #[test]
    fn case_is_folded_as_go_folds_it() {
        for (name, same) in [
            ("Model", Some("model")),
            ("MODEL", Some("model")),
            ("max_toKens", Some("max_tokens")),
            ("max_to\u{212a}en\u{17f}", Some("max_tokens")),
            ("model", None),
            ("maxTokens", None),
            ("mod\u{e9}l", None),
            ("Other", None),
        ] {
            assert_eq!(folds_to(name, &["model", "max_tokens"]), same, "{name}");
        }
        assert_eq!(
            (folds_to_steering("Priority"), folds_to_steering("\u{17f}tore")),
            (Some("priority"), Some("store"))
        );
    }

    #[test]
    fn every_name_is_documented() {
        let docs = include_str!("../../../docs/models.md");
        for group in STEERING {
            let line = docs.lines().find(|line| line.starts_with(&format!("| {} | {} |", group.readers, group.effect)));
            let line =
                line.unwrap_or_else(|| panic!("docs/models.md has no row for {} ({})", group.readers, group.effect));
            for name in group.names {
                assert!(
                    line.contains(&format!("`{name}`")),
                    "docs/models.md: `{name}` is missing for {}",
                    group.readers
                );
            }
        }
    }
}
