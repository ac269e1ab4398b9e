//! Holds: the property of assembling: an answer cut into chunks at random is that answer again.

#![expect(clippy::unwrap_used, reason = "a test's unwrap is its assertion")]

use batchin_domain::CallKind;
use batchin_openai::Assembler;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Text with what JSON escapes and what it does not.
fn text() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", " ", "\"", "\\", "\n", "é", "\u{1F600}", "\u{7}", "data: ", "{", "]"]);
    prop::collection::vec(part, 1..12).prop_map(|parts| parts.concat())
}

fn maybe<T: std::fmt::Debug + Clone + 'static>(some: impl Strategy<Value = T> + 'static) -> BoxedStrategy<Option<T>> {
    prop::option::of(some).boxed()
}

fn call() -> impl Strategy<Value = Value> {
    (0..1000_u32, text(), text()).prop_map(|(id, name, arguments)| {
        json!({"id": format!("call_{id}"), "type": "function", "function": {"name": name, "arguments": arguments}})
    })
}

fn chat_choice() -> impl Strategy<Value = Value> {
    let calls = prop::collection::vec(call(), 0..3).prop_filter("ids differ", |calls| {
        calls.iter().enumerate().all(|(at, call)| calls[..at].iter().all(|other| other["id"] != call["id"]))
    });
    let reason = prop::sample::select(vec!["stop", "length", "tool_calls", "content_filter"]);
    let logprobs = maybe(prop::collection::vec(text(), 1..5));
    (maybe(text()), maybe(text()), calls, logprobs, reason, maybe(0..9_u32)).prop_map(
        |(content, reasoning, calls, logprobs, reason, stop)| {
            let mut message = json!({"role": "assistant", "content": content});
            if let Some(reasoning) = reasoning {
                // The answer tells it under both names, whichever of them the chunks have.
                (message["reasoning_content"], message["reasoning"]) = (reasoning.clone().into(), reasoning.into());
            }
            if !calls.is_empty() {
                message["tool_calls"] = calls.into();
            }
            let content = logprobs.map(|tokens| {
                tokens.into_iter().map(|token| json!({"token": token, "logprob": -0.25})).collect::<Vec<_>>()
            });
            let logprobs = content.map_or(Value::Null, |content| json!({"content": content, "refusal": null}));
            let mut choice = json!({"message": message, "logprobs": logprobs, "finish_reason": reason});
            if let Some(stop) = stop {
                choice["stop_reason"] = stop.into();
            }
            choice
        },
    )
}

fn completion_choice() -> impl Strategy<Value = Value> {
    let tokens = maybe(prop::collection::vec(text(), 1..5));
    (text(), tokens).prop_map(|(text, tokens)| {
        let logprobs = tokens.map_or(Value::Null, |tokens| {
            let offsets: Vec<usize> = (0..tokens.len()).collect();
            json!({"tokens": tokens, "text_offset": offsets, "top_logprobs": null})
        });
        json!({"text": text, "logprobs": logprobs, "finish_reason": "stop"})
    })
}

fn answer(chat: bool) -> impl Strategy<Value = Value> {
    let choice = if chat { chat_choice().boxed() } else { completion_choice().boxed() };
    (prop::collection::vec(choice, 1..4), 1..99_u32, maybe(text()), any::<bool>()).prop_map(
        move |(mut choices, tokens, fingerprint, usage)| {
            for (at, choice) in choices.iter_mut().enumerate() {
                choice["index"] = at.into();
            }
            let object = if chat { "chat.completion" } else { "text_completion" };
            let mut answer = json!({"id": "i", "object": object, "created": 5, "model": "m", "choices": choices});
            if let Some(fingerprint) = fingerprint {
                answer["system_fingerprint"] = fingerprint.into();
            }
            if usage {
                answer["usage"] = json!({"prompt_tokens": tokens, "completion_tokens": 3});
            }
            answer
        },
    )
}

/// Cuts by numbers that came at random.
struct Cuts {
    numbers: Vec<usize>,
    at: usize,
}

impl Cuts {
    fn next(&mut self, below: usize) -> usize {
        self.at += 1;
        self.numbers[self.at % self.numbers.len()] % below
    }

