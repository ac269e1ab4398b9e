//! Holds: the table of crate edges, and which crates may have which outside libraries.
//!
//! A new edge is a decision: its own commit, and the table in ARCHITECTURE.md changes with it.

use std::path::PathBuf;

use super::Fault;
use super::manifest::{Dependency, Manifest};

/// What a crate may import of ours.
struct Edges {
    name: &'static str,
    may_import: &'static [&'static str],
}

const EDGES: &[Edges] = &[
    Edges { name: "domain", may_import: &[] },
    Edges { name: "openai", may_import: &["domain"] },
    Edges { name: "anthropic", may_import: &["openai"] },
    Edges { name: "tasks", may_import: &[] },
    Edges { name: "faults", may_import: &[] },
    Edges { name: "shares", may_import: &[] },
    Edges { name: "weights", may_import: &[] },
    Edges { name: "settings", may_import: &[] },
    Edges { name: "batch-cli", may_import: &["settings", "domain"] },
    Edges { name: "media", may_import: &[] },
    Edges { name: "evm", may_import: &[] },
    Edges { name: "receipts", may_import: &[] },
    Edges { name: "scheduler", may_import: &["domain"] },
    Edges { name: "db", may_import: &[] },
    Edges { name: "store", may_import: &["db", "receipts", "domain", "faults", "tasks"] },
    Edges { name: "files", may_import: &["store", "domain", "shares", "faults", "tasks"] },
    Edges { name: "upstream", may_import: &["openai", "domain", "tasks"] },
    Edges {
        name: "gateway",
        may_import: &[
            "upstream",
            "scheduler",
            "files",
            "store",
            "media",
            "anthropic",
            "openai",
            "domain",
            "shares",
            "faults",
            "tasks",
        ],
    },
    Edges {
        name: "batch",
        may_import: &["gateway", "scheduler", "files", "store", "openai", "domain", "faults", "tasks"],
    },
    Edges { name: "stripe", may_import: &[] },
    Edges { name: "billing", may_import: &["stripe", "evm", "store", "domain", "faults", "tasks"] },
    Edges { name: "audit", may_import: &["receipts", "store", "domain", "faults", "tasks"] },
    Edges { name: "webhooks", may_import: &["store", "domain", "tasks"] },
    Edges {
        name: "api",
        may_import: &[
            "audit",
            "receipts",
            "batch",
            "billing",
            "webhooks",
            "gateway",
            "upstream",
            "files",
            "store",
            "anthropic",
            "openai",
            "domain",
            "shares",
            "faults",
            "tasks",
        ],
    },
    Edges {
        name: "config",
        may_import: &[
            "settings", "batch", "billing", "stripe", "evm", "receipts", "files", "webhooks", "gateway", "upstream",
            "domain",
        ],
    },
    Edges { name: "voices", may_import: &[] },
    Edges { name: "engine", may_import: &["domain", "tasks", "voices"] },
    Edges {
        name: "server",
        may_import: &[
            "api",
            "audit",
            "receipts",
            "batch",
            "billing",
            "batch-cli",
            "config",
            "webhooks",
            "gateway",
            "upstream",
            "scheduler",
            "files",
            "store",
            "media",
            "domain",
            "shares",
            "engine",
            "faults",
            "settings",
            "tasks",
            "voices",
            "weights",
        ],
    },
    Edges { name: "sim", may_import: &["openai", "domain", "tasks"] },
    Edges {
        name: "testkit",
        may_import: &[
            "sim",
            "api",
            "audit",
            "receipts",
            "batch",
            "billing",
            "stripe",
            "evm",
            "webhooks",
            "gateway",
            "upstream",
            "scheduler",
            "files",
            "store",
            "media",
            "domain",
            "tasks",
        ],
    },
    Edges { name: "xtask", may_import: &[] },
];

/// What only tests may import, whatever the table says.
const FOR_TESTS: &[&str] = &["testkit", "sim"];

/// Outside libraries that only some crates may have.
struct Reserved {
    packages: &'static [&'static str],
    only: &'static [&'static str],
    fix: &'static str,
}

