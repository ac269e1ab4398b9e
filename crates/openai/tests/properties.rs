//! Holds: properties of the byte-level parts, against `serde_json`'s own tree.

#![expect(clippy::unwrap_used, reason = "a test's unwrap is its assertion")]

use batchin_openai::{
    Encoding, Limit, LimitName, Ranking, Rewrite, Vectors, Wanted, read_wanted, rewrite, rewrite_answer, sse,
};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Map, Value};

/// Keys that edits touch and keys that they do not, some spelled with escapes.
fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "model",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "priority",
        "suffix",
        "id",
        "a",
        "é",
    ])
    .prop_map(String::from)
}

/// A value as it is spelled; numbers keep spellings that a tree would lose.
fn spelled() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        Just("1.50e+00".to_owned()),
        Just("-0.0".to_owned()),
        Just("12345678901234567890123".to_owned()),
        Just("7".to_owned()),
        Just("4.0".to_owned()),
        Just("\"\\u0061\\\"},{\\\\\"".to_owned()),
        Just("\"größe\"".to_owned()),
        Just("{\"include_usage\":false,\"x\" : 1.0}".to_owned()),
        Just("{\"include_usage\":true}".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
            prop::collection::vec(inner, 0..4).prop_map(|items| {
                let members: Vec<_> = items.iter().enumerate().map(|(i, item)| format!("\"k{i}\": {item}")).collect();
                format!("{{ {} }}", members.join(","))
            }),
        ]
    })
}

fn space() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", " ", "\n", "\t "])
}

/// Members with distinct keys, and the body they make.
fn body() -> impl Strategy<Value = (Vec<(String, String)>, String)> {
    let member = (key(), spelled(), space(), space(), space());
    (prop::collection::vec(member, 0..8), space(), space()).prop_map(|(members, before, after)| {
        let mut distinct: Vec<(String, String)> = Vec::new();
        let mut parts = Vec::new();
        for (key, value, s1, s2, s3) in members {
            if distinct.iter().any(|(known, _)| *known == key) {
                continue;
            }
            parts.push(format!("{s1}\"{key}\"{s2}:{s3}{value}{s1}"));
            distinct.push((key, value));
        }
        (distinct, format!("{before}{{{}}}{after}", parts.join(",")))
    })
}

/// The same edit on a tree.
fn expected(mut tree: Map<String, Value>, edit: &Rewrite<'_>) -> Map<String, Value> {
    let stated = |tree: &Map<String, Value>, key: &str| tree.get(key).is_some_and(|value| !value.is_null());
    // `-0.0` is a way to write zero, which is written without its sign.
    let whole =
        |value: &Value| value.as_f64().filter(|number| number.trunc() == *number && *number >= 0.0).map(f64::abs);
    let limit = edit.limit.and_then(|limit| {
        let said = ["max_tokens", "max_completion_tokens"].into_iter().filter_map(|name| whole(tree.get(name)?));
        said.chain(limit.most.map(f64::from)).min_by(f64::total_cmp)
    });
    let needs_default: Vec<_> = edit.defaults.iter().filter(|(key, _)| !stated(&tree, key)).collect();
    if let Some(stream) = edit.stream
        && (stream || stated(&tree, "stream"))
    {
        tree.insert("stream".into(), stream.into());
    }
    if edit.include_usage {
        let mut options = match tree.remove("stream_options") {
            Some(Value::Object(options)) => options,
            _ => Map::new(),
        };
        options.insert("include_usage".into(), true.into());
        tree.insert("stream_options".into(), options.into());
    }
    for key in edit.remove {
        tree.remove(*key);
    }
    if edit.drop_nulls {
        tree.retain(|_, value| !value.is_null());
    }
    if let Some(model) = edit.model {
        tree.insert("model".into(), model.into());
    }
    if let (Some(told), Some(limit)) = (edit.limit, limit) {
        tree.remove("max_tokens");
        tree.remove("max_completion_tokens");
        if let Some(name) = told.name.member() {
            tree.insert(name.into(), serde_json::from_str(&format!("{:.0}", limit.min(u32::MAX.into()))).unwrap());
        }
    }
    if let Some(priority) = edit.priority {
        tree.insert("priority".into(), priority.into());
    }
    for (key, value) in needs_default {
        tree.insert((*key).into(), serde_json::from_str(value).unwrap());
    }
    tree
}

