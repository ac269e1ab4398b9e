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
        (
            "server",
            "crates/server/src/a.rs",
            "//! Holds: x.\nuse hyper::{Request, client::conn::http1};\n",
            "only upstream talks HTTP",
        ),
        ("api", "crates/api/src/a.rs", long.as_str(), "601 production lines"),
        ("api", "crates/api/src/a.rs", stringly, "bare text"),
        ("api", "crates/api/src/a.rs", "//! Holds: x.\nuse batchin_store::{Outbox, Store};\n", "whole Store"),
        ("api", "crates/api/src/a.rs", "//! Holds: x.\nuse batchin_store as s;\n", "whole Store"),
        ("api", "crates/api/src/a.rs", "//! Holds: x.\nuse batchin_store::*;\n", "whole Store"),
        ("api", "crates/api/src/a.rs", "//! Holds: x.\nfn x(s: &batchin_store::Store) {}\n", "whole Store"),
    ];
    for (krate, path, text, expected) in cases {
        let faults = found(krate, path, text);
        assert!(matches!(faults.as_slice(), [fault] if fault.contains(expected)), "{expected}: {faults:?}");
    }
    let tests_are_long = format!("//! Holds: x.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "    // x\n".repeat(700));
    let struct_text = "//! Holds: x.\n#[derive(Debug)]\nenum Shape {\n    Named(String),\n}\n";
    for (krate, path, text) in [
        ("store", "crates/store/src/a.rs", sql.as_str()),
        ("upstream", "crates/upstream/src/a.rs", "//! Holds: x.\nuse hyper_util::client::legacy::connect::Connect;\n"),
        ("api", "crates/api/src/a.rs", tests_are_long.as_str()),
        ("api", "crates/api/src/a/tests.rs", long.as_str()),
        ("api", "crates/api/src/a.rs", struct_text),
        ("api", "crates/api/src/a.rs", "//! Holds: x.\nuse batchin_store::{Outbox, StoreError};\n"),
        ("api", "crates/api/src/a/tests.rs", "use batchin_store::Store;\n"),
        ("server", "crates/server/src/a.rs", "//! Holds: x.\nuse batchin_store::Store;\n"),
        ("audit", "crates/audit/examples/a.rs", "//! Holds: x.\nuse batchin_store::Store;\n"),
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
        ("gateway", "dependencies", "reqwest", "ask others over HTTP"),
        ("engine", "dependencies", "hyper-rustls", "only upstream"),
        ("batch", "dev-dependencies", "object_store", "only files"),
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
        ("weights", "dependencies", "reqwest"),
        ("server", "dev-dependencies", "reqwest"),
        ("files", "dependencies", "object_store"),
        ("store", "dependencies", "sea-orm"),
    ] {
        assert_eq!(manifest(name, section, dependency), Vec::<String>::new());
    }
}

