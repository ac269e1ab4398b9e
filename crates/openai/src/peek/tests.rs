use batchin_domain::Measure;

use super::*;
use crate::wanted::{Encoding, Ranking, SoundFormat, Spoken};

fn chat(members: &str) -> Result<Peek, InvalidRequest> {
    peek(
        CallKind::Chat,
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{members}}}"#).as_bytes(),
    )
}

#[track_caller]
fn refused(call: CallKind, body: &str, param: &str) -> String {
    let fault = peek(call, body.as_bytes()).expect_err(body);
    assert_eq!(fault.param.as_deref(), Some(param), "{body}: {}", fault.message);
    assert!(fault.message.contains(param), "{body}: {}", fault.message);
    fault.message
}

#[test]
fn chat_is_read() {
    let body = br#"{"model":"qwen","messages":[{"role":"system","content":"be"},{"role":"user","content":"hi"}],
        "stream":true,"stream_options":{"include_usage":true},"max_tokens":7,"temperature":0,"seed":3,"n":2}"#;
    let found = peek(CallKind::Chat, body).unwrap();
    let messages = r#"[{"role":"system","content":"be"},{"role":"user","content":"hi"}]"#;
    let bound = InputBound { text_bytes: messages.len() as u64, messages: 2, items: 1, ..InputBound::default() };
    let at = str::from_utf8(body).unwrap().find(messages).unwrap();
    assert_eq!(
        found,
        Peek {
            voice: None,
            tier: None,
            prompt: at..at + messages.len(),
            model: "qwen".into(),
            stream: true,
            include_usage: true,
            continuous_usage: false,
            max_output: Some(7),
            max_output_stated: true,
            max_output_name: "max_tokens",
            choices: 2,
            given: 2,
            echo: false,
            temperature_zero: true,
            seeded: true,
            has_suffix: false,
            streams_less: false,
            wanted: Wanted::Choices,
            bound,
        }
    );
}