    /// One to four pieces that make the text, some of them empty.
    fn text(&mut self, text: &str) -> Vec<String> {
        let chars: Vec<char> = text.chars().collect();
        let mut ends: Vec<usize> = (0..self.next(4)).map(|_| self.next(chars.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(chars.len());
        let mut from = 0;
        ends.into_iter().map(|to| chars[std::mem::replace(&mut from, to)..to].iter().collect()).collect()
    }

    /// The chunks' parts of one choice, in their order.
    fn choice(&mut self, choice: &Value) -> Vec<Value> {
        let index = &choice["index"];
        let part = |delta: Value| json!({"index": index, "delta": delta, "finish_reason": null});
        let mut parts = Vec::new();
        if let Some(text) = choice["text"].as_str() {
            parts.extend(self.text(text).into_iter().map(|text| json!({"index": index, "text": text})));
        }
        if let Some(message) = choice.get("message") {
            parts.push(part(json!({"role": "assistant", "content": message["content"].as_str().map(|_| "")})));
            for key in ["reasoning_content", "content"] {
                let pieces = message[key].as_str().map(|text| self.text(text)).unwrap_or_default();
                parts.extend(pieces.into_iter().map(|text| part(json!({ key: text }))));
            }
            for (at, call) in message["tool_calls"].as_array().into_iter().flatten().enumerate() {
                let mut open = call.clone();
                open["index"] = at.into();
                open["function"]["arguments"] = "".into();
                parts.push(part(json!({ "tool_calls": [open] })));
                for arguments in self.text(call["function"]["arguments"].as_str().unwrap()) {
                    parts.push(part(json!({"tool_calls": [{"index": at, "function": {"arguments": arguments}}]})));
                }
            }
        }
        self.logprobs(&choice["logprobs"], &mut parts);
        let last = parts.last_mut().unwrap();
        last["finish_reason"] = choice["finish_reason"].clone();
        if let Some(stop) = choice.get("stop_reason") {
            last["stop_reason"] = stop.clone();
        }
        parts
    }

    /// Spreads the entries over the parts.
    fn logprobs(&mut self, logprobs: &Value, parts: &mut [Value]) {
        let Some(object) = logprobs.as_object() else { return };
        let entries = object.values().find_map(Value::as_array).unwrap().len();
        let mut from = 0;
        let count = parts.len();
        for (at, part) in parts.iter_mut().enumerate() {
            let to = if at + 1 == count { entries } else { from + self.next(entries - from + 1) };
            let mut piece = logprobs.clone();
            for (key, value) in object {
                if let Some(list) = value.as_array() {
                    piece[key] = list[from..to].into();
                }
            }
            part["logprobs"] = if to > from { piece } else { Value::Null };
            from = to;
        }
    }

    fn chunks(&mut self, answer: &Value) -> Vec<Value> {
        let mut waiting: Vec<std::vec::IntoIter<Value>> =
            answer["choices"].as_array().unwrap().iter().map(|choice| self.choice(choice).into_iter()).collect();
        let mut chunks = Vec::new();
        while !waiting.is_empty() {
            let at = self.next(waiting.len());
            match waiting[at].next() {
                Some(part) => chunks.push(self.chunk(answer, vec![part])),
                None => drop(waiting.remove(at)),
            }
        }
        // Some servers put several choices into one chunk.
        if chunks.len() > 1 && self.next(2) == 0 {
            let second = chunks.remove(1)["choices"][0].clone();
            chunks[0]["choices"].as_array_mut().unwrap().push(second);
        }
        if let Some(usage) = answer.get("usage") {
            let mut last = self.chunk(answer, Vec::new());
            last["usage"] = usage.clone();
            chunks.push(last);
        }
        chunks
    }

    fn chunk(&mut self, answer: &Value, choices: Vec<Value>) -> Value {
        let mut chunk = json!({"id": "x", "object": "chunk", "created": 5, "model": "y", "choices": choices});
        if let Some(fingerprint) = answer.get("system_fingerprint") {
            chunk["system_fingerprint"] = fingerprint.clone();
        }
        if self.next(3) == 0 {
            chunk["usage"] = Value::Null;
        }
        chunk
    }
}

fn check(chat: bool, answer: &Value, numbers: Vec<usize>) -> Result<(), TestCaseError> {
    let call = if chat { CallKind::Chat } else { CallKind::Completions };
    let chunks = Cuts { numbers, at: 0 }.chunks(answer);
    let mut assembler = Assembler::new(call, "i", "m", 1024 * 1024);
    for chunk in &chunks {
        assembler.take(chunk.to_string().as_bytes()).unwrap();
    }
    prop_assert!(assembler.is_finished());
    let whole = assembler.finish().unwrap();
    let mut found: Value = serde_json::from_slice(&whole.body).unwrap();
    // A choice without tool calls whose content is null cannot be told from one without content by its chunks alone.
    for (found, expected) in
        found["choices"].as_array_mut().unwrap().iter_mut().zip(answer["choices"].as_array().unwrap())
    {
        prop_assert_eq!(&*found, expected);
    }
    prop_assert_eq!(&found, answer);
    prop_assert_eq!(whole.usage.is_some(), answer.get("usage").is_some());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_chat_answer_in_pieces_is_that_answer(answer in answer(true), numbers in prop::collection::vec(0..1000_usize, 40..90)) {
        check(true, &answer, numbers)?;
    }

    #[test]
    fn a_completion_in_pieces_is_that_completion(answer in answer(false), numbers in prop::collection::vec(0..1000_usize, 40..90)) {
        check(false, &answer, numbers)?;
    }

    #[test]
    fn no_chunk_makes_it_panic(chunks in prop::collection::vec("\\PC{0,60}", 0..6), bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let mut assembler = Assembler::new(CallKind::Chat, "i", "m", 1024);
        for chunk in chunks {
            for shape in [format!("{{\"choices\":[{{\"delta\":{{{chunk}}}}}]}}"), format!("{{{chunk}}}"), chunk] {
                let _taken_or_not = assembler.take(shape.as_bytes()).is_ok();
            }
        }
        let _taken_or_not = assembler.take(&bytes).is_ok();
        if let Ok(whole) = assembler.finish() {
            prop_assert!(serde_json::from_slice::<Value>(&whole.body).is_ok());
        }
    }
}
