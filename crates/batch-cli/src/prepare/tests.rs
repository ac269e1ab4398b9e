//! Holds: faults of a whole file, and the way back from a task to its line.

use proptest::prelude::*;

use super::super::read::JsonLines;
use super::*;

fn prepared(text: &str, max_inline: usize) -> Result<Prepared, PrepareError> {
    prepare(JsonLines::new(text.as_bytes(), Some("m")), max_inline, &std::env::temp_dir())
}

fn faults(text: &str) -> Vec<String> {
    match prepared(text, 1_000) {
        Err(PrepareError::Faults(faults)) => {
            faults.iter().map(|fault| format!("{}: {}", fault.line, fault.what)).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_faults_come_at_once_in_order_and_a_hundred_at_most() {
    let text = "{\"prompt\":\"x\",\"custom_id\":\"a\"}\n\n{\n{\"prompt\":\"y\",\"custom_id\":\"a\"}\n{\"prompt\":\"y\",\"custom_id\":\"a\"}\n[\n";
    assert_eq!(
        faults(text),
        [
            "3: is not valid JSON at column 1: EOF while parsing an object",
            "4: custom_id \"a\" is also on line 1",
            "5: custom_id \"a\" is also on line 1",
            "6: is not a JSON object",
        ]
    );
    assert_eq!(faults("\n\n"), ["1: there is no task in this file"]);
    let faults = faults(&"{\n".repeat(250));
    assert_eq!((faults.len(), &*faults[99]), (100, "100: is not valid JSON at column 1: EOF while parsing an object"));
}

#[test]
fn a_generated_name_may_not_be_taken_either() {
    let text = "{\"prompt\":\"x\",\"custom_id\":\"line-2\"}\n{\"prompt\":\"y\"}\n";
    assert_eq!(faults(text), ["2: custom_id \"line-2\" is also on line 1"]);
}

proptest! {
    #[test]
    fn every_task_knows_its_line_and_a_small_input_is_inline(
        gaps in proptest::collection::vec(0_usize..3, 1..40),
        max_inline in 0_usize..4_000,
    ) {
        let (mut text, mut lines, mut line) = (String::new(), Vec::new(), 0);
        for (index, gap) in gaps.iter().enumerate() {
            text.push_str(&"\n".repeat(*gap));
            line += u64::try_from(*gap).unwrap() + 1;
            lines.push(line);
            text.push_str(&format!("{{\"prompt\":\"{index}\"}}\n"));
        }
        let prepared = prepared(&text, max_inline).unwrap();
        let found: Vec<u64> = (0..prepared.tasks).map(|task| prepared.lines.line(task)).collect();
        prop_assert_eq!(found, lines);
        let file = std::fs::read_to_string(prepared.file.path()).unwrap();
        prop_assert_eq!(u64::try_from(file.len()).unwrap(), prepared.bytes);
        let ids: Vec<String> = file
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["custom_id"].as_str().unwrap().to_owned())
            .collect();
        let inline = prepared.inline.map(|inline| format!("[{}]", String::from_utf8(inline).unwrap()));
        if let Some(inline) = inline {
            prop_assert!(inline.len() - 2 <= max_inline);
            let tasks: Vec<serde_json::Value> = serde_json::from_str(&inline).unwrap();
            let inline: Vec<&str> = tasks.iter().map(|task| task["custom_id"].as_str().unwrap()).collect();
            prop_assert_eq!(inline, ids);
        } else {
            prop_assert!(prepared.bytes > u64::try_from(max_inline).unwrap() / 2);
        }
    }
}
