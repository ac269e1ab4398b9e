//! Holds: what a client makes of the events of a stream. It takes no event out of its order.

use serde_json::Value;

/// Names and data.
pub fn events(stream: &str) -> Vec<(String, Value)> {
    let event = |event: &str| {
        let (name, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["type"], name);
        (name.to_owned(), data)
    };
    let mut events: Vec<&str> = stream.split("\n\n").collect();
    assert_eq!(events.pop(), Some(""), "the last event has an end");
    events.into_iter().map(event).collect()
}

/// The message that the events make.
pub fn accumulated(stream: &str) -> Value {
    let events = events(stream);
    let (first, rest) = events.split_first().unwrap();
    assert_eq!(first.0, "message_start");
    let mut message = first.1["message"].clone();
    let (mut open, mut input, mut has_ended) = (None, String::new(), false);
    for (name, data) in rest {
        let index = data["index"].as_u64().map(|index| usize::try_from(index).unwrap());
        match name.as_str() {
            "content_block_start" => {
                let content = message["content"].as_array_mut().unwrap();
                assert_eq!((open, index), (None, Some(content.len())), "one block is open at a time");
                content.push(data["content_block"].clone());
                (open, input) = (index, String::new());
            }
            "content_block_delta" => {
                assert_eq!((open, open.is_some()), (index, true));
                let block = &mut message["content"][index.unwrap()];
                let (of, member, text) = match data["delta"]["type"].as_str().unwrap() {
                    "text_delta" => ("text", "text", "text"),
                    "thinking_delta" => ("thinking", "thinking", "thinking"),
                    "signature_delta" => ("thinking", "signature", "signature"),
                    _ => ("tool_use", "input", "partial_json"),
                };
                assert_eq!(block["type"], of);
                let piece = data["delta"][text].as_str().unwrap();
                if of == "tool_use" {
                    input.push_str(piece);
                } else {
                    block[member] = [block[member].as_str().unwrap(), piece].concat().into();
                }
            }
            "content_block_stop" => {
                assert_eq!((open, open.is_some()), (index, true));
                if !input.is_empty() {
                    message["content"][index.unwrap()]["input"] =
                        serde_json::from_str(&input).unwrap_or_else(|_| Value::from(input.as_str()));
                    input.clear();
                }
                open = None;
            }
            "message_delta" => {
                assert_eq!((open, message["stop_reason"].take()), (None, Value::Null));
                message["stop_reason"] = data["delta"]["stop_reason"].clone();
                message["stop_sequence"] = data["delta"]["stop_sequence"].clone();
                message["usage"] = data["usage"].clone();
            }
            "message_stop" => has_ended = true,
            _ => panic!("{name}"),
        }
    }
    assert!(has_ended && rest.last().unwrap().0 == "message_stop");
    message
}