#[test]
fn null_is_absent() {
    let found = chat(
        r#","stream":null,"stream_options":null,"max_tokens":null,"max_completion_tokens":null,"n":null,
        "best_of":null,"temperature":null,"seed":null,"suffix":null,"tools":null,"functions":null"#,
    )
    .unwrap();
    assert_eq!(found, chat("").unwrap());
    refused(CallKind::Chat, r#"{"model":null,"messages":[{"role":"user"}]}"#, "model");
    refused(CallKind::Chat, r#"{"model":"m","messages":null}"#, "messages");
}

#[test]
fn smaller_limit_counts_and_completions_have_a_default() {
    let limit = |members: &str| {
        let found = chat(members).unwrap();
        (found.max_output, found.max_output_name)
    };
    assert_eq!(limit(r#","max_tokens":5,"max_completion_tokens":9"#), (Some(5), "max_tokens"));
    assert_eq!(limit(r#","max_tokens":9,"max_completion_tokens":5"#), (Some(5), "max_completion_tokens"));
    assert_eq!(limit(r#","max_completion_tokens":5"#), (Some(5), "max_completion_tokens"));
    assert_eq!(limit(""), (None, "max_tokens"));
    let found = peek(CallKind::Completions, br#"{"model":"m","prompt":"a"}"#).unwrap();
    assert_eq!((found.max_output, found.max_output_stated), (Some(16), false));
    let found = peek(CallKind::Completions, br#"{"model":"m","prompt":"a","best_of":5,"n":2,"suffix":"z"}"#).unwrap();
    assert_eq!((found.choices, found.given, found.has_suffix), (5, 2, true));
}

#[test]
fn a_gap_lies_between_two_texts() {
    let body = |prompt: &str, more: &str| format!(r#"{{"model":"m","prompt":{prompt}{more}}}"#);
    for prompt in [r#"["a"]"#, "[1]", "[[1]]"] {
        refused(CallKind::Completions, &body(prompt, r#","suffix":"b""#), "prompt");
        let found = peek(CallKind::Completions, body(prompt, r#","suffix":"""#).as_bytes()).unwrap();
        assert!(!found.has_suffix, "nothing behind it is no middle");
    }
    refused(CallKind::Completions, &body(r#""a""#, r#","suffix":"b","echo":true"#), "echo");
    assert!(peek(CallKind::Completions, body(r#""a""#, r#","suffix":"b","echo":false"#).as_bytes()).is_ok());
}

#[test]
fn a_completion_may_be_the_prompt_alone() {
    let found = peek(CallKind::Completions, br#"{"model":"m","prompt":"a","max_tokens":0,"echo":true}"#).unwrap();
    assert_eq!((found.max_output, found.max_output_stated, found.echo), (Some(0), true, true));
    refused(CallKind::Chat, r#"{"model":"m","messages":[{"role":"user"}],"max_tokens":0}"#, "max_tokens");
    assert!(!chat(r#","echo":true"#).unwrap().echo, "a chat has none");
    for no in ["false", "null", "0", "1", "\"\"", "\"true\""] {
        let body = format!(r#"{{"model":"m","prompt":"a","echo":{no}}}"#);
        assert!(!peek(CallKind::Completions, body.as_bytes()).unwrap().echo, "{no}");
    }
}

#[test]
fn what_streams_do_not_give_is_noticed() {
    let less = |members: &str| chat(members).unwrap().streams_less;
    for member in [
        r#""echo":true"#,
        r#""prompt_logprobs":0"#,
        r#""use_beam_search":true"#,
        r#""modalities":["text","audio"]"#,
        r#""best_of":3"#,
        r#""n":2,"best_of":3"#,
        r#""return_token_ids":true"#,
    ] {
        assert!(less(&format!(",{member}")), "{member}");
    }
    for member in [r#""echo":false"#, r#""prompt_logprobs":null"#, r#""n":3,"best_of":3"#, r#""logprobs":true"#] {
        assert!(!less(&format!(",{member}")), "{member}");
    }
}

#[test]
fn messages_are_checked_with_their_path() {
    let body = |messages: &str| format!(r#"{{"model":"m","messages":{messages}}}"#);
    let check = |messages: &str, param: &str| refused(CallKind::Chat, &body(messages), param);
    check("[]", "messages");
    check("{}", "messages");
    check("\"hi\"", "messages");
    check(r#"[{"role":"user","content":"a"},"b"]"#, "messages[1]");
    check(r#"[{"role":"user"},{"role":"user"},{"content":"a"}]"#, "messages[2].role");
    check(r#"[{"role":7,"content":"a"}]"#, "messages[0].role");
    check(r#"[{"role":"","content":"a"}]"#, "messages[0].role");
    check(r#"[{"role":"user","content":{"text":"a"}}]"#, "messages[0].content");
    check(r#"[{"role":"user","content":[1]}]"#, "messages[0].content");
    check(r#"[{"role":"user","content":5}]"#, "messages[0].content");
    assert!(
        peek(CallKind::Chat, body(r#"[{"role":"assistant","content":null,"tool_calls":[{}]}]"#).as_bytes()).is_ok()
    );
    assert!(peek(CallKind::Chat, body(r#"[{"role":"u\u0073er","content":"\ud83d\ude00"}]"#).as_bytes()).is_ok());
}

#[test]
fn media_and_tools_are_noticed() {
    let media = |content: &str| {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":{content}}}]}}"#);
        peek(CallKind::Chat, body.as_bytes()).unwrap().bound.media
    };
    assert_eq!(media(r#""text""#), 0);
    assert_eq!(media(r#"[{"type":"text","text":"a"},"b"]"#), 0);
    assert_eq!(media(r#"[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:"}}]"#), 1);
    assert_eq!(media(r#"[{"type":"text","image_url":{"url":"data:"},"text":"a"}]"#), 1);
    assert_eq!(media(r#"[{"text":"no type"}]"#), 1);
    assert_eq!(media(r#"[{"type":"image_url"},{"type":"input_audio"},"b",{"type":"image_url"}]"#), 3);
    let beside = |more: &str| chat(more).unwrap().bound.media;
    for (more, expected) in [
        (r#","prompt_embeds":"AAAA""#, 1),
        (r#","prompt_embeds":null"#, 0),
        (r#","image_data":"AAAA""#, 1),
        (r#","image_data":["a","b"],"audio_data":[["c"],["d",null]]"#, 4),
        (r#","image_data":[],"video_data":null"#, 0),
        (r#","image_data":[[["a","b"],["c"]]]"#, 2),
    ] {
        assert_eq!(beside(more), expected, "{more}");
    }
    for embeds in [r#""AAAA""#, r#"["AAAA","AAAA"]"#] {
        let body = format!(r#"{{"model":"m","prompt":"a","prompt_embeds":{embeds}}}"#);
        refused(CallKind::Completions, &body, "prompt_embeds");
    }
    assert!(peek(CallKind::Completions, br#"{"model":"m","prompt":"a","prompt_embeds":null}"#).is_ok());
    assert!(!chat(r#","tools":[]"#).unwrap().bound.has_tools);
    let with_tools = chat(r#","tools":[{"type":"function"}]"#).unwrap().bound;
    assert!(with_tools.has_tools);
    assert_eq!(with_tools.text_bytes, chat("").unwrap().bound.text_bytes + r#"[{"type":"function"}]"#.len() as u64);
}

#[test]
fn inputs_have_four_shapes() {
    let bound = |input: &str| {
        let found = peek(CallKind::Embeddings, format!(r#"{{"model":"m","input":{input}}}"#).as_bytes());
        found.map(|found| (found.bound.items, found.bound.text_bytes, found.bound.token_ids))
    };
    assert_eq!(bound(r#""ab""#), Ok((1, 4, 0)));
    assert_eq!(bound(r#"["ab","c"]"#), Ok((2, 10, 0)));
    assert_eq!(bound("[1,2,3]"), Ok((1, 0, 3)));
    assert_eq!(bound("[[1,2],[3]]"), Ok((2, 0, 3)));
    let check = |input: &str, param: &str| {
        refused(CallKind::Embeddings, &format!(r#"{{"model":"m","input":{input}}}"#), param);
    };
    for empty in ["\"\"", "[]", "{}", "5", "true"] {
        check(empty, "input");
    }
    check(r#"["a",""]"#, "input[1]");
    check(r#"["a",1]"#, "input[1]");
    check("[[]]", "input[0]");
    check("[[1],[\"a\"]]", "input[1]");
    check("[1,-1]", "input[1]");
    check("[1.5]", "input[0]");
    check(&format!("[{}\"a\"]", "\"a\",".repeat(2048)), "input");
    assert!(bound(&format!("[{}\"a\"]", "\"a\",".repeat(2047))).is_ok());
    assert!(bound(&format!("[{}1]", "1,".repeat(3000))).is_ok());
}

#[test]
fn wrong_values_name_their_field() {
    let with = |members: &str| format!(r#"{{"model":"m","messages":[{{"role":"user"}}]{members}}}"#);
    let check = |members: &str, param: &str| refused(CallKind::Chat, &with(members), param);
    check(r#","stream":"yes""#, "stream");
    check(r#","stream":1"#, "stream");
    check(r#","stream_options":[true]"#, "stream_options");
    check(r#","stream_options":{"include_usage":1}"#, "stream_options.include_usage");
    check(r#","stream_options":{"include_usage":true,"include_usage":false}"#, "stream_options.include_usage");
    for bad in ["0", "-1", "1.5", "-1.0", "1e-3", "1e999", "\"5\"", "true", "[1]"] {
        check(&format!(r#","max_tokens":{bad}"#), "max_tokens");
        check(&format!(r#","max_completion_tokens":{bad}"#), "max_completion_tokens");
    }
    check(r#","n":0"#, "n");
    check(r#","n":129"#, "n");
    check(r#","best_of":129"#, "best_of");
    check(r#","temperature":2.1"#, "temperature");
    check(r#","temperature":-0.1"#, "temperature");
    check(r#","temperature":"hot""#, "temperature");
    check(r#","suffix":5"#, "suffix");
    refused(CallKind::Chat, r#"{"messages":[{"role":"user"}]}"#, "model");
    refused(CallKind::Chat, r#"{"model":"","messages":[{"role":"user"}]}"#, "model");
    refused(CallKind::Chat, r#"{"model":5,"messages":[{"role":"user"}]}"#, "model");
    refused(CallKind::Embeddings, r#"{"model":"m","input":"a","stream":true}"#, "stream");
    refused(CallKind::Completions, r#"{"model":"m"}"#, "prompt");
}

#[test]
fn whole_numbers_may_be_spelled_with_a_point() {
    for (spelled, limit) in [
        ("16.0", 16),
        ("1e3", 1_000),
        ("1", 1),
        ("4294967295", u32::MAX),
        ("99999999999", u32::MAX),
        ("9e15", u32::MAX),
    ] {
        assert_eq!(chat(&format!(r#","max_tokens":{spelled}"#)).unwrap().max_output, Some(limit), "{spelled}");
    }
    assert_eq!(chat(r#","n":2.0,"best_of":0"#).unwrap().choices, 2);
    assert_eq!(chat(r#","best_of":0.0"#).unwrap().choices, 1);
    let none = |spelled: &str| {
        let body = format!(r#"{{"model":"m","prompt":"a","max_tokens":{spelled},"echo":true,"logprobs":1}}"#);
        peek(CallKind::Completions, body.as_bytes()).unwrap()
    };
    assert_eq!((none("0").max_output, none("0").max_output_stated), (Some(0), true));
    assert_eq!(none("-0.0").max_output, Some(0));
}

#[test]
fn members_that_differ_by_case_alone_are_refused() {
    for (member, known) in [
        ("Max_Tokens", "max_tokens"),
        ("Model", "model"),
        ("max_to\u{212a}ens", "max_tokens"),
        ("\u{17f}tream", "stream"),
        ("PRIORITY", "priority"),
        ("Num_Predict", "num_predict"),
        ("Options", "options"),
        ("Chat_Template", "chat_template"),
        ("N", "n"),
    ] {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user"}}],"{member}":null}}"#);
        let message = refused(CallKind::Chat, &body, member);
        assert!(message.contains(&format!("`{known}`")), "{message}");
    }
    assert!(chat(r#","Other":1,"temp\u00e9rature":1,"maxTokens":1"#).is_ok());
    refused(
        CallKind::Chat,
        r#"{"model":"m","messages":[{"role":"u"}],"stream_options":{"include_usage":true,"Include_Usage":false}}"#,
        "stream_options.include_usage",
    );
    let message = |more: &str| {
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"a"}},{{"role":"user",{more}}}]}}"#)
    };
    for more in [r#""Content":[{"type":"image_url"}]"#, r#""content":"a","CONTENT":"b""#, r#""Role":"system""#] {
        refused(CallKind::Chat, &message(more), "messages[1]");
    }
    let media = |part: &str| {
        let body = message(&format!(r#""content":[{part}]"#));
        peek(CallKind::Chat, body.as_bytes()).unwrap().bound.media > 0
    };
    assert!(media(r#"{"type":"text","text":"a","Image_Url":{"url":"data:"}}"#));
    assert!(media(r#"{"type":"text","Type":"image_url","text":"a"}"#));
    assert!(media(r#"{"type":"image","type":"text","text":"a"}"#));
    assert!(!media(r#"{"type":"text","type":"text","text":"a","Cache":1}"#));
}

#[test]
fn a_client_brings_no_template() {
    let with = |members: &str| format!(r#"{{"model":"m","messages":[{{"role":"user"}},{{"role":"user"}}]{members}}}"#);
    refused(CallKind::Chat, &with(r#","chat_template":"{% for i in range(99) %}a{% endfor %}""#), "chat_template");
    for name in ["chat_template", "messages", "tools"] {
        let body = with(&format!(r#","chat_template_kwargs":{{"a":1,"{name}":"x"}}"#));
        refused(CallKind::Chat, &body, &format!("chat_template_kwargs.{name}"));
    }
    refused(CallKind::Chat, &with(r#","chat_template_kwargs":"x""#), "chat_template_kwargs");
    let bytes = |members: &str| peek(CallKind::Chat, with(members).as_bytes()).unwrap().bound.text_bytes;
    assert_eq!(bytes(r#","chat_template":null,"chat_template_kwargs":null"#), bytes("") + 4);
    let (small, large) =
        (r#"{"enable_thinking":false,"effort":"high"}"#, format!(r#"{{"eos_token":"{}"}}"#, "a".repeat(100)));
    assert_eq!(bytes(&format!(r#","chat_template_kwargs":{small}"#)), bytes("") + small.len() as u64);
    // A text may stand in every message.
    assert_eq!(bytes(&format!(r#","chat_template_kwargs":{large}"#)), bytes("") + large.len() as u64 + 2 * 102);
}

#[test]
fn tools_are_the_client_s_own() {
    let body = |tools: &str| format!(r#"{{"model":"m","messages":[{{"role":"user"}}],"tools":{tools}}}"#);
    for fine in [r#"[{"type":"function","function":{"type":"x"}},{"type":"custom"}]"#, "[]", "[{}]", "null", "{}"] {
        assert!(peek(CallKind::Chat, body(fine).as_bytes()).is_ok(), "{fine}");
    }
    refused(CallKind::Chat, &body(r#"[{"type":"function"},{"type":"browser_search"}]"#), "tools[1].type");
    refused(CallKind::Chat, &body(r#"[{"type":"function","type":"web_search"}]"#), "tools");
}

#[test]
fn prompts_of_other_calls_count() {
    let bytes = |body: &str| peek(CallKind::Embeddings, body.as_bytes()).unwrap().bound.text_bytes;
    assert_eq!(bytes(r#"{"model":"m","input":"a","messages":["abc"],"prompt":"xy"}"#), 3 + 7 + 4);
}

#[test]
fn names_are_whole_text() {
    let model = |model: &str| format!(r#"{{"model":"{model}","messages":[{{"role":"user"}}]}}"#);
    for odd in ["m\\u0000", "\\u0000", "a\\nb", "\\ud800", "m\\udc00"] {
        refused(CallKind::Chat, &model(odd), "model");
    }
    // What goes on as it came is its server's business.
    assert!(peek(CallKind::Completions, br#"{"model":"m","prompt":"\ud800","suffix":"\ud800\u0000"}"#).is_ok());
}

#[test]
fn doubled_members_are_refused_however_they_are_spelled() {
    let body = r#"{"model":"cheap","messages":[{"role":"user"}],"mo\u0064el":"dear"}"#;
    refused(CallKind::Chat, body, "model");
    refused(CallKind::Chat, r#"{"model":"m","messages":[{"role":"u"}],"n":null,"n":100}"#, "n");
    assert!(chat(r#","user":"a","user":"b""#).is_ok());
}

#[test]
fn bad_json_has_a_position() {
    let fault = peek(CallKind::Chat, b"{\"model\": \"m\",\n \"messages\": [}").unwrap_err();
    assert_eq!(fault.position, Some(Position { line: 2, column: 15 }));
    assert!(fault.message.contains("line 2, column 15"), "{}", fault.message);
    let fault = peek(CallKind::Chat, b"{\"model\": \"\xff\"}").unwrap_err();
    assert!(fault.message.contains("UTF-8"), "{}", fault.message);
    assert!(peek(CallKind::Chat, b"[]").unwrap_err().message.contains("object"));
    assert!(peek(CallKind::Chat, b"").unwrap_err().position.is_some());
}

#[test]
fn depth_is_bounded() {
    let nested = |n: usize| format!(r#","metadata":{}{}"#, "[".repeat(n), "]".repeat(n));
    assert!(chat(&nested(MAX_DEPTH - 1)).is_ok());
    assert!(chat(&nested(MAX_DEPTH)).unwrap_err().message.contains("nested"));
    assert!(chat(&nested(100_000)).unwrap_err().message.contains("nested"));
    let in_content = format!(r#"{{"model":"m","messages":[{{"role":"u","content":{}}}]}}"#, "[".repeat(100_000));
    assert!(peek(CallKind::Chat, in_content.as_bytes()).is_err());
}

#[test]
fn no_message_repeats_the_body() {
    let secret = "s3cret-prompt";
    for body in [
        format!(r#"{{"model":"m","messages":"{secret}"}}"#),
        format!(r#"{{"model":"m","messages":[{{"role":["{secret}"]}}]}}"#),
        format!(r#"{{"model":"m","messages":[{{"role":"u"}}],"max_tokens":"{secret}"}}"#),
        format!(r#"{{"model":"m","messages":[{{"role":"u","content":"{secret}"]}}"#),
    ] {
        let fault = peek(CallKind::Chat, body.as_bytes()).unwrap_err();
        assert!(!format!("{fault:?}").contains(secret), "{fault:?}");
    }
}

#[test]
fn vectors_are_wanted_as_the_body_says() {
    let wanted = |members: &str| {
        let body = format!(r#"{{"model":"m","input":["a","b"]{members}}}"#);
        peek(CallKind::Embeddings, body.as_bytes()).map(|peek| peek.wanted)
    };
    let vectors = |encoding| Ok(Wanted::Vectors(Vectors { inputs: 2, encoding }));
    for float in ["", r#","encoding_format":null"#, r#","encoding_format":"float""#] {
        assert_eq!(wanted(float), vectors(Encoding::Float), "{float}");
    }
    assert_eq!(wanted(r#","encoding_format":"base64""#), vectors(Encoding::Base64));
    for other in [r#""int8""#, r#""Base64""#, "1", "[\"float\"]"] {
        let refused = wanted(&format!(r#","encoding_format":{other}"#)).unwrap_err();
        assert_eq!(refused.param.as_deref(), Some("encoding_format"), "{other}");
    }
    let chat = r#"{"model":"m","messages":[{"role":"user","content":"a"}],"encoding_format":"int8"}"#;
    assert_eq!(peek(CallKind::Chat, chat.as_bytes()).unwrap().wanted, Wanted::Choices);
}

const RERANK: &str = r#""query":"what?","documents":["one","","three"]"#;

fn rerank(members: &str) -> String {
    format!(r#"{{"model":"m",{members}}}"#)
}

#[test]
fn each_document_is_a_prompt_with_the_query() {
    let read = |members: &str| peek(CallKind::Rerank, rerank(members).as_bytes()).unwrap();
    let found = read(RERANK);
    let made = Counts::NONE.with(Measure::Searches, 3);
    let bound = InputBound { text_bytes: 18 + 3 * 7, items: 3, messages: 3, made, ..InputBound::default() };
    assert_eq!((found.bound, found.max_output, found.stream), (bound, None, false));
    let ranking = |best, returns_documents| Wanted::Ranking(Ranking { documents: 3, best, returns_documents });
    assert_eq!(found.wanted, ranking(3, false));
    for (more, best, returns) in [
        (r#""top_n":2"#, 2, false),
        (r#""top_n":2.0,"return_documents":true"#, 2, true),
        (r#""top_n":99,"return_documents":null"#, 3, false),
        (r#""top_n":null"#, 3, false),
    ] {
        assert_eq!(read(&format!("{RERANK},{more}")).wanted, ranking(best, returns), "{more}");
    }
    // Long documents are read in pieces, each with the query and what tells how to rank.
    let pieces = read(&format!(r#"{RERANK},"max_chunks_per_doc":2,"instruct":"rank!""#)).bound;
    assert_eq!((pieces.items, pieces.text_bytes), (6, 18 + 6 * 7 + 6 * 7));
}

#[test]
fn bad_rerank_bodies_name_the_member() {
    let many = format!(r#""query":"q","documents":[{}"a"]"#, r#""a","#.repeat(2048));
    for (members, param) in [
        (r#""documents":["a"]"#, "query"),
        (r#""query":"","documents":["a"]"#, "query"),
        (r#""query":["a"],"documents":["a"]"#, "query"),
        (r#""query":"q""#, "documents"),
        (r#""query":"q","documents":[]"#, "documents"),
        (r#""query":"q","documents":"a""#, "documents"),
        (r#""query":"q","documents":["a",1]"#, "documents[1]"),
        (r#""query":"q","documents":[{"image":"x"}]"#, "documents[0]"),
        (many.as_str(), "documents"),
        (r#""query":"q","documents":["a"],"documents":["b"]"#, "documents"),
        (r#""query":"q","documents":["a"],"top_n":0"#, "top_n"),
        (r#""query":"q","documents":["a"],"top_n":"1""#, "top_n"),
        (r#""query":"q","documents":["a"],"return_documents":"yes""#, "return_documents"),
        (r#""query":"q","documents":["a"],"max_chunks_per_doc":0"#, "max_chunks_per_doc"),
        (r#""query":"q","documents":["a"],"stream":true"#, "stream"),
        (r#""query":"q","documents":["a"],"Top_N":1"#, "Top_N"),
    ] {
        refused(CallKind::Rerank, &rerank(members), param);
    }
}

fn speech(body: &str) -> Result<Peek, InvalidRequest> {
    peek(CallKind::Speech, body.as_bytes())
}

#[test]
fn speech_is_counted_by_its_characters() {
    for (input, characters) in [
        ("Hello", 5),
        ("\u{4f60}\u{597d}", 2),
        // However it is spelled.
        ("e\u{301}te\u{301}", 3),
        ("\u{e9}t\u{e9}", 3),
        ("\\u00e9t\\u00e9", 3),
        ("a\\nb", 3),
    ] {
        let peeked = speech(&format!(r#"{{"model":"m","input":"{input}"}}"#)).unwrap();
        assert_eq!(peeked.bound.made.of(Measure::Characters), characters, "{input}");
        assert_eq!(peeked.wanted, Wanted::Sound(Spoken { format: SoundFormat::Mp3, as_events: false }));
        assert!(!peeked.stream);
    }
    let at = |speed: &str| {
        let body =
            format!(r#"{{"model":"m","input":"abcd","voice":{{"id":"x"}},"speed":{speed},"stream_format":"sse"}}"#);
        let peeked = speech(&body).unwrap();
        assert!(peeked.stream);
        peeked.bound.made.of(Measure::AudioMs)
    };
    assert_eq!((at("1"), at("0.25"), at("4.0")), (7_000, 13_000, 5_500));
    let most = format!(r#"{{"model":"m","input":"{}"}}"#, "\u{4f60}".repeat(4_096));
    assert!(speech(&most).is_ok());
}

#[test]
fn speech_that_cannot_be_is_refused_by_its_member() {
    let long = format!(r#""{}""#, "a".repeat(4_097));
    for (members, param) in [
        (r#""input":5"#, "input"),
        (r#""voice":"v""#, "input"),
        (r#""input":" ""#, "input"),
        (r#""input":"\ud800""#, "input"),
        (&*format!(r#""input":{long}"#), "input"),
        (r#""input":"a","response_format":"mp4""#, "response_format"),
        (r#""input":"a","response_format":{"type":"wav"}"#, "response_format"),
        (r#""input":"a","stream_format":"chunks""#, "stream_format"),
        (r#""input":"a","speed":0.2"#, "speed"),
        (r#""input":"a","speed":"1""#, "speed"),
        (r#""input":"a","voice":"""#, "voice"),
        (r#""input":"a","voice":{"name":"x"}"#, "voice"),
        (r#""input":"a","ref_audio":"file:///etc/passwd""#, "ref_audio"),
        (r#""input":"a","ref_audio":"http://10.0.0.1/a.wav""#, "ref_audio"),
        (r#""input":"a","Voice":"x""#, "Voice"),
    ] {
        let fault = speech(&format!(r#"{{"model":"m",{members}}}"#)).unwrap_err();
        assert_eq!(fault.param.as_deref(), Some(param), "{members}");
    }
}
