//! Holds: what the readers make of every shape of input, and that it does not matter how the bytes arrive.

use std::io::{BufReader, Read};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Gives a few bytes at a time.
struct Trickle<'a>(&'a [u8], usize);

impl Read for Trickle<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let taken = self.1.min(self.0.len()).min(into.len());
        let (part, rest) = self.0.split_at(taken);
        into[..taken].copy_from_slice(part);
        self.0 = rest;
        Ok(taken)
    }
}

fn trickle(text: &str, bytes: usize) -> BufReader<Trickle<'_>> {
    BufReader::with_capacity(bytes.max(1), Trickle(text.as_bytes(), bytes.max(1)))
}

fn shown(rows: impl Iterator<Item = io::Result<Row>>) -> String {
    let line = |row: io::Result<Row>| {
        let Row { line, task } = row.unwrap();
        match task {
            Ok(task) => format!("{line}: {}", String::from_utf8(task.file_line().unwrap()).unwrap().trim_end()),
            Err(what) => format!("{line}! {what}"),
        }
    };
    rows.map(line).collect::<Vec<_>>().join("\n")
}

fn table<'a>(text: &'a str, template: &str, id_column: Option<&'a str>, bytes: usize) -> Rows<'a> {
    let template = Template::new(template).unwrap();
    let options = TableOptions { template, id_column, model: Some("m"), delimiter: b',' };
    Box::new(Table::new(trickle(text, bytes), options).unwrap_or_else(|error| panic!("{error:?}")))
}

