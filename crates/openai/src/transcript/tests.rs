use super::*;

const NAMES: Names<'static> = Names { id: "transcr_1", model: "m", created: 7, tier: None };

fn asked(members: &str) -> Result<AskedAs, InvalidRequest> {
    transcript_asked(&Bytes::from(format!("{{\"model\":\"m\"{members}}}")), 2_500, false)
}

#[track_caller]
fn told(format: &str, answer: &str) -> (String, &'static str) {
    let AskedAs { retelling, .. } = asked(&format!(r#","response_format":"{format}""#)).unwrap();
    let whole = retelling.whole(answer.as_bytes(), NAMES);
    (String::from_utf8(whole.to_vec()).unwrap(), retelling.content_type())
}

#[test]
fn servers_are_asked_for_json() {
    for (members, expected) in [
        ("", r#"{"model":"m","response_format":"json"}"#),
        (
            r#","file":"sha256:00","response_format":"text","language":"en""#,
            r#"{"model":"m","language":"en","response_format":"json"}"#,
        ),
        (r#","response_format":null"#, r#"{"model":"m","response_format":"json"}"#),
        (
            r#","response_format":"srt","timestamp_granularities":["word"]"#,
            r#"{"model":"m","response_format":"verbose_json"}"#,
        ),
        (
            r#","response_format":"verbose_json","timestamp_granularities":["word"]"#,
            r#"{"model":"m","timestamp_granularities":["word"],"response_format":"verbose_json"}"#,
        ),
        (
            r#","response_format":"diarized_json","stream":true"#,
            r#"{"model":"m","stream":true,"response_format":"diarized_json"}"#,
        ),
    ] {
        assert_eq!(asked(members).unwrap().body, expected);
    }
}

#[test]
fn formats_that_cannot_be_are_refused_by_the_member() {
    for members in
        [r#","response_format":"mp3""#, r#","response_format":5"#, r#","response_format":"vtt","stream":true"#]
    {
        assert_eq!(asked(members).unwrap_err().param.as_deref(), Some("response_format"), "{members}");
    }
    let in_batch = |format: &str| {
        transcript_asked(&Bytes::from(format!(r#"{{"model":"m","response_format":"{format}"}}"#)), 1, true)
    };
    assert!(in_batch("srt").is_err() && in_batch("verbose_json").is_ok());
}

#[test]
fn each_format_is_made_of_json() {
    let answer = r#"{"text":" One two. ","segments":[{"id":0,"start":0.0,"end":1.25,"text":" One\n\n--> two."},
        {"start":3661.0015,"end":-1,"text":"x"}],"usage":{"type":"tokens","input_tokens":9}}"#;
    let (json, content_type) = told("json", r#"{"text":"a","usage":{"seconds":3},"x":1.0}"#);
    assert_eq!(
        (json.as_str(), content_type),
        (r#"{"text":"a","x":1.0,"usage":{"type":"duration","seconds":2.5}}"#, "application/json")
    );
    assert_eq!(told("text", answer), (" One two. \n".to_owned(), "text/plain; charset=utf-8"));
    let srt = "1\n00:00:00,000 --> 00:00:01,250\nOne\n-> two.\n\n2\n01:01:01,002 --> 00:00:00,000\nx\n\n";
    assert_eq!(told("srt", answer), (srt.to_owned(), "text/plain; charset=utf-8"));
    let one = "WEBVTT\n\n00:00:00.000 --> 00:00:02.500\na\n\n";
    assert_eq!(told("vtt", r#"{"text":"a","segments":null}"#), (one.to_owned(), "text/vtt; charset=utf-8"));
    assert_eq!(told("vtt", r#"{"text":" "}"#).0, "WEBVTT\n\n");
}

#[test]
fn usage_is_the_length_of_the_sound() {
    for (ms, expected) in [(0, "0"), (1, "0.001"), (1_000, "1"), (10_500, "10.5"), (100_000, "100")] {
        assert_eq!(usage(ms), format!(r#"{{"type":"duration","seconds":{expected}}}"#));
    }
}

fn events(data: &[&str]) -> String {
    let mut telling = asked(r#","stream":true"#).unwrap().retelling.stream(NAMES);
    let mut out = Vec::new();
    for data in data {
        out.extend_from_slice(&telling.chunk(&transcript_as_chunk(&Bytes::copy_from_slice(data.as_bytes()))));
    }
    out.extend_from_slice(&telling.done());
    String::from_utf8(out).unwrap()
}

#[test]
fn streams_of_every_server_are_openai_s_events() {
    let delta = r#"{"type":"transcript.text.delta","delta":"Hi \"x\"","logprobs":[{"token":"Hi"}]}"#;
    let told = events(&[delta, r#"{"type":"transcript.text.done","text":"Hi.","usage":{"type":"tokens"}}"#]);
    let done = r#"{"type":"transcript.text.done","text":"Hi.","usage":{"type":"duration","seconds":2.5}}"#;
    assert_eq!(told, format!("data: {delta}\n\ndata: {done}\n\n"));
    let chunk = |content: &str| {
        format!(r#"{{"object":"transcription.chunk","choices":[{{"delta":{{"content":"{content}"}}}}]}}"#)
    };
    let told = events(&[&chunk("a"), &chunk("\\n"), r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#]);
    let delta = |text: &str| format!("data: {{\"type\":\"transcript.text.delta\",\"delta\":\"{text}\"}}\n\n");
    let done = r#"{"type":"transcript.text.done","text":"a\n","usage":{"type":"duration","seconds":2.5}}"#;
    assert_eq!(told, format!("{}{}data: {done}\n\n", delta("a"), delta("\\n")));
}

#[test]
fn an_answer_that_came_whole_is_a_chunk_and_an_error_stays_one() {
    let whole = transcript_as_chunk(&Bytes::from_static(br#"{"text":"a","usage":{"seconds":1}}"#));
    assert_eq!(whole, r#"{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}]}"#);
    for other in [r#"{"error":{"message":"no"}}"#, r#"{"choices":[]}"#, "[]", "x"] {
        assert_eq!(transcript_as_chunk(&Bytes::from_static(other.as_bytes())), other);
    }
}