#[test]
fn an_edge_that_nothing_uses_is_found() {
    let gateway = |dependency: &str| {
        let text = format!("[package]\nname = \"batchin-gateway\"\n[dependencies]\n{dependency}.workspace = true\n");
        let mut faults = Vec::new();
        edges::check_use(&[Manifest::parse(PathBuf::from("Cargo.toml"), &text).unwrap()], &mut faults);
        faults.iter().any(|fault| fault.message.starts_with("gateway may import store and does not"))
    };
    assert_eq!((gateway("batchin-files"), gateway("batchin-store")), (true, false));
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

/// What is found in a crate of these files; a path is below its `src`.
fn taken(krate: &str, files: &[(&str, &str)]) -> Vec<String> {
    let folder = Path::new("crates").join(krate);
    let src = folder.join("src");
    let files: Vec<_> = files.iter().map(|(path, text)| source::File::new(krate, src.join(path), text)).collect();
    let mut faults = Vec::new();
    circles::check(krate, &folder, &files, &mut faults);
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn a_circle_between_files_is_found_however_they_name_each_other() {
    let handed_on = [("lib.rs", "pub use b::B;"), ("a.rs", "use crate::B;"), ("b.rs", "use super::a::A;")];
    let cases: &[(&[(&str, &str)], &str)] = &[
        (
            &[("a.rs", "use crate::{c, b::{self, B as Other}};"), ("b.rs", "fn x() {\n    crate::a::y();\n}")],
            "a → b → a",
        ),
        (&handed_on, "a → b → a"),
        (
            &[("a.rs", "use crate::b::B;"), ("b/mod.rs", "pub use c::B;\nmod c;"), ("b/c.rs", "use crate::a;")],
            "a → b/c → a",
        ),
        (
            &[
                ("x.rs", "mod a;"),
                ("x/a.rs", "use super::b;"),
                ("x/b.rs", "use super::c;"),
                ("x/c.rs", "use super::a;"),
            ],
            "x/a → x/b → x/c → x/a",
        ),
        // Through what lies above both.
        (&[("x.rs", "use crate::b;"), ("x/a.rs", "use super::X;"), ("b.rs", "use crate::x::a::A;")], "b → x/a → x → b"),
        (
            &[
                ("x.rs", "use b::B;"),
                ("x/a.rs", "use super::B;"),
                ("x/b.rs", "use super::a;\npub(in crate::x::a) fn x() {}"),
            ],
            "x/a → x/b → x/a",
        ),
        (
            &[
                ("a.rs", "const A: char = '\"'; use crate::b; const B: &str = \"\\\"\";"),
                ("b.rs", "fn f<'a>(a: &'a crate::a::A) {}"),
            ],
            "a → b → a",
        ),
    ];
    for (files, circle) in cases {
        let faults = taken("k", files);
        assert!(
            matches!(faults.as_slice(), [fault] if fault.contains(&format!("circle: {circle};"))),
            "{circle}: {faults:?}"
        );
    }
    let faults = taken("k", &[("a.rs", "//! Holds: x.\n\nuse crate::{\n    b,\n};\n"), ("b.rs", "use crate::a;")]);
    assert!(faults[0].starts_with("crates/k/src/a.rs:4: "), "{faults:?}");
}

#[test]
fn a_file_may_take_from_below_and_from_others_in_one_direction() {
    let cases: &[&[(&str, &str)]] = &[
        &[
            ("a.rs", "use crate::b;"),
            ("b.rs", "//! See [`crate::a`].\nuse std::a;\nconst A: &str = r#\"use crate::a; \"#; // crate::a::x"),
        ],
        &[("lib.rs", "mod a;\nuse a::A;\npub struct B;"), ("a.rs", "use crate::B;")],
        &[("x.rs", "use a::A;"), ("x/a.rs", "use super::{X, b};"), ("x/b.rs", "use super::X;")],
        &[("a.rs", "use crate::b;"), ("b.rs", "#[cfg(test)]\nmod tests {\n    use crate::a;\n}\n")],
        &[
            ("a.rs", "use crate::b;"),
            ("b/tests.rs", "use crate::a;"),
            ("b.rs", "macro_rules! x { () => { $crate::a::x() } }"),
        ],
        &[("a.rs", "use crate::b;"), ("b.rs", "fn x() { y.a::<u8>(); other::a::x(); impl_of::<'a'>(); }")],
    ];
    for files in cases {
        assert_eq!(taken("k", files), Vec::<String>::new(), "{files:?}");
    }
}

#[test]
fn a_noun_of_the_api_takes_nothing_from_its_siblings() {
    let files = [
        ("v1/mod.rs", "use keys::K;"),
        ("v1/keys/mod.rs", "use crate::shape::S;\nmod one;\npub use one::One;"),
        ("v1/keys/one.rs", "use super::super::Shared;"),
        ("v1/files.rs", "use crate::shape::S;\n\nuse crate::v1::keys::One;"),
        ("shape.rs", ""),
    ];
    let faults = taken("api", &files);
    assert!(
        matches!(faults.as_slice(), [fault] if fault.contains("v1/files takes from its sibling v1/keys (v1/keys/one)")),
        "{faults:?}"
    );
    assert!(faults[0].starts_with("crates/api/src/v1/files.rs:3: "), "{faults:?}");
    assert_eq!(taken("other", &files), Vec::<String>::new());
}

#[test]
fn a_part_of_the_store_takes_only_from_those_before_it() {
    let files = [
        ("lib.rs", "mod queue;\npub use queue::rows::Row;"),
        ("stored.rs", ""),
        ("fence.rs", "use crate::stored::x;"),
        ("money/leases.rs", "use crate::fence::still;\nuse crate::Row;"),
        ("queue/rows.rs", "use crate::{fence, money::credit, stored};"),
        ("money/credit.rs", "use crate::fence;"),
        ("queue.rs", "mod rows;"),
    ];
    let faults = taken("store", &files);
    assert!(
        matches!(faults.as_slice(), [fault] if fault.contains("takes from queue/rows, which stands above it")),
        "{faults:?}"
    );
    assert!(faults[0].starts_with("crates/store/src/money/leases.rs:2: "), "{faults:?}");
    assert_eq!(taken("other", &files[..3]), Vec::<String>::new());
}