#[test]
fn the_three_shapes_become_the_same_line() {
    let text = concat!(
        "\u{feff}{\"custom_id\":\"a\",\"model\":\"m\",\"request_body\":{\"messages\":[],\"seed\":12345678901234567890123}}\r\n",
        "\r\n",
        "{\"custom_id\":\"b\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{\"model\":\"m\",\"prompt\":\"x\"}}\n",
        "{\"input\":\"y\"}\n",
        "{\"custom_id\":\"d\",\"model\":\"e\",\"url\":\"/images/generations\",\"prompt\":\"z\"}\n",
        "{\"custom_id\":\"e\",\"model\":\"m\",\"request_body\":{\"model\":\"other\",\"prompt\":\"x\"}}\n",
        "{\"prompt\":\"x\",\"input\":\"y\",\"messages\":null}",
    );
    insta::assert_snapshot!(shown(JsonLines::new(text.as_bytes(), Some("m"))), @r#"
    1: {"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[],"seed":12345678901234567890123}}
    3: {"custom_id":"b","method":"POST","url":"/v1/completions","body":{"model":"m","prompt":"x"}}
    4: {"custom_id":"line-4","method":"POST","url":"/v1/embeddings","body":{"model":"m","input":"y"}}
    5: {"custom_id":"d","method":"POST","url":"/v1/images/generations","body":{"model":"e","prompt":"z"}}
    6: {"custom_id":"e","method":"POST","url":"/v1/completions","body":{"model":"m","prompt":"x"}}
    7: {"custom_id":"line-7","method":"POST","url":"/v1/embeddings","body":{"model":"m","input":"y","messages":null,"prompt":"x"}}
    "#);
    let first = JsonLines::new(text.as_bytes(), Some("m")).next().unwrap().unwrap().task.unwrap();
    let inline = String::from_utf8(first.inline().unwrap()).unwrap();
    assert_eq!(inline, text.lines().next().unwrap().trim_start_matches('\u{feff}'), "inline as it was written");
}

#[test]
fn every_fault_has_its_line() {
    let mut text = r#"{"prompt":"x"}
[1]
{"prompt":
{"custom_id":7,"model":"m","prompt":"x"}
{"custom_id":"a","model":"m","request_body":[]}
{"custom_id":"a","model":"m","request_body":{"prompt":"x"},"url":"/v1/nowhere"}
{"custom_id":"a","model":"m","request_body":{"temperature":1}}
{"custom_id":"b","model":"m","request_body":{"prompt":"y"},"priority":"high"}
{"custom_id":"c","method":"GET","url":"/v1/completions","body":{"model":"m","prompt":"x"}}
{"custom_id":"d","model":"m","request_body":{"prompt":"x","stream":true}}
{"custom_id":"","model":"m","prompt":"x"}
{"custom_id":"e","model":"m","request_body":{"prompt":"x","prompt":"y"}}
"#
    .as_bytes()
    .to_vec();
    text.extend_from_slice(b"\xff\n");
    insta::assert_snapshot!(shown(JsonLines::new(text.as_slice(), None)), @r#"
    1! names no model; add "model" to it, or give --model
    2! is not a JSON object
    3! is not valid JSON at column 10: EOF while parsing a value
    4! custom_id must be a text
    5! the request body must be an object
    6! url "/v1/nowhere" is none of /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/responses, /v1/messages, /v1/fim/completions, /v1/rerank, /v1/audio/speech, /v1/audio/transcriptions, /v1/audio/translations, /v1/images/generations, /v1/images/edits
    7! the request body has none of messages, input, query, prompt
    8! unknown field "priority"; known are custom_id, model, request_body, url
    9! method must be "POST"
    10! stream must not be true: a task's answer is stored whole
    11! custom_id must not be empty
    12! the request body has a duplicate field `prompt`
    13! is not UTF-8 at byte 1
    "#);
}

#[test]
fn a_line_that_does_not_end_is_a_fault_and_not_memory() {
    let mut text = vec![b'x'; MAX_LINE_BYTES + 10];
    text.extend_from_slice(b"\n{\"prompt\":\"x\"}\n");
    let mut lines = JsonLines::new(text.as_slice(), Some("m"));
    let first = lines.next().unwrap().unwrap();
    assert_eq!((first.line, first.task.unwrap_err().as_str()), (1, "is longer than 32 MiB"));
    let second = lines.next().unwrap().unwrap();
    assert_eq!((second.line, second.task.unwrap().custom_id.as_str()), (2, "line-2"));

    let mut text = b"a,b\n1,\"".to_vec();
    text.resize(MAX_LINE_BYTES + 1_000_000, b'x');
    let template = Template::new("{{a}}").unwrap();
    let options = TableOptions { template, id_column: None, model: Some("m"), delimiter: b',' };
    let rows: Vec<_> = Table::new(text.as_slice(), options).unwrap_or_else(|_| panic!()).collect();
    assert_eq!(rows.len(), 1);
    assert!(rows[0].as_ref().unwrap().task.as_ref().unwrap_err().contains("is a quote missing?"));
}

#[test]
fn a_table_and_a_template_become_chats() {
    let text = "id,text,First name\r\n7,\"a, \"\"b\"\"\r\nc\",Ann\r\n\r\n8,only two\r\n,x,y\r\n9,z,Bob";
    let rows = table(text, "Translate: {{text}} for {{row['First name']}}", Some("id"), 3);
    insta::assert_snapshot!(shown(rows), @r#"
    2: {"custom_id":"7","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[{"content":"Translate: a, \"b\"\nc for Ann","role":"user"}]}}
    5! has 2 cells where the first row has 3; quote cells with a delimiter in them
    6! the cell of column "id" is empty; it must be the custom_id
    7: {"custom_id":"9","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[{"content":"Translate: z for Bob","role":"user"}]}}
    "#);
}

#[test]
fn a_stray_quote_is_a_fault_of_its_row_and_not_a_longer_cell() {
    let rows = |third: &str, eighth: &str| {
        let row = |n: u32| match n {
            3 => third.to_owned(),
            8 => eighth.to_owned(),
            n => format!("{n},text {n}"),
        };
        let text = "id,text\n".to_owned() + &(1..=10).map(|n| row(n) + "\n").collect::<String>();
        let faults = |bytes| -> Vec<String> {
            let rows = table(&text, "{{text}}", None, bytes).map(Result::unwrap);
            rows.filter_map(|row| Some(format!("{}: {}", row.line, row.task.err()?))).collect()
        };
        assert_eq!(faults(1), faults(4_096), "however it is read");
        faults(7).join("\n")
    };
    let mended = "a quote within a cell is written \"\"";
    assert_eq!(rows("3,\"text 3", "8,text 8"), format!("4: the quote that opens on line 4 is never closed; {mended}"));
    for (third, eighth, closed) in [("3,\"text 3", "8,\"text 8\"", 9), ("3,\"text\" 3", "8,text 8", 4)] {
        let said =
            format!("4: the quote that opens on line 4 is closed on line {closed} in the middle of a cell; {mended}");
        assert_eq!(rows(third, eighth), said);
    }
    for fine in ["3,\"text\n\n3\"", "3,text \"3", "3,\"text \"\"3\"\"\"", "\"3\",\".\"", "\n3,5\" wide"] {
        assert_eq!(rows(fine, "8,text 8"), "", "{fine}");
    }
    let template = Template::new("{{id}}").unwrap();
    let options = TableOptions { template, id_column: None, model: Some("m"), delimiter: b',' };
    match Table::new("\u{feff}\"id,text\n1,2\n".as_bytes(), options) {
        Err(TableError::Header(faults)) => assert!(faults[0].contains("line 1 is never closed"), "{faults:?}"),
        _ => panic!("no faults"),
    }
}

#[test]
fn what_tojson_writes_has_the_values_of_the_cells() {
    // Its bytes are the template engine's own: blanks after commas, and < > & ' as \u003c and so on.
    let text = "id,text\n7,\"a \"\"b\"\" <c> & 'd', ü\ne\"\n";
    let template = "{\"custom_id\": {{id|tojson}}, \"messages\": [{\"role\": \"user\", \"content\": {{text|tojson}}}, \
                    {\"role\": \"user\", \"content\": {{row|tojson|tojson}}}]}";
    let task = table(text, template, None, 64).next().unwrap().unwrap().task.unwrap();
    let body: Value = serde_json::from_str(task.body.get()).unwrap();
    let cell = "a \"b\" <c> & 'd', ü\ne";
    assert_eq!((task.custom_id.as_str(), &body["messages"][0]["content"]), ("7", &json!(cell)));
    let row: Value = serde_json::from_str(body["messages"][1]["content"].as_str().unwrap()).unwrap();
    assert_eq!(row, json!({ "id": "7", "text": cell }));
}

#[test]
fn a_template_that_begins_with_a_brace_makes_whole_lines() {
    let template = "{\"prompt\": {{text|tojson}},\n \"max_tokens\": {{n}}}\n";
    insta::assert_snapshot!(shown(table("text,n\n\"a \"\"b\"\"\",5\nc,many\n", template, None, 64)), @r#"
    2: {"custom_id":"line-2","method":"POST","url":"/v1/completions","body":{"model":"m","max_tokens":5,"prompt":"a \"b\""}}
    3! what the template makes of it is not valid JSON at column 16: expected value
    "#);
}

#[test]
fn a_template_is_checked_before_any_row() {
    let faults = |text: &str, source: &str, id: Option<&str>| {
        let template = Template::new(source).unwrap();
        let options = TableOptions { template, id_column: id, model: Some("m"), delimiter: b',' };
        match Table::new(text.as_bytes(), options) {
            Err(TableError::Header(faults)) => faults.join("\n"),
            _ => panic!("no faults"),
        }
    };
    insta::assert_snapshot!(faults("id,text,text\n", "{{txet}} {% for x in range(3) %}{{x}}{% endfor %}", Some("key")), @r#"
    the column "text" stands twice in the first row
    --id-column: there is no column "key"; there are id, text, text
    template: there is no column "txet"; did you mean "text"? There are id, text, text
    "#);
    assert_eq!(faults("", "x", None), "has no first row with the names of the columns");
    assert!(Template::new("{{ a").err().unwrap().starts_with("template, line 1: syntax error"));
}

/// A line of a random shape, and what it must become.
fn task() -> impl Strategy<Value = (String, Value)> {
    (0..4_u8, "\\PC{1,12}", "\\PC{0,20}").prop_map(|(shape, id, text)| {
        let chat = json!([{ "role": "user", "content": text }]);
        let (url, body, line) = match shape {
            0 => {
                let body = json!({ "model": "m", "messages": chat });
                let url = "/v1/chat/completions";
                (url, body.clone(), json!({ "custom_id": id, "method": "POST", "url": url, "body": body }))
            }
            1 => {
                let body = json!({ "prompt": text, "max_tokens": 3 });
                let line = json!({ "custom_id": id, "model": "m", "request_body": body });
                ("/v1/completions", body, line)
            }
            2 => ("/v1/embeddings", json!({ "input": text }), json!({ "custom_id": id, "input": text })),
            _ => {
                let line = json!({ "custom_id": id, "model": "m", "messages": chat });
                ("/v1/chat/completions", json!({ "messages": chat }), line)
            }
        };
        let mut body = body;
        body["model"] = json!("m");
        (line.to_string(), json!({ "custom_id": id, "method": "POST", "url": url, "body": body }))
    })
}

/// A line, and the task that it must become, a fault, or nothing.
type Expected = (String, Option<Result<Value, ()>>);

fn any_line() -> impl Strategy<Value = Expected> {
    prop_oneof![
        4 => task().prop_map(|(line, expected)| -> Expected { (line, Some(Ok(expected))) }),
        1 => broken().prop_map(|line| -> Expected { (line, Some(Err(()))) }),
        1 => Just::<Expected>(("  ".to_owned(), None)),
    ]
}

/// What may go wrong with a line.
fn broken() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("{".to_owned()),
        Just("[]".to_owned()),
        Just("{\"custom_id\":1,\"prompt\":\"x\"}".to_owned()),
        Just("{\"model\":\"m\"}".to_owned()),
        Just("{\"prompt\":\"x\",\"stream\":true}".to_owned()),
        Just("{\"model\":\"m\",\"request_body\":{\"prompt\":\"x\"},\"url\":\"/x\"}".to_owned()),
    ]
}

proptest! {
    #[test]
    fn lines_of_any_shape_arrive_in_order_with_their_numbers(
        lines in proptest::collection::vec(any_line(), 0..20),
        crlf in any::<bool>(),
        bytes in 1_usize..40,
    ) {
        let text: String = lines.iter().map(|(line, _)| format!("{line}{}", if crlf { "\r\n" } else { "\n" })).collect();
        let read: Vec<_> = JsonLines::new(trickle(&text, bytes), Some("m")).map(Result::unwrap).collect();
        let expected: Vec<_> =
            (1_u64..).zip(&lines).filter_map(|(number, (_, what))| Some((number, what.as_ref()?))).collect();
        prop_assert_eq!(read.len(), expected.len());
        for (row, (number, what)) in read.iter().zip(expected) {
            prop_assert_eq!(row.line, number);
            match (&row.task, what) {
                (Ok(task), Ok(expected)) => {
                    let line = task.file_line().unwrap();
                    prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
                    prop_assert_eq!(&serde_json::from_slice::<Value>(&line).unwrap(), expected);
                }
                (Err(_), Err(())) => {}
                (task, what) => prop_assert!(false, "{task:?} is not {what:?}"),
            }
        }
    }

    #[test]
    fn cells_of_any_kind_reach_the_prompt(
        rows in proptest::collection::vec(("[a-z,\"\n\r ]{1,8}", "[^\r]{0,8}"), 1..8),
        bytes in 1_usize..40,
    ) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["a", "b"]).unwrap();
        rows.iter().for_each(|(a, b)| writer.write_record([a, b]).unwrap());
        let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        let mut line = 2;
        let read: Vec<_> = table(&text, "<{{a}}|{{b}}>", None, bytes).map(Result::unwrap).collect();
        prop_assert_eq!(read.len(), rows.len());
        for (row, (a, b)) in read.iter().zip(&rows) {
            let body: Value = serde_json::from_str(row.task.as_ref().unwrap().body.get()).unwrap();
            let expected = format!("<{a}|{b}>").replace("\r\n", "\n");
            prop_assert_eq!(&body["messages"][0]["content"], &json!(expected));
            prop_assert_eq!(row.line, line);
            line += 1 + u64::try_from(format!("{a}{b}").matches('\n').count()).unwrap();
        }
    }
}
