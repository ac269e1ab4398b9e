//! Holds: the workspace is tidy, and tidy finds what it is for.

use std::path::PathBuf;

use super::generated::Generated;
use super::*;

#[test]
fn the_workspace_is_tidy() {
    let faults = check(&crate::root().unwrap()).unwrap();
    let shown: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert!(shown.is_empty(), "{}", shown.join("\n"));
}

fn found(krate: &str, path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    source::check(&source::File::new(krate, PathBuf::from(path), text), &mut faults);
    faults.iter().map(ToString::to_string).collect()
}

fn edges_of(manifest: &str) -> Vec<String> {
    let manifest = Manifest::parse(PathBuf::from("Cargo.toml"), manifest).unwrap();
    let mut faults = Vec::new();
    edges::check(&manifest, &mut faults);
    faults.iter().map(ToString::to_string).collect()
}

/// Each text has exactly the one fault that its fragment names, and the text beside it has none.
#[test]
fn each_rule_finds_what_it_is_for() {
    let fixme = format!("//! Holds: x.\n// {}\n", concat!("FIX", "ME"));
    let ignored = format!("//! Holds: x.\n{}]\nfn x() {{}}\n", concat!("#[", "ignore"));
    let sql = format!("//! Holds: x.\nconst A: &str = \"{} 1\";\n", "SELECT");
    let long = format!("//! Holds: x.\n{}", "const A: u8 = 1;\n".repeat(600));
    let stringly = "//! Holds: x.\n#[derive(Debug, thiserror::Error)]\npub enum E {\n    Bad(String),\n}\n";
    let cases = [
        ("api", "crates/api/src/a.rs", "fn x() {}\n", "no header"),
        ("api", "crates/api/src/utils.rs", "//! Holds: x.\n", "says nothing"),
        ("api", "crates/api/src/common/a.rs", "//! Holds: x.\n", "says nothing"),
        ("api", "crates/api/src/a.rs", fixme.as_str(), "mark for later"),
        ("api", "crates/api/src/a.rs", ignored.as_str(), "never runs"),
        ("api", "crates/api/src/a.rs", sql.as_str(), "only store knows SQL"),
        ("api", "crates/api/src/a.rs", long.as_str(), "601 production lines"),
        ("api", "crates/api/src/a.rs", stringly, "bare text"),
    ];
    for (krate, path, text, expected) in cases {
        let faults = found(krate, path, text);
        assert!(matches!(faults.as_slice(), [fault] if fault.contains(expected)), "{expected}: {faults:?}");
    }
    let tests_are_long = format!("//! Holds: x.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "    // x\n".repeat(700));
    let struct_text = "//! Holds: x.\n#[derive(Debug)]\nenum Shape {\n    Named(String),\n}\n";
    for (krate, path, text) in [
        ("store", "crates/store/src/a.rs", sql.as_str()),
        ("api", "crates/api/src/a.rs", tests_are_long.as_str()),
        ("api", "crates/api/src/a/tests.rs", long.as_str()),
        ("api", "crates/api/src/a.rs", struct_text),
    ] {
        assert_eq!(found(krate, path, text), Vec::<String>::new());
    }
}

#[test]
fn an_edge_that_is_not_in_the_table_is_found() {
    let manifest = |name: &str, section: &str, dependency: &str| {
        edges_of(&format!("[package]\nname = \"batchin-{name}\"\n[{section}]\n{dependency}.workspace = true\n"))
    };
    for (name, section, dependency, expected) in [
        ("domain", "dependencies", "batchin-store", "may not import store"),
        ("gateway", "dependencies", "batchin-testkit", "may not import testkit"),
        ("gateway", "dependencies", "sea-orm", "only store knows SQL"),
        ("gateway", "dependencies", "axum", "know axum"),
        ("gateway", "dev-dependencies", "sqlx", "only store knows SQL"),
        ("gateway", "target.'cfg(unix)'.dependencies", "sqlx", "only store knows SQL"),
        ("nobody", "dependencies", "serde", "not in the table"),
    ] {
        let faults = manifest(name, section, dependency);
        assert!(matches!(faults.as_slice(), [fault] if fault.contains(expected)), "{expected}: {faults:?}");
    }
    for (name, section, dependency) in [
        ("gateway", "dependencies", "batchin-store"),
        ("gateway", "dev-dependencies", "batchin-testkit"),
        ("upstream", "dev-dependencies", "axum"),
        ("store", "dependencies", "sea-orm"),
    ] {
        assert_eq!(manifest(name, section, dependency), Vec::<String>::new());
    }
}

#[test]
fn a_generated_file_that_is_old_names_its_command() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("g.json"), "old").unwrap();
    let generated = |current| Generated { file: "g.json", current, fix: "cargo xtask g" };
    let mut faults = Vec::new();
    generated::check_one(folder.path(), &generated(|| Ok("old".to_owned())), &mut faults).unwrap();
    assert!(faults.is_empty());
    generated::check_one(folder.path(), &generated(|| Ok("new".to_owned())), &mut faults).unwrap();
    assert!(faults[0].to_string().contains("cargo xtask g"), "{}", faults[0]);
}