const RESERVED: &[Reserved] = &[
    Reserved {
        packages: &[
            "sea-orm",
            "sea-orm-migration",
            "sea-query",
            "sqlx",
            "rusqlite",
            "diesel",
            "tokio-postgres",
            "deadpool-postgres",
        ],
        only: &["db", "store"],
        fix: "only store knows SQL: add a business verb there and call it",
    },
    Reserved {
        packages: &["axum", "axum-extra", "axum-server"],
        only: &["api", "server", "testkit"],
        fix: "only api, server and testkit know axum: give api what it needs and let it answer",
    },
    Reserved {
        packages: &["reqwest", "ureq", "curl", "isahc", "awc"],
        // files: in its manifest alone, for the features that object_store's client is compiled with.
        only: &["stripe", "evm", "webhooks", "weights", "batch-cli", "files", "testkit"],
        fix: "only stripe, evm, webhooks, weights and batch-cli ask others over HTTP this way: model servers are upstream's, buckets files'",
    },
    Reserved {
        packages: &["lettre"],
        only: &["webhooks"],
        fix: "only webhooks sends mail: queue an event in the outbox, and let it be told",
    },
    Reserved {
        packages: &["hyper-rustls"],
        only: &["upstream"],
        fix: "only upstream has connections of its own: ask it, or be served",
    },
    Reserved {
        packages: &["object_store", "aws-sdk-s3", "rust-s3"],
        only: &["files"],
        fix: "only files knows where bytes are kept: give it the bytes",
    },
];

/// Outside libraries that tests may have anyway: a scripted server is how a client is tested, a client how a server is.
const RESERVED_IN_TESTS: &[&str] = &["axum", "reqwest"];

pub fn check(manifest: &Manifest, faults: &mut Vec<Fault>) {
    let fault = |message| Fault { file: manifest.file.clone(), line: 0, message };
    let Some(edges) = EDGES.iter().find(|edges| edges.name == manifest.name) else {
        let message = format!(
            "crate {} is not in the table of edges; add it to xtask/src/tidy/edges.rs and ARCHITECTURE.md",
            manifest.name
        );
        return faults.push(fault(message));
    };
    for dependency in &manifest.dependencies {
        faults.extend(forbidden(edges, dependency).map(fault));
    }
}

/// What is allowed and not used may be decided on anew when it is needed.
pub fn check_use(manifests: &[Manifest], faults: &mut Vec<Fault>) {
    let uses = |name: &str, imported: &str| {
        let is_it = |dependency: &Dependency| dependency.package.strip_prefix("batchin-") == Some(imported);
        manifests.iter().any(|manifest| manifest.name == name && manifest.dependencies.iter().any(is_it))
    };
    for Edges { name, may_import } in EDGES {
        for imported in may_import.iter().filter(|imported| !uses(name, imported)) {
            let message =
                format!("{name} may import {imported} and does not; take the edge out, here and in ARCHITECTURE.md");
            faults.push(Fault { file: PathBuf::from("xtask/src/tidy/edges.rs"), line: 0, message });
        }
    }
}

fn forbidden(edges: &Edges, dependency: &Dependency) -> Option<String> {
    let Dependency { package, is_for_tests } = dependency;
    let name = edges.name;
    if let Some(imported) = package.strip_prefix("batchin-") {
        let is_test_crate = *is_for_tests && FOR_TESTS.contains(&imported);
        let is_allowed = is_test_crate || edges.may_import.contains(&imported);
        return (!is_allowed).then(|| {
            format!(
                "{name} may not import {imported}; move the code to where it is allowed, or decide on the edge: \
                 xtask/src/tidy/edges.rs and ARCHITECTURE.md, in a commit of its own"
            )
        });
    }
    let reserved = RESERVED.iter().find(|reserved| reserved.packages.contains(&package.as_str()))?;
    let is_allowed = reserved.only.contains(&name) || (*is_for_tests && RESERVED_IN_TESTS.contains(&package.as_str()));
    (!is_allowed).then(|| format!("{name} may not depend on {package}: {}", reserved.fix))
}