const TOUCHED: [&str; 8] =
    ["model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "priority", "suffix", "id"];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rewrite_equals_the_edited_tree_and_spares_the_rest(
        (members, text) in body(),
        model in prop::option::of(prop::sample::select(vec!["m", "Qwen/\"q\"\\é"])),
        stream in prop::option::of(any::<bool>()),
        include_usage: bool,
        most in prop::option::of(1_u32..9),
        name in prop::option::of(prop::sample::select(vec![
            LimitName::MaxTokens, LimitName::MaxCompletionTokens, LimitName::None,
        ])),
        priority in prop::option::of(-3_i32..9),
        remove_suffix: bool,
        default_suffix: bool,
        drop_nulls: bool,
    ) {
        let edit = Rewrite {
            model,
            stream,
            include_usage,
            continuous_usage: false,
            limit: name.map(|name| Limit { name, most, least: 0 }),
            tidy: false,
            priority,
            set: &[],
            remove: if remove_suffix && !default_suffix { &["suffix"] } else { &[] },
            defaults: if default_suffix { &[("suffix", "\"\"")] } else { &[] },
            drop_nulls,
        };
        let out = rewrite(&Bytes::from(text.clone()), &edit);
        let tree: Map<String, Value> = serde_json::from_str(&text).unwrap();
        let found: Map<String, Value> = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(&found, &expected(tree, &edit));
        let raw: std::collections::BTreeMap<String, &serde_json::value::RawValue> = serde_json::from_slice(&out).unwrap();
        for (key, value) in members.iter().filter(|(key, _)| !TOUCHED.contains(&key.as_str())) {
            if drop_nulls && value == "null" {
                prop_assert!(!raw.contains_key(key));
            } else {
                prop_assert_eq!(raw[key].get(), value.as_str());
            }
        }
    }

    #[test]
    fn answer_gets_its_names_and_keeps_the_rest((members, text) in body()) {
        let out = rewrite_answer(&Bytes::from(text.clone()), "i", "m");
        let mut tree: Map<String, Value> = serde_json::from_str(&text).unwrap();
        tree.insert("id".into(), "i".into());
        tree.insert("model".into(), "m".into());
        prop_assert_eq!(&serde_json::from_slice::<Map<String, Value>>(&out).unwrap(), &tree);
        // A chunk with choices leaves; the rest of it is as it came.
        let more = if members.is_empty() { "" } else { "," };
        let chunk = text.replacen('{', &format!("{{\"choices\":[{{\"delta\":{{}}}}]{more}"), 1);
        tree.insert("choices".into(), serde_json::json!([{"delta": {}}]));
        let frame = batchin_openai::Relay::new("i", "m", false).frame(chunk.as_bytes()).unwrap().frame;
        let data = frame.strip_prefix(b"data: ").and_then(|rest| rest.strip_suffix(b"\n\n")).unwrap();
        prop_assert!(!data.contains(&b'\n'));
        prop_assert_eq!(&serde_json::from_slice::<Map<String, Value>>(data).unwrap(), &tree);
    }

    #[test]
    fn a_chunk_is_edited_in_place(
        (_, text) in body(),
        usage in prop::option::of((spelled(), 0_usize..8)),
        calls in prop::collection::vec((prop::option::of(0_u32..3), prop::option::of(0_u32..3), space()), 0..5),
        reason in prop::sample::select(vec!["null", "\"\"", "\"stop\"", "\" \""]),
        include_usage: bool,
    ) {
        let mut chunk: Map<String, Value> = serde_json::from_str(&text).unwrap();
        let parts: Vec<String> = calls.iter().map(|(index, id, space)| {
            let index = index.map(|index| format!("\"index\" :{space}{index}"));
            let id = id.map(|id| format!("{space}\"id\":\"c{id}\""));
            format!("{{{space}{}}}", index.into_iter().chain(id).collect::<Vec<_>>().join(","))
        }).collect();
        let choices = format!("[{{\"delta\":{{\"tool_calls\":[{}]}},\"finish_reason\":{reason}}}]", parts.join(","));
        let mut members: Vec<String> = chunk.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        members.push(format!("\"choices\":{choices}"));
        if let Some((usage, at)) = &usage {
            members.insert(at % (members.len() + 1), format!("\"usage\" : {usage}"));
        }
        let framed = batchin_openai::Relay::new("i", "m", include_usage)
            .frame(format!("{{{} }}", members.join(" , ")).as_bytes())
            .unwrap();
        let data = framed.frame.strip_prefix(b"data: ").and_then(|rest| rest.strip_suffix(b"\n\n")).unwrap();
        let mut left: Map<String, Value> = serde_json::from_slice(data).unwrap();
        chunk.insert("id".into(), "i".into());
        chunk.insert("model".into(), "m".into());
        if let Some((usage, _)) = usage.filter(|_| include_usage) {
            chunk.insert("usage".into(), serde_json::from_str(&usage).unwrap());
        }
        let choice = left.remove("choices").unwrap()[0].take();
        prop_assert_eq!(&left, &chunk);
        prop_assert_eq!(choice["finish_reason"].as_str(), Some("stop").filter(|_| reason == "\"stop\""));
        prop_assert_eq!(framed.facts.ends, u32::from(reason == "\"stop\""));
        // Numbers go up by one at most, from zero, and are there; so are as many parts as came.
        let parts = choice["delta"]["tool_calls"].as_array().unwrap();
        prop_assert_eq!(parts.len(), calls.len());
        let mut most = 0;
        for part in parts {
            let index = part["index"].as_u64().unwrap();
            prop_assert!(index <= most, "{parts:?}");
            most = most.max(index + 1);
        }
    }

    #[test]
    fn streams_and_assembled_answers_number_calls_alike(
        calls in prop::collection::vec((prop::option::of(0_u32..3), prop::option::of(0_u32..4), 0_u32..3), 1..8),
    ) {
        let mut relay = batchin_openai::Relay::new("i", "m", false);
        let mut answer = batchin_openai::Assembler::new(batchin_domain::CallKind::Chat, "i", "m", 1024 * 1024);
        let mut passed: Vec<String> = Vec::new();
        for (index, id, text) in calls {
            let mut call = serde_json::json!({"function": {"arguments": "x".repeat(text as usize)}});
            if let Some(index) = index {
                call["index"] = index.into();
            }
            if let Some(id) = id {
                call["id"] = format!("c{id}").into();
            }
            let chunk = serde_json::json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}).to_string();
            let framed = relay.frame(chunk.as_bytes()).unwrap();
            prop_assert_eq!(&answer.take(chunk.as_bytes()).unwrap(), &framed.facts);
            let data = framed.frame.strip_prefix(b"data: ").unwrap();
            let data: Value = serde_json::from_slice(data).unwrap();
            let part = &data["choices"][0]["delta"]["tool_calls"][0];
            let at = usize::try_from(part["index"].as_u64().unwrap()).unwrap();
            passed.resize(passed.len().max(at + 1), String::new());
            passed[at].push_str(part["function"]["arguments"].as_str().unwrap());
        }
        let whole: Value = serde_json::from_slice(&answer.finish().unwrap().body).unwrap();
        let calls = whole["choices"][0]["message"]["tool_calls"].as_array().unwrap();
        let assembled: Vec<&str> = calls.iter().map(|call| call["function"]["arguments"].as_str().unwrap()).collect();
        prop_assert_eq!(assembled, passed);
    }

    #[test]
    fn stream_reads_the_same_however_it_is_split(
        lines in prop::collection::vec(
            (prop::sample::select(vec!["data: {\"a\":\"é\u{1F600}\"}", "data:b", "data", ": ping", "event: e", "", "", "id: 1", "nonsense"]),
             prop::sample::select(vec!["\n", "\r\n", "\r"])),
            0..24,
        ),
        cuts in prop::collection::vec(0_usize..400, 0..12),
    ) {
        let text: String = lines.iter().map(|(line, end)| format!("{line}{end}")).collect();
        let whole = read(&[text.as_bytes()]);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (text.len() + 1)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
        prop_assert_eq!(&read(&pieces), &whole);
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        prop_assert_eq!(&read(&bytes), &whole);
    }

    #[test]
    fn no_body_makes_peek_panic(body in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,80}") {
        for call in batchin_domain::CallKind::ALL {
            let _refused_or_not = batchin_openai::peek(call, &body).is_ok();
            let _refused_or_not = batchin_openai::peek(call, format!("{{\"model\":{text}}}").as_bytes()).is_ok();
        }
        assert!(!batchin_openai::upstream_error_message(500, &body).message.is_empty());
        assert!(!batchin_openai::upstream_error_message(500, text.as_bytes()).message.is_empty());
        let mut relay = batchin_openai::Relay::new("i", "m", true);
        let raw = Bytes::from(body.clone());
        let _read_or_not = (relay.frame(&body).is_ok(), relay.frame_whole(&body).is_ok());
        let _read_or_not = batchin_openai::read_answer(&raw, "i", "m").is_ok();
        let vectors = Vectors { inputs: 1, encoding: Encoding::Base64 };
        let ranking = Ranking { documents: 1, best: 1, returns_documents: true };
        for wanted in [Wanted::Vectors(vectors), Wanted::Ranking(ranking)] {
            for shape in [format!("{{\"data\":[{{{text}}}]}}"), format!("{{\"results\":[{text}]}}"), text.clone()] {
                let _read_or_not = read_wanted(&Bytes::from(shape), ("i", "m"), (wanted, &body)).is_ok();
            }
            let _read_or_not = read_wanted(&raw, ("i", "m"), (wanted, text.as_bytes())).is_ok();
        }
        let _any = batchin_openai::documents_as_texts(&raw);
        for shape in [
            format!("{{\"choices\":[{{\"delta\":{{{text}}}}}],\"usage\":{{{text}}}}}"),
            format!("{{\"choices\":[{{{text}}}],\"usage\":{text},\"error\":{text}}}"),
            format!("{{{text}}}"),
        ] {
            let _read_or_not = (relay.frame(shape.as_bytes()).is_ok(), relay.frame_whole(shape.as_bytes()).is_ok());
            let _read_or_not = batchin_openai::usage_of(shape.as_bytes());
        }
    }
}

fn read(pieces: &[&[u8]]) -> Vec<sse::Item> {
    let mut decoder = sse::Decoder::new();
    let mut items = Vec::new();
    for piece in pieces {
        decoder.push(Bytes::copy_from_slice(piece));
        while let Some(item) = decoder.next_item().unwrap() {
            items.push(item);
        }
    }
    items.extend(decoder.finish().unwrap());
    items
}
