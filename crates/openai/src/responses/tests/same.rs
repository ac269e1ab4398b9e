use proptest::prelude::*;
use serde_json::{Value, json};

use super::{super::ask_as_chat, End, NAMES, events, retelling};

/// What a choice says, in the order in which servers say it.
#[derive(Clone, Debug)]
struct Answer {
    reasoning: String,
    content: String,
    refusal: String,
    calls: Vec<(String, String)>,
    finish: &'static str,
}

fn answer() -> impl Strategy<Value = Answer> {
    let name = prop::sample::select(vec!["f", "patch", "files__read", "", "é"]);
    let arguments = prop_oneof![Just(r#"{"input":"ä\n"}"#.to_owned()), ".{0,12}", Just("{\"a\": 1}".to_owned())];
    let calls = prop::collection::vec((name.prop_map(str::to_owned), arguments), 0..4);
    let finish = prop::sample::select(vec!["stop", "length", "tool_calls", "content_filter"]);
    (".{0,12}", ".{0,12}", "[a-z]{0,4}", calls, finish)
        .prop_map(|(reasoning, content, refusal, calls, finish)| Answer { reasoning, content, refusal, calls, finish })
}

/// Pieces of a text, cut at some of these places.
fn pieces(text: &str, cuts: &[usize]) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for (at, letter) in text.chars().enumerate() {
        if cuts.contains(&at) {
            pieces.push(String::new());
        }
        pieces.last_mut().unwrap().push(letter);
    }
    pieces
}

impl Answer {
    fn whole(&self) -> String {
        let call = |(at, (name, arguments)): (usize, &(String, String))| json!({"id": format!("c{at}"), "type": "function", "function": {"name": name, "arguments": arguments}});
        let calls: Vec<_> = self.calls.iter().enumerate().map(call).collect();
        let message = json!({
            "content": self.content, "reasoning": self.reasoning, "refusal": self.refusal, "tool_calls": calls,
        });
        json!({
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish}],
            "usage": {"prompt_tokens": 4, "completion_tokens": 2},
        })
        .to_string()
    }

    fn chunks(&self, cuts: &[usize]) -> Vec<String> {
        let mut deltas = Vec::new();
        for (member, text) in [("reasoning", &self.reasoning), ("content", &self.content), ("refusal", &self.refusal)] {
            deltas.extend(pieces(text, cuts).into_iter().map(|piece| json!({member: piece})));
        }
        for (index, (name, arguments)) in self.calls.iter().enumerate() {
            let mut head =
                json!({"index": index, "id": format!("c{index}"), "function": {"name": name, "arguments": ""}});
            for piece in pieces(arguments, cuts) {
                head["function"]["arguments"] = piece.into();
                deltas.push(json!({"tool_calls": [head]}));
                head = json!({"index": index, "function": {}});
            }
        }
        deltas.push(json!({}));
        let last = deltas.len() - 1;
        let chunk = |(at, delta): (usize, Value)| {
            let finish = (at == last).then_some(self.finish);
            json!({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}).to_string()
        };
        let mut chunks: Vec<String> = deltas.into_iter().enumerate().map(chunk).collect();
        chunks.push(json!({"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}}).to_string());
        chunks
    }
}

/// JSON with members that are read, in any shape.
fn anything() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "message",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "reasoning",
        "function",
        "custom",
        "namespace",
        "allowed_tools",
        "auto",
        "user",
        "assistant",
        "input_text",
        "input_image",
        "grammar",
        "lark",
        "",
        "a",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        word.prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "model",
        "input",
        "tools",
        "tool_choice",
        "text",
        "format",
        "reasoning",
        "type",
        "role",
        "content",
        "name",
        "call_id",
        "arguments",
        "output",
        "summary",
        "mode",
        "syntax",
        "definition",
        "schema",
        "include",
        "metadata",
        "stream",
        "x",
        "choices",
        "delta",
        "message",
        "index",
        "tool_calls",
        "function",
        "usage",
        "logprobs",
        "token",
        "finish_reason",
    ]);
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(key.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn however_an_answer_comes_it_is_the_same_response(answer in answer(), cuts in prop::collection::vec(0_usize..12, 0..6)) {
        let told = retelling(&json!({"tools": [
            {"type": "custom", "name": "patch"},
            {"type": "namespace", "name": "files", "tools": [{"type": "function", "name": "read"}]},
        ]}));
        let whole: Value = serde_json::from_slice(&told.whole(answer.whole().as_bytes(), NAMES)).unwrap();
        let events = events(told.as_ref(), &answer.chunks(&cuts), End::Done);
        let data: Vec<Value> = events.iter().map(|(_, data)| serde_json::from_str(data).unwrap()).collect();
        prop_assert_eq!(&data.last().unwrap()["response"], &whole);
        let done: Vec<&Value> = data.iter().filter(|data| data["type"] == "response.output_item.done").map(|data| &data["item"]).collect();
        prop_assert_eq!(done, whole["output"].as_array().unwrap().iter().collect::<Vec<_>>());
    }

    #[test]
    fn no_body_is_too_odd(body in anything(), input in anything(), chunks in prop::collection::vec(anything(), 0..5)) {
        for request in [body.clone(), json!({"input": "a", "tools": body}), json!({"input": input})] {
            if let Ok(asked) = ask_as_chat(request.to_string().as_bytes()) {
                serde_json::from_slice::<Value>(&asked.body).unwrap();
                let chunks: Vec<String> = chunks.iter().map(Value::to_string).collect();
                for (_, data) in events(asked.retelling.as_ref(), &chunks, End::Done) {
                    serde_json::from_str::<Value>(&data).unwrap();
                }
                for chunk in &chunks {
                    serde_json::from_slice::<Value>(&asked.retelling.whole(chunk.as_bytes(), NAMES)).unwrap();
                }
            }
        }
    }

    #[test]
    fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _asked = ask_as_chat(&bytes);
        let told = retelling(&json!({}));
        serde_json::from_slice::<Value>(&told.whole(&bytes, NAMES)).unwrap();
    }
}
