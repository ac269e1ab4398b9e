//! Holds: what is said of a workflow that a configuration names.

use insta::assert_snapshot;

use super::load_with;
use crate::Flags;

const GRAPH: &str = r#"{
  "6": { "class_type": "CLIPTextEncode", "inputs": { "text": "{{prompt}}" } },
  "9": { "class_type": "SaveImage", "inputs": { "images": ["6", 0] } }
}"#;

/// The faults of a ComfyUI with this workflow, and of a model on it.
fn said(graph: &str, settings: &str, capability: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flux.json");
    std::fs::write(&path, graph).unwrap();
    let text = format!(
        "[[upstreams]]\nname = \"a\"\nkind = \"comfyui\"\nbase_url = \"http://h:8188\"\n{settings}\n[[models]]\nid = \"m\"\n\
         upstreams = [\"a\"]\ncapabilities = [\"{capability}\"]\n[models.pricing]\nimage = 0.003\nvideo_second = 0.05\n"
    );
    let path = path.display().to_string();
    let loaded = load_with(&text.replace("FLUX", &path), &[], Flags::default());
    loaded.map(|_| "no faults".to_owned()).unwrap_or_else(|faults| faults.replace(&path, "flux.json"))
}

#[test]
fn a_workflow_is_read_with_the_configuration() {
    let both = "workflow_file = \"FLUX\"\noutput_node = \"9\"";
    assert_eq!(said(GRAPH, both, "images"), "no faults");
    assert_eq!(said(&GRAPH.replace("{{prompt}}", "{{prompt}} {{frames}}"), both, "video"), "no faults");
    let expect = |settings: &str, capability: &str, expected: &[&str]| {
        let faults = said(GRAPH, settings, capability);
        let told: Vec<_> = faults.lines().collect();
        assert_eq!(told.len(), expected.len(), "{faults}");
        assert!(told.iter().zip(expected).all(|(told, expected)| told.ends_with(expected)), "{faults}");
    };
    expect(
        both,
        "video",
        &[
            ":10:17: the workflow of upstream \"a\" has neither {{frames}} nor {{seconds}}: every film would have the same length",
        ],
    );
    expect(
        "",
        "images",
        &[
            "upstreams[0].output_node is missing; kind \"comfyui\" needs it, for example \"9\"",
            "upstreams[0].workflow_file is missing; kind \"comfyui\" needs it, for example \"/etc/batchin/flux.json\"",
        ],
    );
    expect(
        "workflow_file = \"/nonexistent/flux.json\"\noutput_node = \"9\"",
        "images",
        &[":5:17: upstreams[0].workflow_file cannot read /nonexistent/flux.json: there is no such file"],
    );
    expect(
        "workflow_file = \"FLUX\"\noutput_node = \"10\"",
        "images",
        &[":6:15: upstreams[0].output_node flux.json has no node \"10\""],
    );
    for (graph, expected) in [
        ("{", "flux.json is no JSON: line 1, column 1"),
        ("[]", "flux.json is no graph of ComfyUI's API: an object of nodes, each with `class_type` and `inputs`"),
        ("{\"nodes\":[]}", "flux.json is in the format of ComfyUI's editor; export it there with \"Export (API)\""),
        (&GRAPH.replace("{{prompt}}", "a kite"), "flux.json no input of a node has the mark {{prompt}}"),
        (
            &GRAPH.replace("{{prompt}}", "{{prompt}} {{sed}}"),
            "flux.json node \"6\" has the mark {{sed}}, which is none of prompt, negative_prompt, seed, width, height, steps, n, \
             frames, fps, seconds",
        ),
    ] {
        assert_eq!(said(graph, both, "images"), format!("batchin.toml:5:17: upstreams[0].workflow_file {expected}"));
    }
}

#[test]
fn no_other_kind_has_a_workflow() {
    let text = "[[upstreams]]\nname = \"a\"\nkind = \"vllm\"\nbase_url = \"http://h\"\nworkflow_file = \"x\"\noutput_node = \"9\"\n";
    let faults = load_with(text, &[], Flags::default()).unwrap_err();
    assert_snapshot!(faults, @r#"
    batchin.toml:5:17: upstreams[0].workflow_file does not go with kind "vllm"
    batchin.toml:6:15: upstreams[0].output_node does not go with kind "vllm"
    "#);
}
